//! Bundles out of thin air: a grant with two sessions, in a ledger with other events around, all from a seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sallyport_domain::cast::{Encoder, Version};
use sallyport_domain::channel::{Program, TerminalSize};
use sallyport_domain::event::{Act, Actor, Event, SessionEnd};
use sallyport_domain::files::{Digest, FileAct, FileOperation, FilePath, FileResult, Moved};
use sallyport_domain::grant::{Grant, Window};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{DeletionId, EventId, GrantId, PrincipalId, RecordingId, SessionId, TargetId};
use sallyport_domain::ledger::bundle::{self, Contents, ListedEvent, ListedFile, Proof, archive, recording};
use sallyport_domain::ledger::checkpoint::Checkpoint;
use sallyport_domain::ledger::entry;
use sallyport_domain::ledger::key_change::KeyChange;
use sallyport_domain::ledger::manifest::{
    ClientSeal, Counter, Counters, Exit, Gap, Manifest, PersonSeal, RecordingEnd, RecordingSeal, SegmentSeal,
    TargetSeal,
};
use sallyport_domain::ledger::note::SignerKey;
use sallyport_domain::ledger::tile::{Edge, Plan, Tiles};
use sallyport_domain::ledger::verify::Tally;
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::recording::segment::{self, Snapshot};
use uuid::Uuid;

pub(crate) type Files = BTreeMap<archive::FileName, Vec<u8>>;

/// A bundle, and what it takes to make another like it.
pub(crate) struct Sample {
    pub(crate) files: Files,
    pub(crate) key: SignerKey,
    pub(crate) recordings: Vec<RecordingId>,
    pub(crate) sessions: Vec<SessionId>,
    /// Every entry of the ledger, and which of them are in the bundle.
    entries: Vec<Vec<u8>>,
    chosen: Vec<u64>,
    grant: GrantId,
    /// The first session was sealed twice.
    pub(crate) was_completed: bool,
}

pub(crate) fn signer(secret: u8) -> SignerKey {
    SignerKey::new("bastion.example.com/ledger".parse().unwrap(), &[secret; 32])
}

impl Sample {
    /// What an auditor was given: that of the ledger's first key.
    pub(crate) fn fingerprint(&self) -> Hash {
        signer(7).public().fingerprint()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        archive::write(&self.files).unwrap()
    }

    pub(crate) fn put(&mut self, name: &str, content: Vec<u8>) {
        self.files.insert(name.parse().unwrap(), content);
    }

