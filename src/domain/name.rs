//! Names that people give and type: of persons, targets and logins. They travel in SSH user names,
//! file names and logs, so each kind has a small alphabet, checked once, here.
//!
//! None of them may hold `+`, `@` or white space: those separate the parts of an SSH user name
//! (see [`crate::login_name`]).

use std::fmt;
use std::str::FromStr;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {kind} must not be empty")]
    Empty { kind: &'static str },
    /// Longer than the kind allows, in bytes.
    #[error("a {kind} has at most {most} characters, this one has {length}")]
    TooLong { kind: &'static str, most: usize, length: usize },
    /// A character outside the alphabet, or a bad first character.
    #[error("a {kind} may not {place} {character:?}: it takes {alphabet}")]
    Character { kind: &'static str, place: &'static str, character: char, alphabet: &'static str },
}

fn check(
    text: &str,
    kind: &'static str,
    most: usize,
    alphabet: &'static str,
    first: fn(char) -> bool,
    rest: fn(char) -> bool,
) -> Result<(), NameError> {
    let Some(head) = text.chars().next() else {
        return Err(NameError::Empty { kind });
    };
    if text.len() > most {
        return Err(NameError::TooLong { kind, most, length: text.len() });
    }
    if !first(head) {
        return Err(NameError::Character { kind, place: "start with", character: head, alphabet });
    }
    match text.chars().find(|&character| !rest(character)) {
        Some(character) => Err(NameError::Character { kind, place: "contain", character, alphabet }),
        None => Ok(()),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $most:literal, $alphabet:literal, $first:expr, $rest:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $kind, $most, $alphabet, $first, $rest)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// The name of a person or robot: lower case, so that two people never differ by case alone.
    PrincipalName, "person's name", 64, "lower-case letters, digits, `.`, `_` and `-`",
        |c| c.is_ascii_lowercase() || c.is_ascii_digit(),
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    /// The name or an alias of a target: what a host name or an IPv4 address may look like, lower case.
    TargetName, "target's name", 128, "lower-case letters, digits, `.`, `_` and `-`",
        |c| c.is_ascii_lowercase() || c.is_ascii_digit(),
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    /// The name of a template for grants.
    TemplateName, "template's name", 64, "lower-case letters, digits, `.`, `_` and `-`",
        |c| c.is_ascii_lowercase() || c.is_ascii_digit(),
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    /// An account on a target.
    Login, "login", 64, "letters, digits, `.`, `_`, `-` and `$`",
        |c| c.is_ascii_alphanumeric() || c == '_',
        |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '$');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_confuse_an_ssh_user_name_are_refused() {
        for text in ["", "a+b", "a@b", "a b", "-a", "Alice", "a\n", "é", &"a".repeat(65)] {
            assert!(text.parse::<PrincipalName>().is_err(), "{text:?}");
        }
        assert_eq!("li.wei".parse::<PrincipalName>().map(|name| name.to_string()), Ok("li.wei".to_owned()));
    }

    #[test]
    fn the_error_names_the_character_and_the_alphabet() {
        let error = "we b".parse::<TargetName>().unwrap_err().to_string();
        assert_eq!(error, "a target's name may not contain ' ': it takes lower-case letters, digits, `.`, `_` and `-`");
    }

    #[test]
    fn windows_and_service_accounts_are_logins() {
        for text in ["root", "Administrator", "svc_backup$", "_apt", "deploy.v2"] {
            assert!(text.parse::<Login>().is_ok(), "{text:?}");
        }
    }
}
