//! The bastion and its targets in one process, on either database.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    unreachable_pub,
    reason = "a test fails by panicking, and has its own tasks and time"
)]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "each test takes what it needs from this shared module")]
mod bastion;
mod campaign;
mod cli;
mod declared;
mod deployment;
mod encrypted;
mod fixtures;
mod init;
mod ledger;
mod outbox;
mod recordings;
mod repeats;
mod retention;
mod rotations;
mod toy_target;
