//! `sallyport person passkey`: passkeys of people, who add them themselves in the web app.

use clap::Subcommand;
use sallyport_domain::id::PasskeyId;
use sallyport_domain::name::PrincipalName;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::{Global, when};
use crate::api::page::Page;
use crate::api::passkeys::Passkey;

#[derive(Debug, Subcommand)]
pub(crate) enum PasskeyCommand {
    /// List a person's passkeys
    Ls { name: PrincipalName },
    /// Take a passkey away; its person is signed out of every browser
    Rm { name: PrincipalName, id: PasskeyId },
}

const COLUMNS: &[Column<Passkey>] = &[
    column("Id", |passkey| passkey.id.to_string()),
    column("Name", |passkey| passkey.name.clone()),
    column("Added", |passkey| when::local(passkey.created_at)),
    column("Last used", |passkey| passkey.last_used_at.map(when::local).unwrap_or_default()),
];

pub(super) async fn run(client: &Client, command: PasskeyCommand, global: &Global) -> Result<(), Failure> {
    let items: Vec<Passkey> = match command {
        PasskeyCommand::Ls { name } => client.get(&["people", name.as_str(), "passkeys"], &()).await?,
        PasskeyCommand::Rm { name, id } => {
            let left = client.delete(&["people", name.as_str(), "passkeys", &id.to_string()]).await?;
            output::note(format!("{name} has that passkey no more, and is signed out of every browser"));
            if global.format() == Format::Table {
                return Ok(());
            }
            left
        }
    };
    output::list(global.format(), &Page { items, next: None }, COLUMNS)
}
