//! One client connection as russh hands it over: who is proved (RFC 4252), and which channel requests are legal
//! (RFC 4254, by `domain::channel`).
//!
//! Callbacks hand over and return, for the whole connection waits for them. Every request that wants a reply gets one
//! here. What the methods list offers is not enforced by russh, so this file decides alone who gets in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Sig};
use sallyport_domain::channel::{self, Program, Pty, TerminalSize};
use sallyport_domain::grant::Destination;
use sallyport_domain::id::RecordingId;
use sallyport_domain::login_name::{self, LoginName};
use sallyport_domain::name::TargetName;
use sallyport_domain::policy::Denial;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::PrincipalPassword;
use sallyport_domain::target::Target;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};
use uuid::Uuid;

use super::Door;
use super::channel::Incoming;
use super::jump;
use super::limits::Slot;
use super::notice;
use super::proxy::{Request, Start};
use super::session::{self, ClientConnection, SessionState};
use super::sever::Blade;
use crate::app::DbError;
use crate::app::access::{self, Arrival};
use crate::app::logins::{self, LoginError};

/// Resizes and signals that wait for one channel's recorder; what is more is refused.
const MOST_REQUESTS: usize = 64;

/// Channels that one connection may open in all: russh keeps some 3 KB of each that we closed first.
const MOST_CHANNELS_EVER: u32 = 20_000;

/// How somebody who was proved on one connection comes to another that runs through it (`ssh -J`).
#[derive(Clone)]
pub struct Passage {
    pub principal: Principal,
    pub source: SocketAddr,
    /// Cuts the connection on which the person was proved.
    pub carrier: Blade,
}

/// Our side of one client connection.
pub struct Client {
    door: Arc<Door>,
    peer: SocketAddr,
    /// None for a connection that runs through another: that one has a place.
    slot: Option<Slot>,
    blade: Blade,
    carrier: Option<Blade>,
    /// Set when the connection has ended.
    gone: CancellationToken,
    /// Told when somebody was proved.
    proved: Arc<Notify>,
    login: Login,
    channels: HashMap<ChannelId, Open>,
    /// Session channels that were ever asked for.
    opened: u32,
    /// Places for forwarded connections.
    forwards: Arc<Semaphore>,
    session: watch::Receiver<SessionState>,
    /// Moves to the session's task once somebody is proved.
    state: Option<watch::Sender<SessionState>>,
    /// The first program that was asked for, for a decision that depends on it.
    first_program: watch::Sender<Option<Program>>,
}

/// How far the login has come.
enum Login {
    /// The person was proved by the connection that this one runs through; the user name will say the login at `target`.
    Carried {
        principal: Principal,
        target: TargetName,
    },
    /// Nobody is proved. `offered` is the last key that was found good for a name, so that the signature that follows
    /// does not take a second look.
    Nobody {
        offered: Option<Offered>,
        claimed: String,
        tries: usize,
    },
    Proved {
        name: LoginName,
        principal: Principal,
        method: &'static str,
        fingerprint: Option<String>,
    },
}

struct Offered {
    user: String,
    fingerprint: String,
    principal: Principal,
}

/// A session channel that is open.
struct Open {
    state: channel::Channel,
    start: Option<oneshot::Sender<(Start, RecordingId)>>,
    requests: mpsc::Sender<Request>,
}

impl Client {
    pub fn new(
        door: Arc<Door>,
        peer: SocketAddr,
        slot: Slot,
        blade: Blade,
        gone: CancellationToken,
        proved: Arc<Notify>,
    ) -> Self {
        let login = Login::Nobody { offered: None, claimed: String::new(), tries: 0 };
        Self::with(door, peer, Some(slot), blade, None, gone, proved, login)
    }

    /// The inner connection to `target` of somebody who was proved by the outer one.
    pub fn through(
        door: Arc<Door>,
        passage: Passage,
        target: TargetName,
        blade: Blade,
        gone: CancellationToken,
        proved: Arc<Notify>,
    ) -> Self {
        let Passage { principal, source, carrier } = passage;
        Self::with(door, source, None, blade, Some(carrier), gone, proved, Login::Carried { principal, target })
    }

