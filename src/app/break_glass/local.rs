//! What stands behind the door under an opened envelope: a small database and object store on the node's own disk, with the person, the
//! targets and the grant of that envelope in them, and nothing else.
//!
//! The folder is locked while a process has it. It is removed once all of it is in the books.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_domain::break_glass::Envelope;
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::grant::Grant;
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{EnvelopeId, GrantId, SessionId, TargetId};
use sallyport_domain::principal::{Principal, Role};
use sallyport_domain::ssh_key::SshPublicKey;
use tracing::{error, warn};
use uuid::Uuid;

use super::home::HomeError;
use super::{BreakGlassError, Inner, Opened};
use crate::app::recordings::{RecordingSettings, Recordings};
use crate::app::{App, audit, grants, targets};
use crate::store::blob::{BlobSettings, Blobs};
use crate::store::db::principals::PersonKey;
use crate::store::db::sessions::SessionFilter;
use crate::store::db::{self, DatabaseSettings, Db, DbError, Tx};

/// The file that is locked while a process has the folder. A folder without it is not finished, or half removed.
const LOCK: &str = "lock";

/// How long recordings may take to come to rest when the folder goes: all of them are, by then.
const REST: Duration = Duration::from_secs(5);

/// One opened envelope on this node's disk.
pub(super) struct Local {
    envelope: EnvelopeId,
    pub(super) app: App,
    recordings: Recordings,
    dir: PathBuf,
    /// Locked while this process has the folder.
    _lock: File,
    pub(super) grant: Grant,
    /// The grant and its opening are in the books.
    pub(super) is_known: bool,
    /// Sessions that are in the books with all that belongs to them.
    pub(super) sessions: Vec<SessionId>,
    /// What was said of it last, so that it is not said every two seconds.
    pub(super) said: String,
}

impl Local {
    /// Makes the folder `dir` for an envelope, and the grant that it becomes, opened by the operator with that uid for that reason.
    pub(super) async fn make(
        inner: &Inner,
        dir: PathBuf,
        envelope: &Envelope,
        document: Hash,
        by: (u32, &str),
    ) -> Result<Self, BreakGlassError> {
        let made = async {
            let disk = |error: io::Error| BreakGlassError::Disk(error.to_string());
            if dir.exists() && !dir.join(LOCK).exists() {
                remove(&dir); // a process died while it made it
            }
            fs::DirBuilder::new().mode(0o700).create(&dir).map_err(disk)?;
            let (app, recordings) = open(inner, &dir).await?;
            // Its time begins when all is there for it.
            let grant = envelope.grant(GrantId::from_uuid(Uuid::now_v7()), by.1, app.clock.now())?;
            furnish(&app, envelope, &grant, (&inner.node, document, by)).await?;
            // The folder counts from here on.
            let lock = lock(&dir).map_err(disk)?;
            Ok::<_, BreakGlassError>(Self {
                envelope: envelope.id,
                app,
                recordings,
                dir: dir.clone(),
                _lock: lock,
                grant,
                is_known: false,
                sessions: Vec::new(),
                said: String::new(),
            })
        };
        let made = made.await;
        if made.is_err() {
            remove(&dir);
        }
        made
    }

    /// Takes up a folder that an earlier process has left; `None` if another one has it, or nothing is in it.
    pub(super) async fn adopt(inner: &Inner, id: EnvelopeId, dir: PathBuf) -> Result<Option<Self>, BreakGlassError> {
        let disk = |error: io::Error| BreakGlassError::Disk(error.to_string());
        let lock = match File::open(dir.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None), // it is being made, or was not
            Err(error) => return Err(disk(error)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(disk(error)),
        }
        let (app, recordings) = open(inner, &dir).await?;
        let (found, node) = (recordings.clone(), inner.node.clone());
        let left = on_a_thread(async move || {
            let left = found.find_left_behind(&node, &[]).await;
            left.map_err(|error| BreakGlassError::Disk(error.to_string()))
        });
        recordings.recover(left.await?);
        let bounds = db::grants::GrantBounds::default();
        let Some(grant) = db::grants::list(&mut app.db.read().await?, bounds).await?.pop() else { return Ok(None) };
        let (is_known, sessions, said) = (false, Vec::new(), String::new());
        Ok(Some(Self { envelope: id, app, recordings, dir, _lock: lock, grant, is_known, sessions, said }))
    }

    pub(super) fn envelope(&self) -> EnvelopeId {
        self.envelope
    }

    /// Says what keeps it from the books, once.
    pub(super) fn complain(&mut self, error: &HomeError) {
        let text = error.to_string();
        if self.said != text {
            error!(envelope = %self.envelope, error = text, "What happened under an opened envelope cannot be brought to the books; it is kept on this node's disk.");
            self.said = text;
        }
    }

    pub(super) fn opened(&self) -> Opened {
        Opened { app: self.app.clone(), recordings: self.recordings.clone() }
    }

    /// Every session there was, the latest first.
    pub(super) async fn all_sessions(&self) -> Result<Vec<db::sessions::SessionRecord>, DbError> {
        db::sessions::list(&mut self.app.db.read().await?, &SessionFilter::default(), u32::MAX >> 1).await
    }

    /// Whether no recording is on its way to rest.
    pub(super) fn is_at_rest(&self) -> bool {
        self.recordings.open_count() == 0
    }

    /// Ends the grant, whose live sessions are cut then.
    pub(super) async fn revoke(&mut self, why: &str) -> Result<(), DbError> {
        if self.grant.revoked.is_some() {
            return Ok(());
        }
        match grants::revoke(&self.app, &Actor::Bastion, self.grant.id, why, None).await {
            Ok(grant) => self.grant = grant,
            Err(grants::GrantError::Db(error)) => return Err(error),
            Err(error) => warn!(%error, "The grant of an opened envelope could not be ended twice."),
        }
        self.app.changes.notify();
        Ok(())
    }

