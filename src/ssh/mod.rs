//! The SSH door: engineers come in here, and nothing goes on to a target but through here.
//!
//! ```text
//! listener ──► handler (one a connection) ──► session (the decision, the watch, the cut)
//!                   └──► channel (one a channel) ──► proxy: record, then send on
//!                                                     └──► targets ──► dial (takes a Permit)
//! ```
//!
//! - [`listener`]: the accept loop and its limits; [`greeting`]: the first words, which decide on the ciphers.
//! - [`handler`]: RFC 4252 and 4254 as russh hands them over: authentication and channel requests.
//! - [`auth`]: who is proved, with one factor or two.
//! - [`jump`]: `ssh -J`, answered on the forwarded channel's own stream.
//! - [`front`]: a login without a target: the picker and the bastion's own commands.
//! - [`session`]: one permitted session, watched until its end.
//! - [`consent`]: a session that waits for somebody else's yes.
//! - [`freeze`]: a session that stands still.
//! - [`channel`], [`proxy`], [`input`]: one session channel, recorded in both directions.
//! - [`files`]: the grant's rules for files on a channel's bytes.
//! - [`targets`], [`dial`]: connections to targets, each behind a permit.
//! - [`outward`]: forwards that the bastion itself dials.
//! - [`notice`]: what the bastion itself says on a terminal.
//! - [`sever`]: sockets that can be cut; [`algorithms`]: what both sides speak.
//!
//! Knows neither the API nor SQL.

mod algorithms;
mod auth;
pub mod authorities;
mod channel;
mod consent;
mod dial;
mod files;
mod freeze;
mod front;
mod greeting;
mod handler;
mod input;
mod jump;
mod limits;
mod listener;
mod notice;
mod outward;
mod proxy;
mod refusals;
pub mod rotation;
mod session;
mod settings;
mod sever;
mod targets;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use russh::keys::{PrivateKey, PublicKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::dial::scan;
pub use self::front::Place;
use self::limits::Limits;
pub use self::settings::{Failures, SshSettings};
use crate::app::App;
pub use authorities::Authorities;

use crate::app::break_glass::{BreakGlass, Opened};
use crate::app::health::Health;
use crate::app::keys::TargetKeys;
use crate::app::recordings::Recordings;

/// What a [`Door`] is made of.
#[derive(Clone)]
pub struct DoorParts {
    pub app: App,
    pub recordings: Recordings,
    pub settings: SshSettings,
    /// This node's name in the books.
    pub node: String,
    pub host_key: PrivateKey,
    pub authorities: Authorities,
    /// The public half, in OpenSSH's one-line form.
    pub host_key_line: String,
    /// Where the door is for people outside.
    pub place: Place,
    pub target_keys: Arc<TargetKeys>,
    /// Authorities whose user certificates prove a person.
    pub trusted_cas: Vec<PublicKey>,
    pub health: Health,
    pub break_glass: BreakGlass,
}

/// Everything that the door's connections share.
pub struct Door {
    parts: DoorParts,
    /// This is the door behind an opened envelope.
    is_behind_glass: bool,
    limits: Limits,
    /// Connections' tasks.
    connections: TaskTracker,
    /// No new connections.
    shut: CancellationToken,
    /// Until when live sessions may go on, once the bastion is about to end.
    leaving: watch::Sender<Option<DateTime<Utc>>>,
    /// Live sessions are cut.
    closing: CancellationToken,
    /// What cannot be written to the database now is left to the next start.
    closed: CancellationToken,
}

impl Deref for Door {
    type Target = DoorParts;

    fn deref(&self) -> &DoorParts {
        &self.parts
    }
}

impl Door {
    /// A door that is not open yet; see [`Door::serve`].
    pub fn new(parts: DoorParts) -> Arc<Self> {
        let limits = Limits::new(&parts.settings);
        Arc::new(Self {
            parts,
            is_behind_glass: false,
            limits,
            connections: TaskTracker::new(),
            shut: CancellationToken::new(),
            leaving: watch::Sender::new(None),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        })
    }

    /// The same door with what stands behind an opened envelope in the place of the database, if one is open and the database is
    /// found to be away. Only keys prove somebody there.
    async fn behind_glass(&self) -> Option<Arc<Self>> {
        let Opened { app, recordings } = self.break_glass.opened().filter(|_| !self.is_behind_glass)?;
        if self.health.ask(&self.app).await {
            return None;
        }
        Some(Arc::new(Self {
            parts: DoorParts { app, recordings, trusted_cas: Vec::new(), ..self.parts.clone() },
            is_behind_glass: true,
            limits: self.limits.clone(),
            connections: self.connections.clone(),
            shut: self.shut.clone(),
            leaving: self.leaving.clone(),
            closing: self.closing.clone(),
            closed: self.closed.clone(),
        }))
    }

    /// Takes connections from `listener` until [`Door::drain`] or [`Door::close`].
    pub async fn serve(self: &Arc<Self>, listener: tokio::net::TcpListener) {
        let exchange = self.limits.exchange(&self.app, &self.closing);
        tokio::join!(listener::serve(self.clone(), listener), exchange);
    }

    /// Takes no more connections; tells live sessions that they may go on until `until`, and returns when there is none left.
    /// Ending those that are is [`Door::close`]'s.
    pub async fn drain(&self, until: DateTime<Utc>) {
        self.leaving.send_replace(Some(until));
        self.shut.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    /// Takes no more connections, cuts live sessions, and waits for them, at most as long as `patience`.
    pub async fn close(&self, patience: Duration) {
        self.shut.cancel();
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
