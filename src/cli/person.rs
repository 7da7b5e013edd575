//! `sallyport person`: people who log in, and their keys.

use std::path::PathBuf;

use clap::Subcommand;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Role;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Column, Format, column};
use super::{Global, invite, oidc, passkey, prompt, totp, when};
use crate::api::page::Page;
use crate::api::people::{AddKey, AddPerson, Person, SentSecret, SetOrganisation, SetPassword, SetRoles};
use crate::api::sign_in::{SignedOut, WebSession};

#[derive(Debug, Subcommand)]
pub(crate) enum PersonCommand {
    /// Add a person
    Add(AddArgs),
    /// List people
    Ls,
    /// Show one person with their keys
    Show { name: PrincipalName },
    /// Add and remove public keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Set or take away the password
    Password(PasswordArgs),
    /// Verification codes that logins ask for besides
    #[command(subcommand)]
    Totp(totp::TotpCommand),
    /// Key pairs in people's devices, for the web app
    #[command(subcommand)]
    Passkey(passkey::PasskeyCommand),
    /// Who people are at the identity provider
    #[command(subcommand)]
    Oidc(oidc::OidcCommand),
    /// Make a link, shown once, by which a person gives their first key or makes a passkey
    Invite(invite::InviteArgs),
    /// List a person's invites
    Invites { name: PrincipalName },
    /// List the browsers in which a person is signed in
    Browsers { name: PrincipalName },
    /// Sign a person out of every browser
    SignOut { name: PrincipalName },
    /// Set the roles
    Role {
        name: PrincipalName,
        /// All of them: engineer, admin, reviewer, auditor
        #[arg(required = true)]
        roles: Vec<Role>,
    },
    /// Set whom the person works for; an empty text takes it away
    Organisation { name: PrincipalName, organisation: String },
    /// No login from now on; live sessions are cut
    Disable { name: PrincipalName },
    /// Let a disabled person in again
    Enable { name: PrincipalName },
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// What the person is called here, and in the user name of `ssh`: `li.wei`
    name: PrincipalName,
    /// A public key: a file such as `id_ed25519.pub` (every line of it), or the line itself
    #[arg(long = "key", value_name = "FILE|LINE")]
    keys: Vec<String>,
    /// Whom the person works for
    #[arg(long, value_name = "NAME")]
    organisation: Option<String>,
    /// The parts that the person plays: engineer, admin, reviewer, auditor
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', default_value = "engineer")]
    roles: Vec<Role>,
    /// Ask for a password
    #[arg(long)]
    password: bool,
    /// A file whose first line is the password; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add public keys
    Add {
        name: PrincipalName,
        /// A file such as `id_ed25519.pub` (every line of it), or the line itself; `-` is standard input
        #[arg(required = true, value_name = "FILE|LINE")]
        keys: Vec<String>,
    },
    /// Remove a public key
    Rm {
        name: PrincipalName,
        /// As `person show` prints it: `SHA256:…`
        fingerprint: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PasswordArgs {
    name: PrincipalName,
    /// A file whose first line is the password; `-` is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Take the password away: keys only
    #[arg(long, conflicts_with = "password_file")]
    remove: bool,
}

const COLUMNS: &[Column<Person>] = &[
    column("Name", |person| person.name.to_string()),
    column("Organisation", |person| person.organisation.clone().unwrap_or_default()),
    column("Roles", |person| words(&person.roles)),
    column("Keys", |person| person.keys.len().to_string()),
    column("Password", |person| if person.has_password { "yes" } else { "no" }.to_owned()),
    column("Code", |person| if person.has_second_factor { "yes" } else { "no" }.to_owned()),
    column("State", |person| state(person).to_owned()),
];

const BROWSERS: &[Column<WebSession>] = &[
    column("Id", |session| session.id.to_string()),
    column("From", |session| session.address.clone()),
    column("Since", |session| when::local(session.created_at)),
    column("Last seen", |session| when::local(session.last_seen_at)),
    column("Browser", |session| session.browser.clone()),
];

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")
}

fn state(person: &Person) -> &'static str {
    if person.disabled_at.is_some() { "disabled" } else { "enabled" }
}

