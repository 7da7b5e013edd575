//! Grants: given for a window and a reason, moved, taken back.

use chrono::{DateTime, Utc};
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::files::{FileRules, WayRules};
use sallyport_domain::grant::{
    Capabilities, Destination, EmptyWindow, ForwardFrom, Grant, TargetSelector, Terms, Window,
};
use sallyport_domain::id::{GrantId, PrincipalId};
use sallyport_domain::name::{PrincipalName, TargetName, TemplateName};
use uuid::Uuid;

use crate::app::clock::whole_microseconds;
use crate::app::text::{self, TextError};
use crate::app::{App, Still, audit, is_changed};
use crate::store::db::grants::GrantBounds;
use crate::store::db::{DbError, Tx, grants, policy_version, principals, reviews, targets};

/// A grant to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// At least one.
    pub people: Vec<PrincipalName>,
    pub terms: Terms,
    /// Ends in the future.
    pub window: Window,
    pub reason: String,
    pub ticket: Option<String>,
}

/// Which part of their life grants are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GrantState {
    /// The window is open.
    #[default]
    Active,
    /// The window opens later.
    Upcoming,
    /// The window closed, or the grant was revoked.
    Ended,
    All,
}

/// Which grants to list; what is `None` does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantFilter {
    pub state: GrantState,
    pub person: Option<PrincipalName>,
    /// Grants whose terms mean this target.
    pub target: Option<TargetName>,
}

