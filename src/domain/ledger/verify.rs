//! The verifier's steps, as streams: whoever can read feeds events and segments in their order; what comes back names each
//! bad place, what was expected there and what was found. Memory does not grow with what is fed.
//!
//! Two witnesses stand for every event: the event itself and its hash in the tree's tiles. A signed checkpoint settles
//! which of them is right, so an altered event is told from an altered tile, and named exactly. Whichever is right is the tree
//! that the verifier goes on with, so one fault does not hide what lies behind it.

use serde::{Deserialize, Serialize};

use super::entry::{self, EntryError};
use super::manifest::RecordingSeal;
use super::merkle::Head;
use super::tile::{Edge, Tiles};
use crate::hash::Hash;
use crate::id::RecordingId;
use crate::recording::frame::{Body, Frame};

/// More events than these that do not fit their stored hashes, before a checkpoint settles which is right, are as good as many.
const MOST_DIFFERING: usize = 1000;

/// As many full tiles wait for a checkpoint that settles what is in them; others are not compared.
const MOST_HELD: usize = 64;

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFault {
    /// The caller left events out, or fed one twice.
    #[error("event {expected} should come next, and event {found} does")]
    Order { expected: u64, found: u64 },
    #[error("event {index} is not in the form of events")]
    Form {
        index: u64,
        #[source]
        source: EntryError,
    },
    /// The checkpoint proves the stored hash.
    #[error("event {index} was altered: its hash should be {expected}, and is {found}")]
    Event { index: u64, expected: Hash, found: Hash },
    /// The checkpoint proves the event.
    #[error("the stored hash of event {index} was altered: it should be {expected}, and is {found}")]
    StoredHash { index: u64, expected: Hash, found: Hash },
    /// Neither events nor stored hashes are what was signed. `suspect` is the first event that does not fit its hash.
    #[error("events {from} to {} are not those that were signed: their root should be {expected}, and is {found}", size - 1)]
    Signed { from: u64, size: u64, expected: Hash, found: Hash, suspect: Option<u64> },
    /// The key has signed two histories.
    #[error("two checkpoints of {size} events were signed: these events have the root {root}, others {other}")]
    Fork { size: u64, root: Hash, other: Hash },
    /// No checkpoint is there to say which of the two was altered.
    #[error("event {index} has the hash {found}, and {stored} is stored; no checkpoint settles which is right")]
    Unsettled { index: u64, stored: Hash, found: Hash },
    #[error("{expected} events were signed, and {found} are there: the rest was cut off, or an old copy was put back")]
    Cut { expected: u64, found: u64 },
    #[error("the checkpoint of {size} entries has a root that no tree of that size has")]
    Empty { size: u64 },
}

/// What a ledger without fault proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// The largest checkpoint that the events agree with.
    pub head: Head,
    /// Events behind it, which nobody has signed yet.
    pub unsigned: u64,
}

/// What is settled once an event was taken.
#[derive(Debug, Default)]
pub struct Settled {
    /// In the order of the events.
    pub faults: Vec<LedgerFault>,
    /// Full tiles, as they should be stored.
    pub tiles: Tiles,
}

/// An event that does not fit its stored hash.
#[derive(Debug, Clone, Copy)]
struct Differing {
    index: u64,
    stored: Hash,
    /// `None` if the event is gone.
    found: Option<Hash>,
}

/// Verifies all events of a ledger against its tiles and signed checkpoints.
#[derive(Debug)]
pub struct LedgerVerifier {
    /// Believed checkpoints, smallest last.
    heads: Vec<Head>,
    /// The tree that the events make, and the one that their stored hashes make. They are one while nothing differs.
    events: Edge,
    stored: Edge,
    proven: Head,
    /// Events up to `proven` that are proved: all but those that were altered or are gone.
    count: u64,
    /// Events since `proven` that differ: the first ones, and how many there are.
    differs: Vec<Differing>,
    differing: u64,
    /// Full tiles of either tree since the first of these.
    held: (Tiles, Tiles),
    /// A checkpoint since `proven` fits neither tree. It was told of; those behind it that do not fit either follow from it.
    broken: bool,
}

