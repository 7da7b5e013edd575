//! `sallyport completions`, `sallyport man` and `sallyport openapi`: texts that are made from the program itself.

use std::path::PathBuf;

use clap::CommandFactory;

use super::failure::{Failure, FailureKind};
use super::{Cli, output};
use crate::api;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The folder, made if it is not there: `sallyport.1`, and a page for each command
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.folder));
    written.map_err(|error| {
        let context = anyhow::Error::new(error).context(format!("cannot write into `{}`", args.folder.display()));
        Failure::new(FailureKind::Failed, context)
    })
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sallyport", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

pub(crate) fn openapi() -> Result<(), Failure> {
    output::text(&api::openapi().to_pretty_json().map_err(anyhow::Error::from)?)
}
