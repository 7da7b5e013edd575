//! Keys are replaced while everything goes on: those that the bastion logs in to targets with, and its own.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bastion::{Bastion, Settings, Stores};
use crate::support::clients::Workstation;
use crate::support::keys::KeyPair;
use crate::support::sshd::{Settings as SshdSettings, Sshd};

/// A bastion with a target `web-1` to which it logs in with a stored key; each command there goes through a script that can be made to fail.
struct Scene {
    bastion: Bastion,
    sshd: Sshd,
    desk: Workstation,
    stored: KeyPair,
    _key: KeyPair,
    folder: tempfile::TempDir,
}

/// What the target does with the next scripts.
#[derive(Clone, Copy)]
enum Fault {
    /// Runs them.
    None,
    /// Fails the first, second, … one without doing anything.
    Fails(u32),
    /// Never begins it.
    HangsBefore(u32),
    /// Does it, and never says so.
    HangsAfter(u32),
}

impl Scene {
    async fn open() -> Self {
        let folder = crate::support::temporary_folder();
        let (stored, key) = (KeyPair::ed25519(), KeyPair::ed25519());
        let line = stored.public().to_openssh().unwrap();
        std::fs::write(folder.path().join("keys"), format!("no-agent-forwarding {line}\n")).unwrap();
        let sshd = Self::sshd(folder.path());
        let bastion = Bastion::start(Stores::Small, Settings::default()).await;
        bastion.add_person("alice", &key).await;
        let credential = format!("key:{}", stored.path().display());
        bastion.add_target_with("web-1", &sshd, &["--credential", &credential]).await;
        bastion.grant("alice", "web-1").await;
        let desk = Workstation::new(&key);
        desk.trust(bastion.address(), bastion.host_key());
        let scene = Self { bastion, sshd, desk, stored, _key: key, folder };
        scene.fault(Fault::None);
        scene
    }

