//! What the page of a bundle tells: plain sentences and tables, as JSON. All of it is text to the page.

use chrono::{DateTime, SecondsFormat, Utc};
use sallyport_domain::channel::Program;
use sallyport_domain::event::{Act, SessionEnd};
use sallyport_domain::grant::Grant;
use sallyport_domain::id::SessionId;
use sallyport_domain::ledger::bundle;
use sallyport_domain::ledger::manifest::{Exit, RecordingSeal};
use serde_json::{Value, json};

use super::proved::Placed;
use super::{EvidenceError, Played, PlayedRecording};
use crate::app::transcript::visible;
use crate::store::db::commands::CommandRecord;

/// The page's data.
pub(super) fn tell(
    grant: &Grant,
    session: Option<SessionId>,
    made_at: DateTime<Utc>,
    played: &[Played],
    placed: &[Placed],
) -> Result<Value, EvidenceError> {
    let events: Result<Vec<Value>, _> = placed.iter().map(|placed| serde_json::from_slice(placed.json())).collect();
    let events = events.map_err(EvidenceError::internal)?;
    let what = match session {
        Some(session) => format!("Session {session}"),
        None => format!("Grant {}", grant.id),
    };
    let recordings: usize = played.iter().map(|played| played.recordings.len()).sum();
    let gaps: usize =
        played.iter().flat_map(|played| &played.recordings).map(|recording| recording.seal.gaps.len()).sum();
    let missing = if gaps == 0 {
        "nothing is missing in what was recorded".to_owned()
    } else {
        format!("{gaps} places are marked as missing")
    };
    let summary = [
        format!("{what}, as of {}.", instant(made_at)),
        format!("The reason that was given: {}", visible(&grant.reason)),
        format!("{} sessions came to rest, in which {recordings} programs were recorded; {missing}.", played.len()),
    ];
    let terms = &grant.terms;
    let facts = [
        ("grant", grant.id.to_string()),
        ("from", instant(grant.window.not_before())),
        ("until", instant(grant.window.not_after())),
        ("targets", terms.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("as", terms.logins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("may", serde_json::to_string(&terms.capabilities).unwrap_or_default()),
        (
            "revoked",
            grant
                .revoked
                .as_ref()
                .map_or("no".to_owned(), |revoked| format!("{}: {}", instant(revoked.at), visible(&revoked.reason))),
        ),
    ];
    let sessions: Vec<Value> = played.iter().map(|played| of_session(played, &events)).collect();
    Ok(json!({ "title": what, "summary": summary, "facts": facts, "sessions": sessions, "events": events }))
}

fn of_session(played: &Played, events: &[Value]) -> Value {
    let manifest = &played.manifest;
    let title = format!("{} → {}@{}", manifest.person.name, manifest.login, manifest.target.name);
    let facts = [
        ("session", manifest.session.to_string()),
        ("from", instant(manifest.opened_at)),
        ("until", instant(manifest.ended_at)),
        ("ended because", ending(&manifest.end)),
        ("proved by", manifest.person.method.clone()),
        ("came from", format!("{} with {}", manifest.client.address, visible(&manifest.client.version))),
        ("target", manifest.target.address.clone()),
        ("its host keys", manifest.target.host_keys.join("\n")),
        ("bastion", format!("{}, {}", manifest.node, manifest.software)),
    ];
    let session = manifest.session.to_string();
    let files: Vec<Value> = events.iter().filter_map(|event| file_row(event, &session)).collect();
    let reviews: Vec<Value> = events.iter().filter_map(|event| review_row(event, &session)).collect();
    let recordings: Vec<Value> = played.recordings.iter().map(of_recording).collect();
    let commands: Vec<Value> = played.commands.iter().map(command_row).collect();
    json!({
        "title": title,
        "facts": facts,
        "reviews": reviews,
        "commands": commands,
        "files": files,
        "recordings": recordings,
    })
}

/// A command as its line in the bundle's file of commands has it.
pub(super) fn command(record: &CommandRecord) -> Value {
    let CommandRecord { recording, at, command, flag } = record;
    json!({
        "recording": recording,
        "number": command.number,
        "at": at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "text": command.text,
        "is_cut": command.is_cut,
        "certainty": command.certainty,
        "exit_status": command.exit_status,
        "duration_us": command.duration,
        "flag": flag,
    })
}

fn command_row(record: &CommandRecord) -> Value {
    let command = &record.command;
    let mut text = visible(&command.text);
    if command.is_cut {
        text.push('…');
    }
    let status = command.exit_status.map(|status| status.to_string()).unwrap_or_default();
    let flag = record.flag.as_deref().map(|flag| format!("flagged by {}", visible(flag))).unwrap_or_default();
    json!([instant(record.at), text, status, command.certainty.as_str().replace('_', " "), flag])
}

fn of_recording(played: &PlayedRecording) -> Value {
    let seal = &played.seal;
    json!({
        "title": title(seal),
        "film": played.film,
        "cast": played.has_cast.then(|| bundle::cast_name(seal.recording)),
        "transcript": played.transcript,
        "transcript_cut": played.transcript_cut,
        "transcript_file": bundle::transcript_name(seal.recording),
    })
}

fn title(seal: &RecordingSeal) -> String {
    let program = match &seal.program {
        Program::Shell => "a shell".to_owned(),
        Program::Exec { command } => visible(&String::from_utf8_lossy(command)),
        Program::Subsystem { name } => format!("subsystem {}", visible(name)),
        Program::Forward { destination } => format!("a forward to {destination}"),
    };
    let end = match &seal.end.exit {
        Some(Exit::Status(status)) => format!("status {status}"),
        Some(Exit::Signal(name)) => format!("signal {}", visible(name)),
        None => seal.end.how.clone(),
    };
    format!("{}. {program} ({end}, {} s)", seal.channel, seal.duration_us / 1_000_000)
}

fn file_row(event: &Value, session: &str) -> Option<Value> {
    let act = event.get("act")?;
    if act.get("act")?.as_str()? != "file_operation" || act.get("session")?.as_str()? != session {
        return None;
    }
    let operation = act.get("operation")?.as_object()?;
    let what: Vec<String> = operation
        .iter()
        .filter(|(name, _)| !["result", "denial", "code"].contains(&name.as_str()))
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}: {}", visible(text)),
            other => format!("{name}: {other}"),
        })
        .collect();
    let result: Vec<String> =
        ["result", "code", "denial"].iter().filter_map(|name| operation.get(*name)).map(text).collect();
    Some(json!([event.get("at")?, what.join(", "), result.join(" ")]))
}

