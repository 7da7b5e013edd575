//! A database or an object store that is away delays, and never loses.

use std::time::{Duration, Instant};

use crate::harness::{Collected, Stores, World, large, turn};
use crate::support::clients::Run;
use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::s3::S3;

const SLOW: &str = "n=0; while [ $n -lt 100000 ]; do echo line $n; n=$((n+1)); sleep 0.005; done";
const FLOOD: &str = "while seq 1 2000; do sleep 0.05; done";

fn how_long() -> Duration {
    Duration::from_secs(if large() { 60 } else { 8 })
}

/// Long segments would keep the object store out of it.
const SEGMENTS: &[&str] = &["recording.segment_bytes = \"16KiB\"", "recording.segment_time = \"2s\""];

fn start(world: &World) -> Vec<(&'static str, Collected)> {
    let run = |command, terminal: bool| -> Run {
        let run = if terminal { world.ssh().arg("-tt") } else { world.ssh() };
        run.arg(command)
    };
    vec![
        (SLOW, Collected::start(run(SLOW, false))),
        (FLOOD, Collected::start(run(FLOOD, true))),
        ("cat", Collected::start(run("cat", false))),
    ]
}

/// Sessions go on: they print, and what is typed comes back.
async fn go_on(clients: &mut [(&'static str, Collected)]) {
    for (command, client) in clients {
        let before = client.seen_bytes();
        if *command == "cat" {
            let input = client.child.stdin.as_mut().unwrap();
            tokio::io::AsyncWriteExt::write_all(input, b"typed\n").await.unwrap();
        }
        client.has_printed(before).await;
    }
}

/// Ends the clients; whatever each saw must be in its recording.
async fn compare(world: &World, clients: Vec<(&'static str, Collected)>) {
    for (command, mut client) in clients {
        client.child.start_kill().unwrap();
        let (seen, _) = client.finish().await;
        let recorded = world.recorded(command).await;
        recorded.covers(&seen, command);
        assert_eq!(recorded.gaps, 0);
    }
    world.all_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_database_that_is_away_and_new_logins_are_told_why_they_must_wait() {
    let _turn = turn().await;
    let (postgres, s3) = (Postgres::new(), S3::start().await);
    let database = Some(postgres.database().await);
    let world = World::start(&Stores { database, s3: Some(&s3), more: SEGMENTS.to_vec(), ..Stores::default() }).await;
    world.grant(Duration::from_hours(2)).await;
    let mut clients = start(&world);
    go_on(&mut clients).await;

    postgres.stop();
    let stopped = Instant::now();
    // At once, and when it has been away for a while.
    for _ in 0..3 {
        let refused = world.ssh().option("LogLevel=INFO").arg("true").run().await;
        let said = refused.errors();
        assert_ne!(refused.code(), Some(0));
        assert!(said.contains("cannot reach its database"), "the client was told {said:?}");
        go_on(&mut clients).await;
    }
    while stopped.elapsed() < how_long() {
        go_on(&mut clients).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    postgres.start();

    eventually("logins work again", async || world.ssh().arg("true").run().await.code() == Some(0)).await;
    go_on(&mut clients).await;
    compare(&world, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_an_object_store_that_is_away_and_new_ones_begin() {
    let _turn = turn().await;
    let mut s3 = S3::start().await;
    let database = Some(Postgres::shared().database().await);
    let world = World::start(&Stores { database, s3: Some(&s3), more: SEGMENTS.to_vec(), ..Stores::default() }).await;
    world.grant(Duration::from_hours(2)).await;
    let mut clients = start(&world);
    go_on(&mut clients).await;

    s3.stop().await;
    let stopped = Instant::now();
    while stopped.elapsed() < how_long() {
        go_on(&mut clients).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let meanwhile = world.ssh().arg("echo meanwhile").run().await.expect_success();
    s3.restart().await;

    compare(&world, clients).await;
    world.recorded("echo meanwhile").await.covers(&meanwhile.stdout, "echo meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bastion_starts_and_serves_while_the_object_store_is_away_and_recovers_when_it_is_back() {
    let _turn = turn().await;
    let mut s3 = S3::start().await;
    let database = Some(Postgres::shared().database().await);
    let mut world = World::start(&Stores { database, s3: Some(&s3), ..Stores::default() }).await;
    world.grant(Duration::from_hours(2)).await;
    let clients = start(&world);
    for (command, client) in &clients {
        if *command != "cat" {
            client.has_printed(0).await;
        }
    }

    s3.stop().await;
    world.kill();
    world.restart();
    let served = world.ssh().arg("echo again").run().await.expect_success();
    assert_eq!(served.text(), "again\n");
    world.all_ended().await;
    s3.restart().await;

    for (command, client) in clients {
        let (seen, _) = client.finish().await;
        if command != "cat" {
            world.recorded(command).await.covers(&seen, command);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_acts_on_files_cannot_be_written_is_cut_and_they_are_written_once_that_is_possible() {
    const GRACE: Duration = Duration::from_secs(3);
    let _turn = turn().await;
    let (postgres, s3) = (Postgres::new(), S3::start().await);
    let more = vec!["ssh.database_grace = \"3s\""];
    let world =
        World::start(&Stores { database: Some(postgres.database().await), s3: Some(&s3), more, ..Stores::default() })
            .await;
    world.grant(Duration::from_hours(2)).await;
    let folder = crate::support::temporary_folder();
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("here"), b"content").unwrap();
    let mut client = world.workstation.sftp(&world.user(), world.address, "").spawn();
    let mut input = client.stdin.take().unwrap();
    let mut say = async |line: String| tokio::io::AsyncWriteExt::write_all(&mut input, line.as_bytes()).await.is_ok();
    let put = |name: &str| format!("put {} {}\n", place("here").display(), place(name).display());
    assert!(say(put("before")).await);
    eventually("a file has arrived", async || place("before").exists()).await;

    postgres.stop();
    let stopped = Instant::now();
    assert!(say(put("meanwhile")).await);
    // sftp sees that its connection has gone when it next wants something of it.
    let mut asked = Instant::now();
    eventually("the session is cut", async || {
        if asked.elapsed() > Duration::from_millis(500) {
            asked = Instant::now();
            let _ = say("ls /dev/null\n".to_owned()).await; // it may have gone
        }
        client.try_wait().unwrap().is_some()
    })
    .await;
    let lasted = stopped.elapsed();
    postgres.start();
    world.all_ended().await;

    assert!(lasted >= GRACE, "cut after {lasted:?}");
    let session = world.sessions().await.remove(0);
    let told = sallyport::app::files::of_session(&world.app, session.session.id, 0, 1000).await.unwrap();
    let told = serde_json::to_string(&told.into_iter().map(|(_, _, act)| act).collect::<Vec<_>>()).unwrap();
    for name in ["before", "meanwhile"] {
        let path = place(name);
        assert_eq!(told.matches(path.to_str().unwrap()).count(), 1, "{name}: {told}");
    }
}
