//! `sallyport init`: the first day. Writes a commented configuration, makes the keys, the tables and the first admin. It overwrites
//! nothing: the configuration is written last, so that what failed half-way can be run again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User, chown};
use sallyport_domain::event::Actor;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Role;
use sallyport_domain::secret::PrincipalPassword;

use super::failure::{Failure, FailureKind};
use super::{Global, config as cli_config, output, person, prompt};
use crate::app::clock::Clock;
use crate::app::keys::{self, Purpose};
use crate::app::people::{self, NewPerson, PeopleError};
use crate::app::{App, ledger};
use crate::config::Config;
use crate::store::blob::Blobs;
use crate::store::db::Db;
use crate::store::seal::MasterKey;

/// Every setting with its words.
const EXAMPLE: &str = include_str!("../../sallyport.example.toml");
/// The account that the packages make.
const USUAL_USER: &str = "sallyport";
/// Where an address with a password goes: beside the configuration, for the service alone.
const ENVIRONMENT_FILE: &str = "sallyport.env";
const DATABASE_VARIABLE: &str = "SALLYPORT__DATABASE__URL";

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The configuration file to write
    #[arg(long, env = "SALLYPORT_CONFIG", value_name = "FILE", default_value = cli_config::USUAL_FILE)]
    config: PathBuf,
    /// Where everything is kept that has no other place
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/sallyport")]
    data_dir: PathBuf,
    /// The name or address that engineers connect to
    #[arg(long, value_name = "HOST")]
    public_host: Option<String>,
    /// Where engineers connect
    #[arg(long, value_name = "ADDRESS:PORT")]
    ssh_listen: Option<SocketAddr>,
    /// Where the web app is; `none` for no web app
    #[arg(long, value_name = "ADDRESS:PORT")]
    web_listen: Option<String>,
    /// `postgres://…` for several nodes; SQLite in the data folder where it is left out
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Any other setting, as in `--set blobs.url=s3://bucket/prefix`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// What the first admin is called
    #[arg(long, value_name = "NAME")]
    admin: Option<PrincipalName>,
    /// The first admin's public key: a file such as `id_ed25519.pub`, or the line itself
    #[arg(long = "admin-key", value_name = "FILE|LINE")]
    admin_keys: Vec<String>,
    /// A file whose first line is the first admin's password, for the web app; `-` is standard input
    #[arg(long, value_name = "FILE")]
    admin_password_file: Option<PathBuf>,
    /// The account that the bastion runs as, to which everything is given [default: `sallyport`, if this is root and there is one]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value))
            if key.split_once('.').is_some_and(|(section, key)| !section.is_empty() && !key.is_empty()) =>
        {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write it as `section.key=value`".to_owned()),
    }
}

/// Settings by their names, `section.key`.
type Pairs = Vec<(String, String)>;

/// The first admin.
struct Admin {
    name: PrincipalName,
    keys: Vec<String>,
    password: Option<String>,
}

pub(crate) async fn run(args: InitArgs, global: &Global) -> Result<(), Failure> {
    let file = args.config.clone();
    if std::fs::symlink_metadata(&file).is_ok() {
        return Err(Failure::text(FailureKind::Conflict, format!("`{}` is there already", file.display()))
            .hint("change it by hand; or move it away to begin anew"));
    }
    let owner = owner(args.user.as_deref())?;
    let (settings, database) = settings(&args, global)?;
    let text = write_down(&settings).map_err(Failure::usage)?;
    let environment = database.iter().map(|url| (DATABASE_VARIABLE.to_owned(), url.clone()));
    let config = Config::parse(&text, environment).map_err(|faults| Failure::usage(faults.to_string()))?;
    let admin = admin(&args, global)?;

    let made = make(&config, admin).await.map_err(|error| {
        Failure::new(FailureKind::Failed, error).hint("mend it and run this again; nothing that was made is made twice")
    })?;
    let written = give_away(&config, owner).and_then(|()| write_files(&file, &text, database.as_deref(), owner));
    written.map_err(|error| Failure::new(FailureKind::Failed, error))?;
    tell(&file, &config, &made, database.is_some());
    Ok(())
}

