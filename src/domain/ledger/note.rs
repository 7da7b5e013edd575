//! Signed notes: a text and the Ed25519 signatures over it, in the form of C2SP signed-note, which the tools of other
//! transparency logs read too.
//!
//! ```text
//! note      = text LF signature…          text: UTF-8 without control characters but LF; it ends with LF
//! signature = "— " name " " base64(key-id ‖ Ed25519 signature over text) LF
//! key-id    = SHA-256(name ‖ LF ‖ 0x01 ‖ public key)[:4]
//! vkey      = name "+" hex(key-id) "+" base64(0x01 ‖ public key)
//! ```
//!
//! A key id finds a key; it proves nothing, being four bytes long. Signatures by keys that are not known are ignored, so
//! keys can be changed, and witnesses may add theirs. Who knows a key names it by its [`VerifierKey::fingerprint`].

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, Signer as _, SigningKey, VerifyingKey};

use crate::hash::Hash;

/// The longest note that is read, in bytes: 16 post-quantum signatures of 5 kB and some text.
pub const MOST_NOTE_BYTES: usize = 128 << 10;

/// The most signatures that are read of a note.
pub const MOST_SIGNATURES: usize = 64;

/// The longest name of a key, in bytes.
const MOST_NAME: usize = 255;

/// The signature type of Ed25519.
const ED25519: u8 = 0x01;

/// What stands before a signature: an em dash (U+2014) and a space.
const DASH: &str = "\u{2014} ";

/// The name of a key, and of the log that it signs for: a URL without scheme, such as `bastion.example.com/ledger`.
/// It has no white space, no control characters and no `+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let is_odd = |sign: char| sign.is_whitespace() || sign.is_control() || sign == '+';
        if text.is_empty() || text.len() > MOST_NAME || text.contains(is_odd) {
            return Err(KeyError::Name { name: text.chars().take(MOST_NAME).collect() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a key is found by, together with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Why a text is not the public key of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("`{name}` is not the name of a key: it has up to {MOST_NAME} bytes, no white space and no `+`")]
    Name { name: String },
    #[error("a key reads `name+id+base64`, with eight lower-case hexadecimal digits as the id")]
    Form,
    #[error("key `{name}` is not an Ed25519 key of 32 bytes")]
    NotEd25519 { name: KeyName },
    #[error("key `{name}` has the id {found}, but its bytes give {expected}")]
    Id { name: KeyName, expected: KeyId, found: String },
}

/// The public half of a key that signs notes. Its text is the *vkey*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key from its 32 bytes (RFC 8032 §5.1.5). Points of small order, which sign everything, are refused.
    pub fn new(name: KeyName, public: &[u8; PUBLIC_KEY_LENGTH]) -> Result<Self, KeyError> {
        match VerifyingKey::from_bytes(public) {
            Ok(key) if !key.is_weak() => Ok(Self { name, key }),
            _ => Err(KeyError::NotEd25519 { name }),
        }
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// SHA-256(name ‖ LF ‖ 0x01 ‖ public key): what people compare. The key's id is its first four bytes.
    pub fn fingerprint(&self) -> Hash {
        Hash::of(&[self.name.as_str().as_bytes(), b"\n", &[ED25519], self.key.as_bytes()].concat())
    }

    pub fn id(&self) -> KeyId {
        let [a, b, c, d, ..] = self.fingerprint().0;
        KeyId([a, b, c, d])
    }

    /// Whether `signature` is this key's over `text`. Strict: no signature has a second spelling.
    fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        let signature: Result<[u8; SIGNATURE_LENGTH], _> = signature.try_into();
        signature
            .is_ok_and(|signature| self.key.verify_strict(text.as_bytes(), &Signature::from_bytes(&signature)).is_ok())
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, self.id(), STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+'); // base64 may have a `+` of its own
        let name: KeyName = parts.next().unwrap_or_default().parse()?;
        let (Some(id), Some(key)) = (parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let key = STANDARD.decode(key).map_err(|_| KeyError::Form)?;
        let public: Option<&[u8; PUBLIC_KEY_LENGTH]> = match key.split_first() {
            Some((&ED25519, public)) => public.try_into().ok(),
            _ => None,
        };
        let Some(public) = public else {
            return Err(KeyError::NotEd25519 { name });
        };
        let key = Self::new(name, public)?;
        let expected = key.id();
        if id != expected.to_string() {
            return Err(KeyError::Id { name: key.name, expected, found: id.to_owned() });
        }
        Ok(key)
    }
}

/// The secret half of a key that signs notes. Its memory is cleared when it is dropped.
pub struct SignerKey {
    name: KeyName,
    key: SigningKey,
}

impl SignerKey {
    /// A key from its 32 secret bytes (RFC 8032 §5.1.5), made by the caller; this package has no randomness.
    pub fn new(name: KeyName, secret: &[u8; 32]) -> Self {
        Self { name, key: SigningKey::from_bytes(secret) }
    }

    /// The half that may be shown.
    pub fn public(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key: self.key.verifying_key() }
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}, …)", self.public())
    }
}

