//! A session that waits for somebody else's consent: until it is given, refused or late, or the client has gone.
//!
//! Until then there is no permit, so no connection to a target, and no recording. What the client sends meanwhile is kept, up to
//! [`MOST_AHEAD`]; then it is left in the client's connection, which waits.

use std::time::Duration;

use bytes::BytesMut;
use chrono::TimeDelta;
use russh::{ChannelMsg, ChannelReadHalf};
use sallyport_domain::channel::Program;
use sallyport_domain::grant::Approval;
use sallyport_domain::login_name::Destination;
use sallyport_domain::policy::Denial;
use sallyport_domain::request::RequestState;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Door;
use super::channel;
use super::notice;
use super::proxy::{ClientSide, Request, Start};
use super::session::{Refusal, SessionState, refusal, refused_lines};
use crate::app::access::{self, Arrival, Look, OpenError, OpenSession};
use crate::app::consents::Waiting;
use crate::app::requests;

/// How often it is looked, should no word of a change come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a channel's client may send before its session starts, in bytes; a little more if it comes at once.
const MOST_AHEAD: usize = 1 << 20;

/// How long a client may take for a line.
const WRITE: Duration = Duration::from_millis(500);

/// The exit status of somebody who did not wait, as a shell has it.
const INTERRUPTED: u32 = 130;

/// What leaves the waiting on a terminal: Ctrl-C and Ctrl-D.
const INTERRUPTS: [u8; 2] = [0x03, 0x04];

/// Waits for what `waiting` lacks. `None` if the client has gone; then nobody is asked any more.
pub async fn wait(
    door: &Door,
    arrival: &Arrival,
    waiting: &Waiting,
    gone: &CancellationToken,
    changes: &mut watch::Receiver<u64>,
) -> Option<Result<OpenSession, Refusal>> {
    info!(session = %waiting.session, request = %waiting.request, "A session waits for somebody's consent.");
    let destination = Destination::Account { login: waiting.login.clone(), target: waiting.target.clone() };
    loop {
        if gone.is_cancelled() {
            withdraw(door, arrival, waiting).await;
            return None;
        }
        match access::look(&door.app, arrival, waiting).await {
            Ok(Look::Waits) => {}
            Ok(Look::Ready) => {
                match access::open(&door.app, &door.node, arrival, &destination, None, Some(waiting)).await {
                    Ok(open) => return Some(Ok(open)),
                    Err(OpenError::Awaited { .. }) => {}
                    Err(OpenError::Db(error)) if error.is_unreachable() => {}
                    Err(error) => return Some(Err(refusal(&error, arrival))),
                }
            }
            Ok(Look::Refused { denial, state }) => {
                let said_no = matches!(state, Some(RequestState::Denied { .. }));
                let refused = refuse(door, arrival, waiting, denial, state).await;
                if !said_no {
                    withdraw(door, arrival, waiting).await;
                }
                return Some(Err(refused));
            }
            Err(error) if waiting.expires_at <= door.app.clock.now() => {
                return Some(Err(refusal(&OpenError::Db(error), arrival)));
            }
            Err(error) => warn!(%error, "A session that waits could not be looked after; it goes on to wait."),
        }
        tokio::select! {
            // Looking again is never wrong.
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = gone.cancelled() => {}
            () = door.closing.cancelled() => {
                withdraw(door, arrival, waiting).await;
                return Some(Err(Refusal { lines: vec!["the bastion is shutting down; try again".to_owned()] }));
            }
        }
    }
}

/// Nobody needs to answer any more. What cannot be written down expires.
async fn withdraw(door: &Door, arrival: &Arrival, waiting: &Waiting) {
    if let Err(error) = requests::withdraw(&door.app, &arrival.principal, waiting.request, None).await {
        info!(%error, "A request that is over was not withdrawn.");
    }
}

async fn refuse(
    door: &Door,
    arrival: &Arrival,
    waiting: &Waiting,
    denial: Denial,
    state: Option<RequestState>,
) -> Refusal {
    let wanted = format!("{}@{}", waiting.login, waiting.target);
    let reference = match access::note_denial(&door.app, arrival, wanted, denial.clone()).await {
        Ok(reference) => reference,
        Err(error) => return refusal(&OpenError::Db(error), arrival),
    };
    let mut lines = refused_lines(&denial, reference);
    let waited = notice::duration(TimeDelta::from_std(door.app.consent.wait).unwrap_or_default());
    let why = match (state, waiting.approval) {
        (Some(RequestState::Denied { reason, .. }), _) => {
            Some(format!("somebody said no: {}", notice::printable(&reason)))
        }
        (Some(RequestState::Expired { .. }), Approval::Watcher) => {
            Some(format!("nobody came to watch within {waited}"))
        }
        (Some(RequestState::Expired { .. }), _) => Some(format!("nobody approved this session within {waited}")),
        (Some(RequestState::Approved { .. }), _) => {
            Some("who said yes may not, or it took too long to start".to_owned())
        }
        (Some(RequestState::Open | RequestState::Withdrawn { .. }) | None, _) => None,
    };
    if let (Some(why), Denial::NotApproved { .. }, Some(first)) = (why, &denial, lines.first_mut()) {
        *first = format!("access denied: {why}");
    }
    Refusal { lines }
}

