use bytes::Bytes;
use sallyport_domain::channel::{Program, Pty, TerminalSize};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::files::{FileAct, FileOperation, FilePath, FileResult, RecordedOperation};
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::recording::frame::Body;
use sallyport_domain::search::Kind;
use sallyport_domain::search::lines::Line;
use sallyport_domain::search::query::Query;
use uuid::Uuid;

use super::{FoundPage, Hit, Wish, find};
use crate::app::recordings::{Ending, NewRecording, Recorder, RecordingSettings, Recordings};
use crate::app::{App, audit};
use crate::store::db::search::{self, Block};
use crate::store::db::testing::{app_on, on_both};
use crate::store::db::tests::furnish_sessions;
use crate::store::db::{Db, recordings};
use crate::support::eventually;

const OPERATOR: Actor = Actor::Operator { uid: 0 };

/// Sessions that are recorded.
struct Stage {
    app: App,
    recordings: Recordings,
    sessions: Vec<SessionId>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn with(db: Db, count: u128, more: RecordingSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (_, sessions) = furnish_sessions(&db, count).await;
        let app = app_on(db);
        let settings = RecordingSettings { journal_dir: folder.path().to_owned(), ..more };
        let recordings = Recordings::new(app.clone(), settings).unwrap();
        Self { app, recordings, sessions, _folder: folder }
    }

    async fn start(&self, session: SessionId, channel: u32, command: &str) -> Recorder {
        let (id, program) = (RecordingId::from_uuid(Uuid::now_v7()), Program::Exec { command: command.into() });
        let size = TerminalSize { cols: 80, rows: 24 };
        let pty = Pty { term: "xterm".to_owned(), size, pixel_width: 0, pixel_height: 0, modes: Vec::new() };
        let new = NewRecording { id, session, channel, program, pty: Some(pty), keeps_content: true };
        self.recordings.start(new).await.unwrap()
    }

    /// A session whose program printed `text`, at rest.
    async fn shown(&self, session: usize, text: &str) {
        let recorder = self.start(self.sessions[session], 1, "true").await;
        recorder.record(vec![output(text)]).await.unwrap();
        recorder.finish(Ending { how: "closed".to_owned(), reason: None });
        eventually("it is at rest", async || self.recordings.open_count() == 0).await;
    }

    async fn find(&self, words: &str) -> Vec<Hit> {
        let page = look(&self.app, words, None, 50).await;
        page.sessions.into_iter().flat_map(|found| found.hits).collect()
    }

    async fn lines(&self, words: &str) -> Vec<String> {
        self.find(words).await.into_iter().map(|hit| hit.line).collect()
    }
}

fn output(text: &str) -> Body {
    Body::Output(Bytes::copy_from_slice(text.as_bytes()))
}

async fn look(app: &App, words: &str, before: Option<i64>, limit: usize) -> FoundPage {
    let query = words.parse().unwrap_or_else(|error| panic!("{words}: {error}"));
    let wish = Wish { query, words: words.to_owned(), may_see_screens: true, before, limit };
    find(app, &OPERATOR, &wish).await.unwrap_or_else(|error| panic!("{words}: {error:?}"))
}

