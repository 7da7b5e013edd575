//! Access: a proved person becomes a session, and a session stays only as long as the rule says so.
//!
//! [`open`] gathers the facts, asks `policy::decide`, and writes the session and its event in one transaction. [`review`]
//! asks the same rule again for a live session, on every change and at every end of a window. Told or swept, it looks at
//! the state, never at the message.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::channel::Program;
use sallyport_domain::consent::{Consent, Stage};
use sallyport_domain::event::{Act, Actor, CutReason, Event, SessionEnd};
use sallyport_domain::files::Way;
use sallyport_domain::grant::{Approval, Destination as Forward, Grant};
use sallyport_domain::id::{EventId, GrantId, SessionId};
use sallyport_domain::login_name::Destination;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::policy::{self, Denial, Factors, Permit, Question, Suits};
use sallyport_domain::principal::Principal;
use sallyport_domain::request::RequestState;
use sallyport_domain::target::Target;
use uuid::Uuid;

use crate::app::App;
use crate::app::consents::{self, Waiting};
use crate::app::ledger::manifests::SessionFacts;
use crate::store::db::{self, DbError, Tx};

/// A session that the rule has allowed and the books hold.
#[derive(Debug, Clone)]
pub struct OpenSession {
    pub id: SessionId,
    pub permit: Permit,
    pub principal: Principal,
    pub target: Target,
    /// The targets to go through, the first to dial first; empty for a target that is dialled directly.
    pub jumps: Vec<Target>,
    /// What the person proved themselves with at the login.
    pub factors: Factors,
    pub source: SocketAddr,
    pub reason: String,
}

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The rule said no; `reference` is the event that says why.
    #[error("{denial}")]
    Denied { denial: Denial, reference: EventId },
    /// The user name leaves open where to go; these are the places to choose from.
    #[error("the user name does not say where to go")]
    Unclear { choices: Vec<Choice> },
    /// Several grants would do; which one is meant depends on the program.
    #[error("it depends on the program which grant is meant")]
    Undecided,
    /// Somebody else's consent is missing, and was asked for.
    #[error("the session waits for {}", waiting.approval.as_str())]
    Awaited { waiting: Box<Waiting> },
    /// So many sessions and requests of the person wait for others already.
    #[error("{most} of your sessions and requests wait for somebody's answer already")]
    TooManyWait { most: u32 },
    /// A target's jump hosts lead in a circle, or one is missing.
    #[error("the way to target `{target}` is not complete: check its jump hosts")]
    NoWay { target: TargetName },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A place that a person may go to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub login: Login,
    pub target: TargetName,
    pub not_after: DateTime<Utc>,
    /// The grant that says so, and why it was given.
    pub grant: GrantId,
    pub reason: String,
    pub ticket: Option<String>,
}

/// Everything that a person may reach, now and later.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// By target, then login.
    pub choices: Vec<Choice>,
    /// The targets of the choices.
    pub targets: Vec<Target>,
    /// Windows that are still to open, the next one first.
    pub upcoming: Vec<Upcoming>,
}

/// A window that is still to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    pub grant: GrantId,
    pub opens_at: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
    /// What the grant names: targets, patterns, labels.
    pub targets: Vec<String>,
    pub logins: Vec<Login>,
    pub reason: String,
}

/// Who asks, and from where.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub principal: Principal,
    /// What they proved themselves with.
    pub factors: Factors,
    pub source: SocketAddr,
    /// The client's identification string (RFC 4253 §4.2), made printable.
    pub client_version: String,
}

/// How long ago a grant may have ended for the person still to be told of it.
const REMEMBERED: TimeDelta = TimeDelta::days(30);

/// Through how many hosts a target may be reached.
const MOST_JUMPS: usize = 4;

