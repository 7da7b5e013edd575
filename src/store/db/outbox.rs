//! How far each destination outside has been told of the ledger, whose turn it is to tell it, and how it does.
//!
//! A turn is a row's `holder` until `held_until`. What changes how far a destination is names the holder and where it was: a
//! process that lost its turn without noticing changes nothing.

use chrono::{DateTime, Utc};

use super::{DbError, Tx, change_either, doing, on_either, to_count};

const ADD: &str = "INSERT INTO outbox (name, kind, next_index) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
const TAKE: &str = "UPDATE outbox SET kind = $2, node = $3, holder = $4, held_until = $5
                    WHERE name = $1 AND (holder IS NULL OR holder = $4 OR held_until <= $6)";
const GIVE_BACK: &str = "UPDATE outbox SET holder = NULL, held_until = NULL WHERE name = $1 AND holder = $2";
const FIND: &str = "SELECT name, kind, next_index, next_part, sent, dropped, at, error, failing_since, retry_at, late,
                           last_drop, node, held_until
                    FROM outbox WHERE name = $1";
const LIST: &str =
    "SELECT o.name, o.kind, o.next_index, o.next_part, o.sent, o.dropped, o.at, o.error, o.failing_since,
                           o.retry_at, o.late, o.last_drop, o.node, o.held_until,
                           (SELECT e.at FROM ledger_order l JOIN events e ON e.seq = l.seq WHERE l.idx = o.next_index)
                             AS oldest_at
                    FROM outbox o ORDER BY o.name";
const ADVANCE: &str = "UPDATE outbox SET next_index = $5, next_part = $6, sent = sent + $7, at = COALESCE($8, at),
                              error = NULL, failing_since = NULL, retry_at = NULL, late = FALSE
                       WHERE name = $1 AND holder = $2 AND next_index = $3 AND next_part = $4";
const PASS_OVER: &str = "UPDATE outbox SET next_index = $5, next_part = $6
                         WHERE name = $1 AND holder = $2 AND next_index = $3 AND next_part = $4";
const DROP: &str = "UPDATE outbox SET next_index = $5, next_part = $6, dropped = dropped + $7, last_drop = $8
                    WHERE name = $1 AND holder = $2 AND next_index = $3 AND next_part = $4";
const FAIL: &str = "UPDATE outbox SET error = $3, failing_since = $4, retry_at = $5, late = $6
                    WHERE name = $1 AND holder = $2";

/// Where a destination is in what it is told: the event by its place in the ledger, and the part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub index: u64,
    pub part: u32,
}

/// How one destination stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxState {
    pub name: String,
    pub kind: String,
    pub next: Cursor,
    pub sent: u64,
    pub dropped: u64,
    pub at: Option<DateTime<Utc>>,
    pub error: Option<String>,
    pub failing_since: Option<DateTime<Utc>>,
    pub retry_at: Option<DateTime<Utc>>,
    /// It has failed for longer than is borne, and the alarm was given.
    pub late: bool,
    pub last_drop: Option<String>,
    /// Which node tells it, and until when that is so.
    pub node: Option<String>,
    pub held_until: Option<DateTime<Utc>>,
}

/// The same with what it has not been told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: OutboxState,
    pub waiting: u64,
    /// When the oldest event happened that waits.
    pub oldest_at: Option<DateTime<Utc>>,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub node: String,
    /// Of one process only: one that takes over on the same node is another.
    pub process: String,
}

#[derive(sqlx::FromRow)]
struct StateRow {
    name: String,
    kind: String,
    next_index: i64,
    next_part: i64,
    sent: i64,
    dropped: i64,
    at: Option<DateTime<Utc>>,
    error: Option<String>,
    failing_since: Option<DateTime<Utc>>,
    retry_at: Option<DateTime<Utc>>,
    late: bool,
    last_drop: Option<String>,
    node: Option<String>,
    held_until: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct StandingRow {
    #[sqlx(flatten)]
    state: StateRow,
    oldest_at: Option<DateTime<Utc>>,
}

const READ: &str = "read how a destination of the outbox stands";

impl TryFrom<StateRow> for OutboxState {
    type Error = DbError;

    fn try_from(row: StateRow) -> Result<Self, DbError> {
        Ok(Self {
            name: row.name,
            kind: row.kind,
            next: Cursor { index: to_count(READ, row.next_index)?, part: to_count(READ, row.next_part)? },
            sent: to_count(READ, row.sent)?,
            dropped: to_count(READ, row.dropped)?,
            at: row.at,
            error: row.error,
            failing_since: row.failing_since,
            retry_at: row.retry_at,
            late: row.late,
            last_drop: row.last_drop,
            node: row.node,
            held_until: row.held_until,
        })
    }
}

fn big(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Adds a destination that is told of events from the place `first` on, unless there is one of that name.
pub async fn add(tx: &mut Tx, name: &str, kind: &str, first: u64) -> Result<(), DbError> {
    let added = change_either!(tx, |c| sqlx::query(ADD).bind(name).bind(kind).bind(big(first)));
    added.map(drop).map_err(doing("add a destination to the outbox"))
}

/// Takes the turn at a destination, or keeps it, until `until`; `false` if another process has it at `now`.
pub async fn take(
    tx: &mut Tx,
    (name, kind): (&str, &str),
    holder: &Holder,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<bool, DbError> {
    let taken = change_either!(tx, |c| sqlx::query(TAKE)
        .bind(name)
        .bind(kind)
        .bind(&holder.node)
        .bind(&holder.process)
        .bind(until)
        .bind(now));
    Ok(taken.map_err(doing("take the turn at a destination"))? == 1)
}

/// Lets another process have the turn.
pub async fn give_back(tx: &mut Tx, name: &str, holder: &Holder) -> Result<(), DbError> {
    let given = change_either!(tx, |c| sqlx::query(GIVE_BACK).bind(name).bind(&holder.process));
    given.map(drop).map_err(doing("give back the turn at a destination"))
}

/// How a destination stands.
pub async fn find(tx: &mut Tx, name: &str) -> Result<Option<OutboxState>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(name).fetch_optional(c));
    let row: Option<StateRow> = row.map_err(doing(READ))?;
    row.map(OutboxState::try_from).transpose()
}

/// Every destination, by name.
pub async fn standings(tx: &mut Tx) -> Result<Vec<Standing>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<StandingRow> = rows.map_err(doing(READ))?;
    let size = super::ledger::size(tx).await?;
    let read = |row: StandingRow| {
        let state = OutboxState::try_from(row.state)?;
        let waiting = size.saturating_sub(state.next.index);
        Ok(Standing { state, waiting, oldest_at: row.oldest_at })
    };
    rows.into_iter().map(read).collect()
}

