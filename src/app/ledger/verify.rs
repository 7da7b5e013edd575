//! Verifies the whole deployment: events against their entries, entries against the tree, the tree against every signed
//! checkpoint and every anchor that can be read, manifests against their events, segments against their manifests.
//!
//! It believes nothing that the database says of itself; the public keys come from it, unless the caller names the
//! fingerprints to believe. It goes on where an earlier run stopped, having looked whether that is still the same.

use chrono::{DateTime, Utc};
use sallyport_domain::event::Act;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::SessionId;
use sallyport_domain::ledger::checkpoint::{Checkpoint, KnownKey};
use sallyport_domain::ledger::entry;
use sallyport_domain::ledger::manifest::Manifest;
use sallyport_domain::ledger::merkle::Head;
use sallyport_domain::ledger::tile::{self, Edge, TILE_WIDTH, TileId, Tiles};
use sallyport_domain::ledger::verify::{LedgerFault, LedgerVerifier};
use serde::{Deserialize, Serialize};

use super::{LedgerError, keys, segments};
use crate::app::App;
use crate::store::db::ledger::{self, Placed};
use crate::store::db::manifests;

/// Events that are read at once: a tile's worth.
const AT_ONCE: u32 = 256;

/// Checkpoints that are read at once.
const CHECKPOINTS_AT_ONCE: u32 = 1000;

/// More faults than this are as good as many.
const MOST_FAULTS: usize = 100;

/// A checkpoint that is known from outside: where it is from, and what it says.
pub type Witness = (String, Head);

/// What to verify, and what to believe.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Fingerprints of the ledger's keys; without any, the keys in the database are believed.
    pub fingerprints: Vec<Hash>,
    /// Checkpoints that are known from outside.
    pub anchored: Vec<Witness>,
    /// Faults that were found in the anchors themselves.
    pub anchor_faults: Vec<Fault>,
    /// How far an earlier run has come.
    pub resume: Option<Verified>,
    /// Leave out the objects in the store: the events alone.
    pub without_segments: bool,
}

/// Up to where everything was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub size: u64,
    pub root: Hash,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: an event, a checkpoint, a session, a segment, an anchor.
    pub place: String,
    /// What was expected there, and what was found.
    pub what: String,
}

impl Fault {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Report {
    /// The ledger's name, and the fingerprints of the keys that were believed.
    pub origin: String,
    pub fingerprints: Vec<Hash>,
    /// How many events are proved, those of an earlier run included: what stays provable if there is a fault.
    pub events: u64,
    /// Their root.
    pub root: Option<Hash>,
    /// How many there are.
    pub of: u64,
    pub checkpoints: u64,
    /// Checkpoints from outside that fit.
    pub anchors: u64,
    /// When the last checkpoint was signed.
    pub signed_at: Option<DateTime<Utc>>,
    pub sessions: u64,
    pub segments: u64,
    /// Bytes of segments, as stored.
    pub bytes: u64,
    /// The first one is where it begins.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether everything is as it was written.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Where a later run may go on; `None` if there is nothing to go on from.
    pub fn verified(&self) -> Option<Verified> {
        let root = self.root.filter(|_| self.events > 0)?;
        Some(Verified { size: self.events, root })
    }

    pub(super) fn fault(&mut self, place: impl Into<String>, what: impl Into<String>) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault::new(place, what));
        }
    }
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub events: u64,
    pub of: u64,
    pub segments: u64,
    /// Up to where everything is proved: what a later run may go on from.
    pub verified: Option<Verified>,
}

/// Verifies everything. `progress` is called now and then. An error means that something could not be read; what is wrong
/// is in the report.
pub async fn verify(app: &App, wish: Wish, mut progress: impl FnMut(Progress)) -> Result<Report, LedgerError> {
    let mut report = Report { faults: wish.anchor_faults.clone(), ..Report::default() };
    let Some(known) = believed_keys(app, &wish, &mut report).await? else { return Ok(report) };
    let heads = read_checkpoints(app, &known, &mut report).await?;
    let Some(edge) = start(app, wish.resume, &mut report).await? else { return Ok(report) };
    let anchored = anchored_heads(app, &wish, &mut report).await?;
    report.events = edge.size();
    report.root = Some(edge.head().root);
    let mut walk = Walk {
        verifier: LedgerVerifier::resume(edge, heads.into_iter().chain(anchored)),
        stored: Vec::new(),
        app,
        with_segments: !wish.without_segments,
    };
    let whole = walk.run(&mut report, &mut progress).await?;
    if whole {
        walk.finish(&mut report).await?;
    }
    Ok(report)
}

