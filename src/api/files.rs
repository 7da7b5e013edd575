//! `/sessions/{id}/files`: what a session did to files on its target.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use sallyport_domain::event::Act;
use sallyport_domain::files::{Digest, Direction, FileAct, FileOperation, FilePath, FileResult, Moved};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{RecordingId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Path, Query};
use super::page::{Page, PageQuery, cursor};
use crate::app::{files, sessions};

/// Something that was done to a file, or asked for and refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileEntry {
    /// The number of its event. A file that was read and written through one handle has two entries of one number.
    pub seq: i64,
    /// When it was over.
    pub at: DateTime<Utc>,
    #[schema(value_type = String)]
    pub recording: RecordingId,
    pub what: FileWhat,
    /// On the target, resolved by its letters; what is not plainly readable is escaped as `\xNN`. For rsync what the command line named.
    pub path: String,
    /// The other path of a rename, a copy or a link.
    pub other_path: Option<String>,
    pub direction: Option<FileDirection>,
    /// How much went; for rsync the protocol's bytes.
    pub bytes: Option<u64>,
    /// Of what went; absent where it was not sent in order, and for rsync.
    #[schema(value_type = Option<String>)]
    pub sha256: Option<Hash>,
    /// Not known to be the whole file.
    pub partial: bool,
    pub result: FileOutcome,
    /// Why it was refused, or the status that the target gave.
    pub reason: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileWhat {
    /// A file went, in part or as a whole.
    Transfer,
    /// A file was to be opened, and was not.
    Open,
    Look,
    Rename,
    Remove,
    MakeDirectory,
    RemoveDirectory,
    SetAttributes,
    Symlink,
    Hardlink,
    Copy,
    Unknown,
    /// A run of rsync.
    Sync,
}

impl FileWhat {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            FileWhat::Transfer => "transfer",
            FileWhat::Open => "open",
            FileWhat::Look => "look",
            FileWhat::Rename => "rename",
            FileWhat::Remove => "remove",
            FileWhat::MakeDirectory => "make_directory",
            FileWhat::RemoveDirectory => "remove_directory",
            FileWhat::SetAttributes => "set_attributes",
            FileWhat::Symlink => "symlink",
            FileWhat::Hardlink => "hardlink",
            FileWhat::Copy => "copy",
            FileWhat::Unknown => "unknown",
            FileWhat::Sync => "sync",
        }
    }
}

/// Which way a file went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileDirection {
    /// To the target.
    Upload,
    /// From the target.
    Download,
}

impl FileDirection {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            FileDirection::Upload => "upload",
            FileDirection::Download => "download",
        }
    }
}

impl From<Direction> for FileDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Upload => FileDirection::Upload,
            Direction::Download => FileDirection::Download,
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileOutcome {
    Done,
    /// The target said no.
    Failed,
    /// The bastion said no.
    Denied,
    /// The channel ended before the target answered.
    Interrupted,
}

impl FileOutcome {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            FileOutcome::Done => "done",
            FileOutcome::Failed => "failed",
            FileOutcome::Denied => "denied",
            FileOutcome::Interrupted => "interrupted",
        }
    }
}

/// The entries of one event: one, or one for each way that a file went.
fn shape(seq: i64, at: DateTime<Utc>, recording: RecordingId, operation: FileOperation) -> Vec<FileEntry> {
    let FileOperation { act, result } = operation;
    let (result, reason) = match result {
        FileResult::Done => (FileOutcome::Done, None),
        FileResult::Failed { code } => (FileOutcome::Failed, Some(format!("status {code}"))),
        FileResult::Denied { denial } => (FileOutcome::Denied, Some(denial.to_string())),
        FileResult::Interrupted => (FileOutcome::Interrupted, None),
    };
    let entry = |what, path: &FilePath, other: Option<&FilePath>| FileEntry {
        seq,
        at,
        recording,
        what,
        path: path.to_string(),
        other_path: other.map(FilePath::to_string),
        direction: None,
        bytes: None,
        sha256: None,
        partial: false,
        result,
        reason: reason.clone(),
    };
    vec![match act {
        FileAct::Transfer { path, upload, download } => {
            let ways = [(FileDirection::Upload, upload), (FileDirection::Download, download)];
            let went = |(direction, moved): (FileDirection, Option<Moved>)| {
                let Moved { bytes, digest, partial } = moved?;
                let sha256 = if let Digest::Sha256(hash) = digest { Some(hash) } else { None };
                let entry = entry(FileWhat::Transfer, &path, None);
                Some(FileEntry { direction: Some(direction), bytes: Some(bytes), sha256, partial, ..entry })
            };
            return ways.into_iter().filter_map(went).collect();
        }
        FileAct::Open { path, direction } => {
            FileEntry { direction: Some(direction.into()), ..entry(FileWhat::Open, &path, None) }
        }
        FileAct::Look { path } => entry(FileWhat::Look, &path, None),
        FileAct::Rename { from, to } => entry(FileWhat::Rename, &from, Some(&to)),
        FileAct::Remove { path } => entry(FileWhat::Remove, &path, None),
        FileAct::MakeDirectory { path } => entry(FileWhat::MakeDirectory, &path, None),
        FileAct::RemoveDirectory { path } => entry(FileWhat::RemoveDirectory, &path, None),
        FileAct::SetAttributes { path } => entry(FileWhat::SetAttributes, &path, None),
        FileAct::Symlink { link, target } => entry(FileWhat::Symlink, &link, Some(&target)),
        FileAct::Hardlink { link, target } => entry(FileWhat::Hardlink, &link, Some(&target)),
        FileAct::Copy { from, to, bytes } => FileEntry { bytes, ..entry(FileWhat::Copy, &from, Some(&to)) },
        FileAct::Unknown { request } => entry(FileWhat::Unknown, &request, None),
        FileAct::Sync { direction, paths, sent, received, unfollowed } => {
            let bytes = match direction {
                Direction::Upload => sent,
                Direction::Download => received,
            };
            let path = paths.iter().map(FilePath::to_string).collect::<Vec<_>>().join(" ");
            let entry = entry(FileWhat::Sync, &FilePath::default(), None);
            let reason = entry.reason.clone().or(unfollowed.map(|why| format!("files not told one by one: {why}")));
            FileEntry { path, direction: Some(direction.into()), bytes: Some(bytes), reason, ..entry }
        }
    }]
}

/// What a session did to files, in the order in which it was over.
#[utoipa::path(get, path = "/sessions/{id}/files", operation_id = "sessions_files", tag = "sessions",
    params(("id" = String, Path), PageQuery), responses(
    (status = OK, body = Page<FileEntry>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<FileEntry>>, ApiError> {
    sessions::find(&state.app, id).await?;
    let limit = page.limit();
    let listed = files::of_session(&state.app, id, page.after()?.unwrap_or(0), limit).await?;
    let last = listed.last().map(|(seq, _, _)| *seq).filter(|_| listed.len() >= limit as usize);
    let entries = listed.into_iter().flat_map(|(seq, at, act)| match act {
        Act::FileOperation { recording, operation, .. } => shape(seq, at, recording, operation),
        _ => Vec::new(), // the list holds no other
    });
    Ok(Json(Page { items: entries.collect(), next: last.and_then(|seq| cursor(&seq)) }))
}
