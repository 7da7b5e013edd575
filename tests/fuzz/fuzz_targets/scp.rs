//! The scp gate: hostile bytes from both sides never panic, and without rules every byte passes.
//! Input: a byte for command and rules, then: a byte that says who sends (bit 0), a length, that many bytes.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::files::gate::{FileGate, Recognised, recognise};
use sallyport_domain::files::{FileRules, FileTerms};
use sallyport_domain::grant::Capabilities;
use sallyport_domain::scp::Gate;

const PATHS: &str = r#"{"upload":{"paths":["/srv/**"],"total_bytes":100},"download":{"paths":["/srv/**"]}}"#;

fuzz_target!(|data: &[u8]| {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let strict = which & 2 != 0;
    let rules: FileRules = serde_json::from_str(if strict { PATHS } else { "{}" }).unwrap_or_default();
    let terms = FileTerms::new(&Capabilities { upload: true, download: true, ..Capabilities::default() }, rules);
    let line: &[u8] = if which & 1 == 0 { b"scp -r -p -t /srv/x" } else { b"scp -r -p -f /srv/x" };
    let Recognised::Scp(command) = recognise(line) else { return };
    let Ok(gate) = Gate::new(command, terms, Arc::default(), true) else { return };
    let mut gate = FileGate::Scp(Box::new(gate));
    let (mut sent, mut passed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    while let [who, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        sent[usize::from(who & 1)].extend_from_slice(bytes);
        let bytes = Bytes::copy_from_slice(bytes);
        if who & 1 == 0 { gate.client_sent(bytes) } else { gate.target_sent(bytes) }
    }
    gate.client_ended();
    gate.target_ended();
    while let Some(piece) = gate.next_for_target() {
        passed[0].extend_from_slice(piece.bytes());
    }
    while let Some(piece) = gate.next_for_client() {
        passed[1].extend_from_slice(piece.bytes());
    }
    while gate.next_operation().is_some() {}
    if !strict {
        assert_eq!(passed, sent);
    }
});
