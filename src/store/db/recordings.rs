//! Recordings, their sealed segments, and the tail of those that live.

use chrono::{DateTime, Utc};
use sallyport_domain::channel::Program;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::recording::segment::Hash;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_count, to_json};

const INSERT: &str =
    "INSERT INTO recordings (id, session_id, channel, program, term, cols, rows, started_at, chain, recipients)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const UPDATE: &str = "UPDATE recordings SET ended_at = $2, duration_us = $3, segments = $4, chain = $5, bytes_in = $6,
                                            bytes_out = $7, gaps = $8, exit = COALESCE($9, exit),
                                            resume = CASE WHEN $2 IS NULL THEN COALESCE($10, resume) END, commands = $11,
                                            lost_from = CASE WHEN NOT $13 THEN lost_from WHEN $2 IS NOT NULL THEN NULL
                                                             ELSE COALESCE($10, lost_from) END,
                                            closed = CASE WHEN $13 AND $2 IS NOT NULL THEN NULL ELSE closed END
                      WHERE id = $1 AND ended_at IS NULL AND generation = $12";
const GENERATION: &str = "SELECT generation FROM recordings WHERE id = $1";
const FIND: &str =
    "SELECT id, session_id, channel, program, term, cols, rows, started_at, ended_at, duration_us, segments,
                           chain, bytes_in, bytes_out, gaps, commands, exit, resume, recipients
                    FROM recordings WHERE id = $1";
const OF_SESSION: &str =
    "SELECT id, session_id, channel, program, term, cols, rows, started_at, ended_at, duration_us, segments,
                                 chain, bytes_in, bytes_out, gaps, commands, exit, resume, recipients
                          FROM recordings WHERE session_id = $1 ORDER BY channel";
/// `$1` is the last id of the page before.
const LIST: &str =
    "SELECT id, session_id, channel, program, term, cols, rows, started_at, ended_at, duration_us, segments,
                           chain, bytes_in, bytes_out, gaps, commands, exit, resume, recipients
                    FROM recordings WHERE ($1 IS NULL OR id < $1) ORDER BY id DESC LIMIT $2";
const UNFINISHED_ON: &str = "SELECT r.id, s.run FROM recordings r JOIN sessions s ON s.id = r.session_id
                             WHERE s.node = $1 AND r.ended_at IS NULL ORDER BY r.id";
const UNFINISHED_OF: &str = "SELECT r.id FROM recordings r JOIN sessions s ON s.id = r.session_id
                             WHERE s.run = $1 AND r.ended_at IS NULL ORDER BY r.id";
const TAKE_OVER: &str = "UPDATE recordings SET generation = generation + 1
                         WHERE id = $1 AND (ended_at IS NULL OR ($2 AND lost_from IS NOT NULL))
                         RETURNING generation, COALESCE(lost_from, resume, '') AS goes_on, closed, ended_at, duration_us,
                                   segments, chain, bytes_in, bytes_out, gaps, commands, exit, seal, lost_from";
/// Where a recording that was sealed from what had been shipped goes on with its node's journal is kept until that has been there.
const OPEN: &str = "UPDATE recordings SET lost_from = COALESCE(lost_from, resume, ''), ended_at = NULL, seal = NULL
                    WHERE id = $1";
const KEEP_CLOSED: &str = "UPDATE recordings SET closed = $2 WHERE id = $1";
const CLOSE_AGAIN: &str =
    "UPDATE recordings SET ended_at = $2, duration_us = $3, segments = $4, chain = $5, bytes_in = $6,
                                                 bytes_out = $7, gaps = $8, commands = $9, exit = $10, seal = $11,
                                                 lost_from = $12, resume = NULL, closed = NULL
                           WHERE id = $1";
