//! Bringing home: what happened under an opened envelope goes to the bastion's database and object store, once they answer.
//!
//! The grant and the events that tell of the opening go first, and at once; each session follows when it is over and at rest, with its
//! objects before its rows. Events keep their instants and ids, so that what is brought twice is there once. The other way comes what the
//! database says by now: a grant that was revoked there, a person who was disabled, end what is live here.

use chrono::TimeDelta;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::search::Kind;

use super::local::Local;
use crate::app::App;
use crate::store::blob::BlobError;
use crate::store::db::events::{self, EventFilter};
use crate::store::db::recordings::{Hand, RecordingRecord};
use crate::store::db::search::{Block, Indexed};
use crate::store::db::sessions::SessionRecord;
use crate::store::db::{self, DbError, Tx};

/// Events and commands that are read at once.
const PAGE: u32 = 1000;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// Something lives, or may come to live.
    Not,
    /// Nothing is left here.
    All,
}

/// Why something stays on the node's disk for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum HomeError {
    #[error("the person of grant {0} is not in the database")]
    NoPerson(sallyport_domain::id::GrantId),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl HomeError {
    /// Whether it may succeed later by itself.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            HomeError::NoPerson(_) => false,
            HomeError::Blob(error) => !matches!(error, BlobError::NotFound { .. }),
            HomeError::Db(error) => error.is_unreachable(),
        }
    }
}

/// Brings what is ready. Calling it again brings nothing twice.
pub(super) async fn bring(app: &App, local: &mut Local) -> Result<Home, HomeError> {
    if let Some(why) = objection(app, local).await? {
        local.revoke(why).await?;
    }
    let mut ready = Vec::new();
    let mut waits = !local.is_at_rest();
    for record in local.all_sessions().await? {
        let id = record.session.id;
        if local.sessions.contains(&id) {
            continue;
        }
        let recordings = db::recordings::of_session(&mut local.app.db.read().await?, id).await?;
        if record.ended.is_none() || recordings.iter().any(|found| found.progress.ended_at.is_none()) {
            waits = true;
            continue;
        }
        for found in &recordings {
            bring_objects(app, local, found.recording.id).await?;
        }
        ready.push((record, recordings));
    }
    let is_over = local.grant.revoked.is_some() || local.grant.window.not_after() <= app.clock.now();
    let is_last = is_over && !waits;
    if local.is_known && ready.is_empty() && !is_last {
        return Ok(Home::Not);
    }
    let mut sessions = local.sessions.clone();
    sessions.extend(ready.iter().map(|(record, _)| record.session.id));
    let mut from = local.app.db.read().await?;
    let mut tx = app.db.write().await?;
    bring_grant(&mut tx, local).await?;
    for (record, recordings) in ready {
        bring_session(app, &mut from, &mut tx, record, recordings).await?;
    }
    bring_events(&mut from, &mut tx, &sessions).await?;
    tx.commit().await?;
    app.changes.notify();
    (local.is_known, local.sessions) = (true, sessions);
    Ok(if is_last { Home::All } else { Home::Not })
}

/// Why the database ends what is live here, if it does.
async fn objection(app: &App, local: &Local) -> Result<Option<&'static str>, DbError> {
    let mut tx = app.db.read().await?;
    if let Some(grant) = db::grants::find(&mut tx, local.grant.id).await?
        && (grant.revoked.is_some()
            || grant.window.not_after()
                <= app.clock.now().min(local.grant.window.not_after() - TimeDelta::microseconds(1)))
    {
        return Ok(Some("the grant was ended in the database"));
    }
    if let Some(envelope) = db::break_glass::find(&mut tx, local.envelope()).await?
        && envelope.revoked_at.is_some()
    {
        return Ok(Some("the envelope had been revoked before it was opened"));
    }
    for person in &local.grant.people {
        let found = db::principals::find_by_id(&mut tx, *person).await?;
        if found.is_some_and(|record| record.principal.disabled_at.is_some()) {
            return Ok(Some("the person was disabled"));
        }
        let keys = db::principals::keys_of(&mut tx, *person).await?;
        let ours = db::principals::keys_of(&mut local.app.db.read().await?, *person).await?;
        if ours.iter().any(|ours| keys.iter().all(|key| key.fingerprint != ours.fingerprint)) {
            return Ok(Some("a key of the person was removed"));
        }
    }
    for target in db::targets::list(&mut local.app.db.read().await?).await? {
        let found = db::targets::find_by_id(&mut tx, target.id).await?;
        if found.is_some_and(|found| found.disabled_at.is_some()) {
            return Ok(Some("a target was disabled"));
        }
    }
    Ok(None)
}

