//! Manifests of sessions that were completed after they had been sealed: each supersedes the one before it, may only add to it, and
//! is told of by an event of its own. The last one counts.

use sallyport_domain::event::Act;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::SessionId;
use sallyport_domain::ledger::manifest::Manifest;

use super::LedgerError;
use super::verify::{Report, checked_manifest};
use crate::app::App;
use crate::store::db::events::{self, EventFilter};
use crate::store::db::{DbError, Tx, manifests};

/// Events that seal one session, at most: as many as there are.
const MOST: u32 = 1000;

/// The manifest that event `index` seals, whose hash that event has, if it is the one that counts. One that was superseded is compared
/// with its successor, and that is all: the segments are those of the last.
pub(super) async fn find(
    app: &App,
    index: u64,
    (session, expected): (SessionId, Hash),
    supersedes: Option<Hash>,
    report: &mut Report,
) -> Result<Option<Manifest>, LedgerError> {
    let mut tx = app.db.read().await?;
    let mut all = manifests::all(&mut tx, session).await?;
    let at = all.iter().position(|bytes| Hash::of(bytes) == expected);
    let later = at.map(|at| all.split_off(at + 1)).unwrap_or_default();
    let Some(manifest) = checked_manifest(session, index, expected, all.pop(), report) else { return Ok(None) };
    let place = || format!("manifest of session {session} (event {index})");
    if all.last().map(|earlier| Hash::of(earlier)) != supersedes {
        report.fault(place(), "it does not supersede the one before it");
    }
    let Some(next) = later.first() else { return Ok(Some(manifest)) };
    if !sealed_as(&mut tx, session).await?.contains(&Hash::of(next)) {
        report.fault(place(), "there is one that would supersede it, and no event tells of that");
        return Ok(Some(manifest));
    }
    // One that cannot be read is told of where its own event is.
    if let Ok(next) = Manifest::decode(next)
        && let Err(fault) = next.check_amends(&manifest)
    {
        report.fault(format!("manifest of session {session} after the one of event {index}"), fault.to_string());
    }
    Ok(None)
}

/// Whether the manifest with this hash is the last word on a session: not while a recording is being completed.
pub(super) async fn is_settled(app: &App, session: SessionId, manifest: Hash) -> Result<bool, LedgerError> {
    let mut tx = app.db.read().await?;
    let last = manifests::find(&mut tx, session).await?;
    Ok(last.is_some_and(|last| Hash::of(&last) == manifest) && manifests::is_sealed(&mut tx, session).await?)
}

/// The hashes of the manifests that events tell of.
async fn sealed_as(tx: &mut Tx, session: SessionId) -> Result<Vec<Hash>, DbError> {
    let filter =
        EventFilter { session: Some(session), kind: Some("session_sealed".to_owned()), ..EventFilter::default() };
    let events = match events::list(tx, 0, &filter, MOST).await {
        Ok(events) => events,
        // An event that was altered is told of as that.
        Err(DbError::Corrupt { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let hashes = events.into_iter().filter_map(|(_, event)| match event.act {
        Act::SessionSealed { manifest, .. } => Some(manifest),
        _ => None,
    });
    Ok(hashes.collect())
}
