//! `/grants/{id}/evidence` and `/sessions/{id}/evidence`: bundles that prove themselves to outsiders.
//!
//! Making one may take minutes, longer than an answer may wait to begin. So the answer begins at once; if a bundle cannot be
//! made after all, four bytes of 0xff and a problem as JSON come in its place.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use sallyport_domain::event::Actor;
use sallyport_domain::id::{GrantId, SessionId};

use super::ApiState;
use super::access::{May, Replay};
use super::error::{ApiError, Problem};
use super::extract::Path;
use super::replay::BROKEN_OFF;
use crate::app::App;
use crate::app::evidence::{self, Bundle, EvidenceError, Subject};

/// Everything about a grant, in one file (`docs/formats.md`). Making it is an event.
#[utoipa::path(post, path = "/grants/{id}/evidence", operation_id = "evidence_of_grant", tag = "evidence",
    params(("id" = String, Path)), responses(
    (status = OK, body = Vec<u8>, content_type = "application/zip"),
    (status = "default", body = Problem),
))]
pub(super) async fn of_grant(
    may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<GrantId>,
) -> Result<Response, ApiError> {
    answer(state.app, may.actor(), Subject::Grant(id), id.to_string()).await
}

/// Everything about one session, in one file (`docs/formats.md`). Making it is an event.
#[utoipa::path(post, path = "/sessions/{id}/evidence", operation_id = "evidence_of_session", tag = "evidence",
    params(("id" = String, Path)), responses(
    (status = OK, body = Vec<u8>, content_type = "application/zip"),
    (status = "default", body = Problem),
))]
pub(super) async fn of_session(
    may: May<Replay>,
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
) -> Result<Response, ApiError> {
    answer(state.app, may.actor(), Subject::Session(id), id.to_string()).await
}

async fn answer(app: App, actor: Actor, subject: Subject, name: String) -> Result<Response, ApiError> {
    evidence::check(&app, subject).await?;
    let file = format!("attachment; filename=\"evidence-{name}.zip\"");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (header::CONTENT_DISPOSITION, HeaderValue::try_from(file).map_err(ApiError::internal)?),
    ];
    Ok((headers, Body::from_stream(made(app, actor, subject))).into_response())
}

enum Making {
    Begin(Box<(App, Actor, Subject)>),
    Going(Box<Bundle>),
    Over,
}

/// The bundle's bytes, a piece at a time and the next only once that one was taken.
fn made(app: App, actor: Actor, subject: Subject) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::unfold(Making::Begin(Box::new((app, actor, subject))), async |making| {
        let mut bundle = match making {
            Making::Over => return None,
            Making::Going(bundle) => bundle,
            Making::Begin(wanted) => {
                let (app, actor, subject) = *wanted;
                match evidence::make(&app, &actor, subject).await {
                    Ok(bundle) => Box::new(bundle),
                    Err(error) => return Some((Ok(refusal(error)), Making::Over)),
                }
            }
        };
        let read = tokio::task::spawn_blocking(move || bundle.piece().map(|piece| (piece, bundle))).await;
        match read.map_err(std::io::Error::other).flatten() {
            Ok((Some(piece), bundle)) => Some((Ok(piece.into()), Making::Going(bundle))),
            Ok((None, _)) => None,
            Err(error) => Some((Err(error), Making::Over)),
        }
    })
}

fn refusal(error: EvidenceError) -> Bytes {
    let problem = ApiError::from(error).into_problem();
    let mut bytes = BROKEN_OFF.to_vec();
    bytes.extend(serde_json::to_vec(&problem).unwrap_or_default());
    bytes.into()
}
