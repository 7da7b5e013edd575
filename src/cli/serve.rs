//! `sallyport serve`: wires the floors and runs the bastion until it is told to stop.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use russh::keys::{PrivateKey, PublicKey};
use sallyport_domain::target::{HostKey, HostKeyTrust};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::failure::{Failure, FailureKind};
use super::sockets::{Given, Handover, Use};
use crate::api::tls::Identity;
use crate::api::{self, ApiState, Rotate, RotateFailure, ScanError};
use crate::app::App;
use crate::app::break_glass::BreakGlass;
use crate::app::clock::Clock;
use crate::app::clock_watch;
use crate::app::credential_rotation;
use crate::app::feed::Feed;
use crate::app::health::{self, Health};
use crate::app::idempotency;
use crate::app::key_ring;
use crate::app::keys::{self, Purpose, TargetKeys};
use crate::app::ledger;
use crate::app::ledger::anchors::Anchors;
use crate::app::ledger::sequencer::Sequencer;
use crate::app::metrics;
use crate::app::nodes::{Nodes, RunLock};
use crate::app::outbox::Outbox;
use crate::app::recordings::Recordings;
use crate::app::recordings::encryption::note_recipients;
use crate::app::requests;
use crate::app::sign_in::{Provider, PublicUrl, SignIns};
use crate::app::{retention, reviews};
use crate::config::Config;
use crate::ssh::{self, Authorities, Door, DoorParts};
use crate::store::blob::Blobs;
use crate::store::db::Db;
use crate::store::seal::{Keyring, MasterKey};
use crate::telemetry;

/// How long live sessions have for their goodbye when the bastion stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long recordings may take to come to rest when the bastion stops; what is left is recovered at the next start.
const REST: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The configuration file
    #[arg(long, env = "SALLYPORT_CONFIG", value_name = "FILE", default_value = super::config::USUAL_FILE)]
    pub(crate) config: PathBuf,
    /// Start although the database is older than, or another than, what an anchor has seen; it becomes an event
    #[arg(long)]
    pub(crate) accept_older_database: bool,
}

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let config = super::config::load(&args.config)?;
    let serve = async {
        let telemetry = telemetry::start(&config.log, &config.traces, &config.node())?;
        let bastion = Bastion::start_with(config, Clock::system(), args.accept_older_database).await?;
        let mut signals = Signals::listen()?;
        if signals.next().await == SignalKind::terminate() {
            tokio::select! {
                () = bastion.drain() => {}
                _ = signals.next() => info!("A second signal: live sessions are cut."),
            }
        }
        bastion.stop().await;
        telemetry.finish().await;
        anyhow::Ok(())
    };
    serve.await.map_err(|error| Failure::text(FailureKind::Failed, format!("{error:#}")))
}

/// Signals that end the program.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => {
                info!("SIGTERM: the bastion stops.");
                SignalKind::terminate()
            }
            _ = self.interrupt.recv() => {
                info!("SIGINT: the bastion stops at once.");
                SignalKind::interrupt()
            }
        }
    }
}

/// A bastion that is running: every floor, wired. Also what the tests start.
pub struct Bastion {
    app: App,
    recordings: Recordings,
    anchors: Anchors,
    door: Arc<Door>,
    ssh_address: SocketAddr,
    api_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    web: Option<(SocketAddr, String)>,
    public_url: Option<PublicUrl>,
    health: Health,
    break_glass: BreakGlass,
    drain: Drain,
    stop: CancellationToken,
    tasks: TaskTracker,
    run: RunLock,
}

/// How a bastion ends without anybody being turned away.
struct Drain {
    wait: Duration,
    time: Duration,
    handover: Handover,
    /// Ends the API; a child of `stop`.
    api: CancellationToken,
}

