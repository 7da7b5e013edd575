//! Random scripts of people, grants and sessions, and what must be true after each step of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sallyport::app::grants::{self, GrantFilter};
use sallyport::app::{App, audit, people, sessions, targets};
use sallyport::store::db::events::EventFilter;
use sallyport::store::db::sessions::SessionRecord;
use sallyport_domain::event::Act;
use sallyport_domain::grant::Window;
use sallyport_domain::id::{GrantId, SessionId};
use sallyport_domain::policy::{self, Factors, FirstFactor, Question};
use tokio::io::AsyncWriteExt;

use crate::harness::{self, Collected, Inside, OPERATOR, Recorded, Stores, give, large, seed, turn};
use crate::support::clients::Workstation;
use crate::support::keys::KeyPair;
use crate::support::postgres::Postgres;

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const TARGETS: [&str; 2] = ["node-1", "node-2"];

/// How long the bastion may take to act on a step.
const SOON: Duration = Duration::from_secs(10);

struct Play {
    inside: Inside,
    random: StdRng,
    computers: Vec<(Workstation, KeyPair)>,
    grants: Vec<GrantId>,
    /// What runs, with what was typed into it so far.
    clients: Vec<(Collected, Vec<u8>)>,
    /// How often each act must be in the books by now.
    acts: BTreeMap<&'static str, usize>,
}

impl Play {
    fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    fn done(&mut self, act: &'static str) {
        *self.acts.entry(act).or_default() += 1;
    }

    fn app(&self) -> App {
        self.inside.app().clone()
    }

    /// Plays one step and says what it was.
    async fn step(&mut self) -> String {
        let app = self.app();
        let (person, target) = (PEOPLE[self.pick(3)], TARGETS[self.pick(2)]);
        match self.pick(26) {
            0..=4 => {
                let now = app.clock.now();
                let from = now + Duration::from_mins([0, 0, 0, 3][self.pick(4)]);
                let until = from + Duration::from_mins(self.random.random_range(5..60));
                let window = Window::new(from, until).unwrap();
                self.grants.push(give(&app, person, target, "ops", window).await.id);
                self.done("grant_made");
                format!("{person} may go to {target} from {from} until {until}")
            }
            5 if !self.grants.is_empty() => {
                let at = self.pick(self.grants.len());
                let grant = self.grants[at];
                let until = app.clock.now() + Duration::from_mins(self.random.random_range(1..30));
                if grants::extend(&app, &OPERATOR, grant, until, "more", None).await.is_ok() {
                    self.done("grant_extended");
                }
                format!("{grant} until {until}")
            }
            6 if !self.grants.is_empty() => {
                let at = self.pick(self.grants.len());
                let grant = self.grants[at];
                if grants::revoke(&app, &OPERATOR, grant, "enough", None).await.is_ok() {
                    self.done("grant_revoked");
                }
                format!("{grant} is revoked")
            }
            7 => {
                if people::disable(&app, &OPERATOR, &person.parse().unwrap(), None).await.is_ok() {
                    self.done("person_disabled");
                }
                format!("{person} is disabled")
            }
            8 => {
                let mut disabled = people::list(&app).await.unwrap();
                disabled.retain(|person| person.principal.disabled_at.is_some());
                let person = disabled.first().map_or(person, |person| person.principal.name.as_str());
                if people::enable(&app, &OPERATOR, &person.parse().unwrap(), None).await.is_ok() {
                    self.done("person_enabled");
                }
                format!("{person} is enabled")
            }
            9 => {
                if targets::disable(&app, &OPERATOR, &target.parse().unwrap(), None).await.is_ok() {
                    self.done("target_disabled");
                }
                format!("{target} is disabled")
            }
            10 => {
                let mut disabled = targets::list(&app).await.unwrap();
                disabled.retain(|target| target.disabled_at.is_some());
                let target = disabled.first().map_or(target, |target| target.name.as_str());
                if targets::enable(&app, &OPERATOR, &target.parse().unwrap(), None).await.is_ok() {
                    self.done("target_enabled");
                }
                format!("{target} is enabled")
            }
            11..=18 => self.log_in(&app, person, target).await,
            19 => {
                let live = live_sessions(&app).await;
                if let Some(session) = live.first()
                    && sessions::request_cut(&app, &OPERATOR, session.session.id, "stop it").await.is_ok()
                {
                    self.done("cut_requested");
                }
                "an admin cuts a session".to_owned()
            }
            20 if !self.clients.is_empty() => {
                let at = self.pick(self.clients.len());
                let (mut client, _) = self.clients.swap_remove(at);
                client.child.start_kill().unwrap();
                client.finish().await;
                "a client dies".to_owned()
            }
            21..=23 if !self.clients.is_empty() => {
                let at = self.pick(self.clients.len());
                let (client, typed) = &mut self.clients[at];
                if client.child.stdin.as_mut().unwrap().write_all(b"typed\n").await.is_ok() {
                    typed.extend_from_slice(b"typed\n");
                }
                "somebody types".to_owned()
            }
            24..=25 => {
                let time = Duration::from_secs(self.random.random_range(1..300));
                self.inside.clock.advance(time);
                format!("{time:?} pass")
            }
            _ => self.log_in(&app, person, target).await,
        }
    }

