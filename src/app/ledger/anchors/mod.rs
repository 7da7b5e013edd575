//! Anchors: signed checkpoints outside of the database, so that who owns the database cannot put an older or another one in
//! its place. At an interval, and after each session's end.
//!
//! A file and the object store can be read back: what they hold is compared with the database at the start and at every
//! interval. If the database is behind, or holds another history, it was put back or forked: then the bastion does not
//! start, or signs no more, until somebody accepts that, which is an event.

mod file;
mod objects;
mod syslog;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::ledger::checkpoint::{Checkpoint, KnownKey};
use sallyport_domain::ledger::merkle::Head;
use sallyport_domain::ledger::note::Note;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::verify::{Fault, Witness, chain};
use super::{LedgerError, StoredCheckpoint, keys, rollbacks};
use crate::app::syslog::{self as sender, Syslog, SyslogError};
use crate::app::{App, audit};
use crate::store::blob::{BlobError, Blobs};
use crate::store::db::ledger;
use crate::store::db::{DbError, anchors};

pub use crate::store::db::anchors::AnchorState;

use self::webhook::Webhook;

/// The ledger's settings: `[ledger]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// How often checkpoints are brought out; also after each session's end.
    #[serde(with = "crate::store::duration")]
    pub anchor_every: Duration,
    /// An anchor that has failed for so long is an alarm.
    #[serde(with = "crate::store::duration")]
    pub anchor_late_after: Duration,
    /// Whether they go to the object store of the recordings.
    pub anchor_blobs: bool,
    /// A file that they are appended to; best on another machine's disk.
    pub anchor_file: Option<PathBuf>,
    /// `tls://host:port` (RFC 5425), or `tcp://host:port` (RFC 6587), which anybody on the way can read and change.
    pub anchor_syslog: Option<String>,
    /// The authorities, in PEM, of which one has certified the syslog server.
    pub anchor_syslog_ca_file: Option<PathBuf>,
    /// A URL that they are posted to.
    pub anchor_webhook: Option<String>,
    /// A file with the bearer token for it.
    pub anchor_webhook_token_file: Option<PathBuf>,
    /// How often everything is verified in the background; nothing means never.
    #[serde(with = "crate::store::duration")]
    pub verify_every: Duration,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            anchor_every: Duration::from_mins(1),
            anchor_late_after: Duration::from_mins(10),
            anchor_blobs: true,
            anchor_file: None,
            anchor_syslog: None,
            anchor_syslog_ca_file: None,
            anchor_webhook: None,
            anchor_webhook_token_file: None,
            verify_every: Duration::from_hours(24),
        }
    }
}

impl LedgerSettings {
    /// What a type cannot say of the address of the syslog server.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match &self.anchor_syslog {
            Some(address) => sender::check(address, self.anchor_syslog_ca_file.is_some()),
            None => Ok(()),
        }
    }
}

/// The longest that one try at one anchor may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long after a session's end its checkpoint is waited for; ends that come together share one.
const SETTLE: Duration = Duration::from_secs(1);

/// The longest that the events of that end are waited for to be signed, when the ledger lags.
const SIGNED_WITHIN: Duration = Duration::from_secs(10);

/// How many of an anchor's newest checkpoints are compared at each interval.
const COMPARED: usize = 3;

/// How many of an anchor's newest checkpoints a verification reads.
const VERIFIED: usize = 1000;

async fn is_anything_waiting(app: &App) -> Result<bool, DbError> {
    ledger::is_anything_waiting(&mut app.db.read().await?).await
}

/// Lets what a session's end has written be signed, so that the checkpoint that is brought out stands for it.
async fn settle(app: &App) {
    const LOOK: Duration = Duration::from_millis(100);
    tokio::time::sleep(SETTLE).await;
    let signed = async {
        loop {
            match is_anything_waiting(app).await {
                Ok(true) => tokio::time::sleep(LOOK).await,
                Ok(false) => return,
                Err(error) => return debug!(%error, "Nobody knows what is signed."),
            }
        }
    };
    if tokio::time::timeout(SIGNED_WITHIN, signed).await.is_err() {
        debug!("The ledger lags; what is signed is brought out.");
    }
}