const PUT_BACK: &str = "DELETE FROM superseded_segments WHERE recording_id = $1 AND object = $2";
const KEEP_SUPERSEDED: &str = "INSERT INTO superseded_segments (recording_id, object, number, sha256, stored_bytes)
                               SELECT recording_id, object, number, sha256, stored_bytes
                               FROM segments WHERE recording_id = $1 AND number >= $2";
const DROP_SUPERSEDED: &str = "DELETE FROM segments WHERE recording_id = $1 AND number >= $2";
const GO_BACK: &str = "UPDATE recordings SET segments = $2, chain = $3 WHERE id = $1";
const INSERT_SEGMENT: &str = "INSERT INTO segments (recording_id, number, start_us, end_us, bytes, stored_bytes, sha256, chain, object)
                              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (recording_id, number) DO NOTHING";
const SEGMENTS: &str = "SELECT number, start_us, end_us, bytes, stored_bytes, sha256, chain, object
                        FROM segments WHERE recording_id = $1 AND number >= $2 ORDER BY number";
const INSERT_TAIL: &str = "INSERT INTO live_tail (recording_id, number, segment, frames) VALUES ($1, $2, $3, $4)
                           ON CONFLICT (recording_id, number) DO NOTHING";
const DELETE_TAIL: &str = "DELETE FROM live_tail WHERE recording_id = $1 AND segment <= $2";
const TAIL: &str = "SELECT number, segment, frames FROM live_tail
                    WHERE recording_id = $1 AND number >= $2 ORDER BY number LIMIT $3";

/// What does not change about a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecording {
    pub id: RecordingId,
    pub session: SessionId,
    /// Counts the session's channels from 1.
    pub channel: u32,
    pub program: Program,
    /// TERM and the first size, if there was a terminal.
    pub term: Option<String>,
    pub cols: Option<u16>,
    pub rows: Option<u16>,
    pub started_at: DateTime<Utc>,
    /// The public keys of the client's that it is encrypted to; none if it is not.
    pub recipients: Vec<String>,
}

impl NewRecording {
    /// Whether the bastion may keep, show and search what was recorded once the recording is over. What is encrypted to keys of the
    /// client's it may not: no text of it goes into the database in clear, not even while it lives.
    pub fn is_in_clear(&self) -> bool {
        self.recipients.is_empty()
    }
}

/// How far a recording has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub ended_at: Option<DateTime<Utc>>,
    pub duration_us: u64,
    /// How many segments are sealed.
    pub segments: u32,
    /// The head of the hash chain over them.
    pub chain: Hash,
    pub bytes_in: u64,
    /// stdout and stderr
    pub bytes_out: u64,
    pub gaps: u32,
    /// Commands, those that are not kept too.
    pub commands: u64,
    /// JSON: status or signal.
    pub exit: Option<String>,
    /// JSON: where the journal is sealed up to, for a restart.
    pub resume: Option<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            ended_at: None,
            duration_us: 0,
            segments: 0,
            chain: Hash::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            gaps: 0,
            commands: 0,
            exit: None,
            resume: None,
        }
    }
}

/// A recording as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingRecord {
    pub recording: NewRecording,
    pub progress: Progress,
}

/// By whose hand a recording is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hand {
    /// Whoever takes a recording over has the next one, and those before can write no more.
    pub generation: u32,
    /// It reads what a process left behind on this node's disk. Without it, what the node's disk has may complete it later.
    pub recovers: bool,
}

/// A recording that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub generation: u32,
    /// JSON: where its journal goes on; `None` at the start.
    pub resume: Option<String>,
    /// What had been sealed of it when its node was lost, if it has been opened again since, now or before.
    pub closed: Option<Closed>,
}

/// A recording that was sealed from what a lost node had shipped. Kept while that node's journal completes it: should the node be
/// lost once more, this is what counts, and not the part that it had come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    ended_at: DateTime<Utc>,
    duration_us: i64,
    segments: i32,
    chain: Hash,
    bytes_in: i64,
    bytes_out: i64,
    gaps: i32,
    commands: i64,
    exit: Option<String>,
    seal: Option<String>,
    lost_from: Option<String>,
    /// The segments that were put aside when it was opened again; `None` until they are.
    aside: Option<Vec<SegmentRecord>>,
}

