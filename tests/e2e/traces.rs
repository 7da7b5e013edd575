//! Traces, as a collector gets them from the built program: what hangs together, what must not be in them, and that nobody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::bastion::{Bastion, Settings, Stores};
use crate::support::clients::{Run, Workstation};
use crate::support::keys::KeyPair;
use crate::support::receiver::{Reaction, Receiver};
use crate::support::sshd::{Settings as SshdSettings, Sshd};

const PERSON: &str = "planted-person";
const TARGET: &str = "planted-target";
const PLANTED: [&str; 7] =
    [PERSON, TARGET, "planted-reason", "planted-command", "planted-header", "planted-stranger", "planted-address"];

/// Every attribute that a span may have.
const ATTRIBUTES: [&str; 16] = [
    "outcome",
    "method",
    "session.id",
    "grant.id",
    "recording.id",
    "program",
    "hops",
    "events",
    "bytes",
    "records",
    "destination",
    "http.request.method",
    "http.route",
    "http.response.status_code",
    "service.name",
    "service.version",
];

/// Spans as they came, by their ids.
struct Spans(BTreeMap<Vec<u8>, Span>);

impl Spans {
    fn of(collector: &Receiver) -> Self {
        let mut spans = BTreeMap::new();
        for request in collector.requests().iter().filter(|request| request.was_confirmed()) {
            assert_eq!((request.uri.path(), request.header("content-type")), ("/v1/traces", "application/x-protobuf"));
            let sent = ExportTraceServiceRequest::decode(request.body.clone()).expect("spans in protobuf");
            for span in sent.resource_spans.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans) {
                spans.insert(span.span_id.clone(), span);
            }
        }
        Self(spans)
    }

    /// The names from the root to the span. Panics if a parent never came, or belongs to another trace.
    fn path(&self, span: &Span) -> String {
        if span.parent_span_id.is_empty() {
            return span.name.clone();
        }
        let parent = self.0.get(&span.parent_span_id).unwrap_or_else(|| panic!("no parent of {}", span.name));
        assert_eq!(parent.trace_id, span.trace_id, "{}", span.name);
        assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{}", span.name);
        assert!(span.end_time_unix_nano <= parent.end_time_unix_nano || span.name == "channel", "{}", span.name);
        format!("{}/{}", self.path(parent), span.name)
    }

    /// The spans on a path, each as its attributes.
    fn on(&self, path: &str) -> Vec<BTreeMap<String, String>> {
        self.0.values().filter(|span| self.path(span) == path).map(attributes).collect()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let attributes = span.attributes.iter();
    attributes.map(|one| (one.key.clone(), text(one.value.as_ref().unwrap().value.as_ref().unwrap()))).collect()
}

fn traced(collector: &Receiver, lines: &[String]) -> Settings {
    let endpoint = format!("[traces]\notlp_endpoint = '{}'", collector.url(""));
    Settings { sections: [&[endpoint], lines].concat(), ..Settings::default() }
}

/// A person at a desk, who may go to a target.
struct Desk {
    desk: Workstation,
    _key: KeyPair,
    _sshd: Sshd,
}

impl Desk {
    async fn at(bastion: &Bastion) -> Self {
        let sshd = Sshd::start(&SshdSettings::default());
        let key = KeyPair::ed25519();
        let desk = Workstation::new(&key);
        desk.trust(bastion.address(), bastion.host_key());
        bastion.add_person(PERSON, &key).await;
        bastion.add_target(TARGET, &sshd).await;
        bastion.admin(&["grant", "new", PERSON, TARGET, "--for", "1h", "--reason", "planted-reason"]).await;
        Self { desk, _key: key, _sshd: sshd }
    }

    fn ssh(&self, bastion: &Bastion) -> Run {
        self.desk.ssh(&format!("{PERSON}+{}@{TARGET}", Sshd::login()), bastion.address())
    }
}

