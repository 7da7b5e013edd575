//! What the bastion itself says on an engineer's terminal: the welcome, the warnings before the end, the last words.
//!
//! Only to a shell with a terminal, never into the streams of exec, scp, sftp or rsync. Everything said is recorded.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::CutReason;
use sallyport_domain::grant::Capabilities;
use sallyport_domain::policy::Denial;
use sallyport_domain::terminal::TerminalWatch;

use crate::app::access::OpenSession;

/// How long before the end of the window the engineer is warned.
pub const WARN_BEFORE: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(5 * 60), Duration::from_secs(60)];

/// A line of the bastion's own for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub about: About,
    text: String,
}

/// What a note is about. A later one takes the place of an earlier one that was not shown yet, but for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    TheEnd,
    /// Whether the session stands still.
    StandingStill,
    /// The bastion ends.
    Leaving,
    Message,
}

impl Note {
    /// The window ends soon: `minutes` before its end this was due.
    pub fn ending(not_after: DateTime<Utc>, minutes: u64) -> Self {
        let minutes = match minutes {
            1 => "1 minute".to_owned(),
            minutes => format!("{minutes} minutes"),
        };
        Self { about: About::TheEnd, text: format!("access ends in {minutes}, at {}", clock_time(not_after)) }
    }

    /// The bastion is restarted and ends the session then.
    pub fn leaving(until: DateTime<Utc>) -> Self {
        let text =
            format!("this bastion is restarted: the session ends at {}; log in again for a new one", exact_time(until));
        Self { about: About::Leaving, text }
    }

    /// Nobody watches, and the session stands still until somebody does; `patience`, then it is over.
    pub fn unwatched(patience: TimeDelta) -> Self {
        let text = format!("stands still: nobody watches; it ends in {} unless somebody does", duration(patience));
        Self { about: About::StandingStill, text }
    }

    /// An admin holds the session.
    pub fn held(reason: &str) -> Self {
        Self { about: About::StandingStill, text: printable(&format!("stands still: held by an admin: {reason}")) }
    }

    /// The session goes on.
    pub fn going_on() -> Self {
        Self { about: About::StandingStill, text: "goes on".to_owned() }
    }

    /// An admin says something.
    pub fn message(text: &str) -> Self {
        Self { about: About::Message, text: printable(text) }
    }

    fn text(&self) -> String {
        format!("sallyport: {}", self.text)
    }

    /// Window title and bell: these change nothing on the screen.
    pub fn title(&self) -> Vec<u8> {
        format!("\x1b]2;{}\x07\x07", self.text()).into_bytes()
    }

    /// A line on the primary screen. At a prompt it goes above the line that is being typed, which stays as it is and
    /// where the cursor was in it.
    pub fn line(&self, watch: &TerminalWatch) -> Vec<u8> {
        let text = format!("\x1b[7m {} \x1b[0m", self.text());
        if watch.is_line_start() {
            return format!("{text}\r\n").into_bytes();
        }
        // Make sure of a line below (IND, CUU); then save the cursor, push this line down (IL), write, and come back one
        // lower (DECRC, CUD).
        format!("\x1bD\x1b[A\x1b7\r\x1b[L{text}\x1b8\x1b[B").into_bytes()
    }
}

/// The lines after login on a terminal.
pub fn welcome(session: &OpenSession, now: DateTime<Utc>) -> Vec<u8> {
    let permit = &session.permit;
    let Capabilities { upload, download, forwards, .. } = &permit.terms().capabilities;
    let word = |allowed: bool| if allowed { "yes" } else { "no" };
    format!(
        "{} \u{2192} {}@{}   until {} ({})   {}\r\nRecorded. Upload {}, download {}, forwarding {}.\r\n",
        session.principal.name,
        permit.login(),
        session.target.name,
        clock_time(permit.not_after()),
        duration(permit.not_after() - now),
        printable(&session.reason),
        word(*upload),
        word(*download),
        word(!forwards.is_empty()),
    )
    .into_bytes()
}

/// The last words on a terminal. A full-screen program may have left it in any state, so it is put back first.
pub fn last_words(reason: &CutReason, watch: &TerminalWatch) -> Vec<u8> {
    // End any half-sent sequence (CAN), then: attributes off, mouse and bracketed paste off, cursor on.
    let mut bytes = b"\x18\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h".to_vec();
    if watch.is_alternate() {
        bytes.extend_from_slice(b"\x1b[?1049l");
    }
    bytes.extend_from_slice(format!("\r\nsallyport: this session was ended: {}\r\n", goodbye(reason)).as_bytes());
    bytes
}

/// Why the session was ended, in one line fit for any terminal.
pub fn goodbye(reason: &CutReason) -> String {
    match reason {
        CutReason::Denied { denial } => denial_text(denial),
        other => printable(&other.to_string()),
    }
}

