//! What the web player follows a live recording by: asciinema's live stream protocol, version 1 ("ALiS", subprotocol
//! `v1.alis`). Each message is one WebSocket message; numbers are LEB128, times microseconds since the event before.

use super::event::Event;
use crate::channel::TerminalSize;

/// The WebSocket subprotocol's name.
pub const SUBPROTOCOL: &str = "v1.alis";

/// The first message.
pub const MAGIC: &[u8] = b"ALiS\x01";

/// The last message, when the recording has ended.
pub const END: &[u8] = &[0x04];

const RESET: u8 = 0x01;
const NO_THEME: u8 = 0;

/// Turns events into messages, from [`Encoder::reset`] on.
#[derive(Debug, Default)]
pub struct Encoder {
    id: u64,
    at: u64,
}

impl Encoder {
    /// The second message: the terminal as it is at `at`, in microseconds. `init` redraws its screen.
    pub fn reset(&mut self, at: u64, size: TerminalSize, init: &str) -> Vec<u8> {
        self.at = at;
        let size = size.drawable();
        let mut message = vec![RESET];
        number(&mut message, self.id);
        number(&mut message, at);
        number(&mut message, size.cols.into());
        number(&mut message, size.rows.into());
        message.push(NO_THEME);
        text(&mut message, init);
        message
    }

    /// The message for one event; `None` for those that a live player does not show.
    pub fn event(&mut self, event: &Event<'_>) -> Option<Vec<u8>> {
        let kind = match event.code {
            'o' | 'i' | 'r' | 'x' | 'm' => u8::try_from(event.code).ok()?,
            _ => return None,
        };
        let mut message = vec![kind];
        number(&mut message, self.id + 1);
        number(&mut message, event.at.saturating_sub(self.at));
        match event.code {
            'r' => {
                let (cols, rows) = event.data.split_once('x')?;
                number(&mut message, cols.parse().ok()?);
                number(&mut message, rows.parse().ok()?);
            }
            'x' => number(&mut message, event.data.parse().unwrap_or_default()),
            _ => text(&mut message, &event.data),
        }
        self.id += 1;
        self.at = self.at.max(event.at);
        Some(message)
    }
}

fn text(message: &mut Vec<u8>, text: &str) {
    number(message, text.len() as u64);
    message.extend_from_slice(text.as_bytes());
}

/// LEB128, unsigned.
fn number(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_those_of_the_protocol() {
        let mut encoder = Encoder::default();
        let event = |at, code, data: &'static str| Event { at, code, data: data.into() };

        let reset = encoder.reset(300, TerminalSize { cols: 132, rows: 0 }, "\u{1b}[H");
        let output = encoder.event(&event(301, 'o', "héllo"));
        let resize = encoder.event(&event(1_000_301, 'r', "80x25"));
        let earlier = encoder.event(&event(7, 'i', "x"));
        let exit = encoder.event(&event(1_000_302, 'x', "3"));

        assert_eq!(reset, b"\x01\x00\xac\x02\x84\x01\x18\x00\x03\x1b[H");
        assert_eq!(output.unwrap(), b"o\x01\x01\x06h\xc3\xa9llo");
        assert_eq!(resize.unwrap(), b"r\x02\xc0\x84\x3d\x50\x19");
        assert_eq!(earlier.unwrap(), b"i\x03\x00\x01x");
        assert_eq!(exit.unwrap(), b"x\x04\x01\x03");
        assert_eq!(encoder.event(&event(9, 'f', "x")), None);
    }
}
