//! Recordings as plain text. With a terminal: what scrolled by and what was left on the screen, one line each, as the
//! terminal showed it. Without one: standard output and error as they came. Pure; a frame at a time, in bounded memory.
//!
//! Nothing that a terminal would obey is in the text: control characters and the like are shown as signs.

use std::fmt::Write;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use avt::parser::{EdScope, Function};
use avt::{Line, Observation, Observer, Operation, ScreenKind, Terminal};
use sallyport_domain::cast::utf8::{Piece, Utf8};
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::recording::frame::{Body, Frame};

/// A line longer than this is given out in pieces, in bytes.
const MOST_LINE: usize = 1 << 20;

/// Writes one transcript.
pub struct Transcript(Kind);

enum Kind {
    Terminal { screen: Box<Screen>, lines: Lines },
    Plain { output: Utf8, error_output: Utf8 },
}

impl Transcript {
    /// For a recording with a terminal that starts at `size`, or without one.
    pub fn new(size: Option<TerminalSize>) -> Self {
        Self(match size {
            Some(size) => Kind::Terminal { screen: Box::new(Screen::new(size)), lines: Lines::default() },
            None => Kind::Plain { output: Utf8::default(), error_output: Utf8::default() },
        })
    }

    /// Takes the next frame; text that is final is appended to `out`.
    pub fn frame(&mut self, frame: &Frame, out: &mut String) {
        match (&mut self.0, &frame.body) {
            (Kind::Terminal { screen, lines }, body) => {
                if !screen.show_with(body, lines) {
                    lines.ready.push_str("[the terminal could not be drawn further here and was begun anew]\n");
                    **screen = Screen::new(screen.size);
                }
                out.push_str(&mem::take(&mut lines.ready));
            }
            (Kind::Plain { output, .. }, Body::Output(bytes)) => put(output.push(bytes), out),
            (Kind::Plain { error_output, .. }, Body::ErrorOutput(bytes)) => put(error_output.push(bytes), out),
            (Kind::Plain { .. }, _) => {}
        }
        if let Body::Gap(reason) = &frame.body {
            // Writing to a string does not fail.
            let _ = writeln!(out, "[something is missing here: {}]", visible(reason));
        }
    }

    /// The recording ended: what is left on the screen.
    pub fn finish(self, out: &mut String) {
        match self.0 {
            Kind::Terminal { screen, mut lines } => {
                lines.take_rest(&screen.terminal);
                out.push_str(&lines.ready);
            }
            Kind::Plain { mut output, mut error_output } => {
                put(output.finish(), out);
                put(error_output.finish(), out);
            }
        }
    }
}

fn put(piece: Option<Piece<'_>>, out: &mut String) {
    if let Some(piece) = piece {
        out.push_str(&visible(&piece.text));
    }
}

/// `text` with signs for what a terminal would obey or hide: controls but tab and line feed, and characters that turn
/// the direction of writing or have no width.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\0'..=' ' if character != ' ' => {
                shown.extend(char::from_u32(0x2400 + u32::from(character)));
            }
            '\x7f' => shown.push('␡'),
            _ if is_unfit(character) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
            }
            _ => shown.push(character),
        }
    }
    shown
}

/// Whether a character does something to a terminal other than standing in a cell.
pub fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A [`Screen`] put away, small.
pub struct SavedScreen {
    size: TerminalSize,
    /// Escape codes that redraw it.
    dump: String,
    output: Utf8,
    notice: Utf8,
}

/// A terminal in memory that is shown a recording.
pub struct Screen {
    pub terminal: Terminal,
    size: TerminalSize,
    output: Utf8,
    notice: Utf8,
}

impl Screen {
    pub fn new(size: TerminalSize) -> Self {
        let drawn = size.drawable();
        let make = || Terminal::new(drawn.cols.into(), drawn.rows.into()).ok();
        // `drawable` gives no zero, and only a zero is refused.
        #[expect(clippy::expect_used, reason = "a drawable size has no zero")]
        let terminal = make().expect("a drawable size has no zero");
        Self { terminal, size: drawn, output: Utf8::default(), notice: Utf8::default() }
    }

    /// What it takes to make this screen again.
    pub fn save(&self) -> SavedScreen {
        SavedScreen {
            size: self.size,
            dump: self.terminal.dump(),
            output: self.output.clone(),
            notice: self.notice.clone(),
        }
    }

    /// The screen that was saved; an empty one if the terminal cannot stand it.
    pub fn restore(saved: &SavedScreen) -> Self {
        let mut screen = Self::new(saved.size);
        if !screen.feed(&saved.dump, &mut ()) {
            return Self::new(saved.size);
        }
        screen.output = saved.output.clone();
        screen.notice = saved.notice.clone();
        screen
    }

    pub fn size(&self) -> TerminalSize {
        self.size
    }

    /// Shows a frame. False if the terminal could not stand it: its input is hostile, and it is not our code.
    pub fn show(&mut self, body: &Body) -> bool {
        self.show_with(body, &mut ())
    }

