//! rsync's stream, versions 30 to 32 of its protocol, followed as it flows: the list of files, and what goes of each.
//!
//! ```text
//! sender:    version ─► compat flags (server) ─► checksums, compressions that it knows ─► seed (server)
//!            then in messages: filters (to a server that deletes) ─► list ─► [users, groups] ─► transfers
//! transfer:  number in the list ─► what changes ─► [sum head ─► literal | block … ─► end ─► checksum] ; or another list
//! ```
//!
//! From rsync's compat.c, flist.c, sender.c and token.c. Nothing is enforced by what is read here, and nothing of it is held back:
//! where it cannot be followed (compression, ACLs, extended attributes, hard links, options that are not known), the run is told of
//! without its files, and why. Both sides sort a list before they count in it, so this does, too.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use super::list::{Lists, Options, Read, compat};
use super::wire::{Demultiplexer, Lost, Reader, Stop};
use crate::files::content::{Content, Room};
use crate::files::gate::Side;
use crate::files::{Direction, Moved};

/// The longest thing that is read as one: an entry of a list, with a name, a link's target and names of owners.
const MOST_ENTRY: usize = 16 << 10;

/// What changes of a file (rsync.h, `ITEM_…`).
mod item {
    pub(super) const BASIS_TYPE: u16 = 1 << 11;
    pub(super) const XNAME: u16 = 1 << 12;
    pub(super) const TRANSFER: u16 = 1 << 15;
}

/// Numbers that stand in the place of a file's.
const DONE: i32 = -1;
const LISTS_END: i32 = -2;
const DELETIONS: i32 = -3;
const LIST: i32 = -101;

/// Rounds of transfers at the end of which a sender says [`DONE`], the last one included.
const ROUNDS: usize = 3;

/// A file that went, or a part of it did.
#[derive(Debug)]
pub(super) struct Went {
    /// As the list has it: relative to what the command line names.
    pub(super) name: Vec<u8>,
    pub(super) moved: Moved,
    /// Its end came.
    pub(super) whole: bool,
    /// There is nothing else in the list.
    pub(super) alone: bool,
}

/// Follows one run. See the [module](self).
#[derive(Debug)]
pub(super) struct Follower {
    options: Options,
    sender: Side,
    handshakes: [Handshake; 2],
    demultiplexer: Demultiplexer,
    /// The sender's data that is not read yet; little, for it is read as soon as it makes sense.
    data: BytesMut,
    state: State,
    lists: Lists,
    /// How often the sender was done.
    done: usize,
    numbers: Numbers,
    sum_bytes: usize,
    went: VecDeque<Went>,
    lost: Option<Lost>,
    room: Room,
}

/// What one side says before messages begin.
#[derive(Debug, Default)]
struct Handshake {
    held: BytesMut,
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    compat: Option<i32>,
    version: i32,
    checksums: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    /// Both sides have not said who they are.
    Handshake,
    Filters,
    List,
    Owners,
    Groups,
    Number,
    Tokens {
        file: File,
    },
    Literal {
        file: File,
        left: usize,
    },
    Sum {
        file: File,
    },
    /// All is over but for statistics.
    Over,
}

#[derive(Debug)]
struct File {
    name: Vec<u8>,
    content: Content,
    /// Blocks of what the receiver had already.
    blocks: bool,
}

/// What numbers of files are told relative to.
#[derive(Debug)]
struct Numbers {
    positive: i32,
    negative: i32,
}

impl Follower {
    pub(super) fn new(direction: Direction, options: Options) -> Self {
        Self {
            options,
            sender: match direction {
                Direction::Upload => Side::Client,
                Direction::Download => Side::Target,
            },
            handshakes: Default::default(),
            demultiplexer: Demultiplexer::default(),
            data: BytesMut::new(),
            state: State::Handshake,
            lists: Lists::default(),
            done: 0,
            numbers: Numbers { positive: -1, negative: 1 },
            sum_bytes: 16,
            went: VecDeque::new(),
            lost: None,
            room: Room::of(0),
        }
    }

    /// Takes what `from` sent.
    pub(super) fn take(&mut self, from: Side, bytes: &[u8]) {
        if self.lost.is_some() {
            return;
        }
        if let Err(why) = self.try_take(from, bytes) {
            self.lose(why);
        }
    }

