//! What an invited person does with their link ([`crate::app::invites`]): looks whom it invites, and either gives a public key or
//! makes a passkey. Nobody is signed in by it. Success alone uses the invite up, in the transaction that adds what it was for.
//!
//! Tries are counted as passwords are, with the token for the name: a token cannot be guessed, but asking costs the database work.

use std::net::SocketAddr;

use sallyport_domain::secret::{InviteToken, WebToken};
use sallyport_domain::ssh_key::SshPublicKey;
use serde_json::Value;

use super::challenges::Purpose;
use super::passkeys::insert;
use super::tries::{begun_keys, keys};
use super::{SignInError, SignIns, actor};
use crate::app::invites::{self, InviteError, InviteRecord};
use crate::app::{App, logins, people};

/// What the log calls this way.
const METHOD: &str = "web invite";

impl SignIns {
    /// Where an invite's link leads, with the token behind the `#`, which browsers keep to themselves; `None` if it is not known where
    /// people open the web app.
    pub fn invite_link(&self, token: &InviteToken) -> Option<String> {
        self.public_url.as_ref().map(|url| format!("{url}/invite#{}", token.expose()))
    }

    /// Whom the token invites, and until when. Uses nothing up: programs that look into links must not.
    pub async fn look_at_invite(
        &self,
        app: &App,
        token: &InviteToken,
        address: SocketAddr,
    ) -> Result<InviteRecord, SignInError> {
        let looked = async {
            let mut tx = app.db.read().await?;
            Ok(invites::open(&mut tx, token, app.clock.now()).await?.0)
        };
        self.counted(app, token, address, looked).await
    }

    /// Adds a key to the person whom the token invites.
    pub async fn accept_invite(
        &self,
        app: &App,
        token: &InviteToken,
        key: &SshPublicKey,
        address: SocketAddr,
    ) -> Result<InviteRecord, SignInError> {
        let accepted = async {
            let now = app.clock.now();
            let mut tx = app.db.write().await?;
            let (invite, person) = invites::open(&mut tx, token, now).await?;
            let by = actor(&person);
            invites::use_up(&mut tx, &invite, &by, address, key.fingerprint().to_string(), now).await?;
            people::add_key_in(app, &mut tx, &by, &person.name, key).await.map_err(InviteError::from)?;
            tx.commit().await?;
            Ok(invite)
        };
        self.counted(app, token, address, accepted).await
    }

    /// Begins to make a passkey for the person whom the token invites: a token, and what the browser is to be asked
    /// (`PublicKeyCredentialCreationOptionsJSON`).
    pub async fn begin_invited_passkey(
        &self,
        app: &App,
        token: &InviteToken,
        address: SocketAddr,
    ) -> Result<(WebToken, Value), SignInError> {
        let now = app.clock.now();
        // Each is a row, and success does not make it undone.
        self.tries(|tries| tries.count(&begun_keys(address.ip()), now))
            .map_err(|wait| SignInError::TooMany { wait })?;
        let begun = async {
            let person = invites::open(&mut app.db.read().await?, token, now).await?.1;
            self.ask_for_new(app, Purpose::InvitedPasskey, &person).await
        };
        self.counted(app, token, address, begun).await
    }

    /// Adds the passkey that the browser made to the person whom the token invites.
    pub async fn accept_invite_by_passkey(
        &self,
        app: &App,
        token: &InviteToken,
        made: MadePasskey,
        address: SocketAddr,
    ) -> Result<InviteRecord, SignInError> {
        let accepted = async {
            let MadePasskey { challenge, name, credential } = made;
            let person = invites::open(&mut app.db.read().await?, token, app.clock.now()).await?.1;
            let passkey = self.take_new(app, Purpose::InvitedPasskey, &person, &challenge, &name, credential).await?;
            let now = app.clock.now();
            let mut tx = app.db.write().await?;
            // It may have been used or taken back since.
            let (invite, person) = invites::open(&mut tx, token, now).await?;
            invites::use_up(&mut tx, &invite, &actor(&person), address, passkey.id.to_string(), now).await?;
            insert(&mut tx, &person, &passkey).await?;
            tx.commit().await?;
            Ok(invite)
        };
        let accepted = self.counted(app, token, address, accepted).await?;
        self.tries(|tries| tries.forgive(&begun_keys(address.ip())));
        Ok(accepted)
    }

    /// Counts a try with this token from this address before it is made, so that many at once are not more than one after the other, and
    /// forgives it if it succeeds. A token that opens nothing any more is told in the audit log, for somebody else may have used the
    /// link; what never was a token is not, for anybody can send that.
    async fn counted<T>(
        &self,
        app: &App,
        token: &InviteToken,
        address: SocketAddr,
        tried: impl Future<Output = Result<T, SignInError>>,
    ) -> Result<T, SignInError> {
        let keys = keys(token.expose(), address.ip());
        let now = app.clock.now();
        self.tries(|tries| tries.count(&keys, now)).map_err(|wait| SignInError::TooMany { wait })?;
        let answer = tried.await;
        match &answer {
            Ok(_) => self.tries(|tries| tries.forgive(&keys)),
            Err(SignInError::Invite(InviteError::Refused { whose: Some(person) })) => {
                logins::note_refusal(app, address, person.as_str(), METHOD).await?;
            }
            Err(_) => {}
        }
        answer
    }
}

