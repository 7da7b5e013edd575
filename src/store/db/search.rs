//! Lines of sessions in blocks, and the index that finds the blocks. The same keys are in both databases, but how they are found is
//! their own: an array under a GIN index on PostgreSQL, words of a full-text table (FTS5) on SQLite. What a person looks for never
//! gets here, only the keys of it, which are numbers.
//!
//! On PostgreSQL a key that very many blocks have would cost a walk over all of them, in no order. So each block also has a key for its
//! stretch of the table, and whoever searches asks for the newest stretches first ([`find`]'s `from`).

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::search::lines::Line;
use sallyport_domain::search::{Kind, grams};
use uuid::Uuid;

use super::{DbError, Tx, answer, change_either, doing, on_either, to_count};

/// Blocks of one stretch: a power of two, of this exponent.
const STRETCH_BITS: u32 = 12;

/// Blocks that share a key on PostgreSQL for where they are.
pub const STRETCH: i64 = 1 << STRETCH_BITS;

/// Negative keys: the kinds, then the stretches.
const FIRST_STRETCH: i64 = -16;

const PUT_POSTGRES: &str = "INSERT INTO search_blocks (id, recording_id, kind, number, times, lines, keys)
     SELECT n.id, $1, $2, $3, $4, $5, $6 || ($7 - (n.id >> $8))::integer FROM (SELECT nextval('search_block_ids') AS id) n
     ON CONFLICT (recording_id, kind, number) DO UPDATE SET times = excluded.times, lines = excluded.lines,
        keys = $6 || ($7 - (search_blocks.id >> $8))::integer";
const PUT_SQLITE: &str =
    "INSERT INTO search_blocks (recording_id, kind, number, times, lines) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (recording_id, kind, number) DO UPDATE SET times = excluded.times, lines = excluded.lines RETURNING id";
const PUT_KEYS_SQLITE: &str = "INSERT OR REPLACE INTO search_keys (rowid, keys) VALUES ($1, $2)";

/// A search that takes longer than this is given up by the database, in milliseconds.
pub const DEADLINE_MS: u32 = 3000;

/// The plan is the index and nothing else: the planner's guess of how many rows have a key may be off by orders of magnitude.
const PLAN_POSTGRES: &str = "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
            set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true), set_config('statement_timeout', $1, true)";
const FIND_POSTGRES: &str = "WITH found AS MATERIALIZED (SELECT id FROM search_blocks WHERE keys @> $1 AND keys && $2)
     SELECT b.id, b.recording_id, b.kind, b.number, b.times, b.lines, r.session_id, r.channel, r.started_at,
            EXISTS (SELECT 1 FROM deletion_sessions d WHERE d.session_id = r.session_id AND d.state IN ('deleting', 'deleted')) AS is_gone
     FROM (SELECT id FROM found WHERE id >= $3 AND id < $4 ORDER BY id DESC LIMIT $5) f
     JOIN search_blocks b ON b.id = f.id JOIN recordings r ON r.id = b.recording_id ORDER BY b.id DESC";
const FIND_SQLITE: &str = "SELECT b.id, b.recording_id, b.kind, b.number, b.times, b.lines, r.session_id, r.channel, r.started_at,
            EXISTS (SELECT 1 FROM deletion_sessions d WHERE d.session_id = r.session_id AND d.state IN ('deleting', 'deleted')) AS is_gone
     FROM (SELECT rowid AS id FROM search_keys WHERE search_keys MATCH $1 AND rowid >= $2 AND rowid < $3 ORDER BY rowid DESC LIMIT $4) f
     CROSS JOIN search_blocks b ON b.id = f.id CROSS JOIN recordings r ON r.id = b.recording_id ORDER BY b.id DESC";
const LAST: &str = "SELECT CAST(COALESCE(MAX(id), 0) AS BIGINT) FROM search_blocks";
const LINES: &str = "SELECT times, lines FROM search_blocks WHERE recording_id = $1 AND kind = $2 AND number = $3";

const DELETE_FROM: &str = "DELETE FROM search_blocks WHERE recording_id = $1 AND kind = $2 AND number >= $3";
const DELETE_KEYS_FROM_SQLITE: &str = "DELETE FROM search_keys WHERE rowid IN
     (SELECT id FROM search_blocks WHERE recording_id = $1 AND kind = $2 AND number >= $3)";
