//! Listening sockets that this process is given rather than makes: by systemd (`LISTEN_FDS`, sd_listen_fds(3)), or by another process of
//! the same node, from which it takes over.
//!
//! ```text
//! old process ── SSH, HTTPS, HTTP, metrics, the API's socket ── handover.sock ──► new process
//! ```
//!
//! Both then accept from one queue in the kernel, and when the old one lets go of it, nothing in it is lost. Sockets of their own on one
//! port (`SO_REUSEPORT`) would have a queue each, and the old one's would be reset with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// As many sockets as there are kinds of them.
const MOST: usize = 8;

/// How long the other process may take to hand its sockets over.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a socket is for. The names are those of `FileDescriptorName=` in a systemd socket unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Ssh,
    Https,
    Http,
    Metrics,
    Api,
}

impl Use {
    const ALL: [Use; 5] = [Use::Ssh, Use::Https, Use::Http, Use::Metrics, Use::Api];

    fn name(self) -> &'static str {
        match self {
            Use::Ssh => "ssh",
            Use::Https => "https",
            Use::Http => "http",
            Use::Metrics => "metrics",
            Use::Api => "api",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Sockets that were given to this process and are not in use yet.
#[derive(Debug, Default)]
pub(super) struct Given {
    sockets: Vec<(Use, OwnedFd)>,
    /// Systemd's are for us whatever is configured; another process's only if they are where ours are to be.
    are_meant: bool,
}

impl Given {
    /// What systemd gives, or else what another process of this node does; nothing, mostly.
    pub(super) async fn gather(handover: &Path) -> io::Result<Self> {
        let sockets = from_systemd()?;
        if !sockets.is_empty() {
            return Ok(Self { sockets, are_meant: true });
        }
        let path = handover.to_owned();
        let asked = tokio::task::spawn_blocking(move || ask(&path)).await.map_err(io::Error::other)?;
        let sockets = match asked {
            Ok(sockets) => sockets,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Vec::new()
            }
            Err(error) => {
                warn!(%error, "Another process of this node does not hand its sockets over.");
                Vec::new()
            }
        };
        if !sockets.is_empty() {
            info!("Another process of this node runs: its sockets are shared until it ends (SIGTERM).");
        }
        Ok(Self { sockets, are_meant: false })
    }

    /// Set when the API's Unix socket is not ours to remove at the end: it is systemd's, or another process serves it by then.
    pub(super) fn is_others_socket(&self, handover: &Handover) -> Arc<AtomicBool> {
        if self.are_meant { Arc::new(AtomicBool::new(true)) } else { handover.was_used() }
    }

    /// The TCP socket for this use, if it listens on `address`.
    pub(super) fn take_tcp(&mut self, kind: Use, address: SocketAddr) -> io::Result<Option<tokio::net::TcpListener>> {
        let Some(place) = self.sockets.iter().position(|(given, _)| *given == kind) else { return Ok(None) };
        let listener = std::net::TcpListener::from(self.sockets.swap_remove(place).1);
        if !self.are_meant && listener.local_addr()? != address {
            return Ok(None);
        }
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener).map(Some)
    }

    /// The API's Unix socket, if it is at `path`.
    pub(super) fn take_unix(&mut self, path: &Path) -> io::Result<Option<UnixListener>> {
        let Some(place) = self.sockets.iter().position(|(given, _)| *given == Use::Api) else { return Ok(None) };
        let listener = std::os::unix::net::UnixListener::from(self.sockets.swap_remove(place).1);
        if !self.are_meant && listener.local_addr()?.as_pathname() != Some(path) {
            return Ok(None);
        }
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Some)
    }
}

/// Systemd's sockets. One without a known name is the SSH door's, if it is the only one.
fn from_systemd() -> io::Result<Vec<(Use, OwnedFd)>> {
    let given = sd_listen_fds::get().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
    let is_only = given.len() == 1;
    let known = given.into_iter().map(|(name, socket)| {
        let name = name.unwrap_or_default();
        let kind = Use::of(&name).or_else(|| is_only.then_some(Use::Ssh));
        let unknown = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a socket is called `{name}` (`FileDescriptorName=`): it must be ssh, https, http, metrics or api"
                ),
            )
        };
        kind.map(|kind| (kind, socket.into_std())).ok_or_else(unknown)
    });
    known.collect()
}

