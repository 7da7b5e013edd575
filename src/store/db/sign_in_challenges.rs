//! What was begun at signing in and waits for the browser's answer, on whichever node it comes.

use chrono::{DateTime, Utc};
use sallyport_domain::id::PrincipalId;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str = "INSERT INTO sign_in_challenges (token_hash, purpose, principal_id, state, created_at, not_after)
                      VALUES ($1, $2, $3, $4, $5, $6)";
const TAKE: &str = "DELETE FROM sign_in_challenges WHERE token_hash = $1 AND purpose = $2
                    RETURNING principal_id, state, not_after";
const FORGET_PAST: &str = "DELETE FROM sign_in_challenges WHERE not_after <= $1";
const FORGET_OF: &str = "DELETE FROM sign_in_challenges WHERE principal_id = $1 AND purpose = $2";
/// A flood makes room for itself a thousand at a time; in quiet times it finds nothing.
const FORGET_OLDEST: &str = "DELETE FROM sign_in_challenges WHERE token_hash IN
    (SELECT token_hash FROM sign_in_challenges ORDER BY created_at DESC, token_hash LIMIT 1000 OFFSET $1)";

/// What the answer is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub purpose: &'static str,
    /// Who was signed in already when it was begun.
    pub principal: Option<PrincipalId>,
    pub state: String,
    pub created_at: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
}

/// A challenge that was taken: nobody takes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub principal: Option<PrincipalId>,
    pub state: String,
    pub not_after: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct TakenRow {
    principal_id: Option<Uuid>,
    state: String,
    not_after: DateTime<Utc>,
}

/// Adds one by the hash of what the browser holds. Of somebody who was signed in already it takes the place of the one before.
pub async fn insert(tx: &mut Tx, hash: &[u8], challenge: &Challenge) -> Result<(), DbError> {
    const DOING: &str = "begin a sign-in";
    let principal = challenge.principal.map(PrincipalId::as_uuid);
    if let Some(principal) = principal {
        change_either!(tx, |c| sqlx::query(FORGET_OF).bind(principal).bind(challenge.purpose)).map_err(doing(DOING))?;
    }
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(hash)
        .bind(challenge.purpose)
        .bind(principal)
        .bind(&challenge.state)
        .bind(challenge.created_at)
        .bind(challenge.not_after));
    inserted.map(drop).map_err(doing(DOING))
}

/// Takes the one with this hash away, whether or not its time is over; `None` if there is none, or it was taken before.
pub async fn take(tx: &mut Tx, hash: &[u8], purpose: &str) -> Result<Option<Taken>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(TAKE).bind(hash).bind(purpose).fetch_optional(c));
    let row: Option<TakenRow> = row.map_err(doing("go on with a sign-in"))?;
    Ok(row.map(|row| Taken {
        principal: row.principal_id.map(PrincipalId::from_uuid),
        state: row.state,
        not_after: row.not_after,
    }))
}

/// Forgets those whose time is over at `now`, and the oldest of more than `most`.
pub async fn forget(tx: &mut Tx, now: DateTime<Utc>, most: i64) -> Result<(), DbError> {
    const DOING: &str = "forget sign-ins that were begun";
    change_either!(tx, |c| sqlx::query(FORGET_PAST).bind(now)).map_err(doing(DOING))?;
    change_either!(tx, |c| sqlx::query(FORGET_OLDEST).bind(most)).map(drop).map_err(doing(DOING))
}
