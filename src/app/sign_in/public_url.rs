//! Where people open the web app. Passkeys are made for its host's name, and providers send people back to it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use webauthn_rs::prelude::Url;

/// `https://host` with or without a port, and nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

/// Why a text is not where people open the web app.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the web app's address: write `https://bastion.example.com`, with a port if it is another one, and nothing behind it"
)]
pub struct PublicUrlError {
    text: String,
}

impl PublicUrl {
    /// The web app on this machine, for trying it.
    pub fn local(port: u16) -> Option<Self> {
        format!("https://localhost:{port}").parse().ok()
    }

    /// The host's name, or its address.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The URL; its path is `/`.
    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let fault = || PublicUrlError { text: text.to_owned() };
        let url = Url::parse(text).map_err(|_| fault())?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        if url.scheme() == "https" && url.host_str().is_some() && is_bare && is_anonymous {
            Ok(Self(url))
        } else {
            Err(fault())
        }
    }
}

impl fmt::Display for PublicUrl {
    /// Without the last `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_web_apps_address_is_https_and_a_host_and_nothing_else() {
        for (text, said) in [
            ("https://bastion.example.com", "https://bastion.example.com"),
            ("https://Bastion.example.com:443/", "https://bastion.example.com"),
            ("https://10.0.0.1:8443", "https://10.0.0.1:8443"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().to_string(), said);
        }
        for text in [
            "bastion.example.com",
            "http://bastion.example.com",
            "https://bastion.example.com/app",
            "https://bastion.example.com/?a",
            "https://me@bastion.example.com",
            "https://bastion.example.com/#a",
            "",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }
}
