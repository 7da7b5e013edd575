//! `sallyport serve`: wires the floors and runs the bastion.

use std::path::PathBuf;

use super::failure::{Failure, FailureKind};

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The configuration file
    #[arg(
        long,
        env = "SALLYPORT_CONFIG",
        value_name = "FILE",
        default_value = super::config::USUAL_FILE
    )]
    pub(crate) config: PathBuf,
}

pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    Err(Failure::text(
        FailureKind::Failed,
        format!(
            "serving with `{}` is not built into this program yet",
            args.config.display()
        ),
    ))
}
