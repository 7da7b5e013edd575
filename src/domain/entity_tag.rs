//! Entity tags (RFC 9110 §8.8.3): in which state somebody knows a thing, so that they are not sent it again, and change nothing that they
//! have not seen.

use std::fmt;

use crate::hash::Hash;

/// The most tags that one condition may name.
pub const MOST_TAGS: usize = 64;

/// One tag. What is between its quotes has no meaning but to be the same or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag {
    is_weak: bool,
    opaque: Vec<u8>,
}

/// What `If-Match` (RFC 9110 §13.1.1) or `If-None-Match` (§13.1.2) names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `*`: whatever there is.
    Any,
    /// At least one.
    These(Vec<EntityTag>),
}

/// Why a condition is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    #[error("neither `*` nor a list of entity tags, each in quotes")]
    Malformed,
    #[error("more than {MOST_TAGS} entity tags")]
    TooMany,
}

impl EntityTag {
    /// The strong tag of these bytes: another byte, another tag.
    pub fn of(bytes: &[u8]) -> Self {
        Self { is_weak: false, opaque: Hash::of(bytes).to_string().into_bytes() }
    }

    /// Whether both are strong and the same (§8.8.3.2).
    pub fn is_strongly(&self, other: &Self) -> bool {
        !self.is_weak && !other.is_weak && self.opaque == other.opaque
    }

    /// Whether both are the same but for their strength (§8.8.3.2).
    pub fn is_weakly(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// The tag that `bytes` begin with, and what follows it.
    fn split_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (is_weak, rest) = match bytes.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let rest = rest.strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let (opaque, rest) = rest.split_at_checked(end)?;
        let is_tag = opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..));
        is_tag.then(|| (Self { is_weak, opaque: opaque.to_vec() }, rest.strip_prefix(b"\"").unwrap_or_default()))
    }
}

/// As it is sent; ours are ASCII.
impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weak = if self.is_weak { "W/" } else { "" };
        write!(f, "{weak}\"{}\"", String::from_utf8_lossy(&self.opaque))
    }
}

impl Condition {
    /// Reads the value of the header; of several lines, joined by commas.
    pub fn parse(value: &[u8]) -> Result<Self, ConditionError> {
        let mut rest = value.trim_ascii();
        if rest == b"*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        // A list may have empty places (§5.6.1.2).
        while !rest.is_empty() {
            if let Some(next) = rest.strip_prefix(b",") {
                rest = next.trim_ascii_start();
                continue;
            }
            if tags.len() == MOST_TAGS {
                return Err(ConditionError::TooMany);
            }
            let (tag, next) = EntityTag::split_from(rest).ok_or(ConditionError::Malformed)?;
            tags.push(tag);
            rest = next.trim_ascii_start();
            if !(rest.is_empty() || rest.starts_with(b",")) {
                return Err(ConditionError::Malformed);
            }
        }
        if tags.is_empty() { Err(ConditionError::Malformed) } else { Ok(Self::These(tags)) }
    }

    /// Whether it names this state, as a change has to (§13.1.1).
    pub fn is_strongly(&self, tag: &EntityTag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|known| known.is_strongly(tag)),
        }
    }

    /// Whether it names this state, for whoever need not be sent it again (§13.1.2).
    pub fn is_weakly(&self, tag: &EntityTag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|known| known.is_weakly(tag)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(is_weak: bool, opaque: &str) -> EntityTag {
        EntityTag { is_weak, opaque: opaque.as_bytes().to_vec() }
    }

    #[test]
    fn a_condition_is_any_or_a_list_of_tags() {
        assert_eq!(Condition::parse(b" * "), Ok(Condition::Any));
        let two = Condition::These(vec![tag(false, "a,b"), tag(true, "")]);
        assert_eq!(Condition::parse(b"\"a,b\", W/\"\""), Ok(two.clone()));
        assert_eq!(Condition::parse(b",\"a,b\" ,, W/\"\" ,"), Ok(two));
        let malformed: [&[u8]; 9] =
            [b"", b",", b"a", b"\"a", b"\"a\"\"b\"", b"\"a\" \"b\"", b"w/\"a\"", b"\"a b\"", b"*, \"a\""];
        for value in malformed {
            assert_eq!(Condition::parse(value), Err(ConditionError::Malformed), "{value:?}");
        }
        assert_eq!(Condition::parse("\"a\",".repeat(65).as_bytes()), Err(ConditionError::TooMany));
    }

    #[test]
    fn a_weak_tag_is_enough_to_be_spared_an_answer_and_not_for_a_change() {
        let now = EntityTag::of(b"{}");
        let strong = Condition::parse(now.to_string().as_bytes()).unwrap();
        let weak = Condition::parse(format!("W/{now}").as_bytes()).unwrap();
        let other = Condition::parse(EntityTag::of(b"[]").to_string().as_bytes()).unwrap();

        assert_eq!((strong.is_strongly(&now), strong.is_weakly(&now)), (true, true));
        assert_eq!((weak.is_strongly(&now), weak.is_weakly(&now)), (false, true));
        assert_eq!((other.is_strongly(&now), other.is_weakly(&now)), (false, false));
        assert_eq!((Condition::Any.is_strongly(&now), Condition::Any.is_weakly(&now)), (true, true));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Condition::These(tags)) = Condition::parse(&value) {
                prop_assert!((1..=MOST_TAGS).contains(&tags.len()));
            }
        }

        #[test]
        fn a_list_reads_back(tags in prop::collection::vec((any::<bool>(), "[!#-~]{0,20}"), 1..8)) {
            let tags: Vec<EntityTag> = tags.iter().map(|(weak, opaque)| tag(*weak, opaque)).collect();
            let list: Vec<String> = tags.iter().map(ToString::to_string).collect();
            prop_assert_eq!(Condition::parse(list.join(" , ").as_bytes()), Ok(Condition::These(tags)));
        }
    }
}
