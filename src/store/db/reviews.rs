//! Reviews: which sessions are to be looked at by when, and what reviewers say. What they have seen is in [`super::review_seen`].

use chrono::{DateTime, Utc};
use sallyport_domain::id::{EventId, GrantId, PrincipalId, RecordingId, SessionId, TargetId};
use sallyport_domain::name::{Login, PrincipalName, TargetName};
use sallyport_domain::review::risk::{Moment, Reason, Risk};
use sallyport_domain::review::seen::Coverage;
use sallyport_domain::review::{Choice, Judge, Verdict};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, from_text, on_either, to_count, to_json};

const INSERT: &str = "INSERT INTO reviews (session_id, asked, due_at, sign_offs, risk, reasons, choice, active_us)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                      ON CONFLICT (session_id) DO UPDATE SET asked = excluded.asked, due_at = excluded.due_at, risk = excluded.risk,
                          reasons = excluded.reasons, choice = excluded.choice, active_us = excluded.active_us";
const DECIDED: &str = "UPDATE sessions SET review_decided = TRUE WHERE id = $1 AND NOT review_decided";
const UNDECIDED: &str =
    "SELECT id FROM sessions WHERE sealed_at IS NOT NULL AND NOT review_decided ORDER BY sealed_at, id LIMIT $1";
/// Rows of `$8`, a person, are those that they may and have not judged. A parameter left at `NULL` does not limit. `$5`, `$6`, `$7`: the
/// last row of the page before.
const LIST: &str = "SELECT r.session_id, r.asked, r.due_at, r.sign_offs, r.signed, r.done_at, r.verdict, r.risk, r.reasons, r.choice, r.active_us,
                           s.principal_id, s.principal_name, s.target_id, s.target_name, s.login, s.grant_id, s.started_at, s.ended_at,
                           (SELECT COUNT(*) FROM review_remarks m WHERE m.session_id = r.session_id AND m.kind = 'flag') AS flags
                    FROM reviews r JOIN sessions s ON s.id = r.session_id
                    WHERE ($1 IS NULL OR r.session_id = $1)
                      AND ($2 IS NULL OR r.asked = $2)
                      AND ($3 IS NULL OR (r.done_at IS NOT NULL) = $3)
                      AND ($4 IS NULL OR r.due_at <= $4)
                      AND ($5 IS NULL OR r.due_at > $5 OR (r.due_at = $5 AND (r.risk < $6 OR (r.risk = $6 AND r.session_id > $7))))
                      AND ($8 IS NULL OR (s.principal_id <> $8
                           AND NOT EXISTS (SELECT 1 FROM grant_people p WHERE p.grant_id = s.grant_id AND p.principal_id = $8)
                           AND NOT EXISTS (SELECT 1 FROM grant_hands h WHERE h.grant_id = s.grant_id AND h.principal_id = $8)
                           AND NOT EXISTS (SELECT 1 FROM review_remarks m WHERE m.session_id = r.session_id
                                                  AND m.kind = 'sign_off' AND m.principal_id = $8)))
                    ORDER BY r.due_at, r.risk DESC, r.session_id LIMIT $9";
const SUM: &str = "SELECT COUNT(*) AS due, COALESCE(SUM(CASE WHEN r.due_at <= $1 THEN 1 ELSE 0 END), 0) AS overdue,
                          CAST(COALESCE(SUM(r.active_us), 0) AS BIGINT) AS active_us, MIN(r.due_at) AS oldest
                   FROM reviews r JOIN sessions s ON s.id = r.session_id
                   WHERE r.asked AND r.done_at IS NULL
                     AND ($2 IS NULL OR (s.principal_id <> $2
                          AND NOT EXISTS (SELECT 1 FROM grant_people p WHERE p.grant_id = s.grant_id AND p.principal_id = $2)
                          AND NOT EXISTS (SELECT 1 FROM grant_hands h WHERE h.grant_id = s.grant_id AND h.principal_id = $2)
                          AND NOT EXISTS (SELECT 1 FROM review_remarks m WHERE m.session_id = r.session_id
                                                 AND m.kind = 'sign_off' AND m.principal_id = $2)))";
