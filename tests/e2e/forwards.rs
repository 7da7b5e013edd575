//! No stepping stone: what could lead on from the bastion, or back through it, is refused, and the session goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::bastion::Scene;
use crate::support::clients::Run;
use crate::support::{eventually, free_port};

/// Runs a session that asks for a forward; what its errors say. The session must go on as if nothing had been asked.
async fn asks_in_vain(ssh: Run) -> String {
    let output = ssh.option("LogLevel=INFO").arg("echo \"agent=$SSH_AUTH_SOCK display=$DISPLAY\"; exit 9").run().await;
    assert_eq!((output.code(), output.text().as_str()), (Some(9), "agent= display=\n"), "{}", output.errors());
    output.errors()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_stays_at_home() {
    let scene = Scene::open().await;
    let socket = scene.bastion.path("agent");
    let mut agent = Command::new("ssh-agent");
    agent.args(["-D", "-a"]).arg(&socket).stdout(std::process::Stdio::null()).kill_on_drop(true);
    let _agent = agent.spawn().expect("ssh-agent");
    eventually("the agent listens", async || socket.exists()).await;
    let socket = socket.to_str().unwrap();

    asks_in_vain(scene.ssh().arg("-A").option(&format!("IdentityAgent={socket}")).env("SSH_AUTH_SOCK", socket)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_display_stays_at_home() {
    let scene = Scene::open().await;

    let said = asks_in_vain(scene.ssh().arg("-Y").env("DISPLAY", "127.0.0.1:7")).await;

    assert!(said.contains("X11 forwarding request failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_on_the_bastion() {
    let scene = Scene::open().await;
    let port = free_port();

    let said = asks_in_vain(scene.ssh().arg("-R").arg(format!("{port}:127.0.0.1:22"))).await;
    let any = asks_in_vain(scene.ssh().args(["-R", "0:127.0.0.1:22"])).await;
    let socket = scene.bastion.path("listening");
    let unix = asks_in_vain(scene.ssh().arg("-R").arg(format!("{}:127.0.0.1:22", socket.display()))).await;

    assert!(said.contains("remote port forwarding failed"), "{said}");
    assert!(any.contains("forwarding"), "{any}");
    assert!(unix.contains("remote port forwarding failed"), "{unix}");
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reached_through_the_bastion() {
    let scene = Scene::open().await;
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let goal = inside.local_addr().unwrap();
    let (local, socks, unix) = (free_port(), free_port(), free_port());
    let socket = scene.bastion.data().join("sallyport.sock");

    // One session, three ways out of it.
    let ssh = scene.ssh().option("ExitOnForwardFailure=yes").arg("-L").arg(format!("{local}:{goal}"));
    let ssh = ssh.arg("-D").arg(socks.to_string()).arg("-L").arg(format!("{unix}:{}", socket.display()));
    let mut client = ssh.arg("cat").spawn();
    let reach = async |port: u16| {
        let mut stream = None;
        eventually("the client listens", async || {
            stream = TcpStream::connect(("127.0.0.1", port)).await.ok();
            stream.is_some()
        })
        .await;
        stream.unwrap()
    };
    let mut through_local = reach(local).await;
    let mut through_unix = reach(unix).await;
    let mut through_socks = reach(socks).await;
    through_socks.write_all(&[5, 1, 0]).await.unwrap();
    let mut chosen = [0; 2];
    through_socks.read_exact(&mut chosen).await.unwrap();
    let [high, low] = goal.port().to_be_bytes();
    through_socks.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).await.unwrap();
    for stream in [&mut through_local, &mut through_unix, &mut through_socks] {
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        // Closed or reset, but nothing came; of SOCKS only its refusal.
        drop(end.expect("the forward is closed"));
        assert!(answer.is_empty() || answer[..2] != [5, 0], "{answer:?}");
    }
    client.stdin.take().unwrap().write_all(b"goes on").await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), client.wait_with_output()).await.unwrap().unwrap();
    let netcat = scene.ssh().option("LogLevel=INFO").arg("-W").arg(goal.to_string()).run().await;

    assert_eq!((output.stdout.as_slice(), output.status.code()), (b"goes on".as_slice(), Some(0)));
    assert_eq!((netcat.code(), netcat.text().as_str()), (Some(255), ""));
    assert!(netcat.errors().contains("administratively prohibited"), "{}", netcat.errors());
    let visitor = tokio::time::timeout(Duration::from_millis(100), inside.accept()).await;
    assert!(visitor.is_err(), "somebody got through");
}
