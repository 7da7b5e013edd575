//! Sallyport, an audited SSH bastion.

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod ssh;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod toy_target;
