//! `sallyport outbox`: how destinations outside do.

use clap::Subcommand;

use super::failure::Failure;
use super::output::{self, Column, column};
use super::{Global, when};
use crate::api::outbox::OutboxDestination;
use crate::api::page::Page;

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// List destinations: what they have taken, what waits, and why
    Ls,
}

const COLUMNS: &[Column<OutboxDestination>] = &[
    column("Destination", |one| one.name.clone()),
    column("Kind", |one| one.kind.clone()),
    column("Taken", |one| one.sent.to_string()),
    column("Waiting", |one| one.waiting.to_string()),
    column("Lag", |one| format!("{} s", one.lag_seconds)),
    column("Given up", |one| one.dropped.to_string()),
    column("Last", |one| one.at.map(when::local).unwrap_or_default()),
    column("Node", |one| one.node.clone().unwrap_or_else(|| "none".to_owned())),
    column("State", |one| match (&one.error, one.late) {
        (Some(error), true) => format!("LATE: {error}"),
        (Some(error), false) => error.clone(),
        (None, _) => "ok".to_owned(),
    }),
];

pub(crate) async fn run(command: OutboxCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        OutboxCommand::Ls => {
            let page: Page<OutboxDestination> = client.get(&["outbox"], &()).await?;
            output::list(global.format(), &page, COLUMNS)
        }
    }
}
