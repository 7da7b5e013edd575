use std::collections::BTreeMap;

use chrono::TimeDelta;
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::id::{EventId, SessionId};
use sallyport_domain::ledger::checkpoint::{Checkpoint, KnownKey};
use sallyport_domain::ledger::merkle::{verify_consistency, verify_inclusion};
use tokio::task::JoinSet;

use super::*;
use crate::app::audit;
use crate::app::ledger::proofs::{self, Which};
use crate::store::db::Db;
use crate::store::db::testing::{app_on, on_both};

async fn ready(db: Db) -> (App, Sequencer) {
    let app = app_on(db);
    keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    (app.clone(), Sequencer::new(app))
}

fn act(number: u128) -> Act {
    Act::SessionEnded { session: SessionId::from_uuid(Uuid::from_u128(number)), end: SessionEnd::ClientClosed }
}

async fn write(app: &App, number: u128) -> EventId {
    audit::record(app, &Actor::Bastion, act(number)).await.unwrap()
}

async fn known(app: &App) -> Vec<KnownKey> {
    keys::known(&mut app.db.read().await.unwrap()).await.unwrap()
}

async fn head(app: &App, size: Option<u64>) -> Head {
    let stored = proofs::checkpoint(app, size).await.unwrap();
    Checkpoint::open(stored.note.as_bytes(), "bastion.example/ledger", &known(app).await).unwrap().head()
}

#[tokio::test]
async fn every_event_can_be_proved_to_be_in_the_checkpoint_that_follows_it() {
    on_both(|db| async {
        let (app, mut sequencer) = ready(db).await;
        let mut events = Vec::new();
        for number in 0..600 {
            events.push(write(&app, number).await);
            if number % 97 == 0 {
                sequencer.catch_up().await.unwrap();
            }
        }
        sequencer.catch_up().await.unwrap();
        assert_eq!(sequencer.turn().await.unwrap(), Turn::Idle);

        let latest = head(&app, None).await;
        assert_eq!(latest.size, 601, "the key's own event, and the rest");
        for (number, id) in events.iter().enumerate().step_by(37) {
            let proof = proofs::inclusion(&app, Which::Event(*id), None).await.unwrap();
            assert_eq!(proof.index, number as u64 + 1);
            let leaf = entry::hash(&proof.entry);
            assert_eq!(verify_inclusion(leaf, proof.index, &latest, &proof.path), Ok(()));
            assert_eq!(entry::decode(&proof.entry).unwrap().id, *id);
        }
        let mut tx = app.db.read().await.unwrap();
        for stored in ledger::checkpoints(&mut tx, None, 100).await.unwrap() {
            let old = head(&app, Some(stored.size)).await;
            let proof = proofs::consistency(&app, old.size, None).await.unwrap();
            assert_eq!(verify_consistency(&old, &latest, &proof.path), Ok(()), "{}", old.size);
        }
    })
    .await;
}

