//! `/tokens`: what people prove themselves with to the API over TCP.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::id::TokenId;
use sallyport_domain::name::PrincipalName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Caller, Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Body, Path, Query};
use super::page::{Page, PageQuery};
use super::people::PersonRef;
use crate::app::tokens::{self, TokenRecord};

/// A token; never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    #[schema(value_type = String)]
    pub id: TokenId,
    pub person: PersonRef,
    /// What it is for.
    pub label: String,
    pub state: TokenState,
    pub created_at: DateTime<Utc>,
    /// The first instant at which it is no longer valid; absent if it has no end.
    pub not_after: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Whether a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    Valid,
    Ended,
    Revoked,
}

impl TokenState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            TokenState::Valid => "valid",
            TokenState::Ended => "ended",
            TokenState::Revoked => "revoked",
        }
    }
}

/// A token to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeToken {
    /// For whom it acts. An admin makes tokens for themselves only.
    #[schema(value_type = String)]
    pub person: PrincipalName,
    /// What it is for.
    pub label: String,
    /// The first instant at which it is no longer valid; absent for no end.
    #[serde(default)]
    pub not_after: Option<DateTime<Utc>>,
}

/// A new token with its secret, which is shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    #[serde(flatten)]
    pub token: Token,
    /// Send it as `Authorization: Bearer …`.
    pub secret: String,
}

fn shape(record: TokenRecord, now: DateTime<Utc>) -> Token {
    let state = if record.revoked_at.is_some() {
        TokenState::Revoked
    } else if record.not_after.is_some_and(|end| end <= now) {
        TokenState::Ended
    } else {
        TokenState::Valid
    };
    Token {
        id: record.id,
        person: PersonRef { id: record.principal, name: record.principal_name },
        label: record.label,
        state,
        created_at: record.created_at,
        not_after: record.not_after,
        last_used_at: record.last_used_at,
        revoked_at: record.revoked_at,
    }
}

async fn find(state: &ApiState, id: TokenId) -> Result<Token, ApiError> {
    let found = tokens::list(&state.app).await?.into_iter().find(|record| record.id == id);
    let record = found.ok_or_else(|| ApiError::NotFound(format!("there is no token {id}")))?;
    Ok(shape(record, state.app.clock.now()))
}

/// Every token, the oldest first.
#[utoipa::path(get, path = "/tokens", operation_id = "tokens_list", tag = "tokens", params(PageQuery), responses(
    (status = OK, body = Page<Token>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Token>>, ApiError> {
    let mut tokens = tokens::list(&state.app).await?;
    tokens.sort_by_key(|token| token.id);
    let now = state.app.clock.now();
    let page = Page::of_sorted(tokens, &query, |token| token.id)?;
    Ok(Json(page.map(|token| shape(token, now))))
}

/// Makes a token. An operator makes them for anybody, an admin for themselves only: a token acts for its person, and
/// nobody acts for another.
#[utoipa::path(post, path = "/tokens", operation_id = "tokens_make", tag = "tokens", request_body = MakeToken, responses(
    (status = CREATED, body = MadeToken),
    (status = "default", body = Problem),
))]
pub(super) async fn make(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<MakeToken>,
) -> Result<(StatusCode, Json<MadeToken>), ApiError> {
    match may.caller() {
        Caller::Person(person) if person.name != body.person => {
            let refusal = "a token for another person is made by an operator, on the bastion's own host";
            return Err(ApiError::Forbidden(refusal.to_owned()));
        }
        Caller::Person(_) | Caller::Operator { .. } => {}
    }
    let (id, secret) = tokens::make(&state.app, &may.actor(), &body.person, &body.label, body.not_after).await?;
    let token = find(&state, id).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { token, secret: secret.expose().to_owned() })))
}

/// Revokes a token.
#[utoipa::path(post, path = "/tokens/{id}/revoke", operation_id = "tokens_revoke", tag = "tokens",
    params(("id" = String, Path)), responses(
    (status = OK, body = Token),
    (status = "default", body = Problem),
))]
pub(super) async fn revoke(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<TokenId>,
) -> Result<Json<Token>, ApiError> {
    tokens::revoke(&state.app, &may.actor(), id).await?;
    Ok(Json(find(&state, id).await?))
}
