//! The built program with its stores, a real sshd behind it and stock clients in front, for tests that hurt it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use russh::keys::PublicKey;
use sallyport::Bastion;
use sallyport::app::clock::Clock;
use sallyport::app::keys::{self, Purpose};
use sallyport::app::recordings::read::{ReadError, Reader};
use sallyport::app::{App, audit, grants, people, targets};
use sallyport::config::Config;
use sallyport::store::blob::Blobs;
use sallyport::store::db::events::EventFilter;
use sallyport::store::db::recordings::RecordingRecord;
use sallyport::store::db::sessions::{SessionFilter, SessionRecord};
use sallyport::store::db::{self, Db};
use sallyport::store::seal::MasterKey;
use sallyport::toy_target::{self, ToyTarget};
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::Actor;
use sallyport_domain::files::FileRules;
use sallyport_domain::grant::{Approval, Capabilities, Forwarding, Grant, Terms, Window};
use sallyport_domain::principal::Role;
use sallyport_domain::recording::frame::Body;
use sallyport_domain::secret::TargetPassword;
use sallyport_domain::target::{HostKey, HostKeyTrust};
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::sync::{Mutex, MutexGuard};

use crate::support::clients::{Run, Workstation};
use crate::support::keys::KeyPair;
use crate::support::process::{Ending, Guarded};
use crate::support::s3::{self, S3};
use crate::support::sshd::{self, Sshd};
use crate::support::{self, PATIENCE, eventually};

