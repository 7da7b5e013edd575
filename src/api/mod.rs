//! The HTTP door: `/api/v1` over a Unix socket that knows its peer's uid, and over TCP with bearer tokens.
//!
//! A handler reads the request, calls one use case, shapes the answer. Who may do what is said by the [`access::May`]
//! argument of each handler and checked, operation by operation, against one table in the tests. What the API takes
//! and gives are types of its own (in the file of their resource), so that the domain may change without breaking a
//! script; the OpenAPI document is built from them and kept as `docs/openapi.json`.
//!
//! It knows neither SSH nor SQL: what has to be asked of a target (its host keys) is a function in [`ApiState`].

pub mod access;
mod assets;
mod compress;
pub mod error;
mod etags;
mod extract;
mod from_app;
mod idempotency;
pub mod listener;
pub mod page;
mod router;
mod schemas;

pub mod audit;
pub mod bastion;
pub mod break_glass;
pub mod commands;
pub mod evidence;
pub mod feed;
pub mod files;
pub mod grants;
pub mod health;
pub mod invites;
pub mod keys;
pub mod ledger;
pub mod live;
pub mod nodes;
pub mod oidc;
pub mod outbox;
pub mod passkeys;
pub mod people;
pub mod probes;
pub mod recordings;
pub mod replay;
pub mod requests;
pub mod retention;
pub mod reviews;
pub mod rotations;
pub mod search;
pub mod second_factors;
pub mod sessions;
pub mod sign_in;
pub mod targets;
pub mod templates;
pub mod terms;
pub mod tls;
pub mod tokens;
pub mod watch;

#[cfg(test)]
mod repeat_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod web_tests;

use std::sync::Arc;

use futures::future::BoxFuture;
use sallyport_domain::event::Actor;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::target::{Address, HostKey};
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::app::break_glass::BreakGlass;
use crate::app::credential_rotation::RotationError;
use crate::app::feed::Feed;
use crate::app::health::Health;
use crate::app::keys::TargetKeys;
use crate::app::sign_in::SignIns;

pub use listener::{ApiSettings, BindError, Bound, Listeners};
pub use probes::MetricsSettings;
pub use router::openapi;

/// Asks the host at an address for its host keys. Filled in by whoever wires the floors: this one knows no SSH.
pub type Scan = Arc<dyn Fn(Address) -> BoxFuture<'static, Result<Vec<HostKey>, ScanError>> + Send + Sync>;

/// Why a host did not show its keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// No connection, or it broke; `message` is the cause, fit to be shown to an admin.
    #[error("cannot reach {address}: {message}")]
    Unreachable { address: Address, message: String },
    /// Something answered, but not as an SSH server that we can talk to.
    #[error("{address} does not speak SSH as we do: {message}")]
    NotSsh { address: Address, message: String },
}

/// Replaces the key of an account on a target: by whom, which target, which account, where its keys are. Gives the new key's
/// fingerprint. Filled in like [`Scan`].
pub type Rotate =
    Arc<dyn Fn(Actor, TargetName, Login, String) -> BoxFuture<'static, Result<String, RotateFailure>> + Send + Sync>;

/// Why a key was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum RotateFailure {
    /// Nothing was begun.
    #[error(transparent)]
    Books(#[from] RotationError),
    /// A step failed at the target; what it says is fit to be shown to an admin.
    #[error("{0}")]
    Step(String),
}

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub app: App,
    pub scan: Scan,
    pub rotate: Rotate,
    pub bastion: Arc<bastion::Identity>,
    pub sign_ins: SignIns,
    /// What targets show through the bastion.
    pub target_keys: Arc<TargetKeys>,
    /// Those who follow sessions, or what changes: each ends with its connection.
    pub watches: TaskTracker,
    pub feed: Feed,
    /// Whether new logins are of use.
    pub health: Health,
    pub break_glass: BreakGlass,
}