/// What a reviewer said of the session, or what there was to look at: when, who, what, in which words.
fn review_row(event: &Value, session: &str) -> Option<Value> {
    let told = event.get("act").filter(|act| act.get("session").and_then(Value::as_str) == Some(session))?;
    let (what, words) = match serde_json::from_value(told.clone()).ok()? {
        Act::ReviewDecided { risk, reasons, choice, .. } => {
            let what = if choice.is_asked() { "to be reviewed" } else { "no review asked for" };
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            (format!("{what}: risk {risk}"), reasons.join("; "))
        }
        Act::ReviewOverdue { due_at, .. } => ("overdue".to_owned(), format!("since {}", instant(due_at))),
        Act::ReviewNoted { note, .. } => ("note".to_owned(), note),
        Act::SessionFlagged { words, .. } => ("flag".to_owned(), words),
        Act::SessionReviewed { verdict, note, coverage, .. } => {
            let seen = coverage.seen_us.min(coverage.active_us).saturating_mul(100).checked_div(coverage.active_us);
            let seen = seen.map_or("nothing to see".to_owned(), |percent| format!("{percent} % seen"));
            (format!("verdict: {}, {seen}", verdict.as_str().replace('_', " ")), note)
        }
        _ => return None,
    };
    let actor = event.get("actor")?;
    let by = ["name", "kind"].iter().find_map(|name| actor.get(*name)).map(text).unwrap_or_default();
    Some(json!([event.get("at")?, visible(&by), what, visible(&words)]))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn ending(end: &SessionEnd) -> String {
    match end {
        SessionEnd::ClientClosed => "the client closed the connection".to_owned(),
        SessionEnd::TargetClosed => "the target closed the connection".to_owned(),
        SessionEnd::TargetUnreachable { message } => format!("the target could not be reached: {}", visible(message)),
        SessionEnd::Cut { reason } => format!("it was cut: {}", visible(&reason.to_string())),
        SessionEnd::Crashed => "the bastion died; what it had recorded was recovered".to_owned(),
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
