//! Whether the bastion can do its work, for load balancers and `doctor`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::error::Problem;
use crate::app::ledger::proofs;

/// The state of the bastion's parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: HealthStatus,
    pub database: HealthStatus,
    /// Sessions go on while they are late: what comes is signed all the same.
    pub anchors: HealthStatus,
}

/// Whether a part works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ok,
    /// It cannot be reached; no new session starts until it can.
    Away,
    /// Checkpoints have not got to one of the anchors for longer than is borne: `sallyport doctor` names it.
    Late,
    /// This process is about to end: log in at another node.
    Draining,
}

/// Whether the bastion can do its work. Tells nothing else, and takes no token.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "bastion", responses(
    (status = OK, body = Health),
    (status = SERVICE_UNAVAILABLE, body = Health, description = "The database is away, or this process is about to end"),
    (status = "default", body = Problem),
))]
pub(super) async fn health(State(state): State<ApiState>) -> (StatusCode, Json<Health>) {
    let mut health = match proofs::anchors(&state.app).await {
        Ok(anchors) => Health {
            status: HealthStatus::Ok,
            database: HealthStatus::Ok,
            anchors: if anchors.iter().any(|anchor| anchor.late) { HealthStatus::Late } else { HealthStatus::Ok },
        },
        Err(error) => {
            tracing::warn!(%error, "The database cannot be reached");
            Health { status: HealthStatus::Away, database: HealthStatus::Away, anchors: HealthStatus::Away }
        }
    };
    if state.health.is_draining() {
        health.status = HealthStatus::Draining;
    }
    let code = match health.status {
        HealthStatus::Away | HealthStatus::Draining => StatusCode::SERVICE_UNAVAILABLE,
        HealthStatus::Ok | HealthStatus::Late => StatusCode::OK,
    };
    (code, Json(health))
}
