//! What callers named their requests, so that each is done once: who works on it, whether it changed anything, and its first answer.

use chrono::{DateTime, Utc};
use sallyport_domain::id::EventId;
use sallyport_domain::idempotency::IdempotencyKey;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, on_either};

const INSERT: &str = "INSERT INTO idempotency_keys (caller, key, attempt, claimed_at, fingerprint, roles)
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, key) DO NOTHING";
const FIND: &str = "SELECT attempt, claimed_at, fingerprint, roles, event_id, finished_at, status, body
                    FROM idempotency_keys WHERE caller = $1 AND key = $2";
/// Waits for a change that the attempt before may be about to commit, and then finds its event.
const TAKE_OVER: &str = "UPDATE idempotency_keys SET attempt = $4, claimed_at = $5, roles = $6
                         WHERE caller = $1 AND key = $2 AND attempt = $3 AND event_id IS NULL AND finished_at IS NULL";
const NOTE: &str = "UPDATE idempotency_keys SET event_id = $4
                    WHERE caller = $1 AND key = $2 AND attempt = $3 AND finished_at IS NULL";
const FINISH: &str = "UPDATE idempotency_keys SET finished_at = $4, status = $5, body = $6
                      WHERE caller = $1 AND key = $2 AND attempt = $3";
const RELEASE: &str =
    "DELETE FROM idempotency_keys WHERE caller = $1 AND key = $2 AND attempt = $3 AND event_id IS NULL";
const FORGET: &str = "DELETE FROM idempotency_keys WHERE caller = $1 AND key = $2 AND claimed_at <= $3";
const FORGET_PAST: &str = "DELETE FROM idempotency_keys WHERE claimed_at <= $1";
/// What is worked on stays: it is what keeps a second attempt out.
const FORGET_OLDEST: &str =
    "DELETE FROM idempotency_keys WHERE caller = $1 AND finished_at IS NOT NULL AND claimed_at <=
    (SELECT claimed_at FROM idempotency_keys WHERE caller = $1 ORDER BY claimed_at DESC LIMIT 1 OFFSET $2)";

/// One attempt at a request: whoever holds it may change something in its name, as long as nobody has taken it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub caller: String,
    pub key: IdempotencyKey,
    pub attempt: Uuid,
}

/// What an attempt begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClaim {
    pub claim: Claim,
    pub at: DateTime<Utc>,
    pub fingerprint: [u8; 32],
    pub roles: String,
}

/// An answer that is given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    pub body: Vec<u8>,
}

/// A request that was claimed, and what has come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub attempt: Uuid,
    pub at: DateTime<Utc>,
    pub fingerprint: Vec<u8>,
    pub roles: String,
    /// The last event of its change; `None` says that nothing was changed.
    pub event: Option<EventId>,
    /// Nothing more comes of it.
    pub is_finished: bool,
    pub answer: Option<Answer>,
}

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    attempt: Uuid,
    claimed_at: DateTime<Utc>,
    fingerprint: Vec<u8>,
    roles: String,
    event_id: Option<Uuid>,
    finished_at: Option<DateTime<Utc>>,
    status: Option<i32>,
    body: Option<Vec<u8>>,
}

impl TryFrom<ClaimedRow> for Claimed {
    type Error = DbError;

    fn try_from(row: ClaimedRow) -> Result<Self, DbError> {
        let status = row.status.map(u16::try_from).transpose();
        let status = status.map_err(|_| DbError::corrupt(CLAIM, "a status that is none"))?;
        Ok(Self {
            attempt: row.attempt,
            at: row.claimed_at,
            fingerprint: row.fingerprint,
            roles: row.roles,
            event: row.event_id.map(EventId::from_uuid),
            is_finished: row.finished_at.is_some(),
            answer: status.zip(row.body).map(|(status, body)| Answer { status, body }),
        })
    }
}

const CLAIM: &str = "claim an idempotency key";

/// Claims a request for an attempt; `false` if somebody has it. Whoever comes at the same time waits for this transaction.
pub async fn insert(tx: &mut Tx, new: &NewClaim) -> Result<bool, DbError> {
    let NewClaim { claim, at, fingerprint, roles } = new;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(&claim.caller)
        .bind(claim.key.as_str())
        .bind(claim.attempt)
        .bind(at)
        .bind(fingerprint.as_slice())
        .bind(roles));
    Ok(inserted.map_err(doing(CLAIM))? == 1)
}

