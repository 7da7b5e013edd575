//! What a client has sent and its target has not taken yet.
//!
//! Bytes that arrive are taken at once and journalled, or one channel that is not drained would freeze every other of its
//! connection. A little of them stays in memory; what is more is read back from the journal, which holds it anyway. So a
//! stalled target costs disk, bounded by a budget, and no memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sallyport_domain::recording::frame::Body;
use sallyport_domain::recording::journal::RECORD_HEAD_BYTES;
use tokio::sync::Notify;

use crate::app::recordings::Recorder;
use crate::app::recordings::journal::{JournalReadError, JournalReader, Written};

/// How much waits in memory.
const MEMORY_BYTES: usize = 512 << 10;

/// How much is read back from the journal at once.
const READ_BYTES: usize = 256 << 10;

/// The queue between a client's packets and its target.
pub struct InputQueue {
    recorder: Arc<Recorder>,
    budget: u64,
    state: Mutex<State>,
    more: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// The journal positions between which input was not queued, if it did not fit: from, to.
    spilled: Option<(u64, u64)>,
    /// Sent by the client and not taken by the target, wherever it is.
    outstanding: u64,
    ended: bool,
}

/// What the target is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Bytes(Vec<Bytes>),
    /// The client has sent everything (EOF, RFC 4254 §5.3).
    End,
}

/// The target has not taken more than the budget allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the target did not take {bytes} bytes that were sent to it")]
pub struct OverBudget {
    pub bytes: u64,
}

impl InputQueue {
    /// An empty queue that reads back from `recorder`'s journal; `budget` in bytes.
    pub fn new(recorder: Arc<Recorder>, budget: u64) -> Self {
        Self { recorder, budget, state: Mutex::default(), more: Notify::new() }
    }

    /// Call it before a batch is recorded: from here on the journal may be needed.
    pub fn before_recording(&self) {
        if self.state().spilled.is_none() {
            self.recorder.keep_from(Some(self.recorder.journal().end()));
        }
    }

    /// Takes what was recorded just now, ending where `written` says.
    pub fn offer(&self, batch: &[Bytes], written: Written) -> Result<(), OverBudget> {
        let mut state = self.state();
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        state.outstanding += bytes as u64;
        if state.outstanding > self.budget {
            return Err(OverBudget { bytes: state.outstanding });
        }
        match state.spilled {
            Some((from, _)) => state.spilled = Some((from, written.end)),
            None if state.queued_bytes + bytes <= MEMORY_BYTES => {
                state.queued_bytes += bytes;
                state.queue.extend(batch.iter().cloned());
                self.recorder.keep_from(None);
            }
            None => {
                let start = written.end - (bytes + batch.len() * RECORD_HEAD_BYTES) as u64;
                state.spilled = Some((start, written.end));
                self.recorder.keep_from(Some(start));
            }
        }
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    /// The client has sent everything.
    pub fn end(&self) {
        self.state().ended = true;
        self.more.notify_one();
    }

    /// Whether the client has sent everything.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// The target took that many bytes.
    pub fn taken(&self, bytes: usize) {
        let mut state = self.state();
        state.outstanding = state.outstanding.saturating_sub(bytes as u64);
    }

    /// Waits for what comes next. One caller at a time; cancel safe in memory, and a caller that is cancelled while it
    /// reads back does not go on.
    pub async fn next(&self) -> Result<Next, JournalReadError> {
        loop {
            let more = self.more.notified();
            let spilled = {
                let mut state = self.state();
                if !state.queue.is_empty() {
                    state.queued_bytes = 0;
                    return Ok(Next::Bytes(state.queue.drain(..).collect()));
                }
                if state.spilled.is_none() && state.ended {
                    return Ok(Next::End);
                }
                state.spilled
            };
            if let Some((from, to)) = spilled {
                let batch = self.read_back(from, to).await?;
                if !batch.is_empty() {
                    return Ok(Next::Bytes(batch));
                }
                continue;
            }
            more.await;
        }
    }

    async fn read_back(&self, from: u64, to: u64) -> Result<Vec<Bytes>, JournalReadError> {
        let dir = self.recorder.journal().dir().to_owned();
        let read = move || {
            let mut reader = JournalReader::new(dir, from);
            let mut frames = Vec::new();
            reader.read(to, READ_BYTES, &mut frames)?;
            Ok((reader.position(), frames))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (position, frames) =
            read.unwrap_or_else(|error| Err(JournalReadError::Io(std::io::Error::other(error))))?;
        let mut state = self.state();
        // Meanwhile the end may have moved on; the start moves here alone.
        state.spilled = state.spilled.map(|(_, to)| (position, to)).filter(|(from, to)| from < to);
        self.recorder.keep_from(state.spilled.map(|(from, _)| from));
        drop(state);
        let input = |body| if let Body::Input(bytes) = body { Some(bytes) } else { None };
        Ok(frames.into_iter().filter_map(|frame| input(frame.body)).collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