/// A sealed segment: where it is and what it hashes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// From 0.
    pub number: u32,
    /// Microseconds since the recording began.
    pub start_us: u64,
    pub end_us: u64,
    /// Before compression.
    pub bytes: u64,
    pub stored_bytes: u64,
    /// Of the stored bytes.
    pub sha256: Hash,
    /// The chain after this segment.
    pub chain: Hash,
    /// The key in the object store.
    pub object: String,
}

/// A run of frames that no segment holds yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailRun {
    /// Counts runs over the whole recording, from 0.
    pub number: u64,
    /// The segment that these frames will be in.
    pub segment: u32,
    pub frames: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct RecordingRow {
    id: Uuid,
    session_id: Uuid,
    channel: i32,
    program: String,
    term: Option<String>,
    cols: Option<i32>,
    rows: Option<i32>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    duration_us: i64,
    segments: i32,
    chain: Vec<u8>,
    bytes_in: i64,
    bytes_out: i64,
    gaps: i32,
    commands: i64,
    exit: Option<String>,
    resume: Option<String>,
    recipients: Option<String>,
}

#[derive(sqlx::FromRow)]
struct TakenRow {
    generation: i32,
    goes_on: String,
    closed: Option<String>,
    ended_at: Option<DateTime<Utc>>,
    duration_us: i64,
    segments: i32,
    chain: Vec<u8>,
    bytes_in: i64,
    bytes_out: i64,
    gaps: i32,
    commands: i64,
    exit: Option<String>,
    seal: Option<String>,
    lost_from: Option<String>,
}

#[derive(sqlx::FromRow)]
struct SegmentRow {
    number: i32,
    start_us: i64,
    end_us: i64,
    bytes: i64,
    stored_bytes: i64,
    sha256: Vec<u8>,
    chain: Vec<u8>,
    object: String,
}

#[derive(sqlx::FromRow)]
struct TailRow {
    number: i64,
    segment: i32,
    frames: Vec<u8>,
}

const READ: &str = "read a recording";

fn to_hash(bytes: Vec<u8>) -> Result<Hash, DbError> {
    bytes.try_into().map(Hash).map_err(|_| DbError::corrupt(READ, "a hash that is not 32 bytes long"))
}

