//! `/reviews` and `/sessions/{id}/review`: which sessions are to be looked at by when and why, what reviewers say of them, and how much
//! of them they have seen.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::id::{EventId, GrantId, RecordingId, SessionId};
use sallyport_domain::name::Login;
use sallyport_domain::principal::Principal;
use sallyport_domain::review::risk::{self, Moment, Sign};
use sallyport_domain::review::seen::{Coverage, Seen, Span};
use sallyport_domain::review::{Choice, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{Caller, Judge, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::page::{Page, PageQuery, cursor};
use super::people::PersonRef;
use super::sessions::TargetRef;
use super::{ApiState, schemas};
use crate::app::reviews::{self, Remark as Said, RemarkKind, ReviewFilter, Standing, seen};

/// A session that has come to rest, and its review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Review {
    #[schema(value_type = String)]
    pub session_id: SessionId,
    pub state: ReviewState,
    pub person: PersonRef,
    pub target: TargetRef,
    #[schema(value_type = String)]
    pub login: Login,
    #[schema(value_type = String)]
    pub grant_id: GrantId,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// The first instant at which it is late; absent if nobody needs to.
    pub due_at: Option<DateTime<Utc>>,
    /// How many sign-offs it takes, and has.
    pub sign_offs: u32,
    pub signed: u32,
    /// The gravest so far.
    #[schema(schema_with = schemas::verdict)]
    pub verdict: Option<Verdict>,
    /// 0 to 100.
    pub risk: u32,
    /// What speaks for the risk, the heaviest first.
    pub reasons: Vec<RiskReason>,
    /// Why it is to be reviewed, or is not: `risk`, `drawn`, `not_drawn`, `no_term`, `older`.
    pub chosen_by: String,
    /// Microseconds in which something happened.
    pub active_us: u64,
    pub flags: u32,
}

/// How far a review has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum ReviewState {
    Due,
    Overdue,
    /// It has its sign-offs.
    Done,
    /// Nobody needs to; whoever wants may.
    NotAsked,
}

impl ReviewState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReviewState::Due => "due",
            ReviewState::Overdue => "overdue",
            ReviewState::Done => "done",
            ReviewState::NotAsked => "not_asked",
        }
    }
}

/// One of the things that speak for a longer look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RiskReason {
    #[schema(schema_with = schemas::sign)]
    pub sign: Sign,
    pub weight: u32,
    /// How often, or how many bytes.
    pub amount: u64,
    /// In words.
    pub text: String,
    /// The first time, where it has one.
    pub at: Option<DateTime<Utc>>,
    #[schema(value_type = Option<String>)]
    pub recording: Option<RecordingId>,
}

/// The review of one session, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewDetail {
    #[schema(value_type = String)]
    pub session_id: SessionId,
    /// Absent while the session is not at rest.
    pub review: Option<Review>,
    pub remarks: Vec<Remark>,
    /// Whether the caller may judge it; else why not.
    pub may_judge: bool,
    pub refusal: Option<String>,
    /// What the caller has seen; absent if they may not judge it, or it is not at rest.
    pub coverage: Option<CoverageShown>,
    pub seen: Vec<SeenRecording>,
    /// What was recorded is deleted.
    pub deleted: bool,
}

/// Something that a reviewer said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Remark {
    /// The event that tells of it.
    #[schema(value_type = String)]
    pub id: EventId,
    /// `flag`, `note` or `sign_off`.
    pub kind: String,
    pub by: PersonRef,
    pub at: DateTime<Utc>,
    pub words: String,
    /// Of a flag, where it is at a moment.
    #[schema(value_type = Option<String>)]
    pub recording: Option<RecordingId>,
    pub moment: Option<DateTime<Utc>>,
    #[schema(schema_with = schemas::verdict)]
    pub verdict: Option<Verdict>,
    pub coverage: Option<CoverageShown>,
}

/// How much of a session was seen, in microseconds in which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoverageShown {
    pub active_us: u64,
    /// Shown or read.
    pub seen_us: u64,
    /// Played at eight times its speed or less.
    pub shown_us: u64,
    /// Read in the transcript.
    pub read_us: u64,
    /// Of the whole, rounded down; absent if there was nothing to see.
    pub percent: Option<u8>,
}