    pub(crate) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        self.files.get_mut(&name.parse::<archive::FileName>().unwrap()).unwrap()
    }

    /// What a bastion that lies could do: makes list, event, checkpoint and proofs anew, over what is in the files now.
    pub(crate) fn sign_again(&mut self) {
        self.entries.pop();
        self.chosen.pop();
        self.seal();
    }

    /// Makes everything anew without the first event of this act.
    pub(crate) fn leave_out(&mut self, act: &str) {
        let wanted = format!("{{\"act\":{{\"act\":\"{act}\"");
        let json = |number: u64| &self.entries[number as usize][entry::ENTRY.prefix.len()..];
        let first = self.chosen.iter().position(|&number| json(number).starts_with(wanted.as_bytes())).unwrap();
        self.chosen.remove(first);
        self.sign_again();
    }

    /// Takes out what was recorded in the first session, as a deletion does, and tells of it: who asked, who said yes. Nobody's number
    /// is 0; that is the bastion, by a rule.
    pub(crate) fn delete(&mut self, [asked, approved]: [u128; 2], manifest: Option<Hash>) {
        let session = self.sessions[0];
        for &recording in &self.recordings[..2] {
            for name in
                [bundle::segments_name(recording), bundle::cast_name(recording), bundle::transcript_name(recording)]
            {
                self.files.remove(&name.parse::<archive::FileName>().unwrap());
            }
        }
        let found = Hash::of(self.file(&bundle::manifest_name(session)));
        let hand = |number: u128| match number {
            0 => Actor::Bastion,
            _ => {
                Actor::Principal { id: PrincipalId::from_uuid(Uuid::from_u128(number)), name: "rita".parse().unwrap() }
            }
        };
        let rule = (asked == 0).then(|| "default: 365 days".to_owned());
        let (deletion, reason) = (DeletionId::from_uuid(Uuid::from_u128(5)), "a password on the screen".to_owned());
        let ask = Act::DeletionAsked { deletion, session, rule: rule.clone(), reason: reason.clone() };
        let manifest = manifest.unwrap_or(found);
        let asked_by = hand(asked);
        let stone = Act::RecordingsDeleted { deletion, session, manifest, asked_by, rule, reason };
        for (number, actor, act) in [(51, hand(asked), ask), (52, hand(approved), stone)] {
            let event = Event { id: EventId::from_uuid(Uuid::from_u128(number)), at: at(8000), actor, act };
            self.tell(&entry::encode(&event).unwrap()[entry::ENTRY.prefix.len()..]);
        }
    }

    /// Makes everything anew with one more event.
    pub(crate) fn tell(&mut self, json: &[u8]) {
        self.entries.pop();
        self.chosen.pop();
        self.chosen.push(self.entries.len() as u64);
        self.entries.push([entry::ENTRY.prefix.as_bytes(), json].concat());
        self.seal();
    }

    /// Makes the list of contents, the event that binds it, the checkpoint and the proofs.
    fn seal(&mut self) {
        let listed = self.files.iter().filter(|(name, _)| !bundle::UNLISTED.contains(&name.as_str()));
        let contents = Contents {
            grant: self.grant,
            session: None,
            made_at: at(9000),
            software: "sallyport 0.1.0".to_owned(),
            events: self
                .chosen
                .iter()
                .map(|&number| ListedEvent { number, leaf: entry::hash(&self.entries[number as usize]) })
                .collect(),
            files: listed
                .map(|(name, content)| ListedFile {
                    name: name.to_string(),
                    bytes: content.len() as u64,
                    sha256: Hash::of(content),
                })
                .collect(),
        };
        let contents = contents.encode().unwrap();
        let act = Act::EvidenceMade { grant: self.grant, session: None, contents: Hash::of(&contents) };
        let event = Event { id: EventId::from_uuid(Uuid::from_u128(77)), at: at(9000), actor: Actor::Bastion, act };
        self.chosen.push(self.entries.len() as u64);
        self.entries.push(entry::encode(&event).unwrap());
        self.put(bundle::LIST, contents);
        let key = format!("{}\n", self.key.public());
        self.put(bundle::KEY, key.into_bytes());
        let (mut edge, mut tiles) = (Edge::new(), Tiles::new());
        for (id, mut hashes) in edge.append(self.entries.iter().map(|entry| entry::hash(entry))) {
            tiles.entry(id).or_default().append(&mut hashes);
        }
        let head = edge.head();
        let note = Checkpoint::new(self.key.public().name(), head).sign(&[&self.key]).unwrap();
        self.put(bundle::CHECKPOINT, note.to_string().into_bytes());
        let (mut events, mut proofs) = (Vec::new(), Vec::new());
        for &number in &self.chosen {
            let entry = &self.entries[number as usize];
            events.extend_from_slice(&entry[entry::ENTRY.prefix.len()..]);
            events.push(b'\n');
            let path = Plan::inclusion(number, head.size).unwrap().hashes(&tiles).unwrap();
            proofs.extend_from_slice(&bundle::line(&Proof { number, path }).unwrap());
        }
        self.put(bundle::EVENTS, events);
        self.put(bundle::PROOFS, proofs);
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400, 0).unwrap() + TimeDelta::seconds(seconds)
}

/// Numbers that look like chance, from a seed (xorshift64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound.max(1)
    }
}

/// What the events of a sample are gathered in.
struct Story {
    entries: Vec<Vec<u8>>,
    chosen: Vec<u64>,
    dice: Dice,
}

impl Story {
    /// Something that has nothing to do with the bundle.
    fn noise(&mut self) {
        const NOISE: &str = include_str!("../../domain/ledger/fixtures/events-v1.jsonl");
        let lines: Vec<&str> = NOISE.lines().collect();
        for _ in 0..self.dice.below(60) {
            let line = lines[self.dice.below(lines.len())];
            self.entries.push(format!("{}{line}", entry::ENTRY.prefix).into_bytes());
        }
    }

