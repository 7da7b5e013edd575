//! Instants as people write them: RFC 3339, `18:00`, `tomorrow 09:00`, `2026-11-22 18:00`, `now`, `+2h`.
//!
//! What names no zone is meant in the reader's own. Pure: the present and the zone are arguments.

use std::time::Duration;

use chrono::{DateTime, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};

/// Why a text is not an instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WhenError {
    #[error(
        "`{0}` is not a time: write `18:00`, `tomorrow 09:00`, `2026-11-22 18:00`, `+2h` or `2026-11-22T18:00:00Z`"
    )]
    Unreadable(String),
    /// The clocks were put forward over it.
    #[error("`{0}` does not exist on that day: the clocks are put forward then")]
    Skipped(String),
    #[error("`{0}` is too far away")]
    TooFar(String),
}

/// Reads an instant. A time of day alone is the next one: today's if it is still to come, else tomorrow's.
/// Of a time that comes twice, when the clocks are put back, it is the earlier.
pub(crate) fn instant<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Result<DateTime<Utc>, WhenError> {
    let text = text.trim();
    let unreadable = || WhenError::Unreadable(text.to_owned());
    if text.eq_ignore_ascii_case("now") {
        return Ok(now.to_utc());
    }
    if let Some(duration) = text.strip_prefix('+') {
        let duration = span(duration).ok_or_else(unreadable)?;
        return after(now.to_utc(), duration).ok_or_else(|| WhenError::TooFar(text.to_owned()));
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Ok(instant.to_utc());
    }
    let zone = now.timezone();
    let today = now.date_naive();
    let (day, time) = match text.rsplit_once([' ', 'T']) {
        None => (None, text),
        Some((day, time)) => (Some(day.trim()), time),
    };
    let time = time_of_day(time).ok_or_else(unreadable)?;
    match day {
        Some(day) => at(day_of(day, today).ok_or_else(unreadable)?, time, &zone, text),
        None => match at(today, time, &zone, text) {
            Ok(instant) if instant > now.to_utc() => Ok(instant),
            _ => at(next_day(today).ok_or_else(unreadable)?, time, &zone, text),
        },
    }
}

/// Reads an instant of the past: `2h` is two hours ago, and a time of day alone is the last one.
pub(crate) fn past<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Result<DateTime<Utc>, WhenError> {
    if let Some(ago) = span(text) {
        let instant = TimeDelta::from_std(ago).ok().and_then(|ago| now.to_utc().checked_sub_signed(ago));
        return instant.ok_or_else(|| WhenError::TooFar(text.trim().to_owned()));
    }
    let instant = instant(text, now)?;
    let names_a_day = text.trim().contains([' ', '-']);
    Ok(if !names_a_day && instant > *now { instant - TimeDelta::days(1) } else { instant })
}