    /// The next file that went.
    pub(super) fn next(&mut self) -> Option<Went> {
        self.went.pop_front()
    }

    /// The stream ends: what was under way is told of as not whole. Says why not all files may have been told of, if so.
    pub(super) fn finish(&mut self) -> Option<Lost> {
        if self.lost.is_none() && !matches!(self.state, State::Over) {
            self.lose("it ended early");
        }
        self.lost
    }

    fn lose(&mut self, why: Lost) {
        if let State::Tokens { file } | State::Literal { file, .. } | State::Sum { file } =
            std::mem::replace(&mut self.state, State::Over)
        {
            self.tell(file, false);
        }
        self.lost = Some(why);
        (self.data, self.lists, self.handshakes) = Default::default();
    }

    fn tell(&mut self, file: File, whole: bool) {
        let File { name, mut content, blocks } = file;
        if blocks {
            content.spoil(&mut self.room);
        }
        let moved = Moved { bytes: content.bytes, digest: content.digest(), partial: blocks || !whole };
        let alone = self.lists.files() == 1;
        self.went.push_back(Went { name, moved, whole, alone });
    }

    fn try_take(&mut self, from: Side, bytes: &[u8]) -> Result<(), Lost> {
        if !matches!(self.state, State::Handshake) {
            return if from == self.sender { self.messages(bytes) } else { Ok(()) };
        }
        let index = usize::from(from == Side::Target);
        let [client, target] = &mut self.handshakes;
        let mine = if from == Side::Client { &mut *client } else { &mut *target };
        if mine.said.is_some() && from != self.sender {
            return Ok(()); // the receiver has gone on
        }
        mine.held.extend_from_slice(bytes);
        if mine.held.len() > MOST_ENTRY.max(1 << 20) {
            return Err("one side does not say who it is");
        }
        // The client's depends on what the server says it can do.
        for index in [1 - index, index, 1 - index] {
            self.greet(index)?;
        }
        let [client, target] = &mut self.handshakes;
        let (Some(said), Some(answered)) = (&client.said, &target.said) else {
            return Ok(());
        };
        if !(30..=32).contains(&said.version.min(answered.version)) {
            return Err("the version of the protocol is not known");
        }
        self.sum_bytes = sum_bytes(said.checksums.as_deref(), answered.checksums.as_deref())?;
        let filters = self.options.filters && self.sender == Side::Client;
        self.state = if filters { State::Filters } else { State::List };
        let [client, target] = &mut self.handshakes;
        let rest = if self.sender == Side::Client { client } else { target };
        let rest = rest.held.split();
        self.messages(&rest)
    }

