//! The legacy scp protocol (OpenSSH's scp.c, `scp -O`, PuTTY's pscp -scp), followed as it flows.
//!
//! ```text
//! sink:   0                      ready
//! source: T<mtime> 0 <atime> 0   (with -p)        sink: 0
//! source: C<mode> <size> <name>                   sink: 0     source: size bytes, then 0     sink: 0
//! source: D<mode> 0 <name>       (with -r)        sink: 0     source: … then E               sink: 0
//! ```
//!
//! Each line ends with a line feed. Instead of 0, either side may send 1 (an error) or 2 (a fatal one) and a line of text.
//! `scp -t` on the target is the sink of an upload, `scp -f` the source of a download.
//!
//! Source and sink take turns, and under rules a source that does not wait for its answer ends the channel: else a sink
//! that refused a file would read its content as lines, and those would not be the ones that were judged.
//!
//! A file that may not pass is refused at its line, before any content: nothing of it reaches the other side. The client gets an
//! error line, and the channel ends. So it does where a budget that other sessions spend of, too, ends in the middle of a file.
//!
//! Where a sink puts a file depends on whether the path it was given is a folder, which only the target knows. So an upload must be
//! allowed for both places that it can mean. A list of SHA-256 cannot be held against this protocol, for it has no way to take a
//! file back, and a bastion that kept each file until it has seen its end would need room for files of any size: it refuses scp,
//! and sftp is to be used. (scp by way of SFTP writes in place, which goes with no list either.)

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::files::content::{Content, Room};
use crate::files::gate::{Condition, Desk, Fault, Piece, Side, Word};
use crate::files::rules::Program;
use crate::files::{
    Direction, FileAct, FileDenial, FileOperation, FilePath, FileRequest, FileResult, FileTerms, Moved, Spent,
};

/// The longest line, in bytes: a name, a size and a mode, or a message.
pub const MOST_LINE: usize = 8 << 10;

/// How deep folders may lie in each other.
pub const MOST_DEPTH: usize = 256;

/// Where scp is. One anywhere else may be a program that the client uploaded.
const PROGRAMS: &[&[u8]] = &[b"scp", b"/usr/bin/scp", b"/usr/local/bin/scp"];

/// SFTP's code for a failure that says no more.
const FAILURE: u32 = 4;

/// `scp -t path` or `scp -f path…`, as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    direction: Direction,
    recursive: bool,
    /// `-d`: the path is a folder.
    into_folder: bool,
    /// One for an upload, at least one for a download; from the home if relative.
    paths: Vec<Vec<u8>>,
}

/// What tells a client that waits for files that none come: a fatal error, and its text (legacy protocol).
pub const NOTHING_COMES: &[u8] = b"\x02sallyport: nothing was copied\n";

impl Command {
    /// Reads the words of a command line; `None` if they are not a client's.
    pub(crate) fn parse(words: &[Word]) -> Option<Self> {
        let (program, mut rest) = words.split_first()?;
        if !PROGRAMS.contains(&program.bytes.as_slice()) {
            return None;
        }
        let (mut to, mut from, mut recursive, mut into_folder) = (false, false, false, false);
        while let Some((word, tail)) = rest.split_first() {
            match word.bytes.as_slice() {
                b"--" => {
                    rest = tail;
                    break;
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    for letter in letters {
                        match letter {
                            b't' => to = true,
                            b'f' => from = true,
                            b'r' => recursive = true,
                            b'd' => into_folder = true,
                            b'p' | b'v' | b'q' => {}
                            _ => return None,
                        }
                    }
                }
                _ => break,
            }
            rest = tail;
        }
        let direction = match (to, from) {
            (true, false) if rest.len() == 1 => Direction::Upload,
            (false, true) if !rest.is_empty() => Direction::Download,
            _ => return None,
        };
        if rest.iter().any(|word| word.bytes.is_empty()) {
            return None;
        }
        Some(Self { direction, recursive, into_folder, paths: rest.iter().map(Word::path).collect() })
    }

    /// Which way files go.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The paths that the command line names; relative ones begin at the home.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.paths.iter().map(Vec::as_slice)
    }
}

/// Follows one run of scp. See the [module](self).
#[derive(Debug)]
pub struct Gate {
    pub(crate) desk: Desk,
    command: Command,
    terms: FileTerms,
    spent: Arc<Spent>,
    hash: bool,
    /// The part of a line that has come.
    held: BytesMut,
    source: Source,
    sink: Sink,
    awaited: Awaited,
    /// The file whose content is under way, or was sent and not answered.
    file: Option<File>,
    folders: Vec<Spot>,
    room: Room,
}

