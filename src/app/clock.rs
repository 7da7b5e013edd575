//! The only place that asks what time it is, so that a test can say it.
//!
//! Instants are whole microseconds, as PostgreSQL keeps them: a hash over a stored one still matches after reading it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

/// Tells the time and waits for it. Cheap to clone; clones of a manual clock move together.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<watch::Sender<DateTime<Utc>>>),
}

/// A wait for the wall clock looks at it at least this often, so that it notices when the clock is set.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is told to move; for tests.
    pub fn manual(start: DateTime<Utc>) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(whole_microseconds(start)))))
    }

    /// The present instant, in whole microseconds.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let microseconds = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
                DateTime::from_timestamp_micros(microseconds).unwrap_or(DateTime::UNIX_EPOCH)
            }
            Source::Manual(time) => *time.borrow(),
        }
    }

    /// Moves a manual clock on and wakes whoever waits for an instant that has come. The system's clock does not move.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System => {}
            Source::Manual(time) => time.send_modify(|now| *now = whole_microseconds(*now + by)),
        }
    }

    /// Returns once the clock shows `until` or later. Cancel safe.
    pub async fn sleep_until(&self, until: DateTime<Utc>) {
        match &self.0 {
            Source::System => {
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
    fn instants_are_whole_microseconds() {
        assert_eq!(Clock::system().now().timestamp_subsec_nanos() % 1000, 0);
        let odd = DateTime::from_timestamp(5, 1_234).unwrap();
        assert_eq!(Clock::manual(odd).now().timestamp_subsec_nanos(), 1_000);
    }
}
