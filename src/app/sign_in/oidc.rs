//! Signing in at an identity provider: OpenID Connect Core 1.0, the authorisation code flow (§3.1) with PKCE (RFC 7636).
//!
//! Whom the provider proves is its business; who that is here, an admin has said by binding a person to the provider's
//! subject ([`super::identities`]). Nothing else of the token is looked at, least of all an e-mail address. State, nonce and PKCE
//! verifier are kept here and bound to the browser by a cookie; the way back is one exact URL.
//!
//! A sign-in at the provider is whole: no code is asked for besides. Whether it takes two factors is the provider's setting.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreTokenResponse,
};
use openidconnect::{
    AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, DiscoveryError, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, TokenResponse as _,
};
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::WebToken;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use webauthn_rs::prelude::Url;

use super::challenges::{self, Purpose};
use super::tries::begun_keys;
use super::{PublicUrl, SignInError, SignIns, SignedIn};
use crate::app::{App, logins};
use crate::store::db::{DbError, identities, principals};

/// Where the provider sends people back to, behind the web app's address.
pub const CALLBACK: &str = "/api/v1/sign-in/oidc/callback";

/// A person has this long at the provider.
const PATIENCE: Duration = Duration::from_mins(10);
/// One request to the provider may take this long, and answer this much.
const FETCH: Duration = Duration::from_secs(5);
const MOST_ANSWER_BYTES: usize = 1 << 20;
/// What the provider says of itself is asked for again after this; its keys at once when one is missing, but not more often than
/// the second says, for strangers can make us look.
const KEEP: Duration = Duration::from_hours(1);
const RENEW: Duration = Duration::from_secs(10);
/// The provider's clock may be this far from ours.
const SKEW: TimeDelta = TimeDelta::seconds(60);
/// A token that was issued longer ago was not issued for this.
const OLDEST: TimeDelta = TimeDelta::minutes(15);
/// Neither `none`, nor a MAC with the client's secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 6] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];
/// The longest path that somebody is sent back to.
const MOST_PATH: usize = 2000;
const METHOD: &str = "web oidc";

/// `[sign_in.oidc]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// The provider's issuer identifier, to the letter.
    pub issuer: String,
    pub client_id: String,
    /// Where the client's secret is: at most one of the three; none is a public client.
    pub client_secret_file: Option<PathBuf>,
    /// The name of an environment variable.
    pub client_secret_env: Option<String>,
    /// The name of a systemd credential (`LoadCredential=`).
    pub client_secret_credential: Option<String>,
    /// Whom to believe as the provider's authority (PEM); left out, whom this machine believes.
    pub ca_file: Option<PathBuf>,
    /// What people call it, on the button.
    pub label: Option<String>,
}

/// `[sign_in]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignInSettings {
    pub oidc: Option<OidcSettings>,
}

impl SignInSettings {
    /// What a type cannot say: keys under `sign_in`, and what is wrong with each.
    pub fn check(&self) -> Vec<(&'static str, &'static str)> {
        let Some(oidc) = &self.oidc else { return Vec::new() };
        let mut faults = Vec::new();
        let issuer: Option<Url> = oidc.issuer.parse().ok();
        if !issuer.is_some_and(|url| is_safe(&url) && url.query().is_none() && url.fragment().is_none()) {
            faults.push(("oidc.issuer", "must be an `https://` URL without a query"));
        }
        if oidc.client_id.is_empty() {
            faults.push(("oidc.client_id", "is needed"));
        }
        let places = [
            oidc.client_secret_file.is_some(),
            oidc.client_secret_env.is_some(),
            oidc.client_secret_credential.is_some(),
        ];
        if places.into_iter().filter(|set| *set).count() > 1 {
            faults.push(("oidc", "only one of `client_secret_file`, `_env` and `_credential` may be set"));
        }
        faults
    }
}

/// Why a provider cannot be used, or proved nobody.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("there is no identity provider: set `[sign_in.oidc]` and `api.public_url`")]
    NotSetUp,
    #[error("`[sign_in.oidc]` needs `api.public_url`: the provider sends people back there")]
    NoPublicUrl,
    #[error("cannot read the client's secret from {place}")]
    Secret {
        place: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use `{}` (`sign_in.oidc.ca_file`)", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make a client for the identity provider")]
    Client(#[source] reqwest::Error),
    #[error("the sign-in took too long, or began in another browser; begin again")]
    NotBegun,
    #[error("the identity provider does not answer now, or not as one: {message}")]
    Away { message: String },
    #[error("the identity provider proved nobody who may come in here")]
    Refused,
}

