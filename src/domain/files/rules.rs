//! The rules for files: pure, one decision for each kind of operation.

use serde::{Deserialize, Serialize};

use super::path::{FilePath, PathError, PathGlob, Place};
use super::spent::{Spent, Way};
use super::{Digest, Direction};
use crate::grant::Capabilities;
use crate::recording::segment::Hash;

/// What a grant says of files, beside whether they may go in and out at all. The default limits nothing.
///
/// An unknown field is an error: a rule that this version does not know must not be read as no rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileRules {
    pub upload: WayRules,
    pub download: WayRules,
    /// Contents that may be uploaded; `None` means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_sha256: Option<Sha256List>,
    /// Bytes that may leave through terminals and the output of commands, over the grant's life; `None` means any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_budget: Option<u64>,
}

/// The rules for one direction. The default limits nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WayRules {
    /// Paths that are allowed; `None` means any, an empty list none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathGlob>>,
    /// The most that may go in one transfer of one file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// The most that may go over the grant's life, all its sessions together, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

impl FileRules {
    /// Whether nothing is limited.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl WayRules {
    fn is_unlimited(&self) -> bool {
        let Self { paths, file_bytes, total_bytes } = self;
        paths.is_none() && file_bytes.is_none() && total_bytes.is_none()
    }

    fn allows(&self, place: &Place, home: Option<&[u8]>) -> bool {
        self.paths.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(place, home)))
    }
}

/// SHA-256 digests, each once, written as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Hash>", into = "Vec<Hash>")]
pub struct Sha256List(Vec<Hash>);

impl Sha256List {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing may be uploaded at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, hash: &Hash) -> bool {
        self.0.binary_search_by(|other| other.0.cmp(&hash.0)).is_ok()
    }
}

impl From<Vec<Hash>> for Sha256List {
    fn from(mut hashes: Vec<Hash>) -> Self {
        hashes.sort_unstable_by_key(|hash| hash.0);
        hashes.dedup();
        Self(hashes)
    }
}

impl From<Sha256List> for Vec<Hash> {
    fn from(list: Sha256List) -> Self {
        list.0
    }
}

/// Why a file operation is refused. Its text is for the engineer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "file_denial", rename_all = "snake_case")]
pub enum FileDenial {
    #[error("the grant does not allow {}", direction.as_str())]
    Direction { direction: Direction },
    #[error("the grant does not allow {} here: `{path}`", direction.as_str())]
    Path { direction: Direction, path: FilePath },
    #[error("the grant does not allow looking here: `{path}`")]
    Look { path: FilePath },
    #[error("{error}: `{path}`")]
    Unclear { error: PathError, path: FilePath },
    #[error("the grant limits paths, and where `{path}` is the bastion cannot tell; use a path that begins with `/`")]
    HomeUnknown { path: FilePath },
    #[error("the grant limits paths, so a symbolic link must name its target by an absolute path, not `{target}`")]
    RelativeLink { target: FilePath },
    #[error("the grant allows {} of at most {most} bytes a file", direction.as_str())]
    FileBytes { direction: Direction, most: u64 },
    #[error("the grant allows {} of {most} bytes in all, and they are spent", direction.as_str())]
    TotalBytes { direction: Direction, most: u64 },
    #[error("the grant lets {most} bytes out through terminals and commands, and they are spent")]
    TerminalBytes { most: u64 },
    #[error("`{path}` was emptied and removed: its SHA-256 {sha256} is not on the grant's list")]
    NotListed { path: FilePath, sha256: Hash },
    #[error(
        "`{path}` was emptied and removed: it was not sent in order and whole, and the grant allows only listed SHA-256"
    )]
    NotHashed { path: FilePath },
    #[error("the grant allows only files with a listed SHA-256, so this is refused: {what}")]
    ListedOnly { what: ListedOnly },
    #[error("the handle was not opened for that")]
    Handle,
    #[error("the bastion does not know this request and cannot judge it")]
    UnknownRequest,
    #[error("the bastion keeps track of no more at once: close some files first")]
    TooMany,
    #[error("the request is longer than the bastion accepts")]
    TooLong,
    #[error("{}", uncheckable(*program))]
    Uncheckable { program: Program },
    #[error("the command line of {program} is not one that the bastion can check")]
    CommandLine { program: Program },
    #[error("{program} was asked for the option `{option}`, which the bastion cannot judge")]
    Option { program: Program, option: FilePath },
}

