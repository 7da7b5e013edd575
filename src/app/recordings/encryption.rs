//! Recordings that only the client reads: what is at rest is an age file (age-encryption.org/v1, X25519) for public keys of the
//! client's. The private halves are not here, so that the database, the object store and whoever administers them together cannot
//! read the past.
//!
//! ```text
//! segment as stored    = age(zstd frame)     to the client's keys, and to the recording's own
//! live tail, screen    = age(…)              to the recording's own key
//! ```
//!
//! While a recording lives, people watch it and its session may wait for them. So it has a key of its own: the database holds it,
//! sealed with the master key, and forgets it in the transaction that ends the recording. From then on nothing here opens it.
//!
//! Hashes are of the encrypted form. An age file's header is authenticated with its own random key, so it opens to one content
//! only, and the hash proves that too; without a private key there is nothing that a guess could be held against but its length.

use std::io::{Read, Write};
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use age::x25519;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::segment::ENCRYPTED_MAGIC;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use tracing::warn;

use crate::app::{App, audit};
use crate::store::db::{self, DbError, Tx};
use crate::store::seal::SealError;

/// More keys than this would make headers longer than what they are for.
const MOST_RECIPIENTS: usize = 16;

/// The longest run of a live tail that is believed, in bytes: what comes within a ship interval, or waits while the database is away.
pub(super) const MOST_RUN: usize = 1 << 30;

/// Public keys that recordings are encrypted to, each as `age1…`, in order and each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipients(Vec<String>);

impl Recipients {
    /// The keys as text.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Recipients {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut given = Vec::<String>::deserialize(deserializer)?;
        for text in &given {
            text.parse::<x25519::Recipient>().map_err(|why| {
                serde::de::Error::custom(format!("`{text}` is not a public key of age (`age1…`): {why}"))
            })?;
        }
        given.sort();
        given.dedup();
        if given.len() > MOST_RECIPIENTS {
            return Err(serde::de::Error::custom(format!("there may be {MOST_RECIPIENTS} keys, not {}", given.len())));
        }
        Ok(Self(given))
    }
}

/// Why something encrypted is not read.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    #[error("it is encrypted to other keys")]
    OtherKeys,
    #[error("it cannot be decrypted: {0}")]
    Altered(String),
    #[error("it opens to more than {most} bytes")]
    TooLong { most: usize },
}

/// What a recording is encrypted with while it is made.
#[derive(Clone)]
pub(super) struct Encryption(Arc<Inner>);

struct Inner {
    recipients: Vec<x25519::Recipient>,
    live: Option<LiveKey>,
}

impl Encryption {
    /// For a recording that is encrypted to `recipients`, and whose own key is `live`, where it is known; `None` if nothing is to be
    /// encrypted. A key that cannot be read is an error: what should be encrypted to it must not go without.
    pub(super) fn new(recipients: &[String], live: Option<LiveKey>) -> Result<Option<Self>, DbError> {
        if recipients.is_empty() {
            return Ok(None);
        }
        let parse = |text: &String| {
            let corrupt = |why| DbError::corrupt("encrypt a recording", format!("`{text}` is no public key: {why}"));
            text.parse::<x25519::Recipient>().map_err(corrupt)
        };
        let recipients = recipients.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Some(Self(Arc::new(Inner { recipients, live }))))
    }

    /// The recording's own key.
    pub(super) fn live_key(&self) -> Option<&LiveKey> {
        self.0.live.as_ref()
    }

    /// Encrypts what stays.
    pub(super) fn for_rest(&self, plain: &[u8]) -> Vec<u8> {
        let own = self.0.live.as_ref().map(LiveKey::to_public);
        encrypt(self.0.recipients.iter().chain(&own), plain)
    }

    /// Encrypts what goes with the recording's end.
    pub(super) fn while_it_lives(&self, plain: &[u8]) -> Vec<u8> {
        match &self.0.live {
            Some(live) => encrypt(std::iter::once(&live.to_public()), plain),
            None => encrypt(self.0.recipients.iter(), plain),
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "writing to memory does not fail, and X25519 keys agree with each other; should it fail all the same, nothing \
              must go on in clear, and the keeper takes its thread's death for a recording that failed"
)]
fn encrypt<'k>(recipients: impl Iterator<Item = &'k x25519::Recipient>, plain: &[u8]) -> Vec<u8> {
    let recipients = recipients.map(|key| key as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).expect("keys of one kind");
    let mut encrypted = Vec::with_capacity(plain.len() + 1024);
    let mut writer = encryptor.wrap_output(&mut encrypted).expect("memory");
    writer.write_all(plain).and_then(|()| writer.finish().map(drop)).expect("memory");
    encrypted
}