/// Why grants were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    #[error("there is no grant {id}")]
    Unknown { id: GrantId },
    #[error("there is no person `{name}`")]
    UnknownPerson { name: PrincipalName },
    #[error("there is no target `{name}`")]
    UnknownTarget { name: TargetName },
    #[error("a grant needs at least one {what}")]
    Missing { what: &'static str },
    #[error("a grant may have {most} {what} at most")]
    TooMany { what: &'static str, most: usize },
    #[error("a grant that allows nothing is none: allow a shell, commands, files or forwards")]
    NothingAllowed,
    #[error("a grant for no sessions at all is none: leave the limit out, or allow one")]
    NoSessions,
    #[error(
        "a forward's destination needs a host name of 1 to 253 usual characters and a port, or a Unix socket's path"
    )]
    Destination,
    #[error("patterns of commands leave no shell: allow single commands (exec) and no shell with them")]
    PatternsAndShell,
    #[error("a Unix socket is on the target; none of the bastion's may be reached, so forward from the target")]
    SocketOfBastion,
    #[error("the end {not_after} is not in the future; to end a grant now, revoke it")]
    NotInFuture { not_after: DateTime<Utc> },
    #[error(transparent)]
    EmptyWindow(#[from] EmptyWindow),
    #[error("grant {id} ended at {at}; make a new one")]
    Ended { id: GrantId, at: DateTime<Utc> },
    #[error("grant {id} was revoked at {at}")]
    Revoked { id: GrantId, at: DateTime<Utc> },
    #[error("somebody changed grant {id} meanwhile: look at it again")]
    Changed { id: GrantId },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The most people, selectors, logins, networks or forwards in one grant: lists that a person still reads.
pub(crate) const MOST: usize = 100;

/// Contents that a grant may list; they are written out in its event.
const MOST_HASHES: usize = 4096;

/// Patterns of commands that a grant may have, of each kind.
const MOST_PATTERNS: usize = 64;

/// Makes a grant.
pub async fn make(app: &App, actor: &Actor, new: NewGrant) -> Result<Grant, GrantError> {
    let mut tx = app.db.write().await?;
    let grant = make_in(&mut tx, app.clock.now(), actor, new, None).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(grant)
}

/// Makes a grant within a transaction; `template` is where its terms are from. After the commit, [`App::changes`] must be told.
pub(crate) async fn make_in(
    tx: &mut Tx,
    now: DateTime<Utc>,
    actor: &Actor,
    new: NewGrant,
    template: Option<TemplateName>,
) -> Result<Grant, GrantError> {
    let reason = text::check("reason", &new.reason, text::MOST_REASON)?;
    let ticket = new.ticket.map(|ticket| text::check("ticket", &ticket, text::MOST_LABEL)).transpose()?;
    some_but_not_too_many("people", "person", new.people.len())?;
    check_terms(&new.terms)?;
    let window = Window::new(whole_microseconds(new.window.not_before()), whole_microseconds(new.window.not_after()))?;
    if window.not_after() <= now {
        return Err(GrantError::NotInFuture { not_after: window.not_after() });
    }

    policy_version::raise(tx).await?; // a session about to end may go on under this one
    let mut people = Vec::with_capacity(new.people.len());
    for name in new.people {
        people.push(person(tx, name).await?);
    }
    people.sort();
    people.dedup();
    let grant = Grant {
        id: GrantId::from_uuid(Uuid::now_v7()),
        people,
        terms: new.terms,
        window,
        reason,
        ticket,
        template,
        created_by: audit::person(actor),
        created_at: now,
        revoked: None,
    };
    grants::insert(tx, &grant).await?;
    note_hand(tx, actor, grant.id).await?;
    let made = Act::GrantMade {
        grant: grant.id,
        people: grant.people.clone(),
        terms: grant.terms.clone(),
        window: grant.window,
        reason: grant.reason.clone(),
        template: grant.template.clone(),
    };
    audit::append(tx, now, actor, made).await?;
    Ok(grant)
}

/// Grants that the filter lets through, those that end last first.
pub async fn list(app: &App, filter: &GrantFilter) -> Result<Vec<Grant>, GrantError> {
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    let principal = match filter.person.clone() {
        Some(name) => Some(person(&mut tx, name).await?),
        None => None,
    };
    let target = match &filter.target {
        Some(name) => {
            let found = targets::find(&mut tx, name).await?;
            Some(found.ok_or_else(|| GrantError::UnknownTarget { name: name.clone() })?)
        }
        None => None,
    };
    let (open_at, ended_at) = match filter.state {
        GrantState::Active | GrantState::Upcoming => (Some(now), None),
        GrantState::Ended => (None, Some(now)),
        GrantState::All => (None, None),
    };
    let mut found = grants::list(&mut tx, GrantBounds { open_at, ended_at, principal }).await?;
    found.retain(|grant| {
        let in_state = match filter.state {
            GrantState::Active => grant.window.not_before() <= now,
            GrantState::Upcoming => grant.window.not_before() > now,
            GrantState::Ended | GrantState::All => true,
        };
        in_state && target.as_ref().is_none_or(|target| grant.terms.covers(target))
    });
    Ok(found)
}

/// The grant with this id.
pub async fn find(app: &App, id: GrantId) -> Result<Grant, GrantError> {
    grants::find(&mut app.db.read().await?, id).await?.ok_or(GrantError::Unknown { id })
}

/// Moves the end of a grant, forth or back, but not into the past. Live sessions go by the new end at once.
pub async fn extend(
    app: &App,
    actor: &Actor,
    id: GrantId,
    not_after: DateTime<Utc>,
    reason: &str,
    still: Still<'_, Grant>,
) -> Result<Grant, GrantError> {
    let mut tx = app.db.write().await?;
    hold(&mut tx, id, still).await?;
    let grant = extend_in(&mut tx, app.clock.now(), actor, id, not_after, reason).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(grant)
}

/// Moves the end of a grant within a transaction. After the commit, [`App::changes`] must be told.
pub(crate) async fn extend_in(
    tx: &mut Tx,
    now: DateTime<Utc>,
    actor: &Actor,
    id: GrantId,
    not_after: DateTime<Utc>,
    reason: &str,
) -> Result<Grant, GrantError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let not_after = whole_microseconds(not_after);
    policy_version::raise(tx).await?;
    if not_after <= now {
        return Err(GrantError::NotInFuture { not_after });
    }
    let Some(grant) = grants::extend(tx, id, not_after, now).await? else {
        let grant = grants::find(tx, id).await?.ok_or(GrantError::Unknown { id })?;
        if let Some(revocation) = grant.revoked {
            return Err(GrantError::Revoked { id, at: revocation.at });
        }
        Window::new(grant.window.not_before(), not_after)?;
        return Err(GrantError::Ended { id, at: grant.window.not_after() });
    };
    note_hand(tx, actor, id).await?;
    audit::append(tx, now, actor, Act::GrantExtended { grant: id, not_after, reason }).await?;
    Ok(grant)
}

