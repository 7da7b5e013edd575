//! A webhook: the checkpoint as JSON, posted. An answer of 2xx means that it has arrived.

use std::path::Path;

use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};

use super::{AnchorError, Outgoing};

const SETTING: &str = "ledger.anchor_webhook";

/// Where to post to.
#[derive(Debug)]
pub(super) struct Webhook {
    http: Client,
    url: Url,
    token: Option<SecretString>,
}

impl Webhook {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, AnchorError> {
        let fault = |message: String| AnchorError::Settings { setting: SETTING, message };
        let url: Url = url.parse().map_err(|_| fault("it is no URL".to_owned()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(fault("it must be an `https://` URL".to_owned()));
        }
        let token = match token_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|source| AnchorError::File { path: path.to_owned(), source })?;
                Some(SecretString::from(text.trim_ascii()))
            }
        };
        // What it is sent to is what the operator named, and nothing else.
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        Ok(Self { http: http.map_err(|source| AnchorError::Http { source })?, url, token })
    }

    pub(super) async fn put(&self, outgoing: &Outgoing) -> Result<(), AnchorError> {
        let body = serde_json::json!({
            "kind": "checkpoint",
            "node": outgoing.node,
            "at": outgoing.at.to_rfc3339(),
            "origin": outgoing.origin,
            "size": outgoing.head.size,
            "root": outgoing.head.root,
            "note": outgoing.note,
        });
        let mut request = self.http.post(self.url.clone()).json(&body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        // An address may hold a secret: it is not repeated.
        let answer = request.send().await.map_err(|error| AnchorError::Http { source: error.without_url() })?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(AnchorError::Refused { status: answer.status().as_u16() })
        }
    }
}