/// Whom everything is given to, if to anybody else.
fn owner(named: Option<&str>) -> Result<Option<(Uid, Gid)>, Failure> {
    let is_root = nix::unistd::geteuid().is_root();
    let name = match named {
        Some(name) if !is_root => {
            return Err(Failure::usage(format!("only root can give files to `{name}`")).hint("run this as root"));
        }
        Some(name) => name,
        None if is_root => USUAL_USER,
        None => return Ok(None),
    };
    match (User::from_name(name).map_err(anyhow::Error::from)?, named) {
        (Some(user), _) => Ok(Some((user.uid, user.gid))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Failure::usage(format!("there is no user `{name}`"))
            .hint(format!("useradd --system --home-dir /var/lib/sallyport --shell /usr/sbin/nologin {name}"))),
    }
}

/// What is to stand in the file, and the database's address if it holds a password and so stands elsewhere.
fn settings(args: &InitArgs, global: &Global) -> Result<(Pairs, Option<String>), Failure> {
    let asked = |given: Option<String>, question: &str, usual: &str, option: &str| match given {
        Some(given) => Ok::<_, Failure>(given),
        None if global.prompt().can_ask() => {
            let answer = global.prompt().line(&format!("{question} [{usual}]"), option)?;
            Ok(if answer.is_empty() { usual.to_owned() } else { answer })
        }
        None => Ok(usual.to_owned()),
    };
    let machine = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let machine = machine.unwrap_or_else(|| "localhost".to_owned());
    let host = asked(args.public_host.clone(), "The name that engineers connect to", &machine, "`--public-host`")?;
    let ssh = args.ssh_listen.map(|address| address.to_string());
    let ssh = asked(ssh, "Where they connect (address and port)", "0.0.0.0:2222", "`--ssh-listen`")?;
    let web = asked(
        args.web_listen.clone(),
        "Where the web app is (address and port, or `none`)",
        "0.0.0.0:8443",
        "`--web-listen`",
    )?;
    let mut settings = vec![
        ("server.data_dir".to_owned(), args.data_dir.display().to_string()),
        ("ssh.listen".to_owned(), ssh),
        ("ssh.public_host".to_owned(), host),
    ];
    if web != "none" {
        settings.push(("api.https_listen".to_owned(), web));
    }
    let mut aside = None;
    if let Some(url) = &args.database {
        if reqwest::Url::parse(url).is_ok_and(|url| url.password().is_some()) {
            aside = Some(url.clone());
        } else {
            settings.push(("database.url".to_owned(), url.clone()));
        }
    }
    settings.extend(args.settings.iter().cloned());
    Ok((settings, aside))
}

fn admin(args: &InitArgs, global: &Global) -> Result<Admin, Failure> {
    const OPTIONS: &str = "`--admin-key` or `--admin-password-file`";
    let name = match &args.admin {
        Some(name) => name.clone(),
        None if global.prompt().can_ask() => {
            let answer = global.prompt().line("What the first admin is called [admin]", "`--admin`")?;
            let answer = if answer.is_empty() { "admin" } else { &answer };
            answer.parse().map_err(|error| Failure::usage(format!("{error}")))?
        }
        None => "admin".parse().map_err(anyhow::Error::from)?,
    };
    let keys = person::key_lines(&args.admin_keys)?;
    let password = match &args.admin_password_file {
        Some(path) => Some(prompt::secret_file(path)?),
        None if keys.is_empty() => {
            Some(global.prompt().new_secret(&format!("A password for {name}, for the web app"), OPTIONS)?)
        }
        None => None,
    };
    Ok(Admin { name, keys, password })
}

