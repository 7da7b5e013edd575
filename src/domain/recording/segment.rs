//! Segments: a recording at rest, a run of frames at a time.
//!
//! ```text
//! segment = "SPS1" snapshot-length:u32 snapshot frame…       (stored zstd-compressed, as one frame with a checksum)
//! chain   = SHA-256(chain of the one before ‖ SHA-256(segment as stored))      (32 zero bytes before the first)
//! ```
//!
//! `snapshot` is JSON: the terminal's size and the escape codes that redraw its screen as it was before the first frame.
//! So a replay can start at any segment, and every segment but one can be checked without the others.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{Frame, FrameError};
use crate::channel::TerminalSize;
pub use crate::hash::{Hash, HashError};

/// The first bytes of every segment, once decompressed.
pub const MAGIC: &[u8; 4] = b"SPS1";

/// What an encrypted segment starts with, as it is stored: it is an age file.
pub const ENCRYPTED_MAGIC: &[u8] = b"age-encryption.org/v1\n";

/// The greatest snapshot that is believed, in bytes.
const MOST_SNAPSHOT: usize = 16 << 20;

/// The terminal as it was before a segment's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `None` for a program without a terminal.
    pub size: Option<TerminalSize>,
    /// Escape codes that redraw the screen; empty at the start and for a program without a terminal.
    pub init: String,
}

/// Why bytes are not a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("the bytes do not start as a segment does")]
    Magic,
    #[error("the segment's snapshot cannot be read")]
    Snapshot,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the segment ends in the middle of a frame, {left} bytes before its end")]
    Torn { left: usize },
}

/// Starts a segment's bytes; frames are appended with [`Frame::encode`].
pub fn begin(snapshot: &Snapshot) -> Vec<u8> {
    // A struct of an option and a string always serialises.
    let snapshot = serde_json::to_vec(snapshot).unwrap_or_default();
    let mut bytes = Vec::with_capacity(8 + snapshot.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(snapshot.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&snapshot);
    bytes
}

/// Reads a whole decompressed segment.
pub fn parse(mut bytes: Bytes) -> Result<(Snapshot, Vec<Frame>), SegmentError> {
    if bytes.get(..4) != Some(MAGIC.as_slice()) {
        return Err(SegmentError::Magic);
    }
    let length = bytes.get(4..8).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let length = length.map(|length| length as usize).filter(|&length| length <= MOST_SNAPSHOT);
    let end = 8 + length.ok_or(SegmentError::Snapshot)?;
    let snapshot = bytes.get(8..end).ok_or(SegmentError::Snapshot)?;
    let snapshot = serde_json::from_slice(snapshot).map_err(|_| SegmentError::Snapshot)?;
    let _ = bytes.split_to(end);
    let mut frames = Vec::new();
    while let Some(frame) = Frame::take(&mut bytes)? {
        frames.push(frame);
    }
    if bytes.is_empty() { Ok((snapshot, frames)) } else { Err(SegmentError::Torn { left: bytes.len() }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recording::frame::tests::any_frame;

    proptest! {
        #[test]
        fn a_segment_reads_back(frames in prop::collection::vec(any_frame(), 0..12), init in ".{0,40}") {
            let snapshot = Snapshot { size: Some(TerminalSize { cols: 80, rows: 24 }), init };
            let mut bytes = begin(&snapshot);
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let (found, read) = parse(Bytes::from(bytes)).unwrap();
            prop_assert_eq!(found, snapshot);
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn hostile_bytes_give_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Bytes::from(bytes.clone()));
            let _ = parse(Bytes::from([MAGIC.as_slice(), &bytes].concat()));
        }
    }

    #[test]
    fn the_chain_depends_on_every_segment_and_their_order() {
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        assert_ne!(Hash::ZERO.extended_by(a).extended_by(b), Hash::ZERO.extended_by(b).extended_by(a));
    }
}
