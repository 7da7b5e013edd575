//! A real rsyslog on a free loopback port, over TLS, as whoever runs the tests. It writes each message into a file as it came.

use std::ffi::OsStr;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::process::{Ending, Guarded};

/// A running server; it ends when dropped.
pub struct Rsyslog {
    port: u16,
    folder: tempfile::TempDir,
    server: Option<Guarded>,
}

impl Rsyslog {
    /// Starts a server with a certificate for 127.0.0.1, and waits until it listens.
    pub fn start() -> Self {
        let folder = super::temporary_folder();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file for rsyslog");
        let mut authority = CertificateParams::new(Vec::new()).expect("an authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        write("ca.pem", &authority.self_signed(&authority_key).expect("a certificate").pem());
        let key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let issuer = Issuer::new(authority, authority_key);
        write("server.pem", &server.signed_by(&key, &issuer).expect("a certificate").pem());
        write("server.key", &key.serialize_pem());
        // Another process may take the port between its choice and its use; then the next is tried.
        for _ in 0..20 {
            let mut rsyslog = Self { port: super::free_port(), folder: super::temporary_folder(), server: None };
            for name in ["ca.pem", "server.pem", "server.key"] {
                std::fs::copy(folder.path().join(name), rsyslog.path(name)).expect("a copy");
            }
            if rsyslog.serve() {
                return rsyslog;
            }
        }
        panic!("no port stays free for rsyslog");
    }

    /// Starts on the same port, after [`Rsyslog::stop`].
    pub fn start_again(&mut self) {
        assert!(self.serve(), "rsyslog does not start again: {}", self.log());
    }

    /// Stops as on SIGTERM.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Where to send to.
    pub fn address(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// Whom to believe.
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// What has come, a message a line.
    pub fn received(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("received")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn serve(&mut self) -> bool {
        let (dir, port) = (self.folder.path().display(), self.port);
        let text = format!(
            r#"global(workDirectory="{dir}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
                defaultNetstreamDriverCAFile="{dir}/ca.pem"
                defaultNetstreamDriverCertFile="{dir}/server.pem"
                defaultNetstreamDriverKeyFile="{dir}/server.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="raw" type="string" string="%rawmsg%\n")
action(type="omfile" file="{dir}/received" template="raw")
"#
        );
        let path = self.path("rsyslog.conf");
        std::fs::write(&path, text).expect("a configuration");
        let pid = self.path("pid");
        let arguments = [OsStr::new("-n"), OsStr::new("-f"), path.as_os_str(), OsStr::new("-i"), pid.as_os_str()];
        let ending = Ending { signal: "TERM", remove: None };
        let program = OsStr::new("/usr/sbin/rsyslogd");
        let server = Guarded::spawn(program, &arguments, &self.path("log"), &ending);
        let mut listens = false;
        super::until("rsyslog listens or gives up", || {
            listens = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            listens || !server.is_running()
        });
        self.server = listens.then_some(server);
        self.server.is_some()
    }
}
