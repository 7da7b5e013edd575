//! Notifications: mail, and robots of chats. One message tells of a whole batch, so that a storm of events is a few messages; of
//! many events it names the first, and how many there are.
//!
//! Sources: RFC 5321 and 8314 by `lettre`; Slack "Incoming webhooks"; Feishu, DingTalk and WeCom "custom robot" pages.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::settings::{MailServer, NotifyKind, NotifySettings, Protection};
use super::{DeliveryError, OpenError, Parcel, http};
use crate::app::ledger::verify::chain;

/// One message names as many events.
const MOST_LINES: usize = 20;

/// The longest text for a chat, in bytes: WeCom takes 2048.
const MOST_TEXT: usize = 1900;

/// A mail server has this long for each of its answers.
const MAIL_DEADLINE: Duration = Duration::from_secs(15);

/// Robots take some twenty messages a minute.
pub(super) const PAUSE: Duration = Duration::from_secs(3);

/// Mail to some people.
pub(super) struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    name: String,
}

/// A chat's robot.
pub(super) struct Chat {
    http: Client,
    /// It holds the robot's key.
    url: SecretString,
    secret: Option<SecretString>,
    preset: NotifyKind,
}

impl Mail {
    pub(super) fn new(settings: &NotifySettings) -> Result<Self, OpenError> {
        let missing = OpenError::Setting;
        let server = settings.server.as_deref().ok_or(missing("`server` is needed"))?;
        let server = MailServer::parse(server).map_err(OpenError::Setting)?;
        let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|_| OpenError::Setting("it names no mail address"));
        let from = mailbox(settings.from.as_deref().ok_or(missing("`from` is needed"))?)?;
        let to = settings.to.iter().map(|to| mailbox(to)).collect::<Result<Vec<_>, _>>()?;
        let tls = match server.protection {
            Protection::None => Tls::None,
            Protection::Tls => Tls::Wrapper(tls(&server.host, settings.ca_file.as_deref())?),
            Protection::StartTls => Tls::Required(tls(&server.host, settings.ca_file.as_deref())?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
            .port(server.port)
            .timeout(Some(MAIL_DEADLINE))
            .tls(tls);
        if let Some((username, password_file)) = settings.username.as_ref().zip(settings.password_file.as_deref()) {
            let password = http::secret(password_file)?;
            builder = builder.credentials(Credentials::new(username.clone(), password.expose_secret().to_owned()));
        }
        Ok(Self { transport: builder.build(), from, to, name: settings.name.clone() })
    }

    /// Hands in one mail for all of the batch. A server that takes it and then breaks off gets it again, under the same
    /// Message-ID.
    pub(super) async fn send(&self, parcel: &Parcel) -> Result<(), DeliveryError> {
        let message =
            self.message(parcel).map_err(|error| DeliveryError::Later { message: chain(&error), after: None })?;
        match self.transport.send(message).await {
            Ok(_taken) => Ok(()),
            // What a server says may repeat what it was told; its code says enough.
            Err(error) => {
                let message = match error.status() {
                    Some(code) => format!("the mail server answered {code}"),
                    None if error.is_tls() => "the mail server's certificate or TLS is not to be believed".to_owned(),
                    None if error.is_timeout() => "the mail server does not answer".to_owned(),
                    None => format!("the mail server cannot be used: {}", chain(&error)),
                };
                Err(DeliveryError::Later { message, after: None })
            }
        }
    }

    fn message(&self, parcel: &Parcel) -> Result<Message, lettre::error::Error> {
        let mut builder = Message::builder().from(self.from.clone());
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let first = parcel.items.first().map_or("", |item| item.sentence.as_str());
        let subject: String = format!("[sallyport] {first}").chars().take(120).collect();
        let id = format!("<{}.{}@sallyport.invalid>", self.name, parcel.id());
        builder.subject(subject).message_id(Some(id)).header(ContentType::TEXT_PLAIN).body(text(parcel, usize::MAX))
    }
}

fn tls(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, OpenError> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = ca_file {
        let failed = |source| OpenError::File { path: path.to_owned(), source };
        let pem = std::fs::read(path).map_err(failed)?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| failed(std::io::Error::other(error)))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    builder.build().map_err(|error| OpenError::Mail(chain(&error)))
}

impl Chat {
    pub(super) fn new(preset: NotifyKind, settings: &NotifySettings) -> Result<Self, OpenError> {
        let url_file = settings.url_file.as_deref().ok_or(OpenError::Setting("`url_file` is needed"))?;
        let url = http::secret(url_file)?;
        http::url(url.expose_secret())?;
        let secret = settings.secret_file.as_deref().map(http::secret).transpose()?;
        Ok(Self { http: http::client(settings.ca_file.as_deref())?, url, secret, preset })
    }

