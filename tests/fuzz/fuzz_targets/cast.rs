//! Casts: what is read can be written, and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::cast::{Encoder, Version, decode};

fuzz_target!(|data: &str| {
    let Ok((header, frames)) = decode(data) else { return };
    for version in [Version::V2, Version::V3] {
        let mut cast = Vec::new();
        let mut encoder = Encoder::new(version, &header, &mut cast);
        frames.iter().for_each(|frame| encoder.frame(frame, &mut cast));
        encoder.finish(&mut cast);
        assert!(decode(&String::from_utf8_lossy(&cast)).is_ok());
    }
});
