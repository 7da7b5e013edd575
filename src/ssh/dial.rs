//! Connections to targets. Each takes a [`Permit`], or the [`Turn`] at replacing the bastion's own key there: nothing else opens this door.
//!
//! A target proves itself by a pinned host key, or by a certificate of a pinned host CA; the engineer is never asked. The
//! bastion proves itself by a certificate made for this session alone, or by a stored key or password, which the
//! engineer never sees.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{
    Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{Channel, ChannelOpenFailure, ChannelStream, Limits};
use sallyport_domain::channel::Program;
use sallyport_domain::grant::Destination;
use sallyport_domain::id::TargetId;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::policy::Permit;
use sallyport_domain::secret::TargetPassword;
use sallyport_domain::target::{Address, HostKeyTrust, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::algorithms;
use super::greeting::IDENTIFICATION;
use super::sever::{Blade, Sever, Severable};
use crate::app::clock::Clock;
use crate::app::credential_rotation::Turn;
use crate::spans::{self, Spanned};

/// The longest that one look at a host's keys may take; the API's caller waits for three.
const SCAN_DEADLINE: Duration = Duration::from_secs(8);

/// The longest that connecting and proving both sides may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(20);

/// How long a session's certificate is valid. It is used within the dial deadline; the rest is for clocks that differ.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(5 * 60);

/// How far a target's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How often an idle connection to a target is asked for a sign of life, and how often in vain before it is given up.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES_LOST: usize = 4;

/// Why a target could not be reached. What it says is for the engineer too.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(
        "target `{target}` offers host key {offered}, which is not the one that is pinned; ask an admin to check it"
    )]
    HostKeyMismatch { target: TargetName, offered: String },
    #[error("cannot reach target `{target}`")]
    Unreachable {
        target: TargetName,
        #[source]
        source: io::Error,
    },
    #[error("target `{target}` did not answer within {} s", DIAL_DEADLINE.as_secs())]
    TimedOut { target: TargetName },
    #[error("target `{target}` speaks no SSH that the bastion accepts")]
    Protocol {
        target: TargetName,
        #[source]
        source: russh::Error,
    },
    #[error("target `{target}` did not accept the bastion's credential for `{login}`; ask an admin to check it")]
    CredentialRefused { target: TargetName, login: Login },
    #[error("the bastion has no usable credential for `{login}` on target `{target}`; ask an admin to set one")]
    NoCredential { target: TargetName, login: Login },
    /// What is not written down does not happen.
    #[error(
        "the bastion could not write down by which host key target `{target}` proved itself; try again in a moment"
    )]
    NotWritten {
        target: TargetName,
        #[source]
        source: crate::app::DbError,
    },
    /// The permit is for another place; only a mistake of ours gets here.
    #[error("nobody permitted a connection to `{login}` on target `{target}`")]
    NotPermitted { target: TargetName, login: Login },
    #[error("target `{target}` opens no channel")]
    NoChannel {
        target: TargetName,
        #[source]
        source: russh::Error,
    },
}

impl DialError {
    /// The word for it in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::HostKeyMismatch { .. } => "host_key_mismatch",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Protocol { .. } => "protocol",
            Self::CredentialRefused { .. } => "credential_refused",
            Self::NoCredential { .. } => "no_credential",
            Self::NotWritten { .. } => "not_written",
            Self::NotPermitted { .. } => "not_permitted",
            Self::NoChannel { .. } => "no_channel",
        }
    }
}

/// What the bastion proves itself with.
pub enum Credential {
    /// Sign a certificate for a key made for this session alone.
    Certificate {
        authority: Arc<PrivateKey>,
        /// What the target's log names: the session's id.
        key_id: String,
    },
    Key(Arc<PrivateKey>),
    Password(TargetPassword),
}

impl Credential {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "certificate",
            Self::Key(_) => "key",
            Self::Password(_) => "password",
        }
    }
}

