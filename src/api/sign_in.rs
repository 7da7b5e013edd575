//! `/sign-in`, `/sign-out`, `/me/web-sessions`: the web app's way in. What proves the browser from then on is a cookie that no script
//! reads and no other site sends; what changes something takes a header besides, which no other site can set.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use sallyport_domain::id::WebSessionId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::secret::{PrincipalPassword, VerificationCode, WebToken};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Known, Look, May, Peer};
use super::bastion::Me;
use super::error::{ApiError, Problem};
use super::extract::{Body, Parts as RequestParts, Path};
use crate::app::sign_in::{Offer, SignedIn, WebSessionRecord};

/// `__Host-` (RFC 6265bis §4.1.3): secure, for this host alone, for every path.
const COOKIE: &str = "__Host-sallyport";
/// What every change asked for by our pages carries.
const OUR_HEADER: &str = "x-sallyport";

/// What a person signs in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    pub name: String,
    #[schema(format = "password")]
    pub password: String,
    /// A code of the authenticator, or a recovery code; a problem of the type `urn:sallyport:code_needed` asks for it.
    #[serde(default)]
    pub code: Option<String>,
}

/// What to sign out of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignOut {
    /// Every browser, not this one alone.
    #[serde(default)]
    pub everywhere: bool,
}

/// What was signed out of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SignedOut {
    pub browsers: u64,
}

/// The ways in besides a name and a password.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SignInWays {
    pub passkeys: bool,
    /// What people call the identity provider, if there is one.
    pub oidc: Option<String>,
}

/// A browser in which a person is signed in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WebSession {
    #[schema(value_type = String)]
    pub id: WebSessionId,
    /// Whether it is the one that asks.
    pub is_this: bool,
    /// From where it was begun.
    pub address: String,
    /// What the browser said of itself; not to be trusted.
    pub browser: String,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    /// However much it is used, it ends then.
    pub not_after: DateTime<Utc>,
}

/// Signs a person in: the answer sets a cookie. For browsers; programs use tokens.
#[utoipa::path(post, path = "/sign-in", operation_id = "sign_in", tag = "sign-in", request_body = SignIn, responses(
    (status = OK, body = Me),
    (status = "default", body = Problem),
))]
pub(super) async fn sign_in(
    State(state): State<ApiState>,
    RequestParts(parts): RequestParts,
    Body(body): Body<SignIn>,
) -> Result<Response, ApiError> {
    let (address, browser) = browser_of(&parts)?;
    let offer = Offer {
        name: body.name,
        password: PrincipalPassword::new(body.password),
        code: body.code.filter(|code| !code.trim().is_empty()).map(VerificationCode::new),
        address,
        browser,
    };
    let (who, token) = state.sign_ins.sign_in(&state.app, offer).await?;
    signed_in(&state, who, &token)
}

/// Which ways in there are besides a name and a password.
#[utoipa::path(get, path = "/sign-in", operation_id = "sign_in_ways", tag = "sign-in", responses(
    (status = OK, body = SignInWays),
    (status = "default", body = Problem),
))]
pub(super) async fn ways(State(state): State<ApiState>) -> Json<SignInWays> {
    let oidc = state.sign_ins.provider().map(|provider| provider.label().to_owned());
    Json(SignInWays { passkeys: state.sign_ins.has_passkeys(), oidc })
}

/// From where a browser with our page in it asks, and what it says of itself.
pub(super) fn browser_of(parts: &Parts) -> Result<(SocketAddr, String), ApiError> {
    let Some(Peer::Remote { address }) = parts.extensions.get::<Peer>().copied() else {
        return Err(ApiError::BadRequest("whoever is on the bastion's own socket is known already".to_owned()));
    };
    is_our_page(parts)?;
    Ok((address, user_agent(parts)))
}

/// What the browser says of itself.
pub(super) fn user_agent(parts: &Parts) -> String {
    let said = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    said.unwrap_or_default().to_owned()
}

/// The answer to whoever was signed in: the cookie, and who they are.
pub(super) fn signed_in(state: &ApiState, who: SignedIn, token: &WebToken) -> Result<Response, ApiError> {
    let cookie = session_cookie(state, token)?;
    let me = Me::Person { name: who.principal.name, roles: who.principal.roles };
    Ok(([(header::SET_COOKIE, cookie)], Json(me)).into_response())
}

/// The cookie of somebody who is signed in.
pub(super) fn session_cookie(state: &ApiState, token: &WebToken) -> Result<HeaderValue, ApiError> {
    let seconds = state.sign_ins.longest().as_secs();
    let cookie = format!("{COOKIE}={}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict", token.expose());
    let mut cookie = HeaderValue::try_from(cookie).map_err(ApiError::internal)?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

/// Signs the person out of this browser, or of all.
#[utoipa::path(post, path = "/sign-out", operation_id = "sign_out", tag = "sign-in", request_body = SignOut, responses(
    (status = OK, body = SignedOut),
    (status = "default", body = Problem),
))]
pub(super) async fn sign_out(
    may: May<Known>,
    State(state): State<ApiState>,
    Body(body): Body<SignOut>,
) -> Result<Response, ApiError> {
    let browsers = match (body.everywhere, may.web_session()) {
        (true, _) => state.sign_ins.sign_out(&state.app, may.person()?, None).await?,
        (false, Some(this)) => state.sign_ins.sign_out(&state.app, may.person()?, Some(this)).await?,
        (false, None) => 0, // a token is not signed in anywhere
    };
    let gone = HeaderValue::from_static("__Host-sallyport=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    Ok(([(header::SET_COOKIE, gone)], Json(SignedOut { browsers })).into_response())
}

/// Where the caller is signed in, the newest first.
#[utoipa::path(get, path = "/me/web-sessions", operation_id = "own_web_sessions", tag = "sign-in", responses(
    (status = OK, body = [WebSession]),
    (status = "default", body = Problem),
))]
pub(super) async fn list_own(
    may: May<Known>,
    State(state): State<ApiState>,
) -> Result<Json<Vec<WebSession>>, ApiError> {
    let found = state.sign_ins.list(&state.app, may.person()?).await?;
    Ok(shapes(found, may.web_session()))
}

