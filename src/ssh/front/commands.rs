//! The bastion's own commands, as they come in "exec" of a login without a target: `ssh person@bastion ls`.
//!
//! A command is ours if its first word is one of ours, whatever follows; everything else is a target's.

use std::time::Duration;

use clap::{ColorChoice, CommandFactory, Parser, Subcommand};
use sallyport_domain::grant::TargetSelector;
use sallyport_domain::id::GrantId;
use sallyport_domain::name::Login;

/// The longest command that is read, in bytes.
const MOST_BYTES: usize = 16 << 10;

/// The bastion's own commands
#[derive(Debug, Parser)]
#[command(
    name = "ssh person@bastion",
    no_binary_name = true,
    disable_help_subcommand = true,
    disable_help_flag = true,
    color = ColorChoice::Never,
    term_width = 80,
    subcommand_required = true,
    after_help = "Without a command: a list of what is open to you now, to choose from.\n\
                  To run a command on a target: ssh person+login@target@bastion COMMAND"
)]
struct Line {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Say what can be done here
    Help {
        /// A command to say more of
        about: Option<String>,
    },
    /// List what is open to you, and until when
    Ls,
    /// Say who you are here, and by what you came in
    Whoami,
    /// Ask for access, and wait for the answer
    #[command(override_usage = "ssh person@bastion request TARGET... --for 2h --reason WHY")]
    Request(RequestArgs),
    /// Ask for more time on a grant, and wait for the answer
    #[command(override_usage = "ssh person@bastion extend [GRANT] --for 1h --reason WHY")]
    Extend(ExtendArgs),
    /// Print lines for `~/.ssh/config`
    Config,
    /// Print lines for `~/.ssh/known_hosts`
    KnownHosts {
        /// A line for each target instead of one authority for all
        #[arg(long)]
        plain: bool,
    },
    /// List your own public keys
    Keys,
}

#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RequestArgs {
    /// Where to: names, patterns such as `web-*`, labels such as `env=prod`
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<Selector>,
    /// The accounts; may be left out where the targets have only one
    #[arg(long = "login", value_name = "LOGIN", value_delimiter = ',')]
    pub logins: Vec<Login>,
    #[command(flatten)]
    pub wish: WishArgs,
    /// The number of a ticket elsewhere
    #[arg(long)]
    pub ticket: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ExtendArgs {
    /// The grant; may be left out where you have one session
    pub grant: Option<GrantId>,
    #[command(flatten)]
    pub wish: WishArgs,
}

#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct WishArgs {
    /// How long, or how much longer: `2h`, `90m`, `7d`
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub lasting: Duration,
    // An SSH client joins what it is given by spaces, so that quotes are lost: all words up to the next option.
    /// Why; as many words as you like
    #[arg(long, required = true, num_args = 1.., value_name = "WORDS")]
    pub reason: Vec<String>,
    /// Do not wait for the answer
    #[arg(long)]
    pub no_wait: bool,
}

/// A selector that can be compared by its text.
#[derive(Debug, Clone)]
pub struct Selector(pub TargetSelector);

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Selector {}

impl std::str::FromStr for Selector {
    type Err = <TargetSelector as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What an "exec" command turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Ours; `json` if the answer is for a program.
    Ours { command: Command, json: bool },
    /// Ours, and a question about how it is used.
    Help(String),
    /// Ours, but not written as it must be.
    Wrong(String),
    /// For a target.
    Foreign,
}

