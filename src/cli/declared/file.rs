//! `access.yaml`: people, targets and templates as they are to be. The format is strict: an unknown, repeated or misspelt key is an error with
//! its line. What an entry leaves out stays as it is; an empty list empties. Only a template's entry is the whole
//! of it: terms that are half the file's and half somebody else's would be nobody's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sallyport_domain::name::{Login, PrincipalName, TargetName, TemplateName};
use sallyport_domain::principal::Role;
use sallyport_domain::ssh_key::{SshPublicKey, SshPublicKeyError};
use sallyport_domain::target::{Address, CredentialKind, HostKeyTrust};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api::people::Person;
use crate::api::targets::{HostKey, PinHostKey, Target};
use crate::api::templates::Template;
use crate::api::terms::GrantTerms;

/// The one version of the format.
const VERSION: u32 = 1;
/// The longest file that is read. A target takes some 500 bytes, so that is for tens of thousands.
pub(crate) const MOST_BYTES: u64 = 16 << 20;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Access {
    #[serde(deserialize_with = "version")]
    pub(crate) version: u32,
    #[serde(default)]
    pub(crate) people: BTreeMap<PrincipalName, WantedPerson>,
    #[serde(default)]
    pub(crate) targets: BTreeMap<TargetName, WantedTarget>,
    /// Nothing is said of templates where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) templates: Option<BTreeMap<TemplateName, WantedTemplate>>,
}

/// A template as it is to be, the whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WantedTemplate {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
    /// In the API's words.
    pub(crate) terms: GrantTerms,
    /// How long a grant lasts that says nothing else: `4h`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(crate) lasting: Option<Lasting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// A length of time in whole seconds, written as people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lasting(pub(crate) u32);

/// A person as they are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WantedPerson {
    /// Empty takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) organisation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<Role>>,
    /// As in `authorized_keys`, one line each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<Vec<PersonKey>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disabled: Option<bool>,
}

/// A target as it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WantedTarget {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aliases: Option<Vec<TargetName>>,
    /// The target through which this one is reached; empty for directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jump: Option<Jump>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logins: Option<BTreeMap<Login, WantedLogin>>,
    /// As in `known_hosts`, without the host: `ssh-ed25519 AAAA…`, or `@cert-authority ssh-ed25519 AAAA…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host_keys: Option<Vec<WantedHostKey>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disabled: Option<bool>,
}

/// An account on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedLogin {
    #[serde(with = "kind")]
    pub(crate) credential: CredentialKind,
    /// The private key's or the password's file. Left out, what is stored stays; given, it is stored anew each time, for what is
    /// stored is never told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
}

/// Through what a target is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jump(pub(crate) Option<TargetName>);

/// A public key of a person: equal if the key is, whatever its comment.
#[derive(Debug, Clone)]
pub(crate) struct PersonKey(pub(crate) SshPublicKey);

impl PersonKey {
    pub(crate) fn fingerprint(&self) -> String {
        self.0.fingerprint().to_string()
    }

    /// Algorithm, base64 and comment.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.0.to_line(), self.0.comment()).trim_end().to_owned()
    }
}

impl PartialEq for PersonKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Eq for PersonKey {}

/// A key that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedHostKey {
    pub(crate) trust: HostKeyTrust,
    pub(crate) key: String,
}

const AUTHORITY: &str = "@cert-authority ";

impl From<&HostKey> for WantedHostKey {
    fn from(key: &HostKey) -> Self {
        Self { trust: key.trust, key: key.public_key.clone() }
    }
}

impl From<&WantedHostKey> for PinHostKey {
    fn from(key: &WantedHostKey) -> Self {
        Self { trust: key.trust, public_key: key.key.clone() }
    }
}

impl Serialize for WantedHostKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let marker = match self.trust {
            HostKeyTrust::Host => "",
            HostKeyTrust::Authority => AUTHORITY,
        };
        serializer.collect_str(&format_args!("{marker}{}", self.key))
    }
}

impl<'de> Deserialize<'de> for WantedHostKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (trust, line) = match text.strip_prefix(AUTHORITY) {
            Some(line) => (HostKeyTrust::Authority, line),
            None => (HostKeyTrust::Host, text.as_str()),
        };
        let key: SshPublicKey = line.parse().map_err(unusable)?;
        Ok(Self { trust, key: key.to_line() })
    }
}

impl Serialize for PersonKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.line())
    }
}

impl<'de> Deserialize<'de> for PersonKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(unusable)
    }
}

fn unusable<E: serde::de::Error>(error: SshPublicKeyError) -> E {
    E::custom(format!("this is not a public key: {error}"))
}

impl Serialize for Lasting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(Duration::from_secs(self.0.into())))
    }
}

impl<'de> Deserialize<'de> for Lasting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let lasting = humantime::parse_duration(&text).ok();
        let seconds = lasting.and_then(|lasting| u32::try_from(lasting.as_secs()).ok()).filter(|seconds| *seconds > 0);
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom("this is not a length of time: write `4h` or `90m`"))
    }
}

impl Serialize for Jump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_ref().map_or("", TargetName::as_str))
    }
}

impl<'de> Deserialize<'de> for Jump {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|name| Self(Some(name))).map_err(serde::de::Error::custom)
    }
}

