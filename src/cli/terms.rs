//! What a grant or a template allows, as options of the command line and as words for people.

use std::str::FromStr;

use ipnet::IpNet;
use sallyport_domain::grant::{Approval, ForwardFrom};
use sallyport_domain::review::ReviewTerm;

use super::commands::{self, CommandArgs};
use super::failure::Failure;
use super::files::{self, FileArgs};
use crate::api::grants::{Allow, Destination, Files, FilesOneWay, Forwarding};
use crate::api::terms::GrantTerms;

/// What may be done, from where, and how strictly
#[derive(Debug, clap::Args)]
pub(crate) struct TermArgs {
    /// What may be done: shell, exec, upload, download, forward=host:port, forward=/path/of/socket; shell and exec where it is
    /// left out, and only exec with `--exec-pattern`
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<AllowArg>,
    /// A network from which the person may come; anywhere where it is left out
    #[arg(long = "from-network", value_name = "CIDR", value_delimiter = ',')]
    networks: Vec<IpNet>,
    /// Sessions that may be open at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_sessions: Option<u32>,
    /// By when sessions are to be reviewed: working days such as `5d`, or `none`; as the bastion's settings say where it is left out
    #[arg(long, value_name = "TERM")]
    review: Option<ReviewTerm>,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    commands: CommandArgs,
    #[command(flatten)]
    forwarding: ForwardArgs,
}

impl TermArgs {
    /// The terms, but for targets and logins. Reads the files with hashes.
    pub(super) fn read(self) -> Result<GrantTerms, Failure> {
        let mut terms = GrantTerms::default();
        self.change(&mut terms)?;
        Ok(terms)
    }

    /// Puts what is given in the place of what was said; what is left out stays.
    pub(super) fn change(self, terms: &mut GrantTerms) -> Result<(), Failure> {
        if !self.allow.is_empty() {
            terms.allow = Some(allow(self.allow));
        }
        if !self.networks.is_empty() {
            terms.source_networks = self.networks;
        }
        terms.max_sessions = self.max_sessions.or(terms.max_sessions);
        terms.review = self.review.or(terms.review);
        terms.second_factor |= self.strict.second_factor;
        if self.strict.approval() != Approval::None {
            terms.approval = self.strict.approval();
        }
        change_files(&mut terms.files, self.files.read()?);
        let commands = self.commands.read();
        if !commands.exec.is_empty() {
            terms.commands.exec = commands.exec;
        }
        if !commands.flag.is_empty() {
            terms.commands.flag = commands.flag;
        }
        terms.forwarding.from = self.forwarding.forward_from.unwrap_or(terms.forwarding.from);
        terms.forwarding.metadata_only |= self.forwarding.forward_metadata_only;
        Ok(())
    }
}

fn change_files(files: &mut Files, given: Files) {
    let way = |way: &mut FilesOneWay, given: FilesOneWay| {
        way.paths = given.paths.or(way.paths.take());
        way.file_bytes = given.file_bytes.or(way.file_bytes);
        way.total_bytes = given.total_bytes.or(way.total_bytes);
    };
    way(&mut files.upload, given.upload);
    way(&mut files.download, given.download);
    files.upload_sha256 = given.upload_sha256.or(files.upload_sha256.take());
    files.terminal_bytes = given.terminal_bytes.or(files.terminal_bytes);
}

/// What a session takes besides the grant.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Strict {
    /// The person must prove a second factor at the login
    #[arg(long = "two-factor")]
    pub(super) second_factor: bool,
    /// An admin must say yes to each session, with `sallyport request approve`
    #[arg(long, conflicts_with = "watched")]
    approve_each: bool,
    /// A reviewer must be watching, with `sallyport session watch`; without one the session stands still
    #[arg(long)]
    watched: bool,
}

/// How forwards are made, and what is kept of them
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ForwardArgs {
    /// Who dials the destinations of `--allow forward=…`: the target, or the bastion itself; the target where it is left out
    #[arg(long, value_name = "target|bastion", value_parser = forward_from)]
    forward_from: Option<ForwardFrom>,
    /// Keep of forwards when they were opened and how many bytes went, and not their content
    #[arg(long)]
    forward_metadata_only: bool,
}

fn forward_from(text: &str) -> Result<ForwardFrom, String> {
    let known = ForwardFrom::ALL.into_iter().find(|from| from.as_str() == text);
    known.ok_or_else(|| "write target or bastion".to_owned())
}

impl Strict {
    pub(super) fn approval(&self) -> Approval {
        match (self.watched, self.approve_each) {
            (true, _) => Approval::Watcher,
            (false, true) => Approval::PerSession,
            (false, false) => Approval::None,
        }
    }
}

/// One word of `--allow`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AllowArg {
    Shell,
    Exec,
    Upload,
    Download,
    Forward(Destination),
}

