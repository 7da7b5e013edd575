//! Manifests: everything that a session left behind, in one text, made when the session is over and all of it is at rest.
//! The manifest's SHA-256 is in an event ([`Act::SessionSealed`](crate::event::Act::SessionSealed)), so a recording is
//! provable from one signed checkpoint:
//!
//! ```text
//! checkpoint ──inclusion──► entry of "session_sealed" ──SHA-256──► manifest ──SHA-256──► segment as stored
//! ```
//!
//! ```text
//! manifest = "sallyport-manifest-v1\n" {…}        canonical JSON of a Manifest, see super::canonical
//! ```
//!
//! What did not go well is in it: a crash, a gap, a cut. [`Manifest::check`] tells whether a manifest agrees with itself;
//! [`super::verify::RecordingVerifier`] whether stored segments agree with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::canonical::{self, CanonicalError, Kind};
use crate::channel::Program;
use crate::event::SessionEnd;
use crate::grant::Grant;
use crate::hash::Hash;
use crate::id::{PrincipalId, RecordingId, SessionId, TargetId};
use crate::name::{Login, PrincipalName, TargetName};

/// Manifests. 64 MiB are 400,000 segments, some 100 GB of output.
pub const MANIFEST: Kind = Kind { prefix: "sallyport-manifest-v1\n", most_bytes: 64 << 20 };

/// What a session left behind, and under which rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub session: SessionId,
    /// Program and version that recorded: `sallyport 0.1.0`.
    pub software: String,
    /// The bastion's node that served the session.
    pub node: String,
    pub person: PersonSeal,
    pub client: ClientSeal,
    pub target: TargetSeal,
    pub login: Login,
    /// The grant under which the session was opened, as it stood then, its terms included.
    pub grant: Grant,
    /// The settings that decide what is recorded and what ends a session, as they stood, by their names in
    /// `sallyport.toml`: `recording.durability` is `process`.
    pub settings: BTreeMap<String, String>,
    /// By the wall clock, as all instants here.
    pub opened_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub end: SessionEnd,
    /// One for each session channel, in the order in which they were opened.
    pub recordings: Vec<RecordingSeal>,
}

/// Who it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonSeal {
    pub id: PrincipalId,
    pub name: PrincipalName,
    /// What proved the person: `publickey`, `password`.
    pub method: String,
}

/// Where the person came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSeal {
    pub address: SocketAddr,
    /// The client's own words (RFC 4253 §4.2), made printable.
    pub version: String,
}

/// Which host was reached, and by what it proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSeal {
    pub id: TargetId,
    pub name: TargetName,
    pub address: String,
    /// The host keys that were presented and accepted, in OpenSSH's one-line form, in the order of their first use.
    /// Empty if the target was never reached.
    pub host_keys: Vec<String>,
    /// The hosts through which it was reached, the first one first.
    pub jumps: Vec<TargetSeal>,
}

/// What is at rest of one session channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingSeal {
    pub recording: RecordingId,
    /// Counts the session's channels from 1.
    pub channel: u32,
    pub program: Program,
    pub terminal: bool,
    pub started_at: DateTime<Utc>,
    /// By the monotonic clock, in microseconds.
    pub duration_us: u64,
    pub end: RecordingEnd,
    pub counters: Counters,
    /// Every place where something is missing.
    pub gaps: Vec<Gap>,
    /// In their order.
    pub segments: Vec<SegmentSeal>,
    /// The head of the hash chain over the segments.
    pub chain: Hash,
    /// The public keys (age) that the segments are encrypted to; none if they are not. Hashes and lengths are those of the encrypted form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encrypted_to: Vec<String>,
}

/// How a recording ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnd {
    /// As in the recording's last frame: `closed`, `cut`, `target closed`, `crashed`.
    pub how: String,
    pub reason: Option<String>,
    /// What the program left, if the target told.
    pub exit: Option<Exit>,
}

/// How a program ended (RFC 4254 §6.10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Status(u32),
    /// The name without `SIG`.
    Signal(String),
}

/// The bytes of a channel's three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// From the client.
    pub input: Counter,
    /// How many of the recorded bytes of input are recorded as their number only.
    pub masked: u64,
    /// From the target, standard output.
    pub output: Counter,
    /// From the target, standard error.
    pub error_output: Counter,
}

/// Bytes of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counter {
    /// Taken off the wire.
    pub seen: u64,
    /// In the recording.
    pub recorded: u64,
}

/// Something is missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Microseconds since the recording began.
    pub at_us: u64,
    pub reason: String,
}

