//! Verifies the whole deployment: events against their entries, entries against the tree, the tree against every signed
//! checkpoint and every anchor that can be read, manifests against their events, segments against their manifests.
//!
//! It believes nothing that the database says of itself; the public keys come from it, unless the caller names the
//! fingerprints to believe. It goes on where an earlier run stopped, having looked whether that is still the same.

use std::collections::BTreeSet;
use std::sync::Arc;

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

use super::segments::{self, Standing};
use super::{LedgerError, keys, rollbacks, rotation, sessions, superseded, tombstones};
use crate::app::App;
use crate::app::recordings::encryption::Identities;
use crate::store::db::DbError;
use crate::store::db::ledger::{self, LedgerKey, Placed, StoredCheckpoint, StoredEvent};

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
    /// Private keys of the client's, to look into what is encrypted to them.
    pub identities: Option<Arc<Identities>>,
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
    /// How many events are proved, those of an earlier run included: all but those that were altered or are gone.
    pub events: u64,
    /// The largest checkpoint that what is there agrees with: how many events it stands for, and its root. Behind it nothing is
    /// proved.
    pub compared: u64,
    pub root: Option<Hash>,
    /// How many there are.
    pub of: u64,
    /// The first event of which nothing is known, neither it nor its hash: what lies behind it cannot be told.
    pub unknown_from: Option<u64>,
    pub checkpoints: u64,
    /// Checkpoints from outside that fit.
    pub anchors: u64,
    /// When the last checkpoint was signed.
    pub signed_at: Option<DateTime<Utc>>,
    pub sessions: u64,
    /// Of these, the ones whose recordings were deleted, as their tombstones prove.
    #[serde(default)]
    pub deleted: u64,
    pub segments: u64,
    /// Recordings that are encrypted and were not looked into: their segments are what was stored.
    #[serde(default)]
    pub encrypted: u64,
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
        let root = self.root.filter(|_| self.compared > 0)?;
        Some(Verified { size: self.compared, root })
    }

    /// What stays provable, in words; for when there is a fault.
    pub fn provable(&self) -> String {
        let Report { events, compared, of, sessions, segments, .. } = self;
        let behind = match self.unknown_from {
            Some(from) => format!("; of those behind event {from} nothing can be told, for it is gone with its hash"),
            None if compared < of => format!("; those behind event {compared} fit nothing that was signed"),
            None => String::new(),
        };
        format!(
            "{events} of {of} events{behind}; {sessions} sessions by their manifests, and {segments} segments byte for byte"
        )
    }

    /// A row that cannot be read as what it should be is a fault; a database that is away is an error.
    pub(super) fn unreadable(&mut self, place: impl Into<String>, error: DbError) -> Result<(), DbError> {
        if !matches!(error, DbError::Corrupt { .. }) {
            return Err(error);
        }
        self.fault(place, error.to_string());
        Ok(())
    }

    fn unknown(&mut self, index: u64) {
        self.unknown_from.get_or_insert(index);
    }

    fn take(&mut self, verifier: &LedgerVerifier) {
        self.events = verifier.count();
        (self.compared, self.root) = (verifier.proven().size, Some(verifier.proven().root));
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
    match look(app, &wish, &mut report, &mut progress).await {
        // What cannot be read as what it should be is not as it was written.
        Err(LedgerError::Db(error)) => report.unreadable("the database", error)?,
        looked => looked?,
    }
    Ok(report)
}

async fn look(
    app: &App,
    wish: &Wish,
    report: &mut Report,
    progress: &mut impl FnMut(Progress),
) -> Result<(), LedgerError> {
    let Some((known, heads)) = signed_heads(app, wish, report).await? else { return Ok(()) };
    let edge = start(app, wish.resume, report).await?;
    let anchored = anchored_heads(app, wish, &heads, report).await?;
    report.take(&LedgerVerifier::resume(edge.clone(), []));
    let mut walk = Walk {
        verifier: LedgerVerifier::resume(edge, heads.into_iter().chain(anchored)),
        tile: None,
        known,
        app,
        with_segments: !wish.without_segments,
        identities: wish.identities.clone(),
    };
    walk.run(report, progress).await?;
    walk.finish(report).await
}

