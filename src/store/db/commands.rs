//! What was run in sessions: a row a command, changed when more is known of it.

use chrono::{DateTime, Utc};
use sallyport_domain::commands::{Certainty, Command};
use sallyport_domain::id::{RecordingId, SessionId};
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either, to_count};

/// As many commands of one session are kept; there may be more, which are counted.
pub const MOST_KEPT: u32 = 10_000;

const UPDATE: &str =
    "UPDATE commands SET at = $3, text = $4, is_cut = $5, certainty = $6, exit_status = $7, duration_us = $8, flag = $9
     WHERE recording_id = $1 AND number = $2";
const INSERT: &str = "INSERT INTO commands (recording_id, number, at, text, is_cut, certainty, exit_status, duration_us, flag, session_id)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const FLAG: &str = "SELECT flag FROM commands WHERE recording_id = $1 AND number = $2";
const DELETE: &str = "DELETE FROM commands WHERE recording_id = $1 AND number >= $2";
/// `$2`, `$3`, `$4`: the last row of the page before.
const LIST: &str = "SELECT recording_id, number, at, text, is_cut, certainty, exit_status, duration_us, flag FROM commands
                    WHERE session_id = $1
                      AND ($2 IS NULL OR at > $2 OR (at = $2 AND (recording_id > $3 OR (recording_id = $3 AND number > $4))))
                    ORDER BY at, recording_id, number LIMIT $5";
/// A recording's, from a number on.
const OF_RECORDING: &str =
    "SELECT recording_id, number, at, text, is_cut, certainty, exit_status, duration_us, flag FROM commands
     WHERE recording_id = $1 AND number >= $2 ORDER BY number LIMIT $3";
const KEPT: &str = "SELECT COUNT(*), COUNT(flag) FROM commands WHERE session_id = $1";
const SEEN: &str = "SELECT CAST(COALESCE(SUM(commands), 0) AS BIGINT) FROM recordings WHERE session_id = $1";

/// A command as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    pub recording: RecordingId,
    pub at: DateTime<Utc>,
    pub command: Command,
    /// The grant's pattern that flags it.
    pub flag: Option<String>,
}

/// How many commands a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandCounts {
    /// Those that are not kept too.
    pub seen: u64,
    pub kept: u64,
    pub flagged: u64,
}

/// Where a page of a session's commands begins: behind this one.
pub type After = (DateTime<Utc>, RecordingId, u32);

#[derive(sqlx::FromRow)]
struct CommandRow {
    recording_id: Uuid,
    number: i32,
    at: DateTime<Utc>,
    text: String,
    is_cut: bool,
    certainty: String,
    exit_status: Option<i64>,
    duration_us: Option<i64>,
    flag: Option<String>,
}

const READ: &str = "read a command";

impl TryFrom<CommandRow> for CommandRecord {
    type Error = DbError;

    fn try_from(row: CommandRow) -> Result<Self, DbError> {
        let certainty = Certainty::ALL.into_iter().find(|certainty| certainty.as_str() == row.certainty);
        let command = Command {
            number: to_count(READ, row.number)?,
            at: 0, // counted from the start of its recording, which its instant says better
            text: row.text,
            is_cut: row.is_cut,
            certainty: certainty.ok_or_else(|| DbError::corrupt(READ, "an unknown certainty"))?,
            exit_status: row.exit_status.map(|status| to_count(READ, status)).transpose()?,
            duration: row.duration_us.map(|duration| to_count(READ, duration)).transpose()?,
        };
        Ok(Self { recording: RecordingId::from_uuid(row.recording_id), at: row.at, command, flag: row.flag })
    }
}

/// A statement on a command with what UPDATE and INSERT have in common bound.
macro_rules! bound {
    ($sql:expr, $record:expr) => {{
        let CommandRecord { recording, at, command, flag } = $record;
        sqlx::query($sql)
            .bind(recording.as_uuid())
            .bind(small(command.number))
            .bind(*at)
            .bind(&command.text)
            .bind(command.is_cut)
            .bind(command.certainty.as_str())
            .bind(command.exit_status.map(i64::from))
            .bind(command.duration.map(big))
            .bind(flag.as_deref())
    }};
}

/// Changes a command by its number; `false` if it is not stored.
pub async fn update(tx: &mut Tx, record: &CommandRecord) -> Result<bool, DbError> {
    let updated = change_either!(tx, |c| bound!(UPDATE, record));
    Ok(updated.map_err(doing("change a command"))? == 1)
}

/// Adds a command of `session`.
pub async fn insert(tx: &mut Tx, session: SessionId, record: &CommandRecord) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| bound!(INSERT, record).bind(session.as_uuid()));
    inserted.map(drop).map_err(doing("add a command"))
}

/// What flags the command as it is stored; `None` if nothing does, or it is not.
pub async fn flag(tx: &mut Tx, recording: RecordingId, number: u32) -> Result<Option<String>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FLAG).bind(recording.as_uuid()).bind(small(number)).fetch_optional(c));
    let row: Option<(Option<String>,)> = row.map_err(doing(READ))?;
    Ok(row.and_then(|(flag,)| flag))
}

/// Forgets the recording's commands from `number` on.
pub async fn delete_from(tx: &mut Tx, recording: RecordingId, number: u32) -> Result<u64, DbError> {
    let deleted = change_either!(tx, |c| sqlx::query(DELETE).bind(recording.as_uuid()).bind(small(number)));
    deleted.map_err(doing("forget commands"))
}

/// At most `limit` commands of the session, in the order in which they were run, continuing behind `after`.
pub async fn list(
    tx: &mut Tx,
    session: SessionId,
    after: Option<After>,
    limit: u32,
) -> Result<Vec<CommandRecord>, DbError> {
    let at = after.map(|(at, _, _)| at);
    let recording = after.map(|(_, recording, _)| recording.as_uuid());
    let number = after.map(|(_, _, number)| small(number));
    let rows = on_either!(tx, |c| sqlx::query_as(LIST)
        .bind(session.as_uuid())
        .bind(at)
        .bind(recording)
        .bind(number)
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows: Vec<CommandRow> = rows.map_err(doing("list commands"))?;
    rows.into_iter().map(CommandRecord::try_from).collect()
}

/// At most `limit` commands of the recording, from `number` on.
pub async fn of_recording(
    tx: &mut Tx,
    recording: RecordingId,
    number: u32,
    limit: u32,
) -> Result<Vec<CommandRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(OF_RECORDING)
        .bind(recording.as_uuid())
        .bind(small(number))
        .bind(i64::from(limit))
        .fetch_all(c));
    let rows: Vec<CommandRow> = rows.map_err(doing("list commands"))?;
    rows.into_iter().map(CommandRecord::try_from).collect()
}

/// How many commands the session has.
pub async fn counts(tx: &mut Tx, session: SessionId) -> Result<CommandCounts, DbError> {
    const COUNT: &str = "count commands";
    let kept = on_either!(tx, |c| sqlx::query_as(KEPT).bind(session.as_uuid()).fetch_one(c));
    let (kept, flagged): (i64, i64) = kept.map_err(doing(COUNT))?;
    let seen = on_either!(tx, |c| sqlx::query_as(SEEN).bind(session.as_uuid()).fetch_one(c));
    let (seen,): (i64,) = seen.map_err(doing(COUNT))?;
    Ok(CommandCounts { seen: to_count(COUNT, seen)?, kept: to_count(COUNT, kept)?, flagged: to_count(COUNT, flagged)? })
}

fn big(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn small(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
