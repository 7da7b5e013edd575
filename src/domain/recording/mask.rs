//! Which typed bytes the terminal did not echo: they are replaced by their number, so that a password never leaves
//! the journal. For recordings with a terminal; programs without one read data, not key strokes.
//!
//! Typed bytes are cut into characters. Control bytes and escape sequences (Enter, Tab, arrows, the brackets of a
//! bracketed paste) are no secrets and are kept. Every other character is *open* until it is known whether the
//! terminal showed it, and a *line*, from one Enter to the next, is judged as a whole:
//!
//! - **Before Enter** an echo is the very next thing shown: the character at the start of an output packet, or behind
//!   a redraw of no more than what this line has already shown (a shell that colours its line repaints it). What is
//!   drawn after the cursor was placed elsewhere (a status line, a clock) or after a line feed is not an echo.
//! - **After Enter** (a paste, a slow link) the text on the row, when its line feed arrives, must end with exactly the
//!   characters still open, all of them shown after they were typed. Anything less shows nothing. What follows the
//!   line feed is never an echo of what was typed before it.
//! - A row of `*` in answer to other characters hides the line.
//! - Where half or less of a line's characters was echoed, chance may have done it, and the whole line is masked;
//!   else only the characters that were not echoed are.
//!
//! What is not known after [`PATIENCE_US`], or when [`Masker::flush`] asks, or when more than [`MOST_OPEN`] characters
//! wait, was not echoed: in doubt it is masked. The price is that some harmless keys are masked too (vim's normal
//! mode, a key typed while other output is under way); what a screen shows of them is in the output in any case.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::{Body, Frame};

/// How long a typed character may wait for its echo, in microseconds.
pub const PATIENCE_US: u64 = 3_000_000;

/// How many characters and control bytes may wait; a line counts as eight.
pub const MOST_OPEN: usize = 64 << 10;

/// How long a line feed is expected after an Enter whose line was echoed in full, in microseconds.
const LINE_FEED_US: u64 = 1_000_000;

/// The longest row that is remembered, in characters.
const MOST_ROW: usize = 16 << 10;

/// The longest escape sequence that a keyboard or a terminal's answer is believed to send, in bytes.
const MOST_KEY: usize = 64;

/// How far ahead an echo may skip characters that were not echoed (keys of an editor).
const MOST_JUMP: usize = 64;

/// Replaces typed characters that were not echoed. See the [module](self) for the rules.
#[derive(Debug)]
pub struct Masker {
    /// Oldest first; all but the last are ended. Never empty.
    lines: VecDeque<Line>,
    waiting: usize,
    /// How many characters were ever typed: what is shown now can only be an echo of those.
    typed: u64,
    /// Line feeds that answer an Enter that is already out, and until when.
    owed: u32,
    owed_until: u64,
    screen: Scanner,
    row: Row,
}

/// What was typed from one Enter to the next.
#[derive(Debug, Default)]
struct Line {
    keys: VecDeque<Key>,
    /// Characters of this line so far, those that are already out included.
    characters: usize,
    echoed: usize,
    open: usize,
    /// No key before this place is open.
    first_open: usize,
    ended: bool,
    starred: bool,
}

/// A typed character, or one byte of what is kept in any case.
#[derive(Debug, Clone, Copy)]
struct Key {
    at: u64,
    /// For a character, how many were typed before it.
    number: u64,
    sign: Sign,
    bytes: u8,
    state: State,
    /// The first of its packet: packets are not joined.
    starts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A control byte or part of an escape sequence.
    Kept,
    Open,
    Echoed,
    NotEchoed,
}

/// A character, or above all characters, a byte that is not UTF-8.
type Sign = u32;

const NOT_TEXT: Sign = 0x11_0000;

impl Default for Masker {
    fn default() -> Self {
        Self::new()
    }
}

impl Masker {
    pub fn new() -> Self {
        Self {
            lines: VecDeque::from([Line::default()]),
            waiting: 0,
            typed: 0,
            owed: 0,
            owed_until: 0,
            screen: Scanner::default(),
            row: Row::default(),
        }
    }

    /// Takes the next frame. Input comes out once it is decided, with its own `at`; every other frame at once and
    /// unchanged. Sorting what comes out by `at`, stably, restores the order.
    pub fn push(&mut self, frame: Frame, out: &mut Vec<Frame>) {
        self.tick(frame.at, out);
        match &frame.body {
            Body::Input(bytes) => {
                let (at, bytes) = (frame.at, bytes.clone());
                self.take_input(at, &bytes, out);
                return;
            }
            Body::Output(bytes) | Body::ErrorOutput(bytes) => {
                let (at, bytes) = (frame.at, bytes.clone());
                out.push(frame);
                self.take_output(at, &bytes, out);
                return;
            }
            Body::Resize(size) => self.row.width = usize::from(size.drawable().cols),
            Body::End(_) | Body::Gap(_) => self.flush(out),
            Body::MaskedInput { .. }
            | Body::WithheldOutput { .. }
            | Body::Notice(_)
            | Body::InputEnd
            | Body::OutputEnd
            | Body::Signal(_)
            | Body::Break { .. }
            | Body::ExitStatus(_)
            | Body::ExitSignal { .. }
            | Body::File(_)
            | Body::Header(_) => {}
        }
        out.push(frame);
    }

