//! A load balancer says whom a connection is from, by the PROXY protocol; nobody else may.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{Stores, World, turn};

/// Passes connections on to `to`, each with this header ahead.
async fn load_balancer(to: SocketAddr, header: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(to).await.unwrap();
            server.write_all(header).await.unwrap();
            tokio::spawn(async move {
                // Either end may break it; what counts is what the clients see.
                let _broken = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, serving)
}

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 50022 22\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xc3\x66\0\x16";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_from_where_the_load_balancer_says_and_from_nowhere_else() {
    let _turn = turn().await;
    let trusting = vec!["ssh.proxy_protocol_from = [\"127.0.0.0/8\"]"];
    let world = World::start(&Stores { more: trusting, ..Stores::default() }).await;
    world.grant(Duration::from_hours(1)).await;
    for (header, from) in [(V1, "203.0.113.9:50022"), (V2, "[2001:db8::7]:50022")] {
        let (address, serving) = load_balancer(world.address, header).await;
        world.workstation.trust(address, &world.host_key().await);

        let output = world.workstation.ssh(&world.user(), address).arg("echo in").run().await.expect_success();

        assert_eq!(output.text(), "in\n");
        assert_eq!(world.sessions().await[0].session.client_address.to_string(), from);
        serving.abort();
    }
    // A header is not optional.
    assert_ne!(world.ssh().arg("echo in").run().await.code(), Some(0));
    assert!(world.log().contains("it does not begin with a PROXY header"), "{}", world.log());
    assert_eq!(world.sessions().await.len(), 2);

    let world = World::start(&Stores::default()).await;
    world.grant(Duration::from_hours(1)).await;
    for header in [V1, V2] {
        let (address, serving) = load_balancer(world.address, header).await;
        world.workstation.trust(address, &world.host_key().await);
        assert_ne!(world.workstation.ssh(&world.user(), address).arg("echo in").run().await.code(), Some(0));
        serving.abort();
    }
    assert_eq!(world.sessions().await.len(), 0);
    world.ssh().arg("echo in").run().await.expect_success();
}
