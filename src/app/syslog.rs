//! Syslog: RFC 5424 messages over TLS (RFC 5425), or over plain TCP (RFC 6587) where that is asked for, with octet counting.
//!
//! Syslog has no acknowledgement. So each delivery has a connection of its own, says that it has said all (TLS close_notify, TCP
//! FIN), and waits until the receiver closes too, which it does once it has read everything. A connection that breaks, or a
//! receiver that does not close in time, has confirmed nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Facility 13, log audit (RFC 5424 §6.2.1).
const FACILITY: u8 = 13;

/// The longest message that every receiver over TLS should take (RFC 5425 §4.3.1).
pub(crate) const MOST_MESSAGE: usize = 8192;

/// What a receiver may say, which nobody reads: so much, and it is no receiver of syslog.
const MOST_ANSWER: usize = 64 << 10;

/// Why syslog cannot be used, or was not reached.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    #[error("{0}")]
    Address(&'static str),
    #[error("cannot use the file `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot reach {place}")]
    Unreachable { place: String, source: std::io::Error },
    #[error("{place} did not confirm by closing the connection")]
    Unconfirmed { place: String, source: std::io::Error },
}

/// Where to send to.
pub(crate) struct Syslog {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Syslog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Syslog({}, tls: {})", self.place(), self.tls.is_some())
    }
}

/// What an address must look like.
const FORM: &str = "write `tls://host:6514`, or `tcp://host:601` for plain TCP";

/// What a type cannot say of an address: its form, and that TLS needs authorities to believe.
pub(crate) fn check(address: &str, has_ca_file: bool) -> Result<(), &'static str> {
    let (scheme, place) = address.split_once("://").ok_or(FORM)?;
    let (host, port) = place.rsplit_once(':').ok_or(FORM)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(FORM);
    }
    match scheme {
        "tls" if !has_ca_file => Err("TLS takes a file with the authorities to believe"),
        "tls" | "tcp" => Ok(()),
        _ => Err(FORM),
    }
}

impl Syslog {
    /// Reads the address, `tls://host:port` or `tcp://host:port`, and the authorities, in PEM, of which one has certified a
    /// receiver with TLS. Reaches nobody yet.
    pub(crate) fn new(address: &str, ca_file: Option<&Path>) -> Result<Self, SyslogError> {
        check(address, ca_file.is_some()).map_err(SyslogError::Address)?;
        let (scheme, place) = address.split_once("://").ok_or(SyslogError::Address(FORM))?;
        let (host, port) = place.rsplit_once(':').ok_or(SyslogError::Address(FORM))?;
        let port = port.parse().map_err(|_| SyslogError::Address(FORM))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match ca_file.filter(|_| scheme == "tls") {
            None => None,
            Some(path) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| SyslogError::Address("it names no host"))?;
                Some((connector(path)?, name))
            }
        };
        Ok(Self { host, port, tls })
    }

    /// Delivers `messages`, in their order. When it returns, the receiver has read all of them. The caller sets the deadline.
    pub(crate) async fn deliver(&self, messages: &[String]) -> Result<(), SyslogError> {
        let unreachable = |source| SyslogError::Unreachable { place: self.place(), source };
        let mut bytes = String::new();
        for message in messages {
            // RFC 5425 §4.3: MSG-LEN SP SYSLOG-MSG.
            let _never_fails = write!(bytes, "{} {message}", message.len());
        }
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        match &self.tls {
            None => self.send(stream, bytes.as_bytes()).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(unreachable)?;
                self.send(stream, bytes.as_bytes()).await
            }
        }
    }

    async fn send(&self, stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Result<(), SyslogError> {
        let unreachable = |source| SyslogError::Unreachable { place: self.place(), source };
        let unconfirmed = |source| SyslogError::Unconfirmed { place: self.place(), source };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = async {
            writer.write_all(bytes).await?;
            writer.flush().await?;
            writer.shutdown().await
        };
        sent.await.map_err(unreachable)?;
        let (mut answer, mut read) = ([0; 512], 0);
        loop {
            match reader.read(&mut answer).await {
                Ok(0) => return Ok(()),
                // A close without TLS's own word for it is a close all the same: nothing was asked that it could cut short.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(bytes) if read + bytes > MOST_ANSWER => {
                    return Err(unconfirmed(std::io::Error::other("it talks instead of listening")));
                }
                Ok(bytes) => read += bytes,
                Err(error) => return Err(unconfirmed(error)),
            }
        }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn connector(path: &Path) -> Result<TlsConnector, SyslogError> {
    let failed = |source| SyslogError::File { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(std::io::Error::other(error)))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(std::io::Error::other(error)))?;
        roots.add(certificate).map_err(|error| failed(std::io::Error::other(error)))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(std::io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What a message says before its text.
pub(crate) struct Header<'a> {
    /// RFC 5424 §6.2.1.
    pub(crate) severity: u8,
    pub(crate) at: DateTime<Utc>,
    pub(crate) node: &'a str,
    /// MSGID (§6.2.7): printable ASCII, at most 32.
    pub(crate) message_id: &'a str,
    /// The one structured element (§6.3): its name without our number, and its parameters.
    pub(crate) element: &'a str,
    pub(crate) parameters: &'a [(&'a str, String)],
}

/// An RFC 5424 §6 message up to where its text begins; the text, if there is any, follows a blank.
pub(crate) fn head(header: &Header<'_>) -> String {
    let at = header.at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let node = printable(header.node, 255);
    let message_id = printable(header.message_id, 32);
    let process = std::process::id();
    let priority = FACILITY * 8 + header.severity;
    // 32473 is the number that RFC 5612 keeps for documentation; we have none of our own.
    let mut head = format!("<{priority}>1 {at} {node} sallyport {process} {message_id} [{}@32473", header.element);
    for (name, value) in header.parameters {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
        let _never_fails = write!(head, " {name}=\"{value}\"");
    }
    head.push(']');
    head
}

/// PRINTUSASCII of at most `most` characters, or the nil value.
fn printable(text: &str, most: usize) -> String {
    let text: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_that_of_rfc_5424_whatever_is_put_into_it() {
        let header = Header {
            severity: 5,
            at: "2026-03-01T12:00:00.5Z".parse().unwrap(),
            node: "no de\n1",
            message_id: "",
            element: "event",
            parameters: &[("id", "a\"b\\c]d".to_owned())],
        };
        let process = std::process::id();
        let expected = format!(
            "<109>1 2026-03-01T12:00:00.500000Z node1 sallyport {process} - [event@32473 id=\"a\\\"b\\\\c\\]d\"]"
        );
        assert_eq!(head(&header), expected);
    }

    #[test]
    fn an_address_names_a_scheme_a_host_and_a_port_and_tls_an_authority() {
        assert_eq!(check("tcp://[::1]:601", false), Ok(()));
        assert_eq!(check("tls://log.example.com:6514", true), Ok(()));
        assert!(check("tls://log.example.com:6514", false).is_err());
        for address in ["log.example.com:6514", "udp://x:514", "tcp://x", "tcp://:1", "tcp://x:99999"] {
            assert!(check(address, true).is_err(), "{address}");
        }
    }
}
