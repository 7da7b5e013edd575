//! What a recording's segments must agree with: its part of the manifest, its cast, and the file operations that events tell of.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use serde_json::Value;

use super::super::manifest::{Manifest, RecordingSeal, SegmentSeal};
use super::super::verify::{RecordingVerifier, SegmentFault, Tally};
use super::{PLAIN, canonical};
use crate::cast::{Encoder, Header, Version};
use crate::channel::{Program, TerminalSize};
use crate::hash::Hash;
use crate::recording::frame::{Body, Frame};
use crate::recording::segment::{self, SegmentError, Snapshot};

/// The largest segment that is decompressed, in bytes. They are cut at 256 KiB, or at what one second brings.
const MOST_SEGMENT: u64 = 256 << 20;

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingFault {
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    #[error("segment {number} cannot be decompressed: {message}")]
    Compression { number: usize, message: String },
    #[error("segment {number} has not the {bytes} bytes that its manifest says")]
    Size { number: usize, bytes: u64 },
    #[error("segment {number} cannot be read")]
    Content {
        number: usize,
        #[source]
        source: SegmentError,
    },
    #[error("segment {number} is not from {start_us} µs to {end_us} µs, as its manifest says")]
    Times { number: usize, start_us: u64, end_us: u64 },
    #[error("line {line} of the cast is not what the segments give, from byte {at} of the file on")]
    Cast { line: usize, at: usize },
    #[error("there is no cast")]
    NoCast,
    #[error("there is a cast, though the recording is encrypted")]
    CastOfEncrypted,
    #[error("segment {number} is encrypted, and cannot be read: {message}")]
    Encrypted { number: usize, message: String },
}

impl RecordingFault {
    /// Whether the segments are sound and it is the cast that is wrong.
    pub fn is_of_cast(&self) -> bool {
        matches!(self, RecordingFault::Cast { .. } | RecordingFault::NoCast | RecordingFault::CastOfEncrypted)
    }
}

/// The first line of a recording's cast, from what is proved: its manifest and its first segment.
pub fn header(manifest: &Manifest, seal: &RecordingSeal, first: Option<&Snapshot>) -> Header {
    let size = if seal.terminal {
        Some(first.and_then(|snapshot| snapshot.size).unwrap_or(TerminalSize { cols: 0, rows: 0 }).drawable())
    } else {
        None
    };
    let command = match &seal.program {
        Program::Exec { command } => Some(String::from_utf8_lossy(command).into_owned()),
        Program::Shell | Program::Subsystem { .. } | Program::Forward { .. } => None,
    };
    Header {
        size,
        term: None,
        timestamp: u64::try_from(seal.started_at.timestamp()).ok(),
        title: Some(format!("{} → {}@{}", manifest.person.name, manifest.login, manifest.target.name)),
        command,
        env: BTreeMap::new(),
    }
}

/// Opens one stored segment. `number` is for errors; the hash is the caller's to check first.
pub fn open(number: usize, seal: &SegmentSeal, stored: &[u8]) -> Result<(Snapshot, Vec<Frame>), RecordingFault> {
    let (start_us, end_us) = (seal.start_us, seal.end_us);
    let bytes = decompress(number, seal, stored)?;
    let (snapshot, frames) =
        segment::parse(Bytes::from(bytes)).map_err(|source| RecordingFault::Content { number, source })?;
    let times = frames.first().map(|frame| frame.at).zip(frames.last().map(|frame| frame.at));
    if times == Some((start_us, end_us)) && frames.is_sorted_by_key(|frame| frame.at) {
        Ok((snapshot, frames))
    } else {
        Err(RecordingFault::Times { number, start_us, end_us })
    }
}

