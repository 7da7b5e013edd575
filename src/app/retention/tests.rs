use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sallyport_domain::channel::Program;
use sallyport_domain::event::{Act, Actor, SessionEnd};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{DeletionId, RecordingId, SessionId};
use sallyport_domain::principal::{Principal, Role};
use sallyport_domain::recording::frame::Body;
use sallyport_domain::retention::HoldSubject;
use uuid::Uuid;

use super::deletions::{Stage, approve, ask, refuse};
use super::removal::round;
use super::rules::{RetentionSettings, RuleSetting, sweep};
use super::{RetentionError, holds};
use crate::app::ledger::sequencer::Sequencer;
use crate::app::ledger::verify::{Report, Wish, verify};
use crate::app::ledger::{keys, manifests as sealing};
use crate::app::recordings::read::{ReadError, Reader};
use crate::app::recordings::{Ending, NewRecording, RecordingSettings, Recordings};
use crate::app::{App, audit, people};
use crate::store::blob::{BlobSettings, Blobs};
use crate::store::db::testing::{app_on, on_both};
use crate::store::db::tests::furnish_sessions;
use crate::store::db::{self, Db, deletions, manifests, recordings, sessions};

const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// What one bastion has recorded: each session's is at rest and signed.
pub(crate) struct Archive {
    pub(crate) app: App,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) recordings: Vec<RecordingId>,
    folder: tempfile::TempDir,
}

impl Archive {
    pub(crate) async fn of(db: Db, count: u128) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file:{}/blobs", folder.path().display());
        let blobs = Blobs::open(&BlobSettings { url, ..BlobSettings::default() }).unwrap();
        let (_, sessions) = furnish_sessions(&db, count).await;
        let app = App { blobs, ..app_on(db) };
        keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
        let settings = RecordingSettings { journal_dir: folder.path().join("journal"), ..RecordingSettings::default() };
        let keeping = Recordings::new(app.clone(), settings).unwrap();
        let mut all = Vec::new();
        for &session in &sessions {
            all.push(record(&app, &keeping, session).await);
        }
        keeping.close(Duration::from_secs(10)).await;
        for &session in &sessions {
            end(&app, session).await;
        }
        assert_eq!(sealing::seal_all(&app).await.unwrap(), sessions.len());
        let archive = Self { app, sessions, recordings: all, folder };
        archive.sign().await;
        archive
    }

    pub(crate) async fn sign(&self) {
        Sequencer::new(self.app.clone()).catch_up().await.unwrap();
    }

    pub(crate) async fn verify(&self) -> Report {
        self.sign().await;
        verify(&self.app, Wish::default(), |_| {}).await.unwrap()
    }

    async fn objects(&self, session: SessionId) -> Vec<std::path::PathBuf> {
        let keys = deletions::objects(&mut self.app.db.read().await.unwrap(), session).await.unwrap();
        keys.iter().map(|key| self.folder.path().join("blobs").join(key)).collect()
    }

    pub(crate) async fn acts(&self, kind: &str) -> Vec<(Actor, Act)> {
        let filter = audit::EventFilter { kind: Some(kind.to_owned()), ..audit::EventFilter::default() };
        let events = audit::list(&self.app, 0, &filter, 1000).await.unwrap();
        events.into_iter().map(|(_, event)| (event.actor, event.act)).collect()
    }

    pub(crate) async fn person(&self, name: &str, role: Role) -> Principal {
        let new = people::NewPerson {
            name: name.parse().unwrap(),
            organisation: None,
            roles: vec![role],
            keys: vec![],
            password: None,
        };
        people::add(&self.app, &OPERATOR, new).await.unwrap();
        people::find(&self.app, &name.parse().unwrap()).await.unwrap().principal
    }

    pub(crate) async fn adam_and_rita(&self) -> (Principal, Principal) {
        (self.person("adam", Role::Admin).await, self.person("rita", Role::Reviewer).await)
    }
}

