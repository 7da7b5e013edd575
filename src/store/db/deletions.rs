//! Deletions of what was recorded: who asked, who answered, and how far each session's has come. The rows stay.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sallyport_domain::event::Actor;
use sallyport_domain::id::{DeletionId, EventId, RecordingId, SessionId, TargetId};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, manifests, on_either, search, to_count, to_json};

const INSERT: &str = "INSERT INTO deletions (id, reason, asked_by, asked_at) VALUES ($1, $2, $3, $4)";
const INSERT_SESSION: &str = "INSERT INTO deletion_sessions (deletion_id, session_id, rule, state, changed_at)
                              VALUES ($1, $2, $3, 'asked', $4)";
const ANSWER: &str = "UPDATE deletions SET answered_by = $2, answered_at = $3, refusal = $4
                      WHERE id = $1 AND answered_at IS NULL";
const FIND: &str =
    "SELECT id, reason, asked_by, asked_at, answered_by, answered_at, refusal FROM deletions WHERE id = $1";
/// `$1`: only those without an answer. `$2`: the last of the page before.
const LIST: &str = "SELECT id, reason, asked_by, asked_at, answered_by, answered_at, refusal FROM deletions
                    WHERE (NOT $1 OR answered_at IS NULL) AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
const SESSIONS: &str = "SELECT session_id, rule, state, changed_at, tombstone, tries, error
                        FROM deletion_sessions WHERE deletion_id = $1 ORDER BY session_id";
const COUNTS: &str = "SELECT state, COUNT(*) FROM deletion_sessions WHERE deletion_id = $1 GROUP BY state";
const OF_SESSION: &str = "SELECT deletion_id, state FROM deletion_sessions WHERE session_id = $1 AND state <> 'kept'";
const KEEP: &str = "UPDATE deletion_sessions SET state = 'kept', changed_at = $3
                    WHERE deletion_id = $1 AND session_id = $2 AND state = 'asked'";
const BEGIN: &str = "UPDATE deletion_sessions SET state = 'deleting', changed_at = $3, tombstone = $4
                     WHERE deletion_id = $1 AND session_id = $2 AND state = 'asked'";
const FAIL: &str = "UPDATE deletion_sessions SET tries = tries + 1, try_at = $3, error = $4
                    WHERE deletion_id = $1 AND session_id = $2 AND state = 'deleting'";
const DONE: &str = "UPDATE deletion_sessions SET state = 'deleted', changed_at = $3, error = NULL
                    WHERE deletion_id = $1 AND session_id = $2 AND state = 'deleting'";
const UNDER_WAY: &str = "SELECT deletion_id, session_id, tombstone, tries FROM deletion_sessions
                         WHERE state = 'deleting' AND (try_at IS NULL OR try_at <= $1) ORDER BY changed_at, session_id LIMIT $2";
const HOLD: &str = "UPDATE recordings SET lost_from = lost_from WHERE session_id = $1";
const COMPLETE_NO_MORE: &str = "UPDATE recordings SET lost_from = NULL WHERE session_id = $1";
/// Those too that were put aside when the recording was completed.
const OBJECTS: &str =
    "SELECT s.object FROM segments s JOIN recordings r ON r.id = s.recording_id WHERE r.session_id = $1
                       UNION SELECT s.object FROM superseded_segments s JOIN recordings r ON r.id = s.recording_id
                             WHERE r.session_id = $1
                       ORDER BY 1";
const DELETE_TAILS: &str =
    "DELETE FROM live_tail WHERE recording_id IN (SELECT id FROM recordings WHERE session_id = $1)";
const DELETE_COMMANDS: &str = "DELETE FROM commands WHERE session_id = $1";
const FORGET_SCREENS: &str =
    "UPDATE recordings SET resume = NULL, lost_from = NULL, closed = NULL WHERE session_id = $1";
