//! One number that grows with every change that could turn a yes into a no. Live sessions compare it with the one that
//! they were permitted at, which costs one read however many grants there are.

use super::{DbError, Tx, doing, on_either};

const READ: &str = "SELECT version FROM policy_version WHERE id = 1";
const RAISE: &str = "UPDATE policy_version SET version = version + 1 WHERE id = 1 RETURNING version";

/// On PostgreSQL, who listens here is told once the change is committed.
pub const CHANNEL: &str = "sallyport_policy";
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
    tell(tx).await?;
    Ok(version)
}

/// Wakes the sessions of every node without raising the version; for what is not policy, such as a wish to cut.
pub async fn tell(tx: &mut Tx) -> Result<(), DbError> {
    match tx {
        Tx::Postgres(tx) => {
            let told = super::answer(sqlx::query(TELL).execute(&mut **tx)).await;
            told.map(drop).map_err(doing("tell the other nodes"))
        }
        // One process: `app::Changes` tells.
        Tx::Sqlite { .. } => Ok(()),
    }
}
