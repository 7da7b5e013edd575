//! Which commands a grant allows without a shell, and which it flags in one.
//!
//! An [`ExecPattern`] is a boundary: with patterns there is no shell, and an "exec" request must match one as a whole. The target
//! gives the command to a shell all the same, so what a wildcard stands for is never anything that a shell takes for more
//! than itself, nor an option, nor a way out of a folder. A [`FlagPattern`] is a guard-rail: what is written otherwise passes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest pattern, in bytes.
pub const MOST_PATTERN: usize = 512;

/// The longest command that a pattern allows, in bytes.
const MOST_COMMAND: usize = 8 << 10;

/// What a grant says about commands. The default says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandRules {
    /// Where there are any, only "exec" requests that match one are allowed, and no shell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<ExecPattern>,
    /// Commands that are flagged, wherever they show up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flag: Vec<FlagPattern>,
}

impl CommandRules {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether only certain commands are allowed.
    pub fn is_restricted(&self) -> bool {
        !self.exec.is_empty()
    }

    /// Whether an "exec" request may pass, as far as the patterns go.
    pub fn allow(&self, command: &[u8]) -> bool {
        self.exec.is_empty() || self.exec.iter().any(|pattern| pattern.matches(command))
    }

    /// The first pattern that flags a command.
    pub fn flag(&self, text: &str) -> Option<&FlagPattern> {
        self.flag.iter().find(|pattern| pattern.matches(text))
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern must not be empty")]
    Empty,
    #[error("a pattern is at most {MOST_PATTERN} bytes long")]
    TooLong,
    #[error("a pattern holds no control characters and has no blanks at its ends")]
    Blank,
    #[error("a pattern starts with the program, not with a wildcard")]
    Program,
    #[error(
        "write `\\*`, `\\?` or `\\\\` for those characters themselves; a backslash before anything else means nothing"
    )]
    Escape,
}

/// A pattern of whole commands, such as `systemctl restart app-*`.
///
/// - `*` stands for one or more of `A-Z a-z 0-9 _ . , : @ % + -`; `?` for one of them.
/// - `**` stands for one or more of them and `/`.
/// - `\*`, `\?` and `\\` are those characters themselves. Everything else is itself, blanks too.
///
/// At the start of a word no wildcard stands for a `-`; and a command holds no `..`, no `.` as a whole part of a path and no
/// `//` but those that the pattern holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecPattern {
    text: String,
    tokens: Vec<Token>,
    detours: Detours,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// One character.
    One {
        slash: bool,
        dash: bool,
    },
    /// Any number of them.
    Many {
        slash: bool,
    },
}

impl Token {
    fn is_wild(self) -> bool {
        !matches!(self, Token::Byte(_))
    }

    fn fits(self, byte: u8) -> bool {
        match self {
            Token::Byte(literal) => literal == byte,
            Token::One { slash, dash } => (is_plain(byte) && (dash || byte != b'-')) || (slash && byte == b'/'),
            Token::Many { slash } => is_plain(byte) || (slash && byte == b'/'),
        }
    }
}

/// Whether no shell takes the byte for anything but itself, wherever in a word it stands.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b',' | b':' | b'@' | b'%' | b'+' | b'-')
}

/// What leads a path elsewhere, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Detours {
    parents: usize,
    here: usize,
    empty: usize,
}

impl Detours {
    fn of(bytes: &[u8]) -> Self {
        let pairs = |pair: &[u8; 2]| bytes.windows(2).filter(|window| window == pair).count();
        let is_part =
            |byte: Option<&u8>| byte.is_some_and(|byte| is_plain(*byte) && !matches!(byte, b':' | b',' | b'@'));
        let is_lone = |at: usize| {
            bytes.get(at) == Some(&b'.')
                && !is_part(at.checked_sub(1).and_then(|before| bytes.get(before)))
                && !is_part(bytes.get(at + 1))
        };
        let here = (0..bytes.len()).filter(|at| is_lone(*at)).count();
        Self { parents: pairs(b".."), here, empty: pairs(b"//") }
    }

    fn are_within(self, most: Self) -> bool {
        self.parents <= most.parents && self.here <= most.here && self.empty <= most.empty
    }
}

impl ExecPattern {
    /// Whether the whole command matches.
    pub fn matches(&self, command: &[u8]) -> bool {
        command.len() <= MOST_COMMAND && self.fits(command) && Detours::of(command).are_within(self.detours)
    }

