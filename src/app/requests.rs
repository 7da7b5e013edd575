//! Requests: an engineer asks for access or for more time; an admin says yes, yes but otherwise, or no; nobody answers their
//! own. Whoever waits looks at the state, and is woken by [`App::changes`].

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::files::FileRules;
use sallyport_domain::grant::{Approval, Capabilities, Forwarding, Grant, Terms, Window};
use sallyport_domain::id::{GrantId, PrincipalId, RequestId, SessionId};
use sallyport_domain::name::{Login, PrincipalName};
use sallyport_domain::principal::Principal;
use sallyport_domain::request::{Request, RequestState, Wish};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::app::grants::{self, GrantError, NewGrant};
use crate::app::text::{self, TextError};
use crate::app::{App, Still, audit, is_changed};
use crate::store::db::requests::RequestBounds;
use crate::store::db::{self, DbError, Tx, policy_version, principals, requests, targets};

/// How requests are kept: `[requests]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestSettings {
    /// A request that nobody answered for so long has expired.
    #[serde(with = "crate::store::duration")]
    pub expire_after: Duration,
    /// Requests of one person that may wait for an answer at once.
    pub max_open: u32,
}

impl Default for RequestSettings {
    fn default() -> Self {
        Self { expire_after: Duration::from_hours(24), max_open: 10 }
    }
}

/// A request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    pub wish: Wish,
    pub reason: String,
    pub ticket: Option<String>,
}

/// What an admin gives otherwise than it was asked for; what is `None` or empty stays as asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub logins: Vec<Login>,
    pub capabilities: Option<Capabilities>,
    /// Left out, the window opens at the moment of the yes.
    pub not_before: Option<DateTime<Utc>>,
    /// Left out, the window is as long as was asked for.
    pub not_after: Option<DateTime<Utc>>,
    pub source_networks: Vec<IpNet>,
    pub max_sessions: Option<u32>,
    pub second_factor: bool,
    pub approval: Approval,
    pub files: FileRules,
    pub commands: CommandRules,
}

/// Which requests to list; what is `None` does not limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFilter {
    pub person: Option<PrincipalId>,
    /// One of [`RequestState::WORDS`].
    pub state: Option<&'static str>,
    /// Only those made before this one.
    pub before: Option<RequestId>,
}

/// Why requests were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("there is no request {id}")]
    Unknown { id: RequestId },
    #[error("{most} of your requests wait for an answer; withdraw one first")]
    TooManyOpen { most: u32 },
    #[error("you have made {most} requests within a day; that is enough for one")]
    TooManyToday { most: u32 },
    #[error("a request is for at least 1 minute and at most {} days", LONGEST.as_secs() / 86_400)]
    Lasting,
    #[error("request {id} is {} already", state.as_str())]
    Answered { id: RequestId, state: Box<RequestState> },
    #[error("request {id} changed meanwhile: look at it again")]
    Changed { id: RequestId },
    #[error("nobody answers their own request; ask another admin")]
    Own,
    #[error("no target is meant by what was asked for: {selectors}")]
    NoTarget { selectors: String },
    #[error("the targets have several accounts, say which are meant: {}", join(logins))]
    WhichLogin { logins: Vec<Login> },
    #[error("a request for more time can be given another end, and nothing else can be changed of it")]
    OnlyTheEnd,
    #[error("nobody answers for sessions under a grant that names them; ask another admin")]
    UnderGrant,
    #[error("a session is approved or denied as it is: nothing can be changed of it")]
    OnlyYes,
    #[error("the grant takes a watcher: a reviewer starts the session with `sallyport session watch {session}`")]
    TakesWatcher { session: SessionId },
    #[error("the bastion itself asks for the start of a session, when somebody logs in")]
    ByLogin,
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The longest time that may be asked for.
const LONGEST: Duration = Duration::from_hours(366 * 24);
const SHORTEST: Duration = Duration::from_mins(1);
/// Requests of one person within a day, answered ones too: each is a row for good, and somebody's attention.
const MOST_A_DAY: u32 = 100;
/// How often it is looked for requests that nobody answered.
const SWEEP: Duration = Duration::from_secs(10);

