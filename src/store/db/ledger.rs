//! The ledger: which event has which place, the tree's full tiles, signed checkpoints, and the keys that sign them.
//!
//! Rows are added and never changed: triggers refuse it, on PostgreSQL rights too. What is at the tree's right edge is not
//! stored a second time: a partial tile of level 0 is in `ledger_order`, one above is in the roots of the tiles below it.

use chrono::{DateTime, Utc};
use sallyport_domain::event::Event;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{EventId, SessionId};
use sallyport_domain::ledger::entry;
use sallyport_domain::ledger::tile::{self, TILE_WIDTH, TileId};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{DbError, Tx, change_either, doing, from_json, on_either, to_count};

/// PostgreSQL's advisory lock of whoever gives events their places: "sallyled".
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(8314045600252061028)";
const WAITING: &str = "SELECT COUNT(*) AS count,
                              (SELECT at FROM events WHERE seq = (SELECT MIN(seq) FROM ledger_pending)) AS oldest
                       FROM ledger_pending";
const IS_WAITING: &str = "SELECT seq FROM ledger_pending LIMIT 1";
/// Each entry is looked up by itself: of a join PostgreSQL makes, while its statistics are young, a hash of all events.
const PENDING: &str = "SELECT p.seq, (SELECT e.entry FROM events e WHERE e.seq = p.seq) AS entry
                       FROM (SELECT seq FROM ledger_pending ORDER BY seq LIMIT $1) p ORDER BY p.seq";
const PENDING_ONE: &str = "SELECT e.seq, e.entry FROM events e JOIN ledger_pending p ON p.seq = e.seq WHERE e.id = $1";
/// An event of an older version, which kept no bytes of it.
const WITHOUT_BYTES: &str = "SELECT id, at, actor, act, kind, session_id, entry FROM events WHERE seq = $1";
/// `$1`: the first place, `$2`, `$3`: numbers and hashes of events, in the order of their places.
const PLACE: &str = "INSERT INTO ledger_order (idx, seq, leaf)
                     SELECT $1 + n - 1, seq, leaf FROM unnest($2::bigint[], $3::bytea[]) WITH ORDINALITY e (seq, leaf, n)";
const PENDED: &str = "DELETE FROM ledger_pending WHERE seq IN (SELECT seq FROM ledger_order WHERE idx >= $1)";
/// The same by the events' numbers.
const PENDED_OF: &str = "DELETE FROM ledger_pending WHERE seq = ANY($1)";
const SIZE: &str = "SELECT COALESCE(MAX(idx) + 1, 0) FROM ledger_order";
/// `$1`: the first place, `$2`: how many. The limit stands inside, so that no plan joins all of them to find these few.
const PLACED: &str = "SELECT o.idx, o.leaf, e.id, e.at, e.actor, e.act, e.kind, e.session_id, e.entry
                      FROM (SELECT idx, seq, leaf FROM ledger_order WHERE idx >= $1 ORDER BY idx LIMIT $2) o
                           LEFT JOIN events e ON e.seq = o.seq ORDER BY o.idx";
const PLACE_OF: &str = "SELECT o.idx FROM ledger_order o JOIN events e ON e.seq = o.seq WHERE e.id = $1";
const PLACELESS: &str = "SELECT e.id FROM events e
                         WHERE NOT EXISTS (SELECT 1 FROM ledger_order o WHERE o.seq = e.seq)
                           AND NOT EXISTS (SELECT 1 FROM ledger_pending p WHERE p.seq = e.seq) ORDER BY e.seq LIMIT 1";
const EVENTLESS: &str = "SELECT p.seq FROM ledger_pending p
                         WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = p.seq) ORDER BY p.seq LIMIT 1";
const IS_KEPT: &str = "SELECT EXISTS (SELECT 1 FROM ledger_order WHERE seq = $1)
                           OR EXISTS (SELECT 1 FROM ledger_pending WHERE seq = $1)";
