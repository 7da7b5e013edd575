//! One session channel between a client and a target: record, then send on.
//!
//! ```text
//! client ──► input pump ──► journal ──► input queue ──► feeder ──► target
//! client ◄─────────────── journal ◄────────── output pump ◄─────── target
//! ```
//!
//! The two directions are independent tasks, or 64 MB echoed both ways would wait for each other. The input pump takes at
//! once whatever arrives. The output pump stops reading a target whose client does not take its output; each channel has a
//! connection to the target for itself, so that stalls nobody else.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::files::{self, ChannelFiles, Gained};
use super::freeze::Freeze;
use super::input::{InputQueue, Next, OverBudget};
use super::notice::{About, Note};
use crate::app::recordings::journal::{JournalReadError, MOST_FRAMES};
use crate::app::recordings::{RecordError, Recorder};
use bytes::Bytes;
use futures::FutureExt;
use russh::server::{self, ChannelOpenHandle, Handle};
use russh::{ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Sig, client};
use sallyport_domain::channel::{Program, Pty, TerminalSize};
use sallyport_domain::event::CutReason;
use sallyport_domain::files::gate::Piece;
use sallyport_domain::recording::frame::Body;
use sallyport_domain::terminal::TerminalWatch;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// As many bytes as are recorded in one write: enough to hide the journal behind the wire, small enough to be prompt.
const BATCH_BYTES: usize = 256 << 10;

/// What a client asks of a running program, already found legal by `domain::channel`.
#[derive(Debug)]
pub enum Request {
    Resize { size: TerminalSize, pixels: (u32, u32) },
    Signal(Sig),
}

/// Where output goes: the client's side of the channel.
pub struct ClientSide {
    pub write: ChannelWriteHalf<server::Msg>,
    pub handle: Handle,
    /// The answer to a forward's opening, as long as it is due. Dropping it is a refusal.
    pub opening: Mutex<Option<ChannelOpenHandle>>,
    /// A forward has no exit status and no standard error.
    pub is_forward: bool,
}

impl ClientSide {
    /// Opens the channel, if that is still due.
    pub async fn accept(&self) {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(opening) = opening {
            opening.accept().await;
        }
    }

