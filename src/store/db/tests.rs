//! What the databases must do alike.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sallyport_domain::channel::Program;
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::commands::{Certainty, Command};
use sallyport_domain::event::{CutReason, SessionEnd};
use sallyport_domain::files::FileRules;
use sallyport_domain::grant::{Approval, Capabilities, Forwarding, Grant, Terms, Window};
use sallyport_domain::id::{GrantId, PrincipalId, RecordingId, SessionId, TargetId};
use sallyport_domain::principal::{Principal, Role};
use sallyport_domain::recording::segment::Hash;
use sallyport_domain::target::{CredentialKind, HostKey, HostKeyTrust, Target, TargetLogin};
use uuid::Uuid;

use super::commands::{self, CommandCounts, CommandRecord};
use super::recordings::{Hand, NewRecording, Progress, RecordingRecord, SegmentRecord, TailRun};
use super::sessions::{NewSession, SessionFilter, SessionRecord};
use super::testing::on_both;
use super::{DatabaseSettings, Db, DbError, grants, policy_version, principals, recordings, sessions, targets};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_772_000_000_000_001 + seconds * 1_000_000).unwrap()
}

fn alice() -> Principal {
    Principal {
        id: PrincipalId::from_uuid(Uuid::from_u128(1)),
        name: "alice".parse().unwrap(),
        organisation: Some("Vendor".to_owned()),
        roles: vec![Role::Engineer],
        created_at: at(0),
        disabled_at: None,
    }
}

fn web_1() -> Target {
    Target {
        id: TargetId::from_uuid(Uuid::from_u128(2)),
        name: "web-1".parse().unwrap(),
        aliases: vec![],
        address: "127.0.0.1:22".parse().unwrap(),
        jump: None,
        logins: vec![TargetLogin { login: "root".parse().unwrap(), credential: CredentialKind::Certificate }],
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: "ssh-ed25519 AAAA".to_owned() }],
        created_at: at(0),
        disabled_at: None,
    }
}

fn grant(number: u128) -> Grant {
    Grant {
        id: GrantId::from_uuid(Uuid::from_u128(number)),
        people: vec![alice().id],
        terms: Terms {
            targets: vec!["web-*".parse().unwrap()],
            logins: vec!["root".parse().unwrap()],
            capabilities: Capabilities { shell: true, ..Capabilities::default() },
            source_networks: vec![],
            max_sessions: Some(2),
            second_factor: false,
            approval: Approval::None,
            files: FileRules::default(),
            commands: CommandRules::default(),
            forwarding: Forwarding::default(),
            review: None,
        },
        window: Window::new(at(0), at(3600)).unwrap(),
        reason: "INC-7".to_owned(),
        ticket: None,
        template: None,
        created_by: None,
        created_at: at(0),
        revoked: None,
    }
}

/// The process that serves the sessions.
const RUN: Uuid = Uuid::from_u128(9);

fn session(number: u128, grant: &Grant) -> NewSession {
    NewSession {
        id: SessionId::from_uuid(Uuid::from_u128(number)),
        principal: alice().id,
        principal_name: alice().name,
        target: web_1().id,
        target_name: web_1().name,
        login: "root".parse().unwrap(),
        grant: grant.id,
        terms: grant.terms.clone(),
        node: "node-a".to_owned(),
        client_address: "[2001:db8::1]:5000".parse().unwrap(),
        client_version: "SSH-2.0-OpenSSH_9.2".to_owned(),
        started_at: at(i64::try_from(number).unwrap()),
    }
}

/// Alice, a target, a grant, and two sessions under it, 101 and 102.
async fn furnish(db: &Db) -> Grant {
    let grant = grant(7);
    let mut tx = db.write().await.unwrap();
    assert!(principals::insert(&mut tx, &alice(), None).await.unwrap());
    assert_eq!(targets::insert(&mut tx, &web_1()).await.unwrap(), None);
    grants::insert(&mut tx, &grant).await.unwrap();
    for number in [101, 102] {
        sessions::insert(&mut tx, &session(number, &grant), RUN).await.unwrap();
    }
    tx.commit().await.unwrap();
    grant
}

/// A grant with so many sessions, for tests of other modules.
pub(crate) async fn furnish_sessions(db: &Db, count: u128) -> (GrantId, Vec<SessionId>) {
    let grant = furnish(db).await;
    let mut tx = db.write().await.unwrap();
    for number in 201..201 + count {
        sessions::insert(&mut tx, &session(number, &grant), RUN).await.unwrap();
    }
    for number in [101, 102] {
        sessions::end(&mut tx, session(number, &grant).id, at(200), &SessionEnd::ClientClosed).await.unwrap();
    }
    tx.commit().await.unwrap();
    (grant.id, (201..201 + count).map(|number| session(number, &grant).id).collect())
}

