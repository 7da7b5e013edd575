//! Evidence: everything about a grant, or one session of it, in one file that proves itself to somebody who trusts neither side.
//! What such a bundle is, and how it is verified, is in `sallyport_domain::ledger::bundle`.
//!
//! Making one is an event. It is written before the first byte is given out, and it carries the hash of the bundle's list of
//! contents: so the order is to gather, to list, to write the event, to wait for its checkpoint, and to prove.
//!
//! - [`proved`]: places, paths, checkpoint and key, from the ledger.
//! - `spool`: where the bundle grows.
//! - `page`, `film`: what a person sees of it.

mod film;
mod page;
mod proved;
mod spool;
mod story;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::cast::{Encoder, Version};
use sallyport_domain::event::{Act, Actor, Event};
use sallyport_domain::grant::Grant;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{EventId, GrantId, RecordingId, SessionId};
use sallyport_domain::ledger::bundle::recording::{self, RecordingFault};
use sallyport_domain::ledger::bundle::{self, Contents, ListedEvent, Proof, archive};
use sallyport_domain::ledger::canonical::CanonicalError;
use sallyport_domain::ledger::entry::{self, ENTRY};
use sallyport_domain::ledger::manifest::{Manifest, RecordingSeal};
use sallyport_domain::ledger::verify::SegmentFault;
use serde_json::Value;

use self::film::{Camera, Film};
use self::spool::{Growing, Spool};
use super::ledger::{self, LedgerError};
use super::{App, audit};
use crate::app::transcript::Transcript;
use crate::store::blob::BlobError;
use crate::store::db::commands::{self, CommandRecord};
use crate::store::db::events::{self, EventFilter};
use crate::store::db::{DbError, Tx, grants, manifests, recordings, sessions};

pub use spool::Bundle;

/// Program and version.
const SOFTWARE: &str = concat!("sallyport ", env!("CARGO_PKG_VERSION"));

/// What all films in a page may have, in bytes, and all transcripts: a browser opens what is below at once.
const FILM_BUDGET: usize = 48 << 20;
const TEXT_BUDGET: usize = 16 << 20;
/// What one of them may have.
const ONE_FILM: usize = 12 << 20;
const ONE_TEXT: usize = 2 << 20;

/// Events that are read at once.
const AT_ONCE: u32 = 1000;

/// Acts that name a grant or a request, or only a recording, and so are found by their kind. Acts of a session are found by it.
const KINDS: [&str; 14] = [
    "denied",
    "evidence_made",
    "grant_extended",
    "grant_made",
    "grant_revoked",
    "hold_released",
    "hold_set",
    "recording_exported",
    "recording_viewed",
    "request_approved",
    "request_denied",
    "request_expired",
    "request_made",
    "request_withdrawn",
];

/// A request is answered within this time, or never.
const REQUEST_LIFE: TimeDelta = TimeDelta::days(30);

/// What a bundle is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Grant(GrantId),
    Session(SessionId),
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("there is no grant {0}")]
    NoGrant(GrantId),
    #[error("there is no session {0}")]
    NoSession(SessionId),
    #[error("session {0} has not come to rest: it lives, or ended just now")]
    NotSealed(SessionId),
    #[error("a bundle cannot be as large as that: make one for each session")]
    TooLarge(#[source] archive::TooLarge),
    #[error("segment {number} of recording {recording} cannot be fetched")]
    Fetch { recording: RecordingId, number: usize, source: Box<BlobError> },
    #[error("recording {recording} is not what its session's manifest says")]
    Recording { recording: RecordingId, source: Box<RecordingFault> },
    #[error("the event that tells of the bundle got no place in the ledger in time")]
    NotSequenced,
    #[error("the ledger's key was changed meanwhile; try again")]
    KeyChanged,
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("cannot write the temporary file that a bundle grows in")]
    Spool(#[from] io::Error),
    #[error("cannot put the bundle together")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl EvidenceError {
    fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        EvidenceError::Internal(Box::new(error))
    }
}

impl From<CanonicalError> for EvidenceError {
    fn from(error: CanonicalError) -> Self {
        EvidenceError::internal(error)
    }
}

