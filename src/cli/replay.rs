//! What a replay in the terminal decides: where in the recording it is, what is shown next and when, what a key does.
//! Pure: the clock is passed in, the screen is one in memory. [`super::play`] draws it.
//!
//! Recordings come as a stream and may be long, so the part that was read is kept up to [`MOST_TAPE`] bytes, with the
//! screen's state every [`KEYFRAME_BYTES`] or [`KEYFRAME_US`]: going back redraws from the nearest of these.

use std::collections::VecDeque;
use std::time::Duration;

use sallyport_domain::channel::TerminalSize;
use sallyport_domain::recording::frame::{Body, Frame};

use crate::app::transcript::{SavedScreen, Screen};

/// How much of a recording is kept for going back, in bytes.
pub const MOST_TAPE: usize = 256 << 20;
/// The screen's state is kept this often.
const KEYFRAME_BYTES: usize = 512 << 10;
const KEYFRAME_US: u64 = 30_000_000;
/// Longer than this without a change is idle.
pub const IDLE_US: u64 = 2_000_000;
/// How much is read ahead of what is shown, in bytes.
const READ_AHEAD: usize = 4 << 20;
/// How fast a recording can be played.
pub const SPEEDS: [f64; 6] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// What a person asks of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Pause,
    /// Microseconds, forwards or backwards.
    Seek(i64),
    ToStart,
    Faster,
    Slower,
    SkipIdle,
    /// One change of the screen further, then pause.
    Step,
}

/// The part of a recording that is kept.
#[derive(Default)]
struct Tape {
    steps: VecDeque<Frame>,
    /// How many steps were dropped from the front.
    dropped: usize,
    bytes: usize,
    /// Of these, not shown yet.
    ahead: usize,
    keyframes: VecDeque<Keyframe>,
    /// The recording's last instant so far, and whether it is over.
    end: u64,
    ended: bool,
}

/// The screen before step `index`.
struct Keyframe {
    index: usize,
    at: u64,
    screen: SavedScreen,
}

/// A replay of a recording with a terminal.
pub struct Replay {
    tape: Tape,
    screen: Screen,
    /// The next step to be shown, the ones dropped counted.
    next: usize,
    /// Where in the recording we are, in microseconds.
    position: u64,
    /// What the clock said when we were there; `None` while paused.
    since: Option<Duration>,
    speed: f64,
    skip_idle: bool,
    /// A jump that goes on as the recording is read.
    target: Option<u64>,
    /// Bytes shown since the last keyframe.
    shown: usize,
    /// Grows whenever the screen may look different.
    changes: u64,
}

impl Replay {
    /// Starts to play at once; `now` is any clock that does not run backwards.
    pub fn new(size: TerminalSize, speed: f64, skip_idle: bool, now: Duration) -> Self {
        let mut replay = Self {
            tape: Tape::default(),
            screen: Screen::new(size),
            next: 0,
            position: 0,
            since: Some(now),
            speed: speed.clamp(0.1, 100.0),
            skip_idle,
            target: None,
            shown: 0,
            changes: 0,
        };
        replay.keep_keyframe();
        replay
    }

    /// Takes the next frame of the recording.
    pub fn read(&mut self, frame: Frame) {
        self.tape.end = self.tape.end.max(frame.at);
        let shows = matches!(frame.body, Body::Output(_) | Body::ErrorOutput(_) | Body::Notice(_) | Body::Resize(_));
        if !shows {
            return;
        }
        // Input is told late, output never is: what is shown is in order.
        self.tape.bytes += frame.encoded_bytes();
        self.tape.ahead += frame.encoded_bytes();
        self.tape.steps.push_back(frame);
        self.forget();
    }

    /// The recording has no more frames.
    pub fn end(&mut self) {
        self.tape.ended = true;
    }

    /// Whether more of the recording should be read now.
    pub fn wants_more(&self) -> bool {
        !self.tape.ended && self.tape.ahead < READ_AHEAD
    }

