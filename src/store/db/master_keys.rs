//! Master keys by their ids: which one seals, which nodes have which, and every sealed value there is.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str = "INSERT INTO master_keys (id, since) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const LIST: &str = "SELECT id, since, replaced_at, retired_at FROM master_keys ORDER BY since, id";
const REPLACE: &str = "UPDATE master_keys SET replaced_at = $2 WHERE id = $1 AND replaced_at IS NULL";
const RETIRE: &str = "UPDATE master_keys SET retired_at = $2
                      WHERE id = $1 AND replaced_at IS NOT NULL AND retired_at IS NULL";
const HOLD: &str = "INSERT INTO master_key_holders (node, key_id, seals, at) VALUES ($1, $2, $3, $4)
                    ON CONFLICT (node, key_id) DO UPDATE SET seals = excluded.seals, at = excluded.at";
const HOLDERS: &str = "SELECT node, key_id, seals FROM master_key_holders WHERE at > $1 ORDER BY node, key_id";

/// A master key, as far as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct MasterKeyRecord {
    pub id: String,
    pub since: DateTime<Utc>,
    /// When another one began to seal.
    pub replaced_at: Option<DateTime<Utc>>,
    /// When nothing was sealed with it any more.
    pub retired_at: Option<DateTime<Utc>>,
}

/// That a node has a master key.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Holder {
    pub node: String,
    pub key_id: String,
    /// The node seals with it.
    pub seals: bool,
}

/// A table that holds sealed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    BastionKey,
    StagedKey,
    LedgerKey,
    SecondFactor,
    TargetSecret,
    /// The key beside a target's stored one.
    Beside,
    /// The key of a recording that lives.
    LiveKey,
}

/// A sealed value: where it is, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Sealed {
    pub id: Uuid,
    /// What tells apart those of one id: a purpose, a login.
    pub word: String,
    pub sealed: Vec<u8>,
}

impl Place {
    pub const ALL: [Place; 7] = [
        Place::BastionKey,
        Place::StagedKey,
        Place::LedgerKey,
        Place::SecondFactor,
        Place::TargetSecret,
        Place::Beside,
        Place::LiveKey,
    ];

    const fn select(self) -> &'static str {
        match self {
            Place::BastionKey => "SELECT id, purpose AS word, sealed FROM bastion_keys",
            Place::StagedKey => "SELECT id, purpose AS word, sealed FROM bastion_keys_staged",
            Place::LedgerKey => "SELECT id, '' AS word, sealed FROM ledger_keys",
            Place::SecondFactor => "SELECT principal_id AS id, '' AS word, sealed FROM second_factors",
            Place::TargetSecret => "SELECT target_id AS id, login AS word, sealed FROM target_secrets",
            Place::Beside => "SELECT target_id AS id, login AS word, sealed FROM credential_rotations",
            Place::LiveKey => "SELECT recording_id AS id, '' AS word, sealed FROM live_keys",
        }
    }

    /// `$1`: the id of a key, as it stands in sealed values.
    const fn others(self) -> &'static str {
        match self {
            Place::BastionKey => {
                "SELECT id, purpose AS word, sealed FROM bastion_keys WHERE substr(sealed, 2, 8) <> $1"
            }
            Place::StagedKey => {
                "SELECT id, purpose AS word, sealed FROM bastion_keys_staged WHERE substr(sealed, 2, 8) <> $1"
            }
            Place::LedgerKey => "SELECT id, '' AS word, sealed FROM ledger_keys WHERE substr(sealed, 2, 8) <> $1",
            Place::SecondFactor => {
                "SELECT principal_id AS id, '' AS word, sealed FROM second_factors WHERE substr(sealed, 2, 8) <> $1"
            }
            Place::TargetSecret => {
                "SELECT target_id AS id, login AS word, sealed FROM target_secrets WHERE substr(sealed, 2, 8) <> $1"
            }
            Place::Beside => {
                "SELECT target_id AS id, login AS word, sealed FROM credential_rotations WHERE substr(sealed, 2, 8) <> $1"
            }
            Place::LiveKey => {
                "SELECT recording_id AS id, '' AS word, sealed FROM live_keys WHERE substr(sealed, 2, 8) <> $1"
            }
        }
    }

    /// `$4`: what was there; somebody who has changed it meanwhile is not undone.
    const fn update(self) -> &'static str {
        match self {
            Place::BastionKey => "UPDATE bastion_keys SET sealed = $3 WHERE id = $1 AND purpose = $2 AND sealed = $4",
            Place::StagedKey => {
                "UPDATE bastion_keys_staged SET sealed = $3 WHERE id = $1 AND purpose = $2 AND sealed = $4"
            }
            Place::LedgerKey => "UPDATE ledger_keys SET sealed = $3 WHERE id = $1 AND $2 = '' AND sealed = $4",
            Place::SecondFactor => {
                "UPDATE second_factors SET sealed = $3 WHERE principal_id = $1 AND $2 = '' AND sealed = $4"
            }
            Place::TargetSecret => {
                "UPDATE target_secrets SET sealed = $3 WHERE target_id = $1 AND login = $2 AND sealed = $4"
            }
            Place::Beside => {
                "UPDATE credential_rotations SET sealed = $3 WHERE target_id = $1 AND login = $2 AND sealed = $4"
            }
            Place::LiveKey => "UPDATE live_keys SET sealed = $3 WHERE recording_id = $1 AND $2 = '' AND sealed = $4",
        }
    }
}

