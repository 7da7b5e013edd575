//! Lists of files in rsync's stream (flist.c), and what of them depends on the command line.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::wire::{Lost, Reader, Stop};
use crate::files::Direction;

/// Files that are kept count of in one run, and the bytes of their names.
const MOST_FILES: usize = 100_000;
const MOST_NAMES: usize = 8 << 20;

/// The longest name (`MAXPATHLEN`).
const MOST_NAME: usize = 4096;

/// Flags of an entry (rsync.h, `XMIT_…`).
mod entry {
    pub(super) const SAME_MODE: u32 = 1 << 1;
    pub(super) const EXTENDED: u32 = 1 << 2;
    pub(super) const SAME_UID: u32 = 1 << 3;
    pub(super) const SAME_GID: u32 = 1 << 4;
    pub(super) const SAME_NAME: u32 = 1 << 5;
    pub(super) const LONG_NAME: u32 = 1 << 6;
    pub(super) const SAME_TIME: u32 = 1 << 7;
    pub(super) const SAME_RDEV_MAJOR: u32 = 1 << 8;
    pub(super) const HARD_LINKED: u32 = 1 << 9;
    pub(super) const USER_NAME: u32 = 1 << 10;
    pub(super) const GROUP_NAME: u32 = 1 << 11;
    pub(super) const IO_ERROR_ENDS: u32 = 1 << 12;
    pub(super) const NANOSECONDS: u32 = 1 << 13;
    pub(super) const SAME_ATIME: u32 = 1 << 14;
    pub(super) const CRTIME_IS_MTIME: u32 = 1 << 17;
}

/// Compat flags (compat.c, `CF_…`).
pub(super) mod compat {
    pub(in crate::rsync) const INC_RECURSE: i32 = 1;
    pub(in crate::rsync) const SAFE_FLIST: i32 = 1 << 3;
    pub(in crate::rsync) const VARINT_FLAGS: i32 = 1 << 7;
    pub(in crate::rsync) const ID0_NAMES: i32 = 1 << 8;
}

/// What the command line says of what is in the stream.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) links: bool,
    pub(super) owners: bool,
    pub(super) groups: bool,
    pub(super) devices: bool,
    pub(super) access_times: bool,
    pub(super) creation_times: bool,
    pub(super) checksums: bool,
    pub(super) numeric_ids: bool,
    /// The server gets a list of filters first.
    pub(super) filters: bool,
    pub(super) dry_run: bool,
    /// Only what is beyond the receiver's file is sent.
    pub(super) append: bool,
}

impl Options {
    /// What a server's options say; or why its stream cannot be followed.
    pub(super) fn read<'a>(words: impl Iterator<Item = &'a [u8]>, direction: Direction) -> Result<Self, Lost> {
        let mut options = Self::default();
        for word in words {
            let Some(long) = word.strip_prefix(b"--") else {
                // What follows an `e` is what the client can do.
                let letters = word.get(1..).unwrap_or_default().split(|&letter| letter == b'e').next();
                for letter in letters.unwrap_or_default() {
                    match letter {
                        b'l' => options.links = true,
                        b'o' => options.owners = true,
                        b'g' => options.groups = true,
                        b'D' => options.devices = true,
                        b'U' => options.access_times = true,
                        b'N' => options.creation_times = true,
                        b'c' => options.checksums = true,
                        b'n' => options.dry_run = true,
                        b'm' => options.filters = true,
                        b'z' => return Err("it is compressed"),
                        b'A' | b'X' => return Err("it has ACLs or extended attributes"),
                        b'H' => return Err("it has hard links"),
                        b'v' | b'q' | b't' | b'p' | b'r' | b'u' | b'd' | b'K' | b'L' | b'k' | b'J' | b'O' | b'E'
                        | b'h' | b'i' | b'y' | b'b' | b'C' | b'I' | b'S' | b'W' | b'x' | b'R' => {}
                        _ => return Err("an option is not known"),
                    }
                }
                continue;
            };
            let name = long.split(|&byte| byte == b'=').next().unwrap_or_default();
            match name {
                b"numeric-ids" => options.numeric_ids = true,
                b"append" | b"append-verify" => options.append = true,
                b"delete-missing-args" => {}
                _ if name.starts_with(b"delete") => options.filters = true,
                b"compress-choice" | b"new-compress" | b"old-compress" | b"compress-level" => {
                    return Err("it is compressed");
                }
                b"checksum-choice" | b"checksum-seed" | b"iconv" => return Err("an option is not known"),
                _ if super::is_harmless(word, direction) => {}
                _ => return Err("an option is not known"),
            }
        }
        Ok(options)
    }
}

/// The lists of files of one run, and what they are numbered by.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// By the number of their first file.
    all: BTreeMap<i32, Vec<Entry>>,
    /// The one that is being read.
    current: Vec<Entry>,
    files: usize,
    name_bytes: usize,
    last: Last,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    is_folder: bool,
    is_file: bool,
}

/// What an entry need not repeat.
#[derive(Debug, Default)]
struct Last {
    name: Vec<u8>,
    mode: u32,
}

/// What was read of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Entry,
    End,
}

impl Lists {
    /// How many lists there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// How many entries they have.
    pub(super) fn files(&self) -> usize {
        self.files
    }

    /// The file of this number, if it is one.
    pub(super) fn file(&self, number: i32) -> Option<&Entry> {
        let (first, list) = self.all.range(..=number).next_back()?;
        let index = usize::try_from(number.checked_sub(*first)?).ok()?;
        list.get(index).filter(|entry| entry.is_file)
    }

