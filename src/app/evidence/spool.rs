//! Where a bundle grows: its large files in one temporary file without a name, piece by piece and side by side, so that a bundle
//! costs disk and not memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::bundle::ListedFile;
use sallyport_domain::ledger::bundle::archive::{self, FileName, Listed};
use sha2::{Digest, Sha256};

use super::EvidenceError;

/// The most that is read at once, in bytes.
const PIECE: u64 = 256 << 10;

/// A file of the bundle that grows.
pub(super) struct Growing {
    name: FileName,
    pieces: Vec<(u64, u64)>,
    bytes: u64,
    crc: crc32fast::Hasher,
    sha256: Sha256,
}

/// Everything that is in a bundle so far.
pub(super) struct Spool {
    file: File,
    end: u64,
    done: Vec<Done>,
}

struct Done {
    listed: Listed,
    pieces: Vec<(u64, u64)>,
    sha256: Hash,
}

impl Growing {
    pub(super) fn new(name: &str) -> Result<Self, EvidenceError> {
        let name = name.parse().map_err(EvidenceError::internal)?;
        Ok(Self { name, pieces: Vec::new(), bytes: 0, crc: crc32fast::Hasher::new(), sha256: Sha256::new() })
    }
}

impl Spool {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, end: 0, done: Vec::new() })
    }

    /// Appends to a file.
    pub(super) fn put(&mut self, file: &mut Growing, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        let length = bytes.len() as u64;
        match file.pieces.last_mut() {
            Some((from, piece)) if *from + *piece == self.end => *piece += length,
            Some(_) | None => file.pieces.push((self.end, length)),
        }
        self.end += length;
        file.bytes += length;
        file.crc.update(bytes);
        file.sha256.update(bytes);
        Ok(())
    }

    /// A file is whole.
    pub(super) fn close(&mut self, file: Growing) -> Result<(), EvidenceError> {
        let bytes = u32::try_from(file.bytes).map_err(|_| EvidenceError::TooLarge(archive::TooLarge::Bytes))?;
        let listed = Listed { name: file.name, bytes, crc: file.crc.finalize() };
        self.done.push(Done { listed, pieces: file.pieces, sha256: Hash(file.sha256.finalize().into()) });
        Ok(())
    }

    /// Adds a whole file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<(), EvidenceError> {
        let mut file = Growing::new(name)?;
        self.put(&mut file, content)?;
        self.close(file)
    }

    /// What the list of contents says of the files so far.
    pub(super) fn listed(&mut self) -> Vec<ListedFile> {
        self.done.sort_by(|a, b| a.listed.name.cmp(&b.listed.name));
        let file = |done: &Done| ListedFile {
            name: done.listed.name.to_string(),
            bytes: done.listed.bytes.into(),
            sha256: done.sha256,
        };
        self.done.iter().map(file).collect()
    }

    /// The archive of all files.
    pub(super) fn finish(mut self) -> Result<Bundle, EvidenceError> {
        self.done.sort_by(|a, b| a.listed.name.cmp(&b.listed.name));
        let listed: Vec<Listed> = self.done.iter().map(|done| done.listed.clone()).collect();
        let directory = archive::directory(&listed).map_err(EvidenceError::TooLarge)?;
        let mut parts = Vec::new();
        for Done { listed, pieces, .. } in self.done {
            parts.push(Part::Memory(listed.header()));
            parts.extend(pieces.into_iter().map(|(from, length)| Part::Spooled { from, length }));
        }
        parts.push(Part::Memory(directory));
        parts.reverse();
        Ok(Bundle { file: self.file, parts })
    }
}

enum Part {
    Memory(Vec<u8>),
    Spooled { from: u64, length: u64 },
}

/// A bundle, ready to be read from its start to its end.
pub struct Bundle {
    file: File,
    /// The next one last.
    parts: Vec<Part>,
}

impl Bundle {
    /// The next bytes; `None` at the end. Blocks for one read of a file.
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.parts.pop() {
            None => Ok(None),
            Some(Part::Memory(bytes)) => Ok(Some(bytes)),
            Some(Part::Spooled { from, length }) => {
                let now = length.min(PIECE);
                if now < length {
                    self.parts.push(Part::Spooled { from: from + now, length: length - now });
                }
                let mut bytes = vec![0; usize::try_from(now).unwrap_or_default()];
                self.file.seek(SeekFrom::Start(from))?;
                self.file.read_exact(&mut bytes)?;
                Ok(Some(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_was_spooled_side_by_side_is_the_archive_of_the_files() {
        let mut spool = Spool::new().unwrap();
        let (mut a, mut b) = (Growing::new("z").unwrap(), Growing::new("a/b").unwrap());
        for _ in 0..3 {
            spool.put(&mut a, &[b'x'; 200_000]).unwrap();
            spool.put(&mut a, b"more").unwrap();
            spool.put(&mut b, b"side").unwrap();
        }
        spool.close(a).unwrap();
        spool.close(b).unwrap();
        spool.add("empty", b"").unwrap();
        assert_eq!(spool.listed()[0].sha256, Hash::of(b"sidesideside"));

        let (mut bundle, mut bytes) = (spool.finish().unwrap(), vec![]);
        while let Some(next) = bundle.piece().unwrap() {
            bytes.extend(next);
        }

        let z = [[b'x'; 200_000].as_slice(), b"more"].concat().repeat(3);
        let files = [("a/b", b"sidesideside".to_vec()), ("empty", vec![]), ("z", z)];
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name.parse().unwrap(), bytes)).collect();
        assert!(bytes == archive::write(&files).unwrap());
    }
}
