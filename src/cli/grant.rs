//! `sallyport grant`: who may reach what, and until when.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use ipnet::IpNet;
use sallyport_domain::grant::{Approval, ForwardFrom, TargetSelector};
use sallyport_domain::id::GrantId;
use sallyport_domain::name::{Login, NameError, PrincipalName, TargetName};
use sallyport_domain::review::ReviewTerm;

use super::client::Client;
use super::commands::{self, CommandArgs};
use super::failure::{Failure, FailureKind};
use super::files::{self, FileArgs};
use super::output::{self, Column, Format, column};
use super::{Global, now, when};
use crate::api::bastion::Bastion;
use crate::api::grants::{
    Allow, Destination, ExtendGrant, Forwarding, Grant, GrantPreview, GrantState, GrantStateFilter, MakeGrant,
    PreviewTarget, Reason,
};

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Give people access to targets for a time
    New(Box<NewArgs>),
    /// List grants
    Ls(LsArgs),
    /// Show one grant
    Show { id: GrantId },
    /// Move a grant's end, later or earlier
    Extend(ExtendArgs),
    /// Take a grant back; its live sessions are cut
    Revoke {
        id: GrantId,
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("end").required(true))]
pub(crate) struct NewArgs {
    /// Who: a name, or several with commas between
    #[arg(value_name = "PERSON[,PERSON]")]
    people: People,
    /// Where to: names, patterns such as `web-*`, labels such as `env=prod`
    #[arg(value_name = "TARGET", required = true)]
    targets: Vec<TargetSelector>,
    /// The accounts; may be left out where the targets have only one
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',')]
    logins: Vec<Login>,
    /// How long: `2h`, `90m`, `7d`
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, group = "end")]
    lasting: Option<Duration>,
    /// Until when: `18:00`, `tomorrow 09:00`, `2026-11-22 18:00`, or with a zone `2026-11-22T18:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time, group = "end")]
    until: Option<DateTime<Utc>>,
    /// From when, in the same words; now where it is left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<DateTime<Utc>>,
    /// Why
    #[arg(long)]
    reason: String,
    /// The number of a ticket elsewhere
    #[arg(long)]
    ticket: Option<String>,
    /// What may be done: shell, exec, upload, download, forward=host:port, forward=/path/of/socket; shell and exec where it is
    /// left out, and only exec with `--exec-pattern`
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<AllowArg>,
    /// A network from which the person may come; anywhere where it is left out
    #[arg(long = "from-network", value_name = "CIDR", value_delimiter = ',')]
    networks: Vec<IpNet>,
    /// Sessions that may be open at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: Option<u32>,
    /// By when its sessions are to be reviewed: working days such as `5d`, or `none`; as the bastion's settings say where it is left out
    #[arg(long, value_name = "TERM")]
    review: Option<ReviewTerm>,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    commands: CommandArgs,
    #[command(flatten)]
    forwarding: ForwardArgs,
    /// Show what would be given, and give nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a session takes besides the grant.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Strict {
    /// The person must prove a second factor at the login
    #[arg(long = "two-factor")]
    pub(super) second_factor: bool,
    /// An admin must say yes to each session, with `sallyport request approve`
    #[arg(long, conflicts_with = "watched")]
    approve_each: bool,
    /// A reviewer must be watching, with `sallyport session watch`; without one the session stands still
    #[arg(long)]
    watched: bool,
}

/// How forwards are made, and what is kept of them
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ForwardArgs {
    /// Who dials the destinations of `--allow forward=…`: the target, or the bastion itself
    #[arg(long, value_name = "target|bastion", value_parser = forward_from, default_value = "target")]
    forward_from: ForwardFrom,
    /// Keep of forwards when they were opened and how many bytes went, and not their content
    #[arg(long)]
    forward_metadata_only: bool,
}

fn forward_from(text: &str) -> Result<ForwardFrom, String> {
    let known = ForwardFrom::ALL.into_iter().find(|from| from.as_str() == text);
    known.ok_or_else(|| "write target or bastion".to_owned())
}

