//! `sallyport doctor`: looks for what keeps the bastion from working. Each check that fails says what to do.
//!
//! It looks and does not mend: the one thing that it leaves in the world is a blob that it deletes again, if the bucket lets go of it.

mod around;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::client::{Client, Door};
use super::failure::{Failure, FailureKind};
use super::output::{self, Column, column};
use super::{Global, config};
use crate::api::health::Health;
use crate::api::page::Page;
use crate::app::outbox::{Outbox, Standing};
use crate::config::Config;
use crate::store::blob::{Blobs, Lock};
use crate::store::db::anchors::AnchorState;
use crate::store::db::{Db, policy_version, roles};
use crate::store::seal::MasterKey;

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The configuration file
    #[arg(long, env = "SALLYPORT_CONFIG", value_name = "FILE", default_value = config::USUAL_FILE)]
    config: PathBuf,
}

/// What one look found.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do, if something is wrong.
    advice: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// It works, and will not for long.
    Warning,
    Failed,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
        }
    }
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: State::Ok, found: found.into(), advice: None }
    }

    fn warning(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, state: State::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn failed(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, state: State::Failed, found: found.into(), advice: Some(advice.into()) }
    }
}

const COLUMNS: &[Column<Check>] = &[
    column("Check", |check| check.what.to_owned()),
    column("State", |check| check.state.as_str().to_owned()),
    column("Found", |check| check.found.clone()),
    column("What to do", |check| check.advice.clone().unwrap_or_default()),
];

/// Less free space than this, and sessions will be ended for want of it before long.
const LEAST_FREE_BYTES: u64 = 1 << 30;
const FEW_FREE_BYTES: u64 = 10 << 30;
/// Each recording on its way to rest takes a few.
const FEW_FREE_FILES: u64 = 10_000;
/// A part that has not answered by then is away.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: DoctorArgs, global: &Global) -> Result<(), Failure> {
    let format = global.format();
    let checks = checks(&args.config).await;
    let failed = checks.iter().filter(|check| check.state == State::Failed).count();
    output::list(format, &Page { items: checks, next: None }, COLUMNS)?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::text(FailureKind::Failed, "one check failed")),
        several => Err(Failure::text(FailureKind::Failed, format!("{several} checks failed"))),
    }
}

async fn checks(file: &Path) -> Vec<Check> {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(failure) => {
            let advice = "mend the file; `sallyport config check` names every fault";
            return vec![Check::failed("configuration", format!("{:#}", failure.error), advice)];
        }
    };
    let served = is_served(&config).await;
    let data_dir = &config.server.data_dir;
    let mut checks =
        vec![Check::ok("configuration", format!("`{}` can be read", file.display())), folder("data folder", data_dir)];
    checks.extend(around::private(data_dir));
    checks.push(master_key(&config));
    checks.extend(around::secret_files(&config));
    checks.extend([database(&config).await, rights(&config).await, anchors(&config).await, outbox(&config).await]);
    checks.extend(blobs(&config).await);
    checks.extend([around::encryption(&config).await, around::clock(&config).await]);
    checks.extend([journal(&config), space("journal space", &config.recording.journal_dir)]);
    for (what, path) in [("data space", Some(data_dir.as_path())), ("object space", blob_folder(&config))] {
        // What lies on the journals' disk was told with it.
        checks
            .extend(path.filter(|path| !same_disk(path, &config.recording.journal_dir)).map(|path| space(what, path)));
    }
    checks.extend([socket(&config, served), port("ssh port", "ssh.listen", config.ssh.listen, served).await]);
    if let Some(address) = config.api.https_listen {
        checks.push(port("web port", "api.https_listen", address, served).await);
    }
    if let Some(address) = config.api.listen {
        checks.push(port("api port", "api.listen", address, served).await);
    }
    checks.extend(around::traces(&config).await);
    checks.extend(around::targets(&config).await);
    checks
}

/// Where recordings are, if they are files.
fn blob_folder(config: &Config) -> Option<&Path> {
    let path = config.blobs.url.strip_prefix("file:")?;
    Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
}

/// What exists of a path.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