fn join(logins: &[Login]) -> String {
    logins.iter().map(Login::as_str).collect::<Vec<_>>().join(", ")
}

/// Makes a request for `person`, who was proved.
pub async fn ask(app: &App, person: &Principal, new: NewRequest) -> Result<Request, RequestError> {
    let reason = text::check("reason", &new.reason, text::MOST_REASON)?;
    let ticket = new.ticket.map(|ticket| text::check("ticket", &ticket, text::MOST_LABEL)).transpose()?;
    let wish = whole_seconds(new.wish)?;
    let now = app.clock.now();
    let expires_at = later(now, app.requests.expire_after.min(LONGEST))?;
    let mut tx = app.db.write().await?;
    check_wish(&mut tx, person.id, &wish, now).await?;
    principals::hold(&mut tx, person.id).await?;
    let most = app.requests.max_open;
    if requests::count_open(&mut tx, person.id, now).await? >= most {
        return Err(RequestError::TooManyOpen { most });
    }
    if requests::count_since(&mut tx, person.id, now - TimeDelta::days(1)).await? >= MOST_A_DAY {
        return Err(RequestError::TooManyToday { most: MOST_A_DAY });
    }
    let request = Request {
        id: RequestId::from_uuid(Uuid::now_v7()),
        person: person.id,
        wish,
        reason,
        ticket,
        created_at: now,
        expires_at,
        state: RequestState::Open,
    };
    requests::insert(&mut tx, &request).await?;
    let act = Act::RequestMade {
        request: request.id,
        person: person.id,
        wish: request.wish.clone(),
        reason: request.reason.clone(),
    };
    let actor = Actor::Principal { id: person.id, name: person.name.clone() };
    audit::append(&mut tx, now, &actor, act).await?;
    tx.commit().await?;
    Ok(request)
}

/// A wish in the whole seconds in which it is stored, if its length is sound.
fn whole_seconds(mut wish: Wish) -> Result<Wish, RequestError> {
    let (Wish::Access { lasting, .. } | Wish::MoreTime { lasting, .. }) = &mut wish else {
        return Err(RequestError::ByLogin);
    };
    *lasting = Duration::from_secs(lasting.as_secs());
    if (SHORTEST..=LONGEST).contains(lasting) { Ok(wish) } else { Err(RequestError::Lasting) }
}

async fn check_wish(tx: &mut Tx, person: PrincipalId, wish: &Wish, now: DateTime<Utc>) -> Result<(), RequestError> {
    match wish {
        // Which targets there are is not told to somebody who may reach none: what is meant is the admin's to see.
        Wish::Access { targets, logins, capabilities, lasting: _ } => {
            grants::check_selectors(targets)?;
            grants::check_capabilities(capabilities)?;
            if logins.len() > grants::MOST {
                return Err(GrantError::TooMany { what: "logins", most: grants::MOST }.into());
            }
        }
        Wish::MoreTime { grant: id, lasting: _ } => {
            let grant = db::grants::find(tx, *id).await?.filter(|grant| grant.people.contains(&person));
            let grant = grant.ok_or(GrantError::Unknown { id: *id })?;
            if let Some(revocation) = grant.revoked {
                return Err(GrantError::Revoked { id: *id, at: revocation.at }.into());
            }
            if grant.window.not_after() <= now {
                return Err(GrantError::Ended { id: *id, at: grant.window.not_after() }.into());
            }
        }
        Wish::Session { .. } => return Err(RequestError::ByLogin),
    }
    Ok(())
}

/// The request with this id, as it is now.
pub async fn find(app: &App, id: RequestId) -> Result<Request, RequestError> {
    let mut tx = app.db.read().await?;
    let request = requests::find(&mut tx, id).await?.ok_or(RequestError::Unknown { id })?;
    Ok(as_of(request, app.clock.now()))
}

