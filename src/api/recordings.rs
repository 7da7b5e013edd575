//! `/recordings`: what session channels did. This file knows about them; what was typed and printed is served beside it.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use sallyport_domain::channel::Program;
use sallyport_domain::id::{RecordingId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Look, May};
use super::error::{ApiError, Problem};
use super::extract::Path;
use crate::app::catalogue::{self, RecordingRecord};

/// What one session channel did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recording {
    #[schema(value_type = String)]
    pub id: RecordingId,
    #[schema(value_type = String)]
    pub session_id: SessionId,
    /// Counts the session's channels from 1.
    pub channel: u32,
    /// `shell`, `exec` or `subsystem`.
    pub kind: String,
    /// The program, for a person: `shell`, the command, the subsystem's name.
    pub program_text: String,
    /// TERM, if there was a terminal.
    pub term: Option<String>,
    pub cols: Option<u16>,
    pub rows: Option<u16>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Microseconds.
    pub duration_us: u64,
    /// Sealed segments.
    pub segments: u32,
    /// The head of the hash chain, in hex.
    pub chain: String,
    /// What was sent to the program.
    pub bytes_in: u64,
    /// What it printed, both streams.
    pub bytes_out: u64,
    /// Places where something is missing.
    pub gaps: u32,
    /// How the program ended: an object.
    #[schema(value_type = Option<Object>)]
    pub exit: Option<serde_json::Value>,
    /// The same, for a person: `status 0`, `signal TERM`.
    pub exit_text: Option<String>,
}

fn shape(record: RecordingRecord) -> Result<Recording, ApiError> {
    let RecordingRecord { recording, progress } = record;
    let exit: Option<serde_json::Value> =
        progress.exit.as_deref().map(serde_json::from_str).transpose().map_err(ApiError::internal)?;
    Ok(Recording {
        id: recording.id,
        session_id: recording.session,
        channel: recording.channel,
        kind: recording.program.kind().to_owned(),
        program_text: program_text(&recording.program),
        term: recording.term,
        cols: recording.cols,
        rows: recording.rows,
        started_at: recording.started_at,
        ended_at: progress.ended_at,
        duration_us: progress.duration_us,
        segments: progress.segments,
        chain: progress.chain.to_string(),
        bytes_in: progress.bytes_in,
        bytes_out: progress.bytes_out,
        gaps: progress.gaps,
        exit_text: exit.as_ref().map(exit_text),
        exit,
    })
}

fn program_text(program: &Program) -> String {
    match program {
        Program::Shell => "shell".to_owned(),
        Program::Exec { command } => String::from_utf8_lossy(command).into_owned(),
        Program::Subsystem { name } => name.clone(),
        Program::Forward { destination } => format!("forward to {destination}"),
    }
}

/// `{"status":0}` as `status 0`, `{"signal":"TERM",…}` as `signal TERM`.
fn exit_text(exit: &serde_json::Value) -> String {
    let field = |name: &str| exit.get(name).filter(|value| !value.is_null());
    match (field("status"), field("signal")) {
        (Some(status), _) => format!("status {status}"),
        (None, Some(serde_json::Value::String(signal))) => format!("signal {signal}"),
        (None, _) => exit.to_string(),
    }
}

/// What the session's channels did, in the order in which they were opened.
pub(super) async fn of_session(state: &ApiState, session: SessionId) -> Result<Vec<Recording>, ApiError> {
    catalogue::of_session(&state.app, session).await?.into_iter().map(shape).collect()
}

/// One recording, without what was typed and printed.
#[utoipa::path(get, path = "/recordings/{id}", operation_id = "recordings_show", tag = "recordings",
    params(("id" = String, Path)), responses(
    (status = OK, body = Recording),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<RecordingId>,
) -> Result<Json<Recording>, ApiError> {
    let found = catalogue::find(&state.app, id).await?;
    let record = found.ok_or_else(|| ApiError::NotFound(format!("there is no recording {id}")))?;
    Ok(Json(shape(record)?))
}