fn decompress(number: usize, seal: &SegmentSeal, stored: &[u8]) -> Result<Vec<u8>, RecordingFault> {
    let failed = |message: String| RecordingFault::Compression { number, message };
    let decoder = ruzstd::decoding::StreamingDecoder::new(stored).map_err(|error| failed(error.to_string()))?;
    let most = seal.bytes.min(MOST_SEGMENT);
    let mut bytes = Vec::new();
    decoder.take(most + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 == seal.bytes { Ok(bytes) } else { Err(RecordingFault::Size { number, bytes: seal.bytes }) }
}

/// Decrypts a stored segment with keys of the client's: `None` if none of them fits, else what was encrypted, or why it cannot be
/// decrypted, in words.
pub type Opener<'o> = &'o dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, String>;

/// Decrypts one stored segment; `None` if there is no key that fits.
fn decrypt(number: usize, stored: &[u8], opener: Option<Opener<'_>>) -> Result<Option<Vec<u8>>, RecordingFault> {
    let failed = |message: String| RecordingFault::Encrypted { number, message };
    if !stored.starts_with(segment::ENCRYPTED_MAGIC) {
        return Err(failed("it is no age file".to_owned()));
    }
    opener.map_or(Ok(None), |opener| opener(stored).map_err(failed))
}

/// What comes out of a recording that was verified.
#[derive(Debug, Default)]
pub struct Sound {
    pub segments: u64,
    /// It is encrypted, and there was no key to look into it: its segments are what was stored.
    pub is_closed: bool,
    /// Canonical JSON of each file operation in the frames, and how often it is there.
    pub file_operations: BTreeMap<Vec<u8>, u64>,
}

/// Verifies a recording: every stored segment against the manifest, the frames against its counters, and the cast against the
/// frames. Needs memory for one segment at a time. An encrypted recording has no cast, and is looked into with `opener`, if that can.
pub fn check(
    manifest: &Manifest,
    seal: &RecordingSeal,
    stored: &[u8],
    cast: Option<&[u8]>,
    opener: Option<Opener<'_>>,
) -> Result<Sound, RecordingFault> {
    let segments = split(seal, stored)?;
    let is_closed = seal.is_encrypted() && opener.is_none();
    let mut sound = Sound { segments: segments.len() as u64, is_closed, ..Sound::default() };
    if seal.is_encrypted() && cast.is_some() {
        return Err(RecordingFault::CastOfEncrypted);
    }
    let mut tally = Tally::default();
    let (mut lines, mut encoder) = (Vec::new(), None);
    let mut expected = Compared::new(cast.unwrap_or_default());
    for (number, (segment, stored)) in segments.into_iter().enumerate() {
        let decrypted;
        let plain = if seal.is_encrypted() {
            decrypted = decrypt(number, stored, opener)?;
            let Some(plain) = &decrypted else {
                sound.is_closed = true;
                continue;
            };
            plain.as_slice()
        } else {
            stored
        };
        let (snapshot, frames) = open(number, segment, plain)?;
        let encoder = encoder
            .get_or_insert_with(|| Encoder::new(Version::V3, &header(manifest, seal, Some(&snapshot)), &mut lines));
        for frame in &frames {
            tally.add(frame);
            encoder.frame(frame, &mut lines);
            if let Some(operation) = file_operation(frame) {
                *sound.file_operations.entry(operation).or_default() += 1;
            }
        }
        expected.next(&lines);
        lines.clear();
    }
    if sound.is_closed {
        return Ok(sound);
    }
    tally.check(seal)?;
    let encoder = encoder.unwrap_or_else(|| Encoder::new(Version::V3, &header(manifest, seal, None), &mut lines));
    encoder.finish(&mut lines);
    expected.next(&lines);
    if seal.is_encrypted() {
        return Ok(sound);
    }
    if cast.is_none() {
        return Err(RecordingFault::NoCast);
    }
    match expected.finish() {
        Some((line, at)) => Err(RecordingFault::Cast { line, at }),
        None => Ok(sound),
    }
}

/// The cast of a recording whose segments may be encrypted; `None` if there is no key that fits.
pub fn cast(
    manifest: &Manifest,
    seal: &RecordingSeal,
    stored: &[u8],
    opener: Opener<'_>,
) -> Result<Option<Vec<u8>>, RecordingFault> {
    let (mut lines, mut encoder) = (Vec::new(), None);
    for (number, (segment, stored)) in split(seal, stored)?.into_iter().enumerate() {
        let Some(plain) = decrypt(number, stored, Some(opener))? else { return Ok(None) };
        let (snapshot, frames) = open(number, segment, &plain)?;
        let encoder = encoder
            .get_or_insert_with(|| Encoder::new(Version::V3, &header(manifest, seal, Some(&snapshot)), &mut lines));
        frames.iter().for_each(|frame| encoder.frame(frame, &mut lines));
    }
    let encoder = encoder.unwrap_or_else(|| Encoder::new(Version::V3, &header(manifest, seal, None), &mut lines));
    encoder.finish(&mut lines);
    Ok(Some(lines))
}

/// Cuts the file of segments where the manifest says, and verifies the hash of each.
fn split<'m, 's>(
    seal: &'m RecordingSeal,
    mut stored: &'s [u8],
) -> Result<Vec<(&'m SegmentSeal, &'s [u8])>, RecordingFault> {
    let mut verifier = RecordingVerifier::new(seal);
    let mut segments = Vec::new();
    for segment in &seal.segments {
        let length = usize::try_from(segment.stored_bytes).unwrap_or(usize::MAX);
        let Some((bytes, rest)) = stored.split_at_checked(length) else {
            return Err(verifier.missing().into());
        };
        verifier.segment(Hash::of(bytes))?;
        segments.push((segment, bytes));
        stored = rest;
    }
    if !stored.is_empty() {
        verifier.segment(Hash::of(stored))?;
    }
    verifier.finish()?;
    Ok(segments)
}

/// The canonical JSON of the file operation that a frame tells of, without the number of its event.
fn file_operation(frame: &Frame) -> Option<Vec<u8>> {
    let Body::File(text) = &frame.body else {
        return None;
    };
    let mut told: Value = serde_json::from_str(text).ok()?;
    told.get("file_act")?;
    told.as_object_mut()?.remove("event");
    canonical::encode(PLAIN, &told).ok()
}

/// Compares bytes that come in pieces with what is there.
struct Compared<'a> {
    rest: &'a [u8],
    line: usize,
    at: usize,
    differs: bool,
}

impl<'a> Compared<'a> {
    fn new(found: &'a [u8]) -> Self {
        Self { rest: found, line: 1, at: 0, differs: false }
    }

    fn next(&mut self, expected: &[u8]) {
        if self.differs {
            return;
        }
        let same = expected.iter().zip(self.rest).take_while(|(expected, found)| expected == found).count();
        let (passed, rest) = self.rest.split_at(same);
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at += same;
        self.rest = rest;
        self.differs = same < expected.len();
    }

    /// The line, from 1, and the byte, from 0, of the first difference.
    fn finish(self) -> Option<(usize, usize)> {
        (self.differs || !self.rest.is_empty()).then_some((self.line, self.at))
    }
}