/// Lets nobody else change the policy, this grant's part of it included, until the end of the transaction.
async fn hold(tx: &mut Tx, id: GrantId, still: Still<'_, Grant>) -> Result<(), GrantError> {
    policy_version::raise(tx).await?;
    if still.is_some() {
        let grant = grants::find(tx, id).await?.ok_or(GrantError::Unknown { id })?;
        if is_changed(still, &grant) {
            return Err(GrantError::Changed { id });
        }
    }
    Ok(())
}

/// Who had a hand in a grant reviews no session under it.
pub(crate) async fn note_hand(tx: &mut Tx, actor: &Actor, grant: GrantId) -> Result<(), DbError> {
    match audit::person(actor) {
        Some(person) => reviews::note_hand(tx, grant, person).await,
        None => Ok(()),
    }
}

/// Takes a grant back. Live sessions under it are cut.
pub async fn revoke(
    app: &App,
    actor: &Actor,
    id: GrantId,
    reason: &str,
    still: Still<'_, Grant>,
) -> Result<Grant, GrantError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    hold(&mut tx, id, still).await?;
    let now = app.clock.now();
    let Some(grant) = grants::revoke(&mut tx, id, now, audit::person(actor), &reason).await? else {
        let grant = grants::find(&mut tx, id).await?.ok_or(GrantError::Unknown { id })?;
        let at = grant.revoked.map_or(now, |revocation| revocation.at);
        return Err(GrantError::Revoked { id, at });
    };
    audit::append(&mut tx, now, actor, Act::GrantRevoked { grant: id, reason }).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(grant)
}

/// The names of the targets that the terms mean at present, to be shown before a grant is made.
pub async fn matching_targets(app: &App, terms: &Terms) -> Result<Vec<TargetName>, GrantError> {
    let all = targets::list(&mut app.db.read().await?).await?;
    Ok(all.into_iter().filter(|target| terms.covers(target)).map(|target| target.name).collect())
}

pub(crate) async fn person(tx: &mut Tx, name: PrincipalName) -> Result<PrincipalId, GrantError> {
    match principals::find(tx, &name).await? {
        Some(record) => Ok(record.principal.id),
        None => Err(GrantError::UnknownPerson { name }),
    }
}

fn some_but_not_too_many(many: &'static str, one: &'static str, count: usize) -> Result<(), GrantError> {
    match count {
        0 => Err(GrantError::Missing { what: one }),
        1..=MOST => Ok(()),
        _ => Err(GrantError::TooMany { what: many, most: MOST }),
    }
}

fn check_terms(terms: &Terms) -> Result<(), GrantError> {
    some_but_not_too_many("targets", "target", terms.targets.len())?;
    some_but_not_too_many("logins", "login", terms.logins.len())?;
    check_open_terms(terms)
}

/// Whether the terms may be a template's, which may leave targets and logins open.
pub(crate) fn check_open_terms(terms: &Terms) -> Result<(), GrantError> {
    let Terms {
        targets,
        logins,
        capabilities,
        source_networks,
        max_sessions,
        second_factor: _,
        approval: _,
        files,
        commands,
        forwarding,
        review: _,
    } = terms;
    if logins.len() > MOST {
        return Err(GrantError::TooMany { what: "logins", most: MOST });
    }
    if source_networks.len() > MOST {
        return Err(GrantError::TooMany { what: "source networks", most: MOST });
    }
    if *max_sessions == Some(0) {
        return Err(GrantError::NoSessions);
    }
    check_files(files)?;
    check_commands(commands, capabilities)?;
    check_capabilities(capabilities)?;
    if forwarding.from == ForwardFrom::Bastion && capabilities.forwards.iter().any(Destination::is_socket) {
        return Err(GrantError::SocketOfBastion);
    }
    check_lengths(targets)
}

