//! User names at the door: what is accepted reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::login_name::LoginName;

fuzz_target!(|data: &str| {
    if let Ok(name) = data.parse::<LoginName>() {
        assert_eq!(name.to_string().parse::<LoginName>(), Ok(name));
    }
});