async fn doctor(bastion: &Bastion) -> serde_json::Value {
    let config = bastion.path("sallyport.toml");
    let output = bastion.try_admin(&["doctor", "--json", "--config", config.to_str().unwrap()]).await;
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = page["items"].as_array().unwrap();
    checks.iter().find(|check| check["what"] == "traces").cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_how_a_session_came_about_and_nobodys_name() {
    let collector = Receiver::start().await;
    let folder = crate::support::temporary_folder();
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "X-Scope: planted-header\n").unwrap();
    let lines = [
        format!("headers_file = '{}'", headers.display()),
        format!("[[outbox]]\nname = 'siem'\nkind = 'file'\npath = '{}'", folder.path().join("events").display()),
    ];
    let mut bastion = Bastion::start(Stores::Small, traced(&collector, &lines)).await;
    let desk = Desk::at(&bastion).await;
    bastion.ask(&["person", "show", PERSON]).await;

    desk.ssh(&bastion).arg("echo planted-command").run().await.expect_success();
    let stranger = desk.desk.ssh("planted-stranger+root@planted-target", bastion.address()).arg("true").run().await;
    let denied = desk.desk.ssh(&format!("{PERSON}+planted-login@{TARGET}"), bastion.address()).arg("true").run().await;
    assert_eq!((stranger.code(), denied.code()), (Some(255), Some(254)), "{}", denied.errors());
    crate::support::eventually("the session has ended", async || bastion.sessions().await[0]["ended_at"].is_string())
        .await;
    let session = bastion.sessions().await.remove(0);
    assert_eq!(doctor(&bastion).await["state"], "ok");
    crate::support::eventually("a batch has gone out", async || {
        let spans = Spans::of(&collector);
        spans.0.values().any(|span| span.name == "outbox.batch")
    })
    .await;
    bastion.stop();

    let spans = Spans::of(&collector);
    let has = |path: &str, expected: &[(&str, &str)]| {
        let found = spans.on(path);
        let fits = |one: &BTreeMap<String, String>| expected.iter().all(|(key, value)| one[*key] == *value);
        assert!(found.iter().any(fits), "{path} {expected:?}: {found:?}");
    };
    let id = session["id"].as_str().unwrap();
    has("ssh.connection", &[]);
    has("ssh.connection/ssh.login", &[("outcome", "accepted"), ("method", "publickey")]);
    has("ssh.connection/ssh.login", &[("outcome", "refused")]);
    has("ssh.connection/session.decide", &[("outcome", "allowed"), ("session.id", id)]);
    has("ssh.connection/session.decide", &[("outcome", "denied")]);
    has("ssh.connection/session", &[("session.id", id), ("outcome", "client_closed")]);
    has("ssh.connection/session/channel", &[("program", "exec")]);
    has("ssh.connection/session/target.dial", &[("outcome", "connected"), ("hops", "1")]);
    has("ssh.connection/session/target.dial/target.connect", &[]);
    has(
        "ssh.connection/session/target.dial/target.authenticate",
        &[("outcome", "accepted"), ("method", "certificate")],
    );
    has("recording.ship", &[("outcome", "stored")]);
    has("ledger.batch", &[("outcome", "placed")]);
    has("outbox.batch", &[("outcome", "taken"), ("destination", "siem")]);
    has("GET /api/v1/people/{name}", &[("http.route", "/api/v1/people/{name}"), ("http.response.status_code", "200")]);
    for span in spans.0.values() {
        assert!(span.events.is_empty() && span.links.is_empty(), "{span:?}");
        let keys: BTreeSet<String> = attributes(span).into_keys().collect();
        assert!(keys.iter().all(|key| ATTRIBUTES.contains(&key.as_str())), "{keys:?}");
    }
    for request in collector.requests() {
        assert_eq!(request.header("x-scope"), "planted-header");
        let seen = String::from_utf8_lossy(&request.body).into_owned();
        for planted in PLANTED {
            assert!(!seen.contains(planted), "{planted}");
        }
    }
    assert!(!bastion.log().contains("planted-header"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_is_within_the_connection_that_carries_it_and_what_fails_says_how() {
    let collector = Receiver::start().await;
    let mut bastion = Bastion::start(Stores::Small, traced(&collector, &[])).await;
    let desk = Desk::at(&bastion).await;
    let ca = bastion.admin(&["ca", "host"]).await;
    let key = ca.trim().strip_prefix("@cert-authority * ").expect("a line for known_hosts");
    desk.desk.trust_ca(&russh::keys::PublicKey::from_openssh(key).unwrap());
    let address = bastion.address();
    desk.desk.configure(&format!(
        "Host sallyport\nHostName {}\nPort {}\nUser {PERSON}\nHost {TARGET}\nProxyJump sallyport\nUser {}",
        address.ip(),
        address.port(),
        Sshd::login()
    ));
    let away = format!("127.0.0.1:{}", crate::support::free_port());
    let key = bastion.host_key().to_openssh().unwrap();
    let login = Sshd::login();
    bastion.admin(&["target", "add", "planted-address", &away, "--login", &login, "--host-key", &key]).await;
    bastion.grant(PERSON, "planted-address").await;

    desk.desk.ssh_plain().arg(TARGET).arg("true").run().await.expect_success();
    let lost = desk.desk.ssh(&format!("{PERSON}+{login}@planted-address"), address).arg("true").run().await;
    assert_ne!(lost.code(), Some(0));
    bastion.stop();

    let spans = Spans::of(&collector);
    let outcomes = |path: &str| -> Vec<String> {
        spans.on(path).iter().map(|one| one.get("outcome").cloned().unwrap_or_default()).collect()
    };
    assert_eq!(outcomes("ssh.connection/ssh.jump/session"), ["client_closed"]);
    assert_eq!(outcomes("ssh.connection/ssh.jump/session/target.dial"), ["connected"]);
    assert!(outcomes("ssh.connection/session/target.dial").contains(&"unreachable".to_owned()));
    let failed = spans.0.values().find(|span| attributes(span).get("outcome").is_some_and(|it| it == "unreachable"));
    assert_eq!(failed.unwrap().status.as_ref().unwrap().code, 2, "an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_collector_that_is_away_or_stands_still() {
    let stalled = Receiver::that(Reaction::Stall).await;
    let mut away = Receiver::start().await;
    away.go_away().await;
    for collector in [&away, &stalled] {
        let mut bastion = Bastion::start(Stores::Small, traced(collector, &[])).await;
        let desk = Desk::at(&bastion).await;

        for _ in 0..3 {
            desk.ssh(&bastion).arg("true").run().await.expect_success();
        }
        crate::support::eventually("the log says so", async || bastion.log().contains("takes no traces")).await;
        let said = bastion.log().matches("takes no traces").count();
        desk.ssh(&bastion).arg("true").run().await.expect_success();
        assert_eq!(doctor(&bastion).await["state"], "failed");
        let began = Instant::now();
        bastion.stop();

        // The flush has three seconds; what else the end takes is little.
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let log = bastion.log();
        assert!(log.contains("The bastion has stopped.") && log.contains("The last traces did not get"), "{log}");
        assert_eq!((said, log.matches("takes no traces").count()), (1, 1), "it is said once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_none_in_a_hundred_nothing_is_sent() {
    let collector = Receiver::start().await;
    let mut bastion = Bastion::start(Stores::Small, traced(&collector, &["share = 0".to_owned()])).await;
    let desk = Desk::at(&bastion).await;

    desk.ssh(&bastion).arg("true").run().await.expect_success();
    bastion.stop();

    assert_eq!(collector.requests().len(), 0);
}
