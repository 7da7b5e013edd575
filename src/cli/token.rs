//! `sallyport token`: API tokens. A token is shown once, when it is made; the bastion keeps its hash only.

use clap::Subcommand;
use sallyport_domain::id::TokenId;
use sallyport_domain::name::PrincipalName;

use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::{Global, now, when};
use crate::api::tokens::{MadeToken, MakeToken, Token};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token that acts for a person
    New {
        person: PrincipalName,
        /// What it is for
        #[arg(long)]
        label: String,
        /// How long it is valid
        #[arg(long = "for", value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration)]
        lasting: std::time::Duration,
    },
    /// List tokens
    Ls,
    /// Revoke a token
    Revoke { id: TokenId },
}

const COLUMNS: &[Column<Token>] = &[
    column("Id", |token| token.id.to_string()),
    column("Person", |token| token.person.name.to_string()),
    column("Label", |token| token.label.clone()),
    column("State", |token| token.state.as_str().to_owned()),
    column("Ends", |token| token.not_after.map(when::local).unwrap_or_default()),
    column("Last used", |token| token.last_used_at.map(when::local).unwrap_or_default()),
];

pub(crate) async fn run(command: TokenCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        TokenCommand::New { person, label, lasting } => {
            let not_after = when::after(now().to_utc(), lasting);
            let made: MadeToken = client.post(&["tokens"], &MakeToken { person, label, not_after }).await?;
            if global.format() == Format::Table {
                output::note(format!(
                    "this is the only time that the token is shown; `sallyport token revoke {}` ends it",
                    made.token.id
                ));
                return output::text(&made.secret);
            }
            output::one(global.format(), &made, &[("id", made.token.id.to_string()), ("secret", made.secret.clone())])
        }
        TokenCommand::Ls => output::list(global.format(), &client.list(&["tokens"], &[], usize::MAX).await?, COLUMNS),
        TokenCommand::Revoke { id } => {
            let token: Token = client.act(&["tokens", &id.to_string(), "revoke"]).await?;
            output::note(format!("revoked `{}` of {}", token.label, token.person.name));
            if global.format() == Format::Table { Ok(()) } else { output::one(global.format(), &token, &[]) }
        }
    }
}
