//! Files in a channel: the grant's rules on what passes, and what is told of it.
//!
//! The gate itself is pure (`domain::files`). Both directions feed it, each sends what the gate has for its own side, and wakes
//! the other, for which the gate may have something by now: a refusal, an answer that was waited for, something to undo.
//! No lock is held over an await; what the gate tells is handed to the log before anything is waited for, so that a
//! task that is cancelled takes nothing with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelWriteHalf, client};
use sallyport_domain::channel::Program;
use sallyport_domain::event::Act;
use sallyport_domain::files::gate::{Condition, Fault, FileGate, Piece, Side, Transfer};
use sallyport_domain::files::{
    Direction, FileAct, FileDenial, FileOperation, FilePath, FileResult, FileTerms, RecordedOperation, Way,
};
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::policy::Permit;
use sallyport_domain::recording::frame::Body;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::freeze::Freeze;
use super::input::{InputQueue, Next};
use super::proxy::ProxyError;
use super::session::Live;
use crate::app::audit;
use crate::app::clock::Clock;
use crate::app::files::FileLog;
use crate::app::recordings::journal::MOST_FRAMES;
use crate::app::recordings::{RecordError, Recorder};

/// How long the target may take to take away what must not stay, once its client has ended its input or gone.
pub const UNDO: Duration = Duration::from_secs(2);

/// As many refusals are told in words in one channel. Clients of SFTP know only "permission denied".
const MOST_WORDS: usize = 20;

/// How much of the paths that a command line names is told, in bytes. The command line itself is in the recording, whole.
const MOST_NAMED: usize = 64 << 10;

/// What the rules say of one channel's bytes.
pub struct ChannelFiles {
    terms: FileTerms,
    live: Arc<Live>,
    gate: Option<Gate>,
    /// A forward's bytes are neither a terminal's nor a command's.
    is_forward: bool,
    told: Told,
}

struct Gate {
    state: Mutex<GateState>,
    for_client: Notify,
    for_target: Notify,
}

struct GateState {
    gate: FileGate,
    opaque_told: bool,
    /// Refusals that the client is still to be told in words.
    words: Vec<String>,
    words_left: usize,
}

/// Whom to tell, and about what.
struct Told {
    session: SessionId,
    recording: RecordingId,
    log: Arc<FileLog>,
    clock: Clock,
}

/// What a look at the gate gave.
#[derive(Debug, Default)]
pub struct Gained {
    /// For the side that looked, in order.
    pub pieces: Vec<Piece>,
    /// What happened, for the recording.
    pub told: Vec<Body>,
    /// Refusals, for the client's standard error.
    pub words: Vec<String>,
    /// Why nothing passes any more, if so.
    pub ended: Option<Fault>,
}

impl ChannelFiles {
    /// The rules of `permit` for `program`, or why it must not run.
    pub fn new(
        permit: &Permit,
        program: &Program,
        live: Arc<Live>,
        (session, recording): (SessionId, RecordingId),
        log: Arc<FileLog>,
        clock: Clock,
    ) -> Result<Self, FileDenial> {
        let terms = FileTerms::new(&permit.terms().capabilities, permit.terms().files.clone());
        let gate = match FileGate::for_program(program, &terms, live.purse.spent(), true)? {
            Transfer::Gated(gate) => Some(Gate {
                state: Mutex::new(GateState { gate, opaque_told: false, words: Vec::new(), words_left: MOST_WORDS }),
                for_client: Notify::new(),
                for_target: Notify::new(),
            }),
            Transfer::Other => None,
        };
        let is_forward = matches!(program, Program::Forward { .. });
        Ok(Self { terms, live, gate, is_forward, told: Told { session, recording, log, clock } })
    }

    /// Whether files are followed in this channel.
    pub fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// Spends `bytes` of what may leave through terminals and commands. Call it before they are sent.
    pub fn spend(&self, bytes: usize) -> Result<(), FileDenial> {
        if self.is_forward { Ok(()) } else { self.terms.spend_terminal(bytes as u64, self.live.purse.spent()) }
    }

    /// Waits until what [`ChannelFiles::target_sent`] is to be given can be paid for, or the grant's budget is spent.
    pub async fn room_for_files(&self, bytes: usize) {
        self.live.purse.room(Way::Files(Direction::Download), bytes).await;
    }

