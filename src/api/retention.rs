//! `/deletions` and `/holds`: what was recorded is deleted by two people, and by nobody while it is held.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::id::{DeletionId, EventId, GrantId, HoldId, SessionId, TargetId};
use sallyport_domain::name::TargetName;
use sallyport_domain::retention::HoldSubject;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::access::{Dispose, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::grants::Reason;
use super::page::{Page, PageQuery, cursor};
use crate::app::audit;
use crate::app::retention::deletions::{self, Stage, Whole};
use crate::app::retention::holds;
use crate::app::targets;

/// A wish to delete what was recorded, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deletion {
    #[schema(value_type = String)]
    pub id: DeletionId,
    pub state: DeletionState,
    pub reason: String,
    /// Who asked; the bastion, if a retention rule made it due.
    pub asked_by: String,
    pub asked_at: DateTime<Utc>,
    pub answered_by: Option<String>,
    pub answered_at: Option<DateTime<Utc>>,
    /// Why it was refused.
    pub refusal: Option<String>,
    /// How many sessions' recordings wait for the answer.
    pub asked: u64,
    /// …stay after all: it was refused, or they are held.
    pub kept: u64,
    /// …are being removed.
    pub deleting: u64,
    /// …are gone.
    pub deleted: u64,
}

/// Whether a deletion was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeletionState {
    Open,
    Approved,
    Refused,
}

impl DeletionState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeletionState::Open => "open",
            DeletionState::Approved => "approved",
            DeletionState::Refused => "refused",
        }
    }
}

/// A deletion with its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionDetail {
    #[serde(flatten)]
    pub deletion: Deletion,
    pub sessions: Vec<DeletionSession>,
}

/// A session whose recordings are to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionSession {
    #[schema(value_type = String)]
    pub session_id: SessionId,
    /// The retention rule that makes it due.
    pub rule: Option<String>,
    /// `asked`, `kept`, `deleting` or `deleted`.
    pub state: String,
    pub changed_at: DateTime<Utc>,
    /// The event that tells of it in the ledger.
    #[schema(value_type = Option<String>)]
    pub tombstone: Option<EventId>,
    /// How often the object store has refused, and its last words.
    pub tries: u32,
    pub error: Option<String>,
}

/// What keeps recordings from deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    #[schema(value_type = String)]
    pub id: HoldId,
    /// One of the three says what is held.
    #[schema(value_type = Option<String>)]
    pub session_id: Option<SessionId>,
    #[schema(value_type = Option<String>)]
    pub grant_id: Option<GrantId>,
    #[schema(value_type = Option<String>)]
    pub target_id: Option<TargetId>,
    pub reason: String,
    pub set_by: String,
    pub set_at: DateTime<Utc>,
    pub released_by: Option<String>,
    pub released_at: Option<DateTime<Utc>>,
    pub release_reason: Option<String>,
}

/// What is to be held: one of a session, a grant, a target.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeHold {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub target: Option<TargetName>,
    pub reason: String,
}

/// Which deletions.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct DeletionQuery {
    /// Only those that nobody has answered.
    pub open: bool,
}

/// Which holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct HoldQuery {
    /// Those that were released, too.
    pub released: bool,
}

fn shape(deletion: deletions::Deletion, counts: impl Fn(Stage) -> u64) -> Deletion {
    let state = match &deletion.answer {
        None => DeletionState::Open,
        Some(answer) if answer.refusal.is_some() => DeletionState::Refused,
        Some(_) => DeletionState::Approved,
    };
    Deletion {
        id: deletion.id,
        state,
        reason: deletion.reason,
        asked_by: audit::name_of(&deletion.asked_by),
        asked_at: deletion.asked_at,
        answered_by: deletion.answer.as_ref().map(|answer| audit::name_of(&answer.by)),
        answered_at: deletion.answer.as_ref().map(|answer| answer.at),
        refusal: deletion.answer.and_then(|answer| answer.refusal),
        asked: counts(Stage::Asked),
        kept: counts(Stage::Kept),
        deleting: counts(Stage::Deleting),
        deleted: counts(Stage::Deleted),
    }
}

fn detail(Whole { deletion, sessions }: Whole) -> DeletionDetail {
    let count = |stage| sessions.iter().filter(|session| session.stage == stage).count() as u64;
    let deletion = shape(deletion, count);
    let session = |session: deletions::DeletionSession| DeletionSession {
        session_id: session.session,
        rule: session.rule,
        state: session.stage.as_str().to_owned(),
        changed_at: session.changed_at,
        tombstone: session.tombstone,
        tries: session.tries,
        error: session.error,
    };
    DeletionDetail { deletion, sessions: sessions.into_iter().map(session).collect() }
}

fn hold(hold: holds::Hold) -> Hold {
    let (mut session_id, mut grant_id, mut target_id) = (None, None, None);
    match hold.subject {
        HoldSubject::Session(id) => session_id = Some(id),
        HoldSubject::Grant(id) => grant_id = Some(id),
        HoldSubject::Target(id) => target_id = Some(id),
    }
    Hold {
        id: hold.id,
        session_id,
        grant_id,
        target_id,
        reason: hold.reason,
        set_by: audit::name_of(&hold.set_by),
        set_at: hold.set_at,
        released_by: hold.released.as_ref().map(|released| audit::name_of(&released.by)),
        released_at: hold.released.as_ref().map(|released| released.at),
        release_reason: hold.released.map(|released| released.reason),
    }
}

