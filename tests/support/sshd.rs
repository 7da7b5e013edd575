//! A real OpenSSH server on a free loopback port, as whoever runs the tests: as root it takes root's logins, else those of that
//! one account.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use russh::keys::PublicKey;

use super::keys::KeyPair;
use super::process::{Ending, Guarded};

/// Debian's place; the server refuses to start by a relative path.
const SSHD: &str = "/usr/sbin/sshd";

/// Who may log in, and what else the server's configuration is to say.
#[derive(Default)]
pub struct Settings<'a> {
    pub authorized_keys: Vec<&'a PublicKey>,
    pub user_cas: Vec<&'a PublicKey>,
    /// More lines of `sshd_config`; they come first, so they win.
    pub lines: Vec<String>,
}

/// A running server; it ends when dropped. Sessions that it has served end with it.
pub struct Sshd {
    address: SocketAddr,
    host_key: KeyPair,
    folder: tempfile::TempDir,
    server: Option<Guarded>,
}

impl Sshd {
    /// Starts a server and waits until it listens.
    pub fn start(settings: &Settings<'_>) -> Self {
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").expect("the folder that sshd gives up its rights in");
        }
        let host_key = KeyPair::ed25519();
        let folder = super::temporary_folder();
        let write = |name: &str, keys: &[&PublicKey]| -> PathBuf {
            let lines: Vec<String> =
                keys.iter().map(|key| key.to_openssh().expect("a public key's text") + "\n").collect();
            let path = folder.path().join(name);
            std::fs::write(&path, lines.concat()).expect("a file of keys");
            path
        };
        let authorized_keys = write("authorized_keys", &settings.authorized_keys);
        let user_cas = write("user_cas", &settings.user_cas);

        // Another process may take the port between its choice and its use; then the server says so, and the next is tried.
        for _ in 0..20 {
            let address = SocketAddr::from(([127, 0, 0, 1], super::free_port()));
            let text = config(settings, address, host_key.path(), &authorized_keys, &user_cas, folder.path());
            let path = folder.path().join("sshd_config");
            std::fs::write(&path, text).expect("a configuration");
            let log = folder.path().join("log");
            let arguments = [OsStr::new("-D"), OsStr::new("-e"), OsStr::new("-f"), path.as_os_str()];
            let server = Guarded::spawn(OsStr::new(SSHD), &arguments, &log, &Ending { signal: "TERM", remove: None });
            let mut listens = false;
            super::until("sshd listens or gives up", || {
                listens = read(&log).contains(&format!("Server listening on 127.0.0.1 port {}", address.port()));
                listens || !server.is_running()
            });
            if listens {
                return Self { address, host_key, folder, server: Some(server) };
            }
            let said = read(&log);
            assert!(said.contains("Address already in use"), "sshd does not start: {said}");
        }
        panic!("no port stays free for sshd");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn host_key(&self) -> &PublicKey {
        self.host_key.public()
    }

    /// The one login that it takes.
    pub fn login() -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("the user database");
        user.expect("the user who runs the tests").name
    }

    /// Trusts one more user CA, given as a public key's text; the server reads the file at every login.
    pub fn trust_user_ca(&self, line: &str) {
        let path = self.folder.path().join("user_cas");
        let text = read(&path) + line.trim() + "\n";
        std::fs::write(path, text).expect("a file of keys");
    }

    /// Trusts this user CA alone.
    pub fn trust_only_user_ca(&self, line: &str) {
        std::fs::write(self.folder.path().join("user_cas"), format!("{}\n", line.trim())).expect("a file of keys");
    }

    /// What it has logged so far, at level VERBOSE: keys, certificates with their ids, ends of connections.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    /// The process id of the listener.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(0, Guarded::pid)
    }

    /// Sessions alive now: the listener's child processes.
    pub fn sessions(&self) -> usize {
        children_of(self.pid()).len()
    }

    /// Ends the listener. Sessions go on, as OpenSSH has it.
    pub fn stop(&mut self) {
        self.server = None;
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let sessions = children_of(self.pid());
        self.stop();
        for pid in sessions {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
            // It may have ended with the listener.
            let _gone: nix::Result<()> = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
    }
}

fn config(
    settings: &Settings<'_>,
    address: SocketAddr,
    host_key: &Path,
    authorized_keys: &Path,
    user_cas: &Path,
    folder: &Path,
) -> String {
    let mut lines = settings.lines.clone();
    let own = [
        format!("ListenAddress {}", address.ip()),
        format!("Port {}", address.port()),
        format!("HostKey {}", host_key.display()),
        format!("PidFile {}", folder.join("pid").display()),
        // The account's own start-up files may print, and may take longer than all that is measured.
        format!("SetEnv HOME={}", folder.display()),
        format!("AuthorizedKeysFile {}", authorized_keys.display()),
        format!("TrustedUserCAKeys {}", user_cas.display()),
    ];
    let usual = [
        "PermitRootLogin yes",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "MaxStartups 2000",
        "MaxSessions 2000",
        "AcceptEnv LANG LC_*",
        "PrintMotd no",
        "PrintLastLog no",
        "AllowTcpForwarding yes",
        "Subsystem sftp internal-sftp",
        "LogLevel VERBOSE",
    ];
    lines.extend(own);
    lines.extend(usual.map(str::to_owned));
    if knows("PerSourcePenalties=no", host_key) {
        lines.push("PerSourcePenalties no".to_owned());
    }
    lines.join("\n") + "\n"
}

/// Whether this OpenSSH has an option; a newer server punishes an address that often fails, which tests do on purpose.
fn knows(option: &str, host_key: &Path) -> bool {
    let check = Command::new(SSHD).args(["-t", "-f", "/dev/null", "-o", option, "-h"]).arg(host_key).output();
    check.is_ok_and(|output| output.status.success())
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The child processes of `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