#[tokio::test]
async fn what_is_stored_reads_back_the_same_down_to_the_microsecond() {
    on_both(|db| async move {
        let grant = furnish(&db).await;

        let mut tx = db.read().await.unwrap();
        let principal = principals::find_by_id(&mut tx, alice().id).await.unwrap().unwrap().principal;
        assert_eq!(principal, alice());
        assert_eq!(targets::find_by_id(&mut tx, web_1().id).await.unwrap(), Some(web_1()));
        assert_eq!(grants::find(&mut tx, grant.id).await.unwrap(), Some(grant.clone()));
        let found = sessions::find(&mut tx, session(101, &grant).id).await.unwrap();
        assert_eq!(
            found,
            Some(SessionRecord {
                session: session(101, &grant),
                ended: None,
                cut_requested: None,
                held: None,
                review: None
            })
        );
    })
    .await;
}

#[tokio::test]
async fn eight_writers_at_once_lose_nothing() {
    on_both(|db| async move {
        let writers = (0..8).map(|_| {
            let db = db.clone();
            async move {
                for _ in 0..50 {
                    let mut tx = db.write().await.unwrap();
                    let seen = policy_version::read(&mut tx).await.unwrap();
                    let raised = policy_version::raise(&mut tx).await.unwrap();
                    assert!(raised > seen);
                    tx.commit().await.unwrap();
                }
            }
        });
        futures::future::join_all(writers).await;

        assert_eq!(policy_version::read(&mut db.read().await.unwrap()).await.unwrap(), 400);
    })
    .await;
}

