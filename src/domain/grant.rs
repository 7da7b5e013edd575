//! Grants: who may reach which targets, as which logins, to do what, between which instants.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use globset::{GlobBuilder, GlobMatcher};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::channel::Program;
use crate::commands::rules::CommandRules;
use crate::files::FileRules;
use crate::id::{GrantId, PrincipalId};
use crate::name::{Login, TemplateName};
use crate::review::ReviewTerm;
use crate::target::Target;

/// A principal may reach a target from `not_before` up to, not including, `not_after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub id: GrantId,
    /// At least one.
    pub people: Vec<PrincipalId>,
    pub terms: Terms,
    pub window: Window,
    pub reason: String,
    pub ticket: Option<String>,
    /// The template that its terms were taken from. They are the grant's own: what becomes of the template does not touch them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// Who gave it; `None` for the operator on the bastion's own host.
    pub created_by: Option<PrincipalId>,
    pub created_at: DateTime<Utc>,
    pub revoked: Option<Revocation>,
}

/// That, when and why a grant was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub at: DateTime<Utc>,
    pub by: Option<PrincipalId>,
    pub reason: String,
}

/// A half-open window of time that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WindowBounds", into = "WindowBounds")]
pub struct Window {
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WindowBounds {
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// The window would be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window must end after it starts: {not_before} is not before {not_after}")]
pub struct EmptyWindow {
    pub not_before: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
}

impl Window {
    /// A window from `not_before` up to, not including, `not_after`.
    pub fn new(not_before: DateTime<Utc>, not_after: DateTime<Utc>) -> Result<Self, EmptyWindow> {
        if not_before < not_after {
            Ok(Self { not_before, not_after })
        } else {
            Err(EmptyWindow { not_before, not_after })
        }
    }

    pub fn not_before(&self) -> DateTime<Utc> {
        self.not_before
    }

    pub fn not_after(&self) -> DateTime<Utc> {
        self.not_after
    }

    /// Whether `at` is inside; the end is not.
    pub fn contains(&self, at: DateTime<Utc>) -> bool {
        self.not_before <= at && at < self.not_after
    }
}

impl TryFrom<WindowBounds> for Window {
    type Error = EmptyWindow;

    fn try_from(bounds: WindowBounds) -> Result<Self, EmptyWindow> {
        Self::new(bounds.not_before, bounds.not_after)
    }
}

impl From<Window> for WindowBounds {
    fn from(window: Window) -> Self {
        Self { not_before: window.not_before, not_after: window.not_after }
    }
}

/// What a grant allows, apart from people and time. Kept with each session as it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// At least one; a target is meant if any of them matches.
    pub targets: Vec<TargetSelector>,
    /// At least one.
    pub logins: Vec<Login>,
    pub capabilities: Capabilities,
    /// Networks from which the person may come; empty means from anywhere.
    #[serde(default)]
    pub source_networks: Vec<IpNet>,
    /// Sessions that may be open at once under this grant; `None` means any number.
    #[serde(default)]
    pub max_sessions: Option<u32>,
    /// Whether the person must have proved a second factor. What is usual is not written, so that the ledger's older entries
    /// stay what they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub second_factor: bool,
    /// Whose yes each session takes besides.
    #[serde(default, skip_serializing_if = "Approval::is_usual")]
    pub approval: Approval,
    /// What limits files, beside whether they may go in and out at all.
    #[serde(default, skip_serializing_if = "FileRules::is_default")]
    pub files: FileRules,
    /// Which commands may run without a shell, and which are flagged.
    #[serde(default, skip_serializing_if = "CommandRules::is_default")]
    pub commands: CommandRules,
    /// How forwards are made, and what is kept of them.
    #[serde(default, skip_serializing_if = "Forwarding::is_usual")]
    pub forwarding: Forwarding,
    /// By when its sessions are to be reviewed; `None` is as the bastion's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewTerm>,
}

/// How forwards are made, and what is kept of them. An unknown field is an error, as in [`FileRules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forwarding {
    pub from: ForwardFrom,
    /// When a forward was opened and how many bytes went when is recorded, and not which.
    pub metadata_only: bool,
}

impl Forwarding {
    /// Whether nothing was said: from the target, with all that passes. By reference, as serde wants it.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Who dials a forward's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardFrom {
    #[default]
    Target,
    Bastion,
}

impl ForwardFrom {
    pub const ALL: [ForwardFrom; 2] = [ForwardFrom::Target, ForwardFrom::Bastion];

    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            ForwardFrom::Target => "target",
            ForwardFrom::Bastion => "bastion",
        }
    }
}

/// Whose yes a session takes besides the grant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// Nobody's.
    #[default]
    None,
    /// Somebody says yes to each session before it starts.
    PerSession,
    /// A reviewer watches live: the session starts when they do, and stands still while they do not.
    Watcher,
}

impl Approval {
    /// Whether nobody's is asked for. By reference, as serde wants it.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_usual(&self) -> bool {
        *self == Approval::None
    }

    /// Every kind, in the order in which they are listed to people.
    pub const ALL: [Approval; 3] = [Approval::None, Approval::PerSession, Approval::Watcher];

    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Approval::None => "none",
            Approval::PerSession => "per_session",
            Approval::Watcher => "watcher",
        }
    }
}

impl Terms {
    /// Whether one of the selectors means `target`.
    pub fn covers(&self, target: &Target) -> bool {
        self.targets.iter().any(|selector| selector.matches(target))
    }

    /// Whether what passes through `program` is kept.
    pub fn keeps_content(&self, program: &Program) -> bool {
        !(self.forwarding.metadata_only && matches!(program, Program::Forward { .. }))
    }

