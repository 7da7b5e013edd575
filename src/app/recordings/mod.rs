//! Recordings: from the first byte to rest, and back.
//!
//! ```text
//! proxy ──► Recorder ──► journal (local disk) ──► wire
//!                            │
//!                            ▼        within a second                when large or old enough
//!                         keeper ──► live tail (database) ──► segments (object store, rows in the database)
//! ```
//!
//! - [`journal`]: the files, their writer and their reader.
//! - [`seal`]: frames to segments, in pure computation.
//! - [`keeper`]: one task a recording; carries the journal to rest.
//! - [`aside`]: the threads on which that is computed.
//! - [`recover`]: journals that a crash left behind.
//! - [`read`]: a recording's frames, wherever they are.

mod aside;
pub mod journal;
mod keeper;
pub mod read;
mod recover;
mod seal;

pub(crate) use self::seal::decompress;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use sallyport_domain::channel::{Program, Pty};
use sallyport_domain::event::{Act, Actor, Event};
use sallyport_domain::id::{EventId, RecordingId, SessionId};
use sallyport_domain::recording::frame::Body;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;
use uuid::Uuid;

use self::aside::Aside;
use self::journal::{Disk, Durability, Journal, JournalWriteError, Written};
pub(crate) use self::keeper::{is_object_of, object_key};
pub use self::recover::{LeftBehind, RecoverError};
use crate::app::App;
use crate::store::db::{self, DbError};

/// How recordings are kept: `[recording]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordingSettings {
    /// Where journals are kept. Empty means `journal` in the data folder.
    pub journal_dir: PathBuf,
    /// When a byte may go out: `process` (it survives the death of the bastion) or `power` (it is on the disk).
    pub durability: Durability,
    /// How often journals are flushed to the disk where `durability` is `process`.
    #[serde(with = "crate::store::duration")]
    pub flush_interval: Duration,
    /// How often what is new in a live recording goes to the database.
    #[serde(with = "crate::store::duration")]
    pub ship_interval: Duration,
    /// A segment is cut when it holds this much. Recordings without a terminal take four times as much.
    pub segment_bytes: ByteSize,
    /// A segment is cut when it is this old.
    #[serde(with = "crate::store::duration")]
    pub segment_time: Duration,
    /// What a client may send ahead of a target that does not take it; then the session is cut.
    pub stdin_budget: ByteSize,
    /// How far a recording's journal may be ahead of what is at rest; then its session waits.
    pub backlog_budget: ByteSize,
}

impl Default for RecordingSettings {
    fn default() -> Self {
        Self {
            journal_dir: PathBuf::new(),
            durability: Durability::Process,
            flush_interval: Duration::from_millis(100),
            ship_interval: Duration::from_millis(500),
            segment_bytes: ByteSize::kib(256),
            segment_time: Duration::from_secs(120),
            stdin_budget: ByteSize::gib(2),
            backlog_budget: ByteSize::gib(1),
        }
    }
}

/// Starts recordings and carries them to rest. Cheap to clone.
#[derive(Clone)]
pub struct Recordings(Arc<Inner>);

struct Inner {
    app: App,
    settings: RecordingSettings,
    disk: Disk,
    /// Where sealing computes, leaving the cores to those who carry bytes.
    aside: Aside,
    keepers: TaskTracker,
    /// Live recordings, to be measured.
    live: Mutex<Vec<Weak<Shared>>>,
    /// Set when the program ends: keepers give up what cannot be shipped now; the journals stay for the next start.
    stop: CancellationToken,
}

/// What is about to be recorded.
#[derive(Debug, Clone)]
pub struct NewRecording {
    pub id: RecordingId,
    pub session: SessionId,
    /// Counts the session's channels from 1.
    pub channel: u32,
    pub program: Program,
    pub pty: Option<Pty>,
    /// What passes is kept; if not, only when how many bytes did.
    pub keeps_content: bool,
}

/// Why a recording could not be started. Its program must not be.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot create the journal")]
    Journal(#[source] std::io::Error),
    /// Another node has closed it: what came now would be in no manifest.
    #[error("the session has ended in the books")]
    SessionEnded,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why something could not be recorded. What was to be recorded must not be sent on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Journal(#[from] JournalWriteError),
    /// The recorder was finished.
    #[error("the recording has ended")]
    Ended,
}

/// How a recording ended; kept as JSON in its last frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// `closed`, `cut`, `target closed`, `crashed`.
    pub how: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How live recordings do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// In journals, and not at rest.
    pub journal_bytes: u64,
    /// How long ago the oldest was recorded that is in a journal and nowhere else, in the slowest recording.
    pub lag: Duration,
}

