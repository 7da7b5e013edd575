//! What is around the bastion: files with secrets, the clock, and whether each target answers with the host key that is pinned.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use russh::keys::PublicKey;
use sallyport_domain::target::{HostKey, HostKeyTrust, Target};

use super::{Check, DEADLINE, sqlite_file};
use crate::app::clock::Clock;
use crate::config::Config;
use crate::ssh;
use crate::store::db::{Db, clock_marks, encryption, targets};
use crate::telemetry::traces;

/// Targets that are asked at once, and how many at most: a doctor that takes an hour is not called.
const AT_ONCE: usize = 16;
const MOST_TARGETS: usize = 500;
/// Clocks that differ by more than a second make windows of two nodes differ; by more than half a minute, codes and certificates fail.
const DRIFT: TimeDelta = TimeDelta::seconds(1);
const FAR_OFF: TimeDelta = TimeDelta::seconds(30);

/// Files that hold secrets: there, readable by this user, and by nobody else.
pub(super) fn secret_files(config: &Config) -> Vec<Check> {
    const WHAT: &str = "secret files";
    let named = [
        ("api.key_file", &config.api.key_file),
        ("blobs.secret_access_key_file", &config.blobs.secret_access_key_file),
        ("ledger.anchor_webhook_token_file", &config.ledger.anchor_webhook_token_file),
        ("traces.headers_file", &config.traces.headers_file),
    ];
    let named: Vec<(&str, &Path)> = named.iter().filter_map(|(key, path)| Some((*key, path.as_deref()?))).collect();
    let faults: Vec<Check> = named.iter().filter_map(|(key, path)| exposed(WHAT, key, path)).collect();
    match (faults.is_empty(), named.len()) {
        (false, _) => faults,
        (true, 0) => Vec::new(),
        (true, count) => vec![Check::ok(WHAT, format!("{count} can be read, and by nobody else"))],
    }
}

fn exposed(what: &'static str, key: &str, path: &Path) -> Option<Check> {
    let shown = path.display();
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Err(error) => {
            let found = format!("`{shown}` (`{key}`) cannot be read: {error}");
            Some(Check::failed(
                what,
                found,
                "run this as the bastion's user; give the file to that user, or mend the path",
            ))
        }
        // The group may read: systemd's credentials are root's and the service's.
        Ok(file) if file.permissions().mode() & 0o037 != 0 => {
            let found =
                format!("`{shown}` (`{key}`) can be read by others (mode {:03o})", file.permissions().mode() & 0o777);
            Some(Check::failed(
                what,
                found,
                format!("chmod 600 '{shown}', and change the secret if others are on this host"),
            ))
        }
        Ok(_) => None,
    }
}

/// Whom recordings are encrypted to, and whether every node says the same.
pub(super) async fn encryption(config: &Config) -> Check {
    const WHAT: &str = "encryption";
    let ours = config.recording.recipients.as_slice();
    let found = match ours {
        [] => "recordings are not encrypted (`recording.recipients` names no key)".to_owned(),
        keys => format!("recordings are encrypted to {}", keys.join(", ")),
    };
    if sqlite_file(config).is_some_and(|file| !file.exists()) {
        return Check::ok(WHAT, found);
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let noted = async { encryption::all_recipients(&mut db.read().await?).await };
        let noted = noted.await;
        db.close().await;
        noted
    };
    let Ok(Ok(noted)) = tokio::time::timeout(DEADLINE, look).await else {
        return Check::failed(WHAT, "the database does not tell what was in force", "look at the database first");
    };
    if let Some(other) = noted.iter().find(|noted| noted.recipients != ours) {
        let keys = if other.recipients.is_empty() { "to none".to_owned() } else { other.recipients.join(", ") };
        let found = format!("{found}; node {} encrypts to others since {}: {keys}", other.node, other.since);
        let advice = "set the same `recording.recipients` on every node, and start them anew; the audit log has each change \
                      (`sallyport audit ls --act recipients_changed`)";
        return Check::warning(WHAT, found, advice);
    }
    if let [_only] = ours {
        let advice = "name a second key, kept apart from the first: who loses the only one loses the recordings";
        return Check::warning(WHAT, found, advice);
    }
    Check::ok(WHAT, found)
}

/// The data folder holds the master key: it is for the bastion's user alone.
pub(super) fn private(folder: &Path) -> Option<Check> {
    let mode = std::fs::metadata(folder).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        let shown = folder.display();
        let found = format!("others may look into `{shown}` (mode {:03o})", mode & 0o777);
        Check::warning("data folder", found, format!("chmod 700 '{shown}'"))
    })
}

