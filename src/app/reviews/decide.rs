//! Sessions that have come to rest: what speaks for a look at each, when something happened in it, and whether it is to be reviewed.
//! Whichever node finds one decides; the row settles who was first.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::channel::Program;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::recording::frame::Body;
use sallyport_domain::review::risk::{Assessor, Moment, Risk, Sign};
use sallyport_domain::review::seen::{Activity, Span};
use sallyport_domain::review::{Choice, choose};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::ReviewSettings;
use crate::app::recordings::read::{self, ReadError, Sight};
use crate::app::{App, audit};
use crate::store::db::events::{self, EventFilter};
use crate::store::db::recordings::RecordingRecord;
use crate::store::db::reviews::{self, NewReview};
use crate::store::db::sessions::SessionRecord;
use crate::store::db::{DbError, Tx, commands, manifests, recordings, review_seen, sessions};

/// How often it is looked for sessions that have come to rest, and for reviews that are late.
const SWEEP: Duration = Duration::from_secs(1);

/// Sessions that are decided on at one look.
const AT_ONCE: u32 = 16;

/// Rows that are read at once.
const PAGE: u32 = 1000;

/// Events of one session that are looked at; a session with more is judged by these, and by that there are more.
const MOST_EVENTS: usize = 100_000;

/// Of a recording with more segments it is not looked into them: something happened all the time, as far as they say.
const MOST_SEGMENTS: usize = 4096;