    /// Logs in and out, or stays.
    async fn log_in(&mut self, app: &App, mut person: &'static str, mut target: &'static str) -> String {
        // Mostly where it leads somewhere, or the scripts would be of refusals.
        if self.random.random_bool(0.7) {
            for (a, b) in PEOPLE.iter().flat_map(|person| TARGETS.map(|target| (person, target))) {
                if self.random.random_bool(0.4) && may_be_live(app, a, b).await {
                    (person, target) = (a, b);
                }
            }
        }
        let allowed = may_be_live(app, person, target).await;
        let (workstation, _) = &self.computers[PEOPLE.iter().position(|name| *name == person).unwrap()];
        let ssh = workstation.ssh(&format!("{person}+ops@{target}"), self.inside.bastion.ssh_address());
        let stays = self.random.random_bool(0.5);
        if !stays {
            let output = ssh.arg("echo here").run().await;
            assert_eq!(output.text() == "here\n", allowed, "{person} to {target}: {}", output.errors());
            return format!("{person} runs something on {target}: {allowed}");
        }
        let mut client = Collected::start(ssh.arg("echo here; cat"));
        let deadline = Instant::now() + SOON;
        while client.seen_bytes() == 0 && client.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{person} to {target} gets neither in nor out");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(client.seen_bytes() > 0, allowed, "{person} to {target}: {}", client.errors());
        if allowed {
            self.clients.push((client, b"here\n".to_vec()));
        }
        format!("{person} stays on {target}: {allowed}")
    }