fn shapes(found: Vec<WebSessionRecord>, this: Option<WebSessionId>) -> Json<Vec<WebSession>> {
    let shape = |record: WebSessionRecord| WebSession {
        is_this: this == Some(record.id),
        id: record.id,
        address: record.address,
        browser: record.browser,
        created_at: record.created_at,
        last_seen_at: record.last_seen_at,
        not_after: record.not_after,
    };
    Json(found.into_iter().map(shape).collect())
}

/// Signs the caller out of one browser. Gives those that are left.
#[utoipa::path(delete, path = "/me/web-sessions/{id}", operation_id = "own_web_sessions_end", tag = "sign-in",
    params(("id" = String, Path)), responses(
    (status = OK, body = [WebSession]),
    (status = "default", body = Problem),
))]
pub(super) async fn end_own(
    may: May<Known>,
    State(state): State<ApiState>,
    Path(id): Path<WebSessionId>,
) -> Result<Json<Vec<WebSession>>, ApiError> {
    let person = may.person()?;
    if state.sign_ins.sign_out(&state.app, person, Some(id)).await? == 0 {
        return Err(ApiError::NotFound(format!("you are not signed in as {id}")));
    }
    Ok(shapes(state.sign_ins.list(&state.app, person).await?, may.web_session()))
}

/// Signs the caller out of every browser but the one that asks.
#[utoipa::path(post, path = "/me/web-sessions/end-others", operation_id = "own_web_sessions_end_others", tag = "sign-in", responses(
    (status = OK, body = SignedOut),
    (status = "default", body = Problem),
))]
pub(super) async fn end_others(may: May<Known>, State(state): State<ApiState>) -> Result<Json<SignedOut>, ApiError> {
    let browsers = state.sign_ins.sign_out_others(&state.app, may.person()?, may.web_session()).await?;
    Ok(Json(SignedOut { browsers }))
}

/// Where a person is signed in, the newest first.
#[utoipa::path(get, path = "/people/{name}/web-sessions", operation_id = "web_sessions_list", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = [WebSession]),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<Vec<WebSession>>, ApiError> {
    Ok(shapes(state.sign_ins.list_of(&state.app, &name).await?, may.web_session()))
}

/// Signs a person out of every browser.
#[utoipa::path(delete, path = "/people/{name}/web-sessions", operation_id = "web_sessions_end", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = SignedOut),
    (status = "default", body = Problem),
))]
pub(super) async fn end_all(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<SignedOut>, ApiError> {
    let browsers = state.sign_ins.sign_out_person(&state.app, &may.actor(), &name).await?;
    Ok(Json(SignedOut { browsers }))
}

/// What the cookie holds, if there is one.
pub(super) fn token(headers: &HeaderMap) -> Option<WebToken> {
    cookie_of(headers, COOKIE).map(WebToken::new)
}

/// The value of the cookie of this name.
pub(super) fn cookie_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// Refuses what another site makes a browser ask with our cookie: by where the browser says the request comes from
/// (Fetch Metadata, and `Origin`), and for changes by a header that no other site can set without our leave (CORS), which
/// nobody has.
pub(super) fn is_our_page(parts: &Parts) -> Result<(), ApiError> {
    let refuse =
        |why: &str| Err(ApiError::Forbidden(format!("this does not come from the bastion's own pages: {why}")));
    let text = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return refuse("another site asks");
    }
    let host = text("host").or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str));
    if let Some(origin) = text("origin") {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        if authority.is_none() || !authority.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host)) {
            return refuse("`Origin` is another one");
        }
    }
    let is_change = !matches!(parts.method, Method::GET | Method::HEAD);
    let is_socket = text("upgrade").is_some();
    if is_change && text(OUR_HEADER).is_none() {
        return refuse("the header `X-Sallyport` is missing");
    }
    if is_socket && text("origin").is_none() {
        return refuse("`Origin` is missing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn asks(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/api/v1/me").header("host", "bastion.example:8443");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_our_page(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn only_our_own_pages_change_something_with_the_cookie() {
        let ours = ("x-sallyport", "1");
        let own = ("origin", "https://bastion.example:8443");

        assert!(asks("GET", &[]));
        assert!(asks("GET", &[("sec-fetch-site", "none")]));
        assert!(asks("POST", &[ours, own, ("sec-fetch-site", "same-origin")]));
        assert!(asks("GET", &[("upgrade", "websocket"), own]));

        assert!(!asks("POST", &[own]));
        assert!(!asks("DELETE", &[]));
        for site in ["cross-site", "same-site", "\u{e9}"] {
            assert!(!asks("GET", &[("sec-fetch-site", site)]), "{site}");
        }
        for origin in
            ["null", "https://bastion.example", "https://evil.example", "https://bastion.example:8443.evil.example"]
        {
            assert!(!asks("POST", &[ours, ("origin", origin)]), "{origin}");
        }
        assert!(!asks("GET", &[("upgrade", "websocket")]));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=b; x__Host-sallyport=no"));
        headers.append("cookie", HeaderValue::from_static("c=d; __Host-sallyport=yes"));

        assert_eq!(token(&headers).unwrap().expose(), "yes");
        assert!(token(&HeaderMap::new()).is_none());
    }
}
