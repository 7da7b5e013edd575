//! `sallyport target`: hosts that are reached, their accounts and their pinned host keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::target::{Address, HostKeyTrust};

use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::output::{self, Column, Format, column};
use super::{Global, prompt, when};
use crate::api::page::Page;
use crate::api::people::SentSecret;
use crate::api::rotations::{RotateTarget, RotatedLogin, RotationSchedule, ScheduleRotation};
use crate::api::targets::{
    AddTarget, ChangeTarget, HostKey, LoginRotation, PinHostKey, ScanTarget, ScannedKeys, SetCredential, SetLogin,
    Target, TargetLogin,
};

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Add a host; its host keys are fetched and shown for confirmation
    Add(AddArgs),
    /// List hosts
    Ls,
    /// Show one host
    Show { name: TargetName },
    /// Change address, names, way, labels or accounts
    Set(SetArgs),
    /// Pin other host keys, after the host was set up anew
    Repin(RepinArgs),
    /// Replace the stored keys that the bastion logs in with: new one in, proved; old one out, proved dead
    Rotate(RotateArgs),
    /// Nobody reaches it from now on; live sessions are cut
    Disable { name: TargetName },
    /// Let a disabled host be reached again
    Enable { name: TargetName },
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// What the host is called here, and in the user name of `ssh`: `web-1`
    name: TargetName,
    /// `host` or `host:port`; the name itself where it is left out
    address: Option<Address>,
    #[command(flatten)]
    logins: LoginArgs,
    /// Another name for it
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<TargetName>,
    /// A label, for grants to many hosts: `env=prod`
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The target through which this one is reached
    #[arg(long, value_name = "TARGET")]
    jump: Option<TargetName>,
    #[command(flatten)]
    keys: HostKeyArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// An account on the host
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',', default_value = "root")]
    logins: Vec<Login>,
    /// What the bastion proves itself with there: `certificate` (the host trusts `sallyport ca user`), `key:FILE`, or
    /// `password`, which is asked for
    #[arg(long, value_name = "KIND", default_value = "certificate")]
    credential: CredentialArg,
    /// A file whose first line is the password; `-` is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HostKeyArgs {
    /// A host key that is known already, as in `known_hosts` (algorithm and base64), or a `.pub` file; nothing is fetched
    #[arg(long = "host-key", value_name = "FILE|LINE")]
    host_keys: Vec<String>,
    /// The key of an authority that signs the host's key, as a `.pub` file or a line; nothing is fetched
    #[arg(long = "host-authority", value_name = "FILE|LINE")]
    host_authorities: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct SetArgs {
    name: TargetName,
    #[arg(long, group = "change")]
    address: Option<Address>,
    /// Another name for it; those that are given here are all
    #[arg(long = "alias", value_name = "NAME", group = "change")]
    aliases: Vec<TargetName>,
    /// Take its other names away
    #[arg(long, group = "change", conflicts_with = "aliases")]
    no_aliases: bool,
    /// The target through which this one is reached
    #[arg(long, value_name = "TARGET", group = "change")]
    jump: Option<TargetName>,
    /// Reach it directly, not through another
    #[arg(long, group = "change", conflicts_with = "jump")]
    direct: bool,
    /// A label to set: `env=prod`
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, group = "change")]
    labels: Vec<(String, String)>,
    /// A label to take away
    #[arg(long = "no-label", value_name = "KEY", group = "change")]
    no_labels: Vec<String>,
    /// The accounts, all of them, with `--credential`
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',', group = "change", requires = "credential")]
    logins: Vec<Login>,
    /// `certificate`, `key:FILE` or `password`
    #[arg(long, value_name = "KIND", requires = "logins")]
    credential: Option<CredentialArg>,
    /// A file whose first line is the password; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "credential")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RepinArgs {
    name: TargetName,
    #[command(flatten)]
    keys: HostKeyArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    name: TargetName,
    /// The account; every one with a stored key where it is left out
    #[arg(long)]
    login: Option<Login>,
    /// The account's file of keys at the target, from its home on
    #[arg(long, value_name = "PATH", default_value = ".ssh/authorized_keys")]
    authorized_keys: String,
    /// Not now, but again and again: each time the key is so old
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "login", conflicts_with = "never")]
    every: Option<std::time::Duration>,
    /// Not again and again any more
    #[arg(long, requires = "login")]
    never: bool,
}