/// Counts are stored in signed columns; one beyond them stays at their greatest.
fn big(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn small(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl TryFrom<RecordingRow> for RecordingRecord {
    type Error = DbError;

    fn try_from(row: RecordingRow) -> Result<Self, DbError> {
        let recording = NewRecording {
            id: RecordingId::from_uuid(row.id),
            session: SessionId::from_uuid(row.session_id),
            channel: to_count(READ, row.channel)?,
            program: from_json(READ, &row.program)?,
            term: row.term,
            cols: row.cols.map(|cols| to_count(READ, cols)).transpose()?,
            rows: row.rows.map(|rows| to_count(READ, rows)).transpose()?,
            started_at: row.started_at,
            recipients: row.recipients.map(|all| from_json(READ, &all)).transpose()?.unwrap_or_default(),
        };
        let progress = Progress {
            ended_at: row.ended_at,
            duration_us: to_count(READ, row.duration_us)?,
            segments: to_count(READ, row.segments)?,
            chain: to_hash(row.chain)?,
            bytes_in: to_count(READ, row.bytes_in)?,
            bytes_out: to_count(READ, row.bytes_out)?,
            gaps: to_count(READ, row.gaps)?,
            commands: to_count(READ, row.commands)?,
            exit: row.exit,
            resume: row.resume,
        };
        Ok(Self { recording, progress })
    }
}

impl TryFrom<SegmentRow> for SegmentRecord {
    type Error = DbError;

    fn try_from(row: SegmentRow) -> Result<Self, DbError> {
        Ok(Self {
            number: to_count(READ, row.number)?,
            start_us: to_count(READ, row.start_us)?,
            end_us: to_count(READ, row.end_us)?,
            bytes: to_count(READ, row.bytes)?,
            stored_bytes: to_count(READ, row.stored_bytes)?,
            sha256: to_hash(row.sha256)?,
            chain: to_hash(row.chain)?,
            object: row.object,
        })
    }
}

/// Adds a recording that starts.
pub async fn insert(tx: &mut Tx, recording: &NewRecording) -> Result<(), DbError> {
    const START: &str = "start a recording";
    let program = to_json(START, &recording.program)?;
    let recipients = (!recording.is_in_clear()).then(|| to_json(START, &recording.recipients)).transpose()?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(recording.id.as_uuid())
        .bind(recording.session.as_uuid())
        .bind(small(recording.channel))
        .bind(&program)
        .bind(recording.term.as_deref())
        .bind(recording.cols.map(i32::from))
        .bind(recording.rows.map(i32::from))
        .bind(recording.started_at)
        .bind(Hash::ZERO.0.as_slice())
        .bind(recipients.as_deref()));
    inserted.map(drop).map_err(doing(START))
}

/// Notes how far the recording has come; `false` if it is unknown, has ended, or is in other hands. An exit or a resume point
/// that is not given stays as it was; with the end the resume point goes, for it holds what was on the screen.
pub async fn update(tx: &mut Tx, id: RecordingId, hand: Hand, progress: &Progress) -> Result<bool, DbError> {
    let updated = change_either!(tx, |c| sqlx::query(UPDATE)
        .bind(id.as_uuid())
        .bind(progress.ended_at)
        .bind(big(progress.duration_us))
        .bind(small(progress.segments))
        .bind(progress.chain.0.as_slice())
        .bind(big(progress.bytes_in))
        .bind(big(progress.bytes_out))
        .bind(small(progress.gaps))
        .bind(progress.exit.as_deref())
        .bind(progress.resume.as_deref())
        .bind(big(progress.commands))
        .bind(small(hand.generation))
        .bind(hand.recovers));
    Ok(updated.map_err(doing("note a recording's progress"))? == 1)
}

/// Who keeps the recording now; `None` if it is unknown.
pub async fn generation(tx: &mut Tx, id: RecordingId) -> Result<Option<u32>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, i32>(GENERATION).bind(id.as_uuid()).fetch_optional(c));
    found.map_err(doing(READ))?.map(|generation| to_count(READ, generation)).transpose()
}

/// Takes a recording over from whoever kept it, which can write no more from then on. One that was sealed from what a lost node had
/// shipped is opened again by who has its journal, and by nobody else: there would be less to seal. `None` if it is unknown, or
/// complete.
pub async fn take_over(tx: &mut Tx, id: RecordingId, has_journal: bool) -> Result<Option<Taken>, DbError> {
    const TAKE: &str = "take over a recording";
    let row = on_either!(tx, |c| sqlx::query_as::<_, TakenRow>(TAKE_OVER)
        .bind(id.as_uuid())
        .bind(has_journal)
        .fetch_optional(c));
    let Some(row) = row.map_err(doing(TAKE))? else { return Ok(None) };
    // The row is locked by now.
    let opened = change_either!(tx, |c| sqlx::query(OPEN).bind(id.as_uuid()));
    opened.map_err(doing(TAKE))?;
    let generation = to_count(TAKE, row.generation)?;
    let resume = Some(row.goes_on).filter(|resume| !resume.is_empty());
    let closed = match (row.closed, row.ended_at) {
        (Some(closed), _) => Some(from_json(TAKE, &closed)?),
        (None, None) => None,
        (None, Some(ended_at)) => Some(Closed {
            ended_at,
            duration_us: row.duration_us,
            segments: row.segments,
            chain: to_hash(row.chain)?,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            gaps: row.gaps,
            commands: row.commands,
            exit: row.exit,
            seal: row.seal,
            lost_from: row.lost_from,
            aside: None,
        }),
    };
    Ok(Some(Taken { generation, resume, closed }))
}