/// The destination has taken `sent` records, up to, not including, `to`; `false` if it is not where it was, or the turn is
/// another's.
pub async fn advance(
    tx: &mut Tx,
    (name, holder): (&str, &Holder),
    (from, to): (Cursor, Cursor),
    sent: u64,
    at: DateTime<Utc>,
) -> Result<bool, DbError> {
    let moved = change_either!(tx, |c| sqlx::query(ADVANCE)
        .bind(name)
        .bind(&holder.process)
        .bind(big(from.index))
        .bind(i64::from(from.part))
        .bind(big(to.index))
        .bind(i64::from(to.part))
        .bind(big(sent))
        .bind(Some(at)));
    Ok(moved.map_err(doing("note what a destination has taken"))? == 1)
}

/// Nothing between the two is for this destination. Says nothing of how it does.
pub async fn pass_over(
    tx: &mut Tx,
    (name, holder): (&str, &Holder),
    (from, to): (Cursor, Cursor),
) -> Result<bool, DbError> {
    let moved = change_either!(tx, |c| sqlx::query(PASS_OVER)
        .bind(name)
        .bind(&holder.process)
        .bind(big(from.index))
        .bind(i64::from(from.part))
        .bind(big(to.index))
        .bind(i64::from(to.part)));
    Ok(moved.map_err(doing("note what is not for a destination"))? == 1)
}

/// The destination refused `dropped` records for good.
pub async fn give_up(
    tx: &mut Tx,
    (name, holder): (&str, &Holder),
    (from, to): (Cursor, Cursor),
    dropped: u64,
    why: &str,
) -> Result<bool, DbError> {
    let moved = change_either!(tx, |c| sqlx::query(DROP)
        .bind(name)
        .bind(&holder.process)
        .bind(big(from.index))
        .bind(i64::from(from.part))
        .bind(big(to.index))
        .bind(i64::from(to.part))
        .bind(big(dropped))
        .bind(why));
    Ok(moved.map_err(doing("note what a destination has refused"))? == 1)
}

/// A try failed.
pub async fn fail(tx: &mut Tx, holder: &Holder, state: &OutboxState) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(FAIL)
        .bind(&state.name)
        .bind(&holder.process)
        .bind(state.error.as_deref())
        .bind(state.failing_since)
        .bind(state.retry_at)
        .bind(state.late));
    noted.map(drop).map_err(doing("note why a destination takes nothing"))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::store::db::testing::on_both;

    fn holder(process: &str) -> Holder {
        Holder { node: "node".to_owned(), process: process.to_owned() }
    }

    #[tokio::test]
    async fn a_turn_is_one_processes_until_it_ends_and_only_that_one_moves_the_cursor() {
        on_both(|db| async move {
            let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
            let later = now + TimeDelta::seconds(60);
            let (a, b) = (holder("a"), holder("b"));
            let (start, end) = (Cursor { index: 5, part: 0 }, Cursor { index: 9, part: 2 });
            let mut tx = db.write().await.unwrap();
            add(&mut tx, "siem", "webhook", 5).await.unwrap();
            add(&mut tx, "siem", "webhook", 7).await.unwrap();

            assert!(take(&mut tx, ("siem", "webhook"), &a, now, later).await.unwrap());
            assert!(!take(&mut tx, ("siem", "webhook"), &b, now, later).await.unwrap());
            assert!(!advance(&mut tx, ("siem", &b), (start, end), 4, now).await.unwrap());
            assert!(advance(&mut tx, ("siem", &a), (start, end), 4, now).await.unwrap());
            assert!(!advance(&mut tx, ("siem", &a), (start, end), 4, now).await.unwrap(), "once");
            assert!(take(&mut tx, ("siem", "webhook"), &b, later, later + TimeDelta::seconds(60)).await.unwrap());
            assert!(!give_up(&mut tx, ("siem", &a), (end, end), 1, "no").await.unwrap());
            give_back(&mut tx, "siem", &b).await.unwrap();
            assert!(take(&mut tx, ("siem", "webhook"), &a, now, later).await.unwrap());

            let state = find(&mut tx, "siem").await.unwrap().unwrap();
            assert_eq!((state.next, state.sent, state.dropped, state.at), (end, 4, 0, Some(now)));
            assert_eq!(standings(&mut tx).await.unwrap().len(), 1);
        })
        .await;
    }
}
