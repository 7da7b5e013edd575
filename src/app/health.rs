//! Whether the database answers, and whether the policy in it has changed by another node's hand: PostgreSQL tells at
//! once, and one look a second finds what was not heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::store::db;

/// How often the policy's version is read. A revocation on one node is acted on by every other within this.
const SWEEP: Duration = Duration::from_secs(1);

/// A connection to listen on that could not be had is asked for again after this; the sweep finds changes meanwhile.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Whether new logins are of use: the database answers, and this process does not end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    database: watch::Sender<bool>,
    draining: AtomicBool,
}

impl Health {
    /// Assumes that the database answers; [`Health::sweep`] finds out.
    pub fn new() -> Self {
        Self(Arc::new(State { database: watch::Sender::new(true), draining: AtomicBool::new(false) }))
    }

    /// Whether the database answered when it was last asked.
    pub fn is_database_up(&self) -> bool {
        *self.0.database.borrow()
    }

    /// From now on load balancers are told to send nobody here.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether this process is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether load balancers may send people here.
    pub fn is_ready(&self) -> bool {
        self.is_database_up() && !self.is_draining()
    }

    /// Asks the database now, unless it is known to be away: for whoever is about to be told that it is, or not.
    pub async fn ask(&self, app: &App) -> bool {
        if !self.is_database_up() {
            return false;
        }
        let answers = matches!(tokio::time::timeout(SWEEP, look(app)).await, Ok(Ok(_)));
        if !answers {
            // The next sweep tells the sessions.
            warn!("The database does not answer somebody who logs in.");
        }
        answers
    }

    /// Looks once a second until `stop`. Wakes live sessions when the policy's version has changed, and when the database
    /// is back.
    pub async fn sweep(&self, app: App, stop: CancellationToken) {
        let mut seen = None;
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            match look(&app).await {
                Ok(version) => {
                    if !self.is_database_up() {
                        info!("The database answers again.");
                        seen = None;
                    }
                    if seen != Some(version) {
                        app.changes.notify();
                    }
                    seen = Some(version);
                    self.0.database.send_replace(true);
                }
                Err(error) => {
                    if self.is_database_up() {
                        warn!(%error, "The database does not answer; nobody new is let in until it does.");
                        app.changes.notify();
                    }
                    self.0.database.send_replace(false);
                }
            }
        }
    }
}

/// Wakes live sessions as soon as another node has committed a change, until `stop`. What is missed while the connection
/// is away is [`Health::sweep`]'s.
pub async fn listen(app: App, stop: CancellationToken) {
    let listening = async {
        loop {
            let error = match db::policy_version::Listener::start(&app.db).await {
                Ok(mut listener) => loop {
                    match listener.told().await {
                        Ok(()) => app.changes.notify(),
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            debug!(%error, "Changes by other nodes are not heard of; the sweep finds them.");
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    };
    tokio::select! {
        never = listening => never,
        () = stop.cancelled() => {}
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

async fn look(app: &App) -> Result<i64, db::DbError> {
    let mut tx = app.db.read().await?;
    db::policy_version::read(&mut tx).await
}
