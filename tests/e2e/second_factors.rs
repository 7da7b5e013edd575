//! Logins that take two factors, by stock clients: the key, certificate or password first, then a code that changes with time
//! (RFC 6238), asked for by keyboard-interactive (RFC 4256).

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use russh::client::{self, AuthResult, KeyboardInteractiveAuthResponse as Reply};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet};
use serde_json::Value;
use totp_rs::{Builder, Secret};

use crate::bastion::{Bastion, SALLYPORT, Scene, Settings, Stores};
use crate::clients::python_login;
use crate::keys::Stubborn;
use crate::support::clients::{Output, Run, Workstation};
use crate::support::eventually;
use crate::support::keys::KeyPair;
use crate::support::sshd::Sshd;

/// Many logins of these tests fail on purpose.
pub const MANY_TRIES: &str = "failures_per_address = { limit = 1000, window = \"10m\" }";
pub const PASSWORD: &str = "correct horse battery";

/// What a person carries: it shows codes. It never shows the same one twice, for the bastion takes none twice.
pub struct Authenticator {
    secret: Secret,
    last_step: i64,
    pub recovery_codes: Vec<String>,
}

impl Authenticator {
    /// Enrols a person with the bastion.
    pub async fn enrol(bastion: &Bastion, person: &str) -> Self {
        let begun = bastion.ask(&["person", "totp", "enrol", person]).await;
        let secret = Secret::try_from_base32(begun["secret"].as_str().unwrap()).unwrap();
        // By the code of the step before, which the drift allows, so that the present one is left for a login.
        let now = Utc::now();
        let (mut authenticator, before) = (Self { secret, last_step: 0, recovery_codes: vec![] }, -1);
        let code = authenticator.code_at(now, before);
        let confirmed = bastion.ask(&["person", "totp", "confirm", &code, person]).await;
        authenticator.last_step = now.timestamp() / 30 + before;
        authenticator.recovery_codes = confirmed["recovery_codes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_str().unwrap().to_owned())
            .collect();
        authenticator
    }

    /// The code of so many steps after `at`.
    pub fn code_at(&self, at: DateTime<Utc>, steps: i64) -> String {
        let at = at + TimeDelta::seconds(30 * steps);
        let totp = Builder::new().with_secret(self.secret.as_bytes()).build().unwrap();
        totp.generate(u64::try_from(at.timestamp()).unwrap()).to_string()
    }

    /// A code that the bastion takes now: of the present step, or of the next if that was shown before. There are two at
    /// most; after these it takes 30 s.
    pub fn code(&mut self) -> String {
        let now = Utc::now();
        let step = (now.timestamp() / 30).max(self.last_step + 1);
        assert!(step <= now.timestamp() / 30 + 1, "the test asks for codes faster than they come");
        self.last_step = step;
        self.code_at(now, step - now.timestamp() / 30)
    }
}

async fn scene() -> Scene {
    let settings = Settings { ssh: vec![MANY_TRIES.to_owned()], ..Settings::default() };
    Scene::on(Stores::Small, settings, &[]).await
}

impl Scene {
    /// `ssh` by key, with these answers.
    fn ssh_with(&self, answers: &[(&str, &str)]) -> Run {
        self.ssh().answers(answers).option("NumberOfPasswordPrompts=1").arg("echo in")
    }

    /// `ssh` by these methods only, with these answers.
    fn ssh_by(&self, methods: &str, answers: &[(&str, &str)]) -> Run {
        let ssh = self.ssh().answers(answers).option("NumberOfPasswordPrompts=1");
        ssh.option(&format!("PreferredAuthentications={methods}")).arg("echo in")
    }

    async fn set_password(&self) {
        std::fs::write(self.bastion.path("password"), format!("{PASSWORD}\n")).unwrap();
        self.bastion.admin(&["person", "password", "alice", "--password-file", "password"]).await;
    }

