//! The nodes: each process says in the books that it lives, and looks after those that no longer do.
//!
//! A process is told from others by its `run`, for a node has two while one hands over to the next. Whether one lives is known in
//! two ways: on its own machine by a lock that goes with the process ([`RunLock`]); from elsewhere by its beats, a number that
//! grows in the database. Who watches that goes by a clock of their own, and starts anew whenever the database was away: so no clock
//! has to agree with another, and a database that was away makes nobody dead.
//!
//! A node that is lost is not known to be dead: it may be cut off. So its sessions are closed in the books, and cut by itself as soon
//! as it reads that; what its journals have then completes the recordings (`recordings/recover.rs`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::app::App;
use crate::app::health::Health;
use crate::app::recordings::Recordings;
use crate::store::db::{DbError, nodes};

pub use crate::store::db::nodes::{NodeRecord, NodeState};

/// How often a process says that it lives, at least.
const BEAT: Duration = Duration::from_secs(1);

/// How long processes that are over are remembered.
const REMEMBERED: TimeDelta = TimeDelta::days(7);

/// Every process that is known, of every node.
pub async fn list(app: &App) -> Result<Vec<NodeRecord>, DbError> {
    nodes::list(&mut app.db.read().await?).await
}

/// Says that this process lives, by a file that is locked while it does.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    _file: File,
}

impl RunLock {
    /// Locks a file for `run` in `folder`, which is made if it is not there. It has its name only once it is locked.
    pub fn take(folder: &Path, run: Uuid) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (making, path) = (folder.join(format!(".{run}")), folder.join(run.to_string()));
        let file = File::create_new(&making)?;
        file.try_lock()?;
        fs::rename(&making, &path)?;
        Ok(Self { path, _file: file })
    }

    /// Whether another process of this machine lives.
    pub fn has_siblings(&self) -> bool {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        Self::alive(folder).is_ok_and(|alive| alive.len() > 1)
    }

    /// The runs of this machine that live, this one included. The files of dead ones are removed.
    pub fn alive(folder: &Path) -> io::Result<Vec<Uuid>> {
        let mut alive = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(run) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match File::open(entry.path()) {
                Ok(file) => match file.try_lock() {
                    Ok(()) => fs::remove_file(entry.path())?,
                    Err(fs::TryLockError::WouldBlock) => alive.push(run),
                    Err(fs::TryLockError::Error(error)) => return Err(error),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it ended just now
                Err(error) => return Err(error),
            }
        }
        Ok(alive)
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!(%error, "The file that says that this process lives could not be removed.");
        }
    }
}

/// This process among the nodes.
pub struct Nodes {
    app: App,
    recordings: Recordings,
    node: String,
    /// Where the processes of this machine have their locks.
    folder: PathBuf,
    dead_after: Duration,
    health: Health,
    /// How many beats were seen of each of the others, and since when there were no more.
    seen: HashMap<Uuid, (i64, Instant)>,
    /// The processes of this node that lived when it was last looked.
    siblings: Vec<Uuid>,
    looked: Instant,
}

impl Nodes {
    /// Registers this process. Others close what it has open once they have not heard of it for their `dead_after`.
    pub async fn register(
        app: App,
        recordings: Recordings,
        node: String,
        folder: PathBuf,
        dead_after: Duration,
        health: Health,
    ) -> Result<Self, DbError> {
        let now = app.clock.now();
        let mut tx = app.db.write().await?;
        nodes::forget(&mut tx, now - REMEMBERED).await?;
        nodes::register(&mut tx, app.run, &node, env!("CARGO_PKG_VERSION"), now).await?;
        tx.commit().await?;
        let (seen, siblings, looked) = (HashMap::new(), Vec::new(), Instant::now());
        Ok(Self { app, recordings, node, folder, dead_after, health, seen, siblings, looked })
    }

