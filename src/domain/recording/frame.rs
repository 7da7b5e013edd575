//! Frames: one packet, resize, signal or exit each. Journals and segments hold the same frames.
//!
//! ```text
//! frame   = length:u32 at:u64 kind:u8 body      (big-endian; length counts what follows it)
//! ```
//!
//! `at` is microseconds since the recording began, by a monotonic clock. Bodies:
//!
//! | kind | body |
//! |---|---|
//! | `o` output, `e` stderr, `i` input, `n` notice | raw bytes |
//! | `m` masked input, `w` withheld output | count:u32 |
//! | `r` resize | cols:u16 rows:u16 |
//! | `z` input ended, `y` output ended | nothing |
//! | `s` signal | name |
//! | `b` break | milliseconds:u32 |
//! | `x` exit status | status:u32 |
//! | `k` killed by a signal | core:u8, then the signal's name up to a NUL, then the message |
//! | `g` gap | the reason |
//! | `f` file | JSON |
//! | `h` header, `q` end | JSON |

use bytes::{BufMut, Bytes, BytesMut};

use crate::channel::TerminalSize;

/// The greatest length field that is believed, in bytes. A packet is at most 256 KiB (RFC 4253 §6.1 asks for 35,000).
pub const MOST_LENGTH: u32 = 1 << 20;

/// Length, instant and kind: what stands before a frame's body.
pub const HEAD_BYTES: usize = 4 + 8 + 1;

/// Something that happened on a recorded channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Microseconds since the recording began.
    pub at: u64,
    pub body: Body,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Body {
    /// From the target to the client, "data" (RFC 4254 §5.2).
    Output(Bytes),
    /// From the target to the client, "extended data" 1.
    ErrorOutput(Bytes),
    /// From the client to the target.
    Input(Bytes),
    /// Input that the terminal did not echo: only its length, in bytes, is kept.
    MaskedInput { bytes: u32 },
    /// Output of which, as the grant says, only the length in bytes is kept.
    WithheldOutput { bytes: u32 },
    /// From the bastion to the client: a warning or a goodbye on the terminal.
    Notice(Bytes),
    /// "window-change" (§6.7), or the size in "pty-req".
    Resize(TerminalSize),
    /// The client's half of the channel ended (§5.3).
    InputEnd,
    /// The target's half of the channel ended (§5.3).
    OutputEnd,
    /// "signal" (§6.9); the name without `SIG`.
    Signal(String),
    /// "break" (RFC 4335).
    Break { milliseconds: u32 },
    /// "exit-status" (§6.10).
    ExitStatus(u32),
    /// "exit-signal" (§6.10).
    ExitSignal { name: String, core_dumped: bool, message: String },
    /// Something is missing here, and why.
    Gap(String),
    /// As JSON, what was done to a file ([`crate::files::FileOperation`]), or `{"to_target":"hex"}`: what the bastion itself sent
    /// to the target, or in place of what the client sent.
    File(String),
    /// What is being recorded, as JSON; the first frame of a journal.
    Header(String),
    /// How the recording ended, as JSON; the last frame.
    End(String),
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame claims {length} bytes, more than {MOST_LENGTH} or less than its own head")]
    Length { length: u32 },
    #[error("a frame has the unknown kind {kind:#04x}")]
    Kind { kind: u8 },
    #[error("a frame of kind `{}` has a body that does not fit it", char::from(*kind))]
    Body { kind: u8 },
}