/// Whether this machine's clock agrees with the database's, and with what the bastion has seen.
pub(super) async fn clock(config: &Config) -> Check {
    const WHAT: &str = "clock";
    const SYNC: &str = "let NTP set the clock (`timedatectl set-ntp true`), on every node and on the database's host";
    if sqlite_file(config).is_some_and(|file| !file.exists()) {
        return Check::ok(WHAT, "there is nothing to compare it with yet");
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let times = async {
            let theirs = clock_marks::of_database(&db).await?;
            let seen = clock_marks::highest(&mut db.read().await?).await?;
            Ok::<_, crate::store::db::DbError>((theirs, seen))
        };
        let times = times.await;
        db.close().await;
        times
    };
    let (theirs, seen) = match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok(times)) => times,
        Ok(Err(_)) | Err(_) => {
            return Check::failed(WHAT, "the database does not tell its time", "look at the database first");
        }
    };
    let ours = Clock::system().now();
    if let Some(ahead) = behind(ours, seen).filter(|ahead| *ahead > DRIFT) {
        let found = format!("it is {} s behind the latest time that the bastion has seen", ahead.num_seconds());
        return Check::failed(WHAT, found, format!("{SYNC}; until it is past that time the bastion goes by the later"));
    }
    match theirs.map(|theirs| (ours - theirs).abs()) {
        Some(apart) if apart > FAR_OFF => {
            Check::failed(WHAT, format!("it is {} s off the database's", apart.num_seconds()), SYNC)
        }
        Some(apart) if apart > DRIFT => {
            Check::warning(WHAT, format!("it is {} ms off the database's", apart.num_milliseconds()), SYNC)
        }
        Some(_) => Check::ok(WHAT, "it agrees with the database's, and with what was seen before"),
        None => Check::ok(WHAT, "it is not behind what was seen before"),
    }
}

fn behind(ours: DateTime<Utc>, seen: Option<DateTime<Utc>>) -> Option<TimeDelta> {
    seen.map(|seen| seen - ours)
}

/// Whether the collector takes traces, if one is set.
pub(super) async fn traces(config: &Config) -> Option<Check> {
    const WHAT: &str = "traces";
    let endpoint = config.traces.otlp_endpoint.as_deref()?;
    Some(match traces::ask(&config.traces).await {
        Ok(()) => Check::ok(WHAT, format!("`{endpoint}` takes them")),
        Err(fault) => {
            let advice = "look whether it runs and takes OTLP over HTTP (often port 4318; 4317 speaks gRPC), and at \
                          `traces.headers_file` if it answers 401 or 403; sessions do not wait for it";
            Check::failed(WHAT, format!("`{endpoint}` takes no traces: {fault}"), advice)
        }
    })
}

/// Asks every target for its host keys, as a stranger would.
pub(super) async fn targets(config: &Config) -> Vec<Check> {
    const WHAT: &str = "targets";
    if sqlite_file(config).is_some_and(|file| !file.exists()) {
        return Vec::new();
    }
    let look = async {
        let db = Db::connect(&config.database).await?;
        let all = match db.read().await {
            Ok(mut tx) => targets::list(&mut tx).await,
            Err(error) => Err(error),
        };
        db.close().await;
        all
    };
    let all = match tokio::time::timeout(DEADLINE, look).await {
        Ok(Ok(all)) => all,
        Ok(Err(_)) | Err(_) => {
            return vec![Check::failed(WHAT, "the database does not list them", "look at the database first")];
        }
    };
    // What is reached through another is behind a door that takes a login.
    let (direct, through): (Vec<Target>, Vec<Target>) =
        all.into_iter().filter(|target| target.disabled_at.is_none()).partition(|target| target.jump.is_none());
    let (asked, left) = (direct.len().min(MOST_TARGETS), direct.len().saturating_sub(MOST_TARGETS));
    let answers = futures::stream::iter(direct.into_iter().take(MOST_TARGETS)).map(|target| async move {
        match tokio::time::timeout(DEADLINE, ssh::scan(&target.address)).await {
            Ok(Ok(offered)) => judge(&target, &offered),
            Ok(Err(error)) => Some(unreachable(&target, &error.to_string())),
            Err(_elapsed) => Some(unreachable(&target, "it does not answer")),
        }
    });
    let mut checks: Vec<Check> = answers.buffered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let sound = asked - checks.len();
    let mut found = format!("{sound} of {asked} answer with a host key that is pinned");
    if !through.is_empty() {
        found += &format!("; {} are reached through others and were not asked", through.len());
    }
    if left > 0 {
        found += &format!("; {left} more were not asked");
    }
    if asked + through.len() > 0 && checks.is_empty() {
        checks.push(Check::ok(WHAT, found));
    }
    checks
}

fn unreachable(target: &Target, why: &str) -> Check {
    let found = format!("`{}` ({}) cannot be reached: {why}", target.name, target.address);
    Check::failed("targets", found, "look whether it runs, at the firewall between, and at `sallyport target show`")
}

/// What is wrong with the keys that a target offers.
fn judge(target: &Target, offered: &[PublicKey]) -> Option<Check> {
    let line = |key: &PublicKey| key.to_openssh().ok().map(|line| words(&line).to_owned());
    let is_pinned = |key: &HostKey| match key.trust {
        HostKeyTrust::Host => offered.iter().filter_map(line).any(|offered| offered == words(&key.public_key)),
        // A stranger who asks without naming the authority is shown a plain key: that it answers must do.
        HostKeyTrust::Authority => !offered.is_empty(),
    };
    if target.host_keys.iter().any(is_pinned) {
        return None;
    }
    let shown: Vec<String> =
        offered.iter().map(|key| key.fingerprint(russh::keys::HashAlg::Sha256).to_string()).collect();
    let found = match shown.is_empty() {
        true => format!("`{}` ({}) shows no host key: it is no SSH server", target.name, target.address),
        false => {
            format!("`{}` ({}) offers {}, and none of these is pinned", target.name, target.address, shown.join(", "))
        }
    };
    let advice = format!(
        "compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host itself, then `sallyport target repin {}`",
        target.name
    );
    Some(Check::failed("targets", found, advice))
}

/// Algorithm and base64, without a comment.
fn words(line: &str) -> &str {
    let end = line.match_indices(' ').nth(1).map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or(line)
}
