//! The rsync gate: hostile bytes from both sides never panic, and without rules every byte passes.
//! Input: a byte for the command, then: a byte that says who sends (bit 0), a length, that many bytes.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::files::gate::{FileGate, Recognised, recognise};
use sallyport_domain::files::{FileRules, FileTerms};
use sallyport_domain::grant::Capabilities;
use sallyport_domain::rsync::Gate;

const LINES: [&[u8]; 4] = [
    b"rsync --server -logDtpre.iLsfxCIvu . dst/",
    b"rsync --server --sender -logDtpre.iLsfxCIvu . src",
    b"rsync --server -rcUNe.LsfxCIvu --delete --numeric-ids . dst",
    b"rsync --server --sender -logDtprce.Lsf . src/",
];

fuzz_target!(|data: &[u8]| {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let terms = FileTerms::new(
        &Capabilities { upload: true, download: true, ..Capabilities::default() },
        FileRules::default(),
    );
    let Recognised::Rsync(command) = recognise(LINES[usize::from(which) % LINES.len()]) else { return };
    let Ok(gate) = Gate::new(command, terms, Arc::default()) else { return };
    let mut gate = FileGate::Rsync(Box::new(gate));
    let (mut sent, mut passed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    while let [who, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        sent[usize::from(who & 1)].extend_from_slice(bytes);
        let bytes = Bytes::copy_from_slice(bytes);
        if who & 1 == 0 { gate.client_sent(bytes) } else { gate.target_sent(bytes) }
    }
    gate.target_ended();
    while let Some(piece) = gate.next_for_target() {
        passed[0].extend_from_slice(piece.bytes());
    }
    while let Some(piece) = gate.next_for_client() {
        passed[1].extend_from_slice(piece.bytes());
    }
    while gate.next_operation().is_some() {}
    assert_eq!(passed, sent);
});
