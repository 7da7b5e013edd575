//! The verifier of a bundle. It goes through everything, in one order that `docs/formats.md` fixes, and tells each thing that is
//! wrong with its place: the first one is what was changed, the others are what that leads to. What it does not complain about is
//! proved, whatever else is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::super::canonical::{self, CanonicalError};
use super::super::checkpoint::{Checkpoint, CheckpointError, KnownKey};
use super::super::entry::{self, ENTRY, EntryError};
use super::super::key_change::{KeyChain, KeyChangeError};
use super::super::manifest::{Manifest, ManifestFault};
use super::super::merkle::{Head, ProofError, verify_inclusion};
use super::super::note::{Note, VerifierKey};
use super::archive::{Archive, ArchiveError};
use super::recording::{self, RecordingFault};
use super::{
    CHECKPOINT, Contents, EVENTS, FILES, GRANT, KEY, KEY_CHANGES, LIST, PLAIN, PROOFS, Proof, UNLISTED, cast_name,
    file_line, manifest_name, segments_name,
};
use crate::event::Actor;
use crate::hash::Hash;
use crate::id::{GrantId, RecordingId, SessionId};
use crate::retention::had_its_hands;

/// What is wrong as a whole is said to be here.
const ARCHIVE: &str = "archive";

/// The longest path of an inclusion proof: a tree has fewer than 2⁶⁴ leaves.
const MOST_PATH: usize = 64;

/// What a verifier found.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// What the bundle is about, as far as it could be read.
    pub about: Option<About>,
    pub proven: Proven,
    /// In the order of the checks: what was changed comes first. Empty if all is well.
    pub faults: Vec<Fault>,
}

/// What a bundle says that it is, once the key has proved it.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// The ledger's name, and how many events it had.
    pub ledger: String,
    pub entries: u64,
    pub grant: GrantId,
    pub session: Option<SessionId>,
    pub made_at: DateTime<Utc>,
    pub software: String,
}

/// What is proved: it was so when the checkpoint was signed, and for recordings when they were made.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Proven {
    pub events: u64,
    /// Sessions whose manifest is proved.
    pub sessions: Vec<String>,
    /// Recordings all of whose bytes are proved, and their casts.
    pub recordings: Vec<String>,
    pub segments: u64,
    /// Files that are what the bastion gave out.
    pub files: u64,
    /// Sessions that have not come to rest, or were left out: nothing but their events is here.
    pub unsealed: Vec<String>,
    /// Sessions whose recordings were deleted, as the books say.
    pub deleted: Vec<Deleted>,
}

