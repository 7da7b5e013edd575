//! Paths on a target: bytes, resolved without asking the target, and the patterns that rules hold against them.
//!
//! `.`, `..`, doubled and trailing slashes are resolved by their letters alone. A path that does not begin with `/` begins
//! at the login's home; where that is not known, the path stays *home-relative* and can only be matched by patterns
//! that begin with `~/`. Nothing is decoded: a target's file system compares bytes, and so do we.
//!
//! What letters cannot tell is where a symbolic link on the target leads: see [`crate::files`].

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use globset::{Candidate, GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// The longest path that is accepted, in bytes: `PATH_MAX` of Linux.
pub const MOST_PATH: usize = 4096;

/// A path as bytes. Its text escapes what is not plainly readable (`\xNN`, `\\`), so that it is safe on a terminal and in a
/// log, and reads back to the same bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FilePath(pub Vec<u8>);

/// The text has a backslash that is not followed by `\` or `xNN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a backslash in a path's text must be followed by another one or by `x` and two hexadecimal digits")]
pub struct BadEscape;

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|b| write!(f, "\\x{b:02x}"));
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    // Letters and digits of any script; no marks, spaces or controls that could change what is read.
                    ' '..='~' => f.write_char(c)?,
                    c if c.is_alphanumeric() => f.write_char(c)?,
                    c => escaped(f, c.encode_utf8(&mut [0; 4]).as_bytes())?,
                }
            }
            escaped(f, chunk.invalid())?;
        }
        Ok(())
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl FromStr for FilePath {
    type Err = BadEscape;

    fn from_str(text: &str) -> Result<Self, BadEscape> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            match rest {
                [b'\\', tail @ ..] => {
                    bytes.push(b'\\');
                    rest = tail;
                }
                [b'x', high, low, tail @ ..] => {
                    let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(BadEscape);
                    bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                    rest = tail;
                }
                _ => return Err(BadEscape),
            }
        }
        Ok(Self(bytes))
    }
}

impl From<&[u8]> for FilePath {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for FilePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a path means no place that a rule could judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum PathError {
    #[error("a path must not hold a NUL byte")]
    Nul,
    #[error("a path must not be longer than {MOST_PATH} bytes")]
    TooLong,
    #[error("the path leaves the login's home by `..`, and the bastion does not know where that is")]
    AboveHome,
}

/// Where a path leads by its letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// From the root; begins with `/`, and ends with one only if it is the root.
    Absolute(Vec<u8>),
    /// From the login's home, which is not known; empty for the home itself, and never begins with `/`.
    InHome(Vec<u8>),
}

impl Place {
    /// Resolves `path`. `home` is the login's home on the target as an absolute path, if it is known.
    pub fn of(path: &[u8], home: Option<&[u8]>) -> Result<Self, PathError> {
        if path.len() > MOST_PATH {
            return Err(PathError::TooLong);
        }
        if path.contains(&0) {
            return Err(PathError::Nul);
        }
        let absolute = path.first() == Some(&b'/');
        let from_home = home.filter(|_| !absolute);
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in from_home.unwrap_or_default().split(|&b| b == b'/').chain(path.split(|&b| b == b'/')) {
            match part {
                b"" | b"." => {}
                // Above the root is the root.
                b".." if parts.pop().is_none() && !absolute && home.is_none() => return Err(PathError::AboveHome),
                b".." => {}
                name => parts.push(name),
            }
        }
        let joined = parts.join(&b'/');
        Ok(if absolute || from_home.is_some() {
            Place::Absolute([b"/", joined.as_slice()].concat())
        } else {
            Place::InHome(joined)
        })
    }

    /// The place as a path that means it.
    pub fn to_path(&self) -> Vec<u8> {
        match self {
            Place::InHome(path) if path.is_empty() => b".".to_vec(),
            Place::Absolute(path) | Place::InHome(path) => path.clone(),
        }
    }

    /// Whether `other` is this place or below it.
    pub fn holds(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Absolute(above), Place::Absolute(path)) | (Place::InHome(above), Place::InHome(path)) => {
                below(above, path).is_some()
            }
            _ => false,
        }
    }
}

/// What `path` is below `above`, both resolved: empty if they are the same, `None` if it is elsewhere.
fn below<'a>(above: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(above)?;
    match rest {
        [b'/', rest @ ..] => Some(rest),
        // The root ends with the slash that others lack, and the home is empty.
        _ if rest.is_empty() || above.is_empty() || above == b"/" => Some(rest),
        _ => None,
    }
}

