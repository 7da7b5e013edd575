//! What an SSH channel is doing, and which channel request is legal next (RFC 4254 §6).
//!
//! ```text
//!   open ──► Idle ──"pty-req"──► Idle ──"shell" | "exec" | "subsystem"──► Running ──► Closed
//!              └──────────────────────────────── close ─────────────────────────────────┘
//! ```

use serde::{Deserialize, Serialize};

use crate::grant::Destination;
use crate::id::RecordingId;

/// What was started on a session channel; it is started at most once (RFC 4254 §6.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "program", rename_all = "snake_case")]
pub enum Program {
    /// "shell"
    Shell,
    /// "exec"; the command is bytes, not text.
    Exec { command: Vec<u8> },
    /// "subsystem"
    Subsystem { name: String },
    /// No program of a session channel, but a channel of its own: "direct-tcpip" (RFC 4254 §7.2), or
    /// "direct-streamlocal@openssh.com". It is recorded like one.
    Forward { destination: Destination },
}

impl Program {
    /// The word used in the API, the database and lists.
    pub fn kind(&self) -> &'static str {
        match self {
            Program::Shell => "shell",
            Program::Exec { .. } => "exec",
            Program::Subsystem { .. } => "subsystem",
            Program::Forward { .. } => "forward",
        }
    }
}

/// The size of a terminal in characters. Zero means that the client does not know (RFC 4254 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TerminalSize {
    pub cols: u16,
    pub rows: u16,
}

impl TerminalSize {
    /// The greatest number of columns and of rows that is believed; what is more is taken for a mistake or an attack
    /// on the memory of whoever draws the terminal.
    pub const MOST: u16 = 1000;

    /// A size fit for drawing: what the client does not know is 80×24, what is absurd is cut down.
    pub fn drawable(self) -> Self {
        let side = |given: u16, usual: u16| if given == 0 { usual } else { given.min(Self::MOST) };
        Self { cols: side(self.cols, 80), rows: side(self.rows, 24) }
    }

    /// Takes the four-byte counts of the wire.
    pub fn from_wire(cols: u32, rows: u32) -> Self {
        let side = |given: u32| u16::try_from(given).unwrap_or(u16::MAX);
        Self { cols: side(cols), rows: side(rows) }
    }
}

/// An accepted "pty-req" (RFC 4254 §6.2), kept until the program starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pty {
    /// The TERM value, at most 64 bytes of printable ASCII.
    pub term: String,
    pub size: TerminalSize,
    pub pixel_width: u32,
    pub pixel_height: u32,
    /// Terminal modes (RFC 4254 §8): opcode and argument.
    pub modes: Vec<(u8, u32)>,
}

/// What one session channel (RFC 4254 §6) is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// No program yet. `pty` is the last accepted "pty-req" (§6.2); `env` what "env" (§6.4) asked for.
    Idle { pty: Option<Pty>, env: Vec<(String, String)> },
    /// "shell", "exec" or "subsystem" was accepted, which happens at most once (§6.5).
    /// The recording is not optional: an unrecorded program cannot be written down.
    Running { program: Program, recording: RecordingId, has_pty: bool },
    /// `SSH_MSG_CHANNEL_CLOSE` went one way or the other (§5.3).
    Closed,
}

/// Why a channel request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a program already runs on this channel")]
    AlreadyRunning,
    #[error("no program runs on this channel yet")]
    NotRunning,
    #[error("the channel is closed")]
    Closed,
    #[error("the channel has no terminal")]
    NoTerminal,
    #[error("the value is too long or holds bytes that do not belong there")]
    Malformed,
    #[error("this variable is not on the list of those that are passed on")]
    VariableNotListed,
}

/// What was asked for before the program: the terminal, and the environment's variables.
pub type Asked = (Option<Pty>, Vec<(String, String)>);

impl Channel {
    /// A session channel that was just opened.
    pub const fn new() -> Self {
        Channel::Idle { pty: None, env: Vec::new() }
    }

    /// "pty-req": legal before the program starts; a second one replaces the first, as in OpenSSH.
    pub fn request_pty(&mut self, new: Pty) -> Result<(), RequestError> {
        let printable = new.term.len() <= 64 && new.term.bytes().all(|byte| byte.is_ascii_graphic());
        match self {
            Channel::Idle { .. } if !printable => Err(RequestError::Malformed),
            Channel::Idle { pty, .. } => {
                *pty = Some(new);
                Ok(())
            }
            Channel::Running { .. } => Err(RequestError::AlreadyRunning),
            Channel::Closed => Err(RequestError::Closed),
        }
    }

