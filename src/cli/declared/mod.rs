//! `sallyport apply` and `sallyport export`: people, targets and templates as a file that is kept in a repository. Each change is one request of
//! the API, so each is an event; what was done stays done if a later one fails, and the next run does the rest.

mod file;
mod plan;
mod templates;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::target::CredentialKind;
use serde::Serialize;

use self::file::Access;
use self::plan::{Plan, Planned, Step};
use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Format};
use super::{Global, prompt};
use crate::api::page::Page;
use crate::api::people::{AddKey, Person, SentSecret, SetOrganisation, SetRoles};
use crate::api::targets::{SetCredential, Target};
use crate::api::templates::Template;

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// The file that says what is to be, as `sallyport export` writes it; `-` is standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    file: PathBuf,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Disable people and targets that the file does not name, and remove templates if it names any
    #[arg(long)]
    prune: bool,
}

/// One change, for scripts.
#[derive(Debug, Serialize)]
struct Shown {
    what: String,
    changes: Vec<String>,
}

pub(crate) async fn export(global: &Global) -> Result<(), Failure> {
    let (people, targets, templates) = what_is(&global.client()?).await?;
    output::text(&file::export(&people, &targets, &templates)?)
}

pub(crate) async fn apply(args: ApplyArgs, global: &Global) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let shown = args.file.display();
    let wanted = file::parse(&text).map_err(|error| Failure::usage(format!("`{shown}`: {error}")))?;
    let client = global.client()?;
    let (people, targets, templates) = what_is(&client).await?;
    let folder = args.file.parent().map(Path::to_owned).unwrap_or_default();
    let secret = |target: &TargetName, login: &Login, kind| secret(&wanted, &folder, target, login, kind);
    let plan = Plan::make(&wanted, &people, &targets, &templates, args.prune, &secret)
        .map_err(|error| Failure::usage(format!("`{shown}`: {error}")))?;

    show(global, &plan)?;
    if plan.steps.is_empty() || args.dry_run {
        return Ok(());
    }
    if !global.prompt().confirm(&format!("Make {}?", changes(plan.steps.len())))? {
        return Err(Failure::text(FailureKind::Failed, "nothing was changed: it was not confirmed"));
    }
    for (done, planned) in plan.steps.iter().enumerate() {
        if let Err(failure) = take(&client, &planned.step).await {
            let context = format!(
                "{done} of {} were made; then this one failed: {} ({})",
                changes(plan.steps.len()),
                planned.what,
                planned.changes.join("; ")
            );
            return Err(Failure::new(failure.kind, failure.error.context(context))
                .hint("mend what is wrong and run it again: it makes what is left"));
        }
    }
    output::note(format!("{} made", changes(plan.steps.len())));
    Ok(())
}

fn changes(count: usize) -> String {
    if count == 1 { "1 change".to_owned() } else { format!("{count} changes") }
}

/// Everybody, every target, and every template.
async fn what_is(client: &Client) -> Result<(Vec<Person>, Vec<Target>, Vec<Template>), Failure> {
    let people: Page<Person> = client.list(&["people"], &[], usize::MAX).await?;
    let targets: Page<Target> = client.list(&["targets"], &[], usize::MAX).await?;
    let templates: Page<Template> = client.list(&["templates"], &[], usize::MAX).await?;
    Ok((people.items, targets.items, templates.items))
}

fn show(global: &Global, plan: &Plan) -> Result<(), Failure> {
    if global.format() != Format::Table {
        let shown = |planned: &Planned| Shown { what: planned.what.clone(), changes: planned.changes.clone() };
        let items = plan.steps.iter().map(shown).collect();
        return output::list(global.format(), &Page { items, next: None }, COLUMNS);
    }
    let mut last = "";
    for planned in &plan.steps {
        if planned.what != last {
            output::line(&planned.what)?;
        }
        for change in &planned.changes {
            output::line(&format!("    {change}"))?;
        }
        last = &planned.what;
    }
    match plan.steps.len() {
        0 => output::note("nothing to change"),
        count => output::note(changes(count)),
    }
    if !plan.unnamed.is_empty() {
        let unnamed = plan.unnamed.join(", ");
        output::note(format!(
            "not in the file, and left as they are (`--prune` disables people and targets, and removes templates): {unnamed}"
        ));
    }
    Ok(())
}

