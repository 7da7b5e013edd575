//! Which commands a recording shows. Fed with its frames in order, and with what the masker makes of the input, it tells of
//! commands, and of a command again when more is known of it.
//!
//! **With a terminal** a line that was entered becomes a command when its line feed is shown: the text is what the screen has
//! then, behind what stood before the cursor when the line's first key was pressed (the prompt). A line whose line feed
//! belongs to something else (a program that prints while one types ahead) waits for the one that fits what was typed. Nothing
//! is told of lines on the alternate screen (an editor, a pager), of empty lines, and of lines that were not echoed: the
//! masker's verdict on the line is waited for.
//!
//! **Shell marks** say better where the command line begins, and that it runs and how it ends. A line that was told as seen on
//! the screen is told again under its number as said by the shell. What a mark claims and the screen did not show is a
//! command of its own: a claim replaces nothing.
//!
//! Everything is bounded, a segment can end anywhere (the state is stored with it), and time is that of the frames, so that
//! what is recovered from a journal comes to the same.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::keys::{self, Keys, Stroke, Typed};
use super::marks::{Found, Mark, Scanner};
use super::{Certainty, Command, MOST_COMMANDS, MOST_TEXT, kept, kept_bytes};
use crate::channel::Program;
use crate::recording::frame::{Body, Frame};
use crate::screen::Screen;

/// As many lines may wait for their line feed.
const MOST_ENTERED: usize = 32;

/// As many lines of the screen are kept while a verdict is waited for.
const MOST_SHOWN: usize = 64;

/// So many line feeds, and so long in microseconds, a line waits for the one that fits it.
const MOST_TRIES: u32 = 256;
const PATIENCE_US: u64 = 3_000_000;

/// The longest prompt that is remembered, in bytes.
const MOST_PROMPT: usize = 512;

/// As many lines may belong to one command line (a loop that is typed over several).
const MOST_LINES: u32 = 32;

/// Follows one recording. The default one follows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracker {
    kind: Kind,
    /// The number of the next command.
    next: u32,
    /// Commands beyond [`MOST_COMMANDS`].
    beyond: u64,
    keys: Keys,
    /// What stood before the cursor when the line's first key was pressed.
    prompt: Option<String>,
    /// Input bytes so far, and those on which the masker has decided.
    typed: u64,
    judged: u64,
    /// Characters of the line that is being judged.
    line: Verdict,
    entered: VecDeque<Entered>,
    #[serde(skip)]
    shown: VecDeque<Shown>,
    /// The prompt of the last line that had one.
    last_prompt: Option<String>,
    marks: Marks,
    /// Told since the last [`Tracker::take`].
    #[serde(skip)]
    told: Vec<Command>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Kind {
    #[default]
    Nothing,
    /// Only lines on the terminal.
    Terminal,
    /// "exec", with a terminal or without.
    Exec { command: Box<Command>, is_told: bool, has_terminal: bool },
    /// A shell that reads its input without a terminal.
    Input { line: Vec<u8>, is_cut: bool, at: u64 },
}

/// How many characters of a line the terminal showed, and did not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Verdict {
    echoed: u64,
    masked: u64,
    /// In an escape sequence, whose letters are no characters of the line.
    escape: u8,
}

/// A line that was handed over and has not become a command yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entered {
    at: u64,
    /// Which input byte its Enter was.
    byte: u64,
    typed: Typed,
    prompt: Option<String>,
    verdict: Option<Verdict>,
    tries: u32,
    /// What it is taken for if nothing fits better.
    guess: Option<String>,
}

/// A line of the screen at a line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    text: String,
    /// What stands since the shell's mark where the command line begins.
    marked: Option<String>,
}

/// Where the shell is, as its marks say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Marks {
    scanner: Scanner,
    /// Where the command line begins: the column, and the row counted from the recording's first.
    place: Option<(u64, u64)>,
    /// Rows that left the screen at its top.
    gone: u64,
    /// The line that was handed over at this prompt, told as seen on the screen, and how many lines it has.
    open: Option<(Command, u32)>,
    claim: Option<String>,
    /// The command that runs, and since when.
    running: Option<(Command, u64)>,
}

