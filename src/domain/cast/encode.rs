//! Writes casts, a frame at a time: asciicast v3, with intervals, and v2, with times since the start.
//!
//! Times are whole microseconds all the way, so an hour of intervals still ends on time.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::Header;
use super::event::{Event, Events};
use crate::channel::TerminalSize;
use crate::recording::frame::Frame;

/// Which asciicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// For asciinema 2.
    V2,
    V3,
}

/// Writes one cast.
#[derive(Debug)]
pub struct Encoder {
    events: Events,
    clock: Clock,
}

#[derive(Debug)]
struct Clock {
    version: Version,
    /// When the last event was, in microseconds.
    last: u64,
}

impl Encoder {
    /// Starts a cast: appends its first line to `out`.
    pub fn new(version: Version, header: &Header, out: &mut Vec<u8>) -> Self {
        push_line(&header_line(version, header), out);
        Self { events: Events::new(header.size.is_some()), clock: Clock { version, last: 0 } }
    }

    /// Appends what `frame` has to say to `out`, in whole lines.
    pub fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let Self { events, clock } = self;
        events.frame(frame, &mut |event| clock.write(&event, out));
    }

    /// Ends the cast.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let Self { events, clock } = &mut self;
        events.finish(&mut |event| clock.write(&event, out));
    }
}

impl Clock {
    fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let time = match self.version {
            Version::V2 => event.at,
            Version::V3 => event.at - self.last.min(event.at),
        };
        self.last = self.last.max(event.at);
        // Writing to memory does not fail, and a string always serialises.
        let _ = write!(out, "[{}.{:06}, \"{}\", ", time / 1_000_000, time % 1_000_000, event.code);
        let _ = serde_json::to_writer(&mut *out, &event.data);
        out.extend_from_slice(b"]\n");
    }
}

fn push_line(line: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

fn header_line(version: Version, header: &Header) -> Value {
    let size = header.size.unwrap_or(TerminalSize { cols: 0, rows: 0 }).drawable();
    let mut line = Map::new();
    let mut env = header.env.clone();
    match version {
        Version::V2 => {
            line.insert("version".to_owned(), 2.into());
            line.insert("width".to_owned(), size.cols.into());
            line.insert("height".to_owned(), size.rows.into());
            if let Some(term) = &header.term {
                env.insert("TERM".to_owned(), term.clone());
            }
        }
        Version::V3 => {
            line.insert("version".to_owned(), 3.into());
            let mut term = json!({ "cols": size.cols, "rows": size.rows });
            if let Some(name) = &header.term {
                term["type"] = name.clone().into();
            }
            line.insert("term".to_owned(), term);
        }
    }
    if let Some(timestamp) = header.timestamp {
        line.insert("timestamp".to_owned(), timestamp.into());
    }
    for (key, text) in [("title", &header.title), ("command", &header.command)] {
        if let Some(text) = text {
            line.insert(key.to_owned(), text.clone().into());
        }
    }
    if !env.is_empty() {
        line.insert("env".to_owned(), json!(env));
    }
    // An attribute of ours: readers ignore those they do not know.
    if header.size.is_none() {
        line.insert("sallyport".to_owned(), json!({ "terminal": false }));
    }
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::recording::frame::Body;

    fn cast(version: Version, size: Option<TerminalSize>, frames: &[(u64, Body)]) -> String {
        let header = Header {
            size,
            term: Some("xterm".to_owned()),
            timestamp: Some(1_700_000_000),
            title: None,
            command: Some("ls".to_owned()),
            env: [("LANG".to_owned(), "C".to_owned())].into(),
        };
        let mut out = Vec::new();
        let mut encoder = Encoder::new(version, &header, &mut out);
        for (at, body) in frames {
            encoder.frame(&Frame { at: *at, body: body.clone() }, &mut out);
        }
        encoder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn output(bytes: &'static [u8]) -> Body {
        Body::Output(Bytes::from_static(bytes))
    }

    const SIZE: Option<TerminalSize> = Some(TerminalSize { cols: 90, rows: 30 });

    #[test]
    fn a_v3_cast_has_intervals() {
        let frames = [
            (1, output(b"a\x1b[m\xe7\x95")),
            (1_500_000, output(b"\x8c\r\n")),
            (1_500_000, output(b"\xff")),
            (2_000_000, Body::Resize(TerminalSize { cols: 100, rows: 40 })),
            (62_000_001, Body::MaskedInput { bytes: 3 }),
            (62_000_001, Body::ExitStatus(7)),
        ];
        assert_eq!(
            cast(Version::V3, SIZE, &frames),
            concat!(
                "{\"command\":\"ls\",\"env\":{\"LANG\":\"C\"},\"term\":{\"cols\":90,\"rows\":30,\"type\":\"xterm\"},",
                "\"timestamp\":1700000000,\"version\":3}\n",
                "[0.000001, \"o\", \"a\\u001b[m\"]\n",
                "[1.499999, \"o\", \"界\\r\\n\"]\n",
                "[0.000000, \"o\", \"\u{fffd}\"]\n",
                "[0.000000, \"f\", \"o /w==\"]\n",
                "[0.500000, \"r\", \"100x40\"]\n",
                "[60.000001, \"i\", \"•••\"]\n",
                "[0.000000, \"f\", \"m AAAAAw==\"]\n",
                "[0.000000, \"x\", \"7\"]\n",
            )
        );
    }

    #[test]
    fn a_v2_cast_has_times() {
        let frames = [(1_000_000, output(b"a")), (2_500_000, output(b"b"))];
        let cast = cast(Version::V2, SIZE, &frames);
        let lines: Vec<&str> = cast.lines().collect();
        assert!(lines[0].contains("\"version\":2") && lines[0].contains("\"width\":90"), "{}", lines[0]);
        assert_eq!(lines[1..], ["[1.000000, \"o\", \"a\"]", "[2.500000, \"o\", \"b\"]"]);
    }

    #[test]
    fn without_a_terminal_stderr_is_told_apart_and_lines_start_at_the_left() {
        let frames = [(0, output(b"a\nb\n")), (0, Body::ErrorOutput(Bytes::from_static(b"no\n")))];
        let cast = cast(Version::V3, None, &frames);
        let lines: Vec<&str> = cast.lines().collect();
        assert!(lines[0].contains("\"sallyport\":{\"terminal\":false}"), "{}", lines[0]);
        let events =
            ["[0.000000, \"o\", \"a\\r\\nb\\r\\n\"]", "[0.000000, \"o\", \"no\\r\\n\"]", "[0.000000, \"f\", \"e\"]"];
        assert_eq!(lines[1..], events);
    }
}
