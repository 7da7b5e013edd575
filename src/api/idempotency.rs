//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): whoever has not heard the answer to a request sends it again, and it is
//! done once. One layer around the handlers, which know nothing of it.
//!
//! A request with a key runs on a task of its own, so that it comes to its end, and its answer is kept, though its client has gone. Answers that
//! say no are not kept: nothing was done, and the next try may go well. See [`crate::app::idempotency`] for what holds after a crash.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest as _, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sallyport_domain::idempotency::IdempotencyKey;
use tracing::{Instrument as _, Span, warn};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Header, HeaderBuilder, OpenApi, RefOr, Required};

use super::ApiState;
use super::access::{Caller, prove};
use super::error::ApiError;
use super::extract::MOST_BODY_BYTES;
use super::router::{ANSWER_DEADLINE, operations};
use crate::app::App;
use crate::app::idempotency::{self, Answer, Asked, Claim, Standing};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The operations that take a key: whatever changes something by POST. A test finds one that is in neither this list nor the other.
pub(super) const KEYED: &[&str] = &[
    "break_glass_make",
    "break_glass_revoke",
    "deletions_approve",
    "deletions_ask",
    "deletions_refuse",
    "grants_extend",
    "grants_make",
    "grants_revoke",
    "holds_release",
    "holds_set",
    "invites_make",
    "keys_activate",
    "keys_retire",
    "keys_rotate_ledger",
    "keys_rotate_master",
    "keys_stage",
    "own_passkeys_add",
    "people_add",
    "people_add_key",
    "people_disable",
    "people_enable",
    "requests_approve",
    "requests_deny",
    "requests_make",
    "requests_withdraw",
    "reviews_flag",
    "reviews_note",
    "reviews_sign_off",
    "sessions_cut",
    "sessions_hold",
    "sessions_message",
    "sessions_release",
    "targets_add",
    "targets_disable",
    "targets_enable",
    "templates_make",
    "tokens_make",
    "tokens_revoke",
];

/// Of those, the ones whose answer holds a secret that is shown once. It is kept nowhere: a repeat is told that it was done.
const TOLD_ONCE: &[&str] = &["break_glass_make", "invites_make", "tokens_make"];

/// The other operations by POST. A key makes no difference to them, and is not looked at.
#[cfg(test)]
pub(super) const NOT_KEYED: &[(&str, &str)] = &[
    ("break_glass_open", "the database may be away; an envelope opens once"),
    ("evidence_of_grant", "a stream, made anew each time"),
    ("evidence_of_session", "a stream, made anew each time"),
    ("grants_preview", "changes nothing"),
    ("invite_accept", "nobody is known yet; an invite counts once"),
    ("invite_look", "nobody is known yet; changes nothing"),
    ("invite_passkey", "nobody is known yet; an invite counts once"),
    ("invite_passkey_begin", "nobody is known yet"),
    ("own_passkeys_begin", "takes the place of the one before"),
    ("own_totp_begin", "takes the place of the one before; a secret"),
    ("own_totp_confirm", "a code counts once; secrets"),
    ("own_web_sessions_end_others", "the second time there are none"),
    ("reviews_seen", "what was seen twice is seen"),
    ("sessions_beat", "counts once"),
    ("sign_in", "nobody is known yet; a secret"),
    ("sign_in_oidc_begin", "nobody is known yet; a secret"),
    ("sign_in_passkey", "nobody is known yet; a secret"),
    ("sign_in_passkey_begin", "nobody is known yet"),
    ("sign_out", "the second time nobody is signed in"),
    ("targets_rotate", "longer than an answer may take; a turn of its own, and each of its steps can be done twice"),
    ("targets_scan", "changes nothing"),
    ("totp_begin", "takes the place of the one before; a secret"),
    ("totp_confirm", "a code counts once; secrets"),
];

/// What is kept of an operation's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    Answer,
    /// Only that there was one.
    Nothing,
}

/// What the layer works with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Once {
    state: ApiState,
    operations: Arc<HashMap<String, Keeps>>,
}

impl Once {
    pub(super) fn new(state: ApiState, document: &mut OpenApi) -> Self {
        Self { state, operations: Arc::new(describe(document)) }
    }
}

/// Says in the document which operations take a key. Gives their paths; all are by POST.
pub(super) fn describe(document: &mut OpenApi) -> HashMap<String, Keeps> {
    let mut keyed = HashMap::new();
    for (_method, path, operation) in operations(document) {
        let Some(id) = operation.operation_id.as_deref().filter(|id| KEYED.contains(id)) else { continue };
        let keeps = if TOLD_ONCE.contains(&id) { Keeps::Nothing } else { Keeps::Answer };
        let (key, replayed) = (parameter(keeps), replayed());
        operation.parameters.get_or_insert_default().push(key.into());
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && status.starts_with('2')
                && keeps == Keeps::Answer
            {
                response.headers.insert("Idempotency-Replayed".to_owned(), replayed.clone().into());
            }
        }
        keyed.insert(path.to_owned(), keeps);
    }
    keyed
}

