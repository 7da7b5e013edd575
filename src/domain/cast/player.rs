//! What the web player's segmented source loads: an index, and one document per segment.
//!
//! The player insists: the first start is 0; starts strictly increase and are below the duration; each segment has an
//! event; the first event of a later segment is exactly at its start; the last event of all is exactly at the duration.
//! [`Timeline`] gives starts and a duration for which that can hold, [`Timeline::segment`] makes it hold.

use serde::Serialize;

use super::event::{Event, Events, FRAME_CODE};
use crate::channel::TerminalSize;
use crate::recording::frame::{Body, Frame};
use crate::recording::segment::Snapshot;

/// When each segment starts and the recording ends, in microseconds, as the player wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    starts: Vec<u64>,
    duration: u64,
}

/// `index.json`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Index {
    version: u32,
    duration: f64,
    term: TerminalSize,
    segments: Vec<IndexEntry>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct IndexEntry {
    start: f64,
    url: String,
}

/// `seg/{n}`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    snapshot: Screen,
    events: Vec<(f64, char, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Screen {
    cols: u16,
    rows: u16,
    init: String,
}

impl Timeline {
    /// From the instant of each segment's first frame and the recording's last instant so far. A recording without a
    /// segment gets one, which is empty.
    pub fn new(firsts: impl IntoIterator<Item = u64>, end: u64) -> Self {
        let mut starts: Vec<u64> = Vec::new();
        for first in firsts {
            // Recordings are cut only where time strictly increases; what was not is nudged by a microsecond.
            starts.push(starts.last().map_or(0, |last| first.max(last + 1)));
        }
        if starts.is_empty() {
            starts.push(0);
        }
        let duration = end.max(starts.last().map_or(1, |last| last + 1));
        Self { starts, duration }
    }

    /// Microseconds.
    pub fn duration(&self) -> u64 {
        self.duration
    }

    /// The index; `size` is the terminal's at the start, `None` for a program without one.
    pub fn index(&self, size: Option<TerminalSize>) -> Index {
        let entry =
            |(number, start): (usize, &u64)| IndexEntry { start: seconds(*start), url: format!("seg/{number}") };
        Index {
            version: 1,
            duration: seconds(self.duration),
            term: drawable(size),
            segments: self.starts.iter().enumerate().map(entry).collect(),
        }
    }

    /// Segment `number`; `None` if there is none of this number. Of a character that the cut went through nothing is shown.
    pub fn segment(&self, number: usize, snapshot: &Snapshot, frames: &[Frame]) -> Option<Segment> {
        let start = *self.starts.get(number)?;
        let next = self.starts.get(number + 1).copied();
        // A later segment's start belongs to it alone.
        let last = next.map_or(self.duration, |next| next - 1);
        let mut events: Vec<(f64, char, String)> = Vec::new();
        let mut emit = |event: Event<'_>| match event.code {
            // The exit is told at the very end.
            FRAME_CODE | 'x' | 'm' => {}
            code => events.push((seconds(event.at.clamp(start, last)), code, event.data.into_owned())),
        };
        let mut making = Events::new(snapshot.size.is_some());
        let mut is_first = number > 0;
        for frame in frames {
            match &frame.body {
                Body::Output(bytes) if is_first => {
                    is_first = false;
                    let rest = bytes.iter().take(3).take_while(|byte| matches!(byte, 0x80..0xc0)).count();
                    making.frame(&Frame { at: frame.at, body: Body::Output(bytes.slice(rest..)) }, &mut emit);
                }
                _ => making.frame(frame, &mut emit),
            }
        }
        if next.is_none() {
            making.finish(&mut emit);
        }
        if number > 0 && events.first().is_none_or(|(at, ..)| *at > seconds(start)) {
            events.insert(0, (seconds(start), 'o', String::new()));
        }
        if next.is_none() {
            let status = frames.iter().rev().find_map(|frame| match frame.body {
                Body::ExitStatus(status) => Some(status.to_string()),
                _ => None,
            });
            events.push((seconds(self.duration), 'x', status.unwrap_or_default()));
        } else if events.is_empty() {
            events.push((seconds(start), 'o', String::new()));
        }
        let size = drawable(snapshot.size);
        let init = if number == 0 { String::new() } else { snapshot.init.clone() };
        Some(Segment { snapshot: Screen { cols: size.cols, rows: size.rows, init }, events })
    }
}

