//! The seal on stored secrets: the bastion's own private keys, and what it logs in to targets with.
//!
//! ```text
//! sealed = "1" key-id:8 nonce:12 ciphertext tag:16           AES-256-GCM; the context is authenticated with it
//! ```
//!
//! The context says whose secret it is (`target/t-…/root`), so a sealed value that is moved to another row does not
//! open there. The key id says which master key is needed, before any attempt.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretSlice;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Where the master key is: `[master_key]` in `sallyport.toml`. At most one of the three; none means `master.key` in the
/// data folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MasterKeySettings {
    /// A file that only its owner may read.
    pub file: Option<PathBuf>,
    /// The name of an environment variable.
    pub env: Option<String>,
    /// The name of a systemd credential (`LoadCredential=`).
    pub credential: Option<String>,
    /// Files of more master keys: the next one, before a rotation, and the one before, after it. They need not exist, and are
    /// looked at every few seconds. Always among them: `file` with `.next` behind its name.
    pub more_files: Vec<PathBuf>,
    /// The same as environment variables and as credentials, looked at when the bastion starts.
    pub more_env: Vec<String>,
    pub more_credentials: Vec<String>,
}

impl MasterKeySettings {
    /// Where more master keys may be, each as if it were the only one.
    fn more(&self) -> impl Iterator<Item = MasterKeySettings> {
        let next = self.file.as_ref().map(|file| {
            let mut next = file.clone().into_os_string();
            next.push(".next");
            PathBuf::from(next)
        });
        let one = MasterKeySettings::default;
        let files = self.more_files.iter().cloned().chain(next);
        let files = files.map(move |file| MasterKeySettings { file: Some(file), ..one() });
        let env = self.more_env.iter().map(move |env| MasterKeySettings { env: Some(env.clone()), ..one() });
        let credentials = self.more_credentials.iter();
        let credentials = credentials.map(move |name| MasterKeySettings { credential: Some(name.clone()), ..one() });
        files.chain(env).chain(credentials)
    }
}

/// What is wrong with the master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("the master key file `{}` does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("the master key file `{}` exists already", path.display())]
    Exists { path: PathBuf },
    #[error("cannot read or write the master key file `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the master key file `{}` can be read by others (mode {mode:03o}); run `chmod 600` on it", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the environment variable `{name}` that should hold the master key is not set")]
    NoVariable { name: String },
    #[error("systemd passed no credentials: `LoadCredential={name}:…` is missing in the unit")]
    NoCredentials { name: String },
    #[error("the master key in {place} is not 32 bytes in base64")]
    Malformed { place: String },
    #[error("`[master_key]` may set only one of `file`, `env` and `credential`")]
    Ambiguous,
    #[error("the system gave no randomness for a master key")]
    NoRandomness,
}

/// Why a sealed secret does not open, or a secret is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the secret of `{context}` was sealed with master key {needed}, but {present} is loaded")]
    OtherKey { context: String, needed: String, present: String },
    #[error("the sealed secret of `{context}` was changed, or belongs to something else")]
    Forged { context: String },
    #[error("the secret of `{context}` could not be sealed")]
    Failed { context: String },
}

const FORMAT: u8 = b'1';
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// The key under which every stored secret is sealed. Cheap to clone; the bytes are cleared with the last one.
#[derive(Clone)]
pub struct MasterKey(Arc<Inner>);

