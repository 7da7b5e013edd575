//! Readers of requests that answer with our own problems when they cannot.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts as RequestHead;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The most bytes that a request's body may have.
pub(super) const MOST_BODY_BYTES: usize = 256 * 1024;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(ApiError::NotJson),
            Err(JsonRejection::BytesRejection(rejection)) if rejection.status().as_u16() == 413 => {
                Err(ApiError::TooLarge { most: MOST_BODY_BYTES })
            }
            Err(rejection) => Err(ApiError::BadRequest(innermost(&rejection))),
        }
    }
}

/// The values in the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut RequestHead, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            // A name or id that cannot be one is the name of nothing: 404 tells a script the same as one that is unknown.
            Err(PathRejection::FailedToDeserializePathParams(rejection)) => {
                Err(ApiError::NotFound(rejection.into_kind().to_string()))
            }
            Err(rejection) => Err(ApiError::BadRequest(rejection.to_string())),
        }
    }
}

/// The request's head.
pub(super) struct Parts(pub(super) RequestHead);

impl<S: Send + Sync> FromRequestParts<S> for Parts {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut RequestHead, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.clone()))
    }
}

/// The values after the question mark.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut RequestHead, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(rejection)) => {
                Err(ApiError::BadRequest(innermost(&rejection)))
            }
            Err(rejection) => Err(ApiError::BadRequest(rejection.to_string())),
        }
    }
}

/// The last cause, which names the field and what is wrong with it; what stands before it names our libraries.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
