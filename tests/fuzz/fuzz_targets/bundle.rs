//! Bundles from anywhere: a verdict, no panic, and no memory beyond what is in the file. Names and contents that were read make the very
//! archive that was given, or `check` says where it differs.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::bundle::{self, KEY, archive};
use sallyport_domain::ledger::note::VerifierKey;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = archive::Archive::parse(bytes) else {
        assert!(!bundle::verify(bytes, Hash::ZERO).is_sound());
        return;
    };
    let files: BTreeMap<_, _> = read.files().iter().map(|file| (file.name.clone(), file.content.to_vec())).collect();
    let made = archive::write(&files).ok();
    assert_eq!(made.as_deref() == Some(bytes), read.check().is_ok());
    // Whoever's key it brings: past the fingerprint there is more to get wrong.
    let key = read.get(KEY).and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.trim_end().parse().ok());
    let fingerprint = key.map_or(Hash::ZERO, |key: VerifierKey| key.fingerprint());
    let verdict = bundle::verify(bytes, fingerprint);
    assert!(!verdict.is_sound() || read.check().is_ok());
    let _ = verdict.to_string();
});