impl Recordings {
    /// Opens the journals' disk. Call [`Recordings::find_left_behind`] before the first recording.
    pub fn new(app: App, settings: RecordingSettings) -> std::io::Result<Self> {
        std::fs::create_dir_all(&settings.journal_dir)?;
        let disk = Disk::start(settings.durability, settings.flush_interval)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self(Arc::new(Inner {
            app,
            settings,
            disk,
            aside: Aside::start(cores)?,
            keepers: TaskTracker::new(),
            live: Mutex::default(),
            stop: CancellationToken::new(),
        })))
    }

    /// The settings in force.
    pub fn settings(&self) -> &RecordingSettings {
        &self.0.settings
    }

    /// Starts a recording: its row and its event are committed and its journal exists before this returns, and only then
    /// may the program be started.
    pub async fn start(&self, new: NewRecording) -> Result<Recorder, StartError> {
        let inner = &self.0;
        let started_at = inner.app.clock.now();
        let dir = inner.settings.journal_dir.join(new.id.to_string());
        let header = Header { recording: new.id, session: new.session, started_at, boot: boot_id() };
        // A header of ids and an instant always serialises.
        let header = serde_json::to_string(&header).unwrap_or_default();
        let journal = tokio::task::spawn_blocking(move || Journal::create(dir, &header))
            .await
            .map_err(std::io::Error::other)
            .and_then(std::convert::identity)
            .map_err(StartError::Journal)?;
        if let Err(error) = self.write_start(&new, started_at).await {
            let dir = journal.dir().to_owned();
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
            return Err(error);
        }
        let shared = Arc::new(Shared::new(journal));
        {
            let mut live = inner.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.retain(|one| one.strong_count() > 0);
            live.push(Arc::downgrade(&shared));
        }
        let keeper = keeper::Keeper::new(self.clone(), &new, started_at, shared.clone());
        inner.keepers.spawn(keeper.run());
        let recorder = Recorder { disk: inner.disk.clone(), shared, budget: inner.settings.backlog_budget.as_u64() };
        if let Some(pty) = &new.pty {
            // What follows is relative to the size that the program was started with.
            let resize = vec![Body::Resize(pty.size)];
            recorder.record(resize).await.map_err(|error| StartError::Journal(std::io::Error::other(error)))?;
        }
        Ok(recorder)
    }

    async fn write_start(&self, new: &NewRecording, started_at: DateTime<Utc>) -> Result<(), StartError> {
        let mut tx = self.0.app.db.write().await?;
        if !db::sessions::hold_open(&mut tx, new.session).await? {
            return Err(StartError::SessionEnded);
        }
        let size = new.pty.as_ref().map(|pty| pty.size.drawable());
        let row = db::recordings::NewRecording {
            id: new.id,
            session: new.session,
            channel: new.channel,
            program: new.program.clone(),
            term: new.pty.as_ref().map(|pty| pty.term.clone()),
            cols: size.map(|size| size.cols),
            rows: size.map(|size| size.rows),
            started_at,
        };
        db::recordings::insert(&mut tx, &row).await?;
        let act =
            Act::RecordingStarted { session: new.session, recording: new.id, program: new.program.kind().to_owned() };
        db::events::append(&mut tx, &event(started_at, act)).await?;
        Ok(tx.commit().await?)
    }

    /// No new recordings; returns once those that are going on have ended and are at rest, or `patience` is over. What is
    /// not at rest by then stays in its journal for the next start.
    pub async fn close(&self, patience: Duration) {
        self.0.keepers.close();
        if tokio::time::timeout(patience, self.0.keepers.wait()).await.is_err() {
            self.0.stop.cancel();
            self.0.keepers.wait().await;
        }
    }

    /// How far live recordings are ahead of what is at rest.
    pub fn measure(&self) -> Measure {
        let mut measure = Measure::default();
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        for shared in live.iter().filter_map(Weak::upgrade) {
            let at_rest = shared.at_rest.load(Ordering::Acquire);
            measure.journal_bytes += shared.journal.end().saturating_sub(at_rest);
            let since = shared.behind_since.load(Ordering::Relaxed);
            // Nothing is behind: the maximum is later than any instant.
            let behind = shared.journal.elapsed_us().saturating_sub(since);
            measure.lag = measure.lag.max(Duration::from_micros(behind));
        }
        measure
    }

    /// Does `work` beside whatever else goes on; [`Recordings::close`] waits for it as for any keeper, and gives it up with them.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.keepers.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// How many recordings are not at rest yet.
    pub fn open_count(&self) -> usize {
        self.0.keepers.len()
    }
}

