//! No stepping stone: what could lead on from the bastion, or back through it, is refused, and the session goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::bastion::{Scene, Settings};
use crate::files;
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

/// Something to forward to: it answers each line with the line and "!", until its peer ends.
async fn shouting_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut all, mut block) = (Vec::new(), [0; 4096]);
                while let count @ 1.. = stream.read(&mut block).await.unwrap_or(0) {
                    all.extend_from_slice(&block[..count]);
                }
                all.push(b'!');
                let _gone: std::io::Result<()> = stream.write_all(&all).await;
            });
        }
    });
    address
}

/// What one exchange through a port at home brings back.
async fn exchange(port: u16, text: &str) -> String {
    let mut stream = None;
    eventually("the client listens", async || {
        stream = TcpStream::connect(("127.0.0.1", port)).await.ok();
        stream.is_some()
    })
    .await;
    let mut stream = stream.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    drop(end.expect("the forward ends"));
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_goes_where_the_grant_says_and_nowhere_else_and_is_recorded() {
    let scene = Scene::open().await;
    let (granted, other) = (shouting_server().await, shouting_server().await);
    let allow = format!("forward={granted}");
    scene
        .bastion
        .admin(&["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "forward", "--allow", &allow])
        .await;
    let (good, bad, socks) = (free_port(), free_port(), free_port());
    let client = scene.ssh().args(["-N", "-L"]).arg(format!("{good}:{granted}"));
    let client = client.arg("-L").arg(format!("{bad}:{other}")).arg("-D").arg(socks.to_string()).spawn();

    assert_eq!(exchange(good, "over here").await, "over here!");
    assert_eq!(exchange(bad, "over there").await, "");
    assert_eq!(exchange(good, "and again").await, "and again!");
    let through_netcat = scene.ssh().arg("-W").arg(granted.to_string()).input("by netcat").run().await.expect_success();
    assert_eq!(through_netcat.text(), "by netcat!");
    drop(client);

    let recorded = recorded_forwards(&scene).await;
    for text in ["over here!", "and again!", "by netcat!"] {
        assert!(recorded.contains(text), "{text:?} is not in {recorded:?}");
    }
    let audit = scene.bastion.ask(&["audit", "ls"]).await.to_string();
    assert!(audit.contains(&other.to_string()), "the refused destination is not in the books");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_the_target_is_a_destination_too_and_a_cut_ends_what_goes_through_it() {
    let scene = Scene::open().await;
    let path = scene.bastion.path("service");
    let service = tokio::net::UnixListener::bind(&path).unwrap();
    let allow = format!("shell,forward={}", path.display());
    scene
        .bastion
        .admin(&["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "forward", "--allow", &allow])
        .await;
    let home = scene.bastion.path("home");
    let _client = scene.ssh().args(["-N", "-L"]).arg(format!("{}:{}", home.display(), path.display())).spawn();
    // The socket is there a moment before somebody listens.
    let mut here = None;
    eventually("the client listens", async || {
        here = tokio::net::UnixStream::connect(&home).await.ok();
        here.is_some()
    })
    .await;

    let mut here = here.unwrap();
    here.write_all(b"knock").await.unwrap();
    let (mut there, _) = service.accept().await.unwrap();
    let mut heard = [0; 5];
    there.read_exact(&mut heard).await.unwrap();
    let session = scene.bastion.sessions().await.remove(0);
    scene.bastion.admin(&["session", "cut", session["id"].as_str().unwrap(), "--reason", "test"]).await;

    assert_eq!(&heard, b"knock");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), there.read_to_end(&mut rest)).await;
    drop(end.expect("the target's side is cut")); // an end or a reset
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_does_not_answer_is_told_from_one_that_is_refused() {
    let scene = Scene::open().await;
    let nobody = free_port();
    let allow = format!("shell,exec,forward=127.0.0.1:{nobody}");
    scene
        .bastion
        .admin(&["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "forward", "--allow", &allow])
        .await;

    let silent = scene.ssh().option("LogLevel=INFO").arg("-W").arg(format!("127.0.0.1:{nobody}")).run().await;
    let refused = scene.ssh().option("LogLevel=INFO").arg("-W").arg("169.254.169.254:80").run().await;

    assert_eq!((silent.code(), refused.code()), (Some(255), Some(255)));
    assert!(silent.errors().contains("connect failed"), "{}", silent.errors());
    assert!(refused.errors().contains("administratively prohibited"), "{}", refused.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wish_that_no_grant_fulfils_is_refused_under_a_reference_and_the_session_goes_on() {
    let scene = files::scene(&["--allow", "exec"]).await;
    let agent = scene.bastion.path("agent");
    let mut serve = Command::new("ssh-agent");
    serve.args(["-D", "-a"]).arg(&agent).stdout(std::process::Stdio::null()).kill_on_drop(true);
    let _agent = serve.spawn().expect("ssh-agent");
    eventually("the agent listens", async || agent.exists()).await;
    let agent = agent.to_str().unwrap();
    let (port, socket) = (free_port(), scene.bastion.path("listening"));

    for way in files::WAYS {
        let ssh = files::client(&scene, "ssh").args(["-A", "-Y"]).option(&format!("IdentityAgent={agent}"));
        let ssh = ssh.env("SSH_AUTH_SOCK", agent).env("DISPLAY", "127.0.0.1:7");
        let ssh = ssh
            .arg("-R")
            .arg(format!("{port}:127.0.0.1:22"))
            .arg("-R")
            .arg(format!("{}:127.0.0.1:22", socket.display()));
        asks_in_vain(ssh.arg(way)).await;

        let session = scene.bastion.sessions().await.remove(0);
        let (id, mut expected) =
            (session["id"].as_str().unwrap(), Vec::from(["auth-agent-req@openssh.com", "x11-req"]));
        let (tcp, unix) = (
            format!("tcpip-forward localhost:{port}"),
            format!("streamlocal-forward@openssh.com {}", socket.display()),
        );
        expected.extend([tcp.as_str(), unix.as_str()]);
        eventually("each is in the books and in the log", async || {
            let events = scene.bastion.ask(&["audit", "ls", "--act", "request_refused", "--session", id]).await;
            let log = scene.bastion.log();
            expected.iter().all(|wish| {
                let event = events["items"].as_array().unwrap().iter().find(|event| event["act"]["request"] == *wish);
                event.is_some_and(|event| log.contains(event["id"].as_str().unwrap()))
            })
        })
        .await;
    }
    // At the picker, where there is no session yet, they are the person's.
    let ssh = scene.desk.ssh("alice", scene.bastion.address()).arg("-A").option(&format!("IdentityAgent={agent}"));
    ssh.env("SSH_AUTH_SOCK", agent).arg("ls").run().await.expect_success();
    eventually("it is in the books", async || {
        let events = scene.bastion.ask(&["audit", "ls", "--act", "denied"]).await.to_string();
        events.contains("auth-agent-req@openssh.com") && events.contains("never_granted")
    })
    .await;
}

/// Speaks to `goal` through a SOCKS port (RFC 1928); what comes back.
async fn through_socks(port: u16, goal: std::net::SocketAddr, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&[5, 1, 0]).await?;
    stream.read_exact(&mut [0; 2]).await?;
    stream.write_all(&[&[5, 1, 0, 1, 127, 0, 0, 1], goal.port().to_be_bytes().as_slice()].concat()).await?;
    stream.read_exact(&mut [0; 10]).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_runs_a_script_by_its_input_and_reaches_a_server_on_the_target_meanwhile() {
    let (server, other) = (shouting_server().await, shouting_server().await);
    let scene = files::scene(&["--allow", &format!("exec,upload,forward={server}")]).await;

    for way in files::WAYS {
        let port = free_port();
        let ssh = files::client(&scene, "ssh").args(["-T", "-D", &port.to_string(), way, "bash"]);
        let mut editor = ssh.spawn();
        let (mut input, mut output) = (editor.stdin.take().unwrap(), editor.stdout.take().unwrap());
        input.write_all(b"echo ready; cat >&2\n").await.unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).await.unwrap();

        let answer = through_socks(port, server, "over here").await.unwrap();
        let refused = through_socks(port, other, "over there").await;
        drop(input);
        let status = tokio::time::timeout(Duration::from_secs(20), editor.wait()).await.unwrap().unwrap();

        assert_eq!((&ready, answer.as_str(), status.code()), (b"ready\n", "over here!", Some(0)), "{way}");
        assert!(refused.is_err() || refused.is_ok_and(|answer| answer.is_empty()), "{way}");
    }
}

/// A scene whose target forwards nothing, and whose bastion may reach loopback addresses if `loopback`.
async fn forwarding_scene(loopback: bool) -> Scene {
    let ssh = if loopback { vec!["forward_networks = [\"127.0.0.0/8\"]".to_owned()] } else { Vec::new() };
    Scene::with(Settings { ssh, ..Settings::default() }, &["AllowTcpForwarding no"]).await
}

/// A grant of these forwards from the bastion, alone.
async fn grant_from_bastion(scene: &Scene, destinations: &[String], options: &[&str]) {
    let allow: Vec<String> = destinations.iter().map(|destination| format!("forward={destination}")).collect();
    let allow = allow.join(",");
    let new = ["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "forward", "--allow", &allow];
    scene.bastion.admin(&[&new[..], &["--forward-from", "bastion"], options].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_from_the_bastion_is_dialled_by_it_and_recorded() {
    let scene = forwarding_scene(true).await;
    let (granted, other, nobody) = (shouting_server().await, shouting_server().await, free_port());
    grant_from_bastion(&scene, &[granted.to_string(), format!("127.0.0.1:{nobody}")], &[]).await;
    let shown = scene.bastion.ask(&["grant", "ls"]).await;
    assert_eq!(shown["items"][0]["forwarding"]["from"], "bastion");
    let (good, bad, none) = (free_port(), free_port(), free_port());
    let client = scene.ssh().args(["-N", "-L"]).arg(format!("{good}:{granted}"));
    let client = client.arg("-L").arg(format!("{bad}:{other}"));
    let client = client.arg("-L").arg(format!("{none}:127.0.0.1:{nobody}")).spawn();

    assert_eq!(exchange(good, "over here").await, "over here!");
    assert_eq!(exchange(bad, "over there").await, "");
    assert_eq!(exchange(none, "to nobody").await, "");
    let long = "x".repeat(3_000_000);
    assert_eq!(exchange(good, &long).await, format!("{long}!"));
    drop(client);

    let recorded = recorded_forwards(&scene).await;
    assert!(recorded.contains("over here!"), "{recorded:?}");
}

/// Everything that forwards carried, as text, once the sessions have ended.
async fn recorded_forwards(scene: &Scene) -> String {
    eventually("the sessions have ended", async || {
        scene.bastion.sessions().await.iter().all(|session| session["ended_at"].is_string())
    })
    .await;
    let mut recorded = String::new();
    for session in scene.bastion.sessions().await {
        let id = session["id"].as_str().unwrap();
        let shown = scene.bastion.ask(&["session", "show", id]).await;
        for recording in shown["recordings"].as_array().unwrap() {
            assert!(recording.to_string().contains("forward to 127.0.0.1:"), "{recording}");
            let number = recording["channel"].to_string();
            for format in ["txt", "cast"] {
                recorded +=
                    &scene.bastion.admin(&["session", "export", id, "--channel", &number, "--format", format]).await;
            }
        }
    }
    recorded
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bastion_dials_nothing_of_its_own_and_no_metadata_whatever_the_grant_names() {
    let scene = forwarding_scene(false).await;
    let server = shouting_server().await;
    let port = server.port();
    let own: Vec<String> = ["127.0.0.1", "localhost", "127.1", "0.0.0.0", "::1", "::ffff:127.0.0.1", "0x7f000001"]
        .iter()
        .map(|host| format!("{host}:{port}"))
        .chain(["169.254.169.254:80".to_owned(), "fd00:ec2::254:80".to_owned(), "224.0.0.1:80".to_owned()])
        .collect();
    grant_from_bastion(&scene, &own, &[]).await;
    let mut client = scene.ssh().arg("cat").spawn();

    for destination in &own {
        let (host, port) = destination.rsplit_once(':').unwrap();
        let destination = format!("[{host}]:{port}");
        let refused = scene.ssh().option("LogLevel=INFO").arg("-W").arg(&destination).input("x").run().await;
        assert_eq!((refused.code(), refused.text().as_str()), (Some(255), ""), "{destination}");
        assert!(refused.errors().contains("administratively prohibited"), "{destination}: {}", refused.errors());
    }

    let audit = scene.bastion.ask(&["audit", "ls", "--limit", "1000"]).await;
    let is_refusal = |event: &&serde_json::Value| {
        event["act"]["reason"].as_str().is_some_and(|reason| reason.contains("makes no connection"))
    };
    assert_eq!(audit["items"].as_array().unwrap().iter().filter(is_refusal).count(), own.len());
    client.stdin.take().unwrap().write_all(b"goes on").await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), client.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_forward_that_is_metadata_only_the_bytes_are_counted_and_not_kept() {
    let scene = Scene::open().await;
    let granted = shouting_server().await;
    let allow = format!("forward={granted}");
    let new = ["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "forward", "--allow", &allow];
    scene.bastion.admin(&[&new[..], &["--forward-metadata-only"]].concat()).await;
    let good = free_port();
    let client = scene.ssh().args(["-N", "-L"]).arg(format!("{good}:{granted}")).spawn();

    assert_eq!(exchange(good, "a secret").await, "a secret!");
    drop(client);

    let recorded = recorded_forwards(&scene).await;
    assert!(!recorded.contains("secret") && recorded.contains("not kept"), "{recorded:?}");
    let session = scene.bastion.sessions().await.remove(0);
    let shown = scene.bastion.ask(&["session", "show", session["id"].as_str().unwrap()]).await;
    let recording = &shown["recordings"][0];
    assert_eq!((recording["bytes_in"].as_u64(), recording["bytes_out"].as_u64()), (Some(8), Some(9)), "{recording}");
}
