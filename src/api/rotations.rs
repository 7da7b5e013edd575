//! `/targets/{name}/rotate`: other keys for the accounts that the bastion logs in to with a stored one.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use sallyport_domain::name::{Login, TargetName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Administer, May};
use super::error::{ApiError, Problem};
use super::extract::{Body, Path};
use super::{ApiState, RotateFailure};
use crate::app::credential_rotation::{self, USUAL_FILE};

/// How long the answer waits; what takes longer goes on without it.
const PATIENCE: Duration = Duration::from_secs(25);

/// Which keys are to be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RotateTarget {
    /// The account; every one with a stored key where it is left out.
    #[schema(value_type = Option<String>)]
    pub login: Option<Login>,
    /// The account's file of keys at the target, from its home on; `.ssh/authorized_keys` where it is left out.
    pub authorized_keys: Option<String>,
}

/// What came of it for one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotatedLogin {
    #[schema(value_type = String)]
    pub login: Login,
    /// The new key's fingerprint, if the new one is in use and the old one is proved dead.
    pub key: Option<String>,
    /// What went wrong, and which key is in use. The next try goes on from there.
    pub error: Option<String>,
}

/// When a key is to be replaced again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRotation {
    #[schema(value_type = String)]
    pub login: Login,
    /// Seconds from one time to the next, 60 or more; `null` ends it.
    pub every_s: Option<u64>,
    /// The account's file of keys at the target, as for one time.
    #[serde(default)]
    pub authorized_keys: Option<String>,
}

/// When a key is replaced next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RotationSchedule {
    #[schema(value_type = String)]
    pub login: Login,
    pub every_s: Option<u64>,
    pub next_at: Option<DateTime<Utc>>,
}

fn file(given: Option<String>) -> String {
    given.unwrap_or_else(|| USUAL_FILE.to_owned())
}

/// Replaces stored keys: the new one is installed with the old one, proved by a login, and stored; then the old one is taken away, and
/// proved dead. Whatever fails, what is stored works.
#[utoipa::path(post, path = "/targets/{name}/rotate", operation_id = "targets_rotate", tag = "targets",
    params(("name" = String, Path)), request_body = RotateTarget, responses(
    (status = OK, body = Vec<RotatedLogin>),
    (status = "default", body = Problem),
))]
pub(super) async fn rotate(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TargetName>,
    Body(RotateTarget { login, authorized_keys }): Body<RotateTarget>,
) -> Result<Json<Vec<RotatedLogin>>, ApiError> {
    let logins = match login {
        Some(login) => vec![login],
        None => credential_rotation::accounts(&state.app, &name).await?,
    };
    if logins.is_empty() {
        return Err(ApiError::Conflict(format!("no account of `{name}` has a stored key")));
    }
    let (deadline, file) = (tokio::time::Instant::now() + PATIENCE, file(authorized_keys));
    let mut all = Vec::new();
    for login in logins {
        let rotating = (state.rotate)(may.actor(), name.clone(), login.clone(), file.clone());
        let (key, error) = match tokio::time::timeout_at(deadline, rotating).await {
            Ok(Ok(key)) => (Some(key), None),
            Ok(Err(RotateFailure::Books(error))) if all.is_empty() => return Err(error.into()),
            Ok(Err(RotateFailure::Books(error))) => (None, Some(error.to_string())),
            Ok(Err(RotateFailure::Step(error))) => (None, Some(error)),
            Err(_elapsed) => {
                (None, Some("it goes on; its events (`credential_rotation`) tell what comes of it".to_owned()))
            }
        };
        all.push(RotatedLogin { login, key, error });
    }
    Ok(Json(all))
}

/// Lets a stored key be replaced again and again, or no more.
#[utoipa::path(put, path = "/targets/{name}/rotation", operation_id = "targets_schedule_rotation", tag = "targets",
    params(("name" = String, Path)), request_body = ScheduleRotation, responses(
    (status = OK, body = RotationSchedule),
    (status = "default", body = Problem),
))]
pub(super) async fn schedule(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TargetName>,
    Body(ScheduleRotation { login, every_s, authorized_keys }): Body<ScheduleRotation>,
) -> Result<Json<RotationSchedule>, ApiError> {
    let next_at = match every_s {
        Some(every_s) => {
            let file = file(authorized_keys);
            let set = credential_rotation::schedule(&state.app, &may.actor(), &name, &login, every_s, &file).await?;
            Some(set.next_at)
        }
        None => {
            credential_rotation::unschedule(&state.app, &may.actor(), &name, &login).await?;
            None
        }
    };
    Ok(Json(RotationSchedule { login, every_s, next_at }))
}
