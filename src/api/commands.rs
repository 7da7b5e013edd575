//! `/sessions/{id}/commands`: what a session ran, as far as can be told.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use sallyport_domain::commands;
use sallyport_domain::id::{RecordingId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Path, Query};
use super::page::{Page, PageQuery, cursor};
use crate::app::commands::{self as timeline, CommandRecord};
use crate::app::sessions;

/// Something that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandEntry {
    /// When it was asked for, or Enter was pressed.
    pub at: DateTime<Utc>,
    #[schema(value_type = String)]
    pub recording: RecordingId,
    /// Counts the recording's commands from 0.
    pub number: u32,
    /// At most 4 KiB. Line feeds are the only control characters in it; others are written as `\xNN`.
    pub text: String,
    /// There was more text than is kept.
    pub is_cut: bool,
    pub certainty: Certainty,
    /// Where it is known.
    pub exit_status: Option<u32>,
    /// Microseconds, where it is known.
    pub duration_us: Option<u64>,
    /// The grant's pattern that flags it.
    pub flag: Option<String>,
}

/// How sure it is that this was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The request that the bastion sent on: sure.
    Exec,
    /// A line that was sent to a shell without a terminal: sure that it was sent.
    Input,
    /// The shell said so, by marks in its output, which anything that prints can forge.
    ShellMark,
    /// The line on the screen when Enter was pressed; what read it may not have been a shell.
    Screen,
}

impl From<commands::Certainty> for Certainty {
    fn from(certainty: commands::Certainty) -> Self {
        match certainty {
            commands::Certainty::Exec => Certainty::Exec,
            commands::Certainty::Input => Certainty::Input,
            commands::Certainty::ShellMark => Certainty::ShellMark,
            commands::Certainty::Screen => Certainty::Screen,
        }
    }
}

/// How many commands a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct CommandCounts {
    /// Those that are not kept too.
    pub seen: u64,
    /// Those that can be listed.
    pub kept: u64,
    /// Those of them that the grant flags.
    pub flagged: u64,
}

fn shape(record: CommandRecord) -> CommandEntry {
    let CommandRecord { recording, at, command, flag } = record;
    CommandEntry {
        at,
        recording,
        number: command.number,
        text: command.text,
        is_cut: command.is_cut,
        certainty: command.certainty.into(),
        exit_status: command.exit_status,
        duration_us: command.duration,
        flag,
    }
}

pub(super) async fn counts(state: &ApiState, session: SessionId) -> Result<CommandCounts, ApiError> {
    let timeline::CommandCounts { seen, kept, flagged } = timeline::counts(&state.app, session).await?;
    Ok(CommandCounts { seen, kept, flagged })
}

/// What a session ran, in the order in which it began.
#[utoipa::path(get, path = "/sessions/{id}/commands", operation_id = "sessions_commands", tag = "sessions",
    params(("id" = String, Path), PageQuery), responses(
    (status = OK, body = Page<CommandEntry>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<CommandEntry>>, ApiError> {
    sessions::find(&state.app, id).await?;
    let limit = page.limit();
    let listed = timeline::of_session(&state.app, id, page.after()?, limit).await?;
    let last = listed.last().filter(|_| listed.len() >= limit as usize);
    let next = last.and_then(|last| cursor(&(last.at, last.recording, last.command.number)));
    Ok(Json(Page { items: listed.into_iter().map(shape).collect(), next }))
}
