//! The pure core of Sallyport: who may reach what, what a channel may do next, what a recording and
//! an event look like. No I/O, no clock, no randomness, no async, no environment: every rule gets its
//! facts and an instant as arguments and returns a value, so an outsider can build a verifier from
//! this package alone.

pub mod hash;
pub mod id;
pub mod name;
pub mod secret;
pub mod ssh_key;

pub mod break_glass;
pub mod consent;
pub mod grant;
pub mod policy;
pub mod principal;
pub mod request;
pub mod retention;
pub mod review;
pub mod target;
pub mod template;

pub mod channel;
pub mod commands;
pub mod kexinit;
pub mod login_name;
pub mod screen;
pub mod terminal;

pub mod files;
pub mod forward;
pub mod rsync;
pub mod scp;
pub mod sftp;

pub mod entity_tag;
pub mod idempotency;

pub mod event;
pub mod ledger;
pub mod outbox;

pub mod cast;
pub mod recording;
pub mod search;
