//! A crash between any two steps of giving places, signing and bringing out. Every step is an answer that is waited for, so a
//! future that is dropped at its n-th wait is a process that died there: what it had sent is done or not, what it held is gone.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::id::{EventId, SessionId};

use super::*;
use crate::app::audit;
use crate::app::ledger::anchors::{Anchors, LedgerSettings};
use crate::app::ledger::verify::{Wish, verify};
use crate::store::db::testing::{app_on, on_both};

/// Runs `work`, but not beyond its `waits`-th wait; whether it came to its end.
async fn dies_after<T>(waits: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = waits;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

fn seed() -> u64 {
    let given = std::env::var("SALLYPORT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("SALLYPORT_TEST_SEED={seed}");
    seed
}

async fn write(app: &App, count: usize) -> Vec<EventId> {
    let mut written = Vec::new();
    let mut tx = app.db.write().await.unwrap();
    for _ in 0..count {
        let act = Act::SessionEnded { session: SessionId::from_uuid(Uuid::nil()), end: SessionEnd::ClientClosed };
        written.push(audit::append(&mut tx, app.clock.now(), &Actor::Bastion, act).await.unwrap());
    }
    tx.commit().await.unwrap();
    written
}

/// Every checkpoint that was ever seen must stay as it was: nobody signs twice.
async fn no_fork(app: &App, seen: &mut BTreeMap<u64, String>) {
    let mut tx = app.db.read().await.unwrap();
    let now = ledger::checkpoints(&mut tx, None, 100_000).await.unwrap();
    let now: BTreeMap<u64, String> = now.into_iter().map(|stored| (stored.size, stored.note)).collect();
    for (size, note) in &*seen {
        assert_eq!(now.get(size), Some(note), "the checkpoint of {size} events is another one");
    }
    *seen = now;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_loses_no_event_doubles_none_and_forks_nothing() {
    const STEPS: usize = 45;
    let seed = seed();
    on_both(|db| async move {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let app = app_on(db);
        keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
        let file = folder.path().join("anchors");
        let settings = LedgerSettings { anchor_file: Some(file), ..LedgerSettings::default() };
        let anchors = || Anchors::open(&settings, &app.blobs, "node-a").unwrap();
        let (mut written, mut seen) = (Vec::new(), BTreeMap::new());
        let (mut died, mut came_through) = (0, 0);

        // Each step once, then any.
        for round in 0..2 * STEPS {
            let count = if random.random_bool(0.1) { 300 } else { random.random_range(1..5) };
            written.extend(write(&app, count).await);
            let waits = if round < STEPS { round } else { random.random_range(0..STEPS) };
            let mut sequencer = Sequencer::new(app.clone());
            match dies_after(waits, sequencer.catch_up()).await {
                Some(done) => {
                    done.unwrap();
                    came_through += 1;
                }
                None => died += 1,
            }
            no_fork(&app, &mut seen).await;
            // Some went out before the crash; the next start finds nothing wrong with that.
            let waits = random.random_range(0..STEPS);
            let _brought = dies_after(waits, anchors().round(&app)).await;
            assert_eq!(anchors().compare(&app).await.unwrap(), []);
        }
        assert!(died > 3 && came_through > 3, "{died} died, {came_through} came through");

        Sequencer::new(app.clone()).catch_up().await.unwrap();
        anchors().round(&app).await;
        no_fork(&app, &mut seen).await;
        let (anchored, anchor_faults) = anchors().witnesses(&app).await.unwrap();
        assert!(anchored.len() > 10);
        let report = verify(&app, Wish { anchored, anchor_faults, ..Wish::default() }, |_| {}).await.unwrap();
        assert_eq!(report.faults, []);
        let mut tx = app.db.read().await.unwrap();
        let placed = ledger::placed(&mut tx, 0, 100_000).await.unwrap();
        let mut placed: Vec<EventId> = placed.into_iter().map(|placed| placed.event.unwrap().id).collect();
        placed.remove(0); // the key's own
        placed.sort_unstable();
        written.sort_unstable();
        assert!(placed == written, "{} events were written, {} have places", written.len(), placed.len());
    })
    .await;
}
