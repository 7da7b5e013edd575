//! Questions to the person at the terminal. They go to `/dev/tty`, so that they work while standard input is a pipe,
//! and a secret is read with echo off.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use secrecy::zeroize::Zeroize;

use super::failure::{Failure, FailureKind};

/// Whether and how people may be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prompt {
    /// `--no-input`: never ask.
    pub(crate) silent: bool,
    /// `--yes`: a question of yes or no is answered.
    pub(crate) assume_yes: bool,
}

impl Prompt {
    /// Asks for a yes. `false` is a no; where nobody can be asked it is a failure that says which option answers.
    pub(crate) fn confirm(self, question: &str) -> Result<bool, Failure> {
        if self.assume_yes {
            return Ok(true);
        }
        let mut tty = self.open("`--yes`")?;
        write!(tty, "{question} [y/N] ")?;
        tty.flush()?;
        let mut answer = String::new();
        BufReader::new(&tty).read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks for a secret, twice, without echo. `instead` is the option that gives it otherwise.
    pub(crate) fn new_secret(self, what: &str, instead: &str) -> Result<String, Failure> {
        let tty = self.open(instead)?;
        let first = read_secret(&tty, &format!("{what}: "))?;
        if first.is_empty() {
            return Err(Failure::usage("nothing was typed"));
        }
        let mut second = read_secret(&tty, &format!("{what} again: "))?;
        let same = first == second;
        second.zeroize();
        if same { Ok(first) } else { Err(Failure::usage("the two are not the same")) }
    }

    /// Asks for a line, shown while it is typed. `instead` is what gives it otherwise.
    pub(crate) fn line(self, question: &str, instead: &str) -> Result<String, Failure> {
        let mut tty = self.open(instead)?;
        write!(tty, "{question}: ")?;
        tty.flush()?;
        let mut answer = String::new();
        BufReader::new(&tty).take(1024).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    /// Whether there is a person who can be asked.
    pub(crate) fn can_ask(self) -> bool {
        !self.silent && OpenOptions::new().read(true).write(true).open("/dev/tty").is_ok()
    }

    fn open(self, instead: &str) -> Result<File, Failure> {
        let nobody = || Failure::usage("this needs an answer, and nobody can be asked").hint(format!("use {instead}"));
        if self.silent {
            return Err(nobody());
        }
        OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_no_terminal| nobody())
    }
}

/// Puts the terminal back as it was, on every way out.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(tty: &'a File) -> Result<Self, Failure> {
        let before = termios::tcgetattr(tty).map_err(io::Error::from)?;
        let mut quiet = before.clone();
        // Byte by byte and without signals: an interrupt that killed us here would leave the terminal without echo.
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        termios::tcsetattr(tty, SetArg::TCSAFLUSH, &quiet).map_err(io::Error::from)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = termios::tcsetattr(self.tty, SetArg::TCSAFLUSH, &self.before) {
            super::output::note(format!("cannot put the terminal back as it was: {error}"));
        }
    }
}

fn read_secret(mut tty: &File, prompt: &str) -> Result<String, Failure> {
    let quiet = Quiet::new(tty)?;
    tty.write_all(prompt.as_bytes())?;
    let typed = read_line(tty);
    drop(quiet);
    tty.write_all(b"\n")?;
    let text = typed?;
    String::from_utf8(text).map_err(|_not_text| Failure::usage("what was typed is not UTF-8"))
}

fn read_line(mut tty: &File) -> Result<Vec<u8>, Failure> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const ERASE_LINE: u8 = 0x15;
    let mut line = Vec::with_capacity(128);
    let mut byte = [0];
    loop {
        if tty.read(&mut byte)? == 0 {
            return Ok(line);
        }
        match byte {
            [b'\r' | b'\n' | END] => return Ok(line),
            [INTERRUPT] => {
                line.zeroize();
                return Err(Failure::text(FailureKind::Interrupted, "interrupted"));
            }
            [ERASE_LINE] => line.zeroize(),
            // One character, not one byte: its continuation bytes go with it.
            [0x08 | 0x7f] => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            [other] => line.push(other),
        }
    }
}

/// Reads a secret from a file: its first line, without the line's end. `-` is standard input.
pub(crate) fn secret_file(path: &std::path::Path) -> Result<String, Failure> {
    let mut text = whole_file(path)?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    text.zeroize();
    if line.is_empty() {
        return Err(Failure::usage(format!("`{}` is empty", path.display())));
    }
    Ok(line)
}

/// Reads a file of text. `-` is standard input.
pub(crate) fn whole_file(path: &std::path::Path) -> Result<String, Failure> {
    let read = if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
    read.map_err(|error| {
        let context = anyhow::Error::new(error).context(format!("cannot read `{}`", path.display()));
        Failure::new(FailureKind::Failed, context)
    })
}
