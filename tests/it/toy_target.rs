//! The toy target under the judgement of stock OpenSSH.

use std::time::Duration;

use sallyport::toy_target::{Settings, ToyTarget};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::clients::{Run, Workstation};
use crate::support::keys::KeyPair;
use crate::support::{eventually, sshd};

struct Toy {
    target: ToyTarget,
    workstation: Workstation,
    key: KeyPair,
}

impl Toy {
    async fn start() -> Self {
        let key = KeyPair::ed25519();
        let target = ToyTarget::start(Settings {
            authorized_keys: vec![key.public().clone()],
            shell: "/bin/bash".into(),
            working_directory: "/tmp".into(),
            ..Settings::default()
        });
        let target = target.await.unwrap();
        let workstation = Workstation::new(&key);
        workstation.trust(target.address(), target.host_key());
        Self { target, workstation, key }
    }

    fn ssh(&self) -> Run {
        self.workstation.ssh("root", self.target.address())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_from_0_to_255_arrive() {
    let toy = Toy::start().await;
    let control = toy.workstation.config().with_file_name("control");
    let control = format!("ControlPath={}", control.display());
    let master = toy.ssh().option(&control).args(["-o", "ControlMaster=yes", "-N"]).spawn();
    eventually("the master is up", async || {
        toy.ssh().option(&control).args(["-O", "check"]).run().await.code() == Some(0)
    })
    .await;

    for code in 0..=255 {
        let output = toy.ssh().option(&control).arg(format!("exit {code}")).run().await;

        assert_eq!(output.code(), Some(code));
    }
    drop(master);
}

#[tokio::test(flavor = "multi_thread")]
async fn death_by_signal_and_signals_from_the_client_arrive() {
    let toy = Toy::start().await;

    let died = toy.ssh().option("LogLevel=DEBUG1").arg("kill -TERM $$").run().await;

    assert_eq!(died.code(), Some(255));
    assert!(died.errors().contains("rtype exit-signal"), "{}", died.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn stdout_and_stderr_stay_apart_and_the_end_of_input_arrives() {
    let toy = Toy::start().await;

    let output = toy.ssh().arg("cat; echo wrong >&2; exit 3").input("in\n").run().await;

    assert_eq!((output.text().as_str(), output.errors().as_str(), output.code()), ("in\n", "wrong\n", Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_in_a_terminal_knows_its_name_its_size_and_its_new_size() {
    let toy = Toy::start().await;
    let mut terminal = toy.ssh().env("LANG", "C.UTF-8").option("SendEnv=LANG").in_terminal(91, 33);

    terminal.type_keys("stty -echo; PS1=; echo [$TERM $LANG $(stty size) $0]\n").await;
    terminal.wait_for("[xterm-256color C.UTF-8 33 91 -bash]").await;
    terminal.resize(70, 20);
    terminal.type_keys("until [ \"$(stty size)\" = '20 70' ]; do :; done; echo resized; exit 9\n").await;
    terminal.wait_for("resized").await;
    let (_, status) = terminal.finish().await;

    assert_eq!(status.code(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_each_way_at_once_come_back_unchanged() {
    let toy = Toy::start().await;
    let bytes: Vec<u8> = {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(100_000_000 / 8)
        .flatten()
        .collect()
    };

    let output = toy.ssh().arg("cat").input(&bytes).deadline(Duration::from_mins(3)).run().await.expect_success();

    assert_eq!(Sha256::digest(&output.stdout), Sha256::digest(&bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_loses_nothing_and_stalls_no_other_channel() {
    let toy = Toy::start().await;
    let control = toy.workstation.config().with_file_name("control");
    let control = format!("ControlPath={}", control.display());
    let _master = toy.ssh().option(&control).args(["-o", "ControlMaster=yes", "-N"]).spawn();
    eventually("the master is up", async || {
        toy.ssh().option(&control).args(["-O", "check"]).run().await.code() == Some(0)
    })
    .await;
    let mut stalled = toy.ssh().option(&control).arg("cat").spawn();
    let (mut stdin, mut stdout) = (stalled.stdin.take().unwrap(), stalled.stdout.take().unwrap());

    // Nobody reads what `cat` gives back, so the input piles up on its way; another channel goes on.
    let writing = tokio::spawn(async move {
        let block = vec![b'x'; 1 << 20];
        for _ in 0..60 {
            stdin.write_all(&block).await.unwrap();
        }
    });
    eventually("input has piled up", async || {
        let output = toy.ssh().option(&control).arg("echo alive").run().await.expect_success();
        assert_eq!(output.text(), "alive\n");
        writing.is_finished()
    })
    .await;
    let mut read = Vec::new();
    stdout.read_to_end(&mut read).await.unwrap();

    assert_eq!(read.len(), 60 << 20);
    assert!(stalled.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_die_with_their_connection() {
    let toy = Toy::start().await;
    let before = toy.target.tasks();
    let mut client = toy.ssh().arg("echo $$; trap '' HUP; sleep 1000 & sleep 1000").spawn();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(client.stdout.take().unwrap());
    tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut line).await.unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    let mut programs = sshd::children_of(pid);
    programs.push(pid);

    client.kill().await.unwrap();

    eventually("the shell and its children are gone", async || {
        programs.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
    eventually("its tasks are gone", async || toy.target.tasks() == before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_cuts_connections_and_waits_for_their_programs() {
    let toy = Toy::start().await;
    let mut client = toy.ssh().arg("echo up; sleep 1000").spawn();
    let mut up = [0; 3];
    client.stdout.as_mut().unwrap().read_exact(&mut up).await.unwrap();

    toy.target.stop().await;

    assert_eq!(client.wait().await.unwrap().code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_only_for_its_principal_its_ca_and_its_time() {
    let (ca, stranger) = (KeyPair::ed25519(), KeyPair::ed25519());
    let settings =
        Settings { user_cas: vec![ca.public().clone()], working_directory: "/tmp".into(), ..Settings::default() };
    let target = ToyTarget::start(settings).await.unwrap();
    let hour = Duration::from_hours(1);
    let cases = [
        (&ca, "root", hour, Some(0)),
        (&ca, "alice", hour, Some(255)),
        (&stranger, "root", hour, Some(255)),
        (&ca, "root", Duration::ZERO, Some(255)),
    ];

    for (signer, principal, lifetime, expected) in cases {
        let key = KeyPair::ed25519();
        key.keep(&signer.certify(key.public(), &[principal], "a-session", lifetime));
        let workstation = Workstation::new(&key);
        workstation.trust(target.address(), target.host_key());
        let output = workstation.ssh("root", target.address()).arg("true").run().await;

        assert_eq!(output.code(), expected, "{principal} {lifetime:?} {}", output.errors());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_both_ways_and_a_wrong_one_neither() {
    let settings = Settings {
        password: Some("correct horse".to_owned()),
        working_directory: "/tmp".into(),
        ..Settings::default()
    };
    let target = ToyTarget::start(settings).await.unwrap();
    let workstation = Workstation::without_key();
    workstation.trust(target.address(), target.host_key());

    for method in ["password", "keyboard-interactive"] {
        for (password, expected) in [("correct horse", Some(0)), ("battery staple", Some(255))] {
            let run = workstation.ssh("root", target.address()).option(&format!("PreferredAuthentications={method}"));
            let output = run.password(password).option("NumberOfPasswordPrompts=1").arg("true").run().await;

            assert_eq!(output.code(), expected, "{method} {}", output.errors());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_both_ways_with_scp_and_sftp_and_plink_runs_a_command() {
    let toy = Toy::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (here, there, back) = (folder.path().join("here"), folder.path().join("there"), folder.path().join("back"));
    std::fs::write(&here, vec![7; 3_000_000]).unwrap();

    let remote = format!("root@127.0.0.1:{}", there.display());
    toy.workstation.scp(toy.target.address()).arg(&here).arg(&remote).run().await.expect_success();
    let batch = format!("get {} {}\n", there.display(), back.display());
    toy.workstation.sftp("root", toy.target.address(), &batch).run().await.expect_success();
    let plink = toy.workstation.plink(&toy.key, "root", toy.target.address(), toy.target.host_key()).await;
    let plink = plink.arg("echo from plink").run().await.expect_success();

    assert!(std::fs::read(&back).unwrap() == vec![7; 3_000_000]);
    assert_eq!(plink.text(), "from plink\n");
}
