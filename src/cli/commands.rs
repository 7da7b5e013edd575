//! Rules for commands on the command line, and what a session ran.

use sallyport_domain::commands::rules::{ExecPattern, FlagPattern};

use super::output::{Column, column};
use super::when;
use crate::api::commands::{Certainty, CommandEntry};
use crate::api::grants::Commands;

/// What is said of commands
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Commands")]
pub(crate) struct CommandArgs {
    /// Only single commands that match may run, and no shell, such as `systemctl restart app-*`; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exec_pattern: Vec<ExecPattern>,
    /// Flag commands that match wherever they show up, such as `*rm -rf*`; a guard-rail, no boundary
    #[arg(long, value_name = "PATTERN")]
    flag_pattern: Vec<FlagPattern>,
}

impl CommandArgs {
    pub(super) fn read(self) -> Commands {
        Commands { exec: self.exec_pattern, flag: self.flag_pattern }
    }
}

/// The rules in words.
pub(super) fn rules(commands: &Commands) -> String {
    let exec = commands.exec.iter().map(|pattern| format!("only `{pattern}`"));
    let flag = commands.flag.iter().map(|pattern| format!("flag `{pattern}`"));
    let words: Vec<String> = exec.chain(flag).collect();
    if words.is_empty() { "any".to_owned() } else { words.join("\n") }
}

pub(super) const COLUMNS: &[Column<CommandEntry>] = &[
    column("At", |command| when::local(command.at)),
    column("Channel", |command| command.recording.to_string()),
    column("By", |command| {
        match command.certainty {
            Certainty::Exec => "exec",
            Certainty::Input => "input",
            Certainty::ShellMark => "shell says",
            Certainty::Screen => "screen",
        }
        .to_owned()
    }),
    column("Exit", |command| command.exit_status.map(|status| status.to_string()).unwrap_or_default()),
    column("Took", |command| {
        command.duration_us.map(|us| format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000)).unwrap_or_default()
    }),
    column("Flag", |command| command.flag.clone().unwrap_or_default()),
    column("Command", |command| {
        let more = if command.is_cut { " …" } else { "" };
        format!("{}{more}", command.text.replace('\n', " ⏎ "))
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_commands_are_told_in_words() {
        let args = CommandArgs {
            exec_pattern: vec!["uptime".parse().unwrap()],
            flag_pattern: vec!["*rm -rf*".parse().unwrap()],
        };
        assert_eq!(rules(&args.read()), "only `uptime`\nflag `*rm -rf*`");
        assert_eq!(rules(&Commands::default()), "any");
    }
}
