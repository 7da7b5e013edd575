//! `sallyport break-glass`: sealed envelopes for the day on which nobody can be asked.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use sallyport_domain::break_glass::{Envelope as Sealed, EnvelopeError};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::EnvelopeId;
use sallyport_domain::ledger::note::{MOST_NOTE_BYTES, VerifierKey};
use sallyport_domain::name::{Login, PrincipalName, TargetName};
use serde::Serialize;

use super::failure::{Failure, FailureKind};
use super::grant::time;
use super::output::{self, Column, Format, column};
use super::terms::{self, AllowArg, joined};
use super::{Global, config, now, when};
use crate::api::break_glass::{Envelope, MadeEnvelope, MakeEnvelope, OpenEnvelope, OpenedEnvelope};
use crate::api::grants::Reason;
use crate::api::page::Page;
use crate::app::break_glass::read_keys;

/// How long an envelope can wait, where nothing is said.
const USUAL_WAIT: Duration = Duration::from_hours(90 * 24);

#[derive(Debug, Subcommand)]
pub(crate) enum BreakGlassCommand {
    /// Make an envelope: a grant that one node's operator opens there, once, even without the database
    Make(Box<MakeArgs>),
    /// Verify an envelope and show what it gives; asks no server
    Show(Box<ShowArgs>),
    /// List envelopes that were made
    Ls,
    /// Take back an envelope that was not opened
    Revoke {
        id: EnvelopeId,
        #[arg(long)]
        reason: String,
    },
    /// Open an envelope on this node; its grant begins at once
    Open {
        file: PathBuf,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct MakeArgs {
    /// Who: one person, who comes in by one of their present keys
    #[arg(long)]
    person: PrincipalName,
    /// Where to
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',', required = true)]
    targets: Vec<TargetName>,
    /// The accounts
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',', required = true)]
    logins: Vec<Login>,
    /// What may be done: shell, exec, upload, download, forward=host:port; shell and exec where it is left out
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    can: Vec<AllowArg>,
    /// Sessions that may be open at once, 4 at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    max_sessions: u32,
    /// How long its grant lasts once it was opened, an hour at most
    #[arg(long = "for", value_name = "DURATION", default_value = "30m", value_parser = humantime::parse_duration)]
    lasting: Duration,
    /// Until when it can be opened, in a year at most; in 90 days where it is left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// The node that opens it: `server.node`, as `sallyport node ls` shows it
    #[arg(long)]
    node: String,
    /// What it is for
    #[arg(long)]
    reason: String,
    /// Where to write it; a new file in this folder where it is left out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    file: PathBuf,
    /// The key that verifies it, as `make` printed it; what this node has kept where it is left out
    #[arg(long, value_name = "KEY")]
    key: Option<VerifierKey>,
    /// The configuration file, which says where this node keeps it
    #[arg(long, env = "SALLYPORT_CONFIG", value_name = "FILE", default_value = config::USUAL_FILE)]
    config: PathBuf,
}

const COLUMNS: &[Column<Envelope>] = &[
    column("Id", |envelope| envelope.id.to_string()),
    column("State", |envelope| envelope.state.as_str().to_owned()),
    column("Person", |envelope| envelope.person.name.to_string()),
    column("Targets", |envelope| joined(&envelope.targets)),
    column("Logins", |envelope| joined(&envelope.logins)),
    column("Node", |envelope| envelope.node.clone()),
    column("Made", |envelope| when::local(envelope.made_at)),
    column("By", |envelope| envelope.made_by.clone()),
    column("Until", |envelope| when::local(envelope.not_after)),
    column("Grant", |envelope| envelope.grant.map(|grant| grant.to_string()).unwrap_or_default()),
    column("Reason", |envelope| envelope.reason.clone()),
];

pub(crate) async fn run(command: BreakGlassCommand, global: &Global) -> Result<(), Failure> {
    match command {
        BreakGlassCommand::Make(args) => make(*args, global).await,
        BreakGlassCommand::Show(args) => show(*args, global),
        BreakGlassCommand::Ls => {
            let items: Vec<Envelope> = global.client()?.get(&["break-glass"], &()).await?;
            output::list(global.format(), &Page { items, next: None }, COLUMNS)
        }
        BreakGlassCommand::Revoke { id, reason } => {
            let path = ["break-glass", &id.to_string(), "revoke"];
            let envelope: Envelope = global.client()?.post(&path, &Reason { reason }).await?;
            output::note("nodes that reach the database open it no more; destroy the file all the same");
            output::one(global.format(), &envelope, &[("Id", id.to_string()), ("State", "revoked".to_owned())])
        }
        BreakGlassCommand::Open { file, reason } => open(&file, reason, global).await,
    }
}

