//! The masker: each byte typed is kept or counted, everything else passes in order, and memory stays bounded.
//! Input: a byte that says what comes and when (bit 0: typed or shown; the rest: 1/32 s), a length, that many bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::recording::mask::Masker;

fuzz_target!(|data: &[u8]| {
    let (mut masker, mut out, mut at) = (Masker::new(), Vec::new(), 0);
    let (mut typed, mut shown) = (0, Vec::new());
    let mut rest = data;
    while let [what, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        at += u64::from(what >> 1) * 31_250;
        let bytes = Bytes::copy_from_slice(bytes);
        let body = if what & 1 == 0 {
            typed += bytes.len();
            Body::Input(bytes)
        } else {
            Body::Output(bytes)
        };
        let frame = Frame { at, body };
        if what & 1 == 1 {
            shown.push(frame.clone());
        }
        masker.push(frame, &mut out);
    }
    masker.flush(&mut out);
    assert!(!masker.is_waiting());
    let mut kept = 0;
    out.retain(|frame| match &frame.body {
        Body::Input(bytes) => {
            kept += bytes.len();
            false
        }
        Body::MaskedInput { bytes } => {
            kept += *bytes as usize;
            false
        }
        _ => true,
    });
    assert_eq!(kept, typed);
    assert_eq!(out, shown);
});
