//! Journal records: torn, altered or invented, they end in an error or in "not complete yet".
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::recording::journal::take_record;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::copy_from_slice(data);
    let mut left = bytes.len();
    while let Ok(Some((_, used))) = take_record(&mut bytes) {
        left -= used;
        assert_eq!(bytes.len(), left);
    }
});