/// What came back with the browser.
pub struct OidcAnswer {
    /// What the cookie held.
    pub cookie: Option<WebToken>,
    pub state: String,
    pub code: Option<String>,
    /// Why the provider proved nobody (RFC 6749 §4.1.2.1).
    pub error: Option<String>,
    /// Who says so (RFC 9207), if they do.
    pub issuer: Option<String>,
    pub address: SocketAddr,
    /// `User-Agent`
    pub browser: String,
}

/// What is kept while somebody is at the provider.
#[derive(Serialize, Deserialize)]
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    to: String,
}

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// The provider, as far as it is known.
pub struct Provider {
    settings: OidcSettings,
    secret: Option<SecretString>,
    issuer: IssuerUrl,
    back: RedirectUrl,
    http: Http,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    metadata: Arc<CoreProviderMetadata>,
    at: Instant,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

impl Provider {
    /// Reads the secret. The provider is not asked for anything yet. `variable` reads the environment.
    pub fn open(
        settings: &OidcSettings,
        public_url: Option<&PublicUrl>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, OidcError> {
        let public_url = public_url.ok_or(OidcError::NoPublicUrl)?;
        let back = RedirectUrl::new(format!("{public_url}{CALLBACK}"));
        let issuer = IssuerUrl::new(settings.issuer.clone());
        let (Ok(back), Ok(issuer)) = (back, issuer) else { return Err(OidcError::NotSetUp) };
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH)
            .user_agent(concat!("sallyport/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.ca_file {
            http = http.tls_certs_only(certificates(path)?);
        }
        let http = Http(http.build().map_err(OidcError::Client)?);
        let secret = client_secret(settings, variable)?;
        Ok(Self { settings: settings.clone(), secret, issuer, back, http, known: Mutex::new(None) })
    }

    /// Who the provider is, to the letter.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// What people call it.
    pub fn label(&self) -> &str {
        let host = || self.issuer.url().host_str().unwrap_or_default();
        self.settings.label.as_deref().unwrap_or_else(host)
    }

    /// What the provider says of itself, with its keys; asked for again where `missed` says that a key is missing.
    fn metadata(&self, missed: bool) -> BoxFuture<'_, Result<Arc<CoreProviderMetadata>, OidcError>> {
        Box::pin(self.find_metadata(missed))
    }

    async fn find_metadata(&self, missed: bool) -> Result<Arc<CoreProviderMetadata>, OidcError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let patience = if missed { RENEW } else { KEEP };
        if let Some(known) = known.filter(|known| known.at.elapsed() < patience) {
            return Ok(known.metadata);
        }
        let found = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http).await;
        let found = found.map_err(|error| OidcError::Away { message: discovery_failure(&error) })?;
        if !is_safe(found.authorization_endpoint().url()) {
            return Err(OidcError::Away { message: "its page for signing in is not `https`".to_owned() });
        }
        let metadata = Arc::new(found);
        let known = Known { metadata: metadata.clone(), at: Instant::now() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(metadata)
    }

    fn client(&self, metadata: &CoreProviderMetadata) -> Client {
        let id = ClientId::new(self.settings.client_id.clone());
        let secret = self.secret.as_ref().map(|secret| ClientSecret::new(secret.expose_secret().to_owned()));
        CoreClient::from_provider_metadata(metadata.clone(), id, secret).set_redirect_uri(self.back.clone())
    }

