//! What strangers may take of the bastion's time and room.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bastion::{Scene, Settings};
use crate::support::clients::Workstation;
use crate::support::eventually;
use crate::support::keys::KeyPair;

async fn with_limits(lines: &[&str]) -> Scene {
    let ssh = lines.iter().map(|line| (*line).to_owned()).collect();
    Scene::with(Settings { ssh, ..Settings::default() }, &[]).await
}

/// A connection that has said nothing yet; the server speaks first, so what it says tells whether it took it.
async fn knock(scene: &Scene) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(scene.bastion.address()).await.unwrap();
    let mut greeting = [0; 8];
    let taken = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut greeting)).await.unwrap().is_ok();
    assert!(!taken || &greeting == b"SSH-2.0-");
    (stream, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_from_one_address_are_bounded_and_others_get_in_when_they_leave() {
    let scene = with_limits(&["max_unauthenticated_per_address = 3"]).await;
    let mut inside = scene.ssh().arg("cat").spawn(); // proved, so no longer a stranger
    eventually("Alice is in", async || scene.bastion.sessions().await.len() == 1).await;

    let mut strangers = Vec::new();
    for _ in 0..3 {
        let (stream, taken) = knock(&scene).await;
        assert!(taken);
        strangers.push(stream);
    }
    let (_, fourth) = knock(&scene).await;
    let client = scene.ssh().arg("true").run().await;
    strangers.pop();
    eventually("there is room again", async || scene.ssh().arg("true").run().await.code() == Some(0)).await;

    assert!(!fourth);
    assert_eq!(client.code(), Some(255));
    assert!(inside.try_wait().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_log_in_is_cut_at_the_end_of_its_grace_whatever_it_says() {
    let scene = with_limits(&["login_grace = \"1s\""]).await;
    let desk = Workstation::new(&scene.key);
    desk.trust(scene.bastion.address(), scene.bastion.host_key());

    let started = Instant::now();
    let (mut silent, _) = knock(&scene).await;
    let (mut polite, _) = knock(&scene).await;
    polite.write_all(b"SSH-2.0-Polite\r\n").await.unwrap();
    // One that exchanges keys and then thinks for longer than it may.
    let slow = desk.ssh(&Scene::user(), scene.bastion.address()).option("PubkeyAuthentication=no").password("late");
    std::fs::write(scene.bastion.path("slow"), "#!/bin/sh\nsleep 5\necho late\n").unwrap();
    let mut permissions = std::fs::metadata(scene.bastion.path("slow")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
    std::fs::set_permissions(scene.bastion.path("slow"), permissions).unwrap();
    let slow = slow.env("SSH_ASKPASS", scene.bastion.path("slow").to_str().unwrap()).arg("true").run();
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut polite] {
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        drop(end.expect("it is cut")); // an end or a reset
    }
    let cut_after = started.elapsed();
    let slow = slow.await;

    assert!(cut_after >= Duration::from_secs(1), "{cut_after:?}");
    assert_eq!(slow.code(), Some(255), "{}", slow.errors());
    scene.ssh().arg("sleep 2").run().await.expect_success(); // who is in has no such limit
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_which_nothing_moves_is_cut_and_one_that_prints_now_and_then_is_not() {
    let scene = with_limits(&["idle_timeout = \"2s\""]).await;

    let (idle, busy) = tokio::join!(
        scene.ssh().arg("-tt").arg("exec sleep 1000").run(),
        scene.ssh().arg("for second in 1 2 3 4 5; do echo $second; sleep 1; done").run(),
    );

    assert!(idle.text().contains("nothing was sent either way for 2 s"), "{} {}", idle.text(), idle.errors());
    assert_eq!((busy.code(), busy.text().lines().count()), (Some(0), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_are_counted_by_connection_and_failures_by_address() {
    let scene = with_limits(&["max_auth_tries = 2", "failures_per_address = { limit = 2, window = \"10m\" }"]).await;
    let desk = Workstation::new(&KeyPair::ed25519());
    desk.trust(scene.bastion.address(), scene.bastion.host_key());
    let keys: Vec<KeyPair> = (0..4).map(|_| KeyPair::ed25519()).collect();
    for key in &keys {
        desk.configure(&format!("IdentityFile {}", key.path().display()));
    }

    let first = desk.ssh(&Scene::user(), scene.bastion.address()).arg("-v").arg("true").run().await;
    let offered = first.errors().matches("Offering public key").count();
    eventually("the address has to wait", async || {
        desk.ssh(&Scene::user(), scene.bastion.address()).arg("true").run().await;
        !knock(&scene).await.1
    })
    .await;

    assert_eq!(first.code(), Some(255));
    assert!(offered <= 3, "{offered} keys were tried: {}", first.errors());
    assert_eq!(scene.ssh().arg("true").run().await.code(), Some(255));
}
