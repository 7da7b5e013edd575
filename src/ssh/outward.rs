//! Forwards that the bastion itself dials, where the grant says so.
//!
//! A name is resolved once, every address that it has is judged (`domain::forward`), and one of those is dialled: what
//! the name means a moment later does not matter. A name that leads to one forbidden address is refused whole.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use sallyport_domain::channel::Program;
use sallyport_domain::forward::{AddressDenial, Own};
use sallyport_domain::grant::{Destination, ForwardFrom};
use sallyport_domain::policy::Permit;
use sallyport_domain::recording::frame::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Door;
use super::channel::{client_closed, ended, exit, finish_stopped, refused_by_rules, tell_recorded, until};
use super::freeze::Freeze;
use super::input::{InputQueue, Next};
use super::notice;
use super::proxy::{self, Activity, ClientClosed, ClientSide, Orders, ProxyError};
use super::session::Live;
use super::sever::{Blade, Sever};
use crate::app::recordings::{Ending, Recorder};

/// The longest that resolving and connecting may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Addresses of one name that are looked at; a name that has more is refused.
const MOST_ADDRESSES: usize = 32;

/// As many bytes are read from a destination at once.
const READ_BYTES: usize = 32 << 10;

/// Why a destination could not be reached from the bastion.
#[derive(Debug, thiserror::Error)]
enum OutwardError {
    #[error("the bastion makes no connection to `{destination}`: {denial}")]
    Refused { destination: Destination, denial: AddressDenial },
    #[error("the bastion makes no connection to `{destination}`: it has too many addresses to be judged")]
    TooMany { destination: Destination },
    #[error("the bastion makes no connection to `{destination}`: it cannot tell now which addresses are its own")]
    Unsure {
        destination: Destination,
        #[source]
        source: io::Error,
    },
    /// The permit is for another place; only a mistake of ours gets here.
    #[error("nobody permitted a connection from the bastion to `{destination}`")]
    NotPermitted { destination: Destination },
    #[error("the bastion cannot reach `{destination}`")]
    Unreachable {
        destination: Destination,
        #[source]
        source: io::Error,
    },
    #[error("`{destination}` did not answer within {} s", DEADLINE.as_secs())]
    TimedOut { destination: Destination },
}

impl OutwardError {
    /// Whether it must not be, rather than cannot.
    fn is_refusal(&self) -> bool {
        match self {
            OutwardError::Refused { .. }
            | OutwardError::TooMany { .. }
            | OutwardError::Unsure { .. }
            | OutwardError::NotPermitted { .. } => true,
            OutwardError::Unreachable { .. } | OutwardError::TimedOut { .. } => false,
        }
    }
}

/// Runs a forward from the bastion until one side ends it. Recorded as any other.
#[expect(clippy::too_many_arguments, reason = "called once; a struct would only name them twice")]
pub async fn run(
    door: &Door,
    live: &Live,
    client: &ClientSide,
    destination: &Destination,
    recorder: &Arc<Recorder>,
    queue: &Arc<InputQueue>,
    mut input: Option<JoinHandle<Option<Result<ClientClosed, ProxyError>>>>,
    done: CancellationToken,
) -> Result<Ending, ProxyError> {
    let Orders { stop, cut, notes: _, freeze } = live.orders();
    let permit = live.permit();
    let mut still = freeze.clone();
    let dialled = async {
        still.thawed().await;
        let dialled = dial(door, &permit, destination, live.targets.blade());
        tokio::time::timeout(DEADLINE, dialled).await
    };
    let dialled = tokio::select! {
        dialled = dialled => dialled.unwrap_or_else(|_| {
            Err(OutwardError::TimedOut { destination: destination.clone() })
        }),
        closed = ended(&mut input) => return closed.map(|()| client_closed()),
        () = stop.cancelled() => return finish_stopped(client, None, recorder, &cut, false).await,
    };
    let stream = match dialled {
        Ok(stream) => stream,
        Err(error) if error.is_refusal() => {
            let reason = proxy::chain(&error);
            for line in &refused_by_rules(door, live, "forward", &reason).await {
                tell_recorded(client, recorder, false, line).await?;
            }
            // The answer that the client is due says that it is prohibited, once it is dropped.
            return Ok(Ending { how: "cut".to_owned(), reason: Some(reason) });
        }
        Err(error) => {
            let reason = proxy::chain(&error);
            tell_recorded(client, recorder, false, &notice::printable(&reason)).await?;
            client.fail().await;
            return Ok(Ending { how: "target unreachable".to_owned(), reason: Some(reason) });
        }
    };
    client.accept().await;
    let (from, to) = tokio::io::split(stream);
    let mut feeder = Some(live.channels.spawn(until(done, feed(queue.clone(), to, freeze.clone()))));
    let output = pump_output(from, client, recorder, &live.activity, freeze);
    tokio::pin!(output);
    let mut output_ended = false;
    while !output_ended || feeder.is_some() {
        tokio::select! {
            end = &mut output, if !output_ended => match end? {
                OutwardEnd::Ended => output_ended = true,
                OutwardEnd::ClientGone => return Ok(client_closed()),
            },
            closed = ended(&mut input), if input.is_some() => return closed.map(|()| client_closed()),
            fed = ended(&mut feeder), if feeder.is_some() => fed?,
            () = stop.cancelled() => return finish_stopped(client, None, recorder, &cut, false).await,
        }
    }
    exit(client, 0).await;
    Ok(Ending { how: "closed".to_owned(), reason: None })
}