/// Opens a session to `destination` on `node`, if the rule says yes. Where several grants would do, it depends on the
/// `program` which one is meant: without it the answer is [`OpenError::Undecided`]. Where only others' consent is missing, it is asked
/// for; once it may be there, ask again with what was `waiting`.
pub async fn open(
    app: &App,
    node: &str,
    arrival: &Arrival,
    destination: &Destination,
    program: Option<&Program>,
    waiting: Option<&Waiting>,
) -> Result<OpenSession, OpenError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    // As the person is now, not as the login found them.
    let principal = db::principals::find_by_id(&mut tx, arrival.principal.id).await?;
    let Some(principal) = principal.map(|record| record.principal) else {
        return refuse(tx, arrival, destination, Denial::PrincipalDisabled, now).await;
    };
    let arrival = &Arrival { principal, ..arrival.clone() };
    let mut facts = Facts::load(&mut tx, arrival, now).await?;
    if let Some(waiting) = waiting {
        facts.grants.retain(|grant| grant.id == waiting.grant);
        facts.consent = Some(consents::load(&mut tx, waiting.session, Stage::Asked, now).await?.0);
    }
    let (target, login) = match facts.resolve(&mut tx, destination).await? {
        Resolved::Account(target, login) => (*target, login),
        Resolved::Unknown(denial) => return refuse(tx, arrival, destination, denial, now).await,
        Resolved::Unclear(choices) => return Err(OpenError::Unclear { choices }),
    };
    for grant in facts.grants.iter().filter(|grant| grant.terms.max_sessions.is_some()) {
        db::grants::hold(&mut tx, grant.id).await?;
    }
    let open_sessions = db::sessions::open_counts(&mut tx, arrival.principal.id, None).await?;
    if program.is_none() && facts.candidates(&target, &login, &open_sessions) > 1 {
        return Err(OpenError::Undecided);
    }
    let permit = match (facts.decide_for(program, &target, &login, &open_sessions), waiting) {
        (Ok(permit), _) => permit,
        (Err(Denial::NotApproved { grant, approval }), None) => {
            find_jumps(&mut tx, &target).await?; // nobody is asked for what cannot be
            let (reason, place) = (facts.reason(grant), (target.name, login));
            let asked = consents::ask(app, tx, &arrival.principal, (grant, approval), place, reason, now).await?;
            return Err(match asked {
                Ok(waiting) => OpenError::Awaited { waiting: Box::new(waiting) },
                Err(most) => OpenError::TooManyWait { most },
            });
        }
        (Err(Denial::NotApproved { .. }), Some(waiting)) => {
            return Err(OpenError::Awaited { waiting: Box::new(waiting.clone()) });
        }
        (Err(denial), _) => return refuse(tx, arrival, destination, denial, now).await,
    };
    let jumps = find_jumps(&mut tx, &target).await?;
    if let (Some(waiting), Approval::Watcher, Some(consent)) = (waiting, permit.terms().approval, &facts.consent)
        && !consents::note_watched(&mut tx, waiting, &consent.watchers, now).await?
    {
        let denial = Denial::NotApproved { grant: waiting.grant, approval: waiting.approval };
        return refuse(tx, arrival, destination, denial, now).await;
    }
    // An id that was asked for starts one session: a second of that id is refused by the database.
    let id = waiting.map_or_else(|| SessionId::from_uuid(Uuid::now_v7()), |waiting| waiting.session);
    let session = db::sessions::NewSession {
        id,
        principal: arrival.principal.id,
        principal_name: arrival.principal.name.clone(),
        target: target.id,
        target_name: target.name.clone(),
        login: login.clone(),
        grant: permit.grant(),
        terms: permit.terms().clone(),
        node: node.to_owned(),
        client_address: arrival.source,
        client_version: arrival.client_version.clone(),
        started_at: now,
    };
    db::sessions::insert(&mut tx, &session, app.run).await?;
    if let Some(grant) = facts.grants.iter().find(|grant| grant.id == permit.grant()) {
        SessionFacts::new(app, arrival, grant.clone(), &target, &jumps).keep(&mut tx, id).await?;
    }
    let act =
        Act::SessionOpened { session: id, grant: permit.grant(), target: target.id, login, address: arrival.source };
    let actor = Actor::Principal { id: arrival.principal.id, name: arrival.principal.name.clone() };
    db::events::append(&mut tx, &event(now, actor, act)).await?;
    tx.commit().await?;
    let reason = facts.reason(permit.grant());
    Ok(OpenSession {
        id,
        permit,
        principal: arrival.principal.clone(),
        target,
        jumps,
        factors: arrival.factors,
        source: arrival.source,
        reason,
    })
}