/// Why bytes are not a signed note, or not one to believe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("a note has at most {MOST_NOTE_BYTES} bytes and {MOST_SIGNATURES} signatures")]
    TooLong,
    #[error("a note is UTF-8 without control characters, and its text ends with a line feed")]
    Text,
    #[error("a note ends with an empty line and signatures")]
    NotSigned,
    #[error("line {line} behind the text is not a signature")]
    Signature { line: usize },
    #[error("none of the signatures is by a known key")]
    NoKnownKey,
    #[error("the signature by key {id} of `{name}` does not fit the text")]
    Forged { name: KeyName, id: KeyId },
}

/// One signature of a note. Whether it means anything depends on who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    pub name: KeyName,
    pub id: KeyId,
    /// What the key made of the text; for Ed25519 64 bytes.
    pub bytes: Vec<u8>,
}

/// A text and what purports to be signatures over it. Its [`Display`](fmt::Display) is the note's one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Signs `text` with every one of `keys`. The same text and keys always give the same note.
    pub fn sign(text: &str, keys: &[&SignerKey]) -> Result<Self, NoteError> {
        if !text.ends_with('\n') || text.contains(is_forbidden) {
            return Err(NoteError::Text);
        }
        if keys.is_empty() {
            return Err(NoteError::NotSigned);
        }
        let sign = |key: &&SignerKey| NoteSignature {
            name: key.name.clone(),
            id: key.public().id(),
            bytes: key.key.sign(text.as_bytes()).to_bytes().to_vec(),
        };
        let note = Self { text: text.to_owned(), signatures: keys.iter().map(sign).collect() };
        if keys.len() > MOST_SIGNATURES || note.to_string().len() > MOST_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        Ok(note)
    }

    /// Reads a note. What is accepted has no second spelling.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MOST_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        if note.contains(is_forbidden) {
            return Err(NoteError::Text);
        }
        // The last empty line: the text may have some of its own.
        let end = note.rfind("\n\n").ok_or(NoteError::NotSigned)? + 1;
        let (text, signatures) = note.split_at(end);
        let signatures = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let signatures = signatures.ok_or(NoteError::NotSigned)?;
        if signatures.split('\n').count() > MOST_SIGNATURES {
            return Err(NoteError::TooLong);
        }
        let lines = signatures.split('\n').enumerate();
        let signatures = lines.map(|(line, text)| parse_signature(text).ok_or(NoteError::Signature { line: line + 1 }));
        Ok(Self { text: text.to_owned(), signatures: signatures.collect::<Result<_, _>>()? })
    }

    /// What was signed, its last line feed included. Not to be believed before [`Note::verify`] gave a key.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The keys among `known` that signed the text, at least one. A signature that claims to be by a known key and is
    /// not makes the whole note false.
    pub fn verify<'k>(
        &self,
        known: impl IntoIterator<Item = &'k VerifierKey, IntoIter: Clone>,
    ) -> Result<Vec<&'k VerifierKey>, NoteError> {
        let known = known.into_iter();
        let mut by: Vec<&VerifierKey> = Vec::new();
        for NoteSignature { name, id, bytes } in &self.signatures {
            for key in known.clone().filter(|key| key.name == *name && key.id() == *id) {
                if !key.has_signed(&self.text, bytes) {
                    return Err(NoteError::Forged { name: name.clone(), id: *id });
                }
                if !by.contains(&key) {
                    by.push(key);
                }
            }
        }
        if by.is_empty() { Err(NoteError::NoKnownKey) } else { Ok(by) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|NoteSignature { name, id, bytes }| {
            writeln!(f, "{DASH}{name} {}", STANDARD.encode([id.0.as_slice(), bytes].concat()))
        })
    }
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok()?;
    let (id, bytes) = signature.split_first_chunk::<4>()?;
    let bytes = Some(bytes.to_vec()).filter(|bytes| !bytes.is_empty())?;
    Some(NoteSignature { name: name.parse().ok()?, id: KeyId(*id), bytes })
}

