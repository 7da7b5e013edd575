//! Checkpoints: signed tree heads, in the form of C2SP tlog-checkpoint. One checkpoint stands for all events up to its
//! size and for their order.
//!
//! ```text
//! checkpoint = note (see super::note) over:
//!              origin LF size LF base64(root) LF extension…      origin: which ledger this is; size: decimal
//! ```
//!
//! Our checkpoints have no extension lines, and the name of the key that signs them is the origin.
//!
//! **Keys change, checkpoints stay.** A key that is retired keeps its word about every tree up to the size at which it
//! was retired ([`KnownKey::last_size`]), and about none that is larger: so whoever steals an old key can sign nothing
//! new, and what it signed about the past must agree with every other checkpoint ([`Checkpoint::check_growth`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::{Head, ProofError, verify_consistency};
use super::note::{KeyName, Note, NoteError, SignerKey, VerifierKey};
use crate::hash::Hash;

/// A tree head with the name of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: Head,
    extensions: Vec<String>,
}

/// Why bytes are not a checkpoint, or not one to believe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("line {line} of the checkpoint is not {expected}")]
    Line { line: usize, expected: &'static str },
    #[error("the checkpoint is of the ledger `{found}`, not of `{expected}`")]
    Origin { expected: String, found: String },
    #[error("the checkpoint of {size} entries is signed by a key that was retired at {last_size}")]
    Retired { size: u64, last_size: u64 },
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A key that somebody trusts to sign for a ledger, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    pub key: VerifierKey,
    /// The size of the largest tree that the key may have signed; `None` while it is in use.
    pub last_size: Option<u64>,
}

impl Checkpoint {
    /// The checkpoint of the ledger `origin` when it had this head.
    pub fn new(origin: &KeyName, head: Head) -> Self {
        Self { origin: origin.to_string(), head, extensions: Vec::new() }
    }

    /// Which ledger this is of.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// Lines that other ledgers may add; they are signed, and mean nothing here.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.head.size, STANDARD.encode(self.head.root.0));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Signs the checkpoint. While a key is being replaced, the old and the new one may sign together.
    ///
    /// Who signs must know that this tree begins with every tree that was signed before.
    pub fn sign(&self, keys: &[&SignerKey]) -> Result<Note, NoteError> {
        Note::sign(&self.text(), keys)
    }

