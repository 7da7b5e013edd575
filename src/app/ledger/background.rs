//! Verification in the background: all of it, on a schedule, by one of the nodes or several; what is wrong is an alarm.

use std::time::Duration;

use sallyport_domain::event::{Act, Actor};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::anchors::Anchors;
use super::verify::{Fault, Report, Wish, verify};
use super::{LedgerError, verify::chain};
use crate::app::{App, audit};

/// Verifies everything every so often, first after that time, until `stop`.
pub async fn run(app: App, anchors: Anchors, every: Duration, stop: CancellationToken) {
    if every.is_zero() {
        return;
    }
    let mut said: Vec<Fault> = Vec::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return,
        }
        let report = tokio::select! {
            report = look(&app, &anchors) => report,
            () = stop.cancelled() => return,
        };
        match report {
            Ok(report) if report.is_sound() => {
                info!(events = report.events, segments = report.segments, "Everything is as it was written.");
                said.clear();
            }
            Ok(report) => {
                for fault in report.faults.iter().filter(|fault| !said.contains(fault)) {
                    error!(place = %fault.place, what = %fault.what, "Something is not as it was written.");
                }
                // One event, for the first: the others may follow from it.
                if let Some(first) = report.faults.first().filter(|fault| !said.contains(fault)) {
                    let act = Act::LedgerAlarm { place: first.place.clone(), what: first.what.clone() };
                    if let Err(error) = audit::record(&app, &Actor::Bastion, act).await {
                        warn!(%error, "An alarm could not be written.");
                    }
                }
                said = report.faults;
            }
            Err(error) => warn!(error = %chain(&error), "The verification in the background could not go on."),
        }
    }
}

async fn look(app: &App, anchors: &Anchors) -> Result<Report, LedgerError> {
    let (anchored, anchor_faults) = anchors.witnesses(app).await?;
    verify(app, Wish { anchored, anchor_faults, ..Wish::default() }, |_| {}).await
}
