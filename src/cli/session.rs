//! `sallyport session`: what was done, and what is being done now.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use sallyport_domain::id::{GrantId, SessionId};
use sallyport_domain::name::{PrincipalName, TargetName};

use super::audit::past;
use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::recording::{self, ExportArgs, PlayArgs, WatchArgs};
use super::search::SearchArgs;
use super::{Global, now, when};
use super::{commands, files, review};
use crate::api::commands::CommandCounts;
use crate::api::grants::Reason;
use crate::api::recordings::Recording;
use crate::api::sessions::{Message, Session, SessionDetail, SessionState};

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions, the latest first
    Ls(LsArgs),
    /// Show one session with what its channels did
    Show { id: SessionId },
    /// List what was done to files
    Files {
        id: SessionId,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// List what was run, as far as can be told, with how sure that is
    Commands {
        id: SessionId,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        limit: usize,
    },
    /// Look for words in what was run, what screens showed and the paths of files, over every session
    Search(SearchArgs),
    /// Replay what was done, in this terminal
    Play(PlayArgs),
    /// Follow a session until it ends: a live one, or one that waits for its watcher
    Watch(WatchArgs),
    /// Write a recording as an asciicast or as text
    Export(ExportArgs),
    /// End a live session now
    Cut {
        id: SessionId,
        #[arg(long)]
        reason: String,
    },
    /// Let a live session stand still: nothing goes through either way
    Hold {
        id: SessionId,
        #[arg(long)]
        reason: String,
    },
    /// Let a held session go on
    Release { id: SessionId },
    /// What waits for a look, by due date and risk; verdicts, flags, notes
    #[command(subcommand)]
    Review(review::ReviewCommand),
    /// Say something to whoever is at the session's terminal
    Message {
        id: SessionId,
        /// One line
        #[arg(required = true)]
        text: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Only those that go on
    #[arg(long)]
    live: bool,
    /// Only this person's
    #[arg(long)]
    person: Option<PrincipalName>,
    /// Only those to this target
    #[arg(long)]
    target: Option<TargetName>,
    /// Only those under this grant
    #[arg(long)]
    grant: Option<GrantId>,
    /// Only those that began since: `2h` ago, `09:00` today or yesterday, `2026-11-22 18:00`, `2026-11-22T18:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<DateTime<Utc>>,
    /// Only those that began before
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<DateTime<Utc>>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

const COLUMNS: &[Column<Session>] = &[
    column("Id", |session| session.id.to_string()),
    column("State", |session| session.state.as_str().to_owned()),
    column("Person", |session| session.person.name.to_string()),
    column("Target", |session| format!("{}@{}", session.login, session.target.name)),
    column("Started", |session| when::local(session.started_at)),
    column("Lasted", |session| when::between(session.started_at, session.ended_at.unwrap_or_else(|| now().to_utc()))),
    column("From", |session| session.client_address.clone()),
    column("Ended by", |session| session.ending_text.clone().unwrap_or_default()),
];

pub(crate) async fn run(command: SessionCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        SessionCommand::Search(args) => super::search::run(args, global).await,
        SessionCommand::Play(args) => recording::play(args, global).await,
        SessionCommand::Watch(args) => recording::watch(args, global).await,
        SessionCommand::Export(args) => recording::export(args, global).await,
        SessionCommand::Review(command) => review::run(command, global).await,
        SessionCommand::Ls(args) => {
            let mut query = Vec::new();
            query.extend(args.live.then(|| ("live", "true".to_owned())));
            query.extend(args.person.map(|person| ("person", person.to_string())));
            query.extend(args.target.map(|target| ("target", target.to_string())));
            query.extend(args.grant.map(|grant| ("grant", grant.to_string())));
            query.extend(args.since.map(|since| ("since", since.to_rfc3339())));
            query.extend(args.until.map(|until| ("until", until.to_rfc3339())));
            let page = client.list(&["sessions"], &query, args.limit).await?;
            output::list(global.format(), &page, COLUMNS)?;
            if page.next.is_some() && global.format() == Format::Table {
                output::note(format!("the latest {} are shown; more with `--limit`", page.items.len()));
            }
            Ok(())
        }
        SessionCommand::Show { id } => {
            let detail: SessionDetail = client.get(&["sessions", &id.to_string()], &()).await?;
            output::one(global.format(), &detail, &rows(&detail))
        }
        SessionCommand::Files { id, limit } => {
            let path = ["sessions", &id.to_string(), "files"];
            let page = client.list(&path, &[], limit).await?;
            output::list(global.format(), &page, files::COLUMNS)?;
            if page.next.is_some() && global.format() == Format::Table {
                output::note(format!("the first {} are shown; more with `--limit`", page.items.len()));
            }
            Ok(())
        }
        SessionCommand::Commands { id, limit } => {
            let path = ["sessions", &id.to_string(), "commands"];
            let page = client.list(&path, &[], limit).await?;
            output::list(global.format(), &page, commands::COLUMNS)?;
            if page.next.is_some() && global.format() == Format::Table {
                output::note(format!("the first {} are shown; more with `--limit`", page.items.len()));
            }
            Ok(())
        }
        SessionCommand::Cut { id, reason } => {
            let session: Session = client.post(&["sessions", &id.to_string(), "cut"], &Reason { reason }).await?;
            output::note(match session.state {
                SessionState::Ended => format!("{id} has ended"),
                SessionState::Live | SessionState::Ending => format!("{id} is being cut"),
            });
            changed(global, &session)
        }
        SessionCommand::Hold { id, reason } => {
            let session: Session = client.post(&["sessions", &id.to_string(), "hold"], &Reason { reason }).await?;
            output::note(format!("{id} stands still; `sallyport session release {id}` lets it go on"));
            changed(global, &session)
        }
        SessionCommand::Release { id } => {
            let session: Session = client.act(&["sessions", &id.to_string(), "release"]).await?;
            output::note(format!("{id} goes on"));
            changed(global, &session)
        }
        SessionCommand::Message { id, text } => {
            let message = Message { text: text.join(" ") };
            let session: Session = client.post(&["sessions", &id.to_string(), "message"], &message).await?;
            output::note(format!("sent to the terminals of {id}"));
            changed(global, &session)
        }
    }
}

/// After a change scripts get the whole thing; people have read the sentence.
fn changed(global: &Global, session: &Session) -> Result<(), Failure> {
    if global.format() == Format::Table { Ok(()) } else { output::one(global.format(), session, &[]) }
}

fn rows(detail: &SessionDetail) -> Vec<(&'static str, String)> {
    let session = &detail.session;
    vec![
        ("Id", session.id.to_string()),
        ("State", session.state.as_str().to_owned()),
        ("Person", session.person.name.to_string()),
        ("Target", format!("{}@{}", session.login, session.target.name)),
        ("Grant", session.grant_id.to_string()),
        ("Started", when::local(session.started_at)),
        ("Held", session.held.as_deref().map(output::printable).unwrap_or_default()),
        ("Ended", session.ended_at.map(when::local).unwrap_or_default()),
        ("Ended by", session.ending_text.clone().unwrap_or_default()),
        ("From", output::printable(&session.client_address)),
        ("Client", output::printable(&session.client_version)),
        ("Node", session.node.clone()),
        ("Commands", command_counts(detail.commands)),
        ("Recordings", detail.recordings.iter().map(recording_line).collect::<Vec<_>>().join("\n")),
    ]
}

fn command_counts(CommandCounts { seen, kept, flagged }: CommandCounts) -> String {
    let beyond = if seen > kept { format!(", of which {kept} are kept") } else { String::new() };
    let flags = if flagged > 0 { format!(", {flagged} flagged") } else { String::new() };
    format!("{seen}{beyond}{flags}")
}

fn recording_line(recording: &Recording) -> String {
    let gaps = if recording.gaps == 0 { String::new() } else { format!(", {} gaps", recording.gaps) };
    let exit = recording.exit_text.as_ref().map(|exit| format!(", {exit}")).unwrap_or_default();
    format!("{} {} {}{exit}{gaps}", recording.channel, recording.id, output::printable(&recording.program_text))
}
