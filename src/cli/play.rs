//! `sallyport session play` and `watch`: a recording in the terminal.
//!
//! A recording is hostile text. It is shown to a terminal in memory, and what that one's grid holds is drawn here cell
//! by cell, so none of its escape sequences reaches the terminal that somebody sits at. [`super::replay`] decides.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use avt::{Cell, Color, Line, Pen};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, terminal};
use futures::{Stream, StreamExt};
use sallyport_domain::cast::utf8::Utf8;
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::recording::frame::{Body, Frame};
use tokio::sync::mpsc;

use super::replay::{Command, IDLE_US, Replay};
use crate::app::transcript::{Screen, Transcript, is_unfit, visible};

/// What is known of a recording before its first frame.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The terminal's size at the start; `None` for a program without one.
    pub size: Option<TerminalSize>,
    /// What is shown at the bottom: who, where, which command.
    pub title: String,
    /// How long it is, in microseconds, if it is over.
    pub duration_us: Option<u64>,
}

/// How to play.
#[derive(Debug, Clone, Copy)]
pub struct PlayOptions {
    pub speed: f64,
    /// Go past more than 2 s without a change at once.
    pub skip_idle: bool,
    /// Where to start, in microseconds; [`LIVE`] is wherever the recording has got to.
    pub start_us: u64,
    /// Leave at the end though there are keys, as one who watches does.
    pub leave_at_end: bool,
    /// Keys and a status line, if standard input and output are a terminal.
    pub input: bool,
}

/// A place that no recording reaches: whatever is read is shown at once.
pub const LIVE: u64 = i64::MAX as u64;

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Played {
    ToTheEnd,
    Quit,
}

/// The screen is drawn this often at most.
const FRAME: Duration = Duration::from_millis(16);

/// Plays `frames` to standard output.
pub async fn play<S, E>(recording: &Recording, options: PlayOptions, frames: S) -> anyhow::Result<Played>
where
    S: Stream<Item = Result<Frame, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    match recording.size {
        Some(size) if io::stdout().is_terminal() => {
            let keys = options.input && io::stdin().is_terminal();
            play_screen(recording, size, options, keys, frames).await
        }
        Some(_) | None => {
            play_text(recording, options, frames).await?;
            Ok(Played::ToTheEnd)
        }
    }
}

/// Plays as text, in time: lines that scroll off for a terminal's recording, both streams as they came without one.
async fn play_text<S, E>(recording: &Recording, options: PlayOptions, frames: S) -> anyhow::Result<()>
where
    S: Stream<Item = Result<Frame, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut frames = std::pin::pin!(frames);
    let mut transcript = Transcript::new(recording.size);
    let (mut output, mut error_output) = (Utf8::default(), Utf8::default());
    let mut at = options.start_us;
    let mut due = tokio::time::Instant::now();
    let mut text = String::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.context("cannot read the recording further")?;
        let gap = frame.at.saturating_sub(at);
        if gap > 0 {
            at = frame.at;
            if !(options.skip_idle && gap > IDLE_US) {
                due += Duration::from_micros(gap).div_f64(options.speed.max(0.01));
                tokio::time::sleep_until(due).await;
            }
        }
        match (&frame.body, recording.size) {
            (Body::Output(bytes), None) => put(io::stdout(), output.push(bytes).map(|piece| visible(&piece.text)))?,
            (Body::ErrorOutput(bytes), None) => {
                put(io::stderr(), error_output.push(bytes).map(|piece| visible(&piece.text)))?;
            }
            _ => {
                transcript.frame(&frame, &mut text);
                put(io::stdout(), Some(std::mem::take(&mut text)))?;
            }
        }
    }
    put(io::stdout(), output.finish().map(|piece| visible(&piece.text)))?;
    put(io::stderr(), error_output.finish().map(|piece| visible(&piece.text)))?;
    transcript.finish(&mut text);
    put(io::stdout(), Some(text))
}

fn put(mut to: impl Write, text: Option<String>) -> anyhow::Result<()> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    to.write_all(text.as_bytes()).and_then(|()| to.flush()).context("cannot write to standard output")
}

/// What woke the loop.
enum Woken {
    Frame(Option<Frame>),
    Key(Option<Event>),
    Time,
}

