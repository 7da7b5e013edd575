//! The keys that the bastion signs with, sealed. Of each purpose one is in use, whoever made it first.

use std::fmt;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str =
    "INSERT INTO bastion_keys (id, purpose, public_key, sealed, created_at) VALUES ($1, $2, $3, $4, $5)
                      ON CONFLICT DO NOTHING";
const IN_USE: &str =
    "SELECT id, public_key, sealed, created_at FROM bastion_keys WHERE purpose = $1 AND retired_at IS NULL";

const LIST: &str = "SELECT purpose, id, public_key, created_at, retired_at, withdrawn_at, FALSE AS staged
                    FROM bastion_keys
                    UNION ALL SELECT purpose, id, public_key, created_at, NULL, NULL, TRUE FROM bastion_keys_staged
                    ORDER BY 1, 4";
const STAGE: &str = "INSERT INTO bastion_keys_staged (id, purpose, public_key, sealed, created_at)
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const TAKE_STAGED: &str =
    "DELETE FROM bastion_keys_staged WHERE purpose = $1 RETURNING id, public_key, sealed, created_at";
const RETIRE: &str = "UPDATE bastion_keys SET retired_at = $2 WHERE purpose = $1 AND retired_at IS NULL";
const LEAVING: &str = "SELECT public_key FROM bastion_keys
                       WHERE purpose = $1 AND retired_at IS NOT NULL AND withdrawn_at IS NULL";
const WITHDRAW: &str = "UPDATE bastion_keys SET withdrawn_at = $2
                        WHERE purpose = $1 AND retired_at IS NOT NULL AND withdrawn_at IS NULL RETURNING public_key";
const TRUSTED: &str = "SELECT public_key FROM (
                           SELECT public_key, CASE WHEN retired_at IS NULL THEN 0 ELSE 2 END AS place
                           FROM bastion_keys WHERE purpose = $1 AND withdrawn_at IS NULL
                           UNION ALL SELECT public_key, 1 FROM bastion_keys_staged WHERE purpose = $1) k
                       ORDER BY place";

/// What a key of the bastion is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Proves the bastion to engineers.
    HostKey,
    /// Signs the certificates that the bastion logs in to targets with.
    UserCa,
    /// Signs the certificates that targets show through the bastion.
    HostCa,
    /// What each target's own host key is derived from, as it shows through the bastion.
    TargetKeys,
    /// Signs break-glass envelopes.
    BreakGlass,
}

impl Purpose {
    pub const ALL: [Purpose; 5] =
        [Purpose::HostKey, Purpose::UserCa, Purpose::HostCa, Purpose::TargetKeys, Purpose::BreakGlass];

    /// The word in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Purpose::HostKey => "host_key",
            Purpose::UserCa => "user_ca",
            Purpose::HostCa => "host_ca",
            Purpose::TargetKeys => "target_keys",
            Purpose::BreakGlass => "break_glass",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SealedKey {
    pub id: Uuid,
    /// Algorithm and base64.
    pub public_key: String,
    /// The private key, sealed.
    pub sealed: Vec<u8>,
    pub created_at: DateTime<Utc>,
}

/// Adds a key; `false` if one of this purpose is in use already.
pub async fn insert(tx: &mut Tx, purpose: Purpose, key: &SealedKey) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(key.id)
        .bind(purpose.as_str())
        .bind(&key.public_key)
        .bind(&key.sealed)
        .bind(key.created_at));
    Ok(inserted.map_err(doing("store a key of the bastion"))? == 1)
}

/// A key without its private half.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PublicKeyRecord {
    pub id: Uuid,
    pub public_key: String,
    pub created_at: DateTime<Utc>,
    /// It signs nothing any more.
    pub retired_at: Option<DateTime<Utc>>,
    /// And it is not to be trusted any more.
    pub withdrawn_at: Option<DateTime<Utc>>,
    /// It is to be trusted, and signs nothing yet.
    pub staged: bool,
    purpose: String,
}

/// Keeps the next key of a purpose; `false` if there is one already.
pub async fn stage(tx: &mut Tx, purpose: Purpose, key: &SealedKey) -> Result<bool, DbError> {
    let staged = change_either!(tx, |c| sqlx::query(STAGE)
        .bind(key.id)
        .bind(purpose.as_str())
        .bind(&key.public_key)
        .bind(&key.sealed)
        .bind(key.created_at));
    Ok(staged.map_err(doing("store the next key of the bastion"))? == 1)
}

/// Takes the next key of a purpose from where it was kept.
pub async fn take_staged(tx: &mut Tx, purpose: Purpose) -> Result<Option<SealedKey>, DbError> {
    let taken = on_either!(tx, |c| sqlx::query_as(TAKE_STAGED).bind(purpose.as_str()).fetch_optional(c));
    taken.map_err(doing("take the next key of the bastion"))
}

/// Puts `key` to use in place of the one that is.
pub async fn replace(tx: &mut Tx, purpose: Purpose, key: &SealedKey, at: DateTime<Utc>) -> Result<(), DbError> {
    const REPLACE: &str = "replace a key of the bastion";
    let retired = change_either!(tx, |c| sqlx::query(RETIRE).bind(purpose.as_str()).bind(at));
    retired.map_err(doing(REPLACE))?;
    if insert(tx, purpose, key).await? {
        return Ok(());
    }
    Err(DbError::corrupt(REPLACE, "another one came between"))
}

/// Whether a key that was replaced is still to be trusted.
pub async fn leaving(tx: &mut Tx, purpose: Purpose) -> Result<bool, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, String>(LEAVING).bind(purpose.as_str()).fetch_optional(c));
    Ok(found.map_err(doing("read a key of the bastion"))?.is_some())
}

/// Lets the key that was replaced be trusted no more; its public half.
pub async fn withdraw(tx: &mut Tx, purpose: Purpose, at: DateTime<Utc>) -> Result<Option<String>, DbError> {
    let withdrawn = on_either!(tx, |c| sqlx::query_scalar(WITHDRAW).bind(purpose.as_str()).bind(at).fetch_optional(c));
    withdrawn.map_err(doing("retire a key of the bastion"))
}

/// The public halves that are to be trusted: the one in use, the next one, the one before.
pub async fn trusted(tx: &mut Tx, purpose: Purpose) -> Result<Vec<String>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(TRUSTED).bind(purpose.as_str()).fetch_all(c));
    found.map_err(doing("read the keys of the bastion"))
}

/// Every key there ever was, with its purpose.
pub async fn list(tx: &mut Tx) -> Result<Vec<(String, PublicKeyRecord)>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let found: Vec<PublicKeyRecord> = found.map_err(doing("list the keys of the bastion"))?;
    Ok(found.into_iter().map(|key| (key.purpose.clone(), key)).collect())
}

/// The key in use.
pub async fn in_use(tx: &mut Tx, purpose: Purpose) -> Result<Option<SealedKey>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(IN_USE).bind(purpose.as_str()).fetch_optional(c));
    found.map_err(doing("read a key of the bastion"))
}
