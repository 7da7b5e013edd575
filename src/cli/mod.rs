//! The command line. Most commands are clients of the API; `serve` wires the floors.
//!
//! Noun, then verb. Data goes to standard output, talk to standard error; an error says what failed, on what, and what
//! to try. Exit codes are in [`failure::FailureKind`].

mod client;
mod failure;
mod frames;
mod output;
mod prompt;
mod when;

mod audit;
mod break_glass;
mod ca;
mod commands;
mod completions;
mod config;
mod declared;
mod demo;
mod doctor;
mod evidence;
mod export;
mod files;
mod grant;
mod identity;
mod init;
mod invite;
mod key;
mod known_hosts;
mod ledger;
mod node;
mod oidc;
mod outbox;
mod passkey;
mod person;
mod play;
mod recording;
mod replay;
mod request;
mod retention;
mod review;
mod search;
pub(crate) mod serve;
mod session;
mod sockets;
mod target;
mod template;
mod terms;
mod token;
mod totp;
mod verify;
mod watch;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reqwest::Url;
use sallyport_domain::secret::ApiToken;

use client::{Client, Door};
use failure::{Failure, FailureKind};
use output::Format;
use prompt::Prompt;

/// Where the server makes its socket if the configuration says nothing.
const USUAL_SOCKET: &str = "/var/lib/sallyport/sallyport.sock";
/// The variable that holds a token. It is not an option: arguments can be read by every user of a host.
const TOKEN_VARIABLE: &str = "SALLYPORT_TOKEN";

/// An audited SSH bastion for vendor access: time-boxed grants, everything recorded, everything replayed.
#[derive(Debug, Parser)]
#[command(
    name = "sallyport",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "To try it: `sallyport demo`. To begin: `sallyport init`, `serve`, `ca user`, `person add`, `target add`, `grant new`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The bastion's Unix socket
    #[arg(long, global = true, env = "SALLYPORT_SOCKET", value_name = "PATH", default_value = USUAL_SOCKET)]
    socket: PathBuf,
    /// The bastion's URL; takes a token, in `SALLYPORT_TOKEN` or `--token-file`
    #[arg(long, global = true, env = "SALLYPORT_URL", value_name = "URL")]
    url: Option<Url>,
    /// A file whose first line is an API token
    #[arg(long, global = true, env = "SALLYPORT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The form of what is printed
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t)]
    output: Format,
    /// Short for `--output json`
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
    /// Never ask; what would have to be asked fails
    #[arg(long, global = true)]
    no_input: bool,
    /// Answer yes to every question
    #[arg(long, short = 'y', global = true)]
    yes: bool,
}

impl Global {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    pub(crate) fn prompt(&self) -> Prompt {
        Prompt { silent: self.no_input, assume_yes: self.yes }
    }