/// What has become of a session that waits for its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    Waits,
    /// What was missing is there: [`open`] it.
    Ready,
    /// It will not start; `state` is what has become of its request.
    Refused {
        denial: Denial,
        state: Option<RequestState>,
    },
}

/// Asks the rule for a session that waits: whether it still may start, and by now can.
pub async fn look(app: &App, arrival: &Arrival, waiting: &Waiting) -> Result<Look, DbError> {
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    let (consent, state) = consents::load(&mut tx, waiting.session, Stage::Asked, now).await?;
    let denial = Denial::NotApproved { grant: waiting.grant, approval: waiting.approval };
    match &state {
        Some(RequestState::Open | RequestState::Approved { .. }) => {}
        None | Some(RequestState::Denied { .. } | RequestState::Withdrawn { .. } | RequestState::Expired { .. }) => {
            return Ok(Look::Refused { denial, state });
        }
    }
    let Some(record) = db::principals::find_by_id(&mut tx, arrival.principal.id).await? else {
        return Ok(Look::Refused { denial: Denial::PrincipalDisabled, state });
    };
    let arrival = &Arrival { principal: record.principal, ..arrival.clone() };
    let Some(target) = db::targets::find(&mut tx, &waiting.target).await? else {
        return Ok(Look::Refused { denial: Denial::UnknownTarget, state });
    };
    let mut facts = Facts::load(&mut tx, arrival, now).await?;
    facts.grants.retain(|grant| grant.id == waiting.grant);
    facts.consent = Some(consent);
    let open_sessions = db::sessions::open_counts(&mut tx, arrival.principal.id, None).await?;
    let is_open = matches!(state, Some(RequestState::Open));
    Ok(match facts.decide(&target, &waiting.login, &open_sessions) {
        Ok(_permit) => Look::Ready, // `open` asks once more, in the transaction that writes
        Err(Denial::NotApproved { .. }) if is_open => Look::Waits,
        Err(denial) => Look::Refused { denial, state },
    })
}

/// What the rule says of a live session by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on, until the permit's end.
    Stay(Box<Standing>),
    Cut(CutReason),
}

/// How a live session stands that may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub permit: Permit,
    /// Until when somebody who counts is known to watch it; looked at only where the grant takes a watcher.
    pub watched_until: Option<DateTime<Utc>>,
    /// Why an admin wants it to stand still.
    pub held: Option<String>,
    /// Whether an admin has left words for its terminals.
    pub has_messages: bool,
}