/// Asks the process behind `path` for its sockets.
fn ask(path: &Path) -> io::Result<Vec<(Use, OwnedFd)>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 256];
    let received =
        rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    let names = String::from_utf8_lossy(text.get(..received.bytes).unwrap_or_default()).into_owned();
    Ok(names.lines().zip(sockets).filter_map(|(name, socket)| Some((Use::of(name)?, socket))).collect())
}

/// Hands this process's sockets to the next one of its node.
#[derive(Clone)]
pub(super) struct Handover(Arc<Inner>);

struct Inner {
    sockets: Mutex<Vec<(Use, OwnedFd)>>,
    was_used: Arc<AtomicBool>,
}

impl Handover {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { sockets: Mutex::default(), was_used: Arc::default() }))
    }

    /// One more socket to hand over. It stays open until it is dropped here too ([`Handover::withdraw`]).
    pub(super) fn offer(&self, kind: Use, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket = socket.try_clone_to_owned()?;
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner).push((kind, socket));
        Ok(())
    }

    /// A socket that this process closes.
    pub(super) fn withdraw(&self, kind: Use) {
        self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner).retain(|(offered, _)| *offered != kind);
    }

    /// Whether another process has the sockets, too. The files of Unix sockets are then that one's.
    pub(super) fn was_used(&self) -> Arc<AtomicBool> {
        self.0.was_used.clone()
    }

    /// Listens at `path` until `stop`. A process that ended before, or is about to, loses the place.
    pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
        let name = format!("{}.{}", path.display(), std::process::id());
        let making = PathBuf::from(name);
        let listener = UnixListener::bind(&making)?;
        std::fs::set_permissions(&making, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&making, path)?;
        Ok(listener)
    }

    /// Serves whoever asks for the sockets, and is this user or root.
    pub(super) async fn serve(self, listener: UnixListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let handed = accepted.and_then(|(stream, _)| {
                let uid = stream.peer_cred()?.uid();
                if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
                    return Err(io::Error::from(io::ErrorKind::PermissionDenied));
                }
                self.send(&stream.into_std()?)
            });
            match handed {
                Ok(()) => info!("The sockets are shared with another process of this node."),
                Err(error) => {
                    debug!(%error, "Somebody who asked for the sockets did not get them.");
                    tokio::time::sleep(Duration::from_millis(10)).await; // without file descriptors it would spin
                }
            }
        }
    }

    fn send(&self, stream: &UnixStream) -> io::Result<()> {
        let sockets = self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let names: String = sockets.iter().map(|(kind, _)| format!("{}\n", kind.name())).collect();
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("there are more sockets than kinds of them"));
        }
        rustix::net::sendmsg(stream, &[IoSlice::new(names.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        self.0.was_used.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_gets_the_sockets_of_the_one_before_it_that_are_where_its_own_are_to_be() {
        let folder = crate::support::temporary_folder();
        let place = folder.path().join("handover.sock");
        assert!(Given::gather(&place).await.unwrap().sockets.is_empty(), "nobody is there");
        let ssh = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = UnixListener::bind(folder.path().join("api.sock")).unwrap();
        let (old, stop) = (Handover::new(), CancellationToken::new());
        old.offer(Use::Ssh, ssh.as_fd()).unwrap();
        old.offer(Use::Http, http.as_fd()).unwrap();
        old.offer(Use::Api, api.as_fd()).unwrap();
        let serving = tokio::spawn(old.clone().serve(Handover::listen(&place).unwrap(), stop.clone()));

        let mut given = Given::gather(&place).await.unwrap();

        let address = ssh.local_addr().unwrap();
        let taken = given.take_tcp(Use::Ssh, address).unwrap().unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(given.take_tcp(Use::Ssh, address).unwrap().is_none(), "there was one");
        assert!(given.take_tcp(Use::Http, address).unwrap().is_none(), "it is elsewhere");
        assert!(given.take_unix(&folder.path().join("api.sock")).unwrap().is_some());
        assert!(old.was_used().load(Ordering::Acquire));

        // Nothing that is on its way is lost when the old one goes.
        let client = tokio::net::TcpStream::connect(address).await.unwrap();
        old.withdraw(Use::Ssh);
        drop(ssh);
        let (_, peer) = taken.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        stop.cancel();
        serving.await.unwrap();
        assert!(Given::gather(&place).await.unwrap().sockets.is_empty(), "it has gone");
    }
}
