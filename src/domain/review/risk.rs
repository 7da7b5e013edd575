//! What speaks for a longer look at a session: signs that are found in what is known of it, each with a weight. The sum, at most 100, only
//! puts sessions in an order and may decide which are looked at; a low one says nothing of what a careful person hides.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::clues;
use crate::files::{Direction, FileAct, FileOperation, FileResult, Moved};
use crate::id::RecordingId;

/// The highest risk.
pub const MOST: u32 = 100;

const MIB: u64 = 1 << 20;

/// What may speak for a longer look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The audit system's configuration, or the shell's own history.
    AuditConfig,
    Sudoers,
    /// Something is missing in a recording.
    Gap,
    AuthorizedKeys,
    /// Commands that the grant flags.
    Flagged,
    /// Files went out; counted in bytes.
    DataOut,
    /// From the target on to another host.
    NestedSsh,
    Cron,
    /// What the bastion could not follow: commands beyond what is kept, transfers that could not be read.
    Unfollowed,
    /// Asked for and refused.
    Denied,
    NewTarget,
    /// Encoded as text, as data that is to leave through a terminal is.
    Encoded,
    /// A terminal or a command printed much; counted in bytes.
    LargeOutput,
    /// sudo, su and the like.
    Root,
    OddHour,
}

impl Sign {
    pub const ALL: [Sign; 15] = [
        Sign::AuditConfig,
        Sign::Sudoers,
        Sign::Gap,
        Sign::AuthorizedKeys,
        Sign::Flagged,
        Sign::DataOut,
        Sign::NestedSsh,
        Sign::Cron,
        Sign::Unfollowed,
        Sign::Denied,
        Sign::NewTarget,
        Sign::Encoded,
        Sign::LargeOutput,
        Sign::Root,
        Sign::OddHour,
    ];

    /// The word used in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Sign::AuditConfig => "audit_config",
            Sign::Sudoers => "sudoers",
            Sign::Gap => "gap",
            Sign::AuthorizedKeys => "authorized_keys",
            Sign::Flagged => "flagged",
            Sign::DataOut => "data_out",
            Sign::NestedSsh => "nested_ssh",
            Sign::Cron => "cron",
            Sign::Unfollowed => "unfollowed",
            Sign::Denied => "denied",
            Sign::NewTarget => "new_target",
            Sign::Encoded => "encoded",
            Sign::LargeOutput => "large_output",
            Sign::Root => "root",
            Sign::OddHour => "odd_hour",
        }
    }

    /// How much `amount` of it weighs. More never weighs less; nothing weighs nothing.
    pub fn weight(self, amount: u64) -> u32 {
        if amount == 0 {
            return 0;
        }
        match self {
            Sign::AuditConfig => 45,
            Sign::Sudoers | Sign::Gap => 40,
            Sign::AuthorizedKeys | Sign::Flagged => 35,
            Sign::NestedSsh => 30,
            Sign::Cron | Sign::Unfollowed => 25,
            Sign::NewTarget | Sign::Encoded => 20,
            Sign::Root | Sign::OddHour => 15,
            Sign::Denied => 10 + u32::try_from(amount).unwrap_or(u32::MAX).min(4) * 5,
            Sign::DataOut => match amount / MIB {
                0 => 10,
                1..=99 => 20,
                100..=1023 => 35,
                _ => 50,
            },
            Sign::LargeOutput => match amount / MIB {
                0..=9 => 0,
                10..=99 => 15,
                _ => 30,
            },
        }
    }
}

/// A moment of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    pub at: DateTime<Utc>,
    pub recording: RecordingId,
}

/// One of the things that speak for a longer look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub sign: Sign,
    pub weight: u32,
    /// How often, or how many bytes.
    pub amount: u64,
    /// The first time, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Moment>,
}

impl fmt::Display for Reason {
    /// In words: `download of 310 MB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |f: &mut fmt::Formatter<'_>, what: &str| match self.amount {
            1 => f.write_str(what),
            often => write!(f, "{what} ({often} times)"),
        };
        match self.sign {
            Sign::AuditConfig => times(f, "touched audit configuration or the shell's history"),
            Sign::Sudoers => times(f, "touched sudoers"),
            Sign::Gap => times(f, "something is missing in a recording"),
            Sign::AuthorizedKeys => times(f, "touched authorized_keys"),
            Sign::Flagged => times(f, "ran a command that the grant flags"),
            Sign::DataOut => write!(f, "download of {}", Bytes(self.amount)),
            Sign::NestedSsh => times(f, "went on to another host"),
            Sign::Cron => times(f, "touched cron"),
            Sign::Unfollowed => times(f, "did something that could not be followed"),
            Sign::Denied => times(f, "was refused something"),
            Sign::NewTarget => f.write_str("first time on this target"),
            Sign::Encoded => times(f, "encoded data as text"),
            Sign::LargeOutput => write!(f, "output of {}", Bytes(self.amount)),
            Sign::Root => times(f, "became another user"),
            Sign::OddHour => f.write_str("outside working hours"),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..=999 => write!(f, "{bytes} B"),
            bytes @ 1_000..=999_999 => write!(f, "{} kB", bytes / 1_000),
            bytes @ 1_000_000..=999_999_999 => write!(f, "{} MB", bytes / 1_000_000),
            bytes => write!(f, "{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
        }
    }
}

