//! `/live`: what changes, as it changes, as server-sent events (HTML Living Standard §9.2). An event has the topic as its name, and
//! kind and ids as its data; `id` is a place in the ledger, so that a browser that was away goes on where it was.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::ApiState;
use super::access::{Caller, Look, May, still};
use super::error::{ApiError, Problem};
use super::extract::Parts;
use crate::app::feed::{self, Listener, News};

/// A reader that takes nothing for so long has gone.
const STALLED: Duration = Duration::from_secs(15);
/// How often it is asked anew whether the reader may listen, and a line is sent that keeps the connection open.
const BEAT: Duration = Duration::from_secs(5);
/// A reader that was away, or was sent away, comes back after this many milliseconds.
const RETRY: &str = "retry: 2000\n";

/// What changes, as it changes: `text/event-stream`, with the events `sessions`, `requests`, `grants`, `people`, `targets` and `ledger`.
/// `reset` says that something may have been missed. It ends with the sign-in, or with the reader's leave to look.
#[utoipa::path(get, path = "/live", operation_id = "live", tag = "sessions",
    params(("Last-Event-ID" = Option<String>, Header, description = "Where to go on")), responses(
    (status = OK, body = String, content_type = "text/event-stream"),
    (status = "default", body = Problem),
))]
pub(super) async fn live(
    may: May<Look>,
    State(state): State<ApiState>,
    Parts(parts): Parts,
) -> Result<Response, ApiError> {
    if !takes_events(&parts.headers) {
        return Err(ApiError::BadRequest("this is a stream: ask for `Accept: text/event-stream`".to_owned()));
    }
    let who = match may.caller() {
        Caller::Person(person) => person.id.to_string(),
        Caller::Operator { uid } => format!("uid {uid}"),
    };
    let listener = state.feed.listen(&who).ok_or_else(|| ApiError::TooMany {
        wait: STALLED,
        detail: "too many listen already; close some, or try again in a moment".to_owned(),
    })?;
    let last = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let (next, is_known) = feed::resume(&state.app, last).await?;
    let (told, telling) = mpsc::channel(1);
    let tasks = state.watches.clone();
    tasks.spawn(async move {
        let telling = Telling { state, parts, may, told: told.clone(), next };
        tokio::select! {
            () = telling.tell(listener, is_known) => {}
            () = told.closed() => {}
        }
    });
    let body = futures::stream::unfold(telling, async |mut telling: mpsc::Receiver<Bytes>| {
        let bytes = telling.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), telling))
    });
    // A proxy that gathers what it is sent would hold it back.
    let headers = [(header::CONTENT_TYPE.as_str(), "text/event-stream"), ("x-accel-buffering", "no")];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn takes_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|kind| kind.trim().starts_with("text/event-stream"))
}

/// A stream under way.
struct Telling {
    state: ApiState,
    parts: Head,
    may: May<Look>,
    told: mpsc::Sender<Bytes>,
    /// The first place in the ledger that was not told of.
    next: u64,
}

impl Telling {
    async fn tell(mut self, mut listener: Listener, is_known: bool) {
        let name = if is_known { "ready" } else { "reset" };
        if !self.send(format!("{RETRY}{}", event(self.next, name, &json!({})))).await {
            return;
        }
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        loop {
            // Who they are now, before each word of what happened.
            if !still(&self.may, &self.parts, &self.state).await {
                return;
            }
            match feed::read(&self.state.app, self.next).await {
                Ok(told) => {
                    self.next = told.next;
                    let lines: String = told.news.iter().map(|news| line(self.next, news)).collect();
                    if !lines.is_empty() && !self.send(lines).await {
                        return;
                    }
                    if told.is_full {
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%error, "What happened cannot be read now."),
            }
            tokio::select! {
                grown = listener.grown() => if !grown { return },
                _ = beat.tick() => if !self.send(":\n\n".to_owned()).await { return },
            }
        }
    }

    async fn send(&self, text: String) -> bool {
        matches!(timeout(STALLED, self.told.send(text.into())).await, Ok(Ok(())))
    }
}

/// One event. Those that are read at once have one id: who comes back is told all of them again, or none.
fn line(next: u64, news: &News) -> String {
    let mut data = news.ids.clone();
    data.insert("kind".to_owned(), Value::String(news.kind.clone()));
    event(next, news.topic.as_str(), &Value::Object(data))
}

/// JSON has no line break that is not escaped, so the data is one line.
fn event(next: u64, name: &str, data: &Value) -> String {
    format!("id: {next}\nevent: {name}\ndata: {data}\n\n")
}