/// Asks the rule again for a live session that was last watched, if it must be, at `last_watched`. An error means that it cannot be
/// asked; the caller decides how long that is borne.
pub async fn review(app: &App, session: &OpenSession, last_watched: DateTime<Utc>) -> Result<Verdict, DbError> {
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    let record = db::sessions::find(&mut tx, session.id).await?;
    if let Some((ended_at, _)) = record.as_ref().and_then(|record| record.ended.as_ref()) {
        // While this node was cut off, another one took it for dead and closed the session in the books: nothing goes on
        // that the books do not know.
        let seconds = u64::try_from((now - *ended_at).num_seconds()).unwrap_or_default();
        return Ok(Verdict::Cut(CutReason::CannotDecide { seconds }));
    }
    let (cut_requested, held) = record.map_or((None, None), |record| (record.cut_requested, record.held));
    if let Some(reason) = cut_requested {
        return Ok(Verdict::Cut(reason));
    }
    let has_messages = !db::sessions::messages(&mut tx, session.id).await?.is_empty();
    let cut = |denial| Ok(Verdict::Cut(CutReason::Denied { denial }));
    let Some(principal) = db::principals::find_by_id(&mut tx, session.principal.id).await? else {
        return cut(Denial::PrincipalDisabled);
    };
    let principal = principal.principal;
    let Some(target) = db::targets::find_by_id(&mut tx, session.target.id).await? else {
        return cut(Denial::UnknownTarget);
    };
    let (factors, source) = (session.factors, session.source);
    let arrival = Arrival { principal, factors, source, client_version: String::new() };
    let mut facts = Facts::load(&mut tx, &arrival, now).await?;
    // A session lives and dies with the grant that it was opened under; who has another one may come in again.
    facts.grants.retain(|grant| grant.id == session.permit.grant());
    let mut watched_until = None;
    if session.permit.terms().approval != Approval::None {
        let stage = Stage::Live { last_watched, patience: patience(app) };
        let consent = consents::load(&mut tx, session.id, stage, now).await?.0;
        watched_until = facts.grants.iter().find_map(|grant| consent.watched_until(grant, now));
        facts.consent = Some(consent);
    }
    let others = db::sessions::open_counts(&mut tx, session.principal.id, Some(session.id)).await?;
    match facts.decide(&target, session.permit.login(), &others) {
        Ok(permit) => Ok(Verdict::Stay(Box::new(Standing { permit, watched_until, held, has_messages }))),
        Err(denial) => cut(denial),
    }
}

/// How long a session stands still without its watcher.
pub fn patience(app: &App) -> TimeDelta {
    TimeDelta::from_std(app.consent.unwatched).unwrap_or(TimeDelta::MAX)
}

/// Takes what admins have left for the session's terminals, the oldest first.
pub async fn take_messages(app: &App, session: SessionId) -> Result<Vec<String>, DbError> {
    let mut tx = app.db.write().await?;
    let texts = db::sessions::messages(&mut tx, session).await?;
    db::sessions::take_messages(&mut tx, session).await?;
    tx.commit().await?;
    Ok(texts)
}

/// Writes that a session stands still for want of its watcher, or goes on.
pub async fn note_frozen(app: &App, session: SessionId, frozen: bool) -> Result<(), DbError> {
    let act = if frozen { Act::SessionFrozen { session } } else { Act::SessionThawed { session } };
    crate::app::audit::record(app, &Actor::Bastion, act).await.map(drop)
}

/// The target whose SSH server is at `host` and `port`, as a client that asks for a connection there names it: by name,
/// alias or address. `None` if there is no such target, or if an address is that of several.
pub async fn find_target(app: &App, host: &str, port: u16) -> Result<Option<Target>, DbError> {
    let mut tx = app.db.read().await?;
    if let Ok(name) = host.to_ascii_lowercase().parse::<TargetName>()
        && let Some(target) = db::targets::find(&mut tx, &name).await?
    {
        return Ok(Some(target).filter(|target| target.answers_to(host, port)));
    }
    let mut targets = db::targets::list(&mut tx).await?;
    targets.retain(|target| target.answers_to(host, port));
    Ok(if targets.len() == 1 { targets.pop() } else { None })
}

/// What the person may reach from where they are, as the rule sees it now. How many sessions are open is not looked at: that
/// is asked when one more is opened.
pub async fn reach(app: &App, arrival: &Arrival) -> Result<Reach, DbError> {
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    // As the person is now, not as the login found them.
    let Some(record) = db::principals::find_by_id(&mut tx, arrival.principal.id).await? else {
        return Ok(Reach::default());
    };
    let arrival = &Arrival { principal: record.principal, ..arrival.clone() };
    let facts = Facts::load(&mut tx, arrival, now).await?;
    let mut targets = db::targets::list(&mut tx).await?;
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    let choices = facts.choices(&targets);
    let open: HashSet<&TargetName> = choices.iter().map(|choice| &choice.target).collect();
    targets.retain(|target| open.contains(&target.name));
    let to_come = facts.grants.iter().filter(|grant| grant.revoked.is_none() && grant.window.not_before() > now);
    let upcoming = |grant: &Grant| Upcoming {
        grant: grant.id,
        opens_at: grant.window.not_before(),
        not_after: grant.window.not_after(),
        targets: grant.terms.targets.iter().map(ToString::to_string).collect(),
        logins: grant.terms.logins.clone(),
        reason: grant.reason.clone(),
    };
    let mut upcoming: Vec<Upcoming> = to_come.map(upcoming).collect();
    upcoming.sort_by_key(|window| (window.opens_at, window.grant));
    Ok(Reach { choices, targets, upcoming })
}