async fn bring_objects(app: &App, local: &Local, recording: RecordingId) -> Result<(), HomeError> {
    let segments = db::recordings::segments(&mut local.app.db.read().await?, recording, 0).await?;
    for segment in segments {
        let bytes = local.app.blobs.get(&segment.object).await?;
        app.blobs.put(&segment.object, bytes).await?;
    }
    Ok(())
}

/// Writes the grant, as it was given, and that its envelope was opened. One that the envelope's revocation came before is revoked.
async fn bring_grant(tx: &mut Tx, local: &Local) -> Result<(), HomeError> {
    let mut grant = local.grant.clone();
    if db::grants::find(tx, grant.id).await?.is_some() {
        return Ok(());
    }
    db::policy_version::raise(tx).await?;
    for person in &grant.people {
        if db::principals::find_by_id(tx, *person).await?.is_none() {
            return Err(HomeError::NoPerson(grant.id));
        }
    }
    let revoked = grant.revoked.take();
    if let Some(maker) = grant.created_by
        && db::principals::find_by_id(tx, maker).await?.is_none()
    {
        grant.created_by = None; // the database was put back to an older state; the event names them
    }
    db::grants::insert(tx, &grant).await?;
    if let Some(maker) = grant.created_by {
        db::reviews::note_hand(tx, grant.id, maker).await?;
    }
    if let Some(revoked) = revoked {
        db::grants::revoke(tx, grant.id, revoked.at, None, &revoked.reason).await?;
    }
    Ok(db::break_glass::note_opened(tx, local.envelope(), grant.created_at, grant.id).await?)
}

/// Writes a session that is over, with its recordings and all that was found in them.
async fn bring_session(
    app: &App,
    from: &mut Tx,
    tx: &mut Tx,
    record: SessionRecord,
    recordings: Vec<RecordingRecord>,
) -> Result<(), DbError> {
    let id = record.session.id;
    if db::sessions::find(tx, id).await?.is_some() {
        return Ok(()); // of a commit that nobody heard of
    }
    db::sessions::insert(tx, &record.session, app.run).await?;
    if let Some(facts) = db::manifests::facts(from, id).await? {
        db::manifests::insert_facts(tx, id, &facts).await?;
    }
    let mut at = record.session.started_at;
    for (target, key) in db::manifests::host_keys(from, id).await? {
        at += TimeDelta::microseconds(1); // they stay in their order
        db::manifests::note_host_key(tx, id, target, &key, at).await?;
    }
    for found in recordings {
        bring_recording(from, tx, id, found).await?;
    }
    for (recording, seal) in db::manifests::seals(from, id).await? {
        db::manifests::set_seal(tx, recording, &seal).await?;
    }
    if let Some((at, end)) = &record.ended {
        db::sessions::end(tx, id, *at, end).await?;
    }
    Ok(())
}

async fn bring_recording(
    from: &mut Tx,
    tx: &mut Tx,
    session: SessionId,
    found: RecordingRecord,
) -> Result<(), DbError> {
    let id = found.recording.id;
    db::recordings::insert(tx, &found.recording).await?;
    for segment in db::recordings::segments(from, id, 0).await? {
        db::recordings::insert_segment(tx, id, &segment).await?;
    }
    db::recordings::update(tx, id, Hand::default(), &found.progress).await?;
    let mut number = 0;
    loop {
        let commands = db::commands::of_recording(from, id, number, PAGE).await?;
        let Some(last) = commands.last() else { break };
        number = last.command.number.saturating_add(1);
        for command in &commands {
            db::commands::insert(tx, session, command).await?;
        }
    }
    for (kind, most) in [(Kind::Command, found.progress.commands), (Kind::Screen, u64::MAX), (Kind::File, u64::MAX)] {
        for number in 0..most {
            let lines = db::search::lines(from, id, kind, number).await?;
            if !lines.is_empty() {
                db::search::put(tx, id, &Block { kind, number, lines }).await?;
            } else if kind != Kind::Command {
                break; // of commands, some have no lines
            }
        }
    }
    let (all, others) =
        (db::search::state(from, session, None).await?, db::search::state(from, session, Some(id)).await?);
    let state = Indexed {
        lines: all.lines.saturating_sub(others.lines),
        bytes: all.bytes.saturating_sub(others.bytes),
        commands: all.commands.saturating_sub(others.commands),
        is_cut: all.is_cut,
    };
    db::search::set_state(tx, id, session, &state).await
}

/// Writes the events, but for those of sessions that are not there.
async fn bring_events(from: &mut Tx, tx: &mut Tx, sessions: &[SessionId]) -> Result<(), DbError> {
    let mut after = 0;
    loop {
        let page = events::list(from, after, &EventFilter::default(), PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        let is_home = |event: &_| events::session_of(event).is_none_or(|session| sessions.contains(&session));
        let page: Vec<_> = page.into_iter().map(|(_, event)| event).filter(is_home).collect();
        if !page.is_empty() {
            events::append_all_once(tx, &page).await?;
        }
    }
}
