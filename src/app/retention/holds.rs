//! Legal holds: what was recorded in a session, under a grant or on a target stays, whoever asks and whichever rule says otherwise.
//! Setting and releasing one are events.

use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::HoldId;
use sallyport_domain::retention::HoldSubject;
use uuid::Uuid;

use super::{RetentionError, turn};
use crate::app::{App, audit, text};
use crate::store::db::deletions::Stage;
use crate::store::db::{Tx, deletions, grants, holds, sessions, targets};

pub use crate::store::db::holds::{Hold, Released};

/// Sets a hold. There may be several on one thing, each for a matter of its own; what is being deleted already cannot be held.
pub async fn set(app: &App, actor: &Actor, subject: HoldSubject, reason: &str) -> Result<Hold, RetentionError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    turn(&mut tx).await?;
    check(&mut tx, subject).await?;
    let now = app.clock.now();
    let id = HoldId::from_uuid(Uuid::now_v7());
    let hold = Hold { id, subject, reason: reason.clone(), set_by: actor.clone(), set_at: now, released: None };
    holds::insert(&mut tx, &hold).await?;
    audit::append(&mut tx, now, actor, Act::HoldSet { hold: id, subject, reason }).await?;
    tx.commit().await?;
    Ok(hold)
}

async fn check(tx: &mut Tx, subject: HoldSubject) -> Result<(), RetentionError> {
    match subject {
        HoldSubject::Session(session) => {
            sessions::find(tx, session).await?.ok_or(RetentionError::NoSession(session))?;
            match deletions::of_session(tx, session).await? {
                Some((deletion, Stage::Deleting | Stage::Deleted)) => Err(RetentionError::Gone { session, deletion }),
                Some((_, Stage::Asked | Stage::Kept)) | None => Ok(()),
            }
        }
        HoldSubject::Grant(grant) => grants::find(tx, grant).await?.map(drop).ok_or(RetentionError::NoGrant(grant)),
        HoldSubject::Target(target) => {
            targets::find_by_id(tx, target).await?.map(drop).ok_or(RetentionError::NoTarget(target))
        }
    }
}

/// Releases a hold. What was due meanwhile is asked for again.
pub async fn release(app: &App, actor: &Actor, id: HoldId, reason: &str) -> Result<Hold, RetentionError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    turn(&mut tx).await?;
    let now = app.clock.now();
    let released = Released { by: actor.clone(), at: now, reason: reason.clone() };
    if !holds::release(&mut tx, id, &released).await? {
        holds::find(&mut tx, id).await?.ok_or(RetentionError::NoHold(id))?;
        return Err(RetentionError::Released(id));
    }
    let hold = holds::find(&mut tx, id).await?.ok_or(RetentionError::NoHold(id))?;
    audit::append(&mut tx, now, actor, Act::HoldReleased { hold: id, subject: hold.subject, reason }).await?;
    tx.commit().await?;
    Ok(hold)
}

/// At most `limit` holds, the latest first; with `released` also those that were released.
pub async fn list(app: &App, released: bool, before: Option<HoldId>, limit: u32) -> Result<Vec<Hold>, RetentionError> {
    Ok(holds::list(&mut app.db.read().await?, released, before, limit).await?)
}
