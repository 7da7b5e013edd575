//! What sessions leave behind, for the ledger: what was true when they were opened, the host keys that were accepted, what
//! each recording held, and the manifest that brings it together.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{RecordingId, SessionId, TargetId};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT_FACTS: &str = "INSERT INTO session_facts (session_id, facts) VALUES ($1, $2)";
const FACTS: &str = "SELECT facts FROM session_facts WHERE session_id = $1";
const INSERT_HOST_KEY: &str = "INSERT INTO session_host_keys (session_id, target_id, host_key, at)
                               VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const HOST_KEYS: &str = "SELECT target_id, host_key FROM session_host_keys WHERE session_id = $1 ORDER BY at, host_key";
const SET_SEAL: &str = "UPDATE recordings SET seal = $2 WHERE id = $1";
const SEALS: &str = "SELECT id, seal FROM recordings WHERE session_id = $1 AND seal IS NOT NULL";
const UNSEALED: &str = "SELECT id FROM sessions
                        WHERE sealed_at IS NULL AND ended_at IS NOT NULL
                          AND NOT EXISTS (SELECT 1 FROM recordings r WHERE r.session_id = sessions.id AND r.ended_at IS NULL)
                        ORDER BY ended_at, id LIMIT $1";
const UNSEALED_RECORDINGS: &str =
    "SELECT r.id FROM recordings r JOIN sessions s ON s.id = r.session_id WHERE s.sealed_at IS NULL ORDER BY r.id";
const UNSEALED_SESSIONS: &str = "SELECT id FROM sessions WHERE sealed_at IS NULL ORDER BY id";
const RECORDINGS_OF: &str = "SELECT id FROM recordings WHERE session_id = $1 ORDER BY id";
const MARK: &str = "UPDATE sessions SET sealed_at = $2 WHERE id = $1 AND sealed_at IS NULL";
const IS_SEALED: &str = "SELECT EXISTS (SELECT 1 FROM sessions WHERE id = $1 AND sealed_at IS NOT NULL)";
const INSERT: &str = "INSERT INTO manifests (session_id, bytes) VALUES ($1, $2)";
const AMEND: &str = "INSERT INTO manifest_amendments (session_id, number, bytes)
                     SELECT $1, COALESCE(MAX(number), 0) + 1, $2 FROM manifest_amendments WHERE session_id = $1";
const ALL: &str = "SELECT 0 AS number, bytes FROM manifests WHERE session_id = $1
                   UNION ALL SELECT number, bytes FROM manifest_amendments WHERE session_id = $1 ORDER BY number";

/// Keeps what is true of a session that is opened, as JSON.
pub async fn insert_facts(tx: &mut Tx, session: SessionId, facts: &str) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_FACTS).bind(session.as_uuid()).bind(facts));
    inserted.map(drop).map_err(doing("keep what a session was opened under"))
}

/// What was true when the session was opened; `None` for one of an older version.
pub async fn facts(tx: &mut Tx, session: SessionId) -> Result<Option<String>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(FACTS).bind(session.as_uuid()).fetch_optional(c));
    found.map_err(doing("read what a session was opened under"))
}

/// Notes that a target proved itself by this key; once is enough.
pub async fn note_host_key(
    tx: &mut Tx,
    session: SessionId,
    target: TargetId,
    host_key: &str,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(INSERT_HOST_KEY)
        .bind(session.as_uuid())
        .bind(target.as_uuid())
        .bind(host_key)
        .bind(at));
    noted.map(drop).map_err(doing("note a target's host key"))
}

/// The host keys that were accepted in a session, in the order of their first use.
pub async fn host_keys(tx: &mut Tx, session: SessionId) -> Result<Vec<(TargetId, String)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, String)>(HOST_KEYS).bind(session.as_uuid()).fetch_all(c));
    let rows = rows.map_err(doing("read the host keys of a session"))?;
    Ok(rows.into_iter().map(|(target, key)| (TargetId::from_uuid(target), key)).collect())
}

/// Keeps what a recording that has ended held, as JSON.
pub async fn set_seal(tx: &mut Tx, recording: RecordingId, seal: &str) -> Result<(), DbError> {
    let set = change_either!(tx, |c| sqlx::query(SET_SEAL).bind(recording.as_uuid()).bind(seal));
    set.map(drop).map_err(doing("keep what a recording held"))
}

