//! The ledger: every event gets a place in one tree, and signed checkpoints say so to whoever asks.
//!
//! ```text
//! event, in the transaction of its change ──► sequencer ──► place, tiles, checkpoint: one transaction ──► proofs, anchors
//! ```
//!
//! - [`anchors`]: checkpoints outside of the database, and the look whether it still fits them.
//! - [`background`]: verification on a schedule.
//! - [`keys`]: what checkpoints are signed with.
//! - [`sequencer`]: gives events their places; one node at a time.
//! - [`rotation`]: another key, without a stop.
//! - [`manifests`]: what sessions leave behind, in one text each.
//! - [`proofs`]: checkpoints, inclusion, consistency, for whoever asks.
//! - [`verify`], `segments`, `sessions`: whether all of it is as it was written.
//! - `superseded`: manifests of sessions that were completed later; the last one counts.
//! - `tombstones`: what was deleted is not what is missing.
//! - `rollbacks`: copies of the database that were put back on purpose.
//!
//! What is hashed and signed, and how it is verified, is in the package `sallyport_domain::ledger`.

pub mod anchors;
pub mod background;
pub mod keys;
pub mod manifests;
pub mod proofs;
mod rollbacks;
pub mod rotation;
mod segments;
pub mod sequencer;
mod sessions;
mod superseded;
mod tombstones;
pub mod verify;

use std::collections::BTreeSet;
use std::time::Duration;

use sallyport_domain::ledger::checkpoint::CheckpointError;
use sallyport_domain::ledger::merkle::{Head, ProofError};
use sallyport_domain::ledger::note::{KeyError, NoteError};
use sallyport_domain::ledger::tile::{Edge, TileError, TileId, Tiles};

use tracing::debug;

use self::anchors::Anchors;
use self::sequencer::Sequencer;
use crate::app::App;
use crate::store::blob::BlobError;
use crate::store::db::{DbError, Tx, ledger};
use crate::store::seal::SealError;

pub use crate::store::db::ledger::{LedgerKey, StoredCheckpoint};

/// Why the ledger does not answer, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger's key cannot be opened")]
    Sealed(#[from] SealError),
    #[error("the ledger's key could not be made: the system gave no randomness")]
    NoRandomness,
    #[error("the ledger has no key yet")]
    NoKey,
    #[error("a key of the ledger cannot be used")]
    Key(#[from] KeyError),
    #[error("the checkpoint of {size} events cannot be signed")]
    Sign { size: u64, source: NoteError },
    #[error("the ledger is busy; try again")]
    Busy,
    /// Whoever signed on would sign something else than before.
    #[error("the tree in the database is not the one that was signed last: {0}")]
    Broken(String),
    #[error("the checkpoint of {size} events is not one to believe")]
    Checkpoint { size: u64, source: CheckpointError },
    #[error("the ledger's tiles are not complete")]
    Tile(#[from] TileError),
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("new events could not be hashed: the program stops")]
    Stopped,
    #[error("there is no event {0} in the ledger; a new one gets its place within a second")]
    UnknownEvent(String),
    #[error("there is no checkpoint {0}")]
    NoCheckpoint(String),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// How long the last words may take when the program ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What ended while the bastion stopped is sealed, gets its place and is brought out; what does not come to that is left to the
/// next start.
pub async fn finish(app: &App, anchors: &Anchors) {
    let words = async {
        manifests::seal_all(app).await?;
        Sequencer::new(app.clone()).halted_by(anchors.halted()).catch_up().await?;
        anchors.round(app).await;
        Ok::<(), LedgerError>(())
    };
    match tokio::time::timeout(LAST_WORDS, words).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "The last events get their places at the next start."),
        Err(_elapsed) => debug!("The last events get their places at the next start."),
    }
}

/// Reads tiles; a partial one has as many hashes as there are by now.
pub(crate) async fn tiles(tx: &mut Tx, wanted: &BTreeSet<TileId>) -> Result<Tiles, DbError> {
    let mut tiles = Tiles::new();
    for &tile in wanted {
        tiles.insert(tile, ledger::tile(tx, tile).await?);
    }
    Ok(tiles)
}

/// The edge of the tree of the first `size` events.
pub(crate) async fn edge(tx: &mut Tx, size: u64) -> Result<Edge, LedgerError> {
    let tiles = tiles(tx, &Edge::tiles(size)).await?;
    Ok(Edge::from_tiles(size, &tiles)?)
}

/// The head of the tree of the first `size` events, as the tiles have it.
pub(crate) async fn head(tx: &mut Tx, size: u64) -> Result<Head, LedgerError> {
    Ok(edge(tx, size).await?.head())
}
