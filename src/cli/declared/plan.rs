//! What has to be done so that what is becomes what is wanted. Pure: it takes both, and gives steps with their words.

use std::collections::{BTreeMap, BTreeSet};

use sallyport_domain::name::{Login, PrincipalName, TargetName, TemplateName};
use sallyport_domain::principal::Role;
use sallyport_domain::target::CredentialKind;

use super::file::{Access, Jump, PersonKey, WantedHostKey, WantedPerson, WantedTarget};
use crate::api::people::{AddPerson, Person};
use crate::api::targets::{AddTarget, ChangeTarget, PinHostKey, SetCredential, SetLogin, Target};
use crate::api::templates::{MakeTemplate, SetTemplate, Template};

/// One request of the API.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    AddPerson(AddPerson),
    SetOrganisation(PrincipalName, String),
    SetRoles(PrincipalName, Vec<Role>),
    AddKey(PrincipalName, String),
    /// By its fingerprint.
    RemoveKey(PrincipalName, String),
    DisablePerson(PrincipalName),
    EnablePerson(PrincipalName),
    AddTarget(AddTarget),
    ChangeTarget(TargetName, ChangeTarget),
    DisableTarget(TargetName),
    EnableTarget(TargetName),
    MakeTemplate(MakeTemplate),
    SetTemplate(TemplateName, SetTemplate),
    RemoveTemplate(TemplateName),
}

/// A step with what it changes, in words: the thing, then its lines.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) step: Step,
    pub(crate) what: String,
    pub(crate) changes: Vec<String>,
}

/// All that is to be done, in this order, and what is there though the file does not name it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Planned>,
    pub(crate) unnamed: Vec<String>,
}

/// How secrets come in: gives the credential that an account's file holds.
pub(crate) type Secret<'a> = &'a dyn Fn(&TargetName, &Login, CredentialKind) -> Result<Option<SetCredential>, String>;

impl Plan {
    /// Compares. With `prune`, people and targets that the file does not name are disabled, never removed; templates are removed.
    pub(crate) fn make(
        wanted: &Access,
        people: &[Person],
        targets: &[Target],
        templates: &[Template],
        prune: bool,
        secret: Secret<'_>,
    ) -> Result<Self, String> {
        let mut plan = Self::default();
        // What takes away comes first: a key or an alias may go from one to another.
        for (name, person) in &wanted.people {
            if let Some(there) = people.iter().find(|there| there.name == *name) {
                plan.disable_person(person, there);
                plan.remove_keys(person, there);
            }
        }
        for there in people.iter().filter(|there| !wanted.people.contains_key(&there.name)) {
            let name = &there.name;
            match there.disabled_at {
                Some(_) => {}
                None if prune => plan.push(Step::DisablePerson(name.clone()), format!("- person {name}"), DISABLED),
                None => plan.unnamed.push(format!("person {name}")),
            }
        }
        for (name, target) in &wanted.targets {
            let there = targets.iter().find(|there| there.name == *name);
            if let Some(there) = there.filter(|there| target.disabled == Some(true) && there.disabled_at.is_none()) {
                plan.push(Step::DisableTarget(there.name.clone()), format!("~ target {name}"), DISABLED);
            }
        }
        for there in targets.iter().filter(|there| !wanted.targets.contains_key(&there.name)) {
            let name = &there.name;
            match there.disabled_at {
                Some(_) => {}
                None if prune => plan.push(Step::DisableTarget(name.clone()), format!("- target {name}"), DISABLED),
                None => plan.unnamed.push(format!("target {name}")),
            }
        }
        for (name, person) in &wanted.people {
            match people.iter().find(|there| there.name == *name) {
                Some(there) => plan.change_person(person, there),
                None => plan.add_person(name, person),
            }
        }
        for name in in_order(&wanted.targets, targets)? {
            let Some(target) = wanted.targets.get(name) else { continue };
            match targets.iter().find(|there| there.name == *name) {
                Some(there) => plan.change_target(target, there, secret)?,
                None => plan.add_target(name, target, secret)?,
            }
        }
        plan.templates(wanted, templates, prune);
        Ok(plan)
    }

    fn push(&mut self, step: Step, what: String, change: &str) {
        self.steps.push(Planned { step, what, changes: vec![change.to_owned()] });
    }

    fn disable_person(&mut self, wanted: &WantedPerson, there: &Person) {
        if wanted.disabled == Some(true) && there.disabled_at.is_none() {
            self.push(Step::DisablePerson(there.name.clone()), format!("~ person {}", there.name), DISABLED);
        }
    }

    fn remove_keys(&mut self, wanted: &WantedPerson, there: &Person) {
        let Some(keys) = &wanted.keys else { return };
        for gone in &there.keys {
            if !keys.iter().any(|key| key.fingerprint() == gone.fingerprint) {
                let (name, fingerprint) = (there.name.clone(), gone.fingerprint.clone());
                let change = format!("- key {fingerprint} {}", gone.comment);
                self.push(Step::RemoveKey(name, fingerprint), format!("~ person {}", there.name), change.trim_end());
            }
        }
    }

