//! What the bastion's commands answer: shapes for programs (`--json`, documented in docs/clients.md), and the same as text.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sallyport_domain::id::{GrantId, RequestId};
use sallyport_domain::request::{Request, RequestState, Wish};
use sallyport_domain::target::Target;
use serde::Serialize;

use super::picker;
use crate::app::access::{Arrival, Choice, Upcoming};
use crate::app::people::PersonKey;
use crate::ssh::notice;

/// Lines of a list that are shown as text; JSON has all of them.
const MOST_LINES: usize = 1000;

/// Where the door is for people outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub host: String,
    pub port: u16,
}

impl Place {
    /// The command line that goes to the bastion as `user`.
    pub fn line(&self, user: &str) -> String {
        match self.port {
            22 => format!("ssh {user}@{}", self.host),
            port => format!("ssh -p {port} {user}@{}", self.host),
        }
    }
}

/// Pretty JSON and a line's end.
pub fn json(value: &impl Serialize) -> String {
    // Strings, numbers and lists: there is nothing in our shapes that JSON has not.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Columns under their heads, the last one as long as it is.
fn table<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let shown = rows.iter().take(MOST_LINES);
    let mut widths = heads.map(str::len);
    for row in shown.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heads = heads.map(str::to_owned);
    for row in std::iter::once(&heads).chain(shown) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{:width$}  ", notice::printable(cell));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if rows.len() > MOST_LINES {
        let _ = writeln!(text, "and {} more; --json lists all", rows.len() - MOST_LINES); // as above
    }
    text
}

/// What is open to somebody, what will be, and what they have asked for.
#[derive(Debug, Serialize)]
pub struct List {
    pub accounts: Vec<Account>,
    pub upcoming: Vec<Window>,
    pub requests: Vec<Asked>,
}

#[derive(Debug, Serialize)]
pub struct Account {
    target: String,
    login: String,
    /// What to call oneself to go there.
    user: String,
    not_after: DateTime<Utc>,
    seconds_left: i64,
    grant: GrantId,
    reason: String,
    ticket: Option<String>,
    #[serde(skip)]
    left: String,
    #[serde(skip)]
    why: String,
}

