//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions (its PROTOCOL file, §4), followed as it flows.
//!
//! A [`Gate`] sees every packet of both directions once, in pieces cut anywhere. Content is not copied: it passes as slices of
//! what came in, hashed on the way. Heads are gathered until they can be judged. What may not pass is answered by the gate
//! with a STATUS of its own; the client's ids go through unchanged.
//!
//! ```text
//!            ┌── head ──► judged ──► forwarded ──► body: forwarded, hashed ──┐
//!   stream ──┤                  └──► refused ───► body: dropped ─────────────┼──► next packet
//!            └── cannot be read: opaque (nothing to enforce) or ended        ┘
//! ```
//!
//! - A client that offers a later version gets version 3: its INIT is replaced.
//! - Under rules for paths or contents the gate asks the target for the login's home (REALPATH of `.`, with an id of its own)
//!   before the client sees VERSION, so that relative paths have a meaning from the first request on.
//! - Under a list of allowed SHA-256 an upload is judged when it is closed; what must not stay is emptied by its handle,
//!   whatever its name is by then, closed and removed, and only then is the client told. Until then the target holds
//!   what was sent. The same is done when the client goes without a close; if the connection to the target itself is cut,
//!   nothing can be undone.
//! - Ids of the gate's own are taken from the top of the range, past those in use. A client that uses one of them while it is
//!   under way uses an id twice, which ends it like any other confusion of ids.

mod tracker;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::files::gate::{Condition, Desk, Fault, Piece, Side};
use crate::files::{FileTerms, Spent};

use tracker::{Cursor, Tracker, Verdict};
pub use tracker::{MOST_HANDLES, MOST_REQUESTS, MOST_TRACKED};
use wire::Extent;
pub use wire::{MOST_HANDLE, MOST_HEAD, MOST_PACKET};

/// Follows one channel that speaks SFTP. See the [module](self).
#[derive(Debug)]
pub struct Gate {
    pub(crate) desk: Desk,
    client: Stream,
    target: Stream,
    tracker: Tracker,
}

/// Where one direction stands.
#[derive(Debug, Default)]
struct Stream {
    /// The beginning of a packet whose head is not complete. Nothing of it was sent on.
    held: BytesMut,
    body: Option<Body>,
}

/// What is left of a packet whose head was judged.
#[derive(Debug)]
struct Body {
    /// Never zero.
    left: usize,
    forward: bool,
    content: Option<Cursor>,
}

/// The zeros that complete a packet of a client that went in the middle of one.
static ZEROS: [u8; 32 << 10] = [0; 32 << 10];

impl Gate {
    /// A gate for a channel that just began; with digests of what is transferred if `hash`.
    pub fn new(terms: FileTerms, spent: Arc<Spent>, hash: bool) -> Self {
        Self {
            desk: Desk::new(),
            client: Stream::default(),
            target: Stream::default(),
            tracker: Tracker::new(terms, spent, hash),
        }
    }

    pub fn client_sent(&mut self, bytes: Bytes) {
        self.sent(Side::Client, &bytes);
    }

    pub fn target_sent(&mut self, bytes: Bytes) {
        self.sent(Side::Target, &bytes);
    }

    /// The client sends no more. See [`crate::files::gate::FileGate::client_ended`].
    pub fn client_ended(&mut self) {
        match self.desk.condition {
            Condition::Ended(_) => {}
            Condition::Following if self.tracker.is_strict() => self.undo(),
            Condition::Following | Condition::Opaque(_) => {
                let held = self.client.held.split().freeze();
                self.desk.to_target.forward(held, true);
            }
        }
    }

    /// See [`crate::files::gate::FileGate::is_undoing`].
    pub fn is_undoing(&self) -> bool {
        self.tracker.is_undoing()
    }

    /// The target sends no more: what was under way is told of as interrupted.
    pub fn target_ended(&mut self) {
        if self.desk.condition == Condition::Following && !self.tracker.is_strict() {
            let held = self.target.held.split().freeze();
            self.desk.to_client.forward(held, true);
        }
        self.tracker.finish(&mut self.desk);
    }