const DELETE_SESSION: &str =
    "DELETE FROM search_blocks WHERE recording_id IN (SELECT id FROM recordings WHERE session_id = $1)";
const DELETE_KEYS_SQLITE: &str = "DELETE FROM search_keys WHERE rowid IN (SELECT id FROM search_blocks
     WHERE recording_id IN (SELECT id FROM recordings WHERE session_id = $1))";
const DELETE_STATE: &str = "DELETE FROM search_state WHERE session_id = $1";

const SET_STATE: &str = "INSERT INTO search_state (recording_id, session_id, lines, bytes, commands, is_cut)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (recording_id) DO UPDATE SET lines = excluded.lines, bytes = excluded.bytes, commands = excluded.commands,
        is_cut = excluded.is_cut";
/// `$2`: but for this recording.
const STATE: &str = "SELECT CAST(COALESCE(SUM(lines), 0) AS BIGINT), CAST(COALESCE(SUM(bytes), 0) AS BIGINT),
                            CAST(COALESCE(SUM(commands), 0) AS BIGINT), COALESCE(SUM(CASE WHEN is_cut THEN 1 ELSE 0 END), 0) > 0
                     FROM search_state WHERE session_id = $1 AND ($2 IS NULL OR recording_id <> $2)";

/// Some lines of one recording that follow each other, or one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub kind: Kind,
    /// Counts the recording's blocks of this kind; of a command, its number.
    pub number: u64,
    pub lines: Vec<Line>,
}

/// A block as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBlock {
    pub id: i64,
    pub recording: RecordingId,
    pub session: SessionId,
    pub channel: u32,
    pub started_at: DateTime<Utc>,
    pub block: Block,
    /// What was recorded there is being deleted.
    pub is_gone: bool,
}

/// How much of a recording, or of a session, is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indexed {
    /// Lines that were printed or are of files.
    pub lines: u64,
    pub bytes: u64,
    pub commands: u64,
    /// There is more than is in the index.
    pub is_cut: bool,
}

/// Which kinds of lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    All,
    /// Commands and files: what lists show, without what was printed.
    Lists,
    One(Kind),
}

const fn kind_number(kind: Kind) -> i32 {
    match kind {
        Kind::Command => 0,
        Kind::Screen => 1,
        Kind::File => 2,
    }
}

const LISTS_KEY: i32 = -4;

const fn kind_key(kind: Kind) -> i32 {
    -1 - kind_number(kind)
}

#[derive(sqlx::FromRow)]
struct FoundRow {
    id: i64,
    recording_id: Uuid,
    kind: i32,
    number: i64,
    times: Vec<u8>,
    lines: String,
    session_id: Uuid,
    channel: i32,
    started_at: DateTime<Utc>,
    is_gone: bool,
}

const READ: &str = "read what was found";
const WRITE: &str = "add to the search index";
const SEARCH: &str = "search";

fn read_lines(times: &[u8], lines: &str) -> Result<Vec<Line>, DbError> {
    let (times, rest) = times.as_chunks::<8>();
    let texts: Vec<&str> = lines.lines().collect();
    if !rest.is_empty() || times.len() != texts.len() {
        return Err(DbError::corrupt(READ, "lines without their times"));
    }
    let line = |(at, text): (&[u8; 8], &str)| Line { at: u64::from_le_bytes(*at), text: text.to_owned() };
    Ok(times.iter().zip(texts).map(line).collect())
}

impl TryFrom<FoundRow> for FoundBlock {
    type Error = DbError;

    fn try_from(row: FoundRow) -> Result<Self, DbError> {
        let kind = Kind::ALL.into_iter().find(|kind| kind_number(*kind) == row.kind);
        let block = Block {
            kind: kind.ok_or_else(|| DbError::corrupt(READ, "an unknown kind"))?,
            number: to_count(READ, row.number)?,
            lines: read_lines(&row.times, &row.lines)?,
        };
        Ok(Self {
            id: row.id,
            recording: RecordingId::from_uuid(row.recording_id),
            session: SessionId::from_uuid(row.session_id),
            channel: to_count(READ, row.channel)?,
            started_at: row.started_at,
            block,
            is_gone: row.is_gone,
        })
    }
}