const LATE: &str = "SELECT session_id, due_at FROM reviews
                    WHERE asked AND done_at IS NULL AND NOT overdue_told AND due_at <= $1 ORDER BY due_at, session_id LIMIT $2";
const TELL_LATE: &str =
    "UPDATE reviews SET overdue_told = TRUE WHERE session_id = $1 AND NOT overdue_told AND done_at IS NULL";
/// Takes the row's lock: who signs at the same time waits.
const SIGN: &str = "UPDATE reviews SET signed = signed + 1,
                           done_at = CASE WHEN done_at IS NULL AND signed + 1 >= sign_offs THEN $2 ELSE done_at END
                    WHERE session_id = $1";
const SET_VERDICT: &str = "UPDATE reviews SET verdict = $2 WHERE session_id = $1";
const REMARK: &str = "INSERT INTO review_remarks (id, session_id, principal_id, name, at, kind, words, recording_id, moment, verdict, coverage)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const REMARKS: &str =
    "SELECT id, principal_id, name, at, kind, words, recording_id, moment, verdict, coverage FROM review_remarks
                       WHERE session_id = $1 ORDER BY at, id";
const COUNT_REMARKS: &str = "SELECT COUNT(*) FROM review_remarks WHERE session_id = $1 AND principal_id = $2";
const WAS_THERE_BEFORE: &str =
    "SELECT EXISTS (SELECT 1 FROM sessions WHERE principal_id = $1 AND target_id = $2 AND started_at < $3)";
const NOTE_HAND: &str = "INSERT INTO grant_hands (grant_id, principal_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const HAD_A_HAND: &str = "SELECT EXISTS (SELECT 1 FROM grant_hands WHERE grant_id = $1 AND principal_id = $2)";

/// Whether and by when a session is to be reviewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReview {
    pub session: SessionId,
    pub choice: Choice,
    pub due_at: DateTime<Utc>,
    pub sign_offs: u32,
    pub risk: Risk,
    pub active_us: u64,
}

/// A review as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub session: SessionId,
    pub asked: bool,
    pub due_at: DateTime<Utc>,
    pub sign_offs: u32,
    pub signed: u32,
    pub done_at: Option<DateTime<Utc>>,
    /// The gravest so far.
    pub verdict: Option<Verdict>,
    pub risk: Risk,
    pub choice: Choice,
    pub active_us: u64,
    pub flags: u32,
    pub of: ReviewedSession,
}

/// The session that a review is of, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedSession {
    pub person: PrincipalId,
    pub person_name: PrincipalName,
    pub target: TargetId,
    pub target_name: TargetName,
    pub login: Login,
    pub grant: GrantId,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// Which reviews to list; what is `None` does not limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReviewFilter {
    pub session: Option<SessionId>,
    /// Those that are to be reviewed, or are not.
    pub asked: Option<bool>,
    /// Those that have all their sign-offs, or have not.
    pub done: Option<bool>,
    /// Due by then.
    pub due_by: Option<DateTime<Utc>>,
    /// Those that this person may judge and has not.
    pub judge: Option<PrincipalId>,
    /// Behind this one: its due date, risk and session.
    pub after: Option<(DateTime<Utc>, u32, SessionId)>,
}

/// All that waits for a review, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReviewSum {
    pub due: u64,
    pub overdue: u64,
    pub active_us: u64,
    pub oldest: Option<DateTime<Utc>>,
}

/// Something that a reviewer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The event that tells of it.
    pub id: EventId,
    pub person: PrincipalId,
    pub name: PrincipalName,
    pub at: DateTime<Utc>,
    pub words: String,
    pub kind: RemarkKind,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemarkKind {
    Note,
    /// At this moment, or at the session as a whole.
    Flag(Option<Moment>),
    SignOff {
        verdict: Verdict,
        coverage: Coverage,
    },
}

