use std::time::Duration;

use chrono::TimeDelta;
use sallyport_domain::event::Act;
use sallyport_domain::principal::Role;
use sallyport_domain::review::risk::{Moment, Sign};
use sallyport_domain::review::seen::{Coverage, Span};
use sallyport_domain::review::{NoJudge, Verdict};

use super::decide::sweep;
use super::seen::{Report, report};
use super::*;
use crate::app::evidence::{self, Subject};
use crate::app::retention::removal::round;
use crate::app::retention::tests::Archive;
use crate::app::{grants as app_grants, retention};
use crate::store::db::testing::on_both;

const MINUTE: Duration = Duration::from_secs(60);

async fn decided(archive: &Archive, settings: &ReviewSettings) {
    while sweep(&archive.app, settings).await.unwrap() > 0 {}
}

async fn queue(archive: &Archive, filter: ReviewFilter) -> Vec<SessionId> {
    let found = list(&archive.app, &filter, 100).await.unwrap();
    found.into_iter().map(|review| review.session).collect()
}

fn all(recording: RecordingId) -> Report {
    Report { recording, shown: vec![Span::new(0, 3_000_000).unwrap()], read: vec![] }
}

#[tokio::test]
async fn a_session_that_came_to_rest_waits_for_a_verdict_and_is_done_with_it() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let rita = archive.person("rita", Role::Reviewer).await;
        assert!(matches!(sign_off(app, &rita, session, Verdict::AsPlanned, "").await, Err(ReviewError::NotAtRest(_))));

        decided(&archive, &ReviewSettings::default()).await;

        let open =
            ReviewFilter { asked: Some(true), done: Some(false), judge: Some(rita.id), ..ReviewFilter::default() };
        assert_eq!(queue(&archive, open).await, archive.sessions);
        let before = sum(app, Some(rita.id)).await.unwrap();
        assert_eq!((before.due, before.overdue), (2, 0));
        assert!(before.active_us > 0);
        let review = show(app, Some(&rita), session).await.unwrap().review.unwrap();
        // The sessions were on the first of January 1970, a Thursday at midnight.
        assert!(review.risk.reasons.iter().any(|reason| reason.sign == Sign::OddHour), "{review:?}");
        assert!(review.due_at > app.clock.now());

        let begun = report(app, &rita, session, &Report { shown: vec![], ..all(archive.recordings[0]) }).await.unwrap();
        assert_eq!(begun.1.seen_us, 0);
        let seen = report(app, &rita, session, &all(archive.recordings[0])).await.unwrap().1;
        assert_eq!(seen.percent(), Some(100));
        assert!(matches!(sign_off(app, &rita, session, Verdict::Incident, " ").await, Err(ReviewError::NoteMissing)));
        let standing = sign_off(app, &rita, session, Verdict::Deviation, "why root?").await.unwrap();

        assert_eq!(standing.review.unwrap().verdict, Some(Verdict::Deviation));
        assert_eq!(queue(&archive, open).await, archive.sessions[1..]);
        let (_, told) = archive.acts("session_reviewed").await.remove(0);
        let Act::SessionReviewed { verdict, note, coverage, was_deleted, .. } = told else { panic!("{told:?}") };
        assert_eq!((verdict, note.as_str(), was_deleted), (Verdict::Deviation, "why root?", false));
        assert_eq!(coverage.percent(), Some(100));
        assert!(matches!(
            sign_off(app, &rita, session, Verdict::AsPlanned, "").await,
            Err(ReviewError::SignedBefore(_))
        ));
        assert_eq!(archive.acts("session_reviewed").await.len(), 1);
        assert_eq!(show(app, Some(&rita), session).await.unwrap().review.unwrap().signed, 1);
    })
    .await;
}

