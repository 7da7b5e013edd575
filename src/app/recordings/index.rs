//! What of a recording goes into the search index: the lines that were printed and what was done to files, in blocks. Computation
//! only, fed by the sealer with masked frames, each once; `keeper` writes what it gives.
//!
//! What is typed never gets here but as the screen showed it. Where a sealer resumes, the same blocks come out under the same numbers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use sallyport_domain::cast::utf8::Utf8;
use sallyport_domain::files::{FileAct, FilePath, RecordedOperation};
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::search::Kind;
use sallyport_domain::search::lines::{LONGEST, Line, LineReader};
use serde::{Deserialize, Serialize};

use crate::app::transcript::visible;
use crate::store::db::search::Block;

/// A block is full with so many lines, or bytes. Larger ones make a smaller index, and more that have all keys but not the words.
const BLOCK_LINES: usize = 16;
const BLOCK_BYTES: usize = 1024;

/// A line like one of so many before it is left out: what refreshes its screen, such as `top`, would use up the session's part.
const REMEMBERED: usize = 512;

/// For each byte that may be indexed, so many are looked at: a flood of one line, which is left out, is cheap to print and not to read.
const LOOKED_AT: u64 = 16;

/// A packet of at least so many bytes, of which more than one in so many is a control byte that no text has, is binary.
const BINARY_PACKET: usize = 512;
const BINARY_SHARE: usize = 16;

/// How much of a session is indexed: what is printed and of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub lines: u64,
    pub bytes: u64,
}

/// How far the index has come; a part of where a sealer resumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexState {
    output: LineReader,
    error_output: LineReader,
    screen: Open,
    files: Open,
    /// In blocks that are full, and in those that are not.
    pub lines: u64,
    pub bytes: u64,
    /// Bytes of output that were read.
    #[serde(default)]
    looked_at: u64,
    /// Some output was no text, and is not indexed.
    #[serde(default)]
    pub passes_over: bool,
    /// There was more than the bounds allow; what follows is not looked at.
    pub is_cut: bool,
}

impl IndexState {
    /// The number behind the last block of a kind.
    pub fn end(&self, kind: Kind) -> u64 {
        let open = if kind == Kind::File { &self.files } else { &self.screen };
        open.number + u64::from(!open.lines.is_empty())
    }
}

/// The block that is being filled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    number: u64,
    lines: Vec<Line>,
}

impl Open {
    fn bytes(&self) -> usize {
        self.lines.iter().map(|line| line.text.len()).sum()
    }
}

/// Makes blocks of frames.
pub struct Indexer {
    pub state: IndexState,
    bounds: Bounds,
    output: Utf8,
    error_output: Utf8,
    recent: Recent,
    full: Vec<Block>,
    /// The blocks being filled may have lines that were not given out yet.
    is_changed: bool,
    /// What was given out of them last, by its hash.
    given: HashMap<Kind, u64>,
    read: Vec<Line>,
}

impl Indexer {
    /// One that goes on from `state`.
    pub fn new(state: IndexState, bounds: Bounds) -> Self {
        Self {
            state,
            bounds,
            output: Utf8::default(),
            error_output: Utf8::default(),
            recent: Recent::default(),
            full: Vec::new(),
            is_changed: false,
            given: HashMap::new(),
            read: Vec::new(),
        }
    }

    /// From now on it is bounded so.
    pub fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Takes the next frame, as it is stored.
    pub fn push(&mut self, frame: &Frame) {
        if self.state.is_cut {
            return;
        }
        match &frame.body {
            Body::Output(bytes) => self.print(frame.at, bytes, false),
            Body::ErrorOutput(bytes) => self.print(frame.at, bytes, true),
            Body::File(text) => self.note_file(frame.at, text),
            Body::End(_) => {
                self.state.output.finish(&mut self.read);
                self.state.error_output.finish(&mut self.read);
            }
            Body::Notice(_)
            | Body::Resize(_)
            | Body::Input(_)
            | Body::MaskedInput { .. }
            | Body::WithheldOutput { .. }
            | Body::InputEnd
            | Body::OutputEnd
            | Body::Signal(_)
            | Body::Break { .. }
            | Body::ExitStatus(_)
            | Body::ExitSignal { .. }
            | Body::Gap(_)
            | Body::Header(_) => {}
        }
        for line in std::mem::take(&mut self.read) {
            if !is_text(&line.text) {
                self.state.passes_over = true;
            } else if self.recent.is_new(&line.text) {
                self.add(Kind::Screen, line);
            }
        }
        // What stands on an unfinished line is found too, once the line rests.
        self.is_changed |= matches!(frame.body, Body::Output(_) | Body::ErrorOutput(_));
    }