/// What was recorded in a session, for the page.
struct Played {
    manifest: Arc<Manifest>,
    commands: Vec<CommandRecord>,
    recordings: Vec<PlayedRecording>,
}

struct PlayedRecording {
    seal: RecordingSeal,
    film: Option<Film>,
    transcript: String,
    transcript_cut: bool,
    /// It was deleted: there are no files of it.
    is_gone: bool,
}

impl PlayedRecording {
    fn gone(seal: RecordingSeal) -> Self {
        let transcript = "What was recorded here was deleted; the events tell by whom, and why.\n".to_owned();
        Self { seal, film: None, transcript, transcript_cut: false, is_gone: true }
    }
}

/// What the page may still hold.
struct Budget {
    film: usize,
    text: usize,
}

/// Finds out whether there is such a thing, so that an answer can say no before it begins.
pub async fn check(app: &App, subject: Subject) -> Result<(), EvidenceError> {
    let mut tx = app.db.read().await?;
    grant_of(&mut tx, subject).await?;
    if let Subject::Session(session) = subject
        && (!manifests::is_sealed(&mut tx, session).await? || manifests::find(&mut tx, session).await?.is_none())
    {
        return Err(EvidenceError::NotSealed(session));
    }
    Ok(())
}

/// Makes a bundle. Takes disk for all of it, and memory for its events, its page and one segment.
pub async fn make(app: &App, actor: &Actor, subject: Subject) -> Result<Bundle, EvidenceError> {
    match make_once(app, actor, subject).await {
        // The list of contents has another chain of keys by now.
        Err(EvidenceError::KeyChanged) => make_once(app, actor, subject).await,
        made => made,
    }
}

async fn make_once(app: &App, actor: &Actor, subject: Subject) -> Result<Bundle, EvidenceError> {
    let mut tx = app.db.read().await?;
    let grant = grant_of(&mut tx, subject).await?;
    let wanted = match subject {
        Subject::Session(session) => vec![session],
        Subject::Grant(id) => sessions_of(&mut tx, id).await?,
    };
    let found = gather(&mut tx, &grant, &wanted).await?;
    let changes = ledger::rotation::changes(&mut tx).await?;
    drop(tx);

    // Of these only the books are left, the tombstone among them.
    let deleted = found.iter().filter_map(|event| match &event.act {
        Act::RecordingsDeleted { session, .. } => Some(*session),
        _ => None,
    });
    let deleted: BTreeSet<SessionId> = deleted.collect();
    let mut spool = Spool::new()?;
    if !changes.is_empty() {
        spool.add(bundle::KEY_CHANGES, changes.as_bytes())?;
    }
    let mut budget = Budget { film: FILM_BUDGET, text: TEXT_BUDGET };
    let mut played = Vec::new();
    let mut sealed: Vec<(SessionId, Hash)> = Vec::new();
    for event in &found {
        if let Act::SessionSealed { session, manifest, .. } = &event.act {
            sealed.retain(|(earlier, _)| earlier != session); // it was completed, and sealed once more
            sealed.push((*session, *manifest));
        }
    }
    for (session, manifest) in sealed {
        let mut tx = app.db.read().await?;
        let mut all = manifests::all(&mut tx, session).await?;
        let bytes = all.pop().ok_or(EvidenceError::NotSealed(session))?;
        // A node that was lost is back and completes it, or has done so since the events were read.
        let is_superseded = all.iter().any(|earlier| Hash::of(earlier) == manifest);
        if is_superseded || !manifests::is_sealed(&mut tx, session).await? {
            return Err(EvidenceError::NotSealed(session));
        }
        drop(tx);
        let manifest = Arc::new(Manifest::decode(&bytes)?);
        spool.add(&bundle::manifest_name(session), &bytes)?;
        let commands = commands_of(&mut app.db.read().await?, session).await?;
        let mut lines = Vec::new();
        for command in &commands {
            lines.extend_from_slice(&bundle::line(&story::command(command))?);
        }
        spool.add(&bundle::commands_name(session), &lines)?;
        let mut recordings = Vec::new();
        for seal in manifest.recordings.clone() {
            if deleted.contains(&session) {
                recordings.push(PlayedRecording::gone(seal));
                continue;
            }
            let recording;
            (recording, spool) = record(app, &manifest, seal, spool, &mut budget).await?;
            recordings.push(recording);
        }
        played.push(Played { manifest, commands, recordings });
    }

    let session = match subject {
        Subject::Session(session) => Some(session),
        Subject::Grant(_) => None,
    };
    let made_at = app.clock.now();
    spool.add(bundle::GRANT, &bundle::line(&grant)?)?;
    spool.add(bundle::REVIEWS, b"")?;
    // Places are needed for the list, and so for its hash: what happened just now may not have one yet.
    let ids: Vec<EventId> = found.iter().map(|event| event.id).collect();
    let mut placed = proved::places(app, &ids).await?;
    placed.sort_unstable_by_key(|placed| placed.number);
    let mut lines = Vec::new();
    for placed in &placed {
        let told: Value = serde_json::from_slice(placed.json()).map_err(EvidenceError::internal)?;
        if let Some(line) = bundle::file_line(&told) {
            lines.extend_from_slice(&line?);
        }
    }
    spool.add(bundle::FILES, &lines)?;
    let data = story::tell(&grant, session, made_at, &played, &placed)?;
    drop(played);
    let page = tokio::task::spawn_blocking(move || page::render(&data)).await.map_err(EvidenceError::internal)?;
    spool.add(bundle::INDEX, page.as_bytes())?;
    drop(page);

    let listed = placed.iter().map(|placed| ListedEvent { number: placed.number, leaf: entry::hash(&placed.entry) });
    let contents = Contents {
        grant: grant.id,
        session,
        made_at,
        software: SOFTWARE.to_owned(),
        events: listed.collect(),
        files: spool.listed(),
    };
    let contents = contents.encode()?;
    let act = Act::EvidenceMade { grant: grant.id, session, contents: Hash::of(&contents) };
    let event = audit::record(app, actor, act).await?;
    placed.extend(proved::places(app, &[event]).await?);
    finish(app, spool, contents, placed, &changes).await
}

