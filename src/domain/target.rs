//! Targets: the hosts that are reached, their accounts, and how their identity is known.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::TargetId;
use crate::name::{Login, TargetName};

/// A host and port with its accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub id: TargetId,
    pub name: TargetName,
    /// Other names; no name or alias belongs to two targets.
    pub aliases: Vec<TargetName>,
    pub address: Address,
    /// The target through which this one is reached, if it cannot be dialled directly.
    pub jump: Option<TargetId>,
    /// The accounts, each with its kind of credential.
    pub logins: Vec<TargetLogin>,
    pub labels: BTreeMap<String, String>,
    /// How the host proves itself. Never empty: an engineer is never asked.
    pub host_keys: Vec<HostKey>,
    pub created_at: DateTime<Utc>,
    pub disabled_at: Option<DateTime<Utc>>,
}

impl Target {
    /// Whether somebody who asks for a connection to `host` and `port` means this target's SSH server: by its name or an
    /// alias (in any case, at port 22 or its real one), or by its address.
    pub fn answers_to(&self, host: &str, port: u16) -> bool {
        let by_name = self.names().any(|name| name.as_str().eq_ignore_ascii_case(host));
        let is_ours = port == self.address.port();
        (by_name && (is_ours || port == 22)) || (is_ours && self.address.host().eq_ignore_ascii_case(host))
    }

    /// Its name, then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &TargetName> {
        std::iter::once(&self.name).chain(&self.aliases)
    }

    /// Whether `name` is this target's name or one of its aliases.
    pub fn is_called(&self, name: &TargetName) -> bool {
        self.name == *name || self.aliases.contains(name)
    }

    /// The account `login`, if the target has it.
    pub fn login(&self, login: &Login) -> Option<&TargetLogin> {
        self.logins.iter().find(|known| known.login == *login)
    }
}

/// Where a target listens: a DNS name or an IP address, and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host without brackets, fit for a resolver.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("`{0}` has no host")]
    NoHost(String),
    #[error("`{0}` is not a port between 1 and 65535")]
    Port(String),
    #[error("`{0}` is not a host name or an IP address (write an IPv6 address as `[::1]:22`)")]
    Host(String),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; the port is 22 where it is left out.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(|| AddressError::Host(text.to_owned()))?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(AddressError::Host(host.to_owned()));
                }
                match tail.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if tail.is_empty() => (host, None),
                    None => return Err(AddressError::Host(text.to_owned())),
                }
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
                Some(_) => return Err(AddressError::Host(text.to_owned())),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        let host_alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if !host.chars().all(host_alphabet) || host.starts_with('-') || host.len() > 253 {
            return Err(AddressError::Host(host.to_owned()));
        }
        let port = match port {
            None => 22,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(AddressError::Port(port.to_owned())),
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An account on a target and what the bastion proves itself with there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetLogin {
    pub login: Login,
    pub credential: CredentialKind,
}

/// What the bastion proves itself with at a target. The secrets themselves are sealed and stay in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A certificate for one session alone, signed by the built-in user CA, valid for minutes.
    Certificate,
    /// A stored private key.
    Key,
    /// A stored password, sent as "password" or answered to a single "keyboard-interactive" prompt.
    Password,
}

impl CredentialKind {
    /// The word used in the API, the database and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialKind::Certificate => "certificate",
            CredentialKind::Key => "key",
            CredentialKind::Password => "password",
        }
    }
}

/// How a target proves that it is itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    pub trust: HostKeyTrust,
    /// A public key in OpenSSH's one-line form: algorithm and base64, no comment.
    pub public_key: String,
}

/// What a pinned key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeyTrust {
    /// The host's own key.
    Host,
    /// The key of a certificate authority that signs the host's key.
    Authority,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_port_and_brackets() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(read("db-1"), Ok("db-1:22".to_owned()));
        assert_eq!(read("10.0.0.9:2222"), Ok("10.0.0.9:2222".to_owned()));
        assert_eq!(read("[fe80::1]:22"), Ok("[fe80::1]:22".to_owned()));
        assert_eq!(read("fe80::1"), Ok("[fe80::1]:22".to_owned()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_part_that_is_wrong() {
        for text in ["", ":22", "db:0", "db:99999", "db:x", "a b", "[fe80::1", "-oProxyCommand=x", "x/y"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
        assert_eq!("db:99999".parse::<Address>(), Err(AddressError::Port("99999".to_owned())));
    }
}