const TILE_COUNT: &str = "SELECT COUNT(*) FROM ledger_tiles";
const LEAVES: &str = "SELECT leaf FROM ledger_order WHERE idx >= $1 AND idx < $2 ORDER BY idx";
const INSERT_TILE: &str = "INSERT INTO ledger_tiles (level, idx, hashes, root) VALUES ($1, $2, $3, $4)";
const TILE: &str = "SELECT hashes FROM ledger_tiles WHERE level = $1 AND idx = $2";
const FULL_TILE: &str = "SELECT hashes, root FROM ledger_tiles WHERE level = $1 AND idx = $2";
const ROOTS: &str = "SELECT root FROM ledger_tiles WHERE level = $1 AND idx >= $2 AND idx < $3 ORDER BY idx";
const INSERT_CHECKPOINT: &str = "INSERT INTO ledger_checkpoints (size, note, at) VALUES ($1, $2, $3)";
const LATEST: &str = "SELECT size, note, at FROM ledger_checkpoints ORDER BY size DESC LIMIT 1";
const AT_SIZE: &str = "SELECT size, note, at FROM ledger_checkpoints WHERE size = $1";
/// `$1`: the size before the first.
const CHECKPOINTS: &str = "SELECT size, note, at FROM ledger_checkpoints WHERE size > $1 ORDER BY size LIMIT $2";
const INSERT_KEY: &str = "INSERT INTO ledger_keys (id, name, vkey, sealed, created_at, change)
                          VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
const RETIRE_KEY: &str = "UPDATE ledger_keys SET retired_at = $2, last_size = $3 WHERE id = $1 AND retired_at IS NULL";
const KEYS: &str =
    "SELECT id, name, vkey, sealed, created_at, retired_at, last_size, change FROM ledger_keys ORDER BY created_at, id";
const INSERT_ROLLBACK: &str = "INSERT INTO ledger_rollbacks (size, anchored, at) VALUES ($1, $2, $3)";
const ROLLBACKS: &str = "SELECT size, anchored FROM ledger_rollbacks ORDER BY anchored";

/// How many places one statement gives on SQLite.
const PLACES_AT_ONCE: usize = 256;

const READ: &str = "read the ledger";

/// An event's row: its columns, and the bytes that were kept with it.
#[derive(Debug, Clone, sqlx::FromRow)]
struct EntryRow {
    id: Uuid,
    at: DateTime<Utc>,
    actor: String,
    act: String,
    kind: String,
    session_id: Option<Uuid>,
    entry: Option<Vec<u8>>,
}

/// A place, and what has it; an outer join.
#[derive(Debug, sqlx::FromRow)]
struct PlaceRow {
    idx: i64,
    leaf: Vec<u8>,
    id: Option<Uuid>,
    at: Option<DateTime<Utc>>,
    actor: Option<String>,
    act: Option<String>,
    kind: Option<String>,
    session_id: Option<Uuid>,
    entry: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct CheckpointRow {
    size: i64,
    note: String,
    at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: Uuid,
    name: String,
    vkey: String,
    sealed: Vec<u8>,
    created_at: DateTime<Utc>,
    retired_at: Option<DateTime<Utc>>,
    last_size: Option<i64>,
    change: Option<String>,
}

/// An event that waits for its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub seq: i64,
    pub entry: Vec<u8>,
}

/// An event in its place, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub index: u64,
    /// The hash in the row of the place.
    pub leaf: Hash,
    /// `None` if the event's row is gone.
    pub event: Option<StoredEvent>,
}

/// What an event's row holds: the same twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    pub id: EventId,
    pub entry: Vec<u8>,
    /// What is wrong with the columns that lists and filters show, if they do not say what the entry says.
    pub columns: Option<String>,
}

/// A signed tree head, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    pub size: u64,
    pub note: String,
    pub at: DateTime<Utc>,
}

/// A key that signs checkpoints, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerKey {
    pub id: Uuid,
    /// The ledger's name.
    pub name: String,
    pub vkey: String,
    pub sealed: Vec<u8>,
    pub created_at: DateTime<Utc>,
    /// When it was retired, and the largest tree that it may have signed.
    pub retired: Option<(DateTime<Utc>, u64)>,
    /// The signed word of the key before it for this one; none for the first.
    pub change: Option<String>,
}

fn to_hash(bytes: &[u8]) -> Result<Hash, DbError> {
    bytes.try_into().map(Hash).map_err(|_| DbError::corrupt(READ, "a hash that is not 32 bytes long"))
}

