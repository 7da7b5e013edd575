//! Who people are at identity providers: a person is bound to one subject of one issuer, and that subject to nobody else.

use chrono::{DateTime, Utc};
use sallyport_domain::id::PrincipalId;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const BIND: &str = "INSERT INTO identities (principal_id, issuer, subject, created_at) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (principal_id) DO UPDATE
                    SET issuer = excluded.issuer, subject = excluded.subject, created_at = excluded.created_at";
const FIND: &str = "SELECT issuer, subject, created_at FROM identities WHERE principal_id = $1";
const FIND_PERSON: &str = "SELECT principal_id FROM identities WHERE issuer = $1 AND subject = $2";
const REMOVE: &str = "DELETE FROM identities WHERE principal_id = $1";

/// Who a person is at a provider.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct IdentityRecord {
    pub issuer: String,
    pub subject: String,
    pub created_at: DateTime<Utc>,
}

/// Binds a person, in place of what they were bound to. Whoever calls has looked whether somebody else is bound to it; a race is
/// a conflict.
pub async fn bind(tx: &mut Tx, person: PrincipalId, identity: &IdentityRecord) -> Result<(), DbError> {
    let bound = change_either!(tx, |c| sqlx::query(BIND)
        .bind(person.as_uuid())
        .bind(&identity.issuer)
        .bind(&identity.subject)
        .bind(identity.created_at));
    bound.map(drop).map_err(doing("bind somebody to an identity provider"))
}

/// Who the person is at a provider.
pub async fn find(tx: &mut Tx, person: PrincipalId) -> Result<Option<IdentityRecord>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(FIND).bind(person.as_uuid()).fetch_optional(c));
    found.map_err(doing("find who somebody is at an identity provider"))
}

/// Who is bound to this subject.
pub async fn find_person(tx: &mut Tx, issuer: &str, subject: &str) -> Result<Option<PrincipalId>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(FIND_PERSON).bind(issuer).bind(subject).fetch_optional(c));
    let found: Option<Uuid> = found.map_err(doing("find whom an identity provider proved"))?;
    Ok(found.map(PrincipalId::from_uuid))
}

/// Takes the binding away; `false` if there is none.
pub async fn remove(tx: &mut Tx, person: PrincipalId) -> Result<bool, DbError> {
    let removed = change_either!(tx, |c| sqlx::query(REMOVE).bind(person.as_uuid()));
    Ok(removed.map_err(doing("take a binding to an identity provider away"))? == 1)
}