/// Reads a duration: `90m`, `2h 30m`, `7d`.
pub(crate) fn span(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// `instant` and `duration` later.
pub(crate) fn after(instant: DateTime<Utc>, duration: Duration) -> Option<DateTime<Utc>> {
    instant.checked_add_signed(TimeDelta::from_std(duration).ok()?)
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M:%S").or_else(|_| NaiveTime::parse_from_str(text, "%H:%M")).ok()
}

fn day_of(text: &str, today: NaiveDate) -> Option<NaiveDate> {
    match text.to_ascii_lowercase().as_str() {
        "today" => Some(today),
        "tomorrow" => next_day(today),
        date => NaiveDate::parse_from_str(date, "%Y-%m-%d").ok(),
    }
}

fn next_day(day: NaiveDate) -> Option<NaiveDate> {
    day.checked_add_days(Days::new(1))
}

fn at<Z: TimeZone>(day: NaiveDate, time: NaiveTime, zone: &Z, text: &str) -> Result<DateTime<Utc>, WhenError> {
    match zone.from_local_datetime(&NaiveDateTime::new(day, time)) {
        LocalResult::Single(instant) => Ok(instant.to_utc()),
        LocalResult::Ambiguous(earlier, _) => Ok(earlier.to_utc()),
        LocalResult::None => Err(WhenError::Skipped(text.to_owned())),
    }
}

/// How a person reads an instant: in their own zone, to the minute, with the zone's offset.
pub(crate) fn local(instant: DateTime<Utc>) -> String {
    instant.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M %:z").to_string()
}

/// How long from `now` until `then`, in the two largest units: `2h 19m`, `45s`.
pub(crate) fn between(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    let seconds = (then - now).num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, 0) => format!("{hours}h"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, 0, _) => format!("{days}d"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;
    use proptest::prelude::*;

    use super::*;

    /// Ten in the morning in a zone eight hours ahead of UTC.
    fn morning() -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339("2026-11-22T10:00:00+08:00").unwrap()
    }

    fn read(text: &str) -> Result<String, WhenError> {
        instant(text, &morning()).map(|instant| instant.to_rfc3339())
    }

    #[test]
    fn a_time_of_day_is_the_next_one_in_the_readers_zone() {
        assert_eq!(read("18:00"), Ok("2026-11-22T10:00:00+00:00".to_owned()));
        assert_eq!(read("09:30"), Ok("2026-11-23T01:30:00+00:00".to_owned()));
        assert_eq!(read("10:00"), Ok("2026-11-23T02:00:00+00:00".to_owned()));
    }

    #[test]
    fn who_looks_back_means_the_last_time_of_day_and_counts_from_now() {
        let read = |text: &str| past(text, &morning()).map(|instant| instant.to_rfc3339());
        assert_eq!(read("09:30"), Ok("2026-11-22T01:30:00+00:00".to_owned()));
        assert_eq!(read("18:00"), Ok("2026-11-21T10:00:00+00:00".to_owned()));
        assert_eq!(read("2h"), Ok("2026-11-22T00:00:00+00:00".to_owned()));
        assert_eq!(read("1d 30m"), Ok("2026-11-21T01:30:00+00:00".to_owned()));
        assert_eq!(read("2026-12-01 08:15"), Ok("2026-12-01T00:15:00+00:00".to_owned()));
        for text in ["", "18", "-2h", "soon", "2"] {
            assert_eq!(read(text), Err(WhenError::Unreadable(text.to_owned())));
        }
        assert!(matches!(read("900000y"), Err(WhenError::TooFar(_) | WhenError::Unreadable(_))));
    }

    #[test]
    fn a_day_may_be_named() {
        assert_eq!(read("tomorrow 09:00"), Ok("2026-11-23T01:00:00+00:00".to_owned()));
        assert_eq!(read("today 09:00"), Ok("2026-11-22T01:00:00+00:00".to_owned()));
        assert_eq!(read("2026-12-01 08:15:30"), Ok("2026-12-01T00:15:30+00:00".to_owned()));
        assert_eq!(read("2026-12-01T08:15"), Ok("2026-12-01T00:15:00+00:00".to_owned()));
    }

    #[test]
    fn an_instant_with_its_own_zone_keeps_it() {
        assert_eq!(read("2026-11-22T18:00:00Z"), Ok("2026-11-22T18:00:00+00:00".to_owned()));
        assert_eq!(read("2026-11-22T18:00:00+08:00"), Ok("2026-11-22T10:00:00+00:00".to_owned()));
        assert_eq!(read("now"), Ok("2026-11-22T02:00:00+00:00".to_owned()));
        assert_eq!(read("+2h 30m"), Ok("2026-11-22T04:30:00+00:00".to_owned()));
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        for text in ["", "soon", "25:00", "2026-13-01 08:00", "18", "yesterday 08:00", "+x"] {
            assert_eq!(read(text), Err(WhenError::Unreadable(text.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn what_remains_is_told_in_its_two_largest_units() {
        let now = morning().to_utc();
        let told = |seconds| between(now, now + TimeDelta::seconds(seconds));
        assert_eq!(
            [told(45), told(60), told(7200), told(8340), told(86_400), told(97_200), told(-5)],
            ["45s", "1m", "2h", "2h 19m", "1d", "1d 3h", "0s"]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _answer = instant(&text, &morning());
        }
    }
}