    /// Posts one message for all of the batch.
    pub(super) async fn post(&self, parcel: &Parcel, now: DateTime<Utc>) -> Result<(), DeliveryError> {
        let mut url = http::url(self.url.expose_secret())
            .map_err(|error| DeliveryError::Later { message: error.to_string(), after: None })?;
        let body = self.body(&mut url, &text(parcel, MOST_TEXT), now);
        let answer = http::send(self.http.post(url).json(&body)).await?;
        if !answer.status.is_success() {
            return Err(answer.later());
        }
        // All but Slack answer 200 whatever they think of it.
        let code = ["errcode", "code", "StatusCode"].iter().find_map(|name| answer.json.as_ref()?.get(name)?.as_i64());
        match (self.preset, code) {
            (NotifyKind::Slack | NotifyKind::Mail, _) | (_, Some(0)) => Ok(()),
            (_, Some(code)) => Err(DeliveryError::Later { message: format!("it answered code {code}"), after: None }),
            (_, None) => Err(DeliveryError::Later { message: "it answered without a code".to_owned(), after: None }),
        }
    }

    fn body(&self, url: &mut Url, text: &str, now: DateTime<Utc>) -> Value {
        match self.preset {
            NotifyKind::Slack | NotifyKind::Mail => {
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": text, "mrkdwn": false, "unfurl_links": false, "unfurl_media": false })
            }
            NotifyKind::Feishu => {
                let mut body = json!({ "msg_type": "text", "content": { "text": text } });
                if let (Some(secret), Some(body)) = (&self.secret, body.as_object_mut()) {
                    let timestamp = now.timestamp().to_string();
                    let sign = feishu_sign(secret, &timestamp);
                    body.insert("timestamp".to_owned(), Value::String(timestamp));
                    body.insert("sign".to_owned(), Value::String(sign));
                }
                body
            }
            NotifyKind::Dingtalk => {
                if let Some(secret) = &self.secret {
                    let timestamp = now.timestamp_millis().to_string();
                    let sign = dingtalk_sign(secret, &timestamp);
                    url.query_pairs_mut().append_pair("timestamp", &timestamp).append_pair("sign", &sign);
                }
                json!({ "msgtype": "text", "text": { "content": text }, "at": { "isAtAll": false } })
            }
            NotifyKind::Wecom => json!({ "msgtype": "text", "text": { "content": text } }),
        }
    }
}

/// HMAC-SHA256 of `timestamp\nsecret`, keyed with the secret.
fn dingtalk_sign(secret: &SecretString, timestamp: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let signed = hmac::sign(&key, format!("{timestamp}\n{}", secret.expose_secret()).as_bytes());
    STANDARD.encode(signed)
}

/// HMAC-SHA256 of nothing, keyed with `timestamp\nsecret`.
fn feishu_sign(secret: &SecretString, timestamp: &str) -> String {
    let key = format!("{timestamp}\n{}", secret.expose_secret());
    STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), b""))
}

