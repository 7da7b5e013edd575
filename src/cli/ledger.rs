//! `sallyport ledger`: signed checkpoints and proofs, as the bastion gives them.

use clap::Subcommand;
use reqwest::Method;
use sallyport_domain::id::EventId;

use super::failure::Failure;
use super::output::{self, Column, column};
use super::{Global, when};
use crate::api::ledger::{Anchor, Inclusion, Ledger, LedgerKey};
use crate::api::page::Page;

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Where it stands: what is signed, what waits, and how the anchors do
    Show,
    /// The public keys that sign it
    Keys,
    /// The latest signed checkpoint
    Checkpoint {
        /// The one of this many events
        #[arg(long)]
        size: Option<u64>,
    },
    /// Prove that an event is in the ledger
    Prove {
        /// The event's reference
        event: EventId,
    },
}

const KEYS: &[Column<LedgerKey>] = &[
    column("Fingerprint", |key| key.fingerprint.clone()),
    column("Key", |key| key.vkey.clone()),
    column("Since", |key| when::local(key.created_at)),
    column("Until", |key| key.retired_at.map(when::local).unwrap_or_default()),
];

fn anchor_text(anchor: &Anchor) -> String {
    let Anchor { node, name, size, at, error, late, .. } = anchor;
    let at = at.map_or_else(|| "never".to_owned(), when::local);
    let late = if *late { "LATE, " } else { "" };
    let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{name} of {node}: {late}{size} events, {at}{error}")
}

pub(crate) async fn run(command: LedgerCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        LedgerCommand::Show => {
            let ledger: Ledger = client.get(&["ledger"], &()).await?;
            let anchors: Vec<String> = ledger.anchors.iter().map(anchor_text).collect();
            let rows = [
                ("Events", format!("{} signed, {} waiting", ledger.size, ledger.waiting)),
                ("Signed", ledger.signed_at.map(when::local).unwrap_or_default()),
                ("Anchors", anchors.join("\n")),
            ];
            output::one(global.format(), &ledger, &rows)
        }
        LedgerCommand::Keys => {
            let items: Vec<LedgerKey> = client.get(&["ledger", "keys"], &()).await?;
            output::list(global.format(), &Page { items, next: None }, KEYS)
        }
        LedgerCommand::Checkpoint { size } => {
            let query: Vec<(&str, u64)> = size.into_iter().map(|size| ("size", size)).collect();
            let request = client.request(Method::GET, &["ledger", "checkpoint"]).query(&query);
            let answer = client.send(request).await?;
            let note = answer.text().await.map_err(anyhow::Error::from)?;
            output::text(&note)
        }
        LedgerCommand::Prove { event } => {
            let query = [("event", event.to_string())];
            let proof: Inclusion = client.get(&["ledger", "proof", "inclusion"], &query).await?;
            let rows = [
                ("Event", format!("number {} of {}", proof.index, proof.size)),
                ("Entry", proof.entry.trim_end().to_owned()),
                ("Path", proof.path.join("\n")),
                ("Checkpoint", proof.checkpoint.clone().unwrap_or_default()),
            ];
            output::one(global.format(), &proof, &rows)
        }
    }
}
