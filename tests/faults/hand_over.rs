//! A process that ends turns nobody away, if another one takes over; and gives those who are in their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Collected, Recorded, Stores, World, large, recordings, signal, turn};
use crate::support::clients::Workstation;
use crate::support::eventually;
use crate::support::postgres::Postgres;
use crate::support::s3::S3;

/// Logs in again and again, two at a time, until told to stop; gives back how many logins there were.
async fn keep_logging_in(
    workstation: &Workstation,
    user: &str,
    address: SocketAddr,
    least: usize,
    enough: &AtomicUsize,
) -> usize {
    let count = AtomicUsize::new(0);
    let log_in = async || {
        while count.load(Ordering::Acquire) < least || enough.load(Ordering::Acquire) == 0 {
            let number = count.fetch_add(1, Ordering::AcqRel);
            let output = workstation.ssh(user, address).arg(format!("echo login {number}")).run().await;
            assert_eq!(output.text(), format!("login {number}\n"), "login {number}: {}", output.errors());
        }
    };
    tokio::join!(log_in(), log_in());
    count.load(Ordering::Acquire)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_of_a_node_takes_over_without_a_login_refused_or_a_byte_lost() {
    let _turn = turn().await;
    let mut world = World::start(&Stores { more: vec!["server.drain_for = \"20s\""], ..Stores::default() }).await;
    world.grant(Duration::from_hours(1)).await;
    let mut shell = world.ssh().arg("-tt").in_terminal(120, 30);
    shell.type_keys("PS1='ready''> '\n").await;
    shell.wait_for("ready> ").await;
    let mut client = Collected::start(world.ssh().arg("cat"));
    let mut input = client.child.stdin.take().unwrap();
    let (workstation, user, address) = (world.workstation.clone(), world.user(), world.address);
    let least = if large() { 1_000 } else { 100 };
    let enough = Arc::new(AtomicUsize::new(0));
    let logins = tokio::spawn({
        let enough = enough.clone();
        async move { keep_logging_in(&workstation, &user, address, least, &enough).await }
    });
    let mut typed = Vec::new();
    let mut type_on = async |lines: std::ops::Range<u32>| {
        for number in lines {
            let line = format!("line {number}\n");
            input.write_all(line.as_bytes()).await.unwrap();
            typed.extend_from_slice(line.as_bytes());
        }
    };
    type_on(0..100).await;

    let old = world.succeed().await;
    type_on(100..200).await;
    signal(old.pid(), Signal::SIGTERM);

    shell.wait_for("this bastion is restarted: the session ends at ").await;
    type_on(200..300).await;
    assert!(old.is_running(), "sessions have their time");
    shell.type_keys("exit\n").await;
    shell.finish().await;
    drop(input);
    let (seen, _) = client.finish().await;
    assert_eq!(seen, typed);
    eventually("the old process ends once the last has left", async || !old.is_running()).await;
    enough.store(1, Ordering::Release);
    let count = logins.await.unwrap();
    eprintln!("{count} logins while one process took over from another: none was refused");
    drop(old);

    // The next one has the sockets for itself, the API's too, and nothing is left undone.
    world.ssh().arg("echo still").run().await.expect_success();
    world.all_ended().await;
    world.recorded("cat").await.covers(&typed, "cat");
    for found in recordings(&world.app).await {
        assert_eq!(Recorded::read(&world.app, &found).await.gaps, 0);
    }
    eventually("every journal is at rest", async || world.journals() == 0).await;
    let nodes = world.admin(&["node", "ls", "--all", "--output", "json"]).await;
    assert!(nodes.contains("\"ended\""), "{nodes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_cut_when_their_time_is_over_and_a_killed_process_is_cleared_up_by_the_next() {
    let _turn = turn().await;
    let mut world = World::start(&Stores { more: vec!["server.drain_for = \"1s\""], ..Stores::default() }).await;
    world.grant(Duration::from_hours(1)).await;
    let flood = Collected::start(world.ssh().arg("seq 1 100000000; : killed"));
    flood.has_printed(0).await;

    let old = world.succeed().await;
    signal(old.pid(), Signal::SIGKILL);
    drop(old);

    let (seen, _) = flood.finish().await;
    let recorded = world.recorded("seq 1 100000000; : killed").await;
    recorded.covers(&seen, "killed while the next one runs");
    assert_eq!(recorded.gaps, 0);
    world.all_ended().await;

    let client = Collected::start(world.ssh().arg("echo in; sleep 60"));
    client.has_printed(0).await;
    signal(world.pid(), Signal::SIGTERM);
    let since = Instant::now();
    let (_, said) = client.finish().await;
    assert!(said.contains("shutting down"), "{said}");
    assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&since.elapsed()), "{:?}", since.elapsed());
    world.all_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_a_process_with_sockets_of_a_service_manager_is_replaced_waits() {
    let _turn = turn().await;
    // The test is the service manager: it holds the socket all the time.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut world = World::on_socket(&Stores::default(), &socket).await;
    world.grant(Duration::from_hours(1)).await;
    world.ssh().arg("echo in").run().await.expect_success();

    world.terminate().await;
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(world.ssh().arg("echo in").run())).collect();
    eventually("they are connected", async || crate::harness::waiting_connections(address.port()) >= 20).await;
    world.restart_on_socket(&socket);

    for login in waiting {
        let output = login.await.unwrap();
        assert_eq!(output.text(), "in\n", "{}", output.errors());
    }
}