/// Asks for the deletion of what was recorded in a session. Somebody else has to approve it. For people only: the operator of the host is
/// nobody here.
#[utoipa::path(post, path = "/sessions/{id}/deletion", operation_id = "deletions_ask", tag = "retention",
    params(("id" = String, Path)), request_body = Reason, responses(
    (status = CREATED, body = DeletionDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn ask(
    may: May<Dispose>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    Body(body): Body<Reason>,
) -> Result<(StatusCode, Json<DeletionDetail>), ApiError> {
    let asked = deletions::ask(&state.app, may.person()?, id, &body.reason).await?;
    Ok((StatusCode::CREATED, Json(detail(asked))))
}

/// Deletions, the latest first.
#[utoipa::path(get, path = "/deletions", operation_id = "deletions_list", tag = "retention",
    params(DeletionQuery, PageQuery), responses(
    (status = OK, body = Page<Deletion>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<DeletionQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Deletion>>, ApiError> {
    let limit = page.limit();
    let found = deletions::list(&state.app, query.open, page.after()?, limit).await?;
    let last = found.last().filter(|_| found.len() >= limit as usize).map(|(last, _)| last.id);
    let one = |(deletion, counts): (deletions::Deletion, Vec<(Stage, u64)>)| {
        shape(deletion, |stage| counts.iter().find(|(found, _)| *found == stage).map_or(0, |(_, count)| *count))
    };
    Ok(Json(Page { next: last.and_then(|last| cursor(&last)), items: found.into_iter().map(one).collect() }))
}

/// One deletion with its sessions.
#[utoipa::path(get, path = "/deletions/{id}", operation_id = "deletions_show", tag = "retention",
    params(("id" = String, Path)), responses(
    (status = OK, body = DeletionDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<DeletionId>,
) -> Result<Json<DeletionDetail>, ApiError> {
    Ok(Json(detail(deletions::find(&state.app, id).await?)))
}

/// Says yes: the recordings go. Not for who asked, nor with another token of theirs, nor for sessions under a grant that names the
/// caller.
#[utoipa::path(post, path = "/deletions/{id}/approve", operation_id = "deletions_approve", tag = "retention",
    params(("id" = String, Path), IfMatch), responses(
    (status = ACCEPTED, body = DeletionDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn approve(
    may: May<Dispose>,
    State(state): State<ApiState>,
    Path(id): Path<DeletionId>,
    known: IfMatch,
) -> Result<(StatusCode, Json<DeletionDetail>), ApiError> {
    let still = |found: &Whole| known.is(|| detail(found.clone()));
    let approved = deletions::approve(&state.app, may.person()?, id, Some(&still)).await?;
    Ok((StatusCode::ACCEPTED, Json(detail(approved))))
}

/// Says no, or takes one's own wish back: the recordings stay.
#[utoipa::path(post, path = "/deletions/{id}/refuse", operation_id = "deletions_refuse", tag = "retention",
    params(("id" = String, Path), IfMatch), request_body = Reason, responses(
    (status = OK, body = DeletionDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn refuse(
    may: May<Dispose>,
    State(state): State<ApiState>,
    Path(id): Path<DeletionId>,
    known: IfMatch,
    Body(body): Body<Reason>,
) -> Result<Json<DeletionDetail>, ApiError> {
    let still = |found: &Whole| known.is(|| detail(found.clone()));
    Ok(Json(detail(deletions::refuse(&state.app, &may.actor(), id, &body.reason, Some(&still)).await?)))
}

/// Holds what was recorded in a session, under a grant or on a target: nothing deletes it.
#[utoipa::path(post, path = "/holds", operation_id = "holds_set", tag = "retention", request_body = MakeHold, responses(
    (status = CREATED, body = Hold),
    (status = "default", body = Problem),
))]
pub(super) async fn set_hold(
    may: May<Dispose>,
    State(state): State<ApiState>,
    Body(body): Body<MakeHold>,
) -> Result<(StatusCode, Json<Hold>), ApiError> {
    let subject = match (body.session, body.grant, body.target) {
        (Some(session), None, None) => HoldSubject::Session(session),
        (None, Some(grant), None) => HoldSubject::Grant(grant),
        (None, None, Some(target)) => HoldSubject::Target(targets::find(&state.app, &target).await?.id),
        _ => return Err(ApiError::BadRequest("a hold is on one of `session`, `grant` and `target`".to_owned())),
    };
    let set = holds::set(&state.app, &may.actor(), subject, &body.reason).await?;
    Ok((StatusCode::CREATED, Json(hold(set))))
}

/// Legal holds, the latest first.
#[utoipa::path(get, path = "/holds", operation_id = "holds_list", tag = "retention",
    params(HoldQuery, PageQuery), responses(
    (status = OK, body = Page<Hold>),
    (status = "default", body = Problem),
))]
pub(super) async fn list_holds(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<HoldQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Hold>>, ApiError> {
    let limit = page.limit();
    let found = holds::list(&state.app, query.released, page.after()?, limit).await?;
    let last = found.last().filter(|_| found.len() >= limit as usize).map(|last| last.id);
    Ok(Json(Page { next: last.and_then(|last| cursor(&last)), items: found.into_iter().map(hold).collect() }))
}

/// Releases a hold.
#[utoipa::path(post, path = "/holds/{id}/release", operation_id = "holds_release", tag = "retention",
    params(("id" = String, Path)), request_body = Reason, responses(
    (status = OK, body = Hold),
    (status = "default", body = Problem),
))]
pub(super) async fn release_hold(
    may: May<Dispose>,
    State(state): State<ApiState>,
    Path(id): Path<HoldId>,
    Body(body): Body<Reason>,
) -> Result<Json<Hold>, ApiError> {
    Ok(Json(hold(holds::release(&state.app, &may.actor(), id, &body.reason).await?)))
}