/// A kind of credential by the word that the API uses for it.
mod kind {
    use super::{CredentialKind, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(kind: &CredentialKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CredentialKind, D::Error> {
        let text = String::deserialize(deserializer)?;
        let all = [CredentialKind::Certificate, CredentialKind::Key, CredentialKind::Password];
        let found = all.into_iter().find(|kind| kind.as_str() == text);
        // What stands there is not repeated: it may be the password.
        found.ok_or_else(|| serde::de::Error::custom("a credential is `certificate`, `key` or `password`"))
    }
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        VERSION => Ok(VERSION),
        other => Err(serde::de::Error::custom(format!("version {other} of this format is not known, only {VERSION}"))),
    }
}

/// Reads a file's text; the error names the line.
pub(crate) fn parse(text: &str) -> Result<Access, String> {
    // Nothing of what YAML can do beyond plain data is needed: no aliases, no merging, no tags that mean something.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 0, max_anchors: 0, max_documents: 1 },
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or(String::new(), |at| format!("line {}: ", at.line()));
        let message = error.without_snippet().to_string();
        // The parser's own words for the place come behind.
        let message = message.split(" at line ").next().unwrap_or(&message).trim_end_matches(':');
        format!("{place}{message}")
    })
}

/// What there is, as a file.
pub(crate) fn export(people: &[Person], targets: &[Target], templates: &[Template]) -> Result<String, anyhow::Error> {
    let template = |template: &Template| {
        let Template { name, note, terms, lasting_seconds, reason, created_at: _, changed_at: _ } = template.clone();
        (name, WantedTemplate { note, terms, lasting: lasting_seconds.map(Lasting), reason })
    };
    let templates = (!templates.is_empty()).then(|| templates.iter().map(template).collect());
    let mut access = Access { version: VERSION, people: BTreeMap::new(), targets: BTreeMap::new(), templates };
    for person in people {
        let keys = person.keys.iter().map(|key| format!("{} {}", key.public_key, key.comment).parse().map(PersonKey));
        let wanted = WantedPerson {
            organisation: person.organisation.clone(),
            roles: Some(person.roles.clone()),
            keys: Some(keys.collect::<Result<_, _>>()?),
            disabled: person.disabled_at.is_some().then_some(true),
        };
        access.people.insert(person.name.clone(), wanted);
    }
    for target in targets {
        let login = |account: &crate::api::targets::TargetLogin| {
            (account.login.clone(), WantedLogin { credential: account.credential, file: None })
        };
        let wanted = WantedTarget {
            address: Some(target.address.clone()),
            aliases: (!target.aliases.is_empty()).then(|| target.aliases.clone()),
            jump: target.jump.clone().map(|jump| Jump(Some(jump))),
            labels: (!target.labels.is_empty()).then(|| target.labels.clone()),
            logins: Some(target.logins.iter().map(login).collect()),
            host_keys: Some(target.host_keys.iter().map(WantedHostKey::from).collect()),
            disabled: target.disabled_at.is_some().then_some(true),
        };
        access.targets.insert(target.name.clone(), wanted);
    }
    let text = serde_saphyr::to_string(&access)?;
    Ok(format!(
        "# People, targets and templates of a Sallyport bastion; `sallyport apply -f FILE --dry-run` compares.\n{text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";

    #[test]
    fn a_file_says_what_is_to_be_and_leaves_out_what_is_to_stay() {
        let text = format!(
            "version: 1\npeople:\n  alice:\n    roles: [engineer, reviewer]\n    keys:\n      - {KEY} alice@desk\n  bob: {{}}\n\
             targets:\n  web-1:\n    address: 10.0.0.1\n    jump: ''\n    logins:\n      root: {{credential: certificate}}\n\
             \x20   host_keys: ['@cert-authority {KEY}']\n"
        );

        let access = parse(&text).unwrap();

        assert_eq!(access.people[&"bob".parse().unwrap()], WantedPerson::default());
        let alice = &access.people[&"alice".parse().unwrap()];
        assert_eq!(alice.roles, Some(vec![Role::Engineer, Role::Reviewer]));
        assert_eq!(alice.keys.as_ref().unwrap()[0].line(), format!("{KEY} alice@desk"));
        let web = &access.targets[&"web-1".parse().unwrap()];
        assert_eq!((web.address.as_ref().unwrap().port(), web.jump.clone()), (22, Some(Jump(None))));
        assert_eq!(web.host_keys.as_ref().unwrap()[0].trust, HostKeyTrust::Authority);
        assert_eq!(web.labels, None);
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_never_with_a_secret() {
        for (text, line, word) in [
            ("version: 1\npeople:\n  alice:\n    rolls: [engineer]\n", 4, "rolls"),
            ("version: 1\npersons: {}\n", 2, "persons"),
            ("version: 2\n", 1, "version 2"),
            ("version: 1\npeople:\n  Alice: {}\n", 3, "lower-case"),
            ("version: 1\npeople:\n  alice: {}\n  alice: {}\n", 4, "duplicate"),
            ("version: 1\npeople:\n  alice:\n    roles:\n      - king\n", 5, "king"),
            ("version: 1\npeople:\n  alice:\n    keys:\n      - nonsense\n", 5, "public key"),
            ("version: 1\ntargets:\n  a:\n    logins:\n      root: {credential: hunter2}\n", 5, "certificate"),
            ("version: 1\ntargets:\n  a: &x\n    address: h\n  b: *x\n", 0, "budget"),
            ("version: 1\npeople: [\n", 0, ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(line == 0 || error.starts_with(&format!("line {line}: ")), "{text}: {error}");
            assert!(error.to_lowercase().contains(word) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_file_or_an_error(text in "(version: 1\n|people:\n|  alice:\n|    keys: \\[|&a|\\*a|[ \\-{}:\\[\\]!|>'\"#\n]|\\PC){0,60}") {
            if let Ok(access) = parse(&text) {
                let again = parse(&serde_saphyr::to_string(&access).unwrap()).unwrap();
                proptest::prop_assert_eq!(again, access);
            }
        }
    }
}