/// The example with these settings in their places.
fn write_down(settings: &[(String, String)]) -> Result<String, String> {
    let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
    for (name, value) in settings {
        let unknown = || format!("there is no setting `{name}`");
        let (section, key) = name.split_once('.').ok_or_else(unknown)?;
        let head = format!("[{section}]");
        let start = lines.iter().position(|line| *line == head).ok_or_else(unknown)?;
        let is_key = |line: &str| {
            let line = line.strip_prefix('#').unwrap_or(line);
            line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" ="))
        };
        let in_section = lines.iter_mut().skip(start + 1).take_while(|line| !line.starts_with('['));
        let line = in_section.into_iter().find(|line| is_key(line)).ok_or_else(unknown)?;
        *line = format!("{key} = {}", as_toml(value));
    }
    Ok(lines.join("\n") + "\n")
}

/// A value as TOML has it: a number, list or truth as it is, all else as text.
fn as_toml(value: &str) -> String {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let is_plain = parsed
        .is_ok_and(|table| table.len() == 1 && !matches!(table.get("value"), None | Some(toml::Value::Datetime(_))));
    if is_plain { value.to_owned() } else { toml::Value::String(value.to_owned()).to_string() }
}

/// What was made.
struct Made {
    master_key: Option<PathBuf>,
    admin: Option<PrincipalName>,
    host_key: String,
}

/// Makes what is not there: folder, master key, tables, keys, admin.
async fn make(config: &Config, admin: Admin) -> anyhow::Result<Made> {
    let data_dir = &config.server.data_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("cannot make the data folder `{}`", data_dir.display()))?;
    let mut master_key = None;
    if let Some(file) = config.own_master_key_file()
        && !file.exists()
    {
        MasterKey::create_file(file).with_context(|| format!("cannot make the master key `{}`", file.display()))?;
        master_key = Some(file.to_owned());
    }
    let master = MasterKey::load(&config.master_key, |name| std::env::var_os(name))?;
    let db = Db::connect(&config.database).await?;
    db.migrate_as(config.database.migrate_url.as_deref()).await?;
    let blobs = Blobs::open(&config.blobs)?;
    let app = App::new(db, blobs, Clock::system(), master);
    ledger::keys::ensure(&app, &config.ledger_name()).await?;
    for purpose in [Purpose::UserCa, Purpose::HostCa, Purpose::TargetKeys] {
        keys::bastion_key(&app, purpose).await?;
    }
    let host_key = keys::bastion_key(&app, Purpose::HostKey).await?.public_key;
    let admin = add_admin(&app, admin).await?;
    app.db.close().await;
    Ok(Made { master_key, admin, host_key })
}

/// Adds the first admin, if nobody is there yet: on a second node, or in a second run, somebody is.
async fn add_admin(app: &App, admin: Admin) -> anyhow::Result<Option<PrincipalName>> {
    if !people::list(app).await?.is_empty() {
        return Ok(None);
    }
    let keys = admin
        .keys
        .iter()
        .map(|line| line.parse())
        .collect::<Result<_, _>>()
        .context("the admin's key is not usable")?;
    let person = NewPerson {
        name: admin.name.clone(),
        organisation: None,
        roles: vec![Role::Admin, Role::Reviewer],
        keys,
        password: admin.password.map(PrincipalPassword::new),
    };
    let actor = Actor::Operator { uid: nix::unistd::getuid().as_raw() };
    people::add(app, &actor, person)
        .await
        .map_err(|error: PeopleError| anyhow::Error::new(error).context("cannot add the admin"))?;
    Ok(Some(admin.name))
}

/// Gives the data folder and all that is in it to the bastion's account.
fn give_away(config: &Config, owner: Option<(Uid, Gid)>) -> anyhow::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    fn walk(path: &Path, uid: Uid, gid: Gid) -> std::io::Result<()> {
        // Links are left: what they point to is not ours.
        if !std::fs::symlink_metadata(path)?.is_symlink() {
            chown(path, Some(uid), Some(gid))?;
            if path.is_dir() {
                for entry in std::fs::read_dir(path)? {
                    walk(&entry?.path(), uid, gid)?;
                }
            }
        }
        Ok(())
    }
    let data_dir = &config.server.data_dir;
    walk(data_dir, uid, gid).with_context(|| format!("cannot give `{}` to the bastion's account", data_dir.display()))
}

