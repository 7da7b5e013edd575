//! Identifiers. Each kind of thing has its own type, so a grant's id cannot be passed for a session's.
//!
//! An id is a UUID (version 7 when it is made by this program, so that ids sort by time of creation).
//! People and logs see it as a one-letter prefix and 26 characters of lower-case Crockford base 32:
//! `g-01k9zq3b7m5e8v2x4c6n0t1ydh`. Both that form and the UUID's own are accepted as input.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The prefix is missing or belongs to another kind of id.
    #[error("`{text}` is not an id of a {kind} (expected `{prefix}-` and 26 characters)")]
    Prefix { text: String, kind: &'static str, prefix: char },
    /// The part after the prefix is not 26 characters of Crockford base 32.
    #[error("`{text}` is not a complete id of a {kind}")]
    Digits { text: String, kind: &'static str },
}

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 128 bits in groups of five; the first digit carries the top three bits only.
const LENGTH: usize = 26;

fn encode(uuid: Uuid) -> String {
    let mut value = uuid.as_u128();
    let mut text = [b'0'; LENGTH];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(value & 31) as usize];
        value >>= 5;
    }
    text.iter().map(|&digit| char::from(digit)).collect()
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != LENGTH {
        return None;
    }
    let mut value: u128 = 0;
    for (position, byte) in text.bytes().enumerate() {
        let digit = DIGITS.iter().position(|&known| known == byte.to_ascii_lowercase())?;
        if position == 0 && digit > 7 {
            return None; // more than 128 bits
        }
        value = (value << 5) | digit as u128;
    }
    Some(Uuid::from_u128(value))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made by the caller; this package has no randomness of its own.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID, as the database keeps it.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}-{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if let Ok(uuid) = Uuid::try_parse(text) {
                    return Ok(Self(uuid));
                }
                let mut parts = text.splitn(2, '-');
                let prefix = parts.next().unwrap_or_default();
                let digits = parts.next().filter(|_| prefix.chars().eq([$prefix]));
                let Some(digits) = digits else {
                    return Err(IdError::Prefix { text: text.to_owned(), kind: $kind, prefix: $prefix });
                };
                decode(digits).map(Self).ok_or_else(|| IdError::Digits { text: text.to_owned(), kind: $kind })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
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

ids! {
    /// A person or a robot that logs in.
    PrincipalId, 'p', "person";
    /// A host and port with its accounts.
    TargetId, 't', "target";
    /// A time-boxed permission.
    GrantId, 'g', "grant";
    /// One permitted connection to one target.
    SessionId, 's', "session";
    /// What one session channel did.
    RecordingId, 'r', "recording";
    /// An audit event. A denied peer is shown this one as its reference.
    EventId, 'e', "event";
    /// An API token (never the token itself).
    TokenId, 'k', "token";
    /// Somebody's wish for access.
    RequestId, 'q', "request";
    /// A deletion that was asked for.
    DeletionId, 'd', "deletion";
    /// What holds recordings back from deletion.
    HoldId, 'h', "legal hold";
    /// Somebody's following a session live.
    WatchId, 'w', "watch";

    /// One browser in which a person is signed in.
    WebSessionId, 'b', "web session";

    /// A passkey of a person.
    PasskeyId, 'y', "passkey";

    /// An invite (never its token).
    InviteId, 'n', "invite";

    /// A sealed envelope that opens one grant once.
    EnvelopeId, 'x', "break-glass envelope";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_id_reads_back_from_its_text(value: u128) {
            let id = SessionId::from_uuid(Uuid::from_u128(value));
            prop_assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
            prop_assert_eq!(id.as_uuid().to_string().parse::<SessionId>(), Ok(id));
        }

        #[test]
        fn ids_sort_as_their_texts_do(a: u128, b: u128) {
            let (a, b) = (GrantId::from_uuid(Uuid::from_u128(a)), GrantId::from_uuid(Uuid::from_u128(b)));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<GrantId>();
        }
    }

    #[test]
    fn an_id_of_another_kind_is_refused_by_name() {
        let session = SessionId::from_uuid(Uuid::from_u128(7)).to_string();
        let error = session.parse::<GrantId>().unwrap_err();
        assert!(error.to_string().contains("is not an id of a grant"), "{error}");
    }
}