/// `--credential`
#[derive(Debug, Clone, PartialEq, Eq)]
enum CredentialArg {
    Certificate,
    Key(PathBuf),
    Password,
}

impl FromStr for CredentialArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "certificate" => Ok(CredentialArg::Certificate),
            None if text == "password" => Ok(CredentialArg::Password),
            Some(("key", file)) if !file.is_empty() => Ok(CredentialArg::Key(file.into())),
            // What stands after `password:` is not repeated: it is likely the password.
            _ => Err("write `certificate`, `key:FILE` or `password`".to_owned()),
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as `key=value`".to_owned()),
    }
}

const COLUMNS: &[Column<Target>] = &[
    column("Name", |target| target.name.to_string()),
    column("Address", |target| target.address.to_string()),
    column("Logins", |target| logins(target, ",")),
    column("Labels", |target| labels(&target.labels)),
    column("Via", |target| target.jump.as_ref().map(ToString::to_string).unwrap_or_default()),
    column("State", |target| state(target).to_owned()),
];

fn logins(target: &Target, separator: &str) -> String {
    target.logins.iter().map(|account| account.login.to_string()).collect::<Vec<_>>().join(separator)
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn state(target: &Target) -> &'static str {
    if target.disabled_at.is_some() { "disabled" } else { "enabled" }
}

