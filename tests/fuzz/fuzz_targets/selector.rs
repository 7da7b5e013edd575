//! Target selectors: what is accepted reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::grant::TargetSelector;

fuzz_target!(|data: &str| {
    if let Ok(selector) = data.parse::<TargetSelector>() {
        assert_eq!(selector.to_string().parse::<TargetSelector>(), Ok(selector));
    }
});
