//! What a program printed, as lines that can be read, searched and linked to, each with the moment when it was as it reads.
//!
//! Not a terminal: it follows the cursor along its line, which is what shells and progress bars do, and takes every jump elsewhere
//! as the end of the line, so a full-screen program leaves the pieces that it drew. `web/src/player/transcript.ts` reads the same way:
//! a line that is found here is found on the session's page. Input is hostile; memory is bounded by [`LONGEST`].

use serde::{Deserialize, Serialize};

/// A longer line goes on in the next one, in characters.
pub const LONGEST: usize = 2000;

/// Characters of a control sequence's parameters that are looked at (ECMA-48 §5.4).
const MOST_PARAMETERS: usize = 32;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// When it was last written to, in microseconds since the recording began.
    pub at: u64,
    /// Never empty; no control characters, and none that turn the direction of writing.
    pub text: String,
}

/// Reads one stream of output; can be put away and taken up again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineReader {
    cells: Vec<char>,
    column: usize,
    last: u64,
    state: State,
    parameters: String,
}

/// Where the reader is in an escape sequence (ECMA-48 §5.3 to §5.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    #[default]
    Text,
    Escape,
    /// A character set's name is to come.
    OneMore,
    Control,
    /// A title, a link and the like.
    Title,
    TitleEscape,
}

impl LineReader {
    /// Takes text that was printed at `at`; lines that ended are appended to `lines`.
    pub fn push(&mut self, at: u64, text: &str, lines: &mut Vec<Line>) {
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let plain = if self.state == State::Text { plain_length(rest) } else { 0 };
            if plain > 0 {
                let (plain, behind) = rest.split_at(plain);
                self.put_plain(at, plain, lines);
                rest = behind;
            } else {
                self.take(at, character, lines);
                rest = rest.split_at(character.len_utf8()).1;
            }
        }
    }

    /// The stream ended, and with it its line.
    pub fn finish(&mut self, lines: &mut Vec<Line>) {
        self.end(lines);
    }

    /// The line that has not ended, as it reads now.
    pub fn unfinished(&self) -> Option<Line> {
        let text: String = self.cells.iter().collect();
        let text = text.trim_end();
        (!text.is_empty()).then(|| Line { at: self.last, text: text.to_owned() })
    }

    fn end(&mut self, lines: &mut Vec<Line>) {
        lines.extend(self.unfinished());
        self.cells.clear();
        self.column = 0;
    }

    fn put(&mut self, at: u64, character: char, lines: &mut Vec<Line>) {
        if self.column >= LONGEST {
            self.end(lines);
        }
        while self.cells.len() <= self.column {
            self.cells.push(' ');
        }
        if let Some(cell) = self.cells.get_mut(self.column) {
            *cell = character;
        }
        self.column += 1;
        self.last = at;
    }

    /// The same for many at once, which are ASCII and no controls: most of what is printed.
    fn put_plain(&mut self, at: u64, mut plain: &str, lines: &mut Vec<Line>) {
        while !plain.is_empty() {
            if self.column >= LONGEST {
                self.end(lines);
            }
            let (fits, behind) = plain.split_at(plain.len().min(LONGEST - self.column));
            let from = self.column;
            self.column += fits.len();
            self.cells.resize(self.cells.len().max(from), ' ');
            let over = from..self.column.min(self.cells.len());
            self.cells.splice(over, fits.bytes().map(char::from));
            self.last = at;
            plain = behind;
        }
    }

    fn take(&mut self, at: u64, character: char, lines: &mut Vec<Line>) {
        match (self.state, character) {
            (State::Title, '\x07') => self.state = State::Text,
            (State::Title, '\x1b') => self.state = State::TitleEscape,
            (State::Title, _) => {}
            (_, '\x1b') => self.state = State::Escape,
            (State::Escape | State::TitleEscape, '[') => {
                self.state = State::Control;
                self.parameters.clear();
            }
            (State::Escape | State::TitleEscape, ']' | 'P' | 'X' | '^' | '_') => self.state = State::Title,
            (State::Escape | State::TitleEscape, ' '..='/') => self.state = State::OneMore,
            (State::Escape | State::TitleEscape, _) => {
                self.state = State::Text;
                // Index, next line, reset (ECMA-48 §8.3.61, §8.3.86, §8.3.105).
                if matches!(character, 'D' | 'E' | 'c') {
                    self.end(lines);
                }
            }
            (State::OneMore, _) => {
                if character > '/' {
                    self.state = State::Text;
                }
            }
            (State::Control, '@'..) => {
                self.state = State::Text;
                self.control(character, lines);
            }
            (State::Control, ' '..) => {
                if self.parameters.len() < MOST_PARAMETERS {
                    self.parameters.push(character);
                }
            }
            (State::Control | State::Text, '\n') => self.end(lines),
            (State::Control | State::Text, '\r') => self.column = 0,
            (State::Control | State::Text, '\x08') => self.column = self.column.saturating_sub(1),
            (State::Control | State::Text, '\t') => self.column = LONGEST.min((self.column / 8 + 1) * 8),
            // The bell and the character sets leave no trace.
            (State::Control | State::Text, '\x07' | '\x0e' | '\x0f') => {}
            (State::Control | State::Text, '\0'..='\x1f') => {
                self.put(at, char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'), lines);
            }
            (State::Text, '\x7f') => self.put(at, '\u{2421}', lines),
            (State::Text, '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                self.put(at, '\u{fffd}', lines);
            }
            (State::Text, _) => self.put(at, character, lines),
        }
    }

    /// A control sequence that ends with `last` (ECMA-48 §5.4).
    fn control(&mut self, last: char, lines: &mut Vec<Line>) {
        let digits: String = self.parameters.chars().take_while(char::is_ascii_digit).collect();
        let which: usize = digits.parse().unwrap_or(0);
        let count = which.clamp(1, LONGEST);
        match last {
            'C' => self.column = LONGEST.min(self.column + count),
            'D' => self.column = self.column.saturating_sub(count),
            'G' => self.column = count - 1,
            'P' => {
                let from = self.column.min(self.cells.len());
                let to = (from + count).min(self.cells.len());
                self.cells.drain(from..to);
            }
            '@' => {
                let from = self.column.min(self.cells.len());
                self.cells.splice(from..from, std::iter::repeat_n(' ', count));
                self.cells.truncate(LONGEST);
            }
            'K' | 'J' if last == 'K' || which == 0 => match which {
                0 => self.cells.truncate(self.column),
                2 => self.cells.clear(),
                _ => self.cells.iter_mut().take(self.column).for_each(|cell| *cell = ' '),
            },
            'A' | 'B' | 'E' | 'F' | 'H' | 'J' | 'L' | 'M' | 'S' | 'T' | 'd' | 'f' => self.end(lines),
            _ => {}
        }
    }
}