    fn tell(&mut self, act: Act) {
        self.noise();
        let number = self.entries.len();
        let id = EventId::from_uuid(Uuid::from_u128(1000 + number as u128));
        let event = Event { id, at: at(number as i64), actor: Actor::Operator { uid: 0 }, act };
        self.chosen.push(number as u64);
        self.entries.push(entry::encode(&event).unwrap());
    }
}

/// The old keys' words for the new ones: 7 was followed by 8, and 8 by 9.
pub(crate) fn key_changes() -> Vec<u8> {
    let change = |from: u8, last_size| {
        let (old, new) = (signer(from), signer(from + 1));
        KeyChange { from: old.public(), to: new.public(), last_size }.sign(&old).unwrap().to_string()
    };
    [change(7, 3), change(8, 5)].concat().into_bytes()
}

/// A bundle; where the seed is odd, of a ledger whose key was changed twice. Of every third one the first session was completed after it
/// had been sealed: its node had been lost.
pub(crate) fn sample(seed: u64) -> Sample {
    let mut story = Story { entries: vec![], chosen: vec![], dice: Dice::new(seed) };
    let grant = grant();
    story.tell(Act::GrantMade {
        grant: grant.id,
        people: grant.people.clone(),
        terms: grant.terms.clone(),
        window: Window::new(grant.window.not_before(), at(3600)).unwrap(),
        reason: grant.reason.clone(),
    });
    story.tell(Act::GrantExtended { grant: grant.id, not_after: grant.window.not_after(), reason: "more".to_owned() });
    let mut files = Files::new();
    let mut put = |name: &str, content: Vec<u8>| drop(files.insert(name.parse().unwrap(), content));
    let (mut recordings, mut sessions, mut file_lines) = (vec![], vec![], vec![]);
    for number in 0..2_u128 {
        let session = SessionId::from_uuid(Uuid::from_u128(0x5e55 + number));
        sessions.push(session);
        story.tell(Act::SessionOpened {
            session,
            grant: grant.id,
            target: TargetId::from_uuid(Uuid::from_u128(2)),
            login: "root".parse().unwrap(),
            address: "10.1.2.3:50022".parse().unwrap(),
        });
        let mut manifest = manifest(session, &grant);
        let (was_lost, mut ends) = (number == 0 && was_completed(seed), vec![]);
        for channel in 1..=2 {
            let recording = RecordingId::from_uuid(Uuid::from_u128(0x4ec0 + 16 * number + channel));
            recordings.push(recording);
            let program = match channel {
                1 => Program::Shell,
                _ => Program::Exec { command: b"cat \xff</script>".to_vec() },
            };
            story.tell(Act::RecordingStarted { session, recording, program: program.kind().to_owned() });
            let operations = operations(&mut story.dice);
            let frames = frames(channel == 1, &operations, &mut story.dice);
            let (seal, stored) = seal(recording, channel as u32, program, &frames, &mut story.dice);
            for operation in operations {
                story.tell(Act::FileOperation { session, recording, operation });
            }
            let (segments, gaps) = (seal.segments.len() as u32, seal.gaps.len() as u32);
            let chain = seal.chain.to_string();
            let end = Act::RecordingEnded { session, recording, segments, chain, gaps };
            if was_lost {
                let chain = Hash::ZERO.to_string();
                story.tell(Act::RecordingEnded { session, recording, segments: 0, chain, gaps: 1 });
                ends.push(end);
            } else {
                story.tell(end);
            }
            put(&bundle::segments_name(recording), stored);
            put(&bundle::cast_name(recording), cast(&manifest, &seal, &frames));
            put(&bundle::transcript_name(recording), b"what was seen\n".to_vec());
            manifest.recordings.push(seal);
        }
        story.tell(Act::SessionEnded { session, end: manifest.end.clone() });
        let bytes = manifest.encode().unwrap();
        let (segments, recordings) = (manifest.segments(), manifest.recordings.len() as u32);
        let earlier = was_lost.then(|| Hash::of(b"the manifest of what had been shipped"));
        if let Some(manifest) = earlier {
            story.tell(Act::SessionSealed { session, manifest, recordings, segments: 0, supersedes: None });
        }
        ends.into_iter().for_each(|end| story.tell(end));
        let sealed =
            Act::SessionSealed { session, manifest: Hash::of(&bytes), recordings, segments, supersedes: earlier };
        story.tell(sealed);
        put(&bundle::manifest_name(session), bytes);
    }
    story.noise();
    for &number in &story.chosen {
        let json = &story.entries[number as usize][entry::ENTRY.prefix.len()..];
        let event = sallyport_domain::ledger::canonical::check(bundle::PLAIN, json).unwrap();
        file_lines.extend(bundle::file_line(&event).map(Result::unwrap).unwrap_or_default());
    }
    put(bundle::FILES, file_lines);
    put(bundle::GRANT, bundle::line(&grant).unwrap());
    put(bundle::INDEX, b"<!doctype html>".to_vec());
    put(bundle::REVIEWS, vec![]);
    if seed % 2 == 1 {
        put(bundle::KEY_CHANGES, key_changes());
    }
    let Story { entries, chosen, .. } = story;
    let key = if seed.is_multiple_of(2) { signer(7) } else { signer(9) };
    let was_completed = was_completed(seed);
    let mut sample = Sample { files, key, recordings, sessions, entries, chosen, grant: grant.id, was_completed };
    sample.seal();
    sample
}

