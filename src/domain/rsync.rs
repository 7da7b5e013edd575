//! rsync over a channel: who sends, which paths its command line names, how many bytes flow.
//!
//! The stream itself is rsync's own and is not read. So a grant whose rules look at each file (paths, bytes of a file, SHA-256) refuses
//! rsync; one that only says which way files may go, or how many bytes in all, is enforced by the direction that the command line
//! fixes, by a list of options that do nothing else, and by counting the stream, which is a little more than the files (or, compressed, less).
//!
//! Whoever may only upload still learns block checksums of files that are on the target: rsync sends what differs.

use std::sync::Arc;

use bytes::Bytes;

use crate::files::gate::{Condition, Desk, Piece, Side, Word, sent_by};
use crate::files::rules::Program;
use crate::files::{Direction, FileAct, FileDenial, FileOperation, FilePath, FileResult, FileTerms, Spent};

/// Where rsync is. One anywhere else may be a program that the client uploaded.
const PROGRAMS: &[&[u8]] = &[b"rsync", b"/usr/bin/rsync", b"/usr/local/bin/rsync"];

/// Letters of the short options that take no value and name no file.
const LETTERS: &[u8] = b"vqlogDtprRzxHAXUNWSncuIdmKLkJOEhiybC";

/// Long options that neither name a file beyond the paths nor run or change anything on the sending side.
const OPTIONS: &[&str] = &[
    "append",
    "append-verify",
    "bwlimit",
    "checksum-choice",
    "checksum-seed",
    "compress-choice",
    "compress-level",
    "contimeout",
    "copy-unsafe-links",
    "delay-updates",
    "delete",
    "delete-after",
    "delete-before",
    "delete-delay",
    "delete-during",
    "delete-excluded",
    "delete-missing-args",
    "existing",
    "fake-super",
    "force",
    "fsync",
    "groupmap",
    "iconv",
    "ignore-errors",
    "ignore-existing",
    "ignore-missing-args",
    "inplace",
    "log-format",
    "max-delete",
    "max-size",
    "min-size",
    "mkpath",
    "modify-window",
    "munge-links",
    "new-compress",
    "no-implied-dirs",
    "no-relative",
    "no-specials",
    "no-W",
    "no-whole-file",
    "numeric-ids",
    "old-compress",
    "omit-dir-times",
    "omit-link-times",
    "one-file-system",
    "open-noatime",
    "out-format",
    "partial",
    "preallocate",
    "safe-links",
    "sender",
    "size-only",
    "specials",
    "stats",
    "suffix",
    "super",
    "timeout",
    "use-qsort",
    "usermap",
];

/// Long options that name folders on the receiving side.
const RECEIVER_OPTIONS: &[&str] = &["backup-dir", "compare-dest", "copy-dest", "link-dest", "partial-dir", "temp-dir"];

/// `rsync --server …`, as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    direction: Direction,
    /// Those that the command line names; none if they come in the stream.
    paths: Vec<FilePath>,
    /// The first option that is not known to be harmless.
    unknown: Option<FilePath>,
}

impl Command {
    /// Reads the words of a command line; `None` if they are not a client's.
    pub(crate) fn parse(words: &[Word]) -> Option<Self> {
        let [program, server, rest @ ..] = words else {
            return None;
        };
        if !PROGRAMS.contains(&program.bytes.as_slice()) || server.bytes != b"--server" {
            return None;
        }
        let options = rest.iter().take_while(|word| word.bytes.first() == Some(&b'-')).count();
        let (options, places) = rest.split_at_checked(options)?;
        let direction = match options.iter().any(|word| word.bytes == b"--sender") {
            true => Direction::Download,
            false => Direction::Upload,
        };
        let paths = match places {
            [dot, paths @ ..] if dot.bytes == b"." => paths,
            [] => &[],
            _ => return None,
        };
        let unknown = options.iter().find(|word| !is_harmless(&word.bytes, direction));
        Some(Self {
            direction,
            paths: paths.iter().map(|word| FilePath(word.bytes.clone())).collect(),
            unknown: unknown.map(|word| FilePath(word.bytes.clone())),
        })
    }

    /// Which way files go.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The paths that the command line names, as it names them.
    pub fn paths(&self) -> &[FilePath] {
        &self.paths
    }
}

fn is_harmless(option: &[u8], direction: Direction) -> bool {
    let Some(long) = option.strip_prefix(b"--") else {
        // What follows an `e` is what the client can do. An `s` before it says that more options come in the stream.
        let letters = option.get(1..).unwrap_or_default().split(|&letter| letter == b'e').next().unwrap_or_default();
        return option.len() > 1 && letters.iter().all(|letter| LETTERS.contains(letter));
    };
    let name = long.split(|&byte| byte == b'=').next().unwrap_or_default();
    let among = |list: &[&str]| list.iter().any(|known| known.as_bytes() == name);
    among(OPTIONS) || direction == Direction::Upload && among(RECEIVER_OPTIONS)
}

/// Counts one run of rsync. See the [module](self).
#[derive(Debug)]
pub struct Gate {
    pub(crate) desk: Desk,
    command: Command,
    terms: FileTerms,
    spent: Arc<Spent>,
    sent: u64,
    received: u64,
    told: bool,
}