fn same_disk(one: &Path, other: &Path) -> bool {
    let device = |path| std::fs::metadata(existing(path)).map(|found| std::os::unix::fs::MetadataExt::dev(&found));
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether a bastion answers on the socket.
async fn is_served(config: &Config) -> bool {
    let Some(path) = &config.api.socket else {
        return false;
    };
    let Ok(client) = Client::new(Door::Socket(path.clone())) else {
        return false;
    };
    client.get::<Health>(&["health"], &()).await.is_ok()
}

/// A folder that must be there and take files.
fn folder(what: &'static str, path: &Path) -> Check {
    let shown = path.display();
    if !path.exists() {
        let found = format!("`{shown}` does not exist yet");
        let advice = format!("`sallyport serve` creates it if it may; else: install -d -m 700 -o sallyport '{shown}'");
        return Check::warning(what, found, advice);
    }
    if !path.is_dir() {
        return Check::failed(
            what,
            format!("`{shown}` is no folder"),
            format!("install -d -m 700 -o sallyport '{shown}'"),
        );
    }
    match tempfile::tempfile_in(path) {
        Ok(_removed_when_closed) => Check::ok(what, format!("`{shown}` takes files")),
        Err(error) => Check::failed(
            what,
            format!("cannot write in `{shown}`: {error}"),
            "run this as the bastion's user; give the folder to that user, and look whether the disk is full or read-only",
        ),
    }
}

/// The folder for journals; the usual one is made by the first start.
fn journal(config: &Config) -> Check {
    const WHAT: &str = "journal folder";
    let path = &config.recording.journal_dir;
    if !path.exists() && path.starts_with(&config.server.data_dir) {
        let found = format!("`{}` does not exist yet", path.display());
        return Check::warning(WHAT, found, "`sallyport serve` creates it when it starts");
    }
    folder(WHAT, path)
}

fn master_key(config: &Config) -> Check {
    const WHAT: &str = "master key";
    let error = match MasterKey::load(&config.master_key, |name| std::env::var_os(name)) {
        Ok(key) => {
            let found = format!("{} is loaded, and only its owner may read it", key.id());
            return Check::ok(WHAT, found);
        }
        Err(error) => format!("{:#}", anyhow::Error::new(error)),
    };
    // Without a database there is nothing that another key has sealed.
    let is_new = sqlite_file(config).is_some_and(|file| !file.exists());
    if is_new && config.own_master_key_file().is_some_and(|file| !file.exists()) {
        return Check::warning(WHAT, error, "`sallyport serve` makes it when it starts");
    }
    let advice = "restore it from its backup: what it sealed cannot be opened with another; \
                  or mend `[master_key]`, or the file's mode and owner";
    Check::failed(WHAT, error, advice)
}

/// The database's file, if it is in one.
fn sqlite_file(config: &Config) -> Option<&Path> {
    let path = config.database.url.strip_prefix("sqlite:")?;
    Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
}

async fn database(config: &Config) -> Check {
    const WHAT: &str = "database";
    // To open it would create it.
    if let Some(file) = sqlite_file(config).filter(|file| !file.exists()) {
        let found = format!("`{}` does not exist yet", file.display());
        return Check::warning(WHAT, found, "`sallyport serve` creates it when it starts");
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let version = policy_version::read(&mut db.read().await?).await;
        db.close().await;
        version
    };
    match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok(version)) => Check::ok(WHAT, format!("it answers, and has its tables (policy version {version})")),
        Ok(Err(error)) if error.is_unreachable() => {
            let error = anyhow::Error::new(error);
            Check::failed(WHAT, format!("{error:#}"), "start it, or mend `[database] url`")
        }
        Ok(Err(error)) => {
            let error = anyhow::Error::new(error);
            Check::failed(
                WHAT,
                format!("{error:#}"),
                "`sallyport serve` brings the tables up to its version when it starts",
            )
        }
        Err(_elapsed) => Check::failed(WHAT, "it does not answer", "start it, or mend `[database] url`"),
    }
}

/// Whether the role that serves could change what must stay.
async fn rights(config: &Config) -> Check {
    const WHAT: &str = "database rights";
    if sqlite_file(config).is_some() {
        return Check::ok(WHAT, "SQLite has none; triggers keep events as they are");
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let changeable = roles::changeable(&db).await;
        db.close().await;
        changeable
    };
    let advice =
        "make the tables belong to another role, and set `[database] migrate_url` for the next start (docs/operate.md)";
    match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok(Some(tables))) if !tables.is_empty() => {
            let found = format!("the bastion's role owns or may change {}; only triggers keep them", tables.join(", "));
            Check::warning(WHAT, found, advice)
        }
        Ok(Ok(_)) => Check::ok(WHAT, "the bastion's role can read and add events, and not change them"),
        Ok(Err(error)) => Check::failed(WHAT, format!("{:#}", anyhow::Error::new(error)), "look at the database first"),
        Err(_elapsed) => Check::failed(WHAT, "it does not answer", "look at the database first"),
    }
}

