//! Journals that a crash left behind are carried to rest at the next start, as far as possible before anybody is let in:
//! an object store that is away must not keep everybody out, so what takes longer goes on in the background.
//!
//! Every byte that an engineer saw was in the journal first, so what the journal holds is the whole truth but for power
//! failures, which a gap frame admits to. A session whose node died has its end written here.

use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::event::{Act, SessionEnd};
use sallyport_domain::id::RecordingId;
use tracing::{info, warn};

use super::journal::{self, JournalReader, Rest};
use super::keeper::Keeper;
use super::seal::Resume;
use super::{Header, Recordings, boot_id, event};
use crate::store::db::{self, DbError};

/// How long the start waits for recordings to come to rest.
const PATIENCE: Duration = Duration::from_secs(3);

/// Recordings that are recovered at once: each may hold some MiB while a store is slow.
const KEEPERS_AT_ONCE: usize = 8;

/// Why the journals of an earlier run could not be recovered. The server must not start then: it would let people in
/// while it cannot tell what it owes.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("cannot read the journal directory `{path}`")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What recovery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    pub recordings: usize,
    pub sessions: usize,
}

impl Recordings {
    /// Takes to rest what an earlier run of `node` left behind and closes its sessions in the books.
    pub async fn recover(&self, node: &str) -> Result<Recovered, RecoverError> {
        let mut keepers = Vec::new();
        for (dir, recording) in self.left_behind().await? {
            keepers.extend(self.keeper_of(dir, recording).await?.map(|keeper| (recording, keeper)));
        }
        let recordings = keepers.len();
        let running = self.0.keepers.spawn(futures::stream::iter(keepers).for_each_concurrent(
            KEEPERS_AT_ONCE,
            async |(recording, keeper)| {
                if let Some(last_us) = keeper.run().await {
                    info!(%recording, seconds = last_us / 1_000_000, "A recording was recovered from its journal.");
                }
            },
        ));
        if tokio::time::timeout(PATIENCE, running).await.is_err() {
            warn!("Recordings of an earlier run are still being recovered; the bastion goes on meanwhile.");
        }
        let sessions = self.close_sessions(node).await?;
        Ok(Recovered { recordings, sessions })
    }

    async fn left_behind(&self) -> Result<Vec<(PathBuf, RecordingId)>, RecoverError> {
        let path = self.0.settings.journal_dir.clone();
        let failed = |source| RecoverError::Directory { path: path.clone(), source };
        let mut entries = tokio::fs::read_dir(&path).await.map_err(failed)?;
        let mut found = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            match entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                Some(recording) => found.push((entry.path(), recording)),
                None => {
                    warn!(path = %entry.path().display(), "Something in the journal directory is no journal; it is left alone.")
                }
            }
        }
        Ok(found)
    }

    /// What carries a journal to rest; `None` if it is not needed any more.
    async fn keeper_of(&self, dir: PathBuf, recording: RecordingId) -> Result<Option<Keeper>, RecoverError> {
        let mut tx = self.0.app.db.read().await?;
        let row = db::recordings::find(&mut tx, recording).await?;
        drop(tx);
        let Some(row) = row.filter(|row| row.progress.ended_at.is_none()) else {
            // Without a row its program was never started; with an end it is at rest already.
            info!(%recording, "A journal that is not needed any more is removed.");
            if let Err(error) = tokio::fs::remove_dir_all(&dir).await {
                warn!(%error, journal = %dir.display(), "A journal could not be removed.");
            }
            return Ok(None);
        };
        let size = row.recording.cols.zip(row.recording.rows).map(|(cols, rows)| TerminalSize { cols, rows });
        let resume = row.progress.resume.as_deref().and_then(|resume| serde_json::from_str(resume).ok());
        let resume: Resume = resume.unwrap_or_else(|| Resume::start(size));
        let same_boot = same_boot(dir.clone()).await;
        let (session, started_at) = (row.recording.session, row.recording.started_at);
        Ok(Some(Keeper::left(self.clone(), recording, session, started_at, dir, same_boot, resume)))
    }

    /// Sessions of this node that have no end ended when their last recording did.
    async fn close_sessions(&self, node: &str) -> Result<usize, RecoverError> {
        let app = &self.0.app;
        let mut tx = app.db.write().await?;
        let open = db::sessions::live_on(&mut tx, node).await?;
        for open in &open {
            let session = &open.session;
            let last = db::recordings::of_session(&mut tx, session.id)
                .await?
                .into_iter()
                .map(|found| {
                    found.recording.started_at + TimeDelta::microseconds(found.progress.duration_us.cast_signed())
                })
                .max();
            let ended_at = last.unwrap_or(session.started_at).max(session.started_at);
            if db::sessions::end(&mut tx, session.id, ended_at, &SessionEnd::Crashed).await? {
                let act = Act::SessionEnded { session: session.id, end: SessionEnd::Crashed };
                db::events::append(&mut tx, &event(app.clock.now(), act)).await?;
            }
        }
        tx.commit().await?;
        Ok(open.len())
    }
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
