use super::super::SignInTimes;
use super::super::soft_authenticator::{SoftAuthenticator, text};
use super::super::tries::MOST_FOR_NAME_AT_ADDRESS;
use super::*;
use crate::app::people;
use crate::app::people::tests::{OPERATOR, named};
use crate::store::db::testing::{app_on, on_both};

const ORIGIN: &str = "https://bastion.example:8443";

fn address() -> SocketAddr {
    "203.0.113.9:5000".parse().unwrap()
}

fn sign_ins() -> SignIns {
    SignIns::new(SignInTimes::default()).at(&ORIGIN.parse().unwrap())
}

fn some_browser() -> Option<WebSessionId> {
    Some(WebSessionId::from_uuid(Uuid::nil()))
}

struct Scene {
    app: App,
    sign_ins: SignIns,
    alice: Principal,
    device: SoftAuthenticator,
}

impl Scene {
    /// Alice has a passkey.
    async fn new(app: App) -> Self {
        let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
        let mut scene =
            Self { app, sign_ins: sign_ins(), alice, device: SoftAuthenticator::new(ORIGIN, "bastion.example") };
        scene.add("laptop").await.unwrap();
        scene
    }

    async fn add(&mut self, name: &str) -> Result<PasskeyRecord, PasskeyError> {
        let Self { app, sign_ins, alice, device } = self;
        let (token, options) = sign_ins.begin_to_add_passkey(app, alice, some_browser()).await.unwrap();
        sign_ins.add_passkey(app, alice, &token, name, device.create(&options)).await
    }

    async fn asked(&self) -> (WebToken, Value) {
        self.sign_ins.begin_passkey(&self.app, address()).await.unwrap()
    }

    async fn answer(&self, challenge: &WebToken, credential: Value) -> Result<SignedIn, SignInError> {
        let challenge = WebToken::new(challenge.expose());
        let offer = PasskeyOffer { challenge, credential, address: address(), browser: String::new() };
        self.sign_ins.sign_in_by_passkey(&self.app, offer).await.map(|(signed_in, _)| signed_in)
    }

    async fn sign_in(&mut self) -> Result<SignedIn, SignInError> {
        let (challenge, options) = self.asked().await;
        let credential = self.device.get(&options);
        self.answer(&challenge, credential).await
    }
}

fn is_refused<T>(result: &Result<T, SignInError>) -> bool {
    matches!(result, Err(SignInError::Passkey(PasskeyError::Refused)))
}

#[tokio::test]
async fn a_passkey_signs_its_person_in_without_a_name_and_tells_when() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;

        let first = scene.sign_in().await.unwrap();
        let second = scene.sign_in().await.unwrap();

        assert_eq!((&first.principal, &second.principal), (&scene.alice, &scene.alice));
        let known = list(&scene.app, &scene.alice.name).await.unwrap();
        assert_eq!((known.len(), known[0].name.as_str()), (1, "laptop"));
        assert_eq!(known[0].last_used_at, Some(scene.app.clock.now()));
        let events = audit::list(&scene.app, 0, &audit::EventFilter::default(), 100).await.unwrap();
        let acts: Vec<&Act> = events.iter().map(|(_, event)| &event.act).collect();
        assert!(matches!(&acts[1], Act::PasskeyAdded { name, .. } if name == "laptop"), "{acts:?}");
        assert!(matches!(&acts[2], Act::LoggedIn { method, .. } if method == "web passkey"), "{acts:?}");
    })
    .await;
}

