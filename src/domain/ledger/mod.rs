//! The ledger: events in an order that cannot be changed quietly, and the proofs of it.

pub mod canonical;
pub mod entry;
pub mod merkle;
pub mod tile;