impl Bastion {
    /// Opens the stores, begins to recover what an earlier run left behind, and opens the doors. When this returns, people can
    /// log in.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        Self::start_with(config, clock, false).await
    }

    /// The same; with `accept_older` even where an anchor has seen more than the database holds.
    pub async fn start_with(config: Config, clock: Clock, accept_older: bool) -> anyhow::Result<Self> {
        let node = config.node();
        let data_dir = &config.server.data_dir;
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("cannot make the data folder `{}`", data_dir.display()))?;
        let master = load_master_key(&config)?;
        let db = Db::connect(&config.database).await?;
        db.migrate_as(config.database.migrate_url.as_deref()).await?;
        let blobs = Blobs::open(&config.blobs)?;
        let app = App::new(db, blobs, clock, load_more_master_keys(&config, master))
            .with_requests(config.requests.clone())
            .with_consent(config.consent.clone())
            .with_settings(config.in_force());
        key_ring::begin(&app).await?;
        credential_rotation::start(&app).await?;
        clock_watch::resume(&app, &node).await.context("cannot read the highest time that was seen")?;
        let anchors = Anchors::open(&config.ledger, &app.blobs, &node)?;
        let outbox = Outbox::open(&config.outbox, &config.notify, &node)?;
        let app = app.with_halt(anchors.halted());
        look_at_anchors(&app, &anchors, accept_older).await?;
        ledger::keys::ensure(&app, &config.ledger_name()).await?;
        note_recipients(&app, &node, &config.recording.recipients).await?;
        let recordings = Recordings::new(app.clone(), config.recording.clone())
            .with_context(|| format!("cannot use the journal folder `{}`", config.recording.journal_dir.display()))?;
        let runs = data_dir.join("runs");
        let run =
            RunLock::take(&runs, app.run).with_context(|| format!("cannot use the folder `{}`", runs.display()))?;
        let alive = RunLock::alive(&runs).context("cannot tell which processes of this node live")?;
        let left = recordings.find_left_behind(&node, &alive).await;
        let left = left.context("cannot find out what an earlier run left behind")?;
        if left.sessions() + left.journals() > 0 {
            info!(
                sessions = left.sessions(),
                recordings = left.journals(),
                "An earlier run left these open; they are recovered."
            );
        }
        recordings.recover(left);
        let host_key = bastion_key(&app, Purpose::HostKey).await?;
        let authorities = Authorities::open(&app).await?;
        let target_keys = Arc::new(TargetKeys::new(&keys::bastion_key(&app, Purpose::TargetKeys).await?));
        let trusted_cas = read_authorities(&config.ssh.user_ca_files)?;
        let health = Health::new();
        let dir = data_dir.join("break-glass");
        let break_glass = BreakGlass::start(app.clone(), node.clone(), dir, config.recording.clone(), health.clone())
            .context("cannot use the folder for break-glass in the data folder")?;
        let nodes = Nodes::register(
            app.clone(),
            recordings.clone(),
            node.clone(),
            runs,
            config.server.dead_after,
            health.clone(),
        );
        let nodes = nodes.await.context("cannot register this node")?;
        let handover_path = data_dir.join("handover.sock");
        let mut given =
            Given::gather(&handover_path).await.context("cannot use the sockets that this process was given")?;
        let handover = Handover::new();
        let listener = match given.take_tcp(Use::Ssh, config.ssh.listen).context("cannot use the socket for SSH")? {
            Some(listener) => listener,
            None => TcpListener::bind(config.ssh.listen)
                .await
                .with_context(|| format!("cannot listen on `{}` (`ssh.listen`)", config.ssh.listen))?,
        };
        let ssh_address = listener.local_addr().context("cannot tell the port that `ssh.listen` got")?;
        let (apis, web) = bind_apis(&config, &mut given, &handover).await?;
        let (api_address, metrics_address) = (apis.tcp_address(), apis.metrics_address());
        handover.offer(Use::Ssh, listener.as_fd()).context("cannot share the socket for SSH")?;
        for (kind, socket) in [Use::Https, Use::Http, Use::Metrics, Use::Api].into_iter().zip(apis.sockets()) {
            if let Some(socket) = socket {
                handover.offer(kind, socket).context("cannot share a socket of the API")?;
            }
        }
        let shown = api::bastion::Identity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ssh_host: config.ssh.public_host.clone().unwrap_or_else(|| node.clone()),
            ssh_port: config.ssh.public_port.unwrap_or_else(|| ssh_address.port()),
            host_key: line(&host_key)?,
        };
        let host_key_line = shown.host_key.clone();
        let place = ssh::Place { host: shown.ssh_host.clone(), port: shown.ssh_port };
        let public_url = config.api.public_url(web.as_ref().map(|(address, _)| *address));
        let sign_ins = SignIns::new(config.api.sign_in_times());
        let mut sign_ins = public_url.iter().fold(sign_ins, SignIns::at);
        if let Some(oidc) = &config.sign_in.oidc {
            let variable = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
            sign_ins = sign_ins.with_provider(Provider::open(oidc, public_url.as_ref(), variable)?);
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let feed = Feed::default();
        let state = ApiState {
            app: app.clone(),
            scan: Arc::new(|address| Box::pin(scan(address))),
            rotate: rotator(&app, &authorities, &tasks),
            bastion: Arc::new(shown),
            sign_ins,
            target_keys: target_keys.clone(),
            watches: tasks.clone(),
            feed: feed.clone(),
            health: health.clone(),
            break_glass: break_glass.clone(),
        };
        let parts = DoorParts {
            app: app.clone(),
            recordings: recordings.clone(),
            settings: config.ssh.clone(),
            node,
            host_key,
            authorities: authorities.clone(),
            host_key_line,
            place,
            target_keys,
            trusted_cas,
            health: health.clone(),
            break_glass: break_glass.clone(),
        };
        let door = Door::new(parts);
        tasks.spawn(health.clone().watch_journal(config.recording.journal_dir.clone(), stop.clone()));
        tasks.spawn(metrics::watch(app.clone(), recordings.clone(), health.clone(), config.node(), stop.clone()));
        tasks.spawn({
            let (app, stop, health) = (app.clone(), stop.clone(), health.clone());
            async move { health.sweep(app, stop).await }
        });
        outbox.start(&app, &tasks, &stop);
        tasks.spawn(nodes.run(stop.clone()));
        match Handover::listen(&handover_path) {
            Ok(listening) => drop(tasks.spawn(handover.clone().serve(listening, stop.clone()))),
            Err(error) => {
                warn!(%error, path = %handover_path.display(), "The next process of this node will not be able to take the sockets over.")
            }
        }
        tasks.spawn(health::listen(app.clone(), stop.clone()));
        tasks.spawn(clock_watch::watch(app.clone(), config.node(), stop.clone()));
        tasks.spawn(authorities.clone().sweep(app.clone(), stop.clone()));
        tasks.spawn({
            let authorities = authorities.clone();
            ssh::rotation::sweep(app.clone(), move || authorities.user_ca(), stop.clone())
        });
        tasks.spawn(key_ring::sweep(app.clone(), config.master_key.clone(), config.node(), stop.clone()));
        tasks.spawn(break_glass.clone().run(stop.clone()));
        tasks.spawn(requests::sweep(app.clone(), stop.clone()));
        tasks.spawn(idempotency::sweep(app.clone(), stop.clone()));
        tasks.spawn(retention::removal::run(app.clone(), stop.clone()));
        tasks.spawn(retention::rules::run(app.clone(), config.retention.clone(), stop.clone()));
        tasks.spawn(reviews::decide::run(app.clone(), config.review.clone(), stop.clone()));
        tasks.spawn({
            let anchors = anchors.clone();
            ledger::manifests::sweep(app.clone(), stop.clone(), move || anchors.wake())
        });
        tasks.spawn(Sequencer::new(app.clone()).halted_by(anchors.halted()).run(stop.clone()));
        tasks.spawn(ledger::background::run(app.clone(), anchors.clone(), config.ledger.verify_every, stop.clone()));
        tasks.spawn(anchors.clone().run(app.clone(), stop.clone()));
        let drain =
            Drain { wait: config.server.drain_wait, time: config.server.drain_for, handover, api: stop.child_token() };
        tasks.spawn(feed.run(app.clone(), drain.api.clone()));
        tasks.spawn(apis.serve(state, drain.api.clone()));
        tasks.spawn({
            let door = door.clone();
            async move { door.serve(listener).await }
        });
        info!(address = %ssh_address, "The bastion is open.");
        if let Some((address, fingerprint)) = &web {
            info!(%address, %fingerprint, "The web app is open over HTTPS; its certificate has this SHA-256 fingerprint.");
        }
        Ok(Self {
            app,
            recordings,
            anchors,
            door,
            ssh_address,
            api_address,
            metrics_address,
            web,
            public_url,
            health,
            break_glass,
            drain,
            stop,
            tasks,
            run,
        })
    }

    /// Where engineers connect.
    pub fn ssh_address(&self) -> SocketAddr {
        self.ssh_address
    }

    /// Where the API listens on TCP, if it does.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api_address
    }

    /// Where metrics and probes answer everybody, if they do.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Where HTTPS listens, if it does, and the SHA-256 fingerprint of its certificate.
    pub fn web(&self) -> Option<(SocketAddr, &str)> {
        self.web.as_ref().map(|(address, fingerprint)| (*address, fingerprint.as_str()))
    }

    /// Where people open the web app, if it is known.
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    /// What the SSH door proves itself with.
    pub fn host_key(&self) -> &PublicKey {
        self.door.host_key.public_key()
    }

    /// The use cases.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The SSH door.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// The recordings.
    pub fn recordings(&self) -> &Recordings {
        &self.recordings
    }

    /// Tells load balancers to send nobody here, then lets nobody in any more, and returns when the last one has left or their time is
    /// over. May be given up at any moment, for [`Bastion::stop`].
    pub async fn drain(&self) {
        let Drain { wait, time, handover, api } = &self.drain;
        self.health.drain();
        if handover.was_used().load(Ordering::Acquire) && self.run.has_siblings() {
            api.cancel(); // whoever asks now is answered by the process that took over
        } else {
            tokio::time::sleep(*wait).await;
        }
        handover.withdraw(Use::Ssh);
        let until = self.app.clock.now() + *time;
        info!(connections = self.door.connection_count(), %until, "Nobody comes in any more; live sessions have their time.");
        if tokio::time::timeout(*time, self.door.drain(until)).await.is_err() {
            info!("The time of live sessions is over.");
        }
    }

    /// Lets nobody in any more, cuts live sessions with a goodbye, and waits until recordings are at rest.
    pub async fn stop(self) {
        self.door.close(GOODBYE).await;
        self.break_glass.close(GOODBYE).await;
        self.recordings.close(REST).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        ledger::finish(&self.app, &self.anchors).await;
        info!("The bastion has stopped.");
    }
}

