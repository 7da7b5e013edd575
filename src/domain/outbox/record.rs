//! What is sent of an event, or of a command that was run: one JSON object, and the same as a line of the line protocol.
//!
//! ```text
//! {"seq":1841,"part":0,"ledger":"bastion.example/ledger","id":"e-…","at":"…","kind":"grant_made","severity":"notice","actor":{…},"act":{…}}
//! {"seq":1843,"part":2,"ledger":…,"id":"e-…","at":…,"kind":"command","severity":"info","command":{"session":…,"recording":…,"number":1,…}}
//! ```
//!
//! `seq` is the event's place in the ledger, `part` is 0 for the event itself; the commands of a recording follow the event of its
//! end, as parts from 1. The pair is sent again only when nobody confirmed it, so it tells duplicates.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::detail::Detail;
use super::line::{Field, Line};
use crate::commands::Command;
use crate::id::{RecordingId, SessionId};
use crate::ledger::entry;

/// How much it matters to whoever reads logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Notice,
    Warning,
    Error,
    Alert,
}

impl Severity {
    /// The word in records, which is also the status of a log workspace.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Alert => "alert",
        }
    }

    /// The number of RFC 5424 §6.2.1.
    pub const fn syslog(self) -> u8 {
        match self {
            Severity::Info => 6,
            Severity::Notice => 5,
            Severity::Warning => 4,
            Severity::Error => 3,
            Severity::Alert => 1,
        }
    }

    fn of(kind: &str, act: &Value) -> Self {
        let was_denied = || act.pointer("/operation/result/result").and_then(Value::as_str) == Some("denied");
        match kind {
            "ledger_alarm" | "rollback_accepted" => Severity::Alert,
            "outbox_dropped" | "outbox_late" | "anchor_late" => Severity::Error,
            "denied"
            | "login_refused"
            | "request_refused"
            | "session_cut"
            | "cut_requested"
            | "command_flagged"
            | "clock_stepped"
            | "second_factor_locked"
            | "second_factor_reset"
            | "files_unreadable" => Severity::Warning,
            "file_operation" if was_denied() => Severity::Warning,
            _ if kind.starts_with("break_glass") => Severity::Alert,
            _ if [
                "person_",
                "key_",
                "target_",
                "grant_",
                "template_",
                "token_",
                "request_",
                "bastion_key_",
                "passkey_",
                "identity_",
                "invite_",
            ]
            .iter()
            .any(|prefix| kind.starts_with(prefix)) =>
            {
                Severity::Notice
            }
            _ => Severity::Info,
        }
    }
}

/// Something to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub seq: u64,
    pub part: u32,
    pub at: DateTime<Utc>,
    /// The act's name, or `command`.
    pub kind: String,
    pub severity: Severity,
    /// The whole of it.
    json: Map<String, Value>,
}

/// A command that was run, with where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RanCommand {
    pub session: SessionId,
    pub recording: RecordingId,
    pub at: DateTime<Utc>,
    pub command: Command,
    pub flag: Option<String>,
}

impl Record {
    /// The record of the event in place `seq`, from its entry in the ledger of that name. Of an act that this version does not
    /// know only that it was is told: what would have to be left out of it is not known either.
    pub fn of_event(ledger: &str, seq: u64, bytes: &[u8], paths: Detail) -> Self {
        let known = entry::decode(bytes).ok();
        let outline = entry::outline(bytes).ok();
        let (id, at, kind) = match &outline {
            Some(outline) => (outline.id.to_string(), outline.at, outline.kind.clone()),
            // An event whose row was taken away, or altered beyond reading: that there was one is told in its place.
            None => (String::new(), DateTime::UNIX_EPOCH, "unreadable".to_owned()),
        };
        let mut act = known
            .as_ref()
            .and_then(|event| serde_json::to_value(&event.act).ok())
            .unwrap_or_else(|| json!({ "act": kind, "unknown": true }));
        if let Some(operation) = act.get_mut("operation") {
            hide_paths(operation, paths);
        }
        let severity = if outline.is_none() { Severity::Alert } else { Severity::of(&kind, &act) };
        let mut json = head(ledger, seq, 0, &id, at, &kind, severity);
        let actor = known.and_then(|event| serde_json::to_value(event.actor).ok());
        json.extend(actor.map(|actor| ("actor".to_owned(), actor)));
        json.insert("act".to_owned(), act);
        Self { seq, part: 0, at, kind, severity, json }
    }

