//! `sallyport request`: engineers ask for access or for more time, admins answer.

use std::io::IsTerminal as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use ipnet::IpNet;
use sallyport_domain::grant::{Approval, TargetSelector};
use sallyport_domain::id::{GrantId, RequestId};
use sallyport_domain::name::{Login, PrincipalName};

use super::client::Client;
use super::commands::CommandArgs;
use super::failure::{Failure, FailureKind};
use super::files::FileArgs;
use super::grant::time;
use super::output::{self, Column, Format, column};
use super::terms::{AllowArg, Strict, allow, allowed, joined};
use super::{Global, now, when};
use crate::api::grants::Reason;
use crate::api::requests::{ApproveRequest, MakeRequest, Request, RequestState, WaitQuery};

#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// Ask for access, or for more time on a grant
    New(NewArgs),
    /// List requests: everybody's for those who may, else your own
    Ls(LsArgs),
    /// Show one request
    Show { id: RequestId },
    /// Say yes, to what was asked for or to something else
    Approve(ApproveArgs),
    /// Say no
    Deny {
        id: RequestId,
        #[arg(long)]
        reason: String,
    },
    /// Take your own request back
    Withdraw { id: RequestId },
    /// Wait for the answer; exit code 0 only if it is yes
    Wait { id: RequestId },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct NewArgs {
    /// Where to: names, patterns such as `web-*`, labels such as `env=prod`
    #[arg(value_name = "TARGET", group = "what")]
    targets: Vec<TargetSelector>,
    /// More time on this grant, instead of new access
    #[arg(long, value_name = "GRANT", group = "what", conflicts_with_all = ["targets", "logins", "allow"])]
    extend: Option<GrantId>,
    /// The accounts; may be left out where the targets have only one
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',')]
    logins: Vec<Login>,
    /// How long, or how much longer: `2h`, `90m`, `7d`
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasting: Duration,
    /// Why
    #[arg(long)]
    reason: String,
    /// The number of a ticket elsewhere
    #[arg(long)]
    ticket: Option<String>,
    /// What is to be done: shell, exec, upload, download, forward=host:port; shell and exec where it is left out
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<AllowArg>,
    /// Wait for the answer
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Those that are open, approved, denied, withdrawn or expired
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = RequestState::Open)]
    state: RequestState,
    /// All, the answered ones too
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Only those of this person
    #[arg(long)]
    person: Option<PrincipalName>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    id: RequestId,
    /// Other accounts than were asked for
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',')]
    logins: Vec<Login>,
    /// Something else than was asked for: shell, exec, upload, download, forward=host:port
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<AllowArg>,
    /// From when: `18:00`, `tomorrow 09:00`, …; now where it is left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<DateTime<Utc>>,
    /// How long, from the beginning of the window
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "until")]
    lasting: Option<Duration>,
    /// Until when; for more time on a grant, its new end
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// A network from which the person may come
    #[arg(long = "from-network", value_name = "CIDR", value_delimiter = ',')]
    networks: Vec<IpNet>,
    /// Sessions that may be open at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: Option<u32>,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    commands: CommandArgs,
}

const COLUMNS: &[Column<Request>] = &[
    column("Id", |request| request.id.to_string()),
    column("State", |request| request.state.as_str().to_owned()),
    column("Person", |request| request.person.name.to_string()),
    column("Wants", wants),
    column("For", lasting),
    column("Reason", |request| request.reason.clone()),
    column("Asked", |request| when::local(request.created_at)),
];

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// How long, or how much longer; a session lasts as its grant does.
fn lasting(request: &Request) -> String {
    if request.session.is_some() { String::new() } else { span(request.lasting_seconds) }
}

fn wants(request: &Request) -> String {
    if let Some(session) = &request.session {
        let (login, target) = (joined(&request.logins), joined(&request.targets));
        return match request.approval {
            Approval::Watcher => format!("a watcher of {session}: {login}@{target}"),
            Approval::None | Approval::PerSession => format!("a yes to {session}: {login}@{target}"),
        };
    }
    match (&request.grant, &request.allow) {
        (Some(grant), _) => format!("more time on {grant}"),
        (None, allow) => {
            let logins =
                if request.logins.is_empty() { String::new() } else { format!("{}@", joined(&request.logins)) };
            let allow = allow.as_ref().map(allowed).unwrap_or_default();
            format!("{logins}{} ({allow})", joined(&request.targets))
        }
    }
}

/// What has become of it, in one sentence.
fn outcome(request: &Request) -> String {
    let Some(answer) = &request.answer else {
        return format!("open, expires in {}", when::between(now().to_utc(), request.expires_at));
    };
    let by = answer.by.as_ref().map_or("the operator".to_owned(), |person| person.name.to_string());
    let grant = answer.grant.map(|grant| grant.to_string()).unwrap_or_default();
    match request.state {
        RequestState::Open => "open".to_owned(),
        RequestState::Approved if request.session.is_some() => format!("approved by {by}"),
        RequestState::Approved if answer.changed => format!("approved by {by}, but not as asked: see grant {grant}"),
        RequestState::Approved => format!("approved by {by}: grant {grant}"),
        RequestState::Denied => format!("denied by {by}: {}", answer.reason.as_deref().unwrap_or_default()),
        RequestState::Withdrawn => format!("withdrawn by {by}"),
        RequestState::Expired => "expired: nobody answered in time".to_owned(),
    }
}

