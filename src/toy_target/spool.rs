//! What a program has not yet read: a queue in memory that goes on in an unlinked file.
//!
//! The SSH library re-opens a channel's window when bytes arrive, and its loop waits when a channel's queue
//! is full. A channel that is not drained would therefore stop every other channel of its connection, its own
//! window adjustments included: `ssh host cat` with a reader that pauses would hang for ever. So whatever
//! arrives is taken at once, and waits here.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes kept in memory before the file is used.
const IN_MEMORY: usize = 1 << 20;

/// Bytes that wait in the file at most; the channel ends when more would.
const IN_FILE: u64 = 4 << 30;

/// How much is read back from the file at a time.
const READ: u64 = 64 << 10;

/// A byte queue with one writer and one reader.
#[derive(Default)]
pub(super) struct Spool {
    state: Mutex<State>,
    changed: Notify,
}

/// Memory holds what is older than the file's unread part, so order is memory first, then the file.
#[derive(Default)]
struct State {
    memory: VecDeque<Bytes>,
    in_memory: usize,
    file: Option<File>,
    read: u64,
    written: u64,
    closed: bool,
}

impl Spool {
    /// Adds `bytes`. The file lies in the page cache for the moments that it lives, so writing it does not wait for a disk.
    pub(super) fn push(&self, bytes: Bytes) -> io::Result<()> {
        let mut state = self.state();
        let file_is_empty = state.read == state.written;
        if file_is_empty && state.in_memory + bytes.len() <= IN_MEMORY {
            state.in_memory += bytes.len();
            state.memory.push_back(bytes);
        } else {
            let length = bytes.len() as u64;
            if state.written - state.read + length > IN_FILE {
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the program reads too slowly"));
            }
            let at = state.written;
            let file = match &mut state.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile()?),
            };
            file.write_all_at(&bytes, at)?;
            state.written += length;
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// The next bytes, or `None` at the end. Cancel safe.
    pub(super) async fn pop(&self) -> io::Result<Option<Bytes>> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if let Some(bytes) = state.next()? {
                    return Ok(Some(bytes));
                }
                if state.closed {
                    return Ok(None);
                }
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(bytes) = self.memory.pop_front() {
            self.in_memory -= bytes.len();
            return Ok(Some(bytes));
        }
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let length = READ.min(self.written - self.read);
        if length == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, self.read)?;
        self.read += length;
        if self.read == self.written {
            file.set_len(0)?;
            (self.read, self.written) = (0, 0);
        }
        Ok(Some(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_order_through_memory_and_file_and_memory_again() {
        let spool = Spool::default();
        let packets: Vec<Bytes> = (0..100_u8).map(|n| Bytes::from(vec![n; 32 << 10])).collect();

        for packet in &packets {
            spool.push(packet.clone()).unwrap();
        }
        let mut out = Vec::new();
        while out.len() < 100 * (32 << 10) {
            out.extend_from_slice(&spool.pop().await.unwrap().unwrap());
        }
        spool.push(Bytes::from_static(b"end")).unwrap();
        spool.close();

        assert!(packets.concat() == out);
        assert_eq!(spool.pop().await.unwrap().unwrap(), "end");
        assert_eq!(spool.pop().await.unwrap(), None);
    }
}
