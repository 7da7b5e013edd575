//! Requests for access and what was answered.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{PrincipalId, RequestId, SessionId};
use sallyport_domain::request::{Request, RequestState};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_count, to_json};

const INSERT: &str =
    "INSERT INTO access_requests (id, principal_id, wish, reason, ticket, created_at, expires_at, session_id, state)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open')";
const FIND: &str = "SELECT id, principal_id, wish, reason, ticket, created_at, expires_at, answer
                    FROM access_requests WHERE id = $1";
const OF_SESSION: &str = "SELECT id, principal_id, wish, reason, ticket, created_at, expires_at, answer
                          FROM access_requests WHERE session_id = $1";
/// A bound left at `NULL` does not limit. An open request whose time is over counts as expired, swept or not.
const LIST: &str = "SELECT id, principal_id, wish, reason, ticket, created_at, expires_at, answer
                    FROM access_requests
                    WHERE ($1 IS NULL OR principal_id = $1)
                      AND ($2 IS NULL OR (state = $2 AND (state <> 'open' OR expires_at > $3))
                           OR ($2 = 'expired' AND state = 'open' AND expires_at <= $3))
                      AND ($4 IS NULL OR id < $4)
                    ORDER BY id DESC LIMIT $5";
const COUNT_OPEN: &str =
    "SELECT COUNT(*) FROM access_requests WHERE principal_id = $1 AND state = 'open' AND expires_at > $2";
const COUNT_SINCE: &str = "SELECT COUNT(*) FROM access_requests WHERE principal_id = $1 AND created_at > $2";
const OVERDUE: &str = "SELECT id FROM access_requests WHERE state = 'open' AND expires_at <= $1 ORDER BY id LIMIT 100";
const ANSWER: &str = "UPDATE access_requests SET state = $2, answer = $3
                      WHERE id = $1 AND state = 'open' AND expires_at > $4
                      RETURNING id, principal_id, wish, reason, ticket, created_at, expires_at, answer";
const EXPIRE: &str = "UPDATE access_requests SET state = 'expired', answer = $2
                      WHERE id = $1 AND state = 'open' AND expires_at <= $3";

#[derive(sqlx::FromRow)]
struct RequestRow {
    id: Uuid,
    principal_id: Uuid,
    wish: String,
    reason: String,
    ticket: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    answer: Option<String>,
}

impl TryFrom<RequestRow> for Request {
    type Error = DbError;

    fn try_from(row: RequestRow) -> Result<Self, DbError> {
        const READ: &str = "read a request";
        Ok(Self {
            id: RequestId::from_uuid(row.id),
            person: PrincipalId::from_uuid(row.principal_id),
            wish: from_json(READ, &row.wish)?,
            reason: row.reason,
            ticket: row.ticket,
            created_at: row.created_at,
            expires_at: row.expires_at,
            state: row.answer.map_or(Ok(RequestState::Open), |answer| from_json(READ, &answer))?,
        })
    }
}

/// Which requests to list; what is left at `None` does not limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestBounds {
    pub person: Option<PrincipalId>,
    /// One of [`RequestState::WORDS`].
    pub state: Option<&'static str>,
    /// Only those made before this one.
    pub before: Option<RequestId>,
}

/// Adds an open request.
pub async fn insert(tx: &mut Tx, request: &Request) -> Result<(), DbError> {
    const MAKE: &str = "make a request";
    let wish = to_json(MAKE, &request.wish)?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(request.id.as_uuid())
        .bind(request.person.as_uuid())
        .bind(&wish)
        .bind(&request.reason)
        .bind(request.ticket.as_deref())
        .bind(request.created_at)
        .bind(request.expires_at)
        .bind(request.wish.session().map(SessionId::as_uuid)));
    inserted.map(drop).map_err(doing(MAKE))
}

/// The request with this id.
pub async fn find(tx: &mut Tx, id: RequestId) -> Result<Option<Request>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<RequestRow> = row.map_err(doing("find a request"))?;
    row.map(Request::try_from).transpose()
}

/// The request that this session may start.
pub async fn of_session(tx: &mut Tx, session: SessionId) -> Result<Option<Request>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(OF_SESSION).bind(session.as_uuid()).fetch_optional(c));
    let row: Option<RequestRow> = row.map_err(doing("find a session's request"))?;
    row.map(Request::try_from).transpose()
}

/// At most `limit` requests within the bounds as they are at `now`, the latest first.
pub async fn list(tx: &mut Tx, bounds: RequestBounds, now: DateTime<Utc>, limit: u32) -> Result<Vec<Request>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST)
        .bind(bounds.person.map(PrincipalId::as_uuid))
        .bind(bounds.state)
        .bind(now)
        .bind(bounds.before.map(RequestId::as_uuid))
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows: Vec<RequestRow> = rows.map_err(doing("list requests"))?;
    rows.into_iter().map(Request::try_from).collect()
}

/// How many requests of the person wait for an answer.
pub async fn count_open(tx: &mut Tx, person: PrincipalId, now: DateTime<Utc>) -> Result<u32, DbError> {
    let count = on_either!(tx, |c| sqlx::query_scalar(COUNT_OPEN).bind(person.as_uuid()).bind(now).fetch_one(c));
    let count: i64 = count.map_err(doing("count a person's requests"))?;
    to_count("count a person's requests", count)
}

/// How many requests the person has made since then.
pub async fn count_since(tx: &mut Tx, person: PrincipalId, since: DateTime<Utc>) -> Result<u32, DbError> {
    let count = on_either!(tx, |c| sqlx::query_scalar(COUNT_SINCE).bind(person.as_uuid()).bind(since).fetch_one(c));
    let count: i64 = count.map_err(doing("count a person's requests"))?;
    to_count("count a person's requests", count)
}

/// Up to 100 open requests whose time is over.
pub async fn overdue(tx: &mut Tx, now: DateTime<Utc>) -> Result<Vec<RequestId>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(OVERDUE).bind(now).fetch_all(c));
    let found: Vec<Uuid> = found.map_err(doing("look for requests that nobody answered"))?;
    Ok(found.into_iter().map(RequestId::from_uuid).collect())
}

/// Gives an open request its answer; `None` if it is unknown, answered already, or its time is over. The database settles
/// the race of two who answer at once.
pub async fn answer(
    tx: &mut Tx,
    id: RequestId,
    state: &RequestState,
    now: DateTime<Utc>,
) -> Result<Option<Request>, DbError> {
    const DOING: &str = "answer a request";
    let answer = to_json(DOING, state)?;
    let row = on_either!(tx, |c| sqlx::query_as(ANSWER)
        .bind(id.as_uuid())
        .bind(state.as_str())
        .bind(&answer)
        .bind(now)
        .fetch_optional(c));
    let row: Option<RequestRow> = row.map_err(doing(DOING))?;
    row.map(Request::try_from).transpose()
}

/// Writes down that nobody answered in time; `false` if somebody did, or another node has written it.
pub async fn expire(tx: &mut Tx, id: RequestId, at: DateTime<Utc>, now: DateTime<Utc>) -> Result<bool, DbError> {
    const DOING: &str = "end a request that nobody answered";
    let answer = to_json(DOING, &RequestState::Expired { at })?;
    let done = change_either!(tx, |c| sqlx::query(EXPIRE).bind(id.as_uuid()).bind(&answer).bind(now));
    Ok(done.map_err(doing(DOING))? == 1)
}
