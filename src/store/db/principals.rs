//! People with their public keys and password hashes.

use chrono::{DateTime, Utc};
use sallyport_domain::id::PrincipalId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::{Principal, Role};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_text, on_either};

const INSERT: &str = "INSERT INTO principals (id, name, organisation, roles, password_hash, created_at)
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING";
const LIST: &str = "SELECT id, name, organisation, roles, password_hash, created_at, disabled_at
                    FROM principals ORDER BY name";
const FIND: &str = "SELECT id, name, organisation, roles, password_hash, created_at, disabled_at
                    FROM principals WHERE name = $1";
const FIND_BY_ID: &str = "SELECT id, name, organisation, roles, password_hash, created_at, disabled_at
                          FROM principals WHERE id = $1";
const FIND_BY_KEY: &str = "SELECT p.id, p.name, p.organisation, p.roles, p.password_hash, p.created_at, p.disabled_at
                           FROM principals p JOIN principal_keys k ON k.principal_id = p.id WHERE k.fingerprint = $1";
const SET_PASSWORD: &str = "UPDATE principals SET password_hash = $2 WHERE id = $1";
const SET_ORGANISATION: &str = "UPDATE principals SET organisation = $2 WHERE id = $1";
const SET_ROLES: &str = "UPDATE principals SET roles = $2 WHERE id = $1";
const DISABLE: &str = "UPDATE principals SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL";
const ENABLE: &str = "UPDATE principals SET disabled_at = NULL WHERE id = $1 AND disabled_at IS NOT NULL";
const HOLD: &str = "UPDATE principals SET name = name WHERE id = $1";
const INSERT_KEY: &str = "INSERT INTO principal_keys (fingerprint, principal_id, public_key, comment, added_at)
                          VALUES ($1, $2, $3, $4, $5) ON CONFLICT (fingerprint) DO NOTHING";
const REMOVE_KEY: &str = "DELETE FROM principal_keys WHERE principal_id = $1 AND fingerprint = $2";
const KEYS: &str = "SELECT principal_id, fingerprint, public_key, comment, added_at, last_used_at
                    FROM principal_keys ORDER BY added_at, fingerprint";
const KEYS_OF: &str = "SELECT principal_id, fingerprint, public_key, comment, added_at, last_used_at
                       FROM principal_keys WHERE principal_id = $1 ORDER BY added_at, fingerprint";
const KEY_USED: &str = "UPDATE principal_keys SET last_used_at = $2 WHERE fingerprint = $1";

/// A person as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalRecord {
    pub principal: Principal,
    /// argon2id, as a PHC string. Never leaves this program.
    pub password_hash: Option<String>,
}

/// A person's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonKey {
    /// `SHA256:…`
    pub fingerprint: String,
    /// Algorithm and base64.
    pub public_key: String,
    pub comment: String,
    pub added_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct PrincipalRow {
    id: Uuid,
    name: String,
    organisation: Option<String>,
    roles: String,
    password_hash: Option<String>,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    principal_id: Uuid,
    fingerprint: String,
    public_key: String,
    comment: String,
    added_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<PrincipalRow> for PrincipalRecord {
    type Error = DbError;

    fn try_from(row: PrincipalRow) -> Result<Self, DbError> {
        let roles: Result<Vec<Role>, DbError> =
            row.roles.split(',').map(|role| from_text("read a person", role)).collect();
        let principal = Principal {
            id: PrincipalId::from_uuid(row.id),
            name: from_text("read a person", &row.name)?,
            organisation: row.organisation,
            roles: roles?,
            created_at: row.created_at,
            disabled_at: row.disabled_at,
        };
        Ok(Self { principal, password_hash: row.password_hash })
    }
}

impl From<KeyRow> for (PrincipalId, PersonKey) {
    fn from(row: KeyRow) -> Self {
        let key = PersonKey {
            fingerprint: row.fingerprint,
            public_key: row.public_key,
            comment: row.comment,
            added_at: row.added_at,
            last_used_at: row.last_used_at,
        };
        (PrincipalId::from_uuid(row.principal_id), key)
    }
}

fn join(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")
}

/// Adds a person; `false` if the name is taken.
pub async fn insert(tx: &mut Tx, principal: &Principal, password_hash: Option<&str>) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(principal.id.as_uuid())
        .bind(principal.name.as_str())
        .bind(principal.organisation.as_deref())
        .bind(join(&principal.roles))
        .bind(password_hash)
        .bind(principal.created_at));
    Ok(inserted.map_err(doing("add a person"))? == 1)
}

/// Everybody, by name.
pub async fn list(tx: &mut Tx) -> Result<Vec<PrincipalRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<PrincipalRow> = rows.map_err(doing("list people"))?;
    rows.into_iter().map(PrincipalRecord::try_from).collect()
}

