//! Sallyport, an audited SSH bastion.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests have tasks and time of their own"))]

#[doc(hidden)]
pub mod api;
#[doc(hidden)]
pub mod app;
pub mod cli;
#[doc(hidden)]
pub mod config;
mod proxy_protocol;
#[doc(hidden)]
pub mod spans;
#[doc(hidden)]
pub mod ssh;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod toy_target;

#[doc(hidden)]
pub use cli::serve::Bastion;

/// Real servers for the tests; the unit tests of `store` and `app` run on both databases.
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
#[allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking"
)]
mod support;