/// The request that this caller named so.
pub async fn find(tx: &mut Tx, caller: &str, key: &IdempotencyKey) -> Result<Option<Claimed>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(caller).bind(key.as_str()).fetch_optional(c));
    let row: Option<ClaimedRow> = row.map_err(doing(CLAIM))?;
    row.map(Claimed::try_from).transpose()
}

/// Puts a new attempt in the place of `before`, which nothing has come of; `false` if something has by now. From here on `before` changes
/// nothing any more ([`note`]).
pub async fn take_over(tx: &mut Tx, before: Uuid, new: &NewClaim) -> Result<bool, DbError> {
    let NewClaim { claim, at, fingerprint: _, roles } = new;
    let taken = change_either!(tx, |c| sqlx::query(TAKE_OVER)
        .bind(&claim.caller)
        .bind(claim.key.as_str())
        .bind(before)
        .bind(claim.attempt)
        .bind(at)
        .bind(roles));
    Ok(taken.map_err(doing(CLAIM))? == 1)
}

/// Notes, in the transaction of the change, which event tells of it. An error if another attempt has taken this one's place: then the change
/// must not be.
pub async fn note(tx: &mut Tx, claim: &Claim, event: EventId) -> Result<(), DbError> {
    const DOING: &str = "note what came of an idempotency key";
    let noted = change_either!(tx, |c| sqlx::query(NOTE)
        .bind(&claim.caller)
        .bind(claim.key.as_str())
        .bind(claim.attempt)
        .bind(event.as_uuid()));
    match noted.map_err(doing(DOING))? {
        0 => Err(DbError::Conflict {
            doing: DOING.into(),
            constraint: "idempotency_keys.attempt".to_owned(),
            source: sqlx::Error::RowNotFound,
        }),
        _ => Ok(()),
    }
}

/// Ends an attempt, with the answer that is given again; without one it is only known that it was made.
pub async fn finish(tx: &mut Tx, claim: &Claim, at: DateTime<Utc>, answer: Option<&Answer>) -> Result<(), DbError> {
    let finished = change_either!(tx, |c| sqlx::query(FINISH)
        .bind(&claim.caller)
        .bind(claim.key.as_str())
        .bind(claim.attempt)
        .bind(at)
        .bind(answer.map(|answer| i32::from(answer.status)))
        .bind(answer.map(|answer| answer.body.as_slice())));
    finished.map(drop).map_err(doing("keep the answer to an idempotency key"))
}

/// Lets the key be used again; `false` if the attempt has changed something, which it then goes on standing for.
pub async fn release(tx: &mut Tx, claim: &Claim) -> Result<bool, DbError> {
    let released =
        change_either!(tx, |c| sqlx::query(RELEASE).bind(&claim.caller).bind(claim.key.as_str()).bind(claim.attempt));
    Ok(released.map_err(doing("release an idempotency key"))? == 1)
}

/// Forgets the request of this name, if it was claimed at `until` or before.
pub async fn forget(tx: &mut Tx, caller: &str, key: &IdempotencyKey, until: DateTime<Utc>) -> Result<(), DbError> {
    let forgotten = change_either!(tx, |c| sqlx::query(FORGET).bind(caller).bind(key.as_str()).bind(until));
    forgotten.map(drop).map_err(doing(CLAIM))
}

/// Forgets the oldest finished requests of a caller who has more than `most`.
pub async fn forget_oldest(tx: &mut Tx, caller: &str, most: u32) -> Result<(), DbError> {
    let forgotten = change_either!(tx, |c| sqlx::query(FORGET_OLDEST).bind(caller).bind(i64::from(most)));
    forgotten.map(drop).map_err(doing(CLAIM))
}

/// Forgets all that were claimed at `until` or before; how many there were.
pub async fn forget_past(tx: &mut Tx, until: DateTime<Utc>) -> Result<u64, DbError> {
    change_either!(tx, |c| sqlx::query(FORGET_PAST).bind(until)).map_err(doing("forget old idempotency keys"))
}