    /// The record of a command, as a part of the event of its recording's end; `None` if commands are not told.
    pub fn of_command(ledger: &str, seq: u64, part: u32, id: &str, ran: &RanCommand, commands: Detail) -> Option<Self> {
        let text = commands.command(&ran.command.text)?;
        let severity = if ran.flag.is_some() { Severity::Warning } else { Severity::Info };
        let mut json = head(ledger, seq, part, id, ran.at, "command", severity);
        let command = json!({
            "session": ran.session,
            "recording": ran.recording,
            "number": ran.command.number,
            "text": text,
            "is_cut": ran.command.is_cut,
            "certainty": ran.command.certainty,
            "exit_status": ran.command.exit_status,
            "duration_us": ran.command.duration,
            "flag": ran.flag,
        });
        json.insert("command".to_owned(), command);
        Some(Self { seq, part, at: ran.at, kind: "command".to_owned(), severity, json })
    }

    /// Adds the text of the command that the event tells of, as much of it as is told.
    pub fn add_command(&mut self, text: &str, commands: Detail) {
        let act = self.json.get_mut("act").and_then(Value::as_object_mut);
        if let (Some(act), Some(text)) = (act, commands.command(text)) {
            act.insert("command".to_owned(), Value::String(text));
        }
    }

    /// As JSON, without a line feed.
    pub fn text(&self) -> String {
        // A map of what was read from JSON always serialises.
        serde_json::to_string(&self.json).unwrap_or_default()
    }

    /// The whole of it as a value.
    pub fn json(&self) -> &Map<String, Value> {
        &self.json
    }

