//! Reads casts, a line at a time: asciicast v3 and v2, ours or anyone's.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::base64;
use super::event::FRAME_CODE;
use super::{Header, Version};
use crate::channel::TerminalSize;
use crate::recording::frame::{Body, Frame};

/// Why a line is not part of a cast.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CastError {
    #[error("the first line is not the header of an asciicast v2 or v3")]
    Header,
    #[error("line {line} is not an event")]
    Event { line: usize },
    #[error("the event in line {line} has data that does not fit its code")]
    Data { line: usize },
}

/// Reads one cast.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Option<(Version, Header)>,
    line: usize,
    /// Microseconds since the start.
    at: u64,
    /// The last event: an `f` may follow that says more of it.
    last: Option<Frame>,
    /// The last event was an `m`: nothing, unless an `f` follows.
    marked: bool,
}

#[derive(Deserialize)]
struct HeaderLine {
    version: u32,
    width: Option<u16>,
    height: Option<u16>,
    term: Option<Term>,
    timestamp: Option<u64>,
    title: Option<String>,
    command: Option<String>,
    env: Option<BTreeMap<String, String>>,
    sallyport: Option<Ours>,
}

#[derive(Deserialize)]
struct Term {
    cols: u16,
    rows: u16,
    #[serde(rename = "type")]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Ours {
    terminal: bool,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// What the first line said, once it was read.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref().map(|(_, header)| header)
    }

    /// Takes the next line, without its line feed; frames that are complete are appended to `out`.
    pub fn line(&mut self, line: &str, out: &mut Vec<Frame>) -> Result<(), CastError> {
        self.line += 1;
        let Some((version, header)) = &self.header else {
            self.header = Some(read_header(line).ok_or(CastError::Header)?);
            return Ok(());
        };
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (version, has_terminal) = (*version, header.size.is_some());
        let event = CastError::Event { line: self.line };
        let (time, code, data): (f64, String, Value) = serde_json::from_str(line).map_err(|_| event.clone())?;
        let time = (time * 1e6).round();
        // Casts have a sign and no bound; a recording has neither.
        if !(0.0..1e18).contains(&time) {
            return Err(event);
        }
        let time = time as u64;
        self.at = match version {
            Version::V2 => self.at.max(time),
            Version::V3 => self.at.saturating_add(time),
        };
        let mut code = code.chars();
        let (Some(code), None) = (code.next(), code.next()) else {
            return if code.as_str().is_empty() { Err(event) } else { Ok(()) };
        };
        self.event(code, &data, has_terminal, out).ok_or(CastError::Data { line: self.line })
    }

    /// The cast ended.
    pub fn finish(self, out: &mut Vec<Frame>) {
        out.extend(self.last);
    }

    fn event(&mut self, code: char, data: &Value, has_terminal: bool, out: &mut Vec<Frame>) -> Option<()> {
        let body = match code {
            FRAME_CODE => return self.exact(data.as_str()?, out),
            'o' if has_terminal => Some(Body::Output(Bytes::from(data.as_str()?.to_owned()))),
            'o' => Some(Body::Output(Bytes::from(data.as_str()?.replace("\r\n", "\n")))),
            'i' => Some(Body::Input(Bytes::from(data.as_str()?.to_owned()))),
            'r' => {
                let (cols, rows) = data.as_str()?.split_once('x')?;
                Some(Body::Resize(TerminalSize { cols: cols.parse().ok()?, rows: rows.parse().ok()? }))
            }
            'x' => data.as_str()?.parse().ok().map(Body::ExitStatus),
            _ => None,
        };
        out.extend(self.last.take());
        self.last = body.map(|body| Frame { at: self.at, body });
        self.marked = code == 'm';
        Some(())
    }

    /// An `f`: the frame itself, in place of the event before or on its own.
    fn exact(&mut self, data: &str, out: &mut Vec<Frame>) -> Option<()> {
        let mut parts = data.splitn(2, ' ');
        let &[kind] = parts.next()?.as_bytes() else {
            return None;
        };
        let before = self.last.take();
        let bytes = match parts.next() {
            Some(text) => Bytes::from(base64::decode(text)?),
            None => match (kind, &before) {
                (b'e' | b'n', Some(Frame { body: Body::Output(bytes), .. })) => bytes.clone(),
                _ => Bytes::new(),
            },
        };
        let body = Body::parse(kind, bytes).ok()?;
        match kind {
            b'z' | b'y' | b'h' | b'f' => out.extend(before),
            // It says what `before` was, or what the marker meant.
            _ if before.is_some() || self.marked => {}
            _ => return None,
        }
        self.marked = false;
        out.push(Frame { at: self.at, body });
        Some(())
    }
}

/// Reads a whole cast.
pub fn decode(cast: &str) -> Result<(Header, Vec<Frame>), CastError> {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    for line in cast.split('\n') {
        decoder.line(line, &mut frames)?;
    }
    let header = decoder.header().cloned().ok_or(CastError::Header)?;
    decoder.finish(&mut frames);
    Ok((header, frames))
}

