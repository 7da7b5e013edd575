//! Syslog: one message for each checkpoint (RFC 5424), over TLS (RFC 5425) with octet counting; over plain TCP (RFC 6587)
//! only where that is asked for. Nobody acknowledges a syslog message: what is known is that the connection took it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{AnchorError, Outgoing};

const SETTING: &str = "ledger.anchor_syslog";

/// Facility 13 (log audit), severity 5 (notice): 13 * 8 + 5.
const PRIORITY: u8 = 109;

/// Where to send to.
pub(super) struct Syslog {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Syslog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Syslog({}:{}, tls: {})", self.host, self.port, self.tls.is_some())
    }
}

impl Syslog {
    pub(super) fn new(address: &str, ca_file: Option<&Path>) -> Result<Self, AnchorError> {
        let fault = |message: &str| AnchorError::Settings { setting: SETTING, message: message.to_owned() };
        let form = "write `tls://host:6514`, or `tcp://host:601` for plain TCP";
        let (scheme, place) = address.split_once("://").ok_or_else(|| fault(form))?;
        let (host, port) = place.rsplit_once(':').ok_or_else(|| fault(form))?;
        let port = port.parse().map_err(|_| fault(form))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = match scheme {
            "tcp" => None,
            "tls" => {
                let path = ca_file.ok_or_else(|| fault("TLS takes `anchor_syslog_ca_file`: whom to believe"))?;
                let name = ServerName::try_from(host.clone()).map_err(|_| fault("it names no host"))?;
                Some((connector(path)?, name))
            }
            _ => return Err(fault(form)),
        };
        Ok(Self { host, port, tls })
    }

    /// Sends one message on a connection of its own: checkpoints are few.
    pub(super) async fn put(&self, outgoing: &Outgoing) -> Result<(), AnchorError> {
        let unreachable = |source| AnchorError::Unreachable { place: format!("{}:{}", self.host, self.port), source };
        let message = message(outgoing);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        match &self.tls {
            None => send(stream, &message).await.map_err(unreachable),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(unreachable)?;
                send(stream, &message).await.map_err(unreachable)
            }
        }
    }
}

fn connector(path: &Path) -> Result<TlsConnector, AnchorError> {
    let failed = |source| AnchorError::File { path: path.to_owned(), source };
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

async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin, message: &str) -> std::io::Result<()> {
    // RFC 5425 §4.3: MSG-LEN SP SYSLOG-MSG.
    stream.write_all(format!("{} {message}", message.len()).as_bytes()).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// RFC 5424 §6. The note is in base64: its lines would be several messages to many a collector.
fn message(outgoing: &Outgoing) -> String {
    let mut text = format!("<{PRIORITY}>1 {} ", outgoing.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
    let hostname: String = outgoing.node.chars().filter(char::is_ascii_graphic).take(255).collect();
    let hostname = if hostname.is_empty() { "-" } else { &hostname };
    let origin = outgoing.origin.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
    // 32473 is the number that RFC 5612 keeps for documentation; we have none of our own.
    let _never_fails = write!(
        text,
        "{hostname} sallyport {} checkpoint [checkpoint@32473 origin=\"{origin}\" size=\"{}\" root=\"{}\" note=\"{}\"]",
        std::process::id(),
        outgoing.head.size,
        outgoing.head.root,
        STANDARD.encode(&outgoing.note),
    );
    text
}