async fn record(app: &App, keeping: &Recordings, session: SessionId) -> RecordingId {
    let recording = RecordingId::from_uuid(Uuid::now_v7());
    let program = Program::Exec { command: b"id".to_vec() };
    let new = NewRecording { id: recording, session, channel: 1, program, pty: None, keeps_content: true };
    let recorder = keeping.start(new).await.unwrap();
    recorder.record(vec![Body::Output(Bytes::from_static(b"uid=0(root)\n"))]).await.unwrap();
    recorder.finish(Ending { how: "closed".to_owned(), reason: None });
    let mut tx = app.db.write().await.unwrap();
    let found = sessions::find(&mut tx, session).await.unwrap().unwrap().session;
    let grant = db::grants::find(&mut tx, found.grant).await.unwrap().unwrap();
    let facts = serde_json::json!({
        "software": "sallyport test",
        "person": { "id": found.principal, "name": found.principal_name, "method": "publickey" },
        "target": { "id": found.target, "name": found.target_name, "address": "127.0.0.1:22", "host_keys": [], "jumps": [] },
        "grant": grant,
        "settings": BTreeMap::<String, String>::new(),
    });
    manifests::insert_facts(&mut tx, session, &facts.to_string()).await.unwrap();
    tx.commit().await.unwrap();
    recording
}

async fn end(app: &App, session: SessionId) {
    let mut tx = app.db.write().await.unwrap();
    let now = app.clock.now();
    assert!(sessions::end(&mut tx, session, now, &SessionEnd::ClientClosed).await.unwrap());
    audit::append(&mut tx, now, &OPERATOR, Act::SessionEnded { session, end: SessionEnd::ClientClosed }).await.unwrap();
    tx.commit().await.unwrap();
}

async fn read(app: &App, recording: RecordingId) -> Result<usize, ReadError> {
    let mut reader = Reader::new(app.clone(), recording, false);
    let mut frames = 0;
    while let Some(batch) = reader.next().await? {
        frames += batch.len();
    }
    Ok(frames)
}

#[tokio::test]
async fn what_two_people_deleted_is_gone_and_the_rest_still_verifies() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let (adam, rita) = archive.adam_and_rita().await;
        let objects = archive.objects(session).await;
        assert!(!objects.is_empty() && objects.iter().all(|path| path.exists()));

        let asked = ask(app, &adam, session, "a mistake: a password on the screen").await.unwrap();
        let id = asked.deletion.id;
        assert!(matches!(approve(app, &adam, id, None).await, Err(RetentionError::SamePerson)));
        assert!(matches!(ask(app, &rita, session, "again").await, Err(RetentionError::AskedAlready { .. })));
        assert_eq!(round(app).await.unwrap(), 0, "nobody has said yes");
        let approved = approve(app, &rita, id, None).await.unwrap();
        assert_eq!(approved.sessions[0].stage, Stage::Deleting);
        assert_eq!(round(app).await.unwrap(), 0, "the tombstone is not signed yet");
        assert!(objects.iter().all(|path| path.exists()));
        archive.sign().await;
        assert_eq!(round(app).await.unwrap(), 1);
        assert_eq!(round(app).await.unwrap(), 0);

        assert!(objects.iter().all(|path| !path.exists()));
        let (actor, stone) = archive.acts("recordings_deleted").await.remove(0);
        let manifest = manifests::find(&mut app.db.read().await.unwrap(), session).await.unwrap().unwrap();
        assert!(matches!(&actor, Actor::Principal { id, .. } if *id == rita.id));
        let Act::RecordingsDeleted { manifest: told, asked_by, rule, .. } = stone else { panic!("{stone:?}") };
        assert_eq!((told, rule), (Hash::of(&manifest), None));
        assert!(matches!(asked_by, Actor::Principal { id, .. } if id == adam.id));
        assert_eq!(archive.acts("deletion_done").await.len(), 1);
        let report = archive.verify().await;
        assert_eq!((report.faults, report.sessions, report.deleted), (vec![], 2, 1));
        assert!(matches!(read(app, archive.recordings[0]).await, Err(ReadError::Deleted)));
        assert!(read(app, archive.recordings[1]).await.unwrap() > 0);
        let row = recordings::find(&mut app.db.read().await.unwrap(), archive.recordings[0]).await.unwrap().unwrap();
        assert_eq!(row.progress.resume, None);
        assert!(matches!(ask(app, &adam, session, "again").await, Err(RetentionError::Gone { .. })));
        assert!(matches!(approve(app, &rita, id, None).await, Err(RetentionError::Answered(_))));
    })
    .await;
}

