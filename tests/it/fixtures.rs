//! The fixtures do what they promise; when one of these fails, look here before you look at the bastion.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use sqlx::{Connection, PgConnection};

use crate::support::clients::Workstation;
use crate::support::keys::KeyPair;
use crate::support::postgres::Postgres;
use crate::support::s3::S3;
use crate::support::sshd::{Settings, Sshd};

async fn ask(url: &str, query: &'static str) -> Result<i32, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar(query).fetch_one(&mut connection).await
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let cluster = Postgres::shared();
    let (one, other) = (cluster.database().await, cluster.database().await);

    let made = ask(&one, "SELECT 1 FROM (SELECT set_config('a.b', 'c', false)) AS s").await;

    assert_eq!(made.unwrap(), 1);
    assert_ne!(one, other);
}

#[tokio::test]
async fn postgres_keeps_its_data_while_it_is_stopped() {
    let cluster = Postgres::new();
    let url = cluster.database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 7 AS n").execute(&mut connection).await.unwrap();

    cluster.stop();
    let away = ask(&url, "SELECT n FROM kept").await;
    cluster.start();

    assert!(away.is_err());
    assert_eq!(ask(&url, "SELECT n FROM kept").await.unwrap(), 7);
}

#[tokio::test]
async fn s3_keeps_objects_while_it_is_stopped() {
    let mut server = S3::start().await;
    let (store, path) = (server.store(), Path::from("a/b"));
    store.put(&path, "hello".into()).await.unwrap();

    server.stop().await;
    server.restart().await;

    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, "hello");
}

#[tokio::test]
async fn sshd_runs_a_command_for_a_key_and_for_a_certificate() {
    let (key, ca, certified) = (KeyPair::ed25519(), KeyPair::ed25519(), KeyPair::ed25519());
    let login = Sshd::login();
    certified.keep(&ca.certify(certified.public(), &[&login], "session-17", std::time::Duration::from_mins(5)));
    let server =
        Sshd::start(&Settings { authorized_keys: vec![key.public()], user_cas: vec![ca.public()], lines: Vec::new() });

    for key in [&key, &certified] {
        let workstation = Workstation::new(key);
        workstation.trust(server.address(), server.host_key());
        workstation.ssh(&login, server.address()).arg("true").run().await.expect_success();
    }

    assert!(server.log().contains("session-17"));
}