    /// Says that this process lives and looks after the others, until `stop`; then says that it has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(BEAT.min(self.dead_after / 4));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            let state = if self.health.is_draining() { NodeState::Draining } else { NodeState::Open };
            let turn = async {
                self.beat(state).await?;
                self.look().await
            };
            if let Err(error) = turn.await {
                // Nobody could beat meanwhile, or nobody could be seen to.
                self.seen.clear();
                if error.is_unreachable() {
                    debug!(%error, "This node cannot say that it lives: the database does not answer.");
                } else {
                    error!(%error, "The other nodes cannot be looked after.");
                }
            }
        }
        if let Err(error) = self.beat(NodeState::Ended).await {
            debug!(%error, "This node could not say that it has ended.");
        }
    }

    async fn beat(&self, state: NodeState) -> Result<(), DbError> {
        let (run, now) = (self.app.run, self.app.clock.now());
        let mut tx = self.app.db.write().await?;
        let before = nodes::state(&mut tx, run).await?;
        if before.is_none() {
            nodes::register(&mut tx, run, &self.node, env!("CARGO_PKG_VERSION"), now).await?;
        }
        nodes::beat(&mut tx, run, state, now).await?;
        tx.commit().await?;
        if before == Some(NodeState::Lost) {
            warn!(
                "Another node took this one for dead and closed its sessions in the books; those that live here are cut."
            );
            self.app.changes.notify();
        }
        Ok(())
    }

    /// Finds those that live no more, and closes what they left open.
    async fn look(&mut self) -> Result<(), DbError> {
        let all = nodes::list(&mut self.app.db.read().await?).await?;
        let now = Instant::now();
        if now.duration_since(std::mem::replace(&mut self.looked, now)) > self.dead_after / 2 {
            self.seen.clear(); // the database, or this process, was too slow to judge others
        }
        let is_over = |found: &NodeRecord| found.state == NodeState::Ended || found.closed_at.is_some();
        let (over, others): (Vec<_>, Vec<_>) =
            all.into_iter().filter(|found| found.run != self.app.run).partition(is_over);
        self.seen.retain(|run, _| others.iter().any(|found| found.run == *run));
        self.look_here(&others).await?;
        for found in others.iter().filter(|found| found.node != self.node) {
            let (beats, since) = self.seen.entry(found.run).or_insert((found.beats, now));
            if *beats != found.beats {
                (*beats, *since) = (found.beats, now);
            }
            // Whoever was at it already goes on, unless it is itself over or lost.
            let at_it = found.closed_by.is_some_and(|closer| {
                let lives = |other: &NodeRecord| other.run == closer && other.state != NodeState::Lost;
                closer == self.app.run || (others.iter().any(lives) && !over.iter().any(|other| other.run == closer))
            });
            if now.duration_since(*since) >= self.dead_after && !at_it {
                self.close_there(found).await?;
            }
        }
        Ok(())
    }

    /// Finds the processes of this node that live no more: their journals are here.
    async fn look_here(&mut self, others: &[NodeRecord]) -> Result<(), DbError> {
        let folder = self.folder.clone();
        let alive = tokio::task::spawn_blocking(move || RunLock::alive(&folder)).await;
        let alive = match alive.map_err(io::Error::other).and_then(std::convert::identity) {
            Ok(alive) => alive,
            Err(error) => {
                error!(%error, "It cannot be told which processes of this node live.");
                return Ok(());
            }
        };
        // One that has said that it ended may have left something, too: what a store that was away did not take.
        let mut has_died = self.siblings.iter().any(|run| !alive.contains(run));
        for found in others.iter().filter(|found| found.node == self.node && !alive.contains(&found.run)) {
            let mut tx = self.app.db.write().await?;
            has_died |= nodes::claim(&mut tx, found.run, found.beats, self.app.run).await?;
            nodes::note_closed(&mut tx, found.run, self.app.run, self.app.clock.now()).await?;
            tx.commit().await?;
        }
        if has_died {
            match self.recordings.find_left_behind(&self.node, &alive).await {
                Ok(left) => self.recordings.recover(left),
                Err(error) => error!(%error, "What a process of this node left behind is found at the next start."),
            }
        }
        self.siblings = alive;
        Ok(())
    }

    /// A process of another node has not been heard of for too long.
    async fn close_there(&self, found: &NodeRecord) -> Result<(), DbError> {
        let mut tx = self.app.db.write().await?;
        if !nodes::claim(&mut tx, found.run, found.beats, self.app.run).await? {
            return Ok(());
        }
        tx.commit().await?;
        warn!(node = found.node, last = %found.beat_at, "A node is lost: it was not heard of for {:?}.", self.dead_after);
        let (recordings, app) = (self.recordings.clone(), self.app.clone());
        let (run, node) = (found.run, found.node.clone());
        self.recordings.beside(async move {
            while let Err(error) = close(&app, &recordings, run, &node).await {
                warn!(%error, "What a lost node had open could not be closed; it is tried again.");
                tokio::time::sleep(BEAT).await;
            }
            info!("What a lost node had open is closed.");
        });
        Ok(())
    }
}

async fn close(app: &App, recordings: &Recordings, run: Uuid, node: &str) -> Result<(), DbError> {
    recordings.clone().close_lost(run, node.to_owned()).await?;
    let mut tx = app.db.write().await?;
    nodes::note_closed(&mut tx, run, app.run, app.clock.now()).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_as_long_as_it_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let one = RunLock::take(folder.path(), first).unwrap();
        let two = RunLock::take(folder.path(), second).unwrap();
        let mut alive = RunLock::alive(folder.path()).unwrap();
        alive.sort_unstable();
        assert_eq!(alive, [first, second]);
        assert!(one.has_siblings());

        drop(one);
        assert_eq!(RunLock::alive(folder.path()).unwrap(), [second]);
        assert!(!two.has_siblings());
        drop(two);
        assert_eq!(RunLock::alive(folder.path()).unwrap(), Vec::<Uuid>::new());

        // One that was killed removes nothing.
        fs::write(folder.path().join(first.to_string()), "").unwrap();
        assert_eq!(RunLock::alive(folder.path()).unwrap(), Vec::<Uuid>::new());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
