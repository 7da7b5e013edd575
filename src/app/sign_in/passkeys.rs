//! Passkeys (W3C Web Authentication, level 3): key pairs in a person's devices, made for this web app's name alone. They are
//! discoverable, so nobody types a name, and the device must have recognised its person (user verification), so a passkey
//! is two factors in one and no code is asked for besides.
//!
//! What the crate verifies: type, challenge, origin, the name's hash, presence, verification, signature, counter. What is said
//! here: whose it is, that they may still come, and that a challenge is answered once.

use std::net::SocketAddr;
use std::time::Duration;

use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::{PasskeyId, WebSessionId};
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::WebToken;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential,
    WebauthnError,
};
use webauthn_rs::{Webauthn, WebauthnBuilder};

use super::challenges::{self, Purpose};
use super::tries::{begun_keys, keys};
use super::{PublicUrl, SignInError, SignIns, SignedIn, actor};
use crate::app::text::{self, TextError};
use crate::app::{App, audit, logins};
use crate::store::db::passkeys::PasskeyRecord;
use crate::store::db::{DbError, Tx, passkeys, principals, web_sessions};

/// The most passkeys that one person may have.
const MOST_PASSKEYS: usize = 20;
/// A person has this long to find the device and prove themselves to it: what the specification recommends.
const PATIENCE: Duration = Duration::from_mins(5);
/// A refusal is not told sooner, so that its time says nothing of why: of an unknown key, no signature is looked at.
const REFUSAL: Duration = Duration::from_millis(250);
const METHOD: &str = "web passkey";

/// Why passkeys were left as they are, or signed nobody in.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    #[error("there are no passkeys here: set `api.public_url`, with a name and not an address of digits")]
    NotSetUp,
    #[error("this is not what a browser answers: {message}")]
    Malformed { message: String },
    #[error("the passkey is not known here, or did not prove itself")]
    Refused,
    #[error("the new passkey did not prove itself ({0}); begin again")]
    NotProved(WebauthnError),
    #[error("it took too long, or was done already; begin again")]
    NotBegun,
    #[error("this passkey is known already")]
    Taken,
    #[error("a person may have {MOST_PASSKEYS} passkeys at most")]
    TooMany,
    #[error("`{name}` has no passkey {id}")]
    Unknown { name: PrincipalName, id: PasskeyId },
    #[error("there is no person `{name}`")]
    UnknownPerson { name: PrincipalName },
    #[error("a passkey is added in the browser that is signed in")]
    NoBrowser,
    #[error("what the passkey's check keeps cannot be written or read: {message}")]
    State { message: String },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Who passkeys are made for: the web app at its name.
#[derive(Debug)]
pub(super) struct RelyingParty(Webauthn);

impl RelyingParty {
    /// `None` where the address has no name: browsers make no passkeys for addresses of digits.
    pub(super) fn new(url: &PublicUrl) -> Option<Self> {
        let id = url.url().domain()?;
        let built = WebauthnBuilder::new(id, url.url()).map(|builder| builder.rp_name("Sallyport").timeout(PATIENCE));
        built.and_then(WebauthnBuilder::build).ok().map(Self)
    }
}

/// What a browser answers at signing in.
pub struct PasskeyOffer {
    pub challenge: WebToken,
    /// `PublicKeyCredential.toJSON()`
    pub credential: Value,
    pub address: SocketAddr,
    /// `User-Agent`
    pub browser: String,
}

impl SignIns {
    /// Whether there are passkeys.
    pub fn has_passkeys(&self) -> bool {
        self.relying_party.is_some()
    }

    fn webauthn(&self) -> Result<&Webauthn, PasskeyError> {
        self.relying_party.as_deref().map(|party| &party.0).ok_or(PasskeyError::NotSetUp)
    }

    /// Begins to add a passkey of a person who is signed in: a token, and what the browser is to be asked
    /// (`PublicKeyCredentialCreationOptionsJSON`).
    pub async fn begin_to_add_passkey(
        &self,
        app: &App,
        person: &Principal,
        web_session: Option<WebSessionId>,
    ) -> Result<(WebToken, Value), SignInError> {
        // A token of the API, which ends, must not make itself a way in that does not.
        web_session.ok_or(PasskeyError::NoBrowser)?;
        self.ask_for_new(app, Purpose::AddPasskey, person).await
    }

    /// Adds the passkey that the browser made.
    pub async fn add_passkey(
        &self,
        app: &App,
        person: &Principal,
        challenge: &WebToken,
        name: &str,
        credential: Value,
    ) -> Result<PasskeyRecord, PasskeyError> {
        let passkey = self.take_new(app, Purpose::AddPasskey, person, challenge, name, credential).await?;
        let mut tx = app.db.write().await?;
        insert(&mut tx, person, &passkey).await?;
        tx.commit().await?;
        Ok(passkey)
    }