impl LedgerVerifier {
    /// A verifier that starts at the first event. `heads` are of checkpoints whose signatures were verified, in any
    /// order: the more, the narrower the place of a fault.
    pub fn new(heads: impl IntoIterator<Item = Head>) -> Self {
        Self::resume(Edge::new(), heads)
    }

    /// A verifier that goes on after `edge`, up to which an earlier run has verified everything.
    pub fn resume(edge: Edge, heads: impl IntoIterator<Item = Head>) -> Self {
        let mut heads: Vec<Head> = heads.into_iter().filter(|head| head.size >= edge.size()).collect();
        heads.sort_unstable_by_key(|head| std::cmp::Reverse(head.size));
        Self {
            heads,
            proven: edge.head(),
            count: edge.size(),
            stored: edge.clone(),
            events: edge,
            differs: Vec::new(),
            differing: 0,
            held: (Tiles::new(), Tiles::new()),
            broken: false,
        }
    }

    /// Takes the next event: its number, its entry, or `None` if it is gone, and its hash as the tree's tiles of level 0 have
    /// it. An error means that this was not the next one; it was not taken.
    pub fn event(&mut self, index: u64, entry: Option<&[u8]>, stored: Hash) -> Result<Settled, LedgerFault> {
        let mut settled = Settled::default();
        self.settle(&mut settled);
        if index != self.events.size() {
            return Err(LedgerFault::Order { expected: self.events.size(), found: index });
        }
        let found = entry.map(entry::hash);
        if found != Some(stored) {
            self.differing += 1;
            if self.differs.len() < MOST_DIFFERING {
                self.differs.push(Differing { index, stored, found });
            }
        }
        // An entry that was altered is named as that, even where it is no entry any more.
        if let Some(Err(source)) = entry.map(entry::outline)
            && found == Some(stored)
        {
            settled.faults.push(LedgerFault::Form { index, source });
        }
        let (mut of_events, mut of_stored) = (Tiles::new(), Tiles::new());
        self.events.push(found.unwrap_or(stored), &mut of_events);
        self.stored.push(stored, &mut of_stored);
        if self.differing == 0 {
            settled.tiles.append(&mut of_events);
        } else if self.held.0.len() < MOST_HELD {
            self.held.0.append(&mut of_events);
            self.held.1.append(&mut of_stored);
        }
        self.settle(&mut settled);
        Ok(settled)
    }

    /// Up to where the events are compared with what was signed. It stays so whatever comes behind.
    pub fn proven(&self) -> Head {
        self.proven
    }

    /// How many of the events up to [`Self::proven`] are proved: all but those that were altered or are gone.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many events were taken, those of an earlier run included.
    pub fn size(&self) -> u64 {
        self.events.size()
    }

    /// There are no more events. All that is wrong, but for what was told of before.
    pub fn finish(mut self) -> (Proven, Vec<LedgerFault>) {
        let mut settled = Settled::default();
        self.settle(&mut settled);
        let mut faults = settled.faults;
        let size = self.events.size();
        if let Some(largest) = self.heads.first() {
            faults.push(LedgerFault::Cut { expected: largest.size, found: size });
        }
        // What a checkpoint has not settled by now stays open.
        let open = self.differs.iter().filter(|_| !self.broken);
        let unsettled = open.filter_map(|&Differing { index, stored, found }| {
            found.map(|found| LedgerFault::Unsettled { index, stored, found })
        });
        faults.extend(unsettled);
        (Proven { head: self.proven, unsigned: size - self.proven.size }, faults)
    }

    /// Compares with every checkpoint of the size that was reached.
    fn settle(&mut self, settled: &mut Settled) {
        let size = self.events.size();
        while let Some(head) = self.heads.pop_if(|head| head.size == size) {
            let (events, stored) = (self.events.head().root, self.stored.head().root);
            if events == head.root {
                self.agree(head, true, settled);
            } else if stored == head.root {
                self.agree(head, false, settled);
            } else if size == 0 {
                settled.faults.push(LedgerFault::Empty { size });
            } else if self.proven.size == size {
                settled.faults.push(LedgerFault::Fork { size, root: self.proven.root, other: head.root });
            } else if !self.broken {
                self.broken = true;
                let (from, suspect) = (self.proven.size, self.differs.first().map(|first| first.index));
                let (expected, found) = (head.root, events);
                settled.faults.push(LedgerFault::Signed { from, size, expected, found, suspect });
            }
        }
    }

