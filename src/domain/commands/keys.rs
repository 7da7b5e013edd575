//! What is typed at a terminal, a line at a time: enough to know where a line ends, and what it says where it was typed straight
//! on. What arrows, Tab and the like make of it only the screen knows.

use serde::{Deserialize, Serialize};

/// The longest line that is kept, in bytes.
const MOST_LINE: usize = 1 << 10;

/// The line that is being typed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Keys {
    state: State,
    /// The number in the control sequence that is being read.
    number: u16,
    /// Between the brackets of a paste.
    is_paste: bool,
    line: Typed,
    /// Something of the line was typed.
    begun: bool,
}

/// A line as it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Typed {
    bytes: Vec<u8>,
    /// A key was pressed whose effect only the screen knows, or the line is too long.
    is_edited: bool,
}

impl Typed {
    /// What stands on the line if only characters were typed, and taken back; else `None`.
    pub fn plain(&self) -> Option<String> {
        (!self.is_edited).then(|| String::from_utf8_lossy(&self.bytes).trim().to_owned())
    }

    /// Forgets what was typed: it may be a secret.
    pub fn forget(&mut self) {
        self.is_edited |= !self.bytes.is_empty();
        self.bytes = Vec::new();
    }
}

/// What a key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stroke {
    /// The first key of a line, or no effect that matters.
    More,
    /// The line was handed over.
    Enter(Typed),
    /// It was thrown away.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Ground,
    Escape,
    Control,
    /// ESC O: one more byte.
    Single,
    /// What a terminal answers to a question.
    Answer,
    AnswerEscape,
}

/// Whether the byte ends a line for whoever reads keys: Enter, line feed, and Ctrl-O, which readline takes for Enter.
pub fn is_enter(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0x0f)
}

/// Whether it drops the line: Ctrl-C, Ctrl-Z, Ctrl-\.
pub fn is_drop(byte: u8) -> bool {
    matches!(byte, 0x03 | 0x1a | 0x1c)
}

impl Keys {
    /// Whether something of the line was typed.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Forgets what was typed of the line so far.
    pub fn forget(&mut self) {
        self.line.forget();
    }

    /// Takes the next byte. `brackets`: the program has asked for pastes in brackets.
    pub fn take(&mut self, byte: u8, brackets: bool) -> Stroke {
        self.state = match (self.state, byte) {
            (State::Ground | State::Escape, 0x1b) => State::Escape,
            (State::Ground, byte) => return self.take_plain(byte),
            (State::Escape, b'[') => {
                self.number = 0;
                State::Control
            }
            (State::Escape, b'O') => State::Single,
            (State::Escape, b']' | b'P' | b'_') => State::Answer,
            (State::Escape, byte) if is_enter(byte) || is_drop(byte) => {
                self.state = State::Ground;
                return self.take_plain(byte);
            }
            (State::Escape | State::Single, _) => {
                self.edit();
                State::Ground
            }
            (State::Control, b'0'..=b'9') => {
                self.number = self.number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                State::Control
            }
            (State::Control, 0x40..=0x7e) => {
                self.take_control(byte, brackets);
                State::Ground
            }
            (State::Control, 0x20..=0x3f) => State::Control,
            // Not what it looked like: nobody hides a line by a sequence that has no end.
            (State::Control | State::Answer, byte) if is_enter(byte) || is_drop(byte) => {
                self.edit();
                self.state = State::Ground;
                return self.take_plain(byte);
            }
            (State::Control, _) | (State::Answer, 0x07) | (State::AnswerEscape, _) => State::Ground,
            (State::Answer, 0x1b) => State::AnswerEscape,
            (State::Answer, _) => State::Answer,
        };
        Stroke::More
    }

    fn edit(&mut self) {
        self.begun = true;
        self.line.is_edited = true;
    }

    fn take_control(&mut self, last: u8, brackets: bool) {
        match (last, self.number) {
            (b'~', 200) => {
                self.is_paste = brackets;
                self.begun = true;
            }
            (b'~', 201) => self.is_paste = false,
            // Arrows, Home, End, back-tab, function keys. Other sequences are what terminals answer.
            (b'A'..=b'D' | b'F' | b'H' | b'P' | b'Q' | b'S' | b'Z' | b'~' | b'u', _) => self.edit(),
            _ => {}
        }
    }

    fn take_plain(&mut self, byte: u8) -> Stroke {
        if self.is_paste && is_enter(byte) {
            self.edit(); // a line of its own only once the paste is handed over
            return Stroke::More;
        }
        if is_enter(byte) {
            self.begun = false;
            return Stroke::Enter(std::mem::take(&mut self.line));
        }
        if is_drop(byte) {
            *self = Self::default();
            return Stroke::Dropped;
        }
        self.begun = true;
        match byte {
            0x08 | 0x7f => while self.line.bytes.pop().is_some_and(|byte| matches!(byte, 0x80..0xc0)) {},
            0x15 => self.line.bytes.clear(),
            0..0x20 => self.line.is_edited = true,
            byte if self.line.bytes.len() < MOST_LINE => self.line.bytes.push(byte),
            _ => self.line.is_edited = true,
        }
        Stroke::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, brackets: bool) -> Vec<Option<String>> {
        let mut keys = Keys::default();
        let strokes = text.bytes().map(|byte| keys.take(byte, brackets)).collect::<Vec<_>>();
        strokes
            .into_iter()
            .filter_map(|stroke| if let Stroke::Enter(typed) = stroke { Some(typed.plain()) } else { None })
            .collect()
    }

    #[test]
    fn a_line_typed_straight_on_is_known_and_an_edited_one_is_not() {
        assert_eq!(lines("lx\x7fs 界线\x08\rcd\n", false), [Some("ls 界".to_owned()), Some("cd".to_owned())]);
        assert_eq!(lines("ls\x1b[D\rcat\t\r\x1bOA\r", false), [None, None, None]);
        assert_eq!(lines("rm -rf\x03ls\r", false), [Some("ls".to_owned())]);
        assert_eq!(lines(&format!("{}\r", "x".repeat(2000)), false), [None]);
    }

    #[test]
    fn what_a_terminal_answers_is_not_typed() {
        assert_eq!(lines("\x1b[?62;c\x1b]11;rgb:0/0/0\x1b\\\x1b[24;80Rls\r", false), [Some("ls".to_owned())]);
    }

    #[test]
    fn a_paste_in_brackets_is_one_line_only_where_they_were_asked_for() {
        assert_eq!(lines("\x1b[200~a\rb\x1b[201~\r", true), [None]);
        assert_eq!(lines("\x1b[200~a\rb\x1b[201~\r", false).len(), 2);
    }

    #[test]
    fn a_sequence_without_an_end_hides_no_enter() {
        for start in ["\x1b", "\x1b[", "\x1b[1;", "\x1b]x", "\x1bPx", "\x1b_"] {
            assert_eq!(lines(&format!("{start}\rls\r"), false).len(), 2, "{start:?}");
        }
    }
}
