//! The master keys: which one seals, how another takes its place while everything goes on, and the list of all keys.
//!
//! ```text
//! key in a file of every node ──► loaded: opens ──► in use: seals ──► leaving: opens, is sealed away from ──► retired
//! ```
//!
//! The database says which key seals, not the configuration: so all nodes change at once, and a start half-way knows where it is.
//! [`sweep`] looks at the state, never at a message: it loads what lies in the files, says what this node has, follows the
//! database, and seals anew whatever is not sealed with the key in use. Two nodes that do so at once do it once; whoever dies is
//! followed by the next one.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::{PrincipalId, RecordingId, TargetId};
use sallyport_domain::ledger::note::VerifierKey;
use sallyport_domain::ssh_key::SshPublicKey;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::app::recordings::encryption;
use crate::app::{App, audit, credential_rotation, keys, ledger, second_factor, targets};
use crate::store::db::master_keys::{self, Holder, MasterKeyRecord, Place, Sealed};
use crate::store::db::{DbError, Tx, bastion_keys};
use crate::store::seal::{MasterKey, MasterKeySettings, SealError};

/// How often the state is looked at.
const SWEEP: Duration = Duration::from_secs(2);
/// A node that has not said for so long which keys it has is not there.
const GONE: TimeDelta = TimeDelta::seconds(15);
/// What another node began to seal before it heard of the new key is written within this.
const SETTLE: TimeDelta = TimeDelta::seconds(5);
/// Values that are sealed anew in one transaction.
const AT_ONCE: usize = 100;

/// Why no other master key seals.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("the only master key that is loaded seals already")]
    NoOther,
    #[error("more than one other master key is loaded: {}", ids.join(", "))]
    WhichOne { ids: Vec<String> },
    #[error("no master key {id} is loaded that could seal")]
    Unknown { id: String },
    #[error("master key {id} is not loaded on {}", nodes.join(", "))]
    NotEverywhere { id: String, nodes: Vec<String> },
    #[error("master key {id} is on its way out: all is to be sealed anew first")]
    UnderWay { id: String },
    #[error("another rotation came first")]
    Raced,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why the bastion does not begin with these master keys.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(
        "the database's secrets are sealed with master key {needed}, and {loaded} is loaded; name the file of {needed} in `[master_key]`"
    )]
    OtherKey { needed: String, loaded: String },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What a rotation has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterRotation {
    pub from: String,
    pub to: String,
}

/// Finds out which of the loaded keys seals. In a database without a master key the one that was configured does from now on.
pub async fn begin(app: &App) -> Result<(), BeginError> {
    let mut tx = app.db.write().await?;
    let mut known = master_keys::list(&mut tx).await?;
    if known.is_empty() {
        // A database from before this version says it by what is sealed.
        let loaded = app.master.ids();
        for place in Place::ALL {
            let all = master_keys::sealed(&mut tx, place).await?;
            let mut needed = all.iter().filter_map(|value| MasterKey::needed(&value.sealed));
            if let Some(needed) = needed.find(|id| !loaded.contains(id)) {
                return Err(BeginError::OtherKey { needed, loaded: loaded.join(", ") });
            }
        }
        master_keys::insert(&mut tx, &app.master.id(), app.clock.now()).await?;
        known = master_keys::list(&mut tx).await?;
    }
    tx.commit().await?;
    match in_use(&known) {
        Some(key) if !app.master.put_to_use(&key.id) => {
            Err(BeginError::OtherKey { needed: key.id.clone(), loaded: app.master.ids().join(", ") })
        }
        Some(_) | None => Ok(()),
    }
}

fn in_use(known: &[MasterKeyRecord]) -> Option<&MasterKeyRecord> {
    known.iter().find(|key| key.replaced_at.is_none())
}

/// Lets another master key seal: the one with this id, or the only other one that is loaded. Everything is sealed anew by the
/// sweeps that follow; until then the old one is needed too.
pub async fn rotate(app: &App, actor: &Actor, to: Option<&str>) -> Result<MasterRotation, RotateError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let known = master_keys::list(&mut tx).await?;
    if let Some(leaving) = known.iter().find(|key| key.replaced_at.is_some() && key.retired_at.is_none()) {
        return Err(RotateError::UnderWay { id: leaving.id.clone() });
    }
    let from = in_use(&known).map_or_else(|| app.master.id(), |key| key.id.clone());
    let spent: BTreeSet<&str> = known.iter().map(|key| key.id.as_str()).collect();
    let others: Vec<String> =
        app.master.ids().into_iter().filter(|id| *id != from && !spent.contains(id.as_str())).collect();
    let to = match (to, others.as_slice()) {
        (Some(to), others) if others.iter().any(|id| id == to) => to.to_owned(),
        (Some(to), _) => return Err(RotateError::Unknown { id: to.to_owned() }),
        (None, [only]) => only.clone(),
        (None, []) => return Err(RotateError::NoOther),
        (None, several) => return Err(RotateError::WhichOne { ids: several.to_vec() }),
    };
    let nodes = without(&master_keys::holders(&mut tx, now - GONE).await?, |holder| holder.key_id == to);
    if !nodes.is_empty() {
        return Err(RotateError::NotEverywhere { id: to, nodes });
    }
    // A database from before this version may not know the old one.
    master_keys::insert(&mut tx, &from, now).await?;
    if !(master_keys::replace(&mut tx, &from, now).await? && master_keys::insert(&mut tx, &to, now).await?) {
        return Err(RotateError::Raced);
    }
    let act = Act::MasterKeyRotated { from: from.clone(), to: to.clone() };
    audit::append(&mut tx, now, actor, act).await?;
    tx.commit().await?;
    app.master.put_to_use(&to);
    Ok(MasterRotation { from, to })
}

