//! Sessions: who was where, under which grant, from when to when.

use std::collections::HashMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use sallyport_domain::event::{CutReason, SessionEnd};
use sallyport_domain::grant::Terms;
use sallyport_domain::id::{GrantId, PrincipalId, SessionId, TargetId};
use sallyport_domain::name::{Login, PrincipalName, TargetName};
use sallyport_domain::review::Verdict;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, from_text, on_either, to_count, to_json};

const INSERT: &str =
    "INSERT INTO sessions (id, principal_id, principal_name, target_id, target_name, login, grant_id, terms,
                                            node, client_address, client_version, started_at, run)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
const END: &str = "UPDATE sessions SET ended_at = $2, ending = $3 WHERE id = $1 AND ended_at IS NULL";
const FIND: &str = "SELECT id, principal_id, principal_name, target_id, target_name, login, grant_id, terms, node,
                           client_address, client_version, started_at, ended_at, ending, cut_requested, held,
                           asked, due_at, done_at, verdict, risk
                    FROM sessions LEFT JOIN reviews ON session_id = sessions.id WHERE id = $1";
const LIVE_ON: &str = "SELECT id, run FROM sessions WHERE node = $1 AND ended_at IS NULL ORDER BY id";
const LIVE_OF: &str = "SELECT id FROM sessions WHERE run = $1 AND ended_at IS NULL ORDER BY id";
const HOLD_OPEN: &str = "UPDATE sessions SET run = run WHERE id = $1 AND ended_at IS NULL";
const UNSEAL: &str =
    "UPDATE sessions SET sealed_at = NULL, review_decided = FALSE WHERE id = $1 AND sealed_at IS NOT NULL";
const LENGTHEN: &str = "UPDATE sessions SET ended_at = $2 WHERE id = $1 AND ended_at < $2";
/// A parameter left at `NULL` does not limit. `$5`, `$6`: the last row of the page before.
const LIST: &str = "SELECT id, principal_id, principal_name, target_id, target_name, login, grant_id, terms, node,
                           client_address, client_version, started_at, ended_at, ending, cut_requested, held,
                           asked, due_at, done_at, verdict, risk
                    FROM sessions LEFT JOIN reviews ON session_id = sessions.id
                    WHERE ($1 IS NULL OR principal_name = $1)
                      AND ($2 IS NULL OR target_name = $2)
                      AND ($3 IS NULL OR grant_id = $3)
                      AND ($4 IS NULL OR (ended_at IS NULL) = $4)
                      AND ($5 IS NULL OR started_at < $5 OR (started_at = $5 AND id < $6))
                      AND ($8 IS NULL OR started_at >= $8) AND ($9 IS NULL OR started_at < $9)
                    ORDER BY started_at DESC, id DESC LIMIT $7";
const OPEN_COUNTS: &str = "SELECT grant_id, COUNT(*) AS count FROM sessions
                           WHERE ended_at IS NULL AND id <> $2
                             AND grant_id IN (SELECT grant_id FROM grant_people WHERE principal_id = $1)
                           GROUP BY grant_id";
const HAS_OTHERS: &str = "SELECT EXISTS (SELECT 1 FROM sessions WHERE grant_id = $1 AND id <> $2 AND ended_at IS NULL)";
const REQUEST_CUT: &str = "UPDATE sessions SET cut_requested = $2
                           WHERE id = $1 AND ended_at IS NULL AND cut_requested IS NULL";
const CUT_REQUESTS: &str = "SELECT id, cut_requested FROM sessions
                            WHERE node = $1 AND ended_at IS NULL AND cut_requested IS NOT NULL ORDER BY id";

/// What an event says was opened. At most as many as are worth telling.
const GONE: &str = "SELECT e.session_id FROM events e
                    WHERE e.kind = 'session_opened' AND e.session_id IS NOT NULL
                      AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = e.session_id) ORDER BY e.seq LIMIT 100";

const HOLD: &str = "UPDATE sessions SET held = $2 WHERE id = $1 AND ended_at IS NULL AND held IS NULL";
const RELEASE: &str = "UPDATE sessions SET held = NULL WHERE id = $1 AND ended_at IS NULL AND held IS NOT NULL";
const SEND: &str = "INSERT INTO session_messages (id, session_id, text)
                    SELECT $1, id, $3 FROM sessions WHERE id = $2 AND ended_at IS NULL
                       AND (SELECT COUNT(*) FROM session_messages WHERE session_id = $2) < $4";