    #[expect(clippy::too_many_arguments, reason = "what the two ways to make one have in common")]
    fn with(
        door: Arc<Door>,
        peer: SocketAddr,
        slot: Option<Slot>,
        blade: Blade,
        carrier: Option<Blade>,
        gone: CancellationToken,
        proved: Arc<Notify>,
        login: Login,
    ) -> Self {
        let (state, session) = watch::channel(SessionState::Opening);
        let forwards = Arc::new(Semaphore::new(door.settings.max_channels as usize));
        Self {
            door,
            peer,
            slot,
            blade,
            carrier,
            gone,
            proved,
            login,
            channels: HashMap::new(),
            opened: 0,
            forwards,
            session,
            state: Some(state),
            first_program: watch::Sender::new(None),
        }
    }

    /// The answer to whatever did not prove anybody: always the same.
    fn reject(&mut self, user: &str) -> Auth {
        if let Login::Nobody { claimed, tries, .. } = &mut self.login {
            *claimed = user.chars().take(256).collect();
            *tries += 1;
        }
        Auth::Reject { proceed_with_methods: Some(methods()), partial_success: false }
    }

    fn accept(&mut self, user: &str, principal: Principal, method: &'static str, fingerprint: Option<String>) -> Auth {
        let Ok(name) = user.parse::<LoginName>() else {
            return self.reject(user);
        };
        if name.principal != principal.name {
            return self.reject(user);
        }
        self.login = Login::Proved { name, principal, method, fingerprint };
        Auth::Accept
    }

    /// Turns a failure to look somebody up into a rejection: who cannot be checked does not get in.
    fn unless_failed(&self, found: Result<Option<Principal>, LoginError>) -> Option<Principal> {
        found.unwrap_or_else(|error| {
            warn!(%error, "A login could not be checked.");
            None
        })
    }

    async fn find_by_key(&self, user: &str, fingerprint: &str) -> Option<Principal> {
        let name = user.parse::<LoginName>().ok()?;
        self.unless_failed(logins::by_key(&self.door.app, &name.principal, fingerprint).await)
    }

    /// Whether a certificate, whose signature and time russh has checked, proves the person it is shown for.
    async fn find_by_certificate(&self, user: &str, certificate: &Certificate) -> Option<Principal> {
        let name = user.parse::<LoginName>().ok()?;
        let trusted = self.door.trusted_cas.iter().any(|ca| ca.key_data() == certificate.signature_key());
        let named = certificate.valid_principals().iter().any(|principal| principal == name.principal.as_str());
        let welcome = certificate.critical_options().iter().all(|(option, value)| {
            // Options that we do not know must be refused (PROTOCOL.certkeys). "force-command" is one of them.
            option == "source-address" && admits(value, self.peer)
        });
        if !(trusted && named && welcome && certificate.cert_type() == CertType::User) {
            return None;
        }
        self.unless_failed(logins::by_authority(&self.door.app, &name.principal).await)
    }

    fn open(&mut self, channel: ChannelId) -> Option<&mut Open> {
        self.channels.get_mut(&channel)
    }

    /// Starts the program on a channel, if that is legal now.
    fn start(&mut self, channel: ChannelId, program: Program) -> bool {
        let recording = RecordingId::from_uuid(Uuid::now_v7());
        let first_program = self.first_program.clone();
        let Some(open) = self.open(channel) else {
            return false;
        };
        match open.state.start(program.clone(), recording) {
            Ok((pty, env)) => {
                begin(&first_program, &program);
                let start = Start { program, pty, env };
                open.start.take().is_some_and(|sender| sender.send((start, recording)).is_ok())
            }
            Err(error) => {
                debug!(%error, "A channel request was refused.");
                false
            }
        }
    }
}

/// The methods that are offered (RFC 4252 §7, §8).
fn methods() -> MethodSet {
    MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice())
}

/// Whether a certificate's "source-address" list names the peer's address.
fn admits(list: &str, peer: SocketAddr) -> bool {
    let address = peer.ip().to_canonical();
    list.split(',').any(|network| match network.trim().parse::<IpNet>() {
        Ok(network) => network.contains(&address),
        Err(_) => network.trim().parse() == Ok(address),
    })
}