fn show(global: &Global, request: &Request) -> Result<(), Failure> {
    let rows = [
        ("Id", request.id.to_string()),
        ("State", outcome(request)),
        ("Person", request.person.name.to_string()),
        ("Wants", wants(request)),
        ("For", lasting(request)),
        ("Reason", request.reason.clone()),
        ("Ticket", request.ticket.clone().unwrap_or_default()),
        ("Asked", when::local(request.created_at)),
        ("Answered", request.answer.as_ref().map(|answer| when::local(answer.at)).unwrap_or_default()),
    ];
    output::one(global.format(), request, &rows)
}

/// After a change: a sentence for people, the whole thing for scripts.
fn changed(global: &Global, request: &Request) -> Result<(), Failure> {
    output::note(format!("{} is {}", request.id, outcome(request)));
    if global.format() == Format::Table { Ok(()) } else { show(global, request) }
}

pub(crate) async fn run(command: RequestCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        RequestCommand::New(args) => new(&client, args, global).await,
        RequestCommand::Ls(args) => {
            let mut query = Vec::new();
            query.extend((!args.all).then(|| ("state", args.state.as_str().to_owned())));
            query.extend(args.person.map(|person| ("person", person.to_string())));
            output::list(global.format(), &client.list(&["requests"], &query, args.limit).await?, COLUMNS)
        }
        RequestCommand::Show { id } => show(global, &client.get(&["requests", &id.to_string()], &()).await?),
        RequestCommand::Approve(args) => approve(&client, args, global).await,
        RequestCommand::Deny { id, reason } => {
            let request: Request = client.post(&["requests", &id.to_string(), "deny"], &Reason { reason }).await?;
            changed(global, &request)
        }
        RequestCommand::Withdraw { id } => {
            let request: Request = client.act(&["requests", &id.to_string(), "withdraw"]).await?;
            changed(global, &request)
        }
        RequestCommand::Wait { id } => wait(&client, id, global).await,
    }
}

async fn new(client: &Client, args: NewArgs, global: &Global) -> Result<(), Failure> {
    let body = MakeRequest {
        grant: args.extend,
        targets: args.targets,
        logins: args.logins,
        allow: if args.allow.is_empty() { None } else { Some(allow(args.allow)) },
        lasting_seconds: args.lasting.as_secs(),
        reason: args.reason,
        ticket: args.ticket,
    };
    let request: Request = client.post(&["requests"], &body).await?;
    if args.wait {
        output::note(format!("asked: {}", request.id));
        return wait(client, request.id, global).await;
    }
    output::note(format!("an admin answers with: sallyport request approve {}", request.id));
    output::note(format!("to wait for it: sallyport request wait {}", request.id));
    show(global, &request)
}

async fn approve(client: &Client, args: ApproveArgs, global: &Global) -> Result<(), Failure> {
    let id = args.id.to_string();
    let not_after = match (args.until, args.lasting) {
        (Some(until), _) => Some(until),
        (None, Some(lasting)) => {
            let request: Request = client.get(&["requests", &id], &()).await?;
            if request.grant.is_some() {
                return Err(Failure::usage("for more time on a grant say its new end, with `--until`"));
            }
            let start = args.from.unwrap_or_else(|| now().to_utc());
            Some(when::after(start, lasting).ok_or_else(|| Failure::usage("that is too far away"))?)
        }
        (None, None) => None,
    };
    let body = ApproveRequest {
        logins: args.logins,
        allow: if args.allow.is_empty() { None } else { Some(allow(args.allow)) },
        not_before: args.from,
        not_after,
        source_networks: args.networks,
        max_sessions: args.max_sessions,
        second_factor: args.strict.second_factor,
        approval: args.strict.approval(),
        files: args.files.read()?,
        commands: args.commands.read(),
    };
    changed(global, &client.post(&["requests", &id, "approve"], &body).await?)
}

/// How long one question waits for its answer at the server.
const PATIENCE_SECONDS: u32 = 20;

async fn wait(client: &Client, id: RequestId, global: &Global) -> Result<(), Failure> {
    let path = ["requests", &id.to_string()];
    let status = Status::start();
    let mut query = WaitQuery { wait: None }; // the first look returns at once, for the status
    let request = loop {
        let request: Request = client.get(&path, &query).await?;
        if request.state != RequestState::Open {
            break request;
        }
        status.tell(&request);
        query.wait = Some(PATIENCE_SECONDS);
    };
    status.end();
    show(global, &request)?;
    match request.state {
        RequestState::Open | RequestState::Approved => Ok(()),
        RequestState::Denied | RequestState::Withdrawn | RequestState::Expired => {
            Err(Failure::text(FailureKind::NotAllowed, format!("{id} is {}", outcome(&request))))
        }
    }
}

/// What is said while somebody waits: a line that lives, on a terminal; else one line, once.
struct Status(Option<ProgressBar>);

impl Status {
    fn start() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        // The template is ours and right; without it the usual one is drawn.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} \u{b7} waited {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Some(bar))
    }

    fn tell(&self, request: &Request) {
        let text = format!("{} waits for an admin's answer: {}", request.id, outcome(request));
        match &self.0 {
            Some(bar) => bar.set_message(output::printable(&text)),
            None => tell_once(&text),
        }
    }

    fn end(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

/// In a log one line is enough, however long it takes.
fn tell_once(text: &str) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| output::note(text));
}