    /// Reads the text of a checkpoint; it has no second spelling. This proves nothing: see [`Checkpoint::open`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let bad = |line, expected| CheckpointError::Line { line, expected };
        let mut lines = text.strip_suffix('\n').ok_or_else(|| bad(1, "ended by a line feed"))?.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let origin = Some(line()).filter(|origin| !origin.is_empty()).ok_or_else(|| bad(1, "a ledger's name"))?;
        let size = line();
        let size = size.parse().ok().filter(|number: &u64| number.to_string() == size);
        let size = size.ok_or_else(|| bad(2, "a number of entries"))?;
        let root = STANDARD.decode(line()).ok().and_then(|root| root.try_into().ok());
        let root = root.map(Hash).ok_or_else(|| bad(3, "a SHA-256 in base64"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if let Some(place) = extensions.iter().position(String::is_empty) {
            return Err(bad(4 + place, "an extension: it is empty"));
        }
        Ok(Self { origin: origin.to_owned(), head: Head { size, root }, extensions })
    }

    /// Reads a signed checkpoint of the ledger `origin`, if one of the keys `known` vouches for it.
    pub fn open(bytes: &[u8], origin: &str, known: &[KnownKey]) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        let by = note.verify(known.iter().map(|known| &known.key))?;
        let checkpoint = Self::parse(note.text())?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin { expected: origin.to_owned(), found: checkpoint.origin });
        }
        let size = checkpoint.head.size;
        let signed = known.iter().filter(|known| by.contains(&&known.key));
        // A key that was listed twice is as good as its better listing. One that is in use sorts last.
        match signed.map(|known| known.last_size.unwrap_or(u64::MAX)).max() {
            Some(last_size) if size <= last_size => Ok(checkpoint),
            last_size => Err(CheckpointError::Retired { size, last_size: last_size.unwrap_or(0) }),
        }
    }

    /// Verifies that nothing of what this checkpoint stands for was changed by the time of `newer`. `path` is the
    /// consistency proof between the two sizes.
    pub fn check_growth(&self, newer: &Checkpoint, path: &[Hash]) -> Result<(), CheckpointError> {
        if self.origin != newer.origin {
            return Err(CheckpointError::Origin { expected: self.origin.clone(), found: newer.origin.clone() });
        }
        Ok(verify_consistency(&self.head, &newer.head, path)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::merkle::tests::{head, leaves, proof};
    use super::super::note::tests::signer;
    use super::*;

    const ORIGIN: &str = "bastion.example.com/ledger";

    fn checkpoint(size: usize) -> Checkpoint {
        Checkpoint::new(&ORIGIN.parse().unwrap(), head(&leaves(size)))
    }

    fn signed(size: usize, secret: u8) -> String {
        checkpoint(size).sign(&[&signer(ORIGIN, secret)]).unwrap().to_string()
    }

    fn in_use(secret: u8) -> KnownKey {
        KnownKey { key: signer(ORIGIN, secret).public(), last_size: None }
    }

    fn retired_at(size: u64, secret: u8) -> KnownKey {
        KnownKey { last_size: Some(size), ..in_use(secret) }
    }

    fn open(note: &str, known: &[KnownKey]) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(note.as_bytes(), ORIGIN, known)
    }

    #[test]
    fn a_checkpoint_reads_as_the_specification_has_it() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let read = Checkpoint::parse(text).unwrap();
        assert_eq!((read.origin(), read.head().size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(read.text(), text);
        let with_more = format!("{text}Timestamp 1\n");
        assert_eq!(Checkpoint::parse(&with_more).unwrap().extensions(), ["Timestamp 1"]);
    }

    #[test]
    fn what_we_sign_is_pinned() {
        let empty = Checkpoint::new(&ORIGIN.parse().unwrap(), Head::empty());
        let note = empty.sign(&[&signer(ORIGIN, 7)]).unwrap().to_string();
        let expected = "bastion.example.com/ledger\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\
                        — bastion.example.com/ledger ZK+8Q/LAJVEqNzJIy1VgIumI35B5ugMVMPQth08HyxthRA3aew0L6kQ1CPQAZAMv\
                        2czhhYBhTj8VzQi8wsYfmpPLugY=\n";
        assert_eq!(note, expected);
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_with_its_line() {
        let root = STANDARD.encode([7; 32]);
        for (text, line) in [
            (String::new(), 1),
            (format!("\n1\n{root}\n"), 1),
            (format!("log\n1\n{root}"), 1),
            ("log\n".to_owned(), 2),
            (format!("log\n01\n{root}\n"), 2),
            (format!("log\n+1\n{root}\n"), 2),
            (format!("log\n18446744073709551616\n{root}\n"), 2),
            ("log\n1\n".to_owned(), 3),
            (format!("log\n1\n{}\n", STANDARD.encode([7; 31])), 3),
            (format!("log\n1\n{root}\nx\n\ny\n"), 5),
        ] {
            let error = Checkpoint::parse(&text).unwrap_err();
            assert!(matches!(error, CheckpointError::Line { line: found, .. } if found == line), "{text:?}: {error}");
        }
    }

    #[test]
    fn checkpoints_of_a_retired_key_stay_valid_and_it_can_sign_no_new_ones() {
        let known = [retired_at(10, 1), in_use(2)];
        assert_eq!(open(&signed(9, 1), &known), Ok(checkpoint(9)));
        assert_eq!(open(&signed(10, 1), &known), Ok(checkpoint(10)));
        assert_eq!(open(&signed(11, 2), &known), Ok(checkpoint(11)));
        assert_eq!(open(&signed(11, 1), &known), Err(CheckpointError::Retired { size: 11, last_size: 10 }));
        let both = checkpoint(11).sign(&[&signer(ORIGIN, 1), &signer(ORIGIN, 2)]).unwrap().to_string();
        assert_eq!(open(&both, &known), Ok(checkpoint(11)));
    }

    #[test]
    fn a_checkpoint_of_another_key_or_ledger_is_refused() {
        assert_eq!(open(&signed(5, 3), &[in_use(1)]), Err(CheckpointError::Note(NoteError::NoKnownKey)));
        let elsewhere = Checkpoint::new(&"other.example.com/ledger".parse().unwrap(), head(&leaves(5)));
        let note = elsewhere.sign(&[&signer(ORIGIN, 1)]).unwrap().to_string();
        assert!(matches!(open(&note, &[in_use(1)]), Err(CheckpointError::Origin { .. })));
    }

    #[test]
    fn a_ledger_that_was_rolled_back_or_forked_does_not_pass_for_growth() {
        let (old, new) = (checkpoint(5), checkpoint(9));
        let path = proof(5, &leaves(9));
        assert_eq!(old.check_growth(&new, &path), Ok(()));
        assert!(matches!(new.check_growth(&old, &path), Err(CheckpointError::Proof(ProofError::Shrunk { .. }))));
        let mut forked = leaves(9);
        forked[2] = Hash::ZERO;
        let forked = Checkpoint::new(&ORIGIN.parse().unwrap(), head(&forked));
        assert!(old.check_growth(&forked, &path).is_err());
        let elsewhere = Checkpoint::new(&"other".parse().unwrap(), new.head());
        assert!(matches!(old.check_growth(&elsewhere, &path), Err(CheckpointError::Origin { .. })));
    }

    proptest! {
        #[test]
        fn every_checkpoint_reads_back(size: u64, root: [u8; 32], lines in prop::collection::vec("[^\n]{1,9}", 0..3)) {
            let mut checkpoint = Checkpoint::new(&ORIGIN.parse().unwrap(), Head { size, root: Hash(root) });
            checkpoint.extensions = lines;
            prop_assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
        }

        #[test]
        fn a_checkpoint_with_one_byte_changed_is_not_believed(place: prop::sample::Index, byte: u8) {
            let mut bytes = signed(3, 1).into_bytes();
            let place = place.index(bytes.len());
            prop_assume!(bytes[place] != byte);
            bytes[place] = byte;
            prop_assert!(Checkpoint::open(&bytes, ORIGIN, &[in_use(1)]).is_err());
        }

        #[test]
        fn whatever_is_accepted_is_spelt_in_the_one_way(text in "[a-z]{0,2}\n?[0-9+ ]{0,3}\n[A-Za-z0-9+/]{43}=\n([a-z]?\n){0,2}") {
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.text(), text);
            }
        }
    }
}
