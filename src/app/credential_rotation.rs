//! What the bastion logs in to a target with is replaced by another key: the books of it. `ssh/rotation.rs` does what they say.
//!
//! ```text
//!               stored      kept beside
//! begun         old         new          new key made; nothing has happened at the target
//! installed     old         new          the account takes both
//! proved        old         new          a login with the new one succeeded
//! switched      new         old
//! removed       new         old          the account takes the new one
//! dead          new         —            a login with the old one was refused
//! ```
//!
//! Both keys are sealed in the database until the end, and the one that is stored always works. Whoever comes after a
//! failure, or a crash, goes on where it stopped: `begun` to `proved` are done again (they change nothing that was done), `switched` and
//! `removed` too. Each step's outcome is an event.
//!
//! Keys only. A certificate is of one session. A password has one value at a time: between the old one's end and the proof of the new one
//! nothing is known to work, and each host's PAM asks for it in its own way; so it is changed by hand, with `target set`.

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::secret::PrivateKeyText;
use sallyport_domain::ssh_key::SshPublicKey;
use sallyport_domain::target::{CredentialKind, Target};
use secrecy::ExposeSecret as _;

use crate::app::access::{self, OpenError};
use crate::app::{App, audit, keys, targets};
use crate::store::db::rotations;
pub use crate::store::db::rotations::Schedule;
use crate::store::db::{self, DbError};
use crate::store::seal::SealError;

/// How long the turn lasts without being taken anew: longer than any step.
const TURN: TimeDelta = TimeDelta::seconds(60);
/// After a failure a schedule tries again this much later, or at its interval if that is shorter.
const AGAIN: TimeDelta = TimeDelta::hours(1);
/// The shortest interval.
pub const LEAST_EVERY_S: u64 = 60;

/// Where OpenSSH looks for an account's keys, from its home on.
pub const USUAL_FILE: &str = ".ssh/authorized_keys";
const MOST_FILE: usize = 1024;

/// Why a key is not replaced.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("there is no target `{name}`")]
    Unknown { name: TargetName },
    #[error("target `{name}` has no account `{login}`")]
    NoLogin { name: TargetName, login: Login },
    #[error(
        "at `{login}` on `{name}` the bastion proves itself with a certificate for each session: nothing is stored"
    )]
    Certificate { name: TargetName, login: Login },
    #[error(
        "the password of `{login}` on `{name}` cannot be proved before the old one is gone; change it there and here \
         (`target set`), or store a key"
    )]
    Password { name: TargetName, login: Login },
    #[error("`{file}` is not a path that can be written down: 1 to {MOST_FILE} bytes without control characters")]
    File { file: String },
    #[error("an interval has at least {LEAST_EVERY_S} s")]
    Interval,
    #[error("nothing is replaced by schedule at `{login}` on `{name}`")]
    NoSchedule { name: TargetName, login: Login },
    #[error("the key of `{login}` on `{name}` is being replaced just now, or was a minute ago by a node that died")]
    Busy { name: TargetName, login: Login },
    #[error("the credentials of `{name}` were set otherwise meanwhile")]
    Overtaken { name: TargetName },
    #[error("a key of `{login}` on `{name}` cannot be opened or sealed")]
    Sealed { name: TargetName, login: Login, source: SealError },
    #[error("the stored key of `{login}` on `{name}` cannot be used")]
    Unusable { name: TargetName, login: Login },
    #[error("the system gave no randomness for a key")]
    NoRandomness,
    #[error("the way to `{name}` leads through a target that is gone or disabled")]
    NoWay { name: TargetName },
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What was done, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Begun,
    Installed,
    Proved,
    Switched,
    Removed,
    Dead,
}

impl Step {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Begun => "begun",
            Step::Installed => "installed",
            Step::Proved => "proved",
            Step::Switched => "switched",
            Step::Removed => "removed",
            Step::Dead => "dead",
        }
    }
}

/// The turn at one account's key. Nobody else has it, and nothing but this lets the bastion connect to a target without a session.
#[derive(Debug)]
pub struct Turn {
    target: Target,
    jumps: Vec<Target>,
    login: Login,
    file: String,
    actor: Actor,
    old: PrivateKeyText,
    new: PrivateKeyText,
    /// SHA-256 of the new key, as OpenSSH writes it.
    fingerprint: String,
    switched: bool,
    held: DateTime<Utc>,
}