    /// As JSON of at most `most` bytes: what is longer says that it is left out, and where it can be read.
    pub fn text_within(&self, most: usize) -> String {
        let text = self.text();
        if text.len() <= most {
            return text;
        }
        let mut json = self.json.clone();
        json.insert("act".to_owned(), json!({ "act": self.kind, "left_out_bytes": text.len() }));
        json.remove("command");
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// As a point: what one filters by as tags, what there are many of as fields, the whole in `message`.
    pub fn line(&self, measurement: &str, tags: &BTreeMap<String, String>) -> Line {
        let mut all = tags.clone();
        for (key, value) in [("event", self.kind.as_str()), ("severity", self.severity.as_str())] {
            all.insert(key.to_owned(), value.to_owned());
        }
        let mut fields = vec![("status".to_owned(), Field::Text(self.severity.as_str().to_owned()))];
        for (key, value) in &self.json {
            match (key.as_str(), value) {
                ("kind" | "severity" | "at", _) => {}
                // The members of what happened under their own names: `grant`, `session`, `operation_path`.
                ("act" | "command", Value::Object(members)) => {
                    for (key, value) in members.iter().filter(|(key, _)| *key != "act") {
                        flatten(key, value, &mut fields);
                    }
                }
                (key, value) => flatten(key, value, &mut fields),
            }
        }
        fields.push(("message".to_owned(), Field::Text(self.text())));
        Line { measurement: measurement.to_owned(), tags: all, fields, at: self.at }
    }
}

fn head(
    ledger: &str,
    seq: u64,
    part: u32,
    id: &str,
    at: DateTime<Utc>,
    kind: &str,
    severity: Severity,
) -> Map<String, Value> {
    let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let head = json!({
        "seq": seq, "part": part, "ledger": ledger, "id": id, "at": at, "kind": kind, "severity": severity.as_str(),
    });
    match head {
        Value::Object(head) => head,
        _ => Map::new(), // it is an object, as written above
    }
}

/// Members of a file operation whose text is a word of ours or a hash. All other text is taken for a path, so that a member
/// that is added later is not told by mistake.
const NO_PATHS: [&str; 8] = ["file_act", "result", "direction", "digest", "sha256", "file_denial", "program", "what"];

fn hide_paths(value: &mut Value, paths: Detail) {
    match value {
        Value::Object(members) => {
            members.retain(|key, value| match value {
                Value::String(_) if NO_PATHS.contains(&key.as_str()) => true,
                Value::String(path) => match paths.path(path) {
                    Some(told) => {
                        *path = told;
                        true
                    }
                    None => false,
                },
                other => {
                    hide_paths(other, paths);
                    true
                }
            });
        }
        Value::Array(items) => {
            items.retain_mut(|item| match item {
                Value::String(path) => match paths.path(path) {
                    Some(told) => {
                        *path = told;
                        true
                    }
                    None => false,
                },
                other => {
                    hide_paths(other, paths);
                    true
                }
            });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Members of members get names of both; a list is one text of JSON.
fn flatten(key: &str, value: &Value, fields: &mut Vec<(String, Field)>) {
    let field = match value {
        Value::Null => return,
        Value::Bool(truth) => Field::Truth(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Field::Integer(number),
            None => Field::Text(number.to_string()),
        },
        Value::String(text) => Field::Text(text.clone()),
        Value::Array(_) => Field::Text(value.to_string()),
        Value::Object(members) => {
            for (name, value) in members {
                flatten(&format!("{key}_{name}"), value, fields);
            }
            return;
        }
    };
    fields.push((key.to_owned(), field));
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::commands::Certainty;
    use crate::event::{Act, Actor, Event};
    use crate::files::{FileAct, FileDenial, FileOperation, FilePath, FileResult};
    use crate::id::EventId;

    fn entry_of(act: Act) -> Vec<u8> {
        let id = EventId::from_uuid(Uuid::from_u128(9));
        let at = "2026-03-01T12:00:00.5Z".parse().unwrap();
        entry::encode(&Event { id, at, actor: Actor::Bastion, act }).unwrap()
    }

    fn file_operation() -> Vec<u8> {
        let path = |text: &str| FilePath(text.as_bytes().to_vec());
        let act = FileAct::Rename { from: path("/srv/client/a"), to: path("/srv/client/b") };
        let denial = FileDenial::Look { path: path("/srv/client/b") };
        let operation = FileOperation { act, result: FileResult::Denied { denial } };
        let (session, recording) = (SessionId::from_uuid(Uuid::nil()), RecordingId::from_uuid(Uuid::nil()));
        entry_of(Act::FileOperation { session, recording, operation })
    }

    #[test]
    fn paths_are_told_as_chosen_wherever_they_are_in_an_operation() {
        let told = |paths| Record::of_event("l", 7, &file_operation(), paths).text();
        let full = told(Detail::Full);
        assert!(full.contains("\"from\":\"/srv/client/a\"") && full.contains("\"severity\":\"warning\""), "{full}");
        for paths in [Detail::Off, Detail::Hash, Detail::Redacted] {
            let told = told(paths);
            assert!(!told.contains("client"), "{told}");
            assert!(told.contains("\"file_act\":\"rename\"") && told.contains("\"file_denial\":\"look\""), "{told}");
        }
        assert!(told(Detail::Redacted).contains("\"to\":\"/srv/*/*\""));
        assert!(!told(Detail::Off).contains("\"to\""));
    }

    #[test]
    fn of_an_act_that_is_not_known_only_that_it_was_is_told() {
        let known = String::from_utf8(file_operation()).unwrap();
        let newer = known.replace("\"act\":\"file_operation\"", "\"act\":\"file_moved_away\"");
        let record = Record::of_event("l", 7, newer.as_bytes(), Detail::Full);
        assert_eq!(record.kind, "file_moved_away");
        assert!(!record.text().contains("/srv"), "{}", record.text());
        let gone = Record::of_event("l", 8, b"", Detail::Full);
        assert_eq!((gone.kind.as_str(), gone.severity, gone.seq), ("unreadable", Severity::Alert, 8));
    }

    fn ran() -> RanCommand {
        RanCommand {
            session: SessionId::from_uuid(Uuid::nil()),
            recording: RecordingId::from_uuid(Uuid::nil()),
            at: DateTime::UNIX_EPOCH,
            command: Command {
                number: 3,
                at: 0,
                text: "mysql -psecret".to_owned(),
                is_cut: false,
                certainty: Certainty::Exec,
                exit_status: Some(0),
                duration: None,
            },
            flag: None,
        }
    }

    #[test]
    fn a_command_is_told_as_chosen_and_not_at_all_where_that_is_off() {
        let told = |commands| Record::of_command("l", 9, 4, "e-1", &ran(), commands);
        assert_eq!(told(Detail::Off), None);
        let redacted = told(Detail::Redacted).unwrap();
        assert!(redacted.text().contains("\"text\":\"mysql -p\"") && !redacted.text().contains("secret"));
        assert_eq!((redacted.seq, redacted.part, redacted.kind.as_str()), (9, 4, "command"));
    }

    #[test]
    fn a_point_has_tags_to_filter_by_and_the_whole_in_its_message() {
        let record = Record::of_event("b/ledger", 7, &file_operation(), Detail::Redacted);
        let tags = [("client".to_owned(), "acme".to_owned())].into();
        let mut text = String::new();
        record.line("bastion_audit", &tags).write_to(&mut text);
        assert!(
            text.starts_with("bastion_audit,client=acme,event=file_operation,severity=warning status=\"warning\","),
            "{text}"
        );
        for part in ["seq=7i", "part=0i", "operation_from=\"/srv/*/*\"", "ledger=\"b/ledger\"", "message=\"{\\\""] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.ends_with(" 1772366400500000000\n"), "{text}");
    }

    #[test]
    fn what_is_too_long_for_a_message_says_so_and_keeps_its_reference() {
        let act = Act::LedgerAlarm { place: "x".to_owned(), what: "y".repeat(9000) };
        let record = Record::of_event("l", 7, &entry_of(act), Detail::Off);
        let short = record.text_within(8000);
        assert!(short.len() < 500 && short.contains("\"left_out_bytes\"") && short.contains("\"id\":\"e-"), "{short}");
    }
}
