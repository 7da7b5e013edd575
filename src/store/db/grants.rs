//! Grants and the people they name.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sallyport_domain::grant::{Grant, Revocation, Window};
use sallyport_domain::id::{GrantId, PrincipalId};
use sallyport_domain::name::TemplateName;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, from_text, on_either, to_json};

const INSERT: &str =
    "INSERT INTO grants (id, terms, not_before, not_after, reason, ticket, template, created_by, created_at)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const INSERT_PERSON: &str = "INSERT INTO grant_people (grant_id, principal_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const FIND: &str = "SELECT id, terms, not_before, not_after, reason, ticket, template, created_by, created_at,
                           revoked_at, revoked_by, revoke_reason
                    FROM grants WHERE id = $1";
/// A bound left at `NULL` does not limit. `$1`: not revoked, and ends later; `$2`: revoked, or ended by then; `$3`: names
/// this person.
const LIST: &str = "SELECT id, terms, not_before, not_after, reason, ticket, template, created_by, created_at,
                           revoked_at, revoked_by, revoke_reason
                    FROM grants
                    WHERE ($1 IS NULL OR (not_after > $1 AND revoked_at IS NULL))
                      AND ($2 IS NULL OR not_after <= $2 OR revoked_at IS NOT NULL)
                      AND ($3 IS NULL OR id IN (SELECT grant_id FROM grant_people WHERE principal_id = $3))
                    ORDER BY not_after DESC, id DESC";
const OF_PRINCIPAL: &str =
    "SELECT g.id, g.terms, g.not_before, g.not_after, g.reason, g.ticket, g.template, g.created_by, g.created_at,
                                   g.revoked_at, g.revoked_by, g.revoke_reason
                            FROM grants g JOIN grant_people p ON p.grant_id = g.id
                            WHERE p.principal_id = $1 AND g.not_after > $2
                            ORDER BY g.not_after DESC, g.id DESC";
const PEOPLE: &str = "SELECT grant_id, principal_id FROM grant_people ORDER BY principal_id";
const PEOPLE_OF: &str = "SELECT grant_id, principal_id FROM grant_people WHERE grant_id = $1 ORDER BY principal_id";
const PEOPLE_WITH: &str = "SELECT grant_id, principal_id FROM grant_people
                           WHERE grant_id IN (SELECT grant_id FROM grant_people WHERE principal_id = $1)
                           ORDER BY principal_id";
const HOLD: &str = "UPDATE grants SET reason = reason WHERE id = $1";
const EXTEND: &str = "UPDATE grants SET not_after = $2
                      WHERE id = $1 AND revoked_at IS NULL AND not_after > $3 AND not_before < $2
                      RETURNING id, terms, not_before, not_after, reason, ticket, template, created_by, created_at,
                                revoked_at, revoked_by, revoke_reason";
const REVOKE: &str = "UPDATE grants SET revoked_at = $2, revoked_by = $3, revoke_reason = $4
                      WHERE id = $1 AND revoked_at IS NULL
                      RETURNING id, terms, not_before, not_after, reason, ticket, template, created_by, created_at,
                                revoked_at, revoked_by, revoke_reason";

#[derive(sqlx::FromRow)]
struct GrantRow {
    id: Uuid,
    terms: String,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
    reason: String,
    ticket: Option<String>,
    template: Option<String>,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<Uuid>,
    revoke_reason: Option<String>,
}

#[derive(sqlx::FromRow)]
struct PersonRow {
    grant_id: Uuid,
    principal_id: Uuid,
}

impl GrantRow {
    fn with_people(self, people: Vec<PrincipalId>) -> Result<Grant, DbError> {
        const READ: &str = "read a grant";
        let revoked = match (self.revoked_at, self.revoke_reason) {
            (None, None) => None,
            (Some(at), Some(reason)) => {
                Some(Revocation { at, by: self.revoked_by.map(PrincipalId::from_uuid), reason })
            }
            (Some(_), None) | (None, Some(_)) => return Err(DbError::corrupt(READ, "half a revocation")),
        };
        Ok(Grant {
            id: GrantId::from_uuid(self.id),
            people,
            terms: from_json(READ, &self.terms)?,
            window: Window::new(self.not_before, self.not_after)
                .map_err(|error| DbError::corrupt(READ, error.to_string()))?,
            reason: self.reason,
            ticket: self.ticket,
            template: self.template.map(|name| from_text(READ, &name)).transpose()?,
            created_by: self.created_by.map(PrincipalId::from_uuid),
            created_at: self.created_at,
            revoked,
        })
    }
}

fn join(rows: Vec<GrantRow>, people: Vec<PersonRow>) -> Result<Vec<Grant>, DbError> {
    let mut by_grant: HashMap<Uuid, Vec<PrincipalId>> = HashMap::new();
    for person in people {
        by_grant.entry(person.grant_id).or_default().push(PrincipalId::from_uuid(person.principal_id));
    }
    rows.into_iter()
        .map(|row| {
            let people = by_grant.remove(&row.id).unwrap_or_default();
            row.with_people(people)
        })
        .collect()
}

async fn complete(tx: &mut Tx, row: Option<GrantRow>) -> Result<Option<Grant>, DbError> {
    let Some(row) = row else { return Ok(None) };
    let people = on_either!(tx, |c| sqlx::query_as(PEOPLE_OF).bind(row.id).fetch_all(c));
    let people: Vec<PersonRow> = people.map_err(doing("read a grant"))?;
    let people = people.into_iter().map(|person| PrincipalId::from_uuid(person.principal_id)).collect();
    row.with_people(people).map(Some)
}

/// Which grants to list; what is left at `None` does not limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrantBounds {
    /// Not revoked, and the window ends after this instant.
    pub open_at: Option<DateTime<Utc>>,
    /// Revoked, or the window ended at this instant or before.
    pub ended_at: Option<DateTime<Utc>>,
    pub principal: Option<PrincipalId>,
}