/// At most `limit` requests, the latest first.
pub async fn list(app: &App, filter: &RequestFilter, limit: u32) -> Result<Vec<Request>, RequestError> {
    let now = app.clock.now();
    let bounds = RequestBounds { person: filter.person, state: filter.state, before: filter.before };
    let found = requests::list(&mut app.db.read().await?, bounds, now, limit).await?;
    Ok(found.into_iter().map(|request| as_of(request, now)).collect())
}

fn as_of(request: Request, now: DateTime<Utc>) -> Request {
    Request { state: request.state_at(now), ..request }
}

/// Says yes, to what was asked for or with `changes`: makes the grant, or extends it, in the same transaction.
pub async fn approve(
    app: &App,
    actor: &Actor,
    id: RequestId,
    changes: Changes,
    still: Still<'_, Request>,
) -> Result<(Request, Grant), RequestError> {
    let mut tx = app.db.write().await?;
    // First, as every change of the policy: what is read from here on no other admin changes meanwhile.
    policy_version::raise(&mut tx).await?;
    let now = app.clock.now();
    let request = open_request(&mut tx, id, now, still).await?;
    refuse_own(actor, &request)?;
    let (grant, changed) = match &request.wish {
        Wish::Access { .. } => give(&mut tx, now, actor, &request, changes).await?,
        Wish::MoreTime { .. } => give_more_time(&mut tx, now, actor, &request, changes).await?,
        Wish::Session { session, approval: Approval::Watcher, .. } => {
            return Err(RequestError::TakesWatcher { session: *session });
        }
        Wish::Session { .. } if changes != Changes::default() => return Err(RequestError::OnlyYes),
        Wish::Session { grant, .. } => (let_start(&mut tx, actor, *grant).await?, false),
    };
    let state = RequestState::Approved { grant: grant.id, changed, at: now, by: audit::person(actor) };
    let act = Act::RequestApproved { request: id, grant: grant.id, changed };
    let request = answer(app, tx, actor, &request, state, act, now).await?;
    Ok((request, grant))
}

async fn give(
    tx: &mut Tx,
    now: DateTime<Utc>,
    actor: &Actor,
    request: &Request,
    changes: Changes,
) -> Result<(Grant, bool), RequestError> {
    let Wish::Access { targets: selectors, logins, capabilities, lasting } = &request.wish else {
        return Err(RequestError::OnlyTheEnd);
    };
    let meant = targets::list(tx).await?;
    let meant: Vec<_> =
        meant.into_iter().filter(|target| selectors.iter().any(|selector| selector.matches(target))).collect();
    if meant.is_empty() {
        let selectors = selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(RequestError::NoTarget { selectors });
    }
    let given_logins = if !changes.logins.is_empty() {
        changes.logins
    } else if !logins.is_empty() {
        logins.clone()
    } else {
        let all: BTreeSet<&Login> = meant.iter().flat_map(|target| &target.logins).map(|login| &login.login).collect();
        let all: Vec<Login> = all.into_iter().cloned().collect();
        if all.len() != 1 {
            return Err(RequestError::WhichLogin { logins: all });
        }
        all
    };
    let not_before = changes.not_before.unwrap_or(now);
    let not_after = match changes.not_after {
        Some(not_after) => not_after,
        None => later(not_before, *lasting)?,
    };
    let terms = Terms {
        targets: selectors.clone(),
        logins: given_logins,
        capabilities: changes.capabilities.unwrap_or_else(|| capabilities.clone()),
        source_networks: changes.source_networks,
        max_sessions: changes.max_sessions,
        second_factor: changes.second_factor,
        approval: changes.approval,
        files: changes.files,
        commands: changes.commands,
        forwarding: Forwarding::default(),
        review: None,
    };
    let as_asked = Terms {
        targets: selectors.clone(),
        logins: if logins.is_empty() { terms.logins.clone() } else { logins.clone() },
        capabilities: capabilities.clone(),
        source_networks: Vec::new(),
        max_sessions: None,
        second_factor: false,
        approval: Approval::None,
        files: FileRules::default(),
        commands: CommandRules::default(),
        forwarding: Forwarding::default(),
        review: None,
    };
    let changed = terms != as_asked || not_before > now || not_after - not_before != length(*lasting);
    let new = NewGrant {
        people: vec![name_of(tx, request.person).await?],
        terms,
        window: Window::new(not_before, not_after).map_err(GrantError::from)?,
        reason: request.reason.clone(),
        ticket: request.ticket.clone(),
    };
    Ok((grants::make_in(tx, now, actor, new, None).await?, changed))
}

