//! A whole deployment at rest, as files and a database that can be copied, changed and verified: what a campaign of changes works on.

use std::path::{Path, PathBuf};

use age::x25519::Identity;
use chrono::{DateTime, Utc};
use sallyport::app::clock::Clock;
use sallyport::app::ledger::anchors::{Anchors, LedgerSettings};
use sallyport::app::ledger::verify::{Report, Verified, Wish, verify};
use sallyport::app::{App, audit, grants};
use sallyport::store::blob::{BlobSettings, Blobs};
use sallyport::store::db::{DatabaseSettings, Db};
use sallyport::store::seal::{MasterKey, MasterKeySettings};
use sallyport_domain::event::Act;
use sallyport_domain::hash::Hash;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Sqlite, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::bastion::{Bastion, OPERATOR};
use crate::support;
use crate::support::postgres;

/// The node's name, as [`Bastion`] has it.
const NODE: &str = "test";

/// A deployment at rest, or a copy of one.
pub struct Deployment {
    folder: TempDir,
    /// The database's URL if it is PostgreSQL; else it is a file in the folder.
    postgres: Option<String>,
    /// A backup of the database from some days before, as the URL or the file of the database.
    backup: String,
    pub fingerprints: Vec<Hash>,
}

impl Deployment {
    /// Sessions of several kinds, the last two encrypted to a key that is not there, grants, denials, some hundred events, all signed, anchored in a file and in the object store.
    pub async fn make(on_postgres: bool) -> Self {
        let folder = support::temporary_folder();
        let anchor_file = folder.path().join("anchors.jsonl").display().to_string();
        let mut settings = vec![
            ("recording.segment_bytes", "4KiB"),
            ("ledger.anchor_file", &*anchor_file),
            ("ledger.anchor_every", "1s"),
        ];
        let postgres = if on_postgres { Some(postgres::Postgres::shared().database().await) } else { None };
        if let Some(url) = &postgres {
            settings.push(("database.url", url));
        }
        let mut bastion = Bastion::with(&settings).await;
        let alice = bastion.person("alice").await;
        let _toy = bastion.toy("web-1").await;
        bastion.grant(&alice, "web-1").await;
        let slowly = "for n in 1 2 3 4 5 6 7 8; do head -c 1500 /dev/urandom | base64; sleep 0.01; done";
        bastion.ssh(&alice, "web-1").arg("-tt").arg(slowly).run().await;
        bastion.ssh(&alice, "web-1").arg("cat; echo two >&2; exit 7").input(b"some input").run().await;
        grow(bastion.app(), 130).await;
        at_rest(&bastion, 2).await;
        let db = bastion.app().db.clone();
        bastion.stop().await;
        db.close().await;
        copy_folder(&bastion.folder().join("data/blobs"), &folder.path().join("backup/blobs"));
        std::fs::copy(&anchor_file, folder.path().join("backup/anchors.jsonl")).unwrap();
        let backup = match &postgres {
            Some(url) => postgres::Postgres::shared().copy(url).await,
            None => {
                let copy = folder.path().join("backup.db").display().to_string();
                std::fs::copy(bastion.folder().join("data/sallyport.db"), &copy).unwrap();
                copy
            }
        };

        bastion.start_with(&format!("[recording]\nrecipients = [\"{}\"]\n", Identity::generate().to_public())).await;
        alice.workstation.trust(bastion.ssh_address(), bastion.host_key());
        bastion.ssh(&alice, "web-2").arg("true").run().await; // there is no such target: a denial
        bastion.ssh(&alice, "web-1").arg("-tt").arg(slowly).run().await;
        bastion.ssh(&alice, "web-1").arg("true").run().await.expect_success();
        grow(bastion.app(), 150).await;
        at_rest(&bastion, 4).await;
        let db = bastion.app().db.clone();
        bastion.stop().await;
        db.close().await;
        copy_folder(&bastion.folder().join("data/blobs"), &folder.path().join("blobs"));
        std::fs::copy(bastion.folder().join("data/master.key"), folder.path().join("master.key")).unwrap();
        if postgres.is_none() {
            std::fs::copy(bastion.folder().join("data/sallyport.db"), folder.path().join("now.db")).unwrap();
        }
        let mut made = Self { folder, postgres, backup, fingerprints: Vec::new() };
        let report = made.verify().await;
        assert_eq!(report.faults, [], "as it was made");
        assert!(report.of > 300 && (report.sessions, report.encrypted) == (4, 2) && report.anchors > 2, "{report:?}");
        made.fingerprints = report.fingerprints;
        made
    }