#[tokio::test]
async fn whoever_has_a_hand_in_the_grant_or_is_named_by_it_judges_nothing() {
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        decided(&archive, &ReviewSettings::default()).await;
        let rita = archive.person("rita", Role::Reviewer).await;
        let adam = archive.person("adam", Role::Admin).await;
        let gave = archive.person("gave", Role::Reviewer).await;
        let mut alice = rita.clone();
        let mut tx = app.db.write().await.unwrap();
        let record = sessions::find(&mut tx, session).await.unwrap().unwrap().session;
        (alice.id, alice.name) = (record.principal, record.principal_name);
        let actor = Actor::Principal { id: gave.id, name: gave.name.clone() };
        app_grants::note_hand(&mut tx, &actor, record.grant).await.unwrap();
        tx.commit().await.unwrap();

        for (person, refusal) in [(&alice, NoJudge::WasThere), (&adam, NoJudge::NotReviewer), (&gave, NoJudge::Gave)] {
            let refused =
                |done: Result<(), ReviewError>| matches!(done, Err(ReviewError::NoJudge(found)) if found == refusal);
            assert!(refused(sign_off(app, person, session, Verdict::AsPlanned, "").await.map(drop)));
            assert!(refused(flag(app, person, session, None, "hm").await.map(drop)));
            assert!(refused(note(app, person, session, "hm").await.map(drop)));
            assert!(refused(report(app, person, session, &all(archive.recordings[0])).await.map(drop)));
            assert_eq!(show(app, Some(person), session).await.unwrap().refusal, Some(refusal));
            if refusal != NoJudge::NotReviewer {
                let mine = ReviewFilter { judge: Some(person.id), ..ReviewFilter::default() };
                assert_eq!(queue(&archive, mine).await, []);
                assert_eq!(sum(app, Some(person.id)).await.unwrap().due, 0);
            }
        }
        assert_eq!(archive.acts("session_reviewed").await.len(), 0);
        assert!(sign_off(app, &rita, session, Verdict::AsPlanned, "").await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn nobody_has_seen_more_than_there_was_time_for_in_all_sessions_together() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let app = &archive.app;
        decided(&archive, &ReviewSettings::default()).await;
        let rita = archive.person("rita", Role::Reviewer).await;
        let hours = |recording| Report { recording, shown: vec![Span::new(0, 100_000_000_000).unwrap()], read: vec![] };
        let lengths = async || {
            let mut lengths = Vec::new();
            for (session, recording) in archive.sessions.iter().zip(&archive.recordings) {
                let (seen, _) = report(app, &rita, *session, &hours(*recording)).await.unwrap();
                lengths.push(seen.shown.length());
            }
            lengths
        };

        assert_eq!(lengths().await, [16_000_000, 0], "two seconds of credit, once");
        app.clock.advance(MINUTE);
        let minute = 60 * 8 * 1_000_000;
        assert_eq!(lengths().await, [16_000_000 + minute, 0]);
        app.clock.advance(60 * MINUTE);
        assert_eq!(lengths().await, [16_000_000 + 2 * minute, 0], "an hour away is worth a minute");
    })
    .await;
}

#[tokio::test]
async fn two_sign_offs_take_two_people_and_the_gravest_verdict_stays() {
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        decided(&archive, &ReviewSettings { sign_offs: 2, ..ReviewSettings::default() }).await;
        let (rita, rolf) = (archive.person("rita", Role::Reviewer).await, archive.person("rolf", Role::Reviewer).await);

        let one = sign_off(app, &rita, session, Verdict::Incident, "data out").await.unwrap().review.unwrap();
        assert_eq!((one.signed, one.done_at), (1, None));
        let two = sign_off(app, &rolf, session, Verdict::AsPlanned, "").await.unwrap().review.unwrap();
        assert_eq!((two.signed, two.verdict), (2, Some(Verdict::Incident)));
        assert!(two.done_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn what_is_late_is_told_once_and_what_is_not_drawn_waits_for_nobody() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let app = &archive.app;
        decided(&archive, &ReviewSettings::default()).await;
        app.clock.advance(Duration::from_secs(9 * 86_400));
        for _ in 0..2 {
            sweep(app, &ReviewSettings::default()).await.unwrap();
        }
        assert_eq!(archive.acts("review_overdue").await.len(), 2);
        assert_eq!(sum(app, None).await.unwrap().overdue, 2);
    })
    .await;
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        decided(&archive, &ReviewSettings { share: 0, always_from_risk: 101, ..ReviewSettings::default() }).await;
        assert_eq!(sum(&archive.app, None).await.unwrap(), ReviewSum::default());
        let rita = archive.person("rita", Role::Reviewer).await;
        let done = sign_off(&archive.app, &rita, archive.sessions[0], Verdict::AsPlanned, "").await.unwrap();
        assert!(done.review.unwrap().done_at.is_some(), "whoever wants may");
    })
    .await;
}

