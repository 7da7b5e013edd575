//! Targets: where they are, how they prove themselves, and what the bastion logs in with.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::TargetId;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::secret::{PrivateKeyText, TargetPassword};
use sallyport_domain::ssh_key::{SshPublicKey, SshPublicKeyError};
use sallyport_domain::target::{Address, CredentialKind, HostKey, Target, TargetLogin};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use uuid::Uuid;

use crate::app::{App, Still, audit, is_changed};
use crate::store::db::{DbError, Tx, policy_version, rotations, targets};
use crate::store::seal::SealError;

/// What the bastion proves itself with at a target.
#[derive(Debug)]
pub enum Credential {
    /// A certificate for each session alone, from the built-in user CA.
    Certificate,
    /// A private key in OpenSSH's text form, without a passphrase.
    Key(PrivateKeyText),
    Password(TargetPassword),
}

impl Credential {
    fn kind(&self) -> CredentialKind {
        match self {
            Credential::Certificate => CredentialKind::Certificate,
            Credential::Key(_) => CredentialKind::Key,
            Credential::Password(_) => CredentialKind::Password,
        }
    }

    /// What there is to seal.
    fn secret(&self) -> Option<&str> {
        match self {
            Credential::Certificate => None,
            Credential::Key(key) => Some(key.expose()),
            Credential::Password(password) => Some(password.expose()),
        }
    }
}

/// A target to add.
#[derive(Debug)]
pub struct NewTarget {
    pub name: TargetName,
    pub aliases: Vec<TargetName>,
    pub address: Address,
    /// The target through which this one is reached.
    pub jump: Option<TargetName>,
    /// At least one.
    pub logins: Vec<(Login, Credential)>,
    pub labels: BTreeMap<String, String>,
    /// At least one: nobody is ever asked whether a key is the right one.
    pub host_keys: Vec<HostKey>,
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The bastion dials it.
    Direct,
    /// Another target is dialled first.
    Through(TargetName),
}

/// What to change of a target; what is `None` stays as it is.
#[derive(Debug, Default)]
pub struct TargetChange {
    pub address: Option<Address>,
    /// All other names.
    pub aliases: Option<Vec<TargetName>>,
    pub way: Option<Way>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// All accounts, each with its credential; with `None` the account keeps the one that it has.
    pub logins: Option<Vec<(Login, Option<Credential>)>>,
    /// All pinned keys.
    pub host_keys: Option<Vec<HostKey>>,
}

/// Why targets were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("there is no target `{name}`")]
    Unknown { name: TargetName },
    #[error("there is no target with the id {id}")]
    UnknownId { id: TargetId },
    #[error("the name `{name}` belongs to a target already")]
    NameTaken { name: TargetName },
    #[error("there is no target `{name}` to go through")]
    UnknownJump { name: TargetName },
    #[error("the way to the target leads through more than {MOST_JUMPS} others")]
    TooManyJumps,
    #[error("the way to `{name}` would lead through itself, or through more than {MOST_JUMPS} others")]
    Way { name: TargetName },
    #[error("`{login}` has no credential to keep; give it one")]
    NothingToKeep { login: Login },
    #[error("a target needs a login")]
    NoLogin,
    #[error("the login `{login}` is given twice")]
    LoginTwice { login: Login },
    #[error("a target needs a host key: it is never asked for later")]
    NoHostKey,
    #[error("the host key is not usable")]
    HostKey { source: SshPublicKeyError },
    #[error("the private key for `{login}` is not usable: {message}")]
    PrivateKey { login: Login, message: &'static str },
    #[error("the password for `{login}` must have 1 to {MOST_SECRET} bytes and no line break or NUL")]
    Password { login: Login },
    #[error("a target may have {most} {what} at most")]
    TooMany { what: &'static str, most: usize },
    #[error(
        "the label `{key}` is not usable: a key has 1 to 63 of letters, digits, `.`, `_`, `-` and `/`, a value 1 to 255 printable characters"
    )]
    Label { key: String },
    #[error("nothing was given to change")]
    NoChange,
    #[error("target `{name}` is disabled already")]
    DisabledAlready { name: TargetName },
    #[error("target `{name}` is not disabled")]
    NotDisabled { name: TargetName },
    #[error("somebody changed the target `{name}` meanwhile: look at it again")]
    Changed { name: TargetName },
    #[error("the stored secret of `{login}` on `{name}` cannot be used")]
    Sealed { login: Login, name: TargetName, source: SealError },
    #[error("the secret of `{login}` on `{name}` is missing; set the login's credential again")]
    SecretMissing { login: Login, name: TargetName },
    #[error(transparent)]
    Db(#[from] DbError),
}