const READ: &str = "read a review";

#[derive(sqlx::FromRow)]
struct ReviewRow {
    session_id: Uuid,
    asked: bool,
    due_at: DateTime<Utc>,
    sign_offs: i32,
    signed: i32,
    done_at: Option<DateTime<Utc>>,
    verdict: Option<String>,
    risk: i32,
    reasons: String,
    choice: String,
    active_us: i64,
    principal_id: Uuid,
    principal_name: String,
    target_id: Uuid,
    target_name: String,
    login: String,
    grant_id: Uuid,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    flags: i64,
}

#[derive(sqlx::FromRow)]
struct SumRow {
    due: i64,
    overdue: i64,
    active_us: i64,
    oldest: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct RemarkRow {
    id: Uuid,
    principal_id: Uuid,
    name: String,
    at: DateTime<Utc>,
    kind: String,
    words: String,
    recording_id: Option<Uuid>,
    moment: Option<DateTime<Utc>>,
    verdict: Option<String>,
    coverage: Option<String>,
}

/// Reads a verdict's word.
pub(super) fn verdict(word: &str) -> Result<Verdict, DbError> {
    let found = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == word);
    found.ok_or_else(|| DbError::corrupt(READ, "an unknown verdict"))
}

impl TryFrom<ReviewRow> for Review {
    type Error = DbError;

    fn try_from(row: ReviewRow) -> Result<Self, DbError> {
        let reasons: Vec<Reason> = from_json(READ, &row.reasons)?;
        Ok(Self {
            session: SessionId::from_uuid(row.session_id),
            asked: row.asked,
            due_at: row.due_at,
            sign_offs: to_count(READ, row.sign_offs)?,
            signed: to_count(READ, row.signed)?,
            done_at: row.done_at,
            verdict: row.verdict.as_deref().map(verdict).transpose()?,
            risk: Risk { score: to_count(READ, row.risk)?, reasons },
            choice: from_json(READ, &row.choice)?,
            active_us: to_count(READ, row.active_us)?,
            flags: to_count(READ, row.flags)?,
            of: ReviewedSession {
                person: PrincipalId::from_uuid(row.principal_id),
                person_name: from_text(READ, &row.principal_name)?,
                target: TargetId::from_uuid(row.target_id),
                target_name: from_text(READ, &row.target_name)?,
                login: from_text(READ, &row.login)?,
                grant: GrantId::from_uuid(row.grant_id),
                started_at: row.started_at,
                ended_at: row.ended_at,
            },
        })
    }
}

impl TryFrom<RemarkRow> for Remark {
    type Error = DbError;

    fn try_from(row: RemarkRow) -> Result<Self, DbError> {
        let moment = row.recording_id.zip(row.moment);
        let moment = moment.map(|(recording, at)| Moment { at, recording: RecordingId::from_uuid(recording) });
        let kind = match (row.kind.as_str(), row.verdict, row.coverage) {
            ("note", None, None) => RemarkKind::Note,
            ("flag", None, None) => RemarkKind::Flag(moment),
            ("sign_off", Some(word), Some(coverage)) => {
                RemarkKind::SignOff { verdict: verdict(&word)?, coverage: from_json(READ, &coverage)? }
            }
            _ => return Err(DbError::corrupt(READ, "half a remark")),
        };
        Ok(Self {
            id: EventId::from_uuid(row.id),
            person: PrincipalId::from_uuid(row.principal_id),
            name: from_text(READ, &row.name)?,
            at: row.at,
            words: row.words,
            kind,
        })
    }
}