    /// Bytes that the gate holds, for tests of its bounds: heads that are not complete.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.client.held.len() + self.target.held.len()
    }

    fn sent(&mut self, from: Side, input: &Bytes) {
        match self.desk.condition {
            Condition::Ended(_) => return,
            Condition::Opaque(_) => return self.pass(from, input),
            Condition::Following => {}
        }
        if let Err((what, unsent)) = self.follow(from, input) {
            self.lose(Fault::Unreadable { from, what });
            self.pass(from, &input.slice(unsent.min(input.len())..));
        }
        if self.desk.to_client.is_overfull() {
            self.lose(Fault::Stalled { side: Side::Client });
        } else if self.desk.to_target.is_overfull() {
            self.lose(Fault::Stalled { side: Side::Target });
        }
    }

    /// Goes on without following, or ends.
    fn lose(&mut self, fault: Fault) {
        if self.tracker.is_strict() {
            self.undo();
            self.desk.to_client.drop_waiting();
            self.desk.condition = Condition::Ended(fault);
        } else {
            self.desk.condition = Condition::Opaque(fault);
            self.pass(Side::Client, &Bytes::new());
            self.pass(Side::Target, &Bytes::new());
        }
        self.tracker.finish(&mut self.desk);
    }

    /// Lets everything pass, but for the rest of a packet that was refused. Nothing at all once the gate has ended.
    fn pass(&mut self, from: Side, input: &Bytes) {
        if !matches!(self.desk.condition, Condition::Opaque(_)) {
            return;
        }
        let Self { desk, client, target, .. } = self;
        let stream = match from {
            Side::Client => client,
            Side::Target => target,
        };
        let outbox = desk.toward_other(from);
        let mut rest = input.clone();
        if let Some(body) = &mut stream.body {
            let part = rest.split_to(body.left.min(rest.len()));
            body.left -= part.len();
            let (left, forward) = (body.left, body.forward);
            if forward {
                outbox.forward(part, left > 0);
            }
            if left > 0 {
                return;
            }
            stream.body = None;
        }
        outbox.packet_ended();
        outbox.forward(stream.held.split().freeze(), false);
        outbox.forward(rest, false);
    }

    /// Sees to it that no upload stays that must not, when the client cannot be asked any more.
    fn undo(&mut self) {
        self.client.held.clear();
        if !self.tracker.has_uploads_to_undo() {
            return;
        }
        if let Some(body) = self.client.body.take().filter(|body| body.forward) {
            let mut left = body.left;
            while left > 0 {
                let zeros = left.min(ZEROS.len());
                self.desk.to_target.forward(Bytes::from_static(&ZEROS).slice(..zeros), true);
                left -= zeros;
            }
            if let Some(cursor) = body.content {
                self.tracker.spoil(&cursor);
            }
        }
        self.desk.to_target.packet_ended();
        self.tracker.undo_uploads(&mut self.desk);
    }

    /// Takes `input` apart. What is not forwarded as a whole is cut at packets' ends, so that pieces are few and none is copied. An
    /// error says why, and from where on `input` was neither forwarded nor dropped nor held: all before it was judged and is sent.
    fn follow(&mut self, from: Side, input: &Bytes) -> Result<(), (wire::Unreadable, usize)> {
        let Self { desk, client, target, tracker } = self;
        let stream = match from {
            Side::Client => client,
            Side::Target => target,
        };
        // Seen up to `at`; sent, dropped or held up to `start`. What is between is to be sent.
        let (mut at, mut start) = (0, 0);
        loop {
            if let Some(body) = &mut stream.body {
                let taken = body.left.min(input.len() - at);
                if let Some(cursor) = &mut body.content {
                    tracker.content(cursor, &input[at..at + taken]);
                }
                at += taken;
                body.left -= taken;
                let (left, forward) = (body.left, body.forward);
                if !forward {
                    start = at;
                }
                if left > 0 {
                    desk.toward_other(from).forward(input.slice(start..at), forward);
                    return Ok(());
                }
                stream.body = None;
                send_run(desk, from, input, &mut start, at, false);
            }
            let looked_at = if stream.held.is_empty() { &input[at..] } else { &stream.held[..] };
            let extent = match from {
                Side::Client => wire::request_extent(looked_at),
                Side::Target => wire::reply_extent(looked_at, |kind, id| tracker.wants_whole(kind, id)),
            };
            let extent = match extent {
                Ok(extent) => extent,
                Err(what) => {
                    send_run(desk, from, input, &mut start, at, true);
                    return Err((what, at));
                }
            };
            if let Extent::Need(need) = extent {
                let need = if stream.held.is_empty() { input.len() - at } else { need.min(input.len() - at) };
                send_run(desk, from, input, &mut start, at, true);
                if at == input.len() {
                    return Ok(());
                }
                stream.held.extend_from_slice(&input[at..at + need]);
                at += need;
                start = at;
                continue;
            }
            let (head, whole, verdict) = match (from, extent) {
                (_, Extent::Head { head, whole }) => {
                    let bytes = looked_at.get(..head).unwrap_or_default();
                    let verdict = match from {
                        Side::Client => tracker.request(bytes, desk),
                        Side::Target => tracker.reply(bytes, desk),
                    };
                    (head, whole, verdict)
                }
                (Side::Client, Extent::Oversized { whole }) => {
                    (wire::ID_END, whole, tracker.oversized(looked_at, desk))
                }
                // No more than the id is needed to pass a long list of names on.
                (Side::Target, Extent::Oversized { whole }) => {
                    let bytes = looked_at.get(..wire::ID_END).unwrap_or_default();
                    (wire::ID_END, whole, tracker.reply(bytes, desk))
                }
                (_, Extent::Need(_)) => continue,
            };
            let verdict = match verdict {
                Ok(verdict) => verdict,
                Err(what) => {
                    send_run(desk, from, input, &mut start, at, true);
                    return Err((what, at));
                }
            };
            // Packets of our own that belong before this one.
            send_run(desk, from, input, &mut start, at, false);
            let (forward, content) = match verdict {
                Verdict::Pass(content) => (true, content),
                Verdict::Drop => (false, None),
                Verdict::Replace(bytes) => {
                    send_run(desk, from, input, &mut start, at, true);
                    desk.toward_other(from).inject(Piece::Injected(bytes));
                    (false, None)
                }
            };
            if !forward {
                send_run(desk, from, input, &mut start, at, true);
            }
            if stream.held.is_empty() {
                at += head;
                if !forward {
                    start = at;
                }
            } else {
                let bytes = stream.held.split().freeze();
                if forward {
                    desk.toward_other(from).forward(bytes, whole > head);
                }
            }
            if whole > head {
                stream.body = Some(Body { left: whole - head, forward, content });
            }
            if at == input.len() && stream.body.is_none() {
                send_run(desk, from, input, &mut start, at, true);
                return Ok(());
            }
        }
    }
}

/// At the end of a packet: sends `input` from `start` to `at` and then what waits, if something does or if `now`.
fn send_run(desk: &mut Desk, from: Side, input: &Bytes, start: &mut usize, at: usize, now: bool) {
    let outbox = desk.toward_other(from);
    if now || outbox.has_waiting() {
        outbox.forward(input.slice(*start..at), false);
        outbox.packet_ended();
        *start = at;
    }
}