    fn print(&mut self, at: u64, bytes: &[u8], is_error: bool) {
        let (reader, utf8) = if is_error {
            (&mut self.state.error_output, &mut self.error_output)
        } else {
            (&mut self.state.output, &mut self.output)
        };
        if is_binary(bytes) {
            self.state.passes_over = true;
            reader.finish(&mut self.read);
            (*reader, *utf8) = (LineReader::default(), Utf8::default()); // what comes after it begins anew
            return;
        }
        self.state.looked_at += bytes.len() as u64;
        if self.state.looked_at > self.bounds.bytes.saturating_mul(LOOKED_AT) {
            self.state.is_cut = true;
        } else if let Some(piece) = utf8.push(bytes) {
            reader.push(at, &piece.text, &mut self.read);
        }
    }

    fn note_file(&mut self, at: u64, text: &str) {
        // Written by ourselves; what does not read is told of elsewhere.
        let Ok(recorded) = serde_json::from_str::<RecordedOperation>(text) else { return };
        let paths: Vec<String> = paths(&recorded.operation.act).into_iter().map(shown).collect();
        let text: String = paths.join(" → ").chars().take(LONGEST).collect();
        if !text.trim().is_empty() {
            self.add(Kind::File, Line { at, text });
            self.is_changed = true;
        }
    }

    fn add(&mut self, kind: Kind, line: Line) {
        if self.state.is_cut {
            return;
        }
        let bytes = line.text.len() as u64;
        if self.state.lines >= self.bounds.lines || self.state.bytes + bytes > self.bounds.bytes {
            self.state.is_cut = true;
            return;
        }
        self.state.lines += 1;
        self.state.bytes += bytes;
        let open = if kind == Kind::File { &mut self.state.files } else { &mut self.state.screen };
        open.lines.push(line);
        if open.lines.len() >= BLOCK_LINES || open.bytes() >= BLOCK_BYTES {
            self.full.push(Block { kind, number: open.number, lines: std::mem::take(&mut open.lines) });
            open.number += 1;
        }
    }

    /// Whether something is not in a block that was given out.
    pub fn has_news(&self) -> bool {
        self.is_changed || !self.full.is_empty()
    }

    /// Blocks that are new or have grown, since the last call.
    pub fn take(&mut self) -> Vec<Block> {
        let mut blocks = std::mem::take(&mut self.full);
        if std::mem::take(&mut self.is_changed) {
            let mut screen = self.state.screen.lines.clone();
            if !self.state.is_cut {
                screen.extend(self.state.output.unfinished().into_iter().chain(self.state.error_output.unfinished()));
            }
            let files = self.state.files.lines.clone();
            for (kind, lines, open) in
                [(Kind::Screen, screen, &self.state.screen), (Kind::File, files, &self.state.files)]
            {
                let mut hasher = DefaultHasher::new();
                (open.number, &lines).hash(&mut hasher);
                if !lines.is_empty() && self.given.insert(kind, hasher.finish()) != Some(hasher.finish()) {
                    blocks.push(Block { kind, number: open.number, lines });
                }
            }
        }
        blocks
    }
}