async fn give_more_time(
    tx: &mut Tx,
    now: DateTime<Utc>,
    actor: &Actor,
    request: &Request,
    changes: Changes,
) -> Result<(Grant, bool), RequestError> {
    let Wish::MoreTime { grant: id, lasting } = &request.wish else {
        return Err(RequestError::OnlyTheEnd);
    };
    let end = changes.not_after;
    if changes != (Changes { not_after: end, ..Changes::default() }) {
        return Err(RequestError::OnlyTheEnd);
    }
    let grant = db::grants::find(tx, *id).await?.ok_or(GrantError::Unknown { id: *id })?;
    let asked = later(grant.window.not_after(), *lasting)?;
    let not_after = end.unwrap_or(asked);
    let grant = grants::extend_in(tx, now, actor, *id, not_after, &request.reason).await?;
    Ok((grant, not_after != asked))
}

/// The grant that a session is to start under, if `actor` may answer for it. Whether it still stands is the rule's question, when
/// the session starts.
async fn let_start(tx: &mut Tx, actor: &Actor, id: GrantId) -> Result<Grant, RequestError> {
    let grant = db::grants::find(tx, id).await?.ok_or(GrantError::Unknown { id })?;
    match audit::person(actor) {
        Some(person) if grant.people.contains(&person) => Err(RequestError::UnderGrant),
        _ => {
            grants::note_hand(tx, actor, id).await?;
            Ok(grant)
        }
    }
}

fn length(lasting: Duration) -> TimeDelta {
    TimeDelta::from_std(lasting).unwrap_or(TimeDelta::MAX)
}

fn later(start: DateTime<Utc>, lasting: Duration) -> Result<DateTime<Utc>, RequestError> {
    start.checked_add_signed(length(lasting)).ok_or(RequestError::Lasting)
}

async fn name_of(tx: &mut Tx, person: PrincipalId) -> Result<PrincipalName, RequestError> {
    let found = principals::find_by_id(tx, person).await?;
    // People are never removed.
    Ok(found.ok_or_else(|| DbError::corrupt("answer a request", "nobody has asked for it"))?.principal.name)
}

/// Says no.
pub async fn deny(
    app: &App,
    actor: &Actor,
    id: RequestId,
    reason: &str,
    still: Still<'_, Request>,
) -> Result<Request, RequestError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?; // other nodes wake whoever waits there
    let now = app.clock.now();
    let request = open_request(&mut tx, id, now, still).await?;
    refuse_own(actor, &request)?;
    let state = RequestState::Denied { reason: reason.clone(), at: now, by: audit::person(actor) };
    answer(app, tx, actor, &request, state, Act::RequestDenied { request: id, reason }, now).await
}

/// Takes a request back; only who made it may.
pub async fn withdraw(
    app: &App,
    person: &Principal,
    id: RequestId,
    still: Still<'_, Request>,
) -> Result<Request, RequestError> {
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    let now = app.clock.now();
    // Of somebody else's request one is told nothing, its state included.
    let own = requests::find(&mut tx, id).await?.is_some_and(|request| request.person == person.id);
    if !own {
        return Err(RequestError::Unknown { id });
    }
    let request = open_request(&mut tx, id, now, still).await?;
    let actor = Actor::Principal { id: person.id, name: person.name.clone() };
    let state = RequestState::Withdrawn { at: now };
    answer(app, tx, &actor, &request, state, Act::RequestWithdrawn { request: id }, now).await
}

