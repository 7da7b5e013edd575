//! The bastion's own keys: its host key, the CA that certifies it to targets, the CA that certifies targets to engineers,
//! and what the targets' host keys are derived from. Made at first use, sealed, and the same on every node.

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::TargetId;
use sallyport_domain::secret::PrivateKeyText;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use uuid::Uuid;

use crate::app::{App, audit};
use crate::store::db::DbError;
use crate::store::db::bastion_keys::{self, SealedKey};
use crate::store::seal::SealError;

pub use crate::store::db::bastion_keys::Purpose;

/// A key of the bastion, opened.
#[derive(Debug)]
pub struct BastionKey {
    pub purpose: Purpose,
    /// Algorithm and base64.
    pub public_key: String,
    pub private_key: PrivateKeyText,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the bastion's {purpose} cannot be opened")]
    Sealed { purpose: Purpose, source: SealError },
    #[error("the bastion's {purpose} could not be made: the system gave no randomness")]
    NoRandomness { purpose: Purpose },
    #[error("the bastion's {purpose} was opened, but is no text")]
    NoText { purpose: Purpose },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The key in use for `purpose`, an Ed25519 one; made if there is none. Nodes that ask at once get the same.
pub async fn bastion_key(app: &App, purpose: Purpose) -> Result<BastionKey, KeyError> {
    let found = bastion_keys::in_use(&mut app.db.read().await?, purpose).await?;
    if let Some(found) = found {
        return open(app, purpose, &found);
    }
    let now = app.clock.now();
    let made = make(app, purpose, now)?;
    let public_key = made.public_key.clone();

    let mut tx = app.db.write().await?;
    // If another node is at it, this waits for its commit, and then the one key in use is that node's.
    if bastion_keys::insert(&mut tx, purpose, &made).await? {
        let act = Act::BastionKeyMade { purpose: purpose.to_string(), public_key };
        audit::append(&mut tx, now, &Actor::Bastion, act).await?;
    }
    let in_use = bastion_keys::in_use(&mut tx, purpose).await?;
    tx.commit().await?;
    // The insert just above makes sure of one.
    let in_use = in_use.ok_or_else(|| DbError::Corrupt {
        doing: "read a key of the bastion".into(),
        message: format!("the {purpose} is gone right after it was stored"),
    })?;
    open(app, purpose, &in_use)
}

/// A new key, sealed.
pub(crate) fn make(app: &App, purpose: Purpose, created_at: DateTime<Utc>) -> Result<SealedKey, KeyError> {
    let id = Uuid::now_v7();
    let (public_key, private_key) =
        generate(&format!("sallyport {purpose}")).ok_or(KeyError::NoRandomness { purpose })?;
    let sealed = app.master.seal(&context(purpose.as_str(), id), private_key.expose().as_bytes());
    let sealed = sealed.map_err(|source| KeyError::Sealed { purpose, source })?;
    Ok(SealedKey { id, public_key, sealed, created_at })
}

/// What a key is sealed for; `purpose` as the database has it.
pub(crate) fn context(purpose: &str, id: Uuid) -> String {
    format!("bastion/{purpose}/{id}")
}

fn open(app: &App, purpose: Purpose, key: &SealedKey) -> Result<BastionKey, KeyError> {
    let opened = app.master.open(&context(purpose.as_str(), key.id), &key.sealed);
    let opened = opened.map_err(|source| KeyError::Sealed { purpose, source })?;
    let text = std::str::from_utf8(opened.expose_secret()).map_err(|_| KeyError::NoText { purpose })?;
    Ok(BastionKey { purpose, public_key: key.public_key.clone(), private_key: PrivateKeyText::new(text) })
}

/// The host key that a target shows through the bastion (`ssh -J`): for each target always the same, on every node, without
/// being stored.
pub struct TargetKeys(Prk);

impl TargetKeys {
    /// `key` is of [`Purpose::TargetKeys`]. It signs nothing; its private half is what the targets' keys are derived from
    /// (HKDF with SHA-256, RFC 5869).
    pub fn new(key: &BastionKey) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"sallyport target host keys 1");
        Self(salt.extract(key.private_key.expose().as_bytes()))
    }

    /// The key of one target: its public line, and the private key in OpenSSH's text form. `None` if the system gives no
    /// randomness.
    pub fn of(&self, target: TargetId) -> Option<(String, PrivateKeyText)> {
        let id = target.as_uuid();
        let mut seed = Zeroizing::new([0; 32]);
        self.0.expand(&[id.as_bytes()], HKDF_SHA256).ok()?.fill(seed.as_mut_slice()).ok()?;
        encode(&seed, "")
    }

    /// A hash of what may hold a password, its parts kept apart: with the database alone nobody can try guesses against it. HMAC with SHA-256
    /// (RFC 2104) under a key derived for nothing else.
    pub fn keyed_hash(&self, parts: &[&[u8]]) -> Option<[u8; 32]> {
        let key = hmac::Key::from(self.0.expand(&[b"sallyport idempotency 1"], hmac::HMAC_SHA256).ok()?);
        let mut hash = hmac::Context::with_key(&key);
        for part in parts {
            hash.update(&u64::try_from(part.len()).ok()?.to_be_bytes());
            hash.update(part);
        }
        hash.sign().as_ref().try_into().ok()
    }

    /// The public line of one target's key.
    pub fn public_of(&self, target: TargetId) -> Option<String> {
        self.of(target).map(|(public, _)| public)
    }
}

