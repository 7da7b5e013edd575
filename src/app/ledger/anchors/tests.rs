use sallyport_domain::event::SessionEnd;
use sallyport_domain::id::SessionId;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use super::*;
use crate::app::audit::EventFilter;
use crate::app::ledger::sequencer::Sequencer;
use crate::store::db::Db;
use crate::store::db::testing::{app_on, on_both, open};
use crate::support;
use crate::support::rsyslog::Rsyslog;

async fn ready(db: Db) -> App {
    let app = app_on(db);
    keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    app
}

async fn grow(app: &App, events: u128) {
    for number in 0..events {
        let session = SessionId::from_uuid(Uuid::from_u128(number));
        let act = Act::SessionEnded { session, end: SessionEnd::ClientClosed };
        audit::record(app, &Actor::Bastion, act).await.unwrap();
    }
    Sequencer::new(app.clone()).catch_up().await.unwrap();
}

async fn acts(app: &App, kind: &str) -> usize {
    let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
    audit::list(app, 0, &filter, 100).await.unwrap().len()
}

#[tokio::test]
async fn checkpoints_get_to_a_file_and_to_the_object_store_and_fit_the_database() {
    on_both(|db| async {
        let folder = tempfile::tempdir().unwrap();
        let app = ready(db).await;
        let file = folder.path().join("checkpoints");
        let settings = LedgerSettings { anchor_file: Some(file.clone()), ..LedgerSettings::default() };
        let anchors = Anchors::open(&settings, &app.blobs, "node-a").unwrap();
        for _ in 0..5 {
            grow(&app, 7).await;
            anchors.round(&app).await;
            anchors.round(&app).await;
        }

        let states = crate::store::db::anchors::list(&mut app.db.read().await.unwrap()).await.unwrap();
        assert_eq!(
            states.iter().map(|state| (state.name.as_str(), state.size)).collect::<Vec<_>>(),
            [("blobs", 36), ("file", 36)]
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 5, "each checkpoint once");
        assert_eq!(anchors.compare(&app).await.unwrap(), []);
        let (heads, faults) = anchors.witnesses(&app).await.unwrap();
        assert_eq!((heads.len(), faults), (10, vec![]));
        let newest = objects::seen(&app.blobs, 1).await.unwrap();
        assert!(newest[0].note.contains("\n36\n"), "{newest:?}");
    })
    .await;
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_noticed_and_signs_nothing_until_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let url = |name: &str| format!("sqlite:{}", path(name).display());
    let app = ready(open(url("now.db")).await).await;
    let settings =
        LedgerSettings { anchor_blobs: false, anchor_file: Some(path("anchored")), ..LedgerSettings::default() };
    let anchors = Anchors::open(&settings, &app.blobs, "node-a").unwrap();
    grow(&app, 10).await;
    sqlx::query(sqlx::AssertSqlSafe(format!("VACUUM INTO '{}'", path("old.db").display())))
        .execute(match &app.db {
            Db::Sqlite { pool, .. } => pool,
            Db::Postgres(_) => unreachable!("it is SQLite"),
        })
        .await
        .unwrap();
    grow(&app, 10).await;
    anchors.round(&app).await;
    app.db.close().await;

    let old = app_on(open(url("old.db")).await);
    let found = anchors.compare(&old).await.unwrap();
    assert!(found[0].what.contains("it stands for 21 events, and 11 are signed here"), "{found:?}");
    let mut said = Vec::new();
    anchors.look(&old, &mut said).await;
    anchors.look(&old, &mut said).await;
    assert_eq!(acts(&old, "ledger_alarm").await, 1, "an alarm is given once");
    let refused = Sequencer::new(old.clone()).halted_by(anchors.halted()).turn().await;
    assert!(matches!(refused, Err(LedgerError::Broken(_))));

    anchors.accept(&old).await.unwrap();
    anchors.look(&old, &mut said).await;
    Sequencer::new(old.clone()).halted_by(anchors.halted()).catch_up().await.unwrap();
    grow(&old, 30).await;
    anchors.round(&old).await;
    assert_eq!(acts(&old, "rollback_accepted").await, 1);
    assert_eq!(anchors.compare(&old).await.unwrap(), []);
}