/// Whether a packet is a piece of an archive, an image, something encrypted. Told without reading it as text, which takes as long for a
/// transfer as all else that is done with it.
fn is_binary(bytes: &[u8]) -> bool {
    // Counted in bytes and without a branch, sixteen at a time: every byte of a transfer comes through here.
    let is_no_texts = |byte: u8| {
        (byte <= 0x06) | (byte.wrapping_sub(0x10) <= 0x0a) | (byte.wrapping_sub(0x1c) <= 0x03) | (byte == 0x7f)
    };
    let count = |some: &[u8]| usize::from(some.iter().fold(0_u8, |count, byte| count + u8::from(is_no_texts(*byte))));
    bytes.len() >= BINARY_PACKET && bytes.chunks(u8::MAX.into()).map(count).sum::<usize>() * BINARY_SHARE > bytes.len()
}

/// Whether a line can be words: at most an eighth of it is bytes that are no characters. Archives, images and the streams of
/// file transfers have nothing to find, and would use up the session's part.
fn is_text(line: &str) -> bool {
    let (lost, all) =
        line.chars().fold((0, 0), |(lost, all), c| (lost + usize::from(c == char::REPLACEMENT_CHARACTER), all + 1));
    lost * 8 <= all
}

/// A path as a person sees it, in one line.
fn shown(path: &FilePath) -> String {
    visible(&String::from_utf8_lossy(&path.0)).replace(['\n', '\t'], "\u{fffd}")
}

fn paths(act: &FileAct) -> Vec<&FilePath> {
    match act {
        FileAct::Transfer { path, .. }
        | FileAct::Open { path, .. }
        | FileAct::Look { path }
        | FileAct::Remove { path }
        | FileAct::MakeDirectory { path }
        | FileAct::RemoveDirectory { path }
        | FileAct::SetAttributes { path } => vec![path],
        FileAct::Rename { from, to } | FileAct::Copy { from, to, .. } => vec![from, to],
        FileAct::Symlink { link, target } | FileAct::Hardlink { link, target } => vec![link, target],
        FileAct::Unknown { .. } => vec![],
        FileAct::Sync { paths, .. } => paths.iter().collect(),
    }
}