/// Whether `path` has a component `..`: what it means then depends on links that only the target knows.
pub fn climbs(path: &[u8]) -> bool {
    path.split(|&b| b == b'/').any(|part| part == b"..")
}

/// A pattern of paths: `/srv/app/**`, `/etc/app/*.conf`, `~/upload/**`. `*` and `?` stay within a component, `**` does not;
/// `/srv/app/**` is everything below `/srv/app` and not the folder itself.
#[derive(Debug, Clone)]
pub struct PathGlob {
    text: String,
    matcher: GlobMatcher,
    /// Whether it begins at the login's home.
    in_home: bool,
    /// What stands before the first component with a wildcard: a place, resolved.
    stem: Vec<u8>,
    /// How many components a path that matches has; `None` if that varies.
    depth: Option<usize>,
}

/// Why a text is not a pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathGlobError {
    #[error("the pattern `{0}` must begin with `/` or `~/`")]
    Start(String),
    #[error("the pattern `{0}` must not hold `.`, `..` or an empty name")]
    Component(String),
    #[error("the pattern must not be longer than {MOST_PATH} bytes")]
    TooLong,
    #[error("`{pattern}` is not a pattern: {message}")]
    Pattern { pattern: String, message: String },
}

impl PathGlob {
    /// Whether the pattern means `place`.
    pub fn matches(&self, place: &Place, home: Option<&[u8]>) -> bool {
        self.relative(place, home).is_some_and(|path| self.matcher.is_match_candidate(&Candidate::from_bytes(path)))
    }

    /// Whether somebody on the way to what the pattern means has to see that `place` is there.
    pub fn passes(&self, place: &Place, home: Option<&[u8]>) -> bool {
        if self.leads_into(place, home) {
            return true;
        }
        match (self.relative(place, home), place, home) {
            (Some(path), ..) => below(path, &self.stem).is_some(),
            (None, Place::Absolute(path), Some(home)) if self.in_home => below(path, home).is_some(),
            _ => false,
        }
    }

    /// Whether what the pattern means may lie directly or deeper in the folder `place`, which is not above its stem.
    pub fn leads_into(&self, place: &Place, home: Option<&[u8]>) -> bool {
        let Some(path) = self.relative(place, home) else {
            return false;
        };
        let components = path.split(|&b| b == b'/').filter(|part| !part.is_empty()).count();
        below(&self.stem, path).is_some() && self.depth.is_none_or(|depth| components < depth)
    }

    /// `place` as the matcher wants it.
    fn relative<'a>(&self, place: &'a Place, home: Option<&[u8]>) -> Option<&'a [u8]> {
        match (self.in_home, place) {
            (false, Place::Absolute(path)) | (true, Place::InHome(path)) => Some(path),
            (true, Place::Absolute(path)) => below(home?, path),
            (false, Place::InHome(_)) => None,
        }
    }
}

impl FromStr for PathGlob {
    type Err = PathGlobError;

    fn from_str(text: &str) -> Result<Self, PathGlobError> {
        if text.len() > MOST_PATH {
            return Err(PathGlobError::TooLong);
        }
        let (in_home, names) = match (text.strip_prefix("~/"), text.strip_prefix('/')) {
            (Some(names), _) => (true, names),
            (None, Some(names)) => (false, names),
            (None, None) => return Err(PathGlobError::Start(text.to_owned())),
        };
        if names.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(PathGlobError::Component(text.to_owned()));
        }
        let bad = |message: String| PathGlobError::Pattern { pattern: text.to_owned(), message };
        let pattern = if in_home { names } else { text };
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| bad(error.kind().to_string()))?;
        let wild = |name: &&str| name.contains(['*', '?', '[', '{', '\\']);
        let fixed: Vec<&str> = names.split('/').take_while(|name| !wild(name)).collect();
        let stem = format!("{}{}", if in_home { "" } else { "/" }, fixed.join("/")).into_bytes();
        let varies = names.contains("**") || names.contains('{');
        let depth = (!varies).then(|| names.split('/').count());
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher(), in_home, stem, depth })
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for PathGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathGlob {}

