//! How far each node has brought signed checkpoints to each place outside.

use chrono::{DateTime, Utc};

use super::{DbError, Tx, change_either, doing, on_either, to_count};

const LIST: &str = "SELECT node, name, size, at, error, failing_since, late FROM anchors ORDER BY name, node";
const FIND: &str = "SELECT node, name, size, at, error, failing_since, late FROM anchors WHERE node = $1 AND name = $2";
const SET: &str = "INSERT INTO anchors (node, name, size, at, error, failing_since, late)
                   VALUES ($1, $2, $3, $4, $5, $6, $7)
                   ON CONFLICT (node, name) DO UPDATE SET size = $3, at = $4, error = $5, failing_since = $6, late = $7";
const FORGET: &str = "DELETE FROM anchors WHERE node = $1 AND name = $2";

/// How one anchor of one node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorState {
    pub node: String,
    /// `file`, `blobs`, `syslog`, `webhook`.
    pub name: String,
    /// The size of the last checkpoint that got there; 0 before the first.
    pub size: u64,
    /// When it got there.
    pub at: Option<DateTime<Utc>>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// Since when every try has failed.
    pub failing_since: Option<DateTime<Utc>>,
    /// It has failed for longer than is borne, and the alarm was given.
    pub late: bool,
}

impl AnchorState {
    /// An anchor that nothing was brought to.
    pub fn new(node: &str, name: &str) -> Self {
        let (node, name) = (node.to_owned(), name.to_owned());
        Self { node, name, size: 0, at: None, error: None, failing_since: None, late: false }
    }
}

#[derive(sqlx::FromRow)]
struct AnchorRow {
    node: String,
    name: String,
    size: i64,
    at: Option<DateTime<Utc>>,
    error: Option<String>,
    failing_since: Option<DateTime<Utc>>,
    late: bool,
}

impl TryFrom<AnchorRow> for AnchorState {
    type Error = DbError;

    fn try_from(row: AnchorRow) -> Result<Self, DbError> {
        let AnchorRow { node, name, size, at, error, failing_since, late } = row;
        Ok(Self { node, name, size: to_count("read the state of an anchor", size)?, at, error, failing_since, late })
    }
}

/// Every anchor of every node.
pub async fn list(tx: &mut Tx) -> Result<Vec<AnchorState>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<AnchorRow> = rows.map_err(doing("read the state of the anchors"))?;
    rows.into_iter().map(AnchorState::try_from).collect()
}

/// One anchor of one node.
pub async fn find(tx: &mut Tx, node: &str, name: &str) -> Result<Option<AnchorState>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(node).bind(name).fetch_optional(c));
    let row: Option<AnchorRow> = row.map_err(doing("read the state of an anchor"))?;
    row.map(AnchorState::try_from).transpose()
}

/// Notes how an anchor stands.
pub async fn set(tx: &mut Tx, state: &AnchorState) -> Result<(), DbError> {
    let set = change_either!(tx, |c| sqlx::query(SET)
        .bind(&state.node)
        .bind(&state.name)
        .bind(i64::try_from(state.size).unwrap_or(i64::MAX))
        .bind(state.at)
        .bind(state.error.as_deref())
        .bind(state.failing_since)
        .bind(state.late));
    set.map(drop).map_err(doing("note the state of an anchor"))
}

/// Forgets an anchor that is not configured any more.
pub async fn forget(tx: &mut Tx, node: &str, name: &str) -> Result<(), DbError> {
    let forgot = change_either!(tx, |c| sqlx::query(FORGET).bind(node).bind(name));
    forgot.map(drop).map_err(doing("forget an anchor"))
}
