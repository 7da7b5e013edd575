//! `/sessions`: permitted connections to targets, live and ended.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::event::SessionEnd;
use sallyport_domain::id::{GrantId, SessionId, TargetId};
use sallyport_domain::name::{Login, PrincipalName, TargetName};
use sallyport_domain::review::Verdict;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{Administer, Look, May};
use super::commands::{self, CommandCounts};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::grants::Reason;
use super::page::{Page, PageQuery, cursor};
use super::people::PersonRef;
use super::recordings::{self, Recording};
use super::reviews::{ReviewState, state_of};
use super::{ApiState, schemas};
use crate::app::sessions::{self, SessionFilter, SessionRecord};

/// One permitted connection to one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    #[schema(value_type = String)]
    pub id: SessionId,
    pub state: SessionState,
    /// As they were named then.
    pub person: PersonRef,
    pub target: TargetRef,
    #[schema(value_type = String)]
    pub login: Login,
    #[schema(value_type = String)]
    pub grant_id: GrantId,
    /// Which node serves or served it.
    pub node: String,
    pub client_address: String,
    /// What the client said of itself; not to be trusted.
    pub client_version: String,
    pub started_at: DateTime<Utc>,
    /// Why an admin lets it stand still; absent where none does.
    pub held: Option<String>,
    pub ended_at: Option<DateTime<Utc>>,
    /// How it ended: an object with `how`, and more that depends on it.
    #[schema(value_type = Option<Object>)]
    pub ending: Option<serde_json::Value>,
    /// The same, for a person.
    pub ending_text: Option<String>,
    /// How far its review has come; absent until it is at rest.
    pub review: Option<SessionReview>,
}

/// A session's review in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionReview {
    pub state: ReviewState,
    #[schema(schema_with = schemas::verdict)]
    pub verdict: Option<Verdict>,
    /// 0 to 100.
    pub risk: u32,
}

/// A session with its recordings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionDetail {
    #[serde(flatten)]
    pub session: Session,
    /// What each of its channels did.
    pub recordings: Vec<Recording>,
    pub commands: CommandCounts,
}

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Live,
    /// An admin wants it ended; it is, within a second.
    Ending,
    Ended,
}

impl SessionState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            SessionState::Live => "live",
            SessionState::Ending => "ending",
            SessionState::Ended => "ended",
        }
    }
}

/// A target, where another thing speaks of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetRef {
    #[schema(value_type = String)]
    pub id: TargetId,
    #[schema(value_type = String)]
    pub name: TargetName,
}

/// Which sessions.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct SessionQuery {
    /// `true` for those that go on, `false` for those that ended.
    pub live: Option<bool>,
    /// The person's name.
    #[param(value_type = Option<String>)]
    pub person: Option<PrincipalName>,
    /// The target's name.
    #[param(value_type = Option<String>)]
    pub target: Option<TargetName>,
    #[param(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// Begun at this instant or later.
    pub since: Option<DateTime<Utc>>,
    /// Begun before this instant.
    pub until: Option<DateTime<Utc>>,
}

pub(super) fn shape(record: SessionRecord, now: DateTime<Utc>) -> Result<Session, ApiError> {
    let SessionRecord { session, ended, cut_requested, held, review } = record;
    let state = match (&ended, &cut_requested) {
        (Some(_), _) => SessionState::Ended,
        (None, Some(_)) => SessionState::Ending,
        (None, None) => SessionState::Live,
    };
    let (ended_at, ending) = ended.unzip();
    Ok(Session {
        id: session.id,
        state,
        person: PersonRef { id: session.principal, name: session.principal_name },
        target: TargetRef { id: session.target, name: session.target_name },
        login: session.login,
        grant_id: session.grant,
        node: session.node,
        client_address: session.client_address.to_string(),
        client_version: session.client_version,
        started_at: session.started_at,
        held,
        review: review.map(|review| SessionReview {
            state: state_of(review.asked, review.is_done, review.due_at, now),
            verdict: review.verdict,
            risk: review.risk,
        }),
        ended_at,
        ending_text: ending.as_ref().map(ending_text),
        ending: ending.map(serde_json::to_value).transpose().map_err(ApiError::internal)?,
    })
}

fn ending_text(end: &SessionEnd) -> String {
    match end {
        SessionEnd::ClientClosed => "the client closed it".to_owned(),
        SessionEnd::TargetClosed => "the target closed it".to_owned(),
        SessionEnd::TargetUnreachable { message } => {
            format!("the target was not reached: {message}")
        }
        SessionEnd::Cut { reason } => reason.to_string(),
        SessionEnd::Crashed => "the bastion died".to_owned(),
    }
}

