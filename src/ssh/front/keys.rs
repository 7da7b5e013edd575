//! What a terminal sends when somebody types, as keys: ECMA-48 control sequences (CSI), the SS3 forms of a terminal in
//! application mode, and UTF-8 (RFC 3629). xterm, PuTTY, the Linux console and rxvt differ in them; all forms are taken.
//!
//! A byte at a time, whatever the packets, and never more than a few bytes are kept.

use std::time::Duration;

/// How long after an ESC its sequence may take to come. What comes later was typed.
pub const ESCAPE_DELAY: Duration = Duration::from_millis(100);

/// The longest parameters of a control sequence that are read; no key's are as long.
const MOST_PARAMETERS: usize = 16;

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character that can be printed.
    Character(char),
    /// With Ctrl held, as the letter in lower case.
    Control(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    F1,
    /// One that means nothing here.
    Other,
}

/// Puts keys together from bytes.
#[derive(Debug, Default)]
pub struct Keys {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After CSI, "ESC [": parameters, of which the first are kept, until the final byte (ECMA-48 §5.4).
    Control { parameters: [u8; MOST_PARAMETERS], length: usize },
    /// After "ESC [ [", by which the Linux console begins its function keys.
    Console,
    /// After SS3, "ESC O".
    Single,
    /// Within a character of several bytes.
    Character { bytes: [u8; 4], length: usize, most: usize },
}

impl Keys {
    /// Takes one byte. A key, if one is complete with it.
    pub fn take(&mut self, byte: u8) -> Option<Key> {
        match std::mem::take(&mut self.state) {
            State::Ground => self.begin(byte),
            State::Escape => match byte {
                b'[' => self.go_on(State::Control { parameters: [0; MOST_PARAMETERS], length: 0 }),
                b'O' => self.go_on(State::Single),
                0x1b => {
                    self.state = State::Escape;
                    Some(Key::Escape)
                }
                _ => Some(Key::Other), // with Alt held
            },
            State::Control { parameters, length: 0 } if byte == b'[' => {
                let _ = parameters;
                self.go_on(State::Console)
            }
            State::Control { mut parameters, length } => match byte {
                0x20..=0x3f => {
                    if let Some(place) = parameters.get_mut(length) {
                        *place = byte;
                    }
                    // One beyond the end says that there were more.
                    self.go_on(State::Control { parameters, length: (length + 1).min(MOST_PARAMETERS + 1) })
                }
                0x40..=0x7e => Some(control(parameters.get(..length).unwrap_or(b"?"), byte)),
                _ => self.begin(byte), // cut short
            },
            State::Console => Some(if byte == b'A' { Key::F1 } else { Key::Other }),
            State::Single => Some(single(byte)),
            State::Character { mut bytes, length, most } => {
                if !(0x80..=0xbf).contains(&byte) {
                    return self.begin(byte); // cut short
                }
                if let Some(place) = bytes.get_mut(length) {
                    *place = byte;
                }
                let length = length + 1;
                if length < most {
                    return self.go_on(State::Character { bytes, length, most });
                }
                let text = std::str::from_utf8(bytes.get(..length).unwrap_or_default());
                Some(text.ok().and_then(|text| text.chars().next()).map_or(Key::Other, printable))
            }
        }
    }

    /// Whether a sequence has begun that is not complete.
    pub fn is_pending(&self) -> bool {
        !matches!(self.state, State::Ground)
    }

    /// Nothing came for [`ESCAPE_DELAY`]: what has begun is all there is. An ESC alone is the key.
    pub fn settle(&mut self) -> Option<Key> {
        match std::mem::take(&mut self.state) {
            State::Escape => Some(Key::Escape),
            State::Ground | State::Control { .. } | State::Console | State::Single | State::Character { .. } => None,
        }
    }

    fn go_on(&mut self, state: State) -> Option<Key> {
        self.state = state;
        None
    }

    fn begin(&mut self, byte: u8) -> Option<Key> {
        let most = match byte {
            0x1b => return self.go_on(State::Escape),
            b'\r' | b'\n' => return Some(Key::Enter),
            0x08 | 0x7f => return Some(Key::Backspace),
            0x01..=0x1a => return Some(Key::Control(char::from(byte + 0x60))),
            0x00 | 0x1c..=0x1f => return Some(Key::Other),
            0x20..=0x7e => return Some(Key::Character(char::from(byte))),
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xc1 | 0xf5..=0xff => return Some(Key::Other),
        };
        self.go_on(State::Character { bytes: [byte, 0, 0, 0], length: 1, most })
    }
}