const MOST_ALIASES: usize = 32;
const MOST_LOGINS: usize = 64;
const MOST_LABELS: usize = 64;
const MOST_HOST_KEYS: usize = 16;
/// Each jump is one more connection to make and to wait for.
const MOST_JUMPS: usize = 3;
/// The longest password or private key, in bytes; a key of RSA with 16384 bits takes 13 kB.
const MOST_SECRET: usize = 16 * 1024;

/// Adds a target.
pub async fn add(app: &App, actor: &Actor, new: NewTarget) -> Result<Target, TargetError> {
    let aliases = check_aliases(new.aliases, &new.name)?;
    check_labels(&new.labels)?;
    let logins = new.logins.into_iter().map(|(login, credential)| (login, Some(credential))).collect();
    let logins = check_logins(logins)?;
    let host_keys = check_host_keys(new.host_keys)?;
    let now = app.clock.now();

    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?; // a name that a selector meant is taken by a target now
    let jump = match new.jump {
        Some(name) => Some(check_jump(&mut tx, name).await?),
        None => None,
    };
    let target = Target {
        id: TargetId::from_uuid(Uuid::now_v7()),
        name: new.name,
        aliases,
        address: new.address,
        jump,
        logins: kinds(&logins, &[])?,
        labels: new.labels,
        host_keys,
        created_at: now,
        disabled_at: None,
    };
    if let Some(name) = targets::insert(&mut tx, &target).await? {
        return Err(TargetError::NameTaken { name });
    }
    store_secrets(app, &mut tx, &target, &logins).await?;
    let added = Act::TargetAdded {
        target: target.id,
        name: target.name.clone(),
        address: target.address.to_string(),
        host_keys: fingerprints(&target.host_keys),
    };
    audit::append(&mut tx, now, actor, added).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(target)
}

/// Every target, by name.
pub async fn list(app: &App) -> Result<Vec<Target>, TargetError> {
    Ok(targets::list(&mut app.db.read().await?).await?)
}

/// The target of this name or alias.
pub async fn find(app: &App, name: &TargetName) -> Result<Target, TargetError> {
    load(&mut app.db.read().await?, name).await
}