    /// The same for [`ChannelFiles::spend`].
    pub async fn room_to_spend(&self, bytes: usize) {
        if !self.is_forward {
            self.live.purse.room(Way::Terminal, bytes).await;
        }
    }

    /// Takes what the target sent; gives what the client is to be sent.
    pub fn target_sent(&self, bytes: Bytes) -> Gained {
        let gained = self.look(Side::Client, |gate| gate.target_sent(bytes));
        self.wake(Side::Target);
        gained
    }

    /// Takes what the client sent; gives what the target is to be sent.
    fn client_sent(&self, bytes: Bytes) -> Gained {
        let gained = self.look(Side::Target, |gate| gate.client_sent(bytes));
        self.wake(Side::Client);
        gained
    }

    /// The client sends no more; gives what the target is to be sent before its input is ended.
    fn client_ended(&self) -> Gained {
        let gained = self.look(Side::Target, FileGate::client_ended);
        self.wake(Side::Client);
        gained
    }

    /// The target sends no more; gives what the client is to be sent, and tells what was interrupted.
    pub fn target_ended(&self) -> Gained {
        self.look(Side::Client, FileGate::target_ended)
    }

    /// What there is for the client by now.
    pub fn for_client(&self) -> Gained {
        self.look(Side::Client, |_| ())
    }

