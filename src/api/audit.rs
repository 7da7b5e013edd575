//! `/events`: the audit log.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use sallyport_domain::event::{self, Actor};
use sallyport_domain::id::{EventId, SessionId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::access::{Look, May};
use super::error::{ApiError, Problem};
use super::extract::Query;
use super::page::{Page, PageQuery, cursor};
use crate::app::audit::{self, EventFilter};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts upwards; numbers may be left out.
    pub seq: i64,
    #[schema(value_type = String)]
    pub id: EventId,
    pub at: DateTime<Utc>,
    /// The act's name: `grant_made`, `session_cut`, …
    pub kind: String,
    /// By whose hand: an object with `kind`, and more that depends on it.
    #[schema(value_type = Object)]
    pub actor: serde_json::Value,
    /// What happened: an object with `act`, and more that depends on it.
    #[schema(value_type = Object)]
    pub act: serde_json::Value,
    /// The actor, for a person.
    pub actor_text: String,
    /// The act's values, for a person.
    pub act_text: String,
}

/// Which events.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only acts of this name.
    pub act: Option<String>,
    /// Only what belongs to this session.
    #[param(value_type = Option<String>)]
    pub session: Option<SessionId>,
    /// From this instant on.
    pub since: Option<DateTime<Utc>>,
    /// Up to, not including, this instant.
    pub until: Option<DateTime<Utc>>,
    /// The newest first.
    pub newest: bool,
}

fn shape(seq: i64, event: &event::Event) -> Result<Event, ApiError> {
    let act = serde_json::to_value(&event.act).map_err(ApiError::internal)?;
    let actor = serde_json::to_value(&event.actor).map_err(ApiError::internal)?;
    let kind = act.get("act").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok(Event {
        seq,
        id: event.id,
        at: event.at,
        kind,
        actor_text: actor_text(&event.actor),
        act_text: act_text(&act),
        actor,
        act,
    })
}

fn actor_text(actor: &Actor) -> String {
    match actor {
        Actor::Bastion => "bastion".to_owned(),
        Actor::Operator { uid } => format!("uid {uid}"),
        Actor::Principal { name, .. } => name.to_string(),
        Actor::Stranger { address } => address.to_string(),
    }
}

/// The act's values but its name: `grant=g-… reason="INC-7"`.
fn act_text(act: &serde_json::Value) -> String {
    let fields = act.as_object().into_iter().flatten().filter(|(key, _)| *key != "act");
    let texts = fields.map(|(key, value)| match value {
        serde_json::Value::String(text) if text.contains(' ') => format!("{key}={text:?}"),
        serde_json::Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// Events, the oldest first, or the newest.
#[utoipa::path(get, path = "/events", operation_id = "events_list", tag = "audit", params(EventQuery, PageQuery), responses(
    (status = OK, body = Page<Event>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<EventQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Event>>, ApiError> {
    let filter = EventFilter { kind: query.act, session: query.session, since: query.since, until: query.until };
    let limit = page.limit();
    let from: Option<i64> = page.after()?;
    let events = if query.newest {
        audit::list_newest(&state.app, from.unwrap_or(i64::MAX), &filter, limit).await?
    } else {
        audit::list(&state.app, from.unwrap_or(0), &filter, limit).await?
    };
    let last = events.last().map(|(seq, _)| *seq).filter(|_| events.len() >= limit as usize);
    let items = events.into_iter().map(|(seq, event)| shape(seq, &event)).collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next: last.and_then(|seq| cursor(&seq)) }))
}
