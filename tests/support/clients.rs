//! Stock clients (OpenSSH's `ssh`, `scp` and `sftp`, PuTTY's `plink`) as an engineer would run them, but with their own keys,
//! known hosts and configuration in a temporary folder, no agent, and a deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use russh::keys::{HashAlg, PublicKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::keys::KeyPair;

/// How long a client may take unless its test says more.
const DEADLINE: Duration = Duration::from_mins(1);

/// One person's computer: a folder with a configuration, known hosts and a private key.
pub struct Workstation {
    folder: tempfile::TempDir,
}

impl Workstation {
    /// A computer whose owner logs in with `key`.
    pub fn new(key: &KeyPair) -> Self {
        Self::with_identity(Some(key))
    }

    /// A computer without a key, for logins by password.
    pub fn without_key() -> Self {
        Self::with_identity(None)
    }

    fn with_identity(key: Option<&KeyPair>) -> Self {
        let folder = super::temporary_folder();
        let known_hosts = folder.path().join("known_hosts");
        std::fs::write(&known_hosts, "").expect("a file of known hosts");
        let mut lines = vec![
            "Host *".to_owned(),
            format!("UserKnownHostsFile {}", known_hosts.display()),
            "GlobalKnownHostsFile /dev/null".to_owned(),
            "StrictHostKeyChecking yes".to_owned(),
            "IdentitiesOnly yes".to_owned(),
            "IdentityAgent none".to_owned(),
            "BatchMode yes".to_owned(),
            "ConnectTimeout 20".to_owned(),
            "LogLevel ERROR".to_owned(),
        ];
        if let Some(key) = key {
            // The key's own folder stays where it is: a certificate may be put beside it later.
            lines.push(format!("IdentityFile {}", key.path().display()));
        } else {
            lines.push("IdentityFile none".to_owned());
        }
        std::fs::write(folder.path().join("config"), lines.join("\n") + "\n").expect("a configuration");
        Self { folder }
    }

    /// The configuration, as `ssh -F` takes it: for clients that these helpers do not know, rsync or Ansible say.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Adds a line to the configuration.
    pub fn configure(&self, line: &str) {
        append(&self.config(), line);
    }

    /// Knows the host key of a server.
    pub fn trust(&self, address: SocketAddr, key: &PublicKey) {
        let key = key.to_openssh().expect("a public key's text");
        append(&self.folder.path().join("known_hosts"), &format!("[{}]:{} {key}", address.ip(), address.port()));
    }

    /// Trusts a host CA for every host.
    pub fn trust_ca(&self, ca: &PublicKey) {
        let ca = ca.to_openssh().expect("a public key's text");
        append(&self.folder.path().join("known_hosts"), &format!("@cert-authority * {ca}"));
    }

    /// `ssh [options] user@host`, to be followed by `.arg(…)` for options and a command.
    pub fn ssh(&self, user: &str, address: SocketAddr) -> Run {
        let mut run = self.openssh("ssh");
        run.command.args(["-p", &address.port().to_string(), "-l", user]).arg(address.ip().to_string());
        run
    }

    /// `ssh` with its destination left to the caller, for `-J` and the like.
    pub fn ssh_plain(&self) -> Run {
        self.openssh("ssh")
    }

    /// `scp`; remote paths are `user@127.0.0.1:path`.
    pub fn scp(&self, address: SocketAddr) -> Run {
        let mut run = self.openssh("scp");
        run.command.args(["-P", &address.port().to_string()]);
        run
    }

    /// `sftp -b -`: the batch is the run's input.
    pub fn sftp(&self, user: &str, address: SocketAddr, batch: &str) -> Run {
        let mut run = self.openssh("sftp");
        run.command.args(["-b", "-", "-P", &address.port().to_string()]).arg(format!("{user}@{}", address.ip()));
        run.input(batch)
    }

    /// PuTTY's command-line client with the same key; it takes the host key as an option.
    pub async fn plink(&self, key: &KeyPair, user: &str, address: SocketAddr, host_key: &PublicKey) -> Run {
        let ppk = self.putty_key(key).await;
        let mut run = Run::new("plink", self.folder.path());
        run.command.args(["-ssh", "-batch", "-noagent", "-P", &address.port().to_string(), "-l", user, "-i"]).arg(&ppk);
        run.command
            .args(["-hostkey", &host_key.fingerprint(HashAlg::Sha256).to_string()])
            .arg(address.ip().to_string());
        run
    }

    /// `key` as PuTTY's programs take it.
    pub async fn putty_key(&self, key: &KeyPair) -> PathBuf {
        let ppk = self.folder.path().join("key.ppk");
        let mut convert = Command::new("puttygen");
        convert.arg(key.path()).args(["-O", "private", "-o"]).arg(&ppk);
        succeed("puttygen", convert).await;
        ppk
    }