/// Changes a target. Sessions that the change no longer permits are cut.
pub async fn update(
    app: &App,
    actor: &Actor,
    name: &TargetName,
    change: TargetChange,
    still: Still<'_, Target>,
) -> Result<Target, TargetError> {
    let mut words = Vec::new();
    if let Some(address) = &change.address {
        words.push(format!("address {address}"));
    }
    if let Some(aliases) = &change.aliases {
        at_most("aliases", aliases.len(), MOST_ALIASES)?;
        let aliases: Vec<String> = aliases.iter().map(ToString::to_string).collect();
        words.push(format!("aliases {}", or_none(&aliases)));
    }
    match &change.way {
        Some(Way::Direct) => words.push("reached directly".to_owned()),
        Some(Way::Through(jump)) => words.push(format!("reached through {jump}")),
        None => {}
    }
    if let Some(labels) = &change.labels {
        check_labels(labels)?;
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        words.push(format!("labels {}", or_none(&labels)));
    }
    let logins = change.logins.map(check_logins).transpose()?;
    if let Some(logins) = &logins {
        let kind = |credential: &Option<Credential>| credential.as_ref().map_or("as it was", |new| new.kind().as_str());
        let logins: Vec<String> =
            logins.iter().map(|(login, credential)| format!("{login} ({})", kind(credential))).collect();
        words.push(format!("logins {}", or_none(&logins)));
    }
    let host_keys = change.host_keys.map(check_host_keys).transpose()?;
    if let Some(host_keys) = &host_keys {
        words.push(format!("host keys {}", or_none(&fingerprints(host_keys))));
    }
    if words.is_empty() {
        return Err(TargetError::NoChange);
    }

    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    let mut target = held(&mut tx, name, still).await?;
    if let Some(address) = change.address {
        target.address = address;
    }
    if let Some(labels) = change.labels {
        target.labels = labels;
    }
    if let Some(host_keys) = host_keys {
        target.host_keys = host_keys;
    }
    if let Some(logins) = logins {
        rotations::forget(&mut tx, target.id).await?;
        let is_kept = |login: &Login| logins.iter().any(|(kept, credential)| kept == login && credential.is_none());
        for gone in target.logins.iter().filter(|account| !is_kept(&account.login)) {
            targets::remove_secret(&mut tx, target.id, &gone.login).await?;
        }
        target.logins = kinds(&logins, &target.logins)?;
        store_secrets(app, &mut tx, &target, &logins).await?;
    }
    if let Some(aliases) = change.aliases {
        target.aliases = check_aliases(aliases, &target.name)?;
        if let Some(name) = targets::set_aliases(&mut tx, &target).await? {
            return Err(TargetError::NameTaken { name });
        }
    }
    if let Some(way) = change.way {
        target.jump = match way {
            Way::Direct => None,
            Way::Through(name) => Some(check_jump(&mut tx, name).await?),
        };
        check_ways(&target, targets::list(&mut tx).await?)?;
    }
    targets::update(&mut tx, &target).await?;
    let changed = Act::TargetChanged { target: target.id, name: target.name.clone(), change: words.join("; ") };
    audit::append(&mut tx, app.clock.now(), actor, changed).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(target)
}

/// Disables a target: nobody reaches it from now on, and live sessions are cut.
pub async fn disable(
    app: &App,
    actor: &Actor,
    name: &TargetName,
    still: Still<'_, Target>,
) -> Result<Target, TargetError> {
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    let target = held(&mut tx, name, still).await?;
    let now = app.clock.now();
    if !targets::disable(&mut tx, target.id, now).await? {
        return Err(TargetError::DisabledAlready { name: target.name });
    }
    let disabled = Act::TargetDisabled { target: target.id, name: target.name.clone() };
    audit::append(&mut tx, now, actor, disabled).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(Target { disabled_at: Some(now), ..target })
}

/// Makes a disabled target reachable again.
pub async fn enable(
    app: &App,
    actor: &Actor,
    name: &TargetName,
    still: Still<'_, Target>,
) -> Result<Target, TargetError> {
    let mut tx = app.db.write().await?;
    let target = held(&mut tx, name, still).await?;
    if !targets::enable(&mut tx, target.id).await? {
        return Err(TargetError::NotDisabled { name: target.name });
    }
    let enabled = Act::TargetEnabled { target: target.id, name: target.name.clone() };
    audit::append(&mut tx, app.clock.now(), actor, enabled).await?;
    tx.commit().await?;
    Ok(Target { disabled_at: None, ..target })
}

