//! Commands: a timeline of what was run, made from what a recording holds. It points a reviewer at places; the recording beside it
//! is what counts.
//!
//! - [`tracker`]: what came in and went out, in order, and what commands that shows.
//! - [`marks`]: shell integration, OSC 133 (FinalTerm's "semantic prompt") and OSC 633 (VS Code's), in the output.
//! - [`keys`]: what was typed, a line at a time.
//! - [`rules`]: which commands a grant allows, and which it flags.

pub mod keys;
pub mod marks;
pub mod rules;
pub mod tracker;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The longest text of a command that is kept, in bytes.
pub const MOST_TEXT: usize = 4 << 10;

/// As many commands of one recording are told; what is beyond is counted.
pub const MOST_COMMANDS: u32 = 10_000;

/// Something that was run, as far as can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Counts the recording's commands from 0. One that is told of again under its number has changed.
    pub number: u32,
    /// Microseconds since the recording began.
    pub at: u64,
    /// Line feeds, and nothing else that a terminal would obey.
    pub text: String,
    /// There was more text than is kept.
    pub is_cut: bool,
    pub certainty: Certainty,
    pub exit_status: Option<u32>,
    /// Microseconds.
    pub duration: Option<u64>,
}

/// How sure it is that this was run. The strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The "exec" request (RFC 4254 §6.5) as it was sent on.
    Exec,
    /// A line that was sent to a shell without a terminal.
    Input,
    /// The shell said so, by marks in its output. Whatever prints can say so.
    ShellMark,
    /// The line on the screen when Enter was pressed. What read it may not have been a shell.
    Screen,
}

impl Certainty {
    pub const ALL: [Certainty; 4] = [Certainty::Exec, Certainty::Input, Certainty::ShellMark, Certainty::Screen];

    /// The word used in the API, the database and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Certainty::Exec => "exec",
            Certainty::Input => "input",
            Certainty::ShellMark => "shell_mark",
            Certainty::Screen => "screen",
        }
    }
}

/// `text` as a command keeps it, and whether there was more: blanks at both ends go, and what a terminal would obey is
/// written as `\xNN`.
fn kept(text: &str) -> (String, bool) {
    let mut kept = String::new();
    for character in text.trim().chars() {
        let before = kept.len();
        match character {
            '\n' => kept.push('\n'),
            '\t' => kept.push(' '),
            control if control.is_control() => {
                let _ = write!(kept, "\\x{:02x}", u32::from(control)); // writing to a string does not fail
            }
            character => kept.push(character),
        }
        if kept.len() > MOST_TEXT {
            kept.truncate(before);
            return (kept, true);
        }
    }
    (kept, false)
}

/// The same for bytes: those that are not UTF-8 are written as `\xNN`.
fn kept_bytes(bytes: &[u8]) -> (String, bool) {
    // Each byte becomes at most four, and what is left out is not looked at.
    let some = &bytes[..bytes.len().min(MOST_TEXT + 4)];
    let mut text = String::new();
    for chunk in some.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}"); // as above
        }
    }
    let (text, is_cut) = kept(&text);
    (text, is_cut || bytes.len() > some.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_text_holds_nothing_that_a_terminal_obeys_and_is_bounded() {
        assert_eq!(kept(" a\x1b[2J\tb\nc\r\n"), ("a\\x1b[2J b\nc".to_owned(), false));
        assert_eq!(kept_bytes(b"cat \xff\x00"), ("cat \\xff\\x00".to_owned(), false));
        let (text, is_cut) = kept_bytes("界".repeat(4000).as_bytes());
        assert!(is_cut && text.len() <= MOST_TEXT && text.len() > MOST_TEXT - 4);
    }
}