/// A recording's own key, while it lives.
#[derive(Clone)]
pub(crate) struct LiveKey(x25519::Identity);

impl LiveKey {
    pub(super) fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    fn to_public(&self) -> x25519::Recipient {
        self.0.to_public()
    }

    /// Opens what is encrypted to it, at most `most` bytes.
    pub(super) fn decrypt(&self, encrypted: &[u8], most: usize) -> Result<Vec<u8>, DecryptError> {
        decrypt(std::iter::once(&self.0 as &dyn age::Identity), encrypted, most)
    }

    /// Keeps it in the database, sealed, unless it is there.
    pub(super) async fn keep(&self, app: &App, tx: &mut Tx, recording: RecordingId) -> Result<(), KeepKeyError> {
        let text: SecretString = self.0.to_string();
        let sealed = app.master.seal(&live_key_context(recording), text.expose_secret().as_bytes())?;
        Ok(db::encryption::put_live_key(tx, recording, &sealed).await?)
    }

    /// The key of a recording that lives; `None` if it has none, or one that this master key does not open.
    pub(super) async fn find(tx: &mut Tx, app: &App, recording: RecordingId) -> Result<Option<Self>, DbError> {
        let Some(sealed) = db::encryption::live_key(tx, recording).await? else { return Ok(None) };
        match app.master.open(&live_key_context(recording), &sealed) {
            Ok(text) => Ok(std::str::from_utf8(text.expose_secret()).ok().and_then(|text| text.parse().ok()).map(Self)),
            Err(error) => {
                warn!(%recording, %error, "The key of a recording that lives does not open; it cannot be watched.");
                Ok(None)
            }
        }
    }
}

/// Why a recording's key is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepKeyError {
    #[error("cannot seal the recording's key")]
    Seal(#[from] SealError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Whose key it is, for the master key.
pub(crate) fn live_key_context(recording: RecordingId) -> String {
    format!("recording/{recording}")
}

/// Private keys that the client holds. They are read by the command line, where it runs, and never reach a bastion.
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads an identity file as `age-keygen` writes it; an error is in words for a person, and holds nothing of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("age-encryption.org/") || text.starts_with("-----BEGIN AGE") {
            return Err("it is encrypted itself: let `age -d` write it to `--identity -`".to_owned());
        }
        let lines = (1..).zip(text.lines().map(str::trim));
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
            line.parse().map_err(|why| format!("line {number} is no `AGE-SECRET-KEY-1…`: {why}"))
        });
        let keys = keys.collect::<Result<Vec<_>, String>>()?;
        if keys.is_empty() { Err("it holds no key".to_owned()) } else { Ok(Self(keys)) }
    }

    /// Opens a stored segment, of at most `most` bytes.
    pub fn decrypt(&self, stored: &[u8], most: usize) -> Result<Vec<u8>, DecryptError> {
        decrypt(self.0.iter().map(|key| key as &dyn age::Identity), stored, most)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// Whether a stored segment is encrypted.
pub fn is_encrypted(stored: &[u8]) -> bool {
    stored.starts_with(ENCRYPTED_MAGIC)
}

fn decrypt<'k>(
    keys: impl Iterator<Item = &'k dyn age::Identity>,
    encrypted: &[u8],
    most: usize,
) -> Result<Vec<u8>, DecryptError> {
    let altered = |error: &dyn std::fmt::Display| DecryptError::Altered(error.to_string());
    let decryptor = age::Decryptor::new_buffered(encrypted).map_err(|error| altered(&error))?;
    let reader = decryptor.decrypt(keys).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => DecryptError::OtherKeys,
        other => altered(&other),
    })?;
    let mut plain = Vec::with_capacity(encrypted.len().min(most));
    reader.take(most as u64 + 1).read_to_end(&mut plain).map_err(|error| altered(&error))?;
    if plain.len() > most { Err(DecryptError::TooLong { most }) } else { Ok(plain) }
}

/// Writes down which keys this node encrypts to, if they are others than before: an event, for whoever changes them decides who reads.
pub async fn note_recipients(app: &App, node: &str, recipients: &Recipients) -> Result<(), DbError> {
    let mut tx = app.db.write().await?;
    let before = db::encryption::recipients(&mut tx, node).await?;
    let after = recipients.as_slice().to_vec();
    if before == after {
        return Ok(());
    }
    let now = app.clock.now();
    db::encryption::put_recipients(&mut tx, node, &after, now).await?;
    audit::append(&mut tx, now, &Actor::Bastion, Act::RecipientsChanged { node: node.to_owned(), before, after })
        .await?;
    tx.commit().await
}

#[cfg(test)]
mod tests;
