//! `sallyport person invite`: links by which people give their first key or make a passkey. A link is shown once.

use std::time::Duration;

use sallyport_domain::name::PrincipalName;

use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Column, Format, column};
use super::{Global, now, when};
use crate::api::invites::{Invite, InviteState, MadeInvite, MakeInvite};
use crate::api::page::Page;

#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    name: PrincipalName,
    /// How long the link opens something, 14 days at most
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    lasting: Duration,
    /// Take back the one that is open
    #[arg(long, conflicts_with = "lasting")]
    revoke: bool,
}

const COLUMNS: &[Column<Invite>] = &[
    column("Id", |invite| invite.id.to_string()),
    column("State", |invite| invite.state.as_str().to_owned()),
    column("Made", |invite| when::local(invite.created_at)),
    column("Ends", |invite| when::local(invite.not_after)),
    column("Used", |invite| invite.used_at.map(when::local).unwrap_or_default()),
    column("Added", |invite| invite.added.clone().unwrap_or_default()),
];

pub(super) async fn run(client: &Client, args: InviteArgs, global: &Global) -> Result<(), Failure> {
    if args.revoke {
        return revoke(client, &args.name, global).await;
    }
    let not_after = when::after(now().to_utc(), args.lasting);
    let not_after = not_after.ok_or_else(|| Failure::usage("`--for` ends too far away"))?;
    let body = MakeInvite { not_after: Some(not_after) };
    let made: MadeInvite = client.post(&["people", args.name.as_str(), "invites"], &body).await?;
    if global.format() != Format::Table {
        return output::one(
            global.format(),
            &made,
            &[("id", made.invite.id.to_string()), ("token", made.token.clone())],
        );
    }
    output::note(format!(
        "this is the only time that the link is shown; whoever opens it gives {} a key or makes a passkey, once, until {}; \
         `sallyport person invite {} --revoke` takes it back",
        args.name,
        when::local(made.invite.not_after),
        args.name,
    ));
    match &made.link {
        Some(link) => {
            if link.starts_with("https://localhost") {
                output::note("it leads to this host alone: set `[api] public_url` to where people open the web app");
            }
            output::text(link)
        }
        None => {
            output::note(
                "where people open the web app is not known here (`[api] public_url`): the link is its address, and behind it",
            );
            output::text(&format!("/invite#{}", made.token))
        }
    }
}

async fn revoke(client: &Client, name: &PrincipalName, global: &Global) -> Result<(), Failure> {
    let invites: Vec<Invite> = client.get(&["people", name.as_str(), "invites"], &()).await?;
    let open = invites.iter().find(|invite| invite.state == InviteState::Open);
    let open =
        open.ok_or_else(|| Failure::text(FailureKind::NotFound, format!("`{name}` has no invite that is open")))?;
    let items: Vec<Invite> = client.delete(&["people", name.as_str(), "invites", &open.id.to_string()]).await?;
    output::note(format!("the link of {name} opens nothing any more"));
    if global.format() == Format::Table {
        return Ok(());
    }
    output::list(global.format(), &Page { items, next: None }, COLUMNS)
}

pub(super) async fn list(client: &Client, name: &PrincipalName, global: &Global) -> Result<(), Failure> {
    let items: Vec<Invite> = client.get(&["people", name.as_str(), "invites"], &()).await?;
    output::list(global.format(), &Page { items, next: None }, COLUMNS)
}
