//! Marks that shells leave in their output for terminals: where the prompt begins (`A`), where the command line begins (`B`), that
//! it runs (`C`), that it has ended and how (`D`), and in so many words what it is (`E`). OSC 133 as iTerm2, kitty, `WezTerm`
//! and fish have it, OSC 633 as VS Code has it. They are the shell's claim: whatever prints can print them.
//!
//! The scanner follows escape sequences as far as it takes to find marks, wherever packets are cut, in bounded memory.

use serde::{Deserialize, Serialize};

/// The longest mark that is kept, in bytes; what is longer is cut.
const MOST_MARK: usize = 8 << 10;

/// The most parameters of a control sequence that are looked at, in bytes.
const MOST_PARAMETERS: usize = 32;

/// What a shell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// `A`, of a primary prompt.
    PromptStart,
    /// `B`
    LineStart,
    /// `C`, with the command line where the shell gives it (fish, kitty).
    Running { line: Option<String> },
    /// `D`
    Ended { status: Option<u32> },
    /// `E` of OSC 633
    Line(String),
}

/// What a scanner stopped at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Mark(Mark),
    /// The byte behind those that were taken is a line feed. It is taken too.
    LineFeed,
}

/// Finds marks in output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scanner {
    state: State,
    /// The operating system command or the parameters that are being read.
    text: Vec<u8>,
    /// The program has asked for pastes in brackets (private mode 2004).
    brackets: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Ground,
    Escape,
    Control,
    Command,
    /// Inside a string that is no mark.
    Other,
    /// An escape inside a string, perhaps the first half of its end; whether it may be a mark's.
    StringEscape {
        mark: bool,
    },
}

impl Scanner {
    /// Whether the program has asked for pastes in brackets.
    pub fn wants_brackets(&self) -> bool {
        self.brackets
    }

    /// Takes `bytes` up to the first thing that is found; line feeds are looked for if `lines`. Gives how many bytes stand
    /// before a line feed, or up to a mark's end, or all.
    pub fn take(&mut self, bytes: &[u8], lines: bool) -> (usize, Option<Found>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Ground {
                let stop = rest.iter().position(|byte| *byte == 0x1b || (lines && *byte == b'\n'));
                match stop.and_then(|stop| Some((stop, *rest.get(stop)?))) {
                    None => break,
                    Some((stop, b'\n')) => return (at + stop, Some(Found::LineFeed)),
                    Some((stop, _)) => {
                        self.state = State::Escape;
                        at += stop + 1;
                    }
                }
                continue;
            }
            let Some(byte) = rest.first() else { break };
            at += 1;
            if let Some(mark) = self.step(*byte) {
                return (at, Some(Found::Mark(mark)));
            }
        }
        (bytes.len(), None)
    }

    fn step(&mut self, byte: u8) -> Option<Mark> {
        self.state = match (self.state, byte) {
            (_, 0x18 | 0x1a) | (State::Other, 0x07) => State::Ground, // CAN, SUB
            (State::Ground | State::Escape | State::Control, 0x1b) | (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Command, 0x1b) => State::StringEscape { mark: true },
            (State::Other, 0x1b) => State::StringEscape { mark: false },
            (State::Escape | State::StringEscape { .. }, b'[') => {
                self.text.clear();
                State::Control
            }
            (State::Escape | State::StringEscape { .. }, b']') => {
                self.text.clear();
                State::Command
            }
            (State::Command, 0x07) | (State::StringEscape { mark: true }, b'\\') => {
                self.state = State::Ground;
                return parse(&std::mem::take(&mut self.text));
            }
            (State::Other, _) | (State::Escape | State::StringEscape { .. }, b'P' | b'X' | b'^' | b'_') => State::Other,
            (State::Command, byte) => {
                if self.text.len() < MOST_MARK {
                    self.text.push(byte);
                }
                // What cannot become a mark is not kept.
                let head = self.text.len().min(4);
                let may_be = [b"133;".as_slice(), b"633;"].iter().any(|mark| mark.get(..head) == self.text.get(..head));
                if may_be { State::Command } else { State::Other }
            }
            (State::Control, 0x40..=0x7e) => {
                let modes = std::mem::take(&mut self.text);
                if let Some(modes) = modes.strip_prefix(b"?")
                    && modes.split(|byte| *byte == b';').any(|mode| mode == b"2004")
                    && matches!(byte, b'h' | b'l')
                {
                    self.brackets = byte == b'h';
                }
                State::Ground
            }
            (State::Control, byte) => {
                if self.text.len() < MOST_PARAMETERS {
                    self.text.push(byte);
                }
                State::Control
            }
            (State::Ground | State::Escape | State::StringEscape { .. }, _) => State::Ground,
        };
        None
    }
}