fn printable(character: char) -> Key {
    if character.is_control() { Key::Other } else { Key::Character(character) }
}

/// A complete control sequence. What follows a `;` says which modifiers are held, which changes nothing here.
fn control(parameters: &[u8], end: u8) -> Key {
    let number = parameters.split(|byte| *byte == b';').next().unwrap_or_default();
    match (number, end) {
        (b"" | b"1", b'A') => Key::Up,
        (b"" | b"1", b'B') => Key::Down,
        (b"" | b"1", b'H') | (b"1" | b"7", b'~') => Key::Home,
        (b"" | b"1", b'F') | (b"4" | b"8", b'~') => Key::End,
        (b"5", b'~') => Key::PageUp,
        (b"6", b'~') => Key::PageDown,
        (b"11", b'~') | (b"" | b"1", b'P') => Key::F1,
        _ => Key::Other,
    }
}

fn single(byte: u8) -> Key {
    match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'M' => Key::Enter, // the keypad's
        b'P' => Key::F1,
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        let mut found: Vec<Key> = bytes.iter().filter_map(|byte| keys.take(*byte)).collect();
        found.extend(keys.settle());
        found
    }

    #[test]
    fn letters_and_controls_are_keys() {
        use Key::{Backspace, Character, Control, Enter, Escape};
        assert_eq!(keys(b"a\r\x7f\x08\x03\n"), [Character('a'), Enter, Backspace, Backspace, Control('c'), Enter]);
        assert_eq!(keys("ü上\u{1f600}".as_bytes()), [Character('ü'), Character('上'), Character('\u{1f600}')]);
        assert_eq!(keys(b"\x1b"), [Escape]);
        assert_eq!(keys(b"\x1b\x1b"), [Escape, Escape]);
    }

    #[test]
    fn the_same_key_is_known_by_every_terminals_name_for_it() {
        for (key, names) in [
            (Key::Up, &["\x1b[A", "\x1bOA", "\x1b[1;5A"][..]),
            (Key::Down, &["\x1b[B", "\x1bOB"]),
            (Key::Home, &["\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~"]),
            (Key::End, &["\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~"]),
            (Key::PageUp, &["\x1b[5~"]),
            (Key::PageDown, &["\x1b[6~", "\x1b[6;2~"]),
            (Key::F1, &["\x1bOP", "\x1b[11~", "\x1b[[A", "\x1b[1;2P"]),
            (Key::Enter, &["\x1bOM"]),
            (Key::Other, &["\x1b[3~", "\x1bx", "\x1b[C", "\x1bOD", "\x1b[[B"]),
        ] {
            for name in names {
                assert_eq!(keys(name.as_bytes()), [key], "{name:?}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_one_key_that_means_nothing_and_the_next_one_counts() {
        assert_eq!(keys(b"\xffa"), [Key::Other, Key::Character('a')]);
        assert_eq!(keys(b"\xe4\xb8a"), [Key::Character('a')]);
        assert_eq!(keys(b"\xed\xa0\x80a"), [Key::Other, Key::Character('a')]); // a surrogate
        assert_eq!(keys(b"\xc2\x9ba"), [Key::Other, Key::Character('a')]); // CSI as one character
        assert_eq!(keys(b"\x1b[12\rq"), [Key::Enter, Key::Character('q')]);
        let long = [b"\x1b[".as_slice(), &[b'1'; 100], b"~q"].concat();
        assert_eq!(keys(&long), [Key::Other, Key::Character('q')]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_at_most_as_many_keys_and_after_a_pause_the_next_letter_is_read(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\x1b[O;1~A\xe4".to_vec())], 0..200)
        ) {
            let mut keys = Keys::default();
            let mut found = 0;
            for byte in &bytes {
                found += usize::from(keys.take(*byte).is_some());
            }
            found += usize::from(keys.settle().is_some());
            prop_assert!(found <= bytes.len());
            prop_assert!(!keys.is_pending());
            prop_assert_eq!(keys.take(b'q'), Some(Key::Character('q')));
        }

        #[test]
        fn text_is_read_as_it_is(text in "[a-z0-9 .@\u{e4}-\u{17f}\u{4e00}-\u{4fff}]{0,40}") {
            let typed: Vec<Key> = text.chars().map(Key::Character).collect();
            prop_assert_eq!(keys(text.as_bytes()), typed);
        }
    }
}
