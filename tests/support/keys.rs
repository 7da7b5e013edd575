//! Key pairs in files, as stock clients want them, and a certificate authority.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};

/// A key pair, in `path` and `path.pub` of a temporary folder of its own.
pub struct KeyPair {
    private: PrivateKey,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl KeyPair {
    /// A new Ed25519 key pair.
    pub fn ed25519() -> Self {
        Self::new(Algorithm::Ed25519)
    }

    /// A new key pair of any kind.
    pub fn new(algorithm: Algorithm) -> Self {
        let private = PrivateKey::random(&mut safe_rng(), algorithm).expect("a key");
        let folder = super::temporary_folder();
        let path = folder.path().join("id");
        private.write_openssh_file(&path, LineEnding::LF).expect("a private key file");
        private.public_key().write_openssh_file(public_path(&path)).expect("a public key file");
        Self { private, path, _folder: folder }
    }

    /// A new key pair made by `ssh-keygen` with these options; for RSA, which it makes faster.
    pub fn by_ssh_keygen(options: &[&str]) -> Self {
        let folder = super::temporary_folder();
        let path = folder.path().join("id");
        let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(options).output();
        let made = made.expect("ssh-keygen; scripts/install-test-deps installs it");
        assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
        let private = PrivateKey::read_openssh_file(&path).expect("a private key");
        Self { private, path, _folder: folder }
    }

    /// As a certificate authority: certifies by `ssh-keygen` with these options, and puts the certificate beside the key.
    pub fn certify_by_ssh_keygen(&self, subject: &KeyPair, options: &[&str]) {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-s"]).arg(&self.path).args(["-I", "a test's certificate"]).args(options);
        let signed =
            keygen.arg(subject.public_path()).output().expect("ssh-keygen; scripts/install-test-deps installs it");
        assert!(signed.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&signed.stderr));
    }

    /// The private key's file; clients look for a certificate in `…-cert.pub` beside it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The public key's file.
    pub fn public_path(&self) -> PathBuf {
        public_path(&self.path)
    }

    pub fn private(&self) -> &PrivateKey {
        &self.private
    }

    pub fn public(&self) -> &PublicKey {
        self.private.public_key()
    }

    /// The public key in one line, as `authorized_keys` has it.
    pub fn line(&self) -> String {
        self.public().to_openssh().expect("a public key's text")
    }

    /// As a certificate authority: a user certificate for `subject`, valid from a minute ago for `lifetime` from now.
    pub fn certify(&self, subject: &PublicKey, principals: &[&str], key_id: &str, lifetime: Duration) -> Certificate {
        self.sign(subject, CertType::User, principals, key_id, lifetime)
    }

    /// As a certificate authority: a host certificate.
    pub fn certify_host(&self, subject: &PublicKey, names: &[&str], lifetime: Duration) -> Certificate {
        self.sign(subject, CertType::Host, names, "host", lifetime)
    }

    fn sign(
        &self,
        subject: &PublicKey,
        kind: CertType,
        principals: &[&str],
        key_id: &str,
        lifetime: Duration,
    ) -> Certificate {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        let (from, to) = (now.saturating_sub(Duration::from_mins(1)), now + lifetime);
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), subject.clone(), from.as_secs(), to.as_secs())
                .expect("a certificate");
        builder.cert_type(kind).expect("a certificate's type");
        builder.key_id(key_id).expect("a key id");
        for principal in principals {
            builder.valid_principal(*principal).expect("a principal");
        }
        if kind == CertType::User {
            builder.extension("permit-pty", "").expect("an extension");
        }
        builder.sign(&self.private).expect("a signature")
    }

    /// Puts a certificate beside the private key, where stock clients find it.
    pub fn keep(&self, certificate: &Certificate) {
        let path = self.path.with_file_name("id-cert.pub");
        std::fs::write(path, certificate.to_openssh().expect("a certificate's text")).expect("a certificate file");
    }
}

fn public_path(private: &Path) -> PathBuf {
    private.with_extension("pub")
}