/// One hop: a target, the login there, and the credential for it.
pub struct Hop {
    pub target: Target,
    pub login: Login,
    pub credential: Credential,
}

/// A proved connection to a target. Dropping it closes it.
pub struct TargetConnection {
    handle: Handle<TargetSide>,
    blade: Blade,
    name: TargetName,
    /// By which key each host on the way proved itself, and the target last.
    shown: Vec<(TargetId, String)>,
    /// The connections that this one runs through.
    _through: Option<Box<TargetConnection>>,
}

impl TargetConnection {
    /// Opens the channel for `program`: a session channel (RFC 4254 §6.1), or a forwarded connection from the target on
    /// (§7.2).
    pub async fn open(&self, program: &Program) -> Result<Channel<client::Msg>, DialError> {
        let opening = async {
            match program {
                Program::Forward { destination } if destination.is_socket() => {
                    self.handle.channel_open_direct_streamlocal(&destination.host).await
                }
                Program::Forward { destination: Destination { host, port } } => {
                    self.handle.channel_open_direct_tcpip(host, u32::from(*port), "127.0.0.1", 0).await
                }
                Program::Shell | Program::Exec { .. } | Program::Subsystem { .. } => {
                    self.handle.channel_open_session().await
                }
            }
        };
        match tokio::time::timeout(DIAL_DEADLINE, opening).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(source)) => Err(DialError::NoChannel { target: self.name.clone(), source }),
            Err(_) => Err(DialError::TimedOut { target: self.name.clone() }),
        }
    }

    /// By which key each host on the way proved itself, and the target last.
    pub fn shown(&self) -> &[(TargetId, String)] {
        &self.shown
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed() || self.blade.is_cut()
    }
}

impl Drop for TargetConnection {
    fn drop(&mut self) {
        // The connection's task would go on while the target keeps it open.
        self.blade.cut();
    }
}

/// Connects to the target that `permit` is for, through `jumps`, the first to dial first. `blade` cuts every connection made.
pub async fn dial(
    permit: &Permit,
    jumps: Vec<Hop>,
    target: Hop,
    blade: &Blade,
    clock: &Clock,
    span: &Spanned,
) -> Result<TargetConnection, DialError> {
    if (permit.target(), permit.login()) != (target.target.id, &target.login) {
        return Err(DialError::NotPermitted { target: target.target.name, login: target.login });
    }
    let forwards = !permit.terms().capabilities.forwards.is_empty();
    connect_through(jumps, target, Purpose::Session { forwards }, blade, clock, span).await
}

/// Connects to the account whose key is being replaced, without a session: nobody is let through, and the events of `turn` say
/// what is done there.
pub(super) async fn dial_for_rotation(
    turn: &Turn,
    jumps: Vec<Hop>,
    target: Hop,
    blade: &Blade,
    clock: &Clock,
) -> Result<TargetConnection, DialError> {
    if (turn.target().id, turn.login()) != (target.target.id, &target.login) {
        return Err(DialError::NotPermitted { target: target.target.name, login: target.login });
    }
    let purpose = Purpose::Session { forwards: false };
    connect_through(jumps, target, purpose, blade, clock, &Spanned::none()).await
}

async fn connect_through(
    jumps: Vec<Hop>,
    target: Hop,
    purpose: Purpose,
    blade: &Blade,
    clock: &Clock,
    span: &Spanned,
) -> Result<TargetConnection, DialError> {
    let mut connection: Option<TargetConnection> = None;
    for jump in jumps {
        connection = Some(connect_in_time(jump, Purpose::Jump, connection.take(), blade, clock, span).await?);
    }
    connect_in_time(target, purpose, connection, blade, clock, span).await
}

/// What a hop is for; its certificate allows nothing else.
#[derive(Clone, Copy)]
enum Purpose {
    /// To go on from there.
    Jump,
    /// To run programs there, and to go on from there if the grant names a place.
    Session { forwards: bool },
}

