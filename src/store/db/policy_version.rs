//! One number that grows with every change that could turn a yes into a no. Live sessions compare it with the one that
//! they were permitted at, which costs one read however many grants there are.

use sqlx::postgres::PgListener;

use super::{Db, DbError, Tx, doing, on_either};

const READ: &str = "SELECT version FROM policy_version WHERE id = 1";
const RAISE: &str = "UPDATE policy_version SET version = version + 1 WHERE id = 1 RETURNING version";

/// On PostgreSQL, who listens here is told once the change is committed.
const CHANNEL: &str = "sallyport_policy";
const TELL: &str = "SELECT pg_notify('sallyport_policy', '')";

/// The version as this transaction sees it.
pub async fn read(tx: &mut Tx) -> Result<i64, DbError> {
    on_either!(tx, |c| sqlx::query_scalar(READ).fetch_one(c)).map_err(doing("read the policy version"))
}

/// Raises the version. Call it before the change that it announces: until the commit it keeps other changes of the
/// policy waiting, so that they happen one after the other.
pub async fn raise(tx: &mut Tx) -> Result<i64, DbError> {
    let raised = on_either!(tx, |c| sqlx::query_scalar(RAISE).fetch_one(c));
    let version = raised.map_err(doing("raise the policy version"))?;
    match tx {
        Tx::Postgres(tx) => {
            let told = super::answer(sqlx::query(TELL).execute(&mut **tx)).await;
            told.map_err(doing("tell the other nodes"))?;
        }
        // One process: `app::Changes` tells.
        Tx::Sqlite { .. } => {}
    }
    Ok(version)
}

/// Hears of changes that other nodes commit.
#[derive(Debug)]
pub struct Listener(Option<PgListener>);

impl Listener {
    /// Listens on PostgreSQL, on a connection of its own. On SQLite there is one process, so nobody ever tells.
    pub async fn start(db: &Db) -> Result<Self, DbError> {
        let Db::Postgres(pool) = db else {
            return Ok(Self(None));
        };
        let listen = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        super::answer(listen).await.map(|listener| Self(Some(listener))).map_err(doing("listen for changes"))
    }

    /// Returns when somebody told of a change, or when a telling may have been missed because the connection broke. An
    /// error means that nothing will be heard any more.
    pub async fn told(&mut self) -> Result<(), DbError> {
        match &mut self.0 {
            // `None` says that the connection broke and was made anew.
            Some(listener) => listener.try_recv().await.map(drop).map_err(doing("listen for changes")),
            None => std::future::pending().await,
        }
    }
}