/// A denial so long before a session belongs to it.
const BEFORE: TimeDelta = TimeDelta::hours(1);

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error("the object store cannot be read")]
    Fetch(#[source] ReadError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Decides on sessions as they come to rest, until `stop`.
pub async fn run(app: App, settings: ReviewSettings, stop: CancellationToken) {
    loop {
        let swept = tokio::select! {
            swept = sweep(&app, &settings) => swept,
            () = stop.cancelled() => return,
        };
        match swept {
            // There may be more.
            Ok(decided) if decided >= AT_ONCE as usize => continue,
            Ok(_) => {}
            Err(DecideError::Db(error)) if error.is_unreachable() => {
                debug!(%error, "Reviews wait: the database does not answer.");
            }
            Err(DecideError::Fetch(error)) => debug!(%error, "Reviews wait: the object store does not answer."),
            Err(error) => error!(%error, "It could not be decided which sessions are to be reviewed."),
        }
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Decides on what has come to rest, and tells of what is late; how many were decided on.
pub async fn sweep(app: &App, settings: &ReviewSettings) -> Result<usize, DecideError> {
    let waiting = reviews::undecided(&mut app.db.read().await?, AT_ONCE).await?;
    for &session in &waiting {
        decide(app, settings, session).await?;
    }
    tell_late(app).await?;
    let sum = reviews::sum(&mut app.db.read().await?, app.clock.now(), None).await?;
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    app.metrics.reviews_due.set(gauge(sum.due));
    app.metrics.reviews_overdue.set(gauge(sum.overdue));
    Ok(waiting.len())
}

async fn tell_late(app: &App) -> Result<(), DbError> {
    let now = app.clock.now();
    for (session, due_at) in reviews::late(&mut app.db.read().await?, now, AT_ONCE).await? {
        let mut tx = app.db.write().await?;
        if reviews::tell_late(&mut tx, session).await? {
            audit::append(&mut tx, now, &Actor::Bastion, Act::ReviewOverdue { session, due_at }).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

async fn decide(app: &App, settings: &ReviewSettings, id: SessionId) -> Result<(), DecideError> {
    let mut tx = app.db.read().await?;
    let Some(record) = sessions::find(&mut tx, id).await? else { return Ok(()) };
    let of_session = recordings::of_session(&mut tx, id).await?;
    let manifest = manifests::find(&mut tx, id).await?.map(|bytes| Hash::of(&bytes));
    drop(tx);
    let mut activities = Vec::new();
    for found in &of_session {
        if let Some(activity) = activity(app, found).await? {
            activities.push((found.recording.id, activity));
        }
    }
    let mut tx = app.db.read().await?;
    let visible: Vec<RecordingId> = activities.iter().map(|(id, _)| *id).collect();
    let risk = assess(&mut tx, settings, &record, &of_session, &visible).await?;
    drop(tx);

    let ended_at = record.ended.as_ref().map_or(record.session.started_at, |(at, _)| *at);
    let term = record.session.terms.review.unwrap_or(settings.due);
    let choice = manifest.map_or(Choice::Older, |manifest| choose(term, risk.score, settings.sampling(), manifest));
    // What nobody needs to look at is in no list of what is due.
    let due_at = term.due(ended_at, settings.utc_offset).unwrap_or(ended_at);
    let active_us = activities.iter().map(|(_, activity)| activity.length()).sum();
    let review = NewReview { session: id, choice, due_at, sign_offs: settings.sign_offs, risk, active_us };
    let mut tx = app.db.write().await?;
    if reviews::insert(&mut tx, &review).await? {
        for (recording, activity) in &activities {
            review_seen::insert_activity(&mut tx, id, *recording, activity).await?;
        }
        let act = Act::ReviewDecided {
            session: id,
            due_at: choice.is_asked().then_some(due_at),
            sign_offs: review.sign_offs,
            risk: review.risk.score,
            reasons: review.risk.reasons,
            choice,
        };
        audit::append(&mut tx, app.clock.now(), &Actor::Bastion, act).await?;
    }
    Ok(tx.commit().await?)
}

/// When something happened in a recording; `None` if there is nothing to see in it: it carried files, or was a forward.
async fn activity(app: &App, found: &RecordingRecord) -> Result<Option<Activity>, DecideError> {
    if !matches!(found.recording.program, Program::Shell | Program::Exec { .. }) {
        return Ok(None);
    }
    let rows = recordings::segments(&mut app.db.read().await?, found.recording.id, 0).await?;
    let mut activity = Activity::default();
    // Of one that only the client's keys open the times of its segments are known.
    let sight = match Sight::find(app, found).await {
        Ok(sight) => Some(sight),
        Err(error @ ReadError::Db(_)) => return Err(DecideError::Fetch(error)),
        Err(_) => None,
    };
    for row in &rows {
        let opened = match &sight {
            Some(sight) if rows.len() <= MOST_SEGMENTS => Some(read::open_segment(app, sight, row).await),
            _ => None,
        };
        let frames = match opened {
            Some(Ok((_, frames))) => frames,
            // It will be there later, or nothing can be decided now.
            Some(Err(error @ (ReadError::Fetch { .. } | ReadError::Db(_)))) => return Err(DecideError::Fetch(error)),
            damaged => {
                if let Some(Err(error)) = damaged {
                    warn!(recording = %found.recording.id, %error, "A segment cannot be read; its review goes by its times.");
                }
                if let Ok(span) = Span::new(row.start_us, row.end_us.saturating_add(1)) {
                    activity.note_span(span, row.bytes);
                }
                continue;
            }
        };
        for frame in &frames {
            match &frame.body {
                Body::Output(bytes) | Body::ErrorOutput(bytes) => activity.note(frame.at, bytes.len() as u64),
                Body::Input(_) | Body::MaskedInput { .. } => activity.note(frame.at, 0),
                // Its bytes are a protocol's; the list of files says what it did.
                Body::File(_) => return Ok(None),
                _ => {}
            }
        }
    }
    Ok(Some(activity))
}

/// What speaks for a look at a session. `visible` are the recordings whose output is for people.
async fn assess(
    tx: &mut Tx,
    settings: &ReviewSettings,
    record: &SessionRecord,
    of_session: &[RecordingRecord],
    visible: &[RecordingId],
) -> Result<Risk, DbError> {
    let session = &record.session;
    let ended_at = record.ended.as_ref().map_or(session.started_at, |(at, _)| *at);
    let mut assessor = Assessor::new();
    let is_new = !reviews::was_there_before(tx, session.principal, session.target, session.started_at).await?;
    assessor.note(Sign::NewTarget, u64::from(is_new), None);
    let hours = settings.hours();
    assessor.note(Sign::OddHour, u64::from(hours.is_odd(session.started_at) || hours.is_odd(ended_at)), None);
    for RecordingRecord { recording, progress } in of_session {
        assessor.note(Sign::Gap, progress.gaps.into(), None);
        if visible.contains(&recording.id) {
            assessor.note(Sign::LargeOutput, progress.bytes_out, None);
        }
    }
    let counts = commands::counts(tx, session.id).await?;
    assessor.note(Sign::Unfollowed, counts.seen.saturating_sub(counts.kept), None);
    let mut after = None;
    loop {
        let page = commands::list(tx, session.id, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.at, last.recording, last.command.number));
        for found in &page {
            let moment = Moment { at: found.at, recording: found.recording };
            assessor.command(&found.command.text, found.flag.is_some(), moment);
        }
    }
    let of_session = EventFilter { session: Some(session.id), ..EventFilter::default() };
    let (mut looked, mut after) = (0, 0);
    loop {
        let page = events::list(tx, after, &of_session, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        (after, looked) = (*last, looked + page.len());
        for (_, event) in &page {
            note_event(&mut assessor, event.at, &event.act);
        }
        if looked >= MOST_EVENTS {
            assessor.note(Sign::Unfollowed, 1, None);
            break;
        }
    }
    let denied = EventFilter {
        kind: Some("denied".to_owned()),
        session: None,
        since: Some(session.started_at - BEFORE),
        until: Some(ended_at),
    };
    let denials = events::list(tx, 0, &denied, PAGE).await?;
    let theirs = denials
        .iter()
        .filter(|(_, event)| matches!(&event.act, Act::Denied { person, .. } if *person == session.principal));
    assessor.note(Sign::Denied, theirs.count() as u64, None);
    Ok(assessor.finish())
}

fn note_event(assessor: &mut Assessor, at: DateTime<Utc>, act: &Act) {
    match act {
        Act::FileOperation { recording, operation, .. } => {
            assessor.file(operation, Moment { at, recording: *recording });
        }
        Act::FilesUnreadable { recording, .. } => {
            assessor.note(Sign::Unfollowed, 1, Some(Moment { at, recording: *recording }));
        }
        Act::RequestRefused { .. } => assessor.note(Sign::Denied, 1, None),
        _ => {}
    }
}
