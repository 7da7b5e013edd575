//! One client connection as russh hands it over: who is proved (RFC 4252, by `auth`), and which channel requests are legal
//! (RFC 4254, by `domain::channel`).
//!
//! Callbacks hand over and return, for the whole connection waits for them. Every request that wants a reply gets one
//! here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};
use sallyport_domain::channel::{self, Program, Pty, TerminalSize};
use sallyport_domain::grant::Destination;
use sallyport_domain::id::RecordingId;
use sallyport_domain::login_name::{self, LoginName};
use sallyport_domain::name::TargetName;
use sallyport_domain::policy::Denial;
use sallyport_domain::target::Target;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};
use uuid::Uuid;

use super::Door;
use super::auth::{Authentication, Proved};
use super::channel::Incoming;
use super::front::Front;
use super::jump;
use super::limits::Slot;
use super::notice;
use super::proxy::{Request, Start};
use super::refusals::Refusals;
use super::session::{self, ClientConnection, First, SessionState};
use super::sever::Blade;
use crate::app::DbError;
use crate::app::access::{self, Arrival};
use crate::app::logins;
use crate::spans::{self, Spanned};

/// Resizes and signals that wait for one channel's recorder; what is more is refused.
const MOST_REQUESTS: usize = 64;

/// Channels that one connection may open in all: russh keeps some 3 KB of each that we closed first.
const MOST_CHANNELS_EVER: u32 = 20_000;

/// How somebody who was proved on one connection comes to another that runs through it (`ssh -J`).
pub struct Passage {
    pub proved: Proved,
    pub source: SocketAddr,
    /// Cuts the connection on which the person was proved.
    pub carrier: Blade,
    /// The places of that connection: one jump through another must not multiply them.
    pub forwards: Arc<Semaphore>,
    pub span: Spanned,
}

/// Our side of one client connection.
pub struct Client {
    door: Arc<Door>,
    peer: SocketAddr,
    blade: Blade,
    /// Set when the connection has ended.
    gone: CancellationToken,
    /// Told when somebody was proved.
    proved: Arc<Notify>,
    entry: Entry,
    channels: HashMap<ChannelId, Open>,
    /// Session channels that were ever asked for.
    opened: u32,
    /// Places for forwarded connections, of this one and all that run through it.
    forwards: Arc<Semaphore>,
    session: watch::Receiver<SessionState>,
    /// Moves to the session's task once somebody is proved.
    state: Option<watch::Sender<SessionState>>,
    /// What the session is opened for, for a decision that depends on it.
    first: watch::Sender<Option<First>>,
    /// Receives the session channels of a login that names no target.
    front: Option<Arc<Front>>,
    refusals: Refusals,
    span: Spanned,
}