    /// Answers the opening, if that is still due, with a failure to connect.
    pub async fn fail(&self) {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(opening) = opening {
            opening.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    }

    /// Whether nothing may be sent on the channel yet.
    pub fn is_opening(&self) -> bool {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// What is to be started.
pub struct Start {
    pub program: Program,
    pub pty: Option<Pty>,
    pub env: Vec<(String, String)>,
    /// What was typed for the program before it was known where it runs, or whether.
    pub ahead: Bytes,
    /// Nothing comes after that: the client has ended its input.
    pub ahead_is_all: bool,
}

/// When something last moved in a session, either way. Cheap to clone.
#[derive(Clone)]
pub struct Activity(Arc<ActivityState>);

struct ActivityState {
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
}

impl Activity {
    /// Something moves now.
    pub fn begin() -> Self {
        Self(Arc::new(ActivityState { began: Instant::now(), last: AtomicU64::new(0) }))
    }

    /// Something moves now.
    pub fn touch(&self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `timeout`; never without one.
    pub async fn stops_for(&self, timeout: Option<Duration>) {
        let Some(timeout) = timeout else {
            return std::future::pending().await;
        };
        loop {
            let due = self.0.began + Duration::from_millis(self.0.last.load(Ordering::Relaxed)) + timeout;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// What the session tells its channels.
pub struct Orders {
    /// Ends the channel: the client has gone, or the session was cut.
    pub stop: CancellationToken,
    /// Why the session was cut, if it was.
    pub cut: Arc<OnceLock<CutReason>>,
    /// What is to be said on terminals.
    pub notes: broadcast::Receiver<Note>,
    /// Whether the session stands still.
    pub freeze: Freeze,
}

/// Why a channel's session must be cut.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    #[error("what the client sent could not be read back")]
    ReadBack(#[from] JournalReadError),
}

impl From<&ProxyError> for CutReason {
    fn from(error: &ProxyError) -> Self {
        match error {
            ProxyError::OverBudget(OverBudget { bytes }) => CutReason::TargetStalled { bytes: *bytes },
            ProxyError::Record(_) | ProxyError::ReadBack(_) => CutReason::RecordingFailed { message: chain(error) },
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// The client's side is closed, or its connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientClosed;

/// Takes whatever the client sends, journals it and queues it for the target, until the client closes the channel. It
/// goes on after the client's EOF, to see the close. What the client sent `ahead` comes first, and is all if it has ended its input.
pub async fn pump_input(
    (ahead, ahead_is_all): (Bytes, bool),
    mut client: ChannelReadHalf,
    recorder: Arc<Recorder>,
    queue: Arc<InputQueue>,
    activity: Activity,
) -> Result<ClientClosed, ProxyError> {
    let mut ended = false;
    // In pieces that a record of the journal can hold.
    let pieces = (0..ahead.len()).step_by(BATCH_BYTES).map(|at| ahead.slice(at..ahead.len().min(at + BATCH_BYTES)));
    let mut ahead: VecDeque<_> = pieces.map(|data| ChannelMsg::Data { data }).collect();
    ahead.extend(ahead_is_all.then_some(ChannelMsg::Eof));
    while let Some(first) = match ahead.pop_front() {
        Some(first) => Some(first),
        None => client.wait().await,
    } {
        activity.touch();
        let mut batch = Vec::new();
        let (mut bytes, mut eof, mut closed) = (0, false, false);
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                // After its EOF a client sends nothing; what comes all the same is dropped, as OpenSSH does.
                ChannelMsg::Data { data } if !ended && !data.is_empty() => {
                    bytes += data.len();
                    batch.push(data);
                }
                ChannelMsg::Eof => eof = true,
                ChannelMsg::Close => closed = true,
                // Requests come by way of the handler, which has answered them.
                _ => {}
            }
            if !eof && !closed && bytes < BATCH_BYTES && batch.len() < MOST_FRAMES {
                next = client.wait().now_or_never().flatten();
            }
        }
        if !batch.is_empty() {
            queue.before_recording();
            let written = recorder.record(batch.iter().cloned().map(Body::Input).collect()).await?;
            queue.offer(&batch, written)?;
        }
        if eof && !ended {
            ended = true;
            recorder.record(vec![Body::InputEnd]).await?;
            queue.end();
        }
        if closed {
            break;
        }
    }
    Ok(ClientClosed)
}

/// Feeds the target from the queue. Returns when everything was fed, or the target is gone.
pub async fn feed(
    queue: Arc<InputQueue>,
    target: Arc<ChannelWriteHalf<client::Msg>>,
    mut freeze: Freeze,
) -> Result<(), ProxyError> {
    loop {
        match queue.next().await? {
            Next::Bytes(batch) => {
                for bytes in batch {
                    let length = bytes.len();
                    freeze.thawed().await;
                    if target.data_bytes(bytes).await.is_err() {
                        return Ok(()); // the output pump sees why
                    }
                    queue.taken(length);
                }
            }
            Next::End => {
                freeze.thawed().await;
                let _ = target.eof().await; // as above
                return Ok(());
            }
        }
    }
}

/// Records and passes on what the client asks of the running program.
pub async fn pass_requests(
    mut requests: mpsc::Receiver<Request>,
    target: Arc<ChannelWriteHalf<client::Msg>>,
    recorder: Arc<Recorder>,
    mut freeze: Freeze,
) -> Result<(), ProxyError> {
    while let Some(request) = requests.recv().await {
        freeze.thawed().await;
        let passed = match request {
            Request::Resize { size, pixels } => {
                recorder.record(vec![Body::Resize(size)]).await?;
                target.window_change(size.cols.into(), size.rows.into(), pixels.0, pixels.1).await
            }
            Request::Signal(signal) => {
                recorder.record(vec![Body::Signal(signal_name_text(&signal))]).await?;
                target.signal(signal).await
            }
        };
        if passed.is_err() {
            break;
        }
    }
    Ok(())
}

/// Sends what starts the program: terminal, environment, program, without waiting in between. The replies come in order
/// to the output pump. False if the target's connection is gone.
pub async fn start_program(target: &ChannelWriteHalf<client::Msg>, start: &Start) -> bool {
    let send = async {
        if let Some(pty) = &start.pty {
            let modes: Vec<_> =
                pty.modes.iter().filter_map(|&(op, value)| Some((russh::Pty::from_u8(op)?, value))).collect();
            let TerminalSize { cols, rows } = pty.size;
            let pixels = (pty.pixel_width, pty.pixel_height);
            target.request_pty(true, &pty.term, cols.into(), rows.into(), pixels.0, pixels.1, &modes).await?;
        }
        for (name, value) in &start.env {
            target.set_env(false, name, value).await?;
        }
        match &start.program {
            Program::Shell => target.request_shell(true).await,
            Program::Exec { command } => target.exec(true, command.clone()).await,
            Program::Subsystem { name } => target.request_subsystem(true, name).await,
            Program::Forward { .. } => Ok(()), // runs as soon as it is open
        }
    };
    send.await.is_ok()
}

/// How the target's side came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputEnd {
    /// The target closed the channel, as it does when the program has ended.
    Closed,
    /// The target did not start the program.
    NotStarted,
    /// The connection to the target is gone.
    Lost,
    /// The client does not take output any more.
    ClientGone,
    /// The grant's rules for files let nothing pass any more, for this reason.
    Refused(String),
}

/// Carries a target's output to the client, and what the bastion itself has to say.
pub struct OutputPump<'a> {
    target: ChannelReadHalf,
    client: &'a ClientSide,
    recorder: &'a Recorder,
    files: &'a ChannelFiles,
    activity: &'a Activity,
    /// What the client's terminal is in the middle of; `None` without one.
    terminal: Option<TerminalWatch>,
    /// Replies that the target owes to what [`start_program`] sent.
    replies_due: usize,
    /// The client's input, for how to end the output.
    queue: &'a InputQueue,
    /// Since when the target's EOF is held back, if it is. A client whose own input has ended closes the channel as soon as
    /// it sees our EOF, russh forgets the channel at that, and an exit status that comes later would be lost.
    eof_held: Option<Instant>,
    notes: VecDeque<DueNote>,
}

/// Notes that wait for a full-screen program to end, at most; the oldest goes first.
const MOST_NOTES: usize = 16;

/// A note on its way to the terminal.
struct DueNote {
    note: Note,
    title_shown: bool,
}

/// One message of the target after it was recorded.
enum Onward {
    Data(Bytes),
    Extended(u32, Bytes),
    Eof,
    ExitStatus(u32),
    ExitSignal { signal: Sig, core_dumped: bool, message: String, language: String },
    FlowControl(bool),
}

impl<'a> OutputPump<'a> {
    /// A pump from `target` to `client`; `has_pty` says whether a terminal was asked for.
    pub fn new(
        target: ChannelReadHalf,
        client: &'a ClientSide,
        recorder: &'a Recorder,
        files: &'a ChannelFiles,
        queue: &'a InputQueue,
        activity: &'a Activity,
        has_pty: bool,
    ) -> Self {
        Self {
            target,
            client,
            recorder,
            files,
            activity,
            terminal: has_pty.then(TerminalWatch::new),
            replies_due: if client.is_forward { 0 } else { usize::from(has_pty) + 1 },
            queue,
            eof_held: None,
            notes: VecDeque::new(),
        }
    }

    /// What the client's terminal is in the middle of.
    pub fn terminal(&self) -> Option<&TerminalWatch> {
        self.terminal.as_ref()
    }

    /// Runs until the target's side ends. Cancelling it loses no byte that the client saw.
    pub async fn run(
        &mut self,
        notes: &mut broadcast::Receiver<Note>,
        mut freeze: Freeze,
    ) -> Result<OutputEnd, ProxyError> {
        /// A line of ours waits until the terminal has been quiet for this long: then a program waits at its prompt.
        const QUIET: Duration = Duration::from_millis(400);
        /// An exit status follows its EOF within this. The client's own EOF may be on its way to us, so that its input
        /// looks open is no reason to let the target's EOF overtake the status. A program that goes on without output is
        /// seldom, and its client can wait for the news.
        const STATUS_FOLLOWS: Duration = Duration::from_millis(500);
        let mut told = self.terminal.is_some();
        loop {
            let line_due = !self.notes.is_empty() && self.may_interject();
            let moves = !freeze.is_frozen();
            let eof_due = self.eof_held.filter(|_| !self.queue.has_ended()).map(|since| since + STATUS_FOLLOWS);
            tokio::select! {
                message = self.target.wait(), if moves => {
                    if let Some(end) = self.carry(message).await? {
                        return Ok(end);
                    }
                }
                () = self.files.client_woken(), if moves => {
                    let gained = self.files.for_client();
                    if let Some(end) = self.pass(gained).await? {
                        return Ok(end);
                    }
                }
                () = freeze.changed() => {}
                note = notes.recv(), if told => match note {
                    Ok(note) => self.note(note),
                    Err(RecvError::Lagged(_)) => {} // the latest are still to come
                    Err(RecvError::Closed) => told = false,
                },
                () = tokio::time::sleep(QUIET), if line_due => self.note_line().await?,
                () = tokio::time::sleep_until(eof_due.unwrap_or_else(Instant::now)), if eof_due.is_some() => {
                    // Asked again: the client's input may have ended meanwhile.
                    if !self.queue.has_ended() {
                        self.eof_held = None;
                        if self.send(Onward::Eof).await.is_err() {
                            return Ok(OutputEnd::ClientGone);
                        }
                    }
                }
            }
            self.note_title().await?;
        }
    }

    /// Records `text` as the bastion's own words and sends it to the client's terminal.
    pub async fn say(&mut self, text: Vec<u8>) -> Result<(), ProxyError> {
        if let Some(terminal) = &mut self.terminal {
            terminal.watch(&text);
        }
        let text = Bytes::from(text);
        self.recorder.record(vec![Body::Notice(text.clone())]).await?;
        let _ = self.client.write.data_bytes(text).await; // whoever has gone needs no words
        Ok(())
    }

    fn may_interject(&self) -> bool {
        self.terminal.is_some_and(|terminal| terminal.is_ground() && !terminal.is_alternate())
    }

    fn note(&mut self, note: Note) {
        if note.about != About::Message {
            self.notes.retain(|due| due.note.about != note.about);
        }
        if self.notes.len() >= MOST_NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(DueNote { note, title_shown: false });
    }

    async fn note_title(&mut self) -> Result<(), ProxyError> {
        let ground = self.terminal.is_some_and(|terminal| terminal.is_ground());
        let title = match self.notes.back_mut() {
            Some(due) if ground && !due.title_shown => {
                due.title_shown = true;
                due.note.title()
            }
            _ => return Ok(()),
        };
        self.say(title).await
    }

    async fn note_line(&mut self) -> Result<(), ProxyError> {
        let (Some(due), Some(terminal)) = (self.notes.pop_front(), self.terminal) else {
            return Ok(());
        };
        self.say(due.note.line(&terminal)).await
    }

    /// Records and sends what the gate has for the client by now.
    async fn pass(&mut self, gained: Gained) -> Result<Option<OutputEnd>, ProxyError> {
        let (mut bodies, mut onward) = (Vec::new(), Vec::new());
        let end = take_gained(gained, &mut bodies, &mut onward);
        self.finish_carrying(bodies, onward, end).await
    }

    /// The client has gone, or is not told anything more: takes what the target still answers, until it closes the channel.
    pub async fn drain(&mut self) -> Result<(), ProxyError> {
        while let Some(message) = self.target.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    let gained = self.files.target_sent(data);
                    files::record_all(self.recorder, gained.told).await?;
                }
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// Records a message and whatever else has come, in one write, and sends it on.
    async fn carry(&mut self, first: Option<ChannelMsg>) -> Result<Option<OutputEnd>, ProxyError> {
        self.activity.touch();
        let mut bodies = Vec::new();
        let mut onward = Vec::new();
        let (mut bytes, mut exited, mut end) = (0, false, None);
        let mut next = Some(first);
        while let Some(message) = next.take() {
            let Some(message) = message else {
                end = Some(OutputEnd::Lost);
                break;
            };
            match message {
                ChannelMsg::Data { data } if self.files.is_gated() => {
                    bytes += data.len();
                    self.files.room_for_files(data.len()).await;
                    end = take_gained(self.files.target_sent(data), &mut bodies, &mut onward);
                }
                ChannelMsg::Data { data } => {
                    self.files.room_to_spend(data.len()).await;
                    if let Err(denial) = self.files.spend(data.len()) {
                        end = Some(OutputEnd::Refused(denial.to_string()));
                        break;
                    }
                    bytes += data.len();
                    if let Some(terminal) = &mut self.terminal {
                        terminal.watch(&data);
                    }
                    bodies.push(Body::Output(data.clone()));
                    onward.push(Onward::Data(data));
                }
                ChannelMsg::ExtendedData { data, ext } => {
                    self.files.room_to_spend(data.len()).await;
                    if let Err(denial) = self.files.spend(data.len()) {
                        end = Some(OutputEnd::Refused(denial.to_string()));
                        break;
                    }
                    bytes += data.len();
                    bodies.push(Body::ErrorOutput(data.clone()));
                    onward.push(Onward::Extended(ext, data));
                }
                ChannelMsg::Eof => {
                    bodies.push(Body::OutputEnd);
                    if self.client.is_forward {
                        onward.push(Onward::Eof);
                    } else {
                        self.eof_held = Some(Instant::now());
                    }
                }
                ChannelMsg::ExitStatus { exit_status } => {
                    exited = true;
                    bodies.push(Body::ExitStatus(exit_status));
                    onward.push(Onward::ExitStatus(exit_status));
                }
                ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                    let (name, message) = (signal_name_text(&signal_name), error_message.clone());
                    exited = true;
                    bodies.push(Body::ExitSignal { name, core_dumped, message });
                    let (signal, message, language) = (signal_name, error_message, lang_tag);
                    onward.push(Onward::ExitSignal { signal, core_dumped, message, language });
                }
                ChannelMsg::XonXoff { client_can_do } => onward.push(Onward::FlowControl(client_can_do)),
                ChannelMsg::Success => self.replies_due = self.replies_due.saturating_sub(1),
                // The last reply is the program's. A terminal that was refused shows in the program's behaviour, as it
                // does with OpenSSH's server.
                ChannelMsg::Failure if self.replies_due == 1 => end = Some(OutputEnd::NotStarted),
                ChannelMsg::Failure => self.replies_due = self.replies_due.saturating_sub(1),
                ChannelMsg::Close => end = Some(OutputEnd::Closed),
                // What only a client may ask for, and windows, which russh keeps.
                _ => {}
            }
            if end.is_none() && bytes < BATCH_BYTES && bodies.len() < MOST_FRAMES {
                next = self.target.wait().now_or_never();
            }
        }
        if matches!(end, Some(OutputEnd::Closed | OutputEnd::Lost)) {
            let _ = take_gained(self.files.target_ended(), &mut bodies, &mut onward);
        }
        if (exited || end.is_some()) && self.eof_held.take().is_some() {
            onward.push(Onward::Eof);
        }
        self.finish_carrying(bodies, onward, end).await
    }

    async fn finish_carrying(
        &mut self,
        bodies: Vec<Body>,
        onward: Vec<Onward>,
        end: Option<OutputEnd>,
    ) -> Result<Option<OutputEnd>, ProxyError> {
        files::record_all(self.recorder, bodies).await?;
        for message in onward {
            if self.send(message).await.is_err() {
                return Ok(Some(OutputEnd::ClientGone));
            }
        }
        self.files.room().await;
        Ok(end)
    }

    async fn send(&self, message: Onward) -> Result<(), ()> {
        let ClientSide { write, handle, .. } = self.client;
        let gone = |_| ();
        match message {
            Onward::Data(data) => write.data_bytes(data).await.map_err(gone),
            Onward::Extended(ext, data) => write.extended_data_bytes(ext, data).await.map_err(gone),
            Onward::Eof => write.eof().await.map_err(gone),
            Onward::ExitStatus(status) => write.exit_status(status).await.map_err(gone),
            Onward::ExitSignal { signal, core_dumped, message, language } => {
                handle.exit_signal_request(write.id(), signal, core_dumped, message, language).await
            }
            Onward::FlowControl(client_can_do) => handle.xon_xoff_request(write.id(), client_can_do).await,
        }
    }
}

/// Adds what the gate gave to what is to be recorded and sent on; whether that is the end.
fn take_gained(gained: Gained, bodies: &mut Vec<Body>, onward: &mut Vec<Onward>) -> Option<OutputEnd> {
    /// SSH_EXTENDED_DATA_STDERR (RFC 4254 §5.2)
    const STDERR: u32 = 1;
    let Gained { pieces, told, words, ended } = gained;
    // Before the refusal itself: at that a client may go.
    for words in words {
        let line = Bytes::from(format!("sallyport: {words}\n"));
        bodies.push(Body::Notice(line.clone()));
        onward.push(Onward::Extended(STDERR, line));
    }
    for piece in pieces {
        bodies.push(match &piece {
            Piece::Forward(bytes) => Body::Output(bytes.clone()),
            Piece::Injected(bytes) => Body::Notice(bytes.clone()),
        });
        onward.push(Onward::Data(piece.into_bytes()));
    }
    bodies.extend(told);
    ended.map(|fault| OutputEnd::Refused(fault.to_string()))
}

/// The name of a signal as it goes on the wire, without `SIG` (RFC 4254 §6.10).
fn signal_name_text(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.chars().take(32).filter(char::is_ascii_graphic).collect(),
        known => format!("{known:?}"),
    }
}