impl Strict {
    pub(super) fn approval(&self) -> Approval {
        match (self.watched, self.approve_each) {
            (true, _) => Approval::Watcher,
            (false, true) => Approval::PerSession,
            (false, false) => Approval::None,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Those that are active, upcoming, ended, or all
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = GrantStateFilter::Active)]
    state: GrantStateFilter,
    /// All, the ended and revoked ones too
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// Only those that name this person
    #[arg(long)]
    person: Option<PrincipalName>,
    /// Only those that lead to this target
    #[arg(long)]
    target: Option<TargetName>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("end").required(true))]
pub(crate) struct ExtendArgs {
    id: GrantId,
    /// This much longer than it would have lasted
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, group = "end")]
    lasting: Option<Duration>,
    /// Until when: `18:00`, `tomorrow 09:00`, …
    #[arg(long, value_name = "TIME", value_parser = time, group = "end")]
    until: Option<DateTime<Utc>>,
    #[arg(long)]
    reason: String,
}

/// Names with commas between. One argument, so that what comes after it are targets.
#[derive(Debug, Clone)]
struct People(Vec<PrincipalName>);

impl FromStr for People {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// One word of `--allow`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AllowArg {
    Shell,
    Exec,
    Upload,
    Download,
    Forward(Destination),
}

impl FromStr for AllowArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "shell" => Ok(AllowArg::Shell),
            None if text == "exec" => Ok(AllowArg::Exec),
            None if text == "upload" => Ok(AllowArg::Upload),
            None if text == "download" => Ok(AllowArg::Download),
            Some(("forward", path)) if path.starts_with('/') => {
                Ok(AllowArg::Forward(Destination { host: path.to_owned(), port: 0 }))
            }
            Some(("forward", to)) => {
                let wrong = || format!("`{to}` is not a destination: write `host:port`, or a Unix socket's path");
                let (host, port) = to.rsplit_once(':').ok_or_else(wrong)?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
                if host.is_empty() {
                    return Err(wrong());
                }
                Ok(AllowArg::Forward(Destination { host: host.to_owned(), port }))
            }
            _ => {
                Err("write shell, exec, upload, download or forward=host:port (or forward=/path/of/socket)".to_owned())
            }
        }
    }
}

pub(super) fn allow(words: Vec<AllowArg>) -> Allow {
    let mut allow = Allow::default();
    for word in words {
        match word {
            AllowArg::Shell => allow.shell = true,
            AllowArg::Exec => allow.exec = true,
            AllowArg::Upload => allow.upload = true,
            AllowArg::Download => allow.download = true,
            AllowArg::Forward(destination) => allow.forwards.push(destination),
        }
    }
    allow
}

pub(super) fn time(text: &str) -> Result<DateTime<Utc>, when::WhenError> {
    when::instant(text, &now())
}

const COLUMNS: &[Column<Grant>] = &[
    column("Id", |grant| grant.id.to_string()),
    column("People", people),
    column("Targets", |grant| joined(&grant.targets)),
    column("Logins", |grant| joined(&grant.logins)),
    column("Allow", |grant| allowed(&grant.allow)),
    column("Takes", |grant| takes(grant.second_factor, grant.approval).join(",")),
    column("State", remaining),
    column("Until", |grant| when::local(grant.not_after)),
    column("Reason", |grant| grant.reason.clone()),
];

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn people(grant: &Grant) -> String {
    grant.people.iter().map(|person| person.name.as_str()).collect::<Vec<_>>().join(",")
}

pub(super) fn allowed(allow: &Allow) -> String {
    let words = [(allow.shell, "shell"), (allow.exec, "exec"), (allow.upload, "upload"), (allow.download, "download")];
    let words = words.into_iter().filter(|(allowed, _)| *allowed).map(|(_, word)| word.to_owned());
    let forwards = allow.forwards.iter().map(|Destination { host, port }| {
        let destination = sallyport_domain::grant::Destination { host: host.clone(), port: *port };
        format!("forward={destination}")
    });
    words.chain(forwards).collect::<Vec<_>>().join(",")
}

