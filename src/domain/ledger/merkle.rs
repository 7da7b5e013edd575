//! The Merkle tree over the ledger's entries: its hashes, and the proofs' verification.
//!
//! RFC 9162 §2.1 (the same tree as RFC 6962 §2.1), with SHA-256:
//!
//! ```text
//! MTH({})    = SHA-256()
//! MTH({d})   = SHA-256(0x00 ‖ d)                                 a leaf
//! MTH(D[n])  = SHA-256(0x01 ‖ MTH(D[0:k]) ‖ MTH(D[k:n]))         k: the greatest power of two below n
//! ```
//!
//! Nothing here reads the tree; an outsider verifies with this file alone. What is stored of the tree, and how proofs
//! are made from it, is in [`super::tile`].

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hash::Hash;

/// The hash of a leaf whose entry is `data`.
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(data);
    Hash(hasher.finalize().into())
}

/// The hash of the node above `left` and `right`.
pub fn node_hash(left: Hash, right: Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x01]);
    hasher.update(left.0);
    hasher.update(right.0);
    Hash(hasher.finalize().into())
}

/// What a tree head says: how many entries there are, and the one hash that stands for all of them and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
}

impl Head {
    /// The head of the tree without entries.
    pub fn empty() -> Self {
        Self { size: 0, root: Hash::of(b"") }
    }
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("entry {index} is not in a tree of {size} entries")]
    NotInTree { index: u64, size: u64 },
    #[error("a tree of {new} entries does not contain one of {old}")]
    Shrunk { old: u64, new: u64 },
    #[error("the proof has {found} hashes, which is not what its place in the tree needs")]
    Length { found: usize },
    #[error("the proof leads to the root {found}, but the tree of {size} entries has {expected}")]
    Root { size: u64, expected: Hash, found: Hash },
}