/// Takes the turn at the key of `login` on `name`: begins, or goes on with what was begun. `file` is where the account's keys are.
pub async fn take_turn(
    app: &App,
    actor: &Actor,
    name: &TargetName,
    login: &Login,
    file: &str,
) -> Result<Turn, RotationError> {
    check_file(file)?;
    let now = app.clock.now();
    let sealed_error = |source| RotationError::Sealed { name: name.clone(), login: login.clone(), source };
    let mut tx = app.db.write().await?;
    let target = account(&mut tx, name, login).await?;
    let name = &target.name;
    let jumps = access::find_jumps(&mut tx, &target).await;
    let jumps = jumps.map_err(|error| match error {
        OpenError::Db(error) => RotationError::Db(error),
        OpenError::Denied { .. }
        | OpenError::Unclear { .. }
        | OpenError::Undecided
        | OpenError::Awaited { .. }
        | OpenError::TooManyWait { .. }
        | OpenError::NoWay { .. } => RotationError::NoWay { name: name.clone() },
    })?;
    let unusable = || RotationError::Unusable { name: name.clone(), login: login.clone() };
    let stored = db::targets::secret(&mut tx, target.id, login).await?.ok_or_else(unusable)?;
    let mut begins = false;
    if !rotations::is_under_way(&mut tx, target.id, login).await? {
        let (_, new) = keys::generate("sallyport").ok_or(RotationError::NoRandomness)?;
        let sealed = app.master.seal(&context(&target, login), new.expose().as_bytes()).map_err(sealed_error)?;
        begins = rotations::begin(&mut tx, target.id, login, &sealed, file, now).await?;
    }
    let held = now + TURN;
    let busy = || RotationError::Busy { name: name.clone(), login: login.clone() };
    let begun = rotations::claim(&mut tx, target.id, login, now, held, file).await?.ok_or_else(busy)?;
    let open = |context: &str, sealed: &[u8]| {
        let opened = app.master.open(context, sealed).map_err(sealed_error)?;
        let text = std::str::from_utf8(opened.expose_secret()).map_err(|_| unusable())?;
        Ok::<_, RotationError>(PrivateKeyText::new(text))
    };
    let stored = open(&targets::context(target.id, login.as_str()), &stored)?;
    let beside = open(&context(&target, login), &begun.sealed)?;
    let (old, new) = if begun.switched { (beside, stored) } else { (stored, beside) };
    let fingerprint = fingerprint_of(&new).ok_or_else(unusable)?;
    let turn = Turn {
        jumps,
        login: login.clone(),
        file: file.to_owned(),
        actor: actor.clone(),
        old,
        new,
        fingerprint,
        switched: begun.switched,
        held,
        target: target.clone(),
    };
    if begins {
        audit::append(&mut tx, now, actor, turn.act(Step::Begun, None)).await?;
    }
    tx.commit().await?;
    Ok(turn)
}