impl Tracker {
    /// For a recording of `program`.
    pub fn new(program: &Program, has_terminal: bool) -> Self {
        let kind = match program {
            Program::Exec { command } => {
                let (text, is_cut) = kept_bytes(command);
                let certainty = Certainty::Exec;
                let command = Command { number: 0, at: 0, text, is_cut, certainty, exit_status: None, duration: None };
                Kind::Exec { command: Box::new(command), is_told: false, has_terminal }
            }
            Program::Shell | Program::Subsystem { .. } if has_terminal => Kind::Terminal,
            Program::Shell => Kind::Input { line: Vec::new(), is_cut: false, at: 0 },
            Program::Subsystem { .. } | Program::Forward { .. } => Kind::Nothing,
        };
        let next = u32::from(matches!(kind, Kind::Exec { .. }));
        Self { kind, next, ..Self::default() }
    }

    /// How many commands there were, those beyond [`MOST_COMMANDS`] too.
    pub fn count(&self) -> u64 {
        u64::from(self.next) + self.beyond
    }

    /// The number of the next command.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// What was told since the last call: the last state of each command.
    pub fn take(&mut self) -> Vec<Command> {
        let mut told = std::mem::take(&mut self.told);
        // The last word on each number, in their order.
        told.reverse();
        told.sort_by_key(|command| command.number);
        told.dedup_by_key(|command| command.number);
        told
    }

    /// Takes the next frame, and shows it to the terminal if there is one. False if that could not stand it; then there is
    /// none from now on.
    pub fn see(&mut self, frame: &Frame, screen: Option<&mut Screen>) -> bool {
        match &mut self.kind {
            Kind::Exec { command, is_told, .. } => {
                let before = (*is_told, command.exit_status, command.duration);
                match &frame.body {
                    Body::ExitStatus(status) => {
                        (command.exit_status, command.duration) = (Some(*status), Some(frame.at));
                    }
                    Body::ExitSignal { .. } | Body::End(_) if command.duration.is_none() => {
                        command.duration = Some(frame.at);
                    }
                    _ => {}
                }
                *is_told = true;
                if before != (true, command.exit_status, command.duration) {
                    self.told.push((**command).clone());
                }
            }
            Kind::Input { .. } => self.see_input(frame),
            Kind::Nothing | Kind::Terminal => {}
        }
        let Some(screen) = screen else { return true };
        let is_followed = self.has_terminal();
        if is_followed {
            self.settle(frame.at); // as if somebody had looked just before
        }
        let gone = match &frame.body {
            Body::Output(bytes) | Body::ErrorOutput(bytes) if is_followed => return self.show(frame.at, bytes, screen),
            Body::Output(bytes) | Body::ErrorOutput(bytes) | Body::Notice(bytes) => screen.show(bytes),
            Body::Resize(size) => {
                self.marks.place = None; // lines wrap anew
                screen.resize(*size)
            }
            Body::Input(bytes) if is_followed => {
                self.type_in(frame.at, bytes, screen);
                Some(0)
            }
            Body::MaskedInput { bytes } if is_followed => {
                // What an earlier run masked: nothing of it ends a line.
                self.begin_line(screen);
                self.typed += u64::from(*bytes);
                Some(0)
            }
            _ => Some(0),
        };
        self.marks.gone += gone.unwrap_or(0);
        gone.is_some()
    }

    fn has_terminal(&self) -> bool {
        matches!(self.kind, Kind::Terminal | Kind::Exec { has_terminal: true, .. })
    }

    /// Takes what the masker has decided, in order: input that is kept, and the number of bytes that are not.
    pub fn judge(&mut self, body: &Body) {
        match body {
            _ if !self.has_terminal() => {}
            Body::Input(bytes) => {
                for &byte in bytes {
                    self.judge_byte(byte);
                }
            }
            Body::MaskedInput { bytes } => {
                self.judged += u64::from(*bytes);
                self.line.masked += u64::from(*bytes);
            }
            _ => {}
        }
    }

    fn judge_byte(&mut self, byte: u8) {
        if keys::is_enter(byte) || keys::is_drop(byte) {
            let verdict = std::mem::take(&mut self.line);
            let judged = self.judged;
            if let Some(entered) = self.entered.iter_mut().find(|entered| entered.byte == judged) {
                entered.verdict = Some(verdict);
            }
        } else {
            self.line.take(byte);
        }
        self.judged += 1;
    }

