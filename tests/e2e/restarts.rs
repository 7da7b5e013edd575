//! The bastion ends, as it should or not, and serves again.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bastion::Scene;
use crate::support::eventually;

/// A session that has said something, and goes on.
async fn live(scene: &Scene) -> tokio::process::Child {
    let mut client = scene.ssh().arg("cat").spawn();
    client.stdin.as_mut().unwrap().write_all(b"here\n").await.unwrap();
    let mut said = [0; 5];
    client.stdout.as_mut().unwrap().read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"here\n");
    client
}

async fn expect_served_again(scene: &Scene) {
    scene.ssh().arg("true").run().await.expect_success();
    eventually("every session has an end", async || {
        scene.bastion.sessions().await.iter().all(|session| session["state"] == "ended")
    })
    .await;
    assert_eq!(scene.bastion.sessions().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_was_killed_serves_again_and_ends_what_it_left() {
    let mut scene = Scene::open().await;
    let mut client = live(&scene).await;
    let (pid, address) = (scene.bastion.pid(), scene.bastion.address());

    scene.bastion.kill();
    let cut = tokio::time::timeout(Duration::from_secs(20), client.wait()).await.unwrap().unwrap();
    scene.bastion.open().await;

    assert_eq!(cut.code(), Some(255));
    assert_ne!(scene.bastion.pid(), pid);
    assert_eq!(scene.bastion.address(), address);
    expect_served_again(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_is_stopped_says_so_to_those_who_are_in() {
    let mut scene = Scene::open().await;
    let client = live(&scene).await;

    scene.bastion.stop();
    let told = tokio::time::timeout(Duration::from_secs(20), client.wait_with_output()).await.unwrap().unwrap();
    let cause = String::from_utf8_lossy(&told.stderr).into_owned();
    scene.bastion.open().await;

    assert!(cause.contains("sallyport: this session was ended: "), "{cause}");
    assert_eq!(scene.sshd.sessions(), 0);
    expect_served_again(&scene).await;
}
