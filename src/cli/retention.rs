//! `sallyport recording`: what was recorded is held, and deleted by two people. `session play` and its like read it.

use std::str::FromStr;

use clap::Subcommand;
use sallyport_domain::id::{DeletionId, GrantId, HoldId, SessionId};
use sallyport_domain::name::TargetName;

use super::failure::Failure;
use super::output::{self, Column, column};
use super::{Global, when};
use crate::api::grants::Reason;
use crate::api::retention::{Deletion, DeletionDetail, Hold, MakeHold};

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingCommand {
    /// Ask for the deletion of what was recorded in a session; somebody else has to approve it
    Delete {
        #[arg(value_name = "SESSION")]
        session: SessionId,
        #[arg(long)]
        reason: String,
    },
    /// List the deletions that wait for an answer
    Deletions {
        /// All, the answered ones too
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show one deletion with its sessions
    Deletion { id: DeletionId },
    /// Approve a deletion that somebody else has asked for, or a retention rule: the recordings go
    Approve { id: DeletionId },
    /// Refuse a deletion, or take your own back: the recordings stay
    Keep {
        id: DeletionId,
        #[arg(long)]
        reason: String,
    },
    /// Hold what was recorded: nothing deletes it until the hold is released
    Hold {
        /// A session, a grant, or a target by its name
        #[arg(value_name = "SESSION|GRANT|TARGET")]
        subject: Subject,
        #[arg(long)]
        reason: String,
    },
    /// List legal holds
    Holds {
        /// Those that were released, too
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Release a legal hold
    Release {
        id: HoldId,
        #[arg(long)]
        reason: String,
    },
}

/// What is held.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Session(SessionId),
    Grant(GrantId),
    Target(TargetName),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Subject::Session(id));
        }
        if let Ok(id) = text.parse() {
            return Ok(Subject::Grant(id));
        }
        text.parse().map(Subject::Target).map_err(|error: sallyport_domain::name::NameError| error.to_string())
    }
}

const DELETIONS: &[Column<Deletion>] = &[
    column("Id", |deletion| deletion.id.to_string()),
    column("State", |deletion| deletion.state.as_str().to_owned()),
    column("Sessions", |deletion| (deletion.asked + deletion.kept + deletion.deleting + deletion.deleted).to_string()),
    column("Gone", |deletion| deletion.deleted.to_string()),
    column("Asked by", |deletion| deletion.asked_by.clone()),
    column("Asked", |deletion| when::local(deletion.asked_at)),
    column("Answered by", |deletion| deletion.answered_by.clone().unwrap_or_default()),
    column("Reason", |deletion| deletion.reason.clone()),
];

const HOLDS: &[Column<Hold>] = &[
    column("Id", |hold| hold.id.to_string()),
    column("Holds", subject),
    column("Set by", |hold| hold.set_by.clone()),
    column("Set", |hold| when::local(hold.set_at)),
    column("Released", |hold| hold.released_at.map(when::local).unwrap_or_default()),
    column("Reason", |hold| hold.reason.clone()),
];

fn subject(hold: &Hold) -> String {
    let ids = [
        hold.session_id.map(|id| id.to_string()),
        hold.grant_id.map(|id| id.to_string()),
        hold.target_id.map(|id| id.to_string()),
    ];
    ids.into_iter().flatten().next().unwrap_or_default()
}

pub(crate) async fn run(command: RecordingCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        RecordingCommand::Delete { session, reason } => {
            let path = ["sessions", &session.to_string(), "deletion"];
            let asked: DeletionDetail = client.post(&path, &Reason { reason }).await?;
            output::note(format!("somebody else approves it with: sallyport recording approve {}", asked.deletion.id));
            show(global, &asked)
        }
        RecordingCommand::Deletions { all, limit } => {
            let page = client.list(&["deletions"], &[("open", (!all).to_string())], limit).await?;
            output::list(global.format(), &page, DELETIONS)
        }
        RecordingCommand::Deletion { id } => show(global, &client.get(&["deletions", &id.to_string()], &()).await?),
        RecordingCommand::Approve { id } => {
            let question = format!("delete for good what was recorded, as {id} says?");
            if !global.prompt().confirm(&question)? {
                return Ok(());
            }
            let approved: DeletionDetail = client.act(&["deletions", &id.to_string(), "approve"]).await?;
            output::note(format!("approved; `sallyport recording deletion {id}` tells how far it has come"));
            show(global, &approved)
        }
        RecordingCommand::Keep { id, reason } => {
            let path = ["deletions", &id.to_string(), "refuse"];
            let refused: DeletionDetail = client.post(&path, &Reason { reason }).await?;
            output::note("the recordings stay");
            show(global, &refused)
        }
        RecordingCommand::Hold { subject, reason } => {
            let body = match subject {
                Subject::Session(id) => MakeHold { session: Some(id), reason, ..MakeHold::default() },
                Subject::Grant(id) => MakeHold { grant: Some(id), reason, ..MakeHold::default() },
                Subject::Target(name) => MakeHold { target: Some(name), reason, ..MakeHold::default() },
            };
            show_hold(global, &client.post(&["holds"], &body).await?)
        }
        RecordingCommand::Holds { all, limit } => {
            let page = client.list(&["holds"], &[("released", all.to_string())], limit).await?;
            output::list(global.format(), &page, HOLDS)
        }
        RecordingCommand::Release { id, reason } => {
            show_hold(global, &client.post(&["holds", &id.to_string(), "release"], &Reason { reason }).await?)
        }
    }
}

fn show(global: &Global, detail: &DeletionDetail) -> Result<(), Failure> {
    let DeletionDetail { deletion, sessions } = detail;
    let session = |session: &crate::api::retention::DeletionSession| {
        let rule = session.rule.as_ref().map(|rule| format!(", {rule}")).unwrap_or_default();
        let error = session.error.as_ref();
        let error = error.map(|error| format!(", {} tries: {error}", session.tries)).unwrap_or_default();
        output::printable(&format!("{} {}{rule}{error}", session.session_id, session.state))
    };
    let rows = [
        ("Id", deletion.id.to_string()),
        ("State", deletion.state.as_str().to_owned()),
        ("Reason", output::printable(&deletion.reason)),
        ("Asked by", deletion.asked_by.clone()),
        ("Asked", when::local(deletion.asked_at)),
        ("Answered by", deletion.answered_by.clone().unwrap_or_default()),
        ("Answered", deletion.answered_at.map(when::local).unwrap_or_default()),
        ("Refused", deletion.refusal.as_deref().map(output::printable).unwrap_or_default()),
        ("Sessions", sessions.iter().map(session).collect::<Vec<_>>().join("\n")),
    ];
    output::one(global.format(), detail, &rows)
}

fn show_hold(global: &Global, hold: &Hold) -> Result<(), Failure> {
    let rows = [
        ("Id", hold.id.to_string()),
        ("Holds", subject(hold)),
        ("Reason", output::printable(&hold.reason)),
        ("Set by", hold.set_by.clone()),
        ("Set", when::local(hold.set_at)),
        ("Released by", hold.released_by.clone().unwrap_or_default()),
        ("Released", hold.released_at.map(when::local).unwrap_or_default()),
        ("Why", hold.release_reason.as_deref().map(output::printable).unwrap_or_default()),
    ];
    output::one(global.format(), hold, &rows)
}
