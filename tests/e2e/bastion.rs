//! The built program as an operator runs it: `sallyport serve` with a configuration file, administered by its own commands over
//! its socket. And the usual scene around it: a real target, a person with a workstation, a grant.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use russh::keys::PublicKey;
use serde_json::Value;
use tokio::process::Command;

use crate::support::clients::{Run, Workstation};
use crate::support::keys::KeyPair;
use crate::support::locked_s3::LockedS3;
use crate::support::postgres::Postgres;
use crate::support::process::{Ending, Guarded};
use crate::support::s3::{ACCESS_KEY, BUCKET, REGION, S3, SECRET_KEY};
use crate::support::sshd::{Settings as SshdSettings, Sshd};

/// The program under test.
pub const SALLYPORT: &str = env!("CARGO_BIN_EXE_sallyport");

/// Where a bastion keeps things.
pub enum Stores {
    /// PostgreSQL, by this URL, and an S3 server.
    Large { database: String, s3: S3 },
    /// SQLite, and an S3 server that locks what it has.
    Locked(LockedS3),
    /// SQLite and a folder.
    Small,
}

impl Stores {
    /// A database of its own in the tests' PostgreSQL, and an S3 server of its own.
    pub async fn large() -> Self {
        Self::Large { database: Postgres::shared().database().await, s3: S3::start().await }
    }
}

/// What a test wants to be otherwise than usual.
#[derive(Default)]
pub struct Settings {
    /// More lines of `[ssh]`.
    pub ssh: Vec<String>,
    /// More lines of `[api]`.
    pub api: Vec<String>,
    /// Lines of `[consent]`.
    pub consent: Vec<String>,
    /// Lines of `[ledger]`.
    pub ledger: Vec<String>,
    /// More sections, with their heads.
    pub sections: Vec<String>,
    /// `[log] level`, if not "info".
    pub log_level: Option<&'static str>,
}

/// A running bastion. It ends when dropped.
pub struct Bastion {
    folder: tempfile::TempDir,
    stores: Stores,
    server: Option<Guarded>,
    address: SocketAddr,
    host_key: Option<PublicKey>,
    settings: Settings,
}

impl Bastion {
    /// Starts a bastion on a port of its own and waits until it is open.
    pub async fn start(stores: Stores, settings: Settings) -> Self {
        let folder = crate::support::temporary_folder();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut bastion = Self { folder, stores, server: None, address, host_key: None, settings };
        bastion.open().await;
        bastion.host_key = Some(bastion.scan().await);
        bastion
    }

    /// Starts it again after [`Bastion::kill`] or [`Bastion::stop`], on the same port with the same data.
    pub async fn open(&mut self) {
        assert!(self.server.is_none(), "the bastion is running already");
        let config = self.path("sallyport.toml");
        std::fs::write(&config, self.config()).expect("a configuration");
        let said_before = self.log().len();
        let arguments = [OsStr::new("serve"), OsStr::new("--config"), config.as_os_str()];
        let ending = Ending { signal: "TERM", remove: None };
        let server = Guarded::spawn(OsStr::new(SALLYPORT), &arguments, &self.path("log"), &ending);
        let mut opened = None;
        crate::support::eventually("the bastion is open", async || {
            let log = self.log();
            let said = log.get(said_before..).unwrap_or_default();
            assert!(server.is_running(), "the bastion does not start: {said}");
            opened = said.lines().find(|line| line.contains("The bastion is open.")).and_then(address_in);
            opened.is_some()
        })
        .await;
        self.address = opened.expect("an address");
        self.server = Some(server);
    }

    fn config(&self) -> String {
        let folder = self.folder.path().display();
        let level = self.settings.log_level.unwrap_or("info");
        let mut text = format!(
            "[server]\ndata_dir = \"{folder}/data\"\nnode = \"e2e\"\ndrain_for = \"0s\"\n[log]\nlevel = \"{level}\"\n[ssh]\nlisten = \"{}\"\n{}\n\
             [api]\n{}\n[consent]\n{}\n[ledger]\n{}\n{}\n",
            self.address,
            self.settings.ssh.join("\n"),
            self.settings.api.join("\n"),
            self.settings.consent.join("\n"),
            self.settings.ledger.join("\n"),
            self.settings.sections.join("\n"),
        );
        let endpoint = match &self.stores {
            Stores::Large { database, s3 } => {
                text += &format!("[database]\nurl = \"{database}\"\nmax_connections = 6\n");
                s3.endpoint()
            }
            Stores::Locked(s3) => s3.endpoint().to_owned(),
            Stores::Small => return text,
        };
        let secret = self.path("s3-secret");
        std::fs::write(&secret, SECRET_KEY).expect("a secret's file");
        let secret = secret.display();
        text += &format!(
            "[blobs]\nurl = \"s3://{BUCKET}/e2e\"\nendpoint = \"{endpoint}\"\nregion = \"{REGION}\"\n\
             allow_http = true\naccess_key_id = \"{ACCESS_KEY}\"\nsecret_access_key_file = \"{secret}\"\n"
        );
        text
    }

    /// The host key, as any stock client could fetch it.
    async fn scan(&self) -> PublicKey {
        let mut scan = Command::new("ssh-keyscan");
        scan.args(["-t", "ed25519", "-p", &self.address.port().to_string()]).arg(self.address.ip().to_string());
        let found = scan.output().await.expect("ssh-keyscan");
        let text = String::from_utf8(found.stdout).expect("text");
        let (_, key) = text.trim().split_once(' ').unwrap_or_else(|| panic!("no host key: {text}; {}", self.log()));
        PublicKey::from_openssh(key).expect("a host key")
    }