    /// `key` as Dropbear's client takes it, which finds `known` hosts at this workstation: a name and a key each.
    pub async fn dropbear_key(&self, key: &KeyPair, known: &[(&str, &PublicKey)]) -> PathBuf {
        let folder = self.folder.path().join(".ssh");
        std::fs::create_dir_all(&folder).expect("a folder");
        // It reads one name in each line, without a port, and takes a comment for a part of the key.
        let line = |(name, key): &(&str, &PublicKey)| {
            let text = key.to_openssh().expect("a public key's text");
            let words: Vec<&str> = text.split(' ').take(2).collect();
            format!("{name} {}\n", words.join(" "))
        };
        let lines: String = known.iter().map(line).collect();
        std::fs::write(folder.join("known_hosts"), lines).expect("a file of known hosts");
        let converted = self.folder.path().join("key.dropbear");
        let mut convert = Command::new("dropbearconvert");
        convert.args(["openssh", "dropbear"]).arg(key.path()).arg(&converted);
        succeed("dropbearconvert", convert).await;
        converted
    }

    /// rsync, which calls this workstation's `ssh`; remote paths are `user@127.0.0.1:path`.
    pub fn rsync(&self, address: SocketAddr) -> Run {
        let mut run = Run::new("rsync", self.folder.path());
        run.command.arg("-e").arg(format!("ssh -F {} -p {}", self.config().display(), address.port()));
        run
    }

    /// What the last client with [`Run::answers`] asked, a line each.
    pub fn asked(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.folder.path().join("answers/asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    /// Any other program, with this workstation as its home.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Run {
        Run::new(program, self.folder.path())
    }

    fn openssh(&self, program: &str) -> Run {
        let mut run = Run::new(program, self.folder.path());
        run.command.arg("-F").arg(self.config());
        run
    }
}

/// Runs a helper of a client's to its end.
async fn succeed(name: &str, mut program: Command) {
    let output = program.output().await.unwrap_or_else(|_| panic!("no {name}; scripts/install-test-deps installs it"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn append(path: &Path, line: &str) {
    let text = std::fs::read_to_string(path).expect("a file of the workstation");
    std::fs::write(path, text + line + "\n").expect("a file of the workstation");
}

/// A client to be run.
pub struct Run {
    command: Command,
    input: Vec<u8>,
    files: bool,
    deadline: Duration,
    home: PathBuf,
}

/// What a client left.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub took: Duration,
}

impl Output {
    /// The exit code; `None` if the client itself died by a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The output of a client that is expected to succeed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        let (status, signal) = (self.status, self.status.signal());
        assert!(status.success(), "the client ended with {status} ({signal:?}): {}", self.errors());
        self
    }
}

impl Run {
    fn new(program: impl AsRef<OsStr>, home: &Path) -> Self {
        let mut command = Command::new(program);
        command.env("HOME", home).env_remove("SSH_AUTH_SOCK").env_remove("DISPLAY").env("TERM", "xterm-256color");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Self { command, input: Vec::new(), files: false, deadline: DEADLINE, home: home.to_owned() }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// An OpenSSH option, `-o`.
    pub fn option(self, option: &str) -> Self {
        self.arg("-o").arg(option)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the client reads from its standard input, to the end.
    pub fn input(mut self, bytes: impl AsRef<[u8]>) -> Self {
        bytes.as_ref().clone_into(&mut self.input);
        self
    }

    /// What is too large for memory: its standard input and output are files.
    pub fn files(mut self, input: &Path, output: &Path) -> Self {
        self.command.stdin(File::open(input).expect("an input file"));
        self.command.stdout(File::create(output).expect("an output file"));
        self.files = true;
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Answers OpenSSH's questions with a password, by an askpass program. Must come before the destination's command.
    pub fn password(mut self, password: &str) -> Self {
        let path = self.home.join("askpass");
        std::fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{password}\nEND\n")).expect("an askpass program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its permissions");
        self.command.env("SSH_ASKPASS", path).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        self.option("BatchMode=no")
    }

    /// Answers OpenSSH's questions by what they say: `("Password:", "secret")`. To the same question twice the same answer is
    /// given, except that of answers to one question the n-th is given the n-th time, and then the last. Must come before the
    /// destination's command.
    pub fn answers(mut self, answers: &[(&str, &str)]) -> Self {
        let place = self.home.join("answers");
        // A run of its own for each client, so that the count of questions starts anew.
        drop(std::fs::remove_dir_all(&place));
        std::fs::create_dir(&place).expect("a place for answers");
        let mut cases = String::new();
        let mut questions: Vec<&str> = answers.iter().map(|(question, _)| *question).collect();
        questions.dedup();
        for (number, question) in questions.iter().enumerate() {
            for (turn, (_, answer)) in answers.iter().filter(|(asked, _)| asked == question).enumerate() {
                std::fs::write(place.join(format!("{number}.{turn}")), format!("{answer}\n")).expect("an answer");
            }
            cases += &format!("*'{question}'*) n={number};;\n");
        }
        let place = place.display();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$1\" >> {place}/asked\ncase \"$1\" in\n{cases}*) exit 1;;\nesac\n\
             t=$(cat {place}/turn.$n 2>/dev/null || echo 0)\n\
             [ -e {place}/$n.$t ] || t=$((t - 1))\n\
             echo $((t + 1)) > {place}/turn.$n\ncat {place}/$n.$t\n"
        );
        let path = self.home.join("askpass");
        std::fs::write(&path, script).expect("an askpass program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its permissions");
        self.command.env("SSH_ASKPASS", path).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        self.option("BatchMode=no")
    }

    /// Runs the client to its end, reading and writing at the same time.
    pub async fn run(mut self) -> Output {
        let start = Instant::now();
        let mut child = self.command.spawn().expect("a client; scripts/install-test-deps installs it");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        assert!(self.files || (stdin.is_some() && stdout.is_some()), "its input and output");
        let mut stderr = stderr.expect("its errors");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let running = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A client that ends early closes its input; its exit status tells what happened.
                    let _closed: std::io::Result<()> = stdin.write_all(&self.input).await;
                }
            };
            let read = async {
                if let Some(mut stdout) = stdout {
                    stdout.read_to_end(&mut out).await.expect("its output");
                }
            };
            let ((), (), errors) = tokio::join!(write, read, stderr.read_to_end(&mut err));
            errors.expect("its errors");
            child.wait().await.expect("its end")
        };
        let status = tokio::time::timeout(self.deadline, running).await;
        let Ok(status) = status else {
            panic!("the client did not end within {:?}; it said: {}", self.deadline, String::from_utf8_lossy(&err));
        };
        Output { status, stdout: out, stderr: err, took: start.elapsed() }
    }

    /// Starts the client and leaves its streams to the test. It is killed when the value is dropped.
    pub fn spawn(mut self) -> tokio::process::Child {
        self.command.spawn().expect("a client; scripts/install-test-deps installs it")
    }

    /// Starts the client in a terminal of its own, as an engineer sees it.
    pub fn in_terminal(self, columns: u16, rows: u16) -> Terminal {
        let (master, slave) = pty_process::open().expect("a terminal");
        master.resize(pty_process::Size::new(rows, columns)).expect("a terminal's size");
        let command = self.command.as_std();
        let mut inside = pty_process::Command::new(command.get_program()).args(command.get_args()).kill_on_drop(true);
        for (name, value) in command.get_envs() {
            inside = match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        let child = inside.spawn(slave).expect("a client; scripts/install-test-deps installs it");
        Terminal { master, child, seen: Vec::new() }
    }
}

/// A client in a terminal.
pub struct Terminal {
    master: pty_process::Pty,
    child: tokio::process::Child,
    seen: Vec<u8>,
}

impl Terminal {
    /// Types.
    pub async fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).await.expect("a terminal's input");
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.master.resize(pty_process::Size::new(rows, columns)).expect("a terminal's size");
    }