/// One channel of a login whose session is decided on.
pub struct Lobby<'a> {
    pub client: &'a ClientSide,
    pub read: &'a mut ChannelReadHalf,
    pub requests: &'a mut mpsc::Receiver<Request>,
    pub start: &'a mut Start,
    pub gone: &'a CancellationToken,
}

impl Lobby<'_> {
    /// What has become of the session, once that is known. While it waits for somebody, whoever has a terminal sees it. `None` if the
    /// channel or its client has gone.
    pub async fn wait(&mut self, session: &mut watch::Receiver<SessionState>) -> Option<SessionState> {
        let mut ahead = BytesMut::new();
        let mut began: Option<Instant> = None;
        let mut ticks = tokio::time::interval(LOOK_AGAIN);
        let has_pty = self.start.pty.is_some();
        loop {
            let state = session.borrow_and_update().clone();
            let waiting = match state {
                SessionState::Opening => None,
                SessionState::Waiting(waiting) => Some(waiting),
                SessionState::Open(_) | SessionState::Refused(_) => {
                    if began.is_some() && has_pty {
                        self.draw("\r\x1b[K").await;
                    }
                    if !ahead.is_empty() {
                        self.start.ahead = [&self.start.ahead[..], &ahead[..]].concat().into();
                    }
                    return Some(state);
                }
            };
            if let (Some(waiting), None) = (&waiting, began) {
                began = Some(Instant::now());
                if !has_pty && self.start.program == Program::Shell {
                    channel::tell(self.client, false, &[text(waiting)]).await;
                }
            }
            // What comes before it is known whether anybody waits stays where it is: that takes a moment.
            let reads = waiting.is_some() && ahead.len() < MOST_AHEAD;
            tokio::select! {
                changed = session.changed() => if changed.is_err() {
                    return None; // the login's task is gone, so is the connection
                },
                () = self.gone.cancelled() => return None,
                message = self.read.wait(), if reads => match message {
                    None | Some(ChannelMsg::Close) => return None,
                    Some(ChannelMsg::Data { data }) if has_pty && data.iter().any(|byte| INTERRUPTS.contains(byte)) => {
                        self.draw("\r\x1b[K").await;
                        channel::exit(self.client, INTERRUPTED).await;
                        return None;
                    }
                    Some(ChannelMsg::Data { data }) if !self.start.ahead_is_all => ahead.extend_from_slice(&data),
                    Some(ChannelMsg::Eof) => self.start.ahead_is_all = true,
                    Some(_) => {}
                },
                // Of a forward nothing is asked.
                request = self.requests.recv(), if waiting.is_some() && !self.client.is_forward => match (request, &mut self.start.pty) {
                    (Some(Request::Resize { size, pixels }), Some(pty)) => {
                        pty.size = size;
                        (pty.pixel_width, pty.pixel_height) = pixels;
                    }
                    (Some(Request::Resize { .. } | Request::Signal(_)), _) => {} // nothing runs
                    (None, _) => return None,
                },
                _ = ticks.tick(), if waiting.is_some() && has_pty => if let (Some(waiting), Some(began)) = (waiting, began) {
                    let waited = notice::duration(TimeDelta::from_std(began.elapsed()).unwrap_or_default());
                    self.status(&format!("{}, {waited}. Ctrl-C: leave", text(&waiting))).await;
                },
            }
        }
    }

    async fn status(&self, text: &str) {
        // One column is left free, or some terminals go to the next line.
        let cols = self.start.pty.as_ref().map_or(80, |pty| pty.size.drawable().cols);
        let text: String = text.chars().take(usize::from(cols).saturating_sub(1)).collect();
        self.draw(&format!("\r\x1b[K{text}")).await;
    }

    async fn draw(&self, text: &str) {
        let drawn = self.client.write.data_bytes(text.as_bytes().to_vec());
        let _ = tokio::time::timeout(WRITE, drawn).await; // who does not read it does not need it
    }
}

fn text(waiting: &Waiting) -> String {
    match waiting.approval {
        Approval::Watcher => format!("waiting for a watcher of {}", waiting.session),
        Approval::None | Approval::PerSession => format!("waiting for approval, {}", waiting.request),
    }
}
