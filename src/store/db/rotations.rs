//! Keys of targets on their way to others, and when that is to happen again.

use chrono::{DateTime, Utc};
use sallyport_domain::id::TargetId;
use sallyport_domain::name::Login;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_text, on_either};

const BEGIN: &str = "INSERT INTO credential_rotations (target_id, login, sealed, file, begun_at)
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const CLAIM: &str = "UPDATE credential_rotations SET held_until = $4, file = $5
                     WHERE target_id = $1 AND login = $2 AND (held_until IS NULL OR held_until <= $3)
                     RETURNING switched, sealed";
/// `$3`: until when it was held.
const HOLD: &str = "UPDATE credential_rotations SET held_until = $4
                    WHERE target_id = $1 AND login = $2 AND held_until = $3";
const RELEASE: &str = "UPDATE credential_rotations SET held_until = NULL
                       WHERE target_id = $1 AND login = $2 AND held_until = $3";
const SWITCH: &str = "UPDATE credential_rotations SET switched = TRUE, sealed = $4
                      WHERE target_id = $1 AND login = $2 AND held_until = $3 AND NOT switched";
const END: &str = "DELETE FROM credential_rotations WHERE target_id = $1 AND login = $2 AND held_until = $3";
const FORGET: &str = "DELETE FROM credential_rotations WHERE target_id = $1";
const UNDER_WAY: &str = "SELECT login FROM credential_rotations WHERE target_id = $1 AND login = $2";
const SET_SCHEDULE: &str = "INSERT INTO credential_schedules (target_id, login, every_s, file, next_at)
                            VALUES ($1, $2, $3, $4, $5)
                            ON CONFLICT (target_id, login) DO UPDATE
                            SET every_s = excluded.every_s, file = excluded.file, next_at = excluded.next_at";
const REMOVE_SCHEDULE: &str = "DELETE FROM credential_schedules WHERE target_id = $1 AND login = $2";
const SCHEDULES: &str = "SELECT target_id, login, every_s, file, next_at FROM credential_schedules
                         ORDER BY next_at, target_id, login";
/// `$3`: when it was due; of several nodes one takes it.
const TAKE: &str = "UPDATE credential_schedules SET next_at = $4 WHERE target_id = $1 AND login = $2 AND next_at = $3";

/// A rotation that was begun.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Begun {
    /// The stored secret is the new key, and `sealed` the old one; before that it is the other way round.
    pub switched: bool,
    pub sealed: Vec<u8>,
}

/// That an account's key is replaced again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub target: TargetId,
    pub login: Login,
    pub every_s: u64,
    pub file: String,
    pub next_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct ScheduleRow {
    target_id: Uuid,
    login: String,
    every_s: i64,
    file: String,
    next_at: DateTime<Utc>,
}

impl TryFrom<ScheduleRow> for Schedule {
    type Error = DbError;

    fn try_from(row: ScheduleRow) -> Result<Self, DbError> {
        const READ: &str = "read when keys of targets are replaced";
        Ok(Self {
            target: TargetId::from_uuid(row.target_id),
            login: from_text(READ, &row.login)?,
            every_s: super::to_count(READ, row.every_s)?,
            file: row.file,
            next_at: row.next_at,
        })
    }
}

/// Keeps the new key before it is used; `false` if a rotation is under way.
pub async fn begin(
    tx: &mut Tx,
    target: TargetId,
    login: &Login,
    sealed: &[u8],
    file: &str,
    at: DateTime<Utc>,
) -> Result<bool, DbError> {
    let begun = change_either!(tx, |c| sqlx::query(BEGIN)
        .bind(target.as_uuid())
        .bind(login.as_str())
        .bind(sealed)
        .bind(file)
        .bind(at));
    Ok(begun.map_err(doing("keep a new key of a target"))? == 1)
}

/// Whether one is under way.
pub async fn is_under_way(tx: &mut Tx, target: TargetId, login: &Login) -> Result<bool, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, String>(UNDER_WAY)
        .bind(target.as_uuid())
        .bind(login.as_str())
        .fetch_optional(c));
    Ok(found.map_err(doing("look for a new key of a target"))?.is_some())
}

/// Takes the turn at a rotation until `until`, with the account's keys in `file`; `None` if there is none, or somebody has it at `now`.
pub async fn claim(
    tx: &mut Tx,
    target: TargetId,
    login: &Login,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
    file: &str,
) -> Result<Option<Begun>, DbError> {
    let claimed = on_either!(tx, |c| sqlx::query_as(CLAIM)
        .bind(target.as_uuid())
        .bind(login.as_str())
        .bind(now)
        .bind(until)
        .bind(file)
        .fetch_optional(c));
    claimed.map_err(doing("go on with a new key of a target"))
}

