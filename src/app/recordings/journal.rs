//! Journals on local disk: written before a byte goes out on the wire.
//!
//! ```text
//! <journal_dir>/<recording id>/00000000000000000000.spj      records from position 0
//!                              00000000000067108901.spj      records from this position
//! ```
//!
//! A *position* counts the bytes of a journal's records over all its files (each file's four magic bytes apart), so
//! a file's name says where it starts, and a file goes when everything in it is at rest elsewhere. Each file begins with
//! the journal's header, for the first one may be gone when it is needed.
//!
//! Whoever writes a journal holds a lock on its file (flock(2)), which goes with the process however it dies. So two processes
//! of one node, while one hands over to the other, tell whose journals are whose.
//!
//! A slow disk stalls those who wait for their record, never the runtime: flushing has a thread, and of all that want to
//! write, one at a time does it where it is (which costs a record of a key-stroke microseconds, where waking a thread and
//! being woken by it costs a tenth of a millisecond), and the others leave it to the thread of [`Disk`]. So a disk that
//! hangs holds one of the runtime's threads, of which there are at least two. Whoever waits holds at most one batch, so the
//! queue is bounded by its users.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::recording::journal::{self, JournalError, MAGIC, RECORD_HEAD_BYTES};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{debug, error};

/// A journal file is closed and the next one begun when it has grown to this, so that long recordings give back
/// their disk while they run.
const FILE_BYTES: u64 = 64 << 20;

/// As many frames as one `writev` takes (two buffers a frame, 1024 at most).
pub const MOST_FRAMES: usize = 256;

/// When a record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When the kernel has it: survives the death of the process.
    Process,
    /// When the disk has it: survives the loss of power.
    Power,
}

/// Why a record could not be written. The recording has failed with it: its later appends fail too.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalWriteError {
    /// The disk is full, or failed.
    #[error("cannot write the journal: {0}")]
    Disk(String),
    /// An earlier write failed.
    #[error("the journal failed earlier: {0}")]
    Failed(String),
    /// The writing thread is gone; the program is ending.
    #[error("the journal's writer has stopped")]
    Stopped,
}

/// The journals' disk: one thread that writes, one that flushes. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct Disk {
    jobs: mpsc::Sender<Job>,
    durability: Durability,
    dirty: Dirty,
    /// Held by the one that writes on the runtime.
    turn: Arc<Mutex<()>>,
}

struct Job {
    journal: Arc<Journal>,
    bodies: Vec<Body>,
    done: oneshot::Sender<Result<Written, JournalWriteError>>,
}

/// Where a batch ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The position behind the batch.
    pub end: u64,
    /// The instant that was written on its frames, in microseconds since the recording began.
    pub at: u64,
}

/// One recording's journal, open for writing.
pub struct Journal {
    dir: PathBuf,
    header: String,
    started: Instant,
    /// Locked while the disk writes, so not for those who must not wait for it.
    tail: Mutex<Tail>,
    /// Behind the last whole record. Changed under the lock of `tail`.
    end: AtomicU64,
    /// Whether it waits for the flusher.
    dirty: AtomicBool,
    failure: Mutex<Option<String>>,
}

struct Tail {
    file: Arc<File>,
    /// The position of the file's first record.
    file_start: u64,
    last_at: u64,
}

/// Journals that were written since they were last flushed.
type Dirty = Arc<Mutex<Vec<Arc<Journal>>>>;

