//! Audit events, in the order in which they were written. Rows are added and never changed.

use chrono::{DateTime, Utc};
use sallyport_domain::event::Event;
use sallyport_domain::id::{EventId, SessionId};
use sallyport_domain::ledger::entry;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_json};

const INSERT: &str =
    "INSERT INTO events (id, at, actor, act, kind, session_id, entry) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const INSERT_ONCE: &str = "INSERT INTO events (id, at, actor, act, kind, session_id, entry)
                           SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = $1)
                           ON CONFLICT (id) DO NOTHING";
/// A parameter left at `NULL` does not limit.
const LIST: &str = "SELECT seq, id, at, actor, act FROM events
                    WHERE seq > $1
                      AND ($2 IS NULL OR kind = $2)
                      AND ($3 IS NULL OR session_id = $3)
                      AND ($4 IS NULL OR at >= $4)
                      AND ($5 IS NULL OR at < $5)
                    ORDER BY seq LIMIT $6";
/// The same backwards.
const LIST_NEWEST: &str = "SELECT seq, id, at, actor, act FROM events
                           WHERE seq < $1
                             AND ($2 IS NULL OR kind = $2)
                             AND ($3 IS NULL OR session_id = $3)
                             AND ($4 IS NULL OR at >= $4)
                             AND ($5 IS NULL OR at < $5)
                           ORDER BY seq DESC LIMIT $6";

/// Which events to list; what is left at `None` does not limit.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// The act's name: `grant_revoked`.
    pub kind: Option<String>,
    pub session: Option<SessionId>,
    /// From this instant on.
    pub since: Option<DateTime<Utc>>,
    /// Up to, not including, this instant.
    pub until: Option<DateTime<Utc>>,
}

#[derive(Debug, sqlx::FromRow)]
struct EventRow {
    seq: i64,
    id: Uuid,
    at: DateTime<Utc>,
    actor: String,
    act: String,
}

/// Adds an event, with the bytes that the ledger hashes. Its place in the ledger is given later (`ledger`).
pub async fn append(tx: &mut Tx, event: &Event) -> Result<(), DbError> {
    insert(tx, INSERT, event).await.map(drop)
}

/// Adds an event that may be there already, from a try whose outcome nobody heard of, or from before a crash; whether it was not.
pub async fn append_once(tx: &mut Tx, event: &Event) -> Result<bool, DbError> {
    Ok(insert(tx, INSERT_ONCE, event).await? == 1)
}

async fn insert(tx: &mut Tx, statement: &'static str, event: &Event) -> Result<u64, DbError> {
    const APPEND: &str = "write an audit event";
    let actor = to_json(APPEND, &event.actor)?;
    let entry = entry::encode(event).map_err(|error| DbError::corrupt(APPEND, error.to_string()))?;
    let act = serde_json::to_value(&event.act).map_err(|error| DbError::corrupt(APPEND, error.to_string()))?;
    // The columns for filters are read off the act's own form, so that they cannot tell another story.
    let kind = act.get("act").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
    let session: Option<SessionId> = act.get("session").and_then(|id| id.as_str()).and_then(|id| id.parse().ok());
    let inserted = change_either!(tx, |c| sqlx::query(statement)
        .bind(event.id.as_uuid())
        .bind(event.at)
        .bind(&actor)
        .bind(act.to_string())
        .bind(&kind)
        .bind(session.map(SessionId::as_uuid))
        .bind(&entry));
    inserted.map_err(doing(APPEND))
}

/// At most `limit` events with a number greater than `after`, in the order of their numbers. On PostgreSQL transactions
/// may commit in another order than they took their numbers: who follows the log must look back a little.
pub async fn list(tx: &mut Tx, after: i64, filter: &EventFilter, limit: u32) -> Result<Vec<(i64, Event)>, DbError> {
    select(tx, LIST, after, filter, limit).await
}

/// At most `limit` events with a number less than `before`, the newest first.
pub async fn list_newest(
    tx: &mut Tx,
    before: i64,
    filter: &EventFilter,
    limit: u32,
) -> Result<Vec<(i64, Event)>, DbError> {
    select(tx, LIST_NEWEST, before, filter, limit).await
}

async fn select(
    tx: &mut Tx,
    query: &'static str,
    from: i64,
    filter: &EventFilter,
    limit: u32,
) -> Result<Vec<(i64, Event)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(query)
        .bind(from)
        .bind(filter.kind.as_deref())
        .bind(filter.session.map(SessionId::as_uuid))
        .bind(filter.since)
        .bind(filter.until)
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows: Vec<EventRow> = rows.map_err(doing("list audit events"))?;
    let read = |row: EventRow| {
        let event = Event {
            id: EventId::from_uuid(row.id),
            at: row.at,
            actor: from_json("read an audit event", &row.actor)?,
            act: from_json("read an audit event", &row.act)?,
        };
        Ok((row.seq, event))
    };
    rows.into_iter().map(read).collect()
}
