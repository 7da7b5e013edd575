//! Many sessions for a while: engineers in this process who do nothing, type, follow a log and copy files, through the built program
//! with PostgreSQL behind it, to a target that costs little. No session and no event may be lost, memory must stay flat after the
//! first minute, and what is recorded and signed must keep up. A line every ten seconds, a summary, and an exit code.
//!
//! `make soak SESSIONS=1000 MINUTES=10`. `SALLYPORT_BIN` names another binary to measure.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a benchmark stops by panicking, has its own time, and its figures are not exact"
)]

mod books;
mod client;
#[path = "../server.rs"]
mod server;
#[path = "../../tests/support/mod.rs"]
mod support;
mod target;
mod traffic;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use sallyport::app::clock::Clock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use books::Books;
use client::{Office, Work};
use server::Bastion;
use support::keys::KeyPair;

/// Holds many sessions for a while and looks whether anything is lost.
#[derive(Parser)]
struct Options {
    /// Sessions at once.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Minutes that they last, after the last one was opened.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How often a line is printed.
const LINE: Duration = Duration::from_secs(10);
/// Logins at once; the bastion takes 30 unproved connections from one address.
const DOORS: usize = 12;
/// An event that has no place in the ledger after this long, and a live recording that the database is so far behind, are too late.
const LEDGER_LAG: f64 = 5.0;
const RECORDING_LAG: f64 = 10.0;
/// How much more memory there may be in the end than after the first minute: this share, and this many MiB, which caches may take.
const GROWTH: f64 = 0.05;
const GROWTH_MIB: f64 = 24.0;
/// How long everything may take to come to rest and to be sealed in the end.
const REST: Duration = Duration::from_secs(180);

/// One line's figures.
struct Sample {
    at: Duration,
    memory_mib: f64,
    ledger_lag: f64,
    recording_lag: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let wanted = options.sessions as u64 * 3 + 1000;
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard.min(wanted.max(4096)), hard)
        .expect("a limit of open files");
    // Before the runtime: it starts one of its own for a moment.
    let bastion = Bastion::start("login_grace = \"2m\"");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let faults = runtime.block_on(soak(&options, &bastion));
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    if faults.is_empty() {
        println!("passed");
        return ExitCode::SUCCESS;
    }
    println!("{}", bastion.log().lines().rev().take(20).collect::<Vec<_>>().join("\n"));
    ExitCode::FAILURE
}

/// What went wrong.
async fn soak(options: &Options, bastion: &Bastion) -> Vec<String> {
    let key = KeyPair::ed25519();
    let (address, host_key) = target::start().await;
    let (address, host_key) = (address.to_string(), host_key.to_openssh().expect("a public key's text"));
    bastion.admin(&["person", "add", "alice", "--key", &key.line()]);
    bastion.admin(&["target", "add", "node-1", &address, "--login", "soak", "--host-key", &host_key, "--yes"]);
    bastion.grant("soak", "shell,exec,upload");
    let books = Books::open(bastion.database()).await;

    let office = Arc::new(Office {
        bastion: bastion.address(),
        key: Arc::new(key.private().clone()),
        doors: Semaphore::new(DOORS),
        end: CancellationToken::new(),
        live: AtomicUsize::new(0),
        left: AtomicUsize::new(0),
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        files: AtomicU64::new(0),
        echoes: Mutex::new(Vec::new()),
        losses: Mutex::new(Vec::new()),
    });
    let count = |work| (0..options.sessions).filter(|&number| Work::of(number) == work).count();
    println!(
        "{} sessions: {} idle, {} typing, {} flooding, {} uploading",
        options.sessions,
        count(Work::Idle),
        count(Work::Typing),
        count(Work::Flooding),
        count(Work::Uploading)
    );
    let begin = Instant::now();
    let mut engineers = JoinSet::new();
    for number in 0..options.sessions {
        engineers.spawn(client::work(office.clone(), number));
    }
    let opened = || office.live.load(Ordering::Relaxed) + losses(&office) >= options.sessions;
    while !opened() && begin.elapsed() < REST * 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("all are in after {:.1} s", begin.elapsed().as_secs_f64());

    let samples = watch(options, bastion, &office, &books).await;
    office.end.cancel();
    let all_left = async { while engineers.join_next().await.is_some() {} };
    let mut faults = Vec::new();
    if tokio::time::timeout(REST, all_left).await.is_err() {
        faults.push(format!("{} engineers could not leave", engineers.len()));
    }
    faults.extend(office.losses.lock().unwrap_or_else(PoisonError::into_inner).iter().take(10).cloned());
    if losses(&office) > 10 {
        faults.push(format!("{} sessions were lost in all", losses(&office)));
    }
    let rested = Instant::now();
    while !books.at_rest(options.sessions).await && rested.elapsed() < REST && bastion.is_running() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("everything is at rest after {:.1} s", rested.elapsed().as_secs_f64());
    faults.extend(books.faults(options.sessions, &office).await);
    faults.extend(judge(&samples));
    if bastion.is_running() {
        let config = bastion.config();
        let verified = bastion.admin(&["verify", "--json", "--config", config.to_str().expect("a path of ours")]);
        let report: serde_json::Value = serde_json::from_str(&verified).expect("a report");
        println!("verified: {} events, {} segments", report["events"], report["segments"]);
    } else {
        faults.push("the bastion has ended".to_owned());
    }
    faults
}