/// A request that can be answered. The policy's turn is ours, so nobody else answers it meanwhile.
async fn open_request(
    tx: &mut Tx,
    id: RequestId,
    now: DateTime<Utc>,
    still: Still<'_, Request>,
) -> Result<Request, RequestError> {
    let request = requests::find(tx, id).await?.ok_or(RequestError::Unknown { id })?;
    let request = as_of(request, now);
    if is_changed(still, &request) {
        return Err(RequestError::Changed { id });
    }
    match request.state_at(now) {
        RequestState::Open => Ok(request),
        state => Err(RequestError::Answered { id, state: Box::new(state) }),
    }
}

fn refuse_own(actor: &Actor, request: &Request) -> Result<(), RequestError> {
    if audit::person(actor) == Some(request.person) { Err(RequestError::Own) } else { Ok(()) }
}

/// Writes the answer and its event, commits, and wakes who waits.
async fn answer(
    app: &App,
    mut tx: Tx,
    actor: &Actor,
    request: &Request,
    state: RequestState,
    act: Act,
    now: DateTime<Utc>,
) -> Result<Request, RequestError> {
    let Some(answered) = requests::answer(&mut tx, request.id, &state, now).await? else {
        let state = requests::find(&mut tx, request.id).await?.map_or(RequestState::Open, |found| found.state_at(now));
        return Err(RequestError::Answered { id: request.id, state: Box::new(state) });
    };
    audit::append(&mut tx, now, actor, act).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(answered)
}

/// Returns once the request is no longer open. Cancel safe. What another node answers is noticed at the sweep of the
/// policy's version, a second later at most.
pub async fn wait(app: &App, id: RequestId) -> Result<Request, RequestError> {
    let mut changes = app.changes.subscribe(); // before the look, so that nothing falls between
    loop {
        let request = find(app, id).await?;
        if request.state != RequestState::Open {
            return Ok(request);
        }
        tokio::select! {
            // Nobody can make this wait fail, and if: looking again is never wrong.
            _ = changes.changed() => {}
            () = app.clock.sleep_until(request.expires_at) => {}
        }
    }
}

/// Writes down which requests nobody answered in time; gives how many.
pub async fn expire(app: &App) -> Result<u32, DbError> {
    let now = app.clock.now();
    let overdue = requests::overdue(&mut app.db.read().await?, now).await?;
    let mut expired = 0;
    for id in overdue {
        let mut tx = app.db.write().await?;
        let Some(request) = requests::find(&mut tx, id).await? else { continue };
        // Two nodes may be at it: the one whose update finds it open writes the event.
        if requests::expire(&mut tx, id, request.expires_at, now).await? {
            audit::append(&mut tx, now, &Actor::Bastion, Act::RequestExpired { request: id }).await?;
            tx.commit().await?;
            expired += 1;
        }
    }
    Ok(expired)
}

