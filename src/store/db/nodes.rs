//! Which processes of the bastion run, on which nodes, and who closes what a dead one left open.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either, to_count};

const REGISTER: &str =
    "INSERT INTO nodes (run, node, version, state, started_at, beat_at) VALUES ($1, $2, $3, $4, $5, $5)
                        ON CONFLICT (run) DO NOTHING";
const STATE: &str = "SELECT state FROM nodes WHERE run = $1";
const BEAT: &str = "UPDATE nodes SET beats = beats + 1, beat_at = $2, state = $3, closed_by = NULL, closed_at = NULL
                    WHERE run = $1";
const LIST: &str = "SELECT run, node, version, state, started_at, beats, beat_at, closed_by, closed_at,
                           (SELECT COUNT(*) FROM sessions s WHERE s.run = nodes.run AND s.ended_at IS NULL) AS sessions
                    FROM nodes ORDER BY node, started_at, run";
const CLAIM: &str = "UPDATE nodes SET state = 'lost', closed_by = $3
                     WHERE run = $1 AND beats = $2 AND closed_at IS NULL AND state <> 'ended'";
const IS_MINE: &str = "SELECT EXISTS (SELECT 1 FROM nodes WHERE run = $1 AND state = 'lost' AND closed_by = $2)";
const CLOSED: &str = "UPDATE nodes SET closed_at = $3 WHERE run = $1 AND state = 'lost' AND closed_by = $2";
const FORGET: &str = "DELETE FROM nodes WHERE beat_at < $1 AND (state = 'ended' OR closed_at IS NOT NULL)";

/// What a process of the bastion does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It lets people in.
    Open,
    /// It lets nobody in any more; live sessions go on until its deadline.
    Draining,
    /// It has stopped, or somebody has closed what it left open on this machine.
    Ended,
    /// It was not heard of for too long: another one closes its sessions in the books.
    Lost,
}

impl NodeState {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }

    fn parse(text: &str) -> Result<Self, DbError> {
        match text {
            "open" => Ok(Self::Open),
            "draining" => Ok(Self::Draining),
            "ended" => Ok(Self::Ended),
            "lost" => Ok(Self::Lost),
            other => Err(DbError::corrupt("read the nodes", format!("`{other}` is no state of a node"))),
        }
    }
}

/// One process of a bastion, from its start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    pub run: Uuid,
    pub node: String,
    pub version: String,
    pub state: NodeState,
    pub started_at: DateTime<Utc>,
    /// Grows while it lives.
    pub beats: i64,
    /// When it last did, by its own clock.
    pub beat_at: DateTime<Utc>,
    /// The run that closes what this one left open, and when that was done.
    pub closed_by: Option<Uuid>,
    pub closed_at: Option<DateTime<Utc>>,
    /// Live sessions, in the books.
    pub sessions: u64,
}

#[derive(sqlx::FromRow)]
struct NodeRow {
    run: Uuid,
    node: String,
    version: String,
    state: String,
    started_at: DateTime<Utc>,
    beats: i64,
    beat_at: DateTime<Utc>,
    closed_by: Option<Uuid>,
    closed_at: Option<DateTime<Utc>>,
    sessions: i64,
}

impl TryFrom<NodeRow> for NodeRecord {
    type Error = DbError;

    fn try_from(row: NodeRow) -> Result<Self, DbError> {
        let NodeRow { run, node, version, state, started_at, beats, beat_at, closed_by, closed_at, sessions } = row;
        let (state, sessions) = (NodeState::parse(&state)?, to_count("read the nodes", sessions)?);
        Ok(Self { run, node, version, state, started_at, beats, beat_at, closed_by, closed_at, sessions })
    }
}

/// Adds a process that starts.
pub async fn register(tx: &mut Tx, run: Uuid, node: &str, version: &str, at: DateTime<Utc>) -> Result<(), DbError> {
    let state = NodeState::Open.as_str();
    let added = change_either!(tx, |c| sqlx::query(REGISTER).bind(run).bind(node).bind(version).bind(state).bind(at));
    added.map(drop).map_err(doing("register this node"))
}

/// What the books say of a process; `None` if they do not know it.
pub async fn state(tx: &mut Tx, run: Uuid) -> Result<Option<NodeState>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, String>(STATE).bind(run).fetch_optional(c));
    found.map_err(doing("read the nodes"))?.as_deref().map(NodeState::parse).transpose()
}

/// The process lives, and is in this state. Whoever thought it lost thinks so no more.
pub async fn beat(tx: &mut Tx, run: Uuid, state: NodeState, at: DateTime<Utc>) -> Result<(), DbError> {
    let beaten = change_either!(tx, |c| sqlx::query(BEAT).bind(run).bind(at).bind(state.as_str()));
    beaten.map(drop).map_err(doing("say that this node lives"))
}

/// Every process that is known, those that have ended lately too.
pub async fn list(tx: &mut Tx) -> Result<Vec<NodeRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<NodeRow> = rows.map_err(doing("read the nodes"))?;
    rows.into_iter().map(NodeRecord::try_from).collect()
}

/// Gives `closer` the task to close what `run` left open; `false` if `run` has beaten since, or has ended.
pub async fn claim(tx: &mut Tx, run: Uuid, beats: i64, closer: Uuid) -> Result<bool, DbError> {
    let claimed = change_either!(tx, |c| sqlx::query(CLAIM).bind(run).bind(beats).bind(closer));
    Ok(claimed.map_err(doing("take over from a lost node"))? == 1)
}

/// Whether `run` is still lost, and `closer` the one that closes what it left open.
pub async fn is_claimed(tx: &mut Tx, run: Uuid, closer: Uuid) -> Result<bool, DbError> {
    let mine = on_either!(tx, |c| sqlx::query_scalar(IS_MINE).bind(run).bind(closer).fetch_one(c));
    mine.map_err(doing("take over from a lost node"))
}

/// What `run` left open is closed.
pub async fn note_closed(tx: &mut Tx, run: Uuid, closer: Uuid, at: DateTime<Utc>) -> Result<(), DbError> {
    let closed = change_either!(tx, |c| sqlx::query(CLOSED).bind(run).bind(closer).bind(at));
    closed.map(drop).map_err(doing("take over from a lost node"))
}

/// Forgets processes that are over and were last heard of before `before`.
pub async fn forget(tx: &mut Tx, before: DateTime<Utc>) -> Result<(), DbError> {
    let gone = change_either!(tx, |c| sqlx::query(FORGET).bind(before));
    gone.map(drop).map_err(doing("forget old nodes"))
}
