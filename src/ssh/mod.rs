//! The SSH door: engineers come in here, and nothing goes on to a target but through here.
//!
//! ```text
//! listener ──► handler (one a connection) ──► session (the decision, the watch, the cut)
//!                   └──► channel (one a channel) ──► proxy: record, then send on
//!                                                     └──► targets ──► dial (takes a Permit)
//! ```
//!
//! - [`listener`]: the accept loop and its limits.
//! - [`handler`]: RFC 4252 and 4254 as russh hands them over: authentication and channel requests.
//! - [`session`]: one permitted session, watched until its end.
//! - [`channel`], [`proxy`], [`input`]: one session channel, recorded in both directions.
//! - [`targets`], [`dial`]: connections to targets, each behind a permit.
//! - [`notice`]: what the bastion itself says on a terminal.
//! - [`sever`]: sockets that can be cut; [`algorithms`]: what both sides speak.
//!
//! Knows neither the API nor SQL.

mod algorithms;
mod channel;
mod dial;
mod handler;
mod input;
mod limits;
mod listener;
mod notice;
mod proxy;
mod session;
mod sever;
mod targets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::dial::scan;
use self::limits::Limits;
use crate::app::App;
use crate::app::health::Health;
use crate::app::recordings::Recordings;

/// How the SSH door is kept: `[ssh]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SshSettings {
    /// Address and port to listen on.
    pub listen: String,
    /// Files with public keys of authorities whose user certificates prove a person (the principal is the person's name).
    pub user_ca_files: Vec<PathBuf>,
    /// How long a connection may take to prove somebody.
    #[serde(with = "crate::store::duration")]
    pub login_grace: Duration,
    /// Connections that have proved nobody yet: in all, and from one address.
    pub max_unauthenticated: usize,
    pub max_unauthenticated_per_address: usize,
    /// Connections in all.
    pub max_connections: usize,
    /// Channels that one connection may have open.
    pub max_channels: usize,
    /// Rejected tries on one connection.
    pub max_auth_tries: usize,
    /// Connections from one address that proved nobody, within [`SshSettings::failure_window`]; further ones are closed.
    pub failures_per_address: usize,
    #[serde(with = "crate::store::duration")]
    pub failure_window: Duration,
    /// How often an idle client is asked for a sign of life, and how often in vain before it is given up.
    #[serde(with = "crate::store::duration")]
    pub keepalive: Duration,
    pub keepalive_max: usize,
    /// Environment variables that are passed on; a trailing `*` stands for any ending.
    pub accept_env: Vec<String>,
    /// How long live sessions go on while the database cannot be asked.
    #[serde(with = "crate::store::duration")]
    pub database_grace: Duration,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:2222".to_owned(),
            user_ca_files: Vec::new(),
            login_grace: Duration::from_secs(30),
            max_unauthenticated: 100,
            max_unauthenticated_per_address: 20,
            max_connections: 4096,
            max_channels: 64,
            max_auth_tries: 6,
            failures_per_address: 20,
            failure_window: Duration::from_secs(10 * 60),
            keepalive: Duration::from_secs(30),
            keepalive_max: 3,
            accept_env: ["LANG", "LC_*", "TERM", "COLORTERM"].map(str::to_owned).to_vec(),
            database_grace: Duration::from_secs(5 * 60),
        }
    }
}

/// Everything that the door's connections share.
pub struct Door {
    pub app: App,
    pub recordings: Recordings,
    pub settings: SshSettings,
    /// This node's name in the books.
    pub node: String,
    pub host_key: PrivateKey,
    pub user_ca: Arc<PrivateKey>,
    /// Authorities whose user certificates prove a person.
    pub trusted_cas: Vec<PublicKey>,
    pub health: Health,
    limits: Limits,
    /// Connections' tasks.
    connections: TaskTracker,
    /// No new connections, and live sessions are cut.
    closing: CancellationToken,
    /// What cannot be written to the database now is left to the next start.
    closed: CancellationToken,
}

/// What [`Door::new`] needs.
pub struct DoorParts {
    pub app: App,
    pub recordings: Recordings,
    pub settings: SshSettings,
    pub node: String,
    pub host_key: PrivateKey,
    pub user_ca: PrivateKey,
    pub trusted_cas: Vec<PublicKey>,
    pub health: Health,
}

impl Door {
    /// A door that is not open yet; see [`Door::serve`].
    pub fn new(parts: DoorParts) -> Arc<Self> {
        let DoorParts { app, recordings, settings, node, host_key, user_ca, trusted_cas, health } = parts;
        let limits = Limits::new(&settings);
        let user_ca = Arc::new(user_ca);
        let (connections, closing, closed) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        Arc::new(Self {
            app,
            recordings,
            settings,
            node,
            host_key,
            user_ca,
            trusted_cas,
            health,
            limits,
            connections,
            closing,
            closed,
        })
    }

    /// Takes connections from `listener` until [`Door::close`].
    pub async fn serve(self: &Arc<Self>, listener: tokio::net::TcpListener) {
        listener::serve(self.clone(), listener).await;
    }

    /// Takes no more connections, cuts live sessions, and waits for them, at most as long as `patience`.
    pub async fn close(&self, patience: Duration) {
        self.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(patience, self.connections.wait()).await.is_err() {
            self.closed.cancel();
            // What is left waits for the database only, and has just been told not to.
            let _ = tokio::time::timeout(patience, self.connections.wait()).await;
        }
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }
}