/// What the invited person's browser made.
pub struct MadePasskey {
    pub challenge: WebToken,
    pub name: String,
    /// `PublicKeyCredential.toJSON()`
    pub credential: Value,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sallyport_domain::event::Act;
    use sallyport_domain::principal::Principal;

    use super::super::soft_authenticator::SoftAuthenticator;
    use super::super::tries::MOST_FOR_NAME_AT_ADDRESS;
    use super::super::{PasskeyError, SignInTimes, passkeys};
    use super::*;
    use crate::app::audit;
    use crate::app::people::PeopleError;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    const ORIGIN: &str = "https://bastion.example:8443";
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8 alice@desk";

    /// Alice and Bob, and an invite for her.
    struct Scene {
        app: App,
        sign_ins: SignIns,
        alice: Principal,
        token: InviteToken,
        address: SocketAddr,
    }

    impl Scene {
        async fn new(app: App) -> Self {
            let sign_ins = SignIns::new(SignInTimes::default()).at(&ORIGIN.parse().unwrap());
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
            people::add(&app, &OPERATOR, named("bob")).await.unwrap();
            let (_, token) = invites::make(&app, &OPERATOR, &alice.name, None).await.unwrap();
            Self { app, sign_ins, alice, token, address: "203.0.113.9:5000".parse().unwrap() }
        }

        async fn accept(&self, key: &SshPublicKey) -> Result<InviteRecord, SignInError> {
            self.sign_ins.accept_invite(&self.app, &self.token, key, self.address).await
        }

        async fn look(&self) -> Result<InviteRecord, SignInError> {
            self.sign_ins.look_at_invite(&self.app, &self.token, self.address).await
        }

        async fn begin(&self) -> Result<(WebToken, Value), SignInError> {
            self.sign_ins.begin_invited_passkey(&self.app, &self.token, self.address).await
        }

        async fn make(&self, challenge: WebToken, credential: Value) -> Result<InviteRecord, SignInError> {
            let made = MadePasskey { challenge, name: "laptop".to_owned(), credential };
            self.sign_ins.accept_invite_by_passkey(&self.app, &self.token, made, self.address).await
        }

        async fn acts(&self) -> Vec<Act> {
            let events = audit::list(&self.app, 0, &audit::EventFilter::default(), 100).await.unwrap();
            events.into_iter().map(|(_, event)| event.act).collect()
        }

        async fn has_nothing(&self) -> bool {
            let keys = people::find(&self.app, &self.alice.name).await.unwrap().keys;
            keys.is_empty() && passkeys::list(&self.app, &self.alice.name).await.unwrap().is_empty()
        }
    }

    fn device() -> SoftAuthenticator {
        SoftAuthenticator::new(ORIGIN, "bastion.example")
    }

    fn is_refused<T>(result: &Result<T, SignInError>) -> bool {
        matches!(result, Err(SignInError::Invite(InviteError::Refused { .. })))
    }

    #[tokio::test]
    async fn of_several_that_use_a_link_at_once_one_gives_its_key() {
        on_both(|db| async {
            let scene = Scene::new(app_on(db)).await;
            let invited = scene.look().await.unwrap();
            let (own, other) = (KEY.parse().unwrap(), another_key().parse().unwrap());
            let (challenge, options) = scene.begin().await.unwrap();
            let credential = device().create(&options);

            let (one, two, three) =
                tokio::join!(scene.accept(&own), scene.accept(&other), scene.make(challenge, credential));

            let done = [one.is_ok(), two.is_ok(), three.is_ok()].into_iter().filter(|done| *done).count();
            assert_eq!(done, 1, "{one:?} {two:?} {three:?}");
            let keys = people::find(&scene.app, &scene.alice.name).await.unwrap().keys.len();
            let passkeys = passkeys::list(&scene.app, &scene.alice.name).await.unwrap().len();
            assert_eq!(keys + passkeys, 1);
            assert!(is_refused(&scene.look().await) && is_refused(&scene.begin().await));
            let acts = scene.acts().await;
            let used: Vec<_> = acts.iter().filter(|act| matches!(act, Act::InviteUsed { .. })).collect();
            assert!(matches!(used[..], [Act::InviteUsed { invite, .. }] if *invite == invited.id), "{acts:?}");
            let told = |act: &&Act| matches!(act, Act::LoginRefused { claimed, .. } if claimed == "alice");
            assert_eq!(acts.iter().filter(told).count(), 4, "each that came too late is told");
        })
        .await;
    }

