//! Sallyport against OpenSSH, as an engineer feels it: stock `ssh` and `sftp` to one OpenSSH server, directly, through OpenSSH as
//! a jump host (`ssh -J`), and through Sallyport with recording on and PostgreSQL behind it, with the target in the user name
//! and as a jump host. The routes take turns within each round, so that whatever else the machine does falls on all of them
//! alike; medians are printed, with their ratios. A recording is brought to rest before the next measure begins, and what that
//! costs is in the figures for CPU.
//!
//! The clients are as their distribution configures them, and agree with each server on what the two prefer: Sallyport sees to it
//! that this is AES-GCM, sshd leaves it to the client. With `--alike` every route has the algorithms that Sallyport chooses, and the
//! ratios compare programs alone. `SALLYPORT_BIN` names another binary to measure.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a benchmark stops by panicking, has its own time, and its figures are not exact"
)]

mod server;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use comfy_table::Table;
use server::Bastion;
use support::clients::Workstation;
use support::keys::KeyPair;
use support::sshd::{Settings, Sshd};

/// Measures Sallyport against OpenSSH.
#[derive(Parser)]
struct Options {
    /// Small sizes and few rounds, for a first look.
    #[arg(long)]
    quick: bool,
    /// Rounds; each measures every route once [default: 5, quick: 2].
    #[arg(long)]
    rounds: Option<usize>,
    /// MiB moved by each bulk transfer [default: 256, quick: 32].
    #[arg(long)]
    mebibytes: Option<usize>,
    /// Idle sessions held at once for the measure of memory [default: 100, quick: 20].
    #[arg(long)]
    idle: Option<usize>,
    /// Only these routes.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "direct,jump,sallyport,sallyport-jump")]
    routes: Vec<Route>,
    /// Only these measures.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// One cipher and one key exchange on every route, those that Sallyport chooses [default: what a stock client agrees on].
    #[arg(long)]
    alike: bool,
    /// Also writes the figures as JSON to this file, or to standard output for `-`.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Route {
    Direct,
    Jump,
    /// The target is in the user name.
    Sallyport,
    /// `ssh -J` with Sallyport as the jump host.
    SallyportJump,
}

impl Route {
    /// Its name in the client's configuration.
    fn host(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Jump => "jump",
            Self::Sallyport => "sallyport",
            Self::SallyportJump => "sallyport-jump",
        }
    }

    /// Whether it leads through Sallyport.
    fn is_own(self) -> bool {
        matches!(self, Self::Sallyport | Self::SallyportJump)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Measure {
    ExecDown,
    ExecUp,
    SftpGet,
    SftpPut,
    /// The same against SFTP that Sallyport takes for any program's bytes.
    SftpGetFollowed,
    SftpPutFollowed,
    Flood,
    EchoP50,
    EchoP99,
    Login,
    Logins,
    CpuPerGib,
    CpuPerLogin,
    IdleMemory,
    BytesAtRest,
}

/// An SFTP server that Sallyport does not know for one.
const OPAQUE_SFTP: &str = "sh -c 'exec /usr/lib/openssh/sftp-server'";

/// What Sallyport is to reach, compared with the other routes in the same run.
enum Goal {
    /// At least so many times `ssh -J`, and so many times direct.
    Speed { jump: f64, direct: f64 },
    /// At most so many times `ssh -J`.
    Slower { jump: f64 },
    /// At most so much more than direct.
    Above { direct: f64 },
    /// At most so much more than `ssh -J`.
    AboveJump(f64),
    /// At most so much, by itself.
    AtMost(f64),
    /// At least so much, by itself.
    AtLeast(f64),
}

impl Measure {
    fn unit(self) -> &'static str {
        match self {
            Self::ExecDown | Self::ExecUp | Self::SftpGet | Self::SftpPut | Self::Flood => "MiB/s",
            Self::EchoP50 | Self::EchoP99 | Self::Login | Self::CpuPerLogin => "ms",
            Self::Logins => "1/s",
            Self::CpuPerGib => "s/GiB",
            Self::SftpGetFollowed | Self::SftpPutFollowed => "× opaque",
            Self::IdleMemory => "KB",
            Self::BytesAtRest => "of printed",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::ExecDown | Self::ExecUp | Self::SftpGet | Self::SftpPut => Goal::Speed { jump: 1.5, direct: 0.65 },
            Self::SftpGetFollowed | Self::SftpPutFollowed => Goal::AtLeast(0.9),
            Self::Flood | Self::Logins => Goal::Speed { jump: 1.0, direct: 0.0 },
            Self::EchoP50 => Goal::Above { direct: 0.3 },
            Self::EchoP99 => Goal::Slower { jump: 1.0 },
            Self::Login => Goal::Slower { jump: 0.75 },
            Self::CpuPerGib => Goal::AtMost(2.5),
            Self::CpuPerLogin => Goal::AtMost(8.0),
            Self::IdleMemory => Goal::AtMost(250.0),
            Self::BytesAtRest => Goal::AtMost(0.15),
        }
    }

    /// The same for Sallyport as a jump host, where there is one.
    fn jump_goal(self) -> Option<Goal> {
        match self {
            Self::ExecDown | Self::ExecUp | Self::SftpGet | Self::SftpPut => {
                Some(Goal::Speed { jump: 1.1, direct: 0.0 })
            }
            Self::EchoP50 => Some(Goal::AboveJump(0.2)),
            Self::Login => Some(Goal::Slower { jump: 0.85 }),
            Self::SftpGetFollowed
            | Self::SftpPutFollowed
            | Self::Flood
            | Self::EchoP99
            | Self::Logins
            | Self::CpuPerGib
            | Self::CpuPerLogin
            | Self::IdleMemory
            | Self::BytesAtRest => None,
        }
    }
}