fn losses(office: &Office) -> usize {
    office.losses.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Prints a line every ten seconds until the time is over.
async fn watch(options: &Options, bastion: &Bastion, office: &Office, books: &Books) -> Vec<Sample> {
    let clock = Clock::system();
    let (begin, lasting) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    let counters = || (office.received.load(Ordering::Relaxed), office.sent.load(Ordering::Relaxed), bastion.cpu());
    let (mut before, mut looked) = (counters(), Instant::now());
    let mut samples = Vec::new();
    while begin.elapsed() < lasting && bastion.is_running() {
        tokio::time::sleep(LINE.min(lasting.saturating_sub(begin.elapsed()))).await;
        if !bastion.is_running() {
            break;
        }
        let (ledger_waits, ledger_lag) = books.ledger_lag(clock.now()).await;
        let recording_lag = books.recording_lag(clock.now()).await;
        let after = counters();
        let passed = looked.elapsed().as_secs_f64();
        let speed = |after: u64, before: u64| (after - before) as f64 / passed / 1024.0;
        let mut echoes = std::mem::take(&mut *office.echoes.lock().unwrap_or_else(PoisonError::into_inner));
        echoes.sort_unstable();
        let echo = |percent: usize| {
            let at = echoes.len().saturating_sub(1) * percent / 100;
            echoes.get(at).map_or(0.0, |&took| took as f64 / 1e3)
        };
        let sample = Sample { at: begin.elapsed(), memory_mib: bastion.memory() / 1024.0, ledger_lag, recording_lag };
        println!(
            "{:>4.0} s: {} live, {} lost; echo {:.1} ms, p99 {:.1} ms; out {:.0} KiB/s, in {:.0} KiB/s, {} files; memory {:.0} MiB, cpu \
             {:.0} %; ledger {ledger_waits} events, {ledger_lag:.1} s; recordings {recording_lag:.1} s; journals {:.0} MiB, at rest {:.0} MiB",
            sample.at.as_secs_f64(),
            office.live.load(Ordering::Relaxed),
            losses(office),
            echo(50),
            echo(99),
            speed(after.0, before.0),
            speed(after.1, before.1),
            office.files.load(Ordering::Relaxed),
            sample.memory_mib,
            (after.2 - before.2) / passed * 100.0,
            bastion.journal_bytes() as f64 / f64::from(1 << 20),
            bastion.at_rest() as f64 / f64::from(1 << 20),
        );
        (before, looked) = (after, Instant::now());
        samples.push(sample);
    }
    samples
}

/// What the samples say: whether memory is flat, and what is behind.
fn judge(samples: &[Sample]) -> Vec<String> {
    let mut faults = Vec::new();
    let greatest = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
    let (ledger, recording) = (greatest(|sample| sample.ledger_lag), greatest(|sample| sample.recording_lag));
    println!("at most: ledger {ledger:.1} s behind, recordings {recording:.1} s behind");
    if ledger > LEDGER_LAG {
        faults.push(format!("an event waited {ledger:.1} s for its place in the ledger"));
    }
    if recording > RECORDING_LAG {
        faults.push(format!("a live recording was {recording:.1} s behind in the database"));
    }
    let mean = |samples: &[&Sample]| samples.iter().map(|sample| sample.memory_mib).sum::<f64>() / samples.len() as f64;
    let minute = Duration::from_secs(60);
    let early: Vec<_> = samples.iter().filter(|sample| (minute..minute * 2).contains(&sample.at)).collect();
    let late: Vec<_> = samples.iter().rev().take(6).filter(|sample| sample.at >= minute * 3).collect();
    if early.is_empty() || late.is_empty() {
        println!("too short to judge memory: that takes three minutes");
        return faults;
    }
    let (early, late) = (mean(&early), mean(&late));
    println!("memory: {early:.0} MiB in the second minute, {late:.0} MiB in the last");
    if late > early * (1.0 + GROWTH) + GROWTH_MIB {
        faults.push(format!("memory grew from {early:.0} MiB to {late:.0} MiB"));
    }
    faults
}
