//! `sallyport person oidc`: who people are at the identity provider.

use clap::Subcommand;
use sallyport_domain::name::PrincipalName;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Format};
use super::{Global, when};
use crate::api::oidc::{BindOidc, PersonOidc};

#[derive(Debug, Subcommand)]
pub(crate) enum OidcCommand {
    /// Bind a person to a subject of the identity provider; they are signed out
    Set {
        name: PrincipalName,
        /// The provider's own word for the person: the claim `sub`, not an e-mail address
        subject: String,
        /// Which provider; left out, the one of `[sign_in.oidc]`
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
    },
    /// Take the binding away; the person is signed out
    Rm { name: PrincipalName },
    /// Show who a person is at the provider
    Show { name: PrincipalName },
}

pub(super) async fn run(client: &Client, command: OidcCommand, global: &Global) -> Result<(), Failure> {
    let (bound, said): (PersonOidc, Option<String>) = match command {
        OidcCommand::Set { name, subject, issuer } => {
            let said = format!("{name} can sign in at the identity provider");
            let body = BindOidc { subject, issuer };
            (client.put(&["people", name.as_str(), "oidc"], &body).await?, Some(said))
        }
        OidcCommand::Rm { name } => {
            let said = format!("{name} can no longer sign in at an identity provider, and is signed out");
            (client.delete(&["people", name.as_str(), "oidc"]).await?, Some(said))
        }
        OidcCommand::Show { name } => (client.get(&["people", name.as_str(), "oidc"], &()).await?, None),
    };
    if let Some(said) = said {
        output::note(said);
        if global.format() == Format::Table {
            return Ok(());
        }
    }
    let text = |part: fn(&crate::api::oidc::Identity) -> String| bound.identity.as_ref().map_or("none".into(), part);
    let rows = [
        ("Issuer", text(|identity| identity.issuer.clone())),
        ("Subject", text(|identity| identity.subject.clone())),
        ("Since", text(|identity| when::local(identity.since))),
    ];
    output::one(global.format(), &bound, &rows)
}
