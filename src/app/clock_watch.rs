//! Looks whether the machine's clock was set, and writes down that it was; keeps the highest time in the database, so that a
//! clock that is set back while the bastion is down opens no window again.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::{Act, Actor};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::app::{App, audit};
use crate::store::db::{DbError, clock_marks};

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often the time is written down: by so much a window could open again after a crash.
const MARK: u32 = 5;

/// A clock that is disciplined moves by less than this between two looks.
const LEAST_STEP: TimeDelta = TimeDelta::milliseconds(500);

/// Takes over the highest time that any node has seen. Call it before anybody is let in.
pub async fn resume(app: &App, node: &str) -> Result<(), DbError> {
    let highest = clock_marks::highest(&mut app.db.read().await?).await?;
    if let (Some(before), Some(after)) = (highest, app.clock.wall()) {
        app.clock.never_before(before);
        if before - after > LEAST_STEP {
            warn!(%before, %after, "The clock is behind the time that was seen before; the bastion goes by the later.");
            note(app, node, before, after).await?;
        }
    }
    Ok(())
}

/// Watches until `stop`.
pub async fn watch(app: App, node: String, stop: CancellationToken) {
    let Some(mut shown) = app.clock.wall() else { return };
    let mut looked = Instant::now();
    for turn in 0_u32.. {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => break,
        }
        let (wall, now) = (app.clock.wall().unwrap_or(shown), Instant::now());
        let passed = TimeDelta::from_std(now - looked).unwrap_or_default();
        if let Some((before, after)) = step(shown, passed, wall) {
            warn!(%before, %after, "The clock was set.");
            if let Err(error) = note(&app, &node, before, after).await {
                warn!(%error, "That the clock was set could not be written down.");
            }
        }
        (shown, looked) = (wall, now);
        if turn % MARK == 0
            && let Err(error) = mark(&app, &node).await
        {
            debug!(%error, "The time could not be written down.");
        }
    }
    if let Err(error) = mark(&app, &node).await {
        debug!(%error, "The time could not be written down.");
    }
}

/// What the clock should show and what it does, if it was set.
fn step(shown: DateTime<Utc>, passed: TimeDelta, shows: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let expected = shown + passed;
    ((shows - expected).abs() > LEAST_STEP).then_some((expected, shows))
}

async fn note(app: &App, node: &str, before: DateTime<Utc>, after: DateTime<Utc>) -> Result<(), DbError> {
    let whole = super::clock::whole_microseconds;
    let act = Act::ClockStepped { node: node.to_owned(), before: whole(before), after: whole(after) };
    audit::record(app, &Actor::Bastion, act).await.map(drop)
}

async fn mark(app: &App, node: &str) -> Result<(), DbError> {
    let mut tx = app.db.write().await?;
    clock_marks::set(&mut tx, node, app.clock.now()).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::audit::EventFilter;
    use crate::app::clock::Clock;
    use crate::store::db::testing::{app_on, on_both};

    #[test]
    fn a_step_is_told_from_the_passing_of_time() {
        let noon = DateTime::from_timestamp(1_772_366_400, 0).unwrap();
        let second = TimeDelta::seconds(1);
        assert_eq!(step(noon, second, noon + second), None);
        assert_eq!(step(noon, second, noon + second + TimeDelta::milliseconds(400)), None);
        let back = noon - TimeDelta::hours(1);
        assert_eq!(step(noon, second, back), Some((noon + second, back)));
        let on = noon + TimeDelta::hours(1);
        assert_eq!(step(noon, second, on), Some((noon + second, on)));
    }

    #[tokio::test]
    async fn a_bastion_that_starts_with_its_clock_set_back_goes_by_the_time_that_was_seen() {
        on_both(|db| async {
            let mut app = app_on(db);
            app.clock = Clock::system();
            let seen = crate::app::clock::whole_microseconds(app.clock.now() + TimeDelta::hours(5));
            let mut tx = app.db.write().await.unwrap();
            clock_marks::set(&mut tx, "node-b", seen).await.unwrap();
            clock_marks::set(&mut tx, "node-b", seen - TimeDelta::hours(1)).await.unwrap();
            tx.commit().await.unwrap();

            resume(&app, "node-a").await.unwrap();

            assert!(app.clock.now() >= seen);
            let filter = EventFilter { kind: Some("clock_stepped".to_owned()), ..EventFilter::default() };
            assert_eq!(audit::list(&app, 0, &filter, 10).await.unwrap().len(), 1);
        })
        .await;
    }
}
