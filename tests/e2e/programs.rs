//! Programs on a real target, as they look to a stock client (RFC 4254 §6): ends, streams, terminals, channels.

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bastion::{Master, Scene, Settings};
use crate::support::clients::Output;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_code_arrives() {
    let scene = Scene::open().await;
    let master = Master::open(&scene).await;

    let ends = futures::stream::iter(0..=255).map(|code| {
        let ssh = master.ssh(&scene).arg(format!("exit {code}"));
        async move { (code, ssh.run().await) }
    });
    let ends: Vec<(i32, Output)> = ends.buffer_unordered(8).collect().await;

    let wrong = ends.iter().filter(|(code, output)| output.code() != Some(*code));
    let wrong: Vec<_> = wrong.map(|(code, output)| (code, output.code(), output.errors())).collect();
    assert_eq!((ends.len(), wrong), (256, vec![]));
    assert_eq!(scene.bastion.sessions().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_killed_by_a_signal_ends_by_that_signal() {
    let scene = Scene::open().await;

    let ssh = scene.ssh().arg("-v").arg("kill -TERM $$").run().await;

    assert_eq!(ssh.code(), Some(255));
    assert!(ssh.errors().contains("rtype exit-signal"), "{}", ssh.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_errors_stay_apart() {
    let scene = Scene::open().await;
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; head -c 300000 /dev/zero; head -c 200000 /dev/zero | tr '\\0' x >&2";

    let ssh = scene.ssh().arg(script).run().await.expect_success();

    assert_eq!(ssh.stdout, [b"out 1\nout 2\nout 3\n".as_slice(), &vec![0; 300_000]].concat());
    assert_eq!(ssh.stderr, [b"err 1\nerr 2\nerr 3\n".as_slice(), &vec![b'x'; 200_000]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_input_and_the_end_of_output_are_two_things() {
    let scene = Scene::open().await;
    let file = scene.bastion.path("came");
    let input = vec![b'i'; 3_000_000];

    let cat = scene.ssh().arg("cat").input("x\n").run().await.expect_success();
    let after = scene.ssh().arg("cat; sleep 0.2; echo after").input("x\n").run().await.expect_success();
    let silent = scene.ssh().arg(format!("exec >&- 2>&-; sleep 0.2; cat > {}", file.display())).input(&input);
    silent.run().await.expect_success();

    assert_eq!(cat.text(), "x\n");
    assert_eq!(after.text(), "x\nafter\n");
    assert!(std::fs::read(file).unwrap() == input);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_may_stay_open_when_the_program_ends() {
    let scene = Scene::open().await;
    let mut child = scene.ssh().arg("echo done; exit 3").spawn();
    let _open = child.stdin.take();
    let mut stdout = child.stdout.take().unwrap();

    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();

    assert_eq!((text.as_str(), status.code()), ("done\n", Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_status_arrives_if_the_input_ends_between_the_output_and_it() {
    let scene = Scene::open().await;
    let master = Master::open(&scene).await; // such a client closes the channel as soon as both sides have ended
    let closed = scene.bastion.path("closed");

    let program = format!("exec <&- >&- 2>&-; touch {}; sleep 0.3; exit 5", closed.display());
    let mut child = master.ssh(&scene).arg(program).spawn();
    eventually("the program has closed its output", async || closed.exists()).await;
    drop(child.stdin.take());
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();

    assert_eq!(status.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_close_its_output_and_go_on() {
    let scene = Scene::open().await;
    let finished = scene.bastion.path("finished");

    let program = format!("exec <&- >&- 2>&-; sleep 1; touch {}; exit 6", finished.display());
    let mut child = scene.ssh().arg(program).spawn();
    let _open = child.stdin.take();
    let mut output = child.stdout.take().unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).await.unwrap();
    let before_the_end = !finished.exists();
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();

    assert!(before_the_end);
    assert_eq!(status.code(), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_variables_reach_the_target() {
    let scene = Scene::with(Settings::default(), &["AcceptEnv *"]).await;

    let ssh = scene.ssh().option("SetEnv=LANG=xx LC_GREETING=hello LD_PRELOAD=evil GIT_SSH=evil LCX=evil").arg("env");
    let seen = ssh.run().await.expect_success();

    let text = seen.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.contains(&"LANG=xx") && lines.contains(&"LC_GREETING=hello"), "{text}");
    assert!(!text.contains("evil"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_exchange_keys_every_megabyte() {
    let scene = Scene::open().await;
    let mut input = vec![0_u8; 50_000_000];
    for (at, byte) in input.iter_mut().enumerate() {
        *byte = u8::try_from(at.wrapping_mul(2_654_435_761) >> 13 & 0xff).unwrap();
    }

    let echoed = scene.ssh().option("RekeyLimit=1M").arg("cat").input(&input).deadline(Duration::from_mins(3));
    let echoed = echoed.run().await.expect_success();

    assert!(echoed.stdout == input, "{} bytes came back", echoed.stdout.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_channels_run_at_once_over_one_connection() {
    let scene = Scene::open().await;
    let master = Master::open(&scene).await;
    let meeting = scene.bastion.path("meeting");
    std::fs::create_dir(&meeting).unwrap();

    // Each waits for all the others, so that none ends unless ten run at once.
    let runs = (0..10).map(|n| {
        let wait =
            format!("cd {}; touch {n}; until [ $(ls | wc -l) = 10 ]; do sleep 0.05; done; cat", meeting.display());
        master.ssh(&scene).arg(wait).input(format!("channel {n}")).run()
    });
    let outputs = futures::future::join_all(runs).await;

    for (n, output) in outputs.into_iter().enumerate() {
        assert_eq!(output.expect_success().text(), format!("channel {n}"));
    }
    assert_eq!(scene.bastion.sessions().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_its_kind_and_its_resizes() {
    let scene = Scene::open().await;
    let mut terminal = scene.ssh().in_terminal(101, 37);

    terminal.wait_for("Recorded.").await;
    terminal.type_keys("stty size; echo \"kind=$TERM\"; tty\n").await;
    terminal.wait_for("37 101").await;
    terminal.wait_for("kind=xterm-256color").await;
    terminal.wait_for("/dev/pts/").await;
    terminal.resize(90, 31);
    // The resize travels beside the keys, so it is looked for until it is there.
    terminal.type_keys("until [ \"$(stty size)\" = '31 90' ]; do sleep 0.05; done; echo resi''zed; exit 7\n").await;
    terminal.wait_for("resized").await;
    let (_, status) = terminal.finish().await;

    assert_eq!(status.code(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_reaches_the_program_and_not_the_session() {
    let scene = Scene::open().await;
    let mut terminal = scene.ssh().in_terminal(80, 24);

    terminal.wait_for("Recorded.").await;
    // Started from within: a shell that is interrupted while it starts a program would go on waiting for it.
    terminal.type_keys("PS1='re''ady> '; sh -c 'echo st\"\"arted; exec sleep 1000'\n").await;
    terminal.wait_for("started").await;
    terminal.type_keys("\x03").await;
    terminal.wait_for("ready> ").await;
    terminal.type_keys("echo st''ill here; exit\n").await;

    terminal.wait_for("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_program_is_a_session() {
    let scene = Scene::open().await;

    let mut client = scene.ssh().arg("-N").spawn();
    eventually("the session is live", async || {
        scene.bastion.sessions().await.first().is_some_and(|session| session["state"] == "live")
    })
    .await;
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"to nobody").await.unwrap();
    drop(input);
    client.kill().await.unwrap();

    eventually("the session has ended", async || scene.bastion.sessions().await[0]["state"] == "ended").await;
    let id = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let shown = scene.bastion.ask(&["session", "show", &id]).await;
    assert_eq!(shown["recordings"].as_array().map(Vec::len), Some(0), "{shown:#}");
}
