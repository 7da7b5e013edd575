//! Decompressed segments, and what the player is given of them.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::cast::player::Timeline;
use sallyport_domain::recording::segment::parse;

fuzz_target!(|data: &[u8]| {
    if let Ok((snapshot, frames)) = parse(Bytes::copy_from_slice(data)) {
        let last = frames.iter().map(|frame| frame.at).max().unwrap_or(0);
        assert!(Timeline::new([0], last).segment(0, &snapshot, &frames).is_some());
    }
});