/// Adds what proves the rest.
async fn finish(
    app: &App,
    mut spool: Spool,
    contents: Vec<u8>,
    placed: Vec<proved::Placed>,
    changes: &str,
) -> Result<Bundle, EvidenceError> {
    let numbers: Vec<u64> = placed.iter().map(|placed| placed.number).collect();
    let proved::Proofs { checkpoint, key, paths } = proved::prove(app, &numbers).await?;
    if changes != ledger::rotation::changes(&mut app.db.read().await?).await? {
        return Err(EvidenceError::KeyChanged);
    }
    let (mut lines, mut proofs) = (Vec::new(), Vec::new());
    for (placed, path) in placed.iter().zip(paths) {
        lines.extend_from_slice(placed.json());
        lines.push(b'\n');
        proofs.extend_from_slice(&bundle::line(&Proof { number: placed.number, path })?);
    }
    spool.add(bundle::CHECKPOINT, checkpoint.as_bytes())?;
    spool.add(bundle::LIST, &contents)?;
    spool.add(bundle::EVENTS, &lines)?;
    spool.add(bundle::KEY, format!("{key}\n").as_bytes())?;
    spool.add(bundle::PROOFS, &proofs)?;
    spool.finish()
}

async fn grant_of(tx: &mut Tx, subject: Subject) -> Result<Grant, EvidenceError> {
    let id = match subject {
        Subject::Grant(id) => id,
        Subject::Session(session) => {
            let record = sessions::find(tx, session).await?.ok_or(EvidenceError::NoSession(session))?;
            record.session.grant
        }
    };
    grants::find(tx, id).await?.ok_or(EvidenceError::NoGrant(id))
}

async fn sessions_of(tx: &mut Tx, grant: GrantId) -> Result<Vec<SessionId>, DbError> {
    let mut filter = sessions::SessionFilter { grant: Some(grant), ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = sessions::list(tx, &filter, AT_ONCE).await?;
        filter.after = page.last().map(|record| (record.session.started_at, record.session.id));
        all.extend(page.iter().map(|record| record.session.id));
        if page.len() < AT_ONCE as usize {
            return Ok(all);
        }
    }
}

/// Everything that was run in a session, in its order.
async fn commands_of(tx: &mut Tx, session: SessionId) -> Result<Vec<CommandRecord>, DbError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = commands::list(tx, session, after, AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some((last.at, last.recording, last.command.number));
        all.extend(page);
    }
}

