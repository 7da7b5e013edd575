//! Logins: who has proved to be whom. The SSH door brings what a peer offered; here it meets what is on file.
//!
//! A name that is unknown and a key or password that is wrong get the same answer, and the same work is done for it.

use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::PrincipalId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::{PrincipalPassword, VerificationCode};

use crate::app::passwords::{self, PasswordError};
use crate::app::second_factor::{self, SecondFactorError};
use crate::app::{App, audit};
use crate::store::db::{self, DbError};

pub use crate::app::second_factor::CodeAnswer;

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    SecondFactor(#[from] SecondFactorError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The person called `name`, if the public key with this SHA-256 fingerprint is theirs. Proof that the peer holds the
/// private key is the caller's.
pub async fn by_key(app: &App, name: &PrincipalName, fingerprint: &str) -> Result<Option<Principal>, LoginError> {
    let mut tx = app.db.read().await?;
    let found = db::principals::find_by_key(&mut tx, fingerprint).await?;
    Ok(found.map(|record| record.principal).filter(|principal| principal.name == *name).filter(is_enabled))
}

/// The person called `name`, for whom a trusted CA has vouched.
pub async fn by_authority(app: &App, name: &PrincipalName) -> Result<Option<Principal>, LoginError> {
    let mut tx = app.db.read().await?;
    let found = db::principals::find(&mut tx, name).await?;
    Ok(found.map(|record| record.principal).filter(is_enabled))
}

/// The person called `name`, if this is their password. Takes as long for a name that is unknown (`None`) or has none.
pub async fn by_password(
    app: &App,
    name: Option<&PrincipalName>,
    password: PrincipalPassword,
) -> Result<Option<Principal>, LoginError> {
    let found = match name {
        Some(name) => {
            let mut tx = app.db.read().await?;
            db::principals::find(&mut tx, name).await?
        }
        None => None,
    };
    let hash = found.as_ref().and_then(|record| record.password_hash.as_deref());
    let matches = passwords::matches(app, password, hash).await?;
    Ok(found.map(|record| record.principal).filter(|principal| matches && is_enabled(principal)))
}

/// Whether a login of this person, whose first factor is proved, takes a code besides.
pub async fn has_second_factor(app: &App, person: PrincipalId) -> Result<bool, LoginError> {
    Ok(second_factor::is_enrolled(app, person).await?)
}

/// Judges the code (RFC 6238) or recovery code that a person, whose first factor is proved, typed at `now`. Codes of the
/// present step and its neighbours are right; each is taken once, on whichever node; five wrong ones lock the factor for a
/// while.
pub async fn by_totp(
    app: &App,
    person: PrincipalId,
    code: &VerificationCode,
    now: DateTime<Utc>,
) -> Result<CodeAnswer, LoginError> {
    Ok(second_factor::judge(app, person, code, now).await?)
}

fn is_enabled(principal: &Principal) -> bool {
    principal.disabled_at.is_none()
}

/// Writes that a person logged in.
pub async fn note(
    app: &App,
    principal: &Principal,
    address: SocketAddr,
    method: &str,
    fingerprint: Option<&str>,
) -> Result<(), DbError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    if let Some(fingerprint) = fingerprint {
        db::principals::key_used(&mut tx, fingerprint, now).await?;
    }
    let act = Act::LoggedIn { person: principal.id, address, method: method.to_owned() };
    let actor = Actor::Principal { id: principal.id, name: principal.name.clone() };
    audit::append(&mut tx, now, &actor, act).await?;
    app.metrics.login("proved", method);
    tx.commit().await
}

/// Writes that a connection ended without anybody being proved. `claimed` is what it called itself: made printable here.
pub async fn note_refusal(app: &App, address: SocketAddr, claimed: &str, method: &str) -> Result<(), DbError> {
    /// As much of what a stranger says as is worth a row.
    const MOST_CHARACTERS: usize = 100;
    let claimed = claimed.chars().filter(|character| !character.is_control()).take(MOST_CHARACTERS).collect();
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let act = Act::LoginRefused { address, claimed, method: method.to_owned() };
    audit::append(&mut tx, now, &Actor::Stranger { address }, act).await?;
    app.metrics.login("refused", method);
    tx.commit().await
}
