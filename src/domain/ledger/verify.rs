//! The verifier's steps, as streams: whoever can read feeds events and segments in their order; what comes back names the
//! first bad place, what was expected there and what was found. Memory does not grow with what is fed.
//!
//! Two witnesses stand for every event: the event itself and its hash in the tree's tiles. A signed checkpoint settles
//! which of them is right, so an altered event is told from an altered tile, and named exactly.

use serde::{Deserialize, Serialize};

use super::entry::{self, EntryError};
use super::manifest::RecordingSeal;
use super::merkle::Head;
use super::tile::{Edge, Tiles};
use crate::hash::Hash;
use crate::id::RecordingId;
use crate::recording::frame::{Body, Frame};

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFault {
    /// A row was removed, or put in.
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

/// Verifies all events of a ledger against its tiles and signed checkpoints.
#[derive(Debug)]
pub struct LedgerVerifier {
    /// Believed checkpoints, smallest last.
    heads: Vec<Head>,
    /// The tree that the events make, and the one that their stored hashes make.
    events: Edge,
    stored: Edge,
    proven: Head,
    /// The first event since `proven` that does not fit its stored hash: its index, that hash, its own.
    differs: Option<(u64, Hash, Hash)>,
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
        Self { heads, proven: edge.head(), stored: edge.clone(), events: edge, differs: None }
    }

    /// Takes the next event: its number, its entry, and its hash as the tree's tiles of level 0 have it. Gives the tiles
    /// that this event made full, which should be what is stored. After a fault no more can be fed.
    pub fn event(&mut self, index: u64, entry: &[u8], stored: Hash) -> Result<Tiles, LedgerFault> {
        self.settle()?;
        if index != self.events.size() {
            return Err(LedgerFault::Order { expected: self.events.size(), found: index });
        }
        let found = entry::hash(entry);
        if found != stored && self.differs.is_none() {
            self.differs = Some((index, stored, found));
        }
        // An entry that was altered is named as that, even where it is no entry any more.
        if let Err(source) = entry::outline(entry)
            && found == stored
        {
            return Err(LedgerFault::Form { index, source });
        }
        let mut full = Tiles::new();
        self.events.push(found, &mut full);
        self.stored.push(stored, &mut Tiles::new());
        self.settle()?;
        Ok(full)
    }

    /// Up to where the events are proved so far. It stays so whatever comes behind.
    pub fn proven(&self) -> Head {
        self.proven
    }

    /// The edge to [resume](Self::resume) from; worth keeping only where it is at [`Self::proven`].
    pub fn edge(&self) -> &Edge {
        &self.events
    }

    /// There are no more events.
    pub fn finish(mut self) -> Result<Proven, LedgerFault> {
        self.settle()?;
        let size = self.events.size();
        if let Some(largest) = self.heads.first() {
            return Err(LedgerFault::Cut { expected: largest.size, found: size });
        }
        match self.differs {
            Some((index, stored, found)) => Err(LedgerFault::Unsettled { index, stored, found }),
            None => Ok(Proven { head: self.proven, unsigned: size - self.proven.size }),
        }
    }

    /// Compares with every checkpoint of the size that was reached.
    fn settle(&mut self) -> Result<(), LedgerFault> {
        let size = self.events.size();
        while let Some(head) = self.heads.pop_if(|head| head.size == size) {
            let found = self.events.head().root;
            let stored = self.stored.head().root;
            match self.differs {
                None if found == head.root => self.proven = head,
                None if size == 0 => return Err(LedgerFault::Empty { size }),
                Some((index, expected, found)) if stored == head.root => {
                    return Err(LedgerFault::Event { index, expected, found });
                }
                Some((index, stored, expected)) if found == head.root => {
                    return Err(LedgerFault::StoredHash { index, expected, found: stored });
                }
                differs => {
                    let (from, suspect) = (self.proven.size, differs.map(|(index, ..)| index));
                    return Err(LedgerFault::Signed { from, size, expected: head.root, found, suspect });
                }
            }
        }
        Ok(())
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

    fn verify(stored: &Stored) -> (Result<Proven, LedgerFault>, u64) {
        let mut verifier = LedgerVerifier::new(stored.heads.iter().copied());
        for (place, (index, entry)) in stored.rows.iter().enumerate() {
            if let Err(fault) = verifier.event(*index, entry, stored.hashes[place]) {
                return (Err(fault), verifier.proven().size);
            }
        }
        let proven = verifier.proven().size;
        (verifier.finish(), proven)
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
            verifier.event(place as u64, &stored.rows[place].1, stored.hashes[place]).unwrap();
        }
        assert_eq!(verifier.finish().unwrap().head, stored.heads[1]);
    }

    #[test]
    fn full_tiles_come_out_as_they_should_be_stored() {
        let stored = ledger(256, &[]);
        let mut verifier = LedgerVerifier::new([]);
        let mut tiles = Tiles::new();
        for (index, entry) in &stored.rows {
            tiles.append(&mut verifier.event(*index, entry, stored.hashes[*index as usize]).unwrap());
        }
        assert_eq!(tiles.into_values().collect::<Vec<_>>(), [stored.hashes]);
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
            prop_assert!(proven <= at as u64);
            prop_assert!(signed.iter().all(|&signed| signed > at || signed as u64 <= proven));
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
