//! `/requests`: somebody asks for access, or for more time, and an admin answers. Who may not read lists sees their own.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use sallyport_domain::grant::{Approval, TargetSelector};
use sallyport_domain::id::{GrantId, PrincipalId, RequestId, SessionId};
use sallyport_domain::name::{Login, PrincipalName};
use sallyport_domain::request::{self, Wish};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{Administer, Known, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::grants::{Allow, Commands, Files, Reason, names};
use super::page::{Page, PageQuery, cursor};
use super::people::PersonRef;
use super::{ApiState, schemas};
use crate::app::people;
use crate::app::requests::{self, Changes, NewRequest, RequestError, RequestFilter};

/// Somebody's wish for access, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Request {
    #[schema(value_type = String)]
    pub id: RequestId,
    pub state: RequestState,
    /// Who asked.
    pub person: PersonRef,
    /// The grant that is to last longer, or under which a session is to start; absent where a new one is asked for.
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// The session that waits for its start under `grant`, if that is what is asked for.
    #[schema(value_type = Option<String>)]
    pub session: Option<SessionId>,
    /// Whose consent that session waits for.
    #[schema(schema_with = schemas::approval)]
    pub approval: Approval,
    /// Names, patterns such as `web-*`, and labels such as `env=prod`.
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetSelector>,
    /// Empty means the only account there is.
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    /// Absent where a new grant is not asked for.
    pub allow: Option<Allow>,
    /// For how long, or how much longer.
    pub lasting_seconds: u64,
    pub reason: String,
    pub ticket: Option<String>,
    pub created_at: DateTime<Utc>,
    /// The first instant at which it can no longer be answered.
    pub expires_at: DateTime<Utc>,
    /// Absent while it is open.
    pub answer: Option<Answer>,
}

/// Where a request is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    Open,
    Approved,
    Denied,
    Withdrawn,
    Expired,
}

impl RequestState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            RequestState::Open => "open",
            RequestState::Approved => "approved",
            RequestState::Denied => "denied",
            RequestState::Withdrawn => "withdrawn",
            RequestState::Expired => "expired",
        }
    }
}

/// What has become of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    pub at: DateTime<Utc>,
    /// Absent for the operator on the bastion's own host, and where nobody answered.
    pub by: Option<PersonRef>,
    /// Why it was denied.
    pub reason: Option<String>,
    /// The grant that was made, or made to last longer.
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// The grant is not what was asked for.
    pub changed: bool,
}

/// A request to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeRequest {
    /// The grant that is to last longer; then `targets`, `logins` and `allow` are left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// Names, patterns such as `web-*`, and labels such as `env=prod`.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetSelector>,
    /// May be left out where the targets have only one account.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    /// A shell and single commands where it is left out.
    #[serde(default)]
    pub allow: Option<Allow>,
    /// For how long, or how much longer: from a minute to 366 days.
    pub lasting_seconds: u64,
    pub reason: String,
    #[serde(default)]
    pub ticket: Option<String>,
}

/// What is given otherwise than it was asked for; what is left out stays as asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApproveRequest {
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    pub allow: Option<Allow>,
    /// Now, where it is left out.
    pub not_before: Option<DateTime<Utc>>,
    /// As long as was asked for, where it is left out.
    pub not_after: Option<DateTime<Utc>>,
    #[schema(value_type = Vec<String>)]
    pub source_networks: Vec<IpNet>,
    pub max_sessions: Option<u32>,
    pub second_factor: bool,
    #[schema(schema_with = schemas::approval)]
    pub approval: Approval,
    pub files: Files,
    pub commands: Commands,
}

/// Which requests.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct RequestQuery {
    /// `open`, `approved`, `denied`, `withdrawn` or `expired`; all where it is left out.
    #[param(value_type = Option<String>)]
    pub state: Option<RequestState>,
    /// The name of who asked.
    #[param(value_type = Option<String>)]
    pub person: Option<PrincipalName>,
}

/// Whether to wait.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// As long as the request is open, the answer takes up to this many seconds; 25 at most.
    pub wait: Option<u32>,
}

/// An answer must begin before its deadline.
const LONGEST_WAIT: Duration = Duration::from_secs(25);

