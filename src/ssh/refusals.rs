//! Wishes that no grant can fulfil: the engineer's agent, their X11 display, something that listens at the bastion, a forward
//! to nowhere (RFC 4254 §6.3, §7.1, §7.2; OpenSSH's PROTOCOL, §2.4 and "auth-agent-req@openssh.com").
//!
//! The callback refuses each at once, and the session goes on. Here they are written down, one after another, each under a
//! reference: with the session that they were asked in, or, where there is none, with the person.

use std::sync::Arc;
use std::time::Duration;

use sallyport_domain::policy::Denial;
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, warn};

use super::Door;
use super::notice;
use super::session::SessionState;
use crate::app::access::{self, Arrival};

/// Refusals of one connection that wait to be written. A client that asks faster waits with its whole connection, and so
/// asks no faster than the database writes.
const MOST_WAITING: usize = 64;

/// How long a session may take to be opened until a refusal is written without it: clients ask for their agent's forwarding
/// before they ask for a program, and at the picker it may be long until there is a session.
const OPENING: Duration = Duration::from_secs(2);

/// The refusals of one connection, on their way to the audit log.
#[derive(Default)]
pub struct Refusals {
    writer: Option<mpsc::Sender<String>>,
}

impl Refusals {
    /// Writes that `wish` was refused, soon. Waits only while many others are still to be written.
    pub async fn note(
        &mut self,
        door: &Arc<Door>,
        arrival: Arrival,
        session: &watch::Receiver<SessionState>,
        wish: &str,
    ) {
        let writer = self.writer.get_or_insert_with(|| {
            let (writer, wishes) = mpsc::channel(MOST_WAITING);
            let writing = write(door.clone(), arrival, session.clone(), wishes);
            door.connections.spawn(writing.in_current_span());
            writer
        });
        // Its reader ends only when this end is dropped.
        let _ = writer.send(notice::printable(wish)).await;
    }
}

/// Writes each refusal until the connection has gone.
async fn write(
    door: Arc<Door>,
    arrival: Arrival,
    mut session: watch::Receiver<SessionState>,
    mut wishes: mpsc::Receiver<String>,
) {
    while let Some(wish) = wishes.recv().await {
        let decided = session.wait_for(|state| !matches!(state, SessionState::Opening | SessionState::Waiting(_)));
        let live = match tokio::time::timeout(OPENING, decided).await {
            Ok(Ok(state)) => match &*state {
                SessionState::Open(live) => Some(live.open.id),
                SessionState::Opening | SessionState::Waiting(_) | SessionState::Refused(_) => None,
            },
            Ok(Err(_)) | Err(_) => None, // none by now
        };
        let denial = Denial::NeverGranted;
        let noted = match live {
            Some(session) => access::note_refusal(&door.app, session, &wish, &denial.to_string()).await,
            None => access::note_denial(&door.app, &arrival, wish.clone(), denial).await,
        };
        match noted {
            Ok(reference) => warn!(%reference, wish, "A wish that no grant fulfils was refused."),
            Err(error) => warn!(%error, wish, "A wish was refused, which could not be written down."),
        }
    }
}