    /// The same once more: who changes the copy does not change this one.
    pub async fn copy(&self) -> Self {
        let folder = support::temporary_folder();
        copy_folder(self.folder.path(), folder.path());
        let postgres = match &self.postgres {
            Some(url) => Some(postgres::Postgres::shared().copy(url).await),
            None => None,
        };
        Self { folder, postgres, backup: self.backup.clone(), fingerprints: self.fingerprints.clone() }
    }

    /// Gives up a copy.
    pub async fn remove(self) {
        if let Some(url) = &self.postgres {
            postgres::Postgres::shared().remove(url).await;
        }
    }

    pub fn blobs(&self) -> PathBuf {
        self.folder.path().join("blobs")
    }

    pub fn anchor_file(&self) -> PathBuf {
        self.folder.path().join("anchors.jsonl")
    }

    fn url(&self) -> String {
        let file = || format!("sqlite:{}", self.folder.path().join("now.db").display());
        self.postgres.clone().unwrap_or_else(file)
    }

    /// Puts the old backup of the database in the place of the database.
    pub async fn restore_backup(&mut self) {
        match &mut self.postgres {
            Some(url) => {
                postgres::Postgres::shared().remove(url).await;
                *url = postgres::Postgres::shared().copy(&self.backup).await;
            }
            None => {
                std::fs::copy(&self.backup, self.folder.path().join("now.db")).unwrap();
            }
        }
    }

    /// Puts the old backup of the object store in the place of the object store.
    pub fn restore_objects(&self) {
        std::fs::remove_dir_all(self.blobs()).unwrap();
        copy_folder(&self.folder.path().join("backup/blobs"), &self.blobs());
    }

    /// Puts the old backup of the anchors' file in its place.
    pub fn restore_anchor_file(&self) {
        std::fs::copy(self.folder.path().join("backup/anchors.jsonl"), self.anchor_file()).unwrap();
    }

    /// The use cases on this deployment.
    pub async fn app(&self) -> App {
        let db = Db::connect(&DatabaseSettings { url: self.url(), ..DatabaseSettings::default() }).await.unwrap();
        let blobs = BlobSettings { url: format!("file:{}", self.blobs().display()), ..BlobSettings::default() };
        let master =
            MasterKeySettings { file: Some(self.folder.path().join("master.key")), ..MasterKeySettings::default() };
        let master = MasterKey::load(&master, |_| None).unwrap();
        App::new(db, Blobs::open(&blobs).unwrap(), Clock::system(), master)
    }

    pub fn anchors(&self, app: &App) -> Anchors {
        let settings = LedgerSettings { anchor_file: Some(self.anchor_file()), ..LedgerSettings::default() };
        Anchors::open(&settings, &app.blobs, NODE).unwrap()
    }

    /// As `sallyport verify` does, from the start, with the fingerprint from elsewhere.
    pub async fn verify(&self) -> Report {
        self.verify_from(None).await
    }

    pub async fn verify_from(&self, resume: Option<Verified>) -> Report {
        let app = self.app().await;
        let (anchored, anchor_faults) = self.anchors(&app).witnesses(&app).await.unwrap();
        let fingerprints = self.fingerprints.clone();
        let wish = Wish { fingerprints, anchored, anchor_faults, resume, ..Wish::default() };
        let report = verify(&app, wish, |_| {}).await.unwrap();
        app.db.close().await;
        report
    }

