//! Passkeys: public keys of authenticators, and what is known of each.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{PasskeyId, PrincipalId};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str = "INSERT INTO passkeys (id, principal_id, credential_id, name, credential, created_at)
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (credential_id) DO NOTHING";
const LIST: &str = "SELECT id, principal_id, credential_id, name, credential, created_at, last_used_at
                    FROM passkeys WHERE principal_id = $1 ORDER BY created_at, id";
const FIND: &str = "SELECT id, principal_id, credential_id, name, credential, created_at, last_used_at
                    FROM passkeys WHERE credential_id = $1";
const USED: &str = "UPDATE passkeys SET credential = $2, last_used_at = $3 WHERE id = $1";
const REMOVE: &str = "DELETE FROM passkeys WHERE id = $1 AND principal_id = $2 RETURNING name";

/// A passkey as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeyRecord {
    pub id: PasskeyId,
    pub principal: PrincipalId,
    /// What its authenticator calls it; up to 1023 bytes (WebAuthn §5.8.3).
    pub credential_id: Vec<u8>,
    pub name: String,
    /// JSON, of whoever verifies it.
    pub credential: String,
    pub created_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct PasskeyRow {
    id: Uuid,
    principal_id: Uuid,
    credential_id: Vec<u8>,
    name: String,
    credential: String,
    created_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

impl From<PasskeyRow> for PasskeyRecord {
    fn from(row: PasskeyRow) -> Self {
        Self {
            id: PasskeyId::from_uuid(row.id),
            principal: PrincipalId::from_uuid(row.principal_id),
            credential_id: row.credential_id,
            name: row.name,
            credential: row.credential,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// Adds one; `false` if somebody has it already.
pub async fn insert(tx: &mut Tx, passkey: &PasskeyRecord) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(passkey.id.as_uuid())
        .bind(passkey.principal.as_uuid())
        .bind(&passkey.credential_id)
        .bind(&passkey.name)
        .bind(&passkey.credential)
        .bind(passkey.created_at));
    Ok(inserted.map_err(doing("add a passkey"))? == 1)
}

/// A person's, the oldest first.
pub async fn list(tx: &mut Tx, person: PrincipalId) -> Result<Vec<PasskeyRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(person.as_uuid()).fetch_all(c));
    let rows: Vec<PasskeyRow> = rows.map_err(doing("list passkeys"))?;
    Ok(rows.into_iter().map(PasskeyRecord::from).collect())
}

/// The one that its authenticator calls so.
pub async fn find(tx: &mut Tx, credential_id: &[u8]) -> Result<Option<PasskeyRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(credential_id).fetch_optional(c));
    let row: Option<PasskeyRow> = row.map_err(doing("find a passkey"))?;
    Ok(row.map(PasskeyRecord::from))
}

/// Notes that it was used, and what is known of it since; `false` if it was removed meanwhile.
pub async fn used(tx: &mut Tx, id: PasskeyId, credential: &str, at: DateTime<Utc>) -> Result<bool, DbError> {
    let noted = change_either!(tx, |c| sqlx::query(USED).bind(id.as_uuid()).bind(credential).bind(at));
    Ok(noted.map_err(doing("note the use of a passkey"))? == 1)
}

/// Removes one of a person's and gives its name; `None` if they have none like it.
pub async fn remove(tx: &mut Tx, person: PrincipalId, id: PasskeyId) -> Result<Option<String>, DbError> {
    let name =
        on_either!(tx, |c| sqlx::query_scalar(REMOVE).bind(id.as_uuid()).bind(person.as_uuid()).fetch_optional(c));
    name.map_err(doing("remove a passkey"))
}
