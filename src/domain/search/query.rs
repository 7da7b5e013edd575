//! What somebody looks for: `nginx "permission denied"`, `cmd:"rm -rf"`, `file:/etc/shadow`.
//!
//! Words are looked for wherever they stand, in any case, and all of them must be in one line. Quotation marks keep words together.
//! `cmd:`, `text:` and `file:` say in what to look. No other character means anything.

use std::str::FromStr;

use super::Kind;
use super::grams::{self, Term};

/// The longest query, in characters.
pub const LONGEST: usize = 200;

/// The most words.
pub const MOST_TERMS: usize = 8;

/// The most keys that an index is asked for; more would find no less.
const MOST_KEYS: usize = 32;

const KINDS: [(&str, Kind); 3] = [("cmd:", Kind::Command), ("text:", Kind::Screen), ("file:", Kind::File)];

/// Why a query is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("say what to look for")]
    Empty,
    #[error("a search has at most {LONGEST} characters")]
    TooLong,
    #[error("a search has at most {MOST_TERMS} words; put quotation marks around words that stand together")]
    TooMany,
    #[error("a search has no control characters")]
    Control,
    #[error("`{0}` is too short to look for: take three characters, or a whole word")]
    TooShort(String),
    #[error("one line is either a command, or text, or a file: take one of `cmd:`, `text:` and `file:`")]
    Kinds,
}

/// What to look for: all of it in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    terms: Vec<Term>,
    kind: Option<Kind>,
}

/// Where a query was found in a line, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub from: usize,
    pub length: usize,
}

impl Query {
    /// In what to look; everywhere if it is not said.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Keys that every line has in which this is found: at least one.
    pub fn keys(&self) -> Vec<i32> {
        let mut keys: Vec<i32> = self.terms.iter().flat_map(grams::of_term).collect();
        keys.sort_unstable();
        keys.dedup();
        let step = keys.len().div_ceil(MOST_KEYS).max(1);
        keys.into_iter().step_by(step).collect()
    }

    /// Where its longest word stands in a line that has all of them.
    pub fn find(&self, line: &str) -> Option<Place> {
        let folded = grams::fold(line);
        let mut longest: Option<Place> = None;
        for term in &self.terms {
            let place = Place { from: term.find(&folded)?, length: term.len() };
            longest = longest.filter(|longest| longest.length >= place.length).or(Some(place));
        }
        longest
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        if text.chars().nth(LONGEST).is_some() {
            return Err(QueryError::TooLong);
        }
        if text.chars().any(|one| one.is_control() && !one.is_whitespace()) {
            return Err(QueryError::Control);
        }
        let mut query = Self { terms: Vec::new(), kind: None };
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if let Some((word, kind)) = KINDS.iter().find(|(word, _)| rest.starts_with(word)) {
                if query.kind.is_some_and(|before| before != *kind) {
                    return Err(QueryError::Kinds);
                }
                query.kind = Some(*kind);
                rest = rest.strip_prefix(word).unwrap_or(rest);
            }
            let (word, behind) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
            };
            query.terms.extend(Term::new(word));
            rest = behind.trim_start();
        }
        if query.terms.is_empty() {
            return Err(QueryError::Empty);
        }
        if query.terms.len() > MOST_TERMS {
            return Err(QueryError::TooMany);
        }
        if query.keys().is_empty() {
            return Err(QueryError::TooShort(text.trim().to_owned()));
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(text: &str) -> Query {
        text.parse().unwrap()
    }

    fn is_found(query: &str, line: &str) -> bool {
        self::query(query).find(line).is_some()
    }

    #[test]
    fn all_words_must_be_in_the_line_and_quotation_marks_keep_them_together() {
        let line = "nginx: [emerg] open() \"/etc/nginx/nginx.conf\" failed (13: Permission denied)";
        assert!(is_found("denied NGINX", line) && is_found("\"permission denied\" 13", line));
        assert!(!is_found("\"denied permission\"", line) && !is_found("denied apache", line));
        assert!(is_found("text:denied", line) && is_found("\"permission denied", line));
    }

    #[test]
    fn where_to_look_is_said_once() {
        assert_eq!(query("cmd:\"rm -rf\" cmd:/var").kind(), Some(Kind::Command));
        assert_eq!(query("file:/etc/shadow").kind(), Some(Kind::File));
        assert_eq!(query("\"cmd:x\"").kind(), None);
        assert_eq!("cmd:rm text:denied".parse::<Query>(), Err(QueryError::Kinds));
    }

    #[test]
    fn signs_of_other_languages_are_characters() {
        for text in ["100%", "a_b", r"C:\x", "it's", "a* OR NEAR(b)", "-- drop", "{x} : ^y", "\u{1f980}\u{1f980}"] {
            assert!(is_found(text, &format!("before {text} behind")), "{text}");
        }
        assert!(!is_found("a_b", "axb") && !is_found("100%", "1000"));
    }

    #[test]
    fn what_cannot_be_looked_for_is_told() {
        let error = |text: &str| text.parse::<Query>().unwrap_err();
        assert_eq!([error(""), error("  "), error("cmd:"), error("\"\"")], [const { QueryError::Empty }; 4]);
        assert_eq!([error("a\0bc"), error("\x1b[2Jabc")], [const { QueryError::Control }; 2]);
        assert_eq!(error(&"x".repeat(10_240)), QueryError::TooLong);
        assert_eq!(error("one two three four five six seven eight nine"), QueryError::TooMany);
        assert_eq!(error("-f"), QueryError::TooShort("-f".to_owned()));
        assert!(is_found("-f rm", "rm -f x"), "what is too short alone is looked at beside more");
    }

    #[test]
    fn the_longest_word_is_shown() {
        assert_eq!(query("rm /var/lib").find("$ rm -rf /var/lib/x"), Some(Place { from: 9, length: 8 }));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_and_what_it_reads_has_few_keys(text in ".{0,250}", line in ".{0,60}") {
            if let Ok(query) = text.parse::<Query>() {
                prop_assert!((1..=MOST_KEYS).contains(&query.keys().len()));
                if let Some(place) = query.find(&line) {
                    prop_assert!(place.length > 0 && place.from + place.length <= line.chars().count());
                }
            }
        }

        #[test]
        fn any_part_of_a_line_finds_it(line in "[ -!#-~世界]{3,60}", from in 0_usize..50, length in 3_usize..12) {
            let part: String = line.chars().skip(from).take(length).collect();
            // Less is found as a word.
            prop_assume!(part.trim().chars().count() > 2);
            if let Ok(query) = format!("\"{part}\"").parse::<Query>() {
                prop_assert!(query.find(&line).is_some(), "{:?} in {:?}", part, line);
                let mut keys = std::collections::BTreeSet::new();
                grams::of_line(&grams::fold(&line), &mut keys);
                prop_assert!(query.keys().iter().all(|key| keys.contains(key)));
            }
        }
    }
}