fn shape(request: request::Request, names: &HashMap<PrincipalId, PrincipalName>) -> Option<Request> {
    let person = |id: PrincipalId| names.get(&id).map(|name| PersonRef { id, name: name.clone() });
    let nothing = |at| Answer { at, by: None, reason: None, grant: None, changed: false };
    let (state, answer) = match request.state {
        request::RequestState::Open => (RequestState::Open, None),
        request::RequestState::Approved { grant, changed, at, by } => {
            let by = by.and_then(person);
            (RequestState::Approved, Some(Answer { by, grant: Some(grant), changed, ..nothing(at) }))
        }
        request::RequestState::Denied { reason, at, by } => {
            (RequestState::Denied, Some(Answer { by: by.and_then(person), reason: Some(reason), ..nothing(at) }))
        }
        request::RequestState::Withdrawn { at } => {
            (RequestState::Withdrawn, Some(Answer { by: person(request.person), ..nothing(at) }))
        }
        request::RequestState::Expired { at } => (RequestState::Expired, Some(nothing(at))),
    };
    let lasting_seconds = request.wish.lasting().as_secs();
    let (session, approval) = match &request.wish {
        Wish::Session { session, approval, .. } => (Some(*session), *approval),
        Wish::Access { .. } | Wish::MoreTime { .. } => (None, Approval::None),
    };
    let (grant, targets, logins, allow) = match request.wish {
        Wish::Access { targets, logins, capabilities, lasting: _ } => {
            (None, targets, logins, Some(Allow::from(capabilities)))
        }
        Wish::MoreTime { grant, lasting: _ } => (Some(grant), Vec::new(), Vec::new(), None),
        Wish::Session { grant, target, login, .. } => {
            (Some(grant), vec![TargetSelector::Name(target.to_string())], vec![login], None)
        }
    };
    Some(Request {
        id: request.id,
        state,
        person: person(request.person)?, // people are never removed
        grant,
        session,
        approval,
        targets,
        logins,
        allow,
        lasting_seconds,
        reason: request.reason,
        ticket: request.ticket,
        created_at: request.created_at,
        expires_at: request.expires_at,
        answer,
    })
}

async fn shape_one(state: &ApiState, request: request::Request) -> Result<Json<Request>, ApiError> {
    let shaped = shape(request, &names(state).await?);
    shaped.map(Json).ok_or_else(|| ApiError::internal("a request was made by nobody"))
}

/// The request, if the caller may see it: their own, or any for those who read lists.
async fn find_for(may: &May<Known>, state: &ApiState, id: RequestId) -> Result<request::Request, ApiError> {
    let request = requests::find(&state.app, id).await?;
    if may.caller().may::<Look>() || may.person().is_ok_and(|person| person.id == request.person) {
        Ok(request)
    } else {
        Err(RequestError::Unknown { id }.into())
    }
}

/// Requests, the latest first: everybody's for those who read lists, else one's own.
#[utoipa::path(get, path = "/requests", operation_id = "requests_list", tag = "requests",
    params(RequestQuery, PageQuery), responses(
    (status = OK, body = Page<Request>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    may: May<Known>,
    State(state): State<ApiState>,
    Query(query): Query<RequestQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Request>>, ApiError> {
    let person = if may.caller().may::<Look>() {
        match &query.person {
            Some(name) => Some(people::find(&state.app, name).await?.principal.id),
            None => None,
        }
    } else {
        Some(may.person()?.id)
    };
    let before: Option<RequestId> = page.after()?;
    let filter = RequestFilter { person, state: query.state.map(RequestState::as_str), before };
    let limit = page.limit();
    let mut found = requests::list(&state.app, &filter, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = if more { found.last().and_then(|last| cursor(&last.id)) } else { None };
    let names = names(&state).await?;
    let items = found.into_iter().filter_map(|request| shape(request, &names)).collect();
    Ok(Json(Page { items, next }))
}

/// Asks for access, or for more time on a grant. It is for the caller; nobody asks for another.
#[utoipa::path(post, path = "/requests", operation_id = "requests_make", tag = "requests", request_body = MakeRequest, responses(
    (status = CREATED, body = Request),
    (status = "default", body = Problem),
))]
pub(super) async fn make(
    may: May<Known>,
    State(state): State<ApiState>,
    Body(body): Body<MakeRequest>,
) -> Result<(StatusCode, Json<Request>), ApiError> {
    let lasting = Duration::from_secs(body.lasting_seconds);
    let wish = match body.grant {
        None => Wish::Access {
            targets: body.targets,
            logins: body.logins,
            capabilities: body.allow.unwrap_or_else(Allow::usual).into(),
            lasting,
        },
        Some(grant) if body.targets.is_empty() && body.logins.is_empty() && body.allow.is_none() => {
            Wish::MoreTime { grant, lasting }
        }
        Some(_) => {
            let message = "with `grant`, `targets`, `logins` and `allow` are left out: they stay as they are";
            return Err(ApiError::BadRequest(message.to_owned()));
        }
    };
    let new = NewRequest { wish, reason: body.reason, ticket: body.ticket };
    let request = requests::ask(&state.app, may.person()?, new).await?;
    Ok((StatusCode::CREATED, shape_one(&state, request).await?))
}

