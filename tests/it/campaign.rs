//! A campaign of changes behind the bastion's back: each single one is found, and its place is named; what nobody touched is
//! never complained about. `SALLYPORT_TEST_LARGE=1` makes it a thousand of each; `SALLYPORT_TEST_SEED` repeats one.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sallyport::app::ledger::sequencer::Sequencer;
use sallyport::app::ledger::verify::{Report, Verified};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::ledger::checkpoint::Checkpoint;
use sallyport_domain::ledger::note::{Note, SignerKey};
use uuid::Uuid;

use crate::deployment::{Deployment, Owner, Value, grow};

/// More if the tests are to be long.
fn either(normal: usize, long: usize) -> usize {
    let large = std::env::var_os("SALLYPORT_TEST_LARGE").is_some_and(|value| !value.is_empty() && value != "0");
    if large { long } else { normal }
}

fn seed() -> u64 {
    let given = std::env::var("SALLYPORT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("SALLYPORT_TEST_SEED={seed}");
    seed
}

/// What was done, and how the report must speak of it.
struct Change {
    what: String,
    /// The first fault's place begins with one of these.
    places: Vec<String>,
    /// How many events stay provable at least, of all.
    lost: u64,
}

fn change(what: impl Into<String>, places: impl IntoIterator<Item = String>) -> Change {
    Change { what: what.into(), places: places.into_iter().collect(), lost: 0 }
}

impl Change {
    fn losing(self, lost: u64) -> Self {
        Self { lost, ..self }
    }
}

/// The kinds of changes: every one that there is a word for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SegmentByte,
    SegmentCut,
    SegmentLonger,
    SegmentGone,
    SegmentsSwapped,
    SegmentReplaced,
    TailCut,
    SegmentRow,
    SegmentRowGone,
    RecordingRow,
    RecordingRowGone,
    SessionRow,
    SessionRowGone,
    SessionGone,
    ManifestByte,
    ManifestGone,
    ManifestsSwapped,
    EventEntry,
    EventColumn,
    EventGone,
    EventsSwapped,
    EventPutIn,
    PlaceHash,
    PlaceGone,
    PlacesSwapped,
    PlaceMore,
    EventsCut,
    TileByte,
    TileRoot,
    TileGone,
    TileMore,
    CheckpointText,
    CheckpointGone,
    CheckpointsGone,
    CheckpointSize,
    KeyOther,
    SignedAgain,
    AnchorFileByte,
    AnchorFileCut,
    AnchorObjectByte,
    AnchorObjectGone,
    OldBackup,
    OldBackupExcused,
}

const KINDS: [Kind; 43] = {
    use Kind::*;
    [
        SegmentByte,
        SegmentCut,
        SegmentLonger,
        SegmentGone,
        SegmentsSwapped,
        SegmentReplaced,
        TailCut,
        SegmentRow,
        SegmentRowGone,
        RecordingRow,
        RecordingRowGone,
        SessionRow,
        SessionRowGone,
        SessionGone,
        ManifestByte,
        ManifestGone,
        ManifestsSwapped,
        EventEntry,
        EventColumn,
        EventGone,
        EventsSwapped,
        EventPutIn,
        PlaceHash,
        PlaceGone,
        PlacesSwapped,
        PlaceMore,
        EventsCut,
        TileByte,
        TileRoot,
        TileGone,
        TileMore,
        CheckpointText,
        CheckpointGone,
        CheckpointsGone,
        CheckpointSize,
        KeyOther,
        SignedAgain,
        AnchorFileByte,
        AnchorFileCut,
        AnchorObjectByte,
        AnchorObjectGone,
        OldBackup,
        OldBackupExcused,
    ]
};

/// One copy that is being changed.
struct Scene<'a> {
    copy: &'a mut Deployment,
    random: &'a mut StdRng,
}

/// A segment's object.
#[derive(Debug, Clone)]
struct Object {
    recording: Uuid,
    number: i64,
    path: PathBuf,
}

impl Object {
    fn place(&self) -> String {
        format!("segment {} of recording {}", self.number, RecordingId::from_uuid(self.recording))
    }
}