/// A database that was put back to an older state, or forked, is not served from until somebody says that it is meant.
async fn look_at_anchors(app: &App, anchors: &Anchors, accept_older: bool) -> anyhow::Result<()> {
    let faults = anchors.compare(app).await.context("cannot compare the database with the anchors")?;
    if faults.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect();
    anyhow::ensure!(
        accept_older,
        "the database is not what was anchored:\n  {}\nrestore the newer one; or, if this one is meant, start once with \
         `sallyport serve --accept-older-database`, which is written down",
        said.join("\n  ")
    );
    warn!("The database is older than what was anchored; it is taken on as it is.");
    anchors.accept(app).await.context("cannot write down that an older database is taken on")
}

/// Binds the API's sockets that were not given, and says where HTTPS is and what it proves itself with.
async fn bind_apis(
    config: &Config,
    given: &mut Given,
    handover: &Handover,
) -> anyhow::Result<(api::Listeners, Option<(SocketAddr, String)>)> {
    const GIVEN: &str = "cannot use a socket that was given for the API";
    let mut bound = api::Bound { shared: given.is_others_socket(handover), ..api::Bound::default() };
    if let Some(address) = config.api.listen {
        bound.tcp = given.take_tcp(Use::Http, address).context(GIVEN)?;
    }
    if let Some(path) = &config.api.socket {
        bound.unix = given.take_unix(path).context(GIVEN)?;
    }
    let mut apis = api::Listeners::bind_rest(&config.api, bound).await?;
    let mut web = None;
    if let Some(address) = config.api.https_listen {
        let identity = web_identity(config)?;
        let bound = given.take_tcp(Use::Https, address).context(GIVEN)?;
        apis = apis.with_https(address, bound, &identity).await?;
        web = apis.https_address().map(|address| (address, identity.fingerprint().to_owned()));
    }
    if let Some(address) = config.metrics.listen {
        let bound = given.take_tcp(Use::Metrics, address).context(GIVEN)?;
        apis = apis.with_metrics(address, bound).await?;
    }
    Ok((apis, web))
}

