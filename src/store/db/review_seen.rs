//! What there is to see in recordings, what reviewers have seen of it, and the time that they had for that.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sallyport_domain::id::{PrincipalId, RecordingId, SessionId};
use sallyport_domain::review::Judge;
use sallyport_domain::review::seen::{Activity, FIRST_CREDIT, Seen, Spans};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_count, to_json};

const INSERT_ACTIVITY: &str = "INSERT INTO review_activity (recording_id, session_id, bursts) VALUES ($1, $2, $3)
     ON CONFLICT (recording_id) DO UPDATE SET bursts = excluded.bursts";
const ACTIVITY: &str = "SELECT recording_id, bursts FROM review_activity WHERE session_id = $1";
const SEEN: &str = "SELECT recording_id, shown, read FROM review_seen WHERE session_id = $1 AND principal_id = $2";
const SET_SEEN: &str = "INSERT INTO review_seen (principal_id, recording_id, session_id, shown, read) VALUES ($1, $2, $3, $4, $5)
                        ON CONFLICT (principal_id, recording_id) DO UPDATE SET shown = excluded.shown, read = excluded.read";
const BEGIN: &str = "INSERT INTO review_pace (principal_id, at, credit_us) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
/// Takes the row's lock.
const HOLD: &str = "UPDATE review_pace SET credit_us = credit_us WHERE principal_id = $1";
const PACE: &str = "SELECT at, credit_us FROM review_pace WHERE principal_id = $1";
const SET_PACE: &str = "UPDATE review_pace SET at = $2, credit_us = $3 WHERE principal_id = $1";

const DOING: &str = "note what a reviewer has seen";

/// Keeps when something happened in a recording.
pub async fn insert_activity(
    tx: &mut Tx,
    session: SessionId,
    recording: RecordingId,
    activity: &Activity,
) -> Result<(), DbError> {
    let bursts = to_json(DOING, activity)?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_ACTIVITY)
        .bind(recording.as_uuid())
        .bind(session.as_uuid())
        .bind(&bursts));
    inserted.map(drop).map_err(doing("keep when something happened"))
}

/// When something happened in the session's recordings, as far as that is known yet.
pub async fn activity(tx: &mut Tx, session: SessionId) -> Result<HashMap<RecordingId, Activity>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, String)>(ACTIVITY).bind(session.as_uuid()).fetch_all(c));
    let rows = rows.map_err(doing(DOING))?;
    rows.into_iter().map(|(id, bursts)| Ok((RecordingId::from_uuid(id), from_json(DOING, &bursts)?))).collect()
}

/// What the person has seen of the session's recordings.
pub async fn seen(tx: &mut Tx, session: SessionId, person: PrincipalId) -> Result<HashMap<RecordingId, Seen>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, String, String)>(SEEN)
        .bind(session.as_uuid())
        .bind(person.as_uuid())
        .fetch_all(c));
    let rows = rows.map_err(doing(DOING))?;
    let read = |(id, shown, read): (Uuid, String, String)| {
        let (shown, read): (Spans, Spans) = (from_json(DOING, &shown)?, from_json(DOING, &read)?);
        Ok((RecordingId::from_uuid(id), Seen { shown, read }))
    };
    rows.into_iter().map(read).collect()
}

/// Keeps what the person has seen of one recording.
pub async fn set_seen(tx: &mut Tx, judge: &Judge, recording: RecordingId, seen: &Seen) -> Result<(), DbError> {
    let (shown, read) = (to_json(DOING, &seen.shown)?, to_json(DOING, &seen.read)?);
    let set = change_either!(tx, |c| sqlx::query(SET_SEEN)
        .bind(judge.person().as_uuid())
        .bind(recording.as_uuid())
        .bind(judge.session().as_uuid())
        .bind(&shown)
        .bind(&read));
    set.map(drop).map_err(doing(DOING))
}

/// When the person's time was reckoned last, and what was left of it, in microseconds. Until the end of the transaction nobody else
/// reckons it.
pub async fn pace(tx: &mut Tx, judge: &Judge, now: DateTime<Utc>) -> Result<(DateTime<Utc>, u64), DbError> {
    let person = judge.person().as_uuid();
    let first = i64::try_from(FIRST_CREDIT).unwrap_or_default();
    change_either!(tx, |c| sqlx::query(BEGIN).bind(person).bind(now).bind(first)).map_err(doing(DOING))?;
    change_either!(tx, |c| sqlx::query(HOLD).bind(person)).map_err(doing(DOING))?;
    let row = on_either!(tx, |c| sqlx::query_as::<_, (DateTime<Utc>, i64)>(PACE).bind(person).fetch_one(c));
    let (at, credit) = row.map_err(doing(DOING))?;
    Ok((at, to_count(DOING, credit)?))
}

/// Keeps what is left of the person's time at `now`.
pub async fn set_pace(tx: &mut Tx, judge: &Judge, now: DateTime<Utc>, credit: u64) -> Result<(), DbError> {
    let credit = i64::try_from(credit).unwrap_or(i64::MAX);
    let set = change_either!(tx, |c| sqlx::query(SET_PACE).bind(judge.person().as_uuid()).bind(now).bind(credit));
    set.map(drop).map_err(doing(DOING))
}
