//! Gives events their places, a batch at a time. Places, tiles and the signed checkpoint are one transaction, so that a crash
//! leaves all of it or nothing, and nobody sees a checkpoint of something that is not there.
//!
//! Which events have no place yet is in a list that a trigger keeps: numbers alone would not tell, because transactions
//! commit in another order than they took their numbers. One node at a time has the turn; should two believe so, the
//! places' primary key lets one of them commit.
//!
//! Before it signs, it looks whether the tree is the one that was signed last. If it is not, it signs no more: a second
//! history under the same name would make every proof worthless.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::checkpoint::Checkpoint;
use sallyport_domain::ledger::entry;
use sallyport_domain::ledger::merkle::Head;
use sallyport_domain::ledger::note::SignerKey;
use sallyport_domain::ledger::tile::Edge;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};
use uuid::Uuid;

use super::{LedgerError, keys};
use crate::app::App;
use crate::spans;
use crate::store::db::{Tx, ledger};

/// How often new events are looked for: every event has its place within twice this, if the database keeps up.
const INTERVAL: Duration = Duration::from_millis(100);

/// The most events that one transaction places.
const BATCH: u32 = 2048;

/// What came of one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing was waiting.
    Idle,
    /// Another node has the turn.
    Busy,
    /// That many events got their places; the tree has this head, and it is signed.
    Placed { events: usize, head: Head },
}

/// Gives events their places.
pub struct Sequencer {
    app: App,
    signer: Option<(Uuid, SignerKey)>,
    /// The tree's edge as this node left it, while no other one has gone on.
    edge: Option<Edge>,
    /// Set when an anchor has seen another history.
    halted: Arc<AtomicBool>,
}

impl Sequencer {
    /// A sequencer; the ledger's key must be there ([`keys::ensure`]).
    pub fn new(app: App) -> Self {
        Self { app, signer: None, edge: None, halted: Arc::default() }
    }

    /// The key that it signs with, if it has opened one.
    pub(super) fn into_signer(self) -> Option<(Uuid, SignerKey)> {
        self.signer
    }

    /// The same, signing nothing while `halted` is set.
    #[must_use]
    pub fn halted_by(self, halted: Arc<AtomicBool>) -> Self {
        Self { halted, ..self }
    }

    /// Takes turns until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            let placed = tokio::select! {
                placed = self.batches() => placed,
                () = stop.cancelled() => break, // a transaction that is given up leaves nothing behind
            };
            match placed {
                Ok(()) => said = None,
                Err(LedgerError::Db(error)) if error.is_unreachable() => {
                    debug!(%error, "New events wait for their places: the database does not answer.");
                }
                Err(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        error!(error = %text, "The ledger does not go on; nothing is signed until it is whole. `sallyport verify` names the place.");
                    }
                    said = Some(text);
                }
            }
        }
    }

    /// Takes turns while they are full; what comes meanwhile waits for the next interval, so that checkpoints stay few.
    async fn batches(&mut self) -> Result<(), LedgerError> {
        while let Turn::Placed { events, .. } = self.turn().await?
            && events == BATCH as usize
        {}
        Ok(())
    }

    /// Takes turns until nothing is waiting, or another node has the turn.
    pub async fn catch_up(&mut self) -> Result<(), LedgerError> {
        while let Turn::Placed { .. } = self.turn().await? {}
        Ok(())
    }

    /// Gives places to what is waiting, at most one batch.
    pub async fn turn(&mut self) -> Result<Turn, LedgerError> {
        if self.halted.load(Ordering::Acquire) {
            return Err(LedgerError::Broken("an anchor has seen another history".to_owned()));
        }
        if !ledger::is_anything_waiting(&mut self.app.db.read().await?).await? {
            return Ok(Turn::Idle);
        }
        // After an error nobody knows whether it was committed: the edge is read anew.
        let edge = self.edge.take();
        let mut tx = self.app.db.write().await?;
        if !ledger::try_turn(&mut tx).await? {
            return Ok(Turn::Busy);
        }
        let pending = ledger::pending(&mut tx, BATCH).await?;
        if pending.is_empty() {
            return Ok(Turn::Idle);
        }
        let span = spans::ledger_batch(pending.len());
        let mut edge = self.last_signed(&mut tx, edge).await?;
        let first = edge.size();
        // Two thousand hashes and their tree are some milliseconds that other tasks should not wait.
        let hashing = tokio::task::spawn_blocking(move || {
            let placed: Vec<(i64, Hash)> = pending.iter().map(|event| (event.seq, entry::hash(&event.entry))).collect();
            let grown = edge.append(placed.iter().map(|(_, leaf)| *leaf));
            (placed, grown, edge)
        });
        let (placed, grown, edge) = hashing.await.map_err(|_stopped| LedgerError::Stopped)?;
        let head = edge.head();
        ledger::place(&mut tx, first, &placed).await?;
        for (tile, hashes) in &grown {
            ledger::insert_tile(&mut tx, *tile, hashes).await?;
        }
        let Some((_, signer)) = &self.signer else { return Err(LedgerError::NoKey) };
        let note = Checkpoint::new(signer.public().name(), head).sign(&[signer]);
        let note = note.map_err(|source| LedgerError::Sign { size: head.size, source })?;
        ledger::insert_checkpoint(&mut tx, head.size, &note.to_string(), self.app.clock.now()).await?;
        tx.commit().await?;
        self.edge = Some(edge);
        span.outcome("placed");
        Ok(Turn::Placed { events: placed.len(), head })
    }

    /// The edge of the tree that was signed last, and a look at whether that is what the database holds. Also opens the key
    /// that is in use.
    pub(super) async fn last_signed(&mut self, tx: &mut Tx, edge: Option<Edge>) -> Result<Edge, LedgerError> {
        let all = ledger::keys(tx).await?;
        let key = keys::in_use(&all).ok_or(LedgerError::NoKey)?;
        if self.signer.as_ref().is_none_or(|(id, _)| *id != key.id) {
            self.signer = Some((key.id, keys::open(&self.app, key)?));
        }
        let signed = match ledger::latest_checkpoint(tx).await? {
            None => Head::empty(),
            Some(stored) => {
                let size = stored.size;
                let checkpoint = Checkpoint::open(stored.note.as_bytes(), &key.name, &keys::known_of(&all)?);
                let head = checkpoint.map_err(|source| LedgerError::Checkpoint { size, source })?.head();
                if head.size != size {
                    let message = format!("the checkpoint of {size} events speaks of {}", head.size);
                    return Err(LedgerError::Broken(message));
                }
                head
            }
        };
        let size = ledger::size(tx).await?;
        if size != signed.size {
            let message = format!("{size} events have a place, and {} are signed", signed.size);
            return Err(LedgerError::Broken(message));
        }
        let edge = match edge.filter(|edge| edge.head() == signed) {
            Some(edge) => edge,
            None => super::edge(tx, size).await?,
        };
        let found = edge.head();
        if found != signed {
            let message = format!("the root of {size} events should be {}, and is {}", signed.root, found.root);
            return Err(LedgerError::Broken(message));
        }
        Ok(edge)
    }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod rate;
#[cfg(test)]
mod tests;