/// One test at a time: they measure time and memory, and fill the machine.
pub async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Whether the long versions are wanted: `SALLYPORT_TEST_LARGE=1`.
pub fn large() -> bool {
    std::env::var_os("SALLYPORT_TEST_LARGE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The seed of a test that chooses at random, printed: `SALLYPORT_TEST_SEED`, or another one each time.
pub fn seed() -> u64 {
    let given = std::env::var("SALLYPORT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("SALLYPORT_TEST_SEED={seed}");
    seed
}

/// Where the bastion keeps things.
#[derive(Default)]
pub struct Stores<'a> {
    /// Another database than SQLite.
    pub database: Option<String>,
    /// Another object store than a folder.
    pub s3: Option<&'a S3>,
    /// Another place for journals.
    pub journal: Option<PathBuf>,
    /// Another name than `test` for the node.
    pub node: Option<&'a str>,
    /// More lines of the configuration, each with its section in front: `ssh.max_channels = 3`.
    pub more: Vec<&'a str>,
}

/// The built program, with a person `alice`, a target `node-1` that is a real sshd, and no grant.
pub struct World {
    pub sshd: Sshd,
    pub workstation: Arc<Workstation>,
    pub address: SocketAddr,
    /// The use cases on the bastion's stores, in the test's own process.
    pub app: App,
    pub login: String,
    folder: tempfile::TempDir,
    server: Option<Guarded>,
    key: KeyPair,
}

impl World {
    pub async fn start(stores: &Stores<'_>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
        Self::start_at(stores, address, None).await
    }

    /// The same, with this socket for SSH given to it as systemd does.
    pub async fn on_socket(stores: &Stores<'_>, socket: &std::net::TcpListener) -> Self {
        Self::start_at(stores, socket.local_addr().unwrap(), Some(socket)).await
    }

    async fn start_at(stores: &Stores<'_>, address: SocketAddr, socket: Option<&std::net::TcpListener>) -> Self {
        let folder = support::temporary_folder();
        let text = configuration(folder.path(), address, stores);
        std::fs::write(folder.path().join("sallyport.toml"), &text).unwrap();
        let mut server = None;
        match socket {
            None => spawn(folder.path(), address, &mut server),
            Some(socket) => spawn_on_socket(folder.path(), socket, &mut server),
        }

        let config = Config::parse(&text, []).unwrap();
        let master = MasterKey::load(&config.master_key, |_| None).unwrap();
        let db = Db::connect(&config.database).await.unwrap();
        let app = App::new(db, Blobs::open(&config.blobs).unwrap(), Clock::system(), master);
        let user_ca = keys::bastion_key(&app, Purpose::UserCa).await.unwrap().public_key;
        let host_key = keys::bastion_key(&app, Purpose::HostKey).await.unwrap().public_key;
        let sshd = Sshd::start(&sshd::Settings::default());
        sshd.trust_user_ca(&user_ca);
        let key = KeyPair::ed25519();
        let workstation = Arc::new(Workstation::new(&key));
        workstation.trust(address, &PublicKey::from_openssh(&host_key).unwrap());
        let login = Sshd::login();
        add_person(&app, "alice", &key).await;
        let credential = targets::Credential::Certificate;
        add_target(&app, "node-1", sshd.address(), sshd.host_key(), &login, credential).await;
        Self { sshd, workstation, address, app, login, folder, server, key }
    }

    /// Gives alice a grant for `time` from now on.
    pub async fn grant(&self, time: Duration) -> Grant {
        let now = self.app.clock.now();
        give(&self.app, "alice", "node-1", &self.login, Window::new(now, now + time).unwrap()).await
    }

    /// The user name that leads to the target.
    pub fn user(&self) -> String {
        format!("alice+{}@node-1", self.login)
    }

    /// `ssh` to the target through the bastion.
    pub fn ssh(&self) -> Run {
        self.workstation.ssh(&self.user(), self.address)
    }

    /// Another computer with alice's key.
    pub fn second_desk(&self) -> Workstation {
        Workstation::new(&self.key)
    }

    /// `ssh` to the target through another node.
    pub fn ssh_through(&self, node: &Node) -> Run {
        self.workstation.ssh(&self.user(), node.address)
    }

    /// Runs the program as an admin would, on its own host; gives back its standard output.
    pub async fn admin(&self, arguments: &[&str]) -> String {
        admin(self.folder.path(), arguments).await
    }

    /// The same for what is to fail; gives back what the program complained of.
    pub async fn refused_admin(&self, arguments: &[&str]) -> String {
        let output = program(self.folder.path(), arguments).await;
        assert!(
            !output.status.success(),
            "sallyport {arguments:?} did it: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stderr).unwrap()
    }

    /// The node's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What every node proves itself with.
    pub async fn host_key(&self) -> PublicKey {
        let host_key = keys::bastion_key(&self.app, Purpose::HostKey).await.unwrap().public_key;
        PublicKey::from_openssh(&host_key).unwrap()
    }

    /// One more node on the same stores.
    pub async fn join(&self, name: &str, stores: &Stores<'_>) -> Node {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::copy(self.folder.path().join("data/master.key"), folder.join("data/master.key")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
        let stores = Stores {
            database: stores.database.clone(),
            s3: stores.s3,
            journal: None,
            node: Some(name),
            more: stores.more.clone(),
        };
        std::fs::write(folder.join("sallyport.toml"), configuration(&folder, address, &stores)).unwrap();
        let mut server = None;
        spawn(&folder, address, &mut server);
        self.workstation.trust(address, &self.host_key().await);
        Node { address, folder, server }
    }

    /// Starts the next process of the node while this one runs, and returns that one once the next has taken over.
    pub async fn succeed(&mut self) -> Guarded {
        let old = self.server.take().unwrap();
        spawn(self.folder.path(), self.address, &mut self.server);
        eventually("two processes of the node run", async || {
            let nodes: serde_json::Value =
                serde_json::from_str(&self.admin(&["node", "ls", "--output", "json"]).await).unwrap();
            let nodes = nodes.as_array().or_else(|| nodes["items"].as_array()).unwrap().clone();
            nodes.iter().filter(|node| node["node"] == "test" && node["state"] == "open").count() == 2
        })
        .await;
        eventually("the next process is open", async || self.log().matches("The bastion is open.").count() == 2).await;
        old
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().pid()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        signal(self.pid(), Signal::SIGKILL);
        drop(self.server.take());
    }

    /// Starts the program again; returns when its port is open.
    pub fn restart(&mut self) {
        spawn(self.folder.path(), self.address, &mut self.server);
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) {
        signal(self.pid(), Signal::SIGTERM);
        eventually("it ends", async || !self.server.as_ref().unwrap().is_running()).await;
        drop(self.server.take());
    }

    /// Starts the program again, with this socket.
    pub fn restart_on_socket(&mut self, socket: &std::net::TcpListener) {
        spawn_on_socket(self.folder.path(), socket, &mut self.server);
    }

    /// What the program has logged so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The program's proportional set size, in KiB.
    pub fn memory_kib(&self) -> i64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Every session, the latest first.
    pub async fn sessions(&self) -> Vec<SessionRecord> {
        sessions(&self.app).await
    }

    /// Waits until no session lives, in the books.
    pub async fn all_ended(&self) {
        let live = SessionFilter { live: Some(true), ..SessionFilter::default() };
        eventually("every session has its end in the books", async || match self.app.db.read().await {
            Ok(mut tx) => db::sessions::list(&mut tx, &live, 10).await.is_ok_and(|live| live.is_empty()),
            Err(_) => false,
        })
        .await;
    }

    /// When the last event of a kind was written.
    pub async fn last_event(&self, kind: &str) -> Instant {
        let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
        let events = audit::list(&self.app, 0, &filter, 1_000).await.unwrap();
        instant_of(events.last().unwrap().1.at)
    }

    /// Every recording, by the command that it is of (the latest of equals).
    pub async fn recordings(&self) -> HashMap<String, RecordingRecord> {
        recordings(&self.app).await.into_iter().map(|found| (command_of(&found), found)).collect()
    }

    /// Waits until the recording of `command` has its end, and reads it back: what the target printed and what the bastion said.
    pub async fn recorded(&self, command: &str) -> Recorded {
        eventually("the recording is at rest", async || {
            self.recordings().await.get(command).is_some_and(|found| found.progress.ended_at.is_some())
        })
        .await;
        let found = self.recordings().await.remove(command).unwrap();
        Recorded::read(&self.app, &found).await
    }

    /// How many journals there are: recordings that are not at rest.
    pub fn journals(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("data/journal")).unwrap().count()
    }

    /// How many TCP connections are open at the bastion's port, seen from either end.
    pub fn client_connections(&self) -> usize {
        connections(self.address.port())
    }

    /// The same for the target's port.
    pub fn target_connections(&self) -> usize {
        connections(self.sshd.address().port())
    }
}

/// One more node, on the stores of a [`World`].
pub struct Node {
    pub address: SocketAddr,
    folder: PathBuf,
    server: Option<Guarded>,
}

impl Node {
    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().pid()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        signal(self.pid(), Signal::SIGKILL);
        drop(self.server.take());
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        signal(self.pid(), Signal::SIGTERM);
    }

    pub fn is_running(&self) -> bool {
        self.server.as_ref().is_some_and(Guarded::is_running)
    }

    /// Starts the program again; returns when its port is open.
    pub fn restart(&mut self) {
        drop(self.server.take());
        spawn(&self.folder, self.address, &mut self.server);
    }

    /// As [`World::admin`], on this node's host.
    pub async fn admin(&self, arguments: &[&str]) -> String {
        admin(&self.folder, arguments).await
    }

    /// `sallyport session watch`, running. It is killed when dropped.
    pub fn watch(&self, session: &str) -> Child {
        let mut watch = tokio::process::Command::new(env!("CARGO_BIN_EXE_sallyport"));
        watch.args(["session", "watch", session, "--no-input", "--socket"]).arg(self.folder.join("socket"));
        watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        watch.spawn().unwrap()
    }

    /// What the program has logged so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

async fn program(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.arg("--socket").arg(folder.join("socket")).args(arguments);
    command.output().await.unwrap()
}

async fn admin(folder: &Path, arguments: &[&str]) -> String {
    let output = program(folder, arguments).await;
    assert!(output.status.success(), "sallyport {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A bastion's sessions, the latest first.
pub async fn sessions(app: &App) -> Vec<SessionRecord> {
    let mut tx = app.db.read().await.unwrap();
    db::sessions::list(&mut tx, &SessionFilter::default(), 10_000).await.unwrap()
}

/// A bastion's recordings, the earliest first.
pub async fn recordings(app: &App) -> Vec<RecordingRecord> {
    let mut all = Vec::new();
    for session in sessions(app).await.iter().rev() {
        let mut tx = app.db.read().await.unwrap();
        all.extend(db::recordings::of_session(&mut tx, session.session.id).await.unwrap());
    }
    all
}

fn command_of(found: &RecordingRecord) -> String {
    use sallyport_domain::channel::Program;
    match &found.recording.program {
        Program::Exec { command } => String::from_utf8_lossy(command).into_owned(),
        other => other.kind().to_owned(),
    }
}

/// A recording, read back through its chain.
pub struct Recorded {
    /// What went to a client's standard output: output, and the bastion's own words.
    pub shown: Vec<u8>,
    pub input: Vec<u8>,
    /// How it ended, as JSON.
    pub end: String,
    pub gaps: usize,
}

impl Recorded {
    /// Panics if the chain or a segment does not verify.
    pub async fn read(app: &App, found: &RecordingRecord) -> Self {
        loop {
            match Self::try_read(app, found).await {
                Err(ReadError::Reopened) => {} // a node is back: what it has is read from the start
                read => return read.unwrap(),
            }
        }
    }

    async fn try_read(app: &App, found: &RecordingRecord) -> Result<Self, ReadError> {
        let mut reader = Reader::new(app.clone(), found.recording.id, false);
        let (mut shown, mut input, mut end, mut gaps) = (Vec::new(), Vec::new(), String::new(), 0);
        while let Some(frames) = reader.next().await? {
            for frame in frames {
                match frame.body {
                    Body::Output(bytes) | Body::Notice(bytes) => shown.extend_from_slice(&bytes),
                    Body::Input(bytes) => input.extend_from_slice(&bytes),
                    Body::End(text) => end = text,
                    Body::Gap(_) => gaps += 1,
                    _ => {}
                }
            }
        }
        Ok(Self { shown, input, end, gaps })
    }

    /// Everything that a client received must be here, from the first byte on.
    #[track_caller]
    pub fn covers(&self, seen: &[u8], what: &str) {
        let same = self.shown.iter().zip(seen).take_while(|(a, b)| a == b).count();
        assert!(
            same == seen.len(),
            "{what}: the client saw {} bytes, the recording holds {}, and they part at {same}",
            seen.len(),
            self.shown.len()
        );
    }
}

/// Adds a person with a key.
pub async fn add_person(app: &App, name: &str, key: &KeyPair) {
    let person = people::NewPerson {
        name: name.parse().unwrap(),
        organisation: None,
        roles: vec![Role::Engineer],
        keys: vec![key.line().parse().unwrap()],
        password: None,
    };
    people::add(app, &OPERATOR, person).await.unwrap();
}

/// Adds a target with one login.
pub async fn add_target(
    app: &App,
    name: &str,
    address: SocketAddr,
    host_key: &PublicKey,
    login: &str,
    credential: targets::Credential,
) {
    let target = targets::NewTarget {
        name: name.parse().unwrap(),
        aliases: Vec::new(),
        address: address.to_string().parse().unwrap(),
        jump: None,
        logins: vec![(login.parse().unwrap(), credential)],
        labels: std::collections::BTreeMap::new(),
        host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: host_key.to_openssh().unwrap() }],
    };
    targets::add(app, &OPERATOR, target).await.unwrap();
}

/// Gives somebody a grant for everything on one target.
pub async fn give(app: &App, person: &str, target: &str, login: &str, window: Window) -> Grant {
    let terms = Terms {
        targets: vec![target.parse().unwrap()],
        logins: vec![login.parse().unwrap()],
        capabilities: Capabilities { shell: true, exec: true, upload: true, download: true, forwards: Vec::new() },
        source_networks: Vec::new(),
        max_sessions: None,
        second_factor: false,
        approval: Approval::None,
        files: FileRules::default(),
        commands: CommandRules::default(),
        forwarding: Forwarding::default(),
        review: None,
    };
    let reason = "a test".to_owned();
    let people = vec![person.parse().unwrap()];
    grants::make(app, &OPERATOR, grants::NewGrant { people, terms, window, reason, ticket: None }).await.unwrap()
}

/// By whose hand the tests arrange things.
pub const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// A bastion inside the test's process, on a clock that the test moves, with a toy target.
pub struct Inside {
    pub bastion: Bastion,
    pub clock: Clock,
    pub toy: ToyTarget,
    _folder: tempfile::TempDir,
}

/// What the toy target takes. A certificate would not do: it is made by a clock that the toy target does not go by.
const TOY_PASSWORD: &str = "correct horse battery staple";

impl Inside {
    /// Starts both, with targets `node-1` and `node-2`, which are the same toy target, and nobody who may go there.
    pub async fn start(stores: &Stores<'_>) -> Self {
        let folder = support::temporary_folder();
        let home = folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let settings = toy_target::Settings {
            password: Some(TOY_PASSWORD.to_owned()),
            shell: "/bin/bash".into(),
            working_directory: home,
            ..toy_target::Settings::default()
        };
        let toy = ToyTarget::start(settings).await.unwrap();
        let text = configuration(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0)), stores);
        let clock = Clock::manual(Clock::system().now());
        let bastion = Bastion::start(Config::parse(&text, []).unwrap(), clock.clone()).await.unwrap();
        for name in ["node-1", "node-2"] {
            let credential = targets::Credential::Password(TargetPassword::new(TOY_PASSWORD));
            add_target(bastion.app(), name, toy.address(), toy.host_key(), "ops", credential).await;
        }
        Self { bastion, clock, toy, _folder: folder }
    }

    pub fn app(&self) -> &App {
        self.bastion.app()
    }

    /// A new person's computer.
    pub async fn person(&self, name: &str) -> (Workstation, KeyPair) {
        let key = KeyPair::ed25519();
        add_person(self.app(), name, &key).await;
        let workstation = Workstation::new(&key);
        workstation.trust(self.bastion.ssh_address(), self.bastion.host_key());
        (workstation, key)
    }
}

