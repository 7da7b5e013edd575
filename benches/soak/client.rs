//! One engineer with one session: connects, does one kind of work until the end is called, and compares every byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};

use russh::{Channel, ChannelMsg, Disconnect};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::traffic;

/// An answer that takes longer than this is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a flooding session's program prints, in bytes a second.
const FLOOD: usize = 16 << 10;
/// The bytes of an uploaded file, and how long the pause between two is.
const FILE: usize = 64 << 10;
const FILE_PAUSE: Duration = Duration::from_secs(5);
/// A word, and the time between its keys.
const WORD: usize = 8;
const KEY_PAUSE: Duration = Duration::from_millis(120);

/// What an engineer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Looks at a terminal in which nothing happens.
    Idle,
    /// Types words, and thinks between them.
    Typing,
    /// Follows a log.
    Flooding,
    /// Copies a file every few seconds.
    Uploading,
}

impl Work {
    /// Of ten engineers five do nothing, three type, one follows a log and one copies files.
    pub(crate) fn of(number: usize) -> Self {
        match number % 10 {
            0..5 => Work::Idle,
            5..8 => Work::Typing,
            8 => Work::Flooding,
            _ => Work::Uploading,
        }
    }

    fn command(self) -> String {
        match self {
            Work::Idle | Work::Typing => "echo".to_owned(),
            Work::Flooding => format!("flood {FLOOD}"),
            Work::Uploading => "scp -t /srv/soak".to_owned(),
        }
    }
}

/// What all engineers share.
pub(crate) struct Office {
    pub(crate) bastion: SocketAddr,
    pub(crate) key: Arc<PrivateKey>,
    /// How many may log in at once.
    pub(crate) doors: Semaphore,
    /// Called at the end: everybody ends their input and leaves.
    pub(crate) end: CancellationToken,
    pub(crate) live: AtomicUsize,
    pub(crate) left: AtomicUsize,
    /// Bytes that were received and were right; bytes that were sent.
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) files: AtomicU64,
    /// How long echoes took since the last look, in microseconds.
    pub(crate) echoes: Mutex<Vec<u64>>,
    /// What went wrong, in words.
    pub(crate) losses: Mutex<Vec<String>>,
}

/// Nobody asks whether it is the right bastion.
struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Works until the end is called; a session that ends otherwise is noted.
pub(crate) async fn work(office: Arc<Office>, number: usize) {
    let work = Work::of(number);
    let mut entered = false;
    let worked = session(&office, number, work, &mut entered).await;
    if entered {
        office.live.fetch_sub(1, Ordering::Relaxed);
    }
    match worked {
        Ok(()) => _ = office.left.fetch_add(1, Ordering::Relaxed),
        Err(error) => {
            let mut losses = office.losses.lock().unwrap_or_else(PoisonError::into_inner);
            losses.push(format!("session {number} ({work:?}): {error}"));
        }
    }
}

async fn session(office: &Office, number: usize, work: Work, entered: &mut bool) -> anyhow::Result<()> {
    let (handle, channel) = {
        let _turn = office.doors.acquire().await?;
        within("the login", log_in(office, work)).await??
    };
    office.live.fetch_add(1, Ordering::Relaxed);
    *entered = true;
    let desk = Desk { office, channel, received: 0 };
    match work {
        Work::Idle => desk.idle().await?,
        Work::Typing => desk.types(number as u64).await?,
        Work::Flooding => desk.floods().await?,
        Work::Uploading => desk.uploads(number).await?,
    }
    handle.disconnect(Disconnect::ByApplication, "", "").await?;
    Ok(())
}

async fn log_in(office: &Office, work: Work) -> anyhow::Result<(Handle<Trusting>, Channel<Msg>)> {
    let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
    let mut handle = client::connect(config, office.bastion, Trusting).await?;
    let key = PrivateKeyWithHashAlg::new(office.key.clone(), None);
    let proved = handle.authenticate_publickey("alice+soak@node-1", key).await?;
    anyhow::ensure!(proved.success(), "the login was refused");
    let mut channel = handle.channel_open_session().await?;
    let mut answers = 1;
    if work != Work::Uploading {
        channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await?;
        answers += 1;
    }
    channel.exec(true, work.command()).await?;
    while answers > 0 {
        match channel.wait().await {
            Some(ChannelMsg::Success) => answers -= 1,
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            other => anyhow::bail!("the program was not started: {other:?}"),
        }
    }
    Ok((handle, channel))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| anyhow::anyhow!("waited {PATIENCE:?} in vain for {what}"))
}

