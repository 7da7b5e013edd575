//! Sealing: a journal's frames become segments.
//!
//! A [`Sealer`] is fed every frame in journal order. It masks what the terminal did not echo, keeps a terminal going so
//! that each segment starts with a snapshot, notes which commands were run, and cuts a segment when it is large or old
//! enough, only where time strictly increases. What it stores goes by the [`Indexer`] too. It computes; reading the journal, storing segments and telling the database are `keeper`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sallyport_domain::cast::utf8::incomplete_tail;
use sallyport_domain::channel::{Program, TerminalSize};
use sallyport_domain::commands::Command;
use sallyport_domain::commands::tracker::Tracker;
use sallyport_domain::ledger::manifest::Gap;
use sallyport_domain::ledger::verify::Tally;
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::recording::mask::Masker;
use sallyport_domain::recording::segment::{self, Hash, Snapshot};
use sallyport_domain::screen::Screen;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::encryption::{Encryption, LiveKey};

use super::index::{Bounds, IndexState, Indexer};

/// What stands before each frame in a journal but not in a segment: the CRC.
const CRC_BYTES: u64 = 4;

/// When a segment is cut.
#[derive(Debug, Clone, Copy)]
pub struct SealSettings {
    /// Bytes of frames. A recording without a terminal takes [`PLAIN_FACTOR`] times as many: nobody seeks in it by the
    /// screen, and a bulk transfer should not become thousands of objects.
    pub segment_bytes: u64,
    pub segment_us: u64,
    /// How much goes into the search index.
    pub index: Bounds,
}

/// See [`SealSettings::segment_bytes`].
pub const PLAIN_FACTOR: u64 = 4;

/// What was counted so far. "in" is towards the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub gaps: u32,
}

/// A segment, ready to be stored.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub number: u32,
    pub start_us: u64,
    pub end_us: u64,
    /// Before compression.
    pub bytes: u64,
    pub stored: Bytes,
    pub sha256: Hash,
    /// Where a sealer goes on after this segment.
    pub resume: Resume,
}

/// Everything that a new sealer needs to go on where another stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The journal position behind the last sealed frame.
    pub position: u64,
    /// The number of the next segment.
    pub number: u32,
    #[serde(with = "hash_as_hex")]
    pub chain: Hash,
    pub counters: Counters,
    pub snapshot: Snapshot,
    pub last_us: u64,
    /// What is in the sealed segments, for the manifest.
    #[serde(default)]
    pub tally: Tally,
    /// Where something is missing in them.
    #[serde(default)]
    pub holes: Vec<Gap>,
    /// What is known of commands so far.
    #[serde(default)]
    pub commands: Tracker,
    /// What is in the search index.
    #[serde(default)]
    pub index: IndexState,
}

impl Resume {
    /// The start of a recording.
    pub fn start(terminal: Option<TerminalSize>) -> Self {
        let size = terminal.map(TerminalSize::drawable);
        Self {
            position: 0,
            number: 0,
            chain: Hash::ZERO,
            counters: Counters::default(),
            snapshot: Snapshot { size, init: String::new() },
            last_us: 0,
            tally: Tally::default(),
            holes: Vec::new(),
            commands: Tracker::default(),
            index: IndexState::default(),
        }
    }

    /// The start of a recording of `program`, whose commands are told.
    pub fn start_of(program: &Program, terminal: Option<TerminalSize>) -> Self {
        Self { commands: Tracker::new(program, terminal.is_some()), ..Self::start(terminal) }
    }
}

/// A resume point as the database keeps it. Of an encrypted recording what was on the screen and typed is apart, encrypted to the
/// recording's own key.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    resume: Resume,
    /// [`Hidden`] in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Hidden {
    screen: String,
    commands: Tracker,
}

impl Resume {
    /// For the database; `None` if it cannot be written.
    pub(super) fn encode(mut self, encryption: Option<&Encryption>) -> Option<String> {
        let hide = |encryption: &Encryption| {
            let (screen, commands) = (std::mem::take(&mut self.snapshot.init), std::mem::take(&mut self.commands));
            let hidden = serde_json::to_vec(&Hidden { screen, commands }).unwrap_or_default();
            STANDARD.encode(encryption.while_it_lives(&hidden))
        };
        let encrypted = encryption.map(hide);
        serde_json::to_string(&Kept { resume: self, encrypted }).ok()
    }

