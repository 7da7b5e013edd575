//! `/ledger`: signed checkpoints, proofs and tiles, for verifiers that do not trust the bastion.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use sallyport_domain::id::EventId;
use sallyport_domain::ledger::note::VerifierKey;
use sallyport_domain::ledger::tile::{TILE_WIDTH, TileId, encode_tile};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::access::{Known, Look, May};
use super::error::{ApiError, Problem};
use super::extract::{Path, Query};
use crate::app::ledger::anchors::AnchorState;
use crate::app::ledger::proofs::{self, Which};

/// Where the ledger stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// How many events are signed.
    pub size: u64,
    /// When the last checkpoint was signed.
    pub signed_at: Option<DateTime<Utc>>,
    /// Events that have no place yet, and since when the oldest waits.
    pub waiting: u64,
    pub waiting_since: Option<DateTime<Utc>>,
    /// How each anchor of each node does.
    pub anchors: Vec<Anchor>,
}

/// A place outside, and how far checkpoints have come there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Anchor {
    pub node: String,
    /// `file`, `blobs`, `syslog` or `webhook`.
    pub name: String,
    /// How many events the last checkpoint stands for that got there.
    pub size: u64,
    pub at: Option<DateTime<Utc>>,
    /// Why the last try failed, and since when every try has.
    pub error: Option<String>,
    pub failing_since: Option<DateTime<Utc>>,
    /// It has failed for longer than is borne.
    pub late: bool,
}

/// A key that signs checkpoints, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerKey {
    /// C2SP signed-note: `name+id+base64`.
    pub vkey: String,
    /// SHA-256, in hex: what people compare.
    pub fingerprint: String,
    pub created_at: DateTime<Utc>,
    pub retired_at: Option<DateTime<Utc>>,
    /// The largest tree that a retired key may have signed.
    pub last_size: Option<u64>,
}

/// Which checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct CheckpointQuery {
    /// How many events it is to stand for; the latest where it is left out.
    pub size: Option<u64>,
}

/// Which event, in which tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct InclusionQuery {
    /// The event by its reference, `e-…`.
    #[param(value_type = Option<String>)]
    pub event: Option<EventId>,
    /// Or by its place, from 0.
    pub index: Option<u64>,
    /// The number of events in the tree; that of the latest checkpoint where it is left out.
    pub size: Option<u64>,
}

/// Which two trees.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ConsistencyQuery {
    /// The number of events in the smaller tree.
    pub from: u64,
    /// The number of events in the larger one; that of the latest checkpoint where it is left out.
    pub to: Option<u64>,
}

/// The proof that an event is in a tree (RFC 9162 §2.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inclusion {
    /// The event's place, from 0.
    pub index: u64,
    pub size: u64,
    /// The event's canonical bytes, as they are hashed.
    pub entry: String,
    /// PATH, in hex.
    pub path: Vec<String>,
    /// The signed checkpoint of this size, if there is one.
    pub checkpoint: Option<String>,
}

/// The proof that a tree begins with another (RFC 9162 §2.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Consistency {
    pub from: u64,
    pub to: u64,
    /// PROOF, in hex.
    pub path: Vec<String>,
}

/// Where the ledger stands: how much is signed, and what waits.
#[utoipa::path(get, path = "/ledger", operation_id = "ledger_show", tag = "ledger", responses(
    (status = OK, body = Ledger),
    (status = "default", body = Problem),
))]
pub(super) async fn show(_may: May<Look>, State(state): State<ApiState>) -> Result<Json<Ledger>, ApiError> {
    let standing = proofs::standing(&state.app).await?;
    Ok(Json(Ledger {
        size: standing.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size),
        signed_at: standing.checkpoint.map(|checkpoint| checkpoint.at),
        waiting: standing.waiting,
        waiting_since: standing.waiting_since,
        anchors: standing.anchors.into_iter().map(shape_anchor).collect(),
    }))
}

fn shape_anchor(state: AnchorState) -> Anchor {
    let AnchorState { node, name, size, at, error, failing_since, late } = state;
    Anchor { node, name, size, at, error, failing_since, late }
}

