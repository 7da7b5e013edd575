//! asciicast v3 and v2 from frames and back, and what the web player loads.
//!
//! Recordings are kept as frames ([`crate::recording::segment`]); a cast is made when one is read. asciicast is text and
//! knows terminals only, so [`event`] says in standard events what any player can show, and adds one code, `f`, which
//! players ignore, wherever the standard event alone would not give the frame back. A cast alone therefore still holds
//! every byte of every stream. The mapping is written out in docs/formats.md.
//!
//! Sources: asciicast v3 and v2 (docs.asciinema.org/manual/asciicast), the player's segmented source.

pub mod alis;
pub mod base64;
pub mod decode;
pub mod encode;
pub mod event;
pub mod player;
pub mod utf8;

use std::collections::BTreeMap;

use crate::channel::TerminalSize;

pub use decode::{CastError, Decoder, decode};
pub use encode::{Encoder, Version};

/// What the first line of a cast says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `None` for a program without a terminal; its cast says 80×24.
    pub size: Option<TerminalSize>,
    /// TERM
    pub term: Option<String>,
    /// When the recording began, in seconds since 1970.
    pub timestamp: Option<u64>,
    pub title: Option<String>,
    pub command: Option<String>,
    pub env: BTreeMap<String, String>,
}