/// Puts the segments from number `from` on aside, for they will be sealed anew; `chain` is the head of the hash chain before them.
/// What was `closed` with them is kept with them.
pub async fn supersede_segments(
    tx: &mut Tx,
    id: RecordingId,
    (from, chain): (u32, Hash),
    closed: Option<Closed>,
) -> Result<(), DbError> {
    const ASIDE: &str = "put superseded segments aside";
    if let Some(mut closed) = closed
        && closed.aside.is_none()
    {
        closed.aside = Some(segments(tx, id, from).await?);
        let json = to_json(ASIDE, &closed)?;
        let kept = change_either!(tx, |c| sqlx::query(KEEP_CLOSED).bind(id.as_uuid()).bind(&json));
        kept.map_err(doing(ASIDE))?;
    }
    for statement in [KEEP_SUPERSEDED, DROP_SUPERSEDED] {
        let done = change_either!(tx, |c| sqlx::query(statement).bind(id.as_uuid()).bind(small(from)));
        done.map_err(doing(ASIDE))?;
    }
    // Or a reader who comes before they are sealed would miss them, and take it for damage.
    let back =
        change_either!(tx, |c| sqlx::query(GO_BACK).bind(id.as_uuid()).bind(small(from)).bind(chain.0.as_slice()));
    back.map(drop).map_err(doing(ASIDE))
}

/// Makes a recording that was taken over what it was when its node was lost before; what the node's journal gave since is put aside.
pub async fn close_again(tx: &mut Tx, id: RecordingId, closed: &Closed) -> Result<(), DbError> {
    const CLOSE: &str = "close a recording again";
    let aside = closed.aside.as_deref().unwrap_or_default();
    let before = closed.segments.saturating_sub(small(u32::try_from(aside.len()).unwrap_or(u32::MAX)));
    supersede_segments(tx, id, (to_count(CLOSE, before)?, closed.chain), None).await?;
    for segment in aside {
        insert_segment(tx, id, segment).await?;
        let back = change_either!(tx, |c| sqlx::query(PUT_BACK).bind(id.as_uuid()).bind(&segment.object));
        back.map_err(doing(CLOSE))?;
    }
    let done = change_either!(tx, |c| sqlx::query(CLOSE_AGAIN)
        .bind(id.as_uuid())
        .bind(closed.ended_at)
        .bind(closed.duration_us)
        .bind(closed.segments)
        .bind(closed.chain.0.as_slice())
        .bind(closed.bytes_in)
        .bind(closed.bytes_out)
        .bind(closed.gaps)
        .bind(closed.commands)
        .bind(closed.exit.as_deref())
        .bind(closed.seal.as_deref())
        .bind(closed.lost_from.as_deref()));
    done.map(drop).map_err(doing(CLOSE))
}

/// The recording with this id.
pub async fn find(tx: &mut Tx, id: RecordingId) -> Result<Option<RecordingRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<RecordingRow> = row.map_err(doing("find a recording"))?;
    row.map(RecordingRecord::try_from).transpose()
}

/// The session's recordings, by channel.
pub async fn of_session(tx: &mut Tx, session: SessionId) -> Result<Vec<RecordingRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(OF_SESSION).bind(session.as_uuid()).fetch_all(c));
    let rows: Vec<RecordingRow> = rows.map_err(doing("list a session's recordings"))?;
    rows.into_iter().map(RecordingRecord::try_from).collect()
}

