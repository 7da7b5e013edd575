//! The sockets of the API: a Unix socket that knows its peer's uid, HTTPS if it is asked for, and TCP without encryption on
//! loopback addresses.
//!
//! Both are bound first and served then, so that a start that cannot bind fails before anything else began.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::access::{OverTls, Peer};
use super::tls::Identity;
use super::{ApiState, probes, router};
use crate::app::sign_in::{PublicUrl, SignInTimes};
use crate::proxy_protocol;

/// `[api]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// The Unix socket; `sallyport.sock` in the data directory where it is left out.
    pub socket: Option<PathBuf>,
    /// A TCP address for HTTPS: the web app, and programs with tokens.
    pub https_listen: Option<SocketAddr>,
    /// Load balancers, which say by a PROXY header whom a connection to HTTPS is from. From them it must come.
    pub proxy_protocol_from: Vec<IpNet>,
    /// What HTTPS proves itself with, in PEM form: the certificate with the chain above it, and its key. Left out, we make a
    /// certificate of our own at the first start.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Where people open the web app: what passkeys are made for. Left out, and with HTTPS on this machine only, that.
    pub public_url: Option<PublicUrl>,
    /// A TCP address without encryption, loopback only: in front of it stands a proxy that speaks TLS.
    pub listen: Option<SocketAddr>,
    /// A browser in which nothing was done for so long is signed out.
    #[serde(with = "crate::store::duration")]
    pub sign_in_idle: Duration,
    /// A browser is signed out after so long, whatever was done.
    #[serde(with = "crate::store::duration")]
    pub sign_in_longest: Duration,
    /// Users, by uid, who are operators besides root and the bastion's own.
    pub operators: Vec<u32>,
}

impl Default for ApiSettings {
    fn default() -> Self {
        let SignInTimes { idle, longest } = SignInTimes::default();
        Self {
            socket: None,
            https_listen: None,
            proxy_protocol_from: Vec::new(),
            certificate_file: None,
            key_file: None,
            public_url: None,
            listen: None,
            sign_in_idle: idle,
            sign_in_longest: longest,
            operators: Vec::new(),
        }
    }
}

impl ApiSettings {
    /// Where people open the web app, HTTPS being served at `https`.
    pub fn public_url(&self, https: Option<SocketAddr>) -> Option<PublicUrl> {
        let local = || https.filter(|address| address.ip().is_loopback()).and_then(|own| PublicUrl::local(own.port()));
        self.public_url.clone().or_else(local)
    }

    /// How long a sign-in holds.
    pub fn sign_in_times(&self) -> SignInTimes {
        SignInTimes { idle: self.sign_in_idle, longest: self.sign_in_longest }
    }
}

/// Connections that are served at once on each socket; the next ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 512;
/// A client has this long for its request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A client has this long for the handshake of TLS.
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// A request's head may have this many lines and this many bytes.
const MOST_HEADERS: usize = 64;
const MOST_HEAD_BYTES: usize = 32 * 1024;
/// After the stop, requests that run have this long to end.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another bastion already serves the socket `{path}`")]
    SocketInUse { path: PathBuf },
    #[error("`{path}` is in the way of the socket, and it is not a socket")]
    NotASocket { path: PathBuf },
    #[error("cannot make the socket `{path}`")]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`[api] listen` is {address}, which is not a loopback address: put a proxy that speaks TLS in front")]
    NotLoopback { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// The API's sockets, bound and not served yet.
pub struct Listeners {
    unix: Option<Socket>,
    tcp: Option<TcpListener>,
    https: Option<(TcpListener, TlsAcceptor)>,
    metrics: Option<TcpListener>,
    operators: Arc<[u32]>,
    /// From where HTTPS takes PROXY headers.
    proxies: Arc<[IpNet]>,
}

struct Socket {
    listener: UnixListener,
    /// Removes the file when the listener goes.
    _file: SocketFile,
}

struct SocketFile {
    path: PathBuf,
    /// Somebody else serves it by now, or made it.
    is_others: Arc<AtomicBool>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_others.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "The socket's file was gone already");
        }
    }
}

/// Sockets that listen already, given to this process.
#[derive(Debug, Default)]
pub struct Bound {
    pub tcp: Option<TcpListener>,
    pub unix: Option<UnixListener>,
    /// Set when another process serves the Unix socket, too: then its file is not removed at the end.
    pub shared: Arc<AtomicBool>,
}

impl Listeners {
    /// Binds what the settings ask for. A socket file that a dead process left behind is replaced, one that is served
    /// is not.
    pub async fn bind(settings: &ApiSettings) -> Result<Self, BindError> {
        Self::bind_rest(settings, Bound::default()).await
    }

