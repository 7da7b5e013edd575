//! Legal holds: what keeps recordings from deletion. A hold that was released stays in the books.

use chrono::{DateTime, Utc};
use sallyport_domain::event::Actor;
use sallyport_domain::id::{GrantId, HoldId, SessionId, TargetId};
use sallyport_domain::retention::HoldSubject;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_json};

/// Whoever changes holds or deletions takes this turn first, so that a hold comes before a deletion or after it.
const TAKE_TURN: &str = "UPDATE retention_turn SET turns = turns + 1 WHERE id = 1";
const INSERT: &str =
    "INSERT INTO legal_holds (id, scope, subject, reason, set_by, set_at) VALUES ($1, $2, $3, $4, $5, $6)";
const RELEASE: &str = "UPDATE legal_holds SET released_by = $2, released_at = $3, release_reason = $4
                       WHERE id = $1 AND released_at IS NULL";
const FIND: &str = "SELECT id, scope, subject, reason, set_by, set_at, released_by, released_at, release_reason
                    FROM legal_holds WHERE id = $1";
/// `$2`: the last of the page before.
const LIST: &str = "SELECT id, scope, subject, reason, set_by, set_at, released_by, released_at, release_reason
                    FROM legal_holds WHERE ($1 OR released_at IS NULL) AND ($2 IS NULL OR id < $2)
                    ORDER BY id DESC LIMIT $3";
const OF_SESSION: &str = "SELECT h.id FROM legal_holds h JOIN sessions s ON
                            (h.scope = 'session' AND h.subject = s.id) OR (h.scope = 'grant' AND h.subject = s.grant_id)
                            OR (h.scope = 'target' AND h.subject = s.target_id)
                          WHERE s.id = $1 AND h.released_at IS NULL ORDER BY h.id LIMIT 1";

/// A hold as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub id: HoldId,
    pub subject: HoldSubject,
    pub reason: String,
    pub set_by: Actor,
    pub set_at: DateTime<Utc>,
    pub released: Option<Released>,
}

/// Who released a hold, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    pub by: Actor,
    pub at: DateTime<Utc>,
    pub reason: String,
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    id: Uuid,
    scope: String,
    subject: Uuid,
    reason: String,
    set_by: String,
    set_at: DateTime<Utc>,
    released_by: Option<String>,
    released_at: Option<DateTime<Utc>>,
    release_reason: Option<String>,
}

const READ: &str = "read a legal hold";

impl TryFrom<HoldRow> for Hold {
    type Error = DbError;

    fn try_from(row: HoldRow) -> Result<Self, DbError> {
        let subject = match row.scope.as_str() {
            "session" => HoldSubject::Session(SessionId::from_uuid(row.subject)),
            "grant" => HoldSubject::Grant(GrantId::from_uuid(row.subject)),
            "target" => HoldSubject::Target(TargetId::from_uuid(row.subject)),
            _ => return Err(DbError::corrupt(READ, "an unknown scope")),
        };
        let released = match (row.released_by, row.released_at, row.release_reason) {
            (Some(by), Some(at), Some(reason)) => Some(Released { by: from_json(READ, &by)?, at, reason }),
            (None, None, None) => None,
            _ => return Err(DbError::corrupt(READ, "half a release")),
        };
        Ok(Self {
            id: HoldId::from_uuid(row.id),
            subject,
            reason: row.reason,
            set_by: from_json(READ, &row.set_by)?,
            set_at: row.set_at,
            released,
        })
    }
}

fn columns(subject: HoldSubject) -> (&'static str, Uuid) {
    match subject {
        HoldSubject::Session(id) => ("session", id.as_uuid()),
        HoldSubject::Grant(id) => ("grant", id.as_uuid()),
        HoldSubject::Target(id) => ("target", id.as_uuid()),
    }
}

/// Lets nobody else change holds or deletions until the transaction ends. Call it before anything is read.
pub async fn take_turn(tx: &mut Tx) -> Result<(), DbError> {
    change_either!(tx, |c| sqlx::query(TAKE_TURN)).map(drop).map_err(doing("take a turn at holds and deletions"))
}

/// Adds a hold.
pub async fn insert(tx: &mut Tx, hold: &Hold) -> Result<(), DbError> {
    const SET: &str = "set a legal hold";
    let ((scope, subject), set_by) = (columns(hold.subject), to_json(SET, &hold.set_by)?);
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(hold.id.as_uuid())
        .bind(scope)
        .bind(subject)
        .bind(&hold.reason)
        .bind(&set_by)
        .bind(hold.set_at));
    inserted.map(drop).map_err(doing(SET))
}

/// Releases a hold; `false` if it is unknown or was released before.
pub async fn release(tx: &mut Tx, id: HoldId, released: &Released) -> Result<bool, DbError> {
    const RELEASING: &str = "release a legal hold";
    let by = to_json(RELEASING, &released.by)?;
    let changed = change_either!(tx, |c| sqlx::query(RELEASE)
        .bind(id.as_uuid())
        .bind(&by)
        .bind(released.at)
        .bind(&released.reason));
    Ok(changed.map_err(doing(RELEASING))? == 1)
}

/// The hold with this id.
pub async fn find(tx: &mut Tx, id: HoldId) -> Result<Option<Hold>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<HoldRow> = row.map_err(doing(READ))?;
    row.map(Hold::try_from).transpose()
}

/// At most `limit` holds, the latest first, with `released` also those that were released; `before` is the last of the page before.
pub async fn list(tx: &mut Tx, released: bool, before: Option<HoldId>, limit: u32) -> Result<Vec<Hold>, DbError> {
    let before = before.map(HoldId::as_uuid);
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(released).bind(before).bind(i64::from(limit)).fetch_all(c));
    let rows: Vec<HoldRow> = rows.map_err(doing("list legal holds"))?;
    rows.into_iter().map(Hold::try_from).collect()
}

/// A hold that keeps what was recorded in the session; `None` if none does.
pub async fn of_session(tx: &mut Tx, session: SessionId) -> Result<Option<HoldId>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(OF_SESSION).bind(session.as_uuid()).fetch_optional(c));
    Ok(found.map_err(doing(READ))?.map(HoldId::from_uuid))
}