/// A text without control characters, whoever wrote it, and without those that turn the direction of writing (UAX #9 §2).
pub fn printable(text: &str) -> String {
    let turns = |character| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |character: char| if character.is_control() || turns(character) { ' ' } else { character };
    text.chars().map(shown).take(200).collect()
}

/// `14:00 UTC`; an engineer's shell has no other zone that both sides would agree on.
pub fn clock_time(at: DateTime<Utc>) -> String {
    at.format("%H:%M UTC").to_string()
}

/// `14:00:30 UTC`
fn exact_time(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S UTC").to_string()
}

/// `2026-11-22 14:00 UTC`
pub fn date_time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// What the rule said, as an engineer reads it.
pub fn denial_text(denial: &Denial) -> String {
    match denial {
        Denial::NotYet { opens_at, .. } => format!("your access starts at {}", date_time(*opens_at)),
        Denial::Expired { at, .. } => format!("your access ended at {}", date_time(*at)),
        Denial::Revoked { at, .. } => format!("your access was taken back at {}", date_time(*at)),
        // Whoever has no grant is not told which targets there are.
        Denial::UnknownTarget | Denial::UnknownLogin | Denial::LoginNotGranted => Denial::NoGrant.to_string(),
        other => printable(&other.to_string()),
    }
}

/// `2 h 19 min`, `4 d 2 h`, `40 s`: the two largest units.
pub fn duration(length: TimeDelta) -> String {
    let seconds = length.num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use avt::Terminal;

    use super::*;

    fn warning() -> Note {
        Note::ending(DateTime::from_timestamp(50_400, 0).unwrap(), 5)
    }

    /// A terminal that has shown `before` and then the line of a warning.
    fn warned(before: &str) -> (Terminal, Terminal) {
        let mut plain = Terminal::new(80, 6).unwrap();
        plain.feed(before);
        let mut watch = TerminalWatch::new();
        watch.watch(before.as_bytes());
        let mut warned = Terminal::new(80, 6).unwrap();
        warned.feed(before);
        warned.feed(String::from_utf8(warning().line(&watch)).unwrap().as_str());
        (plain, warned)
    }

    #[test]
    fn a_warning_goes_above_the_line_being_typed_and_leaves_the_cursor_in_it() {
        for lines in [1, 3, 5, 6, 9] {
            let before = format!("{}$ ls -l /et", "output\r\n".repeat(lines));
            let (plain, warned) = warned(&before);
            let text = warned.screen().text();
            let (column, row) = warned.cursor().position().unwrap();
            assert_eq!(text[row].trim_end(), "$ ls -l /et", "{lines} lines: {text:#?}");
            assert_eq!(column, plain.cursor().position().unwrap().0);
            assert_eq!(text[row - 1].trim_end(), " sallyport: access ends in 5 minutes, at 14:00 UTC", "{text:#?}");
        }
    }

    #[test]
    fn a_warning_at_the_start_of_a_line_is_a_line() {
        let (_, warned) = warned("output\r\n");
        assert_eq!(warned.screen().text()[1].trim(), "sallyport: access ends in 5 minutes, at 14:00 UTC");
        assert_eq!(warned.cursor().position(), Some((0, 2)));
    }

    #[test]
    fn title_and_bell_leave_the_screen_as_it_was() {
        let mut terminal = Terminal::new(80, 6).unwrap();
        terminal.feed("\x1b[?1049h~\r\n~ \x1b[3;4H");
        let before = terminal.dump();
        terminal.feed(String::from_utf8(warning().title()).unwrap().as_str());
        assert_eq!(terminal.dump(), before);
    }

    #[test]
    fn the_last_words_are_read_on_the_primary_screen_whatever_was_on() {
        for before in ["$ ", "\x1b[?1049h\x1b[2J~ vim ~\x1b[5;5H", "\x1b]0;half a title"] {
            let mut watch = TerminalWatch::new();
            watch.watch(before.as_bytes());
            let mut terminal = Terminal::new(80, 6).unwrap();
            terminal.feed(before);
            let reason = CutReason::Admin { by: "wu.t".to_owned(), reason: "wrong\x1b[2Jhost".to_owned() };
            terminal.feed(String::from_utf8(last_words(&reason, &watch)).unwrap().as_str());
            let text = terminal.screen().text().join("\n");
            assert!(text.contains("this session was ended: cut by wu.t: wrong [2Jhost"), "{text}");
        }
    }

    #[test]
    fn a_message_has_no_say_over_the_terminal() {
        let line = Note::message("wu: \x1b[2J\x07\u{9b}2J\r\nstop\u{202e}").line(&TerminalWatch::new());
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text, "\x1b[7m sallyport: wu:  [2J  2J  stop  \x1b[0m\r\n");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let say = |seconds| duration(TimeDelta::seconds(seconds));
        assert_eq!(say(40), "40 s");
        assert_eq!(say(60), "1 min");
        assert_eq!(say(8_340), "2 h 19 min");
        assert_eq!(say(352_800), "4 d 2 h");
    }
}
