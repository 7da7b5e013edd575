//! `sallyport completions` and `sallyport openapi`: texts that are made from the program itself.

use clap::CommandFactory;

use super::failure::Failure;
use super::{Cli, output};
use crate::api;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sallyport", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

pub(crate) fn openapi() -> Result<(), Failure> {
    output::text(&api::openapi().to_pretty_json().map_err(anyhow::Error::from)?)
}