impl Body {
    /// The same, without a forward's content: how much went, and not what.
    #[must_use]
    pub fn without_content(self) -> Self {
        let count = |bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX); // a frame is far shorter
        match self {
            Body::Input(bytes) => Body::MaskedInput { bytes: count(&bytes) },
            Body::Output(bytes) | Body::ErrorOutput(bytes) => Body::WithheldOutput { bytes: count(&bytes) },
            other => other,
        }
    }

    /// The letter that stands for this kind of frame.
    pub fn kind(&self) -> u8 {
        match self {
            Body::Output(_) => b'o',
            Body::ErrorOutput(_) => b'e',
            Body::Input(_) => b'i',
            Body::MaskedInput { .. } => b'm',
            Body::WithheldOutput { .. } => b'w',
            Body::Notice(_) => b'n',
            Body::Resize(_) => b'r',
            Body::InputEnd => b'z',
            Body::OutputEnd => b'y',
            Body::Signal(_) => b's',
            Body::Break { .. } => b'b',
            Body::ExitStatus(_) => b'x',
            Body::ExitSignal { .. } => b'k',
            Body::Gap(_) => b'g',
            Body::File(_) => b'f',
            Body::Header(_) => b'h',
            Body::End(_) => b'q',
        }
    }

    /// The body's bytes. For raw bytes this shares, it does not copy.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Body::Output(bytes) | Body::ErrorOutput(bytes) | Body::Input(bytes) | Body::Notice(bytes) => bytes.clone(),
            Body::MaskedInput { bytes: number }
            | Body::WithheldOutput { bytes: number }
            | Body::Break { milliseconds: number }
            | Body::ExitStatus(number) => Bytes::copy_from_slice(&number.to_be_bytes()),
            Body::Resize(TerminalSize { cols, rows }) => {
                let mut bytes = BytesMut::with_capacity(4);
                bytes.put_u16(*cols);
                bytes.put_u16(*rows);
                bytes.freeze()
            }
            Body::InputEnd | Body::OutputEnd => Bytes::new(),
            Body::Signal(text) | Body::Gap(text) | Body::File(text) | Body::Header(text) | Body::End(text) => {
                Bytes::copy_from_slice(text.as_bytes())
            }
            Body::ExitSignal { name, core_dumped, message } => {
                let mut bytes = BytesMut::with_capacity(2 + name.len() + message.len());
                bytes.put_u8(u8::from(*core_dumped));
                bytes.put_slice(name.as_bytes());
                bytes.put_u8(0);
                bytes.put_slice(message.as_bytes());
                bytes.freeze()
            }
        }
    }

    pub(crate) fn parse(kind: u8, body: Bytes) -> Result<Self, FrameError> {
        let misfit = || FrameError::Body { kind };
        let number = |body: &[u8]| body.try_into().map(u32::from_be_bytes).map_err(|_| misfit());
        let text = |body: &[u8]| std::str::from_utf8(body).map(str::to_owned).map_err(|_| misfit());
        Ok(match kind {
            b'o' => Body::Output(body),
            b'e' => Body::ErrorOutput(body),
            b'i' => Body::Input(body),
            b'n' => Body::Notice(body),
            b'm' => Body::MaskedInput { bytes: number(&body)? },
            b'w' => Body::WithheldOutput { bytes: number(&body)? },
            b'r' => {
                let size = number(&body)?;
                Body::Resize(TerminalSize { cols: (size >> 16) as u16, rows: (size & 0xffff) as u16 })
            }
            b'z' if body.is_empty() => Body::InputEnd,
            b'y' if body.is_empty() => Body::OutputEnd,
            b'z' | b'y' => return Err(misfit()),
            b's' => Body::Signal(text(&body)?),
            b'b' => Body::Break { milliseconds: number(&body)? },
            b'x' => Body::ExitStatus(number(&body)?),
            b'k' => {
                let (core, rest) = body.split_first().ok_or_else(misfit)?;
                let end = rest.iter().position(|&byte| byte == 0).ok_or_else(misfit)?;
                Body::ExitSignal {
                    core_dumped: *core != 0,
                    name: text(&rest[..end])?,
                    message: text(&rest[end + 1..])?,
                }
            }
            b'g' => Body::Gap(text(&body)?),
            b'f' => Body::File(text(&body)?),
            b'h' => Body::Header(text(&body)?),
            b'q' => Body::End(text(&body)?),
            _ => return Err(FrameError::Kind { kind }),
        })
    }
}

