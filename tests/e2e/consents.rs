//! Sessions that take somebody else's consent: an approval of each, or a watcher. By stock clients, in every way that leads to a target.

use std::process::Stdio;
use std::time::Duration;

use russh::keys::PublicKey;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::bastion::{Bastion, SALLYPORT, Scene, Settings, Stores};
use crate::second_factors::{Authenticator, MANY_TRIES, PASSWORD};
use crate::support::clients::{Output, Run, Workstation};
use crate::support::eventually;
use crate::support::keys::KeyPair;
use crate::support::sshd::Sshd;

/// Alice may go to `approved` and to `watched`, besides.
async fn scene(consent: &[&str]) -> Scene {
    let consent = consent.iter().map(|line| (*line).to_owned()).collect();
    let settings = Settings { ssh: vec![MANY_TRIES.to_owned()], consent, ..Settings::default() };
    let scene = Scene::on(Stores::Small, settings, &[]).await;
    for (target, option) in [("approved", "--approve-each"), ("watched", "--watched")] {
        scene.bastion.add_target(target, &scene.sshd).await;
        scene.bastion.grant_with("alice", target, &["--for", "1h", option]).await;
    }
    scene
}

fn user(target: &str) -> String {
    format!("alice+{}@{target}", Sshd::login())
}

fn begin(run: Run) -> JoinHandle<Output> {
    tokio::spawn(run.run())
}

impl Scene {
    fn ssh_to(&self, target: &str) -> Run {
        self.desk.ssh(&user(target), self.bastion.address())
    }
}

