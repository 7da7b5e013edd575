//! `/nodes`: the processes of the bastion.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::access::{Look, May};
use super::error::{ApiError, Problem};
use super::page::Page;
use crate::app::nodes::{self, NodeRecord};

/// One process of the bastion. While one hands over to the next, a node has two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub node: String,
    /// Tells the process from others of the node.
    pub run: Uuid,
    pub version: String,
    pub state: NodeState,
    pub started_at: DateTime<Utc>,
    /// When it last said that it lives, by its own clock.
    pub last_heard_of: DateTime<Utc>,
    /// Live sessions, in the books.
    pub sessions: u64,
}

/// What a process of the bastion does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It lets people in.
    Open,
    /// It lets nobody in any more; live sessions have their time.
    Draining,
    Ended,
    /// It was not heard of for too long, and another one closes its sessions in the books.
    Lost,
}

impl NodeState {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }
}

fn shape(found: NodeRecord) -> Node {
    let state = match found.state {
        nodes::NodeState::Open => NodeState::Open,
        nodes::NodeState::Draining => NodeState::Draining,
        nodes::NodeState::Ended => NodeState::Ended,
        nodes::NodeState::Lost => NodeState::Lost,
    };
    let NodeRecord { run, node, version, started_at, beat_at, sessions, .. } = found;
    Node { node, run, version, state, started_at, last_heard_of: beat_at, sessions }
}

/// The processes of the bastion that live, and those that ended in the last week, by node.
#[utoipa::path(get, path = "/nodes", operation_id = "nodes_list", tag = "bastion", responses(
    (status = OK, body = Page<Node>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(_may: May<Look>, State(state): State<ApiState>) -> Result<Json<Page<Node>>, ApiError> {
    let items = nodes::list(&state.app).await?.into_iter().map(shape).collect();
    Ok(Json(Page { items, next: None }))
}
