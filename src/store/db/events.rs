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
/// Many at once, as one array for each column. Numbers are given in the order of the rows.
const INSERT_ALL_ONCE: &str = "INSERT INTO events (id, at, actor, act, kind, session_id, entry)
                               SELECT e.id, e.at, e.actor, e.act, e.kind, e.session_id, e.entry
                               FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::bytea[])
                                    WITH ORDINALITY e (id, at, actor, act, kind, session_id, entry, n)
                               WHERE NOT EXISTS (SELECT 1 FROM events old WHERE old.id = e.id)
                               ORDER BY n ON CONFLICT (id) DO NOTHING";
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

const APPEND: &str = "write an audit event";

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
async fn append_once(tx: &mut Tx, event: &Event) -> Result<bool, DbError> {
    Ok(insert(tx, INSERT_ONCE, event).await? == 1)
}

/// Adds events in this order, but for those that are there already; how many were not. PostgreSQL gets them as arrays, in one
/// round trip; SQLite has no arrays, and nothing to go round to.
pub async fn append_all_once(tx: &mut Tx, events: &[Event]) -> Result<u64, DbError> {
    let Tx::Postgres(tx) = tx else {
        let mut added = 0;
        for event in events {
            added += u64::from(append_once(tx, event).await?);
        }
        return Ok(added);
    };
    let rows = events.iter().map(Columns::of).collect::<Result<Vec<_>, _>>()?;
    let query = sqlx::query(INSERT_ALL_ONCE)
        .bind(events.iter().map(|event| event.id.as_uuid()).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.actor.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.act.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.session).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.as_slice()).collect::<Vec<_>>());
    let added = super::answer(query.execute(&mut **tx)).await.map_err(doing(APPEND))?;
    Ok(added.rows_affected())
}

/// What an event's row holds beside its id and instant.
struct Columns {
    actor: String,
    act: String,
    kind: String,
    session: Option<Uuid>,
    entry: Vec<u8>,
}

impl Columns {
    fn of(event: &Event) -> Result<Self, DbError> {
        let actor = to_json(APPEND, &event.actor)?;
        let entry = entry::encode(event).map_err(|error| DbError::corrupt(APPEND, error.to_string()))?;
        let act = serde_json::to_value(&event.act).map_err(|error| DbError::corrupt(APPEND, error.to_string()))?;
        // The columns for filters are read off the act's own form, so that they cannot tell another story.
        let kind = act.get("act").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
        let session = session_in(&act);
        Ok(Self { actor, act: act.to_string(), kind, session: session.map(SessionId::as_uuid), entry })
    }
}

/// The session that an event tells of.
pub fn session_of(event: &Event) -> Option<SessionId> {
    session_in(&serde_json::to_value(&event.act).ok()?)
}

fn session_in(act: &serde_json::Value) -> Option<SessionId> {
    act.get("session")?.as_str()?.parse().ok()
}

async fn insert(tx: &mut Tx, statement: &'static str, event: &Event) -> Result<u64, DbError> {
    let Columns { actor, act, kind, session, entry } = Columns::of(event)?;
    let inserted = change_either!(tx, |c| sqlx::query(statement)
        .bind(event.id.as_uuid())
        .bind(event.at)
        .bind(&actor)
        .bind(&act)
        .bind(&kind)
        .bind(session)
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
