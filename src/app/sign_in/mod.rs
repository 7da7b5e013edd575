//! Signing in to the web app: a password, and a code where the person has a second factor; or a passkey, or an identity
//! provider. What the cookie holds is 32 random bytes, stored as a hash; it ends when it was not used for a while, after a day's work at the latest, and when its
//! person signs out, is disabled, or gets another password.
//!
//! A wrong name and a wrong password are told apart neither by the words nor by the time, nor by how tries are counted.

mod challenges;
pub mod identities;
mod invited;
pub mod oidc;
pub mod passkeys;
mod public_url;
#[cfg(test)]
mod soft_authenticator;
mod tries;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::WebSessionId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::policy::SecondFactor;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::{PrincipalPassword, VerificationCode, WebToken};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::app::invites::InviteError;
use crate::app::logins::{self, LoginError};
use crate::app::passwords::PasswordError;
use crate::app::people::{self, PeopleError};
use crate::app::second_factor::{CodeAnswer, SecondFactorError};
use crate::app::sign_in::passkeys::RelyingParty;
use crate::app::sign_in::tries::{Tries, keys};
use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, principals, web_sessions};

pub use crate::store::db::passkeys::PasskeyRecord;
pub use crate::store::db::web_sessions::WebSessionRecord;
pub use invited::MadePasskey;
pub use oidc::{OidcAnswer, OidcError, Provider, SignInSettings};
pub use passkeys::{PasskeyError, PasskeyOffer};
pub use public_url::{PublicUrl, PublicUrlError};

const RANDOM_BYTES: usize = 32;
/// How exactly it is noted when somebody was last seen: each note is a write.
const NOTE_EVERY: Duration = Duration::from_mins(1);
/// As much of what a browser says of itself as is worth a row, in characters.
const MOST_BROWSER: usize = 200;

/// How long a sign-in holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignInTimes {
    /// Not used for so long, it ends.
    pub idle: Duration,
    /// However much it is used, it ends.
    pub longest: Duration,
}

impl Default for SignInTimes {
    fn default() -> Self {
        Self { idle: Duration::from_hours(1), longest: Duration::from_hours(12) }
    }
}

/// What a person offers.
pub struct Offer {
    /// As it was typed; it may be the name of nobody.
    pub name: String,
    pub password: PrincipalPassword,
    pub code: Option<VerificationCode>,
    pub address: SocketAddr,
    /// `User-Agent`
    pub browser: String,
}

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    pub principal: Principal,
    pub session: WebSessionRecord,
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error("the name or the password is wrong")]
    Refused,
    #[error("a code of your authenticator is needed besides")]
    CodeNeeded,
    #[error("the code is not the one for now: check the authenticator's clock, and take the newest code")]
    WrongCode,
    #[error("this code was used before: wait for the next one")]
    UsedBefore,
    #[error("too many wrong codes: none is taken until {until}")]
    Locked { until: DateTime<Utc> },
    #[error("too many tries: wait {} minutes", .wait.as_secs().div_ceil(60))]
    TooMany { wait: Duration },
    #[error("too many passwords are being checked at present; try again in a moment")]
    Busy,
    #[error("the system gave no randomness")]
    NoRandomness,
    #[error(transparent)]
    Passkey(#[from] PasskeyError),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error(transparent)]
    Invite(#[from] InviteError),
    #[error(transparent)]
    Password(PasswordError),
    #[error(transparent)]
    SecondFactor(SecondFactorError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LoginError> for SignInError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Password(PasswordError::Busy) => SignInError::Busy,
            LoginError::Password(error) => SignInError::Password(error),
            LoginError::SecondFactor(error) => SignInError::SecondFactor(error),
            LoginError::Db(error) => SignInError::Db(error),
        }
    }
}

/// Signs people in and knows who is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SignIns {
    times: SignInTimes,
    tries: Arc<Mutex<Tries>>,
    /// Passkeys are made for a name in the browser's address; without one there are none.
    relying_party: Option<Arc<RelyingParty>>,
    provider: Option<Arc<Provider>>,
    /// Where people open the web app.
    public_url: Option<Arc<PublicUrl>>,
}

impl SignIns {
    pub fn new(times: SignInTimes) -> Self {
        Self { times, ..Self::default() }
    }

    /// The same for a web app that people open at this address.
    #[must_use]
    pub fn at(self, url: &PublicUrl) -> Self {
        Self { relying_party: RelyingParty::new(url).map(Arc::new), public_url: Some(Arc::new(url.clone())), ..self }
    }

