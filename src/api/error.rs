//! What the API answers when it says no: `application/problem+json` (RFC 9457).
//!
//! `type` is a URN that a script can compare, `detail` a sentence for a person, `reference` what to look for in the
//! log. What went wrong on our side is in the log under that reference and nowhere in the answer.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An answer that says no (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem, as a URN: `urn:sallyport:not_found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request, for a person.
    pub detail: String,
    /// Under this the log has more.
    pub reference: String,
}

/// Why a request is answered with a problem, as the handlers say it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request cannot be read, or its values contradict each other.
    #[error("{0}")]
    BadRequest(String),
    /// Nobody was proved: no token, or one that is unknown, has ended or was revoked.
    #[error("sign in, or send a valid token: `Authorization: Bearer …`")]
    Unauthenticated,
    /// Somebody who wants to sign in was not proved, or a code is missing; `slug` says which for a program.
    #[error("{detail}")]
    SignIn { slug: &'static str, title: &'static str, detail: String },
    /// They tried too often.
    #[error("{detail}")]
    TooMany { wait: Duration, detail: String },
    /// Who was proved may not do this.
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("there is no `{method}` here")]
    MethodNotAllowed { method: String },
    /// It is encrypted to keys that are not here.
    #[error("{0}")]
    Encrypted(String),
    /// It was there, and was deleted.
    #[error("{0}")]
    Gone(String),
    /// It is there already, or no longer in a state in which this could be done.
    #[error("{0}")]
    Conflict(String),
    /// The caller named another request so before.
    #[error("another request of yours had this `Idempotency-Key`: take a new one for a new request")]
    KeyReused,
    /// The same request is being worked on.
    #[error("this request is being worked on, by its `Idempotency-Key`: send it again in a moment")]
    InWork,
    /// The same request was done, and its answer is not given again.
    #[error("{0}")]
    DoneBefore(String),
    /// It is not what the caller knows.
    #[error("{0}")]
    PreconditionFailed(String),
    #[error("the request's body is longer than {most} bytes")]
    TooLarge { most: usize },
    #[error("the request's body must be `application/json`")]
    NotJson,
    /// Something that we need to ask is away: the database, a target.
    #[error("{0}")]
    Unavailable(String),
    /// What we had to ask for this answered wrongly or not at all: a target that was to show its keys.
    #[error("{0}")]
    BadGateway(String),
    #[error("the answer took too long")]
    TimedOut,
    /// What is kept is not what was stored; the sentence names the place.
    #[error("{0}")]
    Damaged(String),
    /// Our fault; the chain goes to the log, the peer learns the reference.
    #[error("something is wrong with the bastion")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    /// Our fault, with its cause for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        ApiError::Internal(cause.into())
    }

    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            ApiError::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request", "The request cannot be done as it is"),
            ApiError::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "Not signed in"),
            ApiError::SignIn { slug, title, .. } => (StatusCode::UNAUTHORIZED, slug, title),
            ApiError::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many", "Too many tries"),
            ApiError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
            ApiError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            ApiError::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            ApiError::Conflict(_) => (StatusCode::CONFLICT, "conflict", "Conflict"),
            ApiError::KeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The key belongs to another request")
            }
            ApiError::InWork => (StatusCode::CONFLICT, "in_work", "Being worked on"),
            ApiError::DoneBefore(_) => (StatusCode::CONFLICT, "done_before", "Done before"),
            ApiError::PreconditionFailed(_) => {
                (StatusCode::PRECONDITION_FAILED, "precondition_failed", "Changed meanwhile")
            }
            ApiError::Encrypted(_) => (StatusCode::CONFLICT, "encrypted", "Encrypted"),
            ApiError::Gone(_) => (StatusCode::GONE, "deleted", "Deleted"),
            ApiError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Too large"),
            ApiError::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "Not JSON"),
            ApiError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            ApiError::BadGateway(_) => (StatusCode::BAD_GATEWAY, "bad_gateway", "Another host did not answer"),
            ApiError::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "timed_out", "Timed out"),
            ApiError::Damaged(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "damaged", "What is kept is not what was stored")
            }
            ApiError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// The answer, and a line in the log under its reference.
    pub(super) fn into_problem(self) -> Problem {
        let (status, slug, title) = self.kind();
        let reference = Uuid::now_v7().simple().to_string();
        match &self {
            ApiError::Internal(cause) => {
                tracing::error!(reference, error = %chain(cause.as_ref()), "A request failed inside the bastion");
            }
            ApiError::Unavailable(_) | ApiError::TimedOut => {
                tracing::warn!(reference, error = %self, "A request could not be answered now");
            }
            _ => tracing::debug!(reference, error = %self, "A request was answered with a problem"),
        }
        Problem {
            kind: format!("urn:sallyport:{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            reference,
        }
    }
}

/// An error and its causes, joined by colons.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, ..) = self.kind();
        let unauthenticated = matches!(self, ApiError::Unauthenticated);
        let wait = match &self {
            ApiError::TooMany { wait, .. } => Some(wait.as_secs().max(1)),
            ApiError::InWork => Some(1),
            _ => None,
        };
        let mut response = (status, Json(self.into_problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_tells_its_reference_and_nothing_of_its_cause() {
        let error = ApiError::internal(std::io::Error::other("password=hunter2 at 10.0.0.9"));

        let problem = error.into_problem();

        assert_eq!(problem.status, 500);
        assert_eq!(problem.detail, "something is wrong with the bastion");
        assert_eq!(problem.reference.len(), 32);
    }
}
