//! The database: PostgreSQL for several nodes, SQLite for one.
//!
//! The SQL is written once, as constants beside the row structs, and [`on_either!`] runs one text on both. Functions
//! of this module's children take `&mut Tx`, so the use case owns the transaction. Every call has a deadline: a
//! database that does not answer is an error that says so ([`DbError::is_unreachable`]), never a wait without end.

pub mod address_failures;
pub mod anchors;
pub mod bastion_keys;
pub mod break_glass;
pub mod budgets;
pub mod clock_marks;
pub mod commands;
pub mod deletions;
pub mod encryption;
pub mod events;
pub mod grants;
pub mod holds;
pub mod idempotency;
pub mod identities;
pub mod invites;
pub mod ledger;
pub mod manifests;
pub mod master_keys;
pub mod nodes;
pub mod outbox;
pub mod passkeys;
pub mod policy_version;
pub mod principals;
pub mod recordings;
pub mod requests;
pub mod review_seen;
pub mod reviews;
pub mod roles;
pub mod rotations;
pub mod search;
pub mod second_factors;
pub mod sessions;
pub mod sign_in_challenges;
pub mod targets;
pub mod templates;
pub mod tokens;
pub mod watches;
pub mod web_sessions;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod upgrade_tests;

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads a column that holds JSON.
fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::corrupt(what, error.to_string()))
}

/// Writes a column that holds JSON. Our types always serialise; that they do is not worth a panic.
fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::corrupt(what, error.to_string()))
}

/// Reads a name or an address.
fn from_text<T>(what: &'static str, text: &str) -> Result<T, DbError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| DbError::corrupt(what, error.to_string()))
}

/// Reads a count that is stored in a signed column.
fn to_count<T: TryFrom<i64>>(what: &'static str, value: impl Into<i64>) -> Result<T, DbError> {
    let value = value.into();
    T::try_from(value).map_err(|_| DbError::corrupt(what, format!("{value} is not a count")))
}

/// Where the database is and how hard it may be used: `[database]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite:/path/to/file.db` or `postgres://user@host/database`. Empty means `sallyport.db` in the data folder.
    pub url: String,
    /// The same database as another role, which owns the tables and changes them: then the role of `url` can only read and
    /// add events. PostgreSQL only; left out, the role of `url` does both.
    pub migrate_url: Option<String>,
    /// Connections that this node opens at most.
    pub max_connections: u32,
    /// How long a caller waits for a free connection.
    #[serde(with = "crate::store::duration")]
    pub acquire_timeout: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self { url: String::new(), migrate_url: None, max_connections: 16, acquire_timeout: Duration::from_secs(5) }
    }
}

