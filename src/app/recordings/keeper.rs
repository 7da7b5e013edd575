//! One task a recording: it reads the journal, seals segments, stores them, and gives back what is at rest.
//!
//! ```text
//! wait for bytes, age or the end ──► seal (on a thread aside, one turn at a time)
//!      ▲                                  │
//!      └── forget the journal ◄── row in the database ◄── object in the store
//! ```
//!
//! The order keeps everything in two places until it is at rest in one: an object is written before the row that names
//! it, the row before the live tail and the journal go. Whatever is away is tried again, for as long as it takes.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use sallyport_domain::commands::Command;
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::Act;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::ledger::manifest::{Counter, Counters};
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::search::Kind;
use sallyport_domain::search::lines::Line;
use tracing::{error, warn};

use super::aside::Died;
use super::encryption::{Encryption, KeepKeyError};
use super::index::Bounds;
use super::journal::{self, JournalReadError, JournalReader, Rest};
use super::seal::{Resume, SealSettings, Sealed, Sealer};
use super::{Ending, NewRecording, Recordings, Shared, event};
use crate::app::ledger::manifests::RecordingFacts;
use crate::app::metrics::timed;
use crate::spans;
use crate::store::blob::BlobError;
use crate::store::db::search::{self, Block};
use crate::store::db::{self, DbError, Tx};

/// Journal bytes that one turn of sealing takes, so that turns are short.
const TURN_BYTES: u64 = 8 << 20;

/// Journal bytes that are in memory at once.
const READ_BYTES: usize = 512 << 10;

/// Sealed bytes that end a turn: they are in memory until they are stored.
const SEALED_BYTES: usize = 1 << 20;

/// New journal bytes for which the keeper does not wait out its interval.
const EAGER_BYTES: u64 = 1 << 20;

/// Objects of one recording that are written at once.
const PUTS_AT_ONCE: usize = 4;

/// How often what is new goes into the search index.
const INDEX_EVERY: Duration = Duration::from_secs(2);

/// The longest that the search index may take: nothing waits for it any longer.
const INDEX_DEADLINE: Duration = Duration::from_secs(5);

/// Tries to write the last of a recording into the index.
const INDEX_TRIES: u32 = 3;

/// Blocks that wait for the index; more are left out of it.
const MOST_UNINDEXED: usize = 1024;

/// A recording that was taken over is looked at this often, whether its session has stopped writing it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The longest pause between tries while the database or the store is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Carries one recording to rest.
pub(super) struct Keeper {
    recordings: Recordings,
    recording: RecordingId,
    session: SessionId,
    started_at: DateTime<Utc>,
    /// Whoever takes the recording over has the next one, and what this keeper would write is refused.
    generation: u32,
    source: Source,
    work: Option<Work>,
    /// Counts the runs of the live tail.
    tails: u64,
    exit: Option<String>,
    /// What the session's grant says about commands, once it was asked.
    rules: OnceLock<CommandRules>,
    /// Of an encrypted recording the texts of commands are not kept either.
    encryption: Option<Encryption>,
    /// Blocks that the search index has not taken yet.
    unindexed: Vec<Block>,
    /// Some were given up.
    misses_blocks: bool,
}

/// Where the frames come from.
enum Source {
    /// A journal that is being written.
    Live(Arc<Shared>),
    /// A journal that nobody writes any more, and which start of the machine wrote it.
    Left { dir: PathBuf, left: Left },
    /// No journal here: only what had been shipped to the live tail, and why there is no more.
    Lost { dir: PathBuf, frames: Vec<Frame>, gap: String },
}

/// What is known of a journal that nobody writes any more.
#[derive(Debug, Clone)]
pub(super) struct Left {
    /// The machine has run on since it was written.
    pub(super) same_boot: bool,
    /// How the recording ended.
    pub(super) ending: Ending,
    /// The grant's terms let its content be kept.
    pub(super) keeps_content: bool,
}