/// How forwards are made, in words.
fn forwarding(allow: &Allow, forwarding: &Forwarding) -> String {
    if allow.forwards.is_empty() {
        return "none".to_owned();
    }
    let kept = if forwarding.metadata_only { "their content is not kept" } else { "recorded" };
    format!("from the {}, {kept}", forwarding.from.as_str())
}

/// What a session takes besides the grant, in words.
fn takes(second_factor: bool, approval: Approval) -> Vec<&'static str> {
    let approval = match approval {
        Approval::None => None,
        Approval::PerSession => Some("approval of each session"),
        Approval::Watcher => Some("a watcher"),
    };
    second_factor.then_some("two factors").into_iter().chain(approval).collect()
}

fn takes_row(second_factor: bool, approval: Approval) -> String {
    let takes = takes(second_factor, approval);
    if takes.is_empty() { "nothing besides".to_owned() } else { takes.join(", ") }
}

fn remaining(grant: &Grant) -> String {
    let now = now().to_utc();
    match grant.state {
        GrantState::Active => format!("active, {} left", when::between(now, grant.not_after)),
        GrantState::Upcoming => format!("opens in {}", when::between(now, grant.not_before)),
        GrantState::Ended | GrantState::Revoked => grant.state.as_str().to_owned(),
    }
}

fn show(global: &Global, grant: &Grant) -> Result<(), Failure> {
    output::one(global.format(), grant, &rows(grant))
}

fn rows(grant: &Grant) -> Vec<(&'static str, String)> {
    let by = |person: &Option<crate::api::people::PersonRef>| {
        person.as_ref().map_or("the operator".to_owned(), |person| person.name.to_string())
    };
    let revoked = grant
        .revoked
        .as_ref()
        .map(|revoked| format!("{} by {}: {}", when::local(revoked.at), by(&revoked.by), revoked.reason));
    let networks =
        if grant.source_networks.is_empty() { "anywhere".to_owned() } else { joined(&grant.source_networks) };
    vec![
        ("Id", grant.id.to_string()),
        ("State", remaining(grant)),
        ("People", people(grant)),
        ("Targets", joined(&grant.targets)),
        ("Logins", joined(&grant.logins)),
        ("Allow", allowed(&grant.allow)),
        ("Files", files::rules(&grant.files)),
        ("Commands", commands::rules(&grant.commands)),
        ("Forwards", forwarding(&grant.allow, &grant.forwarding)),
        ("Coming from", networks),
        ("Sessions", grant.max_sessions.map_or("any number".to_owned(), |most| format!("at most {most} at once"))),
        ("Takes", takes_row(grant.second_factor, grant.approval)),
        ("Review", grant.review.map(|term| term.to_string()).unwrap_or_default()),
        ("From", when::local(grant.not_before)),
        ("Until", when::local(grant.not_after)),
        ("Reason", grant.reason.clone()),
        ("Ticket", grant.ticket.clone().unwrap_or_default()),
        ("Given", format!("{} by {}", when::local(grant.created_at), by(&grant.created_by))),
        ("Revoked", revoked.unwrap_or_else(|| "no".to_owned())),
    ]
}

/// After a change: a sentence for people, the whole thing for scripts.
fn changed(global: &Global, grant: &Grant, sentence: &str) -> Result<(), Failure> {
    output::note(sentence);
    if global.format() == Format::Table { Ok(()) } else { show(global, grant) }
}

pub(crate) async fn run(command: GrantCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        GrantCommand::New(args) => new(&client, *args, global).await,
        GrantCommand::Ls(args) => {
            let state = if args.all { GrantStateFilter::All } else { args.state };
            let mut query = vec![("state", state.as_str().to_owned())];
            query.extend(args.person.map(|person| ("person", person.to_string())));
            query.extend(args.target.map(|target| ("target", target.to_string())));
            output::list(global.format(), &client.list(&["grants"], &query, usize::MAX).await?, COLUMNS)
        }
        GrantCommand::Show { id } => show(global, &client.get(&["grants", &id.to_string()], &()).await?),
        GrantCommand::Extend(args) => extend(&client, args, global).await,
        GrantCommand::Revoke { id, reason } => {
            let grant: Grant = client.post(&["grants", &id.to_string(), "revoke"], &Reason { reason }).await?;
            changed(global, &grant, &format!("revoked {id}; its live sessions are being cut"))
        }
    }
}

