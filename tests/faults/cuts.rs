//! The window is the window: whatever the peer does, access ends when it is to end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use russh::client;
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use sallyport::app::people;
use sallyport_domain::grant::Window;

use crate::harness::{
    Collected, Inside, OPERATOR, Stores, World, give, gone_after, instant_of, sessions, signal, turn,
};
use crate::support::clients::Terminal;
use crate::support::{eventually, until};

const TARGET_GONE: Duration = Duration::from_millis(500);
const CLIENT_GONE: Duration = Duration::from_secs(2);

/// One engineer at a prompt, one under a flood, one who sends, and one whose client has stopped.
struct Engineers {
    prompt: Terminal,
    flood: Collected,
    upload: Collected,
    stopped: Collected,
}

impl Engineers {
    async fn log_in(world: &World) -> Self {
        let zero = || std::fs::File::open("/dev/zero").unwrap();
        let mut prompt = world.ssh().arg("-tt").in_terminal(80, 24);
        prompt.type_keys("PS1='ready''> '\n").await;
        prompt.wait_for("ready> ").await;
        let flood = Collected::start(world.ssh().arg("yes"));
        let mut upload = Collected::start(world.ssh().arg("echo begun; cat > /dev/null"));
        let mut input = upload.child.stdin.take().unwrap();
        tokio::spawn(async move {
            // Ends with the client.
            let _broken = tokio::io::copy(&mut tokio::fs::File::from_std(zero()), &mut input).await;
        });
        let stopped = Collected::start(world.ssh().arg("yes"));
        for client in [&flood, &upload, &stopped] {
            client.has_printed(5).await;
        }
        signal(stopped.pid(), Signal::SIGSTOP);
        eventually("four sessions live", async || world.sshd.sessions() == 4).await;
        Self { prompt, flood, upload, stopped }
    }

    /// Checks that all are cut in time, and that they are told why.
    async fn are_cut(self, world: &World, how: &str, since: Instant, reason: &str) {
        let target = gone_after("the target's connection", since, || world.target_connections() == 0).await;
        let client = gone_after("a client's connection", since, || world.client_connections() == 0).await;
        eprintln!("{how}: targets gone after {target:?}, clients after {client:?}");
        assert!(target < TARGET_GONE, "{how}: the targets' connections were there for {target:?}");
        assert!(client < CLIENT_GONE, "{how}: the clients' connections were there for {client:?}");

        signal(self.stopped.pid(), Signal::SIGCONT);
        let (screen, _) = self.prompt.finish().await;
        let words = screen.rfind("sallyport: this session was ended: ").unwrap_or_else(|| panic!("{how}: {screen:?}"));
        assert!(screen[words..].contains(reason), "{how}: {screen:?}");
        assert!(!screen[words..].contains("ready> "), "{how}: {screen:?}");
        for client in [self.flood, self.upload] {
            let (_, said) = client.finish().await;
            assert!(said.contains("this session was ended") && said.contains(reason), "{how}: told {said:?}");
        }
        let (_, _) = self.stopped.finish().await;
        world.all_ended().await;
        until("the targets' programs are gone", || world.sshd.sessions() == 0);
        assert!(!world.log().contains("panicked"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_is_cut_when_its_grant_ends_whatever_its_client_does() {
    let _turn = turn().await;
    let world = World::start(&Stores::default()).await;
    let grant = world.grant(Duration::from_secs(6)).await;
    let engineers = Engineers::log_in(&world).await;
    let end = instant_of(grant.window.not_after());
    tokio::time::sleep_until((end - Duration::from_millis(100)).into()).await;
    assert_eq!(world.target_connections(), 2 * 4, "cut before its time");
    tokio::time::sleep_until(end.into()).await;

    engineers.are_cut(&world, "expiry", end, "your access ended at").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_is_cut_when_access_is_taken_back_whatever_its_client_does() {
    let _turn = turn().await;
    let world = World::start(&Stores::default()).await;

    let grant = world.grant(Duration::from_hours(1)).await;
    let engineers = Engineers::log_in(&world).await;
    world.admin(&["grant", "revoke", &grant.id.to_string(), "--reason", "done"]).await;
    let since = world.last_event("grant_revoked").await;
    engineers.are_cut(&world, "revocation", since, "your access was taken back").await;

    world.grant(Duration::from_hours(1)).await;
    let engineers = Engineers::log_in(&world).await;
    let sessions: Vec<_> = world.sessions().await.into_iter().filter(|session| session.ended.is_none()).collect();
    for session in sessions {
        world.admin(&["session", "cut", &session.session.id.to_string(), "--reason", "wrong host"]).await;
    }
    let since = world.last_event("cut_requested").await;
    engineers.are_cut(&world, "cut", since, "wrong host").await;

    let engineers = Engineers::log_in(&world).await;
    world.admin(&["person", "disable", "alice"]).await;
    let since = world.last_event("person_disabled").await;
    engineers.are_cut(&world, "disable", since, "disabled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_ends_on_time_though_the_database_is_away_or_silent() {
    let _turn = turn().await;
    let postgres = crate::support::postgres::Postgres::new();
    let database = Some(postgres.database().await);
    let world = World::start(&Stores { database, ..Stores::default() }).await;
    for how in ["away", "silent"] {
        let grant = world.grant(Duration::from_secs(8)).await;
        let engineers = Engineers::log_in(&world).await;
        let end = instant_of(grant.window.not_after());

        if how == "away" {
            postgres.stop()
        } else {
            postgres.pause()
        }
        tokio::time::sleep_until(end.into()).await;
        let target = gone_after("the target's connection", end, || world.target_connections() == 0).await;
        let client = gone_after("a client's connection", end, || world.client_connections() == 0).await;
        if how == "away" {
            postgres.start()
        } else {
            postgres.resume()
        }

        eprintln!("database {how}: targets gone after {target:?}, clients after {client:?}");
        assert!(target < TARGET_GONE && client < CLIENT_GONE, "{how}: {target:?}, {client:?}");
        engineers.are_cut(&world, how, Instant::now(), "your access ended at").await;
    }
}

/// A client that knows every host.
struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_opens_its_window_is_cut_all_the_same() {
    let _turn = turn().await;
    let inside = Inside::start(&Stores::default()).await;
    let (_workstation, key) = inside.person("alice").await;
    let now = inside.clock.now();
    give(inside.app(), "alice", "node-1", "ops", Window::new(now, now + Duration::from_hours(1)).unwrap()).await;
    let config = client::Config { window_size: 0, ..client::Config::default() };
    let mut handle = client::connect(config.into(), inside.bastion.ssh_address(), Trusting).await.unwrap();
    let private = PrivateKeyWithHashAlg::new(std::sync::Arc::new(key.private().clone()), None);
    assert!(handle.authenticate_publickey("alice+ops@node-1", private).await.unwrap().success());
    let channel = handle.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    eventually("the shell is recorded", async || inside.bastion.recordings().open_count() == 1).await;

    people::disable(inside.app(), &OPERATOR, &"alice".parse().unwrap(), None).await.unwrap();

    let cut = Instant::now();
    eventually("the session has its end", async || sessions(inside.app()).await[0].ended.is_some()).await;
    assert!(cut.elapsed() < CLIENT_GONE, "{:?}", cut.elapsed());
    eventually("nothing is left behind", async || {
        inside.bastion.recordings().open_count() == 0 && inside.bastion.door().connection_count() == 0
    })
    .await;
    inside.bastion.stop().await;
}
