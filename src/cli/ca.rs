//! `sallyport ca`: the public keys of the bastion's authorities, as the files that trust them want them.

use clap::Subcommand;
use serde::Serialize;

use super::Global;
use super::failure::Failure;
use super::output::{self, Format};
use crate::api::bastion::Bastion;
use crate::app::known_hosts;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// The authority that signs the bastion's logins: for `TrustedUserCAKeys` on targets
    User,
    /// The authority that signs host keys: an `@cert-authority` line for the engineers' `known_hosts`
    Host {
        /// The hosts that it speaks for, as a `known_hosts` pattern
        #[arg(long, value_name = "PATTERN", default_value = "*")]
        hosts: String,
    },
}

/// A key and the line that puts it to use.
#[derive(Serialize)]
struct Authority {
    /// The one that signs.
    public_key: String,
    /// Its line, and, while one authority follows another, that of the next one or the one before.
    line: String,
}

pub(crate) async fn run(command: &CaCommand, global: &Global) -> Result<(), Failure> {
    let bastion: Bastion = global.client()?.get(&["bastion"], &()).await?;
    let (authority, talk) = match command {
        CaCommand::User => (
            Authority { public_key: bastion.user_ca, line: bastion.user_cas.join("\n") },
            "on each target: append this to /etc/ssh/sallyport_user_ca.pub, put\n\
             `TrustedUserCAKeys /etc/ssh/sallyport_user_ca.pub` into sshd_config, and reload sshd",
        ),
        CaCommand::Host { hosts } => (
            Authority {
                public_key: bastion.host_ca,
                line: bastion
                    .host_cas
                    .iter()
                    .map(|key| known_hosts::authority(hosts, key))
                    .collect::<Vec<_>>()
                    .join("\n"),
            },
            "append this to ~/.ssh/known_hosts: every target is known through the bastion then",
        ),
    };
    if global.format() == Format::Table {
        output::text(&authority.line)?;
        output::note(talk);
        return Ok(());
    }
    output::one(
        global.format(),
        &authority,
        &[("public_key", authority.public_key.clone()), ("line", authority.line.clone())],
    )
}
