//! The only place that asks what time it is, so that a test can say it.
//!
//! Instants are whole microseconds, as PostgreSQL keeps them: a hash over a stored one still matches after reading it.
//!
//! Time never goes back here, whatever is done to the machine's clock: a window that has closed stays closed. What was set is
//! found by `app::clock_watch` and becomes an event.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

/// Tells the time and waits for it. Cheap to clone; clones of a manual clock move together.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System(Arc<Mutex<Floor>>),
    Manual(Arc<watch::Sender<DateTime<Utc>>>),
}

/// A wait for the wall clock looks at it at least this often, so that it notices when the clock is set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        let floor = Floor { at: wall_time(), seen: Instant::now() };
        Self(Source::System(Arc::new(Mutex::new(floor))))
    }

    /// A clock that stands at `start` until it is told to move; for tests.
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(whole_microseconds(start)))))
    }

    /// The present instant, in whole microseconds.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System(floor) => lock(floor).now(wall_time(), Instant::now()),
            Source::Manual(time) => *time.borrow(),
        }
    }

    /// From now on it is not earlier than `at`: another run, or another node, has seen that time.
    pub fn never_before(&self, at: DateTime<Utc>) {
        match &self.0 {
            Source::System(floor) => {
                let (mut floor, now) = (lock(floor), Instant::now());
                floor.at = floor.now(wall_time(), now).max(at);
            }
            Source::Manual(_) => {}
        }
    }

    /// What the machine's clock shows, believed or not; `None` for a manual one.
    pub fn wall(&self) -> Option<DateTime<Utc>> {
        match &self.0 {
            Source::System(_) => Some(wall_time()),
            Source::Manual(_) => None,
        }
    }

    /// Moves a manual clock on and wakes whoever waits for an instant that has come. The system's clock does not move.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System(_) => {}
            Source::Manual(time) => time.send_modify(|now| *now = whole_microseconds(*now + by)),
        }
    }

    /// Returns once the clock shows `until` or later. Cancel safe.
    pub async fn sleep_until(&self, until: DateTime<Utc>) {
        match &self.0 {
            Source::System(_) => {
                while let Ok(left) = (until - self.now()).to_std()
                    && !left.is_zero()
                {
                    tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                }
            }
            Source::Manual(time) => {
                let mut watched = time.subscribe();
                // An error would mean that every clone is gone, but `self` is one.
                if watched.wait_for(|now| *now >= until).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Waits for `time` by this clock. Cancel safe.
    pub async fn sleep(&self, time: Duration) {
        self.sleep_until(self.now() + time).await;
    }
}

/// The earliest that it can be: a time that was seen, and how long ago, by a clock that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Floor {
    at: DateTime<Utc>,
    seen: Instant,
}

impl Floor {
    /// The time, when the machine's clock shows `wall`: that, or what must have come by now, whichever is later.
    fn now(&mut self, wall: DateTime<Utc>, seen: Instant) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(seen.saturating_duration_since(self.seen)).unwrap_or_default();
        let now = whole_microseconds(wall.max(self.at + passed));
        *self = Self { at: now, seen };
        now
    }
}

fn lock(floor: &Mutex<Floor>) -> MutexGuard<'_, Floor> {
    floor.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wall_time() -> DateTime<Utc> {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let microseconds = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    DateTime::from_timestamp_micros(microseconds).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Drops what is finer than the database keeps.
pub(crate) fn whole_microseconds(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_manual_clock_reaches_its_instant_and_not_before() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let until = clock.now() + Duration::from_secs(10);
        let sleeper = {
            let clock = clock.clone();
            async move { clock.sleep_until(until).await }
        };
        tokio::pin!(sleeper);

        clock.advance(Duration::from_micros(9_999_999));
        assert!(futures::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_micros(1));

        assert!(futures::poll!(&mut sleeper).is_ready());
    }

    #[tokio::test]
    async fn an_instant_that_has_passed_is_not_waited_for() {
        let clock = Clock::system();
        clock.sleep_until(clock.now() - Duration::from_secs(5)).await;
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_time_back_and_time_goes_on() {
        let (start, begin) = (DateTime::from_timestamp(1_000_000, 0).unwrap(), Instant::now());
        let mut floor = Floor { at: start, seen: begin };
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        let shows = |seconds: i64| start + TimeDelta::seconds(seconds);

        assert_eq!(floor.now(shows(10), after(10)), shows(10));
        assert_eq!(floor.now(shows(-3590), after(11)), shows(11), "an hour back");
        assert_eq!(floor.now(shows(-3570), after(31)), shows(31), "and time goes on");
        assert_eq!(floor.now(shows(7200), after(32)), shows(7200), "forward is believed");
    }

    #[test]
    fn instants_are_whole_microseconds() {
        assert_eq!(Clock::system().now().timestamp_subsec_nanos() % 1000, 0);
        let odd = DateTime::from_timestamp(5, 1_234).unwrap();
        assert_eq!(Clock::manual(odd).now().timestamp_subsec_nanos(), 1_000);
    }
}