    /// Removes the folder with all that is in it.
    pub(super) async fn remove(self) {
        self.recordings.close(REST).await;
        self.app.db.close().await;
        remove(&self.dir);
    }
}

/// Makes the file that says that the folder is whole. It has its name only once it is locked.
fn lock(dir: &Path) -> io::Result<File> {
    let making = dir.join(".lock");
    let file = File::create_new(&making)?;
    file.try_lock()?;
    fs::rename(&making, dir.join(LOCK))?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn remove(dir: &Path) {
    // The name first: a folder without it is taken up by nobody.
    let _ = fs::remove_file(dir.join(LOCK));
    if let Err(error) = fs::remove_dir_all(dir) {
        warn!(%error, dir = %dir.display(), "What belonged to an opened envelope could not be removed.");
    }
}

/// The use cases on the stores in `dir`.
async fn open(inner: &Inner, dir: &Path) -> Result<(App, Recordings), BreakGlassError> {
    let disk = |error: &dyn std::fmt::Display| BreakGlassError::Disk(error.to_string());
    let url = format!("sqlite:{}", dir.join("db").display());
    let db = on_a_thread(async move || {
        let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await?;
        db.migrate().await?;
        Ok(db)
    });
    let db = db.await?;
    let url = format!("file:{}", dir.join("blobs").display());
    let blobs = Blobs::open(&BlobSettings { url, ..BlobSettings::default() }).map_err(|error| disk(&error))?;
    let app = App { db, blobs, ..inner.app.clone() };
    let settings = RecordingSettings { journal_dir: dir.join("journal"), ..inner.recording.clone() };
    let recordings = Recordings::new(app.clone(), settings).map_err(|error| disk(&error))?;
    Ok((app, recordings))
}

/// Does on a thread of its own what cannot be a part of a task: the compiler cannot be shown that sqlx's migrations may move
/// between threads.
async fn on_a_thread<T: Send + 'static, F: Future<Output = Result<T, BreakGlassError>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, BreakGlassError> {
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work())).await;
    done.map_err(|error| BreakGlassError::Disk(error.to_string()))?
}

/// Writes the envelope into its database, and that it was opened.
async fn furnish(
    app: &App,
    envelope: &Envelope,
    grant: &Grant,
    (node, document, (uid, reason)): (&str, Hash, (u32, &str)),
) -> Result<(), BreakGlassError> {
    let now = grant.created_at;
    let mut tx = app.db.write().await?;
    let person = &envelope.person;
    db::principals::insert(&mut tx, person, None).await?;
    if let Actor::Principal { id, name } = &envelope.made_by
        && *id != person.id
    {
        // Without keys or a password: the grant names who gave it, and that is all.
        let (id, name, roles) = (*id, name.clone(), vec![Role::Admin]);
        let maker = Principal { id, name, organisation: None, roles, created_at: now, disabled_at: None };
        db::principals::insert(&mut tx, &maker, None).await?;
    }
    for line in &envelope.keys {
        let key: SshPublicKey = line.parse().map_err(|_| BreakGlassError::Key { person: person.name.clone() })?;
        let fingerprint = key.fingerprint().to_string();
        let (public_key, comment) = (line.clone(), String::new());
        let key = PersonKey { fingerprint, public_key, comment, added_at: now, last_used_at: None };
        db::principals::insert_key(&mut tx, person.id, &key).await?;
    }
    insert_targets(&mut tx, envelope).await?;
    for secret in &envelope.secrets {
        let Some(target) = envelope.targets.iter().find(|target| target.id == secret.target) else { continue };
        let sealed = STANDARD.decode(&secret.sealed).unwrap_or_default(); // what is no base64 opens as little
        let context = targets::context(secret.target, secret.login.as_str());
        if let Err(source) = app.master.open(&context, &sealed) {
            let (target, login, source) = (target.name.clone(), secret.login.clone(), Box::new(source));
            return Err(BreakGlassError::Sealed { target, login, source });
        }
        db::targets::set_secret(&mut tx, secret.target, &secret.login, &sealed, now).await?;
    }
    db::grants::insert(&mut tx, grant).await?;
    let operator = Actor::Operator { uid };
    let opened = Act::BreakGlassOpened {
        envelope: envelope.id,
        document,
        grant: grant.id,
        person: person.id,
        node: node.to_owned(),
        reason: reason.to_owned(),
    };
    let made = Act::GrantMade {
        grant: grant.id,
        people: grant.people.clone(),
        terms: grant.terms.clone(),
        window: grant.window,
        reason: grant.reason.clone(),
        template: None,
    };
    audit::append(&mut tx, now, &operator, made).await?;
    audit::append(&mut tx, now, &operator, opened).await?;
    Ok(tx.commit().await?)
}

/// Adds the targets, each after the one on the way to it.
async fn insert_targets(tx: &mut Tx, envelope: &Envelope) -> Result<(), DbError> {
    let mut waiting: Vec<_> = envelope.targets.iter().collect();
    let mut there: Vec<TargetId> = Vec::new();
    while !waiting.is_empty() {
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|target| target.jump.is_none_or(|jump| there.contains(&jump)));
        if ready.is_empty() {
            return Ok(()); // nothing leads to the rest: the envelope was checked
        }
        for target in ready {
            db::targets::insert(tx, target).await?;
            there.push(target.id);
        }
        waiting = rest;
    }
    Ok(())
}
