//! Who follows which session live: each proves every second that they read, by giving back what the stream gave them.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{PrincipalId, SessionId, WatchId};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str = "INSERT INTO session_watches (id, session_id, principal_id, beat, beat_until)
                      VALUES ($1, $2, $3, $4, $5)";
/// One beat is out at a time: a new one takes the place of one that came back.
const BEAT: &str = "UPDATE session_watches SET beat = $2, beat_until = $3 WHERE id = $1 AND until = beat_until";
/// A beat counts from when it went out, however late it comes back, and coming back twice it counts no longer.
const ANSWER: &str = "UPDATE session_watches SET until = beat_until WHERE id = $1 AND session_id = $2 AND beat = $3";
const COUNTS: &str = "SELECT COUNT(*) FROM session_watches WHERE id = $1 AND until > $2";
const END: &str = "UPDATE session_watches SET beat_until = $2, until = $2 WHERE id = $1";
const OF_SESSION: &str = "SELECT session_id, principal_id, until FROM session_watches
                          WHERE session_id = $1 AND until > $2 ORDER BY id";
const FORGET: &str = "DELETE FROM session_watches WHERE beat_until < $1";

/// Somebody who follows a session, and until when they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchRecord {
    pub session: SessionId,
    /// `None` for the operator on the bastion's own host.
    pub person: Option<PrincipalId>,
    pub until: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct WatchRow {
    session_id: Uuid,
    principal_id: Option<Uuid>,
    until: DateTime<Utc>,
}

/// What goes into the stream, and until when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    pub token: Uuid,
    pub until: DateTime<Utc>,
}

/// Adds somebody who begins to follow; they count once their first beat came back.
pub async fn insert(
    tx: &mut Tx,
    id: WatchId,
    session: SessionId,
    person: Option<PrincipalId>,
    beat: Beat,
) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(id.as_uuid())
        .bind(session.as_uuid())
        .bind(person.map(PrincipalId::as_uuid))
        .bind(beat.token)
        .bind(beat.until));
    inserted.map(drop).map_err(doing("begin to watch"))
}

/// Puts a new beat in the place of the last; `false` while that has not come back.
pub async fn beat(tx: &mut Tx, id: WatchId, beat: Beat) -> Result<bool, DbError> {
    let changed = change_either!(tx, |c| sqlx::query(BEAT).bind(id.as_uuid()).bind(beat.token).bind(beat.until));
    Ok(changed.map_err(doing("ask whether a watcher reads"))? == 1)
}

/// Takes a beat that came back; `false` if it is not the one that is out.
pub async fn answer(tx: &mut Tx, id: WatchId, session: SessionId, token: Uuid) -> Result<bool, DbError> {
    let changed = change_either!(tx, |c| sqlx::query(ANSWER).bind(id.as_uuid()).bind(session.as_uuid()).bind(token));
    Ok(changed.map_err(doing("note that a watcher reads"))? == 1)
}

/// They follow no longer.
pub async fn end(tx: &mut Tx, id: WatchId, at: DateTime<Utc>) -> Result<(), DbError> {
    let ended = change_either!(tx, |c| sqlx::query(END).bind(id.as_uuid()).bind(at));
    ended.map(drop).map_err(doing("end a watch"))
}

/// Whether they count at `now`.
pub async fn counts(tx: &mut Tx, id: WatchId, now: DateTime<Utc>) -> Result<bool, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(COUNTS).bind(id.as_uuid()).bind(now).fetch_one(c));
    let found: i64 = found.map_err(doing("find a watcher"))?;
    Ok(found > 0)
}

/// Who is known to follow the session at `now`.
pub async fn of_session(tx: &mut Tx, session: SessionId, now: DateTime<Utc>) -> Result<Vec<WatchRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(OF_SESSION).bind(session.as_uuid()).bind(now).fetch_all(c));
    let rows: Vec<WatchRow> = rows.map_err(doing("find a session's watchers"))?;
    let record = |row: WatchRow| WatchRecord {
        session: SessionId::from_uuid(row.session_id),
        person: row.principal_id.map(PrincipalId::from_uuid),
        until: row.until,
    };
    Ok(rows.into_iter().map(record).collect())
}

/// Forgets those who have not counted since `before`.
pub async fn forget(tx: &mut Tx, before: DateTime<Utc>) -> Result<(), DbError> {
    let forgotten = change_either!(tx, |c| sqlx::query(FORGET).bind(before));
    forgotten.map(drop).map_err(doing("forget old watches"))
}