    /// How long a sign-in holds at most.
    pub fn longest(&self) -> Duration {
        self.times.longest
    }

    /// Signs a person in. The token is given here and never again.
    pub async fn sign_in(&self, app: &App, offer: Offer) -> Result<(SignedIn, WebToken), SignInError> {
        let Offer { name: typed, password, code, address, browser } = offer;
        let now = app.clock.now();
        // Counted before the password is looked at, so that many at once are not more guesses than one after the other.
        let keys = keys(&typed, address.ip());
        self.tries(|tries| tries.count(&keys, now)).map_err(|wait| SignInError::TooMany { wait })?;
        let name: Option<PrincipalName> = typed.trim().parse().ok();
        // What is no name may be a password in the wrong field; it is not written down.
        let claimed = name.as_ref().map_or("(not a name)", PrincipalName::as_str);
        let Some(principal) = logins::by_password(app, name.as_ref(), password).await? else {
            logins::note_refusal(app, address, claimed, "web password").await?;
            return Err(SignInError::Refused);
        };
        let method = if logins::has_second_factor(app, principal.id).await? {
            let Some(code) = code else {
                self.tries(|tries| tries.forgive(&keys));
                return Err(SignInError::CodeNeeded);
            };
            match logins::by_totp(app, principal.id, &code, now).await? {
                CodeAnswer::Right(SecondFactor::Totp) => "web password, code",
                CodeAnswer::Right(SecondFactor::RecoveryCode) => "web password, recovery code",
                CodeAnswer::Wrong => {
                    logins::note_refusal(app, address, claimed, "web code").await?;
                    return Err(SignInError::WrongCode);
                }
                CodeAnswer::UsedBefore => return Err(SignInError::UsedBefore),
                CodeAnswer::Locked { until } => return Err(SignInError::Locked { until }),
            }
        } else {
            "web password"
        };
        self.tries(|tries| tries.forgive(&keys));
        self.begin(app, app.db.write().await?, principal, address, &browser, method).await
    }

    /// Signs in whoever was proved, and commits.
    async fn begin(
        &self,
        app: &App,
        mut tx: Tx,
        principal: Principal,
        address: SocketAddr,
        browser: &str,
        method: &str,
    ) -> Result<(SignedIn, WebToken), SignInError> {
        let token = fresh_token()?;
        let now = app.clock.now();
        let session = WebSessionRecord {
            id: WebSessionId::from_uuid(Uuid::now_v7()),
            principal: principal.id,
            address: address.ip().to_canonical().to_string(),
            browser: browser.chars().filter(|character| !character.is_control()).take(MOST_BROWSER).collect(),
            created_at: now,
            last_seen_at: now,
            not_after: now + self.times.longest,
        };
        web_sessions::forget(&mut tx, now, now - self.times.idle).await?;
        web_sessions::insert(&mut tx, &session, &hash(&token)).await?;
        let act = Act::LoggedIn { person: principal.id, address, method: method.to_owned() };
        audit::append(&mut tx, now, &actor(&principal), act).await?;
        tx.commit().await?;
        Ok((SignedIn { principal, session }, token))
    }

    /// Who is signed in with this token now; `None` if nobody made it, or it has ended, or its person is disabled.
    pub async fn verify(&self, app: &App, token: &WebToken) -> Result<Option<SignedIn>, DbError> {
        if !is_like_ours(token) {
            return Ok(None);
        }
        let now = app.clock.now();
        let mut tx = app.db.read().await?;
        // By its hash: how long the look-up takes says nothing about the token.
        let Some(session) = web_sessions::find_by_hash(&mut tx, &hash(token)).await? else { return Ok(None) };
        if !self.holds(&session, now) {
            return Ok(None);
        }
        let person = principals::find_by_id(&mut tx, session.principal).await?;
        drop(tx);
        let Some(principal) = person.map(|person| person.principal).filter(|person| person.disabled_at.is_none())
        else {
            return Ok(None);
        };
        if session.last_seen_at + NOTE_EVERY <= now {
            let mut tx = app.db.write().await?;
            web_sessions::seen(&mut tx, session.id, now).await?;
            tx.commit().await?;
        }
        Ok(Some(SignedIn { principal, session }))
    }

