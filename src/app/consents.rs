//! Consent to single sessions: what `access` asks the rule with, where a grant takes somebody's approval of each session, or a
//! watcher. A session that waits for its start is a request (`app/requests.rs`) like others: it is listed, answered, withdrawn
//! and expires as they do.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::consent::{APPROVAL_HOLDS, Approved, Consent, Hand, Stage, Watching};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::grant::Approval;
use sallyport_domain::id::{GrantId, PrincipalId, RequestId, SessionId};
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::principal::Principal;
use sallyport_domain::request::{Request, RequestState, Wish};
use serde::Deserialize;
use uuid::Uuid;

use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, principals, requests, watches};

/// How sessions wait for others: `[consent]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentSettings {
    /// How long a session waits for its approval or its watcher before it is refused.
    #[serde(with = "crate::store::duration")]
    pub wait: Duration,
    /// How long a session stands still without its watcher before it is cut.
    #[serde(with = "crate::store::duration")]
    pub unwatched: Duration,
}

impl Default for ConsentSettings {
    fn default() -> Self {
        Self { wait: Duration::from_mins(5), unwatched: Duration::from_mins(2) }
    }
}

/// A session that waits for its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its id, should it start.
    pub session: SessionId,
    pub request: RequestId,
    pub grant: GrantId,
    pub target: TargetName,
    pub login: Login,
    pub approval: Approval,
    pub expires_at: DateTime<Utc>,
}

/// Asks for the start of a session, as the end of `tx`. `Err` in the middle: that many wait already.
pub(super) async fn ask(
    app: &App,
    mut tx: Tx,
    person: &Principal,
    (grant, approval): (GrantId, Approval),
    (target, login): (TargetName, Login),
    reason: String,
    now: DateTime<Utc>,
) -> Result<Result<Waiting, u32>, DbError> {
    principals::hold(&mut tx, person.id).await?;
    let most = app.requests.max_open;
    if requests::count_open(&mut tx, person.id, now).await? >= most {
        return Ok(Err(most));
    }
    let session = SessionId::from_uuid(Uuid::now_v7());
    let wait = TimeDelta::from_std(app.consent.wait).unwrap_or(TimeDelta::days(1));
    let request = Request {
        id: RequestId::from_uuid(Uuid::now_v7()),
        person: person.id,
        wish: Wish::Session { session, grant, target: target.clone(), login: login.clone(), approval },
        reason: reason.clone(),
        ticket: None,
        created_at: now,
        expires_at: now + wait,
        state: RequestState::Open,
    };
    requests::insert(&mut tx, &request).await?;
    let act = Act::RequestMade { request: request.id, person: person.id, wish: request.wish, reason };
    let actor = Actor::Principal { id: person.id, name: person.name.clone() };
    audit::append(&mut tx, now, &actor, act).await?;
    tx.commit().await?;
    let (request, expires_at) = (request.id, request.expires_at);
    Ok(Ok(Waiting { session, request, grant, target, login, approval, expires_at }))
}

/// What is known of others' consent to `session`, and the request for its start.
pub(super) async fn load(
    tx: &mut Tx,
    session: SessionId,
    stage: Stage,
    now: DateTime<Utc>,
) -> Result<(Consent, Option<RequestState>), DbError> {
    let request = requests::of_session(tx, session).await?;
    let state = request.map(|request| request.state_at(now));
    let approval = match &state {
        Some(RequestState::Approved { grant, at, by, .. }) => {
            let by = hand(tx, *by).await?;
            by.map(|by| Approved { session, grant: *grant, until: *at + APPROVAL_HOLDS, by })
        }
        _ => None,
    };
    let mut watchers = Vec::new();
    for record in watches::of_session(tx, session, now).await? {
        if let Some(by) = hand(tx, record.person).await? {
            watchers.push(Watching { session: record.session, until: record.until, by });
        }
    }
    Ok((Consent { session, stage, approval, watchers }, state))
}

async fn hand(tx: &mut Tx, person: Option<PrincipalId>) -> Result<Option<Hand>, DbError> {
    let Some(person) = person else {
        return Ok(Some(Hand::Operator));
    };
    Ok(principals::find_by_id(tx, person).await?.map(|record| Hand::Person(record.principal)))
}

