//! The ledger: events in an order that cannot be changed quietly, and the proofs of it.

pub mod canonical;
pub mod checkpoint;
pub mod entry;
pub mod merkle;
pub mod note;
pub mod tile;