impl Disk {
    /// Starts the threads.
    pub fn start(durability: Durability, flush_interval: Duration) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let dirty = Dirty::default();
        let thread_dirty = dirty.clone();
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_jobs(&queue, durability, &thread_dirty))?;
        if durability == Durability::Process {
            let weak = Arc::downgrade(&dirty);
            thread::Builder::new().name("journal-flush".to_owned()).spawn(move || {
                while let Some(dirty) = weak.upgrade() {
                    flush(&dirty);
                    drop(dirty);
                    thread::sleep(flush_interval);
                }
            })?;
        }
        Ok(Self { jobs, durability, dirty, turn: Arc::default() })
    }

    /// Appends `bodies` (at most [`MOST_FRAMES`]) as one write. When it returns, they are as durable as was configured.
    /// Not cancel-safe in the sense that matters: a dropped call may or may not have been written.
    pub async fn append(&self, journal: &Arc<Journal>, bodies: Vec<Body>) -> Result<Written, JournalWriteError> {
        if self.durability == Durability::Process {
            // What this task has woken goes first: it might wait for this thread alone.
            stand_back().await;
            if let Some(written) = self.append_here(journal, &bodies) {
                return written;
            }
        }
        let (done, answer) = oneshot::channel();
        let job = Job { journal: journal.clone(), bodies, done };
        self.jobs.send(job).map_err(|_| JournalWriteError::Stopped)?;
        answer.await.map_err(|_| JournalWriteError::Stopped)?
    }
}

impl Disk {
    /// Writes on the calling thread, unless another one is at that, or the journal is being written, or its next write
    /// flushes.
    fn append_here(&self, journal: &Arc<Journal>, bodies: &[Body]) -> Option<Result<Written, JournalWriteError>> {
        let _turn = try_lock(&self.turn)?;
        let mut tail = try_lock(&journal.tail)?;
        (!journal.is_full(&tail)).then(|| journal.write_and_remember(&mut tail, bodies, &self.dirty))
    }
}

