//! The SHA-256 of a file that passes in pieces.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::Digest;
use crate::recording::segment::Hash;

/// What a piece that came early costs beside its bytes: a bound on how many small ones wait.
const PIECE_COST: usize = 64;

/// Bytes that wait for those before them, all files of a gate together.
#[derive(Debug)]
pub(crate) struct Room {
    left: usize,
}

impl Room {
    /// Room for `bytes`, the cost of each piece included.
    pub(crate) const fn of(bytes: usize) -> Self {
        Self { left: bytes }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let enough = bytes <= self.left;
        if enough {
            self.left -= bytes;
        }
        enough
    }
}

/// One file's content in one direction.
#[derive(Debug)]
pub(crate) struct Content {
    /// `None` if no digest is wanted, or none can be had any more.
    hasher: Option<Sha256>,
    wanted: bool,
    start: Option<u64>,
    next: u64,
    early: BTreeMap<u64, Vec<u8>>,
    held: usize,
    pub(crate) bytes: u64,
}

impl Content {
    pub(crate) fn new(wanted: bool) -> Self {
        let hasher = wanted.then(Sha256::new);
        Self { hasher, wanted, start: None, next: 0, early: BTreeMap::new(), held: 0, bytes: 0 }
    }

    /// Says that the transfer asks for `offset`; the first one is where it starts.
    pub(crate) fn asked(&mut self, offset: u64) {
        if self.start.is_none() {
            self.start = Some(offset);
            self.next = offset;
        }
    }

    /// Where the transfer starts; zero if nothing was asked yet.
    pub(crate) fn start(&self) -> u64 {
        self.start.unwrap_or(0)
    }

    /// Where it ends, if all from the beginning of the file to there has passed, in order.
    pub(crate) fn end_of_whole(&self) -> Option<u64> {
        (self.hasher.is_some() && self.early.is_empty() && self.start() == 0).then_some(self.next)
    }

    /// Takes a piece at `offset`.
    pub(crate) fn take(&mut self, offset: u64, piece: &[u8], room: &mut Room) {
        self.asked(offset);
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if piece.is_empty() {
            return;
        }
        let Some(hasher) = &mut self.hasher else {
            return;
        };
        if offset < self.next {
            // Bytes that went by before: what the file holds now is not what was hashed.
            return self.spoil(room);
        }
        if offset > self.next {
            return self.put_by(offset, piece, room);
        }
        hasher.update(piece);
        self.next = self.next.saturating_add(piece.len() as u64);
        while let Some((&offset, _)) = self.early.first_key_value().filter(|&(&offset, _)| offset <= self.next) {
            let Some(piece) = self.early.remove(&offset).filter(|_| offset == self.next) else {
                return self.spoil(room);
            };
            hasher.update(&piece);
            self.next = self.next.saturating_add(piece.len() as u64);
            self.held -= piece.len() + PIECE_COST;
            room.left += piece.len() + PIECE_COST;
        }
    }

    fn put_by(&mut self, offset: u64, piece: &[u8], room: &mut Room) {
        let before = self.early.range_mut(..=offset).next_back();
        match before {
            Some((&start, earlier)) if start.saturating_add(earlier.len() as u64) == offset => {
                if !room.take(piece.len()) {
                    return self.spoil(room);
                }
                earlier.extend_from_slice(piece);
                self.held += piece.len();
            }
            Some((&start, earlier)) if start.saturating_add(earlier.len() as u64) > offset => self.spoil(room),
            _ => {
                if !room.take(piece.len() + PIECE_COST) {
                    return self.spoil(room);
                }
                self.early.insert(offset, piece.to_vec());
                self.held += piece.len() + PIECE_COST;
            }
        }
    }

    /// Gives up the digest: the file holds something else than what passed.
    pub(crate) fn spoil(&mut self, room: &mut Room) {
        self.hasher = None;
        self.early.clear();
        room.left += self.held;
        self.held = 0;
    }

    /// The digest of what passed so far.
    pub(crate) fn digest(&self) -> Digest {
        match &self.hasher {
            Some(hasher) if self.early.is_empty() => Digest::Sha256(Hash(hasher.clone().finalize().into())),
            None if !self.wanted => Digest::NotWanted,
            _ => Digest::NotSequential,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_in_any_order_hash_as_the_whole(
            whole in prop::collection::vec(any::<u8>(), 1..300),
            size in 1usize..40,
            seed in any::<u64>(),
        ) {
            let mut pieces: Vec<_> = whole.chunks(size).enumerate().map(|(n, piece)| (n * size, piece)).collect();
            pieces.sort_by_key(|&(offset, _)| (offset as u64 + 1).wrapping_mul(seed | 1));
            let (mut content, mut room) = (Content::new(true), Room::of(100_000));
            content.asked(0);
            for (offset, piece) in pieces {
                content.take(offset as u64, piece, &mut room);
            }
            prop_assert_eq!(content.digest(), Digest::Sha256(Hash::of(&whole)));
            prop_assert_eq!(room.left, 100_000);
        }

        #[test]
        fn what_waits_is_bounded_and_given_back(pieces in prop::collection::vec((0u64..4000, 1usize..400), 0..60)) {
            let (mut content, mut room) = (Content::new(true), Room::of(2000));
            content.asked(0);
            for (offset, length) in pieces {
                content.take(offset, &vec![7; length], &mut room);
                prop_assert_eq!(room.left + content.held, 2000);
            }
            content.spoil(&mut room);
            prop_assert_eq!(room.left, 2000);
        }
    }

    #[test]
    fn what_is_written_twice_has_no_digest() {
        let (mut content, mut room) = (Content::new(true), Room::of(2000));
        content.take(0, b"good", &mut room);
        content.take(0, b"evil", &mut room);
        assert_eq!(content.digest(), Digest::NotSequential);
        assert_eq!(content.bytes, 8);
    }

    #[test]
    fn a_hole_has_no_digest() {
        let (mut content, mut room) = (Content::new(true), Room::of(2000));
        content.take(0, b"a", &mut room);
        content.take(2, b"c", &mut room);
        assert_eq!(content.digest(), Digest::NotSequential);
    }
}