/// What the source sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Line,
    Content {
        left: u64,
        offset: u64,
    },
    /// The byte after the content.
    Trailer,
    /// Instead of it an error, up to its line feed.
    TrailerText,
}

/// What the sink sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Answer,
    /// The text of an error, of which so many bytes have come.
    Text {
        length: usize,
    },
}

/// What the sink has to answer to before the source may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    /// That it is ready.
    Start,
    /// A line for a file of this size.
    File {
        size: u64,
    },
    Folder,
    /// T or E.
    Line,
    Trailer,
}

/// Where on the target something is: both places that it can be, and how it is told of.
#[derive(Debug, Clone)]
struct Spot {
    places: Vec<Vec<u8>>,
    shown: Vec<u8>,
}

#[derive(Debug)]
struct File {
    path: FilePath,
    content: Content,
}

/// Why a line does not pass.
enum Stop {
    Unreadable(&'static str),
    Denied(Box<(FileDenial, FileAct)>),
}

impl Stop {
    fn denied(denial: FileDenial, act: FileAct) -> Self {
        Stop::Denied(Box::new((denial, act)))
    }
}

impl From<&'static str> for Stop {
    fn from(what: &'static str) -> Self {
        Stop::Unreadable(what)
    }
}

impl Gate {
    /// A gate for `command`, or why it must not run; with digests of what is transferred if `hash`.
    pub fn new(command: Command, terms: FileTerms, spent: Arc<Spent>, hash: bool) -> Result<Self, FileDenial> {
        if terms.is_strict() {
            terms.judge_direction(command.direction)?;
            if command.direction == Direction::Upload && terms.has_list() {
                return Err(FileDenial::Uncheckable { program: Program::Scp });
            }
            if command.direction == Direction::Download && !command.recursive {
                for path in command.paths() {
                    terms.judge(&FileRequest::Read { path }, None)?;
                }
            }
        }
        Ok(Self {
            desk: Desk::new(),
            command,
            terms,
            spent,
            hash,
            held: BytesMut::new(),
            source: Source::Line,
            sink: Sink::Answer,
            awaited: Awaited::Start,
            file: None,
            folders: Vec::new(),
            // Content comes in order.
            room: Room::of(0),
        })
    }

    pub fn client_sent(&mut self, bytes: Bytes) {
        self.sent(Side::Client, &bytes);
    }

    pub fn target_sent(&mut self, bytes: Bytes) {
        self.sent(Side::Target, &bytes);
    }

    /// The client sends no more.
    pub fn client_ended(&mut self) {
        self.release(Side::Client);
    }

    /// The target sends no more: what was under way is told of as interrupted.
    pub fn target_ended(&mut self) {
        self.release(Side::Target);
        self.finish(FileResult::Interrupted);
    }

    /// Lets go of a line that will not be complete, if there is nothing to enforce.
    fn release(&mut self, from: Side) {
        if from == self.source_side() && !self.terms.is_strict() {
            let held = self.held.split().freeze();
            self.desk.toward_other(from).forward(held, false);
        }
    }

    fn source_side(&self) -> Side {
        match self.command.direction {
            Direction::Upload => Side::Client,
            Direction::Download => Side::Target,
        }
    }

    fn sent(&mut self, from: Side, input: &Bytes) {
        match self.desk.condition {
            Condition::Ended(_) => return,
            Condition::Opaque(_) => return self.desk.toward_other(from).forward(input.clone(), false),
            Condition::Following => {}
        }
        let mut start = 0;
        let followed = if from == self.source_side() {
            self.follow_source(from, input, &mut start)
        } else {
            self.follow_sink(from, input, &mut start)
        };
        match followed {
            Ok(()) => {}
            Err(Stop::Denied(denied)) => {
                let (denial, act) = *denied;
                // In the middle of a download a line of ours would be taken for the file's content.
                if self.command.direction == Direction::Upload || !matches!(self.source, Source::Content { .. }) {
                    let line = format!("\x01scp: {denial}\n");
                    self.desk.to_client.forward(Bytes::new(), false);
                    self.desk.to_client.inject(Piece::Injected(line.into()));
                }
                self.desk.condition = Condition::Ended(denial.clone().into());
                self.desk.operations.push_back(FileOperation { act, result: FileResult::Denied { denial } });
            }
            Err(Stop::Unreadable(what)) if self.terms.is_strict() => {
                self.desk.condition = Condition::Ended(Fault::Unreadable { from, what });
                self.finish(FileResult::Interrupted);
            }
            Err(Stop::Unreadable(what)) => {
                self.desk.condition = Condition::Opaque(Fault::Unreadable { from, what });
                let source = self.source_side();
                let held = self.held.split().freeze();
                self.desk.toward_other(source).forward(held, false);
                self.desk.toward_other(from).forward(input.slice(start..), false);
                self.finish(FileResult::Interrupted);
            }
        }
    }