/// What went wrong at the database. The chain's next link is the database's own words.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It does not answer, or cannot take more at present. Nothing is known about the change; a caller may try again,
    /// and must take it for a no where it asks for leave.
    #[error("cannot {doing}: the database cannot be reached")]
    Unreachable { doing: Cow<'static, str>, source: sqlx::Error },
    /// A row like this exists already.
    #[error("cannot {doing}: it exists already ({constraint})")]
    Conflict { doing: Cow<'static, str>, constraint: String, source: sqlx::Error },
    /// A row does not read as what it should be: the database was changed by another hand, or by a newer version.
    #[error("cannot {doing}: the database holds something that this version cannot read: {message}")]
    Corrupt { doing: Cow<'static, str>, message: String },
    /// The setting `database.url` names no database that can be used.
    #[error("`database.url` is not usable: {message} (write `sqlite:/path/to/file.db` or `postgres://user@host/name`)")]
    Address { message: String },
    #[error("cannot {doing}")]
    Other { doing: Cow<'static, str>, source: sqlx::Error },
}

impl DbError {
    /// Whether the database was away, busy or full: the same call may succeed later.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, DbError::Unreachable { .. })
    }

    /// Whether a statement was given up by the database because it took too long: `query_canceled` (PostgreSQL, appendix A).
    pub fn is_too_slow(&self) -> bool {
        matches!(self, DbError::Unreachable { source: sqlx::Error::Database(said), .. } if said.code().is_some_and(|code| code == "57014"))
    }

    /// A row of `doing` does not parse.
    pub(crate) fn corrupt(doing: &'static str, message: impl Into<String>) -> Self {
        DbError::Corrupt { doing: doing.into(), message: message.into() }
    }
}

/// Turns sqlx's error into ours and says what was being done: `.map_err(doing("revoke grant"))`.
pub fn doing(what: &'static str) -> impl FnOnce(sqlx::Error) -> DbError {
    move |source| {
        let doing = Cow::Borrowed(what);
        if is_away(&source) {
            return DbError::Unreachable { doing, source };
        }
        match &source {
            sqlx::Error::Database(error) if error.is_unique_violation() => {
                let constraint = match error.constraint() {
                    Some(constraint) => constraint.to_owned(),
                    // SQLite says it in words only: "UNIQUE constraint failed: targets.name".
                    None => error.message().rsplit(": ").next().unwrap_or_default().to_owned(),
                };
                DbError::Conflict { doing, constraint, source }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                DbError::Corrupt { doing, message: source.to_string() }
            }
            _ => DbError::Other { doing, source },
        }
    }
}

/// Whether the error says "not now" rather than "not this".
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                // Connection exceptions; too many connections, no memory, disk full; shutting down, crashed, starting,
                // a statement's time is up; a lock's time is up; deadlock and serialization; a standby that only reads.
                Some(_) => {
                    ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                        || matches!(&*code, "55P03" | "40001" | "40P01" | "25006")
                }
                // The low byte of SQLite's extended code: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN.
                None => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)),
            }
        }
        _ => false,
    }
}

/// The longest that one statement may take before the database is told to give up.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that we wait for an answer. Longer than [`STATEMENT_DEADLINE`], so that a database that is alive gives
/// its own reason; this one is for a machine or a network that went silent.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Waits for the database's answer, but not for ever.
///
/// What is asked is put on the heap before the wait: sqlx's futures take some kilobytes each, and whoever may ask a question
/// later, a session that idles among them, would hold the room for it all the time.
pub(crate) fn answer<'a, T: 'a>(
    asked: impl Future<Output = Result<T, sqlx::Error>> + Send + 'a,
) -> impl Future<Output = Result<T, sqlx::Error>> + Send + 'a {
    let asked = Box::pin(asked);
    async move {
        match tokio::time::timeout(ANSWER_DEADLINE, asked).await {
            Ok(answered) => answered,
            Err(_) => {
                Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time")))
            }
        }
    }
}

/// Begins a transaction on PostgreSQL, to its end even if the caller is given up meanwhile: sqlx would put the connection back into
/// the pool with the transaction open, and whoever takes it next would be in one that reads only, or sees an old state.
fn begun(
    begin: impl Future<Output = Result<Transaction<'static, Postgres>, sqlx::Error>> + Send + 'static,
) -> impl Future<Output = Result<Transaction<'static, Postgres>, sqlx::Error>> + Send {
    let begin = answer(begin);
    async move {
        #[expect(clippy::disallowed_methods, reason = "it ends by its deadline, and holds nothing but a connection")]
        let begun = tokio::spawn(begin).await;
        begun.unwrap_or(Err(sqlx::Error::PoolClosed))
    }
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Db {
    Postgres(PgPool),
    /// SQLite takes one writer at a time. `writer` is the queue in front of it, first come, first served; SQLite's own
    /// waiting is a lottery in which some callers lose for seconds.
    Sqlite {
        pool: SqlitePool,
        writer: Arc<Semaphore>,
        patience: Duration,
    },
}

