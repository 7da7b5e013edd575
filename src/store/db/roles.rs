//! Two roles on PostgreSQL: one owns the tables and changes them, the other serves. The one that serves can read and add events
//! and the ledger's rows, and neither change nor remove them: it has no right to, beside the triggers that refuse it.

use std::str::FromStr as _;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};

use super::{Db, DbError, doing};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Tables whose rows are never changed or removed.
pub const KEPT: [&str; 8] = [
    "events",
    "ledger_order",
    "ledger_tiles",
    "ledger_checkpoints",
    "ledger_rollbacks",
    "manifests",
    "manifest_amendments",
    "session_facts",
];

/// What one kept table allows the role that serves, beyond what it needs.
const EXCESS: &str = "SELECT c.relname::text AS name,
                             pg_has_role(current_user, c.relowner, 'MEMBER') AS owns,
                             has_table_privilege(current_user, c.oid, 'UPDATE')
                               OR has_table_privilege(current_user, c.oid, 'DELETE')
                               OR has_table_privilege(current_user, c.oid, 'TRUNCATE') AS changes
                      FROM pg_class c WHERE c.relname = ANY($1) AND c.relkind = 'r' AND pg_table_is_visible(c.oid)
                      ORDER BY 1";

/// Whether every migration of this version has been run, as far as this role may look.
pub(super) async fn is_up_to_date(pool: &PgPool) -> Result<bool, DbError> {
    const DOING: &str = "look whether the database's tables are of this version";
    let exists: bool =
        super::answer(sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(pool))
            .await
            .map_err(doing(DOING))?;
    if !exists {
        return Ok(false);
    }
    let done = sqlx::query("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(pool);
    let done = super::answer(done).await.map_err(doing(DOING))?;
    let is_done = |version: i64, checksum: &[u8]| {
        done.iter().any(|row| {
            row.try_get::<i64, _>("version").is_ok_and(|found| found == version)
                && row.try_get::<Vec<u8>, _>("checksum").is_ok_and(|found| found == checksum)
        })
    };
    Ok(MIGRATIONS.iter().all(|migration| is_done(migration.version, &migration.checksum)))
}

/// Migrates as the owner, and gives the role of `pool` what it needs.
pub(super) async fn migrate(pool: &PgPool, owner_url: &str) -> Result<(), DbError> {
    const DOING: &str = "bring the database's tables up to this version as the role of `database.migrate_url`";
    let role: String = super::answer(sqlx::query_scalar("SELECT quote_ident(current_user)").fetch_one(pool))
        .await
        .map_err(doing(DOING))?;
    let options = PgConnectOptions::from_str(owner_url)
        .map_err(|error| DbError::Address { message: format!("`database.migrate_url`: {error}") })?
        .options([("lock_timeout", "60000")]);
    let mut owner = super::answer(PgConnection::connect_with(&options)).await.map_err(doing(DOING))?;
    MIGRATIONS.run(&mut owner).await.map_err(sqlx::Error::from).map_err(doing(DOING))?;
    let owner_role: String =
        sqlx::query_scalar("SELECT quote_ident(current_user)").fetch_one(&mut owner).await.map_err(doing(DOING))?;
    if role != owner_role {
        let schema: String = sqlx::query_scalar("SELECT quote_ident(current_schema())")
            .fetch_one(&mut owner)
            .await
            .map_err(doing(DOING))?;
        let kept = KEPT.join(", ");
        for statement in [
            format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"),
            format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"),
            format!("REVOKE UPDATE, DELETE, TRUNCATE ON {kept} FROM {role}"),
            format!("REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON _sqlx_migrations FROM {role}"),
        ] {
            // Names that the database has quoted itself, and our own.
            sqlx::query(AssertSqlSafe(statement)).execute(&mut owner).await.map_err(doing(DOING))?;
        }
    }
    owner.close().await.map_err(doing(DOING))
}

/// The kept tables that this connection's role could change, because it has the right to or owns them. None is as it should
/// be; on SQLite there are no roles, and `None` is given.
pub async fn changeable(db: &Db) -> Result<Option<Vec<String>>, DbError> {
    const DOING: &str = "look at the rights of the database's role";
    let Db::Postgres(pool) = db else { return Ok(None) };
    let kept: Vec<String> = KEPT.iter().map(|&name| name.to_owned()).collect();
    let rows = super::answer(sqlx::query(EXCESS).bind(&kept).fetch_all(pool)).await.map_err(doing(DOING))?;
    let mut changeable = Vec::new();
    for row in rows {
        let (owns, changes): (bool, bool) =
            (row.try_get("owns").map_err(doing(DOING))?, row.try_get("changes").map_err(doing(DOING))?);
        if owns || changes {
            changeable.push(row.try_get("name").map_err(doing(DOING))?);
        }
    }
    Ok(Some(changeable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::audit;
    use crate::app::ledger::keys;
    use crate::app::ledger::sequencer::Sequencer;
    use crate::app::ledger::verify::{Wish, verify};
    use crate::store::db::DatabaseSettings;
    use crate::store::db::testing::app_on;
    use crate::support::postgres::Postgres;
    use sallyport_domain::event::{Act, Actor};
    use sallyport_domain::id::GrantId;
    use uuid::Uuid;

    #[tokio::test]
    async fn the_role_that_serves_can_add_events_and_neither_change_nor_remove_them() {
        let owner_url = Postgres::shared().database().await;
        let mut owner = PgConnection::connect(&owner_url).await.unwrap();
        let role = format!("serves_{}", Uuid::now_v7().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN"))).execute(&mut owner).await.unwrap();
        let url = owner_url.replace("user=postgres", &format!("user={role}"));
        let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap();
        assert!(db.migrate().await.is_err(), "it may make no tables");

        db.migrate_as(Some(&owner_url)).await.unwrap();
        db.migrate().await.unwrap(); // another node, without the owner's password

        let app = app_on(db.clone());
        keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
        for number in 0..300 {
            let act = Act::GrantRevoked { grant: GrantId::from_uuid(Uuid::from_u128(number)), reason: "x".to_owned() };
            audit::record(&app, &Actor::Bastion, act).await.unwrap();
        }
        Sequencer::new(app.clone()).catch_up().await.unwrap();
        assert!(verify(&app, Wish::default(), |_| {}).await.unwrap().is_sound());
        assert_eq!(changeable(&db).await.unwrap(), Some(vec![]));
        let Db::Postgres(pool) = &db else { unreachable!("it is PostgreSQL") };
        for table in KEPT {
            for statement in [
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
                format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
                format!("DROP TABLE {table}"),
            ] {
                let refused = sqlx::query(AssertSqlSafe(statement.clone())).execute(pool).await.unwrap_err();
                let code = refused.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
                assert_eq!(code, "42501", "{statement}: {refused}");
            }
        }
        for statement in [
            "UPDATE events SET kind = 'x'",
            "UPDATE ledger_order SET seq = seq",
            "UPDATE ledger_tiles SET root = root",
            "UPDATE ledger_checkpoints SET note = ''",
            "UPDATE manifests SET bytes = bytes",
            "SET session_replication_role = replica",
        ] {
            assert!(sqlx::query(statement).execute(pool).await.is_err(), "{statement}");
        }

        let as_owner = Db::connect(&DatabaseSettings { url: owner_url, ..DatabaseSettings::default() }).await.unwrap();
        assert_eq!(changeable(&as_owner).await.unwrap().unwrap().len(), KEPT.len());
    }
}
