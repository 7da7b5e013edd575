//! What was run in a session. It is found out where recordings are sealed ([`super::recordings`]); here it is read.

use sallyport_domain::id::SessionId;

use crate::app::App;
use crate::store::db::{DbError, commands};

pub use crate::store::db::commands::{After, CommandCounts, CommandRecord};

/// At most `limit` commands of the session behind `after`, in the order in which they began.
pub async fn of_session(
    app: &App,
    session: SessionId,
    after: Option<After>,
    limit: u32,
) -> Result<Vec<CommandRecord>, DbError> {
    commands::list(&mut app.db.read().await?, session, after, limit).await
}

/// How many there are.
pub async fn counts(app: &App, session: SessionId) -> Result<CommandCounts, DbError> {
    commands::counts(&mut app.db.read().await?, session).await
}
