//! What all receivers that speak HTTP have in common. No message that comes from here holds a URL, for a URL may hold a secret,
//! nor what a receiver says, for it may repeat one.

use std::path::Path;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode, Url};
use secrecy::SecretString;
use serde_json::Value;

use super::{DeliveryError, OpenError};
use crate::app::ledger::verify::chain;

/// A receiver has this long for its handshakes. How long it may take in all is the destination's setting.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// As much of an answer is read; none that means something is longer.
const MOST_ANSWER: usize = 16 << 10;

/// A receiver that asks for more patience than this does not get it.
const MOST_PATIENCE: Duration = Duration::from_mins(5);

/// What a receiver answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
    /// What it said, if that was JSON.
    pub(super) json: Option<Value>,
}

/// A client of one receiver. It follows no redirect: what it is sent to is what the operator named, and nothing else.
pub(crate) fn client(ca_file: Option<&Path>) -> Result<Client, OpenError> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .user_agent(concat!("sallyport/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(OpenError::Http)?;
        if certificates.is_empty() {
            let source = std::io::Error::other("it holds no certificate");
            return Err(OpenError::File { path: path.to_owned(), source });
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(OpenError::Http)
}

/// Reads a URL that was checked, or that came from a file.
pub(super) fn url(text: &str) -> Result<Url, OpenError> {
    let parsed: Option<Url> = text.parse().ok();
    parsed.filter(|url| matches!(url.scheme(), "https" | "http")).ok_or(OpenError::Url)
}

/// Reads a file that holds one secret.
pub(super) fn secret(path: &Path) -> Result<SecretString, OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(failed(std::io::Error::other("it is empty")));
    }
    Ok(SecretString::from(text))
}

/// Sends, and reads the answer.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, DeliveryError> {
    let unreachable =
        |error: reqwest::Error| DeliveryError::Later { message: chain(&error.without_url()), after: None };
    let mut answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MOST_PATIENCE));
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MOST_ANSWER {
            break; // the status says what counts
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, retry_after, json: serde_json::from_slice(&body).ok() })
}

impl Answer {
    /// In words, with the code that log workspaces give.
    pub(super) fn words(&self) -> String {
        let code = self.json.as_ref().and_then(|json| json.get("error_code")).and_then(Value::as_str);
        let is_code =
            |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.');
        match code.filter(is_code) {
            Some(code) => format!("it answered {} ({code})", self.status.as_u16()),
            None => format!("it answered {}", self.status.as_u16()),
        }
    }

    pub(super) fn later(&self) -> DeliveryError {
        DeliveryError::Later { message: self.words(), after: self.retry_after }
    }

    pub(super) fn refused(&self) -> DeliveryError {
        DeliveryError::Refused { message: self.words() }
    }

    /// 413: less may do, unless it was one record already.
    pub(super) fn too_large(&self, records: usize) -> Option<DeliveryError> {
        (self.status == StatusCode::PAYLOAD_TOO_LARGE && records > 1)
            .then(|| DeliveryError::TooLarge { message: self.words() })
    }
}
