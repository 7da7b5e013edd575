//! Destinations with real receivers: an HTTP server that fails in many ways, rsyslog over TLS, files that are rotated, a mail server.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use chrono::TimeDelta;
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::id::SessionId;
use sallyport_domain::policy::Denial;
use serde_json::Value;
use tempfile::TempDir;

use super::settings::{DestinationKind, DestinationSettings, NotifyKind, NotifySettings};
use super::*;
use crate::app::audit::{self, EventFilter};
use crate::app::ledger::keys;
use crate::app::ledger::sequencer::Sequencer;
use crate::store::db::Db;
use crate::store::db::testing::{app_on, on_both, open};
use crate::support::eventually;
use crate::support::receiver::{Reaction, Receiver as HttpReceiver, Request};
use crate::support::rsyslog::Rsyslog;

async fn ready(db: Db) -> App {
    let app = app_on(db);
    keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    grow(&app, 0).await;
    app
}

async fn on_sqlite() -> (App, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (ready(open(format!("sqlite:{}/test.db", folder.path().display())).await).await, folder)
}

/// As many events more, in their places.
async fn grow(app: &App, events: u128) {
    for number in 0..events {
        let session = SessionId::from_uuid(Uuid::from_u128(number));
        record(app, Act::SessionEnded { session, end: SessionEnd::ClientClosed }).await;
    }
    Sequencer::new(app.clone()).catch_up().await.unwrap();
}

async fn record(app: &App, act: Act) {
    audit::record(app, &Actor::Bastion, act).await.unwrap();
}

async fn acts(app: &App, kind: &str) -> usize {
    let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
    audit::list(app, 0, &filter, 100).await.unwrap().len()
}

/// A file with a secret in it.
fn secret(folder: &TempDir, text: &str) -> Option<PathBuf> {
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    Some(path)
}

fn settings(kind: DestinationKind) -> DestinationSettings {
    DestinationSettings {
        name: "siem".to_owned(),
        kind: Some(kind),
        batch: 7,
        timeout: Duration::from_secs(2),
        retry_most: Duration::from_millis(50),
        ..DestinationSettings::default()
    }
}

fn to_webhook(receiver: &HttpReceiver, folder: &TempDir) -> DestinationSettings {
    let url = Some(receiver.url("/hook"));
    DestinationSettings { url, secret_file: secret(folder, "topsecret"), ..settings(DestinationKind::Webhook) }
}

/// The destinations of a node at work; dropping it lets it die without a word.
struct Node {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    fn start(app: &App, name: &str, destinations: &[DestinationSettings], notify: &[NotifySettings]) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Outbox::open(destinations, notify, name).unwrap().start(app, &tasks, &stop);
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn standing(app: &App) -> Standing {
    standings(app).await.unwrap().into_iter().next().unwrap()
}

/// Waits until the destination has been told of everything.
async fn all_told(app: &App) {
    eventually("everything is told", async || {
        let all = standings(app).await.unwrap();
        !all.is_empty() && all.iter().all(|one| one.waiting == 0)
    })
    .await;
}

/// The places of the records of a webhook's requests.
fn places(requests: &[Request]) -> Vec<u64> {
    let records = |request: &Request| -> Vec<u64> {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        body["records"].as_array().unwrap().iter().map(|record| record["seq"].as_u64().unwrap()).collect()
    };
    requests.iter().flat_map(records).collect()
}

#[tokio::test]
async fn a_webhook_that_fails_in_every_way_gets_each_event_in_order_and_twice_only_what_it_did_not_confirm() {
    on_both(|db| async {
        let app = ready(db).await;
        let folder = tempfile::tempdir().unwrap();
        let mut receiver = HttpReceiver::start().await;
        receiver.then([
            Reaction::Answer(200),
            Reaction::Answer(500),
            Reaction::Break,
            Reaction::AnswerAfter(429, 0),
            Reaction::Answer(301),
            Reaction::Answer(403),
            Reaction::Stall,
            Reaction::Answer(413),
        ]);
        let node = Node::start(&app, "a", &[to_webhook(&receiver, &folder)], &[]);
        for _ in 0..4 {
            grow(&app, 9).await;
        }
        all_told(&app).await;
        receiver.go_away().await;
        grow(&app, 20).await;
        eventually("it is noticed", async || standing(&app).await.state.error.is_some()).await;
        assert!(standing(&app).await.waiting >= 20);
        receiver.come_back().await;
        all_told(&app).await;
        node.stop().await;

        let requests = receiver.requests();
        let confirmed: Vec<Request> = requests.iter().filter(|request| request.was_confirmed()).cloned().collect();
        let size = standing(&app).await.state.next.index;
        assert_eq!(places(&confirmed), (0..size).collect::<Vec<_>>(), "each once, in order");
        let twice = requests.len() - confirmed.len();
        assert!(twice >= 7, "{twice} requests were not confirmed");
        let standing = standing(&app).await;
        assert_eq!((standing.state.sent, standing.state.dropped, standing.state.error), (size, 0, None));
        assert!(standing.state.held_until.is_none(), "the turn was given back");
        for request in &requests {
            let body = std::str::from_utf8(&request.body).unwrap();
            let signed = format!("{}.{body}", request.header("Sallyport-Timestamp"));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"topsecret"), signed.as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(request.header("Sallyport-Signature"), format!("v1={hex}"));
        }
    })
    .await;
}

