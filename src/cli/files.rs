//! Rules for files on the command line, and what a session did to files.

use std::path::Path;
use std::str::FromStr;

use bytesize::ByteSize;
use sallyport_domain::files::PathGlob;
use sallyport_domain::hash::Hash;

use super::failure::Failure;
use super::output::{Column, column};
use super::terms::joined;
use super::when;
use crate::api::files::FileEntry;
use crate::api::grants::{Files, FilesOneWay};

/// What limits files, beside whether they may go in and out at all
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    /// Files may go in only here, such as `/srv/app/**` or `~/in/*`; may be given several times
    #[arg(long, value_name = "GLOB")]
    upload_path: Vec<PathGlob>,
    /// Files may come out only from here
    #[arg(long, value_name = "GLOB")]
    download_path: Vec<PathGlob>,
    /// The most for one file, either way, such as `10MiB`
    #[arg(long, value_name = "SIZE")]
    file_bytes: Option<ByteSize>,
    /// The most that may go in, over the grant's life
    #[arg(long, value_name = "SIZE")]
    upload_bytes: Option<ByteSize>,
    /// The most that may come out as files, over the grant's life
    #[arg(long, value_name = "SIZE")]
    download_bytes: Option<ByteSize>,
    /// The most that may come out through terminals and commands, over the grant's life
    #[arg(long, value_name = "SIZE")]
    terminal_bytes: Option<ByteSize>,
    /// Only these contents may go in: a SHA-256, or a file with one at the start of each line, as `sha256sum` writes it
    #[arg(long, value_name = "FILE|HASH")]
    upload_sha256: Vec<String>,
}

impl FileArgs {
    /// The rules. Reads the files with hashes.
    pub(super) fn read(self) -> Result<Files, Failure> {
        let bytes = |size: Option<ByteSize>| size.map(|size| size.as_u64());
        let way = |paths: Vec<PathGlob>, total: Option<ByteSize>| FilesOneWay {
            paths: Some(paths).filter(|paths| !paths.is_empty()),
            file_bytes: bytes(self.file_bytes),
            total_bytes: bytes(total),
        };
        let mut hashes = Vec::new();
        for word in &self.upload_sha256 {
            match word.parse() {
                Ok(hash) => hashes.push(hash),
                Err(_) => hashes.extend(read_hashes(Path::new(word))?),
            }
        }
        Ok(Files {
            upload: way(self.upload_path, self.upload_bytes),
            download: way(self.download_path, self.download_bytes),
            upload_sha256: Some(hashes).filter(|hashes| !hashes.is_empty()),
            terminal_bytes: bytes(self.terminal_bytes),
        })
    }
}

fn read_hashes(path: &Path) -> Result<Vec<Hash>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("`{shown}` is neither a SHA-256 nor a file that can be read: {error}"))
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let hashes: Vec<Hash> = lines
        .map(|(number, line)| {
            // A name that needed escapes has a backslash before the digits.
            let word = line.trim().trim_start_matches('\\').split_whitespace().next().unwrap_or_default();
            Hash::from_str(&word.to_ascii_lowercase()).map_err(|_| {
                Failure::usage(format!("line {} of `{shown}` does not begin with a SHA-256", number + 1))
                    .hint("write the list with `sha256sum`")
            })
        })
        .collect::<Result<_, _>>()?;
    if hashes.is_empty() {
        return Err(Failure::usage(format!("`{shown}` lists no SHA-256")));
    }
    Ok(hashes)
}

/// The rules in words.
pub(super) fn rules(files: &Files) -> String {
    let Files { upload, download, upload_sha256, terminal_bytes } = files;
    let mut words = Vec::new();
    for (name, FilesOneWay { paths, file_bytes, total_bytes }) in [("upload", upload), ("download", download)] {
        words.extend(paths.as_ref().map(|paths| match paths.as_slice() {
            [] => format!("{name} nowhere"),
            paths => format!("{name} only {}", joined(paths)),
        }));
        words.extend(file_bytes.map(|most| format!("{name} at most {} a file", ByteSize(most))));
        words.extend(total_bytes.map(|most| format!("{name} at most {} in all", ByteSize(most))));
    }
    words.extend(upload_sha256.as_ref().map(|list| format!("upload only {} listed SHA-256", list.len())));
    words.extend(terminal_bytes.map(|most| format!("at most {} through terminals in all", ByteSize(most))));
    if words.is_empty() { "no limits".to_owned() } else { words.join("\n") }
}

pub(super) const COLUMNS: &[Column<FileEntry>] = &[
    column("At", |file| when::local(file.at)),
    column("What", |file| file.direction.map_or(file.what.as_str(), |direction| direction.as_str()).to_owned()),
    column("Path", |file| match &file.other_path {
        Some(other) => format!("{} → {other}", file.path),
        None => file.path.clone(),
    }),
    column("Bytes", |file| file.bytes.map(|bytes| bytes.to_string()).unwrap_or_default()),
    column("Result", |file| {
        if file.partial { format!("{}, in part", file.result.as_str()) } else { file.result.as_str().to_owned() }
    }),
    column("SHA-256", |file| file.sha256.map(|hash| hash.to_string()).unwrap_or_default()),
    column("Why", |file| file.reason.clone().unwrap_or_default()),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_hashes_is_read_as_sha256sum_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("SHA256SUMS");
        let (one, two) = (Hash::of(b"1"), Hash::of(b"2"));
        std::fs::write(&list, format!("{one}  a.tar\n\n\\{two} *b\\\\c\n")).unwrap();
        let three = Hash::of(b"3");
        let args = FileArgs {
            upload_sha256: vec![list.display().to_string(), three.to_string()],
            file_bytes: Some(ByteSize::mib(1)),
            ..FileArgs::default()
        };

        let files = args.read().unwrap();

        assert_eq!(files.upload_sha256, Some(vec![one, two, three]));
        assert_eq!(files.upload.paths, None);
        assert_eq!(
            rules(&files),
            "upload at most 1.0 MiB a file\ndownload at most 1.0 MiB a file\nupload only 3 listed SHA-256"
        );
    }

    #[test]
    fn a_list_that_is_none_is_refused_and_not_taken_for_no_rule() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        for text in ["", "not a hash\n"] {
            std::fs::write(&list, text).unwrap();
            let args = FileArgs { upload_sha256: vec![list.display().to_string()], ..FileArgs::default() };
            assert!(args.read().is_err(), "{text:?}");
        }
        assert!(FileArgs { upload_sha256: vec!["/nowhere".to_owned()], ..FileArgs::default() }.read().is_err());
    }

    #[test]
    fn rules_that_limit_nothing_say_so() {
        assert_eq!(rules(&FileArgs::default().read().unwrap()), "no limits");
    }
}
