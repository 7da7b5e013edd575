//! The built program end to end: `sallyport serve` on PostgreSQL and S3, a real OpenSSH server behind it, stock clients before
//! it. What they see is what engineers will see.
//!
//! `SALLYPORT_TEST_LARGE=1` moves 1 GiB where a usual run moves 256 MiB.

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

mod audits;
mod bastion;
mod clients;
mod commands;
mod consents;
mod credentials;
mod denials;
mod doctor;
mod evidence;
mod files;
mod forwards;
mod front;
mod jump;
mod keys;
mod limits;
mod object_lock;
mod programs;
mod restarts;
mod restore;
mod rotations;
mod second_factors;
mod secrets;
mod table;
mod traces;
mod transfers;