/// Below U+0020, but the line feed.
fn is_forbidden(sign: char) -> bool {
    sign < ' ' && sign != '\n'
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn signer(name: &str, secret: u8) -> SignerKey {
        SignerKey::new(name.parse().unwrap(), &[secret; 32])
    }

    /// Key, secret, text and note of Go's golang.org/x/mod/sumdb/note, which the specification came from.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SIGNER: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                        then you don't know what your problem is.\n";
    const SIGNED: &str = "If you think cryptography is the answer to your problem,\n\
                          then you don't know what your problem is.\n\
                          \n\
                          — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn peter() -> SignerKey {
        let secret = STANDARD.decode(PETER_SIGNER).unwrap();
        SignerKey::new("PeterNeumann".parse().unwrap(), &secret[1..].try_into().unwrap())
    }

    #[test]
    fn a_note_of_another_implementation_verifies() {
        let key: VerifierKey = PETER.parse().unwrap();
        let note = Note::parse(SIGNED.as_bytes()).unwrap();
        assert_eq!(note.text(), TEXT);
        assert_eq!(note.verify([&key]), Ok(vec![&key]));
    }

    #[test]
    fn our_signature_is_the_one_of_another_implementation() {
        assert_eq!(peter().public().to_string(), PETER);
        assert_eq!(Note::sign(TEXT, &[&peter()]).unwrap().to_string(), SIGNED);
    }

    #[test]
    fn keys_of_other_logs_read_back() {
        for text in [
            "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        ] {
            assert_eq!(text.parse::<VerifierKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_key_with_anything_changed_is_refused() {
        for start in 0..PETER.len() {
            for end in start..PETER.len() {
                assert!(PETER[start..end].parse::<VerifierKey>().is_err() || (start == 0 && end == PETER.len()));
            }
        }
        for place in 0..PETER.len() {
            let mut bytes = PETER.as_bytes().to_vec();
            bytes[place] += 1;
            assert!(String::from_utf8(bytes).unwrap().parse::<VerifierKey>().is_err(), "{place}");
        }
        // A signature type of its own, timestamped cosignatures, and the neutral point.
        let cosigner = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        assert!(matches!(cosigner.parse::<VerifierKey>(), Err(KeyError::NotEd25519 { .. })));
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(VerifierKey::new("log".parse().unwrap(), &neutral).is_err());
    }

    #[test]
    fn one_known_key_is_enough_and_unknown_ones_are_ignored() {
        let (old, new, other) = (signer("log", 1), signer("log", 2), signer("witness", 3));
        let note = Note::sign("text\n", &[&old, &new, &other]).unwrap();
        assert_eq!(note.verify([&new.public()]).unwrap(), [&new.public()]);
        assert_eq!(note.verify([&old.public(), &new.public()]).unwrap().len(), 2);
        assert_eq!(note.verify([&signer("log", 4).public()]), Err(NoteError::NoKnownKey));
        assert_eq!(note.verify([&signer("other", 1).public()]), Err(NoteError::NoKnownKey));
        assert_eq!(note.verify([]), Err(NoteError::NoKnownKey));
    }

    #[test]
    fn a_signature_that_a_known_key_did_not_make_refuses_the_whole_note() {
        let (good, bad) = (signer("log", 1), signer("log", 2));
        let mut note = Note::sign("text\n", &[&good, &bad]).unwrap();
        note.signatures[1].bytes[7] ^= 1;
        let known = [good.public(), bad.public()];
        assert_eq!(note.verify(&known), Err(NoteError::Forged { name: "log".parse().unwrap(), id: bad.public().id() }));
    }

    #[test]
    fn what_is_no_note_is_refused_with_what_is_wrong() {
        let signature = SIGNED.lines().last().unwrap();
        let note = |text: &str| Note::parse(text.as_bytes());
        assert_eq!(note(""), Err(NoteError::NotSigned));
        assert_eq!(note("text\n"), Err(NoteError::NotSigned));
        assert_eq!(note("text\n\n"), Err(NoteError::NotSigned));
        assert_eq!(note(&format!("text\n\n{signature}")), Err(NoteError::NotSigned), "no line feed at the end");
        assert_eq!(note(&format!("te\rxt\n\n{signature}\n")), Err(NoteError::Text));
        assert_eq!(Note::parse(b"te\xffxt\n\n"), Err(NoteError::Text));
        for bad in ["-", "— x", "— x ", "— x AAAA", "— x AAAA\u{a0}", "- x AAAAAAA=", "—  AAAAAAA=", "— x+y AAAAAAA="]
        {
            let text = format!("text\n\n{signature}\n{bad}\n");
            assert_eq!(note(&text), Err(NoteError::Signature { line: 2 }), "{bad}");
        }
        // Base64 with bits left over would be a second spelling.
        assert!(note("text\n\n— x AAAAAAA=\n").is_ok());
        assert_eq!(note("text\n\n— x AAAAAAB=\n"), Err(NoteError::Signature { line: 1 }));
        let many = format!("text\n\n{}", "— x AAAAAAA=\n".repeat(MOST_SIGNATURES + 1));
        assert_eq!(note(&many), Err(NoteError::TooLong));
        assert_eq!(note(&"x".repeat(MOST_NOTE_BYTES + 1)), Err(NoteError::TooLong));
    }

    #[test]
    fn what_cannot_be_a_text_is_not_signed() {
        let key = signer("log", 1);
        for text in ["", "text", "te\txt\n"] {
            assert_eq!(Note::sign(text, &[&key]), Err(NoteError::Text), "{text:?}");
        }
        assert_eq!(Note::sign("text\n", &[]), Err(NoteError::NotSigned));
    }

    #[test]
    fn a_secret_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", peter()), format!("SignerKey({PETER}, …)"));
    }

    proptest! {
        #[test]
        fn every_note_reads_back(text in "[^\\x00-\\x1f]{0,40}(\n[^\\x00-\\x1f]{0,40}){0,3}\n", secrets: Vec<u8>) {
            let keys: Vec<SignerKey> = secrets.iter().take(5).map(|&secret| signer("log", secret)).collect();
            let keys = if keys.is_empty() { vec![signer("log", 0)] } else { keys };
            let note = Note::sign(&text, &keys.iter().collect::<Vec<_>>()).unwrap();
            let read = Note::parse(note.to_string().as_bytes()).unwrap();
            let known: Vec<VerifierKey> = keys.iter().map(SignerKey::public).collect();
            prop_assert!(read.verify(&known).is_ok());
            prop_assert_eq!(read, note);
        }

        #[test]
        fn a_note_with_one_byte_changed_is_not_believed(place: prop::sample::Index, byte: u8) {
            let key: VerifierKey = PETER.parse().unwrap();
            let mut bytes = SIGNED.as_bytes().to_vec();
            let place = place.index(bytes.len());
            prop_assume!(bytes[place] != byte);
            bytes[place] = byte;
            prop_assert!(Note::parse(&bytes).and_then(|note| note.verify([&key]).map(drop)).is_err());
        }

        #[test]
        fn whatever_is_accepted_is_spelt_in_the_one_way(tail in "(— [a-z+ ]{0,3} [A-Za-z0-9+/=]{0,12}\n?){1,3}") {
            let text = format!("text\n\n{tail}");
            if let Ok(note) = Note::parse(text.as_bytes()) {
                prop_assert_eq!(note.to_string(), text);
            }
        }

        #[test]
        fn hostile_bytes_give_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text: String) {
            let _ = Note::parse(&bytes);
            let _ = text.parse::<VerifierKey>();
        }
    }
}
