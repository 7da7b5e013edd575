//! A small SSH server that runs real programs, for `sallyport demo` and for the tests: something to reach
//! where no other SSH server is wanted.
//!
//! It is not a product: it serves one account, the one it runs as, whatever login it is asked for. But it
//! is a correct server (RFC 4252, RFC 4254): a real shell in a real pseudo-terminal, programs without a
//! terminal with their three streams apart, exit statuses, signals and half-close, and it stays correct
//! under load: the two directions of a channel are independent, a stalled channel does not stall its
//! neighbours, and programs die with their channel.
//!
//! `program` starts and carries one program, `spool` holds what a program has not yet read. Forwarding is left out.

mod program;
mod spool;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use ipnet::IpNet;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred, Pty, Sig, cipher, compression, kex, mac};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use program::{Account, PtyRequest, What};

/// Where Debian and most others keep OpenSSH's SFTP server.
const SFTP_SERVERS: &[&str] = &[
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// Connections at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 4096;

/// Channels per connection, so that one client cannot start programs without end.
const MAX_CHANNELS: usize = 256;

/// Environment variables kept per channel.
const MAX_ENVIRONMENT: usize = 64;

/// How long to rest when the listener cannot accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a toy target is to be. `Settings::default()` lets nobody in.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The key it shows to clients; a new one if `None`.
    pub host_key: Option<PrivateKey>,
    /// Certificates of these CAs are accepted, for the principals they name.
    pub user_cas: Vec<PublicKey>,
    /// These keys are accepted, for every login.
    pub authorized_keys: Vec<PublicKey>,
    /// This password is accepted, as "password" and as "keyboard-interactive".
    pub password: Option<String>,
    /// The shell that runs, as a login shell and for commands.
    pub shell: PathBuf,
    /// Where programs start.
    pub working_directory: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            host_key: None,
            user_cas: Vec::new(),
            authorized_keys: Vec::new(),
            password: None,
            shell: usual_shell(),
            working_directory: environment("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from),
        }
    }
}

/// `$SHELL`, or the best of the usual ones.
fn usual_shell() -> PathBuf {
    let named = environment("SHELL").map(PathBuf::from);
    let usual = ["/bin/bash", "/bin/sh"].map(PathBuf::from);
    let mut found = named.into_iter().chain(usual).filter(|path| path.is_absolute() && path.exists());
    found.next().unwrap_or_else(|| PathBuf::from("/bin/sh"))
}

/// The toy runs programs as the person who started it, with their shell and home.
fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A running toy target. It ends at `stop`; a drop ends it too, without waiting for its programs.
pub struct ToyTarget {
    address: SocketAddr,
    host_key: PublicKey,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl ToyTarget {
    /// Listens and serves until `stop`.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let host_key = match settings.host_key.clone() {
            Some(key) => key,
            None => {
                PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)?
            }
        };
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let public = host_key.public_key().clone();

        let server = Arc::new(Server {
            config: Arc::new(config(host_key, &settings)),
            settings,
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        });
        tasks.spawn(server.accept(listener));
        Ok(Self { address, host_key: public, cancel, tasks })
    }

    /// The address and port it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host key to pin.
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// How many tasks are alive: connections, and the programs on them. One is the listener's.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Ends connections and programs, and waits until all are gone.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for ToyTarget {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.tasks.close();
    }
}

/// Only what today's OpenSSH would choose: post-quantum key exchange first, authenticated ciphers, no compression.
fn config(host_key: PrivateKey, settings: &Settings) -> russh::server::Config {
    let mut methods = MethodSet::empty();
    if !settings.user_cas.is_empty() || !settings.authorized_keys.is_empty() {
        methods.push(MethodKind::PublicKey);
    }
    if settings.password.is_some() {
        methods.push(MethodKind::Password);
        methods.push(MethodKind::KeyboardInteractive);
    }
    russh::server::Config {
        methods,
        keys: vec![host_key],
        // A toy has no guests to keep out for long; a refused key must not cost a test a second.
        auth_rejection_time: Duration::from_millis(20),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 10,
        inactivity_timeout: None,
        nodelay: true,
        limits: russh::Limits::new(1 << 30, 1 << 30, Duration::from_hours(1)),
        preferred: Preferred {
            kex: vec![
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]
            .into(),
            key: Preferred::DEFAULT.key.iter().filter(|name| !is_sha1(name)).cloned().collect(),
            cipher: vec![cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::AES_256_CTR, cipher::AES_128_CTR].into(),
            mac: vec![mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM].into(),
            compression: vec![compression::NONE].into(),
            host_key_certificates: Vec::new().into(),
        },
        ..russh::server::Config::default()
    }
}