/// At the start: a database in a file is of one process, so whoever had a turn there is dead. On PostgreSQL turns end by themselves.
pub async fn start(app: &App) -> Result<(), DbError> {
    if let db::Db::Sqlite { .. } = app.db {
        let mut tx = app.db.write().await?;
        rotations::release_all(&mut tx).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The target, if what the bastion proves itself with at `login` is a stored key.
async fn account(tx: &mut db::Tx, name: &TargetName, login: &Login) -> Result<Target, RotationError> {
    let target = db::targets::find(tx, name).await?.ok_or_else(|| RotationError::Unknown { name: name.clone() })?;
    let (name, login) = (target.name.clone(), login.clone());
    match target.login(&login).map(|account| account.credential) {
        Some(CredentialKind::Key) => Ok(target),
        Some(CredentialKind::Certificate) => Err(RotationError::Certificate { name, login }),
        Some(CredentialKind::Password) => Err(RotationError::Password { name, login }),
        None => Err(RotationError::NoLogin { name, login }),
    }
}

/// The accounts of a target whose key can be replaced.
pub async fn accounts(app: &App, name: &TargetName) -> Result<Vec<Login>, RotationError> {
    let target = db::targets::find(&mut app.db.read().await?, name).await?;
    let target = target.ok_or_else(|| RotationError::Unknown { name: name.clone() })?;
    let keys = target.logins.iter().filter(|account| account.credential == CredentialKind::Key);
    Ok(keys.map(|account| account.login.clone()).collect())
}

fn context(target: &Target, login: &Login) -> String {
    beside_context(target.id, login.as_str())
}

/// What the key beside the stored one is sealed for.
pub(crate) fn beside_context(target: sallyport_domain::id::TargetId, login: &str) -> String {
    format!("target/{target}/{login}/beside")
}

fn fingerprint_of(key: &PrivateKeyText) -> Option<String> {
    let public = keys::public_half(key)?;
    public.parse::<SshPublicKey>().ok().map(|key| key.fingerprint().to_string())
}

fn check_file(file: &str) -> Result<(), RotationError> {
    let fits = !file.is_empty() && file.len() <= MOST_FILE && !file.contains(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(RotationError::File { file: file.chars().take(80).filter(|c| !c.is_control()).collect() })
    }
}

impl Turn {
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The targets on the way, the first to dial first.
    pub fn jumps(&self) -> &[Target] {
        &self.jumps
    }

    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The account's file of keys, from its home on.
    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn old_key(&self) -> &PrivateKeyText {
        &self.old
    }

    pub fn new_key(&self) -> &PrivateKeyText {
        &self.new
    }

    /// SHA-256 of the new key, as OpenSSH writes it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether the new key is the stored one.
    pub fn has_switched(&self) -> bool {
        self.switched
    }

    fn act(&self, step: Step, error: Option<String>) -> Act {
        Act::CredentialRotation {
            target: self.target.id,
            login: self.login.clone(),
            key: self.fingerprint.clone(),
            step: step.as_str().to_owned(),
            error,
        }
    }

    fn overtaken(&self) -> RotationError {
        RotationError::Overtaken { name: self.target.name.clone() }
    }

    /// Keeps the turn for one more step.
    pub async fn hold(&mut self, app: &App) -> Result<(), RotationError> {
        let until = app.clock.now() + TURN;
        let mut tx = app.db.write().await?;
        if !rotations::hold(&mut tx, self.target.id, &self.login, self.held, until).await? {
            return Err(self.overtaken());
        }
        tx.commit().await?;
        self.held = until;
        Ok(())
    }

    /// Writes that a step was done.
    pub async fn note(&self, app: &App, step: Step) -> Result<(), RotationError> {
        audit::record(app, &self.actor, self.act(step, None)).await?;
        Ok(())
    }

    /// Makes the new key, which was proved, the stored one, and keeps the old one beside it.
    pub async fn switch(&mut self, app: &App) -> Result<(), RotationError> {
        let now = app.clock.now();
        let sealed_error =
            |source| RotationError::Sealed { name: self.target.name.clone(), login: self.login.clone(), source };
        let seal = |context: &str, key: &PrivateKeyText| {
            app.master.seal(context, key.expose().as_bytes()).map_err(sealed_error)
        };
        let new = seal(&targets::context(self.target.id, self.login.as_str()), &self.new)?;
        let old = seal(&context(&self.target, &self.login), &self.old)?;
        let mut tx = app.db.write().await?;
        // `target set` takes the same hold, and forgets the rotation.
        db::targets::hold(&mut tx, self.target.id).await?;
        if !rotations::switch(&mut tx, self.target.id, &self.login, self.held, &old).await? {
            return Err(self.overtaken());
        }
        db::targets::set_secret(&mut tx, self.target.id, &self.login, &new, now).await?;
        audit::append(&mut tx, now, &self.actor, self.act(Step::Switched, None)).await?;
        tx.commit().await?;
        self.switched = true;
        Ok(())
    }

    /// Forgets the old key, which was proved dead.
    pub async fn end(self, app: &App) -> Result<(), RotationError> {
        let now = app.clock.now();
        let mut tx = app.db.write().await?;
        if !rotations::end(&mut tx, self.target.id, &self.login, self.held).await? {
            return Err(self.overtaken());
        }
        audit::append(&mut tx, now, &self.actor, self.act(Step::Dead, None)).await?;
        Ok(tx.commit().await?)
    }

    /// Writes that a step failed, and gives the turn back. What is stored works; the next turn goes on from here.
    pub async fn fail(self, app: &App, step: Step, error: &str) -> Result<(), RotationError> {
        let now = app.clock.now();
        let error: String = error.chars().filter(|sign| !sign.is_control()).take(500).collect();
        let mut tx = app.db.write().await?;
        rotations::release(&mut tx, self.target.id, &self.login, self.held).await?;
        audit::append(&mut tx, now, &self.actor, self.act(step, Some(error))).await?;
        Ok(tx.commit().await?)
    }
}

/// Lets the key of an account be replaced every `every_s` seconds, first when the stored one is that old.
pub async fn schedule(
    app: &App,
    actor: &Actor,
    name: &TargetName,
    login: &Login,
    every_s: u64,
    file: &str,
) -> Result<Schedule, RotationError> {
    check_file(file)?;
    let every = every(every_s).filter(|_| every_s >= LEAST_EVERY_S).ok_or(RotationError::Interval)?;
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let target = account(&mut tx, name, login).await?;
    let set_at = db::targets::secret_set_at(&mut tx, target.id, login).await?.unwrap_or(now);
    let next_at = set_at.checked_add_signed(every).unwrap_or(DateTime::<Utc>::MAX_UTC).max(now);
    let schedule = Schedule { target: target.id, login: login.clone(), every_s, file: file.to_owned(), next_at };
    rotations::set_schedule(&mut tx, &schedule).await?;
    let change = format!("the key of {login} is replaced every {every_s} s");
    audit::append(&mut tx, now, actor, Act::TargetChanged { target: target.id, name: target.name, change }).await?;
    tx.commit().await?;
    Ok(schedule)
}

/// Lets it stay as it is.
pub async fn unschedule(app: &App, actor: &Actor, name: &TargetName, login: &Login) -> Result<(), RotationError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let target = db::targets::find(&mut tx, name).await?;
    let target = target.ok_or_else(|| RotationError::Unknown { name: name.clone() })?;
    if !rotations::remove_schedule(&mut tx, target.id, login).await? {
        return Err(RotationError::NoSchedule { name: target.name, login: login.clone() });
    }
    let change = format!("the key of {login} is not replaced by schedule any more");
    audit::append(&mut tx, now, actor, Act::TargetChanged { target: target.id, name: target.name, change }).await?;
    Ok(tx.commit().await?)
}

fn every(every_s: u64) -> Option<TimeDelta> {
    // A century, so that no instant is out of reach.
    i64::try_from(every_s).ok().filter(|&seconds| seconds <= 3_155_760_000).and_then(TimeDelta::try_seconds)
}

/// Every schedule, the next first.
pub async fn schedules(app: &App) -> Result<Vec<Schedule>, RotationError> {
    Ok(rotations::schedules(&mut app.db.read().await?).await?)
}

/// Takes one schedule that is due at `now`, with the name of its target. If what follows fails, it is due again after a while.
pub async fn take_due(app: &App, now: DateTime<Utc>) -> Result<Option<(Schedule, TargetName)>, RotationError> {
    for due in schedules(app).await?.into_iter().take_while(|schedule| schedule.next_at <= now) {
        let later = every(due.every_s).unwrap_or(AGAIN).min(AGAIN);
        let mut tx = app.db.write().await?;
        let target = db::targets::find_by_id(&mut tx, due.target).await?;
        let is_taken = rotations::take(&mut tx, &due, now + later).await?;
        tx.commit().await?;
        // Nobody reaches a disabled target, the bastion neither.
        if let Some(target) = target.filter(|target| is_taken && target.disabled_at.is_none()) {
            return Ok(Some((Schedule { next_at: now + later, ..due }, target.name)));
        }
    }
    Ok(None)
}

/// Notes that what was taken is done: it is due again an interval after it was taken.
pub async fn was_done(app: &App, taken: &Schedule) -> Result<(), RotationError> {
    let every = every(taken.every_s).unwrap_or(AGAIN);
    let next_at = taken.next_at.checked_add_signed(every - every.min(AGAIN));
    let mut tx = app.db.write().await?;
    rotations::take(&mut tx, taken, next_at.unwrap_or(DateTime::<Utc>::MAX_UTC)).await?;
    Ok(tx.commit().await?)
}
