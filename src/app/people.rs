//! People: who may log in, with which keys and password, and what part they play.

use std::collections::{HashMap, HashSet};

use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::PrincipalId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::{Principal, Role};
use sallyport_domain::secret::PrincipalPassword;
use sallyport_domain::ssh_key::SshPublicKey;
use uuid::Uuid;

use crate::app::passwords::{self, PasswordError};
use crate::app::text::{self, TextError};
use crate::app::{App, Still, audit, invites, is_changed};
use crate::store::db::principals::PrincipalRecord;
use crate::store::db::{DbError, Tx, policy_version, principals, second_factors, web_sessions};

pub use crate::store::db::principals::PersonKey;

/// The most keys that one person may have.
pub const MOST_KEYS: usize = 100;

/// A person to add.
#[derive(Debug)]
pub struct NewPerson {
    pub name: PrincipalName,
    pub organisation: Option<String>,
    /// At least one.
    pub roles: Vec<Role>,
    pub keys: Vec<SshPublicKey>,
    pub password: Option<PrincipalPassword>,
}

/// A person with what they log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub principal: Principal,
    pub keys: Vec<PersonKey>,
    pub has_password: bool,
    /// Whether logins ask for a code besides.
    pub has_second_factor: bool,
}

/// Why people were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("there is no person `{name}`")]
    Unknown { name: PrincipalName },
    #[error("there is a person `{name}` already")]
    NameTaken { name: PrincipalName },
    #[error("the key {fingerprint} belongs to somebody already; a key stands for one person")]
    KeyTaken { fingerprint: String },
    #[error("`{name}` has no key {fingerprint}")]
    UnknownKey { name: PrincipalName, fingerprint: String },
    #[error("a person may have {MOST_KEYS} keys at most")]
    TooManyKeys,
    #[error("a person needs a role (one of engineer, admin, reviewer, auditor)")]
    NoRole,
    #[error("`{name}` is disabled already")]
    DisabledAlready { name: PrincipalName },
    #[error("`{name}` is not disabled")]
    NotDisabled { name: PrincipalName },
    #[error("somebody changed `{name}` meanwhile: look at them again")]
    Changed { name: PrincipalName },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Adds a person.
pub async fn add(app: &App, actor: &Actor, new: NewPerson) -> Result<Person, PeopleError> {
    let organisation = new.organisation.map(|text| text::check("organisation", &text, text::MOST_LABEL)).transpose()?;
    let roles = sorted(new.roles)?;
    if new.keys.len() > MOST_KEYS {
        return Err(PeopleError::TooManyKeys);
    }
    let hash = match new.password {
        Some(password) => Some(passwords::hash(app, password).await?),
        None => None,
    };
    let now = app.clock.now();
    let id = PrincipalId::from_uuid(Uuid::now_v7());
    let principal = Principal { id, name: new.name, organisation, roles, created_at: now, disabled_at: None };

    let mut tx = app.db.write().await?;
    if !principals::insert(&mut tx, &principal, hash.as_deref()).await? {
        return Err(PeopleError::NameTaken { name: principal.name });
    }
    let added = Act::PersonAdded { person: id, name: principal.name.clone(), roles: principal.roles.clone() };
    audit::append(&mut tx, now, actor, added).await?;
    for key in &new.keys {
        insert_key(app, &mut tx, actor, id, key).await?;
    }
    let keys = principals::keys_of(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Person { principal, keys, has_password: hash.is_some(), has_second_factor: false })
}

/// Everybody, by name.
pub async fn list(app: &App) -> Result<Vec<Person>, PeopleError> {
    let mut tx = app.db.read().await?;
    let records = principals::list(&mut tx).await?;
    let mut keys: HashMap<PrincipalId, Vec<PersonKey>> = HashMap::new();
    for (owner, key) in principals::keys(&mut tx).await? {
        keys.entry(owner).or_default().push(key);
    }
    let with_code: HashSet<PrincipalId> = second_factors::confirmed(&mut tx).await?.into_iter().collect();
    let person = |record: PrincipalRecord| {
        let keys = keys.remove(&record.principal.id).unwrap_or_default();
        let has_second_factor = with_code.contains(&record.principal.id);
        shape(record, keys, has_second_factor)
    };
    Ok(records.into_iter().map(person).collect())
}

/// The person of this name.
pub async fn find(app: &App, name: &PrincipalName) -> Result<Person, PeopleError> {
    let mut tx = app.db.read().await?;
    load(&mut tx, name).await
}