/// `ssh-rsa`, the only signature with SHA-1 that is left.
fn is_sha1(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { hash: None })
}

struct Server {
    config: Arc<russh::server::Config>,
    settings: Settings,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = async {
                    let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
                    let (socket, peer) = listener.accept().await?;
                    io::Result::Ok((place, socket, peer))
                } => accepted,
            };
            match accepted {
                Ok((place, socket, peer)) => {
                    let server = Arc::clone(&self);
                    self.tasks.spawn(async move {
                        if let Err(error) = server.serve(socket, peer).await {
                            debug!(%peer, %error, "A connection to the toy target ended with an error");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "The toy target cannot accept a connection; it tries again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves one connection until it ends, or until the target stops: then its socket is shut down, because
    /// a session neither ends when dropped nor takes a message while its peer does not read.
    async fn serve(&self, socket: TcpStream, peer: SocketAddr) -> Result<(), russh::Error> {
        socket.set_nodelay(true)?;
        let socket = socket.into_std()?;
        let severing = socket.try_clone()?;
        let socket = TcpStream::from_std(socket)?;

        let cancel = self.cancel.child_token();
        let end_programs = cancel.clone().drop_guard();
        let handler = Connection {
            peer: peer.ip(),
            settings: self.settings.clone(),
            may_have_pty: true,
            login: String::new(),
            channels: HashMap::new(),
            cancel: cancel.clone(),
            tasks: self.tasks.clone(),
        };
        let serving = async { russh::server::run_stream(Arc::clone(&self.config), socket, handler).await?.await };
        tokio::pin!(serving);
        let result = tokio::select! {
            result = &mut serving => result,
            () = cancel.cancelled() => {
                if let Err(error) = severing.shutdown(std::net::Shutdown::Both) {
                    debug!(%error, "The connection was gone already");
                }
                serving.await
            }
        };
        drop(end_programs);
        result
    }
}

/// Variables that a client has set.
type Environment = Vec<(OsString, OsString)>;

/// A session channel: before its program starts, and then (RFC 4254 §6.5: at most one program).
enum SessionChannel {
    Idle { channel: Channel<Msg>, pty: Option<PtyRequest>, environment: Environment },
    Running,
}

/// One client's connection.
struct Connection {
    peer: IpAddr,
    settings: Settings,
    /// False when the login's certificate lacks "permit-pty".
    may_have_pty: bool,
    login: String,
    channels: HashMap<ChannelId, SessionChannel>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Connection {
    fn check_password(&self, offered: &[u8]) -> bool {
        self.settings.password.as_ref().is_some_and(|password| password.as_bytes() == offered)
    }

    /// Starts the channel's program. An error means "no": the client is told by a failure reply.
    fn start(&mut self, id: ChannelId, what: &What<'_>, session: &Session) -> io::Result<()> {
        let Some(entry) = self.channels.get_mut(&id) else {
            return Err(io::Error::other("no such channel"));
        };
        let SessionChannel::Idle { channel, pty, environment } = std::mem::replace(entry, SessionChannel::Running)
        else {
            return Err(io::Error::other("the channel has a program already"));
        };
        let account = Account {
            login: &self.login,
            shell: &self.settings.shell,
            home: &self.settings.working_directory,
            peer: self.peer,
        };
        match program::start(&account, what, pty.as_ref(), &environment) {
            Ok(program) => {
                let cancel = self.cancel.child_token();
                let carried = program::carry(program, channel, session.handle(), cancel, self.tasks.clone());
                self.tasks.spawn(carried);
                Ok(())
            }
            Err(error) => {
                *entry = SessionChannel::Idle { channel, pty, environment };
                Err(error)
            }
        }
    }

    fn answer_start(&mut self, id: ChannelId, what: &What<'_>, session: &mut Session) -> Result<(), russh::Error> {
        match self.start(id, what, session) {
            Ok(()) => session.channel_success(id),
            Err(error) => {
                debug!(%error, "The toy target cannot start a program");
                session.channel_failure(id)
            }
        }
    }

    /// The channel, if it still waits for its program. What came in for it is taken out of its queue:
    /// the callbacks have it, and a full queue would stop the whole connection.
    fn idle(&mut self, id: ChannelId) -> Option<(&mut Option<PtyRequest>, &mut Environment)> {
        match self.channels.get_mut(&id)? {
            SessionChannel::Idle { channel, pty, environment } => {
                while let Some(Some(_)) = channel.wait().now_or_never() {}
                Some((pty, environment))
            }
            SessionChannel::Running => None,
        }
    }
}

/// Variables a client may set: the locale and the terminal, nothing that changes what a program loads.
fn is_allowed_variable(name: &str) -> bool {
    name == "LANG" || name == "TERM" || name.starts_with("LC_")
}

#[expect(clippy::disallowed_methods, reason = "a certificate from a real CA is judged by the real time")]
/// Why a certificate is refused (the checks that the SSH library leaves to its user).
fn certificate_fault(certificate: &Certificate, login: &str, cas: &[PublicKey], peer: IpAddr) -> Option<&'static str> {
    let fingerprints: Vec<_> = cas.iter().map(|ca| ca.fingerprint(HashAlg::Sha256)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if certificate.cert_type() != CertType::User {
        return Some("it is not a user certificate");
    }
    if certificate.validate_at(now, &fingerprints).is_err() {
        return Some("its CA is not trusted, or it is not valid now");
    }
    if !certificate.valid_principals().iter().any(|principal| principal == login) {
        return Some("it does not name the login as a principal");
    }
    for (name, value) in certificate.critical_options().iter() {
        let allowed = name == "source-address" && value.split(',').any(|range| is_within(peer, range.trim()));
        if !allowed {
            return Some("a critical option forbids it, or is unknown");
        }
    }
    None
}

fn is_within(peer: IpAddr, range: &str) -> bool {
    range.parse::<IpNet>().is_ok_and(|net| net.contains(&peer))
        || range.parse::<IpAddr>().is_ok_and(|address| address == peer)
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        let known = self.settings.authorized_keys.iter().any(|key| key.key_data() == offer.public_key.key_data());
        // A certificate is offered as its bare key here, so with a CA any key may be one.
        let possible = known || !self.settings.user_cas.is_empty();
        Ok(if possible && !is_sha1(offer.algorithm) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = self.settings.authorized_keys.iter().any(|known| known.key_data() == key.public_key.key_data());
        if !known {
            return Ok(Auth::reject());
        }
        user.clone_into(&mut self.login);
        Ok(Auth::Accept)
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        if let Some(fault) = certificate_fault(certificate, user, &self.settings.user_cas, self.peer) {
            debug!(key_id = certificate.key_id(), fault, "The toy target refuses a certificate");
            return Ok(Auth::reject());
        }
        self.may_have_pty = certificate.extensions().iter().any(|(name, _)| name == "permit-pty");
        user.clone_into(&mut self.login);
        Ok(Auth::Accept)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        if !self.check_password(password.as_bytes()) {
            return Ok(Auth::reject());
        }
        user.clone_into(&mut self.login);
        Ok(Auth::Accept)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        if self.settings.password.is_none() {
            return Ok(Auth::reject());
        }
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        if !response.next().is_some_and(|answer| self.check_password(&answer)) {
            return Ok(Auth::reject());
        }
        user.clone_into(&mut self.login);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.len() >= MAX_CHANNELS {
            reply.reject(russh::ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), SessionChannel::Idle { channel, pty: None, environment: Vec::new() });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, _: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        // Bytes for no program have nowhere to go; they must not fill the queue either.
        let _: Option<_> = self.idle(id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let allowed = self.may_have_pty;
        match self.idle(id) {
            Some((pty @ None, _)) if allowed => {
                let size = program::size(columns, rows, width, height);
                *pty = Some(PtyRequest { term: term.to_owned(), size, modes: modes.to_vec() });
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.idle(id) {
            Some((_, environment)) if is_allowed_variable(name) && environment.len() < MAX_ENVIRONMENT => {
                environment.push((name.into(), value.into()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let _: Option<_> = self.idle(id);
        session.channel_failure(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.answer_start(id, &What::Shell, session)
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.answer_start(id, &What::Command(OsStr::from_bytes(command)), session)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        let found = SFTP_SERVERS.iter().map(Path::new).find(|path| path.exists());
        match found {
            Some(server) if name == "sftp" => self.answer_start(id, &What::Server(server), session),
            _ => session.channel_failure(id),
        }
    }

    // What reaches a running program comes through its channel's queue, in order with the data around it.
    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some((Some(pty), _)) = self.idle(id) {
            pty.size = program::size(columns, rows, width, height);
        }
        session.channel_success(id)
    }

    async fn signal(&mut self, id: ChannelId, _: Sig, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(id)
    }
}
