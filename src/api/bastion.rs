//! What a person needs to know to connect: the bastion's address and public keys, and who they are to it.

use axum::Json;
use axum::extract::State;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Caller, Known, May};
use super::error::{ApiError, Problem};
use super::{ApiState, schemas};

/// Where the SSH door is and what it proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bastion {
    /// The version of the program.
    pub version: String,
    /// The host name that people connect to.
    pub ssh_host: String,
    pub ssh_port: u16,
    /// The bastion's own host key, in OpenSSH's one-line form.
    pub host_key: String,
    /// The authority that signs the certificates with which the bastion logs in to targets: `TrustedUserCAKeys` there.
    pub user_ca: String,
    /// The authority that signs what targets show through the bastion: `@cert-authority` in `known_hosts`.
    pub host_ca: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Me {
    /// A user on the bastion's own host.
    Operator { uid: u32 },
    Person {
        #[schema(value_type = String)]
        name: PrincipalName,
        #[schema(schema_with = schemas::roles)]
        roles: Vec<Role>,
    },
}

/// The bastion's address and public keys.
#[utoipa::path(get, path = "/bastion", operation_id = "bastion_show", tag = "bastion", responses(
    (status = OK, body = Bastion),
    (status = "default", body = Problem),
))]
pub(super) async fn show(_may: May<Known>, State(state): State<ApiState>) -> Result<Json<Bastion>, ApiError> {
    Ok(Json(Bastion::clone(&state.bastion)))
}

/// Who the bastion takes the caller for.
#[utoipa::path(get, path = "/me", operation_id = "me", tag = "bastion", responses(
    (status = OK, body = Me),
    (status = "default", body = Problem),
))]
pub(super) async fn me(may: May<Known>) -> Result<Json<Me>, ApiError> {
    Ok(Json(match may.caller() {
        Caller::Operator { uid } => Me::Operator { uid: *uid },
        Caller::Person(principal) => Me::Person { name: principal.name.clone(), roles: principal.roles.clone() },
    }))
}
