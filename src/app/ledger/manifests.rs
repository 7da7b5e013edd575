//! Manifests: one for each session that is over, once all of it is at rest. Whoever finds such a session seals it, be it the
//! node that served it or another, and however it ended.
//!
//! What a manifest says of the beginning was kept in the transaction that opened the session, what it says of each recording
//! in the one that ended it; so nothing depends on what a process remembers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::TimeDelta;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::grant::Grant;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{RecordingId, SessionId, TargetId};
use sallyport_domain::ledger::manifest::{
    ClientSeal, Counters, Gap, Manifest, PersonSeal, RecordingEnd, RecordingSeal, SegmentSeal, TargetSeal,
};
use sallyport_domain::target::Target;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::app::access::Arrival;
use crate::app::{App, audit};
use crate::store::db::recordings::RecordingRecord;
use crate::store::db::{self, DbError, Tx, manifests};

/// How often sessions are looked for that are over and have no manifest.
const SWEEP: Duration = Duration::from_millis(500);

/// Sessions that are sealed at one look.
const AT_ONCE: u32 = 32;

/// Program and version.
const SOFTWARE: &str = concat!("sallyport ", env!("CARGO_PKG_VERSION"));

/// What is true of a session when it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionFacts {
    software: String,
    person: PersonSeal,
    /// Host keys are added when the target has shown them.
    target: TargetSeal,
    grant: Grant,
    settings: BTreeMap<String, String>,
}

impl SessionFacts {
    pub(crate) fn new(app: &App, arrival: &Arrival, grant: Grant, target: &Target, jumps: &[Target]) -> Self {
        let person = PersonSeal {
            id: arrival.principal.id,
            name: arrival.principal.name.clone(),
            method: arrival.factors.as_str().to_owned(),
        };
        let mut target = seal_of(target);
        target.jumps = jumps.iter().map(seal_of).collect();
        Self { software: SOFTWARE.to_owned(), person, target, grant, settings: (*app.in_force).clone() }
    }

    /// Keeps it, in the transaction that opens the session.
    pub(crate) async fn keep(&self, tx: &mut Tx, session: SessionId) -> Result<(), DbError> {
        let facts =
            serde_json::to_string(self).map_err(|error| DbError::corrupt("open a session", error.to_string()))?;
        manifests::insert_facts(tx, session, &facts).await
    }
}

fn seal_of(target: &Target) -> TargetSeal {
    TargetSeal {
        id: target.id,
        name: target.name.clone(),
        address: target.address.to_string(),
        host_keys: Vec::new(),
        jumps: Vec::new(),
    }
}

/// What a recording held, when it is at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordingFacts {
    pub(crate) how: String,
    pub(crate) reason: Option<String>,
    pub(crate) counters: Counters,
    pub(crate) gaps: Vec<Gap>,
}

/// Writes down by which keys a session's target, and the hosts on the way, have proved themselves.
pub async fn note_host_keys(app: &App, session: SessionId, shown: &[(TargetId, String)]) -> Result<(), DbError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    for (target, key) in shown {
        manifests::note_host_key(&mut tx, session, *target, key, now).await?;
    }
    tx.commit().await
}

/// Seals sessions that are over until `stop`. `sealed` is called after each.
pub async fn sweep(app: App, stop: CancellationToken, sealed: impl Fn()) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            done = seal_all(&app) => done,
            () = stop.cancelled() => return,
        };
        match done {
            Ok(0) => {}
            Ok(_) => sealed(),
            Err(error) if error.is_unreachable() => {
                debug!(%error, "Sessions wait for their manifests: the database does not answer.");
            }
            Err(error) => error!(%error, "Sessions that are over could not be sealed."),
        }
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Seals every session that can be sealed now; gives back how many.
pub async fn seal_all(app: &App) -> Result<usize, DbError> {
    let sessions = manifests::unsealed(&mut app.db.read().await?, AT_ONCE).await?;
    let mut sealed = 0;
    for session in sessions {
        match seal(app, session).await {
            Ok(fresh) => sealed += usize::from(fresh),
            Err(error) if error.is_unreachable() => return Err(error),
            // One that cannot be read must not keep the others from their manifests.
            Err(error) => error!(%session, %error, "A session could not be sealed; its recordings are as they were."),
        }
    }
    Ok(sealed)
}