    /// From the database. What is hidden and does not open is left out: the segments that follow begin with an empty screen, and
    /// nothing else is lost by that.
    pub(super) fn decode(text: &str, key: Option<&LiveKey>) -> Option<Self> {
        /// A screen is believed up to 16 MiB, and as much again for the rest.
        const MOST: usize = 32 << 20;
        let Kept { mut resume, encrypted } = serde_json::from_str(text).ok()?;
        let Some(encrypted) = encrypted else { return Some(resume) };
        let opened = STANDARD.decode(encrypted).ok().zip(key).and_then(|(bytes, key)| key.decrypt(&bytes, MOST).ok());
        match opened.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(Hidden { screen, commands }) => (resume.snapshot.init, resume.commands) = (screen, commands),
            None => {
                warn!("The screen at a recording's last cut does not open; the next segment begins with an empty one.")
            }
        }
        Some(resume)
    }
}

mod hash_as_hex {
    use sallyport_domain::recording::segment::Hash;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Turns the frames of one recording into segments.
pub struct Sealer {
    settings: SealSettings,
    screen: Option<Screen>,
    masker: Option<Masker>,
    resume: Resume,
    /// The journal position behind the last frame that came in.
    position: u64,
    /// Frames of the segment being made, as they came.
    pending: Vec<Frame>,
    pending_bytes: u64,
    /// How many of `pending` went to the live tail, and to the index.
    tailed: usize,
    indexer: Indexer,
    /// What passed is kept; if not, only how much did.
    keeps_content: bool,
    encryption: Option<Encryption>,
    /// The last bytes of output, and of standard error: they tell whether a character waits for its rest.
    ends: [Vec<u8>; 2],
}

impl Sealer {
    /// A sealer that goes on from `resume`.
    pub fn new(settings: SealSettings, resume: Resume, keeps_content: bool) -> Self {
        let screen = resume.snapshot.size.and_then(|size| Screen::restore(size, &resume.snapshot.init));
        let plain = resume.snapshot.size.is_none();
        let factor = if plain { PLAIN_FACTOR } else { 1 };
        let indexer = Indexer::new(resume.index.clone(), settings.index);
        Self {
            settings: SealSettings { segment_bytes: settings.segment_bytes * factor, ..settings },
            screen,
            masker: (!plain).then(Masker::new),
            position: resume.position,
            resume,
            pending: Vec::new(),
            pending_bytes: 0,
            tailed: 0,
            indexer,
            keeps_content,
            encryption: None,
            ends: Default::default(),
        }
    }

    /// The same, encrypting what it gives out.
    pub(super) fn encrypting(self, encryption: Option<Encryption>) -> Self {
        Self { encryption, ..self }
    }

    /// The journal position behind the last frame that came in.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether something that was typed waits for its echo; see [`Sealer::tick`].
    pub fn is_waiting(&self) -> bool {
        self.masker.as_ref().is_some_and(Masker::is_waiting)
    }

    /// The number of the segment being made.
    pub fn number(&self) -> u32 {
        self.resume.number
    }

    /// What was counted up to the last sealed segment.
    pub fn resume(&self) -> &Resume {
        &self.resume
    }

    /// Takes the next frame of the journal; a segment that became due is appended to `sealed`.
    pub fn push(&mut self, frame: Frame, sealed: &mut Vec<Sealed>) {
        if self.is_due(frame.at) && self.pending.last().is_some_and(|last| last.at < frame.at) {
            self.cut(sealed);
        }
        self.position += CRC_BYTES + frame.encoded_bytes() as u64;
        if matches!(frame.body, Body::Header(_)) {
            return; // says what the database says better
        }
        self.take(frame);
    }

    /// Takes a frame that is in no journal, such as the end or a gap found in recovery.
    pub fn push_own(&mut self, frame: Frame) {
        self.take(frame);
    }

