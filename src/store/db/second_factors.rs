//! Second factors: sealed secrets of RFC 6238, what was used of them, and recovery codes.
//!
//! That a code counts once, and that guesses are counted, is said by the conditions of single updates, so that it holds
//! however many nodes ask at once: the first update of a transaction holds the row until its end.

use chrono::{DateTime, Utc};
use sallyport_domain::id::PrincipalId;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either, to_count};

/// A secret that was not confirmed is replaced; one that counts is not.
const BEGIN: &str = "INSERT INTO second_factors (principal_id, sealed, created_at) VALUES ($1, $2, $3)
                     ON CONFLICT (principal_id) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at
                     WHERE second_factors.confirmed_at IS NULL";
const FIND: &str = "SELECT sealed, created_at, confirmed_at, locked_until FROM second_factors WHERE principal_id = $1";
const CONFIRM: &str = "UPDATE second_factors SET confirmed_at = $2, last_step = $3
                       WHERE principal_id = $1 AND confirmed_at IS NULL";
const CONFIRMED: &str = "SELECT principal_id FROM second_factors WHERE confirmed_at IS NOT NULL";
/// `$3`: tries up to then are forgotten.
const TRY: &str = "UPDATE second_factors
                   SET failures = CASE WHEN failing_since > $3 THEN failures + 1 ELSE 1 END,
                       failing_since = CASE WHEN failing_since > $3 THEN failing_since ELSE $2 END
                   WHERE principal_id = $1 AND confirmed_at IS NOT NULL
                     AND (locked_until IS NULL OR locked_until <= $2)
                   RETURNING sealed, failures";
const USE_STEP: &str =
    "UPDATE second_factors SET last_step = $2, failures = 0, failing_since = NULL, locked_until = NULL
                        WHERE principal_id = $1 AND (last_step IS NULL OR last_step < $2)";
const FORGIVE: &str = "UPDATE second_factors SET failures = failures - 1 WHERE principal_id = $1 AND failures > 0";
const CLEAR: &str = "UPDATE second_factors SET failures = 0, failing_since = NULL, locked_until = NULL
                     WHERE principal_id = $1";
const LOCK: &str = "UPDATE second_factors SET failures = 0, failing_since = NULL, locked_until = $2
                    WHERE principal_id = $1";
const REMOVE: &str = "DELETE FROM second_factors WHERE principal_id = $1";
const INSERT_CODE: &str = "INSERT INTO recovery_codes (principal_id, code_hash) VALUES ($1, $2)";
const USE_CODE: &str = "UPDATE recovery_codes SET used_at = $3
                        WHERE principal_id = $1 AND code_hash = $2 AND used_at IS NULL";
const CODES_LEFT: &str = "SELECT COUNT(*) FROM recovery_codes WHERE principal_id = $1 AND used_at IS NULL";
const REMOVE_CODES: &str = "DELETE FROM recovery_codes WHERE principal_id = $1";

/// A person's second factor as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SecondFactorRecord {
    /// The secret, sealed.
    pub sealed: Vec<u8>,
    pub created_at: DateTime<Utc>,
    /// Only from then on it counts.
    pub confirmed_at: Option<DateTime<Utc>>,
    pub locked_until: Option<DateTime<Utc>>,
}

/// A try at showing a code, counted before the code is looked at.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Try {
    /// The secret, sealed.
    pub sealed: Vec<u8>,
    /// Tries within the window that did not succeed, this one included.
    pub failures: i32,
}

/// Stores the secret of somebody who enrols; `false` if they have one that counts.
pub async fn begin(tx: &mut Tx, person: PrincipalId, sealed: &[u8], now: DateTime<Utc>) -> Result<bool, DbError> {
    let begun = change_either!(tx, |c| sqlx::query(BEGIN).bind(person.as_uuid()).bind(sealed).bind(now));
    Ok(begun.map_err(doing("enrol a second factor"))? == 1)
}

/// The person's second factor, confirmed or not.
pub async fn find(tx: &mut Tx, person: PrincipalId) -> Result<Option<SecondFactorRecord>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(FIND).bind(person.as_uuid()).fetch_optional(c));
    found.map_err(doing("find a second factor"))
}

