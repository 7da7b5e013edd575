//! `/people/{name}/totp` and `/me/totp`: codes that a login asks for besides the first factor (RFC 6238). Everybody
//! enrols for themselves; an admin enrols others at their side, and takes away what was lost.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::name::PrincipalName;
use sallyport_domain::secret::VerificationCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Known, Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Body, Path};
use super::people::SentSecret;
use crate::app::second_factor::{self, Status};

/// Where a person's verification codes stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totp {
    pub state: TotpState,
    /// When it was begun, or confirmed.
    pub since: Option<DateTime<Utc>>,
    pub recovery_codes_left: u32,
    /// Too many wrong codes were tried: none is taken until then.
    pub locked_until: Option<DateTime<Utc>>,
}

/// How far an enrolment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TotpState {
    None,
    /// The secret was shown, and no code of it yet: logins do not ask for one.
    Begun,
    Enrolled,
}

impl TotpState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            TotpState::None => "none",
            TotpState::Begun => "begun",
            TotpState::Enrolled => "enrolled",
        }
    }
}

/// What the person's authenticator is to know; shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct BegunTotp {
    /// In base 32, for typing.
    pub secret: String,
    /// For a QR code: `otpauth://totp/…`.
    pub uri: String,
}

/// The first code, which shows that the authenticator has the secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTotp {
    #[schema(value_type = String)]
    pub code: SentSecret,
}

/// Codes for the day on which the authenticator is lost, each for one login; shown this once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct RecoveryCodes {
    pub recovery_codes: Vec<String>,
}

fn shape(status: Status) -> Totp {
    match status {
        Status::None => Totp { state: TotpState::None, since: None, recovery_codes_left: 0, locked_until: None },
        Status::Begun { at } => {
            Totp { state: TotpState::Begun, since: Some(at), recovery_codes_left: 0, locked_until: None }
        }
        Status::Enrolled { at, recovery_codes_left, locked_until } => {
            Totp { state: TotpState::Enrolled, since: Some(at), recovery_codes_left, locked_until }
        }
    }
}

async fn begin_for(state: &ApiState, name: &PrincipalName) -> Result<(StatusCode, Json<BegunTotp>), ApiError> {
    let begun = second_factor::begin(&state.app, name).await?;
    let body = BegunTotp { secret: begun.secret.expose().to_owned(), uri: begun.uri.expose().to_owned() };
    Ok((StatusCode::CREATED, Json(body)))
}

async fn confirm_for<C>(
    may: &May<C>,
    state: &ApiState,
    name: &PrincipalName,
    body: ConfirmTotp,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let code = VerificationCode::new(body.code.into_text());
    let codes = second_factor::confirm(&state.app, &may.actor(), name, &code).await?;
    Ok(Json(RecoveryCodes { recovery_codes: codes.iter().map(|code| code.expose().to_owned()).collect() }))
}

/// Where a person's verification codes stand.
#[utoipa::path(get, path = "/people/{name}/totp", operation_id = "totp_show", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = Totp),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<Totp>, ApiError> {
    Ok(Json(shape(second_factor::status(&state.app, &name).await?)))
}

/// Begins to enrol a person: makes a secret. It counts once a code of it was confirmed.
#[utoipa::path(post, path = "/people/{name}/totp", operation_id = "totp_begin", tag = "people",
    params(("name" = String, Path)), responses(
    (status = CREATED, body = BegunTotp),
    (status = "default", body = Problem),
))]
pub(super) async fn begin(
    _may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<(StatusCode, Json<BegunTotp>), ApiError> {
    begin_for(&state, &name).await
}

/// Confirms by a first code: from now on logins ask for one.
#[utoipa::path(post, path = "/people/{name}/totp/confirm", operation_id = "totp_confirm", tag = "people",
    params(("name" = String, Path)), request_body = ConfirmTotp, responses(
    (status = OK, body = RecoveryCodes),
    (status = "default", body = Problem),
))]
pub(super) async fn confirm(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    Body(body): Body<ConfirmTotp>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    confirm_for(&may, &state, &name, body).await
}

/// Takes a person's codes and recovery codes away: logins no longer ask for any.
#[utoipa::path(delete, path = "/people/{name}/totp", operation_id = "totp_reset", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = Totp),
    (status = "default", body = Problem),
))]
pub(super) async fn reset(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<Totp>, ApiError> {
    second_factor::reset(&state.app, &may.actor(), &name).await?;
    Ok(Json(shape(second_factor::status(&state.app, &name).await?)))
}

/// Where one's own verification codes stand.
#[utoipa::path(get, path = "/me/totp", operation_id = "own_totp_show", tag = "people", responses(
    (status = OK, body = Totp),
    (status = "default", body = Problem),
))]
pub(super) async fn show_own(may: May<Known>, State(state): State<ApiState>) -> Result<Json<Totp>, ApiError> {
    Ok(Json(shape(second_factor::status(&state.app, &may.person()?.name).await?)))
}

/// Begins to enrol oneself.
#[utoipa::path(post, path = "/me/totp", operation_id = "own_totp_begin", tag = "people", responses(
    (status = CREATED, body = BegunTotp),
    (status = "default", body = Problem),
))]
pub(super) async fn begin_own(
    may: May<Known>,
    State(state): State<ApiState>,
) -> Result<(StatusCode, Json<BegunTotp>), ApiError> {
    begin_for(&state, &may.person()?.name).await
}

/// Confirms one's own enrolment by a first code.
#[utoipa::path(post, path = "/me/totp/confirm", operation_id = "own_totp_confirm", tag = "people",
    request_body = ConfirmTotp, responses(
    (status = OK, body = RecoveryCodes),
    (status = "default", body = Problem),
))]
pub(super) async fn confirm_own(
    may: May<Known>,
    State(state): State<ApiState>,
    Body(body): Body<ConfirmTotp>,
) -> Result<Json<RecoveryCodes>, ApiError> {
    let name = &may.person()?.name;
    confirm_for(&may, &state, name, body).await
}