    /// Takes a frame that an earlier sealer had masked already, in a run of nothing but such frames.
    pub fn push_masked(&mut self, frame: Frame) {
        let masker = self.masker.take();
        self.take(frame);
        self.masker = masker;
    }

    /// Time passes without frames: what has waited for an echo is decided, and an old segment is cut.
    pub fn tick(&mut self, now_us: u64, sealed: &mut Vec<Sealed>) {
        let before = self.pending.len();
        if let Some(masker) = &mut self.masker {
            masker.tick(now_us, &mut self.pending);
        }
        self.judge(before, now_us);
        if self.is_due(now_us) {
            self.cut(sealed);
        }
    }

    /// The recording ends here.
    pub fn finish(&mut self, sealed: &mut Vec<Sealed>) {
        self.cut(sealed);
    }

    /// Frames that no segment and no earlier tail holds, encoded, and encrypted if the recording is; `None` if there are none.
    pub fn take_tail(&mut self) -> Option<Bytes> {
        let fresh = &self.pending[self.tailed..];
        if fresh.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(fresh.iter().map(Frame::encoded_bytes).sum());
        fresh.iter().for_each(|frame| frame.encode(&mut bytes));
        fresh.iter().for_each(|frame| self.indexer.push(frame));
        self.tailed = self.pending.len();
        match &self.encryption {
            Some(encryption) => Some(encryption.while_it_lives(&bytes).into()),
            None => Some(bytes.into()),
        }
    }

    /// When the first frame happened that [`Sealer::take_tail`] would give, in microseconds.
    pub fn oldest_untailed(&self) -> Option<u64> {
        self.pending.get(self.tailed).map(|frame| frame.at)
    }

    /// Commands that are new or known better since the last call.
    pub fn take_commands(&mut self) -> Vec<Command> {
        self.resume.commands.take()
    }

    /// What goes into the search index.
    pub fn indexer(&mut self) -> &mut Indexer {
        &mut self.indexer
    }

    /// How much did.
    pub fn index_state(&self) -> &IndexState {
        &self.indexer.state
    }

    /// Whether something is to go into the search index.
    pub fn has_index_news(&self) -> bool {
        self.indexer.has_news()
    }

    /// The number of the next command.
    pub fn next_command(&self) -> u32 {
        self.resume.commands.next_number()
    }

    /// How many commands there were.
    pub fn commands(&self) -> u64 {
        self.resume.commands.count()
    }

    /// Counters and time up to the last frame that came in, sealed or not.
    pub fn progress(&self) -> (Counters, u64) {
        (self.resume.counters, self.resume.last_us)
    }

    fn take(&mut self, mut frame: Frame) {
        self.resume.last_us = self.resume.last_us.max(frame.at);
        let counters = &mut self.resume.counters;
        match &frame.body {
            Body::Output(bytes) => {
                counters.bytes_out += bytes.len() as u64;
                keep_end(&mut self.ends[0], bytes);
            }
            Body::ErrorOutput(bytes) => {
                counters.bytes_out += bytes.len() as u64;
                keep_end(&mut self.ends[1], bytes);
            }
            Body::Input(bytes) => counters.bytes_in += bytes.len() as u64,
            Body::Gap(_) => counters.gaps += 1,
            _ => {}
        }
        if !self.keeps_content {
            frame.body = frame.body.without_content();
        }
        self.pending_bytes += frame.encoded_bytes() as u64;
        if !self.resume.commands.see(&frame, self.screen.as_mut()) {
            error!("The terminal that makes snapshots failed; the recording goes on without them.");
            self.screen = None;
        }
        let (at, before) = (frame.at, self.pending.len());
        match &mut self.masker {
            Some(masker) => masker.push(frame, &mut self.pending),
            None => self.pending.push(frame),
        }
        self.judge(before, at);
    }

    /// Tells the tracker what has become of the input among the pending frames from number `from` on.
    fn judge(&mut self, from: usize, now_us: u64) {
        let commands = &mut self.resume.commands;
        self.pending.iter().skip(from).for_each(|frame| commands.judge(&frame.body));
        commands.settle(now_us);
    }

