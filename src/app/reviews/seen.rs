//! What a reviewer's page says that it has shown, kept as far as there was time for it (`sallyport_domain::review::seen`).

use std::collections::HashMap;

use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::principal::Principal;
use sallyport_domain::review::Judge;
use sallyport_domain::review::seen::{Activity, Coverage, MOST_CREDIT, Seen, Span};

use super::{ReviewError, judge};
use crate::app::App;
use crate::store::db::{DbError, Tx, recordings, review_seen};

/// Parts that one report may tell of, of each kind.
pub const MOST_PARTS: usize = 256;

/// What a page has shown of one recording since its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub recording: RecordingId,
    pub shown: Vec<Span>,
    pub read: Vec<Span>,
}

/// Takes a report; gives what was seen of the recording by now, and of the session. A report without parts begins: from then on the
/// reviewer's time runs.
pub async fn report(
    app: &App,
    person: &Principal,
    session: SessionId,
    report: &Report,
) -> Result<(Seen, Coverage), ReviewError> {
    let Report { recording, shown, read } = report;
    if shown.len() > MOST_PARTS || read.len() > MOST_PARTS {
        return Err(ReviewError::Parts { most: MOST_PARTS });
    }
    let mut tx = app.db.write().await?;
    let now = app.clock.now();
    let judge = judge(&mut tx, now, person, session).await?;
    let found = recordings::find(&mut tx, *recording).await?.filter(|found| found.recording.session == session);
    let found = found.ok_or(ReviewError::NoRecording { session, recording: *recording })?;
    let all = shown.iter().chain(read);
    if found.progress.ended_at.is_some() && all.clone().any(|part| part.from() > found.progress.duration_us) {
        return Err(ReviewError::Parts { most: MOST_PARTS });
    }
    let (since, credit) = review_seen::pace(&mut tx, &judge, now).await?;
    let passed = u64::try_from((now - since).num_microseconds().unwrap_or_default()).unwrap_or_default();
    let credit = credit.saturating_add(passed).min(MOST_CREDIT);
    let activities = review_seen::activity(&mut tx, session).await?;
    let mut of_session = review_seen::seen(&mut tx, session, person.id).await?;
    let seen = of_session.entry(*recording).or_default();
    // Of a recording of which it is not known yet what there is to read, nothing can have been read.
    let known = activities.get(recording);
    let read = if known.is_some() { read.as_slice() } else { &[] };
    let left = seen.claim(shown, read, known.unwrap_or(&Activity::default()), credit);
    review_seen::set_seen(&mut tx, &judge, *recording, seen).await?;
    review_seen::set_pace(&mut tx, &judge, now, left).await?;
    let seen = seen.clone();
    let coverage = add_up(&activities, &of_session);
    tx.commit().await?;
    Ok((seen, coverage))
}

/// How much of the session the judge has seen.
pub(super) async fn coverage(tx: &mut Tx, judge: &Judge) -> Result<Coverage, DbError> {
    let activities = review_seen::activity(tx, judge.session()).await?;
    Ok(add_up(&activities, &review_seen::seen(tx, judge.session(), judge.person()).await?))
}

/// What the judge has seen of each recording.
pub(super) async fn of(tx: &mut Tx, judge: &Judge) -> Result<Vec<(RecordingId, Seen)>, DbError> {
    let mut all: Vec<_> = review_seen::seen(tx, judge.session(), judge.person()).await?.into_iter().collect();
    all.sort_by_key(|(recording, _)| *recording);
    Ok(all)
}

fn add_up(activities: &HashMap<RecordingId, Activity>, seen: &HashMap<RecordingId, Seen>) -> Coverage {
    let mut coverage = Coverage::default();
    let nothing = Seen::default();
    for (recording, activity) in activities {
        coverage.add(activity, seen.get(recording).unwrap_or(&nothing));
    }
    coverage
}
