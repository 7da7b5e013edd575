//! What people write for other people: reasons, labels, tickets. It is stored for years and shown in terminals, so it is
//! short and has no control characters.

/// Why a text is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("the {what} must not be empty")]
    Empty { what: &'static str },
    #[error("the {what} may have {most} characters, this one has {length}")]
    TooLong { what: &'static str, most: usize, length: usize },
    #[error("the {what} may not contain the control character {character:?}")]
    Control { what: &'static str, character: char },
}

/// The longest reason, in characters.
pub const MOST_REASON: usize = 1000;
/// The longest label of a token, ticket, organisation, in characters.
pub const MOST_LABEL: usize = 100;

/// Trims `text` and checks that something is left of it that may be stored.
pub(crate) fn check(what: &'static str, text: &str, most: usize) -> Result<String, TextError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(TextError::Empty { what });
    }
    // Bytes first: counting the characters of a text of any length is work that a stranger could ask for.
    let length = if text.len() > most * 4 { text.len() } else { text.chars().count() };
    if length > most {
        return Err(TextError::TooLong { what, most, length });
    }
    match text.chars().find(|c| c.is_control()) {
        Some(character) => Err(TextError::Control { what, character }),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_trimmed_and_has_a_most_and_no_control_characters() {
        assert_eq!(check("reason", "  INC-7: größer ", 14), Ok("INC-7: größer".to_owned()));
        assert_eq!(check("reason", " \n", 9), Err(TextError::Empty { what: "reason" }));
        assert_eq!(check("reason", "größer", 5), Err(TextError::TooLong { what: "reason", most: 5, length: 6 }));
        assert_eq!(check("reason", "a\u{1b}[2J", 9), Err(TextError::Control { what: "reason", character: '\u{1b}' }));
    }
}
