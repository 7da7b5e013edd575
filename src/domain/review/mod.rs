//! Review: which sessions somebody has to look at and by when, why one may be worth a longer look, who may judge it, and how much
//! of it they have seen. All of it decides and does nothing.
//!
//! - [`risk`]: what speaks for a longer look, each with its weight.
//! - [`clues`]: what a command or a path has to do with that.
//! - [`seen`]: what was shown or read, and how fast that can be.
//!
//! Nobody judges a session that they were in, or whose grant names them or has come from their hand: [`Judge`] is the proof that
//! somebody may, and has one maker.

pub mod clues;
pub mod risk;
pub mod seen;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, FixedOffset, NaiveTime, TimeZone, Utc, Weekday};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::Hash;
use crate::id::{PrincipalId, SessionId};
use crate::name::PrincipalName;
use crate::principal::{Principal, Role};

/// The most working days that a review may take.
pub const MOST_DAYS: u16 = 366;

/// By when sessions under a grant are to be reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewTerm {
    /// Nobody needs to.
    None,
    /// Within so many working days, 1 to [`MOST_DAYS`], after the session's end.
    Within(u16),
}

/// The text is no term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no term for a review: write `none`, or working days from `1d` to `{MOST_DAYS}d`")]
pub struct NotATerm(pub String);

impl ReviewTerm {
    /// The first instant at which the review of a session that ended at `ended_at` is late: the end of the last working day (Monday to
    /// Friday) in the zone of `offset`. `None` if there is none.
    pub fn due(self, ended_at: DateTime<Utc>, offset: FixedOffset) -> Option<DateTime<Utc>> {
        let ReviewTerm::Within(days) = self else { return None };
        let mut day = ended_at.with_timezone(&offset).date_naive();
        let mut left = days;
        while left > 0 {
            day = day.checked_add_days(Days::new(1))?;
            left -= u16::from(is_working(day.weekday()));
        }
        let midnight = day.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN);
        Some(offset.from_local_datetime(&midnight).single()?.to_utc())
    }
}

fn is_working(day: Weekday) -> bool {
    !matches!(day, Weekday::Sat | Weekday::Sun)
}

impl fmt::Display for ReviewTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReviewTerm::None => f.write_str("none"),
            ReviewTerm::Within(days) => write!(f, "{days}d"),
        }
    }
}

impl FromStr for ReviewTerm {
    type Err = NotATerm;

    fn from_str(text: &str) -> Result<Self, NotATerm> {
        if text == "none" {
            return Ok(ReviewTerm::None);
        }
        let days = text.strip_suffix('d').filter(|days| days.bytes().all(|byte| byte.is_ascii_digit()));
        let days: Option<u16> = days.and_then(|days| days.parse().ok());
        match days {
            Some(days @ 1..=MOST_DAYS) if text == format!("{days}d") => Ok(ReviewTerm::Within(days)),
            _ => Err(NotATerm(text.to_owned())),
        }
    }
}

impl Serialize for ReviewTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReviewTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The hours of a day in which sessions are usual, Monday to Friday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkingHours {
    pub from: NaiveTime,
    /// Not included.
    pub until: NaiveTime,
    pub offset: FixedOffset,
}

impl WorkingHours {
    /// Whether `at` is outside of them.
    pub fn is_odd(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&self.offset);
        !is_working(local.weekday()) || local.time() < self.from || local.time() >= self.until
    }
}

/// Which sessions are reviewed, of those whose terms ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// All whose risk is at least this.
    pub always_from: u32,
    /// And so many of a hundred others.
    pub share: u8,
}

/// Why a session is to be reviewed, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Choice {
    /// Its terms ask for none.
    NoTerm,
    /// Its risk is as high as that.
    Risk {
        always_from: u32,
    },
    /// The lot fell on it: `draw`, of 10,000, is below `share` hundreds.
    Drawn {
        draw: u32,
        share: u8,
    },
    NotDrawn {
        draw: u32,
        share: u8,
    },
    /// It is of a version that knew no reviews.
    Older,
}

impl Choice {
    /// Whether the session is to be reviewed.
    pub fn is_asked(self) -> bool {
        matches!(self, Choice::Risk { .. } | Choice::Drawn { .. })
    }
}