    /// Follows lines and content. `input` up to `start` was sent or is held.
    fn follow_source(&mut self, from: Side, input: &Bytes, start: &mut usize) -> Result<(), Stop> {
        let mut at = 0;
        while at < input.len() {
            if self.awaited != Awaited::Nothing {
                self.desk.toward_other(from).forward(input.slice(*start..at), false);
                *start = at;
                return Err("a file's sender did not wait for the answer".into());
            }
            match self.source {
                Source::Content { left, offset } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    if let Err(denial) = self.terms.spend(self.command.direction, offset, taken as u64, &self.spent) {
                        self.desk.toward_other(from).forward(input.slice(*start..at), false);
                        *start = at;
                        return Err(self.broken_off(denial));
                    }
                    if let Some(file) = &mut self.file {
                        file.content.take(offset, &input[at..at + taken], &mut self.room);
                    }
                    at += taken;
                    let (left, offset) = (left - taken as u64, offset + taken as u64);
                    self.source = if left > 0 { Source::Content { left, offset } } else { Source::Trailer };
                }
                Source::Trailer => {
                    self.source = match input[at] {
                        0 => {
                            self.awaited = Awaited::Trailer;
                            Source::Line
                        }
                        1 | 2 => {
                            if let Some(file) = &mut self.file {
                                file.content.spoil(&mut self.room);
                            }
                            Source::TrailerText
                        }
                        _ => {
                            self.desk.toward_other(from).forward(input.slice(*start..at), false);
                            *start = at;
                            return Err("what follows a file's content is neither 0 nor an error".into());
                        }
                    };
                    at += 1;
                }
                Source::Line | Source::TrailerText => {
                    let end = input[at..].iter().position(|&byte| byte == b'\n').map(|place| at + place + 1);
                    let part = at..end.unwrap_or(input.len());
                    if end.is_none() || !self.held.is_empty() {
                        self.desk.toward_other(from).forward(input.slice(*start..at), false);
                        *start = at;
                        if self.held.len() + part.len() > MOST_LINE {
                            return Err("a line is too long".into());
                        }
                        self.held.extend_from_slice(&input[part.clone()]);
                        at = part.end;
                        *start = at;
                        if end.is_none() {
                            continue;
                        }
                        let line = self.held.clone().freeze();
                        self.line(&line)?;
                        self.held.clear();
                        self.desk.toward_other(from).forward(line, false);
                    } else {
                        let line = input.slice(part.clone());
                        let judged =
                            if line.len() > MOST_LINE { Err("a line is too long".into()) } else { self.line(&line) };
                        if let Err(stop) = judged {
                            self.desk.toward_other(from).forward(input.slice(*start..at), false);
                            *start = at;
                            return Err(stop);
                        }
                        at = part.end;
                    }
                }
            }
        }
        self.desk.toward_other(from).forward(input.slice(*start..at), false);
        *start = at;
        Ok(())
    }

    /// Judges a line of the source, its line feed included.
    fn line(&mut self, line: &[u8]) -> Result<(), Stop> {
        if self.source == Source::TrailerText {
            self.source = Source::Line;
            self.awaited = Awaited::Trailer;
            return Ok(());
        }
        let (&kind, rest) = line.split_first().ok_or("an empty line")?;
        let rest = rest.strip_suffix(b"\n").unwrap_or(rest);
        match kind {
            // A message, which nobody answers.
            1 | 2 => Ok(()),
            b'T' if rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b' ') => {
                self.awaited = Awaited::Line;
                Ok(())
            }
            b'E' if rest.is_empty() && self.folders.pop().is_some() => {
                self.awaited = Awaited::Line;
                Ok(())
            }
            b'C' => {
                let (size, name) = sized(rest).ok_or("a file's line cannot be read")?;
                self.begin_file(size, name)
            }
            b'D' => {
                let (_, name) = sized(rest).ok_or("a folder's line cannot be read")?;
                self.begin_folder(name)
            }
            _ => Err("a line is none of the protocol's".into()),
        }
    }

    fn begin_file(&mut self, size: u64, name: &[u8]) -> Result<(), Stop> {
        let spot = self.spot(name)?;
        let path = FilePath(spot.shown);
        let direction = self.command.direction;
        if self.terms.is_strict() {
            for place in &spot.places {
                let request = match direction {
                    Direction::Upload => FileRequest::Write { path: place, replaces: true },
                    Direction::Download => FileRequest::Read { path: place },
                };
                self.judge(&request, || FileAct::Open { path: path.clone(), direction })?;
            }
        }
        // What is known now; the bytes are paid for as they come, for other sessions may spend of the same budget.
        if let Err(denial) = self.terms.judge_whole(direction, size, &self.spent) {
            return Err(Stop::denied(denial, FileAct::Open { path, direction }));
        }
        self.file = Some(File { path, content: Content::new(self.hash) });
        self.awaited = Awaited::File { size };
        Ok(())
    }

    fn begin_folder(&mut self, name: &[u8]) -> Result<(), Stop> {
        if !self.command.recursive || self.folders.len() >= MOST_DEPTH {
            return Err("a folder was not asked for, or lies too deep".into());
        }
        let spot = self.spot(name)?;
        if self.terms.is_strict() {
            let path = FilePath(spot.shown.clone());
            for place in &spot.places {
                let (request, act) = match self.command.direction {
                    Direction::Upload => {
                        (FileRequest::Alter { path: place }, FileAct::MakeDirectory { path: path.clone() })
                    }
                    // Its files are judged one by one.
                    Direction::Download => (FileRequest::Look { path: place }, FileAct::Look { path: path.clone() }),
                };
                // The folder that an upload was sent to is there already, and making it again is not asked of the rules.
                if self.command.direction == Direction::Download || !self.command.paths.contains(place) {
                    self.judge(&request, || act)?;
                }
            }
        }
        self.folders.push(spot);
        self.awaited = Awaited::Folder;
        Ok(())
    }

    fn judge(&self, request: &FileRequest<'_>, act: impl FnOnce() -> FileAct) -> Result<(), Stop> {
        self.terms.judge(request, None).map_err(|denial| Stop::denied(denial, act()))
    }

    /// Where something called `name` is on the target.
    fn spot(&self, name: &[u8]) -> Result<Spot, Stop> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err("a name is not a plain file name".into());
        }
        let within = |folder: &[u8]| -> Vec<u8> {
            let folder = folder.strip_suffix(b"/").unwrap_or(folder);
            [folder, b"/", name].concat()
        };
        if let Some(folder) = self.folders.last() {
            let places = folder.places.iter().map(|place| within(place)).collect();
            return Ok(Spot { places, shown: within(&folder.shown) });
        }
        match (self.command.direction, self.command.paths.as_slice()) {
            (Direction::Upload, [path]) if path.is_empty() => {
                Ok(Spot { places: vec![name.to_vec()], shown: name.to_vec() })
            }
            (Direction::Upload, [path]) => {
                let folder =
                    self.command.into_folder || matches!(last_name(path), b"" | b"." | b"..") || path.ends_with(b"/");
                let mut places = vec![within(path)];
                if !folder {
                    places.push(path.clone());
                }
                let shown = if folder { within(path) } else { path.clone() };
                Ok(Spot { places, shown })
            }
            (_, paths) => {
                // A source says only the last name of what it was asked for.
                let places: Vec<_> = paths.iter().filter(|path| last_name(path) == name).cloned().collect();
                match places.first() {
                    Some(shown) => Ok(Spot { shown: shown.clone(), places }),
                    None if self.terms.has_paths() => {
                        let path = FilePath(name.to_vec());
                        let act = FileAct::Open { path: path.clone(), direction: Direction::Download };
                        Err(Stop::denied(FileDenial::Path { direction: Direction::Download, path }, act))
                    }
                    None => Ok(Spot { places: vec![], shown: name.to_vec() }),
                }
            }
        }
    }

    /// Follows answers. They are short, and nothing of them is held back.
    fn follow_sink(&mut self, from: Side, input: &Bytes, start: &mut usize) -> Result<(), Stop> {
        for (at, &byte) in input.iter().enumerate() {
            let wrong = match self.sink {
                Sink::Text { length } if length > MOST_LINE => Some("an error's text is too long"),
                Sink::Text { .. } if byte == b'\n' => {
                    self.sink = Sink::Answer;
                    self.answered(false);
                    None
                }
                Sink::Text { length } => {
                    self.sink = Sink::Text { length: length + 1 };
                    None
                }
                Sink::Answer if byte == 0 && self.awaited == Awaited::Nothing => Some("an answer was not asked for"),
                Sink::Answer if byte == 0 => {
                    self.answered(true);
                    None
                }
                Sink::Answer if matches!(byte, 1 | 2) => {
                    self.sink = Sink::Text { length: 0 };
                    None
                }
                Sink::Answer => Some("an answer is neither 0 nor an error"),
            };
            if let Some(what) = wrong {
                self.desk.toward_other(from).forward(input.slice(*start..at), self.sink != Sink::Answer);
                *start = at;
                return Err(what.into());
            }
        }
        self.desk.toward_other(from).forward(input.slice(*start..), self.sink != Sink::Answer);
        *start = input.len();
        Ok(())
    }

    fn answered(&mut self, well: bool) {
        match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
            Awaited::File { size } if well => {
                self.source = if size > 0 { Source::Content { left: size, offset: 0 } } else { Source::Trailer };
            }
            Awaited::File { .. } => {
                let direction = self.command.direction;
                if let Some(file) = self.file.take() {
                    let act = FileAct::Open { path: file.path, direction };
                    self.desk.operations.push_back(FileOperation { act, result: FileResult::Failed { code: FAILURE } });
                }
            }
            Awaited::Folder => {
                let folder = if well { self.folders.last().cloned() } else { self.folders.pop() };
                if let Some(folder) = folder.filter(|_| self.command.direction == Direction::Upload) {
                    let act = FileAct::MakeDirectory { path: FilePath(folder.shown) };
                    let result = if well { FileResult::Done } else { FileResult::Failed { code: FAILURE } };
                    self.desk.operations.push_back(FileOperation { act, result });
                }
            }
            Awaited::Trailer => {
                self.finish(if well { FileResult::Done } else { FileResult::Failed { code: FAILURE } });
            }
            Awaited::Nothing | Awaited::Start | Awaited::Line => {}
        }
    }

    /// Tells of the file that is under way.
    fn finish(&mut self, result: FileResult) {
        if let Some(act) = self.transfer(false) {
            self.desk.operations.push_back(FileOperation { act, result });
        }
    }

    /// A budget ended in the middle of a file. What came of it stays where it is; the protocol has no way to take it back.
    fn broken_off(&mut self, denial: FileDenial) -> Stop {
        let direction = self.command.direction;
        let act = self.transfer(true).unwrap_or(FileAct::Open { path: FilePath(Vec::new()), direction });
        Stop::denied(denial, act)
    }

    /// What passed of the file that is under way, which it is no longer.
    fn transfer(&mut self, partial: bool) -> Option<FileAct> {
        let File { path, content } = self.file.take()?;
        let moved = Some(Moved { bytes: content.bytes, digest: content.digest(), partial });
        let (upload, download) = match self.command.direction {
            Direction::Upload => (moved, None),
            Direction::Download => (None, moved),
        };
        Some(FileAct::Transfer { path, upload, download })
    }
}