/// Sessions that ended before `$1`, are at rest, are not asked for or deleted, not held, and not refused to a rule since `$2`; behind
/// `($3, $4)`.
const CANDIDATES: &str = "SELECT s.id, s.target_id, s.ended_at FROM sessions s JOIN manifests m ON m.session_id = s.id
     WHERE s.ended_at < $1 AND s.sealed_at IS NOT NULL
       AND EXISTS (SELECT 1 FROM recordings r WHERE r.session_id = s.id)
       AND NOT EXISTS (SELECT 1 FROM deletion_sessions d WHERE d.session_id = s.id
                       AND (d.state <> 'kept' OR (d.rule IS NOT NULL AND d.changed_at > $2)))
       AND NOT EXISTS (SELECT 1 FROM legal_holds h WHERE h.released_at IS NULL
                       AND ((h.scope = 'session' AND h.subject = s.id) OR (h.scope = 'grant' AND h.subject = s.grant_id)
                            OR (h.scope = 'target' AND h.subject = s.target_id)))
       AND ($3 IS NULL OR s.ended_at > $3 OR (s.ended_at = $3 AND s.id > $4))
     ORDER BY s.ended_at, s.id LIMIT $5";

/// A deletion as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub id: DeletionId,
    pub reason: String,
    pub asked_by: Actor,
    pub asked_at: DateTime<Utc>,
    pub answer: Option<Answer>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub by: Actor,
    pub at: DateTime<Utc>,
    /// Why not; `None` if the answer is yes.
    pub refusal: Option<String>,
}

/// How far the deletion of a session's recordings has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody has said yes yet.
    Asked,
    /// It stays: somebody said no, or a hold was set.
    Kept,
    /// The tombstone is written; objects go.
    Deleting,
    Deleted,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Asked, Stage::Kept, Stage::Deleting, Stage::Deleted];

    /// The word in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Asked => "asked",
            Stage::Kept => "kept",
            Stage::Deleting => "deleting",
            Stage::Deleted => "deleted",
        }
    }

    fn read(word: &str) -> Result<Self, DbError> {
        let found = Stage::ALL.into_iter().find(|stage| stage.as_str() == word);
        found.ok_or_else(|| DbError::corrupt(READ, "an unknown state"))
    }
}

/// One session of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletionSession {
    pub session: SessionId,
    pub rule: Option<String>,
    pub stage: Stage,
    pub changed_at: DateTime<Utc>,
    pub tombstone: Option<EventId>,
    pub tries: u32,
    /// Why the last try to remove objects failed.
    pub error: Option<String>,
}

/// A session whose objects are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    pub deletion: DeletionId,
    pub session: SessionId,
    pub tombstone: EventId,
    pub tries: u32,
}

/// A session that a retention rule may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub session: SessionId,
    pub target: TargetId,
    pub ended_at: DateTime<Utc>,
}

const READ: &str = "read a deletion";

#[derive(sqlx::FromRow)]
struct DeletionRow {
    id: Uuid,
    reason: String,
    asked_by: String,
    asked_at: DateTime<Utc>,
    answered_by: Option<String>,
    answered_at: Option<DateTime<Utc>>,
    refusal: Option<String>,
}

impl TryFrom<DeletionRow> for Deletion {
    type Error = DbError;

    fn try_from(row: DeletionRow) -> Result<Self, DbError> {
        let answer = match (row.answered_by, row.answered_at) {
            (Some(by), Some(at)) => Some(Answer { by: from_json(READ, &by)?, at, refusal: row.refusal }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(DbError::corrupt(READ, "half an answer")),
        };
        Ok(Self {
            id: DeletionId::from_uuid(row.id),
            reason: row.reason,
            asked_by: from_json(READ, &row.asked_by)?,
            asked_at: row.asked_at,
            answer,
        })
    }
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    session_id: Uuid,
    rule: Option<String>,
    state: String,
    changed_at: DateTime<Utc>,
    tombstone: Option<Uuid>,
    tries: i32,
    error: Option<String>,
}

impl TryFrom<SessionRow> for DeletionSession {
    type Error = DbError;

    fn try_from(row: SessionRow) -> Result<Self, DbError> {
        Ok(Self {
            session: SessionId::from_uuid(row.session_id),
            rule: row.rule,
            stage: Stage::read(&row.state)?,
            changed_at: row.changed_at,
            tombstone: row.tombstone.map(EventId::from_uuid),
            tries: to_count(READ, row.tries)?,
            error: row.error,
        })
    }
}

/// Adds a deletion that is asked for.
pub async fn insert(tx: &mut Tx, deletion: &Deletion) -> Result<(), DbError> {
    const ASK: &str = "ask for a deletion";
    let asked_by = to_json(ASK, &deletion.asked_by)?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(deletion.id.as_uuid())
        .bind(&deletion.reason)
        .bind(&asked_by)
        .bind(deletion.asked_at));
    inserted.map(drop).map_err(doing(ASK))
}

