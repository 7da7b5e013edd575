//! Clients other than OpenSSH's: they log in and run a command.

use std::path::{Path, PathBuf};

use crate::bastion::{Bastion, Scene};
use crate::support::clients::{Output, Run, Workstation};

/// The command, and what it leaves.
const COMMAND: &str = "echo out; echo err >&2; exit 5";

#[track_caller]
fn expect(output: &Output) {
    let seen = (output.text().replace('\r', ""), output.errors().replace('\r', ""), output.code());
    assert_eq!(seen, ("out\n".to_owned(), "err\n".to_owned(), Some(5)));
}

/// A program of the environment that `scripts/install-test-deps` makes.
pub fn venv(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv/bin").join(program);
    assert!(path.exists(), "{} is not there; scripts/install-test-deps installs it", path.display());
    path
}

/// One of this folder's Python programs.
pub fn python(desk: &Workstation, script: &str) -> Run {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(script);
    desk.program(venv("python")).arg(script)
}

/// A login by one of these programs: `proof` is `["key", file]` or `["password", word]`.
pub fn python_login(
    desk: &Workstation,
    script: &str,
    bastion: &Bastion,
    user: &str,
    proof: [&str; 2],
    command: &str,
) -> Run {
    let address = bastion.address();
    let run = python(desk, script).args([&address.ip().to_string(), &address.port().to_string(), user]);
    run.arg(bastion.host_key().to_openssh().unwrap()).args(proof).arg(command)
}

/// The ciphers that `ssh -v` says were agreed, for each direction.
fn ciphers(output: &Output) -> Vec<String> {
    let after = |line: &str| Some(line.split_once(" cipher: ")?.1.split_whitespace().next()?.to_owned());
    output.errors().lines().filter_map(after).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_openssh_speaks_aes_gcm_and_who_asks_for_another_cipher_gets_it() {
    let scene = Scene::open().await;
    // Without instructions for AES the client's own favourite is the faster one.
    let has_aes = std::fs::read_to_string("/proc/cpuinfo").unwrap().contains(" aes");
    let favourite = if has_aes { "aes128-gcm@openssh.com" } else { "chacha20-poly1305@openssh.com" };

    let stock = scene.ssh().arg("-v").arg("true").run().await.expect_success();
    assert_eq!(ciphers(&stock), [favourite; 2]);

    for (asked, agreed) in [
        ("chacha20-poly1305@openssh.com,aes256-gcm@openssh.com", "aes256-gcm@openssh.com"),
        ("chacha20-poly1305@openssh.com", "chacha20-poly1305@openssh.com"),
        ("aes256-ctr", "aes256-ctr"),
    ] {
        let agreed = if has_aes { agreed } else { asked.split(',').next().unwrap() };
        let ssh = scene.ssh().option(&format!("Ciphers={asked}")).arg("-v").arg("true").run().await.expect_success();
        assert_eq!(ciphers(&ssh), [agreed; 2]);
    }

    let refused = scene.ssh().option("Ciphers=aes128-cbc").arg("-v").arg("true").run().await;
    assert!(refused.errors().contains("no matching cipher found"), "{}", refused.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn plink_logs_in_and_runs_a_command() {
    let scene = Scene::open().await;

    let (address, host_key) = (scene.bastion.address(), scene.bastion.host_key());
    let plink = scene.desk.plink(&scene.key, &Scene::user(), address, host_key).await;

    expect(&plink.arg(COMMAND).run().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn paramiko_and_asyncssh_log_in_and_run_a_command() {
    let scene = Scene::open().await;
    let key = scene.key.path().to_str().unwrap();

    for script in ["paramiko_login.py", "asyncssh_login.py"] {
        let login =
            |command| python_login(&scene.desk, script, &scene.bastion, &Scene::user(), ["key", key], command).run();
        expect(&login(COMMAND).await);
        let long = login("head -c 5000000 /dev/zero").await.expect_success();
        assert_eq!(long.stdout, vec![0; 5_000_000], "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncssh_is_told_the_signal_that_killed_a_program() {
    let scene = Scene::open().await;
    let key = scene.key.path().to_str().unwrap();

    let login = ["key", key];
    let run = python_login(&scene.desk, "asyncssh_login.py", &scene.bastion, &Scene::user(), login, "kill -KILL $$");

    assert_eq!(run.run().await.text(), "signal KILL\n");
}
