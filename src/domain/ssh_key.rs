//! SSH public keys in OpenSSH's one-line form, as in `authorized_keys` and `known_hosts`: enough of them to pin, list and
//! compare, without a crypto library. Formats: RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4, OpenSSH's PROTOCOL.u2f.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

/// The longest comment that is kept, in characters.
pub const MOST_COMMENT: usize = 200;
/// The longest key that is read, in bytes: RSA with 16384 bits takes 2.1 kB.
const MOST_BLOB: usize = 4096;
/// RSA below this is broken or soon will be.
const LEAST_RSA_BITS: usize = 2048;
/// The greatest RSA key, as in OpenSSH: verifying a larger one costs too much.
const MOST_RSA_BITS: usize = 16384;

/// A public key of an accepted algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshPublicKey {
    algorithm: Algorithm,
    blob: Vec<u8>,
    comment: String,
}

/// What a key is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Rsa,
    /// On a FIDO2 authenticator.
    SkEd25519,
    /// On a FIDO2 authenticator.
    SkEcdsaP256,
}

impl Algorithm {
    const ALL: [Algorithm; 7] = [
        Algorithm::Ed25519,
        Algorithm::EcdsaP256,
        Algorithm::EcdsaP384,
        Algorithm::EcdsaP521,
        Algorithm::Rsa,
        Algorithm::SkEd25519,
        Algorithm::SkEcdsaP256,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Ed25519 => "ssh-ed25519",
            Algorithm::EcdsaP256 => "ecdsa-sha2-nistp256",
            Algorithm::EcdsaP384 => "ecdsa-sha2-nistp384",
            Algorithm::EcdsaP521 => "ecdsa-sha2-nistp521",
            Algorithm::Rsa => "ssh-rsa",
            Algorithm::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Algorithm::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }
}

/// SHA-256 over a public key, as `ssh-keygen -l` prints it: `SHA256:` and base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a public key that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshPublicKeyError {
    #[error("a public key is written `ssh-ed25519 AAAA… comment`, in one line, without options before it")]
    Form,
    #[error("this is a private key; give the public one (the file that ends in `.pub`)")]
    Private,
    #[error(
        "keys of the algorithm `{0}` are not accepted (use ssh-ed25519, ecdsa-sha2-nistp256, sk-ssh-ed25519@openssh.com or rsa)"
    )]
    Algorithm(String),
    #[error("the key is not complete: its base64 or what is in it does not read as {0}")]
    Blob(&'static str),
    #[error("an RSA key needs {LEAST_RSA_BITS} to {MOST_RSA_BITS} bits, this one has {0}")]
    RsaBits(usize),
}

impl SshPublicKey {
    /// Takes the key's bytes as they are on the wire.
    pub fn from_blob(blob: &[u8], comment: &str) -> Result<Self, SshPublicKeyError> {
        if blob.len() > MOST_BLOB {
            return Err(SshPublicKeyError::Blob("a key of usual length"));
        }
        let mut rest = blob;
        let name = take_string(&mut rest).ok_or(SshPublicKeyError::Blob("a public key"))?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str().as_bytes() == name);
        let Some(algorithm) = algorithm else {
            let name = String::from_utf8_lossy(name).chars().filter(char::is_ascii_graphic).take(64).collect();
            return Err(SshPublicKeyError::Algorithm(name));
        };
        check_body(algorithm, &mut rest)?;
        if !rest.is_empty() {
            return Err(SshPublicKeyError::Blob(algorithm.as_str()));
        }
        let comment = comment.chars().filter(|c| !c.is_control()).take(MOST_COMMENT).collect();
        Ok(Self { algorithm, blob: blob.to_vec(), comment })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key as it is on the wire.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// What its owner wrote behind it: printable, at most [`MOST_COMMENT`] characters, perhaps empty.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.blob).into())
    }

    /// Algorithm and base64, without the comment.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.algorithm.as_str(), STANDARD.encode(&self.blob))
    }
}

