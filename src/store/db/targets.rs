//! Targets, their names, and the sealed secrets of their logins.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sallyport_domain::id::TargetId;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::target::Target;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, from_text, on_either, to_json};

const INSERT: &str = "INSERT INTO targets (id, name, address, jump_id, logins, labels, host_keys, created_at)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING";
const INSERT_NAME: &str = "INSERT INTO target_names (name, target_id, is_alias) VALUES ($1, $2, $3)
                           ON CONFLICT (name) DO NOTHING";
const REMOVE_ALIASES: &str = "DELETE FROM target_names WHERE target_id = $1 AND is_alias";
const LIST: &str = "SELECT id, name, address, jump_id, logins, labels, host_keys, created_at, disabled_at
                    FROM targets ORDER BY name";
const FIND: &str =
    "SELECT t.id, t.name, t.address, t.jump_id, t.logins, t.labels, t.host_keys, t.created_at, t.disabled_at
                    FROM targets t JOIN target_names n ON n.target_id = t.id WHERE n.name = $1";
const FIND_BY_ID: &str = "SELECT id, name, address, jump_id, logins, labels, host_keys, created_at, disabled_at
                          FROM targets WHERE id = $1";
const ALIASES: &str = "SELECT target_id, name FROM target_names WHERE is_alias ORDER BY name";
const ALIASES_OF: &str = "SELECT target_id, name FROM target_names WHERE is_alias AND target_id = $1 ORDER BY name";
const UPDATE: &str =
    "UPDATE targets SET address = $2, jump_id = $3, logins = $4, labels = $5, host_keys = $6 WHERE id = $1";
const HOLD: &str = "UPDATE targets SET name = name WHERE id = $1";
const DISABLE: &str = "UPDATE targets SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL";
const ENABLE: &str = "UPDATE targets SET disabled_at = NULL WHERE id = $1 AND disabled_at IS NOT NULL";
const SET_SECRET: &str = "INSERT INTO target_secrets (target_id, login, sealed, set_at) VALUES ($1, $2, $3, $4)
                          ON CONFLICT (target_id, login) DO UPDATE SET sealed = excluded.sealed, set_at = excluded.set_at";
const SECRET: &str = "SELECT sealed FROM target_secrets WHERE target_id = $1 AND login = $2";
const SET_AT: &str = "SELECT set_at FROM target_secrets WHERE target_id = $1 AND login = $2";
const REMOVE_SECRET: &str = "DELETE FROM target_secrets WHERE target_id = $1 AND login = $2";

#[derive(sqlx::FromRow)]
struct TargetRow {
    id: Uuid,
    name: String,
    address: String,
    jump_id: Option<Uuid>,
    logins: String,
    labels: String,
    host_keys: String,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct AliasRow {
    target_id: Uuid,
    name: String,
}

impl TargetRow {
    fn with_aliases(self, aliases: Vec<TargetName>) -> Result<Target, DbError> {
        const READ: &str = "read a target";
        Ok(Target {
            id: TargetId::from_uuid(self.id),
            name: from_text(READ, &self.name)?,
            aliases,
            address: from_text(READ, &self.address)?,
            jump: self.jump_id.map(TargetId::from_uuid),
            logins: from_json(READ, &self.logins)?,
            labels: from_json(READ, &self.labels)?,
            host_keys: from_json(READ, &self.host_keys)?,
            created_at: self.created_at,
            disabled_at: self.disabled_at,
        })
    }
}

/// Adds a target with its names. If one of them is taken it is given back, and the transaction must not be committed.
pub async fn insert(tx: &mut Tx, target: &Target) -> Result<Option<TargetName>, DbError> {
    const ADD: &str = "add a target";
    let (logins, labels, host_keys) =
        (to_json(ADD, &target.logins)?, to_json(ADD, &target.labels)?, to_json(ADD, &target.host_keys)?);
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(target.id.as_uuid())
        .bind(target.name.as_str())
        .bind(target.address.to_string())
        .bind(target.jump.map(TargetId::as_uuid))
        .bind(&logins)
        .bind(&labels)
        .bind(&host_keys)
        .bind(target.created_at));
    if inserted.map_err(doing(ADD))? == 0 {
        return Ok(Some(target.name.clone()));
    }
    let names = std::iter::once((&target.name, false)).chain(target.aliases.iter().map(|alias| (alias, true)));
    insert_names(tx, target.id, names).await
}

/// Writes the aliases in place of those that were there. If one of them is taken it is given back, and the transaction must not be
/// committed.
pub async fn set_aliases(tx: &mut Tx, target: &Target) -> Result<Option<TargetName>, DbError> {
    let removed = change_either!(tx, |c| sqlx::query(REMOVE_ALIASES).bind(target.id.as_uuid()));
    removed.map_err(doing("change a target's aliases"))?;
    insert_names(tx, target.id, target.aliases.iter().map(|alias| (alias, true))).await
}

