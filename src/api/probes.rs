//! `/healthz`, `/readyz` and `/metrics`: for load balancers, supervisors and Prometheus, outside of `/api/v1`.
//!
//! The two probes answer everybody, with one word and no details. Metrics take somebody who may look, as the rest of the API;
//! on the listener of their own (`[metrics] listen`) they answer everybody who reaches it: there is no person and no target
//! in them.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Deserialize;

use super::ApiState;
use super::access::{Look, May};
use crate::app::health::NotReady;
use crate::app::metrics::{CONTENT_TYPE, Metrics};

/// `[metrics]` in `sallyport.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// A TCP address without encryption that answers `/metrics`, `/healthz` and `/readyz` to everybody.
    pub listen: Option<SocketAddr>,
}

/// The routes on the API's own doors.
pub(super) fn guarded() -> Router<ApiState> {
    let metrics = async |_may: May<Look>, State(state): State<ApiState>| scrape(&state.app.metrics);
    probes().route("/metrics", get(metrics))
}

/// The routes on the listener of their own.
pub(super) fn open(state: ApiState) -> Router {
    let metrics = async |State(state): State<ApiState>| scrape(&state.app.metrics);
    probes().route("/metrics", get(metrics)).with_state(state)
}

fn probes() -> Router<ApiState> {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready))
}

/// Whether somebody new should be sent to this node. It costs nothing: what is told was found out before.
async fn ready(State(state): State<ApiState>) -> (StatusCode, &'static str) {
    let why = match state.health.ready() {
        Ok(()) => return (StatusCode::OK, "ready\n"),
        Err(NotReady::Draining) => "draining\n",
        Err(NotReady::Database) => "database\n",
        Err(NotReady::Journal) => "journal\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, why)
}

fn scrape(metrics: &Metrics) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.text())
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use sallyport_domain::principal::Role;

    use crate::api::tests::Served;

    #[tokio::test]
    async fn probes_answer_everybody_with_a_word_and_metrics_only_who_may_look() {
        let served = Served::start().await;
        let (stranger, engineer) = (served.remote(None), served.person("e", Role::Engineer).await);
        let auditor = served.person("u", Role::Auditor).await;

        assert_eq!(stranger.raw("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(stranger.raw("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
        served.health.drain();
        assert_eq!(stranger.raw("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()));
        assert_eq!(stranger.raw("/metrics").await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(engineer.raw("/metrics").await.0, StatusCode::FORBIDDEN);
        let (status, text) = auditor.raw("/metrics").await;
        assert!(status.is_success() && text.contains("sallyport_build_info"), "{status} {text}");
        assert!(text.contains("sallyport_http_request_seconds_count"), "{text}");
    }

    #[tokio::test]
    async fn the_listener_of_its_own_answers_metrics_to_everybody_and_nothing_of_the_api() {
        let served = Served::start().await;
        let get = async |path: &str| {
            let url = format!("http://{}{path}", served.metrics);
            let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        };

        assert!(get("/metrics").await.1.ends_with("# EOF\n"));
        assert_eq!(get("/readyz").await.0, StatusCode::OK);
        assert_eq!(get("/api/v1/people").await.0, StatusCode::NOT_FOUND);
        assert_eq!(get("/").await.0, StatusCode::NOT_FOUND);
    }
}
