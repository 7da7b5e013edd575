//! A session that stands still: because its grant takes a watcher and nobody watches, or because an admin holds it.

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Door;
use super::notice::Note;
use super::session::Live;
use crate::app::access;

/// Whether a session stands still: then nothing of the client's goes to the target, and nothing of the target's to the client. What
/// comes from the client is journalled and waits there, within its budget; what comes from the target is not taken. Cheap to clone.
#[derive(Clone)]
pub struct Freeze(watch::Receiver<bool>);

impl Freeze {
    pub fn new(frozen: watch::Receiver<bool>) -> Self {
        Self(frozen)
    }

    pub fn is_frozen(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when that may have changed. Cancel safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await; // the session is gone, and nothing moves any more
        }
    }

    /// Waits until the session does not stand still. Cancel safe.
    pub async fn thawed(&mut self) {
        if self.0.wait_for(|frozen| !frozen).await.is_err() {
            std::future::pending::<()>().await; // as above
        }
    }
}

/// Whether and why a session stands still.
pub struct Stillness {
    /// Until when somebody who counts is known to watch.
    pub watched_until: Option<DateTime<Utc>>,
    /// The last instant at which somebody did.
    pub last_watched: DateTime<Utc>,
    /// Why an admin wants it.
    pub held: Option<String>,
    told: Told,
}

/// What is known of it at the terminals.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Moving,
    Unwatched,
    Held(String),
}

impl Stillness {
    /// Nothing is known yet of a session that starts at `now`.
    pub fn starting(now: DateTime<Utc>) -> Self {
        Self { watched_until: None, last_watched: now, held: None, told: Told::Moving }
    }

    /// Lets the session stand still, or go on, and says so.
    pub fn apply(&mut self, door: &Door, live: &Live, takes_watcher: bool) {
        let is_unwatched = takes_watcher && self.watched_until.is_none();
        live.frozen.send_if_modified(|frozen| {
            let was = std::mem::replace(frozen, is_unwatched || self.held.is_some());
            was != *frozen
        });
        let told = match &self.held {
            Some(reason) => Told::Held(reason.clone()),
            None if is_unwatched => Told::Unwatched,
            None => Told::Moving,
        };
        if told == self.told {
            return;
        }
        live.say(match &told {
            Told::Moving => Note::going_on(),
            Told::Unwatched => Note::unwatched(access::patience(&door.app)),
            Told::Held(reason) => Note::held(reason),
        });
        info!(?told, "Whether the session stands still has changed.");
        let was_unwatched = self.told == Told::Unwatched;
        self.told = told;
        // That an admin holds it is their own event. Nothing waits for the books here: whoever calls watches the window too.
        if is_unwatched != was_unwatched {
            let (app, session) = (door.app.clone(), live.open.id);
            door.connections.spawn(async move {
                if let Err(error) = access::note_frozen(&app, session, is_unwatched).await {
                    warn!(%error, "That a session stands still, or goes on, could not be written down.");
                }
            });
        }
    }
}