    fn change_person(&mut self, wanted: &WantedPerson, there: &Person) {
        let (name, what) = (&there.name, format!("~ person {}", there.name));
        if let Some(organisation) = &wanted.organisation {
            let before = there.organisation.as_deref().unwrap_or_default();
            if before != organisation.trim() {
                let step = Step::SetOrganisation(name.clone(), organisation.clone());
                self.push(step, what.clone(), &from_to("organisation", before, organisation));
            }
        }
        if let Some(roles) = &wanted.roles {
            let (before, after): (BTreeSet<_>, BTreeSet<_>) = (there.roles.iter().collect(), roles.iter().collect());
            if before != after {
                let step = Step::SetRoles(name.clone(), roles.clone());
                self.push(step, what.clone(), &from_to("roles", &words(&there.roles), &words(roles)));
            }
        }
        for key in wanted.keys.iter().flatten().filter(|key| is_new(key, there)) {
            self.push(Step::AddKey(name.clone(), key.line()), what.clone(), &added(key));
        }
        if wanted.disabled == Some(false) && there.disabled_at.is_some() {
            self.push(Step::EnablePerson(name.clone()), what, ENABLED);
        }
    }

    fn add_person(&mut self, name: &PrincipalName, wanted: &WantedPerson) {
        let roles = wanted.roles.clone().unwrap_or_else(|| vec![Role::Engineer]);
        let organisation = wanted.organisation.clone().filter(|organisation| !organisation.trim().is_empty());
        let mut changes = vec![format!("roles: {}", words(&roles))];
        changes.extend(organisation.iter().map(|organisation| format!("organisation: {organisation}")));
        changes.extend(wanted.keys.iter().flatten().map(added));
        let keys = wanted.keys.iter().flatten().map(PersonKey::line).collect();
        let step = Step::AddPerson(AddPerson { name: name.clone(), organisation, roles, keys, password: None });
        self.steps.push(Planned { step, what: format!("+ person {name}"), changes });
        if wanted.disabled == Some(true) {
            self.push(Step::DisablePerson(name.clone()), format!("~ person {name}"), DISABLED);
        }
    }

    fn change_target(&mut self, wanted: &WantedTarget, there: &Target, secret: Secret<'_>) -> Result<(), String> {
        let (name, what) = (&there.name, format!("~ target {}", there.name));
        let (mut change, mut changes) = (ChangeTarget::default(), Vec::new());
        if let Some(address) = wanted.address.as_ref().filter(|address| **address != there.address) {
            changes.push(from_to("address", &there.address.to_string(), &address.to_string()));
            change.address = Some(address.clone());
        }
        if let Some(aliases) = &wanted.aliases {
            let set = |names: &[TargetName]| names.iter().filter(|alias| *alias != name).cloned().collect();
            let (before, after): (BTreeSet<TargetName>, BTreeSet<TargetName>) = (set(&there.aliases), set(aliases));
            if before != after {
                changes.push(from_to("aliases", &join(&before), &join(&after)));
                change.aliases = Some(after.into_iter().collect());
            }
        }
        if let Some(Jump(jump)) = wanted.jump.as_ref().filter(|jump| jump.0 != there.jump) {
            let text = |jump: &Option<TargetName>| jump.as_ref().map_or("", TargetName::as_str).to_owned();
            changes.push(from_to("jump", &text(&there.jump), &text(jump)));
            (change.jump, change.direct) = (jump.clone(), jump.is_none());
        }
        if let Some(labels) = wanted.labels.as_ref().filter(|labels| **labels != there.labels) {
            changes.push(from_to("labels", &pairs(&there.labels), &pairs(labels)));
            change.labels = Some(labels.clone());
        }
        if let Some(logins) = &wanted.logins {
            let mut set = Vec::new();
            let before = changes.len();
            for (login, account) in logins {
                let stored = there.logins.iter().find(|stored| stored.login == *login);
                let credential = match secret(name, login, account.credential)? {
                    Some(credential) => {
                        changes.push(format!("login {login}: {} from its file", account.credential.as_str()));
                        credential
                    }
                    None if stored.is_some_and(|stored| stored.credential == account.credential) => SetCredential::Keep,
                    None if account.credential == CredentialKind::Certificate => {
                        changes.push(format!("login {login}: certificate"));
                        SetCredential::Certificate
                    }
                    None => return Err(needs_file(name, login, account.credential)),
                };
                set.push(SetLogin { login: login.clone(), credential });
            }
            let gone = there.logins.iter().filter(|stored| !logins.contains_key(&stored.login));
            changes.extend(gone.map(|stored| format!("- login {}", stored.login)));
            change.logins = (changes.len() > before).then_some(set);
        }
        if let Some(keys) = &wanted.host_keys {
            let pinned: Vec<WantedHostKey> = there.host_keys.iter().map(WantedHostKey::from).collect();
            let missing = |from: &[WantedHostKey], all: &[WantedHostKey]| {
                from.iter().filter(|key| !all.contains(key)).cloned().collect::<Vec<_>>()
            };
            let (new, gone) = (missing(keys, &pinned), missing(&pinned, keys));
            if !new.is_empty() || !gone.is_empty() {
                changes.extend(gone.iter().map(|key| format!("- host key {}", key.key)));
                changes.extend(new.iter().map(|key| format!("+ host key {}", key.key)));
                change.host_keys = Some(keys.iter().map(PinHostKey::from).collect());
            }
        }
        if !changes.is_empty() {
            self.steps.push(Planned { step: Step::ChangeTarget(name.clone(), change), what: what.clone(), changes });
        }
        if wanted.disabled == Some(false) && there.disabled_at.is_some() {
            self.push(Step::EnableTarget(name.clone()), what, ENABLED);
        }
        Ok(())
    }