/// Writes that a session that waited for a watcher has one; `false` if its time is over, or somebody has said no.
pub(super) async fn note_watched(
    tx: &mut Tx,
    waiting: &Waiting,
    watchers: &[Watching],
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    let by = watchers.iter().find_map(|watching| match &watching.by {
        Hand::Person(person) => Some(person),
        Hand::Operator => None,
    });
    let (grant, by) = (waiting.grant, by.map(|person| person.id));
    let state = RequestState::Approved { grant, changed: false, at: now, by };
    if requests::answer(tx, waiting.request, &state, now).await?.is_none() {
        return Ok(false);
    }
    let act = Act::RequestApproved { request: waiting.request, grant, changed: false };
    audit::append(tx, now, &Actor::Bastion, act).await?; // who watches is told by their own event
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use sallyport_domain::commands::rules::CommandRules;
    use sallyport_domain::event::CutReason;
    use sallyport_domain::files::FileRules;
    use sallyport_domain::grant::{Capabilities, Forwarding, Terms, Window};
    use sallyport_domain::login_name::Destination;
    use sallyport_domain::policy::{Denial, Factors, FirstFactor};
    use sallyport_domain::principal::Role;

    use super::*;
    use crate::app::access::{self, Arrival, Look, OpenError, OpenSession, Verdict};
    use crate::app::grants::{self, NewGrant};
    use crate::app::people::tests::{OPERATOR, named};
    use crate::app::people::{self, NewPerson};
    use crate::app::requests::{self as app_requests, Changes, RequestError};
    use crate::app::watching::{self, Told, Watch, WatchError};
    use crate::app::{sessions, targets};
    use crate::store::db::testing::{app_on, on_both};

    struct Scene {
        app: App,
        alice: Arrival,
        target: TargetName,
        login: Login,
    }

    impl Scene {
        /// Alice, and Bob who is named by the same grant and plays every part; a grant that takes `approval`.
        async fn new(db: crate::store::db::Db, approval: Approval) -> Self {
            let app = app_on(db);
            let principal = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
            let bob = NewPerson { roles: Role::ALL.to_vec(), ..named("bob") };
            people::add(&app, &OPERATOR, bob).await.unwrap();
            let target = targets::add(&app, &OPERATOR, targets::tests::named("web-1")).await.unwrap();
            let login = target.logins[0].login.clone();
            let terms = Terms {
                targets: vec!["web-1".parse().unwrap()],
                logins: vec![login.clone()],
                capabilities: Capabilities { shell: true, ..Capabilities::default() },
                source_networks: vec![],
                max_sessions: None,
                second_factor: false,
                approval,
                files: FileRules::default(),
                commands: CommandRules::default(),
                forwarding: Forwarding::default(),
                review: None,
            };
            let now = app.clock.now();
            let new = NewGrant {
                people: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
                terms,
                window: Window::new(now, now + TimeDelta::hours(1)).unwrap(),
                reason: "INC-7".to_owned(),
                ticket: None,
            };
            grants::make(&app, &OPERATOR, new).await.unwrap();
            let factors = Factors { first: FirstFactor::PublicKey, second: None };
            let source: SocketAddr = "203.0.113.9:40000".parse().unwrap();
            let alice = Arrival { principal, factors, source, client_version: String::new() };
            Self { app, alice, target: target.name, login }
        }

        async fn person(&self, name: &str, role: Role) -> Actor {
            let new = NewPerson { roles: vec![role], ..named(name) };
            let person = people::add(&self.app, &OPERATOR, new).await.unwrap().principal;
            Actor::Principal { id: person.id, name: person.name }
        }

        async fn named(&self, name: &str) -> Actor {
            let person = people::find(&self.app, &name.parse().unwrap()).await.unwrap().principal;
            Actor::Principal { id: person.id, name: person.name }
        }

        async fn open(&self, waiting: Option<&Waiting>) -> Result<OpenSession, OpenError> {
            let place = Destination::Account { login: self.login.clone(), target: self.target.clone() };
            access::open(&self.app, "node-1", &self.alice, &place, None, waiting).await
        }

        async fn ask(&self) -> Waiting {
            match self.open(None).await {
                Err(OpenError::Awaited { waiting }) => *waiting,
                other => panic!("{other:?}"),
            }
        }

        async fn look(&self, waiting: &Waiting) -> Look {
            access::look(&self.app, &self.alice, waiting).await.unwrap()
        }

        async fn yes(&self, by: &Actor, waiting: &Waiting) -> Result<(), RequestError> {
            app_requests::approve(&self.app, by, waiting.request, Changes::default(), None).await.map(drop)
        }
    }

    /// Reads up to the next beat and gives it back; whether it was taken.
    async fn beat(scene: &Scene, session: SessionId, watch: &mut Watch) -> bool {
        loop {
            if let Told::Beat(token) = watch.next().await.unwrap().unwrap() {
                return watching::answer(&scene.app, session, watch.id(), token).await.unwrap();
            }
        }
    }

    fn is_not_approved(look: &Look) -> bool {
        matches!(look, Look::Refused { denial: Denial::NotApproved { .. }, .. })
    }

    #[tokio::test]
    async fn a_session_starts_once_by_the_yes_that_was_for_it() {
        on_both(|db| async {
            let scene = Scene::new(db, Approval::PerSession).await;
            let adam = scene.person("adam", Role::Admin).await;
            let (first, second) = (scene.ask().await, scene.ask().await);
            assert_eq!(scene.look(&first).await, Look::Waits);
            assert!(matches!(scene.open(Some(&first)).await, Err(OpenError::Awaited { .. })));

            scene.yes(&adam, &first).await.unwrap();

            assert_eq!((scene.look(&first).await, scene.look(&second).await), (Look::Ready, Look::Waits));
            // Another session cannot pass for it, nor under another's request.
            let mixed = Waiting { session: second.session, ..first.clone() };
            assert!(matches!(scene.open(Some(&mixed)).await, Err(OpenError::Awaited { .. })));
            let opened = scene.open(Some(&first)).await.unwrap();
            assert_eq!(opened.id, first.session);
            assert!(scene.open(Some(&first)).await.is_err(), "once");
            // Until its end, whatever becomes of who said yes.
            people::disable(&scene.app, &OPERATOR, &"adam".parse().unwrap(), None).await.unwrap();
            scene.app.clock.advance(std::time::Duration::from_mins(30));
            let now = scene.app.clock.now();
            assert!(matches!(access::review(&scene.app, &opened, now).await, Ok(Verdict::Stay(_))));
        })
        .await;
    }

    #[tokio::test]
    async fn a_yes_counts_from_who_may_and_in_time_only() {
        on_both(|db| async {
            let scene = Scene::new(db, Approval::PerSession).await;
            let (adam, rita) = (scene.person("adam", Role::Admin).await, scene.person("rita", Role::Reviewer).await);
            let waiting = scene.ask().await;
            let (alice, bob) = (scene.named("alice").await, scene.named("bob").await);

            assert!(matches!(scene.yes(&alice, &waiting).await, Err(RequestError::Own)));
            assert!(matches!(scene.yes(&bob, &waiting).await, Err(RequestError::UnderGrant)));
            scene.yes(&rita, &waiting).await.unwrap(); // the API would not let her
            assert!(is_not_approved(&scene.look(&waiting).await));
            assert!(matches!(scene.open(Some(&waiting)).await, Err(OpenError::Awaited { .. })));

            let late = scene.ask().await;
            scene.yes(&adam, &late).await.unwrap();
            scene.app.clock.advance(std::time::Duration::from_secs(60));
            assert!(is_not_approved(&scene.look(&late).await));
            assert!(scene.open(Some(&late)).await.is_err());

            let expired = scene.ask().await;
            scene.app.clock.advance(std::time::Duration::from_mins(5));
            assert!(matches!(scene.yes(&adam, &expired).await, Err(RequestError::Answered { .. })));
            let state = Some(RequestState::Expired { at: expired.expires_at });
            assert!(matches!(scene.look(&expired).await, Look::Refused { state: found, .. } if found == state));

            let given_by_who_goes = scene.ask().await;
            scene.yes(&adam, &given_by_who_goes).await.unwrap();
            people::disable(&scene.app, &OPERATOR, &"adam".parse().unwrap(), None).await.unwrap();
            assert!(is_not_approved(&scene.look(&given_by_who_goes).await));
        })
        .await;
    }

    #[tokio::test]
    async fn a_revoked_grant_is_told_at_once_to_who_waits_under_it() {
        on_both(|db| async {
            let scene = Scene::new(db, Approval::PerSession).await;
            let waiting = scene.ask().await;
            grants::revoke(&scene.app, &OPERATOR, waiting.grant, "done", None).await.unwrap();
            let look = scene.look(&waiting).await;
            assert!(matches!(look, Look::Refused { denial: Denial::Revoked { .. }, .. }), "{look:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_watched_session_starts_freezes_and_ends_with_its_watcher() {
        on_both(|db| async {
            let scene = Scene::new(db, Approval::Watcher).await;
            let (rita, auda) = (scene.person("rita", Role::Reviewer).await, scene.person("auda", Role::Auditor).await);
            let waiting = scene.ask().await;
            let session = waiting.session;
            let (alice, bob) = (scene.named("alice").await, scene.named("bob").await);
            for own in [alice, bob] {
                let refused = watching::begin(&scene.app, &own, session).await;
                assert!(matches!(refused, Err(WatchError::UnderGrant)));
            }
            let yes = scene.yes(&OPERATOR, &waiting).await;
            assert!(matches!(yes, Err(RequestError::TakesWatcher { .. })));

            // An auditor looks on; a reviewer who has not shown that she reads does not count, and then she does.
            let mut looker_on = watching::begin(&scene.app, &auda, session).await.unwrap();
            assert!(beat(&scene, session, &mut looker_on).await);
            let mut watch = watching::begin(&scene.app, &rita, session).await.unwrap();
            assert_eq!(scene.look(&waiting).await, Look::Waits);
            assert!(beat(&scene, session, &mut watch).await);
            assert_eq!(scene.look(&waiting).await, Look::Ready);
            let opened = scene.open(Some(&waiting)).await.unwrap();
            assert_eq!(opened.id, session);

            let started = scene.app.clock.now();
            let Ok(Verdict::Stay(standing)) = access::review(&scene.app, &opened, started).await else { panic!() };
            assert_eq!(standing.watched_until, Some(started + watching::BEAT_HOLDS));
            scene.app.clock.advance(std::time::Duration::from_secs(5));
            let Ok(Verdict::Stay(standing)) = access::review(&scene.app, &opened, started).await else { panic!() };
            assert_eq!(standing.watched_until, None, "she reads no more");
            scene.app.clock.advance(std::time::Duration::from_secs(115));
            let cut = access::review(&scene.app, &opened, started).await.unwrap();
            let denial = Denial::Unwatched { grant: waiting.grant, since: started };
            assert_eq!(cut, Verdict::Cut(CutReason::Denied { denial }));
            // Back in time, by another stream.
            let mut again = watching::begin(&scene.app, &rita, session).await.unwrap();
            assert!(beat(&scene, session, &mut again).await);
            assert!(matches!(access::review(&scene.app, &opened, started).await, Ok(Verdict::Stay(_))));
            again.end().await;
            assert!(matches!(access::review(&scene.app, &opened, started).await, Ok(Verdict::Cut(_))));
        })
        .await;
    }

    #[tokio::test]
    async fn a_beat_counts_from_when_it_was_sent_and_once() {
        on_both(|db| async {
            let scene = Scene::new(db, Approval::Watcher).await;
            let rita = scene.person("rita", Role::Reviewer).await;
            let waiting = scene.ask().await;
            let mut watch = watching::begin(&scene.app, &rita, waiting.session).await.unwrap();
            let Some(Told::Beat(token)) = watch.next().await.unwrap() else { panic!() };

            scene.app.clock.advance(std::time::Duration::from_secs(6));
            let answer = async |token| watching::answer(&scene.app, waiting.session, watch.id(), token).await.unwrap();
            assert!(answer(token).await, "it is the one that is out");
            assert_eq!(scene.look(&waiting).await, Look::Waits, "but late");
            assert!(!answer(Uuid::from_u128(7)).await);
            let another = scene.ask().await;
            assert!(!watching::answer(&scene.app, another.session, watch.id(), token).await.unwrap());
        })
        .await;
    }

    #[tokio::test]
    async fn a_session_is_held_once_released_once_and_told_a_few_things() {
        on_both(|db| async {
            let scene = Scene::new(db, Approval::None).await;
            let opened = scene.open(None).await.unwrap();
            let now = scene.app.clock.now();
            sessions::hold(&scene.app, &OPERATOR, opened.id, "look").await.unwrap();
            sessions::hold(&scene.app, &OPERATOR, opened.id, "again").await.unwrap();
            for number in 0..16 {
                sessions::send(&scene.app, &OPERATOR, opened.id, &format!("words {number}")).await.unwrap();
            }
            assert!(sessions::send(&scene.app, &OPERATOR, opened.id, "one more").await.is_err());
            assert!(sessions::send(&scene.app, &OPERATOR, opened.id, "a\u{1b}b").await.is_err());

            let Ok(Verdict::Stay(standing)) = access::review(&scene.app, &opened, now).await else { panic!() };
            assert_eq!((standing.held.as_deref(), standing.has_messages), (Some("look"), true));
            let told = access::take_messages(&scene.app, opened.id).await.unwrap();
            assert_eq!((told.len(), told[0].as_str()), (16, "the operator (uid 0): words 0"));
            sessions::release(&scene.app, &OPERATOR, opened.id).await.unwrap();
            assert!(sessions::release(&scene.app, &OPERATOR, opened.id).await.is_err());
            let Ok(Verdict::Stay(standing)) = access::review(&scene.app, &opened, now).await else { panic!() };
            assert_eq!((standing.held, standing.has_messages), (None, false));
        })
        .await;
    }
}
