//! Signed notes, checkpoints and keys: whatever is read is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::ledger::checkpoint::Checkpoint;
use sallyport_domain::ledger::key_change::KeyChain;
use sallyport_domain::ledger::note::{Note, VerifierKey};

fuzz_target!(|data: &[u8]| {
    if let Ok(chain) = KeyChain::parse(data) {
        assert!(chain.end().is_some());
    }
    if let Ok(note) = Note::parse(data) {
        assert_eq!(note.to_string().as_bytes(), data);
        if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
            assert_eq!(checkpoint.text(), note.text());
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = text.parse::<VerifierKey>()
    {
        assert_eq!(key.to_string(), text);
    }
});
