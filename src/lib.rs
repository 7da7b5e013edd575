//! Sallyport, an audited SSH bastion.

pub mod cli;
#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod toy_target;
