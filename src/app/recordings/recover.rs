//! Journals that a crash left behind are carried to rest at the next start, beside the new work: nobody waits for an
//! object store that is away.
//!
//! Every byte that an engineer saw was in the journal first, so what the journal holds is the whole truth but for power
//! failures, which a gap frame admits to. A session whose node died has its end written here.
//!
//! ```text
//! a process dies ─┬─ another one of its node, or the next start: journals to rest, sessions closed
//!                 └─ no word for long: another node seals what was shipped, with a gap, and closes the sessions
//!                         └─ the node returns: its journals complete the recordings, the session is sealed once more
//! ```
//!
//! Whoever takes a recording to rest in another's stead takes it over first (`generation`), so that two never write one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt};
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::event::{Act, Actor, Event, SessionEnd};
use sallyport_domain::files::RecordedOperation;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::recording::frame::{Body, Frame};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::encryption::{DecryptError, Encryption, LiveKey, MOST_RUN};
use super::journal::{self, JournalReader, Rest};
use super::keeper::{Keeper, Left, Orphan};
use super::seal::Resume;
use super::{Ending, Header, Recordings, boot_id, event};
use crate::store::db::recordings::RecordingRecord;
use crate::store::db::{self, DbError};

/// How long the books wait for recordings to come to rest, whose last instants are their sessions' ends.
const PATIENCE: Duration = Duration::from_secs(3);

/// Recordings that are recovered at once: each may hold some MiB while a store is slow.
const KEEPERS_AT_ONCE: usize = 8;

/// The longest pause between tries while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why it is not known what an earlier run left behind. The server must not start then: it would let people in while it
/// cannot tell what it owes.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("cannot read the journal directory `{path}`")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What an earlier run left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftBehind {
    journals: Vec<(PathBuf, RecordingId)>,
    /// Recordings without an end whose journal is not there.
    lost: Vec<RecordingId>,
    sessions: Vec<SessionId>,
}

impl LeftBehind {
    /// Recordings that were not at rest.
    pub fn journals(&self) -> usize {
        self.journals.len() + self.lost.len()
    }

    /// Sessions without an end in the books.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Recordings {
    /// Finds what processes of `node` left behind; those of `alive` live. Call it before the first recording is started.
    pub async fn find_left_behind(&self, node: &str, alive: &[Uuid]) -> Result<LeftBehind, RecoverError> {
        let journals = self.journals().await?;
        let mut tx = self.0.app.db.read().await?;
        let is_left = |run: Option<Uuid>| run.is_none_or(|run| !alive.contains(&run));
        let open = db::sessions::live_on(&mut tx, node).await?;
        let unfinished = db::recordings::unfinished_on(&mut tx, node).await?;
        let unfinished = unfinished.into_iter().filter(|(_, run)| is_left(*run)).map(|(id, _)| id);
        let lost = unfinished.filter(|id| !journals.iter().any(|(_, journal)| journal == id)).collect();
        let sessions = open.into_iter().filter(|(_, run)| is_left(*run)).map(|(id, _)| id).collect();
        Ok(LeftBehind { journals, lost, sessions })
    }

    /// Takes it to rest and closes its sessions in the books, beside whatever else goes on. [`Recordings::close`] waits
    /// for it as for any keeper.
    pub fn recover(&self, left: LeftBehind) {
        let recordings = self.clone();
        self.0.keepers.spawn(async move {
            let rest = async {
                let journals = futures::stream::iter(&left.journals);
                let recover = async |(dir, recording): &(PathBuf, RecordingId)| {
                    recordings.insist(|| recordings.recover_found(dir, *recording)).await;
                };
                journals.for_each_concurrent(KEEPERS_AT_ONCE, recover).await;
                let gap = "the journal is gone: what had not been shipped by then is missing";
                for recording in &left.lost {
                    recordings.insist(|| recordings.recover_lost(*recording, gap)).await;
                }
            };
            tokio::pin!(rest);
            // An object store that is away must not keep the books open.
            let at_rest = tokio::time::timeout(PATIENCE, &mut rest).await.is_ok();
            recordings.insist(|| recordings.close_sessions(&left.sessions, None)).await;
            if !at_rest {
                rest.await;
            }
        });
    }

