//! `/break-glass`: sealed envelopes, each a grant that its node opens once, with or without the database.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::grant::TargetSelector;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{EnvelopeId, GrantId};
use sallyport_domain::name::{Login, PrincipalName, TargetName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Look, May, Operate};
use super::error::{ApiError, Problem};
use super::extract::{Body, Path};
use super::grants::{Allow, Reason};
use super::people::PersonRef;
use crate::app::audit;
use crate::app::break_glass::{self, EnvelopeRecord, NewEnvelope};

/// An envelope that was made; never the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Envelope {
    #[schema(value_type = String)]
    pub id: EnvelopeId,
    pub state: EnvelopeState,
    /// SHA-256 of the file.
    #[schema(value_type = String)]
    pub document: Hash,
    pub person: PersonRef,
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetSelector>,
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    pub allow: Allow,
    pub max_sessions: Option<u32>,
    /// How long its grant lasts once it was opened.
    pub lasting_seconds: u32,
    /// The one node that opens it.
    pub node: String,
    pub reason: String,
    /// In words.
    pub made_by: String,
    pub made_at: DateTime<Utc>,
    /// The first instant at which it opens nothing any more.
    pub not_after: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub opened_at: Option<DateTime<Utc>>,
    /// What it became.
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
}

/// What became of an envelope, as far as the database knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvelopeState {
    Sealed,
    Opened,
    Revoked,
    Ended,
}

impl EnvelopeState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            EnvelopeState::Sealed => "sealed",
            EnvelopeState::Opened => "opened",
            EnvelopeState::Revoked => "revoked",
            EnvelopeState::Ended => "ended",
        }
    }
}

/// An envelope to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeEnvelope {
    #[schema(value_type = String)]
    pub person: PrincipalName,
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetName>,
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    /// A shell and single commands where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// Sessions that may be open at once, 4 at most; 1 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// How long its grant lasts once it was opened, an hour at most.
    pub lasting_seconds: u32,
    /// The first instant at which it opens nothing any more, a year from now at most.
    pub not_after: DateTime<Utc>,
    /// The one node that opens it.
    pub node: String,
    pub reason: String,
}

/// A new envelope. The file is kept nowhere else.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeEnvelope {
    #[schema(value_type = String)]
    pub id: EnvelopeId,
    pub file: String,
    /// SHA-256 of the file.
    #[schema(value_type = String)]
    pub document: Hash,
    /// What verifies it.
    pub key: String,
}

/// An envelope to open.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenEnvelope {
    pub file: String,
    pub reason: String,
}

/// A grant that came out of an envelope.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OpenedEnvelope {
    #[schema(value_type = String)]
    pub id: EnvelopeId,
    #[schema(value_type = String)]
    pub person: PrincipalName,
    #[schema(value_type = String)]
    pub grant: GrantId,
    pub not_after: DateTime<Utc>,
    /// Accounts as `login@target`.
    pub accounts: Vec<String>,
    /// Whether the database has the grant. If not, it is this node's alone until the database answers.
    pub in_database: bool,
    /// Where to connect.
    pub ssh_host: String,
    pub ssh_port: u16,
}

fn shape(record: EnvelopeRecord, now: DateTime<Utc>) -> Envelope {
    let state = match (&record.opened, record.revoked_at) {
        (Some(_), _) => EnvelopeState::Opened,
        (None, Some(_)) => EnvelopeState::Revoked,
        (None, None) if record.not_after <= now => EnvelopeState::Ended,
        (None, None) => EnvelopeState::Sealed,
    };
    let (opened_at, grant) = record.opened.unzip();
    Envelope {
        id: record.id,
        state,
        document: record.document,
        person: PersonRef { id: record.person, name: record.person_name },
        targets: record.terms.targets,
        logins: record.terms.logins,
        allow: record.terms.capabilities.into(),
        max_sessions: record.terms.max_sessions,
        lasting_seconds: record.lasting_seconds,
        node: record.node,
        reason: record.reason,
        made_by: audit::name_of(&record.made_by),
        made_at: record.made_at,
        not_after: record.not_after,
        revoked_at: record.revoked_at,
        opened_at,
        grant,
    }
}

/// Envelopes that were made, the newest first, a thousand at most.
#[utoipa::path(get, path = "/break-glass", operation_id = "break_glass_list", tag = "grants", responses(
    (status = OK, body = [Envelope]),
    (status = "default", body = Problem),
))]
pub(super) async fn list(_may: May<Look>, State(state): State<ApiState>) -> Result<Json<Vec<Envelope>>, ApiError> {
    let now = state.app.clock.now();
    let records = break_glass::list(&state.app).await?;
    Ok(Json(records.into_iter().map(|record| shape(record, now)).collect()))
}

/// Makes an envelope: a grant for one person that the operator of one node opens there, once.
#[utoipa::path(post, path = "/break-glass", operation_id = "break_glass_make", tag = "grants",
    request_body = MakeEnvelope, responses(
    (status = CREATED, body = MadeEnvelope),
    (status = "default", body = Problem),
))]
pub(super) async fn make(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<MakeEnvelope>,
) -> Result<(StatusCode, Json<MadeEnvelope>), ApiError> {
    let MakeEnvelope { person, targets, logins, allow, max_sessions, lasting_seconds, not_after, node, reason } = body;
    let new = NewEnvelope {
        person,
        targets,
        logins,
        capabilities: allow.unwrap_or_else(Allow::usual).into(),
        max_sessions: max_sessions.unwrap_or(1),
        lasting: Duration::from_secs(lasting_seconds.into()),
        not_after,
        node,
        reason,
    };
    let break_glass::MadeEnvelope { id, file, document, key } =
        break_glass::make(&state.app, &may.actor(), new).await?;
    Ok((StatusCode::CREATED, Json(MadeEnvelope { id, file, document, key })))
}

/// Revokes an envelope that was not opened. A node that is cut off from the database does not hear of it.
#[utoipa::path(post, path = "/break-glass/{id}/revoke", operation_id = "break_glass_revoke", tag = "grants",
    params(("id" = String, Path)), request_body = Reason, responses(
    (status = OK, body = Envelope),
    (status = "default", body = Problem),
))]
pub(super) async fn revoke(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<EnvelopeId>,
    Body(body): Body<Reason>,
) -> Result<Json<Envelope>, ApiError> {
    let record = break_glass::revoke(&state.app, &may.actor(), id, &body.reason).await?;
    Ok(Json(shape(record, state.app.clock.now())))
}

/// Opens an envelope on the node that answers, which must be the one that it names. Works while the database is away; for the operator
/// on the node's own host alone.
#[utoipa::path(post, path = "/break-glass/open", operation_id = "break_glass_open", tag = "grants",
    request_body = OpenEnvelope, responses(
    (status = OK, body = OpenedEnvelope),
    (status = "default", body = Problem),
))]
pub(super) async fn open(
    may: May<Operate>,
    State(state): State<ApiState>,
    Body(body): Body<OpenEnvelope>,
) -> Result<Json<OpenedEnvelope>, ApiError> {
    let opened = state.break_glass.open(may.uid()?, body.file.as_bytes(), &body.reason).await?;
    let accounts = opened.envelope.accounts().map(|(target, login)| format!("{login}@{}", target.name)).collect();
    Ok(Json(OpenedEnvelope {
        id: opened.envelope.id,
        person: opened.envelope.person.name.clone(),
        grant: opened.grant.id,
        not_after: opened.grant.window.not_after(),
        accounts,
        in_database: opened.is_in_database,
        ssh_host: state.bastion.ssh_host.clone(),
        ssh_port: state.bastion.ssh_port,
    }))
}