    /// Decides what has waited longer than [`PATIENCE_US`] at `now_us`, the recording's clock.
    pub fn tick(&mut self, now_us: u64, out: &mut Vec<Frame>) {
        while let Some(line) = self.lines.front_mut() {
            let late = line.keys.iter().take_while(|key| key.at.saturating_add(PATIENCE_US) < now_us).count();
            if late == 0 {
                break;
            }
            line.give_up(late);
            self.release(late, out);
        }
        if now_us > self.owed_until {
            self.owed = 0;
        }
    }

    /// Decides everything now: what was not seen echoed is masked.
    pub fn flush(&mut self, out: &mut Vec<Frame>) {
        while self.waiting > 0 {
            let Some(line) = self.lines.front_mut() else {
                return;
            };
            let all = line.keys.len();
            line.give_up(all);
            self.release(all, out);
        }
    }

    /// Whether input still waits to be decided.
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    fn take_input(&mut self, at: u64, bytes: &[u8], out: &mut Vec<Frame>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let starts = rest.len() == bytes.len();
            let escape = escape_length(rest);
            if escape > 0 {
                for (place, byte) in rest[..escape].iter().enumerate() {
                    self.take_key(at, u32::from(*byte), 1, State::Kept, starts && place == 0);
                }
                rest = &rest[escape..];
                continue;
            }
            let (sign, length) = first_sign(rest);
            let is_control = sign < 0x20 || sign == 0x7f;
            let state = if is_control { State::Kept } else { State::Open };
            self.take_key(at, sign, length, state, starts);
            // Enter, or a key that drops the line: Ctrl-C, Ctrl-Z, Ctrl-\.
            if matches!(sign, 0x0d | 0x0a | 0x03 | 0x1a | 0x1c)
                && let Some(line) = self.lines.back_mut()
            {
                line.ended = true;
                self.lines.push_back(Line::default());
            }
            rest = &rest[usize::from(length)..];
            while self.waiting + self.lines.len() * 8 > MOST_OPEN
                && let Some(line) = self.lines.front_mut()
            {
                let some = line.keys.len().clamp(1, 4096);
                line.give_up(some);
                self.release(some, out);
            }
        }
        self.settle(at, out);
    }

    fn take_key(&mut self, at: u64, sign: Sign, bytes: u8, state: State, starts: bool) {
        let Some(line) = self.lines.back_mut() else {
            return;
        };
        if state == State::Open {
            line.characters += 1;
            line.open += 1;
            self.typed += 1;
        }
        line.keys.push_back(Key { at, number: self.typed, sign, bytes, state, starts });
        self.waiting += 1;
    }

    fn take_output(&mut self, at: u64, bytes: &[u8], out: &mut Vec<Frame>) {
        let rows = if self.awaits_nothing() { plain_rows(bytes) } else { 0 };
        self.take_output_behind(rows, at, bytes, out);
    }

    /// Whether no echo is looked for, and the next byte of output begins something new.
    fn awaits_nothing(&self) -> bool {
        let is_at_rest = self.screen.state == Scan::Ground && self.screen.length == 0;
        is_at_rest && self.waiting == 0 && self.lines.len() == 1 && self.lines.iter().all(|line| !line.ended)
    }

    /// Takes a packet whose first `rows` bytes are whole rows that are nobody's echo: of those only the line feeds count.
    fn take_output_behind(&mut self, rows: usize, at: u64, bytes: &[u8], out: &mut Vec<Frame>) {
        let (rows, bytes) = bytes.split_at(rows);
        let mut packet = Packet::default();
        if !rows.is_empty() {
            let line_feeds = rows.iter().filter(|byte| **byte == b'\n').count();
            self.owed = self.owed.saturating_sub(u32::try_from(line_feeds).unwrap_or(u32::MAX));
            self.row.clear();
            packet = Packet { elsewhere: true, signs: rows.len(), ..packet };
        }
        let mut scanner = std::mem::take(&mut self.screen);
        for &byte in bytes {
            scanner.feed(byte, &mut |shown| self.take_shown(at, shown, &mut packet, out));
        }
        self.screen = scanner;
        if packet.stars > 0
            && packet.stars == packet.signs
            && let Some(line) = self.lines.front_mut()
        {
            line.starred |= line.open > 0;
        }
        self.settle(at, out);
    }

    fn take_shown(&mut self, at: u64, shown: Shown, packet: &mut Packet, out: &mut Vec<Frame>) {
        match shown {
            Shown::Sign(sign) => {
                self.row.write(sign, self.typed);
                self.match_echo(sign, packet);
            }
            Shown::LineFeed => {
                packet.elsewhere = true;
                self.take_line_feed(at, out);
                self.row.clear();
            }
            Shown::Elsewhere => {
                packet.elsewhere = true;
                self.row.clear();
            }
            Shown::Move(step) => self.row.apply(step),
        }
    }

    /// The rule before Enter.
    fn match_echo(&mut self, sign: Sign, packet: &mut Packet) {
        let first = packet.signs == 0;
        packet.signs += 1;
        let Some(line) = self.lines.front_mut().filter(|line| !line.ended && line.open > 0) else {
            return;
        };
        let near = !packet.elsewhere && packet.skipped <= line.echoed;
        if near && line.echo(sign, if first { MOST_JUMP } else { 1 }) {
            packet.skipped = 0;
        } else {
            packet.skipped += 1;
            packet.stars += usize::from(matches!(char::from_u32(sign), Some('*' | '•' | '●' | '∗')));
        }
    }

    /// The rule after Enter: the row as it stands belongs to the first ended line whose open characters it ends with.
    fn take_line_feed(&mut self, at: u64, out: &mut Vec<Frame>) {
        let ended = self.lines.iter().filter(|line| line.ended).count();
        if ended == 0 {
            if self.owed > 0 {
                self.owed -= 1;
            } else if let Some(line) = self.lines.front_mut() {
                // Nobody pressed Enter: somebody else's line comes between these characters and any echo.
                line.give_up(line.keys.len());
            }
            return;
        }
        let row = &self.row;
        let echoed = self.lines.iter().take(ended).position(|line| line.open > 0 && row.ends_with(line));
        if echoed.is_none() && self.owed > 0 {
            self.owed -= 1;
            return;
        }
        for (place, line) in self.lines.iter_mut().take(echoed.unwrap_or(0) + 1).enumerate() {
            if Some(place) == echoed {
                line.accept();
            } else {
                line.give_up(line.keys.len());
            }
        }
        for _ in 0..=echoed.unwrap_or(0) {
            let all = self.lines.front().map_or(0, |line| line.keys.len());
            self.release(all, out);
        }
        self.settle(at, out);
    }

    /// Lets lines go that are ended and know all their characters; each expects a line feed.
    fn settle(&mut self, at: u64, out: &mut Vec<Frame>) {
        while let Some(line) = self.lines.front().filter(|line| line.open == 0) {
            let all = line.keys.len();
            if line.ended {
                self.owed += 1;
                self.owed_until = at.saturating_add(LINE_FEED_US);
                self.release(all, out);
                continue;
            }
            // A line under way goes as far as it is sure of itself: keys that are kept anyhow, at its start.
            if line.characters == 0 {
                self.release(all, out);
            }
            return;
        }
    }

    /// Gives out the first `count` keys of the first line, and the line itself once it is ended and empty.
    fn release(&mut self, count: usize, out: &mut Vec<Frame>) {
        let Some(line) = self.lines.front_mut() else {
            return;
        };
        let hidden = line.starred || line.echoed * 2 <= line.characters;
        let mut kept = Vec::new();
        let mut masked = 0_u32;
        let mut at = 0;
        let count = count.min(line.keys.len());
        for key in line.keys.drain(..count) {
            let mask = match key.state {
                State::Kept => false,
                State::Echoed => hidden,
                State::Open | State::NotEchoed => true,
            };
            if key.starts || (mask && !kept.is_empty()) || (!mask && masked > 0) {
                put(at, &mut kept, &mut masked, out);
            }
            at = key.at;
            if mask {
                masked += u32::from(key.bytes);
            } else {
                push_sign(key.sign, &mut kept);
            }
        }
        put(at, &mut kept, &mut masked, out);
        self.waiting -= count;
        line.first_open = line.first_open.saturating_sub(count);
        if line.ended && line.keys.is_empty() {
            self.lines.pop_front();
        } else if line.keys.is_empty() {
            line.keys.shrink_to(256);
        }
        if self.lines.is_empty() {
            self.lines.push_back(Line::default());
        }
    }
}

