//! What anybody may ask of the ledger: checkpoints, and proofs that an event is in one and that one begins with another.
//!
//! A proof reads a handful of tiles, however many events there are.

use chrono::{DateTime, Utc};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::EventId;
use sallyport_domain::ledger::tile::{Plan, TileId};

use super::{LedgerError, StoredCheckpoint};
use crate::app::App;
use crate::store::db::anchors::{self, AnchorState};
use crate::store::db::{Tx, ledger};

/// Which event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Event(EventId),
    /// By its place, from 0.
    Index(u64),
}

/// The proof that an event is in the tree of `size` events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    pub index: u64,
    pub size: u64,
    /// The event's canonical bytes.
    pub entry: Vec<u8>,
    pub path: Vec<Hash>,
    /// The signed checkpoint of that size, if there is one of just that size.
    pub checkpoint: Option<StoredCheckpoint>,
}

/// The proof that the tree of `to` events begins with that of `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    pub from: u64,
    pub to: u64,
    pub path: Vec<Hash>,
}

/// Where the ledger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub checkpoint: Option<StoredCheckpoint>,
    /// Events without a place yet, and how old the oldest is.
    pub waiting: u64,
    pub waiting_since: Option<DateTime<Utc>>,
    pub anchors: Vec<AnchorState>,
}

/// The signed checkpoint of `size`, or the largest.
pub async fn checkpoint(app: &App, size: Option<u64>) -> Result<StoredCheckpoint, LedgerError> {
    find(&mut app.db.read().await?, size).await
}

async fn find(tx: &mut Tx, size: Option<u64>) -> Result<StoredCheckpoint, LedgerError> {
    match size {
        None => ledger::latest_checkpoint(tx).await?.ok_or_else(|| LedgerError::NoCheckpoint("yet".to_owned())),
        Some(size) => {
            let found = ledger::checkpoint(tx, size).await?;
            found.ok_or_else(|| LedgerError::NoCheckpoint(format!("of {size} events")))
        }
    }
}

/// Proves that an event is among the first `size` ones, or among those of the largest checkpoint.
pub async fn inclusion(app: &App, which: Which, size: Option<u64>) -> Result<Inclusion, LedgerError> {
    let mut tx = app.db.read().await?;
    let latest = find(&mut tx, None).await?;
    let size = size.unwrap_or(latest.size);
    if size > latest.size {
        return Err(LedgerError::NoCheckpoint(format!("of {size} events")));
    }
    let unknown = || match which {
        Which::Event(id) => LedgerError::UnknownEvent(id.to_string()),
        Which::Index(index) => LedgerError::UnknownEvent(format!("number {index}")),
    };
    let index = match which {
        Which::Event(id) => ledger::place_of(&mut tx, id).await?.ok_or_else(unknown)?,
        Which::Index(index) => index,
    };
    let plan = Plan::inclusion(index, size)?;
    let path = plan.hashes(&super::tiles(&mut tx, &plan.tiles()).await?)?;
    let placed = ledger::placed(&mut tx, index, 1).await?.into_iter().next().filter(|placed| placed.index == index);
    let entry = placed.and_then(|placed| placed.event).ok_or_else(unknown)?.entry;
    let checkpoint = ledger::checkpoint(&mut tx, size).await?;
    Ok(Inclusion { index, size, entry, path, checkpoint })
}

/// Proves that the first `from` events are the beginning of the first `to`, or of those of the largest checkpoint.
pub async fn consistency(app: &App, from: u64, to: Option<u64>) -> Result<Consistency, LedgerError> {
    let mut tx = app.db.read().await?;
    let latest = find(&mut tx, None).await?;
    let to = to.unwrap_or(latest.size);
    if to > latest.size {
        return Err(LedgerError::NoCheckpoint(format!("of {to} events")));
    }
    let plan = Plan::consistency(from, to)?;
    let path = plan.hashes(&super::tiles(&mut tx, &plan.tiles()).await?)?;
    Ok(Consistency { from, to, path })
}

/// The hashes of a tile, at least one.
pub async fn tile(app: &App, tile: TileId) -> Result<Option<Vec<Hash>>, LedgerError> {
    let hashes = ledger::tile(&mut app.db.read().await?, tile).await?;
    Ok(Some(hashes).filter(|hashes| !hashes.is_empty()))
}

/// Where the ledger stands.
pub async fn standing(app: &App) -> Result<Standing, LedgerError> {
    let mut tx = app.db.read().await?;
    let checkpoint = ledger::latest_checkpoint(&mut tx).await?;
    let (waiting, waiting_since) = ledger::waiting(&mut tx).await?;
    let anchors = anchors::list(&mut tx).await?;
    Ok(Standing { checkpoint, waiting, waiting_since, anchors })
}

/// How every anchor of every node stands.
pub async fn anchors(app: &App) -> Result<Vec<AnchorState>, LedgerError> {
    Ok(anchors::list(&mut app.db.read().await?).await?)
}

/// Every key of the ledger, the oldest first.
pub async fn keys(app: &App) -> Result<Vec<super::LedgerKey>, LedgerError> {
    Ok(ledger::keys(&mut app.db.read().await?).await?)
}
