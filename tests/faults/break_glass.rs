//! Break-glass: an envelope that was made while all was well opens a session while the database is away. It is recorded and bounded as any,
//! and all of it is in the books once they are back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sallyport::app::ledger::verify::{Wish, verify};
use sallyport::app::{audit, break_glass, grants, keys};
use sallyport::store::db;
use sallyport::store::db::events::EventFilter;
use sallyport_domain::event::{Act, CutReason, SessionEnd};
use sallyport_domain::id::{GrantId, SessionId};
use sallyport_domain::policy::Denial;
use serde_json::Value;

use crate::harness::{Collected, OPERATOR, Stores, World, add_person, turn};
use crate::support::clients::Workstation;
use crate::support::eventually;
use crate::support::keys::KeyPair;
use crate::support::postgres::Postgres;

/// What gives back what is typed, and stays when the client's input ends.
const LIVE: &str = "cat; sleep 99";

/// A world with a database that can be stopped, and a desk for envelopes.
struct Emergency {
    world: World,
    postgres: Postgres,
    desk: tempfile::TempDir,
}

impl Emergency {
    async fn prepare() -> Self {
        let postgres = Postgres::new();
        let database = Some(postgres.database().await);
        let world = World::start(&Stores { database, ..Stores::default() }).await;
        Self { world, postgres, desk: crate::support::temporary_folder() }
    }

    /// An envelope for alice, in a file of that name.
    async fn make(&self, name: &str, more: &[&str]) -> (String, Value) {
        let file = self.desk.path().join(name).to_str().unwrap().to_owned();
        let login = &self.world.login;
        let mut arguments = vec!["break-glass", "make", "--person", "alice", "--target", "node-1", "--login", login];
        arguments.extend(["--reason", "for the day", "--out", &file, "--json"]);
        if !more.contains(&"--node") {
            arguments.extend(["--node", "test"]);
        }
        arguments.extend(more);
        let made = self.world.admin(&arguments).await;
        (file, serde_json::from_str(&made).unwrap())
    }

    async fn open(&self, file: &str) -> Value {
        let opened = self.world.admin(&["break-glass", "open", file, "--reason", "all is down", "--json"]).await;
        serde_json::from_str(&opened).unwrap()
    }

    async fn refused(&self, file: &str) -> String {
        self.world.refused_admin(&["break-glass", "open", file, "--reason", "all is down"]).await
    }

    /// Stops the database, and waits until the node knows.
    async fn lose_database(&self) {
        self.postgres.stop();
        let away = "The database does not answer; nobody new is let in";
        eventually("the node knows that the database is away", async || self.world.log().contains(away)).await;
    }

    async fn acts(&self, kind: &str) -> Vec<Act> {
        let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
        let events = audit::list(&self.world.app, 0, &filter, 1000).await.unwrap_or_default();
        events.into_iter().map(|(_, event)| event.act).collect()
    }

    /// Waits until the grant of an opened envelope is in the books.
    async fn grant_is_home(&self, opened: &Value) -> GrantId {
        let id: GrantId = opened["grant"].as_str().unwrap().parse().unwrap();
        eventually("the grant is in the books", async || grants::find(&self.world.app, id).await.is_ok()).await;
        id
    }

    /// Waits until the session of this command is in the books, sealed, and owes a review.
    async fn session_is_home(&self, command: &str) -> SessionId {
        eventually("the session is in the books", async || {
            self.world.app.db.read().await.is_ok() && self.world.recordings().await.contains_key(command)
        })
        .await;
        let session = self.world.recordings().await.remove(command).unwrap().recording.session;
        eventually("the session owes a review", async || {
            let mut tx = self.world.app.db.read().await.unwrap();
            db::reviews::find(&mut tx, session).await.unwrap().is_some_and(|review| review.asked && review.signed == 0)
        })
        .await;
        session
    }