    /// Closes in the books what the process `run` of `node` left open, with what it had shipped. To be called by the process that
    /// has claimed that; should `run` be heard of meanwhile, the rest is left to it.
    pub(crate) async fn close_lost(self, run: Uuid, node: String) -> Result<(), DbError> {
        let mut tx = self.0.app.db.read().await?;
        let recordings = db::recordings::unfinished_of(&mut tx, run).await?;
        let sessions = db::sessions::live_of(&mut tx, run).await?;
        drop(tx);
        if recordings.len() + sessions.len() > 0 {
            let (sessions, recordings) = (sessions.len(), recordings.len());
            warn!(node, sessions, recordings, "A lost node's sessions are closed in the books.");
        }
        let rest = futures::stream::iter(recordings).for_each_concurrent(KEEPERS_AT_ONCE, |recording| {
            let (this, node) = (self.clone(), node.clone());
            async move { this.insist(|| this.close_lost_recording(run, &node, recording)).await }
        });
        tokio::pin!(rest);
        let at_rest = tokio::time::timeout(PATIENCE, &mut rest).await.is_ok();
        self.insist(|| self.close_sessions(&sessions, Some(run))).await;
        if !at_rest {
            rest.await;
        }
        Ok(())
    }

    async fn close_lost_recording(&self, run: Uuid, node: &str, recording: RecordingId) -> Result<(), RecoverError> {
        let app = &self.0.app;
        if !db::nodes::is_claimed(&mut app.db.read().await?, run, app.run).await? {
            return Ok(());
        }
        let gap = format!("node `{node}` was lost: what it had not shipped by then is missing");
        self.recover_lost(recording, &gap).await
    }

