//! What sits in a channel that carries files: one type over all protocols, and what they share.
//!
//! ```text
//! client ──► client_sent ──►┐        ┌──► next_for_target ──► target
//!                           │  gate  │
//! client ◄── next_for_client ◄┘      └◄── target_sent ◄────── target
//! ```
//!
//! Bytes go in as they come, cut anywhere. What goes out is queued for each side in its order: pieces of what came in, not
//! copied, and packets of the bastion's own, which stand only where a packet of that stream ends. So each direction has one
//! task that sends, and it must look for more whenever the *other* direction was fed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::rules::{FileDenial, FileTerms, Program};
use super::{Direction, FileOperation, Spent};
use crate::{channel, rsync, scp, sftp};

/// How many pieces may wait for one side. Only a peer that sends requests to be refused and reads no answers gets there.
const MOST_PIECES: usize = 8192;

/// One end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Target,
}

impl Side {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Target => "target",
        }
    }
}

/// Bytes that are to be sent to one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// From the other side, unchanged.
    Forward(Bytes),
    /// The bastion's own, or changed by it.
    Injected(Bytes),
}

impl Piece {
    /// What goes on the wire.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Piece::Forward(bytes) | Piece::Injected(bytes) => bytes,
        }
    }

    /// What goes on the wire.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Piece::Forward(bytes) | Piece::Injected(bytes) => bytes,
        }
    }
}

/// Why a gate does not follow a channel any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("what the {} sent cannot be followed: {what}", from.as_str())]
    Unreadable { from: Side, what: &'static str },
    #[error("the {} does not take what is sent to it", side.as_str())]
    Stalled { side: Side },
    #[error(transparent)]
    Denied(#[from] FileDenial),
}

/// How a gate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It follows the channel.
    Following,
    /// It lost the thread for this reason, and as there is nothing to enforce it lets everything pass.
    Opaque(Fault),
    /// For this reason nothing passes any more, and the channel must be closed once what is queued was sent.
    Ended(Fault),
}

impl Condition {
    /// Why nothing passes any more, if so.
    pub fn ended(&self) -> Option<&Fault> {
        match self {
            Condition::Ended(fault) => Some(fault),
            Condition::Following | Condition::Opaque(_) => None,
        }
    }
}

/// What goes to one side, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    ready: VecDeque<Piece>,
    /// What may go as soon as a packet ends.
    waiting: VecDeque<Piece>,
    /// A packet has been sent in part.
    mid_packet: bool,
}

impl Outbox {
    pub(crate) fn pop(&mut self) -> Option<Piece> {
        self.ready.pop_front()
    }

    /// Sends a part of a packet, or some packets; `mid_packet` says whether a packet is incomplete after it.
    pub(crate) fn forward(&mut self, bytes: Bytes, mid_packet: bool) {
        self.mid_packet = mid_packet;
        if !bytes.is_empty() {
            self.ready.push_back(Piece::Forward(bytes));
        }
    }

    /// Sends a packet of the bastion's as soon as none is incomplete.
    pub(crate) fn inject(&mut self, piece: Piece) {
        if self.mid_packet || !self.waiting.is_empty() { &mut self.waiting } else { &mut self.ready }.push_back(piece);
    }

    /// Has a packet wait until [`Outbox::packet_ended`], wherever the stream is.
    pub(crate) fn inject_later(&mut self, piece: Piece) {
        self.waiting.push_back(piece);
    }

    /// Whether something waits for the end of a packet.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The packet that was sent in part is complete.
    pub(crate) fn packet_ended(&mut self) {
        self.mid_packet = false;
        self.ready.append(&mut self.waiting);
    }

    pub(crate) fn is_overfull(&self) -> bool {
        self.ready.len() + self.waiting.len() > MOST_PIECES
    }

    /// Throws away what waits for the end of a packet that will not end.
    pub(crate) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }
}

/// A gate in a channel. See the [module](self) for how it is fed.
#[derive(Debug)]
pub enum FileGate {
    Sftp(Box<sftp::Gate>),
    Scp(Box<scp::Gate>),
    Rsync(Box<rsync::Gate>),
}