impl Frame {
    /// What stands before the body on disk; `body` is the length of [`Body::to_bytes`].
    pub fn head(at: u64, kind: u8, body: usize) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        // A body is at most a packet long, far below 4 GiB.
        let length = (HEAD_BYTES - 4 + body) as u32;
        head[..4].copy_from_slice(&length.to_be_bytes());
        head[4..12].copy_from_slice(&at.to_be_bytes());
        head[12] = kind;
        head
    }

    /// Appends this frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let body = self.body.to_bytes();
        out.extend_from_slice(&Self::head(self.at, self.body.kind(), body.len()));
        out.extend_from_slice(&body);
    }

    /// How many bytes [`Frame::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        HEAD_BYTES
            + match &self.body {
                Body::Output(bytes) | Body::ErrorOutput(bytes) | Body::Input(bytes) | Body::Notice(bytes) => {
                    bytes.len()
                }
                other => other.to_bytes().len(),
            }
    }

    /// Takes one frame off the front of `bytes`, sharing its memory; `None` (and `bytes` untouched) if it is not
    /// complete yet. An error is final: there is no way to find the next frame behind a bad one.
    pub fn take(bytes: &mut Bytes) -> Result<Option<Self>, FrameError> {
        let Some(length) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if length > MOST_LENGTH || (length as usize) < HEAD_BYTES - 4 {
            return Err(FrameError::Length { length });
        }
        let end = 4 + length as usize;
        if bytes.len() < end {
            return Ok(None);
        }
        let mut at = [0; 8];
        at.copy_from_slice(&bytes[4..12]);
        let kind = bytes[12];
        let body = Body::parse(kind, bytes.slice(HEAD_BYTES..end))?;
        let _ = bytes.split_to(end);
        Ok(Some(Self { at: u64::from_be_bytes(at), body }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    pub(crate) fn any_frame() -> impl Strategy<Value = Frame> {
        let body = prop_oneof![
            4 => raw().prop_map(Body::Output),
            2 => raw().prop_map(Body::Input),
            1 => raw().prop_map(Body::ErrorOutput),
            1 => raw().prop_map(Body::Notice),
            1 => any::<u32>().prop_map(|bytes| Body::MaskedInput { bytes }),
            1 => any::<u32>().prop_map(|bytes| Body::WithheldOutput { bytes }),
            1 => any::<(u16, u16)>().prop_map(|(cols, rows)| Body::Resize(TerminalSize { cols, rows })),
            1 => Just(Body::InputEnd),
            1 => Just(Body::OutputEnd),
            1 => "[A-Z]{1,8}".prop_map(Body::Signal),
            1 => any::<u32>().prop_map(|milliseconds| Body::Break { milliseconds }),
            1 => any::<u32>().prop_map(Body::ExitStatus),
            1 => ("[A-Z]{0,8}", any::<bool>(), "[^\0]{0,20}")
                .prop_map(|(name, core_dumped, message)| Body::ExitSignal { name, core_dumped, message }),
            1 => ".{0,20}".prop_map(Body::Gap),
            1 => ".{0,20}".prop_map(Body::File),
            1 => ".{0,20}".prop_map(Body::End),
        ];
        (any::<u64>(), body).prop_map(|(at, body)| Frame { at, body })
    }

    proptest! {
        #[test]
        fn every_frame_reads_back(frames in prop::collection::vec(any_frame(), 0..20)) {
            let mut written = Vec::new();
            for frame in &frames {
                let before = written.len();
                frame.encode(&mut written);
                prop_assert_eq!(written.len() - before, frame.encoded_bytes());
            }
            let mut bytes = Bytes::from(written);
            let mut read = Vec::new();
            while let Some(frame) = Frame::take(&mut bytes).unwrap() {
                read.push(frame);
            }
            prop_assert_eq!(read, frames);
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn a_frame_cut_short_is_waited_for_and_never_half_read(frame in any_frame(), cut: prop::sample::Index) {
            let mut written = Vec::new();
            frame.encode(&mut written);
            written.truncate(cut.index(written.len()));
            let mut bytes = Bytes::from(written.clone());
            prop_assert_eq!(Frame::take(&mut bytes), Ok(None));
            prop_assert_eq!(bytes, written);
        }

        #[test]
        fn hostile_bytes_give_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = Bytes::from(bytes);
            while let Ok(Some(_)) = Frame::take(&mut bytes) {}
        }
    }

    #[test]
    fn a_length_is_checked_before_it_is_believed() {
        let mut bytes = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Frame::take(&mut bytes), Err(FrameError::Length { length: u32::MAX }));
    }
}