/// Whether signed checkpoints get out of the database.
async fn anchors(config: &Config) -> Check {
    const WHAT: &str = "anchors";
    if sqlite_file(config).is_some_and(|file| !file.exists()) {
        return Check::warning(WHAT, "there is no database yet", "`sallyport serve` creates it when it starts");
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let states = crate::store::db::anchors::list(&mut db.read().await?).await;
        db.close().await;
        states
    };
    let states = match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok(states)) => states,
        Ok(Err(error)) => {
            return Check::failed(WHAT, format!("{:#}", anyhow::Error::new(error)), "look at the database first");
        }
        Err(_elapsed) => return Check::failed(WHAT, "the database does not answer", "look at the database first"),
    };
    let text = |state: &AnchorState| {
        let error = state.error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
        format!("{} of {}: {} events{error}", state.name, state.node, state.size)
    };
    let advice = "mend the anchor, or `[ledger]`; until then who owns the database could put back an older one";
    match states.iter().find(|state| state.late).or_else(|| states.iter().find(|state| state.error.is_some())) {
        Some(late) if late.late => Check::failed(WHAT, format!("late: {}", text(late)), advice),
        Some(failing) => Check::warning(WHAT, text(failing), advice),
        None if states.is_empty() => Check::warning(WHAT, "nothing was brought out yet", advice),
        None => Check::ok(WHAT, states.iter().map(text).collect::<Vec<_>>().join("; ")),
    }
}

/// Whether every destination can be prepared, and is told of events.
async fn outbox(config: &Config) -> Check {
    const WHAT: &str = "outbox";
    let names: Vec<&str> = config.outbox.iter().map(|one| one.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().chain(config.notify.iter().map(|one| one.name.as_str())).collect();
    if names.is_empty() {
        return Check::ok(WHAT, "no destination is configured");
    }
    if let Err(error) = Outbox::open(&config.outbox, &config.notify, &config.node()) {
        let found = format!("{:#}", anyhow::Error::new(error));
        return Check::failed(WHAT, found, "mend `[[outbox]]` or `[[notify]]`: the bastion does not start like this");
    }
    if sqlite_file(config).is_some_and(|file| !file.exists()) {
        return Check::warning(WHAT, "there is no database yet", "`sallyport serve` creates it when it starts");
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let standings = crate::store::db::outbox::standings(&mut db.read().await?).await;
        db.close().await;
        standings
    };
    let mut standings = match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok(standings)) => standings,
        Ok(Err(error)) => {
            return Check::failed(WHAT, format!("{:#}", anyhow::Error::new(error)), "look at the database first");
        }
        Err(_elapsed) => return Check::failed(WHAT, "the database does not answer", "look at the database first"),
    };
    standings.retain(|one| names.contains(&one.state.name.as_str()));
    let text = |one: &Standing| {
        let error = one.state.error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
        format!("{}: {} events wait{error}", one.state.name, one.waiting)
    };
    let advice = "mend the receiver, or its `[[outbox]]` or `[[notify]]`; nothing is lost meanwhile";
    if let Some(late) = standings.iter().find(|one| one.state.late) {
        return Check::failed(WHAT, format!("late: {}", text(late)), advice);
    }
    if let Some(failing) = standings.iter().find(|one| one.state.error.is_some()) {
        return Check::warning(WHAT, text(failing), advice);
    }
    if let Some((one, last)) = standings.iter().find_map(|one| Some((one, one.state.last_drop.as_ref()?))) {
        let found = format!("{} refused {} records for good, at last {last}", one.state.name, one.state.dropped);
        return Check::warning(WHAT, found, "the events are in the audit log; mend what the receiver refuses");
    }
    match names.iter().find(|name| standings.iter().all(|one| one.state.name != **name)) {
        Some(name) => Check::warning(WHAT, format!("{name} was told of nothing yet"), "start `sallyport serve`"),
        None => Check::ok(WHAT, standings.iter().map(text).collect::<Vec<_>>().join("; ")),
    }
}

/// Whether the object store takes, gives and locks objects.
async fn blobs(config: &Config) -> Vec<Check> {
    const WHAT: &str = "object store";
    if let Some(folder) = blob_folder(config).filter(|folder| !folder.exists()) {
        // To open it would create it, and its parents, as whoever runs this.
        let found = format!("`{}` does not exist yet", folder.display());
        return vec![Check::warning(WHAT, found, "`sallyport serve` creates it when it starts")];
    }
    let look = async {
        let blobs = Blobs::open(&config.blobs)?;
        let key = format!("doctor/{}", Uuid::now_v7().simple());
        let written = Bytes::from_static(b"written, read and deleted by `sallyport doctor`");
        blobs.put(&key, written.clone()).await?;
        let read = blobs.get(&key).await;
        let lock = blobs.lock(&key).await;
        // A locked object stays; a bucket with versions hides it.
        let deleted = blobs.delete(&key).await;
        if !matches!(lock, Ok(Lock::Until(_))) {
            deleted?;
        }
        Ok::<_, crate::store::blob::BlobError>((read? == written, lock))
    };
    match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok((true, lock))) => {
            let is_locked = matches!(lock, Ok(Lock::Until(_)));
            let deleted = if is_locked {
                "a blob was written and read; it is locked, and stays"
            } else {
                "a blob was written, read and deleted"
            };
            vec![Check::ok(WHAT, deleted), object_lock(lock)]
        }
        Ok(Ok((false, _))) => {
            vec![Check::failed(WHAT, "a blob was read back with other bytes", "do not use this object store")]
        }
        Ok(Err(error)) => {
            let error = anyhow::Error::new(error);
            let advice = "mend `[blobs]`: the address, the keys, and the right to put, get and delete";
            vec![Check::failed(WHAT, format!("{error:#}"), advice)]
        }
        Err(_elapsed) => {
            vec![Check::failed(WHAT, "it does not answer", "start it, or mend `[blobs] url` and `endpoint`")]
        }
    }
}

