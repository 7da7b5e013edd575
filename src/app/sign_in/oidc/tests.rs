use super::super::SignInTimes;
use super::super::identities;
use super::*;
use crate::app::people;
use crate::app::people::tests::{OPERATOR, named};
use crate::store::db::testing::{app_on, on_both};
use crate::support::oidc::{Asked, Provider as TestProvider};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

fn address() -> SocketAddr {
    "203.0.113.9:5000".parse().unwrap()
}

struct Scene {
    app: App,
    sign_ins: SignIns,
    provider: TestProvider,
    alice: Principal,
}

/// Somebody who has been to the provider's page.
struct Gone {
    cookie: WebToken,
    asked: Asked,
}

impl Scene {
    /// Alice is `subject-1` at the provider.
    async fn new(app: App) -> Self {
        let provider = TestProvider::start().await;
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "client-secret\n").unwrap();
        let settings = OidcSettings {
            issuer: provider.issuer(),
            client_id: "sallyport".to_owned(),
            client_secret_file: Some(secret),
            client_secret_env: None,
            client_secret_credential: None,
            ca_file: None,
            label: None,
        };
        let url: PublicUrl = "https://bastion.example:8443".parse().unwrap();
        let ours = Provider::open(&settings, Some(&url), |_| None).unwrap();
        let sign_ins = SignIns::new(SignInTimes::default()).at(&url).with_provider(ours);
        let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
        identities::bind(&app, &OPERATOR, &alice.name, &settings.issuer, "subject-1").await.unwrap();
        Self { app, sign_ins, provider, alice }
    }

    async fn goes(&self, to: &str) -> Gone {
        let (url, cookie) = self.sign_ins.begin_oidc(&self.app, address(), to).await.unwrap();
        Gone { cookie, asked: Asked::at(&url) }
    }

    fn now(&self) -> i64 {
        self.app.clock.now().timestamp()
    }

    async fn comes_back(&self, gone: &Gone, code: &str) -> Result<(SignedIn, String), SignInError> {
        self.comes_back_with(gone, gone.asked.get("state"), code).await
    }

    async fn comes_back_with(&self, gone: &Gone, state: &str, code: &str) -> Result<(SignedIn, String), SignInError> {
        let answer = OidcAnswer {
            cookie: Some(WebToken::new(gone.cookie.expose())),
            state: state.to_owned(),
            code: Some(code.to_owned()),
            error: None,
            issuer: None,
            address: address(),
            browser: String::new(),
        };
        self.sign_ins.sign_in_by_oidc(&self.app, answer).await.map(|(signed_in, _, to)| (signed_in, to))
    }

    /// All of it, with what the claims are changed to.
    async fn sign_in(&self, change: impl Fn(&mut Value)) -> Result<(SignedIn, String), SignInError> {
        let gone = self.goes("/").await;
        let mut claims = self.provider.claims(&gone.asked, "subject-1", self.now());
        change(&mut claims);
        let code = self.provider.agree(&gone.asked, self.provider.sign(&claims));
        self.comes_back(&gone, &code).await
    }
}

fn is_refused<T>(result: &Result<T, SignInError>) -> bool {
    matches!(result, Err(SignInError::Oidc(OidcError::Refused)))
}

fn is_not_begun<T>(result: &Result<T, SignInError>) -> bool {
    matches!(result, Err(SignInError::Oidc(OidcError::NotBegun)))
}

