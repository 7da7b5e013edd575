//! The API as its clients meet it: over a real Unix socket and TCP, with a real database. The command line's client is
//! tried here too, because it speaks to the same sockets.

use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::{Method, StatusCode};
use sallyport_domain::event::Actor;
use sallyport_domain::principal::Role;
use sallyport_domain::target::{HostKey, HostKeyTrust};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bastion::Identity;
use super::*;
use crate::app::recordings::RecordingSettings;
use crate::app::{keys, people, tokens};
use crate::store::db::Db;
use crate::store::db::testing::{app_on, open};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";
pub(super) const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// A served API on a socket of its own.
pub(super) struct Served {
    pub(super) app: App,
    pub(super) socket: PathBuf,
    tcp: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) health: Health,
    stop: CancellationToken,
    task: JoinHandle<()>,
    folder: Arc<TempDir>,
}

impl Served {
    pub(super) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let app = app_on(open(format!("sqlite:{}/test.db", folder.path().display())).await);
        Self::over(app, Arc::new(folder)).await
    }

    /// On this database.
    pub(super) async fn on(db: Db) -> Self {
        Self::over(app_on(db), Arc::new(TempDir::new().unwrap())).await
    }

    /// Another node on the same database, at the same time.
    pub(super) async fn beside(&self) -> Self {
        let app = app_on(self.app.db.clone());
        app.clock.advance((self.app.clock.now() - app.clock.now()).to_std().unwrap());
        Self::over(app, self.folder.clone()).await
    }

    /// Ends it, as a process ends.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    async fn over(app: App, folder: Arc<TempDir>) -> Self {
        let socket = folder.path().join(format!("{}.sock", app.run.simple()));
        let settings = ApiSettings {
            socket: Some(socket.clone()),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            ..ApiSettings::default()
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(&settings).await.unwrap().with_metrics(any, None).await.unwrap();
        let (tcp, metrics) = (listeners.tcp_address().unwrap(), listeners.metrics_address().unwrap());
        let health = Health::new();
        let scan: Scan = Arc::new(|address: Address| {
            Box::pin(async move {
                if address.host() == "away" {
                    return Err(ScanError::Unreachable { address, message: "connection refused".to_owned() });
                }
                Ok(vec![HostKey { trust: HostKeyTrust::Host, public_key: KEY.to_owned() }])
            })
        });
        let bastion = Arc::new(Identity {
            version: "test".to_owned(),
            ssh_host: "bastion.example".to_owned(),
            ssh_port: 2222,
            host_key: KEY.to_owned(),
        });
        let stop = CancellationToken::new();
        let keys = keys::bastion_key(&app, keys::Purpose::TargetKeys).await.unwrap();
        let target_keys = Arc::new(keys::TargetKeys::new(&keys));
        let watches = TaskTracker::new();
        let feed = Feed::default();
        tokio::spawn(feed.clone().run(app.clone(), stop.clone()));
        let sign_ins = SignIns::default().at(&"https://bastion.example:8443".parse().unwrap());
        let rotate: Rotate =
            Arc::new(|_, name, _, _| Box::pin(async move { Err(RotationError::Unknown { name }.into()) }));
        let dir = folder.path().join("break-glass");
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
            feed,
            sign_ins,
            health: health.clone(),
            break_glass,
        };
        let task = tokio::spawn(listeners.serve(state, stop.clone()));
        Self { app, socket, tcp, metrics, health, stop, task, folder }
    }

    pub(super) fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// A client on the Unix socket: this process's own uid, an operator.
    pub(super) fn operator(&self) -> Client {
        let http = reqwest::Client::builder().unix_socket(self.socket.as_path()).build().unwrap();
        Client { http, base: "http://bastion".to_owned(), token: None }
    }

    pub(super) fn remote(&self, token: Option<&str>) -> Client {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Client { http, base: format!("http://{}", self.tcp), token: token.map(str::to_owned) }
    }

    /// A client over TCP for a new person with this role.
    pub(super) async fn person(&self, name: &str, role: Role) -> Client {
        let new = people::NewPerson {
            name: name.parse().unwrap(),
            organisation: None,
            roles: vec![role],
            keys: vec![],
            password: None,
        };
        people::add(&self.app, &OPERATOR, new).await.unwrap();
        let (_, token) = tokens::make(&self.app, &OPERATOR, &name.parse().unwrap(), "test", None).await.unwrap();
        self.remote(Some(token.expose()))
    }
}

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// What is at a path outside of `/api/v1`, as text.
    pub(super) async fn raw(&self, path: &str) -> (StatusCode, String) {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    pub(super) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base));
        let request = request.header("x-sallyport", "tests"); // what our own pages say of themselves
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let expected = if status.is_success() { "application/json" } else { "application/problem+json" };
        assert!(kind == expected || status == StatusCode::SERVICE_UNAVAILABLE, "{status} as {kind}");
        (status, response.json().await.unwrap())
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, None).await;
        assert!(status.is_success(), "{status} {body}");
        body
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("POST", path, Some(body)).await;
        assert!(status.is_success(), "{status} {answer}");
        answer
    }

    pub(super) async fn with_web_1(self) -> Self {
        self.post("/people", json!({"name": "alice", "keys": [KEY]})).await;
        let login = json!({"login": "root", "credential": {"kind": "certificate"}});
        let host_key = json!({"public_key": KEY});
        let web = json!({"name": "web-1", "address": "10.0.0.1", "logins": [login], "host_keys": [host_key]});
        self.post("/targets", web).await;
        self
    }
}

