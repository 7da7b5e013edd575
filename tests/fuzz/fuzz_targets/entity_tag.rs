//! Conditions on entity tags: a list that is accepted is short, and names each of its tags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::entity_tag::{Condition, MOST_TAGS};

fuzz_target!(|data: &[u8]| {
    let Ok(condition) = Condition::parse(data) else { return };
    if let Condition::These(tags) = &condition {
        assert!((1..=MOST_TAGS).contains(&tags.len()));
        assert!(tags.iter().all(|tag| condition.is_weakly(tag)));
        assert!(tags.iter().all(|tag| condition.is_strongly(tag) == tags.iter().any(|other| other.is_strongly(tag))));
    }
});