/// Adds a key.
pub async fn add_key(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    key: SshPublicKey,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let mut tx = app.db.write().await?;
    held(&mut tx, name, still).await?;
    add_key_in(app, &mut tx, actor, name, &key).await?;
    finish(tx, name).await
}

/// Adds a key, along with what else the transaction does.
pub(super) async fn add_key_in(
    app: &App,
    tx: &mut Tx,
    actor: &Actor,
    name: &PrincipalName,
    key: &SshPublicKey,
) -> Result<(), PeopleError> {
    let person = load(tx, name).await?;
    if person.keys.len() >= MOST_KEYS {
        return Err(PeopleError::TooManyKeys);
    }
    insert_key(app, tx, actor, person.principal.id, key).await
}

/// Removes a key, by its fingerprint. Sessions that it opened go on: to end them, revoke or disable.
pub async fn remove_key(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    fingerprint: &str,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let mut tx = app.db.write().await?;
    let person = held(&mut tx, name, still).await?.principal.id;
    if !principals::remove_key(&mut tx, person, fingerprint).await? {
        return Err(PeopleError::UnknownKey { name: name.clone(), fingerprint: fingerprint.to_owned() });
    }
    let removed = Act::KeyRemoved { person, fingerprint: fingerprint.to_owned() };
    audit::append(&mut tx, app.clock.now(), actor, removed).await?;
    finish(tx, name).await
}

/// Sets the password, or with `None` takes it away.
pub async fn set_password(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    password: Option<PrincipalPassword>,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let (hash, change) = match password {
        Some(password) => (Some(passwords::hash(app, password).await?), "password set"),
        None => (None, "password removed"),
    };
    let mut tx = app.db.write().await?;
    let person = held(&mut tx, name, still).await?.principal.id;
    principals::set_password_hash(&mut tx, person, hash.as_deref()).await?;
    // Whoever had the old one is out.
    web_sessions::end_all(&mut tx, person).await?;
    changed(app, &mut tx, actor, person, name, change.to_owned()).await?;
    finish(tx, name).await
}

/// Sets the roles.
pub async fn set_roles(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    roles: Vec<Role>,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let roles = sorted(roles)?;
    let mut tx = app.db.write().await?;
    let person = held(&mut tx, name, still).await?.principal.id;
    principals::set_roles(&mut tx, person, &roles).await?;
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    changed(app, &mut tx, actor, person, name, format!("roles: {}", words.join(", "))).await?;
    finish(tx, name).await
}

/// Sets whom the person works for; `None` takes it away.
pub async fn set_organisation(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    organisation: Option<String>,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let organisation = organisation.map(|text| text::check("organisation", &text, text::MOST_LABEL)).transpose()?;
    let mut tx = app.db.write().await?;
    let person = held(&mut tx, name, still).await?.principal.id;
    principals::set_organisation(&mut tx, person, organisation.as_deref()).await?;
    let change = format!("organisation: {}", organisation.as_deref().unwrap_or("none"));
    changed(app, &mut tx, actor, person, name, change).await?;
    finish(tx, name).await
}

/// Disables the person: no login from now on, live sessions are cut, and an invite of theirs is taken back.
pub async fn disable(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    let id = held(&mut tx, name, still).await?.principal.id;
    let now = app.clock.now();
    if !principals::disable(&mut tx, id, now).await? {
        return Err(PeopleError::DisabledAlready { name: name.clone() });
    }
    web_sessions::end_all(&mut tx, id).await?;
    invites::revoke_open(&mut tx, actor, id, now).await?;
    audit::append(&mut tx, now, actor, Act::PersonDisabled { person: id, name: name.clone() }).await?;
    let person = finish(tx, name).await?;
    app.changes.notify();
    Ok(person)
}

/// Lets the person log in again.
pub async fn enable(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    still: Still<'_, Person>,
) -> Result<Person, PeopleError> {
    let mut tx = app.db.write().await?;
    let id = held(&mut tx, name, still).await?.principal.id;
    if !principals::enable(&mut tx, id).await? {
        return Err(PeopleError::NotDisabled { name: name.clone() });
    }
    let enabled = Act::PersonEnabled { person: id, name: name.clone() };
    audit::append(&mut tx, app.clock.now(), actor, enabled).await?;
    finish(tx, name).await
}