    fn show_with<O: Observer>(&mut self, body: &Body, observer: &mut O) -> bool {
        match body {
            Body::Output(bytes) | Body::ErrorOutput(bytes) => {
                let mut stream = mem::take(&mut self.output);
                let sound = stream.push(bytes).is_none_or(|piece| self.feed(&piece.text, observer));
                self.output = stream;
                sound
            }
            Body::Notice(bytes) => {
                let mut stream = mem::take(&mut self.notice);
                let sound = stream.push(bytes).is_none_or(|piece| self.feed(&piece.text, observer));
                self.notice = stream;
                sound
            }
            Body::Resize(size) => {
                self.size = size.drawable();
                let (cols, rows) = (self.size.cols.into(), self.size.rows.into());
                let terminal = &mut self.terminal;
                catch_unwind(AssertUnwindSafe(|| {
                    terminal.resize_with(cols, rows, observer);
                }))
                .is_ok()
            }
            Body::Input(_)
            | Body::MaskedInput { .. }
            | Body::WithheldOutput { .. }
            | Body::InputEnd
            | Body::OutputEnd
            | Body::Signal(_)
            | Body::Break { .. }
            | Body::ExitStatus(_)
            | Body::ExitSignal { .. }
            | Body::Gap(_)
            | Body::File(_)
            | Body::Header(_)
            | Body::End(_) => true,
        }
    }

    fn feed<O: Observer>(&mut self, text: &str, observer: &mut O) -> bool {
        let terminal = &mut self.terminal;
        catch_unwind(AssertUnwindSafe(|| {
            terminal.feed_with(text, observer);
        }))
        .is_ok()
    }
}

/// The lines that left the screen at its top, wrapped rows joined.
#[derive(Default)]
struct Lines {
    line: String,
    ready: String,
}

impl Lines {
    fn take(&mut self, row: &Line) {
        self.line.extend(row.cells().iter().filter(|cell| cell.width() > 0).map(avt::Cell::char));
        if !row.is_wrapped() || self.line.len() > MOST_LINE {
            self.ready.push_str(&visible(self.line.trim_end()));
            self.ready.push('\n');
            self.line.clear();
        }
    }

    /// What is on the primary screen, blank rows at its end left out.
    fn take_rest(&mut self, terminal: &Terminal) {
        let before = self.ready.len();
        for row in terminal.primary_screen().all_lines() {
            self.take(row);
        }
        let kept = self.ready[before..].trim_end_matches('\n').len();
        self.ready.truncate(before + kept);
        if kept > 0 {
            self.ready.push('\n');
        }
    }
}

impl Observer for Lines {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        // A hard reset clears the screen without scrolling it off, and so does clearing it from its first cell on, which
        // is how `top` begins. Clearing all of it does scroll it off.
        let terminal = context.terminal();
        let cursor = terminal.cursor();
        let clears = match operation {
            Operation::Function(Function::Ris) => true,
            Operation::Function(Function::Ed(EdScope::Below)) => {
                (cursor.col, cursor.row) == (0, 0) && terminal.active_screen_kind() == ScreenKind::Primary
            }
            _ => false,
        };
        if clears {
            self.take_rest(terminal);
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.take(line);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn transcript(size: Option<TerminalSize>, bodies: &[Body]) -> String {
        let (mut transcript, mut out) = (Transcript::new(size), String::new());
        for body in bodies {
            transcript.frame(&Frame { at: 0, body: body.clone() }, &mut out);
        }
        transcript.finish(&mut out);
        out
    }

    fn output(text: &str) -> Body {
        Body::Output(Bytes::copy_from_slice(text.as_bytes()))
    }

    const SMALL: Option<TerminalSize> = Some(TerminalSize { cols: 6, rows: 2 });

    #[test]
    fn what_scrolled_by_and_what_is_left_are_lines() {
        let bodies = [
            output("\x1b[31mone\x1b[m\r\nand two\r\n"),
            output("thr\x08\x08\x08THREE\r\n"),
            output("\x1b[?1049hvim\x1b[?1049l"),
            output("end\r\n\r\n"),
        ];
        assert_eq!(transcript(SMALL, &bodies), "one\nand two\nTHREE\nend\n");
    }

    #[test]
    fn what_is_cleared_away_is_not_lost() {
        let bodies = [output("one\r\n$ top"), output("\x1b[H\x1b[Jtop\x1b[K\r\n"), output("\x1b[H\x1b[2Jend")];
        assert_eq!(transcript(SMALL, &bodies), "one\n$ top\ntop\nend\n");
    }

    #[test]
    fn without_a_terminal_both_streams_are_kept_and_controls_are_shown() {
        let bodies = [
            output("a\x1b[2J\n"),
            Body::ErrorOutput(Bytes::from_static(b"no\xff\n")),
            Body::Gap("power\x07".to_owned()),
            output("b"),
        ];
        assert_eq!(transcript(None, &bodies), "a␛[2J\nno\u{fffd}\n[something is missing here: power␇]\nb");
    }

    #[test]
    fn a_wide_character_is_one_and_a_cut_one_is_put_together() {
        let bodies = [Body::Output(Bytes::from_static(b"\xe7\x95")), Body::Output(Bytes::from_static(b"\x8c!"))];
        assert_eq!(transcript(SMALL, &bodies), "界!\n");
    }

    proptest! {
        #[test]
        fn no_transcript_holds_what_a_terminal_would_obey(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8), has_terminal: bool,
        ) {
            let bodies: Vec<Body> = packets.into_iter().map(|packet| Body::Output(Bytes::from(packet))).collect();
            let text = transcript(SMALL.filter(|_| has_terminal), &bodies);
            prop_assert!(text.chars().all(|character| matches!(character, '\n' | '\t') || !is_unfit(character)));
        }
    }
}