/// Whether keys may prove somebody by this signature algorithm: RSA with SHA-1 may not.
fn is_strong(algorithm: &Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa)
}

impl Client {
    /// Answers the wish for a connection to `destination`: a target's SSH server is the bastion itself; another place must be
    /// named by the grant, and is reached from the target; everything else is refused.
    async fn forward(
        &mut self,
        channel: Channel<Msg>,
        destination: Destination,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (Login::Proved { principal, .. }, Ok(place)) = (&self.login, self.forwards.clone().try_acquire_owned())
        else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let carrier = self.carrier.clone().unwrap_or_else(|| self.blade.clone());
        let passage = Passage { principal: principal.clone(), source: self.peer, carrier };
        let client_version = notice::printable(&String::from_utf8_lossy(session.remote_sshid()));
        let arrival = Arrival { principal: principal.clone(), source: self.peer, client_version };
        let (door, first_program) = (self.door.clone(), self.first_program.clone());
        let (handle, state, gone) = (session.handle(), self.session.clone(), self.gone.clone());
        let answer = async move {
            let _place = place;
            let wanted = notice::printable(&destination.to_string());
            let named = async {
                Ok(match access::find_target(&door.app, &destination.host, destination.port).await? {
                    Some(target) => Named::Target(Box::new(target)),
                    None if access::may_forward(&door.app, &arrival, &destination).await? => Named::Granted,
                    None => Named::Nothing,
                })
            };
            match named.await {
                Ok(Named::Target(target)) => {
                    reply.accept().await;
                    jump::serve(door, passage, *target, channel).await;
                }
                Ok(Named::Granted) => {
                    let program = Program::Forward { destination };
                    begin(&first_program, &program);
                    let (read, write) = channel.split();
                    let (start, started) = oneshot::channel();
                    let (_, requests) = mpsc::channel(1);
                    let recording = RecordingId::from_uuid(Uuid::now_v7());
                    // The receiver is in the next line's hands.
                    let _ = start.send((Start { program, pty: None, env: Vec::new() }, recording));
                    let opening = Some(reply);
                    let forward =
                        Incoming { read, write, handle, start: started, requests, opening, session: state, gone };
                    super::channel::run(door, forward).await;
                }
                Ok(Named::Nothing) => {
                    let denial = Denial::DestinationNotGranted;
                    match access::note_forward_refusal(&door.app, &arrival, wanted.clone(), denial).await {
                        Ok(reference) => warn!(%reference, wanted, "A forward was refused."),
                        Err(error) => warn!(%error, wanted, "A forward was refused, which could not be written down."),
                    }
                    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
                }
                Err(error) => {
                    let error: DbError = error;
                    warn!(%error, wanted, "A forward could not be decided on.");
                    reply.reject(ChannelOpenFailure::ConnectFailed).await;
                }
            }
        };
        self.door.connections.spawn(answer.in_current_span());
        Ok(())
    }
}

/// What the destination of a forward is.
enum Named {
    Target(Box<Target>),
    /// A place that a grant names.
    Granted,
    Nothing,
}

/// Tells the session which program was asked for first.
fn begin(first_program: &watch::Sender<Option<Program>>, program: &Program) {
    first_program.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert_with(|| program.clone());
        is_first
    });
}