/// Every event about the grant and the sessions.
async fn gather(tx: &mut Tx, grant: &Grant, wanted: &[SessionId]) -> Result<Vec<Event>, DbError> {
    let mut all = Vec::new();
    let mut names = BTreeSet::from([grant.id.to_string()]);
    for &session in wanted {
        let filter = EventFilter { session: Some(session), ..EventFilter::default() };
        all.extend(list(tx, &filter).await?);
        let of_session = recordings::of_session(tx, session).await?;
        names.extend(of_session.iter().map(|record| record.recording.id.to_string()));
        names.insert(session.to_string());
    }
    let since = DateTime::<Utc>::checked_sub_signed(grant.created_at, REQUEST_LIFE);
    let (mut others, mut asked) = (Vec::new(), BTreeSet::new());
    for kind in KINDS {
        let filter = EventFilter { kind: Some(kind.to_owned()), since, ..EventFilter::default() };
        others.extend(list(tx, &filter).await?);
    }
    // A request is named together with its grant by the yes to it, or by itself if it asks for more time or for a session: what
    // became of it names the request alone.
    for event in &others {
        if let Act::RequestApproved { request, .. } | Act::RequestMade { request, .. } = &event.act
            && names_one(&event.act, &names)
        {
            asked.insert(request.to_string());
        }
    }
    names.append(&mut asked);
    let known: BTreeSet<EventId> = all.iter().map(|event| event.id).collect();
    all.extend(others.into_iter().filter(|event| !known.contains(&event.id) && names_one(&event.act, &names)));
    Ok(all)
}

async fn list(tx: &mut Tx, filter: &EventFilter) -> Result<Vec<Event>, DbError> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = events::list(tx, after, filter, AT_ONCE).await?;
        let is_last = page.len() < AT_ONCE as usize;
        after = page.last().map_or(after, |(number, _)| *number);
        all.extend(page.into_iter().map(|(_, event)| event));
        if is_last {
            return Ok(all);
        }
    }
}