fn big(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl EntryRow {
    /// The entry as it was kept; for an event of an older version, as its columns say it.
    fn entry(&self) -> Result<Vec<u8>, DbError> {
        match &self.entry {
            Some(entry) => Ok(entry.clone()),
            None => self.encoded(),
        }
    }

    fn encoded(&self) -> Result<Vec<u8>, DbError> {
        let event = Event {
            id: EventId::from_uuid(self.id),
            at: self.at,
            actor: from_json(READ, &self.actor)?,
            act: from_json(READ, &self.act)?,
        };
        entry::encode(&event).map_err(|error| DbError::corrupt(READ, error.to_string()))
    }

    /// Compares the columns with the entry; says what does not fit.
    fn check(&self) -> Option<String> {
        let encoded = match self.encoded() {
            Ok(encoded) => encoded,
            Err(error) => return Some(error.to_string()),
        };
        if self.entry.as_ref().is_some_and(|entry| *entry != encoded) {
            return Some("its columns say something else than its entry".to_owned());
        }
        let act: serde_json::Value = serde_json::from_str(&self.act).unwrap_or_default();
        let text = |name: &str| act.get(name).and_then(serde_json::Value::as_str);
        let session: Option<SessionId> = text("session").and_then(|id| id.parse().ok());
        if text("act") != Some(self.kind.as_str()) || session.map(SessionId::as_uuid) != self.session_id {
            return Some("the columns that lists filter by say something else than the act".to_owned());
        }
        None
    }
}

impl TryFrom<PlaceRow> for Placed {
    type Error = DbError;

    fn try_from(row: PlaceRow) -> Result<Self, DbError> {
        let PlaceRow { idx, leaf, id, at, actor, act, kind, session_id, entry } = row;
        let event = match (id, at, actor, act, kind) {
            (Some(id), Some(at), Some(actor), Some(act), Some(kind)) => {
                Some(EntryRow { id, at, actor, act, kind, session_id, entry })
            }
            _ => None,
        };
        let stored = |row: EntryRow| StoredEvent {
            id: EventId::from_uuid(row.id),
            // An event that cannot be read is told of as one that was altered.
            entry: row.entry().unwrap_or_default(),
            columns: row.check(),
        };
        Ok(Self { index: to_count(READ, idx)?, leaf: to_hash(&leaf)?, event: event.map(stored) })
    }
}

impl TryFrom<CheckpointRow> for StoredCheckpoint {
    type Error = DbError;

    fn try_from(row: CheckpointRow) -> Result<Self, DbError> {
        Ok(Self { size: to_count(READ, row.size)?, note: row.note, at: row.at })
    }
}

impl TryFrom<KeyRow> for LedgerKey {
    type Error = DbError;

    fn try_from(row: KeyRow) -> Result<Self, DbError> {
        let retired = match (row.retired_at, row.last_size) {
            (Some(at), Some(size)) => Some((at, to_count(READ, size)?)),
            _ => None,
        };
        let KeyRow { id, name, vkey, sealed, created_at, change, .. } = row;
        Ok(Self { id, name, vkey, sealed, created_at, retired, change })
    }
}

/// Takes the turn at giving places, until the transaction ends; `false` if another node has it. On SQLite whoever writes
/// has the turn.
pub async fn try_turn(tx: &mut Tx) -> Result<bool, DbError> {
    match tx {
        Tx::Postgres(tx) => {
            let taken = super::answer(sqlx::query_scalar(LOCK).fetch_one(&mut **tx)).await;
            taken.map_err(doing("take the turn at the ledger"))
        }
        Tx::Sqlite { .. } => Ok(true),
    }
}

/// Whether any event waits for its place.
pub async fn is_anything_waiting(tx: &mut Tx) -> Result<bool, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, i64>(IS_WAITING).fetch_optional(c));
    Ok(found.map_err(doing("look for new events"))?.is_some())
}

/// How many events wait for their place, and since when the oldest does.
pub async fn waiting(tx: &mut Tx) -> Result<(u64, Option<DateTime<Utc>>), DbError> {
    let found = on_either!(tx, |c| sqlx::query_as::<_, (i64, Option<DateTime<Utc>>)>(WAITING).fetch_one(c));
    let (count, oldest) = found.map_err(doing("look for new events"))?;
    Ok((to_count(READ, count)?, oldest))
}