#[tokio::test]
async fn whoever_is_bound_to_the_subject_comes_in_and_is_led_to_where_they_were() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;

        let gone = scene.goes("/sessions?state=live").await;
        let claims = scene.provider.claims(&gone.asked, "subject-1", scene.now());
        let code = scene.provider.agree(&gone.asked, scene.provider.sign(&claims));
        let (signed_in, to) = scene.comes_back(&gone, &code).await.unwrap();

        assert_eq!((signed_in.principal, to.as_str()), (scene.alice.clone(), "/sessions?state=live"));
        let asked = |name| gone.asked.get(name);
        assert_eq!(asked("redirect_uri"), "https://bastion.example:8443/api/v1/sign-in/oidc/callback");
        assert_eq!((asked("response_type"), asked("code_challenge_method")), ("code", "S256"));
        assert_eq!(asked("scope"), "openid", "nothing else is asked for");
        assert!(asked("nonce").len() >= 16 && asked("state").len() >= 16);
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_taken_once_from_the_browser_that_asked_and_with_its_state() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        let token = |gone: &Gone| scene.provider.sign(&scene.provider.claims(&gone.asked, "subject-1", scene.now()));

        let gone = scene.goes("/").await;
        let code = scene.provider.agree(&gone.asked, token(&gone));
        assert!(scene.comes_back(&gone, &code).await.is_ok());
        assert!(is_not_begun(&scene.comes_back(&gone, &code).await), "the same once more");

        let (one, two) = (scene.goes("/").await, scene.goes("/").await);
        let code = scene.provider.agree(&one.asked, token(&one));
        assert!(is_not_begun(&scene.comes_back_with(&two, one.asked.get("state"), &code).await), "another browser");
        let three = scene.goes("/").await;
        assert!(is_refused(&scene.comes_back(&three, &code).await), "a code of another sign-in: PKCE does not fit");

        let gone = scene.goes("/").await;
        let replayed = token(&one);
        let code = scene.provider.agree(&gone.asked, replayed);
        assert!(
            is_refused(&scene.comes_back(&gone, &code).await),
            "a token of another sign-in: its nonce does not fit"
        );

        let late = scene.goes("/").await;
        scene.app.clock.advance(PATIENCE);
        let code = scene.provider.agree(&late.asked, token(&late));
        assert!(is_not_begun(&scene.comes_back(&late, &code).await), "it took too long");
    })
    .await;
}

#[tokio::test]
async fn a_token_for_another_client_of_another_issuer_or_time_proves_nobody() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        let now = scene.now();

        assert!(is_refused(&scene.sign_in(|claims| claims["aud"] = "another".into()).await));
        assert!(is_refused(&scene.sign_in(|claims| claims["aud"] = json!(["sallyport", "another"])).await));
        assert!(is_refused(&scene.sign_in(|claims| claims["iss"] = "https://evil.example".into()).await));
        assert!(is_refused(&scene.sign_in(|claims| claims["nonce"] = Value::Null).await));
        assert!(is_refused(&scene.sign_in(|claims| claims["exp"] = (now - 61).into()).await));
        assert!(is_refused(&scene.sign_in(|claims| claims["iat"] = (now + 62).into()).await));
        assert!(is_refused(&scene.sign_in(|claims| claims["iat"] = (now - 16 * 60).into()).await));
        // A clock may be a minute off, either way.
        assert!(scene.sign_in(|claims| claims["exp"] = (now - 58).into()).await.is_ok());
        assert!(scene.sign_in(|claims| claims["iat"] = (now + 58).into()).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_token_that_nobody_signed_or_somebody_else_did_proves_nobody() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());

        let forged = async |head: Value, signature: &str| {
            let gone = scene.goes("/").await;
            let claims = scene.provider.claims(&gone.asked, "subject-1", scene.now());
            let token = format!("{}.{}.{signature}", part(head), part(claims));
            let code = scene.provider.agree(&gone.asked, token);
            scene.comes_back(&gone, &code).await
        };
        assert!(forged(json!({ "alg": "none" }), "").await.is_err());
        assert!(is_refused(&forged(json!({ "alg": "HS256" }), "AAAA").await), "a MAC with what the client knows");
        assert!(is_refused(&forged(json!({ "alg": "ES256" }), &URL_SAFE_NO_PAD.encode([7; 64])).await));
        let other = TestProvider::start().await;
        let gone = scene.goes("/").await;
        let token = other.sign(&scene.provider.claims(&gone.asked, "subject-1", scene.now()));
        let code = scene.provider.agree(&gone.asked, token);
        assert!(is_refused(&scene.comes_back(&gone, &code).await), "another provider's key");
    })
    .await;
}

