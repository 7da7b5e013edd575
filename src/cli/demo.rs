//! `sallyport demo`: a bastion to try. SQLite and a folder in a temporary place, a toy target inside this process that
//! runs a real shell, a person with a key, and a grant for a quarter of an hour.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::Actor;
use sallyport_domain::files::FileRules;
use sallyport_domain::grant::{Approval, Capabilities, Forwarding, Terms, Window};
use sallyport_domain::name::Login;
use sallyport_domain::principal::Role;
use sallyport_domain::secret::PrincipalPassword;
use sallyport_domain::target::{HostKey, HostKeyTrust};

use super::failure::{Failure, FailureKind};
use super::serve::{Bastion, Signals};
use crate::app::clock::Clock;
use crate::app::keys::{self, Purpose};
use crate::app::known_hosts;
use crate::app::sign_in::PublicUrl;
use crate::app::{App, grants, people, targets};
use crate::config::Config;
use crate::telemetry;
use crate::toy_target::{self, ToyTarget};

/// How long the demo's grant lasts. Short enough to see the warnings, and the end.
const GRANT: Duration = Duration::from_secs(15 * 60);

/// Who signs in to the web app.
const ADMIN: &str = "admin";

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The port to listen on; a free one where it is left out
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    port: u16,
    /// The port of the web app; a free one where it is left out
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    web_port: u16,
    /// How long the grant lasts
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    lasting: Duration,
}

impl Default for DemoArgs {
    fn default() -> Self {
        Self { port: 0, web_port: 0, lasting: GRANT }
    }
}

pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let shown = show(args).await;
    shown.map_err(|error| Failure::text(FailureKind::Failed, format!("{error:#}")))
}

async fn show(args: DemoArgs) -> anyhow::Result<()> {
    let folder =
        tempfile::Builder::new().prefix("sallyport-demo-").tempdir().context("cannot make a temporary folder")?;
    let place = folder.path();
    let config = configuration(place, args.port, args.web_port)?;
    let _no_traces = telemetry::start(&config.log, &config.traces, &config.node())?;
    let bastion = Bastion::start(config, Clock::system()).await?;
    let app = bastion.app();

    let user_ca = keys::bastion_key(app, Purpose::UserCa).await?;
    let user_ca = PublicKey::from_openssh(&user_ca.public_key).context("the user CA cannot be read")?;
    let settings = toy_target::Settings { user_cas: vec![user_ca], ..toy_target::Settings::default() };
    let toy = ToyTarget::start(settings).await.context("cannot start the toy target")?;

    let login = account();
    furnish(app, place, &toy, &login, args.lasting).await?;
    let password = add_admin(app).await?;
    let host_key = bastion.host_key();
    let ssh_address = bastion.ssh_address();
    let key_line = host_key.to_openssh().context("cannot write the host key")?;
    let known = known_hosts::bastion("127.0.0.1", ssh_address.port(), &key_line);
    std::fs::write(place.join("known_hosts"), known + "\n").context("cannot write `known_hosts`")?;

    explain(place, ssh_address, &login, &host_key.fingerprint(HashAlg::Sha256).to_string(), args.lasting);
    if let Some(((_, fingerprint), url)) = bastion.web().zip(bastion.public_url()) {
        explain_web(url, fingerprint, &password);
    }
    Signals::listen()?.next().await;
    eprintln!("\nThe demo ends; `{}` goes with it.", place.display());
    bastion.stop().await;
    toy.stop().await;
    Ok(())
}

fn configuration(place: &Path, port: u16, web_port: u16) -> anyhow::Result<Config> {
    let text = format!(
        "[server]\ndata_dir = {:?}\nnode = \"demo\"\n[ssh]\nlisten = \"127.0.0.1:{port}\"\npublic_host = \"127.0.0.1\"\n\
         [api]\nhttps_listen = \"127.0.0.1:{web_port}\"\n[log]\nlevel = \"warn\"\n",
        place.join("data")
    );
    // The environment is left out: a demo must not meet somebody's database.
    Ok(Config::parse(&text, [])?)
}

