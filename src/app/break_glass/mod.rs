//! Break-glass: a grant in a sealed envelope, which its node opens once, with or without the database.
//!
//! ```text
//! make ──► file ──► open: checked against what the node keeps on its disk (kept) ──► used up
//!                      └─► a database and an object store of its own (local), on the node's disk, with that grant in them
//!                             ├─ the database is away: the SSH door works on those, with everything that it always does
//!                             └─ it answers: all that is in them is brought there (home), and they go
//! ```
//!
//! So there is no second way to a permit, a session or a recording: what a session under an opened envelope rests on is an [`App`]
//! like any other, with the small database behind it.

mod home;
mod kept;
mod local;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use sallyport_domain::break_glass::{self, Envelope, EnvelopeError, Kept, Refusal, SealedSecret};
use sallyport_domain::commands::rules::CommandRules;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::files::FileRules;
use sallyport_domain::grant::{Approval, Capabilities, EmptyWindow, Forwarding, Grant, TargetSelector, Terms};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::EnvelopeId;
use sallyport_domain::ledger::note::SignerKey;
use sallyport_domain::name::{Login, PrincipalName, TargetName};
use sallyport_domain::review::ReviewTerm;
use sallyport_domain::target::{CredentialKind, Target};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use self::home::{Home, HomeError};
use self::kept::KeptFiles;
use self::local::Local;
use crate::app::clock::whole_microseconds;
use crate::app::health::Health;
use crate::app::keys::{self, KeyError, Purpose};
use crate::app::recordings::{RecordingSettings, Recordings};
use crate::app::text::{self, TextError};
use crate::app::{App, audit, grants};
use crate::store::db::{self, DbError, Tx};
use crate::store::seal::SealError;

pub use crate::store::db::break_glass::EnvelopeRecord;
pub use kept::{KeptError, read_keys};

/// A session under an opened envelope is to be reviewed within a working day.
const REVIEW: ReviewTerm = ReviewTerm::Within(1);

/// How often what is kept for the day without a database is written anew, and what happened without it is brought home.
const TICK: Duration = Duration::from_secs(2);

/// How long whoever opens an envelope waits for the database.
const PATIENCE: Duration = Duration::from_secs(5);

/// An envelope to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnvelope {
    pub person: PrincipalName,
    /// At least one.
    pub targets: Vec<TargetName>,
    /// At least one.
    pub logins: Vec<Login>,
    pub capabilities: Capabilities,
    pub max_sessions: u32,
    /// How long the grant lasts once it was opened: an hour at most.
    pub lasting: Duration,
    /// Until when it can be opened.
    pub not_after: DateTime<Utc>,
    pub node: String,
    pub reason: String,
}

/// An envelope that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeEnvelope {
    pub id: EnvelopeId,
    /// The file.
    pub file: String,
    pub document: Hash,
    /// What verifies it, as a vkey.
    pub key: String,
}

/// An envelope that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedEnvelope {
    pub envelope: Envelope,
    pub grant: Grant,
    /// Whether the database has the grant. If not, it is this node's alone until the database answers.
    pub is_in_database: bool,
}