/// What the bastion logs in with at `login`, opened for the dialler; `None` if the target has no such account.
pub async fn secret(app: &App, id: TargetId, login: &Login) -> Result<Option<Credential>, TargetError> {
    let mut tx = app.db.read().await?;
    let target = targets::find_by_id(&mut tx, id).await?.ok_or(TargetError::UnknownId { id })?;
    let Some(account) = target.login(login) else { return Ok(None) };
    let kind = account.credential;
    if kind == CredentialKind::Certificate {
        return Ok(Some(Credential::Certificate));
    }
    let missing = || TargetError::SecretMissing { login: login.clone(), name: target.name.clone() };
    let sealed = targets::secret(&mut tx, id, login).await?.ok_or_else(missing)?;
    drop(tx);
    let opened = app.master.open(&context(id, login.as_str()), &sealed);
    let opened =
        opened.map_err(|source| TargetError::Sealed { login: login.clone(), name: target.name.clone(), source })?;
    let text = std::str::from_utf8(opened.expose_secret()).map_err(|_| missing())?;
    Ok(Some(match kind {
        CredentialKind::Certificate => Credential::Certificate,
        CredentialKind::Key => Credential::Key(PrivateKeyText::new(text)),
        CredentialKind::Password => Credential::Password(TargetPassword::new(text)),
    }))
}

/// What a login's secret is sealed for.
pub(crate) fn context(target: TargetId, login: &str) -> String {
    format!("target/{target}/{login}")
}

async fn load(tx: &mut Tx, name: &TargetName) -> Result<Target, TargetError> {
    targets::find(tx, name).await?.ok_or_else(|| TargetError::Unknown { name: name.clone() })
}

/// The target, which nobody else changes until the end of the transaction.
async fn held(tx: &mut Tx, name: &TargetName, still: Still<'_, Target>) -> Result<Target, TargetError> {
    let id = load(tx, name).await?.id;
    targets::hold(tx, id).await?;
    let target = load(tx, name).await?;
    if is_changed(still, &target) {
        return Err(TargetError::Changed { name: target.name });
    }
    Ok(target)
}

async fn check_jump(tx: &mut Tx, name: TargetName) -> Result<TargetId, TargetError> {
    let Some(first) = targets::find(tx, &name).await? else { return Err(TargetError::UnknownJump { name }) };
    let (id, mut next) = (first.id, first.jump);
    for _ in 1..MOST_JUMPS {
        let Some(jump) = next else { return Ok(id) };
        next = targets::find_by_id(tx, jump).await?.and_then(|target| target.jump);
    }
    if next.is_some() { Err(TargetError::TooManyJumps) } else { Ok(id) }
}

/// Checks every way that leads over `changed`, with what it will be.
fn check_ways(changed: &Target, mut all: Vec<Target>) -> Result<(), TargetError> {
    all.retain(|target| target.id != changed.id);
    let jumps: HashMap<TargetId, Option<TargetId>> =
        all.iter().chain([changed]).map(|target| (target.id, target.jump)).collect();
    for target in all.iter().chain([changed]) {
        // A way in a circle has no end, so its length tells, too.
        let way = std::iter::successors(target.jump, |jump| jumps.get(jump).copied().flatten());
        if way.take(MOST_JUMPS + 1).count() > MOST_JUMPS {
            return Err(TargetError::Way { name: target.name.clone() });
        }
    }
    Ok(())
}

fn check_aliases(mut aliases: Vec<TargetName>, name: &TargetName) -> Result<Vec<TargetName>, TargetError> {
    at_most("aliases", aliases.len(), MOST_ALIASES)?;
    aliases.sort();
    aliases.dedup();
    aliases.retain(|alias| alias != name);
    Ok(aliases)
}

/// Accounts with their credentials; `None` is to stay as it is.
type Accounts = Vec<(Login, Option<Credential>)>;

async fn store_secrets(
    app: &App,
    tx: &mut Tx,
    target: &Target,
    logins: &[(Login, Option<Credential>)],
) -> Result<(), TargetError> {
    for (login, credential) in logins {
        let Some(secret) = credential.as_ref().and_then(Credential::secret) else { continue };
        let sealed = app.master.seal(&context(target.id, login.as_str()), secret.as_bytes());
        let sealed =
            sealed.map_err(|source| TargetError::Sealed { login: login.clone(), name: target.name.clone(), source })?;
        targets::set_secret(tx, target.id, login, &sealed, app.clock.now()).await?;
    }
    Ok(())
}