/// Notes that `id` seals; `false` if another key does, or `id` is known already.
pub async fn insert(tx: &mut Tx, id: &str, since: DateTime<Utc>) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT).bind(id).bind(since));
    Ok(inserted.map_err(doing("note which master key seals"))? == 1)
}

/// Every master key that ever sealed, the oldest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<MasterKeyRecord>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    found.map_err(doing("read which master key seals"))
}

/// Lets `id` seal nothing any more; `false` if that was so before.
pub async fn replace(tx: &mut Tx, id: &str, at: DateTime<Utc>) -> Result<bool, DbError> {
    let replaced = change_either!(tx, |c| sqlx::query(REPLACE).bind(id).bind(at));
    Ok(replaced.map_err(doing("replace a master key"))? == 1)
}

/// Notes that nothing is sealed with `id` any more; `false` if that was known.
pub async fn retire(tx: &mut Tx, id: &str, at: DateTime<Utc>) -> Result<bool, DbError> {
    let retired = change_either!(tx, |c| sqlx::query(RETIRE).bind(id).bind(at));
    Ok(retired.map_err(doing("retire a master key"))? == 1)
}

/// Notes that a node has a key.
pub async fn hold(tx: &mut Tx, holder: &Holder, at: DateTime<Utc>) -> Result<(), DbError> {
    let Holder { node, key_id, seals } = holder;
    let held = change_either!(tx, |c| sqlx::query(HOLD).bind(node).bind(key_id).bind(*seals).bind(at));
    held.map(drop).map_err(doing("note which master keys a node has"))
}

/// Who said after `since` that they have which key.
pub async fn holders(tx: &mut Tx, since: DateTime<Utc>) -> Result<Vec<Holder>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(HOLDERS).bind(since).fetch_all(c));
    found.map_err(doing("read which nodes have which master keys"))
}

/// Every sealed value of one kind: some hundred bytes for each target's login and each person.
pub async fn sealed(tx: &mut Tx, place: Place) -> Result<Vec<Sealed>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(place.select()).fetch_all(c));
    found.map_err(doing("read what is sealed"))
}

/// Every sealed value of one kind that needs another key than this one.
pub async fn others(tx: &mut Tx, place: Place, key: [u8; 8]) -> Result<Vec<Sealed>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(place.others()).bind(key.to_vec()).fetch_all(c));
    found.map_err(doing("read what is sealed"))
}

/// Puts `sealed` where `old` is; `false` if something else is there by now.
pub async fn put(tx: &mut Tx, place: Place, old: &Sealed, sealed: &[u8]) -> Result<bool, DbError> {
    let Sealed { id, word, sealed: before } = old;
    let put = change_either!(tx, |c| sqlx::query(place.update()).bind(*id).bind(word).bind(sealed).bind(before));
    Ok(put.map_err(doing("seal anew"))? == 1)
}
