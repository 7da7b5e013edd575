//! Runs a test on SQLite and on PostgreSQL.

use std::sync::Arc;

use super::{DatabaseSettings, Db};
use crate::app::App;
use crate::app::clock::Clock;
use crate::store::blob::Blobs;
use crate::store::seal::MasterKey;
use crate::support::postgres::Postgres;

/// Calls `test` with a fresh, migrated database of each kind.
pub(crate) async fn on_both<F: Future<Output = ()>>(test: impl Fn(Db) -> F) {
    let folder = tempfile::tempdir().unwrap();
    for url in [format!("sqlite:{}/test.db", folder.path().display()), Postgres::shared().database().await] {
        let db = open(url).await;
        Box::pin(test(db.clone())).await;
        db.close().await;
    }
}

pub(crate) async fn open(url: String) -> Db {
    let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap();
    db.migrate().await.unwrap();
    db
}

/// An application on `db`, with a manual clock that stands at noon of a day, and a key that is always the same.
pub(crate) fn app_on(db: Db) -> App {
    let blobs = Blobs::over(Arc::new(object_store::memory::InMemory::new()));
    let noon = "2026-03-02T12:00:00Z".parse().unwrap();
    App::new(db, blobs, Clock::manual(noon), MasterKey::from_bytes(&[7; 32]).unwrap())
}