/// The public half that a private key in OpenSSH's text form carries (PROTOCOL.key): algorithm and base64. `None` if it is none.
pub fn public_half(key: &PrivateKeyText) -> Option<String> {
    let bytes = unwrap(key)?;
    let (blob, _private) = halves(&bytes)?;
    let (algorithm, _) = string(blob)?;
    Some(format!("{} {}", std::str::from_utf8(algorithm).ok()?, STANDARD.encode(blob)))
}

/// The seed (RFC 8032 §5.1.5) of an Ed25519 key in that form, as [`generate`] makes it; `None` if it is another one.
pub fn seed(key: &PrivateKeyText) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = unwrap(key)?;
    let (_blob, private) = halves(&bytes)?;
    let (private, _) = string(private)?;
    let (_check, rest) = private.split_at_checked(8)?;
    let (kind, rest) = string(rest)?;
    let (_public, rest) = string(rest)?;
    let (pair, _comment) = string(rest)?;
    let seed = pair.first_chunk::<32>().filter(|_| kind == b"ssh-ed25519" && pair.len() == 64)?;
    Some(Zeroizing::new(*seed))
}

/// The bytes of a private key's text.
fn unwrap(key: &PrivateKeyText) -> Option<Zeroizing<Vec<u8>>> {
    let body = key.expose().trim().strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let body = body.strip_suffix("-----END OPENSSH PRIVATE KEY-----")?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    Some(Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?))
}

/// The public blob of a private key's bytes, and what follows it.
fn halves(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (_cipher, rest) = string(rest)?;
    let (_derivation, rest) = string(rest)?;
    let (_options, rest) = string(rest)?;
    let (_count, rest) = rest.split_first_chunk::<4>()?;
    string(rest)
}

/// "string" of RFC 4251 §5, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// A new Ed25519 key: its public line, and the private key in OpenSSH's text form (OpenSSH's PROTOCOL.key), without a
/// passphrase. `None` if the system gives no randomness.
pub fn generate(comment: &str) -> Option<(String, PrivateKeyText)> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice()).ok()?;
    encode(&seed, comment)
}

