//! Sessions: what there was, what there is, and the wish to cut one.

use sallyport_domain::event::{Act, Actor, CutReason};
use sallyport_domain::id::SessionId;
use uuid::Uuid;

use crate::app::text::{self, TextError};
use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, policy_version, sessions};

pub use crate::store::db::sessions::{SessionFilter, SessionRecord};

/// The most sessions that one call lists.
pub const MOST_SESSIONS: u32 = 1000;

/// Why there is no answer about a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("there is no session {id}")]
    Unknown { id: SessionId },
    #[error("session {id} has ended")]
    Ended { id: SessionId },
    #[error("session {id} is not held")]
    NotHeld { id: SessionId },
    #[error("messages to session {id} wait for its node already")]
    TooManyMessages { id: SessionId },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// At most `limit` sessions, the latest first.
pub async fn list(app: &App, filter: &SessionFilter, limit: u32) -> Result<Vec<SessionRecord>, SessionError> {
    Ok(sessions::list(&mut app.db.read().await?, filter, limit.min(MOST_SESSIONS)).await?)
}

/// The session with this id.
pub async fn find(app: &App, id: SessionId) -> Result<SessionRecord, SessionError> {
    sessions::find(&mut app.db.read().await?, id).await?.ok_or(SessionError::Unknown { id })
}

/// Asks the node that serves the session to cut it; it does so at its next look, within a second. To ask again is no
/// error, and the first reason stays.
pub async fn request_cut(app: &App, actor: &Actor, id: SessionId, reason: &str) -> Result<(), SessionError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    let cut = CutReason::Admin { by: audit::name_of(actor), reason: reason.clone() };
    if !sessions::request_cut(&mut tx, id, &cut).await? {
        let record = sessions::find(&mut tx, id).await?.ok_or(SessionError::Unknown { id })?;
        return if record.ended.is_some() { Err(SessionError::Ended { id }) } else { Ok(()) };
    }
    audit::append(&mut tx, app.clock.now(), actor, Act::CutRequested { session: id, reason }).await?;
    policy_version::raise(&mut tx).await?; // other nodes find the wish at their sweep, should they miss the telling
    tx.commit().await?;
    app.changes.notify();
    Ok(())
}

/// Asks the node that serves the session to let it stand still: nothing of the client's goes to the target, and nothing of the target's
/// to the client, until [`release`]. To ask again is no error, and the first reason stays.
pub async fn hold(app: &App, actor: &Actor, id: SessionId, reason: &str) -> Result<(), SessionError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    if !sessions::hold(&mut tx, id, &reason).await? {
        return live(&mut tx, id).await;
    }
    tell(app, tx, actor, Act::SessionHeld { session: id, reason }).await
}

/// Lets a held session go on. One that lacks its watcher stands still all the same.
pub async fn release(app: &App, actor: &Actor, id: SessionId) -> Result<(), SessionError> {
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    if !sessions::release(&mut tx, id).await? {
        live(&mut tx, id).await?;
        return Err(SessionError::NotHeld { id });
    }
    tell(app, tx, actor, Act::SessionReleased { session: id }).await
}

/// Says something to whoever is at the session's terminals.
pub async fn send(app: &App, actor: &Actor, id: SessionId, words: &str) -> Result<(), SessionError> {
    let words = text::check("message", words, MOST_MESSAGE)?;
    let mut tx = app.db.write().await?;
    policy_version::raise(&mut tx).await?;
    if !sessions::send(&mut tx, id, Uuid::now_v7(), &format!("{}: {words}", audit::name_of(actor))).await? {
        live(&mut tx, id).await?;
        return Err(SessionError::TooManyMessages { id });
    }
    tell(app, tx, actor, Act::MessageSent { session: id, text: words }).await
}

/// The most characters of a message: it is one line on a terminal.
const MOST_MESSAGE: usize = 160;

async fn live(tx: &mut Tx, id: SessionId) -> Result<(), SessionError> {
    let record = sessions::find(tx, id).await?.ok_or(SessionError::Unknown { id })?;
    if record.ended.is_some() { Err(SessionError::Ended { id }) } else { Ok(()) }
}

async fn tell(app: &App, mut tx: Tx, actor: &Actor, act: Act) -> Result<(), SessionError> {
    audit::append(&mut tx, app.clock.now(), actor, act).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(())
}