    pub async fn events(&self, act: &str) -> Vec<Value> {
        let all = self.bastion.ask(&["audit", "ls", "--act", act]).await;
        all["items"].as_array().unwrap().clone()
    }
}

#[track_caller]
fn expect_in(output: &Output) {
    assert_eq!((output.code(), output.text().as_str()), (Some(0), "in\n"), "{}", output.errors());
}

#[track_caller]
fn expect_out(output: &Output) {
    assert_eq!((output.code(), output.text().as_str()), (Some(255), ""), "{}", output.errors());
    assert!(output.errors().contains("Permission denied"), "{}", output.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_takes_a_code_besides_once_its_owner_is_enrolled_and_no_code_opens_twice() {
    let scene = Scene::with(Settings { ssh: vec![MANY_TRIES.to_owned()], ..Settings::default() }, &[]).await;
    scene.ssh().arg("true").run().await.expect_success(); // not enrolled yet: the key is enough
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;

    let without = scene.ssh().arg("true").run().await;
    let code = authenticator.code();
    let first = scene.ssh_with(&[("Verification code:", &code)]).run().await;
    let asked = scene.desk.asked();
    let again = scene.ssh_with(&[("Verification code:", &code)]).run().await;
    let next = scene.ssh_with(&[("Verification code:", &authenticator.code())]).run().await;

    expect_out(&without);
    expect_in(&first);
    assert!(matches!(asked.as_slice(), [one] if one.ends_with("Verification code: ")), "{asked:?}");
    expect_out(&again);
    expect_in(&next);
    let logins = scene.events("logged_in").await;
    let methods: Vec<&str> = logins.iter().map(|event| event["act"]["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["publickey", "publickey+totp", "publickey+totp"]);
    eventually("both refusals are in the books", async || {
        let refused = scene.events("login_refused").await;
        refused.len() == 2
            && refused.iter().all(|event| event["act"]["method"] == "publickey without the second factor")
    })
    .await;
    let log = scene.bastion.log();
    assert!(!log.contains(&code), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_takes_a_code_besides_by_either_method() {
    let scene = scene().await;
    scene.set_password().await;
    let plain = scene.ssh_by("keyboard-interactive", &[("Password:", PASSWORD)]).run().await;
    expect_in(&plain); // many clients know this method only
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;

    for methods in ["password,keyboard-interactive", "keyboard-interactive"] {
        let code = authenticator.code();
        let answers = [("assword:", PASSWORD), ("Verification code:", code.as_str())];
        expect_in(&scene.ssh_by(methods, &answers).run().await);
        assert_eq!(scene.desk.asked().len(), 2, "{methods}: {:?}", scene.desk.asked());
    }
    for methods in ["password", "password,keyboard-interactive", "keyboard-interactive"] {
        let answers = [("assword:", PASSWORD), ("Verification code:", "000000")];
        expect_out(&scene.ssh_by(methods, &answers).run().await);
    }
    let wrong = [("assword:", "open, sesame"), ("Verification code:", "000000")];
    expect_out(&scene.ssh_by("keyboard-interactive", &wrong).run().await);
    assert_eq!(scene.desk.asked().len(), 1, "no code is asked for before the password is right");
    let logins = scene.events("logged_in").await;
    let methods: Vec<&str> = logins.iter().map(|event| event["act"]["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["password", "password+totp", "password+totp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_may_be_a_step_off_and_a_wrong_one_can_be_mended_in_the_same_login() {
    let scene = scene().await;
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    let now = Utc::now();

    let old = scene.ssh_with(&[("Verification code:", &authenticator.code_at(now, -3))]).run().await;
    let early = scene.ssh_with(&[("Verification code:", &authenticator.code_at(now, 3))]).run().await;
    let code = authenticator.code();
    let mended = scene.ssh().answers(&[("Verification code:", "123 45"), ("Verification code:", &code)]);
    let mended = mended.option("LogLevel=INFO").arg("echo in").run().await;
    let ahead = scene.ssh_with(&[("Verification code:", &authenticator.code())]).run().await;

    expect_out(&old);
    expect_out(&early);
    expect_in(&mended);
    expect_in(&ahead);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_codes_lock_the_factor_and_the_right_one_is_told_so() {
    let scene = scene().await;
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    for _ in 0..5 {
        expect_out(&scene.ssh_with(&[("Verification code:", "abcdef")]).run().await);
    }

    let code = authenticator.code();
    let right = scene.ssh().answers(&[("Verification code:", &code)]).option("LogLevel=INFO");
    let right = right.option("NumberOfPasswordPrompts=2").arg("echo in").run().await;

    expect_out(&right);
    assert_eq!(scene.events("second_factor_locked").await.len(), 1);
    assert!(right.errors().contains("Too many wrong codes. None is taken until"), "{}", right.errors());
    scene.bastion.admin(&["person", "totp", "reset", "alice"]).await;
    expect_in(&scene.ssh().arg("echo in").run().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_code_opens_once_in_place_of_a_code() {
    let scene = scene().await;
    let authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    assert_eq!(authenticator.recovery_codes.len(), 10);
    let code = authenticator.recovery_codes[3].as_str();

    let first = scene.ssh_with(&[("Verification code:", code)]).run().await;
    let second = scene.ssh_with(&[("Verification code:", code)]).run().await;

    expect_in(&first);
    expect_out(&second);
    let shown = scene.bastion.ask(&["person", "totp", "show", "alice"]).await;
    assert_eq!((&shown["state"], &shown["recovery_codes_left"]), (&Value::from("enrolled"), &Value::from(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_takes_two_factors_is_denied_to_one_with_the_reason_and_opens_with_both() {
    let scene = scene().await;
    scene.bastion.add_target("vault", &scene.sshd).await;
    scene.bastion.grant_with("alice", "vault", &["--for", "1h", "--two-factor"]).await;
    let user = format!("alice+{}@vault", Sshd::login());
    let ssh = || scene.desk.ssh(&user, scene.bastion.address());

    let one = ssh().arg("echo in").run().await;
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    let both = ssh().answers(&[("Verification code:", &authenticator.code())]).arg("echo in").run().await;

    assert_eq!((one.code(), one.text().as_str()), (Some(254), ""), "{}", one.errors());
    assert!(one.errors().contains("access denied: the grant takes a second factor"), "{}", one.errors());
    expect_in(&both);
    let denied = scene.events("denied").await;
    assert_eq!(denied[0]["act"]["denial"]["denial"], "second_factor_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_takes_a_code_besides() {
    let ca = KeyPair::ed25519();
    let trust = format!("user_ca_files = [\"{}\"]", ca.public_path().display());
    let settings = Settings { ssh: vec![trust, MANY_TRIES.to_owned()], ..Settings::default() };
    let scene = Scene::on(Stores::Small, settings, &[]).await;
    let key = KeyPair::ed25519();
    key.keep(&ca.certify(key.public(), &["alice"], "by the other CA", Duration::from_mins(5)));
    let desk = Workstation::new(&key);
    desk.trust(scene.bastion.address(), scene.bastion.host_key());
    let ssh = || desk.ssh(&Scene::user(), scene.bastion.address());
    expect_in(&ssh().arg("echo in").run().await);
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;

    let without = ssh().arg("echo in").run().await;
    let both = ssh().answers(&[("Verification code:", &authenticator.code())]).arg("echo in").run().await;

    expect_out(&without);
    expect_in(&both);
    assert_eq!(scene.events("logged_in").await[1]["act"]["method"], "certificate+totp");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_factor_counts_for_its_own_name_only() {
    let scene = scene().await;
    let bob = KeyPair::ed25519();
    scene.bastion.add_person("bob", &bob).await;
    let mut alices = Authenticator::enrol(&scene.bastion, "alice").await;
    let _bobs = Authenticator::enrol(&scene.bastion, "bob").await;

    // Bob's key and name, Alice's code.
    let desk = Workstation::new(&bob);
    desk.trust(scene.bastion.address(), scene.bastion.host_key());
    let code = alices.code();
    let user = format!("bob+{}@web-1", Sshd::login());
    let mixed = desk.ssh(&user, scene.bastion.address()).answers(&[("Verification code:", &code)]);

    expect_out(&mixed.option("NumberOfPasswordPrompts=1").arg("echo in").run().await);
    expect_in(&scene.ssh_with(&[("Verification code:", &code)]).run().await); // nobody has used it up
}

#[tokio::test(flavor = "multi_thread")]
async fn paramiko_and_asyncssh_give_a_code_after_a_key_and_after_a_password() {
    let scene = scene().await;
    scene.set_password().await;
    let key = scene.key.path().to_str().unwrap().to_owned();
    let authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    let mut codes = authenticator.recovery_codes.iter();

    for script in ["paramiko_code_login.py", "asyncssh_login.py"] {
        for proof in [["key", key.as_str()], ["password", PASSWORD]] {
            let run = python_login(&scene.desk, script, &scene.bastion, &Scene::user(), proof, "echo in");
            let output = run.arg(codes.next().unwrap()).run().await.expect_success();
            assert!(output.text().ends_with("in\n"), "{script} {proof:?}: {}", output.text());
            if script.starts_with("paramiko") {
                assert!(output.text().starts_with("then keyboard-interactive\n"), "{}", output.text());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn putty_asks_for_password_and_code_in_its_own_words() {
    let scene = scene().await;
    scene.set_password().await;
    let authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    let (address, fingerprint) = (scene.bastion.address(), scene.bastion.host_key().fingerprint(HashAlg::Sha256));
    let plink = scene.desk.program("plink").args([
        "-ssh",
        "-noagent",
        "-no-antispoof",
        "-P",
        &address.port().to_string(),
        "-l",
    ]);
    let plink =
        plink.args([&Scene::user(), "-hostkey", &fingerprint.to_string(), &address.ip().to_string(), "echo in"]);

    let mut terminal = plink.in_terminal(80, 24);
    terminal.wait_for("Password: ").await;
    terminal.type_keys(&format!("{PASSWORD}\r")).await;
    terminal.wait_for("Verification code: ").await;
    terminal.type_keys(&format!("{}\r", authenticator.recovery_codes[0])).await;
    terminal.wait_for("\nin").await;
}

/// A client that does one step of a login at a time, in whatever order.
struct Crafty(client::Handle<Stubborn>);

impl Crafty {
    async fn connect(bastion: &Bastion) -> Self {
        let config = Arc::new(client::Config::default());
        Self(client::connect(config, bastion.address(), Stubborn).await.unwrap())
    }

    /// Proves a key; whether that was all, a part, or nothing.
    async fn key(&mut self, user: &str, key: &KeyPair) -> AuthResult {
        self.try_key(user, key).await.unwrap()
    }

    async fn try_key(&mut self, user: &str, key: &KeyPair) -> Result<AuthResult, russh::Error> {
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.private().clone()), None);
        self.0.authenticate_publickey(user, key).await
    }

    /// Begins a conversation; what is asked.
    async fn converse(&mut self, user: &str) -> Vec<String> {
        match self.0.authenticate_keyboard_interactive_start(user, None).await.unwrap() {
            Reply::InfoRequest { prompts, .. } => prompts.into_iter().map(|prompt| prompt.prompt).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, answers: &[&str]) -> Reply {
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        self.0.authenticate_keyboard_interactive_respond(answers).await.unwrap()
    }
}

fn only_a_code() -> MethodSet {
    MethodSet::from([MethodKind::KeyboardInteractive].as_slice())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_factor_cannot_be_talked_around() {
    let settings = ["max_auth_tries = 15", MANY_TRIES].map(str::to_owned).to_vec();
    let scene = Scene::on(Stores::Small, Settings { ssh: settings, ..Settings::default() }, &[]).await;
    scene.set_password().await;
    let bob = KeyPair::ed25519();
    scene.bastion.add_person("bob", &bob).await;
    let mut authenticator = Authenticator::enrol(&scene.bastion, "alice").await;
    let (alice, bobs_name) = (Scene::user(), format!("bob+{}@web-1", Sshd::login()));
    let refused = |result: &AuthResult| matches!(result, AuthResult::Failure { partial_success: false, .. });
    let half = |result: AuthResult| {
        let AuthResult::Failure { remaining_methods, partial_success } = result else { return false };
        partial_success && remaining_methods == only_a_code()
    };

    // Half-way in nothing counts but a code: not the same factor again, nor another first one.
    let mut client = Crafty::connect(&scene.bastion).await;
    assert!(half(client.key(&alice, &scene.key).await));
    assert!(refused(&client.key(&alice, &scene.key).await));
    assert!(refused(&client.0.authenticate_password(&alice, PASSWORD).await.unwrap()));
    assert!(refused(&client.0.authenticate_none(&alice).await.unwrap()));
    // Not one answer is not an answer, whichever of them is right.
    let code = authenticator.code();
    for answers in [vec![], vec![code.as_str(), "x"], vec!["x", code.as_str()]] {
        assert_eq!(client.converse(&alice).await, ["Verification code: "]);
        assert!(matches!(client.answer(&answers).await, Reply::Failure { partial_success: false, .. }));
    }
    // Another name, even of another login of the same person, takes the proof away.
    for name in ["alice+elsewhere@web-1", &alice] {
        assert_eq!(client.converse(name).await, ["Password: "]);
        assert!(matches!(client.answer(&[&code]).await, Reply::Failure { partial_success: false, .. }));
    }
    // Half-way as Alice is nothing for Bob.
    assert!(half(client.key(&alice, &scene.key).await));
    assert!(refused(&client.key(&bobs_name, &scene.key).await));
    assert_eq!(client.converse(&alice).await, ["Password: "]);
    assert!(matches!(client.answer(&["x"]).await, Reply::Failure { partial_success: false, .. }));
    assert!(half(client.key(&alice, &scene.key).await));
    assert_eq!(client.converse(&alice).await, ["Verification code: "]);
    assert!(matches!(client.answer(&[&code]).await, Reply::Success));

    // A first factor that is proved over and over ends as any other failure.
    let (mut client, mut halves) = (Crafty::connect(&scene.bastion).await, 0);
    for _ in 0..30 {
        let round = async {
            let proved = client.try_key(&alice, &scene.key).await.is_ok_and(half);
            drop(client.0.authenticate_none(&bobs_name).await); // takes the proof away
            proved
        };
        // Of a connection that the bastion has ended this client waits for an answer in vain.
        let Ok(proved) = tokio::time::timeout(Duration::from_secs(5), round).await else { break };
        halves += u32::from(proved);
    }
    assert!(halves <= 15, "{halves}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_enrols_a_person_at_a_terminal() {
    let scene = scene().await;
    let socket = scene.bastion.data().join("sallyport.sock");
    let program = scene.desk.program(SALLYPORT).args(["person", "totp", "enrol", "alice", "--socket"]).arg(socket);

    let mut terminal = program.in_terminal(110, 50);
    let shown = terminal.wait_for("Code from the authenticator: ").await;
    let secret = shown.lines().find_map(|line| line.strip_prefix("Secret")).unwrap().trim().to_owned();
    let authenticator =
        Authenticator { secret: Secret::try_from_base32(&secret).unwrap(), last_step: 0, recovery_codes: vec![] };
    terminal.type_keys("000000\n").await;
    terminal.wait_for("Code from the authenticator: ").await;
    terminal.type_keys(&format!("{}\n", authenticator.code_at(Utc::now(), 0))).await;
    let (codes, status) = terminal.finish().await;

    assert!(status.success(), "{codes}");
    assert!(shown.matches('\u{2580}').count() > 50, "a QR code: {shown}");
    assert_eq!(codes.lines().filter(|line| line.trim().len() == 19 && line.matches('-').count() == 3).count(), 10);
    assert!(shown.contains("otpauth://totp/Sallyport:alice?"));
}
