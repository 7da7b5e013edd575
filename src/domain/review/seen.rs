//! How much of a session was seen: when something happened in a recording, what of it was shown or read, and how fast that can be.
//!
//! A reviewer's page says what it has shown. It is believed as far as there was time for it: a second by the bastion's own clock
//! is worth [`FASTEST`] seconds of a recording that plays, or [`READ_A_SECOND`] bytes of text that is read, and not both. What was
//! seen before costs nothing again. Whether somebody looked at what was shown, no machine knows.

use serde::{Deserialize, Serialize};

/// A recording plays at most so fast.
pub const FASTEST: u64 = 8;

/// So many bytes of output are read in a second at most, escape sequences and all: about a screen of text.
pub const READ_A_SECOND: u64 = 4096;

/// What is not used of a reviewer's time counts for so long, in microseconds.
pub const MOST_CREDIT: u64 = 60_000_000;

/// What somebody has who just begins.
pub const FIRST_CREDIT: u64 = 2_000_000;

/// Parts that are kept of one recording; of more the shortest are given up, which says less than was seen and never more.
pub const MOST_SPANS: usize = 512;

/// Bursts that are kept of one recording; if there were more, those that are close are made one.
const MOST_BURSTS: usize = 2048;

/// Where nothing happens for longer, nothing is there to be seen, in microseconds.
const PAUSE: u64 = 2_000_000;

/// For so long after it came something is there to be seen.
const STAYS: u64 = 400_000;

/// A part of a recording, in microseconds since it began, the end not included. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Span {
    from: u64,
    to: u64,
}

/// A part must not be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part of a recording ends after it begins: {from} is not before {to}")]
pub struct EmptySpan {
    pub from: u64,
    pub to: u64,
}

impl Span {
    pub fn new(from: u64, to: u64) -> Result<Self, EmptySpan> {
        if from < to { Ok(Self { from, to }) } else { Err(EmptySpan { from, to }) }
    }

    pub fn from(self) -> u64 {
        self.from
    }

    pub fn to(self) -> u64 {
        self.to
    }

    fn length(self) -> u64 {
        self.to - self.from
    }

    /// The part of both.
    fn common(self, other: Self) -> Option<Self> {
        Self::new(self.from.max(other.from), self.to.min(other.to)).ok()
    }
}

impl TryFrom<(u64, u64)> for Span {
    type Error = EmptySpan;

    fn try_from((from, to): (u64, u64)) -> Result<Self, EmptySpan> {
        Self::new(from, to)
    }
}

impl From<Span> for (u64, u64) {
    fn from(span: Span) -> Self {
        (span.from, span.to)
    }
}

/// Parts of a recording in their order, none touching the next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Span>", into = "Vec<Span>")]
pub struct Spans(Vec<Span>);

impl From<Vec<Span>> for Spans {
    fn from(spans: Vec<Span>) -> Self {
        let mut all = Self::default();
        all.extend(spans);
        all
    }
}

impl From<Spans> for Vec<Span> {
    fn from(spans: Spans) -> Self {
        spans.0
    }
}

impl Spans {
    pub fn as_slice(&self) -> &[Span] {
        &self.0
    }

    /// Adds parts; those that touch become one.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Span>) {
        let mut all: Vec<Span> = self.0.drain(..).chain(more).collect();
        all.sort_unstable();
        for span in all {
            match self.0.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => self.0.push(span),
            }
        }
        if self.0.len() > MOST_SPANS {
            let mut lengths: Vec<u64> = self.0.iter().map(|span| span.length()).collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            let least = lengths.get(MOST_SPANS).copied().unwrap_or_default();
            self.0.retain(|span| span.length() > least);
        }
    }

    /// How long they are together.
    pub fn length(&self) -> u64 {
        self.0.iter().map(|span| span.length()).sum()
    }

    /// What of `span` is in none of them, in its order.
    fn missing_of(&self, span: Span) -> Vec<Span> {
        let (mut missing, mut from) = (Vec::new(), span.from);
        for known in self.0.iter().filter_map(|known| known.common(span)) {
            missing.extend(Span::new(from, known.from));
            from = known.to;
        }
        missing.extend(Span::new(from, span.to));
        missing
    }

    /// The parts of these and others.
    fn joined(&self, others: &Spans) -> Spans {
        let mut all: Vec<Span> = self.0.clone();
        all.extend(&others.0);
        // Not bounded here: both are, and it is not kept.
        all.sort_unstable();
        let mut joined: Vec<Span> = Vec::with_capacity(all.len());
        for span in all {
            match joined.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => joined.push(span),
            }
        }
        Spans(joined)
    }
}