/// Keeps what is decided of a session that is at rest; `false` if it was decided before. One that was completed after it had come to
/// rest is decided on again; what was said of it stays.
pub async fn insert(tx: &mut Tx, review: &NewReview) -> Result<bool, DbError> {
    const DECIDE: &str = "decide on a review";
    let (reasons, choice) = (to_json(DECIDE, &review.risk.reasons)?, to_json(DECIDE, &review.choice)?);
    let session = review.session.as_uuid();
    let first = change_either!(tx, |c| sqlx::query(DECIDED).bind(session));
    if first.map_err(doing(DECIDE))? == 0 {
        return Ok(false);
    }
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(session)
        .bind(review.choice.is_asked())
        .bind(review.due_at)
        .bind(small(review.sign_offs))
        .bind(small(review.risk.score))
        .bind(&reasons)
        .bind(&choice)
        .bind(i64::try_from(review.active_us).unwrap_or(i64::MAX)));
    inserted.map(|_| true).map_err(doing(DECIDE))
}

/// At most `limit` sessions that are at rest and of which nothing is decided yet, the oldest first.
pub async fn undecided(tx: &mut Tx, limit: u32) -> Result<Vec<SessionId>, DbError> {
    let ids = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(UNDECIDED).bind(i64::from(limit)).fetch_all(c));
    let ids = ids.map_err(doing("look for sessions to review"))?;
    Ok(ids.into_iter().map(SessionId::from_uuid).collect())
}

/// At most `limit` reviews by their due dates, of those due at once the riskiest first.
pub async fn list(tx: &mut Tx, filter: &ReviewFilter, limit: u32) -> Result<Vec<Review>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST)
        .bind(filter.session.map(SessionId::as_uuid))
        .bind(filter.asked)
        .bind(filter.done)
        .bind(filter.due_by)
        .bind(filter.after.map(|(due_at, _, _)| due_at))
        .bind(filter.after.map(|(_, risk, _)| small(risk)))
        .bind(filter.after.map(|(_, _, session)| session.as_uuid()))
        .bind(filter.judge.map(PrincipalId::as_uuid))
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows: Vec<ReviewRow> = rows.map_err(doing("list reviews"))?;
    rows.into_iter().map(Review::try_from).collect()
}

/// The review of a session; `None` while it is not at rest.
pub async fn find(tx: &mut Tx, session: SessionId) -> Result<Option<Review>, DbError> {
    let filter = ReviewFilter { session: Some(session), ..ReviewFilter::default() };
    Ok(list(tx, &filter, 1).await?.pop())
}

/// What waits for a review at `now`; of a person, what they may judge and have not.
pub async fn sum(tx: &mut Tx, now: DateTime<Utc>, judge: Option<PrincipalId>) -> Result<ReviewSum, DbError> {
    const COUNT: &str = "count reviews";
    let judge = judge.map(PrincipalId::as_uuid);
    let row = on_either!(tx, |c| sqlx::query_as(SUM).bind(now).bind(judge).fetch_one(c));
    let SumRow { due, overdue, active_us, oldest } = row.map_err(doing(COUNT))?;
    Ok(ReviewSum {
        due: to_count(COUNT, due)?,
        overdue: to_count(COUNT, overdue)?,
        active_us: to_count(COUNT, active_us)?,
        oldest,
    })
}

/// At most `limit` reviews that are late at `now`, and of which that was not told.
pub async fn late(tx: &mut Tx, now: DateTime<Utc>, limit: u32) -> Result<Vec<(SessionId, DateTime<Utc>)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (Uuid, DateTime<Utc>)>(LATE)
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows = rows.map_err(doing("look for late reviews"))?;
    Ok(rows.into_iter().map(|(session, due_at)| (SessionId::from_uuid(session), due_at)).collect())
}

/// Notes that it is told that a review is late; `false` if it was before, or is not late any more.
pub async fn tell_late(tx: &mut Tx, session: SessionId) -> Result<bool, DbError> {
    let told = change_either!(tx, |c| sqlx::query(TELL_LATE).bind(session.as_uuid()));
    Ok(told.map_err(doing("tell of a late review"))? == 1)
}