fn was_completed(seed: u64) -> bool {
    seed % 3 == 1
}

fn grant() -> Grant {
    Grant {
        id: GrantId::from_uuid(Uuid::from_u128(3)),
        people: vec![PrincipalId::from_uuid(Uuid::from_u128(1))],
        terms: sallyport_terms(),
        window: Window::new(at(0), at(7200)).unwrap(),
        reason: "INC-7: Umzug nach Köln 😀".to_owned(),
        ticket: None,
        created_by: None,
        created_at: at(-60),
        revoked: None,
    }
}

fn sallyport_terms() -> sallyport_domain::grant::Terms {
    serde_json::from_str(r#"{"targets":["web-*"],"logins":["root"],"capabilities":{"shell":true,"exec":true}}"#)
        .unwrap()
}

fn manifest(session: SessionId, grant: &Grant) -> Manifest {
    Manifest {
        session,
        software: "sallyport 0.1.0".to_owned(),
        node: "node-1".to_owned(),
        person: PersonSeal {
            id: PrincipalId::from_uuid(Uuid::from_u128(1)),
            name: "alice".parse().unwrap(),
            method: "publickey".to_owned(),
        },
        client: ClientSeal { address: "10.1.2.3:50022".parse().unwrap(), version: "SSH-2.0-OpenSSH_9.2".to_owned() },
        target: TargetSeal {
            id: TargetId::from_uuid(Uuid::from_u128(2)),
            name: "web-1".parse().unwrap(),
            address: "10.0.0.9:22".to_owned(),
            host_keys: vec!["ssh-ed25519 AAAA".to_owned()],
            jumps: vec![],
        },
        login: "root".parse().unwrap(),
        grant: grant.clone(),
        settings: BTreeMap::from([("recording.durability".to_owned(), "process".to_owned())]),
        opened_at: at(10),
        ended_at: at(100),
        end: SessionEnd::ClientClosed,
        recordings: vec![],
    }
}

fn operations(dice: &mut Dice) -> Vec<FileOperation> {
    let path = |dice: &mut Dice| FilePath(format!("/srv/{}\n\u{1b}", dice.below(99)).into_bytes());
    let transfer = |dice: &mut Dice| FileAct::Transfer {
        path: path(dice),
        upload: Some(Moved { bytes: 7, digest: Digest::Sha256(Hash::of(b"content")), partial: false }),
        download: None,
    };
    let mut all = Vec::new();
    for _ in 0..dice.below(3) {
        all.push(FileOperation { act: transfer(dice), result: FileResult::Done });
    }
    all.push(FileOperation { act: FileAct::Remove { path: path(dice) }, result: FileResult::Failed { code: 4 } });
    all
}

/// Some of everything, cut where packets are cut: anywhere.
fn frames(terminal: bool, operations: &[FileOperation], dice: &mut Dice) -> Vec<Frame> {
    const TEXT: &[u8] = "h\u{e9}llo 界 \"\\\t\u{1b}[1m</script><img onerror=alert(1)>\r\n\u{7f}\u{2028}😀".as_bytes();
    let mut bodies = vec![Body::Resize(TerminalSize { cols: 0, rows: 2000 })];
    for number in 0..20 + dice.below(30) {
        let from = dice.below(TEXT.len());
        let packet = Bytes::copy_from_slice(&TEXT[from..from + dice.below(TEXT.len() - from)]);
        bodies.push(match number % 8 {
            0 => Body::Input(packet),
            1 => Body::MaskedInput { bytes: 3 },
            2 => Body::ErrorOutput(packet),
            3 => Body::Notice(packet),
            4 => Body::Output(Bytes::from_static(b"\xff\xfe\xc3(\xf0\x9f\x98")),
            _ => Body::Output(packet),
        });
    }
    bodies.extend(operations.iter().map(|operation| Body::File(serde_json::to_string(operation).unwrap())));
    bodies.extend([
        Body::File(r#"{"to_target":"00ff"}"#.to_owned()),
        Body::Gap("the machine stopped".to_owned()),
        Body::InputEnd,
        Body::OutputEnd,
        Body::Signal("INT".to_owned()),
        Body::Break { milliseconds: 500 },
        Body::ExitSignal { name: "KILL".to_owned(), core_dumped: true, message: "out of\u{1} memory".to_owned() },
        Body::ExitStatus(137),
        Body::End("{\"how\":\"closed\"}".to_owned()),
    ]);
    if !terminal {
        bodies.remove(0);
    }
    let mut now = 0;
    let mut next = |body| {
        now += 1 + dice.below(3_000_000) as u64;
        Frame { at: now, body }
    };
    bodies.into_iter().map(&mut next).collect()
}

fn seal(
    recording: RecordingId,
    channel: u32,
    program: Program,
    frames: &[Frame],
    dice: &mut Dice,
) -> (RecordingSeal, Vec<u8>) {
    let terminal = program == Program::Shell;
    let size = terminal.then_some(TerminalSize { cols: 90, rows: 30 });
    let (mut segments, mut stored, mut chain, mut rest) = (vec![], vec![], Hash::ZERO, frames);
    while !rest.is_empty() {
        let (run, after) = rest.split_at((4 + dice.below(12)).min(rest.len()));
        rest = after;
        let mut bytes = segment::begin(&Snapshot { size, init: "\u{1b}[H".to_owned() });
        run.iter().for_each(|frame| frame.encode(&mut bytes));
        let compressed = compress_to_vec(&bytes[..], CompressionLevel::Fastest);
        let sha256 = Hash::of(&compressed);
        chain = chain.extended_by(sha256);
        segments.push(SegmentSeal {
            sha256,
            stored_bytes: compressed.len() as u64,
            bytes: bytes.len() as u64,
            start_us: run[0].at,
            end_us: run[run.len() - 1].at,
        });
        stored.extend_from_slice(&compressed);
    }
    let mut tally = Tally::default();
    frames.iter().for_each(|frame| tally.add(frame));
    let all = |count| Counter { seen: count, recorded: count };
    let seal = RecordingSeal {
        recording,
        channel,
        program,
        terminal,
        started_at: at(11),
        duration_us: frames.last().map_or(0, |frame| frame.at),
        end: RecordingEnd { how: "closed".to_owned(), reason: None, exit: Some(Exit::Status(0)) },
        counters: Counters {
            input: all(tally.input),
            masked: tally.masked,
            output: all(tally.output),
            error_output: all(tally.error_output),
        },
        gaps: vec![Gap { at_us: 1, reason: "the machine stopped".to_owned() }],
        segments,
        chain,
    };
    (seal, stored)
}

fn cast(manifest: &Manifest, seal: &RecordingSeal, frames: &[Frame]) -> Vec<u8> {
    let first = Snapshot { size: Some(TerminalSize { cols: 90, rows: 30 }), init: String::new() };
    let mut cast = Vec::new();
    let mut encoder = Encoder::new(Version::V3, &recording::header(manifest, seal, Some(&first)), &mut cast);
    frames.iter().for_each(|frame| encoder.frame(frame, &mut cast));
    encoder.finish(&mut cast);
    cast
}