/// A running program's channel.
struct Desk<'a> {
    office: &'a Office,
    channel: Channel<Msg>,
    received: u64,
}

impl Desk<'_> {
    async fn send(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let count = bytes.len() as u64;
        within("room for input", self.channel.data_bytes(bytes)).await??;
        self.office.sent.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// The next output; an error if the session ended.
    async fn output(&mut self) -> anyhow::Result<bytes::Bytes> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    self.received += data.len() as u64;
                    self.office.received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    return Ok(data);
                }
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                other => anyhow::bail!("the session ended with {other:?}"),
            }
        }
    }

    /// Rests; output is not expected, and the end of the session even less. Whether it is time to leave.
    async fn rests(&mut self, time: Duration) -> anyhow::Result<bool> {
        let end = self.office.end.clone();
        tokio::select! {
            () = end.cancelled() => Ok(true),
            () = tokio::time::sleep(time) => Ok(false),
            output = self.output() => {
                let output = output?;
                anyhow::bail!("unexpected output: {}", String::from_utf8_lossy(&output));
            }
        }
    }

    /// Types a key and waits for its echo.
    async fn key(&mut self, key: u8) -> anyhow::Result<()> {
        let start = Instant::now();
        self.send(vec![key]).await?;
        let echo = within("an echo", self.output()).await??;
        anyhow::ensure!(echo[..] == [key], "typed {key}, and got {echo:?}");
        let took = start.elapsed().as_micros() as u64;
        self.office.echoes.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        Ok(())
    }

    async fn idle(mut self) -> anyhow::Result<()> {
        while !self.rests(Duration::from_secs(3600)).await? {}
        self.key(b'.').await?; // it is still there
        self.leaves(|_, _| false).await
    }

    async fn types(mut self, seed: u64) -> anyhow::Result<()> {
        for word in seed.. {
            for key in 0..WORD as u64 {
                self.key(b'a' + ((word + key) % 26) as u8).await?;
                if self.rests(KEY_PAUSE).await? {
                    return self.leaves(|_, _| false).await;
                }
            }
            // Nobody thinks in step with the others.
            if self.rests(Duration::from_millis(2000 + word.wrapping_mul(2_654_435_761) % 4000)).await? {
                break;
            }
        }
        self.leaves(|_, _| false).await
    }

    async fn floods(mut self) -> anyhow::Result<()> {
        let end = self.office.end.clone();
        let is_next = |from, bytes: &[u8]| traffic::flood(from, bytes.len()) == bytes;
        while !end.is_cancelled() {
            let from = self.received;
            let output = within("the flood", self.output()).await??;
            anyhow::ensure!(is_next(from, &output), "the flood has a fault after {from} bytes");
        }
        self.leaves(is_next).await
    }

    async fn uploads(mut self, number: usize) -> anyhow::Result<()> {
        self.acknowledged().await?;
        for file in 0.. {
            self.send(format!("C0644 {FILE} {}\n", traffic::file_name(number, file)).into_bytes()).await?;
            self.acknowledged().await?;
            let mut content = traffic::content(number, file, FILE);
            content.push(0);
            self.send(content).await?;
            self.acknowledged().await?;
            self.office.files.fetch_add(1, Ordering::Relaxed);
            if self.rests(FILE_PAUSE + Duration::from_millis(number as u64 % 1000)).await? {
                break;
            }
        }
        self.leaves(|_, _| false).await
    }

    async fn acknowledged(&mut self) -> anyhow::Result<()> {
        let answer = within("scp's answer", self.output()).await??;
        anyhow::ensure!(answer[..] == [0], "scp at the target says {answer:?}");
        Ok(())
    }

    /// Ends its input and waits for the program's end, with status 0. What still comes must be what `may_come`.
    async fn leaves(mut self, may_come: impl Fn(u64, &[u8]) -> bool) -> anyhow::Result<()> {
        self.channel.eof().await?;
        let mut status = None;
        loop {
            match within("the program's end", self.channel.wait()).await? {
                Some(ChannelMsg::Data { data }) => {
                    let from = self.received;
                    self.received += data.len() as u64;
                    self.office.received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    anyhow::ensure!(may_come(from, &data), "unexpected output at the end");
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
        }
        anyhow::ensure!(status == Some(0), "the program ended with {status:?}");
        Ok(())
    }
}
