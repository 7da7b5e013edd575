//! The archive: a ZIP file (APPNOTE.TXT 6.3.10) of which every byte follows from the names and contents of its files, so
//! that no byte of it can be changed unseen, and every program that opens ZIP files sees the same files.
//!
//! ```text
//! archive = (local-header content)… central-header… end
//! ```
//!
//! Files are stored, not compressed: nothing can unfold into more than is there. Names ascend, so none is there twice. Times
//! are 1980-01-01, the first that ZIP has; attributes, extra fields and comments are empty.

use std::fmt;
use std::str::FromStr;

/// The most files in an archive; ZIP without its 64-bit extension has no more.
pub const MOST_FILES: usize = 65_535;

/// The longest name, in bytes.
const MOST_NAME: usize = 200;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;

/// ZIP 1.0, which is enough for stored files, on DOS: there are no attributes.
const VERSION: u16 = 10;
/// 1980-01-01.
const FIRST_DAY: u16 = 0x0021;

const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;

/// The name of a file in an archive: lower-case letters, digits, `.`, `_` and `-` in folders parted by `/`. It is never
/// absolute and leads nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// A text is not the name of a file in an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name of a file in an archive", text.escape_default())]
pub struct NameError {
    text: String,
}

impl FileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError { text: text.chars().take(MOST_NAME).collect() })
        }
    }
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    text.len() <= MOST_NAME
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits))
}

/// Why bytes are not an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    #[error("the file ends early, or is no archive: it should end in a directory of its files")]
    NoEnd,
    #[error("the directory of the files, at byte {at}, is not as it should be")]
    Directory { at: usize },
    #[error("the directory, at byte {at}, lists a file out of order, or twice, or under a name that is not allowed")]
    Name { at: usize },
    #[error("byte {at} is not what the files' names and contents give")]
    Framing { at: usize },
}

/// What does not fit into an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error("{files} files are more than the {MOST_FILES} of an archive")]
    Files { files: usize },
    #[error("the files have more than the 4 GiB of an archive")]
    Bytes,
}

/// A file as the directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: FileName,
    pub bytes: u32,
    /// CRC-32 (IEEE 802.3) of the content.
    pub crc: u32,
}

impl Listed {
    /// What stands before the file's content.
    pub fn header(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LOCAL_BYTES + self.name.0.len());
        put32(&mut out, LOCAL);
        self.put_common(&mut out);
        out.extend_from_slice(self.name.0.as_bytes());
        out
    }

    /// What local and central headers share: version to extra field's length.
    fn put_common(&self, out: &mut Vec<u8>) {
        // No flags; stored; midnight.
        [VERSION, 0, 0, 0, FIRST_DAY].into_iter().for_each(|field| put16(out, field));
        [self.crc, self.bytes, self.bytes].into_iter().for_each(|field| put32(out, field));
        // A name has at most 200 bytes.
        put16(out, self.name.0.len() as u16);
        put16(out, 0);
    }

    fn put_central(&self, offset: u32, out: &mut Vec<u8>) {
        put32(out, CENTRAL);
        put16(out, VERSION);
        self.put_common(out);
        // No comment; on the first disk; no attributes.
        [0, 0, 0].into_iter().for_each(|field| put16(out, field));
        put32(out, 0);
        put32(out, offset);
        out.extend_from_slice(self.name.0.as_bytes());
    }
}

/// What stands behind the last file's content. `files` are all of them, by ascending names.
pub fn directory(files: &[Listed]) -> Result<Vec<u8>, TooLarge> {
    let count = u16::try_from(files.len()).map_err(|_| TooLarge::Files { files: files.len() })?;
    let mut out = Vec::new();
    let mut offset = 0_u32;
    for file in files {
        file.put_central(offset, &mut out);
        let taken = (LOCAL_BYTES + file.name.0.len()) as u32;
        offset = offset.checked_add(taken).and_then(|sum| sum.checked_add(file.bytes)).ok_or(TooLarge::Bytes)?;
    }
    let bytes = u32::try_from(out.len()).map_err(|_| TooLarge::Bytes)?;
    put32(&mut out, END);
    [0, 0, count, count].into_iter().for_each(|field| put16(&mut out, field));
    [bytes, offset].into_iter().for_each(|field| put32(&mut out, field));
    put16(&mut out, 0);
    Ok(out)
}

/// The archive of these files, whole in memory.
pub fn write(files: &std::collections::BTreeMap<FileName, Vec<u8>>) -> Result<Vec<u8>, TooLarge> {
    let mut listed = Vec::new();
    let mut out = Vec::new();
    for (name, content) in files {
        let bytes = u32::try_from(content.len()).map_err(|_| TooLarge::Bytes)?;
        let file = Listed { name: name.clone(), bytes, crc: crc32fast::hash(content) };
        out.extend_from_slice(&file.header());
        out.extend_from_slice(content);
        listed.push(file);
    }
    out.extend_from_slice(&directory(&listed)?);
    Ok(out)
}

/// A file of an archive that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File<'a> {
    pub name: FileName,
    pub content: &'a [u8],
}

/// An archive that was read. What is not as it should be, and does not keep one from reading, [`Archive::check`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    files: Vec<File<'a>>,
}