/// All that speaks for a longer look, the heaviest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Risk {
    /// 0 to [`MOST`].
    pub score: u32,
    pub reasons: Vec<Reason>,
}

/// Takes what is known of a session, in any order.
#[derive(Debug, Default)]
pub struct Assessor(BTreeMap<Sign, (u64, Option<Moment>)>);

impl Assessor {
    pub fn new() -> Self {
        Self::default()
    }

    /// `amount` more of a sign.
    pub fn note(&mut self, sign: Sign, amount: u64, moment: Option<Moment>) {
        if amount == 0 {
            return;
        }
        let (sum, first) = self.0.entry(sign).or_default();
        *sum = sum.saturating_add(amount);
        *first = match (*first, moment) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// A command as it is known, and whether the grant flags it.
    pub fn command(&mut self, text: &str, is_flagged: bool, moment: Moment) {
        for sign in clues::of_command(text) {
            self.note(sign, 1, Some(moment));
        }
        self.note(Sign::Flagged, u64::from(is_flagged), Some(moment));
    }

    /// What was done to a file, or was to be.
    pub fn file(&mut self, operation: &FileOperation, moment: Moment) {
        let first = Some(moment);
        if matches!(operation.result, FileResult::Denied { .. }) {
            self.note(Sign::Denied, 1, first);
        }
        let mut changed = Vec::new();
        match &operation.act {
            FileAct::Transfer { path, upload, download } => {
                if upload.is_some() {
                    changed.push(path);
                }
                if let Some(Moved { bytes, .. }) = download {
                    self.note(Sign::DataOut, *bytes, first);
                }
            }
            FileAct::Open { path, direction: Direction::Upload }
            | FileAct::Remove { path }
            | FileAct::MakeDirectory { path }
            | FileAct::RemoveDirectory { path }
            | FileAct::SetAttributes { path } => changed.push(path),
            FileAct::Rename { from, to } | FileAct::Copy { from, to, .. } => changed.extend([from, to]),
            FileAct::Symlink { link, target } | FileAct::Hardlink { link, target } => changed.extend([link, target]),
            FileAct::Open { direction: Direction::Download, .. } | FileAct::Look { .. } => {}
            FileAct::Unknown { .. } => self.note(Sign::Unfollowed, 1, first),
            // Files that were followed are told of one by one.
            FileAct::Sync { direction, paths, received, unfollowed, .. } => {
                if unfollowed.is_some() {
                    self.note(Sign::Unfollowed, 1, first);
                    let bytes = if *direction == Direction::Download { *received } else { 0 };
                    self.note(Sign::DataOut, bytes, first);
                }
                if *direction == Direction::Upload {
                    changed.extend(paths);
                }
            }
        }
        let signs: std::collections::BTreeSet<Sign> =
            changed.iter().filter_map(|path| clues::of_path(&path.to_string())).collect();
        for sign in signs {
            self.note(sign, 1, first);
        }
    }

    /// What it comes to.
    pub fn finish(self) -> Risk {
        let reason = |(sign, (amount, first)): (Sign, (u64, Option<Moment>))| Reason {
            sign,
            weight: sign.weight(amount),
            amount,
            first,
        };
        let mut reasons: Vec<Reason> = self.0.into_iter().map(reason).filter(|reason| reason.weight > 0).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.weight));
        let score = reasons.iter().map(|reason| reason.weight).sum::<u32>().min(MOST);
        Risk { score, reasons }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::files::{Digest, FilePath};

    fn moment(seconds: i64) -> Moment {
        let recording = RecordingId::from_uuid(Uuid::from_u128(1));
        Moment { at: DateTime::from_timestamp(seconds, 0).unwrap(), recording }
    }

    fn path(text: &str) -> FilePath {
        FilePath(text.as_bytes().to_vec())
    }

