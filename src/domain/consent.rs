//! Consent: what others have said of one session, and who follows it live: the facts by which [`crate::policy`] judges a grant that
//! takes somebody's approval of each session, or a watcher.
//!
//! Whoever the grant names gives no consent under it, whatever their roles.

use chrono::{DateTime, TimeDelta, Utc};

use crate::grant::Grant;
use crate::id::{GrantId, SessionId};
use crate::principal::{Principal, Role};

/// For so long after the yes the session that it is for may start; it waits for the yes, so it does at once.
pub const APPROVAL_HOLDS: TimeDelta = TimeDelta::seconds(60);

/// What is known of others' consent to one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The session that is asked about. What was said of another one does not count.
    pub session: SessionId,
    pub stage: Stage,
    pub approval: Option<Approved>,
    pub watchers: Vec<Watching>,
}

/// Where the session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is to start.
    Asked,
    /// It goes on.
    Live {
        /// The last instant at which it was known to be watched.
        last_watched: DateTime<Utc>,
        /// How long it stands still without a watcher before it is over.
        patience: TimeDelta,
    },
}

/// Somebody's yes to one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    pub session: SessionId,
    pub grant: GrantId,
    /// The first instant at which no session can start by it any more.
    pub until: DateTime<Utc>,
    pub by: Hand,
}

/// Somebody follows one session live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    pub session: SessionId,
    /// The first instant at which they do not count any more, unless they show once more that they read.
    pub until: DateTime<Utc>,
    pub by: Hand,
}

/// Who approved or watches, as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hand {
    /// The operator on the bastion's own host.
    Operator,
    Person(Principal),
}

impl Hand {
    fn counts(&self, role: Role, grant: &Grant, now: DateTime<Utc>) -> bool {
        match self {
            Hand::Operator => true,
            Hand::Person(person) => {
                person.has_role(role)
                    && person.disabled_at.is_none_or(|at| at > now)
                    && !grant.people.contains(&person.id)
            }
        }
    }
}

impl Consent {
    /// Whether somebody who may has said yes to this session under `grant`. Once it has started, its yes is used and stays good.
    pub fn is_approved(&self, grant: &Grant, now: DateTime<Utc>) -> bool {
        let Some(approval) = &self.approval else {
            return false;
        };
        let is_meant = approval.session == self.session && approval.grant == grant.id;
        is_meant
            && match self.stage {
                Stage::Asked => now < approval.until && approval.by.counts(Role::Admin, grant, now),
                Stage::Live { .. } => true,
            }
    }

    /// Until when a reviewer who counts under `grant` is known to watch; `None` if none does at `now`.
    pub fn watched_until(&self, grant: &Grant, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let counts = |watching: &&Watching| {
            watching.session == self.session && now < watching.until && watching.by.counts(Role::Reviewer, grant, now)
        };
        self.watchers.iter().filter(counts).map(|watching| watching.until).max()
    }
}
