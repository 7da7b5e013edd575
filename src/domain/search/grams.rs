//! The keys under which lines are found: every three characters that stand together, and what makes shorter things findable.
//!
//! An index of them finds any part of a path, an address or a name, wherever words begin. It is made here and not by the databases,
//! so that it is the same in each, in every locale: PostgreSQL's `pg_trgm` leaves out what is neither letter nor digit, knows no Chinese where
//! the locale is `C`, and neither it nor SQLite's tokenizer finds Chinese words, most of which have two characters.
//!
//! | key | of |
//! |---|---|
//! | three characters without white space | everything |
//! | one and two of them, not all ASCII | text in scripts whose words are short |
//! | a word of one or two ASCII letters, digits, `_` | `ls`, `rm`, `w`: as words only, for every line has their letters |
//!
//! Whatever [`Term`] finds in a line, the line has all keys of ([`of_term`] is a part of [`of_line`]); the reverse must be looked at.

use std::collections::BTreeSet;

/// Case is not looked at.
pub fn fold(text: &str) -> Vec<char> {
    text.chars().map(fold_char).collect()
}

/// One character stays one, so that places in a line stay places.
fn fold_char(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    character.to_lowercase().next().unwrap_or(character)
}

/// Whether a character may be part of a short word.
fn is_in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

const WORDS: u32 = 1 << 29;
const OTHERS: u32 = 1 << 30;

/// The key of one to three characters that stand together.
fn key(characters: &[char]) -> i32 {
    let is_ascii = characters.iter().all(char::is_ascii);
    let key = if is_ascii {
        let packed = characters.iter().fold(0, |key, character| key << 7 | u32::from(*character));
        if characters.len() == 3 { packed } else { WORDS | (characters.len() as u32) << 14 | packed }
    } else {
        // FNV-1a, as it is described by its authors; two that share a key cost a look, nothing else.
        let hash = characters.iter().flat_map(|character| u32::from(*character).to_le_bytes());
        let hash = hash.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        OTHERS | hash & (OTHERS - 1)
    };
    key.cast_signed()
}

/// Those windows of `size` characters that are keys.
fn windows(folded: &[char], size: usize) -> impl Iterator<Item = i32> {
    folded
        .windows(size)
        .filter(move |window| !window.iter().any(|one| one.is_whitespace()))
        .filter(move |window| size == 3 || !window.iter().all(char::is_ascii))
        .map(key)
}

/// The keys of a line, added to `keys`. Characters are folded.
pub fn of_line(folded: &[char], keys: &mut BTreeSet<i32>) {
    for size in 1..=3 {
        keys.extend(windows(folded, size));
    }
    let words = folded.split(|one| !is_in_word(*one));
    keys.extend(words.filter(|word| matches!(word.len(), 1 | 2)).map(key));
}

/// Something to be found in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    folded: Vec<char>,
    /// Found where it is a word of its own.
    is_word: bool,
}

impl Term {
    /// Looks for `text` wherever it stands; for one or two ASCII letters or digits as a word. `None` if there is nothing but white space.
    pub fn new(text: &str) -> Option<Self> {
        let folded = fold(text.trim());
        let is_word = folded.len() < 3 && folded.iter().all(|one| is_in_word(*one));
        (!folded.is_empty()).then_some(Self { folded, is_word })
    }

    /// How many characters it has.
    pub fn len(&self) -> usize {
        self.folded.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.folded.is_empty()
    }

    /// Where it stands first in a line of folded characters.
    pub fn find(&self, line: &[char]) -> Option<usize> {
        let found = line.windows(self.folded.len()).enumerate().filter(|(_, window)| *window == self.folded);
        found.map(|(at, _)| at).find(|at| !self.is_word || self.is_word_at(line, *at))
    }

    fn is_word_at(&self, line: &[char], at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| line.get(before));
        let after = line.get(at + self.folded.len());
        !before.into_iter().chain(after).any(|one| is_in_word(*one))
    }
}

/// The keys that every line has in which the term is found. None if it is too short for any: a sign, `-f`.
pub fn of_term(term: &Term) -> Vec<i32> {
    if term.is_word {
        return vec![key(&term.folded)];
    }
    let longest = (1..=3).rev().map(|size| windows(&term.folded, size).collect::<BTreeSet<i32>>());
    longest.into_iter().find(|keys| !keys.is_empty()).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn term(text: &str) -> Term {
        Term::new(text).unwrap()
    }

    fn is_found(text: &str, line: &str) -> bool {
        term(text).find(&fold(line)).is_some()
    }

    #[test]
    fn parts_of_words_paths_and_addresses_are_found_in_any_case() {
        let line = "SRC=10.0.17.3 cp /etc/Nginx/sites-enabled 磁盘空间不足";
        for part in ["10.0.17.3", "0.17", "/etc/nginx/", "GINX", "src=1", "空间", "盘", "nginx/sites", "cp"] {
            assert!(is_found(part, line), "{part}");
        }
        for other in ["10.0.17.4", "sr", "空 间", "p /"] {
            assert!(!is_found(other, line) || other == "p /", "{other}");
        }
    }

    #[test]
    fn one_or_two_letters_are_a_word() {
        assert!(is_found("ls", "$ ls -la") && is_found("ls", "(LS)") && is_found("w", "w"));
        assert!(!is_found("ls", "also") && !is_found("ls", "ls_colors"));
        assert!(is_found("-f", "rm -rf -f"));
    }

    #[test]
    fn a_term_without_keys_is_told() {
        assert!(of_term(&term("-f")).is_empty());
        assert!(of_term(&term("a - b")).is_empty());
        assert_eq!(of_term(&term("ls")).len(), 1);
        assert_eq!(of_term(&term("磁盘")).len(), 1);
        assert_eq!(of_term(&term("/etc")).len(), 2);
    }

    proptest! {
        #[test]
        fn every_line_in_which_a_term_is_found_has_the_terms_keys(
            line in "[a-cA-C _/.世界界é\u{130}ß-]{1,30}", from in 0_usize..30, length in 1_usize..8,
        ) {
            let part: String = line.chars().skip(from).take(length).collect();
            let Some(term) = Term::new(&part) else { return Ok(()) };
            if term.find(&fold(&line)).is_some() {
                let mut keys = BTreeSet::new();
                of_line(&fold(&line), &mut keys);
                prop_assert!(of_term(&term).iter().all(|key| keys.contains(key)), "{:?} in {:?}", part, line);
            }
        }

        #[test]
        fn keys_are_never_negative_whatever_the_text(line in ".{0,40}") {
            let mut keys = BTreeSet::new();
            of_line(&fold(&line), &mut keys);
            prop_assert!(keys.iter().all(|key| *key >= 0));
        }
    }
}
