//! Recordings that only the client reads, after a `kill -9`: nothing is lost, and nothing is in clear.

use std::path::Path;
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use sallyport::app::recordings::encryption::{Identities, is_encrypted};
use sallyport::store::db;
use sallyport::store::db::recordings::RecordingRecord;
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::recording::segment::{self, Snapshot};

use crate::harness::{Collected, Recorded, Stores, World, recordings, turn};
use crate::support::postgres::Postgres;
use crate::support::{self, eventually};

/// What a recording at rest holds, by the client's key: frames, and the snapshot of each segment.
async fn read(world: &World, found: &RecordingRecord, identities: &Identities) -> (Vec<Frame>, Vec<Snapshot>) {
    let mut tx = world.app.db.read().await.unwrap();
    let rows = db::recordings::segments(&mut tx, found.recording.id, 0).await.unwrap();
    let (mut frames, mut snapshots) = (Vec::new(), Vec::new());
    for row in rows {
        let stored = world.app.blobs.get(&row.object).await.unwrap();
        assert!(is_encrypted(&stored));
        let plain = identities.decrypt(&stored, stored.len()).unwrap();
        let bytes = zstd::bulk::decompress(&plain, usize::try_from(row.bytes).unwrap()).unwrap();
        let (snapshot, some) = segment::parse(bytes.into()).unwrap();
        frames.extend(some);
        snapshots.push(snapshot);
    }
    (frames, snapshots)
}

/// The only recording of `command`, with its live tail; both as the database has them.
async fn stored(world: &World, command: &str) -> Option<(RecordingRecord, Vec<u8>)> {
    let found = world.recordings().await.remove(command)?;
    let mut tx = world.app.db.read().await.unwrap();
    let runs = db::recordings::tail(&mut tx, found.recording.id, 0, 100).await.unwrap();
    Some((found, runs.into_iter().flat_map(|run| run.frames).collect()))
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_is_recovered_from_its_journal_and_without_it_from_the_live_tail() {
    let _turn = turn().await;
    let identity = Identity::generate();
    let identities = Identities::parse(identity.to_string().expose_secret()).unwrap();
    let journal = support::temporary_folder();
    let recipients = format!("recording.recipients = [\"{}\"]", identity.to_public());
    let more = vec![&*recipients, "recording.segment_bytes = \"4KiB\"", "recording.ship_interval = \"50ms\""];
    let database = Some(Postgres::shared().database().await);
    let stores = Stores { database, journal: Some(journal.path().to_owned()), more, ..Stores::default() };
    let mut world = World::start(&stores).await;
    world.grant(Duration::from_hours(2)).await;

    for is_lost in [false, true] {
        let command = format!("n=0; while :; do echo secret $n; n=$((n+1)); sleep 0.003; done; : {is_lost}");
        let client = Collected::start(world.ssh().arg("-tt").arg(&command));
        eventually("a segment is at rest, and there is a live tail", async || {
            stored(&world, &command).await.is_some_and(|(found, tail)| found.progress.segments > 1 && !tail.is_empty())
        })
        .await;
        world.kill();
        let (seen, _) = client.finish().await;
        let (found, tail) = stored(&world, &command).await.unwrap();
        let resume = found.progress.resume.unwrap();
        assert!(is_encrypted(&tail) && resume.contains("\"encrypted\":") && !resume.contains("secret"), "{resume}");
        if is_lost {
            empty(journal.path());
        }
        world.restart();
        eventually("it is at rest", async || {
            stored(&world, &command).await.is_some_and(|(found, _)| found.progress.ended_at.is_some())
        })
        .await;

        let (found, tail) = stored(&world, &command).await.unwrap();
        let (frames, snapshots) = read(&world, &found, &identities).await;
        assert!(snapshots[1..].iter().all(|snapshot| snapshot.init.contains("secret")), "{is_lost}");
        let mut recorded = Recorded { shown: vec![], input: vec![], end: String::new(), gaps: 0 };
        for frame in frames {
            match frame.body {
                Body::Output(bytes) | Body::Notice(bytes) => recorded.shown.extend_from_slice(&bytes),
                Body::Gap(_) => recorded.gaps += 1,
                _ => {}
            }
        }
        assert_eq!(recorded.gaps, usize::from(is_lost));
        // Without its journal the recording has what had been shipped: at most the last moments are missing.
        let seen = if is_lost { &seen[..seen.len().min(recorded.shown.len())] } else { &seen[..] };
        recorded.covers(seen, &format!("lost: {is_lost}"));
        assert!(snapshots.len() > 1 && !recorded.shown.is_empty());
        assert!(tail.is_empty() && found.progress.resume.is_none());
        let mut tx = world.app.db.read().await.unwrap();
        assert_eq!(db::encryption::live_key(&mut tx, found.recording.id).await.unwrap(), None);
    }
    world.all_ended().await;
    assert_eq!(recordings(&world.app).await.len(), 2);
    assert_eq!(std::fs::read_dir(journal.path()).unwrap().count(), 0);
}