    /// Whether a connection from `source` is welcome. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.source_networks.is_empty() || self.source_networks.iter().any(|network| network.contains(&source))
    }
}

/// What may be done on a target under a grant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// An interactive shell.
    pub shell: bool,
    /// Single commands, and other subsystems than sftp.
    pub exec: bool,
    /// Files in.
    pub upload: bool,
    /// Files out.
    pub download: bool,
    /// Destinations that a local forward may name.
    pub forwards: Vec<Destination>,
}

/// Where a forward may go: a host name or an address, and a port; or a Unix socket's path, and the port 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Destination {
    pub host: String,
    pub port: u16,
}

impl Destination {
    /// Whether it is a Unix socket on the target.
    pub fn is_socket(&self) -> bool {
        self.port == 0
    }

    /// Whether `wanted` is the same place by the same name. What a name resolves to is the target's business, so an address
    /// does not stand for a name.
    pub fn covers(&self, wanted: &Destination) -> bool {
        let same_host =
            if self.is_socket() { self.host == wanted.host } else { self.host.eq_ignore_ascii_case(&wanted.host) };
        self.port == wanted.port && same_host
    }
}

impl fmt::Display for Destination {
    /// `host:port`, `[::1]:port`, or the socket's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => f.write_str(&self.host),
            port if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// Which targets a grant means.
#[derive(Debug, Clone)]
pub enum TargetSelector {
    /// The target of this name or alias.
    Name(String),
    /// Targets whose name or alias matches, `*` and `?` as in a shell: `web-*`.
    Glob { pattern: String, matcher: GlobMatcher },
    /// Targets that carry this label with this value: `env=prod`.
    Label { key: String, value: String },
}

/// Why a text selects no targets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("a target selector must not be empty")]
    Empty,
    #[error("`{pattern}` is not a pattern: {message}")]
    Pattern { pattern: String, message: String },
    #[error("`{0}` is neither a target's name nor a pattern such as `web-*` nor a label such as `env=prod`")]
    Neither(String),
}

impl TargetSelector {
    /// Whether this selector means `target`.
    pub fn matches(&self, target: &Target) -> bool {
        let mut names = target.names();
        match self {
            TargetSelector::Name(wanted) => names.any(|name| name.as_str() == wanted),
            TargetSelector::Glob { matcher, .. } => names.any(|name| matcher.is_match(name.as_str())),
            TargetSelector::Label { key, value } => has_label(&target.labels, key, value),
        }
    }
}

fn has_label(labels: &BTreeMap<String, String>, key: &str, value: &str) -> bool {
    labels.get(key).is_some_and(|found| found == value)
}

impl FromStr for TargetSelector {
    type Err = SelectorError;

    /// Reads `web-1`, `web-*` or `env=prod`.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        if let Some((key, value)) = text.split_once('=') {
            if key.is_empty() || value.is_empty() {
                return Err(SelectorError::Neither(text.to_owned()));
            }
            return Ok(TargetSelector::Label { key: key.to_owned(), value: value.to_owned() });
        }
        let known = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?' | '[' | ']' | '{' | '}' | ',' | '!')
        };
        if !text.chars().all(known) {
            return Err(SelectorError::Neither(text.to_owned()));
        }
        let text = text.to_ascii_lowercase();
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(TargetSelector::Name(text));
        }
        match GlobBuilder::new(&text).literal_separator(false).build() {
            Ok(glob) => Ok(TargetSelector::Glob { matcher: glob.compile_matcher(), pattern: text }),
            Err(error) => Err(SelectorError::Pattern { pattern: text, message: error.kind().to_string() }),
        }
    }
}

impl fmt::Display for TargetSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetSelector::Name(name) => f.write_str(name),
            TargetSelector::Glob { pattern, .. } => f.write_str(pattern),
            TargetSelector::Label { key, value } => write!(f, "{key}={value}"),
        }
    }
}

impl PartialEq for TargetSelector {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for TargetSelector {}

impl Serialize for TargetSelector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetSelector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_back_from_its_text() {
        for text in ["web-1", "web-*", "gpu-[ab]-0?", "env=prod"] {
            let selector: TargetSelector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
            assert_eq!(serde_json::from_str::<TargetSelector>(&format!("{text:?}")).unwrap(), selector);
        }
    }

    #[test]
    fn what_selects_nothing_is_refused() {
        for text in ["", "=", "env=", "=prod", "a b", "web-[", "../x"] {
            assert!(text.parse::<TargetSelector>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn terms_that_were_stored_before_there_were_second_factors_read_as_ones_that_ask_for_none() {
        let stored = r#"{"targets":["web-1"],"logins":["root"],"capabilities":{}}"#;
        let terms: Terms = serde_json::from_str(stored).unwrap();
        assert_eq!((terms.second_factor, terms.approval), (false, Approval::None));
    }

    #[test]
    fn a_window_is_half_open_and_never_empty() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let window = Window::new(at(10), at(20)).unwrap();
        assert!(
            !window.contains(at(9)) && window.contains(at(10)) && window.contains(at(19)) && !window.contains(at(20))
        );
        assert!(Window::new(at(10), at(10)).is_err());
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_ipv4_address_it_is() {
        let terms = Terms {
            targets: vec![],
            logins: vec![],
            capabilities: Capabilities::default(),
            source_networks: vec!["203.0.113.0/24".parse().unwrap()],
            max_sessions: None,
            second_factor: false,
            approval: Approval::None,
            files: FileRules::default(),
            commands: CommandRules::default(),
            forwarding: Forwarding::default(),
            review: None,
        };
        assert!(terms.admits("::ffff:203.0.113.9".parse().unwrap()));
        assert!(!terms.admits("198.51.100.1".parse().unwrap()));
    }
}