impl From<Coverage> for CoverageShown {
    fn from(coverage: Coverage) -> Self {
        let Coverage { active_us, seen_us, shown_us, read_us } = coverage;
        Self { active_us, seen_us, shown_us, read_us, percent: coverage.percent() }
    }
}

/// What was seen of one recording: parts, each from and to, in microseconds since it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeenRecording {
    #[schema(value_type = String)]
    pub recording: RecordingId,
    pub shown: Vec<[u64; 2]>,
    pub read: Vec<[u64; 2]>,
}

/// What a page has shown since its last report. The first of a page has no parts: from then on the reviewer's time runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenReport {
    #[schema(value_type = String)]
    pub recording: RecordingId,
    /// Played, each from and to, in microseconds since the recording began. At most 256.
    #[serde(default)]
    pub shown: Vec<[u64; 2]>,
    /// Read as text.
    #[serde(default)]
    pub read: Vec<[u64; 2]>,
}

/// What is taken of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeenTaken {
    pub seen: SeenRecording,
    pub coverage: CoverageShown,
}

/// A verdict.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignOff {
    #[schema(schema_with = schemas::verdict)]
    pub verdict: Verdict,
    /// What happened; needed for any other verdict than `as_planned`.
    #[serde(default)]
    pub note: String,
}

/// A flag at a moment, or at the session as a whole.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeFlag {
    pub words: String,
    /// Both or neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub recording: Option<RecordingId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

/// Something to say of a session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeNote {
    pub words: String,
}

/// Which reviews.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ReviewQuery {
    /// `due` (late ones too), `overdue`, `done`, `not_asked`; all where it is left out.
    #[param(inline)]
    pub state: Option<ReviewState>,
    /// Only those that the caller may judge and has not.
    pub mine: bool,
}

/// Whose.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct MineQuery {
    /// Only those that the caller may judge and has not.
    pub mine: bool,
}

/// What waits for a review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReviewSum {
    /// Late ones too.
    pub due: u64,
    pub overdue: u64,
    /// Microseconds in which something happened, in all of them.
    pub active_us: u64,
    /// When the first is due, or was.
    pub oldest_due_at: Option<DateTime<Utc>>,
}

pub(super) fn state_of(asked: bool, is_done: bool, due_at: DateTime<Utc>, now: DateTime<Utc>) -> ReviewState {
    match (is_done, asked) {
        (true, _) => ReviewState::Done,
        (false, false) => ReviewState::NotAsked,
        (false, true) if due_at <= now => ReviewState::Overdue,
        (false, true) => ReviewState::Due,
    }
}

fn shape(review: reviews::Review, now: DateTime<Utc>) -> Review {
    let state = state_of(review.asked, review.done_at.is_some(), review.due_at, now);
    let reviews::ReviewedSession { person, person_name, target, target_name, login, grant, started_at, ended_at } =
        review.of;
    Review {
        session_id: review.session,
        state,
        person: PersonRef { id: person, name: person_name },
        target: TargetRef { id: target, name: target_name },
        login,
        grant_id: grant,
        started_at,
        ended_at,
        due_at: review.asked.then_some(review.due_at),
        sign_offs: review.sign_offs,
        signed: review.signed,
        verdict: review.verdict,
        risk: review.risk.score,
        reasons: review.risk.reasons.into_iter().map(reason).collect(),
        chosen_by: chosen_by(review.choice).to_owned(),
        active_us: review.active_us,
        flags: review.flags,
    }
}

const fn chosen_by(choice: Choice) -> &'static str {
    match choice {
        Choice::NoTerm => "no_term",
        Choice::Risk { .. } => "risk",
        Choice::Drawn { .. } => "drawn",
        Choice::NotDrawn { .. } => "not_drawn",
        Choice::Older => "older",
    }
}

fn reason(reason: risk::Reason) -> RiskReason {
    let text = reason.to_string();
    let risk::Reason { sign, weight, amount, first } = reason;
    let (at, recording) = first.map(|Moment { at, recording }| (at, recording)).unzip();
    RiskReason { sign, weight, amount, text, at, recording }
}