/// A deletion that its tombstone proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deleted {
    pub session: String,
    pub at: String,
    pub asked_by: String,
    pub approved_by: String,
    /// The retention rule that made it due, if one did.
    pub rule: Option<String>,
    pub reason: String,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Fault {
    /// The file in the archive, with a line where it has lines: `events.jsonl:12`. `archive` is the archive itself.
    pub place: String,
    pub what: Wrong,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("it is not there")]
    Missing,
    #[error("nothing lists it: it was put in later")]
    Extra,
    #[error("its SHA-256 should be {expected}, and is {found}")]
    Altered { expected: Hash, found: Hash },
    #[error("it is not a public key and a line feed")]
    KeyForm,
    #[error("the key has the fingerprint {found}, and {expected}, which was asked for, has not led to it")]
    Key { expected: Hash, found: Hash },
    #[error("it is no chain of key changes")]
    KeyChanges(#[from] KeyChangeError),
    #[error("it does not lead to the key {key}")]
    LeadsElsewhere { key: Hash },
    #[error("it is not a checkpoint that this key signed")]
    Checkpoint(#[from] CheckpointError),
    #[error("it should have one signature, and has {found}")]
    Signatures { found: usize },
    #[error("it is not in its one form")]
    Form(#[source] CanonicalError),
    #[error("it is not a proof")]
    ProofForm,
    #[error("it is not in the form of events")]
    EventForm(#[source] EntryError),
    #[error("event {number} is not what was signed")]
    Event {
        number: u64,
        #[source]
        source: ProofError,
    },
    #[error("the proof of event {number} does not hold; the event is the listed one")]
    Proof {
        number: u64,
        #[source]
        source: ProofError,
    },
    #[error("it does not end in a line feed")]
    NoLineFeed,
    #[error("{events} events have {proofs} proofs")]
    Lines { events: usize, proofs: usize },
    #[error("event {number} is out of order, or there twice")]
    Order { number: u64 },
    #[error("the last event should be `evidence_made`, proved, about this bundle: it binds the list of contents")]
    NotBound,
    #[error("event {number} was left out")]
    EventMissing { number: u64 },
    #[error("event {number} is not listed")]
    EventExtra { number: u64 },
    #[error("it does not agree with the event `{act}` of {of}")]
    Disagrees { act: &'static str, of: String },
    #[error("there is no event `{act}` of {of}")]
    NoEvent { act: &'static str, of: String },
    #[error("recording {recording} was begun, and the manifest of its session does not list it")]
    Unlisted { recording: String },
    #[error(
        "{events} events tell of file operations in recording {recording}, and its segments tell of {frames} others"
    )]
    FileOperations { recording: String, events: u64, frames: u64 },
    #[error(transparent)]
    Manifest(#[from] ManifestFault),
    #[error(transparent)]
    Recording(#[from] RecordingFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, chain(&self.what))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = BTreeMap::from([("place", self.place.clone()), ("what", chain(&self.what))]);
        told.serialize(serializer)
    }
}

impl Verdict {
    /// Whether everything is proved.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Verdict {
    /// For a person: whether it holds, what is wrong, what is proved.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most faults that are written out.
        const MOST_FAULTS: usize = 20;
        match self.faults.as_slice() {
            [] => writeln!(f, "This bundle is sound: everything in it is proved.")?,
            [_] => writeln!(f, "This bundle is NOT sound:")?,
            faults => {
                writeln!(f, "This bundle is NOT sound. {} things are wrong, what was changed first:", faults.len())?
            }
        }
        for fault in self.faults.iter().take(MOST_FAULTS) {
            writeln!(f, "  {fault}")?;
        }
        if let Some(About { ledger, entries, grant, session, made_at, software }) = &self.about {
            let session = session.map(|session| format!(", session {session}")).unwrap_or_default();
            writeln!(f, "about     grant {grant}{session}")?;
            writeln!(f, "made      {made_at} by {software}")?;
            writeln!(f, "ledger    {ledger}, {entries} events when it was signed")?;
        }
        let Proven { events, sessions, recordings, segments, files, unsealed, deleted } = &self.proven;
        let still = if self.is_sound() { "proved   " } else { "still proved" };
        writeln!(f, "{still} {events} events, {} sessions, {} recordings", sessions.len(), recordings.len())?;
        writeln!(f, "          {segments} segments byte for byte, {files} files as they were given out")?;
        for session in unsealed {
            writeln!(f, "not here  what was recorded in session {session}: it has not come to rest")?;
        }
        for Deleted { session, at, asked_by, approved_by, rule, reason } in deleted {
            let rule = rule.as_ref().map(|rule| format!(", by the rule {}", rule.escape_debug())).unwrap_or_default();
            writeln!(f, "deleted   what was recorded in session {session}, at {at}{rule}")?;
            writeln!(f, "          asked for by {asked_by}, approved by {approved_by}: {}", reason.escape_debug())?;
        }
        Ok(())
    }
}

/// Verifies a bundle against the fingerprint of the ledger's public key, which must come from elsewhere.
pub fn verify(bytes: &[u8], fingerprint: Hash) -> Verdict {
    let mut verdict = Verdict::default();
    match Archive::parse(bytes) {
        Ok(archive) => {
            Checker { archive: &archive, verdict: &mut verdict }.run(fingerprint);
            // Whatever is wrong inside shows in the checksums around it, too: that is not news.
            if verdict.is_sound()
                && let Err(fault) = archive.check()
            {
                verdict.faults.push(Fault { place: ARCHIVE.to_owned(), what: fault.into() });
            }
        }
        Err(fault) => verdict.faults.push(Fault { place: ARCHIVE.to_owned(), what: fault.into() }),
    }
    verdict
}

/// An event that is proved.
struct Event {
    number: u64,
    at: Value,
    actor: Value,
    act: Value,
}

impl Event {
    fn kind(&self) -> &str {
        self.text("act")
    }

    fn text(&self, name: &str) -> &str {
        self.act.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn actor(&self) -> Option<Actor> {
        Actor::deserialize(&self.actor).ok()
    }
}

/// The lines of the events' file.
#[derive(Default)]
struct Events {
    /// Proved ones that something is compared with.
    proved: Vec<Event>,
    /// Number and leaf of every line, proved or not.
    there: Vec<(u64, Hash)>,
    /// What [`FILES`] should be.
    file_lines: Vec<u8>,
    /// How often each operation is told of, by recording.
    file_operations: BTreeMap<String, BTreeMap<Vec<u8>, u64>>,
}

struct Checker<'a, 'v> {
    archive: &'v Archive<'a>,
    verdict: &'v mut Verdict,
}

impl<'a> Checker<'a, '_> {
    fn fault(&mut self, place: impl Into<String>, what: impl Into<Wrong>) {
        self.verdict.faults.push(Fault { place: place.into(), what: what.into() });
    }

    fn file(&self, name: &str) -> &'a [u8] {
        self.archive.get(name).unwrap_or_default()
    }

    fn run(&mut self, fingerprint: Hash) {
        for name in UNLISTED {
            if self.archive.get(name).is_none() {
                return self.fault(name, Wrong::Missing);
            }
        }
        let checkpoint = match self.checkpoint(fingerprint) {
            Ok(checkpoint) => checkpoint,
            Err((place, wrong)) => return self.fault(place, wrong),
        };
        let contents = Contents::decode(self.file(LIST)).map_err(|error| self.fault(LIST, Wrong::Form(error))).ok();
        let events = self.events(checkpoint.head(), contents.as_ref());
        let contents = contents.filter(|contents| self.is_bound(contents, &events));
        if let Some(contents) = &contents {
            self.verdict.about = Some(About {
                ledger: checkpoint.origin().to_owned(),
                entries: checkpoint.head().size,
                grant: contents.grant,
                session: contents.session,
                made_at: contents.made_at,
                software: contents.software.clone(),
            });
            self.listed_events(contents, &events);
        }
        self.sessions(&events);
        if let Some(contents) = &contents {
            self.grant(contents, &events);
        }
        self.file_lines(&events);
        if let Some(contents) = &contents {
            self.listed_files(contents);
        }
    }

    /// The key must be the one asked for, or one that it has led to, and must have signed the checkpoint.
    fn checkpoint(&self, expected: Hash) -> Result<Checkpoint, (&'static str, Wrong)> {
        let key = std::str::from_utf8(self.file(KEY)).ok().and_then(|text| text.strip_suffix('\n'));
        let key: VerifierKey = key.and_then(|key| key.parse().ok()).ok_or((KEY, Wrong::KeyForm))?;
        let found = key.fingerprint();
        let chain = match self.archive.get(KEY_CHANGES) {
            Some(bytes) => KeyChain::parse(bytes).map_err(|error| (KEY_CHANGES, error.into()))?,
            None => KeyChain::default(),
        };
        let leads_here = chain.end() == Some(&key);
        let is_known = found == expected || (leads_here && !chain.from_key(expected).is_empty());
        if !is_known {
            return Err((KEY, Wrong::Key { expected, found }));
        }
        if !chain.changes().is_empty() && !leads_here {
            return Err((KEY_CHANGES, Wrong::LeadsElsewhere { key: found }));
        }
        let bad = |error: CheckpointError| (CHECKPOINT, error.into());
        let note = Note::parse(self.file(CHECKPOINT)).map_err(|error| bad(error.into()))?;
        // Signatures of others would be bytes that nobody verifies.
        let signatures = note.signatures().len();
        if signatures != 1 {
            return Err((CHECKPOINT, Wrong::Signatures { found: signatures }));
        }
        let origin = key.name().to_string();
        let known = [KnownKey { key, last_size: None }];
        Checkpoint::open(self.file(CHECKPOINT), &origin, &known).map_err(bad)
    }

    /// Verifies each event with its proof. `contents` may tell which of the two is wrong.
    fn events(&mut self, head: Head, contents: Option<&Contents>) -> Events {
        let mut events = Events::default();
        for name in [EVENTS, PROOFS] {
            if !self.file(name).ends_with(b"\n") {
                self.fault(name, Wrong::NoLineFeed);
            }
        }
        let (entries, proofs) = (lines(self.file(EVENTS)), lines(self.file(PROOFS)));
        if entries.len() != proofs.len() {
            self.fault(EVENTS, Wrong::Lines { events: entries.len(), proofs: proofs.len() });
        }
        let listed = contents.map(|contents| contents.events.as_slice()).unwrap_or_default();
        let listed: BTreeMap<u64, Hash> = listed.iter().map(|event| (event.number, event.leaf)).collect();
        for (place, (json, proof)) in entries.into_iter().zip(proofs).enumerate() {
            let (event_at, proof_at) = (format!("{EVENTS}:{}", place + 1), format!("{PROOFS}:{}", place + 1));
            let proof: Option<Proof> = canonical::decode(PLAIN, proof).ok();
            let Some(Proof { number, path }) = proof.filter(|proof| proof.path.len() <= MOST_PATH) else {
                self.fault(proof_at, Wrong::ProofForm);
                continue;
            };
            let entry = [ENTRY.prefix.as_bytes(), json].concat();
            let leaf = entry::hash(&entry);
            if events.there.last().is_some_and(|(last, _)| *last >= number) {
                self.fault(proof_at, Wrong::Order { number });
                continue;
            }
            events.there.push((number, leaf));
            if let Err(source) = verify_inclusion(leaf, number, &head, &path) {
                if listed.get(&number) == Some(&leaf) {
                    self.fault(proof_at, Wrong::Proof { number, source });
                } else {
                    self.fault(event_at, Wrong::Event { number, source });
                }
                continue;
            }
            if let Err(source) = entry::outline(&entry) {
                self.fault(event_at, Wrong::EventForm(source));
                continue;
            }
            self.verdict.proven.events += 1;
            if let Ok(event) = canonical::check(ENTRY, &entry) {
                events.take(number, event);
            }
        }
        events
    }

    /// Whether the last event proves the list of contents.
    fn is_bound(&mut self, contents: &Contents, events: &Events) -> bool {
        let last = events.there.last().map(|(number, _)| *number);
        let bound = events.proved.last().filter(|event| Some(event.number) == last && event.kind() == "evidence_made");
        let Some(event) = bound else {
            self.fault(EVENTS, Wrong::NotBound);
            return false;
        };
        let found = Hash::of(self.file(LIST));
        let expected = event.text("contents").parse().unwrap_or(Hash::ZERO);
        if found != expected {
            self.fault(LIST, Wrong::Altered { expected, found });
            return false;
        }
        let session = contents.session.map(|session| session.to_string()).unwrap_or_default();
        if event.text("grant") != contents.grant.to_string() || event.text("session") != session {
            self.fault(LIST, Wrong::Disagrees { act: "evidence_made", of: contents.grant.to_string() });
            return false;
        }
        true
    }

    /// The events must be those that were listed when the bundle was made, and the one that tells of that.
    fn listed_events(&mut self, contents: &Contents, events: &Events) {
        let (_, there) = events.there.split_last().unwrap_or((&(0, Hash::ZERO), &[]));
        let there: BTreeSet<u64> = there.iter().map(|(number, _)| *number).collect();
        let listed: BTreeSet<u64> = contents.events.iter().map(|event| event.number).collect();
        if let Some(&number) = listed.difference(&there).next() {
            self.fault(EVENTS, Wrong::EventMissing { number });
        }
        if let Some(&number) = there.difference(&listed).next() {
            self.fault(EVENTS, Wrong::EventExtra { number });
        }
    }

    fn sessions(&mut self, events: &Events) {
        // A session that was completed later is sealed once more, and each seal names the one before it.
        let mut sealed: BTreeMap<&str, &Event> = BTreeMap::new();
        for event in events.of("session_sealed") {
            let before = sealed.insert(event.text("session"), event);
            if before.map_or("", |before| before.text("manifest")) != event.text("supersedes") {
                let of = event.text("session").to_owned();
                self.fault(EVENTS, Wrong::Disagrees { act: "session_sealed", of });
            }
        }
        let mut last: Vec<&Event> = sealed.values().copied().collect();
        last.sort_by_key(|event| event.number);
        for event in last {
            self.session(event, events);
        }
        let opened = events.of("session_opened").map(|event| event.text("session"));
        let unsealed = opened.filter(|session| !sealed.contains_key(session)).map(str::to_owned);
        self.verdict.proven.unsealed = unsealed.collect();
    }

    /// Verifies a session from its seal on.
    fn session(&mut self, sealed: &Event, events: &Events) {
        let session = sealed.text("session");
        let Ok(id) = session.parse::<SessionId>() else {
            return self.fault(EVENTS, Wrong::Disagrees { act: "session_sealed", of: session.to_owned() });
        };
        let place = manifest_name(id);
        let Some(bytes) = self.archive.get(&place) else {
            return self.fault(place, Wrong::Missing);
        };
        let (expected, found) = (sealed.text("manifest").parse().unwrap_or(Hash::ZERO), Hash::of(bytes));
        if expected != found {
            return self.fault(place, Wrong::Altered { expected, found });
        }
        let manifest = match Manifest::decode(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return self.fault(place, Wrong::Form(error)),
        };
        if let Err(fault) = manifest.check() {
            return self.fault(place, fault);
        }
        let before = self.verdict.faults.len();
        self.session_events(&place, &manifest, events);
        let deleted = events.deleted(session, expected);
        for seal in &manifest.recordings {
            let (segments, cast) = (segments_name(seal.recording), cast_name(seal.recording));
            let recording = seal.recording.to_string();
            if deleted.is_some() && self.is_left_out(seal.recording) {
                continue;
            }
            let Some(stored) = self.archive.get(&segments) else {
                self.fault(segments, Wrong::Missing);
                continue;
            };
            match recording::check(&manifest, seal, stored, self.archive.get(&cast)) {
                Ok(sound) => {
                    let told = events.file_operations.get(&recording).cloned().unwrap_or_default();
                    let has_crashed = manifest.end == crate::event::SessionEnd::Crashed;
                    if agree(&told, &sound.file_operations, has_crashed) {
                        self.verdict.proven.segments += sound.segments;
                        self.verdict.proven.recordings.push(recording);
                    } else {
                        let (events, frames) = (told.values().sum(), sound.file_operations.values().sum());
                        self.fault(EVENTS, Wrong::FileOperations { recording, events, frames });
                    }
                }
                Err(fault) if fault.is_of_cast() => self.fault(cast, fault),
                Err(fault) => self.fault(segments, fault),
            }
        }
        if self.verdict.faults.len() == before {
            self.verdict.proven.sessions.push(session.to_owned());
        }
        self.verdict.proven.deleted.extend(deleted);
    }

    /// Whether the bundle has nothing of a recording. Of one that was deleted later it may have everything: it is verified then.
    fn is_left_out(&self, recording: RecordingId) -> bool {
        [segments_name(recording), cast_name(recording)].iter().all(|name| self.archive.get(name).is_none())
    }

    /// What a manifest says and what events say of the same.
    fn session_events(&mut self, place: &str, manifest: &Manifest, events: &Events) {
        let session = manifest.session.to_string();
        let of = |act: &'static str| events.of(act).find(|event| event.text("session") == session);
        match of("session_opened") {
            None => self.fault(EVENTS, Wrong::NoEvent { act: "session_opened", of: session.clone() }),
            Some(event) if event.text("grant") == manifest.grant.id.to_string() => {}
            Some(_) => self.fault(place, Wrong::Disagrees { act: "session_opened", of: session.clone() }),
        }
        let end = serde_json::to_value(&manifest.end).unwrap_or_default();
        match of("session_ended") {
            None => self.fault(EVENTS, Wrong::NoEvent { act: "session_ended", of: session.clone() }),
            Some(event) if event.act.get("end") == Some(&end) => {}
            Some(_) => self.fault(place, Wrong::Disagrees { act: "session_ended", of: session.clone() }),
        }
        let mut listed = BTreeSet::new();
        for seal in &manifest.recordings {
            let recording = seal.recording.to_string();
            // Of a recording that was completed later, the last end counts.
            let of = |act: &'static str| events.of(act).filter(|event| event.text("recording") == recording).last();
            if of("recording_started").is_none() {
                self.fault(EVENTS, Wrong::NoEvent { act: "recording_started", of: recording.clone() });
            }
            let (segments, chain) = (seal.segments.len() as u64, seal.chain.to_string());
            match of("recording_ended") {
                None => self.fault(EVENTS, Wrong::NoEvent { act: "recording_ended", of: recording.clone() }),
                Some(event)
                    if event.text("chain") == chain
                        && event.act.get("segments").and_then(Value::as_u64) == Some(segments) => {}
                Some(_) => self.fault(place, Wrong::Disagrees { act: "recording_ended", of: recording.clone() }),
            }
            listed.insert(recording);
        }
        let started = events.of("recording_started").filter(|event| event.text("session") == session);
        for recording in started.map(|event| event.text("recording")).filter(|id| !listed.contains(*id)) {
            self.fault(place, Wrong::Unlisted { recording: recording.to_owned() });
        }
    }

    /// The grant must be what its events made of it.
    fn grant(&mut self, contents: &Contents, events: &Events) {
        let Some(bytes) = self.archive.get(GRANT) else {
            return; // the list of contents knows
        };
        let of = contents.grant.to_string();
        let json = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let grant = match canonical::check(PLAIN, json) {
            Ok(grant) if bytes.ends_with(b"\n") => grant,
            Ok(_) => return self.fault(GRANT, Wrong::Form(CanonicalError::Spelling { at: bytes.len() })),
            Err(error) => return self.fault(GRANT, Wrong::Form(error)),
        };
        let acts = |act: &'static str| events.of(act).filter(|event| event.text("grant") == of);
        let Some(made) = acts("grant_made").next() else {
            return self.fault(EVENTS, Wrong::NoEvent { act: "grant_made", of });
        };
        let same = |name: &str| grant.get(name).is_some() && grant.get(name) == made.act.get(name);
        let window = |of: &Value, name: &str| of.get("window").and_then(|window| window.get(name)).cloned();
        let is_made_so = grant.get("id").and_then(Value::as_str) == Some(of.as_str())
            && ["people", "terms", "reason"].into_iter().all(same)
            && window(&grant, "not_before") == window(&made.act, "not_before");
        if !is_made_so {
            return self.fault(GRANT, Wrong::Disagrees { act: "grant_made", of });
        }
        let extended = acts("grant_extended").last();
        let not_after = match extended {
            Some(event) => event.act.get("not_after").cloned(),
            None => window(&made.act, "not_after"),
        };
        if window(&grant, "not_after") != not_after {
            let act = if extended.is_some() { "grant_extended" } else { "grant_made" };
            return self.fault(GRANT, Wrong::Disagrees { act, of });
        }
        let is_revoked = grant.get("revoked").is_some_and(|revoked| !revoked.is_null());
        if is_revoked != acts("grant_revoked").next().is_some() {
            self.fault(GRANT, Wrong::Disagrees { act: "grant_revoked", of });
        }
    }

    /// The list of file operations must be what the events give.
    fn file_lines(&mut self, events: &Events) {
        let found = self.file(FILES);
        if found != events.file_lines {
            let same = found.iter().zip(&events.file_lines).take_while(|(a, b)| a == b).map(|(a, _)| *a);
            let line = 1 + same.filter(|&byte| byte == b'\n').count();
            self.fault(format!("{FILES}:{line}"), Wrong::Disagrees { act: "file_operation", of: FILES.to_owned() });
        }
    }

    /// All files must be those that were listed when the bundle was made.
    fn listed_files(&mut self, contents: &Contents) {
        let wrong: BTreeSet<String> = self.verdict.faults.iter().map(|fault| file_of(&fault.place)).collect();
        let mut listed = BTreeSet::from(UNLISTED);
        for file in &contents.files {
            listed.insert(&file.name);
            match self.archive.get(&file.name) {
                _ if wrong.contains(&file.name) => {}
                None => self.fault(&file.name, Wrong::Missing),
                Some(content) => match Hash::of(content) {
                    found if found == file.sha256 => self.verdict.proven.files += 1,
                    found => self.fault(&file.name, Wrong::Altered { expected: file.sha256, found }),
                },
            }
        }
        for file in self.archive.files() {
            if !listed.contains(file.name.as_str()) {
                self.fault(file.name.as_str(), Wrong::Extra);
            }
        }
    }
}

impl Events {
    fn of<'e>(&'e self, act: &'static str) -> impl Iterator<Item = &'e Event> {
        self.proved.iter().filter(move |event| event.kind() == act)
    }

    /// The deletion of what was recorded in a session, if its tombstone is about this manifest and had the hands that it takes.
    fn deleted(&self, session: &str, manifest: Hash) -> Option<Deleted> {
        let manifest = manifest.to_string();
        let is_about = |event: &&Event| event.text("session") == session;
        let mut stones =
            self.of("recordings_deleted").filter(is_about).filter(|stone| stone.text("manifest") == manifest);
        stones.find_map(|stone| {
            let is_asked =
                |asked: &&Event| asked.text("deletion") == stone.text("deletion") && asked.number < stone.number;
            let asked = self.of("deletion_asked").filter(is_about).find(is_asked)?;
            let (asked_by, approved_by) = (asked.actor()?, stone.actor()?);
            let rule = stone.act.get("rule").and_then(Value::as_str).map(str::to_owned);
            let is_told_so =
                stone.act.get("asked_by") == Some(&asked.actor) && asked.act.get("rule") == stone.act.get("rule");
            (is_told_so && had_its_hands(&asked_by, &approved_by, rule.is_some())).then(|| Deleted {
                session: session.to_owned(),
                at: stone.at.as_str().unwrap_or_default().to_owned(),
                asked_by: name_of(&asked_by),
                approved_by: name_of(&approved_by),
                rule,
                reason: stone.text("reason").to_owned(),
            })
        })
    }

    fn take(&mut self, number: u64, mut event: Value) {
        if let Some(Ok(line)) = file_line(&event) {
            self.file_lines.extend_from_slice(&line);
            let act = event.get("act").unwrap_or(&Value::Null);
            let recording = act.get("recording").and_then(Value::as_str).unwrap_or_default().to_owned();
            let operation = canonical::encode(PLAIN, act.get("operation").unwrap_or(&Value::Null));
            *self.file_operations.entry(recording).or_default().entry(operation.unwrap_or_default()).or_default() += 1;
        }
        let mut member = |name: &str| event.get_mut(name).map(Value::take).unwrap_or_default();
        let event = Event { number, at: member("at"), actor: member("actor"), act: member("act") };
        if COMPARED.contains(&event.kind()) {
            self.proved.push(event);
        }
    }
}

/// The acts that something is compared with.
const COMPARED: [&str; 11] = [
    "deletion_asked",
    "evidence_made",
    "grant_extended",
    "grant_made",
    "grant_revoked",
    "recording_ended",
    "recording_started",
    "recordings_deleted",
    "session_ended",
    "session_opened",
    "session_sealed",
];

fn name_of(actor: &Actor) -> String {
    match actor {
        Actor::Bastion => "the bastion, by its rules".to_owned(),
        Actor::Principal { name, .. } => name.to_string(),
        Actor::Operator { .. } | Actor::Stranger { .. } => "nobody who may".to_owned(),
    }
}

/// Whether events tell of what frames tell of. A crash may have kept events from being written that frames tell of.
fn agree(events: &BTreeMap<Vec<u8>, u64>, frames: &BTreeMap<Vec<u8>, u64>, has_crashed: bool) -> bool {
    if has_crashed {
        events.iter().all(|(operation, count)| frames.get(operation).is_some_and(|there| count <= there))
    } else {
        events == frames
    }
}

fn file_of(place: &str) -> String {
    place.split(':').next().unwrap_or_default().to_owned()
}

/// The lines of a file, each of which ends in a line feed.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|&byte| byte == b'\n').collect()
}