impl Gate {
    /// A gate for `command`, or why it must not run.
    pub fn new(command: Command, terms: FileTerms, spent: Arc<Spent>) -> Result<Self, FileDenial> {
        if terms.is_strict() {
            terms.judge_direction(command.direction)?;
            if terms.needs_each_file() {
                return Err(FileDenial::Uncheckable { program: Program::Rsync });
            }
            if let Some(option) = &command.unknown {
                return Err(FileDenial::Option { program: Program::Rsync, option: option.clone() });
            }
        }
        Ok(Self { desk: Desk::new(), command, terms, spent, sent: 0, received: 0, told: false })
    }

    pub fn client_sent(&mut self, bytes: Bytes) {
        self.pass(Side::Client, bytes);
    }

    pub fn target_sent(&mut self, bytes: Bytes) {
        self.pass(Side::Target, bytes);
    }

    /// The run is over: it is told of, once.
    pub fn target_ended(&mut self) {
        self.tell(FileResult::Done);
    }

    fn pass(&mut self, from: Side, bytes: Bytes) {
        if self.desk.condition.ended().is_some() {
            return;
        }
        let count = match from {
            Side::Client => &mut self.sent,
            Side::Target => &mut self.received,
        };
        let length = bytes.len() as u64;
        if sent_by(from) == self.command.direction
            && let Err(denial) = self.terms.spend(self.command.direction, *count, length, &self.spent)
        {
            self.desk.condition = Condition::Ended(denial.clone().into());
            return self.tell(FileResult::Denied { denial });
        }
        *count = count.saturating_add(length);
        self.desk.toward_other(from).forward(bytes, false);
    }

    fn tell(&mut self, result: FileResult) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let (direction, paths) = (self.command.direction, std::mem::take(&mut self.command.paths));
        let act = FileAct::Sync { direction, paths, sent: self.sent, received: self.received };
        self.desk.operations.push_back(FileOperation { act, result });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FileRules;
    use crate::files::gate::{Recognised, recognise};
    use crate::grant::Capabilities;

    fn command(line: &str) -> Command {
        match recognise(line.as_bytes()) {
            Recognised::Rsync(command) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn terms(upload: bool, download: bool, rules: &str) -> FileTerms {
        let capabilities = Capabilities { upload, download, ..Capabilities::default() };
        FileTerms::new(&capabilities, serde_json::from_str::<FileRules>(rules).unwrap())
    }

    fn gate(line: &str, terms: FileTerms) -> Result<Gate, FileDenial> {
        Gate::new(command(line), terms, Arc::default())
    }

    const PUSH: &str = "rsync --server -vlogDtpre.iLsfxCIvu --delete --partial . /srv/app/";
    const PULL: &str = "rsync --server --sender -vlogDtpre.iLsfxCIvu . /var/log/a 'b c'";

    #[test]
    fn a_command_line_says_which_way_files_go() {
        assert_eq!(command(PUSH).direction(), Direction::Upload);
        assert_eq!(command(PULL).direction(), Direction::Download);
        assert_eq!(command(PULL).paths(), [FilePath(b"/var/log/a".to_vec()), FilePath(b"b c".to_vec())]);
    }

    #[test]
    fn a_direction_that_is_not_granted_is_refused() {
        assert!(gate(PUSH, terms(true, false, "{}")).is_ok() && gate(PULL, terms(false, true, "{}")).is_ok());
        assert!(gate(PUSH, terms(false, true, "{}")).is_err() && gate(PULL, terms(true, false, "{}")).is_err());
    }

    #[test]
    fn rules_that_look_at_each_file_refuse_rsync() {
        for rules in [r#"{"upload":{"paths":["/**"]}}"#, r#"{"upload_sha256":[]}"#, r#"{"upload":{"file_bytes":1}}"#] {
            let refused = gate(PUSH, terms(true, true, rules)).unwrap_err();
            assert_eq!(refused, FileDenial::Uncheckable { program: Program::Rsync });
        }
    }

    #[test]
    fn an_option_that_could_do_more_is_refused_where_it_matters() {
        for line in [
            "rsync --server --sender --remove-source-files -e.LsfxCIvu . a",
            "rsync --server --sender --log-file=/etc/cron.d/x -e.LsfxCIvu . a",
            "rsync --server --sender -slogDtpre.LsfxCIvu",
            "rsync --server --sender -T /tmp . a",
            "rsync --server --sender --backup-dir=/x -e.L . a",
        ] {
            if let Recognised::Rsync(command) = recognise(line.as_bytes()) {
                assert!(Gate::new(command.clone(), terms(false, true, "{}"), Arc::default()).is_err(), "{line}");
                assert!(Gate::new(command, terms(true, true, "{}"), Arc::default()).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn the_budget_ends_the_run_before_the_bytes_go() {
        let mut gate = gate(PULL, terms(true, true, r#"{"download":{"total_bytes":10}}"#)).unwrap();
        gate.client_sent(Bytes::from_static(b"twenty bytes of talk"));
        gate.target_sent(Bytes::from_static(b"0123456789"));
        gate.target_sent(Bytes::from_static(b"x"));
        assert_eq!(gate.desk.to_target.pop().unwrap(), Piece::Forward(Bytes::from_static(b"twenty bytes of talk")));
        assert_eq!(gate.desk.to_client.pop().unwrap(), Piece::Forward(Bytes::from_static(b"0123456789")));
        assert_eq!(gate.desk.to_client.pop(), None);
        assert!(gate.desk.condition.ended().is_some());
        gate.target_ended();
        let operation = gate.desk.operations.pop_front().unwrap();
        assert!(matches!(operation.result, FileResult::Denied { .. }) && gate.desk.operations.pop_front().is_none());
        assert!(matches!(operation.act, FileAct::Sync { sent: 20, received: 10, .. }));
    }
}