/// The Ed25519 key of this seed (RFC 8032 §5.1.5), as [`generate`] gives it.
fn encode(seed: &Zeroizing<[u8; 32]>, comment: &str) -> Option<(String, PrivateKeyText)> {
    const KIND: &[u8] = b"ssh-ed25519";
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).ok()?;
    let public = pair.public_key().as_ref();
    let mut check = [0; 4];
    aws_lc_rs::rand::fill(&mut check).ok()?;

    let mut blob = Vec::new();
    put(&mut blob, KIND);
    put(&mut blob, public);

    // Large enough for its whole content, so that no half of it stays behind in memory.
    let mut private = Zeroizing::new(Vec::with_capacity(512 + comment.len()));
    private.extend_from_slice(&check);
    private.extend_from_slice(&check);
    put(&mut private, KIND);
    put(&mut private, public);
    put(&mut private, Zeroizing::new([seed.as_slice(), public].concat()).as_slice());
    put(&mut private, comment.as_bytes());
    let padding = (8 - private.len() % 8) % 8;
    private.extend((1..=padding).filter_map(|byte| u8::try_from(byte).ok()));

    let mut file = Zeroizing::new(Vec::with_capacity(1024 + comment.len()));
    file.extend_from_slice(b"openssh-key-v1\0");
    put(&mut file, b"none"); // cipher
    put(&mut file, b"none"); // key derivation
    put(&mut file, b"");
    file.extend_from_slice(&1_u32.to_be_bytes());
    put(&mut file, &blob);
    put(&mut file, &private);

    let body = Zeroizing::new(STANDARD.encode(file.as_slice()));
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 2 + 128));
    text.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for (place, character) in body.chars().enumerate() {
        text.push(character);
        if place % 70 == 69 {
            text.push('\n');
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    let public_line = format!("ssh-ed25519 {}", STANDARD.encode(&blob));
    Some((public_line, PrivateKeyText::new(text.as_str())))
}

/// "string" of RFC 4251 §5.
fn put(to: &mut Vec<u8>, string: &[u8]) {
    // What is put here is at most some hundred bytes.
    to.extend_from_slice(&u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn nodes_that_start_at_once_agree_on_one_key_of_each_purpose() {
        on_both(|db| async {
            let app = app_on(db);
            for purpose in Purpose::ALL {
                let nodes = (0..8).map(|_| bastion_key(&app, purpose));
                let keys = futures::future::try_join_all(nodes).await.unwrap();

                assert!(keys.iter().all(|key| key.public_key == keys[0].public_key));
                assert!(keys.iter().all(|key| key.private_key.expose() == keys[0].private_key.expose()));
            }
            let filter = audit::EventFilter { kind: Some("bastion_key_made".to_owned()), ..Default::default() };
            assert_eq!(audit::list(&app, 0, &filter, 10).await.unwrap().len(), Purpose::ALL.len());
        })
        .await;
    }

    #[tokio::test]
    async fn a_target_shows_the_same_key_on_every_node_and_no_other_targets() {
        on_both(|db| async {
            let app = app_on(db);
            let target = TargetId::from_uuid(Uuid::now_v7());
            let node = async || TargetKeys::new(&bastion_key(&app, Purpose::TargetKeys).await.unwrap());

            let (here, there) = (node().await.of(target).unwrap(), node().await.of(target).unwrap());
            let other = node().await.of(TargetId::from_uuid(Uuid::now_v7())).unwrap();

            assert_eq!(here.0, there.0);
            assert_ne!(here.0, other.0);
        })
        .await;
    }

    #[test]
    fn openssh_reads_a_key_that_was_made_here() {
        for comment in ["", "a", "sallyport host_key", "seventeen letters"] {
            let (public, private) = generate(comment).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            std::fs::write(&path, private.expose()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();

            let read = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().unwrap();

            let read = String::from_utf8(read.stdout).unwrap();
            assert_eq!(read.trim_end(), format!("{public} {comment}").trim_end());
            assert_eq!(public_half(&private), Some(public.clone()));
            assert_eq!(encode(&seed(&private).unwrap(), "").unwrap().0, public);
        }
    }
}
