//! A database of the first version, filled, is brought to this one, and everything in it reads: people, grants, sessions, recordings.
//!
//! The rows are those of a new database, put into tables as they were made first: what was added since is not there.

use sallyport_domain::channel::Program;
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::id::RecordingId;
use sallyport_domain::recording::frame::Body;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::testing::{app_on, open};
use super::tests::furnish_sessions;
use super::{DatabaseSettings, Db};
use crate::app::App;
use crate::app::ledger::keys;
use crate::app::ledger::sequencer::Sequencer;
use crate::app::ledger::verify::{Wish, verify};
use crate::app::recordings::read::Reader;
use crate::app::recordings::{Ending, NewRecording, RecordingSettings, Recordings};
use crate::app::{audit, grants, people, sessions};
use crate::store::db;
use crate::support::eventually;
use crate::support::postgres::Postgres;

/// The first migration alone.
fn first(all: &Migrator) -> Migrator {
    let migrations = all.iter().take(1).cloned().collect::<Vec<_>>();
    Migrator { migrations: migrations.into(), ..Migrator::DEFAULT }
}

/// Puts every row of `from` into the tables of `to`, as far as they have its columns.
async fn copy_postgres(from: &str, to: &str) {
    let mut from = PgConnection::connect(from).await.unwrap();
    let mut to = PgConnection::connect(to).await.unwrap();
    first(&super::roles::MIGRATIONS).run(&mut to).await.unwrap();
    to.execute("SET session_replication_role = replica").await.unwrap(); // rows come in any order
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_%'";
    for table in sqlx::query_scalar::<_, String>(tables).fetch_all(&mut to).await.unwrap() {
        to.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap();
        let rows = format!("SELECT COALESCE(jsonb_agg(to_jsonb(t)), '[]')::text FROM {table} t");
        let rows: String = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut from).await.unwrap();
        let put = format!(
            "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(NULL::{table}, $1::jsonb)"
        );
        sqlx::query(AssertSqlSafe(put)).bind(rows).execute(&mut to).await.unwrap();
    }
    let sequence = "SELECT setval(pg_get_serial_sequence('events', 'seq'), (SELECT MAX(seq) FROM events))";
    to.execute(sequence).await.unwrap();
}

/// The same for SQLite.
async fn copy_sqlite(from: &str, to: &str) {
    let mut to = SqliteConnection::connect(&format!("{to}?mode=rwc")).await.unwrap();
    first(&sqlx::migrate!("migrations/sqlite")).run(&mut to).await.unwrap();
    let attach = format!("PRAGMA foreign_keys = OFF; ATTACH '{}' AS other", from.trim_start_matches("sqlite:"));
    to.execute(AssertSqlSafe(attach)).await.unwrap();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'";
    for table in sqlx::query_scalar::<_, String>(tables).fetch_all(&mut to).await.unwrap() {
        let columns = sqlx::query(AssertSqlSafe(format!("PRAGMA main.table_info({table})"))).fetch_all(&mut to).await;
        let columns: Vec<String> =
            columns.unwrap().iter().map(|row| format!("\"{}\"", row.get::<String, _>("name"))).collect();
        let columns = columns.join(", ");
        let put = format!(
            "DELETE FROM main.{table}; INSERT INTO main.{table} ({columns}) SELECT {columns} FROM other.{table}"
        );
        to.execute(AssertSqlSafe(put)).await.unwrap();
    }
    to.close().await.unwrap();
}

/// A recording of alice's first session, at rest, and that session's end.
async fn record(app: &App, session: sallyport_domain::id::SessionId) -> RecordingId {
    let folder = tempfile::tempdir().unwrap();
    let settings = RecordingSettings { journal_dir: folder.path().to_owned(), ..RecordingSettings::default() };
    let recordings = Recordings::new(app.clone(), settings).unwrap();
    let id = RecordingId::from_uuid(Uuid::now_v7());
    let program = Program::Exec { command: b"cat".to_vec() };
    let new = NewRecording { id, session, channel: 1, program, pty: None, keeps_content: true };
    let recorder = recordings.start(new).await.unwrap();
    recorder.record(vec![Body::Output(b"a line\n".as_slice().into())]).await.unwrap();
    recorder.finish(Ending { how: "closed".to_owned(), reason: None });
    eventually("the recording is at rest", async || recordings.open_count() == 0).await;
    let mut tx = app.db.write().await.unwrap();
    db::sessions::end(&mut tx, session, app.clock.now(), &SessionEnd::ClientClosed).await.unwrap();
    tx.commit().await.unwrap();
    audit::record(app, &Actor::Bastion, Act::SessionEnded { session, end: SessionEnd::ClientClosed }).await.unwrap();
    id
}

/// What can be read of it all.
async fn read(app: &App, recording: RecordingId) -> String {
    let mut all = format!("{:?}\n", people::list(app).await.unwrap());
    all += &format!("{:?}\n", grants::list(app, &grants::GrantFilter::default()).await.unwrap());
    all += &format!("{:?}\n", sessions::list(app, &sessions::SessionFilter::default(), 10).await.unwrap());
    all += &format!("{:?}\n", audit::list(app, 0, &audit::EventFilter::default(), 100).await.unwrap());
    let mut reader = Reader::new(app.clone(), recording, false);
    while let Some(frames) = reader.next().await.unwrap() {
        all += &format!("{frames:?}\n");
    }
    all
}

#[tokio::test]
async fn a_filled_database_of_the_first_version_is_brought_to_this_one_and_everything_reads() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = |name: &str| format!("sqlite:{}/{name}.db", folder.path().display());
    let postgres = [Postgres::shared().database().await, Postgres::shared().database().await];
    for [new, old] in [[sqlite("new"), sqlite("old")], postgres] {
        let db = open(new.clone()).await;
        let (_, filled) = furnish_sessions(&db, 2).await;
        let app = app_on(db);
        let recording = record(&app, filled[0]).await;
        let before = read(&app, recording).await;
        app.db.close().await;
        if old.starts_with("sqlite") {
            copy_sqlite(&new, &old).await;
        } else {
            copy_postgres(&new, &old).await;
        }

        let db = Db::connect(&DatabaseSettings { url: old, ..DatabaseSettings::default() }).await.unwrap();
        db.migrate().await.unwrap();

        let app = App { db, ..app };
        assert_eq!(read(&app, recording).await, before);
        assert!(before.contains("a line"), "{before}");
        // Its events get their places, and what is new works on what is old.
        keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
        Sequencer::new(app.clone()).catch_up().await.unwrap();
        let report = verify(&app, Wish::default(), |_| {}).await.unwrap();
        assert!(report.is_sound() && report.events >= 3, "{report:?}");
        let recordings =
            RecordingSettings { journal_dir: folder.path().join("journal"), ..RecordingSettings::default() };
        let recordings = Recordings::new(app.clone(), recordings).unwrap();
        let left = recordings.find_left_behind("node-a", &[]).await.unwrap();
        assert_eq!(left.sessions(), 1, "the other session had no end");
        recordings.recover(left);
        recordings.close(std::time::Duration::from_secs(10)).await;
        let ended = sessions::find(&app, filled[1]).await.unwrap().ended;
        assert_eq!(ended.unwrap().1, SessionEnd::Crashed);
        app.db.close().await;
    }
}
