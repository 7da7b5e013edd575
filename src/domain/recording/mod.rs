//! What one session channel did, as bytes that can be kept, checked and read back.
//!
//! - [`frame`]: the unit. Every packet, resize, signal and exit is one frame.
//! - [`journal`]: frames on local disk, each with a CRC, so that a crash loses at most a torn tail, visibly.
//! - [`segment`]: frames at rest: a run of them with the terminal's state at its start, hash-chained.
//! - [`mask`]: which typed bytes the terminal did not echo, so that passwords never leave the journal.

pub mod frame;
pub mod journal;
pub mod mask;
pub mod segment;
