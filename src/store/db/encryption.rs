//! The keys of encrypted recordings that live, sealed, and which keys of the client's each node encrypts to.

use chrono::{DateTime, Utc};
use sallyport_domain::id::RecordingId;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_json};

const PUT_KEY: &str =
    "INSERT INTO live_keys (recording_id, sealed) VALUES ($1, $2) ON CONFLICT (recording_id) DO NOTHING";
const KEY: &str = "SELECT sealed FROM live_keys WHERE recording_id = $1";
const DELETE_KEY: &str = "DELETE FROM live_keys WHERE recording_id = $1";
const RECIPIENTS: &str = "SELECT recipients FROM recording_recipients WHERE node = $1";
const ALL_RECIPIENTS: &str = "SELECT node, recipients, since FROM recording_recipients ORDER BY node";
const PUT_RECIPIENTS: &str = "INSERT INTO recording_recipients (node, recipients, since) VALUES ($1, $2, $3)
                              ON CONFLICT (node) DO UPDATE SET recipients = excluded.recipients, since = excluded.since";

const READ: &str = "read which keys recordings are encrypted to";

/// Which keys a node encrypts to, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecipients {
    pub node: String,
    pub recipients: Vec<String>,
    pub since: DateTime<Utc>,
}

/// Keeps the key of a recording that lives, unless it is kept already.
pub async fn put_live_key(tx: &mut Tx, recording: RecordingId, sealed: &[u8]) -> Result<(), DbError> {
    let put = change_either!(tx, |c| sqlx::query(PUT_KEY).bind(recording.as_uuid()).bind(sealed));
    put.map(drop).map_err(doing("keep a recording's key"))
}

/// The key of a recording, sealed, while it lives.
pub async fn live_key(tx: &mut Tx, recording: RecordingId) -> Result<Option<Vec<u8>>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar(KEY).bind(recording.as_uuid()).fetch_optional(c));
    found.map_err(doing("read a recording's key"))
}

/// Forgets the key of a recording that ends.
pub async fn forget_live_key(tx: &mut Tx, recording: RecordingId) -> Result<(), DbError> {
    let forgotten = change_either!(tx, |c| sqlx::query(DELETE_KEY).bind(recording.as_uuid()));
    forgotten.map(drop).map_err(doing("forget a recording's key"))
}

/// What `node` encrypted to when it was last noted; nothing if it never was.
pub async fn recipients(tx: &mut Tx, node: &str) -> Result<Vec<String>, DbError> {
    let found: Option<String> =
        on_either!(tx, |c| sqlx::query_scalar(RECIPIENTS).bind(node).fetch_optional(c)).map_err(doing(READ))?;
    Ok(found.map(|all| from_json(READ, &all)).transpose()?.unwrap_or_default())
}

/// What every node encrypts to that ever did, by its name.
pub async fn all_recipients(tx: &mut Tx) -> Result<Vec<NodeRecipients>, DbError> {
    let rows: Vec<(String, String, DateTime<Utc>)> =
        on_either!(tx, |c| sqlx::query_as(ALL_RECIPIENTS).fetch_all(c)).map_err(doing(READ))?;
    let shape = |(node, recipients, since): (String, String, DateTime<Utc>)| {
        Ok(NodeRecipients { node, recipients: from_json(READ, &recipients)?, since })
    };
    rows.into_iter().map(shape).collect()
}

/// Notes what `node` encrypts to from `since` on.
pub async fn put_recipients(
    tx: &mut Tx,
    node: &str,
    recipients: &[String],
    since: DateTime<Utc>,
) -> Result<(), DbError> {
    const NOTE: &str = "note which keys recordings are encrypted to";
    let recipients = to_json(NOTE, &recipients)?;
    let put = change_either!(tx, |c| sqlx::query(PUT_RECIPIENTS).bind(node).bind(&recipients).bind(since));
    put.map(drop).map_err(doing(NOTE))
}