/// One request; waits for its answer if it is told to.
#[utoipa::path(get, path = "/requests/{id}", operation_id = "requests_show", tag = "requests",
    params(("id" = String, Path), WaitQuery), responses(
    (status = OK, body = Request),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    may: May<Known>,
    State(state): State<ApiState>,
    Path(id): Path<RequestId>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<Request>, ApiError> {
    let request = find_for(&may, &state, id).await?;
    let patience = Duration::from_secs(query.wait.unwrap_or(0).into()).min(LONGEST_WAIT);
    if patience.is_zero() || request.state != request::RequestState::Open {
        return shape_one(&state, request).await;
    }
    match tokio::time::timeout(patience, requests::wait(&state.app, id)).await {
        Ok(answered) => shape_one(&state, answered?).await,
        Err(_elapsed) => shape_one(&state, requests::find(&state.app, id).await?).await,
    }
}

/// Says yes: makes the grant, or makes it last longer, or lets the session start. Nobody answers their own request, nor for a session
/// under a grant that names them.
#[utoipa::path(post, path = "/requests/{id}/approve", operation_id = "requests_approve", tag = "requests",
    params(("id" = String, Path), IfMatch), request_body = ApproveRequest, responses(
    (status = OK, body = Request),
    (status = "default", body = Problem),
))]
pub(super) async fn approve(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<RequestId>,
    known: IfMatch,
    Body(body): Body<ApproveRequest>,
) -> Result<Json<Request>, ApiError> {
    let names = names(&state).await?;
    let still = |request: &request::Request| known.is(|| shape(request.clone(), &names));
    let changes = Changes {
        logins: body.logins,
        capabilities: body.allow.map(Into::into),
        not_before: body.not_before,
        not_after: body.not_after,
        source_networks: body.source_networks,
        max_sessions: body.max_sessions,
        second_factor: body.second_factor,
        approval: body.approval,
        files: body.files.into(),
        commands: body.commands.into(),
    };
    let (request, _grant) = requests::approve(&state.app, &may.actor(), id, changes, Some(&still)).await?;
    shape_one(&state, request).await
}

/// Says no. Nobody answers their own request.
#[utoipa::path(post, path = "/requests/{id}/deny", operation_id = "requests_deny", tag = "requests",
    params(("id" = String, Path), IfMatch), request_body = Reason, responses(
    (status = OK, body = Request),
    (status = "default", body = Problem),
))]
pub(super) async fn deny(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<RequestId>,
    known: IfMatch,
    Body(body): Body<Reason>,
) -> Result<Json<Request>, ApiError> {
    let names = names(&state).await?;
    let still = |request: &request::Request| known.is(|| shape(request.clone(), &names));
    shape_one(&state, requests::deny(&state.app, &may.actor(), id, &body.reason, Some(&still)).await?).await
}

/// Takes one's own request back.
#[utoipa::path(post, path = "/requests/{id}/withdraw", operation_id = "requests_withdraw", tag = "requests",
    params(("id" = String, Path), IfMatch), responses(
    (status = OK, body = Request),
    (status = "default", body = Problem),
))]
pub(super) async fn withdraw(
    may: May<Known>,
    State(state): State<ApiState>,
    Path(id): Path<RequestId>,
    known: IfMatch,
) -> Result<Json<Request>, ApiError> {
    let names = names(&state).await?;
    let still = |request: &request::Request| known.is(|| shape(request.clone(), &names));
    shape_one(&state, requests::withdraw(&state.app, may.person()?, id, Some(&still)).await?).await
}
