//! Journals: frames on local disk, written before a byte goes out on the wire.
//!
//! ```text
//! file    = magic record…
//! magic   = "SPJ1"
//! record  = crc:u32 frame        (CRC-32C of the frame's bytes, big-endian)
//! ```
//!
//! A journal that ends in the middle of a record was torn by a crash. What follows the last whole record is not
//! guessed at: [`Reader`] stops there and says how many bytes it left.

use bytes::Bytes;

use super::frame::{Frame, FrameError, HEAD_BYTES};

/// The first bytes of every journal file.
pub const MAGIC: &[u8; 4] = b"SPJ1";

/// What stands before a frame's body in a journal: CRC and the frame's head.
pub const RECORD_HEAD_BYTES: usize = 4 + HEAD_BYTES;

/// What stands before `body` in a journal, so that head and body can be written without being joined first.
pub fn record_head(at: u64, kind: u8, body: &[u8]) -> [u8; RECORD_HEAD_BYTES] {
    let head = Frame::head(at, kind, body.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), body);
    let mut record = [0; RECORD_HEAD_BYTES];
    record[..4].copy_from_slice(&crc.to_be_bytes());
    record[4..].copy_from_slice(&head);
    record
}

/// Why a journal cannot be read further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the file does not start as a journal does")]
    Magic,
    #[error("the checksum of a record does not match")]
    Checksum,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Takes one record off the front of `bytes`, which starts behind the magic; `None` if it is not complete yet.
/// The number is how many bytes the record took.
pub fn take_record(bytes: &mut Bytes) -> Result<Option<(Frame, usize)>, JournalError> {
    let Some(crc) = bytes.first_chunk::<4>().map(|crc| u32::from_be_bytes(*crc)) else {
        return Ok(None);
    };
    let mut rest = bytes.slice(4..);
    let before = rest.clone();
    let frame = match Frame::take(&mut rest) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let used = before.len() - rest.len();
    if crc32c::crc32c(&before[..used]) != crc {
        return Err(JournalError::Checksum);
    }
    *bytes = rest;
    Ok(Some((frame, 4 + used)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recording::frame::tests::any_frame;

    fn write(frames: &[Frame]) -> Vec<u8> {
        let mut file = Vec::new();
        for frame in frames {
            let body = frame.body.to_bytes();
            file.extend_from_slice(&record_head(frame.at, frame.body.kind(), &body));
            file.extend_from_slice(&body);
        }
        file
    }

    fn read(file: Vec<u8>) -> (Vec<Frame>, Result<usize, JournalError>) {
        let mut bytes = Bytes::from(file);
        let mut frames = Vec::new();
        loop {
            match take_record(&mut bytes) {
                Ok(Some((frame, _))) => frames.push(frame),
                Ok(None) => return (frames, Ok(bytes.len())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    proptest! {
        #[test]
        fn a_journal_torn_anywhere_gives_its_whole_records(
            frames in prop::collection::vec(any_frame(), 0..12), cut: prop::sample::Index,
        ) {
            let file = write(&frames);
            let kept = cut.index(file.len() + 1);
            let (found, left) = read(file[..kept].to_vec());
            prop_assert!(left.is_ok());
            prop_assert_eq!(&frames[..found.len()], &found[..]);
            prop_assert_eq!(write(&found).len() + left.unwrap(), kept);
        }

        #[test]
        fn a_flipped_bit_is_never_read_as_a_frame(
            frames in prop::collection::vec(any_frame(), 1..12), place: prop::sample::Index, bit in 0_u8..8,
        ) {
            let mut file = write(&frames);
            let place = place.index(file.len());
            file[place] ^= 1 << bit;
            let (found, _) = read(file);
            prop_assert!(found.len() < frames.len());
            prop_assert_eq!(&frames[..found.len()], &found[..]);
        }
    }
}