/// The keys that vouch for the newest checkpoint, and what every checkpoint says; `None` if there is no key to believe.
async fn signed_heads(
    app: &App,
    wish: &Wish,
    report: &mut Report,
) -> Result<Option<(Vec<KnownKey>, Vec<Head>)>, LedgerError> {
    loop {
        let stored = ledger::keys(&mut app.db.read().await?).await?;
        let before = report.faults.len();
        let Some(believed) = believed_keys(&stored, wish, report) else { return Ok(None) };
        let heads = read_checkpoints(app, &believed, report).await?;
        // A key that was changed meanwhile has signed checkpoints that nobody could verify.
        if ledger::keys(&mut app.db.read().await?).await?.len() == stored.len() {
            return Ok(Some((believed.newest, heads)));
        }
        report.faults.truncate(before);
    }
}

/// Whom to believe.
struct Believed {
    /// Every key of the ledger: each vouches for checkpoints up to its last size.
    all: Vec<KnownKey>,
    /// Those that vouch for the newest checkpoint, and by it for everything before: keys that were asked for, and those that they
    /// have signed for. All, if none was asked for.
    newest: Vec<KnownKey>,
}

/// The keys to believe; `None` if there is none, which is a fault of its own.
fn believed_keys(stored: &[LedgerKey], wish: &Wish, report: &mut Report) -> Option<Believed> {
    let all = match keys::known_of(stored) {
        Ok(all) => all,
        Err(error) => {
            report.fault("the ledger's keys", error.to_string());
            return None;
        }
    };
    let mut newest = all.clone();
    if !wish.fingerprints.is_empty() {
        let chain = rotation::chain_of(stored);
        let follow = |fingerprint: &Hash| chain.from_key(*fingerprint);
        let follow: Vec<Hash> =
            wish.fingerprints.iter().flat_map(follow).map(|known| known.key.fingerprint()).collect();
        newest.retain(|known| {
            let fingerprint = known.key.fingerprint();
            wish.fingerprints.contains(&fingerprint) || follow.contains(&fingerprint)
        });
    }
    let Some(first) = newest.first() else {
        let what = match (stored.first(), wish.fingerprints.first()) {
            (Some(_), Some(expected)) => format!("none has the fingerprint {expected}: they were replaced"),
            _ => "there is none".to_owned(),
        };
        report.fault("the ledger's keys", what);
        return None;
    };
    report.origin = first.key.name().to_string();
    report.fingerprints = newest.iter().map(|known| known.key.fingerprint()).collect();
    Some(Believed { all, newest })
}

/// Reads every checkpoint of the database; each must be signed, and speak of the size under which it is kept.
async fn read_checkpoints(app: &App, believed: &Believed, report: &mut Report) -> Result<Vec<Head>, LedgerError> {
    let mut heads = Vec::new();
    let (mut after, mut newest) = (None, None);
    loop {
        let some = ledger::checkpoints(&mut app.db.read().await?, after, CHECKPOINTS_AT_ONCE).await?;
        let Some(last) = some.last() else { break };
        after = Some(last.size);
        report.of = last.size;
        report.signed_at = Some(last.at);
        newest = Some(last.clone());
        for stored in &some {
            let place = || format!("checkpoint of {} events", stored.size);
            match Checkpoint::open(stored.note.as_bytes(), &report.origin, &believed.all) {
                Ok(checkpoint) if checkpoint.head().size == stored.size => heads.push(checkpoint.head()),
                Ok(checkpoint) => report.fault(place(), format!("it speaks of {} events", checkpoint.head().size)),
                Err(error) => report.fault(place(), error.to_string()),
            }
        }
    }
    // Who may have signed what is older is known from what the newest one stands for.
    if let Some(StoredCheckpoint { size, note, .. }) = newest
        && let Err(error) = Checkpoint::open(note.as_bytes(), &report.origin, &believed.newest)
    {
        report.fault(format!("checkpoint of {size} events, the newest"), error.to_string());
    }
    report.checkpoints = heads.len() as u64;
    Ok(heads)
}

