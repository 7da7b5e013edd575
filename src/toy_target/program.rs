//! One program on one session channel: started in a pseudo-terminal or on three pipes, carried until it or its
//! channel ends, and never left behind.
//!
//! ```text
//!   channel ──▶ carry ──▶ Spool ──▶ feed ──▶ stdin or terminal ─┐
//!                 │ resize, signal ─────────────────────────────┤ program
//!   channel ◀── pump (stdout or terminal), pump (stderr) ◀──────┘
//! ```
//!
//! Each arrow between tasks is bounded: a client that does not read stops the pumps, not `carry`; a program that
//! does not read fills the spool, not the connection.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::discriminant;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{
    self, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Index,
};
use nix::unistd::Pid;
use pty_process::{OwnedReadPty, OwnedWritePty};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::spool::Spool;

/// Bytes read from a program at a time: the size of an SSH packet.
const READ: usize = 32 << 10;

/// How long a program has between SIGHUP and SIGKILL when its channel is gone.
const GRACE: Duration = Duration::from_millis(500);

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// The account that programs run as.
pub(super) struct Account<'a> {
    pub(super) login: &'a str,
    pub(super) shell: &'a Path,
    pub(super) home: &'a Path,
    pub(super) peer: IpAddr,
}

/// What to run (RFC 4254 §6.5).
pub(super) enum What<'a> {
    /// The account's shell, as a login shell.
    Shell,
    /// A command for that shell.
    Command(&'a OsStr),
    /// A program by its path, for a subsystem.
    Server(&'a Path),
}

/// An accepted "pty-req" (RFC 4254 §6.2).
pub(super) struct PtyRequest {
    pub(super) term: String,
    pub(super) size: pty_process::Size,
    pub(super) modes: Vec<(Pty, u32)>,
}

/// A terminal's size as a client tells it; a size of nothing becomes the usual 80 × 24.
pub(super) fn size(columns: u32, rows: u32, width: u32, height: u32) -> pty_process::Size {
    let cells = |given: u32, usual: u16| {
        if given == 0 { usual } else { u16::try_from(given).unwrap_or(u16::MAX) }
    };
    let pixels = |given: u32| u16::try_from(given).unwrap_or(u16::MAX);
    pty_process::Size::new_with_pixel(cells(rows, 24), cells(columns, 80), pixels(width), pixels(height))
}

/// A program that runs.
pub(super) struct Program {
    child: Child,
    group: Group,
    streams: Streams,
}

enum Streams {
    Terminal(OwnedReadPty, OwnedWritePty),
    Pipes(ChildStdin, ChildStdout, ChildStderr),
}

/// The process group of a program, killed when this is dropped while the program may still run.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0
            && let Err(error) = killpg(group, signal)
        {
            debug!(%group, %signal, %error, "A program was gone before its signal");
        }
    }

    /// The program was waited for, so its number may soon be another's.
    fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// The master's side of a new terminal is not close-on-exec from its first moment; a program started just then
/// would inherit it, and the terminal would outlive its channel.
static OPENING: Mutex<()> = Mutex::new(());

/// Starts a program.
pub(super) fn start(
    account: &Account<'_>,
    what: &What<'_>,
    pty: Option<&PtyRequest>,
    environment: &[(OsString, OsString)],
) -> io::Result<Program> {
    let (path, arguments): (&Path, Vec<&OsStr>) = match what {
        What::Shell => (account.shell, Vec::new()),
        What::Command(command) => (account.shell, vec![OsStr::new("-c"), command]),
        What::Server(path) => (path, Vec::new()),
    };
    let mut name = match what {
        What::Shell => OsString::from("-"),
        What::Command(_) | What::Server(_) => OsString::new(),
    };
    name.push(path.file_name().unwrap_or(path.as_os_str()));

    let mut variables: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("HOME".into(), account.home.into()),
        ("SHELL".into(), account.shell.into()),
        ("USER".into(), account.login.into()),
        ("LOGNAME".into(), account.login.into()),
        ("SSH_CLIENT".into(), format!("{} 0 0", account.peer).into()),
    ];
    variables.extend(environment.iter().cloned());

    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(request) = pty else {
        let mut command = tokio::process::Command::new(path);
        command.args(arguments).arg0(name).env_clear().envs(variables).current_dir(account.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let group = group_of(&child)?;
        let taken = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = taken else {
            return Err(io::Error::other("a pipe is missing"));
        };
        return Ok(Program { child, group, streams: Streams::Pipes(stdin, stdout, stderr) });
    };

    let (master, slave) = pty_process::open().map_err(io::Error::other)?;
    master.resize(request.size).map_err(io::Error::other)?;
    set_modes(&slave, &request.modes)?;
    variables.push(("TERM".into(), request.term.clone().into()));
    let command = pty_process::Command::new(path).args(arguments).arg0(name);
    let command = command.env_clear().envs(variables).current_dir(account.home);
    let child = command.spawn(slave).map_err(io::Error::other)?;
    let group = group_of(&child)?; // pty-process makes the child a session leader, so of a group as well
    let (reader, writer) = master.into_split();
    Ok(Program { child, group, streams: Streams::Terminal(reader, writer) })
}