    /// Goes through the command once, with every place in the pattern that may be reached: no pattern takes long.
    fn fits(&self, command: &[u8]) -> bool {
        let end = self.tokens.len();
        let mut places = vec![false; end + 1];
        let reach = |places: &mut [bool]| {
            for (place, token) in self.tokens.iter().enumerate() {
                if places.get(place) == Some(&true)
                    && matches!(token, Token::Many { .. })
                    && let Some(next) = places.get_mut(place + 1)
                {
                    *next = true;
                }
            }
        };
        if let Some(first) = places.first_mut() {
            *first = true;
        }
        for &byte in command {
            reach(&mut places);
            let mut next = vec![false; end + 1];
            for (place, token) in self.tokens.iter().enumerate() {
                if places.get(place) == Some(&true) && token.fits(byte) {
                    let to = if matches!(token, Token::Many { .. }) { place } else { place + 1 };
                    if let Some(place) = next.get_mut(to) {
                        *place = true;
                    }
                }
            }
            places = next;
        }
        reach(&mut places);
        places.last() == Some(&true)
    }
}

impl FromStr for ExecPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        check(text)?;
        if text.starts_with(['*', '?']) {
            return Err(PatternError::Program);
        }
        let mut tokens: Vec<Token> = Vec::new();
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            let dash = tokens.last().is_some_and(|last| match last {
                Token::Byte(before) => is_plain(*before) || matches!(before, b'/' | b'='),
                Token::One { .. } | Token::Many { .. } => true,
            });
            match byte {
                b'*' => {
                    let slash = bytes.next_if_eq(&b'*').is_some();
                    tokens.extend([Token::One { slash, dash }, Token::Many { slash }]);
                }
                b'?' => tokens.push(Token::One { slash: false, dash }),
                b'\\' => {
                    let literal = bytes.next_if(|next| matches!(next, b'*' | b'?' | b'\\'));
                    tokens.push(Token::Byte(literal.ok_or(PatternError::Escape)?));
                }
                byte => tokens.push(Token::Byte(byte)),
            }
        }
        // In place of a wildcard stands a letter, which leads nowhere.
        let literal = |token: &Token| if let Token::Byte(byte) = token { *byte } else { b'x' };
        let detours = Detours::of(&tokens.iter().map(literal).collect::<Vec<_>>());
        debug_assert!(tokens.first().is_some_and(|first| !first.is_wild()));
        Ok(Self { text: text.to_owned(), tokens, detours })
    }
}

fn check(text: &str) -> Result<(), PatternError> {
    if text.is_empty() {
        return Err(PatternError::Empty);
    }
    if text.len() > MOST_PATTERN {
        return Err(PatternError::TooLong);
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err(PatternError::Blank);
    }
    Ok(())
}

/// A pattern of commands that are flagged: `*` stands for anything, `?` for one character. The whole command must match, blanks
/// in a row counting as one, so `*rm -rf*` flags it wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagPattern(String);

impl FlagPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a command, as far as its text is kept, is flagged.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
        let pattern: Vec<char> = self.0.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
        // Back to the last star only: each star takes as little as it can.
        let (mut at, mut place) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match pattern.get(place) {
                Some('*') => {
                    star = Some((place, at));
                    place += 1;
                }
                Some(wanted) if *wanted == '?' || Some(wanted) == text.get(at) => {
                    at += 1;
                    place += 1;
                }
                _ => {
                    let Some((star_place, taken)) = star.as_mut() else { return false };
                    *taken += 1;
                    (at, place) = (*taken, *star_place + 1);
                }
            }
        }
        pattern.iter().skip(place).all(|rest| *rest == '*')
    }
}

