//! `sallyport audit`: the log of what happened, to what, by whose hand.

use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use sallyport_domain::id::SessionId;

use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::{Global, now, when};
use crate::api::audit::Event;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List events, the oldest first
    Ls(LsArgs),
    /// Verify all of it, and the recordings: the same as `sallyport verify`
    Verify(super::verify::VerifyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Only acts of this kind: `grant_made`, `session_cut`, `login_refused`, …
    #[arg(long)]
    act: Option<String>,
    /// Only what belongs to this session
    #[arg(long)]
    session: Option<SessionId>,
    /// From when: `2h` ago, `09:00` today or yesterday, `2026-11-22 18:00`, `2026-11-22T18:00:00Z`; the last 24 hours where it is left out
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<DateTime<Utc>>,
    /// Until when
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<DateTime<Utc>>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// An instant, as somebody writes it who looks back.
pub(super) fn past(text: &str) -> Result<DateTime<Utc>, when::WhenError> {
    when::past(text, &now())
}

const COLUMNS: &[Column<Event>] = &[
    column("No", |event| event.seq.to_string()),
    column("At", |event| when::local(event.at)),
    column("Reference", |event| event.id.to_string()),
    column("By", |event| event.actor_text.clone()),
    column("Act", |event| event.kind.clone()),
    column("What", |event| event.act_text.clone()),
];

pub(crate) async fn run(command: AuditCommand, global: &Global) -> Result<(), Failure> {
    match command {
        AuditCommand::Verify(args) => super::verify::run(args, global).await,
        AuditCommand::Ls(args) => {
            let client = global.client()?;
            let mut query = Vec::new();
            query.extend(args.act.map(|act| ("act", act)));
            query.extend(args.session.map(|session| ("session", session.to_string())));
            let since = args.since.or_else(|| now().to_utc().checked_sub_signed(TimeDelta::days(1)));
            query.extend(since.map(|since| ("since", since.to_rfc3339())));
            query.extend(args.until.map(|until| ("until", until.to_rfc3339())));
            let page = client.list(&["events"], &query, args.limit).await?;
            output::list(global.format(), &page, COLUMNS)?;
            if page.next.is_some() && global.format() == Format::Table {
                output::note(format!(
                    "the first {} are shown; more with `--limit`, later ones with `--since`",
                    page.items.len()
                ));
            }
            Ok(())
        }
    }
}