fn shape(record: PrincipalRecord, keys: Vec<PersonKey>, has_second_factor: bool) -> Person {
    Person { has_password: record.password_hash.is_some(), principal: record.principal, keys, has_second_factor }
}

async fn load(tx: &mut Tx, name: &PrincipalName) -> Result<Person, PeopleError> {
    let record = principals::find(tx, name).await?.ok_or_else(|| PeopleError::Unknown { name: name.clone() })?;
    let keys = principals::keys_of(tx, record.principal.id).await?;
    let second = second_factors::find(tx, record.principal.id).await?;
    Ok(shape(record, keys, second.is_some_and(|found| found.confirmed_at.is_some())))
}

/// The person, whom nobody else changes until the end of the transaction.
async fn held(tx: &mut Tx, name: &PrincipalName, still: Still<'_, Person>) -> Result<Person, PeopleError> {
    let unknown = || PeopleError::Unknown { name: name.clone() };
    let id = principals::find(tx, name).await?.ok_or_else(unknown)?.principal.id;
    principals::hold(tx, id).await?;
    let person = load(tx, name).await?;
    if is_changed(still, &person) {
        return Err(PeopleError::Changed { name: name.clone() });
    }
    Ok(person)
}

/// Commits, and gives the person as they are now.
async fn finish(mut tx: Tx, name: &PrincipalName) -> Result<Person, PeopleError> {
    let person = load(&mut tx, name).await?;
    tx.commit().await?;
    Ok(person)
}

async fn changed(
    app: &App,
    tx: &mut Tx,
    actor: &Actor,
    person: PrincipalId,
    name: &PrincipalName,
    change: String,
) -> Result<(), PeopleError> {
    let act = Act::PersonChanged { person, name: name.clone(), change };
    audit::append(tx, app.clock.now(), actor, act).await?;
    Ok(())
}

async fn insert_key(
    app: &App,
    tx: &mut Tx,
    actor: &Actor,
    person: PrincipalId,
    key: &SshPublicKey,
) -> Result<(), PeopleError> {
    let now = app.clock.now();
    let fingerprint = key.fingerprint().to_string();
    let stored = PersonKey {
        fingerprint: fingerprint.clone(),
        public_key: key.to_line(),
        comment: key.comment().to_owned(),
        added_at: now,
        last_used_at: None,
    };
    if !principals::insert_key(tx, person, &stored).await? {
        return Err(PeopleError::KeyTaken { fingerprint });
    }
    audit::append(tx, now, actor, Act::KeyAdded { person, fingerprint }).await?;
    Ok(())
}