/// What a program that a client asks for is, as far as files go.
#[derive(Debug)]
pub enum Transfer {
    /// It carries files by a protocol that the gate follows. Needs upload or download, and no other capability.
    Gated(FileGate),
    /// It is something else. What it puts out may be bounded by [`FileTerms::spend_terminal`].
    Other,
}

impl FileGate {
    /// The gate for `program`, with digests if `hash`; or why it must not run. A command line that begins like a file transfer and cannot be
    /// read as one is refused under strict terms, and [`Transfer::Other`] without.
    pub fn for_program(
        program: &channel::Program,
        terms: &FileTerms,
        spent: &Arc<Spent>,
        hash: bool,
    ) -> Result<Transfer, FileDenial> {
        let (terms, spent) = (terms.clone(), Arc::clone(spent));
        let gate = match program {
            channel::Program::Shell | channel::Program::Forward { .. } => return Ok(Transfer::Other),
            channel::Program::Subsystem { name } if name == "sftp" => {
                FileGate::Sftp(Box::new(sftp::Gate::new(terms, spent, hash)))
            }
            channel::Program::Subsystem { .. } => return Ok(Transfer::Other),
            channel::Program::Exec { command } => match recognise(command) {
                Recognised::SftpServer => FileGate::Sftp(Box::new(sftp::Gate::new(terms, spent, hash))),
                Recognised::Scp(command) => FileGate::Scp(Box::new(scp::Gate::new(command, terms, spent, hash)?)),
                Recognised::Rsync(command) => FileGate::Rsync(Box::new(rsync::Gate::new(command, terms, spent)?)),
                Recognised::Unclear(program) if terms.is_strict() => return Err(FileDenial::CommandLine { program }),
                Recognised::Unclear(_) | Recognised::Other => return Ok(Transfer::Other),
            },
        };
        Ok(Transfer::Gated(gate))
    }

    /// Takes what the client sent.
    pub fn client_sent(&mut self, bytes: Bytes) {
        match self {
            FileGate::Sftp(gate) => gate.client_sent(bytes),
            FileGate::Scp(gate) => gate.client_sent(bytes),
            FileGate::Rsync(gate) => gate.client_sent(bytes),
        }
    }

    /// Takes what the target sent (its standard output, not its errors).
    pub fn target_sent(&mut self, bytes: Bytes) {
        match self {
            FileGate::Sftp(gate) => gate.target_sent(bytes),
            FileGate::Scp(gate) => gate.target_sent(bytes),
            FileGate::Rsync(gate) => gate.target_sent(bytes),
        }
    }

    /// The client sends no more (EOF, close, or its connection is gone). What is queued for the target after this undoes
    /// uploads that must not stay; it must be sent before the target's input is ended.
    pub fn client_ended(&mut self) {
        match self {
            FileGate::Sftp(gate) => gate.client_ended(),
            FileGate::Scp(gate) => gate.client_ended(),
            FileGate::Rsync(_) => {}
        }
    }

    /// Whether something that must not stay is being taken away, and the target has not answered yet. Its input must not be ended
    /// before: OpenSSH's sftp-server goes at the end of its input and leaves undone what it has read.
    pub fn is_undoing(&self) -> bool {
        match self {
            FileGate::Sftp(gate) => gate.is_undoing(),
            FileGate::Scp(_) | FileGate::Rsync(_) => false,
        }
    }

    /// The target sends no more. What was under way is told of as interrupted.
    pub fn target_ended(&mut self) {
        match self {
            FileGate::Sftp(gate) => gate.target_ended(),
            FileGate::Scp(gate) => gate.target_ended(),
            FileGate::Rsync(gate) => gate.target_ended(),
        }
    }

    /// The next bytes for the target.
    pub fn next_for_target(&mut self) -> Option<Piece> {
        self.desk_mut().to_target.pop()
    }

    /// The next bytes for the client.
    pub fn next_for_client(&mut self) -> Option<Piece> {
        self.desk_mut().to_client.pop()
    }

    /// The next thing that is known to have happened.
    pub fn next_operation(&mut self) -> Option<FileOperation> {
        self.desk_mut().operations.pop_front()
    }

    /// How the gate stands.
    pub fn condition(&self) -> &Condition {
        &self.desk().condition
    }

