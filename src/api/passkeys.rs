//! `/me/passkeys`, `/people/{name}/passkeys` and `/sign-in/passkey`: key pairs in people's devices. Everybody adds their own, in
//! the browser that is signed in; an admin sees them and takes away what was lost.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use sallyport_domain::id::PasskeyId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::secret::WebToken;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Known, Look, May};
use super::bastion::Me;
use super::error::{ApiError, Problem};
use super::extract::{Body, Parts, Path};
use super::people::SentSecret;
use super::sign_in::{browser_of, signed_in};
use crate::app::sign_in::{PasskeyOffer, PasskeyRecord, passkeys};

/// A passkey of a person: not the key, which never leaves the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passkey {
    #[schema(value_type = String)]
    pub id: PasskeyId,
    /// What its person calls it.
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// What the browser is to be asked, within five minutes and once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct BegunPasskey {
    /// Comes back with the answer.
    pub challenge: String,
    /// For `PublicKeyCredential.parseCreationOptionsFromJSON`, or `parseRequestOptionsFromJSON` at signing in.
    #[schema(value_type = Object)]
    pub options: Value,
}

/// What the browser made.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPasskey {
    #[schema(value_type = String)]
    pub challenge: SentSecret,
    pub name: String,
    /// `PublicKeyCredential.toJSON()`
    #[schema(value_type = Object)]
    pub credential: Value,
}

/// What the browser answers.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasskeySignIn {
    #[schema(value_type = String)]
    pub challenge: SentSecret,
    /// `PublicKeyCredential.toJSON()`
    #[schema(value_type = Object)]
    pub credential: Value,
}

fn shape(passkey: PasskeyRecord) -> Passkey {
    let PasskeyRecord { id, name, created_at, last_used_at, .. } = passkey;
    Passkey { id, name, created_at, last_used_at }
}

fn shapes(passkeys: Vec<PasskeyRecord>) -> Json<Vec<Passkey>> {
    Json(passkeys.into_iter().map(shape).collect())
}

/// One's own passkeys, the oldest first.
#[utoipa::path(get, path = "/me/passkeys", operation_id = "own_passkeys", tag = "sign-in", responses(
    (status = OK, body = [Passkey]),
    (status = "default", body = Problem),
))]
pub(super) async fn list_own(may: May<Known>, State(state): State<ApiState>) -> Result<Json<Vec<Passkey>>, ApiError> {
    Ok(shapes(passkeys::list(&state.app, &may.person()?.name).await?))
}

/// Begins to add a passkey of one's own. For browsers that are signed in.
#[utoipa::path(post, path = "/me/passkeys/begin", operation_id = "own_passkeys_begin", tag = "sign-in", responses(
    (status = OK, body = BegunPasskey),
    (status = "default", body = Problem),
))]
pub(super) async fn begin_own(may: May<Known>, State(state): State<ApiState>) -> Result<Json<BegunPasskey>, ApiError> {
    let begun = state.sign_ins.begin_to_add_passkey(&state.app, may.person()?, may.web_session()).await?;
    let (challenge, options) = begun;
    Ok(Json(BegunPasskey { challenge: challenge.expose().to_owned(), options }))
}

/// Adds the passkey that the browser made.
#[utoipa::path(post, path = "/me/passkeys", operation_id = "own_passkeys_add", tag = "sign-in", request_body = AddPasskey, responses(
    (status = CREATED, body = Passkey),
    (status = "default", body = Problem),
))]
pub(super) async fn add_own(
    may: May<Known>,
    State(state): State<ApiState>,
    Body(body): Body<AddPasskey>,
) -> Result<(StatusCode, Json<Passkey>), ApiError> {
    let challenge = WebToken::new(body.challenge.into_text());
    let added = state.sign_ins.add_passkey(&state.app, may.person()?, &challenge, &body.name, body.credential).await?;
    Ok((StatusCode::CREATED, Json(shape(added))))
}

/// Removes a passkey of one's own, and signs one out of every other browser. Gives those that are left.
#[utoipa::path(delete, path = "/me/passkeys/{id}", operation_id = "own_passkeys_remove", tag = "sign-in",
    params(("id" = String, Path)), responses(
    (status = OK, body = [Passkey]),
    (status = "default", body = Problem),
))]
pub(super) async fn remove_own(
    may: May<Known>,
    State(state): State<ApiState>,
    Path(id): Path<PasskeyId>,
) -> Result<Json<Vec<Passkey>>, ApiError> {
    let name = &may.person()?.name;
    Ok(shapes(passkeys::remove(&state.app, &may.actor(), name, id, may.web_session()).await?))
}

/// A person's passkeys, the oldest first.
#[utoipa::path(get, path = "/people/{name}/passkeys", operation_id = "passkeys_list", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = [Passkey]),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<Vec<Passkey>>, ApiError> {
    Ok(shapes(passkeys::list(&state.app, &name).await?))
}

/// Removes a person's passkey, and signs them out of every browser. Gives those that are left.
#[utoipa::path(delete, path = "/people/{name}/passkeys/{id}", operation_id = "passkeys_remove", tag = "people",
    params(("name" = String, Path), ("id" = String, Path)), responses(
    (status = OK, body = [Passkey]),
    (status = "default", body = Problem),
))]
pub(super) async fn remove(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path((name, id)): Path<(PrincipalName, PasskeyId)>,
) -> Result<Json<Vec<Passkey>>, ApiError> {
    Ok(shapes(passkeys::remove(&state.app, &may.actor(), &name, id, None).await?))
}

/// Begins to sign somebody in by a passkey; the device says who it is.
#[utoipa::path(post, path = "/sign-in/passkey/begin", operation_id = "sign_in_passkey_begin", tag = "sign-in", responses(
    (status = OK, body = BegunPasskey),
    (status = "default", body = Problem),
))]
pub(super) async fn begin_sign_in(
    State(state): State<ApiState>,
    Parts(parts): Parts,
) -> Result<Json<BegunPasskey>, ApiError> {
    let (address, _) = browser_of(&parts)?;
    let (challenge, options) = state.sign_ins.begin_passkey(&state.app, address).await?;
    Ok(Json(BegunPasskey { challenge: challenge.expose().to_owned(), options }))
}

/// Signs a person in by a passkey: the answer sets a cookie. No code is asked for besides.
#[utoipa::path(post, path = "/sign-in/passkey", operation_id = "sign_in_passkey", tag = "sign-in", request_body = PasskeySignIn, responses(
    (status = OK, body = Me),
    (status = "default", body = Problem),
))]
pub(super) async fn sign_in(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Body(body): Body<PasskeySignIn>,
) -> Result<Response, ApiError> {
    let (address, browser) = browser_of(&parts)?;
    let challenge = WebToken::new(body.challenge.into_text());
    let offer = PasskeyOffer { challenge, credential: body.credential, address, browser };
    let (who, token) = state.sign_ins.sign_in_by_passkey(&state.app, offer).await?;
    signed_in(&state, who, &token)
}