/// A segment as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSeal {
    /// Of the stored bytes.
    pub sha256: Hash,
    pub stored_bytes: u64,
    /// Before compression.
    pub bytes: u64,
    /// When its first and last frames happened, in microseconds since the recording began.
    pub start_us: u64,
    pub end_us: u64,
}

/// What does not fit in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    #[error("recording {recording} is listed twice, or not in the order of channels")]
    Order { recording: RecordingId },
    #[error("the chain over the segments of recording {recording} ends in {found}, not in {expected}")]
    Chain { recording: RecordingId, expected: Hash, found: Hash },
    #[error("segment {number} of recording {recording} does not come after the one before it")]
    Times { recording: RecordingId, number: usize },
    #[error("recording {recording} is not the one of the manifest before it, with more of it: {why}")]
    Amended { recording: RecordingId, why: &'static str },
    #[error("the session is not the one of the manifest before it")]
    AmendedSession,
    #[error("of {seen} bytes of {stream} in recording {recording}, {recorded} are recorded, and no gap explains it")]
    Counters { recording: RecordingId, stream: &'static str, seen: u64, recorded: u64 },
}

impl Manifest {
    /// The manifest's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::encode(MANIFEST, self)
    }

    /// Reads a manifest; what is accepted encodes to the very same bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CanonicalError> {
        canonical::decode(MANIFEST, bytes)
    }

    /// Verifies that the manifest agrees with itself: order, chains, times, and that all bytes seen were recorded where
    /// no gap says otherwise.
    pub fn check(&self) -> Result<(), ManifestFault> {
        let mut last_channel = 0;
        let mut known = BTreeSet::new();
        for seal in &self.recordings {
            if seal.channel <= last_channel || !known.insert(seal.recording) {
                return Err(ManifestFault::Order { recording: seal.recording });
            }
            last_channel = seal.channel;
            seal.check()?;
        }
        Ok(())
    }

    /// Verifies that this manifest only adds to `earlier`, which it supersedes: the same session, and of each recording no less than
    /// there was. A recording may be another only where the earlier one has a gap, and then as much of it came as before.
    pub fn check_amends(&self, earlier: &Self) -> Result<(), ManifestFault> {
        let same = (self.session, &self.person, &self.login, &self.grant, self.opened_at)
            == (earlier.session, &earlier.person, &earlier.login, &earlier.grant, earlier.opened_at);
        if !same || self.ended_at < earlier.ended_at {
            return Err(ManifestFault::AmendedSession);
        }
        for before in &earlier.recordings {
            let recording = before.recording;
            let now = self.recordings.iter().find(|seal| seal.recording == recording);
            if let Some(why) = now.map_or(Some("it is gone"), |now| now.other_than(before)) {
                return Err(ManifestFault::Amended { recording, why });
            }
        }
        Ok(())
    }

    /// How many segments there are.
    pub fn segments(&self) -> u64 {
        self.recordings.iter().map(|seal| seal.segments.len() as u64).sum()
    }
}

impl RecordingSeal {
    /// Whether it takes a key of the client's to look into the segments.
    pub fn is_encrypted(&self) -> bool {
        !self.encrypted_to.is_empty()
    }