struct Inner {
    id: [u8; KEY_ID_BYTES],
    /// The library clears the key schedule when it frees it; the raw bytes are not kept.
    key: RandomizedNonceKey,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

impl MasterKey {
    /// Loads the key from where the settings say. `environment` looks up a variable: `|name| std::env::var_os(name)`.
    pub fn load(
        settings: &MasterKeySettings,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, MasterKeyError> {
        match settings {
            MasterKeySettings { file: Some(path), env: None, credential: None, .. } => {
                Self::parse(&read(path)?, &format!("`{}`", path.display()))
            }
            MasterKeySettings { file: None, env: Some(name), credential: None, .. } => {
                let text = environment(name).and_then(|text| text.into_string().ok());
                let text = text.ok_or_else(|| MasterKeyError::NoVariable { name: name.clone() })?;
                Self::parse(&Zeroizing::new(text), &format!("the environment variable `{name}`"))
            }
            MasterKeySettings { file: None, env: None, credential: Some(name), .. } => {
                let folder = environment("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| MasterKeyError::NoCredentials { name: name.clone() })?;
                let path = Path::new(&folder).join(name);
                Self::parse(&read(&path)?, &format!("the credential `{name}`"))
            }
            _ => Err(MasterKeyError::Ambiguous),
        }
    }

    /// Loads the keys that are there beside that one; what is not there is none.
    pub fn load_more(
        settings: &MasterKeySettings,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Vec<Result<Self, MasterKeyError>> {
        let loaded = settings.more().map(|one| Self::load(&one, &environment));
        let is_there = |loaded: &Result<Self, MasterKeyError>| {
            use MasterKeyError::{Missing, NoCredentials, NoVariable};
            !matches!(loaded, Err(Missing { .. } | NoVariable { .. } | NoCredentials { .. }))
        };
        loaded.filter(is_there).collect()
    }

    /// The id of the key that a sealed value needs; `None` if it is none.
    pub fn needed(sealed: &[u8]) -> Option<String> {
        sealed.get(1..=KEY_ID_BYTES).map(hex)
    }

    /// Makes a new key and writes it to `path`, for its owner alone. An existing file is left as it is.
    pub fn create_file(path: &Path) -> Result<Self, MasterKeyError> {
        let fault = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => MasterKeyError::Exists { path: path.to_owned() },
            _ => MasterKeyError::File { path: path.to_owned(), source },
        };
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| MasterKeyError::NoRandomness)?;
        let text = Zeroizing::new(STANDARD.encode(bytes.as_slice()) + "\n");
        // Written beside and linked into place: a crash half-way leaves no half key, and of two starters one wins.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".master-key-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(fault)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(fault)?;
        file.persist_noclobber(path).map_err(|error| fault(error.error))?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)?;
        Self::from_bytes(&bytes)
    }

    /// Takes the key's bytes; for tests, and for a key that comes from elsewhere.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Self, MasterKeyError> {
        let mut hasher = Sha256::new();
        hasher.update(b"sallyport master key id 1");
        hasher.update(bytes);
        let digest = hasher.finalize();
        let mut id = [0; KEY_ID_BYTES];
        id.iter_mut().zip(digest).for_each(|(id, digest)| *id = digest);
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map_err(|_| MasterKeyError::Malformed { place: "memory".to_owned() })?;
        Ok(Self(Arc::new(Inner { id, key })))
    }

    fn parse(text: &str, place: &str) -> Result<Self, MasterKeyError> {
        let malformed = || MasterKeyError::Malformed { place: place.to_owned() };
        let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).map_err(|_| malformed())?);
        let bytes: &[u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| malformed())?;
        Self::from_bytes(bytes)
    }

    /// The same as it stands in sealed values.
    pub fn id_bytes(&self) -> [u8; KEY_ID_BYTES] {
        self.0.id
    }

    /// Tells this key from others, in hex; it says nothing about the key.
    pub fn id(&self) -> String {
        hex(&self.0.id)
    }

    /// Seals `secret` for `context`.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(secret); // encrypted in place: the capacity is enough, so no copy stays behind
        let nonce = self.0.key.seal_in_place_append_tag(Aad::from(context.as_bytes()), &mut body);
        let nonce = nonce.map_err(|_| SealError::Failed { context: context.to_owned() })?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + body.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.0.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let forged = || SealError::Forged { context: context.to_owned() };
        let (head, body) = sealed.split_at_checked(HEAD_BYTES).ok_or_else(forged)?;
        let (format, rest) = head.split_first().ok_or_else(forged)?;
        let (id, nonce) = rest.split_at_checked(KEY_ID_BYTES).ok_or_else(forged)?;
        if *format != FORMAT {
            return Err(forged());
        }
        if id != self.0.id {
            return Err(SealError::OtherKey { context: context.to_owned(), needed: hex(id), present: self.id() });
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| forged())?;
        let mut body = Zeroizing::new(body.to_vec());
        let secret = self.0.key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut body).map_err(|_| forged())?;
        Ok(SecretSlice::from(secret.to_vec()))
    }
}