impl Account {
    pub fn new(choice: &Choice, person: &str, now: DateTime<Utc>) -> Self {
        Self {
            target: choice.target.to_string(),
            login: choice.login.to_string(),
            user: format!("{person}+{}@{}", choice.login, choice.target),
            not_after: choice.not_after,
            seconds_left: (choice.not_after - now).num_seconds().max(0),
            grant: choice.grant,
            reason: choice.reason.clone(),
            ticket: choice.ticket.clone(),
            left: picker::time_left(choice, now),
            why: picker::why(choice),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Window {
    grant: GrantId,
    targets: Vec<String>,
    logins: Vec<String>,
    opens_at: DateTime<Utc>,
    not_after: DateTime<Utc>,
    reason: String,
}

impl From<&Upcoming> for Window {
    fn from(window: &Upcoming) -> Self {
        let Upcoming { grant, opens_at, not_after, targets, logins, reason } = window.clone();
        let logins = logins.iter().map(ToString::to_string).collect();
        Self { grant, targets, logins, opens_at, not_after, reason }
    }
}

/// A request and what has become of it.
#[derive(Debug, Serialize)]
pub struct Asked {
    pub id: RequestId,
    /// `open`, `approved`, `denied`, `withdrawn` or `expired`.
    pub state: &'static str,
    pub targets: Vec<String>,
    pub logins: Vec<String>,
    pub seconds: u64,
    pub reason: String,
    pub ticket: Option<String>,
    pub expires_at: DateTime<Utc>,
    /// The grant that came of it, or that more time is asked for on.
    pub grant: Option<GrantId>,
    /// Whether something else was given than was asked for.
    pub changed: bool,
    /// Why it was denied.
    pub answer: Option<String>,
    /// Until when the grant lasts that came of it.
    pub not_after: Option<DateTime<Utc>>,
}

impl From<&Request> for Asked {
    fn from(request: &Request) -> Self {
        let (targets, logins, wanted) = match &request.wish {
            Wish::Access { targets, logins, .. } => (
                targets.iter().map(ToString::to_string).collect(),
                logins.iter().map(ToString::to_string).collect(),
                None,
            ),
            Wish::MoreTime { grant, .. } => (Vec::new(), Vec::new(), Some(*grant)),
            Wish::Session { grant, target, login, .. } => {
                (vec![target.to_string()], vec![login.to_string()], Some(*grant))
            }
        };
        let (grant, changed, answer) = match &request.state {
            RequestState::Approved { grant, changed, .. } => (Some(*grant), *changed, None),
            RequestState::Denied { reason, .. } => (wanted, false, Some(reason.clone())),
            RequestState::Open | RequestState::Withdrawn { .. } | RequestState::Expired { .. } => (wanted, false, None),
        };
        Self {
            id: request.id,
            state: request.state.as_str(),
            targets,
            logins,
            seconds: request.wish.lasting().as_secs(),
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            expires_at: request.expires_at,
            grant,
            changed,
            answer,
            not_after: None,
        }
    }
}

impl Asked {
    /// What has become of it, in one line.
    pub fn text(&self) -> String {
        let until = self.not_after.map(|at| format!(", until {}", notice::date_time(at))).unwrap_or_default();
        match (self.state, &self.answer) {
            ("approved", _) if self.changed => format!("{} is approved, but not as asked{until}", self.id),
            ("denied", Some(reason)) => format!("{} is denied: {}", self.id, notice::printable(reason)),
            ("expired", _) => format!("{} has expired: nobody answered in time", self.id),
            ("open", _) => format!("{} waits for an answer until {}", self.id, notice::date_time(self.expires_at)),
            (state, _) => format!("{} is {state}{until}", self.id),
        }
    }
}

impl List {
    /// The list as text; accounts only, if nothing else is there.
    pub fn text(&self) -> String {
        let mut text =
            if self.accounts.is_empty() { "Nothing is open to you now.\n".to_owned() } else { String::new() };
        if !self.accounts.is_empty() {
            let row = |account: &Account| {
                let until = notice::date_time(account.not_after);
                let place = format!("{}@{}", account.login, account.target);
                [place, account.left.clone(), until, account.grant.to_string(), account.why.clone()]
            };
            let rows: Vec<_> = self.accounts.iter().map(row).collect();
            text += &table(["ACCOUNT", "TIME LEFT", "UNTIL", "GRANT", "REASON"], &rows);
        }
        if !self.upcoming.is_empty() {
            let row = |window: &Window| {
                let place = format!("{}@{}", window.logins.join(","), window.targets.join(","));
                [place, notice::date_time(window.opens_at), notice::date_time(window.not_after), window.reason.clone()]
            };
            let rows: Vec<_> = self.upcoming.iter().map(row).collect();
            text += &format!("\nLater:\n{}", table(["ACCOUNT", "FROM", "UNTIL", "REASON"], &rows));
        }
        if !self.requests.is_empty() {
            text += "\nAsked for:\n";
            for request in self.requests.iter().take(MOST_LINES) {
                text += &request.text();
                text.push('\n');
            }
        }
        text
    }
}

/// Who somebody is here.
#[derive(Debug, Serialize)]
pub struct Me<'a> {
    name: String,
    organisation: Option<&'a str>,
    roles: Vec<&'static str>,
    /// What was proved: `publickey`, `password+totp`, …
    method: &'static str,
    address: String,
    bastion: &'a Place,
}

impl<'a> Me<'a> {
    pub fn new(arrival: &'a Arrival, bastion: &'a Place) -> Self {
        Self {
            name: arrival.principal.name.to_string(),
            organisation: arrival.principal.organisation.as_deref(),
            roles: arrival.principal.roles.iter().map(|role| role.as_str()).collect(),
            method: arrival.factors.as_str(),
            address: arrival.source.to_string(),
            bastion,
        }
    }

    pub fn text(&self) -> String {
        let organisation = self.organisation.map(|name| format!(" of {}", notice::printable(name))).unwrap_or_default();
        format!(
            "You are {}{organisation}: {}.\nYou came in from {} by {}.\n",
            self.name,
            self.roles.join(", "),
            self.address,
            self.method
        )
    }
}

/// Somebody's own public keys.
#[derive(Debug, Serialize)]
pub struct OwnKeys {
    keys: Vec<OwnKey>,
}

#[derive(Debug, Serialize)]
struct OwnKey {
    fingerprint: String,
    /// `ssh-ed25519`, …
    algorithm: String,
    comment: String,
    added_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

impl OwnKeys {
    pub fn new(keys: Vec<PersonKey>) -> Self {
        let shape = |key: PersonKey| OwnKey {
            fingerprint: key.fingerprint,
            algorithm: key.public_key.split(' ').next().unwrap_or_default().to_owned(),
            comment: key.comment,
            added_at: key.added_at,
            last_used_at: key.last_used_at,
        };
        Self { keys: keys.into_iter().map(shape).collect() }
    }

    pub fn text(&self) -> String {
        if self.keys.is_empty() {
            return "No public key is on file for you.\n".to_owned();
        }
        let row = |key: &OwnKey| {
            let used = key.last_used_at.map_or_else(|| "-".to_owned(), notice::date_time);
            let (fingerprint, algorithm) = (key.fingerprint.clone(), key.algorithm.clone());
            [fingerprint, algorithm, notice::date_time(key.added_at), used, key.comment.clone()]
        };
        let rows: Vec<_> = self.keys.iter().map(row).collect();
        table(["FINGERPRINT", "ALGORITHM", "ADDED", "LAST USED", "COMMENT"], &rows)
    }
}

/// What an SSH client must be told: text to paste.
#[derive(Debug, Serialize)]
pub struct Lines {
    pub lines: Vec<String>,
}

impl Lines {
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Lines for `~/.ssh/config`: the bastion, and each target through it.
pub fn config(person: &str, place: &Place, choices: &[Choice], targets: &[Target]) -> Lines {
    let mut lines = vec![
        "Host sallyport".to_owned(),
        format!("    HostName {}", place.host),
        format!("    Port {}", place.port),
        format!("    User {person}"),
    ];
    for target in targets {
        let logins: Vec<&str> =
            choices.iter().filter(|choice| choice.target == target.name).map(|choice| choice.login.as_str()).collect();
        let names = target.names();
        let names: Vec<&str> = names.map(sallyport_domain::name::TargetName::as_str).collect();
        lines.push(String::new());
        lines.push(format!("Host {}", names.join(" ")));
        match logins.as_slice() {
            [login] => lines.push(format!("    User {login}")),
            several => lines.push(format!("    # say which: {}", several.join(", "))),
        }
        lines.push("    ProxyJump sallyport".to_owned());
    }
    Lines { lines }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn choice(target: &str, login: &str) -> Choice {
        Choice {
            login: login.parse().unwrap(),
            target: target.parse().unwrap(),
            not_after: at(7_200),
            grant: GrantId::from_uuid(Uuid::from_u128(1)),
            reason: "disk\x1b[2J full".to_owned(),
            ticket: Some("INC-7".to_owned()),
        }
    }

    fn target(name: &str, aliases: &[&str]) -> Target {
        Target {
            id: sallyport_domain::id::TargetId::from_uuid(Uuid::from_u128(2)),
            name: name.parse().unwrap(),
            aliases: aliases.iter().map(|alias| alias.parse().unwrap()).collect(),
            address: "10.0.0.1".parse().unwrap(),
            jump: None,
            logins: vec![],
            labels: std::collections::BTreeMap::new(),
            host_keys: vec![],
            created_at: at(0),
            disabled_at: None,
        }
    }

    #[test]
    fn a_list_is_a_table_without_control_characters() {
        let accounts = [choice("web-1", "root"), choice("database-12", "postgres")];
        let accounts = accounts.iter().map(|choice| Account::new(choice, "alice", at(0))).collect();
        let list = List { accounts, upcoming: vec![], requests: vec![] };

        let text = list.text();

        let grant = GrantId::from_uuid(Uuid::from_u128(1));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ACCOUNT               TIME LEFT  UNTIL"), "{text}");
        let expected = format!("root@web-1            2 h 0 min  1970-01-01 02:00 UTC  {grant}  INC-7 disk [2J full");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_config_names_the_bastion_once_and_a_login_where_there_is_one() {
        let place = Place { host: "bastion.example".to_owned(), port: 2222 };
        let choices = [choice("db-1", "root"), choice("web-1", "deploy"), choice("web-1", "root")];
        let targets = [target("db-1", &["db.example"]), target("web-1", &[])];

        let text = config("alice", &place, &choices, &targets).text();

        assert_eq!(
            text,
            "Host sallyport\n    HostName bastion.example\n    Port 2222\n    User alice\n\
             \nHost db-1 db.example\n    User root\n    ProxyJump sallyport\n\
             \nHost web-1\n    # say which: deploy, root\n    ProxyJump sallyport\n"
        );
        assert_eq!(place.line("alice"), "ssh -p 2222 alice@bastion.example");
    }
}
