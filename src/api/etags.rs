//! Entity tags (RFC 9110 §8.8.3): a GET's JSON has one, a client that has it is spared the answer, and a change can be bound to it.
//!
//! A tag is SHA-256 of the answer's bytes, so it is strong, and needs no place in any table. `If-Match` is judged by the use case in the
//! change's own transaction, through [`Still`]: the handler shapes what the transaction sees as a GET would, and compares. A session is
//! the exception, and so is its review: much of what is shown of them is in other tables and changes by itself, so the handler looks just before
//! the change ([`IfMatch::check`]), and of two at once both may be done. An operation that does not look at `If-Match` refuses it.
//!
//! [`Still`]: crate::app::Still

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sallyport_domain::entity_tag::{Condition, ConditionError, EntityTag};
use serde::Serialize;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{HeaderBuilder, OpenApi, RefOr, Required};

use super::error::ApiError;
use super::router::operations;

/// What a caller knows of the thing that is to be changed, if they say it.
pub(super) struct IfMatch(Option<Condition>);

impl IfMatch {
    /// Whether a thing that a GET would answer with `shown` is what the caller knows; what that is, is worked out only where they say it.
    pub(super) fn is<T: Serialize>(&self, shown: impl FnOnce() -> T) -> bool {
        self.0.as_ref().is_none_or(|known| match serde_json::to_vec(&shown()) {
            Ok(body) => known.is_strongly(&EntityTag::of(&body)),
            Err(_) => false, // our answers always have a JSON form; what has none is known to nobody
        })
    }

    /// Whether the caller says what they know.
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Refuses what is not what the caller knows. For where no transaction can look.
    pub(super) fn check<T: Serialize>(&self, shown: &T) -> Result<(), ApiError> {
        if self.is(|| shown) {
            Ok(())
        } else {
            Err(ApiError::PreconditionFailed("it changed meanwhile: look at it again".to_owned()))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match condition(&parts.headers, header::IF_MATCH) {
            None => Ok(Self(None)),
            Some(Ok(condition)) => Ok(Self(Some(condition))),
            Some(Err(error)) => Err(ApiError::BadRequest(format!("`If-Match`: {error}"))),
        }
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter(
            "If-Match",
            "`ETag` of a GET of this: is it anything else by now, nothing is changed, and the answer is 412",
        )]
    }
}

/// What a condition's header says; of several lines, all.
fn condition(headers: &HeaderMap, name: HeaderName) -> Option<Result<Condition, ConditionError>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?.to_vec();
    let value = lines.fold(first, |value, line| [value.as_slice(), b",", line].concat());
    Some(Condition::parse(&value))
}

/// The operations that look at `If-Match`, by method and path. Cheap to clone.
#[derive(Clone)]
pub(super) struct Conditional(Arc<HashSet<(Method, String)>>);

impl Conditional {
    pub(super) fn new(document: &mut OpenApi) -> Self {
        Self(Arc::new(describe(document)))
    }
}

/// Says in the document which answers have a tag. Gives the operations that look at `If-Match`, as their handlers say.
pub(super) fn describe(document: &mut OpenApi) -> HashSet<(Method, String)> {
    let mut conditional = HashSet::new();
    for (method, path, operation) in operations(document) {
        let is_if_match = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(it) if it.name == "If-Match");
        if operation.parameters.iter().flatten().any(is_if_match) {
            conditional.insert((method.clone(), path.to_owned()));
        }
        let answers = &mut operation.responses.responses;
        if let Some(RefOr::T(answer)) = answers.get_mut("200")
            && method == Method::GET
            && answer.content.contains_key("application/json")
        {
            let tag = HeaderBuilder::new().description(Some("The state of what is answered; strong"));
            answer.headers.insert("ETag".to_owned(), tag.build().into());
            let unchanged = ResponseBuilder::new().description("It is as `If-None-Match` says");
            answers.insert("304".to_owned(), unchanged.build().into());
            let none_match = "`ETag` of an answer before: is it the same, it is left out, and the status is 304";
            operation.parameters.get_or_insert_default().push(parameter("If-None-Match", none_match).into());
        }
    }
    conditional
}

fn parameter(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

/// Gives a GET's JSON its tag, and leaves it out for whoever has it.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        return next.run(request).await;
    }
    // One that cannot be read is no reason to answer less.
    let known = condition(request.headers(), header::IF_NONE_MATCH).and_then(Result::ok);
    let response = next.run(request).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    // Streams have no length beforehand.
    if response.status() != StatusCode::OK || !is_json || response.body().size_hint().exact().is_none() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = match to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let tag = EntityTag::of(&body);
    if let Ok(value) = HeaderValue::try_from(tag.to_string()) {
        parts.headers.insert(header::ETAG, value);
    }
    if known.is_some_and(|known| known.is_weakly(&tag)) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(body))
}

/// Refuses `If-Match` where nobody looks at it: what was to be changed on a condition is not changed without.
pub(super) async fn refuse(State(conditional): State<Conditional>, request: Request, next: Next) -> Response {
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    if is_change && request.headers().contains_key(header::IF_MATCH) {
        let path = request.extensions().get::<MatchedPath>();
        let operation = path.map(|path| (request.method().clone(), path.as_str().to_owned()));
        if operation.is_some_and(|operation| !conditional.0.contains(&operation)) {
            let refusal = "this cannot be bound to an `ETag`: leave `If-Match` out";
            return ApiError::BadRequest(refusal.to_owned()).into_response();
        }
    }
    next.run(request).await
}
