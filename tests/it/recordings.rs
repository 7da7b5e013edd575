//! What is in a recording is what happened: byte for byte, in every form in which it can be read, and nothing of a secret.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use sallyport_domain::cast::decode;
use sallyport_domain::event::Act;
use sallyport_domain::recording::frame::{Body, Frame};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::bastion::{Bastion, Person, error_output, input, output, stream};
use crate::support;

/// A bastion with alice, who may do everything on `web-1`, a target inside this process.
async fn alice_and_web_1(settings: &[(&str, &str)]) -> (Bastion, Person, sallyport::toy_target::ToyTarget) {
    let bastion = Bastion::with(settings).await;
    let alice = bastion.person("alice").await;
    let toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    (bastion, alice, toy)
}

/// Whatever the client was sent on standard output: the target's words, and the bastion's own.
fn shown(frames: &[Frame]) -> Vec<u8> {
    stream(frames, |body| match body {
        Body::Output(bytes) | Body::Notice(bytes) => Some(bytes),
        _ => None,
    })
}

/// A command that prints 28 KB in as many packets as lines, so that small segments can be cut between them.
const SLOWLY: &str = "for n in $(seq 40); do head -c 700 /dev/zero | tr '\\0' x; echo; sleep 0.01; done";

/// Bytes of every value in no order that repeats soon.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..=255).chain(std::iter::repeat_with(&mut next).take(count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_reads_and_prints_is_recorded_byte_for_byte() {
    let (bastion, alice, _toy) = alice_and_web_1(&[]).await;
    let sent = noise(3_000_000);

    let command = "tee sent; printf '\\000\\377two\\n' >&2; exit 7";
    let run = bastion.ssh(&alice, "web-1").arg(command).input(&sent).run().await;

    let frames = bastion.frames(bastion.only_recording().await).await;
    assert_eq!(run.code(), Some(7));
    assert!(run.stdout == sent && output(&frames) == sent, "what was printed differs");
    assert!(
        input(&frames) == sent && std::fs::read(bastion.folder().join("sent")).unwrap() == sent,
        "what was sent differs"
    );
    assert_eq!((run.stderr.as_slice(), error_output(&frames).as_slice()), (&b"\0\xfftwo\n"[..], &b"\0\xfftwo\n"[..]));
    assert!(frames.iter().any(|frame| frame.body == Body::ExitStatus(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_s_output_is_recorded_byte_for_byte() {
    let bastion = Bastion::start().await;
    let alice = bastion.person("alice").await;
    let server = bastion.sshd("web-1").await;
    bastion.grant(&alice, "web-1").await;
    let sent = noise(1_000_000);

    let run = bastion.ssh(&alice, "web-1").arg("cat; printf two >&2").input(&sent).run().await.expect_success();

    let frames = bastion.frames(bastion.only_recording().await).await;
    assert!(run.stdout == sent && output(&frames) == sent && input(&frames) == sent, "the recording differs");
    assert_eq!(error_output(&frames), b"two");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_terminal_shows_is_recorded_byte_for_byte_however_characters_are_cut() {
    let (bastion, alice, _toy) = alice_and_web_1(&[]).await;

    let command = "printf 'a\\347\\225'; sleep 0.3; printf '\\214b\\360\\237'; sleep 0.3; printf '\\246\\200\\377\\n'; printf err >&2";
    let run = bastion.ssh(&alice, "web-1").arg("-tt").arg(command).run().await;

    let frames = bastion.frames(bastion.only_recording().await).await;
    assert_eq!(output(&frames), b"a\xe7\x95\x8cb\xf0\x9f\xa6\x80\xff\r\nerr");
    assert_eq!(shown(&frames), run.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_ten_megabytes_is_recorded_with_and_without_a_terminal() {
    let (bastion, alice, _toy) = alice_and_web_1(&[]).await;
    let command = "head -c 10000000 /dev/zero | tr '\\0' x; echo";

    let plain = bastion.ssh(&alice, "web-1").arg(command).run().await.expect_success();
    let terminal = bastion.ssh(&alice, "web-1").arg("-tt").arg(command).run().await;

    let recordings = bastion.at_rest(2).await;
    let (in_terminal, in_pipe) = (bastion.frames(recordings[0]).await, bastion.frames(recordings[1]).await);
    assert_eq!((plain.stdout.len(), output(&in_terminal).len()), (10_000_001, 10_000_002));
    assert!(output(&in_pipe) == plain.stdout && shown(&in_terminal) == terminal.stdout, "the recordings differ");
}

/// Which files under `folder` hold `secret`; the journal counts only once recordings are at rest.
fn files_with(folder: &Path, secret: &str, with_journal: bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && (with_journal || !path.ends_with("journal")) {
            found.extend(files_with(&path, secret, with_journal));
        } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, secret)) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_terminal_did_not_echo_is_nowhere() {
    let (bastion, alice, _toy) = alice_and_web_1(&[("recording.ship_interval", "100ms")]).await;
    let (pasted, typed) = ("correct-horse-battery", "staple4711zebra");
    let mut terminal = bastion.ssh(&alice, "web-1").arg("-t").in_terminal(100, 30);

    terminal.type_keys("PS1='re''ady> '\n").await;
    terminal.wait_for("ready> ").await;
    for (number, secret) in [pasted, typed].into_iter().enumerate() {
        terminal.type_keys("read -s -p 'Pass''word: ' x; echo \"len=${#x}\"\n").await;
        terminal.wait_for("Password: ").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if number == 0 {
            terminal.type_keys(&format!("{secret}\n")).await;
        } else {
            for key in secret.chars() {
                terminal.type_keys(&key.to_string()).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            terminal.type_keys("\n").await;
        }
        terminal.wait_for(&format!("len={}", secret.len())).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let live = [pasted, typed].map(|secret| files_with(bastion.folder(), secret, false));
    terminal.type_keys("exit\n").await;
    terminal.finish().await;
    let recording = bastion.only_recording().await;

    let frames = bastion.frames(recording).await;
    let mut masked = 0;
    let mut encoded = Vec::new();
    for frame in &frames {
        if let Body::MaskedInput { bytes } = frame.body {
            masked += bytes as usize;
        }
        frame.encode(&mut encoded);
    }
    let mut forms = vec![
        bastion.get(&format!("/recordings/{recording}/frames")).await.bytes().await.unwrap().to_vec(),
        encoded,
        input(&frames),
    ];
    for format in ["cast", "cast2", "txt"] {
        let exported =
            bastion.sallyport(&["session", "export", &recording.to_string(), "--format", format]).output().await;
        forms.push(exported.unwrap().stdout);
    }
    let segment = bastion.get(&format!("/recordings/{recording}/seg/0")).await;
    forms.push(segment.bytes().await.unwrap().to_vec());
    support::eventually("the journal is given back", async || {
        std::fs::read_dir(bastion.folder().join("data/journal")).unwrap().next().is_none()
    })
    .await;
    for secret in [pasted, typed] {
        assert!(forms.iter().all(|form| form.len() > 40 && !holds(form, secret)), "`{secret}` is in a form");
        assert_eq!(files_with(bastion.folder(), secret, true), Vec::<String>::new());
    }
    assert_eq!(live, [const { Vec::<String>::new() }; 2]);
    assert!(masked >= pasted.len() + typed.len(), "{masked} bytes were masked");
    // What was echoed is there: the commands.
    assert!(holds(&input(&frames), "read -s -p"), "{:?}", String::from_utf8_lossy(&input(&frames)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_export_reads_back_as_what_was_recorded() {
    let (bastion, alice, _toy) = alice_and_web_1(&[("recording.segment_bytes", "4KiB")]).await;
    let sent = noise(200_000);
    bastion.ssh(&alice, "web-1").arg("cat; printf 'a\\347\\225' >&2; exit 3").input(&sent).run().await;
    let recording = bastion.only_recording().await;
    let frames = bastion.frames(recording).await;

    for format in ["cast", "cast2"] {
        let file = bastion.folder().join(format);
        let arguments = ["session", "export", &recording.to_string(), "--format", format, "-o", file.to_str().unwrap()];
        let exported = bastion.sallyport(&arguments).output().await.unwrap();
        assert!(exported.status.success(), "{exported:?}");
        let (header, read) = decode(&std::fs::read_to_string(&file).unwrap()).unwrap();

        assert_eq!(header.size, None);
        assert!(output(&read) == output(&frames) && input(&read) == sent, "{format}");
        assert_eq!(error_output(&read), b"a\xe7\x95", "{format}");
        let last = |frames: &[Frame]| (frames.last().unwrap().body.clone(), frames.last().unwrap().at);
        assert_eq!(last(&read), last(&frames), "{format}");
        assert!(read.iter().any(|frame| frame.body == Body::ExitStatus(3)), "{format}");
    }

    let acts = bastion.acts().await;
    let exports =
        acts.iter().filter(|act| matches!(act, Act::RecordingExported { recording: of, .. } if *of == recording));
    assert_eq!(exports.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_watches_sees_output_within_two_seconds_and_why_it_ended() {
    let (bastion, alice, _toy) = alice_and_web_1(&[]).await;
    let mut client = bastion.ssh(&alice, "web-1").arg("cat").spawn();
    let mut typing = client.stdin.take().unwrap();
    support::eventually("the recording has begun", async || !bastion.recordings().await.is_empty()).await;
    let session = bastion.sessions().await[0].session.id.to_string();
    let mut watch = bastion.sallyport(&["session", "watch", &session]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();

    for number in 0..4 {
        typing.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
        let typed = Instant::now();
        let line = tokio::time::timeout(support::PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(line, format!("line {number}"));
        // The first one waits for the program to start.
        assert!(number == 0 || typed.elapsed() < Duration::from_secs(2), "{:?}", typed.elapsed());
    }
    drop(typing);

    let mut told = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut told).await.unwrap();
    assert!(watch.wait().await.unwrap().success(), "{told}");
    assert!(told.contains("the program ended: status 0") && told.contains("the session ended: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_player_gets_an_index_and_segments_and_looking_is_an_event() {
    let (bastion, alice, _toy) = alice_and_web_1(&[("recording.segment_bytes", "4KiB")]).await;
    bastion.ssh(&alice, "web-1").arg("-tt").arg(SLOWLY).run().await;
    let recording = bastion.only_recording().await;

    let answer = bastion.get(&format!("/recordings/{recording}/index.json")).await;
    let kept = answer.headers()["cache-control"].to_str().unwrap().to_owned();
    let index: Value = answer.json().await.unwrap();
    let segments = index["segments"].as_array().unwrap();
    let mut text = String::new();
    for (number, entry) in segments.iter().enumerate() {
        let answer = bastion.get(&format!("/recordings/{recording}/{}", entry["url"].as_str().unwrap())).await;
        assert_eq!(answer.headers()["cache-control"], "private, max-age=31536000, immutable");
        let segment: Value = answer.json().await.unwrap();
        let events = segment["events"].as_array().unwrap();
        assert!(number == 0 || events[0][0] == entry["start"], "segment {number} starts late");
        assert_eq!(segment["snapshot"]["init"] == "", number == 0);
        for event in events.iter().filter(|event| event[1] == "o") {
            text.push_str(event[2].as_str().unwrap());
        }
        if number + 1 == segments.len() {
            assert_eq!(events.last().unwrap()[0], index["duration"]);
        }
    }
    let missing = bastion.get(&format!("/recordings/{recording}/seg/{}", segments.len())).await;

    assert!(segments.len() > 3, "{index}");
    assert_eq!(text.into_bytes(), shown(&bastion.frames(recording).await));
    assert_eq!((kept.as_str(), missing.status().as_u16()), ("no-store", 404));
    let acts = bastion.acts().await;
    assert_eq!(acts.iter().filter(|act| **act == Act::RecordingViewed { recording }).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_without_its_index_is_an_event_too() {
    let (bastion, alice, _toy) = alice_and_web_1(&[]).await;
    bastion.ssh(&alice, "web-1").arg("echo hello").run().await.expect_success();
    let recording = bastion.only_recording().await;

    for _ in 0..2 {
        bastion.get(&format!("/recordings/{recording}/seg/0")).await.bytes().await.unwrap();
    }

    let acts = bastion.acts().await;
    assert_eq!(acts.iter().filter(|act| **act == Act::RecordingViewed { recording }).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_altered_byte_is_found_and_its_place_is_named() {
    let (bastion, alice, _toy) = alice_and_web_1(&[("recording.segment_bytes", "4KiB")]).await;
    bastion.ssh(&alice, "web-1").arg("-tt").arg(SLOWLY).run().await;
    let recording = bastion.only_recording().await;
    let object = bastion.folder().join(format!("data/blobs/recordings/{recording}/00000002.sps.zst"));
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let id = recording.to_string();

    let export = bastion.sallyport(&["session", "export", &id, "--format", "txt"]).output().await.unwrap();
    let player = bastion.get(&format!("/recordings/{recording}/seg/2")).await;
    std::fs::remove_file(&object).unwrap();
    let gone = bastion.sallyport(&["session", "export", &id, "--format", "txt"]).output().await.unwrap();

    let told = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((export.status.code(), gone.status.code()), (Some(6), Some(6)), "{} {}", told(&export), told(&gone));
    assert!(told(&export).contains("segment 2 is not what was stored"), "{}", told(&export));
    assert!(told(&gone).contains("segment 2 is missing from the object store"), "{}", told(&gone));
    assert_eq!(player.status().as_u16(), 500);
}