impl Handler for Client {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        if self.door.health.ask(&self.door.app).await {
            return Ok(None);
        }
        let text =
            "sallyport: the bastion cannot reach its database, so it cannot let anybody in. Try again in a minute.\r\n";
        Ok(Some(text.to_owned()))
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, russh::Error> {
        match &mut self.login {
            Login::Nobody { claimed, .. } => *claimed = user.chars().take(256).collect(),
            Login::Carried { principal, target } => {
                let Ok(login) = user.parse() else {
                    return Ok(Auth::reject());
                };
                let destination = login_name::Destination::Account { login, target: target.clone() };
                let name = LoginName { principal: principal.name.clone(), destination };
                let principal = principal.clone();
                self.login = Login::Proved { name, principal, method: "none", fingerprint: None };
                return Ok(Auth::Accept);
            }
            Login::Proved { .. } => {}
        }
        Ok(Auth::Reject { proceed_with_methods: Some(methods()), partial_success: false })
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        if !is_strong(offer.algorithm) {
            return Ok(self.reject(user));
        }
        let fingerprint = offer.public_key.fingerprint(HashAlg::Sha256).to_string();
        if let Some(principal) = self.find_by_key(user, &fingerprint).await {
            if let Login::Nobody { offered, .. } = &mut self.login {
                *offered = Some(Offered { user: user.to_owned(), fingerprint, principal });
            }
            return Ok(Auth::Accept);
        }
        // A certificate looks like its bare key here. Where a CA is trusted every key may go on to its proof, which
        // `auth_openssh_certificate` or `auth_publickey` then judges.
        if self.door.trusted_cas.is_empty() { Ok(self.reject(user)) } else { Ok(Auth::Accept) }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        if !is_strong(key.algorithm) {
            return Ok(self.reject(user));
        }
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        let offered = match &mut self.login {
            Login::Nobody { offered, .. } => offered.take(),
            Login::Carried { .. } | Login::Proved { .. } => None,
        };
        let offered = offered.filter(|offered| offered.user == user && offered.fingerprint == fingerprint);
        let principal = match offered {
            Some(offered) => Some(offered.principal),
            None => self.find_by_key(user, &fingerprint).await,
        };
        Ok(match principal {
            Some(principal) => self.accept(user, principal, "publickey", Some(fingerprint)),
            None => self.reject(user),
        })
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, russh::Error> {
        Ok(match self.find_by_certificate(user, certificate).await {
            Some(principal) => self.accept(user, principal, "certificate", None),
            None => self.reject(user),
        })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let name = user.parse::<LoginName>().ok().map(|name| name.principal);
        let password = PrincipalPassword::new(password);
        let found = logins::by_password(&self.door.app, name.as_ref(), password).await;
        Ok(match self.unless_failed(found) {
            Some(principal) => self.accept(user, principal, "password", None),
            None => {
                // Each guess counts; of keys a client may hold several, so they count once a connection.
                if let Some(slot) = &mut self.slot {
                    slot.failed(Instant::now());
                }
                self.reject(user)
            }
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        let (Login::Proved { name, principal, method, fingerprint }, Some(state)) = (&self.login, self.state.take())
        else {
            // russh says that somebody is in whom nobody here has let in.
            error!("A connection was authenticated without a proof; it is cut.");
            self.blade.cut();
            return Ok(());
        };
        if let Some(slot) = &mut self.slot {
            slot.authenticated();
        }
        self.proved.notify_one();
        info!(principal = %principal.name, method, "A person logged in.");
        let client_version = notice::printable(&String::from_utf8_lossy(session.remote_sshid()));
        let arrival = Arrival { principal: principal.clone(), source: self.peer, client_version };
        let client = ClientConnection {
            handle: session.handle(),
            blade: self.blade.clone(),
            carrier: self.carrier.clone(),
            gone: self.gone.clone(),
        };
        let (door, destination) = (self.door.clone(), name.destination.clone());
        let first_program = self.first_program.subscribe();
        let (method, fingerprint, carried) = (*method, fingerprint.clone(), self.carrier.is_some());
        let task = async move {
            // The login was the outer connection's.
            let noted = if carried {
                Ok(())
            } else {
                logins::note(&door.app, &arrival.principal, arrival.source, method, fingerprint.as_deref()).await
            };
            if let Err(error) = noted {
                warn!(%error, "A login could not be written down, so it is refused.");
                let lines = vec!["the bastion cannot reach its database, so it cannot let anybody in".to_owned()];
                state.send_replace(SessionState::Refused(Arc::new(session::Refusal { lines })));
                return;
            }
            session::run(door, arrival, destination, client, first_program, state).await;
        };
        // On the connections' tracker: the program's end waits for what it has to write.
        self.door.connections.spawn(task.in_current_span());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // A channel that we closed first is not told of by `channel_close`.
        self.channels.retain(|_, open| !open.requests.is_closed());
        self.opened = self.opened.saturating_add(1);
        if self.channels.len() >= self.door.settings.max_channels as usize || self.opened > MOST_CHANNELS_EVER {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let (start, started) = oneshot::channel();
        let (requests, requested) = mpsc::channel(MOST_REQUESTS);
        let open = Open { state: channel::Channel::new(), start: Some(start), requests };
        self.channels.insert(channel.id(), open);
        let (read, write) = channel.split();
        let incoming = Incoming {
            read,
            write,
            handle: session.handle(),
            start: started,
            requests: requested,
            opening: None,
            session: self.session.clone(),
            gone: self.gone.clone(),
        };
        reply.accept().await;
        self.door.connections.spawn(super::channel::run(self.door.clone(), incoming).in_current_span());
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let port = u16::try_from(port_to_connect).unwrap_or(0);
        if port == 0 {
            reply.reject(ChannelOpenFailure::ConnectFailed).await; // no TCP port, and not the sign of a socket either
            return Ok(());
        }
        self.forward(channel, Destination { host: host_to_connect.to_owned(), port }, reply, session).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.forward(channel, Destination { host: socket_path.to_owned(), port: 0 }, reply, session).await
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        col_width: u32,
        row_height: u32,
        pix_width: u32,
        pix_height: u32,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let pty = Pty {
            term: term.to_owned(),
            size: TerminalSize::from_wire(col_width, row_height),
            pixel_width: pix_width,
            pixel_height: pix_height,
            modes: modes.iter().map(|&(mode, value)| (mode as u8, value)).collect(),
        };
        let accepted = self.open(channel).is_some_and(|open| open.state.request_pty(pty).is_ok());
        answer(session, channel, accepted)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        variable_name: &str,
        variable_value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let door = self.door.clone();
        let allowed = &door.settings.accept_env;
        let accepted = self
            .open(channel)
            .is_some_and(|open| open.state.request_env(variable_name, variable_value, allowed).is_ok());
        answer(session, channel, accepted)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let accepted = self.start(channel, Program::Shell);
        answer(session, channel, accepted)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let accepted = self.start(channel, Program::Exec { command: data.to_vec() });
        answer(session, channel, accepted)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let accepted = self.start(channel, Program::Subsystem { name: name.to_owned() });
        answer(session, channel, accepted)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        col_width: u32,
        row_height: u32,
        pix_width: u32,
        pix_height: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (size, pixels) = (TerminalSize::from_wire(col_width, row_height), (pix_width, pix_height));
        let accepted = self.open(channel).is_some_and(|open| {
            let running = open.start.is_none();
            open.state.change_window(size, pixels).is_ok()
                && (!running || open.requests.try_send(Request::Resize { size, pixels }).is_ok())
        });
        answer(session, channel, accepted)
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, session: &mut Session) -> Result<(), russh::Error> {
        let accepted = self.open(channel).is_some_and(|open| {
            open.state.may_signal().is_ok() && open.requests.try_send(Request::Signal(signal)).is_ok()
        });
        answer(session, channel, accepted)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        answer(session, channel, false)
    }

    async fn agent_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, russh::Error> {
        answer(session, channel, false)?;
        Ok(false)
    }
}

/// Answers a channel request, if it wants an answer (RFC 4254 §5.4).
fn answer(session: &mut Session, channel: ChannelId, accepted: bool) -> Result<(), russh::Error> {
    if accepted { session.channel_success(channel) } else { session.channel_failure(channel) }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Login::Nobody { claimed, tries, .. } = &self.login {
            if *tries == 0 {
                return; // a port scan, or a client that only looked
            }
            if let Some(slot) = &mut self.slot {
                slot.failed(Instant::now());
            }
            let (door, peer, claimed, tries) = (self.door.clone(), self.peer, claimed.clone(), *tries);
            info!(tries, "A connection ended without anybody being proved.");
            let note = async move {
                if let Err(error) = logins::note_refusal(&door.app, peer, &claimed, "ssh").await {
                    warn!(%error, "A refused login could not be written down.");
                }
            };
            self.door.connections.spawn(note.in_current_span());
        }
    }
}
