//! Sallyport, an audited SSH bastion.

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod toy_target;
