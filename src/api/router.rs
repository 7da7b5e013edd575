//! Every route, and what surrounds them: deadlines, size limits, answers to what is not there.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as OpenApiDocument;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::OverTls;
use super::error::ApiError;
use super::etags::{self, Conditional};
use super::extract::MOST_BODY_BYTES;
use super::idempotency::{self, Once};
use super::{
    ApiState, assets, audit, bastion, break_glass, commands, error, evidence, feed, files, grants, health, invites,
    keys, ledger, live, nodes, oidc, outbox, passkeys, people, probes, recordings, replay, requests, retention,
    reviews, rotations, search, second_factors, sessions, sign_in, targets, templates, tokens, watch,
};
use crate::app::metrics::timed;
use crate::app::replay::Looks;
use crate::spans;

/// A handler has this long until its answer begins; a stream may go on for longer.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sallyport",
        description = "The audited SSH bastion's API. Errors are `application/problem+json` (RFC 9457). Instants are RFC 3339 in UTC.",
        license(name = "Apache-2.0"),
    ),
    components(schemas(error::Problem))
)]
struct Document;

fn routes() -> OpenApiRouter<ApiState> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(bastion::show))
        .routes(routes!(nodes::list))
        .routes(routes!(bastion::me))
        .routes(routes!(bastion::known_hosts))
        .routes(routes!(bastion::known_targets))
        .routes(routes!(sign_in::ways, sign_in::sign_in))
        .routes(routes!(sign_in::sign_out))
        .routes(routes!(sign_in::list_own))
        .routes(routes!(sign_in::end_own))
        .routes(routes!(sign_in::end_others))
        .routes(routes!(sign_in::list, sign_in::end_all))
        .routes(routes!(oidc::begin))
        .routes(routes!(oidc::callback))
        .routes(routes!(oidc::show, oidc::bind, oidc::unbind))
        .routes(routes!(passkeys::begin_sign_in))
        .routes(routes!(passkeys::sign_in))
        .routes(routes!(passkeys::list_own, passkeys::add_own))
        .routes(routes!(passkeys::begin_own))
        .routes(routes!(passkeys::remove_own))
        .routes(routes!(passkeys::list))
        .routes(routes!(passkeys::remove))
        .routes(routes!(invites::look))
        .routes(routes!(invites::accept))
        .routes(routes!(invites::begin_passkey))
        .routes(routes!(invites::accept_by_passkey))
        .routes(routes!(invites::list, invites::make))
        .routes(routes!(invites::revoke))
        .routes(routes!(people::list, people::add))
        .routes(routes!(people::show))
        .routes(routes!(people::add_key))
        .routes(routes!(people::remove_key))
        .routes(routes!(people::set_password, people::remove_password))
        .routes(routes!(people::set_roles))
        .routes(routes!(people::set_organisation))
        .routes(routes!(people::disable))
        .routes(routes!(people::enable))
        .routes(routes!(second_factors::show, second_factors::begin, second_factors::reset))
        .routes(routes!(second_factors::confirm))
        .routes(routes!(second_factors::show_own, second_factors::begin_own))
        .routes(routes!(second_factors::confirm_own))
        .routes(routes!(targets::list, targets::add))
        .routes(routes!(targets::scan))
        .routes(routes!(targets::show, targets::change))
        .routes(routes!(targets::disable))
        .routes(routes!(targets::enable))
        .routes(routes!(rotations::rotate))
        .routes(routes!(rotations::schedule))
        .routes(routes!(grants::list, grants::make))
        .routes(routes!(grants::list_own))
        .routes(routes!(grants::preview))
        .routes(routes!(grants::show))
        .routes(routes!(grants::extend))
        .routes(routes!(grants::revoke))
        .routes(routes!(break_glass::list, break_glass::make))
        .routes(routes!(break_glass::open))
        .routes(routes!(break_glass::revoke))
        .routes(routes!(templates::list, templates::make))
        .routes(routes!(templates::show, templates::change, templates::remove))
        .routes(routes!(requests::list, requests::make))
        .routes(routes!(requests::show))
        .routes(routes!(requests::approve))
        .routes(routes!(requests::deny))
        .routes(routes!(requests::withdraw))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::show))
        .routes(routes!(sessions::cut))
        .routes(routes!(sessions::hold))
        .routes(routes!(sessions::release))
        .routes(routes!(sessions::message))
        .routes(routes!(watch::watch, watch::beat))
        .routes(routes!(files::list))
        .routes(routes!(commands::list))
        .routes(routes!(search::find))
        .routes(routes!(recordings::show))
        .routes(routes!(replay::index))
        .routes(routes!(replay::segment))
        .routes(routes!(replay::frames))
        .routes(routes!(replay::stored))
        .routes(routes!(evidence::of_grant))
        .routes(routes!(evidence::of_session))
        .routes(routes!(reviews::list))
        .routes(routes!(reviews::summary))
        .routes(routes!(reviews::show))
        .routes(routes!(reviews::report))
        .routes(routes!(reviews::flag))
        .routes(routes!(reviews::note))
        .routes(routes!(reviews::sign_off))
        .routes(routes!(retention::ask))
        .routes(routes!(retention::list))
        .routes(routes!(retention::show))
        .routes(routes!(retention::approve))
        .routes(routes!(retention::refuse))
        .routes(routes!(retention::set_hold, retention::list_holds))
        .routes(routes!(retention::release_hold))
        .routes(routes!(live::live))
        .routes(routes!(feed::live))
        .routes(routes!(audit::list))
        .routes(routes!(ledger::show))
        .routes(routes!(ledger::keys))
        .routes(routes!(ledger::checkpoint))
        .routes(routes!(ledger::inclusion))
        .routes(routes!(ledger::consistency))
        .routes(routes!(ledger::tile))
        .routes(routes!(keys::list))
        .routes(routes!(keys::rotate_ledger))
        .routes(routes!(keys::rotate_master))
        .routes(routes!(keys::stage))
        .routes(routes!(keys::activate))
        .routes(routes!(keys::retire))
        .routes(routes!(outbox::list))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke));
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", v1)
}