/// Adds what somebody said who may judge the session, told of by the event `id`.
pub async fn remark(
    tx: &mut Tx,
    judge: &Judge,
    id: EventId,
    at: DateTime<Utc>,
    words: &str,
    kind: &RemarkKind,
) -> Result<(), DbError> {
    const SAY: &str = "add a reviewer's remark";
    let (word, moment, signed) = match kind {
        RemarkKind::Note => ("note", None, None),
        RemarkKind::Flag(moment) => ("flag", *moment, None),
        RemarkKind::SignOff { verdict, coverage } => ("sign_off", None, Some((*verdict, to_json(SAY, coverage)?))),
    };
    let (verdict, coverage) = signed.unzip();
    let added = change_either!(tx, |c| sqlx::query(REMARK)
        .bind(id.as_uuid())
        .bind(judge.session().as_uuid())
        .bind(judge.person().as_uuid())
        .bind(judge.name().as_str())
        .bind(at)
        .bind(word)
        .bind(words)
        .bind(moment.map(|moment| moment.recording.as_uuid()))
        .bind(moment.map(|moment| moment.at))
        .bind(verdict.map(Verdict::as_str))
        .bind(coverage.as_deref()));
    added.map(drop).map_err(doing(SAY))
}

/// Counts a sign-off; `false` if there is nothing to sign yet.
pub async fn sign(tx: &mut Tx, judge: &Judge, at: DateTime<Utc>, given: Verdict) -> Result<bool, DbError> {
    const SIGN_OFF: &str = "sign off a review";
    let session = judge.session();
    let signed = change_either!(tx, |c| sqlx::query(SIGN).bind(session.as_uuid()).bind(at));
    if signed.map_err(doing(SIGN_OFF))? == 0 {
        return Ok(false);
    }
    let before = find(tx, session).await?.and_then(|review| review.verdict);
    let gravest = before.map_or(given, |before| before.max(given)).as_str();
    let set = change_either!(tx, |c| sqlx::query(SET_VERDICT).bind(session.as_uuid()).bind(gravest));
    set.map(|_| true).map_err(doing(SIGN_OFF))
}

/// What was said of the session, the oldest first.
pub async fn remarks(tx: &mut Tx, session: SessionId) -> Result<Vec<Remark>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(REMARKS).bind(session.as_uuid()).fetch_all(c));
    let rows: Vec<RemarkRow> = rows.map_err(doing(READ))?;
    rows.into_iter().map(Remark::try_from).collect()
}

/// How often the person has said something of the session.
pub async fn count_remarks(tx: &mut Tx, judge: &Judge) -> Result<u32, DbError> {
    let (session, person) = (judge.session().as_uuid(), judge.person().as_uuid());
    let count = on_either!(tx, |c| sqlx::query_scalar::<_, i64>(COUNT_REMARKS).bind(session).bind(person).fetch_one(c));
    to_count(READ, count.map_err(doing(READ))?)
}

/// Whether the person was on the target in a session that began before.
pub async fn was_there_before(
    tx: &mut Tx,
    person: PrincipalId,
    target: TargetId,
    before: DateTime<Utc>,
) -> Result<bool, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(WAS_THERE_BEFORE)
        .bind(person.as_uuid())
        .bind(target.as_uuid())
        .bind(before)
        .fetch_one(c));
    found.map_err(doing("look for earlier sessions"))
}

/// Notes that the person had a hand in a grant: gave it, approved it, moved its end.
pub async fn note_hand(tx: &mut Tx, grant: GrantId, person: PrincipalId) -> Result<(), DbError> {
    let noted = change_either!(tx, |c| sqlx::query(NOTE_HAND).bind(grant.as_uuid()).bind(person.as_uuid()));
    noted.map(drop).map_err(doing("note whose hand is in a grant"))
}

/// Whether the person had a hand in the grant.
pub async fn had_a_hand(tx: &mut Tx, grant: GrantId, person: PrincipalId) -> Result<bool, DbError> {
    let found =
        on_either!(tx, |c| sqlx::query_scalar(HAD_A_HAND).bind(grant.as_uuid()).bind(person.as_uuid()).fetch_one(c));
    found.map_err(doing("look whose hand is in a grant"))
}

fn small(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
