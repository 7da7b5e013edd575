//! The bastion and its targets in one process, on either database.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod fixtures;
mod toy_target;
