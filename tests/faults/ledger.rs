//! `kill -9` leaves the ledger whole: no event is lost or there twice, and no checkpoint that was ever seen is taken back.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sallyport::app::ledger::anchors::{Anchors, LedgerSettings};
use sallyport::app::ledger::proofs;
use sallyport::app::ledger::verify::{Wish, verify};
use sallyport::app::{App, audit};
use sallyport::store::db::ledger;
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::id::{EventId, SessionId};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::{Stores, World, large, seed, turn};
use crate::support::eventually;
use crate::support::postgres::Postgres;

/// Writes events beside the program that gives them their places, until told to stop; those whose commit was heard of.
async fn load(app: App, stop: Arc<AtomicBool>) -> Vec<EventId> {
    let act = Act::SessionEnded { session: SessionId::from_uuid(Uuid::nil()), end: SessionEnd::ClientClosed };
    let mut written = Vec::new();
    while !stop.load(Ordering::Acquire) {
        written.push(audit::record(&app, &Actor::Bastion, act.clone()).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    written
}

/// What is signed now; what was signed before must be among it.
async fn no_fork(app: &App, seen: &mut BTreeMap<u64, String>) {
    let mut tx = app.db.read().await.unwrap();
    let now = ledger::checkpoints(&mut tx, None, 1_000_000).await.unwrap();
    let now: BTreeMap<u64, String> = now.into_iter().map(|stored| (stored.size, stored.note)).collect();
    for (size, note) in &*seen {
        assert_eq!(now.get(size), Some(note), "the checkpoint of {size} events was taken back");
    }
    *seen = now;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_every_event_once_in_the_ledger_and_takes_no_checkpoint_back() {
    let _turn = turn().await;
    let mut random = StdRng::seed_from_u64(seed());
    let folder = tempfile::tempdir().unwrap();
    let anchor_file = folder.path().join("anchors.jsonl");
    let (file, every) = (format!("ledger.anchor_file = {anchor_file:?}"), "ledger.anchor_every = \"100ms\"");
    let database = Postgres::shared().database().await;
    let more = vec![file.as_str(), every];
    let mut world = World::start(&Stores { database: Some(database), more, ..Stores::default() }).await;
    let stop = Arc::<AtomicBool>::default();
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        writers.spawn(load(world.app.clone(), stop.clone()));
    }
    let mut seen = BTreeMap::new();

    for _ in 0..if large() { 100 } else { 8 } {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        world.kill();
        no_fork(&world.app, &mut seen).await;
        world.restart(); // it compares its anchors with the database, and would refuse to start
        no_fork(&world.app, &mut seen).await;
    }
    stop.store(true, Ordering::Release);
    let mut written = HashSet::new();
    while let Some(ended) = writers.join_next().await {
        written.extend(ended.unwrap());
    }

    let app = &world.app;
    eventually("everything is signed and brought out", async || {
        let standing = proofs::standing(app).await.unwrap();
        let size = standing.checkpoint.map_or(0, |checkpoint| checkpoint.size);
        standing.waiting == 0
            && standing.anchors.len() == 2
            && standing.anchors.iter().all(|anchor| anchor.size == size)
    })
    .await;
    no_fork(app, &mut seen).await;
    let settings = LedgerSettings { anchor_file: Some(anchor_file), ..LedgerSettings::default() };
    let anchors = Anchors::open(&settings, &app.blobs, "test").unwrap();
    assert_eq!(anchors.compare(app).await.unwrap(), []);
    let (anchored, anchor_faults) = anchors.witnesses(app).await.unwrap();
    let report = verify(app, Wish { anchored, anchor_faults, ..Wish::default() }, |_| {}).await.unwrap();
    assert_eq!(report.faults, []);
    let mut places: BTreeMap<EventId, u64> = BTreeMap::new();
    let mut next = 0;
    loop {
        let some = ledger::placed(&mut app.db.read().await.unwrap(), next, 1000).await.unwrap();
        if some.is_empty() {
            break;
        }
        for placed in some {
            next = placed.index + 1;
            let twice = places.insert(placed.event.unwrap().id, placed.index);
            assert_eq!(twice, None, "an event is there twice");
        }
    }
    let lost = written.iter().filter(|id| !places.contains_key(id)).count();
    assert_eq!(lost, 0, "of {} events", written.len());
    eprintln!("{} events, {} checkpoints, {} anchored", written.len(), seen.len(), report.anchors);
}