#[tokio::test]
async fn the_providers_next_key_is_asked_for_when_it_is_met_but_not_at_every_forgery() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        assert!(scene.sign_in(|_| ()).await.is_ok());
        assert_eq!(scene.provider.key_sets(), 1);
        let back = scene.sign_ins.provider().unwrap();
        // As if it had been asked some time ago.
        let mut known = back.known.lock().unwrap().clone().unwrap();
        known.at -= RENEW;
        *back.known.lock().unwrap() = Some(known);

        scene.provider.rotate();
        assert!(scene.sign_in(|_| ()).await.is_ok());
        assert_eq!(scene.provider.key_sets(), 2);
        scene.provider.rotate();
        assert!(is_refused(&scene.sign_in(|_| ()).await), "it was asked a moment ago");
        assert_eq!(scene.provider.key_sets(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_subject_an_e_mail_address_and_a_disabled_person_do_not_come_in() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        let unknown = |subject: &'static str| scene.sign_in(move |claims| claims["sub"] = subject.into());

        assert!(is_refused(&unknown("subject-2").await));
        assert!(is_refused(&unknown("alice").await), "a name of ours is no subject");
        let filter = crate::app::audit::EventFilter::default();
        let events = crate::app::audit::list(&scene.app, 0, &filter, 100).await.unwrap();
        let said = format!("{:?}", events.last().unwrap().1.act);
        assert!(said.contains("subject alice"), "an admin finds whom to bind: {said}");

        people::disable(&scene.app, &OPERATOR, &scene.alice.name, None).await.unwrap();
        assert!(is_refused(&scene.sign_in(|_| ()).await));
        people::enable(&scene.app, &OPERATOR, &scene.alice.name, None).await.unwrap();
        assert!(scene.sign_in(|_| ()).await.is_ok());
        identities::unbind(&scene.app, &OPERATOR, &scene.alice.name).await.unwrap();
        assert!(is_refused(&scene.sign_in(|_| ()).await));
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_another_issuer_and_a_no_of_the_provider_are_no_sign_in() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        for (issuer, error) in [(Some("https://evil.example"), None), (None, Some("access_denied"))] {
            let gone = scene.goes("/").await;
            let claims = scene.provider.claims(&gone.asked, "subject-1", scene.now());
            let code = scene.provider.agree(&gone.asked, scene.provider.sign(&claims));
            let answer = OidcAnswer {
                cookie: Some(WebToken::new(gone.cookie.expose())),
                state: gone.asked.get("state").to_owned(),
                code: error.is_none().then_some(code),
                error: error.map(str::to_owned),
                issuer: issuer.map(str::to_owned),
                address: address(),
                browser: String::new(),
            };
            assert!(is_refused(&scene.sign_ins.sign_in_by_oidc(&scene.app, answer).await));
        }
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_is_away_is_said_to_be_and_a_secret_shows_nowhere() {
    on_both(|db| async {
        let scene = Scene::new(app_on(db)).await;
        let shown = format!("{:?}", scene.sign_ins);
        assert!(!shown.contains("client-secret"), "{shown}");
        let Scene { app, sign_ins, provider, .. } = scene;
        drop(provider);

        let begun = sign_ins.begin_oidc(&app, address(), "/").await;
        assert!(matches!(begun, Err(SignInError::Oidc(OidcError::Away { .. }))));
    })
    .await;
}

#[test]
fn nobody_is_led_elsewhere() {
    for path in ["/", "/sessions?state=live", "/people/li.wei?q=%2F%2Fevil"] {
        assert_eq!(path_of_ours(path), path);
    }
    let long = format!("/{}", "a".repeat(MOST_PATH));
    for path in [
        "",
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil",
        "/a\r\nb",
        "/\u{e9}",
        "/ a",
        long.as_str(),
    ] {
        assert_eq!(path_of_ours(path), "/", "{path:?}");
    }
}

#[test]
fn settings_that_would_send_secrets_in_clear_are_refused() {
    let check = |text: &str| {
        let settings: SignInSettings = toml::from_str(text).unwrap();
        settings.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(check(""), [""; 0]);
    assert_eq!(check("[oidc]\nissuer = 'https://id.example'\nclient_id = 'x'"), [""; 0]);
    assert_eq!(check("[oidc]\nissuer = 'http://127.0.0.1:9'\nclient_id = 'x'"), [""; 0]);
    assert_eq!(check("[oidc]\nissuer = 'http://id.example'\nclient_id = ''"), ["oidc.issuer", "oidc.client_id"]);
    let two =
        "[oidc]\nissuer = 'https://id.example'\nclient_id = 'x'\nclient_secret_env = 'A'\nclient_secret_file = '/b'";
    assert_eq!(check(two), ["oidc"]);
}
