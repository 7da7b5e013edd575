//! One permitted session, from the decision to its last word.
//!
//! ```text
//! Opening ───────yes───────► Open ──client leaves──────────────► ended
//!    ├──others' consent──►┐    └──the rule says no by now──► cut ──► ended
//!    │                 Waiting (consent.rs) ──yes──► Open
//!    └──no──► Refused ◄──no──┘
//! ```
//!
//! An open session stands still while its grant takes a watcher and nobody watches, and while an admin holds it.
//!
//! The watcher decides again, by the same rule, on every change and at the end of the window. On a no, or if it cannot
//! decide for longer than the grace, the target's sockets are severed at once and the client's after a short goodbye.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use russh::Disconnect;
use russh::server::Handle;
use sallyport_domain::channel::Program;
use sallyport_domain::event::{Actor, CutReason, SessionEnd};
use sallyport_domain::files::{FileTerms, Way};
use sallyport_domain::grant::Approval;
use sallyport_domain::id::EventId;
use sallyport_domain::login_name::Destination;
use sallyport_domain::policy::{Denial, Permit};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, info_span, warn};

use super::Door;
use super::consent;
use super::files;
use super::freeze::{Freeze, Stillness};
use super::front::Front;
use super::notice::{self, Note, WARN_BEFORE};
use super::proxy::{Activity, Orders};
use super::sever::Blade;
use super::targets::Targets;
use crate::app::access::{self, Arrival, OpenError, OpenSession, Standing, Verdict};
use crate::app::budgets::Purse;
use crate::app::consents::Waiting;
use crate::app::files::{FileLog, Left};
use crate::app::metrics::{Counted, timed};
use crate::spans::{self, Spanned};

/// How long a client may take to hear why it is cut off.
const GOODBYE: Duration = Duration::from_millis(1_200);

/// How long a channel may take for its last words, within [`GOODBYE`].
const LAST_WORDS: Duration = Duration::from_millis(700);

/// How long a client may take to show what it was sent last.
const READING: Duration = Duration::from_millis(200);

/// How long the database may take to answer for a session whose window ends.
const LAST_REVIEW: Duration = Duration::from_millis(250);

/// What is to be said on terminals and was not taken yet, at most; the oldest goes first.
const MOST_NOTES: usize = 16;

/// How long before a bastion that is restarted ends a session its engineer is told once more.
const LAST_WARNING: Duration = Duration::from_secs(60);

/// How often it is looked who watches.
const WATCH: Duration = Duration::from_secs(1);

/// How long somebody who was refused may stay connected.
const REFUSED: Duration = Duration::from_secs(30);

/// The shortest pause between tries to write what happened while the database is away, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a login's session is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// The first program that was asked for.
    pub program: Program,
    /// Where it is to run, if the user name left that open and the person has chosen.
    pub chosen: Option<Destination>,
}

/// What has become of a login's wish for a session.
#[derive(Clone)]
pub enum SessionState {
    Opening,
    /// For somebody else's consent.
    Waiting(Arc<Waiting>),
    Open(Arc<Live>),
    Refused(Arc<Refusal>),
}

/// What a person is told who was proved but gets no session: at most four lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub lines: Vec<String>,
}

/// A session that is going on.
pub struct Live {
    pub open: OpenSession,
    pub targets: Targets,
    /// The permit as the rule sees it by now.
    permit: watch::Sender<Permit>,
    notes: broadcast::Sender<Note>,
    pub frozen: watch::Sender<bool>,
    pub activity: Activity,
    /// Its part of the grant's budgets.
    pub purse: Purse,
    /// What happens to files, on its way to the audit log.
    pub files: Arc<FileLog>,
    stop: CancellationToken,
    cut: Arc<OnceLock<CutReason>>,
    /// Its channels' tasks.
    pub channels: TaskTracker,
    channel_numbers: AtomicU32,
    pub span: Spanned,
}

impl Live {
    /// Ends the session. The first reason counts.
    pub fn cut(&self, reason: CutReason) {
        if self.cut.set(reason).is_ok() {
            self.targets.sever(); // before anything else: nothing reaches the target any more
            self.stop.cancel();
        }
    }