/// A load balancer without health checks of its own: asks each node whether it is ready, and sends people to one that is.
async fn balance(listener: TcpListener, nodes: Vec<(SocketAddr, SocketAddr)>) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
    let mut next = 0;
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let mut chosen = None;
        for _ in 0..2 * nodes.len() {
            next = (next + 1) % nodes.len();
            let (ssh, api) = nodes[next];
            let health = http.get(format!("http://{api}/api/v1/health")).send().await;
            if health.is_ok_and(|health| health.status().is_success()) {
                chosen = Some(TcpStream::connect(ssh).await.expect("a node that is ready takes connections"));
                break;
            }
        }
        let mut server = chosen.expect("a node is ready");
        tokio::spawn(async move {
            // Either end may break it; what counts is what the clients see.
            let _broken = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_restarted_behind_a_load_balancer_without_a_login_refused() {
    let _turn = turn().await;
    let s3 = S3::start().await;
    let database = Some(Postgres::shared().database().await);
    let ports = [crate::support::free_port(), crate::support::free_port()];
    let listen = ports.map(|port| format!("api.listen = \"127.0.0.1:{port}\""));
    let stores = |node: usize| Stores {
        database: database.clone(),
        s3: Some(&s3),
        more: vec!["server.drain_for = \"20s\"", "server.drain_wait = \"1s\"", &listen[node]],
        ..Stores::default()
    };
    let world = World::start(&stores(0)).await;
    let mut other = world.join("other", &stores(1)).await;
    world.grant(Duration::from_hours(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let balancing = tokio::spawn(balance(listener, vec![(world.address, api[0]), (other.address, api[1])]));
    world.workstation.trust(address, &world.host_key().await);
    let mut client = Collected::start(world.ssh_through(&other).arg("cat"));
    let mut input = client.child.stdin.take().unwrap();
    input.write_all(b"before\n").await.unwrap();
    client.has_printed(0).await;
    let enough = Arc::new(AtomicUsize::new(0));
    let logins = tokio::spawn({
        let (workstation, user, enough) = (world.workstation.clone(), world.user(), enough.clone());
        let least = if large() { 1_000 } else { 60 };
        async move { keep_logging_in(&workstation, &user, address, least, &enough).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;

    other.terminate();
    input.write_all(b"meanwhile\n").await.unwrap();
    eventually("nobody comes in any more", async || std::net::TcpStream::connect(other.address).is_err()).await;
    input.write_all(b"after\n").await.unwrap();
    eventually("it goes on", async || client.seen() == b"before\nmeanwhile\nafter\n").await;
    drop(input);
    client.finish().await;
    eventually("it ends", async || !other.is_running()).await;
    other.restart();
    tokio::time::sleep(Duration::from_millis(500)).await;

    enough.store(1, Ordering::Release);
    let count = logins.await.unwrap();
    eprintln!("{count} logins through a load balancer while a node was restarted: none was refused");
    balancing.abort();
    world.all_ended().await;
}