fn configuration(folder: &Path, address: SocketAddr, stores: &Stores<'_>) -> String {
    let mut settings = vec![
        format!("server.data_dir = {:?}", folder.join("data")),
        format!("server.node = {:?}", stores.node.unwrap_or("test")),
        format!("ssh.listen = \"{address}\""),
        // A test may log in from one address as often as it likes.
        "ssh.max_unauthenticated_per_address = 100".to_owned(),
        format!("api.socket = {:?}", folder.join("socket")),
        "log.level = \"info\"".to_owned(),
    ];
    settings.extend(stores.database.iter().map(|url| format!("database.url = {url:?}")));
    settings.extend(stores.journal.iter().map(|path| format!("recording.journal_dir = {path:?}")));
    settings.extend(stores.more.iter().map(|&line| line.to_owned()));
    if !stores.more.iter().any(|line| line.starts_with("server.drain_for")) {
        settings.push("server.drain_for = \"0s\"".to_owned()); // most tests do not wait for their sessions
    }
    if !stores.more.iter().any(|line| line.starts_with("ssh.failures_per_address")) {
        // Long plays have many.
        settings.push("ssh.failures_per_address = { limit = 100_000, window = \"10m\" }".to_owned());
    }
    if let Some(s3) = stores.s3 {
        let secret = folder.join("s3-secret");
        std::fs::write(&secret, s3::SECRET_KEY).unwrap();
        settings.extend([
            format!("blobs.url = \"s3://{}\"", s3::BUCKET),
            format!("blobs.endpoint = {:?}", s3.endpoint()),
            format!("blobs.region = {:?}", s3::REGION),
            format!("blobs.access_key_id = {:?}", s3::ACCESS_KEY),
            format!("blobs.secret_access_key_file = {secret:?}"),
            "blobs.allow_http = true".to_owned(),
        ]);
    }
    settings.join("\n") + "\n"
}

