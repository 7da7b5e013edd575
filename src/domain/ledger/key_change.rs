//! Changes of the key that signs a ledger. The old key signs for the new one, so whoever was given the old key's fingerprint
//! can go on with it.
//!
//! ```text
//! key change = note (see super::note), with one signature, by the old key, over:
//!              "sallyport-key-change-v1" LF old vkey LF new vkey LF last size LF
//! chain      = key change…                each from the key that the one before leads to
//! ```
//!
//! The last size is that of the largest tree that the old key signs. The checkpoint of just that size is signed by both keys, and
//! its last entry is the event that carries the key change.
//!
//! Whoever has an old secret key can sign for any new one. So a chain is worth as much as the key that it begins at; of a key
//! that was *stolen*, the fingerprint must be replaced with those who keep it.

use super::checkpoint::KnownKey;
use super::note::{Note, NoteError, SignerKey, VerifierKey};
use crate::hash::Hash;

/// The first line of a key change. A checkpoint has a number in its second line, a key change a key.
const FIRST: &str = "sallyport-key-change-v1";

/// The lines of a note over a key change: four, an empty one, and a signature.
const LINES: usize = 6;

/// The most key changes that are read.
pub const MOST_CHANGES: usize = 1000;

/// That one key follows another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    pub from: VerifierKey,
    pub to: VerifierKey,
    /// The size of the largest tree that `from` signs.
    pub last_size: u64,
}

/// Why bytes are no chain of key changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyChangeError {
    #[error("it is no text of {LINES} lines for each key change, or has more than {MOST_CHANGES}")]
    Form,
    #[error("line {line} of key change {number} is not {expected}")]
    Line { number: usize, line: usize, expected: &'static str },
    #[error("key change {number} is not signed by the key that it is from, and by no other")]
    Note { number: usize, source: NoteError },
    #[error("key change {number} does not begin where the one before ended")]
    Broken { number: usize },
}

impl KeyChange {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{FIRST}\n{}\n{}\n{}\n", self.from, self.to, self.last_size)
    }

    /// Signs the change by the old key, which must be `from`.
    pub fn sign(&self, old: &SignerKey) -> Result<Note, NoteError> {
        if old.public() != self.from {
            return Err(NoteError::NoKnownKey);
        }
        Note::sign(&self.text(), &[old])
    }

    /// Reads and verifies one signed change, number `number` of a chain.
    fn open(bytes: &[u8], number: usize) -> Result<Self, KeyChangeError> {
        let bad = |line, expected| KeyChangeError::Line { number, line, expected };
        let wrong = |source| KeyChangeError::Note { number, source };
        let note = Note::parse(bytes).map_err(wrong)?;
        let mut lines = note.text().split('\n');
        let mut line = || lines.next().unwrap_or_default();
        if line() != FIRST {
            return Err(bad(1, FIRST));
        }
        let from: VerifierKey = line().parse().map_err(|_| bad(2, "a key"))?;
        let to: VerifierKey = line().parse().map_err(|_| bad(3, "a key"))?;
        let last_size = line().parse().map_err(|_| bad(4, "a number of entries"))?;
        let change = Self { from, to, last_size };
        if change.from.name() != change.to.name() || change.from == change.to {
            return Err(bad(3, "another key of the same ledger"));
        }
        // Numbers have a second spelling, and there may be more lines.
        if change.text() != note.text() {
            return Err(bad(4, "a number of entries, and the last line"));
        }
        if note.signatures().len() != 1 {
            return Err(wrong(NoteError::NotSigned));
        }
        note.verify([&change.from]).map_err(wrong)?;
        Ok(change)
    }
}

/// Key changes that follow one another, verified. Each proves the next key to whoever believes the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChain(Vec<KeyChange>);

