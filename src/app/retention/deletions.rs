//! Deletions: one person asks, or a rule does, and somebody else says yes. The yes writes the tombstones; what they tell of is removed
//! after that ([`super::removal`]).

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{DeletionId, SessionId};
use sallyport_domain::principal::Principal;
use sallyport_domain::retention::had_its_hands;
use uuid::Uuid;

use super::{RetentionError, is_own, turn};
use crate::app::{App, Still, audit, is_changed, text};
use crate::store::db::{DbError, Tx, deletions, holds, manifests, sessions};

pub use crate::store::db::deletions::{Answer, Deletion, DeletionSession, Stage};

/// A deletion with the sessions that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    pub deletion: Deletion,
    pub sessions: Vec<DeletionSession>,
}

/// Asks for the deletion of what was recorded in a session.
pub async fn ask(app: &App, person: &Principal, session: SessionId, reason: &str) -> Result<Whole, RetentionError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    turn(&mut tx).await?;
    let record = sessions::find(&mut tx, session).await?.ok_or(RetentionError::NoSession(session))?;
    if is_own(&mut tx, person.id, &record).await? {
        return Err(RetentionError::OwnSession(session));
    }
    if !manifests::is_sealed(&mut tx, session).await? || manifests::find(&mut tx, session).await?.is_none() {
        return Err(RetentionError::NotSealed(session));
    }
    if let Some(hold) = holds::of_session(&mut tx, session).await? {
        return Err(RetentionError::Held { session, hold });
    }
    match deletions::of_session(&mut tx, session).await? {
        Some((deletion, Stage::Asked)) => return Err(RetentionError::AskedAlready { session, deletion }),
        Some((deletion, Stage::Deleting | Stage::Deleted)) => return Err(RetentionError::Gone { session, deletion }),
        Some((_, Stage::Kept)) | None => {}
    }
    let actor = actor_of(person);
    let deletion = ask_in(&mut tx, app.clock.now(), &actor, &reason, &[(session, None)]).await?;
    let whole = whole(&mut tx, deletion).await?;
    tx.commit().await?;
    Ok(whole)
}

/// Writes down that these sessions' recordings are to go, with the rules that make them due. Nobody may have asked for them before.
pub(super) async fn ask_in(
    tx: &mut Tx,
    now: DateTime<Utc>,
    actor: &Actor,
    reason: &str,
    wanted: &[(SessionId, Option<String>)],
) -> Result<DeletionId, DbError> {
    let id = DeletionId::from_uuid(Uuid::now_v7());
    let deletion = Deletion { id, reason: reason.to_owned(), asked_by: actor.clone(), asked_at: now, answer: None };
    deletions::insert(tx, &deletion).await?;
    for (session, rule) in wanted {
        deletions::insert_session(tx, id, *session, rule.as_deref(), now).await?;
        let act = Act::DeletionAsked { deletion: id, session: *session, rule: rule.clone(), reason: reason.to_owned() };
        audit::append(tx, now, actor, act).await?;
    }
    Ok(id)
}

/// Says yes. Neither who asked may, nor whom a grant of these sessions names. What is held by now stays.
pub async fn approve(
    app: &App,
    person: &Principal,
    id: DeletionId,
    still: Still<'_, Whole>,
) -> Result<Whole, RetentionError> {
    let mut tx = app.db.write().await?;
    turn(&mut tx).await?;
    let now = app.clock.now();
    let deletion = open(&mut tx, id, still).await?;
    let actor = actor_of(person);
    let is_by_rule = deletion.asked_by == Actor::Bastion;
    if !had_its_hands(&deletion.asked_by, &actor, is_by_rule) {
        return Err(RetentionError::SamePerson);
    }
    for found in deletions::sessions(&mut tx, id).await? {
        let record = sessions::find(&mut tx, found.session).await?;
        let record = record.ok_or(RetentionError::NoSession(found.session))?;
        if is_own(&mut tx, person.id, &record).await? {
            return Err(RetentionError::OwnSession(found.session));
        }
    }
    approve_in(&mut tx, now, &actor, &deletion).await?;
    let whole = whole(&mut tx, id).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(whole)
}