    /// Either the events or their stored hashes are what was signed: so the other is what was altered.
    fn agree(&mut self, head: Head, events_are_right: bool, settled: &mut Settled) {
        let mut unproved = 0;
        for Differing { index, stored, found } in std::mem::take(&mut self.differs) {
            match found {
                Some(hash) if events_are_right => {
                    settled.faults.push(LedgerFault::StoredHash { index, expected: hash, found: stored });
                }
                Some(found) => {
                    unproved += 1;
                    settled.faults.push(LedgerFault::Event { index, expected: stored, found });
                }
                None => unproved += 1, // the caller knows
            }
        }
        // Of those that were too many to remember, none is counted.
        let differing = std::mem::take(&mut self.differing);
        unproved += differing.saturating_sub(MOST_DIFFERING as u64);
        self.count += (head.size - self.proven.size).saturating_sub(unproved);
        if differing > 0 {
            let (mut of_events, mut of_stored) = std::mem::take(&mut self.held);
            if events_are_right {
                self.stored = self.events.clone();
                settled.tiles.append(&mut of_events);
            } else {
                self.events = self.stored.clone();
                settled.tiles.append(&mut of_stored);
            }
        }
        self.proven = head;
        self.broken = false;
    }
}

/// What is wrong with the stored segments of a recording. Segments are numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    #[error("segment {number} of recording {recording} was altered: its SHA-256 should be {expected}, and is {found}")]
    Altered { recording: RecordingId, number: usize, expected: Hash, found: Hash },
    #[error("in the place of segment {number} of recording {recording} stands segment {holds}")]
    Misplaced { recording: RecordingId, number: usize, holds: usize },
    #[error("segment {number} of recording {recording} is missing; there should be {of}")]
    Missing { recording: RecordingId, number: usize, of: usize },
    #[error("recording {recording} has a segment {number}, and only {of} are known")]
    Extra { recording: RecordingId, number: usize, of: usize },
    #[error("recording {recording} has {found} {what}, and its manifest says {expected}")]
    Tally { recording: RecordingId, what: &'static str, expected: u64, found: u64 },
}

/// Verifies the stored segments of one recording against its part of a manifest.
#[derive(Debug)]
pub struct RecordingVerifier<'m> {
    seal: &'m RecordingSeal,
    next: usize,
}

impl<'m> RecordingVerifier<'m> {
    /// A verifier that starts at the first segment.
    pub fn new(seal: &'m RecordingSeal) -> Self {
        Self { seal, next: 0 }
    }

    /// Takes the next segment by its SHA-256. After a fault the next one can be fed all the same: each segment stands
    /// for itself.
    pub fn segment(&mut self, found: Hash) -> Result<(), SegmentFault> {
        let (recording, number, of) = (self.seal.recording, self.next, self.seal.segments.len());
        self.next += 1;
        let Some(segment) = self.seal.segments.get(number) else {
            return Err(SegmentFault::Extra { recording, number, of });
        };
        let expected = segment.sha256;
        if found == expected {
            return Ok(());
        }
        match self.seal.segments.iter().position(|segment| segment.sha256 == found) {
            Some(holds) => Err(SegmentFault::Misplaced { recording, number, holds }),
            None => Err(SegmentFault::Altered { recording, number, expected, found }),
        }
    }

    /// The next segment is not there.
    pub fn missing(&mut self) -> SegmentFault {
        let (recording, number, of) = (self.seal.recording, self.next, self.seal.segments.len());
        self.next += 1;
        SegmentFault::Missing { recording, number, of }
    }