    /// A connection of the database's owner, past every trigger and constraint between tables.
    pub async fn owner(&self) -> Owner {
        match &self.postgres {
            Some(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query("SET session_replication_role = replica").execute(&mut connection).await.unwrap();
                Owner::Postgres(connection)
            }
            None => {
                let options =
                    SqliteConnectOptions::new().filename(self.folder.path().join("now.db")).foreign_keys(false);
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                let triggers: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
                for trigger in triggers {
                    sqlx::query(AssertSqlSafe(format!("DROP TRIGGER {trigger}")))
                        .execute(&mut connection)
                        .await
                        .unwrap();
                }
                Owner::Sqlite(connection)
            }
        }
    }
}

/// Some acts, each a transaction.
pub async fn grow(app: &App, count: usize) {
    let grant = grants::list(app, &grants::GrantFilter::default()).await.unwrap()[0].id;
    for number in 0..count {
        let act = Act::GrantExtended { grant, not_after: app.clock.now(), reason: format!("number {number}") };
        audit::record(app, &OPERATOR, act).await.unwrap();
    }
}

/// Waits until `sessions` are sealed, everything is signed, and the last checkpoint is at every anchor.
async fn at_rest(bastion: &Bastion, sessions: usize) {
    let app = bastion.app();
    support::eventually("the sessions are sealed", async || {
        bastion.acts().await.iter().filter(|act| matches!(act, Act::SessionSealed { .. })).count() == sessions
    })
    .await;
    support::eventually("everything is signed and anchored", async || {
        let standing = sallyport::app::ledger::proofs::standing(app).await.unwrap();
        let size = standing.checkpoint.map_or(0, |checkpoint| checkpoint.size);
        standing.waiting == 0
            && standing.anchors.len() == 2
            && standing.anchors.iter().all(|anchor| anchor.size == size)
    })
    .await;
}

/// Files are copied, not linked: they are changed in their places.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The owner of a database.
pub enum Owner {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A parameter.
#[derive(Debug, Clone)]
pub enum Value {
    Number(i64),
    Bytes(Vec<u8>),
    Text(String),
    Id(Uuid),
    At(DateTime<Utc>),
}

macro_rules! asked {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value.clone() {
                Value::Number(number) => query.bind(number),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Text(text) => query.bind(text),
                Value::Id(id) => query.bind(id),
                Value::At(at) => query.bind(at),
            };
        }
        query
    }};
}

impl Owner {
    /// Runs a statement, which must change at least one row.
    pub async fn change(&mut self, sql: &str, values: &[Value]) {
        let changed = self.run(sql, values).await;
        assert!(changed > 0, "nothing was changed by {sql} with {values:?}");
    }

    pub async fn run(&mut self, sql: &str, values: &[Value]) -> u64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Owner::Sqlite(c) => asked!(sqlx::query(sql), values).execute(c).await.unwrap().rows_affected(),
            Owner::Postgres(c) => asked!(sqlx::query(sql), values).execute(c).await.unwrap().rows_affected(),
        }
    }

    /// The first column of every row.
    pub async fn all<T>(&mut self, sql: &str, values: &[Value]) -> Vec<T>
    where
        T: Send + Unpin,
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Owner::Sqlite(c) => asked!(sqlx::query_scalar(sql), values).fetch_all(c).await.unwrap(),
            Owner::Postgres(c) => asked!(sqlx::query_scalar(sql), values).fetch_all(c).await.unwrap(),
        }
    }

    pub async fn one<T>(&mut self, sql: &str, values: &[Value]) -> T
    where
        T: Send + Unpin,
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        self.all(sql, values).await.pop().unwrap_or_else(|| panic!("no row: {sql} with {values:?}"))
    }

    pub async fn close(self) {
        match self {
            Owner::Sqlite(c) => c.close().await.unwrap(),
            Owner::Postgres(c) => c.close().await.unwrap(),
        }
    }
}