/// The lot of a session, from 0 to 9,999: the first eight bytes of SHA-256 over a prefix and the SHA-256 of its manifest, as a big-endian
/// number, modulo 10,000. The manifest holds the hashes of all that was recorded and instants to the microsecond, so nobody in the
/// session can know the lot beforehand, and nobody can change it afterwards: the event `session_sealed` has its hash.
pub fn draw(manifest: Hash) -> u32 {
    let hash = Hash::of(&[b"sallyport-review-v1\n".as_slice(), &manifest.0].concat());
    let first = hash.0.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    u32::try_from(first % 10_000).unwrap_or_default()
}

/// Decides whether a session is to be reviewed.
pub fn choose(term: ReviewTerm, risk: u32, sampling: Sampling, manifest: Hash) -> Choice {
    let Sampling { always_from, share } = sampling;
    match term {
        ReviewTerm::None => Choice::NoTerm,
        ReviewTerm::Within(_) if risk >= always_from => Choice::Risk { always_from },
        ReviewTerm::Within(_) => {
            let draw = draw(manifest);
            if draw < u32::from(share) * 100 { Choice::Drawn { draw, share } } else { Choice::NotDrawn { draw, share } }
        }
    }
}

/// What a reviewer says of a session. The gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    AsPlanned,
    Deviation,
    Incident,
}

impl Verdict {
    pub const ALL: [Verdict; 3] = [Verdict::AsPlanned, Verdict::Deviation, Verdict::Incident];

    /// The word used in the API, the database and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::AsPlanned => "as_planned",
            Verdict::Deviation => "deviation",
            Verdict::Incident => "incident",
        }
    }
}

/// What binds somebody to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ties {
    /// It is theirs.
    pub was_there: bool,
    /// Its grant names them.
    pub is_named: bool,
    /// They gave the grant, approved it, or moved its end.
    pub had_a_hand: bool,
}

/// Why somebody may not judge a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoJudge {
    #[error("a review takes the role reviewer")]
    NotReviewer,
    #[error("nobody reviews their own session")]
    WasThere,
    #[error("nobody reviews a session under a grant that names them")]
    Named,
    #[error("nobody reviews a session under a grant that they gave, approved or extended")]
    Gave,
}

/// Proof that somebody may judge a session: look at it for its review, flag, sign off.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Judge {
    session: SessionId,
    person: PrincipalId,
    name: PrincipalName,
}

impl Judge {
    /// Decides whether `person` may judge `session` at `now`.
    pub fn of(person: &Principal, session: SessionId, ties: Ties, now: DateTime<Utc>) -> Result<Self, NoJudge> {
        let Ties { was_there, is_named, had_a_hand } = ties;
        if !person.has_role(Role::Reviewer) || person.disabled_at.is_some_and(|at| at <= now) {
            return Err(NoJudge::NotReviewer);
        }
        match (was_there, is_named, had_a_hand) {
            (true, _, _) => Err(NoJudge::WasThere),
            (false, true, _) => Err(NoJudge::Named),
            (false, false, true) => Err(NoJudge::Gave),
            (false, false, false) => Ok(Self { session, person: person.id, name: person.name.clone() }),
        }
    }

    pub fn session(&self) -> SessionId {
        self.session
    }

    pub fn person(&self) -> PrincipalId {
        self.person
    }