/// Lets the tasks that are ready on this thread run first.
async fn stand_back() {
    let mut stood_back = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut stood_back, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn write_jobs(queue: &mpsc::Receiver<Job>, durability: Durability, dirty: &Dirty) {
    while let Ok(job) = queue.recv() {
        match durability {
            Durability::Process => {
                let result = job.journal.write_and_remember(&mut lock(&job.journal.tail), &job.bodies, dirty);
                let _ = job.done.send(result); // whoever no longer waits has ended
            }
            Durability::Power => {
                // Everything that waits by now shares one flush of each file.
                let mut group = vec![job];
                group.extend(queue.try_iter().take(255));
                let written: Vec<_> =
                    group.iter().map(|job| job.journal.write(&mut lock(&job.journal.tail), &job.bodies)).collect();
                let mut flushed: HashMap<&Path, Result<(), JournalWriteError>> = HashMap::new();
                for job in &group {
                    flushed.entry(&job.journal.dir).or_insert_with(|| job.journal.flush());
                }
                let results: Vec<_> = group
                    .iter()
                    .zip(written)
                    .map(|(job, written)| {
                        flushed.get(job.journal.dir.as_path()).cloned().unwrap_or(Ok(())).and(written)
                    })
                    .collect();
                for (job, result) in group.into_iter().zip(results) {
                    let _ = job.done.send(result);
                }
            }
        }
    }
}

fn flush(dirty: &Dirty) {
    let journals = std::mem::take(&mut *lock(dirty)); // and unlocked: who writes locks its journal first, then this
    for journal in journals {
        journal.dirty.store(false, Ordering::Release);
        if let Err(error) = journal.flush() {
            error!(%error, journal = %journal.dir.display(), "The journal could not be flushed; its session ends.");
        }
    }
}

impl Journal {
    /// Creates the journal of a recording in a directory of its own. It has its name only once it is locked.
    pub fn create(dir: PathBuf, header: &str) -> io::Result<Arc<Self>> {
        let making = dir.with_file_name(format!(".{}", dir.file_name().unwrap_or_default().display()));
        fs::create_dir_all(&making)?;
        let file = open_file(&making, 0)?;
        fs::rename(&making, &dir)?;
        let journal = Self {
            dir,
            header: header.to_owned(),
            started: Instant::now(),
            tail: Mutex::new(Tail { file: Arc::new(file), file_start: 0, last_at: 0 }),
            end: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            failure: Mutex::default(),
        };
        journal.write(&mut lock(&journal.tail), &[Body::Header(header.to_owned())]).map_err(io::Error::other)?;
        Ok(Arc::new(journal))
    }

    /// The journal's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Microseconds since the recording began.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Behind the last whole record.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Whether the next record goes into a new file.
    fn is_full(&self, tail: &Tail) -> bool {
        self.end() - tail.file_start >= FILE_BYTES
    }

    /// Lets every later append fail: whoever carries the journal to rest cannot go on.
    pub fn fail(&self, why: &str) {
        lock(&self.failure).get_or_insert_with(|| why.to_owned());
    }

    /// Whether appends fail.
    pub fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    fn flush(&self) -> Result<(), JournalWriteError> {
        let file = lock(&self.tail).file.clone();
        file.sync_data().map_err(|error| {
            self.fail(&error.to_string());
            JournalWriteError::Disk(error.to_string())
        })
    }

    fn write_and_remember(
        self: &Arc<Self>,
        tail: &mut Tail,
        bodies: &[Body],
        dirty: &Dirty,
    ) -> Result<Written, JournalWriteError> {
        let written = self.write(tail, bodies)?;
        if !self.dirty.swap(true, Ordering::AcqRel) {
            lock(dirty).push(self.clone());
        }
        Ok(written)
    }

    fn write(&self, tail: &mut Tail, bodies: &[Body]) -> Result<Written, JournalWriteError> {
        if let Some(failure) = &*lock(&self.failure) {
            return Err(JournalWriteError::Failed(failure.clone()));
        }
        let outcome = self.write_to(tail, bodies);
        outcome.map_err(|error| {
            // A torn record must not be followed by others; the disk may be full, but truncating needs no room.
            let keep = MAGIC.len() as u64 + self.end() - tail.file_start;
            if let Err(error) = tail.file.set_len(keep) {
                debug!(%error, "A torn record could not be cut off; recovery will stop at it.");
            }
            self.fail(&error.to_string());
            JournalWriteError::Disk(error.to_string())
        })
    }

    fn write_to(&self, tail: &mut Tail, bodies: &[Body]) -> io::Result<Written> {
        let mut header = None;
        if self.is_full(tail) {
            // What the old file holds is flushed before anything is in the new one, or a flush could miss it.
            tail.file.sync_data()?;
            tail.file = Arc::new(open_file(&self.dir, self.end())?);
            tail.file_start = self.end();
            header = Some(Body::Header(self.header.clone()));
        }
        let at = self.elapsed_us().max(tail.last_at);
        let bodies = header.iter().chain(bodies);
        let bodies: Vec<(u8, Bytes)> = bodies.map(|body| (body.kind(), body.to_bytes())).collect();
        let heads: Vec<[u8; RECORD_HEAD_BYTES]> =
            bodies.iter().map(|(kind, body)| journal::record_head(at, *kind, body)).collect();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(2 * bodies.len());
        let mut total = 0;
        for (head, (_, body)) in heads.iter().zip(&bodies) {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(body));
            total += head.len() + body.len();
        }
        write_all_vectored(&mut &*tail.file, &mut slices)?;
        let end = self.end() + total as u64;
        self.end.store(end, Ordering::Release);
        tail.last_at = at;
        Ok(Written { end, at })
    }
}

fn write_all_vectored(file: &mut &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0); // drops empty ones at the front
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn file_name(start: u64) -> String {
    format!("{start:020}.spj")
}

fn open_file(dir: &Path, start: u64) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(dir.join(file_name(start)))?;
    if let Err(error) = file.try_lock().map_err(io::Error::from).and_then(|()| file.write_all(MAGIC)) {
        // A file without its magic would stop a later recovery.
        let _ = fs::remove_file(dir.join(file_name(start)));
        return Err(error);
    }
    // The name must survive a loss of power too.
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// A journal that a process left behind, held against others who find it.
pub struct Claim(#[expect(dead_code, reason = "held for its locks")] Vec<File>);

/// Holds a journal; `None` while its writer, or another who found it, does. The last file is the one that is written; the one
/// before it stays locked until that is.
pub fn claim(dir: &Path) -> io::Result<Option<Claim>> {
    let mut held = Vec::new();
    let starts = file_starts(dir)?;
    for &start in &starts {
        let file = match File::open(dir.join(file_name(start))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None), // its keeper lives
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => held.push(file),
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    // Its writer may have begun another file meanwhile, and let go of the one that was the last.
    Ok((file_starts(dir)? == starts).then_some(Claim(held)))
}

/// The starts of a journal's files, in order.
pub fn file_starts(dir: &Path) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let start = name.to_str().and_then(|name| name.strip_suffix(".spj"));
        starts.extend(start.and_then(|start| start.parse::<u64>().ok()));
    }
    starts.sort_unstable();
    Ok(starts)
}

