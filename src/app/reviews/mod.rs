//! Reviews: which sessions are to be looked at and by when, what reviewers say of them, and how much of them they have seen.
//!
//! ```text
//! sealed ──► decided (event): due, or not asked for ──► flags, notes ──► sign-offs, as many as it takes ──► done
//!                              └──► late (event, once)
//! ```
//!
//! - [`decide`]: the risk of a session that has come to rest, and whether the lot falls on it.
//! - [`seen`]: what a page says that it has shown, as far as there was time for it.
//!
//! Who may judge is the domain's to say ([`Judge`]). Looking at a recording is an event already; what was seen of it is in the
//! event of the sign-off.

pub mod decide;
pub mod seen;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use chrono::{DateTime, FixedOffset, NaiveTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::{PrincipalId, RecordingId, SessionId};
use sallyport_domain::principal::Principal;
use sallyport_domain::review::risk::Moment;
use sallyport_domain::review::seen::Coverage;
use sallyport_domain::review::{Judge, NoJudge, ReviewTerm, Sampling, Ties, Verdict, WorkingHours};
use serde::{Deserialize, Deserializer};

use crate::app::text::{self, TextError};
use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, deletions, grants, recordings, reviews, sessions};

pub use crate::store::db::reviews::{Remark, RemarkKind, Review, ReviewFilter, ReviewSum, ReviewedSession};

/// How sessions are reviewed: `[review]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReviewSettings {
    /// For grants that say nothing.
    pub due: ReviewTerm,
    /// People who sign off a session before it is done.
    pub sign_offs: u32,
    /// Sessions whose risk is at least this are all reviewed, 0 to 100.
    pub always_from_risk: u32,
    /// Of the others so many of a hundred.
    pub share: u8,
    /// Monday to Friday.
    pub working_hours: Hours,
    /// Where the reviewers are.
    #[serde(deserialize_with = "offset")]
    pub utc_offset: FixedOffset,
}

impl Default for ReviewSettings {
    fn default() -> Self {
        Self {
            due: ReviewTerm::Within(5),
            sign_offs: 1,
            always_from_risk: 30,
            share: 100,
            working_hours: Hours::default(),
            utc_offset: chrono::Offset::fix(&Utc),
        }
    }
}

impl ReviewSettings {
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling { always_from: self.always_from_risk, share: self.share.min(100) }
    }

    pub(crate) fn hours(&self) -> WorkingHours {
        let Hours { from, until } = self.working_hours;
        WorkingHours { from, until, offset: self.utc_offset }
    }

    /// What is wrong with them, by key.
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let checks = [
            (!(1..=10).contains(&self.sign_offs), "sign_offs", "write a number from 1 to 10"),
            (self.always_from_risk > 101, "always_from_risk", "a risk is 0 to 100; 101 is never reached"),
            (self.share > 100, "share", "write so many of a hundred: 0 to 100"),
        ];
        checks.into_iter().filter(|(is_wrong, ..)| *is_wrong).map(|(_, key, message)| (key, message)).collect()
    }
}

/// A part of a day: `07:00-20:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: NaiveTime,
    until: NaiveTime,
}

impl Default for Hours {
    fn default() -> Self {
        let at = |hour| NaiveTime::from_hms_opt(hour, 0, 0).unwrap_or(NaiveTime::MIN);
        Self { from: at(7), until: at(20) }
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").ok();
        let parts = text.split_once('-').and_then(|(from, until)| read(from).zip(read(until)));
        match parts {
            Some((from, until)) if from < until => Ok(Self { from, until }),
            _ => Err(format!("`{text}` is no part of a day such as `07:00-20:00`")),
        }
    }
}

impl std::fmt::Display for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.from.format("%H:%M"), self.until.format("%H:%M"))
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FixedOffset, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is no offset from UTC such as `+08:00`")))
}