    /// What a browser is to be asked, so that the person's device makes a passkey.
    pub(super) async fn ask_for_new(
        &self,
        app: &App,
        purpose: Purpose,
        person: &Principal,
    ) -> Result<(WebToken, Value), SignInError> {
        let webauthn = self.webauthn()?;
        let known = passkeys::list(&mut app.db.read().await?, person.id).await?;
        if known.len() >= MOST_PASSKEYS {
            return Err(PasskeyError::TooMany.into());
        }
        let known = known.into_iter().map(|passkey| passkey.credential_id).collect();
        let name = person.name.as_str();
        let (options, state) = webauthn
            .start_passkey_registration(person.id.as_uuid(), name, name, Some(known))
            .map_err(PasskeyError::NotProved)?;
        let mut options = to_json(&options.public_key)?;
        // The crate leaves it to the authenticator whether it keeps the key; signing in without a name takes one that does.
        if let Some(selection) = options.get_mut("authenticatorSelection").and_then(Value::as_object_mut) {
            selection.insert("residentKey".to_owned(), "required".into());
            selection.insert("requireResidentKey".to_owned(), true.into());
        }
        let token = challenges::begin(app, purpose, Some(person.id), to_text(&state)?, PATIENCE).await?;
        Ok((token, options))
    }

    /// What the browser made, if it answers what this person was asked; not added yet.
    pub(super) async fn take_new(
        &self,
        app: &App,
        purpose: Purpose,
        person: &Principal,
        challenge: &WebToken,
        name: &str,
        credential: Value,
    ) -> Result<PasskeyRecord, PasskeyError> {
        let webauthn = self.webauthn()?;
        let name = text::check("name", name, text::MOST_LABEL)?;
        let credential: RegisterPublicKeyCredential = from_browser(credential)?;
        let begun = challenges::take(app, purpose, challenge).await?;
        let begun = begun.filter(|begun| begun.principal == Some(person.id)).ok_or(PasskeyError::NotBegun)?;
        let state: PasskeyRegistration = from_text(&begun.state)?;
        let made = webauthn.finish_passkey_registration(&credential, &state).map_err(PasskeyError::NotProved)?;
        Ok(PasskeyRecord {
            id: PasskeyId::from_uuid(Uuid::now_v7()),
            principal: person.id,
            credential_id: made.cred_id().clone(),
            name,
            credential: to_text(&made)?,
            created_at: app.clock.now(),
            last_used_at: None,
        })
    }

    /// Begins to sign somebody in, whoever it will be: a token, and what the browser is to be asked
    /// (`PublicKeyCredentialRequestOptionsJSON`).
    pub async fn begin_passkey(&self, app: &App, address: SocketAddr) -> Result<(WebToken, Value), SignInError> {
        let webauthn = self.webauthn()?;
        let now = app.clock.now();
        self.tries(|tries| tries.count(&begun_keys(address.ip()), now))
            .map_err(|wait| SignInError::TooMany { wait })?;
        let (options, state) = webauthn.start_discoverable_authentication().map_err(PasskeyError::NotProved)?;
        let token = challenges::begin(app, Purpose::Passkey, None, to_text(&state)?, PATIENCE).await?;
        Ok((token, to_json(&options.public_key)?))
    }

    /// Signs a person in by a passkey. The token is given here and never again.
    pub async fn sign_in_by_passkey(
        &self,
        app: &App,
        offer: PasskeyOffer,
    ) -> Result<(SignedIn, WebToken), SignInError> {
        let refuse_at = Instant::now() + REFUSAL;
        let PasskeyOffer { challenge, credential, address, browser } = offer;
        let credential: PublicKeyCredential = from_browser(credential)?;
        // Counted as a name's passwords are: what the authenticator calls the key is the name.
        let counted = keys(&credential.id, address.ip());
        let now = app.clock.now();
        self.tries(|tries| tries.count(&counted, now)).map_err(|wait| SignInError::TooMany { wait })?;
        let proved = match self.prove(app, &challenge, &credential).await {
            Ok(proved) => proved,
            Err(Refusal { claimed, why }) => {
                if let PasskeyError::Db(error) = why {
                    return Err(error.into());
                }
                tracing::debug!(claimed, %why, "A passkey was refused.");
                logins::note_refusal(app, address, &claimed, METHOD).await?;
                sleep_until(refuse_at).await;
                return Err(PasskeyError::Refused.into());
            }
        };
        let mut tx = app.db.write().await?;
        let Proved { principal, passkey, credential } = proved;
        if !passkeys::used(&mut tx, passkey, &credential, app.clock.now()).await? {
            return Err(PasskeyError::Refused.into()); // removed at this moment
        }
        self.tries(|tries| {
            tries.forgive(&counted);
            tries.forgive(&begun_keys(address.ip()));
        });
        self.begin(app, tx, principal, address, &browser, METHOD).await
    }

