//! The highest time that each node has seen. A clock that is set back while the bastion is down opens no window again.

use chrono::{DateTime, Utc};

use super::{Db, DbError, Tx, change_either, doing, on_either};

const SET: &str = "INSERT INTO clock_marks (node, at) VALUES ($1, $2)
                   ON CONFLICT (node) DO UPDATE SET at = $2 WHERE clock_marks.at < $2";
const HIGHEST: &str = "SELECT MAX(at) FROM clock_marks";

/// Notes that `node` has seen `at`; an earlier time than was noted changes nothing.
pub async fn set(tx: &mut Tx, node: &str, at: DateTime<Utc>) -> Result<(), DbError> {
    let set = change_either!(tx, |c| sqlx::query(SET).bind(node).bind(at));
    set.map(drop).map_err(doing("note the time"))
}

/// The time that the database's own machine shows; `None` where that is this one.
pub async fn of_database(db: &Db) -> Result<Option<DateTime<Utc>>, DbError> {
    let Db::Postgres(pool) = db else { return Ok(None) };
    let now = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool);
    super::answer(now).await.map(Some).map_err(doing("ask the database for its time"))
}

/// The highest time that any node has seen.
pub async fn highest(tx: &mut Tx) -> Result<Option<DateTime<Utc>>, DbError> {
    let highest = on_either!(tx, |c| sqlx::query_scalar::<_, Option<DateTime<Utc>>>(HIGHEST).fetch_one(c));
    highest.map_err(doing("read the highest time that was seen"))
}