    /// Shows what is due at `now`.
    pub fn advance(&mut self, now: Duration) {
        if let Some(target) = self.target {
            self.show_up_to(target);
            if self.tape.ended || self.tape.end >= target {
                self.target = None;
                self.position = target.min(self.tape.end.max(self.position));
            } else {
                self.position = self.position.max(self.tape.end);
            }
            self.rest(now);
            return;
        }
        if self.since.is_none() {
            return;
        }
        let mut position = self.position_at(now);
        if self.skip_idle
            && let Some(next) = self.next_at()
            && next > self.position.max(position) + IDLE_US
        {
            position = next;
        }
        // What was not read yet cannot have passed.
        if self.next_at().is_none() {
            position = position.min(self.tape.end.max(self.position));
        }
        self.show_up_to(position);
        self.position = position;
        self.rest(now);
        if self.is_over() {
            self.since = None;
        }
    }

    /// How long until [`Replay::advance`] has something to do; `None` if only a command or more of the recording
    /// brings that about.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        if self.target.is_some() || self.since.is_none() {
            return None;
        }
        let next = match self.next_at() {
            Some(next) => next,
            None if self.tape.ended => self.tape.end,
            None => return None,
        };
        let position = self.position_at(now);
        if self.skip_idle && next > position + IDLE_US {
            return Some(Duration::ZERO);
        }
        Some(Duration::from_micros(next.saturating_sub(position)).div_f64(self.speed))
    }

    /// Does what a person asks.
    pub fn command(&mut self, command: Command, now: Duration) {
        self.advance(now);
        match command {
            Command::Pause if self.since.is_some() => self.since = None,
            Command::Pause if self.is_over() => {
                self.seek(0);
                self.since = Some(now);
            }
            Command::Pause => self.since = Some(now),
            Command::Seek(by) => self.seek(self.position.saturating_add_signed(by)),
            Command::ToStart => self.seek(0),
            Command::Faster => self.speed = SPEEDS.into_iter().find(|speed| *speed > self.speed).unwrap_or(self.speed),
            Command::Slower => {
                self.speed = SPEEDS.into_iter().rev().find(|speed| *speed < self.speed).unwrap_or(self.speed);
            }
            Command::SkipIdle => self.skip_idle = !self.skip_idle,
            Command::Step => {
                self.since = None;
                if let Some(next) = self.next_at() {
                    self.position = self.position.max(next);
                    self.show_next();
                }
            }
        }
        self.rest(now);
        self.changes += 1;
    }

    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Grows whenever the screen may look different.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Where the replay is at `now`, in microseconds.
    pub fn position_at(&self, now: Duration) -> u64 {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since)).mul_f64(self.speed);
        let position = self.position + u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        if self.tape.ended { position.min(self.tape.end.max(self.position)) } else { position }
    }

    /// The recording's last instant as far as it was read, in microseconds, and whether it is the very last.
    pub fn end_so_far(&self) -> (u64, bool) {
        (self.tape.end, self.tape.ended)
    }

    /// The oldest instant that can be gone back to, in microseconds.
    pub fn kept_from(&self) -> u64 {
        self.tape.keyframes.front().map_or(0, |keyframe| keyframe.at)
    }

    pub fn is_paused(&self) -> bool {
        self.since.is_none()
    }

    pub fn is_seeking(&self) -> bool {
        self.target.is_some()
    }

    /// Whether everything was shown.
    pub fn is_over(&self) -> bool {
        self.tape.ended && self.next_at().is_none() && self.position >= self.tape.end
    }

    pub fn speed(&self) -> f64 {
        self.speed
    }

    pub fn skips_idle(&self) -> bool {
        self.skip_idle
    }

    /// From here on the clock counts from `now`.
    fn rest(&mut self, now: Duration) {
        self.since = self.since.map(|_| now);
    }

    fn seek(&mut self, to: u64) {
        let to = to.max(self.kept_from());
        if to < self.position {
            let place = self.tape.keyframes.iter().rposition(|keyframe| keyframe.at <= to).unwrap_or(0);
            if let Some(keyframe) = self.tape.keyframes.get(place) {
                self.screen = Screen::restore(&keyframe.screen);
                self.next = keyframe.index;
                self.position = keyframe.at;
                self.shown = 0;
                let rest = self.tape.steps.iter().skip(self.next - self.tape.dropped);
                self.tape.ahead = rest.map(Frame::encoded_bytes).sum();
            }
        }
        self.show_up_to(to);
        self.changes += 1;
        if self.tape.ended || self.tape.end >= to {
            self.target = None;
            self.position = to.min(self.tape.end.max(self.position));
        } else {
            self.target = Some(to);
            self.position = self.position.max(self.tape.end);
        }
    }

    fn next_at(&self) -> Option<u64> {
        self.tape.steps.get(self.next - self.tape.dropped).map(|frame| frame.at)
    }

    fn show_up_to(&mut self, position: u64) {
        while self.next_at().is_some_and(|at| at <= position) {
            self.show_next();
        }
    }

    fn show_next(&mut self) {
        let Some(frame) = self.tape.steps.get(self.next - self.tape.dropped) else {
            return;
        };
        self.shown += frame.encoded_bytes();
        self.tape.ahead -= frame.encoded_bytes();
        let at = frame.at;
        if !self.screen.show(&frame.body) {
            // The terminal in memory could not stand it: what follows is drawn on a new one.
            self.screen = Screen::new(self.screen.size());
        }
        self.next += 1;
        self.changes += 1;
        let last = self.tape.keyframes.back().map(|keyframe| (keyframe.index, keyframe.at));
        if last.is_some_and(|(index, last)| {
            self.next > index && (self.shown >= KEYFRAME_BYTES || at >= last + KEYFRAME_US)
        }) {
            self.position = self.position.max(at);
            self.keep_keyframe();
        }
    }

    fn keep_keyframe(&mut self) {
        self.shown = 0;
        self.tape.keyframes.push_back(Keyframe { index: self.next, at: self.position, screen: self.screen.save() });
    }

    /// Keeps within [`MOST_TAPE`] by dropping the oldest run between two keyframes, unless it is yet to be shown.
    fn forget(&mut self) {
        while self.tape.bytes > MOST_TAPE
            && let Some(second) = self.tape.keyframes.get(1).map(|keyframe| keyframe.index)
            && second <= self.next
        {
            self.tape.keyframes.pop_front();
            for frame in self.tape.steps.drain(..second - self.tape.dropped) {
                self.tape.bytes -= frame.encoded_bytes();
            }
            self.tape.dropped = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const SIZE: TerminalSize = TerminalSize { cols: 20, rows: 3 };
    const S: u64 = 1_000_000;

    fn shown(replay: &Replay) -> String {
        replay.screen().terminal.screen().text().join("|").trim_end_matches('|').to_owned()
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// One letter at each of these seconds.
    fn replay(skip_idle: bool, letters: &[(u64, &str)]) -> Replay {
        let mut replay = Replay::new(SIZE, 1.0, skip_idle, Duration::ZERO);
        for (second, text) in letters {
            replay.read(Frame { at: second * S, body: Body::Output(Bytes::copy_from_slice(text.as_bytes())) });
        }
        replay.end();
        replay
    }

    #[test]
    fn it_plays_in_time_and_stops_at_the_end() {
        let mut replay = replay(false, &[(0, "a"), (1, "b"), (5, "c")]);
        replay.advance(at(0.5));
        assert_eq!(shown(&replay), "a");
        assert_eq!(replay.wait(at(0.5)), Some(at(0.5)));
        replay.advance(at(1.0));
        assert_eq!(shown(&replay), "ab");
        replay.advance(at(9.0));
        assert_eq!((shown(&replay), replay.is_over(), replay.wait(at(9.0))), ("abc".to_owned(), true, None));
        replay.command(Command::Pause, at(10.0));
        assert_eq!((shown(&replay), replay.position_at(at(10.0))), ("a".to_owned(), 0));
    }

    #[test]
    fn speed_counts_from_where_it_changed() {
        let mut replay = replay(false, &[(0, "a"), (10, "b")]);
        replay.advance(at(2.0));
        replay.command(Command::Faster, at(2.0));
        assert_eq!(replay.wait(at(2.0)), Some(at(4.0)));
        replay.command(Command::Slower, at(4.0));
        replay.command(Command::Slower, at(4.0));
        assert_eq!((replay.speed(), replay.position_at(at(4.0))), (0.5, 6 * S));
        assert_eq!(replay.wait(at(4.0)), Some(at(8.0)));
    }

    #[test]
    fn a_pause_takes_no_time_and_a_step_shows_one_change() {
        let mut replay = replay(false, &[(0, "a"), (3, "b"), (6, "c")]);
        replay.command(Command::Pause, at(1.0));
        assert_eq!((replay.wait(at(50.0)), replay.position_at(at(50.0))), (None, S));
        replay.command(Command::Step, at(60.0));
        assert_eq!((shown(&replay), replay.position_at(at(60.0))), ("ab".to_owned(), 3 * S));
        replay.command(Command::Pause, at(70.0));
        assert_eq!(replay.wait(at(70.0)), Some(at(3.0)));
    }

    #[test]
    fn idle_time_is_skipped_but_positions_stay_true() {
        let mut replay = replay(true, &[(0, "a"), (1, "b"), (100, "c")]);
        replay.advance(at(0.1));
        assert_eq!((shown(&replay), replay.wait(at(0.1))), ("a".to_owned(), Some(at(0.9))));
        replay.advance(at(1.0));
        assert_eq!(replay.wait(at(1.0)), Some(Duration::ZERO));
        replay.advance(at(1.0));
        assert_eq!((shown(&replay), replay.position_at(at(1.0))), ("abc".to_owned(), 100 * S));
    }

    #[test]
    fn a_jump_beyond_what_was_read_goes_on_as_it_is_read() {
        let mut replay = Replay::new(SIZE, 1.0, false, Duration::ZERO);
        replay.command(Command::Seek(60 * S as i64), at(0.0));
        assert!(replay.is_seeking() && replay.wants_more());
        for second in [1, 59, 61] {
            replay.read(Frame { at: second * S, body: Body::Output(Bytes::from_static(b"x")) });
            replay.advance(at(0.1));
        }
        assert_eq!(
            (shown(&replay), replay.is_seeking(), replay.position_at(at(0.1))),
            ("xx".to_owned(), false, 60 * S)
        );
    }

    proptest! {
        #[test]
        fn wherever_one_goes_the_screen_is_what_playing_from_the_start_shows(
            packets in prop::collection::vec((0_u64..40 * S, "[a-z\\r\\n]{0,6}|\\x1b\\[[0-3]?[JKHABm]"), 1..60),
            jumps in prop::collection::vec(-90_i64..90, 1..12),
        ) {
            let mut time = 0;
            let frames: Vec<Frame> = packets.iter().map(|(gap, text)| {
                time += gap;
                Frame { at: time, body: Body::Output(Bytes::copy_from_slice(text.as_bytes())) }
            }).collect();
            let mut replay = Replay::new(SIZE, 1.0, false, Duration::ZERO);
            replay.command(Command::Pause, Duration::ZERO);
            frames.iter().for_each(|frame| replay.read(frame.clone()));
            replay.end();
            for jump in jumps {
                replay.command(Command::Seek(jump * S as i64), Duration::ZERO);
                let position = replay.position_at(Duration::ZERO);
                let mut screen = Screen::new(SIZE);
                frames.iter().filter(|frame| frame.at <= position).for_each(|frame| assert!(screen.show(&frame.body)));
                prop_assert_eq!(replay.screen().terminal.screen().text(), screen.terminal.screen().text());
                prop_assert_eq!(replay.screen().terminal.cursor(), screen.terminal.cursor());
            }
        }
    }
}
