//! `[[outbox]]` and `[[notify]]` in `sallyport.toml`: destinations of events, and of notifications to people.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use reqwest::Url;
use sallyport_domain::outbox::detail::Detail;
use sallyport_domain::outbox::topics::Selection;
use serde::{Deserialize, Serialize};

use crate::app::syslog;

/// What a destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationKind {
    /// Lines of JSON in a file.
    File,
    Syslog,
    Webhook,
    /// An agent of a log workspace, near the bastion.
    Datakit,
    /// The gateway of a log workspace.
    Dataway,
}

/// Where a destination that is new begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the ledger's first event.
    #[default]
    First,
    /// With what happens from now on.
    Now,
}

/// One `[[outbox]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationSettings {
    /// Under this name the database keeps how far it is.
    pub name: String,
    pub kind: Option<DestinationKind>,
    /// `file`: where the lines go.
    pub path: Option<PathBuf>,
    /// `syslog`: `tls://host:6514`, or `tcp://host:601`.
    pub address: Option<String>,
    /// `webhook`, `datakit`, `dataway`.
    pub url: Option<String>,
    /// The authorities, in PEM, of which one has certified the receiver; left out, those of the machine.
    pub ca_file: Option<PathBuf>,
    /// `webhook`: a file with the secret that requests are signed with.
    pub secret_file: Option<PathBuf>,
    /// `dataway`: a file with the workspace's token.
    pub token_file: Option<PathBuf>,
    /// `datakit`, `dataway`: the source of the log, and tags on every record.
    pub measurement: String,
    pub tags: BTreeMap<String, String>,
    /// Which events.
    pub events: Vec<String>,
    /// How much of commands that were run, and of files' paths.
    pub commands: Detail,
    pub paths: Detail,
    pub start: Start,
    /// As many records are delivered at once.
    pub batch: u32,
    /// How long the receiver may take to take a batch.
    #[serde(with = "crate::store::duration")]
    pub timeout: Duration,
    /// The longest pause between tries.
    #[serde(with = "crate::store::duration")]
    pub retry_most: Duration,
    /// A destination that has failed for so long is an alarm.
    #[serde(with = "crate::store::duration")]
    pub late_after: Duration,
}

impl Default for DestinationSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: None,
            path: None,
            address: None,
            url: None,
            ca_file: None,
            secret_file: None,
            token_file: None,
            measurement: "bastion_audit".to_owned(),
            tags: BTreeMap::new(),
            events: vec!["*".to_owned()],
            commands: Detail::Off,
            paths: Detail::Off,
            start: Start::First,
            batch: 500,
            timeout: Duration::from_secs(30),
            retry_most: Duration::from_mins(1),
            late_after: Duration::from_mins(10),
        }
    }
}

/// How people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyKind {
    Mail,
    Slack,
    Feishu,
    Dingtalk,
    Wecom,
}

/// One `[[notify]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifySettings {
    pub name: String,
    pub kind: Option<NotifyKind>,
    /// Which events; topics for most.
    pub events: Vec<String>,
    /// Chats: a file with the robot's URL, which is a secret.
    pub url_file: Option<PathBuf>,
    /// `feishu`, `dingtalk`: a file with the robot's signing secret, if it has one.
    pub secret_file: Option<PathBuf>,
    /// `mail`: `smtps://host:465`, `smtp://host:587` (STARTTLS), `smtp+plain://host:25` (loopback only).
    pub server: Option<String>,
    pub from: Option<String>,
    pub to: Vec<String>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// The authorities, in PEM, of which one has certified the server; left out, those of the machine.
    pub ca_file: Option<PathBuf>,
    #[serde(with = "crate::store::duration")]
    pub timeout: Duration,
    #[serde(with = "crate::store::duration")]
    pub retry_most: Duration,
    #[serde(with = "crate::store::duration")]
    pub late_after: Duration,
}

impl Default for NotifySettings {
    fn default() -> Self {
        let topics = ["requests", "approvals", "denials", "break_glass", "integrity"];
        Self {
            name: String::new(),
            kind: None,
            events: topics.map(str::to_owned).to_vec(),
            url_file: None,
            secret_file: None,
            server: None,
            from: None,
            to: Vec::new(),
            username: None,
            password_file: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            retry_most: Duration::from_mins(1),
            late_after: Duration::from_mins(10),
        }
    }
}