#[tokio::test]
async fn a_recording_that_is_missing_without_a_sound_tombstone_is_a_fault() {
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let (adam, _) = archive.adam_and_rita().await;
        for object in archive.objects(session).await {
            std::fs::remove_file(object).unwrap();
        }
        assert!(archive.verify().await.faults[0].what.contains("is missing"));

        // Rows that say so, and no event.
        let id = ask(app, &adam, session, "x").await.unwrap().deletion.id;
        let mut tx = app.db.write().await.unwrap();
        deletions::begin(&mut tx, id, session, app.clock.now(), audit::new_id()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(archive.verify().await.faults[0].what.contains("is missing"));

        // An event by one hand, about the right manifest.
        let manifest = Hash::of(&manifests::find(&mut app.db.read().await.unwrap(), session).await.unwrap().unwrap());
        let actor = Actor::Principal { id: adam.id, name: adam.name.clone() };
        let stone = |deletion: DeletionId, manifest: Hash, rule: Option<String>| Act::RecordingsDeleted {
            deletion,
            session,
            manifest,
            asked_by: actor.clone(),
            rule,
            reason: "x".to_owned(),
        };
        let other =
            Actor::Principal { id: sallyport_domain::id::PrincipalId::from_uuid(Uuid::nil()), name: adam.name.clone() };
        let another = DeletionId::from_uuid(Uuid::nil());
        for (by, act) in [
            (&actor, stone(id, manifest, None)),
            (&OPERATOR, stone(id, manifest, None)),
            (&other, stone(id, Hash::ZERO, None)),
            (&other, stone(another, manifest, None)),
            (&other, stone(id, manifest, Some("default: 1 days".to_owned()))),
        ] {
            audit::record(app, by, act).await.unwrap();
            let report = archive.verify().await;
            assert!(report.faults[0].what.contains("is missing") && report.deleted == 0, "{by:?}");
        }

        audit::record(app, &other, stone(id, manifest, None)).await.unwrap();
        assert_eq!(archive.verify().await.faults, []);
    })
    .await;
}

#[tokio::test]
async fn what_is_held_nothing_deletes_until_it_is_released() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let (adam, rita) = archive.adam_and_rita().await;
        let record = sessions::find(&mut app.db.read().await.unwrap(), session).await.unwrap().unwrap().session;
        let settings =
            RetentionSettings { keep: Some(Duration::from_secs(1)), automatic: true, ..RetentionSettings::default() };
        let id = ask(app, &adam, session, "x").await.unwrap().deletion.id;

        for subject in
            [HoldSubject::Session(session), HoldSubject::Grant(record.grant), HoldSubject::Target(record.target)]
        {
            let hold = holds::set(app, &OPERATOR, subject, "a lawsuit").await.unwrap();
            let refused = ask(app, &rita, session, "y").await;
            assert!(matches!(refused, Err(RetentionError::Held { hold: by, .. }) if by == hold.id), "{refused:?}");
            if subject == HoldSubject::Target(record.target) {
                // It was asked for before; the yes comes too late.
                let late = approve(app, &rita, id, None).await.unwrap();
                assert_eq!(late.sessions[0].stage, Stage::Kept);
                app.clock.advance(Duration::from_hours(24 * 400));
                assert_eq!(sweep(app, &settings).await.unwrap(), []);
            }
            holds::release(app, &OPERATOR, hold.id, "settled").await.unwrap();
            assert!(matches!(
                holds::release(app, &OPERATOR, hold.id, "settled").await,
                Err(RetentionError::Released(_))
            ));
        }
        archive.sign().await;
        assert_eq!(round(app).await.unwrap(), 0);
        assert_eq!((archive.acts("hold_set").await.len(), archive.acts("hold_released").await.len()), (3, 3));
        assert_eq!(archive.acts("deletion_refused").await.len(), 1);

        assert_eq!(sweep(app, &settings).await.unwrap().len(), 1);
        let held = holds::set(app, &OPERATOR, HoldSubject::Session(session), "too late").await;
        assert!(matches!(held, Err(RetentionError::Gone { .. })));
    })
    .await;
}

