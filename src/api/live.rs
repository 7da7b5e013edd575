//! `/recordings/{id}/live`: a live recording as it goes on, for the web player, over a WebSocket (RFC 6455) that speaks
//! [`alis`]. Whoever may no longer look is cut off within seconds, and told why, as the viewer of a recording that ended is.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use sallyport_domain::cast::alis::{self, Encoder};
use sallyport_domain::cast::event::Events;
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::segment::Snapshot;
use tokio::time::{Instant, interval_at, timeout};

use super::ApiState;
use super::access::{Caller, Class, May, Replay};
use super::error::{ApiError, Problem};
use super::extract::{Parts as RequestParts, Path};
use crate::app::recordings::read::{ReadError, Reader};
use crate::app::replay;

/// How often it is asked again whether the viewer may look.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A viewer that takes nothing for so long is gone.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// What a viewer may send: nothing but the protocol's own small messages.
const MOST_RECEIVED_BYTES: usize = 4096;
/// The player shows the reason of closes from 4000 to 4100, and does not connect again.
const ENDED: u16 = 4000;

/// A live recording as it goes on: a WebSocket with the subprotocol `v1.alis`. It begins with what the terminal shows, and ends
/// with close code 4000 and the reason.
#[utoipa::path(get, path = "/recordings/{id}/live", operation_id = "recordings_live", tag = "recordings",
    params(("id" = String, Path)), responses(
    (status = SWITCHING_PROTOCOLS, description = "The protocol changes to WebSocket"),
    (status = "default", body = Problem),
))]
pub(super) async fn live(
    may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<RecordingId>,
    RequestParts(parts): RequestParts,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| ApiError::BadRequest(rejection.body_text()))?;
    let (snapshot, reader) = replay::live(&state.app, &may.actor(), id).await?;
    let viewer = Viewer { state, parts };
    let upgrade = upgrade.protocols([alis::SUBPROTOCOL]).max_message_size(MOST_RECEIVED_BYTES);
    // The connection belongs to the upgrade from here on; it ends with the recording, the viewer, or their leave to look.
    Ok(upgrade.on_upgrade(move |socket| show(socket, viewer, snapshot, reader)))
}

/// Who looks, so that it can be asked again.
struct Viewer {
    state: ApiState,
    parts: Parts,
}

impl Viewer {
    async fn may_still_look(&self) -> bool {
        let caller = super::access::prove(&self.parts, &self.state).await;
        caller.is_ok_and(|proved| Caller::may::<Replay>(&proved.caller))
    }
}

/// Why a viewer is not shown more.
enum Over {
    /// The recording has ended.
    Ended,
    Forbidden,
    Broken(ReadError),
    /// They left, or take nothing.
    Gone,
}

async fn show(mut socket: WebSocket, viewer: Viewer, snapshot: Snapshot, reader: Reader) {
    let reason = match carry(&mut socket, &viewer, &snapshot, reader).await {
        Over::Gone => return,
        Over::Ended => {
            if send(&mut socket, alis::END.to_vec()).await.is_err() {
                return;
            }
            "the recording has ended".to_owned()
        }
        Over::Forbidden => format!("you may no longer look: this takes one of the roles {}", roles()),
        Over::Broken(error) => ApiError::from(error).into_problem().detail,
    };
    // RFC 6455 §5.5: a control frame holds 125 bytes, two of them the code.
    let short: String = reason
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= 123).then_some(c)
        })
        .collect();
    let close = Message::Close(Some(CloseFrame { code: ENDED, reason: Utf8Bytes::from(short) }));
    if timeout(SEND_DEADLINE, socket.send(close)).await.is_err() {
        tracing::debug!("A viewer did not take the end of a live recording");
    }
}

fn roles() -> String {
    let words: Vec<&str> = Replay::ROLES.iter().map(|role| role.as_str()).collect();
    words.join(", ")
}

async fn carry(socket: &mut WebSocket, viewer: &Viewer, snapshot: &Snapshot, mut reader: Reader) -> Over {
    let mut encoder = Encoder::default();
    let mut events = Events::new(snapshot.size.is_some());
    if send(socket, alis::MAGIC.to_vec()).await.is_err() {
        return Over::Gone;
    }
    let mut is_reset = false;
    let mut ask = interval_at(Instant::now() + ASK_AGAIN, ASK_AGAIN);
    loop {
        let frames = {
            let mut next = std::pin::pin!(reader.next()); // not cancel safe: it is waited for until it answers
            loop {
                tokio::select! {
                    frames = &mut next => break frames,
                    _ = ask.tick() => if !viewer.may_still_look().await { return Over::Forbidden },
                    received = socket.recv() => match received {
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Over::Gone,
                        Some(Ok(_)) => {}
                    },
                }
            }
        };
        let frames = match frames {
            Ok(Some(frames)) => frames,
            Ok(None) => return Over::Ended,
            Err(error) => return Over::Broken(error),
        };
        let mut messages = Vec::new();
        if !is_reset {
            // The last sealed part is shown at once: the clock starts where it ends.
            let now = frames.last().map_or(0, |frame| frame.at);
            let size = snapshot.size.unwrap_or(TerminalSize { cols: 0, rows: 0 });
            messages.push(encoder.reset(now, size, &snapshot.init));
            is_reset = true;
        }
        for frame in &frames {
            events.frame(frame, &mut |event| messages.extend(encoder.event(&event)));
        }
        for message in messages {
            if send(socket, message).await.is_err() {
                return Over::Gone;
            }
        }
    }
}

async fn send(socket: &mut WebSocket, message: Vec<u8>) -> Result<(), ()> {
    let sent = timeout(SEND_DEADLINE, socket.send(Message::Binary(Bytes::from(message)))).await;
    sent.map_err(drop)?.map_err(drop)
}