    /// Who is signed in in this browser, which does not count as its use; `None` once they are not.
    pub async fn still(&self, app: &App, id: WebSessionId) -> Result<Option<Principal>, DbError> {
        let mut tx = app.db.read().await?;
        let Some(session) = web_sessions::find(&mut tx, id).await? else { return Ok(None) };
        if !self.holds(&session, app.clock.now()) {
            return Ok(None);
        }
        let person = principals::find_by_id(&mut tx, session.principal).await?;
        Ok(person.map(|person| person.principal).filter(|person| person.disabled_at.is_none()))
    }

    fn holds(&self, session: &WebSessionRecord, now: DateTime<Utc>) -> bool {
        now < session.not_after && now < session.last_seen_at + self.times.idle
    }

    /// Where the person is signed in, the newest first.
    pub async fn list(&self, app: &App, person: &Principal) -> Result<Vec<WebSessionRecord>, DbError> {
        let now = app.clock.now();
        let mut found = web_sessions::list(&mut app.db.read().await?, person.id).await?;
        found.retain(|session| self.holds(session, now));
        Ok(found)
    }

    /// Where the person of this name is signed in, the newest first.
    pub async fn list_of(&self, app: &App, name: &PrincipalName) -> Result<Vec<WebSessionRecord>, PeopleError> {
        let person = people::find(app, name).await?;
        Ok(self.list(app, &person.principal).await?)
    }

    /// Signs the person of this name out of every browser, by another's hand. Says of how many.
    pub async fn sign_out_person(&self, app: &App, by: &Actor, name: &PrincipalName) -> Result<u64, PeopleError> {
        let person = people::find(app, name).await?.principal.id;
        let mut tx = app.db.write().await?;
        let browsers = web_sessions::end_all(&mut tx, person).await?;
        if browsers > 0 {
            audit::append(&mut tx, app.clock.now(), by, Act::SignedOut { person, browsers }).await?;
        }
        tx.commit().await?;
        Ok(browsers)
    }

    /// Signs the person out of every browser but `kept`. Says of how many.
    pub async fn sign_out_others(
        &self,
        app: &App,
        person: &Principal,
        kept: Option<WebSessionId>,
    ) -> Result<u64, DbError> {
        let mut tx = app.db.write().await?;
        let browsers = web_sessions::end_others(&mut tx, person.id, kept).await?;
        if browsers > 0 {
            let act = Act::SignedOut { person: person.id, browsers };
            audit::append(&mut tx, app.clock.now(), &actor(person), act).await?;
        }
        tx.commit().await?;
        Ok(browsers)
    }

    /// Signs the person out of one browser, or with `None` of all. Says of how many.
    pub async fn sign_out(&self, app: &App, person: &Principal, which: Option<WebSessionId>) -> Result<u64, DbError> {
        let mut tx = app.db.write().await?;
        let browsers = match which {
            Some(id) => web_sessions::end(&mut tx, person.id, id).await?,
            None => web_sessions::end_all(&mut tx, person.id).await?,
        };
        if browsers > 0 {
            let act = Act::SignedOut { person: person.id, browsers };
            audit::append(&mut tx, app.clock.now(), &actor(person), act).await?;
        }
        tx.commit().await?;
        Ok(browsers)
    }