impl Purpose {
    /// The certificate extensions that the target asks for, in their order (PROTOCOL.certkeys).
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Purpose::Jump => &["permit-port-forwarding"],
            Purpose::Session { forwards: true } => &["permit-port-forwarding", "permit-pty"],
            Purpose::Session { forwards: false } => &["permit-pty"],
        }
    }
}

async fn connect_in_time(
    hop: Hop,
    purpose: Purpose,
    through: Option<TargetConnection>,
    blade: &Blade,
    clock: &Clock,
    span: &Spanned,
) -> Result<TargetConnection, DialError> {
    let target = hop.target.name.clone();
    let connected = tokio::time::timeout(DIAL_DEADLINE, connect(hop, purpose, through, blade, clock, span)).await;
    connected.map_err(|_| DialError::TimedOut { target })?
}

/// Fetches the host keys that `address` offers, for an admin to confirm: one connection for each kind of key.
pub async fn scan(address: &Address) -> Result<Vec<PublicKey>, io::Error> {
    let kinds = [Algorithm::Ed25519, algorithms::ECDSA_256, Algorithm::Rsa { hash: Some(HashAlg::Sha512) }];
    let mut keys = Vec::new();
    let mut failure = None;
    for kind in kinds {
        let seen = Arc::new(Mutex::new(None));
        let side = TargetSide { name: None, trust: Trust::Nobody, seen: seen.clone() };
        let mut config = config(false);
        config.preferred.key = vec![kind].into();
        let attempt = async {
            let stream = TcpStream::connect((address.host(), address.port())).await?;
            // Trusting nobody ends the connection once the key has been shown.
            let _ = client::connect_stream(Arc::new(config), stream, side).await;
            Ok(())
        };
        match tokio::time::timeout(SCAN_DEADLINE, attempt).await {
            Ok(Ok(())) => keys.extend(lock(&seen).take()),
            Ok(Err(error)) => failure = Some(error),
            Err(_) => failure = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    match failure {
        Some(error) if keys.is_empty() => Err(error),
        _ => Ok(keys),
    }
}

fn config(authorities: bool) -> client::Config {
    client::Config {
        client_id: russh::SshId::Raw(IDENTIFICATION.into()),
        limits: Limits {
            rekey_write_limit: algorithms::REKEY_BYTES,
            rekey_read_limit: algorithms::REKEY_BYTES,
            ..Limits::default()
        },
        window_size: algorithms::WINDOW_BYTES,
        maximum_packet_size: algorithms::PACKET_BYTES,
        channel_buffer_size: algorithms::CHANNEL_QUEUE,
        preferred: algorithms::for_targets(authorities),
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_LOST,
        nodelay: true,
        ..client::Config::default()
    }
}

async fn connect(
    hop: Hop,
    purpose: Purpose,
    through: Option<TargetConnection>,
    blade: &Blade,
    clock: &Clock,
    span: &Spanned,
) -> Result<TargetConnection, DialError> {
    let connecting = spans::connect(span);
    let Hop { target, login, credential } = hop;
    let name = target.name.clone();
    let unreachable = |source| DialError::Unreachable { target: target.name.clone(), source };
    let stream = match &through {
        None => {
            let stream = TcpStream::connect((target.address.host(), target.address.port())).await;
            let stream = stream.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            Transport::Tcp(stream)
        }
        Some(jump) => {
            let (host, port) = (target.address.host(), u32::from(target.address.port()));
            let channel = jump.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await;
            let channel = channel.map_err(|error| unreachable(io::Error::other(error)))?;
            Transport::Channel(channel.into_stream())
        }
    };
    let authorities = target.host_keys.iter().any(|key| key.trust == HostKeyTrust::Authority);
    let seen = Arc::new(Mutex::new(None));
    let trust = Trust::pinned(&target, clock);
    let side = TargetSide { name: Some(name.clone()), trust, seen: seen.clone() };
    let stream = Sever::new(stream, blade.clone());
    let connected = client::connect_stream(Arc::new(config(authorities)), stream, side).await;
    let mut handle = connected.map_err(|error| match (error, lock(&seen).take()) {
        (russh::Error::UnknownKey, Some(offered)) => {
            let offered = offered.fingerprint(HashAlg::Sha256).to_string();
            DialError::HostKeyMismatch { target: name.clone(), offered }
        }
        (source, _) => DialError::Protocol { target: name.clone(), source },
    })?;
    let mut shown = through.as_ref().map(|jump| jump.shown.clone()).unwrap_or_default();
    let key = lock(&seen).take().and_then(|key| key.to_openssh().ok());
    shown.extend(key.map(|key| (target.id, key)));
    drop(connecting);
    let authenticating = spans::authenticate(span, credential.as_str());
    authenticate(&mut handle, &name, &login, credential, purpose, clock).await.inspect_err(|error| {
        authenticating.failure(error.as_str());
    })?;
    authenticating.outcome("accepted");
    Ok(TargetConnection { handle, blade: blade.clone(), name, shown, _through: through.map(Box::new) })
}

async fn authenticate(
    handle: &mut Handle<TargetSide>,
    target: &TargetName,
    login: &Login,
    credential: Credential,
    purpose: Purpose,
    clock: &Clock,
) -> Result<(), DialError> {
    let protocol = |source| DialError::Protocol { target: target.clone(), source };
    let accepted = match credential {
        Credential::Certificate { authority, key_id } => {
            let no_credential = |_| DialError::NoCredential { target: target.clone(), login: login.clone() };
            let (key, certificate) = sign(&authority, login, &key_id, purpose, clock).map_err(no_credential)?;
            let result = handle.authenticate_openssh_cert(login.as_str(), Arc::new(key), certificate).await;
            result.map_err(protocol)?.success()
        }
        Credential::Key(key) => {
            let hash = if key.algorithm().is_rsa() { Some(HashAlg::Sha512) } else { None };
            let key = PrivateKeyWithHashAlg::new(key, hash);
            handle.authenticate_publickey(login.as_str(), key).await.map_err(protocol)?.success()
        }
        Credential::Password(password) => {
            match handle.authenticate_password(login.as_str(), password.expose()).await.map_err(protocol)? {
                AuthResult::Success => true,
                AuthResult::Failure { .. } => answer_prompt(handle, login, &password).await.map_err(protocol)?,
            }
        }
    };
    if accepted { Ok(()) } else { Err(DialError::CredentialRefused { target: target.clone(), login: login.clone() }) }
}

/// Answers one hidden "keyboard-interactive" prompt (RFC 4256) with the password, and no other.
async fn answer_prompt(
    handle: &mut Handle<TargetSide>,
    login: &Login,
    password: &TargetPassword,
) -> Result<bool, russh::Error> {
    /// A server may send empty rounds before and after the prompt.
    const MOST_ROUNDS: usize = 4;
    let mut answered = false;
    let mut response = handle.authenticate_keyboard_interactive_start(login.as_str(), None).await?;
    for _ in 0..MOST_ROUNDS {
        let prompts = match response {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
        };
        let answers = match prompts.as_slice() {
            [] => Vec::new(),
            [prompt] if !prompt.echo && !answered => {
                answered = true;
                vec![password.expose().to_owned()]
            }
            _ => return Ok(false), // a second factor, or a question for a person
        };
        response = handle.authenticate_keyboard_interactive_respond(answers).await?;
    }
    Ok(false)
}

/// Makes a key and a certificate for it that is good for this session and login alone. Its key id is the session's id, so
/// that the target's own log names our session.
fn sign(
    authority: &PrivateKey,
    login: &Login,
    key_id: &str,
    purpose: Purpose,
    clock: &Clock,
) -> Result<(PrivateKey, Certificate), russh::keys::ssh_key::Error> {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
    // Before 1970 nothing is valid anyway.
    let at = |instant: chrono::DateTime<chrono::Utc>| u64::try_from(instant.timestamp()).unwrap_or(0);
    let now = clock.now();
    let (from, until) = (at(now - CLOCK_SKEW), at(now + CERTIFICATE_LIFE));
    let mut builder = Builder::new_with_random_nonce(&mut rand::rng(), key.public_key(), from, until)?;
    builder.cert_type(CertType::User)?;
    builder.key_id(key_id)?;
    builder.valid_principal(login.as_str())?;
    for extension in purpose.extensions() {
        builder.extension(*extension, "")?;
    }
    let certificate = builder.sign(authority)?;
    Ok((key, certificate))
}

/// Whom a target's side of a connection may prove to be.
enum Trust {
    /// Show the key and go.
    Nobody,
    /// These keys, and hosts certified by these authorities under one of these names.
    Pinned { keys: Vec<PublicKey>, authorities: Vec<PublicKey>, names: Vec<String>, now: u64 },
}

impl Trust {
    fn pinned(target: &Target, clock: &Clock) -> Self {
        let of = |trust| {
            let lines = target.host_keys.iter().filter(move |key| key.trust == trust);
            // A line that does not parse trusts nobody.
            lines.filter_map(|key| PublicKey::from_openssh(&key.public_key).ok()).collect()
        };
        let names = target.names().map(ToString::to_string);
        Trust::Pinned {
            keys: of(HostKeyTrust::Host),
            authorities: of(HostKeyTrust::Authority),
            names: names.chain([target.address.host().to_owned()]).collect(),
            now: u64::try_from(clock.now().timestamp()).unwrap_or(0),
        }
    }

    fn accepts(&self, offered: &PublicKeyOrCertificate) -> bool {
        let Trust::Pinned { keys, authorities, names, now } = self else {
            return false;
        };
        match offered {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                keys.iter().any(|pinned| pinned.key_data() == key.key_data())
            }
            PublicKeyOrCertificate::Certificate(certificate) => {
                let fingerprints: Vec<_> = authorities.iter().map(|key| key.fingerprint(HashAlg::Sha256)).collect();
                certificate.cert_type() == CertType::Host
                    && certificate.critical_options().is_empty()
                    && certificate.valid_principals().iter().any(|principal| names.contains(principal))
                    && certificate.validate_at(*now, &fingerprints).is_ok()
            }
        }
    }
}

/// Our side of a connection to a target. It refuses every channel that the target asks for.
struct TargetSide {
    /// `None` while scanning.
    name: Option<TargetName>,
    trust: Trust,
    /// The key that was offered, for messages.
    seen: Arc<Mutex<Option<PublicKey>>>,
}

impl client::Handler for TargetSide {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        *lock(&self.seen) = Some(offered.public_key());
        let accepted = self.trust.accepts(offered);
        if let (false, Some(target)) = (accepted, &self.name) {
            let offered = offered.public_key().fingerprint(HashAlg::Sha256);
            tracing::warn!(%target, %offered, "A target did not prove itself.");
        }
        Ok(accepted)
    }

    // A target may open no channel to us, whatever its type: russh would accept them.

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<client::Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _socket_path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _socket_path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        refuse(reply).await
    }
}

async fn refuse(reply: client::ChannelOpenHandle) -> Result<(), russh::Error> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection to a target runs over.
enum Transport {
    Tcp(TcpStream),
    /// A "direct-tcpip" channel through a jump host.
    Channel(ChannelStream<client::Msg>),
}

impl Severable for Transport {
    fn discard_undelivered(&self) {
        match self {
            Transport::Tcp(stream) => stream.discard_undelivered(),
            Transport::Channel(_) => {} // its own connection is cut with it
        }
    }
}

macro_rules! on_transport {
    ($self:ident, $method:ident $(, $argument:ident)*) => {
        match $self.get_mut() {
            Transport::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Transport::Channel(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_transport!(self, poll_write, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, poll_shutdown, cx)
    }
}