/// Whether what was written a moment ago can be taken away again.
fn object_lock(lock: Result<Lock, crate::store::blob::BlobError>) -> Check {
    const WHAT: &str = "object lock";
    const ADVICE: &str = "make the bucket with object lock and a default retention (docs/hardening.md), so that nobody takes recordings and \
                          checkpoints away";
    match lock {
        Ok(Lock::Until(text)) => Check::ok(WHAT, format!("objects are locked ({text})")),
        Ok(Lock::Files) => {
            Check::warning(WHAT, "files have none: who may write to the folder can remove recordings", ADVICE)
        }
        Ok(Lock::None) => Check::warning(WHAT, "the bucket has no default retention", ADVICE),
        Err(error) => {
            let found = format!("cannot ask for it: {:#}", anyhow::Error::new(error));
            Check::warning(WHAT, found, "give the key the right to read retentions (`s3:GetObjectRetention`)")
        }
    }
}

fn space(what: &'static str, path: &Path) -> Check {
    // A folder that does not exist yet will be on its parent's disk.
    let disk = match nix::sys::statvfs::statvfs(existing(path)) {
        Ok(disk) => disk,
        Err(error) => {
            let found = format!("cannot ask for free space in `{}`: {error}", path.display());
            return Check::failed(what, found, "look at that folder first");
        }
    };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let found = format!("{} are free for `{}`", bytesize::ByteSize(free), path.display());
    let advice = "free some space, or move it to a larger disk (`[recording] journal_dir`, `[server] data_dir`, `[blobs] url`): when \
                  it is full, sessions end";
    // Some file systems count no files; then all of them are free.
    if disk.files() > 0 && disk.files_available() < FEW_FREE_FILES {
        let found = format!("{} files can still be made for `{}`", disk.files_available(), path.display());
        return Check::failed(what, found, advice);
    }
    match free {
        LEAST_FREE_BYTES.. if free >= FEW_FREE_BYTES => Check::ok(what, found),
        LEAST_FREE_BYTES.. => Check::warning(what, found, advice),
        _ => Check::failed(what, found, advice),
    }
}

fn socket(config: &Config, served: bool) -> Check {
    const WHAT: &str = "admin socket";
    let Some(path) = &config.api.socket else {
        return Check::warning(
            WHAT,
            "there is none",
            "set `[api] socket`, so that the command line needs no token here",
        );
    };
    let shown = path.display();
    match path.parent() {
        _ if served => Check::ok(WHAT, format!("the bastion answers on `{shown}`")),
        Some(folder) if !folder.is_dir() && folder != config.server.data_dir => {
            Check::failed(WHAT, format!("`{}` is no folder", folder.display()), "create it, or set `[api] socket`")
        }
        Some(_) | None => Check::warning(
            WHAT,
            format!("nothing answers on `{shown}`"),
            "start `sallyport serve`; if it runs, run this as its user or as root",
        ),
    }
}

async fn port(what: &'static str, setting: &str, address: SocketAddr, served: bool) -> Check {
    match tokio::net::TcpListener::bind(address).await {
        Ok(_closed_at_once) => Check::ok(what, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && served => {
            Check::ok(what, format!("{address} is in use, and the bastion runs"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::failed(
            what,
            format!("{address} is in use, and no bastion of this configuration runs"),
            format!("look who has it (`ss -ltnp sport = :{}`), or set `{setting}`", address.port()),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Check::failed(
            what,
            format!("not allowed to listen on {address}"),
            "ports below 1024 take root or CAP_NET_BIND_SERVICE (`AmbientCapabilities=` in the systemd unit)",
        ),
        Err(error) => Check::failed(what, format!("cannot listen on {address}: {error}"), format!("mend `{setting}`")),
    }
}
