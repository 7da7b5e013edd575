//! The ledger: all events in one order that cannot be changed quietly, and what an outsider needs to see that for
//! himself. `docs/formats.md` says the same without code.
//!
//! ```text
//! Event ──entry──► bytes ──merkle──► tree in tiles ──checkpoint──► signed note ──► anchors
//!                                        └──tile::Plan──► inclusion and consistency proofs
//! ```
//!
//! - [`bundle`]: everything about a grant or a session in one file, with its proofs, and its verifier.
//! - [`canonical`]: JSON with one spelling (RFC 8785), behind a line that names its kind.
//! - [`entry`]: events as the bytes that are hashed.
//! - [`manifest`]: what a session left behind, bound to the ledger by its hash.
//! - [`merkle`]: the tree's hashes and the proofs' verification (RFC 9162 §2.1).
//! - [`tile`]: the tree as it is stored, how it grows, and how proofs are made of it (C2SP tlog-tiles).
//! - [`note`], [`checkpoint`]: signed tree heads (C2SP signed-note, tlog-checkpoint).
//! - [`verify`]: the steps of a verifier over all of it, event by event and segment by segment.

pub mod bundle;
pub mod canonical;
pub mod checkpoint;
pub mod entry;
pub mod key_change;
pub mod manifest;
pub mod merkle;
pub mod note;
pub mod tile;
pub mod verify;
