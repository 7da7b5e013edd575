//! What the HTTPS door proves itself with: a certificate that the operator gives, or one of our own, made at the first start
//! and kept, so that who has once compared its fingerprint knows it again.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};

/// The files of our own certificate in the data folder.
const OWN_CERTIFICATE: &str = "web-certificate.pem";
const OWN_KEY: &str = "web-key.pem";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read the certificates in `{path}`")]
    Certificates { path: PathBuf, source: pem::Error },
    #[error("`{path}` holds no certificate in PEM form")]
    NoCertificate { path: PathBuf },
    #[error("cannot read the private key in `{path}`")]
    Key { path: PathBuf, source: pem::Error },
    #[error("the certificate in `{certificate}` and the key in `{key}` cannot be used together")]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("cannot make a certificate of our own")]
    Make(#[from] rcgen::Error),
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
}

/// A certificate with its key.
pub struct Identity {
    pub(super) acceptor: TlsAcceptor,
    fingerprint: String,
}

impl Identity {
    /// Reads a certificate, with the chain above it, and its key, from PEM files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let unreadable = |source| IdentityError::Certificates { path: certificate.to_owned(), source };
        let chain = CertificateDer::pem_file_iter(certificate).map_err(unreadable)?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(unreadable)?;
        let Some(own) = chain.first() else {
            return Err(IdentityError::NoCertificate { path: certificate.to_owned() });
        };
        let fingerprint = fingerprint(own);
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|source| IdentityError::Key { path: key.to_owned(), source })?;
        let unusable =
            |source| IdentityError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), source };
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, private);
        let mut config = config.map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
    }

    /// Our own certificate from the data folder; made there, for these names, if there is none.
    pub fn own(folder: &Path, names: Vec<String>) -> Result<Self, IdentityError> {
        let (certificate, key) = (folder.join(OWN_CERTIFICATE), folder.join(OWN_KEY));
        if !certificate.exists() {
            let made = rcgen::generate_simple_self_signed(names)?;
            // The key first: a certificate without its key would be taken for complete at the next start.
            write(&key, 0o600, &made.signing_key.serialize_pem())?;
            write(&certificate, 0o644, &made.cert.pem())?;
        }
        Self::load(&certificate, &key)
    }

    /// SHA-256 of the certificate, as browsers show it: pairs of hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let pairs: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), IdentityError> {
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let written = written.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn our_own_certificate_stays_the_same_and_its_key_is_for_us_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let own = || Identity::own(folder.path(), vec!["localhost".to_owned()]).unwrap();

        let (first, second) = (own(), own());

        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        let mode = std::fs::metadata(folder.path().join(OWN_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_named() {
        let folder = tempfile::TempDir::new().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();

        let error = Identity::load(&empty, &empty).err().unwrap();

        assert!(error.to_string().contains("empty.pem` holds no certificate"), "{error}");
    }
}
