//! `sallyport.toml`, overridden by `SALLYPORT__SECTION__KEY`.
//!
//! [`Config::parse`] is pure and reports every fault at once, each with its key and place. The settings themselves
//! belong to the floors; here they are brought together, and what is left out gets its place in the data folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sallyport_domain::ledger::note::{KeyError, KeyName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

pub use crate::api::ApiSettings;
use crate::api::MetricsSettings;
use crate::app::consents::ConsentSettings;
use crate::app::ledger::anchors::LedgerSettings;
use crate::app::outbox::settings::{DestinationSettings, NotifySettings, double_names};
use crate::app::recordings::RecordingSettings;
use crate::app::recordings::journal::Durability;
use crate::app::requests::RequestSettings;
use crate::app::retention::rules::RetentionSettings;
use crate::app::reviews::ReviewSettings;
use crate::app::sign_in::SignInSettings;
pub use crate::ssh::{Failures, SshSettings};
use crate::store::blob::BlobSettings;
use crate::store::db::DatabaseSettings;
use crate::store::seal::MasterKeySettings;
use crate::telemetry::{LogSettings, TraceSettings};

/// `[server]`: this node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// Where everything is kept that has no other place.
    pub data_dir: PathBuf,
    /// What this node is called among others; the machine's name where it is left out. Two nodes of one name would
    /// each take the other's sessions for their own.
    pub node: Option<String>,
    /// A node that was not heard of for so long is lost: another one closes its sessions in the books.
    #[serde(with = "crate::store::duration")]
    pub dead_after: Duration,
    /// How long a node that is told to end still lets people in while it says that it is not ready, for load balancers to notice.
    #[serde(with = "crate::store::duration")]
    pub drain_wait: Duration,
    /// How long live sessions may go on after that; then they are cut.
    #[serde(with = "crate::store::duration")]
    pub drain_for: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/sallyport"),
            node: None,
            dead_after: Duration::from_secs(15), // well within the half minute after which books are to be closed
            drain_wait: Duration::ZERO,
            drain_for: Duration::from_mins(1), // service managers kill after a minute and a half
        }
    }
}

/// Everything that can be set, complete: what was left out has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub server: ServerSettings,
    pub ssh: SshSettings,
    pub api: ApiSettings,
    pub sign_in: SignInSettings,
    pub database: DatabaseSettings,
    pub blobs: BlobSettings,
    pub recording: RecordingSettings,
    pub requests: RequestSettings,
    pub consent: ConsentSettings,
    pub ledger: LedgerSettings,
    pub retention: RetentionSettings,
    pub review: ReviewSettings,
    pub outbox: Vec<DestinationSettings>,
    pub notify: Vec<NotifySettings>,
    pub metrics: MetricsSettings,
    pub traces: TraceSettings,
    pub master_key: MasterKeySettings,
    pub log: LogSettings,
}

/// Something that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// `ssh.listen`; empty if the file is not TOML.
    pub key: String,
    pub place: Place,
    pub message: String,
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This line of the file, from 1.
    Line(usize),
    /// This environment variable.
    Variable(String),
    /// It is what is missing, or how settings go together.
    Whole,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(line) => write!(f, "line {line}: ")?,
            Place::Variable(name) => write!(f, "environment variable `{name}`: ")?,
            Place::Whole => {}
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every fault that was found, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not usable:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigFaults {}

/// What every environment variable that sets something starts with.
const PREFIX: &str = "SALLYPORT__";

/// Sections that there may be several of, each with `[[…]]` before it. Variables set nothing in them.
const LISTS: [&str; 2] = ["outbox", "notify"];

/// A value with where it came from.
struct Given {
    section: String,
    key: String,
    value: Value,
    place: Place,
}