    /// Whose passkey it is, if it has answered this challenge.
    async fn prove(
        &self,
        app: &App,
        challenge: &WebToken,
        credential: &PublicKeyCredential,
    ) -> Result<Proved, Refusal> {
        let nobody = |why: PasskeyError| Refusal { claimed: "(a passkey)".to_owned(), why };
        let webauthn = self.webauthn().map_err(nobody)?;
        let begun = challenges::take(app, Purpose::Passkey, challenge).await.map_err(|error| nobody(error.into()))?;
        let state: DiscoverableAuthentication =
            from_text(&begun.ok_or_else(|| nobody(PasskeyError::NotBegun))?.state).map_err(nobody)?;
        let (handle, id) = webauthn
            .identify_discoverable_authentication(credential)
            .map_err(|error| nobody(PasskeyError::NotProved(error)))?;
        let found = async {
            let mut tx = app.db.read().await?;
            let Some(passkey) = passkeys::find(&mut tx, id).await? else { return Ok(None) };
            let owner = principals::find_by_id(&mut tx, passkey.principal).await?;
            Ok(owner.map(|owner| (passkey, owner.principal)))
        };
        let found: Result<_, DbError> = found.await;
        let (passkey, owner) = found
            .map_err(|error| nobody(error.into()))?
            .filter(|(passkey, _)| passkey.principal.as_uuid() == handle)
            .ok_or_else(|| nobody(PasskeyError::Refused))?;
        let refused = |why: PasskeyError| Refusal { claimed: owner.name.to_string(), why };
        let mut stored: Passkey = from_text(&passkey.credential).map_err(refused)?;
        let result = webauthn
            .finish_discoverable_authentication_v2(credential, state, &stored)
            .map_err(|error| refused(PasskeyError::NotProved(error)))?;
        if owner.disabled_at.is_some() {
            return Err(refused(PasskeyError::Refused));
        }
        stored.update_credential(&result);
        let credential = to_text(&stored).map_err(refused)?;
        Ok(Proved { principal: owner, passkey: passkey.id, credential })
    }
}

/// Whose passkey it was, and what is known of it from now on.
struct Proved {
    principal: Principal,
    passkey: PasskeyId,
    credential: String,
}

/// Why a passkey signs nobody in, for the log; the peer learns nothing of it.
struct Refusal {
    claimed: String,
    why: PasskeyError,
}

/// Adds a passkey of the person's, by their own hand.
pub(super) async fn insert(tx: &mut Tx, person: &Principal, passkey: &PasskeyRecord) -> Result<(), PasskeyError> {
    if passkeys::list(tx, person.id).await?.len() >= MOST_PASSKEYS {
        return Err(PasskeyError::TooMany);
    }
    if !passkeys::insert(tx, passkey).await? {
        return Err(PasskeyError::Taken);
    }
    let act = Act::PasskeyAdded { person: person.id, passkey: passkey.id, name: passkey.name.clone() };
    audit::append(tx, passkey.created_at, &actor(person), act).await?;
    Ok(())
}

/// A person's passkeys, the oldest first.
pub async fn list(app: &App, name: &PrincipalName) -> Result<Vec<PasskeyRecord>, PasskeyError> {
    let mut tx = app.db.read().await?;
    let unknown = || PasskeyError::UnknownPerson { name: name.clone() };
    let person = principals::find(&mut tx, name).await?.ok_or_else(unknown)?.principal.id;
    Ok(passkeys::list(&mut tx, person).await?)
}

/// Removes a passkey, and signs its person out of every browser but `kept`: whoever has the device may be in one of them.
pub async fn remove(
    app: &App,
    by: &Actor,
    name: &PrincipalName,
    id: PasskeyId,
    kept: Option<WebSessionId>,
) -> Result<Vec<PasskeyRecord>, PasskeyError> {
    let mut tx = app.db.write().await?;
    let unknown = || PasskeyError::UnknownPerson { name: name.clone() };
    let person = principals::find(&mut tx, name).await?.ok_or_else(unknown)?.principal.id;
    let removed = passkeys::remove(&mut tx, person, id).await?;
    let removed = removed.ok_or_else(|| PasskeyError::Unknown { name: name.clone(), id })?;
    let now = app.clock.now();
    audit::append(&mut tx, now, by, Act::PasskeyRemoved { person, passkey: id, name: removed }).await?;
    let browsers = web_sessions::end_others(&mut tx, person, kept).await?;
    if browsers > 0 {
        audit::append(&mut tx, now, by, Act::SignedOut { person, browsers }).await?;
    }
    let left = passkeys::list(&mut tx, person).await?;
    tx.commit().await?;
    Ok(left)
}

fn to_text(value: &impl Serialize) -> Result<String, PasskeyError> {
    serde_json::to_string(value).map_err(|error| PasskeyError::State { message: error.to_string() })
}

fn to_json(value: &impl Serialize) -> Result<Value, PasskeyError> {
    serde_json::to_value(value).map_err(|error| PasskeyError::State { message: error.to_string() })
}

fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, PasskeyError> {
    serde_json::from_str(text).map_err(|error| PasskeyError::State { message: error.to_string() })
}

fn from_browser<T: DeserializeOwned>(value: Value) -> Result<T, PasskeyError> {
    serde_json::from_value(value).map_err(|error| PasskeyError::Malformed { message: error.to_string() })
}

#[cfg(test)]
mod tests;
