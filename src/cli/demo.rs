//! `sallyport demo`: a bastion to try, in a temporary place.

use super::failure::{Failure, FailureKind};

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_args: DemoArgs) -> Result<(), Failure> {
    Err(Failure::text(
        FailureKind::Failed,
        "the demo is not built into this program yet",
    ))
}