/// Makes the factor count, the code of `step` being used up; `false` if there is none or it counts already.
pub async fn confirm(tx: &mut Tx, person: PrincipalId, step: i64, now: DateTime<Utc>) -> Result<bool, DbError> {
    let confirmed = change_either!(tx, |c| sqlx::query(CONFIRM).bind(person.as_uuid()).bind(now).bind(step));
    Ok(confirmed.map_err(doing("confirm a second factor"))? == 1)
}

/// Everybody who has a second factor that counts.
pub async fn confirmed(tx: &mut Tx) -> Result<Vec<PrincipalId>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(CONFIRMED).fetch_all(c));
    let found: Vec<Uuid> = found.map_err(doing("list second factors"))?;
    Ok(found.into_iter().map(PrincipalId::from_uuid).collect())
}

/// Counts a try at `now`, those up to `forgotten` left out; `None` if there is no factor that counts, or it is locked.
/// Until the end of the transaction no other node counts one.
pub async fn count_try(
    tx: &mut Tx,
    person: PrincipalId,
    now: DateTime<Utc>,
    forgotten: DateTime<Utc>,
) -> Result<Option<Try>, DbError> {
    let tried =
        on_either!(tx, |c| sqlx::query_as(TRY).bind(person.as_uuid()).bind(now).bind(forgotten).fetch_optional(c));
    tried.map_err(doing("look at a verification code"))
}

/// Uses up the code of `step` and forgets the failures; `false` if a code of that step or a later one was used before.
pub async fn use_step(tx: &mut Tx, person: PrincipalId, step: i64) -> Result<bool, DbError> {
    let used = change_either!(tx, |c| sqlx::query(USE_STEP).bind(person.as_uuid()).bind(step));
    Ok(used.map_err(doing("use up a verification code"))? == 1)
}

/// Takes back the count of one try.
pub async fn forgive(tx: &mut Tx, person: PrincipalId) -> Result<(), DbError> {
    let forgiven = change_either!(tx, |c| sqlx::query(FORGIVE).bind(person.as_uuid()));
    forgiven.map(drop).map_err(doing("look at a verification code"))
}

/// Forgets all failures.
pub async fn clear(tx: &mut Tx, person: PrincipalId) -> Result<(), DbError> {
    let cleared = change_either!(tx, |c| sqlx::query(CLEAR).bind(person.as_uuid()));
    cleared.map(drop).map_err(doing("look at a verification code"))
}

/// Takes no code until then.
pub async fn lock(tx: &mut Tx, person: PrincipalId, until: DateTime<Utc>) -> Result<(), DbError> {
    let locked = change_either!(tx, |c| sqlx::query(LOCK).bind(person.as_uuid()).bind(until));
    locked.map(drop).map_err(doing("lock a second factor"))
}

/// Takes the factor and its recovery codes away; `false` if there is none.
pub async fn remove(tx: &mut Tx, person: PrincipalId) -> Result<bool, DbError> {
    const DOING: &str = "take a second factor away";
    let removed = change_either!(tx, |c| sqlx::query(REMOVE).bind(person.as_uuid()));
    let removed = removed.map_err(doing(DOING))? == 1;
    change_either!(tx, |c| sqlx::query(REMOVE_CODES).bind(person.as_uuid())).map_err(doing(DOING))?;
    Ok(removed)
}

/// Adds a recovery code by its hash.
pub async fn insert_code(tx: &mut Tx, person: PrincipalId, hash: &[u8]) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_CODE).bind(person.as_uuid()).bind(hash));
    inserted.map(drop).map_err(doing("store a recovery code"))
}

/// Uses up a recovery code; `false` if it is unknown or used before.
pub async fn use_code(tx: &mut Tx, person: PrincipalId, hash: &[u8], now: DateTime<Utc>) -> Result<bool, DbError> {
    let used = change_either!(tx, |c| sqlx::query(USE_CODE).bind(person.as_uuid()).bind(hash).bind(now));
    Ok(used.map_err(doing("use up a recovery code"))? == 1)
}

/// How many recovery codes are left.
pub async fn codes_left(tx: &mut Tx, person: PrincipalId) -> Result<u32, DbError> {
    let left = on_either!(tx, |c| sqlx::query_scalar(CODES_LEFT).bind(person.as_uuid()).fetch_one(c));
    let left: i64 = left.map_err(doing("count recovery codes"))?;
    to_count("count recovery codes", left)
}
