//! How each client of the table is called, and what it is to bring back.
//!
//! Ways through the bastion: OpenSSH and what runs it by ProxyJump; PuTTY's programs by `-proxycmd "plink … -nc %host:%port"`;
//! Dropbear by `-J "dbclient … -B host:port"`; the libraries open a "direct-tcpip" channel and connect once more on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use russh::keys::{HashAlg, PublicKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Case, Cell, Client, Deed, Way};
use crate::bastion::Bastion;
use crate::clients::{python, venv};
use crate::support::clients::{Output, Run, Workstation};
use crate::support::keys::KeyPair;
use crate::support::sshd::Sshd;
use crate::support::{eventually, free_port};

/// A client that has not ended by then hangs.
const DEADLINE: Duration = Duration::from_secs(60);

pub const INPUT: &str = "from the client\n";
pub const ERRORS: &str = "problems\n";
pub const EXIT: u32 = 5;

/// What goes through a forward, and what comes back.
pub const SAID: &str = "over here";
pub const ANSWER: &str = "over here!";

/// A command with something of everything.
pub fn command() -> String {
    format!("seq 20000; cat; echo problems >&2; exit {EXIT}")
}

pub fn output() -> String {
    let numbers: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    numbers + INPUT
}

/// The file of a cell: bytes of all values, another file in each cell.
pub fn content(cell: &Cell) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(cell.number as u64 + 1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(200_000 + cell.number).collect()
}

/// Everything around the cells.
pub struct Stage {
    pub bastion: Bastion,
    pub server: SocketAddr,
    _sshd: Sshd,
    desks: Vec<(KeyPair, Workstation)>,
    /// `known-hosts --plain`: a line for each target, for clients that know no authorities.
    plain: String,
}

impl Stage {
    pub fn new(
        bastion: Bastion,
        sshd: Sshd,
        server: SocketAddr,
        desks: Vec<(KeyPair, Workstation)>,
        authority: &str,
        plain: &str,
    ) -> Self {
        let key = authority.strip_prefix("@cert-authority * ").expect("a line for known_hosts");
        let key = PublicKey::from_openssh(key).expect("a host CA");
        for (_, desk) in &desks {
            desk.trust_ca(&key);
        }
        Self { bastion, server, _sshd: sshd, desks, plain: plain.to_owned() }
    }

    fn desk(&self, cell: &Cell) -> &Workstation {
        &self.desks[cell.number].1
    }

    fn key(&self, cell: &Cell) -> &KeyPair {
        &self.desks[cell.number].0
    }

    /// The cell's file at home, on the target, and where it is to come back to.
    fn here(&self, cell: &Cell) -> PathBuf {
        self.bastion.path(&format!("here-{}", cell.number))
    }

    pub fn there(&self, cell: &Cell) -> PathBuf {
        self.bastion.path(&format!("there-{}", cell.number))
    }

    fn back(&self, cell: &Cell) -> PathBuf {
        self.bastion.path(&format!("back-{}", cell.number))
    }

    /// The host key that a target shows through the bastion.
    fn target_key(&self, target: &str) -> PublicKey {
        let line = self.plain.lines().find(|line| line.starts_with(&format!("{target},")));
        let (_, key) = line.and_then(|line| line.split_once(' ')).expect("a line of the target");
        PublicKey::from_openssh(key).expect("a host key")
    }
}

/// What the client left.
#[derive(Debug, Default)]
pub struct Seen {
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// How it ended; `None` if it did not end by itself.
    pub code: Option<i32>,
    /// What was not as it should be where everything is allowed; where it is not, there must be something.
    pub failed: Option<String>,
}

impl Seen {
    /// What became of a client that is to end with `code`.
    fn of(output: Output, code: u32) -> Self {
        let (stderr, ended) = (output.errors(), output.code());
        let is_good = ended.is_some_and(|ended| i64::from(ended) == i64::from(code));
        let failed = (!is_good).then(|| format!("it ended with {ended:?}: {stderr}"));
        Self { stdout: output.stdout, stderr, code: ended, failed }
    }

    /// Fails it, if it has not failed yet, unless `holds`.
    fn but(mut self, holds: bool, otherwise: &str) -> Self {
        if !holds {
            self.failed.get_or_insert_with(|| otherwise.to_owned());
        }
        self
    }
}

/// Answers what it has heard, once its peer has ended, with "!" behind it.
pub async fn shouting_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                let _gone: std::io::Result<usize> = stream.read_to_end(&mut heard).await;
                heard.push(b'!');
                let _gone: std::io::Result<()> = stream.write_all(&heard).await;
            });
        }
    });
    address
}

