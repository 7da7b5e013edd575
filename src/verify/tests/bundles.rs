//! Bundles, good and bad: what the verifier finds, that a verifier in another language finds the same, and the program itself.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::bundle::{self, Verdict, archive};

use sample::{Dice, Sample, sample, signer};

/// A way to change a bundle, and in which file it must be found.
type Tampering = (&'static str, fn(&mut Sample, &mut Dice) -> String);

/// Changes to files, which then are put into an archive that is sound in itself.
const TAMPERINGS: &[Tampering] = &[
    ("nothing", |_, _| "sound".to_owned()),
    ("what two people deleted", |sample, _| {
        sample.delete([1, 2], None);
        "sound".to_owned()
    }),
    ("what a rule deleted, with a yes and without", |sample, dice| {
        sample.delete([0, dice.below(2) as u128], None);
        "sound".to_owned()
    }),
    ("what one person deleted", |sample, _| {
        sample.delete([2, 2], None);
        bundle::segments_name(sample.recordings[0])
    }),
    ("what the bastion alone deleted, for a person", |sample, _| {
        sample.delete([2, 0], None);
        bundle::segments_name(sample.recordings[0])
    }),
    ("what was deleted by the word of another manifest", |sample, _| {
        sample.delete([1, 2], Some(Hash::of(b"another")));
        bundle::segments_name(sample.recordings[0])
    }),
    ("a tombstone without anybody who asked", |sample, _| {
        sample.delete([1, 2], None);
        sample.leave_out("deletion_asked");
        bundle::segments_name(sample.recordings[0])
    }),
    ("a cast of what was deleted", |sample, _| {
        sample.delete([1, 2], None);
        sample.put(&bundle::cast_name(sample.recordings[0]), b"{}".to_vec());
        sample.sign_again();
        bundle::segments_name(sample.recordings[0])
    }),
    ("the first of two seals", |sample, _| {
        if !sample.was_completed {
            return "sound".to_owned();
        }
        sample.leave_out("session_sealed");
        bundle::EVENTS.to_owned()
    }),
    ("a byte of an event", |sample, dice| {
        let at = place(sample.file(bundle::EVENTS), dice, |byte| byte.is_ascii_lowercase());
        sample.file(bundle::EVENTS)[at] ^= 1;
        bundle::EVENTS.to_owned()
    }),
    ("a byte of a segment", |sample, dice| {
        let name = bundle::segments_name(sample.recordings[dice.below(4)]);
        flip(sample.file(&name), dice);
        name
    }),
    ("a byte of a cast", |sample, dice| {
        let name = bundle::cast_name(sample.recordings[dice.below(4)]);
        flip(sample.file(&name), dice);
        name
    }),
    ("a byte of a transcript", |sample, dice| {
        let name = bundle::transcript_name(sample.recordings[dice.below(4)]);
        flip(sample.file(&name), dice);
        name
    }),
    ("a byte of a proof", |sample, dice| {
        // A digit of a hash for another.
        let at = place(sample.file(bundle::PROOFS), dice, |byte| matches!(byte, b'a'..=b'e'));
        let byte = &mut sample.file(bundle::PROOFS)[at];
        if byte.is_ascii_lowercase() {
            *byte = if *byte == b'a' { b'f' } else { b'a' };
        }
        bundle::PROOFS.to_owned()
    }),
    ("a byte of the checkpoint", |sample, dice| {
        flip(sample.file(bundle::CHECKPOINT), dice);
        bundle::CHECKPOINT.to_owned()
    }),
    ("a byte of the key", |sample, dice| {
        flip(sample.file(bundle::KEY), dice);
        bundle::KEY.to_owned()
    }),
    ("a byte of the list of contents", |sample, dice| {
        flip(sample.file(bundle::LIST), dice);
        bundle::LIST.to_owned()
    }),
    ("a byte of the page", |sample, dice| {
        flip(sample.file(bundle::INDEX), dice);
        bundle::INDEX.to_owned()
    }),
    ("a byte of the grant", |sample, dice| {
        flip(sample.file(bundle::GRANT), dice);
        bundle::GRANT.to_owned()
    }),
    ("a byte of the list of files", |sample, dice| {
        flip(sample.file(bundle::FILES), dice);
        bundle::FILES.to_owned()
    }),
    ("a byte of a manifest", |sample, dice| {
        let name = bundle::manifest_name(sample.sessions[dice.below(2)]);
        flip(sample.file(&name), dice);
        name
    }),
    ("an event removed", |sample, dice| {
        let mut lines = lines(sample);
        lines.remove(dice.below(lines.len()));
        put_lines(sample, lines);
        bundle::EVENTS.to_owned()
    }),
    ("an event without its proof removed", |sample, dice| {
        let mut lines = lines(sample);
        let proofs = lines.iter().map(|(_, proof)| proof.clone()).collect::<Vec<_>>().concat();
        lines.remove(dice.below(lines.len()));
        put_lines(sample, lines);
        sample.put(bundle::PROOFS, proofs);
        bundle::EVENTS.to_owned()
    }),
    ("two events swapped", |sample, dice| {
        let mut lines = lines(sample);
        let at = dice.below(lines.len() - 1);
        lines.swap(at, at + 1);
        put_lines(sample, lines);
        bundle::PROOFS.to_owned()
    }),
    ("an event twice", |sample, dice| {
        let mut lines = lines(sample);
        let at = dice.below(lines.len());
        lines.insert(at, lines[at].clone());
        put_lines(sample, lines);
        bundle::PROOFS.to_owned()
    }),
    ("an event made up", |sample, dice| {
        let mut lines = lines(sample);
        let at = dice.below(lines.len() - 1);
        let text = String::from_utf8(lines[at].0.clone()).unwrap().replace("2026-03-01", "2026-03-02");
        lines[at].0 = text.into_bytes();
        put_lines(sample, lines);
        bundle::EVENTS.to_owned()
    }),
    ("the last line feed taken away", |sample, _| {
        sample.file(bundle::EVENTS).pop();
        bundle::EVENTS.to_owned()
    }),
    ("two segments swapped", |sample, dice| {
        let name = bundle::segments_name(sample.recordings[dice.below(4)]);
        let file = sample.file(&name);
        let half = file.len() / 2;
        file.rotate_left(half);
        name
    }),
    ("the end of the segments cut off", |sample, dice| {
        let name = bundle::segments_name(sample.recordings[dice.below(4)]);
        let file = sample.file(&name);
        let length = dice.below(file.len());
        file.truncate(length);
        name
    }),
    ("a file left out", |sample, dice| {
        let names: Vec<_> = sample.files.keys().cloned().collect();
        let name = names[dice.below(names.len())].clone();
        sample.files.remove(&name);
        // Without its chain the key is a stranger.
        if name.as_str() == bundle::KEY_CHANGES { bundle::KEY.to_owned() } else { name.to_string() }
    }),
    ("a byte of the key changes", |sample, dice| {
        sample.put(bundle::KEY_CHANGES, sample::key_changes());
        flip(sample.file(bundle::KEY_CHANGES), dice);
        bundle::KEY_CHANGES.to_owned()
    }),
    ("key changes that lead to another key", |sample, _| {
        sample.put(bundle::KEY_CHANGES, sample::key_changes());
        sample.key = signer(7);
        sample.sign_again();
        bundle::KEY_CHANGES.to_owned()
    }),
    ("the first key change left out", |sample, _| {
        let changes = sample::key_changes();
        sample.key = signer(9);
        sample.put(bundle::KEY_CHANGES, changes[changes.len() / 2..].to_vec());
        sample.sign_again();
        bundle::KEY.to_owned()
    }),
    ("a file put in", |sample, _| {
        sample.put("recordings/r-none/recording.cast", b"{}".to_vec());
        "recordings/r-none/recording.cast".to_owned()
    }),
    ("another key", |sample, _| {
        sample.key = signer(8);
        sample.sign_again();
        bundle::KEY.to_owned()
    }),
    ("a bastion that lies about a cast", |sample, dice| {
        let name = bundle::cast_name(sample.recordings[dice.below(4)]);
        let file = sample.file(&name);
        let at = file.iter().rposition(|&byte| byte == b'0').unwrap();
        file[at] = b'7';
        sample.sign_again();
        name
    }),
    ("a bastion that lies about a grant", |sample, _| {
        let text = String::from_utf8(sample.file(bundle::GRANT).clone()).unwrap().replace("INC-7", "INC-8");
        sample.put(bundle::GRANT, text.into_bytes());
        sample.sign_again();
        bundle::GRANT.to_owned()
    }),
    ("a bastion that leaves a file operation out", |sample, _| {
        sample.leave_out("file_operation");
        bundle::EVENTS.to_owned()
    }),
    ("a bastion that leaves the end of a recording out", |sample, _| {
        // Of the two recordings of a session that was completed, those come first that say too little.
        (0..if sample.was_completed { 3 } else { 1 }).for_each(|_| sample.leave_out("recording_ended"));
        bundle::EVENTS.to_owned()
    }),
];

fn flip(bytes: &mut [u8], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    bytes[at] ^= 1 + dice.below(255) as u8;
}

/// A place of a byte that `fits`.
fn place(bytes: &[u8], dice: &mut Dice, fits: fn(u8) -> bool) -> usize {
    let from = dice.below(bytes.len() * 3 / 4);
    from + bytes[from..].iter().position(|&byte| fits(byte)).unwrap()
}

fn lines(sample: &mut Sample) -> Vec<(Vec<u8>, Vec<u8>)> {
    let split = |bytes: &[u8]| bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let events = split(sample.file(bundle::EVENTS));
    events.into_iter().zip(split(sample.file(bundle::PROOFS))).collect()
}

fn put_lines(sample: &mut Sample, lines: Vec<(Vec<u8>, Vec<u8>)>) {
    let (events, proofs): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    sample.put(bundle::EVENTS, events.concat());
    sample.put(bundle::PROOFS, proofs.concat());
}

/// The place of the first fault, as the verifier in Python prints it.
fn told(verdict: &Verdict) -> String {
    verdict.faults.first().map_or_else(|| "sound".to_owned(), |fault| fault.place.clone())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn an_untouched_bundle_is_sound() {
    for seed in 0..40 {
        let sample = sample(seed);
        let verdict = bundle::verify(&sample.bytes(), sample.fingerprint());
        assert!(verdict.is_sound(), "{seed}: {verdict}");
        assert_eq!((verdict.proven.sessions.len(), verdict.proven.recordings.len()), (2, 4));
        assert_eq!(sample.bytes(), sample::sample(seed).bytes(), "the same bytes each time");
    }
}

#[test]
fn each_kind_of_tampering_is_found_and_its_place_named_and_another_verifier_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let fingerprint = sample(0).fingerprint();
    let (mut paths, mut found, mut kinds) = (vec![], vec![], vec![]);
    for seed in 0..5 {
        for (number, (kind, tamper)) in TAMPERINGS.iter().enumerate() {
            let mut dice = Dice::new(1000 * seed + number as u64);
            let mut sample = sample(seed);
            let expected = tamper(&mut sample, &mut dice);
            let bytes = sample.bytes();
            let verdict = bundle::verify(&bytes, fingerprint);
            let place = told(&verdict);
            assert_eq!(place.split(':').next(), Some(expected.as_str()), "{seed}, {kind}: {verdict}");
            let path = folder.path().join(format!("{seed}-{number}.zip"));
            std::fs::write(&path, bytes).unwrap();
            paths.push(path);
            found.push(place);
            kinds.push(*kind);
        }
    }
    // And the archive itself: cut short, something put on, a byte that is nobody's content.
    let whole = sample(9).bytes();
    for number in 0..12 {
        let mut dice = Dice::new(number);
        let mut bytes = whole.clone();
        match number % 3 {
            0 => bytes.truncate(dice.below(whole.len())),
            1 => bytes.extend_from_slice(b"PK"),
            _ => bytes[4 + dice.below(20)] ^= 1,
        }
        let place = told(&bundle::verify(&bytes, fingerprint));
        assert_eq!(place, "archive", "{number}");
        let path = folder.path().join(format!("archive-{number}.zip"));
        std::fs::write(&path, bytes).unwrap();
        paths.push(path);
        found.push(place);
        kinds.push("the archive");
    }
    assert!(paths.len() >= 100, "{}", paths.len());

    let python = root().join("target/test-venv/bin/python");
    let script = root().join("tests/verify_bundle.py");
    let run = Command::new(&python).arg(script).arg(fingerprint.to_string()).args(&paths).output();
    let run = run.unwrap_or_else(|error| panic!("{}: {error}; `make deps` makes it", python.display()));

    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let said: Vec<&str> = said.lines().collect();
    for (((path, kind), ours), theirs) in paths.iter().zip(&kinds).zip(&found).zip(&said) {
        assert_eq!(ours, theirs, "{}: {kind}", path.display());
    }
    assert_eq!(said.len(), paths.len());
}

#[test]
fn what_is_not_wrong_stays_proved() {
    let mut sample = sample(3);
    let name = bundle::segments_name(sample.recordings[0]);
    sample.file(&name)[40] ^= 1;

    let verdict = bundle::verify(&sample.bytes(), sample.fingerprint());

    assert_eq!(verdict.faults.len(), 1, "{verdict}");
    assert!(verdict.to_string().contains("segment 0 of recording"), "{verdict}");
    assert_eq!(verdict.proven.recordings.len(), 3);
    assert_eq!(verdict.proven.sessions, [sample.sessions[1].to_string()]);
}

#[test]
fn a_key_that_was_not_asked_for_proves_nothing() {
    let sample = sample(1);
    let verdict = bundle::verify(&sample.bytes(), Hash::ZERO);
    assert_eq!(told(&verdict), "key");
    assert_eq!(verdict.proven.events, 0);
}

#[test]
fn whoever_was_given_any_key_of_the_chain_can_verify_what_a_later_one_signed() {
    let sample = sample(1);
    for secret in [7, 8, 9] {
        let verdict = bundle::verify(&sample.bytes(), signer(secret).public().fingerprint());
        assert!(verdict.is_sound(), "{secret}: {verdict}");
    }
    let verdict = bundle::verify(&sample.bytes(), signer(10).public().fingerprint());
    assert_eq!(told(&verdict), "key");
}

#[test]
fn who_deleted_what_is_told() {
    let mut sample = sample(4);
    sample.delete([1, 2], None);

    let verdict = bundle::verify(&sample.bytes(), sample.fingerprint());

    assert_eq!(verdict.proven.deleted[0].session, sample.sessions[0].to_string());
    assert!(verdict.to_string().contains("approved by rita: a password on the screen"), "{verdict}");
    assert_eq!((verdict.proven.sessions.len(), verdict.proven.recordings.len()), (2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn any_byte_that_is_changed_is_found(seed in 0..4_u64, at: prop::sample::Index, flip in 1_u8..) {
        let sample = sample(seed);
        let mut bytes = sample.bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let verdict = bundle::verify(&bytes, sample.fingerprint());
        prop_assert!(!verdict.is_sound(), "byte {}", at);
    }

    #[test]
    fn hostile_files_give_an_answer_and_no_panic(
        number in 0..24_usize, bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, again: bool,
    ) {
        let mut sample = sample(0);
        let names: Vec<archive::FileName> = sample.files.keys().cloned().collect();
        let name = names[number % names.len()].as_str().to_owned();
        let file = sample.file(&name);
        let at = at.index(file.len() + 1);
        file.splice(at.., bytes);
        if again {
            sample.sign_again();
        }
        let _ = bundle::verify(&sample.bytes(), sample.fingerprint());
    }
}

#[test]
fn the_program_says_what_it_found_and_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.zip"), folder.path().join("bad.zip"));
    let mut sample = sample(2);
    std::fs::write(&good, sample.bytes()).unwrap();
    sample.file(bundle::INDEX).push(b' ');
    std::fs::write(&bad, sample.bytes()).unwrap();
    let key = sample.fingerprint().to_string();
    let run = |arguments: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_sallyport-verify")).args(arguments).output().unwrap();
        (run.status.code().unwrap(), String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap())
    };
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());

    let (code, said, _) = run(&[good, "--key", &key.to_uppercase()]);
    assert!(code == 0 && said.contains("is sound"), "{code}: {said}");
    let (code, said, _) = run(&["--json", "--key", &key, bad]);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["sound"], &told["faults"][0]["place"]), (6, &false.into(), &bundle::INDEX.into()));
    for arguments in [&[][..], &[good], &[good, "--key", "abc"], &["/nowhere", "--key", &key], &[good, "--what"]] {
        let (code, said, error) = run(arguments);
        assert!(code == 2 && said.is_empty() && error.starts_with("error: "), "{arguments:?}: {error}");
    }
}

#[test]
fn an_act_of_a_newer_bastion_is_no_fault() {
    let mut sample = sample(5);
    sample.tell(&br#"{"act":{"act":"moon_landed"},"actor":{"kind":"bastion"},"at":"2026-03-01T12:00:00Z","id":"e-01k9zq3b7m5e8v2x4c6n0t1y00"}"#[..]);
    let verdict = bundle::verify(&sample.bytes(), sample.fingerprint());
    assert!(verdict.is_sound(), "{verdict}");
}

#[test]
fn a_bundle_that_another_program_made_is_sound_and_stays_so() {
    let bytes = include_bytes!("../../../tests/fuzz/corpus/bundle/grant");
    let verdict = bundle::verify(bytes, signer(7).public().fingerprint());
    assert!(verdict.is_sound() && verdict.proven.events == 2, "{verdict}");
}