/// A recording that is taken to rest by somebody else than who recorded it.
pub(super) struct Orphan {
    pub(super) recording: RecordingId,
    pub(super) session: SessionId,
    pub(super) started_at: DateTime<Utc>,
    pub(super) generation: u32,
    pub(super) resume: Resume,
    pub(super) encryption: Option<Encryption>,
}

/// What a turn of sealing works on; moves to a thread aside and back.
struct Work {
    reader: JournalReader,
    sealer: Sealer,
    frames: Vec<Frame>,
    encryption: Option<Encryption>,
    /// When blocks for the search index were taken last.
    indexed_at: Instant,
}

/// What a turn brought.
#[derive(Default)]
struct Turn {
    sealed: Vec<Sealed>,
    tail: Option<Bytes>,
    /// Where the last of the segments ended, for the database.
    resume: Option<String>,
    /// Commands that are new or known better.
    commands: Vec<Command>,
    /// Blocks for the search index.
    blocks: Vec<Block>,
    /// The last "exit-status" or "exit-signal", as JSON.
    exit: Option<String>,
    /// Nothing more will come: how it ended.
    ending: Option<Ending>,
    done: bool,
    /// The journal could not be read to its end.
    damaged: bool,
}

impl Turn {
    /// Whether a turn that has read that many bytes is to end.
    fn is_full(&self, read_bytes: u64) -> bool {
        let sealed: usize = self.sealed.iter().map(|sealed| sealed.stored.len()).sum();
        read_bytes >= TURN_BYTES || sealed >= SEALED_BYTES
    }
}

/// Why a recording could not be taken to rest now.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Key(#[from] KeepKeyError),
    #[error("the program is ending")]
    Stopped,
    #[error("another node has taken the recording over")]
    TakenOver,
}

impl Keeper {
    pub(super) fn new(
        recordings: Recordings,
        new: &NewRecording,
        started_at: DateTime<Utc>,
        shared: Arc<Shared>,
        encryption: Option<Encryption>,
    ) -> Self {
        let resume = Resume::start_of(&new.program, new.pty.as_ref().map(|pty| pty.size));
        let (dir, keeps) = (shared.journal.dir().to_owned(), new.keeps_content);
        let (recording, session) = (new.id, new.session);
        let orphan = Orphan { recording, session, started_at, generation: 0, resume, encryption };
        Self::with(recordings, orphan, Source::Live(shared), dir, keeps)
    }

    /// A keeper for a journal that nobody writes any more.
    pub(super) fn left(recordings: Recordings, orphan: Orphan, dir: PathBuf, left: Left) -> Self {
        let keeps_content = left.keeps_content;
        Self::with(recordings, orphan, Source::Left { dir: dir.clone(), left }, dir, keeps_content)
    }

    /// A keeper for a recording whose journal is not here: `frames` had been shipped.
    pub(super) fn lost(recordings: Recordings, orphan: Orphan, dir: PathBuf, frames: Vec<Frame>, gap: String) -> Self {
        Self::with(recordings, orphan, Source::Lost { dir: dir.clone(), frames, gap }, dir, true)
    }

    fn with(recordings: Recordings, orphan: Orphan, source: Source, dir: PathBuf, keeps_content: bool) -> Self {
        let Orphan { recording, session, started_at, generation, resume, encryption } = orphan;
        let settings = SealSettings {
            segment_bytes: recordings.0.settings.segment_bytes.as_u64(),
            segment_us: u64::try_from(recordings.0.settings.segment_time.as_micros()).unwrap_or(u64::MAX),
            index: if encryption.is_some() { Bounds { lines: 0, bytes: 0 } } else { recordings.index_bounds() },
        };
        let reader = JournalReader::new(dir, resume.position);
        let sealer = Sealer::new(settings, resume, keeps_content).encrypting(encryption.clone());
        let work = Some(Work {
            reader,
            sealer,
            frames: Vec::new(),
            encryption: encryption.clone(),
            indexed_at: Instant::now(),
        });
        let (tails, exit, rules) = (0, None, OnceLock::new());
        let (unindexed, misses_blocks) = (Vec::new(), false);
        Self {
            recordings,
            recording,
            session,
            started_at,
            generation,
            source,
            work,
            tails,
            exit,
            rules,
            encryption,
            unindexed,
            misses_blocks,
        }
    }

