//! A throw-away PostgreSQL cluster on a Unix socket in a temporary folder. One cluster is shared by the tests of a process, each test
//! gets a database of its own; a test that stops the server takes a cluster of its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sqlx::{Connection, Executor, PgConnection};

use super::process::{Ending, Guarded};

/// A cluster.
pub struct Postgres {
    folder: PathBuf,
    server: Mutex<Option<Guarded>>,
    databases: AtomicU32,
    /// Whether a commit waits for the disk, as where it matters.
    durable: bool,
}

impl Postgres {
    /// The cluster that all tests of this process share. Do not stop it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    /// A cluster of one's own.
    pub fn new() -> Self {
        Self::create(false)
    }

    /// A cluster of one's own in which a commit waits for the disk, for what is measured.
    pub fn durable() -> Self {
        Self::create(true)
    }

    fn create(durable: bool) -> Self {
        let folder = super::temporary_folder().keep();
        let data = folder.join("data");
        std::fs::create_dir(&data).expect("a data folder");
        if is_root() {
            let postgres =
                nix::unistd::User::from_name("postgres").expect("the user database").expect("the user `postgres`");
            for path in [&folder, &data] {
                chown(path, Some(postgres.uid.as_raw()), Some(postgres.gid.as_raw()))
                    .expect("a folder of PostgreSQL's own");
            }
        }
        let (program, arguments) = as_postgres(
            "initdb",
            &[
                OsStr::new("--pgdata"),
                data.as_os_str(),
                OsStr::new("--username=postgres"),
                OsStr::new("--auth=trust"),
                OsStr::new("--encoding=UTF8"),
                OsStr::new("--locale=C"),
                OsStr::new("--no-sync"),
            ],
        );
        let output = Command::new(program).args(arguments).current_dir("/").output().expect("initdb");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));

        let cluster = Self { folder, server: Mutex::new(None), databases: AtomicU32::new(0), durable };
        cluster.start();
        cluster
    }

    /// Starts the server again after `stop`, with the same data.
    pub fn start(&self) {
        let data = self.folder.join("data");
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(server.is_none(), "PostgreSQL is running already");
        let socket = self.folder.display();
        let mut settings = vec![
            format!("unix_socket_directories={socket}"),
            "listen_addresses=".to_owned(),
            "max_connections=300".to_owned(),
            "shared_buffers=64MB".to_owned(),
            "log_min_messages=warning".to_owned(),
        ];
        if !self.durable {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
        }
        let mut arguments = vec![OsString::from("-D"), data.clone().into_os_string()];
        for setting in settings {
            arguments.extend(["-c".into(), setting.into()]);
        }
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let (program, arguments) = as_postgres("postgres", &arguments);
        let ending = Ending { signal: "INT", remove: Some(&self.folder) }; // "fast": sessions are ended
        let started = Guarded::spawn(&program, &arguments, &self.log(), &ending);
        super::until("PostgreSQL is ready", || {
            assert!(
                started.is_running(),
                "PostgreSQL ended: {}",
                std::fs::read_to_string(self.log()).unwrap_or_default()
            );
            // The eighth line of this file is how `pg_ctl --wait` knows it, too.
            let lines = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            lines.lines().nth(7).is_some_and(|line| line.trim() == "ready")
        });
        *server = Some(started);
    }

    /// Stops the server: sessions are cut, new ones are refused.
    pub fn stop(&self) {
        if let Some(server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            server.stop_and_keep();
        }
    }

    /// Lets the server answer nobody until `resume`: connections stay open, and new ones are taken and left waiting.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets the server answer again after `pause`.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = server.as_ref().expect("PostgreSQL runs").pid();
        for pid in std::iter::once(server).chain(super::sshd::children_of(server)) {
            let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
            // A backend may have ended in between.
            let _gone: nix::Result<()> = nix::sys::signal::kill(pid, signal);
        }
    }

    /// A new, empty database; its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("a connection to PostgreSQL");
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("a new database");
        connection.close().await.expect("the end of the connection");
        self.url(&name)
    }

    /// A new database that starts as a copy of another, to which nobody may be connected; its URL.
    pub async fn copy(&self, of: &str) -> String {
        let name = format!("copy_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed));
        let original = of.split_once('?').map_or(of, |(path, _)| path).trim_start_matches("postgres:///");
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("a connection to PostgreSQL");
        let create = format!("CREATE DATABASE {name} TEMPLATE {original}");
        connection.execute(sqlx::AssertSqlSafe(create)).await.expect("a copy of a database");
        connection.close().await.expect("the end of the connection");
        self.url(&name)
    }

    /// Removes a database, to which nobody may be connected.
    pub async fn remove(&self, url: &str) {
        let name = url.split_once('?').map_or(url, |(path, _)| path).trim_start_matches("postgres:///");
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("a connection to PostgreSQL");
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        connection.execute(sqlx::AssertSqlSafe(drop)).await.expect("the end of a database");
        connection.close().await.expect("the end of the connection");
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.folder.display())
    }

    /// All that is in a database, as `pg_dump` writes it.
    pub fn dump(url: &str) -> Vec<u8> {
        let dumped = Command::new(binaries().join("pg_dump")).arg(url).output().expect("pg_dump");
        assert!(dumped.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dumped.stderr));
        dumped.stdout
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        std::fs::remove_dir_all(&self.folder).expect("the cluster's folder is removed");
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// PostgreSQL refuses to run as root: then its programs run as its own user.
fn as_postgres(name: &str, arguments: &[&OsStr]) -> (OsString, Vec<OsString>) {
    let program = binaries().join(name).into_os_string();
    let rest = arguments.iter().map(|&argument| argument.to_owned());
    if !is_root() {
        return (program, rest.collect());
    }
    let setpriv = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"].map(OsString::from);
    (OsString::from("setpriv"), setpriv.into_iter().chain([program]).chain(rest).collect())
}

/// The newest PostgreSQL where Debian puts it.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL; scripts/install-test-deps installs it");
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path): &(u32, PathBuf)| Path::exists(&path.join("initdb")))
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL's server programs; scripts/install-test-deps installs them").1
}