#[tokio::test]
async fn what_was_shown_run_and_carried_is_found_with_its_moment_and_what_surrounds_it() {
    on_both(|db| async {
        let stage = Stage::with(db, 1, RecordingSettings::default()).await;
        let recorder = stage.start(stage.sessions[0], 3, "fwupd --apply nv.bin").await;
        recorder.record(vec![output("first\r\nsecond\r\n")]).await.unwrap();
        recorder
            .record(vec![output("SRC=10.0.17.3 in /etc/Nginx/sites 磁盘空间不足\r\nthird\r\nfourth\r\n")])
            .await
            .unwrap();
        let act = FileAct::Remove { path: FilePath(b"/srv/data/secret.db".to_vec()) };
        let operation = FileOperation { act, result: FileResult::Done };
        let recorded = RecordedOperation { event: audit::new_id(), operation };
        recorder.record(vec![Body::File(serde_json::to_string(&recorded).unwrap())]).await.unwrap();
        recorder.record(vec![Body::Input(Bytes::from_static(b"hunter2"))]).await.unwrap();
        recorder.finish(Ending { how: "closed".to_owned(), reason: None });
        eventually("it is at rest", async || stage.recordings.open_count() == 0).await;

        for words in ["10.0.17.3", "0.17.3", "/etc/nginx/", "GINX", "空间", "盘", "\"in /etc\" src", "text:磁盘空间"]
        {
            let hits = stage.find(words).await;
            assert_eq!(hits.len(), 1, "{words}: {hits:?}");
            let hit = &hits[0];
            assert_eq!((hit.kind, hit.channel), (Kind::Screen, 3), "{words}");
            assert_eq!(
                (hit.before.join(","), hit.after.join(",")),
                ("first,second".to_owned(), "third,fourth".to_owned())
            );
            assert!(hit.at > 0 && hit.at < 60_000_000, "{hit:?}");
        }
        let kinds = async |words| stage.find(words).await.into_iter().map(|hit| hit.kind).collect::<Vec<_>>();
        assert_eq!(kinds("nv.bin").await, [Kind::Command]);
        assert_eq!(kinds("cmd:fwupd").await, [Kind::Command]);
        assert_eq!(kinds("file:/srv/data").await, [Kind::File]);
        assert_eq!(kinds("text:fwupd").await, []);
        assert_eq!(kinds("hunter2").await, [], "what is typed is not found");
        let events = audit::list(&stage.app, 0, &audit::EventFilter::default(), 1000).await.unwrap();
        let searched = |words: &str| Act::SessionsSearched { words: words.to_owned() };
        assert!(events.iter().any(|(_, event)| event.act == searched("\"in /etc\" src") && event.actor == OPERATOR));
    })
    .await;
}

#[tokio::test]
async fn a_live_session_is_found_within_seconds_and_so_is_a_line_that_has_not_ended() {
    on_both(|db| async {
        let stage = Stage::with(db, 1, RecordingSettings::default()).await;
        let recorder = stage.start(stage.sessions[0], 1, "true").await;
        recorder.record(vec![output("early-bird\r\nPassword for db-7: ")]).await.unwrap();
        eventually("what was printed is found", async || stage.find("early-bird").await.len() == 1).await;
        eventually("the line is found", async || stage.find("db-7").await.len() == 1).await;
        recorder.record(vec![output("accepted\r\n")]).await.unwrap();
        eventually("it is found as it reads now", async || {
            stage.lines("db-7").await == ["Password for db-7: accepted"]
        })
        .await;
        recorder.finish(Ending { how: "closed".to_owned(), reason: None });
    })
    .await;
}

#[tokio::test]
async fn what_somebody_may_not_see_is_not_found() {
    on_both(|db| async {
        let stage = Stage::with(db, 1, RecordingSettings::default()).await;
        let recorder = stage.start(stage.sessions[0], 1, "echo visible-part").await;
        recorder.record(vec![output("visible-part\r\n")]).await.unwrap();
        recorder.finish(Ending { how: "closed".to_owned(), reason: None });
        eventually("it is at rest", async || stage.recordings.open_count() == 0).await;
        let found = async |words: &str| {
            let query = words.parse().unwrap();
            let wish = Wish { query, words: words.to_owned(), may_see_screens: false, before: None, limit: 50 };
            let page = find(&stage.app, &OPERATOR, &wish).await.unwrap();
            page.sessions.into_iter().flat_map(|found| found.hits).map(|hit| hit.kind).collect::<Vec<_>>()
        };
        assert_eq!(found("visible-part").await, [Kind::Command]);
        assert_eq!(found("text:visible-part").await, []);
    })
    .await;
}