const MESSAGES: &str = "SELECT text FROM session_messages WHERE session_id = $1 ORDER BY id";
const TAKE_MESSAGES: &str = "DELETE FROM session_messages WHERE session_id = $1";

/// Messages to one session that may wait for its node to take them.
const MOST_MESSAGES: i32 = 16;

/// A session to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    pub id: SessionId,
    pub principal: PrincipalId,
    /// As it is now; lists show it even if the person is renamed later. The same goes for the target's.
    pub principal_name: PrincipalName,
    pub target: TargetId,
    pub target_name: TargetName,
    pub login: Login,
    pub grant: GrantId,
    /// The grant's terms as they stand now.
    pub terms: Terms,
    /// Which node serves it.
    pub node: String,
    pub client_address: SocketAddr,
    /// What the client calls itself, printable and short.
    pub client_version: String,
    pub started_at: DateTime<Utc>,
}

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    pub session: NewSession,
    /// When and how it ended; `None` while it lives.
    pub ended: Option<(DateTime<Utc>, SessionEnd)>,
    /// Why an admin wants it cut, on whichever node it is.
    pub cut_requested: Option<CutReason>,
    /// Why an admin wants it to stand still.
    pub held: Option<String>,
    /// How far its review has come; `None` until it is at rest.
    pub review: Option<SessionReview>,
}

/// A session's review, as lists of sessions show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReview {
    pub asked: bool,
    pub due_at: DateTime<Utc>,
    pub is_done: bool,
    pub verdict: Option<Verdict>,
    pub risk: u32,
}

/// Which sessions to list; what is left at `None` does not limit.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub principal: Option<PrincipalName>,
    pub target: Option<TargetName>,
    pub grant: Option<GrantId>,
    /// `Some(true)` for those that live, `Some(false)` for those that ended.
    pub live: Option<bool>,
    /// Begun at this instant or later.
    pub since: Option<DateTime<Utc>>,
    /// Begun before this instant.
    pub until: Option<DateTime<Utc>>,
    /// Continue after this one, the last of the page before.
    pub after: Option<(DateTime<Utc>, SessionId)>,
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: Uuid,
    principal_id: Uuid,
    principal_name: String,
    target_id: Uuid,
    target_name: String,
    login: String,
    grant_id: Uuid,
    terms: String,
    node: String,
    client_address: String,
    client_version: String,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    ending: Option<String>,
    cut_requested: Option<String>,
    held: Option<String>,
    asked: Option<bool>,
    due_at: Option<DateTime<Utc>>,
    done_at: Option<DateTime<Utc>>,
    verdict: Option<String>,
    risk: Option<i32>,
}

#[derive(sqlx::FromRow)]
struct CountRow {
    grant_id: Uuid,
    count: i64,
}

#[derive(sqlx::FromRow)]
struct CutRow {
    id: Uuid,
    cut_requested: String,
}

const READ: &str = "read a session";

/// Sessions that events tell of, and that have no row. There is none, unless somebody changed the database.
pub async fn gone(tx: &mut Tx) -> Result<Vec<SessionId>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(GONE).fetch_all(c));
    let rows = rows.map_err(doing("look for sessions that are gone"))?;
    Ok(rows.into_iter().map(SessionId::from_uuid).collect())
}

impl TryFrom<SessionRow> for SessionRecord {
    type Error = DbError;

    fn try_from(row: SessionRow) -> Result<Self, DbError> {
        let ended = match (row.ended_at, &row.ending) {
            (None, None) => None,
            (Some(at), Some(ending)) => Some((at, from_json(READ, ending)?)),
            (Some(_), None) | (None, Some(_)) => return Err(DbError::corrupt(READ, "half an ending")),
        };
        let session = NewSession {
            id: SessionId::from_uuid(row.id),
            principal: PrincipalId::from_uuid(row.principal_id),
            principal_name: from_text(READ, &row.principal_name)?,
            target: TargetId::from_uuid(row.target_id),
            target_name: from_text(READ, &row.target_name)?,
            login: from_text(READ, &row.login)?,
            grant: GrantId::from_uuid(row.grant_id),
            terms: from_json(READ, &row.terms)?,
            node: row.node,
            client_address: from_text(READ, &row.client_address)?,
            client_version: row.client_version,
            started_at: row.started_at,
        };
        let cut_requested = row.cut_requested.map(|reason| from_json(READ, &reason)).transpose()?;
        let review = match (row.asked, row.due_at, row.risk) {
            (Some(asked), Some(due_at), Some(risk)) => Some(SessionReview {
                asked,
                due_at,
                is_done: row.done_at.is_some(),
                verdict: row.verdict.as_deref().map(super::reviews::verdict).transpose()?,
                risk: to_count(READ, risk)?,
            }),
            _ => None,
        };
        Ok(Self { session, ended, cut_requested, held: row.held, review })
    }
}