/// How many bytes `text` begins with that are ASCII and no controls.
fn plain_length(text: &str) -> usize {
    text.bytes().take_while(|byte| matches!(byte, b' '..=b'~')).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[(u64, &str)]) -> Vec<(u64, String)> {
        let (mut reader, mut lines) = (LineReader::default(), Vec::new());
        pieces.iter().for_each(|(at, text)| reader.push(*at, text, &mut lines));
        reader.finish(&mut lines);
        lines.into_iter().map(|line| (line.at, line.text)).collect()
    }

    fn texts(text: &str) -> Vec<String> {
        lines(&[(0, text)]).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_line_has_the_moment_at_which_it_was_as_it_reads() {
        let read = lines(&[(1, "$ "), (2, "l"), (3, "s\r\n"), (5, "10 %\r"), (6, "90 %"), (9, "\n")]);
        assert_eq!(read, [(3, "$ ls".to_owned()), (6, "90 %".to_owned())]);
    }

    #[test]
    fn the_cursor_is_followed_along_its_line() {
        assert_eq!(texts("echo hallo\x08\x08\x08\x08ello\n"), ["echo hello"]);
        assert_eq!(texts("abc\x1b[2D\x1b[P\n"), ["ac"]);
        assert_eq!(texts("abc\x1b[2D\x1b[2@\n"), ["a  bc"]);
        assert_eq!(texts("old text\r\x1b[Knew\x1b[3Cx\n"), ["new   x"]);
        assert_eq!(texts("\x1b[31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x07 \x1b(Bend"), ["red link end"]);
    }

    #[test]
    fn a_jump_ends_the_line_and_what_was_drawn_is_kept() {
        assert_eq!(texts("\x1b[2J\x1b[1;1Hfirst\x1b[2;1Hsecond\x1b[H"), ["first", "second"]);
    }

    #[test]
    fn what_would_be_obeyed_is_shown() {
        assert_eq!(texts("a\0b\x01\u{202e}c\x7f\u{85}"), ["a\u{2400}b\u{2401}\u{fffd}c\u{2421}\u{fffd}"]);
    }

    #[test]
    fn a_flood_without_line_feeds_becomes_lines() {
        let read = texts(&"x".repeat(LONGEST * 2 + 5));
        assert_eq!(read.iter().map(String::len).collect::<Vec<_>>(), [LONGEST, LONGEST, 5]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_wherever_the_output_is_cut(
            text in r"([ -~]|[\x00-\x1f]|\x1b\[[0-9;]{0,4}[@-~]|[世界é\u{202e}]){0,80}", cut in 0_usize..80,
        ) {
            let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
            let (head, tail) = text.split_at(at);
            let mut reader = LineReader::default();
            let mut read = Vec::new();
            reader.push(0, head, &mut read);
            // Put away and taken up again.
            let mut reader: LineReader = serde_json::from_str(&serde_json::to_string(&reader).unwrap()).unwrap();
            reader.push(0, tail, &mut read);
            reader.finish(&mut read);
            let read: Vec<String> = read.into_iter().map(|line| line.text).collect();
            prop_assert_eq!(&read, &texts(&text));
            for line in read {
                prop_assert!(!line.is_empty() && !line.chars().any(char::is_control), "{:?}", line);
            }
        }

        #[test]
        fn many_at_once_read_as_one_by_one(text in r"([a-z ]{0,40}|[\x00-\x1f]|\x1b\[[0-9]{0,4}[@-~]|\x1b\[1999G|é){0,30}") {
            let (mut reader, mut read) = (LineReader::default(), Vec::new());
            text.chars().for_each(|character| reader.take(0, character, &mut read));
            reader.finish(&mut read);
            let read: Vec<String> = read.into_iter().map(|line| line.text).collect();
            prop_assert_eq!(read, texts(&text));
        }

        #[test]
        fn memory_is_bounded_whatever_is_printed(text in r"(\x1b\[[0-9]{0,6}[@CGP]|[a-z\t]){0,300}") {
            let mut reader = LineReader::default();
            let mut read = Vec::new();
            for at in 0..5 {
                reader.push(at, &text, &mut read);
                prop_assert!(reader.cells.len() <= LONGEST + 1);
            }
        }
    }
}