#[tokio::test]
async fn a_flood_is_indexed_up_to_the_bounds_of_its_session_which_is_said_and_commands_are_found_all_the_same() {
    on_both(|db| async {
        let more = RecordingSettings { index_lines: 100, ..RecordingSettings::default() };
        let stage = Stage::with(db, 1, more).await;
        let flood: String = (0..5000).map(|number| format!("flood number-{number} end\r\n")).collect();
        stage.shown(0, &flood).await;
        let recorder = stage.start(stage.sessions[0], 2, "after-the-flood").await;
        recorder.record(vec![output("not-indexed\r\n")]).await.unwrap();
        recorder.finish(Ending { how: "closed".to_owned(), reason: None });
        eventually("it is at rest", async || stage.recordings.open_count() == 0).await;

        let page = look(&stage.app, "flood end", None, 50).await;
        let found = &page.sessions[0];
        assert_eq!((found.hits.len(), found.has_more), (super::MOST_OF_SESSION, true));
        assert_eq!((found.indexed.lines, found.indexed.is_cut), (100, true));
        assert_eq!((stage.find("number-99").await.len(), stage.find("number-100").await.len()), (1, 0));
        assert_eq!(stage.find("cmd:after-the-flood").await.len(), 1);
        assert!(stage.find("not-indexed").await.is_empty(), "the bounds are the session's");
    })
    .await;
}

#[tokio::test]
async fn page_after_page_gives_every_session_the_newest_first() {
    on_both(|db| async {
        let stage = Stage::with(db, 7, RecordingSettings::default()).await;
        for session in 0..7 {
            stage.shown(session, &format!("needle in {session}\r\nhay\r\n")).await;
        }
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let page = look(&stage.app, "needle", before, 2).await;
            seen.extend(page.sessions.into_iter().flat_map(|found| found.hits).map(|hit| hit.line));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..7).rev().map(|number| format!("needle in {number}")).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn no_query_is_anything_but_a_query() {
    on_both(|db| async {
        let stage = Stage::with(db, 1, RecordingSettings::default()).await;
        let line = r#"100% a_b C:\new "x" it's {y}: ^z* NEAR(q) OR AND NOT -- ; DROP TABLE search_blocks"#;
        stage.shown(0, &format!("{line}\r\nabb 1000 axb\r\n")).await;
        for words in [
            "100%",
            "a_b",
            r"C:\new",
            "it's",
            "{y}:",
            "^z*",
            "NEAR(q)",
            "OR AND NOT",
            "\"DROP TABLE\"",
            "search_blocks",
            r"\\\\ 100%",
        ] {
            let is_there = words != r"\\\\ 100%";
            assert_eq!(stage.lines(words).await.len(), usize::from(is_there), "{words}");
        }
        assert!(stage.lines("a%b").await.is_empty() && stage.lines("a__").await.is_empty());
        assert_eq!(stage.lines("DROP TABLE").await.len(), 1, "it is all there");
    })
    .await;
}

#[tokio::test]
async fn what_is_forgotten_of_a_session_is_found_no_more() {
    on_both(|db| async {
        let stage = Stage::with(db, 2, RecordingSettings::default()).await;
        stage.shown(0, "memory forgotten\r\n").await;
        stage.shown(1, "memory kept\r\n").await;
        let mut tx = stage.app.db.write().await.unwrap();
        search::delete_session(&mut tx, stage.sessions[0]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(stage.lines("memory").await, ["memory kept"]);
        let mut tx = stage.app.db.write().await.unwrap();
        let left = search::state(&mut tx, stage.sessions[0], None).await.unwrap();
        assert_eq!(left, search::Indexed::default());
        // As after a crash: what one run has written, another writes again, and forgets the rest.
        let keys = "kept".parse::<Query>().unwrap().keys();
        let found = search::find(&mut tx, search::Kinds::All, &keys, 0, 1000, 10);
        let block = found.await.unwrap().remove(0);
        let again = Block { lines: vec![Line { at: 5, text: "memory otherwise".to_owned() }], ..block.block.clone() };
        search::put(&mut tx, block.recording, &again).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(stage.lines("memory").await, ["memory otherwise"]);
        let mut tx = stage.app.db.write().await.unwrap();
        search::delete_from(&mut tx, block.recording, Kind::Screen, 0).await.unwrap();
        tx.commit().await.unwrap();
        assert!(stage.lines("memory").await.is_empty());
    })
    .await;
}

mod many;
