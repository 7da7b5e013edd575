//! `sallyport verify`: whether everything is as it was written. It reads the database, the object store and the anchors itself,
//! on the bastion's host, and asks no server. An interrupted run goes on where it was.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sallyport_domain::hash::Hash;
use serde::{Deserialize, Serialize};

use super::failure::{Failure, FailureKind};
use super::output::{self, Format};
use super::{Global, config, when};
use crate::app::App;
use crate::app::clock::Clock;
use crate::app::ledger::anchors::Anchors;
use crate::app::ledger::verify::{Report, Verified, Wish, verify};
use crate::store::blob::Blobs;
use crate::store::db::Db;
use crate::store::seal::MasterKey;

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The configuration file
    #[arg(long, env = "SALLYPORT_CONFIG", value_name = "FILE", default_value = config::USUAL_FILE)]
    config: PathBuf,
    /// A fingerprint of the ledger's key, from elsewhere than this host; may be given several times. Without it, the keys that
    /// the last run saw are believed, and at the first run those in the database
    #[arg(long = "key", value_name = "SHA256")]
    keys: Vec<Hash>,
    /// Begin anew, also if an earlier run was interrupted
    #[arg(long)]
    from_start: bool,
    /// Leave out the recordings in the object store
    #[arg(long)]
    events_only: bool,
    /// Private keys (age) of the client's, to look into recordings that are encrypted to them. They stay in this process
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Where to keep how far it has come [default: `verified.json` in the data folder]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// What is kept between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
struct Kept {
    fingerprints: Vec<Hash>,
    /// Up to where an interrupted run has verified everything.
    verified: Option<Verified>,
}

/// How often the state is written while it runs.
const KEEP: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: VerifyArgs, global: &Global) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    let away = |error: anyhow::Error| Failure::new(FailureKind::Unreachable, error);
    let db = Db::connect(&config.database).await.map_err(|error| away(error.into()))?;
    let blobs = Blobs::open(&config.blobs).map_err(|error| away(error.into()))?;
    let anchors = Anchors::open(&config.ledger, &blobs, &config.node()).map_err(anyhow::Error::from)?;
    // Nothing that is sealed is opened here, so whoever verifies needs no master key.
    let no_key = MasterKey::from_bytes(&[0; 32]).map_err(anyhow::Error::from)?;
    let app = App::new(db, blobs, Clock::system(), no_key);

    let identities = args.identity.as_deref().map(super::identity::read).transpose()?.map(std::sync::Arc::new);
    let state = args.state.unwrap_or_else(|| config.server.data_dir.join("verified.json"));
    let kept = read(&state)?;
    let fingerprints = if args.keys.is_empty() { kept.fingerprints.clone() } else { args.keys };
    let resume = kept.verified.filter(|_| !args.from_start);
    if let Some(earlier) = resume {
        output::note(format!("going on after event {}, where an earlier run was interrupted", earlier.size));
    }
    let (anchored, anchor_faults) = anchors.witnesses(&app).await.map_err(|error| away(error.into()))?;
    let without_segments = args.events_only;
    let wish = Wish { fingerprints, anchored, anchor_faults, resume, without_segments, identities };

    let bar = bar();
    let mut written = Instant::now();
    let mut pinned = wish.fingerprints.clone();
    let verified = verify(&app, wish, |progress| {
        bar.set_length(progress.of);
        bar.set_position(progress.events);
        bar.set_message(format!("{} segments", progress.segments));
        if written.elapsed() >= KEEP {
            written = Instant::now();
            let kept = Kept { fingerprints: pinned.clone(), verified: progress.verified };
            // It would only have to begin anew.
            let _not_kept = write(&state, &kept);
        }
    });
    let report = verified.await.map_err(|error| away(error.into()))?;
    bar.finish_and_clear();
    if pinned.is_empty() {
        pinned.clone_from(&report.fingerprints);
    }
    if let Err(error) = write(&state, &Kept { fingerprints: pinned, verified: None }) {
        output::note(format!("the keys that were believed cannot be kept in `{}`: {error}", state.display()));
    }
    print(&report, global.format())?;
    match report.faults.len() {
        0 => Ok(()),
        count => {
            let text = if count == 1 { "one fault".to_owned() } else { format!("{count} faults") };
            let hint = "keep the database and the object store as they are; the anchors and copies elsewhere tell what was there";
            Err(Failure::text(FailureKind::Proof, format!("not everything is as it was written: {text}")).hint(hint))
        }
    }
}

fn print(report: &Report, format: Format) -> Result<(), Failure> {
    let root = report.root.map(|root| root.to_string()).unwrap_or_default();
    let keys: Vec<String> = report.fingerprints.iter().map(ToString::to_string).collect();
    let mut rows = vec![
        ("Ledger", report.origin.clone()),
        ("Key", keys.join("\n")),
        ("Events", format!("{} of {} proved", report.events, report.of)),
        ("Root", root),
        ("Signed", report.signed_at.map(when::local).unwrap_or_default()),
        ("Checkpoints", report.checkpoints.to_string()),
        ("Anchors", format!("{} checkpoints from outside fit", report.anchors)),
        ("Sessions", report.sessions.to_string()),
        ("Deleted", format!("the recordings of {} sessions, as the ledger tells", report.deleted)),
        ("Segments", format!("{} ({})", report.segments, bytesize::ByteSize(report.bytes))),
        ("Encrypted", format!("{} recordings are encrypted; their contents were not looked into", report.encrypted)),
    ];
    let faults: Vec<String> = report.faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect();
    match faults.first() {
        None => rows.push(("Result", "everything is as it was written".to_owned())),
        Some(_) => {
            rows.push(("First fault", faults.first().cloned().unwrap_or_default()));
            rows.push(("Provable", report.provable()));
            rows.push(("Faults", faults.join("\n")));
        }
    }
    output::one(format, report, &rows)
}

fn bar() -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} events, {msg}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn read(path: &Path) -> Result<Kept, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let kept = serde_json::from_slice(&bytes).with_context(|| format!("`{}` cannot be read", path.display()));
            kept.map_err(|error| Failure::from(error).hint("remove it, and give the key's fingerprint with `--key`"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => {
            Err(Failure::from(anyhow::Error::new(error).context(format!("cannot read `{}`", path.display()))))
        }
    }
}

/// Whole or not at all.
fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, kept)?;
    file.persist(path)?;
    Ok(())
}