/// Verifies that the entry with the hash `leaf` is entry `index` of the tree with this head. RFC 9162 §2.1.3.2.
pub fn verify_inclusion(leaf: Hash, index: u64, head: &Head, path: &[Hash]) -> Result<(), ProofError> {
    if index >= head.size {
        return Err(ProofError::NotInTree { index, size: head.size });
    }
    let length = ProofError::Length { found: path.len() };
    // The RFC's `fn` and `sn`: the places of our node and of the last node, at the height that was reached.
    let (mut place, mut last) = (index, head.size - 1);
    let mut found = leaf;
    for &hash in path {
        if last == 0 {
            return Err(length);
        }
        if is_right(place) || place == last {
            found = node_hash(hash, found);
            while !is_right(place) && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            found = node_hash(found, hash);
        }
        place >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    same_root(head, found)
}

/// Verifies that the first `old.size` entries of the tree with the head `new` are those of the tree with the head `old`:
/// nothing was changed, removed or put in between. RFC 9162 §2.1.4.2.
///
/// Every tree starts as the empty one, and a tree is its own beginning: both take an empty path, which the RFC
/// leaves out.
pub fn verify_consistency(old: &Head, new: &Head, path: &[Hash]) -> Result<(), ProofError> {
    let length = ProofError::Length { found: path.len() };
    if old.size > new.size {
        return Err(ProofError::Shrunk { old: old.size, new: new.size });
    }
    if old.size == 0 {
        same_root(old, Head::empty().root)?;
    }
    if old.size == new.size {
        same_root(new, old.root)?;
    }
    if old.size == 0 || old.size == new.size {
        return if path.is_empty() { Ok(()) } else { Err(length) };
    }
    let mut path = path.iter().copied();
    let first = if old.size.is_power_of_two() { Some(old.root) } else { path.next() };
    let first = first.ok_or(length)?;
    let (mut place, mut last) = (old.size - 1, new.size - 1);
    while is_right(place) {
        place >>= 1;
        last >>= 1;
    }
    let (mut found_old, mut found_new) = (first, first);
    for hash in path {
        if last == 0 {
            return Err(length);
        }
        if is_right(place) || place == last {
            found_old = node_hash(hash, found_old);
            found_new = node_hash(hash, found_new);
            while !is_right(place) && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            found_new = node_hash(found_new, hash);
        }
        place >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    same_root(old, found_old)?;
    same_root(new, found_new)
}

/// The RFC's "LSB is set".
fn is_right(place: u64) -> bool {
    place & 1 == 1
}

fn same_root(head: &Head, found: Hash) -> Result<(), ProofError> {
    if head.root == found { Ok(()) } else { Err(ProofError::Root { size: head.size, expected: head.root, found }) }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9162 §2.1.1, word for word.
    pub(crate) fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of(b""),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node_hash(mth(left), mth(right))
            }
        }
    }

    /// RFC 9162 §2.1.3.1.
    pub(crate) fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return vec![];
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            [path(index, left), vec![mth(right)]].concat()
        } else {
            [path(index - left.len(), right), vec![mth(left)]].concat()
        }
    }

    /// RFC 9162 §2.1.4.1.
    pub(crate) fn proof(old: usize, leaves: &[Hash]) -> Vec<Hash> {
        subproof(old, leaves, true)
    }

    fn subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if known { vec![] } else { vec![mth(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            [subproof(old, left, known), vec![mth(right)]].concat()
        } else {
            [subproof(old - left.len(), right, false), vec![mth(left)]].concat()
        }
    }

    fn split(length: usize) -> usize {
        length.next_power_of_two() / 2
    }

    /// `size` leaves, each unlike the others.
    pub(crate) fn leaves(size: usize) -> Vec<Hash> {
        (0..size).map(|number| leaf_hash(&(number as u64).to_be_bytes())).collect()
    }

    pub(crate) fn head(leaves: &[Hash]) -> Head {
        Head { size: leaves.len() as u64, root: mth(leaves) }
    }

    /// The entries, and with them the roots and proofs, that the test suites of Certificate Transparency share.
    pub(crate) fn reference() -> Vec<Hash> {
        let entries: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        entries.map(leaf_hash).to_vec()
    }

    pub(crate) const REFERENCE_ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn hashes(texts: &[&str]) -> Vec<Hash> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        for (size, root) in REFERENCE_ROOTS.iter().enumerate() {
            assert_eq!(mth(&reference()[..size]).to_string(), *root, "{size}");
        }
    }

    #[test]
    fn proofs_of_certificate_transparency_verify() {
        let (leaves, head) = (reference(), head(&reference()));
        let first = hashes(&[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]);
        let sixth = hashes(&[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]);
        assert_eq!(verify_inclusion(leaves[0], 0, &head, &first), Ok(()));
        assert_eq!(verify_inclusion(leaves[5], 5, &head, &sixth), Ok(()));
        assert_eq!(verify_consistency(&super::tests::head(&leaves[..1]), &head, &first), Ok(()));
    }

    proptest! {
        #[test]
        fn a_proof_with_one_bit_changed_proves_nothing(
            size in 1_usize..300, at: prop::sample::Index, place: prop::sample::Index, bit in 0_u8..8,
        ) {
            let leaves = leaves(size);
            let (head, index) = (head(&leaves), at.index(size));
            let mut path = path(index, &leaves);
            prop_assert_eq!(verify_inclusion(leaves[index], index as u64, &head, &path), Ok(()));

            let mut bytes: Vec<u8> = path.iter().chain([&leaves[index], &head.root]).flat_map(|hash| hash.0).collect();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let mut hashes = bytes.chunks(32).map(|hash| Hash(hash.try_into().unwrap()));
            path = hashes.by_ref().take(path.len()).collect();
            let (leaf, root) = (hashes.next().unwrap(), hashes.next().unwrap());

            let head = Head { root, ..head };
            prop_assert!(verify_inclusion(leaf, index as u64, &head, &path).is_err());
        }

        #[test]
        fn a_proof_proves_its_own_place_and_no_other(size in 2_usize..200, at: prop::sample::Index, other: u64) {
            let leaves = leaves(size);
            let (head, index) = (head(&leaves), at.index(size) as u64);
            let other = if other % 2 == 0 { other } else { other % (size as u64) };
            let path = path(index as usize, &leaves);
            let proved = verify_inclusion(leaves[index as usize], other, &head, &path);
            prop_assert_eq!(proved.is_ok(), other == index);
        }

        #[test]
        fn a_history_with_one_entry_changed_is_not_consistent(
            new in 2_usize..300, old: prop::sample::Index, at: prop::sample::Index,
        ) {
            let old = 1 + old.index(new - 1);
            let mut leaves = leaves(new);
            let promised = head(&leaves[..old]);
            leaves[at.index(old)] = leaf_hash(b"forged");
            let path = proof(old, &leaves);
            prop_assert!(verify_consistency(&promised, &head(&leaves), &path).is_err());
        }

        #[test]
        fn hostile_proofs_give_an_error_and_no_panic(
            index: u64, old: u64, new: u64, path in prop::collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..80),
        ) {
            let head = |size| Head { size, root: Hash::ZERO };
            prop_assert!(verify_inclusion(Hash::ZERO, index, &head(new), &path).is_err());
            if old != new {
                prop_assert!(verify_consistency(&head(old), &head(new), &path).is_err());
            }
        }
    }

    #[test]
    fn a_proof_of_the_wrong_length_is_refused() {
        let leaves = leaves(6);
        let head = head(&leaves);
        let good = path(2, &leaves);
        let (short, long) = (&good[1..], [good.clone(), vec![Hash::ZERO]].concat());
        assert_eq!(verify_inclusion(leaves[2], 2, &head, short), Err(ProofError::Length { found: 2 }));
        assert_eq!(verify_inclusion(leaves[2], 2, &head, &long), Err(ProofError::Length { found: 4 }));
        assert_eq!(verify_inclusion(leaves[2], 6, &head, &good), Err(ProofError::NotInTree { index: 6, size: 6 }));
    }

    #[test]
    fn a_tree_that_shrank_or_was_replaced_is_refused() {
        let (small, large) = (head(&leaves(5)), head(&leaves(6)));
        assert_eq!(verify_consistency(&large, &small, &[]), Err(ProofError::Shrunk { old: 6, new: 5 }));
        let other = Head { root: Hash::ZERO, ..small };
        assert!(matches!(verify_consistency(&small, &other, &[]), Err(ProofError::Root { size: 5, .. })));
        assert_eq!(verify_consistency(&Head::empty(), &small, &[]), Ok(()));
        assert!(verify_consistency(&Head { size: 0, root: Hash::ZERO }, &small, &[]).is_err());
        assert_eq!(verify_consistency(&small, &small, &[Hash::ZERO]), Err(ProofError::Length { found: 1 }));
    }
}