    /// There are no more segments.
    pub fn finish(mut self) -> Result<(), SegmentFault> {
        if self.next < self.seal.segments.len() { Err(self.missing()) } else { Ok(()) }
    }
}

/// Verifies all segments of a recording at once, in their order.
pub fn check_segments(seal: &RecordingSeal, found: impl IntoIterator<Item = Hash>) -> Result<(), SegmentFault> {
    let mut verifier = RecordingVerifier::new(seal);
    for hash in found {
        verifier.segment(hash)?;
    }
    verifier.finish()
}

/// Counts what the frames of a recording hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Masked input included.
    pub input: u64,
    pub masked: u64,
    pub output: u64,
    pub error_output: u64,
    pub gaps: u64,
}

impl Tally {
    /// Counts a frame.
    pub fn add(&mut self, frame: &Frame) {
        match &frame.body {
            Body::Output(bytes) => self.output += bytes.len() as u64,
            Body::ErrorOutput(bytes) => self.error_output += bytes.len() as u64,
            Body::Input(bytes) => self.input += bytes.len() as u64,
            Body::MaskedInput { bytes } => {
                self.input += u64::from(*bytes);
                self.masked += u64::from(*bytes);
            }
            Body::WithheldOutput { bytes } => self.output += u64::from(*bytes),
            Body::Gap(_) => self.gaps += 1,
            Body::Notice(_)
            | Body::Resize(_)
            | Body::InputEnd
            | Body::OutputEnd
            | Body::Signal(_)
            | Body::Break { .. }
            | Body::ExitStatus(_)
            | Body::ExitSignal { .. }
            | Body::File(_)
            | Body::Header(_)
            | Body::End(_) => {}
        }
    }

