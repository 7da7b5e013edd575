//! `/people/{name}/invites` and `/invite`: links by which people give their first key or make a passkey. An admin makes them; whoever
//! has one needs nothing else. The token comes in bodies alone: addresses get into logs.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::id::InviteId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::secret::{InviteToken, WebToken};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Body, Parts, Path};
use super::passkeys::BegunPasskey;
use super::people::{PersonRef, SentSecret, parse_key};
use super::sign_in::browser_of;
use crate::app::invites::{self, InviteRecord};
use crate::app::known_hosts;
use crate::app::sign_in::MadePasskey;

/// An invite; never its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invite {
    #[schema(value_type = String)]
    pub id: InviteId,
    pub person: PersonRef,
    pub state: InviteState,
    pub created_at: DateTime<Utc>,
    /// The first instant at which it opens nothing any more.
    pub not_after: DateTime<Utc>,
    pub used_at: Option<DateTime<Utc>>,
    /// What came by it: a key's fingerprint, or a passkey's id.
    pub added: Option<String>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// What became of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InviteState {
    Open,
    Used,
    Ended,
    Revoked,
}

impl InviteState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            InviteState::Open => "open",
            InviteState::Used => "used",
            InviteState::Ended => "ended",
            InviteState::Revoked => "revoked",
        }
    }
}

/// An invite to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeInvite {
    /// The first instant at which it opens nothing any more, 14 days from now at the latest; in a day if it is left out.
    #[serde(default)]
    pub not_after: Option<DateTime<Utc>>,
}

/// A new invite with its token, which is shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeInvite {
    #[serde(flatten)]
    pub invite: Invite,
    pub token: String,
    /// What the person opens; absent while it is not known where people open the web app (`api.public_url`). It is that address,
    /// `/invite#` and the token.
    pub link: Option<String>,
}

/// The token of an invite's link.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShownInvite {
    #[schema(value_type = String, format = Password)]
    pub token: SentSecret,
}

/// A first key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInvite {
    #[schema(value_type = String, format = Password)]
    pub token: SentSecret,
    /// One line, as in `authorized_keys`.
    pub public_key: String,
}

/// What the browser made.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInviteByPasskey {
    #[schema(value_type = String, format = Password)]
    pub token: SentSecret,
    #[schema(value_type = String)]
    pub challenge: SentSecret,
    /// What its person will know it by.
    pub name: String,
    /// `PublicKeyCredential.toJSON()`
    #[schema(value_type = Object)]
    pub credential: Value,
}

/// Whom an invite is for, and what they need to know to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    #[schema(value_type = String)]
    pub person: PrincipalName,
    /// The first instant at which the invite opens nothing any more.
    pub not_after: DateTime<Utc>,
    /// The host name that people connect to.
    pub ssh_host: String,
    pub ssh_port: u16,
    /// The bastion's own line for `known_hosts`.
    pub known_host: String,
}

fn shape(record: InviteRecord, now: DateTime<Utc>) -> Invite {
    let state = match (&record.used, record.revoked_at) {
        (Some(_), _) => InviteState::Used,
        (None, Some(_)) => InviteState::Revoked,
        (None, None) if record.not_after <= now => InviteState::Ended,
        (None, None) => InviteState::Open,
    };
    let (used_at, added) = record.used.unzip();
    Invite {
        id: record.id,
        person: PersonRef { id: record.principal, name: record.principal_name },
        state,
        created_at: record.created_at,
        not_after: record.not_after,
        used_at,
        added,
        revoked_at: record.revoked_at,
    }
}

fn shapes(state: &ApiState, records: Vec<InviteRecord>) -> Json<Vec<Invite>> {
    let now = state.app.clock.now();
    Json(records.into_iter().map(|record| shape(record, now)).collect())
}

fn invitation(state: &ApiState, invite: InviteRecord) -> Json<Invitation> {
    let bastion = state.bastion.as_ref();
    Json(Invitation {
        person: invite.principal_name,
        not_after: invite.not_after,
        ssh_host: bastion.ssh_host.clone(),
        ssh_port: bastion.ssh_port,
        known_host: known_hosts::bastion(&bastion.ssh_host, bastion.ssh_port, &bastion.host_key),
    })
}

/// From where somebody comes with a token.
fn come(parts: &axum::http::request::Parts, token: SentSecret) -> Result<(InviteToken, SocketAddr), ApiError> {
    let (address, _) = browser_of(parts)?;
    Ok((InviteToken::new(token.into_text()), address))
}