    fn add_target(&mut self, name: &TargetName, wanted: &WantedTarget, secret: Secret<'_>) -> Result<(), String> {
        let missing = |key: &str| format!("target `{name}` is new, and needs `{key}`");
        let address = wanted.address.clone().ok_or_else(|| missing("address"))?;
        let wanted_logins = wanted.logins.as_ref().filter(|all| !all.is_empty()).ok_or_else(|| missing("logins"))?;
        let host_keys = wanted.host_keys.as_ref().filter(|all| !all.is_empty()).ok_or_else(|| missing("host_keys"))?;
        let mut changes = vec![format!("address: {address}")];
        let mut logins = Vec::new();
        for (login, account) in wanted_logins {
            let credential = match secret(name, login, account.credential)? {
                Some(credential) => credential,
                None if account.credential == CredentialKind::Certificate => SetCredential::Certificate,
                None => return Err(needs_file(name, login, account.credential)),
            };
            changes.push(format!("login {login}: {}", account.credential.as_str()));
            logins.push(SetLogin { login: login.clone(), credential });
        }
        let (aliases, labels) = (wanted.aliases.clone().unwrap_or_default(), wanted.labels.clone().unwrap_or_default());
        let jump = wanted.jump.clone().and_then(|jump| jump.0);
        changes.extend(jump.iter().map(|jump| format!("jump: {jump}")));
        if !aliases.is_empty() {
            changes.push(format!("aliases: {}", join(&aliases)));
        }
        if !labels.is_empty() {
            changes.push(format!("labels: {}", pairs(&labels)));
        }
        changes.extend(host_keys.iter().map(|key| format!("+ host key {}", key.key)));
        let host_keys = host_keys.iter().map(PinHostKey::from).collect();
        let add = AddTarget { name: name.clone(), aliases, address, jump, logins, labels, host_keys };
        self.steps.push(Planned { step: Step::AddTarget(add), what: format!("+ target {name}"), changes });
        if wanted.disabled == Some(true) {
            self.push(Step::DisableTarget(name.clone()), format!("~ target {name}"), DISABLED);
        }
        Ok(())
    }
}

const DISABLED: &str = "disabled: live sessions are cut";
const ENABLED: &str = "enabled";

/// The targets' names so that each comes after the one that it is reached through, and what only gives names up before what takes them.
fn in_order<'a>(
    wanted: &'a BTreeMap<TargetName, WantedTarget>,
    there: &[Target],
) -> Result<Vec<&'a TargetName>, String> {
    let mut order: Vec<&TargetName> = Vec::with_capacity(wanted.len());
    let mut left: Vec<(&TargetName, &WantedTarget)> = wanted.iter().collect();
    let gives_up = |(name, target): &(&TargetName, &WantedTarget)| {
        let before = there.iter().find(|there| there.name == **name).map_or(&[][..], |there| &there.aliases[..]);
        target.aliases.as_ref().is_some_and(|after| before.iter().any(|alias| !after.contains(alias)))
    };
    left.sort_by_key(|entry| !gives_up(entry)); // stable: else by name
    while !left.is_empty() {
        let before = order.len();
        left.retain(|(name, target)| {
            let jump = target.jump.as_ref().and_then(|jump| jump.0.as_ref());
            // What the file does not name is there already, or the bastion says that it is not.
            let is_ready = jump.is_none_or(|jump| order.contains(&jump) || !wanted.contains_key(jump));
            if is_ready {
                order.push(*name);
            }
            !is_ready
        });
        if order.len() == before {
            let names: Vec<String> = left.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(format!("the targets {} are reached through each other in a circle", names.join(", ")));
        }
    }
    Ok(order)
}

fn needs_file(target: &TargetName, login: &Login, kind: CredentialKind) -> String {
    let kind = kind.as_str();
    format!("login `{login}` of target `{target}`: no {kind} is stored for it; name its file with `file`")
}

fn is_new(key: &PersonKey, there: &Person) -> bool {
    let fingerprint = key.fingerprint();
    !there.keys.iter().any(|known| known.fingerprint == fingerprint)
}

fn added(key: &PersonKey) -> String {
    format!("+ key {} {}", key.fingerprint(), key.0.comment()).trim_end().to_owned()
}

pub(super) fn from_to(key: &str, before: &str, after: &str) -> String {
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    format!("{key}: {} → {}", shown(before), shown(after))
}

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

fn join<'a>(names: impl IntoIterator<Item = &'a TargetName>) -> String {
    names.into_iter().map(TargetName::as_str).collect::<Vec<_>>().join(", ")
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