/// Calls [`expire`] every few seconds until `stop`.
pub async fn sweep(app: App, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = expire(&app).await
            && !error.is_unreachable()
        {
            warn!(%error, "Requests that nobody answered could not be ended.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::audit::EventFilter;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::app::{people, targets as app_targets};
    use crate::store::db::testing::{app_on, on_both};

    const HOUR: Duration = Duration::from_hours(1);

    fn access() -> NewRequest {
        NewRequest {
            wish: Wish::Access {
                targets: vec!["web-*".parse().unwrap()],
                logins: vec![],
                capabilities: Capabilities { shell: true, ..Capabilities::default() },
                lasting: 2 * HOUR,
            },
            reason: "INC-7".to_owned(),
            ticket: Some("INC-7".to_owned()),
        }
    }

    fn actor(person: &Principal) -> Actor {
        Actor::Principal { id: person.id, name: person.name.clone() }
    }

    /// Alice, who asks, Adam, who answers, and a target.
    async fn furnish(db: db::Db) -> (App, Principal, Principal) {
        let app = app_on(db);
        let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
        let adam = people::add(&app, &OPERATOR, named("adam")).await.unwrap().principal;
        app_targets::add(&app, &OPERATOR, app_targets::tests::named("web-1")).await.unwrap();
        (app, alice, adam)
    }

    async fn events(app: &App, kind: &str) -> usize {
        let filter = EventFilter { kind: Some(kind.to_owned()), ..EventFilter::default() };
        audit::list(app, 0, &filter, 100).await.unwrap().len()
    }

    #[tokio::test]
    async fn a_yes_makes_the_grant_that_was_asked_for_from_the_moment_of_the_yes() {
        on_both(|db| async {
            let (app, alice, adam) = furnish(db).await;
            let asked = ask(&app, &alice, access()).await.unwrap();
            app.clock.advance(HOUR);

            let (request, grant) = approve(&app, &actor(&adam), asked.id, Changes::default(), None).await.unwrap();

            let now = app.clock.now();
            assert_eq!(grant.window, Window::new(now, now + 2 * HOUR).unwrap());
            assert_eq!((&grant.people, grant.terms.logins.len()), (&vec![alice.id], 1));
            assert_eq!((grant.reason.as_str(), grant.created_by), ("INC-7", Some(adam.id)));
            let state = RequestState::Approved { grant: grant.id, changed: false, at: now, by: Some(adam.id) };
            assert_eq!(request.state, state);
            assert_eq!(find(&app, asked.id).await.unwrap(), request);
            assert_eq!(grants::find(&app, grant.id).await.unwrap(), grant);
            assert_eq!((events(&app, "request_made").await, events(&app, "request_approved").await), (1, 1));
            assert_eq!(events(&app, "grant_made").await, 1);
        })
        .await;
    }

    #[tokio::test]
    async fn an_admin_may_give_otherwise_than_was_asked_and_that_is_written_down() {
        on_both(|db| async {
            let (app, alice, adam) = furnish(db).await;
            let asked = ask(&app, &alice, access()).await.unwrap();
            let now = app.clock.now();
            let changes = Changes {
                logins: vec!["deploy".parse().unwrap()],
                not_after: Some(now + HOUR),
                second_factor: true,
                ..Changes::default()
            };

            let (request, grant) = approve(&app, &actor(&adam), asked.id, changes, None).await.unwrap();

            assert!(matches!(request.state, RequestState::Approved { changed: true, .. }));
            assert_eq!((grant.window.not_after(), grant.terms.second_factor), (now + HOUR, true));
            assert_eq!(grant.terms.logins, ["deploy".parse().unwrap()]);
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_answers_their_own_request_but_the_operator_answers_any() {
        on_both(|db| async {
            let (app, alice, _) = furnish(db).await;
            let asked = ask(&app, &alice, access()).await.unwrap();

            let own = approve(&app, &actor(&alice), asked.id, Changes::default(), None).await;
            let own_no = deny(&app, &actor(&alice), asked.id, "no", None).await;
            let operators = approve(&app, &OPERATOR, asked.id, Changes::default(), None).await;

            assert!(matches!((own, own_no), (Err(RequestError::Own), Err(RequestError::Own))));
            assert!(operators.is_ok());
        })
        .await;
    }

    #[tokio::test]
    async fn of_two_answers_at_once_one_counts_and_one_grant_is_made() {
        on_both(|db| async {
            let (app, alice, adam) = furnish(db).await;
            let asked = ask(&app, &alice, access()).await.unwrap().id;
            let adam = actor(&adam);

            let (yes, no) = tokio::join!(
                approve(&app, &adam, asked, Changes::default(), None),
                deny(&app, &OPERATOR, asked, "not today", None)
            );

            assert_ne!(yes.is_ok(), no.is_ok());
            let answers = events(&app, "request_approved").await + events(&app, "request_denied").await;
            assert_eq!((answers, events(&app, "grant_made").await), (1, usize::from(yes.is_ok())));
            let late = deny(&app, &OPERATOR, asked, "late", None).await;
            assert!(matches!(late, Err(RequestError::Answered { .. })), "{late:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_answer_and_by_the_deadline() {
        on_both(|db| async {
            let (app, alice, _) = furnish(db).await;
            let first = ask(&app, &alice, access()).await.unwrap().id;
            let second = ask(&app, &alice, access()).await.unwrap().id;

            let (waited, denied) = tokio::join!(wait(&app, first), deny(&app, &OPERATOR, first, "not today", None));
            let advance = async { app.clock.advance(24 * HOUR) };
            let (expired, ()) = tokio::join!(wait(&app, second), advance);

            assert_eq!(waited.unwrap(), denied.unwrap());
            assert!(matches!(expired.unwrap().state, RequestState::Expired { .. }));
        })
        .await;
    }

    #[tokio::test]
    async fn an_expired_request_is_refused_and_its_end_is_written_once() {
        on_both(|db| async {
            let (app, alice, _) = furnish(db).await;
            let asked = ask(&app, &alice, access()).await.unwrap();
            app.clock.advance(24 * HOUR);

            let late = approve(&app, &OPERATOR, asked.id, Changes::default(), None).await;
            let open = RequestFilter { state: Some("open"), ..RequestFilter::default() };
            let expired = RequestFilter { state: Some("expired"), ..RequestFilter::default() };
            let before_sweep = (list(&app, &open, 9).await.unwrap().len(), list(&app, &expired, 9).await.unwrap().len());
            let swept = tokio::join!(expire(&app), expire(&app));

            assert!(
                matches!(&late, Err(RequestError::Answered { state, .. }) if matches!(**state, RequestState::Expired { .. }))
            );
            assert_eq!(before_sweep, (0, 1));
            assert_eq!(swept.0.unwrap() + swept.1.unwrap(), 1);
            assert_eq!(events(&app, "request_expired").await, 1);
            assert_eq!(find(&app, asked.id).await.unwrap().state, RequestState::Expired { at: asked.expires_at });
            assert_eq!((events(&app, "grant_made").await, list(&app, &expired, 9).await.unwrap().len()), (0, 1));
        })
        .await;
    }

    #[tokio::test]
    async fn a_person_may_have_ten_open_requests_and_asking_at_once_makes_no_more() {
        on_both(|db| async {
            let (app, alice, _) = furnish(db).await;

            let asked = futures::future::join_all((0..14).map(|_| ask(&app, &alice, access()))).await;

            assert_eq!(asked.iter().filter(|asked| asked.is_ok()).count(), 10);
            let last = asked.into_iter().flatten().next().unwrap();
            withdraw(&app, &alice, last.id, None).await.unwrap();
            assert!(ask(&app, &alice, access()).await.is_ok());
            assert!(matches!(ask(&app, &alice, access()).await, Err(RequestError::TooManyOpen { most: 10 })));
        })
        .await;
    }

    #[tokio::test]
    async fn only_who_made_a_request_withdraws_it_and_others_are_told_nothing() {
        on_both(|db| async {
            let (app, alice, adam) = furnish(db).await;
            let asked = ask(&app, &alice, access()).await.unwrap().id;

            let others = withdraw(&app, &adam, asked, None).await;
            let own = withdraw(&app, &alice, asked, None).await.unwrap();
            let (again, others_again) =
                (withdraw(&app, &alice, asked, None).await, withdraw(&app, &adam, asked, None).await);

            assert!(matches!(others, Err(RequestError::Unknown { .. })));
            assert!(matches!(own.state, RequestState::Withdrawn { .. }));
            assert!(matches!(again, Err(RequestError::Answered { .. })));
            assert!(matches!(others_again, Err(RequestError::Unknown { .. })));
        })
        .await;
    }

    #[tokio::test]
    async fn more_time_is_asked_for_ones_own_running_grant_and_moves_its_end() {
        on_both(|db| async {
            let (app, alice, adam) = furnish(db).await;
            let first = ask(&app, &alice, access()).await.unwrap().id;
            let (_, grant) = approve(&app, &actor(&adam), first, Changes::default(), None).await.unwrap();
            let wish = Wish::MoreTime { grant: grant.id, lasting: HOUR };
            let more = || NewRequest { wish: wish.clone(), reason: "not done".to_owned(), ticket: None };

            let others = ask(&app, &adam, more()).await;
            let asked = ask(&app, &alice, more()).await.unwrap().id;
            let logins = Changes { logins: vec!["root".parse().unwrap()], ..Changes::default() };
            let otherwise = approve(&app, &actor(&adam), asked, logins, None).await;
            let (request, extended) = approve(&app, &actor(&adam), asked, Changes::default(), None).await.unwrap();
            grants::revoke(&app, &OPERATOR, grant.id, "done", None).await.unwrap();
            let late = ask(&app, &alice, more()).await;

            assert!(matches!(others, Err(RequestError::Grant(GrantError::Unknown { .. }))));
            assert!(matches!(otherwise, Err(RequestError::OnlyTheEnd)));
            assert_eq!(extended.window.not_after(), grant.window.not_after() + HOUR);
            assert!(
                matches!(request.state, RequestState::Approved { grant: id, changed: false, .. } if id == grant.id)
            );
            assert!(matches!(late, Err(RequestError::Grant(GrantError::Revoked { .. }))));
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_that_says_too_little_or_too_much_is_refused() {
        on_both(|db| async {
            use RequestError as E;
            let (app, alice, _) = furnish(db).await;
            let refuse = async |new: NewRequest| ask(&app, &alice, new).await.unwrap_err();
            let with = |change: fn(&mut Wish)| {
                let mut new = access();
                change(&mut new.wish);
                new
            };
            let lasting = |wish: &mut Wish, time| {
                if let Wish::Access { lasting, .. } | Wish::MoreTime { lasting, .. } = wish {
                    *lasting = time;
                }
            };

            assert!(matches!(refuse(NewRequest { reason: " ".to_owned(), ..access() }).await, E::Text(_)));
            let mut short = access();
            lasting(&mut short.wish, Duration::from_secs(59));
            assert!(matches!(refuse(short).await, E::Lasting));
            let mut long = access();
            lasting(&mut long.wish, Duration::from_hours(24 * 367));
            assert!(matches!(refuse(long).await, E::Lasting));
            let nowhere = with(|wish| {
                if let Wish::Access { targets, .. } = wish {
                    targets.clear();
                }
            });
            assert!(matches!(refuse(nowhere).await, E::Grant(GrantError::Missing { .. })));
            let nothing = with(|wish| {
                if let Wish::Access { capabilities, .. } = wish {
                    *capabilities = Capabilities::default();
                }
            });
            assert!(matches!(refuse(nothing).await, E::Grant(GrantError::NothingAllowed)));
            assert_eq!(list(&app, &RequestFilter::default(), 9).await.unwrap(), []);
        })
        .await;
    }

    #[tokio::test]
    async fn what_means_no_target_or_several_accounts_is_told_to_the_admin_and_stays_open() {
        on_both(|db| async {
            let (app, alice, _) = furnish(db).await;
            let mut other = access();
            if let Wish::Access { targets, .. } = &mut other.wish {
                *targets = vec!["db-1".parse().unwrap()];
            }
            let asked = ask(&app, &alice, other).await.unwrap().id;

            let nowhere = approve(&app, &OPERATOR, asked, Changes::default(), None).await;

            assert!(matches!(nowhere, Err(RequestError::NoTarget { .. })));
            assert_eq!(find(&app, asked).await.unwrap().state, RequestState::Open);
        })
        .await;
    }
}
