//! `/outbox`: how destinations outside do: what they have taken, what waits, and why.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Look, May};
use super::error::{ApiError, Problem};
use super::page::Page;
use crate::app::outbox::{self, Standing};

/// A destination outside, and how far it has been told of the ledger's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxDestination {
    pub name: String,
    /// `file`, `syslog`, `webhook`, `datakit`, `dataway`; `mail`, `slack`, `feishu`, `dingtalk`, `wecom`.
    pub kind: String,
    /// The place in the ledger of the event that it is told of next.
    pub next: u64,
    /// Events that it has not been told of yet, and how old the oldest is, in seconds.
    pub waiting: u64,
    pub lag_seconds: u64,
    /// Records that it has taken, and that it refused for good and were given up.
    pub sent: u64,
    pub dropped: u64,
    /// What was given up last, and why.
    pub last_drop: Option<String>,
    /// When it took something last.
    pub at: Option<DateTime<Utc>>,
    /// Why the last try failed, since when every try has, and when the next comes.
    pub error: Option<String>,
    pub failing_since: Option<DateTime<Utc>>,
    pub retry_at: Option<DateTime<Utc>>,
    /// It has failed for longer than is borne.
    pub late: bool,
    /// The node that tells it; none if no node does: it is configured nowhere, or its node has just died.
    pub node: Option<String>,
}

/// Every destination that there is or was, by name.
#[utoipa::path(get, path = "/outbox", operation_id = "outbox_list", tag = "outbox", responses(
    (status = OK, body = Page<OutboxDestination>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
) -> Result<Json<Page<OutboxDestination>>, ApiError> {
    let now = state.app.clock.now();
    let items = outbox::standings(&state.app).await?.into_iter().map(|standing| shape(standing, now)).collect();
    Ok(Json(Page { items, next: None }))
}

fn shape(Standing { state, waiting, oldest_at }: Standing, now: DateTime<Utc>) -> OutboxDestination {
    let lag = oldest_at.map_or(0, |at| (now - at).num_seconds());
    OutboxDestination {
        name: state.name,
        kind: state.kind,
        next: state.next.index,
        waiting,
        lag_seconds: u64::try_from(lag).unwrap_or(0),
        sent: state.sent,
        dropped: state.dropped,
        last_drop: state.last_drop,
        at: state.at,
        error: state.error,
        failing_since: state.failing_since,
        retry_at: state.retry_at,
        late: state.late,
        node: state.node.filter(|_| state.held_until.is_some_and(|until| until > now)),
    }
}