/// Adds a session to a deletion. That it is not in another one that stands is the caller's to look for first.
pub async fn insert_session(
    tx: &mut Tx,
    deletion: DeletionId,
    session: SessionId,
    rule: Option<&str>,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_SESSION)
        .bind(deletion.as_uuid())
        .bind(session.as_uuid())
        .bind(rule)
        .bind(at));
    inserted.map(drop).map_err(doing("ask for a session's deletion"))
}

/// Writes the answer; `false` if there is one already, or no such deletion.
pub async fn answer(tx: &mut Tx, id: DeletionId, answer: &Answer) -> Result<bool, DbError> {
    const ANSWERING: &str = "answer a deletion";
    let by = to_json(ANSWERING, &answer.by)?;
    let changed = change_either!(tx, |c| sqlx::query(ANSWER)
        .bind(id.as_uuid())
        .bind(&by)
        .bind(answer.at)
        .bind(answer.refusal.as_deref()));
    Ok(changed.map_err(doing(ANSWERING))? == 1)
}

/// The deletion with this id.
pub async fn find(tx: &mut Tx, id: DeletionId) -> Result<Option<Deletion>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<DeletionRow> = row.map_err(doing(READ))?;
    row.map(Deletion::try_from).transpose()
}

/// At most `limit` deletions, the latest first; `before` is the last of the page before.
pub async fn list(tx: &mut Tx, open: bool, before: Option<DeletionId>, limit: u32) -> Result<Vec<Deletion>, DbError> {
    let before = before.map(DeletionId::as_uuid);
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(open).bind(before).bind(i64::from(limit)).fetch_all(c));
    let rows: Vec<DeletionRow> = rows.map_err(doing("list deletions"))?;
    rows.into_iter().map(Deletion::try_from).collect()
}

/// The sessions of a deletion.
pub async fn sessions(tx: &mut Tx, id: DeletionId) -> Result<Vec<DeletionSession>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(SESSIONS).bind(id.as_uuid()).fetch_all(c));
    let rows: Vec<SessionRow> = rows.map_err(doing(READ))?;
    rows.into_iter().map(DeletionSession::try_from).collect()
}

/// How many sessions of a deletion are at which stage.
pub async fn counts(tx: &mut Tx, id: DeletionId) -> Result<HashMap<Stage, u64>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (String, i64)>(COUNTS).bind(id.as_uuid()).fetch_all(c));
    let rows = rows.map_err(doing(READ))?;
    rows.into_iter().map(|(state, count)| Ok((Stage::read(&state)?, to_count(READ, count)?))).collect()
}

/// The deletion that a session is in, and how far it has come; `None` if its recordings stay.
pub async fn of_session(tx: &mut Tx, session: SessionId) -> Result<Option<(DeletionId, Stage)>, DbError> {
    let found =
        on_either!(tx, |c| sqlx::query_as::<_, (Uuid, String)>(OF_SESSION).bind(session.as_uuid()).fetch_optional(c));
    let found = found.map_err(doing(READ))?;
    found.map(|(id, state)| Ok((DeletionId::from_uuid(id), Stage::read(&state)?))).transpose()
}

/// The session's recordings stay after all; `false` if they were not just asked for.
pub async fn keep(tx: &mut Tx, id: DeletionId, session: SessionId, at: DateTime<Utc>) -> Result<bool, DbError> {
    let kept = change_either!(tx, |c| sqlx::query(KEEP).bind(id.as_uuid()).bind(session.as_uuid()).bind(at));
    Ok(kept.map_err(doing("keep what was to be deleted"))? == 1)
}

/// Keeps the session's recordings as they are from now on: what a lost node may still bring is not taken any more. `false` if one of
/// them is being completed just now.
pub async fn settle(tx: &mut Tx, session: SessionId) -> Result<bool, DbError> {
    const SETTLE: &str = "settle what is to be deleted";
    // Whoever takes a recording over has its row until the session is open again; so these rows come first.
    change_either!(tx, |c| sqlx::query(HOLD).bind(session.as_uuid())).map_err(doing(SETTLE))?;
    if !manifests::is_sealed(tx, session).await? {
        return Ok(false);
    }
    change_either!(tx, |c| sqlx::query(COMPLETE_NO_MORE).bind(session.as_uuid())).map_err(doing(SETTLE))?;
    Ok(true)
}

