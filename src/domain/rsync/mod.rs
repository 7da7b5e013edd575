//! rsync over a channel: who sends, which paths its command line names, how many bytes flow.
//!
//! What is enforced is the direction that the command line fixes, by a list of options that do nothing else, and the bytes in all, by
//! counting the stream, which is a little more than the files (or, compressed, less). A grant whose rules look at each file (paths, bytes of a
//! file, SHA-256) refuses rsync: a stream that is followed as far as it can be is good for telling, and not for a boundary. So files are told of,
//! each with its SHA-256 where all of it was sent, and where the stream cannot be followed the run says why ([`follow`]).
//!
//! Whoever may only upload still learns block checksums of files that are on the target: rsync sends what differs.

mod follow;
mod list;
mod wire;

use std::sync::Arc;

use bytes::Bytes;

use self::follow::{Follower, Went};
use self::list::Options;
use self::wire::Lost;
use crate::files::gate::{Condition, Desk, Side, Word, sent_by};
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
    /// What the options say of the stream, or why it cannot be followed.
    stream: Result<Options, Lost>,
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
            stream: Options::read(options.iter().map(|word| word.bytes.as_slice()), direction),
        })
    }

    /// Where the file of this name in the list is on the target, as far as the command line tells: what an upload to a path that
    /// does not end with a slash makes of a single file depends on what is there.
    fn place(&self, name: &[u8], alone: bool) -> FilePath {
        let within = |folder: &[u8]| {
            let folder = folder.strip_suffix(b"/").unwrap_or(folder);
            FilePath([folder, b"/", name].concat())
        };
        let paths: Vec<&[u8]> = self.paths.iter().map(|path| path.0.as_slice()).collect();
        match (self.direction, paths.as_slice()) {
            (Direction::Upload, [place]) if alone && !place.ends_with(b"/") => FilePath(place.to_vec()),
            (Direction::Upload, [place]) => within(place),
            (Direction::Download, [place]) if place.ends_with(b"/") => within(place),
            (Direction::Download, places) => {
                let first = name.split(|byte| *byte == b'/').next().unwrap_or_default();
                let folder = |place: &&[u8]| {
                    let slash = place.iter().rposition(|byte| *byte == b'/')?;
                    let (folder, last) = place.split_at_checked(slash)?;
                    (last.get(1..) == Some(first)).then(|| folder.to_vec())
                };
                places.iter().find_map(folder).map_or_else(|| FilePath(name.to_vec()), |folder| within(&folder))
            }
            (Direction::Upload, _) => FilePath(name.to_vec()),
        }
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
    follower: Option<Box<Follower>>,
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
        let follower = command.stream.ok().map(|options| Box::new(Follower::new(command.direction, options)));
        Ok(Self { desk: Desk::new(), command, terms, spent, follower, sent: 0, received: 0, told: false })
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
        if let Some(follower) = &mut self.follower {
            follower.take(from, &bytes);
        }
        self.tell_files();
        self.desk.toward_other(from).forward(bytes, false);
    }

    /// Tells of the files that went.
    fn tell_files(&mut self) {
        let Some(follower) = &mut self.follower else { return };
        while let Some(Went { name, moved, whole, alone }) = follower.next() {
            let path = self.command.place(&name, alone);
            let (upload, download) = match self.command.direction {
                Direction::Upload => (Some(moved), None),
                Direction::Download => (None, Some(moved)),
            };
            let act = FileAct::Transfer { path, upload, download };
            let result = if whole { FileResult::Done } else { FileResult::Interrupted };
            self.desk.operations.push_back(FileOperation { act, result });
        }
    }

    fn tell(&mut self, result: FileResult) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let unfollowed = match (&mut self.follower, self.command.stream) {
            (Some(follower), _) => follower.finish(),
            (None, stream) => stream.err(),
        };
        self.tell_files();
        let (direction, paths) = (self.command.direction, std::mem::take(&mut self.command.paths));
        let unfollowed = unfollowed.map(str::to_owned);
        let act = FileAct::Sync { direction, paths, sent: self.sent, received: self.received, unfollowed };
        self.desk.operations.push_back(FileOperation { act, result });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::files::gate::{Piece, Recognised, recognise};
    use crate::files::{Digest, FileRules};
    use crate::grant::Capabilities;
    use crate::hash::Hash;

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

    /// A run of rsync 3.5 as it was on the wire: the command, what the client sent, what the server sent.
    fn recorded(bytes: &[u8]) -> [Bytes; 3] {
        let mut rest = Bytes::copy_from_slice(bytes);
        [(); 3].map(|()| {
            let length = u32::from_be_bytes(rest.split_to(4)[..].try_into().unwrap());
            rest.split_to(length as usize)
        })
    }

    /// Path, bytes, SHA-256, whether in part.
    type Sent = (String, u64, Option<Hash>, bool);

    /// What is told of a run whose pieces are cut in this way, and why not more is.
    fn told(run: &[u8], cut: usize) -> (Vec<Sent>, Option<String>) {
        let [line, client, target] = recorded(run);
        let mut gate = gate(std::str::from_utf8(&line).unwrap(), terms(true, true, "{}")).unwrap();
        // As it may have been: the versions first, then as fast as it came.
        let (mut client, mut target) = (client, target);
        while !(client.is_empty() && target.is_empty()) {
            gate.client_sent(client.split_to(cut.min(client.len())));
            gate.target_sent(target.split_to(cut.min(target.len())));
        }
        gate.target_ended();
        let (mut files, mut unfollowed) = (Vec::new(), None);
        while let Some(FileOperation { act, result }) = gate.desk.operations.pop_front() {
            match act {
                FileAct::Transfer { path, upload, download } => {
                    let moved = upload.or(download).unwrap();
                    let hash = if let Digest::Sha256(hash) = moved.digest { Some(hash) } else { None };
                    assert_eq!(result, FileResult::Done);
                    files.push((path.to_string(), moved.bytes, hash, moved.partial));
                }
                FileAct::Sync { unfollowed: why, .. } => unfollowed = why,
                other => panic!("{other:?}"),
            }
        }
        (files, unfollowed)
    }

    const RUNS: [(&[u8], &str); 4] = [
        (include_bytes!("testdata/push"), "dst/"),
        (include_bytes!("testdata/pull"), "src/"),
        (include_bytes!("testdata/delete"), "dst2/src/"),
        (include_bytes!("testdata/plain"), "src/"),
    ];
    const RANDOM: &str = "1886367ef5e54ae249d2fe9a01139549ac5ee5ae315dcacc0bdca3bb4bd5c1f0";

    #[test]
    fn each_file_that_went_is_told_of_with_its_sha_256() {
        for (run, place) in RUNS {
            for cut in [1, 7, 1000, usize::MAX] {
                let (mut files, unfollowed) = told(run, cut);
                files.sort_by(|one, other| one.0.cmp(&other.0));
                assert_eq!(unfollowed, None, "{place} by {cut}");
                let file = |name: &str, bytes, hash| (format!("{place}{name}"), bytes, Some(hash), false);
                let expected = [
                    file("a.txt", 5, Hash::of(b"hello")),
                    file("b.bin", 2000, RANDOM.parse().unwrap()),
                    file("empty", 0, Hash::of(b"")),
                    file("sub/c", 4, Hash::of(b"sub\n")),
                    file("sub/deep/d e", 5, Hash::of(b"deep\n")),
                ];
                assert_eq!(files, expected, "{place} by {cut}");
            }
        }
        let (files, _) = told(include_bytes!("testdata/single"), 100);
        assert_eq!(files, [("one".to_owned(), 2000, Some(RANDOM.parse().unwrap()), false)]);
    }

    #[test]
    fn of_a_file_of_which_only_what_differs_went_no_sha_256_is_told() {
        let (files, unfollowed) = told(include_bytes!("testdata/delta"), 50);
        let [(path, bytes, None, true)] = files.as_slice() else { panic!("{files:?}") };
        assert!((path.as_str(), unfollowed) == ("dst/b.bin", None) && *bytes < 2000, "{bytes}");
    }

    #[test]
    fn what_cannot_be_followed_passes_and_says_why() {
        for line in ["rsync --server -logDtprze.iLsfxCIvu . /srv/", "rsync --server -logDtprXe.iLsfxCIvu . /srv/"] {
            let mut gate = gate(line, terms(true, true, "{}")).unwrap();
            gate.client_sent(Bytes::from_static(b"anything"));
            gate.target_ended();
            assert_eq!(gate.desk.to_target.pop(), Some(Piece::Forward(Bytes::from_static(b"anything"))));
            let told = gate.desk.operations.pop_front().unwrap();
            assert!(matches!(told.act, FileAct::Sync { unfollowed: Some(_), .. }), "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic_and_all_pass(
            run in 0usize..RUNS.len(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            noise in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..10),
            cut in 1usize..300,
        ) {
            let [line, client, target] = recorded(RUNS[run].0);
            let mut gate = gate(std::str::from_utf8(&line).unwrap(), terms(true, true, "{}")).unwrap();
            let mut sides = [client.to_vec(), target.to_vec()];
            for (place, byte) in changes {
                let side = &mut sides[usize::from(byte & 1)];
                let at = place.index(side.len());
                side[at] = byte;
            }
            let mut sent = [0, 0];
            let [client, target] = sides;
            let parts = client.chunks(cut).map(|part| (true, part)).chain(target.chunks(cut).map(|part| (false, part)));
            for (of_client, part) in parts.chain(noise.iter().map(|(who, part)| (*who, part.as_slice()))) {
                let bytes = Bytes::copy_from_slice(part);
                sent[usize::from(!of_client)] += part.len();
                if of_client { gate.client_sent(bytes) } else { gate.target_sent(bytes) }
            }
            gate.target_ended();
            let count = |outbox: &mut crate::files::gate::Outbox| {
                std::iter::from_fn(|| outbox.pop()).map(|piece| piece.bytes().len()).sum::<usize>()
            };
            prop_assert_eq!([count(&mut gate.desk.to_target), count(&mut gate.desk.to_client)], sent);
        }
    }
}