/// Whether the rules for files fit into the event that tells of them.
fn check_files(files: &FileRules) -> Result<(), GrantError> {
    let FileRules { upload, download, upload_sha256, terminal_budget: _ } = files;
    for WayRules { paths, file_bytes: _, total_bytes: _ } in [upload, download] {
        if paths.as_ref().is_some_and(|paths| paths.len() > MOST) {
            return Err(GrantError::TooMany { what: "path patterns each way", most: MOST });
        }
    }
    if upload_sha256.as_ref().is_some_and(|list| list.len() > MOST_HASHES) {
        return Err(GrantError::TooMany { what: "SHA-256", most: MOST_HASHES });
    }
    Ok(())
}

/// Whether the rules for commands fit the capabilities, and the event that tells of them.
fn check_commands(rules: &CommandRules, capabilities: &Capabilities) -> Result<(), GrantError> {
    let CommandRules { exec, flag } = rules;
    if exec.len() > MOST_PATTERNS || flag.len() > MOST_PATTERNS {
        return Err(GrantError::TooMany { what: "patterns of commands", most: MOST_PATTERNS });
    }
    if rules.is_restricted() && (capabilities.shell || !capabilities.exec) {
        return Err(GrantError::PatternsAndShell);
    }
    Ok(())
}

/// Whether the selectors may be stored.
pub(crate) fn check_selectors(targets: &[TargetSelector]) -> Result<(), GrantError> {
    some_but_not_too_many("targets", "target", targets.len())?;
    check_lengths(targets)
}

fn check_lengths(targets: &[TargetSelector]) -> Result<(), GrantError> {
    if targets.len() > MOST {
        return Err(GrantError::TooMany { what: "targets", most: MOST });
    }
    // Selectors are stored as they are written.
    if targets.iter().any(|selector| selector.to_string().len() > 400) {
        return Err(GrantError::Text(TextError::TooLong { what: "target selector", most: 400, length: 401 }));
    }
    Ok(())
}