/// Removes the files of which every record lies before `position`, the last file apart. Gives back how many went.
pub fn remove_before(dir: &Path, position: u64) -> io::Result<usize> {
    let starts = file_starts(dir)?;
    let mut removed = 0;
    for pair in starts.windows(2) {
        if pair[1] <= position {
            fs::remove_file(dir.join(file_name(pair[0])))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalReadError {
    #[error("cannot read the journal")]
    Io(#[from] io::Error),
    #[error("the journal is damaged at position {position}")]
    Damaged { position: u64, source: JournalError },
    #[error("the journal's records from position {position} on are not there")]
    Missing { position: u64 },
}

/// Reads a journal's frames from a position on, also while it is being written.
pub struct JournalReader {
    dir: PathBuf,
    position: u64,
    /// The open file and the position of its first record.
    file: Option<(File, u64)>,
    /// Bytes that were read behind `position`.
    ahead: Vec<u8>,
}

impl JournalReader {
    /// A reader that starts at `position`, which must be where a record starts.
    pub fn new(dir: PathBuf, position: u64) -> Self {
        Self { dir, position, file: None, ahead: Vec::new() }
    }

    /// Where the next frame starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Appends to `frames` the whole frames between here and position `end`, at least one if there is one, then no more
    /// than `most_bytes` of them. `end` must lie between records. Blocks on the disk.
    pub fn read(&mut self, end: u64, most_bytes: usize, frames: &mut Vec<Frame>) -> Result<(), JournalReadError> {
        let mut taken = 0;
        while self.position < end && taken < most_bytes {
            let wanted =
                usize::try_from(end - self.position).unwrap_or(usize::MAX).min(most_bytes - taken + (64 << 10));
            if self.fill(wanted)? == 0 && self.ahead.is_empty() {
                return Err(JournalReadError::Missing { position: self.position });
            }
            let mut bytes = Bytes::from(std::mem::take(&mut self.ahead));
            let before = self.position;
            while let Some((frame, used)) = take(&mut bytes, self.position)? {
                self.position += used as u64;
                taken += used;
                frames.push(frame);
            }
            self.ahead = Vec::from(bytes);
            if self.position == before && self.fill(self.ahead.len() + (1 << 20))? == 0 {
                return Err(JournalReadError::Missing { position: self.position });
            }
        }
        Ok(())
    }

    /// As [`JournalReader::read`] up to whatever is whole on disk, for a journal that nobody writes any more. The answer
    /// says how the journal ends.
    pub fn read_rest(&mut self, most_bytes: usize, frames: &mut Vec<Frame>) -> Result<Rest, JournalReadError> {
        let mut taken = 0;
        loop {
            let fresh = self.fill(self.ahead.len() + (256 << 10))?;
            let mut bytes = Bytes::from(std::mem::take(&mut self.ahead));
            let mut found = false;
            while let Some((frame, used)) = take(&mut bytes, self.position)? {
                self.position += used as u64;
                taken += used;
                frames.push(frame);
                found = true;
            }
            self.ahead = Vec::from(bytes);
            if !found && fresh == 0 {
                return Ok(if self.ahead.is_empty() { Rest::Whole } else { Rest::Torn { bytes: self.ahead.len() } });
            }
            if taken >= most_bytes {
                return Ok(Rest::More);
            }
        }
    }

    /// Reads until `ahead` holds `wanted` bytes, or the files end. Gives back how many bytes came.
    fn fill(&mut self, wanted: usize) -> Result<usize, JournalReadError> {
        let mut came = 0;
        while self.ahead.len() < wanted {
            if self.file.is_none() && !self.open_at(self.position + self.ahead.len() as u64)? {
                break;
            }
            let Some((file, _)) = &mut self.file else { break };
            let missing = wanted - self.ahead.len();
            self.ahead.reserve(missing);
            let count = Read::by_ref(file).take(missing as u64).read_to_end(&mut self.ahead)?;
            came += count;
            if count == 0 {
                // The end of this file for now, or for good if the next one is there.
                let next = self.position + self.ahead.len() as u64;
                if !self.dir.join(file_name(next)).exists()
                    || self.file.as_ref().is_some_and(|(_, start)| *start == next)
                {
                    break;
                }
                self.file = None;
            }
        }
        Ok(came)
    }

    fn open_at(&mut self, position: u64) -> Result<bool, JournalReadError> {
        let starts = match file_starts(&self.dir) {
            Ok(starts) => starts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(&start) = starts.iter().rev().find(|&&start| start <= position) else {
            return if starts.is_empty() { Ok(false) } else { Err(JournalReadError::Missing { position }) };
        };
        let mut file = File::open(self.dir.join(file_name(start)))?;
        let mut magic = [0; 4];
        match file.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => {}
            Ok(()) => return Err(JournalReadError::Damaged { position: start, source: JournalError::Magic }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        file.seek(SeekFrom::Start(MAGIC.len() as u64 + position - start))?;
        self.file = Some((file, start));
        Ok(true)
    }
}

/// How a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There is more to read.
    More,
    /// With a whole record.
    Whole,
    /// In the middle of one.
    Torn { bytes: usize },
}

fn take(bytes: &mut Bytes, position: u64) -> Result<Option<(Frame, usize)>, JournalReadError> {
    journal::take_record(bytes).map_err(|source| JournalReadError::Damaged { position, source })
}

/// Locks without waiting; `None` if another thread has it.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every statement, so a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: Vec<u8>) -> Body {
        Body::Output(Bytes::from(bytes))
    }

    fn without_headers(frames: &[Frame]) -> impl Iterator<Item = &Body> {
        frames.iter().map(|frame| &frame.body).filter(|body| !matches!(body, Body::Header(_)))
    }

    async fn written(dir: &Path, durability: Durability) -> (Arc<Journal>, Vec<Body>) {
        let disk = Disk::start(durability, Duration::from_millis(10)).unwrap();
        let journal = Journal::create(dir.join("r-1"), "{}").unwrap();
        let mut all = vec![Body::Header("{}".to_owned())];
        for number in 0..2_200_u32 {
            let bodies = vec![output(vec![number as u8; 40_000]), Body::Input(Bytes::from(number.to_string()))];
            all.extend(bodies.clone());
            disk.append(&journal, bodies).await.unwrap();
        }
        (journal, all)
    }

    #[tokio::test]
    async fn what_was_appended_is_read_back_across_files_while_writing_goes_on() {
        for durability in [Durability::Process, Durability::Power] {
            let dir = tempfile::tempdir().unwrap();
            let (journal, all) = written(dir.path(), durability).await;
            assert!(file_starts(journal.dir()).unwrap().len() >= 2, "the journal was not rotated");
            let mut reader = JournalReader::new(journal.dir().to_owned(), 0);
            let mut frames = Vec::new();
            while reader.position() < journal.end() {
                reader.read(journal.end(), 1 << 20, &mut frames).unwrap();
            }
            assert!(without_headers(&frames).eq(&all[1..]));
            assert!(frames.is_sorted_by_key(|frame| frame.at));

            let mut again = Vec::new();
            let mut reader = JournalReader::new(journal.dir().to_owned(), 0);
            while reader.read_rest(1 << 20, &mut again).unwrap() == Rest::More {}
            assert_eq!(again, frames);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn many_who_write_at_once_while_it_is_flushed_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::start(Durability::Process, Duration::ZERO).unwrap();
        let journals = [0, 1].map(|number| Journal::create(dir.path().join(format!("r-{number}")), "{}").unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..6 {
            let (disk, journal) = (disk.clone(), journals[number % 2].clone());
            writers.spawn(async move {
                for _ in 0..500 {
                    disk.append(&journal, vec![output(vec![b'x'; 10])]).await.unwrap();
                }
            });
        }
        tokio::time::timeout(Duration::from_secs(60), writers.join_all()).await.expect("they wait for each other");
        for journal in journals {
            let mut frames = Vec::new();
            JournalReader::new(journal.dir().to_owned(), 0).read(journal.end(), 1 << 20, &mut frames).unwrap();
            assert_eq!(without_headers(&frames).count(), 1500);
        }
    }

    #[tokio::test]
    async fn files_go_once_everything_in_them_is_elsewhere_and_reading_goes_on_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, all) = written(dir.path(), Durability::Process).await;
        let second = file_starts(journal.dir()).unwrap()[1];
        assert_eq!(remove_before(journal.dir(), second - 1).unwrap(), 0);
        assert_eq!(remove_before(journal.dir(), second).unwrap(), 1);
        let mut frames = Vec::new();
        let mut reader = JournalReader::new(journal.dir().to_owned(), second);
        while reader.read_rest(1 << 20, &mut frames).unwrap() == Rest::More {}
        assert!(matches!(frames[0].body, Body::Header(_)), "a file without a header");
        assert!(without_headers(&frames).eq(&all[all.len() + 1 - frames.len()..]));
        let error = JournalReader::new(journal.dir().to_owned(), 0).read_rest(1, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, JournalReadError::Missing { position: 0 }));
    }

    #[tokio::test]
    async fn a_journal_is_held_by_its_writer_and_then_by_one_who_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = written(dir.path(), Durability::Process).await;
        let place = journal.dir().to_owned();
        assert!(file_starts(&place).unwrap().len() >= 2, "the journal was not rotated");
        assert!(claim(&place).unwrap().is_none());
        drop(journal);
        let mut first = None;
        crate::support::eventually("the flusher lets go of it", async || {
            first = claim(&place).unwrap();
            first.is_some()
        })
        .await;
        assert!(claim(&place).unwrap().is_none());
        drop(first);
        assert!(claim(&place).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_torn_tail_is_told_and_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::start(Durability::Process, Duration::from_millis(10)).unwrap();
        let journal = Journal::create(dir.path().join("r-1"), "{}").unwrap();
        disk.append(&journal, vec![output(vec![b'x'; 100])]).await.unwrap();
        let path = journal.dir().join(file_name(0));
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 7).unwrap();
        let mut frames = Vec::new();
        let rest = JournalReader::new(journal.dir().to_owned(), 0).read_rest(1 << 20, &mut frames).unwrap();
        assert_eq!(rest, Rest::Torn { bytes: RECORD_HEAD_BYTES + 100 - 7 });
        assert_eq!(frames.len(), 1);
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_append_and_every_later_one_but_keeps_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::start(Durability::Process, Duration::from_millis(10)).unwrap();
        let journal = Journal::create(dir.path().join("r-1"), "{}").unwrap();
        disk.append(&journal, vec![output(vec![b'x'; 100])]).await.unwrap();
        // "/dev/full" is a disk without room.
        lock(&journal.tail).file = Arc::new(OpenOptions::new().append(true).open("/dev/full").unwrap());
        let append = || disk.append(&journal, vec![output(vec![b'y'; 100])]);
        assert!(matches!(append().await, Err(JournalWriteError::Disk(_))));
        assert!(matches!(append().await, Err(JournalWriteError::Failed(_))));
        let mut frames = Vec::new();
        JournalReader::new(journal.dir().to_owned(), 0).read(journal.end(), 1 << 20, &mut frames).unwrap();
        assert_eq!(frames.len(), 2);
    }
}