async fn insert_names(
    tx: &mut Tx,
    target: TargetId,
    names: impl Iterator<Item = (&TargetName, bool)>,
) -> Result<Option<TargetName>, DbError> {
    for (name, is_alias) in names {
        let inserted =
            change_either!(tx, |c| sqlx::query(INSERT_NAME).bind(name.as_str()).bind(target.as_uuid()).bind(is_alias));
        if inserted.map_err(doing("name a target"))? == 0 {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// Every target, by name.
pub async fn list(tx: &mut Tx) -> Result<Vec<Target>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<TargetRow> = rows.map_err(doing("list targets"))?;
    let aliases = on_either!(tx, |c| sqlx::query_as(ALIASES).fetch_all(c));
    let aliases: Vec<AliasRow> = aliases.map_err(doing("list targets"))?;
    let mut by_target: HashMap<Uuid, Vec<TargetName>> = HashMap::new();
    for alias in aliases {
        by_target.entry(alias.target_id).or_default().push(from_text("read a target", &alias.name)?);
    }
    rows.into_iter()
        .map(|row| {
            let aliases = by_target.remove(&row.id).unwrap_or_default();
            row.with_aliases(aliases)
        })
        .collect()
}

/// The target of this name or alias.
pub async fn find(tx: &mut Tx, name: &TargetName) -> Result<Option<Target>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(name.as_str()).fetch_optional(c));
    complete(tx, row.map_err(doing("find a target"))?).await
}

/// The target with this id.
pub async fn find_by_id(tx: &mut Tx, id: TargetId) -> Result<Option<Target>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND_BY_ID).bind(id.as_uuid()).fetch_optional(c));
    complete(tx, row.map_err(doing("find a target"))?).await
}

async fn complete(tx: &mut Tx, row: Option<TargetRow>) -> Result<Option<Target>, DbError> {
    let Some(row) = row else { return Ok(None) };
    let aliases = on_either!(tx, |c| sqlx::query_as(ALIASES_OF).bind(row.id).fetch_all(c));
    let aliases: Vec<AliasRow> = aliases.map_err(doing("find a target"))?;
    let aliases = aliases.iter().map(|alias| from_text("read a target", &alias.name)).collect::<Result<_, _>>()?;
    row.with_aliases(aliases).map(Some)
}

/// Keeps the target as it is for others until the end of the transaction, so that what is read now can be changed.
pub async fn hold(tx: &mut Tx, id: TargetId) -> Result<(), DbError> {
    let held = change_either!(tx, |c| sqlx::query(HOLD).bind(id.as_uuid()));
    held.map(drop).map_err(doing("hold a target"))
}

/// Writes address, jump, logins, labels and host keys.
pub async fn update(tx: &mut Tx, target: &Target) -> Result<(), DbError> {
    const CHANGE: &str = "change a target";
    let (logins, labels, host_keys) =
        (to_json(CHANGE, &target.logins)?, to_json(CHANGE, &target.labels)?, to_json(CHANGE, &target.host_keys)?);
    let updated = change_either!(tx, |c| sqlx::query(UPDATE)
        .bind(target.id.as_uuid())
        .bind(target.address.to_string())
        .bind(target.jump.map(TargetId::as_uuid))
        .bind(&logins)
        .bind(&labels)
        .bind(&host_keys));
    updated.map(drop).map_err(doing(CHANGE))
}

/// Disables the target; `false` if that was done before.
pub async fn disable(tx: &mut Tx, id: TargetId, at: DateTime<Utc>) -> Result<bool, DbError> {
    let set = change_either!(tx, |c| sqlx::query(DISABLE).bind(id.as_uuid()).bind(at));
    Ok(set.map_err(doing("disable a target"))? == 1)
}

/// Enables the target; `false` if it was not disabled.
pub async fn enable(tx: &mut Tx, id: TargetId) -> Result<bool, DbError> {
    let set = change_either!(tx, |c| sqlx::query(ENABLE).bind(id.as_uuid()));
    Ok(set.map_err(doing("enable a target"))? == 1)
}

/// Stores the sealed secret of a login, in place of one that was there.
pub async fn set_secret(
    tx: &mut Tx,
    id: TargetId,
    login: &Login,
    sealed: &[u8],
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    let set =
        change_either!(tx, |c| sqlx::query(SET_SECRET).bind(id.as_uuid()).bind(login.as_str()).bind(sealed).bind(at));
    set.map(drop).map_err(doing("store a target's secret"))
}

/// The sealed secret of a login.
pub async fn secret(tx: &mut Tx, id: TargetId, login: &Login) -> Result<Option<Vec<u8>>, DbError> {
    let found =
        on_either!(tx, |c| sqlx::query_scalar(SECRET).bind(id.as_uuid()).bind(login.as_str()).fetch_optional(c));
    found.map_err(doing("read a target's secret"))
}

/// When the secret of a login was stored.
pub async fn secret_set_at(tx: &mut Tx, id: TargetId, login: &Login) -> Result<Option<DateTime<Utc>>, DbError> {
    let found =
        on_either!(tx, |c| sqlx::query_scalar(SET_AT).bind(id.as_uuid()).bind(login.as_str()).fetch_optional(c));
    found.map_err(doing("read a target's secret"))
}

/// Forgets the secret of a login.
pub async fn remove_secret(tx: &mut Tx, id: TargetId, login: &Login) -> Result<(), DbError> {
    let removed = change_either!(tx, |c| sqlx::query(REMOVE_SECRET).bind(id.as_uuid()).bind(login.as_str()));
    removed.map(drop).map_err(doing("forget a target's secret"))
}