    /// Why this is not what was sealed `before`, or that with more of it.
    fn other_than(&self, before: &Self) -> Option<&'static str> {
        if self == before {
            return None;
        }
        let beginning = |seal: &Self| (seal.program.clone(), seal.channel, seal.started_at);
        let (now, then) = (&self.counters, &before.counters);
        if beginning(self) != beginning(before) {
            Some("it began otherwise")
        } else if before.gaps.is_empty() {
            Some("nothing was missing")
        } else if now.input.recorded < then.input.recorded {
            Some("there is less input")
        } else if now.output.recorded < then.output.recorded {
            Some("there is less output")
        } else if now.error_output.recorded < then.error_output.recorded {
            Some("there is less error output")
        } else {
            None
        }
    }

    fn check(&self) -> Result<(), ManifestFault> {
        let recording = self.recording;
        let found = self.segments.iter().fold(Hash::ZERO, |chain, segment| chain.extended_by(segment.sha256));
        if found != self.chain {
            return Err(ManifestFault::Chain { recording, expected: self.chain, found });
        }
        let mut last = None;
        for (number, segment) in self.segments.iter().enumerate() {
            if segment.end_us < segment.start_us || last.is_some_and(|last| segment.start_us <= last) {
                return Err(ManifestFault::Times { recording, number });
            }
            last = Some(segment.end_us);
        }
        let Counters { input, masked, output, error_output } = self.counters;
        let masked = Counter { seen: input.recorded, recorded: masked };
        for (stream, Counter { seen, recorded }) in
            [("input", input), ("output", output), ("standard error", error_output)]
        {
            if recorded > seen || (recorded < seen && self.gaps.is_empty()) {
                return Err(ManifestFault::Counters { recording, stream, seen, recorded });
            }
        }
        if masked.recorded > masked.seen {
            let Counter { seen, recorded } = masked;
            return Err(ManifestFault::Counters { recording, stream: "masked input", seen, recorded });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::entry::tests::{any_end, any_terms};
    use super::*;
    use crate::grant::Window;
    use crate::id::GrantId;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// A recording whose segments hash as these bytes do.
    pub(crate) fn seal(channel: u32, segments: &[Vec<u8>]) -> RecordingSeal {
        let mut seal = RecordingSeal {
            recording: RecordingId::from_uuid(Uuid::from_u128(u128::from(channel))),
            channel,
            program: Program::Exec { command: b"ls \xff".to_vec() },
            terminal: false,
            started_at: at(1_772_366_400),
            duration_us: 10_000_000,
            end: RecordingEnd { how: "closed".to_owned(), reason: None, exit: Some(Exit::Status(0)) },
            counters: Counters::default(),
            gaps: vec![],
            segments: vec![],
            chain: Hash::ZERO,
            encrypted_to: vec![],
        };
        for (number, bytes) in segments.iter().enumerate() {
            let (sha256, start_us) = (Hash::of(bytes), number as u64 * 10);
            let stored_bytes = bytes.len() as u64;
            seal.segments.push(SegmentSeal { sha256, stored_bytes, bytes: 0, start_us, end_us: start_us + 9 });
            seal.chain = seal.chain.extended_by(sha256);
        }
        seal
    }

    fn manifest(recordings: Vec<RecordingSeal>) -> Manifest {
        let grant = Grant {
            id: GrantId::from_uuid(Uuid::from_u128(3)),
            people: vec![PrincipalId::from_uuid(Uuid::from_u128(1))],
            terms: serde_json::from_str(
                r#"{"targets":["web-*"],"logins":["root"],"capabilities":{"shell":true},"source_networks":["10.0.0.0/8"]}"#,
            )
            .unwrap(),
            window: Window::new(at(1_772_366_400), at(1_772_373_600)).unwrap(),
            reason: "INC-7".to_owned(),
            ticket: None,
            template: None,
            created_by: None,
            created_at: at(1_772_366_000),
            revoked: None,
        };
        let target = TargetSeal {
            id: TargetId::from_uuid(Uuid::from_u128(2)),
            name: "web-1".parse().unwrap(),
            address: "10.0.0.9:22".to_owned(),
            host_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            jumps: vec![],
        };
        Manifest {
            session: SessionId::from_uuid(Uuid::from_u128(4)),
            software: "sallyport 0.1.0".to_owned(),
            node: "node-1".to_owned(),
            person: PersonSeal {
                id: PrincipalId::from_uuid(Uuid::from_u128(1)),
                name: "alice".parse().unwrap(),
                method: "publickey".to_owned(),
            },
            client: ClientSeal {
                address: "10.1.2.3:50022".parse().unwrap(),
                version: "SSH-2.0-OpenSSH_9.2".to_owned(),
            },
            target,
            login: "root".parse().unwrap(),
            grant,
            settings: BTreeMap::from([("recording.durability".to_owned(), "process".to_owned())]),
            opened_at: at(1_772_366_400),
            ended_at: at(1_772_366_410),
            end: SessionEnd::ClientClosed,
            recordings,
        }
    }

    fn sample() -> Manifest {
        let mut first = seal(1, &[b"a".to_vec(), b"b".to_vec()]);
        first.counters.output = Counter { seen: 700, recorded: 700 };
        let mut second = seal(2, &[]);
        second.program = Program::Shell;
        second.terminal = true;
        second.counters.input = Counter { seen: 9, recorded: 7 };
        second.counters.masked = 7;
        second.gaps.push(Gap { at_us: 5, reason: "the machine stopped".to_owned() });
        second.end = RecordingEnd {
            how: "crashed".to_owned(),
            reason: Some("recovered".to_owned()),
            exit: Some(Exit::Signal("KILL".to_owned())),
        };
        manifest(vec![first, second])
    }

    #[test]
    fn manifests_of_the_first_version_are_what_they_were() {
        let bytes = include_bytes!("fixtures/manifest-v1");
        assert_eq!(String::from_utf8(sample().encode().unwrap()).unwrap(), String::from_utf8_lossy(bytes));
        assert_eq!(Manifest::decode(bytes).unwrap(), sample());
        assert_eq!(sample().check(), Ok(()));
        assert_eq!(sample().segments(), 2);
    }

    proptest! {
        #[test]
        fn every_manifest_reads_back(terms in any_terms(), end in any_end(), counts: [u32; 4], micros in 0..9_000_000_i64) {
            let mut given = sample();
            given.grant.terms = terms;
            given.end = end;
            given.ended_at += TimeDelta::microseconds(micros);
            given.recordings[0].counters.input.seen = u64::from(counts[0]);
            given.recordings[0].duration_us = u64::from(counts[1]) << 20;
            prop_assert_eq!(Manifest::decode(&given.encode().unwrap()).unwrap(), given);
        }

        #[test]
        fn a_manifest_with_one_byte_changed_has_another_hash_or_is_refused(place: prop::sample::Index, byte: u8) {
            let bytes = sample().encode().unwrap();
            let mut changed = bytes.clone();
            let place = place.index(bytes.len());
            changed[place] = byte;
            if let Ok(read) = Manifest::decode(&changed) {
                prop_assert_eq!(read.encode().unwrap(), changed.clone());
                prop_assert_eq!(Hash::of(&changed) == Hash::of(&bytes), changed == bytes);
            }
        }
    }

    #[test]
    fn a_chain_that_is_not_that_of_the_segments_is_found() {
        let mut bad = sample();
        bad.recordings[0].segments.swap(0, 1);
        assert!(matches!(bad.check(), Err(ManifestFault::Chain { .. })));
        bad.recordings[0].segments.pop();
        assert!(matches!(bad.check(), Err(ManifestFault::Chain { .. })));
    }

    #[test]
    fn bytes_that_were_seen_and_not_recorded_are_found_unless_a_gap_tells_of_them() {
        let mut bad = sample();
        bad.recordings[0].counters.output.seen += 1;
        let error = bad.check().unwrap_err();
        let sentence = "of 701 bytes of output in recording r-00000000000000000000000001, 700 are recorded, and no gap \
                        explains it";
        assert_eq!(error.to_string(), sentence);
        bad.recordings[0].gaps.push(Gap { at_us: 0, reason: "a damaged record".to_owned() });
        assert_eq!(bad.check(), Ok(()));
        bad.recordings[0].counters.output.recorded += 2;
        assert!(bad.check().is_err(), "more was recorded than was seen");
        let mut bad = sample();
        bad.recordings[1].counters.masked = 8;
        assert!(bad.check().is_err(), "more was masked than was recorded");
    }

    #[test]
    fn a_manifest_supersedes_one_that_it_only_adds_to() {
        let earlier = sample(); // its second recording has a gap
        let mut later = earlier.clone();
        assert_eq!(later.check_amends(&earlier), Ok(()));
        later.recordings[1].gaps.clear();
        later.recordings[1].counters.input = Counter { seen: 12, recorded: 12 };
        later.recordings[1].segments = seal(2, &[b"c".to_vec()]).segments;
        later.ended_at += TimeDelta::seconds(3);
        assert_eq!(later.check_amends(&earlier), Ok(()));
        later.recordings[1].counters.input.recorded = 6;
        assert!(matches!(later.check_amends(&earlier), Err(ManifestFault::Amended { .. })), "less of it is there");
        let mut later = earlier.clone();
        later.recordings[0].segments.pop();
        assert!(later.check_amends(&earlier).is_err(), "what had no gap is as it was");
        later.recordings.remove(0);
        assert!(later.check_amends(&earlier).is_err());
        let mut later = earlier.clone();
        later.ended_at -= TimeDelta::seconds(1);
        assert_eq!(later.check_amends(&earlier), Err(ManifestFault::AmendedSession));
    }

    #[test]
    fn recordings_and_segments_have_an_order() {
        let mut bad = sample();
        bad.recordings.swap(0, 1);
        assert!(matches!(bad.check(), Err(ManifestFault::Order { .. })));
        let mut bad = sample();
        bad.recordings[1].recording = bad.recordings[0].recording;
        assert!(matches!(bad.check(), Err(ManifestFault::Order { .. })));
        let mut bad = sample();
        bad.recordings[0].segments[1].start_us = 9;
        assert!(matches!(bad.check(), Err(ManifestFault::Times { number: 1, .. })));
    }
}
