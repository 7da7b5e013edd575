//! Debian's rsyslog as a collector: RFC 5425, syslog over TLS, on a free port of the loopback address, with an authority that lives as
//! long as it does. Nobody is root for it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::process::{Ending, Guarded};

/// A collector. Dropping it ends it.
pub struct Rsyslog {
    folder: tempfile::TempDir,
    server: Mutex<Option<Guarded>>,
    port: u16,
}

impl Rsyslog {
    /// Starts one.
    pub fn start() -> Self {
        let folder = super::temporary_folder();
        certify(folder.path());
        let port_file = folder.path().join("port");
        let configuration = folder.path().join("rsyslog.conf");
        std::fs::write(&configuration, configure(folder.path(), 0)).expect("a configuration");
        let server = run(folder.path());
        let mut port = 0;
        super::until("rsyslog listens", || {
            port = std::fs::read_to_string(&port_file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            port != 0 && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        std::fs::write(&configuration, configure(folder.path(), port)).expect("a configuration");
        Self { folder, server: Mutex::new(Some(server)), port }
    }

    /// Stops it: connections are refused from now on.
    pub fn stop(&self) {
        drop(self.server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Starts it again on the same port.
    pub fn restart(&self) {
        let server = run(self.folder.path());
        super::until("rsyslog listens again", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that has certified the collector, in PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Where to send to, as settings have it.
    pub fn address(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// Every message as it came.
    pub fn received(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("received")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What has arrived: for each message, a line with its priority, host name, application, message id and structured data, as
    /// rsyslog has read them.
    pub fn messages(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("messages")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn run(folder: &Path) -> Guarded {
    let arguments = ["-n".into(), "-f".into(), folder.join("rsyslog.conf"), "-i".into(), folder.join("pid")]
        .map(PathBuf::into_os_string);
    let program = std::ffi::OsStr::new("/usr/sbin/rsyslogd");
    Guarded::spawn(program, &arguments, &folder.join("log"), &Ending { signal: "TERM", remove: None })
}

fn configure(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriverCAFile="{folder}/ca.pem"
       defaultNetstreamDriverCertFile="{folder}/cert.pem" defaultNetstreamDriverKeyFile="{folder}/key.pem")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="{port}" listenPortFileName="{folder}/port")
template(name="read" type="string" string="%pri% %hostname% %app-name% %msgid% %structured-data%\n")
action(type="omfile" file="{folder}/messages" template="read" asyncWriting="off" flushOnTXEnd="on")
template(name="raw" type="string" string="%rawmsg%\n")
action(type="omfile" file="{folder}/received" template="raw" asyncWriting="off" flushOnTXEnd="on")
"#
    )
}

fn certify(folder: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
    let certificate = certificate.signed_by(&key, &authority).expect("a certificate");
    for (name, text) in [("ca.pem", authority.pem()), ("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).expect("a file of the collector's");
    }
}
