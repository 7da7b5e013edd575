//! `/search`: what was run, shown on screens and done to files, over every session. To search is an event.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::id::RecordingId;
use sallyport_domain::search::Kind;
use sallyport_domain::search::query::{Query as Words, QueryError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::access::{Look, May, Replay};
use super::error::{ApiError, Problem};
use super::extract::Query;
use super::page::{PageQuery, cursor};
use super::sessions::{self, Session};
use crate::app::search::{self, FoundSession, Hit, Indexed, SearchError, Wish};

/// The most hits on a page.
const MOST_HITS: u32 = 200;
/// As many as a page has where the client does not say.
const USUAL_HITS: u32 = 50;

/// What to look for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Words that are all in one line, wherever they stand and in any case; quotation marks keep words together. `cmd:`, `text:` or
    /// `file:` before a word looks in commands, in what screens showed, or in paths alone. One or two letters are found as a word.
    pub q: String,
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchPage {
    /// The session with the newest hit first.
    pub items: Vec<SearchSession>,
    /// Leads to what is older, as `?cursor=`; absent once everything was looked at.
    pub next: Option<String>,
    /// The search was broken off before the page was full; `next` goes on.
    pub is_partial: bool,
}

/// What was found in one session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchSession {
    pub session: Session,
    /// The newest first, five at most.
    pub hits: Vec<SearchHit>,
    /// There are more in this session.
    pub has_more: bool,
    /// How many lines of output and paths of this session can be searched for.
    pub indexed_lines: u64,
    /// Not all there is: those are the first ones, or some output was no text. The rest is not found.
    pub is_cut: bool,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchHit {
    pub kind: HitKind,
    #[schema(value_type = String)]
    pub recording: RecordingId,
    /// The recording's channel in its session.
    pub channel: u32,
    /// Seconds since the recording began, rounded up to a millisecond: what the screen shows then has the line.
    pub t: f64,
    pub at: DateTime<Utc>,
    pub line: String,
    /// The part of the line that was looked for: the longest of the words, as it stands there.
    pub found: String,
    /// Characters of the line before it.
    pub offset: u32,
    /// The lines before and behind it.
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// What a line is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HitKind {
    /// What was run, as far as can be told.
    Command,
    /// What a program printed.
    Screen,
    /// What was done to a file: its path.
    File,
}

impl HitKind {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            HitKind::Command => Kind::Command.as_str(),
            HitKind::Screen => Kind::Screen.as_str(),
            HitKind::File => Kind::File.as_str(),
        }
    }
}

impl From<Kind> for HitKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Command => HitKind::Command,
            Kind::Screen => HitKind::Screen,
            Kind::File => HitKind::File,
        }
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::TooLong => ApiError::Unavailable(error.to_string()),
            SearchError::Db(error) => error.into(),
        }
    }
}

fn shape_hit(hit: Hit) -> SearchHit {
    let found = hit.line.chars().skip(hit.place.from).take(hit.place.length).collect();
    let milliseconds = hit.at.div_ceil(1000);
    SearchHit {
        kind: hit.kind.into(),
        recording: hit.recording,
        channel: hit.channel,
        #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years of milliseconds")]
        t: milliseconds as f64 / 1000.0,
        at: hit.started_at + TimeDelta::microseconds(hit.at.cast_signed()),
        found,
        offset: u32::try_from(hit.place.from).unwrap_or(u32::MAX),
        line: hit.line,
        before: hit.before,
        after: hit.after,
    }
}

fn shape(found: FoundSession, now: DateTime<Utc>) -> Result<SearchSession, ApiError> {
    let FoundSession { session, hits, has_more, indexed: Indexed { lines, is_cut, .. } } = found;
    let hits = hits.into_iter().map(shape_hit).collect();
    Ok(SearchSession { session: sessions::shape(session, now)?, hits, has_more, indexed_lines: lines, is_cut })
}

/// What was run, shown on screens and done to files, the newest first, grouped by session. An admin finds commands and files, but not what
/// screens showed. Each search is an event; the pages that follow the first one belong to it.
#[utoipa::path(get, path = "/search", operation_id = "search", tag = "sessions",
    params(SearchQuery, PageQuery), responses(
    (status = OK, body = SearchPage),
    (status = "default", body = Problem),
))]
pub(super) async fn find(
    may: May<Look>,
    State(state): State<ApiState>,
    Query(asked): Query<SearchQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<SearchPage>, ApiError> {
    let query: Words = asked.q.parse().map_err(|error: QueryError| ApiError::BadRequest(error.to_string()))?;
    let wish = Wish {
        query,
        words: asked.q.trim().to_owned(),
        may_see_screens: may.caller().may::<Replay>(),
        before: page.after()?,
        limit: page.limit.unwrap_or(USUAL_HITS).clamp(1, MOST_HITS) as usize,
    };
    let found = search::find(&state.app, &may.actor(), &wish).await?;
    let now = state.app.clock.now();
    Ok(Json(SearchPage {
        items: found.sessions.into_iter().map(|session| shape(session, now)).collect::<Result<_, _>>()?,
        next: found.next.and_then(|next| cursor(&next)),
        is_partial: found.is_partial,
    }))
}