    /// What must be true, as soon as the bastion has acted.
    async fn check(&mut self, story: &[String]) {
        let deadline = Instant::now() + SOON;
        while let Err(broken) = self.look().await {
            let last = &story[story.len().saturating_sub(15)..];
            assert!(Instant::now() < deadline, "{broken}; the last steps were {last:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Whatever a client has seen so far was its own words.
        self.clients.retain_mut(|(client, typed)| {
            let seen = client.seen();
            assert!(typed.starts_with(&seen), "the client saw {:?}", String::from_utf8_lossy(&seen));
            client.child.try_wait().unwrap().is_none()
        });
    }

    async fn look(&self) -> Result<(), String> {
        let app = self.app();
        let all = harness::sessions(&app).await;
        for session in all.iter().filter(|session| session.ended.is_none()) {
            let (person, target) = (session.session.principal_name.as_str(), session.session.target_name.as_str());
            if !may_be_live(&app, person, target).await {
                return Err(format!("session {} lives, and the rule says no", session.session.id));
            }
            if session.cut_requested.is_some() {
                return Err(format!("session {} lives, and was to be cut", session.session.id));
            }
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut ends: BTreeMap<SessionId, usize> = BTreeMap::new();
        let mut after = 0;
        loop {
            let events = audit::list(&app, after, &EventFilter::default(), audit::MOST_EVENTS).await.unwrap();
            let Some((last, _)) = events.last() else { break };
            after = *last;
            for (_, event) in events {
                let kind = serde_json::to_value(&event.act).unwrap()["act"].as_str().unwrap().to_owned();
                *counts.entry(kind).or_default() += 1;
                if let Act::SessionEnded { session, .. } = event.act {
                    *ends.entry(session).or_default() += 1;
                }
            }
        }
        let count = |kind: &str| counts.get(kind).copied().unwrap_or(0);
        for (act, wanted) in &self.acts {
            if count(act) != *wanted {
                return Err(format!("{wanted} times {act}, and {} events of it", count(act)));
            }
        }
        if count("session_opened") != all.len() {
            return Err(format!("{} sessions, and {} were opened", all.len(), count("session_opened")));
        }
        for session in &all {
            let id = session.session.id;
            let told = ends.get(&id).copied().unwrap_or(0);
            if told != usize::from(session.ended.is_some()) {
                return Err(format!("session {id} ended: {:?}, and {told} events say so", session.ended));
            }
        }
        let recordings = harness::recordings(&app).await;
        let at_rest = recordings.iter().filter(|found| found.progress.ended_at.is_some()).count();
        if (count("recording_started"), count("recording_ended")) != (recordings.len(), at_rest) {
            return Err(format!("{} recordings of which {at_rest} ended, and the events {counts:?}", recordings.len()));
        }
        for found in &recordings {
            let session = all.iter().find(|session| session.session.id == found.recording.session).unwrap();
            if session.ended.is_some() && found.progress.ended_at.is_none() {
                return Err(format!("recording {} goes on after its session", found.recording.id));
            }
        }
        Ok(())
    }
}

async fn live_sessions(app: &App) -> Vec<SessionRecord> {
    harness::sessions(app).await.into_iter().filter(|session| session.ended.is_none()).collect()
}

/// What the rule says now, from the facts as they stand in the books.
async fn may_be_live(app: &App, person: &str, target: &str) -> bool {
    let person = people::find(app, &person.parse().unwrap()).await.unwrap().principal;
    let target = targets::find(app, &target.parse().unwrap()).await.unwrap();
    let filter = GrantFilter { person: Some(person.name.clone()), ..GrantFilter::default() };
    let grants = grants::list(app, &filter).await.unwrap();
    let question = Question {
        principal: &person,
        target: &target,
        login: &"ops".parse().unwrap(),
        factors: Factors { first: FirstFactor::PublicKey, second: None },
        source: [127, 0, 0, 1].into(),
        open_sessions: &std::collections::HashMap::new(),
        consent: None,
    };
    let now: DateTime<Utc> = app.clock.now();
    policy::decide(&question, &grants, now).is_ok()
}

async fn play(stores: &Stores<'_>, seed: u64) {
    let inside = Inside::start(stores).await;
    let mut computers = Vec::new();
    for name in PEOPLE {
        computers.push(inside.person(name).await);
    }
    let random = StdRng::seed_from_u64(seed);
    let mut play =
        Play { inside, random, computers, grants: Vec::new(), clients: Vec::new(), acts: BTreeMap::default() };
    let mut story = Vec::new();
    let now = play.app().clock.now();
    for (person, target) in PEOPLE.iter().flat_map(|person| TARGETS.map(|target| (person, target))) {
        let window = Window::new(now, now + Duration::from_mins(20)).unwrap();
        play.grants.push(give(&play.app(), person, target, "ops", window).await.id);
        play.done("grant_made");
    }
    for _ in 0..if large() { 1_000 } else { 70 } {
        let step = play.step().await;
        story.push(step);
        play.check(&story).await;
    }

    let app = play.app();
    for (mut client, _) in play.clients.drain(..) {
        client.child.start_kill().unwrap();
        client.finish().await;
    }
    play.check(&story).await;
    let deadline = Instant::now() + SOON;
    while play.inside.bastion.recordings().open_count() > 0 || play.inside.bastion.door().connection_count() > 0 {
        assert!(Instant::now() < deadline, "connections or recordings stay behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let recordings = harness::recordings(&app).await;
    for found in &recordings {
        let recorded = Recorded::read(&app, found).await;
        assert!(!recorded.end.is_empty() && recorded.gaps == 0);
        assert!(recorded.shown.is_empty() || recorded.shown.starts_with(b"here\n"));
    }
    eprintln!(
        "{} steps, {} sessions, {} recordings",
        story.len(),
        harness::sessions(&app).await.len(),
        recordings.len()
    );
    play.inside.bastion.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_the_books_and_the_sessions_agree() {
    let _turn = turn().await;
    let seed = seed();
    play(&Stores::default(), seed).await;
    let database = Some(Postgres::shared().database().await);
    play(&Stores { database, ..Stores::default() }, seed).await;
}