/// Where the walk begins. What an earlier run saw must still be there.
async fn start(app: &App, resume: Option<Verified>, report: &mut Report) -> Result<Edge, LedgerError> {
    let Some(earlier) = resume else { return Ok(Edge::new()) };
    if earlier.size > report.of {
        let what = format!(
            "{} were verified before, and {} are signed now: the rest was cut off, or an old copy was put back",
            earlier.size, report.of
        );
        report.fault("the events", what);
        return Ok(Edge::new());
    }
    let mut tx = app.db.read().await?;
    let found = match super::edge(&mut tx, earlier.size).await {
        Ok(edge) if edge.head().root == earlier.root => return Ok(edge),
        Ok(edge) => edge.head().root.to_string(),
        Err(LedgerError::Db(error)) if error.is_unreachable() => return Err(error.into()),
        Err(error) => error.to_string(),
    };
    // From the start, then: that names the place.
    let what = format!("their root was {} when they were verified before, and is {found} now", earlier.root);
    report.fault(format!("the tiles of the first {} events", earlier.size), what);
    Ok(Edge::new())
}

/// Checkpoints from outside. One that is larger than what is there means that an old copy was put back, unless that was
/// accepted. One that is not kept here was removed.
async fn anchored_heads(app: &App, wish: &Wish, kept: &[Head], report: &mut Report) -> Result<Vec<Head>, LedgerError> {
    let (accepted, forged) = rollbacks::accepted(&mut app.db.read().await?).await?;
    forged.into_iter().for_each(|fault| report.fault(fault.place, fault.what));
    let kept: BTreeSet<u64> = kept.iter().map(|head| head.size).collect();
    let mut heads = Vec::new();
    for (place, head) in wish.anchored.iter().filter(|(_, head)| !rollbacks::excuse(&accepted, head.size)) {
        if head.size > report.of {
            let what = format!(
                "it stands for {} events, and {} are signed here: the rest was cut off, or an old copy was put back",
                head.size, report.of
            );
            report.fault(place.clone(), what);
            continue;
        }
        if !kept.contains(&head.size) {
            let what = format!("it is gone, or was altered, and {place} holds it");
            report.fault(format!("checkpoint of {} events", head.size), what);
        }
        report.anchors += 1;
        heads.push(*head);
    }
    Ok(heads)
}

/// The way through all events. A fault does not end it: what lies behind is verified as far as anything signed speaks for it.
struct Walk<'a> {
    app: &'a App,
    known: Vec<KnownKey>,
    verifier: LedgerVerifier,
    /// The full tile of level 0 that is being walked through, if it is stored: its number, and its hashes.
    tile: Option<(u64, Option<Vec<Hash>>)>,
    with_segments: bool,
    identities: Option<Arc<Identities>>,
}

