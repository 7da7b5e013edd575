//! `sallyport template`: terms for grants that are agreed once.

use std::time::Duration;

use clap::Subcommand;
use sallyport_domain::grant::{Approval, TargetSelector};
use sallyport_domain::name::{Login, TemplateName};

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::terms::{self, TermArgs, allowed, joined, takes};
use super::{Global, when};
use crate::api::grants::{Allow, Commands, Files, Forwarding};
use crate::api::templates::{MakeTemplate, SetTemplate, Template};
use crate::api::terms::GrantTerms;

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Make a template: then a grant is who, `--template NAME`, and until when
    New(Box<NewArgs>),
    /// List templates
    Ls,
    /// Show one template
    Show { name: TemplateName },
    /// Say something of a template otherwise; what is left out stays. Grants that were made from it do not change
    Change(Box<ChangeArgs>),
    /// Remove a template. Grants that were made from it do not change
    Rm { name: TemplateName },
}

#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    /// What it is called: `firmware`
    name: TemplateName,
    #[command(flatten)]
    said: Said,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    name: TemplateName,
    #[command(flatten)]
    said: Said,
    /// Say nothing of this any more
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum)]
    clear: Vec<Clear>,
}

/// What a template says
#[derive(Debug, clap::Args)]
struct Said {
    /// Where to: names, patterns such as `web-*`, labels such as `env=prod`; each grant says it where it is left out
    #[arg(value_name = "TARGET")]
    targets: Vec<TargetSelector>,
    /// The accounts; each grant says them where they are left out
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',')]
    logins: Vec<Login>,
    /// How long a grant lasts that says nothing else: `2h`, `90m`, `7d`
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasting: Option<Duration>,
    /// The reason of a grant that gives none
    #[arg(long)]
    reason: Option<String>,
    /// What it is for, in words
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    terms: TermArgs,
}

// The arms have no doc comments: clap would make paragraphs of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Clear {
    Note,
    Targets,
    Login,
    For,
    Reason,
    FromNetwork,
    MaxSessions,
    TwoFactor,
    Approval,
    Files,
    Commands,
    Forwarding,
}

impl Clear {
    fn from(self, set: &mut SetTemplate) {
        let terms = &mut set.terms;
        match self {
            Clear::Note => set.note.clear(),
            Clear::For => set.lasting_seconds = None,
            Clear::Reason => set.reason = None,
            Clear::Targets => terms.targets.clear(),
            Clear::Login => terms.logins.clear(),
            Clear::FromNetwork => terms.source_networks.clear(),
            Clear::MaxSessions => terms.max_sessions = None,
            Clear::TwoFactor => terms.second_factor = false,
            Clear::Approval => terms.approval = Approval::None,
            Clear::Files => terms.files = Files::default(),
            Clear::Commands => terms.commands = Commands::default(),
            Clear::Forwarding => terms.forwarding = Forwarding::default(),
        }
    }
}

impl Said {
    fn change(self, set: &mut SetTemplate) -> Result<(), Failure> {
        if !self.targets.is_empty() {
            set.terms.targets = self.targets;
        }
        if !self.logins.is_empty() {
            set.terms.logins = self.logins;
        }
        if let Some(lasting) = self.lasting {
            let seconds = u32::try_from(lasting.as_secs()).ok().filter(|seconds| *seconds > 0);
            set.lasting_seconds = Some(seconds.ok_or_else(|| Failure::usage("that is too short, or too long"))?);
        }
        set.reason = self.reason.or(set.reason.take());
        set.note = self.note.unwrap_or(std::mem::take(&mut set.note));
        self.terms.change(&mut set.terms)
    }
}

const COLUMNS: &[Column<Template>] = &[
    column("Name", |template| template.name.to_string()),
    column("Targets", |template| open(joined(&template.terms.targets))),
    column("Logins", |template| open(joined(&template.terms.logins))),
    column("Allow", |template| allowed(&allow(&template.terms))),
    column("Takes", |template| takes(template.terms.second_factor, template.terms.approval).join(",")),
    column("For", lasting),
    column("Note", |template| template.note.clone()),
];

fn open(text: String) -> String {
    if text.is_empty() { "said with the grant".to_owned() } else { text }
}

fn allow(terms: &GrantTerms) -> Allow {
    terms.allow.clone().unwrap_or_else(|| Allow::usual_with(&terms.commands))
}

fn lasting(template: &Template) -> String {
    let seconds = template.lasting_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    seconds.map(|lasting| humantime::format_duration(lasting).to_string()).unwrap_or_default()
}

fn show(global: &Global, template: &Template) -> Result<(), Failure> {
    let mut rows = vec![
        ("Name", template.name.to_string()),
        ("Note", template.note.clone()),
        ("Targets", open(joined(&template.terms.targets))),
        ("Logins", open(joined(&template.terms.logins))),
    ];
    rows.extend(terms::rows(&template.terms));
    rows.extend([
        ("For", open(lasting(template))),
        ("Reason", open(template.reason.clone().unwrap_or_default())),
        ("Made", when::local(template.created_at)),
        ("Changed", when::local(template.changed_at)),
    ]);
    output::one(global.format(), template, &rows)
}

/// After a change: a sentence for people, the whole thing for scripts.
fn changed(global: &Global, template: &Template, sentence: &str) -> Result<(), Failure> {
    output::note(sentence);
    if global.format() == Format::Table { Ok(()) } else { show(global, template) }
}

pub(crate) async fn run(command: TemplateCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        TemplateCommand::New(args) => {
            let mut set = SetTemplate::default();
            args.said.change(&mut set)?;
            let template: Template = client.post(&["templates"], &MakeTemplate::new(args.name, set)).await?;
            let next = format!("next: sallyport grant new PERSON --template {}", template.name);
            changed(global, &template, &format!("made the template {}; {next}", template.name))
        }
        TemplateCommand::Ls => {
            output::list(global.format(), &client.list(&["templates"], &[], usize::MAX).await?, COLUMNS)
        }
        TemplateCommand::Show { name } => show(global, &client.get(&["templates", name.as_str()], &()).await?),
        TemplateCommand::Change(args) => change(&client, *args, global).await,
        TemplateCommand::Rm { name } => {
            let template: Template = client.delete(&["templates", name.as_str()]).await?;
            changed(global, &template, &format!("removed the template {name}"))
        }
    }
}

async fn change(client: &Client, args: ChangeArgs, global: &Global) -> Result<(), Failure> {
    let path = ["templates", args.name.as_str()];
    let (before, tag) = client.get_tagged::<Template>(&path).await?;
    let mut set = SetTemplate::from(before);
    for clear in args.clear {
        clear.from(&mut set);
    }
    args.said.change(&mut set)?;
    let template: Template = client.put_over(&path, tag, &set).await?;
    changed(global, &template, &format!("changed the template {}", template.name))
}