    /// Reads what one side says of itself, if it is there.
    fn greet(&mut self, index: usize) -> Result<(), Lost> {
        let [client, target] = &mut self.handshakes;
        let is_server = index == 1;
        let compat_of_server = target.said.as_ref().and_then(|said| said.compat);
        let mine = if is_server { target } else { client };
        if mine.said.is_some() || (!is_server && compat_of_server.is_none()) {
            return Ok(());
        }
        let mut reader = Reader::new(&mine.held);
        let read = |reader: &mut Reader<'_>| -> Result<Said, Stop> {
            let version = reader.int()?;
            let compat = if is_server { Some(reader.varint()?) } else { None };
            let negotiates = compat.or(compat_of_server).unwrap_or(0) & compat::VARINT_FLAGS != 0;
            let checksums = if negotiates { Some(reader.vstring()?.to_vec()) } else { None };
            if is_server {
                reader.int()?; // the seed
            }
            Ok(Said { compat, version, checksums })
        };
        match read(&mut reader) {
            Ok(said) => {
                let used = reader.position();
                mine.held.advance(used);
                mine.said = Some(said);
                Ok(())
            }
            Err(Stop::Short) => Ok(()),
            Err(Stop::Lost(why)) => Err(why),
        }
    }

    fn compat(&self) -> i32 {
        let [_, target] = &self.handshakes;
        target.said.as_ref().and_then(|said| said.compat).unwrap_or(0)
    }

    fn messages(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let mut demultiplexer = std::mem::take(&mut self.demultiplexer);
        let mut outcome = Ok(());
        let taken = demultiplexer.take(bytes, |part| {
            if outcome.is_ok() {
                outcome = self.read(part);
            }
        });
        self.demultiplexer = demultiplexer;
        outcome.and(taken)
    }

    /// Takes data of the sender. A file's content is not copied.
    fn read(&mut self, mut part: &[u8]) -> Result<(), Lost> {
        loop {
            if let State::Literal { file, left } = &mut self.state {
                // What is held comes first; there is seldom any.
                let held = self.data.len().min(*left);
                let offset = file.content.bytes;
                file.content.take(offset, &self.data[..held], &mut self.room);
                self.data.advance(held);
                *left -= held;
                let (now, rest) = part.split_at(part.len().min(*left));
                let offset = file.content.bytes;
                file.content.take(offset, now, &mut self.room);
                *left -= now.len();
                part = rest;
                if *left > 0 {
                    return Ok(());
                }
                if let State::Literal { file, .. } = std::mem::replace(&mut self.state, State::Over) {
                    self.state = State::Tokens { file };
                }
            }
            // No more than one thing needs is held; the rest may be content.
            let need = match &self.state {
                State::Tokens { .. } => 4,
                State::Sum { .. } => self.sum_bytes,
                _ => MOST_ENTRY,
            };
            let taken = part.len().min(need.saturating_sub(self.data.len()));
            let (now, rest) = part.split_at(taken);
            self.data.extend_from_slice(now);
            part = rest;
            match self.step() {
                Ok(()) => {}
                Err(Stop::Short) if self.data.len() >= MOST_ENTRY => return Err("something is too long"),
                Err(Stop::Short) if part.is_empty() => return Ok(()),
                Err(Stop::Short) => {}
                Err(Stop::Lost(why)) => return Err(why),
            }
            if matches!(self.state, State::Over) {
                self.data.clear();
                return Ok(());
            }
        }
    }

    /// Reads one thing.
    fn step(&mut self) -> Result<(), Stop> {
        let data = std::mem::take(&mut self.data);
        let mut reader = Reader::new(&data);
        let state = std::mem::replace(&mut self.state, State::Over);
        let (stepped, used) = match state {
            State::Tokens { file } => (self.token(file, &mut reader), reader.position()),
            State::Sum { file } => (self.sum(file, &mut reader), reader.position()),
            other => {
                let next = self.other(&other, &mut reader);
                if next.is_err() {
                    self.state = other;
                }
                (next, reader.position())
            }
        };
        self.data = data;
        self.state = stepped?;
        self.data.advance(used);
        Ok(())
    }

    fn other(&mut self, state: &State, reader: &mut Reader<'_>) -> Result<State, Stop> {
        match state {
            State::Filters => {
                let length = reader.int()?;
                let length = usize::try_from(length).map_err(|_| "a filter has no length")?;
                reader.take(length)?;
                Ok(if length == 0 { State::List } else { State::Filters })
            }
            State::List => {
                let compat = self.compat();
                match self.lists.read(reader, compat, self.options, self.sum_bytes)? {
                    Read::Entry => Ok(State::List),
                    Read::End => self.list_ended(),
                }
            }
            State::Owners | State::Groups => {
                let id = reader.varint()?;
                if id != 0 || self.compat() & compat::ID0_NAMES != 0 {
                    let length = reader.byte()?;
                    reader.take(length.into())?;
                }
                let is_owners = matches!(state, State::Owners);
                Ok(match (id, is_owners) {
                    (0, true) if self.options.groups => State::Groups,
                    (0, _) => State::Number,
                    (_, true) => State::Owners,
                    (_, false) => State::Groups,
                })
            }
            State::Number => self.number(reader),
            State::Handshake | State::Tokens { .. } | State::Literal { .. } | State::Sum { .. } | State::Over => {
                Ok(State::Over)
            }
        }
    }

    fn list_ended(&mut self) -> Result<State, Stop> {
        let increments = self.compat() & compat::INC_RECURSE != 0;
        self.lists.end(increments)?;
        Ok(match self.options {
            Options { numeric_ids: true, .. } => State::Number,
            _ if increments => State::Number,
            Options { owners: true, .. } => State::Owners,
            Options { groups: true, .. } => State::Groups,
            _ => State::Number,
        })
    }

    /// Reads the number of a file and what changes of it (rsync.c, `write_ndx_and_attrs`), or what stands in its place.
    fn number(&mut self, reader: &mut Reader<'_>) -> Result<State, Stop> {
        let (number, numbers) = self.numbers.read(reader)?;
        match number {
            DONE => {
                self.numbers = numbers;
                self.done += 1;
                let lists = if self.compat() & compat::INC_RECURSE != 0 { self.lists.count() } else { 1 };
                return Ok(if self.done == lists - 1 + ROUNDS { State::Over } else { State::Number });
            }
            LISTS_END => {
                self.numbers = numbers;
                return Ok(State::Number);
            }
            DELETIONS => {
                for _ in 0..5 {
                    reader.varint()?;
                }
                self.numbers = numbers;
                return Ok(State::Number);
            }
            ..=LIST => {
                self.numbers = numbers;
                return Ok(State::List);
            }
            _ => {}
        }
        let changes = reader.short()?;
        if changes & item::BASIS_TYPE != 0 {
            reader.byte()?;
        }
        if changes & item::XNAME != 0 {
            reader.vstring()?;
        }
        if changes & item::TRANSFER == 0 || self.options.dry_run {
            self.numbers = numbers;
            return Ok(State::Number);
        }
        for _ in 0..4 {
            reader.int()?; // blocks, their length, their sums' length, the last one's length
        }
        let entry = self.lists.file(number).ok_or("a file is not in a list")?;
        self.numbers = numbers;
        Ok(State::Tokens {
            file: File { name: entry.name.clone(), content: Content::new(true), blocks: self.options.append },
        })
    }

    /// Reads what comes next of a file (token.c, `simple_recv_token`).
    fn token(&mut self, mut file: File, reader: &mut Reader<'_>) -> Result<State, Stop> {
        match reader.int() {
            Ok(0) => Ok(State::Sum { file }),
            Ok(length) if length > 0 => Ok(State::Literal { file, left: length.unsigned_abs() as usize }),
            Ok(_) => {
                file.blocks = true;
                Ok(State::Tokens { file })
            }
            Err(stop) => {
                self.state = State::Tokens { file };
                Err(stop)
            }
        }
    }

    fn sum(&mut self, file: File, reader: &mut Reader<'_>) -> Result<State, Stop> {
        if let Err(stop) = reader.take(self.sum_bytes) {
            self.state = State::Sum { file };
            return Err(stop);
        }
        self.tell(file, true);
        Ok(State::Number)
    }
}