    pub fn name(&self) -> &PrincipalName {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    const UTC: FixedOffset = FixedOffset::east_opt(0).unwrap();

    #[test]
    fn a_term_reads_back_from_its_text_and_nothing_else_is_one() {
        for (text, term) in
            [("none", ReviewTerm::None), ("5d", ReviewTerm::Within(5)), ("366d", ReviewTerm::Within(366))]
        {
            assert_eq!(text.parse(), Ok(term));
            assert_eq!(serde_json::from_str::<ReviewTerm>(&serde_json::to_string(&term).unwrap()).unwrap(), term);
        }
        for text in ["", "0d", "367d", "5", "d", "+5d", "05d", "-1d", "5h", "None", "99999999d"] {
            assert_eq!(text.parse::<ReviewTerm>(), Err(NotATerm(text.to_owned())));
        }
    }

    #[test]
    fn a_review_is_due_at_the_end_of_its_last_working_day_where_the_reviewers_are() {
        let friday = at("2026-11-20T15:00:00Z");
        assert_eq!(ReviewTerm::Within(1).due(friday, UTC), Some(at("2026-11-24T00:00:00Z")));
        assert_eq!(ReviewTerm::Within(5).due(friday, UTC), Some(at("2026-11-28T00:00:00Z")));
        let saturday = at("2026-11-21T15:00:00Z");
        assert_eq!(ReviewTerm::Within(1).due(saturday, UTC), Some(at("2026-11-24T00:00:00Z")));
        // In Shanghai it is Saturday by then.
        let shanghai = "+08:00".parse().unwrap();
        assert_eq!(ReviewTerm::Within(1).due(at("2026-11-20T17:00:00Z"), shanghai), Some(at("2026-11-23T16:00:00Z")));
        assert_eq!(ReviewTerm::None.due(friday, UTC), None);
    }

    #[test]
    fn nights_and_week_ends_are_odd_hours() {
        let hours = WorkingHours {
            from: NaiveTime::from_hms_opt(7, 0, 0).unwrap(),
            until: NaiveTime::from_hms_opt(20, 0, 0).unwrap(),
            offset: UTC,
        };
        for (text, odd) in [
            ("2026-11-20T07:00:00Z", false),
            ("2026-11-20T19:59:59Z", false),
            ("2026-11-20T20:00:00Z", true),
            ("2026-11-20T02:00:00Z", true),
            ("2026-11-21T12:00:00Z", true),
        ] {
            assert_eq!(hours.is_odd(at(text)), odd, "{text}");
        }
    }

    proptest! {
        #[test]
        fn between_the_end_and_the_due_date_are_as_many_working_days_as_the_term_says(
            days in 1..=MOST_DAYS, ended in 0..4_000_000_000_i64, offset in -14 * 3600..=14 * 3600_i32,
        ) {
            let (ended, offset) = (DateTime::from_timestamp(ended, 0).unwrap(), FixedOffset::east_opt(offset).unwrap());
            let due = ReviewTerm::Within(days).due(ended, offset).unwrap();
            let local = |at: DateTime<Utc>| at.with_timezone(&offset).date_naive();
            let (first, after) = (local(ended), local(due));
            prop_assert_eq!(due.with_timezone(&offset).time(), NaiveTime::MIN);
            prop_assert!(due > ended);
            let working = first.iter_days().skip(1).take_while(|day| *day < after).filter(|day| is_working(day.weekday()));
            prop_assert_eq!(working.count(), usize::from(days));
            prop_assert!(is_working(local(due - TimeDelta::seconds(1)).weekday()), "it does not end on a Sunday");
        }

        #[test]
        fn what_is_risky_is_always_chosen_and_of_the_rest_what_the_lot_says(
            risk in 0..=100_u32, always_from in 0..=101_u32, share in 0..=100_u8, manifest: [u8; 32],
        ) {
            let sampling = Sampling { always_from, share };
            let choice = choose(ReviewTerm::Within(5), risk, sampling, Hash(manifest));
            prop_assert!(draw(Hash(manifest)) < 10_000);
            if risk >= always_from || share == 100 {
                prop_assert!(choice.is_asked());
            } else if share == 0 {
                prop_assert!(!choice.is_asked());
            }
            // A larger share only adds.
            let more = choose(ReviewTerm::Within(5), risk, Sampling { always_from, share: 100.min(share + 1) }, Hash(manifest));
            prop_assert!(more.is_asked() || !choice.is_asked());
            prop_assert!(!choose(ReviewTerm::None, risk, sampling, Hash(manifest)).is_asked());
        }

        #[test]
        fn only_a_reviewer_without_a_tie_judges(
            role in prop::sample::select(&Role::ALL), ties: [bool; 3], disabled: bool,
        ) {
            let now = at("2026-11-20T15:00:00Z");
            let person = Principal {
                id: PrincipalId::from_uuid(Uuid::from_u128(1)),
                name: "rita".parse().unwrap(),
                organisation: None,
                roles: vec![role],
                created_at: now,
                disabled_at: disabled.then_some(now),
            };
            let [was_there, is_named, had_a_hand] = ties;
            let session = SessionId::from_uuid(Uuid::from_u128(2));
            let judged = Judge::of(&person, session, Ties { was_there, is_named, had_a_hand }, now);
            let may = role == Role::Reviewer && !disabled && ties == [false; 3];
            prop_assert_eq!(judged.is_ok(), may);
        }
    }

    #[test]
    fn about_a_share_of_sessions_is_drawn() {
        let drawn = (0..10_000_u32).filter(|number| draw(Hash::of(&number.to_be_bytes())) < 2_000).count();
        assert!((1_800..2_200).contains(&drawn), "{drawn}");
    }
}