async fn make(args: MakeArgs, global: &Global) -> Result<(), Failure> {
    let MakeArgs { person, targets, logins, can, max_sessions, lasting, until, node, reason, out } = args;
    let usual = when::after(now().to_utc(), USUAL_WAIT);
    let not_after = until.or(usual).ok_or_else(|| Failure::usage("`--until` is too far away"))?;
    let body = MakeEnvelope {
        person,
        targets,
        logins,
        allow: (!can.is_empty()).then(|| terms::allow(can)),
        max_sessions: Some(max_sessions),
        lasting_seconds: u32::try_from(lasting.as_secs()).map_err(|_| Failure::usage("`--for` is too long"))?,
        not_after,
        node,
        reason,
    };
    let made: MadeEnvelope = global.client()?.post(&["break-glass"], &body).await?;
    let path = out.unwrap_or_else(|| PathBuf::from(format!("{}.envelope", made.id)));
    let cannot = || format!("cannot write `{}`; envelope {} is lost: revoke it", path.display(), made.id);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(cannot)?;
    file.write_all(made.file.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
    output::note(format!(
        "it opens on `{}` alone, once, until {}; keep it where people find it when all is down, and not on that host alone",
        body.node,
        when::local(not_after),
    ));
    let rows = [
        ("Id", made.id.to_string()),
        ("File", path.display().to_string()),
        ("SHA-256", made.document.to_string()),
        ("Key", made.key.clone()),
    ];
    output::one(global.format(), &made, &rows)
}

/// What `show` tells a program.
#[derive(Serialize)]
struct Shown {
    document: Hash,
    envelope: Sealed,
}

fn show(args: ShowArgs, global: &Global) -> Result<(), Failure> {
    let file = read(&args.file)?;
    let keys = match args.key {
        Some(key) => vec![key],
        None => {
            let data_dir = config::load(&args.config)?.server.data_dir;
            read_keys(&data_dir).map_err(|error| Failure::new(FailureKind::Failed, error))?
        }
    };
    if keys.is_empty() {
        return Err(Failure::text(FailureKind::Failed, "this node has kept no key that verifies envelopes")
            .hint("give the key that `break-glass make` printed with `--key`"));
    }
    let envelope = Sealed::read(&file, &keys).map_err(|error: EnvelopeError| {
        let error =
            anyhow::Error::new(error).context(format!("`{}` is no envelope of this bastion", args.file.display()));
        Failure::new(FailureKind::Proof, error)
    })?;
    let shown = Shown { document: Sealed::document(&file), envelope };
    let envelope = &shown.envelope;
    let accounts: Vec<String> =
        envelope.accounts().map(|(target, login)| format!("{login}@{} ({})", target.name, target.address)).collect();
    let allow = envelope.terms.capabilities.clone().into();
    let rows = [
        ("Id", envelope.id.to_string()),
        ("SHA-256", shown.document.to_string()),
        ("Person", envelope.person.name.to_string()),
        ("Accounts", accounts.join("\n")),
        ("May", terms::allowed(&allow)),
        ("Sessions", envelope.terms.max_sessions.map(|most| most.to_string()).unwrap_or_default()),
        ("Lasts", humantime::format_duration(Duration::from_secs(envelope.lasting_seconds.into())).to_string()),
        ("Node", envelope.node.clone()),
        ("Opens until", when::local(envelope.not_after)),
        ("Made", format!("{} by {}", when::local(envelope.made_at), crate::app::audit::name_of(&envelope.made_by))),
        ("Reason", envelope.reason.clone()),
    ];
    output::one(global.format(), &shown, &rows)
}

async fn open(path: &Path, reason: String, global: &Global) -> Result<(), Failure> {
    let file = String::from_utf8(read(path)?);
    let file = file.map_err(|_| Failure::usage(format!("`{}` is not an envelope", path.display())))?;
    let opened: OpenedEnvelope = global.client()?.ask(&["break-glass", "open"], &OpenEnvelope { file, reason }).await?;
    if global.format() == Format::Table {
        output::note(
            "THE GLASS IS BROKEN. The envelope is used up, what is done is recorded, and it will be reviewed.",
        );
        if !opened.in_database {
            output::note(
                "the database is away: it counts on this node alone, and is told to the database when that is back",
            );
        }
    }
    let port = if opened.ssh_port == 22 { String::new() } else { format!(" -p {}", opened.ssh_port) };
    let commands: Vec<String> = opened
        .accounts
        .iter()
        .filter_map(|account| account.split_once('@'))
        .map(|(login, target)| format!("ssh{port} {}+{login}@{target}@{}", opened.person, opened.ssh_host))
        .collect();
    let rows = [
        ("Person", opened.person.to_string()),
        ("Until", when::local(opened.not_after)),
        ("Grant", opened.grant.to_string()),
        ("They type", commands.join("\n")),
    ];
    output::one(global.format(), &opened, &rows)
}

/// The file's bytes, no more than an envelope can have.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = || format!("cannot read `{}`", path.display());
    let file = std::fs::File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    file.take(MOST_NOTE_BYTES as u64 + 1).read_to_end(&mut bytes).with_context(cannot)?;
    Ok(bytes)
}