/// Why a program's own protocol does not go with a grant's rules, and what does.
const fn uncheckable(program: Program) -> &'static str {
    match program {
        Program::Scp => {
            "the grant allows only files with a listed SHA-256, and scp cannot take back one that is not: use sftp"
        }
        Program::Rsync => "the grant has rules for each file, and rsync's stream is not safe to judge by: use sftp",
        Program::SftpServer => "sftp-server cannot be checked against this grant's rules for files: use sftp",
    }
}

/// A program that transfers files by a protocol of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    Scp,
    Rsync,
    SftpServer,
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Program::Scp => "scp",
            Program::Rsync => "rsync",
            Program::SftpServer => "sftp-server",
        })
    }
}

/// What a list of allowed contents does not go with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ListedOnly {
    #[error("writing into a file that is not emptied first, as scp does, and sftp where it resumes: use `put` of sftp")]
    Resume,
    #[error("setting a file's size")]
    Resize,
    #[error("copying on the target")]
    Copy,
    #[error("a file that is being uploaded already")]
    Busy,
}

/// One operation that is to be judged.
#[derive(Debug, Clone, Copy)]
pub enum FileRequest<'a> {
    /// Names, sizes and times.
    Look {
        path: &'a [u8],
    },
    /// What is in a folder.
    List {
        path: &'a [u8],
    },
    Read {
        path: &'a [u8],
    },
    /// `replaces`: the file is new or is emptied.
    Write {
        path: &'a [u8],
        replaces: bool,
    },
    /// Remove, mkdir, rmdir, setstat.
    Alter {
        path: &'a [u8],
    },
    /// Set a file's size.
    Resize {
        path: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Symlink {
        target: &'a [u8],
        link: &'a [u8],
    },
    Hardlink {
        target: &'a [u8],
        link: &'a [u8],
    },
}

/// What a gate goes by: a grant's capabilities for files, and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTerms {
    upload: bool,
    download: bool,
    rules: FileRules,
}

impl FileTerms {
    /// The terms of a grant.
    pub fn new(capabilities: &Capabilities, rules: FileRules) -> Self {
        Self { upload: capabilities.upload, download: capabilities.download, rules }
    }

    pub fn rules(&self) -> &FileRules {
        &self.rules
    }

    /// Whether there is anything to enforce. If not, what cannot be followed may pass.
    pub fn is_strict(&self) -> bool {
        let FileRules { upload, download, upload_sha256, terminal_budget: _ } = &self.rules;
        !self.upload || !self.download || !upload.is_unlimited() || !download.is_unlimited() || upload_sha256.is_some()
    }

    /// Whether paths matter.
    pub fn has_paths(&self) -> bool {
        self.rules.upload.paths.is_some() || self.rules.download.paths.is_some()
    }

    /// Whether it matters which place a path means.
    pub fn needs_home(&self) -> bool {
        self.has_paths() || self.has_list()
    }

    /// Whether only listed contents may be uploaded.
    pub fn has_list(&self) -> bool {
        self.rules.upload_sha256.is_some()
    }

    /// Whether more is asked than the direction, so that each file must be seen.
    pub fn needs_each_file(&self) -> bool {
        let way = |way: &WayRules| way.paths.is_some() || way.file_bytes.is_some();
        way(&self.rules.upload) || way(&self.rules.download) || self.has_list()
    }

    fn way(&self, direction: Direction) -> (bool, &WayRules) {
        match direction {
            Direction::Upload => (self.upload, &self.rules.upload),
            Direction::Download => (self.download, &self.rules.download),
        }
    }

    /// Whether anything at all may go in `direction`.
    pub fn judge_direction(&self, direction: Direction) -> Result<(), FileDenial> {
        if self.way(direction).0 { Ok(()) } else { Err(FileDenial::Direction { direction }) }
    }

    /// Where `path` leads, for a rule about paths.
    pub fn place(path: &[u8], home: Option<&[u8]>) -> Result<Place, FileDenial> {
        Place::of(path, home).map_err(|error| FileDenial::Unclear { error, path: path.into() })
    }

