//! The authorities that sign for this node, as the database has them: another node, or an admin, may put others to use at any time.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::app::authorities::{self, Authority};
use crate::app::keys::{self, KeyError};
use crate::app::{App, DbError};

/// How often they are looked at, beside what [`App::changes`] tells.
const SWEEP: Duration = Duration::from_secs(1);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the bastion's {0} cannot be read")]
    Form(keys::Purpose, #[source] russh::keys::Error),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The authorities in use. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Authorities {
    user: Arc<watch::Sender<Signer>>,
    host: Arc<watch::Sender<Signer>>,
}

#[derive(Clone)]
struct Signer {
    id: Option<Uuid>,
    key: Arc<PrivateKey>,
}

impl Authorities {
    /// Opens the keys that are in use; makes them if there are none.
    pub async fn open(app: &App) -> Result<Self, AuthorityError> {
        let signer =
            async |authority| Ok::<_, AuthorityError>(Arc::new(watch::Sender::new(load(app, authority).await?)));
        Ok(Self { user: signer(Authority::User).await?, host: signer(Authority::Host).await? })
    }

    /// Signs the certificates that the bastion logs in to targets with.
    pub fn user_ca(&self) -> Arc<PrivateKey> {
        self.user.borrow().key.clone()
    }

    /// Certifies the host keys that targets show through the bastion.
    pub fn host_ca(&self) -> Arc<PrivateKey> {
        self.host.borrow().key.clone()
    }

    /// Follows the database until `stop`.
    pub async fn sweep(self, app: App, stop: CancellationToken) {
        let mut changes = app.changes.subscribe();
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                told = changes.changed() => if told.is_err() { return },
                () = stop.cancelled() => return,
            }
            for (authority, signer) in [(Authority::User, &self.user), (Authority::Host, &self.host)] {
                let now = signer.borrow().id;
                let is_same = match authorities::in_use(&app, authority).await {
                    Ok(id) => id.is_none() || id == now,
                    Err(_) => true, // others say that the database is away
                };
                if is_same {
                    continue;
                }
                match load(&app, authority).await {
                    Ok(key) => {
                        signer.send_replace(key);
                        info!(purpose = %authority.purpose(), "Another key of this authority signs from now on.");
                    }
                    Err(error) => {
                        warn!(purpose = %authority.purpose(), %error, "The new key of this authority cannot be opened; the one before goes on.");
                    }
                }
            }
        }
    }
}

async fn load(app: &App, authority: Authority) -> Result<Signer, AuthorityError> {
    let purpose = authority.purpose();
    // First the id: if the key is replaced between the two, the next look finds out.
    let id = authorities::in_use(app, authority).await?;
    let key = keys::bastion_key(app, purpose).await?;
    let key = PrivateKey::from_openssh(key.private_key.expose());
    let key = key.map_err(|source| AuthorityError::Form(purpose, source.into()))?;
    Ok(Signer { id, key: Arc::new(key) })
}
