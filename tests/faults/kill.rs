//! `kill -9` loses no byte that an engineer saw.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Collected, Stores, World, large, recordings, seed, turn};
use crate::support::postgres::Postgres;
use crate::support::s3::S3;

/// Starts what is to be killed: floods with and without a terminal, a slow one, and one that is fed. Each ends its command
/// with the round, so that its recording is found again.
fn start_clients(world: &World, round: usize) -> Vec<(String, Collected)> {
    let flood = |name: &str| format!("seq 1 100000000; : {name} {round}");
    let slow = format!("n=0; while :; do echo line $n; n=$((n+1)); sleep 0.003; done; : slow {round}");
    let fed = format!("cat; : fed {round}");
    let mut clients = Vec::new();
    for (command, terminal) in [(flood("plain"), false), (flood("terminal"), true), (slow, true)] {
        let run = if terminal { world.ssh().arg("-tt") } else { world.ssh() };
        clients.push((command.clone(), Collected::start(run.arg(&command))));
    }
    let mut client = Collected::start(world.ssh().arg(&fed));
    let mut input = client.child.stdin.take().unwrap();
    tokio::spawn(async move {
        let mut number = 0_u64;
        let mut alive = true;
        while alive {
            let lines: String = (number..number + 500).map(|number| format!("{number}\n")).collect();
            number += 500;
            alive = tokio::io::AsyncWriteExt::write_all(&mut input, lines.as_bytes()).await.is_ok();
        }
    });
    clients.push((fed, client));
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_that_a_client_saw_is_recovered_after_a_kill_at_any_moment() {
    let _turn = turn().await;
    let mut random = StdRng::seed_from_u64(seed());
    let s3 = S3::start().await;
    let database = Postgres::shared().database().await;
    let mut world = World::start(&Stores { database: Some(database), s3: Some(&s3), ..Stores::default() }).await;
    world.grant(Duration::from_hours(2)).await;
    let (mut bytes, mut slowest) = (0, Duration::ZERO);

    for round in 0..if large() { 50 } else { 8 } {
        let clients = start_clients(&world, round);
        if round % 4 > 0 {
            for (_, client) in &clients {
                client.has_printed(0).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..700))).await;
        world.kill();
        let start = Instant::now();
        world.restart();
        let served = world.ssh().arg(format!("echo again {round}")).run().await.expect_success();
        slowest = slowest.max(start.elapsed());

        assert_eq!(served.text(), format!("again {round}\n"));
        let recordings = world.recordings().await;
        for (command, client) in clients {
            let (seen, _) = client.finish().await;
            if !recordings.contains_key(&command) {
                assert!(seen.is_empty(), "round {round}: {command:?} printed, and there is no recording of it");
                continue;
            }
            let recorded = world.recorded(&command).await; // recovered beside what is served already
            recorded.covers(&seen, &format!("round {round}: {command:?}"));
            assert_eq!((recorded.gaps, recorded.end.contains("crashed")), (0, true), "round {round}: {command:?}");
            bytes += seen.len();
        }
        world.all_ended().await;
    }

    for found in recordings(&world.app).await {
        assert!(found.progress.ended_at.is_some());
    }
    eprintln!("{bytes} bytes that clients saw were recovered; the slowest start to a command's end took {slowest:?}");
}