    /// The same for what is not `bound` already.
    pub async fn bind_rest(settings: &ApiSettings, bound: Bound) -> Result<Self, BindError> {
        let tcp = match settings.listen {
            None => None,
            Some(address) if !address.ip().to_canonical().is_loopback() => {
                return Err(BindError::NotLoopback { address });
            }
            Some(_) if bound.tcp.is_some() => bound.tcp,
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?)
            }
        };
        let unix = match &settings.socket {
            None => None,
            Some(path) => {
                let file = SocketFile { path: path.clone(), is_others: bound.shared };
                let listener = match bound.unix {
                    Some(listener) => listener,
                    None => bind_socket(path, !settings.operators.is_empty()).await?,
                };
                Some(Socket { listener, _file: file })
            }
        };
        let own = [0, nix::unistd::geteuid().as_raw()];
        let operators = own.into_iter().chain(settings.operators.iter().copied()).collect();
        let proxies = settings.proxy_protocol_from.clone().into();
        Ok(Self { unix, tcp, https: None, metrics: None, operators, proxies })
    }

    /// The same with HTTPS at this address, on `bound` if that is given.
    pub async fn with_https(
        mut self,
        address: SocketAddr,
        bound: Option<TcpListener>,
        identity: &Identity,
    ) -> Result<Self, BindError> {
        let listener = match bound {
            Some(listener) => listener,
            None => TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?,
        };
        self.https = Some((listener, identity.acceptor.clone()));
        Ok(self)
    }

    /// The same with metrics and probes for everybody at this address, on `bound` if that is given.
    pub async fn with_metrics(mut self, address: SocketAddr, bound: Option<TcpListener>) -> Result<Self, BindError> {
        self.metrics = Some(match bound {
            Some(listener) => listener,
            None => TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?,
        });
        Ok(self)
    }

    /// The address of the metrics, with the port that the kernel chose if it was asked to.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The address of HTTPS, with the port that the kernel chose if it was asked to.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// The TCP address, with the port that the kernel chose if it was asked to.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The sockets as they are, to hand them on: HTTPS, TCP, metrics, Unix.
    pub fn sockets(&self) -> [Option<BorrowedFd<'_>>; 4] {
        [
            self.https.as_ref().map(|(listener, _)| listener.as_fd()),
            self.tcp.as_ref().map(AsFd::as_fd),
            self.metrics.as_ref().map(AsFd::as_fd),
            self.unix.as_ref().map(|socket| socket.listener.as_fd()),
        ]
    }

    /// Serves until `stop`, then lets running requests end for a short time.
    pub async fn serve(self, state: ApiState, stop: CancellationToken) {
        let open = probes::open(state.clone());
        let app = router::router(state);
        let connections = TaskTracker::new();
        let unix = async {
            if let Some(socket) = &self.unix {
                serve_unix(&socket.listener, &self.operators, &app, &connections, &stop).await;
            }
        };
        let tcp = async {
            if let Some(listener) = &self.tcp {
                serve_tcp(listener, None, &Arc::default(), &app, &connections, &stop).await;
            }
        };
        let https = async {
            if let Some((listener, acceptor)) = &self.https {
                serve_tcp(listener, Some(acceptor), &self.proxies, &app, &connections, &stop).await;
            }
        };
        let metrics = async {
            if let Some(listener) = &self.metrics {
                serve_tcp(listener, None, &Arc::default(), &open, &connections, &stop).await;
            }
        };
        tokio::join!(unix, tcp, https, metrics);
        connections.close();
        if tokio::time::timeout(GOODBYE, connections.wait()).await.is_err() {
            tracing::debug!("Some API requests did not end in time");
        }
    }
}

async fn bind_socket(path: &Path, open_to_others: bool) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Socket { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {
            if tokio::net::UnixStream::connect(path).await.is_ok() {
                return Err(BindError::SocketInUse { path: path.to_owned() });
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The kernel's word on the peer's uid decides; where only root and we may, the file says so as well.
    let mode = if open_to_others { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

async fn serve_unix(
    listener: &UnixListener,
    operators: &Arc<[u32]>,
    app: &Router,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Some(slot) = free_slot(&slots, stop).await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let uid = accepted.and_then(|(stream, _)| {
            let uid = stream.peer_cred()?.uid();
            Ok((stream, uid))
        });
        match uid {
            Ok((stream, uid)) => {
                let peer = Peer::Local { uid, is_operator: operators.contains(&uid) };
                let connection = serve_connection(stream, peer, app.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => after_failure(&error).await,
        }
    }
}

async fn serve_tcp(
    listener: &TcpListener,
    tls: Option<&TlsAcceptor>,
    proxies: &Arc<[IpNet]>,
    app: &Router,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Some(slot) = free_slot(&slots, stop).await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((mut stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%address, %error, "Cannot set TCP_NODELAY");
                }
                let (app, stop, tls, proxies) = (app.clone(), stop.clone(), tls.cloned(), proxies.clone());
                connections.spawn(async move {
                    let mut peer = Peer::Remote { address };
                    if proxy_protocol::is_from(&proxies, address.ip()) {
                        match proxy_protocol::read_header(&mut stream, address).await {
                            Ok(address) => peer = Peer::Remote { address },
                            Err(error) => {
                                tracing::debug!(%address, %error, "A connection from a load balancer was closed");
                                return;
                            }
                        }
                    }
                    match tls {
                        None => serve_connection(stream, peer, app, stop).await,
                        Some(tls) => serve_encrypted(stream, &tls, peer, app, stop).await,
                    }
                    drop(slot);
                });
            }
            Err(error) => after_failure(&error).await,
        }
    }
}

async fn free_slot(slots: &Arc<Semaphore>, stop: &CancellationToken) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.cancelled() => None,
        slot = slots.clone().acquire_owned() => slot.ok(),
    }
}

/// An accept that fails says something about one connection or about us (no file descriptors left); neither ends the
/// loop, and the second must not make it spin.
async fn after_failure(error: &io::Error) {
    tracing::warn!(%error, "Cannot accept a connection to the API");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve_encrypted(stream: TcpStream, tls: &TlsAcceptor, peer: Peer, app: Router, stop: CancellationToken) {
    match tokio::time::timeout(TLS_DEADLINE, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, peer, app.layer(Extension(OverTls)), stop).await,
        Ok(Err(error)) => tracing::debug!(?peer, %error, "The handshake of TLS failed"),
        Err(_elapsed) => tracing::debug!(?peer, "The handshake of TLS took too long"),
    }
}

async fn serve_connection<S>(stream: S, peer: Peer, app: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let app = app.clone();
        async move {
            Ok::<_, Infallible>(
                app.oneshot(request.map(axum::body::Body::new) as Request).await.unwrap_or_else(|never| match never {}),
            )
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(?peer, %error, "An API connection broke");
    }
}