impl Config {
    /// Reads the file's text and the environment. Variables that do not start with `SALLYPORT__` are not looked at;
    /// the value of one that does is a string, or whatever TOML the key takes.
    pub fn parse(text: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigFaults> {
        let mut faults = Vec::new();
        let mut given = from_file(text, &mut faults);
        from_environment(env, &mut given, &mut faults);

        let mut config = Self {
            server: section("server", &mut given, &mut faults),
            ssh: section("ssh", &mut given, &mut faults),
            api: section("api", &mut given, &mut faults),
            sign_in: section("sign_in", &mut given, &mut faults),
            database: section("database", &mut given, &mut faults),
            blobs: section("blobs", &mut given, &mut faults),
            recording: section("recording", &mut given, &mut faults),
            requests: section("requests", &mut given, &mut faults),
            consent: section("consent", &mut given, &mut faults),
            ledger: section("ledger", &mut given, &mut faults),
            retention: section("retention", &mut given, &mut faults),
            review: section("review", &mut given, &mut faults),
            outbox: list("outbox", &mut given, &mut faults),
            notify: list("notify", &mut given, &mut faults),
            metrics: section("metrics", &mut given, &mut faults),
            traces: section("traces", &mut given, &mut faults),
            master_key: section("master_key", &mut given, &mut faults),
            log: section("log", &mut given, &mut faults),
        };
        for unknown in given {
            let message = "there is no such section (one of server, ssh, api, sign_in, database, blobs, recording, requests, consent, ledger, retention, review, outbox, notify, metrics, traces, master_key, log)";
            let key = format!("{}.{}", unknown.section, unknown.key);
            faults.push(ConfigFault { key, place: unknown.place, message: message.to_owned() });
        }
        config.check(&mut faults);
        config.fill_in();
        if faults.is_empty() { Ok(config) } else { Err(ConfigFaults(faults)) }
    }

    /// What a type cannot say: bounds, and settings that go together.
    fn check(&self, faults: &mut Vec<ConfigFault>) {
        self.check_outbox(faults);
        let mut fault = |key: &str, message: &str| {
            faults.push(ConfigFault { key: key.to_owned(), place: Place::Whole, message: message.to_owned() });
        };
        if !self.server.data_dir.is_absolute() {
            fault("server.data_dir", "must be a whole path, as in `/var/lib/sallyport`");
        }
        let node_is_sound = |node: &String| {
            (1..=64).contains(&node.len()) && node.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !self.server.node.as_ref().is_none_or(node_is_sound) {
            fault("server.node", "must be 1 to 64 letters, digits, `.`, `_` and `-`");
        }
        for (key, number) in [
            ("ssh.max_unauthenticated", self.ssh.max_unauthenticated),
            ("ssh.max_unauthenticated_per_address", self.ssh.max_unauthenticated_per_address),
            ("ssh.max_connections", self.ssh.max_connections),
            ("ssh.max_channels", self.ssh.max_channels),
            ("ssh.max_auth_tries", self.ssh.max_auth_tries),
            ("ssh.failures_per_address.limit", self.ssh.failures_per_address.limit),
            ("ssh.keepalive_max", self.ssh.keepalive_max),
            ("database.max_connections", self.database.max_connections),
            ("requests.max_open", self.requests.max_open),
        ] {
            if number == 0 {
                fault(key, "must be at least 1");
            }
        }
        for (key, time) in [
            ("ssh.login_grace", Some(self.ssh.login_grace)),
            ("ssh.failures_per_address.window", Some(self.ssh.failures_per_address.window)),
            ("ssh.keepalive", Some(self.ssh.keepalive)),
            ("ssh.idle_timeout", self.ssh.idle_timeout),
            ("database.acquire_timeout", Some(self.database.acquire_timeout)),
            ("api.sign_in_idle", Some(self.api.sign_in_idle)),
            ("api.sign_in_longest", Some(self.api.sign_in_longest)),
            ("recording.flush_interval", Some(self.recording.flush_interval)),
            ("recording.ship_interval", Some(self.recording.ship_interval)),
            ("recording.segment_time", Some(self.recording.segment_time)),
            ("requests.expire_after", Some(self.requests.expire_after)),
            ("ledger.anchor_every", Some(self.ledger.anchor_every)),
            ("retention.keep", self.retention.keep),
            ("retention.every", Some(self.retention.every)),
            ("retention.rules", self.retention.rules().shortest()),
            ("consent.wait", Some(self.consent.wait)),
            ("consent.unwatched", Some(self.consent.unwatched)),
        ] {
            if time.is_some_and(|time| time.is_zero()) {
                fault(key, "must be longer than nothing");
            }
        }
        for (key, message) in self.review.faults() {
            fault(&format!("review.{key}"), message);
        }
        if self.server.dead_after < Duration::from_secs(1) {
            fault("server.dead_after", "must be at least 1s");
        }
        // RFC 4253 §9 advises new keys after a gigabyte; below this they would cost more than the bytes.
        if self.ssh.rekey_bytes.as_u64() < 1 << 20 {
            fault("ssh.rekey_bytes", "must be at least 1MiB");
        }
        if self.recording.segment_bytes.as_u64() < 4096 {
            fault("recording.segment_bytes", "must be at least 4KiB");
        }
        if self.api.listen.is_some_and(|address| !address.ip().is_loopback()) {
            fault(
                "api.listen",
                "must be a loopback address: use `https_listen`, or put a proxy that speaks TLS in front",
            );
        }
        if self.api.certificate_file.is_some() != self.api.key_file.is_some() {
            fault("api", "`certificate_file` and `key_file` belong together");
        }
        let MasterKeySettings { file, env, credential, .. } = &self.master_key;
        if [file.is_some(), env.is_some(), credential.is_some()].into_iter().filter(|set| *set).count() > 1 {
            fault("master_key", "only one of `file`, `env` and `credential` may be set");
        }
        for (key, message) in self.sign_in.check() {
            fault(&format!("sign_in.{key}"), message);
        }
        if let Err(message) = self.ledger.check() {
            fault("ledger.anchor_syslog", message);
        }
        if self.blobs.access_key_id.is_some() != self.blobs.secret_access_key_file.is_some() {
            fault("blobs", "`access_key_id` and `secret_access_key_file` belong together");
        }
        for (key, message) in self.traces.faults() {
            fault(&format!("traces.{key}"), message);
        }
        if let Err(message) = self.log.check() {
            fault("log.level", &message);
        }
    }

    /// What a type cannot say of destinations and notifications.
    fn check_outbox(&self, faults: &mut Vec<ConfigFault>) {
        let mut fault = |key: String, message: String| faults.push(ConfigFault { key, place: Place::Whole, message });
        for (number, settings) in self.outbox.iter().enumerate() {
            settings.check().into_iter().for_each(|(key, message)| fault(format!("outbox[{number}].{key}"), message));
        }
        for (number, settings) in self.notify.iter().enumerate() {
            settings.check().into_iter().for_each(|(key, message)| fault(format!("notify[{number}].{key}"), message));
        }
        let names = self.outbox.iter().map(|one| &one.name).chain(self.notify.iter().map(|one| &one.name));
        for name in double_names(names.map(String::as_str)) {
            fault("outbox".to_owned(), format!("the name `{name}` stands twice among `[[outbox]]` and `[[notify]]`"));
        }
    }

    /// Gives what was left out its place in the data folder.
    fn fill_in(&mut self) {
        let place = |name: &str| self.server.data_dir.join(name);
        if self.database.url.is_empty() {
            self.database.url = format!("sqlite:{}", place("sallyport.db").display());
        }
        if self.blobs.url.is_empty() {
            self.blobs.url = format!("file:{}", place("blobs").display());
        }
        if self.recording.journal_dir.as_os_str().is_empty() {
            self.recording.journal_dir = place("journal");
        }
        let MasterKeySettings { file, env, credential, .. } = &mut self.master_key;
        if file.is_none() && env.is_none() && credential.is_none() {
            *file = Some(self.server.data_dir.join("master.key"));
        }
        self.api.socket.get_or_insert_with(|| self.server.data_dir.join("sallyport.sock"));
    }

    /// What this node is called: as set, or as the machine is.
    pub fn node(&self) -> String {
        let machine = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        self.server.node.clone().or_else(machine).unwrap_or_else(|| "sallyport".to_owned())
    }

    /// What a new ledger is called: after the name that engineers connect to. A ledger that exists keeps its name.
    pub fn ledger_name(&self) -> KeyName {
        let host = self.ssh.public_host.clone().unwrap_or_else(|| self.node());
        // A host's name has no white space and no `+`; should it, the ledger goes by the program's.
        let name = format!("{host}/ledger").parse().or_else(|_| "sallyport/ledger".parse());
        name.unwrap_or_else(|_: KeyError| unreachable!("a name without white space is a name"))
    }

    /// The settings that decide what is recorded and what ends a session, for manifests.
    pub fn in_force(&self) -> BTreeMap<String, String> {
        let RecordingSettings {
            durability,
            flush_interval,
            segment_bytes,
            segment_time,
            stdin_budget,
            backlog_budget,
            recipients,
            ..
        } = &self.recording;
        let time = |time: &Duration| humantime::format_duration(*time).to_string();
        let durability = match durability {
            Durability::Process => "process",
            Durability::Power => "power",
        };
        let settings = [
            ("recording.durability", durability.to_owned()),
            ("recording.flush_interval", time(flush_interval)),
            ("recording.segment_bytes", segment_bytes.as_u64().to_string()),
            ("recording.segment_time", time(segment_time)),
            ("recording.stdin_budget", stdin_budget.as_u64().to_string()),
            ("recording.backlog_budget", backlog_budget.as_u64().to_string()),
            ("recording.recipients", recipients.as_slice().join(" ")),
            ("ssh.idle_timeout", self.ssh.idle_timeout.as_ref().map_or_else(|| "none".to_owned(), time)),
            ("ssh.database_grace", time(&self.ssh.database_grace)),
        ];
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The master key file that may be made at the first start: the default one, not one that the operator named.
    pub fn own_master_key_file(&self) -> Option<&Path> {
        let usual = self.server.data_dir.join("master.key");
        self.master_key.file.as_deref().filter(|file| *file == usual)
    }
}

fn from_file(text: &str, faults: &mut Vec<ConfigFault>) -> Vec<Given> {
    let line_of = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
    let parsed: Result<BTreeMap<String, Spanned<Value>>, _> = toml::from_str(text);
    let sections = match parsed {
        Ok(sections) => sections,
        Err(error) => {
            let place = error.span().map_or(Place::Whole, |span| Place::Line(line_of(span.start)));
            faults.push(ConfigFault { key: String::new(), place, message: error.message().to_owned() });
            return Vec::new();
        }
    };
    // A second reading, for the places of the keys; the first has shown that the text is TOML.
    let places = DeTable::parse(text).map(Spanned::into_inner).unwrap_or_default();
    let place_of = |table: Option<&DeTable<'_>>, key: &str| Some(Place::Line(line_of(table?.get(key)?.span().start)));
    let mut given = Vec::new();
    for (section, value) in sections {
        let line = Place::Line(line_of(value.span().start));
        let found = places.get(section.as_str()).map(Spanned::get_ref);
        match value.into_inner() {
            Value::Table(keys) if !LISTS.contains(&section.as_str()) => {
                for (key, value) in keys {
                    let place = place_of(found.and_then(DeValue::as_table), &key).unwrap_or_else(|| line.clone());
                    given.push(Given { section: section.clone(), key, value, place });
                }
            }
            Value::Array(tables) if LISTS.contains(&section.as_str()) => {
                for (number, value) in tables.into_iter().enumerate() {
                    let found = found.and_then(|list| list.get(number)).map(Spanned::get_ref);
                    let Value::Table(keys) = value else { continue }; // TOML allows others in `name = [ … ]` only
                    for (key, value) in keys {
                        let place = place_of(found.and_then(DeValue::as_table), &key).unwrap_or_else(|| line.clone());
                        given.push(Given { section: format!("{section}[{number}]"), key, value, place });
                    }
                }
            }
            _ if LISTS.contains(&section.as_str()) => {
                let message = format!("is a list: write `[[{section}]]` before each");
                faults.push(ConfigFault { key: section, place: line, message });
            }
            _ => {
                let message = "stands outside of a section such as `[ssh]`".to_owned();
                faults.push(ConfigFault { key: section, place: line, message });
            }
        }
    }
    given
}

fn from_environment(
    env: impl IntoIterator<Item = (String, String)>,
    given: &mut Vec<Given>,
    faults: &mut Vec<ConfigFault>,
) {
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let rest = rest.to_ascii_lowercase();
        let place = Place::Variable(name.clone());
        let Some((section, key)) = rest.split_once("__") else {
            let message = "is not of the form `SALLYPORT__SECTION__KEY`".to_owned();
            faults.push(ConfigFault { key: String::new(), place, message });
            continue;
        };
        given.retain(|given| given.section != section || given.key != key);
        let value = Value::String(value);
        given.push(Given { section: section.to_owned(), key: key.to_owned(), value, place });
    }
}

/// Takes what was given for the section `name` and reads it key by key, so that each fault is found and has its key.
fn section<T: DeserializeOwned + Default>(name: &str, given: &mut Vec<Given>, faults: &mut Vec<ConfigFault>) -> T {
    let mut sound = Table::new();
    for Given { key, value, place, .. } in given.extract_if(.., |given| given.section == name) {
        let alone = |value: &Value| {
            let table = Table::from_iter([(key.clone(), value.clone())]);
            T::deserialize(Value::Table(table)).map(drop)
        };
        let value = match (&place, &value) {
            // A number or a list in the environment is text, too; what it should be is known only to the key.
            (Place::Variable(_), Value::String(text)) if alone(&value).is_err() => {
                let inner = toml::from_str::<Table>(&format!("value = {text}")).ok();
                inner.and_then(|mut table| table.remove("value")).filter(|inner| alone(inner).is_ok()).unwrap_or(value)
            }
            _ => value,
        };
        match alone(&value) {
            Ok(()) => {
                sound.insert(key, value);
            }
            Err(error) => {
                let message = error.message().trim().to_owned();
                faults.push(ConfigFault { key: format!("{name}.{key}"), place, message });
            }
        }
    }
    T::deserialize(Value::Table(sound)).unwrap_or_else(|error| {
        let message = error.message().trim().to_owned();
        faults.push(ConfigFault { key: name.to_owned(), place: Place::Whole, message });
        T::default()
    })
}

/// Takes what was given for the list `name`, one section after the other.
fn list<T: DeserializeOwned + Default>(name: &str, given: &mut Vec<Given>, faults: &mut Vec<ConfigFault>) -> Vec<T> {
    let mut all = Vec::new();
    loop {
        let one = format!("{name}[{}]", all.len());
        if given.iter().all(|given| given.section != one) {
            return all;
        }
        all.push(section(&one, given, faults));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../sallyport.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigFaults> {
        Config::parse(text, [])
    }

    fn faults(text: &str, env: &[(&str, &str)]) -> Vec<String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(text, env).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_says_what_holds_without_it() {
        assert_eq!(parse(EXAMPLE), parse(""));
    }

    #[test]
    fn what_the_example_leaves_out_can_be_set_as_it_shows() {
        let optional = |line: &&str| {
            let is_shown = line.starts_with('#') && !line.starts_with("# ");
            is_shown && (line.contains(" = ") || line.starts_with("#[["))
        };
        let shown = EXAMPLE.lines().map(|line| if optional(&line) { &line[1..] } else { line });
        // Of the ways to give a master key only one can be chosen.
        let shown: Vec<&str> =
            shown.filter(|line| !["env =", "credential ="].iter().any(|key| line.starts_with(key))).collect();
        assert_eq!(parse(&shown.join("\n")).map(drop), Ok(()));
    }

    #[test]
    fn what_is_left_out_has_its_place_in_the_data_folder() {
        let config = parse("[server]\ndata_dir = \"/srv/sp\"").unwrap();
        assert_eq!(config.database.url, "sqlite:/srv/sp/sallyport.db");
        assert_eq!(config.blobs.url, "file:/srv/sp/blobs");
        assert_eq!(config.recording.journal_dir, Path::new("/srv/sp/journal"));
        assert_eq!(config.master_key.file.as_deref(), Some(Path::new("/srv/sp/master.key")));
        assert_eq!(config.own_master_key_file(), Some(Path::new("/srv/sp/master.key")));
        assert_eq!(config.api.socket.as_deref(), Some(Path::new("/srv/sp/sallyport.sock")));
        let own = parse("[master_key]\nenv = \"KEY\"").unwrap();
        assert_eq!((own.own_master_key_file(), own.master_key.file.as_deref()), (None, None));
    }

    #[test]
    fn the_environment_overrides_the_file_and_may_hold_text_numbers_and_lists() {
        let env = [
            ("SALLYPORT__SSH__LISTEN", "127.0.0.1:22"),
            ("SALLYPORT__SSH__IDLE_TIMEOUT", "1h"),
            ("SALLYPORT__DATABASE__MAX_CONNECTIONS", "3"),
            ("SALLYPORT__API__OPERATORS", "[1000, 1001]"),
            ("SALLYPORT__SSH__FAILURES_PER_ADDRESS", "{ limit = 5, window = \"1m\" }"),
            ("SALLYPORT_TOKEN", "not ours"),
            ("PATH", "/bin"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));

        let config = Config::parse("[ssh]\nlisten = \"[::]:2222\"\nmax_auth_tries = 3", env).unwrap();

        assert_eq!(config.ssh.listen.to_string(), "127.0.0.1:22");
        assert_eq!(config.ssh.max_auth_tries, 3);
        assert_eq!(config.ssh.idle_timeout, Some(Duration::from_hours(1)));
        assert_eq!(config.database.max_connections, 3);
        assert_eq!(config.api.operators, [1000, 1001]);
        assert_eq!(config.ssh.failures_per_address, Failures { limit: 5, window: Duration::from_mins(1) });
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_key_and_place() {
        let text = "[ssh]\nlisten = \"nowhere\"\nlogin_grace = 30\nmax_connections = 0\nspeed = 9\n\n[sssh]\nx = 1\n\n[api]\nlisten = \"0.0.0.0:80\"\n";

        let found = faults(text, &[("SALLYPORT__LOG__FORMAT", "yaml"), ("SALLYPORT__LOG", "x")]);

        let expect = [
            "line 2: `ssh.listen`",
            "line 3: `ssh.login_grace`",
            "line 5: `ssh.speed`: unknown field",
            "line 8: `sssh.x`: there is no such section",
            "`ssh.max_connections`: must be at least 1",
            "`api.listen`: must be a loopback address",
            "environment variable `SALLYPORT__LOG__FORMAT`: `log.format`",
            "environment variable `SALLYPORT__LOG`: is not of the form",
        ];
        for part in expect {
            assert!(found.iter().any(|fault| fault.starts_with(part)), "{part} in {found:#?}");
        }
        assert_eq!(found.len(), expect.len(), "{found:#?}");
    }

    #[test]
    fn destinations_are_lists_and_each_fault_of_one_has_its_line() {
        let text = "[[outbox]]\nname = \"a\"\nkind = \"file\"\npath = \"/x\"\n\n[[outbox]]\nname = \"b\"\nkind = \"fax\"\nspeed = 9\n\n[[notify]]\nname = \"a\"\nkind = \"slack\"\n";

        let found = faults(text, &[("SALLYPORT__OUTBOX__NAME", "c")]);

        let expect = [
            "line 8: `outbox[1].kind`: unknown variant `fax`",
            "line 9: `outbox[1].speed`: unknown field",
            "`outbox[1].kind`: must be one of",
            "`notify[0].url_file`: is needed",
            "`outbox`: the name `a` stands twice",
            "environment variable `SALLYPORT__OUTBOX__NAME`: `outbox.name`: there is no such section",
        ];
        for part in expect {
            assert!(found.iter().any(|fault| fault.starts_with(part)), "{part} in {found:#?}");
        }
        assert_eq!(found.len(), expect.len(), "{found:#?}");
        assert!(faults("[outbox]\nname = \"x\"", &[])[0].contains("write `[[outbox]]`"));
        let sound = parse("[[outbox]]\nname = \"a\"\nkind = \"file\"\npath = \"/x\"\nretry_most = \"5s\"").unwrap();
        assert_eq!(sound.outbox[0].retry_most, Duration::from_secs(5));
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line() {
        assert!(faults("[ssh]\nlisten =", &[])[0].starts_with("line 2: "));
        assert!(faults("listen = 1", &[])[0].contains("outside of a section"));
    }
}