impl FromStr for AllowArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "shell" => Ok(AllowArg::Shell),
            None if text == "exec" => Ok(AllowArg::Exec),
            None if text == "upload" => Ok(AllowArg::Upload),
            None if text == "download" => Ok(AllowArg::Download),
            Some(("forward", path)) if path.starts_with('/') => {
                Ok(AllowArg::Forward(Destination { host: path.to_owned(), port: 0 }))
            }
            Some(("forward", to)) => {
                let wrong = || format!("`{to}` is not a destination: write `host:port`, or a Unix socket's path");
                let (host, port) = to.rsplit_once(':').ok_or_else(wrong)?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
                if host.is_empty() {
                    return Err(wrong());
                }
                Ok(AllowArg::Forward(Destination { host: host.to_owned(), port }))
            }
            _ => {
                Err("write shell, exec, upload, download or forward=host:port (or forward=/path/of/socket)".to_owned())
            }
        }
    }
}

pub(super) fn allow(words: Vec<AllowArg>) -> Allow {
    let mut allow = Allow::default();
    for word in words {
        match word {
            AllowArg::Shell => allow.shell = true,
            AllowArg::Exec => allow.exec = true,
            AllowArg::Upload => allow.upload = true,
            AllowArg::Download => allow.download = true,
            AllowArg::Forward(destination) => allow.forwards.push(destination),
        }
    }
    allow
}

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn allowed(allow: &Allow) -> String {
    let words = [(allow.shell, "shell"), (allow.exec, "exec"), (allow.upload, "upload"), (allow.download, "download")];
    let words = words.into_iter().filter(|(allowed, _)| *allowed).map(|(_, word)| word.to_owned());
    let forwards = allow.forwards.iter().map(|Destination { host, port }| {
        let destination = sallyport_domain::grant::Destination { host: host.clone(), port: *port };
        format!("forward={destination}")
    });
    words.chain(forwards).collect::<Vec<_>>().join(",")
}

/// How forwards are made, in words.
fn forwards(allow: &Allow, forwarding: &Forwarding) -> String {
    if allow.forwards.is_empty() {
        return "none".to_owned();
    }
    let kept = if forwarding.metadata_only { "their content is not kept" } else { "recorded" };
    format!("from the {}, {kept}", forwarding.from.as_str())
}

/// What a session takes besides the grant, in words.
pub(super) fn takes(second_factor: bool, approval: Approval) -> Vec<&'static str> {
    let approval = match approval {
        Approval::None => None,
        Approval::PerSession => Some("approval of each session"),
        Approval::Watcher => Some("a watcher"),
    };
    second_factor.then_some("two factors").into_iter().chain(approval).collect()
}

fn takes_row(second_factor: bool, approval: Approval) -> String {
    let takes = takes(second_factor, approval);
    if takes.is_empty() { "nothing besides".to_owned() } else { takes.join(", ") }
}

/// What a grant or a template says, as lines for people; without targets and logins.
pub(super) fn rows(terms: &GrantTerms) -> Vec<(&'static str, String)> {
    let allow = terms.allow.clone().unwrap_or_else(|| Allow::usual_with(&terms.commands));
    let networks =
        if terms.source_networks.is_empty() { "anywhere".to_owned() } else { joined(&terms.source_networks) };
    vec![
        ("Allow", allowed(&allow)),
        ("Files", files::rules(&terms.files)),
        ("Commands", commands::rules(&terms.commands)),
        ("Forwards", forwards(&allow, &terms.forwarding)),
        ("Coming from", networks),
        ("Sessions", terms.max_sessions.map_or("any number".to_owned(), |most| format!("at most {most} at once"))),
        ("Takes", takes_row(terms.second_factor, terms.approval)),
        ("Review", terms.review.map(|term| term.to_string()).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        terms: TermArgs,
    }

    #[test]
    fn a_change_touches_what_it_names_and_nothing_else() {
        let line = |text: &str| Line::try_parse_from(text.split(' ')).unwrap().terms;
        let mut terms = line(
            "x --allow exec,upload --two-factor --watched --upload-path /srv/** --upload-bytes 1GB --flag-pattern *rm* --forward-from bastion",
        )
        .read()
        .unwrap();
        let before = terms.clone();

        line("x --upload-bytes 2GB --max-sessions 1").change(&mut terms).unwrap();

        let mut expected = before;
        (expected.files.upload.total_bytes, expected.max_sessions) = (Some(2_000_000_000), Some(1));
        assert_eq!(terms, expected);
        assert_eq!((terms.second_factor, terms.approval), (true, Approval::Watcher));
    }

    #[test]
    fn what_a_grant_allows_is_read_word_by_word_and_told_in_the_same_words() {
        let words = ["shell", "upload", "forward=db-1:5432", "forward=[fe80::1]:80", "forward=/run/db.sock"]
            .map(|word| word.parse().unwrap());

        let allow = allow(words.to_vec());

        assert_eq!(allowed(&allow), "shell,upload,forward=db-1:5432,forward=[fe80::1]:80,forward=/run/db.sock");
    }

    #[test]
    fn what_a_session_takes_besides_is_told_in_words() {
        assert_eq!(takes_row(false, Approval::None), "nothing besides");
        assert_eq!(takes_row(true, Approval::Watcher), "two factors, a watcher");
    }

    #[test]
    fn a_word_that_allows_nothing_is_refused() {
        for text in ["", "everything", "forward", "forward=", "forward=db", "forward=:1", "forward=db:0"] {
            assert!(text.parse::<AllowArg>().is_err(), "{text:?}");
        }
    }
}