/// A transaction. Dropped without [`Tx::commit`], it changes nothing.
#[derive(Debug)]
pub enum Tx {
    Postgres(Transaction<'static, Postgres>),
    Sqlite { tx: Transaction<'static, Sqlite>, turn: Option<OwnedSemaphorePermit> },
}

/// Runs one query on whichever database the transaction is on, with a deadline; gives `Result<_, sqlx::Error>`.
///
/// `on_either!(tx, |c| sqlx::query_as(FIND).bind(id).fetch_optional(c))`
macro_rules! on_either {
    ($tx:expr, |$connection:ident| $query:expr) => {
        match $tx {
            $crate::store::db::Tx::Postgres(tx) => {
                let $connection = &mut **tx;
                $crate::store::db::answer($query).await
            }
            $crate::store::db::Tx::Sqlite { tx, .. } => {
                let $connection = &mut **tx;
                $crate::store::db::answer($query).await
            }
        }
    };
}

/// Like [`on_either!`] for a statement that returns no rows: gives how many rows it changed.
macro_rules! change_either {
    ($tx:expr, |$connection:ident| $query:expr) => {
        match $tx {
            $crate::store::db::Tx::Postgres(tx) => {
                let $connection = &mut **tx;
                $crate::store::db::answer($query.execute($connection)).await.map(|done| done.rows_affected())
            }
            $crate::store::db::Tx::Sqlite { tx, .. } => {
                let $connection = &mut **tx;
                $crate::store::db::answer($query.execute($connection)).await.map(|done| done.rows_affected())
            }
        }
    };
}

pub(crate) use {change_either, on_either};

/// Connections to the database: those that wait for work, those that work, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    pub idle: u32,
    pub used: u32,
    pub most: u32,
}

impl Db {
    /// Opens the database that the settings name. SQLite's file is created, readable by its owner alone, if it does not
    /// exist; a PostgreSQL that is away is an error.
    pub async fn connect(settings: &DatabaseSettings) -> Result<Self, DbError> {
        if let Some(path) = settings.url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Self::open_sqlite(Path::new(path), settings).await;
        }
        if !settings.url.starts_with("postgres://") && !settings.url.starts_with("postgresql://") {
            // The address may hold a password, so it is not repeated.
            return Err(DbError::Address { message: "it names neither SQLite nor PostgreSQL".to_owned() });
        }
        let options = PgConnectOptions::from_str(&settings.url)
            .map_err(|error| DbError::Address { message: error.to_string() })?
            .application_name("sallyport")
            .options([
                ("statement_timeout", STATEMENT_DEADLINE.as_millis().to_string()),
                ("lock_timeout", STATEMENT_DEADLINE.as_millis().to_string()),
                // A node that froze with rows locked must not hold up the others for long.
                ("idle_in_transaction_session_timeout", "30000".to_owned()),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.acquire_timeout)
            .connect_with(options)
            .await
            .map_err(doing("connect to the database"))?;
        Ok(Db::Postgres(pool))
    }

    async fn open_sqlite(path: &Path, settings: &DatabaseSettings) -> Result<Self, DbError> {
        if path.as_os_str().is_empty() {
            return Err(DbError::Address { message: "it names no file".to_owned() });
        }
        let owned: PathBuf = path.to_owned();
        // SQLite would create the file for everybody to read; its -wal and -shm take after it.
        let created = tokio::task::spawn_blocking(move || {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(owned).map(drop)
        })
        .await
        .unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        created.map_err(sqlx::Error::Io).map_err(doing("open the database file"))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL would lose the last transactions in a power cut: a grant revoked, and open again after it.
            .synchronous(SqliteSynchronous::Full)
            // KiB for each connection, where SQLite would take 2,000; behind it is the kernel's page cache.
            .pragma("cache_size", "-256")
            // What is deleted from a page that is written anyway is overwritten: the keys of recordings that have ended.
            .pragma("secure_delete", "FAST")
            .busy_timeout(settings.acquire_timeout);
        let pool = SqlitePoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.acquire_timeout)
            .connect_with(options)
            .await
            .map_err(doing("open the database file"))?;
        Ok(Db::Sqlite { pool, writer: Arc::new(Semaphore::new(1)), patience: settings.acquire_timeout })
    }

    /// Brings the tables up to this version. Nodes that start at once take turns.
    pub async fn migrate(&self) -> Result<(), DbError> {
        self.migrate_as(None).await
    }