    /// Tells what is known by now, `now` on the recording's clock.
    pub fn settle(&mut self, now: u64) {
        while let Some(front) = self.entered.front_mut() {
            let Some(verdict) = front.verdict else { return };
            if verdict.is_secret() {
                self.entered.pop_front();
                continue;
            }
            let mut found = None;
            while let Some(shown) = self.shown.pop_front() {
                found = front.fit(&shown, self.last_prompt.as_deref());
                if found.is_some() {
                    break;
                }
            }
            if found.is_none() {
                if front.tries < MOST_TRIES && now <= front.at.saturating_add(PATIENCE_US) {
                    return;
                }
                found = front.guess.take();
            }
            let Some(entered) = self.entered.pop_front() else { return };
            if entered.prompt.as_ref().is_some_and(|prompt| !prompt.trim().is_empty()) {
                self.last_prompt = entered.prompt;
            }
            if let Some(text) = found {
                self.tell_seen(entered.at, &text);
            }
        }
        self.shown.clear();
    }

    /// The state is about to be stored: what may have been typed without an echo must not be in it.
    pub fn prepare_to_rest(&mut self) {
        self.keys.forget();
        let is_open = |entered: &&mut Entered| entered.verdict.is_none_or(|verdict| verdict.masked > 0);
        self.entered.iter_mut().filter(is_open).for_each(|entered| entered.typed.forget());
    }

    /// A line that was handed over, as seen on the screen.
    fn tell_seen(&mut self, at: u64, text: &str) {
        let (text, is_cut) = kept(text);
        if text.is_empty() {
            return;
        }
        let at_prompt = self.marks.place.is_some() && self.marks.running.is_none();
        if let Some((command, lines)) = self.marks.open.as_mut().filter(|(_, lines)| at_prompt && *lines < MOST_LINES)
            && text.starts_with(&command.text)
        {
            *lines += 1;
            (command.text, command.is_cut) = (text, is_cut);
            let command = command.clone();
            self.told.push(command);
            return;
        }
        let Some(number) = self.number() else { return };
        let certainty = Certainty::Screen;
        let command = Command { number, at, text, is_cut, certainty, exit_status: None, duration: None };
        self.marks.open = at_prompt.then(|| (command.clone(), 1));
        self.told.push(command);
    }