fn remark(said: Said) -> Remark {
    let Said { id, person, name, at, words, kind } = said;
    let (kind, moment, signed) = match kind {
        RemarkKind::Note => ("note", None, None),
        RemarkKind::Flag(moment) => ("flag", moment, None),
        RemarkKind::SignOff { verdict, coverage } => ("sign_off", None, Some((verdict, coverage.into()))),
    };
    let (verdict, coverage) = signed.unzip();
    Remark {
        id,
        kind: kind.to_owned(),
        by: PersonRef { id: person, name },
        at,
        words,
        recording: moment.map(|moment| moment.recording),
        moment: moment.map(|moment| moment.at),
        verdict,
        coverage,
    }
}

fn parts(spans: &[Span]) -> Vec<[u64; 2]> {
    spans.iter().map(|span| [span.from(), span.to()]).collect()
}

fn seen_of(recording: RecordingId, seen: &Seen) -> SeenRecording {
    SeenRecording { recording, shown: parts(seen.shown.as_slice()), read: parts(seen.read.as_slice()) }
}

fn detail(standing: Standing, now: DateTime<Utc>) -> ReviewDetail {
    ReviewDetail {
        session_id: standing.session,
        review: standing.review.map(|review| shape(review, now)),
        remarks: standing.remarks.into_iter().map(remark).collect(),
        may_judge: standing.refusal.is_none(),
        refusal: standing.refusal.map(|refusal| refusal.to_string()),
        coverage: standing.coverage.map(Into::into),
        seen: standing.seen.iter().map(|(recording, seen)| seen_of(*recording, seen)).collect(),
        deleted: standing.is_deleted,
    }
}

/// Whose they are, if only the caller's are asked for. The operator is nobody here: all are theirs to see.
fn judge_of(may: &May<Look>, mine: bool) -> Option<sallyport_domain::id::PrincipalId> {
    match may.caller() {
        Caller::Person(person) if mine => Some(person.id),
        Caller::Person(_) | Caller::Operator { .. } => None,
    }
}

/// Reviews by their due dates; of those due at once the riskiest first.
#[utoipa::path(get, path = "/reviews", operation_id = "reviews_list", tag = "reviews", params(ReviewQuery, PageQuery), responses(
    (status = OK, body = Page<Review>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<ReviewQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Review>>, ApiError> {
    let now = state.app.clock.now();
    let (asked, done, due_by) = match query.state {
        None => (None, None, None),
        Some(ReviewState::Due) => (Some(true), Some(false), None),
        Some(ReviewState::Overdue) => (Some(true), Some(false), Some(now)),
        Some(ReviewState::Done) => (None, Some(true), None),
        Some(ReviewState::NotAsked) => (Some(false), Some(false), None),
    };
    let judge = judge_of(&may, query.mine);
    let filter = ReviewFilter { session: None, asked, done, due_by, judge, after: page.after()? };
    let limit = page.limit();
    let found = reviews::list(&state.app, &filter, limit).await?;
    let last = found.last().filter(|_| found.len() >= limit as usize);
    let next = last.and_then(|last| cursor(&(last.due_at, last.risk.score, last.session)));
    Ok(Json(Page { items: found.into_iter().map(|review| shape(review, now)).collect(), next }))
}

/// What waits for a review, in numbers.
#[utoipa::path(get, path = "/reviews/summary", operation_id = "reviews_summary", tag = "reviews", params(MineQuery), responses(
    (status = OK, body = ReviewSum),
    (status = "default", body = Problem),
))]
pub(super) async fn summary(
    may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<MineQuery>,
) -> Result<Json<ReviewSum>, ApiError> {
    let reviews::ReviewSum { due, overdue, active_us, oldest } =
        reviews::sum(&state.app, judge_of(&may, query.mine)).await?;
    Ok(Json(ReviewSum { due, overdue, active_us, oldest_due_at: oldest }))
}