fn parse(text: &[u8]) -> Option<Mark> {
    let text = String::from_utf8_lossy(text);
    let (family, rest) = text.split_once(';')?;
    let mut parts = rest.split(';');
    Some(match parts.next()? {
        // A prompt of a further line, or on the right, is no new one.
        "A" if parts.any(|part| matches!(part, "k=s" | "k=c" | "k=r")) => return None,
        "A" => Mark::PromptStart,
        "B" => Mark::LineStart,
        "C" => Mark::Running { line: parts.find_map(|part| part.strip_prefix("cmdline_url=")).map(unpercent) },
        "D" => Mark::Ended { status: parts.next().and_then(|status| status.parse().ok()) },
        "E" if family == "633" => Mark::Line(unescape(parts.next()?)),
        _ => return None,
    })
}

/// Undoes `%41`.
fn unpercent(text: &str) -> String {
    undo(text, |rest| rest.strip_prefix(b"%"))
}

/// Undoes `\x41` and `\\`, as VS Code has them.
fn unescape(text: &str) -> String {
    undo(&text.replace("\\\\", "\\x5c"), |rest| rest.strip_prefix(b"\\x"))
}

fn undo(text: &str, escape: impl Fn(&[u8]) -> Option<&[u8]>) -> String {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match escape(rest) {
            Some([high, low, behind @ ..]) if digit(high).is_some() && digit(low).is_some() => {
                // Two digits make a byte.
                bytes.push((digit(high).unwrap_or(0) * 16 + digit(low).unwrap_or(0)) as u8);
                behind
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(scanner: &mut Scanner, bytes: &[u8], lines: bool) -> Vec<Found> {
        let (mut found, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let (taken, what) = scanner.take(rest, lines);
            let line_feed = usize::from(what == Some(Found::LineFeed));
            rest = &rest[taken + line_feed..];
            found.extend(what);
        }
        found
    }

    fn marks(text: &str) -> Vec<Mark> {
        let marks = scan(&mut Scanner::default(), text.as_bytes(), false).into_iter();
        marks.map(|found| if let Found::Mark(mark) = found { mark } else { panic!("{found:?}") }).collect()
    }

    #[test]
    fn marks_are_found_with_either_end_and_between_other_sequences() {
        let text = "\x1b]133;A\x07\x1b[1m$ \x1b]133;B\x1b\\ls\r\n\x1b]633;E;ls \\x3b a\\\\b;nonce\x07\x1b]133;C\x07\x1b]0;C\x07\x1b]133;D;7;x\x07";
        let expected = [
            Mark::PromptStart,
            Mark::LineStart,
            Mark::Line("ls ; a\\b".to_owned()),
            Mark::Running { line: None },
            Mark::Ended { status: Some(7) },
        ];
        assert_eq!(marks(text), expected);
        assert_eq!(
            marks("\x1b]133;C;cmdline_url=a%20%e7%95%8c\x07"),
            [Mark::Running { line: Some("a 界".to_owned()) }]
        );
    }

    #[test]
    fn what_is_no_primary_prompt_or_inside_another_string_or_malformed_is_none() {
        for text in [
            "\x1b]133;A;k=s\x07",
            "\x1bP\x1b ]133;A\x07",
            "\x1b]1339;A\x07",
            "\x1b]133\x07",
            "\x1b]133;E;ls\x07",
            "\x1b]133;C\x18",
        ] {
            assert_eq!(marks(text), [], "{text:?}");
        }
    }

    #[test]
    fn a_mark_without_an_end_takes_bounded_memory() {
        let mut scanner = Scanner::default();
        scan(&mut scanner, b"\x1b]633;E;", true);
        for _ in 0..100 {
            scan(&mut scanner, &[b'x'; 4096], true);
        }
        assert!(scanner.text.len() <= MOST_MARK);
    }

    #[test]
    fn it_is_known_whether_pastes_come_in_brackets() {
        let mut scanner = Scanner::default();
        scan(&mut scanner, b"\x1b[?25;2004h", true);
        assert!(scanner.wants_brackets());
        scan(&mut scanner, b"\x1b[?2004l", true);
        assert!(!scanner.wants_brackets());
    }

    proptest! {
        #[test]
        fn packets_may_be_cut_anywhere(
            text in "(\x1b\\]133;[ABCD]{1}(;[0-9]{1,3})?(\x07|\x1b\\\\)|[a-z\r\n\x1b;\\]\\\\]{0,4}|\x1b\\[\\?2004[hl]){0,8}",
            cut: prop::sample::Index,
        ) {
            let cut = cut.index(text.len() + 1);
            let (first, second) = text.as_bytes().split_at(cut);
            let (mut whole, mut parts) = (Scanner::default(), Scanner::default());
            let mut found = scan(&mut parts, first, true);
            found.extend(scan(&mut parts, second, true));
            prop_assert_eq!(found, scan(&mut whole, text.as_bytes(), true));
            prop_assert_eq!(parts, whole);
        }
    }
}
