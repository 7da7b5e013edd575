//! Bundles, good and bad.

mod sample;

use sallyport_domain::ledger::bundle;

#[test]
fn an_untouched_bundle_is_sound() {
    for seed in 0..20 {
        let sample = sample::sample(seed);
        let verdict = bundle::verify(&sample.bytes(), sample.fingerprint());
        assert!(verdict.is_sound(), "{seed}: {verdict}");
        assert_eq!(verdict.proven.sessions.len(), 2);
        assert_eq!(verdict.proven.recordings.len(), 4);
    }
}
