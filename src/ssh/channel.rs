//! The life of one session channel at the bastion: wait for a program, then for the session, record, dial, run, close.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::server::{self, ChannelOpenHandle, Handle};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use sallyport_domain::channel::Program;
use sallyport_domain::files::gate;
use sallyport_domain::grant::ForwardFrom;
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::frame::Body;
use sallyport_domain::scp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use super::Door;
use super::consent::Lobby;
use super::dial::DialError;
use super::files::{self, ChannelFiles};
use super::front::{self, Front};
use super::input::InputQueue;
use super::notice;
use super::outward;
use super::proxy::{self, ClientSide, Orders, OutputEnd, OutputPump, ProxyError, Request, Start};
use super::session::{self, Live, SessionState};
use crate::app::access;
use crate::app::recordings::{Ending, NewRecording, Recorder};
use crate::spans;

/// The exit status of a program that the bastion itself refused or ended.
pub const EXIT_REFUSED: u32 = 254;

/// The exit status of a program that the grant's rules ended under way, as scp and sftp have it for what they could not do.
const EXIT_ENDED: u32 = 1;

/// The exit status of a program whose end nobody saw, as OpenSSH's client has it for itself.
const EXIT_LOST: u32 = 255;

/// How long a client that has ended its input may take to close the channel after the program's end. Those that close by
/// themselves (an OpenSSH master, asyncssh) do so as soon as they see the end; others wait for us.
const CLIENT_CLOSE: Duration = Duration::from_millis(300);

/// From this channel of a session on, its client is taken for one that opens many, and is given [`CLIENT_CLOSE`].
const OF_MANY: u32 = 4;

/// How long a client may take to show its last words, before the disconnect makes it exit.
const READING: Duration = Duration::from_millis(200);

/// How long the last words may take to be taken.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The client's half of a channel and what the handler makes of it.
pub struct Incoming {
    pub read: ChannelReadHalf,
    pub write: ChannelWriteHalf<server::Msg>,
    pub handle: Handle,
    /// The program, once one was accepted.
    pub start: oneshot::Receiver<(Start, RecordingId)>,
    pub requests: mpsc::Receiver<Request>,
    /// The answer that the opening of a forward is due; a session channel is open.
    pub opening: Option<ChannelOpenHandle>,
    pub session: watch::Receiver<SessionState>,
    /// Receives the channel first, if the login names no target.
    pub front: Option<Arc<Front>>,
    /// Set when the client's connection has ended.
    pub gone: CancellationToken,
}

/// Runs the channel until it is closed.
pub async fn run(door: Arc<Door>, incoming: Incoming) {
    let Incoming { mut read, write, handle, mut start, mut requests, opening, mut session, front, gone } = incoming;
    let Some((mut start, recording)) = await_start(&mut read, &mut start).await else {
        return;
    };
    let is_forward = opening.is_some();
    let client = ClientSide { write, handle, opening: Mutex::new(opening), is_forward };
    let mut chosen = None;
    if let Some(front) = front {
        match Box::pin(front.receive(&door, &client, &mut read, &mut requests, &mut start, &gone)).await {
            Some(account) => chosen = account,
            None => return,
        }
    }
    let (read_half, requested) = (&mut read, &mut requests);
    let mut lobby = Lobby { client: &client, read: read_half, requests: requested, start: &mut start, gone: &gone };
    let Some(state) = lobby.wait(&mut session).await else {
        return;
    };
    match state {
        SessionState::Opening | SessionState::Waiting(_) => {}
        SessionState::Refused(refusal) => refuse(&client, &start, &refusal.lines).await,
        // Another channel of the connection was faster.
        SessionState::Open(live) if chosen.is_some_and(|account| !front::is_to(&live, &account)) => {
            let lines = ["this connection has a session to somewhere else", "connect once more, to go there"];
            refuse(&client, &start, &lines.map(str::to_owned)).await;
        }
        SessionState::Open(live) => {
            let channel = live.number_channel();
            let _span = spans::channel(&live.span, recording, start.program.kind());
            let span = info_span!("channel", no = channel, recording = %recording);
            let task = run_program(door, live.clone(), client, read, requests, start, recording, channel);
            // On the session's tracker, so that its end waits for its recordings.
            let _ = live.channels.spawn(task.instrument(span)).await;
        }
    }
}