/// By which way a connection came.
enum Entry {
    /// From outside: it must prove somebody.
    Outside(Authentication),
    /// Through a connection on which the person was proved. The user name says the login at `target`, and "none" is enough.
    Carried { outer: Proved, target: TargetName, carrier: Blade, inner: Option<Proved> },
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
        let span = spans::connection();
        let entry = Entry::Outside(Authentication::new(door.clone(), peer, slot, spans::login(&span)));
        let forwards = Arc::new(Semaphore::new(door.settings.max_channels as usize));
        Self { span, ..Self::with(door, peer, entry, forwards, blade, gone, proved) }
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
        let Passage { proved: outer, source, carrier, forwards, span } = passage;
        let entry = Entry::Carried { outer, target, carrier, inner: None };
        Self { span: spans::jump(&span), ..Self::with(door, source, entry, forwards, blade, gone, proved) }
    }

    fn with(
        door: Arc<Door>,
        peer: SocketAddr,
        entry: Entry,
        forwards: Arc<Semaphore>,
        blade: Blade,
        gone: CancellationToken,
        proved: Arc<Notify>,
    ) -> Self {
        let (state, session) = watch::channel(SessionState::Opening);
        let (channels, first, front) = (HashMap::new(), watch::Sender::new(None), None);
        let (state, refusals) = (Some(state), Refusals::default());
        Self {
            door,
            peer,
            blade,
            gone,
            proved,
            entry,
            channels,
            opened: 0,
            forwards,
            session,
            state,
            first,
            front,
            refusals,
            span: Spanned::none(),
        }
    }

    /// Who must prove somebody; `None` where somebody is proved already.
    fn stranger(&mut self) -> Option<&mut Authentication> {
        match &mut self.entry {
            Entry::Outside(authentication) => Some(authentication),
            Entry::Carried { .. } => None,
        }
    }

    /// Who was proved, if anybody was.
    fn admit(&mut self) -> Option<Proved> {
        match &mut self.entry {
            Entry::Outside(authentication) => authentication.admit(),
            Entry::Carried { inner, .. } => inner.clone(),
        }
    }

    /// What cuts the connection that carries this one, if one does.
    fn carrier(&self) -> Option<Blade> {
        match &self.entry {
            Entry::Outside(_) => None,
            Entry::Carried { carrier, .. } => Some(carrier.clone()),
        }
    }

    /// Who was `proved`, and from where they came.
    fn arrival(&self, proved: &Proved, session: &Session) -> Arrival {
        let client_version = notice::printable(&String::from_utf8_lossy(session.remote_sshid()));
        let (principal, factors) = (proved.principal.clone(), proved.factors);
        Arrival { principal, factors, source: self.peer, client_version }
    }

    /// Has it written down that `wish` is refused, whatever the grant says.
    async fn refuse(&mut self, wish: &str, session: &mut Session) {
        // Before anybody is proved russh asks for no channel.
        if let Some(proved) = self.admit() {
            let arrival = self.arrival(&proved, session);
            self.refusals.note(&self.door, arrival, &self.session, wish).await;
        }
    }

    fn open(&mut self, channel: ChannelId) -> Option<&mut Open> {
        self.channels.get_mut(&channel)
    }

    /// Starts the program on a channel, if that is legal now.
    fn start(&mut self, channel: ChannelId, program: Program) -> bool {
        let recording = RecordingId::from_uuid(Uuid::now_v7());
        // The front knows better what is meant.
        let first = if self.front.is_none() { Some(self.first.clone()) } else { None };
        let Some(open) = self.open(channel) else {
            return false;
        };
        match open.state.start(program.clone(), recording) {
            Ok((pty, env)) => {
                if let Some(first) = first {
                    begin(&first, &program);
                }
                let start = Start { program, pty, env, ahead: Bytes::new(), ahead_is_all: false };
                open.start.take().is_some_and(|sender| sender.send((start, recording)).is_ok())
            }
            Err(error) => {
                debug!(%error, "A channel request was refused.");
                false
            }
        }
    }
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
        let (Some(proved), Ok(place)) = (self.admit(), self.forwards.clone().try_acquire_owned()) else {
            self.refuse(&format!("one forward too many at once, to {destination}"), session).await;
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let carrier = self.carrier().unwrap_or_else(|| self.blade.clone());
        let arrival = self.arrival(&proved, session);
        let passage =
            Passage { proved, source: self.peer, carrier, forwards: self.forwards.clone(), span: self.span.clone() };
        let (door, first) = (self.door.clone(), self.first.clone());
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
                    begin(&first, &program);
                    let (read, write) = channel.split();
                    let (start, started) = oneshot::channel();
                    let (_, requests) = mpsc::channel(1);
                    let recording = RecordingId::from_uuid(Uuid::now_v7());
                    // The receiver is in the next line's hands.
                    let (pty, env, ahead) = (None, Vec::new(), Bytes::new());
                    let _ = start.send((Start { program, pty, env, ahead, ahead_is_all: false }, recording));
                    let opening = Some(reply);
                    let (start, session, front) = (started, state, None);
                    let forward = Incoming { read, write, handle, start, requests, opening, session, front, gone };
                    super::channel::run(door, forward).await;
                }
                Ok(Named::Nothing) => {
                    let denial = Denial::DestinationNotGranted;
                    match access::note_denial(&door.app, &arrival, wanted.clone(), denial).await {
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
fn begin(first: &watch::Sender<Option<First>>, program: &Program) {
    first.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert_with(|| First { program: program.clone(), chosen: None });
        is_first
    });
}

