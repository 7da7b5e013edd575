//! Commands out of a recording with a terminal: whatever comes, they are numbered, bounded and plain, the state can be stored at
//! any time, and a line that was not echoed is none. Input as for the masker: a byte that says what comes and when (bit 0: typed
//! or shown; the rest: 1/32 s), a length, that many bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sallyport_domain::channel::{Program, TerminalSize};
use sallyport_domain::commands::tracker::Tracker;
use sallyport_domain::commands::{MOST_COMMANDS, MOST_TEXT};
use sallyport_domain::recording::frame::{Body, Frame};
use sallyport_domain::recording::mask::Masker;
use sallyport_domain::screen::Screen;

fuzz_target!(|data: &[u8]| {
    let mut tracker = Tracker::new(&Program::Shell, true);
    let Some(mut screen) = Screen::restore(TerminalSize { cols: 20, rows: 4 }, "") else { return };
    let (mut masker, mut at, mut seen) = (Masker::new(), 0, 0);
    let mut rest = data;
    while let [what, length, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        at += u64::from(what >> 1) * 31_250;
        let bytes = Bytes::copy_from_slice(bytes);
        let body = if what & 1 == 0 { Body::Input(bytes) } else { Body::Output(bytes) };
        let frame = Frame { at, body };
        if !tracker.see(&frame, Some(&mut screen)) {
            return; // the terminal could not stand it
        }
        let mut out = Vec::new();
        masker.push(frame, &mut out);
        if *length == 255 {
            masker.flush(&mut out);
        }
        out.iter().for_each(|frame| tracker.judge(&frame.body));
        tracker.settle(at);
        for command in tracker.take() {
            assert!(command.number < MOST_COMMANDS && command.number <= seen);
            seen = seen.max(command.number + 1);
            assert!(!command.text.is_empty() && command.text.len() <= MOST_TEXT);
            assert!(command.text.chars().all(|c| c == '\n' || !c.is_control()));
        }
        if *length == 255 {
            tracker.prepare_to_rest();
            let state = serde_json::to_string(&tracker).unwrap();
            tracker = serde_json::from_str(&state).unwrap();
        }
    }
    assert!(tracker.count() >= u64::from(seen));
});