/// Writes the configuration, and beside it the address with the password.
fn write_files(file: &Path, text: &str, database: Option<&str>, owner: Option<(Uid, Gid)>) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("cannot make `{}`", folder.display()))?;
    if let Some(url) = database {
        let path = folder.join(ENVIRONMENT_FILE);
        write_new(&path, 0o600, &format!("{DATABASE_VARIABLE}={url}\n"), None)?;
    }
    // Without secrets, but it says where they are.
    write_new(file, 0o640, text, owner.map(|(_, gid)| gid))
}

fn write_new(path: &Path, mode: u32, text: &str, group: Option<Gid>) -> anyhow::Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
    if group.is_some() {
        chown(path, None, group).with_context(cannot)?;
    }
    Ok(())
}

fn tell(file: &Path, config: &Config, made: &Made, has_environment: bool) {
    output::note(format!("wrote `{}`: every setting is in it, with its words", file.display()));
    if has_environment {
        output::note(format!("the database's address is in `{ENVIRONMENT_FILE}` beside it, for the service alone"));
    }
    if let Some(path) = &made.master_key {
        output::note(format!(
            "made `{}`: keep a copy of it in another place; without it nothing that is sealed opens",
            path.display()
        ));
    }
    match &made.admin {
        Some(name) => output::note(format!("added {name}, who may administer and review")),
        None => output::note("there are people already, so no admin was added"),
    }
    output::note(format!("the bastion's host key: {}", made.host_key));
    output::note(format!(
        "next: start it (`systemctl enable --now sallyport`, or `sallyport serve --config {}`), then `sallyport doctor`",
        file.display()
    ));
    if let Some(web) = config.api.https_listen {
        let host = config.ssh.public_host.clone().unwrap_or_else(|| config.node());
        output::note(format!("the web app will be at https://{host}:{}/", web.port()));
    }
    output::note(
        "then: `sallyport ca user` for the targets, `target add`, `person add`, `grant new` (docs/install.md)",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
        settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_stand_in_their_places_and_the_words_stay() {
        let text = write_down(&pairs(&[
            ("server.data_dir", "/srv/sally port"),
            ("ssh.public_host", "bastion.example.com"),
            ("api.https_listen", "[::]:8443"),
            ("api.operators", "[1000]"),
            ("database.max_connections", "3"),
            ("blobs.allow_http", "true"),
            ("ssh.idle_timeout", "2h"),
        ]))
        .unwrap();

        let config = Config::parse(&text, []).unwrap();

        assert_eq!(config.server.data_dir, Path::new("/srv/sally port"));
        assert_eq!(config.ssh.public_host.as_deref(), Some("bastion.example.com"));
        assert_eq!(config.api.https_listen, Some("[::]:8443".parse().unwrap()));
        assert_eq!((&config.api.operators[..], config.database.max_connections), (&[1000][..], 3));
        assert!(config.blobs.allow_http && config.ssh.idle_timeout.is_some());
        assert_eq!(text.lines().count(), EXAMPLE.lines().count());
    }

    #[test]
    fn a_setting_that_is_not_there_is_refused_and_a_value_cannot_bring_lines_of_its_own() {
        for name in ["ssh.speed", "sssh.listen", "log.listen", "listen"] {
            assert!(write_down(&pairs(&[(name, "x")])).is_err(), "{name}");
        }
        let text = write_down(&pairs(&[("ssh.public_host", "a\"\n[api]\noperators = [1]\n#")])).unwrap();
        assert_eq!(Config::parse(&text, []).unwrap().api.operators, [0; 0]);
        let text = write_down(&pairs(&[("database.max_connections", "3\nacquire_timeout = \"1s\"")])).unwrap();
        assert!(Config::parse(&text, []).is_err());
    }
}