impl Scene<'_> {
    fn below(&mut self, end: i64) -> i64 {
        self.random.random_range(0..end)
    }

    async fn events(&self, owner: &mut Owner) -> i64 {
        owner.one("SELECT COUNT(*) FROM ledger_order", &[]).await
    }

    /// The number under which the event at a place is stored.
    async fn seq(owner: &mut Owner, index: i64) -> Value {
        Value::Number(owner.one("SELECT seq FROM ledger_order WHERE idx = $1", &[Value::Number(index)]).await)
    }

    async fn objects(&self, owner: &mut Owner) -> Vec<Object> {
        let mut objects = Vec::new();
        for recording in owner.all::<Uuid>("SELECT id FROM recordings ORDER BY id", &[]).await {
            let keys = "SELECT object FROM segments WHERE recording_id = $1 ORDER BY number";
            for (number, object) in (0..).zip(owner.all::<String>(keys, &[Value::Id(recording)]).await) {
                objects.push(Object { recording, number, path: self.copy.blobs().join(object) });
            }
        }
        objects
    }

    async fn object(&mut self, owner: &mut Owner) -> Object {
        self.objects(owner).await.choose(self.random).unwrap().clone()
    }

    /// Other bytes, one changed.
    fn flipped(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let at = self.random.random_range(0..bytes.len());
        bytes[at] ^= self.random.random_range(1..=255_u8);
        bytes
    }

    /// Another text, one character changed to another that can be printed.
    fn retyped(&mut self, text: &str) -> String {
        let at = self.random.random_range(0..text.chars().count());
        let other = |old: char| if old == 'k' { 'q' } else { 'k' };
        text.chars().enumerate().map(|(place, old)| if place == at { other(old) } else { old }).collect()
    }

    async fn make(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        match kind {
            Kind::SegmentByte | Kind::SegmentCut | Kind::SegmentLonger | Kind::SegmentGone => {
                self.change_object(kind, owner).await
            }
            Kind::SegmentsSwapped | Kind::SegmentReplaced | Kind::TailCut => self.change_objects(kind, owner).await,
            Kind::SegmentRow
            | Kind::SegmentRowGone
            | Kind::RecordingRow
            | Kind::RecordingRowGone
            | Kind::SessionRow
            | Kind::SessionRowGone => self.change_row(kind, owner).await,
            Kind::SessionGone => self.remove_session(owner).await,
            Kind::ManifestByte | Kind::ManifestGone | Kind::ManifestsSwapped => self.change_manifest(kind, owner).await,
            Kind::EventEntry | Kind::EventColumn | Kind::EventGone | Kind::EventsSwapped | Kind::EventPutIn => {
                self.change_event(kind, owner).await
            }
            Kind::PlaceHash | Kind::PlaceGone | Kind::PlacesSwapped | Kind::PlaceMore | Kind::EventsCut => {
                self.change_place(kind, owner).await
            }
            Kind::TileByte | Kind::TileRoot | Kind::TileGone | Kind::TileMore => self.change_tile(kind, owner).await,
            Kind::CheckpointText | Kind::CheckpointGone | Kind::CheckpointsGone | Kind::CheckpointSize => {
                self.change_checkpoint(kind, owner).await
            }
            Kind::KeyOther | Kind::SignedAgain => self.change_key(kind, owner).await,
            Kind::AnchorFileByte | Kind::AnchorFileCut | Kind::AnchorObjectByte | Kind::AnchorObjectGone => {
                self.change_anchor(kind)
            }
            Kind::OldBackup | Kind::OldBackupExcused => unreachable!("no connection may be open"),
        }
    }

    async fn change_object(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let object = self.object(owner).await;
        let mut bytes = std::fs::read(&object.path).unwrap();
        match kind {
            Kind::SegmentByte => bytes = self.flipped(bytes),
            Kind::SegmentCut => bytes.truncate(self.random.random_range(0..bytes.len())),
            _ => bytes.extend_from_slice(b"more"),
        }
        match kind {
            Kind::SegmentGone => std::fs::remove_file(&object.path).unwrap(),
            _ => std::fs::write(&object.path, bytes).unwrap(),
        }
        change(format!("{kind:?} {object:?}"), [object.place()])
    }

    async fn change_objects(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let objects = self.objects(owner).await;
        let some: Vec<Object> = objects.sample(self.random, 2).cloned().collect();
        let (a, b) = (some[0].clone(), some[1].clone());
        let (of_a, of_b) = (std::fs::read(&a.path).unwrap(), std::fs::read(&b.path).unwrap());
        match kind {
            Kind::SegmentsSwapped => {
                std::fs::write(&a.path, of_b).unwrap();
                std::fs::write(&b.path, of_a).unwrap();
                change(format!("swapped {a:?} and {b:?}"), [a.place(), b.place()])
            }
            Kind::SegmentReplaced => {
                std::fs::write(&a.path, of_b).unwrap();
                change(format!("{b:?} in the place of {a:?}"), [a.place()])
            }
            _ => {
                let cut: Vec<&Object> =
                    objects.iter().filter(|o| o.recording == a.recording && o.number >= a.number).collect();
                for object in cut {
                    std::fs::remove_file(&object.path).unwrap();
                }
                let (recording, from) = (Value::Id(a.recording), Value::Number(a.number));
                let rows = "DELETE FROM segments WHERE recording_id = $1 AND number >= $2";
                owner.change(rows, &[recording.clone(), from.clone()]).await;
                owner.change("UPDATE recordings SET segments = $2 WHERE id = $1", &[recording, from]).await;
                change(format!("cut from {a:?} on"), [format!("recording {}", RecordingId::from_uuid(a.recording))])
            }
        }
    }

    async fn change_row(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let object = self.object(owner).await;
        let recording = RecordingId::from_uuid(object.recording);
        let (id, number) = (Value::Id(object.recording), Value::Number(object.number));
        let session: Uuid =
            owner.one("SELECT session_id FROM recordings WHERE id = $1", std::slice::from_ref(&id)).await;
        let session_place = format!("session {}", SessionId::from_uuid(session));
        let (sql, values, place) = match kind {
            Kind::SegmentRow => {
                let set = [
                    "start_us = start_us + 1",
                    "end_us = end_us - 1",
                    "bytes = bytes + 1",
                    "stored_bytes = stored_bytes + 1",
                    "sha256 = chain",
                    "chain = sha256",
                    "object = 'recordings/other'",
                    "number = number + 1000",
                ];
                // The first segment's hash is not that of its chain; `sha256 = chain` changes it all the same.
                let set = set.choose(self.random).unwrap();
                let sql = format!("UPDATE segments SET {set} WHERE recording_id = $1 AND number = $2");
                (sql, vec![id, number], "row of segment ".to_owned())
            }
            Kind::SegmentRowGone => {
                let sql = "DELETE FROM segments WHERE recording_id = $1 AND number = $2";
                (sql.to_owned(), vec![id, number], format!("recording {recording}"))
            }
            Kind::RecordingRow => {
                let set = [
                    "channel = channel + 1",
                    "program = '{\"kind\":\"shell\"}'",
                    "duration_us = duration_us + 1",
                    "segments = segments + 1",
                    "exit = '{\"status\":99}'",
                    "recipients = '[\"age1other\"]'",
                ];
                let sql = format!("UPDATE recordings SET {} WHERE id = $1", set.choose(self.random).unwrap());
                (sql, vec![id], "recording".to_owned())
            }
            Kind::RecordingRowGone => {
                ("DELETE FROM recordings WHERE id = $1".to_owned(), vec![id], format!("recording {recording}"))
            }
            Kind::SessionRow => {
                let set = [
                    "principal_name = 'mallory'",
                    "target_name = 'other'",
                    "login = 'other'",
                    "node = 'other'",
                    "client_address = '192.0.2.1:1'",
                    "client_version = 'other'",
                    "started_at = ended_at",
                    "ending = '\"crashed\"'",
                    "terms = '{}'",
                ];
                let sql = format!("UPDATE sessions SET {} WHERE id = $1", set.choose(self.random).unwrap());
                (sql, vec![Value::Id(session)], session_place)
            }
            _ => ("DELETE FROM sessions WHERE id = $1".to_owned(), vec![Value::Id(session)], session_place),
        };
        owner.change(&sql, &values).await;
        change(format!("{sql} with {values:?}"), [place])
    }

    /// A session with all that there is of it: rows, events, places, objects.
    async fn remove_session(&mut self, owner: &mut Owner) -> Change {
        let sessions: Vec<Uuid> = owner.all("SELECT id FROM sessions ORDER BY id", &[]).await;
        let session = *sessions.choose(self.random).unwrap();
        let id = [Value::Id(session)];
        for object in owner
            .all::<String>(
                "SELECT object FROM segments s JOIN recordings r ON r.id = s.recording_id WHERE r.session_id = $1",
                &id,
            )
            .await
        {
            std::fs::remove_file(self.copy.blobs().join(object)).unwrap();
        }
        let first: i64 = owner
            .one("SELECT MIN(o.idx) FROM ledger_order o JOIN events e ON e.seq = o.seq WHERE e.session_id = $1", &id)
            .await;
        for sql in [
            "DELETE FROM segments WHERE recording_id IN (SELECT id FROM recordings WHERE session_id = $1)",
            "DELETE FROM recordings WHERE session_id = $1",
            "DELETE FROM session_facts WHERE session_id = $1",
            "DELETE FROM session_host_keys WHERE session_id = $1",
            "DELETE FROM manifests WHERE session_id = $1",
            "DELETE FROM sessions WHERE id = $1",
        ] {
            owner.run(sql, &id).await;
        }
        let lost = owner.run("DELETE FROM events WHERE session_id = $1", &id).await;
        change(format!("session {} removed", SessionId::from_uuid(session)), [format!("event {first}")]).losing(lost)
    }

    async fn change_manifest(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let sessions: Vec<Uuid> = owner.all("SELECT session_id FROM manifests ORDER BY session_id", &[]).await;
        let some: Vec<Uuid> = sessions.sample(self.random, 2).copied().collect();
        let place = |session: Uuid| format!("manifest of session {}", SessionId::from_uuid(session));
        let find = "SELECT bytes FROM manifests WHERE session_id = $1";
        let set = "UPDATE manifests SET bytes = $2 WHERE session_id = $1";
        let a: Vec<u8> = owner.one(find, &[Value::Id(some[0])]).await;
        match kind {
            Kind::ManifestByte => {
                let altered = self.flipped(a);
                owner.change(set, &[Value::Id(some[0]), Value::Bytes(altered)]).await;
                change("a byte of a manifest", [place(some[0])])
            }
            Kind::ManifestGone => {
                owner.change("DELETE FROM manifests WHERE session_id = $1", &[Value::Id(some[0])]).await;
                change("a manifest removed", [place(some[0])])
            }
            _ => {
                let b: Vec<u8> = owner.one(find, &[Value::Id(some[1])]).await;
                owner.change(set, &[Value::Id(some[0]), Value::Bytes(b)]).await;
                owner.change(set, &[Value::Id(some[1]), Value::Bytes(a)]).await;
                change("two manifests swapped", [place(some[0]), place(some[1])])
            }
        }
    }

    async fn change_event(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let count = self.events(owner).await;
        let index = self.below(count);
        let seq = Self::seq(owner, index).await;
        let place = format!("event {index}");
        match kind {
            Kind::EventEntry => {
                let entry: Vec<u8> =
                    owner.one("SELECT entry FROM events WHERE seq = $1", std::slice::from_ref(&seq)).await;
                let altered = self.flipped(entry);
                owner.change("UPDATE events SET entry = $2 WHERE seq = $1", &[seq, Value::Bytes(altered)]).await;
                change(format!("a byte of event {index}"), [place]).losing(1)
            }
            Kind::EventColumn => self.change_column(index, seq, owner).await,
            Kind::EventGone => {
                owner.change("DELETE FROM events WHERE seq = $1", &[seq]).await;
                change(format!("event {index} removed"), [place]).losing(1)
            }
            Kind::EventsSwapped => {
                let other = (index + 1 + self.below(count - 1)) % count;
                let of_other = Self::seq(owner, other).await;
                for (from, to) in [(&seq, &Value::Number(-1)), (&of_other, &seq), (&Value::Number(-1), &of_other)] {
                    let sql = "UPDATE ledger_order SET seq = $2 WHERE seq = $1";
                    owner.change(sql, &[from.clone(), to.clone()]).await;
                }
                change(format!("events {index} and {other} swapped"), [format!("event {}", index.min(other))]).losing(2)
            }
            _ => {
                let seq: i64 = owner.one("SELECT MAX(seq) FROM events", &[]).await;
                let columns = "at, actor, act, kind, session_id, entry";
                let overriding = if matches!(owner, Owner::Postgres(_)) { "OVERRIDING SYSTEM VALUE" } else { "" };
                let sql = format!(
                    "INSERT INTO events (seq, id, {columns}) {overriding} SELECT $1, $2, {columns} FROM events WHERE seq = $3"
                );
                let new = Value::Number(seq + 1);
                owner.change(&sql, &[new, Value::Id(Uuid::now_v7()), Value::Number(seq)]).await;
                change("an event put in", ["event e-".to_owned()])
            }
        }
    }

    /// The columns that lists and filters show. The entry beside them is what was signed, so nothing is lost.
    async fn change_column(&mut self, index: i64, seq: Value, owner: &mut Owner) -> Change {
        let column = *["id", "at", "actor", "act", "kind", "session_id"].choose(self.random).unwrap();
        let find = format!("SELECT {column} FROM events WHERE seq = $1");
        let at_seq = std::slice::from_ref(&seq);
        let value = match column {
            "id" | "session_id" => Value::Id(Uuid::now_v7()),
            "at" => {
                let at: DateTime<Utc> = owner.one(&find, at_seq).await;
                Value::At(at + TimeDelta::microseconds(1 + self.below(1_000_000_000)))
            }
            _ => {
                let text: String = owner.one(&find, at_seq).await;
                Value::Text(self.retyped(&text))
            }
        };
        let sql = format!("UPDATE events SET {column} = $2 WHERE seq = $1");
        owner.change(&sql, &[seq, value.clone()]).await;
        change(format!("{column} of event {index} to {value:?}"), [format!("event {index} ")])
    }

    async fn change_place(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let count = self.events(owner).await;
        let index = self.below(count);
        match kind {
            Kind::PlaceHash => {
                let leaf: Vec<u8> =
                    owner.one("SELECT leaf FROM ledger_order WHERE idx = $1", &[Value::Number(index)]).await;
                let altered = self.flipped(leaf);
                let sql = "UPDATE ledger_order SET leaf = $2 WHERE idx = $1";
                owner.change(sql, &[Value::Number(index), Value::Bytes(altered)]).await;
                let places = [format!("place of event {index}"), format!("stored hash of event {index}")];
                change(format!("the hash of event {index}"), places)
            }
            Kind::PlaceGone => {
                owner.change("DELETE FROM ledger_order WHERE idx = $1", &[Value::Number(index)]).await;
                // At the tree's edge the event's hash is gone with its place, and so is what can be said of those behind it.
                let lost = if index < count / 256 * 256 { 1 } else { u64::try_from(count).unwrap() };
                change(format!("the place of event {index} removed"), [format!("event {index}")]).losing(lost)
            }
            Kind::PlacesSwapped => {
                let other = (index + 1 + self.below(count - 1)) % count;
                for (from, to) in [(index, -1), (other, index), (-1, other)] {
                    // -1 is below what the table allows; so far above it.
                    let far = |number: i64| Value::Number(if number < 0 { 1 << 40 } else { number });
                    owner.change("UPDATE ledger_order SET idx = $2 WHERE idx = $1", &[far(from), far(to)]).await;
                }
                let first = index.min(other);
                // Two at the tree's edge change places with their hashes: then nothing tells which of those since the last checkpoint
                // it was.
                let places = [format!("event {first}"), "events ".to_owned()];
                change(format!("the places {index} and {other} swapped"), places).losing(u64::MAX)
            }
            Kind::PlaceMore => {
                let sql =
                    "INSERT INTO ledger_order (idx, seq, leaf) SELECT $1, $2, leaf FROM ledger_order WHERE idx = 0";
                owner.change(sql, &[Value::Number(count), Value::Number(1 << 40)]).await;
                change("a place put in", [format!("event {count}")])
            }
            _ => self.cut_events(owner).await,
        }
    }

    /// Everything behind an earlier checkpoint, so that the database agrees with itself.
    async fn cut_events(&mut self, owner: &mut Owner) -> Change {
        let sizes: Vec<i64> = owner.all("SELECT size FROM ledger_checkpoints ORDER BY size", &[]).await;
        let size = *sizes[..sizes.len() - 1].choose(self.random).unwrap();
        for sql in [
            "DELETE FROM events WHERE seq IN (SELECT seq FROM ledger_order WHERE idx >= $1)",
            "DELETE FROM ledger_order WHERE idx >= $1",
            "DELETE FROM ledger_tiles WHERE (idx + 1) * 256 > $1",
            "DELETE FROM ledger_checkpoints WHERE size > $1",
        ] {
            owner.run(sql, &[Value::Number(size)]).await;
        }
        change(format!("the ledger cut after {size} events"), ["anchor ".to_owned()]).losing(u64::MAX)
    }

    async fn change_tile(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let find = |column: &str| format!("SELECT {column} FROM ledger_tiles WHERE level = 0 AND idx = 0");
        match kind {
            Kind::TileByte => {
                let hashes: Vec<u8> = owner.one(&find("hashes"), &[]).await;
                let altered = self.flipped(hashes);
                let at =
                    altered.iter().zip(&owner.one::<Vec<u8>>(&find("hashes"), &[]).await).position(|(a, b)| a != b);
                owner.change("UPDATE ledger_tiles SET hashes = $1 WHERE level = 0", &[Value::Bytes(altered)]).await;
                change("a byte of a tile", [format!("stored hash of event {}", at.unwrap() / 32)])
            }
            Kind::TileRoot => {
                let root: Vec<u8> = owner.one(&find("root"), &[]).await;
                let altered = self.flipped(root);
                owner.change("UPDATE ledger_tiles SET root = $1 WHERE level = 0", &[Value::Bytes(altered)]).await;
                change("the hash above a tile", ["tile 0 of level 0".to_owned()])
            }
            Kind::TileGone => {
                owner.change("DELETE FROM ledger_tiles WHERE level = 0 AND idx = 0", &[]).await;
                change("a tile removed", ["tile 0 of level 0".to_owned()])
            }
            _ => {
                let (level, index) = (self.below(3), 7 + self.below(1000));
                let sql =
                    "INSERT INTO ledger_tiles (level, idx, hashes, root) SELECT $1, $2, hashes, root FROM ledger_tiles";
                owner.change(sql, &[Value::Number(level), Value::Number(index)]).await;
                change("a tile put in", ["the tiles".to_owned()])
            }
        }
    }

    async fn change_checkpoint(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let sizes: Vec<i64> = owner.all("SELECT size FROM ledger_checkpoints ORDER BY size", &[]).await;
        let (size, last) = (*sizes.choose(self.random).unwrap(), *sizes.last().unwrap());
        let place = |size: i64| format!("checkpoint of {size} events");
        match kind {
            Kind::CheckpointText => {
                let find = "SELECT note FROM ledger_checkpoints WHERE size = $1";
                let note: String = owner.one(find, &[Value::Number(size)]).await;
                let altered = self.retyped(&note);
                let sql = "UPDATE ledger_checkpoints SET note = $2 WHERE size = $1";
                owner.change(sql, &[Value::Number(size), Value::Text(altered.clone())]).await;
                change(format!("the checkpoint of {size} events to {altered}"), [place(size)]).losing(u64::MAX)
            }
            Kind::CheckpointGone => {
                // Whichever is anchored, the last one among them: one that nobody outside has seen says nothing that the next does
                // not say too.
                owner.change("DELETE FROM ledger_checkpoints WHERE size = $1", &[Value::Number(last)]).await;
                change("the last checkpoint removed", ["anchor ".to_owned()]).losing(u64::MAX)
            }
            Kind::CheckpointsGone => {
                owner.change("DELETE FROM ledger_checkpoints", &[]).await;
                change("all checkpoints removed", ["anchor ".to_owned()]).losing(u64::MAX)
            }
            _ => {
                let other = last + 1 + self.below(1000);
                let sql = "UPDATE ledger_checkpoints SET size = $2 WHERE size = $1";
                owner.change(sql, &[Value::Number(size), Value::Number(other)]).await;
                change("the size of a checkpoint", [place(other)]).losing(u64::MAX)
            }
        }
    }

    async fn change_key(&mut self, kind: Kind, owner: &mut Owner) -> Change {
        let name: String = owner.one("SELECT name FROM ledger_keys", &[]).await;
        let mut secret = [0; 32];
        self.random.fill(&mut secret);
        let key = SignerKey::new(name.parse().unwrap(), &secret);
        owner.change("UPDATE ledger_keys SET vkey = $1", &[Value::Text(key.public().to_string())]).await;
        if kind == Kind::SignedAgain {
            for size in owner.all::<i64>("SELECT size FROM ledger_checkpoints", &[]).await {
                let find = "SELECT note FROM ledger_checkpoints WHERE size = $1";
                let note: String = owner.one(find, &[Value::Number(size)]).await;
                let old = Checkpoint::parse(Note::parse(note.as_bytes()).unwrap().text()).unwrap();
                let signed = old.sign(&[&key]).unwrap().to_string();
                let sql = "UPDATE ledger_checkpoints SET note = $2 WHERE size = $1";
                owner.change(sql, &[Value::Number(size), Value::Text(signed)]).await;
            }
        }
        // The anchors hold what the first key has signed; and its fingerprint is known.
        if self.random.random_bool(0.5) {
            self.copy.fingerprints.clear();
        }
        change(format!("{kind:?}"), ["anchor ".to_owned()]).losing(u64::MAX)
    }

    fn change_anchor(&mut self, kind: Kind) -> Change {
        match kind {
            Kind::AnchorFileByte | Kind::AnchorFileCut => {
                let path = self.copy.anchor_file();
                let text = std::fs::read_to_string(&path).unwrap();
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if kind == Kind::AnchorFileCut {
                    lines.pop();
                } else {
                    let line = self.random.random_range(0..lines.len());
                    lines[line] = self.retyped(&lines[line].clone());
                }
                std::fs::write(&path, lines.join("\n") + "\n").unwrap();
                change(format!("{kind:?}"), ["anchor file".to_owned()])
            }
            _ => {
                let folder = self.copy.blobs().join("anchors");
                let mut notes: Vec<PathBuf> =
                    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
                notes.sort();
                let note = if kind == Kind::AnchorObjectGone { &notes[0] } else { notes.choose(self.random).unwrap() };
                let altered = self.retyped(&std::fs::read_to_string(note).unwrap());
                match kind {
                    Kind::AnchorObjectGone => std::fs::remove_file(note).unwrap(),
                    _ => std::fs::write(note, altered).unwrap(),
                }
                change(format!("{kind:?} {}", note.display()), ["anchor ".to_owned()])
            }
        }
    }
}