/// The person of this name.
pub async fn find(tx: &mut Tx, name: &PrincipalName) -> Result<Option<PrincipalRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(name.as_str()).fetch_optional(c));
    let row: Option<PrincipalRow> = row.map_err(doing("find a person"))?;
    row.map(PrincipalRecord::try_from).transpose()
}

/// The person with this id.
pub async fn find_by_id(tx: &mut Tx, id: PrincipalId) -> Result<Option<PrincipalRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND_BY_ID).bind(id.as_uuid()).fetch_optional(c));
    let row: Option<PrincipalRow> = row.map_err(doing("find a person"))?;
    row.map(PrincipalRecord::try_from).transpose()
}

/// The person to whom this public key belongs.
pub async fn find_by_key(tx: &mut Tx, fingerprint: &str) -> Result<Option<PrincipalRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND_BY_KEY).bind(fingerprint).fetch_optional(c));
    let row: Option<PrincipalRow> = row.map_err(doing("find the owner of a key"))?;
    row.map(PrincipalRecord::try_from).transpose()
}

/// Sets or takes away the password's hash.
pub async fn set_password_hash(tx: &mut Tx, id: PrincipalId, hash: Option<&str>) -> Result<(), DbError> {
    let set = change_either!(tx, |c| sqlx::query(SET_PASSWORD).bind(id.as_uuid()).bind(hash));
    set.map(drop).map_err(doing("set a password"))
}

/// Sets the roles; there must be one.
pub async fn set_roles(tx: &mut Tx, id: PrincipalId, roles: &[Role]) -> Result<(), DbError> {
    let set = change_either!(tx, |c| sqlx::query(SET_ROLES).bind(id.as_uuid()).bind(join(roles)));
    set.map(drop).map_err(doing("set a person's roles"))
}

/// Sets or takes away whom the person works for.
pub async fn set_organisation(tx: &mut Tx, id: PrincipalId, organisation: Option<&str>) -> Result<(), DbError> {
    let set = change_either!(tx, |c| sqlx::query(SET_ORGANISATION).bind(id.as_uuid()).bind(organisation));
    set.map(drop).map_err(doing("set a person's organisation"))
}

/// Keeps the person as they are for others until the end of the transaction: between counting what they have and adding
/// one more, no other node adds one.
pub async fn hold(tx: &mut Tx, id: PrincipalId) -> Result<(), DbError> {
    let held = change_either!(tx, |c| sqlx::query(HOLD).bind(id.as_uuid()));
    held.map(drop).map_err(doing("hold a person"))
}

/// Disables the person; `false` if that was done before.
pub async fn disable(tx: &mut Tx, id: PrincipalId, at: DateTime<Utc>) -> Result<bool, DbError> {
    let set = change_either!(tx, |c| sqlx::query(DISABLE).bind(id.as_uuid()).bind(at));
    Ok(set.map_err(doing("disable a person"))? == 1)
}

/// Enables the person; `false` if nothing was disabled.
pub async fn enable(tx: &mut Tx, id: PrincipalId) -> Result<bool, DbError> {
    let set = change_either!(tx, |c| sqlx::query(ENABLE).bind(id.as_uuid()));
    Ok(set.map_err(doing("enable a person"))? == 1)
}

/// Adds a key; `false` if it belongs to somebody already.
pub async fn insert_key(tx: &mut Tx, id: PrincipalId, key: &PersonKey) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_KEY)
        .bind(&key.fingerprint)
        .bind(id.as_uuid())
        .bind(&key.public_key)
        .bind(&key.comment)
        .bind(key.added_at));
    Ok(inserted.map_err(doing("add a public key"))? == 1)
}

/// Removes a key; `false` if the person does not have it.
pub async fn remove_key(tx: &mut Tx, id: PrincipalId, fingerprint: &str) -> Result<bool, DbError> {
    let removed = change_either!(tx, |c| sqlx::query(REMOVE_KEY).bind(id.as_uuid()).bind(fingerprint));
    Ok(removed.map_err(doing("remove a public key"))? == 1)
}

/// Every key with its owner, the oldest first.
pub async fn keys(tx: &mut Tx) -> Result<Vec<(PrincipalId, PersonKey)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(KEYS).fetch_all(c));
    let rows: Vec<KeyRow> = rows.map_err(doing("list public keys"))?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The person's keys, the oldest first.
pub async fn keys_of(tx: &mut Tx, id: PrincipalId) -> Result<Vec<PersonKey>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(KEYS_OF).bind(id.as_uuid()).fetch_all(c));
    let rows: Vec<KeyRow> = rows.map_err(doing("list a person's public keys"))?;
    Ok(rows.into_iter().map(|row| <(PrincipalId, PersonKey)>::from(row).1).collect())
}

/// Notes that a login was proved with this key.
pub async fn key_used(tx: &mut Tx, fingerprint: &str, at: DateTime<Utc>) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(KEY_USED).bind(fingerprint).bind(at));
    noted.map(drop).map_err(doing("note the use of a public key"))
}
