//! `sallyport node`: the processes of the bastion.

use clap::Subcommand;

use super::failure::Failure;
use super::output::{self, Column, column};
use super::{Global, when};
use crate::api::nodes::{Node, NodeState};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes: which live, which are about to end, which are lost
    Ls {
        /// Those that have ended lately too
        #[arg(long)]
        all: bool,
    },
}

const COLUMNS: &[Column<Node>] = &[
    column("Node", |node| node.node.clone()),
    column("State", |node| node.state.as_str().to_owned()),
    column("Sessions", |node| node.sessions.to_string()),
    column("Version", |node| node.version.clone()),
    column("Started", |node| when::local(node.started_at)),
    column("Last heard of", |node| when::local(node.last_heard_of)),
    column("Run", |node| node.run.to_string()),
];

pub(crate) async fn run(command: NodeCommand, global: &Global) -> Result<(), Failure> {
    let NodeCommand::Ls { all } = command;
    let mut page = global.client()?.list::<Node>(&["nodes"], &[], usize::MAX).await?;
    page.items.retain(|node| all || node.state != NodeState::Ended);
    output::list(global.format(), &page, COLUMNS)
}