/// Whether the capabilities allow something, and name their destinations as hosts are named.
pub(crate) fn check_capabilities(capabilities: &Capabilities) -> Result<(), GrantError> {
    let Capabilities { shell, exec, upload, download, forwards } = capabilities;
    if !(*shell || *exec || *upload || *download) && forwards.is_empty() {
        return Err(GrantError::NothingAllowed);
    }
    if forwards.len() > MOST {
        return Err(GrantError::TooMany { what: "forwards", most: MOST });
    }
    let host_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let sound = |host: &str| (1..=253).contains(&host.len()) && host.chars().all(host_character);
    // As long as a Unix socket's path can be (sun_path, with its end).
    let sound_path = |path: &str| path.starts_with('/') && path.len() < 108 && !path.contains(char::is_control);
    let is_sound = |to: &Destination| if to.is_socket() { sound_path(&to.host) } else { sound(&to.host) };
    if !forwards.iter().all(is_sound) {
        return Err(GrantError::Destination);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sallyport_domain::files::FileRules;
    use sallyport_domain::grant::{Approval, Forwarding};

    use super::*;
    use crate::app::people::tests::OPERATOR;
    use crate::app::{people, targets as app_targets};
    use crate::store::db::testing::{app_on, on_both};

    const HOUR: Duration = Duration::from_hours(1);

    fn terms(selector: &str) -> Terms {
        Terms {
            targets: vec![selector.parse().unwrap()],
            logins: vec!["root".parse().unwrap()],
            capabilities: Capabilities { shell: true, ..Capabilities::default() },
            source_networks: vec!["203.0.113.0/24".parse().unwrap()],
            max_sessions: Some(2),
            second_factor: false,
            approval: Approval::None,
            files: FileRules::default(),
            commands: CommandRules::default(),
            forwarding: Forwarding::default(),
            review: None,
        }
    }

    fn for_alice(app: &App, from: Duration, until: Duration) -> NewGrant {
        let now = app.clock.now();
        NewGrant {
            people: vec!["alice".parse().unwrap()],
            terms: terms("web-*"),
            window: Window::new(now + from, now + until).unwrap(),
            reason: "INC-7".to_owned(),
            ticket: Some("INC-7".to_owned()),
        }
    }

    async fn app_with_alice(db: crate::store::db::Db) -> App {
        let app = app_on(db);
        people::add(&app, &OPERATOR, people::tests::named("alice")).await.unwrap();
        app
    }

    async fn ids(app: &App, state: GrantState) -> Vec<GrantId> {
        let filter = GrantFilter { state, ..GrantFilter::default() };
        list(app, &filter).await.unwrap().into_iter().map(|grant| grant.id).collect()
    }

    #[tokio::test]
    async fn a_grant_reads_back_and_is_listed_by_the_part_of_its_life_it_is_in() {
        on_both(|db| async {
            let app = app_with_alice(db).await;
            let active = make(&app, &OPERATOR, for_alice(&app, Duration::ZERO, HOUR)).await.unwrap();
            let upcoming = make(&app, &OPERATOR, for_alice(&app, HOUR, 2 * HOUR)).await.unwrap();

            assert_eq!(find(&app, active.id).await.unwrap(), active);
            assert_eq!(ids(&app, GrantState::Active).await, [active.id]);
            assert_eq!(ids(&app, GrantState::Upcoming).await, [upcoming.id]);

            app.clock.advance(HOUR);

            assert_eq!(ids(&app, GrantState::Ended).await, [active.id], "the end is not part of the window");
            assert_eq!(ids(&app, GrantState::Active).await, [upcoming.id]);
            assert_eq!(ids(&app, GrantState::All).await, [upcoming.id, active.id]);
        })
        .await;
    }

    #[tokio::test]
    async fn grants_are_listed_by_person_and_by_target() {
        on_both(|db| async {
            let app = app_with_alice(db).await;
            people::add(&app, &OPERATOR, people::tests::named("bob")).await.unwrap();
            app_targets::add(&app, &OPERATOR, app_targets::tests::named("web-1")).await.unwrap();
            app_targets::add(&app, &OPERATOR, app_targets::tests::named("db-1")).await.unwrap();
            let grant = make(&app, &OPERATOR, for_alice(&app, Duration::ZERO, HOUR)).await.unwrap();
            let count = async |person: Option<&str>, target: Option<&str>| {
                let person = person.map(|name| name.parse().unwrap());
                let target = target.map(|name| name.parse().unwrap());
                list(&app, &GrantFilter { state: GrantState::All, person, target }).await.map(|found| found.len())
            };

            assert_eq!(count(Some("alice"), None).await.unwrap(), 1);
            assert_eq!(count(Some("bob"), None).await.unwrap(), 0);
            assert_eq!(count(None, Some("web-1")).await.unwrap(), 1);
            assert_eq!(count(None, Some("db-1")).await.unwrap(), 0);
            assert!(matches!(count(Some("eve"), None).await, Err(GrantError::UnknownPerson { .. })));
            let names = matching_targets(&app, &grant.terms).await.unwrap();
            assert_eq!(names.iter().map(TargetName::as_str).collect::<Vec<_>>(), ["web-1"]);
            let mut tx = app.db.read().await.unwrap();
            let alice = grant.people[0];
            assert_eq!(grants::of_principal(&mut tx, alice, app.clock.now()).await.unwrap(), [grant]);
        })
        .await;
    }

    #[tokio::test]
    async fn of_two_that_revoke_at_once_one_wins_and_one_event_is_written() {
        on_both(|db| async {
            let app = app_with_alice(db).await;
            let grant = make(&app, &OPERATOR, for_alice(&app, Duration::ZERO, HOUR)).await.unwrap();
            let told = app.changes.subscribe();

            let (first, second) = tokio::join!(
                revoke(&app, &OPERATOR, grant.id, "one", None),
                revoke(&app, &OPERATOR, grant.id, "two", None)
            );

            let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
            assert!(matches!(lost, Err(GrantError::Revoked { .. })), "{lost:?}");
            assert_eq!(find(&app, grant.id).await.unwrap(), won.unwrap());
            assert!(told.has_changed().unwrap());
            let filter = audit::EventFilter { kind: Some("grant_revoked".to_owned()), ..Default::default() };
            assert_eq!(audit::list(&app, 0, &filter, 10).await.unwrap().len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn the_end_moves_both_ways_but_neither_into_the_past_nor_after_the_end() {
        on_both(|db| async {
            use GrantError as E;
            let app = app_with_alice(db).await;
            let start = app.clock.now();
            let id = make(&app, &OPERATOR, for_alice(&app, Duration::ZERO, HOUR)).await.unwrap().id;
            let move_to = async |at: DateTime<Utc>| extend(&app, &OPERATOR, id, at, "more", None).await;

            assert_eq!(move_to(start + 2 * HOUR).await.unwrap().window.not_after(), start + 2 * HOUR);
            assert_eq!(move_to(start + HOUR / 2).await.unwrap().window.not_after(), start + HOUR / 2);
            assert!(matches!(move_to(start).await, Err(E::NotInFuture { .. })));
            app.clock.advance(HOUR / 2);
            assert!(matches!(move_to(start + 3 * HOUR).await, Err(E::Ended { .. })));
            let other = make(&app, &OPERATOR, for_alice(&app, HOUR, 2 * HOUR)).await.unwrap();
            let early = extend(&app, &OPERATOR, other.id, app.clock.now() + HOUR / 2, "less", None).await;
            assert!(matches!(early, Err(E::EmptyWindow(_))), "{early:?}");
            revoke(&app, &OPERATOR, other.id, "done", None).await.unwrap();
            let late = extend(&app, &OPERATOR, other.id, start + 9 * HOUR, "more", None).await;
            assert!(matches!(late, Err(E::Revoked { .. })), "{late:?}");
            let nowhere = GrantId::from_uuid(Uuid::nil());
            assert!(matches!(
                extend(&app, &OPERATOR, nowhere, start + 9 * HOUR, "x", None).await,
                Err(E::Unknown { .. })
            ));
        })
        .await;
    }

    #[tokio::test]
    async fn a_grant_that_says_too_little_or_too_much_is_refused() {
        on_both(|db| async {
            use GrantError as E;
            let app = app_with_alice(db).await;
            let base = || for_alice(&app, Duration::ZERO, HOUR);
            let refuse = async |new: NewGrant| make(&app, &OPERATOR, new).await.unwrap_err();
            let with = |change: fn(&mut Terms)| {
                let mut new = base();
                change(&mut new.terms);
                new
            };

            assert!(matches!(refuse(NewGrant { people: vec![], ..base() }).await, E::Missing { .. }));
            let eve = vec!["eve".parse().unwrap()];
            assert!(matches!(refuse(NewGrant { people: eve, ..base() }).await, E::UnknownPerson { .. }));
            assert!(matches!(refuse(NewGrant { reason: " ".to_owned(), ..base() }).await, E::Text(_)));
            assert!(matches!(refuse(NewGrant { reason: "x".repeat(1001), ..base() }).await, E::Text(_)));
            assert!(matches!(refuse(with(|terms| terms.targets.clear())).await, E::Missing { .. }));
            assert!(matches!(refuse(with(|terms| terms.logins.clear())).await, E::Missing { .. }));
            assert!(matches!(refuse(with(|terms| terms.capabilities.shell = false)).await, E::NothingAllowed));
            assert!(matches!(refuse(with(|terms| terms.max_sessions = Some(0))).await, E::NoSessions));
            let new = base();
            app.clock.advance(HOUR);
            assert!(matches!(refuse(new).await, E::NotInFuture { .. }));
            assert_eq!(ids(&app, GrantState::All).await, []);
        })
        .await;
    }
}