    /// Ends it at once, without a word.
    pub fn kill(&mut self) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("a kill");
        self.server = None;
    }

    /// Ends it as an operator would, and waits for its end.
    pub fn stop(&mut self) {
        self.server = None;
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("a running bastion").pid()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn host_key(&self) -> &PublicKey {
        self.host_key.as_ref().expect("a host key")
    }

    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// All that it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read(self.path("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A place for a test's own files, beside the data.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs one of its commands on its socket, as its operator.
    pub async fn try_admin(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(SALLYPORT);
        program.args(arguments).arg("--no-input").arg("--socket").arg(self.data().join("sallyport.sock"));
        program.env("TZ", "UTC").env_remove("SALLYPORT_URL").current_dir(self.folder.path());
        program.output().await.expect("the program")
    }

    /// Runs a command that must succeed; its standard output.
    pub async fn admin(&self, arguments: &[&str]) -> String {
        let output = self.try_admin(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`sallyport {}`: {errors}", arguments.join(" "));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command with `--json` that must succeed; what it printed.
    pub async fn ask(&self, arguments: &[&str]) -> Value {
        let text = self.admin(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).expect("JSON")
    }

    /// Adds a person with a key.
    pub async fn add_person(&self, name: &str, key: &KeyPair) {
        self.admin(&["person", "add", name, "--key", &key.line()]).await;
    }

    /// Adds a server as a target that takes the bastion's certificates, for the account that runs the tests.
    pub async fn add_target(&self, name: &str, sshd: &Sshd) {
        sshd.trust_user_ca(&self.admin(&["ca", "user"]).await);
        self.add_target_with(name, sshd, &[]).await;
    }

    /// Adds a server as a target, with more options.
    pub async fn add_target_with(&self, name: &str, sshd: &Sshd, options: &[&str]) {
        let (address, login) = (sshd.address().to_string(), Sshd::login());
        let key = sshd.host_key().to_openssh().expect("a host key's text");
        let usual = ["target", "add", name, &address, "--login", &login, "--host-key", &key];
        self.admin(&[&usual, options].concat()).await;
    }

    /// Allows a person everything but forwarding on a target for an hour.
    pub async fn grant(&self, person: &str, target: &str) {
        self.grant_with(person, target, &["--for", "1h"]).await;
    }

    pub async fn grant_with(&self, person: &str, target: &str, options: &[&str]) {
        let usual = ["grant", "new", person, target, "--reason", "e2e", "--allow", "shell,exec,upload,download"];
        self.admin(&[&usual, options].concat()).await;
    }

    /// The sessions of the books, the latest first.
    pub async fn sessions(&self) -> Vec<Value> {
        let listed = self.ask(&["session", "ls"]).await;
        listed["items"].as_array().expect("a list").clone()
    }
}

/// The `address=…` of a line of the log.
fn address_in(line: &str) -> Option<SocketAddr> {
    line.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
}

/// A bastion on PostgreSQL and S3, a real OpenSSH server as its target `web-1`, and Alice at her desk, who may go there.
pub struct Scene {
    pub bastion: Bastion,
    pub sshd: Sshd,
    pub key: KeyPair,
    pub desk: Workstation,
}

impl Scene {
    pub async fn open() -> Self {
        Self::with(Settings::default(), &[]).await
    }

    /// The same with a bastion and a target that are set up otherwise: `target` are lines of `sshd_config`.
    pub async fn with(settings: Settings, target: &[&str]) -> Self {
        Self::on(Stores::large().await, settings, target).await
    }

    pub async fn on(stores: Stores, settings: Settings, target: &[&str]) -> Self {
        let bastion = Bastion::start(stores, settings).await;
        let lines = target.iter().map(|line| (*line).to_owned()).collect();
        let sshd = Sshd::start(&SshdSettings { lines, ..SshdSettings::default() });
        let key = KeyPair::ed25519();
        let desk = Workstation::new(&key);
        desk.trust(bastion.address(), bastion.host_key());
        bastion.add_person("alice", &key).await;
        bastion.add_target("web-1", &sshd).await;
        bastion.grant("alice", "web-1").await;
        Self { bastion, sshd, key, desk }
    }

    /// What Alice calls herself: whom, and where to.
    pub fn user() -> String {
        format!("alice+{}@web-1", Sshd::login())
    }

    /// `ssh` from Alice's desk to the target.
    pub fn ssh(&self) -> Run {
        self.desk.ssh(&Self::user(), self.bastion.address())
    }

    /// Where a file is for scp and rsync, which take the target's as `user@bastion:path`.
    pub fn remote(&self, path: &Path) -> String {
        format!("{}@{}:{}", Self::user(), self.bastion.address().ip(), path.display())
    }
}

/// A connection that several channels share. It ends when dropped.
pub struct Master {
    socket: PathBuf,
    _client: tokio::process::Child,
}

impl Master {
    /// Connects, and waits until channels can be opened.
    pub async fn open(scene: &Scene) -> Self {
        let socket = scene.bastion.path("master");
        let client = scene.ssh().args(["-M", "-N", "-S"]).arg(&socket).spawn();
        crate::support::eventually("the shared connection is open", async || socket.exists()).await;
        Self { socket, _client: client }
    }

    /// `ssh` over the shared connection.
    pub fn ssh(&self, scene: &Scene) -> Run {
        scene.ssh().arg("-S").arg(&self.socket)
    }
}
