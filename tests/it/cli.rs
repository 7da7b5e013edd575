//! The program as people and scripts run it: arguments in, standard output, standard error and an exit code out, against
//! an API served by this process.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;

use sallyport::api::bastion::Identity;
use sallyport::api::{ApiSettings, ApiState, Listeners, Rotate, Scan};
use sallyport::app::App;
use sallyport::app::break_glass::BreakGlass;
use sallyport::app::clock::Clock;
use sallyport::app::credential_rotation::RotationError;
use sallyport::app::feed::Feed;
use sallyport::app::health::Health;
use sallyport::app::keys::{Purpose, TargetKeys, bastion_key};
use sallyport::app::recordings::RecordingSettings;
use sallyport::app::sign_in::SignIns;
use sallyport::store::blob::{BlobSettings, Blobs};
use sallyport::store::db::{DatabaseSettings, Db};
use sallyport::store::seal::MasterKey;
use sallyport_domain::target::{HostKey, HostKeyTrust};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

pub(crate) const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";

/// A served API, and the program that is its client.
pub(crate) struct Sallyport {
    app: App,
    pub(crate) folder: TempDir,
    tcp: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Sallyport {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sallyport {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite:{}/test.db", folder.path().display());
        let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap();
        db.migrate().await.unwrap();
        let blobs = Blobs::open(&BlobSettings { url: "memory:".to_owned(), ..BlobSettings::default() }).unwrap();
        let app = App::new(db, blobs, Clock::system(), MasterKey::from_bytes(&[7; 32]).unwrap());
        let scan: Scan = Arc::new(|_address| {
            Box::pin(async { Ok(vec![HostKey { trust: HostKeyTrust::Host, public_key: KEY.to_owned() }]) })
        });
        let bastion = Arc::new(Identity {
            version: "test".to_owned(),
            ssh_host: "bastion.example".to_owned(),
            ssh_port: 2222,
            host_key: KEY.to_owned(),
        });
        let rotate: Rotate =
            Arc::new(|_, name, _, _| Box::pin(async move { Err(RotationError::Unknown { name }.into()) }));
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let settings = ApiSettings { socket: Some(folder.path().join("socket")), listen, ..ApiSettings::default() };
        let listeners = Listeners::bind(&settings).await.unwrap();
        let tcp = listeners.tcp_address().unwrap();
        let stop = CancellationToken::new();
        let target_keys = bastion_key(&app, Purpose::TargetKeys).await.unwrap();
        let target_keys = Arc::new(TargetKeys::new(&target_keys));
        let watches = tokio_util::task::TaskTracker::new();
        let (health, dir) = (Health::new(), folder.path().join("break-glass"));
        let break_glass =
            BreakGlass::start(app.clone(), "test".to_owned(), dir, RecordingSettings::default(), health.clone())
                .unwrap();
        let state = ApiState {
            app: app.clone(),
            scan,
            rotate,
            bastion,
            target_keys,
            watches,
            sign_ins: SignIns::default(),
            feed: Feed::default(),
            health,
            break_glass,
        };
        tokio::spawn(listeners.serve(state, stop.clone()));
        Self { app, folder, tcp, stop }
    }

    fn program(&self, arguments: &str) -> Command {
        let arguments = shell_words::split(arguments).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        program.args(&arguments).arg("--no-input");
        program.env("TZ", "UTC").env_remove("SALLYPORT_URL").current_dir(self.folder.path());
        program
    }

    /// The program as the operator runs it.
    pub(crate) async fn run(&self, arguments: &str) -> Output {
        self.program(arguments).arg("--socket").arg(self.folder.path().join("socket")).output().await.unwrap()
    }

    /// The program as somebody with a token runs it, from elsewhere.
    fn remote(&self, token: &str, arguments: &str) -> Command {
        let mut program = self.program(arguments);
        program.env("SALLYPORT_URL", format!("http://{}", self.tcp)).env("SALLYPORT_TOKEN", token);
        program
    }

    /// A command by somebody with a token that must succeed; what it printed as JSON.
    async fn ask_as(&self, token: &str, arguments: &str) -> Value {
        let output = self.remote(token, arguments).arg("--json").output().await.unwrap();
        assert!(output.status.success(), "`{arguments}`: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Adds a person with a role and makes a token.
    async fn token(&self, name: &str, role: &str) -> String {
        self.run(&format!("person add {name} --role {role}")).await; // or is there already
        self.ok(&format!("token new {name} --label test")).await.trim().to_owned()
    }

    /// Runs a command that must succeed; its standard output.
    pub(crate) async fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "`{arguments}`: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; its exit code and standard error.
    pub(crate) async fn fails(&self, arguments: &str) -> (i32, String) {
        let output = self.run(arguments).await;
        assert!(output.stdout.is_empty(), "`{arguments}`: {output:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) async fn with_alice_and_web_1(self) -> Self {
        self.ok(&format!("person add alice --key '{KEY} alice@desk'")).await;
        self.ok("target add web-1 10.0.0.1 --label env=prod --yes").await;
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_given_with_the_line_to_type_and_taken_back() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;

    let given = sallyport.ok("grant new alice env=prod --for 2h --reason INC-7").await;
    let listed: Value = serde_json::from_str(&sallyport.ok("grant ls --json").await).unwrap();
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    sallyport.ok(&format!("grant revoke {id} --reason done")).await;
    let left = sallyport.ok("grant ls --output jsonl").await;
    let (conflict, _) = sallyport.fails(&format!("grant revoke {id} --reason again")).await;

    assert!(given.contains("ssh -p 2222 alice+root@web-1@bastion.example"), "{given}");
    assert_eq!(listed["items"][0]["logins"][0], "root");
    assert_eq!((left.as_str(), conflict), ("", 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_and_gives_nothing() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;

    let shown = sallyport.ok("grant new alice 'web-*' --until 18:00 --reason INC-7 --dry-run").await;
    let listed = sallyport.ok("grant ls --all --output jsonl").await;

    assert!(shown.contains("alice+root@web-1"), "{shown}");
    assert_eq!(listed, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_to_try_and_its_kind_is_the_exit_code() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;

    let (not_found, error) = sallyport.fails("person show nobody").await;
    let (no_target, _) = sallyport.fails("grant new alice db-1 --for 1h --reason x").await;
    let (no_end, _) = sallyport.fails("grant new alice web-1 --reason x").await;
    let (taken, _) = sallyport.fails("person add alice").await;
    let (unasked, told) = sallyport.fails("target add web-2").await;

    assert_eq!((not_found, error.as_str()), (3, "error: there is no person `nobody`\n"));
    assert_eq!((no_target, no_end, taken), (3, 2, 5));
    assert_eq!(unasked, 2);
    assert!(told.contains("SHA256:") && told.contains("try: use `--yes`"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_is_not_there_is_unreachable() {
    let sallyport = Sallyport::start().await;
    std::fs::remove_file(sallyport.folder.path().join("socket")).unwrap();

    let (code, error) = sallyport.fails("person ls").await;

    assert_eq!(code, 7);
    assert!(error.contains("try: is it running?"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_from_a_file_and_lists_come_as_csv() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    std::fs::write(sallyport.folder.path().join("password"), "correct horse battery\n").unwrap();

    sallyport.ok("person password alice --password-file password").await;
    let csv = sallyport.ok("person ls --output csv").await;
    let events = sallyport.ok("audit ls --json").await;

    assert_eq!(csv, "name,organisation,roles,keys,password,code,state\r\nalice,,engineer,1,yes,no,enabled\r\n");
    assert!(events.contains("password set") && !events.contains("correct horse"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorities_are_printed_as_their_files_want_them() {
    let sallyport = Sallyport::start().await;

    let user_ca = bastion_key(&sallyport.app, Purpose::UserCa).await.unwrap().public_key;
    let host_ca = bastion_key(&sallyport.app, Purpose::HostCa).await.unwrap().public_key;

    let user = sallyport.ok("ca user").await;
    let host = sallyport.ok("ca host").await;

    assert_eq!(user, format!("{user_ca}\n"));
    assert_eq!(host, format!("@cert-authority * {host_ca}\n"));

    let next = sallyport.ok("key rotate user-ca --stage").await;
    assert_eq!(sallyport.ok("ca user").await, format!("{user_ca}\n{next}"));
    sallyport.ok("key rotate user-ca --activate --yes").await;
    assert_eq!(sallyport.ok("ca user").await, format!("{next}{user_ca}\n"));
    assert!(sallyport.ok("key ls").await.contains("leaving"));
    sallyport.ok("key rotate user-ca --retire").await;
    assert_eq!(sallyport.ok("ca user").await, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_the_api_document_come_from_the_program_itself() {
    let sallyport = Sallyport::start().await;

    let script = sallyport.ok("completions bash").await;
    let document: Value = serde_json::from_str(&sallyport.ok("openapi").await).unwrap();

    assert!(script.contains("_sallyport"));
    assert_eq!(document["info"]["title"], "Sallyport");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engineer_asks_and_waits_and_an_admin_answers_but_never_their_own() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    let (alice, adam) = (sallyport.token("alice", "engineer").await, sallyport.token("adam", "admin").await);

    let asked = sallyport.ask_as(&alice, "request new web-1 --for 2h --reason INC-7").await;
    let id = asked["id"].as_str().unwrap().to_owned();
    let mut waiting = sallyport.remote(&alice, &format!("request wait {id} --json"));
    let waiting = waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let listed = sallyport.ask_as(&adam, "request ls").await;
    let approved = sallyport.ask_as(&adam, &format!("request approve {id} --two-factor --for 1h")).await;
    let waited = waiting.wait_with_output().await.unwrap();
    let grants: Value = serde_json::from_str(&sallyport.ok("grant ls --json").await).unwrap();

    assert_eq!((&asked["state"], &asked["lasting_seconds"]), (&Value::from("open"), &Value::from(7200)));
    assert_eq!(listed["items"][0]["person"]["name"], "alice");
    assert!(waited.status.success(), "{waited:?}");
    let waited: Value = serde_json::from_slice(&waited.stdout).unwrap();
    assert_eq!(waited, approved);
    assert_eq!((&approved["state"], &approved["answer"]["changed"]), (&Value::from("approved"), &Value::from(true)));
    assert_eq!(approved["answer"]["grant"], grants["items"][0]["id"]);
    assert_eq!(
        (&grants["items"][0]["second_factor"], &grants["items"][0]["logins"][0]),
        (&true.into(), &"root".into())
    );

    let grant = grants["items"][0]["id"].as_str().unwrap();
    let more = sallyport.ask_as(&alice, &format!("request new --extend {grant} --for 30m --reason 'not done'")).await;
    let more = more["id"].as_str().unwrap();
    let denied = sallyport.ask_as(&adam, &format!("request deny {more} --reason 'tomorrow'")).await;
    let told = sallyport.remote(&alice, &format!("request wait {more}")).output().await.unwrap();
    assert_eq!(denied["answer"]["by"]["name"], "adam");
    assert_eq!(told.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&told.stderr).contains("denied by adam: tomorrow"), "{told:?}");

    let own = sallyport.ask_as(&adam, "request new web-1 --for 1h --reason me").await;
    let own = own["id"].as_str().unwrap();
    let refused = sallyport.remote(&adam, &format!("request approve {own}")).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let unseen = sallyport.remote(&alice, &format!("request show {own}")).output().await.unwrap();
    assert_eq!(unseen.status.code(), Some(3), "{unseen:?}");
    let alices = sallyport.ask_as(&alice, "request ls --all").await;
    assert_eq!(alices["items"].as_array().unwrap().len(), 2);
    sallyport.ask_as(&adam, &format!("request withdraw {own}")).await;
    assert_eq!(sallyport.ok("request ls --output jsonl").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_enrols_codes_for_themselves_and_an_admin_takes_them_away() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    let (alice, adam) = (sallyport.token("alice", "engineer").await, sallyport.token("adam", "admin").await);

    let begun = sallyport.ask_as(&alice, "person totp enrol").await;
    let secret = totp_rs::Secret::try_from_base32(begun["secret"].as_str().unwrap()).unwrap();
    let code = || {
        let seconds = u64::try_from(chrono::Utc::now().timestamp()).unwrap();
        totp_rs::Builder::new().with_secret(secret.as_bytes()).build().unwrap().generate(seconds).to_string()
    };
    let wrong = sallyport.remote(&alice, "person totp confirm 000000").output().await.unwrap();
    let confirmed = sallyport.ask_as(&alice, &format!("person totp confirm {}", code())).await;
    let again = sallyport.remote(&alice, "person totp enrol").output().await.unwrap();
    let (shown, people) = (sallyport.ask_as(&alice, "person totp show").await, sallyport.ok("person ls --json").await);
    let not_hers = sallyport.remote(&alice, "person totp reset alice").output().await.unwrap();
    let reset = sallyport.ask_as(&adam, "person totp reset alice").await;

    assert!(begun["uri"].as_str().unwrap().starts_with("otpauth://totp/Sallyport:alice?secret="));
    assert_eq!((wrong.status.code(), again.status.code(), not_hers.status.code()), (Some(1), Some(5), Some(4)));
    assert_eq!(confirmed["recovery_codes"].as_array().unwrap().len(), 10);
    assert_eq!((&shown["state"], &shown["recovery_codes_left"]), (&"enrolled".into(), &10.into()));
    let people: Value = serde_json::from_str(&people).unwrap();
    let alices = people["items"].as_array().unwrap().iter().find(|person| person["name"] == "alice").unwrap();
    assert_eq!(alices["has_second_factor"], true);
    assert_eq!(reset["state"], "none");
    let events = sallyport.ok("audit ls --json").await;
    assert!(events.contains("second_factor_enrolled") && events.contains("second_factor_reset"));
    assert!(!events.contains(begun["secret"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_invited_by_a_link_that_is_shown_once_and_can_be_taken_back() {
    let sallyport = Sallyport::start().await;
    sallyport.ok("person add alice").await;

    let first = sallyport.run("person invite alice").await;
    let made: Value = serde_json::from_str(&sallyport.ok("person invite alice --for 2h --json").await).unwrap();
    let listed: Value = serde_json::from_str(&sallyport.ok("person invites alice --json").await).unwrap();
    let revoked = sallyport.run("person invite alice --revoke").await;
    let (none, why) = sallyport.fails("person invite alice --revoke").await;
    let (long, _) = sallyport.fails("person invite alice --for 15d").await;
    let (nobody, _) = sallyport.fails("person invite nobody").await;

    // This bastion does not know where people open the web app.
    let (line, said) = (String::from_utf8(first.stdout).unwrap(), String::from_utf8(first.stderr).unwrap());
    assert!(line.starts_with("/invite#spi_") && said.contains("[api] public_url"), "{line} {said}");
    assert!(made["token"].as_str().unwrap().starts_with("spi_") && made["link"].is_null());
    let states: Vec<_> = listed["items"].as_array().unwrap().iter().map(|invite| &invite["state"]).collect();
    assert_eq!(states, ["open", "revoked"]);
    assert!(!listed.to_string().contains("spi_"), "{listed}");
    assert!(revoked.status.success());
    assert_eq!((none, why.as_str()), (3, "error: `alice` has no invite that is open\n"));
    assert_eq!((long, nobody), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_from_a_template_is_who_which_and_until_when() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    let json = async |arguments: &str| -> Value {
        serde_json::from_str(&sallyport.ok(&format!("{arguments} --json")).await).unwrap()
    };

    let made = json("template new firmware env=prod --login root --allow exec,upload --upload-path '/srv/**' --two-factor --reason firmware --for 2h").await;
    let dry = sallyport.ok("grant new alice --template firmware --dry-run").await;
    let given = json("grant new --template firmware --person alice --for 4h").await;
    let narrow = json("grant new alice web-1 --template firmware --reason INC-7").await;
    let (wider, told) = sallyport.fails("grant new alice 'web-*' --template firmware").await;
    let (both, _) = sallyport.fails("grant new alice --template firmware --allow shell").await;
    let changed = json("template change firmware --upload-bytes 1GB --clear two-factor,for").await;
    let (no_end, why) = sallyport.fails("grant new alice --template firmware").await;
    let (unknown, _) = sallyport.fails("grant new alice --template nothing --for 1h --reason x").await;
    sallyport.ok("template rm firmware").await;

    assert_eq!((&made["terms"]["targets"][0], &made["lasting_seconds"]), (&"env=prod".into(), &7200.into()));
    assert!(
        dry.contains("upload only /srv/**") && dry.contains("two factors") && dry.contains("alice+root@web-1"),
        "{dry}"
    );
    assert_eq!(
        (&given["template"], &given["reason"], &given["targets"][0]),
        (&"firmware".into(), &"firmware".into(), &"env=prod".into())
    );
    assert_eq!(
        (&narrow["targets"][0], &narrow["reason"], &narrow["second_factor"]),
        (&"web-1".into(), &"INC-7".into(), &true.into())
    );
    assert_eq!((wider, both, no_end, unknown), (1, 2, 1, 3));
    assert!(told.contains("does not lead to `web-*`") && why.contains("say until when"), "{told} {why}");
    assert_eq!(changed["terms"]["files"]["upload"]["paths"][0], "/srv/**");
    assert_eq!((&changed["lasting_seconds"], &changed["terms"]["second_factor"]), (&Value::Null, &Value::Null));
    assert_eq!(sallyport.ok("template ls --output jsonl").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_shows_when_its_stored_key_is_replaced() {
    let sallyport = Sallyport::start().await;
    let key = crate::support::keys::KeyPair::ed25519();
    let stored = key.path().display();
    sallyport.ok(&format!("target add db-1 10.0.0.2 --login root --credential key:{stored} --yes")).await;
    let rotation = async |name: &str| -> Value {
        let shown: Value = serde_json::from_str(&sallyport.ok(&format!("target show {name} --json")).await).unwrap();
        shown["logins"][0]["rotation"].clone()
    };
    assert_eq!(rotation("db-1").await, Value::Null);

    sallyport.ok("target rotate db-1 --login root --every 30d").await;

    assert_eq!(rotation("db-1").await["every_s"], 30 * 86_400);
    assert!(rotation("db-1").await["next_at"].is_string());
    let shown = sallyport.ok("target show db-1").await;
    assert!(shown.contains("root (key, replaced every 30days, next 20"), "{shown}");
    let listed: Value = serde_json::from_str(&sallyport.ok("target ls --json").await).unwrap();
    assert_eq!(listed["items"][0]["logins"][0]["rotation"], rotation("db-1").await);
    sallyport.ok("target rotate db-1 --login root --never").await;
    assert_eq!(rotation("db-1").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_from_when_to_when_and_a_replay_has_no_form_for_programs() {
    let sallyport = Sallyport::start().await;

    for window in ["--since 2h", "--since 09:00 --until 1m", "--until 2026-11-22T18:00:00Z"] {
        let listed: Value = serde_json::from_str(&sallyport.ok(&format!("session ls --json {window}")).await).unwrap();
        assert_eq!(listed["items"], serde_json::json!([]));
    }
    assert_eq!(sallyport.fails("session ls --since soon").await.0, 2);
    for verb in ["play", "watch"] {
        let session = "00000000-0000-7000-8000-000000000001";
        let (code, error) = sallyport.fails(&format!("session {verb} {session} --json")).await;
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("session export"), "{error}");
    }
}