/// Sessions, the latest first.
#[utoipa::path(get, path = "/sessions", operation_id = "sessions_list", tag = "sessions",
    params(SessionQuery, PageQuery), responses(
    (status = OK, body = Page<Session>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<SessionQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Session>>, ApiError> {
    let filter = SessionFilter {
        principal: query.person,
        target: query.target,
        grant: query.grant,
        live: query.live,
        since: query.since,
        until: query.until,
        after: page.after()?,
    };
    let limit = page.limit();
    let now = state.app.clock.now();
    let records = sessions::list(&state.app, &filter, limit).await?;
    let is_full = records.len() >= limit as usize;
    let last = records.last().map(|record| (record.session.started_at, record.session.id));
    let next = last.filter(|_| is_full).and_then(|last| cursor(&last));
    Ok(Json(Page { items: records.into_iter().map(|record| shape(record, now)).collect::<Result<_, _>>()?, next }))
}

/// One session with its recordings.
#[utoipa::path(get, path = "/sessions/{id}", operation_id = "sessions_show", tag = "sessions",
    params(("id" = String, Path)), responses(
    (status = OK, body = SessionDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
) -> Result<Json<SessionDetail>, ApiError> {
    Ok(Json(detail(&state, id).await?))
}

async fn detail(state: &ApiState, id: SessionId) -> Result<SessionDetail, ApiError> {
    let session = shape(sessions::find(&state.app, id).await?, state.app.clock.now())?;
    let commands = commands::counts(state, id).await?;
    Ok(SessionDetail { session, recordings: recordings::of_session(state, id).await?, commands })
}

/// Whether the session is what the caller knows, just before something is done to it.
async fn check(state: &ApiState, known: &IfMatch, id: SessionId) -> Result<(), ApiError> {
    if known.is_there() { known.check(&detail(state, id).await?) } else { Ok(()) }
}

/// Ends a live session. The node that serves it does so within a second.
#[utoipa::path(post, path = "/sessions/{id}/cut", operation_id = "sessions_cut", tag = "sessions",
    params(("id" = String, Path), IfMatch), request_body = Reason, responses(
    (status = ACCEPTED, body = Session),
    (status = "default", body = Problem),
))]
pub(super) async fn cut(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
    Body(body): Body<Reason>,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    check(&state, &known, id).await?;
    sessions::request_cut(&state.app, &may.actor(), id, &body.reason).await?;
    Ok((StatusCode::ACCEPTED, Json(shape(sessions::find(&state.app, id).await?, state.app.clock.now())?)))
}

/// What an admin has to say.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// One line, at most 160 characters.
    pub text: String,
}

/// Lets a live session stand still: nothing goes through either way until it is released.
#[utoipa::path(post, path = "/sessions/{id}/hold", operation_id = "sessions_hold", tag = "sessions",
    params(("id" = String, Path), IfMatch), request_body = Reason, responses(
    (status = ACCEPTED, body = Session),
    (status = "default", body = Problem),
))]
pub(super) async fn hold(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
    Body(body): Body<Reason>,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    check(&state, &known, id).await?;
    sessions::hold(&state.app, &may.actor(), id, &body.reason).await?;
    Ok((StatusCode::ACCEPTED, Json(shape(sessions::find(&state.app, id).await?, state.app.clock.now())?)))
}

/// Lets a held session go on.
#[utoipa::path(post, path = "/sessions/{id}/release", operation_id = "sessions_release", tag = "sessions",
    params(("id" = String, Path), IfMatch), responses(
    (status = ACCEPTED, body = Session),
    (status = "default", body = Problem),
))]
pub(super) async fn release(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    check(&state, &known, id).await?;
    sessions::release(&state.app, &may.actor(), id).await?;
    Ok((StatusCode::ACCEPTED, Json(shape(sessions::find(&state.app, id).await?, state.app.clock.now())?)))
}

/// Says something to whoever is at the session's terminals; programs without one are not told.
#[utoipa::path(post, path = "/sessions/{id}/message", operation_id = "sessions_message", tag = "sessions",
    params(("id" = String, Path), IfMatch), request_body = Message, responses(
    (status = ACCEPTED, body = Session),
    (status = "default", body = Problem),
))]
pub(super) async fn message(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
    Body(body): Body<Message>,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    check(&state, &known, id).await?;
    sessions::send(&state.app, &may.actor(), id, &body.text).await?;
    Ok((StatusCode::ACCEPTED, Json(shape(sessions::find(&state.app, id).await?, state.app.clock.now())?)))
}