    fn desk(&self) -> &Desk {
        match self {
            FileGate::Sftp(gate) => &gate.desk,
            FileGate::Scp(gate) => &gate.desk,
            FileGate::Rsync(gate) => &gate.desk,
        }
    }

    fn desk_mut(&mut self) -> &mut Desk {
        match self {
            FileGate::Sftp(gate) => &mut gate.desk,
            FileGate::Scp(gate) => &mut gate.desk,
            FileGate::Rsync(gate) => &mut gate.desk,
        }
    }
}

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    SftpServer,
    Scp(scp::Command),
    Rsync(rsync::Command),
    /// It begins like a file transfer, but cannot be read as one with certainty.
    Unclear(Program),
    Other,
}

/// Where sftp-server is by default. A file of that name anywhere else may be one that the client uploaded.
const SFTP_SERVERS: &[&[u8]] = &[
    b"sftp-server",
    b"/usr/lib/openssh/sftp-server",
    b"/usr/lib/ssh/sftp-server",
    b"/usr/lib/sftp-server",
    b"/usr/libexec/openssh/sftp-server",
    b"/usr/libexec/sftp-server",
    b"/usr/lib64/ssh/sftp-server",
];

/// Reads the command of an "exec" request.
pub fn recognise(command: &[u8]) -> Recognised {
    let begins = |name: &[u8]| {
        let first = command.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty()).unwrap_or_default();
        first == name || (first.ends_with(name) && first.get(first.len() - name.len() - 1) == Some(&b'/'))
    };
    let words = words(command);
    let unclear = |program| Recognised::Unclear(program);
    if begins(b"scp") {
        words.and_then(|words| scp::Command::parse(&words)).map_or_else(|| unclear(Program::Scp), Recognised::Scp)
    } else if begins(b"rsync") {
        words.and_then(|words| rsync::Command::parse(&words)).map_or_else(|| unclear(Program::Rsync), Recognised::Rsync)
    } else if begins(b"sftp-server") {
        match words.as_deref() {
            Some([program]) if SFTP_SERVERS.contains(&program.bytes.as_slice()) => Recognised::SftpServer,
            _ => unclear(Program::SftpServer),
        }
    } else {
        Recognised::Other
    }
}

/// Whether the command is one by which an scp client (legacy protocol) has files sent to it.
pub fn is_scp_download(command: &[u8]) -> bool {
    matches!(recognise(command), Recognised::Scp(command) if command.direction() == Direction::Download)
}

/// A word of a command line as a shell would see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) bytes: Vec<u8>,
    /// It begins with an unquoted `~`, alone or before a slash, which the shell replaces by the home. It is still there.
    pub(crate) tilde: bool,
}

impl Word {
    /// The word as a path: from the home, if the shell would have put that there.
    pub(crate) fn path(&self) -> Vec<u8> {
        if !self.tilde {
            return self.bytes.clone();
        }
        let rest = self.bytes.get(1..).unwrap_or_default();
        rest.iter().copied().skip_while(|&byte| byte == b'/').collect()
    }
}

/// Splits a command line into words, or `None` if a shell could make anything else of it: only plain characters, plain
/// quotes and backslashes before plain characters are read (POSIX 2.2), no expansions, operators or line ends.
pub(crate) fn words(command: &[u8]) -> Option<Vec<Word>> {
    /// More than any client sends.
    const MOST_WORDS: usize = 1024;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(&byte) || byte >= 0x80;
    let printable = |byte: u8| (b' '..=b'~').contains(&byte) || byte >= 0x80;
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut bytes = command.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b' ' {
            words.extend(word.take());
            if words.len() > MOST_WORDS {
                return None;
            }
            continue;
        }
        let starts = word.is_none();
        let now = word.get_or_insert_with(|| Word { bytes: Vec::new(), tilde: false });
        match byte {
            b'~' if starts && matches!(bytes.peek(), None | Some(b' ' | b'/')) => {
                now.tilde = true;
                now.bytes.push(byte);
            }
            b'\'' => loop {
                match bytes.next()? {
                    b'\'' => break,
                    byte if printable(byte) => now.bytes.push(byte),
                    _ => return None,
                }
            },
            b'"' => loop {
                match bytes.next()? {
                    b'"' => break,
                    b'$' | b'`' | b'\\' | b'!' => return None,
                    byte if printable(byte) => now.bytes.push(byte),
                    _ => return None,
                }
            },
            b'\\' => now.bytes.push(bytes.next().filter(|&byte| printable(byte))?),
            // A shell reads `NAME=value` before the program as a setting, and zsh `=name` as the place of a program.
            b'=' if words.is_empty() || starts => return None,
            byte if plain(byte) => now.bytes.push(byte),
            _ => return None,
        }
    }
    words.extend(word);
    (!words.is_empty()).then_some(words)
}

