//! What a person needs to know to connect: the bastion's address and public keys, and who they are to it.

use axum::Json;
use axum::extract::State;
use sallyport_domain::name::{PrincipalName, TargetName};
use sallyport_domain::principal::Role;
use sallyport_domain::target::Target;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Caller, Known, Look, May};
use super::error::{ApiError, Problem};
use super::{ApiState, schemas};
use crate::app::authorities::{self, Authority};
use crate::app::known_hosts;

/// What does not change while the bastion runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The version of the program.
    pub version: String,
    /// The host name that people connect to.
    pub ssh_host: String,
    pub ssh_port: u16,
    /// The bastion's own host key, in OpenSSH's one-line form.
    pub host_key: String,
}

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
    /// All user CAs to be trusted: the one that signs, the next one, and the one before.
    #[serde(default)]
    pub user_cas: Vec<String>,
    /// All host CAs to be trusted, likewise.
    #[serde(default)]
    pub host_cas: Vec<String>,
}

/// What an SSH client must be told to know the bastion, and every target through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KnownHosts {
    /// The bastion's own line for `known_hosts`.
    pub bastion: String,
    /// The `@cert-authority` line by which every target is known.
    pub authority: String,
    /// That line and, while one authority follows another, that of the next one, or of the one before.
    #[serde(default)]
    pub authorities: Vec<String>,
}

/// The line of one target, for clients that know no authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetKnownHost {
    #[schema(value_type = String)]
    pub target: TargetName,
    pub line: String,
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
    let Identity { version, ssh_host, ssh_port, host_key } = Identity::clone(&state.bastion);
    let user_cas = authorities::trusted(&state.app, Authority::User).await?;
    let host_cas = authorities::trusted(&state.app, Authority::Host).await?;
    let first = |keys: &[String]| keys.first().cloned().unwrap_or_default();
    let (user_ca, host_ca) = (first(&user_cas), first(&host_cas));
    Ok(Json(Bastion { version, ssh_host, ssh_port, host_key, user_ca, host_ca, user_cas, host_cas }))
}

/// Lines for `known_hosts`.
#[utoipa::path(get, path = "/known-hosts", operation_id = "known_hosts_show", tag = "bastion", responses(
    (status = OK, body = KnownHosts),
    (status = "default", body = Problem),
))]
pub(super) async fn known_hosts(_may: May<Known>, State(state): State<ApiState>) -> Result<Json<KnownHosts>, ApiError> {
    let Identity { ssh_host, ssh_port, host_key, .. } = state.bastion.as_ref();
    let host_cas = authorities::trusted(&state.app, Authority::Host).await?;
    let authorities: Vec<String> = host_cas.iter().map(|key| known_hosts::authority("*", key)).collect();
    Ok(Json(KnownHosts {
        bastion: known_hosts::bastion(ssh_host, *ssh_port, host_key),
        authority: authorities.first().cloned().unwrap_or_default(),
        authorities,
    }))
}

/// A line for `known_hosts` of each target. Engineers have those of the targets that are open to them from the bastion itself,
/// by `ssh person@bastion known-hosts --plain`.
#[utoipa::path(get, path = "/known-hosts/targets", operation_id = "known_hosts_targets", tag = "bastion", responses(
    (status = OK, body = [TargetKnownHost]),
    (status = "default", body = Problem),
))]
pub(super) async fn known_targets(
    _may: May<Look>,
    State(state): State<ApiState>,
) -> Result<Json<Vec<TargetKnownHost>>, ApiError> {
    let lines = known_hosts::of_all_targets(&state.app, &state.target_keys).await?;
    let shape = |(target, line): (Target, String)| TargetKnownHost { target: target.name, line };
    Ok(Json(lines.into_iter().map(shape).collect()))
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
