//! The Merkle tree as it is stored: in tiles of 256 hashes, as in C2SP tlog-tiles, so that appending n entries costs O(n)
//! and a proof reads O(log n) tiles: at most two per level, of which 100 million entries take four.
//!
//! ```text
//! tile (level l, index n) = MTH(D[i·256ˡ : (i+1)·256ˡ])  for i from 256·n to 256·n + 255
//! ```
//!
//! So a tile of level 0 holds hashes of leaves, and each hash in a tile above stands for a full tile below. The last tile
//! of a level is *partial*: it holds what there is. A tile only ever grows at its end, so what is stored serves every
//! older tree too.
//!
//! ```text
//! entries ──leaf_hash──► Edge::append ──► tiles to store, Edge::head ──► checkpoint
//! question ──► Plan ──tiles()──► which tiles to read ──hashes()──► proof
//! ```
//!
//! Nothing here waits for a store: [`Plan`] says which tiles it needs, whoever can read them does, in one query, and
//! hands them back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::merkle::{Head, ProofError, node_hash};
use crate::hash::Hash;

/// How many hashes a full tile holds.
pub const TILE_WIDTH: usize = 256;

/// How many levels of the tree one level of tiles spans.
const TILE_HEIGHT: u32 = 8;

/// Which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// 0 holds the hashes of leaves. At most 7.
    pub level: u8,
    /// Counts the level's tiles from 0.
    pub index: u64,
}

impl TileId {
    /// Where C2SP tlog-tiles puts this tile when it holds `width` hashes: `tile/0/x001/x234/067.p/17`.
    pub fn path(self, width: usize) -> String {
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        let partial = if width < TILE_WIDTH { format!(".p/{width}") } else { String::new() };
        format!("tile/{}/{}{partial}", self.level, groups.join("/"))
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile {} of level {}", self.index, self.level)
    }
}

/// Tiles by their place. A full one has 256 hashes, a partial one fewer, and none is empty.
pub type Tiles = BTreeMap<TileId, Vec<Hash>>;

/// What is wrong with stored tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    #[error("{tile} is missing")]
    Missing { tile: TileId },
    #[error("{tile} has {found} hashes, and {needed} are needed")]
    Short { tile: TileId, needed: usize, found: usize },
    #[error("{bytes} bytes are no tile: it holds 1 to 256 hashes of 32 bytes")]
    Bytes { bytes: usize },
}