impl KeyChain {
    /// Reads a chain, of at least one key change; it has no second spelling. Each change is verified by its own `from`:
    /// whether that one is to be believed, [`KeyChain::from_key`] tells.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyChangeError> {
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').take(LINES * MOST_CHANGES + 1).collect();
        let is_whole =
            bytes.ends_with(b"\n") && lines.len().is_multiple_of(LINES) && lines.len() <= LINES * MOST_CHANGES;
        if !is_whole {
            return Err(KeyChangeError::Form);
        }
        let mut chain = Self::default();
        for (number, note) in lines.chunks(LINES).enumerate() {
            chain.push(KeyChange::open(&note.concat(), number + 1)?)?;
        }
        Ok(chain)
    }

    /// Adds a change; it must begin where the chain ends, with a key that was never there before.
    fn push(&mut self, change: KeyChange) -> Result<(), KeyChangeError> {
        let number = self.0.len() + 1;
        let follows = self.0.last().is_none_or(|last| last.to == change.from && last.last_size <= change.last_size);
        if !follows || self.0.iter().any(|before| before.from == change.to) {
            return Err(KeyChangeError::Broken { number });
        }
        self.0.push(change);
        Ok(())
    }

    pub fn changes(&self) -> &[KeyChange] {
        &self.0
    }

    /// The key that the chain leads to.
    pub fn end(&self) -> Option<&VerifierKey> {
        self.0.last().map(|change| &change.to)
    }

    /// What whoever believes the key with this fingerprint is to believe: it and all that follow, each as far as it signs. Empty if
    /// the chain does not have it.
    pub fn from_key(&self, fingerprint: Hash) -> Vec<KnownKey> {
        let begins = self.0.iter().skip_while(|change| change.from.fingerprint() != fingerprint);
        let mut known: Vec<KnownKey> =
            begins.map(|change| KnownKey { key: change.from.clone(), last_size: Some(change.last_size) }).collect();
        if let Some(end) = self.end().filter(|end| !known.is_empty() || end.fingerprint() == fingerprint) {
            known.push(KnownKey { key: end.clone(), last_size: None });
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::note::tests::signer;
    use super::*;

    const ORIGIN: &str = "bastion.example.com/ledger";

    fn change(from: u8, to: u8, last_size: u64) -> String {
        let (old, new) = (signer(ORIGIN, from), signer(ORIGIN, to));
        KeyChange { from: old.public(), to: new.public(), last_size }.sign(&old).unwrap().to_string()
    }

    fn fingerprint(secret: u8) -> Hash {
        signer(ORIGIN, secret).public().fingerprint()
    }

    fn parse(text: &str) -> Result<KeyChain, KeyChangeError> {
        KeyChain::parse(text.as_bytes())
    }

    #[test]
    fn whoever_knows_one_key_of_a_chain_knows_those_that_follow_and_none_before() {
        let chain = parse(&[change(1, 2, 10), change(2, 3, 25)].concat()).unwrap();

        let known = |secret| {
            let known = chain.from_key(fingerprint(secret)).into_iter();
            known.map(|known| (known.key.fingerprint(), known.last_size)).collect::<Vec<_>>()
        };
        let all = [(fingerprint(1), Some(10)), (fingerprint(2), Some(25)), (fingerprint(3), None)];
        assert_eq!(known(1), all);
        assert_eq!(known(2), all[1..]);
        assert_eq!(known(3), all[2..]);
        assert_eq!(known(4), []);
        assert_eq!(chain.end(), Some(&signer(ORIGIN, 3).public()));
    }

    #[test]
    fn what_we_sign_is_what_another_program_signed() {
        let theirs = include_str!("../../../tests/fuzz/corpus/note/key_change");
        assert_eq!(change(7, 8, 3), theirs);
    }

    #[test]
    fn changes_that_do_not_follow_one_another_are_no_chain() {
        for (text, number) in [
            ([change(1, 2, 10), change(3, 4, 25)].concat(), 2),
            ([change(1, 2, 10), change(2, 3, 9)].concat(), 2),
            ([change(1, 2, 10), change(2, 1, 25)].concat(), 2),
            ([change(2, 3, 25), change(1, 2, 10)].concat(), 2),
        ] {
            assert_eq!(parse(&text), Err(KeyChangeError::Broken { number }));
        }
        assert_eq!(parse(""), Err(KeyChangeError::Form));
        assert_eq!(parse(&format!("{}\n", change(1, 2, 10))), Err(KeyChangeError::Form));
    }

    #[test]
    fn a_change_is_signed_by_the_old_key_and_by_no_other() {
        let (old, new) = (signer(ORIGIN, 1), signer(ORIGIN, 2));
        let change = KeyChange { from: old.public(), to: new.public(), last_size: 10 };
        assert!(change.sign(&new).is_err());
        let by_another = Note::sign(&change.text(), &[&new]).unwrap().to_string();
        assert!(matches!(parse(&by_another), Err(KeyChangeError::Note { number: 1, .. })));
        let by_both = Note::sign(&change.text(), &[&old, &new]).unwrap().to_string();
        assert_eq!(parse(&by_both), Err(KeyChangeError::Form));
    }

    #[test]
    fn a_key_of_another_ledger_does_not_follow() {
        let (old, new) = (signer(ORIGIN, 1), signer("elsewhere.example.com/ledger", 2));
        let text = KeyChange { from: old.public(), to: new.public(), last_size: 10 }.sign(&old).unwrap().to_string();
        assert!(matches!(parse(&text), Err(KeyChangeError::Line { line: 3, .. })));
    }

    #[test]
    fn numbers_have_one_spelling() {
        let old = signer(ORIGIN, 1);
        let text = format!("{FIRST}\n{}\n{}\n+7\n", old.public(), signer(ORIGIN, 2).public());
        let note = Note::sign(&text, &[&old]).unwrap().to_string();
        assert!(matches!(parse(&note), Err(KeyChangeError::Line { line: 4, .. })));
    }

    proptest! {
        #[test]
        fn a_chain_with_one_byte_changed_is_refused(place: prop::sample::Index, byte: u8) {
            let mut bytes = [change(1, 2, 10), change(2, 3, 25)].concat().into_bytes();
            let place = place.index(bytes.len());
            prop_assume!(bytes[place] != byte);
            bytes[place] = byte;
            prop_assert!(KeyChain::parse(&bytes).is_err());
        }

        #[test]
        fn whatever_the_bytes_are_nothing_breaks(bytes: Vec<u8>) {
            prop_assert!(KeyChain::parse(&bytes).is_err());
        }
    }
}