/// Writes the yes and the tombstones.
pub(super) async fn approve_in(
    tx: &mut Tx,
    now: DateTime<Utc>,
    actor: &Actor,
    deletion: &Deletion,
) -> Result<(), RetentionError> {
    let id = deletion.id;
    let answer = Answer { by: actor.clone(), at: now, refusal: None };
    if !deletions::answer(tx, id, &answer).await? {
        return Err(RetentionError::Answered(id));
    }
    for DeletionSession { session, rule, .. } in deletions::sessions(tx, id).await? {
        let kept = match holds::of_session(tx, session).await? {
            Some(hold) => Some(format!("legal hold {hold}")),
            None if deletions::settle(tx, session).await? => None,
            None => Some("a node that was lost completes it just now: ask again".to_owned()),
        };
        if let Some(reason) = kept {
            deletions::keep(tx, id, session, now).await?;
            audit::append(tx, now, actor, Act::DeletionRefused { deletion: id, session, reason }).await?;
            continue;
        }
        let manifest = manifests::find(tx, session).await?.ok_or(RetentionError::NotSealed(session))?;
        let act = Act::RecordingsDeleted {
            deletion: id,
            session,
            manifest: Hash::of(&manifest),
            asked_by: deletion.asked_by.clone(),
            rule,
            reason: deletion.reason.clone(),
        };
        let tombstone = audit::append(tx, now, actor, act).await?;
        deletions::begin(tx, id, session, now, tombstone).await?;
    }
    Ok(())
}

/// Says no, or takes one's own wish back: to keep something one hand is enough.
pub async fn refuse(
    app: &App,
    actor: &Actor,
    id: DeletionId,
    reason: &str,
    still: Still<'_, Whole>,
) -> Result<Whole, RetentionError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    turn(&mut tx).await?;
    let now = app.clock.now();
    open(&mut tx, id, still).await?;
    let answer = Answer { by: actor.clone(), at: now, refusal: Some(reason.clone()) };
    deletions::answer(&mut tx, id, &answer).await?;
    for DeletionSession { session, .. } in deletions::sessions(&mut tx, id).await? {
        deletions::keep(&mut tx, id, session, now).await?;
        let act = Act::DeletionRefused { deletion: id, session, reason: reason.clone() };
        audit::append(&mut tx, now, actor, act).await?;
    }
    let whole = whole(&mut tx, id).await?;
    tx.commit().await?;
    Ok(whole)
}

/// The deletion with this id.
pub async fn find(app: &App, id: DeletionId) -> Result<Whole, RetentionError> {
    whole(&mut app.db.read().await?, id).await
}

/// At most `limit` deletions, the latest first, each with how many sessions are at which stage.
pub async fn list(
    app: &App,
    open: bool,
    before: Option<DeletionId>,
    limit: u32,
) -> Result<Vec<(Deletion, Vec<(Stage, u64)>)>, RetentionError> {
    let mut tx = app.db.read().await?;
    let mut all = Vec::new();
    for deletion in deletions::list(&mut tx, open, before, limit).await? {
        let mut counts: Vec<(Stage, u64)> = deletions::counts(&mut tx, deletion.id).await?.into_iter().collect();
        counts.sort_unstable();
        all.push((deletion, counts));
    }
    Ok(all)
}

/// A deletion that can be answered. The turn is ours, so nobody else answers it meanwhile.
async fn open(tx: &mut Tx, id: DeletionId, still: Still<'_, Whole>) -> Result<Deletion, RetentionError> {
    let found = whole(tx, id).await?;
    if is_changed(still, &found) {
        return Err(RetentionError::Changed(id));
    }
    let deletion = found.deletion;
    if deletion.answer.is_some() { Err(RetentionError::Answered(id)) } else { Ok(deletion) }
}

async fn whole(tx: &mut Tx, id: DeletionId) -> Result<Whole, RetentionError> {
    let deletion = deletions::find(tx, id).await?.ok_or(RetentionError::NoDeletion(id))?;
    Ok(Whole { deletion, sessions: deletions::sessions(tx, id).await? })
}

fn actor_of(person: &Principal) -> Actor {
    Actor::Principal { id: person.id, name: person.name.clone() }
}
