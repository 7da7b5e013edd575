//! Following a session live, all of its channels, from before its start to its end; and the proof that somebody does.
//!
//! Whoever follows is given a *beat* every second, a random number among the frames, behind everything that there was so far. Who gives it
//! back has read that far, and counts for [`BEAT_HOLDS`] from when it was sent: a reader that is stalled or dead, or behind, stops
//! counting by itself, whatever its socket still takes. Whether somebody who counts is a watcher under the grant is the rule's
//! question (`domain/consent.rs`). It all goes through the database, for the session may be on another node, and so may the answer.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use chrono::TimeDelta;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::{GrantId, RecordingId, SessionId, WatchId};
use sallyport_domain::recording::frame::Frame;
use sallyport_domain::request::{RequestState, Wish};
use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use crate::app::recordings::read::{ReadError, Reader, Step};
use crate::app::{App, audit};
use crate::store::db::watches::Beat;
use crate::store::db::{self, DbError, Tx, watches};

/// How long a beat counts from when it is sent, if it is given back.
pub const BEAT_HOLDS: TimeDelta = TimeDelta::seconds(5);

/// How often a beat is sent.
const BEAT: Duration = Duration::from_secs(1);

/// How often it is looked for new channels, and for more on those that there are.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// For so long a row is kept of who does not follow any more.
const KEPT: TimeDelta = TimeDelta::hours(1);

/// Why a session cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("there is no session {id}, and none of this id waits for its start")]
    Unknown { id: SessionId },
    #[error("session {id} has ended")]
    Ended { id: SessionId },
    #[error("nobody watches sessions under a grant that names them")]
    UnderGrant,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What somebody is told who follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Give this back.
    Beat(Uuid),
    /// What follows happened on this channel.
    Channel {
        recording: RecordingId,
        channel: u32,
    },
    Frames(Vec<Frame>),
    /// This channel's recording is complete.
    ChannelEnded {
        recording: RecordingId,
    },
}

/// Somebody's following of one session.
pub struct Watch {
    app: App,
    actor: Actor,
    session: SessionId,
    id: WatchId,
    ready: VecDeque<Told>,
    channels: Vec<Channel>,
    /// Recordings that are followed, were, or were over at the beginning.
    known: HashSet<RecordingId>,
    looked: Option<Instant>,
    last_beat: Instant,
    /// What was told last is of this recording.
    current: Option<RecordingId>,
    over: bool,
}

struct Channel {
    recording: RecordingId,
    number: u32,
    reader: Reader,
}

enum Found {
    /// It waits for its start, or lives.
    GoesOn(GrantId),
    Over,
}

async fn find(tx: &mut Tx, app: &App, id: SessionId) -> Result<Option<Found>, DbError> {
    if let Some(record) = db::sessions::find(tx, id).await? {
        return Ok(Some(if record.ended.is_some() { Found::Over } else { Found::GoesOn(record.session.grant) }));
    }
    let request = db::requests::of_session(tx, id).await?;
    Ok(request.and_then(|request| match (request.state_at(app.clock.now()), request.wish) {
        (RequestState::Open | RequestState::Approved { .. }, Wish::Session { grant, .. }) => Some(Found::GoesOn(grant)),
        (_, Wish::Session { .. }) => Some(Found::Over),
        (_, Wish::Access { .. } | Wish::MoreTime { .. }) => None,
    }))
}

/// Begins to follow `session`, live or waiting for its start. Always an event.
pub async fn begin(app: &App, actor: &Actor, session: SessionId) -> Result<Watch, WatchError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let grant = match find(&mut tx, app, session).await? {
        Some(Found::GoesOn(grant)) => grant,
        Some(Found::Over) => return Err(WatchError::Ended { id: session }),
        None => return Err(WatchError::Unknown { id: session }),
    };
    let person = audit::person(actor);
    let grant = db::grants::find(&mut tx, grant).await?;
    if person.is_some_and(|person| grant.is_some_and(|grant| grant.people.contains(&person))) {
        return Err(WatchError::UnderGrant);
    }
    watches::forget(&mut tx, now - KEPT).await?;
    let (id, beat) = (WatchId::from_uuid(Uuid::now_v7()), Beat { token: Uuid::new_v4(), until: now + BEAT_HOLDS });
    watches::insert(&mut tx, id, session, person, beat).await?;
    audit::append(&mut tx, now, actor, Act::WatchStarted { session, watch: id }).await?;
    tx.commit().await?;
    Ok(Watch {
        app: app.clone(),
        actor: actor.clone(),
        session,
        id,
        ready: VecDeque::from([Told::Beat(beat.token)]),
        channels: Vec::new(),
        known: HashSet::new(),
        looked: None,
        last_beat: Instant::now(),
        current: None,
        over: false,
    })
}

