//! What is counted is counted over all nodes, what is asked for on one is answered on another, and a node that alone has lost the
//! database lets nobody in and ends what it has.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sallyport_domain::event::SessionEnd;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::harness::{Collected, Node, Recorded, Stores, World, recordings, turn};
use crate::support::clients::{Output, Run, Workstation};
use crate::support::eventually;
use crate::support::keys::KeyPair;
use crate::support::postgres::Postgres;
use crate::support::s3::S3;

/// Nodes `test` and `other` on one database and one object store.
async fn two(more: &[&str]) -> (World, Node, S3) {
    let s3 = S3::start().await;
    let database = Some(Postgres::shared().database().await);
    let stores = Stores { database, s3: Some(&s3), more: more.to_vec(), ..Stores::default() };
    let world = World::start(&stores).await;
    let other = world.join("other", &stores).await;
    (world, other, s3)
}

impl World {
    /// Gives alice an hour, on these terms.
    async fn grant_with(&self, terms: &[&str]) {
        let start = ["grant", "new", "alice", "node-1", "--login", &self.login, "--for", "1h", "--reason", "a test"];
        self.admin(&[&start[..], terms].concat()).await;
    }
}

/// The only request for consent, as the first node tells it: its id, and that of the session that waits.
async fn waiting(world: &World) -> (String, String) {
    let mut found = None;
    eventually("a session waits", async || {
        let open: serde_json::Value =
            serde_json::from_str(&world.admin(&["request", "ls", "--output", "json"]).await).unwrap();
        found = open["items"].as_array().unwrap().first().map(|request| {
            (request["id"].as_str().unwrap().to_owned(), request["session"].as_str().unwrap().to_owned())
        });
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_one_session_is_for_one_however_many_come_at_once_to_however_many_nodes() {
    let _turn = turn().await;
    let (world, other, _s3) = two(&[]).await;
    world.grant_with(&["--max-sessions", "1"]).await;

    let mut clients: Vec<Collected> = (0..8)
        .map(|number| if number % 2 == 0 { world.ssh() } else { world.ssh_through(&other) })
        .map(|run| Collected::start(run.arg("echo in; cat")))
        .collect();
    let mut live = Vec::new();
    eventually("all but one are refused", async || {
        live = clients.iter_mut().map(|client| client.child.try_wait().unwrap().is_none()).collect();
        live.iter().filter(|&&live| live).count() == 1
    })
    .await;

    for (client, live) in clients.into_iter().zip(live) {
        if live {
            client.has_printed(0).await;
            assert_eq!(client.seen(), b"in\n");
            client.finish().await;
        } else {
            let (seen, said) = client.finish().await;
            assert!(seen.is_empty() && said.contains("the grant allows 1 sessions at once"), "{said}");
        }
    }
    world.all_ended().await;
    world.ssh_through(&other).arg("echo next").run().await.expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_fails_on_one_node_and_on_the_other_is_refused_on_both() {
    let _turn = turn().await;
    let limit = "ssh.failures_per_address = { limit = 3, window = \"10m\" }";
    let (world, other, _s3) = two(&[limit]).await;
    world.grant_with(&[]).await;
    world.ssh().arg("true").run().await.expect_success();
    let unknown = KeyPair::ed25519();
    let stranger = Workstation::new(&unknown);
    for address in [world.address, other.address] {
        stranger.trust(address, &world.host_key().await);
        for _ in 0..2 {
            let refused = stranger.ssh(&world.user(), address).arg("true").run().await;
            assert!(refused.errors().contains("Permission denied"), "{}", refused.errors());
        }
    }

    for run in [|world: &World, _: &Node| world.ssh(), |world: &World, other: &Node| world.ssh_through(other)] {
        eventually("nobody from there is let in", async || {
            let refused = run(&world, &other).arg("true").run().await;
            refused.code() == Some(255) && !refused.errors().contains("Permission denied")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_code_opens_one_node_once() {
    let _turn = turn().await;
    let (world, other, _s3) = two(&[]).await;
    world.grant_with(&["--two-factor"]).await;
    let begun = world.admin(&["person", "totp", "enrol", "alice", "--output", "json"]).await;
    let begun: serde_json::Value = serde_json::from_str(&begun).unwrap();
    let secret = totp_rs::Secret::try_from_base32(begun["secret"].as_str().unwrap()).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret.as_bytes()).build().unwrap();
    let code = |steps: i64| {
        let at = world.app.clock.now().timestamp() + 30 * steps;
        totp.generate(u64::try_from(at).unwrap()).to_string()
    };
    world.admin(&["person", "totp", "confirm", &code(-1), "alice"]).await;

    let code = code(0);
    let second_desk = world.second_desk();
    second_desk.trust(other.address, &world.host_key().await);
    let with_code =
        |run: Run| run.answers(&[("Verification code:", &code)]).option("NumberOfPasswordPrompts=1").arg("true");
    let (one, two) =
        tokio::join!(with_code(world.ssh()).run(), with_code(second_desk.ssh(&world.user(), other.address)).run(),);

    let is_in = |output: &Output| output.code() == Some(0);
    assert_ne!(is_in(&one), is_in(&two), "one of them: {} {}", one.errors(), two.errors());
    for (run, node) in [(world.ssh(), "the first"), (world.ssh_through(&other), "the other")] {
        let again = with_code(run).run().await;
        assert!(again.errors().contains("Permission denied"), "{node}: {}", again.errors());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_one_node_is_approved_denied_and_watched_on_another() {
    const SOON: Duration = Duration::from_secs(2);
    let _turn = turn().await;
    let (world, other, _s3) = two(&[]).await;
    world.grant_with(&["--approve-each"]).await;

    let client = Collected::start(world.ssh_through(&other).arg("echo in"));
    let (request, _) = waiting(&world).await;
    world.admin(&["request", "approve", &request]).await;
    let answered = Instant::now();
    client.has_printed(0).await;
    assert!(answered.elapsed() < SOON, "a yes took {:?}", answered.elapsed());
    client.finish().await;
    world.all_ended().await;

    let client = Collected::start(world.ssh_through(&other).arg("echo in"));
    let (request, _) = waiting(&world).await;
    world.admin(&["request", "deny", &request, "--reason", "not tonight"]).await;
    let answered = Instant::now();
    let (seen, said) = client.finish().await;
    assert!(answered.elapsed() < SOON, "a no took {:?}", answered.elapsed());
    assert!(seen.is_empty() && said.contains("not tonight"), "{said}");

    for grant in grants(&world).await {
        world.admin(&["grant", "revoke", &grant, "--reason", "another kind"]).await;
    }
    world.grant_with(&["--watched"]).await;
    let mut client = Collected::start(world.ssh().arg("echo in; cat"));
    let (_, session) = waiting(&world).await;
    let watch = other.watch(&session);
    client.has_printed(0).await;
    let mut input = client.child.stdin.take().unwrap();
    input.write_all(b"seen\n").await.unwrap();
    client.has_printed(3).await;
    // Nobody there, on whichever node: it stands still.
    drop(watch);
    eventually("what is typed comes back no more", async || {
        let before = client.seen_bytes();
        input.write_all(b"x\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.seen_bytes() == before
    })
    .await;
}

async fn grants(world: &World) -> Vec<String> {
    let all: serde_json::Value =
        serde_json::from_str(&world.admin(&["grant", "ls", "--output", "json"]).await).unwrap();
    all["items"].as_array().unwrap().iter().map(|grant| grant["id"].as_str().unwrap().to_owned()).collect()
}

/// What stands between one node and the database.
struct Wire(watch::Sender<bool>);

impl Wire {
    /// A wire to the database behind `url`, and the URL at its other end.
    fn to(url: &str, folder: &Path) -> (Self, String) {
        let (name, rest) = url.split_once("?host=").unwrap();
        let (host, rest) = rest.split_once('&').unwrap();
        let there = PathBuf::from(host).join(".s.PGSQL.5432");
        let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).unwrap();
        let (is_whole, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (there, mut state) = (there.clone(), state.clone());
                tokio::spawn(async move {
                    let carry = async {
                        let (mut near, mut far) = (near, UnixStream::connect(&there).await?);
                        tokio::io::copy_bidirectional(&mut near, &mut far).await
                    };
                    tokio::select! {
                        _ = carry => {}
                        _ = state.wait_for(|is_whole| !is_whole) => {} // what was under way is lost
                    }
                });
            }
        });
        (Self(is_whole), format!("{name}?host={}&{rest}", folder.display()))
    }

    fn cut(&self) {
        self.0.send_replace(false);
    }

    fn mend(&self) {
        self.0.send_replace(true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_alone_has_lost_the_database_lets_nobody_in_and_ends_what_it_has_after_the_grace() {
    const GRACE: Duration = Duration::from_secs(5);
    let _turn = turn().await;
    let s3 = S3::start().await;
    let database = Postgres::shared().database().await;
    let folder = crate::support::temporary_folder();
    let (wire, at_its_end) = Wire::to(&database, folder.path());
    let more = vec!["ssh.database_grace = \"5s\"", "server.dead_after = \"2s\"", "recording.segment_time = \"1s\""];
    let stores =
        |url: &str| Stores { database: Some(url.to_owned()), s3: Some(&s3), more: more.clone(), ..Stores::default() };
    let world = World::start(&stores(&database)).await;
    let other = world.join("other", &stores(&at_its_end)).await;
    world.grant_with(&[]).await;
    let command = "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.01; done";
    let mut client = Collected::start(world.ssh_through(&other).arg(command));
    client.has_printed(0).await;

    wire.cut();
    let cut = Instant::now();

    let refused = world.ssh_through(&other).option("LogLevel=INFO").arg("true").run().await;
    assert!(
        refused.code() != Some(0) && refused.errors().contains("cannot reach its database"),
        "{}",
        refused.errors()
    );
    world.ssh().arg("true").run().await.expect_success(); // the other way is open
    world.all_ended().await;
    let closed = cut.elapsed();
    let before = client.seen_bytes();
    if cut.elapsed() < GRACE {
        client.has_printed(before).await; // nobody has told it, and its window has not ended
    }
    eventually("it is cut", async || client.child.try_wait().unwrap().is_some()).await;
    let lasted = cut.elapsed();
    let (seen, said) = client.finish().await;
    eprintln!("a node lost its database: closed in the books after {closed:?}, cut by itself after {lasted:?}");
    assert!((GRACE..GRACE + Duration::from_secs(5)).contains(&lasted), "cut after {lasted:?}: {said}");
    assert_eq!(
        world.sessions().await.iter().filter(|found| found.ended.as_ref().unwrap().1 == SessionEnd::Crashed).count(),
        1
    );

    wire.mend();
    eventually("it lets people in again", async || world.ssh_through(&other).arg("true").run().await.code() == Some(0))
        .await;
    eventually("the recording is complete", async || {
        for found in recordings(&world.app).await {
            if found.progress.ended_at.is_some() {
                let recorded = Recorded::read(&world.app, &found).await;
                if recorded.gaps == 0 && recorded.shown.starts_with(&seen) && !seen.is_empty() {
                    return true;
                }
            }
        }
        false
    })
    .await;
}