/// A person's invites, the newest first, a hundred at most.
#[utoipa::path(get, path = "/people/{name}/invites", operation_id = "invites_list", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = [Invite]),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<Vec<Invite>>, ApiError> {
    let invites = invites::list(&state.app, &name).await?;
    Ok(shapes(&state, invites))
}

/// Makes an invite: whoever has its link may give the person one public key, or make them one passkey. One that was open is taken
/// back.
#[utoipa::path(post, path = "/people/{name}/invites", operation_id = "invites_make", tag = "people",
    params(("name" = String, Path)), request_body = MakeInvite, responses(
    (status = CREATED, body = MadeInvite),
    (status = "default", body = Problem),
))]
pub(super) async fn make(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    Body(body): Body<MakeInvite>,
) -> Result<(StatusCode, Json<MadeInvite>), ApiError> {
    let (record, token) = invites::make(&state.app, &may.actor(), &name, body.not_after).await?;
    let invite = shape(record, state.app.clock.now());
    let link = state.sign_ins.invite_link(&token);
    Ok((StatusCode::CREATED, Json(MadeInvite { invite, token: token.expose().to_owned(), link })))
}

/// Takes back an invite that is open. Gives what the list does.
#[utoipa::path(delete, path = "/people/{name}/invites/{id}", operation_id = "invites_revoke", tag = "people",
    params(("name" = String, Path), ("id" = String, Path)), responses(
    (status = OK, body = [Invite]),
    (status = "default", body = Problem),
))]
pub(super) async fn revoke(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path((name, id)): Path<(PrincipalName, InviteId)>,
) -> Result<Json<Vec<Invite>>, ApiError> {
    let invites = invites::revoke(&state.app, &may.actor(), &name, id).await?;
    Ok(shapes(&state, invites))
}

/// Whom an invite is for. One that is unknown, was used or taken back, or has ended is not found.
#[utoipa::path(post, path = "/invite", operation_id = "invite_look", tag = "sign-in", request_body = ShownInvite, responses(
    (status = OK, body = Invitation),
    (status = "default", body = Problem),
))]
pub(super) async fn look(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Body(body): Body<ShownInvite>,
) -> Result<Json<Invitation>, ApiError> {
    let (token, address) = come(&parts, body.token)?;
    let invite = state.sign_ins.look_at_invite(&state.app, &token, address).await?;
    Ok(invitation(&state, invite))
}

/// Adds a public key to the person whom the invite is for, and uses it up.
#[utoipa::path(post, path = "/invite/key", operation_id = "invite_accept", tag = "sign-in", request_body = AcceptInvite, responses(
    (status = OK, body = Invitation),
    (status = "default", body = Problem),
))]
pub(super) async fn accept(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Body(body): Body<AcceptInvite>,
) -> Result<Json<Invitation>, ApiError> {
    let (token, address) = come(&parts, body.token)?;
    let key = parse_key(&body.public_key)?;
    let invite = state.sign_ins.accept_invite(&state.app, &token, &key, address).await?;
    Ok(invitation(&state, invite))
}

/// Begins to make a passkey for the person whom the invite is for.
#[utoipa::path(post, path = "/invite/passkey/begin", operation_id = "invite_passkey_begin", tag = "sign-in",
    request_body = ShownInvite, responses(
    (status = OK, body = BegunPasskey),
    (status = "default", body = Problem),
))]
pub(super) async fn begin_passkey(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Body(body): Body<ShownInvite>,
) -> Result<Json<BegunPasskey>, ApiError> {
    let (token, address) = come(&parts, body.token)?;
    let (challenge, options) = state.sign_ins.begin_invited_passkey(&state.app, &token, address).await?;
    Ok(Json(BegunPasskey { challenge: challenge.expose().to_owned(), options }))
}

/// Adds the passkey that the browser made to the person whom the invite is for, and uses it up.
#[utoipa::path(post, path = "/invite/passkey", operation_id = "invite_passkey", tag = "sign-in",
    request_body = AcceptInviteByPasskey, responses(
    (status = OK, body = Invitation),
    (status = "default", body = Problem),
))]
pub(super) async fn accept_by_passkey(
    State(state): State<ApiState>,
    Parts(parts): Parts,
    Body(body): Body<AcceptInviteByPasskey>,
) -> Result<Json<Invitation>, ApiError> {
    let (token, address) = come(&parts, body.token)?;
    let challenge = WebToken::new(body.challenge.into_text());
    let made = MadePasskey { challenge, name: body.name, credential: body.credential };
    let invite = state.sign_ins.accept_invite_by_passkey(&state.app, &token, made, address).await?;
    Ok(invitation(&state, invite))
}