/// Takes a beat that somebody gives back; `false` if it is not the one that is out.
pub async fn answer(app: &App, session: SessionId, watch: WatchId, beat: Uuid) -> Result<bool, DbError> {
    let mut tx = app.db.write().await?;
    let counted = watches::counts(&mut tx, watch, app.clock.now()).await?;
    let taken = watches::answer(&mut tx, watch, session, beat).await?;
    tx.commit().await?;
    if taken && !counted {
        app.changes.notify(); // a session on this node that waits or stands still goes on at once
    }
    Ok(taken)
}

impl Watch {
    pub fn id(&self) -> WatchId {
        self.id
    }

    /// What is to be told next; `None` once the session is over and everything was told. What was taken and not sent on before a
    /// cancellation is lost, so whoever cancels is done.
    pub async fn next(&mut self) -> Result<Option<Told>, ReadError> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(Some(told));
            }
            if self.looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
                self.look().await?;
            }
            if self.read().await? {
                continue;
            }
            if self.over && self.channels.is_empty() {
                return Ok(None);
            }
            // Only here: whoever gives it back has read everything that there was.
            if self.last_beat.elapsed() >= BEAT && self.beat().await? {
                continue;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Follows no longer.
    pub async fn end(self) {
        let ended = async {
            let now = self.app.clock.now();
            let mut tx = self.app.db.write().await?;
            watches::end(&mut tx, self.id, now).await?;
            let act = Act::WatchEnded { session: self.session, watch: self.id };
            audit::append(&mut tx, now, &self.actor, act).await?;
            tx.commit().await
        };
        match ended.await {
            Ok(()) => self.app.changes.notify(),
            Err(error) => debug!(%error, "The end of a watch could not be written; it stops counting by itself."),
        }
    }

    /// Finds what runs by now.
    async fn look(&mut self) -> Result<(), DbError> {
        let is_first = self.looked.is_none();
        let mut tx = self.app.db.read().await?;
        let found = find(&mut tx, &self.app, self.session).await?;
        let recordings = db::recordings::of_session(&mut tx, self.session).await?;
        drop(tx);
        self.over = !matches!(found, Some(Found::GoesOn(_)));
        for record in recordings {
            let (recording, number) = (record.recording.id, record.recording.channel);
            let was_over = is_first && record.progress.ended_at.is_some();
            if self.known.insert(recording) && !was_over {
                let reader = Reader::new(self.app.clone(), recording, true);
                self.channels.push(Channel { recording, number, reader });
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Reads what there is on each channel, once; whether there was anything.
    async fn read(&mut self) -> Result<bool, ReadError> {
        let mut ended = Vec::new();
        for Channel { recording, number, reader } in &mut self.channels {
            let recording = *recording;
            match reader.step().await? {
                Step::Frames(frames) => {
                    if self.current.replace(recording) != Some(recording) {
                        self.ready.push_back(Told::Channel { recording, channel: *number });
                    }
                    self.ready.push_back(Told::Frames(frames));
                }
                Step::Nothing => {}
                Step::End => ended.push(recording),
            }
        }
        self.channels.retain(|channel| !ended.contains(&channel.recording));
        self.ready.extend(ended.into_iter().map(|recording| Told::ChannelEnded { recording }));
        Ok(!self.ready.is_empty())
    }

    /// Sends a new beat, once the last one came back.
    async fn beat(&mut self) -> Result<bool, DbError> {
        let beat = Beat { token: Uuid::new_v4(), until: self.app.clock.now() + BEAT_HOLDS };
        let mut tx = self.app.db.write().await?;
        let is_due = watches::beat(&mut tx, self.id, beat).await?;
        tx.commit().await?;
        if is_due {
            self.last_beat = Instant::now();
            self.ready.push_back(Told::Beat(beat.token));
        }
        Ok(is_due)
    }
}