/// At most `limit` events that wait for their place, in the order of their numbers. Of the transactions that have
/// committed by now, and of those only: one that commits later with a smaller number is found later.
pub async fn pending(tx: &mut Tx, limit: u32) -> Result<Vec<Pending>, DbError> {
    const DOING: &str = "read new events";
    let rows =
        on_either!(tx, |c| sqlx::query_as::<_, (i64, Option<Vec<u8>>)>(PENDING).bind(i64::from(limit)).fetch_all(c));
    let mut pending = Vec::new();
    for (seq, entry) in rows.map_err(doing(DOING))? {
        pending.extend(with_bytes(tx, seq, entry).await?);
    }
    Ok(pending)
}

/// One event that waits for its place.
pub async fn pending_one(tx: &mut Tx, event: EventId) -> Result<Option<Pending>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(PENDING_ONE).bind(event.as_uuid()).fetch_optional(c));
    let row: Option<(i64, Option<Vec<u8>>)> = row.map_err(doing("read new events"))?;
    let Some((seq, entry)) = row else { return Ok(None) };
    with_bytes(tx, seq, entry).await
}

/// `None` for an event whose row is gone: it waits, and `verify` names it.
async fn with_bytes(tx: &mut Tx, seq: i64, entry: Option<Vec<u8>>) -> Result<Option<Pending>, DbError> {
    if let Some(entry) = entry {
        return Ok(Some(Pending { seq, entry }));
    }
    let row = on_either!(tx, |c| sqlx::query_as::<_, EntryRow>(WITHOUT_BYTES).bind(seq).fetch_optional(c));
    let row = row.map_err(doing("read new events"))?;
    row.map(|row| Ok(Pending { seq, entry: row.entry()? })).transpose()
}

/// Gives events the places from `first` on, in this order, and takes them off the list of those that wait.
///
/// This is on every event's way, thousands a second: PostgreSQL gets all of them as two arrays; SQLite, which has no arrays, as
/// rows of values.
pub async fn place(tx: &mut Tx, first: u64, events: &[(i64, Hash)]) -> Result<(), DbError> {
    const DOING: &str = "give events their places";
    match tx {
        Tx::Postgres(tx) => {
            let (seqs, leaves): (Vec<i64>, Vec<&[u8]>) = events.iter().map(|(seq, leaf)| (*seq, &leaf.0[..])).unzip();
            let placing = sqlx::query(PLACE).bind(big(first)).bind(&seqs).bind(&leaves).execute(&mut **tx);
            super::answer(placing).await.map_err(doing(DOING))?;
            let taking_off = sqlx::query(PENDED_OF).bind(&seqs).execute(&mut **tx);
            super::answer(taking_off).await.map(drop).map_err(doing(DOING))
        }
        Tx::Sqlite { tx, .. } => {
            let mut index = big(first);
            for some in events.chunks(PLACES_AT_ONCE) {
                let rows: Vec<String> = (0..some.len())
                    .map(|row| format!("(${}, ${}, ${})", 3 * row + 1, 3 * row + 2, 3 * row + 3))
                    .collect();
                let text = format!("INSERT INTO ledger_order (idx, seq, leaf) VALUES {}", rows.join(", "));
                // Only full runs are worth remembering how they are planned. The text is made of numbers alone.
                let mut query = sqlx::query(AssertSqlSafe(text)).persistent(some.len() == PLACES_AT_ONCE);
                for (seq, leaf) in some {
                    query = query.bind(index).bind(*seq).bind(leaf.0.to_vec());
                    index = index.saturating_add(1);
                }
                super::answer(query.execute(&mut **tx)).await.map_err(doing(DOING))?;
            }
            let taking_off = sqlx::query(PENDED).bind(big(first)).execute(&mut **tx);
            super::answer(taking_off).await.map(drop).map_err(doing(DOING))
        }
    }
}

/// How many events have a place.
pub async fn size(tx: &mut Tx) -> Result<u64, DbError> {
    let size = on_either!(tx, |c| sqlx::query_scalar::<_, i64>(SIZE).fetch_one(c));
    to_count(READ, size.map_err(doing(READ))?)
}

