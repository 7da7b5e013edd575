//! Requests: an engineer asks for access, or for more time, and an admin answers; or a session that takes somebody's consent
//! besides its grant waits for it.
//!
//! ```text
//! Open ──► Approved      by an admin, as asked or changed, or by a watcher who came; never the one who asked
//!   ├────► Denied        by an admin, with a reason
//!   ├────► Withdrawn     by the one who asked
//!   └────► Expired       nobody answered before `expires_at`
//! ```
//!
//! What leaves `Open` never changes again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::grant::{Approval, Capabilities, TargetSelector};
use crate::id::{GrantId, PrincipalId, RequestId, SessionId};
use crate::name::{Login, TargetName};

/// Somebody's wish for access, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: RequestId,
    /// Who asked.
    pub person: PrincipalId,
    pub wish: Wish,
    pub reason: String,
    pub ticket: Option<String>,
    pub created_at: DateTime<Utc>,
    /// The first instant at which an open request can no longer be answered.
    pub expires_at: DateTime<Utc>,
    pub state: RequestState,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// A grant for the one who asks, from the moment of the yes.
    Access {
        /// At least one.
        targets: Vec<TargetSelector>,
        /// Empty means the only account there is; the answer says which.
        logins: Vec<Login>,
        capabilities: Capabilities,
        /// In whole seconds.
        #[serde(with = "seconds")]
        lasting: Duration,
    },
    /// A grant that the one who asks has already is to end so much later.
    MoreTime {
        grant: GrantId,
        /// In whole seconds.
        #[serde(with = "seconds")]
        lasting: Duration,
    },
    /// One session is to start; its grant takes `approval` of each. The bastion asks this for whoever logs in.
    Session {
        /// The session's id, should it start.
        session: SessionId,
        grant: GrantId,
        /// As it is called now.
        target: TargetName,
        login: Login,
        approval: Approval,
    },
}

impl Wish {
    /// How long, or how much longer; nothing where it is not about time.
    pub fn lasting(&self) -> Duration {
        match self {
            Wish::Access { lasting, .. } | Wish::MoreTime { lasting, .. } => *lasting,
            Wish::Session { .. } => Duration::ZERO,
        }
    }

    /// The session that waits for its start, where that is what is asked for.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Wish::Session { session, .. } => Some(*session),
            Wish::Access { .. } | Wish::MoreTime { .. } => None,
        }
    }
}

/// What has become of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RequestState {
    Open,
    /// `grant` is the new one, the one that was extended, or the one that the session starts under. `changed` if it is not what was asked for.
    Approved {
        grant: GrantId,
        changed: bool,
        at: DateTime<Utc>,
        /// `None` for the operator on the bastion's own host.
        by: Option<PrincipalId>,
    },
    Denied {
        reason: String,
        at: DateTime<Utc>,
        by: Option<PrincipalId>,
    },
    Withdrawn {
        at: DateTime<Utc>,
    },
    Expired {
        at: DateTime<Utc>,
    },
}

impl RequestState {
    /// Every state's word, in the order in which they are listed to people.
    pub const WORDS: [&'static str; 5] = ["open", "approved", "denied", "withdrawn", "expired"];

    /// The word used in the API, the database and the command line.
    pub const fn as_str(&self) -> &'static str {
        match self {
            RequestState::Open => "open",
            RequestState::Approved { .. } => "approved",
            RequestState::Denied { .. } => "denied",
            RequestState::Withdrawn { .. } => "withdrawn",
            RequestState::Expired { .. } => "expired",
        }
    }
}

impl Request {
    /// What has become of it by `now`: an open request whose time is over has expired, whether or not anybody has written
    /// that down yet.
    pub fn state_at(&self, now: DateTime<Utc>) -> RequestState {
        match &self.state {
            RequestState::Open if self.expires_at <= now => RequestState::Expired { at: self.expires_at },
            state => state.clone(),
        }
    }
}

/// Durations as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn request(state: RequestState) -> Request {
        Request {
            id: RequestId::from_uuid(Uuid::from_u128(1)),
            person: PrincipalId::from_uuid(Uuid::from_u128(2)),
            wish: Wish::Access {
                targets: vec!["web-*".parse().unwrap()],
                logins: vec![],
                capabilities: Capabilities { shell: true, ..Capabilities::default() },
                lasting: Duration::from_hours(2),
            },
            reason: "INC-7".to_owned(),
            ticket: None,
            created_at: at(0),
            expires_at: at(100),
            state,
        }
    }

    #[test]
    fn an_open_request_expires_at_its_deadline_and_an_answered_one_never() {
        assert_eq!(request(RequestState::Open).state_at(at(99)), RequestState::Open);
        assert_eq!(request(RequestState::Open).state_at(at(100)), RequestState::Expired { at: at(100) });
        let denied = RequestState::Denied { reason: "no".to_owned(), at: at(50), by: None };
        assert_eq!(request(denied.clone()).state_at(at(500)), denied);
    }

    #[test]
    fn a_request_reads_back_from_its_json() {
        for state in [RequestState::Open, RequestState::Withdrawn { at: at(5) }] {
            let request = request(state);
            let json = serde_json::to_string(&request).unwrap();
            assert!(json.contains(r#""lasting":7200"#), "{json}");
            assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
        }
    }
}