/// Adds a session that starts in the process `run`.
pub async fn insert(tx: &mut Tx, session: &NewSession, run: Uuid) -> Result<(), DbError> {
    const OPEN: &str = "open a session";
    let terms = to_json(OPEN, &session.terms)?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(session.id.as_uuid())
        .bind(session.principal.as_uuid())
        .bind(session.principal_name.as_str())
        .bind(session.target.as_uuid())
        .bind(session.target_name.as_str())
        .bind(session.login.as_str())
        .bind(session.grant.as_uuid())
        .bind(&terms)
        .bind(&session.node)
        .bind(session.client_address.to_string())
        .bind(&session.client_version)
        .bind(session.started_at)
        .bind(run));
    inserted.map(drop).map_err(doing(OPEN))
}

/// Notes how a session ended; `false` if it had ended before, or is unknown.
pub async fn end(tx: &mut Tx, id: SessionId, at: DateTime<Utc>, end: &SessionEnd) -> Result<bool, DbError> {
    let ending = to_json("end a session", end)?;
    let ended = change_either!(tx, |c| sqlx::query(END).bind(id.as_uuid()).bind(at).bind(&ending));
    Ok(ended.map_err(doing("end a session"))? == 1)
}

/// The session with this id.
pub async fn find(tx: &mut Tx, id: SessionId) -> Result<Option<SessionRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<SessionRow> = row.map_err(doing("find a session"))?;
    row.map(SessionRecord::try_from).transpose()
}

/// The sessions that have not ended on `node`, with the process that serves each, or did when it died.
pub async fn live_on(tx: &mut Tx, node: &str) -> Result<Vec<(SessionId, Option<Uuid>)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, Option<Uuid>)>(LIVE_ON).bind(node).fetch_all(c));
    let rows = rows.map_err(doing("list a node's sessions"))?;
    Ok(rows.into_iter().map(|(id, run)| (SessionId::from_uuid(id), run)).collect())
}

/// The sessions of one process that have not ended.
pub async fn live_of(tx: &mut Tx, run: Uuid) -> Result<Vec<SessionId>, DbError> {
    let ids = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(LIVE_OF).bind(run).fetch_all(c));
    let ids = ids.map_err(doing("list a node's sessions"))?;
    Ok(ids.into_iter().map(SessionId::from_uuid).collect())
}

/// Keeps a session from ending until the end of the transaction; `false` if it has ended, or is unknown.
pub async fn hold_open(tx: &mut Tx, id: SessionId) -> Result<bool, DbError> {
    let held = change_either!(tx, |c| sqlx::query(HOLD_OPEN).bind(id.as_uuid()));
    Ok(held.map_err(doing("look whether a session is open"))? == 1)
}

/// Lets a session be sealed once more: one of its recordings is being completed.
pub async fn unseal(tx: &mut Tx, id: SessionId) -> Result<(), DbError> {
    let unsealed = change_either!(tx, |c| sqlx::query(UNSEAL).bind(id.as_uuid()));
    unsealed.map(drop).map_err(doing("seal a session again"))
}

/// A session that was closed from outside went on until `at`, as its recordings show; an earlier instant changes nothing.
pub async fn lengthen(tx: &mut Tx, id: SessionId, at: DateTime<Utc>) -> Result<(), DbError> {
    let lengthened = change_either!(tx, |c| sqlx::query(LENGTHEN).bind(id.as_uuid()).bind(at));
    lengthened.map(drop).map_err(doing("seal a session again"))
}

/// At most `limit` sessions, the latest first.
pub async fn list(tx: &mut Tx, filter: &SessionFilter, limit: u32) -> Result<Vec<SessionRecord>, DbError> {
    let (after_at, after_id) = filter.after.unzip();
    let rows = on_either!(tx, |c| sqlx::query_as(LIST)
        .bind(filter.principal.as_ref().map(PrincipalName::as_str))
        .bind(filter.target.as_ref().map(TargetName::as_str))
        .bind(filter.grant.map(GrantId::as_uuid))
        .bind(filter.live)
        .bind(after_at)
        .bind(after_id.map(SessionId::as_uuid))
        .bind(i64::from(limit))
        .bind(filter.since)
        .bind(filter.until)
        .fetch_all(c));
    let rows: Vec<SessionRow> = rows.map_err(doing("list sessions"))?;
    rows.into_iter().map(SessionRecord::try_from).collect()
}

