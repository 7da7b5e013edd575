//! A terminal in memory that is shown what a program prints, so that others can ask what stands on it. It is `avt`'s; the
//! bytes are hostile and the code is not ours, so a panic in it is caught and ends this terminal only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use avt::{Observation, Observer, ScreenKind, Terminal};

use crate::channel::TerminalSize;
use crate::recording::segment::Snapshot;

/// The most that is read of a line or of several, in bytes.
const MOST_TEXT: usize = 8 << 10;

/// See the [module](self).
pub struct Screen {
    terminal: Terminal,
    /// The first bytes of a character whose rest is in the next packet.
    partial: Vec<u8>,
}

/// Counts the rows that left the screen at its top.
#[derive(Default)]
struct Gone(u64);

impl Observer for Gone {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, _: &avt::Line) {
        self.0 += 1;
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// The line that the cursor stands on, rows that wrapped joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorLine {
    /// All of it, blanks at its end left out.
    pub text: String,
    /// What stands before the cursor, blanks included.
    pub before: String,
}

impl Screen {
    /// A terminal of this size that shows what `init`, a snapshot's escape codes, draws. `None` if it cannot be drawn.
    pub fn restore(size: TerminalSize, init: &str) -> Option<Self> {
        let size = size.drawable();
        let mut terminal = Terminal::new(size.cols.into(), size.rows.into()).ok()?;
        catch_unwind(AssertUnwindSafe(|| terminal.feed(init))).ok()?;
        Some(Self { terminal, partial: Vec::new() })
    }

    /// Shows output; gives how many rows left at the top, or `None` if the terminal could not stand it and is of no use now.
    pub fn show(&mut self, bytes: &[u8]) -> Option<u64> {
        let Self { terminal, partial } = self;
        let mut gone = Gone::default();
        catch_unwind(AssertUnwindSafe(|| feed(terminal, partial, bytes, &mut gone))).ok()?;
        Some(gone.0)
    }

    /// As [`Screen::show`], for a new size.
    pub fn resize(&mut self, size: TerminalSize) -> Option<u64> {
        let size = size.drawable();
        let mut gone = Gone::default();
        let terminal = &mut self.terminal;
        catch_unwind(AssertUnwindSafe(|| terminal.resize_with(size.cols.into(), size.rows.into(), &mut gone))).ok()?;
        Some(gone.0)
    }

    /// What it takes to make this screen again.
    pub fn snapshot(&self) -> Snapshot {
        let (cols, rows) = self.terminal.size();
        // Both came from a TerminalSize.
        let size = TerminalSize { cols: cols as u16, rows: rows as u16 };
        Snapshot { size: Some(size), init: self.terminal.dump() }
    }

    /// Whether a full-screen program has switched to the alternate screen.
    pub fn is_alternate(&self) -> bool {
        self.terminal.active_screen_kind() == ScreenKind::Alternate
    }

    /// Where the cursor is: column and row, from 0.
    pub fn cursor(&self) -> (usize, usize) {
        let cursor = self.terminal.cursor();
        (cursor.col, cursor.row)
    }

    /// The line that the cursor stands on.
    pub fn line(&self) -> CursorLine {
        let (col, row) = self.cursor();
        let (first, last, rows) = self.rows_around(row);
        let mut line = CursorLine { text: String::new(), before: String::new() };
        for (number, cells) in rows.iter().enumerate().take(last + 1).skip(first) {
            if line.text.len() > MOST_TEXT {
                break;
            }
            if number == row {
                line.before.clone_from(&line.text);
                push(cells, 0, col, &mut line.before);
            }
            push(cells, 0, usize::MAX, &mut line.text);
        }
        line.text.truncate(line.text.trim_end().len());
        line
    }

    /// What stands from a place, as [`Screen::cursor`] gave it, to the end of the cursor's line: a line each, blanks at their
    /// ends left out. `None` if the place is behind the cursor.
    pub fn since(&self, (col, row): (usize, usize)) -> Option<String> {
        let (_, last, rows) = self.rows_around(self.cursor().1);
        if row > last {
            return None;
        }
        let mut text = String::new();
        for (number, cells) in rows.iter().enumerate().take(last + 1).skip(row) {
            if text.len() > MOST_TEXT {
                break;
            }
            push(cells, if number == row { col } else { 0 }, usize::MAX, &mut text);
            if !cells.is_wrapped() {
                text.truncate(text.trim_end_matches(' ').len());
                text.push('\n');
            }
        }
        text.truncate(text.trim_end().len());
        Some(text)
    }

    /// The first and last row of the line that `row` is part of, and all rows.
    fn rows_around(&self, row: usize) -> (usize, usize, Vec<&avt::Line>) {
        let rows: Vec<&avt::Line> = self.terminal.screen().visible_lines().collect();
        let wraps = |row: usize| rows.get(row).is_some_and(|cells| cells.is_wrapped());
        let first = (0..row).rev().take_while(|row| wraps(*row)).last().unwrap_or(row);
        let last = (row..rows.len()).find(|row| !wraps(*row)).unwrap_or(row);
        (first, last, rows)
    }
}

/// Appends what stands in `row` from one column up to, not including, another.
fn push(row: &avt::Line, from: usize, to: usize, text: &mut String) {
    let cells = row.cells().iter().take(to).skip(from);
    text.extend(cells.filter(|cell| cell.width() > 0).map(avt::Cell::char));
}

/// Feeds bytes as UTF-8, holding back a character that is not complete yet.
fn feed(terminal: &mut Terminal, partial: &mut Vec<u8>, bytes: &[u8], gone: &mut Gone) {
    let joined;
    let mut rest = if partial.is_empty() {
        bytes
    } else {
        partial.extend_from_slice(bytes);
        joined = std::mem::take(partial);
        &joined[..]
    };
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                terminal.feed_with(text, &mut *gone);
                return;
            }
            Err(error) => {
                let (valid, bad) = rest.split_at(error.valid_up_to());
                terminal.feed_with(std::str::from_utf8(valid).unwrap_or_default(), &mut *gone);
                let Some(length) = error.error_len() else {
                    partial.extend_from_slice(bad);
                    return;
                };
                terminal.feed_with("\u{fffd}", &mut *gone);
                rest = &bad[length..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(text: &str) -> Screen {
        let mut screen = Screen::restore(TerminalSize { cols: 10, rows: 4 }, "").unwrap();
        screen.show(text.as_bytes()).unwrap();
        screen
    }

    #[test]
    fn a_line_that_wraps_is_one_line() {
        let line = screen("one\r\n$ echo 1234567890123").line();
        assert_eq!((line.text.as_str(), line.before.as_str()), ("$ echo 1234567890123", "$ echo 1234567890123"));
    }

    #[test]
    fn what_stands_before_the_cursor_counts_characters_and_not_columns() {
        let line = screen("界$ ls -l\x1b[4D").line();
        assert_eq!((line.text.as_str(), line.before.as_str()), ("界$ ls -l", "界$ ls".trim_end_matches('s')));
    }

    #[test]
    fn what_stands_since_a_place_is_lines() {
        assert_eq!(screen("$ for\r\n> done").since((2, 0)).unwrap(), "for\n> done");
        assert_eq!(screen("a").since((0, 1)), None);
    }

    #[test]
    fn rows_that_leave_are_counted() {
        let mut screen = screen("1\r\n2\r\n3\r\n4");
        assert_eq!(screen.show(b"\r\n5\r\n6"), Some(2));
        assert_eq!(screen.show(b"x"), Some(0));
    }
}