fn group_of(child: &Child) -> io::Result<Group> {
    let id = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .ok_or_else(|| io::Error::other("the program ended at once"))?;
    Ok(Group(Some(Pid::from_raw(id))))
}

/// Why `carry` stops.
enum End {
    Program(io::Result<ExitStatus>),
    Channel,
}

/// Carries a program's bytes until it has ended and all its output is sent, or until the channel or the connection is gone.
pub(super) async fn carry(
    program: Program,
    channel: Channel<Msg>,
    handle: Handle,
    cancel: CancellationToken,
    tasks: TaskTracker,
) {
    let Program { mut child, mut group, streams } = program;
    let (mut incoming, outgoing) = channel.split();
    let outgoing = Arc::new(outgoing);
    let spool = Arc::new(Spool::default());
    let pumping = cancel.child_token();
    let _end_pumps = pumping.clone().drop_guard();

    let (terminal, pumps) = start_pumps(streams, &spool, &outgoing, &pumping, &tasks);

    let end = {
        let ended = async {
            let status = child.wait().await;
            for pump in pumps {
                if let Err(error) = pump.await {
                    debug!(%error, "A program's output could not be carried to its end");
                }
            }
            status
        };
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break End::Channel,
                status = &mut ended => break End::Program(status),
                message = incoming.wait() => match message {
                    Some(ChannelMsg::Data { data }) => {
                        if let Err(error) = spool.push(data) {
                            debug!(%error, "A program's input cannot wait any longer");
                            break End::Channel;
                        }
                    }
                    Some(ChannelMsg::Eof) => spool.close(),
                    Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                        if let Some(terminal) = &terminal {
                            resize(terminal, size(col_width, row_height, pix_width, pix_height));
                        }
                    }
                    Some(ChannelMsg::Signal { signal }) => {
                        if let Some(signal) = to_signal(&signal) {
                            group.signal(signal);
                        }
                    }
                    Some(ChannelMsg::Close) | None => break End::Channel,
                    Some(_) => {} // answered where it came in
                }
            }
        }
    };

    match end {
        End::Program(status) => {
            group.forget();
            say_goodbye(incoming, &outgoing, &handle, status).await;
        }
        End::Channel => {
            // The pumps hold the terminal: without them it hangs up, which reaches what is left in the session.
            drop(terminal);
            pumping.cancel();
            group.signal(Signal::SIGHUP);
            group.signal(Signal::SIGCONT);
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                group.signal(Signal::SIGKILL);
            }
            if let Err(error) = child.wait().await {
                debug!(%error, "A program could not be waited for");
            }
            // Its children may have stayed; the group keeps its number as long as one is left.
            group.signal(Signal::SIGKILL);
            group.forget();
            let closing = outgoing.close();
            tokio::select! {
                () = drain(incoming) => {}
                _ = closing => {}
            }
        }
    }
}

/// A terminal's writing half, and the tasks that carry output.
type Pumps = (Option<Arc<Mutex<OwnedWritePty>>>, Vec<JoinHandle<Option<()>>>);

/// Starts the tasks that carry bytes to and from a program. They end with it, or with `pumping`.
fn start_pumps(
    streams: Streams,
    spool: &Arc<Spool>,
    outgoing: &Arc<ChannelWriteHalf<Msg>>,
    pumping: &CancellationToken,
    tasks: &TaskTracker,
) -> Pumps {
    let until_cancelled = || pumping.clone();
    let (spool, out) = (Arc::clone(spool), Arc::clone(outgoing));
    match streams {
        Streams::Terminal(reader, writer) => {
            let writer = Arc::new(Mutex::new(writer));
            let input = feed(spool, Terminal(Arc::clone(&writer)), false);
            tasks.spawn(until_cancelled().run_until_cancelled_owned(input));
            let output = pump(reader, out, None);
            let output = tasks.spawn(until_cancelled().run_until_cancelled_owned(output));
            (Some(writer), vec![output])
        }
        Streams::Pipes(stdin, stdout, stderr) => {
            let input = feed(spool, stdin, true);
            tasks.spawn(until_cancelled().run_until_cancelled_owned(input));
            let (output, errors) = (pump(stdout, Arc::clone(&out), None), pump(stderr, out, Some(STDERR)));
            let output = tasks.spawn(until_cancelled().run_until_cancelled_owned(output));
            let errors = tasks.spawn(until_cancelled().run_until_cancelled_owned(errors));
            (None, vec![output, errors])
        }
    }
}