pub(super) fn a_grant() -> Value {
    json!({
        "people": ["alice"], "targets": ["web-*"], "logins": ["root"],
        "not_after": "2100-01-01T00:00:00Z", "reason": "INC-7",
    })
}

#[tokio::test]
async fn a_grant_is_made_listed_extended_and_revoked() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;

    let preview = client.post("/grants/preview", a_grant()).await;
    let made = client.post("/grants", a_grant()).await;
    let id = made["id"].as_str().unwrap();
    let listed = client.get("/grants?state=active&person=alice&target=web-1").await;
    let later = json!({"not_after": "2101-01-01T00:00:00Z", "reason": "not done yet"});
    let extended = client.post(&format!("/grants/{id}/extend"), later).await;
    let revoked = client.post(&format!("/grants/{id}/revoke"), json!({"reason": "done"})).await;
    let (again, _) = client.send("POST", &format!("/grants/{id}/revoke"), Some(json!({"reason": "done"}))).await;

    assert_eq!(preview["matching_targets"], json!([{"name": "web-1", "logins": ["root"]}]));
    assert_eq!((&made["state"], &made["people"][0]["name"]), (&json!("active"), &json!("alice")));
    assert_eq!(made["allow"], json!({"shell": true, "exec": true, "upload": false, "download": false, "forwards": []}));
    assert_eq!(listed["items"][0]["id"], made["id"]);
    assert_eq!(extended["not_after"], "2101-01-01T00:00:00Z");
    assert_eq!((&revoked["state"], &revoked["revoked"]["reason"]), (&json!("revoked"), &json!("done")));
    assert_eq!(again, StatusCode::CONFLICT);
    let events = client.get("/events?act=grant_revoked").await;
    assert_eq!(events["items"][0]["actor"]["kind"], "operator");
}

