//! Whether the bastion can do its work, for load balancers and `doctor`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::error::Problem;

/// The state of the bastion's parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: HealthStatus,
    pub database: HealthStatus,
}

/// Whether a part works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ok,
    /// It cannot be reached; no new session starts until it can.
    Away,
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
    let reachable = match state.app.db.read().await {
        Ok(tx) => tx.commit().await.is_ok(),
        Err(error) => {
            tracing::warn!(%error, "The database cannot be reached");
            false
        }
    };
    let database = if reachable { HealthStatus::Ok } else { HealthStatus::Away };
    let status = if state.health.is_draining() { HealthStatus::Draining } else { database };
    let code = if status == HealthStatus::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status, database }))
}