#[tokio::test]
async fn nobody_has_a_hand_in_deleting_what_was_done_under_their_own_grant() {
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let (adam, _) = archive.adam_and_rita().await;
        let alice = people::find(app, &"alice".parse().unwrap()).await.unwrap().principal;
        assert!(matches!(ask(app, &alice, session, "x").await, Err(RetentionError::OwnSession(_))));
        let id = ask(app, &adam, session, "x").await.unwrap().deletion.id;
        assert!(matches!(approve(app, &alice, id, None).await, Err(RetentionError::OwnSession(_))));
        let kept = refuse(app, &OPERATOR, id, "no", None).await.unwrap();
        assert_eq!(kept.sessions[0].stage, Stage::Kept);
        assert!(ask(app, &adam, session, "once more").await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_store_that_refuses_is_told_and_asked_again_and_a_crash_in_between_loses_nothing() {
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let (adam, rita) = archive.adam_and_rita().await;
        let id = ask(app, &adam, session, "x").await.unwrap().deletion.id;
        approve(app, &rita, id, None).await.unwrap();
        // A folder with something in it cannot be removed as a file.
        let object = archive.objects(session).await.remove(0);
        std::fs::remove_file(&object).unwrap();
        std::fs::create_dir_all(object.join("locked")).unwrap();
        archive.sign().await;

        assert_eq!(round(app).await.unwrap(), 0);
        let told = super::deletions::find(app, id).await.unwrap().sessions.remove(0);
        assert_eq!((told.stage, told.tries), (Stage::Deleting, 1));
        assert!(told.error.unwrap().contains("cannot delete object"));
        std::fs::remove_dir_all(&object).unwrap();
        assert_eq!(round(app).await.unwrap(), 0, "not before its time");
        app.clock.advance(Duration::from_mins(2));
        assert_eq!(round(app).await.unwrap(), 1);
        assert_eq!(archive.verify().await.faults, []);
    })
    .await;
}

#[tokio::test]
async fn what_is_older_than_its_rule_is_asked_for_in_batches_once() {
    on_both(|db| async {
        let archive = Archive::of(db, 3).await;
        let app = &archive.app;
        let (_, rita) = archive.adam_and_rita().await;
        let rule = RuleSetting { targets: "env=prod".parse().unwrap(), keep: Duration::from_hours(24 * 10) };
        let settings = RetentionSettings {
            keep: Some(Duration::from_hours(24)),
            rules: vec![rule],
            ..RetentionSettings::default()
        };
        app.clock.advance(Duration::from_hours(24 * 9));
        assert_eq!(sweep(app, &settings).await.unwrap(), [], "the target's own rule is longer");
        app.clock.advance(Duration::from_hours(25));
        let batch = sweep(app, &settings).await.unwrap().remove(0);
        assert_eq!(sweep(app, &settings).await.unwrap(), []);
        let found = super::deletions::find(app, batch).await.unwrap();
        assert_eq!((found.sessions.len(), found.deletion.asked_by), (3, Actor::Bastion));
        assert_eq!(found.sessions[0].rule.as_deref(), Some("env=prod: 10 days"));

        refuse(app, &OPERATOR, batch, "we want to look at them", None).await.unwrap();
        assert_eq!(sweep(app, &settings).await.unwrap(), []);
        app.clock.advance(Duration::from_hours(24 * 31));
        let batch = sweep(app, &settings).await.unwrap().remove(0);
        approve(app, &rita, batch, None).await.unwrap();
        archive.sign().await;
        assert_eq!(round(app).await.unwrap(), 3);
        let report = archive.verify().await;
        assert_eq!((report.faults, report.deleted), (vec![], 3));
    })
    .await;
}

#[tokio::test]
async fn what_the_operator_lets_go_by_itself_has_a_tombstone_too() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let app = &archive.app;
        let settings =
            RetentionSettings { keep: Some(Duration::from_hours(24)), automatic: true, ..RetentionSettings::default() };
        assert_eq!(sweep(app, &settings).await.unwrap(), []);
        app.clock.advance(Duration::from_hours(25));
        assert_eq!(sweep(app, &settings).await.unwrap().len(), 1);
        archive.sign().await;
        assert_eq!(round(app).await.unwrap(), 2);
        let report = archive.verify().await;
        assert_eq!((report.faults, report.deleted), (vec![], 2));
        assert_eq!(archive.acts("recordings_deleted").await.len(), 2);
    })
    .await;
}