async fn play_screen<S, E>(
    recording: &Recording,
    size: TerminalSize,
    options: PlayOptions,
    keys: bool,
    frames: S,
) -> anyhow::Result<Played>
where
    S: Stream<Item = Result<Frame, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut frames = std::pin::pin!(frames);
    let began = Instant::now();
    let mut replay = Replay::new(size, options.speed, options.skip_idle, began.elapsed());
    if options.start_us > 0 {
        replay.command(Command::Seek(i64::try_from(options.start_us).unwrap_or(i64::MAX)), began.elapsed());
    }
    let mut stage = Stage::open(keys).context("cannot set up the terminal")?;
    let mut pressed = stage.keys();
    loop {
        replay.advance(began.elapsed());
        let status = keys.then(|| status(&replay, recording, options, began.elapsed()));
        stage.draw(&replay, status.as_deref()).context("cannot draw on the terminal")?;
        if (!keys || options.leave_at_end) && replay.is_over() {
            stage.close(&replay)?;
            return Ok(Played::ToTheEnd);
        }
        let now = began.elapsed();
        // The clock in the status line ticks too.
        let tick = if keys && !replay.is_paused() { Duration::from_millis(250) } else { Duration::from_secs(3600) };
        let wait = replay.wait(now).unwrap_or(tick).clamp(FRAME, tick.max(FRAME));
        let woken = tokio::select! {
            biased;
            key = async { match &mut pressed { Some(pressed) => pressed.recv().await, None => std::future::pending().await } } => Woken::Key(key),
            frame = frames.next(), if replay.wants_more() => Woken::Frame(frame.transpose().context("cannot read the recording further")?),
            () = tokio::time::sleep(wait) => Woken::Time,
        };
        match woken {
            Woken::Time => {}
            Woken::Frame(Some(frame)) => {
                replay.read(frame);
                // As much as is there at once; then what became due is drawn.
                let full = Instant::now() + FRAME;
                while replay.wants_more() && Instant::now() < full {
                    match futures::FutureExt::now_or_never(frames.next()) {
                        Some(Some(frame)) => replay.read(frame.context("cannot read the recording further")?),
                        Some(None) => replay.end(),
                        None => break,
                    }
                }
            }
            Woken::Frame(None) => replay.end(),
            // Whoever reads the keys is gone, and so is the way to leave.
            Woken::Key(None) => return Ok(Played::Quit),
            Woken::Key(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => match command(key) {
                Some(Asked::Quit) => {
                    let over = replay.is_over();
                    return Ok(if over { Played::ToTheEnd } else { Played::Quit });
                }
                Some(Asked::Command(command)) => replay.command(command, began.elapsed()),
                None => {}
            },
            Woken::Key(Some(Event::Resize(..))) => stage.forget(),
            Woken::Key(Some(_)) => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Command(Command),
    Quit,
}

/// What a key asks for.
fn command(key: KeyEvent) -> Option<Asked> {
    const STEP: i64 = 5_000_000;
    const LEAP: i64 = 60_000_000;
    let by = if key.modifiers.contains(KeyModifiers::SHIFT) { LEAP } else { STEP };
    Some(Asked::Command(match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            return Some(Asked::Quit);
        }
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Some(Asked::Quit),
        KeyCode::Char(' ') => Command::Pause,
        KeyCode::Left => Command::Seek(-by),
        KeyCode::Right => Command::Seek(by),
        KeyCode::Home | KeyCode::Char('0') => Command::ToStart,
        KeyCode::End => Command::Seek(i64::MAX),
        KeyCode::Char('<' | ',') => Command::Slower,
        KeyCode::Char('>') => Command::Faster,
        KeyCode::Char('i') => Command::SkipIdle,
        KeyCode::Char('.') => Command::Step,
        _ => return None,
    }))
}

/// The line at the bottom.
fn status(replay: &Replay, recording: &Recording, options: PlayOptions, now: Duration) -> String {
    let (end, is_last) = replay.end_so_far();
    let end = recording.duration_us.unwrap_or(end).max(end);
    let more = if is_last || recording.duration_us.is_some() { "" } else { "+" };
    let state = if options.leave_at_end && replay.is_seeking() {
        "●"
    } else if replay.is_seeking() {
        "»"
    } else if replay.is_over() {
        "■"
    } else if replay.is_paused() {
        "‖"
    } else {
        "▶"
    };
    let idle = if replay.skips_idle() { "  idle skipped" } else { "" };
    format!(
        " {state} {} / {}{more}  {}x{idle}  {}  │ space ←→ ⇧←→ <> i . q",
        clock(replay.position_at(now)),
        clock(end),
        replay.speed(),
        visible(&recording.title).replace(['\n', '\t'], " "),
    )
}

