//! A client's channel while the bastion itself is at the other end: what is typed and resized comes in, text goes out. Every
//! write has a deadline, for a client may not read.

use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf};
use sallyport_domain::channel::TerminalSize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::channel;
use super::super::proxy::{ClientSide, Request, Start};

/// How long a client may take for what it is sent.
const WRITE: Duration = Duration::from_secs(10);

/// As many bytes as are sent at once.
const PIECE: usize = 16 << 10;

/// What comes from the client.
#[derive(Debug)]
pub enum Incoming {
    Typed(Bytes),
    /// No more will be typed.
    End,
    Resized(TerminalSize),
    /// The bastion wants the person to leave.
    Leave,
}

/// The client has gone, or does not read.
#[derive(Debug, thiserror::Error)]
#[error("the client has gone")]
pub struct Gone;

/// A channel without a target.
pub struct Console<'a> {
    pub client: &'a ClientSide,
    pub read: &'a mut ChannelReadHalf,
    pub requests: &'a mut mpsc::Receiver<Request>,
    /// What was asked for; a resize goes here, so that a program that is started later has the right size.
    pub start: &'a mut Start,
    pub gone: &'a CancellationToken,
    pub leave: &'a CancellationToken,
}

impl Console<'_> {
    pub fn has_pty(&self) -> bool {
        self.start.pty.is_some()
    }

    /// The terminal's size; 80×24 where it is not known.
    pub fn size(&self) -> TerminalSize {
        self.start.pty.as_ref().map_or(TerminalSize { cols: 0, rows: 0 }, |pty| pty.size).drawable()
    }

    /// What comes next. Cancel safe.
    pub async fn next(&mut self) -> Result<Incoming, Gone> {
        loop {
            tokio::select! {
                message = self.read.wait() => match message {
                    None | Some(ChannelMsg::Close) => return Err(Gone),
                    Some(ChannelMsg::Data { data }) => return Ok(Incoming::Typed(data)),
                    Some(ChannelMsg::Eof) => return Ok(Incoming::End),
                    Some(_) => {}
                },
                request = self.requests.recv() => match (request, &mut self.start.pty) {
                    (Some(Request::Resize { size, pixels }), Some(pty)) => {
                        pty.size = size;
                        (pty.pixel_width, pty.pixel_height) = pixels;
                        return Ok(Incoming::Resized(size.drawable()));
                    }
                    (Some(Request::Resize { .. } | Request::Signal(_)), _) => {} // nothing runs
                    (None, _) => return Err(Gone),
                },
                () = self.gone.cancelled() => return Err(Gone),
                () = self.leave.cancelled() => return Ok(Incoming::Leave),
            }
        }
    }

    /// Writes bytes as they are to the client's standard output.
    pub async fn draw(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let sent = tokio::time::timeout(WRITE, self.client.write.data_bytes(piece)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Err(Gone);
            }
        }
        Ok(())
    }

    /// Writes lines to the client's standard output.
    pub async fn print(&self, text: &str) -> Result<(), Gone> {
        // A client with a terminal has put its own into raw mode.
        let text = if self.has_pty() { text.replace('\n', "\r\n") } else { text.to_owned() };
        self.draw(text.into_bytes()).await
    }

    /// Says lines on the client's standard error.
    pub async fn say(&self, lines: &[String]) {
        channel::tell(self.client, self.has_pty(), lines).await;
    }
}