/// The first sentences of the batch, a line each, in at most `most` bytes, and how many there are besides.
fn text(parcel: &Parcel, most: usize) -> String {
    /// For the line that says how many more there are, and the one before all.
    const REST: usize = 100;
    let host = parcel.ledger.strip_suffix("/ledger").unwrap_or(&parcel.ledger);
    let host: String = host.chars().take(REST).collect();
    let mut text = format!("Sallyport {host}\n");
    let mut told = 0;
    for item in parcel.items.iter().take(MOST_LINES) {
        let at = item.record.at.format("%Y-%m-%d %H:%M UTC");
        let line = format!("{at} {}\n", item.sentence);
        if text.len().saturating_add(line.len()).saturating_add(REST) > most {
            break;
        }
        text.push_str(&line);
        told += 1;
    }
    let left = parcel.items.len() - told;
    if left > 0 {
        text.push_str(&format!("and {left} more: sallyport audit ls\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use sallyport_domain::outbox::detail::Detail;
    use sallyport_domain::outbox::record::Record;

    use super::super::Item;
    use super::*;

    fn parcel(events: usize) -> Parcel {
        let item = |seq| Item {
            record: Record::of_event("b.example/ledger", seq, b"", Detail::Off),
            sentence: format!("“‹!here› & all” {seq}"),
        };
        Parcel { ledger: "b.example/ledger".to_owned(), items: (0..events as u64).map(item).collect() }
    }

    fn chat(preset: NotifyKind, secret: Option<&str>) -> Chat {
        let url = SecretString::from("https://chat.example/robot?key=k");
        Chat { http: http::client(None).unwrap(), url, secret: secret.map(SecretString::from), preset }
    }

    #[test]
    fn a_storm_is_one_short_message_that_says_how_many_there_are() {
        let text = text(&parcel(1000), MOST_TEXT);
        assert!(text.len() <= MOST_TEXT && text.starts_with("Sallyport b.example\n"), "{text}");
        assert!(text.contains("” 0\n") && text.ends_with("and 980 more: sallyport audit ls\n"), "{text}");
        assert!(!super::text(&parcel(2), MOST_TEXT).contains("more"));
    }

    #[test]
    fn each_chat_gets_its_own_form_and_signature() {
        let now: DateTime<Utc> = "2024-01-01T00:00:00Z".parse().unwrap();
        let body = |preset, secret| {
            let mut url: Url = "https://chat.example/robot?key=k".parse().unwrap();
            let body = chat(preset, secret).body(&mut url, "a <b> & c", now);
            (body, url.query().unwrap_or_default().to_owned())
        };
        assert_eq!(body(NotifyKind::Slack, None).0["text"], "a &lt;b&gt; &amp; c");
        assert_eq!(body(NotifyKind::Wecom, None).0["text"]["content"], "a <b> & c");
        let (feishu, _) = body(NotifyKind::Feishu, Some("s3cret"));
        assert_eq!((&feishu["msg_type"], &feishu["timestamp"]), (&json!("text"), &json!("1704067200")));
        // printf '' | openssl dgst -sha256 -mac hmac -macopt key:$'1704067200\ns3cret' -binary | base64
        assert_eq!(feishu["sign"], FEISHU_SIGN);
        let (dingtalk, query) = body(NotifyKind::Dingtalk, Some("s3cret"));
        assert_eq!(dingtalk["text"]["content"], "a <b> & c");
        // printf '1704067200000\ns3cret' | openssl dgst -sha256 -hmac s3cret -binary | base64, then percent-encoded
        assert_eq!(query, format!("key=k&timestamp=1704067200000&sign={DINGTALK_SIGN}"));
    }

    const FEISHU_SIGN: &str = "OBNk+hPIX9iSwbdI+ro36WQwNBwYGsRHLP4w3jOFPLQ=";
    const DINGTALK_SIGN: &str = "r3vCdupCdcKeYEuq%2FLDFE72VhDx0MwWtkboOWWYz97E%3D";

    #[test]
    fn a_mail_has_one_line_of_subject_and_the_same_id_each_time() {
        let settings = NotifySettings {
            name: "ops".to_owned(),
            server: Some("smtp+plain://127.0.0.1:2525".to_owned()),
            from: Some("Sallyport <bastion@example.com>".to_owned()),
            to: vec!["ops@example.com".to_owned()],
            ..NotifySettings::default()
        };
        let mail = Mail::new(&settings).unwrap();
        let formatted = String::from_utf8(mail.message(&parcel(3)).unwrap().formatted()).unwrap();
        assert!(formatted.contains("Message-ID: <ops.0.0-2.0@sallyport.invalid>\r\n"), "{formatted}");
        assert!(formatted.contains("To: ops@example.com\r\n"), "{formatted}");
        assert!(formatted.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{formatted}");
    }
}