    /// The list that was being read is whole. `increments`: there are more of them, and numbers begin at 1.
    pub(super) fn end(&mut self, increments: bool) -> Result<(), Lost> {
        let mut list = std::mem::take(&mut self.current);
        list.sort_by(compare);
        let first = match self.all.last_key_value() {
            Some((first, list)) => {
                let count = i32::try_from(list.len()).map_err(|_| "it has too many files")?;
                first.checked_add(count).and_then(|next| next.checked_add(1)).ok_or("it has too many files")?
            }
            None => i32::from(increments),
        };
        self.all.insert(first, list);
        Ok(())
    }

    /// Reads an entry of a list, or its end (flist.c, `recv_file_list` and `recv_file_entry`).
    pub(super) fn read(
        &mut self,
        reader: &mut Reader<'_>,
        compat: i32,
        options: Options,
        sum_bytes: usize,
    ) -> Result<Read, Stop> {
        let flags = if compat & compat::VARINT_FLAGS != 0 {
            let flags = reader.varint()?.cast_unsigned();
            if flags == 0 {
                reader.varint()?; // errors while reading folders
                return Ok(Read::End);
            }
            flags
        } else {
            let mut flags = u32::from(reader.byte()?);
            if flags == 0 {
                return Ok(Read::End);
            }
            if flags & entry::EXTENDED != 0 {
                flags |= u32::from(reader.byte()?) << 8;
            }
            if flags == entry::EXTENDED | entry::IO_ERROR_ENDS {
                if compat & compat::SAFE_FLIST == 0 {
                    return Err("a list ends as it must not".into());
                }
                reader.varint()?;
                return Ok(Read::End);
            }
            flags
        };
        if flags & entry::HARD_LINKED != 0 {
            return Err("it has hard links".into());
        }
        let same = if flags & entry::SAME_NAME != 0 { usize::from(reader.byte()?) } else { 0 };
        let more = if flags & entry::LONG_NAME != 0 { reader.varint()? } else { reader.byte()?.into() };
        let more = usize::try_from(more).map_err(|_| "a name has no length")?;
        let beginning = self.last.name.get(..same).ok_or("a name repeats more than there was")?;
        if same + more > MOST_NAME {
            return Err("a name is too long".into());
        }
        let name = [beginning, reader.take(more)?].concat();
        reader.varlong(3)?; // the size; what goes is counted
        if flags & entry::SAME_TIME == 0 {
            reader.varlong(4)?;
        }
        if flags & entry::NANOSECONDS != 0 {
            reader.varint()?;
        }
        if options.creation_times && flags & entry::CRTIME_IS_MTIME == 0 {
            reader.varlong(4)?;
        }
        let mode = if flags & entry::SAME_MODE == 0 { reader.int()?.cast_unsigned() } else { self.last.mode };
        // What the wire calls it, whatever the systems at both ends do (flist.c, `to_wire_mode`).
        let kind = mode & 0o170_000;
        let (is_folder, is_file, is_link) = (kind == 0o040_000, kind == 0o100_000, kind == 0o120_000);
        if options.access_times && !is_folder && flags & entry::SAME_ATIME == 0 {
            reader.varlong(4)?;
        }
        for (wanted, same, named) in
            [(options.owners, entry::SAME_UID, entry::USER_NAME), (options.groups, entry::SAME_GID, entry::GROUP_NAME)]
        {
            if wanted && flags & same == 0 {
                reader.varint()?;
                if flags & named != 0 {
                    let length = reader.byte()?;
                    reader.take(length.into())?;
                }
            }
        }
        if options.devices && matches!(kind, 0o020_000 | 0o060_000) {
            if flags & entry::SAME_RDEV_MAJOR == 0 {
                reader.varint()?;
            }
            reader.varint()?;
        }
        if options.devices && matches!(kind, 0o010_000 | 0o140_000) {
            return Err("it has sockets or pipes".into());
        }
        if options.links && is_link {
            let length = usize::try_from(reader.varint()?).map_err(|_| "a link has no length")?;
            reader.take(length)?;
        }
        if options.checksums && is_file {
            reader.take(sum_bytes)?;
        }
        self.files += 1;
        self.name_bytes += name.len();
        if self.files > MOST_FILES || self.name_bytes > MOST_NAMES {
            return Err("it has too many files".into());
        }
        self.last = Last { name: name.clone(), mode };
        self.current.push(Entry { name, is_folder, is_file });
        Ok(Read::Entry)
    }
}

/// The order of a list (flist.c, `f_name_cmp` from version 29 on): in each folder files come before folders.
fn compare(a: &Entry, b: &Entry) -> Ordering {
    if a.name == b"." || b.name == b"." {
        return (a.name != b".").cmp(&(b.name != b"."));
    }
    let (mut left, mut right) = (a.name.split(|byte| *byte == b'/'), b.name.split(|byte| *byte == b'/'));
    let (mut one, mut other) = (left.next(), right.next());
    loop {
        let (next_one, next_other) = (left.next(), right.next());
        let (Some(x), Some(y)) = (one, other) else {
            return one.is_some().cmp(&other.is_some());
        };
        let is_path = |next: Option<&[u8]>, entry: &Entry| next.is_some() || entry.is_folder;
        let (x_path, y_path) = (is_path(next_one, a), is_path(next_other, b));
        // As if a folder's name ended with a slash.
        let ended = |name: &[u8], path: bool| [name, if path { b"/".as_slice() } else { b"" }].concat();
        let order = x_path.cmp(&y_path).then_with(|| ended(x, x_path).cmp(&ended(y, y_path)));
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (next_one, next_other);
    }
}
