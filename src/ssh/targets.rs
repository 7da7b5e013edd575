//! The connections of one session to its target.
//!
//! russh waits with a whole connection when one of its channels is not drained, so channels that run at once get a
//! connection each. A connection whose channel has ended serves the next one: 2,000 commands in a row over one
//! ControlMaster log in to the target once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::PrivateKey;
use sallyport_domain::id::TargetId;
use sallyport_domain::name::Login;
use sallyport_domain::policy::Permit;
use sallyport_domain::target::Target;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::authorities::Authorities;
use super::dial::{self, Credential, DialError, Hop, TargetConnection};
use super::sever::Blade;
use crate::app::access::OpenSession;
use crate::app::ledger::manifests;
use crate::app::metrics::timed;
use crate::app::{App, targets};
use crate::spans::{self, Spanned};

/// Idle connections that are kept for the next channel; a burst of channels leaves no more behind.
const MOST_IDLE: usize = 4;

/// Connections to one session's target. Cheap to clone.
#[derive(Clone)]
pub struct Targets(Arc<Inner>);

struct Inner {
    app: App,
    session: OpenSession,
    authorities: Authorities,
    /// The session's.
    span: Spanned,
    /// The first dial, begun as soon as the permit exists.
    first: AsyncMutex<Option<JoinHandle<Result<TargetConnection, DialError>>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<TargetConnection>,
    /// One for each connection that was begun, for the cut. A blade outlives its connection by little.
    blades: Vec<Blade>,
    severed: bool,
    /// Host keys that are in the books.
    noted: HashSet<(TargetId, String)>,
}

impl Targets {
    /// Begins the first dial at once, as one of `tasks`.
    pub fn begin(
        app: App,
        session: OpenSession,
        authorities: Authorities,
        span: &Spanned,
        tasks: &TaskTracker,
    ) -> Self {
        let (first, span) = (AsyncMutex::new(None), span.clone());
        let targets = Self(Arc::new(Inner { app, session, authorities, span, first, state: Mutex::default() }));
        let dialler = targets.clone();
        let task = tasks.spawn(async move { dialler.dial().await });
        if let Ok(mut first) = targets.0.first.try_lock() {
            *first = Some(task); // nobody else has seen it yet
        }
        targets
    }

    /// A connection that no other channel uses.
    pub async fn take(&self) -> Result<TargetConnection, DialError> {
        loop {
            let idle = self.state().idle.pop();
            match idle {
                Some(connection) if connection.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => break,
            }
        }
        let first = self.0.first.lock().await.take();
        if let Some(Ok(dialled)) = async { Some(first?.await) }.await {
            return dialled;
        }
        self.dial().await
    }

    /// Gives back a connection whose channel has ended on both sides.
    pub fn give_back(&self, connection: TargetConnection) {
        let mut state = self.state();
        if !state.severed && state.idle.len() < MOST_IDLE && !connection.is_closed() {
            state.idle.push(connection);
        }
    }

    /// Ends every connection at once; nothing reaches the target any more, and no new connection is made.
    pub fn sever(&self) {
        let (blades, idle) = {
            let mut state = self.state();
            state.severed = true;
            (std::mem::take(&mut state.blades), std::mem::take(&mut state.idle))
        };
        blades.iter().for_each(Blade::cut);
        drop(idle);
    }

    /// A blade for one more connection of the session, which is cut with the others.
    pub fn blade(&self) -> Blade {
        let blade = Blade::default();
        let mut state = self.state();
        if state.severed {
            blade.cut(); // the dial fails at its first read or write
        }
        state.blades.retain(|blade| !blade.is_cut());
        state.blades.push(blade.clone());
        blade
    }

    async fn dial(&self) -> Result<TargetConnection, DialError> {
        let span = spans::dial(&self.0.span, self.0.session.jumps.len() + 1);
        let dialled = self.dial_in(&span).await;
        match &dialled {
            Ok(_) => span.outcome("connected"),
            Err(error) => span.failure(error.as_str()),
        }
        dialled
    }

    async fn dial_in(&self, span: &Spanned) -> Result<TargetConnection, DialError> {
        let Inner { app, session, authorities, .. } = &*self.0;
        let (blade, id, user_ca) = (self.blade(), session.id.to_string(), authorities.user_ca());
        let mut jumps = Vec::new();
        for jump in &session.jumps {
            let login = jump.logins.first().map(|account| account.login.clone());
            let login = login.ok_or_else(|| DialError::NoCredential {
                target: jump.name.clone(),
                login: session.permit.login().clone(),
            })?;
            jumps.push(hop(app, jump, &login, &user_ca, &id).await?);
        }
        let hop = hop(app, &session.target, session.permit.login(), &user_ca, &id).await?;
        let permit: &Permit = &session.permit;
        let dial = dial::dial(permit, jumps, hop, &blade, &app.clock, span);
        let connection = timed(&app.metrics.target_connect_seconds, dial).await?;
        self.note(connection.shown()).await?;
        Ok(connection)
    }

    /// Writes down which host keys were accepted; what the books have already is not written again.
    async fn note(&self, shown: &[(TargetId, String)]) -> Result<(), DialError> {
        let Inner { app, session, .. } = &*self.0;
        if shown.iter().all(|key| self.state().noted.contains(key)) {
            return Ok(());
        }
        let noted = manifests::note_host_keys(app, session.id, shown).await;
        noted.map_err(|source| DialError::NotWritten { target: session.target.name.clone(), source })?;
        self.state().noted.extend(shown.iter().cloned());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One hop with what the bastion proves itself with there. `id` is what a certificate is made out for, and a target's log names.
pub(super) async fn hop(
    app: &App,
    target: &Target,
    login: &Login,
    user_ca: &Arc<PrivateKey>,
    id: &str,
) -> Result<Hop, DialError> {
    let none = || DialError::NoCredential { target: target.name.clone(), login: login.clone() };
    let stored = targets::secret(app, target.id, login).await.map_err(|error| {
        tracing::error!(target = %target.name, %login, %error, "A credential could not be read.");
        none()
    })?;
    let credential = match stored.ok_or_else(none)? {
        targets::Credential::Certificate => {
            Credential::Certificate { authority: user_ca.clone(), key_id: id.to_owned() }
        }
        targets::Credential::Password(password) => Credential::Password(password),
        targets::Credential::Key(key) => {
            let key = PrivateKey::from_openssh(key.expose()).map_err(|_| none())?;
            Credential::Key(Arc::new(key))
        }
    };
    Ok(Hop { target: target.clone(), login: login.clone(), credential })
}