const COLUMNS: &[output::Column<Shown>] = &[
    output::column("What", |shown: &Shown| shown.what.clone()),
    output::column("Changes", |shown: &Shown| shown.changes.join("; ")),
];

async fn take(client: &Client, step: &Step) -> Result<(), Failure> {
    match step {
        Step::AddPerson(body) => client.post::<Person>(&["people"], body).await.map(drop),
        Step::SetOrganisation(name, organisation) => {
            let body = SetOrganisation { organisation: organisation.trim().to_owned() };
            client.put::<Person>(&["people", name.as_str(), "organisation"], &body).await.map(drop)
        }
        Step::SetRoles(name, roles) => {
            let body = SetRoles { roles: roles.clone() };
            client.put::<Person>(&["people", name.as_str(), "roles"], &body).await.map(drop)
        }
        Step::AddKey(name, key) => {
            let body = AddKey { public_key: key.clone() };
            client.post::<Person>(&["people", name.as_str(), "keys"], &body).await.map(drop)
        }
        Step::RemoveKey(name, fingerprint) => {
            client.delete::<Person>(&["people", name.as_str(), "keys", fingerprint]).await.map(drop)
        }
        Step::DisablePerson(name) => client.act::<Person>(&["people", name.as_str(), "disable"]).await.map(drop),
        Step::EnablePerson(name) => client.act::<Person>(&["people", name.as_str(), "enable"]).await.map(drop),
        Step::AddTarget(body) => client.post::<Target>(&["targets"], body).await.map(drop),
        Step::ChangeTarget(name, body) => client.patch::<Target>(&["targets", name.as_str()], body).await.map(drop),
        Step::DisableTarget(name) => client.act::<Target>(&["targets", name.as_str(), "disable"]).await.map(drop),
        Step::EnableTarget(name) => client.act::<Target>(&["targets", name.as_str(), "enable"]).await.map(drop),
        Step::MakeTemplate(body) => client.post::<Template>(&["templates"], body).await.map(drop),
        Step::SetTemplate(name, body) => client.put::<Template>(&["templates", name.as_str()], body).await.map(drop),
        Step::RemoveTemplate(name) => client.delete::<Template>(&["templates", name.as_str()]).await.map(drop),
    }
}

/// The file's text, of a bounded length.
fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::from(anyhow::Error::new(error).context(format!("cannot read `{}`", path.display())))
    };
    let mut text = String::new();
    let input: Box<dyn std::io::Read> = match path.as_os_str().as_encoded_bytes() {
        b"-" => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(cannot)?),
    };
    input.take(file::MOST_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > file::MOST_BYTES {
        return Err(Failure::usage(format!("`{}` is longer than {} MiB", path.display(), file::MOST_BYTES >> 20)));
    }
    Ok(text)
}

/// The credential that an account's `file` holds, if it names one; relative to the folder of the file that names it.
fn secret(
    wanted: &Access,
    folder: &Path,
    target: &TargetName,
    login: &Login,
    kind: CredentialKind,
) -> Result<Option<SetCredential>, String> {
    let account = wanted.targets.get(target).and_then(|target| target.logins.as_ref()?.get(login));
    let Some(path) = account.and_then(|account| account.file.as_ref()) else { return Ok(None) };
    let place = format!("login `{login}` of target `{target}`");
    let path = folder.join(path);
    let told = |failure: Failure| format!("{place}: {:#}", failure.error);
    match kind {
        CredentialKind::Certificate => Err(format!("{place}: a certificate takes no `file`")),
        CredentialKind::Key => {
            let private_key = SentSecret::new(prompt::whole_file(&path).map_err(told)?);
            Ok(Some(SetCredential::Key { private_key }))
        }
        CredentialKind::Password => {
            let password = SentSecret::new(prompt::secret_file(&path).map_err(told)?);
            Ok(Some(SetCredential::Password { password }))
        }
    }
}
