//! `sallyport evidence`: bundles that prove themselves to outsiders. Verifying one asks the bastion nothing.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{GrantId, SessionId};
use sallyport_domain::ledger::bundle;
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Format};
use crate::api::error::Problem;
use crate::api::ledger::LedgerKey;
use crate::api::replay::BROKEN_OFF;

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Put everything about a grant, or one session, into a file that proves itself
    Make(MakeArgs),
    /// Verify such a file, with nothing but the fingerprint of the ledger's key
    Verify(VerifyArgs),
    /// Print the fingerprints of the ledger's keys, for whoever will verify
    Key,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MakeArgs {
    /// The grant, or one session under it
    #[arg(value_name = "GRANT|SESSION")]
    subject: Subject,
    /// Where to; `evidence-ID.zip` where it is left out
    #[arg(short = 'o', long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    file: PathBuf,
    /// SHA-256 of the ledger's public key, from somebody you trust: 64 hexadecimal digits
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    key: Hash,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Grant(GrantId),
    Session(SessionId),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Subject::Session(id));
        }
        text.parse().map(Subject::Grant).map_err(|error: sallyport_domain::id::IdError| error.to_string())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Grant(id) => id.fmt(f),
            Subject::Session(id) => id.fmt(f),
        }
    }
}

fn fingerprint(text: &str) -> Result<Hash, String> {
    text.to_ascii_lowercase().parse().map_err(|error: sallyport_domain::hash::HashError| error.to_string())
}

pub(crate) async fn run(command: EvidenceCommand, global: &Global) -> Result<(), Failure> {
    match command {
        EvidenceCommand::Make(args) => make(args, global).await,
        EvidenceCommand::Verify(args) => verify(&args, global),
        EvidenceCommand::Key => key(global).await,
    }
}

/// What a bundle that was made tells a script.
#[derive(Serialize)]
struct Made<'a> {
    file: &'a Path,
    bytes: u64,
}

async fn make(args: MakeArgs, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let MakeArgs { subject, file } = args;
    let file = file.unwrap_or_else(|| PathBuf::from(format!("evidence-{subject}.zip")));
    let bytes = tokio::select! {
        bytes = fetch(&client, subject, &file) => bytes?,
        // What was begun is given up, and with it its temporary file.
        _ = tokio::signal::ctrl_c() => return Err(Failure::text(FailureKind::Interrupted, "interrupted")),
    };
    match global.format() {
        Format::Table => {
            output::note(format!("{bytes} bytes in {}", file.display()));
            output::note("whoever verifies it needs the ledger key's fingerprint: `sallyport evidence key`");
            Ok(())
        }
        form => output::one(form, &Made { file: &file, bytes }, &[]),
    }
}

/// The file appears under its name once it is whole, and only its owner may read it.
async fn fetch(client: &Client, subject: Subject, file: &Path) -> Result<u64, Failure> {
    let cannot = |error: io::Error| {
        let context = anyhow::Error::new(error).context(format!("cannot write `{}`", file.display()));
        Failure::new(FailureKind::Failed, context)
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut whole = tempfile::NamedTempFile::new_in(folder).map_err(cannot)?;
    let id = subject.to_string();
    let path = match subject {
        Subject::Grant(_) => ["grants", id.as_str(), "evidence"],
        Subject::Session(_) => ["sessions", id.as_str(), "evidence"],
    };
    let progress = progress();
    let mut body = client.send(client.request(Method::POST, &path)).await?.bytes_stream();
    let mut out = BufWriter::new(&mut whole);
    let (mut bytes, mut refused) = (0, None::<Vec<u8>>);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| {
            let context = anyhow::Error::new(error.without_url()).context("the bundle broke off on its way");
            Failure::new(FailureKind::Unreachable, context)
        })?;
        if bytes == 0 && piece.starts_with(&BROKEN_OFF) {
            refused = Some(Vec::new());
        }
        match &mut refused {
            Some(problem) => problem.extend_from_slice(&piece),
            None => out.write_all(&piece).map_err(cannot)?,
        }
        bytes += piece.len() as u64;
        progress.set_message("");
        progress.set_position(bytes);
    }
    progress.finish_and_clear();
    if let Some(problem) = refused {
        return Err(refusal(&problem));
    }
    out.flush().map_err(cannot)?;
    drop(out);
    if !ends_as_archive(&mut whole).map_err(cannot)? {
        return Err(Failure::text(FailureKind::Unreachable, "the bundle broke off on its way"));
    }
    whole.persist(file).map_err(|error| cannot(error.error))?;
    Ok(bytes)
}

/// Whether the file has the 22 bytes that end an archive without a comment.
fn ends_as_archive(file: &mut tempfile::NamedTempFile) -> io::Result<bool> {
    use std::io::{Seek, SeekFrom};
    let file = file.as_file_mut();
    let length = file.seek(SeekFrom::End(0))?;
    if length < 22 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-22))?;
    let mut end = [0; 4];
    file.read_exact(&mut end)?;
    Ok(&end == b"PK\x05\x06")
}

fn refusal(answer: &[u8]) -> Failure {
    let problem: Option<Problem> =
        answer.get(BROKEN_OFF.len()..).and_then(|problem| serde_json::from_slice(problem).ok());
    match problem {
        Some(problem) if problem.kind == "urn:sallyport:damaged" => Failure::text(FailureKind::Proof, problem.detail),
        Some(problem) => Failure::text(FailureKind::Failed, problem.detail)
            .hint(format!("look for {} in the bastion's log", problem.reference)),
        None => Failure::text(FailureKind::Failed, "the bundle could not be made, and the answer does not say why"),
    }
}

/// How long it takes is not known before it is made.
fn progress() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(look) = ProgressStyle::with_template("{spinner} {msg} {bytes} {elapsed}") {
        bar.set_style(look);
    }
    bar.set_message("the bastion puts it together");
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn verify(args: &VerifyArgs, global: &Global) -> Result<(), Failure> {
    let bytes = std::fs::read(&args.file).map_err(|error| {
        let context = anyhow::Error::new(error).context(format!("cannot read `{}`", args.file.display()));
        Failure::new(FailureKind::Usage, context)
    })?;
    let verdict = bundle::verify(&bytes, args.key);
    match global.format() {
        Format::Table => output::text(&verdict.to_string())?,
        form => output::one(form, &verdict, &[])?,
    }
    if verdict.is_sound() {
        Ok(())
    } else {
        Err(Failure::text(FailureKind::Proof, format!("`{}` is not sound", args.file.display())))
    }
}

async fn key(global: &Global) -> Result<(), Failure> {
    let keys: Vec<LedgerKey> = global.client()?.get(&["ledger", "keys"], &()).await?;
    match global.format() {
        Format::Table => keys.iter().try_for_each(|key| {
            let state = if key.retired_at.is_some() { "  retired" } else { "" };
            output::text(&format!("{}{state}\n", key.fingerprint))
        }),
        form => output::one(form, &keys, &[]),
    }
}
