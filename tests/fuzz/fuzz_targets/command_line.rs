//! Command lines: what is recognised as a file transfer says the same when it is recognised again, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::files::gate::{Recognised, recognise};

fuzz_target!(|data: &[u8]| {
    let recognised = recognise(data);
    assert_eq!(recognised, recognise(data));
    if !matches!(recognised, Recognised::Other | Recognised::Unclear(_)) {
        // Nothing that a shell acts on outside of quotes.
        assert!(!data.contains(&b'\n') && !data.contains(&0));
    }
});
