//! Retention: how long what was recorded is kept, what is held back from deletion, and how it is deleted.
//!
//! ```text
//! a person, or a rule, asks ──► somebody else says yes: tombstone (event) ──► signed ──► objects ──► rows ──► deleted
//! ```
//!
//! - [`holds`]: legal holds, which nothing gets past.
//! - [`deletions`]: asking and answering; one person does not do both.
//! - [`rules`]: what is due by age.
//! - [`removal`]: objects and rows go, as often as it takes.
//!
//! Manifests, events and the rows that they prove stay: what was deleted is told from what is missing.

pub mod deletions;
pub mod holds;
pub mod removal;
pub mod rules;
#[cfg(test)]
pub(crate) mod tests;

use sallyport_domain::id::{DeletionId, GrantId, HoldId, PrincipalId, SessionId, TargetId};

use crate::app::text::TextError;
use crate::store::db::{DbError, Tx, grants, sessions};

/// Why holds and deletions were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("there is no session {0}")]
    NoSession(SessionId),
    #[error("there is no grant {0}")]
    NoGrant(GrantId),
    #[error("there is no target {0}")]
    NoTarget(TargetId),
    #[error("there is no legal hold {0}")]
    NoHold(HoldId),
    #[error("legal hold {0} was released before")]
    Released(HoldId),
    #[error("there is no deletion {0}")]
    NoDeletion(DeletionId),
    #[error("deletion {0} was answered before")]
    Answered(DeletionId),
    #[error("deletion {0} changed meanwhile: look at it again")]
    Changed(DeletionId),
    #[error("session {session} is held by legal hold {hold}: nothing deletes what was recorded in it")]
    Held { session: SessionId, hold: HoldId },
    #[error("session {0} has not come to rest: it lives, or ended just now, or is older than manifests")]
    NotSealed(SessionId),
    #[error("deletion {deletion} is about session {session} already")]
    AskedAlready { session: SessionId, deletion: DeletionId },
    #[error("what was recorded in session {session} is deleted already, or is being deleted, by deletion {deletion}")]
    Gone { session: SessionId, deletion: DeletionId },
    #[error("a deletion takes two people: who asks does not approve, nor with another token; ask somebody else")]
    SamePerson,
    #[error("nobody has a hand in deleting what was recorded under a grant that names them (session {0})")]
    OwnSession(SessionId),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Whether the person is in the session, or named by its grant.
async fn is_own(tx: &mut Tx, person: PrincipalId, session: &sessions::SessionRecord) -> Result<bool, DbError> {
    if session.session.principal == person {
        return Ok(true);
    }
    let grant = grants::find(tx, session.session.grant).await?;
    Ok(grant.is_some_and(|grant| grant.people.contains(&person)))
}

/// Lets nobody else change holds or deletions until the transaction ends.
async fn turn(tx: &mut Tx) -> Result<(), DbError> {
    crate::store::db::holds::take_turn(tx).await
}
