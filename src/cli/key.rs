//! `sallyport key`: the bastion's keys, and how one follows another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Column, Format, column};
use super::{Global, when};
use crate::api::keys::{AuthorityStep, Key, LedgerKeyRotated, MasterKeyRotated, RotateMaster};
use crate::api::page::Page;
use crate::store::seal::MasterKey;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// List the bastion's keys
    Ls,
    /// Make a new master key in a file, for `key rotate master`
    NewMaster {
        /// Where to; beside the old one with `.next` behind its name every bastion looks for it
        file: PathBuf,
    },
    /// Replace one, while everything goes on
    #[command(subcommand)]
    Rotate(RotateCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// The key that signs the ledger's checkpoints
    Ledger,
    /// The authority that signs the bastion's logins to targets, in three steps
    UserCa(StepArgs),
    /// The authority that signs what targets show through the bastion, in three steps
    HostCa(StepArgs),
    /// The key that seals stored secrets. The new one must lie on every node: see `[master_key]`
    Master {
        /// The id of the new one, if more than one is loaded
        #[arg(long, value_name = "ID")]
        to: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct StepArgs {
    /// Make the next one and publish it beside the old one (`ca user`, `ca host`, `known-hosts`); it signs nothing yet
    #[arg(long)]
    stage: bool,
    /// Let it sign, once it is trusted everywhere
    #[arg(long)]
    activate: bool,
    /// Publish the old one no more
    #[arg(long)]
    retire: bool,
}

const COLUMNS: &[Column<Key>] = &[
    column("Purpose", |key| key.purpose.clone()),
    column("State", |key| key.state.clone()),
    column("Fingerprint", |key| key.fingerprint.clone()),
    column("Since", |key| key.created_at.map(when::local).unwrap_or_default()),
    column("Until", |key| key.retired_at.map(when::local).unwrap_or_default()),
];

pub(crate) async fn run(command: KeyCommand, global: &Global) -> Result<(), Failure> {
    match command {
        KeyCommand::Ls => {
            let items: Vec<Key> = global.client()?.get(&["keys"], &()).await?;
            output::list(global.format(), &Page { items, next: None }, COLUMNS)
        }
        KeyCommand::NewMaster { file } => new_master(&file, global),
        KeyCommand::Rotate(RotateCommand::Ledger) => ledger(global).await,
        KeyCommand::Rotate(RotateCommand::UserCa(args)) => {
            let talk = Talk {
                purpose: "user_ca",
                stage: "`sallyport ca user` prints both now: let every target trust them, then `key rotate user-ca --activate`",
                question: "Does every target trust the new user CA? Those that do not let nobody in any more.",
                activate: "the bastion logs in with it from now on; when all is well: `key rotate user-ca --retire`",
                retire: "take this line away wherever it is in TrustedUserCAKeys",
            };
            authority(&args, &talk, global).await
        }
        KeyCommand::Rotate(RotateCommand::HostCa(args)) => {
            let talk = Talk {
                purpose: "host_ca",
                stage: "`sallyport known-hosts` prints both now: give them to the engineers, then `key rotate host-ca --activate`",
                question: "Has every engineer the new line? Clients of those who have not refuse the targets.",
                activate: "what targets show through the bastion is signed by it from now on; when all is well: `key rotate host-ca --retire`",
                retire: "take the @cert-authority line of this key out of known_hosts",
            };
            authority(&args, &talk, global).await
        }
        KeyCommand::Rotate(RotateCommand::Master { to }) => master(to, global).await,
    }
}

/// What is said about an authority's steps.
struct Talk {
    /// The API's word.
    purpose: &'static str,
    stage: &'static str,
    question: &'static str,
    activate: &'static str,
    retire: &'static str,
}

async fn authority(args: &StepArgs, talk: &Talk, global: &Global) -> Result<(), Failure> {
    let (verb, said) = match args {
        StepArgs { stage: true, .. } => ("stage", talk.stage),
        StepArgs { activate: true, .. } => ("activate", talk.activate),
        StepArgs { .. } => ("retire", talk.retire),
    };
    if args.activate && !global.prompt().confirm(talk.question)? {
        return Err(Failure::text(FailureKind::Failed, "nothing was changed"));
    }
    let step: AuthorityStep = global.client()?.act(&["keys", talk.purpose, verb]).await?;
    if global.format() == Format::Table {
        output::text(&step.public_key)?;
        output::note(said);
        return Ok(());
    }
    let rows = [("public_key", step.public_key.clone()), ("trusted", step.trusted.join("\n"))];
    output::one(global.format(), &step, &rows)
}

async fn ledger(global: &Global) -> Result<(), Failure> {
    let rotated: LedgerKeyRotated = global.client()?.act(&["keys", "ledger", "rotate"]).await?;
    if global.format() == Format::Table {
        output::text(&rotated.to)?;
        output::note(format!(
            "this is the fingerprint of the key that signs from event {} on; bundles that are made from now on\n\
             verify with it, and with {}, which was there before",
            rotated.last_size, rotated.from
        ));
        return Ok(());
    }
    let size = rotated.last_size.to_string();
    let rows = [("from", rotated.from.clone()), ("to", rotated.to.clone()), ("last_size", size)];
    output::one(global.format(), &rotated, &rows)
}

fn new_master(file: &Path, global: &Global) -> Result<(), Failure> {
    let key =
        MasterKey::create_file(file).map_err(|error| Failure::new(FailureKind::Failed, anyhow::Error::new(error)))?;
    if global.format() == Format::Table {
        output::text(&key.id())?;
        output::note("put this file on every node, keep a copy elsewhere, then `sallyport key rotate master`");
        return Ok(());
    }
    let id = key.id();
    output::one(global.format(), &serde_json::json!({ "id": id, "file": file }), &[("id", id.clone())])
}

/// How long sealing anew may take before the command says that it goes on without it.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

async fn master(to: Option<String>, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let rotated: MasterKeyRotated = client.post(&["keys", "master", "rotate"], &RotateMaster { to }).await?;
    output::note(format!("{} seals from now on; what {} has sealed is sealed anew", rotated.to, rotated.from));
    if tokio::time::timeout(PATIENCE, retired(&client, &rotated.from)).await.is_err() {
        output::note(format!("{} is still needed: `sallyport key ls` says when it is retired", rotated.from));
    } else {
        output::note(format!(
            "{} opens nothing any more: put the new file in the place of the old one, or name it in `[master_key]`;\n\
             backups of the database that are older still need the old one",
            rotated.from
        ));
    }
    if global.format() == Format::Table {
        return output::text(&rotated.to);
    }
    output::one(global.format(), &rotated, &[("from", rotated.from.clone()), ("to", rotated.to.clone())])
}

async fn retired(client: &Client, id: &str) {
    loop {
        let keys: Result<Vec<Key>, Failure> = client.get(&["keys"], &()).await;
        let is_retired = |key: &Key| key.purpose == "master" && key.fingerprint == id && key.state == "retired";
        if keys.is_ok_and(|keys| keys.iter().any(is_retired)) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
