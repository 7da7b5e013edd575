//! An identity provider (OpenID Connect) that signs whatever a test wants it to: what a true one never would. That the bastion gets
//! on with a true one is seen in the browser tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

struct Book {
    issuer: String,
    key: EcdsaKeyPair,
    key_id: String,
    /// Codes that were given out: the PKCE challenge and the ID token of each.
    codes: HashMap<String, (String, String)>,
    key_sets: usize,
}

/// The provider. Dropping it ends it.
pub struct Provider {
    book: Arc<Mutex<Book>>,
    serving: JoinHandle<()>,
}

/// What a page of the provider was opened with.
pub struct Asked(pub HashMap<String, String>);

impl Asked {
    pub fn at(url: &str) -> Self {
        Self(Url::parse(url).expect("a URL").query_pairs().into_owned().collect())
    }

    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

fn new_key() -> (EcdsaKeyPair, String) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let id = text(&Sha256::digest(key.public_key().as_ref()));
    (key, id)
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let issuer = format!("http://{}", listener.local_addr().expect("its address"));
        let (key, key_id) = new_key();
        let book = Arc::new(Mutex::new(Book { issuer, key, key_id, codes: HashMap::new(), key_sets: 0 }));
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(key_set))
            .route("/token", post(token))
            .with_state(book.clone());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let service = TowerToHyperService::new(app.clone());
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                connections.spawn(async move { connection.await.is_ok() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { book, serving }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn issuer(&self) -> String {
        self.book().issuer.clone()
    }

    /// How often its keys were asked for.
    pub fn key_sets(&self) -> usize {
        self.book().key_sets
    }

    /// Another key signs from now on; the one before is not shown any more.
    pub fn rotate(&self) {
        let (key, key_id) = new_key();
        let mut book = self.book();
        (book.key, book.key_id) = (key, key_id);
    }

    /// The claims of an honest token for `subject`, issued at `now` (in seconds).
    pub fn claims(&self, asked: &Asked, subject: &str, now: i64) -> Value {
        json!({
            "iss": self.issuer(), "aud": asked.get("client_id"), "sub": subject, "nonce": asked.get("nonce"),
            "iat": now, "exp": now + 300, "email": "admin@example.com", "email_verified": true,
        })
    }

    /// A token that is signed as it should be.
    pub fn sign(&self, claims: &Value) -> String {
        let book = self.book();
        let head = json!({ "alg": "ES256", "typ": "JWT", "kid": book.key_id });
        let signed = format!("{}.{}", text(head.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        let signature = book.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", text(signature.as_ref()))
    }

    /// The person agreed: a code, for which this ID token is given.
    pub fn agree(&self, asked: &Asked, id_token: String) -> String {
        let mut book = self.book();
        let code = format!("code-{}", book.codes.len());
        book.codes.insert(code.clone(), (asked.get("code_challenge").to_owned(), id_token));
        code
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Shared = State<Arc<Mutex<Book>>>;

async fn discovery(State(book): Shared) -> Json<Value> {
    let issuer = book.lock().expect("the book").issuer.clone();
    Json(json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
    }))
}

async fn key_set(State(book): Shared) -> Json<Value> {
    let mut book = book.lock().expect("the book");
    book.key_sets += 1;
    let point = book.key.public_key().as_ref();
    let (x, y) = (text(&point[1..33]), text(&point[33..65]));
    let key = json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": book.key_id, "x": x, "y": y });
    Json(json!({ "keys": [key] }))
}

/// RFC 6749 §4.1.3, RFC 7636 §4.6. A code is taken once, and from the client that shows its secret.
async fn token(State(book): Shared, headers: HeaderMap, body: Bytes) -> (StatusCode, Json<Value>) {
    let refused = |why: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": why })));
    let body = format!("http://x/?{}", String::from_utf8_lossy(&body));
    let form = Asked::at(&body);
    let login = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if login != format!("Basic {}", STANDARD.encode("sallyport:client-secret")) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" })));
    }
    let Some((challenge, id_token)) = book.lock().expect("the book").codes.remove(form.get("code")) else {
        return refused("invalid_grant");
    };
    if challenge != text(&Sha256::digest(form.get("code_verifier"))) {
        return refused("invalid_grant");
    }
    let answer = json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": id_token });
    (StatusCode::OK, Json(answer))
}