    /// Whether `request` is allowed. `home` is the login's home on the target, if it is known.
    pub fn judge(&self, request: &FileRequest<'_>, home: Option<&[u8]>) -> Result<(), FileDenial> {
        use Direction::{Download, Upload};
        match *request {
            FileRequest::Look { path } => self.judge_look(path, home, PathGlob::passes),
            FileRequest::List { path } => self.judge_look(path, home, PathGlob::leads_into),
            FileRequest::Read { path } => self.judge_path(Download, path, home),
            FileRequest::Write { path, replaces } => {
                self.judge_path(Upload, path, home)?;
                if self.has_list() && !replaces {
                    return Err(FileDenial::ListedOnly { what: ListedOnly::Resume });
                }
                Ok(())
            }
            FileRequest::Alter { path } => self.judge_path(Upload, path, home),
            FileRequest::Resize { path } => {
                self.judge_path(Upload, path, home)?;
                if self.has_list() {
                    return Err(FileDenial::ListedOnly { what: ListedOnly::Resize });
                }
                Ok(())
            }
            FileRequest::Rename { from, to } => {
                self.judge_path(Upload, from, home)?;
                self.judge_path(Upload, to, home)?;
                // At its new place it could be read.
                if self.download && self.rules.download.paths.is_some() {
                    self.judge_path(Download, from, home)?;
                }
                Ok(())
            }
            FileRequest::Symlink { target, link } => {
                if self.has_paths() {
                    // Which of the two comes first, OpenSSH and the draft disagree on: both must be good.
                    for path in [target, link] {
                        if path.first() != Some(&b'/') {
                            return Err(FileDenial::RelativeLink { target: path.into() });
                        }
                    }
                }
                self.judge_link(target, link, home)
            }
            FileRequest::Hardlink { target, link } => self.judge_link(target, link, home),
        }
    }

    fn judge_link(&self, target: &[u8], link: &[u8], home: Option<&[u8]>) -> Result<(), FileDenial> {
        for path in [target, link] {
            self.judge_path(Direction::Upload, path, home)?;
            if self.download {
                self.judge_path(Direction::Download, path, home)?;
            }
        }
        Ok(())
    }

    fn judge_path(&self, direction: Direction, path: &[u8], home: Option<&[u8]>) -> Result<(), FileDenial> {
        self.judge_direction(direction)?;
        let rules = self.way(direction).1;
        if rules.paths.is_none() {
            return Ok(());
        }
        let place = Self::place(path, home)?;
        match &place {
            place if rules.allows(place, home) => Ok(()),
            Place::InHome(_) => Err(FileDenial::HomeUnknown { path: path.into() }),
            Place::Absolute(_) => Err(FileDenial::Path { direction, path: FilePath(place.to_path()) }),
        }
    }

    fn judge_look(
        &self,
        path: &[u8],
        home: Option<&[u8]>,
        may: impl Fn(&PathGlob, &Place, Option<&[u8]>) -> bool,
    ) -> Result<(), FileDenial> {
        if !self.upload && !self.download {
            return Err(FileDenial::Direction { direction: Direction::Download });
        }
        if !self.has_paths() {
            return Ok(());
        }
        let place = Self::place(path, home)?;
        let allowed = [Direction::Upload, Direction::Download].into_iter().any(|direction| {
            let (open, rules) = self.way(direction);
            let globs = rules.paths.as_ref();
            open && globs
                .is_none_or(|globs| globs.iter().any(|glob| glob.matches(&place, home) || may(glob, &place, home)))
        });
        match place {
            _ if allowed => Ok(()),
            Place::InHome(_) => Err(FileDenial::HomeUnknown { path: path.into() }),
            Place::Absolute(place) => Err(FileDenial::Look { path: FilePath(place) }),
        }
    }

    /// The most that may go one way in all; `None` means any number of bytes.
    pub fn budget(&self, way: Way) -> Option<u64> {
        match way {
            Way::Files(direction) => self.way(direction).1.total_bytes,
            Way::Terminal => self.rules.terminal_budget,
        }
    }

    /// Whether `more` bytes may go in `direction` after the `before` of the same transfer, and if so, spends them.
    pub fn spend(&self, direction: Direction, before: u64, more: u64, spent: &Spent) -> Result<(), FileDenial> {
        self.judge_size(direction, before.saturating_add(more))?;
        let most = self.budget(Way::Files(direction));
        let paid = spent.spend(Way::Files(direction), more, most);
        paid.map_err(|most| FileDenial::TotalBytes { direction, most })
    }