/// Adds a grant with its people.
pub async fn insert(tx: &mut Tx, grant: &Grant) -> Result<(), DbError> {
    const MAKE: &str = "make a grant";
    let terms = to_json(MAKE, &grant.terms)?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(grant.id.as_uuid())
        .bind(&terms)
        .bind(grant.window.not_before())
        .bind(grant.window.not_after())
        .bind(&grant.reason)
        .bind(grant.ticket.as_deref())
        .bind(grant.template.as_ref().map(TemplateName::as_str))
        .bind(grant.created_by.map(PrincipalId::as_uuid))
        .bind(grant.created_at));
    inserted.map_err(doing(MAKE))?;
    for person in &grant.people {
        let inserted =
            change_either!(tx, |c| sqlx::query(INSERT_PERSON).bind(grant.id.as_uuid()).bind(person.as_uuid()));
        inserted.map_err(doing(MAKE))?;
    }
    Ok(())
}

/// The grant with this id.
pub async fn find(tx: &mut Tx, id: GrantId) -> Result<Option<Grant>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(id.as_uuid()).fetch_optional(c));
    complete(tx, row.map_err(doing("find a grant"))?).await
}

/// Grants within the bounds, those that end last first.
pub async fn list(tx: &mut Tx, bounds: GrantBounds) -> Result<Vec<Grant>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST)
        .bind(bounds.open_at)
        .bind(bounds.ended_at)
        .bind(bounds.principal.map(PrincipalId::as_uuid))
        .fetch_all(c));
    let rows: Vec<GrantRow> = rows.map_err(doing("list grants"))?;
    let people = on_either!(tx, |c| sqlx::query_as(PEOPLE).fetch_all(c));
    join(rows, people.map_err(doing("list grants"))?)
}

/// Every grant that names the person and ends after `ended_after`, revoked ones too: what the policy decides on. Set
/// the bound a while back, so that the person can be told of a grant that ended.
pub async fn of_principal(
    tx: &mut Tx,
    principal: PrincipalId,
    ended_after: DateTime<Utc>,
) -> Result<Vec<Grant>, DbError> {
    const READ: &str = "read a person's grants";
    let rows =
        on_either!(tx, |c| sqlx::query_as(OF_PRINCIPAL).bind(principal.as_uuid()).bind(ended_after).fetch_all(c));
    let rows: Vec<GrantRow> = rows.map_err(doing(READ))?;
    let people = on_either!(tx, |c| sqlx::query_as(PEOPLE_WITH).bind(principal.as_uuid()).fetch_all(c));
    join(rows, people.map_err(doing(READ))?)
}

/// Keeps the grant as it is for others until the end of the transaction: between counting the sessions under it and
/// adding one, no other node adds one.
pub async fn hold(tx: &mut Tx, id: GrantId) -> Result<(), DbError> {
    let held = change_either!(tx, |c| sqlx::query(HOLD).bind(id.as_uuid()));
    held.map(drop).map_err(doing("hold a grant"))
}

/// Moves the end of a grant that has neither ended nor been revoked at `now`; `None` if it has, if it is unknown, or if
/// the new end is not after its start.
pub async fn extend(
    tx: &mut Tx,
    id: GrantId,
    not_after: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<Grant>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(EXTEND).bind(id.as_uuid()).bind(not_after).bind(now).fetch_optional(c));
    complete(tx, row.map_err(doing("extend a grant"))?).await
}

/// Revokes the grant at `at`; `None` if it is unknown or already revoked. The database settles the race.
pub async fn revoke(
    tx: &mut Tx,
    id: GrantId,
    at: DateTime<Utc>,
    by: Option<PrincipalId>,
    reason: &str,
) -> Result<Option<Grant>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(REVOKE)
        .bind(id.as_uuid())
        .bind(at)
        .bind(by.map(PrincipalId::as_uuid))
        .bind(reason)
        .fetch_optional(c));
    complete(tx, row.map_err(doing("revoke a grant"))?).await
}
