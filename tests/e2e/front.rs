//! `ssh person@bastion` without a target: the bastion's own commands and the picker, by stock clients.

use std::time::Duration;

use serde_json::Value;

use crate::bastion::Scene;
use crate::support::clients::{Output, Run, Terminal};
use crate::support::eventually;
use crate::support::sshd::Sshd;

const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";
const DOWN: &str = "\x1b[B";

fn ssh(scene: &Scene) -> Run {
    scene.desk.ssh("alice", scene.bastion.address())
}

async fn run(scene: &Scene, command: &str) -> Output {
    ssh(scene).arg(command).run().await
}

async fn ask(scene: &Scene, command: &str) -> Value {
    let ran = run(scene, &format!("{command} --json")).await.expect_success();
    serde_json::from_str(&ran.text()).unwrap_or_else(|error| panic!("{command}: {error}: {}", ran.text()))
}

/// A scene with a second target, so that it is open where Alice goes.
async fn two_targets() -> Scene {
    let scene = Scene::open().await;
    scene.bastion.add_target("db-7", &scene.sshd).await;
    scene.bastion.grant("alice", "db-7").await;
    scene
}

/// The picker in a terminal, drawn for the first time.
async fn picker(scene: &Scene, columns: u16, rows: u16) -> Terminal {
    let mut terminal = ssh(scene).arg("-tt").in_terminal(columns, rows);
    terminal.wait_for(ENTER_SCREEN).await;
    terminal.wait_for("Esc leave").await;
    terminal
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bastions_commands_answer_people_and_programs() {
    let scene = two_targets().await;
    let login = Sshd::login();

    let help = run(&scene, "help").await.expect_success().text();
    assert!(help.contains("known-hosts") && help.lines().all(|line| line.len() <= 80), "{help}");
    assert_eq!(ask(&scene, "help").await["commands"][0]["name"], "help");
    let listed = run(&scene, "ls").await.expect_success().text();
    assert!(listed.contains(&format!("{login}@db-7")) && listed.contains(&format!("{login}@web-1")), "{listed}");
    let listed = ask(&scene, "ls").await;
    assert_eq!(listed["accounts"][1]["user"], format!("alice+{login}@web-1"));
    assert!(run(&scene, "whoami").await.expect_success().text().starts_with("You are alice: engineer."));
    assert_eq!(ask(&scene, "whoami").await["method"], "publickey");
    let keys = run(&scene, "keys").await.expect_success().text();
    let fingerprint = ask(&scene, "keys").await["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    assert!(keys.contains(&fingerprint) && keys.contains("ssh-ed25519"), "{keys}");
    let config = run(&scene, "config").await.expect_success().text();
    assert!(config.contains(&format!("Host web-1\n    User {login}\n    ProxyJump sallyport")), "{config}");
    assert_eq!(ask(&scene, "config").await["lines"][0], "Host sallyport");
    let known = run(&scene, "known-hosts").await.expect_success().text();
    let ca = scene.bastion.admin(&["ca", "host"]).await;
    assert_eq!(known.lines().nth(1), Some(ca.trim()));
    assert_eq!(known, scene.bastion.admin(&["known-hosts"]).await);
    let plain = ask(&scene, "known-hosts --plain").await;
    assert!(plain["lines"][2].as_str().unwrap().starts_with("web-1,"), "{plain}");
    assert_eq!(
        run(&scene, "known-hosts --plain").await.expect_success().text(),
        scene.bastion.admin(&["known-hosts", "--plain"]).await
    );
    let wrong = run(&scene, "ls -la /tmp").await;
    assert_eq!(wrong.code(), Some(254));
    assert!(wrong.errors().contains("+LOGIN@TARGET"), "{}", wrong.errors());
    // None of this was a session.
    assert_eq!(scene.bastion.sessions().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bastion_prints_makes_a_jump_work_when_pasted() {
    let scene = Scene::open().await;
    let address = scene.bastion.address();
    let local = |text: String| {
        // The node calls itself by a name that no resolver knows.
        text.replace("HostName e2e", "HostName 127.0.0.1").replace("[e2e]:", "[127.0.0.1]:")
    };
    let config = local(run(&scene, "config").await.expect_success().text());
    let known = local(run(&scene, "known-hosts --plain").await.expect_success().text());
    let known_hosts = scene.bastion.path("pasted");
    std::fs::write(&known_hosts, known).unwrap();
    scene.desk.configure(&config);

    let jump = scene.desk.ssh_plain().option(&format!("UserKnownHostsFile={}", known_hosts.display()));
    // An option of the command line is not the jump's, which is a program of its own: the desk knows the bastion.
    let ran = jump.arg("web-1").arg("echo through").run().await;

    assert_eq!((ran.code(), ran.text().as_str()), (Some(0), "through\n"), "{} {address}", ran.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_ours_runs_where_it_can_only_be_meant() {
    let scene = Scene::open().await;
    let only = run(&scene, "echo in").await.expect_success();
    assert_eq!(only.text(), "in\n");

    scene.bastion.add_target("db-7", &scene.sshd).await;
    scene.bastion.grant("alice", "db-7").await;
    let unclear = run(&scene, "echo in").await;
    let list = ssh(&scene).arg("-T").run().await;

    assert_eq!(unclear.code(), Some(254));
    assert!(unclear.errors().contains("help") && unclear.errors().lines().count() <= 4, "{}", unclear.errors());
    assert_eq!(list.code(), Some(0), "{}", list.errors());
    assert!(list.text().contains("db-7") && list.errors().contains("to go on: ssh"), "{}", list.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_go_nowhere_hears_when_and_how_to_ask() {
    let scene = Scene::open().await;
    let grant = scene.bastion.ask(&["grant", "ls"]).await["items"][0]["id"].as_str().unwrap().to_owned();
    scene.bastion.admin(&["grant", "revoke", &grant, "--reason", "test"]).await;
    let later = ["--from", "2999-01-01T10:00:00Z", "--until", "2999-01-01T12:00:00Z"];
    scene.bastion.grant_with("alice", "web-1", &later).await;

    for plain in [ssh(&scene).arg("-T"), ssh(&scene).arg("-tt"), ssh(&scene).arg("uname")] {
        let refused = plain.run().await;
        let said = refused.errors();
        assert_eq!(refused.code(), Some(254), "{said}");
        for part in ["access denied", "2999-01-01 10:00 UTC", "request TARGET --for", "reference e-"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picker_filters_and_moves_and_starts_a_shell_of_the_terminals_size() {
    let scene = two_targets().await;
    let mut terminal = picker(&scene, 80, 24).await;

    terminal.type_keys("web").await;
    terminal.wait_for("1 of 2 open to you now").await;
    terminal.wait_for("Esc leave").await;
    terminal.type_keys("\x7f\x7f\x7f").await;
    terminal.wait_for("  2 open to you now").await;
    terminal.type_keys(DOWN).await;
    terminal.wait_for("\x1b[7m> web-1").await;
    terminal.resize(100, 30);
    terminal.wait_for("\x1b[30;1H").await;
    // What is typed after the choice is the shell's.
    terminal.type_keys("\recho size $(stty size) on $SSH_CONNECTION; exit 3\r").await;

    terminal.wait_for(LEAVE_SCREEN).await;
    terminal.wait_for("Recorded.").await;
    terminal.wait_for("size 30 100 on").await;
    let (_, status) = terminal.finish().await;
    assert_eq!(status.code(), Some(3));
    let session = scene.bastion.sessions().await.remove(0);
    assert_eq!(
        (session["target"]["name"].as_str(), session["login"].as_str()),
        (Some("web-1"), Some(Sshd::login().as_str()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picker_is_left_by_a_key_and_gives_the_screen_back() {
    let scene = two_targets().await;
    for key in ["\x1b", "\x03", "\x04"] {
        let mut terminal = ssh(&scene).arg("-tt").in_terminal(40, 5);
        terminal.wait_for("> db-7").await;
        terminal.type_keys(key).await;
        let (rest, status) = terminal.finish().await;
        assert!(rest.contains(LEAVE_SCREEN), "{rest:?}");
        assert_eq!(status.code(), Some(0), "{key:?}");
    }
    assert_eq!(scene.bastion.sessions().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_shows_what_opens_meanwhile_and_puts_the_screen_back_when_its_person_is_disabled() {
    let scene = two_targets().await;
    let mut terminal = picker(&scene, 80, 24).await;

    scene.bastion.add_target("web-9", &scene.sshd).await;
    scene.bastion.grant("alice", "web-9").await;
    terminal.wait_for("web-9").await;
    scene.bastion.admin(&["person", "disable", "alice", "--yes"]).await;

    let (rest, _) = terminal.finish().await;
    assert!(rest.contains(LEAVE_SCREEN), "{rest:?}");
}

/// The request that waits for an answer.
async fn open_request(scene: &Scene) -> String {
    let mut id = String::new();
    eventually("somebody has asked", async || {
        let open = scene.bastion.ask(&["request", "ls"]).await;
        id = open["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        !id.is_empty()
    })
    .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_and_its_answer_is_its_exit_status() {
    let scene = Scene::open().await;
    let request = || run(&scene, "request db-7 --for 2h --reason the disk is full --ticket INC-7 --json");
    scene.bastion.add_target("db-7", &scene.sshd).await;

    let approve = async {
        let id = open_request(&scene).await;
        scene.bastion.admin(&["request", "approve", &id]).await;
    };
    let (approved, ()) = tokio::join!(request(), approve);
    let deny = async {
        let id = open_request(&scene).await;
        scene.bastion.admin(&["request", "deny", &id, "--reason", "not today"]).await;
    };
    let (denied, ()) = tokio::join!(run(&scene, "request db-7 --for 2h --reason more"), deny);

    assert_eq!(approved.code(), Some(0), "{}", approved.errors());
    let answer: Value = serde_json::from_str(&approved.text()).unwrap();
    assert_eq!((answer["state"].as_str(), answer["reason"].as_str()), (Some("approved"), Some("the disk is full")));
    assert_eq!(denied.code(), Some(1), "{}", denied.errors());
    assert!(denied.text().contains("is denied: not today"), "{}", denied.text());
    let no_wait = run(&scene, "request db-7 --for 1h --reason x --no-wait").await.expect_success();
    assert!(no_wait.text().contains("waits for an answer"), "{}", no_wait.text());
    assert_eq!(ask(&scene, "ls").await["requests"][0]["state"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_a_terminal_goes_on_to_the_target_when_it_is_approved() {
    let scene = Scene::open().await;
    scene.bastion.add_target("db-7", &scene.sshd).await;
    let mut terminal = ssh(&scene).arg("-tt").arg("request db-7 --for 2h --reason disk").in_terminal(80, 24);
    terminal.wait_for("waits for an answer").await;

    let id = open_request(&scene).await;
    scene.bastion.admin(&["request", "approve", &id]).await;
    terminal.wait_for("is approved, until").await;
    terminal.wait_for("Press Enter to go to").await;
    terminal.type_keys("\rexit 5\r").await;

    terminal.wait_for("Recorded.").await;
    assert_eq!(terminal.finish().await.1.code(), Some(5));
    assert_eq!(scene.bastion.sessions().await[0]["target"]["name"], "db-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_for_the_answer_withdraws_nothing() {
    let scene = Scene::open().await;
    let mut terminal = ssh(&scene).arg("-tt").arg("request db-7 --for 2h --reason disk").in_terminal(80, 24);
    terminal.wait_for("waits for an answer").await;

    terminal.type_keys("\x03").await;

    terminal.wait_for("to look later: ssh").await;
    assert_eq!(terminal.finish().await.1.code(), Some(130));
    open_request(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_time_is_asked_for_on_the_grant_of_the_only_session() {
    let scene = Scene::open().await;
    let without = run(&scene, "extend --for 1h --reason late").await;
    assert_eq!(without.code(), Some(254));
    assert!(without.errors().contains("say which grant is meant"), "{}", without.errors());
    let mut working = scene.ssh().arg("-tt").in_terminal(80, 24);
    working.wait_for("Recorded.").await;
    let before = ask(&scene, "ls").await["accounts"][0]["seconds_left"].as_i64().unwrap();

    let approve = async {
        let id = open_request(&scene).await;
        scene.bastion.admin(&["request", "approve", &id]).await;
    };
    let (extended, ()) = tokio::join!(run(&scene, "extend --for 1h --reason not done yet"), approve);

    assert_eq!(extended.code(), Some(0), "{}", extended.errors());
    let after = ask(&scene, "ls").await["accounts"][0]["seconds_left"].as_i64().unwrap();
    assert!(after > before + 3_000, "{before} {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn putty_gets_the_commands_too() {
    let scene = two_targets().await;
    let (address, key) = (scene.bastion.address(), scene.bastion.host_key());

    let listed = scene.desk.plink(&scene.key, "alice", address, key).await.arg("ls").run().await.expect_success();

    assert!(listed.text().contains("@db-7"), "{}", listed.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn putty_gets_the_picker_too() {
    let scene = two_targets().await;
    let (address, key) = (scene.bastion.address(), scene.bastion.host_key());
    let mut terminal = scene.desk.plink(&scene.key, "alice", address, key).await.in_terminal(80, 24);
    terminal.wait_for(ENTER_SCREEN).await;
    terminal.wait_for("> db-7").await;

    // As PuTTY sends the key once a program has asked for its application mode.
    terminal.type_keys("\x1bOB").await;
    terminal.wait_for("\x1b[7m> web-1").await;
    terminal.type_keys("\recho size $(stty size) on $SSH_CONNECTION; exit 3\r").await;

    terminal.wait_for(LEAVE_SCREEN).await;
    terminal.wait_for("size 24 80 on").await;
    assert_eq!(terminal.finish().await.1.code(), Some(3));
    assert_eq!(scene.bastion.sessions().await[0]["target"]["name"], "web-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_of_one_connection_go_where_the_first_went() {
    let scene = two_targets().await;
    let socket = scene.bastion.path("front");
    let _master = ssh(&scene).args(["-M", "-N", "-S"]).arg(&socket).spawn();
    eventually("the shared connection is open", async || socket.exists()).await;
    let shared = || ssh(&scene).arg("-S").arg(&socket);

    let mut terminal = shared().arg("-tt").in_terminal(80, 24);
    terminal.wait_for("Esc leave").await;
    terminal.type_keys("web\r").await;
    terminal.wait_for("Recorded.").await;
    let second = shared().arg("echo here").run().await.expect_success();
    let ours = shared().arg("whoami").deadline(Duration::from_secs(20)).run().await.expect_success();

    assert_eq!(second.text(), "here\n");
    assert!(ours.text().starts_with("You are alice"));
    assert_eq!(scene.bastion.sessions().await.len(), 1);
}