#[tokio::test]
async fn two_nodes_and_many_writers_that_commit_out_of_order_lose_no_event_and_double_none() {
    const WRITERS: u128 = 8;
    const EACH: u128 = 60;
    on_both(|db| async {
        let (app, first) = ready(db).await;
        let second = Sequencer::new(app.clone());
        let done = CancellationToken::new();
        let mut nodes = JoinSet::new();
        for mut node in [first, second] {
            let done = done.clone();
            nodes.spawn(async move {
                while !done.is_cancelled() {
                    match node.turn().await {
                        Ok(_) => tokio::time::sleep(Duration::from_millis(3)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
                node.catch_up().await.unwrap();
            });
        }
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let app = app.clone();
            writers.spawn(async move {
                for number in 0..EACH {
                    let mut tx = app.db.write().await.unwrap();
                    let act = act(writer << 64);
                    let at = app.clock.now() + TimeDelta::microseconds(number as i64);
                    audit::append(&mut tx, at, &Actor::Bastion, act).await.unwrap();
                    // On PostgreSQL others take later numbers and commit earlier meanwhile.
                    tokio::time::sleep(Duration::from_millis((writer * 7 + number) as u64 % 5)).await;
                    tx.commit().await.unwrap();
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        done.cancel();
        while let Some(ended) = nodes.join_next().await {
            ended.unwrap();
        }
        Sequencer::new(app.clone()).catch_up().await.unwrap();

        let mut tx = app.db.read().await.unwrap();
        let placed = ledger::placed(&mut tx, 0, 10_000).await.unwrap();
        assert_eq!(placed.len() as u128, WRITERS * EACH + 1);
        assert!(placed.iter().zip(0..).all(|(placed, index)| placed.index == index));
        let mut last: BTreeMap<SessionId, chrono::DateTime<chrono::Utc>> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        for placed in &placed {
            let event = entry::decode(&placed.event.as_ref().unwrap().entry).unwrap();
            assert!(seen.insert(event.id), "an event is there twice");
            if let Act::SessionEnded { session, .. } = event.act {
                let before = last.insert(session, event.at);
                assert!(before.is_none_or(|before| before < event.at), "the order within a session is kept");
            }
        }
        assert_eq!(ledger::placeless(&mut tx).await.unwrap(), None);
        assert_eq!(head(&app, None).await, super::super::head(&mut tx, placed.len() as u64).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_sequencer_that_dies_before_its_commit_leaves_nothing_behind() {
    on_both(|db| async {
        let (app, mut sequencer) = ready(db).await;
        sequencer.catch_up().await.unwrap();
        write(&app, 1).await;
        let mut tx = app.db.write().await.unwrap();
        let pending = ledger::pending(&mut tx, 10).await.unwrap();
        ledger::place(&mut tx, 1, &[(pending[0].seq, entry::hash(&pending[0].entry))]).await.unwrap();
        ledger::insert_checkpoint(&mut tx, 2, "never seen", app.clock.now()).await.unwrap();
        drop(tx); // the node dies

        assert_eq!(head(&app, None).await.size, 1);
        assert!(matches!(Sequencer::new(app.clone()).turn().await.unwrap(), Turn::Placed { events: 1, .. }));
        assert_eq!(head(&app, None).await.size, 2);
        // The one that was there before has an edge that is out of date, and sees it.
        write(&app, 2).await;
        assert!(matches!(sequencer.turn().await.unwrap(), Turn::Placed { events: 1, .. }));
        assert_eq!(head(&app, None).await.size, 3);
    })
    .await;
}

#[tokio::test]
async fn rows_of_the_ledger_cannot_be_changed_or_removed() {
    on_both(|db| async {
        let (app, mut sequencer) = ready(db).await;
        for number in 0..300 {
            write(&app, number).await;
        }
        sequencer.catch_up().await.unwrap();
        for statement in [
            "UPDATE events SET kind = 'x' WHERE seq = 1",
            "DELETE FROM events WHERE seq = 1",
            "UPDATE ledger_order SET leaf = leaf WHERE idx = 1",
            "DELETE FROM ledger_order WHERE idx = 1",
            "DELETE FROM ledger_tiles",
            "UPDATE ledger_tiles SET level = 3",
            "DELETE FROM ledger_checkpoints WHERE size > 0",
            "UPDATE ledger_checkpoints SET note = ''",
        ] {
            let mut tx = app.db.write().await.unwrap();
            let refused = crate::store::db::change_either!(&mut tx, |c| sqlx::query(statement)).unwrap_err();
            assert!(refused.to_string().contains("never changed or removed"), "{statement}: {refused}");
        }
        if let Db::Postgres(pool) = &app.db {
            let refused = sqlx::query("TRUNCATE events").execute(pool).await.unwrap_err();
            assert!(refused.to_string().contains("never changed or removed"), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tree_that_is_not_the_one_that_was_signed_is_never_signed_again() {
    on_both(|db| async {
        let (app, mut sequencer) = ready(db).await;
        for number in 0..3 {
            write(&app, number).await;
        }
        sequencer.catch_up().await.unwrap();
        let signed = head(&app, None).await;
        // As somebody would who owns the database.
        let tampering = match &app.db {
            Db::Postgres(_) => vec!["ALTER TABLE ledger_order DISABLE TRIGGER USER"],
            Db::Sqlite { .. } => vec!["DROP TRIGGER ledger_order_stay_update"],
        };
        let mut tx = app.db.write().await.unwrap();
        for statement in tampering {
            crate::store::db::change_either!(&mut tx, |c| sqlx::query(statement)).unwrap();
        }
        const FORGE: &str = "UPDATE ledger_order SET leaf = $1 WHERE idx = 2";
        crate::store::db::change_either!(&mut tx, |c| sqlx::query(FORGE).bind(vec![7_u8; 32])).unwrap();
        tx.commit().await.unwrap();
        write(&app, 9).await;

        let refused = Sequencer::new(app.clone()).turn().await.unwrap_err();

        assert!(matches!(refused, LedgerError::Broken(_)), "{refused}");
        assert_eq!(head(&app, None).await, signed);
    })
    .await;
}
