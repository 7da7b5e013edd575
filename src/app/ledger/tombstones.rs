//! What was deleted is told from what is missing: by a tombstone in the ledger, proved like every event, and by its having had the hands
//! that it takes. A row that says so proves nothing.

use sallyport_domain::event::{Act, Event};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{EventId, SessionId};
use sallyport_domain::ledger::checkpoint::{Checkpoint, KnownKey};
use sallyport_domain::ledger::{entry, merkle};
use sallyport_domain::retention::had_its_hands;

use super::LedgerError;
use super::proofs::{self, Which};
use crate::app::App;
use crate::store::db::events::{self, EventFilter};

/// Events of one kind about one session that are looked at.
const MOST: u32 = 100;

/// Whether the ledger tells that what was recorded in the session, whose manifest has this hash, was deleted.
pub(super) async fn explain(
    app: &App,
    origin: &str,
    known: &[KnownKey],
    session: SessionId,
    manifest: Hash,
) -> Result<bool, LedgerError> {
    let stones = proved(app, origin, known, session, "recordings_deleted").await?;
    if stones.is_empty() {
        return Ok(false);
    }
    let asked = proved(app, origin, known, session, "deletion_asked").await?;
    Ok(stones.iter().any(|stone| asked.iter().any(|asked| is_sound(asked, stone, session, manifest))))
}

fn is_sound(asked: &Event, stone: &Event, of: SessionId, hash: Hash) -> bool {
    let Act::RecordingsDeleted { deletion, session, manifest, asked_by, rule, .. } = &stone.act else { return false };
    let Act::DeletionAsked { deletion: asked_as, session: asked_for, rule: asked_rule, .. } = &asked.act else {
        return false;
    };
    (deletion, session, rule) == (asked_as, asked_for, asked_rule)
        && (*session, *manifest) == (of, hash)
        && *asked_by == asked.actor
        && had_its_hands(&asked.actor, &stone.actor, rule.is_some())
}

/// Those of a session's events of one kind that a signed checkpoint proves.
async fn proved(
    app: &App,
    origin: &str,
    known: &[KnownKey],
    session: SessionId,
    kind: &str,
) -> Result<Vec<Event>, LedgerError> {
    let filter = EventFilter { kind: Some(kind.to_owned()), session: Some(session), ..EventFilter::default() };
    let listed = match events::list(&mut app.db.read().await?, 0, &filter, MOST).await {
        Ok(listed) => listed,
        Err(error) if error.is_unreachable() => return Err(error.into()),
        Err(_) => return Ok(Vec::new()), // what cannot be read explains nothing; the walk names it
    };
    let mut all = Vec::new();
    for (_, event) in listed {
        all.extend(prove(app, origin, known, event.id).await?);
    }
    Ok(all)
}

async fn prove(app: &App, origin: &str, known: &[KnownKey], id: EventId) -> Result<Option<Event>, LedgerError> {
    let found = match proofs::inclusion(app, Which::Event(id), None).await {
        Ok(found) => found,
        Err(LedgerError::Db(error)) if error.is_unreachable() => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let Some(checkpoint) = found.checkpoint else { return Ok(None) };
    let Ok(checkpoint) = Checkpoint::open(checkpoint.note.as_bytes(), origin, known) else { return Ok(None) };
    let leaf = entry::hash(&found.entry);
    let is_in = merkle::verify_inclusion(leaf, found.index, &checkpoint.head(), &found.path).is_ok();
    Ok(entry::decode(&found.entry).ok().filter(|event| is_in && event.id == id))
}