/// The keys of a block: of its lines, and of its kind.
fn keys(block: &Block) -> Vec<i32> {
    let mut keys = BTreeSet::from([kind_key(block.kind)]);
    if block.kind != Kind::Screen {
        keys.insert(LISTS_KEY);
    }
    block.lines.iter().for_each(|line| grams::of_line(&grams::fold(&line.text), &mut keys));
    keys.into_iter().collect()
}

/// A key as a word of the full-text table.
fn word(key: i32) -> String {
    format!("k{:x}", key.cast_unsigned())
}

/// Writes a block, over an earlier one of this number. Its lines are without line feeds and NUL.
pub async fn put(tx: &mut Tx, recording: RecordingId, block: &Block) -> Result<(), DbError> {
    let times: Vec<u8> = block.lines.iter().flat_map(|line| line.at.to_le_bytes()).collect();
    let mut lines = String::new();
    for line in &block.lines {
        lines.push_str(&line.text);
        lines.push('\n');
    }
    let (kind, number) = (kind_number(block.kind), i64::try_from(block.number).unwrap_or(i64::MAX));
    let keys = keys(block);
    match tx {
        Tx::Postgres(tx) => {
            let query = sqlx::query(PUT_POSTGRES)
                .bind(recording.as_uuid())
                .bind(kind)
                .bind(number)
                .bind(times)
                .bind(lines)
                .bind(keys)
                .bind(FIRST_STRETCH)
                .bind(STRETCH_BITS.cast_signed());
            answer(query.execute(&mut **tx)).await.map(drop).map_err(doing(WRITE))
        }
        Tx::Sqlite { tx, .. } => {
            let row = sqlx::query_scalar(PUT_SQLITE)
                .bind(recording.as_uuid())
                .bind(kind)
                .bind(number)
                .bind(times)
                .bind(lines);
            let id: i64 = answer(row.fetch_one(&mut **tx)).await.map_err(doing(WRITE))?;
            let words: Vec<String> = keys.into_iter().map(word).collect();
            let query = sqlx::query(PUT_KEYS_SQLITE).bind(id).bind(words.join(" "));
            answer(query.execute(&mut **tx)).await.map(drop).map_err(doing(WRITE))
        }
    }
}

/// Forgets the recording's blocks of a kind from a number on.
pub async fn delete_from(tx: &mut Tx, recording: RecordingId, kind: Kind, number: u64) -> Result<(), DbError> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    if let Tx::Sqlite { tx, .. } = tx {
        let query = sqlx::query(DELETE_KEYS_FROM_SQLITE).bind(recording.as_uuid()).bind(kind_number(kind)).bind(number);
        answer(query.execute(&mut **tx)).await.map_err(doing(WRITE))?;
    }
    let deleted =
        change_either!(tx, |c| sqlx::query(DELETE_FROM).bind(recording.as_uuid()).bind(kind_number(kind)).bind(number));
    deleted.map(drop).map_err(doing(WRITE))
}

/// Forgets everything of a session.
pub async fn delete_session(tx: &mut Tx, session: SessionId) -> Result<(), DbError> {
    const FORGET: &str = "forget a session's part of the search index";
    if let Tx::Sqlite { tx, .. } = tx {
        let query = sqlx::query(DELETE_KEYS_SQLITE).bind(session.as_uuid());
        answer(query.execute(&mut **tx)).await.map_err(doing(FORGET))?;
    }
    for statement in [DELETE_SESSION, DELETE_STATE] {
        change_either!(tx, |c| sqlx::query(statement).bind(session.as_uuid())).map_err(doing(FORGET))?;
    }
    Ok(())
}

/// Notes how much of a recording is in the index.
pub async fn set_state(
    tx: &mut Tx,
    recording: RecordingId,
    session: SessionId,
    state: &Indexed,
) -> Result<(), DbError> {
    let big = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let set = change_either!(tx, |c| sqlx::query(SET_STATE)
        .bind(recording.as_uuid())
        .bind(session.as_uuid())
        .bind(big(state.lines))
        .bind(big(state.bytes))
        .bind(big(state.commands))
        .bind(state.is_cut));
    set.map(drop).map_err(doing(WRITE))
}

