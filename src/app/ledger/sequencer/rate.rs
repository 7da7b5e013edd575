//! How many events a second the ledger takes, and how long each waits until it is signed. Run by hand, and alone:
//! `make bench-ledger`.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::id::{EventId, SessionId};
use tokio::task::JoinSet;

use super::*;
use crate::app::audit;
use crate::app::clock::Clock;
use crate::app::ledger::proofs::{self, Which};
use crate::app::ledger::verify::{Wish, verify};
use crate::store::db::testing::{app_on, open};
use crate::support::postgres::Postgres;

const WRITERS: u32 = 8;
const A_SECOND: u32 = 5000;

/// What is asked of the ledger: 5,000 events a second from 8 writers for a minute, 99 of 100 signed within 500 ms.
const LONGEST: Duration = Duration::from_millis(500);

/// Ten seconds, or a minute with `SALLYPORT_TEST_LARGE=1`.
fn seconds() -> u32 {
    if std::env::var_os("SALLYPORT_TEST_LARGE").is_some_and(|value| value == "1") { 60 } else { 10 }
}

/// Eight sessions whose events come one after another, `in_one` in a transaction, at 5,000 a second or as fast as it goes.
async fn write(app: &App, in_one: u32) -> (Vec<EventId>, Duration) {
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let app = app.clone();
        writers.spawn(async move {
            let act = Act::SessionEnded {
                session: SessionId::from_uuid(Uuid::from_u128(u128::from(writer))),
                end: SessionEnd::ClientClosed,
            };
            let mut written = Vec::new();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) * WRITERS * in_one / A_SECOND);
            for _ in 0..seconds() * A_SECOND / WRITERS / in_one {
                ticks.tick().await;
                let mut tx = app.db.write().await.unwrap();
                for _ in 0..in_one {
                    written.push(audit::append(&mut tx, app.clock.now(), &Actor::Bastion, act.clone()).await.unwrap());
                }
                tx.commit().await.unwrap();
            }
            written
        });
    }
    let mut written = Vec::new();
    while let Some(ended) = writers.join_next().await {
        written.extend(ended.unwrap());
    }
    (written, began.elapsed())
}

/// Looks at every event in its place: all are there, once, in the order of their session. Gives how long each waited, in
/// milliseconds, in ascending order.
async fn look(app: &App, written: Vec<EventId>) -> Vec<i64> {
    let mut missing: HashSet<EventId> = written.into_iter().collect();
    let mut last: BTreeMap<Option<SessionId>, (EventId, DateTime<Utc>)> = BTreeMap::new();
    let mut tx = app.db.read().await.unwrap();
    let (mut lags, mut at) = (Vec::new(), 1); // the first is the key's own
    for checkpoint in ledger::checkpoints(&mut tx, Some(1), 100_000).await.unwrap() {
        for placed in ledger::placed(&mut tx, at, u32::try_from(checkpoint.size - at).unwrap()).await.unwrap() {
            let event = entry::decode(&placed.event.unwrap().entry).unwrap();
            assert!(missing.remove(&event.id), "an event is there twice, or was never written");
            let session = match event.act {
                Act::SessionEnded { session, .. } => Some(session),
                _ => None,
            };
            let before = last.insert(session, (event.id, event.at));
            // Ids are in the order in which a process made them (UUIDv7).
            assert!(before.is_none_or(|before| before < (event.id, event.at)), "the order within a session is kept");
            lags.push((checkpoint.at - event.at).num_milliseconds());
        }
        at = checkpoint.size;
    }
    assert!(missing.is_empty(), "{} events were lost", missing.len());
    lags.sort_unstable();
    lags
}

async fn measure(in_one: u32) {
    let postgres = Postgres::durable();
    let mut app = app_on(open(postgres.database().await).await);
    app.clock = Clock::system();
    keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    Sequencer::new(app.clone()).catch_up().await.unwrap();
    let stop = CancellationToken::new();
    let sequencer = tokio::spawn(Sequencer::new(app.clone()).run(stop.clone()));

    let (written, took) = write(&app, in_one).await;
    let ended = Instant::now();
    while proofs::standing(&app).await.unwrap().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let behind = ended.elapsed();
    stop.cancel();
    sequencer.await.unwrap();

    let rate = f64::from(u32::try_from(written.len()).unwrap()) / took.as_secs_f64();
    let lags = look(&app, written).await;
    let share = |percent: usize| lags[(lags.len() - 1) * percent / 100];
    println!(
        "{} events by {WRITERS} writers, {in_one} a transaction, in {took:.1?}: {rate:.0} a second; the last were signed {behind:.0?} after; \
         each waited ms p50 {} p99 {} most {}",
        lags.len(),
        share(50),
        share(99),
        share(100)
    );
    let asked = Instant::now();
    let size = lags.len() as u64;
    for index in (0..size).step_by(1000) {
        proofs::inclusion(&app, Which::Index(index), None).await.unwrap();
    }
    println!("an inclusion proof took {:?}", asked.elapsed() / u32::try_from(size / 1000 + 1).unwrap());
    assert_eq!(verify(&app, Wish::default(), |_| {}).await.unwrap().faults, []);
    app.db.close().await;
    if cfg!(not(debug_assertions)) {
        assert!(rate >= f64::from(A_SECOND) * 0.98, "{rate:.0} events a second");
        assert!(share(99) < i64::try_from(LONGEST.as_millis()).unwrap(), "p99 {} ms", share(99));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, and takes all cores for it"]
async fn events_a_second_and_how_long_they_wait_for_their_place() {
    measure(5).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, and takes all cores for it"]
async fn events_a_second_if_each_has_a_transaction_of_its_own() {
    measure(1).await;
}
