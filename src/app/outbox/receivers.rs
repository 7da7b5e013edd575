//! The receivers of events: a file, syslog, a webhook. See `guance` for log workspaces, `people` for notifications.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use reqwest::{Client, Url};
use sallyport_domain::outbox::record::Record;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{DeliveryError, Item, OpenError, Parcel, http};
use crate::app::ledger::verify::chain;
use crate::app::syslog::{Header, MOST_MESSAGE, Syslog, head};

/// A torn line is looked for in so much of the file's end.
const MOST_TORN: u64 = 4 << 20;

/// Appends one line of JSON for each record. The file is opened for each batch, so that whoever rotates it has to tell nobody;
/// when it returns the disk has the batch.
pub(super) async fn append(path: &Path, parcel: &Parcel) -> Result<(), DeliveryError> {
    let mut text = String::new();
    for item in &parcel.items {
        text.push_str(&item.record.text());
        text.push('\n');
    }
    let owned: PathBuf = path.to_owned();
    let done = tokio::task::spawn_blocking(move || append_whole(&owned, text.as_bytes())).await;
    done.map_err(std::io::Error::other).and_then(std::convert::identity).map_err(|error| DeliveryError::Later {
        message: format!("cannot write to `{}`: {error}", path.display()),
        after: None,
    })
}

/// All of `bytes`, or nothing: what a full disk or a crash left of a batch is cut off again, since the batch comes once more.
fn append_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().read(true).append(true).create(true).mode(0o640).open(path)?;
    let end = cut_torn_line(&mut file)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(end)?;
    }
    written
}

/// Cuts off a last line without its line feed; gives back where the file ends.
fn cut_torn_line(file: &mut File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(MOST_TORN);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    // The last byte first: nearly always that is all there is to see.
    file.seek(SeekFrom::Start(length.saturating_sub(1)))?;
    Read::take(&mut *file, 1).read_to_end(&mut end)?;
    if end.is_empty() || end == b"\n" {
        return Ok(length);
    }
    end.clear();
    file.seek(SeekFrom::Start(start))?;
    Read::take(&mut *file, MOST_TORN).read_to_end(&mut end)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let whole = start + whole as u64;
    file.set_len(whole)?;
    Ok(whole)
}

/// Sends one message for each record.
pub(super) async fn log(syslog: &Syslog, node: &str, parcel: &Parcel) -> Result<(), DeliveryError> {
    let messages: Vec<String> = parcel.items.iter().map(|Item { record, .. }| message(node, record)).collect();
    let delivered = syslog.deliver(&messages).await;
    delivered.map_err(|error| DeliveryError::Later { message: chain(&error), after: None })
}

/// An RFC 5424 message whose text is the record in JSON. Of a record that is too long only what it is and where it can be read.
fn message(node: &str, record: &Record) -> String {
    let id = record.json().get("id").and_then(|id| id.as_str()).unwrap_or_default().to_owned();
    let head = head(&Header {
        severity: record.severity.syslog(),
        at: record.at,
        node,
        message_id: &record.kind,
        element: "event",
        parameters: &[("seq", record.seq.to_string()), ("part", record.part.to_string()), ("id", id)],
    });
    let message = format!("{head} {}", ascii(&record.text()));
    if message.len() <= MOST_MESSAGE { message } else { format!("{head} {}", ascii(&record.text_within(0))) }
}

/// JSON with what is not ASCII escaped: text beyond it would take a byte order mark (RFC 5424 §6.4), which breaks the JSON for
/// many a reader.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

/// A URL that takes batches as JSON, signed.
pub(super) struct Webhook {
    http: Client,
    url: Url,
    secret: SecretString,
}

impl Webhook {
    pub(super) fn new(url: &str, secret_file: &Path, ca_file: Option<&Path>) -> Result<Self, OpenError> {
        Ok(Self { http: http::client(ca_file)?, url: http::url(url)?, secret: http::secret(secret_file)? })
    }

    /// Posts a batch; 2xx means that it was taken. Whatever else it answers, the batch comes again: an address that is wrong
    /// today is mended tomorrow, and nothing may be missing then.
    pub(super) async fn post(&self, parcel: &Parcel, now: DateTime<Utc>) -> Result<(), DeliveryError> {
        let records: Vec<_> = parcel.items.iter().map(|item| item.record.json()).collect();
        let body = json!({ "ledger": parcel.ledger, "records": records }).to_string();
        let timestamp = now.timestamp().to_string();
        let request = self
            .http
            .post(self.url.clone())
            .header("Content-Type", "application/json")
            .header("Sallyport-Delivery", parcel.id())
            .header("Sallyport-Timestamp", &timestamp)
            .header("Sallyport-Signature", signature(&self.secret, &timestamp, &body))
            .body(body);
        let answer = http::send(request).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(answer.too_large(parcel.items.len()).unwrap_or_else(|| answer.later()))
    }
}

/// `v1=` and HMAC-SHA256 in hex over `timestamp.body`, keyed with the secret's text.
fn signature(secret: &SecretString, timestamp: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let tag = hmac::sign(&key, format!("{timestamp}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_crash_tore_is_cut_off_before_the_batch_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        append_whole(&path, b"{\"seq\":1}\n{\"seq\":2}\n").unwrap();
        std::fs::write(&path, b"{\"seq\":1}\n{\"seq\":2}\n{\"se").unwrap();

        append_whole(&path, b"{\"seq\":3}\n").unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"seq\":1}\n{\"seq\":2}\n{\"seq\":3}\n");
        std::fs::write(&path, b"torn").unwrap();
        append_whole(&path, b"{}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
    }

    #[test]
    fn a_signature_is_hmac_sha256_over_timestamp_and_body() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac topsecret
        let expected = "v1=9ec0a0b3a9ebf7b4b512e23475f03d264dd11ea5aec41b6acdd5fff59a6a947c";
        assert_eq!(signature(&SecretString::from("topsecret"), "1700000000", "{}"), expected);
    }

    #[test]
    fn json_in_ascii_says_the_same() {
        let json = "{\"a\":\"grüße 界 🦀\"}";
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert!(ascii(json).is_ascii());
        assert_eq!(read(&ascii(json)), read(json));
    }
}