    /// What the provider gives for the code.
    fn exchange(&self, code: String, verifier: String) -> BoxFuture<'_, Result<CoreTokenResponse, Refusal>> {
        Box::pin(self.ask_for_tokens(code, verifier))
    }

    async fn ask_for_tokens(&self, code: String, verifier: String) -> Result<CoreTokenResponse, Refusal> {
        let metadata = self.metadata(false).await.map_err(Refusal::Away)?;
        let client = self.client(&metadata);
        let away = |message: String| Refusal::Away(OidcError::Away { message });
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(|error| away(error.to_string()))?;
        let exchanged = request.set_pkce_verifier(PkceCodeVerifier::new(verifier)).request_async(&self.http).await;
        exchanged.map_err(|error| match error {
            RequestTokenError::ServerResponse(response) => {
                nobody(format!("the code was refused: {}", response.error()))
            }
            RequestTokenError::Request(error) => away(error.to_string()),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => away("its answer cannot be read".to_owned()),
        })
    }

    /// The subject that the token proves at `now`.
    async fn subject(&self, token: &CoreIdToken, nonce: &Nonce, now: DateTime<Utc>) -> Result<String, String> {
        let mut missed = false;
        loop {
            let metadata = self.metadata(missed).await.map_err(|error| error.to_string())?;
            let client = self.client(&metadata);
            let verifier = client
                .id_token_verifier()
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || now - SKEW)
                .set_issue_time_verifier_fn(move |issued| {
                    let is_new = now - OLDEST <= issued && issued <= now + SKEW;
                    if is_new { Ok(()) } else { Err(format!("issued at {issued}")) }
                });
            match token.claims(&verifier, nonce) {
                Ok(claims) => return Ok(claims.subject().as_str().to_owned()),
                // Its keys may be others by now.
                Err(openidconnect::ClaimsVerificationError::SignatureVerification(_)) if !missed => missed = true,
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl SignIns {
    /// The same with an identity provider.
    #[must_use]
    pub fn with_provider(self, provider: Provider) -> Self {
        Self { provider: Some(Arc::new(provider)), ..self }
    }

    /// The identity provider, if there is one.
    pub fn provider(&self) -> Option<&Provider> {
        self.provider.as_deref()
    }

    /// Begins to sign somebody in at the provider: the URL to go to, and what the cookie is to hold. `to` is where they want to
    /// be in the web app.
    pub async fn begin_oidc(
        &self,
        app: &App,
        address: SocketAddr,
        to: &str,
    ) -> Result<(String, WebToken), SignInError> {
        let provider = self.provider().ok_or(OidcError::NotSetUp)?;
        let now = app.clock.now();
        self.tries(|tries| tries.count(&begun_keys(address.ip()), now))
            .map_err(|wait| SignInError::TooMany { wait })?;
        let client = provider.client(&*provider.metadata(false).await?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
            .set_pkce_challenge(challenge)
            .url();
        let pending = Pending {
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
            to: path_of_ours(to).to_owned(),
        };
        let pending = serde_json::to_string(&pending).map_err(|_| OidcError::NotBegun)?;
        let token = challenges::begin(app, Purpose::Oidc, None, pending, PATIENCE).await?;
        Ok((url.into(), token))
    }

    /// Signs in whom the provider proved: with the token of the sign-in, and where they wanted to be.
    pub async fn sign_in_by_oidc(
        &self,
        app: &App,
        answer: OidcAnswer,
    ) -> Result<(SignedIn, WebToken, String), SignInError> {
        let (address, browser) = (answer.address, answer.browser.clone());
        let provider = self.provider().ok_or(OidcError::NotSetUp)?;
        let cookie = answer.cookie.as_ref().ok_or(OidcError::NotBegun)?;
        let taken = challenges::take(app, Purpose::Oidc, cookie).await?.ok_or(OidcError::NotBegun)?;
        let pending: Pending = serde_json::from_str(&taken.state).map_err(|_| OidcError::NotBegun)?;
        // By their hashes: how long it takes says nothing.
        if Sha256::digest(&answer.state) != Sha256::digest(&pending.state) {
            return Err(OidcError::NotBegun.into());
        }
        let to = pending.to.clone();
        let principal = match who(app, provider, pending, answer).await {
            Ok(principal) => principal,
            Err(Refusal::Away(error)) => return Err(error.into()),
            Err(Refusal::Db(error)) => return Err(error.into()),
            Err(Refusal::Nobody { claimed, why }) => {
                tracing::info!(why, "A sign-in at the identity provider was refused.");
                logins::note_refusal(app, address, &claimed, METHOD).await?;
                return Err(OidcError::Refused.into());
            }
        };
        self.tries(|tries| tries.forgive(&begun_keys(address.ip())));
        let tx = app.db.write().await?;
        let (signed_in, token) = self.begin(app, tx, principal, address, &browser, METHOD).await?;
        Ok((signed_in, token, to))
    }
}

/// Why nobody is signed in.
enum Refusal {
    /// The log says why; the event, what was claimed.
    Nobody {
        claimed: String,
        why: String,
    },
    Away(OidcError),
    Db(DbError),
}

fn nobody(why: String) -> Refusal {
    Refusal::Nobody { claimed: "(nobody proved)".to_owned(), why }
}

/// Whom the answer proves, if they may come in.
async fn who(app: &App, provider: &Provider, pending: Pending, answer: OidcAnswer) -> Result<Principal, Refusal> {
    if answer.issuer.is_some_and(|issuer| issuer != provider.issuer()) {
        return Err(nobody("another issuer answered (RFC 9207)".to_owned()));
    }
    let Some(code) = answer.code else {
        let why = answer.error.unwrap_or_default();
        return Err(nobody(format!("the provider said {}", why.escape_debug().take(100).collect::<String>())));
    };
    let tokens = provider.exchange(code, pending.verifier).await?;
    let token = tokens.id_token().ok_or_else(|| nobody("there was no ID token".to_owned()))?;
    let subject = provider.subject(token, &Nonce::new(pending.nonce), app.clock.now()).await.map_err(nobody)?;
    let found = async {
        let mut tx = app.db.read().await?;
        let Some(person) = identities::find_person(&mut tx, provider.issuer(), &subject).await? else {
            return Ok(None);
        };
        principals::find_by_id(&mut tx, person).await
    };
    let found = found.await.map_err(Refusal::Db)?.map(|found| found.principal);
    let Some(principal) = found else {
        let why = "nobody is bound to this subject".to_owned();
        return Err(Refusal::Nobody { claimed: format!("subject {subject}"), why });
    };
    if principal.disabled_at.is_some() {
        let claimed = PrincipalName::to_string(&principal.name);
        return Err(Refusal::Nobody { claimed, why: "the person is disabled".to_owned() });
    }
    Ok(principal)
}

/// Our way to the provider.
#[derive(Debug)]
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = FetchError;
    type Future = BoxFuture<'c, Result<HttpResponse, FetchError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(fetch(&self.0, request))
    }
}

async fn fetch(http: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, FetchError> {
    let (parts, body) = request.into_parts();
    let url: Url = parts.uri.to_string().parse().map_err(|_| FetchError::Unsafe)?;
    if !is_safe(&url) {
        return Err(FetchError::Unsafe);
    }
    let asked = http.request(parts.method, url).headers(parts.headers).body(body);
    let mut answer = asked.send().await.map_err(reqwest::Error::without_url)?;
    let mut response = openidconnect::http::Response::new(Vec::new());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        let body = response.body_mut();
        if body.len() + chunk.len() > MOST_ANSWER_BYTES {
            return Err(FetchError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(response)
}

/// What went wrong on the way to the provider.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it names a URL that is not `https`")]
    Unsafe,
    #[error("its answer is too long")]
    TooLong,
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

fn discovery_failure(error: &DiscoveryError<FetchError>) -> String {
    match error {
        DiscoveryError::Request(error) => crate::app::ledger::verify::chain(error),
        DiscoveryError::Response(status, ..) => format!("it answered {}", status.as_u16()),
        DiscoveryError::Validation(why) => why.clone(),
        _ => "what it says of itself cannot be read".to_owned(),
    }
}

/// Encrypted on the way, or on this machine.
fn is_safe(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_local)
}

/// The path if it leads into the web app and nowhere else: `/…`, not `//…`, and no character that a browser reads otherwise.
fn path_of_ours(path: &str) -> &str {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if path.starts_with('/') && !path.starts_with("//") && is_plain && path.len() <= MOST_PATH { path } else { "/" }
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, OidcError> {
    let failed = |source| OidcError::Authority { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(failed)?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(OidcError::Client)?;
    if certificates.is_empty() {
        return Err(failed(std::io::Error::other("it holds no certificate")));
    }
    Ok(certificates)
}

fn client_secret(
    settings: &OidcSettings,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<SecretString>, OidcError> {
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let read = |path: &Path| {
        let failed = |source| OidcError::Secret { place: format!("`{}`", path.display()), source };
        std::fs::read_to_string(path).map_err(failed)
    };
    let text = if let Some(path) = &settings.client_secret_file {
        read(path)?
    } else if let Some(name) = &settings.client_secret_env {
        let failed = || OidcError::Secret { place: format!("the environment variable `{name}`"), source: missing() };
        variable(name).ok_or_else(failed)?
    } else if let Some(name) = &settings.client_secret_credential {
        let failed = || OidcError::Secret { place: format!("the credential `{name}`"), source: missing() };
        read(&Path::new(&variable("CREDENTIALS_DIRECTORY").ok_or_else(failed)?).join(name))?
    } else {
        return Ok(None);
    };
    let text = text.trim_ascii();
    if text.is_empty() {
        let source = std::io::Error::other("it is empty");
        return Err(OidcError::Secret { place: "`[sign_in.oidc]`".to_owned(), source });
    }
    Ok(Some(SecretString::from(text)))
}

#[cfg(test)]
mod tests;