/// The account that runs this program, as a login; the toy target runs everything as that, whatever it is called.
fn account() -> Login {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let name = user.map(|user| user.name).and_then(|name| name.parse().ok());
    name.unwrap_or_else(|| "demo".parse().unwrap_or_else(|_| unreachable!("`demo` is a login")))
}

/// Adds the person, the target and the grant.
async fn furnish(app: &App, place: &Path, toy: &ToyTarget, login: &Login, lasting: Duration) -> anyhow::Result<()> {
    let actor = Actor::Operator { uid: nix::unistd::geteuid().as_raw() };
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).context("cannot make a key")?;
    key.write_openssh_file(place.join("id_ed25519"), LineEnding::LF).context("cannot write the key")?;
    let public = key.public_key().to_openssh().context("cannot write the key")?;
    let person = people::NewPerson {
        name: "alice".parse()?,
        organisation: Some("Example vendor".to_owned()),
        roles: vec![Role::Engineer],
        keys: vec![public.parse()?],
        password: None,
    };
    people::add(app, &actor, person).await?;
    let host_key = toy.host_key().to_openssh().context("cannot read the toy target's host key")?;
    let target = targets::NewTarget {
        name: "toy".parse()?,
        aliases: Vec::new(),
        address: toy.address().to_string().parse()?,
        jump: None,
        logins: vec![(login.clone(), targets::Credential::Certificate)],
        labels: [("env".to_owned(), "demo".to_owned())].into(),
        host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: host_key }],
    };
    targets::add(app, &actor, target).await?;
    let now = app.clock.now();
    let terms = Terms {
        targets: vec!["toy".parse()?],
        logins: vec![login.clone()],
        capabilities: Capabilities { shell: true, exec: true, upload: true, download: true, forwards: Vec::new() },
        source_networks: Vec::new(),
        max_sessions: None,
        second_factor: false,
        approval: Approval::None,
        files: FileRules::default(),
        commands: CommandRules::default(),
        forwarding: Forwarding::default(),
        review: None,
    };
    let window = Window::new(now, now + lasting)?;
    let grant = grants::NewGrant {
        people: vec!["alice".parse()?],
        terms,
        window,
        reason: "to try Sallyport".to_owned(),
        ticket: None,
    };
    grants::make(app, &actor, grant).await?;
    Ok(())
}

/// Adds somebody for the web app, who may see and do everything in it; gives their password.
async fn add_admin(app: &App) -> anyhow::Result<String> {
    let password = format!("{:032x}", rand::random::<u128>());
    let person = people::NewPerson {
        name: ADMIN.parse()?,
        organisation: Some("Example client".to_owned()),
        roles: vec![Role::Admin, Role::Reviewer],
        keys: Vec::new(),
        password: Some(PrincipalPassword::new(password.as_str())),
    };
    let actor = Actor::Operator { uid: nix::unistd::geteuid().as_raw() };
    people::add(app, &actor, person).await?;
    Ok(password)
}

fn explain_web(url: &PublicUrl, fingerprint: &str, password: &str) {
    println!(
        "
The web app is at {url}/ for {ADMIN}, with the password {password}
Its certificate was made just now, so the browser asks; the SHA-256 fingerprint is
{fingerprint}"
    );
}

fn explain(place: &Path, address: SocketAddr, login: &Login, fingerprint: &str, lasting: Duration) {
    let program = std::env::current_exe().map_or_else(|_| "sallyport".to_owned(), |path| path.display().to_string());
    let folder = place.display();
    let port = address.port();
    let host = Ipv4Addr::LOCALHOST;
    let minutes = lasting.as_secs().div_ceil(60);
    println!(
        "Sallyport is up, with one person (alice), one target (toy: a shell on this machine) and a grant for {minutes} minutes.

1. In another terminal, go in as alice:

     ssh -p {port} -i {folder}/id_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile={folder}/known_hosts alice+{login}@toy@{host}

   The host key is {fingerprint}. Try vim, top, a resize, a password prompt.

2. See what was done:

     export SALLYPORT_SOCKET={folder}/data/sallyport.sock
     {program} session ls
     {program} session play SESSION

3. Take the access back while somebody is in, and see the session end:

     {program} grant ls
     {program} grant revoke GRANT --reason 'that was enough'

Ctrl-C ends the demo and removes {folder}."
    );
}