/// A tile as it is stored: its hashes, one after another.
pub fn encode_tile(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Reads what [`encode_tile`] wrote.
pub fn decode_tile(bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.is_empty() || hashes.len() > TILE_WIDTH || !rest.is_empty() {
        return Err(TileError::Bytes { bytes: bytes.len() });
    }
    Ok(hashes.iter().map(|&hash| Hash(hash)).collect())
}

/// The hash that stands for a full tile in the level above; `None` if the tile is not full.
pub fn tile_root(hashes: &[Hash]) -> Option<Hash> {
    (hashes.len() == TILE_WIDTH).then(|| perfect(hashes))
}

/// The right edge of the tree: all that has to be known of it to append, and to know its head. At most 255 hashes a
/// level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    /// The partial tile of each level, from level 0; never full, and empty where the level ends with a full one.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tiles that [`Edge::from_tiles`] reads for a tree of `size` entries.
    pub fn tiles(size: u64) -> BTreeSet<TileId> {
        partials(size).map(|(tile, _)| tile).collect()
    }

    /// The edge of the tree that the first `size` entries make. The tiles may be of that tree or of a later one.
    pub fn from_tiles(size: u64, tiles: &Tiles) -> Result<Self, TileError> {
        let mut levels = Vec::new();
        for (tile, width) in partials(size) {
            levels.resize(usize::from(tile.level), Vec::new());
            levels.push(slice(tiles, tile, 0, width)?.to_vec());
        }
        Ok(Self { size, levels })
    }

    /// How many entries the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's head: its size and root.
    pub fn head(&self) -> Head {
        let mut root = None;
        for level in &self.levels {
            root = fold(level, root);
        }
        Head { size: self.size, root: root.unwrap_or(Head::empty().root) }
    }

    /// Appends the hashes of leaves. Gives every tile that grew, with all its hashes: they replace what is stored in
    /// their places. O(n), and at most n / 255 tiles and one per level.
    pub fn append(&mut self, leaves: impl IntoIterator<Item = Hash>) -> Tiles {
        let before = self.size;
        let mut grown = Tiles::new();
        for leaf in leaves {
            self.push(leaf, &mut grown);
        }
        for (tile, _) in partials(self.size) {
            let grew = shift(self.size, u32::from(tile.level)) != shift(before, u32::from(tile.level));
            if let Some(hashes) = self.levels.get(usize::from(tile.level)).filter(|_| grew) {
                grown.insert(tile, hashes.clone());
            }
        }
        grown
    }

    /// Appends the hash of one leaf; tiles that this made full are put into `full`.
    pub fn push(&mut self, leaf: Hash, full: &mut Tiles) {
        let mut hash = leaf;
        for level in 0_u8.. {
            let place = usize::from(level);
            if self.levels.len() <= place {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let Some(hashes) = self.levels.get_mut(place) else { break };
            hashes.push(hash);
            if hashes.len() < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(hashes);
            hash = fold(&hashes, None).unwrap_or(hash);
            full.insert(TileId { level, index: shift(self.size, u32::from(level) + 1) }, hashes);
        }
        self.size += 1;
    }
}

/// The proof that is wanted, as the ranges of entries whose hashes make it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the proof. Each is a range of which the RFC takes the MTH.
    ranges: Vec<(u64, u64)>,
}

impl Plan {
    /// The proof that entry `index` is in the tree of the first `size` entries: PATH, RFC 9162 §2.1.3.1.
    pub fn inclusion(index: u64, size: u64) -> Result<Self, ProofError> {
        if index >= size {
            return Err(ProofError::NotInTree { index, size });
        }
        let (mut start, mut end) = (0, size);
        let mut ranges = Vec::new();
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                ranges.push((middle, end));
                end = middle;
            } else {
                ranges.push((start, middle));
                start = middle;
            }
        }
        ranges.reverse();
        Ok(Self { ranges })
    }

    /// The proof that the tree of `new` entries starts with that of `old`: PROOF, RFC 9162 §2.1.4.1. It is empty if
    /// `old` is 0 or `new`.
    pub fn consistency(old: u64, new: u64) -> Result<Self, ProofError> {
        if old > new {
            return Err(ProofError::Shrunk { old, new });
        }
        let (mut start, mut end) = (0, new);
        let mut ranges = Vec::new();
        // SUBPROOF's `b`: while it is true, the verifier knows the hash of the range from the old head.
        let mut known = true;
        while old != 0 && old != end {
            let middle = start + split(end - start);
            if old <= middle {
                ranges.push((middle, end));
                end = middle;
            } else {
                ranges.push((start, middle));
                start = middle;
                known = false;
            }
        }
        if !known {
            ranges.push((start, end));
        }
        ranges.reverse();
        Ok(Self { ranges })
    }

    /// The tiles that hold what the proof is made of.
    pub fn tiles(&self) -> BTreeSet<TileId> {
        self.ranges.iter().flat_map(|&(start, end)| subtrees(start, end)).map(|subtree| subtree.tile).collect()
    }

    /// The proof. `tiles` must hold what [`Plan::tiles`] asks for; it may hold more. Tiles that were altered make a proof
    /// that does not verify.
    pub fn hashes(&self, tiles: &Tiles) -> Result<Vec<Hash>, TileError> {
        let mth = |&(start, end): &(u64, u64)| {
            let mut roots = Vec::new();
            for Subtree { tile, offset, width } in subtrees(start, end) {
                roots.extend(fold(slice(tiles, tile, offset, width)?, None));
            }
            // A range is never empty, so neither is this.
            let right = roots.pop().unwrap_or(Head::empty().root);
            Ok(roots.into_iter().rev().fold(right, |right, left| node_hash(left, right)))
        };
        self.ranges.iter().map(mth).collect()
    }
}