    /// Runs until the recording is at rest, or the program ends. Gives back the last instant in the recording, in
    /// microseconds since its start, if it came to rest.
    pub(super) async fn run(mut self) -> Option<u64> {
        loop {
            self.wait().await;
            // Apart from the wait these are short: on the heap, an idle recording holds no room for them.
            let turn = match Box::pin(self.turn()).await {
                Ok(turn) => turn,
                Err(error) => {
                    error!(recording = %self.recording, %error, "A recording's keeper failed; the journal is kept.");
                    self.fail("its keeper failed");
                    return None;
                }
            };
            if turn.damaged {
                self.fail("it could not be read back");
            }
            if turn.exit.is_some() {
                self.exit.clone_from(&turn.exit);
            }
            // Before the segments, so that where a sealer resumes no lines are behind it that are not in the index.
            Box::pin(self.index(&turn)).await;
            match Box::pin(self.bring_to_rest(&turn)).await {
                Ok(()) => {}
                Err(KeepError::Stopped) => return None,
                Err(KeepError::TakenOver) => {
                    self.give_up().await;
                    return None;
                }
                Err(error) => {
                    error!(recording = %self.recording, %error, "A recording could not be stored; the journal is kept.");
                    self.fail("its recording could not be stored");
                    return None;
                }
            }
            if turn.done {
                if turn.damaged {
                    super::recover::set_aside(self.dir(), "damaged").await;
                } else {
                    self.forget_journal().await;
                }
                return self.work.as_ref().map(|work| work.sealer.progress().1);
            }
        }
    }

    /// Somebody else has closed the recording with what had been shipped. Whoever writes it must stop; then its journal completes it.
    async fn give_up(self) {
        let Source::Live(shared) = &self.source else { return };
        warn!(recording = %self.recording, "Another node has taken a recording over; this one stops, and completes it from its journal.");
        self.fail("another node has closed the recording in the books");
        let ending = loop {
            if let Some(ending) = shared.ending.get() {
                break ending.clone();
            }
            tokio::select! {
                // It is woken by the end, and looks for itself should it have been told before.
                () = shared.wake.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.recordings.0.stop.cancelled() => return, // the next start finds it
            }
        };
        let (recordings, recording, dir) = (self.recordings.clone(), self.recording, shared.journal.dir().to_owned());
        drop(self);
        recordings.complete(recording, dir, ending).await;
    }

    /// Waits until there is something to do.
    async fn wait(&self) {
        let (Source::Live(shared), Some(work)) = (&self.source, &self.work) else {
            return;
        };
        let position = work.sealer.position();
        let interval = self.recordings.0.settings.ship_interval;
        let more = |from: u64| shared.journal.end() > from || shared.ending.get().is_some();
        // Until anything is new, or something pending grows old.
        shared.wake_at.store(position + 1, Ordering::Release);
        while !more(position) {
            shared.behind_since.store(u64::MAX, Ordering::Relaxed);
            // What was typed is held back until it is known whether it was echoed; what is young goes to the tail later.
            let soon = work.sealer.is_waiting() || work.sealer.oldest_untailed().is_some();
            let age = match () {
                () if soon => interval / 2,
                () if work.sealer.has_index_news() || !self.unindexed.is_empty() => INDEX_EVERY,
                () => self.recordings.0.settings.segment_time,
            };
            if tokio::time::timeout(age, shared.wake.notified()).await.is_err() {
                return;
            }
        }
        // Nothing was behind before: from now on something is.
        let now = shared.journal.elapsed_us();
        let _behind = shared.behind_since.compare_exchange(u64::MAX, now, Ordering::Relaxed, Ordering::Relaxed);
        // Then a moment more, so that key-strokes share a turn; not while much comes.
        let eager = position + EAGER_BYTES;
        shared.wake_at.store(eager, Ordering::Release);
        let deadline = tokio::time::sleep(interval / 2);
        tokio::pin!(deadline);
        while shared.journal.end() < eager && shared.ending.get().is_none() {
            tokio::select! {
                () = &mut deadline => return,
                () = shared.wake.notified() => {}
            }
        }
    }