fn read_header(line: &str) -> Option<(Version, Header)> {
    let line: HeaderLine = serde_json::from_str(line).ok()?;
    let mut env = line.env.unwrap_or_default();
    let (version, size, term) = match line.version {
        2 => (Version::V2, TerminalSize { cols: line.width?, rows: line.height? }, env.remove("TERM")),
        3 => {
            let term = line.term?;
            (Version::V3, TerminalSize { cols: term.cols, rows: term.rows }, term.name)
        }
        _ => return None,
    };
    let size = line.sallyport.is_none_or(|ours| ours.terminal).then_some(size);
    let header = Header { size, term, timestamp: line.timestamp, title: line.title, command: line.command, env };
    Some((version, header))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cast::Encoder;
    use crate::recording::frame::tests::any_frame;

    #[test]
    fn the_example_of_the_v3_manual_is_read() {
        let cast = concat!(
            "{\"version\": 3, \"term\": {\"cols\": 80, \"rows\": 24, \"type\": \"xterm-256color\"}, \"timestamp\": 1504467315, \"title\": \"Demo\", \"env\": {\"SHELL\": \"/bin/zsh\"}}\n",
            "# event stream follows the header\n",
            "[0.248, \"o\", \"\\u001b[1;31mHello\\n\"]\n",
            "[3.500, \"m\", \"\"]\n",
            "[2.050, \"r\", \"90x30\"]\n",
            "[0.887, \"x\", \"0\"]\n",
        );
        let (header, frames) = decode(cast).unwrap();
        assert_eq!(header.title.as_deref(), Some("Demo"));
        let expected = [
            (248_000, Body::Output(Bytes::from_static(b"\x1b[1;31mHello\n"))),
            (5_798_000, Body::Resize(TerminalSize { cols: 90, rows: 30 })),
            (6_685_000, Body::ExitStatus(0)),
        ];
        assert_eq!(frames, expected.map(|(at, body)| Frame { at, body }));
    }

    #[test]
    fn faults_are_named_with_their_line() {
        let header = "{\"version\":2,\"width\":80,\"height\":24}";
        assert_eq!(decode("{}"), Err(CastError::Header));
        assert_eq!(decode(&format!("{header}\n[1, \"o\"]")), Err(CastError::Event { line: 2 }));
        assert_eq!(decode(&format!("{header}\n\n[1, \"r\", \"x\"]")), Err(CastError::Data { line: 3 }));
        assert_eq!(decode(&format!("{header}\n[-1, \"o\", \"\"]")), Err(CastError::Event { line: 2 }));
        assert_eq!(decode(&format!("{header}\n[1, \"f\", \"e\"]")), Err(CastError::Data { line: 2 }));
    }

    /// The bytes of each stream, and all other frames with their times.
    fn streams(frames: &[Frame]) -> (BTreeMap<u8, Vec<u8>>, Vec<Frame>) {
        let (mut streams, mut others) = (BTreeMap::<u8, Vec<u8>>::new(), Vec::new());
        for frame in frames {
            match &frame.body {
                Body::Output(bytes) | Body::ErrorOutput(bytes) | Body::Input(bytes) | Body::Notice(bytes) => {
                    if !bytes.is_empty() {
                        streams.entry(frame.body.kind()).or_default().extend_from_slice(bytes);
                    }
                }
                _ => others.push(frame.clone()),
            }
        }
        (streams, others)
    }

    fn header(size: Option<TerminalSize>) -> impl Strategy<Value = Header> {
        let text = || prop::option::of(".{0,8}");
        (text(), prop::option::of(any::<u64>()), text(), text()).prop_map(move |(term, timestamp, title, command)| {
            Header { size, term, timestamp, title, command, env: [("LANG".to_owned(), "C".to_owned())].into() }
        })
    }

    fn any_header() -> impl Strategy<Value = Header> {
        prop_oneof![
            header(None),
            (1_u16..1000, 1_u16..1000).prop_flat_map(|(cols, rows)| header(Some(TerminalSize { cols, rows })))
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back_from_a_cast(
            header in any_header(), is_v3: bool, mut frames in prop::collection::vec(any_frame(), 0..20),
        ) {
            let mut at = 0;
            for frame in &mut frames {
                at += frame.at % 40_000_000_000; // eleven hours
                frame.at = at;
            }
            let mut cast = Vec::new();
            let version = if is_v3 { Version::V3 } else { Version::V2 };
            let mut encoder = Encoder::new(version, &header, &mut cast);
            frames.iter().for_each(|frame| encoder.frame(frame, &mut cast));
            encoder.finish(&mut cast);
            let (found, read) = decode(&String::from_utf8(cast).unwrap()).unwrap();
            prop_assert_eq!(found, header);
            prop_assert_eq!(streams(&read), streams(&frames));
            prop_assert!(read.is_sorted_by_key(|frame| frame.at));
            // Packets that end between characters come back as they were.
            if frames.iter().all(|frame| std::str::from_utf8(&frame.body.to_bytes()).is_ok()) {
                frames.retain(|frame| !matches!(&frame.body, Body::Output(bytes) | Body::ErrorOutput(bytes) | Body::Input(bytes) | Body::Notice(bytes) if bytes.is_empty()));
                prop_assert_eq!(read, frames);
            }
        }

        #[test]
        fn hostile_lines_give_an_error_and_no_panic(lines in prop::collection::vec(".{0,40}", 0..8), ours in ".{0,8}") {
            let _ = decode(&lines.join("\n"));
            let text = Value::from(ours.clone());
            let _ = decode(&format!("{{\"version\":3,\"term\":{{\"cols\":1,\"rows\":1}}}}\n[0, \"o\", {text}]\n[0, \"f\", {text}]\n{ours}"));
        }
    }
}