/// Writes the manifest and its event; `false` if another node was first.
async fn seal(app: &App, session: SessionId) -> Result<bool, DbError> {
    const SEAL: &str = "seal a session";
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    if !manifests::mark_sealed(&mut tx, session, now).await? {
        return Ok(false);
    }
    let earlier = manifests::find(&mut tx, session).await?;
    let Some(mut manifest) = assemble(&mut tx, session).await? else {
        // One of an older version, of which less was kept: it stays without.
        tx.commit().await?;
        return Ok(false);
    };
    if earlier.is_some() {
        // Another node had closed it with what had been shipped by then.
        let ends = manifest.recordings.iter().map(|seal| {
            seal.started_at + TimeDelta::microseconds(i64::try_from(seal.duration_us).unwrap_or(i64::MAX / 2))
        });
        manifest.ended_at = ends.max().unwrap_or(manifest.ended_at).max(manifest.ended_at);
        db::sessions::lengthen(&mut tx, session, manifest.ended_at).await?;
    }
    if let Err(fault) = manifest.check() {
        error!(%session, %fault, "A session's recordings do not agree with what was counted; its manifest says so.");
    }
    let bytes = manifest.encode().map_err(|error| DbError::corrupt(SEAL, error.to_string()))?;
    let supersedes = earlier.map(|earlier| Hash::of(&earlier));
    match supersedes {
        None => manifests::insert(&mut tx, session, &bytes).await?,
        Some(earlier) if earlier == Hash::of(&bytes) => {
            tx.commit().await?; // nothing came to light
            return Ok(false);
        }
        Some(_) => manifests::amend(&mut tx, session, &bytes).await?,
    }
    let act = Act::SessionSealed {
        session,
        manifest: Hash::of(&bytes),
        recordings: u32::try_from(manifest.recordings.len()).unwrap_or(u32::MAX),
        segments: manifest.segments(),
        supersedes,
    };
    audit::append(&mut tx, now, &Actor::Bastion, act).await?;
    tx.commit().await?;
    Ok(true)
}

/// Brings together what is known of a session that is over; `None` if too little was kept.
async fn assemble(tx: &mut Tx, id: SessionId) -> Result<Option<Manifest>, DbError> {
    const READ: &str = "read what is known of a session";
    let Some(record) = db::sessions::find(tx, id).await? else { return Ok(None) };
    let Some((ended_at, end)) = record.ended else { return Ok(None) };
    let Some(facts) = manifests::facts(tx, id).await? else { return Ok(None) };
    let facts: SessionFacts =
        serde_json::from_str(&facts).map_err(|error| DbError::corrupt(READ, error.to_string()))?;
    let SessionFacts { software, person, mut target, grant, settings } = facts;
    for (shown_by, key) in manifests::host_keys(tx, id).await? {
        let mut on_the_way = target.jumps.iter_mut();
        if let Some(jump) = on_the_way.find(|jump| jump.id == shown_by) {
            jump.host_keys.push(key);
        } else if target.id == shown_by {
            target.host_keys.push(key);
        }
    }
    let mut seals: HashMap<RecordingId, String> = manifests::seals(tx, id).await?.into_iter().collect();
    let mut recordings = Vec::new();
    for found in db::recordings::of_session(tx, id).await? {
        let Some(facts) = seals.remove(&found.recording.id) else { return Ok(None) };
        let facts = serde_json::from_str(&facts).map_err(|error| DbError::corrupt(READ, error.to_string()))?;
        recordings.push(seal_recording(tx, found, facts).await?);
    }
    let session = record.session;
    Ok(Some(Manifest {
        session: id,
        software,
        node: session.node,
        person,
        client: ClientSeal { address: session.client_address, version: session.client_version },
        target,
        login: session.login,
        grant,
        settings,
        opened_at: session.started_at,
        ended_at,
        end,
        recordings,
    }))
}

async fn seal_recording(tx: &mut Tx, found: RecordingRecord, facts: RecordingFacts) -> Result<RecordingSeal, DbError> {
    let RecordingRecord { recording, progress } = found;
    let segments = db::recordings::segments(tx, recording.id, 0).await?;
    let seal = |segment: db::recordings::SegmentRecord| SegmentSeal {
        sha256: segment.sha256,
        stored_bytes: segment.stored_bytes,
        bytes: segment.bytes,
        start_us: segment.start_us,
        end_us: segment.end_us,
    };
    let RecordingFacts { how, reason, counters, gaps } = facts;
    Ok(RecordingSeal {
        recording: recording.id,
        channel: recording.channel,
        program: recording.program,
        terminal: recording.term.is_some(),
        started_at: recording.started_at,
        duration_us: progress.duration_us,
        end: RecordingEnd { how, reason, exit: progress.exit.and_then(|exit| serde_json::from_str(&exit).ok()) },
        counters,
        gaps,
        segments: segments.into_iter().map(seal).collect(),
        chain: progress.chain,
    })
}