#[tokio::test]
async fn a_browser_is_asked_for_a_key_that_it_keeps_and_for_its_persons_presence() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;

        let (_, create) = scene.sign_ins.begin_to_add_passkey(&scene.app, &scene.alice, some_browser()).await.unwrap();
        let (_, get) = scene.asked().await;

        assert_eq!(create["rp"]["id"], "bastion.example");
        assert_eq!(create["authenticatorSelection"]["residentKey"], "required");
        assert_eq!(create["authenticatorSelection"]["userVerification"], "required");
        assert_eq!(create["excludeCredentials"][0]["id"], text(&scene.device.id));
        assert_eq!((&get["userVerification"], &get["rpId"]), (&"required".into(), &"bastion.example".into()));
        assert_eq!(get["allowCredentials"], Value::Array(vec![]), "nobody is named");
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_another_site_or_unseen_or_old_or_to_another_question_signs_nobody_in() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;

        let (challenge, options) = scene.asked().await;
        let credential = scene.device.get(&options);
        assert!(scene.answer(&challenge, credential.clone()).await.is_ok());
        assert!(is_refused(&scene.answer(&challenge, credential.clone()).await), "answered before");
        let (challenge, _) = scene.asked().await;
        assert!(is_refused(&scene.answer(&challenge, credential).await), "another question");

        scene.device.origin = "https://bastion.example.evil.example:8443".to_owned();
        assert!(is_refused(&scene.sign_in().await), "another site");
        scene.device.origin = "https://bastion.example".to_owned();
        assert!(is_refused(&scene.sign_in().await), "another port");
        scene.device.origin = ORIGIN.to_owned();
        scene.device.rp_id = "evil.example".to_owned();
        assert!(is_refused(&scene.sign_in().await), "made for another name");
        scene.device.rp_id = "bastion.example".to_owned();
        scene.device.verifies = false;
        assert!(is_refused(&scene.sign_in().await), "nobody was recognised");
        scene.device.verifies = true;
        assert!(scene.sign_in().await.is_ok());
        scene.device.counter = 1;
        assert!(is_refused(&scene.sign_in().await), "a copy of the key counts from where it was taken");
    })
    .await;
}

