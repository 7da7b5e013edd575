//! A bucket with object lock and a default retention: what the bastion has written there stays, whoever asks, and the bastion says truly
//! what it sees.

use std::process::Output;

use reqwest::StatusCode;
use serde_json::Value;

use crate::bastion::{Scene, Settings, Stores};
use crate::support::eventually;
use crate::support::locked_s3::{LockedS3, Version};

async fn run(scene: &Scene, arguments: &[&str]) -> (Output, Value) {
    let config = scene.bastion.path("sallyport.toml");
    let output =
        scene.bastion.try_admin(&[arguments, &["--json", "--config", config.to_str().unwrap()]].concat()).await;
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_cannot_be_removed_and_what_hides_it_is_named() {
    let scene = Scene::on(Stores::Locked(LockedS3::start().await), Settings::default(), &[]).await;
    let Stores::Locked(s3) = scene.bastion.stores() else { unreachable!() };
    scene.ssh().arg("echo kept for good").run().await.expect_success();
    let session = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let named = |versions: &[Version], word: &str| -> Vec<Version> {
        versions.iter().filter(|version| version.key.contains(word)).cloned().collect()
    };
    eventually("segment and checkpoint are there", async || {
        let versions = s3.versions().await;
        let sealed = scene.bastion.ask(&["audit", "ls", "--act", "session_sealed"]).await;
        !named(&versions, "/recordings/").is_empty()
            && !named(&versions, "/anchors/").is_empty()
            && sealed["items"].as_array().is_some_and(|events| !events.is_empty())
    })
    .await;

    // The doctor sees the lock, and does not say that it took away what it could not.
    let (_, found) = run(&scene, &["doctor"]).await;
    let check = |what: &str| {
        let checks = found["items"].as_array().unwrap();
        checks.iter().find(|check| check["what"] == what).cloned().unwrap_or_default()
    };
    assert_eq!(check("object lock")["state"], "ok", "{found:#}");
    assert!(check("object lock")["found"].as_str().unwrap().contains("COMPLIANCE until"), "{found:#}");
    assert_eq!(check("object store")["found"], "a blob was written and read; it is locked, and stays", "{found:#}");

    // Whoever has the bastion's own key removes nothing.
    let versions = s3.versions().await;
    for version in &versions {
        assert_eq!(s3.remove(version).await, StatusCode::FORBIDDEN, "{version:?}");
    }
    let (output, report) = run(&scene, &["verify"]).await;
    assert!(output.status.success(), "{report:#}");

    // What is hidden or written over is named, and the version that was signed is still to be had.
    let segment = named(&versions, "/recordings/").remove(0);
    let bytes = s3.read(&segment).await;
    let marker = s3.hide(&segment.key).await;
    let (output, report) = run(&scene, &["verify", "--from-start"]).await;
    assert_eq!(output.status.code(), Some(6), "{report:#}");
    let place = format!("segment 0 of recording {}", segment.key.split('/').nth(2).unwrap());
    assert_eq!(report["faults"][0]["place"], place.as_str(), "{report:#}");
    assert!(!scene.bastion.try_admin(&["session", "export", &session, "--format", "txt"]).await.status.success());
    assert_eq!(s3.read(&segment).await, bytes);
    // A marker is not locked: with it gone the object is there again.
    assert_eq!(s3.remove(&marker).await, StatusCode::NO_CONTENT);

    s3.put(&segment.key, b"other bytes".to_vec()).await;
    let (output, report) = run(&scene, &["verify", "--from-start"]).await;
    assert_eq!((output.status.code(), &report["faults"][0]["place"]), (Some(6), &place.as_str().into()), "{report:#}");
    assert_eq!(s3.remove(&segment).await, StatusCode::FORBIDDEN);
    s3.put(&segment.key, s3.read(&segment).await).await;
    let (output, report) = run(&scene, &["verify", "--from-start"]).await;
    assert!(output.status.success(), "{report:#}");
    let replayed = scene.bastion.admin(&["session", "export", &session, "--format", "txt"]).await;
    assert!(replayed.contains("kept for good"), "{replayed}");
}
