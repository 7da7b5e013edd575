//! How the bastion proves itself to targets, and how they prove themselves to it. The engineer sees neither.

use std::process::Stdio;
use std::time::Duration;

use russh::keys::ssh_key::EcdsaCurve;
use russh::keys::{Algorithm, HashAlg};
use sallyport::toy_target::{self, ToyTarget};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::bastion::{Bastion, Scene, Settings, Stores};
use crate::clients::venv;
use crate::support::clients::{Output, Workstation};
use crate::support::keys::KeyPair;
use crate::support::sshd::{Settings as SshdSettings, Sshd};

/// A bastion on the small stores, and Alice with a grant for every target.
struct Gate {
    bastion: Bastion,
    desk: Workstation,
    _key: KeyPair,
}

impl Gate {
    async fn open() -> Self {
        let bastion = Bastion::start(Stores::Small, Settings::default()).await;
        let key = KeyPair::ed25519();
        bastion.add_person("alice", &key).await;
        let desk = Workstation::new(&key);
        desk.trust(bastion.address(), bastion.host_key());
        Self { bastion, desk, _key: key }
    }

    /// Adds a target by this address with these options, for the login that OpenSSH's server takes.
    async fn add(&self, name: &str, address: &str, options: &[&str]) {
        let usual = ["target", "add", name, address, "--login", &Sshd::login()];
        self.bastion.admin(&[&usual, options].concat()).await;
        self.bastion.grant("alice", name).await;
    }

    async fn run(&self, target: &str) -> Output {
        let user = format!("alice+{}@{target}", Sshd::login());
        self.desk.ssh(&user, self.bastion.address()).arg("echo in").run().await
    }

    async fn expect_in(&self, target: &str) {
        assert_eq!(self.run(target).await.expect_success().text(), "in\n", "{target}");
    }

    /// A login that the engineer is told about: status 254 and why.
    async fn expect_refused(&self, target: &str, why: &[&str]) {
        let output = self.run(target).await;
        let errors = output.errors();
        assert_eq!((output.code(), output.text().as_str()), (Some(254), ""), "{errors}");
        for text in why {
            assert!(errors.contains(text), "{text:?} is not in {errors}");
        }
    }
}