    fn is_due(&self, now_us: u64) -> bool {
        let Some(oldest) = self.pending.first().map(|frame| frame.at) else {
            return false;
        };
        // A cut inside a character would cost it in the player; but what is never whole must not hold a segment open.
        let patience = if self.ends.iter().any(|end| !incomplete_tail(end).is_empty()) { 2 } else { 1 };
        self.pending_bytes >= self.settings.segment_bytes.saturating_mul(patience)
            || now_us.saturating_sub(oldest) >= self.settings.segment_us.saturating_mul(patience)
    }

    fn cut(&mut self, sealed: &mut Vec<Sealed>) {
        let before = self.pending.len();
        if let Some(masker) = &mut self.masker {
            masker.flush(&mut self.pending);
        }
        self.judge(before, self.resume.last_us);
        self.resume.commands.prepare_to_rest();
        if self.pending.is_empty() {
            return;
        }
        self.pending.iter().skip(self.tailed).for_each(|frame| self.indexer.push(frame));
        self.resume.index.clone_from(&self.indexer.state);
        let mut frames = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.tailed = 0;
        // Input that waited for its echo came out late, with the time at which it was typed.
        frames.sort_by_key(|frame| frame.at);
        let mut bytes = segment::begin(&self.resume.snapshot);
        bytes.reserve(frames.iter().map(Frame::encoded_bytes).sum());
        let (start_us, end_us) =
            (frames.first().map_or(0, |frame| frame.at), frames.last().map_or(0, |frame| frame.at));
        for frame in frames.drain(..) {
            self.resume.tally.add(&frame);
            if let Body::Gap(reason) = &frame.body {
                self.resume.holes.push(Gap { at_us: frame.at, reason: reason.clone() });
            }
            frame.encode(&mut bytes); // each frame's memory is given back at once
        }
        let mut stored = compress(&bytes);
        if let Some(encryption) = &self.encryption {
            stored = encryption.for_rest(&stored);
        }
        let sha256 = Hash::of(&stored);
        let number = self.resume.number;
        self.resume.position = self.position;
        self.resume.number += 1;
        self.resume.chain = self.resume.chain.extended_by(sha256);
        if let Some(size) = self.resume.snapshot.size {
            self.resume.snapshot = match &self.screen {
                Some(screen) => screen.snapshot(),
                None => Snapshot { size: Some(size), init: String::new() },
            };
        }
        sealed.push(Sealed {
            number,
            start_us,
            end_us,
            bytes: bytes.len() as u64,
            stored: stored.into(),
            sha256,
            resume: self.resume.clone(),
        });
    }
}

/// Keeps the last three bytes of a stream in `end`: a character that is not whole has no more.
fn keep_end(end: &mut Vec<u8>, bytes: &[u8]) {
    end.extend(bytes.iter().skip(bytes.len().saturating_sub(3)));
    end.drain(..end.len().saturating_sub(3));
}

/// Compresses a segment as one zstd frame with a checksum.
fn compress(bytes: &[u8]) -> Vec<u8> {
    /// Text shrinks eightfold at this level for a seventh of a second per 20 MB.
    const LEVEL: i32 = 1;
    /// What does not shrink in a sample (archives, ciphertext) is passed through by zstd's fastest level.
    const LEVEL_INCOMPRESSIBLE: i32 = -50;
    let sample = &bytes[..bytes.len().min(16 << 10)];
    let shrinks = zstd::bulk::compress(sample, LEVEL).is_ok_and(|small| small.len() < sample.len() / 10 * 9);
    let level = if shrinks { LEVEL } else { LEVEL_INCOMPRESSIBLE };
    let compressor = zstd::bulk::Compressor::new(level).and_then(|mut compressor| {
        compressor.include_checksum(true)?;
        compressor.compress(bytes)
    });
    // zstd fails only for want of memory, and then a Rust program has aborted already.
    let mut stored = compressor.unwrap_or_default();
    stored.shrink_to_fit(); // it waits for the store
    stored
}

/// Decompresses a stored segment of at most `most` bytes.
pub fn decompress(stored: &[u8], most: usize) -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(stored, most)
}

#[cfg(test)]
mod tests {
    use avt::Terminal;

    use super::*;