/// A perfect subtree, by the hashes in one tile that it is made of.
struct Subtree {
    tile: TileId,
    offset: usize,
    /// A power of two up to 128; a subtree of 256 is one hash of the tile above.
    width: usize,
}

/// The perfect subtrees that a range of entries consists of, from left to right.
fn subtrees(mut start: u64, end: u64) -> impl Iterator<Item = Subtree> {
    std::iter::from_fn(move || {
        let height = (end - start).checked_ilog2()?.min(if start == 0 { 63 } else { start.trailing_zeros() });
        let level = height / TILE_HEIGHT;
        let first = shift(start, level);
        start += 1 << height;
        let tile = TileId { level: level as u8, index: first >> TILE_HEIGHT };
        Some(Subtree { tile, offset: in_tile(first), width: 1 << (height % TILE_HEIGHT) })
    })
}

/// The partial tiles of a tree of `size` entries and how many hashes they hold, from level 0.
fn partials(size: u64) -> impl Iterator<Item = (TileId, usize)> {
    let levels = 0..u64::BITS / TILE_HEIGHT;
    let partial = move |level| {
        let width = in_tile(shift(size, level));
        (TileId { level: level as u8, index: shift(size, level + 1) }, width)
    };
    levels.map(partial).filter(|&(_, width)| width > 0)
}

/// `size` / 256^`levels`
fn shift(size: u64, levels: u32) -> u64 {
    size.checked_shr(levels * TILE_HEIGHT).unwrap_or(0)
}

/// Where in its tile the hash with this number is.
fn in_tile(number: u64) -> usize {
    (number % TILE_WIDTH as u64) as usize
}

/// The RFC's `k`: the greatest power of two that is less than `length`, which is at least 2.
fn split(length: u64) -> u64 {
    1 << (length - 1).ilog2()
}

/// The MTH of a row of hashes and, right of it, of what `right` stands for.
fn fold(mut hashes: &[Hash], mut right: Option<Hash>) -> Option<Hash> {
    while !hashes.is_empty() {
        let width = 1 << hashes.len().trailing_zeros();
        let (rest, subtree) = hashes.split_at(hashes.len() - width);
        let root = perfect(subtree);
        right = Some(right.map_or(root, |right| node_hash(root, right)));
        hashes = rest;
    }
    right
}

/// The root over a power of two of hashes.
fn perfect(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => Head::empty().root,
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(perfect(left), perfect(right))
        }
    }
}