fn clock(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

/// The terminal that somebody sits at, while a replay has it.
struct Stage {
    out: io::Stdout,
    keys: bool,
    stop: Arc<AtomicBool>,
    /// What each row shows now.
    rows: Vec<String>,
    size: (u16, u16),
    drawn: Option<u64>,
    open: bool,
}

impl Stage {
    fn open(keys: bool) -> io::Result<Self> {
        let mut out = io::stdout();
        if keys {
            terminal::enable_raw_mode()?;
        }
        let stage = Self {
            out: io::stdout(),
            keys,
            stop: Arc::default(),
            rows: Vec::new(),
            size: (0, 0),
            drawn: None,
            open: true,
        };
        execute!(out, terminal::EnterAlternateScreen, cursor::Hide, terminal::DisableLineWrap)?;
        Ok(stage)
    }

    /// Keys, read in a thread that ends with the stage.
    fn keys(&self) -> Option<mpsc::Receiver<Event>> {
        if !self.keys {
            return None;
        }
        let (send, receive) = mpsc::channel(64);
        let stop = Arc::clone(&self.stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match event::poll(Duration::from_millis(100)) {
                    Ok(false) => {}
                    Ok(true) => match event::read() {
                        Ok(event) => {
                            if send.blocking_send(event).is_err() {
                                return;
                            }
                        }
                        Err(_) => return,
                    },
                    Err(_) => return,
                }
            }
        });
        Some(receive)
    }

    /// Whatever is drawn has to be drawn again.
    fn forget(&mut self) {
        self.rows.clear();
        self.drawn = None;
    }

    /// Draws what changed. The replayed screen has all rows but the last, which is the status line's.
    fn draw(&mut self, replay: &Replay, status: Option<&str>) -> io::Result<()> {
        let size = terminal::size().unwrap_or((80, 24));
        if size != self.size {
            self.forget();
            self.size = size;
        }
        let (cols, rows) = (usize::from(size.0), usize::from(size.1));
        let area = rows.saturating_sub(usize::from(status.is_some()));
        let mut lines = Vec::new();
        if self.drawn != Some(replay.changes()) {
            lines = picture(replay.screen(), cols, area);
            self.drawn = Some(replay.changes());
        }
        let mut text = String::new();
        let whole = self.rows.len() != rows;
        if whole {
            self.rows = vec![String::new(); rows];
            text.push_str("\x1b[m\x1b[2J");
        }
        let status = status.map(|status| {
            let shown: String = status.chars().take(cols).collect();
            let room = cols.saturating_sub(shown.chars().count());
            (rows.saturating_sub(1), format!("\x1b[0;7m{shown}{}\x1b[m", " ".repeat(room)))
        });
        for (row, line) in lines.into_iter().enumerate().chain(status) {
            if let Some(old) = self.rows.get_mut(row)
                && *old != line
            {
                // Writing to a string does not fail.
                let _ = write!(text, "\x1b[{};1H{line}\x1b[m\x1b[K", row + 1);
                *old = line;
            }
        }
        if !text.is_empty() {
            self.out.write_all(format!("\x1b[?2026h{text}\x1b[?2026l").as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Leaves, with the last picture on the ordinary screen.
    fn close(mut self, replay: &Replay) -> anyhow::Result<()> {
        self.restore();
        let mut lines = picture(replay.screen(), usize::from(self.size.0.max(1)), usize::from(u16::MAX));
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        let text: String = lines.iter().map(|line| format!("{line}\x1b[m\r\n")).collect();
        put(io::stdout(), Some(text))
    }

    fn restore(&mut self) {
        if std::mem::take(&mut self.open) {
            self.stop.store(true, Ordering::Relaxed);
            // The terminal may be gone: there is nobody left to tell.
            let _ = execute!(self.out, terminal::EnableLineWrap, cursor::Show, terminal::LeaveAlternateScreen);
            if self.keys {
                let _ = terminal::disable_raw_mode();
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The screen as lines of our own escape codes, clipped to what fits around the cursor. Each starts with plain
/// attributes and holds nothing but printable characters, colours and attributes.
fn picture(screen: &Screen, cols: usize, rows: usize) -> Vec<String> {
    let cursor = screen.terminal.cursor();
    let height = screen.terminal.size().1;
    let first = if height > rows { (cursor.row + 1).saturating_sub(rows).min(height - rows) } else { 0 };
    let mut lines: Vec<String> = screen
        .terminal
        .screen()
        .visible_lines()
        .enumerate()
        .skip(first)
        .take(rows)
        .map(|(row, line)| draw_line(line, cols, (cursor.visible && row == cursor.row).then_some(cursor.col)))
        .collect();
    lines.resize(rows.min(height).max(lines.len()), String::new());
    if rows < usize::from(u16::MAX) {
        lines.resize(rows, String::new());
    }
    lines
}

fn draw_line(line: &Line, cols: usize, cursor: Option<usize>) -> String {
    let mut text = String::new();
    let mut pen: Option<(Pen, bool)> = None;
    let mut col = 0;
    let last = line.cells().iter().rposition(|cell| !is_blank(cell)).map_or(0, |last| last + 1);
    let wanted = cursor.map_or(last, |cursor| last.max(cursor + 1));
    for cell in line.cells().iter().take(wanted) {
        let width = usize::from(cell.width());
        if width == 0 {
            continue;
        }
        if col + width > cols {
            break;
        }
        let here = (*cell.pen(), cursor.is_some_and(|cursor| (col..col + width).contains(&cursor)));
        if pen != Some(here) {
            push_pen(&here.0, here.1, &mut text);
            pen = Some(here);
        }
        let character = cell.char();
        text.push(if is_unfit(character) { '\u{fffd}' } else { character });
        col += width;
    }
    text
}

fn is_blank(cell: &Cell) -> bool {
    cell.char() == ' ' && cell.pen().is_default()
}

fn push_pen(pen: &Pen, under_cursor: bool, text: &mut String) {
    text.push_str("\x1b[0");
    for (set, code) in [
        (pen.is_bold(), 1),
        (pen.is_faint(), 2),
        (pen.is_italic(), 3),
        (pen.is_underline(), 4),
        (pen.is_blink(), 5),
        (pen.is_inverse() != under_cursor, 7),
        (pen.is_strikethrough(), 9),
    ] {
        if set {
            let _ = write!(text, ";{code}");
        }
    }
    for (color, base) in [(pen.foreground(), 38), (pen.background(), 48)] {
        match color {
            Some(Color::Indexed(index)) => {
                let _ = write!(text, ";{base};5;{index}");
            }
            Some(Color::RGB(rgb)) => {
                let _ = write!(text, ";{base};2;{};{};{}", rgb.r, rgb.g, rgb.b);
            }
            None => {}
        }
    }
    text.push('m');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn screen(cols: u16, rows: u16, output: &[u8]) -> Screen {
        let mut screen = Screen::new(TerminalSize { cols, rows });
        assert!(screen.show(&Body::Output(Bytes::copy_from_slice(output))));
        screen
    }

    #[test]
    fn colours_are_ours_and_the_cursor_is_drawn() {
        let screen = screen(8, 2, b"\x1b[1;31mab\x1b[m c\x1b]0;title\x07\x1b[6n");
        assert_eq!(picture(&screen, 8, 2), ["\x1b[0;1;38;5;1mab\x1b[0m c\x1b[0;7m ", ""]);
    }

    #[test]
    fn a_screen_that_is_too_large_is_clipped_around_its_cursor() {
        let screen = screen(8, 4, b"one\r\ntwo\r\nthree\r\nfour 5678\x1b[?25l");
        assert_eq!(picture(&screen, 3, 2), ["\x1b[0mfou", "\x1b[0m8"]);
    }

    #[test]
    fn a_wide_character_is_not_cut_in_two() {
        let screen = screen(8, 1, "a界界\x1b[?25l".as_bytes());
        assert_eq!(picture(&screen, 4, 1), ["\x1b[0ma界"]);
    }

    #[test]
    fn keys_ask_for_what_the_status_line_says() {
        let key = |code, modifiers| command(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Right, KeyModifiers::SHIFT), Some(Asked::Command(Command::Seek(60_000_000))));
        assert_eq!(key(KeyCode::Left, KeyModifiers::NONE), Some(Asked::Command(Command::Seek(-5_000_000))));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Asked::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
    }

    proptest! {
        #[test]
        fn nothing_but_colours_of_ours_reaches_the_terminal(
            output in prop::collection::vec(any::<u8>(), 0..200), cols in 1_usize..30, rows in 1_usize..6,
        ) {
            for line in picture(&screen(20, 5, &output), cols, rows) {
                let mut rest = line.as_str();
                while let Some(start) = rest.find('\x1b') {
                    prop_assert!(!rest[..start].chars().any(is_unfit));
                    let end = rest[start..].find('m').unwrap() + start;
                    prop_assert!(rest[start + 2..end].chars().all(|sign| sign.is_ascii_digit() || sign == ';'));
                    rest = &rest[end + 1..];
                }
                prop_assert!(!rest.chars().any(is_unfit));
            }
        }
    }
}