    fn tries<T>(&self, work: impl FnOnce(&mut Tries) -> T) -> T {
        work(&mut self.tries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn actor(person: &Principal) -> Actor {
    Actor::Principal { id: person.id, name: person.name.clone() }
}

fn fresh_token() -> Result<WebToken, SignInError> {
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    aws_lc_rs::rand::fill(random.as_mut_slice()).map_err(|_| SignInError::NoRandomness)?;
    Ok(WebToken::new(URL_SAFE_NO_PAD.encode(random.as_slice())))
}

/// Whether it looks like one of ours; what does not costs no query.
fn is_like_ours(token: &WebToken) -> bool {
    token.expose().len() == (RANDOM_BYTES * 4).div_ceil(3)
}

fn hash(token: &WebToken) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::tries::{MOST_FOR_NAME_AT_ADDRESS, WINDOW};
    use super::*;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    const PASSWORD: &str = "correct horse battery";

    fn offer(name: &str, password: &str) -> Offer {
        Offer {
            name: name.to_owned(),
            password: PrincipalPassword::new(password),
            code: None,
            address: "203.0.113.9:5000".parse().unwrap(),
            browser: "Mozilla\u{1b}[2J/5.0".to_owned(),
        }
    }

    async fn with_alice(app: &App) -> Principal {
        let new = people::NewPerson { password: Some(PrincipalPassword::new(PASSWORD)), ..named("alice") };
        people::add(app, &OPERATOR, new).await.unwrap().principal
    }

    #[tokio::test]
    async fn a_sign_in_holds_while_it_is_used_and_not_longer_than_a_day_of_work() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = with_alice(&app).await;
            let sign_ins = SignIns::default();
            let (signed_in, token) = sign_ins.sign_in(&app, offer("alice", PASSWORD)).await.unwrap();
            assert_eq!((&signed_in.principal, signed_in.session.browser.as_str()), (&alice, "Mozilla[2J/5.0"));

            for _ in 0..23 {
                app.clock.advance(Duration::from_mins(31));
                assert!(sign_ins.verify(&app, &token).await.unwrap().is_some());
            }
            app.clock.advance(Duration::from_mins(31));
            assert_eq!(sign_ins.verify(&app, &token).await.unwrap(), None, "it is twelve hours old");

            let (_, idle) = sign_ins.sign_in(&app, offer("alice", PASSWORD)).await.unwrap();
            app.clock.advance(Duration::from_hours(1));
            assert_eq!(sign_ins.verify(&app, &idle).await.unwrap(), None, "nobody used it for an hour");
            assert_eq!(sign_ins.list(&app, &alice).await.unwrap(), []);
        })
        .await;
    }

    #[tokio::test]
    async fn signing_out_everywhere_a_new_password_and_disabling_end_what_was_signed_in() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = with_alice(&app).await;
            let sign_ins = SignIns::default();
            let again = async || sign_ins.sign_in(&app, offer("alice", PASSWORD)).await.unwrap();

            let ((first, one), (_, two), (_, three)) = (again().await, again().await, again().await);
            assert_eq!(sign_ins.sign_out(&app, &alice, Some(first.session.id)).await.unwrap(), 1);
            assert_eq!(sign_ins.verify(&app, &one).await.unwrap(), None);
            assert_eq!(sign_ins.list(&app, &alice).await.unwrap().len(), 2);
            assert_eq!(sign_ins.sign_out(&app, &alice, None).await.unwrap(), 2);
            for token in [&two, &three] {
                assert_eq!(sign_ins.verify(&app, token).await.unwrap(), None);
            }
            let (_, four) = again().await;
            let new = PrincipalPassword::new(PASSWORD);
            people::set_password(&app, &OPERATOR, &alice.name, Some(new), None).await.unwrap();
            assert_eq!(sign_ins.verify(&app, &four).await.unwrap(), None);
            again().await;
            let (sixth, six) = again().await;
            again().await;
            assert_eq!(sign_ins.sign_out_others(&app, &alice, Some(sixth.session.id)).await.unwrap(), 2);
            assert!(sign_ins.verify(&app, &six).await.unwrap().is_some());
            assert_eq!(sign_ins.list_of(&app, &alice.name).await.unwrap().len(), 1);
            assert_eq!(sign_ins.sign_out_person(&app, &OPERATOR, &alice.name).await.unwrap(), 1);
            assert_eq!(sign_ins.verify(&app, &six).await.unwrap(), None);
            let (_, five) = again().await;
            people::disable(&app, &OPERATOR, &alice.name, None).await.unwrap();
            people::enable(&app, &OPERATOR, &alice.name, None).await.unwrap();
            assert_eq!(sign_ins.verify(&app, &five).await.unwrap(), None);
        })
        .await;
    }

    #[tokio::test]
    async fn an_unknown_name_is_refused_and_limited_exactly_as_a_wrong_password() {
        on_both(|db| async {
            let app = app_on(db);
            with_alice(&app).await;
            let sign_ins = SignIns::default();

            for name in ["alice", "nobody", "no such name at all!"] {
                for _ in 0..MOST_FOR_NAME_AT_ADDRESS {
                    let refused = sign_ins.sign_in(&app, offer(name, "wrong")).await;
                    assert!(matches!(refused, Err(SignInError::Refused)), "{name}");
                }
                let refused = sign_ins.sign_in(&app, offer(name, PASSWORD)).await;
                assert!(matches!(refused, Err(SignInError::TooMany { .. })), "{name}");
            }
            app.clock.advance(WINDOW);
            assert!(sign_ins.sign_in(&app, offer("alice", PASSWORD)).await.is_ok());
        })
        .await;
    }
}
