//! `ssh -J`: a forwarded connection to a target's SSH server (RFC 4254 §7.2) is answered here, by an SSH server of the
//! bastion's own on the channel's stream, so that no byte passes it unparsed.
//!
//! ```text
//! client's outer connection ── "direct-tcpip" ──► Bridge ──► russh ──► Client (handler.rs), as for any connection
//! ```
//!
//! The person is proved by the outer connection; the inner user name is the login on the target, so "none" suffices (RFC 4252
//! §5.2). Whether the login is permitted is `session`'s question, as always, and asked anew for each connection. The
//! inner host key is the target's own, certified by the bastion's host CA: one `@cert-authority` line makes every target
//! known.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Certificate, PrivateKey};
use russh::server::{Config, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use sallyport_domain::target::Target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use super::algorithms::Ciphers;
use super::handler::{Client, Passage};
use super::sever::{Blade, Sever, Severable};
use super::{Door, algorithms, listener};

/// Packets that the client may be ahead of the inner connection, which does not read while it writes. What the client can
/// have sent before it takes what we write is bounded by the sockets' buffers; this is more, and whoever fills it
/// does not read at all.
const MOST_AHEAD: usize = 512;

/// How long a target's certificate is valid, each way: it is made for one connection, and clocks differ.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the client may take to hear that the stream is closed.
const CLOSE: Duration = Duration::from_secs(2);

/// Answers the forwarded connection `channel`, which the client opened to `target`, until it ends.
pub async fn serve(door: Arc<Door>, passage: Passage, target: Target, channel: Channel<Msg>) {
    let span = info_span!("jump", to = %target.name);
    serve_on(door, passage, target, channel).instrument(span).await;
}

async fn serve_on(door: Arc<Door>, passage: Passage, target: Target, channel: Channel<Msg>) {
    let config = match config(&door, &target) {
        Ok(config) => config,
        Err(error) => {
            warn!(%error, "The target's host key could not be certified, so the connection is refused.");
            return;
        }
    };
    let (read, write) = channel.split();
    let (blade, gone, proved) = (Blade::default(), CancellationToken::new(), Arc::new(Notify::new()));
    let client = Client::through(door.clone(), passage, target.name, blade.clone(), gone.clone(), proved.clone());
    let (ahead, incoming) = mpsc::channel(MOST_AHEAD);
    let ended = gone.clone();
    door.connections.spawn(take(read, ahead, blade.clone(), ended).in_current_span());
    let bridge = Bridge { incoming, current: Bytes::new(), outgoing: Box::pin(write.make_writer()) };
    let config = |ciphers| Arc::new(Config { preferred: algorithms::for_clients(ciphers), ..config });
    listener::carry(&door, config, Sever::new(bridge, blade.clone()), client, &blade, &gone, &proved).await;
    let close = async {
        let _ = write.eof().await; // a client that has gone needs no goodbye
        let _ = write.close().await;
    };
    let _ = tokio::time::timeout(CLOSE, close).await; // nor does one that does not read
}

/// Takes whatever arrives at once, or the whole outer connection would wait.
async fn take(mut read: ChannelReadHalf, ahead: mpsc::Sender<Bytes>, blade: Blade, ended: CancellationToken) {
    loop {
        let message = tokio::select! {
            message = read.wait() => message,
            // Goes on taking: what still comes is nobody's.
            () = ended.cancelled() => {
                while read.wait().await.is_some_and(|message| !matches!(message, ChannelMsg::Close)) {}
                return;
            }
        };
        match message {
            Some(ChannelMsg::Data { data }) => match ahead.try_send(data) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    warn!("The client sends without reading; its forwarded connection is cut.");
                    blade.cut();
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {} // it has ended, and `ended` will say so
            },
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return, // the bridge reads to its end
            Some(_) => {}
        }
    }
}

/// As the outer door, but with the target's host key.
fn config(door: &Door, target: &Target) -> Result<Config, russh::keys::ssh_key::Error> {
    let (_, key) = door.target_keys.of(target.id).ok_or(russh::keys::ssh_key::Error::Crypto)?;
    let key = PrivateKey::from_openssh(key.expose())?;
    let certificate = certify(door, target, &key)?;
    Ok(Config {
        keys: vec![key],
        certificates: vec![certificate],
        auth_rejection_time: Duration::ZERO, // nothing can be guessed here
        keepalive_interval: None,            // the outer connection has its own
        ..listener::config(door, Ciphers::All)
    })
}

/// A host certificate (PROTOCOL.certkeys) for every name by which an engineer may call the target.
fn certify(door: &Door, target: &Target, key: &PrivateKey) -> Result<Certificate, russh::keys::ssh_key::Error> {
    // Before 1970 nothing is valid anyway.
    let now = u64::try_from(door.app.clock.now().timestamp()).unwrap_or_default();
    let (from, until) = (now.saturating_sub(CERTIFICATE_LIFE.as_secs()), now + CERTIFICATE_LIFE.as_secs());
    let mut builder = Builder::new_with_random_nonce(&mut rand::rng(), key.public_key(), from, until)?;
    builder.cert_type(CertType::Host)?.key_id(target.name.as_str())?;
    for name in target.names() {
        builder.valid_principal(name.as_str())?;
    }
    builder.valid_principal(target.address.host())?;
    builder.sign(door.authorities.host_ca().as_ref())
}

/// A forwarded connection as a stream.
struct Bridge {
    incoming: mpsc::Receiver<Bytes>,
    /// What is left of the packet that was taken last.
    current: Bytes,
    outgoing: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Severable for Bridge {
    fn discard_undelivered(&self) {} // the outer connection delivers it, or is cut itself
}

impl AsyncRead for Bridge {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.incoming.poll_recv(cx)) {
                Some(bytes) => self.current = bytes,
                None => return Poll::Ready(Ok(())), // the end of the stream
            }
        }
        let length = self.current.len().min(buf.remaining());
        buf.put_slice(self.current.get(..length).unwrap_or_default());
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bridge {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.outgoing.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.as_mut().poll_shutdown(cx)
    }
}