/// The grants under which a person has sessions now, each once.
pub async fn grants_in_use(app: &App, principal: &Principal) -> Result<Vec<GrantId>, DbError> {
    /// More sessions than this are as good as several.
    const ENOUGH: u32 = 100;
    let filter = db::sessions::SessionFilter {
        principal: Some(principal.name.clone()),
        live: Some(true),
        ..db::sessions::SessionFilter::default()
    };
    let sessions = db::sessions::list(&mut app.db.read().await?, &filter, ENOUGH).await?;
    let mut grants: Vec<GrantId> = sessions.into_iter().map(|record| record.session.grant).collect();
    grants.sort_unstable();
    grants.dedup();
    Ok(grants)
}

/// Whether any grant by which the person may be here now names `destination`. Which one counts is decided when the session is
/// opened; without any there is no need to open one.
pub async fn may_forward(app: &App, arrival: &Arrival, destination: &Forward) -> Result<bool, DbError> {
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    let facts = Facts::load(&mut tx, arrival, now).await?;
    let names = |grant: &Grant| grant.terms.capabilities.forwards.iter().any(|granted| granted.covers(destination));
    let is_open = |grant: &Grant| grant.window.contains(now) && grant.revoked.is_none();
    Ok(facts.grants.iter().any(|grant| is_open(grant) && names(grant)))
}

/// Writes that a proved person was refused what they `wanted`; gives back its reference.
pub async fn note_denial(app: &App, arrival: &Arrival, wanted: String, denial: Denial) -> Result<EventId, DbError> {
    let tx = app.db.write().await?;
    write_denial(tx, arrival, wanted, denial, app.clock.now()).await
}

