//! Rollbacks that were accepted: a copy that was put back on purpose. Rows say so, and rows can be written by whoever owns the
//! database; so each needs its event, which is in the signed ledger for good.

use sallyport_domain::event::Act;

use super::verify::Fault;
use crate::store::db::events::{self, EventFilter};
use crate::store::db::{DbError, Tx, ledger};

/// More than these were never accepted.
const MOST: u32 = 1000;

/// What was there, and what had been anchored, for each rollback that an event tells of; and rows without one, which excuse
/// nothing.
pub(super) async fn accepted(tx: &mut Tx) -> Result<(Vec<(u64, u64)>, Vec<Fault>), DbError> {
    let rows = ledger::rollbacks(tx).await?;
    if rows.is_empty() {
        return Ok((rows, Vec::new()));
    }
    let filter = EventFilter { kind: Some("rollback_accepted".to_owned()), ..EventFilter::default() };
    let mut told = Vec::new();
    for (seq, event) in events::list(tx, 0, &filter, MOST).await? {
        if let Act::RollbackAccepted { found, anchored } = event.act
            && ledger::is_kept(tx, seq).await?
        {
            told.push((found, anchored));
        }
    }
    let (accepted, forged): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| told.contains(row));
    let fault = |(found, anchored): (u64, u64)| {
        let what =
            format!("it is said to have been accepted, though {anchored} had been seen, and no event tells of that");
        Fault::new(format!("the database of {found} events"), what)
    };
    Ok((accepted, forged.into_iter().map(fault).collect()))
}

/// Whether a checkpoint of `size` from outside is of what was given up in a rollback.
pub(super) fn excuse(accepted: &[(u64, u64)], size: u64) -> bool {
    accepted.iter().any(|&(found, anchored)| size > found && size <= anchored)
}
