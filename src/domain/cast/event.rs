//! Frames as asciicast events: what a player shows, and what it takes to get the frame back.
//!
//! | frame | event | then `f` |
//! |---|---|---|
//! | output | `o` text | if it is not UTF-8: `o base64` |
//! | stderr | `o` text | `e`, or if it is not UTF-8 `e base64` |
//! | notice | `o` text | `n`, or if it is not UTF-8 `n base64` |
//! | input | `i` text | if it is not UTF-8: `i base64` |
//! | masked input | `i` one `•` per byte, at most 64 | `m base64` |
//! | withheld output | `m` how many bytes | `w base64` |
//! | resize | `r` COLSxROWS, a size fit for drawing | if the frame's is another: `r base64` |
//! | exit status | `x` status | |
//! | signal, break, killed, gap, end | `m` in words | its letter and `base64` |
//! | input ended, output ended, header | | its letter, and `base64` if it has a body |
//!
//! `f` holds a frame's letter and, behind a space, its body in base64 ([`crate::recording::frame`] lists both). It
//! speaks of the event right before it, except for `z`, `y` and `h`, which stand alone. Where the body is left out it
//! is the text of the event before. Without a terminal each line feed of output is shown as CR LF, or players
//! would draw stairs; to go back, take one CR from before each line feed.
//!
//! A character cut by a packet's end moves to the next packet of its stream ([`super::utf8`]).

use std::borrow::Cow;

use super::base64;
use super::utf8::{Piece, Utf8};
use crate::recording::frame::{Body, Frame};

/// The code of the event that gives a frame back; players ignore it.
pub const FRAME_CODE: char = 'f';

/// The mask shows this many bytes at most.
const MOST_MASK: usize = 64;

/// An asciicast event, at a time in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    pub at: u64,
    pub code: char,
    pub data: Cow<'a, str>,
}

/// Turns frames into events, one stream's cut characters apart from another's.
#[derive(Debug)]
pub struct Events {
    has_terminal: bool,
    at: u64,
    output: Utf8,
    error_output: Utf8,
    notice: Utf8,
    input: Utf8,
}

impl Events {
    /// For a recording with or without a terminal, from its start or from the start of any segment.
    pub fn new(has_terminal: bool) -> Self {
        Self {
            has_terminal,
            at: 0,
            output: Utf8::default(),
            error_output: Utf8::default(),
            notice: Utf8::default(),
            input: Utf8::default(),
        }
    }

    /// Says `frame` in events. Times never run backwards.
    pub fn frame(&mut self, frame: &Frame, emit: &mut impl FnMut(Event<'_>)) {
        self.at = self.at.max(frame.at);
        let at = self.at;
        match &frame.body {
            Body::Output(bytes) => self.output.push(bytes).into_iter().for_each(|piece| self.show('o', &piece, emit)),
            Body::ErrorOutput(bytes) => {
                self.error_output.push(bytes).into_iter().for_each(|piece| self.show('e', &piece, emit));
            }
            Body::Notice(bytes) => self.notice.push(bytes).into_iter().for_each(|piece| self.show('n', &piece, emit)),
            Body::Input(bytes) => self.input.push(bytes).into_iter().for_each(|piece| self.show('i', &piece, emit)),
            Body::MaskedInput { bytes } => {
                let count = usize::try_from(*bytes).unwrap_or(MOST_MASK).min(MOST_MASK);
                self.tell('i', "•".repeat(count), &frame.body, emit);
            }
            Body::WithheldOutput { bytes } => {
                self.tell('m', format!("{bytes} bytes out, not kept"), &frame.body, emit);
            }
            Body::Resize(size) => {
                let drawn = size.drawable();
                emit(Event { at, code: 'r', data: format!("{}x{}", drawn.cols, drawn.rows).into() });
                if drawn != *size {
                    emit(exact(at, &frame.body));
                }
            }
            Body::ExitStatus(status) => emit(Event { at, code: 'x', data: status.to_string().into() }),
            Body::Signal(name) => self.tell('m', format!("signal {name}"), &frame.body, emit),
            Body::Break { milliseconds } => self.tell('m', format!("break, {milliseconds} ms"), &frame.body, emit),
            Body::ExitSignal { name, core_dumped, message } => {
                let core = if *core_dumped { ", core dumped" } else { "" };
                let colon = if message.is_empty() { "" } else { ": " };
                self.tell('m', format!("killed by signal {name}{core}{colon}{message}"), &frame.body, emit);
            }
            Body::Gap(reason) => self.tell('m', format!("something is missing here: {reason}"), &frame.body, emit),
            Body::End(_) => {
                self.finish(emit);
                self.tell('m', "the recording ends".to_owned(), &frame.body, emit);
            }
            Body::InputEnd => {
                self.input.finish().into_iter().for_each(|piece| self.show('i', &piece, emit));
                emit(exact(at, &frame.body));
            }
            Body::OutputEnd => {
                self.finish_output(emit);
                emit(exact(at, &frame.body));
            }
            Body::Header(_) | Body::File(_) => emit(exact(at, &frame.body)),
        }
    }

    /// The recording ended, or what is known of it: shows what was held of cut characters.
    pub fn finish(&mut self, emit: &mut impl FnMut(Event<'_>)) {
        self.finish_output(emit);
        self.input.finish().into_iter().for_each(|piece| self.show('i', &piece, emit));
    }

    fn finish_output(&mut self, emit: &mut impl FnMut(Event<'_>)) {
        self.output.finish().into_iter().for_each(|piece| self.show('o', &piece, emit));
        self.error_output.finish().into_iter().for_each(|piece| self.show('e', &piece, emit));
        self.notice.finish().into_iter().for_each(|piece| self.show('n', &piece, emit));
    }

    /// Bytes of the stream `kind`.
    fn show(&self, kind: char, piece: &Piece<'_>, emit: &mut impl FnMut(Event<'_>)) {
        let code = if kind == 'i' { 'i' } else { 'o' };
        let text = &*piece.text;
        let data = if code == 'o' && !self.has_terminal && text.contains('\n') {
            Cow::Owned(text.replace('\n', "\r\n"))
        } else {
            Cow::Borrowed(text)
        };
        emit(Event { at: self.at, code, data });
        if !piece.is_exact {
            let data = format!("{kind} {}", base64::encode(&piece.bytes));
            emit(Event { at: self.at, code: FRAME_CODE, data: data.into() });
        } else if kind != code {
            emit(Event { at: self.at, code: FRAME_CODE, data: kind.to_string().into() });
        }
    }

    /// Words for what asciicast has no event for, and the frame itself.
    fn tell(&self, code: char, words: String, body: &Body, emit: &mut impl FnMut(Event<'_>)) {
        emit(Event { at: self.at, code, data: words.into() });
        emit(exact(self.at, body));
    }
}

fn exact(at: u64, body: &Body) -> Event<'static> {
    let kind = char::from(body.kind());
    let bytes = body.to_bytes();
    let data = if bytes.is_empty() { kind.to_string() } else { format!("{kind} {}", base64::encode(&bytes)) };
    Event { at, code: FRAME_CODE, data: data.into() }
}
