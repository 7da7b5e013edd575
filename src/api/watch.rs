//! `/sessions/{id}/watch`: a session followed live, from before its start to its end, and the proof that it is.
//!
//! The stream holds frames (`docs/formats.md`), and between them marks, each where a frame's length would be:
//!
//! | bytes | then | |
//! |---|---|---|
//! | `ff ff ff ff` | a [`Problem`] as JSON, to the end | the stream cannot go on |
//! | `ff ff ff fe` | watch, 16 bytes; beat, 16 bytes | give the beat back, or stop counting as a watcher |
//! | `ff ff ff fd` | recording, 16 bytes; channel, u32 | the frames that follow are of this recording |
//! | `ff ff ff fc` | recording, 16 bytes | it is complete |

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sallyport_domain::id::{SessionId, WatchId};
use sallyport_domain::recording::frame::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::access::{May, Replay};
use super::error::{ApiError, Problem};
use super::extract::{self, Path};
use super::replay::BROKEN_OFF;
use crate::app::watching::{self, Told, Watch};

/// Marks, in place of a frame's length.
pub const BEAT: [u8; 4] = [0xff, 0xff, 0xff, 0xfe];
pub const CHANNEL: [u8; 4] = [0xff, 0xff, 0xff, 0xfd];
pub const CHANNEL_ENDED: [u8; 4] = [0xff, 0xff, 0xff, 0xfc];

/// A reader that takes nothing for so long has gone.
const STALLED: Duration = Duration::from_secs(15);

/// A beat that is given back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    #[schema(value_type = String)]
    pub watch: WatchId,
    /// As it stood in the stream, as a UUID.
    pub beat: Uuid,
}

/// What became of a beat that was given back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BeatTaken {
    /// It was the one that was out.
    pub taken: bool,
}

/// Everything that happens in a session, as it happens. Whoever reads it and gives back its beats counts as the session's watcher, if
/// they are a reviewer or the operator.
#[utoipa::path(get, path = "/sessions/{id}/watch", operation_id = "sessions_watch", tag = "sessions",
    params(("id" = String, Path)), responses(
    (status = OK, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = Problem),
))]
pub(super) async fn watch(
    may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
) -> Result<Response, ApiError> {
    let watch = watching::begin(&state.app, &may.actor(), id).await?;
    let (told, telling) = mpsc::channel(1);
    state.watches.spawn(tell(watch, told));
    let body = futures::stream::unfold(telling, async |mut telling: mpsc::Receiver<Bytes>| {
        let bytes = telling.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), telling))
    });
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(body)).into_response())
}

/// Shows that the stream is read: gives back the beat that stood in it last.
#[utoipa::path(post, path = "/sessions/{id}/watch", operation_id = "sessions_beat", tag = "sessions",
    params(("id" = String, Path)), request_body = Beat, responses(
    (status = OK, body = BeatTaken),
    (status = "default", body = Problem),
))]
pub(super) async fn beat(
    _may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    extract::Body(body): extract::Body<Beat>,
) -> Result<Json<BeatTaken>, ApiError> {
    let taken = watching::answer(&state.app, id, body.watch, body.beat).await?;
    Ok(Json(BeatTaken { taken }))
}

/// Tells until the session is over, or nobody reads any more; that somebody followed ends with it at once.
async fn tell(mut watch: Watch, told: mpsc::Sender<Bytes>) {
    let telling = async {
        loop {
            let (bytes, is_last) = match watch.next().await {
                Ok(Some(next)) => (encode(&watch, next), false),
                Ok(None) => return,
                Err(error) => {
                    let mut bytes = BROKEN_OFF.to_vec();
                    bytes.extend(serde_json::to_vec(&ApiError::from(error).into_problem()).unwrap_or_default());
                    (bytes, true)
                }
            };
            let sent = tokio::time::timeout(STALLED, told.send(bytes.into())).await;
            if is_last || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = told.closed() => {}
    }
    watch.end().await;
}

fn encode(watch: &Watch, told: Told) -> Vec<u8> {
    match told {
        Told::Beat(token) => [&BEAT[..], &watch.id().as_uuid().into_bytes()[..], &token.into_bytes()[..]].concat(),
        Told::Channel { recording, channel } => {
            [&CHANNEL[..], &recording.as_uuid().into_bytes()[..], &channel.to_be_bytes()[..]].concat()
        }
        Told::ChannelEnded { recording } => [&CHANNEL_ENDED[..], &recording.as_uuid().into_bytes()[..]].concat(),
        Told::Frames(frames) => {
            let mut bytes = Vec::with_capacity(frames.iter().map(Frame::encoded_bytes).sum());
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            bytes
        }
    }
}
