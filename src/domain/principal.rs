//! Principals: who can be proved by a login, and what part they play.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::PrincipalId;
use crate::name::PrincipalName;

/// A person or a robot that logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub id: PrincipalId,
    pub name: PrincipalName,
    /// The organisation, for lists and search; the policy does not read it.
    pub organisation: Option<String>,
    /// At least one; see [`Role`].
    pub roles: Vec<Role>,
    pub created_at: DateTime<Utc>,
    /// Set when the person was disabled: no login, and live sessions are cut.
    pub disabled_at: Option<DateTime<Utc>>,
}

impl Principal {
    /// Whether the person plays this part.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// The part a person plays. Being able to `ssh` to a target takes a grant, not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reaches targets under grants.
    Engineer,
    /// Grants, targets and people; cannot delete or alter evidence.
    Admin,
    /// Recordings and verdicts, but not on their own grants.
    Reviewer,
    /// Reads everything, changes nothing.
    Auditor,
}

impl Role {
    /// Every role, in the order in which they are listed to people.
    pub const ALL: [Role; 4] = [Role::Engineer, Role::Admin, Role::Reviewer, Role::Auditor];

    /// The word used in the API, the database and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Engineer => "engineer",
            Role::Admin => "admin",
            Role::Reviewer => "reviewer",
            Role::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role (one of engineer, admin, reviewer, auditor)")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}
