//! `sallyport grant`: who may reach what, and until when.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use sallyport_domain::grant::TargetSelector;
use sallyport_domain::id::GrantId;
use sallyport_domain::name::{Login, NameError, PrincipalName, TargetName, TemplateName};

use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Column, Format, column};
use super::terms::{self, TermArgs, allowed, joined, takes};
use super::{Global, now, when};
use crate::api::bastion::Bastion;
use crate::api::grants::{
    ExtendGrant, Grant, GrantPreview, GrantState, GrantStateFilter, MakeGrant, PreviewTarget, Reason,
};
use crate::api::terms::GrantTerms;

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
#[command(group = clap::ArgGroup::new("end"))]
pub(crate) struct NewArgs {
    /// Who: a name, or several with commas between
    #[arg(value_name = "PERSON[,PERSON]", required_unless_present = "person")]
    people: Option<People>,
    /// The same, where the template says the targets
    #[arg(long, value_name = "PERSON[,PERSON]", requires = "template", conflicts_with_all = ["people", "targets"])]
    person: Option<People>,
    /// Where to: names, patterns such as `web-*`, labels such as `env=prod`
    #[arg(value_name = "TARGET", required_unless_present = "template")]
    targets: Vec<TargetSelector>,
    /// Take the terms of this template; then targets and logins may be fewer than its own, and `--for` and `--reason` other
    #[arg(long, value_name = "NAME")]
    template: Option<TemplateName>,
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
    #[arg(long, required_unless_present = "template")]
    reason: Option<String>,
    /// The number of a ticket elsewhere
    #[arg(long)]
    ticket: Option<String>,
    #[command(flatten)]
    terms: TermArgs,
    /// Show what would be given, and give nothing
    #[arg(long)]
    dry_run: bool,
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

fn people(grant: &Grant) -> String {
    grant.people.iter().map(|person| person.name.as_str()).collect::<Vec<_>>().join(",")
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
    let mut rows = vec![
        ("Id", grant.id.to_string()),
        ("State", remaining(grant)),
        ("People", people(grant)),
        ("Targets", joined(&grant.targets)),
        ("Logins", joined(&grant.logins)),
    ];
    rows.extend(terms::rows(&grant.terms()));
    rows.extend([
        ("From", when::local(grant.not_before)),
        ("Until", when::local(grant.not_after)),
        ("Reason", grant.reason.clone()),
        ("Ticket", grant.ticket.clone().unwrap_or_default()),
        ("Template", grant.template.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("Given", format!("{} by {}", when::local(grant.created_at), by(&grant.created_by))),
        ("Revoked", revoked.unwrap_or_else(|| "no".to_owned())),
    ]);
    rows
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
    let not_after = match (args.until, args.lasting) {
        (Some(until), _) => Some(until),
        (None, None) if args.template.is_some() => None,
        (None, lasting) => Some(end_after(start, lasting)?),
    };
    let people = args.people.or(args.person).map(|People(names)| names).unwrap_or_default();
    let mut body = MakeGrant {
        template: args.template,
        targets: args.targets,
        logins: args.logins,
        not_before: args.from,
        not_after,
        reason: args.reason,
        ticket: args.ticket,
        ..MakeGrant::to(people)
    };
    let terms = args.terms.read()?;
    if body.template.is_some() && terms != GrantTerms::default() {
        let message = "with `--template` all terms but targets and logins are the template's";
        return Err(Failure::usage(message).hint("leave the other options out, or make the grant without it"));
    }
    body.set(terms);
    let preview: GrantPreview = client.ask(&["grants", "preview"], &body).await?;
    if preview.matching_targets.is_empty() {
        let hint = "`sallyport target ls` shows what there is";
        let selectors = joined(&preview.terms.targets);
        return Err(Failure::text(FailureKind::NotFound, format!("no target is `{selectors}`")).hint(hint));
    }
    let mut logins = preview.terms.logins.clone();
    if logins.is_empty() {
        logins.push(only_login(&preview.matching_targets)?);
        body.logins.clone_from(&logins);
    }
    let bastion: Bastion = client.get(&["bastion"], &()).await?;
    let connect = ssh_lines(&bastion, &body.people, &logins, &preview.matching_targets);
    if args.dry_run {
        output::note("a dry run: nothing is given");
        return show_preview(global, &logins, &preview, connect);
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

fn show_preview(global: &Global, logins: &[Login], preview: &GrantPreview, connect: String) -> Result<(), Failure> {
    let mut rows = vec![
        ("People", joined(&preview.people)),
        ("Targets", joined(&preview.terms.targets)),
        ("Logins", joined(logins)),
    ];
    rows.extend(terms::rows(&preview.terms));
    rows.extend([
        ("From", when::local(preview.not_before)),
        ("Until", when::local(preview.not_after)),
        ("Reason", preview.reason.clone()),
        ("Means now", names(&preview.matching_targets)),
        ("Connect", connect),
    ]);
    output::one(global.format(), preview, &rows)
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
fn ssh_lines(bastion: &Bastion, people: &[PrincipalName], logins: &[Login], targets: &[PreviewTarget]) -> String {
    const MOST: usize = 6;
    let port = if bastion.ssh_port == 22 { String::new() } else { format!("-p {} ", bastion.ssh_port) };
    let lines = people.iter().flat_map(|person| {
        targets.iter().flat_map(move |target| {
            let logins = logins.iter().filter(|login| target.logins.contains(login));
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
        let (people, logins) = (["li.wei".parse().unwrap()], ["root".parse().unwrap()]);
        let target = |name: &str, login: &str| PreviewTarget {
            name: name.parse().unwrap(),
            logins: vec![login.parse().unwrap()],
        };

        let lines = ssh_lines(&bastion, &people, &logins, &[target("gpu-1", "root"), target("gpu-2", "ops")]);

        assert_eq!(lines, "ssh -p 2222 li.wei+root@gpu-1@bastion.example");
    }
}
