//! Break-glass envelopes that were made: what they are known by and what became of them, never the files.

use chrono::{DateTime, Utc};
use sallyport_domain::event::Actor;
use sallyport_domain::grant::Terms;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{EnvelopeId, GrantId, PrincipalId};
use sallyport_domain::name::PrincipalName;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, from_text, on_either, to_count, to_json};

const INSERT: &str =
    "INSERT INTO break_glass (id, document, principal_id, keys, terms, lasting_seconds, node, reason, made_by, made_at, not_after)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
/// A bound left at `NULL` does not limit.
const LIST: &str =
    "SELECT b.id, b.document, b.principal_id, p.name, p.disabled_at, b.keys, b.terms, b.lasting_seconds, b.node, b.reason, b.made_by,
            b.made_at, b.not_after, b.revoked_at, b.opened_at, b.grant_id
                    FROM break_glass b JOIN principals p ON p.id = b.principal_id
                    WHERE ($1 IS NULL OR b.not_after > $1) AND ($2 IS NULL OR b.id = $2)
                    ORDER BY b.made_at DESC, b.id DESC LIMIT $3";
/// The database settles the race with an opening.
const REVOKE: &str = "UPDATE break_glass SET revoked_at = $2
                      WHERE id = $1 AND revoked_at IS NULL AND opened_at IS NULL AND not_after > $2";
/// Whatever was said of it meanwhile: its node did open it.
const NOTE_OPENED: &str = "UPDATE break_glass SET opened_at = $2, grant_id = $3 WHERE id = $1 AND opened_at IS NULL";

/// The most envelopes that one look gives: they are few, and made by hand.
const MOST: i64 = 1000;

/// What is known of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeRecord {
    pub id: EnvelopeId,
    /// SHA-256 of the file.
    pub document: Hash,
    pub person: PrincipalId,
    pub person_name: PrincipalName,
    /// The person may not come in.
    pub is_disabled: bool,
    /// Fingerprints of the keys that are in it.
    pub keys: Vec<String>,
    pub terms: Terms,
    pub lasting_seconds: u32,
    pub node: String,
    pub reason: String,
    pub made_by: Actor,
    pub made_at: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was opened, and what it became.
    pub opened: Option<(DateTime<Utc>, GrantId)>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    document: Vec<u8>,
    principal_id: Uuid,
    name: String,
    disabled_at: Option<DateTime<Utc>>,
    keys: String,
    terms: String,
    lasting_seconds: i32,
    node: String,
    reason: String,
    made_by: String,
    made_at: DateTime<Utc>,
    not_after: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    opened_at: Option<DateTime<Utc>>,
    grant_id: Option<Uuid>,
}

const READ: &str = "read a break-glass envelope";

impl TryFrom<Row> for EnvelopeRecord {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let document =
            row.document.try_into().map_err(|_| DbError::corrupt(READ, "a hash that is not 32 bytes long"))?;
        Ok(Self {
            id: EnvelopeId::from_uuid(row.id),
            document: Hash(document),
            person: PrincipalId::from_uuid(row.principal_id),
            person_name: from_text(READ, &row.name)?,
            is_disabled: row.disabled_at.is_some(),
            keys: from_json(READ, &row.keys)?,
            terms: from_json(READ, &row.terms)?,
            lasting_seconds: to_count(READ, row.lasting_seconds)?,
            node: row.node,
            reason: row.reason,
            made_by: from_json(READ, &row.made_by)?,
            made_at: row.made_at,
            not_after: row.not_after,
            revoked_at: row.revoked_at,
            opened: row.opened_at.zip(row.grant_id.map(GrantId::from_uuid)),
        })
    }
}

/// Adds an envelope that was made.
pub async fn insert(tx: &mut Tx, envelope: &EnvelopeRecord) -> Result<(), DbError> {
    const ADD: &str = "make a break-glass envelope";
    let (keys, terms, made_by) =
        (to_json(ADD, &envelope.keys)?, to_json(ADD, &envelope.terms)?, to_json(ADD, &envelope.made_by)?);
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(envelope.id.as_uuid())
        .bind(envelope.document.0.as_slice())
        .bind(envelope.person.as_uuid())
        .bind(&keys)
        .bind(&terms)
        .bind(i32::try_from(envelope.lasting_seconds).unwrap_or(i32::MAX))
        .bind(&envelope.node)
        .bind(&envelope.reason)
        .bind(&made_by)
        .bind(envelope.made_at)
        .bind(envelope.not_after));
    inserted.map(drop).map_err(doing(ADD))
}

/// Envelopes, the newest first: all, or those that do not end before an instant; or only one.
async fn select(
    tx: &mut Tx,
    after: Option<DateTime<Utc>>,
    one: Option<EnvelopeId>,
) -> Result<Vec<EnvelopeRecord>, DbError> {
    let one = one.map(EnvelopeId::as_uuid);
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).bind(after).bind(one).bind(MOST).fetch_all(c));
    let rows: Vec<Row> = rows.map_err(doing("list break-glass envelopes"))?;
    rows.into_iter().map(EnvelopeRecord::try_from).collect()
}

/// The envelopes that could still be opened at `at` by their own end, or all.
pub async fn list(tx: &mut Tx, at: Option<DateTime<Utc>>) -> Result<Vec<EnvelopeRecord>, DbError> {
    select(tx, at, None).await
}

pub async fn find(tx: &mut Tx, id: EnvelopeId) -> Result<Option<EnvelopeRecord>, DbError> {
    Ok(select(tx, None, Some(id)).await?.pop())
}

/// Revokes an envelope; `false` if there is none that could still be opened.
pub async fn revoke(tx: &mut Tx, id: EnvelopeId, at: DateTime<Utc>) -> Result<bool, DbError> {
    let revoked = change_either!(tx, |c| sqlx::query(REVOKE).bind(id.as_uuid()).bind(at));
    Ok(revoked.map_err(doing("revoke a break-glass envelope"))? == 1)
}

/// Notes that an envelope was opened and what it became. One that is not known, as after a restore, is no row.
pub async fn note_opened(tx: &mut Tx, id: EnvelopeId, at: DateTime<Utc>, grant: GrantId) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(NOTE_OPENED).bind(id.as_uuid()).bind(at).bind(grant.as_uuid()));
    noted.map(drop).map_err(doing("note that a break-glass envelope was opened"))
}
