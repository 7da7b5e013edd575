//! Sallyport, an audited SSH bastion.

#[doc(hidden)]
pub mod api;
#[doc(hidden)]
pub mod app;
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod ssh;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod toy_target;