/// Waits for the program. What else comes is dropped, but must be taken, or the whole connection would wait.
async fn await_start(
    read: &mut ChannelReadHalf,
    start: &mut oneshot::Receiver<(Start, RecordingId)>,
) -> Option<(Start, RecordingId)> {
    loop {
        tokio::select! {
            biased; // the program is announced before the first byte for it can arrive
            start = &mut *start => return start.ok(),
            message = read.wait() => match message {
                None | Some(ChannelMsg::Close) => return None,
                Some(_) => {}
            },
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "called once; a struct would only name them twice")]
async fn run_program(
    door: Arc<Door>,
    live: Arc<Live>,
    client: ClientSide,
    read: ChannelReadHalf,
    requests: mpsc::Receiver<Request>,
    start: Start,
    recording: RecordingId,
    channel: u32,
) {
    let permit = live.permit();
    if let Err(denial) = permit.allows(&start.program) {
        let denied = denial.to_string();
        let refused = Box::pin(access::note_refusal(&door.app, live.open.id, start.program.kind(), &denied)).await;
        let lines = match refused {
            Ok(reference) => session::refused_lines(&denial, reference),
            Err(_) => vec![format!("access denied: {denial}")],
        };
        return refuse(&client, &start, &lines).await;
    }
    let ids = (live.open.id, recording);
    let (log, clock) = (live.files.clone(), door.app.clock.clone());
    let files = match ChannelFiles::new(&permit, &start.program, live.clone(), ids, log, clock) {
        Ok(files) => Arc::new(files),
        Err(denial) => {
            let denied = denial.to_string();
            let lines = Box::pin(refused_by_rules(&door, &live, start.program.kind(), &denied)).await;
            return refuse(&client, &start, &lines).await;
        }
    };
    let new = NewRecording {
        id: recording,
        session: live.open.id,
        channel,
        program: start.program.clone(),
        pty: start.pty.clone(),
        keeps_content: permit.terms().keeps_content(&start.program),
    };
    let recorder = match Box::pin(door.recordings.start(new)).await {
        Ok(recorder) => Arc::new(recorder),
        Err(error) => {
            warn!(error = proxy::chain(&error), "A recording could not be started, so its program is not either.");
            let lines = ["nothing runs without a record, and the record could not be started", "try again in a minute"];
            return refuse(&client, &start, &lines.map(str::to_owned)).await;
        }
    };
    info!(program = start.program.kind(), "The program is recorded.");
    let ending = match run_recorded(&door, &live, &client, read, requests, start, &recorder, &files, channel).await {
        Ok(ending) => ending,
        Err(error) => {
            warn!(error = proxy::chain(&error), "The channel's session must end.");
            live.cut((&error).into());
            Ending { how: "cut".to_owned(), reason: Some(proxy::chain(&error)) }
        }
    };
    recorder.finish(ending);
}

/// How a recorded channel came to its end, seen from both sides.
enum Outcome {
    Output(OutputEnd),
    ClientClosed,
    Stopped,
    /// It cannot be carried on, and its session with it.
    Failed(ProxyError),
}

#[expect(clippy::too_many_arguments, reason = "called once; a struct would only name them twice")]
async fn run_recorded(
    door: &Door,
    live: &Live,
    client: &ClientSide,
    read: ChannelReadHalf,
    requests: mpsc::Receiver<Request>,
    start: Start,
    recorder: &Arc<Recorder>,
    files: &Arc<ChannelFiles>,
    channel_number: u32,
) -> Result<Ending, ProxyError> {
    let has_pty = start.pty.is_some();
    let Orders { stop, cut, mut notes, freeze } = live.orders();
    // Ends this channel's other tasks when this one is done.
    let done = stop.child_token();
    let _guard = done.clone().drop_guard();
    let queue = Arc::new(InputQueue::new(recorder.clone(), door.recordings.settings().stdin_budget.as_u64()));
    let ahead = (start.ahead.clone(), start.ahead_is_all);
    let mut input = Some(live.channels.spawn(until(
        done.clone(),
        proxy::pump_input(ahead, read, recorder.clone(), queue.clone(), live.activity.clone()),
    )));

    if let Program::Forward { destination } = &start.program
        && live.permit().terms().forwarding.from == ForwardFrom::Bastion
    {
        return Box::pin(outward::run(door, live, client, destination, recorder, &queue, input, done)).await;
    }
    // What starts the program is the client's word too: it does not go out while the session stands still.
    let mut still = freeze.clone();
    let taken = async {
        let taken = live.targets.take().await;
        still.thawed().await;
        taken
    };
    let connection = tokio::select! {
        taken = Box::pin(taken) => taken,
        closed = ended(&mut input) => return closed.map(|_| client_closed()),
        () = stop.cancelled() => return Box::pin(finish_stopped(client, None, recorder, &cut, has_pty)).await,
    };
    let connected = match connection {
        Ok(connection) => Box::pin(connection.open(&start.program)).await.map(|channel| (connection, channel)),
        Err(error) => Err(error),
    };
    let (connection, channel) = match connected {
        Ok(connected) => connected,
        Err(_) if stop.is_cancelled() => return Box::pin(finish_stopped(client, None, recorder, &cut, has_pty)).await,
        Err(error) => return Box::pin(unreachable(client, recorder, has_pty, &error)).await,
    };
    let (target_read, target_write) = channel.split();
    let target_write = Arc::new(target_write);
    client.accept().await;
    let mut pump = OutputPump::new(target_read, client, recorder, files, &queue, &live.activity, has_pty);
    proxy::start_program(&target_write, &start).await;
    // A feeder with a gate ends by itself when the client has gone, for it may have to take away what must not stay.
    let (leave, over) = (stop.child_token(), CancellationToken::new());
    let _over_guard = over.clone().drop_guard();
    let mut feeder = Some(if files.is_gated() {
        let (files, recorder) = (files.clone(), recorder.clone());
        let feeder = files::feed(queue.clone(), target_write.clone(), files, recorder, leave.clone(), freeze.clone());
        live.channels.spawn(until(over, feeder))
    } else {
        live.channels.spawn(until(done.clone(), proxy::feed(queue.clone(), target_write.clone(), freeze.clone())))
    });
    let passer = proxy::pass_requests(requests, target_write.clone(), recorder.clone(), freeze.clone());
    let mut passer = Some(live.channels.spawn(until(done.clone(), passer)));

    let welcome = has_pty && start.program == Program::Shell;
    let welcome = welcome.then(|| notice::welcome(&live.open, door.app.clock.now()));
    let outcome = {
        // One future from start to end: what it has taken from the target and not sent on yet would go with it.
        let output = async {
            if let Some(welcome) = welcome {
                pump.say(welcome).await?;
            }
            pump.run(&mut notes, freeze).await
        };
        tokio::pin!(output);
        loop {
            let event = tokio::select! {
                end = &mut output => end.map(|end| Some(Outcome::Output(end))),
                closed = ended(&mut input), if input.is_some() => closed.map(|()| Some(Outcome::ClientClosed)),
                fed = ended(&mut feeder), if feeder.is_some() => fed.map(|()| None),
                passed = ended(&mut passer), if passer.is_some() => passed.map(|()| None),
                () = stop.cancelled() => Ok(Some(Outcome::Stopped)),
            };
            match event {
                Ok(None) => {}
                Ok(Some(outcome)) => break outcome,
                Err(error) => break Outcome::Failed(error),
            }
        }
    };
    if files.is_gated() && !matches!(outcome, Outcome::Output(OutputEnd::Closed | OutputEnd::Lost)) {
        leave.cancel();
        let wind_down = async {
            let (fed, drained) = tokio::join!(ended_or_none(&mut feeder), pump.drain());
            fed.and(drained)
        };
        // A target that was cut does not answer; then this is over at once.
        if let Ok(Err(error)) = tokio::time::timeout(files::UNDO, wind_down).await {
            warn!(error = proxy::chain(&error), "What must not stay on the target may not have been taken away.");
        }
        let told = files.target_ended().told;
        if let Err(error) = files::record_all(recorder, told).await {
            live.cut((&ProxyError::from(error)).into());
        }
    }
    Ok(match outcome {
        Outcome::Failed(error) => {
            warn!(error = proxy::chain(&error), "The channel's session must end.");
            live.cut((&error).into());
            return Box::pin(finish_stopped(client, Some(&mut pump), recorder, &cut, has_pty)).await;
        }
        Outcome::Output(OutputEnd::Closed) => {
            let ending = Ending { how: "closed".to_owned(), reason: None };
            recorder.finish(ending.clone());
            let _ = target_write.close().await; // it may have gone meanwhile
            live.targets.give_back(connection);
            if queue.has_ended() && channel_number >= OF_MANY {
                // russh remembers a channel, some 3 KB, for as long as its connection lives if we close it first. A client
                // with many may close it itself now that both sides have ended; one with a single channel waits for us.
                let _ = tokio::time::timeout(CLIENT_CLOSE, ended(&mut input)).await;
            }
            let _ = client.write.close().await;
            ending
        }
        Outcome::Output(OutputEnd::NotStarted) => {
            tell_recorded(client, recorder, has_pty, "the target did not start the program").await?;
            exit(client, EXIT_REFUSED).await;
            Ending { how: "target closed".to_owned(), reason: Some("the target did not start the program".to_owned()) }
        }
        Outcome::Output(OutputEnd::Lost) if stop.is_cancelled() => {
            return Box::pin(finish_stopped(client, Some(&mut pump), recorder, &cut, has_pty)).await;
        }
        Outcome::Output(OutputEnd::Lost) => {
            tell_recorded(client, recorder, has_pty, "the connection to the target was lost").await?;
            exit(client, EXIT_LOST).await;
            Ending { how: "target closed".to_owned(), reason: Some("the connection to the target was lost".to_owned()) }
        }
        Outcome::Output(OutputEnd::Refused(reason)) => {
            let lines = Box::pin(refused_by_rules(door, live, start.program.kind(), &reason)).await;
            for line in &lines {
                tell_recorded(client, recorder, has_pty, line).await?;
            }
            exit(client, EXIT_ENDED).await;
            Ending { how: "cut".to_owned(), reason: Some(reason) }
        }
        Outcome::Output(OutputEnd::ClientGone) | Outcome::ClientClosed => client_closed(),
        Outcome::Stopped => return Box::pin(finish_stopped(client, Some(&mut pump), recorder, &cut, has_pty)).await,
    })
}

/// Writes that the grant's rules for files refused something; what to tell the engineer.
pub(super) async fn refused_by_rules(door: &Door, live: &Live, request: &str, reason: &str) -> Vec<String> {
    info!(reason, "The grant's rules for files refused it.");
    let reason = notice::printable(reason);
    let mut lines = vec![format!("access denied: {reason}")];
    if let Ok(reference) = access::note_refusal(&door.app, live.open.id, request, &reason).await {
        lines.push(format!("reference {reference}"));
    }
    lines
}

pub(super) fn client_closed() -> Ending {
    Ending { how: "closed".to_owned(), reason: Some("the client closed the channel".to_owned()) }
}

async fn unreachable(
    client: &ClientSide,
    recorder: &Recorder,
    has_pty: bool,
    error: &DialError,
) -> Result<Ending, ProxyError> {
    let reason = proxy::chain(error);
    warn!(error = reason, "The target could not be reached.");
    tell_recorded(client, recorder, has_pty, &notice::printable(&reason)).await?;
    exit(client, EXIT_REFUSED).await;
    client.fail().await;
    Ok(Ending { how: "target unreachable".to_owned(), reason: Some(reason) })
}

/// As [`tell`], on the record: the engineer sees nothing that the reviewer does not.
pub(super) async fn tell_recorded(
    client: &ClientSide,
    recorder: &Recorder,
    has_pty: bool,
    line: &str,
) -> Result<(), ProxyError> {
    recorder.record(vec![Body::Notice(format!("sallyport: {line}\r\n").into())]).await?;
    tell(client, has_pty, &[line.to_owned()]).await;
    Ok(())
}

/// The session was cut, or the client has gone. On a terminal the reason is what the engineer sees last.
pub(super) async fn finish_stopped(
    client: &ClientSide,
    pump: Option<&mut OutputPump<'_>>,
    recorder: &Recorder,
    cut: &std::sync::OnceLock<sallyport_domain::event::CutReason>,
    has_pty: bool,
) -> Result<Ending, ProxyError> {
    let Some(reason) = cut.get() else {
        return Ok(client_closed());
    };
    if has_pty {
        let watch = pump.and_then(|pump| pump.terminal().copied()).unwrap_or_default();
        let words = bytes::Bytes::from(notice::last_words(reason, &watch));
        let say = async {
            // A recording that failed is often why; then the words go unrecorded rather than unsaid.
            let _ = recorder.record(vec![Body::Notice(words.clone())]).await;
            let _ = client.write.data_bytes(words).await;
            exit(client, EXIT_REFUSED).await;
        };
        let _ = tokio::time::timeout(LAST_WORDS, say).await; // a client that does not read is not waited for
        // The disconnect that follows would overtake the words inside the client.
        tokio::time::sleep(READING).await;
    } else if !client.is_forward {
        // The disconnect that follows says why; nothing of ours enters the program's streams.
        let _ = tokio::time::timeout(LAST_WORDS, client.write.exit_status(EXIT_REFUSED)).await;
    }
    Ok(Ending { how: "cut".to_owned(), reason: Some(reason.to_string()) })
}

/// Says lines on the client's standard error, refuses with status 254 and closes.
async fn refuse(client: &ClientSide, start: &Start, lines: &[String]) {
    tell(client, start.pty.is_some(), lines).await;
    if let Program::Exec { command } = &start.program
        && gate::is_scp_download(command)
    {
        // PuTTY's pscp does not look at the exit status: without a word in its protocol it would call nothing a success.
        let _ = client.write.data_bytes(scp::NOTHING_COMES).await; // whoever has gone needs no words
    }
    exit(client, EXIT_REFUSED).await;
}

/// Says lines on the client's standard error.
pub async fn tell(client: &ClientSide, has_pty: bool, lines: &[String]) {
    /// SSH_EXTENDED_DATA_STDERR (RFC 4254 §5.2)
    const STDERR: u32 = 1;
    if client.is_forward {
        return;
    }
    // A client with a terminal has put its own into raw mode.
    let end = if has_pty { "\r\n" } else { "\n" };
    let text: String = lines.iter().map(|line| format!("sallyport: {line}{end}")).collect();
    let told = client.write.extended_data_bytes(STDERR, text.into_bytes());
    let _ = tokio::time::timeout(LAST_WORDS, told).await; // as above
}

/// Says that the program has ended, and closes.
pub async fn exit(client: &ClientSide, status: u32) {
    if client.is_opening() {
        return; // the refusal says it all
    }
    let leave = async {
        if !client.is_forward {
            client.write.exit_status(status).await?;
        }
        client.write.eof().await?;
        client.write.close().await
    };
    let _ = tokio::time::timeout(LAST_WORDS, leave).await; // as above
}

/// Runs `work` until it ends or `token` is set; nothing, if it was set first.
pub(super) async fn until<T>(token: CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    token.run_until_cancelled_owned(work).await
}

/// As [`ended`], for a task that may have ended before.
async fn ended_or_none<T>(
    task: &mut Option<tokio::task::JoinHandle<Option<Result<T, ProxyError>>>>,
) -> Result<(), ProxyError> {
    if task.is_some() { ended(task).await } else { Ok(()) }
}

/// Waits for a spawned task and forgets it. One that was cancelled or died waits for ever: somebody else knows why.
pub(super) async fn ended<T>(
    task: &mut Option<tokio::task::JoinHandle<Option<Result<T, ProxyError>>>>,
) -> Result<(), ProxyError> {
    let Some(handle) = task else {
        return std::future::pending().await;
    };
    let outcome = handle.await;
    *task = None;
    match outcome {
        Ok(Some(Ok(_))) => Ok(()),
        Ok(Some(Err(error))) => Err(error),
        Ok(None) | Err(_) => std::future::pending().await,
    }
}