/// How much of a session is in the index, but for one recording of it.
pub async fn state(tx: &mut Tx, session: SessionId, but: Option<RecordingId>) -> Result<Indexed, DbError> {
    let but = but.map(RecordingId::as_uuid);
    let row = on_either!(tx, |c| sqlx::query_as(STATE).bind(session.as_uuid()).bind(but).fetch_one(c));
    let (lines, bytes, commands, is_cut): (i64, i64, i64, bool) = row.map_err(doing(READ))?;
    Ok(Indexed {
        lines: to_count(READ, lines)?,
        bytes: to_count(READ, bytes)?,
        commands: to_count(READ, commands)?,
        is_cut,
    })
}

/// How much of several sessions is in the index.
pub async fn states(tx: &mut Tx, sessions: &[SessionId]) -> Result<HashMap<SessionId, Indexed>, DbError> {
    let mut states = HashMap::with_capacity(sessions.len());
    for session in sessions {
        states.insert(*session, state(tx, *session, None).await?);
    }
    Ok(states)
}

/// The id of the newest block; 0 if there is none.
pub async fn last(tx: &mut Tx) -> Result<i64, DbError> {
    let last = on_either!(tx, |c| sqlx::query_scalar(LAST).fetch_one(c));
    last.map_err(doing(SEARCH))
}

/// Makes this transaction one that searches: with a deadline, and by the index.
pub async fn prepare(tx: &mut Tx) -> Result<(), DbError> {
    let Tx::Postgres(tx) = tx else { return Ok(()) };
    let query = sqlx::query(PLAN_POSTGRES).bind(DEADLINE_MS.to_string());
    answer(query.execute(&mut **tx)).await.map(drop).map_err(doing(SEARCH))
}

/// At most `limit` blocks that have all of `wanted`, the newest first, from the id `from` up to, not including, `before`. Whether the
/// lines have what is looked for, only a look at them tells.
pub async fn find(
    tx: &mut Tx,
    kinds: Kinds,
    wanted: &[i32],
    from: i64,
    before: i64,
    limit: u32,
) -> Result<Vec<FoundBlock>, DbError> {
    let mut all = wanted.to_vec();
    match kinds {
        Kinds::All => {}
        Kinds::Lists => all.push(LISTS_KEY),
        Kinds::One(kind) => all.push(kind_key(kind)),
    }
    let rows = match tx {
        Tx::Postgres(tx) => {
            let stretch = |id: i64| i32::try_from(FIRST_STRETCH - (id >> STRETCH_BITS)).unwrap_or(i32::MIN);
            let stretches: Vec<i32> = (stretch(before - 1)..=stretch(from)).collect();
            let query = sqlx::query_as(FIND_POSTGRES).bind(all).bind(stretches).bind(from).bind(before);
            answer(query.bind(i64::from(limit)).fetch_all(&mut **tx)).await
        }
        Tx::Sqlite { tx, .. } => {
            let words: Vec<String> = all.into_iter().map(word).collect();
            let query = sqlx::query_as(FIND_SQLITE).bind(words.join(" AND ")).bind(from).bind(before);
            answer(query.bind(i64::from(limit)).fetch_all(&mut **tx)).await
        }
    };
    let rows: Vec<FoundRow> = rows.map_err(doing(SEARCH))?;
    rows.into_iter().map(FoundBlock::try_from).collect()
}

/// The lines of one block; none if there is no such block.
pub async fn lines(tx: &mut Tx, recording: RecordingId, kind: Kind, number: u64) -> Result<Vec<Line>, DbError> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let row = on_either!(tx, |c| sqlx::query_as(LINES)
        .bind(recording.as_uuid())
        .bind(kind_number(kind))
        .bind(number)
        .fetch_optional(c));
    let row: Option<(Vec<u8>, String)> = row.map_err(doing(READ))?;
    row.map_or_else(|| Ok(Vec::new()), |(times, lines)| read_lines(&times, &lines))
}