/// At most `limit` events by their places, from `first` on.
pub async fn placed(tx: &mut Tx, first: u64, limit: u32) -> Result<Vec<Placed>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(PLACED).bind(big(first)).bind(i64::from(limit)).fetch_all(c));
    let rows: Vec<PlaceRow> = rows.map_err(doing(READ))?;
    rows.into_iter().map(Placed::try_from).collect()
}

/// The place of an event; `None` if there is no such event, or it has none yet.
pub async fn place_of(tx: &mut Tx, event: EventId) -> Result<Option<u64>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, i64>(PLACE_OF).bind(event.as_uuid()).fetch_optional(c));
    found.map_err(doing(READ))?.map(|index| to_count(READ, index)).transpose()
}

/// An event that neither has a place nor waits for one. There is none, unless somebody changed the database.
pub async fn placeless(tx: &mut Tx) -> Result<Option<EventId>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, Uuid>(PLACELESS).fetch_optional(c));
    Ok(found.map_err(doing(READ))?.map(EventId::from_uuid))
}

/// The number of an event that waits for its place and whose row is gone. There is none, unless somebody changed the database.
pub async fn eventless(tx: &mut Tx) -> Result<Option<i64>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_scalar::<_, i64>(EVENTLESS).fetch_optional(c));
    found.map_err(doing(READ))
}

/// Whether an event, by its number, has a place or waits for one.
pub async fn is_kept(tx: &mut Tx, seq: i64) -> Result<bool, DbError> {
    let kept = on_either!(tx, |c| sqlx::query_scalar::<_, bool>(IS_KEPT).bind(seq).fetch_one(c));
    kept.map_err(doing(READ))
}

/// How many full tiles are stored.
pub async fn tile_count(tx: &mut Tx) -> Result<u64, DbError> {
    let count = on_either!(tx, |c| sqlx::query_scalar::<_, i64>(TILE_COUNT).fetch_one(c));
    to_count(READ, count.map_err(doing(READ))?)
}

/// Adds a full tile; one that is not full is not stored.
pub async fn insert_tile(tx: &mut Tx, tile: TileId, hashes: &[Hash]) -> Result<(), DbError> {
    let Some(root) = tile::tile_root(hashes) else { return Ok(()) };
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_TILE)
        .bind(i32::from(tile.level))
        .bind(big(tile.index))
        .bind(tile::encode_tile(hashes))
        .bind(root.0.to_vec()));
    inserted.map(drop).map_err(doing("add a tile to the ledger"))
}

/// The hashes of a tile: all 256 of a full one, else as many as there are.
pub async fn tile(tx: &mut Tx, tile: TileId) -> Result<Vec<Hash>, DbError> {
    let (level, index) = (i32::from(tile.level), big(tile.index));
    let full = on_either!(tx, |c| sqlx::query_scalar::<_, Vec<u8>>(TILE).bind(level).bind(index).fetch_optional(c));
    if let Some(full) = full.map_err(doing(READ))? {
        return tile::decode_tile(&full).map_err(|error| DbError::corrupt(READ, error.to_string()));
    }
    let first = index.saturating_mul(TILE_WIDTH as i64);
    let end = first.saturating_add(TILE_WIDTH as i64);
    let rows = match level {
        0 => on_either!(tx, |c| sqlx::query_scalar::<_, Vec<u8>>(LEAVES).bind(first).bind(end).fetch_all(c)),
        _ => on_either!(tx, |c| sqlx::query_scalar::<_, Vec<u8>>(ROOTS)
            .bind(level - 1)
            .bind(first)
            .bind(end)
            .fetch_all(c)),
    };
    rows.map_err(doing(READ))?.iter().map(|hash| to_hash(hash)).collect()
}

/// A full tile and the hash above it, as stored.
pub async fn full_tile(tx: &mut Tx, tile: TileId) -> Result<Option<(Vec<Hash>, Hash)>, DbError> {
    let (level, index) = (i32::from(tile.level), big(tile.index));
    let found = on_either!(tx, |c| sqlx::query_as::<_, (Vec<u8>, Vec<u8>)>(FULL_TILE)
        .bind(level)
        .bind(index)
        .fetch_optional(c));
    let Some((hashes, root)) = found.map_err(doing(READ))? else { return Ok(None) };
    let hashes = tile::decode_tile(&hashes).map_err(|error| DbError::corrupt(READ, error.to_string()))?;
    Ok(Some((hashes, to_hash(&root)?)))
}