impl<'a> Archive<'a> {
    /// Reads an archive. Takes memory in proportion to the number of files, and copies nothing of them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let end_at = bytes.len().checked_sub(END_BYTES).ok_or(ArchiveError::NoEnd)?;
        let end = bytes.get(end_at..).ok_or(ArchiveError::NoEnd)?;
        if get32(end, 0) != Some(END) {
            return Err(ArchiveError::NoEnd);
        }
        let bad_end = ArchiveError::Directory { at: end_at };
        let count = get16(end, 10).ok_or(ArchiveError::NoEnd)?;
        let start = get32(end, 16).map(|at| at as usize).filter(|&at| at <= end_at).ok_or(bad_end.clone())?;
        let mut files: Vec<File<'_>> = Vec::new();
        let (mut at, mut offset) = (start, 0);
        for _ in 0..count {
            let bad = ArchiveError::Directory { at };
            let header = bytes.get(at..end_at).ok_or(bad.clone())?;
            let (Some(length), Some(name_bytes)) = (get32(header, 24), get16(header, 28)) else {
                return Err(bad);
            };
            let name = header.get(CENTRAL_BYTES..CENTRAL_BYTES + usize::from(name_bytes)).ok_or(bad.clone())?;
            let name: Option<FileName> = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            let name = name.filter(|name| files.last().is_none_or(|last| last.name < *name));
            let name = name.ok_or(ArchiveError::Name { at })?;
            // Contents follow one another: a place of their own cannot be given to them.
            let content_at = offset + LOCAL_BYTES + usize::from(name_bytes);
            let content_end = content_at.saturating_add(length as usize);
            let content = bytes.get(content_at..content_end).filter(|_| content_end <= start).ok_or(bad)?;
            files.push(File { name, content });
            offset = content_end;
            at += CENTRAL_BYTES + usize::from(name_bytes);
        }
        if offset == start && at == end_at { Ok(Self { bytes, files }) } else { Err(bad_end) }
    }

    pub fn files(&self) -> &[File<'a>] {
        &self.files
    }

    /// The content of the file `name`.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let place = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        self.files.get(place).map(|file| file.content)
    }

    /// Verifies that all that is not content is what follows from names and contents, checksums included.
    pub fn check(&self) -> Result<(), ArchiveError> {
        let mut listed = Vec::with_capacity(self.files.len());
        let mut at = 0;
        for file in &self.files {
            // `parse` has read the length from 32 bits.
            let bytes = file.content.len() as u32;
            let file = Listed { name: file.name.clone(), bytes, crc: crc32fast::hash(file.content) };
            let header = file.header();
            self.compare(at, &header)?;
            at += header.len() + bytes as usize;
            listed.push(file);
        }
        let directory = directory(&listed).map_err(|_| ArchiveError::Directory { at })?;
        self.compare(at, &directory)
    }

    fn compare(&self, at: usize, expected: &[u8]) -> Result<(), ArchiveError> {
        let found = self.bytes.get(at..).unwrap_or_default();
        match expected.iter().zip(found).position(|(expected, found)| expected != found) {
            Some(place) => Err(ArchiveError::Framing { at: at + place }),
            None if found.len() < expected.len() => Err(ArchiveError::NoEnd),
            None => Ok(()),
        }
    }
}

fn put16(out: &mut Vec<u8>, field: u16) {
    out.extend_from_slice(&field.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, field: u32) {
    out.extend_from_slice(&field.to_le_bytes());
}

fn get16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn get32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn any_files() -> impl Strategy<Value = BTreeMap<FileName, Vec<u8>>> {
        let name = "[a-z0-9_-]{1,6}(/[a-z0-9._-]{0,4}[a-z]){0,2}".prop_map(|name| name.parse().unwrap());
        prop::collection::btree_map(name, prop::collection::vec(any::<u8>(), 0..40), 0..8)
    }

    proptest! {
        #[test]
        fn every_archive_reads_back(files in any_files()) {
            let bytes = write(&files).unwrap();
            let archive = Archive::parse(&bytes).unwrap();
            let read = archive.files().iter().map(|file| (file.name.clone(), file.content.to_vec()));
            prop_assert_eq!(read.collect::<BTreeMap<_, _>>(), files.clone());
            prop_assert!(files.iter().all(|(name, content)| archive.get(name.as_str()) == Some(content)));
            prop_assert_eq!(archive.check(), Ok(()));
        }

        #[test]
        fn a_byte_that_was_changed_is_seen(files in any_files(), place: prop::sample::Index, flip in 1_u8..) {
            let mut bytes = write(&files).unwrap();
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            prop_assert!(Archive::parse(&bytes).and_then(|archive| archive.check()).is_err());
        }

        #[test]
        fn what_was_cut_off_or_put_on_is_seen(files in any_files(), cut: prop::sample::Index, more in prop::collection::vec(any::<u8>(), 1..30)) {
            let bytes = write(&files).unwrap();
            prop_assert!(Archive::parse(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert!(Archive::parse(&[bytes.as_slice(), &more].concat()).is_err());
            prop_assert!(Archive::parse(&[more.as_slice(), &bytes].concat()).is_err());
        }

        #[test]
        fn hostile_bytes_give_an_error_and_no_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), files in any_files(), at: prop::sample::Index,
        ) {
            let _ = Archive::parse(&bytes);
            let mut archive = write(&files).unwrap();
            let at = at.index(archive.len());
            archive.splice(at.., bytes);
            archive.extend_from_slice(&write(&files).unwrap()[..]);
            if let Ok(archive) = Archive::parse(&archive) {
                let _ = archive.check();
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in
            ["", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "a\\b", "C:x", "A", "a b", "ä", &"a".repeat(201)]
        {
            assert!(name.parse::<FileName>().is_err(), "{name}");
        }
        for name in ["index.html", "recordings/r-01/recording.cast", "..a"] {
            assert!(name.parse::<FileName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn the_bytes_are_for_ever() {
        let files = BTreeMap::from([("a".parse().unwrap(), b"hello".to_vec())]);
        let expected = "504b03040a00000000000000210086a6103605000000050000000100000061\
                        68656c6c6f\
                        504b01020a000a00000000000000210086a61036050000000500000001000000000000000000000000000000000061\
                        504b050600000000010001002f000000240000000000";
        let hex: String = write(&files).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
