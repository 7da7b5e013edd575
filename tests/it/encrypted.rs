//! Recordings that are encrypted to keys of the client's: the bastion shows them while they live and proves them for ever, and cannot
//! read the past.

use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use sallyport::app::recordings::read::{ReadError, Reader};
use sallyport_domain::event::Act;
use sallyport_domain::recording::frame::Frame;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bastion::{Bastion, Person, output};
use crate::support;

/// What is nowhere in clear afterwards: what a program was fed and printed, and what was typed and shown on a screen.
const FED: &str = "what only the client reads";
const TYPED: &str = "typed-41-42";
const SHOWN: &str = "shown-83-end";

/// A bastion that encrypts to one key of the client's, whose private half lies outside its data folder.
struct Client {
    bastion: Bastion,
    keys: PathBuf,
    other: PathBuf,
}

impl Client {
    async fn new() -> Self {
        let (identity, other) = (Identity::generate(), Identity::generate());
        let recording = format!("[recording]\nsegment_bytes = \"4KiB\"\nrecipients = [\"{}\"]\n", identity.to_public());
        let bastion = Bastion::configured(&recording).await;
        let write = |name: &str, identity: &Identity| {
            let path = bastion.folder().join(name);
            std::fs::write(&path, identity.to_string().expose_secret()).unwrap();
            path
        };
        let (keys, other) = (write("keys", &identity), write("other", &other));
        Self { bastion, keys, other }
    }

    async fn alice(&self) -> (Person, sallyport::toy_target::ToyTarget) {
        let alice = self.bastion.person("alice").await;
        let toy = self.bastion.toy("web-1").await;
        self.bastion.grant(&alice, "web-1").await;
        (alice, toy)
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let ran = self.bastion.sallyport(arguments).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    }

    /// Waits until `count` sessions are sealed and everything is signed.
    async fn sealed(&self, count: usize) {
        support::eventually("the sessions are sealed", async || {
            let acts = self.bastion.acts().await;
            acts.iter().filter(|act| matches!(act, Act::SessionSealed { .. })).count() == count
        })
        .await;
        support::eventually("everything is signed", async || {
            sallyport::app::ledger::proofs::standing(self.bastion.app()).await.unwrap().waiting == 0
        })
        .await;
    }
}