    /// Whether a file of `size` bytes may go in `direction`, as far as is known before it does. Spends nothing.
    pub fn judge_whole(&self, direction: Direction, size: u64, spent: &Spent) -> Result<(), FileDenial> {
        self.judge_size(direction, size)?;
        let most = self.budget(Way::Files(direction));
        spent.has(Way::Files(direction), size, most).map_err(|most| FileDenial::TotalBytes { direction, most })
    }

    fn judge_size(&self, direction: Direction, size: u64) -> Result<(), FileDenial> {
        self.judge_direction(direction)?;
        match self.way(direction).1.file_bytes.filter(|&most| size > most) {
            Some(most) => Err(FileDenial::FileBytes { direction, most }),
            None => Ok(()),
        }
    }

    /// Whether `bytes` more may leave through a terminal or a command's output, and if so, spends them.
    pub fn spend_terminal(&self, bytes: u64, spent: &Spent) -> Result<(), FileDenial> {
        let paid = spent.spend(Way::Terminal, bytes, self.rules.terminal_budget);
        paid.map_err(|most| FileDenial::TerminalBytes { most })
    }

    /// Whether an upload to `path` of this content may stay. The denial says that it was removed: the caller sees to it.
    pub fn judge_content(&self, path: &FilePath, digest: Digest) -> Result<(), FileDenial> {
        match (&self.rules.upload_sha256, digest) {
            (None, _) => Ok(()),
            (Some(list), Digest::Sha256(hash)) if list.contains(&hash) => Ok(()),
            (Some(_), Digest::Sha256(sha256)) => Err(FileDenial::NotListed { path: path.clone(), sha256 }),
            (Some(_), Digest::NotSequential | Digest::NotWanted) => Err(FileDenial::NotHashed { path: path.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(upload: bool, download: bool, rules: &str) -> FileTerms {
        let capabilities = Capabilities { upload, download, ..Capabilities::default() };
        FileTerms::new(&capabilities, serde_json::from_str(rules).unwrap())
    }

    const HOME: Option<&[u8]> = Some(b"/home/ann");

    #[test]
    fn no_rules_limit_nothing_and_read_back() {
        let rules: FileRules = serde_json::from_str("{}").unwrap();
        assert_eq!(rules, FileRules::default());
        assert_eq!(serde_json::to_string(&rules).unwrap(), r#"{"upload":{},"download":{}}"#);
        assert!(!terms(true, true, "{}").is_strict());
        assert!(terms(true, false, "{}").is_strict() && terms(true, true, r#"{"upload":{"paths":[]}}"#).is_strict());
    }

    #[test]
    fn a_rule_that_is_not_known_is_an_error_and_not_no_rule() {
        assert!(serde_json::from_str::<FileRules>(r#"{"upload":{"owner":"root"}}"#).is_err());
        assert!(serde_json::from_str::<FileRules>(r#"{"uplaod":{}}"#).is_err());
        assert!(serde_json::from_str::<FileRules>(r#"{"upload_sha256":["12"]}"#).is_err());
    }

    #[test]
    fn who_may_only_download_alters_nothing() {
        let terms = terms(false, true, "{}");
        let (path, other) = (b"/a".as_slice(), b"/b".as_slice());
        for request in [
            FileRequest::Write { path, replaces: true },
            FileRequest::Alter { path },
            FileRequest::Resize { path },
            FileRequest::Rename { from: path, to: other },
            FileRequest::Symlink { target: path, link: other },
            FileRequest::Hardlink { target: path, link: other },
        ] {
            assert!(terms.judge(&request, HOME).is_err(), "{request:?}");
        }
        assert!(terms.judge(&FileRequest::Read { path }, HOME).is_ok());
        assert!(terms.judge(&FileRequest::List { path }, HOME).is_ok());
    }

    #[test]
    fn paths_are_judged_where_they_lead() {
        let terms = terms(true, true, r#"{"upload":{"paths":["/srv/app/**"]},"download":{"paths":["~/logs/*"]}}"#);
        let write = |path: &'static [u8]| terms.judge(&FileRequest::Write { path, replaces: true }, HOME);
        let read = |path: &'static [u8]| terms.judge(&FileRequest::Read { path }, HOME);
        assert!(write(b"/srv/app/x").is_ok() && write(b"../../srv//app/./x").is_ok());
        assert!(
            write(b"/srv/app/../../etc/passwd").is_err() && write(b"logs/x").is_err() && write(b"/srv/app/").is_err()
        );
        assert!(read(b"logs/x").is_ok() && read(b"/home/ann/logs/x").is_ok() && read(b"/srv/app/x").is_err());
        let look = |path: &'static [u8]| terms.judge(&FileRequest::Look { path }, HOME).is_ok();
        assert!(look(b"/") && look(b"/srv") && look(b"/srv/app") && look(b".") && !look(b"/etc"));
        let list = |path: &'static [u8]| terms.judge(&FileRequest::List { path }, HOME).is_ok();
        assert!(list(b"/srv/app") && list(b"/srv/app/sub") && list(b"logs") && !list(b"/srv") && !list(b"."));
    }

    #[test]
    fn a_path_at_home_fails_closed_while_the_home_is_unknown() {
        let terms = terms(true, true, r#"{"upload":{"paths":["/**"]}}"#);
        let request = FileRequest::Write { path: b"x", replaces: true };
        assert!(matches!(terms.judge(&request, None), Err(FileDenial::HomeUnknown { .. })));
        assert!(terms.judge(&request, HOME).is_ok());
    }

    #[test]
    fn what_may_not_be_read_cannot_be_moved_or_linked_to_where_it_may() {
        let terms = terms(true, true, r#"{"upload":{"paths":["/in/**","/out/**"]},"download":{"paths":["/out/**"]}}"#);
        let (inside, out, etc) = (b"/in/x".as_slice(), b"/out/x".as_slice(), b"/etc/shadow".as_slice());
        assert!(terms.judge(&FileRequest::Rename { from: inside, to: out }, HOME).is_err());
        assert!(terms.judge(&FileRequest::Rename { from: out, to: inside }, HOME).is_ok());
        for target in [inside, etc, b"x", b"/out/../etc/shadow"] {
            assert!(terms.judge(&FileRequest::Symlink { target, link: out }, HOME).is_err());
            assert!(terms.judge(&FileRequest::Hardlink { target, link: out }, HOME).is_err());
        }
        assert!(terms.judge(&FileRequest::Symlink { target: out, link: b"/out/y" }, HOME).is_ok());
    }

    #[test]
    fn a_budget_is_spent_whole_or_not_at_all() {
        let terms = terms(true, true, r#"{"upload":{"file_bytes":6,"total_bytes":10},"terminal_budget":3}"#);
        let spent = Spent::default();
        assert!(terms.spend(Direction::Upload, 0, 6, &spent).is_ok());
        assert_eq!(
            terms.spend(Direction::Upload, 6, 1, &spent),
            Err(FileDenial::FileBytes { direction: Direction::Upload, most: 6 })
        );
        assert_eq!(
            terms.spend(Direction::Upload, 0, 5, &spent),
            Err(FileDenial::TotalBytes { direction: Direction::Upload, most: 10 })
        );
        assert!(terms.spend(Direction::Upload, 0, 4, &spent).is_ok());
        assert_eq!(spent.bytes(Way::Files(Direction::Upload)), 10);
        assert!(terms.spend(Direction::Download, 0, u64::MAX, &spent).is_ok());
        assert!(terms.spend_terminal(3, &spent).is_ok() && terms.spend_terminal(1, &spent).is_err());
    }

    #[test]
    fn only_listed_contents_stay() {
        let hash = Hash::of(b"good");
        let terms = terms(true, true, &format!(r#"{{"upload_sha256":["{hash}","{}"]}}"#, Hash::of(b"x")));
        let path = FilePath(b"/a".to_vec());
        assert!(terms.judge_content(&path, Digest::Sha256(hash)).is_ok());
        assert!(terms.judge_content(&path, Digest::Sha256(Hash::of(b"evil"))).is_err());
        assert!(terms.judge_content(&path, Digest::NotSequential).is_err());
        assert!(terms.judge(&FileRequest::Write { path: b"/a", replaces: false }, HOME).is_err());
        assert!(terms.judge(&FileRequest::Resize { path: b"/a" }, HOME).is_err());
        let back = serde_json::to_string(terms.rules()).unwrap();
        assert_eq!(&serde_json::from_str::<FileRules>(&back).unwrap(), terms.rules());
    }
}