enum OutwardEnd {
    /// The destination sends no more.
    Ended,
    ClientGone,
}

/// Carries what the destination sends to the client: record, then send on.
async fn pump_output(
    mut from: ReadHalf<Sever<TcpStream>>,
    client: &ClientSide,
    recorder: &Recorder,
    activity: &Activity,
    mut freeze: Freeze,
) -> Result<OutwardEnd, ProxyError> {
    let mut buffer = BytesMut::new();
    loop {
        freeze.thawed().await;
        buffer.reserve(READ_BYTES);
        // A connection that broke is one that has ended; a cut one is told of by the session.
        let count = from.read_buf(&mut buffer).await.unwrap_or(0);
        activity.touch();
        freeze.thawed().await; // it may have frozen while nothing came
        if count == 0 {
            recorder.record(vec![Body::OutputEnd]).await?;
            let told = client.write.eof().await;
            return Ok(if told.is_ok() { OutwardEnd::Ended } else { OutwardEnd::ClientGone });
        }
        let bytes = buffer.split().freeze();
        recorder.record(vec![Body::Output(bytes.clone())]).await?;
        if client.write.data_bytes(bytes).await.is_err() {
            return Ok(OutwardEnd::ClientGone);
        }
    }
}

/// Feeds the destination from the queue. Returns when everything was fed, or the destination takes no more.
async fn feed(
    queue: Arc<InputQueue>,
    mut to: WriteHalf<Sever<TcpStream>>,
    mut freeze: Freeze,
) -> Result<(), ProxyError> {
    loop {
        match queue.next().await? {
            Next::Bytes(batch) => {
                for bytes in batch {
                    freeze.thawed().await;
                    if to.write_all(&bytes).await.is_err() {
                        return Ok(());
                    }
                    queue.taken(bytes.len());
                }
            }
            Next::End => {
                freeze.thawed().await;
                let _ = to.shutdown().await; // it may have gone, and the output shows it
                return Ok(());
            }
        }
    }
}

/// Connects to what `permit` lets be reached from the bastion. `blade` cuts the connection.
async fn dial(
    door: &Door,
    permit: &Permit,
    destination: &Destination,
    blade: Blade,
) -> Result<Sever<TcpStream>, OutwardError> {
    let program = Program::Forward { destination: destination.clone() };
    let from_bastion = permit.terms().forwarding.from == ForwardFrom::Bastion && !destination.is_socket();
    if !from_bastion || permit.allows(&program).is_err() {
        return Err(OutwardError::NotPermitted { destination: destination.clone() });
    }
    let unreachable = |source| OutwardError::Unreachable { destination: destination.clone(), source };
    let own = own(door).await;
    let own = own.map_err(|source| OutwardError::Unsure { destination: destination.clone(), source })?;
    let found = lookup_host((destination.host.as_str(), destination.port)).await.map_err(unreachable)?;
    let addresses: Vec<SocketAddr> = found.take(MOST_ADDRESSES + 1).collect();
    if addresses.len() > MOST_ADDRESSES {
        return Err(OutwardError::TooMany { destination: destination.clone() });
    }
    for address in &addresses {
        let judged = own.judge(*address);
        judged.map_err(|denial| OutwardError::Refused { destination: destination.clone(), denial })?;
    }
    // By address: nothing is resolved again.
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(Sever::new(stream, blade))
}

/// What the bastion must not be led to, as it is now.
async fn own(door: &Door) -> io::Result<Own> {
    let mut addresses: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?.filter_map(|found| ip(&found)).collect();
    if let Some(host) = &door.settings.public_host
        && let Ok(public) = lookup_host((host.as_str(), 0)).await
    {
        // A name that is known outside only leads nowhere from here.
        addresses.extend(public.map(|address| address.ip()));
    }
    let services = match door.app.db.server() {
        Some((host, port)) => lookup_host((host.as_str(), port)).await?.collect(),
        None => Vec::new(),
    };
    Ok(Own { addresses, services, allowed: door.settings.forward_networks.clone() })
}

fn ip(found: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = found.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