    /// The permit as the rule sees it by now.
    pub fn permit(&self) -> Permit {
        self.permit.borrow().clone()
    }

    /// Says something on its terminals.
    pub fn say(&self, note: Note) {
        let _ = self.notes.send(note); // without a channel nobody is there to read it
    }

    /// What a channel of this session must obey.
    pub fn orders(&self) -> Orders {
        let freeze = Freeze::new(self.frozen.subscribe());
        Orders { stop: self.stop.clone(), cut: self.cut.clone(), notes: self.notes.subscribe(), freeze }
    }

    /// The next channel's number, from 1.
    pub fn number_channel(&self) -> u32 {
        self.channel_numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The client's connection, as far as a session needs it.
pub struct ClientConnection {
    pub handle: Handle,
    pub blade: Blade,
    /// Cuts the connection that carries this one, if one does (`ssh -J`).
    pub carrier: Option<Blade>,
    /// Set when the connection has ended.
    pub gone: CancellationToken,
    pub span: Spanned,
}

/// Opens the session that a login asked for and sees it to its end. `state` tells the login's channels.
pub async fn run(
    door: Arc<Door>,
    arrival: Arrival,
    destination: Destination,
    client: ClientConnection,
    mut first: watch::Receiver<Option<First>>,
    front: Option<Arc<Front>>,
    state: watch::Sender<SessionState>,
) {
    // Before the decision: a change between it and the watch must not be missed.
    let mut changes = door.app.changes.subscribe();
    // A login that names no target may be there for `ssh -J` or a command of the bastion alone, and then never asks for a
    // program on a target.
    let destination = if destination == Destination::Unsaid {
        let front = front.as_deref();
        match Box::pin(first_wish(&door, &arrival, &client, front, &mut first, &mut changes)).await {
            Some(First { chosen, program: _ }) => chosen.unwrap_or(destination),
            None => return,
        }
    } else {
        destination
    };
    // What is short is on the heap here and below: the session itself may idle for hours, and needs little room then.
    let open = match Box::pin(decide(&door, &arrival, &destination, None, &client.span)).await {
        Err(OpenError::Undecided) => {
            let program = tokio::select! {
                first = first.wait_for(Option::is_some) => first.ok().and_then(|first| first.clone()),
                () = client.gone.cancelled() => return,
            };
            let program = program.map(|first| first.program);
            Box::pin(decide(&door, &arrival, &destination, program.as_ref(), &client.span)).await
        }
        decided => decided,
    };
    let open = match open {
        Ok(open) => Ok(open),
        Err(OpenError::Awaited { waiting }) => {
            state.send_replace(SessionState::Waiting(Arc::new((*waiting).clone())));
            match Box::pin(consent::wait(&door, &arrival, &waiting, &client.gone, &mut changes)).await {
                Some(answered) => answered,
                None => return, // the client has gone
            }
        }
        Err(error) => Err(refusal(&error, &arrival)),
    };
    let open = match open {
        Ok(open) => open,
        Err(refusal) => {
            let reason = refusal.lines.first().map(String::as_str).unwrap_or_default();
            info!(principal = %arrival.principal.name, reason, "A person was refused.");
            door.app.metrics.denials.inc();
            state.send_replace(SessionState::Refused(Arc::new(refusal)));
            // Time to read why, but no place to stay.
            tokio::select! {
                () = tokio::time::sleep(REFUSED) => {}
                () = client.gone.cancelled() => return,
                () = door.closing.cancelled() => {}
            }
            client.blade.cut();
            return;
        }
    };
    let span = info_span!("session", id = %open.id, principal = %open.principal.name, target = %open.target.name);
    run_open(door, open, client, changes, state).instrument(span).await;
}

/// Asks whether there is to be a session.
async fn decide(
    door: &Door,
    arrival: &Arrival,
    destination: &Destination,
    program: Option<&Program>,
    connection: &Spanned,
) -> Result<OpenSession, OpenError> {
    let span = spans::decision(connection);
    let opening = access::open(&door.app, &door.node, arrival, destination, program, None);
    let opened = timed(&door.app.metrics.session_open_seconds, opening).await;
    match &opened {
        Ok(open) => {
            span.is_of(open.id);
            span.outcome("allowed");
        }
        Err(OpenError::Denied { .. }) => span.outcome("denied"),
        Err(OpenError::Awaited { .. }) => span.outcome("awaited"),
        Err(OpenError::Undecided | OpenError::Unclear { .. }) => span.outcome("undecided"),
        Err(OpenError::TooManyWait { .. }) => span.outcome("too_many_wait"),
        Err(OpenError::NoWay { .. }) => span.failure("no_way"),
        Err(OpenError::Db(_)) => span.failure("database"),
    }
    opened
}

/// Waits until it is known what is to run, and where. `None` if nothing will: the client has gone, or the person may not stay.
async fn first_wish(
    door: &Door,
    arrival: &Arrival,
    client: &ClientConnection,
    front: Option<&Front>,
    first: &mut watch::Receiver<Option<First>>,
    changes: &mut watch::Receiver<u64>,
) -> Option<First> {
    loop {
        tokio::select! {
            first = async { first.wait_for(Option::is_some).await.ok().and_then(|first| first.clone()) } => return first,
            () = client.gone.cancelled() => return None,
            () = door.closing.cancelled() => {}
            // A database that is away is no reason to go: nothing is open here, and what is opened is asked for anew.
            _ = changes.changed() => match access::is_welcome(&door.app, &arrival.principal).await {
                Ok(false) => info!(principal = %arrival.principal.name, "A person may not stay."),
                Ok(true) | Err(_) => continue,
            },
        }
        // Whoever is in the middle of something gets their screen back.
        if let Some(front) = front {
            front.leave.cancel();
            front.visits.close();
            if !front.visits.is_empty() {
                let _ = tokio::time::timeout(LAST_WORDS, front.visits.wait()).await; // who does not read is not waited for
                tokio::time::sleep(READING).await;
            }
        }
        client.blade.cut();
        return None;
    }
}

async fn run_open(
    door: Arc<Door>,
    open: OpenSession,
    client: ClientConnection,
    changes: watch::Receiver<u64>,
    state: watch::Sender<SessionState>,
) {
    info!(login = %open.permit.login(), grant = %open.permit.grant(), "The session is open.");
    let metrics = door.app.metrics.clone();
    metrics.sessions_opened.inc();
    let _counted = Counted::new(&metrics.sessions_live);
    let span = spans::session(&client.span, open.id, open.permit.grant());
    let targets = Targets::begin(door.app.clone(), open.clone(), door.authorities.clone(), &span, &door.connections);
    let actor = Actor::Principal { id: open.principal.id, name: open.principal.name.clone() };
    let files = Arc::new(FileLog::new(actor));
    let takes_watcher = open.permit.terms().approval == Approval::Watcher;
    let terms = open.permit.terms();
    let terms = FileTerms::new(&terms.capabilities, terms.files.clone());
    let purse = Purse::new(open.permit.grant(), open.id, terms);
    let live = Arc::new(Live {
        permit: watch::Sender::new(open.permit.clone()),
        targets,
        open,
        notes: broadcast::Sender::new(MOST_NOTES),
        // Who watched a moment ago is asked for once more before anything moves.
        frozen: watch::Sender::new(takes_watcher),
        activity: Activity::begin(),
        purse,
        files,
        stop: client.gone.child_token(),
        cut: Arc::default(),
        channels: TaskTracker::new(),
        channel_numbers: AtomicU32::new(0),
        span,
    });
    let books = door.connections.spawn(write_files(door.clone(), live.clone()).in_current_span());
    let spending = CancellationToken::new();
    let purse = {
        let (app, live, spending) = (door.app.clone(), live.clone(), spending.clone());
        let keep = async move { live.purse.keep(&app, spending).await };
        door.connections.spawn(Box::pin(keep.in_current_span()))
    };
    state.send_replace(SessionState::Open(live.clone()));
    tokio::select! {
        reason = watch_over(&door, &live, changes) => live.cut(reason),
        () = live.stop.cancelled() => {}
        () = live.activity.stops_for(door.settings.idle_timeout) => {
            live.cut(CutReason::Idle { seconds: door.settings.idle_timeout.unwrap_or_default().as_secs() });
        }
        () = door.closing.cancelled() => live.cut(CutReason::ShuttingDown),
    }
    let end = match live.cut.get() {
        Some(reason) => {
            Box::pin(say_goodbye(&live, &client, reason)).await;
            SessionEnd::Cut { reason: reason.clone() }
        }
        None => SessionEnd::ClientClosed,
    };
    let ended_at = door.app.clock.now();
    live.channels.close();
    if live.cut.get().is_none() {
        // What must not stay on the target is taken away while there is a connection to do it with.
        let _ = tokio::time::timeout(files::UNDO, live.channels.wait()).await;
    }
    live.targets.sever();
    live.channels.wait().await;
    // The session's end is the last that is told of it.
    live.files.close();
    let _ = books.await; // it has said why, if it gave up
    spending.cancel();
    let _ = purse.await; // as above
    // Channels hold receivers of the state; the session must not keep itself alive through it.
    drop(state);
    Box::pin(write_end(&door, &live.open, ended_at, &end, &live.purse.rest())).await;
    live.span.outcome(end.as_str());
    metrics.sessions_ended.get_or_create(&[("how", end.as_str())]).inc();
    info!(?end, "The session has ended.");
}

/// Writes what the session's channels tell of files. If that cannot be done for longer than the grace, the session is cut: what
/// is not in the books must not go on.
async fn write_files(door: Arc<Door>, live: Arc<Live>) {
    let mut failing_since: Option<tokio::time::Instant> = None;
    let mut pause = SHORTEST_PAUSE;
    loop {
        match live.files.write(&door.app).await {
            Ok(Left::Nothing) => return,
            Ok(Left::More) => (failing_since, pause) = (None, SHORTEST_PAUSE),
            Err(error) if error.is_unreachable() => {
                let since = *failing_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > door.settings.database_grace {
                    live.cut(CutReason::CannotDecide { seconds: since.elapsed().as_secs() });
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    // What is left is in the recording.
                    () = door.closed.cancelled() => return,
                }
            }
            Err(error) => {
                error!(%error, "What happened to files could not be written; the session must end.");
                live.cut(CutReason::RecordingFailed {
                    message: format!("what happened to files could not be written: {error}"),
                });
                return;
            }
        }
    }
}

/// Returns the reason to cut the session.
async fn watch_over(door: &Door, live: &Live, mut changes: watch::Receiver<u64>) -> CutReason {
    let mut unsure_since: Option<tokio::time::Instant> = None;
    let takes_watcher = live.permit().terms().approval == Approval::Watcher;
    let mut stillness = Stillness::starting(door.app.clock.now());
    let mut is_first = takes_watcher;
    let mut leaving = door.leaving.subscribe();
    if leaving.borrow().is_some() {
        leaving.mark_changed(); // one that was on its way in
    }
    loop {
        let permit = live.permit();
        let now = door.app.clock.now();
        let warning = next_warning(&permit, *leaving.borrow(), now);
        tokio::select! {
            () = std::future::ready(()), if std::mem::take(&mut is_first) => {}
            // Nobody can make this wait fail, and if: looking again is never wrong.
            _ = changes.changed() => {}
            Ok(()) = leaving.changed() => {
                if let Some(until) = *leaving.borrow_and_update() {
                    live.say(Note::leaving(until));
                }
                continue;
            }
            () = door.app.clock.sleep_until(permit.not_after()) => {}
            () = sleep_until(door, warning.as_ref().map(|(at, _)| *at)) => {
                if let Some((_, note)) = warning {
                    live.say(note);
                }
                continue;
            }
            () = tokio::time::sleep(WATCH), if unsure_since.is_some() || takes_watcher => {}
            // They may have shown meanwhile that they read; else nothing moves from now on.
            () = sleep_until(door, stillness.watched_until) => {}
        }
        let verdict = tokio::select! {
            verdict = Box::pin(access::review(&door.app, &live.open, stillness.last_watched)) => verdict,
            // A database that went silent does not keep the window open.
            () = outlasts(door, &permit) => return expired(&permit),
            // Nor does it keep a session moving that nobody may be watching.
            () = sleep_until(door, stillness.watched_until) => {
                stillness.watched_until = None;
                stillness.apply(door, live, takes_watcher);
                continue;
            }
        };
        match verdict {
            Ok(Verdict::Stay(standing)) => {
                unsure_since = None;
                let Standing { permit, watched_until, held, has_messages } = *standing;
                drop(live.permit.send_replace(permit));
                stillness.held = held;
                stillness.watched_until = watched_until;
                if watched_until.is_some() {
                    stillness.last_watched = door.app.clock.now();
                }
                stillness.apply(door, live, takes_watcher);
                if has_messages {
                    let permit = live.permit();
                    tokio::select! {
                        () = Box::pin(pass_messages(door, live)) => {}
                        () = outlasts(door, &permit) => {} // the window does not wait for words
                    }
                }
            }
            Ok(Verdict::Cut(reason)) => return reason,
            Err(error) => {
                let now = door.app.clock.now();
                // The window is known without the database.
                if permit.not_after() <= now {
                    return expired(&permit);
                }
                stillness.watched_until = stillness.watched_until.filter(|until| *until > now);
                stillness.apply(door, live, takes_watcher);
                let since = *unsure_since.get_or_insert_with(|| {
                    warn!(%error, "The session cannot be reviewed; it goes on for the configured grace.");
                    tokio::time::Instant::now()
                });
                if since.elapsed() > door.settings.database_grace {
                    return CutReason::CannotDecide { seconds: since.elapsed().as_secs() };
                }
                if takes_watcher && now - stillness.last_watched >= access::patience(&door.app) {
                    let denial = Denial::Unwatched { grant: permit.grant(), since: stillness.last_watched };
                    return CutReason::Denied { denial };
                }
            }
        }
    }
}

/// Shows what admins have to say. Without a terminal there is nowhere to show it.
async fn pass_messages(door: &Door, live: &Live) {
    match access::take_messages(&door.app, live.open.id).await {
        Ok(texts) => texts.iter().for_each(|text| live.say(Note::message(text))),
        Err(error) => warn!(%error, "A message could not be read; it is tried again at the next change."),
    }
}

/// Returns when the window has ended and the database has had its time to say that it was extended meanwhile.
async fn outlasts(door: &Door, permit: &Permit) {
    door.app.clock.sleep_until(permit.not_after()).await;
    tokio::time::sleep(LAST_REVIEW).await;
}

fn expired(permit: &Permit) -> CutReason {
    CutReason::Denied { denial: Denial::Expired { grant: permit.grant(), at: permit.not_after() } }
}

async fn sleep_until(door: &Door, at: Option<DateTime<Utc>>) {
    match at {
        Some(at) => door.app.clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The next instant after `now` at which the engineer is to be warned: of the window's end, or of the bastion's own at `leaving`.
fn next_warning(permit: &Permit, leaving: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<(DateTime<Utc>, Note)> {
    let not_after = permit.not_after();
    let due = |before: Duration| {
        let at = not_after - before;
        (at > now).then(|| (at, Note::ending(not_after, before.as_secs() / 60)))
    };
    let leaving = leaving.map(|until| (until - LAST_WARNING, Note::leaving(until))).filter(|(at, _)| *at > now);
    WARN_BEFORE.into_iter().filter_map(due).chain(leaving).min_by_key(|(at, _)| *at)
}

async fn say_goodbye(live: &Live, client: &ClientConnection, reason: &CutReason) {
    let text = format!("sallyport: this session was ended: {}", notice::goodbye(reason));
    let goodbye = async {
        live.channels.close();
        // The channels tell those who have a terminal; the others are told by the disconnect.
        let _ = tokio::time::timeout(LAST_WORDS, live.channels.wait()).await;
        let told = client.handle.disconnect(Disconnect::ByApplication, text, String::new()).await;
        if told.is_ok() {
            client.gone.cancelled().await;
        }
    };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        info!("The client did not take the goodbye.");
        if let Some(carrier) = &client.carrier {
            carrier.cut(); // it does not read, so nothing else on its connection moves either
        }
    }
    client.blade.cut(); // every read and write on the socket fails, so the connection's tasks end
}

async fn write_end(door: &Door, open: &OpenSession, ended_at: DateTime<Utc>, end: &SessionEnd, unspent: &[(Way, u64)]) {
    let mut pause = SHORTEST_PAUSE;
    let mut cut_noted = false;
    loop {
        let written = async {
            if let (SessionEnd::Cut { reason }, false) = (end, cut_noted) {
                access::note_cut(&door.app, open.id, reason).await?;
                cut_noted = true;
            }
            access::close(&door.app, (open.id, open.permit.grant()), ended_at, end, unspent).await
        };
        match written.await {
            Ok(()) => return,
            Err(error) if error.is_unreachable() => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    // The next start finds the session without an end and writes one.
                    () = door.closed.cancelled() => return,
                }
            }
            Err(error) => {
                error!(%error, "The session's end could not be written.");
                return;
            }
        }
    }
}

/// What to tell a person who gets no session: what the rule said, the next window, whom to ask, and the reference.
pub fn refusal(error: &OpenError, arrival: &Arrival) -> Refusal {
    let name = &arrival.principal.name;
    let lines = match error {
        OpenError::Denied { denial, reference } => refused_lines(denial, *reference),
        OpenError::Unclear { choices } => {
            let shown = choices.iter().take(3).map(|choice| {
                let left = notice::date_time(choice.not_after);
                format!("  {name}+{}@{}   until {left}", choice.login, choice.target)
            });
            let more = choices.len().saturating_sub(3);
            let head = match more {
                0 => "say where to go in the user name; you may go to:".to_owned(),
                more => format!("say where to go in the user name; you may go to these and {more} more:"),
            };
            std::iter::once(head).chain(shown).collect()
        }
        OpenError::Awaited { .. } => vec!["somebody's consent is missing; try again".to_owned()],
        OpenError::TooManyWait { .. } => vec![error.to_string(), "end one of them, or wait for its answer".to_owned()],
        OpenError::Undecided => vec!["the bastion could not tell which grant is meant; try again".to_owned()],
        OpenError::NoWay { .. } => vec![error.to_string(), "ask an admin of the bastion to mend it".to_owned()],
        OpenError::Db(error) if error.is_unreachable() => {
            vec![
                "the bastion cannot reach its database, so it cannot let anybody in".to_owned(),
                "try again in a minute".to_owned(),
            ]
        }
        OpenError::Db(error) => {
            error!(%error, "A session could not be opened.");
            vec!["the bastion could not open the session; its log says why".to_owned()]
        }
    };
    Refusal { lines }
}

/// A refusal that the rule explains, in at most four lines.
pub fn refused_lines(denial: &Denial, reference: EventId) -> Vec<String> {
    let mut lines = vec![format!("access denied: {}", notice::denial_text(denial))];
    match denial {
        Denial::NotYet { opens_at, .. } => lines.push(format!("try again at {}", notice::date_time(*opens_at))),
        Denial::TooManySessions { .. } => lines.push("close one of them, or ask an admin for more".to_owned()),
        Denial::SecondFactorMissing { .. } => {
            lines.push("set one up first: ask an admin of the bastion for `sallyport person totp enrol`".to_owned());
        }
        Denial::NotApproved { approval: Approval::Watcher, .. } | Denial::Unwatched { .. } => {
            lines.push("ask a reviewer when they can watch".to_owned());
        }
        Denial::NotApproved { .. } => lines.push("ask an admin of the bastion when they can approve".to_owned()),
        Denial::PrincipalDisabled | Denial::TargetDisabled => lines.push("ask an admin of the bastion why".to_owned()),
        _ => lines.push("ask an admin of the bastion for a grant".to_owned()),
    }
    lines.push(format!("reference {reference}"));
    lines
}