/// The review of one session.
#[utoipa::path(get, path = "/sessions/{id}/review", operation_id = "reviews_show", tag = "reviews",
    params(("id" = String, Path)), responses(
    (status = OK, body = ReviewDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
) -> Result<Json<ReviewDetail>, ApiError> {
    let person = match may.caller() {
        Caller::Person(person) => Some(person),
        Caller::Operator { .. } => None,
    };
    Ok(Json(detail(reviews::show(&state.app, person, id).await?, state.app.clock.now())))
}

/// Whether the review is what the caller knows, just before something is said in it.
async fn check(state: &ApiState, known: &IfMatch, person: &Principal, id: SessionId) -> Result<(), ApiError> {
    if known.is_there() {
        let standing = reviews::show(&state.app, Some(person), id).await?;
        known.check(&detail(standing, state.app.clock.now()))?;
    }
    Ok(())
}

/// Tells what a page has shown; it is believed as far as there was time for it.
#[utoipa::path(post, path = "/sessions/{id}/review/seen", operation_id = "reviews_seen", tag = "reviews",
    params(("id" = String, Path)), request_body = SeenReport, responses(
    (status = OK, body = SeenTaken),
    (status = "default", body = Problem),
))]
pub(super) async fn report(
    may: May<Judge>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    Body(body): Body<SeenReport>,
) -> Result<Json<SeenTaken>, ApiError> {
    let spans = |parts: Vec<[u64; 2]>| -> Result<Vec<Span>, ApiError> {
        let read = parts.into_iter().map(|[from, to]| Span::new(from, to));
        read.collect::<Result<_, _>>().map_err(|error| ApiError::BadRequest(error.to_string()))
    };
    let report = seen::Report { recording: body.recording, shown: spans(body.shown)?, read: spans(body.read)? };
    let (seen, coverage) = seen::report(&state.app, may.person()?, id, &report).await?;
    Ok(Json(SeenTaken { seen: seen_of(report.recording, &seen), coverage: coverage.into() }))
}

/// Flags a moment, or the session as a whole; a live one, too.
#[utoipa::path(post, path = "/sessions/{id}/review/flags", operation_id = "reviews_flag", tag = "reviews",
    params(("id" = String, Path), IfMatch), request_body = MakeFlag, responses(
    (status = CREATED, body = ReviewDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn flag(
    may: May<Judge>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
    Body(body): Body<MakeFlag>,
) -> Result<(StatusCode, Json<ReviewDetail>), ApiError> {
    check(&state, &known, may.person()?, id).await?;
    let moment = match (body.recording, body.at) {
        (Some(recording), Some(at)) => Some(Moment { at, recording }),
        (None, None) => None,
        _ => return Err(ApiError::BadRequest("a moment is `recording` and `at` together".to_owned())),
    };
    let standing = reviews::flag(&state.app, may.person()?, id, moment, &body.words).await?;
    Ok((StatusCode::CREATED, Json(detail(standing, state.app.clock.now()))))
}

/// Says something of a session without a verdict.
#[utoipa::path(post, path = "/sessions/{id}/review/notes", operation_id = "reviews_note", tag = "reviews",
    params(("id" = String, Path), IfMatch), request_body = MakeNote, responses(
    (status = CREATED, body = ReviewDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn note(
    may: May<Judge>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
    Body(body): Body<MakeNote>,
) -> Result<(StatusCode, Json<ReviewDetail>), ApiError> {
    check(&state, &known, may.person()?, id).await?;
    let standing = reviews::note(&state.app, may.person()?, id, &body.words).await?;
    Ok((StatusCode::CREATED, Json(detail(standing, state.app.clock.now()))))
}

/// Signs a session off, with how much of it was seen by then. Not for who was in it, nor for whom its grant names or whose hand is in it.
#[utoipa::path(post, path = "/sessions/{id}/review/sign-off", operation_id = "reviews_sign_off", tag = "reviews",
    params(("id" = String, Path), IfMatch), request_body = SignOff, responses(
    (status = CREATED, body = ReviewDetail),
    (status = "default", body = Problem),
))]
pub(super) async fn sign_off(
    may: May<Judge>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    known: IfMatch,
    Body(body): Body<SignOff>,
) -> Result<(StatusCode, Json<ReviewDetail>), ApiError> {
    check(&state, &known, may.person()?, id).await?;
    let standing = reviews::sign_off(&state.app, may.person()?, id, body.verdict, &body.note).await?;
    Ok((StatusCode::CREATED, Json(detail(standing, state.app.clock.now()))))
}