/// Reads `0644 12 name`.
fn sized(rest: &[u8]) -> Option<(u64, &[u8])> {
    let (mode, rest) = rest.split_first_chunk::<4>()?;
    if !mode.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    let rest = rest.strip_prefix(b" ")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A size is a signed 64-bit number to scp.
    let size: i64 = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    let name = rest.get(digits..)?.strip_prefix(b" ")?;
    Some((u64::try_from(size).ok()?, name))
}

/// The last name of a path, trailing slashes apart.
fn last_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    path.get(..end).unwrap_or_default().rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::gate::{Recognised, recognise};
    use crate::files::{Digest, FileRules};
    use crate::grant::Capabilities;
    use crate::recording::segment::Hash;

    fn terms(upload: bool, download: bool, rules: &str) -> FileTerms {
        let capabilities = Capabilities { upload, download, ..Capabilities::default() };
        FileTerms::new(&capabilities, serde_json::from_str::<FileRules>(rules).unwrap())
    }

    fn command(line: &str) -> Command {
        match recognise(line.as_bytes()) {
            Recognised::Scp(command) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// A gate and what came out of it.
    struct Bench {
        gate: Gate,
        to_target: Vec<u8>,
        to_client: Vec<u8>,
        operations: Vec<FileOperation>,
    }

    impl Bench {
        fn new(line: &str, terms: FileTerms) -> Self {
            let gate = Gate::new(command(line), terms, Arc::default(), true).unwrap();
            Self { gate, to_target: vec![], to_client: vec![], operations: vec![] }
        }

        fn client(&mut self, bytes: impl AsRef<[u8]>) {
            self.gate.client_sent(Bytes::copy_from_slice(bytes.as_ref()));
            self.collect();
        }

        fn target(&mut self, bytes: impl AsRef<[u8]>) {
            self.gate.target_sent(Bytes::copy_from_slice(bytes.as_ref()));
            self.collect();
        }

        fn collect(&mut self) {
            while let Some(piece) = self.gate.desk.to_target.pop() {
                self.to_target.extend_from_slice(piece.bytes());
            }
            while let Some(piece) = self.gate.desk.to_client.pop() {
                self.to_client.extend_from_slice(piece.bytes());
            }
            self.operations.extend(std::iter::from_fn(|| self.gate.desk.operations.pop_front()));
        }

        fn ended(&self) -> bool {
            self.gate.desk.condition.ended().is_some()
        }
    }

    fn moved(content: &[u8]) -> Option<Moved> {
        let digest = Digest::Sha256(Hash::of(content));
        Some(Moved { bytes: content.len() as u64, digest, partial: false })
    }

    #[test]
    fn only_what_a_client_sends_is_a_command() {
        let upload = command("scp -v -r -p -d -t -- /srv/app");
        assert!(upload.direction() == Direction::Upload && upload.recursive && upload.into_folder);
        assert_eq!(command("scp -q -f a 'b c'").paths().collect::<Vec<_>>(), [b"a".as_slice(), b"b c"]);
        assert_eq!(command("scp -t ~/x").paths().collect::<Vec<_>>(), [b"x".as_slice()]);
        for line in
            ["scp", "scp a b", "scp -t", "scp -t a b", "scp -t -f a", "scp -S/bin/sh -t a", "scp -f", "/tmp/scp -t a"]
        {
            assert_eq!(recognise(line.as_bytes()), Recognised::Unclear(Program::Scp), "{line}");
        }
    }

    #[test]
    fn an_upload_passes_and_is_told_of() {
        let mut bench = Bench::new("scp -p -t /srv/app/", terms(true, false, "{}"));
        bench.target(b"\0");
        bench.client("T1 0 1 0\n");
        bench.target(b"\0");
        bench.client("C0644 5 a b\n");
        bench.target(b"\0");
        bench.client(b"hello\0");
        assert!(bench.operations.is_empty());
        bench.target(b"\0");
        bench.client("C0600 0 empty\n");
        bench.target(b"\0");
        bench.client(b"\0");
        bench.target(b"\0");
        assert_eq!(bench.to_target, b"T1 0 1 0\nC0644 5 a b\nhello\0C0600 0 empty\n\0");
        assert_eq!(bench.to_client, [0; 6]);
        let told = |path: &str, content| FileOperation {
            act: FileAct::Transfer { path: FilePath(path.into()), upload: moved(content), download: None },
            result: FileResult::Done,
        };
        assert_eq!(bench.operations, [told("/srv/app/a b", b"hello"), told("/srv/app/empty", b"")]);
    }

    #[test]
    fn content_passes_as_slices_of_what_came() {
        let mut bench = Bench::new("scp -t x", terms(true, false, "{}"));
        bench.target(b"\0");
        bench.client("C0644 60000 x\n");
        bench.target(b"\0");
        let sent = Bytes::from(vec![7; 50_000]);
        bench.gate.client_sent(sent.clone());
        let piece = bench.gate.desk.to_target.pop().unwrap();
        assert_eq!((piece.bytes().as_ptr(), piece.bytes().len()), (sent.as_ptr(), 50_000));
    }

    #[test]
    fn a_download_passes_and_is_told_of_by_the_path_that_was_asked_for() {
        let mut bench =
            Bench::new("scp -r -f /var/log/app", terms(false, true, r#"{"download":{"paths":["/var/log/**"]}}"#));
        bench.client(b"\0");
        bench.target("D0755 0 app\n");
        bench.client(b"\0");
        bench.target("C0644 3 x\n");
        bench.client(b"\0");
        bench.target(b"log\0");
        bench.client(b"\0");
        bench.target("E\n");
        bench.client(b"\0");
        let FileAct::Transfer { path, download, .. } = &bench.operations[0].act else { panic!() };
        assert_eq!((path.to_string(), download), ("/var/log/app/x".to_owned(), &moved(b"log")));
        assert!(!bench.ended());
    }

    #[test]
    fn a_direction_or_a_path_that_is_not_granted_does_not_start() {
        let start = |line, terms| Gate::new(command(line), terms, Arc::default(), true);
        assert!(start("scp -t x", terms(false, true, "{}")).is_err());
        assert!(start("scp -f x", terms(true, false, "{}")).is_err());
        let paths = terms(true, true, r#"{"download":{"paths":["/var/log/*","~/out/*"]}}"#);
        assert!(start("scp -f /var/log/../../etc/shadow", paths.clone()).is_err());
        assert!(start("scp -f /var/log/x /etc/shadow", paths.clone()).is_err());
        assert!(start("scp -f x", paths.clone()).is_err());
        assert!(start("scp -f /var/log/x out/y", paths).is_ok());
        let listed = terms(true, true, r#"{"upload_sha256":[]}"#);
        assert_eq!(start("scp -t x", listed).unwrap_err(), FileDenial::Uncheckable { program: Program::Scp });
    }

    #[test]
    fn an_upload_must_be_allowed_wherever_it_can_land() {
        for (line, name, allowed) in [
            ("scp -t /srv/app/x", "y", true),
            ("scp -t /srv/app", "y", false),
            ("scp -d -t /srv/app", "y", true),
            ("scp -t /srv/app/", "y", true),
            ("scp -t /srv/app/../../etc/", "y", false),
            ("scp -t /etc/passwd", "passwd", false),
        ] {
            let mut bench = Bench::new(line, terms(true, true, r#"{"upload":{"paths":["/srv/app/**"]}}"#));
            bench.target(b"\0");
            bench.client(format!("C0644 4 {name}\n"));
            assert_eq!(!bench.ended(), allowed, "{line}");
            assert_eq!(bench.to_target.is_empty(), !allowed);
        }
    }

    #[test]
    fn nothing_of_a_file_beyond_its_budget_reaches_the_other_side() {
        let rules = r#"{"upload":{"file_bytes":10},"download":{"total_bytes":10}}"#;
        let mut bench = Bench::new("scp -t x", terms(true, true, rules));
        bench.target(b"\0");
        bench.client("C0644 11 x\nsecret");
        assert!(bench.ended() && bench.to_target.is_empty());
        assert_eq!(bench.to_client, b"\0\x01scp: the grant allows uploads of at most 10 bytes a file\n");
        assert!(matches!(bench.operations[0].result, FileResult::Denied { .. }));
        let mut bench = Bench::new("scp -f x", terms(true, true, rules));
        bench.client(b"\0");
        bench.target("C0644 11 x\n");
        bench.target("secret");
        assert!(bench.ended());
        assert_eq!(bench.to_client, b"\x01scp: the grant allows downloads of 10 bytes in all, and they are spent\n");
    }

    #[test]
    fn a_sender_that_does_not_wait_ends_the_channel_under_rules() {
        let mut bench = Bench::new("scp -t x", terms(true, false, "{}"));
        bench.target(b"\0");
        bench.client("C0644 30 x\nC0644 4 ../../etc/cron.d/x\n");
        assert!(bench.ended());
        assert_eq!(bench.to_target, b"C0644 30 x\n");
        let mut bench = Bench::new("scp -t x", terms(true, true, "{}"));
        bench.client("C0644 4 x\nevil\0");
        assert!(matches!(bench.gate.desk.condition, Condition::Opaque(_)));
        assert_eq!(bench.to_target, b"C0644 4 x\nevil\0");
    }

    #[test]
    fn a_file_that_the_target_refuses_is_told_of_and_the_next_one_goes_on() {
        let mut bench = Bench::new("scp -t /x", terms(true, false, "{}"));
        bench.target(b"\0");
        bench.client("C0644 4 a\n");
        bench.target("\x01scp: /x: Permission denied\n");
        bench.client("C0644 4 b\n");
        bench.target(b"\0");
        bench.client(b"more\0");
        bench.target("\x01scp: /x: disk full\n");
        assert!(matches!(bench.operations[0].act, FileAct::Open { .. }));
        assert!(bench.operations.iter().all(|told| told.result == FileResult::Failed { code: FAILURE }));
        assert_eq!(bench.operations.len(), 2);
    }

    #[test]
    fn what_is_no_line_or_no_answer_ends_the_channel_under_rules() {
        for line in [
            "C0644 4 ../x\n",
            "C0644 4 a/b\n",
            "C0644 4 ..\n",
            "C0644 4 \n",
            "C0644 -4 x\n",
            "C0644 99999999999999999999 x\n",
            "C9999 4 x\n",
            "C0644 4 a\0b\n",
            "D0755 0 d\n",
            "E\n",
            "X\n",
            "\n",
            "Tx\n",
            "C064 4 x\n",
        ] {
            let mut bench = Bench::new("scp -t x", terms(true, false, "{}"));
            bench.target(b"\0");
            bench.client(line);
            assert!(bench.ended() && bench.to_target.is_empty(), "{line:?}");
        }
        let mut bench = Bench::new("scp -t x", terms(true, false, "{}"));
        bench.target("welcome!\n");
        assert!(bench.ended() && bench.to_client.is_empty());
    }

    /// What a well-behaved source sends and its sink answers, in turns.
    fn script() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
        let file = (prop::collection::vec(any::<u8>(), 0..80), "[a-z]{1,5}", any::<bool>()).prop_map(
            |(content, name, well)| {
                let line = format!("C0644 {} {name}\n", content.len()).into_bytes();
                if well { vec![(line, true), ([content, vec![0]].concat(), true)] } else { vec![(line, false)] }
            },
        );
        let folder = ("[a-z]{1,5}", file.clone()).prop_map(|(name, file)| {
            [vec![(format!("D0755 0 {name}\n").into(), true)], file, vec![(b"E\n".to_vec(), true)]].concat()
        });
        prop::collection::vec(prop_oneof![file, folder], 0..8).prop_map(|parts| parts.concat())
    }

    fn run(line: &str, terms: FileTerms, script: &[(Vec<u8>, bool)], cuts: usize) -> Bench {
        let mut bench = Bench::new(line, terms);
        let upload = bench.gate.command.direction == Direction::Upload;
        let mut send = |of_source: bool, bytes: &[u8]| {
            for part in bytes.chunks(cuts) {
                if of_source == upload { bench.client(part) } else { bench.target(part) }
            }
        };
        send(false, b"\0");
        for (sent, well) in script {
            send(true, sent);
            send(false, if *well { b"\0" } else { b"\x01scp: no\n" });
        }
        bench.gate.client_ended();
        bench.gate.target_ended();
        bench.collect();
        bench
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_and_all_that_is_allowed_passes(
            script in script(),
            cuts in 1usize..30,
            upload in any::<bool>(),
            strict in any::<bool>(),
        ) {
            let line = if upload { "scp -r -t /srv/" } else { "scp -r -f /srv" };
            let rules = if strict { r#"{"upload":{"total_bytes":100000},"download":{"total_bytes":100000}}"# } else { "{}" };
            let whole = run(line, terms(true, true, rules), &script, usize::MAX);
            let cut = run(line, terms(true, true, rules), &script, cuts);
            prop_assert_eq!(&whole.operations, &cut.operations);
            prop_assert_eq!(&whole.to_target, &cut.to_target);
            prop_assert_eq!(&whole.to_client, &cut.to_client);
            prop_assert_eq!(&cut.gate.desk.condition, &Condition::Following);
            let sent: Vec<u8> = script.iter().flat_map(|(sent, _)| sent.clone()).collect();
            prop_assert_eq!(if upload { cut.to_target } else { cut.to_client }, sent);
        }

        #[test]
        fn a_budget_that_is_spent_is_never_passed(script in script(), cuts in 1usize..30, upload in any::<bool>()) {
            let line = if upload { "scp -r -t /srv/" } else { "scp -r -f /srv" };
            let rules = r#"{"upload":{"total_bytes":60},"download":{"total_bytes":60}}"#;
            let bench = run(line, terms(true, true, rules), &script, cuts);
            let bytes: u64 = bench.operations.iter().filter_map(|told| match &told.act {
                FileAct::Transfer { upload, download, .. } => upload.as_ref().or(download.as_ref()).map(|moved| moved.bytes),
                _ => None,
            }).sum();
            prop_assert!(bytes <= 60);
        }

        #[test]
        fn hostile_bytes_never_panic_nor_pile_up(
            parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
            lines in prop::collection::vec((any::<bool>(), "[CDTE\x00\x01\n0-7 a./]{0,20}"), 0..20),
            upload in any::<bool>(),
            strict in any::<bool>(),
        ) {
            let line = if upload { "scp -r -t /srv" } else { "scp -r -f /srv" };
            let rules = if strict { r#"{"upload":{"paths":["/**"]}}"# } else { "{}" };
            let mut bench = Bench::new(line, terms(true, true, rules));
            let lines = lines.into_iter().map(|(of_client, line)| (of_client, line.into_bytes()));
            for (of_client, part) in lines.chain(parts) {
                if of_client { bench.client(part) } else { bench.target(part) }
                prop_assert!(bench.gate.held.len() <= MOST_LINE);
            }
            bench.gate.client_ended();
            bench.gate.target_ended();
        }
    }
}