/// The files below a folder that hold these words.
fn with_words(folder: &Path, words: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file()
                && std::fs::read(entry.path()).unwrap().windows(words.len()).any(|part| part == words.as_bytes())
            {
                found.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_recorded_is_left_in_clear_with_the_bastion() {
    let mut client = Client::new().await;
    let (alice, _toy) = client.alice().await;
    client.bastion.ssh(&alice, "web-1").arg("cat").input(FED).run().await.expect_success();
    let mut terminal = client.bastion.ssh(&alice, "web-1").arg("-t").in_terminal(100, 30);
    terminal.type_keys(&format!("echo {TYPED} shown-$((41 + 42))-end; head -c 9000 /dev/urandom | base64\n")).await;
    terminal.wait_for(SHOWN).await;
    // The live tail and the screen have passed through the database by then.
    support::eventually("a segment of the terminal's is at rest", async || {
        client
            .bastion
            .recordings()
            .await
            .iter()
            .any(|found| found.recording.term.is_some() && found.progress.segments > 0)
    })
    .await;
    terminal.type_keys("exit\n").await;
    terminal.finish().await;
    client.bastion.at_rest(2).await;
    client.sealed(2).await;

    let data = client.bastion.folder().join("data");
    let db = client.bastion.app().db.clone();
    client.bastion.stop().await;
    db.close().await;

    for words in [FED, TYPED, SHOWN] {
        assert_eq!(with_words(&data, words), Vec::<PathBuf>::new(), "{words}");
    }
    assert_eq!(with_words(&data, "web-1").len(), 1, "such words would be found in the database");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_is_proved_without_the_key_and_read_with_it_alone() {
    let client = Client::new().await;
    let bastion = &client.bastion;
    let (alice, _toy) = client.alice().await;
    bastion.ssh(&alice, "web-1").arg("cat").input(FED).run().await.expect_success();
    let recording = bastion.only_recording().await;
    let session = bastion.sessions().await[0].session.id.to_string();
    client.sealed(1).await;

    // The bastion cannot, and says what to do.
    let refused = Reader::new(bastion.app().clone(), recording, false).next().await;
    assert!(matches!(refused, Err(ReadError::Encrypted { .. })), "{refused:?}");
    for path in ["index.json", "seg/0", "frames"] {
        let answer = bastion.get(&format!("/recordings/{recording}/{path}")).await;
        assert_eq!(answer.status(), 409, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["type"], "urn:sallyport:encrypted");
        assert!(problem["detail"].as_str().unwrap().contains("--identity"), "{problem}");
    }

    // The client can.
    let (keys, other) = (client.keys.to_str().unwrap(), client.other.to_str().unwrap());
    for (identity, wanted) in [(Some(keys), None), (Some(other), Some("other keys")), (None, Some("--identity"))] {
        let mut arguments = vec!["session", "export", &session, "--format", "cast"];
        arguments.extend(identity.iter().flat_map(|identity| ["--identity", *identity]));
        let (code, cast, error) = client.run(&arguments).await;
        match wanted {
            None => assert!(code == Some(0) && cast.contains(FED), "{code:?} {error}"),
            Some(words) => assert!(code != Some(0) && error.contains(words), "{error}"),
        }
    }
    let (code, shown, error) = client.run(&["session", "play", &session, "--identity", keys, "--speed", "100"]).await;
    assert!(code == Some(0) && shown.contains(FED), "{code:?} {error}");

    // Everything is proved, with the key down to the last byte.
    let config = bastion.folder().join("sallyport.toml");
    std::fs::write(&config, format!("[server]\ndata_dir = \"{}\"\n", bastion.folder().join("data").display())).unwrap();
    let config = config.to_str().unwrap();
    for (identity, closed) in [(None, 1), (Some(other), 1), (Some(keys), 0)] {
        let mut arguments = vec!["verify", "--json", "--from-start", "--config", config];
        arguments.extend(identity.iter().flat_map(|identity| ["--identity", *identity]));
        let (code, report, error) = client.run(&arguments).await;
        let report: Value = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{error}"));
        let found = (code, &report["faults"], &report["encrypted"]);
        assert_eq!(found, (Some(0), &Value::Array(vec![]), &closed.into()));
    }
    let bundle = bastion.folder().join("bundle.zip");
    let bundle = bundle.to_str().unwrap();
    let (code, _, error) = client.run(&["evidence", "make", &session, "-o", bundle]).await;
    assert_eq!(code, Some(0), "{error}");
    let (_, fingerprint, _) = client.run(&["evidence", "key"]).await;
    for (identity, closed) in [(None, 1), (Some(other), 1), (Some(keys), 0)] {
        let mut arguments = vec!["evidence", "verify", bundle, "--json", "--key", fingerprint.trim()];
        arguments.extend(identity.iter().flat_map(|identity| ["--identity", *identity]));
        let (code, verdict, error) = client.run(&arguments).await;
        assert_eq!(code, Some(0), "{verdict} {error}");
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(verdict["proven"]["closed"].as_array().unwrap().len(), closed, "{verdict}");
    }
    let open = ["evidence", "open", bundle, "--key", fingerprint.trim(), "--identity", keys];
    let (code, casts, error) = client.run(&open).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(std::fs::read_to_string(casts.trim()).unwrap().contains(FED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_recording_is_followed_to_its_end_though_its_segments_are_encrypted() {
    let client = Client::new().await;
    let bastion = &client.bastion;
    let (alice, _toy) = client.alice().await;
    let mut running = bastion.ssh(&alice, "web-1").arg("cat; echo bye").spawn();
    let (mut stdin, mut stdout) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
    for _ in 0..3 {
        let mut back = [0; 20_000];
        stdin.write_all(&[b'x'; 20_000]).await.unwrap();
        tokio::time::timeout(support::PATIENCE, stdout.read_exact(&mut back)).await.unwrap().unwrap();
    }
    support::eventually("a segment is at rest", async || {
        bastion.recordings().await.first().is_some_and(|found| found.progress.segments > 0)
    })
    .await;
    let recording = bastion.recordings().await[0].recording.id;
    let mut from_start = Reader::new(bastion.app().clone(), recording, true);
    let mut frames = from_start.next().await.unwrap().unwrap();
    let (_, mut near_end) = Reader::near_end(bastion.app().clone(), recording).await.unwrap();
    let mut last = near_end.next().await.unwrap().unwrap();
    assert_eq!(bastion.get(&format!("/recordings/{recording}/index.json")).await.status(), 200);

    drop(stdin);
    frames.extend(to_end(&mut from_start).await);
    last.extend(to_end(&mut near_end).await);

    let told = output(&frames);
    assert_eq!((told.len(), &told[told.len() - 4..]), (60_004, b"bye\n".as_slice()));
    assert!(output(&last).ends_with(b"bye\n"));
    let late = Reader::new(bastion.app().clone(), recording, false).next().await;
    assert!(matches!(late, Err(ReadError::Encrypted { .. })), "it is over, and its own key is gone");
}

async fn to_end(reader: &mut Reader) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(more) = reader.next().await.unwrap() {
        frames.extend(more);
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn other_keys_are_an_event_and_what_was_recorded_before_stays_as_it_was() {
    let mut bastion = Bastion::start().await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    bastion.ssh(&alice, "web-1").arg("echo before").run().await.expect_success();
    let before = bastion.only_recording().await;
    bastion.stop().await;

    let key = Identity::generate().to_public().to_string();
    bastion.start_with(&format!("[recording]\nrecipients = [\"{key}\"]\n")).await;
    bastion.stop().await;
    bastion.start_again().await;

    let changes: Vec<Act> =
        bastion.acts().await.into_iter().filter(|act| matches!(act, Act::RecipientsChanged { .. })).collect();
    assert_eq!(changes, [Act::RecipientsChanged { node: "test".to_owned(), before: vec![], after: vec![key.clone()] }]);
    assert_eq!(output(&bastion.frames(before).await), b"before\n");
    alice.workstation.trust(bastion.ssh_address(), bastion.host_key());
    bastion.ssh(&alice, "web-1").arg("true").run().await.expect_success();
    let rows = bastion.recordings().await;
    assert_eq!(rows[0].recording.recipients, [key]);
    assert!(!rows[0].recording.is_in_clear() && rows[1].recording.is_in_clear());
}