    const INDEX: Bounds = Bounds { lines: 10_000, bytes: 1 << 20 };
    const SETTINGS: SealSettings = SealSettings { segment_bytes: 4096, segment_us: 120_000_000, index: INDEX };

    fn output(at: u64, text: &str) -> Frame {
        Frame { at, body: Body::Output(Bytes::copy_from_slice(text.as_bytes())) }
    }

    fn seal(resume: Resume, frames: &[Frame]) -> (Sealer, Vec<Sealed>) {
        let mut sealer = Sealer::new(SETTINGS, resume, true);
        let mut sealed = Vec::new();
        frames.iter().for_each(|frame| sealer.push(frame.clone(), &mut sealed));
        (sealer, sealed)
    }

    fn open(sealed: &Sealed) -> (Snapshot, Vec<Frame>) {
        assert_eq!(Hash::of(&sealed.stored), sealed.sha256);
        segment::parse(decompress(&sealed.stored, 1 << 24).unwrap().into()).unwrap()
    }

    fn lines() -> Vec<Frame> {
        (0..1000).map(|number| output(number * 1000, &format!("line {number} \u{1f980}\r\n"))).collect()
    }

    #[test]
    fn segments_hold_every_frame_once_and_chain() {
        let (mut sealer, mut sealed) = seal(Resume::start(Some(TerminalSize { cols: 80, rows: 24 })), &lines());
        sealer.finish(&mut sealed);
        assert!(sealed.len() > 3);
        let frames: Vec<Frame> = sealed.iter().flat_map(|segment| open(segment).1).collect();
        assert_eq!(frames, lines());
        let mut chain = Hash::ZERO;
        for segment in &sealed {
            chain = chain.extended_by(segment.sha256);
            assert_eq!(segment.resume.chain, chain);
        }
        for pair in sealed.windows(2) {
            assert!(pair[0].end_us < pair[1].start_us);
        }
    }

