//! `sallyport session review`: what waits for a look, and what is said of it. A verdict is a person's: it takes a token, not the
//! operator's socket.

use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::review::Verdict;

use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::{Global, when};
use crate::api::reviews::{
    CoverageShown, MakeFlag, MakeNote, Remark, Review, ReviewDetail, ReviewState, ReviewSum, RiskReason, SignOff,
};

#[derive(Debug, Subcommand)]
pub(crate) enum ReviewCommand {
    /// List what waits for a review, by due date and risk
    Ls(LsArgs),
    /// Show the review of one session
    Show {
        #[arg(value_name = "SESSION")]
        id: SessionId,
    },
    /// Give a verdict
    SignOff {
        #[arg(value_name = "SESSION")]
        id: SessionId,
        #[arg(long, value_enum)]
        verdict: VerdictArg,
        /// What happened; needed for any other verdict than as-planned
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Flag a moment of a recording, or the session as a whole
    Flag {
        #[arg(value_name = "SESSION")]
        id: SessionId,
        #[arg(required = true)]
        words: Vec<String>,
        #[arg(long, requires = "at")]
        recording: Option<RecordingId>,
        /// The instant, as in 2026-03-01T12:00:00Z
        #[arg(long, requires = "recording", value_name = "INSTANT")]
        at: Option<DateTime<Utc>>,
    },
    /// Say something without a verdict
    Note {
        #[arg(value_name = "SESSION")]
        id: SessionId,
        #[arg(required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Only those in this state
    #[arg(long, value_enum, default_value = "due", conflicts_with = "all")]
    state: ReviewState,
    /// Those that are done or need none, too
    #[arg(long)]
    all: bool,
    /// Only those that you may judge and have not
    #[arg(long)]
    mine: bool,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// A verdict, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerdictArg {
    AsPlanned,
    Deviation,
    Incident,
}

impl From<VerdictArg> for Verdict {
    fn from(given: VerdictArg) -> Self {
        match given {
            VerdictArg::AsPlanned => Verdict::AsPlanned,
            VerdictArg::Deviation => Verdict::Deviation,
            VerdictArg::Incident => Verdict::Incident,
        }
    }
}

const COLUMNS: &[Column<Review>] = &[
    column("Session", |review| review.session_id.to_string()),
    column("State", |review| review.state.as_str().to_owned()),
    column("Due", |review| review.due_at.map(when::local).unwrap_or_default()),
    column("Risk", |review| review.risk.to_string()),
    column("Person", |review| review.person.name.to_string()),
    column("Target", |review| format!("{}@{}", review.login, review.target.name)),
    column("Signed", |review| format!("{}/{}", review.signed, review.sign_offs)),
    column("Verdict", |review| review.verdict.map(verdict).unwrap_or_default()),
    column("Because", |review| because(&review.reasons, 3)),
];

fn verdict(given: Verdict) -> String {
    given.as_str().replace('_', " ")
}

fn because(reasons: &[RiskReason], most: usize) -> String {
    let mut words: Vec<&str> = reasons.iter().take(most).map(|reason| reason.text.as_str()).collect();
    if reasons.len() > most {
        words.push("…");
    }
    words.join("; ")
}

pub(crate) async fn run(command: ReviewCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        ReviewCommand::Ls(args) => {
            let mut query = Vec::new();
            query.extend((!args.all).then(|| ("state", args.state.as_str().to_owned())));
            query.extend(args.mine.then(|| ("mine", "true".to_owned())));
            let page = client.list(&["reviews"], &query, args.limit).await?;
            output::list(global.format(), &page, COLUMNS)?;
            if global.format() == Format::Table {
                let mine = [("mine", args.mine.to_string())];
                let sum: ReviewSum = client.get(&["reviews", "summary"], &mine).await?;
                let minutes = sum.active_us.div_ceil(60_000_000);
                output::note(format!(
                    "{} to review ({} overdue), about {minutes} min of active time",
                    sum.due, sum.overdue
                ));
            }
            Ok(())
        }
        ReviewCommand::Show { id } => {
            let detail: ReviewDetail = client.get(&["sessions", &id.to_string(), "review"], &()).await?;
            output::one(global.format(), &detail, &rows(&detail))
        }
        ReviewCommand::SignOff { id, verdict, note } => {
            let body = SignOff { verdict: verdict.into(), note };
            let detail = client.post(&["sessions", &id.to_string(), "review", "sign-off"], &body).await?;
            changed(global, &detail, &format!("{id} is signed off"))
        }
        ReviewCommand::Flag { id, words, recording, at } => {
            let body = MakeFlag { words: words.join(" "), recording, at };
            let detail = client.post(&["sessions", &id.to_string(), "review", "flags"], &body).await?;
            changed(global, &detail, &format!("{id} is flagged"))
        }
        ReviewCommand::Note { id, words } => {
            let body = MakeNote { words: words.join(" ") };
            let detail = client.post(&["sessions", &id.to_string(), "review", "notes"], &body).await?;
            changed(global, &detail, "noted")
        }
    }
}

/// After a change scripts get the whole thing; people have read the sentence.
fn changed(global: &Global, detail: &ReviewDetail, sentence: &str) -> Result<(), Failure> {
    output::note(sentence);
    if global.format() == Format::Table { Ok(()) } else { output::one(global.format(), detail, &[]) }
}

fn rows(detail: &ReviewDetail) -> Vec<(&'static str, String)> {
    let mut rows = vec![("Session", detail.session_id.to_string())];
    match &detail.review {
        None => rows.push(("State", "not at rest yet".to_owned())),
        Some(review) => rows.extend([
            ("State", review.state.as_str().replace('_', " ")),
            ("Due", review.due_at.map(when::local).unwrap_or_default()),
            ("Risk", review.risk.to_string()),
            ("Because", review.reasons.iter().map(reason_line).collect::<Vec<_>>().join("\n")),
            ("Chosen by", review.chosen_by.replace('_', " ")),
            ("Signed", format!("{} of {}", review.signed, review.sign_offs)),
            ("Verdict", review.verdict.map(verdict).unwrap_or_default()),
        ]),
    }
    rows.push(("Said", detail.remarks.iter().map(remark_line).collect::<Vec<_>>().join("\n")));
    rows.push(("You saw", detail.coverage.as_ref().map(coverage).unwrap_or_default()));
    if let Some(refusal) = &detail.refusal {
        rows.push(("You may not", refusal.clone()));
    }
    if detail.deleted {
        rows.push(("Recordings", "deleted".to_owned()));
    }
    rows
}

fn reason_line(reason: &RiskReason) -> String {
    format!("{:>3}  {}", reason.weight, reason.text)
}

fn remark_line(remark: &Remark) -> String {
    let what = match (remark.verdict, remark.moment) {
        (Some(given), _) => verdict(given),
        (None, Some(at)) => format!("flag at {}", when::local(at)),
        (None, None) => remark.kind.clone(),
    };
    let seen = remark.coverage.as_ref().map(|seen| format!(", {}", coverage(seen))).unwrap_or_default();
    format!("{} {}: {what}{seen}  {}", when::local(remark.at), remark.by.name, output::printable(&remark.words))
}

fn coverage(coverage: &CoverageShown) -> String {
    coverage.percent.map_or_else(|| "nothing to see".to_owned(), |percent| format!("{percent} % seen"))
}