    /// Reads and seals for a while, away from the runtime's threads.
    async fn turn(&mut self) -> Result<Turn, Died> {
        let Some(mut work) = self.work.take() else {
            return Ok(Turn { done: true, ..Turn::default() });
        };
        let source = match &mut self.source {
            Source::Live(shared) => {
                // Looked at in this order: what was written before the end was set is read before the end counts.
                let ending = shared.ending.get().cloned();
                let tail_us =
                    u64::try_from(self.recordings.0.settings.ship_interval.as_micros() / 2).unwrap_or(u64::MAX);
                Feed::Live { end: shared.journal.end(), now_us: shared.journal.elapsed_us(), tail_us, ending }
            }
            Source::Left { left, .. } => Feed::Left(left.clone()),
            Source::Lost { frames, gap, .. } => Feed::Lost { frames: std::mem::take(frames), gap: gap.clone() },
        };
        let sealing = move || {
            let turn = work.turn(source);
            (work, turn)
        };
        let (work, turn) = self.recordings.0.aside.run(sealing).await?;
        self.work = Some(work);
        Ok(turn)
    }

    async fn bring_to_rest(&mut self, turn: &Turn) -> Result<(), KeepError> {
        if turn.sealed.is_empty() && turn.tail.is_none() && turn.commands.is_empty() && !turn.done {
            return Ok(());
        }
        let inner = self.recordings.0.clone();
        let mut pause = Duration::from_millis(100);
        loop {
            let stored = timed(&inner.app.metrics.recording_store_seconds, self.try_bring_to_rest(turn)).await;
            let error = match stored {
                Ok(()) => break,
                Err(KeepError::TakenOver) => return Err(KeepError::TakenOver),
                Err(error) => error,
            };
            if pause >= LONGEST_PAUSE {
                warn!(recording = %self.recording, %error, "A recording waits in its journal; trying again.");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = inner.stop.cancelled() => return Err(KeepError::Stopped),
            }
        }
        if turn.tail.is_some() {
            self.tails += 1;
        }
        if let (Source::Live(shared), Some(work)) = (&self.source, &self.work) {
            // What was recorded up to there is elsewhere too by now.
            shared.behind_since.fetch_max(work.sealer.progress().1, Ordering::Relaxed);
        }
        if let (Source::Live(shared), Some(last)) = (&self.source, turn.sealed.last()) {
            shared.at_rest.store(last.resume.position, Ordering::Release);
            shared.room.notify_waiters();
            let position = last.resume.position.min(shared.keep_from.load(Ordering::Acquire));
            let dir = shared.journal.dir().to_owned();
            // A file that could not be removed now goes with the directory at the end.
            let _ = tokio::task::spawn_blocking(move || journal::remove_before(&dir, position)).await;
        }
        Ok(())
    }