impl Numbers {
    /// Reads a number (io.c, `read_ndx`), and what the next one is relative to.
    fn read(&self, reader: &mut Reader<'_>) -> Result<(i32, Numbers), Stop> {
        let mut first = reader.byte()?;
        let negative = first == 0xff;
        if first == 0 {
            return Ok((DONE, Numbers { ..*self }));
        }
        if negative {
            first = reader.byte()?;
        }
        let before = if negative { self.negative } else { self.positive };
        let value = if first == 0xfe {
            let (high, low) = (reader.byte()?, reader.byte()?);
            if high & 0x80 != 0 {
                let (third, fourth) = (reader.byte()?, reader.byte()?);
                i32::from_le_bytes([low, third, fourth, high & 0x7f])
            } else {
                before.saturating_add(i32::from(u16::from_be_bytes([high, low])))
            }
        } else {
            before.saturating_add(first.into())
        };
        Ok(if negative {
            (-value, Numbers { negative: value, ..*self })
        } else {
            (value, Numbers { positive: value, ..*self })
        })
    }
}

/// The length of the checksum after each file: that of the first in the client's list that the server knows, too.
fn sum_bytes(client: Option<&[u8]>, server: Option<&[u8]>) -> Result<usize, Lost> {
    let (Some(client), Some(server)) = (client, server) else {
        return Ok(16); // MD5
    };
    let known = |name: &&[u8]| server.split(|byte| *byte == b' ').any(|other| other == *name);
    let chosen = client.split(|byte| *byte == b' ').find(known).ok_or("the two have no checksum in common")?;
    match chosen {
        b"xxh128" | b"md5" | b"md4" => Ok(16),
        b"xxh3" | b"xxh64" | b"xxhash" => Ok(8),
        b"sha1" => Ok(20),
        b"sha256" => Ok(32),
        b"sha512" => Ok(64),
        _ => Err("the checksum that they chose is not known"),
    }
}
