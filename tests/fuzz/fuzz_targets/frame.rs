//! Frames: whatever is read encodes to the bytes it was read from, one spelling per frame apart.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::recording::frame::Frame;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::copy_from_slice(data);
    while let Ok(Some(frame)) = Frame::take(&mut bytes) {
        let mut written = Vec::new();
        frame.encode(&mut written);
        assert_eq!(written.len(), frame.encoded_bytes());
        assert_eq!(Frame::take(&mut Bytes::from(written)), Ok(Some(frame)));
    }
});
