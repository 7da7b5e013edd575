//! `/recordings/{id}/…`: what was typed and printed, for the web player and as frames. Looking is an event.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures::Stream;
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::frame::Frame;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::ApiState;
use super::access::{May, Replay};
use super::compress::accepted;
use super::error::{ApiError, Problem};
use super::extract::{Parts, Path, Query};
use crate::app::recordings::read::{self, Reader};
use crate::app::replay::{self, Looks, Purpose};

/// In place of a frame's length: the stream cannot go on, and the rest of it is a [`Problem`] as JSON.
pub const BROKEN_OFF: [u8; 4] = [0xff; 4];

/// What a finished recording's segments may be kept for: they never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// The formats that a recording is exported in.
pub const EXPORT_FORMATS: [&str; 4] = ["cast", "cast2", "txt", "frames"];

/// What frames are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// To be looked at.
    #[default]
    View,
    /// To be kept.
    Export,
}

/// How frames are read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct FramesQuery {
    /// Stay with a live recording until it ends.
    pub follow: bool,
    /// For the audit log.
    #[param(inline)]
    pub purpose: Reading,
    /// The format of an export, for the audit log: `cast`, `cast2`, `txt`, `frames`.
    pub format: Option<String>,
}

/// Which part of a live recording a segment belongs to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct SegmentQuery {
    /// Microseconds; as the index of a live recording has it in its segments' addresses.
    pub until: Option<u64>,
}

/// What the web player starts with. Opening it is an event, so it is never kept.
#[utoipa::path(get, path = "/recordings/{id}/index.json", operation_id = "recordings_index", tag = "recordings",
    params(("id" = String, Path)), responses(
    (status = OK, body = serde_json::Value, description = "asciinema-player's segmented source"),
    (status = "default", body = Problem),
))]
pub(super) async fn index(
    may: May<Replay>,
    State(state): State<ApiState>,
    Extension(looks): Extension<Looks>,
    Path(id): Path<RecordingId>,
) -> Result<Response, ApiError> {
    let opened = replay::index(&state.app, &looks, &may.actor(), id).await?;
    let mut document = serde_json::to_value(&opened.index).map_err(ApiError::internal)?;
    if let Some(until) = opened.until {
        let segments = document.get_mut("segments").and_then(serde_json::Value::as_array_mut);
        for entry in segments.into_iter().flatten() {
            if let Some(serde_json::Value::String(url)) = entry.get_mut("url") {
                url.push_str("?until=");
                url.push_str(&until.to_string());
            }
        }
    }
    Ok(Json(document).into_response())
}

/// One segment for the web player.
#[utoipa::path(get, path = "/recordings/{id}/seg/{n}", operation_id = "recordings_segment", tag = "recordings",
    params(("id" = String, Path), ("n" = u32, Path), SegmentQuery), responses(
    (status = OK, body = serde_json::Value, description = "a segment of asciinema-player's segmented source"),
    (status = "default", body = Problem),
))]
pub(super) async fn segment(
    may: May<Replay>,
    State(state): State<ApiState>,
    Extension(looks): Extension<Looks>,
    Parts(asked): Parts,
    Path((id, number)): Path<(RecordingId, u32)>,
    Query(query): Query<SegmentQuery>,
) -> Result<Response, ApiError> {
    let found = replay::segment(&state.app, &looks, &may.actor(), id, number, query.until).await?;
    let opened = found.ok_or_else(|| ApiError::NotFound(format!("recording {id} has no segment {number}")))?;
    // Five megabytes of JSON at most, made away from the threads that carry bytes.
    let encoding = accepted(&asked.headers);
    let document = tokio::task::spawn_blocking(move || {
        let plain = serde_json::to_vec(&opened.segment).map_err(ApiError::internal)?;
        encoding.encode(plain).map_err(ApiError::internal)
    });
    let document = document.await.map_err(ApiError::internal)??;
    let mut response = document.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(name) = encoding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    if opened.is_final {
        headers.insert(header::CACHE_CONTROL, IMMUTABLE);
    }
    Ok(response)
}

/// Everything that happened, as frames (`docs/formats.md`), checked against the recording's hash chain on the way. If
/// the stream cannot go on, four bytes of 0xff and a problem as JSON come in place of the next frame.
#[utoipa::path(get, path = "/recordings/{id}/frames", operation_id = "recordings_frames", tag = "recordings",
    params(("id" = String, Path), FramesQuery), responses(
    (status = OK, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = Problem),
))]
pub(super) async fn frames(
    may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<RecordingId>,
    Query(query): Query<FramesQuery>,
) -> Result<Response, ApiError> {
    let purpose = purpose(query.purpose, query.format)?;
    let reader = replay::frames(&state.app, &may.actor(), id, purpose, query.follow).await?;
    let body = Body::from_stream(encoded(reader));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], body).into_response())
}

fn purpose(reading: Reading, format: Option<String>) -> Result<Purpose, ApiError> {
    match (reading, format) {
        (Reading::View, _) => Ok(Purpose::View),
        (Reading::Export, Some(format)) if EXPORT_FORMATS.contains(&format.as_str()) => Ok(Purpose::Export { format }),
        (Reading::Export, _) => {
            Err(ApiError::BadRequest(format!("an export has a format: {}", EXPORT_FORMATS.join(", "))))
        }
    }
}

/// What is at rest of a recording, as it is stored: for each segment its length in 32 bits, big-endian, and its bytes, which are an age
/// file where the recording is encrypted. If the stream cannot go on, four bytes of 0xff and a problem as JSON come in place of the
/// next length.
#[utoipa::path(get, path = "/recordings/{id}/stored", operation_id = "recordings_stored", tag = "recordings",
    params(("id" = String, Path), FramesQuery), responses(
    (status = OK, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = Problem),
))]
pub(super) async fn stored(
    may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<RecordingId>,
    Query(query): Query<FramesQuery>,
) -> Result<Response, ApiError> {
    let purpose = purpose(query.purpose, query.format)?;
    let rows = replay::stored(&state.app, &may.actor(), id, purpose).await?;
    let segments = futures::stream::unfold(Some((state.app.clone(), rows)), async |rest| {
        let (app, mut rows) = rest?;
        let row = rows.pop_front()?;
        let (bytes, rest) = match read::stored_segment(&app, &row).await {
            Ok(stored) => {
                let length = u32::try_from(stored.len()).unwrap_or(u32::MAX).to_be_bytes();
                ([length.as_slice(), &stored].concat(), Some((app, rows)))
            }
            Err(error) => {
                let mut bytes = BROKEN_OFF.to_vec();
                bytes.extend(serde_json::to_vec(&ApiError::from(error).into_problem()).unwrap_or_default());
                (bytes, None)
            }
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), rest))
    });
    let body = Body::from_stream(segments);
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], body).into_response())
}

/// A batch at a time, and the next only once that one was taken: a slow client costs one segment's memory.
fn encoded(reader: Reader) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures::stream::unfold(Some(reader), async |reader: Option<Reader>| {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(frames)) => {
                let mut bytes = Vec::with_capacity(frames.iter().map(Frame::encoded_bytes).sum());
                for frame in &frames {
                    frame.encode(&mut bytes);
                }
                Some((Ok(bytes.into()), Some(reader)))
            }
            Ok(None) => None,
            Err(error) => {
                let problem = ApiError::from(error).into_problem();
                let mut bytes = BROKEN_OFF.to_vec();
                bytes.extend(serde_json::to_vec(&problem).unwrap_or_default());
                Some((Ok(bytes.into()), None))
            }
        }
    })
}