/// Adds a checkpoint.
pub async fn insert_checkpoint(tx: &mut Tx, size: u64, note: &str, at: DateTime<Utc>) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_CHECKPOINT).bind(big(size)).bind(note).bind(at));
    inserted.map(drop).map_err(doing("add a checkpoint"))
}

/// The largest checkpoint.
pub async fn latest_checkpoint(tx: &mut Tx) -> Result<Option<StoredCheckpoint>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(LATEST).fetch_optional(c));
    let found: Option<CheckpointRow> = found.map_err(doing("read a checkpoint"))?;
    found.map(StoredCheckpoint::try_from).transpose()
}

/// The checkpoint of exactly this size.
pub async fn checkpoint(tx: &mut Tx, size: u64) -> Result<Option<StoredCheckpoint>, DbError> {
    let found = on_either!(tx, |c| sqlx::query_as(AT_SIZE).bind(big(size)).fetch_optional(c));
    let found: Option<CheckpointRow> = found.map_err(doing("read a checkpoint"))?;
    found.map(StoredCheckpoint::try_from).transpose()
}

/// At most `limit` checkpoints that are larger than `after`, the smallest first.
pub async fn checkpoints(tx: &mut Tx, after: Option<u64>, limit: u32) -> Result<Vec<StoredCheckpoint>, DbError> {
    let after = after.map_or(-1, big);
    let rows = on_either!(tx, |c| sqlx::query_as(CHECKPOINTS).bind(after).bind(i64::from(limit)).fetch_all(c));
    let rows: Vec<CheckpointRow> = rows.map_err(doing("read checkpoints"))?;
    rows.into_iter().map(StoredCheckpoint::try_from).collect()
}

/// Adds a key; `false` if one is in use already.
pub async fn insert_key(tx: &mut Tx, key: &LedgerKey) -> Result<bool, DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_KEY)
        .bind(key.id)
        .bind(&key.name)
        .bind(&key.vkey)
        .bind(&key.sealed)
        .bind(key.created_at)
        .bind(&key.change));
    Ok(inserted.map_err(doing("store a key of the ledger"))? == 1)
}

/// Retires the key in use, which signs no tree larger than `last_size`; `false` if it was retired before.
pub async fn retire_key(tx: &mut Tx, key: Uuid, last_size: u64, at: DateTime<Utc>) -> Result<bool, DbError> {
    let retired = change_either!(tx, |c| sqlx::query(RETIRE_KEY).bind(key).bind(at).bind(big(last_size)));
    Ok(retired.map_err(doing("retire a key of the ledger"))? == 1)
}

/// Every key there ever was, the oldest first.
pub async fn keys(tx: &mut Tx) -> Result<Vec<LedgerKey>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(KEYS).fetch_all(c));
    let rows: Vec<KeyRow> = rows.map_err(doing("read the ledger's keys"))?;
    rows.into_iter().map(LedgerKey::try_from).collect()
}

/// Notes that a database of `size` events was taken on, though an anchor had seen `anchored`.
pub async fn accept_rollback(tx: &mut Tx, size: u64, anchored: u64, at: DateTime<Utc>) -> Result<(), DbError> {
    let inserted = change_either!(tx, |c| sqlx::query(INSERT_ROLLBACK).bind(big(size)).bind(big(anchored)).bind(at));
    inserted.map(drop).map_err(doing("accept an older database"))
}

/// The rollbacks that were accepted: what was there, and what had been anchored.
pub async fn rollbacks(tx: &mut Tx) -> Result<Vec<(u64, u64)>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as::<_, (i64, i64)>(ROLLBACKS).fetch_all(c));
    let rows = rows.map_err(doing("read accepted rollbacks"))?;
    rows.into_iter().map(|(size, anchored)| Ok((to_count(READ, size)?, to_count(READ, anchored)?))).collect()
}