#[tokio::test]
async fn a_grant_from_a_template_takes_its_terms_and_no_others() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    let terms = json!({"targets": ["web-*"], "logins": ["root"], "allow": {"exec": true, "upload": true}, "second_factor": true});
    let body = json!({"name": "firmware", "terms": terms, "lasting_seconds": 3600, "reason": "firmware"});

    let template = client.post("/templates", body.clone()).await;
    let preview = client.post("/grants/preview", json!({"people": ["alice"], "template": "firmware"})).await;
    let grant = client.post("/grants", json!({"people": ["alice"], "template": "firmware"})).await;
    let wider = json!({"people": ["alice"], "template": "firmware", "allow": {"shell": true}});
    let (wider, problem) = client.send("POST", "/grants", Some(wider)).await;
    let (twice, _) = client.send("POST", "/templates", Some(body)).await;
    let neither = client.send("POST", "/grants", Some(json!({"people": ["alice"], "targets": ["web-1"]}))).await.0;
    let set = json!({"note": "switches", "terms": {"targets": ["*"], "logins": ["root"]}});
    let (_, changed) = client.send("PUT", "/templates/firmware", Some(set)).await;
    let after = client.get(&format!("/grants/{}", grant["id"].as_str().unwrap())).await;
    let (_, removed) = client.send("DELETE", "/templates/firmware", None).await;
    let (gone, _) = client.send("GET", "/templates/firmware", None).await;

    assert_eq!(template["terms"]["targets"], json!(["web-*"]));
    assert_eq!((&preview["reason"], &preview["terms"]["allow"]["upload"]), (&json!("firmware"), &json!(true)));
    assert_eq!(preview["matching_targets"][0]["name"], "web-1");
    assert_eq!(
        (&grant["template"], &grant["second_factor"], &grant["allow"]["shell"]),
        (&json!("firmware"), &json!(true), &json!(false))
    );
    assert_eq!((wider, twice, neither), (StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::BAD_REQUEST));
    assert!(problem["detail"].as_str().unwrap().contains("are the template's"), "{problem}");
    assert_eq!((&changed["note"], &changed["terms"]["allow"]["shell"]), (&json!("switches"), &json!(true)));
    assert_eq!((&after, &removed["note"], gone), (&grant, &json!("switches"), StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn a_person_loses_keys_password_and_entry() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    let fingerprint = client.get("/people/alice").await["keys"][0]["fingerprint"].as_str().unwrap().replace('/', "%2F");

    let (_, set) =
        client.send("PUT", "/people/alice/password", Some(json!({"password": "correct horse battery"}))).await;
    let (_, unset) = client.send("DELETE", "/people/alice/password", None).await;
    let (_, keyless) = client.send("DELETE", &format!("/people/alice/keys/{fingerprint}"), None).await;
    let (_, roles) = client.send("PUT", "/people/alice/roles", Some(json!({"roles": ["auditor"]}))).await;
    let (_, disabled) = client.send("POST", "/people/alice/disable", None).await;

    assert_eq!((&set["has_password"], &unset["has_password"]), (&json!(true), &json!(false)));
    assert_eq!(keyless["keys"], json!([]));
    assert_eq!(roles["roles"], json!(["auditor"]));
    assert!(disabled["disabled_at"].is_string());
}

#[tokio::test]
async fn a_host_is_asked_for_its_keys_and_its_silence_is_told() {
    let served = Served::start().await;
    let client = served.operator();

    let scanned = client.post("/targets/scan", json!({"address": "web-1"})).await;
    let (status, problem) = client.send("POST", "/targets/scan", Some(json!({"address": "away"}))).await;

    assert_eq!(scanned["address"], "web-1:22");
    assert!(scanned["host_keys"][0]["fingerprint"].as_str().unwrap().starts_with("SHA256:"));
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(problem["detail"], "cannot reach away:22: connection refused");
}

#[tokio::test]
async fn what_cannot_be_read_is_told_without_our_libraries_names() {
    let served = Served::start().await;
    let client = served.operator();

    let (status, problem) = client.send("POST", "/people", Some(json!({"name": "Alice"}))).await;
    let (unknown_field, _) = client.send("POST", "/people", Some(json!({"name": "a", "admin": true}))).await;
    let (no_such_id, _) = client.send("GET", "/grants/g-nonsense", None).await;
    let (no_such_path, _) = client.send("GET", "/nothing", None).await;
    let (wrong_method, _) = client.send("DELETE", "/people", None).await;
    let (too_large, _) = client.send("POST", "/people", Some(json!({"name": "a".repeat(300_000)}))).await;
    let (bad_cursor, _) = client.send("GET", "/people?cursor=x", None).await;

    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().contains("a person's name may not start with 'A'"), "{problem}");
    assert!(problem["reference"].as_str().unwrap().len() == 32);
    assert_eq!([unknown_field, bad_cursor], [StatusCode::BAD_REQUEST; 2]);
    assert_eq!([no_such_id, no_such_path], [StatusCode::NOT_FOUND; 2]);
    assert_eq!([wrong_method, too_large], [StatusCode::METHOD_NOT_ALLOWED, StatusCode::PAYLOAD_TOO_LARGE]);
}