/// Why a review was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("there is no session {0}")]
    NoSession(SessionId),
    #[error(
        "session {0} has not come to rest: it lives, or ended just now; flags and notes are taken, a verdict is not yet"
    )]
    NotAtRest(SessionId),
    #[error(transparent)]
    NoJudge(#[from] NoJudge),
    #[error("you have signed off session {0} before; add a note instead")]
    SignedBefore(SessionId),
    #[error("a verdict other than `as_planned` takes a note that says what happened")]
    NoteMissing,
    #[error("session {session} has no recording {recording}")]
    NoRecording { session: SessionId, recording: RecordingId },
    #[error("recording {recording} has no moment {at}")]
    NoMoment { recording: RecordingId, at: DateTime<Utc> },
    #[error("you have said {most} things of this session; that is enough")]
    TooMany { most: u32 },
    #[error("one report tells of {most} parts at most, and they are within the recording")]
    Parts { most: usize },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What one person may say of one session.
const MOST_REMARKS: u32 = 500;

/// Everything about the review of one session, as somebody sees it.
#[derive(Debug, Clone)]
pub struct Standing {
    pub session: SessionId,
    /// `None` while the session is not at rest.
    pub review: Option<Review>,
    pub remarks: Vec<Remark>,
    /// Why the one who asks may not judge it; `None` if they may.
    pub refusal: Option<NoJudge>,
    /// What the one who asks has seen of it, if they may judge it and it is at rest.
    pub coverage: Option<Coverage>,
    /// Of each recording.
    pub seen: Vec<(RecordingId, sallyport_domain::review::seen::Seen)>,
    /// What was recorded is deleted, or goes.
    pub is_deleted: bool,
}

/// At most `limit` reviews by their due dates, of those due at once the riskiest first.
pub async fn list(app: &App, filter: &ReviewFilter, limit: u32) -> Result<Vec<Review>, ReviewError> {
    Ok(reviews::list(&mut app.db.read().await?, filter, limit).await?)
}

/// What waits for a review, in numbers; of a person, what they may judge and have not.
pub async fn sum(app: &App, judge: Option<PrincipalId>) -> Result<ReviewSum, ReviewError> {
    Ok(reviews::sum(&mut app.db.read().await?, app.clock.now(), judge).await?)
}

/// The review of one session, as `person` sees it; `None` is the operator.
pub async fn show(app: &App, person: Option<&Principal>, id: SessionId) -> Result<Standing, ReviewError> {
    let mut tx = app.db.read().await?;
    standing(&mut tx, app.clock.now(), person, id).await
}

async fn standing(
    tx: &mut Tx,
    now: DateTime<Utc>,
    person: Option<&Principal>,
    id: SessionId,
) -> Result<Standing, ReviewError> {
    let judge = match person {
        Some(person) => match judge(tx, now, person, id).await {
            Ok(judge) => Ok(judge),
            Err(ReviewError::NoJudge(refusal)) => Err(refusal),
            Err(error) => return Err(error),
        },
        None => {
            sessions::find(tx, id).await?.ok_or(ReviewError::NoSession(id))?;
            Err(NoJudge::NotReviewer)
        }
    };
    let review = reviews::find(tx, id).await?;
    let (mut coverage, mut parts) = (None, Vec::new());
    if let Ok(judge) = &judge {
        if review.is_some() {
            coverage = Some(seen::coverage(tx, judge).await?);
        }
        parts = seen::of(tx, judge).await?;
    }
    Ok(Standing {
        session: id,
        review,
        remarks: reviews::remarks(tx, id).await?,
        refusal: judge.err(),
        coverage,
        seen: parts,
        is_deleted: is_deleted(tx, id).await?,
    })
}

async fn is_deleted(tx: &mut Tx, id: SessionId) -> Result<bool, DbError> {
    use deletions::Stage;
    let stage = deletions::of_session(tx, id).await?.map(|(_, stage)| stage);
    Ok(matches!(stage, Some(Stage::Deleting | Stage::Deleted)))
}

/// Proof that `person` may judge the session, by the rule and what binds them to it now.
async fn judge(tx: &mut Tx, now: DateTime<Utc>, person: &Principal, id: SessionId) -> Result<Judge, ReviewError> {
    let session = sessions::find(tx, id).await?.ok_or(ReviewError::NoSession(id))?.session;
    let grant = grants::find(tx, session.grant).await?;
    let grant = grant.ok_or_else(|| DbError::corrupt("review a session", "its grant is gone"))?;
    let ties = Ties {
        was_there: session.principal == person.id,
        is_named: grant.people.contains(&person.id),
        had_a_hand: grant.created_by == Some(person.id) || reviews::had_a_hand(tx, grant.id, person.id).await?,
    };
    Ok(Judge::of(person, id, ties, now)?)
}

/// Signs a session off: a verdict, and how much of it was seen by then.
pub async fn sign_off(
    app: &App,
    person: &Principal,
    id: SessionId,
    verdict: Verdict,
    note: &str,
) -> Result<Standing, ReviewError> {
    let note = match note.trim() {
        "" if verdict == Verdict::AsPlanned => String::new(),
        "" => return Err(ReviewError::NoteMissing),
        note => text::check("note", note, text::MOST_REASON)?,
    };
    let mut tx = app.db.write().await?;
    let now = app.clock.now();
    let judge = judge(&mut tx, now, person, id).await?;
    if !reviews::sign(&mut tx, &judge, now, verdict).await? {
        return Err(ReviewError::NotAtRest(id));
    }
    // The row is ours by now: nobody else signs at the same time.
    let said = reviews::remarks(&mut tx, id).await?;
    if said.iter().any(|said| said.person == person.id && matches!(said.kind, RemarkKind::SignOff { .. })) {
        return Err(ReviewError::SignedBefore(id));
    }
    let coverage = seen::coverage(&mut tx, &judge).await?;
    let was_deleted = is_deleted(&mut tx, id).await?;
    let act = Act::SessionReviewed { session: id, verdict, note: note.clone(), coverage, was_deleted };
    say(tx, now, person, &judge, &note, RemarkKind::SignOff { verdict, coverage }, act).await
}

/// Points at a moment of a recording, or at the session as a whole; a live one, too.
pub async fn flag(
    app: &App,
    person: &Principal,
    id: SessionId,
    moment: Option<Moment>,
    words: &str,
) -> Result<Standing, ReviewError> {
    let words = text::check("flag", words, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    let now = app.clock.now();
    let judge = judge(&mut tx, now, person, id).await?;
    let moment = moment.map(|moment| Moment { at: crate::app::clock::whole_microseconds(moment.at), ..moment });
    if let Some(Moment { recording, at }) = moment {
        let found = recordings::find(&mut tx, recording).await?.filter(|found| found.recording.session == id);
        let found = found.ok_or(ReviewError::NoRecording { session: id, recording })?;
        let started = found.recording.started_at;
        // The wall clock may have been set in the session: by the recording's own clock it lasted as long as that.
        let lasted = chrono::TimeDelta::microseconds(i64::try_from(found.progress.duration_us).unwrap_or(i64::MAX));
        let end =
            if found.progress.ended_at.is_some() { started.checked_add_signed(lasted).unwrap_or(now) } else { now };
        if at < started || at > end {
            return Err(ReviewError::NoMoment { recording, at });
        }
    }
    let act = Act::SessionFlagged { session: id, moment, words: words.clone() };
    say(tx, now, person, &judge, &words, RemarkKind::Flag(moment), act).await
}

/// Says something of a session without a verdict.
pub async fn note(app: &App, person: &Principal, id: SessionId, words: &str) -> Result<Standing, ReviewError> {
    let words = text::check("note", words, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    let now = app.clock.now();
    let judge = judge(&mut tx, now, person, id).await?;
    let act = Act::ReviewNoted { session: id, note: words.clone() };
    say(tx, now, person, &judge, &words, RemarkKind::Note, act).await
}

/// Writes what was said, and its event, and gives what there is then.
async fn say(
    mut tx: Tx,
    now: DateTime<Utc>,
    person: &Principal,
    judge: &Judge,
    words: &str,
    kind: RemarkKind,
    act: Act,
) -> Result<Standing, ReviewError> {
    if reviews::count_remarks(&mut tx, judge).await? >= MOST_REMARKS {
        return Err(ReviewError::TooMany { most: MOST_REMARKS });
    }
    let actor = Actor::Principal { id: person.id, name: person.name.clone() };
    let event = audit::append(&mut tx, now, &actor, act).await?;
    reviews::remark(&mut tx, judge, event, now, words, &kind).await?;
    let standing = standing(&mut tx, now, Some(person), judge.session()).await?;
    tx.commit().await?;
    Ok(standing)
}
