//! What the bastion holds of a cell: its session with recordings, files and events; and whether that is what the client saw.

use sallyport_domain::cast;
use sallyport_domain::recording::frame::Body;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::calls::{self, Seen, Stage};
use super::{Case, Cell, Client, Deed, Hears};
use crate::bastion::Bastion;
use crate::support::eventually;
use crate::support::sshd::Sshd;

/// More than the table makes.
const ALL: &str = "100000";

/// Sessions and events of all cells, once all sessions have ended.
pub struct Books {
    sessions: Vec<Value>,
    events: Vec<Value>,
}

impl Books {
    pub async fn read(bastion: &Bastion) -> Self {
        let list = async |arguments: &[&str]| -> Vec<Value> {
            bastion.ask(arguments).await["items"].as_array().expect("a list").clone()
        };
        eventually("all sessions have ended", async || list(&["session", "ls", "--live"]).await.is_empty()).await;
        let sessions = list(&["session", "ls", "--limit", ALL]).await;
        Self { sessions, events: list(&["audit", "ls", "--limit", ALL]).await }
    }

    fn sessions_of(&self, cell: &Cell) -> Vec<&Value> {
        self.sessions.iter().filter(|session| session["person"]["name"] == cell.person()).collect()
    }

    /// Whether an event is of this cell: by its person, or in one of its sessions.
    fn is_of(&self, cell: &Cell, event: &Value) -> bool {
        let session = &event["act"]["session"];
        event["actor"]["name"] == cell.person()
            || (session.is_string() && self.sessions_of(cell).iter().any(|own| own["id"] == *session))
    }
}