    fn number(&mut self) -> Option<u32> {
        if self.next >= MOST_COMMANDS {
            self.beyond += 1;
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// What a terminal is sent.
    fn show(&mut self, at: u64, bytes: &[u8], screen: &mut Screen) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, found) = self.marks.scanner.take(rest, !self.entered.is_empty());
            let (before, behind) = rest.split_at(taken.min(rest.len()));
            let Some(gone) = screen.show(before) else { return false };
            self.marks.gone += gone;
            rest = behind;
            match found {
                None => {}
                Some(Found::LineFeed) => {
                    self.take_line_feed(at, screen);
                    let Some(gone) = screen.show(b"\n") else { return false };
                    self.marks.gone += gone;
                    rest = rest.get(1..).unwrap_or_default();
                }
                Some(Found::Mark(mark)) => {
                    self.settle(at);
                    self.take_mark(at, mark, screen);
                }
            }
        }
        true
    }

    fn take_line_feed(&mut self, at: u64, screen: &Screen) {
        if screen.is_alternate() || self.shown.len() >= MOST_SHOWN {
            return;
        }
        let marked = if self.marks.running.is_none() { self.since_mark(screen) } else { None };
        self.shown.push_back(Shown { text: screen.line().text, marked });
        self.settle(at);
    }

    /// What stands on the screen since the place where the command line begins.
    fn since_mark(&self, screen: &Screen) -> Option<String> {
        let (col, row) = self.marks.place?;
        let row = row.checked_sub(self.marks.gone)?;
        screen.since((usize::try_from(col).ok()?, usize::try_from(row).ok()?))
    }

    fn take_mark(&mut self, at: u64, mark: Mark, screen: &Screen) {
        match mark {
            Mark::PromptStart => self.marks.end_line(),
            Mark::LineStart => {
                if screen.is_alternate() {
                    return;
                }
                let (col, row) = screen.cursor();
                self.marks.open = None;
                self.marks.running = None;
                self.marks.place = Some((col as u64, row as u64 + self.marks.gone));
            }
            Mark::Line(line) => self.marks.claim = Some(line),
            Mark::Running { line } => self.take_running(at, line, screen),
            Mark::Ended { status } => {
                let ended = match (self.marks.running.take(), self.marks.open.take()) {
                    (Some(running), _) => Some(running),
                    (None, open) => {
                        open.map(|(command, _)| (command.at, command)).map(|(since, command)| (command, since))
                    }
                };
                self.marks.end_line();
                if let Some((mut command, since)) = ended {
                    command.certainty = Certainty::ShellMark;
                    command.exit_status = status;
                    command.duration = Some(at.saturating_sub(since));
                    self.told.push(command);
                }
            }
        }
    }

    fn take_running(&mut self, at: u64, line: Option<String>, screen: &Screen) {
        let claim = line.or_else(|| self.marks.claim.take());
        let seen = self.since_mark(screen);
        let mut open = self.marks.open.take();
        self.marks.end_line();
        // A further line of it, whose echo came together with the mark.
        if let (Some((command, _)), Some((text, is_cut))) = (&mut open, seen.as_deref().map(kept))
            && text != command.text
            && text.starts_with(&command.text)
            && self.take_entered(&text).is_some()
        {
            (command.text, command.is_cut) = (text, is_cut);
        }
        let claimed = claim.as_deref().map(kept);
        let command = match (open, claimed) {
            (Some((command, _)), None) => Some(command),
            (Some((command, _)), Some((text, is_cut))) if is_same(&command.text, &text) => {
                Some(Command { text, is_cut, ..command })
            }
            (open, claimed) => {
                let text = claimed.or_else(|| seen.as_deref().map(kept)).filter(|(text, _)| !text.is_empty());
                text.and_then(|(text, is_cut)| {
                    let entered_at = match open {
                        Some((command, _)) => Some(command.at), // it stays as it was seen
                        None => self.take_entered(&text),
                    };
                    let (number, at) = (self.number()?, entered_at.unwrap_or(at));
                    let certainty = Certainty::ShellMark;
                    Some(Command { number, at, text, is_cut, certainty, exit_status: None, duration: None })
                })
            }
        };
        if let Some(command) = command {
            let command = Command { certainty: Certainty::ShellMark, ..command };
            self.marks.running = Some((command.clone(), at));
            self.told.push(command);
        }
    }

    /// Takes the line that waits, if it is what a mark tells of: its echo came together with the mark. Gives when it was entered.
    fn take_entered(&mut self, text: &str) -> Option<u64> {
        let front = self.entered.front()?;
        let shows = |shown: &Shown| {
            shown.marked.as_deref().is_some_and(|marked| is_same(marked, text))
                || bare(&shown.text).ends_with(&bare(text))
        };
        let place = self.shown.iter().position(shows);
        if place.is_none() && !front.guess.as_deref().is_some_and(|guess| is_same(guess, text)) {
            return None;
        }
        self.shown.drain(..place.map_or(0, |place| place + 1));
        self.entered.pop_front().map(|entered| entered.at)
    }

    /// What is typed at a terminal.
    fn type_in(&mut self, at: u64, bytes: &[u8], screen: &Screen) {
        let brackets = self.marks.scanner.wants_brackets();
        // Lines that come in one packet have a prompt each, but only the first one's is there.
        let mut is_first = true;
        for &byte in bytes {
            let number = self.typed;
            self.typed += 1;
            let stroke = self.keys.take(byte, brackets);
            if is_first && self.prompt.is_none() && (self.keys.has_begun() || stroke != Stroke::More) {
                self.begin_line(screen);
            }
            match stroke {
                Stroke::More => {}
                Stroke::Dropped => (self.prompt, is_first) = (None, false),
                Stroke::Enter(typed) => {
                    let prompt = self.prompt.take();
                    is_first = false;
                    let is_empty = typed.plain().is_some_and(|line| line.is_empty());
                    if screen.is_alternate() || is_empty {
                        continue;
                    }
                    if self.entered.len() >= MOST_ENTERED {
                        self.entered.pop_front();
                        self.beyond += 1;
                    }
                    let (verdict, tries, guess) = (None, 0, None);
                    self.entered.push_back(Entered { at, byte: number, typed, prompt, verdict, tries, guess });
                }
            }
        }
    }

    /// Remembers the prompt of the line that begins.
    fn begin_line(&mut self, screen: &Screen) {
        if self.prompt.is_none() {
            let mut before = screen.line().before;
            if before.len() > MOST_PROMPT {
                before.clear();
            }
            self.prompt = Some(before);
        }
    }

    /// What is sent to a shell without a terminal.
    fn see_input(&mut self, frame: &Frame) {
        let Kind::Input { line, is_cut, at } = &mut self.kind else { return };
        let mut lines = Vec::new();
        let mut hand_over = |line: &mut Vec<u8>, is_cut: &mut bool, at: u64| {
            let (text, more) = kept_bytes(&std::mem::take(line));
            if !text.is_empty() {
                lines.push((at, text, more || *is_cut));
            }
            *is_cut = false;
        };
        match &frame.body {
            Body::Input(bytes) => {
                for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                    if line.is_empty() {
                        *at = frame.at;
                    }
                    let room = (MOST_TEXT + 1).saturating_sub(line.len()).min(part.len());
                    line.extend_from_slice(&part[..room]);
                    *is_cut |= room < part.len();
                    if part.ends_with(b"\n") {
                        hand_over(line, is_cut, *at);
                    }
                }
            }
            Body::InputEnd | Body::End(_) => hand_over(line, is_cut, *at),
            _ => {}
        }
        for (at, text, is_cut) in lines {
            let Some(number) = self.number() else { continue };
            let certainty = Certainty::Input;
            self.told.push(Command { number, at, text, is_cut, certainty, exit_status: None, duration: None });
        }
    }
}