fn put(at: u64, kept: &mut Vec<u8>, masked: &mut u32, out: &mut Vec<Frame>) {
    if !kept.is_empty() {
        out.push(Frame { at, body: Body::Input(Bytes::from(std::mem::take(kept))) });
    }
    if *masked > 0 {
        out.push(Frame { at, body: Body::MaskedInput { bytes: std::mem::take(masked) } });
    }
}

impl Line {
    /// Takes `sign` for the echo of the first open character that is equal to it, among the first `reach` open ones.
    /// Those passed over were not echoed.
    fn echo(&mut self, sign: Sign, reach: usize) -> bool {
        while self.keys.get(self.first_open).is_some_and(|key| key.state != State::Open) {
            self.first_open += 1;
        }
        let from = self.first_open.min(self.keys.len());
        let mut open = self.keys.range(from..).filter(|key| key.state == State::Open).take(reach);
        let Some(passed) = open.position(|key| key.sign == sign) else {
            return false;
        };
        let open = self.keys.range_mut(from..).filter(|key| key.state == State::Open);
        for (place, key) in open.take(passed + 1).enumerate() {
            key.state = if place == passed { State::Echoed } else { State::NotEchoed };
        }
        self.open -= passed + 1;
        self.echoed += 1;
        true
    }

    /// What is open among the first `count` keys was not echoed.
    fn give_up(&mut self, count: usize) {
        for key in self.keys.iter_mut().take(count).filter(|key| key.state == State::Open) {
            key.state = State::NotEchoed;
            self.open -= 1;
        }
    }

    /// Everything open was echoed.
    fn accept(&mut self) {
        for key in self.keys.iter_mut().filter(|key| key.state == State::Open) {
            key.state = State::Echoed;
            self.echoed += 1;
        }
        self.open = 0;
    }
}