/// A time in which something happened all the while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Span, u64)", into = "(Span, u64)")]
pub struct Burst {
    pub span: Span,
    /// What was printed in it.
    pub bytes: u64,
}

impl From<(Span, u64)> for Burst {
    fn from((span, bytes): (Span, u64)) -> Self {
        Self { span, bytes }
    }
}

impl From<Burst> for (Span, u64) {
    fn from(burst: Burst) -> Self {
        (burst.span, burst.bytes)
    }
}

/// When something happened in a recording. Only that is there to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Burst>", into = "Vec<Burst>")]
pub struct Activity {
    bursts: Vec<Burst>,
    pause: u64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { bursts: Vec::new(), pause: PAUSE }
    }
}

impl From<Vec<Burst>> for Activity {
    fn from(bursts: Vec<Burst>) -> Self {
        Self { bursts, pause: PAUSE }
    }
}

impl From<Activity> for Vec<Burst> {
    fn from(activity: Activity) -> Self {
        activity.bursts
    }
}

impl Activity {
    /// `bytes` were printed, or something was typed, at `at`. Times ascend.
    pub fn note(&mut self, at: u64, bytes: u64) {
        self.note_span(Span { from: at, to: at.saturating_add(STAYS).max(at + 1) }, bytes);
    }

    /// Something happened all the while.
    pub fn note_span(&mut self, span: Span, bytes: u64) {
        match self.bursts.last_mut() {
            Some(last) if span.from <= last.span.to.saturating_add(self.pause) => {
                last.span.to = last.span.to.max(span.to);
                last.bytes = last.bytes.saturating_add(bytes);
            }
            _ => self.bursts.push(Burst { span, bytes }),
        }
        while self.bursts.len() > MOST_BURSTS {
            self.pause = self.pause.saturating_mul(2);
            let all = std::mem::take(&mut self.bursts);
            for burst in all {
                match self.bursts.last_mut() {
                    Some(last) if burst.span.from <= last.span.to.saturating_add(self.pause) => {
                        last.span.to = last.span.to.max(burst.span.to);
                        last.bytes = last.bytes.saturating_add(burst.bytes);
                    }
                    _ => self.bursts.push(burst),
                }
            }
        }
    }

    pub fn bursts(&self) -> &[Burst] {
        &self.bursts
    }

    /// Microseconds in which something happened.
    pub fn length(&self) -> u64 {
        self.bursts.iter().map(|burst| burst.span.length()).sum()
    }

    /// How much of it is in `spans`.
    fn within(&self, spans: &Spans) -> u64 {
        let mut sum = 0;
        let mut rest = spans.0.as_slice();
        for burst in &self.bursts {
            while rest.first().is_some_and(|span| span.to <= burst.span.from) {
                rest = rest.get(1..).unwrap_or_default();
            }
            let touching = rest.iter().take_while(|span| span.from < burst.span.to);
            sum += touching.filter_map(|span| span.common(burst.span)).map(Span::length).sum::<u64>();
        }
        sum
    }

    /// What was printed in `span`, as if each burst printed evenly.
    fn bytes_in(&self, span: Span) -> u64 {
        let share = |burst: &Burst| {
            let common = burst.span.common(span)?.length();
            let bytes = u128::from(burst.bytes) * u128::from(common);
            u64::try_from(bytes.div_ceil(u128::from(burst.span.length()))).ok()
        };
        self.bursts.iter().filter_map(share).fold(0, u64::saturating_add)
    }
}

