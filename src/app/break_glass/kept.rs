//! What a node keeps on its disk about envelopes, for the day without a database.
//!
//! ```text
//! break-glass/known       the key that verifies, envelopes that are void, when that was written      replaced as a whole
//! break-glass/used/x-…    a file for each envelope that was opened here                               only added to, flushed
//! break-glass/x-…/        what happens under an opened envelope (see `local`)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::EnvelopeId;
use sallyport_domain::ledger::note::VerifierKey;
use serde::{Deserialize, Serialize};

/// A file that says nothing new is written again after this, for the time in it.
const WRITE_AGAIN: TimeDelta = TimeDelta::seconds(30);

const KNOWN: &str = "known";
const USED: &str = "used";

/// Why what is kept cannot be used. No envelope is opened then.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot read or write `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{}` was damaged: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// vkeys
    keys: Vec<String>,
    void: Vec<EnvelopeId>,
    at: DateTime<Utc>,
}

/// The files, and what is in the first of them.
#[derive(Debug)]
pub(super) struct KeptFiles {
    dir: PathBuf,
    known: Known,
    keys: Vec<VerifierKey>,
}

/// The keys that verify envelopes, as a node keeps them in its data folder.
pub fn read_keys(data_dir: &Path) -> Result<Vec<VerifierKey>, KeptError> {
    Ok(read(&data_dir.join("break-glass").join(KNOWN))?.1)
}

fn read(path: &Path) -> Result<(Known, Vec<VerifierKey>), KeptError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(source) => return Err(KeptError::File { path: path.to_owned(), source }),
    };
    let damaged = |message: String| KeptError::Damaged { path: path.to_owned(), message };
    let known: Known = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let keys: Result<Vec<VerifierKey>, _> = known.keys.iter().map(|key| key.parse::<VerifierKey>()).collect();
    let keys = keys.map_err(|error| damaged(error.to_string()))?;
    Ok((known, keys))
}

impl KeptFiles {
    /// Makes the folder if it is not there, for its owner alone. A file that cannot be read counts as none, so that nothing is opened
    /// before the database has answered once.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(USED))?;
        let (known, keys) = read(&dir.join(KNOWN)).unwrap_or_else(|error| {
            tracing::warn!(%error, "What this node keeps for break-glass is not used.");
            Default::default()
        });
        Ok(Self { dir, known, keys })
    }

    pub(super) fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    pub(super) fn void(&self) -> &[EnvelopeId] {
        &self.known.void
    }

    /// The latest instant that was written down.
    pub(super) fn latest(&self) -> DateTime<Utc> {
        self.known.at
    }

    /// Writes what the database says now, if that is new or the file is old.
    pub(super) fn write(
        &mut self,
        key: VerifierKey,
        void: Vec<EnvelopeId>,
        at: DateTime<Utc>,
    ) -> Result<(), KeptError> {
        let known = Known { keys: vec![key.to_string()], void, at };
        let same = known.keys == self.known.keys && known.void == self.known.void;
        if same && at - self.known.at < WRITE_AGAIN {
            return Ok(());
        }
        let path = self.dir.join(KNOWN);
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".known-").tempfile_in(&self.dir)?;
            serde_json::to_writer(&mut file, &known)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| KeptError::File { path: path.clone(), source })?;
        (self.known, self.keys) = (known, vec![key]);
        Ok(())
    }

    /// The envelopes that were opened here.
    pub(super) fn used(&self) -> Result<Vec<EnvelopeId>, KeptError> {
        let path = self.dir.join(USED);
        let found = named_by_envelopes(&path).map_err(|source| KeptError::File { path, source })?;
        Ok(found.into_iter().map(|(id, _)| id).collect())
    }

    /// Notes that an envelope is used up; on the disk when this returns. An error if it was before.
    pub(super) fn note_used(&self, id: EnvelopeId, document: Hash, at: DateTime<Utc>) -> Result<(), KeptError> {
        let dir = self.dir.join(USED);
        let path = dir.join(id.to_string());
        let write = || {
            // Its name says it, so a power failure leaves no half of it.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            writeln!(file, "{document} {}", at.to_rfc3339())?;
            file.sync_all()?;
            File::open(&dir)?.sync_all()
        };
        write().map_err(|source| KeptError::File { path: path.clone(), source })
    }

    /// Where what happens under an opened envelope is kept.
    pub(super) fn folder(&self, id: EnvelopeId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Those folders that are there.
    pub(super) fn folders(&self) -> io::Result<Vec<(EnvelopeId, PathBuf)>> {
        named_by_envelopes(&self.dir)
    }
}

/// What in `dir` has an envelope's id for its name.
fn named_by_envelopes(dir: &Path) -> io::Result<Vec<(EnvelopeId, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(id.map(|id| (id, entry.path())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use sallyport_domain::break_glass::KEY_NAME;
    use sallyport_domain::ledger::note::SignerKey;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> EnvelopeId {
        EnvelopeId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("break-glass");
        let key = SignerKey::new(KEY_NAME.parse().unwrap(), &[1; 32]).public();
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut kept = KeptFiles::open(dir.clone()).unwrap();
        assert_eq!((kept.keys(), kept.used().unwrap()), (&[][..], vec![]));

        kept.write(key.clone(), vec![id(1)], at).unwrap();
        kept.note_used(id(2), Hash([7; 32]), at).unwrap();

        let kept = KeptFiles::open(dir).unwrap();
        assert_eq!((kept.keys(), kept.void(), kept.latest()), (&[key.clone()][..], &[id(1)][..], at));
        assert_eq!(kept.used().unwrap(), [id(2)]);
        assert_eq!(read_keys(folder.path()).unwrap(), [key]);
    }

    #[test]
    fn an_envelope_is_used_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptFiles::open(folder.path().to_owned()).unwrap();

        kept.note_used(id(1), Hash([7; 32]), DateTime::UNIX_EPOCH).unwrap();

        assert!(kept.note_used(id(1), Hash([8; 32]), DateTime::UNIX_EPOCH).is_err());
        assert_eq!((kept.used().unwrap(), kept.folders().unwrap()), (vec![id(1)], vec![]));
    }
}
