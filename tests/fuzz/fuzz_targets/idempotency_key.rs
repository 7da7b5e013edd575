//! Idempotency keys: what is accepted reads back as it is sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::idempotency::{IdempotencyKey, MOST_CHARACTERS};

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = IdempotencyKey::parse(data) {
        assert!((1..=MOST_CHARACTERS).contains(&key.as_str().len()));
        assert_eq!(IdempotencyKey::parse(key.to_string().as_bytes()), Ok(key));
    }
});