impl Marks {
    /// The command line is over.
    fn end_line(&mut self) {
        (self.place, self.open, self.claim) = (None, None, None);
        self.running = None;
    }
}

impl Verdict {
    fn take(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (_, 0x1b) => 1,
            (1, b'[' | b'O') | (2, 0x20..=0x3f) => 2,
            (before, byte) => {
                self.echoed += u64::from(before == 0 && byte >= 0x20 && byte != 0x7f);
                0
            }
        };
    }

    /// The masker keeps characters of a line only where it has seen more than half of them echoed.
    fn is_secret(self) -> bool {
        self.masked > 0 && self.masked >= self.echoed
    }
}

impl Entered {
    /// The text of this line if it is the one that is shown.
    fn fit(&mut self, shown: &Shown, last_prompt: Option<&str>) -> Option<String> {
        self.tries += 1;
        let typed = self.typed.plain();
        if let Some(marked) = &shown.marked
            && typed.as_deref().map_or(!marked.is_empty(), |typed| bare(marked).contains(&bare(typed)))
        {
            return Some(marked.clone());
        }
        let behind = |prompt: Option<&str>| {
            let prompt = prompt.filter(|prompt| !prompt.trim().is_empty())?;
            Some(shown.text.strip_prefix(prompt)?.trim())
        };
        let rest = behind(self.prompt.as_deref());
        let Some(typed) = typed else {
            // Only the screen knows what was made of it.
            if let Some(rest) = rest.or_else(|| behind(last_prompt)) {
                return Some(rest.to_owned());
            }
            self.guess.get_or_insert_with(|| shown.text.clone());
            return None;
        };
        // Something may stand on the right of the row: a clock of the prompt's.
        let is_it = |rest: &str| {
            rest.strip_prefix(typed.as_str()).is_some_and(|right| right.is_empty() || right.starts_with("  "))
        };
        if rest.is_some_and(is_it) || shown.text.ends_with(&typed) {
            return Some(typed);
        }
        // An abbreviation that the shell has written out, history that it has filled in.
        if let Some(rest) = rest {
            self.guess.get_or_insert_with(|| rest.to_owned());
        }
        None
    }
}

/// Whether a claim says what the screen showed; how lines were wrapped and continued does not matter.
fn is_same(seen: &str, claimed: &str) -> bool {
    let (seen, claimed) = (bare(seen), bare(claimed));
    seen == claimed || (seen.len() >= MOST_TEXT / 2 && (claimed.starts_with(&seen) || seen.starts_with(&claimed)))
}

/// `text` without blanks and the prompts of further lines.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '>').collect()
}

#[cfg(test)]
mod tests;