    /// A client of the API, through the door that the options name.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let door = match &self.url {
            None => Door::Socket(self.socket.clone()),
            Some(url) => Door::Url { url: url.clone(), token: self.token()? },
        };
        Client::new(door)
    }

    fn token(&self) -> Result<ApiToken, Failure> {
        if let Some(path) = &self.token_file {
            return prompt::secret_file(path).map(ApiToken::new);
        }
        match std::env::var_os(TOKEN_VARIABLE).map(std::ffi::OsString::into_string) {
            Some(Ok(token)) if !token.is_empty() => Ok(ApiToken::new(token)),
            Some(Err(_)) => Err(Failure::usage(format!("`{TOKEN_VARIABLE}` is not text"))),
            Some(Ok(_)) | None => Err(Failure::usage("`--url` takes a token").hint(format!(
                "set `{TOKEN_VARIABLE}` or use `--token-file`; `sallyport token new` makes one on the bastion's host"
            ))),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set it up: a configuration, keys and the first admin
    Init(init::InitArgs),
    /// Run the bastion
    Serve(serve::ServeArgs),
    /// Try it: a bastion, a target, a person and a grant in a temporary place
    Demo(demo::DemoArgs),
    /// People who log in, and their keys
    #[command(subcommand)]
    Person(person::PersonCommand),
    /// Hosts that are reached
    #[command(subcommand)]
    Target(target::TargetCommand),
    /// Who may reach what, and until when
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// Sealed envelopes for when the database or the admins are away
    #[command(subcommand)]
    BreakGlass(break_glass::BreakGlassCommand),
    /// Terms for grants that are agreed once
    #[command(subcommand)]
    Template(template::TemplateCommand),
    /// Ask for access, and answer those who ask
    #[command(subcommand)]
    Request(request::RequestCommand),
    /// What was done
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// What was recorded: legal holds, and deletion by two people
    #[command(subcommand)]
    Recording(retention::RecordingCommand),
    /// Public keys of the bastion's authorities
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// The bastion's own keys, and how one follows another
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Lines for the engineers' `known_hosts`
    KnownHosts(known_hosts::KnownHostsArgs),
    /// API tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Signed checkpoints of the audit log, and proofs
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// The nodes of the bastion
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Destinations outside, and how far they are
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Verify that everything is as it was written: events, recordings, anchors
    Verify(verify::VerifyArgs),
    /// Files that prove to outsiders what happened
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    /// Make people, targets and templates what a file says; shows the difference first
    Apply(declared::ApplyArgs),
    /// Write people, targets and templates as a file for `apply`, without secrets
    Export,
    /// The configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look for what keeps the bastion from working, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
    /// Write the pages of the manual into a folder
    Man(completions::ManArgs),
    /// Print the description of the HTTP API (openapi.json)
    Openapi,
}

/// Reads the arguments, does what they say, prints what went wrong, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors. That they cannot be printed is nothing we could tell anybody.
            let code = u8::from(error.use_stderr()) * FailureKind::Usage.exit_code();
            return match error.print() {
                Ok(()) | Err(_) => ExitCode::from(code),
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_output() => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn tell(failure: &Failure) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (on, off) = if colour { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
    let message = format!("{:#}", failure.error);
    let mut lines = message.lines().map(output::printable);
    eprintln!("{on}error:{off} {}", lines.next().unwrap_or_default());
    lines.for_each(|line| eprintln!("{line}"));
    if let Some(hint) = &failure.hint {
        eprintln!("  try: {}", output::printable(hint));
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => serve_on(serve::run(args)),
        Command::Demo(args) => serve_on(demo::run(args)),
        Command::Init(args) => serve_on(init::run(args, &global)),
        Command::Config(command) => config::run(command, &global),
        Command::Doctor(args) => block_on(doctor::run(args, &global)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::man(&args),
        Command::Openapi => completions::openapi(),
        Command::Person(command) => block_on(person::run(command, &global)),
        Command::Target(command) => block_on(target::run(command, &global)),
        Command::Grant(command) => block_on(grant::run(command, &global)),
        Command::BreakGlass(command) => block_on(break_glass::run(command, &global)),
        Command::Template(command) => block_on(template::run(command, &global)),
        Command::Request(command) => block_on(request::run(command, &global)),
        Command::Session(command) => block_on(session::run(command, &global)),
        Command::Recording(command) => block_on(retention::run(command, &global)),
        Command::Ca(command) => block_on(ca::run(&command, &global)),
        Command::Key(command) => block_on(key::run(command, &global)),
        Command::KnownHosts(args) => block_on(known_hosts::run(&args, &global)),
        Command::Token(command) => block_on(token::run(command, &global)),
        Command::Evidence(command) => block_on(evidence::run(command, &global)),
        Command::Apply(args) => block_on(declared::apply(args, &global)),
        Command::Export => block_on(declared::export(&global)),
        Command::Audit(command) => block_on(audit::run(command, &global)),
        Command::Ledger(command) => block_on(ledger::run(command, &global)),
        Command::Node(command) => block_on(node::run(command, &global)),
        Command::Outbox(command) => block_on(outbox::run(command, &global)),
        Command::Verify(args) => serve_on(verify::run(args, &global)),
    }
}

/// Runs a server, on as many threads as there are cores, and on two at least: one may have to wait for the journals' disk.
fn serve_on(server: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.max(2)).enable_all().build()?.block_on(server)
}

/// Runs a client command; one thread is enough for it.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// The client's clock.
pub(crate) fn now() -> chrono::DateTime<chrono::Local> {
    chrono::Local::now()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn people_are_one_argument_and_targets_the_rest() {
        let line = "sallyport grant new alice,bob web-1 env=prod --for 2h --reason INC-7 --allow shell,forward=db:5432";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
    }
}
