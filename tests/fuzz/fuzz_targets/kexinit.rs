//! A client's first bytes: told at the latest when the longest packet is there, and the same whatever follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::kexinit::{Opening, read};

fuzz_target!(|data: &[u8]| {
    let told = read(data);
    if told == Opening::Partial {
        assert!(data.len() < 35_259);
    } else {
        assert_eq!(told, read(&[data, b"more"].concat()));
    }
});
