//! The user name of an SSH login at the bastion: who comes, and where to.
//!
//! ```text
//! alice                 alice; the target is the one she may reach, if it is one
//! alice+web-1           alice to web-1; the login is the one she was granted there, if it is one
//! alice+root@web-1      alice to web-1 as root
//! ```
//!
//! `+` and `@` need no quoting in scp, sftp, rsync, PuTTY, WinSCP, Ansible and ssh_config. OpenSSH splits
//! `user@host` at the last `@`, so `ssh alice+root@web-1@bastion` arrives here as `alice+root@web-1`.

use std::fmt;
use std::str::FromStr;

use crate::name::{Login, NameError, PrincipalName, TargetName};

/// A parsed user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginName {
    pub principal: PrincipalName,
    pub destination: Destination,
}

/// Where a login wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Not said.
    Unsaid,
    /// To a target; the login is not said.
    Target(TargetName),
    /// To a target as a login.
    Account { login: Login, target: TargetName },
}

/// Why a user name cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginNameError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("`{0}` names a target without `+` before it: write `person+login@target`")]
    NoPlus(String),
}

impl FromStr for LoginName {
    type Err = LoginNameError;

    fn from_str(text: &str) -> Result<Self, LoginNameError> {
        let (principal, rest) = match text.split_once('+') {
            Some((principal, rest)) => (principal, Some(rest)),
            None => (text, None),
        };
        if principal.contains('@') {
            return Err(LoginNameError::NoPlus(text.to_owned()));
        }
        let principal = principal.parse()?;
        let destination = match rest {
            None => Destination::Unsaid,
            Some(rest) => match rest.split_once('@') {
                None => Destination::Target(rest.to_ascii_lowercase().parse()?),
                Some((login, target)) => {
                    Destination::Account { login: login.parse()?, target: target.to_ascii_lowercase().parse()? }
                }
            },
        };
        Ok(Self { principal, destination })
    }
}

impl fmt::Display for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            Destination::Unsaid => write!(f, "{}", self.principal),
            Destination::Target(target) => write!(f, "{}+{target}", self.principal),
            Destination::Account { login, target } => write!(f, "{}+{login}@{target}", self.principal),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_is_read() {
        for text in ["alice", "alice+web-1", "alice+root@web-1", "li.wei+svc$@10.0.0.9"] {
            assert_eq!(text.parse::<LoginName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn half_a_destination_is_refused() {
        for text in
            ["", "+web-1", "alice+", "alice+root@", "alice+@web-1", "root@web-1", "alice+a+b", "alice+a@b@c", "alice\n"]
        {
            assert!(text.parse::<LoginName>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_reads_back(text in "[a-z+@.0-9 ]{0,24}") {
            if let Ok(name) = text.parse::<LoginName>() {
                prop_assert_eq!(name.to_string().parse::<LoginName>(), Ok(name));
            }
        }
    }
}