/// Where a gate puts what it has for either side, and what it tells.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) to_target: Outbox,
    pub(crate) to_client: Outbox,
    pub(crate) operations: VecDeque<FileOperation>,
    pub(crate) condition: Condition,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            to_target: Outbox::default(),
            to_client: Outbox::default(),
            operations: VecDeque::new(),
            condition: Condition::Following,
        }
    }

    /// The outbox for what `from` sends.
    pub(crate) fn toward_other(&mut self, from: Side) -> &mut Outbox {
        match from {
            Side::Client => &mut self.to_target,
            Side::Target => &mut self.to_client,
        }
    }
}

/// The direction in which a file goes if `side` sends it.
pub(crate) const fn sent_by(side: Side) -> Direction {
    match side {
        Side::Client => Direction::Upload,
        Side::Target => Direction::Download,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(command: &str) -> Option<Vec<String>> {
        let words = words(command.as_bytes())?;
        Some(words.iter().map(|word| String::from_utf8_lossy(&word.bytes).into_owned()).collect())
    }

    #[test]
    fn plain_and_simply_quoted_words_are_read() {
        assert_eq!(split("scp -t /a/b").unwrap(), ["scp", "-t", "/a/b"]);
        assert_eq!(
            split("scp  -t 'a b' \"c d\" e\\ f g'h'\\''i'").unwrap(),
            ["scp", "-t", "a b", "c d", "e f", "gh'i"]
        );
        assert_eq!(split("scp -t ''").unwrap(), ["scp", "-t", ""]);
        let words = words(b"scp -t ~/a '~/a' ~ a~b").map(|_| ());
        assert_eq!(words, None, "a tilde within a word is left to the shell");
    }

    #[test]
    fn what_a_shell_would_make_more_of_is_not_read() {
        for command in [
            "scp -t $HOME",
            "scp -t `id`",
            "scp -t \"$x\"",
            "scp -t a;id",
            "scp -t a&",
            "scp -t a|b",
            "scp -t a>b",
            "scp -t a\nid",
            "scp -t *.log",
            "scp -t a?",
            "scp -t [a]",
            "scp -t {a,b}",
            "scp -t ~root/x",
            "scp -t 'a",
            "scp -t \"a",
            "scp -t a\\",
            "X=1 scp -t a",
            "scp -t #",
            "scp -t !1",
            "scp\t-t a",
            "scp -t (a)",
            "",
            " ",
        ] {
            assert_eq!(split(command), None, "{command}");
        }
    }

    #[test]
    fn a_command_that_only_begins_like_a_transfer_is_unclear() {
        assert_eq!(recognise(b"scp -t $(id)"), Recognised::Unclear(Program::Scp));
        assert_eq!(recognise(b"/usr/bin/rsync --server . ;id"), Recognised::Unclear(Program::Rsync));
        assert_eq!(recognise(b"/usr/lib/openssh/sftp-server"), Recognised::SftpServer);
        assert_eq!(recognise(b"/usr/lib/openssh/sftp-server -R"), Recognised::Unclear(Program::SftpServer));
        assert_eq!(recognise(b"uptime"), Recognised::Other);
        assert_eq!(recognise(b"myscp -t a"), Recognised::Other);
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_or_refused(command in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = recognise(&command);
        }

        #[test]
        fn a_quoted_word_reads_back(word in "[ -~]{0,20}") {
            let quoted = format!("scp '{}'", word.replace('\'', "'\\''"));
            prop_assert_eq!(split(&quoted).unwrap(), ["scp".to_owned(), word]);
        }
    }
}
