//! What was given out of grants' budgets.

use sallyport_domain::files::Way;
use sallyport_domain::id::GrantId;

use super::{DbError, Tx, change_either, doing, on_either, to_count};

/// Changes nothing but makes the row, and holds it until the transaction ends.
const HOLD: &str = "INSERT INTO grant_budgets (grant_id, way, taken) VALUES ($1, $2, 0)
                    ON CONFLICT (grant_id, way) DO UPDATE SET taken = grant_budgets.taken
                    RETURNING taken";
const TAKE: &str = "UPDATE grant_budgets SET taken = taken + $3 WHERE grant_id = $1 AND way = $2";
const GIVE_BACK: &str = "UPDATE grant_budgets SET taken = taken - $3 WHERE grant_id = $1 AND way = $2 AND taken >= $3";
#[cfg(test)]
const ALL_TAKEN: &str = "SELECT way, taken FROM grant_budgets WHERE grant_id = $1 ORDER BY way";

/// A number of bytes as the books keep it. No budget is as large as what does not fit.
fn column(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of `grant`'s budget for `way` that are given out. Until the transaction ends nobody else takes any.
pub async fn hold(tx: &mut Tx, grant: GrantId, way: Way) -> Result<u64, DbError> {
    const HOLD_BUDGET: &str = "hold a grant's budget";
    let taken = on_either!(tx, |c| sqlx::query_scalar(HOLD).bind(grant.as_uuid()).bind(way.as_str()).fetch_one(c));
    let taken: i64 = taken.map_err(doing(HOLD_BUDGET))?;
    to_count(HOLD_BUDGET, taken)
}

/// Gives out `bytes` more. Call [`hold`] before, in the same transaction, to know how many there are.
pub async fn take(tx: &mut Tx, grant: GrantId, way: Way, bytes: u64) -> Result<(), DbError> {
    let taken = change_either!(tx, |c| sqlx::query(TAKE).bind(grant.as_uuid()).bind(way.as_str()).bind(column(bytes)));
    taken.map(drop).map_err(doing("take of a grant's budget"))
}

/// Takes back `bytes` that were given out and not spent.
pub async fn give_back(tx: &mut Tx, grant: GrantId, way: Way, bytes: u64) -> Result<(), DbError> {
    let given =
        change_either!(tx, |c| sqlx::query(GIVE_BACK).bind(grant.as_uuid()).bind(way.as_str()).bind(column(bytes)));
    given.map(drop).map_err(doing("give back to a grant's budget"))
}

/// What is given out of `grant`'s budgets: the way's word, and bytes. A way that is not listed has not been asked for.
#[cfg(test)]
pub async fn taken(tx: &mut Tx, grant: GrantId) -> Result<Vec<(String, u64)>, DbError> {
    const READ: &str = "read a grant's budgets";
    let rows = on_either!(tx, |c| sqlx::query_as(ALL_TAKEN).bind(grant.as_uuid()).fetch_all(c));
    let rows: Vec<(String, i64)> = rows.map_err(doing(READ))?;
    rows.into_iter().map(|(way, taken)| Ok((way, to_count(READ, taken)?))).collect()
}