/// Makes one change to a copy, and verifies it.
async fn one(base: &Deployment, kind: Kind, random: &mut StdRng) -> (Change, Report) {
    let mut copy = base.copy().await;
    let made = if matches!(kind, Kind::OldBackup | Kind::OldBackupExcused) {
        copy.restore_backup().await;
        if kind == Kind::OldBackupExcused {
            let mut owner = copy.owner().await;
            let size: i64 = owner.one("SELECT MAX(size) FROM ledger_checkpoints", &[]).await;
            let sql = "INSERT INTO ledger_rollbacks (size, anchored, at) VALUES ($1, $2, $3)";
            owner.change(sql, &[Value::Number(size), Value::Number(1 << 40), Value::At(Utc::now())]).await;
            owner.close().await;
            change("an old backup, with a row that excuses it", ["the database of ".to_owned()]).losing(u64::MAX)
        } else {
            change("an old backup", ["anchor ".to_owned()]).losing(u64::MAX)
        }
    } else {
        let mut owner = copy.owner().await;
        let made = Scene { copy: &mut copy, random }.make(kind, &mut owner).await;
        owner.close().await;
        made
    };
    let report = copy.verify().await;
    copy.remove().await;
    (made, report)
}

/// Whether a place is the expected one, or a more exact one in it: `event 3` is not `event 30`.
fn is_at(found: &str, expected: &str) -> bool {
    let is_digit = |next: char| next.is_ascii_digit();
    found.strip_prefix(expected).is_some_and(|rest| !(expected.ends_with(is_digit) && rest.starts_with(is_digit)))
}

