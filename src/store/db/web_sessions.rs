//! Who is signed in to the web app: hashes of what the cookies hold, never that itself.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{PrincipalId, WebSessionId};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str =
    "INSERT INTO web_sessions (id, principal_id, token_hash, address, browser, created_at, last_seen_at, not_after)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const FIND_BY_HASH: &str = "SELECT id, principal_id, address, browser, created_at, last_seen_at, not_after
                            FROM web_sessions WHERE token_hash = $1";
const FIND: &str = "SELECT id, principal_id, address, browser, created_at, last_seen_at, not_after
                    FROM web_sessions WHERE id = $1";
const LIST: &str = "SELECT id, principal_id, address, browser, created_at, last_seen_at, not_after
                    FROM web_sessions WHERE principal_id = $1 ORDER BY created_at DESC, id DESC";
const SEEN: &str = "UPDATE web_sessions SET last_seen_at = $2 WHERE id = $1";
const END: &str = "DELETE FROM web_sessions WHERE id = $1 AND principal_id = $2";
const END_ALL: &str = "DELETE FROM web_sessions WHERE principal_id = $1";
const END_OTHERS: &str = "DELETE FROM web_sessions WHERE principal_id = $1 AND id <> $2";
const FORGET: &str = "DELETE FROM web_sessions WHERE not_after <= $1 OR last_seen_at <= $2";

/// One browser in which a person is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSessionRecord {
    pub id: WebSessionId,
    pub principal: PrincipalId,
    /// From where it was begun.
    pub address: String,
    /// What the browser said of itself then; not to be trusted.
    pub browser: String,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    /// The first instant at which it no longer holds, whatever was done.
    pub not_after: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct WebSessionRow {
    id: Uuid,
    principal_id: Uuid,
    address: String,
    browser: String,
    created_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

impl From<WebSessionRow> for WebSessionRecord {
    fn from(row: WebSessionRow) -> Self {
        Self {
            id: WebSessionId::from_uuid(row.id),
            principal: PrincipalId::from_uuid(row.principal_id),
            address: row.address,
            browser: row.browser,
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
            not_after: row.not_after,
        }
    }
}

/// Adds one by the hash of what its cookie holds.
pub async fn insert(tx: &mut Tx, session: &WebSessionRecord, hash: &[u8]) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(session.id.as_uuid())
        .bind(session.principal.as_uuid())
        .bind(hash)
        .bind(&session.address)
        .bind(&session.browser)
        .bind(session.created_at)
        .bind(session.last_seen_at)
        .bind(session.not_after));
    inserted.map(drop).map_err(doing("sign somebody in"))
}

/// The one with this hash, whether or not it still holds.
pub async fn find_by_hash(tx: &mut Tx, hash: &[u8]) -> Result<Option<WebSessionRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND_BY_HASH).bind(hash).fetch_optional(c));
    let row: Option<WebSessionRow> = row.map_err(doing("find who is signed in"))?;
    Ok(row.map(WebSessionRecord::from))
}

/// The one with this id, whether or not it still holds.
pub async fn find(tx: &mut Tx, id: WebSessionId) -> Result<Option<WebSessionRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<WebSessionRow> = row.map_err(doing("find who is signed in"))?;
    Ok(row.map(WebSessionRecord::from))
}

/// A person's, the newest first, those whose time is over too.
pub async fn list(tx: &mut Tx, person: PrincipalId) -> Result<Vec<WebSessionRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(person.as_uuid()).fetch_all(c));
    let rows: Vec<WebSessionRow> = rows.map_err(doing("list where somebody is signed in"))?;
    Ok(rows.into_iter().map(WebSessionRecord::from).collect())
}

/// Notes that it was used.
pub async fn seen(tx: &mut Tx, id: WebSessionId, at: DateTime<Utc>) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(SEEN).bind(id.as_uuid()).bind(at));
    noted.map(drop).map_err(doing("note that somebody is signed in"))
}

/// Ends one of a person's; says how many that were.
pub async fn end(tx: &mut Tx, person: PrincipalId, id: WebSessionId) -> Result<u64, DbError> {
    let ended = change_either!(tx, |c| sqlx::query(END).bind(id.as_uuid()).bind(person.as_uuid()));
    ended.map_err(doing("sign somebody out"))
}

/// Ends all of a person's; says how many that were.
pub async fn end_all(tx: &mut Tx, person: PrincipalId) -> Result<u64, DbError> {
    let ended = change_either!(tx, |c| sqlx::query(END_ALL).bind(person.as_uuid()));
    ended.map_err(doing("sign somebody out everywhere"))
}

/// Ends a person's but `kept`; says how many that were.
pub async fn end_others(tx: &mut Tx, person: PrincipalId, kept: Option<WebSessionId>) -> Result<u64, DbError> {
    let kept = kept.map_or_else(Uuid::nil, WebSessionId::as_uuid);
    let ended = change_either!(tx, |c| sqlx::query(END_OTHERS).bind(person.as_uuid()).bind(kept));
    ended.map_err(doing("sign somebody out elsewhere"))
}

/// Forgets those that ended by `now`, or were last seen at `idle_since` or before.
pub async fn forget(tx: &mut Tx, now: DateTime<Utc>, idle_since: DateTime<Utc>) -> Result<(), DbError> {
    let forgotten = change_either!(tx, |c| sqlx::query(FORGET).bind(now).bind(idle_since));
    forgotten.map(drop).map_err(doing("forget who was signed in"))
}
