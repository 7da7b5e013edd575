//! `sallyport known-hosts`: the lines by which SSH clients know the bastion and the targets behind it.

use super::Global;
use super::failure::Failure;
use super::output::{self, Format};
use crate::api::bastion::{KnownHosts, TargetKnownHost};

#[derive(Debug, clap::Args)]
pub(crate) struct KnownHostsArgs {
    /// A line for each target, for clients that know no `@cert-authority`
    #[arg(long)]
    plain: bool,
}

pub(crate) async fn run(args: &KnownHostsArgs, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let known: KnownHosts = client.get(&["known-hosts"], &()).await?;
    if !args.plain {
        if global.format() == Format::Table {
            output::text(&[std::slice::from_ref(&known.bastion), &known.authorities].concat().join("\n"))?;
            output::note("append these lines to ~/.ssh/known_hosts: `@cert-authority` makes every target known");
            return Ok(());
        }
        let rows = [("bastion", known.bastion.clone()), ("authority", known.authorities.join("\n"))];
        return output::one(global.format(), &known, &rows);
    }
    let targets: Vec<TargetKnownHost> = client.get(&["known-hosts", "targets"], &()).await?;
    if global.format() == Format::Table {
        let lines = std::iter::once(&known.bastion).chain(targets.iter().map(|target| &target.line));
        let lines: Vec<&str> = lines.map(String::as_str).collect();
        output::text(&lines.join("\n"))?;
        output::note("append these lines to ~/.ssh/known_hosts");
        return Ok(());
    }
    let rows: Vec<(&str, String)> =
        targets.iter().map(|target| (target.target.as_str(), target.line.clone())).collect();
    output::one(global.format(), &targets, &rows)
}