#[tokio::test]
async fn another_history_of_the_same_size_is_not_anchored_beside_the_first() {
    on_both(|db| async {
        let app = ready(db).await;
        grow(&app, 3).await;
        let latest = crate::app::ledger::proofs::checkpoint(&app, None).await.unwrap();
        let anchors = Anchors::open(&LedgerSettings::default(), &app.blobs, "node-a").unwrap();
        let mut forged = anchors.outgoing(&latest).unwrap();
        forged.head.root = sallyport_domain::hash::Hash::of(b"another");
        objects::put(&app.blobs, &forged).await.unwrap();

        anchors.round(&app).await;

        let states = crate::store::db::anchors::list(&mut app.db.read().await.unwrap()).await.unwrap();
        assert!(states[0].late && states[0].error.as_ref().unwrap().contains("another checkpoint"), "{states:?}");
        assert_eq!(acts(&app, "anchor_late").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_anchor_that_is_away_is_an_alarm_after_a_while_and_recovers() {
    on_both(|db| async {
        let app = ready(db).await;
        grow(&app, 3).await;
        let folder = tempfile::tempdir().unwrap();
        let away = folder.path().join("not-there/checkpoints");
        let settings =
            LedgerSettings { anchor_blobs: false, anchor_file: Some(away.clone()), ..LedgerSettings::default() };
        let anchors = Anchors::open(&settings, &app.blobs, "node-a").unwrap();
        let state = async || anchors::list(&mut app.db.read().await.unwrap()).await.unwrap().remove(0);

        anchors.round(&app).await;
        assert!(state().await.error.is_some() && !state().await.late);
        app.clock.advance(settings.anchor_late_after);
        anchors.round(&app).await;
        anchors.round(&app).await;
        assert!(state().await.late);
        assert_eq!(acts(&app, "anchor_late").await, 1);

        std::fs::create_dir(away.parent().unwrap()).unwrap();
        Sequencer::new(app.clone()).catch_up().await.unwrap();
        anchors.round(&app).await;
        assert_eq!((state().await.error, state().await.late), (None, false));
        assert_eq!(acts(&app, "anchor_recovered").await, 1);
    })
    .await;
}

/// A server that takes one connection and gives what came on it; `answer` is sent once `enough` was seen.
async fn listener(enough: &'static str, answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let taken = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        let mut bytes = vec![0; 4096];
        loop {
            let read = stream.read(&mut bytes).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
            if read == 0 || (!enough.is_empty() && text.contains(enough)) {
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
                return text;
            }
        }
    });
    (address, taken)
}

#[tokio::test]
async fn syslog_and_a_webhook_get_the_signed_note() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(open(format!("sqlite:{}/test.db", folder.path().display())).await).await;
    grow(&app, 3).await;
    let note = crate::app::ledger::proofs::checkpoint(&app, None).await.unwrap().note;
    let (syslog, logged) = listener("", "").await;
    let (webhook, posted) = listener("\"size\":4", "HTTP/1.1 204 No Content\r\n\r\n").await;
    let settings = LedgerSettings {
        anchor_blobs: false,
        anchor_syslog: Some(format!("tcp://{syslog}")),
        anchor_webhook: Some(format!("http://{webhook}/hook")),
        ..LedgerSettings::default()
    };

    let anchors = Anchors::open(&settings, &app.blobs, "node-a").unwrap();
    anchors.round(&app).await;

    let logged = logged.await.unwrap();
    let (length, message) = logged.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), message.len(), "RFC 5425 counts octets");
    assert!(message.starts_with("<109>1 2026-03-02T12:00:00.000000Z node-a sallyport "), "{message}");
    assert!(message.contains("size=\"4\""));
    assert!(posted.await.unwrap().contains(&serde_json::to_string(&note).unwrap()));
    let states = anchors::list(&mut app.db.read().await.unwrap()).await.unwrap();
    assert!(states.iter().all(|state| state.size == 4 && state.error.is_none()), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_gets_every_checkpoint_over_tls_and_is_missed_when_it_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(open(format!("sqlite:{}/test.db", folder.path().display())).await).await;
    let (collector, other) = (Rsyslog::start(), Rsyslog::start());
    let settings = LedgerSettings {
        anchor_blobs: false,
        anchor_syslog: Some(format!("tls://127.0.0.1:{}", collector.port())),
        anchor_syslog_ca_file: Some(collector.authority()),
        ..LedgerSettings::default()
    };
    let anchors = Anchors::open(&settings, &app.blobs, "node-a").unwrap();
    let state = async || anchors::list(&mut app.db.read().await.unwrap()).await.unwrap().remove(0);
    let note = async || crate::app::ledger::proofs::checkpoint(&app, None).await.unwrap().note;

    grow(&app, 3).await;
    anchors.round(&app).await;
    assert_eq!((state().await.size, state().await.error), (4, None));
    // Nobody acknowledges a message: it is in the file in a moment.
    support::eventually("the message is in the collector's file", async || collector.messages().len() == 1).await;
    let message = collector.messages().remove(0);
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, note().await);
    assert!(message.starts_with("109 node-a sallyport checkpoint [checkpoint@32473 "), "{message}");
    assert!(message.contains("size=\"4\"") && message.ends_with(&format!("note=\"{encoded}\"]")), "{message}");

    // One that somebody else has certified gets nothing.
    let settings_of_other = LedgerSettings { anchor_syslog_ca_file: Some(other.authority()), ..settings.clone() };
    grow(&app, 1).await;
    Anchors::open(&settings_of_other, &app.blobs, "node-b").unwrap().round(&app).await;
    let refused = anchors::list(&mut app.db.read().await.unwrap()).await.unwrap().remove(1);
    assert!(refused.error.as_ref().is_some_and(|error| error.contains("certificate")), "{refused:?}");

    collector.stop();
    anchors.round(&app).await;
    assert!(state().await.error.is_some() && !state().await.late);
    app.clock.advance(settings.anchor_late_after);
    anchors.round(&app).await;
    assert!(state().await.late, "it is an alarm");
    collector.restart();
    anchors.round(&app).await;
    assert_eq!((state().await.error, state().await.late), (None, false));
    assert_eq!((acts(&app, "anchor_late").await, acts(&app, "anchor_recovered").await), (1, 1));
    support::eventually("the next message is in the collector's file", async || collector.messages().len() == 2).await;
    assert!(collector.messages()[1].contains("size=\"5\""), "{:?}", collector.messages());
}