/// The accounts as they will be; what is to stay as it is must be among those that were `before`.
fn kinds(logins: &[(Login, Option<Credential>)], before: &[TargetLogin]) -> Result<Vec<TargetLogin>, TargetError> {
    let kind = |(login, credential): &(Login, Option<Credential>)| {
        let kept = || before.iter().find(|account| account.login == *login).map(|account| account.credential);
        let credential = credential.as_ref().map(Credential::kind).or_else(kept);
        let credential = credential.ok_or_else(|| TargetError::NothingToKeep { login: login.clone() })?;
        Ok(TargetLogin { login: login.clone(), credential })
    };
    logins.iter().map(kind).collect()
}

fn fingerprints(host_keys: &[HostKey]) -> Vec<String> {
    let fingerprint = |key: &HostKey| key.public_key.parse::<SshPublicKey>().map(|key| key.fingerprint().to_string());
    host_keys.iter().filter_map(|key| fingerprint(key).ok()).collect()
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), TargetError> {
    if count > most { Err(TargetError::TooMany { what, most }) } else { Ok(()) }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), TargetError> {
    at_most("labels", labels.len(), MOST_LABELS)?;
    let key_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let sound = |key: &str, value: &str| {
        (1..=63).contains(&key.len())
            && key.chars().all(key_character)
            && (1..=255).contains(&value.chars().count())
            && !value.chars().any(char::is_control)
    };
    match labels.iter().find(|(key, value)| !sound(key, value)) {
        Some((key, _)) => Err(TargetError::Label { key: key.chars().filter(|c| !c.is_control()).take(63).collect() }),
        None => Ok(()),
    }
}

fn check_logins(logins: Accounts) -> Result<Accounts, TargetError> {
    at_most("logins", logins.len(), MOST_LOGINS)?;
    if logins.is_empty() {
        return Err(TargetError::NoLogin);
    }
    let mut seen = HashSet::new();
    for (login, credential) in &logins {
        if !seen.insert(login) {
            return Err(TargetError::LoginTwice { login: login.clone() });
        }
        match credential {
            None | Some(Credential::Certificate) => {}
            Some(Credential::Key(key)) => check_private_key(key.expose())
                .map_err(|message| TargetError::PrivateKey { login: login.clone(), message })?,
            Some(Credential::Password(password)) => {
                let password = password.expose();
                if password.is_empty() || password.len() > MOST_SECRET || password.contains(['\n', '\r', '\0']) {
                    return Err(TargetError::Password { login: login.clone() });
                }
            }
        }
    }
    Ok(logins)
}

/// Checks the outside of a private key (OpenSSH's PROTOCOL.key): that it is one, and that no passphrase is needed at two
/// in the morning.
fn check_private_key(text: &str) -> Result<(), &'static str> {
    const HEAD: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
    const TAIL: &str = "-----END OPENSSH PRIVATE KEY-----";
    const PLAIN: &[u8] = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none";
    if text.len() > MOST_SECRET {
        return Err("it is too long");
    }
    let body = text.trim().strip_prefix(HEAD).and_then(|rest| rest.strip_suffix(TAIL));
    let body = body.ok_or("it is not in OpenSSH's form (convert it with `ssh-keygen -p -f FILE`)")?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let bytes = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| "it is not complete")?);
    if !bytes.starts_with(b"openssh-key-v1\0") {
        return Err("it is not complete");
    }
    if bytes.starts_with(PLAIN) { Ok(()) } else { Err("it has a passphrase (remove it with `ssh-keygen -p -f FILE`)") }
}