/// The keys to believe; `None` if there is none, which is a fault of its own.
async fn believed_keys(app: &App, wish: &Wish, report: &mut Report) -> Result<Option<Vec<KnownKey>>, LedgerError> {
    let stored = ledger::keys(&mut app.db.read().await?).await?;
    let mut known = match keys::known_of(&stored) {
        Ok(known) => known,
        Err(error) => {
            report.fault("the ledger's keys", error.to_string());
            return Ok(None);
        }
    };
    if !wish.fingerprints.is_empty() {
        known.retain(|known| wish.fingerprints.contains(&known.key.fingerprint()));
    }
    let Some(first) = known.first() else {
        let what = match (stored.first(), wish.fingerprints.first()) {
            (Some(_), Some(expected)) => format!("none has the fingerprint {expected}: they were replaced"),
            _ => "there is none".to_owned(),
        };
        report.fault("the ledger's keys", what);
        return Ok(None);
    };
    report.origin = first.key.name().to_string();
    report.fingerprints = known.iter().map(|known| known.key.fingerprint()).collect();
    Ok(Some(known))
}

/// Reads every checkpoint of the database; each must be signed, and speak of the size under which it is kept.
async fn read_checkpoints(app: &App, known: &[KnownKey], report: &mut Report) -> Result<Vec<Head>, LedgerError> {
    let mut heads = Vec::new();
    let mut after = None;
    loop {
        let some = ledger::checkpoints(&mut app.db.read().await?, after, CHECKPOINTS_AT_ONCE).await?;
        let Some(last) = some.last() else { break };
        after = Some(last.size);
        report.of = last.size;
        report.signed_at = Some(last.at);
        for stored in &some {
            let place = || format!("checkpoint of {} events", stored.size);
            match Checkpoint::open(stored.note.as_bytes(), &report.origin, known) {
                Ok(checkpoint) if checkpoint.head().size == stored.size => heads.push(checkpoint.head()),
                Ok(checkpoint) => report.fault(place(), format!("it speaks of {} events", checkpoint.head().size)),
                Err(error) => report.fault(place(), error.to_string()),
            }
        }
    }
    report.checkpoints = heads.len() as u64;
    Ok(heads)
}

/// Where the walk begins. What an earlier run saw must still be there.
async fn start(app: &App, resume: Option<Verified>, report: &mut Report) -> Result<Option<Edge>, LedgerError> {
    let Some(earlier) = resume else { return Ok(Some(Edge::new())) };
    if earlier.size > report.of {
        let what = format!(
            "{} were verified before, and {} are signed now: the rest was cut off, or an old copy was put back",
            earlier.size, report.of
        );
        report.fault("the events", what);
        return Ok(None);
    }
    let mut tx = app.db.read().await?;
    let found = match super::edge(&mut tx, earlier.size).await {
        Ok(edge) if edge.head().root == earlier.root => return Ok(Some(edge)),
        Ok(edge) => edge.head().root.to_string(),
        Err(LedgerError::Db(error)) if error.is_unreachable() => return Err(error.into()),
        Err(error) => error.to_string(),
    };
    // From the start, then: that names the place.
    let what = format!("their root was {} when they were verified before, and is {found} now", earlier.root);
    report.fault(format!("the tiles of the first {} events", earlier.size), what);
    Ok(Some(Edge::new()))
}

/// Checkpoints from outside. One that is larger than what is there means that an old copy was put back, unless that was
/// accepted.
async fn anchored_heads(app: &App, wish: &Wish, report: &mut Report) -> Result<Vec<Head>, LedgerError> {
    let accepted = ledger::rollbacks(&mut app.db.read().await?).await?;
    let excused = |size: u64| accepted.iter().any(|&(from, to)| size > from && size <= to);
    let mut heads = Vec::new();
    for (place, head) in wish.anchored.iter().filter(|(_, head)| !excused(head.size)) {
        if head.size > report.of {
            let what = format!(
                "it stands for {} events, and {} are signed here: the rest was cut off, or an old copy was put back",
                head.size, report.of
            );
            report.fault(place.clone(), what);
        } else {
            report.anchors += 1;
            heads.push(*head);
        }
    }
    Ok(heads)
}