#[tokio::test]
async fn an_altered_answer_signs_nobody_in_and_never_panics() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;
        for part in ["clientDataJSON", "authenticatorData", "signature", "userHandle"] {
            let (challenge, options) = scene.asked().await;
            let mut credential = scene.device.get(&options);
            let said = credential["response"][part].as_str().unwrap();
            let end = &said[said.len() - 4..];
            let other = format!("{}{}", &said[..said.len() - 4], if end == "AAAA" { "AAEA" } else { "AAAA" });
            credential["response"][part] = other.into();
            let answered = scene.answer(&challenge, credential).await;
            assert!(answered.is_err(), "{part}");
        }
        for credential in [Value::Null, "x".into(), serde_json::json!({ "id": "x", "rawId": "?", "type": 1 })] {
            let (challenge, _) = scene.asked().await;
            let answered = scene.answer(&challenge, credential).await;
            assert!(matches!(answered, Err(SignInError::Passkey(PasskeyError::Malformed { .. }))), "{answered:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_key_a_wrong_one_and_a_disabled_person_are_refused_alike_in_words_and_time() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;
        let mut stranger = SoftAuthenticator::new(ORIGIN, "bastion.example");
        let (_, made) = scene.sign_ins.begin_to_add_passkey(&scene.app, &scene.alice, some_browser()).await.unwrap();
        stranger.create(&made);
        let mut forger = SoftAuthenticator::new(ORIGIN, "bastion.example");
        forger.create(&made);
        forger.id.clone_from(&scene.device.id);

        for device in [&mut stranger, &mut forger] {
            let started = Instant::now();
            let (challenge, options) = scene.asked().await;
            let credential = device.get(&options);
            assert!(is_refused(&scene.answer(&challenge, credential).await));
            assert!(started.elapsed() >= REFUSAL);
        }
        people::disable(&scene.app, &OPERATOR, &scene.alice.name, None).await.unwrap();
        assert!(is_refused(&scene.sign_in().await));
        people::enable(&scene.app, &OPERATOR, &scene.alice.name, None).await.unwrap();
        assert!(scene.sign_in().await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn tries_with_one_key_are_counted_and_so_are_beginnings() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;
        scene.device.verifies = false;
        for _ in 0..MOST_FOR_NAME_AT_ADDRESS {
            assert!(is_refused(&scene.sign_in().await));
        }
        scene.device.verifies = true;
        let limited = scene.sign_in().await;
        assert!(matches!(limited, Err(SignInError::TooMany { .. })), "{limited:?}");

        let begun = async || scene.sign_ins.begin_passkey(&scene.app, address()).await;
        let most = 200;
        let mut last = Ok(());
        for _ in 0..most {
            last = begun().await.map(drop);
        }
        assert!(matches!(last, Err(SignInError::TooMany { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_removed_passkey_signs_nobody_in_and_its_person_is_out_everywhere_else() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;
        let (one, two) = (scene.sign_in().await.unwrap(), scene.sign_in().await.unwrap());
        let id = list(&scene.app, &scene.alice.name).await.unwrap()[0].id;

        let bob = people::add(&scene.app, &OPERATOR, named("bob")).await.unwrap().principal;
        let others = remove(&scene.app, &OPERATOR, &bob.name, id, None).await;
        assert!(matches!(others, Err(PasskeyError::Unknown { .. })), "{others:?}");
        let by = actor(&scene.alice);
        let left = remove(&scene.app, &by, &scene.alice.name, id, Some(two.session.id)).await.unwrap();

        assert_eq!(left, []);
        assert!(is_refused(&scene.sign_in().await));
        let open: Vec<_> =
            scene.sign_ins.list(&scene.app, &scene.alice).await.unwrap().into_iter().map(|open| open.id).collect();
        assert_eq!(open, [two.session.id]);
        assert_ne!(open, [one.session.id]);
    })
    .await;
}

#[tokio::test]
async fn a_passkey_is_added_by_whoever_began_in_a_browser_once_and_for_one_person() {
    on_both(|db| async {
        let mut scene = Scene::new(app_on(db)).await;
        let bob = people::add(&scene.app, &OPERATOR, named("bob")).await.unwrap().principal;

        let by_token = scene.sign_ins.begin_to_add_passkey(&scene.app, &scene.alice, None).await;
        assert!(matches!(by_token, Err(SignInError::Passkey(PasskeyError::NoBrowser))));
        let again = scene.add("again").await;
        assert!(matches!(again, Err(PasskeyError::NotProved(_))), "{again:?}");
        let (token, options) = scene.sign_ins.begin_to_add_passkey(&scene.app, &bob, some_browser()).await.unwrap();
        let shared = scene.sign_ins.add_passkey(&scene.app, &bob, &token, "ours", scene.device.create(&options)).await;
        assert!(matches!(shared, Err(PasskeyError::Taken)), "{shared:?}");
        let mut new = SoftAuthenticator::new(ORIGIN, "bastion.example");
        let (token, options) =
            scene.sign_ins.begin_to_add_passkey(&scene.app, &scene.alice, some_browser()).await.unwrap();
        let others = scene.sign_ins.add_passkey(&scene.app, &bob, &token, "mine", new.create(&options)).await;
        assert!(matches!(others, Err(PasskeyError::NotBegun)), "{others:?}");
        new.origin = "https://evil.example".to_owned();
        scene.device = new;
        let elsewhere = scene.add("elsewhere").await;
        assert!(matches!(elsewhere, Err(PasskeyError::NotProved(_))), "{elsewhere:?}");
        scene.device.origin = ORIGIN.to_owned();
        scene.device.verifies = false;
        let unseen = scene.add("unseen").await;
        assert!(matches!(unseen, Err(PasskeyError::NotProved(_))), "{unseen:?}");
    })
    .await;
}

#[tokio::test]
async fn where_the_web_app_has_no_name_there_are_no_passkeys() {
    on_both(|db| async {
        let app = app_on(db);
        for sign_ins in [SignIns::default(), SignIns::default().at(&"https://10.0.0.1:8443".parse().unwrap())] {
            let begun = sign_ins.begin_passkey(&app, address()).await;
            assert!(matches!(begun, Err(SignInError::Passkey(PasskeyError::NotSetUp))));
            assert!(!sign_ins.has_passkeys());
        }
    })
    .await;
}