/// Tells how the program ended (RFC 4254 §6.10), then the end of its output, then closes. The status goes first: a client
/// whose own input has ended closes the channel as soon as it sees our end of file, and russh then forgets the channel with
/// all that we still have to say on it. Whatever still arrives is taken meanwhile: the connection's loop may be waiting
/// for room in this channel's queue, and would then not take our messages.
async fn say_goodbye(
    incoming: ChannelReadHalf,
    outgoing: &ChannelWriteHalf<Msg>,
    handle: &Handle,
    status: io::Result<ExitStatus>,
) {
    let goodbye = async {
        let told = match status.as_ref().ok().map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => outgoing.exit_status(u32::from_ne_bytes(code.to_ne_bytes())).await.is_ok(),
            Some((None, Some(number))) => {
                let dumped = status.as_ref().is_ok_and(ExitStatusExt::core_dumped);
                let (id, signal) = (outgoing.id(), from_signal(number));
                handle.exit_signal_request(id, signal, dumped, String::new(), String::new()).await.is_ok()
            }
            _ => true,
        };
        if !told || outgoing.eof().await.is_err() || outgoing.close().await.is_err() {
            debug!("The connection ended before its program's end was told");
        }
    };
    tokio::select! {
        () = goodbye => {}
        () = drain(incoming) => {}
    }
}

/// Takes whatever arrives until the channel is gone.
async fn drain(mut incoming: ChannelReadHalf) {
    while incoming.wait().await.is_some() {}
}