    /// Reads until `text` was printed after what the last call found, and returns all that came before its end.
    pub async fn wait_for(&mut self, text: &str) -> String {
        let reading = async {
            loop {
                if let Some(at) = find(&self.seen, text.as_bytes()) {
                    let rest = self.seen.split_off(at + text.len());
                    return std::mem::replace(&mut self.seen, rest);
                }
                let read = self.master.read_buf(&mut self.seen).await;
                assert!(
                    read.is_ok(),
                    "the client ended before it printed {text:?}: {:?}",
                    String::from_utf8_lossy(&self.seen)
                );
            }
        };
        let Ok(found) = tokio::time::timeout(super::PATIENCE, reading).await else {
            panic!("the client did not print {text:?} within {:?}", super::PATIENCE);
        };
        String::from_utf8_lossy(&found).into_owned()
    }

    /// Reads until nothing has come for `quiet`, and returns what came.
    pub async fn settle(&mut self, quiet: Duration) -> String {
        while let Ok(read) = tokio::time::timeout(quiet, self.master.read_buf(&mut self.seen)).await {
            assert!(read.is_ok(), "the client ended: {:?}", String::from_utf8_lossy(&self.seen));
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.seen)).into_owned()
    }

    /// Reads to the end and returns what came, and how the client ended.
    pub async fn finish(mut self) -> (String, ExitStatus) {
        let reading = async {
            // A terminal whose last program is gone gives an error instead of an end of file.
            while self.master.read_buf(&mut self.seen).await.is_ok_and(|count| count > 0) {}
            self.child.wait().await.expect("its end")
        };
        let status = tokio::time::timeout(DEADLINE, reading).await.expect("the client did not end in its terminal");
        (String::from_utf8_lossy(&self.seen).into_owned(), status)
    }

    /// The client's process id, for signals.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
