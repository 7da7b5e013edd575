//! Peers that stop reading cost no memory and stop nobody else, and what has ended leaves nothing behind.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Collected, Stores, World, gone_after, large, signal, turn};
use crate::support::{PATIENCE, eventually, temporary_folder};

const MOST_GROWTH_KIB: i64 = 8 << 10;

/// How often a growth is measured before it is believed: the allocator keeps more on a busy machine, and what a stalled peer
/// costs would show every time.
const MEASURES: usize = 3;

/// Longer if the tests are to be long.
fn either(normal: u64, long: u64) -> u64 {
    if large() { long } else { normal }
}

async fn start() -> World {
    let world = World::start(&Stores::default()).await;
    world.grant(Duration::from_hours(2)).await;
    world
}

/// `len` bytes that do not repeat, from `seed`.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngExt, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// The most memory that the bastion has while `time` passes.
async fn peak_kib(world: &World, time: Duration) -> i64 {
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < time {
        most = most.max(world.memory_kib());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_costs_no_memory_and_leaves_nothing_behind_when_it_dies() {
    let _turn = turn().await;
    let world = start().await;
    // What a first session costs once is not a session's.
    let first = Collected::start(world.ssh().arg("yes"));
    first.has_printed(8 << 20).await;
    drop(first);
    world.all_ended().await;

    for measure in 1..=MEASURES {
        let growth = stall_a_client(&world, &format!("yes; : {measure}")).await;
        eprintln!("a stalled client under `yes`: {growth} KiB more");
        if growth < MOST_GROWTH_KIB {
            return;
        }
    }
    panic!("a stalled client costs more than {MOST_GROWTH_KIB} KiB each time");
}

/// How much memory one stalled client costs, in KiB; then it dies.
async fn stall_a_client(world: &World, command: &str) -> i64 {
    let before = world.memory_kib();
    let stalled = Collected::start(world.ssh().arg(command));
    stalled.has_printed(1 << 20).await;
    signal(stalled.pid(), Signal::SIGSTOP);
    let growth = peak_kib(world, Duration::from_secs(either(10, 60))).await - before;
    let killed = Instant::now();
    signal(stalled.pid(), Signal::SIGKILL);
    let gone = gone_after("the target's program", killed, || world.sshd.sessions() == 0).await;
    world.all_ended().await;
    eprintln!("killed with its window full: the target's program was gone after {gone:?}");
    assert_eq!((world.target_connections(), world.client_connections()), (0, 0));
    let (seen, _) = stalled.finish().await;
    world.recorded(command).await.covers(&seen, command);
    growth
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stops_reading_costs_no_memory_and_does_not_hold_up_the_sender() {
    let _turn = turn().await;
    let world = start().await;
    let first = world.ssh().arg("cat > /dev/null").input(vec![b'x'; 32 << 20]).run().await.expect_success();
    drop(first);
    world.all_ended().await;

    for measure in 1..=MEASURES {
        let growth = stall_a_target(&world, &format!("echo begun; exec sleep 100{measure}")).await;
        if growth < MOST_GROWTH_KIB {
            return;
        }
    }
    panic!("a stalled target costs more than {MOST_GROWTH_KIB} KiB each time");
}

/// How much memory one stalled target costs, in KiB, while much is sent to it.
async fn stall_a_target(world: &World, command: &str) -> i64 {
    let bytes = usize::try_from(either(100, 200)).unwrap() << 20;
    let before = world.memory_kib();
    let mut sender = Collected::start(world.ssh().arg(command));
    sender.has_printed(0).await;
    let mut input = sender.child.stdin.take().unwrap();
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        let chunk = noise(1, 1 << 20);
        for _ in 0..bytes >> 20 {
            input.write_all(&chunk).await.unwrap();
        }
        input.flush().await.unwrap();
        input
    });
    let mut most = 0;
    while !sending.is_finished() {
        assert!(start.elapsed() < 2 * PATIENCE, "the sender is held up");
        most = most.max(world.memory_kib());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = start.elapsed();
    most = most.max(peak_kib(world, Duration::from_secs(3)).await);

    eprintln!("{} MiB to a stalled target in {took:?}: {} KiB more", bytes >> 20, most - before);
    drop(sending.await.unwrap());
    sender.child.start_kill().unwrap();
    world.all_ended().await;
    let recorded = world.recorded(command).await;
    assert!(recorded.input.len() >= bytes - (8 << 20), "{} bytes were recorded", recorded.input.len());
    assert!(recorded.input.chunks(1 << 20).zip(std::iter::repeat(noise(1, 1 << 20))).all(|(a, b)| a == &b[..a.len()]));
    most - before
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_through_cat_arrives_whole_though_its_reader_pauses() {
    let _turn = turn().await;
    let world = start().await;
    let sent = noise(2, usize::try_from(either(100, 300)).unwrap() << 20);
    let expected = Sha256::digest(&sent);

    let mut client = world.ssh().arg("cat").spawn();
    let (mut input, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let writing = tokio::spawn(async move {
        input.write_all(&sent).await.unwrap();
        sent.len()
    });
    let mut digest = Sha256::new();
    let mut received = 0;
    let mut buffer = vec![0; 256 << 10];
    let reading = async {
        while let count @ 1.. = output.read(&mut buffer).await.unwrap() {
            if (received..received + count).contains(&(4 << 20)) {
                tokio::time::sleep(Duration::from_secs(either(3, 10))).await;
            }
            digest.update(&buffer[..count]);
            received += count;
        }
    };
    tokio::time::timeout(4 * PATIENCE, reading).await.expect("the bytes do not arrive");

    assert_eq!(received, writing.await.unwrap());
    assert_eq!(digest.finalize(), expected);
    assert!(client.wait().await.unwrap().success());
    world.all_ended().await;
    let recorded = world.recorded("cat").await;
    assert_eq!((Sha256::digest(&recorded.shown), Sha256::digest(&recorded.input)), (expected, expected));
}

/// A connection that others share.
struct Master {
    client: Collected,
    folder: tempfile::TempDir,
}

impl Master {
    async fn start(world: &World) -> Self {
        let folder = temporary_folder();
        let socket = folder.path().join("master");
        let client = Collected::start(world.ssh().args(["-M", "-N", "-S"]).arg(&socket));
        eventually("the shared connection is there", async || socket.exists()).await;
        Self { client, folder }
    }

    fn ssh(&self, world: &World) -> crate::support::clients::Run {
        world.ssh().arg("-S").arg(Path::join(self.folder.path(), "master")).option("ControlMaster=no")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_stalled_either_way_does_not_slow_another_on_its_connection() {
    const BYTES: usize = 50 << 20;
    let _turn = turn().await;
    let world = start().await;
    let master = Master::start(&world).await;
    let down = || async {
        let start = Instant::now();
        let output = master.ssh(&world).arg(format!("head -c {BYTES} /dev/zero")).run().await.expect_success();
        assert_eq!(output.stdout.len(), BYTES);
        start.elapsed()
    };
    let up = || async {
        let start = Instant::now();
        let output = master.ssh(&world).arg("wc -c").input(vec![b'x'; BYTES]).run().await.expect_success();
        assert_eq!(output.text().trim(), BYTES.to_string());
        start.elapsed()
    };
    let alone = (down().await, up().await);

    // One whose client does not read, and one whose program does not.
    let reader = Collected::start(master.ssh(&world).arg("yes"));
    reader.has_printed(1 << 20).await;
    signal(reader.pid(), Signal::SIGSTOP);
    let mut writer = Collected::start(master.ssh(&world).arg("echo begun; exec sleep 1000"));
    writer.has_printed(0).await;
    let mut input = writer.child.stdin.take().unwrap();
    input.write_all(&vec![b'x'; 20 << 20]).await.unwrap();
    let stalled = (down().await, up().await);

    eprintln!("{} MiB down and up beside stalled channels: {stalled:?}, alone: {alone:?}", BYTES >> 20);
    let slack = Duration::from_secs(1);
    assert!(stalled.0 < alone.0 * 2 + slack && stalled.1 < alone.1 * 2 + slack);
    signal(reader.pid(), Signal::SIGCONT);
    signal(master.client.pid(), Signal::SIGTERM);
    world.all_ended().await;
    eventually("the targets' programs are gone", async || world.sshd.sessions() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_programs_over_one_connection_leave_no_memory_and_no_connection_behind() {
    let _turn = turn().await;
    let world = start().await;
    let master = Master::start(&world).await;
    // What fills once (caches, the allocator's arenas) stops growing; what a program leaves behind grows in every window.
    let window = either(100, 500);
    let mut growths = Vec::new();
    for _ in 0..=MEASURES {
        let before = world.memory_kib();
        for number in 0..window {
            let output = master.ssh(&world).option("LogLevel=INFO").arg("echo x").run().await;
            let seen = (output.code(), output.text());
            assert_eq!(seen, (Some(0), "x\n".to_owned()), "program {number}: {}", output.errors());
        }
        growths.push(world.memory_kib() - before);
    }

    eprintln!("KiB more with each {window} programs over one connection: {growths:?}");
    let left_behind = growths.iter().min().unwrap() / i64::try_from(window).unwrap();
    assert!(left_behind < 8, "{left_behind} KiB for each program: {growths:?}");
    assert_eq!(world.target_connections(), 2, "one connection to the target, seen from both ends");
    signal(master.client.pid(), Signal::SIGTERM);
    world.all_ended().await;
    assert_eq!((world.target_connections(), world.client_connections()), (0, 0));
    eventually("no journal is left", async || world.journals() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_whole_whenever_the_clients_input_ends() {
    let _turn = turn().await;
    let world = start().await;
    let expected: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
    for delay in [0, 5, 20, 50, 100, 200] {
        let mut client = Collected::start(world.ssh().arg("seq 1 1000000"));
        client.has_printed(0).await;
        let mut input = client.child.stdin.take().unwrap();
        input.write_all(b"some input").await.unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
        drop(input);
        let (seen, _) = client.finish().await;
        assert!(seen == expected.as_bytes(), "{} of {} bytes came", seen.len(), expected.len());
    }
}