/// At most `limit` recordings, the latest first, continuing after `after`.
pub async fn list(tx: &mut Tx, after: Option<RecordingId>, limit: u32) -> Result<Vec<RecordingRecord>, DbError> {
    let after = after.map(RecordingId::as_uuid);
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(after).bind(i64::from(limit)).fetch_all(c));
    let rows: Vec<RecordingRow> = rows.map_err(doing("list recordings"))?;
    rows.into_iter().map(RecordingRecord::try_from).collect()
}

/// The recordings of `node`'s sessions that have no end yet, with the process that served them.
pub async fn unfinished_on(tx: &mut Tx, node: &str) -> Result<Vec<(RecordingId, Option<Uuid>)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, Option<Uuid>)>(UNFINISHED_ON).bind(node).fetch_all(c));
    let rows = rows.map_err(doing("list unfinished recordings"))?;
    Ok(rows.into_iter().map(|(id, run)| (RecordingId::from_uuid(id), run)).collect())
}

/// The recordings of the sessions of one process that have no end yet.
pub async fn unfinished_of(tx: &mut Tx, run: Uuid) -> Result<Vec<RecordingId>, DbError> {
    let ids = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(UNFINISHED_OF).bind(run).fetch_all(c));
    let ids = ids.map_err(doing("list unfinished recordings"))?;
    Ok(ids.into_iter().map(RecordingId::from_uuid).collect())
}

/// Adds a sealed segment; `false` if it was added before.
pub async fn insert_segment(tx: &mut Tx, id: RecordingId, segment: &SegmentRecord) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_SEGMENT)
        .bind(id.as_uuid())
        .bind(small(segment.number))
        .bind(big(segment.start_us))
        .bind(big(segment.end_us))
        .bind(big(segment.bytes))
        .bind(big(segment.stored_bytes))
        .bind(segment.sha256.0.as_slice())
        .bind(segment.chain.0.as_slice())
        .bind(&segment.object));
    Ok(inserted.map_err(doing("add a segment"))? == 1)
}

/// The recording's sealed segments from number `from` on, in order.
pub async fn segments(tx: &mut Tx, id: RecordingId, from: u32) -> Result<Vec<SegmentRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(SEGMENTS).bind(id.as_uuid()).bind(small(from)).fetch_all(c));
    let rows: Vec<SegmentRow> = rows.map_err(doing("list a recording's segments"))?;
    rows.into_iter().map(SegmentRecord::try_from).collect()
}

/// Adds a run of frames to the live tail; `false` if it was added before.
pub async fn insert_tail(
    tx: &mut Tx,
    id: RecordingId,
    number: u64,
    segment: u32,
    frames: &[u8],
) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_TAIL)
        .bind(id.as_uuid())
        .bind(big(number))
        .bind(small(segment))
        .bind(frames));
    Ok(inserted.map_err(doing("add to a recording's live tail"))? == 1)
}

/// Forgets the runs that are in segments up to and including `segment`, and says how many there were.
pub async fn delete_tail(tx: &mut Tx, id: RecordingId, segment: u32) -> Result<u64, DbError> {
    let deleted = change_either!(tx, |c| sqlx::query(DELETE_TAIL).bind(id.as_uuid()).bind(small(segment)));
    deleted.map_err(doing("forget a recording's live tail"))
}

/// At most `limit` runs of the live tail, from number `from` on, in order.
pub async fn tail(tx: &mut Tx, id: RecordingId, from: u64, limit: u32) -> Result<Vec<TailRun>, DbError> {
    let rows =
        on_either!(tx, |c| sqlx::query_as(TAIL).bind(id.as_uuid()).bind(big(from)).bind(i64::from(limit)).fetch_all(c));
    let rows: Vec<TailRow> = rows.map_err(doing("read a recording's live tail"))?;
    let run = |row: TailRow| {
        Ok(TailRun { number: to_count(READ, row.number)?, segment: to_count(READ, row.segment)?, frames: row.frames })
    };
    rows.into_iter().map(run).collect()
}
