//! What was done is provable: a session leaves a manifest in the signed ledger, and `sallyport verify` finds whatever was changed.

use std::path::Path;

use sallyport::app::ledger::anchors::{Anchors, LedgerSettings};
use sallyport::app::ledger::verify::{Report, Wish, verify};
use sallyport::store::db::manifests;
use sallyport_domain::event::{Act, SessionEnd};
use sallyport_domain::id::SessionId;
use sallyport_domain::ledger::manifest::{Exit, Manifest};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bastion::Bastion;
use crate::support;

/// The manifest of the only session, once it is there.
async fn manifest(bastion: &Bastion) -> Manifest {
    let session = bastion.sessions().await[0].session.id;
    support::eventually("the session is sealed", async || find(bastion, session).await.is_some()).await;
    find(bastion, session).await.unwrap()
}

async fn find(bastion: &Bastion, session: SessionId) -> Option<Manifest> {
    let mut tx = bastion.app().db.read().await.unwrap();
    let bytes = manifests::find(&mut tx, session).await.unwrap()?;
    Some(Manifest::decode(&bytes).unwrap())
}

/// Waits until everything that has happened is signed, and verifies it.
async fn look(bastion: &Bastion) -> Report {
    let app = bastion.app();
    support::eventually("everything is signed", async || {
        sallyport::app::ledger::proofs::standing(app).await.unwrap().waiting == 0
    })
    .await;
    verify(app, Wish::default(), |_| {}).await.unwrap()
}

/// Stops, and closes the database, so that all of it is in its file.
async fn stop(bastion: &mut Bastion) {
    let db = bastion.app().db.clone();
    bastion.stop().await;
    db.close().await;
}

