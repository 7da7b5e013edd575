//! Runs a test on SQLite, and on PostgreSQL where there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{DatabaseSettings, Db};

/// The address of a PostgreSQL database in which others may be created.
const POSTGRES: &str = "SALLYPORT_TEST_POSTGRES";

/// Calls `test` with a fresh, migrated database of each kind.
pub(crate) async fn on_both<F: Future<Output = ()>>(test: impl Fn(Db) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = open(format!("sqlite:{}/test.db", folder.path().display())).await;
    test(sqlite.clone()).await;
    sqlite.close().await;
    if let Some(postgres) = postgres().await {
        test(postgres.clone()).await;
        postgres.close().await;
    }
}

pub(crate) async fn open(url: String) -> Db {
    let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap();
    db.migrate().await.unwrap();
    db
}

async fn postgres() -> Option<Db> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let admin = std::env::var(POSTGRES).ok()?;
    let name = format!("unit_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&admin).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let (before, query) = admin.split_once('?').map_or((admin.as_str(), ""), |(before, query)| (before, query));
    let server = before.rsplit_once('/').unwrap().0;
    Some(open(format!("{server}/{name}?{query}")).await)
}

/// An application on `db`, with a manual clock that stands at noon of a day, and a key that is always the same.
pub(crate) fn app_on(db: Db) -> crate::app::App {
    use crate::app::App;
    use crate::app::clock::Clock;
    use crate::store::blob::Blobs;
    use crate::store::seal::MasterKey;

    let blobs = Blobs::over(Arc::new(object_store::memory::InMemory::new()));
    let noon = "2026-03-02T12:00:00Z".parse().unwrap();
    App::new(db, blobs, Clock::manual(noon), MasterKey::from_bytes(&[7; 32]).unwrap())
}