async fn campaign(on_postgres: bool, changes: usize, untouched: usize) {
    let mut random = StdRng::seed_from_u64(seed());
    let base = Deployment::make(on_postgres).await;
    for number in 0..changes {
        // Every kind comes, then any.
        let kind = KINDS.get(number).copied().unwrap_or_else(|| *KINDS.choose(&mut random).unwrap());
        let (made, report) = one(&base, kind, &mut random).await;
        let what = format!("change {number}: {kind:?}, {}", made.what);
        let first = report.faults.first().unwrap_or_else(|| panic!("{what} was not found"));
        let named = made.places.iter().any(|place| is_at(&first.place, place));
        assert!(named, "{what}: the place is {:?}: {:?}", made.places, report.faults);
        assert!(!first.what.is_empty());
        let least = report.of.saturating_sub(made.lost);
        assert!(report.events >= least, "{what}: {} stay provable: {:?}", report.provable(), report.faults);
    }
    let earlier = base.verify().await.verified().unwrap();
    for number in 0..untouched {
        let copy = base.copy().await;
        live_on(&copy, earlier, number, &mut random).await;
        copy.remove().await;
    }
    eprintln!("{changes} changes were found, {untouched} untouched deployments are sound");
    base.remove().await;
}

/// What happens of itself: events come, some have a place, some are anchored, and somebody looks, from the start or from where an
/// earlier look was interrupted.
async fn live_on(copy: &Deployment, earlier: Verified, number: usize, random: &mut StdRng) {
    let app = copy.app().await;
    grow(&app, random.random_range(0..20)).await;
    let mut sequencer = Sequencer::new(app.clone());
    if random.random_bool(0.8) {
        sequencer.catch_up().await.unwrap();
        if random.random_bool(0.5) {
            copy.anchors(&app).round(&app).await;
        }
        grow(&app, random.random_range(0..3)).await;
    }
    app.db.close().await;
    let report = copy.verify_from(Some(earlier).filter(|_| random.random_bool(0.5))).await;
    assert_eq!(report.faults, [], "untouched deployment {number}");
    assert_eq!(report.events, report.of);
    assert!(report.root.is_some_and(|root| root != Hash::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_single_change_is_found_and_named_and_nothing_is_complained_about_that_nobody_touched() {
    campaign(false, either(100, 1000), either(20, 1000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_postgresql() {
    campaign(true, either(KINDS.len(), 200), either(3, 50)).await;
}

/// What SECURITY.md says can be noticed, and what cannot.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_back_from_a_backup_is_noticed_as_long_as_one_witness_was_not() {
    let base = Deployment::make(false).await;
    for which in 1..8 {
        let (database, objects, file) = (which & 1 != 0, which & 2 != 0, which & 4 != 0);
        let mut copy = base.copy().await;
        if database {
            copy.restore_backup().await;
        }
        if objects {
            copy.restore_objects();
        }
        if file {
            copy.restore_anchor_file();
        }
        let app = copy.app().await;
        let found = copy.anchors(&app).compare(&app).await.unwrap();
        app.db.close().await;
        let report = copy.verify().await;

        let what = format!("database {database}, objects {objects}, file {file}");
        assert_eq!(found.is_empty(), !database || (objects && file), "refused at the start: {what}: {found:?}");
        assert_eq!(report.is_sound(), database && objects && file, "{what}: {:?}", report.faults);
        if let Some(first) = report.faults.first() {
            assert!(first.place.starts_with("anchor "), "{what}: {first:?}");
        }
        copy.remove().await;
    }
}
