//! Failed logins by address, over all nodes. One node counts what came to it, and reads here whom all of them together have seen
//! too often.

use chrono::{DateTime, Utc};

use super::{DbError, Tx, change_either, doing, on_either};

/// `$4`: failures that began before it are forgotten.
const ADD: &str = "INSERT INTO address_failures (address, count, since) VALUES ($1, $2, $3)
                   ON CONFLICT (address) DO UPDATE SET
                       count = CASE WHEN address_failures.since <= $4 THEN $2 ELSE address_failures.count + $2 END,
                       since = CASE WHEN address_failures.since <= $4 THEN $3 ELSE address_failures.since END";
const REFUSED: &str =
    "SELECT address FROM address_failures WHERE count >= $1 AND since > $2 ORDER BY since DESC LIMIT $3";
const FORGET: &str = "DELETE FROM address_failures WHERE since <= $1";

/// Adds `count` failures at `now` to those of `address` that began after `since`.
pub async fn add(
    tx: &mut Tx,
    address: &str,
    count: u32,
    now: DateTime<Utc>,
    since: DateTime<Utc>,
) -> Result<(), DbError> {
    let added = change_either!(tx, |c| sqlx::query(ADD).bind(address).bind(i64::from(count)).bind(now).bind(since));
    added.map(drop).map_err(doing("count a failed login"))
}

/// The addresses, at most `most`, with at least `limit` failures that began after `since`.
pub async fn refused(tx: &mut Tx, limit: u32, since: DateTime<Utc>, most: u32) -> Result<Vec<String>, DbError> {
    let (limit, most) = (i64::from(limit), i64::from(most));
    let found = on_either!(tx, |c| sqlx::query_scalar(REFUSED).bind(limit).bind(since).bind(most).fetch_all(c));
    found.map_err(doing("read which addresses failed too often"))
}

/// Forgets failures that began at `since` or before.
pub async fn forget(tx: &mut Tx, since: DateTime<Utc>) -> Result<(), DbError> {
    let gone = change_either!(tx, |c| sqlx::query(FORGET).bind(since));
    gone.map(drop).map_err(doing("forget failed logins"))
}