/// Keeps the turn, which was taken until `held`, until `until`; `false` if somebody else has it by now.
pub async fn hold(
    tx: &mut Tx,
    target: TargetId,
    login: &Login,
    held: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool, DbError> {
    let kept =
        change_either!(tx, |c| sqlx::query(HOLD).bind(target.as_uuid()).bind(login.as_str()).bind(held).bind(until));
    Ok(kept.map_err(doing("go on with a new key of a target"))? == 1)
}

/// Gives every turn back: whoever had one is dead.
pub async fn release_all(tx: &mut Tx) -> Result<(), DbError> {
    let released = change_either!(tx, |c| sqlx::query("UPDATE credential_rotations SET held_until = NULL"));
    released.map(drop).map_err(doing("leave new keys of targets"))
}

/// Gives the turn back.
pub async fn release(tx: &mut Tx, target: TargetId, login: &Login, held: DateTime<Utc>) -> Result<(), DbError> {
    let released = change_either!(tx, |c| sqlx::query(RELEASE).bind(target.as_uuid()).bind(login.as_str()).bind(held));
    released.map(drop).map_err(doing("leave a new key of a target"))
}

/// Keeps the old key here, the new one being the stored secret from now on; `false` if somebody else has the turn.
pub async fn switch(
    tx: &mut Tx,
    target: TargetId,
    login: &Login,
    held: DateTime<Utc>,
    old: &[u8],
) -> Result<bool, DbError> {
    let switched =
        change_either!(tx, |c| sqlx::query(SWITCH).bind(target.as_uuid()).bind(login.as_str()).bind(held).bind(old));
    Ok(switched.map_err(doing("put a new key of a target to use"))? == 1)
}

/// Forgets the old key: it opens nothing any more; `false` if somebody else has the turn.
pub async fn end(tx: &mut Tx, target: TargetId, login: &Login, held: DateTime<Utc>) -> Result<bool, DbError> {
    let ended = change_either!(tx, |c| sqlx::query(END).bind(target.as_uuid()).bind(login.as_str()).bind(held));
    Ok(ended.map_err(doing("forget an old key of a target"))? == 1)
}

/// Forgets what was begun for any account of a target: an admin has set other credentials.
pub async fn forget(tx: &mut Tx, target: TargetId) -> Result<(), DbError> {
    let forgotten = change_either!(tx, |c| sqlx::query(FORGET).bind(target.as_uuid()));
    forgotten.map(drop).map_err(doing("forget a new key of a target"))
}

/// Replaces an account's key again and again, first at `next_at`.
pub async fn set_schedule(tx: &mut Tx, schedule: &Schedule) -> Result<(), DbError> {
    let Schedule { target, login, every_s, file, next_at } = schedule;
    let every = i64::try_from(*every_s).unwrap_or(i64::MAX);
    let set = change_either!(tx, |c| sqlx::query(SET_SCHEDULE)
        .bind(target.as_uuid())
        .bind(login.as_str())
        .bind(every)
        .bind(file)
        .bind(*next_at));
    set.map(drop).map_err(doing("note when keys of targets are replaced"))
}

/// Replaces it no more; `false` if nobody did.
pub async fn remove_schedule(tx: &mut Tx, target: TargetId, login: &Login) -> Result<bool, DbError> {
    let removed = change_either!(tx, |c| sqlx::query(REMOVE_SCHEDULE).bind(target.as_uuid()).bind(login.as_str()));
    Ok(removed.map_err(doing("note when keys of targets are replaced"))? == 1)
}

/// Every schedule, the next first.
pub async fn schedules(tx: &mut Tx) -> Result<Vec<Schedule>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(SCHEDULES).fetch_all(c));
    let rows: Vec<ScheduleRow> = rows.map_err(doing("read when keys of targets are replaced"))?;
    rows.into_iter().map(Schedule::try_from).collect()
}

/// Takes what is due, and says when it is due next; `false` if another node has taken it.
pub async fn take(tx: &mut Tx, due: &Schedule, next_at: DateTime<Utc>) -> Result<bool, DbError> {
    let taken = change_either!(tx, |c| sqlx::query(TAKE)
        .bind(due.target.as_uuid())
        .bind(due.login.as_str())
        .bind(due.next_at)
        .bind(next_at));
    Ok(taken.map_err(doing("note when keys of targets are replaced"))? == 1)
}
