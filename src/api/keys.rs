//! `/keys`: the keys of the bastion, and how one follows another. Public halves and names only.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Body, Path};
use crate::app::authorities::{self, Authority, AuthorityError};
use crate::app::key_ring::{self, KeyInfo, MasterRotation};
use crate::app::ledger::rotation;

/// A key of the bastion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// `ledger`, `host_key`, `host_ca`, `user_ca`, `target_keys` or `master`.
    pub purpose: String,
    /// `staged` (to be trusted, does not sign yet), `in_use`, `leaving` (does not sign any more, is still trusted), `retired`, or, of a
    /// master key, `loaded`: it opens, and seals nothing.
    pub state: String,
    /// What people compare: SHA-256 in hex of a ledger key, OpenSSH's of an SSH key, the id of a master key.
    pub fingerprint: String,
    /// As its kind is written: a vkey, or OpenSSH's line; none of a master key.
    pub public_key: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub retired_at: Option<DateTime<Utc>>,
}

/// What came of changing the ledger's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerKeyRotated {
    /// Fingerprints. Whoever was given the old one can verify with it what the new key signs.
    pub from: String,
    pub to: String,
    /// How many events the largest tree has that the old key signs.
    pub last_size: u64,
}

/// Which master key is to seal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RotateMaster {
    /// Its id; the only other one that is loaded where it is left out.
    pub to: Option<String>,
}

/// Another master key seals from now on; the old one is needed until it is `retired` in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MasterKeyRotated {
    pub from: String,
    pub to: String,
}

fn shape(key: KeyInfo) -> Key {
    let KeyInfo { purpose, state, fingerprint, public_key, created_at, retired_at } = key;
    let state = state.as_str().to_owned();
    Key { purpose, state, fingerprint, public_key, created_at, retired_at }
}

/// Every key of the bastion.
#[utoipa::path(get, path = "/keys", operation_id = "keys_list", tag = "keys", responses(
    (status = OK, body = Vec<Key>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(_may: May<Look>, State(state): State<ApiState>) -> Result<Json<Vec<Key>>, ApiError> {
    Ok(Json(key_ring::list(&state.app).await?.into_iter().map(shape).collect()))
}

/// Puts another key to use for the ledger's checkpoints. The old one signs for it; what it signed stays valid.
#[utoipa::path(post, path = "/keys/ledger/rotate", operation_id = "keys_rotate_ledger", tag = "keys", responses(
    (status = OK, body = LedgerKeyRotated),
    (status = "default", body = Problem),
))]
pub(super) async fn rotate_ledger(
    may: May<Administer>,
    State(state): State<ApiState>,
) -> Result<Json<LedgerKeyRotated>, ApiError> {
    let rotation::Rotated { from, to, last_size } = rotation::rotate(&state.app, &may.actor()).await?;
    Ok(Json(LedgerKeyRotated { from: from.to_string(), to: to.to_string(), last_size }))
}

/// Lets another master key seal, which every node must have loaded. All that is sealed is sealed anew in the next seconds; then the old
/// key is `retired`: it opens nothing any more.
#[utoipa::path(post, path = "/keys/master/rotate", operation_id = "keys_rotate_master", tag = "keys",
    request_body = RotateMaster, responses(
    (status = OK, body = MasterKeyRotated),
    (status = "default", body = Problem),
))]
pub(super) async fn rotate_master(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(RotateMaster { to }): Body<RotateMaster>,
) -> Result<Json<MasterKeyRotated>, ApiError> {
    let MasterRotation { from, to } = key_ring::rotate(&state.app, &may.actor(), to.as_deref()).await?;
    Ok(Json(MasterKeyRotated { from, to }))
}

/// A step on the way from one authority to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityStep {
    /// The key that the step was about, in OpenSSH's one-line form.
    pub public_key: String,
    /// What is to be trusted now, the one that signs first.
    pub trusted: Vec<String>,
}

async fn step(
    state: &ApiState,
    authority: Authority,
    public_key: Result<String, AuthorityError>,
) -> Result<Json<AuthorityStep>, ApiError> {
    let public_key = public_key?;
    Ok(Json(AuthorityStep { public_key, trusted: authorities::trusted(&state.app, authority).await? }))
}

fn authority(purpose: &str) -> Result<Authority, ApiError> {
    match purpose {
        "user_ca" => Ok(Authority::User),
        "host_ca" => Ok(Authority::Host),
        _ => Err(ApiError::NotFound("only `user_ca` and `host_ca` are replaced in steps".to_owned())),
    }
}

/// Publishes the next key of an authority, so that it can be trusted before it signs.
#[utoipa::path(post, path = "/keys/{purpose}/stage", operation_id = "keys_stage", tag = "keys",
    params(("purpose" = String, Path)), responses(
    (status = OK, body = AuthorityStep),
    (status = "default", body = Problem),
))]
pub(super) async fn stage(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(purpose): Path<String>,
) -> Result<Json<AuthorityStep>, ApiError> {
    let authority = authority(&purpose)?;
    step(&state, authority, authorities::stage(&state.app, &may.actor(), authority).await).await
}

/// Lets the key that was staged sign from now on. Whoever does not trust it yet is locked out.
#[utoipa::path(post, path = "/keys/{purpose}/activate", operation_id = "keys_activate", tag = "keys",
    params(("purpose" = String, Path)), responses(
    (status = OK, body = AuthorityStep),
    (status = "default", body = Problem),
))]
pub(super) async fn activate(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(purpose): Path<String>,
) -> Result<Json<AuthorityStep>, ApiError> {
    let authority = authority(&purpose)?;
    step(&state, authority, authorities::activate(&state.app, &may.actor(), authority).await).await
}

/// Publishes the key before no more.
#[utoipa::path(post, path = "/keys/{purpose}/retire", operation_id = "keys_retire", tag = "keys",
    params(("purpose" = String, Path)), responses(
    (status = OK, body = AuthorityStep),
    (status = "default", body = Problem),
))]
pub(super) async fn retire(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(purpose): Path<String>,
) -> Result<Json<AuthorityStep>, ApiError> {
    let authority = authority(&purpose)?;
    step(&state, authority, authorities::retire(&state.app, &may.actor(), authority).await).await
}
