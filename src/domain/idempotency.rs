//! What a client names a request with, so that sending it twice does it once: the value of `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header-07 §2.1), a string of structured fields (RFC 9651 §3.3.3). A bare word is taken
//! too, because that is what many clients send.

use std::fmt;

/// The most characters of a key.
pub const MOST_CHARACTERS: usize = 255;

/// 1 to 255 visible ASCII characters, without the quotes that they may come in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Why the value of `Idempotency-Key` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyKeyError {
    #[error("an idempotency key has 1 to {MOST_CHARACTERS} characters")]
    Length,
    #[error("an idempotency key has visible ASCII characters only")]
    Character,
    #[error(
        "an idempotency key that begins with a quote ends with one, and has `\\` before each quote and `\\` within"
    )]
    Quotes,
}

impl IdempotencyKey {
    /// Reads the value of the header, quoted or bare.
    pub fn parse(value: &[u8]) -> Result<Self, IdempotencyKeyError> {
        let word = match value {
            [b'"', within @ .., b'"'] => unescaped(within)?,
            [b'"', ..] => return Err(IdempotencyKeyError::Quotes),
            bare => bare.to_vec(),
        };
        if !(1..=MOST_CHARACTERS).contains(&word.len()) {
            return Err(IdempotencyKeyError::Length);
        }
        if !word.iter().all(u8::is_ascii_graphic) {
            return Err(IdempotencyKeyError::Character);
        }
        String::from_utf8(word).map(Self).map_err(|_| IdempotencyKeyError::Character)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands between the quotes of a structured field's string.
fn unescaped(within: &[u8]) -> Result<Vec<u8>, IdempotencyKeyError> {
    let mut word = Vec::with_capacity(within.len().min(MOST_CHARACTERS));
    let mut rest = within.iter();
    while let Some(&byte) = rest.next() {
        let byte = match byte {
            b'"' => return Err(IdempotencyKeyError::Quotes),
            b'\\' => match rest.next() {
                Some(&escaped @ (b'"' | b'\\')) => escaped,
                Some(_) | None => return Err(IdempotencyKeyError::Quotes),
            },
            byte => byte,
        };
        if word.len() == MOST_CHARACTERS {
            return Err(IdempotencyKeyError::Length);
        }
        word.push(byte);
    }
    Ok(word)
}

/// As it is sent: quoted.
impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Result<String, IdempotencyKeyError> {
        IdempotencyKey::parse(value.as_bytes()).map(|key| key.as_str().to_owned())
    }

    #[test]
    fn a_key_is_the_same_quoted_and_bare() {
        let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        assert_eq!(parse(&format!("\"{uuid}\"")), Ok(uuid.to_owned()));
        assert_eq!(parse(uuid), Ok(uuid.to_owned()));
        assert_eq!(parse(r#""a\"b\\c""#), Ok(r#"a"b\c"#.to_owned()));
        assert_eq!(parse("!~"), Ok("!~".to_owned()));
        assert_eq!(parse(&"k".repeat(255)), Ok("k".repeat(255)));
        assert_eq!(parse(&format!("\"{}\"", "\\\\".repeat(255))), Ok("\\".repeat(255)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        use IdempotencyKeyError::{Character, Length, Quotes};
        for (value, expected) in [
            ("", Length),
            ("\"\"", Length),
            ("two words", Character),
            ("\"two words\"", Character),
            ("tab\t", Character),
            ("é", Character),
            ("\"", Quotes),
            ("\"open", Quotes),
            ("\"a\"b\"", Quotes),
            (r#""a\""#, Quotes),
            (r#""a\b""#, Quotes),
            ("\"a\";p=1", Quotes),
            ("\"a\", \"b\"", Quotes),
        ] {
            assert_eq!(parse(value), Err(expected), "{value}");
        }
        assert_eq!(parse(&"k".repeat(256)), Err(Length));
        assert_eq!(parse(&format!("\"{}\"", "k".repeat(256))), Err(Length));
    }

    proptest! {
        #[test]
        fn a_key_reads_back_as_it_is_sent(value in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = IdempotencyKey::parse(&value) {
                prop_assert!((1..=MOST_CHARACTERS).contains(&key.as_str().len()));
                prop_assert_eq!(IdempotencyKey::parse(key.to_string().as_bytes()), Ok(key));
            }
        }

        #[test]
        fn every_visible_word_is_a_key(word in "[!-~]{1,255}") {
            let quoted = format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse(&quoted), Ok(word));
        }
    }
}