/// The same as the end of `tx`.
async fn write_denial(
    mut tx: Tx,
    arrival: &Arrival,
    wanted: String,
    denial: Denial,
    now: DateTime<Utc>,
) -> Result<EventId, DbError> {
    let actor = Actor::Principal { id: arrival.principal.id, name: arrival.principal.name.clone() };
    let act = Act::Denied { person: arrival.principal.id, address: arrival.source, wanted, denial };
    let event = event(now, actor, act);
    db::events::append(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(event.id)
}

/// Whether a person who was proved earlier may still be here at all.
pub async fn is_welcome(app: &App, principal: &Principal) -> Result<bool, DbError> {
    let mut tx = app.db.read().await?;
    let record = db::principals::find_by_id(&mut tx, principal.id).await?;
    let now = app.clock.now();
    Ok(record.is_some_and(|record| record.principal.disabled_at.is_none_or(|at| at > now)))
}

/// Writes that a session was cut, and why.
pub async fn note_cut(app: &App, session: SessionId, reason: &CutReason) -> Result<(), DbError> {
    let mut tx = app.db.write().await?;
    let act = Act::SessionCut { session, reason: reason.clone() };
    db::events::append(&mut tx, &event(app.clock.now(), Actor::Bastion, act)).await?;
    tx.commit().await
}

/// Writes a session's end, and gives back what it has not spent of its grant's budgets. Writing it twice writes it once.
pub async fn close(
    app: &App,
    (session, grant): (SessionId, GrantId),
    ended_at: DateTime<Utc>,
    end: &SessionEnd,
    unspent: &[(Way, u64)],
) -> Result<(), DbError> {
    let mut tx = app.db.write().await?;
    if db::sessions::end(&mut tx, session, ended_at, end).await? {
        for &(way, bytes) in unspent {
            db::budgets::give_back(&mut tx, grant, way, bytes).await?;
        }
        let act = Act::SessionEnded { session, end: end.clone() };
        db::events::append(&mut tx, &event(ended_at, Actor::Bastion, act)).await?;
    }
    tx.commit().await
}

/// Writes that a request inside a session was refused; gives back the reference that the engineer is shown.
pub async fn note_refusal(app: &App, session: SessionId, request: &str, reason: &str) -> Result<EventId, DbError> {
    let mut tx = app.db.write().await?;
    let act = Act::RequestRefused { session, request: request.to_owned(), reason: reason.to_owned() };
    let event = event(app.clock.now(), Actor::Bastion, act);
    db::events::append(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(event.id)
}

async fn refuse(
    tx: Tx,
    arrival: &Arrival,
    destination: &Destination,
    denial: Denial,
    now: DateTime<Utc>,
) -> Result<OpenSession, OpenError> {
    let wanted = match destination {
        Destination::Unsaid => String::new(),
        Destination::Target(target) => target.to_string(),
        Destination::Account { login, target } => format!("{login}@{target}"),
    };
    let reference = write_denial(tx, arrival, wanted, denial.clone(), now).await?;
    Err(OpenError::Denied { denial, reference })
}

fn event(at: DateTime<Utc>, actor: Actor, act: Act) -> Event {
    Event { id: EventId::from_uuid(Uuid::now_v7()), at, actor, act }
}

/// What the rule needs to know about a person.
struct Facts<'a> {
    arrival: &'a Arrival,
    grants: Vec<Grant>,
    now: DateTime<Utc>,
    /// What others have said of the session in question, once there is one.
    consent: Option<Consent>,
}

enum Resolved {
    Account(Box<Target>, Login),
    Unknown(Denial),
    Unclear(Vec<Choice>),
}

impl<'a> Facts<'a> {
    async fn load(tx: &mut Tx, arrival: &'a Arrival, now: DateTime<Utc>) -> Result<Self, DbError> {
        let grants = db::grants::of_principal(tx, arrival.principal.id, now - REMEMBERED).await?;
        Ok(Self { arrival, grants, now, consent: None })
    }

    fn question<'q>(
        &'q self,
        target: &'q Target,
        login: &'q Login,
        open_sessions: &'q HashMap<GrantId, u32>,
    ) -> Question<'q> {
        let Arrival { principal, factors, source, client_version: _ } = self.arrival;
        let consent = self.consent.as_ref();
        Question { principal, target, login, factors: *factors, source: source.ip(), open_sessions, consent }
    }

    fn decide(&self, target: &Target, login: &Login, open_sessions: &HashMap<GrantId, u32>) -> Result<Permit, Denial> {
        let question = self.question(target, login, open_sessions);
        policy::decide(&question, &self.grants, self.now)
    }

    /// Whether a grant, asked alone, says yes, or would with others' consent.
    fn is_candidate(&self, question: &Question<'_>, grant: &Grant) -> bool {
        let alone = policy::decide(question, std::slice::from_ref(grant), self.now);
        matches!(alone, Ok(_) | Err(Denial::NotApproved { .. }))
    }

    /// How many grants say yes, or would with others' consent.
    fn candidates(&self, target: &Target, login: &Login, open_sessions: &HashMap<GrantId, u32>) -> usize {
        let question = self.question(target, login, open_sessions);
        self.grants.iter().filter(|grant| self.is_candidate(&question, grant)).count()
    }

    /// Why a grant was given.
    fn reason(&self, grant: GrantId) -> String {
        self.grants.iter().find(|known| known.id == grant).map(|grant| grant.reason.clone()).unwrap_or_default()
    }

    /// As [`Facts::decide`]; of several grants that say yes, or would, those that suit `program` best come first: the person may do
    /// what any of them allows.
    fn decide_for(
        &self,
        program: Option<&Program>,
        target: &Target,
        login: &Login,
        open_sessions: &HashMap<GrantId, u32>,
    ) -> Result<Permit, Denial> {
        let question = self.question(target, login, open_sessions);
        let suits = |grant: &Grant| {
            let fits = || program.map_or(Suits::Well, |program| Permit::would_suit(grant.id, &grant.terms, program));
            if self.is_candidate(&question, grant) { fits() } else { Suits::Not }
        };
        let suits: Vec<Suits> = self.grants.iter().map(suits).collect();
        let best = suits.iter().copied().max().unwrap_or(Suits::Not);
        let fitting = self.grants.iter().zip(&suits).filter(|&(_, &suits)| suits == best);
        let fitting: Vec<Grant> = fitting.map(|(grant, _)| grant.clone()).collect();
        // If none suits, all are asked: of their refusals the nearest to a yes is told.
        policy::decide(&question, &fitting, self.now)
    }

    /// Fills in what the user name left out, where only one answer is possible.
    async fn resolve(&self, tx: &mut Tx, destination: &Destination) -> Result<Resolved, DbError> {
        let targets = match destination {
            Destination::Account { login, target } => {
                return Ok(match db::targets::find(tx, target).await? {
                    Some(target) => Resolved::Account(Box::new(target), login.clone()),
                    None => Resolved::Unknown(Denial::UnknownTarget),
                });
            }
            Destination::Target(name) => match db::targets::find(tx, name).await? {
                Some(target) => vec![target],
                None => return Ok(Resolved::Unknown(Denial::UnknownTarget)),
            },
            Destination::Unsaid => db::targets::list(tx).await?,
        };
        let mut choices = self.choices(&targets);
        if choices.len() == 1 {
            let choice = choices.remove(0);
            let target = targets.into_iter().find(|target| target.name == choice.target);
            return Ok(match target {
                Some(target) => Resolved::Account(Box::new(target), choice.login),
                None => Resolved::Unknown(Denial::UnknownTarget),
            });
        }
        if let (true, Destination::Target(_), [target]) = (choices.is_empty(), destination, targets.as_slice()) {
            // Nothing is open: the rule says why for a login that a grant names, else for the target's first one.
            let named =
                self.grants.iter().filter(|grant| grant.terms.covers(target)).flat_map(|grant| &grant.terms.logins);
            let known = named.into_iter().find(|login| target.login(login).is_some());
            let login = known.or_else(|| target.logins.first().map(|login| &login.login));
            if let Some(login) = login {
                return Ok(Resolved::Account(Box::new(target.clone()), login.clone()));
            }
        }
        if choices.is_empty() { Ok(Resolved::Unknown(Denial::NoGrant)) } else { Ok(Resolved::Unclear(choices)) }
    }

    /// Every account among `targets` that the person may reach now.
    fn choices(&self, targets: &[Target]) -> Vec<Choice> {
        let nobody = HashMap::new(); // how many sessions are open is asked once the place is known
        let mut choices = Vec::new();
        for target in targets {
            for account in &target.logins {
                let grant = match self.decide(target, &account.login, &nobody) {
                    Ok(permit) => permit.grant(),
                    // Whose consent is missing is asked when they go there.
                    Err(Denial::NotApproved { grant, .. }) => grant,
                    Err(_) => continue,
                };
                if let Some(grant) = self.grants.iter().find(|known| known.id == grant) {
                    choices.push(Choice {
                        login: account.login.clone(),
                        target: target.name.clone(),
                        not_after: grant.window.not_after(),
                        grant: grant.id,
                        reason: grant.reason.clone(),
                        ticket: grant.ticket.clone(),
                    });
                }
            }
        }
        choices
    }
}

pub(crate) async fn find_jumps(tx: &mut Tx, target: &Target) -> Result<Vec<Target>, OpenError> {
    let mut jumps = Vec::new();
    let mut next = target.jump;
    while let Some(id) = next {
        let no_way = || OpenError::NoWay { target: target.name.clone() };
        if jumps.len() == MOST_JUMPS {
            return Err(no_way());
        }
        let jump =
            db::targets::find_by_id(tx, id).await?.filter(|jump| jump.disabled_at.is_none()).ok_or_else(no_way)?;
        next = jump.jump;
        jumps.insert(0, jump);
    }
    Ok(jumps)
}