impl Walk<'_> {
    /// Walks to the last signed event, or to the first place of which nothing is known.
    async fn run(&mut self, report: &mut Report, progress: &mut impl FnMut(Progress)) -> Result<(), LedgerError> {
        loop {
            let next = self.verifier.size();
            let left = report.of.saturating_sub(next);
            if left == 0 {
                return Ok(());
            }
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(AT_ONCE);
            let Some(mut some) = self.read(next, limit, report).await? else {
                report.unknown(next);
                return Ok(());
            };
            some.retain(|placed| placed.index < report.of);
            if some.is_empty() {
                return Ok(()); // the end says what is missing
            }
            for placed in some {
                for missing in self.verifier.size()..placed.index {
                    let place = format!("event {missing}");
                    report.fault(place, "it has no place any more: its row in the order is gone");
                    let Some(stored) = self.in_tile(missing, report).await? else {
                        report.unknown(missing);
                        return Ok(());
                    };
                    self.feed(missing, None, stored, report).await?;
                }
                self.step(placed, report).await?;
            }
            report.take(&self.verifier);
            progress(Progress {
                events: self.verifier.size(),
                of: report.of,
                segments: report.segments,
                // What a fault follows is looked at again.
                verified: report.verified().filter(|_| report.is_sound()),
            });
        }
    }

    /// At most `limit` events in their places, from `next` on; `None` if the place of the first cannot be read.
    async fn read(&self, next: u64, limit: u32, report: &mut Report) -> Result<Option<Vec<Placed>>, LedgerError> {
        let mut tx = self.app.db.read().await?;
        match ledger::placed(&mut tx, next, limit).await {
            Ok(some) => return Ok(Some(some)),
            Err(error) if error.is_unreachable() => return Err(error.into()),
            Err(_) if limit > 1 => {} // one of them: then one by one
            Err(error) => {
                report.unreadable(format!("event {next}"), error)?;
                return Ok(None);
            }
        }
        drop(tx);
        Box::pin(self.read(next, 1, report)).await
    }

    /// The hash of an event as a full tile has it; `None` if that tile is not full yet, or gone.
    async fn in_tile(&mut self, index: u64, report: &mut Report) -> Result<Option<Hash>, LedgerError> {
        let number = index / TILE_WIDTH as u64;
        if self.tile.as_ref().is_none_or(|(walked, _)| *walked != number) {
            let tile = TileId { level: 0, index: number };
            let found = match ledger::full_tile(&mut self.app.db.read().await?, tile).await {
                Ok(found) => found.map(|(hashes, _)| hashes),
                Err(error) if error.is_unreachable() => return Err(error.into()),
                Err(error) => {
                    report.fault(tile.to_string(), error.to_string());
                    None
                }
            };
            self.tile = Some((number, found));
        }
        let in_tile = usize::try_from(index % TILE_WIDTH as u64).unwrap_or_default();
        let hashes = self.tile.as_ref().and_then(|(_, hashes)| hashes.as_ref());
        Ok(hashes.and_then(|hashes| hashes.get(in_tile)).copied())
    }

    async fn step(&mut self, placed: Placed, report: &mut Report) -> Result<(), LedgerError> {
        let index = placed.index;
        // At the tree's edge the row of the place is what the tiles are made of.
        let stored = self.in_tile(index, report).await?.unwrap_or(placed.leaf);
        let Some(event) = placed.event else {
            report.fault(format!("event {index}"), "it is gone: its row was removed");
            return self.feed(index, None, stored, report).await;
        };
        let hash = entry::hash(&event.entry);
        if placed.leaf != stored && (hash == stored || hash != placed.leaf) {
            let what = format!("its hash should be {stored}, and is {}", placed.leaf);
            report.fault(format!("place of event {index}"), what);
        }
        self.feed(index, Some(&event.entry), stored, report).await?;
        // Of an altered event nothing more is worth saying.
        if hash == stored {
            self.check_event(index, &event, report).await?;
        }
        Ok(())
    }

    /// Hands the next event to the verifier, and does what is settled by it.
    async fn feed(
        &mut self,
        index: u64,
        entry: Option<&[u8]>,
        stored: Hash,
        report: &mut Report,
    ) -> Result<(), LedgerError> {
        let settled = match self.verifier.event(index, entry, stored) {
            Ok(settled) => settled,
            Err(fault) => {
                report.fault(place_of(&fault), chain(&fault));
                return Ok(());
            }
        };
        for fault in settled.faults {
            report.fault(place_of(&fault), chain(&fault));
            // The event is as it was signed, which was not known when it was passed.
            if let LedgerFault::StoredHash { index, .. } = fault {
                let mut tx = self.app.db.read().await?;
                let placed = ledger::placed(&mut tx, index, 1).await?.into_iter().next();
                drop(tx);
                if let Some(event) = placed.and_then(|placed| placed.event) {
                    self.check_event(index, &event, report).await?;
                }
            }
        }
        self.check_tiles(&settled.tiles, report).await
    }

    /// Looks at what an event whose hash is right says, and whether its row says the same.
    async fn check_event(&self, index: u64, event: &StoredEvent, report: &mut Report) -> Result<(), LedgerError> {
        let place = || format!("event {index} ({})", event.id);
        if let Some(what) = &event.columns {
            report.fault(place(), what.clone());
        }
        if entry::outline(&event.entry).is_ok_and(|outline| outline.id != event.id) {
            report.fault(place(), "its row is that of another event");
        }
        self.check_session(index, &event.entry, report).await
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
        let Act::SessionSealed { session, manifest: expected, supersedes, .. } = event.act else { return Ok(()) };
        let found = superseded::find(self.app, index, (session, expected), supersedes, report).await?;
        let Some(manifest) = found else { return Ok(()) };
        report.sessions += 1;
        sessions::check(self.app, &manifest, report).await?;
        if self.with_segments {
            let identities = self.identities.as_ref();
            let before = report.faults.len();
            let standing = if tombstones::explain(self.app, &report.origin, &self.known, session, expected).await? {
                report.deleted += 1;
                Standing::Deleted
            } else if superseded::is_settled(self.app, session, expected).await? {
                Standing::Kept
            } else {
                Standing::BeingCompleted
            };
            segments::check(self.app, &manifest, standing, identities, report).await?;
            // One whose completion began meanwhile is looked at once that is sealed.
            if standing == Standing::Kept
                && report.faults.len() > before
                && !superseded::is_settled(self.app, session, expected).await?
            {
                report.faults.truncate(before);
                segments::check(self.app, &manifest, Standing::BeingCompleted, identities, report).await?;
            }
        }
        Ok(())
    }

    /// Everything was walked through: is that all there should be?
    async fn finish(self, report: &mut Report) -> Result<(), LedgerError> {
        let size = self.verifier.size();
        report.take(&self.verifier);
        let (proven, faults) = self.verifier.finish();
        // Behind a place of which nothing is known no fault says anything.
        if report.unknown_from.is_none() {
            faults.iter().for_each(|fault| report.fault(place_of(fault), chain(fault)));
        }
        let mut tx = self.app.db.read().await?;
        // The right edge, as the next proofs are made of it.
        match super::head(&mut tx, size).await {
            Ok(head) if head == proven.head || proven.head.size != size => {}
            Ok(head) => report.fault("the tiles at the end of the tree", format!("they make the root {}", head.root)),
            Err(LedgerError::Db(error)) if error.is_unreachable() => return Err(error.into()),
            Err(error) => report.fault("the tiles at the end of the tree", error.to_string()),
        }
        let (placed, latest) = (ledger::size(&mut tx).await?, ledger::latest_checkpoint(&mut tx).await?);
        let signed = latest.map_or(0, |latest| latest.size);
        if placed != signed {
            report.fault(format!("event {signed}"), format!("{placed} events have a place, and {signed} are signed"));
        }
        // Of the events that there are by now: more may have come since the walk began.
        let tiles: u64 = (1..8).map(|level| placed >> (8 * level)).sum();
        let stored = ledger::tile_count(&mut tx).await?;
        if stored > tiles {
            report.fault("the tiles", format!("there should be {tiles}, and {stored} are there"));
        }
        if let Some(event) = ledger::placeless(&mut tx).await? {
            report.fault(format!("event {event}"), "it has no place in the ledger, and does not wait for one");
        }
        if let Some(number) = ledger::eventless(&mut tx).await? {
            report.fault(format!("the event of number {number}"), "its row was removed while it waited for its place");
        }
        drop(tx);
        sessions::check_unsealed(self.app, report).await?;
        if self.with_segments {
            segments::check_unsealed(self.app, report).await?;
        }
        Ok(())
    }
}

pub(super) fn checked_manifest(
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
        LedgerFault::Empty { size } | LedgerFault::Fork { size, .. } => format!("checkpoint of {size} events"),
    }
}

/// An error and its causes, joined by colons.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
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
