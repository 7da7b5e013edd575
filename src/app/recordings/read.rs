//! A recording's frames, wherever they are: segments in the object store, the live tail in the database. A reader of
//! frames does not know which.
//!
//! Each segment is checked against its hash, and the hash against the chain, before a frame of it is given out.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::frame::{Frame, FrameError};
use sallyport_domain::recording::segment::{self, Hash, SegmentError, Snapshot};

use super::encryption::{DecryptError, LiveKey, MOST_RUN};
use super::seal;
use crate::app::App;
use crate::store::blob::BlobError;
use crate::store::db::recordings::{RecordingRecord, SegmentRecord};
use crate::store::db::{self, DbError};

/// How often a reader that follows a live recording looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Runs of the live tail that are fetched at once.
const RUNS_AT_ONCE: u32 = 64;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("no such recording")]
    Unknown,
    #[error(
        "what was recorded there was deleted; `sallyport recording deletions` and the audit log say by whom and why"
    )]
    Deleted,
    #[error("segment {number} is not what was stored: it hashes to {found}, {expected} is on record")]
    Altered { number: u32, expected: Hash, found: Hash },
    #[error("segment {number} does not follow from the one before it: the chain is {found}, {expected} is on record")]
    BrokenChain { number: u32, expected: Hash, found: Hash },
    #[error("segment {number} is missing from the database")]
    MissingSegment { number: u32 },
    #[error("segment {number} is missing from the object store")]
    MissingObject { number: u32 },
    #[error(
        "the recording is encrypted to keys that are not here; who has one reads it with `sallyport session play {recording} --identity FILE`, \
         or `session export`"
    )]
    Encrypted { recording: RecordingId },
    #[error("the recording is being completed by the node that wrote it, which was away; read it again in a moment")]
    Reopened,
    #[error("segment {number} cannot be decrypted")]
    Decryption { number: u32, source: DecryptError },
    #[error("the live tail cannot be decrypted")]
    EncryptedTail(#[source] DecryptError),
    #[error("segment {number} cannot be decompressed")]
    Compression { number: u32, source: std::io::Error },
    #[error("segment {number} cannot be read")]
    Segment { number: u32, source: SegmentError },
    #[error("the live tail cannot be read")]
    Tail(#[from] FrameError),
    #[error("segment {number} cannot be fetched")]
    Fetch { number: u32, source: BlobError },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Looks a recording up.
pub async fn find(app: &App, recording: RecordingId) -> Result<RecordingRecord, ReadError> {
    let mut tx = app.db.read().await?;
    let found = db::recordings::find(&mut tx, recording).await?.ok_or(ReadError::Unknown)?;
    match db::deletions::of_recording(&mut tx, recording).await? {
        Some(_) => Err(ReadError::Deleted),
        None => Ok(found),
    }
}

/// The segments of a recording from `first` on, in order.
pub async fn segments(app: &App, recording: RecordingId, first: u32) -> Result<Vec<SegmentRecord>, ReadError> {
    let mut tx = app.db.read().await?;
    Ok(db::recordings::segments(&mut tx, recording, first).await?)
}

/// How a recording can be read here.
#[derive(Clone)]
pub struct Sight(Option<LiveKey>);

impl Sight {
    /// Of a recording that is encrypted and over nothing can be read.
    pub async fn find(app: &App, record: &RecordingRecord) -> Result<Self, ReadError> {
        let recording = record.recording.id;
        if record.recording.is_in_clear() {
            return Ok(Self(None));
        }
        let key = LiveKey::find(&mut app.db.read().await?, app, recording).await?;
        key.map_or(Err(ReadError::Encrypted { recording }), |key| Ok(Self(Some(key))))
    }
}

/// Fetches one segment as it is stored, and checks its hash.
pub async fn stored_segment(app: &App, row: &SegmentRecord) -> Result<Bytes, ReadError> {
    let (number, expected) = (row.number, row.sha256);
    let stored = app.blobs.get(&row.object).await.map_err(|source| match source {
        BlobError::NotFound { .. } => ReadError::MissingObject { number },
        source => ReadError::Fetch { number, source },
    })?;
    tokio::task::spawn_blocking(move || {
        let found = Hash::of(&stored);
        if found == expected { Ok(stored) } else { Err(ReadError::Altered { number, expected, found }) }
    })
    .await
    .unwrap_or_else(|error| Err(ReadError::Compression { number, source: std::io::Error::other(error) }))
}

/// Fetches one segment, checks its hash and opens it.
pub async fn open_segment(app: &App, sight: &Sight, row: &SegmentRecord) -> Result<(Snapshot, Vec<Frame>), ReadError> {
    let stored = stored_segment(app, row).await?;
    let (number, most, stored_bytes, Sight(key)) = (row.number, row.bytes, stored.len(), sight.clone());
    tokio::task::spawn_blocking(move || {
        let stored = match key {
            Some(key) => {
                key.decrypt(&stored, stored_bytes).map_err(|source| ReadError::Decryption { number, source })?.into()
            }
            None => stored,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let bytes = seal::decompress(&stored, most).map_err(|source| ReadError::Compression { number, source })?;
        segment::parse(Bytes::from(bytes)).map_err(|source| ReadError::Segment { number, source })
    })
    .await
    .unwrap_or_else(|error| Err(ReadError::Compression { number, source: std::io::Error::other(error) }))
}

/// What a reader has at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Frames(Vec<Frame>),
    /// Nothing new, but the recording goes on.
    Nothing,
    /// The recording is complete.
    End,
}

/// Reads a recording from its start, a batch of frames at a time.
pub struct Reader {
    app: App,
    recording: RecordingId,
    /// Stay at the end of a live recording and wait for more.
    follow: bool,
    rows: VecDeque<SegmentRecord>,
    /// The next segment to be read, and the chain before it.
    next: u32,
    chain: Hash,
    /// The next run of the live tail.
    next_tail: u64,
    /// Frames of segment `next` that the live tail already gave; that many are left out when it is sealed.
    given_early: HashMap<Frame, usize>,
    finished: bool,
    /// How to read it, once it was looked up: who began while the recording lived reads it to its end.
    sight: Option<Sight>,
    /// By whose hand it was kept when the first of it was read.
    generation: Option<u32>,
}

impl Reader {
    /// A reader from the start; with `follow` it waits at the end of a live recording until that ends.
    pub fn new(app: App, recording: RecordingId, follow: bool) -> Self {
        Self {
            app,
            recording,
            follow,
            rows: VecDeque::new(),
            next: 0,
            chain: Hash::ZERO,
            next_tail: 0,
            given_early: HashMap::new(),
            finished: false,
            sight: None,
            generation: None,
        }
    }

    /// A reader from the start of a recording that can be read here.
    pub async fn open(app: App, recording: RecordingId, follow: bool) -> Result<Self, ReadError> {
        let record = find(&app, recording).await?;
        let sight = Some(Sight::find(&app, &record).await?);
        Ok(Self { sight, ..Self::new(app, recording, follow) })
    }

    /// A reader of a live recording that begins with its last sealed segment, and what the terminal showed before that.
    pub async fn near_end(app: App, recording: RecordingId) -> Result<(Snapshot, Self), ReadError> {
        let record = find(&app, recording).await?;
        // Segments that were sealed since are read as they come.
        let last = record.progress.segments.saturating_sub(1);
        let mut rows = segments(&app, recording, last.saturating_sub(1)).await?;
        rows.retain(|row| row.number <= last);
        let sight = Sight::find(&app, &record).await?;
        let mut reader = Self { sight: Some(sight.clone()), ..Self::new(app, recording, true) };
        if let [before, row] = rows.as_slice() {
            (reader.next, reader.chain) = (row.number, before.chain);
        }
        let snapshot = match rows.pop() {
            Some(row) => open_segment(&reader.app, &sight, &row).await?.0,
            None => {
                let size = record.recording.cols.zip(record.recording.rows);
                Snapshot { size: size.map(|(cols, rows)| TerminalSize { cols, rows }), init: String::new() }
            }
        };
        Ok((snapshot, reader))
    }

    /// The next frames, or `None` at the end. Cancel safe between batches only.
    pub async fn next(&mut self) -> Result<Option<Vec<Frame>>, ReadError> {
        loop {
            match self.step().await? {
                Step::Frames(frames) => return Ok(Some(frames)),
                Step::End => return Ok(None),
                Step::Nothing if self.follow => tokio::time::sleep(LOOK_AGAIN).await,
                Step::Nothing => self.finished = true,
            }
        }
    }

    /// What there is now, without waiting for more. Cancel safe as [`Reader::next`] is.
    pub async fn step(&mut self) -> Result<Step, ReadError> {
        if self.generation.is_none() {
            self.generation = db::recordings::generation(&mut self.app.db.read().await?, self.recording).await?;
        }
        match self.step_in_one_hand().await {
            // What one hand put aside is neither missing nor changed.
            Err(_)
                if self.generation
                    != db::recordings::generation(&mut self.app.db.read().await?, self.recording).await? =>
            {
                Err(ReadError::Reopened)
            }
            step => step,
        }
    }

    async fn step_in_one_hand(&mut self) -> Result<Step, ReadError> {
        if self.sight.is_none() {
            let record = find(&self.app, self.recording).await?;
            self.sight = Some(Sight::find(&self.app, &record).await?);
        }
        while !self.finished {
            if self.rows.is_empty() {
                self.rows = segments(&self.app, self.recording, self.next).await?.into();
            }
            if let Some(row) = self.rows.pop_front() {
                let frames = self.read_segment(&row).await?;
                if !frames.is_empty() {
                    return Ok(Step::Frames(frames));
                }
                continue;
            }
            let frames = self.read_tail().await?;
            if !frames.is_empty() {
                return Ok(Step::Frames(frames));
            }
            // Nothing new in the tail: it is over, or sealed by now, or more is to come.
            let row = find(&self.app, self.recording).await?;
            if row.progress.segments > self.next {
                // It was sealed between the two looks, or its row is gone.
                self.rows = segments(&self.app, self.recording, self.next).await?.into();
                if self.rows.is_empty() {
                    return Err(ReadError::MissingSegment { number: self.next });
                }
                continue;
            }
            if row.progress.segments < self.next {
                return Err(ReadError::Reopened);
            }
            if row.progress.ended_at.is_some() && row.progress.chain != self.chain {
                let (number, expected, found) = (self.next, row.progress.chain, self.chain);
                return Err(ReadError::BrokenChain { number, expected, found });
            }
            if row.progress.ended_at.is_none() {
                return Ok(Step::Nothing);
            }
            self.finished = true;
        }
        Ok(Step::End)
    }

    async fn read_segment(&mut self, row: &SegmentRecord) -> Result<Vec<Frame>, ReadError> {
        if row.number != self.next {
            return Err(ReadError::MissingSegment { number: self.next });
        }
        let found = self.chain.extended_by(row.sha256);
        if found != row.chain {
            return Err(ReadError::BrokenChain { number: row.number, expected: row.chain, found });
        }
        let sight = self.sight.clone().unwrap_or(Sight(None));
        let opened = open_segment(&self.app, &sight, row).await;
        if matches!(opened, Err(ReadError::MissingObject { .. })) {
            find(&self.app, self.recording).await?; // it was deleted, perhaps just now
        }
        let (_, mut frames) = opened?;
        self.chain = found;
        self.next += 1;
        let early = &mut self.given_early;
        frames.retain(|frame| match early.get_mut(frame) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        });
        early.clear();
        Ok(frames)
    }

    async fn read_tail(&mut self) -> Result<Vec<Frame>, ReadError> {
        let mut tx = self.app.db.read().await?;
        let runs = db::recordings::tail(&mut tx, self.recording, self.next_tail, RUNS_AT_ONCE).await?;
        drop(tx);
        let mut frames = Vec::new();
        for run in runs {
            if run.segment != self.next {
                break; // the segment before it was sealed meanwhile; it is read first
            }
            self.next_tail = run.number + 1;
            let mut bytes = Bytes::from(match self.sight.as_ref().and_then(|Sight(key)| key.as_ref()) {
                Some(key) => key.decrypt(&run.frames, MOST_RUN).map_err(ReadError::EncryptedTail)?,
                None => run.frames,
            });
            while let Some(frame) = Frame::take(&mut bytes)? {
                frames.push(frame);
            }
        }
        for frame in &frames {
            *self.given_early.entry(frame.clone()).or_default() += 1;
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::retention::tests::Archive;
    use crate::store::db::change_either;
    use crate::store::db::testing::on_both;

    /// The node that wrote the recording, which another one had closed, is back, and has not yet sealed any of its journal.
    async fn reopen(app: &App, recording: RecordingId) {
        const LOST: &str = "UPDATE recordings SET lost_from = '' WHERE id = $1";
        let mut tx = app.db.write().await.unwrap();
        let tx_mut = &mut tx;
        change_either!(tx_mut, |c| sqlx::query(LOST).bind(recording.as_uuid())).unwrap();
        assert!(db::recordings::take_over(&mut tx, recording, true).await.unwrap().is_some());
        db::recordings::supersede_segments(&mut tx, recording, (0, Hash::ZERO), None).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_recording_that_is_completed_by_a_node_that_was_away_is_not_taken_for_damaged() {
        on_both(|db| async {
            let archive = Archive::of(db, 1).await;
            let (app, recording) = (&archive.app, archive.recordings[0]);
            let mut half_way = Reader::open(app.clone(), recording, false).await.unwrap();
            assert!(matches!(half_way.step().await.unwrap(), Step::Frames(_)));

            reopen(app, recording).await;

            let late = Reader::open(app.clone(), recording, false).await.unwrap().step().await.unwrap();
            assert_eq!(late, Step::Nothing, "it lives again, and nothing of it is there yet");
            let error = half_way.step().await.unwrap_err();
            assert!(matches!(error, ReadError::Reopened), "{error}");
        })
        .await;
    }
}
