//! Files through the bastion: which may go which way, and what is told of each.
//!
//! [`FileTerms`] are the rules of a grant; [`FileTerms::judge`] and its sisters are pure decisions. [`gate::FileGate`]
//! sits in a channel that carries files, follows its protocol ([`crate::sftp`], [`crate::scp`], [`crate::rsync`]), asks
//! the rules and tells what happened as [`FileOperation`]s.
//!
//! # What needs which capability
//!
//! | operation | needs |
//! |---|---|
//! | read a file | download of its path |
//! | create, write, truncate, append to a file | upload of its path; reading through the same handle, download too |
//! | remove, mkdir, rmdir, setstat | upload of the path |
//! | rename | upload of both paths, and download of the old one if the grant has download rules (it could be read at the new one) |
//! | symbolic link, hard link | upload of both paths, and download of both if the grant lets files out |
//! | copy on the target | a handle that may be read and one that may be written |
//! | stat, readlink, list a folder | upload or download; with path rules, a place on the way to or within what they mean |
//! | realpath | nothing: it is how clients find out where they are |
//!
//! Names, sizes and times are not a file's content: who may send or fetch may look. Listings are not told of, for
//! there are too many; refused ones are.
//!
//! # What a bastion cannot know
//!
//! Paths are judged by their letters (see [`path`]). A symbolic link that is *already on the target* inside of an allowed folder
//! leads wherever it leads, and so does a hard link or a mount: SFTP opens the file behind it. Under path rules a gate
//! resolves `..` itself and sends the target the resolved path, so that `link/../x` is not the target's to interpret;
//! it refuses to make links that lead out, and relative ones altogether, for they lead elsewhere after a rename. What else
//! may make links (a shell, a restored archive, another account) is outside of its sight; so is what the target's file system makes
//! equal (case, Unicode forms). Where that matters, let the target confine the login (`ChrootDirectory`, file permissions).
//!
//! A program that runs on the target can do to files what it likes: file rules are a boundary for grants with neither shell nor
//! unrestricted exec. With those, [`FileRules::terminal_budget`] bounds what leaves. And whoever may upload to the login's
//! home without path rules may run programs: `.bashrc`, `.ssh/authorized_keys` and a first folder of `PATH` are files, too.

pub(crate) mod content;
pub mod gate;
pub mod path;
pub mod rules;
pub mod spent;

use serde::{Deserialize, Serialize};

pub use path::{FilePath, PathError, PathGlob, Place};
pub use rules::{FileDenial, FileRequest, FileRules, FileTerms, Sha256List, WayRules};
pub use spent::{Spent, Way};

use crate::id::EventId;
use crate::recording::segment::Hash;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the target.
    Upload,
    /// From the target.
    Download,
}

impl Direction {
    /// How the engineer is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Upload => "uploads",
            Direction::Download => "downloads",
        }
    }
}

/// What is known of a content's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    /// Of the bytes that passed, from where the transfer started.
    Sha256(Hash),
    /// Pieces overlapped, were missing (as where rsync sent only what differs), came too far out of order, or one was not taken.
    NotSequential,
    /// Nobody asked for it.
    NotWanted,
}

/// What went one way between an open and its close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub bytes: u64,
    pub digest: Digest,
    /// Not known to be the whole file: it did not start at offset 0, or, for an upload, what the file held was not replaced.
    pub partial: bool,
}

/// Something that was done to files on the target, or was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOperation {
    #[serde(flatten)]
    pub act: FileAct,
    pub result: FileResult,
}

/// A [`FileOperation`] as a recording has it: with the id of the event that tells of it, so that what a crash kept from the books is
/// written there later, and once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedOperation {
    pub event: EventId,
    #[serde(flatten)]
    pub operation: FileOperation,
}

/// What was done. Paths are resolved by their letters, and absolute where the login's home is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "file_act", rename_all = "snake_case")]
pub enum FileAct {
    /// A file was opened, and closed again; told at the close. At least one way is there.
    Transfer {
        path: FilePath,
        upload: Option<Moved>,
        download: Option<Moved>,
    },
    /// A file was to be opened, and was not.
    Open {
        path: FilePath,
        direction: Direction,
    },
    /// A name was to be looked at (stat, list, readlink); told only if it was refused.
    Look {
        path: FilePath,
    },
    Rename {
        from: FilePath,
        to: FilePath,
    },
    Remove {
        path: FilePath,
    },
    MakeDirectory {
        path: FilePath,
    },
    RemoveDirectory {
        path: FilePath,
    },
    SetAttributes {
        path: FilePath,
    },
    /// `link` was made to lead to `target`.
    Symlink {
        link: FilePath,
        target: FilePath,
    },
    /// `link` was made another name of `target`.
    Hardlink {
        link: FilePath,
        target: FilePath,
    },
    /// The target copied `from` to `to`; at most `bytes`, or to the end if `None`.
    Copy {
        from: FilePath,
        to: FilePath,
        bytes: Option<u64>,
    },
    /// A request of this name, which the gate does not know.
    Unknown {
        request: FilePath,
    },
    /// One run of rsync; bytes are the protocol's, both ways. The files that went are told of before, as transfers.
    Sync {
        direction: Direction,
        paths: Vec<FilePath>,
        sent: u64,
        received: u64,
        /// Why not each file that went is told of by itself, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unfollowed: Option<String>,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum FileResult {
    Done,
    /// The target said no; `code` is SFTP's status (draft-ietf-secsh-filexfer-02 §7), and 4, "failure", for other protocols.
    Failed {
        code: u32,
    },
    /// The bastion said no. Of a transfer some bytes may have passed before.
    Denied {
        denial: FileDenial,
    },
    /// The channel ended before the target answered.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_a_recording_has_of_an_operation_reads_back() {
        let path = FilePath(b"/srv/\xff".to_vec());
        let moved = Moved { bytes: u64::MAX, digest: Digest::Sha256(Hash::of(b"x")), partial: true };
        let transfer = FileAct::Transfer { path: path.clone(), upload: Some(moved), download: None };
        let denial = FileDenial::TotalBytes { direction: Direction::Upload, most: 7 };
        for (act, result) in [
            (transfer, FileResult::Failed { code: 4 }),
            (FileAct::Look { path: path.clone() }, FileResult::Denied { denial }),
            (FileAct::Copy { from: path.clone(), to: path, bytes: None }, FileResult::Done),
        ] {
            let event = EventId::from_uuid(Uuid::from_u128(7));
            let recorded = RecordedOperation { event, operation: FileOperation { act, result } };
            let text = serde_json::to_string(&recorded).unwrap();
            assert_eq!(serde_json::from_str::<RecordedOperation>(&text).unwrap(), recorded, "{text}");
        }
    }
}
