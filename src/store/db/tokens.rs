//! API tokens: their hashes, never themselves.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{PrincipalId, TokenId};
use sallyport_domain::name::PrincipalName;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_text, on_either};

const INSERT: &str = "INSERT INTO api_tokens (id, principal_id, label, token_hash, created_at, not_after)
                      VALUES ($1, $2, $3, $4, $5, $6)";
const FIND_BY_HASH: &str =
    "SELECT t.id, t.principal_id, p.name, t.label, t.created_at, t.not_after, t.last_used_at, t.revoked_at
                            FROM api_tokens t JOIN principals p ON p.id = t.principal_id WHERE t.token_hash = $1";
const LIST: &str =
    "SELECT t.id, t.principal_id, p.name, t.label, t.created_at, t.not_after, t.last_used_at, t.revoked_at
                    FROM api_tokens t JOIN principals p ON p.id = t.principal_id ORDER BY t.created_at, t.id";
const REVOKE: &str =
    "UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING principal_id";
const USED: &str = "UPDATE api_tokens SET last_used_at = $2 WHERE id = $1";

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: TokenId,
    pub principal: PrincipalId,
    pub principal_name: PrincipalName,
    pub label: String,
    pub created_at: DateTime<Utc>,
    /// The first instant at which it no longer works; `None` for one that does not end.
    pub not_after: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    id: Uuid,
    principal_id: Uuid,
    name: String,
    label: String,
    created_at: DateTime<Utc>,
    not_after: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<TokenRow> for TokenRecord {
    type Error = DbError;

    fn try_from(row: TokenRow) -> Result<Self, DbError> {
        Ok(Self {
            id: TokenId::from_uuid(row.id),
            principal: PrincipalId::from_uuid(row.principal_id),
            principal_name: from_text("read a token", &row.name)?,
            label: row.label,
            created_at: row.created_at,
            not_after: row.not_after,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })
    }
}

/// Adds a token by its hash.
pub async fn insert(tx: &mut Tx, token: &TokenRecord, hash: &[u8]) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(token.id.as_uuid())
        .bind(token.principal.as_uuid())
        .bind(&token.label)
        .bind(hash)
        .bind(token.created_at)
        .bind(token.not_after));
    inserted.map(drop).map_err(doing("make a token"))
}

/// The token with this hash, whether or not it still works.
pub async fn find_by_hash(tx: &mut Tx, hash: &[u8]) -> Result<Option<TokenRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND_BY_HASH).bind(hash).fetch_optional(c));
    let row: Option<TokenRow> = row.map_err(doing("find a token"))?;
    row.map(TokenRecord::try_from).transpose()
}

/// Every token, the oldest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<TokenRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<TokenRow> = rows.map_err(doing("list tokens"))?;
    rows.into_iter().map(TokenRecord::try_from).collect()
}

/// Revokes the token and says whose it was; `None` if it is unknown or already revoked.
pub async fn revoke(tx: &mut Tx, id: TokenId, at: DateTime<Utc>) -> Result<Option<PrincipalId>, DbError> {
    let owner = on_either!(tx, |c| sqlx::query_scalar(REVOKE).bind(id.as_uuid()).bind(at).fetch_optional(c));
    let owner: Option<Uuid> = owner.map_err(doing("revoke a token"))?;
    Ok(owner.map(PrincipalId::from_uuid))
}

/// Notes that the token was used.
pub async fn used(tx: &mut Tx, id: TokenId, at: DateTime<Utc>) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(USED).bind(id.as_uuid()).bind(at));
    noted.map(drop).map_err(doing("note the use of a token"))
}