/// `sallyport verify`, from the start: its exit code, and what it found.
async fn run(bastion: &Bastion, config: &Path) -> (Option<i32>, Report) {
    let arguments = ["verify", "--json", "--from-start", "--config", config.to_str().unwrap()];
    let output = bastion.sallyport(&arguments).output().await.unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_leaves_a_manifest_that_says_what_was_there_and_under_which_rules() {
    let bastion = Bastion::with(&[("recording.segment_bytes", "4KiB")]).await;
    let alice = bastion.person("alice").await;
    let toy = bastion.toy("web-1").await;
    let grant = bastion.grant(&alice, "web-1").await;
    // Segments are cut where time goes on, so each part is sent once the one before it has come back.
    let part = [b'x'; 20_000];
    let mut client = bastion.ssh(&alice, "web-1").arg("cat; printf two >&2; exit 7").spawn();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    for _ in 0..5 {
        let mut back = [0; 20_000];
        stdin.write_all(&part).await.unwrap();
        let read = tokio::time::timeout(support::PATIENCE, stdout.read_exact(&mut back)).await;
        read.expect("the part comes back").unwrap();
    }
    drop(stdin);
    client.wait().await.unwrap();

    let manifest = manifest(&bastion).await;

    assert_eq!(manifest.check(), Ok(()));
    let recording = &manifest.recordings[0];
    let counters = recording.counters;
    assert_eq!((counters.input.seen, counters.input.recorded), (100_000, 100_000));
    assert_eq!((counters.output.seen, counters.output.recorded), (100_000, 100_000));
    assert_eq!((counters.error_output.seen, counters.masked), (3, 0));
    assert_eq!((&recording.end.exit, recording.gaps.len()), (&Some(Exit::Status(7)), 0));
    assert!(recording.segments.len() > 2);
    assert_eq!((manifest.grant.id, manifest.grant.terms), (grant.id, grant.terms));
    assert_eq!((manifest.person.name.as_str(), manifest.person.method.as_str()), ("alice", "publickey"));
    assert_eq!(manifest.end, SessionEnd::ClientClosed);
    assert_eq!(manifest.target.host_keys, [toy.host_key().to_openssh().unwrap()]);
    assert_eq!(manifest.settings["recording.segment_bytes"], "4096");
    assert!(manifest.software.starts_with("sallyport "));
    let report = look(&bastion).await;
    assert_eq!(report.faults, []);
    assert_eq!((report.sessions, report.segments), (1, recording.segments.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_input_is_counted_and_a_session_of_a_terminal_verifies() {
    let bastion = Bastion::start().await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    let mut terminal = bastion.ssh(&alice, "web-1").arg("-t").in_terminal(100, 30);
    terminal.type_keys("read -s -p 'Pass''word: ' x\n").await;
    terminal.wait_for("Password: ").await;
    terminal.type_keys("horse-battery\n").await;
    terminal.type_keys("exit\n").await;
    terminal.finish().await;

    let manifest = manifest(&bastion).await;

    let counters = manifest.recordings[0].counters;
    assert!(counters.masked >= 13 && counters.input.seen == counters.input.recorded, "{counters:?}");
    assert_eq!(look(&bastion).await.faults, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_behind_the_bastion_is_found_and_named_by_the_command() {
    let mut bastion = Bastion::with(&[("recording.segment_bytes", "4KiB")]).await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    // Step by step: segments are cut where time goes on.
    let command = "for n in 1 2 3 4; do head -c 4000 /dev/urandom | base64; echo step-$n; read x; done";
    let mut terminal = bastion.ssh(&alice, "web-1").arg("-t").arg(command).in_terminal(100, 30);
    for step in 1..=4 {
        terminal.wait_for(&format!("step-{step}")).await;
        terminal.type_keys("\n").await;
    }
    terminal.finish().await;
    let manifest = manifest(&bastion).await;
    let recording = manifest.recordings[0].recording;
    look(&bastion).await;
    stop(&mut bastion).await;
    let data = bastion.folder().join("data");
    let config = bastion.folder().join("sallyport.toml");
    std::fs::write(&config, format!("[server]\ndata_dir = \"{}\"\nnode = \"test\"\n", data.display())).unwrap();
    let (code, report) = run(&bastion, &config).await;
    assert_eq!((code, report.faults.as_slice(), report.sessions), (Some(0), &[][..], 1));
    assert!(report.anchors > 0);

    let object = |number: u32| data.join(format!("blobs/recordings/{recording}/{number:08}.sps.zst"));
    let (first, second) = (std::fs::read(object(0)).unwrap(), std::fs::read(object(1)).unwrap());
    let mut altered = second.clone();
    altered[100] ^= 1;
    std::fs::write(object(1), altered).unwrap();
    let (code, report) = run(&bastion, &config).await;
    assert_eq!(code, Some(6));
    assert_eq!(report.faults[0].place, format!("segment 1 of recording {recording}"));
    assert!(report.faults[0].what.contains("was altered"), "{:?}", report.faults);
    assert_eq!(report.events, report.of, "the events stay provable");

    std::fs::write(object(1), &first).unwrap();
    assert!(run(&bastion, &config).await.1.faults[0].what.contains("stands segment 0"));
    std::fs::remove_file(object(1)).unwrap();
    assert!(run(&bastion, &config).await.1.faults[0].what.contains("is missing"));
    std::fs::write(object(1), &second).unwrap();
    assert_eq!(run(&bastion, &config).await.0, Some(0));

    // An older copy of the database: the object store has seen more.
    let database = data.join("sallyport.db");
    let copy = std::fs::read(&database).unwrap();
    bastion.start_again().await;
    bastion.person("bob").await;
    stop(&mut bastion).await;
    let newest = std::fs::read(&database).unwrap();
    std::fs::write(&database, &copy).unwrap();
    let (code, report) = run(&bastion, &config).await;
    assert_eq!(code, Some(6));
    assert!(report.faults[0].what.contains("an old copy was put back"), "{:?}", report.faults);
    let serve = bastion.sallyport(&["serve", "--config", config.to_str().unwrap()]).output().await.unwrap();
    let told = String::from_utf8_lossy(&serve.stderr);
    assert!(!serve.status.success() && told.contains("--accept-older-database"), "{told}");
    std::fs::write(&database, &newest).unwrap();
    assert_eq!(run(&bastion, &config).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_of_another_folder_is_brought_out_when_a_session_has_ended() {
    let bastion = Bastion::start().await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    bastion.ssh(&alice, "web-1").arg("true").run().await.expect_success();
    manifest(&bastion).await;
    let anchors = Anchors::open(&LedgerSettings::default(), &bastion.app().blobs, "test").unwrap();
    let sealed = bastion.acts().await.iter().position(|act| matches!(act, Act::SessionSealed { .. })).unwrap() as u64;

    support::eventually("the session's end is anchored", async || {
        let (heads, faults) = anchors.witnesses(bastion.app()).await.unwrap();
        assert_eq!(faults, []);
        heads.iter().any(|(_, head)| head.size > sealed)
    })
    .await;
    assert_eq!(anchors.compare(bastion.app()).await.unwrap(), []);
}
