//! The algorithms that both sides of the bastion speak, most preferred first.
//!
//! Modern ones only: a post-quantum hybrid first, nothing with finite-field groups (one exchange over group 18 costs
//! 0.85 s of CPU before anybody is authenticated) or NIST curves. AES-GCM alone for clients that speak it: a client's own
//! preference decides (RFC 4253 §7.1), and OpenSSH's is ChaCha20-Poly1305, which costs twice as much on a machine with AES
//! instructions. No compression: it is offered before login otherwise.

use std::borrow::Cow;

use russh::keys::ssh_key::EcdsaCurve;
use russh::keys::{Algorithm, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};
use sallyport_domain::kexinit::Proposal;

/// The bytes that either side may send before the keys are exchanged anew (RFC 4344 §3.2 asks for this order).
pub const REKEY_BYTES: usize = 1 << 30;

/// How much a peer may send on a channel ahead of us (RFC 4254 §5.2), in bytes.
pub const WINDOW_BYTES: u32 = 2 << 20;

/// The largest packet that we ask for, in bytes of data.
pub const PACKET_BYTES: u32 = 32 << 10;

/// Packets that wait in one channel's queue inside russh, at most. One mebibyte hides a scheduling hiccup; more would
/// only be memory that a stalled peer holds.
pub const CHANNEL_QUEUE: usize = 32;

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// For clients that speak one of them.
const GCM: &[cipher::Name] = &[cipher::AES_128_GCM, cipher::AES_256_GCM];

/// For the others, such as Dropbear's.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::AES_256_CTR, cipher::AES_128_CTR, cipher::CHACHA20_POLY1305];

/// Encrypt-then-MAC only.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// The most common NIST key; host and user keys of this kind are accepted, key exchanges are not.
pub const ECDSA_256: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };

/// Host keys and user keys. RSA with SHA-1 is not among them.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    ECDSA_256,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// Which ciphers a client is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ciphers {
    /// AES-GCM alone.
    Gcm,
    /// All that are good enough.
    All,
}

impl Ciphers {
    /// Those for a client that proposes `proposal`.
    pub fn for_client(proposal: &Proposal<'_>) -> Self {
        let speaks_gcm = proposal.speaks_any(&GCM.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        if speaks_gcm && has_aes() { Self::Gcm } else { Self::All }
    }

    fn names(self) -> &'static [cipher::Name] {
        match self {
            Self::Gcm => GCM,
            Self::All => CIPHERS,
        }
    }
}

/// Whether this machine has instructions for AES-GCM; without them ChaCha20-Poly1305 is the faster one.
pub fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// What the bastion offers to its clients.
pub fn for_clients(ciphers: Ciphers) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(KEYS),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(ciphers.names()),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// What the bastion offers to targets: older ones may know no encrypt-then-MAC. `authorities` says whether host
/// certificates are asked for, which makes sense only where a host CA is pinned.
pub fn for_targets(authorities: bool) -> Preferred {
    const TARGET_MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];
    Preferred {
        mac: Cow::Borrowed(TARGET_MACS),
        host_key_certificates: if authorities { Cow::Borrowed(KEYS) } else { Cow::Borrowed(&[]) },
        ..for_clients(Ciphers::All)
    }
}
