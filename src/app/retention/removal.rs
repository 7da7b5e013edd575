//! What was approved for deletion is removed: first the objects, then what the database has, then it is told to be gone.
//!
//! The tombstone is written before anything goes, and signed before the first object does: at no instant is something missing that
//! the ledger does not explain. Each step can be done again, so what a crash interrupted goes on where it was, on whichever node. A store
//! that refuses (object lock) is asked again, as long as it takes.

use std::time::Duration;

use chrono::TimeDelta;
use sallyport_domain::event::{Act, Actor};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::app::ledger::LedgerError;
use crate::app::ledger::verify::chain;
use crate::app::{App, audit};
use crate::store::db::deletions::{self, UnderWay};
use crate::store::db::{DbError, ledger};

/// How often it is looked for work.
const SWEEP: Duration = Duration::from_secs(1);

/// Sessions at one look.
const AT_ONCE: u32 = 32;

/// Pauses between tries double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

/// The most that is kept of an error, in characters.
const MOST_ERROR: usize = 500;

/// Removes what is approved, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    loop {
        let done = tokio::select! {
            done = round(&app) => done,
            () = stop.cancelled() => return,
        };
        match done {
            Ok(_) => {}
            Err(error) if error.is_unreachable() => debug!(%error, "Deletions wait: the database does not answer."),
            Err(error) => error!(%error, "Deletions could not go on."),
        }
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Removes what can be removed now; gives back how many sessions' recordings are gone.
pub async fn round(app: &App) -> Result<usize, DbError> {
    let under_way = deletions::under_way(&mut app.db.read().await?, app.clock.now(), AT_ONCE).await?;
    let mut gone = 0;
    for one in under_way {
        // Signed is what has a place: both are one transaction.
        if ledger::place_of(&mut app.db.read().await?, one.tombstone).await?.is_none() {
            continue;
        }
        let objects = deletions::objects(&mut app.db.read().await?, one.session).await?;
        match remove(app, &objects).await {
            Ok(()) => gone += usize::from(finish(app, &one, objects.len() as u64).await?),
            Err(error) => put_off(app, &one, &error).await?,
        }
    }
    Ok(gone)
}

async fn remove(app: &App, objects: &[String]) -> Result<(), LedgerError> {
    for key in objects {
        app.blobs.delete(key).await?;
    }
    Ok(())
}

async fn finish(app: &App, one: &UnderWay, objects: u64) -> Result<bool, DbError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    if !deletions::finish(&mut tx, one, now).await? {
        return Ok(false); // another node was first
    }
    let act = Act::DeletionDone { deletion: one.deletion, session: one.session, objects };
    audit::append(&mut tx, now, &Actor::Bastion, act).await?;
    tx.commit().await?;
    info!(session = %one.session, deletion = %one.deletion, objects, "What was recorded in a session is deleted.");
    Ok(true)
}

/// Says why it did not go, and when it is tried again.
async fn put_off(app: &App, one: &UnderWay, error: &LedgerError) -> Result<(), DbError> {
    let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(one.tries).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
    let try_at = app.clock.now() + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
    let why: String = chain(error).chars().filter(|c| !c.is_control()).take(MOST_ERROR).collect();
    warn!(session = %one.session, deletion = %one.deletion, error = %why, "Objects could not be deleted; it is tried again.");
    let mut tx = app.db.write().await?;
    deletions::fail(&mut tx, one, try_at, &why).await?;
    tx.commit().await
}