/// The `OpenAPI` document, built from the code.
pub fn openapi() -> OpenApiDocument {
    let mut document = routes().into_openapi();
    idempotency::describe(&mut document);
    etags::describe(&mut document);
    document
}

/// Every operation of the document, by its method and path.
pub(super) fn operations(document: &mut OpenApiDocument) -> impl Iterator<Item = (Method, &str, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let all = [
            (Method::GET, get),
            (Method::PUT, put),
            (Method::POST, post),
            (Method::DELETE, delete),
            (Method::PATCH, patch),
        ];
        all.into_iter().filter_map(|(method, operation)| Some((method, path.as_str(), operation.as_mut()?)))
    })
}

/// The whole API as a service; its requests carry a [`super::access::Peer`].
pub(super) fn router(state: ApiState) -> Router {
    let (router, mut document) = routes().split_for_parts();
    let once = Once::new(state.clone(), &mut document);
    let conditional = Conditional::new(&mut document);
    router
        .merge(probes::guarded())
        .fallback(assets::serve)
        .method_not_allowed_fallback(async |request: Request| ApiError::MethodNotAllowed {
            method: request.method().to_string(),
        })
        .layer(from_fn_with_state(once, idempotency::once))
        .layer(from_fn(etags::tag))
        .layer(from_fn_with_state(conditional, etags::refuse))
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), in_time))
        .layer(Extension(Looks::default()))
        .with_state(state)
}

/// What every answer says to a browser. The player compiles WebAssembly; nothing else runs that is not a file of ours, nothing
/// is loaded from elsewhere, and nobody puts our pages into theirs.
const SECURITY: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// Gives a handler its deadline, and its answer the headers that all of them have.
async fn in_time(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let over_tls = request.extensions().get::<OverTls>().is_some();
    // The web app's files, probes and what is not there are nothing to look at.
    let route = request.extensions().get::<MatchedPath>().filter(|route| route.as_str().starts_with("/api/"));
    let span = route.map(|route| spans::request(word(request.method()), route.as_str()));
    let answer = tokio::time::timeout(ANSWER_DEADLINE, next.run(request));
    let mut response = match timed(&state.app.metrics.http_request_seconds, answer).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::TimedOut.into_response(),
    };
    if let Some(span) = span {
        span.status(response.status().as_u16());
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if over_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// A method's name, if it is one that there is: the client may send any word.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}