/// What the recordings of a session held.
pub async fn seals(tx: &mut Tx, session: SessionId) -> Result<Vec<(RecordingId, String)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, String)>(SEALS).bind(session.as_uuid()).fetch_all(c));
    let rows = rows.map_err(doing("read what a session's recordings held"))?;
    Ok(rows.into_iter().map(|(id, seal)| (RecordingId::from_uuid(id), seal)).collect())
}

/// At most `limit` sessions that are over, with all of their recordings at rest, and have no manifest; the oldest first.
pub async fn unsealed(tx: &mut Tx, limit: u32) -> Result<Vec<SessionId>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(UNSEALED).bind(i64::from(limit)).fetch_all(c));
    let rows = rows.map_err(doing("look for sessions to seal"))?;
    Ok(rows.into_iter().map(SessionId::from_uuid).collect())
}

/// Recordings of sessions that have not been sealed: of those that live, and of those that ended just now.
pub async fn unsealed_recordings(tx: &mut Tx) -> Result<Vec<RecordingId>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(UNSEALED_RECORDINGS).fetch_all(c));
    let rows = rows.map_err(doing("look for recordings that are not sealed"))?;
    Ok(rows.into_iter().map(RecordingId::from_uuid).collect())
}

/// Sessions that have no manifest: those that live, those that ended just now, those of an older version.
pub async fn unsealed_sessions(tx: &mut Tx) -> Result<Vec<SessionId>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(UNSEALED_SESSIONS).fetch_all(c));
    let rows = rows.map_err(doing("look for sessions that are not sealed"))?;
    Ok(rows.into_iter().map(SessionId::from_uuid).collect())
}

/// The recordings of a session.
pub async fn recordings_of(tx: &mut Tx, session: SessionId) -> Result<Vec<RecordingId>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(RECORDINGS_OF).bind(session.as_uuid()).fetch_all(c));
    let rows = rows.map_err(doing("list a session's recordings"))?;
    Ok(rows.into_iter().map(RecordingId::from_uuid).collect())
}

/// Marks a session as sealed; `false` if it was before.
pub async fn mark_sealed(tx: &mut Tx, session: SessionId, at: DateTime<Utc>) -> Result<bool, DbError> {
    let marked = change_either!(tx, |c| sqlx::query(MARK).bind(session.as_uuid()).bind(at));
    Ok(marked.map_err(doing("seal a session"))? == 1)
}

/// Whether the session's manifest is its last word by now: it is not while a recording is being completed.
pub async fn is_sealed(tx: &mut Tx, session: SessionId) -> Result<bool, DbError> {
    let sealed = on_either!(tx, |c| sqlx::query_scalar(IS_SEALED).bind(session.as_uuid()).fetch_one(c));
    sealed.map_err(doing("look whether a session is sealed"))
}

/// Adds the manifest of a session.
pub async fn insert(tx: &mut Tx, session: SessionId, bytes: &[u8]) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT).bind(session.as_uuid()).bind(bytes));
    inserted.map(drop).map_err(doing("add a manifest"))
}

/// Adds a manifest that supersedes the one before it.
pub async fn amend(tx: &mut Tx, session: SessionId, bytes: &[u8]) -> Result<(), DbError> {
    let amended = change_either!(tx, |c| sqlx::query(AMEND).bind(session.as_uuid()).bind(bytes));
    amended.map(drop).map_err(doing("add a manifest"))
}

/// The manifest of a session that counts: the last one.
pub async fn find(tx: &mut Tx, session: SessionId) -> Result<Option<Vec<u8>>, DbError> {
    Ok(all(tx, session).await?.pop())
}

/// The manifests of a session, each of which supersedes the one before it.
pub async fn all(tx: &mut Tx, session: SessionId) -> Result<Vec<Vec<u8>>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (i32, Vec<u8>)>(ALL).bind(session.as_uuid()).fetch_all(c));
    let rows = rows.map_err(doing("read a manifest"))?;
    Ok(rows.into_iter().map(|(_, bytes)| bytes).collect())
}