impl Goal {
    /// The goal in words, and whether it is met; `None` if a route to compare with was not measured.
    fn judge(&self, direct: Option<f64>, jump: Option<f64>, own: f64) -> (String, Option<bool>) {
        match *self {
            Self::Speed { jump: times_jump, direct: times_direct } => (
                format!("≥ {times_jump} × jump, ≥ {times_direct} × direct"),
                jump.zip(direct).map(|(jump, direct)| own >= jump * times_jump && own >= direct * times_direct),
            ),
            Self::Slower { jump: times } => (format!("≤ {times} × jump"), jump.map(|jump| own <= jump * times)),
            Self::Above { direct: more } => (format!("≤ direct + {more}"), direct.map(|direct| own <= direct + more)),
            Self::AboveJump(more) => (format!("≤ jump + {more}"), jump.map(|jump| own <= jump + more)),
            Self::AtMost(limit) => (format!("≤ {limit}"), Some(own <= limit)),
            Self::AtLeast(limit) => (format!("≥ {limit}"), Some(own >= limit)),
        }
    }
}

fn main() {
    let options = Options::parse();
    let bench = Bench::start(&options);
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 5 });
    let mut figures = Figures::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        bench.round(round, &options, &mut figures);
    }
    if options.routes.contains(&Route::Sallyport) && options.wants(Measure::IdleMemory) {
        let sessions = options.idle.unwrap_or(if options.quick { 20 } else { 100 });
        figures.add(Measure::IdleMemory, Route::Sallyport, bench.idle_memory(sessions));
    }
    figures.print(options.json.as_deref() == Some(Path::new("-")));
    if let Some(path) = &options.json {
        figures.write_json(path);
    }
}

impl Options {
    fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }
}

/// Every figure measured, by measure and route.
#[derive(Default)]
struct Figures(BTreeMap<(Measure, Route), Vec<f64>>);

impl Figures {
    fn add(&mut self, measure: Measure, route: Route, value: f64) {
        self.0.entry((measure, route)).or_default().push(value);
    }

