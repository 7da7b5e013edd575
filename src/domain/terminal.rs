//! What a terminal is in the middle of, told from the bytes that it is sent: enough to know when a line of our own may
//! be written between two packets without spoiling an escape sequence, a character or a full-screen program.
//!
//! The states are those of Paul Williams' parser for ANSI-compatible terminals, reduced to "ground or not".

/// Watches the bytes on their way to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalWatch {
    state: State,
    alternate: bool,
    /// The last thing shown was a line feed or carriage return.
    line_start: bool,
    /// The private mode being read: its number, if it fits.
    mode: u16,
    private: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    /// Inside a UTF-8 character; that many bytes are still to come.
    Character(u8),
    Escape,
    /// An escape sequence with intermediates, such as a character set.
    Intermediate,
    Csi,
    /// OSC, DCS, APC, PM, SOS: up to BEL or ST.
    Text,
    /// An escape inside of one, perhaps the first half of ST.
    TextEscape,
}

impl TerminalWatch {
    /// A terminal that was just opened.
    pub const fn new() -> Self {
        Self { state: State::Ground, alternate: false, line_start: true, mode: 0, private: false }
    }

    /// Whether a full-screen program has switched to the alternate screen.
    pub fn is_alternate(&self) -> bool {
        self.alternate
    }

    /// Whether the terminal is between two characters and in no escape sequence.
    pub fn is_ground(&self) -> bool {
        self.state == State::Ground
    }

    /// Whether the cursor stands where a line begins, as far as can be told.
    pub fn is_line_start(&self) -> bool {
        self.line_start
    }

    /// Takes the next bytes.
    pub fn watch(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
            if self.state == State::Ground && is_plain(&byte) {
                self.line_start = false;
                let plain = behind.iter().take_while(|byte| is_plain(byte)).count();
                rest = behind.get(plain..).unwrap_or_default(); // most of what is printed, in one step
            } else {
                self.step(byte);
                rest = behind;
            }
        }
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            // CAN and SUB end any sequence; ESC starts a new one.
            (_, 0x18 | 0x1a) => State::Ground,
            (State::Text, 0x1b) => State::TextEscape,
            (_, 0x1b) => State::Escape,
            (State::Text, 0x07) => State::Ground,
            (State::Text, _) => State::Text,
            (State::TextEscape, b'\\') => State::Ground,
            (State::TextEscape, _) => State::Text,
            (State::Escape, b'[') => {
                (self.mode, self.private) = (0, false);
                State::Csi
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Text,
            (State::Escape | State::Intermediate, 0x20..=0x2f) => State::Intermediate,
            (State::Escape, b'c') => {
                *self = Self::new(); // full reset
                State::Ground
            }
            (State::Escape | State::Intermediate, 0x30..=0x7e) => State::Ground,
            (State::Escape | State::Intermediate, _) => self.state,
            (State::Csi, b'0'..=b'9') => {
                self.mode = self.mode.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                State::Csi
            }
            (State::Csi, b'?') => {
                self.private = true;
                State::Csi
            }
            (State::Csi, b';') => {
                self.mode = 0;
                State::Csi
            }
            (State::Csi, 0x40..=0x7e) => {
                if self.private && matches!(self.mode, 47 | 1047 | 1049) && matches!(byte, b'h' | b'l') {
                    self.alternate = byte == b'h';
                }
                State::Ground
            }
            (State::Csi, _) => State::Csi,
            (State::Character(left), 0x80..=0xbf) if left > 1 => State::Character(left - 1),
            (State::Character(1), 0x80..=0xbf) => State::Ground,
            (State::Ground | State::Character(_), byte) => {
                self.line_start = matches!(byte, b'\n' | b'\r') || (self.line_start && byte < 0x20);
                match byte {
                    0xc2..=0xdf => State::Character(1),
                    0xe0..=0xef => State::Character(2),
                    0xf0..=0xf4 => State::Character(3),
                    _ => State::Ground,
                }
            }
        };
    }
}

impl Default for TerminalWatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(bytes: &[u8]) -> TerminalWatch {
        let mut watch = TerminalWatch::new();
        watch.watch(bytes);
        watch
    }

    #[test]
    fn half_a_sequence_or_character_is_not_ground() {
        for bytes in ["\x1b", "\x1b[", "\x1b[38;5", "\x1b]0;title", "\x1bP1$r", "\x1b(", "\x1b]0;a\x1b"] {
            assert!(!after(bytes.as_bytes()).is_ground(), "{bytes:?}");
        }
        assert!(!after(&"\u{1f980}".as_bytes()[..3]).is_ground());
        for bytes in ["", "a", "\x1b[m", "\x1b]0;title\x07", "\x1b]0;title\x1b\\", "\x1b(B", "\u{1f980}", "\x1b[3\x18"]
        {
            assert!(after(bytes.as_bytes()).is_ground(), "{bytes:?}");
        }
    }

    #[test]
    fn the_alternate_screen_is_followed() {
        assert!(after(b"\x1b[?1049h").is_alternate());
        assert!(after(b"\x1b[?1;1049h").is_alternate());
        assert!(!after(b"\x1b[?1049h\x1b[?1049l").is_alternate());
        assert!(!after(b"\x1b[?1049h\x1bc").is_alternate());
        assert!(!after(b"\x1b[1049h").is_alternate());
    }

    #[test]
    fn a_prompt_is_not_the_start_of_a_line() {
        assert!(after(b"output\r\n").is_line_start());
        assert!(!after(b"output\r\n$ ").is_line_start());
        assert!(after(b"output\r\n\x1b[0m").is_line_start());
    }

    proptest! {
        #[test]
        fn packets_may_be_cut_anywhere(bytes in prop::collection::vec(any::<u8>(), 0..200), cut: prop::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            let mut parts = after(&bytes[..cut]);
            parts.watch(&bytes[cut..]);
            prop_assert_eq!(parts, after(&bytes));
        }
    }
}