/// Why a checkpoint did not get to an anchor, or could not be read there.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    #[error("`{setting}` is not usable: {message}")]
    Settings { setting: &'static str, message: String },
    #[error("cannot use the file `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Somebody signed another history, or put another object there.
    #[error("`{place}` holds another checkpoint of the same size")]
    Other { place: String },
    #[error(transparent)]
    Syslog(#[from] SyslogError),
    #[error("cannot reach the webhook")]
    Http { source: reqwest::Error },
    #[error("the webhook answered {status}")]
    Refused { status: u16 },
    #[error("it did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
}

/// A checkpoint on its way out.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) origin: String,
    pub(super) head: Head,
    pub(super) note: String,
    pub(super) at: chrono::DateTime<chrono::Utc>,
    pub(super) node: String,
}

/// A checkpoint that an anchor holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where it is, for people.
    pub(super) place: String,
    pub(super) note: String,
    /// What stands beside the note, unsigned: when it was signed, and which node has brought it.
    pub(super) beside: Option<(String, String)>,
}

/// A place outside.
#[derive(Debug, Clone)]
enum Anchor {
    File(PathBuf),
    Blobs(Blobs),
    Syslog(Arc<Syslog>),
    Webhook(Arc<Webhook>),
}

impl Anchor {
    const NAMES: [&str; 4] = ["file", "blobs", "syslog", "webhook"];

    fn name(&self) -> &'static str {
        match self {
            Anchor::File(_) => "file",
            Anchor::Blobs(_) => "blobs",
            Anchor::Syslog(_) => "syslog",
            Anchor::Webhook(_) => "webhook",
        }
    }

    /// What it is called in a sentence.
    fn place(&self) -> String {
        match self {
            Anchor::File(path) => file::place(path),
            Anchor::Blobs(_) => "anchor `anchors/` in the object store".to_owned(),
            Anchor::Syslog(_) | Anchor::Webhook(_) => format!("anchor `{}`", self.name()),
        }
    }

    async fn put(&self, outgoing: &Outgoing) -> Result<(), AnchorError> {
        let putting = async {
            match self {
                Anchor::File(path) => file::put(path, outgoing).await,
                Anchor::Blobs(blobs) => objects::put(blobs, outgoing).await,
                Anchor::Syslog(syslog) => syslog::put(syslog, outgoing).await,
                Anchor::Webhook(webhook) => webhook.put(outgoing).await,
            }
        };
        tokio::time::timeout(DEADLINE, putting).await.unwrap_or(Err(AnchorError::TimedOut))
    }

    /// Whether what it holds can be read back.
    fn can_be_read(&self) -> bool {
        matches!(self, Anchor::File(_) | Anchor::Blobs(_))
    }

    /// At most `most` of the newest checkpoints that it holds; none if it cannot be read back.
    async fn seen(&self, most: usize) -> Result<Vec<Seen>, AnchorError> {
        match self {
            Anchor::File(path) => file::seen(path, most).await,
            Anchor::Blobs(blobs) => objects::seen(blobs, most).await,
            Anchor::Syslog(_) | Anchor::Webhook(_) => Ok(Vec::new()),
        }
    }
}

/// The anchors of this node. Cheap to clone.
#[derive(Clone)]
pub struct Anchors {
    node: String,
    late_after: Duration,
    every: Duration,
    anchors: Arc<Vec<Anchor>>,
    wake: Arc<Notify>,
    /// Set when the database is not what an anchor has seen: nothing is signed any more.
    halted: Arc<AtomicBool>,
}

impl Anchors {
    /// Prepares the anchors that the settings name; reaches none of them yet.
    pub fn open(settings: &LedgerSettings, blobs: &Blobs, node: &str) -> Result<Self, AnchorError> {
        let mut anchors = Vec::new();
        anchors.extend(settings.anchor_file.clone().map(Anchor::File));
        anchors.extend(settings.anchor_blobs.then(|| Anchor::Blobs(blobs.clone())));
        if let Some(address) = &settings.anchor_syslog {
            anchors.push(Anchor::Syslog(Arc::new(Syslog::new(address, settings.anchor_syslog_ca_file.as_deref())?)));
        }
        if let Some(url) = &settings.anchor_webhook {
            anchors.push(Anchor::Webhook(Arc::new(Webhook::new(url, settings.anchor_webhook_token_file.as_deref())?)));
        }
        Ok(Self {
            node: node.to_owned(),
            late_after: settings.anchor_late_after,
            every: settings.anchor_every,
            anchors: Arc::new(anchors),
            wake: Arc::default(),
            halted: Arc::default(),
        })
    }