    /// Returns once there may be something for the client; never without a gate. For one caller at a time.
    pub async fn client_woken(&self) {
        match &self.gate {
            Some(gate) => gate.for_client.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until what was told is not too far ahead of what is written.
    pub async fn room(&self) {
        if self.is_gated() {
            self.told.log.room().await;
        }
    }

    fn wake(&self, side: Side) {
        if let Some(gate) = &self.gate {
            match side {
                Side::Client => gate.for_client.notify_one(),
                Side::Target => gate.for_target.notify_one(),
            }
        }
    }

    fn is_undoing(&self) -> bool {
        self.gate
            .as_ref()
            .is_some_and(|gate| gate.state.lock().unwrap_or_else(PoisonError::into_inner).gate.is_undoing())
    }

    fn look(&self, side: Side, act: impl FnOnce(&mut FileGate)) -> Gained {
        let Some(gate) = &self.gate else {
            return Gained::default();
        };
        let (mut gained, mut operations, mut opaque) = (Gained::default(), Vec::new(), None);
        {
            let mut state = gate.state.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut state.gate);
            let next = |gate: &mut FileGate| match side {
                Side::Client => gate.next_for_client(),
                Side::Target => gate.next_for_target(),
            };
            gained.pieces.extend(std::iter::from_fn(|| next(&mut state.gate)));
            let recorded = |operation| RecordedOperation { event: audit::new_id(), operation };
            operations.extend(std::iter::from_fn(|| state.gate.next_operation()).map(recorded));
            let is_sftp = matches!(state.gate, FileGate::Sftp(_)); // the others end, and say why at their end
            for RecordedOperation { event, operation } in operations.iter().filter(|_| is_sftp) {
                if let FileResult::Denied { denial } = &operation.result
                    && state.words_left > 0
                {
                    state.words_left -= 1;
                    state.words.push(format!("{denial} (reference {event})"));
                }
            }
            if side == Side::Client {
                gained.words = std::mem::take(&mut state.words);
            }
            match state.gate.condition() {
                Condition::Following => {}
                Condition::Ended(fault) => gained.ended = Some(fault.clone()),
                Condition::Opaque(fault) if !state.opaque_told => opaque = Some(fault.to_string()),
                Condition::Opaque(_) => {}
            }
            state.opaque_told |= opaque.is_some();
        }
        operations.iter_mut().for_each(|recorded| shorten(&mut recorded.operation));
        // What is made of strings and numbers always serialises.
        let frame = |recorded: &RecordedOperation| serde_json::to_string(recorded).ok().map(Body::File);
        gained.told = operations.iter().filter_map(frame).collect();
        let Told { session, recording, log, clock } = &self.told;
        let (session, recording) = (*session, *recording);
        let act = |RecordedOperation { event, operation }| {
            let act = Act::FileOperation { session, recording, operation };
            (event, act)
        };
        let operations = operations.into_iter().map(act);
        let opaque = opaque.map(|reason| (audit::new_id(), Act::FilesUnreadable { session, recording, reason }));
        log.tell(clock.now(), operations.chain(opaque));
        gained
    }
}

/// Keeps what a command line of absurd length names within what an event can hold.
fn shorten(operation: &mut FileOperation) {
    if let FileAct::Sync { paths, .. } = &mut operation.act {
        let mut room = MOST_NAMED;
        let fits = |path: &&FilePath| {
            let left = room.checked_sub(path.0.len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let kept = paths.iter().take_while(fits).count();
        paths.truncate(kept);
    }
}

/// Records `bodies`, however many.
pub async fn record_all(recorder: &Recorder, mut bodies: Vec<Body>) -> Result<(), RecordError> {
    while !bodies.is_empty() {
        let rest = bodies.split_off(bodies.len().min(MOST_FRAMES));
        recorder.record(bodies).await?;
        bodies = rest;
    }
    Ok(())
}

/// Feeds the target from the queue through the gate. Returns when everything was fed, or the target is gone, or nothing may
/// pass any more. `leave`: the client has gone; what it left behind and must not stay is taken away.
pub async fn feed(
    queue: Arc<InputQueue>,
    target: Arc<ChannelWriteHalf<client::Msg>>,
    files: Arc<ChannelFiles>,
    recorder: Arc<Recorder>,
    leave: CancellationToken,
    mut freeze: Freeze,
) -> Result<(), ProxyError> {
    let Some(gate) = &files.gate else {
        return Ok(());
    };
    let to = ToTarget { target: &target, files: &files, recorder: &recorder };
    // One future from start to end: it must not be cancelled while it reads back.
    let mut next = Box::pin(queue.next());
    loop {
        let moves = !freeze.is_frozen();
        let step = tokio::select! {
            biased; // nothing more of a client that has gone
            () = leave.cancelled() => None,
            () = freeze.changed() => continue,
            () = gate.for_target.notified(), if moves => {
                if to.send(files.look(Side::Target, |_| ())).await?.is_break() {
                    break;
                }
                continue;
            }
            step = &mut next, if moves => Some(step?),
        };
        match step {
            Some(Next::Bytes(batch)) => {
                for bytes in batch {
                    tokio::select! {
                        biased;
                        () = freeze.thawed() => {}
                        () = leave.cancelled() => break, // what stood still goes nowhere any more
                    }
                    let length = bytes.len();
                    files.live.purse.room(Way::Files(Direction::Upload), length).await;
                    if to.send(files.client_sent(bytes)).await?.is_break() {
                        let _ = target.eof().await; // it may have gone, and the output pump sees why
                        return Ok(());
                    }
                    queue.taken(length);
                }
                next = Box::pin(queue.next());
            }
            Some(Next::End) | None => {
                if to.send(files.client_ended()).await?.is_break() {
                    break;
                }
                let answers = async {
                    while files.is_undoing() {
                        gate.for_target.notified().await;
                        if to.send(files.look(Side::Target, |_| ())).await?.is_break() {
                            break;
                        }
                    }
                    Ok::<_, ProxyError>(())
                };
                if let Ok(answered) = tokio::time::timeout(UNDO, answers).await {
                    answered?;
                }
                break;
            }
        }
    }
    let _ = target.eof().await; // as above
    Ok(())
}

/// Where what the gate has for the target goes.
struct ToTarget<'a> {
    target: &'a ChannelWriteHalf<client::Msg>,
    files: &'a ChannelFiles,
    recorder: &'a Recorder,
}

impl ToTarget<'_> {
    /// Records what is not the client's own, and what happened; then sends. Breaks if nothing more can be sent.
    async fn send(&self, gained: Gained) -> Result<std::ops::ControlFlow<()>, ProxyError> {
        use std::ops::ControlFlow::{Break, Continue};
        let Gained { pieces, told, words: _, ended } = gained;
        let injected = pieces.iter().filter_map(|piece| match piece {
            Piece::Injected(bytes) => Some(Body::File(format!("{{\"to_target\":\"{}\"}}", hex(bytes)))),
            Piece::Forward(_) => None,
        });
        record_all(self.recorder, injected.chain(told).collect()).await?;
        for piece in pieces {
            if self.target.data_bytes(piece.into_bytes()).await.is_err() {
                return Ok(Break(()));
            }
        }
        self.files.room().await;
        Ok(if ended.is_some() { Break(()) } else { Continue(()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a string cannot fail
        text
    })
}