/// Whether one of `names` is anywhere in the act as a whole word.
fn names_one(act: &Act, names: &BTreeSet<String>) -> bool {
    fn has(value: &Value, names: &BTreeSet<String>) -> bool {
        match value {
            Value::String(text) => names.contains(text),
            Value::Array(values) => values.iter().any(|value| has(value, names)),
            Value::Object(members) => members.values().any(|value| has(value, names)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    serde_json::to_value(act).is_ok_and(|act| has(&act, names))
}

/// Adds a recording: its segments, its cast, its transcript; and gives what the page shows of it.
async fn record(
    app: &App,
    manifest: &Arc<Manifest>,
    seal: RecordingSeal,
    spool: Spool,
    budget: &mut Budget,
) -> Result<(PlayedRecording, Spool), EvidenceError> {
    let id = seal.recording;
    let rows = recordings::segments(&mut app.db.read().await?, id, 0).await?;
    let mut making = Making::new(Arc::clone(manifest), seal, spool, budget)?;
    for (number, row) in rows.iter().enumerate() {
        let fetched = app.blobs.get(&row.object).await;
        let stored =
            fetched.map_err(|source| EvidenceError::Fetch { recording: id, number, source: Box::new(source) })?;
        let work = move || making.segment(number, &stored).map(|()| making);
        making = tokio::task::spawn_blocking(work).await.map_err(EvidenceError::internal)??;
    }
    let (played, spool) =
        tokio::task::spawn_blocking(move || making.finish(rows.len())).await.map_err(EvidenceError::internal)??;
    let film = played.film.as_ref().map_or(0, Film::bytes);
    budget.film -= film.min(budget.film);
    budget.text -= played.transcript.len().min(budget.text);
    Ok((played, spool))
}

/// A recording that is being added. Its methods compute, and belong on a thread that may.
struct Making {
    manifest: Arc<Manifest>,
    seal: RecordingSeal,
    spool: Spool,
    segments: Growing,
    cast: Growing,
    transcript: Growing,
    encoder: Option<Encoder>,
    transcriber: Option<Transcript>,
    camera: Option<Camera>,
    /// The transcript as the page has it.
    text: String,
    text_cut: bool,
    film_budget: usize,
    text_budget: usize,
}

impl Making {
    fn new(manifest: Arc<Manifest>, seal: RecordingSeal, spool: Spool, budget: &Budget) -> Result<Self, EvidenceError> {
        let id = seal.recording;
        Ok(Self {
            manifest,
            seal,
            spool,
            segments: Growing::new(&bundle::segments_name(id))?,
            cast: Growing::new(&bundle::cast_name(id))?,
            transcript: Growing::new(&bundle::transcript_name(id))?,
            encoder: None,
            transcriber: None,
            camera: None,
            text: String::new(),
            text_cut: false,
            film_budget: budget.film.min(ONE_FILM),
            text_budget: budget.text.min(ONE_TEXT),
        })
    }

    fn wrong(&self, source: impl Into<RecordingFault>) -> EvidenceError {
        EvidenceError::Recording { recording: self.seal.recording, source: Box::new(source.into()) }
    }

    fn segment(&mut self, number: usize, stored: &Bytes) -> Result<(), EvidenceError> {
        let (recording, of) = (self.seal.recording, self.seal.segments.len());
        let Some(segment) = self.seal.segments.get(number).copied() else {
            return Err(self.wrong(SegmentFault::Extra { recording, number, of }));
        };
        let (expected, found) = (segment.sha256, Hash::of(stored));
        if expected != found {
            return Err(self.wrong(SegmentFault::Altered { recording, number, expected, found }));
        }
        let (snapshot, frames) = recording::open(number, &segment, stored).map_err(|fault| self.wrong(fault))?;
        self.spool.put(&mut self.segments, stored)?;
        let mut lines = Vec::new();
        let header = recording::header(&self.manifest, &self.seal, Some(&snapshot));
        if number == 0 {
            self.camera = header.size.map(|size| Camera::new(size, self.film_budget));
        }
        let encoder = self.encoder.get_or_insert_with(|| Encoder::new(Version::V3, &header, &mut lines));
        let transcriber = self.transcriber.get_or_insert_with(|| Transcript::new(header.size));
        let mut text = String::new();
        for frame in &frames {
            encoder.frame(frame, &mut lines);
            transcriber.frame(frame, &mut text);
            if let Some(camera) = &mut self.camera {
                camera.frame(frame);
            }
        }
        self.spool.put(&mut self.cast, &lines)?;
        self.put_text(&text)
    }

    fn put_text(&mut self, text: &str) -> Result<(), EvidenceError> {
        let room = self.text_budget - self.text.len().min(self.text_budget);
        let shown = text.floor_char_boundary(room);
        self.text.push_str(text.get(..shown).unwrap_or_default());
        self.text_cut |= shown < text.len();
        Ok(self.spool.put(&mut self.transcript, text.as_bytes())?)
    }

    /// All of the `segments` that there are were added.
    fn finish(mut self, segments: usize) -> Result<(PlayedRecording, Spool), EvidenceError> {
        let (recording, of) = (self.seal.recording, self.seal.segments.len());
        if segments < of {
            return Err(self.wrong(SegmentFault::Missing { recording, number: segments, of }));
        }
        let (mut lines, mut text) = (Vec::new(), String::new());
        let encoder = self.encoder.take().unwrap_or_else(|| {
            Encoder::new(Version::V3, &recording::header(&self.manifest, &self.seal, None), &mut lines)
        });
        encoder.finish(&mut lines);
        if let Some(transcriber) = self.transcriber.take() {
            transcriber.finish(&mut text);
        }
        self.spool.put(&mut self.cast, &lines)?;
        self.put_text(&text)?;
        self.spool.close(self.segments)?;
        self.spool.close(self.cast)?;
        self.spool.close(self.transcript)?;
        let film = self.camera.map(Camera::finish);
        let (transcript, transcript_cut) = (self.text, self.text_cut);
        let played = PlayedRecording { seal: self.seal, film, transcript, transcript_cut, is_gone: false };
        Ok((played, self.spool))
    }
}

/// The JSON of an entry, without the line before it.
fn json_of(entry: &[u8]) -> &[u8] {
    entry.strip_prefix(ENTRY.prefix.as_bytes()).unwrap_or(entry)
}