/// The session's recordings go from now on, as the event `tombstone` says.
pub async fn begin(
    tx: &mut Tx,
    id: DeletionId,
    session: SessionId,
    at: DateTime<Utc>,
    tombstone: EventId,
) -> Result<bool, DbError> {
    let begun = change_either!(tx, |c| sqlx::query(BEGIN)
        .bind(id.as_uuid())
        .bind(session.as_uuid())
        .bind(at)
        .bind(tombstone.as_uuid()));
    Ok(begun.map_err(doing("begin a deletion"))? == 1)
}

/// Something could not be removed; it is tried again at `try_at`.
pub async fn fail(tx: &mut Tx, under_way: &UnderWay, try_at: DateTime<Utc>, error: &str) -> Result<(), DbError> {
    let failed = change_either!(tx, |c| sqlx::query(FAIL)
        .bind(under_way.deletion.as_uuid())
        .bind(under_way.session.as_uuid())
        .bind(try_at)
        .bind(error));
    failed.map(drop).map_err(doing("note that a deletion failed"))
}

/// Removes what the database has of the session's recordings besides what proves them, and marks it deleted; `false` if it was before.
pub async fn finish(tx: &mut Tx, under_way: &UnderWay, at: DateTime<Utc>) -> Result<bool, DbError> {
    const FINISH: &str = "finish a deletion";
    let (deletion, session) = (under_way.deletion.as_uuid(), under_way.session.as_uuid());
    let done = change_either!(tx, |c| sqlx::query(DONE).bind(deletion).bind(session).bind(at));
    if done.map_err(doing(FINISH))? == 0 {
        return Ok(false);
    }
    for statement in [DELETE_TAILS, DELETE_COMMANDS, FORGET_SCREENS] {
        change_either!(tx, |c| sqlx::query(statement).bind(session)).map_err(doing(FINISH))?;
    }
    search::delete_session(tx, under_way.session).await?;
    Ok(true)
}

/// At most `limit` sessions whose objects are to go and may be tried at `now`, the oldest first.
pub async fn under_way(tx: &mut Tx, now: DateTime<Utc>, limit: u32) -> Result<Vec<UnderWay>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, Uuid, Uuid, i32)>(UNDER_WAY)
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows = rows.map_err(doing("look for deletions under way"))?;
    let row = |(deletion, session, tombstone, tries)| {
        Ok(UnderWay {
            deletion: DeletionId::from_uuid(deletion),
            session: SessionId::from_uuid(session),
            tombstone: EventId::from_uuid(tombstone),
            tries: to_count(READ, tries)?,
        })
    };
    rows.into_iter().map(row).collect()
}

/// The keys of all objects that hold what was recorded in the session.
pub async fn objects(tx: &mut Tx, session: SessionId) -> Result<Vec<String>, DbError> {
    let keys = on_either!(tx, |c| sqlx::query_scalar(OBJECTS).bind(session.as_uuid()).fetch_all(c));
    keys.map_err(doing("list a session's objects"))
}

