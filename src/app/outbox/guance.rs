//! Log workspaces (Guance): by DataKit, an agent near the bastion, or by DataWay, the gateway, straight away. Both take the line
//! protocol (`sallyport_domain::outbox::line`).
//!
//! A 200 of DataKit means that it has queued the batch, not that the workspace has it: `seq` tells gaps there.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use super::{DeliveryError, OpenError, Parcel, http};

/// DataKit takes 100 requests a second from one client.
const SPACING: Duration = Duration::from_millis(10);

const PATH: &str = "v1/write/logging";

/// One of the two.
pub(super) struct Guance {
    http: Client,
    url: Url,
    /// DataWay asks for it, DataKit has its own.
    token: Option<SecretString>,
    measurement: String,
    tags: BTreeMap<String, String>,
    /// When the next request may go.
    next: Mutex<Option<Instant>>,
}

impl Guance {
    /// `base` is where `/v1/write/logging` is; with a token it is DataWay, without DataKit.
    pub(super) fn new(
        base: &str,
        token_file: Option<&Path>,
        ca_file: Option<&Path>,
        measurement: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<Self, OpenError> {
        let mut url = http::url(base)?;
        let path = format!("{}/{PATH}", url.path().trim_end_matches('/').trim_end_matches(PATH).trim_end_matches('/'));
        url.set_path(&path);
        let token = token_file.map(http::secret).transpose()?;
        let (measurement, tags) = (measurement.to_owned(), tags.clone());
        Ok(Self { http: http::client(ca_file)?, url, token, measurement, tags, next: Mutex::default() })
    }

    /// Writes a batch. What is refused for good (`Refused`) must not come again as it is: DataWay's 4xx but for those that ask for
    /// patience, DataKit's 400, a line that it cannot read.
    pub(super) async fn write(&self, parcel: &Parcel) -> Result<(), DeliveryError> {
        let mut lines = String::new();
        for item in &parcel.items {
            item.record.line(&self.measurement, &self.tags).write_to(&mut lines);
        }
        self.take_turn().await;
        let request = self.http.post(self.url.clone()).header("Content-Type", "text/plain; charset=utf-8");
        let request = match &self.token {
            None => request.query(&[("precision", "n")]).body(lines),
            Some(token) => request
                .query(&[("token", token.expose_secret()), ("precision", "n")])
                .header("Content-Encoding", "gzip")
                .header("X-Points", parcel.items.len())
                .body(gzip(lines.as_bytes()).map_err(|error| DeliveryError::Later {
                    message: format!("cannot compress: {error}"),
                    after: None,
                })?),
        };
        let answer = http::send(request).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        if let Some(too_large) = answer.too_large(parcel.items.len()) {
            return Err(too_large);
        }
        let asks_for_patience = matches!(
            answer.status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
        let is_for_good = match &self.token {
            Some(_) => answer.status.is_client_error() && !asks_for_patience,
            None => matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE),
        };
        Err(if is_for_good { answer.refused() } else { answer.later() })
    }

    async fn take_turn(&self) {
        let now = Instant::now();
        let mine = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = next.map_or(now, |next| next.max(now));
            *next = Some(mine + SPACING);
            mine
        };
        tokio::time::sleep_until(mine).await;
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes)?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_to_where_it_is_not_there_yet() {
        for base in ["http://localhost:9529", "http://localhost:9529/", "http://localhost:9529/v1/write/logging"] {
            let guance = Guance::new(base, None, None, "m", &BTreeMap::new()).unwrap();
            assert_eq!(guance.url.as_str(), "http://localhost:9529/v1/write/logging", "{base}");
        }
    }
}
