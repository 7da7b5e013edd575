//! `ssh -J person@bastion login@target`, by stock clients: answered by the bastion itself, so recorded, judged and cut like
//! every other session. One `@cert-authority` line makes every target known.

use std::path::Path;
use std::time::Duration;

use russh::keys::PublicKey;

use crate::bastion::Scene;
use crate::support::clients::Run;
use crate::support::eventually;
use crate::support::sshd::Sshd;

/// Alice's desk with the bastion as jump host in its configuration, and its host CA known.
async fn scene() -> Scene {
    let scene = Scene::open().await;
    let ca = scene.bastion.admin(&["ca", "host"]).await;
    let key = ca.trim().strip_prefix("@cert-authority * ").expect("a line for known_hosts");
    scene.desk.trust_ca(&PublicKey::from_openssh(key).unwrap());
    let address = scene.bastion.address();
    scene.desk.configure(&format!(
        "Host sallyport\nHostName {}\nPort {}\nUser alice\nHost web-1 web.example\nProxyJump sallyport\nUser {}",
        address.ip(),
        address.port(),
        Sshd::login()
    ));
    scene
}

fn ssh(scene: &Scene, host: &str) -> Run {
    scene.desk.ssh_plain().arg(host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_through_a_jump_runs_on_the_target_and_is_recorded() {
    let scene = scene().await;

    let ran = ssh(&scene, "web-1").arg("cat; echo problems >&2; exit 7").input("some input\n").run().await;

    assert_eq!((ran.code(), ran.text().as_str()), (Some(7), "some input\n"), "{}", ran.errors());
    assert_eq!(ran.errors(), "problems\n");
    let session = scene.bastion.sessions().await.remove(0);
    assert_eq!(
        (session["person"]["name"].as_str(), session["target"]["name"].as_str()),
        (Some("alice"), Some("web-1"))
    );
    let id = session["id"].as_str().unwrap();
    eventually("the session has ended", async || scene.bastion.sessions().await[0]["ended_at"].is_string()).await;
    let replayed = scene.bastion.admin(&["session", "export", id, "--format", "txt"]).await;
    assert!(replayed.contains("some input"), "{replayed}");
    // One login was proved, and the target's own log names the session.
    eventually("the target's log names the session", async || scene.sshd.log().contains(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_found_by_name_alias_and_address_and_shows_one_certified_key() {
    let scene = scene().await;
    let other = Sshd::start(&crate::support::sshd::Settings::default());
    scene.bastion.add_target_with("web-2", &other, &["--alias", "web.example"]).await;
    other.trust_user_ca(&scene.bastion.admin(&["ca", "user"]).await);
    scene.bastion.grant("alice", "web-2").await;
    let jump = |host: &str, port: u16| {
        let ssh = scene.desk.ssh_plain().option("ProxyJump=sallyport").option("LogLevel=VERBOSE").arg("-p");
        ssh.arg(port.to_string()).arg(format!("{}@{host}", Sshd::login())).arg("true")
    };

    for (host, port) in [("web-2", 22), ("web.example", 22), ("127.0.0.1", other.address().port())] {
        let ran = jump(host, port).run().await;
        assert_eq!(ran.code(), Some(0), "{host}: {}", ran.errors());
    }
    let unknown = jump("web-9", 22).run().await;
    let bastion_itself = jump("127.0.0.1", scene.bastion.address().port()).run().await;

    assert_eq!((unknown.code(), bastion_itself.code()), (Some(255), Some(255)));
    assert!(unknown.errors().contains("stdio forwarding failed"), "{}", unknown.errors());
    let denied = scene.bastion.ask(&["audit", "ls"]).await.to_string();
    assert!(denied.contains("web-9:22") && denied.contains("destination_not_granted"), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_no_grant_names_hears_the_reason_and_a_reference() {
    let scene = scene().await;

    let denied = scene.desk.ssh_plain().arg("-l").arg("nobody").arg("web-1").arg("true").run().await;

    assert_eq!(denied.code(), Some(254), "{}", denied.errors());
    assert!(denied.errors().contains("access denied"), "{}", denied.errors());
    assert!(denied.errors().contains("reference e-"), "{}", denied.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_both_ways_by_scp_sftp_and_rsync() {
    let scene = scene().await;
    let (here, there, back) = (scene.bastion.path("here"), scene.bastion.path("there"), scene.bastion.path("back"));
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&here, &content).unwrap();
    let arrived = |path: &Path| {
        assert!(std::fs::read(path).unwrap() == content, "{}", path.display());
        std::fs::remove_file(path).unwrap();
    };
    let remote = format!("web-1:{}", there.display());

    for legacy in [&[][..], &["-O"]] {
        let scp = || scene.desk.program("scp").arg("-F").arg(scene.desk.config()).args(legacy);
        scp().arg(&here).arg(&remote).run().await.expect_success();
        scp().arg(&remote).arg(&back).run().await.expect_success();
        arrived(&there);
        arrived(&back);
    }
    let batch = format!(
        "put {here} {there}\nget {there} {back}\n",
        here = here.display(),
        there = there.display(),
        back = back.display()
    );
    let sftp = scene.desk.program("sftp").arg("-F").arg(scene.desk.config()).args(["-b", "-", "web-1"]);
    sftp.input(batch).run().await.expect_success();
    arrived(&there);
    arrived(&back);
    let rsync = || scene.desk.program("rsync").arg("-e").arg(format!("ssh -F {}", scene.desk.config().display()));
    rsync().arg(&here).arg(&remote).run().await.expect_success();
    rsync().arg(&remote).arg(&back).run().await.expect_success();
    arrived(&there);
    arrived(&back);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_goes_both_ways_at_once_though_its_reader_pauses() {
    let scene = scene().await;
    let sent: Vec<u8> = (0..16_000_000_u32).flat_map(u32::to_le_bytes).collect();

    let echoed = ssh(&scene, "web-1").arg("cat").input(&sent).deadline(Duration::from_mins(3)).run().await;

    assert!(echoed.stdout == sent, "{} of {} bytes came back", echoed.stdout.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_programs_share_a_jump_and_a_stalled_one_does_not_hold_up_another() {
    let scene = scene().await;
    let socket = scene.bastion.path("jumped");
    let _master = ssh(&scene, "web-1").args(["-M", "-N", "-S"]).arg(&socket).spawn();
    eventually("the shared connection is open", async || socket.exists()).await;
    let shared = || ssh(&scene, "web-1").arg("-S").arg(&socket);
    let mut stalled = shared().arg("yes").spawn();

    for number in 0..10 {
        let ran =
            shared().arg(format!("echo {number}; head -c 3000000 /dev/zero | wc -c")).run().await.expect_success();
        assert_eq!(ran.text(), format!("{number}\n3000000\n"));
    }

    assert!(stalled.try_wait().unwrap().is_none());
    stalled.start_kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_cuts_what_came_through_a_jump_and_says_why() {
    let scene = scene().await;
    let shell = ssh(&scene, "web-1").arg("-tt").arg("echo begun; exec sleep 1000").run();
    let shell = tokio::spawn(shell);
    eventually("the program runs", async || scene.sshd.sessions() == 1).await;
    let grants = scene.bastion.ask(&["grant", "ls"]).await;
    let grant = grants["items"][0]["id"].as_str().unwrap().to_owned();

    scene.bastion.admin(&["grant", "revoke", &grant, "--reason", "test"]).await;

    let ended = tokio::time::timeout(Duration::from_secs(5), shell).await.expect("it is cut").unwrap();
    assert!(ended.text().contains("your access was taken back"), "{} {}", ended.text(), ended.errors());
    eventually("the target's program is gone", async || scene.sshd.sessions() == 0).await;
    assert_eq!(ssh(&scene, "web-1").arg("true").run().await.code(), Some(254));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_host_authority_is_published_before_it_signs_and_its_line_is_what_clients_need() {
    let scene = scene().await;
    let staged = scene.bastion.admin(&["key", "rotate", "host-ca", "--stage"]).await;
    ssh(&scene, "web-1").arg("true").run().await.expect_success();

    scene.bastion.admin(&["key", "rotate", "host-ca", "--activate", "--yes"]).await;
    eventually("who has the old line alone is not let down quietly", async || {
        ssh(&scene, "web-1").arg("true").run().await.code() == Some(255)
    })
    .await;
    scene.desk.trust_ca(&PublicKey::from_openssh(staged.trim()).unwrap());

    ssh(&scene, "web-1").arg("true").run().await.expect_success();
    scene.bastion.admin(&["key", "rotate", "host-ca", "--retire"]).await;
    let lines = scene.bastion.admin(&["known-hosts"]).await;
    assert!(lines.matches("@cert-authority").count() == 1 && lines.contains(staged.trim()), "{lines}");
}