impl Handler for Client {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        if self.door.health.ask(&self.door.app).await {
            return Ok(None);
        }
        let text = match self.door.break_glass.opened() {
            None => {
                "sallyport: the bastion cannot reach its database, so it cannot let anybody in. Try again in a minute.\r\n"
            }
            Some(_) => {
                "sallyport: the bastion cannot reach its database. A break-glass envelope is open: only whom it names is let in.\r\n"
            }
        };
        Ok(Some(text.to_owned()))
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, russh::Error> {
        Ok(match &mut self.entry {
            Entry::Outside(authentication) => authentication.none(user),
            Entry::Carried { outer, target, inner, .. } => {
                let Ok(login) = user.parse() else {
                    return Ok(Auth::reject());
                };
                let destination = login_name::Destination::Account { login, target: target.clone() };
                let name = LoginName { principal: outer.principal.name.clone(), destination };
                *inner = Some(Proved { name, ..outer.clone() });
                Auth::Accept
            }
        })
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(match self.stranger() {
            Some(authentication) => authentication.key_offered(user, offer).await,
            None => Auth::reject(),
        })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(match self.stranger() {
            Some(authentication) => authentication.key(user, key).await,
            None => Auth::reject(),
        })
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, russh::Error> {
        Ok(match self.stranger() {
            Some(authentication) => authentication.certificate(user, certificate).await,
            None => Auth::reject(),
        })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(match self.stranger() {
            Some(authentication) => authentication.password(user, password).await,
            None => Auth::reject(),
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        Ok(match (self.stranger(), response) {
            (Some(authentication), None) => authentication.converse(user),
            (Some(authentication), Some(answers)) => authentication.answered(user, answers).await,
            (None, _) => Auth::reject(),
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        let (Some(proved), Some(state)) = (self.admit(), self.state.take()) else {
            // russh says that somebody is in whom nobody here has let in.
            error!("A connection was authenticated without a proof; it is cut.");
            self.blade.cut();
            return Ok(());
        };
        if let Entry::Outside(authentication) = &self.entry {
            self.door = authentication.door();
        }
        let arrival = self.arrival(&proved, session);
        let Proved { name, principal, factors, fingerprint } = proved;
        self.proved.notify_one();
        let method = factors.as_str();
        info!(principal = %principal.name, method, "A person logged in.");
        let (carrier, gone) = (self.carrier(), self.gone.clone());
        let carried = carrier.is_some();
        let (blade, span) = (self.blade.clone(), self.span.clone());
        let client = ClientConnection { handle: session.handle(), blade, carrier, gone, span };
        let (door, destination) = (self.door.clone(), name.destination);
        let first = self.first.subscribe();
        // What the front writes down would not come to the books from behind the glass.
        if destination == login_name::Destination::Unsaid && !door.is_behind_glass {
            self.front = Some(Arc::new(Front::new(arrival.clone(), self.first.clone())));
        }
        let front = self.front.clone();
        let task = async move {
            // The login was the outer connection's.
            let noted = if carried {
                Ok(())
            } else {
                let noted = logins::note(&door.app, &arrival.principal, arrival.source, method, fingerprint.as_deref());
                Box::pin(noted).await
            };
            if let Err(error) = noted {
                warn!(%error, "A login could not be written down, so it is refused.");
                let lines = vec!["the bastion cannot reach its database, so it cannot let anybody in".to_owned()];
                state.send_replace(SessionState::Refused(Arc::new(session::Refusal { lines })));
                return;
            }
            session::run(door, arrival, destination, client, first, front, state).await;
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
            front: self.front.clone(),
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
            self.refuse(&format!("a forward to {host_to_connect}:{port_to_connect}"), session).await;
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
        self.refuse("x11-req", session).await;
        answer(session, channel, false)
    }

    async fn agent_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, russh::Error> {
        self.refuse("auth-agent-req@openssh.com", session).await;
        answer(session, channel, false)?;
        Ok(false)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.refuse(&format!("tcpip-forward {address}:{port}"), session).await;
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, socket_path: &str, session: &mut Session) -> Result<bool, russh::Error> {
        self.refuse(&format!("streamlocal-forward@openssh.com {socket_path}"), session).await;
        Ok(false)
    }
}

/// Answers a channel request, if it wants an answer (RFC 4254 §5.4).
fn answer(session: &mut Session, channel: ChannelId, accepted: bool) -> Result<(), russh::Error> {
    if accepted { session.channel_success(channel) } else { session.channel_failure(channel) }
}