#[tokio::test]
async fn one_node_at_a_time_works_a_destination_and_another_goes_on_where_it_stopped() {
    on_both(|db| async {
        let app = ready(db).await;
        let folder = tempfile::tempdir().unwrap();
        let receiver = HttpReceiver::start().await;
        let destination = || to_webhook(&receiver, &folder);
        let first = Node::start(&app, "a", &[destination()], &[]);
        grow(&app, 10).await;
        all_told(&app).await;
        let second = Node::start(&app, "b", &[destination()], &[]);
        grow(&app, 10).await;
        all_told(&app).await;
        assert_eq!(standing(&app).await.state.node.as_deref(), Some("a"));

        first.stop().await;
        grow(&app, 10).await;
        all_told(&app).await;

        assert_eq!(standing(&app).await.state.node.as_deref(), Some("b"));
        let size = standing(&app).await.state.next.index;
        assert_eq!(places(&receiver.requests()), (0..size).collect::<Vec<_>>());
        second.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_turn_that_was_not_given_back_ends_by_itself() {
    let (app, folder) = on_sqlite().await;
    let receiver = HttpReceiver::start().await;
    let mut destination = to_webhook(&receiver, &folder);
    destination.batch = 100;
    let opened = || Arc::new(Destination::open(&destination).unwrap());
    let holder = |process: &str| Holder { node: process.to_owned(), process: process.to_owned() };
    let mut dead = Worker::new(app.clone(), opened(), holder("dead"));
    let mut other = Worker::new(app.clone(), opened(), holder("other"));
    grow(&app, 3).await;
    dead.turn().await;
    grow(&app, 3).await;

    other.turn().await;
    assert_eq!(receiver.requests().len(), 1, "it is the other's turn");
    app.clock.advance(Duration::from_mins(1));
    other.turn().await;
    assert_eq!(receiver.requests().len(), 2);

    // Whoever was thought dead wakes up: it does not have the turn any more, and moves nothing.
    dead.turn().await;
    assert_eq!(places(&receiver.requests()), (0..standing(&app).await.state.next.index).collect::<Vec<_>>());
}

#[tokio::test]
async fn rsyslog_over_tls_gets_each_event_in_order_and_goes_on_after_its_restart() {
    let (app, folder) = on_sqlite().await;
    let rsyslog = Rsyslog::start();
    let destination = DestinationSettings {
        address: Some(rsyslog.address()),
        ca_file: Some(rsyslog.authority()),
        timeout: Duration::from_secs(10),
        ..settings(DestinationKind::Syslog)
    };
    let node = Node::start(&app, "node-a", &[destination], &[]);
    record(&app, Act::LedgerAlarm { place: "größe".to_owned(), what: "x".repeat(20_000) }).await;
    grow(&app, 20).await;
    all_told(&app).await;
    rsyslog.stop();
    grow(&app, 20).await;
    eventually("it is noticed", async || standing(&app).await.state.error.is_some()).await;
    rsyslog.restart();
    all_told(&app).await;
    node.stop().await;
    let size = standing(&app).await.state.next.index;

    let received = || -> Vec<Value> {
        let json = |line: &String| serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap();
        rsyslog.received().iter().map(json).collect()
    };
    eventually("all is written", async || received().len() as u64 >= size).await;

    let seqs: Vec<u64> = received().iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (0..size).collect::<Vec<_>>());
    let first = &rsyslog.received()[0];
    assert!(first.starts_with("<109>1 2026-03-02T12:00:00.000000Z node-a sallyport "), "{first}");
    assert!(first.contains(" [event@32473 seq=\"0\" part=\"0\" id=\"e-"), "{first}");
    let alarm = rsyslog.received().into_iter().find(|line| line.contains("ledger_alarm")).unwrap();
    assert!(alarm.starts_with("<105>1 ") && alarm.contains("left_out_bytes") && alarm.len() < 1000, "{alarm}");
    drop(folder);
}

fn points(request: &Request) -> Vec<String> {
    let mut text = String::new();
    if request.header("Content-Encoding") == "gzip" {
        flate2::read::GzDecoder::new(&*request.body).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(request.body.to_vec()).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

fn seqs(points: &[String]) -> Vec<u64> {
    let seq = |point: &String| point.split("seq=").nth(1).unwrap().split('i').next().unwrap().parse().unwrap();
    points.iter().map(seq).collect()
}

#[tokio::test]
async fn datakit_gets_points_in_order_and_what_it_cannot_read_is_given_up_and_told_once() {
    let (app, _folder) = on_sqlite().await;
    let receiver = HttpReceiver::start().await;
    let tags = [("client".to_owned(), "acme corp".to_owned())].into();
    let destination = DestinationSettings { url: Some(receiver.url("")), tags, ..settings(DestinationKind::Datakit) };
    grow(&app, 30).await;
    receiver.then([
        Reaction::AnswerAfter(429, 0),
        Reaction::Answer(400),
        Reaction::Answer(400),
        Reaction::Answer(503),
        Reaction::Answer(403),
    ]);
    let node = Node::start(&app, "a", &[destination], &[]);
    eventually("it is told", async || acts(&app, "outbox_dropped").await > 0).await;
    grow(&app, 0).await; // the event about it gets its place
    all_told(&app).await;
    node.stop().await;

    let requests = receiver.requests();
    assert!(requests.iter().all(|request| request.uri == "/v1/write/logging?precision=n"), "{requests:?}");
    let taken = |request: &&Request| request.was_confirmed();
    let all: Vec<String> = requests.iter().filter(taken).flat_map(points).collect();
    let size = standing(&app).await.state.next.index;
    assert_eq!(seqs(&all), (14..size).collect::<Vec<_>>(), "two batches of seven were refused");
    assert!(all[0].starts_with("bastion_audit,client=acme\\ corp,event=session_ended,severity=info status=\"info\","));
    let state = standing(&app).await.state;
    assert_eq!((state.dropped, state.sent, acts(&app, "outbox_dropped").await), (14, size - 14, 1));
    assert!(state.last_drop.unwrap().contains("7 records of the events 7 to 13"));
}

#[tokio::test]
async fn dataway_gets_compressed_points_and_its_token_shows_nowhere() {
    let (app, folder) = on_sqlite().await;
    let mut receiver = HttpReceiver::start().await;
    let token_file = secret(&folder, "tkn_secret42\n");
    let url = Some(receiver.url("/"));
    let destination = DestinationSettings { url, token_file, ..settings(DestinationKind::Dataway) };
    grow(&app, 20).await;
    receiver.then([Reaction::Answer(502), Reaction::Answer(404), Reaction::Answer(429)]);
    let node = Node::start(&app, "a", std::slice::from_ref(&destination), &[]);
    eventually("it is told", async || acts(&app, "outbox_dropped").await > 0).await;
    grow(&app, 0).await;
    all_told(&app).await;
    receiver.go_away().await;
    grow(&app, 1).await;
    eventually("it is noticed", async || standing(&app).await.state.error.is_some()).await;
    let state = standing(&app).await.state;
    receiver.come_back().await;
    all_told(&app).await;
    node.stop().await;

    let requests = receiver.requests();
    assert_eq!(requests[0].uri, "/v1/write/logging?token=tkn_secret42&precision=n");
    assert_eq!((requests[0].header("X-Points"), requests[0].header("Content-Encoding")), ("7", "gzip"));
    let taken = |request: &&Request| request.was_confirmed();
    let all: Vec<String> = requests.iter().filter(taken).flat_map(points).collect();
    let size = standing(&app).await.state.next.index;
    assert_eq!(seqs(&all), (7..size).collect::<Vec<_>>(), "404 gives up one batch, 502 and 429 none");
    let events = audit::list(&app, 0, &EventFilter::default(), 1000).await.unwrap();
    let shown = format!("{state:?} {events:?} {destination:?}");
    assert!(!shown.contains("tkn_secret42"), "{shown}");
    assert!(state.error.unwrap().contains("Connection refused"), "the reason is there all the same");
}

#[tokio::test]
async fn a_receiver_that_refuses_everything_does_not_make_events_without_end() {
    let (app, folder) = on_sqlite().await;
    let receiver = HttpReceiver::that(Reaction::Answer(400)).await;
    let token_file = secret(&folder, "tkn_1");
    let destination =
        DestinationSettings { url: Some(receiver.url("")), token_file, batch: 1, ..settings(DestinationKind::Dataway) };
    let mut worker = Worker::new(
        app.clone(),
        Arc::new(Destination::open(&destination).unwrap()),
        Holder { node: "a".to_owned(), process: "a".to_owned() },
    );
    grow(&app, 3).await;
    for _ in 0..20 {
        worker.turn().await;
        grow(&app, 0).await;
    }
    assert_eq!(acts(&app, "outbox_dropped").await, 1);
    assert_eq!(standing(&app).await.waiting, 0);
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_file_that_is_rotated_goes_on_in_a_new_one_with_what_is_chosen() {
    let (app, folder) = on_sqlite().await;
    let path = folder.path().join("events.jsonl");
    let events = vec!["*".to_owned(), "!session_*".to_owned()];
    let destination = DestinationSettings { path: Some(path.clone()), events, ..settings(DestinationKind::File) };
    let node = Node::start(&app, "a", &[destination], &[]);
    let alarm = |what: &str| Act::LedgerAlarm { place: "x".to_owned(), what: what.to_owned() };
    record(&app, alarm("one")).await;
    grow(&app, 30).await;
    all_told(&app).await;
    std::fs::rename(&path, folder.path().join("events.jsonl.1")).unwrap();
    record(&app, alarm("two")).await;
    grow(&app, 3).await;
    all_told(&app).await;
    node.stop().await;

    let old = lines(&folder.path().join("events.jsonl.1"));
    let kinds: Vec<&str> = old.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["bastion_key_made", "ledger_alarm"]);
    assert_eq!(lines(&path)[0]["act"]["what"], "two");
}

#[tokio::test]
async fn a_destination_that_fails_for_long_is_an_alarm_once_and_recovers() {
    let (app, folder) = on_sqlite().await;
    let receiver = HttpReceiver::that(Reaction::Answer(200)).await;
    receiver.then(vec![Reaction::Answer(500); 3]);
    let destination = to_webhook(&receiver, &folder);
    let holder = Holder { node: "a".to_owned(), process: "a".to_owned() };
    let mut worker = Worker::new(app.clone(), Arc::new(Destination::open(&destination).unwrap()), holder);
    worker.turn().await;
    assert!(!standing(&app).await.state.late);
    app.clock.advance(destination.late_after);
    worker.turn().await;
    worker.turn().await;
    let state = standing(&app).await.state;
    assert!(state.late && state.retry_at.is_some_and(|at| at - app.clock.now() < TimeDelta::seconds(1)));
    assert_eq!(acts(&app, "outbox_late").await, 1);
    worker.turn().await;
    assert_eq!((standing(&app).await.state.late, acts(&app, "outbox_recovered").await), (false, 1));
}

fn notify(kind: NotifyKind) -> NotifySettings {
    NotifySettings {
        name: "ops".to_owned(),
        kind: Some(kind),
        timeout: Duration::from_secs(5),
        retry_most: Duration::from_millis(50),
        ..NotifySettings::default()
    }
}

fn denied() -> Act {
    let address = "203.0.113.9:4711".parse().unwrap();
    let person = sallyport_domain::id::PrincipalId::from_uuid(Uuid::from_u128(7));
    Act::Denied { person, address, wanted: "web-1 <!channel>".to_owned(), denial: Denial::NoGrant }
}

#[tokio::test]
async fn a_chat_is_told_of_what_was_chosen_from_now_on_and_again_until_its_robot_says_yes() {
    let (app, folder) = on_sqlite().await;
    let receiver = HttpReceiver::that(Reaction::Say("{\"errcode\":0}".to_owned())).await;
    receiver.then([Reaction::Say("{\"errcode\":310000,\"errmsg\":\"sign not match\"}".to_owned())]);
    let url_file = secret(&folder, &receiver.url("/robot/send?access_token=hidden"));
    record(&app, denied()).await;
    grow(&app, 3).await;
    let node = Node::start(&app, "a", &[], &[NotifySettings { url_file, ..notify(NotifyKind::Dingtalk) }]);
    all_told(&app).await;
    record(&app, denied()).await;
    grow(&app, 3).await;
    all_told(&app).await;
    node.stop().await;

    let requests = receiver.requests();
    assert_eq!(requests.len(), 2, "what was before is not told, and an unhappy robot is asked again");
    assert_eq!(requests[0].body, requests[1].body);
    let body: Value = serde_json::from_slice(&requests[1].body).unwrap();
    let text = body["text"]["content"].as_str().unwrap();
    assert!(text.starts_with("Sallyport bastion.example\n2026-03-02 12:00 UTC p-"), "{text}");
    assert!(text.contains("was refused “web-1 ‹!channel›”: no grant for this target"), "{text}");
    assert!(!text.contains("session ended"), "{text}");
}

/// A mail server that takes one mail after the other; the first is refused for now.
async fn mail_server() -> (std::net::SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, mails) = (listener.local_addr().unwrap(), Arc::<std::sync::Mutex<Vec<String>>>::default());
    let taken = mails.clone();
    tokio::spawn(async move {
        let mut refusals = 1;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
            let mut mail = None;
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = match (&mut mail, line.as_str()) {
                    (Some(_), ".") => {
                        taken.lock().unwrap().extend(mail.take());
                        "250 taken\r\n"
                    }
                    (Some(mail), line) => {
                        let mail: &mut String = mail;
                        mail.push_str(line);
                        mail.push('\n');
                        continue;
                    }
                    (None, "DATA") if refusals > 0 => {
                        refusals -= 1;
                        "451 not now, bastion@example.com\r\n"
                    }
                    (None, "DATA") => {
                        mail = Some(String::new());
                        "354 go on\r\n"
                    }
                    (None, "QUIT") => "221 bye\r\n",
                    (None, _) => "250 ok\r\n",
                };
                writer.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address, mails)
}

#[tokio::test]
async fn mail_tells_of_many_events_in_one_and_is_handed_in_again_until_it_is_taken() {
    let (app, _folder) = on_sqlite().await;
    let (address, mails) = mail_server().await;
    let mail = NotifySettings {
        server: Some(format!("smtp+plain://{address}")),
        from: Some("Sallyport <bastion@example.com>".to_owned()),
        to: vec!["ops@example.com".to_owned(), "night@example.com".to_owned()],
        ..notify(NotifyKind::Mail)
    };
    let mut worker = Worker::new(
        app.clone(),
        Arc::new(Destination::open_for_people(&mail).unwrap()),
        Holder { node: "a".to_owned(), process: "a".to_owned() },
    );
    worker.turn().await;
    for _ in 0..3 {
        record(&app, denied()).await;
    }
    grow(&app, 0).await;

    worker.turn().await;
    assert_eq!(standing(&app).await.state.error.as_deref(), Some("the mail server answered 451"));
    worker.turn().await;

    let mails = mails.lock().unwrap().clone();
    assert_eq!((mails.len(), standing(&app).await.waiting), (1, 0));
    assert!(mails[0].contains("To: ops@example.com, night@example.com\n"), "{}", mails[0]);
    assert!(mails[0].contains("Subject: "), "{}", mails[0]);
    assert!(mails[0].contains("Message-ID: <ops."), "{}", mails[0]);
}