/// One packet of output, as the rule before Enter sees it.
#[derive(Debug, Default)]
struct Packet {
    signs: usize,
    skipped: usize,
    stars: usize,
    /// A line feed came or the cursor was placed: what follows is not an echo.
    elsewhere: bool,
}

/// The row that the cursor is in: what is shown there, and how many characters had been typed when it was.
#[derive(Debug)]
struct Row {
    signs: Vec<(Sign, u64)>,
    cursor: usize,
    /// Where the cursor was before it went back to the row's start, which is what Enter does first.
    end: usize,
    width: usize,
}

impl Default for Row {
    fn default() -> Self {
        Self { signs: Vec::new(), cursor: 0, end: 0, width: 80 }
    }
}

/// A move of the cursor within its row, or a change there.
#[derive(Debug, Clone, Copy)]
enum Step {
    Return,
    Left(usize),
    Right(usize),
    Erase,
    Delete(usize),
    Insert(usize),
}

impl Row {
    fn clear(&mut self) {
        self.signs.clear();
        self.signs.shrink_to(256);
        (self.cursor, self.end) = (0, 0);
    }

    fn write(&mut self, sign: Sign, typed: u64) {
        if self.cursor >= MOST_ROW {
            self.clear();
        }
        match self.signs.get_mut(self.cursor) {
            Some(place) => *place = (sign, typed),
            None => self.signs.push((sign, typed)),
        }
        self.cursor += 1;
        self.end = self.cursor;
    }

    fn apply(&mut self, step: Step) {
        match step {
            // To the start of the row on the screen: a long line takes several.
            Step::Return => self.cursor = self.cursor.saturating_sub(1) / self.width * self.width,
            Step::Left(by) => self.cursor = self.cursor.saturating_sub(by),
            Step::Right(by) => {
                self.cursor = (self.cursor + by).min(MOST_ROW);
                let length = self.signs.len().max(self.cursor);
                self.signs.resize(length, (u32::from(' '), 0));
            }
            Step::Erase => self.signs.truncate(self.cursor),
            Step::Delete(count) => {
                let end = (self.cursor + count).min(self.signs.len());
                self.signs.drain(self.cursor.min(end)..end);
            }
            Step::Insert(count) => {
                let count = count.min(MOST_ROW - self.signs.len().min(MOST_ROW));
                let place = self.cursor.min(self.signs.len());
                self.signs.splice(place..place, std::iter::repeat_n((u32::from(' '), 0), count));
            }
        }
        if !matches!(step, Step::Return) {
            self.end = self.cursor;
        }
    }

    /// Whether the row ends, at the cursor or at its last character, with what is open of `line`, each character
    /// shown after it was typed.
    fn ends_with(&self, line: &Line) -> bool {
        let last = self.signs.iter().rposition(|(sign, _)| *sign != u32::from(' ')).map_or(0, |last| last + 1);
        [self.end, last, self.signs.len()].into_iter().any(|end| {
            let Some(start) = end.checked_sub(line.open) else {
                return false;
            };
            let Some(shown) = self.signs.get(start..end) else {
                return false;
            };
            let mut open = line.keys.iter().filter(|key| key.state == State::Open);
            shown.iter().all(|(sign, typed)| open.next().is_some_and(|key| key.sign == *sign && *typed >= key.number))
        })
    }
}

/// What the terminal does with a piece of output.
#[derive(Debug, Clone, Copy)]
enum Shown {
    Sign(Sign),
    LineFeed,
    /// The cursor goes where this module does not follow.
    Elsewhere,
    Move(Step),
}

/// Takes escape sequences out of output (ECMA-48, and what xterm adds), across packets.
#[derive(Debug, Default)]
struct Scanner {
    state: Scan,
    /// A UTF-8 sequence under way.
    text: [u8; 4],
    length: usize,
    /// The first parameter of a control sequence.
    number: usize,
    many: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Scan {
    #[default]
    Ground,
    Escape,
    EscapeIntermediate,
    Control,
    /// The body of an operating system command, a device control string and their like.
    Text,
    TextEscape,
}

impl Scanner {
    fn feed(&mut self, byte: u8, emit: &mut impl FnMut(Shown)) {
        if self.length == 0 && byte < 0x80 {
            return self.sign(u32::from(byte), emit);
        }
        self.text[self.length] = byte;
        self.length += 1;
        match std::str::from_utf8(&self.text[..self.length]) {
            Ok(text) => {
                let sign = text.chars().next().map_or(NOT_TEXT, u32::from);
                self.length = 0;
                self.sign(sign, emit);
            }
            Err(error) if error.error_len().is_none() && self.length < 4 => {}
            Err(_) => {
                // The last byte may start something new; those before it are not text.
                let bad = if self.length > 1 { self.length - 1 } else { 1 };
                let (held, text) = (self.length, self.text);
                self.length = 0;
                for &byte in &text[..bad] {
                    self.sign(NOT_TEXT + u32::from(byte), emit);
                }
                for &byte in &text[bad..held] {
                    self.feed(byte, emit);
                }
            }
        }
    }