/// Does what the cell's client does, and says what came of it.
pub async fn run(stage: &Stage, cell: Cell) -> Seen {
    let call = Call::new(stage, cell);
    match cell.client.deed() {
        Deed::Exec if cell.client == Client::ControlMaster => call.share().await,
        Deed::Exec => call.check_exec(call.exec().await.run().await),
        Deed::Shell => {
            let typed = format!("echo be''gun; exit {EXIT}\n");
            let shell = call.openssh("ssh").args(["-tt", &call.host]).input(typed).run().await;
            let begun = shell.text().contains("begun");
            Seen::of(shell, EXIT).but(begun, "the shell did not begin")
        }
        Deed::Copy => call.copy().await,
        Deed::Forward if cell.client == Client::Netcat => {
            let netcat = call.openssh("ssh").arg("-W").arg(stage.server.to_string()).arg(&call.host).input(SAID);
            let netcat = netcat.run().await;
            let answered = netcat.text() == ANSWER;
            Seen::of(netcat, 0).but(answered, "another answer came")
        }
        Deed::Forward => call.forward().await,
        Deed::Work if cell.client == Client::Git => call.git().await,
        Deed::Work => call.ansible().await,
    }
}

/// A client about to be called.
struct Call<'a> {
    stage: &'a Stage,
    cell: Cell,
    desk: &'a Workstation,
    /// What OpenSSH calls the target, by its configuration.
    host: String,
    /// Whom the client is at the bastion, and its place.
    user: String,
    address: SocketAddr,
}

impl<'a> Call<'a> {
    fn new(stage: &'a Stage, cell: Cell) -> Self {
        let (desk, address) = (stage.desk(&cell), stage.bastion.address());
        let (person, login, target) = (cell.person(), cell.login(), cell.case.target());
        let (ip, port) = (address.ip(), address.port());
        let by_name = format!("{person}+{login}@{target}");
        desk.configure(&format!(
            "Host direct\nHostName {ip}\nPort {port}\nUser {by_name}\nHost sallyport\nHostName {ip}\nPort {port}\nUser {person}\n\
             Host {target}\nProxyJump sallyport\nUser {login}"
        ));
        let (host, user) = match cell.way {
            Way::Name => ("direct", by_name),
            Way::Jump => (target, person),
        };
        Self { stage, cell, desk, host: host.to_owned(), user, address }
    }

    fn openssh(&self, program: &str) -> Run {
        self.desk.program(program).arg("-F").arg(self.desk.config()).deadline(DEADLINE)
    }

    /// The command that makes rsync, git and the like go the cell's way.
    fn ssh_command(&self) -> String {
        format!("ssh -F {}", self.desk.config().display())
    }

    /// A program of PuTTY's, up to its destination.
    async fn putty(&self, program: &str, options: &[&str]) -> (Run, String) {
        let (key, ip, port) =
            (self.desk.putty_key(self.stage.key(&self.cell)).await, self.address.ip(), self.address.port());
        let bastion = self.stage.bastion.host_key().fingerprint(HashAlg::Sha256);
        let run =
            self.desk.program(program).deadline(DEADLINE).args(["-batch", "-noagent", "-i"]).arg(&key).args(options);
        match self.cell.way {
            Way::Name => {
                let run = run.args(["-P", &port.to_string(), "-l", &self.user, "-hostkey", &bastion.to_string()]);
                (run, ip.to_string())
            }
            Way::Jump => {
                let target = self.cell.case.target();
                let proxy = format!(
                    "plink -batch -noagent -i {} -P {port} -l {} -hostkey {bastion} -nc %host:%port {ip}",
                    key.display(),
                    self.user
                );
                let shown = self.stage.target_key(target).fingerprint(HashAlg::Sha256).to_string();
                (run.args(["-l", &self.cell.login(), "-hostkey", &shown, "-proxycmd", &proxy]), target.to_owned())
            }
        }
    }

    /// One of the libraries, up to what it is to do.
    fn library(&self, script: &str) -> Run {
        let key = |key: &PublicKey| key.to_openssh().expect("a public key's text");
        let login = self.cell.login();
        let run = python(self.desk, script).deadline(DEADLINE).args([
            &self.address.ip().to_string(),
            &self.address.port().to_string(),
            &self.user,
            &key(self.stage.bastion.host_key()),
        ]);
        let run = run.arg(self.stage.key(&self.cell).path()).arg(login);
        match self.cell.way {
            Way::Name => run.args(["-", "-"]),
            Way::Jump => run.args([self.cell.case.target(), &key(&self.stage.target_key(self.cell.case.target()))]),
        }
    }