/// Parses the keys, so that only whole ones are pinned, and brings them into one form.
fn check_host_keys(host_keys: Vec<HostKey>) -> Result<Vec<HostKey>, TargetError> {
    at_most("host keys", host_keys.len(), MOST_HOST_KEYS)?;
    let mut checked: Vec<HostKey> = Vec::with_capacity(host_keys.len());
    for key in host_keys {
        let parsed: SshPublicKey = key.public_key.parse().map_err(|source| TargetError::HostKey { source })?;
        let key = HostKey { trust: key.trust, public_key: parsed.to_line() };
        if !checked.contains(&key) {
            checked.push(key);
        }
    }
    if checked.is_empty() { Err(TargetError::NoHostKey) } else { Ok(checked) }
}

#[cfg(test)]
pub(crate) mod tests {
    use sallyport_domain::target::HostKeyTrust;

    use super::*;
    use crate::app::keys;
    use crate::app::people::tests::OPERATOR;
    use crate::store::db::testing::{app_on, on_both};

    pub(crate) fn named(name: &str) -> NewTarget {
        let (public_key, _) = keys::generate("host").unwrap();
        NewTarget {
            name: name.parse().unwrap(),
            aliases: vec![],
            address: "127.0.0.1:2222".parse().unwrap(),
            jump: None,
            logins: vec![("root".parse().unwrap(), Credential::Certificate)],
            labels: BTreeMap::new(),
            host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key }],
        }
    }

    #[tokio::test]
    async fn a_target_is_found_by_each_of_its_names_as_it_was_added() {
        on_both(|db| async {
            let app = app_on(db);
            let new = NewTarget {
                aliases: ["www", "web", "www"].map(|name| name.parse().unwrap()).to_vec(),
                labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
                ..named("web-1")
            };

            let added = add(&app, &OPERATOR, new).await.unwrap();

            for name in ["web-1", "web", "www"] {
                assert_eq!(find(&app, &name.parse().unwrap()).await.unwrap(), added, "{name}");
            }
            assert_eq!(list(&app).await.unwrap(), [added]);
        })
        .await;
    }

    #[tokio::test]
    async fn no_name_or_alias_belongs_to_two_targets() {
        on_both(|db| async {
            let app = app_on(db);
            let alias = || vec!["www".parse().unwrap()];
            add(&app, &OPERATOR, NewTarget { aliases: alias(), ..named("web-1") }).await.unwrap();

            for (name, aliases) in [("web-1", vec![]), ("www", vec![]), ("web-2", alias())] {
                let refused = add(&app, &OPERATOR, NewTarget { aliases, ..named(name) }).await;
                assert!(matches!(refused, Err(TargetError::NameTaken { .. })), "{name}: {refused:?}");
            }
            assert_eq!(list(&app).await.unwrap().len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn a_secret_opens_for_its_login_and_is_nowhere_in_clear() {
        on_both(|db| async {
            let app = app_on(db);
            let (_, key) = keys::generate("deploy").unwrap();
            let login = |name: &str| name.parse::<Login>().unwrap();
            let logins = vec![
                (login("root"), Credential::Password(TargetPassword::new("planted-secret"))),
                (login("deploy"), Credential::Key(PrivateKeyText::new(key.expose()))),
                (login("ops"), Credential::Certificate),
            ];
            let target = add(&app, &OPERATOR, NewTarget { logins, ..named("web-1") }).await.unwrap();

            let opened = secret(&app, target.id, &login("root")).await.unwrap();
            assert!(matches!(opened, Some(Credential::Password(password)) if password.expose() == "planted-secret"));
            let opened = secret(&app, target.id, &login("deploy")).await.unwrap();
            assert!(matches!(opened, Some(Credential::Key(found)) if found.expose() == key.expose()));
            assert!(matches!(secret(&app, target.id, &login("ops")).await.unwrap(), Some(Credential::Certificate)));
            assert!(secret(&app, target.id, &login("nobody")).await.unwrap().is_none());
            let mut tx = app.db.read().await.unwrap();
            let sealed = targets::secret(&mut tx, target.id, &login("root")).await.unwrap().unwrap();
            assert!(!sealed.windows(14).any(|window| window == b"planted-secret"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_change_replaces_what_is_given_forgets_old_secrets_and_says_so_without_them() {
        on_both(|db| async {
            let app = app_on(db);
            let root: Login = "root".parse().unwrap();
            let logins = vec![(root.clone(), Credential::Password(TargetPassword::new("planted-secret")))];
            let target = add(&app, &OPERATOR, NewTarget { logins, ..named("web-1") }).await.unwrap();

            let change = TargetChange {
                address: Some("10.0.0.9".parse().unwrap()),
                logins: Some(vec![("ops".parse().unwrap(), Some(Credential::Certificate))]),
                ..TargetChange::default()
            };
            let changed = update(&app, &OPERATOR, &target.name, change, None).await.unwrap();

            assert_eq!(find(&app, &target.name).await.unwrap(), changed);
            assert_eq!(changed.address.to_string(), "10.0.0.9:22");
            let mut tx = app.db.read().await.unwrap();
            assert_eq!(targets::secret(&mut tx, target.id, &root).await.unwrap(), None);
            drop(tx);
            let events = audit::list(&app, 0, &audit::EventFilter::default(), 10).await.unwrap();
            let told = format!("{events:?}");
            assert!(told.contains("address 10.0.0.9:22; logins ops (certificate)"), "{told}");
            assert!(!told.contains("planted-secret"));
            let nothing = update(&app, &OPERATOR, &target.name, TargetChange::default(), None).await;
            assert!(matches!(nothing, Err(TargetError::NoChange)), "{nothing:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn an_account_keeps_its_secret_while_others_come_and_go_but_a_new_one_has_none_to_keep() {
        on_both(|db| async {
            let app = app_on(db);
            let login = |name: &str| name.parse::<Login>().unwrap();
            let logins = vec![(login("root"), Credential::Password(TargetPassword::new("planted-secret")))];
            let target = add(&app, &OPERATOR, NewTarget { logins, ..named("web-1") }).await.unwrap();
            let with = |other: Option<Credential>| TargetChange {
                logins: Some(vec![(login("root"), None), (login("ops"), other)]),
                ..TargetChange::default()
            };

            let refused = update(&app, &OPERATOR, &target.name, with(None), None).await;
            let changed =
                update(&app, &OPERATOR, &target.name, with(Some(Credential::Certificate)), None).await.unwrap();

            assert!(matches!(refused, Err(TargetError::NothingToKeep { .. })), "{refused:?}");
            assert_eq!(changed.logins.len(), 2);
            let opened = secret(&app, target.id, &login("root")).await.unwrap();
            assert!(matches!(opened, Some(Credential::Password(password)) if password.expose() == "planted-secret"));
        })
        .await;
    }

    #[tokio::test]
    async fn names_and_the_way_change_but_no_name_is_taken_twice_and_no_way_leads_in_a_circle() {
        on_both(|db| async {
            let app = app_on(db);
            for name in ["a", "b", "c", "d"] {
                add(&app, &OPERATOR, named(name)).await.unwrap();
            }
            let name = |text: &str| text.parse::<TargetName>().unwrap();
            let change = async |target: &str, change| update(&app, &OPERATOR, &name(target), change, None).await;
            let through = |jump: &str| TargetChange { way: Some(Way::Through(name(jump))), ..TargetChange::default() };
            let aliases = |all: &[&str]| TargetChange {
                aliases: Some(all.iter().map(|alias| name(alias)).collect()),
                ..TargetChange::default()
            };

            assert_eq!(change("a", aliases(&["www", "old"])).await.unwrap().aliases, [name("old"), name("www")]);
            assert_eq!(change("a", aliases(&["www"])).await.unwrap(), find(&app, &name("www")).await.unwrap());
            assert!(find(&app, &name("old")).await.is_err());
            assert!(matches!(change("b", aliases(&["www"])).await, Err(TargetError::NameTaken { .. })));
            for (from, to) in [("b", "a"), ("c", "b"), ("d", "c")] {
                assert!(change(from, through(to)).await.unwrap().jump.is_some());
            }
            for (from, to) in [("a", "d"), ("a", "a"), ("b", "c")] {
                let refused = change(from, through(to)).await;
                assert!(
                    matches!(refused, Err(TargetError::Way { .. } | TargetError::TooManyJumps)),
                    "{from} through {to}: {refused:?}"
                );
            }
            let direct = TargetChange { way: Some(Way::Direct), ..TargetChange::default() };
            assert_eq!(change("b", direct).await.unwrap().jump, None);
            assert_eq!(find(&app, &name("b")).await.unwrap().jump, None);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_missing_or_malformed_is_refused_with_the_reason() {
        on_both(|db| async {
            use TargetError as E;
            let app = app_on(db);
            let refuse = async |new: NewTarget| add(&app, &OPERATOR, new).await.unwrap_err();
            let root = || "root".parse::<Login>().unwrap();
            let key = |text: &str| vec![(root(), Credential::Key(PrivateKeyText::new(text)))];
            let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);

            assert!(matches!(refuse(NewTarget { host_keys: vec![], ..named("a") }).await, E::NoHostKey));
            assert!(matches!(refuse(NewTarget { logins: vec![], ..named("a") }).await, E::NoLogin));
            let twice = vec![(root(), Credential::Certificate), (root(), Credential::Certificate)];
            assert!(matches!(refuse(NewTarget { logins: twice, ..named("a") }).await, E::LoginTwice { .. }));
            assert!(matches!(refuse(NewTarget { logins: key("hunter2"), ..named("a") }).await, E::PrivateKey { .. }));
            let jump = Some("nowhere".parse().unwrap());
            assert!(matches!(refuse(NewTarget { jump, ..named("a") }).await, E::UnknownJump { .. }));
            for labels in [label("", "x"), label("a=b", "x"), label("a", ""), label("a", "x\u{1b}")] {
                assert!(matches!(refuse(NewTarget { labels, ..named("a") }).await, E::Label { .. }));
            }
            let bad = HostKey { trust: HostKeyTrust::Host, public_key: "ssh-ed25519 AAAA".to_owned() };
            assert!(matches!(refuse(NewTarget { host_keys: vec![bad], ..named("a") }).await, E::HostKey { .. }));
            assert_eq!(list(&app).await.unwrap(), []);
        })
        .await;
    }

    #[tokio::test]
    async fn the_way_to_a_target_leads_through_three_others_at_most() {
        on_both(|db| async {
            let app = app_on(db);
            let through = |jump: &str| Some(jump.parse().unwrap());
            add(&app, &OPERATOR, named("a")).await.unwrap();
            for (name, jump) in [("b", "a"), ("c", "b"), ("d", "c")] {
                add(&app, &OPERATOR, NewTarget { jump: through(jump), ..named(name) }).await.unwrap();
            }

            let far = add(&app, &OPERATOR, NewTarget { jump: through("d"), ..named("e") }).await;

            assert!(matches!(far, Err(TargetError::TooManyJumps)), "{far:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_target_is_disabled_once_and_enabled_once() {
        on_both(|db| async {
            let app = app_on(db);
            let name = add(&app, &OPERATOR, named("web-1")).await.unwrap().name;

            assert_eq!(disable(&app, &OPERATOR, &name, None).await.unwrap().disabled_at, Some(app.clock.now()));
            assert_eq!(find(&app, &name).await.unwrap().disabled_at, Some(app.clock.now()));
            let again = disable(&app, &OPERATOR, &name, None).await;
            assert!(matches!(again, Err(TargetError::DisabledAlready { .. })), "{again:?}");
            assert_eq!(enable(&app, &OPERATOR, &name, None).await.unwrap().disabled_at, None);
            let again = enable(&app, &OPERATOR, &name, None).await;
            assert!(matches!(again, Err(TargetError::NotDisabled { .. })), "{again:?}");
        })
        .await;
    }
}