    fn sign(&mut self, sign: Sign, emit: &mut impl FnMut(Shown)) {
        match (self.state, sign) {
            (_, 0x18 | 0x1a) | (Scan::Text, 0x07 | 0x9c) => self.state = Scan::Ground,
            (Scan::Text, 0x1b) => self.state = Scan::TextEscape,
            (Scan::Text, _) => {}
            (_, 0x1b) => self.state = Scan::Escape,
            (_, 0x0a..=0x0c) => emit(Shown::LineFeed),
            (_, 0x0d) => emit(Shown::Move(Step::Return)),
            (_, 0x08) => emit(Shown::Move(Step::Left(1))),
            (Scan::Ground, 0x09) => emit(Shown::Sign(sign)),
            (_, ..0x20 | 0x7f) => {}
            (_, 0x84 | 0x85) => {
                self.state = Scan::Ground;
                emit(Shown::LineFeed);
            }
            (_, 0x9b) => self.begin_control(),
            (_, 0x90 | 0x98 | 0x9d..=0x9f) => self.state = Scan::Text,
            (_, 0x80..0xa0) => self.state = Scan::Ground,
            (Scan::Ground, _) => emit(Shown::Sign(sign)),
            (Scan::TextEscape, 0x5c) => self.state = Scan::Ground,
            (Scan::Escape | Scan::TextEscape, _) => self.escape(sign, emit),
            (Scan::EscapeIntermediate, 0x20..0x30) => {}
            (Scan::EscapeIntermediate, _) => self.state = Scan::Ground,
            (Scan::Control, _) => self.control(sign, emit),
        }
    }

    fn escape(&mut self, sign: Sign, emit: &mut impl FnMut(Shown)) {
        self.state = Scan::Ground;
        match char::from_u32(sign) {
            Some('[') => self.begin_control(),
            Some(']' | 'P' | 'X' | '^' | '_') => self.state = Scan::Text,
            Some(' '..='/') => self.state = Scan::EscapeIntermediate,
            Some('D' | 'E') => emit(Shown::LineFeed),
            Some('7' | '8' | 'M' | 'c') => emit(Shown::Elsewhere),
            _ => {}
        }
    }

    fn begin_control(&mut self) {
        self.state = Scan::Control;
        self.number = 0;
        self.many = false;
    }