async fn extend(client: &Client, args: ExtendArgs, global: &Global) -> Result<(), Failure> {
    let id = args.id.to_string();
    let not_after = match (args.until, args.lasting) {
        (Some(until), _) => until,
        (None, lasting) => {
            let grant: Grant = client.get(&["grants", &id], &()).await?;
            end_after(grant.not_after, lasting)?
        }
    };
    let body = ExtendGrant { not_after, reason: args.reason };
    let grant: Grant = client.post(&["grants", &id, "extend"], &body).await?;
    changed(global, &grant, &format!("{id} ends {} now ({})", when::local(grant.not_after), remaining(&grant)))
}

fn end_after(start: DateTime<Utc>, lasting: Option<Duration>) -> Result<DateTime<Utc>, Failure> {
    let lasting = lasting.ok_or_else(|| Failure::usage("say how long: `--for 2h` or `--until 18:00`"))?;
    when::after(start, lasting).ok_or_else(|| Failure::usage("that is too far away"))
}

async fn new(client: &Client, args: NewArgs, global: &Global) -> Result<(), Failure> {
    let start = args.from.unwrap_or_else(|| now().to_utc());
    let not_after = match args.until {
        Some(until) => until,
        None => end_after(start, args.lasting)?,
    };
    let commands = args.commands.read();
    let allowed_here = if args.allow.is_empty() { Allow::usual_with(&commands) } else { allow(args.allow) };
    let mut body = MakeGrant {
        people: args.people.0,
        targets: args.targets,
        logins: args.logins,
        allow: Some(allowed_here),
        source_networks: args.networks,
        max_sessions: args.max_sessions,
        second_factor: args.strict.second_factor,
        approval: args.strict.approval(),
        files: args.files.read()?,
        commands,
        forwarding: Forwarding {
            from: args.forwarding.forward_from,
            metadata_only: args.forwarding.forward_metadata_only,
        },
        review: args.review,
        not_before: args.from,
        not_after,
        reason: args.reason,
        ticket: args.ticket,
    };
    let preview: GrantPreview = client.post(&["grants", "preview"], &body).await?;
    if preview.matching_targets.is_empty() {
        let hint = "`sallyport target ls` shows what there is";
        return Err(
            Failure::text(FailureKind::NotFound, format!("no target is `{}`", joined(&body.targets))).hint(hint)
        );
    }
    if body.logins.is_empty() {
        body.logins.push(only_login(&preview.matching_targets)?);
    }
    let bastion: Bastion = client.get(&["bastion"], &()).await?;
    let connect = ssh_lines(&bastion, &body, &preview.matching_targets);
    if args.dry_run {
        output::note("a dry run: nothing is given");
        return show_preview(global, &body, &preview, &connect);
    }
    let grant: Grant = client.post(&["grants"], &body).await?;
    let mut rows = rows(&grant);
    rows.push(("Means now", names(&preview.matching_targets)));
    rows.push(("Connect", connect));
    output::one(global.format(), &grant, &rows)
}

