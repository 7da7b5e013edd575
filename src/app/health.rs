//! Whether the bastion can take somebody new: the database answers, the journals' disk takes bytes, nobody has asked it to
//! drain. And whether the policy in the database has changed by another node's hand: PostgreSQL tells at once, and one look
//! a second finds what was not heard.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::store::db;

/// How often the policy's version is read. A revocation on one node is acted on by every other within this.
const SWEEP: Duration = Duration::from_secs(1);

/// A connection to listen on that could not be had is asked for again after this; the sweep finds changes meanwhile.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// How often it is tried whether the journals' disk takes bytes.
const PROBE: Duration = Duration::from_secs(5);

/// As much is written to find out: more than fits into what a full file system may still have for small files.
const PROBE_BYTES: usize = 64 << 10;

/// How the bastion's parts do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    database: watch::Sender<bool>,
    draining: AtomicBool,
    journal: AtomicBool,
}

/// Why nobody new should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    #[error("draining")]
    Draining,
    #[error("the database does not answer")]
    Database,
    #[error("the journal's disk does not take anything")]
    Journal,
}

impl Health {
    /// Assumes that everything works; [`Health::sweep`] and [`Health::watch_journal`] find out.
    pub fn new() -> Self {
        let (database, draining, journal) = (watch::Sender::new(true), AtomicBool::new(false), AtomicBool::new(true));
        Self(Arc::new(State { database, draining, journal }))
    }

    /// Whether the database answered when it was last asked.
    pub fn is_database_up(&self) -> bool {
        *self.0.database.borrow()
    }

    /// Whether the journals' disk took bytes when it was last tried.
    pub fn is_journal_writable(&self) -> bool {
        self.0.journal.load(Ordering::Relaxed)
    }

    /// From now on load balancers are told to send nobody new; who comes all the same is let in as long as the door is open.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether this process is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether load balancers may send people here.
    pub fn is_ready(&self) -> bool {
        self.ready().is_ok()
    }

    /// Whether somebody new should be sent here, or why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            Err(NotReady::Draining)
        } else if !self.is_database_up() {
            Err(NotReady::Database)
        } else if !self.is_journal_writable() {
            Err(NotReady::Journal)
        } else {
            Ok(())
        }
    }

    /// Tries every few seconds, until `stop`, whether `journal_dir` takes bytes.
    pub async fn watch_journal(self, journal_dir: PathBuf, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PROBE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.look_at_journal(&journal_dir) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tries once. Returns when the disk has answered, however long that takes: each try that waits holds a thread.
    async fn look_at_journal(&self, journal_dir: &Path) {
        let dir = journal_dir.to_owned();
        let mut tried = tokio::task::spawn_blocking(move || probe(&dir));
        let outcome = match tokio::time::timeout(PROBE, &mut tried).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                warn!("The journal's disk does not answer.");
                // A disk that does not answer is as good as none.
                self.0.journal.store(false, Ordering::Relaxed);
                tried.await
            }
        };
        let outcome = outcome.map_err(std::io::Error::other).and_then(std::convert::identity);
        if let Err(error) = &outcome {
            warn!(%error, "The journal's disk does not take anything: new sessions would end at once.");
        }
        self.0.journal.store(outcome.is_ok(), Ordering::Relaxed);
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
            let asked = Instant::now();
            let looked = look(&app).await;
            app.metrics.database_seconds.observe(asked.elapsed().as_secs_f64());
            match looked {
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

/// Writes a little into a file without a name, which is gone when it is closed.
fn probe(dir: &Path) -> std::io::Result<()> {
    tempfile::tempfile_in(dir)?.write_all(&[0; PROBE_BYTES])
}

async fn look(app: &App) -> Result<i64, db::DbError> {
    let mut tx = app.db.read().await?;
    db::policy_version::read(&mut tx).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_drains_is_not_ready_whatever_else_works() {
        let health = Health::new();
        assert_eq!(health.ready(), Ok(()));
        health.clone().drain();
        assert_eq!(health.ready(), Err(NotReady::Draining));
    }

    #[tokio::test]
    async fn a_journal_folder_that_takes_nothing_makes_the_node_not_ready_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let health = Health::new();

        health.look_at_journal(&journal).await;
        assert_eq!(health.ready(), Err(NotReady::Journal));

        std::fs::create_dir(&journal).unwrap();
        health.look_at_journal(&journal).await;
        assert_eq!(health.ready(), Ok(()));
        assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0, "nothing is left behind");
    }
}
