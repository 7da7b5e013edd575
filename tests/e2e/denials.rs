//! What a refused engineer sees: before authentication nothing that tells one reason from another, in words or in time; after
//! it the reason, the next window and a reference under which the books hold the whole of it.

use std::time::Duration;

use crate::bastion::{Scene, Settings};
use crate::second_factors::Authenticator;
use crate::support::clients::{Output, Workstation};
use crate::support::eventually;
use crate::support::keys::KeyPair;
use crate::support::sshd::Sshd;

/// How often each stranger knocks; the median is compared.
const ROUNDS: usize = 7;

fn many_tries() -> Settings {
    let ssh = vec!["failures_per_address = { limit = 1000, window = \"10m\" }".to_owned()];
    Settings { ssh, ..Settings::default() }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_nothing_from_words_or_time() {
    let scene = Scene::with(many_tries(), &[]).await;
    let (stranger, disabled) = (KeyPair::ed25519(), KeyPair::ed25519());
    std::fs::write(scene.bastion.path("password"), "correct horse battery\n").unwrap();
    scene.bastion.admin(&["person", "password", "alice", "--password-file", "password"]).await;
    scene.bastion.add_person("bob", &KeyPair::ed25519()).await; // has no password
    scene.bastion.add_person("carol", &disabled).await;
    scene.bastion.admin(&["person", "password", "carol", "--password-file", "password"]).await;
    scene.bastion.admin(&["person", "disable", "carol"]).await;
    scene.bastion.add_person("dora", &KeyPair::ed25519()).await; // has a second factor
    scene.bastion.admin(&["person", "password", "dora", "--password-file", "password"]).await;
    Authenticator::enrol(&scene.bastion, "dora").await;
    let desk = |key: &KeyPair| {
        let desk = Workstation::new(key);
        desk.trust(scene.bastion.address(), scene.bastion.host_key());
        desk
    };
    let (strangers, carols) = (desk(&stranger), desk(&disabled));
    let knock = async |desk: &Workstation, person: &str, password: Option<&str>| {
        let user = format!("{person}+{}@web-1", Sshd::login());
        let mut ssh = desk.ssh(&user, scene.bastion.address());
        if let Some(password) = password {
            let only = ["PubkeyAuthentication=no", "NumberOfPasswordPrompts=1"];
            ssh = only.iter().fold(ssh.password(password), |ssh, option| ssh.option(option));
        }
        let output = ssh.arg("true").run().await;
        assert_eq!(output.code(), Some(255), "{person}: {}", output.errors());
        (output.errors().replace(person, "PERSON"), output.took)
    };
    let by_key = [(&strangers, "nobody"), (&strangers, "alice"), (&carols, "carol"), (&strangers, "dora")];
    let by_password =
        [("nobody", "x"), ("alice", "x"), ("bob", "x"), ("carol", "correct horse battery"), ("dora", "x")];

    let mut words = Vec::new();
    let (mut key_times, mut password_times) = (vec![Vec::new(); by_key.len()], vec![Vec::new(); by_password.len()]);
    for _ in 0..ROUNDS {
        for ((desk, person), times) in by_key.iter().zip(&mut key_times) {
            let (said, took) = knock(desk, person, None).await;
            words.push(said);
            times.push(took);
        }
        for ((person, password), times) in by_password.iter().zip(&mut password_times) {
            let (said, took) = knock(&strangers, person, Some(password)).await;
            words.push(said);
            times.push(took);
        }
    }

    words.sort();
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
    for times in [key_times, password_times] {
        let medians: Vec<Duration> = times.iter().map(|times| median(times)).collect();
        let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
        assert!(*most < *least * 3 / 2 + Duration::from_millis(30), "{medians:?}");
    }
}

/// The reference that an engineer was told, which the audit log must know.
async fn expect_reference(scene: &Scene, output: &Output) {
    let errors = output.errors();
    let reference = errors.lines().find_map(|line| line.strip_prefix("sallyport: reference "));
    let reference = reference.unwrap_or_else(|| panic!("no reference: {errors}")).trim();
    let events = scene.bastion.admin(&["audit", "ls", "--json"]).await;
    assert!(events.contains(reference), "{reference} is not in {events}");
}

/// A login that is authenticated and then refused.
async fn refused(scene: &Scene, user: &str, expected: &[&str]) {
    let output = scene.desk.ssh(user, scene.bastion.address()).arg("echo in").run().await;
    let errors = output.errors();
    assert_eq!((output.code(), output.text().as_str()), (Some(254), ""), "{errors}");
    for text in expected {
        assert!(errors.contains(text), "{text:?} is not in {errors}");
    }
    expect_reference(scene, &output).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engineer_is_told_why_and_when_and_a_reference() {
    let scene = Scene::open().await;
    let bastion = &scene.bastion;
    let login = Sshd::login();
    for target in ["web-2", "web-3", "web-4", "web-5"] {
        bastion.add_target(target, &scene.sshd).await;
    }
    bastion.grant_with("alice", "web-2", &["--for", "1s"]).await;
    bastion.grant_with("alice", "web-3", &["--from", "2999-01-01T10:00:00Z", "--until", "2999-01-01T12:00:00Z"]).await;
    bastion.grant_with("alice", "web-4", &["--for", "1s"]).await;
    bastion.grant_with("alice", "web-4", &["--from", "2998-05-06T07:08:00Z", "--until", "2998-05-07T00:00:00Z"]).await;
    eventually("the short grants have ended", async || {
        let ended = bastion.ask(&["grant", "ls", "--state", "ended"]).await;
        ended["items"].as_array().is_some_and(|grants| grants.len() == 2)
    })
    .await;
    let user = |target: &str| format!("alice+{login}@{target}");

    refused(&scene, &user("web-2"), &["access denied: your access ended at "]).await;
    let opens = "your access starts at 2999-01-01 10:00 UTC";
    refused(&scene, &user("web-3"), &[opens, "try again at 2999-01-01 10:00 UTC"]).await;
    refused(&scene, &user("web-4"), &["try again at 2998-05-06 07:08 UTC"]).await;
    refused(&scene, &user("web-5"), &["no grant for this target", "ask an admin"]).await;
    refused(&scene, &user("web-99"), &["access denied: ", "ask an admin"]).await;
    refused(&scene, "alice+operator@web-1", &["access denied: ", "ask an admin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_and_a_capability_that_was_not_granted_are_told() {
    let scene = Scene::open().await;
    let bastion = &scene.bastion;
    for target in ["web-2", "web-3"] {
        bastion.add_target(target, &scene.sshd).await;
    }
    bastion.admin(&["grant", "new", "alice", "web-2", "--for", "1h", "--reason", "e2e", "--allow", "shell"]).await;
    let grant = bastion.ask(&["grant", "new", "alice", "web-3", "--for", "1h", "--reason", "e2e"]).await;
    let id = grant["id"].as_str().unwrap_or_else(|| panic!("{grant:#}")).to_owned();
    bastion.admin(&["grant", "revoke", &id, "--reason", "done"]).await;
    let user = |target: &str| format!("alice+{}@{target}", Sshd::login());

    refused(&scene, &user("web-2"), &["access denied: the grant does not allow running commands"]).await;
    refused(&scene, &user("web-3"), &["access denied: your access was taken back at "]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_does_not_say_where_to_goes_where_it_may_or_is_shown_the_choice() {
    let scene = Scene::open().await;
    let login = Sshd::login();

    let only = scene.desk.ssh("alice", scene.bastion.address()).arg("echo in").run().await.expect_success();
    let target = scene.desk.ssh("alice+web-1", scene.bastion.address()).arg("echo in").run().await.expect_success();
    scene.bastion.add_target("web-2", &scene.sshd).await;
    scene.bastion.grant("alice", "web-2").await;
    let unclear = scene.desk.ssh("alice", scene.bastion.address()).arg("echo in").run().await;

    assert_eq!((only.text().as_str(), target.text().as_str()), ("in\n", "in\n"));
    assert_eq!(unclear.code(), Some(254));
    for choice in [format!("alice+{login}@web-1"), format!("alice+{login}@web-2")] {
        assert!(unclear.errors().contains(&choice), "{}", unclear.errors());
    }
}