/// Why an envelope was not made, revoked or opened.
#[derive(Debug, thiserror::Error)]
pub enum BreakGlassError {
    #[error("there is no envelope {id}")]
    Unknown { id: EnvelopeId },
    #[error("envelope {id} was opened, was revoked or has ended")]
    Over { id: EnvelopeId },
    #[error("there is no person `{name}`")]
    UnknownPerson { name: PrincipalName },
    #[error("there is no target `{name}`")]
    UnknownTarget { name: TargetName },
    #[error("there is no node `{node}`; known are: {known}")]
    UnknownNode { node: String, known: String },
    #[error("an envelope lasts from a second to an hour")]
    Lasting,
    #[error("no envelope comes of this: {0}")]
    NoEnvelope(EnvelopeError),
    #[error("the file is not an envelope of this bastion: {0}")]
    Unreadable(EnvelopeError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("another envelope is open on this node until {until}, for {person}")]
    AnotherOpen { person: PrincipalName, until: DateTime<Utc> },
    #[error(
        "the credential of {login} on `{target}` cannot be opened here; make a new envelope after each rotation of the master key"
    )]
    Sealed { target: TargetName, login: Login, source: Box<SealError> },
    #[error("the key of `{person}` that is in the envelope cannot be read")]
    Key { person: PrincipalName },
    #[error("what belongs to the envelope cannot be kept on this node's disk: {0}")]
    Disk(String),
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Terms(#[from] grants::GrantError),
    #[error(transparent)]
    Window(#[from] EmptyWindow),
    #[error(transparent)]
    BastionKey(#[from] KeyError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The key that signs envelopes; made if there is none.
pub async fn signer(app: &App) -> Result<SignerKey, KeyError> {
    let purpose = Purpose::BreakGlass;
    let key = keys::bastion_key(app, purpose).await?;
    let seed = keys::seed(&key.private_key).ok_or(KeyError::NoText { purpose })?;
    let name = break_glass::KEY_NAME.parse().map_err(|_| KeyError::NoText { purpose })?;
    Ok(SignerKey::new(name, &seed))
}

/// Makes an envelope, by the rules that a grant is made by, and stricter ones.
pub async fn make(app: &App, actor: &Actor, new: NewEnvelope) -> Result<MadeEnvelope, BreakGlassError> {
    let reason = text::check("reason", &new.reason, text::MOST_REASON)?;
    let lasting_seconds = u32::try_from(new.lasting.as_secs()).ok();
    let lasting_seconds = lasting_seconds.filter(|seconds| (1..=break_glass::MOST_LASTING_SECONDS).contains(seconds));
    let lasting_seconds = lasting_seconds.ok_or(BreakGlassError::Lasting)?;
    let signer = signer(app).await?;
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let nodes: HashSet<String> = db::nodes::list(&mut tx).await?.into_iter().map(|node| node.node).collect();
    if !nodes.contains(&new.node) {
        let mut known: Vec<String> = nodes.into_iter().collect();
        known.sort();
        return Err(BreakGlassError::UnknownNode { node: new.node, known: known.join(", ") });
    }
    let found = db::principals::find(&mut tx, &new.person).await?;
    let Some(person) = found.map(|record| record.principal) else {
        return Err(BreakGlassError::UnknownPerson { name: new.person });
    };
    let keys = db::principals::keys_of(&mut tx, person.id).await?;
    let mut targets = Vec::new();
    let mut names = Vec::new();
    for name in new.targets {
        let found = db::targets::find(&mut tx, &name).await?;
        let target = found.ok_or(BreakGlassError::UnknownTarget { name })?;
        names.push(TargetSelector::Name(target.name.as_str().to_owned()));
        add_with_way(&mut tx, &mut targets, target).await?;
    }
    let terms = Terms {
        targets: names,
        logins: new.logins,
        capabilities: new.capabilities,
        source_networks: Vec::new(),
        max_sessions: Some(new.max_sessions),
        second_factor: false,
        approval: Approval::None,
        files: FileRules::default(),
        commands: CommandRules::default(),
        forwarding: Forwarding::default(),
        review: Some(REVIEW),
    };
    grants::check_open_terms(&terms)?;
    let mut secrets = Vec::new();
    for target in &targets {
        for account in target.logins.iter().filter(|account| account.credential != CredentialKind::Certificate) {
            if let Some(sealed) = db::targets::secret(&mut tx, target.id, &account.login).await? {
                let (target, login) = (target.id, account.login.clone());
                secrets.push(SealedSecret { target, login, sealed: STANDARD.encode(sealed) });
            }
        }
    }
    let mut envelope = Envelope {
        id: EnvelopeId::from_uuid(Uuid::now_v7()),
        node: new.node,
        person,
        keys: keys.iter().map(|key| key.public_key.clone()).collect(),
        targets,
        secrets,
        terms,
        lasting_seconds,
        reason,
        made_by: actor.clone(),
        made_at: now,
        not_after: whole_microseconds(new.not_after),
    };
    // A credential that nothing of the terms leads to stays at home.
    let needed: HashSet<_> = envelope.credentials().map(|(target, login)| (target.id, login.clone())).collect();
    envelope.secrets.retain(|secret| needed.contains(&(secret.target, secret.login.clone())));
    let file = envelope.sign(&signer).map_err(BreakGlassError::NoEnvelope)?;
    let document = Envelope::document(file.as_bytes());
    let record = EnvelopeRecord {
        id: envelope.id,
        document,
        person: envelope.person.id,
        person_name: envelope.person.name,
        is_disabled: false,
        keys: keys.into_iter().map(|key| key.fingerprint).collect(),
        terms: envelope.terms.clone(),
        lasting_seconds,
        node: envelope.node.clone(),
        reason: envelope.reason.clone(),
        made_by: actor.clone(),
        made_at: now,
        not_after: envelope.not_after,
        revoked_at: None,
        opened: None,
    };
    db::break_glass::insert(&mut tx, &record).await?;
    let act = Act::BreakGlassMade {
        envelope: envelope.id,
        document,
        person: envelope.person.id,
        node: envelope.node,
        terms: envelope.terms,
        lasting_seconds,
        not_after: envelope.not_after,
        reason: envelope.reason,
    };
    audit::append(&mut tx, now, actor, act).await?;
    tx.commit().await?;
    Ok(MadeEnvelope { id: envelope.id, file, document, key: signer.public().to_string() })
}

/// Adds a target and those on the way to it, each once.
async fn add_with_way(tx: &mut Tx, targets: &mut Vec<Target>, target: Target) -> Result<(), DbError> {
    let mut next = Some(target);
    while let Some(target) = next {
        if targets.iter().any(|known| known.id == target.id) {
            return Ok(());
        }
        let jump = target.jump;
        targets.push(target);
        next = match jump {
            Some(id) => db::targets::find_by_id(tx, id).await?,
            None => None,
        };
    }
    Ok(())
}

/// Envelopes that were made, the newest first.
pub async fn list(app: &App) -> Result<Vec<EnvelopeRecord>, DbError> {
    db::break_glass::list(&mut app.db.read().await?, None).await
}

/// Revokes an envelope that was not opened. Nodes hear of it while the database answers; one that is cut off from it does not.
pub async fn revoke(app: &App, actor: &Actor, id: EnvelopeId, reason: &str) -> Result<EnvelopeRecord, BreakGlassError> {
    let reason = text::check("reason", reason, text::MOST_REASON)?;
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    db::policy_version::raise(&mut tx).await?; // other nodes write their lists anew
    let revoked = db::break_glass::revoke(&mut tx, id, now).await?;
    let Some(record) = db::break_glass::find(&mut tx, id).await? else {
        return Err(BreakGlassError::Unknown { id });
    };
    if !revoked {
        return Err(BreakGlassError::Over { id });
    }
    audit::append(&mut tx, now, actor, Act::BreakGlassRevoked { envelope: id, reason }).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(record)
}

/// What stands behind the door while the database is away and an envelope is open.
#[derive(Clone)]
pub struct Opened {
    pub app: App,
    pub recordings: Recordings,
}

/// A node's envelopes: what it keeps on its disk about them, and those that it has opened. Cheap to clone.
#[derive(Clone)]
pub struct BreakGlass(Arc<Inner>);

struct Inner {
    app: App,
    node: String,
    recording: RecordingSettings,
    health: Health,
    kept: Mutex<KeptFiles>,
    /// The turn at opening one.
    opening: AsyncMutex<()>,
    /// Opened here, and not all home yet.
    locals: Mutex<Vec<Held>>,
    /// The one whose window is open.
    open: Mutex<Option<Open>>,
}

#[derive(Clone)]
struct Open {
    envelope: EnvelopeId,
    person: PrincipalName,
    until: DateTime<Utc>,
    behind: Opened,
}

/// One opened envelope. Its locks are not those of the list: bringing it home waits for stores.
#[derive(Clone)]
struct Held {
    envelope: EnvelopeId,
    recordings: Recordings,
    local: Arc<AsyncMutex<Option<Local>>>,
}

impl Held {
    fn new(local: Local) -> Self {
        let (envelope, recordings) = (local.envelope(), local.opened().recordings);
        Self { envelope, recordings, local: Arc::new(AsyncMutex::new(Some(local))) }
    }
}

impl BreakGlass {
    /// What `node` keeps in `dir`, which is made if it is not there.
    pub fn start(
        app: App,
        node: String,
        dir: PathBuf,
        recording: RecordingSettings,
        health: Health,
    ) -> io::Result<Self> {
        let kept = Mutex::new(KeptFiles::open(dir)?);
        let (opening, locals, open) = (AsyncMutex::default(), Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { app, node, recording, health, kept, opening, locals, open })))
    }

    /// What stands behind an opened envelope, as long as its grant lasts.
    pub fn opened(&self) -> Option<Opened> {
        let now = self.0.app.clock.now();
        held(&self.0.open).as_ref().filter(|open| now < open.until).map(|open| open.behind.clone())
    }

    /// Opens an envelope by the hand of the operator `uid` of this node's host. From then on its grant lasts: in the database if that
    /// answers, and on this node in any case.
    pub async fn open(&self, uid: u32, file: &[u8], reason: &str) -> Result<OpenedEnvelope, BreakGlassError> {
        let inner = &self.0;
        let opened = self.try_open(uid, file, reason).await;
        if let Err(error) = &opened {
            let (why, document) = (error.to_string(), Envelope::document(file));
            error!(uid, %document, why, "An envelope was not opened.");
            let act = Act::BreakGlassRefused { document, node: inner.node.clone(), why };
            let operator = Actor::Operator { uid };
            let noted = audit::record(&inner.app, &operator, act);
            if inner.health.is_database_up() && !matches!(tokio::time::timeout(PATIENCE, noted).await, Ok(Ok(_))) {
                warn!("That an envelope was refused could not be written down.");
            }
        }
        opened
    }

    async fn try_open(&self, uid: u32, file: &[u8], reason: &str) -> Result<OpenedEnvelope, BreakGlassError> {
        let inner = &self.0;
        let reason = text::check("reason", reason, text::MOST_REASON)?;
        let _turn = inner.opening.lock().await;
        // What the database knows by now counts, if it answers.
        if tokio::time::timeout(PATIENCE, self.refresh()).await.is_err() {
            debug!("The database does not answer somebody who opens an envelope.");
        }
        let now = inner.app.clock.now();
        let envelope = {
            let kept = held(&inner.kept);
            let envelope = Envelope::read(file, kept.keys()).map_err(BreakGlassError::Unreadable)?;
            let used = kept.used()?;
            let kept = Kept { node: &inner.node, void: kept.void(), used: &used, latest: kept.latest() };
            envelope.may_open(kept, now)?;
            envelope
        };
        if let Some(open) = held(&inner.open).as_ref().filter(|open| now < open.until) {
            return Err(BreakGlassError::AnotherOpen { person: open.person.clone(), until: open.until });
        }
        let document = Envelope::document(file);
        let dir = held(&inner.kept).folder(envelope.id);
        let local = Local::make(inner, dir, &envelope, document, (uid, &reason)).await?;
        let grant = local.grant.clone();
        // From here on it is used up, whatever happens.
        let noted = held(&inner.kept).note_used(envelope.id, document, now);
        if let Err(error) = noted {
            local.remove().await;
            return Err(error.into());
        }
        error!(
            envelope = %envelope.id, person = %envelope.person.name, grant = %grant.id, uid, reason, until = %grant.window.not_after(),
            "BREAK-GLASS: an envelope was opened. It is recorded and owes a review."
        );
        *held(&inner.open) = Some(Open {
            envelope: envelope.id,
            person: envelope.person.name.clone(),
            until: grant.window.not_after(),
            behind: local.opened(),
        });
        let one = Held::new(local);
        held(&inner.locals).push(one.clone());
        let bring = async { matches!(self.bring(&one).await, Ok(Some(_))) };
        let is_in_database = inner.health.ask(&inner.app).await
            && tokio::time::timeout(PATIENCE, bring).await.is_ok_and(std::convert::identity);
        Ok(OpenedEnvelope { envelope, grant, is_in_database })
    }

    /// Keeps the disk up to date and brings home what happened without the database, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.0.app.changes.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                told = changes.changed() => if told.is_err() { return },
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.turn() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One look at everything.
    async fn turn(&self) {
        let inner = &self.0;
        let is_up = inner.health.is_database_up();
        if is_up {
            self.refresh().await;
        }
        self.adopt().await;
        let now = inner.app.clock.now();
        if held(&inner.open).take_if(|open| open.until <= now).is_some() {
            info!("The window of an opened envelope is over.");
        }
        if !is_up {
            return;
        }
        let locals = held(&inner.locals).clone();
        for one in locals {
            let brought = self.bring(&one).await;
            match brought {
                Ok(Some(Home::All)) => {
                    // Its window is over, or it was ended before.
                    drop(held(&inner.open).take_if(|open| open.envelope == one.envelope));
                    if let Some(local) = one.local.lock().await.take() {
                        local.remove().await;
                    }
                    held(&inner.locals).retain(|other| other.envelope != one.envelope);
                    info!(envelope = %one.envelope, "All that happened under an opened envelope is in the books.");
                }
                Ok(None | Some(Home::Not)) => {}
                Err(error) if error.is_passing() => {
                    debug!(%error, "What happened under an opened envelope waits on this node's disk.");
                }
                Err(error) => {
                    if let Some(local) = one.local.lock().await.as_mut() {
                        local.complain(&error);
                    }
                }
            }
        }
    }

    /// Brings what is ready to the books; `None` if all is there and nothing is left here.
    async fn bring(&self, one: &Held) -> Result<Option<Home>, HomeError> {
        match one.local.lock().await.as_mut() {
            Some(local) => home::bring(&self.0.app, local).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes up what an earlier process of this node has left.
    async fn adopt(&self) {
        let inner = &self.0;
        let folders = held(&inner.kept).folders();
        let folders = match folders {
            Ok(folders) => folders,
            Err(error) => return warn!(%error, "What opened envelopes left behind cannot be looked for."),
        };
        for (id, dir) in folders {
            if held(&inner.locals).iter().any(|one| one.envelope == id) {
                continue;
            }
            match Local::adopt(inner, id, dir).await {
                Ok(Some(local)) => {
                    info!(envelope = %id, "What an earlier run has recorded under an opened envelope is taken up.");
                    held(&inner.locals).push(Held::new(local));
                }
                Ok(None) => {} // another process of this node has it, or is making it
                Err(error) => {
                    error!(envelope = %id, %error, "What was recorded under an opened envelope cannot be read.")
                }
            }
        }
    }

    /// Writes down what the database knows of this node's envelopes.
    async fn refresh(&self) {
        let inner = &self.0;
        let known = async {
            let key = signer(&inner.app).await?.public();
            let now = inner.app.clock.now();
            let mut tx = inner.app.db.read().await?;
            let mut void = Vec::new();
            for envelope in db::break_glass::list(&mut tx, Some(now)).await? {
                let keys = db::principals::keys_of(&mut tx, envelope.person).await?;
                let has_all = envelope.keys.iter().all(|known| keys.iter().any(|key| key.fingerprint == *known));
                let is_good = envelope.revoked_at.is_none() && envelope.opened.is_none() && !envelope.is_disabled;
                if !is_good || !has_all {
                    void.push(envelope.id);
                }
            }
            Ok::<_, KeyError>((key, void, now))
        };
        match known.await {
            Ok((key, void, now)) => {
                let written = held(&inner.kept).write(key, void, now);
                if let Err(error) = written {
                    error!(%error, "What this node keeps for break-glass cannot be written to its disk.");
                }
            }
            Err(error) => debug!(%error, "What this node keeps for break-glass stays as it is."),
        }
    }

    /// Brings recordings to rest, and all of it to the books, as far as that comes within `patience`; what is left is for the next start.
    pub async fn close(&self, patience: Duration) {
        let locals = held(&self.0.locals).clone();
        for one in locals {
            one.recordings.close(patience).await;
            if self.0.health.is_database_up() {
                match tokio::time::timeout(patience, self.bring(&one)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => warn!("What happened under an opened envelope is left to the next start."),
                }
            }
        }
    }
}

/// Nothing is awaited while it is held.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