/// What HTTPS proves itself with: the operator's certificate, or our own.
fn web_identity(config: &Config) -> anyhow::Result<Identity> {
    if let Some((certificate, key)) = config.api.certificate_file.as_deref().zip(config.api.key_file.as_deref()) {
        return Ok(Identity::load(certificate, key)?);
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), config.node()];
    names.extend(config.ssh.public_host.clone());
    names.extend(config.api.public_url.as_ref().map(|url| url.host().to_owned()));
    Ok(Identity::own(&config.server.data_dir, names)?)
}

/// The master key; the usual file is made at the first start.
fn load_master_key(config: &Config) -> anyhow::Result<MasterKey> {
    if let Some(file) = config.own_master_key_file()
        && !file.exists()
    {
        MasterKey::create_file(file).with_context(|| format!("cannot make the master key `{}`", file.display()))?;
        info!(file = %file.display(), "A master key was made. Keep a copy of it elsewhere: without it no stored secret can be opened.");
    }
    Ok(MasterKey::load(&config.master_key, |name| std::env::var_os(name))?)
}

/// The keys that are there beside that one. Which of them seals, the database says.
fn load_more_master_keys(config: &Config, master: MasterKey) -> Keyring {
    let ring = Keyring::from(master);
    for loaded in MasterKey::load_more(&config.master_key, |name| std::env::var_os(name)) {
        match loaded {
            Ok(key) => drop(ring.add(key)),
            Err(error) => warn!(%error, "A file that may hold another master key is left out."),
        }
    }
    ring
}

