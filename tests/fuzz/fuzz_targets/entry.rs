//! The ledger's entries and manifests: whatever is accepted encodes to the bytes it was read from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::ledger::entry::{self, ENTRY};
use sallyport_domain::ledger::manifest::{MANIFEST, Manifest};

fuzz_target!(|json: &[u8]| {
    let bytes = [ENTRY.prefix.as_bytes(), json].concat();
    if let Ok(event) = entry::decode(&bytes) {
        assert_eq!(entry::encode(&event).unwrap(), bytes);
        assert_eq!(entry::outline(&bytes).unwrap().id, event.id);
    }
    let _ = entry::outline(&bytes);
    let bytes = [MANIFEST.prefix.as_bytes(), json].concat();
    if let Ok(manifest) = Manifest::decode(&bytes) {
        assert_eq!(manifest.encode().unwrap(), bytes);
        let _ = manifest.check();
    }
});
