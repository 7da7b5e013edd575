//! What proves an engineer: keys, certificates, passwords (RFC 4252), and what does not.

use std::sync::Arc;

use russh::client;
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};

use crate::bastion::{Bastion, Scene, Settings, Stores};
use crate::clients::python_login;
use crate::support::clients::Workstation;
use crate::support::keys::KeyPair;
use crate::support::sshd::Sshd;

/// Many logins of these tests fail on purpose.
const MANY_TRIES: &str = "failures_per_address = { limit = 1000, window = \"10m\" }";

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_modern_kind_log_in() {
    let scene = Scene::open().await;
    let kinds: [&[&str]; 5] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "3072"],
    ];

    for kind in kinds {
        let key = KeyPair::by_ssh_keygen(kind);
        scene.bastion.admin(&["person", "key", "add", "alice", &key.line()]).await;
        let desk = Workstation::new(&key);
        desk.trust(scene.bastion.address(), scene.bastion.host_key());
        let algorithms: &[&str] = if kind[1] == "rsa" { &["rsa-sha2-256", "rsa-sha2-512"] } else { &["+ssh-ed25519"] };
        for algorithm in algorithms {
            let ssh = desk.ssh(&Scene::user(), scene.bastion.address());
            let ssh = ssh.option(&format!("PubkeyAcceptedAlgorithms={algorithm}")).arg("echo in");
            assert_eq!(ssh.run().await.expect_success().text(), "in\n", "{kind:?} {algorithm}");
        }
    }
}

/// A client that offers whatever it is told to, which stock clients no longer do.
pub struct Stubborn;

impl client::Handler for Stubborn {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_signature_with_sha_1_proves_nothing() {
    let scene = Scene::open().await;
    let key = KeyPair::by_ssh_keygen(&["-t", "rsa", "-b", "2048"]);
    scene.bastion.admin(&["person", "key", "add", "alice", &key.line()]).await;
    let desk = Workstation::new(&key);
    desk.trust(scene.bastion.address(), scene.bastion.host_key());

    let ssh = desk.ssh(&Scene::user(), scene.bastion.address()).option("PubkeyAcceptedAlgorithms=ssh-rsa").arg("true");
    let stock = ssh.run().await;
    let mut proved = Vec::new();
    for hash in [None, Some(russh::keys::HashAlg::Sha256)] {
        let config = Arc::new(client::Config::default());
        let mut handle = client::connect(config, scene.bastion.address(), Stubborn).await.unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.private().clone()), hash);
        proved.push(handle.authenticate_publickey(Scene::user(), key).await.is_ok_and(|result| result.success()));
    }

    assert_eq!(stock.code(), Some(255));
    assert!(stock.errors().contains("Permission denied"), "{}", stock.errors());
    assert_eq!(proved, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_certificate_of_a_trusted_authority_proves_whom_it_names() {
    let (ca, other_ca) = (KeyPair::ed25519(), KeyPair::ed25519());
    let file = ca.public_path();
    let ssh = vec![format!("user_ca_files = [\"{}\"]", file.display()), MANY_TRIES.to_owned()];
    let scene = Scene::with(Settings { ssh, ..Settings::default() }, &[]).await;
    let login = async |authority: &KeyPair, options: &[&str]| {
        let key = KeyPair::ed25519();
        authority.certify_by_ssh_keygen(&key, options);
        let desk = Workstation::new(&key);
        desk.trust(scene.bastion.address(), scene.bastion.host_key());
        let output = desk.ssh(&Scene::user(), scene.bastion.address()).arg("echo in").run().await;
        let refused = output.code() == Some(255) && output.errors().contains("Permission denied");
        assert!(refused || output.text() == "in\n", "{options:?}: {}", output.errors());
        !refused
    };
    let valid = ["-V", "-1m:+5m"];

    assert!(login(&ca, &[&valid, ["-n", "alice"].as_slice()].concat()).await);
    assert!(login(&ca, &[&valid, ["-n", "bob,alice"].as_slice()].concat()).await);
    assert!(login(&ca, &[&valid, ["-n", "alice", "-O", "source-address=127.0.0.0/8"].as_slice()].concat()).await);
    let refused: [(&str, &KeyPair, &[&str]); 9] = [
        ("another principal", &ca, &["-V", "-1m:+5m", "-n", "bob"]),
        ("no principal, which is any", &ca, &["-V", "-1m:+5m"]),
        ("another authority", &other_ca, &["-V", "-1m:+5m", "-n", "alice"]),
        ("expired", &ca, &["-V", "20200101:20200102", "-n", "alice"]),
        ("not valid yet", &ca, &["-V", "+5m:+10m", "-n", "alice"]),
        ("a host's", &ca, &["-V", "-1m:+5m", "-n", "alice", "-h"]),
        ("an option that nobody knows", &ca, &["-V", "-1m:+5m", "-n", "alice", "-O", "critical:unknown@example.com=1"]),
        ("a forced command", &ca, &["-V", "-1m:+5m", "-n", "alice", "-O", "force-command=date"]),
        ("another network", &ca, &["-V", "-1m:+5m", "-n", "alice", "-O", "source-address=192.0.2.0/24"]),
    ];
    for (what, authority, options) in refused {
        assert!(!login(authority, options).await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_does_not_let_a_disabled_or_unknown_person_in() {
    let ca = KeyPair::ed25519();
    let ssh = vec![format!("user_ca_files = [\"{}\"]", ca.public_path().display())];
    let scene = Scene::with(Settings { ssh, ..Settings::default() }, &[]).await;
    let key = KeyPair::ed25519();
    ca.certify_by_ssh_keygen(&key, &["-V", "-1m:+5m", "-n", "alice,mallory"]);
    let desk = Workstation::new(&key);
    desk.trust(scene.bastion.address(), scene.bastion.host_key());
    let login = async |person: &str| {
        let user = format!("{person}+{}@web-1", Sshd::login());
        desk.ssh(&user, scene.bastion.address()).arg("true").run().await.code()
    };

    assert_eq!(login("alice").await, Some(0));
    assert_eq!(login("mallory").await, Some(255));
    scene.bastion.admin(&["person", "disable", "alice"]).await;
    assert_eq!(login("alice").await, Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_logs_in_by_stock_clients() {
    let bastion = Bastion::start(Stores::Small, Settings::default()).await;
    let sshd = Sshd::start(&crate::support::sshd::Settings::default());
    std::fs::write(bastion.path("password"), "correct horse battery\n").unwrap();
    bastion.admin(&["person", "add", "alice", "--password-file", "password"]).await;
    bastion.add_target("web-1", &sshd).await;
    bastion.grant("alice", "web-1").await;
    let desk = Workstation::without_key();
    desk.trust(bastion.address(), bastion.host_key());
    let by_ssh = async |password: &str| {
        let ssh = desk.ssh(&Scene::user(), bastion.address());
        // Options go before the destination, so the command comes last.
        ssh.password(password).option("NumberOfPasswordPrompts=1").arg("echo in").run().await
    };

    assert_eq!(by_ssh("correct horse battery").await.expect_success().text(), "in\n");
    assert_eq!(by_ssh("correct horse batter").await.code(), Some(255));
    for script in ["paramiko_login.py", "asyncssh_login.py"] {
        let proof = ["password", "correct horse battery"];
        let run = python_login(&desk, script, &bastion, &Scene::user(), proof, "echo in").run().await;
        assert_eq!(run.expect_success().text(), "in\n", "{script}");
    }
}
