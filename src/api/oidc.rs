//! `/sign-in/oidc` and `/people/{name}/oidc`: signing in at an identity provider, and who people are there.

use axum::Json;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use sallyport_domain::name::PrincipalName;
use sallyport_domain::secret::WebToken;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::access::{Administer, Look, May, Peer};
use super::error::{ApiError, Problem};
use super::extract::{Body, Parts, Path, Query};
use super::sign_in::{browser_of, cookie_of, session_cookie, user_agent};
use crate::app::sign_in::identities::{self, IdentityRecord};
use crate::app::sign_in::{OidcAnswer, OidcError, SignInError};

/// What ties a sign-in at the provider to the browser that began it. `Lax`, for the provider sends the browser back from its own
/// site; it proves nothing but that.
const COOKIE: &str = "__Host-sallyport-oidc";
const COOKIE_ENDS: HeaderValue =
    HeaderValue::from_static("__Host-sallyport-oidc=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax");

/// What to sign in for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginOidc {
    /// The path in the web app to come back to; `/` where it is left out or leads elsewhere.
    #[serde(default)]
    pub to: Option<String>,
}

/// Where to sign in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BegunOidc {
    /// A page of the identity provider's, to be opened in the same browser within ten minutes.
    pub url: String,
}

/// What the identity provider sends the browser back with.
#[derive(Clone, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct OidcReturn {
    pub state: String,
    pub code: Option<String>,
    pub error: Option<String>,
    pub iss: Option<String>,
}

/// Who a person is at an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    pub issuer: String,
    /// The provider's own word for the person: the claim `sub`.
    pub subject: String,
    pub since: DateTime<Utc>,
}

/// Whether a person is bound to an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonOidc {
    pub identity: Option<Identity>,
}

/// Who the person is to be at the provider.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindOidc {
    /// The claim `sub`. The audit log tells the subject of a sign-in that nobody is bound to.
    pub subject: String,
    /// The configured provider's where it is left out.
    #[serde(default)]
    pub issuer: Option<String>,
}

fn shape(found: Option<IdentityRecord>) -> Json<PersonOidc> {
    let shape = |IdentityRecord { issuer, subject, created_at }| Identity { issuer, subject, since: created_at };
    Json(PersonOidc { identity: found.map(shape) })
}

/// Begins to sign somebody in at the identity provider: the answer sets a cookie and says where to go.
#[utoipa::path(post, path = "/sign-in/oidc", operation_id = "sign_in_oidc_begin", tag = "sign-in", request_body = BeginOidc, responses(
    (status = OK, body = BegunOidc),
    (status = "default", body = Problem),
))]
pub(super) async fn begin(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Body(body): Body<BeginOidc>,
) -> Result<Response, ApiError> {
    let (address, _) = browser_of(&parts)?;
    let to = body.to.as_deref().unwrap_or("/");
    let (url, token) = state.sign_ins.begin_oidc(&state.app, address, to).await?;
    let cookie = format!("{COOKIE}={}; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax", token.expose());
    let mut cookie = HeaderValue::try_from(cookie).map_err(ApiError::internal)?;
    cookie.set_sensitive(true);
    Ok(([(header::SET_COOKIE, cookie)], Json(BegunOidc { url })).into_response())
}

/// Where the identity provider sends the browser back to: signs the person in, and leads on into the web app. For nobody else.
#[utoipa::path(get, path = "/sign-in/oidc/callback", operation_id = "sign_in_oidc_callback", tag = "sign-in", params(OidcReturn), responses(
    (status = SEE_OTHER, description = "Into the web app; `?sign_in=` says why nobody was signed in"),
    (status = "default", body = Problem),
))]
pub(super) async fn callback(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Query(query): Query<OidcReturn>,
) -> Result<Response, ApiError> {
    let Some(Peer::Remote { address }) = parts.extensions.get::<Peer>().copied() else {
        return Err(ApiError::BadRequest("whoever is on the bastion's own socket is known already".to_owned()));
    };
    state.sign_ins.provider().ok_or(OidcError::NotSetUp)?;
    let answer = OidcAnswer {
        cookie: cookie_of(&parts.headers, COOKIE).map(WebToken::new),
        state: query.state,
        code: query.code,
        error: query.error,
        issuer: query.iss,
        address,
        browser: user_agent(&parts),
    };
    let mut headers = HeaderMap::new();
    headers.append(header::SET_COOKIE, COOKIE_ENDS);
    let to = match state.sign_ins.sign_in_by_oidc(&state.app, answer).await {
        Ok((_, token, to)) => {
            headers.append(header::SET_COOKIE, session_cookie(&state, &token)?);
            to
        }
        // A page that only says no would leave the person there.
        Err(error) => format!("/?sign_in={}", word(error)),
    };
    headers.insert(header::LOCATION, HeaderValue::try_from(to).map_err(ApiError::internal)?);
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// Why nobody was signed in, in one word for the page; the log has more.
fn word(error: SignInError) -> &'static str {
    match error {
        SignInError::Oidc(OidcError::NotBegun) => "again",
        SignInError::Oidc(OidcError::Refused) => "refused",
        error => {
            let problem = ApiError::from(error).into_problem();
            tracing::warn!(reference = problem.reference, detail = problem.detail, "Nobody could be signed in.");
            "away"
        }
    }
}

/// Who a person is at the identity provider.
#[utoipa::path(get, path = "/people/{name}/oidc", operation_id = "people_oidc_show", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = PersonOidc),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<PersonOidc>, ApiError> {
    Ok(shape(identities::find(&state.app, &name).await?))
}

/// Says who a person is at the identity provider, in place of what was said before.
#[utoipa::path(put, path = "/people/{name}/oidc", operation_id = "people_oidc_bind", tag = "people",
    params(("name" = String, Path)), request_body = BindOidc, responses(
    (status = OK, body = PersonOidc),
    (status = "default", body = Problem),
))]
pub(super) async fn bind(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    Body(body): Body<BindOidc>,
) -> Result<Json<PersonOidc>, ApiError> {
    let configured = || state.sign_ins.provider().map(|provider| provider.issuer().to_owned());
    let issuer = body.issuer.or_else(configured).ok_or_else(|| {
        ApiError::BadRequest("no identity provider is configured: say which `issuer` it is".to_owned())
    })?;
    let bound = identities::bind(&state.app, &may.actor(), &name, &issuer, &body.subject).await?;
    Ok(shape(Some(bound)))
}

/// Takes it away: the person can no longer sign in there, and is signed out.
#[utoipa::path(delete, path = "/people/{name}/oidc", operation_id = "people_oidc_unbind", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = PersonOidc),
    (status = "default", body = Problem),
))]
pub(super) async fn unbind(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<PersonOidc>, ApiError> {
    identities::unbind(&state.app, &may.actor(), &name).await?;
    Ok(shape(None))
}