impl FromStr for SshPublicKey {
    type Err = SshPublicKeyError;

    /// Reads `algorithm base64 comment`; the comment may hold spaces or be left out.
    fn from_str(text: &str) -> Result<Self, SshPublicKeyError> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err(SshPublicKeyError::Private);
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err(SshPublicKeyError::Form);
        }
        let (name, rest) = text.split_once([' ', '\t']).ok_or(SshPublicKeyError::Form)?;
        let rest = rest.trim_start();
        let (body, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if !Algorithm::ALL.iter().any(|algorithm| algorithm.as_str() == name) {
            let looks_like_a_name =
                name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-@.".contains(c));
            return Err(if looks_like_a_name && body.starts_with("AAAA") {
                SshPublicKeyError::Algorithm(name.to_owned())
            } else {
                SshPublicKeyError::Form
            });
        }
        if body.len() > MOST_BLOB * 2 {
            return Err(SshPublicKeyError::Blob("a key of usual length"));
        }
        let blob = STANDARD.decode(body).map_err(|_| SshPublicKeyError::Blob("base64"))?;
        let key = Self::from_blob(&blob, comment.trim())?;
        if key.algorithm.as_str() == name {
            Ok(key)
        } else {
            Err(SshPublicKeyError::Blob("a key of the algorithm before it"))
        }
    }
}

/// Checks what follows the algorithm's name, and takes it off `rest`.
fn check_body(algorithm: Algorithm, rest: &mut &[u8]) -> Result<(), SshPublicKeyError> {
    let fault = SshPublicKeyError::Blob(algorithm.as_str());
    let sound = match algorithm {
        Algorithm::Ed25519 => take_string(rest).is_some_and(|point| point.len() == 32),
        Algorithm::SkEd25519 => take_string(rest).is_some_and(|point| point.len() == 32) && take_application(rest),
        Algorithm::EcdsaP256 => take_point(rest, b"nistp256", 32),
        Algorithm::EcdsaP384 => take_point(rest, b"nistp384", 48),
        Algorithm::EcdsaP521 => take_point(rest, b"nistp521", 66),
        Algorithm::SkEcdsaP256 => take_point(rest, b"nistp256", 32) && take_application(rest),
        Algorithm::Rsa => {
            let exponent = take_string(rest).ok_or_else(|| fault.clone())?;
            let modulus = take_string(rest).ok_or_else(|| fault.clone())?;
            let bits = bits_of(modulus).ok_or_else(|| fault.clone())?;
            if !(LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) {
                return Err(SshPublicKeyError::RsaBits(bits));
            }
            // 3 to 2^64, odd: what is used, and what a verifier can afford.
            bits_of(exponent).is_some_and(|bits| (2..=64).contains(&bits))
                && exponent.last().is_some_and(|last| last & 1 == 1)
        }
    };
    if sound { Ok(()) } else { Err(fault) }
}

/// An uncompressed point (SEC 1 §2.3.3) on the named curve.
fn take_point(rest: &mut &[u8], curve: &[u8], coordinate_bytes: usize) -> bool {
    take_string(rest).is_some_and(|name| name == curve)
        && take_string(rest).is_some_and(|point| point.len() == 1 + 2 * coordinate_bytes && point.first() == Some(&4))
}

/// The application for which an authenticator made the key; OpenSSH's is `ssh:` unless asked otherwise.
fn take_application(rest: &mut &[u8]) -> bool {
    take_string(rest).is_some_and(|application| application.len() <= 256 && application.is_ascii())
}

/// "string" of RFC 4251 §5.
fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (string, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(string)
}

