//! Which recordings there are, and what is known of them without reading them.

use sallyport_domain::id::{RecordingId, SessionId};

use crate::app::App;
use crate::store::db::{DbError, recordings};

pub use crate::store::db::recordings::RecordingRecord;

/// What the session's channels did, in the order in which they were opened. A session that is unknown has none.
pub async fn of_session(app: &App, session: SessionId) -> Result<Vec<RecordingRecord>, DbError> {
    recordings::of_session(&mut app.db.read().await?, session).await
}

/// The recording with this id.
pub async fn find(app: &App, id: RecordingId) -> Result<Option<RecordingRecord>, DbError> {
    recordings::find(&mut app.db.read().await?, id).await
}