/// The last lines, by their hashes.
#[derive(Default)]
struct Recent {
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl Recent {
    fn is_new(&mut self, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use sallyport_domain::files::{FileOperation, FileResult};
    use sallyport_domain::id::EventId;
    use uuid::Uuid;

    use super::*;

    const BOUNDS: Bounds = Bounds { lines: 1000, bytes: 100_000 };

    fn output(at: u64, text: &str) -> Frame {
        Frame { at, body: Body::Output(Bytes::copy_from_slice(text.as_bytes())) }
    }

    fn texts(blocks: &[Block], kind: Kind) -> Vec<String> {
        let of_kind = blocks.iter().filter(|block| block.kind == kind);
        of_kind.flat_map(|block| block.lines.iter().map(|line| line.text.clone())).collect()
    }

    #[test]
    fn what_was_printed_is_in_blocks_and_the_line_that_has_not_ended_too() {
        let mut indexer = Indexer::new(IndexState::default(), BOUNDS);
        indexer.push(&output(1, "one\r\ntwo\r\n$ "));
        indexer.push(&output(2, "wait"));

        let blocks = indexer.take();
        indexer.push(&output(3, "ing\r\n"));
        let later = indexer.take();

        assert_eq!(texts(&blocks, Kind::Screen), ["one", "two", "$ wait"]);
        assert_eq!(texts(&later, Kind::Screen), ["one", "two", "$ waiting"]);
        assert_eq!((blocks[0].number, later[0].number), (0, 0));
        assert!(!indexer.has_news());
    }

    #[test]
    fn what_was_typed_is_never_indexed() {
        let mut indexer = Indexer::new(IndexState::default(), BOUNDS);
        let typed = Body::Input(Bytes::from_static(b"hunter2\r\n"));
        for body in [typed, Body::MaskedInput { bytes: 7 }, Body::Notice(Bytes::from_static(b"hunter2\n"))] {
            indexer.push(&Frame { at: 1, body });
        }
        assert!(indexer.take().is_empty());
    }

    #[test]
    fn a_flood_is_cut_and_what_repeats_costs_nothing() {
        let mut indexer = Indexer::new(IndexState::default(), Bounds { lines: 100, bytes: 100_000 });
        for _ in 0..1000 {
            indexer.push(&output(1, "\x1b[Hload average\x1b[2;1H  1 root\n"));
        }
        assert_eq!((indexer.state.lines, indexer.state.is_cut), (2, false));
        for number in 0..1000 {
            indexer.push(&output(2, &format!("line {number}\n")));
        }
        assert_eq!((indexer.state.lines, indexer.state.is_cut), (100, true));
        let blocks = indexer.take();
        assert_eq!(texts(&blocks, Kind::Screen).len(), 100);
        assert!(blocks.iter().all(|block| block.lines.len() <= BLOCK_LINES));
    }

    #[test]
    fn a_flood_of_one_line_is_not_read_for_ever() {
        let mut indexer = Indexer::new(IndexState::default(), Bounds { lines: 100, bytes: 1000 });
        for _ in 0..16_000 / 2 {
            indexer.push(&output(1, "y\n"));
        }
        assert_eq!((indexer.state.lines, indexer.state.is_cut), (1, false));
        indexer.push(&output(1, "y\n"));
        assert!(indexer.state.is_cut);
    }

    #[test]
    fn what_is_no_text_is_left_out_and_a_character_of_another_encoding_is_not() {
        let mut indexer = Indexer::new(IndexState::default(), BOUNDS);
        let binary: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let in_pieces = binary.chunks(100);
        for bytes in in_pieces.chain([&binary[..], b"\n\xc4nderung an Regel 7\n"]) {
            indexer.push(&Frame { at: 1, body: Body::Output(Bytes::copy_from_slice(bytes)) });
        }
        assert_eq!(texts(&indexer.take(), Kind::Screen).last().unwrap(), "\u{fffd}nderung an Regel 7");
        assert!(indexer.state.bytes < 1000, "{}", indexer.state.bytes);
        assert!(indexer.state.passes_over);
    }

    #[test]
    fn the_paths_of_files_are_lines() {
        let path = |text: &str| FilePath(text.as_bytes().to_vec());
        let act = FileAct::Rename { from: path("/tmp/a\nb"), to: path("/etc/磁盘") };
        let operation = FileOperation { act, result: FileResult::Done };
        let recorded = RecordedOperation { event: EventId::from_uuid(Uuid::from_u128(1)), operation };
        let mut indexer = Indexer::new(IndexState::default(), BOUNDS);
        indexer.push(&Frame { at: 7, body: Body::File(serde_json::to_string(&recorded).unwrap()) });
        assert_eq!(texts(&indexer.take(), Kind::File), ["/tmp/a\u{fffd}b → /etc/磁盘"]);
    }

    proptest! {
        #[test]
        fn what_resumes_makes_the_same_blocks(lines in prop::collection::vec("[a-z ]{0,90}", 1..60), cut in 0_usize..60) {
            let frames: Vec<Frame> = lines.iter().enumerate().map(|(at, line)| output(at as u64, &format!("{line}{at}\n"))).collect();
            let cut = cut.min(frames.len());
            let keep = |blocks: Vec<Block>, kept: &mut std::collections::BTreeMap<u64, Block>| {
                kept.extend(blocks.into_iter().map(|block| (block.number, block)));
            };
            let (mut straight, mut expected) = (Indexer::new(IndexState::default(), BOUNDS), std::collections::BTreeMap::new());
            frames.iter().for_each(|frame| straight.push(frame));
            keep(straight.take(), &mut expected);

            let (mut first, mut found) = (Indexer::new(IndexState::default(), BOUNDS), std::collections::BTreeMap::new());
            frames[..cut].iter().for_each(|frame| first.push(frame));
            let saved = serde_json::to_string(&first.state).unwrap();
            keep(first.take(), &mut found);
            let mut second = Indexer::new(serde_json::from_str(&saved).unwrap(), BOUNDS);
            frames[cut..].iter().for_each(|frame| second.push(frame));
            keep(second.take(), &mut found);

            prop_assert_eq!(found, expected);
        }
    }
}
