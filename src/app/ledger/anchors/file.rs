//! A file that checkpoints are appended to: one line of JSON each, `{"at":…,"node":…,"note":…}`.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AnchorError, Outgoing, Seen};

/// A line is some 400 bytes long; that much is read for each that is wanted.
const LINE_BYTES: u64 = 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: String,
    node: String,
    note: String,
}

/// Appends a checkpoint; when it returns the disk has it.
pub(super) async fn put(path: &Path, outgoing: &Outgoing) -> Result<(), AnchorError> {
    let line = Line { at: outgoing.at.to_rfc3339(), node: outgoing.node.clone(), note: outgoing.note.clone() };
    let mut text = serde_json::to_string(&line).unwrap_or_default(); // three strings always serialise
    text.push('\n');
    in_file(path, move |path| {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    })
    .await
}

/// What the file is called in a sentence.
pub(super) fn place(path: &Path) -> String {
    format!("anchor file `{}`", path.display())
}

/// The newest lines. A last line that was torn by a crash is passed over.
pub(super) async fn seen(path: &Path, most: usize) -> Result<Vec<Seen>, AnchorError> {
    let place = place(path);
    let bytes = in_file(path, move |path| {
        let mut file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let wanted = LINE_BYTES * most as u64;
        let start = file.metadata()?.len().saturating_sub(wanted);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(wanted).read_to_end(&mut bytes)?;
        // What the cut left of a first line is none.
        if start > 0 {
            let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
            bytes.drain(..line);
        }
        Ok(bytes)
    })
    .await?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let read = |line: &[u8]| match serde_json::from_slice::<Line>(line) {
        Ok(Line { at, node, note }) => Seen { place: place.clone(), note, beside: Some((at, node)) },
        // It cannot be read as a note either, and is told of as that.
        Err(_) => Seen { place: place.clone(), note: String::from_utf8_lossy(line).into_owned(), beside: None },
    };
    Ok(lines.rev().take(most).map(read).collect())
}

async fn in_file<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, AnchorError> {
    let owned: PathBuf = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    let failed = |source| AnchorError::File { path: path.to_owned(), source };
    done.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
}