fn drawable(size: Option<TerminalSize>) -> TerminalSize {
    size.unwrap_or(TerminalSize { cols: 0, rows: 0 }).drawable()
}

/// Equal microseconds give equal numbers, and others others, for recordings up to a century long.
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::recording::frame::tests::any_frame;

    const SIZE: TerminalSize = TerminalSize { cols: 120, rows: 36 };

    fn snapshot(init: &str) -> Snapshot {
        Snapshot { size: Some(SIZE), init: init.to_owned() }
    }

    #[test]
    fn the_documents_look_as_the_player_wants_them() {
        let timeline = Timeline::new([0, 11_204_117], 12_000_000);
        let index = serde_json::to_string(&timeline.index(Some(SIZE))).unwrap();
        assert_eq!(
            index,
            "{\"version\":1,\"duration\":12.0,\"term\":{\"cols\":120,\"rows\":36},\"segments\":[{\"start\":0.0,\"url\":\"seg/0\"},{\"start\":11.204117,\"url\":\"seg/1\"}]}"
        );
        let frames = [
            Frame { at: 11_204_117, body: Body::Output(Bytes::from_static(b"\x8chi")) },
            Frame { at: 11_500_000, body: Body::Resize(TerminalSize { cols: 80, rows: 24 }) },
            Frame { at: 12_000_000, body: Body::ExitStatus(3) },
        ];
        let segment = timeline.segment(1, &snapshot("\x1b[H"), &frames).unwrap();
        assert_eq!(
            serde_json::to_string(&segment).unwrap(),
            "{\"snapshot\":{\"cols\":120,\"rows\":36,\"init\":\"\\u001b[H\"},\"events\":[[11.204117,\"o\",\"hi\"],[11.5,\"r\",\"80x24\"],[12.0,\"x\",\"3\"]]}"
        );
        assert_eq!(timeline.segment(2, &snapshot(""), &[]), None);
    }

    proptest! {
        #[test]
        fn the_player_gets_what_it_insists_on(
            segments in prop::collection::vec(prop::collection::vec(any_frame(), 0..4), 0..5), end in 0_u64..100,
        ) {
            let mut at = 0;
            let segments: Vec<Vec<Frame>> = segments.into_iter().map(|frames| frames.into_iter().map(|frame| {
                at += frame.at % 3;
                Frame { at, body: frame.body }
            }).collect()).collect();
            let firsts = segments.iter().map(|frames: &Vec<Frame>| frames.first().map_or(0, |frame| frame.at));
            let timeline = Timeline::new(firsts, at + end);
            let index = timeline.index(None);
            prop_assert_eq!(index.segments[0].start, 0.0);
            prop_assert!(index.segments.is_sorted_by(|a, b| a.start < b.start));
            prop_assert!(index.segments.last().unwrap().start < index.duration);
            let mut last = 0.0;
            for (number, entry) in index.segments.iter().enumerate() {
                let frames = segments.get(number).map(Vec::as_slice).unwrap_or_default();
                let segment = timeline.segment(number, &snapshot("x"), frames).unwrap();
                prop_assert_eq!(segment.snapshot.init.is_empty(), number == 0);
                prop_assert!(!segment.events.is_empty());
                if number > 0 {
                    prop_assert_eq!(segment.events[0].0, entry.start);
                }
                for (time, ..) in &segment.events {
                    prop_assert!(last <= *time);
                    last = *time;
                }
            }
            prop_assert_eq!(last, index.duration);
        }
    }
}