    /// Whether all frames of the recording held what its manifest says.
    pub fn check(&self, seal: &RecordingSeal) -> Result<(), SegmentFault> {
        let counters = &seal.counters;
        let pairs = [
            ("bytes of input", counters.input.recorded, self.input),
            ("bytes of masked input", counters.masked, self.masked),
            ("bytes of output", counters.output.recorded, self.output),
            ("bytes of standard error", counters.error_output.recorded, self.error_output),
            ("gaps", seal.gaps.len() as u64, self.gaps),
        ];
        match pairs.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => {
                Err(SegmentFault::Tally { recording: seal.recording, what, expected, found })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::manifest::tests::seal;
    use super::*;

    fn entries(size: usize) -> Vec<Vec<u8>> {
        let fixture: Vec<&str> = include_str!("fixtures/events-v1.jsonl").lines().collect();
        let entry = |number: usize| {
            let line = fixture[number % fixture.len()].replacen("e-01k9", &format!("e-{number:04}"), 1);
            format!("{}{line}", entry::ENTRY.prefix).into_bytes()
        };
        (0..size).map(entry).collect()
    }

    /// What a store holds: entries by number, and the hashes in its tiles.
    struct Stored {
        rows: Vec<(u64, Vec<u8>)>,
        hashes: Vec<Hash>,
        heads: Vec<Head>,
    }

    /// A ledger with a checkpoint after each of `signed`, and after the last event.
    fn ledger(size: usize, signed: &[usize]) -> Stored {
        let entries = entries(size);
        let hashes: Vec<Hash> = entries.iter().map(|entry| entry::hash(entry)).collect();
        let mut edge = Edge::new();
        let mut heads = vec![];
        for (number, hash) in hashes.iter().enumerate() {
            edge.append([*hash]);
            if signed.contains(&(number + 1)) || number + 1 == size {
                heads.push(edge.head());
            }
        }
        Stored { rows: (0..).zip(entries).collect(), hashes, heads }
    }

    /// The first fault, if any, and how many events are proved.
    fn verify(stored: &Stored) -> (Result<Proven, LedgerFault>, u64) {
        let (proven, faults, count) = verify_all(stored);
        (faults.into_iter().next().map_or(Ok(proven), Err), count)
    }

    fn verify_all(stored: &Stored) -> (Proven, Vec<LedgerFault>, u64) {
        let mut verifier = LedgerVerifier::new(stored.heads.iter().copied());
        let mut faults = Vec::new();
        for (place, (index, entry)) in stored.rows.iter().enumerate() {
            match verifier.event(*index, Some(entry), stored.hashes[place]) {
                Ok(settled) => faults.extend(settled.faults),
                Err(fault) => {
                    faults.push(fault);
                    break;
                }
            }
        }
        let count = verifier.count();
        let (proven, more) = verifier.finish();
        faults.extend(more);
        (proven, faults, count)
    }

    #[test]
    fn an_untouched_ledger_is_proved_to_its_last_checkpoint() {
        let mut stored = ledger(40, &[7, 8, 30]);
        let head = *stored.heads.last().unwrap();
        assert_eq!(verify(&stored).0.unwrap(), Proven { head, unsigned: 0 });
        stored.heads.pop();
        assert_eq!(verify(&stored).0.unwrap(), Proven { head: stored.heads[2], unsigned: 10 });
        stored.heads = vec![Head::empty()];
        assert_eq!(verify(&stored).0.unwrap(), Proven { head: Head::empty(), unsigned: 40 });
        stored.heads = vec![Head { size: 0, root: Hash::ZERO }];
        assert!(matches!(verify(&stored).0, Err(LedgerFault::Empty { size: 0 })));
    }

    #[test]
    fn a_verifier_goes_on_where_another_stopped() {
        let stored = ledger(300, &[290]);
        let mut edge = Edge::new();
        edge.append(stored.hashes[..290].iter().copied());
        let mut verifier = LedgerVerifier::resume(edge, stored.heads.clone());
        for place in 290..300 {
            let settled = verifier.event(place as u64, Some(&stored.rows[place].1), stored.hashes[place]).unwrap();
            assert!(settled.faults.is_empty());
        }
        let (proven, faults) = verifier.finish();
        assert_eq!((proven.head, faults.len()), (stored.heads[1], 0));
    }

    #[test]
    fn full_tiles_come_out_as_they_should_be_stored() {
        let stored = ledger(256, &[]);
        let mut verifier = LedgerVerifier::new([]);
        let mut tiles = Tiles::new();
        for (index, entry) in &stored.rows {
            tiles.append(&mut verifier.event(*index, Some(entry), stored.hashes[*index as usize]).unwrap().tiles);
        }
        assert_eq!(tiles.into_values().collect::<Vec<_>>(), [stored.hashes]);
    }

    #[test]
    fn a_tile_with_an_altered_event_comes_out_as_it_was_signed() {
        let stored = ledger(300, &[]);
        let mut verifier = LedgerVerifier::new(stored.heads.clone());
        let mut tiles = Tiles::new();
        for (index, entry) in &stored.rows {
            let entry = if *index == 7 { &b"altered"[..] } else { entry.as_slice() };
            let settled = verifier.event(*index, Some(entry), stored.hashes[*index as usize]).unwrap();
            assert!(tiles.is_empty(), "nothing is known before a checkpoint settles it");
            tiles.extend(settled.tiles);
        }
        assert_eq!(tiles.into_values().collect::<Vec<_>>(), [stored.hashes[..256].to_vec()]);
    }

    #[test]
    fn what_lies_behind_a_fault_is_verified_too() {
        let mut stored = ledger(60, &[10, 20, 30]);
        stored.rows[3].1[40] ^= 1;
        stored.hashes[15].0[0] ^= 1;
        stored.rows[45].1[40] ^= 1;
        let (proven, faults, count) = verify_all(&stored);
        assert!(
            matches!(
                faults[..],
                [
                    LedgerFault::Event { index: 3, .. },
                    LedgerFault::StoredHash { index: 15, .. },
                    LedgerFault::Event { index: 45, .. }
                ]
            ),
            "{faults:?}"
        );
        assert_eq!((proven.head, count), (stored.heads[3], 58));

        // An event that is gone is known by its stored hash.
        let stored = ledger(60, &[10, 20, 30]);
        let mut verifier = LedgerVerifier::new(stored.heads.clone());
        for (index, entry) in &stored.rows {
            let entry = (*index != 25).then_some(entry.as_slice());
            assert!(verifier.event(*index, entry, stored.hashes[*index as usize]).unwrap().faults.is_empty());
        }
        assert_eq!(verifier.count(), 59);
        assert!(verifier.finish().1.is_empty(), "the caller knows that it is gone");
    }

    #[test]
    fn a_checkpoint_of_another_history_does_not_hide_what_a_later_one_proves() {
        let mut stored = ledger(40, &[7, 20]);
        stored.heads[1].root = Hash::of(b"another history");
        let (proven, faults, count) = verify_all(&stored);
        assert!(matches!(faults[..], [LedgerFault::Signed { from: 7, size: 20, .. }]), "{faults:?}");
        assert_eq!((proven.head, count), (stored.heads[2], 40));

        // Who has changed an event and its hash alike is told of once, and nothing behind it is proved.
        let mut stored = ledger(40, &[7, 20, 30]);
        let text = String::from_utf8(stored.rows[10].1.clone()).unwrap().replace("2026-03-01", "2026-03-02");
        stored.hashes[10] = entry::hash(text.as_bytes());
        stored.rows[10].1 = text.into_bytes();
        let (proven, faults, count) = verify_all(&stored);
        assert!(matches!(faults[..], [LedgerFault::Signed { from: 7, size: 20, .. }]), "{faults:?}");
        assert_eq!((proven.head, count), (stored.heads[0], 7));
    }

    proptest! {
        #[test]
        fn a_byte_changed_in_an_event_is_found_and_the_event_named(
            size in 1_usize..80, signed in prop::collection::vec(1_usize..80, 0..4),
            at: prop::sample::Index, place: prop::sample::Index, flip in 1_u8..,
        ) {
            let mut stored = ledger(size, &signed);
            let at = at.index(size);
            let entry = &mut stored.rows[at].1;
            let place = place.index(entry.len());
            entry[place] ^= flip;

            let (found, proven) = verify(&stored);

            prop_assert!(matches!(found, Err(LedgerFault::Event { index, .. }) if index == at as u64), "{found:?}");
            prop_assert_eq!(proven, size as u64 - 1, "all others stay proved");
        }

        #[test]
        fn a_stored_hash_that_was_changed_is_told_from_an_event_that_was(size in 1_usize..80, at: prop::sample::Index) {
            let mut stored = ledger(size, &[]);
            let at = at.index(size);
            stored.hashes[at].0[5] ^= 1;
            let found = verify(&stored).0;
            prop_assert!(matches!(found, Err(LedgerFault::StoredHash { index, .. }) if index == at as u64), "{found:?}");
        }

        #[test]
        fn who_changes_event_and_hash_alike_is_found_between_two_checkpoints(
            size in 2_usize..80, signed in 1_usize..80, at: prop::sample::Index,
        ) {
            let mut stored = ledger(size, &[signed]);
            let at = at.index(size);
            let text = String::from_utf8(stored.rows[at].1.clone()).unwrap().replace("2026-03-01", "2026-03-02");
            stored.hashes[at] = entry::hash(text.as_bytes());
            stored.rows[at].1 = text.into_bytes();
            let found = verify(&stored).0;
            let Err(LedgerFault::Signed { from, size, .. }) = found else { panic!("{found:?}") };
            prop_assert!(from <= at as u64 && (at as u64) < size);
        }

        #[test]
        fn rows_that_were_removed_swapped_or_cut_off_are_found(
            size in 3_usize..80, a: prop::sample::Index, b: prop::sample::Index, renumbered: bool,
        ) {
            let whole = ledger(size, &[]);
            let (a, b) = (a.index(size - 1), b.index(size));

            let mut removed = ledger(size, &[]);
            removed.rows.remove(a);
            if renumbered {
                (0..).zip(&mut removed.rows).for_each(|(index, row)| row.0 = index);
            }
            let found = verify(&removed).0;
            prop_assert!(found.is_err());
            if !renumbered {
                let at = a as u64;
                prop_assert!(matches!(found, Err(LedgerFault::Order { expected, .. }) if expected == at), "{found:?}");
            }

            let mut cut = ledger(size, &[]);
            cut.rows.truncate(a + 1);
            let found = verify(&cut).0;
            let (signed, there) = (size as u64, a as u64 + 1);
            let named = match found {
                Err(LedgerFault::Cut { expected, found }) => Some((expected, found)),
                _ => None,
            };
            prop_assert_eq!(named, Some((signed, there)));

            let mut swapped = ledger(size, &[]);
            swapped.rows[a].1 = whole.rows[b].1.clone();
            swapped.rows[b].1 = whole.rows[a].1.clone();
            let (first, found) = (a.min(b) as u64, verify(&swapped).0);
            if a == b {
                prop_assert!(found.is_ok());
            } else {
                prop_assert!(matches!(found, Err(LedgerFault::Event { index, .. }) if index == first), "{found:?}");
            }
        }

        #[test]
        fn every_single_change_to_a_recordings_segments_is_found_and_named(
            segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..12),
            a: prop::sample::Index, b: prop::sample::Index, flip in 1_u8..,
        ) {
            let seal = seal(1, &segments);
            let hashes = |segments: &[Vec<u8>]| segments.iter().map(|bytes| Hash::of(bytes)).collect::<Vec<_>>();
            prop_assert_eq!(check_segments(&seal, hashes(&segments)), Ok(()));
            let (a, b) = (a.index(segments.len()), b.index(segments.len()));

            let mut changed = segments.clone();
            changed[a][0] ^= flip;
            let named = match check_segments(&seal, hashes(&changed)) {
                Err(SegmentFault::Altered { number, .. } | SegmentFault::Misplaced { number, .. }) => Some(number),
                _ => None,
            };
            prop_assert_eq!(named, Some(a));

            let mut swapped = segments.clone();
            swapped.swap(a, b);
            prop_assert_eq!(check_segments(&seal, hashes(&swapped)).is_ok(), segments[a] == segments[b]);

            let cut = check_segments(&seal, hashes(&segments[..a]));
            let fault = SegmentFault::Missing { recording: seal.recording, number: a, of: segments.len() };
            prop_assert_eq!(cut, Err(fault));

            let mut more = hashes(&segments);
            more.push(Hash::ZERO);
            let (number, of) = (segments.len(), segments.len());
            let fault = SegmentFault::Extra { recording: seal.recording, number, of };
            prop_assert_eq!(check_segments(&seal, more), Err(fault));
        }
    }

    #[test]
    fn a_segment_in_the_place_of_another_is_named_as_that_and_the_rest_can_be_verified() {
        let seal = seal(1, &[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        let mut verifier = RecordingVerifier::new(&seal);
        let recording = seal.recording;
        let fault = SegmentFault::Misplaced { recording, number: 0, holds: 1 };
        assert_eq!(verifier.segment(Hash::of(b"b")), Err(fault));
        assert_eq!(verifier.missing(), SegmentFault::Missing { recording, number: 1, of: 3 });
        assert_eq!(verifier.segment(Hash::of(b"c")), Ok(()));
        assert_eq!(verifier.finish(), Ok(()));
    }

    #[test]
    fn frames_are_counted_and_compared_with_the_manifest() {
        let mut seal = seal(1, &[]);
        seal.counters.input.recorded = 5;
        seal.counters.masked = 3;
        seal.counters.output.recorded = 4;
        let mut tally = Tally::default();
        let bodies = [
            Body::Input(Bytes::from_static(b"ls")),
            Body::MaskedInput { bytes: 3 },
            Body::Output(Bytes::from_static(b"out\n")),
            Body::Notice(Bytes::from_static(b"not from the target")),
        ];
        bodies.into_iter().for_each(|body| tally.add(&Frame { at: 0, body }));
        assert_eq!(tally.check(&seal), Ok(()));
        tally.add(&Frame { at: 1, body: Body::Gap("lost".to_owned()) });
        let fault = SegmentFault::Tally { recording: seal.recording, what: "gaps", expected: 0, found: 1 };
        assert_eq!(tally.check(&seal), Err(fault));
    }
}