    fn script(&self) -> &'static str {
        match self.cell.client {
            Client::Paramiko | Client::ParamikoSftp => "paramiko_client.py",
            Client::Asyncssh | Client::AsyncsshSftp => "asyncssh_client.py",
            _ => "libssh_client.py",
        }
    }

    async fn dropbear(&self) -> Run {
        let target = self.cell.case.target();
        let targets = self.stage.target_key(target);
        let ip = self.address.ip().to_string();
        let known = [(ip.as_str(), self.stage.bastion.host_key()), (target, &targets)];
        let key = self.desk.dropbear_key(self.stage.key(&self.cell), &known).await;
        let (key, port) = (key.display().to_string(), self.address.port().to_string());
        let run = self.desk.program("dbclient").deadline(DEADLINE).args(["-i", &key]);
        match self.cell.way {
            Way::Name => run.args(["-p", &port, "-l", &self.user, &ip]),
            Way::Jump => {
                let proxy = format!("dbclient -i {key} -p {port} -l {} -B {target}:22 {ip}", self.user);
                run.args(["-J", &proxy, "-l", &self.cell.login(), target])
            }
        }
    }

    async fn exec(&self) -> Run {
        let run = match self.cell.client {
            Client::Plink => {
                let (run, host) = self.putty("plink", &[]).await;
                run.arg(host).arg(command())
            }
            Client::Dbclient => self.dropbear().await.arg(command()),
            Client::Paramiko | Client::Asyncssh | Client::Libssh => {
                self.library(self.script()).arg("exec").arg(command())
            }
            _ => self.openssh("ssh").arg(&self.host).arg(command()),
        };
        run.input(INPUT)
    }

    fn check_exec(&self, ran: Output) -> Seen {
        let (out, errors) = (ran.text() == output(), ran.errors() == ERRORS);
        // These two may have words of their own before.
        let talks = matches!(self.cell.client, Client::Plink | Client::Dbclient);
        let errors = errors || (talks && ran.errors().ends_with(ERRORS));
        Seen::of(ran, EXIT).but(out, "other output came").but(errors, "other errors came")
    }

    /// Two commands over one connection.
    async fn share(&self) -> Seen {
        let socket = self.stage.bastion.path(&format!("m{}", self.cell.number));
        let mut master = self.openssh("ssh").args(["-M", "-N", "-S"]).arg(&socket).arg(&self.host).spawn();
        eventually("the shared connection is open", async || socket.exists()).await;
        let ssh = || self.openssh("ssh").arg("-S").arg(&socket).arg(&self.host).arg(command()).input(INPUT).run();
        let (one, other) = tokio::join!(ssh(), ssh());
        master.kill().await.expect("an end");
        let one = self.check_exec(one);
        if one.failed.is_some() { one } else { self.check_exec(other) }
    }

    /// `put` or `get` of one file, by the client's own program.
    async fn transfer(&self, get: bool) -> Run {
        let there = self.stage.there(&self.cell).display().to_string();
        let home = if get { self.stage.back(&self.cell) } else { self.stage.here(&self.cell) };
        let home = home.display().to_string();
        let far = |host: &str| format!("{host}:{there}");
        let pair = |run: Run, far: String| if get { run.arg(far).arg(&home) } else { run.arg(&home).arg(far) };
        let batch = if get { format!("get {there} {home}\n") } else { format!("put {home} {there}\n") };
        match self.cell.client {
            Client::Scp => pair(self.openssh("scp"), far(&self.host)),
            Client::ScpLegacy => pair(self.openssh("scp").arg("-O"), far(&self.host)),
            Client::Rsync => {
                let run = self.desk.program("rsync").deadline(DEADLINE).arg("-e").arg(self.ssh_command());
                pair(run, far(&self.host))
            }
            Client::Sftp => self.openssh("sftp").args(["-b", "-", &self.host]).input(batch),
            Client::Psftp => {
                let path = self.stage.bastion.path(&format!("batch-{}", self.cell.number));
                std::fs::write(&path, batch).unwrap();
                let (run, host) = self.putty("psftp", &["-b", path.to_str().unwrap()]).await;
                run.arg(host)
            }
            Client::Pscp | Client::PscpLegacy => {
                let protocol = if self.cell.client == Client::Pscp { "-sftp" } else { "-scp" };
                let (run, host) = self.putty("pscp", &["-q", protocol]).await;
                pair(run, far(&host))
            }
            _ => {
                let run = self.library(self.script());
                if get { run.args(["get", &there, &home]) } else { run.args(["put", &home, &there]) }
            }
        }
    }

    async fn copy(&self) -> Seen {
        let content = content(&self.cell);
        let (there, back) = (self.stage.there(&self.cell), self.stage.back(&self.cell));
        std::fs::write(self.stage.here(&self.cell), &content).unwrap();
        let is_allowed = self.cell.case == Case::Allowed;
        let mut seen = Seen::default();
        if self.cell.is_download() {
            std::fs::write(&there, &content).unwrap();
        } else {
            seen = Seen::of(self.transfer(false).await.run().await, 0);
            let arrived = std::fs::read(&there).is_ok_and(|file| file == content);
            seen = seen.but(arrived, "what is on the target is not what was sent");
            assert!(is_allowed || !arrived, "what is refused is on the target");
        }
        if self.cell.is_download() || (is_allowed && seen.failed.is_none()) {
            seen = Seen::of(self.transfer(true).await.run().await, 0);
            let came = std::fs::read(&back).is_ok_and(|file| file == content);
            seen = seen.but(came, "what came back is not what was sent");
            let nothing = std::fs::read(&back).map_or(true, |file| file.is_empty());
            assert!(is_allowed || nothing, "something of what is refused came out");
        }
        seen
    }

    /// A port at home leads to the server; a refused connection through it leaves the client where it is.
    async fn forward(&self) -> Seen {
        let port = free_port();
        let ssh = self.openssh("ssh").args(["-N", "-L"]).arg(format!("{port}:{}", self.stage.server)).arg(&self.host);
        let mut client = ssh.spawn();
        let mut stream = None;
        eventually("the client listens", async || {
            stream = TcpStream::connect(("127.0.0.1", port)).await.ok();
            stream.is_some()
        })
        .await;
        let mut stream = stream.expect("a connection");
        let mut answer = Vec::new();
        let talk = async {
            stream.write_all(SAID.as_bytes()).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut answer).await
        };
        // Who is refused may find the connection reset.
        let _end: std::io::Result<usize> = tokio::time::timeout(DEADLINE, talk).await.expect("an end of the forward");
        assert!(client.try_wait().unwrap().is_none(), "the client has gone");
        client.kill().await.expect("an end");
        let answered = answer == ANSWER.as_bytes();
        Seen::default().but(answered, "no answer came")
    }

    /// Clones a repository with one commit, and pushes another.
    async fn git(&self) -> Seen {
        let (bare, clone) = (self.stage.there(&self.cell), self.stage.back(&self.cell));
        let made = self.desk.program("git").args(["init", "--quiet", "--bare"]).arg(&bare).run().await;
        made.expect_success();
        let git = |arguments: &[&str]| {
            let run = self.desk.program("git").env("GIT_SSH_COMMAND", &self.ssh_command()).deadline(DEADLINE);
            run.args(["-c", "user.name=x", "-c", "user.email=x@example.com"]).args(arguments).run()
        };
        let remote = format!("{}:{}", self.host, bare.display());
        let clone = clone.to_str().unwrap();
        let cloned = Seen::of(git(&["clone", "--quiet", &remote, clone]).await, 0);
        if cloned.failed.is_some() {
            return cloned;
        }
        git(&["-C", clone, "commit", "--quiet", "--allow-empty", "-m", "one"]).await.expect_success();
        let pushed = Seen::of(git(&["-C", clone, "push", "--quiet", "origin", "HEAD:main"]).await, 0);
        let there = git(&["-C", bare.to_str().unwrap(), "rev-parse", "main"]).await.text();
        let here = git(&["-C", clone, "rev-parse", "HEAD"]).await.text();
        pushed.but(there == here, "what was pushed is not there")
    }

    /// Copies a file by a module, over one connection that Ansible shares among its steps. What a host says on its standard
    /// error is shown from `-vvv` on.
    async fn ansible(&self) -> Seen {
        let content = content(&self.cell);
        let (here, there) = (self.stage.here(&self.cell), self.stage.there(&self.cell));
        std::fs::write(&here, &content).unwrap();
        let options = format!("-F {} -o ControlMaster=auto -o ControlPersist=2s", self.desk.config().display());
        let play = self
            .desk
            .program(venv("ansible"))
            .deadline(DEADLINE)
            .env("ANSIBLE_SSH_ARGS", &options)
            .env("LC_ALL", "C.UTF-8");
        let play =
            play.env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3").args(["-i", &format!("{},", self.host), "all"]);
        let play = play.args(["-vvv", "-m", "copy", "-a", &format!("src={} dest={}", here.display(), there.display())]);
        let played = Seen::of(play.run().await, 0);
        let arrived = std::fs::read(&there).is_ok_and(|file| file == content);
        played.but(arrived, "what is on the target is not what was sent")
    }
}
