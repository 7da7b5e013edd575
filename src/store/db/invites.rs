//! Invites: their tokens' hashes, never themselves. A row stays, used or not, so that the list tells what became of each.

use chrono::{DateTime, Utc};
use sallyport_domain::id::{InviteId, PrincipalId};
use sallyport_domain::name::PrincipalName;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_text, on_either};

const INSERT: &str =
    "INSERT INTO invites (id, principal_id, token_hash, created_at, not_after) VALUES ($1, $2, $3, $4, $5)";
const FIND_BY_HASH: &str =
    "SELECT i.id, i.principal_id, p.name, i.created_at, i.not_after, i.used_at, i.added, i.revoked_at
                            FROM invites i JOIN principals p ON p.id = i.principal_id WHERE i.token_hash = $1";
const LIST: &str = "SELECT i.id, i.principal_id, p.name, i.created_at, i.not_after, i.used_at, i.added, i.revoked_at
                    FROM invites i JOIN principals p ON p.id = i.principal_id
                    WHERE i.principal_id = $1 ORDER BY i.created_at DESC, i.id DESC LIMIT $2";
/// The database settles who is first.
const USE: &str = "UPDATE invites SET used_at = $2, added = $3
                   WHERE id = $1 AND used_at IS NULL AND revoked_at IS NULL AND not_after > $2";
const REVOKE: &str = "UPDATE invites SET revoked_at = $3
                      WHERE id = $1 AND principal_id = $2
                        AND used_at IS NULL AND revoked_at IS NULL AND not_after > $3";
const REVOKE_ALL: &str = "UPDATE invites SET revoked_at = $2
                          WHERE principal_id = $1 AND used_at IS NULL AND revoked_at IS NULL AND not_after > $2 RETURNING id";

/// What is known of an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRecord {
    pub id: InviteId,
    pub principal: PrincipalId,
    pub principal_name: PrincipalName,
    pub created_at: DateTime<Utc>,
    /// The first instant at which it opens nothing any more.
    pub not_after: DateTime<Utc>,
    /// When it was used, and what came by it: a key's fingerprint, or a passkey's id.
    pub used: Option<(DateTime<Utc>, String)>,
    pub revoked_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct InviteRow {
    id: Uuid,
    principal_id: Uuid,
    name: String,
    created_at: DateTime<Utc>,
    not_after: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    added: Option<String>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<InviteRow> for InviteRecord {
    type Error = DbError;

    fn try_from(row: InviteRow) -> Result<Self, DbError> {
        Ok(Self {
            id: InviteId::from_uuid(row.id),
            principal: PrincipalId::from_uuid(row.principal_id),
            principal_name: from_text("read an invite", &row.name)?,
            created_at: row.created_at,
            not_after: row.not_after,
            used: row.used_at.zip(row.added),
            revoked_at: row.revoked_at,
        })
    }
}

/// Adds an invite by its token's hash.
pub async fn insert(tx: &mut Tx, invite: &InviteRecord, hash: &[u8]) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(invite.id.as_uuid())
        .bind(invite.principal.as_uuid())
        .bind(hash)
        .bind(invite.created_at)
        .bind(invite.not_after));
    inserted.map(drop).map_err(doing("make an invite"))
}

/// The invite whose token has this hash, used and revoked ones too.
pub async fn find_by_hash(tx: &mut Tx, hash: &[u8]) -> Result<Option<InviteRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND_BY_HASH).bind(hash).fetch_optional(c));
    let row: Option<InviteRow> = row.map_err(doing("find an invite"))?;
    row.map(InviteRecord::try_from).transpose()
}

/// A person's invites, at most `most`, the newest first.
pub async fn list(tx: &mut Tx, person: PrincipalId, most: u32) -> Result<Vec<InviteRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(person.as_uuid()).bind(i64::from(most)).fetch_all(c));
    let rows: Vec<InviteRow> = rows.map_err(doing("list invites"))?;
    rows.into_iter().map(InviteRecord::try_from).collect()
}

/// Uses an invite up for what it added; `false` if it was used before, was revoked, or has ended at `at`.
pub async fn use_up(tx: &mut Tx, id: InviteId, at: DateTime<Utc>, added: &str) -> Result<bool, DbError> {
    let used = change_either!(tx, |c| sqlx::query(USE).bind(id.as_uuid()).bind(at).bind(added));
    Ok(used.map_err(doing("use an invite"))? == 1)
}

/// Revokes an invite of a person's that is open at `at`; `false` if it was not.
pub async fn revoke(tx: &mut Tx, person: PrincipalId, id: InviteId, at: DateTime<Utc>) -> Result<bool, DbError> {
    let revoked = change_either!(tx, |c| sqlx::query(REVOKE).bind(id.as_uuid()).bind(person.as_uuid()).bind(at));
    Ok(revoked.map_err(doing("revoke an invite"))? == 1)
}

/// Revokes whatever of a person's is open at `at`.
pub async fn revoke_all(tx: &mut Tx, person: PrincipalId, at: DateTime<Utc>) -> Result<Vec<InviteId>, DbError> {
    let rows =
        on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(REVOKE_ALL).bind(person.as_uuid()).bind(at).fetch_all(c));
    Ok(rows.map_err(doing("revoke invites"))?.into_iter().map(InviteId::from_uuid).collect())
}