    /// A server whose accounts' keys are in `folder`, and which runs what it is asked for through a script there.
    fn sshd(folder: &Path) -> Sshd {
        use std::os::unix::fs::PermissionsExt as _;
        let script = folder.join("run");
        let text = format!(
            "#!/bin/sh\ncd '{}' || exit 1\n\
             case $SSH_ORIGINAL_COMMAND in 'sh -s') ;; *) exec sh -c \"$SSH_ORIGINAL_COMMAND\" ;; esac\n\
             n=$(($(cat count) + 1)); echo $n > count\n\
             case $(cat fault) in\n\
             \"fails $n\") exit 1 ;;\n\
             \"before $n\") touch reached; exec sleep 600 ;;\n\
             \"after $n\") sh -s > /dev/null; touch reached; exec sleep 600 ;;\n\
             esac\nexec sh -s\n",
            folder.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let lines = vec![
            format!("AuthorizedKeysFile {}", folder.join("keys").display()),
            format!("ForceCommand {}", script.display()),
        ];
        Sshd::start(&SshdSettings { lines, ..SshdSettings::default() })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn keys(&self) -> String {
        std::fs::read_to_string(self.file("keys")).unwrap()
    }

    fn has_old(&self) -> bool {
        self.keys().contains(&self.stored.public().to_openssh().unwrap())
    }

    fn fault(&self, fault: Fault) {
        let text = match fault {
            Fault::None => "none".to_owned(),
            Fault::Fails(n) => format!("fails {n}"),
            Fault::HangsBefore(n) => format!("before {n}"),
            Fault::HangsAfter(n) => format!("after {n}"),
        };
        std::fs::write(self.file("fault"), text).unwrap();
        std::fs::write(self.file("count"), "0").unwrap();
        let _ = std::fs::remove_file(self.file("reached"));
    }

    /// `target rotate`: whether it succeeded, and what it printed.
    async fn rotate_in(&self, file: &Path) -> (bool, Value) {
        let file = file.to_str().unwrap();
        let arguments = ["target", "rotate", "web-1", "--authorized-keys", file, "--json"];
        let output = self.bastion.try_admin(&arguments).await;
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.success(), told["items"][0].clone())
    }

    async fn rotate(&self) -> (bool, Value) {
        self.rotate_in(&self.file("keys")).await
    }

    async fn expect_rotated(&self) -> String {
        let (done, told) = self.rotate().await;
        assert!(done, "{told} {}", self.bastion.log());
        assert!(!self.has_old(), "{}", self.keys());
        assert_eq!(self.keys().lines().count(), 1);
        self.expect_in().await;
        told["key"].as_str().unwrap().to_owned()
    }

    /// The target lets Alice in through the bastion, whatever it is that the bastion has.
    async fn expect_in(&self) {
        let user = format!("alice+{}@web-1", Sshd::login());
        let output = self.desk.ssh(&user, self.bastion.address()).arg("echo in").run().await;
        assert_eq!(output.expect_success().text(), "in\n");
    }

    /// The steps in the books, the failed ones with a `!`.
    async fn steps(&self) -> Vec<String> {
        let listed = self.bastion.ask(&["audit", "ls", "--act", "credential_rotation"]).await;
        let mut items = listed["items"].as_array().unwrap().clone();
        items.sort_by_key(|event| event["seq"].as_u64());
        let step = |event: &Value| {
            let act = &event["act"];
            let failed = if act["error"].is_null() { "" } else { "!" };
            format!("{}{failed}", act["step"].as_str().unwrap())
        };
        items.iter().map(step).collect()
    }
}

const ALL: [&str; 6] = ["begun", "installed", "proved", "switched", "removed", "dead"];

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_is_replaced_and_the_old_one_opens_nothing() {
    let scene = Scene::open().await;
    scene.expect_in().await;

    let first = scene.expect_rotated().await;
    assert_eq!(scene.steps().await, ALL);
    let second = scene.expect_rotated().await;

    assert_ne!(first, second);
    assert!(scene.keys().starts_with("no-agent-forwarding ssh-ed25519 "), "{}", scene.keys());
    assert!(scene.sshd.log().contains(&second), "{}", scene.sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_step_leaves_a_key_that_works_and_the_next_run_mends_it() {
    let scene = Scene::open().await;
    let elsewhere = scene.file("elsewhere");
    std::fs::copy(scene.file("keys"), &elsewhere).unwrap();

    // Installing: a file that is not there, a target that fails.
    let (done, told) = scene.rotate_in(&scene.file("nowhere")).await;
    assert!(!done && told["error"].as_str().unwrap().contains("there is no"), "{told}");
    scene.fault(Fault::Fails(1));
    assert!(!scene.rotate().await.0);
    scene.expect_in().await;
    // Proving: the key came into a file that the server does not read.
    scene.fault(Fault::None);
    let (done, told) = scene.rotate_in(&elsewhere).await;
    assert!(!done && told["error"].as_str().unwrap().contains("with the new key"), "{told}");
    assert!(scene.has_old());
    scene.expect_in().await;
    // Removing.
    scene.fault(Fault::Fails(2));
    let (done, told) = scene.rotate().await;
    assert!(!done && told["error"].as_str().unwrap().contains("the old one was not removed"), "{told}");
    assert!(scene.has_old());
    scene.expect_in().await;
    assert_eq!(
        scene.steps().await,
        ["begun", "installed!", "installed!", "installed", "proved!", "installed", "proved", "switched", "removed!"]
    );

    scene.fault(Fault::None);
    scene.expect_rotated().await;
    assert_eq!(scene.steps().await.iter().filter(|step| *step == "begun").count(), 1, "one new key in all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_dies_between_any_two_steps_goes_on_after_its_start() {
    for fault in [Fault::HangsBefore(1), Fault::HangsAfter(1), Fault::HangsBefore(2), Fault::HangsAfter(2)] {
        let mut scene = Scene::open().await;
        scene.fault(fault);
        {
            let rotating = scene.rotate();
            tokio::pin!(rotating);
            let reached = scene.file("reached");
            let reached = crate::support::eventually("the target is at it", async || reached.exists());
            tokio::select! {
                () = reached => {}
                (_, told) = &mut rotating => panic!("{told}"),
            }
        }
        scene.bastion.kill();
        scene.fault(Fault::None);
        scene.bastion.open().await;

        scene.expect_in().await;
        scene.expect_rotated().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_goes_away_after_the_new_key_was_installed_gets_no_second_one() {
    let mut scene = Scene::open().await;
    scene.fault(Fault::HangsAfter(1));
    let (done, told) = scene.rotate().await;
    assert!(!done, "{told}");
    scene.sshd.stop();
    let (done, told) = scene.rotate().await;
    assert!(!done && told["error"].as_str().unwrap().contains("cannot reach target"), "{told}");
    assert_eq!(scene.keys().lines().count(), 2, "both are taken");

    // It is back, elsewhere.
    scene.fault(Fault::None);
    scene.sshd = Scene::sshd(scene.folder.path());
    scene.fault(Fault::None);
    let (address, key) = (scene.sshd.address().to_string(), scene.sshd.host_key().to_openssh().unwrap());
    scene.bastion.admin(&["target", "set", "web-1", "--address", &address]).await;
    scene.bastion.admin(&["target", "repin", "web-1", "--host-key", &key]).await;
    scene.expect_rotated().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_key_that_opens_the_account_by_another_way_is_told_of_until_it_does_not() {
    let folder = crate::support::temporary_folder();
    let stored = KeyPair::ed25519();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    for file in [&first, &second] {
        std::fs::write(file, stored.public().to_openssh().unwrap() + "\n").unwrap();
    }
    let lines = vec![format!("AuthorizedKeysFile {} {}", first.display(), second.display())];
    let sshd = Sshd::start(&SshdSettings { lines, ..SshdSettings::default() });
    let bastion = Bastion::start(Stores::Small, Settings::default()).await;
    let credential = format!("key:{}", stored.path().display());
    bastion.add_target_with("web-1", &sshd, &["--credential", &credential]).await;
    let rotate = ["target", "rotate", "web-1", "--authorized-keys", first.to_str().unwrap()];

    let output = bastion.try_admin(&rotate).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && said.contains("the old key still opens"), "{said}");
    std::fs::write(&second, "").unwrap();
    bastion.admin(&rotate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_is_set_by_command_and_taken_back() {
    let scene = Scene::open().await;
    let (login, file) = (Sshd::login(), scene.file("keys"));
    let usual = ["target", "rotate", "web-1", "--login", &login, "--authorized-keys", file.to_str().unwrap()];
    let refused = scene.bastion.try_admin(&[&usual[..], &["--every", "1s"]].concat()).await;
    assert!(!refused.status.success());

    scene.bastion.admin(&[&usual[..], &["--every", "60s"]].concat()).await;
    scene.bastion.admin(&[&usual[..], &["--never"]].concat()).await;
    let again = scene.bastion.try_admin(&[&usual[..], &["--never"]].concat()).await;
    assert!(!again.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bastions_own_keys_are_replaced_under_a_session_that_goes_on() {
    let scene = crate::bastion::Scene::open().await;
    let master = crate::bastion::Master::open(&scene).await;
    let fingerprint = scene.bastion.admin(&["evidence", "key"]).await.trim().to_owned();
    master.ssh(&scene).arg("true").run().await.expect_success();

    scene.bastion.admin(&["key", "rotate", "ledger"]).await;
    let next = scene.bastion.data().join("master.key.next");
    scene.bastion.admin(&["key", "new-master", next.to_str().unwrap()]).await;
    crate::support::eventually("the next master key is loaded", async || {
        scene.bastion.admin(&["key", "ls"]).await.contains("loaded")
    })
    .await;
    scene.bastion.admin(&["key", "rotate", "master"]).await;
    scene.bastion.admin(&["key", "rotate", "user-ca", "--stage"]).await;
    let both = scene.bastion.admin(&["ca", "user"]).await;
    assert_eq!(both.lines().count(), 2, "{both}");
    scene.sshd.trust_user_ca(&both);
    scene.bastion.admin(&["key", "rotate", "user-ca", "--activate", "--yes"]).await;
    scene.bastion.admin(&["key", "rotate", "host-ca", "--stage"]).await;
    let lines = scene.bastion.admin(&["known-hosts"]).await;
    assert_eq!(lines.matches("@cert-authority").count(), 2, "{lines}");

    // The session that was there, and a new one, by the new authority.
    master.ssh(&scene).arg("true").run().await.expect_success();
    let new_ca = both.lines().last().unwrap().to_owned();
    scene.sshd.trust_only_user_ca(&new_ca);
    crate::support::eventually("the new authority signs", async || {
        scene.ssh().arg("true").run().await.code() == Some(0)
    })
    .await;
    scene.bastion.admin(&["key", "rotate", "user-ca", "--retire"]).await;
    assert_eq!(scene.bastion.admin(&["ca", "user"]).await.trim(), new_ca.trim());

    let listed = scene.bastion.admin(&["key", "ls"]).await;
    for purpose in ["ledger", "master", "user_ca"] {
        let retired = listed.lines().any(|line| line.contains(purpose) && line.contains("retired"));
        assert!(retired, "{purpose}: {listed}");
    }
    let grant = scene.bastion.ask(&["grant", "ls"]).await["items"][0]["id"].as_str().unwrap().to_owned();
    scene.bastion.admin(&["evidence", "make", &grant, "--file", "bundle.zip"]).await;
    scene.bastion.admin(&["evidence", "verify", "bundle.zip", "--key", &fingerprint]).await;
}