    async fn try_bring_to_rest(&self, turn: &Turn) -> Result<(), KeepError> {
        let inner = &self.recordings.0;
        let key = |number| object_key(self.recording, number, self.generation);
        let puts: Vec<_> = turn.sealed.iter().map(|sealed| self.ship(key(sealed.number), sealed)).collect();
        futures::stream::iter(puts).buffer_unordered(PUTS_AT_ONCE).try_collect::<()>().await?;
        let mut tx = inner.app.db.write().await?;
        // First of all, so that nothing is written to what is in other hands; the row stays locked until the commit.
        let fresh = self.note_progress(&mut tx, turn).await?;
        for sealed in &turn.sealed {
            let segment = db::recordings::SegmentRecord {
                number: sealed.number,
                start_us: sealed.start_us,
                end_us: sealed.end_us,
                bytes: sealed.bytes,
                stored_bytes: sealed.stored.len() as u64,
                sha256: sealed.sha256,
                chain: sealed.resume.chain,
                object: key(sealed.number),
            };
            db::recordings::insert_segment(&mut tx, self.recording, &segment).await?;
        }
        if let Some(live) = self.encryption.as_ref().and_then(Encryption::live_key) {
            if turn.done {
                db::encryption::forget_live_key(&mut tx, self.recording).await?;
            } else if turn.tail.is_some() || !turn.sealed.is_empty() {
                // A database that crashed has lost it.
                live.keep(&inner.app, &mut tx, self.recording).await?;
            }
        }
        if let (Some(tail), Some(work)) = (&turn.tail, &self.work) {
            db::recordings::insert_tail(&mut tx, self.recording, self.tails, work.sealer.number(), tail).await?;
        }
        if let Some(last) = turn.sealed.last() {
            db::recordings::delete_tail(&mut tx, self.recording, last.number).await?;
        }
        if let Some(work) = &self.work {
            self.note_commands(&mut tx, turn).await?;
            if turn.done && fresh {
                let resume = work.sealer.resume();
                let ending = turn.ending.clone().unwrap_or_else(|| Ending { how: "crashed".to_owned(), reason: None });
                if let Ok(seal) = serde_json::to_string(&self.facts(resume, ending)) {
                    db::manifests::set_seal(&mut tx, self.recording, &seal).await?;
                }
                let act = Act::RecordingEnded {
                    session: self.session,
                    recording: self.recording,
                    segments: resume.number,
                    chain: resume.chain.to_string(),
                    gaps: work.sealer.progress().0.gaps,
                };
                db::events::append(&mut tx, &event(inner.app.clock.now(), act)).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Brings what is new into the search index, if it takes it now: a recording comes to rest with or without.
    async fn index(&mut self, turn: &Turn) {
        if self.encryption.is_some() {
            return; // what only the client's keys are to open is not kept as text beside it
        }
        self.unindexed.extend(turn.blocks.iter().cloned());
        self.unindexed.extend(turn.commands.iter().map(|command| Block {
            kind: Kind::Command,
            number: command.number.into(),
            lines: vec![Line { at: command.at, text: command.text.replace('\n', " ") }],
        }));
        if self.unindexed.is_empty() && !turn.done {
            return;
        }
        let tries = if turn.done { INDEX_TRIES } else { 1 };
        for _ in 0..tries {
            let error = match tokio::time::timeout(INDEX_DEADLINE, self.try_index(turn.done)).await {
                Ok(Ok(bounds)) => {
                    self.unindexed.clear();
                    if let Some(work) = &mut self.work {
                        work.sealer.indexer().bound(bounds);
                    }
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => "the database takes too long".to_owned(),
            };
            if turn.done || self.unindexed.len() > MOST_UNINDEXED {
                warn!(recording = %self.recording, error, "What was recorded could not be added to the search index.");
            }
        }
        if self.unindexed.len() > MOST_UNINDEXED {
            self.unindexed.clear();
            self.misses_blocks = true;
        }
    }

    /// Gives back how much of this recording may be in the index, as the session's others leave it.
    async fn try_index(&self, done: bool) -> Result<Bounds, DbError> {
        let Bounds { lines, bytes } = self.recordings.index_bounds();
        let mut tx = self.recordings.0.app.db.write().await?;
        let others = search::state(&mut tx, self.session, Some(self.recording)).await?;
        let bounds = Bounds { lines: lines.saturating_sub(others.lines), bytes: bytes.saturating_sub(others.bytes) };
        if db::recordings::generation(&mut tx, self.recording).await? != Some(self.generation) {
            return Ok(bounds); // another node has taken it over, and its index with it
        }
        let room = u64::from(db::commands::MOST_KEPT).saturating_sub(others.commands);
        // A recording that begins cannot know yet what its session's others have used.
        let fits = self.work.as_ref().is_none_or(|work| work.sealer.index_state().lines <= bounds.lines);
        for block in &self.unindexed {
            let has_room = if block.kind == Kind::Command { block.number < room } else { fits };
            if has_room {
                search::put(&mut tx, self.recording, block).await?;
            }
        }
        if let Some(work) = &self.work {
            let (state, commands) = (work.sealer.index_state(), work.sealer.commands());
            // What an earlier run may have written and this one, from the same frames, has not.
            if let (true, Source::Left { .. } | Source::Lost { .. }) = (done, &self.source) {
                for (kind, end) in [
                    (Kind::Screen, state.end(Kind::Screen)),
                    (Kind::File, state.end(Kind::File)),
                    (Kind::Command, work.sealer.next_command().into()),
                ] {
                    search::delete_from(&mut tx, self.recording, kind, end).await?;
                }
            }
            let indexed = search::Indexed {
                lines: if fits { state.lines } else { 0 },
                bytes: if fits { state.bytes } else { 0 },
                commands: commands.min(room),
                is_cut: !fits || state.is_cut || state.passes_over || commands > room || self.misses_blocks,
            };
            search::set_state(&mut tx, self.recording, self.session, &indexed).await?;
        }
        tx.commit().await?;
        Ok(bounds)
    }

    async fn ship(&self, key: String, sealed: &Sealed) -> Result<(), BlobError> {
        let span = spans::ship(self.recording, sealed.stored.len());
        let stored = self.recordings.0.app.blobs.put(&key, sealed.stored.clone()).await;
        match &stored {
            Ok(()) => span.outcome("stored"),
            Err(_) => span.failure("failed"),
        }
        stored
    }

    /// Notes how far the recording has come; `false` if its end was noted before.
    async fn note_progress(&self, tx: &mut Tx, turn: &Turn) -> Result<bool, KeepError> {
        let Some(work) = &self.work else { return Ok(false) };
        let (counters, last_us) = work.sealer.progress();
        let resume = work.sealer.resume();
        let ended_at = turn.done.then(|| self.started_at + TimeDelta::microseconds(last_us.cast_signed()));
        let progress = db::recordings::Progress {
            duration_us: last_us,
            segments: resume.number,
            chain: resume.chain,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            gaps: counters.gaps,
            commands: work.sealer.commands(),
            exit: self.exit.clone(),
            // A resume point is where a segment ended; one without a new segment would tell lies about the rest.
            resume: turn.resume.clone(),
            ended_at,
        };
        let recovers = matches!(self.source, Source::Left { .. });
        let hand = db::recordings::Hand { generation: self.generation, recovers };
        if db::recordings::update(tx, self.recording, hand, &progress).await? {
            return Ok(true);
        }
        // After a commit whose answer was lost the second try finds the end written, and its event with it.
        match db::recordings::generation(tx, self.recording).await? {
            Some(generation) if generation == self.generation => Ok(false),
            Some(_) | None => Err(KeepError::TakenOver),
        }
    }

    /// What the recording holds, for its session's manifest.
    fn facts(&self, resume: &Resume, Ending { how, reason }: Ending) -> RecordingFacts {
        let tally = &resume.tally;
        let recorded = [tally.input, tally.output, tally.error_output];
        let seen = match &self.source {
            Source::Live(shared) => shared.seen.each_ref().map(|seen| seen.load(Ordering::Relaxed)),
            // Who saw them is dead: the journal is the only witness.
            Source::Left { .. } | Source::Lost { .. } => recorded,
        };
        let [input, output, error_output] =
            std::array::from_fn(|stream| Counter { seen: seen[stream], recorded: recorded[stream] });
        let counters = Counters { input, masked: tally.masked, output, error_output };
        RecordingFacts { how, reason, counters, gaps: resume.holes.clone() }
    }

    /// Writes what is known of commands, and an event for each that the grant flags. To do it again changes nothing.
    async fn note_commands(&self, tx: &mut Tx, turn: &Turn) -> Result<(), DbError> {
        let mut room = None;
        for command in &turn.commands {
            let flag = self.rules(tx).await?.flag(&command.text).map(|pattern| pattern.as_str().to_owned());
            let at = self.started_at + TimeDelta::microseconds(command.at.cast_signed());
            let number = command.number;
            let fresh = match &flag {
                Some(pattern) => {
                    (db::commands::flag(tx, self.recording, number).await?.as_ref() != Some(pattern)).then_some(pattern)
                }
                None => None,
            };
            let mut command = command.clone();
            if self.encryption.is_some() {
                command.text.clear();
            }
            let record = db::commands::CommandRecord { recording: self.recording, at, command, flag: flag.clone() };
            if !db::commands::update(tx, &record).await? {
                let left = match room {
                    Some(left) => left,
                    None => {
                        let kept = db::commands::counts(tx, self.session).await?.kept;
                        u64::from(db::commands::MOST_KEPT).saturating_sub(kept)
                    }
                };
                room = Some(left.saturating_sub(1));
                if left > 0 {
                    db::commands::insert(tx, self.session, &record).await?;
                }
            }
            if let Some(pattern) = fresh {
                let (session, recording) = (self.session, self.recording);
                let act = Act::CommandFlagged { session, recording, number, pattern: pattern.clone() };
                db::events::append(tx, &event(self.recordings.0.app.clock.now(), act)).await?;
            }
        }
        // Without the key of an encrypted recording it is not known how many commands were told of before.
        if self.encryption.as_ref().is_some_and(|encryption| encryption.live_key().is_none()) {
            return Ok(());
        }
        // What an earlier run may have told of and this one, from the same frames, has not.
        if let (true, Source::Left { .. } | Source::Lost { .. }, Some(work)) = (turn.done, &self.source, &self.work) {
            db::commands::delete_from(tx, self.recording, work.sealer.next_command()).await?;
        }
        Ok(())
    }

    async fn rules(&self, tx: &mut Tx) -> Result<&CommandRules, DbError> {
        if let Some(rules) = self.rules.get() {
            return Ok(rules);
        }
        let found = db::sessions::find(tx, self.session).await?;
        Ok(self.rules.get_or_init(|| found.map(|found| found.session.terms.commands).unwrap_or_default()))
    }

    fn dir(&self) -> &Path {
        match &self.source {
            Source::Live(shared) => shared.journal.dir(),
            Source::Left { dir, .. } | Source::Lost { dir, .. } => dir,
        }
    }

    /// No record, no session: whoever writes this journal must stop.
    fn fail(&self, why: &str) {
        if let Source::Live(shared) = &self.source {
            shared.journal.fail(why);
            shared.room.notify_waiters();
        }
    }

    async fn forget_journal(&self) {
        let dir = self.dir().to_owned();
        let shown = dir.display().to_string();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, journal = shown, "A journal that is at rest could not be removed.");
        }
    }
}

/// The key of a segment in the object store. Whoever takes a recording over writes under keys of their own: two keepers that believe
/// to be the one must not write over each other.
pub(crate) fn object_key(recording: RecordingId, number: u32, generation: u32) -> String {
    match generation {
        0 => format!("recordings/{recording}/{number:08}.sps.zst"),
        _ => format!("recordings/{recording}/{number:08}-{generation}.sps.zst"),
    }
}

/// Whether `key` is one of those that the segment may have.
pub(crate) fn is_object_of(recording: RecordingId, number: u32, key: &str) -> bool {
    let start = format!("recordings/{recording}/{number:08}");
    let middle = key.strip_prefix(&start).and_then(|rest| rest.strip_suffix(".sps.zst"));
    let is_generation = |digits: &str| !digits.starts_with('0') && digits.parse::<u32>().is_ok();
    middle.is_some_and(|middle| middle.is_empty() || middle.strip_prefix('-').is_some_and(is_generation))
}

/// What a turn may read.
enum Feed {
    /// `tail_us` is how old something must be to go to the live tail.
    Live {
        end: u64,
        now_us: u64,
        tail_us: u64,
        ending: Option<Ending>,
    },
    Left(Left),
    Lost {
        frames: Vec<Frame>,
        gap: String,
    },
}

impl Work {
    fn turn(&mut self, feed: Feed) -> Turn {
        let mut turn = Turn::default();
        match feed {
            Feed::Live { end, now_us, tail_us, ending } => {
                let start = self.reader.position();
                let read = loop {
                    let read = self.reader.read(end, READ_BYTES, &mut self.frames);
                    self.push_frames(&mut turn);
                    let position = self.reader.position();
                    if read.is_err() || position >= end || turn.is_full(position - start) {
                        break read;
                    }
                };
                if let Err(error) = read {
                    // Everything before it counts; what is behind it cannot be told from noise.
                    error!(%error, "A journal could not be read back.");
                    self.end(now_us, Some(&error), &Ending { how: "crashed".to_owned(), reason: None }, &mut turn);
                } else if let Some(ending) = ending.filter(|_| self.reader.position() >= end) {
                    self.end(now_us, None, &ending, &mut turn);
                } else if self.reader.position() >= end {
                    self.sealer.tick(now_us, &mut turn.sealed);
                    // What will be in a segment in a moment need not go through the database as well.
                    if self.sealer.oldest_untailed().is_some_and(|at| now_us.saturating_sub(at) >= tail_us) {
                        turn.tail = self.sealer.take_tail();
                    }
                }
            }
            Feed::Lost { mut frames, gap } => {
                frames.sort_by_key(|frame| frame.at); // input that had waited for its echo came late
                frames.into_iter().for_each(|frame| self.sealer.push_masked(frame)); // before they were shipped
                // A segment starts after the one before it has ended, also if nothing came since.
                let last_us = self.sealer.progress().1.saturating_add(1);
                self.sealer.push_own(Frame { at: last_us, body: Body::Gap(gap) });
                let ending = Ending { how: "crashed".to_owned(), reason: Some("the bastion died".to_owned()) };
                self.end(last_us, None, &ending, &mut turn);
            }
            Feed::Left(Left { same_boot, ending, keeps_content: _ }) => {
                let start = self.reader.position();
                let rest = loop {
                    let rest = self.reader.read_rest(READ_BYTES, &mut self.frames);
                    self.push_frames(&mut turn);
                    if !matches!(rest, Ok(Rest::More)) || turn.is_full(self.reader.position() - start) {
                        break rest;
                    }
                };
                // A segment starts after the one before it has ended, also if nothing came since.
                let last_us = self.sealer.progress().1.saturating_add(1);
                match rest {
                    Ok(Rest::More) => {}
                    Ok(Rest::Whole | Rest::Torn { .. }) => {
                        if !same_boot {
                            let gap = "the machine stopped: what came in the last moments before it may be missing";
                            self.sealer.push_own(Frame { at: last_us, body: Body::Gap(gap.to_owned()) });
                        }
                        self.end(last_us, None, &ending, &mut turn);
                    }
                    Err(error) => self.end(last_us, Some(&error), &ending, &mut turn),
                }
            }
        }
        turn.commands = self.sealer.take_commands();
        turn.resume = turn.sealed.last().and_then(|last| last.resume.clone().encode(self.encryption.as_ref()));
        // What is in a sealed segment is not read again, so it must be in the index before.
        if turn.done || !turn.sealed.is_empty() || self.indexed_at.elapsed() >= INDEX_EVERY {
            turn.blocks = self.sealer.indexer().take();
            self.indexed_at = Instant::now();
        }
        turn
    }

    fn push_frames(&mut self, turn: &mut Turn) {
        for frame in self.frames.drain(..) {
            match &frame.body {
                Body::ExitStatus(status) => turn.exit = Some(serde_json::json!({ "status": status }).to_string()),
                Body::ExitSignal { name, .. } => turn.exit = Some(serde_json::json!({ "signal": name }).to_string()),
                _ => {}
            }
            self.sealer.push(frame, &mut turn.sealed);
        }
    }

    fn end(&mut self, now_us: u64, hole: Option<&JournalReadError>, ending: &Ending, turn: &mut Turn) {
        let at = now_us.max(self.sealer.progress().1);
        if let Some(hole) = hole {
            turn.damaged = true;
            self.sealer.push_own(Frame { at, body: Body::Gap(hole.to_string()) });
        }
        // Two strings always serialise.
        let text = serde_json::to_string(ending).unwrap_or_default();
        self.sealer.push_own(Frame { at, body: Body::End(text) });
        self.sealer.finish(&mut turn.sealed);
        turn.ending = Some(ending.clone());
        turn.done = true;
    }
}
