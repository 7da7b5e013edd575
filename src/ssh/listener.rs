//! The accept loop: a place for each connection, a deadline for each login, and never an end but the program's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use nix::sys::socket::{setsockopt, sockopt};
use russh::server::Config;
use russh::{Limits as RekeyLimits, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::algorithms::Ciphers;
use super::greeting::IDENTIFICATION;
use super::handler::Client;
use super::limits::Slot;
use super::sever::{Blade, Sever, Severable};
use super::{Door, algorithms, greeting};
use crate::app::metrics::Counted;
use crate::proxy_protocol;

/// How long the kernel tries to deliver to a peer that does not acknowledge, before it gives the connection up. A peer
/// that acknowledges but does not read is another matter: its grant ends it.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Connections from load balancers whose headers have not come, at most.
const MOST_HEADERS: usize = 256;

/// After an accept that failed (no file descriptors, say) the loop takes breath.
const BREATH: Duration = Duration::from_millis(100);

/// A rejected try takes this long, whatever was wrong with it. A password costs its hash on top, for a name that is
/// unknown too.
const REJECTION: Duration = Duration::from_millis(50);

/// Takes connections until the door shuts.
pub async fn serve(door: Arc<Door>, listener: TcpListener) {
    let configs = Arc::new(Configs::new(&door));
    let headers = Arc::new(Semaphore::new(MOST_HEADERS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.shut.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => receive(&door, &configs, &headers, stream, peer),
            Err(error) => {
                warn!(%error, "A connection could not be accepted.");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    // Whom the kernel has let in already would be reset with the socket.
    while !door.closing.is_cancelled()
        && let Some(Ok((stream, peer))) = listener.accept().now_or_never()
    {
        receive(&door, &configs, &headers, stream, peer);
    }
}

/// Takes a connection from the network, or one that a load balancer passes on, once it has said whom it is from.
fn receive(
    door: &Arc<Door>,
    configs: &Arc<Configs>,
    headers: &Arc<Semaphore>,
    mut stream: TcpStream,
    peer: SocketAddr,
) {
    if !proxy_protocol::is_from(&door.settings.proxy_protocol_from, peer.ip()) {
        return admit(door, configs, stream, peer);
    }
    let Ok(place) = headers.clone().try_acquire_owned() else {
        info!(%peer, "A connection was closed: too many wait for their PROXY headers.");
        return;
    };
    let (door, configs) = (door.clone(), configs.clone());
    let tracker = door.connections.clone();
    tracker.spawn(async move {
        let read = tokio::select! {
            read = proxy_protocol::read_header(&mut stream, peer) => read,
            () = door.closing.cancelled() => return,
        };
        drop(place);
        match read {
            Ok(client) => admit(&door, &configs, stream, client),
            Err(error) => info!(%peer, %error, "A connection from a load balancer was closed."),
        }
    });
}

/// What the door speaks and puts up with, for either kind of client.
struct Configs {
    gcm: Arc<Config>,
    all: Arc<Config>,
}

impl Configs {
    fn new(door: &Door) -> Self {
        Self { gcm: Arc::new(config(door, Ciphers::Gcm)), all: Arc::new(config(door, Ciphers::All)) }
    }

    fn of(&self, ciphers: Ciphers) -> Arc<Config> {
        match ciphers {
            Ciphers::Gcm => self.gcm.clone(),
            Ciphers::All => self.all.clone(),
        }
    }
}

/// What every server side of ours speaks and puts up with.
pub fn config(door: &Door, ciphers: Ciphers) -> Config {
    let settings = &door.settings;
    let rekey = usize::try_from(settings.rekey_bytes.as_u64()).unwrap_or(usize::MAX);
    Config {
        server_id: SshId::Raw(IDENTIFICATION.into()),
        auth_rejection_time: REJECTION,
        // The first "none" only asks for the methods.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![door.host_key.clone()],
        limits: RekeyLimits { rekey_write_limit: rekey, rekey_read_limit: rekey, ..RekeyLimits::default() },
        window_size: algorithms::WINDOW_BYTES,
        maximum_packet_size: algorithms::PACKET_BYTES,
        channel_buffer_size: algorithms::CHANNEL_QUEUE,
        preferred: algorithms::for_clients(ciphers),
        max_auth_attempts: settings.max_auth_tries as usize,
        inactivity_timeout: None, // keep-alives find those who are gone; whoever thinks is welcome
        keepalive_interval: Some(settings.keepalive),
        keepalive_max: settings.keepalive_max as usize,
        nodelay: true,
        ..Config::default()
    }
}

fn admit(door: &Arc<Door>, configs: &Arc<Configs>, stream: TcpStream, peer: SocketAddr) {
    let slot = match door.limits.admit(peer.ip(), Instant::now()) {
        Ok(slot) => slot,
        Err(reason) => {
            info!(%peer, %reason, "A connection was closed.");
            door.app.metrics.ssh_connections_refused.get_or_create(&[("reason", reason.as_str())]).inc();
            return; // dropping the stream closes it
        }
    };
    let span = info_span!("connection", %peer);
    let task = connection(door.clone(), configs.clone(), stream, peer, slot).instrument(span);
    door.connections.spawn(task);
}

async fn connection(door: Arc<Door>, configs: Arc<Configs>, stream: TcpStream, peer: SocketAddr, slot: Slot) {
    let _counted = Counted::new(&door.app.metrics.ssh_connections);
    let milliseconds = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    let prepared = stream.set_nodelay(true).and_then(|()| {
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        Ok(setsockopt(&stream, sockopt::TcpUserTimeout, &milliseconds)?)
    });
    if let Err(error) = prepared {
        debug!(%error, "The socket's options could not be set; the peer has probably gone.");
    }
    let (blade, gone, proved) = (Blade::default(), CancellationToken::new(), Arc::new(Notify::new()));
    let client = Client::new(door.clone(), peer, slot, blade.clone(), gone.clone(), proved.clone());
    let config = |ciphers| configs.of(ciphers);
    carry(&door, config, Sever::of_client(stream, blade.clone()), client, &blade, &gone, &proved).await;
}

/// Carries one connection to its end: it must prove somebody in time, and is over when its stream is. `config` is that for a
/// client that is offered these ciphers.
pub async fn carry<S>(
    door: &Door,
    config: impl FnOnce(Ciphers) -> Arc<Config>,
    stream: Sever<S>,
    client: Client,
    blade: &Blade,
    gone: &CancellationToken,
    proved: &Notify,
) where
    S: Severable + 'static,
{
    // Dropping a running connection stops nothing: the guard tells its channels and its session.
    let _guard = gone.clone().drop_guard();
    let grace = tokio::time::sleep(door.settings.login_grace);
    tokio::pin!(grace);
    let begin = async {
        let (stream, ciphers) = greeting::greet(stream).await?;
        russh::server::run_stream(config(ciphers), stream, client).await
    };
    let running = tokio::select! {
        running = begin => running,
        () = &mut grace => return,
        () = door.closing.cancelled() => return,
    };
    let mut running = match running {
        Ok(running) => running,
        Err(error) => {
            debug!(%error, "The connection ended before it was one.");
            return;
        }
    };
    let mut stranger = true;
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            () = proved.notified(), if stranger => stranger = false,
            () = &mut grace, if stranger => {
                info!("The connection did not log in in time.");
                blade.cut();
                stranger = false;
            }
            // Sessions say goodbye themselves; a stranger has none.
            () = door.closing.cancelled(), if stranger => {
                blade.cut();
                stranger = false;
            }
        }
    };
    match ended {
        Ok(()) => debug!("The connection has ended."),
        Err(error) => debug!(%error, "The connection broke."),
    }
}