#[tokio::test]
async fn a_list_comes_page_by_page() {
    let served = Served::start().await;
    let client = served.operator();
    for name in ["c", "a", "b"] {
        client.post("/people", json!({"name": name})).await;
    }

    let first = client.get("/people?limit=2").await;
    let second = client.get(&format!("/people?limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    let events = client.get("/events?limit=2").await;
    let rest = client.get(&format!("/events?cursor={}", events["next"].as_str().unwrap())).await;

    let newest = client.get("/events?limit=1&newest=true").await;
    let before = client.get(&format!("/events?newest=true&cursor={}", newest["next"].as_str().unwrap())).await;

    let seqs = |page: &Value| page["items"].as_array().unwrap().iter().map(|e| e["seq"].clone()).collect::<Vec<_>>();
    assert_eq!((seqs(&newest), seqs(&before)), (vec![json!(4)], vec![json!(3), json!(2), json!(1)]));
    let names = |page: &Value| page["items"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect::<Vec<_>>();
    assert_eq!((names(&first), names(&second)), (vec![json!("a"), json!("b")], vec![json!("c")]));
    // Three people, and a key that the bastion made itself.
    assert_eq!((&second["next"], rest["items"].as_array().unwrap().len()), (&Value::Null, 2));
}

#[tokio::test]
async fn an_ssh_client_is_told_what_it_must_know() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;

    let host_ca = keys::bastion_key(&served.app, keys::Purpose::HostCa).await.unwrap();
    let lines = client.get("/known-hosts").await;
    let targets = client.get("/known-hosts/targets").await;

    assert_eq!(lines["bastion"], format!("[bastion.example]:2222 {KEY}"));
    assert_eq!(lines["authority"], format!("@cert-authority * {}", host_ca.public_key));
    assert_eq!(targets[0]["target"], "web-1");
    let line = targets[0]["line"].as_str().unwrap();
    assert!(line.starts_with("web-1,10.0.0.1 ssh-ed25519 AAAA"), "{line}");
}

#[tokio::test]
async fn a_token_ends_with_its_person_or_its_revocation() {
    let served = Served::start().await;
    let auditor = served.person("anna", Role::Auditor).await;
    let admin = served.person("adam", Role::Admin).await;

    let me = auditor.get("/me").await;
    let tokens = admin.get("/tokens").await;
    let annas = tokens["items"].as_array().unwrap().iter().find(|token| token["person"]["name"] == "anna").unwrap();
    admin.send("POST", &format!("/tokens/{}/revoke", annas["id"].as_str().unwrap()), None).await;
    let (revoked, _) = auditor.send("GET", "/me", None).await;
    served.operator().send("POST", "/people/adam/disable", None).await;
    let (disabled, _) = admin.send("GET", "/me", None).await;

    assert_eq!(me, json!({"kind": "person", "name": "anna", "roles": ["auditor"]}));
    assert_eq!([revoked, disabled], [StatusCode::UNAUTHORIZED; 2]);
}

#[tokio::test]
async fn an_admin_makes_tokens_for_nobody_else() {
    let served = Served::start().await;
    let admin = served.person("adam", Role::Admin).await;
    served.person("rita", Role::Reviewer).await;

    let (own, made) = admin.send("POST", "/tokens", Some(json!({"person": "adam", "label": "script"}))).await;
    let (other, _) = admin.send("POST", "/tokens", Some(json!({"person": "rita", "label": "script"}))).await;

    assert_eq!((own, other), (StatusCode::CREATED, StatusCode::FORBIDDEN));
    let with_it = served.remote(made["secret"].as_str());
    assert_eq!(with_it.get("/me").await["name"], "adam");
}

#[tokio::test]
async fn a_socket_in_use_is_not_taken_and_a_dead_one_is_replaced() {
    let served = Served::start().await;
    let settings = ApiSettings { socket: Some(served.socket.clone()), ..ApiSettings::default() };

    let taken = Listeners::bind(&settings).await;
    served.stop.cancel();
    served.task.await.unwrap();
    let dead = std::os::unix::net::UnixListener::bind(&served.socket).unwrap();
    drop(dead); // its file stays behind, as after a crash
    let replaced = Listeners::bind(&settings).await;

    assert!(matches!(taken, Err(BindError::SocketInUse { .. })));
    assert!(replaced.is_ok());
}

#[tokio::test]
async fn only_loopback_addresses_are_listened_on() {
    let settings = ApiSettings { listen: Some("0.0.0.0:0".parse().unwrap()), ..ApiSettings::default() };
    assert!(matches!(Listeners::bind(&settings).await, Err(BindError::NotLoopback { .. })));
}

/// Who may do what: anonymous, engineer, reviewer, auditor, admin, operator.
const ACCESS: &[(&str, [bool; 6])] = &[
    ("health", [true; 6]),
    ("bastion_show", [false, true, true, true, true, true]),
    ("me", [false, true, true, true, true, true]),
    ("sign_in", [true; 6]),
    ("sign_in_ways", [true; 6]),
    ("sign_in_passkey_begin", [true; 6]),
    ("sign_in_passkey", [true; 6]),
    ("sign_out", KNOWN),
    ("own_passkeys", KNOWN),
    ("own_passkeys_begin", KNOWN),
    ("own_passkeys_add", KNOWN),
    ("own_passkeys_remove", KNOWN),
    ("passkeys_list", LOOK),
    ("passkeys_remove", ADMINISTER),
    ("invite_look", [true; 6]),
    ("invite_accept", [true; 6]),
    ("invite_passkey_begin", [true; 6]),
    ("invite_passkey", [true; 6]),
    ("break_glass_list", LOOK),
    ("break_glass_make", ADMINISTER),
    ("break_glass_revoke", ADMINISTER),
    ("break_glass_open", OPERATE),
    ("invites_list", LOOK),
    ("invites_make", ADMINISTER),
    ("invites_revoke", ADMINISTER),
    ("own_web_sessions", KNOWN),
    ("own_web_sessions_end", KNOWN),
    ("own_web_sessions_end_others", KNOWN),
    ("web_sessions_list", LOOK),
    ("web_sessions_end", ADMINISTER),
    ("sign_in_oidc_begin", [true; 6]),
    ("sign_in_oidc_callback", [true; 6]),
    ("people_oidc_show", LOOK),
    ("people_oidc_bind", ADMINISTER),
    ("people_oidc_unbind", ADMINISTER),
    ("known_hosts_show", KNOWN),
    ("known_hosts_targets", LOOK),
    ("people_list", LOOK),
    ("people_add", ADMINISTER),
    ("people_show", LOOK),
    ("people_add_key", ADMINISTER),
    ("people_remove_key", ADMINISTER),
    ("people_set_password", ADMINISTER),
    ("people_remove_password", ADMINISTER),
    ("people_set_roles", ADMINISTER),
    ("people_set_organisation", ADMINISTER),
    ("people_disable", ADMINISTER),
    ("totp_show", LOOK),
    ("totp_begin", ADMINISTER),
    ("totp_reset", ADMINISTER),
    ("totp_confirm", ADMINISTER),
    ("own_totp_show", KNOWN),
    ("own_totp_begin", KNOWN),
    ("own_totp_confirm", KNOWN),
    ("people_enable", ADMINISTER),
    ("targets_list", LOOK),
    ("targets_add", ADMINISTER),
    ("targets_scan", ADMINISTER),
    ("targets_show", LOOK),
    ("targets_change", ADMINISTER),
    ("targets_disable", ADMINISTER),
    ("targets_enable", ADMINISTER),
    ("grants_list", LOOK),
    ("own_grants", KNOWN),
    ("grants_make", ADMINISTER),
    ("grants_preview", ADMINISTER),
    ("grants_show", LOOK),
    ("grants_extend", ADMINISTER),
    ("grants_revoke", ADMINISTER),
    ("templates_list", LOOK),
    ("templates_make", ADMINISTER),
    ("templates_show", LOOK),
    ("templates_change", ADMINISTER),
    ("templates_remove", ADMINISTER),
    ("requests_list", KNOWN),
    ("requests_make", KNOWN),
    ("requests_show", KNOWN),
    ("requests_approve", ADMINISTER),
    ("requests_deny", ADMINISTER),
    ("requests_withdraw", KNOWN),
    ("sessions_list", LOOK),
    ("sessions_show", LOOK),
    ("sessions_cut", ADMINISTER),
    ("sessions_hold", ADMINISTER),
    ("sessions_release", ADMINISTER),
    ("sessions_message", ADMINISTER),
    ("sessions_watch", REPLAY),
    ("sessions_beat", REPLAY),
    ("sessions_files", LOOK),
    ("sessions_commands", LOOK),
    ("search", LOOK),
    ("recordings_show", LOOK),
    ("recordings_index", REPLAY),
    ("recordings_segment", REPLAY),
    ("recordings_frames", REPLAY),
    ("recordings_stored", REPLAY),
    ("evidence_of_grant", REPLAY),
    ("evidence_of_session", REPLAY),
    ("recordings_live", REPLAY),
    ("reviews_list", LOOK),
    ("reviews_summary", LOOK),
    ("reviews_show", LOOK),
    ("reviews_seen", JUDGE),
    ("reviews_flag", JUDGE),
    ("reviews_note", JUDGE),
    ("reviews_sign_off", JUDGE),
    ("live", LOOK),
    ("deletions_ask", DISPOSE),
    ("deletions_list", LOOK),
    ("deletions_show", LOOK),
    ("deletions_approve", DISPOSE),
    ("deletions_refuse", DISPOSE),
    ("holds_set", DISPOSE),
    ("holds_list", LOOK),
    ("holds_release", DISPOSE),
    ("events_list", LOOK),
    ("nodes_list", LOOK),
    ("outbox_list", LOOK),
    ("ledger_show", LOOK),
    ("ledger_keys", KNOWN),
    ("ledger_checkpoint", KNOWN),
    ("ledger_inclusion", LOOK),
    ("ledger_consistency", KNOWN),
    ("ledger_tile", KNOWN),
    ("targets_rotate", ADMINISTER),
    ("targets_schedule_rotation", ADMINISTER),
    ("keys_list", LOOK),
    ("keys_rotate_ledger", ADMINISTER),
    ("keys_rotate_master", ADMINISTER),
    ("keys_stage", ADMINISTER),
    ("keys_activate", ADMINISTER),
    ("keys_retire", ADMINISTER),
    ("tokens_list", LOOK),
    ("tokens_make", ADMINISTER),
    ("tokens_revoke", ADMINISTER),
];
const KNOWN: [bool; 6] = [false, true, true, true, true, true];
const LOOK: [bool; 6] = [false, false, true, true, true, true];
const REPLAY: [bool; 6] = [false, false, true, true, false, true];
const ADMINISTER: [bool; 6] = [false, false, false, false, true, true];
/// The operator is let in, and told that they are nobody.
const JUDGE: [bool; 6] = [false, false, true, false, false, true];
const DISPOSE: [bool; 6] = [false, false, true, false, true, true];
const OPERATE: [bool; 6] = [false, false, false, false, false, true];

/// Every operation of the document: its id, method and path.
pub(super) fn operations() -> Vec<(String, String, String)> {
    let document = serde_json::to_value(openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.filter(|(_, operation)| operation["operationId"].is_string()).map(move |(method, operation)| {
            (operation["operationId"].as_str().unwrap().to_owned(), method.to_uppercase(), path.clone())
        })
    });
    all.collect()
}

#[tokio::test]
async fn every_operation_answers_those_who_may_and_nobody_else() {
    let served = Served::start().await;
    let callers = [
        served.remote(None),
        served.person("e", Role::Engineer).await,
        served.person("r", Role::Reviewer).await,
        served.person("u", Role::Auditor).await,
        served.person("a", Role::Admin).await,
        served.operator(),
    ];
    // Nothing has these names, so that whoever may is told that there is nothing; the body says nothing either.
    let fill = |path: &str| {
        let path = path.strip_prefix("/api/v1").unwrap().replace("{name}", "nobody").replace("{fingerprint}", "x");
        let path = path.replace("{n}", "0");
        let recording = path.replace("recordings/{id}", "recordings/r-00000000000000000000000000");
        let kinds = [
            ("grants", 'g'),
            ("requests", 'q'),
            ("sessions", 's'),
            ("tokens", 'k'),
            ("deletions", 'd'),
            ("holds", 'h'),
            ("passkeys", 'y'),
            ("invites", 'n'),
            ("web-sessions", 'b'),
        ];
        kinds.iter().fold(recording, |path, (noun, prefix)| {
            path.replace(&format!("{noun}/{{id}}"), &format!("{noun}/{prefix}-00000000000000000000000000"))
        })
    };

    for (operation, method, path) in operations() {
        let row = ACCESS.iter().find(|(name, _)| *name == operation);
        let (_, may) = row.unwrap_or_else(|| panic!("`{operation}` has no row in the table of who may do what"));
        for (who, (caller, may)) in callers.iter().zip(may).enumerate() {
            let body = (method != "GET" && method != "DELETE").then(|| json!({}));
            let (status, answer) = caller.send(&method, &fill(&path), body).await;
            let refusal = if who == 0 { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            assert_eq!(status != refusal, *may, "{operation} by caller {who}: {status} {answer}");
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{operation} by caller {who}: {answer}");
        }
    }
    assert_eq!(operations().len(), ACCESS.len(), "a row of the table belongs to no operation");
}

#[tokio::test]
async fn whoever_has_the_public_key_can_verify_an_event_with_what_the_api_gives() {
    use sallyport_domain::ledger::checkpoint::{Checkpoint, KnownKey};
    use sallyport_domain::ledger::{entry, merkle};
    let served = Served::start().await;
    crate::app::ledger::keys::ensure(&served.app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    let client = served.operator();
    client.post("/people", json!({"name": "alice"})).await;
    crate::app::ledger::sequencer::Sequencer::new(served.app.clone()).catch_up().await.unwrap();
    let events = client.get("/events").await;
    let event = events["items"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();

    let proof = client.get(&format!("/ledger/proof/inclusion?event={event}")).await;
    let keys = client.get("/ledger/keys").await;
    let grown = client.get("/ledger/proof/consistency?from=1").await;
    let standing = client.get("/ledger").await;

    let key = KnownKey { key: keys[0]["vkey"].as_str().unwrap().parse().unwrap(), last_size: None };
    let note = proof["checkpoint"].as_str().unwrap();
    let checkpoint = Checkpoint::open(note.as_bytes(), "bastion.example/ledger", &[key]).unwrap();
    let path = |proof: &Value| -> Vec<sallyport_domain::hash::Hash> {
        proof["path"].as_array().unwrap().iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
    };
    let leaf = entry::hash(proof["entry"].as_str().unwrap().as_bytes());
    let index = proof["index"].as_u64().unwrap();
    assert_eq!(merkle::verify_inclusion(leaf, index, &checkpoint.head(), &path(&proof)), Ok(()));
    assert!(proof["entry"].as_str().unwrap().contains(&event));
    assert!(!path(&grown).is_empty());
    assert_eq!((&standing["size"], &standing["waiting"]), (&proof["size"], &json!(0)));
}

#[test]
fn the_document_is_the_one_in_docs() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let built = openapi().to_pretty_json().unwrap() + "\n";
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == built, "docs/openapi.json is behind the code: run `sallyport openapi > docs/openapi.json`");
}
