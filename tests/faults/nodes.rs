//! Several nodes on one PostgreSQL and one S3 server: what is done on one holds on the others, and what one loses the others close.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use sallyport::app::audit;
use sallyport::app::ledger::verify::{Wish, verify};
use sallyport::store::db::events::EventFilter;
use sallyport::store::db::recordings::RecordingRecord;
use sallyport_domain::event::{Act, SessionEnd};
use sqlx::Connection;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::harness::{Collected, Node, Recorded, Stores, World, large, recordings, signal, turn};
use crate::support::postgres::Postgres;
use crate::support::s3::S3;
use crate::support::{PATIENCE, eventually};

/// Within this a change on one node must be acted on by the others.
const SOON: Duration = Duration::from_millis(1_500);

/// Nodes that are lost sooner than in earnest, and segments that are short.
const SETTINGS: &[&str] = &["server.dead_after = \"2s\"", "recording.segment_time = \"1s\""];

struct Cluster {
    world: World,
    other: Node,
    database: String,
    _s3: S3,
}

/// Nodes `test` and `other`, and alice, who may go to `node-1` for an hour.
async fn cluster() -> Cluster {
    let s3 = S3::start().await;
    let database = Postgres::shared().database().await;
    let stores =
        Stores { database: Some(database.clone()), s3: Some(&s3), more: SETTINGS.to_vec(), ..Stores::default() };
    let world = World::start(&stores).await;
    let other = world.join("other", &stores).await;
    Cluster { world, other, database, _s3: s3 }
}

