//! The command line.

pub mod export;
pub mod play;
pub mod replay;