/// What the first frame of a journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    recording: RecordingId,
    session: SessionId,
    started_at: DateTime<Utc>,
    /// Which start of the machine this was; another one at recovery means that power was lost in between.
    boot: String,
}

/// Which start of the machine this is, or nothing where the system does not say.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// An event by the bastion's own hand.
fn event(at: DateTime<Utc>, act: Act) -> Event {
    Event { id: EventId::from_uuid(Uuid::now_v7()), at, actor: Actor::Bastion, act }
}

/// Records one channel. Both directions share one by reference; [`Recorder::finish`] ends it.
pub struct Recorder {
    disk: Disk,
    shared: Arc<Shared>,
    budget: u64,
}

/// What a recorder and its keeper share.
struct Shared {
    journal: Arc<Journal>,
    /// The journal position at which the keeper wants to be woken.
    wake_at: AtomicU64,
    wake: Notify,
    /// The journal position up to which everything is at rest.
    at_rest: AtomicU64,
    /// Woken when `at_rest` moved.
    room: Notify,
    /// The journal is not given back from here on: a slow target has not been sent it yet. `u64::MAX` if nothing waits.
    keep_from: AtomicU64,
    ending: OnceLock<Ending>,
    /// Since when something in the journal is nowhere else, in microseconds since the recording began; `u64::MAX` if nothing is.
    /// For metrics: it is at most that long.
    behind_since: AtomicU64,
    /// Bytes that went through here: input, output, standard error. What the segments hold is counted again, where it is
    /// sealed, and the manifest compares the two.
    seen: [AtomicU64; 3],
}

impl Shared {
    fn new(journal: Arc<Journal>) -> Self {
        Self {
            journal,
            wake_at: AtomicU64::new(0),
            wake: Notify::new(),
            at_rest: AtomicU64::new(0),
            room: Notify::new(),
            keep_from: AtomicU64::new(u64::MAX),
            ending: OnceLock::new(),
            behind_since: AtomicU64::new(u64::MAX),
            seen: Default::default(),
        }
    }

    fn count(&self, [input, output, error_output]: [u64; 3]) {
        for (seen, bytes) in self.seen.iter().zip([input, output, error_output]) {
            seen.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// The bytes of a channel's three streams in `bodies`: input, output, standard error.
fn bytes_of(bodies: &[Body]) -> [u64; 3] {
    let mut bytes = [0; 3];
    for body in bodies {
        match body {
            Body::Input(data) => bytes[0] += data.len() as u64,
            Body::Output(data) => bytes[1] += data.len() as u64,
            Body::ErrorOutput(data) => bytes[2] += data.len() as u64,
            _ => {}
        }
    }
    bytes
}

impl Recorder {
    /// Records `bodies`, at most [`journal::MOST_FRAMES`], as one write. When it returns they may be sent on. Waits while
    /// the recording is too far ahead of what is at rest, and for the disk. An error ends the session.
    pub async fn record(&self, bodies: Vec<Body>) -> Result<Written, RecordError> {
        if self.shared.ending.get().is_some() {
            return Err(RecordError::Ended);
        }
        self.wait_for_room().await;
        let bytes = bytes_of(&bodies);
        let written = self.disk.append(&self.shared.journal, bodies).await?;
        self.shared.count(bytes); // what could not be written does not go on either, and ends the session
        if written.end >= self.shared.wake_at.load(Ordering::Acquire) {
            self.shared.wake.notify_one();
        }
        Ok(written)
    }

    async fn wait_for_room(&self) {
        loop {
            // Registered before the look, so that a move in between is not missed.
            let moved = self.shared.room.notified();
            let ahead = self.shared.journal.end().saturating_sub(self.shared.at_rest.load(Ordering::Acquire));
            // A failed journal has no keeper that would make room; the append says so.
            if ahead <= self.budget || self.shared.journal.has_failed() {
                return;
            }
            moved.await;
        }
    }

    /// Keeps the journal from `position` on, though it may be at rest, until told otherwise.
    pub fn keep_from(&self, position: Option<u64>) {
        self.shared.keep_from.store(position.unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The journal, to read back what a slow target has not been sent yet.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.shared.journal
    }

    /// Ends the recording. The keeper takes it to rest; nothing can be recorded any more. The first call counts.
    pub fn finish(&self, ending: Ending) {
        let _ = self.shared.ending.set(ending);
        self.shared.wake.notify_one();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.shared.ending.get().is_none() {
            error!(journal = %self.shared.journal.dir().display(), "A recorder was dropped before it was finished.");
            self.finish(Ending { how: "crashed".to_owned(), reason: Some("the recorder's task died".to_owned()) });
        }
    }
}