fn spawn(folder: &Path, address: SocketAddr, server: &mut Option<Guarded>) {
    let (config, log) = (folder.join("sallyport.toml"), folder.join("log"));
    let arguments = [OsStr::new("serve"), OsStr::new("--config"), config.as_os_str()];
    let program = OsStr::new(env!("CARGO_BIN_EXE_sallyport"));
    let started = Guarded::spawn(program, &arguments, &log, &Ending { signal: "TERM", remove: None });
    support::until("Sallyport listens", || {
        assert!(started.is_running(), "Sallyport ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
        std::net::TcpStream::connect(address).is_ok()
    });
    *server = Some(started);
}

/// Starts the program with a socket for SSH, as sd_listen_fds(3) says.
fn spawn_on_socket(folder: &Path, socket: &std::net::TcpListener, server: &mut Option<Guarded>) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // The program is to have it under the number 3, which a shell can do without `unsafe`; not every shell knows two digits.
    let inherited = socket.try_clone().unwrap();
    fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let given = format!("exec 3<&{}", std::os::fd::AsRawFd::as_raw_fd(&inherited));
    let run = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ssh exec \"$0\" serve --config \"$1\"";
    let (config, log) = (folder.join("sallyport.toml"), folder.join("log"));
    let script = format!("{given}; {run}");
    let arguments =
        [OsStr::new("-c"), OsStr::new(&script), OsStr::new(env!("CARGO_BIN_EXE_sallyport")), config.as_os_str()];
    let started = Guarded::spawn(OsStr::new("/bin/bash"), &arguments, &log, &Ending { signal: "TERM", remove: None });
    let ready = folder.join("socket");
    support::until("Sallyport serves", || {
        assert!(started.is_running(), "Sallyport ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
        std::os::unix::net::UnixStream::connect(&ready).is_ok()
    });
    *server = Some(started);
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// How many TCP connections over IPv4 with this port at either end are established.
pub fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 01: established
        fields.len() > 3 && fields[3] == "01" && (fields[1].ends_with(&port) || fields[2].ends_with(&port))
    };
    table.lines().skip(1).filter(open).count()
}