    /// The same as the role of `migrate_url`, if there is one; it also gives the role of this connection the rights that it
    /// needs. Where all is up to date nothing is asked of either.
    pub async fn migrate_as(&self, migrate_url: Option<&str>) -> Result<(), DbError> {
        let migrated = match self {
            Db::Postgres(pool) => match migrate_url {
                Some(owner) => return roles::migrate(pool, owner).await,
                None if roles::is_up_to_date(pool).await? => return Ok(()),
                // On a connection of its own: one that failed half-way would go back with its lock on it.
                None => match answer(pool.acquire()).await {
                    Ok(connection) => roles::MIGRATIONS.run(&mut connection.detach()).await,
                    Err(error) => return Err(doing("bring the database's tables up to this version")(error)),
                },
            },
            Db::Sqlite { pool, .. } => sqlx::migrate!("migrations/sqlite").run(pool).await,
        };
        migrated.map_err(sqlx::Error::from).map_err(doing("bring the database's tables up to this version"))
    }

    /// Begins a transaction that may write.
    pub async fn write(&self) -> Result<Tx, DbError> {
        match self {
            Db::Postgres(pool) => {
                let pool = pool.clone();
                let tx = begun(async move { pool.begin().await }).await.map_err(doing("begin a transaction"))?;
                Ok(Tx::Postgres(tx))
            }
            Db::Sqlite { pool, writer, patience } => {
                let turn = tokio::time::timeout(*patience, writer.clone().acquire_owned()).await;
                let turn = match turn {
                    Ok(Ok(turn)) => turn,
                    Ok(Err(_closed)) => return Err(doing("begin a transaction")(sqlx::Error::PoolClosed)),
                    Err(_elapsed) => return Err(doing("begin a transaction")(sqlx::Error::PoolTimedOut)),
                };
                // IMMEDIATE: a transaction that reads first and then wants to write would fail if another wrote meanwhile.
                let tx = answer(pool.begin_with("BEGIN IMMEDIATE")).await.map_err(doing("begin a transaction"))?;
                Ok(Tx::Sqlite { tx, turn: Some(turn) })
            }
        }
    }

    /// Begins a transaction that reads, and sees one state of the database from its first query to its last.
    pub async fn read(&self) -> Result<Tx, DbError> {
        match self {
            Db::Postgres(pool) => {
                let pool = pool.clone();
                let begin = async move { pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await };
                Ok(Tx::Postgres(begun(begin).await.map_err(doing("begin a transaction"))?))
            }
            Db::Sqlite { pool, .. } => {
                let tx = answer(pool.begin()).await.map_err(doing("begin a transaction"))?;
                Ok(Tx::Sqlite { tx, turn: None })
            }
        }
    }

    /// The host and port of the database's server; `None` where it is reached without a network.
    pub fn server(&self) -> Option<(String, u16)> {
        match self {
            Db::Postgres(pool) => {
                let options = pool.connect_options();
                let is_local = options.get_socket().is_some() || options.get_host().starts_with('/');
                (!is_local).then(|| (options.get_host().to_owned(), options.get_port()))
            }
            Db::Sqlite { .. } => None,
        }
    }

    /// How many connections there are.
    pub fn pool(&self) -> PoolState {
        let (size, idle, most) = match self {
            Db::Postgres(pool) => (pool.size(), pool.num_idle(), pool.options().get_max_connections()),
            Db::Sqlite { pool, .. } => (pool.size(), pool.num_idle(), pool.options().get_max_connections()),
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        PoolState { idle, used: size.saturating_sub(idle), most }
    }

    /// Closes every connection, after the transactions under way.
    pub async fn close(&self) {
        match self {
            Db::Postgres(pool) => pool.close().await,
            Db::Sqlite { pool, .. } => pool.close().await,
        }
    }
}

impl Tx {
    /// Makes the changes last. After an error it is not known whether they do.
    pub async fn commit(self) -> Result<(), DbError> {
        let committed = match self {
            Tx::Postgres(tx) => answer(tx.commit()).await,
            Tx::Sqlite { tx, turn } => {
                let committed = answer(tx.commit()).await;
                drop(turn); // only now: the next writer must find the database free
                committed
            }
        };
        committed.map_err(doing("commit"))
    }
}