#[tokio::test]
async fn a_flag_is_at_a_moment_of_the_session_s_own_recordings() {
    on_both(|db| async {
        let archive = Archive::of(db, 2).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let rita = archive.person("rita", Role::Reviewer).await;
        let found = recordings::find(&mut app.db.read().await.unwrap(), archive.recordings[0]).await.unwrap().unwrap();
        let at = found.recording.started_at;
        let here = Moment { at, recording: archive.recordings[0] };
        let other = Moment { recording: archive.recordings[1], ..here };
        let early = Moment { at: at - TimeDelta::seconds(1), ..here };

        assert!(matches!(flag(app, &rita, session, Some(other), "x").await, Err(ReviewError::NoRecording { .. })));
        assert!(matches!(flag(app, &rita, session, Some(early), "x").await, Err(ReviewError::NoMoment { .. })));
        // Not decided on yet, as a live one is not: flags are taken all the same.
        flag(app, &rita, session, Some(here), "why this scp?").await.unwrap();
        decided(&archive, &ReviewSettings::default()).await;
        let standing = note(app, &rita, session, "asked li.wei").await.unwrap();
        assert_eq!(standing.review.unwrap().flags, 1);
        assert_eq!(standing.remarks.len(), 2);
        assert_eq!(standing.remarks[0].kind, RemarkKind::Flag(Some(here)));
    })
    .await;
}

#[tokio::test]
async fn a_session_whose_recordings_were_deleted_is_judged_by_what_was_seen_and_says_so() {
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        let (adam, rita) = archive.adam_and_rita().await;
        let asked = retention::deletions::ask(app, &adam, session, "a password").await.unwrap();
        retention::deletions::approve(app, &rita, asked.deletion.id, None).await.unwrap();
        archive.sign().await;
        round(app).await.unwrap();

        decided(&archive, &ReviewSettings::default()).await;
        let standing = sign_off(app, &rita, session, Verdict::AsPlanned, "").await.unwrap();

        assert!(standing.is_deleted);
        let (_, told) = archive.acts("session_reviewed").await.remove(0);
        assert!(
            matches!(told, Act::SessionReviewed { was_deleted: true, coverage: Coverage { seen_us: 0, .. }, .. }),
            "{told:?}"
        );
        assert_eq!(archive.verify().await.faults, vec![]);
    })
    .await;
}

#[tokio::test]
async fn a_bundle_tells_what_reviewers_said() {
    use sallyport_domain::ledger::bundle::{self, archive::Archive as Zip};
    on_both(|db| async {
        let archive = Archive::of(db, 1).await;
        let (app, session) = (&archive.app, archive.sessions[0]);
        decided(&archive, &ReviewSettings::default()).await;
        let rita = archive.person("rita", Role::Reviewer).await;
        sign_off(app, &rita, session, Verdict::Deviation, "too long").await.unwrap();

        let stop = tokio_util::sync::CancellationToken::new();
        let signing = crate::app::ledger::sequencer::Sequencer::new(app.clone()).run(stop.clone());
        let making = async {
            let made = evidence::make(app, &Actor::Operator { uid: 0 }, Subject::Session(session)).await;
            stop.cancel();
            made.unwrap()
        };
        let (mut made, _) = tokio::join!(making, signing);
        let mut bytes = Vec::new();
        while let Some(piece) = made.piece().unwrap() {
            bytes.extend(piece);
        }

        let zip = Zip::parse(&bytes).unwrap();
        let lines = String::from_utf8(zip.get(bundle::REVIEWS).unwrap().to_vec()).unwrap();
        let acts: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = acts.iter().map(|line| line["act"]["act"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["review_decided", "session_reviewed"]);
        assert_eq!(acts[1]["act"]["note"], "too long");
    })
    .await;
}
