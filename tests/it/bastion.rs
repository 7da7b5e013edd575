//! A bastion in this process, as `sallyport serve` wires it, on a folder of its own, with what the tests do most: people
//! with workstations, targets, grants, stock clients, the command line, and what was recorded.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use russh::keys::PublicKey;
use sallyport::app::clock::Clock;
use sallyport::app::recordings::read::Reader;
use sallyport::app::sessions::{SessionFilter, SessionRecord};
use sallyport::app::{App, catalogue, grants, people, sessions, targets};
use sallyport::config::Config;
use sallyport::toy_target::{self, ToyTarget};
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::files::FileRules;
use sallyport_domain::grant::{Approval, Capabilities, Forwarding, Grant, Terms, Window};
use sallyport_domain::id::RecordingId;
use sallyport_domain::principal::Role;
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::target::{HostKey, HostKeyTrust};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support;
use crate::support::clients::{Run, Workstation};
use crate::support::keys::KeyPair;
use crate::support::sshd::{self, Sshd};

/// By whose hand the tests change things.
pub const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// A running bastion with SQLite and a folder, unless its settings say otherwise.
pub struct Bastion {
    running: Option<sallyport::Bastion>,
    settings: Vec<(String, String)>,
    /// More of the configuration file.
    more: String,
    clock: Clock,
    folder: TempDir,
}

/// Somebody with a key and a computer that knows the bastion.
pub struct Person {
    pub name: String,
    pub key: KeyPair,
    pub workstation: Workstation,
}

