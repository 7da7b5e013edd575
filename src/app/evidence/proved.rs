//! What a bundle needs of the ledger: places of events, and proofs of them all under one checkpoint.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::EventId;
use sallyport_domain::ledger::note::{Note, VerifierKey};
use sallyport_domain::ledger::tile::Plan;

use super::{EvidenceError, json_of};
use crate::app::App;
use crate::app::ledger::{self, LedgerError};
use crate::store::db::ledger as store;

/// How long an event may take to get its place: batches are 200 ms apart.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An event in its place.
pub(super) struct Placed {
    pub(super) number: u64,
    pub(super) entry: Vec<u8>,
}

impl Placed {
    pub(super) fn json(&self) -> &[u8] {
        json_of(&self.entry)
    }
}

/// What proves events.
pub(super) struct Proofs {
    /// Signed by `key`, and by nobody else.
    pub(super) checkpoint: String,
    pub(super) key: VerifierKey,
    /// One for each event.
    pub(super) paths: Vec<Vec<Hash>>,
}

/// The places of events; waits for those that have none yet.
pub(super) async fn places(app: &App, events: &[EventId]) -> Result<Vec<Placed>, EvidenceError> {
    let mut all = Vec::with_capacity(events.len());
    for &event in events {
        let number = tokio::time::timeout(PATIENCE, place(app, event)).await;
        let number = number.map_err(|_elapsed| EvidenceError::NotSequenced)??;
        let placed = store::placed(&mut app.db.read().await?, number, 1).await?.into_iter().next();
        let stored = placed.filter(|placed| placed.index == number).and_then(|placed| placed.event);
        let stored = stored.ok_or_else(|| LedgerError::UnknownEvent(event.to_string()))?;
        all.push(Placed { number, entry: stored.entry });
    }
    Ok(all)
}

async fn place(app: &App, event: EventId) -> Result<u64, EvidenceError> {
    loop {
        if let Some(number) = store::place_of(&mut app.db.read().await?, event).await? {
            return Ok(number);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Proves events by their places, under the latest checkpoint. A place is given in one transaction with the checkpoint over it.
pub(super) async fn prove(app: &App, numbers: &[u64]) -> Result<Proofs, EvidenceError> {
    let mut tx = app.db.read().await?;
    let latest = store::latest_checkpoint(&mut tx).await?.ok_or_else(|| LedgerError::NoCheckpoint("yet".to_owned()))?;
    let plans: Result<Vec<Plan>, _> = numbers.iter().map(|&number| Plan::inclusion(number, latest.size)).collect();
    let plans = plans.map_err(LedgerError::Proof)?;
    let wanted: BTreeSet<_> = plans.iter().flat_map(Plan::tiles).collect();
    let tiles = ledger::tiles(&mut tx, &wanted).await?;
    let paths: Result<Vec<_>, _> = plans.iter().map(|plan| plan.hashes(&tiles)).collect();
    let keys = ledger::keys::known(&mut tx).await?;
    let bad = |source| LedgerError::Checkpoint { size: latest.size, source };
    let note = Note::parse(latest.note.as_bytes()).map_err(|error| bad(error.into()))?;
    let by = note.verify(keys.iter().map(|known| &known.key)).map_err(|error| bad(error.into()))?;
    // The newest of those that signed.
    let key = keys.iter().rev().map(|known| &known.key).find(|key| by.contains(key)).ok_or(LedgerError::NoKey)?;
    Ok(Proofs { checkpoint: signed_by(&note, key), key: key.clone(), paths: paths.map_err(LedgerError::Tile)? })
}

/// The note with the signature of this key alone.
fn signed_by(note: &Note, key: &VerifierKey) -> String {
    let mut text = format!("{}\n", note.text());
    let ours = note.signatures().iter().find(|signature| signature.name == *key.name() && signature.id == key.id());
    if let Some(signature) = ours {
        let bytes = [signature.id.0.as_slice(), &signature.bytes].concat();
        text.push_str(&format!("\u{2014} {} {}\n", signature.name, STANDARD.encode(bytes)));
    }
    text
}
