//! Evidence bundles: one file that holds what happened under a grant, or in one session of it, and proves it to somebody who
//! has nothing but the fingerprint of the ledger's key. `docs/formats.md` says the same without code.
//!
//! ```text
//! fingerprint ─ key ─ checkpoint ─ inclusion proofs ─ events ─┬─ session_sealed ─ manifest ─ segments ─ cast
//!                                                             └─ evidence_made ─ contents.json ─ every other file
//! ```
//!
//! Two chains meet. What was recorded is proved from the time of the session: the cast must be what the segments give, the
//! segments those of the manifest, the manifest the one of the event. And all that cannot be derived (the page, the transcripts)
//! is proved to be what the bastion gave out when it made the bundle: the event `evidence_made` carries the SHA-256 of
//! the list of contents.
//!
//! - [`archive`]: the file itself, a ZIP file without a free byte.
//! - [`recording`]: what a recording's segments must agree with.
//! - [`check`]: the verifier.

pub mod archive;
pub mod check;
pub mod recording;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::canonical::{self, CanonicalError, Kind};
use crate::hash::Hash;
use crate::id::{GrantId, RecordingId, SessionId};
use archive::FileName;

pub use check::{Fault, Verdict, Wrong, verify, verify_with};

/// Lists of contents: 65,535 files and some 100,000 events.
pub const CONTENTS: Kind = Kind { prefix: "sallyport-evidence-v1\n", most_bytes: 64 << 20 };

/// JSON with one spelling and nothing before it, for what people read too.
pub const PLAIN: Kind = Kind { prefix: "", most_bytes: 16 << 20 };

/// The signed checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The public key that signed it, as a vkey and a line feed.
pub const KEY: &str = "key";
/// How the ledger came to that key, a [`super::key_change::KeyChain`]; left out if it is the first one.
pub const KEY_CHANGES: &str = "key-changes";
/// Events in the order of the ledger, a line for each: its entry without the prefix.
pub const EVENTS: &str = "events.jsonl";
/// For each line of [`EVENTS`] a [`Proof`].
pub const PROOFS: &str = "proofs.jsonl";
/// A [`Contents`].
pub const LIST: &str = "contents";
/// What a person opens.
pub const INDEX: &str = "index.html";
/// The [`crate::grant::Grant`] as it stood when the bundle was made.
pub const GRANT: &str = "grant.json";
/// A [`FileLine`] for each file operation.
pub const FILES: &str = "files.jsonl";
/// A line for each event of [`REVIEW_ACTS`]: what reviewers said, and what there was to review.
pub const REVIEWS: &str = "reviews.jsonl";

/// Files that the list of contents cannot list: they are made after it, and prove themselves.
pub const UNLISTED: [&str; 5] = [CHECKPOINT, LIST, EVENTS, KEY, PROOFS];

/// A session's [`super::manifest::Manifest`].
pub fn manifest_name(session: SessionId) -> String {
    format!("sessions/{session}/manifest")
}

/// Whether a file of this name is a session's manifest.
pub fn is_manifest(name: &str) -> bool {
    name.starts_with("sessions/") && name.ends_with("/manifest")
}

/// What was run in a session, as far as can be told: a line of JSON for each command.
pub fn commands_name(session: SessionId) -> String {
    format!("sessions/{session}/commands.jsonl")
}

/// A recording's segments as stored, one after another.
pub fn segments_name(recording: RecordingId) -> String {
    format!("recordings/{recording}/segments")
}

/// A recording as asciicast v3.
pub fn cast_name(recording: RecordingId) -> String {
    format!("recordings/{recording}/recording.cast")
}

/// A recording as text.
pub fn transcript_name(recording: RecordingId) -> String {
    format!("recordings/{recording}/transcript.txt")
}

/// What a bundle holds, as it was when the bundle was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub grant: GrantId,
    /// The one session that it is about; `None` if about all of the grant.
    pub session: Option<SessionId>,
    pub made_at: DateTime<Utc>,
    /// Program and version that made it.
    pub software: String,
    /// All events, in the order of the ledger, but the one that carries this list's hash.
    pub events: Vec<ListedEvent>,
    /// All files but [`UNLISTED`], by ascending names.
    pub files: Vec<ListedFile>,
}

/// An event in a [`Contents`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedEvent {
    /// Its place in the ledger.
    pub number: u64,
    /// Its hash in the ledger's tree.
    pub leaf: Hash,
}

/// A file in a [`Contents`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: Hash,
}

impl Contents {
    /// The list's bytes; their SHA-256 is in the event `evidence_made`.
    pub fn encode(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::encode(CONTENTS, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CanonicalError> {
        canonical::decode(CONTENTS, bytes)
    }
}

/// That an event is in the tree of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The event's place in the ledger.
    pub number: u64,
    /// RFC 9162 §2.1.3, in the RFC's order.
    pub path: Vec<Hash>,
}

/// Canonical JSON of `value` as a line.
pub fn line<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut bytes = canonical::encode(PLAIN, value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The line of [`FILES`] that an event gives, if it tells of a file operation.
pub fn file_line(event: &serde_json::Value) -> Option<Result<Vec<u8>, CanonicalError>> {
    let act = event.get("act")?;
    if act.get("act")?.as_str()? != "file_operation" {
        return None;
    }
    let of_act = |name: &str| act.get(name).cloned().unwrap_or_default();
    let told = serde_json::json!({
        "at": event.get("at").cloned().unwrap_or_default(),
        "operation": of_act("operation"),
        "recording": of_act("recording"),
        "session": of_act("session"),
    });
    Some(line(&told))
}

/// Acts that [`REVIEWS`] tells of.
pub const REVIEW_ACTS: [&str; 5] =
    ["review_decided", "review_noted", "review_overdue", "session_flagged", "session_reviewed"];

/// The line of [`REVIEWS`] that an event gives, if it tells of a review.
pub fn review_line(event: &serde_json::Value) -> Option<Result<Vec<u8>, CanonicalError>> {
    let act = event.get("act")?;
    if !REVIEW_ACTS.contains(&act.get("act")?.as_str()?) {
        return None;
    }
    let of_event = |name: &str| event.get(name).cloned().unwrap_or_default();
    Some(line(&serde_json::json!({ "act": act, "actor": of_event("actor"), "at": of_event("at") })))
}

/// The file names of a recording and of its session, checked.
pub fn name(text: &str) -> Result<FileName, archive::NameError> {
    text.parse()
}