/// At most `limit` sessions that ended before `ended`, whose recordings no deletion and no hold concerns, and that were not refused to
/// a rule after `refused`; the oldest first, continuing behind `after`.
pub async fn candidates(
    tx: &mut Tx,
    ended: DateTime<Utc>,
    refused: DateTime<Utc>,
    after: Option<Candidate>,
    limit: u32,
) -> Result<Vec<Candidate>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, Uuid, DateTime<Utc>)>(CANDIDATES)
        .bind(ended)
        .bind(refused)
        .bind(after.map(|after| after.ended_at))
        .bind(after.map(|after| after.session.as_uuid()))
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows = rows.map_err(doing("look for what is due for deletion"))?;
    let row = |(session, target, ended_at)| Candidate {
        session: SessionId::from_uuid(session),
        target: TargetId::from_uuid(target),
        ended_at,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// How far the deletion of a recording has come, if its session's recordings are deleted or are being deleted.
pub async fn of_recording(tx: &mut Tx, recording: RecordingId) -> Result<Option<Stage>, DbError> {
    const OF_RECORDING: &str =
        "SELECT d.state FROM deletion_sessions d JOIN recordings r ON r.session_id = d.session_id
                                WHERE r.id = $1 AND d.state IN ('deleting', 'deleted')";
    let found =
        on_either!(tx, |c| sqlx::query_scalar::<_, String>(OF_RECORDING).bind(recording.as_uuid()).fetch_optional(c));
    found.map_err(doing(READ))?.map(|state| Stage::read(&state)).transpose()
}

#[cfg(test)]
mod tests {
    use sallyport_domain::channel::Program;
    use sallyport_domain::hash::Hash;

    use super::*;
    use crate::store::db::recordings::{self, Hand, NewRecording, Progress, SegmentRecord};
    use crate::store::db::sessions;
    use crate::store::db::testing::on_both;
    use crate::store::db::tests::furnish_sessions;

    fn segment(number: u32, object: &str) -> SegmentRecord {
        let (sha256, chain) = (Hash::of(object.as_bytes()), Hash::ZERO);
        let object = object.to_owned();
        SegmentRecord { number, start_us: 0, end_us: 1, bytes: 1, stored_bytes: 1, sha256, chain, object }
    }

    #[tokio::test]
    async fn a_session_is_deleted_with_what_was_put_aside_and_never_while_it_is_completed_nor_completed_afterwards() {
        on_both(|db| async move {
            let (_, all) = furnish_sessions(&db, 1).await;
            let (session, id) = (all[0], RecordingId::from_uuid(Uuid::now_v7()));
            let at = DateTime::from_timestamp(1_772_366_400, 0).unwrap();
            let (term, cols, rows, started_at) = (None, None, None, at);
            let (program, recipients) = (Program::Shell, Vec::new());
            let new = NewRecording { id, session, channel: 1, program, term, cols, rows, started_at, recipients };
            let lives = Progress { segments: 1, resume: Some("its screen".to_owned()), ..Progress::default() };
            let ended = Progress { ended_at: Some(at), segments: 2, ..Progress::default() };
            let mut tx = db.write().await.unwrap();
            recordings::insert(&mut tx, &new).await.unwrap();
            recordings::insert_segment(&mut tx, id, &segment(0, "0")).await.unwrap();
            let hand = |generation, recovers| Hand { generation, recovers };
            assert!(recordings::update(&mut tx, id, hand(0, false), &lives).await.unwrap());

            // Its node is lost: another one closes it.
            let taken = recordings::take_over(&mut tx, id, false).await.unwrap().unwrap();
            assert_eq!((taken.generation, taken.resume.as_deref()), (1, Some("its screen")));
            recordings::insert_segment(&mut tx, id, &segment(1, "1-1")).await.unwrap();
            assert!(!recordings::update(&mut tx, id, hand(0, false), &lives).await.unwrap(), "it is in other hands");
            assert!(recordings::update(&mut tx, id, hand(1, false), &ended).await.unwrap());
            sessions::end(&mut tx, session, at, &sallyport_domain::event::SessionEnd::Crashed).await.unwrap();
            assert!(manifests::mark_sealed(&mut tx, session, at).await.unwrap());
            // Who comes later, and has no journal either, leaves it as it is.
            assert_eq!(recordings::take_over(&mut tx, id, false).await.unwrap(), None);
            // It returns.
            let taken = recordings::take_over(&mut tx, id, true).await.unwrap().unwrap();
            assert_eq!((taken.generation, taken.resume.as_deref()), (2, Some("its screen")));
            recordings::supersede_segments(&mut tx, id, (1, Hash::ZERO), None).await.unwrap();
            let progress = recordings::find(&mut tx, id).await.unwrap().unwrap().progress;
            assert_eq!((progress.segments, progress.ended_at), (1, None), "no reader misses what was put aside");
            sessions::unseal(&mut tx, session).await.unwrap();
            assert!(!settle(&mut tx, session).await.unwrap(), "it is being completed");
            recordings::insert_segment(&mut tx, id, &segment(1, "1-2")).await.unwrap();
            assert_eq!(objects(&mut tx, session).await.unwrap(), ["0", "1-1", "1-2"]);

            // It is lost again before it is done, and somebody deletes what there is.
            let taken = recordings::take_over(&mut tx, id, false).await.unwrap().unwrap();
            assert!(recordings::update(&mut tx, id, hand(taken.generation, false), &ended).await.unwrap());
            assert!(manifests::mark_sealed(&mut tx, session, at).await.unwrap());
            assert!(settle(&mut tx, session).await.unwrap());
            assert_eq!(recordings::take_over(&mut tx, id, true).await.unwrap(), None);
            let row = recordings::find(&mut tx, id).await.unwrap().unwrap();
            assert_eq!(row.progress.resume, None, "what was on the screen is forgotten");
        })
        .await;
    }
}
