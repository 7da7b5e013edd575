//! The built program with PostgreSQL behind it, as the measurements run it.

#![allow(dead_code, reason = "each benchmark takes what it needs from this shared module")]

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support;
use crate::support::postgres::Postgres;
use crate::support::process::{Ending, Guarded};

/// A running Sallyport. It ends when dropped.
pub(crate) struct Bastion {
    server: Guarded,
    binary: OsString,
    folder: tempfile::TempDir,
    address: SocketAddr,
    database: String,
    _postgres: Postgres,
}

impl Bastion {
    /// Starts the program with these lines in `[ssh]`; `SALLYPORT_BIN` names another than the one that was built.
    pub(crate) fn start(ssh: &str) -> Self {
        let binary: OsString =
            std::env::var_os("SALLYPORT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_sallyport").into());
        let postgres = Postgres::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let database = runtime.block_on(postgres.database());
        let folder = support::temporary_folder();
        let (data, socket) = (folder.path().join("data"), folder.path().join("socket"));
        let blobs = folder.path().join("blobs");
        std::fs::create_dir(&blobs).expect("a folder for recordings");
        let address = SocketAddr::from(([127, 0, 0, 1], support::free_port()));
        let config = folder.path().join("sallyport.toml");
        let text = format!(
            "[server]\ndata_dir = \"{}\"\n\n[ssh]\nlisten = \"{address}\"\n{ssh}\n\n[api]\nsocket = \"{}\"\n\n\
             [database]\nurl = \"{database}\"\n\n[blobs]\nurl = \"file://{}\"\n",
            data.display(),
            socket.display(),
            blobs.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let log = folder.path().join("log");
        let arguments = [OsStr::new("serve"), OsStr::new("--config"), config.as_os_str()];
        let server = Guarded::spawn(&binary, &arguments, &log, &Ending { signal: "TERM", remove: None });
        support::until("Sallyport listens", || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(server.is_running(), "Sallyport ended: {}", said());
            socket.exists() && std::net::TcpStream::connect(address).is_ok()
        });
        Self { server, binary, folder, address, database, _postgres: postgres }
    }

    /// Where engineers connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database's URL.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("sallyport.toml")
    }

    pub(crate) fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// All that it has logged so far.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Runs one of its commands; what it printed.
    pub(crate) fn admin(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.binary);
        let output = command.arg("--socket").arg(self.folder.path().join("socket")).args(arguments).output();
        let output = output.expect("sallyport");
        assert!(output.status.success(), "sallyport {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Lets alice go to node-1 for a day.
    pub(crate) fn grant(&self, login: &str, capabilities: &str) {
        let window = ["--for", "24h", "--reason", "bench", "--allow", capabilities];
        self.admin(&[&["grant", "new", "alice", "node-1", "--login", login], &window[..]].concat());
    }

    /// Waits until every recording that has ended is at rest.
    pub(crate) fn settle(&self) {
        support::until("recordings are at rest", || self.journals() == 0);
    }

    /// How many recordings have a journal: they go on, or are not at rest yet.
    pub(crate) fn journals(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("data/journal")).map_or(usize::MAX, Iterator::count)
    }

    /// The bytes of all journals.
    pub(crate) fn journal_bytes(&self) -> u64 {
        size(&self.folder.path().join("data/journal"))
    }

    /// The bytes of all recordings at rest.
    pub(crate) fn at_rest(&self) -> u64 {
        size(&self.folder.path().join("blobs"))
    }

    /// CPU time that it has used so far, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.pid())).expect("Sallyport runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).expect("a number").expect("a number");
        (ticks(11) + ticks(12)) as f64 / per_second as f64
    }

    /// Its proportional set size, in KB.
    pub(crate) fn memory(&self) -> f64 {
        let rollup =
            std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.server.pid())).expect("Sallyport runs");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// The bytes of all files below; one that goes meanwhile counts as none.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(folder) if folder.is_dir() => size(&entry.path()),
        Ok(file) => file.len(),
        Err(_gone) => 0,
    });
    sizes.sum()
}
