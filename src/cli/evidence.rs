//! `sallyport evidence`: bundles that prove themselves to outsiders. Verifying one asks the bastion nothing.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{GrantId, SessionId};
use sallyport_domain::ledger::bundle::archive::Archive;
use sallyport_domain::ledger::bundle::{self, Verdict, recording};
use sallyport_domain::ledger::manifest::Manifest;
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Format};
use crate::api::error::Problem;
use crate::api::ledger::LedgerKey;
use crate::api::replay::BROKEN_OFF;
use crate::app::recordings::encryption::{DecryptError, Identities};

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Put everything about a grant, or one session, into a file that proves itself
    Make(MakeArgs),
    /// Verify such a file, with nothing but the fingerprint of the ledger's key
    Verify(VerifyArgs),
    /// Verify such a file, and write casts of what is encrypted in it into a folder
    Open(OpenArgs),
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
    /// Private keys (age) of the client's, to look into what is encrypted to them
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OpenArgs {
    file: PathBuf,
    /// SHA-256 of the ledger's public key, from somebody you trust: 64 hexadecimal digits
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    key: Hash,
    /// Private keys (age) of the client's
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Where to; the bundle's name with `.casts` behind it where it is left out
    #[arg(short = 'o', long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
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
        EvidenceCommand::Open(args) => open(&args, global),
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
    let bytes = read(&args.file)?;
    let identities = args.identity.as_deref().map(super::identity::read).transpose()?;
    let verdict = look(&bytes, args.key, identities.as_ref());
    match global.format() {
        Format::Table => output::text(&verdict.to_string())?,
        form => output::one(form, &verdict, &[])?,
    }
    sound(&verdict, &args.file)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| {
        let context = anyhow::Error::new(error).context(format!("cannot read `{}`", file.display()));
        Failure::new(FailureKind::Usage, context)
    })
}

fn sound(verdict: &Verdict, file: &Path) -> Result<(), Failure> {
    if verdict.is_sound() {
        Ok(())
    } else {
        Err(Failure::text(FailureKind::Proof, format!("`{}` is not sound", file.display())))
    }
}

fn look(bytes: &[u8], key: Hash, identities: Option<&Identities>) -> Verdict {
    match identities {
        None => bundle::verify(bytes, key),
        Some(identities) => bundle::verify_with(bytes, key, Some(&|stored: &[u8]| decrypt(identities, stored))),
    }
}

fn decrypt(identities: &Identities, stored: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match identities.decrypt(stored, stored.len()) {
        Ok(plain) => Ok(Some(plain)),
        Err(DecryptError::OtherKeys) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What an opened bundle tells a script.
#[derive(Serialize)]
struct Opened {
    casts: Vec<PathBuf>,
    /// Recordings that are encrypted to other keys.
    closed: Vec<String>,
}

fn open(args: &OpenArgs, global: &Global) -> Result<(), Failure> {
    let bytes = read(&args.file)?;
    let identities = super::identity::read(&args.identity)?;
    let verdict = look(&bytes, args.key, Some(&identities));
    if !verdict.is_sound() {
        output::text(&verdict.to_string())?;
        return sound(&verdict, &args.file);
    }
    let folder = args.folder.clone().unwrap_or_else(|| args.file.with_extension("casts"));
    let opened = write_casts(&bytes, &identities, &folder)?;
    match global.format() {
        Format::Table => {
            for cast in &opened.casts {
                output::text(&format!("{}\n", cast.display()))?;
            }
            for recording in &opened.closed {
                output::note(format!("recording {recording} is encrypted to other keys"));
            }
            Ok(())
        }
        form => output::one(form, &opened, &[]),
    }
}

/// Writes a cast of each encrypted recording of a bundle that was verified, for its owner alone.
fn write_casts(bytes: &[u8], identities: &Identities, folder: &Path) -> Result<Opened, Failure> {
    let cannot = |error: io::Error| {
        Failure::from(anyhow::Error::new(error).context(format!("cannot write into `{}`", folder.display())))
    };
    let archive = Archive::parse(bytes).map_err(anyhow::Error::from)?;
    let mut opened = Opened { casts: Vec::new(), closed: Vec::new() };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
    for name in archive.files().iter().map(|file| file.name.as_str()).filter(|name| bundle::is_manifest(name)) {
        let manifest = Manifest::decode(archive.get(name).unwrap_or_default()).map_err(anyhow::Error::from)?;
        for seal in manifest.recordings.iter().filter(|seal| seal.is_encrypted()) {
            // One that was deleted is not there.
            let Some(stored) = archive.get(&bundle::segments_name(seal.recording)) else { continue };
            let cast = recording::cast(&manifest, seal, stored, &|stored: &[u8]| decrypt(identities, stored));
            let Some(cast) = cast.map_err(anyhow::Error::from)? else {
                opened.closed.push(seal.recording.to_string());
                continue;
            };
            let path = folder.join(format!("{}.cast", seal.recording));
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(&cast)).map_err(cannot)?;
            opened.casts.push(path);
        }
    }
    Ok(opened)
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
