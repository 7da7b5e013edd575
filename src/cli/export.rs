//! `sallyport session export`: a recording as asciicast v3, asciicast v2 or plain text, streamed in bounded memory.

use std::io::{self, Write};

use anyhow::Context;
use futures::{Stream, StreamExt};
use sallyport_domain::cast::{Encoder, Header, Version};
use sallyport_domain::recording::frame::Frame;

use crate::app::transcript::Transcript;

/// What a recording is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// asciicast v3
    Cast,
    /// asciicast v2, for asciinema 2
    Cast2,
    /// plain text
    Txt,
}

/// So much is gathered before it is written, in bytes.
const ENOUGH: usize = 64 << 10;

/// Writes the recording whose frames come from `frames` to `out`. A recording with a terminal has a size in `header`.
/// Gives the number of bytes written.
pub async fn export<S, E>(
    format: ExportFormat,
    header: &Header,
    frames: S,
    out: impl Write,
) -> anyhow::Result<u64>
where
    S: Stream<Item = Result<Frame, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut frames = std::pin::pin!(frames);
    let mut sink = Sink { out, written: 0 };
    let mut making = Making::new(format, header, &mut sink)?;
    while let Some(frame) = frames.next().await {
        let frame = frame.context("cannot read the recording further")?;
        making.frame(&frame, &mut sink)?;
    }
    making.finish(&mut sink)?;
    sink.out.flush().context("cannot write the export")?;
    Ok(sink.written)
}

enum Making {
    Cast {
        encoder: Encoder,
        lines: Vec<u8>,
    },
    Text {
        transcript: Transcript,
        text: String,
    },
}

struct Sink<W> {
    out: W,
    written: u64,
}

impl<W: Write> Sink<W> {
    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let done: io::Result<()> = self.out.write_all(bytes);
        self.written += bytes.len() as u64;
        done.context("cannot write the export")
    }
}

impl Making {
    fn new(
        format: ExportFormat,
        header: &Header,
        sink: &mut Sink<impl Write>,
    ) -> anyhow::Result<Self> {
        let cast = |version| {
            let mut lines = Vec::new();
            let encoder = Encoder::new(version, header, &mut lines);
            Making::Cast { encoder, lines }
        };
        let mut making = match format {
            ExportFormat::Cast => cast(Version::V3),
            ExportFormat::Cast2 => cast(Version::V2),
            ExportFormat::Txt => Making::Text {
                transcript: Transcript::new(header.size),
                text: String::new(),
            },
        };
        making.drain(0, sink)?;
        Ok(making)
    }

    fn frame(&mut self, frame: &Frame, sink: &mut Sink<impl Write>) -> anyhow::Result<()> {
        match self {
            Making::Cast { encoder, lines } => encoder.frame(frame, lines),
            Making::Text { transcript, text } => transcript.frame(frame, text),
        }
        self.drain(ENOUGH, sink)
    }

    fn drain(&mut self, enough: usize, sink: &mut Sink<impl Write>) -> anyhow::Result<()> {
        match self {
            Making::Cast { lines, .. } if lines.len() >= enough => {
                sink.put(lines)?;
                lines.clear();
            }
            Making::Text { text, .. } if text.len() >= enough => {
                sink.put(text.as_bytes())?;
                text.clear();
            }
            Making::Cast { .. } | Making::Text { .. } => {}
        }
        Ok(())
    }

    fn finish(self, sink: &mut Sink<impl Write>) -> anyhow::Result<()> {
        match self {
            Making::Cast { encoder, mut lines } => {
                encoder.finish(&mut lines);
                sink.put(&lines)
            }
            Making::Text {
                transcript,
                mut text,
            } => {
                transcript.finish(&mut text);
                sink.put(text.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures::stream;
    use sallyport_domain::channel::TerminalSize;
    use sallyport_domain::recording::frame::Body;

    use super::*;

    async fn exported(format: ExportFormat, bodies: Vec<Body>) -> String {
        let header = Header {
            size: Some(TerminalSize { cols: 80, rows: 24 }),
            term: Some("xterm".to_owned()),
            timestamp: Some(1_700_000_000),
            title: None,
            command: None,
            env: [("SHELL".to_owned(), "/bin/sh".to_owned())].into(),
        };
        let frame = |(number, body)| {
            Ok::<_, Infallible>(Frame {
                at: number as u64 * 1_250_001,
                body,
            })
        };
        let mut out = Vec::new();
        let frames = stream::iter(bodies.into_iter().enumerate().map(frame));
        let written = export(format, &header, frames, &mut out).await.unwrap();
        assert_eq!(written, out.len() as u64);
        String::from_utf8(out).unwrap()
    }

    fn output(text: &str) -> Body {
        Body::Output(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn another_implementation_reads_our_v2_cast() {
        let bodies = vec![
            output("\x1b[1mhello\x1b[m\r\n"),
            Body::Input(Bytes::from_static(b"q\0")),
            output("界\u{7f}\u{2028}"),
        ];
        let cast = exported(ExportFormat::Cast2, bodies).await;
        let mut lines = cast.split_terminator('\n');
        let header: asciicast::Header = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!((header.version, header.width, header.height), (2, 80, 24));
        let entry = |time, event_type, text: &str| asciicast::Entry {
            time,
            event_type,
            event_data: text.to_owned(),
        };
        let read: Vec<asciicast::Entry> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let expected = [
            entry(0.0, asciicast::EventType::Output, "\x1b[1mhello\x1b[m\r\n"),
            entry(1.250_001, asciicast::EventType::Input, "q\0"),
            entry(2.500_002, asciicast::EventType::Output, "界\u{7f}\u{2028}"),
        ];
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn text_is_what_the_terminal_showed() {
        let bodies = vec![
            output("a\r\n\x1b[31mb"),
            output("c\x1b[m\r\n"),
            Body::ExitStatus(0),
        ];
        assert_eq!(exported(ExportFormat::Txt, bodies).await, "a\nbc\n");
    }
}
