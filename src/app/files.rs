//! What happens to files in a session, on its way to the audit log.
//!
//! Channels hand over and go on; one writer a session writes what has come in one transaction. What waits is bounded: channels
//! that are too far ahead of the database wait for it. Nothing is lost between a channel's end and the session's: the writer
//! is waited for before the session's end is written.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor, Event};
use sallyport_domain::id::{EventId, SessionId};
use tokio::sync::Notify;

use super::{App, audit};
use crate::store::db::{DbError, events};

pub use crate::store::db::events::EventFilter;

/// As many acts may wait before the channels that tell of them do. A channel adds what one batch of its packets tells.
const MOST_WAITING: usize = 4096;

/// The most that one transaction writes.
const MOST_AT_ONCE: usize = 512;

/// How long the writer gathers before it writes: 1,000 small files are a handful of transactions.
const GATHER: Duration = Duration::from_millis(50);

/// Acts of one session that are not written yet.
pub struct FileLog {
    actor: Actor,
    state: Mutex<State>,
    more: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Event>,
    closed: bool,
}

/// What a round of [`FileLog::write`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// There may be more, now or later.
    More,
    /// Everything is written, and nothing will come.
    Nothing,
}

impl FileLog {
    /// An empty log of what `actor` does.
    pub fn new(actor: Actor) -> Self {
        Self { actor, state: Mutex::default(), more: Notify::new(), room: Notify::new() }
    }

    /// Takes acts that happened at `at`, each with its event's id. Never waits, so that a caller that is cancelled has lost nothing; see [`FileLog::room`].
    pub fn tell(&self, at: DateTime<Utc>, acts: impl IntoIterator<Item = (EventId, Act)>) {
        let mut state = self.state();
        let event = |(id, act)| Event { id, at, actor: self.actor.clone(), act };
        state.waiting.extend(acts.into_iter().map(event));
        let wake = !state.waiting.is_empty();
        drop(state);
        if wake {
            self.more.notify_one();
        }
    }

    /// Waits until what is told is not too far ahead of what is written. Cancel safe.
    pub async fn room(&self) {
        loop {
            // Registered before the look, so that a move in between is not missed.
            let moved = self.room.notified();
            if self.state().waiting.len() < MOST_WAITING {
                return;
            }
            moved.await;
        }
    }

    /// Nothing will be told any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.more.notify_one();
    }

    /// Waits for acts and writes them. One caller at a time. After an error they are still there.
    pub async fn write(&self, app: &App) -> Result<Left, DbError> {
        let closed = loop {
            let (empty, closed) = {
                let state = self.state();
                (state.waiting.is_empty(), state.closed)
            };
            match (empty, closed) {
                (false, closed) => break closed,
                (true, true) => return Ok(Left::Nothing),
                (true, false) => self.more.notified().await,
            }
        };
        if !closed {
            tokio::time::sleep(GATHER).await;
        }
        let batch: Vec<_> = self.state().waiting.iter().take(MOST_AT_ONCE).cloned().collect();
        let mut tx = app.db.write().await?;
        events::append_all_once(&mut tx, &batch).await?; // a try before may have got through unheard
        tx.commit().await?;
        self.state().waiting.drain(..batch.len());
        self.room.notify_waiters();
        Ok(Left::More)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was done to files in `session`: at most `limit` acts after number `after`, each with its number and instant, the oldest first.
pub async fn of_session(
    app: &App,
    session: SessionId,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, DateTime<Utc>, Act)>, DbError> {
    let filter =
        EventFilter { kind: Some("file_operation".to_owned()), session: Some(session), ..EventFilter::default() };
    let mut tx = app.db.read().await?;
    let listed = events::list(&mut tx, after, &filter, limit.min(audit::MOST_EVENTS)).await?;
    Ok(listed.into_iter().map(|(number, event)| (number, event.at, event.act)).collect())
}

#[cfg(test)]
mod tests {
    use sallyport_domain::files::{FileAct, FileOperation, FilePath, FileResult};
    use sallyport_domain::id::RecordingId;
    use uuid::Uuid;

    use super::*;
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn everything_that_was_told_is_written_in_its_order_before_the_log_says_that_nothing_is_left() {
        on_both(|db| async {
            let app = app_on(db);
            let session = SessionId::from_uuid(Uuid::from_u128(5));
            let act = |number: usize| Act::FileOperation {
                session,
                recording: RecordingId::from_uuid(Uuid::from_u128(6)),
                operation: FileOperation {
                    act: FileAct::Remove { path: FilePath(format!("/tmp/{number}").into_bytes()) },
                    result: FileResult::Done,
                },
            };
            let log = FileLog::new(Actor::Bastion);
            log.tell(app.clock.now(), (0..MOST_AT_ONCE + 10).map(|number| (audit::new_id(), act(number))));
            log.close();

            let mut rounds = 0;
            while log.write(&app).await.unwrap() == Left::More {
                rounds += 1;
            }

            assert_eq!(rounds, 2);
            let written = of_session(&app, session, 0, 1000).await.unwrap();
            let acts: Vec<Act> = written.into_iter().map(|(_, _, act)| act).collect();
            assert_eq!(acts, (0..MOST_AT_ONCE + 10).map(act).collect::<Vec<_>>());
        })
        .await;
    }
}