/// The way through all events.
struct Walk<'a> {
    app: &'a App,
    verifier: LedgerVerifier,
    /// The tile of level 0 that is being walked through, as stored.
    stored: Vec<Hash>,
    with_segments: bool,
}

impl Walk<'_> {
    /// Walks to the last signed event; `false` if it had to stop.
    async fn run(&mut self, report: &mut Report, progress: &mut impl FnMut(Progress)) -> Result<bool, LedgerError> {
        loop {
            let next = self.verifier.edge().size();
            let left = report.of.saturating_sub(next);
            if left == 0 {
                return Ok(true);
            }
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(AT_ONCE);
            let mut tx = self.app.db.read().await?;
            let some = ledger::placed(&mut tx, next, limit).await?;
            drop(tx);
            if some.is_empty() {
                return Ok(true); // the end says what is missing
            }
            for placed in some {
                if !self.step(placed, report).await? {
                    return Ok(false);
                }
            }
            let proven = self.verifier.proven();
            (report.events, report.root) = (proven.size, Some(proven.root));
            progress(Progress {
                events: self.verifier.edge().size(),
                of: report.of,
                segments: report.segments,
                // What a fault follows is looked at again.
                verified: report.verified().filter(|_| report.is_sound()),
            });
        }
    }

    async fn step(&mut self, placed: Placed, report: &mut Report) -> Result<bool, LedgerError> {
        let index = placed.index;
        let next = self.verifier.edge().size();
        if index != next {
            report.fault(format!("event {next}"), "it has no place any more: its row in the order is gone");
            return Ok(false);
        }
        let Some(event) = placed.event else {
            report.fault(format!("event {index}"), "it is gone: its row was removed");
            return Ok(false);
        };
        let in_tile = usize::try_from(index % TILE_WIDTH as u64).unwrap_or_default();
        if in_tile == 0 || self.stored.is_empty() {
            let tile = TileId { level: 0, index: index / TILE_WIDTH as u64 };
            self.stored = match ledger::tile(&mut self.app.db.read().await?, tile).await {
                Ok(stored) => stored,
                Err(error) if error.is_unreachable() => return Err(error.into()),
                Err(error) => {
                    report.fault(tile.to_string(), error.to_string());
                    return Ok(false);
                }
            };
        }
        let Some(&stored) = self.stored.get(in_tile) else {
            report.fault(format!("event {index}"), "its hash in the tree is missing");
            return Ok(false);
        };
        let full = match self.verifier.event(index, &event.entry, stored) {
            Ok(full) => full,
            Err(fault) => {
                let proven = self.verifier.proven();
                (report.events, report.root) = (proven.size, Some(proven.root));
                report.fault(place_of(&fault), chain(&fault));
                return Ok(false);
            }
        };
        let hash = entry::hash(&event.entry);
        if hash == stored && placed.leaf != stored {
            report.fault(
                format!("place of event {index}"),
                format!("its hash should be {stored}, and is {}", placed.leaf),
            );
        }
        if let Some(what) = event.columns {
            report.fault(format!("event {index} ({})", event.id), what);
        }
        if entry::outline(&event.entry).is_ok_and(|outline| outline.id != event.id) {
            report.fault(format!("event {index} ({})", event.id), "its row is that of another event");
        }
        self.check_tiles(&full, report).await?;
        self.check_session(index, &event.entry, report).await?;
        Ok(true)
    }

    async fn check_tiles(&self, full: &Tiles, report: &mut Report) -> Result<(), LedgerError> {
        for (&tile, hashes) in full {
            let mut tx = self.app.db.read().await?;
            let found = match ledger::full_tile(&mut tx, tile).await {
                Ok(found) => found,
                Err(error) if error.is_unreachable() => return Err(error.into()),
                Err(error) => {
                    report.fault(tile.to_string(), error.to_string());
                    continue;
                }
            };
            match found {
                None => report.fault(tile.to_string(), "it is missing"),
                Some((found, root)) if found != *hashes || Some(root) != tile::tile_root(hashes) => {
                    let at = found.iter().zip(hashes).position(|(found, expected)| found != expected);
                    let what = match at {
                        Some(at) => format!("hash {at} should be {}, and is {}", hashes[at], found[at]),
                        None => "the hash above it is not the one that it has".to_owned(),
                    };
                    report.fault(tile.to_string(), what);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// An event that seals a session proves its manifest, and that the segments.
    async fn check_session(&self, index: u64, entry: &[u8], report: &mut Report) -> Result<(), LedgerError> {
        // An act that is not known here seals nothing that could be read.
        let Ok(event) = entry::decode(entry) else { return Ok(()) };
        let Act::SessionSealed { session, manifest: expected, .. } = event.act else { return Ok(()) };
        // Each manifest supersedes the one before it; all are kept, and the segments are those of the last.
        let mut all = manifests::all(&mut self.app.db.read().await?, session).await?;
        let at = all.iter().position(|bytes| Hash::of(bytes) == expected);
        let later = at.map(|at| all.split_off(at + 1)).unwrap_or_default();
        let Some(manifest) = checked_manifest(session, index, expected, all.pop(), report) else { return Ok(()) };
        if let Some(next) = later.first() {
            if let Ok(next) = Manifest::decode(next)
                && let Err(fault) = next.check_amends(&manifest)
            {
                report
                    .fault(format!("manifest of session {session} after the one of event {index}"), fault.to_string());
            }
            return Ok(());
        }
        report.sessions += 1;
        // One that is being completed is looked at among those without a manifest, by its rows.
        let settled = manifests::is_sealed(&mut self.app.db.read().await?, session).await?;
        if self.with_segments && settled {
            segments::check(self.app, &manifest, report).await?;
        }
        Ok(())
    }

    /// Everything was walked through: is that all there should be?
    async fn finish(self, report: &mut Report) -> Result<(), LedgerError> {
        let size = self.verifier.edge().size();
        match self.verifier.finish() {
            Ok(proven) => (report.events, report.root) = (proven.head.size, Some(proven.head.root)),
            Err(fault) => report.fault(place_of(&fault), chain(&fault)),
        }
        let mut tx = self.app.db.read().await?;
        // The right edge, as the next proofs are made of it.
        match super::head(&mut tx, size).await {
            Ok(head) if Some(head.root) == report.root || report.events != size => {}
            Ok(head) => report.fault("the tiles at the end of the tree", format!("they make the root {}", head.root)),
            Err(LedgerError::Db(error)) if error.is_unreachable() => return Err(error.into()),
            Err(error) => report.fault("the tiles at the end of the tree", error.to_string()),
        }
        let (placed, latest) = (ledger::size(&mut tx).await?, ledger::latest_checkpoint(&mut tx).await?);
        let signed = latest.map_or(0, |latest| latest.size);
        if placed != signed {
            report.fault(format!("event {signed}"), format!("{placed} events have a place, and {signed} are signed"));
        }
        if let Some(event) = ledger::placeless(&mut tx).await? {
            report.fault(format!("event {event}"), "it has no place in the ledger, and does not wait for one");
        }
        drop(tx);
        if self.with_segments {
            segments::check_unsealed(self.app, report).await?;
        }
        Ok(())
    }
}

fn checked_manifest(
    session: SessionId,
    index: u64,
    expected: Hash,
    bytes: Option<Vec<u8>>,
    report: &mut Report,
) -> Option<Manifest> {
    let place = || format!("manifest of session {session} (event {index})");
    let Some(bytes) = bytes else {
        report.fault(place(), "it is gone");
        return None;
    };
    let found = Hash::of(&bytes);
    if found != expected {
        report.fault(place(), format!("its SHA-256 should be {expected}, and is {found}"));
        return None;
    }
    match Manifest::decode(&bytes) {
        Ok(manifest) => {
            if manifest.session != session {
                report.fault(place(), format!("it is that of session {}", manifest.session));
            }
            if let Err(fault) = manifest.check() {
                report.fault(place(), fault.to_string());
            }
            Some(manifest)
        }
        Err(error) => {
            // As it was sealed, but by a newer version.
            report.fault(place(), format!("it cannot be read: {error}"));
            None
        }
    }
}

/// The first place that a fault speaks of.
fn place_of(fault: &LedgerFault) -> String {
    match fault {
        LedgerFault::Order { expected: index, .. }
        | LedgerFault::Form { index, .. }
        | LedgerFault::Event { index, .. }
        | LedgerFault::Unsettled { index, .. }
        | LedgerFault::Cut { found: index, .. } => format!("event {index}"),
        LedgerFault::StoredHash { index, .. } => format!("stored hash of event {index}"),
        LedgerFault::Signed { suspect: Some(index), .. } => format!("event {index}"),
        LedgerFault::Signed { from, size, suspect: None, .. } => format!("events {from} to {}", size.saturating_sub(1)),
        LedgerFault::Empty { size } => format!("checkpoint of {size} events"),
    }
}

/// An error and its causes, joined by colons.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