fn show(global: &Global, person: &Person) -> Result<(), Failure> {
    let keys = person.keys.iter().map(|key| {
        let algorithm = key.public_key.split(' ').next().unwrap_or_default();
        let used = key.last_used_at.map_or("never used".to_owned(), |at| format!("last used {}", when::local(at)));
        // A newline in a comment would make two lines of one key.
        format!("{} {algorithm} {} ({used})", key.fingerprint, output::printable(&key.comment))
    });
    let keys = keys.collect::<Vec<_>>().join("\n");
    output::one(
        global.format(),
        person,
        &[
            ("Name", person.name.to_string()),
            ("Id", person.id.to_string()),
            ("Organisation", person.organisation.clone().unwrap_or_default()),
            ("Roles", words(&person.roles)),
            ("State", state(person).to_owned()),
            ("Password", if person.has_password { "yes" } else { "no" }.to_owned()),
            ("Second factor", if person.has_second_factor { "verification code" } else { "none" }.to_owned()),
            ("Keys", if keys.is_empty() { "none".to_owned() } else { keys }),
            ("Added", when::local(person.created_at)),
        ],
    )
}

/// After a change: a sentence for people, the whole thing for scripts.
fn changed(global: &Global, person: &Person, sentence: &str) -> Result<(), Failure> {
    output::note(sentence);
    if global.format() == Format::Table { Ok(()) } else { show(global, person) }
}

/// The lines of public keys that the arguments mean. A line has a space in it, and a file's name seldom does.
pub(crate) fn key_lines(arguments: &[String]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for argument in arguments {
        let is_line =
            ["ssh-", "ecdsa-", "sk-"].iter().any(|start| argument.starts_with(start)) && argument.contains(' ');
        if is_line {
            lines.push(argument.clone());
            continue;
        }
        let text = prompt::whole_file(argument.as_ref())?;
        if text.contains("PRIVATE KEY") {
            return Err(Failure::usage(format!("`{argument}` is a private key, which must not leave its owner"))
                .hint(format!("use `{argument}.pub`")));
        }
        let found: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        if found.is_empty() {
            return Err(Failure::usage(format!("`{argument}` holds no public key")));
        }
        lines.extend(found.into_iter().map(str::to_owned));
    }
    Ok(lines)
}

fn password(global: &Global, name: &PrincipalName, file: Option<&PathBuf>) -> Result<SentSecret, Failure> {
    match file {
        Some(path) => prompt::secret_file(path).map(SentSecret::new),
        None => global.prompt().new_secret(&format!("Password for {name}"), "`--password-file`").map(SentSecret::new),
    }
}