    /// "env": legal before the program starts, for variables on `allowed`, where a trailing `*` stands for any ending.
    pub fn request_env(&mut self, name: &str, value: &str, allowed: &[String]) -> Result<(), RequestError> {
        /// As many as OpenSSH's server takes.
        const MOST_VARIABLES: usize = 128;
        const MOST_BYTES: usize = 4096;
        match self {
            Channel::Idle { env, .. } => {
                if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') || value.len() > MOST_BYTES {
                    return Err(RequestError::Malformed);
                }
                let listed = allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == pattern,
                });
                if !listed || env.len() >= MOST_VARIABLES {
                    return Err(RequestError::VariableNotListed);
                }
                env.push((name.to_owned(), value.to_owned()));
                Ok(())
            }
            Channel::Running { .. } => Err(RequestError::AlreadyRunning),
            Channel::Closed => Err(RequestError::Closed),
        }
    }

    /// Whether "shell", "exec" or "subsystem" is legal now.
    pub fn may_start(&self) -> Result<(), RequestError> {
        match self {
            Channel::Idle { .. } => Ok(()),
            Channel::Running { .. } => Err(RequestError::AlreadyRunning),
            Channel::Closed => Err(RequestError::Closed),
        }
    }

    /// The program starts. Gives back what was asked for before it.
    pub fn start(&mut self, program: Program, recording: RecordingId) -> Result<Asked, RequestError> {
        self.may_start()?;
        let Channel::Idle { pty, env } = std::mem::replace(self, Channel::Closed) else {
            return Err(RequestError::Closed); // may_start has refused every other state
        };
        *self = Channel::Running { program, recording, has_pty: pty.is_some() };
        Ok((pty, env))
    }

    /// "window-change" (§6.7) is legal whenever there is a terminal. Before the program starts it changes the "pty-req".
    pub fn change_window(&mut self, size: TerminalSize, pixels: (u32, u32)) -> Result<(), RequestError> {
        match self {
            Channel::Idle { pty: Some(pty), .. } => {
                pty.size = size;
                (pty.pixel_width, pty.pixel_height) = pixels;
                Ok(())
            }
            Channel::Idle { pty: None, .. } | Channel::Running { has_pty: false, .. } => Err(RequestError::NoTerminal),
            Channel::Running { has_pty: true, .. } => Ok(()),
            Channel::Closed => Err(RequestError::Closed),
        }
    }

    /// "signal" (§6.9) and "break" (RFC 4335) need a program.
    pub fn may_signal(&self) -> Result<(), RequestError> {
        match self {
            Channel::Idle { .. } => Err(RequestError::NotRunning),
            Channel::Running { .. } => Ok(()),
            Channel::Closed => Err(RequestError::Closed),
        }
    }

    /// A close went one way or the other; nothing is legal any more.
    pub fn close(&mut self) {
        *self = Channel::Closed;
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn recording() -> RecordingId {
        RecordingId::from_uuid(Uuid::from_u128(1))
    }

    fn pty(term: &str) -> Pty {
        let size = TerminalSize { cols: 80, rows: 24 };
        Pty { term: term.to_owned(), size, pixel_width: 0, pixel_height: 0, modes: vec![] }
    }

    #[test]
    fn a_program_starts_once_and_takes_the_terminal_with_it() {
        let mut channel = Channel::new();
        channel.request_pty(pty("xterm")).unwrap();
        let (taken, _) = channel.start(Program::Shell, recording()).unwrap();
        assert_eq!(taken.map(|pty| pty.term), Some("xterm".to_owned()));
        assert_eq!(channel.may_start(), Err(RequestError::AlreadyRunning));
        assert_eq!(channel.request_pty(pty("vt100")), Err(RequestError::AlreadyRunning));
        assert_eq!(channel.change_window(TerminalSize { cols: 1, rows: 1 }, (0, 0)), Ok(()));
    }

    #[test]
    fn only_listed_variables_are_passed_on() {
        let allowed = ["LANG".to_owned(), "LC_*".to_owned()];
        let mut channel = Channel::new();
        assert_eq!(channel.request_env("LC_TIME", "C", &allowed), Ok(()));
        assert_eq!(channel.request_env("LANGUAGE", "C", &allowed), Err(RequestError::VariableNotListed));
        assert_eq!(channel.request_env("LD_PRELOAD", "x", &allowed), Err(RequestError::VariableNotListed));
        assert_eq!(channel.request_env("LANG", "a\0b", &allowed), Err(RequestError::Malformed));
    }

    #[test]
    fn a_signal_needs_a_program_and_a_window_needs_a_terminal() {
        let mut channel = Channel::new();
        assert_eq!(channel.may_signal(), Err(RequestError::NotRunning));
        channel.start(Program::Exec { command: b"id".to_vec() }, recording()).unwrap();
        assert_eq!(channel.may_signal(), Ok(()));
        assert_eq!(channel.change_window(TerminalSize { cols: 1, rows: 1 }, (0, 0)), Err(RequestError::NoTerminal));
        channel.close();
        assert_eq!(channel.may_signal(), Err(RequestError::Closed));
    }

    #[test]
    fn an_absurd_size_is_drawn_small_enough() {
        let size = TerminalSize::from_wire(u32::MAX, 0).drawable();
        assert_eq!(size, TerminalSize { cols: TerminalSize::MOST, rows: 24 });
    }
}