/// Reads an "exec" command.
pub fn parse(command: &[u8]) -> Parsed {
    if !is_ours(command) {
        return Parsed::Foreign;
    }
    if command.len() > MOST_BYTES {
        return Parsed::Wrong(format!("a command may have {MOST_BYTES} bytes"));
    }
    let Ok(text) = std::str::from_utf8(command) else {
        return Parsed::Wrong("the command is not UTF-8".to_owned());
    };
    let words = match shell_words::split(text) {
        Ok(words) => words,
        Err(_) => return Parsed::Wrong("a quote is not closed".to_owned()),
    };
    match Line::try_parse_from(words) {
        Ok(Line { command: Command::Help { about }, json, .. }) if !json => help(about.as_deref()),
        Ok(Line { command, json, .. }) => Parsed::Ours { command, json },
        Err(error) if error.use_stderr() => Parsed::Wrong(error.render().to_string().trim_end().to_owned()),
        Err(error) => Parsed::Help(error.render().to_string()),
    }
}

fn is_ours(command: &[u8]) -> bool {
    let mut words = command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    Line::command().get_subcommands().any(|ours| ours.get_name().as_bytes() == first)
}

fn help(about: Option<&str>) -> Parsed {
    let mut line = Line::command();
    line.build();
    let Some(about) = about else {
        return Parsed::Help(line.render_help().to_string());
    };
    match line.find_subcommand_mut(about) {
        Some(command) => Parsed::Help(command.render_help().to_string()),
        None => Parsed::Wrong(format!("there is no command `{}` here", about.escape_debug())),
    }
}

/// Every command and what it does, in the order of the help.
pub fn all() -> Vec<(String, String)> {
    let line = Line::command();
    let about = |command: &clap::Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    line.get_subcommands().map(|command| (command.get_name().to_owned(), about(command))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(line: &str) -> (Command, bool) {
        match parse(line.as_bytes()) {
            Parsed::Ours { command, json } => (command, json),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Line::command().debug_assert();
    }

    #[test]
    fn a_command_is_ours_by_its_first_word() {
        assert_eq!(ours("ls"), (Command::Ls, false));
        assert_eq!(ours("  known-hosts --plain --json"), (Command::KnownHosts { plain: true }, true));
        for foreign in ["uname -a", "", "/bin/ls", "lsblk", "scp -t /tmp", "'ls'", "\u{1b}ls"] {
            assert_eq!(parse(foreign.as_bytes()), Parsed::Foreign, "{foreign}");
        }
        assert_eq!(parse(b"\xffls"), Parsed::Foreign);
        for wrong in ["ls -la /tmp", "ls ; id", "ls 'x", "keys --what"] {
            assert!(matches!(parse(wrong.as_bytes()), Parsed::Wrong(_)), "{wrong}");
        }
        assert!(matches!(parse(b"ls \xff"), Parsed::Wrong(_)));
    }

    #[test]
    fn a_reason_is_all_its_words_whether_or_not_its_quotes_came_through() {
        for line in [
            "request web-1 db-* --for 2h --reason disk is full --ticket INC-7",
            "request web-1 db-* --ticket INC-7 --reason 'disk is full' --for 2h",
        ] {
            let (Command::Request(request), false) = ours(line) else { panic!("{line}") };
            assert_eq!(request.wish.reason.join(" "), "disk is full");
            assert_eq!(request.wish.lasting, Duration::from_hours(2));
            assert_eq!((request.targets.len(), request.ticket.as_deref()), (2, Some("INC-7")));
        }
        let (Command::Extend(extend), true) = ours("extend --for 30m --reason late --json") else { panic!() };
        assert_eq!((extend.grant, extend.wish.no_wait), (None, false));
    }

    #[test]
    fn help_fits_a_terminal_and_has_no_colour() {
        let mut lines: Vec<String> = vec!["help".to_owned(), "ls --help".to_owned()];
        lines.extend(all().iter().map(|(name, _)| format!("help {name}")));
        for line in lines {
            let Parsed::Help(text) = parse(line.as_bytes()) else { panic!("{line}") };
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
        assert!(matches!(parse(b"help nothing"), Parsed::Wrong(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..100), first in 0_usize..8) {
            let (name, _) = all().swap_remove(first);
            parse(&tail);
            prop_assert_ne!(parse(&[name.as_bytes(), b" ", &tail].concat()), Parsed::Foreign);
        }
    }
}