pub(crate) async fn run(command: PersonCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        PersonCommand::Add(args) => add(&client, args, global).await,
        PersonCommand::Ls => output::list(global.format(), &client.list(&["people"], &[], usize::MAX).await?, COLUMNS),
        PersonCommand::Show { name } => show(global, &client.get(&["people", name.as_str()], &()).await?),
        PersonCommand::Key(KeyCommand::Add { name, keys }) => {
            let mut last = None;
            for public_key in key_lines(&keys)? {
                let person: Person = client.post(&["people", name.as_str(), "keys"], &AddKey { public_key }).await?;
                last = Some(person);
            }
            match last {
                Some(person) => changed(global, &person, &format!("{name} has {} keys", person.keys.len())),
                None => Ok(()),
            }
        }
        PersonCommand::Key(KeyCommand::Rm { name, fingerprint }) => {
            let person: Person = client.delete(&["people", name.as_str(), "keys", &fingerprint]).await?;
            changed(global, &person, &format!("{name} has {} keys", person.keys.len()))
        }
        PersonCommand::Password(args) if args.remove => {
            let person: Person = client.delete(&["people", args.name.as_str(), "password"]).await?;
            changed(global, &person, &format!("{} has no password now", args.name))
        }
        PersonCommand::Password(args) => {
            let body = SetPassword { password: password(global, &args.name, args.password_file.as_ref())? };
            let person: Person = client.put(&["people", args.name.as_str(), "password"], &body).await?;
            changed(global, &person, &format!("{} has a new password", args.name))
        }
        PersonCommand::Totp(command) => totp::run(&client, command, global).await,
        PersonCommand::Passkey(command) => passkey::run(&client, command, global).await,
        PersonCommand::Oidc(command) => oidc::run(&client, command, global).await,
        PersonCommand::Invite(args) => invite::run(&client, args, global).await,
        PersonCommand::Invites { name } => invite::list(&client, &name, global).await,
        PersonCommand::Browsers { name } => {
            let items: Vec<WebSession> = client.get(&["people", name.as_str(), "web-sessions"], &()).await?;
            output::list(global.format(), &Page { items, next: None }, BROWSERS)
        }
        PersonCommand::SignOut { name } => {
            let out: SignedOut = client.delete(&["people", name.as_str(), "web-sessions"]).await?;
            output::note(format!("{name} is signed out of {} browsers", out.browsers));
            if global.format() == Format::Table {
                return Ok(());
            }
            output::one(global.format(), &out, &[("Browsers", out.browsers.to_string())])
        }
        PersonCommand::Role { name, roles } => {
            let person: Person = client.put(&["people", name.as_str(), "roles"], &SetRoles { roles }).await?;
            changed(global, &person, &format!("{name} is {}", words(&person.roles)))
        }
        PersonCommand::Organisation { name, organisation } => {
            let body = SetOrganisation { organisation };
            let person: Person = client.put(&["people", name.as_str(), "organisation"], &body).await?;
            let organisation = person.organisation.as_deref().unwrap_or("nobody");
            changed(global, &person, &format!("{name} works for {organisation}"))
        }
        PersonCommand::Disable { name } => {
            let person: Person = client.act(&["people", name.as_str(), "disable"]).await?;
            changed(global, &person, &format!("{name} is disabled; live sessions are being cut"))
        }
        PersonCommand::Enable { name } => {
            let person: Person = client.act(&["people", name.as_str(), "enable"]).await?;
            changed(global, &person, &format!("{name} is enabled"))
        }
    }
}

async fn add(client: &Client, args: AddArgs, global: &Global) -> Result<(), Failure> {
    let wants_password = args.password || args.password_file.is_some();
    let password = if wants_password { Some(password(global, &args.name, args.password_file.as_ref())?) } else { None };
    let body = AddPerson {
        name: args.name,
        organisation: args.organisation,
        roles: args.roles,
        keys: key_lines(&args.keys)?,
        password,
    };
    let person: Person = client.post(&["people"], &body).await?;
    let next = if person.keys.is_empty() && !person.has_password {
        format!("; they cannot log in yet: sallyport person invite {0}, or person key add {0} FILE", person.name)
    } else {
        format!("; next: sallyport grant new {} TARGET --for 2h --reason …", person.name)
    };
    changed(global, &person, &format!("added {}{next}", person.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_not_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();

        let failure = key_lines(&[file.path().display().to_string()]).unwrap_err();

        assert!(failure.error.to_string().contains("is a private key"), "{failure:?}");
    }

    #[test]
    fn a_key_is_a_line_or_every_line_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# mine\nssh-ed25519 AAAA a\n\nssh-rsa BBBB b\n").unwrap();
        let arguments = ["ssh-ed25519 CCCC c".to_owned(), file.path().display().to_string()];

        let lines = key_lines(&arguments).unwrap();

        assert_eq!(lines, ["ssh-ed25519 CCCC c", "ssh-ed25519 AAAA a", "ssh-rsa BBBB b"]);
    }
}