/// How many bits a positive "mpint" of RFC 4251 §5 has, if it is written as it should be.
fn bits_of(mpint: &[u8]) -> Option<usize> {
    let digits = match mpint {
        [0, digits @ ..] if digits.first().is_some_and(|first| first & 0x80 != 0) => digits,
        [0, ..] => return None,
        digits => digits,
    };
    let first = digits.first()?;
    if digits.len() == mpint.len() && first & 0x80 != 0 {
        return None; // negative
    }
    Some(digits.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn line(name: &str, parts: &[&[u8]]) -> String {
        let blob: Vec<u8> = std::iter::once(name.as_bytes()).chain(parts.iter().copied()).flat_map(string).collect();
        format!("{name} {} li@desk", STANDARD.encode(blob))
    }

    fn rsa(bits: usize) -> String {
        let mut modulus = vec![0; bits / 8 + 1];
        modulus[1] = 0x80;
        line("ssh-rsa", &[&[1, 0, 1], &modulus])
    }

    // Made with `ssh-keygen -t ed25519` and `ssh-keygen -l`.
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";
    const ED25519_FINGERPRINT: &str = "SHA256:4NRg9Wytw4CZT2+IuGVlNJpfo24kN84izb5s/TMhWzo";

    #[test]
    fn a_key_has_the_fingerprint_that_ssh_keygen_prints() {
        let key: SshPublicKey = format!("{ED25519} li wei").parse().unwrap();
        assert_eq!(key.fingerprint().to_string(), ED25519_FINGERPRINT);
        assert_eq!(key.to_line(), ED25519);
        assert_eq!(key.comment(), "li wei");
    }

    #[test]
    fn every_accepted_algorithm_reads_back() {
        let point = |bytes: usize| [&[4], vec![7; 2 * bytes].as_slice()].concat();
        let lines = [
            line("ssh-ed25519", &[&[7; 32]]),
            line("ecdsa-sha2-nistp256", &[b"nistp256", &point(32)]),
            line("ecdsa-sha2-nistp384", &[b"nistp384", &point(48)]),
            line("ecdsa-sha2-nistp521", &[b"nistp521", &point(66)]),
            line("sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]),
            line("sk-ecdsa-sha2-nistp256@openssh.com", &[b"nistp256", &point(32), b"ssh:"]),
            rsa(2048),
            rsa(4096),
        ];
        for text in lines {
            let key: SshPublicKey = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(format!("{} li@desk", key.to_line()), text);
        }
    }

    #[test]
    fn what_is_weak_old_or_not_a_key_is_refused_with_the_reason() {
        use SshPublicKeyError as E;
        let read = |text: &str| text.parse::<SshPublicKey>().unwrap_err();
        assert_eq!(read(&rsa(1024)), E::RsaBits(1024));
        assert_eq!(read(&line("ssh-dss", &[b"x"])), E::Algorithm("ssh-dss".to_owned()));
        assert_eq!(read("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA"), E::Private);
        assert_eq!(read("ssh-ed25519"), E::Form);
        assert_eq!(read(""), E::Form);
        assert_eq!(read(&format!("command=\"sh\" {ED25519}")), E::Form);
        assert_eq!(read(&format!("{ED25519}\n{ED25519}")), E::Form);
        assert_eq!(read("ssh-ed25519 AAAA!"), E::Blob("base64"));
        assert!(matches!(read(&ED25519[..60]), E::Blob(_)));
        assert!(matches!(read(&ED25519.replace("ssh-ed25519", "ssh-rsa")), E::Blob(_)));
        assert!(matches!(read(&line("ssh-ed25519", &[&[7; 32], b"more"])), E::Blob(_)));
        assert!(matches!(read(&line("ecdsa-sha2-nistp256", &[b"nistp384", &[4; 65]])), E::Blob(_)));
    }

    proptest! {
        #[test]
        fn hostile_text_and_bytes_make_no_panic(text in ".{0,80}", blob in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = text.parse::<SshPublicKey>();
            let _ = SshPublicKey::from_blob(&blob, &text);
            for algorithm in Algorithm::ALL {
                let _ = SshPublicKey::from_blob(&[string(algorithm.as_str().as_bytes()), blob.clone()].concat(), &text);
            }
        }
    }
}
