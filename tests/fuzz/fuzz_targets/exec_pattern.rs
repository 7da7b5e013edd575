//! Patterns of commands: what matches has no byte that a shell takes for more than itself but those that the pattern has too.
//! Input: a length, that many bytes of pattern, the command.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_domain::commands::rules::ExecPattern;

fuzz_target!(|data: &[u8]| {
    let [length, rest @ ..] = data else { return };
    let (pattern, command) = rest.split_at(usize::from(*length).min(rest.len()));
    let Some(pattern) = std::str::from_utf8(pattern).ok().and_then(|text| text.parse::<ExecPattern>().ok()) else {
        return;
    };
    if pattern.matches(command) {
        let special = |byte: &&u8| !byte.is_ascii_alphanumeric() && !b"_.,:@%+-/*?\\".contains(byte);
        let text = pattern.to_string();
        assert!(command.iter().filter(special).eq(text.as_bytes().iter().filter(special)));
        assert_eq!(text.parse::<ExecPattern>().as_ref(), Ok(&pattern));
    }
});