fn host_keys(keys: &[HostKey]) -> String {
    let line = |key: &HostKey| {
        let algorithm = key.public_key.split(' ').next().unwrap_or_default();
        let authority = match key.trust {
            HostKeyTrust::Host => "",
            HostKeyTrust::Authority => " (authority)",
        };
        format!("{} {algorithm}{authority}", key.fingerprint)
    };
    keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn show(global: &Global, target: &Target) -> Result<(), Failure> {
    let credential = |account: &TargetLogin| {
        let kind = account.credential.as_str();
        match &account.rotation {
            None => format!("{} ({kind})", account.login),
            Some(LoginRotation { every_s, next_at }) => {
                let every = humantime::format_duration(std::time::Duration::from_secs(*every_s));
                format!("{} ({kind}, replaced every {every}, next {})", account.login, when::local(*next_at))
            }
        }
    };
    output::one(
        global.format(),
        target,
        &[
            ("Name", target.name.to_string()),
            ("Id", target.id.to_string()),
            ("Aliases", target.aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            ("Address", target.address.to_string()),
            ("Via", target.jump.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("Logins", target.logins.iter().map(credential).collect::<Vec<_>>().join("\n")),
            ("Labels", labels(&target.labels)),
            ("Host keys", host_keys(&target.host_keys)),
            ("State", state(target).to_owned()),
            ("Added", when::local(target.created_at)),
        ],
    )
}

/// After a change: a sentence for people, the whole thing for scripts.
fn changed(global: &Global, target: &Target, sentence: &str) -> Result<(), Failure> {
    output::note(sentence);
    if global.format() == Format::Table { Ok(()) } else { show(global, target) }
}

fn credential(
    global: &Global,
    kind: &CredentialArg,
    password_file: Option<&PathBuf>,
    logins: &[Login],
) -> Result<SetCredential, Failure> {
    match (kind, password_file) {
        (CredentialArg::Password, Some(path)) => {
            Ok(SetCredential::Password { password: SentSecret::new(prompt::secret_file(path)?) })
        }
        (_, Some(_)) => Err(Failure::usage("`--password-file` goes with `--credential password`")),
        (CredentialArg::Certificate, None) => Ok(SetCredential::Certificate),
        (CredentialArg::Key(path), None) => {
            let private_key = prompt::whole_file(path)?;
            if !private_key.contains("PRIVATE KEY-----") {
                return Err(Failure::usage(format!("`{}` is not a private key", path.display())));
            }
            Ok(SetCredential::Key { private_key: SentSecret::new(private_key) })
        }
        (CredentialArg::Password, None) => {
            let names = logins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let password =
                global.prompt().new_secret(&format!("Password of {names} on the target"), "`--password-file`")?;
            Ok(SetCredential::Password { password: SentSecret::new(password) })
        }
    }
}

/// A host key from an option: the line itself, or a file that holds it. A comment after it is dropped.
fn host_key(argument: &str, trust: HostKeyTrust) -> Result<PinHostKey, Failure> {
    let text = if argument.contains(' ') { argument.to_owned() } else { prompt::whole_file(argument.as_ref())? };
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(algorithm), Some(blob)) => Ok(PinHostKey { trust, public_key: format!("{algorithm} {blob}") }),
        _ => Err(Failure::usage(format!("`{argument}` is not a public key (algorithm and base64)"))),
    }
}

impl HostKeyArgs {
    /// The keys to pin: what the options say, or what the host offers and a person confirms.
    async fn keys(
        &self,
        client: &Client,
        global: &Global,
        name: &TargetName,
        address: &Address,
    ) -> Result<Vec<PinHostKey>, Failure> {
        if !self.host_keys.is_empty() || !self.host_authorities.is_empty() {
            let hosts = self.host_keys.iter().map(|argument| host_key(argument, HostKeyTrust::Host));
            let authorities = self.host_authorities.iter().map(|argument| host_key(argument, HostKeyTrust::Authority));
            return hosts.chain(authorities).collect();
        }
        let scanned: ScannedKeys = client.ask(&["targets", "scan"], &ScanTarget { address: address.clone() }).await?;
        output::note(format!("{address} offers these host keys, which nothing proves yet:"));
        for key in &scanned.host_keys {
            output::note(format!("  {}", host_keys(std::slice::from_ref(key))));
        }
        output::note(
            "compare them with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the host itself",
        );
        if !global.prompt().confirm(&format!("Pin them for {name}?"))? {
            return Err(Failure::text(FailureKind::Failed, "nothing was changed: the host keys were not confirmed"));
        }
        Ok(scanned
            .host_keys
            .into_iter()
            .map(|key| PinHostKey { trust: key.trust, public_key: key.public_key })
            .collect())
    }
}

pub(crate) async fn run(command: TargetCommand, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    match command {
        TargetCommand::Add(args) => add(&client, args, global).await,
        TargetCommand::Ls => output::list(global.format(), &client.list(&["targets"], &[], usize::MAX).await?, COLUMNS),
        TargetCommand::Show { name } => show(global, &client.get(&["targets", name.as_str()], &()).await?),
        TargetCommand::Set(args) => set(&client, args, global).await,
        TargetCommand::Repin(args) => repin(&client, args, global).await,
        TargetCommand::Rotate(args) => rotate(&client, args, global).await,
        TargetCommand::Disable { name } => {
            let target: Target = client.act(&["targets", name.as_str(), "disable"]).await?;
            changed(global, &target, &format!("{} is disabled; live sessions are being cut", target.name))
        }
        TargetCommand::Enable { name } => {
            let target: Target = client.act(&["targets", name.as_str(), "enable"]).await?;
            changed(global, &target, &format!("{} is enabled", target.name))
        }
    }
}

async fn add(client: &Client, args: AddArgs, global: &Global) -> Result<(), Failure> {
    let address = match args.address {
        Some(address) => address,
        None => args.name.as_str().parse().map_err(anyhow::Error::from)?,
    };
    let LoginArgs { logins, credential: kind, password_file } = args.logins;
    let credential = credential(global, &kind, password_file.as_ref(), &logins)?;
    let host_keys = args.keys.keys(client, global, &args.name, &address).await?;
    let body = AddTarget {
        name: args.name,
        aliases: args.aliases,
        address,
        jump: args.jump,
        logins: logins.into_iter().map(|login| SetLogin { login, credential: credential.clone() }).collect(),
        labels: args.labels.into_iter().collect(),
        host_keys,
    };
    let target: Target = client.post(&["targets"], &body).await?;
    changed(global, &target, &format!("added {} ({})", target.name, target.address))?;
    if kind == CredentialArg::Certificate {
        output::note("the host must trust the bastion's user CA: `sallyport ca user` prints it and says where it goes");
    }
    Ok(())
}

async fn set(client: &Client, args: SetArgs, global: &Global) -> Result<(), Failure> {
    let labels = if args.labels.is_empty() && args.no_labels.is_empty() {
        None
    } else {
        let target: Target = client.get(&["targets", args.name.as_str()], &()).await?;
        let mut labels = target.labels;
        labels.retain(|key, _| !args.no_labels.contains(key));
        labels.extend(args.labels);
        Some(labels)
    };
    let logins = match &args.credential {
        None => None,
        Some(kind) => {
            let credential = credential(global, kind, args.password_file.as_ref(), &args.logins)?;
            let set = |login| SetLogin { login, credential: credential.clone() };
            Some(args.logins.into_iter().map(set).collect())
        }
    };
    let aliases = (!args.aliases.is_empty() || args.no_aliases).then_some(args.aliases);
    let body = ChangeTarget {
        address: args.address,
        aliases,
        jump: args.jump,
        direct: args.direct,
        labels,
        logins,
        host_keys: None,
    };
    let target: Target = client.patch(&["targets", args.name.as_str()], &body).await?;
    changed(global, &target, &format!("changed {}", target.name))
}

async fn repin(client: &Client, args: RepinArgs, global: &Global) -> Result<(), Failure> {
    let target: Target = client.get(&["targets", args.name.as_str()], &()).await?;
    output::note(format!("pinned now for {}:\n  {}", target.name, host_keys(&target.host_keys).replace('\n', "\n  ")));
    let keys = args.keys.keys(client, global, &target.name, &target.address).await?;
    let body = ChangeTarget { host_keys: Some(keys), ..ChangeTarget::default() };
    let target: Target = client.patch(&["targets", args.name.as_str()], &body).await?;
    changed(global, &target, &format!("pinned {} host keys for {}", target.host_keys.len(), target.name))
}

const ROTATED: &[Column<RotatedLogin>] = &[
    column("Login", |rotated| rotated.login.to_string()),
    column("Key", |rotated| rotated.key.clone().unwrap_or_default()),
    column("Error", |rotated| rotated.error.clone().unwrap_or_default()),
];

async fn rotate(client: &Client, args: RotateArgs, global: &Global) -> Result<(), Failure> {
    let RotateArgs { name, login, authorized_keys, every, never } = args;
    let authorized_keys = Some(authorized_keys);
    if let Some(login) = login.clone().filter(|_| every.is_some() || never) {
        let body = ScheduleRotation { login, every_s: every.map(|every| every.as_secs()), authorized_keys };
        let set: RotationSchedule = client.put(&["targets", name.as_str(), "rotation"], &body).await?;
        let next = set.next_at.map(when::local).unwrap_or_default();
        if global.format() == Format::Table {
            let said = if never {
                "it is replaced by command only".to_owned()
            } else {
                format!("it is replaced next at {next}")
            };
            output::note(said);
            return Ok(());
        }
        return output::one(global.format(), &set, &[("login", set.login.to_string()), ("next_at", next)]);
    }
    let body = RotateTarget { login, authorized_keys };
    let items: Vec<RotatedLogin> = client.ask(&["targets", name.as_str(), "rotate"], &body).await?;
    let failed = items.iter().filter(|rotated| rotated.error.is_some()).count();
    output::list(global.format(), &Page { items, next: None }, ROTATED)?;
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::text(FailureKind::Failed, format!("not every key of `{name}` was replaced wholly"))
        .hint("the same command again: it goes on where it stopped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_named_and_never_given_as_an_argument() {
        assert_eq!("certificate".parse(), Ok(CredentialArg::Certificate));
        assert_eq!("key:id_ed25519".parse(), Ok(CredentialArg::Key("id_ed25519".into())));
        let error = "password:hunter2".parse::<CredentialArg>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
