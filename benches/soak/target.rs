//! A target that costs little: an SSH server in this process whose programs are tasks. It lets everybody in.
//!
//! `echo` gives back what it gets, `flood N` prints N bytes a second, `scp -t PLACE` takes files and compares each with what the client is
//! to send (the sink of scp's protocol). Each ends at the end of its input, with status 0.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelMsg, Pty};
use tokio::net::TcpListener;

use crate::traffic;

/// How often a flood prints.
const TICK: Duration = Duration::from_millis(250);

/// Listens on a free port for as long as the process lives; where, and the host key.
pub(crate) async fn start() -> (SocketAddr, PublicKey) {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a host key");
    let public = key.public_key().clone();
    let config = Arc::new(russh::server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::from_millis(10),
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        nodelay: true,
        ..russh::server::Config::default()
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let config = config.clone();
            tokio::spawn(async move {
                // Why a connection ended is seen at the client's end.
                if let Ok(running) = russh::server::run_stream(config, socket, Connection::default()).await {
                    let _ended = running.await;
                }
            });
        }
    });
    (address, public)
}

#[derive(Default)]
struct Connection {
    /// The one channel, until its program starts.
    channel: Option<Channel<Msg>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, _: &str, _: &Certificate) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let Some(channel) = self.channel.take() else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let command = String::from_utf8_lossy(command).into_owned();
        tokio::spawn(async move {
            // A client that went away ends its program.
            let _gone = run(&command, channel).await;
        });
        Ok(())
    }
}

async fn run(command: &str, mut channel: Channel<Msg>) -> Result<(), russh::Error> {
    let status = match command.split(' ').collect::<Vec<_>>()[..] {
        ["echo"] => echo(&mut channel).await?,
        ["flood", rate] => flood(&mut channel, rate.parse().expect("a rate")).await?,
        ["scp", .., _place] => sink(&mut channel).await?,
        _ => 127,
    };
    channel.exit_status(status).await?;
    channel.eof().await?;
    channel.close().await
}

async fn echo(channel: &mut Channel<Msg>) -> Result<u32, russh::Error> {
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => channel.data_bytes(data).await?,
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => {}
        }
    }
    Ok(0)
}

async fn flood(channel: &mut Channel<Msg>, rate: usize) -> Result<u32, russh::Error> {
    let portion = rate / (1000 / TICK.as_millis() as usize);
    let (mut printed, mut ticks) = (0, tokio::time::interval(TICK));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                channel.data_bytes(traffic::flood(printed, portion)).await?;
                printed += portion as u64;
            }
            message = channel.wait() => if matches!(message, None | Some(ChannelMsg::Eof | ChannelMsg::Close)) {
                return Ok(0);
            }
        }
    }
}

/// Takes files: `C0644 LENGTH NAME\n`, the content, a NUL; each step is acknowledged by a NUL. Status 1 if a file is not what it is to be.
async fn sink(channel: &mut Channel<Msg>) -> Result<u32, russh::Error> {
    let (mut buffer, mut wanted): (Vec<u8>, Option<(String, usize)>) = (Vec::new(), None);
    channel.data_bytes(&b"\0"[..]).await?;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => buffer.extend_from_slice(&data),
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => {}
        }
        loop {
            match &wanted {
                None => {
                    let Some(end) = buffer.iter().position(|&byte| byte == b'\n') else { break };
                    let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
                    buffer.drain(..=end);
                    let Some((bytes, name)) = line.strip_prefix("C0644 ").and_then(|rest| rest.split_once(' ')) else {
                        return Ok(1);
                    };
                    wanted = Some((name.to_owned(), bytes.parse().expect("a length")));
                }
                Some((name, bytes)) => {
                    if buffer.len() <= *bytes {
                        break;
                    }
                    let expected = traffic::parse_file_name(name);
                    let expected = expected.map(|(number, file)| traffic::content(number, file, *bytes));
                    if expected.as_deref() != Some(&buffer[..*bytes]) || buffer[*bytes] != 0 {
                        return Ok(1);
                    }
                    buffer.drain(..=*bytes);
                    wanted = None;
                }
            }
            channel.data_bytes(&b"\0"[..]).await?;
        }
    }
    Ok(u32::from(wanted.is_some() || !buffer.is_empty()))
}