/// The public keys that sign checkpoints, the oldest first.
#[utoipa::path(get, path = "/ledger/keys", operation_id = "ledger_keys", tag = "ledger", responses(
    (status = OK, body = Vec<LedgerKey>),
    (status = "default", body = Problem),
))]
pub(super) async fn keys(_may: May<Known>, State(state): State<ApiState>) -> Result<Json<Vec<LedgerKey>>, ApiError> {
    let shape = |key: crate::app::ledger::LedgerKey| {
        let parsed: VerifierKey = key.vkey.parse().map_err(ApiError::internal)?;
        let (retired_at, last_size) = key.retired.unzip();
        let fingerprint = parsed.fingerprint().to_string();
        Ok(LedgerKey { vkey: key.vkey, fingerprint, created_at: key.created_at, retired_at, last_size })
    };
    proofs::keys(&state.app).await?.into_iter().map(shape).collect::<Result<_, ApiError>>().map(Json)
}

/// A signed checkpoint, as a C2SP signed note.
#[utoipa::path(get, path = "/ledger/checkpoint", operation_id = "ledger_checkpoint", tag = "ledger",
    params(CheckpointQuery), responses(
    (status = OK, body = String, content_type = "text/plain"),
    (status = "default", body = Problem),
))]
pub(super) async fn checkpoint(
    _may: May<Known>,
    State(state): State<ApiState>,
    Query(query): Query<CheckpointQuery>,
) -> Result<impl IntoResponse, ApiError> {
    let stored = proofs::checkpoint(&state.app, query.size).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], stored.note))
}

/// The proof that an event is in the ledger.
#[utoipa::path(get, path = "/ledger/proof/inclusion", operation_id = "ledger_inclusion", tag = "ledger",
    params(InclusionQuery), responses(
    (status = OK, body = Inclusion),
    (status = "default", body = Problem),
))]
pub(super) async fn inclusion(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<InclusionQuery>,
) -> Result<Json<Inclusion>, ApiError> {
    let which = match (query.event, query.index) {
        (Some(event), None) => Which::Event(event),
        (None, Some(index)) => Which::Index(index),
        (Some(_), Some(_)) | (None, None) => {
            return Err(ApiError::BadRequest("name the event by `event` or by `index`".to_owned()));
        }
    };
    let proof = proofs::inclusion(&state.app, which, query.size).await?;
    Ok(Json(Inclusion {
        index: proof.index,
        size: proof.size,
        entry: String::from_utf8(proof.entry).map_err(ApiError::internal)?,
        path: proof.path.iter().map(ToString::to_string).collect(),
        checkpoint: proof.checkpoint.map(|checkpoint| checkpoint.note),
    }))
}

/// The proof that nothing was changed between two checkpoints.
#[utoipa::path(get, path = "/ledger/proof/consistency", operation_id = "ledger_consistency", tag = "ledger",
    params(ConsistencyQuery), responses(
    (status = OK, body = Consistency),
    (status = "default", body = Problem),
))]
pub(super) async fn consistency(
    _may: May<Known>,
    State(state): State<ApiState>,
    Query(query): Query<ConsistencyQuery>,
) -> Result<Json<Consistency>, ApiError> {
    let proof = proofs::consistency(&state.app, query.from, query.to).await?;
    let path = proof.path.iter().map(ToString::to_string).collect();
    Ok(Json(Consistency { from: proof.from, to: proof.to, path }))
}

/// The hashes of a tile (C2SP tlog-tiles), 32 bytes each: 256 of a full tile, or as many as there are by now.
#[utoipa::path(get, path = "/ledger/tiles/{level}/{index}", operation_id = "ledger_tile", tag = "ledger",
    params(("level" = u8, Path), ("index" = u64, Path)), responses(
    (status = OK, body = Vec<u8>, content_type = "application/octet-stream"),
    (status = "default", body = Problem),
))]
pub(super) async fn tile(
    _may: May<Known>,
    State(state): State<ApiState>,
    Path((level, index)): Path<(u8, u64)>,
) -> Result<impl IntoResponse, ApiError> {
    let tile = TileId { level, index };
    let hashes = proofs::tile(&state.app, tile).await?;
    let hashes = hashes.ok_or_else(|| ApiError::NotFound(format!("there is no {tile} yet")))?;
    // Only what is full will not change any more.
    let age = if hashes.len() == TILE_WIDTH { "private, max-age=31536000, immutable" } else { "no-store" };
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, age)];
    Ok((headers, encode_tile(&hashes)))
}