    #[tokio::test]
    async fn an_invited_person_makes_a_passkey_that_signs_them_in() {
        on_both(|db| async {
            let scene = Scene::new(app_on(db)).await;
            let mut device = device();
            let (challenge, options) = scene.begin().await.unwrap();
            scene.make(challenge, device.create(&options)).await.unwrap();

            let (challenge, options) = scene.sign_ins.begin_passkey(&scene.app, scene.address).await.unwrap();
            let credential = device.get(&options);
            let offer =
                super::super::PasskeyOffer { challenge, credential, address: scene.address, browser: String::new() };
            let (signed_in, _) = scene.sign_ins.sign_in_by_passkey(&scene.app, offer).await.unwrap();

            assert_eq!(signed_in.principal, scene.alice);
            let made = &passkeys::list(&scene.app, &scene.alice.name).await.unwrap()[0];
            let listed = invites::list(&scene.app, &scene.alice.name).await.unwrap();
            assert_eq!(listed[0].used.as_ref().unwrap().1, made.id.to_string());
        })
        .await;
    }

    #[tokio::test]
    async fn what_fails_leaves_the_link_as_it_was() {
        on_both(|db| async {
            let scene = Scene::new(app_on(db)).await;
            let key: SshPublicKey = KEY.parse().unwrap();
            people::add_key(&scene.app, &OPERATOR, &"bob".parse().unwrap(), key.clone(), None).await.unwrap();
            let events = scene.acts().await.len();

            let taken = scene.accept(&key).await;
            let is_taken = matches!(taken, Err(SignInError::Invite(InviteError::People(PeopleError::KeyTaken { .. }))));
            assert!(is_taken, "{taken:?}");
            let (challenge, options) = scene.begin().await.unwrap();
            let elsewhere = SoftAuthenticator::new("https://evil.example", "bastion.example").create(&options);
            let forged = scene.make(challenge, elsewhere).await;
            assert!(matches!(forged, Err(SignInError::Passkey(PasskeyError::NotProved(_)))), "{forged:?}");
            let (own, options) = {
                let browser = Some(sallyport_domain::id::WebSessionId::from_uuid(uuid::Uuid::nil()));
                scene.sign_ins.begin_to_add_passkey(&scene.app, &scene.alice, browser).await.unwrap()
            };
            let other = scene.make(own, device().create(&options)).await;
            assert!(matches!(other, Err(SignInError::Passkey(PasskeyError::NotBegun))), "asked for something else");

            assert!(scene.has_nothing().await);
            assert_eq!(scene.acts().await.len(), events, "nothing happened");
            scene.accept(&another_key().parse().unwrap()).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_challenge_of_one_persons_invite_is_nothing_to_anothers() {
        on_both(|db| async {
            let mut scene = Scene::new(app_on(db)).await;
            let (challenge, options) = scene.begin().await.unwrap();
            let bob = "bob".parse().unwrap();
            (_, scene.token) = invites::make(&scene.app, &OPERATOR, &bob, None).await.unwrap();

            let made = scene.make(challenge, device().create(&options)).await;

            assert!(matches!(made, Err(SignInError::Passkey(PasskeyError::NotBegun))), "{made:?}");
            assert!(passkeys::list(&scene.app, &bob).await.unwrap().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn tries_with_one_token_are_counted_and_looking_is_free() {
        on_both(|db| async {
            let mut scene = Scene::new(app_on(db)).await;
            for _ in 0..3 * MOST_FOR_NAME_AT_ADDRESS {
                scene.look().await.unwrap();
            }
            scene.app.clock.advance(Duration::from_hours(24));
            for _ in 0..MOST_FOR_NAME_AT_ADDRESS {
                assert!(is_refused(&scene.look().await));
            }
            assert!(matches!(scene.look().await, Err(SignInError::TooMany { .. })));
            scene.address = "203.0.113.10:5000".parse().unwrap();
            assert!(is_refused(&scene.look().await), "another address");

            let events = scene.acts().await.len();
            for text in [format!("spi_{}", "A".repeat(43)), "spi_".to_owned()] {
                scene.token = InviteToken::new(text);
                assert!(is_refused(&scene.look().await));
            }
            assert_eq!(scene.acts().await.len(), events, "of what never was one nothing is written");
        })
        .await;
    }

    #[test]
    fn the_token_is_behind_the_sign_that_browsers_send_nothing_from() {
        let token = InviteToken::new("spi_x");
        let at = SignIns::default().at(&ORIGIN.parse().unwrap());
        assert_eq!(at.invite_link(&token).as_deref(), Some("https://bastion.example:8443/invite#spi_x"));
        assert_eq!(SignIns::default().invite_link(&token), None);
    }

    fn another_key() -> String {
        use base64::Engine as _;
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend([7; 32]);
        format!("ssh-ed25519 {}", base64::engine::general_purpose::STANDARD.encode(blob))
    }
}