    #[test]
    fn each_segment_starts_with_the_screen_as_it_was() {
        let (mut sealer, mut sealed) = seal(Resume::start(Some(TerminalSize { cols: 40, rows: 5 })), &lines());
        sealer.finish(&mut sealed);
        let mut whole = Terminal::new(40, 5).unwrap();
        for segment in &sealed {
            let (snapshot, frames) = open(segment);
            let mut restored = Terminal::new(40, 5).unwrap();
            restored.feed(snapshot.init.as_str());
            assert_eq!(restored.screen().text(), whole.screen().text());
            for frame in frames {
                if let Body::Output(bytes) = frame.body {
                    whole.feed(std::str::from_utf8(&bytes).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_sealer_that_resumes_makes_the_same_segments() {
        let frames = lines();
        let (mut straight, mut expected) = seal(Resume::start(Some(TerminalSize { cols: 80, rows: 24 })), &frames);
        straight.finish(&mut expected);
        let (_, first) = seal(Resume::start(Some(TerminalSize { cols: 80, rows: 24 })), &frames[..500]);
        let resume = first.last().unwrap().resume.clone();
        let sealed_frames: usize = first.iter().map(|segment| open(segment).1.len()).sum();
        let resume = serde_json::from_str(&serde_json::to_string(&resume).unwrap()).unwrap();
        let (mut second, mut rest) = seal(resume, &frames[sealed_frames..]);
        second.finish(&mut rest);
        let hashes = |segments: &[Sealed]| segments.iter().map(|segment| segment.sha256).collect::<Vec<_>>();
        assert_eq!([hashes(&first), hashes(&rest)].concat(), hashes(&expected));
    }

    #[test]
    fn a_quiet_recording_is_cut_by_age() {
        let (mut sealer, mut sealed) = seal(Resume::start(None), &[output(5, "x")]);
        sealer.tick(119_000_000, &mut sealed);
        assert!(sealed.is_empty());
        sealer.tick(121_000_000, &mut sealed);
        assert_eq!(sealed.len(), 1);
    }

    #[test]
    fn a_sealer_that_resumes_tells_the_same_commands() {
        let typed = |at: u64, text: &str| Frame { at, body: Body::Input(Bytes::copy_from_slice(text.as_bytes())) };
        let lines = (0..300_u64).flat_map(|number| {
            let (at, line) = (number * 10_000, format!("echo {number}"));
            [
                output(at, "\x1b]133;A\x07$ \x1b]133;B\x07"),
                typed(at + 1, &line),
                output(at + 2, &line),
                typed(at + 3, "\r"),
                output(at + 4, "\r\n\x1b]133;C\x07"),
                output(at + 5, &format!("{number}\r\n\x1b]133;D;{number}\x07")),
            ]
        });
        let frames: Vec<Frame> = lines.collect();
        let start = Resume::start_of(&Program::Shell, Some(TerminalSize { cols: 80, rows: 24 }));
        let mut straight = seal(start.clone(), &frames).0;

        let (mut first, sealed) = seal(start, &frames[..1000]);
        let resume = sealed.last().unwrap().resume.clone();
        let sealed_frames: usize = sealed.iter().map(|segment| open(segment).1.len()).sum();
        let resume = serde_json::from_str(&serde_json::to_string(&resume).unwrap()).unwrap();
        let mut second = seal(resume, &frames[sealed_frames..]).0;

        let all = straight.take_commands();
        let mut told = first.take_commands();
        let rest = second.take_commands();
        told.retain(|command| rest.first().is_some_and(|first| command.number < first.number));
        assert!(sealed_frames < 1000 && !told.is_empty());
        assert_eq!([told, rest].concat(), all);
        let ends: Vec<_> = all.iter().map(|command| (command.text.clone(), command.exit_status)).collect();
        assert_eq!(ends, (0..300).map(|number| (format!("echo {number}"), Some(number))).collect::<Vec<_>>());
        assert_eq!(second.commands(), 300);
    }

    fn bytes(at: u64, bytes: &'static [u8]) -> Frame {
        Frame { at, body: Body::Output(Bytes::from_static(bytes)) }
    }

    #[test]
    fn a_segment_is_not_cut_inside_a_character() {
        // With the second packet the segment is full.
        let full = "x".repeat(SETTINGS.segment_bytes as usize - 20);
        let frames = [output(1, &full), bytes(2, b"\xe7"), bytes(3, b"\x95"), bytes(4, b"\x8c"), bytes(5, b"y")];

        let (_, sealed) = seal(Resume::start(Some(TerminalSize { cols: 80, rows: 24 })), &frames);

        assert_eq!(sealed.len(), 1);
        assert_eq!(open(&sealed[0]).1, frames[..4]);
    }

    #[test]
    fn a_character_that_is_never_whole_does_not_hold_a_segment_open() {
        let frames: Vec<Frame> = (0..20_000).map(|number| bytes(number, b"\xe7")).collect();
        let (mut sealer, mut sealed) = seal(Resume::start(Some(TerminalSize { cols: 80, rows: 24 })), &frames);
        assert!(sealed.len() > 10);
        assert!(sealed.iter().all(|segment| segment.bytes < 2 * SETTINGS.segment_bytes + 1000));
        let before = sealed.len();
        sealer.tick(300_000_000, &mut sealed);
        assert_eq!(sealed.len(), before + 1);
    }

    #[test]
    fn the_tail_gives_each_frame_once_until_it_is_sealed() {
        let (mut sealer, mut sealed) = seal(Resume::start(None), &[output(1, "a"), output(2, "b")]);
        assert!(sealer.take_tail().is_some_and(|tail| tail.windows(1).any(|byte| byte == b"b")));
        assert_eq!(sealer.take_tail(), None);
        sealer.push(output(3, "c"), &mut sealed);
        let tail = sealer.take_tail().unwrap();
        assert!(tail.ends_with(b"c") && !tail.windows(1).any(|byte| byte == b"b"));
        sealer.finish(&mut sealed);
        assert_eq!(sealer.take_tail(), None);
    }

    #[test]
    fn what_does_not_shrink_is_stored_all_the_same() {
        let mut noise = vec![0_u8; 300_000];
        let mut state = 1_u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        let stored = compress(&noise);
        assert!(stored.len() < noise.len() + noise.len() / 100);
        assert_eq!(decompress(&stored, 1 << 20).unwrap(), noise);
    }
}
