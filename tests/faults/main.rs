//! What Sallyport promises when things go wrong: it is killed, its stores go away, disks fill, windows end, peers stall.
//!
//! Every test takes the built program with real servers around it, and gives the machine back before the next begins.
//! `SALLYPORT_TEST_LARGE=1` makes them long; `SALLYPORT_TEST_SEED` repeats what was chosen at random.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking, and has its own tasks and time"
)]

#[path = "../support/mod.rs"]
mod support;

mod across;
mod break_glass;
mod cuts;
mod disk_full;
mod encrypted;
mod hand_over;
mod harness;
mod kill;
mod ledger;
mod nodes;
mod outages;
mod proxied;
mod scenario;
mod stalls;
mod warnings;