fn names(targets: &[PreviewTarget]) -> String {
    targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn show_preview(global: &Global, body: &MakeGrant, preview: &GrantPreview, connect: &str) -> Result<(), Failure> {
    output::one(
        global.format(),
        preview,
        &[
            ("People", joined(&body.people)),
            ("Targets", joined(&body.targets)),
            ("Logins", joined(&body.logins)),
            ("Allow", body.allow.as_ref().map(allowed).unwrap_or_default()),
            ("Files", files::rules(&body.files)),
            ("Commands", commands::rules(&body.commands)),
            ("Forwards", forwarding(&body.allow.clone().unwrap_or_default(), &body.forwarding)),
            ("Takes", takes_row(body.second_factor, body.approval)),
            ("From", when::local(preview.not_before)),
            ("Until", when::local(preview.not_after)),
            ("Reason", body.reason.clone()),
            ("Means now", names(&preview.matching_targets)),
            ("Connect", connect.to_owned()),
        ],
    )
}

/// The login, where there is only one to choose from.
fn only_login(targets: &[PreviewTarget]) -> Result<Login, Failure> {
    let logins: BTreeSet<&Login> = targets.iter().flat_map(|target| &target.logins).collect();
    match logins.iter().collect::<Vec<_>>().as_slice() {
        [only] => Ok(Login::clone(only)),
        several => Err(Failure::usage("the targets have several accounts")
            .hint(format!("choose with `--login`: {}", joined(several)))),
    }
}

/// What the people are to type: the exact line for each person and target, for as many as fit a screen.
fn ssh_lines(bastion: &Bastion, grant: &MakeGrant, targets: &[PreviewTarget]) -> String {
    const MOST: usize = 6;
    let port = if bastion.ssh_port == 22 { String::new() } else { format!("-p {} ", bastion.ssh_port) };
    let lines = grant.people.iter().flat_map(|person| {
        targets.iter().flat_map(move |target| {
            let logins = grant.logins.iter().filter(|login| target.logins.contains(login));
            logins.map(move |login| (person, login, &target.name))
        })
    });
    let mut lines =
        lines.map(|(person, login, target)| format!("ssh {port}{person}+{login}@{target}@{}", bastion.ssh_host));
    let mut shown: Vec<String> = lines.by_ref().take(MOST).collect();
    match lines.count() {
        0 => {}
        more => shown.push(format!("… and {more} more")),
    }
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_grant_allows_is_read_word_by_word_and_told_in_the_same_words() {
        let words = ["shell", "upload", "forward=db-1:5432", "forward=[fe80::1]:80", "forward=/run/db.sock"]
            .map(|word| word.parse().unwrap());

        let allow = allow(words.to_vec());

        assert_eq!(allowed(&allow), "shell,upload,forward=db-1:5432,forward=[fe80::1]:80,forward=/run/db.sock");
    }

    #[test]
    fn what_a_session_takes_besides_is_told_in_words() {
        assert_eq!(takes_row(false, Approval::None), "nothing besides");
        assert_eq!(takes_row(true, Approval::Watcher), "two factors, a watcher");
    }

    #[test]
    fn a_word_that_allows_nothing_is_refused() {
        for text in ["", "everything", "forward", "forward=", "forward=db", "forward=:1", "forward=db:0"] {
            assert!(text.parse::<AllowArg>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_ssh_line_can_be_pasted() {
        let bastion = Bastion {
            version: String::new(),
            ssh_host: "bastion.example".to_owned(),
            ssh_port: 2222,
            host_key: String::new(),
            user_ca: String::new(),
            host_ca: String::new(),
            user_cas: vec![],
            host_cas: vec![],
        };
        let grant = MakeGrant {
            people: vec!["li.wei".parse().unwrap()],
            targets: vec!["gpu-*".parse().unwrap()],
            logins: vec!["root".parse().unwrap()],
            allow: None,
            source_networks: vec![],
            max_sessions: None,
            second_factor: false,
            approval: Approval::None,
            files: crate::api::grants::Files::default(),
            commands: crate::api::grants::Commands::default(),
            forwarding: Forwarding::default(),
            review: None,
            not_before: None,
            not_after: now().to_utc(),
            reason: String::new(),
            ticket: None,
        };
        let target = |name: &str, login: &str| PreviewTarget {
            name: name.parse().unwrap(),
            logins: vec![login.parse().unwrap()],
        };

        let lines = ssh_lines(&bastion, &grant, &[target("gpu-1", "root"), target("gpu-2", "ops")]);

        assert_eq!(lines, "ssh -p 2222 li.wei+root@gpu-1@bastion.example");
    }
}