    fn median(&self, measure: Measure, route: Route) -> Option<f64> {
        let mut values = self.0.get(&(measure, route))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Prints the table, on standard error if standard output is taken.
    fn print(&self, aside: bool) {
        let mut table = Table::new();
        table.set_header([
            "measure",
            "unit",
            "direct",
            "ssh -J",
            "route",
            "figure",
            "× direct",
            "× ssh -J",
            "goal",
            "",
        ]);
        let show = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
        for &measure in Measure::value_variants() {
            let of = |route| self.median(measure, route);
            let (direct, jump) = (of(Route::Direct), of(Route::Jump));
            let name = measure.to_possible_value().expect("a name").get_name().to_owned();
            for (route, goal) in [(Route::Sallyport, Some(measure.goal())), (Route::SallyportJump, measure.jump_goal())]
            {
                let Some(own) = of(route) else { continue };
                let (goal, met) = goal.map_or((String::new(), None), |goal| goal.judge(direct, jump, own));
                let met = met.map_or("", |met| if met { "met" } else { "missed" });
                let ratio = |to: Option<f64>| show(to.map(|to| own / to));
                let row = [
                    name.clone(),
                    measure.unit().to_owned(),
                    show(direct),
                    show(jump),
                    route.host().to_owned(),
                    show(Some(own)),
                    ratio(direct),
                    ratio(jump),
                    goal,
                    met.to_owned(),
                ];
                table.add_row(row);
            }
        }
        if aside {
            eprintln!("{table}");
        } else {
            println!("{table}");
        }
    }

    fn write_json(&self, path: &Path) {
        let entries: Vec<_> = self
            .0
            .iter()
            .map(|(&(measure, route), values)| {
                serde_json::json!({
                    "measure": measure.to_possible_value().expect("a name").get_name(),
                    "route": route.host(),
                    "unit": measure.unit(),
                    "median": self.median(measure, route),
                    "values": values,
                })
            })
            .collect();
        let text = serde_json::to_string_pretty(&entries).expect("JSON") + "\n";
        if path == Path::new("-") {
            print!("{text}");
        } else {
            std::fs::write(path, text).expect("a file for the figures");
        }
    }
}

/// Everything that runs.
struct Bench {
    workstation: Workstation,
    bastion: Option<Bastion>,
    folder: tempfile::TempDir,
    /// Random bytes, so that nothing along the way can compress them.
    payload: PathBuf,
    bytes: usize,
    lines: usize,
    quick: bool,
    _target: Sshd,
    _jump: Sshd,
    _key: KeyPair,
}

impl Bench {
    fn start(options: &Options) -> Self {
        let key = KeyPair::ed25519();
        // Quieter than the fixture's usual level, which would cost the routes by OpenSSH more than ours.
        let lines = vec!["LogLevel INFO".to_owned()];
        let settings = Settings { authorized_keys: vec![key.public()], lines, ..Settings::default() };
        let (target, jump) = (Sshd::start(&settings), Sshd::start(&settings));
        let workstation = Workstation::new(&key);
        workstation.trust(target.address(), target.host_key());
        workstation.trust(jump.address(), jump.host_key());
        let login = Sshd::login();
        if options.alike {
            workstation.configure("Ciphers aes128-gcm@openssh.com");
            workstation.configure(&format!("KexAlgorithms {}", key_exchange()));
        }
        workstation.configure("IgnoreUnknown ObscureKeystrokeTiming\nObscureKeystrokeTiming no");
        let port = |address: SocketAddr| format!("HostName 127.0.0.1\nPort {}", address.port());
        workstation.configure(&format!("Host direct\n{}\nUser {login}", port(target.address())));
        workstation.configure(&format!("Host hop\n{}\nUser {login}", port(jump.address())));
        workstation.configure(&format!("Host jump\n{}\nUser {login}\nProxyJump hop", port(target.address())));

        let folder = support::temporary_folder();
        let mebibytes = options.mebibytes.unwrap_or(if options.quick { 32 } else { 256 });
        let payload = folder.path().join("payload");
        let mut random = File::open("/dev/urandom").expect("random bytes").take((mebibytes << 20) as u64);
        std::io::copy(&mut random, &mut File::create(&payload).expect("a payload")).expect("a payload");

        let bastion = options.routes.iter().any(|route| route.is_own()).then(|| {
            let bastion = Bastion::start("");
            furnish(&bastion, &key, &target, &login);
            workstation.configure(&format!("Host door\n{}\nUser alice", port(bastion.address())));
            workstation.configure(&format!("Host sallyport-jump\nHostName node-1\nUser {login}\nProxyJump door"));
            let authority = bastion.admin(&["ca", "host"]);
            let known_hosts = workstation.config().with_file_name("known_hosts");
            let mut known_hosts = File::options().append(true).open(known_hosts).expect("a file of known hosts");
            known_hosts.write_all(authority.as_bytes()).expect("a file of known hosts");
            workstation.configure(&format!("Host sallyport\n{}\nUser alice+{login}@node-1", port(bastion.address())));
            let port = bastion.address().port().to_string();
            let scan = Command::new("ssh-keyscan").args(["-p", &port, "127.0.0.1"]).output();
            let known = workstation.config().with_file_name("known_hosts");
            let mut known = File::options().append(true).open(known).expect("a file of known hosts");
            known.write_all(&scan.expect("ssh-keyscan").stdout).expect("a file of known hosts");
            bastion
        });
        let lines = if options.quick { 1_000_000 } else { 5_000_000 };
        Self {
            workstation,
            bastion,
            folder,
            payload,
            bytes: mebibytes << 20,
            lines,
            quick: options.quick,
            _target: target,
            _jump: jump,
            _key: key,
        }
    }

