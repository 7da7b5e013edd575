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
}

impl Purpose {
    pub const ALL: [Purpose; 4] = [Purpose::HostKey, Purpose::UserCa, Purpose::HostCa, Purpose::TargetKeys];

    /// The word in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Purpose::HostKey => "host_key",
            Purpose::UserCa => "user_ca",
            Purpose::HostCa => "host_ca",
            Purpose::TargetKeys => "target_keys",
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

/// The key in use.
pub async fn in_use(tx: &mut Tx, purpose: Purpose) -> Result<Option<SealedKey>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(IN_USE).bind(purpose.as_str()).fetch_optional(c));
    found.map_err(doing("read a key of the bastion"))
}
