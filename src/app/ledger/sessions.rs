//! Rows of sessions and recordings against what is signed: lists and searches show the rows, so these must not tell another
//! story, and none may be missing.

use std::collections::BTreeSet;

use sallyport_domain::event::Act;
use sallyport_domain::id::{RecordingId, SessionId};
use sallyport_domain::ledger::manifest::Manifest;

use super::LedgerError;
use super::verify::Report;
use crate::app::App;
use crate::store::db::events::{self, EventFilter};
use crate::store::db::{DbError, Tx, manifests, sessions};

/// Events of one session that are read at once.
const AT_ONCE: u32 = 1000;

/// Compares a sealed session's row with its manifest, and the manifest with the recordings that events tell of.
pub(super) async fn check(app: &App, manifest: &Manifest, report: &mut Report) -> Result<(), LedgerError> {
    let place = || format!("session {}", manifest.session);
    let mut tx = app.db.read().await?;
    match sessions::find(&mut tx, manifest.session).await {
        Ok(Some(row)) => {
            let session = &row.session;
            let same = [
                ("person", session.principal == manifest.person.id && session.principal_name == manifest.person.name),
                ("target", session.target == manifest.target.id && session.target_name == manifest.target.name),
                ("login", session.login == manifest.login),
                ("grant", session.grant == manifest.grant.id && session.terms == manifest.grant.terms),
                ("node", session.node == manifest.node),
                (
                    "client",
                    session.client_address == manifest.client.address
                        && session.client_version == manifest.client.version,
                ),
                ("beginning", session.started_at == manifest.opened_at),
                ("end", row.ended.as_ref() == Some(&(manifest.ended_at, manifest.end.clone()))),
            ];
            for (what, _) in same.iter().filter(|(_, same)| !same) {
                report.fault(place(), format!("its row names another {what} than its manifest"));
            }
        }
        Ok(None) => report.fault(place(), "its row is gone"),
        Err(error) => report.unreadable(place(), error)?,
    }
    let listed: BTreeSet<RecordingId> = manifest.recordings.iter().map(|seal| seal.recording).collect();
    for recording in begun(&mut tx, manifest.session).await?.difference(&listed) {
        report.fault(format!("recording {recording}"), "it was begun, and its session's manifest does not know it");
    }
    Ok(())
}

/// Sessions that have no manifest yet, which live or end just now: those that were opened, and what was begun in them, must be
/// there.
pub(super) async fn check_unsealed(app: &App, report: &mut Report) -> Result<(), LedgerError> {
    let mut tx = app.db.read().await?;
    for session in sessions::gone(&mut tx).await? {
        report.fault(format!("session {session}"), "it was opened, and its row is gone");
    }
    for session in manifests::unsealed_sessions(&mut tx).await? {
        let there: BTreeSet<RecordingId> = manifests::recordings_of(&mut tx, session).await?.into_iter().collect();
        for recording in begun(&mut tx, session).await?.difference(&there) {
            report.fault(format!("recording {recording}"), "it was begun, and its row is gone");
        }
    }
    Ok(())
}

/// The recordings that events say were begun in a session.
async fn begun(tx: &mut Tx, session: SessionId) -> Result<BTreeSet<RecordingId>, DbError> {
    let filter =
        EventFilter { session: Some(session), kind: Some("recording_started".to_owned()), ..EventFilter::default() };
    let mut begun = BTreeSet::new();
    let mut after = 0;
    loop {
        let some = match events::list(tx, after, &filter, AT_ONCE).await {
            Ok(some) => some,
            // An event that was altered is told of as that.
            Err(DbError::Corrupt { .. }) => return Ok(begun),
            Err(error) => return Err(error),
        };
        let Some((last, _)) = some.last() else { return Ok(begun) };
        after = *last;
        begun.extend(some.into_iter().filter_map(|(_, event)| match event.act {
            Act::RecordingStarted { recording, .. } => Some(recording),
            _ => None,
        }));
    }
}