fn parameter(keeps: Keeps) -> Parameter {
    let again = match keeps {
        Keeps::Answer => "sent again within 24 hours, the request gets its first answer again",
        Keeps::Nothing => "sent again within 24 hours, the request is answered with 409, for the secret is shown once",
    };
    let description = format!(
        "Names the request, so that it is done once: {again}. 1 to 255 visible ASCII characters, bare or as a string of structured fields; \
         an UUID is a good one. The same key with another request is 422; while the first is being worked on, 409."
    );
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn replayed() -> Header {
    HeaderBuilder::new().description(Some("`true`: this is the first answer to a request that was sent again")).build()
}

/// Does a request that has a key once.
pub(super) async fn once(State(once): State<Once>, request: Request, next: Next) -> Response {
    let takes_key = request.method() == Method::POST && request.headers().contains_key(KEY);
    let path = request.extensions().get::<MatchedPath>().filter(|_| takes_key);
    match path.and_then(|path| once.operations.get(path.as_str())) {
        Some(&keeps) => answer(once.state, keeps, request, next).await.unwrap_or_else(ApiError::into_response),
        None => next.run(request).await,
    }
}

async fn answer(state: ApiState, keeps: Keeps, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let key = key_of(&parts.headers)?;
    let caller = prove(&parts, &state).await?.caller;
    let body = read(Request::from_parts(parts.clone(), body)).await?;
    let place = parts.uri.path_and_query().map_or("", |place| place.as_str());
    let fingerprint = state.target_keys.keyed_hash(&[place.as_bytes(), &body]);
    let fingerprint = fingerprint.ok_or_else(|| ApiError::internal("a request's fingerprint cannot be reckoned"))?;
    let asked = Asked { key, fingerprint };
    let request = Request::from_parts(parts, Body::from(body));
    // From here on nothing ends with the client's connection: neither a claim that was just made, nor what is done under it.
    let tasks = state.watches.clone();
    let done = async move { do_once(&state.app, &caller, &asked, keeps, request, next).await };
    tasks.spawn(done.instrument(Span::current())).await.map_err(ApiError::internal)?
}

async fn do_once(
    app: &App,
    caller: &Caller,
    asked: &Asked,
    keeps: Keeps,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let roles = match caller {
        Caller::Person(person) => person.roles.as_slice(),
        Caller::Operator { .. } => &[],
    };
    match idempotency::claim(app, &caller.actor(), roles, asked).await? {
        Standing::Ours(claim) => Ok(work(app, claim, keeps, request, next).await),
        Standing::Answered(Answer { status, body }) => {
            let status = StatusCode::from_u16(status).map_err(ApiError::internal)?;
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (REPLAYED, HeaderValue::from_static("true")),
            ];
            Ok((status, headers, body).into_response())
        }
        Standing::Done(event) => {
            let how = event.map_or_else(String::new, |event| format!(", as event {event} tells"));
            Err(ApiError::DoneBefore(format!(
                "this was done before{how}; its answer is not given again. Look at what there is; to do it once more, take a new `Idempotency-Key`"
            )))
        }
        Standing::InWork => Err(ApiError::InWork),
        Standing::OtherRequest => Err(ApiError::KeyReused),
        Standing::OtherRoles => {
            Err(ApiError::Forbidden("this was done before, when you had roles that you do not have now".to_owned()))
        }
    }
}

/// The key of a request that has one, and one only.
fn key_of(headers: &HeaderMap) -> Result<IdempotencyKey, ApiError> {
    let bad = |why: String| ApiError::BadRequest(format!("`Idempotency-Key`: {why}"));
    let mut values = headers.get_all(KEY).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => IdempotencyKey::parse(value.as_bytes()).map_err(|error| bad(error.to_string())),
        (None, _) | (_, Some(_)) => Err(bad("one is sent, and no more".to_owned())),
    }
}

/// The whole body of a request.
async fn read(request: Request) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { most: MOST_BODY_BYTES },
        _ => ApiError::BadRequest(rejection.body_text()),
    })
}

/// Does what was claimed, and keeps the answer.
async fn work(app: &App, claim: Claim, keeps: Keeps, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_DEADLINE, next.run(request));
    let response = match idempotency::doing(&claim, answered).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::TimedOut.into_response(),
    };
    let (parts, body) = response.into_parts();
    // Ours, and in memory already.
    let body = match to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let ended = match (parts.status.is_success(), keeps) {
        (true, Keeps::Answer) => {
            let answer = Answer { status: parts.status.as_u16(), body: body.to_vec() };
            idempotency::finish(app, &claim, Some(&answer)).await
        }
        (true, Keeps::Nothing) => idempotency::finish(app, &claim, None).await,
        (false, _) => idempotency::release(app, &claim).await,
    };
    if let Err(error) = ended {
        warn!(%error, "The answer to a request with an idempotency key was not kept; a repeat is told only what its event tells.");
    }
    Response::from_parts(parts, Body::from(body))
}