fn slice(tiles: &Tiles, tile: TileId, offset: usize, width: usize) -> Result<&[Hash], TileError> {
    let hashes = tiles.get(&tile).ok_or(TileError::Missing { tile })?;
    let (needed, found) = (offset + width, hashes.len());
    hashes.get(offset..needed).ok_or(TileError::Short { tile, needed, found })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::merkle::tests::{REFERENCE_ROOTS, head, leaves, mth, path, proof, reference};
    use super::super::merkle::{leaf_hash, verify_consistency, verify_inclusion};
    use super::*;

    /// A tree made in batches, and the tiles that a store would have kept of it.
    fn grow(leaves: &[Hash], batch: usize) -> (Edge, Tiles) {
        let (mut edge, mut stored) = (Edge::new(), Tiles::new());
        for batch in leaves.chunks(batch) {
            for (tile, hashes) in edge.append(batch.iter().copied()) {
                let old = stored.insert(tile, hashes.clone()).unwrap_or_default();
                assert_eq!(old, hashes[..old.len()], "a tile grows at its end only");
            }
        }
        (edge, stored)
    }

    /// The tiles that were asked for and no others.
    fn only(stored: &Tiles, wanted: &BTreeSet<TileId>) -> Tiles {
        wanted.iter().map(|tile| (*tile, stored[tile].clone())).collect()
    }

    #[test]
    fn every_tree_up_to_600_entries_has_the_root_that_the_rfc_defines() {
        let leaves = leaves(600);
        let (_, stored) = grow(&leaves, 7);
        let mut edge = Edge::new();
        for size in 0..=600 {
            assert_eq!(edge.head(), head(&leaves[..size]), "{size}");
            let read = Edge::from_tiles(size as u64, &only(&stored, &Edge::tiles(size as u64))).unwrap();
            assert_eq!(read.head(), edge.head(), "{size}, read from the tiles of a later tree");
            edge.append(leaves.get(size).copied());
        }
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut edge = Edge::new();
        for (size, root) in REFERENCE_ROOTS.iter().enumerate() {
            assert_eq!(edge.head().root.to_string(), *root);
            edge.append(reference().get(size).copied());
        }
    }

    #[test]
    fn every_entry_of_every_small_tree_is_proved_as_the_rfc_proves_it() {
        let leaves = leaves(130);
        let (_, stored) = grow(&leaves, 130);
        for size in 1..=130 {
            let head = head(&leaves[..size]);
            for index in 0..size {
                let plan = Plan::inclusion(index as u64, size as u64).unwrap();
                let proof = plan.hashes(&only(&stored, &plan.tiles())).unwrap();
                assert_eq!(proof, path(index, &leaves[..size]), "{index} of {size}");
                assert_eq!(verify_inclusion(leaves[index], index as u64, &head, &proof), Ok(()), "{index} of {size}");
            }
        }
    }

    #[test]
    fn every_small_tree_is_proved_to_begin_every_later_one_as_the_rfc_proves_it() {
        let leaves = leaves(100);
        let (_, stored) = grow(&leaves, 3);
        for new in 0..=100 {
            for old in 0..=new {
                let plan = Plan::consistency(old as u64, new as u64).unwrap();
                let found = plan.hashes(&only(&stored, &plan.tiles())).unwrap();
                if old > 0 {
                    assert_eq!(found, proof(old, &leaves[..new]), "{old} of {new}");
                }
                let (old, new) = (head(&leaves[..old]), head(&leaves[..new]));
                assert_eq!(verify_consistency(&old, &new, &found), Ok(()), "{} of {}", old.size, new.size);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn proofs_over_several_levels_of_tiles_are_those_of_the_rfc(
            size in 1_usize..3000, batch in 1_usize..700, later in 0_usize..600,
            at: prop::sample::Index, old: prop::sample::Index,
        ) {
            let leaves = leaves(size + later);
            let (_, stored) = grow(&leaves, batch);
            let (known, index) = (&leaves[..size], at.index(size));
            let old = 1 + old.index(size);

            let plan = Plan::inclusion(index as u64, size as u64).unwrap();
            prop_assert_eq!(plan.hashes(&only(&stored, &plan.tiles())).unwrap(), path(index, known));
            let plan = Plan::consistency(old as u64, size as u64).unwrap();
            prop_assert_eq!(plan.hashes(&only(&stored, &plan.tiles())).unwrap(), proof(old, known));
        }

        #[test]
        fn a_tree_is_the_same_however_its_entries_came(size in 0_usize..1500, batch in 1_usize..700) {
            let leaves = leaves(size);
            let (edge, stored) = grow(&leaves, batch);
            let (at_once, tiles) = grow(&leaves, size.max(1));
            prop_assert_eq!(&edge, &at_once);
            prop_assert_eq!(&stored, &tiles);
            prop_assert_eq!(Edge::from_tiles(size as u64, &stored).unwrap().head(), edge.head());
        }

        #[test]
        fn the_work_for_a_batch_does_not_depend_on_the_size_of_the_tree(before in 0_usize..2000, batch in 1_usize..1000) {
            let (mut edge, _) = grow(&leaves(before), 999);
            let grown = edge.append(leaves(batch));
            prop_assert!(grown.len() <= batch / 255 + 4, "{} tiles for {batch} entries", grown.len());
        }

        #[test]
        fn any_proof_in_a_tree_of_any_size_reads_few_tiles(index: u64, old: u64, size: u64) {
            let size = size.max(1);
            let (index, old) = (index % size, old % size);
            prop_assert!(Plan::inclusion(index, size).unwrap().tiles().len() <= 16);
            prop_assert!(Plan::consistency(old, size).unwrap().tiles().len() <= 16);
            prop_assert!(Edge::tiles(size).len() <= 8);
        }
    }

    #[test]
    fn a_proof_among_a_hundred_million_entries_reads_at_most_eight_tiles() {
        for (index, size) in [(0, 100_000_000), (99_999_999, 100_000_000), (16_777_215, 99_999_999), (5, 16_777_217)] {
            assert!(Plan::inclusion(index, size).unwrap().tiles().len() <= 8);
            assert!(Plan::consistency(index + 1, size).unwrap().tiles().len() <= 8);
        }
    }

    #[test]
    fn tiles_of_a_tree_of_70000_are_those_that_the_specification_counts() {
        let (_, stored) = grow(&leaves(70_000), 1000);
        let widths = |level: u8| {
            let tiles = stored.range(TileId { level, index: 0 }..=TileId { level, index: u64::MAX });
            tiles.map(|(_, hashes)| hashes.len()).collect::<Vec<_>>()
        };
        assert_eq!(widths(0), [vec![256; 273], vec![112]].concat());
        assert_eq!(widths(1), [256, 17]);
        assert_eq!(widths(2), [1]);
        assert_eq!(stored[&TileId { level: 2, index: 0 }], [mth(&leaves(65_536))]);
    }

    #[test]
    fn tiles_that_are_missing_or_short_are_named() {
        let (_, mut stored) = grow(&leaves(300), 300);
        let plan = Plan::inclusion(290, 300).unwrap();
        let tile = TileId { level: 0, index: 1 };
        stored.get_mut(&tile).unwrap().truncate(40);
        assert_eq!(plan.hashes(&stored), Err(TileError::Short { tile, needed: 44, found: 40 }));
        stored.remove(&tile);
        assert_eq!(plan.hashes(&stored), Err(TileError::Missing { tile }));
        assert_eq!(Edge::from_tiles(300, &stored), Err(TileError::Missing { tile }));
    }

    #[test]
    fn a_tile_reads_back_and_other_bytes_are_refused() {
        let hashes = leaves(256);
        assert_eq!(decode_tile(&encode_tile(&hashes)), Ok(hashes));
        for bytes in [0, 1, 31, 33, 257 * 32] {
            assert_eq!(decode_tile(&vec![0; bytes]), Err(TileError::Bytes { bytes }));
        }
    }

    #[test]
    fn a_tile_has_the_path_of_the_specification() {
        assert_eq!(TileId { level: 0, index: 1_234_067 }.path(256), "tile/0/x001/x234/067");
        assert_eq!(TileId { level: 1, index: 0 }.path(17), "tile/1/000.p/17");
        assert_eq!(TileId { level: 3, index: 999 }.path(255), "tile/3/999.p/255");
    }

    #[test]
    fn no_size_is_too_large_to_plan_for() {
        for (index, size) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (1 << 63, u64::MAX)] {
            assert!(Plan::inclusion(index, size).unwrap().ranges.len() <= 64);
            assert!(Plan::consistency(index, size).unwrap().tiles().len() <= 16);
        }
        assert_eq!(Plan::inclusion(7, 7), Err(ProofError::NotInTree { index: 7, size: 7 }));
        assert_eq!(Plan::consistency(8, 7), Err(ProofError::Shrunk { old: 8, new: 7 }));
        assert_ne!(leaf_hash(b""), Head::empty().root);
    }
}