fn line(key: &russh::keys::PublicKey) -> String {
    key.to_openssh().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_own_log_names_the_session() {
    let scene = Scene::open().await;

    scene.ssh().arg("true").run().await.expect_success();

    let id = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let log = scene.sshd.log();
    let accepted = log.lines().find(|line| line.contains("Accepted publickey")).unwrap_or_else(|| panic!("{log}"));
    assert!(accepted.contains("ED25519-CERT") && accepted.contains(&format!("ID {id} ")), "{accepted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_of_any_kind_opens_the_target() {
    let gate = Gate::open().await;

    for kind in [["-t", "ed25519", "-b", "256"], ["-t", "ecdsa", "-b", "384"], ["-t", "rsa", "-b", "3072"]] {
        let stored = KeyPair::by_ssh_keygen(&kind);
        let sshd = Sshd::start(&SshdSettings { authorized_keys: vec![stored.public()], ..SshdSettings::default() });
        let credential = format!("key:{}", stored.path().display());
        let name = format!("by-{}", kind[1]);
        let host_key = line(sshd.host_key());
        let options = ["--host-key", &host_key, "--credential", &credential];
        gate.add(&name, &sshd.address().to_string(), &options).await;
        gate.expect_in(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_the_target_does_not_take_is_named() {
    let gate = Gate::open().await;
    let stored = KeyPair::ed25519();
    let sshd = Sshd::start(&SshdSettings::default());
    let (credential, host_key) = (format!("key:{}", stored.path().display()), line(sshd.host_key()));

    gate.add("web-1", &sshd.address().to_string(), &["--host-key", &host_key, "--credential", &credential]).await;

    gate.expect_refused("web-1", &["target `web-1` did not accept the bastion's credential for"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_password_opens_the_target() {
    let gate = Gate::open().await;
    let settings =
        toy_target::Settings { password: Some("open, sesame".to_owned()), ..toy_target::Settings::default() };
    let toy = ToyTarget::start(settings).await.unwrap();
    std::fs::write(gate.bastion.path("right"), "open, sesame\n").unwrap();
    std::fs::write(gate.bastion.path("wrong"), "open, barley\n").unwrap();
    let (address, host_key) = (toy.address().to_string(), line(toy.host_key()));

    for (name, password) in [("right", "right"), ("wrong", "wrong")] {
        let options = ["--host-key", &host_key, "--credential", "password", "--password-file", password];
        gate.add(name, &address, &options).await;
    }

    gate.expect_in("right").await;
    gate.expect_refused("wrong", &["target `wrong` did not accept the bastion's credential"]).await;
    toy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_prompts_for_its_password_is_answered() {
    let gate = Gate::open().await;
    let script = format!("{}/tests/e2e/keyboard_interactive_server.py", env!("CARGO_MANIFEST_DIR"));
    let mut server = Command::new(venv("python"));
    server.args([&script, "open, sesame"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut server = server.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).await.unwrap();
    let (port, host_key) = said.trim().split_once(' ').unwrap();
    std::fs::write(gate.bastion.path("password"), "open, sesame\n").unwrap();

    let options = ["--host-key", host_key, "--credential", "password", "--password-file", "password"];
    gate.add("web-1", &format!("127.0.0.1:{port}"), &options).await;

    assert_eq!(gate.run("web-1").await.expect_success().text(), "in by prompt: echo in\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_another_host_key_is_refused_and_named_until_it_is_pinned_anew() {
    let gate = Gate::open().await;
    let sshd = Sshd::start(&SshdSettings::default());
    sshd.trust_user_ca(&gate.bastion.admin(&["ca", "user"]).await);
    let (other, right) = (line(KeyPair::ed25519().public()), line(sshd.host_key()));
    gate.add("web-1", &sshd.address().to_string(), &["--host-key", &other]).await;

    let offered = sshd.host_key().fingerprint(HashAlg::Sha256).to_string();
    gate.expect_refused("web-1", &["target `web-1` offers host key", &offered, "not the one that is pinned"]).await;
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());

    gate.bastion.admin(&["target", "repin", "web-1", "--host-key", &right]).await;
    gate.expect_in("web-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_there_is_named() {
    let gate = Gate::open().await;
    let mut sshd = Sshd::start(&SshdSettings::default());
    gate.add("web-1", &sshd.address().to_string(), &["--host-key", &line(sshd.host_key())]).await;
    sshd.stop();

    gate.expect_refused("web-1", &["cannot reach target `web-1`"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_authority_vouches_for_targets_by_name() {
    let gate = Gate::open().await;
    let (ca, other_ca) = (KeyPair::ed25519(), KeyPair::ed25519());
    let host = KeyPair::new(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
    host.keep(&ca.certify_host(host.public(), &["web-1", "web-3"], Duration::from_mins(5)));
    let certificate = host.path().with_file_name("id-cert.pub");
    let lines =
        vec![format!("HostKey {}", host.path().display()), format!("HostCertificate {}", certificate.display())];
    let sshd = Sshd::start(&SshdSettings { lines, ..SshdSettings::default() });
    sshd.trust_user_ca(&gate.bastion.admin(&["ca", "user"]).await);
    let address = sshd.address().to_string();

    gate.add("web-1", &address, &["--host-authority", &line(ca.public())]).await;
    gate.add("web-2", &address, &["--host-authority", &line(ca.public())]).await;
    gate.add("web-3", &address, &["--host-authority", &line(other_ca.public())]).await;

    gate.expect_in("web-1").await;
    gate.expect_refused("web-2", &["target `web-2` offers host key"]).await;
    gate.expect_refused("web-3", &["target `web-3` offers host key"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_reached_through_another() {
    let gate = Gate::open().await;
    let (outer, inner) = (Sshd::start(&SshdSettings::default()), Sshd::start(&SshdSettings::default()));
    let user_ca = gate.bastion.admin(&["ca", "user"]).await;
    outer.trust_user_ca(&user_ca);
    inner.trust_user_ca(&user_ca);
    gate.add("outer", &outer.address().to_string(), &["--host-key", &line(outer.host_key())]).await;
    let inner_key = line(inner.host_key());
    gate.add("inner", &inner.address().to_string(), &["--host-key", &inner_key, "--jump", "outer"]).await;

    gate.expect_in("inner").await;

    let id = gate.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    for sshd in [&outer, &inner] {
        assert!(sshd.log().contains(&format!("ID {id} ")), "{}", sshd.log());
    }
}