async fn bastion_key(app: &App, purpose: Purpose) -> anyhow::Result<PrivateKey> {
    let key = keys::bastion_key(app, purpose).await?;
    PrivateKey::from_openssh(key.private_key.expose())
        .with_context(|| format!("the bastion's {purpose} cannot be read"))
}

fn line(key: &PrivateKey) -> anyhow::Result<String> {
    key.public_key().to_openssh().context("a public key cannot be written down")
}

fn read_authorities(files: &[PathBuf]) -> anyhow::Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for file in files {
        keys.extend(read_authority_file(file)?);
    }
    Ok(keys)
}

fn read_authority_file(file: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read `{}` (`ssh.user_ca_files`)", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line| {
        PublicKey::from_openssh(line)
            .with_context(|| format!("`{}` holds a line that is no public key", file.display()))
    };
    lines.map(parse).collect()
}

/// Replaces a target's key, for the API: as a task of its own, so that it goes on if whoever asked for it does not wait.
fn rotator(app: &App, authorities: &Authorities, tasks: &TaskTracker) -> Rotate {
    let (app, authorities, tasks) = (app.clone(), authorities.clone(), tasks.clone());
    Arc::new(move |actor, name, login, file| {
        let (app, user_ca) = (app.clone(), authorities.user_ca());
        let task =
            tasks.spawn(async move { ssh::rotation::rotate(&app, &user_ca, &actor, &name, &login, &file).await });
        Box::pin(async move {
            match task.await {
                Ok(Ok(fingerprint)) => Ok(fingerprint),
                Ok(Err(ssh::rotation::RotateError::Books(error))) => Err(RotateFailure::Books(error)),
                Ok(Err(error)) => Err(RotateFailure::Step(error.to_string())),
                Err(error) => Err(RotateFailure::Step(format!("it broke off: {error}"))),
            }
        })
    })
}

/// Asks a host for its host keys, for the API.
async fn scan(address: sallyport_domain::target::Address) -> Result<Vec<HostKey>, ScanError> {
    let unreachable = |message: String| ScanError::Unreachable { address: address.clone(), message };
    let keys = ssh::scan(&address).await.map_err(|error| unreachable(error.to_string()))?;
    if keys.is_empty() {
        let message = "it showed no host key".to_owned();
        return Err(ScanError::NotSsh { address: address.clone(), message });
    }
    let host_key = |key: PublicKey| {
        let public_key = key.to_openssh().map_err(|error| unreachable(error.to_string()))?;
        Ok(HostKey { trust: HostKeyTrust::Host, public_key })
    };
    keys.into_iter().map(host_key).collect()
}
