//! Everything is lost but the backup that docs/backup.md describes, and served again from it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bastion::{Scene, Settings, Stores};
use crate::support::clients::Workstation;
use crate::support::eventually;
use crate::support::postgres::Postgres;

/// Runs one of PostgreSQL's clients.
fn psql(url: &str, arguments: &[&str], input: Stdio) {
    let mut psql = Command::new("psql");
    psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", url]).args(arguments).stdin(input);
    let output = psql.output().expect("psql");
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_database_bucket_and_master_key_brings_everything_back() {
    let settings = Settings { ledger: vec!["anchor_every = \"1s\"".to_owned()], ..Settings::default() };
    let mut scene = Scene::with(settings, &[]).await;
    scene.ssh().args(["echo", "before the fire"]).run().await.expect_success();
    eventually("everything is sealed and signed", async || {
        let sealed = scene.bastion.ask(&["audit", "ls", "--act", "session_sealed"]).await;
        sealed["items"].as_array().is_some_and(|events| events.len() == 1) && is_anchored(&scene).await
    })
    .await;
    let session = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let exported = scene.bastion.admin(&["export"]).await;
    let Stores::Large { database, s3 } = scene.bastion.stores() else { unreachable!("the usual scene") };
    let (database, objects) = (database.clone(), s3.objects());
    let name = database.split(['/', '?']).nth(3).unwrap().to_owned();

    let backup = crate::support::temporary_folder();
    std::fs::write(backup.path().join("sallyport.sql"), Postgres::dump(&database)).unwrap();
    copy(&objects, &backup.path().join("objects"));
    copy(&scene.bastion.data().join("master.key"), &backup.path().join("master.key"));

    scene.bastion.stop();
    std::fs::remove_dir_all(scene.bastion.data()).unwrap();
    let postgres = Postgres::shared().url("postgres");
    psql(&postgres, &["-c", &format!("DROP DATABASE {name} WITH (FORCE)")], Stdio::null());
    for entry in std::fs::read_dir(&objects).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    psql(&postgres, &["-c", &format!("CREATE DATABASE {name}")], Stdio::null());
    let dump = std::fs::File::open(backup.path().join("sallyport.sql")).unwrap();
    psql(&database, &["-o", "/dev/null"], dump.into());
    copy(&backup.path().join("objects/."), &objects);
    std::fs::create_dir(scene.bastion.data()).unwrap();
    copy(&backup.path().join("master.key"), &scene.bastion.data().join("master.key"));
    scene.bastion.open().await;

    let config = scene.bastion.path("sallyport.toml");
    let report = scene.bastion.ask(&["verify", "--config", config.to_str().unwrap()]).await;
    let played = scene.bastion.admin(&["session", "export", &session, "--format", "txt"]).await;
    assert!(report["events"].as_u64().unwrap() > 0 && report["segments"].as_u64().unwrap() > 0, "{report:#}");
    assert!(played.contains("before the fire"), "{played}");
    assert_eq!(scene.bastion.admin(&["export"]).await, exported);
    // The host key is the one that clients know, and the target believes the authority as before.
    let desk = Workstation::new(&scene.key);
    desk.trust(scene.bastion.address(), scene.bastion.host_key());
    desk.ssh(&Scene::user(), scene.bastion.address()).arg("true").run().await.expect_success();
}

/// Whether the object store has seen everything that is signed.
async fn is_anchored(scene: &Scene) -> bool {
    let ledger: Value = scene.bastion.ask(&["ledger", "show"]).await;
    let signed = ledger["size"].as_u64().filter(|_| ledger["waiting"] == 0);
    let anchors = ledger["anchors"].as_array().cloned().unwrap_or_default();
    signed.is_some() && !anchors.is_empty() && anchors.iter().all(|anchor| anchor["size"].as_u64() == signed)
}
