//! Break-glass envelopes: whatever is accepted is signed to the bytes it was read from, and can be judged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::break_glass::{ENVELOPE, Envelope, KEY_NAME, Kept};
use sallyport_domain::ledger::note::{Note, SignerKey};

fuzz_target!(|json: &[u8]| {
    let key = SignerKey::new(KEY_NAME.parse().unwrap(), &[1; 32]);
    assert!(Envelope::read(json, &[key.public()]).is_err(), "nobody forges a signature");
    let text = [ENVELOPE.prefix.as_bytes(), json, b"\n"].concat();
    let Ok(text) = String::from_utf8(text) else { return };
    let Ok(note) = Note::sign(&text, &[&key]) else { return };
    let file = note.to_string();
    if let Ok(envelope) = Envelope::read(file.as_bytes(), &[key.public()]) {
        assert_eq!(envelope.sign(&key).unwrap(), file);
        let kept = Kept { node: &envelope.node, void: &[], used: &[], latest: envelope.made_at };
        let _ = envelope.may_open(kept, envelope.made_at);
        let _ = envelope.accounts().count();
    }
});