impl Bastion {
    /// The only session that waits for somebody: its request, and its own id.
    async fn waiting(&self) -> (String, String) {
        let mut found = None;
        eventually("a session waits", async || {
            let open = self.ask(&["request", "ls"]).await;
            found = open["items"].as_array().unwrap().first().map(|request| {
                (request["id"].as_str().unwrap().to_owned(), request["session"].as_str().unwrap().to_owned())
            });
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// `sallyport session watch`, running. It is killed when dropped.
    fn watch(&self, session: &str) -> Child {
        let mut watch = Command::new(SALLYPORT);
        watch.args(["session", "watch", session, "--no-input", "--socket"]).arg(self.data().join("sallyport.sock"));
        watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        watch.spawn().unwrap()
    }

    async fn ending_of(&self, session: &str) -> String {
        let mut ending = String::new();
        eventually("the session has ended", async || {
            let shown = self.ask(&["session", "show", session]).await;
            ending = shown["ending_text"].as_str().unwrap_or_default().to_owned();
            !ending.is_empty()
        })
        .await;
        ending
    }
}

#[track_caller]
fn expect_in(output: &Output) {
    assert_eq!((output.code(), output.text().as_str()), (Some(0), "in\n"), "{}", output.errors());
}

#[track_caller]
fn expect_refused(output: &Output, why: &str) {
    assert_eq!((output.code(), output.text().as_str()), (Some(254), ""), "{}", output.errors());
    assert!(output.errors().contains(&format!("access denied: {why}")), "{}", output.errors());
    assert!(output.errors().contains("reference e-"), "{}", output.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_session_runs_and_the_next_one_is_asked_for_anew() {
    let scene = scene(&[]).await;

    let first = begin(scene.ssh_to("approved").arg("cat; echo in").input(vec![b' '; 3 << 20]));
    let (request, session) = scene.bastion.waiting().await;
    assert!(scene.bastion.sessions().await.is_empty(), "nothing has started");
    scene.bastion.admin(&["request", "approve", &request]).await;
    let first = first.await.unwrap();
    let again = scene.bastion.try_admin(&["request", "approve", &request]).await;
    let second = begin(scene.ssh_to("approved").arg("echo in"));
    let (other, _) = scene.bastion.waiting().await;
    scene.bastion.admin(&["request", "deny", &other, "--reason", "not tonight"]).await;

    assert_eq!((first.code(), first.errors().as_str()), (Some(0), ""));
    assert_eq!((first.text().trim(), first.stdout.len()), ("in", (3 << 20) + 3), "what came ahead is not lost");
    expect_refused(&second.await.unwrap(), "somebody said no: not tonight");
    assert_eq!(again.status.code(), Some(5), "one yes is for one session");
    let sessions = scene.bastion.sessions().await;
    assert_eq!((sessions.len(), sessions[0]["id"].as_str()), (1, Some(session.as_str())));
    let acts = scene.bastion.ask(&["audit", "ls"]).await.to_string();
    for act in ["request_made", "request_approved", "request_denied", "not_approved"] {
        assert!(acts.contains(act), "{act}: {acts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_answers_is_refused_and_one_whose_client_leaves_asks_no_more() {
    let scene = scene(&["wait = \"3s\""]).await;

    let late = scene.ssh_to("approved").arg("echo in").run().await;
    let unwatched = scene.ssh_to("watched").arg("echo in").run().await;
    let client = scene.ssh_to("approved").arg("echo in").spawn();
    let (request, _) = scene.bastion.waiting().await;
    drop(client);

    expect_refused(&late, "nobody approved this session within 3 s");
    expect_refused(&unwatched, "nobody came to watch within 3 s");
    eventually("it is withdrawn", async || {
        scene.bastion.ask(&["request", "show", &request]).await["state"] == "withdrawn"
    })
    .await;
    let late = scene.bastion.try_admin(&["request", "approve", &request]).await;
    assert_eq!(late.status.code(), Some(5));
    assert!(scene.bastion.sessions().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_terminal_sees_what_is_waited_for_and_can_leave() {
    let scene = scene(&[]).await;

    let mut terminal = scene.ssh_to("approved").arg("-tt").arg("stty size; echo in").in_terminal(100, 30);
    terminal.wait_for("waiting for approval, q-").await;
    terminal.wait_for("2 s. Ctrl-C: leave").await;
    terminal.resize(90, 20);
    let (request, _) = scene.bastion.waiting().await;
    scene.bastion.admin(&["request", "approve", &request]).await;
    terminal.wait_for("20 90").await;
    let (rest, status) = terminal.finish().await;
    assert!(rest.contains("in") && status.success(), "{rest}");

    let mut terminal = scene.ssh_to("watched").arg("-tt").arg("echo in").in_terminal(100, 30);
    terminal.wait_for("waiting for a watcher of s-").await;
    terminal.type_keys("\x03").await;
    let (rest, status) = terminal.finish().await;
    assert_eq!(status.code(), Some(130), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_leaves_freezes_the_session_and_nothing_is_lost_when_one_comes_back() {
    let scene = scene(&[]).await;
    let file = scene.bastion.path("taken");
    let command = format!("tee {}", file.display());
    let mut client = scene.ssh_to("watched").arg(&command).spawn();
    let (mut typing, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let (_, session) = scene.bastion.waiting().await;

    let mut watcher = scene.bastion.watch(&session);
    typing.write_all(b"one\n").await.unwrap();
    let mut line = [0; 4];
    output.read_exact(&mut line).await.unwrap();
    let mut seen = [0; 4];
    watcher.stdout.take().unwrap().read_exact(&mut seen).await.unwrap();
    watcher.kill().await.unwrap();
    eventually("it stands still", async || scene.events("session_frozen").await.len() == 1).await;
    typing.write_all(b"two\n").await.unwrap();
    let moved = tokio::time::timeout(Duration::from_secs(2), output.read_exact(&mut line)).await;
    let taken = std::fs::read(&file).unwrap();
    let _watcher = scene.bastion.watch(&session);
    let back = tokio::time::timeout(Duration::from_secs(20), output.read_exact(&mut line)).await;

    assert_eq!(&seen, b"one\n");
    assert!(moved.is_err() && taken == b"one\n", "neither way: {:?}", String::from_utf8_lossy(&taken));
    assert!(back.is_ok() && &line == b"two\n");
    drop(typing);
    assert!(client.wait().await.unwrap().success());
    assert_eq!(std::fs::read(&file).unwrap(), b"one\ntwo\n");
    eventually("that it went on is in the books", async || scene.events("session_thawed").await.len() == 1).await;
    assert!(!scene.events("watch_ended").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_stops_counting_and_the_session_is_cut_in_the_end() {
    let scene = scene(&["unwatched = \"2s\""]).await;
    let mut client = scene.ssh_to("watched").arg("cat").spawn();
    let mut output = client.stdout.take().unwrap();
    let mut typing = client.stdin.take().unwrap();
    let (_, session) = scene.bastion.waiting().await;
    let watcher = scene.bastion.watch(&session);
    typing.write_all(b"one\n").await.unwrap();
    let mut line = [0; 4];
    output.read_exact(&mut line).await.unwrap();

    // It is there, its connection is open, and it does nothing.
    let pid = i32::try_from(watcher.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();

    let ending = scene.bastion.ending_of(&session).await;
    assert!(ending.contains("nobody has watched the session since"), "{ending}");
    assert!(!client.wait().await.unwrap().success());
    let acts = scene.bastion.ask(&["audit", "ls"]).await.to_string();
    assert!(acts.contains("session_frozen") && acts.contains("unwatched"), "{acts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_holds_a_session_releases_it_and_says_something() {
    let scene = scene(&[]).await;
    let mut terminal = scene.ssh().arg("-tt").arg("cat").in_terminal(100, 30);
    terminal.type_keys("one\r").await;
    terminal.wait_for("one\r\none").await;
    let session = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();

    let bad = scene.bastion.try_admin(&["session", "message", &session, "a\x1b[2Jb"]).await;
    scene.bastion.admin(&["session", "message", &session, "please", "finish"]).await;
    terminal.wait_for("please finish").await;
    scene.bastion.admin(&["session", "hold", &session, "--reason", "look at this"]).await;
    terminal.wait_for("held by an admin: look at this").await;
    terminal.type_keys("two\r").await;
    let held = terminal.settle(Duration::from_secs(1)).await;
    scene.bastion.admin(&["session", "release", &session]).await;
    terminal.wait_for("two").await; // as typed
    terminal.wait_for("two").await; // as cat has it

    assert_eq!(bad.status.code(), Some(1), "no control characters");
    assert!(!held.contains("two"), "{held}");
    let again = scene.bastion.try_admin(&["session", "release", &session]).await;
    assert_eq!(again.status.code(), Some(5));
    for act in ["session_held", "session_released", "message_sent"] {
        assert_eq!(scene.events(act).await.len(), 1, "{act}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_waits_at_the_same_gate() {
    let scene = scene(&[]).await;
    let ca = scene.bastion.admin(&["ca", "host"]).await;
    scene.desk.trust_ca(&PublicKey::from_openssh(ca.trim().strip_prefix("@cert-authority * ").unwrap()).unwrap());
    let address = scene.bastion.address();
    scene.desk.configure(&format!(
        "Host sallyport\nHostName {}\nPort {}\nUser alice\nHost approved\nProxyJump sallyport\nUser {}",
        address.ip(),
        address.port(),
        Sshd::login()
    ));
    let (there, here) = (scene.bastion.path("there"), scene.bastion.path("here"));
    std::fs::write(&there, "in\n").unwrap();
    let remote = format!("{}@{}:{}", user("approved"), address.ip(), there.display());
    let ways: [(&str, &dyn Fn() -> Run); 6] = [
        ("exec", &|| scene.ssh_to("approved").arg("echo in")),
        ("jump", &|| scene.desk.ssh_plain().arg("approved").arg("echo in")),
        ("scp", &|| scene.desk.scp(address).arg(&remote).arg(&here)),
        ("scp -O", &|| scene.desk.scp(address).arg("-O").arg(&remote).arg(&here)),
        ("sftp", &|| {
            let batch = format!("get {} {}\n", there.display(), here.display());
            scene.desk.sftp(&user("approved"), address, &batch)
        }),
        ("rsync", &|| scene.desk.rsync(address).arg(&remote).arg(&here)),
    ];

    for (way, run) in ways {
        let denied = begin(run());
        let (request, _) = scene.bastion.waiting().await;
        scene.bastion.admin(&["request", "deny", &request, "--reason", "no"]).await;
        let denied = denied.await.unwrap();
        assert_ne!(denied.code(), Some(0), "{way}");
        assert!(!denied.text().contains("in\n") && !here.exists(), "{way}: {}", denied.text());
        assert!(denied.errors().contains("somebody said no: no"), "{way}: {}", denied.errors());

        let approved = begin(run());
        let (request, _) = scene.bastion.waiting().await;
        scene.bastion.admin(&["request", "approve", &request]).await;
        approved.await.unwrap().expect_success();
        assert!(["exec", "jump"].contains(&way) || std::fs::read(&here).unwrap() == b"in\n", "{way}");
        drop(std::fs::remove_file(&here));
    }
    assert_eq!(scene.bastion.sessions().await.len(), ways.len(), "what was denied was no session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_waits_like_everything_else() {
    let scene = scene(&[]).await;
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let goal = inside.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = inside.accept().await {
            stream.write_all(b"in\n").await.unwrap();
        }
    });
    scene.bastion.add_target("gate", &scene.sshd).await;
    let forward = format!("forward={goal}");
    scene.bastion.grant_with("alice", "gate", &["--for", "1h", "--approve-each", "--allow", &forward]).await;

    let denied = begin(scene.ssh_to("gate").arg("-W").arg(&goal));
    let (request, _) = scene.bastion.waiting().await;
    scene.bastion.admin(&["request", "deny", &request, "--reason", "no"]).await;
    let denied = denied.await.unwrap();
    let approved = begin(scene.ssh_to("gate").arg("-W").arg(&goal));
    let (request, _) = scene.bastion.waiting().await;
    scene.bastion.admin(&["request", "approve", &request]).await;
    let approved = approved.await.unwrap();

    assert!(denied.code() != Some(0) && denied.stdout.is_empty(), "{}", denied.errors());
    assert_eq!(approved.text(), "in\n", "{}", approved.errors());
}

/// Somebody who logs in by one first factor.
struct Person<'a> {
    name: &'static str,
    desk: &'a Workstation,
    /// The answer to the question for a password, for who has no key.
    password: Option<&'static str>,
}

impl Person<'_> {
    fn ssh(&self, scene: &Scene, target: &str, code: Option<&str>) -> Run {
        let ssh = self.desk.ssh(&format!("{}+{}@{target}", self.name, Sshd::login()), scene.bastion.address());
        let mut answers: Vec<(&str, &str)> = self.password.iter().map(|password| ("assword:", *password)).collect();
        answers.extend(code.map(|code| ("Verification code:", code)));
        let ssh = if answers.is_empty() { ssh } else { ssh.answers(&answers) };
        ssh.option("NumberOfPasswordPrompts=1").arg("echo in")
    }
}

/// Gives or refuses the consent that the only waiting session lacks; a watcher is to be kept until the session's end.
async fn consent(bastion: &Bastion, by: &str, yes: bool) -> Option<Child> {
    let (request, session) = bastion.waiting().await;
    match (by, yes) {
        ("watched", true) => return Some(bastion.watch(&session)),
        (_, true) => drop(bastion.admin(&["request", "approve", &request]).await),
        (_, false) => drop(bastion.admin(&["request", "deny", &request, "--reason", "no"]).await),
    }
    None
}

/// First factor × second factor × consent: with all that its grant takes a session starts, with any one missing it does not.
#[tokio::test(flavor = "multi_thread")]
async fn of_every_combination_of_factors_each_one_missing_is_refused() {
    let ca = KeyPair::ed25519();
    let trust = format!("user_ca_files = [\"{}\"]", ca.public_path().display());
    let settings = Settings { ssh: vec![trust, MANY_TRIES.to_owned()], ..Settings::default() };
    let scene = Scene::on(Stores::Small, settings, &[]).await;
    let bastion = &scene.bastion;
    let cert = KeyPair::ed25519();
    cert.keep(&ca.certify(cert.public(), &["carol"], "by the other CA", Duration::from_mins(15)));
    let (without, with_cert) = (Workstation::without_key(), Workstation::new(&cert));
    without.trust(bastion.address(), bastion.host_key());
    with_cert.trust(bastion.address(), bastion.host_key());
    bastion.admin(&["person", "add", "bob"]).await;
    bastion.admin(&["person", "add", "carol"]).await;
    std::fs::write(bastion.path("password"), format!("{PASSWORD}\n")).unwrap();
    bastion.admin(&["person", "password", "bob", "--password-file", "password"]).await;
    let people = [
        Person { name: "alice", desk: &scene.desk, password: None },
        Person { name: "bob", desk: &without, password: Some(PASSWORD) },
        Person { name: "carol", desk: &with_cert, password: None },
    ];
    let consents = [("free", None), ("approved", Some("--approve-each")), ("watched", Some("--watched"))];
    for (by, option) in consents {
        for (target, factor) in [(by.to_owned(), None), (format!("{by}-2"), Some("--two-factor"))] {
            bastion.add_target(&target, &scene.sshd).await;
            let options: Vec<&str> = ["--for", "1h"].into_iter().chain(option).chain(factor).collect();
            for person in &people {
                bastion.grant_with(person.name, &target, &options).await;
            }
        }
    }

    // One factor.
    for person in &people {
        let stranger = Workstation::new(&KeyPair::ed25519());
        stranger.trust(bastion.address(), bastion.host_key());
        for (by, _) in consents {
            let nobody = Person { desk: &stranger, password: None, ..*person };
            assert_eq!(nobody.ssh(&scene, by, None).run().await.code(), Some(255), "{} to {by}", person.name);
            let half = person.ssh(&scene, &format!("{by}-2"), None).run().await;
            expect_refused(&half, "the grant takes a second factor");
            for yes in [true, false] {
                let run = begin(person.ssh(&scene, by, None));
                let watcher = if by == "free" { None } else { consent(bastion, by, yes).await };
                let output = run.await.unwrap();
                drop(watcher);
                if yes || by == "free" { expect_in(&output) } else { expect_refused(&output, "somebody said no") }
            }
        }
    }
    // Two.
    for person in &people {
        let authenticator = Authenticator::enrol(bastion, person.name).await;
        let mut codes = authenticator.recovery_codes.iter();
        for (by, _) in consents {
            let target = format!("{by}-2");
            let wrong = person.ssh(&scene, &target, Some("nonsense")).run().await;
            assert_eq!(wrong.code(), Some(255), "{} to {target}: {}", person.name, wrong.errors());
            for yes in [true, false] {
                let run = begin(person.ssh(&scene, &target, Some(codes.next().unwrap())));
                let watcher = if by == "free" { None } else { consent(bastion, by, yes).await };
                let output = run.await.unwrap();
                drop(watcher);
                if yes || by == "free" { expect_in(&output) } else { expect_refused(&output, "somebody said no") }
            }
        }
    }
    let opened = bastion.ask(&["audit", "ls", "--act", "session_opened"]).await;
    assert_eq!(
        opened["items"].as_array().map(Vec::len),
        Some(3 * (4 + 4)),
        "{:?}",
        opened.get("items").map(Value::to_string)
    );
}