/// What of one recording somebody has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Played, at [`FASTEST`] times the speed or less.
    pub shown: Spans,
    /// Read in the transcript, or as output.
    pub read: Spans,
}

impl Seen {
    /// Takes what a page says to have shown and had read, as far as `credit`, microseconds of the reviewer's time, goes; what is left
    /// of it is given back.
    pub fn claim(&mut self, shown: &[Span], read: &[Span], activity: &Activity, mut credit: u64) -> u64 {
        for span in shown {
            for part in self.shown.missing_of(*span) {
                let affordable = credit.saturating_mul(FASTEST).min(part.length());
                let taken = Span::new(part.from, part.from + affordable);
                credit -= affordable.div_ceil(FASTEST).min(credit);
                self.shown.extend(taken);
            }
        }
        for span in read {
            for part in self.read.missing_of(*span) {
                let cost = cost_of(activity.bytes_in(part));
                let taken = if cost <= credit {
                    Span::new(part.from, part.to)
                } else {
                    // As much of it from its start as there is time for.
                    let share = u128::from(part.length()) * u128::from(credit) / u128::from(cost.max(1));
                    Span::new(part.from, part.from + u64::try_from(share).unwrap_or_default())
                };
                let spent = taken.ok().map_or(0, |taken| cost_of(activity.bytes_in(taken)));
                credit -= spent.min(credit);
                self.read.extend(taken);
            }
        }
        credit
    }
}

/// How long it takes to read so many bytes, in microseconds.
fn cost_of(bytes: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(READ_A_SECOND)).unwrap_or(u64::MAX)
}

/// How much of a session somebody has seen, in microseconds. Time in which nothing happened does not count, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// In which something happened.
    pub active_us: u64,
    /// Of that, shown or read.
    pub seen_us: u64,
    pub shown_us: u64,
    pub read_us: u64,
}

impl Coverage {
    /// Adds one recording.
    pub fn add(&mut self, activity: &Activity, seen: &Seen) {
        self.active_us += activity.length();
        self.seen_us += activity.within(&seen.shown.joined(&seen.read));
        self.shown_us += activity.within(&seen.shown);
        self.read_us += activity.within(&seen.read);
    }

