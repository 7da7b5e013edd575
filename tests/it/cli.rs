//! The program as people and scripts run it: arguments in, standard output, standard error and an exit code out, against
//! an API served by this process.

use std::process::Output;
use std::sync::Arc;

use sallyport::api::bastion::Bastion;
use sallyport::api::{ApiSettings, ApiState, Listeners, Scan};
use sallyport::app::App;
use sallyport::app::clock::Clock;
use sallyport::store::blob::{BlobSettings, Blobs};
use sallyport::store::db::{DatabaseSettings, Db};
use sallyport::store::seal::MasterKey;
use sallyport_domain::target::{HostKey, HostKeyTrust};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";

/// A served API, and the program that is its client.
struct Sallyport {
    folder: TempDir,
    stop: CancellationToken,
}

impl Drop for Sallyport {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sallyport {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite:{}/test.db", folder.path().display());
        let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap();
        db.migrate().await.unwrap();
        let blobs = Blobs::open(&BlobSettings { url: "memory:".to_owned(), ..BlobSettings::default() }).unwrap();
        let app = App::new(db, blobs, Clock::system(), MasterKey::from_bytes(&[7; 32]).unwrap());
        let scan: Scan = Arc::new(|_address| {
            Box::pin(async { Ok(vec![HostKey { trust: HostKeyTrust::Host, public_key: KEY.to_owned() }]) })
        });
        let bastion = Arc::new(Bastion {
            version: "test".to_owned(),
            ssh_host: "bastion.example".to_owned(),
            ssh_port: 2222,
            host_key: KEY.to_owned(),
            user_ca: KEY.to_owned(),
            host_ca: KEY.to_owned(),
        });
        let settings = ApiSettings { socket: Some(folder.path().join("socket")), ..ApiSettings::default() };
        let listeners = Listeners::bind(&settings).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(listeners.serve(ApiState { app, scan, bastion }, stop.clone()));
        Self { folder, stop }
    }

    async fn run(&self, arguments: &str) -> Output {
        let arguments = shell_words::split(arguments).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        program.args(&arguments).arg("--socket").arg(self.folder.path().join("socket")).arg("--no-input");
        program.env("TZ", "UTC").env_remove("SALLYPORT_URL").current_dir(self.folder.path());
        program.output().await.unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    async fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "`{arguments}`: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail; its exit code and standard error.
    async fn fails(&self, arguments: &str) -> (i32, String) {
        let output = self.run(arguments).await;
        assert!(output.stdout.is_empty(), "`{arguments}`: {output:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    async fn with_alice_and_web_1(self) -> Self {
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

    assert_eq!(csv, "name,organisation,roles,keys,password,state\r\nalice,,engineer,1,yes,enabled\r\n");
    assert!(events.contains("password set") && !events.contains("correct horse"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorities_are_printed_as_their_files_want_them() {
    let sallyport = Sallyport::start().await;

    let user = sallyport.ok("ca user").await;
    let host = sallyport.ok("ca host").await;

    assert_eq!(user, format!("{KEY}\n"));
    assert_eq!(host, format!("@cert-authority * {KEY}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_the_api_document_come_from_the_program_itself() {
    let sallyport = Sallyport::start().await;

    let script = sallyport.ok("completions bash").await;
    let document: Value = serde_json::from_str(&sallyport.ok("openapi").await).unwrap();

    assert!(script.contains("_sallyport"));
    assert_eq!(document["info"]["title"], "Sallyport");
}