/// A key, and what is wrong with it.
pub type Fault = (&'static str, String);

impl DestinationSettings {
    /// What a type cannot say: what the kind takes, and how it must look.
    pub(crate) fn check(&self) -> Vec<Fault> {
        let mut faults = check_name(&self.name);
        faults.extend(Selection::parse(&self.events).err().map(|error| ("events", error.to_string())));
        if !(1..=10_000).contains(&self.batch) {
            faults.push(("batch", "must be 1 to 10000".to_owned()));
        }
        faults.extend(check_times(self.timeout, self.retry_most, self.late_after));
        let Some(kind) = self.kind else {
            faults.push(("kind", "must be one of file, syslog, webhook, datakit, dataway".to_owned()));
            return faults;
        };
        let (takes, needs): (&[&str], &[&str]) = match kind {
            DestinationKind::File => (&["path"], &["path"]),
            DestinationKind::Syslog => (&["address", "ca_file"], &["address"]),
            DestinationKind::Webhook => (&["url", "ca_file", "secret_file"], &["url", "secret_file"]),
            DestinationKind::Datakit => (&["url", "ca_file"], &["url"]),
            DestinationKind::Dataway => (&["url", "ca_file", "token_file"], &["url", "token_file"]),
        };
        for (key, is_set) in [
            ("path", self.path.is_some()),
            ("address", self.address.is_some()),
            ("url", self.url.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("token_file", self.token_file.is_some()),
        ] {
            if is_set && !takes.contains(&key) {
                faults.push((key, "is not for this kind".to_owned()));
            } else if !is_set && needs.contains(&key) {
                faults.push((key, "is needed for this kind".to_owned()));
            }
        }
        if let Some(address) = &self.address {
            let checked = syslog::check(address, self.ca_file.is_some());
            faults.extend(checked.err().map(|message| ("address", message.to_owned())));
        }
        faults.extend(self.url.as_deref().and_then(|url| check_url(url).err()).map(|message| ("url", message)));
        let is_sound =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if !is_sound(&self.measurement) {
            faults.push(("measurement", "must be letters, digits, `_` and `-`".to_owned()));
        }
        if !self.tags.keys().all(|key| is_sound(key)) {
            faults.push(("tags", "keys must be letters, digits, `_` and `-`".to_owned()));
        }
        faults
    }
}

impl NotifySettings {
    /// What a type cannot say.
    pub(crate) fn check(&self) -> Vec<Fault> {
        let mut faults = check_name(&self.name);
        faults.extend(Selection::parse(&self.events).err().map(|error| ("events", error.to_string())));
        faults.extend(check_times(self.timeout, self.retry_most, self.late_after));
        let Some(kind) = self.kind else {
            faults.push(("kind", "must be one of mail, slack, feishu, dingtalk, wecom".to_owned()));
            return faults;
        };
        let is_mail = kind == NotifyKind::Mail;
        let signs = matches!(kind, NotifyKind::Feishu | NotifyKind::Dingtalk);
        for (key, is_set, takes, needs) in [
            ("url_file", self.url_file.is_some(), !is_mail, !is_mail),
            ("secret_file", self.secret_file.is_some(), signs, false),
            ("server", self.server.is_some(), is_mail, is_mail),
            ("from", self.from.is_some(), is_mail, is_mail),
            ("to", !self.to.is_empty(), is_mail, is_mail),
            ("username", self.username.is_some(), is_mail, self.password_file.is_some()),
            ("password_file", self.password_file.is_some(), is_mail, self.username.is_some()),
            ("ca_file", self.ca_file.is_some(), true, false),
        ] {
            if is_set && !takes {
                faults.push((key, "is not for this kind".to_owned()));
            } else if !is_set && needs {
                faults.push((key, "is needed".to_owned()));
            }
        }
        let server = self.server.as_deref().and_then(|server| MailServer::parse(server).err());
        faults.extend(server.map(|message| ("server", message.to_owned())));
        for (key, address) in self.from.iter().map(|from| ("from", from)).chain(self.to.iter().map(|to| ("to", to))) {
            if address.parse::<Mailbox>().is_err() {
                faults.push((key, format!("`{address}` is no mail address")));
            }
        }
        faults
    }
}

/// Names over both lists are unique; gives each that is not.
pub(crate) fn double_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

fn check_name(name: &str) -> Vec<Fault> {
    let is_sound = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_sound { Vec::new() } else { vec![("name", "must be 1 to 64 letters, digits, `.`, `_` and `-`".to_owned())] }
}

fn check_times(timeout: Duration, retry_most: Duration, late_after: Duration) -> Vec<Fault> {
    let times = [("retry_most", retry_most), ("late_after", late_after)];
    let none = times.into_iter().filter(|(_, time)| time.is_zero());
    let mut faults: Vec<Fault> = none.map(|(key, _)| (key, "must be longer than nothing".to_owned())).collect();
    // A destination whose node died waits for twice as long.
    if timeout < Duration::from_secs(1) || timeout > Duration::from_mins(5) {
        faults.push(("timeout", "must be 1s to 5m".to_owned()));
    }
    faults
}

/// A URL is shown by `config show` and stands in a file that many may read: secrets have files of their own.
fn check_url(url: &str) -> Result<(), String> {
    let parsed: Url = url.parse().map_err(|_| "is no URL".to_owned())?;
    if !matches!(parsed.scheme(), "https" | "http") {
        return Err("must be an `https://` or `http://` URL".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        return Err("may hold no user, password or query: secrets go into `token_file` or `secret_file`".to_owned());
    }
    Ok(())
}

/// Where mail is handed in, and how the connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MailServer {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protection: Protection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// TLS from the first byte (RFC 8314 §3.3).
    Tls,
    /// RFC 3207, and nothing is sent where the server does not offer it.
    StartTls,
    /// To this machine only.
    None,
}

impl MailServer {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "write `smtps://host:465`, `smtp://host:587` for STARTTLS, or `smtp+plain://127.0.0.1:25`";
        let (scheme, place) = text.split_once("://").ok_or(FORM)?;
        let (protection, usual) = match scheme {
            "smtps" => (Protection::Tls, 465),
            "smtp" => (Protection::StartTls, 587),
            "smtp+plain" => (Protection::None, 25),
            _ => return Err(FORM),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| FORM)?),
            Some(_) | None => (place, usual),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        if host.is_empty() || host.contains(['/', '@', '?']) {
            return Err(FORM);
        }
        let is_here =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if protection == Protection::None && !is_here {
            return Err("without encryption mail goes to a loopback address only");
        }
        Ok(Self { host, port, protection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_what_it_needs_and_nothing_else() {
        let base = DestinationSettings { name: "siem".to_owned(), ..DestinationSettings::default() };
        let keys =
            |settings: &DestinationSettings| settings.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let url = |url: &str| Some(url.to_owned());
        let some_file = || Some(PathBuf::from("/x"));
        assert_eq!(keys(&base), ["kind"]);
        let webhook = DestinationSettings { kind: Some(DestinationKind::Webhook), ..base.clone() };
        assert_eq!(keys(&webhook), ["url", "secret_file"]);
        let sound = DestinationSettings { url: url("https://x/y"), secret_file: some_file(), ..webhook.clone() };
        assert_eq!(keys(&sound), [""; 0]);
        for secret in ["https://u:p@x/", "https://x/?token=tkn_1", "ftp://x", "x"] {
            assert_eq!(keys(&DestinationSettings { url: url(secret), ..sound.clone() }), ["url"], "{secret}");
        }
        let events = vec!["grants".to_owned()];
        assert_eq!(keys(&DestinationSettings { events, path: some_file(), ..sound }), ["events", "path"]);
    }

    #[test]
    fn mail_goes_without_encryption_to_this_machine_only() {
        let port = |text: &str| MailServer::parse(text).map(|server| (server.port, server.protection));
        assert_eq!(port("smtps://mail.example.com"), Ok((465, Protection::Tls)));
        assert_eq!(port("smtp://mail.example.com:2587"), Ok((2587, Protection::StartTls)));
        assert_eq!(port("smtp+plain://[::1]:25"), Ok((25, Protection::None)));
        for text in ["smtp+plain://mail.example.com", "mail.example.com", "smtp://", "smtp://a@b", "smtp://x:y"] {
            assert!(port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_chat_takes_a_file_with_its_url_and_mail_people() {
        let base = NotifySettings { name: "ops".to_owned(), ..NotifySettings::default() };
        let keys = |settings: &NotifySettings| settings.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&NotifySettings { kind: Some(NotifyKind::Slack), ..base.clone() }), ["url_file"]);
        let mail = NotifySettings { kind: Some(NotifyKind::Mail), ..base };
        assert_eq!(keys(&mail), ["server", "from", "to"]);
        let sound = NotifySettings {
            server: Some("smtps://mail.example.com".to_owned()),
            from: Some("Sallyport <bastion@example.com>".to_owned()),
            to: vec!["ops@example.com".to_owned()],
            ..mail
        };
        assert_eq!(keys(&sound), [""; 0]);
        assert_eq!(keys(&NotifySettings { to: vec!["nobody".to_owned()], ..sound }), ["to"]);
    }
}