impl FromStr for FlagPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for ExecPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for FlagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ExecPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for FlagPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExecPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for FlagPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(pattern: &str, command: &str) -> bool {
        pattern.parse::<ExecPattern>().unwrap().matches(command.as_bytes())
    }

    #[test]
    fn a_pattern_allows_what_it_says() {
        for (pattern, command) in [
            ("uptime", "uptime"),
            ("systemctl restart app-*", "systemctl restart app-web.service"),
            ("cat /var/log/app/*", "cat /var/log/app/error.log"),
            ("cat /var/log/**", "cat /var/log/app/2026/error.log"),
            ("journalctl -u app --since=* | tail -n ??", "journalctl -u app --since=-2h | tail -n 50"),
            ("ls \\*.log", "ls *.log"),
            ("/opt/app/bin/* status", "/opt/app/bin/web-1 status"),
            ("cat ../**", "cat ../a/b"),
        ] {
            assert!(allows(pattern, command), "{pattern}: {command}");
        }
    }

    #[test]
    fn no_wildcard_stands_for_what_a_shell_takes_for_more_than_itself() {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.,:@%+-".contains(byte);
        for byte in (0..=u8::MAX).filter(|byte| !plain(byte)) {
            let command = [b"ls x".as_slice(), &[byte], b"y"].concat();
            for pattern in ["ls *", "ls x*y", "ls x?y", "ls **", "ls x**y"] {
                let pattern: ExecPattern = pattern.parse().unwrap();
                let is_path = byte == b'/' && pattern.to_string().contains("**");
                assert_eq!(pattern.matches(&command), is_path, "{pattern} {byte}");
            }
        }
    }

    #[test]
    fn hostile_commands_match_no_pattern() {
        for command in [
            "",
            "ls",
            "ls ",
            " ls a",
            "ls  a",
            "ls a ",
            "ls a b",
            "ls a\n",
            "ls a;id",
            "ls a\nid",
            "ls $(id)",
            "ls `id`",
            "ls a&&id",
            "ls a|id",
            "ls >a",
            "ls <a",
            "ls *",
            "ls ~root",
            "ls {a,b}",
            "ls 'a'",
            "ls \"a\"",
            "ls a\\ b",
            "ls -la",
            "ls --help",
            "ls ..",
            "ls .",
            "ls a..b",
            "ls a=b",
            "ls #a",
            "ls !a",
            "ls a\0",
            "ls a\tb",
            "ls\ta",
            "ls \u{a0}a",
            "ls ａ",
            "LS a",
            "xls a",
            "ls a\r",
        ] {
            assert!(!allows("ls *", command), "{command:?}");
        }
        for command in [
            "cat /srv/",
            "cat /srv/..",
            "cat /srv/../etc/shadow",
            "cat /srv/a/../../etc/shadow",
            "cat /srv/.",
            "cat /srv//",
            "cat /srv//etc",
            "cat /srv/./a",
            "cat /srv/a/.",
            "cat /srv/a /etc/shadow",
            "cat /srv",
            "cat /srvx/a",
        ] {
            assert!(!allows("cat /srv/**", command), "{command:?}");
        }
        assert!(!allows("cat '*'", "cat '-n'") && !allows("cat \"*\"", "cat \"-n\""));
        assert!(!allows("ls *", &format!("ls {}", "a".repeat(MOST_COMMAND))));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::Empty),
            ("* status", PatternError::Program),
            ("?s", PatternError::Program),
            (" ls", PatternError::Blank),
            ("ls\n*", PatternError::Blank),
            ("ls \\n", PatternError::Escape),
            ("ls \\", PatternError::Escape),
        ] {
            assert_eq!(text.parse::<ExecPattern>(), Err(error), "{text:?}");
        }
        assert_eq!("x".repeat(513).parse::<ExecPattern>(), Err(PatternError::TooLong));
    }

    #[test]
    fn a_flag_is_found_wherever_its_stars_let_it() {
        let flags = |pattern: &str, text: &str| pattern.parse::<FlagPattern>().unwrap().matches(text);
        assert!(flags("*rm -rf*", "cd / && rm  -rf\n*"));
        assert!(flags("*curl*|*sh*", "curl x | sh"));
        assert!(flags("r? *", "rm a") && !flags("r? *", "rmm a") && !flags("rm", "rm a") && flags("*", ""));
    }

    #[test]
    fn rules_that_say_nothing_are_written_as_nothing() {
        assert_eq!(serde_json::to_string(&CommandRules::default()).unwrap(), "{}");
        let rules: CommandRules = serde_json::from_str(r#"{"exec":["ls *"],"flag":["*"]}"#).unwrap();
        assert!(rules.is_restricted() && rules.allow(b"ls a") && !rules.allow(b"id"));
    }

    proptest! {
        #[test]
        fn a_pattern_without_wildcards_allows_itself_alone(text in "[a-z][ -)+->@-\\[\\]-~]{0,20}[a-z]", other in "[ -~]{0,20}") {
            let pattern: ExecPattern = text.parse().unwrap();
            prop_assert!(pattern.matches(text.as_bytes()));
            prop_assert_eq!(pattern.matches(other.as_bytes()), other == text);
        }

        #[test]
        fn what_matches_has_the_patterns_own_shell_characters_and_no_others(
            pattern in "[a-c]([a-c*?/ .;$|-]|\\*\\*){0,10}[a-c*?]", command in "[a-c]{1,2}[a-c/ .;$|-]{0,14}",
        ) {
            let Ok(pattern) = pattern.parse::<ExecPattern>() else { return Ok(()) };
            if pattern.matches(command.as_bytes()) {
                let special = |text: &str| text.chars().filter(|c| matches!(c, ';' | '$' | '|' | ' ')).collect::<String>();
                prop_assert_eq!(special(&command), special(&pattern.to_string()));
            }
        }
    }
}