    /// What opened envelopes have on the node's disk.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.world.data().join("break-glass")).unwrap();
        let folders = entries.map(|entry| entry.unwrap().path());
        folders.filter(|path| path.is_dir() && !path.ends_with("used")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_opens_sessions_without_the_database_and_all_of_them_come_to_the_books() {
    let _turn = turn().await;
    let emergency = Emergency::prepare().await;
    let world = &emergency.world;
    let bobs_key = KeyPair::ed25519();
    add_person(&world.app, "bob", &bobs_key).await;
    let (bob, stranger) = (Workstation::new(&bobs_key), Workstation::new(&KeyPair::ed25519()));
    for workstation in [&bob, &stranger] {
        workstation.trust(world.address, &world.host_key().await);
    }
    let mut tx = world.app.db.write().await.unwrap();
    db::nodes::register(&mut tx, uuid::Uuid::now_v7(), "other", "0", world.app.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    let (good, made) = emergency.make("good", &["--for", "1h"]).await;
    let (elsewhere, _) = emergency.make("elsewhere", &["--node", "other"]).await;
    let (revoked, taken_back) = emergency.make("revoked", &[]).await;
    let (late, _) = emergency.make("late", &["--until", "+2s"]).await;
    let all = break_glass::list(&world.app).await.unwrap();
    let end_of_late = all.iter().map(|envelope| envelope.not_after).min().unwrap();
    let id = taken_back["id"].as_str().unwrap();
    world.admin(&["break-glass", "revoke", id, "--reason", "lost"]).await;
    eventually("the node has kept that it is revoked", async || {
        std::fs::read_to_string(world.data().join("break-glass/known")).is_ok_and(|known| known.contains(id))
    })
    .await;
    let key = made["key"].as_str().unwrap();
    let shown = world.admin(&["break-glass", "show", &good, "--key", key, "--json"]).await;
    assert!(shown.contains("for the day") && !shown.contains("PRIVATE"), "{shown}");

    emergency.lose_database().await;

    world.app.clock.sleep_until(end_of_late).await;
    let forged = emergency.desk.path().join("forged").to_str().unwrap().to_owned();
    let text = std::fs::read_to_string(&good).unwrap();
    std::fs::write(&forged, text.replace("\"lasting_seconds\":3600", "\"lasting_seconds\":3599")).unwrap();
    for (file, why) in [
        (&elsewhere, "is for node `other`"),
        (&revoked, "was revoked"),
        (&late, "could be opened until"),
        (&forged, "not an envelope of this bastion"),
    ] {
        let said = emergency.refused(file).await;
        assert!(said.contains(why), "{file}: {said}");
    }
    let said = world.ssh().option("LogLevel=INFO").arg("true").run().await;
    assert!(said.code() != Some(0) && said.errors().contains("cannot let anybody in"), "{}", said.errors());

    let opened = emergency.open(&good).await;

    assert_eq!(opened["in_database"], false);
    let glass = world.ssh().arg("echo glass").run().await.expect_success();
    assert_eq!(glass.text().trim(), "glass");
    for (who, user) in [(&bob, format!("bob+{}@node-1", world.login)), (&bob, world.user()), (&stranger, world.user())]
    {
        assert_ne!(who.ssh(&user, world.address).arg("true").run().await.code(), Some(0), "{user}");
    }
    let other_account = world.workstation.ssh("alice+nobody@node-1", world.address).arg("true").run().await;
    assert_ne!(other_account.code(), Some(0));
    assert_ne!(world.ssh().option("ForwardAgent=no").args(["-W", "127.0.0.1:9"]).run().await.code(), Some(0));
    let said = emergency.refused(&good).await;
    assert!(said.contains("opened here before"), "{said}");
    assert!(world.log().contains("BREAK-GLASS"));

    // One is live while the database returns.
    let mut live = Collected::start(world.ssh().arg(LIVE));
    tokio::io::AsyncWriteExt::write_all(live.child.stdin.as_mut().unwrap(), b"typed\n").await.unwrap();
    live.has_printed(0).await;
    let second = world.ssh().arg("true").run().await;
    assert_ne!(second.code(), Some(0), "one session at a time");
    emergency.postgres.start();
    let grant = emergency.grant_is_home(&opened).await;
    eventually("whoever comes in now comes in by the database", async || {
        world.ssh().arg("echo ordinary").run().await.code() == Some(0)
    })
    .await;
    let before = live.seen_bytes();
    tokio::io::AsyncWriteExt::write_all(live.child.stdin.as_mut().unwrap(), b"still\n").await.unwrap();
    live.has_printed(before).await;
    grants::revoke(&world.app, &OPERATOR, grant, "it is over", None).await.unwrap();
    let (seen, errors) = live.finish().await;
    assert!(errors.contains("ended"), "{errors}");

    let first = emergency.session_is_home("echo glass").await;
    emergency.session_is_home(LIVE).await;
    world.recorded("echo glass").await.covers(&glass.stdout, "echo glass");
    let recorded = world.recorded(LIVE).await;
    recorded.covers(&seen, LIVE);
    assert_eq!(recorded.gaps, 0);
    eventually("nothing is left on the node's disk", async || emergency.folders().is_empty()).await;
    let opened_acts = emergency.acts("break_glass_opened").await;
    assert!(matches!(&opened_acts[..], [Act::BreakGlassOpened { grant: its, .. }] if *its == grant), "{opened_acts:?}");
    let filter = EventFilter { session: Some(first), ..EventFilter::default() };
    let events = audit::list(&world.app, 0, &filter, 1000).await.unwrap();
    let kinds: Vec<String> = events
        .iter()
        .map(|(_, event)| serde_json::to_value(&event.act).unwrap()["act"].as_str().unwrap().to_owned())
        .collect();
    for kind in ["session_opened", "recording_started", "recording_ended", "session_ended", "session_sealed"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} is not among {kinds:?}");
    }
    let list = world.admin(&["break-glass", "ls", "--json"]).await;
    assert!(list.contains("\"opened\"") && list.contains("\"revoked\"") && list.contains("\"ended\""), "{list}");
    let said = emergency.refused(&good).await;
    assert!(said.contains("opened here before"), "{said}");
    assert!(matches!(&emergency.acts("break_glass_refused").await[..], [Act::BreakGlassRefused { .. }]));
    eventually("all is signed and verifies", async || {
        let report = verify(&world.app, Wish::default(), |_| {}).await.unwrap();
        report.faults.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_under_an_envelope_is_cut_when_its_time_is_over_and_the_database_still_away() {
    let _turn = turn().await;
    let emergency = Emergency::prepare().await;
    let world = &emergency.world;
    let (short, _) = emergency.make("short", &["--for", "6s"]).await;
    emergency.lose_database().await;

    let began = Instant::now();
    emergency.open(&short).await;
    let mut live = Collected::start(world.ssh().arg(LIVE));
    tokio::io::AsyncWriteExt::write_all(live.child.stdin.as_mut().unwrap(), b"typed\n").await.unwrap();
    live.has_printed(0).await;
    tokio::time::timeout(Duration::from_secs(20), live.child.wait()).await.expect("it is cut").unwrap();
    assert!(began.elapsed() >= Duration::from_secs(6), "not before its time");
    assert_ne!(world.ssh().arg("true").run().await.code(), Some(0), "its time is over");

    emergency.postgres.start();
    let session = emergency.session_is_home(LIVE).await;
    let record = db::sessions::find(&mut world.app.db.read().await.unwrap(), session).await.unwrap().unwrap();
    let cut = matches!(
        &record.ended,
        Some((_, SessionEnd::Cut { reason: CutReason::Denied { denial: Denial::Expired { .. } } }))
    );
    assert!(cut, "{:?}", record.ended);
    eventually("nothing is left on the node's disk", async || emergency.folders().is_empty()).await;
    assert_ne!(world.ssh().arg("true").run().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_under_an_envelope_brings_what_was_recorded_to_the_books_when_it_returns() {
    let _turn = turn().await;
    let mut emergency = Emergency::prepare().await;
    let (file, _) = emergency.make("envelope", &[]).await;
    emergency.lose_database().await;
    let opened = emergency.open(&file).await;
    let mut live = Collected::start(emergency.world.ssh().arg(LIVE));
    tokio::io::AsyncWriteExt::write_all(live.child.stdin.as_mut().unwrap(), b"typed\n").await.unwrap();
    live.has_printed(0).await;

    emergency.world.kill();
    let (seen, _) = live.finish().await;
    emergency.postgres.start();
    emergency.world.restart();

    emergency.grant_is_home(&opened).await;
    let session = emergency.session_is_home(LIVE).await;
    emergency.world.recorded(LIVE).await.covers(&seen, LIVE);
    let app = &emergency.world.app;
    let record = db::sessions::find(&mut app.db.read().await.unwrap(), session).await.unwrap().unwrap();
    assert!(matches!(record.ended, Some((_, SessionEnd::Crashed))), "{:?}", record.ended);
    let said = emergency.refused(&file).await;
    assert!(said.contains("opened here before"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_is_opened_while_the_database_answers_is_a_grant_there_and_outlives_its_loss() {
    let _turn = turn().await;
    let emergency = Emergency::prepare().await;
    let world = &emergency.world;
    let (file, _) = emergency.make("envelope", &[]).await;
    let host_ca = keys::bastion_key(&world.app, keys::Purpose::HostCa).await.unwrap().public_key;
    world.workstation.trust_ca(&host_ca.parse().unwrap());
    world.workstation.configure(&format!(
        "Host sallyport\nHostName {}\nPort {}\nUser alice\nHost node-1\nProxyJump sallyport\nUser {}",
        world.address.ip(),
        world.address.port(),
        world.login
    ));

    let opened = emergency.open(&file).await;

    assert_eq!(opened["in_database"], true);
    let grant = emergency.grant_is_home(&opened).await;
    world.ssh().arg("echo with").run().await.expect_success();
    assert_eq!(world.sessions().await[0].session.grant, grant);
    emergency.lose_database().await;
    world.ssh().arg("echo without").run().await.expect_success();
    eventually("one can jump, once the session before has ended", async || {
        world.workstation.ssh_plain().arg("node-1").arg("echo jumped").run().await.code() == Some(0)
    })
    .await;
    emergency.postgres.start();
    emergency.session_is_home("echo without").await;
    emergency.session_is_home("echo jumped").await;
    assert_eq!(emergency.acts("break_glass_opened").await.len(), 1);
}