/// How many connections at a listening port nobody has accepted yet (`rx_queue` of a listening socket, proc_pid_net_tcp(5)).
pub fn waiting_connections(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let listening = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 0A: listening
        (fields.len() > 4 && fields[3] == "0A" && fields[1].ends_with(&port)).then(|| fields[4].to_owned())
    });
    let queue = listening.unwrap();
    u64::from_str_radix(queue.split(':').nth(1).unwrap(), 16).unwrap()
}

/// Waits until `gone` holds, and says how long after `since` that was.
pub async fn gone_after(what: &str, since: Instant, gone: impl Fn() -> bool) -> Duration {
    while !gone() {
        assert!(since.elapsed() < PATIENCE, "{what} is still there");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    since.elapsed()
}

/// The instant on this process's clock of an instant on the wall's.
pub fn instant_of(at: DateTime<Utc>) -> Instant {
    let now = Clock::system().now();
    match (at - now).to_std() {
        Ok(ahead) => Instant::now() + ahead,
        Err(_) => Instant::now().checked_sub((now - at).to_std().unwrap()).unwrap(),
    }
}

/// A client whose output is collected while it runs.
pub struct Collected {
    pub child: Child,
    out: Arc<std::sync::Mutex<Vec<u8>>>,
    err: Arc<std::sync::Mutex<Vec<u8>>>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Collected {
    pub fn start(run: Run) -> Self {
        let mut child = run.spawn();
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![collect(child.stdout.take().unwrap(), &out), collect(child.stderr.take().unwrap(), &err)];
        Self { child, out, err, readers }
    }

    /// What it has printed so far.
    pub fn seen(&self) -> Vec<u8> {
        self.out.lock().unwrap().clone()
    }

    pub fn seen_bytes(&self) -> usize {
        self.out.lock().unwrap().len()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits until it has printed more than `bytes`.
    pub async fn has_printed(&self, bytes: usize) {
        eventually("the client prints", async || self.seen_bytes() > bytes).await;
    }

    /// Waits for its end; what it printed, and what it said on standard error.
    pub async fn finish(mut self) -> (Vec<u8>, String) {
        drop(self.child.stdin.take());
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the client does not end").unwrap();
        for reader in std::mem::take(&mut self.readers) {
            tokio::time::timeout(PATIENCE, reader).await.expect("the client's output does not end").unwrap();
        }
        (self.seen(), self.errors())
    }
}

fn collect(
    mut stream: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    to: &Arc<std::sync::Mutex<Vec<u8>>>,
) -> tokio::task::JoinHandle<()> {
    let to = to.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            to.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    })
}