/// Carries a program's output to the client until the program closes it or the client is gone.
async fn pump(mut from: impl AsyncRead + Unpin, to: Arc<ChannelWriteHalf<Msg>>, extended: Option<u32>) {
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ);
        match from.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                // EIO is how a terminal says that no program has it open any more.
                if error.raw_os_error() != Some(nix::errno::Errno::EIO as i32) {
                    debug!(%error, "A program's output cannot be read");
                }
                return;
            }
        }
        let bytes = buffer.split().freeze();
        let sent = match extended {
            None => to.data_bytes(bytes).await,
            Some(code) => to.extended_data_bytes(code, bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Carries the client's bytes to a program, and then its end of file, which a terminal does not have.
async fn feed(spool: Arc<Spool>, mut to: impl AsyncWrite + Unpin, closes: bool) {
    loop {
        match spool.pop().await {
            Ok(Some(bytes)) => {
                if to.write_all(&bytes).await.is_err() {
                    // The program does not read any more; what still comes for it is thrown away, as a pipe would.
                    while let Ok(Some(_)) = spool.pop().await {}
                    return;
                }
            }
            Ok(None) if closes => return,
            Ok(None) => std::future::pending().await,
            Err(error) => {
                debug!(%error, "A program's input was lost");
                return;
            }
        }
    }
}

/// The master's writing half, shared by `feed` and `resize`; neither holds the lock while it waits.
struct Terminal(Arc<Mutex<OwnedWritePty>>);

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *writer).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a terminal holds nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn resize(terminal: &Mutex<OwnedWritePty>, size: pty_process::Size) {
    if let Err(error) = terminal.lock().unwrap_or_else(PoisonError::into_inner).resize(size) {
        debug!(%error, "A terminal could not be resized");
    }
}

/// The signals of RFC 4254 §6.10, and USR2, which OpenSSH knows too.
const SIGNALS: &[(Sig, Signal)] = &[
    (Sig::ABRT, Signal::SIGABRT),
    (Sig::ALRM, Signal::SIGALRM),
    (Sig::FPE, Signal::SIGFPE),
    (Sig::HUP, Signal::SIGHUP),
    (Sig::ILL, Signal::SIGILL),
    (Sig::INT, Signal::SIGINT),
    (Sig::KILL, Signal::SIGKILL),
    (Sig::PIPE, Signal::SIGPIPE),
    (Sig::QUIT, Signal::SIGQUIT),
    (Sig::SEGV, Signal::SIGSEGV),
    (Sig::TERM, Signal::SIGTERM),
    (Sig::USR1, Signal::SIGUSR1),
];

fn to_signal(name: &Sig) -> Option<Signal> {
    match name {
        Sig::Custom(other) if other == "USR2" => Some(Signal::SIGUSR2),
        name => SIGNALS.iter().find(|(known, _)| discriminant(known) == discriminant(name)).map(|(_, signal)| *signal),
    }
}

fn from_signal(number: i32) -> Sig {
    let known = SIGNALS.iter().find(|(_, signal)| *signal as i32 == number);
    match (known, Signal::try_from(number)) {
        (Some((name, _)), _) => name.clone(),
        (None, Ok(signal)) => Sig::Custom(signal.as_str().trim_start_matches("SIG").to_owned()),
        (None, Err(_)) => Sig::Custom(format!("{number}@sallyport")),
    }
}

/// Sets a terminal's modes as the client asks (RFC 4254 §8). Modes that this system does not have are passed over.
fn set_modes(terminal: impl std::os::fd::AsFd, modes: &[(Pty, u32)]) -> io::Result<()> {
    let mut state = termios::tcgetattr(&terminal)?;
    for &(mode, value) in modes {
        let on = value != 0;
        if let Some(index) = character(mode) {
            let byte = u8::try_from(value).unwrap_or(0);
            if let Some(slot) = state.control_chars.get_mut(index as usize) {
                *slot = if byte == 255 { 0 } else { byte }; // 255 is "none" on the wire, 0 is here
            }
        } else if let Some(flag) = input_flag(mode) {
            state.input_flags.set(flag, on);
        } else if let Some(flag) = local_flag(mode) {
            state.local_flags.set(flag, on);
        } else if let Some(flag) = output_flag(mode) {
            state.output_flags.set(flag, on);
        } else if on {
            match mode {
                Pty::CS7 => state.control_flags.insert(ControlFlags::CS7),
                Pty::CS8 => state.control_flags.insert(ControlFlags::CS8),
                _ => {}
            }
        }
    }
    termios::tcsetattr(&terminal, SetArg::TCSANOW, &state)?;
    Ok(())
}

fn character(mode: Pty) -> Option<Index> {
    Some(match mode {
        Pty::VINTR => Index::VINTR,
        Pty::VQUIT => Index::VQUIT,
        Pty::VERASE => Index::VERASE,
        Pty::VKILL => Index::VKILL,
        Pty::VEOF => Index::VEOF,
        Pty::VEOL => Index::VEOL,
        Pty::VEOL2 => Index::VEOL2,
        Pty::VSTART => Index::VSTART,
        Pty::VSTOP => Index::VSTOP,
        Pty::VSUSP => Index::VSUSP,
        Pty::VREPRINT => Index::VREPRINT,
        Pty::VWERASE => Index::VWERASE,
        Pty::VLNEXT => Index::VLNEXT,
        Pty::VDISCARD => Index::VDISCARD,
        _ => return None,
    })
}

fn input_flag(mode: Pty) -> Option<InputFlags> {
    Some(match mode {
        Pty::IGNPAR => InputFlags::IGNPAR,
        Pty::PARMRK => InputFlags::PARMRK,
        Pty::INPCK => InputFlags::INPCK,
        Pty::ISTRIP => InputFlags::ISTRIP,
        Pty::INLCR => InputFlags::INLCR,
        Pty::IGNCR => InputFlags::IGNCR,
        Pty::ICRNL => InputFlags::ICRNL,
        Pty::IXON => InputFlags::IXON,
        Pty::IXANY => InputFlags::IXANY,
        Pty::IXOFF => InputFlags::IXOFF,
        Pty::IMAXBEL => InputFlags::IMAXBEL,
        Pty::IUTF8 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local_flag(mode: Pty) -> Option<LocalFlags> {
    Some(match mode {
        Pty::ISIG => LocalFlags::ISIG,
        Pty::ICANON => LocalFlags::ICANON,
        Pty::ECHO => LocalFlags::ECHO,
        Pty::ECHOE => LocalFlags::ECHOE,
        Pty::ECHOK => LocalFlags::ECHOK,
        Pty::ECHONL => LocalFlags::ECHONL,
        Pty::NOFLSH => LocalFlags::NOFLSH,
        Pty::TOSTOP => LocalFlags::TOSTOP,
        Pty::IEXTEN => LocalFlags::IEXTEN,
        Pty::ECHOCTL => LocalFlags::ECHOCTL,
        Pty::ECHOKE => LocalFlags::ECHOKE,
        Pty::PENDIN => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output_flag(mode: Pty) -> Option<OutputFlags> {
    Some(match mode {
        Pty::OPOST => OutputFlags::OPOST,
        Pty::OLCUC => OutputFlags::OLCUC,
        Pty::ONLCR => OutputFlags::ONLCR,
        Pty::OCRNL => OutputFlags::OCRNL,
        Pty::ONOCR => OutputFlags::ONOCR,
        Pty::ONLRET => OutputFlags::ONLRET,
        _ => return None,
    })
}
