//! The SFTP gate: hostile bytes from both sides never panic; without rules every byte passes; under upload-only no content leaves.
//! Input: a byte for the rules, then: a byte that says who sends (bit 0), a length, that many bytes. A client's part that begins with
//! a packet type is framed, so that the fuzzer need not guess lengths: bit 1 of the first byte asks for that.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::files::gate::{Condition, FileGate, Piece};
use sallyport_domain::files::{FileRules, FileTerms};
use sallyport_domain::grant::Capabilities;
use sallyport_domain::sftp::{Gate, MOST_HEAD};

const PATHS: &str = r#"{"upload":{"paths":["/srv/**","~/in/*"],"total_bytes":100},"download":{"paths":["/srv/**"]}}"#;
const LIST: &str = r#"{"upload_sha256":["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}"#;

fn terms(which: u8) -> FileTerms {
    let (upload, download, rules) = match which % 5 {
        0 => (true, true, "{}"),
        1 => (true, false, "{}"),
        2 => (false, true, "{}"),
        3 => (true, true, PATHS),
        _ => (true, true, LIST),
    };
    let rules: FileRules = serde_json::from_str(rules).unwrap_or_default();
    FileTerms::new(&Capabilities { upload, download, ..Capabilities::default() }, rules)
}

fn has_oversized(mut stream: &[u8]) -> bool {
    while let Some((length, rest)) = stream.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        if length + 4 > MOST_HEAD && rest.first() != Some(&6) {
            return true;
        }
        stream = rest.get(length..).unwrap_or_default();
    }
    false
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let terms = terms(which);
    let strict = terms.is_strict();
    let upload_only = which % 5 == 1;
    let mut gate = FileGate::Sftp(Box::new(Gate::new(terms, Arc::default(), true)));
    let (mut sent, mut passed) = (Vec::new(), Vec::new());
    let mut later_init = false;
    while let [what, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let mut packet = Vec::new();
        if what & 2 != 0 {
            packet.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        }
        packet.extend_from_slice(bytes);
        if what & 1 == 0 {
            later_init |= bytes.first() == Some(&1) && bytes.len() >= 5 && bytes[1..5] != [0, 0, 0, 3];
            sent.extend_from_slice(&packet);
            gate.client_sent(Bytes::from(packet));
        } else {
            gate.target_sent(Bytes::from(packet));
        }
        while let Some(piece) = gate.next_for_target() {
            passed.extend_from_slice(piece.bytes());
        }
        while let Some(piece) = gate.next_for_client() {
            // Under upload-only no read passes, so no content can.
            let is_content = piece.bytes().get(4) == Some(&103) && what & 2 != 0;
            assert!(!upload_only || !is_content || matches!(piece, Piece::Injected(_)));
        }
        while gate.next_operation().is_some() {}
    }
    gate.client_ended();
    while let Some(piece) = gate.next_for_target() {
        passed.extend_from_slice(piece.bytes());
    }
    gate.target_ended();
    // A later version is replaced, and a request that is too long refused, in any case.
    if !strict && !later_init && !has_oversized(&sent) && *gate.condition() == Condition::Following {
        assert_eq!(passed, sent);
    }
});
