use sallyport_domain::event::{Actor, SessionEnd};
use sallyport_domain::ledger::merkle;
use uuid::Uuid;

use super::*;
use crate::app::audit;
use crate::app::ledger::sequencer::Sequencer;
use crate::store::db::testing::{app_on, on_both};
use crate::store::db::{Db, change_either};

/// A ledger of `events` events and the key's own, signed in several steps.
async fn ledger_of(db: Db, events: u128) -> App {
    let app = app_on(db);
    keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    let mut sequencer = Sequencer::new(app.clone());
    let numbers: Vec<u128> = (0..events).collect();
    for some in numbers.chunks(61) {
        let mut tx = app.db.write().await.unwrap();
        for &number in some {
            let session = SessionId::from_uuid(Uuid::from_u128(number));
            let act = Act::SessionEnded { session, end: SessionEnd::ClientClosed };
            audit::append(&mut tx, app.clock.now(), &Actor::Bastion, act).await.unwrap();
        }
        tx.commit().await.unwrap();
        sequencer.catch_up().await.unwrap();
    }
    app
}

async fn look(app: &App, wish: Wish) -> Report {
    verify(app, wish, |_| {}).await.unwrap()
}

/// Changes the database as its owner can, past every trigger.
async fn tamper(db: &Db, statements: &[&'static str]) {
    let mut tx = db.write().await.unwrap();
    let open: Vec<String> = match db {
        Db::Postgres(_) => vec!["SET LOCAL session_replication_role = replica".to_owned()],
        Db::Sqlite { .. } => {
            let tables = ["events", "ledger_order", "ledger_tiles", "ledger_checkpoints"];
            let drop =
                |table: &&str| ["update", "delete"].map(|act| format!("DROP TRIGGER IF EXISTS {table}_stay_{act}"));
            tables.iter().flat_map(drop).collect()
        }
    };
    for statement in open {
        change_either!(&mut tx, |c| sqlx::query(sqlx::AssertSqlSafe(statement.clone()))).unwrap();
    }
    for statement in statements {
        change_either!(&mut tx, |c| sqlx::query(*statement)).unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn an_untouched_ledger_has_no_fault_and_goes_on_where_it_stopped() {
    on_both(|db| async {
        let app = ledger_of(db, 400).await;
        let report = look(&app, Wish::default()).await;
        assert_eq!(report.faults, []);
        assert_eq!((report.events, report.of), (401, 401));
        assert!(report.checkpoints > 3);

        let earlier = report.verified().unwrap();
        audit::record(
            &app,
            &Actor::Bastion,
            Act::PersonDisabled {
                person: sallyport_domain::id::PrincipalId::from_uuid(Uuid::nil()),
                name: "alice".parse().unwrap(),
            },
        )
        .await
        .unwrap();
        Sequencer::new(app.clone()).catch_up().await.unwrap();
        let mut steps = Vec::new();
        let wish = Wish { resume: Some(earlier), ..Wish::default() };
        let report = verify(&app, wish, |progress| steps.push(progress.events)).await.unwrap();
        assert_eq!((report.faults, report.events, steps), (vec![], 402, vec![402]));
    })
    .await;
}

#[tokio::test]
async fn every_single_change_to_the_ledger_is_found_and_its_place_is_named() {
    for (change, place) in [
        ("UPDATE events SET entry = replace_byte(entry) WHERE seq = 100", "event 99"),
        ("UPDATE events SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 100", "event 99 "),
        ("UPDATE events SET act = replace(act, 'client_closed', 'crashed') WHERE seq = 100", "event 99 "),
        ("UPDATE events SET kind = 'grant_made' WHERE seq = 100", "event 99 "),
        ("UPDATE events SET actor = '{\"kind\":\"operator\",\"uid\":0}' WHERE seq = 100", "event 99 "),
        ("DELETE FROM events WHERE seq = 100", "event 99"),
        ("DELETE FROM ledger_order WHERE idx = 99", "event 99"),
        ("DELETE FROM ledger_order WHERE idx >= 390", "event 390"),
        ("DELETE FROM events WHERE seq = 401", "event 400"),
        ("UPDATE ledger_order SET leaf = zero_hash WHERE idx = 99", "place of event 99"),
        ("UPDATE ledger_order SET leaf = zero_hash WHERE idx = 390", "stored hash of event 390"),
        ("UPDATE ledger_tiles SET root = zero_hash", "tile 0 of level 0"),
        ("DELETE FROM ledger_tiles", "tile 0 of level 0"),
        (
            "UPDATE ledger_checkpoints SET note = replace(note, 'bastion.example', 'bastion.exempla') WHERE size = 401",
            "checkpoint of 401 events",
        ),
        ("DELETE FROM ledger_checkpoints WHERE size = 401", "event 3"),
    ] {
        on_both(|db| async move {
            let app = ledger_of(db, 400).await;
            let (byte, zero) = match &app.db {
                Db::Postgres(_) => ("set_byte(entry, 60, 65)", "decode(repeat('00', 32), 'hex')"),
                Db::Sqlite { .. } => {
                    ("CAST(substr(entry, 1, 60) || CAST('A' AS BLOB) || substr(entry, 62) AS BLOB)", "zeroblob(32)")
                }
            };
            let statement: String = change.replace("replace_byte(entry)", byte).replace("zero_hash", zero);
            let statement: &'static str = Box::leak(statement.into_boxed_str());
            tamper(&app.db, &[statement]).await;

            let report = look(&app, Wish::default()).await;

            let first = report.faults.first().unwrap_or_else(|| panic!("not found: {change}"));
            assert!(first.place.starts_with(place), "{change}: {first:?}");
            assert!(report.events <= 401);
        })
        .await;
    }
}

#[tokio::test]
async fn an_event_that_was_removed_while_it_waited_for_its_place_is_found_and_holds_up_no_other() {
    on_both(|db| async {
        let app = ledger_of(db, 3).await;
        for number in [4, 5] {
            let session = SessionId::from_uuid(Uuid::from_u128(number));
            let act = Act::SessionEnded { session, end: SessionEnd::ClientClosed };
            audit::record(&app, &Actor::Bastion, act).await.unwrap();
        }
        tamper(&app.db, &["DELETE FROM events WHERE seq = 5"]).await;
        Sequencer::new(app.clone()).catch_up().await.unwrap();

        let report = look(&app, Wish::default()).await;

        let [fault] = report.faults.as_slice() else { panic!("{:?}", report.faults) };
        assert_eq!(fault.place, "the event of number 5");
        assert_eq!(report.events, 5);
    })
    .await;
}

#[tokio::test]
async fn two_events_that_changed_places_are_found() {
    on_both(|db| async {
        let app = ledger_of(db, 300).await;
        tamper(
            &app.db,
            &[
                "UPDATE ledger_order SET seq = -1 WHERE idx = 20",
                "UPDATE ledger_order SET seq = 21 WHERE idx = 30",
                "UPDATE ledger_order SET seq = 31 WHERE idx = 20",
            ],
        )
        .await;
        let report = look(&app, Wish::default()).await;
        let places: Vec<&str> = report.faults.iter().map(|fault| fault.place.as_str()).collect();
        assert_eq!(places, ["event 20", "event 30"]);
        assert_eq!((report.events, report.of), (299, 301), "all others stay proved");
    })
    .await;
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_told_from_what_an_anchor_has_seen() {
    on_both(|db| async {
        let app = ledger_of(db, 100).await;
        let mut tx = app.db.read().await.unwrap();
        let seen = super::super::head(&mut tx, 62).await.unwrap();
        drop(tx);
        let later = Head { size: 500, root: merkle::leaf_hash(b"later") };
        let forked = Head { size: 62, root: merkle::leaf_hash(b"another history") };

        let sound = look(&app, Wish { anchored: vec![("the file".to_owned(), seen)], ..Wish::default() }).await;
        assert_eq!((sound.faults, sound.anchors), (vec![], 1));
        let wish = Wish { anchored: vec![("the file".to_owned(), later)], ..Wish::default() };
        let rolled_back = look(&app, wish.clone()).await;
        assert!(rolled_back.faults[0].what.contains("an old copy was put back"), "{:?}", rolled_back.faults);
        let wish_fork = Wish { anchored: vec![("the file".to_owned(), forked)], ..Wish::default() };
        assert!(!look(&app, wish_fork).await.is_sound());

        let mut tx = app.db.write().await.unwrap();
        ledger::accept_rollback(&mut tx, 101, 500, app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let forged = look(&app, wish.clone()).await;
        assert!(forged.faults[0].what.contains("no event tells of that"), "{:?}", forged.faults);
        let act = Act::RollbackAccepted { found: 101, anchored: 500 };
        audit::record(&app, &Actor::Bastion, act).await.unwrap();
        assert_eq!(look(&app, wish).await.faults, []);
    })
    .await;
}

#[tokio::test]
async fn who_signs_with_another_key_is_found_by_the_fingerprint() {
    on_both(|db| async {
        let app = ledger_of(db, 10).await;
        let fingerprints = look(&app, Wish::default()).await.fingerprints;
        assert!(look(&app, Wish { fingerprints, ..Wish::default() }).await.is_sound());
        let report = look(&app, Wish { fingerprints: vec![Hash::of(b"another")], ..Wish::default() }).await;
        assert!(report.faults[0].what.contains("they were replaced"), "{:?}", report.faults);
    })
    .await;
}