    fn control(&mut self, sign: Sign, emit: &mut impl FnMut(Shown)) {
        let number = if self.number == 0 { 1 } else { self.number };
        match char::from_u32(sign) {
            Some(digit @ '0'..='9') if !self.many => {
                self.number = (self.number * 10 + digit as usize - '0' as usize).min(MOST_ROW);
                return;
            }
            Some(' '..='?') => {
                self.many = true;
                return;
            }
            Some('C') => emit(Shown::Move(Step::Right(number))),
            Some('D') => emit(Shown::Move(Step::Left(number))),
            Some('P') => emit(Shown::Move(Step::Delete(number))),
            Some('@') => emit(Shown::Move(Step::Insert(number))),
            Some('J' | 'K') if self.number == 0 => emit(Shown::Move(Step::Erase)),
            Some(
                'A' | 'B' | 'E' | 'F' | 'G' | 'H' | 'I' | 'J' | 'K' | 'L' | 'M' | 'S' | 'T' | 'X' | 'Z' | '`' | 'a',
            )
            | Some('d' | 'e' | 'f' | 's' | 'u') => emit(Shown::Elsewhere),
            // Private modes, among them the alternate screen; showing and hiding the cursor and such change nothing.
            Some('h' | 'l') if self.many => {}
            _ => {}
        }
        self.state = Scan::Ground;
    }
}

/// How many bytes at the front of `bytes` are whole rows of plain text.
fn plain_rows(bytes: &[u8]) -> usize {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    let plain = bytes.iter().position(|byte| !is_plain(byte)).unwrap_or(bytes.len());
    bytes[..plain].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

/// How many bytes at the front of `bytes` are an escape sequence as keys and terminals' answers send them, whole and
/// in one packet; 0 if none is. `ESC x` is Alt and a character: the character is not part of it.
fn escape_length(bytes: &[u8]) -> usize {
    match bytes {
        [0x1b, b'[', rest @ ..] => {
            let parameters = rest.iter().take(MOST_KEY).take_while(|byte| matches!(byte, 0x20..0x40)).count();
            match rest.get(parameters) {
                Some(0x40..0x7f) if parameters < MOST_KEY => 3 + parameters,
                _ => 1,
            }
        }
        [0x1b, b'O', b'A'..=b'S' | b'j'..=b'y', rest @ ..]
            if rest.first().is_none_or(|byte| matches!(byte, ..0x20 | 0x7f)) =>
        {
            3
        }
        // What a terminal answers to a question (colours, its version): hexadecimal or short text up to its end.
        [0x1b, b']' | b'P' | b'_', rest @ ..] => {
            let text = rest.iter().take(1024).take_while(|byte| matches!(byte, 0x20..0x7f)).count();
            match rest.get(text..) {
                Some([0x07, ..]) => 2 + text + 1,
                Some([0x1b, b'\\', ..]) => 2 + text + 2,
                _ => 1,
            }
        }
        [0x1b, ..] => 1,
        _ => 0,
    }
}

/// The first character of `bytes`, which are not empty, or their first byte if they do not start with a character.
fn first_sign(bytes: &[u8]) -> (Sign, u8) {
    let start = &bytes[..bytes.len().min(4)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    };
    match text.chars().next() {
        Some(character) => (u32::from(character), character.len_utf8() as u8),
        None => (NOT_TEXT + u32::from(start.first().copied().unwrap_or_default()), 1),
    }
}

fn push_sign(sign: Sign, bytes: &mut Vec<u8>) {
    match char::from_u32(sign) {
        Some(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => bytes.push((sign - NOT_TEXT) as u8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1000;

    /// Plays packets 10 ms apart: `>` typed, `<` shown, `+` a pause of so many milliseconds. Gives what is left of
    /// the input in order, masked bytes as `[n]`.
    fn play(script: &[&str]) -> String {
        play_bytes(&script.iter().map(|step| (step.as_bytes()[0], &step.as_bytes()[1..])).collect::<Vec<_>>())
    }

    fn run(script: &[(u8, &[u8])]) -> Vec<Frame> {
        let (mut masker, mut out, mut at) = (Masker::new(), Vec::new(), 0);
        for (what, bytes) in script {
            at += 10 * MS;
            match what {
                b'+' => {
                    at += std::str::from_utf8(bytes).unwrap().parse::<u64>().unwrap() * MS;
                    masker.tick(at, &mut out);
                }
                b'>' => masker.push(Frame { at, body: Body::Input(Bytes::copy_from_slice(bytes)) }, &mut out),
                _ => masker.push(Frame { at, body: Body::Output(Bytes::copy_from_slice(bytes)) }, &mut out),
            }
        }
        masker.flush(&mut out);
        assert!(!masker.is_waiting());
        out.sort_by_key(|frame| frame.at);
        out
    }

    fn play_bytes(script: &[(u8, &[u8])]) -> String {
        let mut text = String::new();
        let mut masked = 0;
        for frame in run(script) {
            match frame.body {
                Body::Input(bytes) => {
                    if masked > 0 {
                        text += &format!("[{}]", std::mem::take(&mut masked));
                    }
                    text += &String::from_utf8_lossy(&bytes);
                }
                Body::MaskedInput { bytes } => masked += bytes,
                _ => {}
            }
        }
        if masked > 0 {
            text += &format!("[{masked}]");
        }
        text
    }

    #[test]
    fn a_command_typed_and_echoed_key_by_key_is_kept() {
        assert_eq!(play(&["<$ ", ">l", "<l", ">s", "<s", ">\r", "<\r\n", "<a b\r\n$ "]), "ls\r");
    }

    #[test]
    fn a_password_typed_at_a_prompt_is_only_counted() {
        let script = ["<$ ", ">su", "<su", ">\r", "<\r\nPassword: ", ">s", ">e", ">c", ">ret\r", "<\r\n", "<secret # "];
        assert_eq!(play(&script), "su\r[6]\r");
    }

    #[test]
    fn a_password_pasted_with_its_enter_is_only_counted() {
        assert_eq!(play(&["<Password: ", ">secret\r", "<\r\nsecret\r\n$ "]), "[6]\r");
        assert_eq!(play(&["<Password: ", ">\x1b[200~secret\x1b[201~\r", "<\r\nsecret\r\n"]), "\x1b[200~[6]\x1b[201~\r");
    }

    #[test]
    fn what_follows_on_the_same_row_does_not_show_a_password_whose_enter_printed_nothing() {
        // `read -s` prints no line feed.
        let script = ["<pw: ", ">secret\r", "<alice@secret:~$ ", ">l", "<l", ">s", "<s", ">\r", "<\r\nok\r\n"];
        assert_eq!(play(&script), "[6]\rls\r");
        assert_eq!(play(&["<pw: ", ">s", ">e", ">\r", "<se", "<\x1b[1mse\x1b[m cret", "+4000"]), "[2]\r");
    }

    #[test]
    fn another_lines_letters_are_no_echo() {
        let script =
            ["<pw: ", ">s", ">e", "<\r\nBroadcast: secret\r\n", ">c", ">r", "<secret\r\n", ">e", ">t\r", "<\r\n"];
        assert_eq!(play(&script), "[6]\r");
    }

    #[test]
    fn a_clock_on_the_status_line_is_no_echo() {
        assert_eq!(
            play(&["<PIN: ", ">0", "<\x1b7\x1b[24;70H0853\x1b8", ">8", "<\x1b[24;70H08:53", ">53\r", "<\r\n"]),
            "[4]\r"
        );
    }

    #[test]
    fn stars_are_no_echo() {
        assert_eq!(play(&["<pw: ", ">a", "<*", ">*", "<*", ">b", "<*", ">*", "<*", ">\r", "<\r\n"]), "[4]\r");
        assert_eq!(play(&["<pw: ", ">ab", "<**", ">**", "<**", ">\r", "<\r\n"]), "[4]\r");
    }

    #[test]
    fn a_slow_link_brings_the_echo_late() {
        assert_eq!(play(&["<$ ", ">l", ">s", ">\r", "<l", "<s", "<\r\n"]), "ls\r");
        assert_eq!(play(&["<$ ", ">l", ">s", "<ls", ">\r", "<\r\n"]), "ls\r");
        assert_eq!(play(&["<$ ", ">cd /\r", ">ls\r", "<cd /\r\n$ ls\r\na b\r\n$ "]), "cd /\rls\r");
        assert_eq!(
            play(&["<$ ", ">l", "<l", ">s", "<s", ">\r", ">i", "<\r\n", "<a\x1b[K", "<$ i", ">d\r", "<d\r\n"]),
            "ls\rid\r"
        );
    }

    #[test]
    fn a_pasted_block_is_kept_line_by_line() {
        let script =
            ["<$ ", ">\x1b[200~one\rtwo\x1b[201~\r", "<\x1b[7mone\x1b[27m\r\n\x1b[7mtwo\x1b[27m\x1b[?2004l\r\r\n"];
        assert_eq!(play(&script), "\x1b[200~one\rtwo\x1b[201~\r");
    }

    #[test]
    fn a_shell_that_colours_and_suggests_still_echoes() {
        let script = [
            "<\x1b[1m% \x1b[m",
            ">l",
            "<\x1b[32ml\x1b[90ms -la\x1b[m\x1b[5D",
            ">s",
            "<\x08\x1b[32mls\x1b[90m -la\x1b[4D",
            ">x",
            "<\x08\x08lsx\x1b[K",
            ">\r",
            "<\r\r\n",
        ];
        assert_eq!(play(&script), "lsx\r");
        // All of it after Enter: the row is what counts, not the repaints.
        let script = ["<% ", ">l", ">s", ">x\r", "<l", "<\x08ls", "<\x08\x08lsx\x1b[K", "<\x1b[?1l\r\r\n"];
        assert_eq!(play(&script), "lsx\r");
    }

    #[test]
    fn a_long_line_that_wraps_is_kept() {
        let long = "abcdefghij".repeat(15);
        let shown = format!("<{}{} \r{}\r\n", &long[..78], "", &long[78..]);
        assert_eq!(play(&["<$ ", &format!(">{long}\r"), &shown]), format!("{long}\r"));
    }

    #[test]
    fn keys_of_an_editor_that_show_nothing_are_masked_and_the_text_is_kept() {
        let script = [
            "<\x1b[?1049h",
            ">j",
            "<\x1b[2;1H",
            ">j",
            "<\x1b[3;1H",
            ">i",
            ">h",
            "<h",
            ">e",
            "<e",
            ">l",
            "<l",
            ">l",
            "<l",
            ">\x1b",
        ];
        assert_eq!(play(&script), "[3]hell\x1b");
    }

    #[test]
    fn arrows_tab_and_control_keys_are_kept_even_at_a_prompt_without_echo() {
        assert_eq!(play(&["<pw: ", ">\x1b[A\t\x01\x1bOP\x7fab\x03", "<\r\n"]), "\x1b[A\t\x01\x1bOP\x7f[2]\x03");
    }

    #[test]
    fn an_escape_that_is_not_finished_does_not_carry_a_password_out() {
        assert_eq!(play(&["<pw: ", ">\x1b]secret\r", "<\r\n"]), "\x1b[7]\r");
        assert_eq!(play(&["<pw: ", ">\x1bOsecret\r", "<\r\n"]), "\x1b[7]\r");
    }

    #[test]
    fn characters_of_several_bytes_are_one() {
        assert_eq!(play(&["<$ ", ">п", "<п", ">ароль 界", "<ароль 界", ">\r", "<\r\n"]), "пароль 界\r");
        assert_eq!(play(&["<pw: ", ">пароль\r", "<\r\n"]), "[12]\r");
        assert_eq!(
            play_bytes(&[(b'>', b"caf\xe9"), (b'<', b"caf\xe9"), (b'>', b"\r"), (b'<', b"\r\n")]),
            "caf\u{fffd}\r"
        );
        assert_eq!(play_bytes(&[(b'>', "界".as_bytes()), (b'<', b"\xe7\x95"), (b'<', b"\x8c")]), "界");
    }

    #[test]
    fn what_waits_too_long_is_masked_and_comes_out_with_its_own_time() {
        let (mut masker, mut out) = (Masker::new(), Vec::new());
        masker.push(Frame { at: 5, body: Body::Input(Bytes::from_static(b"se")) }, &mut out);
        masker.tick(PATIENCE_US, &mut out);
        assert_eq!(out, []);
        masker.tick(PATIENCE_US + 6, &mut out);
        assert_eq!(out, [Frame { at: 5, body: Body::MaskedInput { bytes: 2 } }]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut masker, mut out) = (Masker::new(), Vec::new());
        for at in 0..100 {
            masker.push(Frame { at, body: Body::Input(Bytes::from(vec![b'x'; 30_000])) }, &mut out);
            masker.push(Frame { at, body: Body::Input(Bytes::from(vec![b'\r'; 30_000])) }, &mut out);
            assert!(masker.waiting <= MOST_OPEN && masker.lines.len() <= MOST_OPEN / 8);
        }
    }

    /// Pieces of output that were chosen to confuse.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a-e \r\n*]{0,8}".prop_map(String::into_bytes),
            "(\x1b\\[[0-9;?]{0,3}[A-Za-z]|\x1b\\][a-e]{0,3}\x07|[a-e]{1,3}|\r\n|\x08){0,4}"
                .prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..12),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

        #[test]
        fn a_password_without_echo_never_comes_out(
            password in "[a-e]{4,12}", cuts in prop::collection::vec(0_usize..12, 0..6),
            before in output(), with_enter: bool, after in prop::collection::vec((output(), 0_u64..2000), 0..10),
        ) {
            let mut before = before;
            before.extend_from_slice(b"\x1b\\\x1b[m\r\nPassword: ");
            let mut steps: Vec<(u8, Vec<u8>)> = vec![(b'<', before)];
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(password.len())).chain([0, password.len()]).collect();
            cuts.sort_unstable();
            steps.extend(cuts.windows(2).map(|cut| (b'>', password.as_bytes()[cut[0]..cut[1]].to_vec())));
            match steps.last_mut() {
                Some((b'>', last)) if with_enter => last.push(b'\r'),
                _ => steps.push((b'>', b"\r".to_vec())),
            }
            steps.push((b'<', b"\r\n".to_vec()));
            for (bytes, pause) in after {
                steps.push((b'<', bytes));
                steps.push((b'+', pause.to_string().into_bytes()));
            }
            let script: Vec<(u8, &[u8])> = steps.iter().map(|(what, bytes)| (*what, bytes.as_slice())).collect();
            prop_assert_eq!(play_bytes(&script), format!("[{}]\r", password.len()));
        }

        #[test]
        fn every_byte_typed_is_kept_or_counted_and_everything_else_passes_in_order(
            steps in prop::collection::vec((any::<bool>(), output(), 0_u64..1_500), 0..24),
        ) {
            let (mut masker, mut out, mut at) = (Masker::new(), Vec::new(), 0);
            let mut typed = Vec::new();
            let mut passed = Vec::new();
            for (is_input, bytes, pause) in steps {
                at += pause * MS;
                let bytes = Bytes::from(bytes);
                let body = if is_input { Body::Input(bytes.clone()) } else { Body::Output(bytes.clone()) };
                let frame = Frame { at, body };
                if is_input {
                    typed.extend(bytes.iter().map(|byte| (at, *byte)));
                } else {
                    passed.push(frame.clone());
                }
                masker.push(frame, &mut out);
            }
            masker.flush(&mut out);
            let (input, rest): (Vec<Frame>, Vec<Frame>) =
                out.into_iter().partition(|frame| matches!(frame.body, Body::Input(_) | Body::MaskedInput { .. }));
            prop_assert_eq!(rest, passed);
            let mut typed = typed.into_iter();
            for frame in input {
                match frame.body {
                    Body::Input(bytes) => {
                        for byte in bytes {
                            prop_assert_eq!(typed.next(), Some((frame.at, byte)));
                        }
                    }
                    Body::MaskedInput { bytes } => {
                        for _ in 0..bytes {
                            prop_assert_eq!(typed.next().map(|(at, _)| at), Some(frame.at));
                        }
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(typed.next(), None);
        }

        #[test]
        fn rows_at_once_are_judged_as_byte_by_byte(
            steps in prop::collection::vec((any::<bool>(), output(), "([a-e]{0,3}\r?\n){0,3}", 0_u64..1_500), 0..24),
        ) {
            let (mut masker, mut bytewise) = ((Masker::new(), Vec::new()), (Masker::new(), Vec::new()));
            let mut at = 0;
            for (is_input, mut bytes, rows, pause) in steps {
                at += pause * MS;
                if !is_input {
                    bytes.splice(..0, rows.bytes());
                }
                let bytes = Bytes::from(bytes);
                let body = if is_input { Body::Input(bytes.clone()) } else { Body::Output(bytes.clone()) };
                masker.0.push(Frame { at, body: body.clone() }, &mut masker.1);
                if is_input {
                    bytewise.0.push(Frame { at, body }, &mut bytewise.1);
                } else {
                    bytewise.0.tick(at, &mut bytewise.1);
                    bytewise.1.push(Frame { at, body });
                    bytewise.0.take_output_behind(0, at, &bytes, &mut bytewise.1);
                }
            }
            masker.0.flush(&mut masker.1);
            bytewise.0.flush(&mut bytewise.1);
            prop_assert_eq!(masker.1, bytewise.1);
        }

        #[test]
        fn a_line_echoed_by_a_terminal_is_kept_however_the_echo_is_cut(
            line in "[ -~]{1,30}", cuts in prop::collection::vec(0_usize..30, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(line.len())).chain([0, line.len()]).collect();
            cuts.sort_unstable();
            let mut steps: Vec<(u8, Vec<u8>)> = vec![(b'<', b"$ ".to_vec())];
            steps.extend(line.bytes().map(|byte| (b'>', vec![byte])));
            steps.push((b'>', b"\r".to_vec()));
            steps.extend(cuts.windows(2).map(|cut| (b'<', line.as_bytes()[cut[0]..cut[1]].to_vec())));
            steps.push((b'<', b"\r\n".to_vec()));
            let script: Vec<(u8, &[u8])> = steps.iter().map(|(what, bytes)| (*what, bytes.as_slice())).collect();
            prop_assert_eq!(play_bytes(&script), format!("{line}\r"));
        }
    }
}