/// The nodes none of whose keys is one that `fits`.
fn without(holders: &[Holder], fits: impl Fn(&Holder) -> bool) -> Vec<String> {
    let all: BTreeSet<&str> = holders.iter().map(|holder| holder.node.as_str()).collect();
    let those: BTreeSet<&str> =
        holders.iter().filter(|holder| fits(holder)).map(|holder| holder.node.as_str()).collect();
    all.difference(&those).map(|&node| node.to_owned()).collect()
}

/// Follows files and database until `stop`.
pub async fn sweep(app: App, settings: MasterKeySettings, node: String, stop: CancellationToken) {
    let mut said = BTreeSet::new();
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let loading = settings.clone();
        let loaded = tokio::task::spawn_blocking(move || MasterKey::load_more(&loading, |name| std::env::var_os(name)));
        for loaded in loaded.await.unwrap_or_default() {
            match loaded {
                Ok(key) => {
                    let id = key.id();
                    if app.master.add(key) {
                        info!(key = %id, "Another master key is loaded; `sallyport key rotate master` puts it to use.");
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if said.insert(error.clone()) {
                        warn!(%error, "A file that may hold another master key is left out.");
                    }
                }
            }
        }
        match look(&app, &node).await {
            Ok(()) => {}
            Err(SweepError::Db(error)) => debug!(%error, "Which master key seals could not be looked up."),
            Err(error) => {
                let error = error.to_string();
                if said.insert(error.clone()) {
                    error!(%error, "What is sealed with another master key stays so.");
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("master key {0} seals, and is not loaded on this node")]
    NotLoaded(String),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// One look: says what this node has, follows the database, seals anew, and retires what seals nothing any more.
async fn look(app: &App, node: &str) -> Result<(), SweepError> {
    let known = master_keys::list(&mut app.db.read().await?).await?;
    let Some(key) = in_use(&known) else { return Ok(()) };
    let is_loaded = app.master.put_to_use(&key.id);
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    for id in app.master.ids() {
        let seals = id == app.master.id();
        master_keys::hold(&mut tx, &Holder { node: node.to_owned(), key_id: id, seals }, now).await?;
    }
    tx.commit().await?;
    if !is_loaded {
        return Err(SweepError::NotLoaded(key.id.clone()));
    }
    if let Some(key) = app.master.only(&key.id) {
        seal_anew(app, &key).await?;
    }
    for leaving in known.iter().filter(|key| key.replaced_at.is_some() && key.retired_at.is_none()) {
        if leaving.replaced_at.is_some_and(|at| at + SETTLE <= now) {
            retire(app, &key.id, &leaving.id, now).await?;
        }
    }
    Ok(())
}

/// Seals with key `to` whatever is sealed with another one.
async fn seal_anew(app: &App, to: &MasterKey) -> Result<(), SweepError> {
    let mut tx = app.db.read().await?;
    let mut others = Vec::new();
    for place in Place::ALL {
        let some = master_keys::others(&mut tx, place, to.id_bytes()).await?;
        others.extend(some.into_iter().map(|value| (place, value)));
    }
    drop(tx);
    for some in others.chunks(AT_ONCE) {
        let mut tx = app.db.write().await?;
        for (place, value) in some {
            let context = context(*place, value);
            let secret = app.master.open(&context, &value.sealed)?;
            let sealed = to.seal(&context, secret.expose_secret())?;
            // If somebody else has changed it meanwhile, theirs counts; the next sweep looks at it.
            master_keys::put(&mut tx, *place, value, &sealed).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Retires the key `from`, if it opens nothing any more: every node seals with `to`, and all that is sealed opens with `to` alone.
async fn retire(app: &App, to: &str, from: &str, now: DateTime<Utc>) -> Result<(), SweepError> {
    let mut tx = app.db.write().await?;
    let holders = master_keys::holders(&mut tx, now - GONE).await?;
    if !without(&holders, |holder| holder.seals && holder.key_id == to).is_empty() {
        return Ok(());
    }
    let mut secrets = 0;
    for place in Place::ALL {
        for value in master_keys::sealed(&mut tx, place).await? {
            let context = context(place, &value);
            let opens = app.master.only(to).is_some_and(|key| key.open(&context, &value.sealed).is_ok());
            let still = app.master.only(from).is_some_and(|key| key.open(&context, &value.sealed).is_ok());
            if !opens || still {
                return Ok(()); // the next sweep seals it anew
            }
            secrets += 1;
        }
    }
    if master_keys::retire(&mut tx, from, now).await? {
        let act = Act::MasterKeyRetired { key: from.to_owned(), secrets };
        audit::append(&mut tx, now, &Actor::Bastion, act).await?;
        tx.commit().await?;
        info!(key = %from, secrets, "Everything is sealed with the new master key; the old one opens nothing any more.");
    }
    Ok(())
}

/// Whose a sealed value is.
fn context(place: Place, value: &Sealed) -> String {
    match place {
        Place::BastionKey | Place::StagedKey => keys::context(&value.word, value.id),
        Place::LedgerKey => ledger::keys::context(value.id),
        Place::SecondFactor => second_factor::context(PrincipalId::from_uuid(value.id)),
        Place::TargetSecret => targets::context(TargetId::from_uuid(value.id), &value.word),
        Place::Beside => credential_rotation::beside_context(TargetId::from_uuid(value.id), &value.word),
        Place::LiveKey => encryption::live_key_context(RecordingId::from_uuid(value.id)),
    }
}

/// Where a key is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// A master key that opens, and seals nothing yet.
    Loaded,
    /// An authority that is to be trusted, and does not sign yet.
    Staged,
    InUse,
    /// Not used any more, and still needed.
    Leaving,
    Retired,
}

impl KeyState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyState::Loaded => "loaded",
            KeyState::Staged => "staged",
            KeyState::InUse => "in_use",
            KeyState::Leaving => "leaving",
            KeyState::Retired => "retired",
        }
    }
}

/// A key of the bastion, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub purpose: String,
    pub state: KeyState,
    pub fingerprint: String,
    pub public_key: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub retired_at: Option<DateTime<Utc>>,
}

/// Every key of the bastion.
pub async fn list(app: &App) -> Result<Vec<KeyInfo>, DbError> {
    let mut tx = app.db.read().await?;
    let mut all = list_ledger(&mut tx).await?;
    for (purpose, key) in bastion_keys::list(&mut tx).await? {
        let fingerprint = key.public_key.parse::<SshPublicKey>().map(|key| key.fingerprint().to_string());
        all.push(KeyInfo {
            purpose,
            state: match (key.staged, key.retired_at, key.withdrawn_at) {
                (true, ..) => KeyState::Staged,
                (false, None, _) => KeyState::InUse,
                (false, Some(_), None) => KeyState::Leaving,
                (false, Some(_), Some(_)) => KeyState::Retired,
            },
            fingerprint: fingerprint.unwrap_or_default(),
            public_key: Some(key.public_key),
            created_at: Some(key.created_at),
            retired_at: key.retired_at,
        });
    }
    let known = master_keys::list(&mut tx).await?;
    let info = |id: &str, state, created_at, retired_at| KeyInfo {
        purpose: "master".to_owned(),
        state,
        fingerprint: id.to_owned(),
        public_key: None,
        created_at,
        retired_at,
    };
    all.extend(known.iter().map(|key| {
        let state = match (key.replaced_at, key.retired_at) {
            (None, _) => KeyState::InUse,
            (Some(_), None) => KeyState::Leaving,
            (Some(_), Some(_)) => KeyState::Retired,
        };
        info(&key.id, state, Some(key.since), key.retired_at)
    }));
    let loaded = app.master.ids().into_iter().filter(|id| known.iter().all(|key| key.id != *id));
    all.extend(loaded.map(|id| info(&id, KeyState::Loaded, None, None)));
    Ok(all)
}

async fn list_ledger(tx: &mut Tx) -> Result<Vec<KeyInfo>, DbError> {
    let shape = |key: ledger::LedgerKey| KeyInfo {
        purpose: "ledger".to_owned(),
        state: if key.retired.is_some() { KeyState::Retired } else { KeyState::InUse },
        fingerprint: key.vkey.parse::<VerifierKey>().map(|key| key.fingerprint().to_string()).unwrap_or_default(),
        public_key: Some(key.vkey),
        created_at: Some(key.created_at),
        retired_at: key.retired.map(|(at, _)| at),
    };
    Ok(crate::store::db::ledger::keys(tx).await?.into_iter().map(shape).collect())
}

#[cfg(test)]
mod tests;