/// How many sessions are open under each grant that names the person, whoever's they are, `except` one. A grant that is
/// not listed has none.
pub async fn open_counts(
    tx: &mut Tx,
    principal: PrincipalId,
    except: Option<SessionId>,
) -> Result<HashMap<GrantId, u32>, DbError> {
    // No session has the nil UUID.
    let except = except.map_or(Uuid::nil(), SessionId::as_uuid);
    let rows = on_either!(tx, |c| sqlx::query_as(OPEN_COUNTS).bind(principal.as_uuid()).bind(except).fetch_all(c));
    let rows: Vec<CountRow> = rows.map_err(doing("count open sessions"))?;
    let pair = |row: CountRow| Ok((GrantId::from_uuid(row.grant_id), to_count("count open sessions", row.count)?));
    rows.into_iter().map(pair).collect()
}

/// Whether other sessions than `one` are open under `grant`, on whichever node.
pub async fn has_others(tx: &mut Tx, grant: GrantId, one: SessionId) -> Result<bool, DbError> {
    let others =
        on_either!(tx, |c| sqlx::query_scalar(HAS_OTHERS).bind(grant.as_uuid()).bind(one.as_uuid()).fetch_one(c));
    others.map_err(doing("look for other sessions of a grant"))
}

/// Asks whichever node serves the session to cut it; `false` if it has ended, is unknown or was asked for before.
pub async fn request_cut(tx: &mut Tx, id: SessionId, reason: &CutReason) -> Result<bool, DbError> {
    let reason = to_json("ask for a cut", reason)?;
    let asked = change_either!(tx, |c| sqlx::query(REQUEST_CUT).bind(id.as_uuid()).bind(&reason));
    Ok(asked.map_err(doing("ask for a cut"))? == 1)
}

/// The live sessions of `node` that somebody wants cut.
pub async fn cut_requests(tx: &mut Tx, node: &str) -> Result<Vec<(SessionId, CutReason)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(CUT_REQUESTS).bind(node).fetch_all(c));
    let rows: Vec<CutRow> = rows.map_err(doing("read the wishes to cut"))?;
    let pair = |row: CutRow| Ok((SessionId::from_uuid(row.id), from_json(READ, &row.cut_requested)?));
    rows.into_iter().map(pair).collect()
}

/// Asks whichever node serves the session to let it stand still; `false` if it has ended, is unknown or stands still by somebody's
/// wish already.
pub async fn hold(tx: &mut Tx, id: SessionId, reason: &str) -> Result<bool, DbError> {
    let held = change_either!(tx, |c| sqlx::query(HOLD).bind(id.as_uuid()).bind(reason));
    Ok(held.map_err(doing("hold a session"))? == 1)
}

/// Takes the wish back; `false` if there is none, or no such live session.
pub async fn release(tx: &mut Tx, id: SessionId) -> Result<bool, DbError> {
    let released = change_either!(tx, |c| sqlx::query(RELEASE).bind(id.as_uuid()));
    Ok(released.map_err(doing("release a session"))? == 1)
}

/// Leaves a message for whoever is at the session's terminals; `false` if it does not live, or too many wait there already.
pub async fn send(tx: &mut Tx, id: SessionId, message: Uuid, text: &str) -> Result<bool, DbError> {
    let sent =
        change_either!(tx, |c| sqlx::query(SEND).bind(message).bind(id.as_uuid()).bind(text).bind(MOST_MESSAGES));
    Ok(sent.map_err(doing("send a message"))? == 1)
}

/// What waits to be shown at the session's terminals, the oldest first. It stays there.
pub async fn messages(tx: &mut Tx, id: SessionId) -> Result<Vec<String>, DbError> {
    let texts = on_either!(tx, |c| sqlx::query_scalar(MESSAGES).bind(id.as_uuid()).fetch_all(c));
    texts.map_err(doing("read messages"))
}

/// Takes off what [`messages`] gave in the same transaction.
pub async fn take_messages(tx: &mut Tx, id: SessionId) -> Result<(), DbError> {
    let taken = change_either!(tx, |c| sqlx::query(TAKE_MESSAGES).bind(id.as_uuid()));
    taken.map(drop).map_err(doing("take messages"))
}