    /// Whole percent, rounded down; `None` if there was nothing to see.
    pub fn percent(&self) -> Option<u8> {
        let share = u128::from(self.seen_us) * 100 / u128::from(self.active_us.max(1));
        (self.active_us > 0).then(|| u8::try_from(share).unwrap_or(100).min(100))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn span(from: u64, to: u64) -> Span {
        Span::new(from * SECOND, to * SECOND).unwrap()
    }

    fn busy(seconds: u64, bytes_a_second: u64) -> Activity {
        let mut activity = Activity::default();
        (0..seconds).for_each(|second| activity.note(second * SECOND, bytes_a_second));
        activity
    }

    #[test]
    fn nobody_has_seen_eight_hours_in_a_minute() {
        let (hours, minute) = (8 * 3600, MOST_CREDIT);
        let activity = busy(hours, 1000);
        let mut seen = Seen::default();
        let left = seen.claim(&[span(0, hours)], &[span(0, hours)], &activity, minute);
        assert_eq!((left, seen.shown.length()), (0, 8 * minute));
        assert_eq!(seen.read.length(), 0, "the minute is used up");

        let mut reader = Seen::default();
        reader.claim(&[], &[span(0, hours)], &activity, minute);
        assert!(reader.read.length() <= 60 * READ_A_SECOND / 1000 * SECOND + SECOND, "{}", reader.read.length());
    }

    #[test]
    fn what_was_seen_before_costs_nothing_and_idle_time_is_read_at_once() {
        let activity = busy(10, 100);
        let mut seen = Seen::default();
        assert_eq!(seen.claim(&[span(0, 8)], &[], &activity, SECOND), 0);
        assert_eq!(seen.claim(&[span(0, 8)], &[], &activity, SECOND), SECOND);
        assert_eq!(seen.claim(&[], &[span(20, 5000)], &activity, SECOND), SECOND);
    }

    #[test]
    fn coverage_counts_what_happened_and_that_once() {
        let mut activity = Activity::default();
        activity.note(0, 10);
        activity.note(SECOND, 10);
        activity.note(100 * SECOND, 10);
        assert_eq!(activity.bursts().len(), 2);
        let (shown, read) = (Spans::from(vec![span(0, 2)]), Spans::from(vec![span(0, 50)]));
        let mut coverage = Coverage::default();
        coverage.add(&activity, &Seen { shown, read });
        assert_eq!(
            coverage,
            Coverage { active_us: 1_800_000, seen_us: 1_400_000, shown_us: 1_400_000, read_us: 1_400_000 }
        );
        assert_eq!(coverage.percent(), Some(77));
        assert_eq!(Coverage::default().percent(), None);
    }

    fn any_span() -> impl Strategy<Value = Span> {
        (0..10_000_000_u64, 1..5_000_000_u64).prop_map(|(from, length)| Span::new(from, from + length).unwrap())
    }

    proptest! {
        #[test]
        fn spans_are_in_order_apart_and_never_more_than_was_put_in(spans in prop::collection::vec(any_span(), 0..40)) {
            let all = Spans::from(spans.clone());
            prop_assert!(all.as_slice().windows(2).all(|pair| pair[0].to < pair[1].from));
            for moment in (0..15_000_000).step_by(250_007) {
                let is_in = |spans: &[Span]| spans.iter().any(|span| span.from <= moment && moment < span.to);
                prop_assert_eq!(is_in(all.as_slice()), is_in(&spans));
            }
            let json = serde_json::to_string(&all).unwrap();
            prop_assert_eq!(serde_json::from_str::<Spans>(&json).unwrap(), all);
        }

        #[test]
        fn there_are_only_so_many_spans_whatever_a_page_says(starts in prop::collection::btree_set(0..1_000_000_u64, 0..2000)) {
            let spans: Vec<Span> = starts.iter().map(|at| Span::new(at * 10, at * 10 + 1 + at % 7).unwrap()).collect();
            prop_assert!(Spans::from(spans).as_slice().len() <= MOST_SPANS);
        }

        #[test]
        fn no_claim_is_worth_more_than_the_time_that_there_was(
            claims in prop::collection::vec((prop::collection::vec(any_span(), 0..5), prop::collection::vec(any_span(), 0..5)), 1..8),
            credits in prop::collection::vec(0..2_000_000_u64, 8),
        ) {
            let activity = busy(15, 900);
            let (mut seen, mut spent) = (Seen::default(), 0);
            for ((shown, read), credit) in claims.iter().zip(credits) {
                let left = seen.claim(shown, read, &activity, credit);
                prop_assert!(left <= credit);
                spent += credit - left;
            }
            prop_assert!(seen.shown.length() <= spent * FASTEST);
            let mut coverage = Coverage::default();
            coverage.add(&activity, &seen);
            prop_assert!(coverage.seen_us <= coverage.active_us);
            prop_assert!(coverage.seen_us <= coverage.shown_us + coverage.read_us);
            prop_assert!(coverage.seen_us >= coverage.shown_us.max(coverage.read_us));
        }

        #[test]
        fn activity_is_bounded_and_loses_no_byte(times in prop::collection::btree_set(0..100_000_000_000_u64, 0..6000)) {
            let mut activity = Activity::default();
            times.iter().for_each(|at| activity.note(*at, 3));
            prop_assert!(activity.bursts().len() <= MOST_BURSTS);
            prop_assert_eq!(activity.bursts().iter().map(|burst| burst.bytes).sum::<u64>(), 3 * times.len() as u64);
            prop_assert!(activity.bursts().windows(2).all(|pair| pair[0].span.to < pair[1].span.from));
        }
    }
}