fn sorted(mut roles: Vec<Role>) -> Result<Vec<Role>, PeopleError> {
    roles.sort();
    roles.dedup();
    if roles.is_empty() { Err(PeopleError::NoRole) } else { Ok(roles) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::db::testing::{app_on, on_both};

    pub(crate) const OPERATOR: Actor = Actor::Operator { uid: 0 };
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";

    pub(crate) fn named(name: &str) -> NewPerson {
        let name = name.parse().unwrap();
        NewPerson { name, organisation: None, roles: vec![Role::Engineer], keys: vec![], password: None }
    }

    async fn acts(app: &App) -> Vec<Act> {
        let events = audit::list(app, 0, &audit::EventFilter::default(), 100).await.unwrap();
        events.into_iter().map(|(_, event)| event.act).collect()
    }

    #[tokio::test]
    async fn a_person_is_found_as_added_and_the_log_tells_of_it_without_the_password() {
        on_both(|db| async {
            let app = app_on(db);
            let new = NewPerson {
                organisation: Some(" Vendor AG ".to_owned()),
                roles: vec![Role::Auditor, Role::Engineer, Role::Auditor],
                keys: vec![format!("{KEY} li@desk").parse().unwrap()],
                password: Some(PrincipalPassword::new("correct horse battery")),
                ..named("li.wei")
            };

            let added = add(&app, &OPERATOR, new).await.unwrap();

            assert_eq!(added.principal.roles, [Role::Engineer, Role::Auditor]);
            assert_eq!(added.principal.organisation.as_deref(), Some("Vendor AG"));
            assert_eq!(added.keys[0].comment, "li@desk");
            assert!(added.has_password);
            assert_eq!(find(&app, &added.principal.name).await.unwrap(), added);
            assert_eq!(list(&app).await.unwrap(), std::slice::from_ref(&added));
            let acts = acts(&app).await;
            assert!(matches!(&acts[..], [Act::PersonAdded { .. }, Act::KeyAdded { .. }]), "{acts:?}");
            let mut tx = app.db.read().await.unwrap();
            let record = principals::find(&mut tx, &added.principal.name).await.unwrap().unwrap();
            assert!(record.password_hash.unwrap().starts_with("$argon2id$"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_name_and_a_key_belong_to_one_person_and_a_refusal_changes_nothing() {
        on_both(|db| async {
            let app = app_on(db);
            let key: SshPublicKey = KEY.parse().unwrap();
            add(&app, &OPERATOR, NewPerson { keys: vec![key.clone()], ..named("alice") }).await.unwrap();
            let before = acts(&app).await;

            let taken = add(&app, &OPERATOR, named("alice")).await;
            assert!(matches!(taken, Err(PeopleError::NameTaken { .. })), "{taken:?}");
            let taken = add(&app, &OPERATOR, NewPerson { keys: vec![key], ..named("bob") }).await;
            assert!(matches!(taken, Err(PeopleError::KeyTaken { .. })), "{taken:?}");
            let nobody = add(&app, &OPERATOR, NewPerson { roles: vec![], ..named("bob") }).await;
            assert!(matches!(nobody, Err(PeopleError::NoRole)), "{nobody:?}");

            assert_eq!(list(&app).await.unwrap().len(), 1);
            assert_eq!(acts(&app).await, before);
        })
        .await;
    }

    #[tokio::test]
    async fn keys_come_and_go_and_a_password_can_be_taken_away() {
        on_both(|db| async {
            let app = app_on(db);
            let name = add(&app, &OPERATOR, named("alice")).await.unwrap().principal.name;

            let with_key = add_key(&app, &OPERATOR, &name, KEY.parse().unwrap(), None).await.unwrap();
            let fingerprint = &with_key.keys[0].fingerprint;
            assert!(remove_key(&app, &OPERATOR, &name, fingerprint, None).await.unwrap().keys.is_empty());
            let again = remove_key(&app, &OPERATOR, &name, fingerprint, None).await;
            assert!(matches!(again, Err(PeopleError::UnknownKey { .. })), "{again:?}");

            let password = PrincipalPassword::new("correct horse battery");
            assert!(set_password(&app, &OPERATOR, &name, Some(password), None).await.unwrap().has_password);
            assert!(!set_password(&app, &OPERATOR, &name, None, None).await.unwrap().has_password);
        })
        .await;
    }

    #[tokio::test]
    async fn an_organisation_is_set_and_taken_away_and_the_log_tells_of_it() {
        on_both(|db| async {
            let app = app_on(db);
            let name = add(&app, &OPERATOR, named("alice")).await.unwrap().principal.name;

            let set = set_organisation(&app, &OPERATOR, &name, Some(" Vendor AG".to_owned()), None).await.unwrap();
            let unset = set_organisation(&app, &OPERATOR, &name, None, None).await.unwrap();

            assert_eq!(set.principal.organisation.as_deref(), Some("Vendor AG"));
            assert_eq!(unset.principal.organisation, None);
            let told = format!("{:?}", acts(&app).await);
            assert!(told.contains("organisation: Vendor AG") && told.contains("organisation: none"), "{told}");
        })
        .await;
    }

    #[tokio::test]
    async fn to_disable_a_person_raises_the_policy_version_and_tells_live_sessions() {
        on_both(|db| async {
            let app = app_on(db);
            let name = add(&app, &OPERATOR, named("alice")).await.unwrap().principal.name;
            let mut told = app.changes.subscribe();
            let version = policy_version::read(&mut app.db.read().await.unwrap()).await.unwrap();

            let disabled = disable(&app, &OPERATOR, &name, None).await.unwrap();

            assert_eq!(disabled.principal.disabled_at, Some(app.clock.now()));
            assert!(told.has_changed().unwrap());
            told.mark_unchanged();
            assert_eq!(policy_version::read(&mut app.db.read().await.unwrap()).await.unwrap(), version + 1);
            let again = disable(&app, &OPERATOR, &name, None).await;
            assert!(matches!(again, Err(PeopleError::DisabledAlready { .. })), "{again:?}");
            assert_eq!(enable(&app, &OPERATOR, &name, None).await.unwrap().principal.disabled_at, None);
        })
        .await;
    }
}
