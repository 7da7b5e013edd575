//! What rsync's protocol is made of, versions 30 to 32 (rsync's io.c): numbers of several lengths, multiplexed messages.

use bytes::{Buf, BytesMut};

/// What stands before a message: 7 more than its kind, and its length in 24 bits.
const MULTIPLEX_BASE: u32 = 7;

/// Why a stream is not followed any further.
pub(super) type Lost = &'static str;

/// Why nothing could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// There is not enough yet.
    Short,
    Lost(Lost),
}

impl From<Lost> for Stop {
    fn from(what: Lost) -> Self {
        Stop::Lost(what)
    }
}

/// Reads from a slice.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How much was read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(count).ok_or(Stop::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.take(1)?[0])
    }

    /// Two bytes, the least first.
    pub(super) fn short(&mut self) -> Result<u16, Stop> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Four bytes, the least first.
    pub(super) fn int(&mut self) -> Result<i32, Stop> {
        let bytes = self.take(4)?;
        Ok(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// `read_varint`: the first byte says how many follow, and has the highest bits.
    pub(super) fn varint(&mut self) -> Result<i32, Stop> {
        let value = self.long(1, 4)?;
        // Five bytes hold 32 bits and some that must not be set, or a negative number.
        Ok(u32::try_from(value).map_err(|_| Stop::Lost("a number is too large"))?.cast_signed())
    }

    /// `read_varlong`: as [`Reader::varint`], with at least `least` bytes.
    pub(super) fn varlong(&mut self, least: usize) -> Result<i64, Stop> {
        Ok(self.long(least, 8)?.cast_signed())
    }

    fn long(&mut self, least: usize, most: usize) -> Result<u64, Stop> {
        let first = self.byte()?;
        let low = self.take(least - 1)?;
        // So many leading ones, so many bytes more.
        let extra = (first.leading_ones() as usize).min(6);
        let high = self.take(extra)?;
        if least + extra > most + 1 {
            return Err("a number is too long".into());
        }
        // What the ones leave of the first byte comes last, above the others.
        let top = u16::from(first) & ((1 << (8 - extra)) - 1);
        let bytes = high.iter().rev().chain(low.iter().rev());
        let value = bytes.fold(u128::from(top), |value, &byte| value << 8 | u128::from(byte));
        u64::try_from(value).map_err(|_| Stop::Lost("a number is too large"))
    }

    /// `read_vstring`: a length in one or two bytes, then that many.
    pub(super) fn vstring(&mut self) -> Result<&'a [u8], Stop> {
        let first = usize::from(self.byte()?);
        let length = if first & 0x80 == 0 { first } else { (first & 0x7f) << 8 | usize::from(self.byte()?) };
        self.take(length)
    }
}

/// Takes the messages of a stream apart and gives the data among them.
#[derive(Debug, Default)]
pub(super) struct Demultiplexer {
    head: BytesMut,
    /// What is left of the message whose head came, and whether it is data.
    left: Option<(usize, bool)>,
}

impl Demultiplexer {
    /// Takes a piece of the stream, and hands on the pieces of data in it.
    pub(super) fn take(&mut self, mut piece: &[u8], mut data: impl FnMut(&[u8])) -> Result<(), Lost> {
        while !piece.is_empty() {
            if let Some((left, is_data)) = &mut self.left {
                let count = piece.len().min(*left);
                let (part, rest) = piece.split_at(count);
                if *is_data {
                    data(part);
                }
                *left -= count;
                piece = rest;
                if *left == 0 {
                    self.left = None;
                }
                continue;
            }
            let count = piece.len().min(4 - self.head.len());
            self.head.extend_from_slice(&piece[..count]);
            piece = &piece[count..];
            if self.head.len() == 4 {
                let head = self.head.get_u32_le();
                let kind = (head >> 24).checked_sub(MULTIPLEX_BASE).ok_or("a message has no kind")?;
                let length = (head & 0x00ff_ffff) as usize;
                self.left = Some((length, kind == 0)).filter(|&(length, _)| length > 0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As rsync's `write_varlong`; `write_varint` with `least` 1.
    fn written(value: u64, least: usize) -> Vec<u8> {
        let bytes = value.to_le_bytes();
        let mut count = 8;
        while count > least && bytes[count - 1] == 0 {
            count -= 1;
        }
        let bit = 1_u16 << (7 + least - count);
        let top = bytes[count - 1];
        if u16::from(top) >= bit {
            let mut out = vec![!((bit - 1) as u8)];
            out.extend_from_slice(&bytes[..count]);
            out
        } else if count > least {
            let mut out = vec![top | !((bit * 2 - 1) as u8)];
            out.extend_from_slice(&bytes[..count - 1]);
            out
        } else {
            let mut out = vec![top];
            out.extend_from_slice(&bytes[..count - 1]);
            out
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back(value in any::<u32>(), bits in 0u32..32, long in 0u64..1 << 62, more in 0u32..62) {
            let value = value >> bits;
            let bytes = written(value.into(), 1);
            prop_assert_eq!(Reader::new(&bytes).varint(), Ok(value.cast_signed()), "{:?}", bytes);
            let long = long >> more;
            for least in [3, 4] {
                let bytes = written(long, least);
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(reader.varlong(least), Ok(long.cast_signed()), "{:?}", bytes);
                prop_assert_eq!(reader.position(), bytes.len());
            }
        }

        #[test]
        fn messages_are_taken_apart_however_they_are_cut(
            messages in prop::collection::vec((0u32..3, prop::collection::vec(any::<u8>(), 0..40)), 0..10),
            cut in 1usize..9,
        ) {
            let mut stream = Vec::new();
            for (kind, bytes) in &messages {
                let head = (kind + MULTIPLEX_BASE) << 24 | u32::try_from(bytes.len()).unwrap();
                stream.extend_from_slice(&head.to_le_bytes());
                stream.extend_from_slice(bytes);
            }
            let (mut demultiplexer, mut data) = (Demultiplexer::default(), Vec::new());
            for piece in stream.chunks(cut) {
                demultiplexer.take(piece, |part| data.extend_from_slice(part)).unwrap();
            }
            let sent = messages.iter().filter(|(kind, _)| *kind == 0);
            prop_assert_eq!(data, sent.flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>());
        }
    }
}