/// Every master key that is loaded, and which of them seals. Each opens what it has sealed. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Keyring(Arc<RwLock<Ring>>);

#[derive(Debug)]
struct Ring {
    seals: MasterKey,
    others: Vec<MasterKey>,
}

impl From<MasterKey> for Keyring {
    fn from(seals: MasterKey) -> Self {
        Self(Arc::new(RwLock::new(Ring { seals, others: Vec::new() })))
    }
}

impl Keyring {
    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.0.read().unwrap_or_else(PoisonError::into_inner) // no state between two fields could be seen half-way
    }

    /// Adds a key, which opens from now on; `false` if it is there already.
    pub fn add(&self, key: MasterKey) -> bool {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = ring.seals.0.id != key.0.id && ring.others.iter().all(|other| other.0.id != key.0.id);
        if is_new {
            ring.others.push(key);
        }
        is_new
    }

    /// Lets the key with this id seal from now on; `false` if it is not loaded.
    pub fn put_to_use(&self, id: &str) -> bool {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Ring { seals, others } = &mut *ring;
        if seals.id() == id {
            return true;
        }
        let found = others.iter_mut().find(|other| other.id() == id);
        found.is_some_and(|other| {
            std::mem::swap(seals, other);
            true
        })
    }

    /// The id of the key that seals.
    pub fn id(&self) -> String {
        self.read().seals.id()
    }

    /// The ids of all keys that are loaded, the one that seals first.
    pub fn ids(&self) -> Vec<String> {
        let ring = self.read();
        std::iter::once(&ring.seals).chain(&ring.others).map(MasterKey::id).collect()
    }

    /// The key with this id.
    pub fn only(&self, id: &str) -> Option<MasterKey> {
        let ring = self.read();
        std::iter::once(&ring.seals).chain(&ring.others).find(|key| key.id() == id).cloned()
    }

    /// Seals `secret` for `context`, with the key that seals.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.read().seals.clone();
        key.seal(context, secret)
    }

    /// Opens what was sealed for `context`, with the key that it needs.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let needed = MasterKey::needed(sealed).and_then(|id| self.only(&id));
        let key = needed.unwrap_or_else(|| self.read().seals.clone()); // which says what is missing
        key.open(context, sealed)
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, MasterKeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let fault = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => MasterKeyError::Missing { path: path.to_owned() },
        _ => MasterKeyError::File { path: path.to_owned(), source },
    };
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_CLOEXEC.bits()).open(path);
    let file = file.map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    // systemd's credentials are 0440 and owned by root in a folder for this unit alone; a key for all to read is not one.
    if mode & 0o037 != 0 {
        return Err(MasterKeyError::Exposed { path: path.to_owned(), mode });
    }
    io::read_to_string(io::Read::take(file, 4096)).map(Zeroizing::new).map_err(fault)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default(); // it is always below 16
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn from_file(path: &Path) -> Result<MasterKey, MasterKeyError> {
        let settings = MasterKeySettings { file: Some(path.to_owned()), ..MasterKeySettings::default() };
        MasterKey::load(&settings, |_| None)
    }

    #[test]
    fn a_secret_opens_with_its_key_and_its_context_only() {
        let key = MasterKey::from_bytes(&[7; 32]).unwrap();
        let sealed = key.seal("target/web-1/root", b"hunter2").unwrap();

        assert_eq!(key.open("target/web-1/root", &sealed).unwrap().expose_secret(), b"hunter2");
        assert!(matches!(key.open("target/web-2/root", &sealed), Err(SealError::Forged { .. })));
        let other = MasterKey::from_bytes(&[8; 32]).unwrap();
        assert!(matches!(other.open("target/web-1/root", &sealed), Err(SealError::OtherKey { .. })));
    }

    #[test]
    fn no_byte_of_a_sealed_secret_can_be_changed_or_left_out() {
        let key = MasterKey::from_bytes(&[7; 32]).unwrap();
        let sealed = key.seal("c", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, key.seal("c", b"hunter2").unwrap(), "each sealing has its own nonce");

        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(key.open("c", &changed).is_err(), "byte {place}");
            assert!(key.open("c", &sealed[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_alone_and_loads_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        assert!(matches!(from_file(&path), Err(MasterKeyError::Missing { .. })));

        let made = MasterKey::create_file(&path).unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(from_file(&path).unwrap().id(), made.id());
        assert!(matches!(MasterKey::create_file(&path), Err(MasterKeyError::Exists { .. })));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(from_file(&path), Err(MasterKeyError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn a_key_comes_from_the_environment_or_a_credential_but_not_from_two_places() {
        let text = STANDARD.encode([7; 32]);
        let wanted = MasterKey::from_bytes(&[7; 32]).unwrap().id();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sallyport"), &text).unwrap();
        std::fs::set_permissions(folder.path().join("sallyport"), PermissionsExt::from_mode(0o440)).unwrap();
        let environment = |name: &str| match name {
            "KEY" => Some(text.clone().into()),
            "SHORT" => Some("c2hvcnQ=".into()),
            "CREDENTIALS_DIRECTORY" => Some(folder.path().into()),
            _ => None,
        };
        let load = |env: Option<&str>, credential: Option<&str>| {
            let settings = MasterKeySettings {
                file: None,
                env: env.map(str::to_owned),
                credential: credential.map(str::to_owned),
                ..MasterKeySettings::default()
            };
            MasterKey::load(&settings, environment)
        };

        assert_eq!(load(Some("KEY"), None).unwrap().id(), wanted);
        assert_eq!(load(None, Some("sallyport")).unwrap().id(), wanted);
        assert!(matches!(load(Some("SHORT"), None), Err(MasterKeyError::Malformed { .. })));
        assert!(matches!(load(Some("MISSING"), None), Err(MasterKeyError::NoVariable { .. })));
        assert!(matches!(load(Some("KEY"), Some("sallyport")), Err(MasterKeyError::Ambiguous)));
    }

    #[test]
    fn keys_beside_the_one_that_seals_are_loaded_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("master.key");
        let settings = MasterKeySettings {
            file: Some(file.clone()),
            more_files: vec![folder.path().join("old.key")],
            more_env: vec!["SALLYPORT_NEXT".to_owned()],
            ..MasterKeySettings::default()
        };
        let next = STANDARD.encode([9; 32]);
        let more = |environment: &dyn Fn(&str) -> Option<OsString>| -> Vec<String> {
            MasterKey::load_more(&settings, environment).into_iter().map(|key| key.unwrap().id()).collect()
        };
        assert_eq!(more(&|_| None), [""; 0]);

        let old = MasterKey::create_file(&folder.path().join("old.key")).unwrap().id();
        let beside = MasterKey::create_file(&folder.path().join("master.key.next")).unwrap().id();

        let from_env = MasterKey::from_bytes(&[9; 32]).unwrap().id();
        assert_eq!(more(&|_| Some(next.clone().into())), [old, beside, from_env]);
    }

    #[test]
    fn one_key_of_a_ring_seals_and_each_opens_its_own() {
        let ring = Keyring::from(MasterKey::from_bytes(&[7; 32]).unwrap());
        let clone = ring.clone();
        let before = ring.seal("c", b"hunter2").unwrap();
        let next = MasterKey::from_bytes(&[8; 32]).unwrap();
        assert!(!ring.put_to_use(&next.id()) && ring.add(next.clone()) && !ring.add(next.clone()));

        assert!(clone.put_to_use(&next.id()));

        let after = ring.seal("c", b"hunter3").unwrap();
        assert_eq!((MasterKey::needed(&after), ring.id()), (Some(next.id()), next.id()));
        assert_eq!(ring.open("c", &before).unwrap().expose_secret(), b"hunter2");
        assert_eq!(ring.open("c", &after).unwrap().expose_secret(), b"hunter3");
        assert!(ring.open("d", &after).is_err());
        let stranger = MasterKey::from_bytes(&[9; 32]).unwrap().seal("c", b"x").unwrap();
        assert!(matches!(ring.open("c", &stranger), Err(SealError::OtherKey { .. })));
    }

    #[test]
    fn the_key_does_not_show_in_debug_output() {
        let key = MasterKey::from_bytes(&[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), format!("MasterKey({})", key.id()));
    }
}