impl Bastion {
    /// A bastion with what holds if nothing is set.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A bastion with some settings: `("recording.segment_bytes", "4KiB")`.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        Self::at(Clock::system(), settings).await
    }

    /// A bastion with these sections in its configuration file: for lists, which variables do not set.
    pub async fn configured(more: &str) -> Self {
        let (clock, folder) = (Clock::system(), support::temporary_folder());
        let mut bastion = Self { running: None, settings: Vec::new(), more: more.to_owned(), clock, folder };
        bastion.start_again().await;
        bastion
    }

    /// A bastion whose clock the test moves.
    pub async fn at(clock: Clock, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let folder = support::temporary_folder();
        let mut bastion = Self { running: None, settings, more: String::new(), clock, folder };
        bastion.start_again().await;
        bastion
    }

    /// Starts on the same folder and database after [`Bastion::stop`].
    pub async fn start_again(&mut self) {
        let text = format!(
            "[server]\ndata_dir = \"{}\"\nnode = \"test\"\n[ssh]\nlisten = \"127.0.0.1:0\"\nfailures_per_address = {{ limit = 10000, window = \"10m\" }}\n{}",
            self.folder.path().join("data").display(),
            self.more
        );
        let variable = |(key, value): &(String, String)| {
            (format!("SALLYPORT__{}", key.to_uppercase().replacen('.', "__", 1)), value.clone())
        };
        let config = Config::parse(&text, self.settings.iter().map(variable)).expect("sound settings");
        self.running = Some(sallyport::Bastion::start(config, self.clock.clone()).await.expect("a bastion"));
    }

    /// Starts again with these sections in its configuration file, in the place of those before.
    pub async fn start_with(&mut self, more: &str) {
        more.clone_into(&mut self.more);
        self.start_again().await;
    }

    /// Stops as on SIGTERM: live sessions are cut, recordings come to rest.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// The folder that holds everything: `data/sallyport.db`, `data/blobs`, `data/journal`.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Somebody new, an engineer.
    pub async fn person(&self, name: &str) -> Person {
        let key = KeyPair::ed25519();
        let new = people::NewPerson {
            name: name.parse().expect("a person's name"),
            organisation: None,
            roles: vec![Role::Engineer],
            keys: vec![key.line().parse().expect("a public key")],
            password: None,
        };
        people::add(self.app(), &OPERATOR, new).await.expect("a new person");
        let workstation = Workstation::new(&key);
        workstation.trust(self.ssh_address(), self.host_key());
        Person { name: name.to_owned(), key, workstation }
    }

    /// A target that is logged in to with a certificate, as `login`.
    pub async fn target(&self, name: &str, address: std::net::SocketAddr, host_key: &PublicKey, login: &str) {
        let public_key = host_key.to_openssh().expect("a public key's text");
        let new = targets::NewTarget {
            name: name.parse().expect("a target's name"),
            aliases: Vec::new(),
            address: address.to_string().parse().expect("an address"),
            jump: None,
            logins: vec![(login.parse().expect("a login"), targets::Credential::Certificate)],
            labels: std::collections::BTreeMap::new(),
            host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key }],
        };
        targets::add(self.app(), &OPERATOR, new).await.expect("a new target");
    }

    /// The user CA that targets trust.
    pub async fn user_ca(&self) -> PublicKey {
        let key = sallyport::app::keys::bastion_key(self.app(), sallyport::app::keys::Purpose::UserCa).await;
        PublicKey::from_openssh(&key.expect("the user CA").public_key).expect("a public key")
    }

    /// A target inside this process. Its login is [`Sshd::login`], as that of the other kind, but any would do.
    pub async fn toy(&self, name: &str) -> ToyTarget {
        let settings = toy_target::Settings {
            user_cas: vec![self.user_ca().await],
            shell: "/bin/bash".into(),
            working_directory: self.folder.path().to_owned(),
            ..toy_target::Settings::default()
        };
        let toy = ToyTarget::start(settings).await.expect("a toy target");
        self.target(name, toy.address(), toy.host_key(), &Sshd::login()).await;
        toy
    }

    /// A target that is a real OpenSSH server.
    pub async fn sshd(&self, name: &str) -> Sshd {
        let ca = self.user_ca().await;
        let server = Sshd::start(&sshd::Settings { user_cas: vec![&ca], ..sshd::Settings::default() });
        self.target(name, server.address(), server.host_key(), &Sshd::login()).await;
        server
    }

    /// A grant of everything but forwarding, for a day from now.
    pub async fn grant(&self, person: &Person, target: &str) -> Grant {
        self.grant_for(person, target, Duration::from_hours(24)).await
    }

    /// A grant of everything but forwarding, from now for `lasting`.
    pub async fn grant_for(&self, person: &Person, target: &str, lasting: Duration) -> Grant {
        let now = self.clock.now();
        let terms = Terms {
            targets: vec![target.parse().expect("a target's name")],
            logins: vec![Sshd::login().parse().expect("a login")],
            capabilities: Capabilities { shell: true, exec: true, upload: true, download: true, forwards: Vec::new() },
            source_networks: Vec::new(),
            max_sessions: None,
            second_factor: false,
            approval: Approval::None,
            files: FileRules::default(),
            commands: CommandRules::default(),
            forwarding: Forwarding::default(),
            review: None,
        };
        let new = grants::NewGrant {
            people: vec![person.name.parse().expect("a person's name")],
            terms,
            window: Window::new(now, now + lasting).expect("a window"),
            reason: "a test".to_owned(),
            ticket: None,
        };
        grants::make(self.app(), &OPERATOR, new).await.expect("a grant")
    }

    /// `ssh` as this person to a target, to be followed by options and a command.
    pub fn ssh(&self, person: &Person, target: &str) -> Run {
        person.workstation.ssh(&format!("{}+{}@{target}", person.name, Sshd::login()), self.ssh_address())
    }

    /// The program as the operator's command line, `sallyport session ls` say.
    pub fn sallyport(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        program.args(arguments).arg("--no-input").arg("--socket").arg(self.folder.path().join("data/sallyport.sock"));
        program.env("TZ", "UTC").env_remove("SALLYPORT_URL").env_remove("SALLYPORT_TOKEN").kill_on_drop(true);
        program
    }

    /// Gets from the API, as the operator.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        let socket = self.folder.path().join("data/sallyport.sock");
        let client = reqwest::Client::builder().unix_socket(socket).build().expect("an HTTP client");
        client.get(format!("http://bastion/api/v1{path}")).send().await.expect("an answer")
    }

    /// Every session, the latest first.
    pub async fn sessions(&self) -> Vec<SessionRecord> {
        sessions::list(self.app(), &SessionFilter::default(), 1000).await.expect("sessions")
    }

    /// Every recording: the latest session's first, in each by channel.
    pub async fn recordings(&self) -> Vec<catalogue::RecordingRecord> {
        let mut all = Vec::new();
        for session in self.sessions().await {
            all.extend(catalogue::of_session(self.app(), session.session.id).await.expect("recordings"));
        }
        all
    }

    /// The one recording there is, once it is at rest.
    pub async fn only_recording(&self) -> RecordingId {
        self.at_rest(1).await[0]
    }

    /// All recordings, the latest first, once there are `count` and all are at rest.
    pub async fn at_rest(&self, count: usize) -> Vec<RecordingId> {
        support::eventually("the recordings are at rest", async || {
            let all = self.recordings().await;
            all.len() == count && all.iter().all(|found| found.progress.ended_at.is_some())
        })
        .await;
        self.recordings().await.iter().map(|found| found.recording.id).collect()
    }

    /// A recording's frames, checked against its chain.
    pub async fn frames(&self, recording: RecordingId) -> Vec<Frame> {
        let mut reader = Reader::new(self.app().clone(), recording, false);
        let mut frames = Vec::new();
        while let Some(batch) = reader.next().await.expect("a sound recording") {
            frames.extend(batch);
        }
        frames
    }

    /// How the destinations outside stand.
    pub async fn standings(&self) -> Vec<sallyport::app::outbox::Standing> {
        sallyport::app::outbox::standings(self.app()).await.expect("destinations")
    }

    /// Every act in the audit log, the oldest first.
    pub async fn acts(&self) -> Vec<Act> {
        let filter = sallyport::app::audit::EventFilter::default();
        let events = sallyport::app::audit::list(self.app(), 0, &filter, 1000).await.expect("events");
        events.into_iter().map(|(_, event)| event.act).collect()
    }

    fn running(&self) -> &sallyport::Bastion {
        self.running.as_ref().expect("a bastion that was not stopped")
    }

    pub fn app(&self) -> &App {
        self.running().app()
    }
}

impl Deref for Bastion {
    type Target = sallyport::Bastion;

    fn deref(&self) -> &sallyport::Bastion {
        self.running()
    }
}

/// The bytes of one stream, put together.
pub fn stream(frames: &[Frame], of: impl Fn(&Body) -> Option<&Bytes>) -> Vec<u8> {
    frames.iter().filter_map(|frame| of(&frame.body)).flatten().copied().collect()
}

/// What the target printed on standard output, or on the terminal.
pub fn output(frames: &[Frame]) -> Vec<u8> {
    stream(frames, |body| if let Body::Output(bytes) = body { Some(bytes) } else { None })
}

/// What the target printed on standard error.
pub fn error_output(frames: &[Frame]) -> Vec<u8> {
    stream(frames, |body| if let Body::ErrorOutput(bytes) = body { Some(bytes) } else { None })
}

/// What the client sent, what was masked left out.
pub fn input(frames: &[Frame]) -> Vec<u8> {
    stream(frames, |body| if let Body::Input(bytes) = body { Some(bytes) } else { None })
}