/// A statement that must hold, or the cell fails by it.
fn hold(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

pub async fn check(books: &Books, stage: &Stage, cell: &Cell, seen: &Seen) -> Result<(), String> {
    if cell.case == Case::Allowed {
        check_allowed(books, stage, cell, seen).await
    } else {
        check_refused(books, stage, cell, seen).await
    }
}

/// The streams of one recording, each as it went.
#[derive(Default)]
struct Streams {
    input: Vec<u8>,
    output: Vec<u8>,
    errors: Vec<u8>,
    /// What a terminal showed: output and the bastion's own words in their order.
    shown: Vec<u8>,
    exit: Option<u32>,
}

struct Recorded {
    kind: String,
    program: String,
    streams: Streams,
}

async fn recordings(stage: &Stage, session: &Value) -> Result<Vec<Recorded>, String> {
    let id = session["id"].as_str().unwrap();
    let shown = stage.bastion.ask(&["session", "show", id]).await;
    let mut recorded = Vec::new();
    for recording in shown["recordings"].as_array().unwrap() {
        let channel = recording["channel"].to_string();
        let export = ["session", "export", id, "--channel", &channel, "--format", "cast"];
        let (_, frames) = cast::decode(&stage.bastion.admin(&export).await).map_err(|error| error.to_string())?;
        let mut streams = Streams::default();
        for frame in frames {
            match frame.body {
                Body::Input(bytes) => streams.input.extend_from_slice(&bytes),
                Body::Output(bytes) => {
                    streams.output.extend_from_slice(&bytes);
                    streams.shown.extend_from_slice(&bytes);
                }
                Body::Notice(bytes) => streams.shown.extend_from_slice(&bytes),
                Body::ErrorOutput(bytes) => streams.errors.extend_from_slice(&bytes),
                Body::ExitStatus(status) => streams.exit = Some(status),
                _ => {}
            }
        }
        hold(recording["gaps"] == 0, || format!("the recording has gaps: {recording}"))?;
        let text = |name: &str| recording[name].as_str().unwrap_or_default().to_owned();
        recorded.push(Recorded { kind: text("kind"), program: text("program_text"), streams });
    }
    Ok(recorded)
}

async fn check_allowed(books: &Books, stage: &Stage, cell: &Cell, seen: &Seen) -> Result<(), String> {
    hold(seen.failed.is_none(), || seen.failed.clone().unwrap_or_default())?;
    let sessions = books.sessions_of(cell);
    hold(!sessions.is_empty(), || "there is no session".to_owned())?;
    let mut recorded = Vec::new();
    for session in &sessions {
        let (target, login) = (&session["target"]["name"], &session["login"]);
        hold(*target == "web-1" && *login == Sshd::login(), || format!("a session to {login}@{target}"))?;
        recorded.extend(recordings(stage, session).await?);
    }
    match cell.client.deed() {
        Deed::Exec => check_commands(cell, &sessions, &recorded),
        Deed::Shell => {
            let shells: Vec<&Recorded> = recorded.iter().filter(|one| one.kind == "shell").collect();
            hold(shells.len() == 1 && recorded.len() == 1, || format!("{} recordings", recorded.len()))?;
            hold(shells[0].streams.shown == seen.stdout, || "the screen is not what was recorded".to_owned())?;
            hold(shells[0].streams.exit == Some(calls::EXIT), || format!("exit {:?}", shells[0].streams.exit))
        }
        Deed::Copy => check_copies(stage, cell, &sessions, &recorded).await,
        Deed::Forward => {
            hold(recorded.len() == 1, || format!("{} recordings", recorded.len()))?;
            let one = &recorded[0];
            let (heard, sent) = (&one.streams.output, &one.streams.input);
            hold(one.program == format!("forward to {}", stage.server), || one.program.clone())?;
            hold(sent == calls::SAID.as_bytes() && heard == calls::ANSWER.as_bytes(), || {
                format!("recorded {sent:?} and {heard:?}")
            })
        }
        Deed::Work => {
            let programs: Vec<&str> = recorded.iter().map(|one| one.program.as_str()).collect();
            let has = |text: &str| programs.iter().any(|program| program.contains(text));
            let expected = if cell.client == Client::Git {
                has("git-upload-pack") && has("git-receive-pack") && recorded.len() == 2
            } else {
                // One connection for all of it, unless a slow machine lets that go idle in between.
                has("sftp") && has("/bin/sh -c") && !sessions.is_empty()
            };
            hold(expected, || format!("in {} sessions: {programs:?}", sessions.len()))
        }
    }
}

fn check_commands(cell: &Cell, sessions: &[&Value], recorded: &[Recorded]) -> Result<(), String> {
    let expected = if cell.client == Client::ControlMaster { 2 } else { 1 };
    hold(sessions.len() == 1 && recorded.len() == expected, || {
        format!("{} sessions, {} recordings", sessions.len(), recorded.len())
    })?;
    for one in recorded {
        hold(one.kind == "exec" && one.program == calls::command(), || format!("{}: {}", one.kind, one.program))?;
        hold(one.streams.input == calls::INPUT.as_bytes(), || format!("input {:?}", one.streams.input))?;
        hold(one.streams.output == calls::output().as_bytes(), || "other output was recorded".to_owned())?;
        hold(one.streams.errors == calls::ERRORS.as_bytes(), || format!("errors {:?}", one.streams.errors))?;
        hold(one.streams.exit == Some(calls::EXIT), || format!("exit {:?}", one.streams.exit))?;
    }
    Ok(())
}

/// The file went in and came out, each told with its bytes and SHA-256 (rsync's: as a run).
async fn check_copies(stage: &Stage, cell: &Cell, sessions: &[&Value], recorded: &[Recorded]) -> Result<(), String> {
    let kind = match cell.client {
        Client::ScpLegacy | Client::PscpLegacy | Client::Rsync => "exec",
        _ => "subsystem",
    };
    hold(recorded.len() == 2 && recorded.iter().all(|one| one.kind == kind), || {
        let kinds: Vec<&str> = recorded.iter().map(|one| one.kind.as_str()).collect();
        format!("recordings {kinds:?}")
    })?;
    let content = calls::content(cell);
    let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut ways = Vec::new();
    for session in sessions {
        let files = stage.bastion.ask(&["session", "files", session["id"].as_str().unwrap()]).await;
        let is_rsync = cell.client == Client::Rsync;
        let what = if is_rsync { "sync" } else { "transfer" };
        for file in files["items"].as_array().unwrap().iter().filter(|file| file["what"] == what) {
            let whole = file["bytes"] == content.len() && file["sha256"] == hash.as_str() && file["partial"] == false;
            hold(file["result"] == "done" && (whole || is_rsync), || format!("told {file}"))?;
            let path = file["path"].as_str().unwrap_or_default();
            hold(path == stage.there(cell).to_str().unwrap(), || format!("told of {path}"))?;
            ways.push(file["direction"].as_str().unwrap_or_default().to_owned());
        }
    }
    ways.sort();
    hold(ways == ["download", "upload"], || format!("told {ways:?}"))
}

async fn check_refused(books: &Books, stage: &Stage, cell: &Cell, seen: &Seen) -> Result<(), String> {
    let said = format!("{}{}", String::from_utf8_lossy(&seen.stdout), seen.stderr);
    hold(seen.failed.is_some() && seen.code != Some(0), || format!("it was not refused: {said}"))?;
    let own: Vec<&Value> = books.events.iter().filter(|event| books.is_of(cell, event)).collect();
    let why = cell.case.why();
    if cell.hears != Hears::Nothing {
        hold(said.contains(why), || format!("{why:?} is not in {said:?}"))?;
    }
    if cell.hears == Hears::Reference {
        let (_, rest) = said.split_once("reference ").ok_or_else(|| format!("no reference in {said:?}"))?;
        let reference: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let event = own.iter().find(|event| event["id"] == reference.as_str());
        let event = event.ok_or_else(|| format!("no event {reference} of this person"))?;
        let kind = event["kind"].as_str().unwrap_or_default();
        hold(matches!(kind, "denied" | "request_refused"), || format!("{reference} is {event}"))?;
    } else {
        let tells = own.iter().any(|event| match event["kind"].as_str() {
            Some("denied" | "request_refused") => true,
            Some("file_operation") => event["act"].to_string().contains("denied"),
            _ => false,
        });
        hold(tells, || format!("no event tells of it: {own:?}"))?;
    }
    // Nothing came through, and nothing ran without a record.
    for session in books.sessions_of(cell) {
        hold(matches!(cell.case, Case::TooSmall { .. }), || format!("there is a session: {session}"))?;
        for one in recordings(stage, session).await? {
            hold(cell.client.deed() == Deed::Copy, || format!("{} ran", one.program))?;
        }
    }
    Ok(())
}