    /// Completes a recording that another node has closed, from the journal that this process wrote. Boxed, for it is the keepers' who
    /// are in it.
    pub(super) fn complete(&self, recording: RecordingId, dir: PathBuf, ending: Ending) -> BoxFuture<'static, ()> {
        let this = self.clone();
        async move { this.insist(|| this.recover_one(dir.clone(), recording, ending.clone())).await }.boxed()
    }

    /// Does `work`, and does it again while the database is away.
    async fn insist<F: Future<Output = Result<(), RecoverError>>>(&self, work: impl Fn() -> F) {
        let mut pause = Duration::from_millis(100);
        while let Err(error) = work().await {
            let RecoverError::Db(error) = &error else {
                error!(%error, "Something of an earlier run could not be recovered; it is kept for the next start.");
                return;
            };
            if !error.is_unreachable() {
                error!(%error, "Something of an earlier run could not be recovered; it is kept for the next start.");
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.0.stop.cancelled() => return,
            }
        }
    }

    async fn journals(&self) -> Result<Vec<(PathBuf, RecordingId)>, RecoverError> {
        let path = self.0.settings.journal_dir.clone();
        let failed = |source| RecoverError::Directory { path: path.clone(), source };
        let mut entries = tokio::fs::read_dir(&path).await.map_err(failed)?;
        let mut found = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.parse().ok()) {
                _ if name.as_encoded_bytes().starts_with(b".") => {} // about to be one
                Some(recording) => found.push((entry.path(), recording)),
                None => {
                    warn!(path = %entry.path().display(), "Something in the journal directory is no journal; it is left alone.")
                }
            }
        }
        Ok(found)
    }

    /// Recovers a journal, unless somebody writes it, or recovers it already.
    async fn recover_found(&self, dir: &Path, recording: RecordingId) -> Result<(), RecoverError> {
        let (place, failed) = (dir.to_owned(), |source| RecoverError::Directory { path: dir.to_owned(), source });
        let claim = tokio::task::spawn_blocking(move || journal::claim(&place)).await;
        let Some(_claim) = claim.map_err(std::io::Error::other).and_then(std::convert::identity).map_err(failed)?
        else {
            return Ok(());
        };
        let ending = Ending { how: "crashed".to_owned(), reason: Some("the bastion died".to_owned()) };
        self.recover_one(dir.to_owned(), recording, ending).await
    }

    async fn recover_one(&self, dir: PathBuf, recording: RecordingId, ending: Ending) -> Result<(), RecoverError> {
        let mut tx = self.0.app.db.read().await?;
        let row = db::recordings::find(&mut tx, recording).await?;
        drop(tx);
        let Some(row) = row else {
            // Its program was never started, or the database was put back to an earlier state; only a person can tell.
            set_aside(&dir, "unknown").await;
            return Ok(());
        };
        let Some(orphan) = self.take_over(&row, true).await? else {
            info!(%recording, "A journal that is at rest already is removed.");
            if let Err(error) = tokio::fs::remove_dir_all(&dir).await {
                warn!(%error, journal = %dir.display(), "A journal could not be removed.");
            }
            return Ok(());
        };
        let same_boot = same_boot(dir.clone()).await;
        self.note_files(&row, &file_operations(dir.clone()).await).await?;
        let keeps_content = self.keeps_content(&row).await?;
        let left = Left { same_boot, ending, keeps_content };
        if let Some(last_us) = Keeper::left(self.clone(), orphan, dir, left).run().await {
            info!(%recording, seconds = last_us / 1_000_000, "A recording was recovered from its journal.");
        }
        Ok(())
    }

    /// Takes a recording over from whoever kept it, to go on where its journal was sealed up to; `None` if it is complete. What
    /// another node has sealed of what had been shipped is put aside, and its session will be sealed once more.
    async fn take_over(&self, row: &RecordingRecord, has_journal: bool) -> Result<Option<Orphan>, DbError> {
        let (recording, session) = (row.recording.id, row.recording.session);
        let mut tx = self.0.app.db.write().await?;
        let Some(taken) = db::recordings::take_over(&mut tx, recording, has_journal).await? else { return Ok(None) };
        let key = LiveKey::find(&mut tx, &self.0.app, recording).await?;
        let resume = resume_point(row, taken.resume.as_deref(), key.as_ref());
        let encryption = Encryption::new(&row.recording.recipients, key)?;
        db::sessions::unseal(&mut tx, session).await?; // where it was sealed
        if let Some(closed) = taken.closed.as_ref().filter(|_| !has_journal) {
            // Its node was lost, was back, and is lost again: what was sealed the first time is more than what it had come to.
            db::recordings::close_again(&mut tx, recording, closed).await?;
            tx.commit().await?;
            return Ok(None);
        }
        db::recordings::supersede_segments(&mut tx, recording, (resume.number, resume.chain), taken.closed).await?;
        tx.commit().await?;
        let started_at = row.recording.started_at;
        Ok(Some(Orphan { recording, session, started_at, generation: taken.generation, resume, encryption }))
    }

    /// Ends a recording whose journal is not here with what had been shipped, and says in it why there is no more.
    async fn recover_lost(&self, recording: RecordingId, gap: &str) -> Result<(), RecoverError> {
        let mut tx = self.0.app.db.read().await?;
        let Some(row) = db::recordings::find(&mut tx, recording).await? else { return Ok(()) };
        drop(tx);
        if row.progress.ended_at.is_some() {
            return Ok(());
        }
        // Somebody else may be at it, or may have done it since: the start and the look for dead processes find the same.
        let Some(orphan) = self.take_over(&row, false).await? else { return Ok(()) };
        // After the commit: nobody else adds to it any more.
        let runs = db::recordings::tail(&mut self.0.app.db.read().await?, recording, 0, u32::MAX).await?;
        let mut frames = Vec::new();
        for run in runs.into_iter().filter(|run| run.segment >= orphan.resume.number) {
            let mut bytes = match opened(run.frames, &row, orphan.encryption.as_ref()) {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) => {
                    warn!(%recording, %error, "Something of a live tail cannot be read; it is missing in the recording.");
                    continue;
                }
            };
            while let Ok(Some(frame)) = Frame::take(&mut bytes) {
                frames.push(frame);
            }
        }
        self.note_files(&row, &frames.iter().filter_map(file_operation).collect::<Vec<_>>()).await?;
        let dir = self.0.settings.journal_dir.join(recording.to_string());
        Keeper::lost(self.clone(), orphan, dir, frames, gap.to_owned()).run().await;
        warn!(%recording, gap, "A recording was ended with what had been shipped.");
        Ok(())
    }

    /// Whether the terms of the recording's session let its content be kept.
    async fn keeps_content(&self, row: &RecordingRecord) -> Result<bool, DbError> {
        let mut tx = self.0.app.db.read().await?;
        let session = db::sessions::find(&mut tx, row.recording.session).await?;
        Ok(session.is_none_or(|found| found.session.terms.keeps_content(&row.recording.program)))
    }

    /// Writes to the books what was done to files shortly before a crash, which only the recording may have. What the books have
    /// already has the same id, so nothing is told twice.
    async fn note_files(&self, row: &RecordingRecord, operations: &[(u64, RecordedOperation)]) -> Result<(), DbError> {
        /// As many are written in one transaction.
        const MOST_AT_ONCE: usize = 512;
        let (recording, session) = (row.recording.id, row.recording.session);
        let mut missing = 0;
        for part in operations.chunks(MOST_AT_ONCE) {
            let mut tx = self.0.app.db.write().await?;
            let Some(found) = db::sessions::find(&mut tx, session).await? else { return Ok(()) };
            let actor = Actor::Principal { id: found.session.principal, name: found.session.principal_name };
            let event = |(at_us, RecordedOperation { event, operation }): &(u64, RecordedOperation)| {
                let at = row.recording.started_at + TimeDelta::microseconds(at_us.cast_signed());
                let act = Act::FileOperation { session, recording, operation: operation.clone() };
                Event { id: *event, at, actor: actor.clone(), act }
            };
            let events: Vec<Event> = part.iter().map(event).collect();
            missing += db::events::append_all_once(&mut tx, &events).await?;
            tx.commit().await?;
        }
        if missing > 0 {
            info!(%recording, missing, "Operations on files that a crash kept from the books were written there.");
        }
        Ok(())
    }

    /// Sessions that have no end ended when their last recording did. Those of a lost process are closed as long as it is lost.
    async fn close_sessions(&self, sessions: &[SessionId], lost: Option<Uuid>) -> Result<(), RecoverError> {
        let app = &self.0.app;
        for &id in sessions {
            let mut tx = app.db.write().await?;
            if let Some(run) = lost
                && !db::nodes::is_claimed(&mut tx, run, app.run).await?
            {
                return Ok(());
            }
            let Some(found) = db::sessions::find(&mut tx, id).await? else { continue };
            let started_at = found.session.started_at;
            let last = db::recordings::of_session(&mut tx, id)
                .await?
                .into_iter()
                .map(|found| {
                    found.recording.started_at + TimeDelta::microseconds(found.progress.duration_us.cast_signed())
                })
                .max();
            let ended_at = last.unwrap_or(started_at).max(started_at);
            if db::sessions::end(&mut tx, id, ended_at, &SessionEnd::Crashed).await? {
                let act = Act::SessionEnded { session: id, end: SessionEnd::Crashed };
                db::events::append(&mut tx, &event(app.clock.now(), act)).await?;
                app.metrics.sessions_ended.get_or_create(&[("how", SessionEnd::Crashed.as_str())]).inc();
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// What a frame tells of a file, and when, in microseconds since the recording began.
fn file_operation(frame: &Frame) -> Option<(u64, RecordedOperation)> {
    let Body::File(text) = &frame.body else { return None };
    Some((frame.at, serde_json::from_str(text).ok()?)) // what the bastion itself sent is told in another form
}

/// What the files of a journal that are left tell of files. They go once everything in them is at rest, long after it was written
/// to the books.
async fn file_operations(dir: PathBuf) -> Vec<(u64, RecordedOperation)> {
    /// So much of a journal is in memory at once.
    const READ_BYTES: usize = 512 << 10;
    let read = move || {
        let (mut found, mut frames) = (Vec::new(), Vec::new());
        let starts = journal::file_starts(&dir).unwrap_or_default();
        let mut reader = JournalReader::new(dir, starts.first().copied().unwrap_or(0));
        loop {
            // What cannot be read is the keeper's to say.
            let rest = reader.read_rest(READ_BYTES, &mut frames);
            found.extend(frames.drain(..).filter_map(|frame| file_operation(&frame)));
            if !matches!(rest, Ok(Rest::More)) {
                return found;
            }
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// Renames a journal so that no later start takes it up again, and says where it is.
pub(super) async fn set_aside(dir: &Path, why: &str) {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = dir.with_file_name(format!("{why}-{name}"));
    match tokio::fs::rename(dir, &aside).await {
        Ok(()) => warn!(journal = %aside.display(), why, "A journal was set aside; look at it and remove it by hand."),
        Err(error) => error!(%error, journal = %dir.display(), "A journal could not be set aside."),
    }
}

/// A run of the live tail, decrypted if its recording is encrypted.
fn opened(frames: Vec<u8>, row: &RecordingRecord, encryption: Option<&Encryption>) -> Result<Vec<u8>, DecryptError> {
    if row.recording.is_in_clear() {
        return Ok(frames);
    }
    let key = encryption.and_then(Encryption::live_key).ok_or(DecryptError::OtherKeys)?;
    key.decrypt(&frames, MOST_RUN)
}

/// Where a recording's sealing goes on: behind its last segment, or at its start.
fn resume_point(row: &RecordingRecord, resume: Option<&str>, key: Option<&LiveKey>) -> Resume {
    let size = row.recording.cols.zip(row.recording.rows).map(|(cols, rows)| TerminalSize { cols, rows });
    let resume = resume.and_then(|resume| Resume::decode(resume, key));
    resume.unwrap_or_else(|| Resume::start_of(&row.recording.program, size))
}

/// Whether the machine has run on since the journal was written, as far as the header of its first file that is left
/// says; without one the answer is the careful one.
async fn same_boot(dir: PathBuf) -> bool {
    let read = move || {
        let mut frames = Vec::new();
        let starts = journal::file_starts(&dir).unwrap_or_default();
        let rest = JournalReader::new(dir, starts.first().copied().unwrap_or(0)).read_rest(1, &mut frames);
        let first = frames.into_iter().next();
        match (rest, first.map(|frame| frame.body)) {
            (
                Ok(Rest::More | Rest::Whole | Rest::Torn { .. }),
                Some(sallyport_domain::recording::frame::Body::Header(header)),
            ) => serde_json::from_str::<Header>(&header).is_ok_and(|header| header.boot == boot_id()),
            _ => false,
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use sallyport_domain::channel::Program;
    use sallyport_domain::files::{FileAct, FileOperation, FilePath, FileResult};

    use super::*;
    use crate::app::audit;
    use crate::app::files::{FileLog, of_session};
    use crate::app::recordings::{NewRecording, RecordingSettings};
    use crate::store::db::testing::{app_on, on_both};
    use crate::store::db::tests::furnish_sessions;

    fn removed(number: usize) -> RecordedOperation {
        let act = FileAct::Remove { path: FilePath(format!("/tmp/{number}").into_bytes()) };
        RecordedOperation { event: audit::new_id(), operation: FileOperation { act, result: FileResult::Done } }
    }

    fn frame(operation: &RecordedOperation) -> Body {
        Body::File(serde_json::to_string(operation).unwrap())
    }

    #[tokio::test]
    async fn operations_on_files_that_only_the_recording_has_are_in_the_books_once() {
        on_both(|db| async {
            let (_, sessions) = furnish_sessions(&db, 1).await;
            let session = sessions[0];
            let app = app_on(db);
            let folder = tempfile::tempdir().unwrap();
            let settings = RecordingSettings { journal_dir: folder.path().to_owned(), ..RecordingSettings::default() };
            let recordings = Recordings::new(app.clone(), settings.clone()).unwrap();
            let recording = RecordingId::from_uuid(uuid::Uuid::now_v7());
            let program = Program::Subsystem { name: "sftp".to_owned() };
            let new = NewRecording { id: recording, session, channel: 1, program, pty: None, keeps_content: true };
            let recorder = recordings.start(new).await.unwrap();
            let told: Vec<RecordedOperation> = (0..1200).map(removed).collect();
            for part in told.chunks(100) {
                recorder.record(part.iter().map(frame).collect()).await.unwrap();
            }
            recorder.record(vec![Body::File(r#"{"to_target":"00"}"#.to_owned())]).await.unwrap();
            // Some of them had been written before the crash.
            let log = FileLog::new(Actor::Bastion);
            let act = |operation: &RecordedOperation| {
                let act = Act::FileOperation { session, recording, operation: operation.operation.clone() };
                (operation.event, act)
            };
            log.tell(app.clock.now(), told.iter().take(700).map(act));
            log.close();
            while log.write(&app).await.unwrap() == crate::app::files::Left::More {}

            // The crash: the next run finds what this one has not brought to rest.
            let next = Recordings::new(app.clone(), settings).unwrap();
            for _ in 0..2 {
                let row = db::recordings::find(&mut app.db.read().await.unwrap(), recording).await.unwrap().unwrap();
                let dir = folder.path().join(recording.to_string());
                next.note_files(&row, &file_operations(dir).await).await.unwrap();
            }

            let mut written = of_session(&app, session, 0, 1000).await.unwrap();
            let last = written.last().unwrap().0;
            written.extend(of_session(&app, session, last, 1000).await.unwrap());
            let written: Vec<Act> = written.into_iter().map(|(_, _, act)| act).collect();
            assert_eq!(written, told.iter().map(|operation| act(operation).1).collect::<Vec<_>>());
        })
        .await;
    }

    #[tokio::test]
    async fn a_recording_whose_node_is_lost_again_while_it_completes_it_is_what_it_was_when_it_was_lost_first() {
        on_both(|db| async {
            let (_, sessions) = furnish_sessions(&db, 1).await;
            let app = app_on(db);
            let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let at = |folder: &tempfile::TempDir| {
                let journal_dir = folder.path().to_owned();
                Recordings::new(app.clone(), RecordingSettings { journal_dir, ..RecordingSettings::default() }).unwrap()
            };
            let recording = RecordingId::from_uuid(uuid::Uuid::now_v7());
            let program = Program::Exec { command: b"make".to_vec() };
            let new = NewRecording {
                id: recording,
                session: sessions[0],
                channel: 1,
                program,
                pty: None,
                keeps_content: true,
            };
            let recorder = at(&folder).start(new).await.unwrap();
            recorder.record(vec![Body::Output(Bytes::from_static(b"all of it\n"))]).await.unwrap();
            let state = async || {
                let mut tx = app.db.read().await.unwrap();
                let row = db::recordings::find(&mut tx, recording).await.unwrap().unwrap();
                let segments = db::recordings::segments(&mut tx, recording, 0).await.unwrap();
                (row, segments, db::manifests::seals(&mut tx, sessions[0]).await.unwrap())
            };
            let shipped = async || {
                let mut tx = app.db.read().await.unwrap();
                !db::recordings::tail(&mut tx, recording, 0, 1).await.unwrap().is_empty()
            };
            while !shipped().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let (back, elsewhere) = (at(&folder), at(&other));

            elsewhere.recover_lost(recording, "its node was lost").await.unwrap();
            let closed = state().await;
            assert_eq!((closed.0.progress.gaps, closed.1.len(), closed.2.len()), (1, 1, 1));
            for _ in 0..2 {
                // It is back, and is lost before it has completed anything.
                assert!(back.take_over(&closed.0, true).await.unwrap().is_some());
                assert_eq!(state().await.0.progress.ended_at, None);
                elsewhere.recover_lost(recording, "its node was lost again").await.unwrap();
                assert_eq!(state().await, closed);
            }

            let ending = Ending { how: "crashed".to_owned(), reason: None };
            back.recover_one(folder.path().join(recording.to_string()), recording, ending).await.unwrap();

            let (row, segments, _) = state().await;
            assert!(row.progress.ended_at.is_some() && row.progress.gaps == 0);
            assert_eq!((row.progress.bytes_out, segments.len()), (10, 1));
            assert_ne!(segments, closed.1);
            assert!(back.take_over(&row, true).await.unwrap().is_none(), "it is complete");
        })
        .await;
    }
}