/// The only live session, as the command line names it.
async fn live_session(world: &World) -> String {
    let mut found = None;
    eventually("a session lives", async || {
        let sessions = world.sessions().await;
        found = sessions.iter().find(|session| session.ended.is_none()).map(|session| session.session.id.to_string());
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// How long after `since` the client's output and life end.
async fn ended_after(client: Collected, since: Instant) -> (Duration, String) {
    let (_, said) = client.finish().await;
    (since.elapsed(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_on_one_node_holds_on_the_other() {
    let _turn = turn().await;
    let Cluster { world, other, database, _s3 } = cluster().await;

    // Both have the same keys, and know each other.
    let grant = world.grant(Duration::from_hours(1)).await;
    let nodes = other.admin(&["node", "ls", "--output", "json"]).await;
    assert!(nodes.contains("\"test\"") && nodes.contains("\"other\"") && !nodes.contains("lost"), "{nodes}");

    // Cut.
    let client = Collected::start(world.ssh_through(&other).arg("echo in; sleep 60"));
    client.has_printed(0).await;
    let session = live_session(&world).await;
    let since = Instant::now();
    world.admin(&["session", "cut", &session, "--reason", "enough of it"]).await;
    let (took, said) = ended_after(client, since).await;
    assert!(took < SOON + Duration::from_millis(500) && said.contains("enough of it"), "{took:?}: {said}");
    world.all_ended().await;

    // Words, holding, releasing.
    let mut seat = world.ssh_through(&other).arg("-tt").in_terminal(100, 30);
    seat.type_keys("PS1='ready''> '\n").await;
    seat.wait_for("ready> ").await;
    let session = live_session(&world).await;
    let since = Instant::now();
    world.admin(&["session", "message", &session, "look", "here"]).await;
    seat.wait_for("look here").await;
    assert!(since.elapsed() < SOON + Duration::from_millis(500), "words took {:?}", since.elapsed());
    world.admin(&["session", "hold", &session, "--reason", "let me see"]).await;
    seat.wait_for("let me see").await;
    world.admin(&["session", "release", &session]).await;
    seat.wait_for("goes on").await;
    seat.type_keys("exit\n").await;
    seat.finish().await;
    world.all_ended().await;

    // Revoked, with the connection that hears of it lost just before.
    let client = Collected::start(world.ssh_through(&other).arg("echo in; sleep 60"));
    client.has_printed(0).await;
    let mut connection = sqlx::PgConnection::connect(&database).await.unwrap();
    let killed: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(killed, [true, true], "each node listens");
    world.admin(&["grant", "revoke", &grant.id.to_string(), "--reason", "over"]).await;
    let since = world.last_event("grant_revoked").await;
    let (took, said) = ended_after(client, since).await;
    eprintln!("revoked on one node, the client on the other had ended {took:?} later");
    assert!(took < SOON, "{took:?}");
    assert!(said.contains("taken back"), "{said}");
    world.all_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_followed_on_another_node_less_than_a_second_behind() {
    let _turn = turn().await;
    let Cluster { world, other, database: _, _s3 } = cluster().await;
    world.grant(Duration::from_hours(1)).await;
    let client = Collected::start(world.ssh().arg("while date +at:%s%N; do sleep 0.05; done"));
    client.has_printed(0).await;
    let session = live_session(&world).await;

    let mut watch = other.watch(&session);

    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (mut seen, mut lags) = (0, Vec::new());
    while seen < 60 {
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
        let Some(at) = line.split("at:").nth(1).and_then(|text| text.trim().parse::<u128>().ok()) else { continue };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        seen += 1;
        if seen > 20 {
            lags.push(Duration::from_nanos(u64::try_from(now.saturating_sub(at)).unwrap())); // what came before the watch is older
        }
    }
    lags.sort();
    eprintln!("followed on another node: lag {:?} in the middle, {:?} at most", lags[lags.len() / 2], lags.last());
    assert!(*lags.last().unwrap() < Duration::from_secs(1), "{lags:?}");
}

/// Sessions on the node that will be lost, each at another work, with what they have seen.
async fn start_on(world: &World, node: &Node, count: usize) -> HashMap<String, Collected> {
    let mut clients = HashMap::new();
    for number in 0..count {
        let command = match number % 3 {
            0 => format!("seq 1 300000; sleep 600; : {number}"),
            1 => format!("n=0; while :; do echo line $n; n=$((n+1)); sleep 0.01; done; : {number}"),
            _ => format!("cat; : {number}"),
        };
        let mut client = Collected::start(world.ssh_through(node).arg(&command));
        if number % 3 == 2 {
            client.child.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
        }
        clients.insert(command, client);
    }
    for client in clients.values() {
        client.has_printed(0).await;
    }
    clients
}

async fn acts(world: &World, kind: &str) -> Vec<Act> {
    let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
    audit::list(&world.app, 0, &filter, 1_000).await.unwrap().into_iter().map(|(_, event)| event.act).collect()
}

fn command_of(found: &RecordingRecord) -> String {
    match &found.recording.program {
        sallyport_domain::channel::Program::Exec { command } => String::from_utf8_lossy(command).into_owned(),
        other => other.kind().to_owned(),
    }
}

/// Waits until all is closed and sealed, and verified with nothing wrong.
async fn is_sealed(world: &World, seals: usize) {
    eventually("every session is sealed", async || acts(world, "session_sealed").await.len() == seals).await;
    // What was sealed just now has its place within a moment.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = verify(&world.app, Wish::default(), |_| {}).await.unwrap();
        if report.is_sound() && report.sessions > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{:#?}", report.faults);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_is_closed_in_the_books_by_another_and_completes_them_when_it_returns() {
    let _turn = turn().await;
    let Cluster { world, mut other, database: _, _s3 } = cluster().await;
    let grant = world.grant(Duration::from_hours(1)).await;
    let folder = crate::support::temporary_folder();
    let count = if large() { 50 } else { 5 };
    let clients = start_on(&world, &other, count).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await; // something in each is old enough to be shipped
    let shipped: HashMap<String, usize> = {
        let mut shipped = HashMap::new();
        for found in recordings(&world.app).await {
            let recorded = Recorded::read(&world.app, &found).await;
            shipped.insert(command_of(&found), recorded.shown.len());
        }
        shipped
    };

    other.kill();
    let killed = Instant::now();

    world.all_ended().await;
    eprintln!("{count} sessions of a killed node were closed in the books {:?} later", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(if large() { 30 } else { 10 }));
    let mut seen = HashMap::new();
    for (command, client) in clients {
        seen.insert(command, client.finish().await.0);
    }
    is_sealed(&world, count).await;
    for session in world.sessions().await {
        assert_eq!(session.ended.unwrap().1, SessionEnd::Crashed);
    }
    for found in recordings(&world.app).await {
        let (command, recorded) = (command_of(&found), Recorded::read(&world.app, &found).await);
        assert_eq!(recorded.gaps, 1, "{command:?} says that something is missing");
        assert!(recorded.shown.len() >= shipped[&command], "{command:?}: what was shipped is there");
        let same = recorded.shown.iter().zip(&seen[&command]).take_while(|(a, b)| a == b).count();
        assert!(same == recorded.shown.len().min(seen[&command].len()), "{command:?} parts at {same}");
    }

    other.restart();

    is_sealed(&world, 2 * count).await;
    for found in recordings(&world.app).await {
        let (command, recorded) = (command_of(&found), Recorded::read(&world.app, &found).await);
        recorded.covers(&seen[&command], &command);
        assert_eq!(recorded.gaps, 0, "{command:?} is complete");
    }
    let nodes = world.admin(&["node", "ls", "--output", "json"]).await;
    assert!(nodes.contains("\"lost\""), "the process that died is told of: {nodes}");
    let bundle = folder.path().join("evidence.zip");
    let bundle = bundle.to_str().unwrap();
    world.admin(&["evidence", "make", &grant.id.to_string(), "-o", bundle]).await;
    let keys: serde_json::Value = serde_json::from_str(&world.admin(&["evidence", "key", "--json"]).await).unwrap();
    let key = keys[0]["fingerprint"].as_str().unwrap();
    let verdict = world.admin(&["evidence", "verify", bundle, "--key", key, "--json"]).await;
    let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(verdict["proven"]["sessions"].as_array().unwrap().len(), count, "{verdict:#}");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/verify_bundle.py");
    let python = root.join("target/test-venv/bin/python");
    let second = world.workstation.program(python).arg(script).arg(key).arg(bundle).run().await;
    assert_eq!(second.text(), "sound\n", "{}", second.errors());
    world.ssh_through(&other).arg("echo again").run().await.expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_cuts_what_others_have_closed_and_completes_it() {
    let _turn = turn().await;
    let Cluster { world, other, database: _, _s3 } = cluster().await;
    world.grant(Duration::from_hours(1)).await;
    let clients = start_on(&world, &other, 3).await;

    signal(other.pid(), Signal::SIGSTOP); // it can say nothing, and has not died
    let session = world.sessions().await.len();
    world.all_ended().await;
    is_sealed(&world, session).await;
    signal(other.pid(), Signal::SIGCONT);

    for (command, client) in clients {
        let (seen, _) = client.finish().await;
        eventually("its recording is complete", async || {
            for found in recordings(&world.app).await {
                if command_of(&found) == command && found.progress.ended_at.is_some() {
                    let recorded = Recorded::read(&world.app, &found).await;
                    return recorded.gaps == 0 && recorded.shown.starts_with(&seen);
                }
            }
            false
        })
        .await;
    }
    is_sealed(&world, 2 * session).await;
    let log = other.log();
    assert!(log.contains("took this one for dead"), "{log}");
    world.ssh_through(&other).arg("echo again").run().await.expect_success();
}