    /// Brings the next checkpoint out soon, not only at the next interval: a session has ended.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether nothing may be signed, because the database is not what an anchor has seen.
    pub fn halted(&self) -> Arc<AtomicBool> {
        self.halted.clone()
    }

    /// Brings checkpoints out until `stop`, and compares what is there with the database.
    pub async fn run(self, app: App, stop: CancellationToken) {
        if let Err(error) = self.forget_others(&app).await {
            debug!(%error, "Anchors that are not configured any more are still listed.");
        }
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = Vec::new();
        loop {
            let is_woken = tokio::select! {
                _ = ticks.tick() => false,
                () = self.wake.notified() => true,
                () = stop.cancelled() => return,
            };
            let turn = async {
                if is_woken {
                    settle(&app).await;
                }
                self.look(&app, &mut said).await;
                self.round(&app).await;
            };
            // What is given up half-way is done again: a checkpoint that got there twice is there once.
            tokio::select! {
                () = turn => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Compares; what is found is an alarm once.
    async fn look(&self, app: &App, said: &mut Vec<Fault>) {
        let found = match self.compare(app).await {
            Ok(found) => found,
            Err(error) => return debug!(%error, "The anchors could not be compared with the database."),
        };
        if !found.is_empty() {
            // It stays so: an anchor that is away later on takes nothing back.
            self.halted.store(true, Ordering::Release);
        }
        for fault in found.iter().filter(|fault| !said.contains(fault)) {
            error!(place = %fault.place, what = %fault.what, "The database is not what an anchor has seen: nothing is signed any more.");
            let act = Act::LedgerAlarm { place: fault.place.clone(), what: fault.what.clone() };
            if let Err(error) = audit::record(app, &Actor::Bastion, act).await {
                debug!(%error, "An alarm could not be written.");
            }
        }
        *said = found;
    }

    /// Brings the latest checkpoint to every anchor that has not got it.
    pub async fn round(&self, app: &App) {
        let latest = match super::proofs::checkpoint(app, None).await {
            Ok(latest) => latest,
            Err(error) => return debug!(%error, "There is no checkpoint to bring out."),
        };
        let outgoing = match self.outgoing(&latest) {
            Ok(outgoing) => outgoing,
            Err(what) => return error!(%what, "The latest checkpoint cannot be read; it is not brought out."),
        };
        let each = self.anchors.iter().map(|anchor| self.bring(app, anchor, &outgoing));
        for result in futures::future::join_all(each).await {
            if let Err(error) = result {
                debug!(%error, "The state of an anchor could not be written.");
            }
        }
    }

    fn outgoing(&self, latest: &StoredCheckpoint) -> Result<Outgoing, String> {
        let checkpoint = parse(&latest.note)?;
        let origin = checkpoint.origin().to_owned();
        let (note, node) = (latest.note.clone(), self.node.clone());
        Ok(Outgoing { origin, head: checkpoint.head(), note, at: latest.at, node })
    }

    async fn bring(&self, app: &App, anchor: &Anchor, outgoing: &Outgoing) -> Result<(), LedgerError> {
        let name = anchor.name();
        let state = anchors::find(&mut app.db.read().await?, &self.node, name).await?;
        let before = state.unwrap_or_else(|| AnchorState::new(&self.node, name));
        if before.size == outgoing.head.size && before.error.is_none() {
            return Ok(());
        }
        let brought = anchor.put(outgoing).await;
        let now = app.clock.now();
        let mut state = before.clone();
        let mut act = None;
        match brought {
            Ok(()) => {
                (state.size, state.at) = (outgoing.head.size, Some(now));
                (state.error, state.failing_since, state.late) = (None, None, false);
                if before.late {
                    info!(anchor = name, "Checkpoints get to the anchor again.");
                    act = Some(Act::AnchorRecovered { node: self.node.clone(), anchor: name.to_owned() });
                }
            }
            Err(error) => {
                let text: String = chain(&error).chars().take(500).collect();
                let since = *state.failing_since.get_or_insert(now);
                if before.error.as_ref() != Some(&text) {
                    warn!(anchor = name, error = %text, "A checkpoint did not get to an anchor; it is tried again.");
                }
                let patience = TimeDelta::from_std(self.late_after).unwrap_or(TimeDelta::MAX);
                let another = matches!(error, AnchorError::Other { .. });
                if !before.late && (another || now - since >= patience) {
                    error!(anchor = name, %since, error = %text, "Checkpoints do not get to an anchor.");
                    state.late = true;
                    let (node, anchor, error) = (self.node.clone(), name.to_owned(), text.clone());
                    act = Some(Act::AnchorLate { node, anchor, since, error });
                }
                state.error = Some(text);
            }
        }
        let mut tx = app.db.write().await?;
        anchors::set(&mut tx, &state).await?;
        if let Some(act) = act {
            audit::append(&mut tx, now, &Actor::Bastion, act).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn forget_others(&self, app: &App) -> Result<(), LedgerError> {
        let mut tx = app.db.write().await?;
        for name in Anchor::NAMES {
            if self.anchors.iter().all(|anchor| anchor.name() != name) {
                anchors::forget(&mut tx, &self.node, name).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Compares the newest checkpoints that can be read back with the database. Each fault means that it was put back to an
    /// older state, or holds another history. An anchor that is away says nothing.
    pub async fn compare(&self, app: &App) -> Result<Vec<Fault>, LedgerError> {
        // Read before the database: a checkpoint goes out only after its commit.
        let seen = self.read(COMPARED).await;
        let mut tx = app.db.read().await?;
        let stored = ledger::keys(&mut tx).await?;
        let known = keys::known_of(&stored)?;
        let signed = ledger::latest_checkpoint(&mut tx).await?.map_or(0, |latest| latest.size);
        let (accepted, mut faults) = rollbacks::accepted(&mut tx).await?;
        for Seen { place, note, .. } in seen {
            let checkpoint = match judge(&note, stored.first().map(|key| key.name.as_str()), &known, &accepted) {
                Judged::NotOurs => continue,
                Judged::False(what) => {
                    faults.push(Fault::new(place, what));
                    continue;
                }
                Judged::True(head) => head,
            };
            let size = checkpoint.size;
            if size > signed {
                let what =
                    format!("it stands for {size} events, and {signed} are signed here: an old copy was put back");
                faults.push(Fault::new(place, what));
                continue;
            }
            let found = super::head(&mut tx, size).await?;
            if found != checkpoint {
                let what = format!("the root of {size} events is {} there, and {} here", checkpoint.root, found.root);
                faults.push(Fault::new(place, what));
            }
        }
        Ok(faults)
    }

    /// What the anchors hold, for a verification: checkpoints, and what is wrong with some.
    pub async fn witnesses(&self, app: &App) -> Result<(Vec<Witness>, Vec<Fault>), LedgerError> {
        // The states before what is there: a checkpoint that comes meanwhile is not missed.
        let states = anchors::list(&mut app.db.read().await?).await?;
        let seen = self.read_each(VERIFIED).await;
        let mut tx = app.db.read().await?;
        let stored = ledger::keys(&mut tx).await?;
        let known = keys::known_of(&stored)?;
        // What is wrong with these is told by who verifies.
        let (accepted, _forged) = rollbacks::accepted(&mut tx).await?;
        let (mut heads, mut faults) = (Vec::new(), Vec::new());
        for (anchor, seen) in seen {
            let brought =
                states.iter().find(|state| (state.node.as_str(), state.name.as_str()) == (&self.node, anchor.name()));
            let brought = brought.map_or(0, |state| state.size);
            let newest = seen.iter().filter_map(|seen| parse(&seen.note).ok()).map(|claimed| claimed.head().size).max();
            if newest.unwrap_or(0) < brought {
                let what = format!("the checkpoint of {brought} events was brought there, and is gone");
                faults.push(Fault::new(anchor.place(), what));
            }
            for Seen { place, note, beside } in seen {
                match judge(&note, stored.first().map(|key| key.name.as_str()), &known, &accepted) {
                    Judged::NotOurs => {}
                    Judged::False(what) => faults.push(Fault::new(place, what)),
                    Judged::True(head) => {
                        if let Some((at, node)) = beside {
                            let kept = ledger::checkpoint(&mut tx, head.size).await?;
                            let kept = kept.filter(|kept| kept.note == note).map(|kept| kept.at.to_rfc3339());
                            let is_known = node == self.node || states.iter().any(|state| state.node == node);
                            if !is_known || kept.as_ref().is_some_and(|kept| *kept != at) {
                                let what = format!(
                                    "beside the checkpoint of {} events stands another time or node",
                                    head.size
                                );
                                faults.push(Fault::new(place.clone(), what));
                            }
                        }
                        heads.push((place, head));
                    }
                }
            }
        }
        Ok((heads, faults))
    }

    /// Takes the database on as it is, though an anchor has seen more. It is an event, and from then on what the anchors have
    /// seen beyond it is not held against it.
    pub async fn accept(&self, app: &App) -> Result<(), LedgerError> {
        let seen = self.read(COMPARED).await;
        let anchored = seen.iter().filter_map(|seen| parse(&seen.note).ok()).map(|checkpoint| checkpoint.head().size);
        let anchored = anchored.max().unwrap_or(0);
        let now = app.clock.now();
        let mut tx = app.db.write().await?;
        let found = ledger::latest_checkpoint(&mut tx).await?.map_or(0, |latest| latest.size);
        ledger::accept_rollback(&mut tx, found, anchored, now).await?;
        audit::append(&mut tx, now, &Actor::Bastion, Act::RollbackAccepted { found, anchored }).await?;
        tx.commit().await?;
        self.halted.store(false, Ordering::Release);
        Ok(())
    }

    async fn read(&self, most: usize) -> Vec<Seen> {
        self.read_each(most).await.into_iter().flat_map(|(_, seen)| seen).collect()
    }

    /// What each anchor holds that can be read back, and answers.
    async fn read_each(&self, most: usize) -> Vec<(&Anchor, Vec<Seen>)> {
        // The start waits for the few newest: a store that is away must not keep the doors shut.
        let patience = if most <= COMPARED { Duration::from_secs(3) } else { Duration::from_mins(2) };
        let mut all = Vec::new();
        for anchor in self.anchors.iter().filter(|anchor| anchor.can_be_read()) {
            match tokio::time::timeout(patience, anchor.seen(most)).await {
                Ok(Ok(seen)) => all.push((anchor, seen)),
                Ok(Err(error)) => {
                    warn!(anchor = anchor.name(), error = %chain(&error), "An anchor cannot be read back.")
                }
                Err(_elapsed) => warn!(anchor = anchor.name(), "An anchor cannot be read back: it does not answer."),
            }
        }
        all
    }
}

enum Judged {
    True(Head),
    False(String),
    /// Of another ledger, or excused.
    NotOurs,
}

fn judge(note: &str, origin: Option<&str>, known: &[KnownKey], accepted: &[(u64, u64)]) -> Judged {
    let claimed = match parse(note) {
        Ok(claimed) => claimed,
        Err(what) => return Judged::False(what),
    };
    // One that our key has signed is ours, whatever it is said to be of.
    let signatures = Note::parse(note.as_bytes()).map(|note| note.signatures().to_vec()).unwrap_or_default();
    let by_us =
        signatures.iter().any(|by| known.iter().any(|known| *known.key.name() == by.name && known.key.id() == by.id));
    let size = claimed.head().size;
    if rollbacks::excuse(accepted, size) {
        return Judged::NotOurs;
    }
    match origin {
        // A database without a ledger, beside checkpoints of one.
        None => Judged::False(format!("it stands for {size} events, and the database has no ledger at all")),
        Some(origin) if origin != claimed.origin() && !by_us => Judged::NotOurs,
        Some(origin) => match Checkpoint::open(note.as_bytes(), origin, known) {
            Ok(checkpoint) => Judged::True(checkpoint.head()),
            Err(error) => Judged::False(error.to_string()),
        },
    }
}

/// What a note says, believed or not.
fn parse(note: &str) -> Result<Checkpoint, String> {
    let note = Note::parse(note.as_bytes()).map_err(|error| error.to_string())?;
    Checkpoint::parse(note.text()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