    fn words(risk: &Risk) -> Vec<String> {
        risk.reasons.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_risk_is_explained_the_heaviest_reason_first() {
        let mut assessor = Assessor::new();
        assessor.note(Sign::NewTarget, 1, None);
        assessor.command("sudo vi /root/.ssh/authorized_keys", false, moment(9));
        assessor.command("sudo ls", false, moment(7));
        let moved = Moved { bytes: 310_000_000, digest: Digest::NotWanted, partial: false };
        let act = FileAct::Transfer { path: path("/srv/dump"), upload: None, download: Some(moved) };
        assessor.file(&FileOperation { act, result: FileResult::Done }, moment(20));
        let risk = assessor.finish();

        assert_eq!(risk.score, 100);
        let expected = [
            "touched authorized_keys",
            "download of 310 MB",
            "first time on this target",
            "became another user (2 times)",
        ];
        assert_eq!(words(&risk), expected);
        assert_eq!(risk.reasons[3].first, Some(moment(7)));
    }

    #[test]
    fn a_quiet_session_has_no_risk() {
        let mut assessor = Assessor::new();
        assessor.command("ls -l /var/log", false, moment(1));
        assessor.note(Sign::LargeOutput, 5 << 20, None);
        assert_eq!(assessor.finish(), Risk::default());
    }

    #[test]
    fn files_put_in_certain_places_are_told_of_and_so_are_denials() {
        let mut assessor = Assessor::new();
        let moved = Moved { bytes: 9, digest: Digest::NotWanted, partial: false };
        for (place, result) in [
            ("/home/ops/.ssh/authorized_keys", FileResult::Done),
            ("/etc/cron.d/x", FileResult::Failed { code: 3 }),
            ("/etc/sudoers.d/ops", FileResult::Interrupted),
            ("/srv/app.tar", FileResult::Done),
        ] {
            let act = FileAct::Transfer { path: path(place), upload: Some(moved.clone()), download: None };
            assessor.file(&FileOperation { act, result }, moment(1));
        }
        let act = FileAct::Open { path: path("/etc/shadow"), direction: Direction::Download };
        let denial = crate::files::FileDenial::Direction { direction: Direction::Download };
        assessor.file(&FileOperation { act, result: FileResult::Denied { denial } }, moment(1));
        let signs: Vec<Sign> = assessor.finish().reasons.iter().map(|reason| reason.sign).collect();
        assert_eq!(signs, [Sign::Sudoers, Sign::AuthorizedKeys, Sign::Cron, Sign::Denied]);
    }

    pub(crate) fn any_reason() -> impl Strategy<Value = Reason> {
        (
            prop::sample::select(&Sign::ALL),
            any::<u32>(),
            any::<u64>(),
            prop::option::of((0..4_000_000_000_i64, any::<u128>())),
        )
            .prop_map(|(sign, weight, amount, first)| {
                let first = first.map(|(at, id)| Moment {
                    at: DateTime::from_timestamp(at, 0).unwrap(),
                    recording: RecordingId::from_uuid(Uuid::from_u128(id)),
                });
                Reason { sign, weight, amount: amount >> 1, first }
            })
    }

    proptest! {
        #[test]
        fn one_sign_more_never_lowers_a_risk_and_the_order_does_not_matter(
            notes in prop::collection::vec((prop::sample::select(&Sign::ALL), 0..3_000_000_000_u64, 0..99_i64), 0..20),
            more in prop::sample::select(&Sign::ALL), amount in 1..u64::MAX,
        ) {
            let assess = |notes: &[(Sign, u64, i64)]| {
                let mut assessor = Assessor::new();
                notes.iter().for_each(|(sign, amount, at)| assessor.note(*sign, *amount, Some(moment(*at))));
                assessor
            };
            let risk = assess(&notes).finish();
            let mut turned = notes.clone();
            turned.reverse();
            prop_assert_eq!(&assess(&turned).finish(), &risk);
            let mut with_more = assess(&notes);
            with_more.note(more, amount, None);
            prop_assert!(with_more.finish().score >= risk.score);

            prop_assert!(risk.score <= MOST);
            let sum: u32 = risk.reasons.iter().map(|reason| reason.weight).sum();
            prop_assert_eq!(risk.score, sum.min(MOST));
            prop_assert!(risk.reasons.iter().all(|reason| reason.weight > 0 && !reason.to_string().is_empty()));
            prop_assert!(risk.reasons.is_sorted_by(|a, b| a.weight >= b.weight));
        }
    }

    #[test]
    fn every_sign_has_one_word_everywhere() {
        for sign in Sign::ALL {
            assert_eq!(serde_json::to_value(sign).unwrap(), sign.as_str());
        }
    }
}