    /// Measures every route once; who goes first changes from round to round.
    fn round(&self, round: usize, options: &Options, figures: &mut Figures) {
        let mut routes = options.routes.clone();
        let first = round % routes.len();
        routes.rotate_left(first);
        let wants = |measure| options.wants(measure);
        let speed = |took: Duration, bytes: usize| bytes as f64 / f64::from(1 << 20) / took.as_secs_f64();
        for &route in &routes {
            eprint!("  {} …", route.host());
            self.timed(route, &["true"], Stdio::null()); // caches are warm, and the route works
            let own = if route.is_own() { self.bastion.as_ref() } else { None };
            let settle = || own.into_iter().for_each(Bastion::settle);
            if wants(Measure::ExecDown) || wants(Measure::CpuPerGib) {
                settle();
                let before = own.map(Bastion::cpu);
                let took = self.timed(route, &["cat", path(&self.payload)], Stdio::null());
                settle();
                figures.add(Measure::ExecDown, route, speed(took, self.bytes));
                if let Some((bastion, before)) = own.zip(before) {
                    let spent = bastion.cpu() - before;
                    figures.add(Measure::CpuPerGib, route, spent * f64::from(1 << 30) / self.bytes as f64);
                }
            }
            if wants(Measure::ExecUp) {
                let input = File::open(&self.payload).expect("the payload");
                let took = self.timed(route, &["cat", ">/dev/null"], input.into());
                settle();
                figures.add(Measure::ExecUp, route, speed(took, self.bytes));
            }
            for (measure, verb, followed) in [
                (Measure::SftpGet, "get", Measure::SftpGetFollowed),
                (Measure::SftpPut, "put", Measure::SftpPutFollowed),
            ] {
                if wants(measure) || wants(followed) {
                    let took = self.sftp(route, verb, "sftp");
                    settle();
                    figures.add(measure, route, speed(took, self.bytes));
                    if own.is_some() {
                        let opaque = self.sftp(route, verb, OPAQUE_SFTP);
                        settle();
                        figures.add(followed, route, opaque.as_secs_f64() / took.as_secs_f64());
                    }
                }
            }
            if wants(Measure::Flood) || wants(Measure::BytesAtRest) {
                let before = own.map(Bastion::at_rest);
                let last = self.lines.to_string();
                let took = self.timed(route, &["-tt", &format!("seq {last}")], Stdio::null());
                let bytes: usize = (1..=self.lines).map(|line| line.ilog10() as usize + 3).sum(); // "\r\n" after each
                settle();
                figures.add(Measure::Flood, route, speed(took, bytes));
                if let Some((bastion, before)) = own.zip(before) {
                    figures.add(Measure::BytesAtRest, route, (bastion.at_rest() - before) as f64 / bytes as f64);
                }
            }
            if wants(Measure::EchoP50) || wants(Measure::EchoP99) {
                let mut delays = self.echo(route, if self.quick { 100 } else { 500 });
                delays.sort();
                let at = |percent: usize| delays[(delays.len() - 1) * percent / 100].as_secs_f64() * 1e3;
                figures.add(Measure::EchoP50, route, at(50));
                figures.add(Measure::EchoP99, route, at(99));
            }
            if wants(Measure::Login) || wants(Measure::CpuPerLogin) {
                let (count, before) = (if self.quick { 5 } else { 20 }, own.map(Bastion::cpu));
                for _ in 0..count {
                    let took = self.timed(route, &["true"], Stdio::null());
                    figures.add(Measure::Login, route, took.as_secs_f64() * 1e3);
                }
                settle();
                if let Some((bastion, before)) = own.zip(before) {
                    let spent = bastion.cpu() - before;
                    figures.add(Measure::CpuPerLogin, route, spent * 1e3 / f64::from(count));
                }
            }
            if wants(Measure::Logins) {
                figures.add(Measure::Logins, route, self.logins(route, if self.quick { 40 } else { 100 }, 20));
            }
            eprintln!(" done");
        }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.workstation.config()).env_remove("SSH_AUTH_SOCK");
        command
    }