impl Serialize for PathGlob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PathGlob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn absolute(path: &str) -> Place {
        Place::Absolute(path.into())
    }

    #[test]
    fn a_path_is_resolved_by_its_letters() {
        for (path, place) in [
            ("/", absolute("/")),
            ("//a//b/", absolute("/a/b")),
            ("/a/./b/../c", absolute("/a/c")),
            ("/../../etc", absolute("/etc")),
            ("a/b/..", Place::InHome("a".into())),
            (".", Place::InHome("".into())),
            ("", Place::InHome("".into())),
        ] {
            assert_eq!(Place::of(path.as_bytes(), None), Ok(place), "{path}");
        }
        assert_eq!(Place::of(b"../x", None), Err(PathError::AboveHome));
        assert_eq!(Place::of(b"../x", Some(b"/home/ann")), Ok(absolute("/home/x")));
        assert_eq!(Place::of(b"a", Some(b"/")), Ok(absolute("/a")));
        assert_eq!(Place::of(b"/srv/ok\0/x", None), Err(PathError::Nul));
        assert_eq!(Place::of(&[b'a'; MOST_PATH + 1], None), Err(PathError::TooLong));
    }

    #[test]
    fn a_pattern_means_what_is_below_it_and_nothing_beside_it() {
        let glob: PathGlob = "/srv/app/**".parse().unwrap();
        let at = |path: &str| Place::of(path.as_bytes(), None).unwrap();
        for path in ["/srv/app/x", "/srv/app//x/../y", "/srv/app/a/b", "/srv/app/new\nline"] {
            assert!(glob.matches(&at(path), None), "{path}");
        }
        for path in ["/srv/app", "/srv/application", "/srv/app/../x", "/srv", "srv/app/x", "/SRV/app/x"] {
            assert!(!glob.matches(&at(path), None), "{path}");
        }
        assert!(glob.matches(&Place::Absolute(b"/srv/app/\xff".to_vec()), None));
    }

    #[test]
    fn the_way_to_a_pattern_may_be_seen_but_not_what_lies_beside_it() {
        let glob: PathGlob = "/srv/*/conf".parse().unwrap();
        for path in ["/", "/srv", "/srv/x"] {
            assert!(glob.passes(&absolute(path), None), "{path}");
        }
        for path in ["/etc", "/srv/x/y/z", "/srvx"] {
            assert!(!glob.passes(&absolute(path), None), "{path}");
        }
        assert!(glob.leads_into(&absolute("/srv"), None) && !glob.leads_into(&absolute("/"), None));
        let glob: PathGlob = "~/up/*".parse().unwrap();
        let home = Some(b"/home/ann".as_slice());
        assert!(glob.passes(&absolute("/home"), home) && glob.passes(&absolute("/home/ann"), home));
        assert!(!glob.passes(&absolute("/home/ben"), home) && !glob.passes(&absolute("/home"), None));
    }

    #[test]
    fn a_pattern_at_home_needs_no_known_home_for_a_path_at_home() {
        let glob: PathGlob = "~/up/*".parse().unwrap();
        let relative = Place::of(b"up/x", None).unwrap();
        assert!(glob.matches(&relative, None));
        assert!(!glob.matches(&absolute("/home/ann/up/x"), None));
        assert!(glob.matches(&absolute("/home/ann/up/x"), Some(b"/home/ann")));
        assert!(!glob.matches(&absolute("/home/ben/up/x"), Some(b"/home/ann")));
        let glob: PathGlob = "/home/**".parse().unwrap();
        assert!(!glob.matches(&relative, None));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "srv/*", "/", "/a//b", "/a/../b", "/a/.", "/a/", "~", "~/", "/[", "~root/x"] {
            assert!(text.parse::<PathGlob>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_path_reads_back_from_its_text(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let path = FilePath(bytes);
            let text = path.to_string();
            prop_assert!(!text.contains(char::is_control));
            prop_assert_eq!(text.parse::<FilePath>(), Ok(path));
        }

        #[test]
        fn resolving_twice_changes_nothing_and_leaves_nothing_to_resolve(path in "[a./]{0,24}", home in any::<bool>()) {
            let home = home.then_some(b"/h/x".as_slice());
            if let Ok(place) = Place::of(path.as_bytes(), home) {
                let text = place.to_path();
                prop_assert!(!climbs(&text));
                prop_assert_eq!(Place::of(&text, home), Ok(place));
            }
        }
    }
}