#[tokio::test]
async fn open_sessions_are_counted_by_grant_until_they_end() {
    on_both(|db| async move {
        let grant = furnish(&db).await;
        let (first, second) = (session(101, &grant).id, session(102, &grant).id);
        let counts = async |except: Option<SessionId>| {
            sessions::open_counts(&mut db.read().await.unwrap(), alice().id, except).await.unwrap()
        };
        assert_eq!(counts(None).await, HashMap::from([(grant.id, 2)]));
        assert_eq!(counts(Some(first)).await, HashMap::from([(grant.id, 1)]));

        let mut tx = db.write().await.unwrap();
        assert!(sessions::end(&mut tx, first, at(200), &SessionEnd::ClientClosed).await.unwrap());
        assert!(!sessions::end(&mut tx, first, at(300), &SessionEnd::Crashed).await.unwrap(), "it ends once");
        tx.commit().await.unwrap();

        assert_eq!(counts(Some(second)).await, HashMap::new());
        let mut tx = db.read().await.unwrap();
        let ended = sessions::find(&mut tx, first).await.unwrap().unwrap().ended;
        assert_eq!(ended, Some((at(200), SessionEnd::ClientClosed)));
        assert_eq!(sessions::live_on(&mut tx, "node-a").await.unwrap(), [(second, Some(RUN))]);
        assert_eq!(sessions::live_of(&mut tx, RUN).await.unwrap(), [second]);
        assert_eq!(sessions::live_on(&mut tx, "node-b").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_wish_to_cut_reaches_the_node_that_serves_the_session_and_the_first_one_stays() {
    on_both(|db| async move {
        let grant = furnish(&db).await;
        let id = session(101, &grant).id;
        let wish = |reason: &str| CutReason::Admin { by: "li".to_owned(), reason: reason.to_owned() };

        let mut tx = db.write().await.unwrap();
        assert!(sessions::request_cut(&mut tx, id, &wish("first")).await.unwrap());
        assert!(!sessions::request_cut(&mut tx, id, &wish("second")).await.unwrap());
        tx.commit().await.unwrap();

        let mut tx = db.read().await.unwrap();
        assert_eq!(sessions::cut_requests(&mut tx, "node-a").await.unwrap(), [(id, wish("first"))]);
        assert_eq!(sessions::cut_requests(&mut tx, "node-b").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_the_latest_first() {
    on_both(|db| async move {
        let grant = furnish(&db).await;
        let mut tx = db.write().await.unwrap();
        sessions::end(&mut tx, session(101, &grant).id, at(200), &SessionEnd::Crashed).await.unwrap();
        let mut numbers = async |filter: SessionFilter, limit: u32| {
            let found = sessions::list(&mut tx, &filter, limit).await.unwrap();
            found.iter().map(|record| record.session.id.as_uuid().as_u128()).collect::<Vec<_>>()
        };

        assert_eq!(numbers(SessionFilter::default(), 10).await, [102, 101]);
        assert_eq!(numbers(SessionFilter::default(), 1).await, [102]);
        let after = Some((at(102), SessionId::from_uuid(Uuid::from_u128(102))));
        assert_eq!(numbers(SessionFilter { after, ..SessionFilter::default() }, 10).await, [101]);
        assert_eq!(numbers(SessionFilter { live: Some(true), ..SessionFilter::default() }, 10).await, [102]);
        assert_eq!(numbers(SessionFilter { live: Some(false), ..SessionFilter::default() }, 10).await, [101]);
        let begun = |since, until| SessionFilter { since, until, ..SessionFilter::default() };
        assert_eq!(numbers(begun(Some(at(102)), None), 10).await, [102]);
        assert_eq!(numbers(begun(None, Some(at(102))), 10).await, [101]);
        assert_eq!(numbers(begun(Some(at(101)), Some(at(103))), 10).await, [102, 101]);
        let nobody = Some("bob".parse().unwrap());
        assert!(numbers(SessionFilter { principal: nobody, ..SessionFilter::default() }, 10).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_recording_its_segments_and_its_tail_read_back_and_repeats_change_nothing() {
    on_both(|db| async move {
        let grant = furnish(&db).await;
        let id = RecordingId::from_uuid(Uuid::from_u128(201));
        let recording = NewRecording {
            id,
            session: session(101, &grant).id,
            channel: 1,
            program: Program::Exec { command: vec![0, 0xff, b'x'] },
            term: Some("xterm".to_owned()),
            cols: Some(80),
            rows: Some(24),
            started_at: at(5),
            recipients: vec!["age1one".to_owned(), "age1two".to_owned()],
        };
        let segment = SegmentRecord {
            number: 0,
            start_us: 0,
            end_us: 7_000_000,
            bytes: 5_000_000_000,
            stored_bytes: 9,
            sha256: Hash::of(b"a"),
            chain: Hash::ZERO.extended_by(Hash::of(b"a")),
            object: "r/0".to_owned(),
        };
        let progress = Progress {
            ended_at: Some(at(9)),
            duration_us: 4_000_000,
            segments: 1,
            chain: segment.chain,
            bytes_in: 3,
            bytes_out: u64::from(u32::MAX) + 1,
            gaps: 1,
            commands: 1 << 33,
            exit: Some("{}".to_owned()),
            resume: None,
        };

        let mut tx = db.write().await.unwrap();
        recordings::insert(&mut tx, &recording).await.unwrap();
        assert_eq!(recordings::unfinished_on(&mut tx, "node-a").await.unwrap().len(), 1);
        for (number, in_segment) in [(0, 0), (1, 0), (2, 1)] {
            assert!(recordings::insert_tail(&mut tx, id, number, in_segment, &[7; 9]).await.unwrap());
            assert!(!recordings::insert_tail(&mut tx, id, number, in_segment, &[8; 9]).await.unwrap());
        }
        assert!(recordings::insert_segment(&mut tx, id, &segment).await.unwrap());
        assert!(!recordings::insert_segment(&mut tx, id, &segment).await.unwrap());
        assert_eq!(recordings::delete_tail(&mut tx, id, 0).await.unwrap(), 2);
        recordings::update(&mut tx, id, Hand::default(), &progress).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.read().await.unwrap();
        let record = RecordingRecord { recording, progress };
        assert_eq!(recordings::find(&mut tx, id).await.unwrap(), Some(record.clone()));
        assert_eq!(
            recordings::of_session(&mut tx, record.recording.session).await.unwrap(),
            std::slice::from_ref(&record)
        );
        assert_eq!(recordings::list(&mut tx, None, 5).await.unwrap(), [record]);
        assert_eq!(recordings::list(&mut tx, Some(id), 5).await.unwrap(), []);
        assert_eq!(recordings::segments(&mut tx, id, 0).await.unwrap(), [segment]);
        let run = TailRun { number: 2, segment: 1, frames: vec![7; 9] };
        assert_eq!(recordings::tail(&mut tx, id, 0, 10).await.unwrap(), [run]);
        assert_eq!(recordings::unfinished_on(&mut tx, "node-a").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_sessions_commands_come_in_their_order_page_by_page_and_change_by_their_number() {
    on_both(|db| async move {
        let grant = furnish(&db).await;
        let session = session(101, &grant).id;
        let recording = |number: u128| RecordingId::from_uuid(Uuid::from_u128(number));
        let mut tx = db.write().await.unwrap();
        for (number, channel) in [(201, 1), (202, 2)] {
            let new = NewRecording {
                id: recording(number),
                session,
                channel,
                program: Program::Shell,
                term: None,
                cols: None,
                rows: None,
                started_at: at(0),
                recipients: Vec::new(),
            };
            recordings::insert(&mut tx, &new).await.unwrap();
            let progress = Progress { commands: 5, ..Progress::default() };
            recordings::update(&mut tx, recording(number), Hand::default(), &progress).await.unwrap();
        }
        let record = |of: u128, number: u32, seconds: i64| CommandRecord {
            recording: recording(of),
            at: at(seconds),
            command: Command {
                number,
                at: 0,
                text: "echo 界\n> done".to_owned(),
                is_cut: false,
                certainty: Certainty::ALL[number as usize],
                exit_status: None,
                duration: None,
            },
            flag: None,
        };
        let all = [record(201, 0, 1), record(202, 0, 1), record(202, 1, 1), record(201, 1, 2), record(202, 2, 3)];
        for record in &all {
            assert!(!commands::update(&mut tx, record).await.unwrap());
            commands::insert(&mut tx, session, record).await.unwrap();
        }
        let mut better = all[3].clone();
        better.flag = Some("*".to_owned());
        (better.command.exit_status, better.command.duration) = (Some(u32::MAX), Some(1 << 40));
        assert!(commands::update(&mut tx, &better).await.unwrap());
        tx.commit().await.unwrap();

        let mut tx = db.read().await.unwrap();
        let (mut pages, mut after) = (Vec::new(), None);
        while let [records @ .., last] = commands::list(&mut tx, session, after, 2).await.unwrap().as_slice() {
            after = Some((last.at, last.recording, last.command.number));
            pages.extend(records.iter().chain([last]).cloned());
        }
        let [first, second, third, _, fifth] = all;
        assert_eq!(pages, [first, second, third, better.clone(), fifth]);
        assert_eq!(commands::counts(&mut tx, session).await.unwrap(), CommandCounts { seen: 10, kept: 5, flagged: 1 });
        assert_eq!(commands::flag(&mut tx, better.recording, 1).await.unwrap(), better.flag);
        drop(tx);
        let mut tx = db.write().await.unwrap();
        assert_eq!(commands::delete_from(&mut tx, recording(202), 1).await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_not_be() {
    on_both(|db| async move {
        let grant = furnish(&db).await;

        let mut tx = db.write().await.unwrap();
        let twice = sessions::insert(&mut tx, &session(101, &grant), RUN).await;
        assert!(matches!(twice, Err(DbError::Conflict { .. })), "{twice:?}");
        drop(tx);
        let mut tx = db.write().await.unwrap();
        let unknown = NewSession { grant: GrantId::from_uuid(Uuid::from_u128(404)), ..session(103, &grant) };
        let dangling = sessions::insert(&mut tx, &unknown, RUN).await;
        assert!(matches!(dangling, Err(DbError::Other { .. })), "{dangling:?}");
    })
    .await;
}

#[tokio::test]
async fn a_reader_sees_one_state_from_its_first_query_to_its_last() {
    on_both(|db| async move {
        let mut reader = db.read().await.unwrap();
        let before = policy_version::read(&mut reader).await.unwrap();

        let mut writer = db.write().await.unwrap();
        policy_version::raise(&mut writer).await.unwrap();
        writer.commit().await.unwrap();

        assert_eq!(policy_version::read(&mut reader).await.unwrap(), before);
        assert_eq!(policy_version::read(&mut db.read().await.unwrap()).await.unwrap(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_lets_the_next_writer_in() {
    on_both(|db| async move {
        for _ in 0..20 {
            let mut tx = db.write().await.unwrap();
            policy_version::raise(&mut tx).await.unwrap();
            drop(tx);
        }
        assert_eq!(policy_version::read(&mut db.write().await.unwrap()).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    on_both(|db| async move {
        furnish(&db).await;
        db.migrate().await.unwrap();
        assert_eq!(principals::list(&mut db.read().await.unwrap()).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_says_so_soon() {
    let settings = |url: &str| DatabaseSettings {
        url: url.to_owned(),
        acquire_timeout: Duration::from_millis(300),
        ..DatabaseSettings::default()
    };
    let error = Db::connect(&settings("postgres://sallyport@127.0.0.1:1/none")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let error = Db::connect(&settings("sqlite:/nowhere/at/all.db")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    for url in ["", "mysql://user:secret@host/db", "sqlite:"] {
        let error = Db::connect(&settings(url)).await.unwrap_err();
        assert!(matches!(error, DbError::Address { .. }), "{url}: {error:?}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_writer_that_waits_too_long_is_told_that_the_database_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let settings = DatabaseSettings {
        url: format!("sqlite:{}/test.db", folder.path().display()),
        acquire_timeout: Duration::from_millis(100),
        ..DatabaseSettings::default()
    };
    let db = Db::connect(&settings).await.unwrap();
    let held = db.write().await.unwrap();
    assert!(db.write().await.unwrap_err().is_unreachable());
    drop(held);
    db.write().await.unwrap();
}

#[tokio::test]
async fn the_database_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let db = super::testing::open(format!("sqlite:{}/test.db", folder.path().display())).await;
    furnish(&db).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}
