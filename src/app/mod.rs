//! Use cases: what people and the doors ask for. Each takes [`App`], and an `Actor` where it changes something; one
//! transaction holds the change and the event that tells of it.
//!
//! Knows no russh, axum or clap. What could turn a yes into a no also raises the policy version in its transaction and,
//! once that is committed, tells the sessions of this process through [`Changes`]; other nodes find out at their sweep.

pub mod access;
pub mod audit;
pub mod authorities;
pub mod break_glass;
pub mod budgets;
pub mod catalogue;
pub mod clock;
pub mod clock_watch;
pub mod commands;
pub mod consents;
pub mod credential_rotation;
pub mod evidence;
pub mod feed;
pub mod files;
pub mod grants;
pub mod health;
pub mod idempotency;
pub mod invites;
pub mod key_ring;
pub mod keys;
pub mod known_hosts;
pub mod ledger;
pub mod logins;
pub mod metrics;
pub mod nodes;
pub mod outbox;
pub mod passwords;
pub mod people;
pub mod recordings;
pub mod replay;
pub mod requests;
pub mod retention;
pub mod reviews;
pub mod search;
pub mod second_factor;
pub mod sessions;
pub mod sign_in;
pub mod syslog;
pub mod targets;
pub mod templates;
pub mod text;
pub mod tokens;
pub mod transcript;
pub mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::app::clock::Clock;
use crate::app::consents::ConsentSettings;
use crate::app::metrics::Metrics;
use crate::app::requests::RequestSettings;
use crate::store::blob::Blobs;
use crate::store::db::Db;
use crate::store::seal::Keyring;

pub use crate::store::db::DbError;

/// Whether a thing is still what the caller of a change knows; asked in the change's own transaction, which has it held. `None` makes it
/// whatever it is.
pub type Still<'a, T> = Option<&'a (dyn Fn(&T) -> bool + Send + Sync)>;

/// Whether the caller of a change says that the thing is another by now.
pub(crate) fn is_changed<T>(still: Still<'_, T>, thing: &T) -> bool {
    still.is_some_and(|still| !still(thing))
}

/// What every use case needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub db: Db,
    pub blobs: Blobs,
    pub clock: Clock,
    pub master: Keyring,
    /// This process among all that there were, on whichever node.
    pub run: Uuid,
    pub changes: Changes,
    /// What is counted, for whoever watches the bastion.
    pub metrics: Metrics,
    pub requests: RequestSettings,
    /// The settings that decide what is recorded and what ends a session, by name, for manifests.
    pub(crate) in_force: Arc<BTreeMap<String, String>>,
    pub consent: ConsentSettings,
    /// Set while nothing may be signed, because the database is not what an anchor has seen.
    pub(crate) ledger_halted: Arc<AtomicBool>,
    /// Turns at hashing passwords: each takes 19 MiB and some 20 ms of a core, and strangers can ask for it.
    pub(crate) password_turns: Arc<Semaphore>,
}

impl App {
    /// Puts the parts together. The database must be migrated.
    pub fn new(db: Db, blobs: Blobs, clock: Clock, master: impl Into<Keyring>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let password_turns = Arc::new(Semaphore::new(cores.min(4)));
        let (requests, consent) = (RequestSettings::default(), ConsentSettings::default());
        let (run, in_force, ledger_halted) = (Uuid::now_v7(), Arc::default(), Arc::default());
        Self {
            db,
            blobs,
            clock,
            master: master.into(),
            run,
            changes: Changes::new(),
            metrics: Metrics::new(),
            requests,
            consent,
            in_force,
            ledger_halted,
            password_turns,
        }
    }

    /// The same with requests for access kept otherwise.
    #[must_use]
    pub fn with_requests(self, requests: RequestSettings) -> Self {
        Self { requests, ..self }
    }

    /// The same, saying in manifests that these settings were in force.
    #[must_use]
    pub fn with_settings(self, settings: BTreeMap<String, String>) -> Self {
        Self { in_force: Arc::new(settings), ..self }
    }

    /// The same, whose ledger is signed by nobody while `halted` is set.
    #[must_use]
    pub fn with_halt(self, halted: Arc<AtomicBool>) -> Self {
        Self { ledger_halted: halted, ..self }
    }

    /// The same with sessions that wait for others otherwise.
    #[must_use]
    pub fn with_consent(self, consent: ConsentSettings) -> Self {
        Self { consent, ..self }
    }
}

/// Wakes the sessions of this process when the policy may have changed. Whoever is woken looks at the state; the
/// message says nothing.
#[derive(Debug, Clone)]
pub struct Changes(Arc<watch::Sender<u64>>);

impl Changes {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Tells everybody. Call it after the commit.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A receiver whose `changed()` returns after each later [`Changes::notify`], many at once counting as one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