    fn ssh(&self, route: Route, arguments: &[&str]) -> Command {
        let mut command = self.client("ssh");
        let (flags, words): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|argument| argument.starts_with('-'));
        command.args(flags).arg(route.host()).args(words);
        command
    }

    /// Runs a client whose output nobody looks at; how long it took.
    fn timed(&self, route: Route, arguments: &[&str], input: Stdio) -> Duration {
        let start = Instant::now();
        let mut command = self.ssh(route, arguments);
        let output = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("ssh");
        assert!(output.status.success(), "{route:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        start.elapsed()
    }

    /// Moves the payload with a server that is a subsystem, or a command if there is a slash in it.
    fn sftp(&self, route: Route, verb: &str, server: &str) -> Duration {
        let (from, to) = (&self.payload, self.folder.path().join("copy"));
        let batch = self.folder.path().join("batch");
        std::fs::write(&batch, format!("{verb} {} {}\n", from.display(), to.display())).expect("a batch");
        let start = Instant::now();
        let mut client = self.client("sftp");
        client.arg("-q").arg("-s").arg(server).arg("-b").arg(&batch).arg(route.host());
        let output = client.output().expect("sftp");
        let took = start.elapsed();
        assert!(output.status.success(), "{route:?} sftp {verb}: {}", String::from_utf8_lossy(&output.stderr));
        let size = std::fs::metadata(&to).expect("the copy").len();
        assert_eq!(size, self.bytes as u64, "{route:?} sftp {verb} lost bytes");
        std::fs::remove_file(to).expect("the copy goes");
        took
    }

    /// A program in a terminal that tells when it is there.
    fn in_terminal(&self, route: Route, command: &str) -> Child {
        let mut command = self.ssh(route, &["-tt", command]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ssh");
        let output = child.stdout.as_mut().expect("its output");
        let mut seen = Vec::new();
        while !seen.ends_with(b"ready") {
            let mut byte = [0];
            output.read_exact(&mut byte).expect("the program's first word");
            seen.push(byte[0]);
        }
        child
    }

    /// How long each key takes from the client's input to its output, typed as fast as the echo comes.
    fn echo(&self, route: Route, keys: usize) -> Vec<Duration> {
        let mut child = self.in_terminal(route, "stty raw -echo; printf ready; exec cat");
        let (mut input, mut output) =
            (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
        let delays = (0..keys).map(|_| {
            let start = Instant::now();
            input.write_all(b"k").expect("a key");
            output.read_exact(&mut [0]).expect("its echo");
            start.elapsed()
        });
        let delays = delays.collect();
        end(child);
        delays
    }

    /// Logins per second with so many at a time; not one may fail.
    fn logins(&self, route: Route, count: usize, at_once: usize) -> f64 {
        let (next, start) = (AtomicUsize::new(0), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        self.timed(route, &["true"], Stdio::null());
                    }
                });
            }
        });
        count as f64 / start.elapsed().as_secs_f64()
    }

    /// What each idle terminal session adds to the bastion's memory, in KB (proportional set size).
    fn idle_memory(&self, sessions: usize) -> f64 {
        let bastion = self.bastion.as_ref().expect("Sallyport runs");
        let open = || self.in_terminal(Route::Sallyport, "printf ready; exec cat");
        let warm: Vec<Child> = (0..5).map(|_| open()).collect();
        let before = bastion.memory();
        let idle: Vec<Child> = (0..sessions).map(|_| open()).collect();
        let after = bastion.memory();
        warm.into_iter().chain(idle).for_each(end);
        (after - before) / sessions as f64
    }
}

/// Adds a person, the target and a grant.
fn furnish(bastion: &Bastion, key: &KeyPair, target: &Sshd, login: &str) {
    let host_key = target.host_key().to_openssh().expect("a public key's text");
    target.trust_user_ca(&bastion.admin(&["ca", "user"]));
    bastion.admin(&["person", "add", "alice", "--key", path(&key.public_path())]);
    let at = target.address().to_string();
    bastion.admin(&["target", "add", "node-1", &at, "--login", login, "--host-key", &host_key, "--yes"]);
    bastion.grant(login, "shell,exec,upload,download");
}

fn end(mut child: Child) {
    child.kill().expect("a client");
    child.wait().expect("a client");
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// The best key exchange that both this client and Sallyport know.
fn key_exchange() -> &'static str {
    let known = Command::new("ssh").args(["-Q", "kex"]).output().expect("ssh").stdout;
    let (best, usual) = ("mlkem768x25519-sha256", "curve25519-sha256");
    if String::from_utf8_lossy(&known).lines().any(|line| line == best) { best } else { usual }
}
