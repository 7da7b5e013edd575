//! A recording as the page of a bundle plays it: what the screen showed, row by row, as text and colours that were computed here. So
//! the page needs no terminal, and nothing that a target printed is ever more than text.
//!
//! ```text
//! film  = {"cols":80,"rows":24,"end":ms,"cut":bool,"styles":[style…],"steps":[step…]}
//! style = [foreground,background,flags]              colour: null, 0 to 255, "#rrggbb"; flags: 1 bold, 2 faint, 4 italic,
//!                                                    8 underline, 16 struck through
//! step  = [ms,key,{"row":[text,style,…]},[col,row]|null,[cols,rows]?]      key 1: rows that are not named are empty
//! ```

use std::collections::HashMap;

use avt::{Color, Line, Pen};
use sallyport_domain::channel::TerminalSize;
use sallyport_domain::recording::frame::Frame;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::transcript::{Screen, visible};

/// At most so many pictures a second: what is faster nobody sees.
const EVERY_US: u64 = 50_000;

/// A step of this number says all rows, so that seeking is fast.
const KEY_EVERY: usize = 200;

/// What a player of a bundle gets.
#[derive(Debug, Serialize)]
pub(super) struct Film {
    cols: u16,
    rows: u16,
    /// Milliseconds.
    end: u64,
    /// The rest did not fit.
    cut: bool,
    styles: Vec<Value>,
    steps: Vec<Value>,
}

impl Film {
    /// About how many bytes it takes in the page.
    pub(super) fn bytes(&self) -> usize {
        self.steps.iter().map(|step| step.to_string().len()).sum()
    }
}

/// Makes a film.
pub(super) struct Camera {
    screen: Screen,
    film: Film,
    shown: Vec<Value>,
    size: TerminalSize,
    styles: HashMap<String, usize>,
    /// When the last step was, and the last change since that is not in a step, in microseconds.
    last: Option<u64>,
    changed: Option<u64>,
    broken: bool,
    /// Bytes that steps may still have.
    left: usize,
}

impl Camera {
    /// For a recording whose terminal starts at `size`; its steps have at most `budget` bytes.
    pub(super) fn new(size: TerminalSize, budget: usize) -> Self {
        let size = size.drawable();
        let film = Film { cols: size.cols, rows: size.rows, end: 0, cut: false, styles: Vec::new(), steps: Vec::new() };
        Self {
            screen: Screen::new(size),
            film,
            shown: Vec::new(),
            size,
            styles: HashMap::new(),
            last: None,
            changed: None,
            broken: false,
            left: budget,
        }
    }

    pub(super) fn frame(&mut self, frame: &Frame) {
        self.film.end = frame.at / 1000;
        if self.broken || self.film.cut {
            return;
        }
        if let Some(changed) = self.changed
            && self.last.is_none_or(|last| frame.at >= last + EVERY_US)
            && frame.at > changed
        {
            self.step(changed);
        }
        if self.screen.show(&frame.body) {
            self.changed = Some(frame.at);
        } else {
            self.broken = true;
            self.film.cut = true;
        }
    }

    /// The recording ended, and with it the film.
    pub(super) fn finish(mut self) -> Film {
        if let Some(changed) = self.changed
            && !self.film.cut
        {
            self.step(changed);
        }
        self.film
    }

    /// Adds what changed on the screen since the last step.
    fn step(&mut self, at: u64) {
        self.changed = None;
        self.last = Some(at);
        let terminal = &self.screen.terminal;
        let is_key = self.film.steps.len().is_multiple_of(KEY_EVERY);
        let mut now = Vec::new();
        for line in terminal.screen().visible_lines() {
            now.push(row(line, &mut self.styles, &mut self.film.styles));
        }
        let mut changes = serde_json::Map::new();
        for (number, row) in now.iter().enumerate() {
            let is_new = if is_key {
                row.as_array().is_some_and(|row| !row.is_empty())
            } else {
                self.shown.get(number) != Some(row)
            };
            if is_new {
                changes.insert(number.to_string(), row.clone());
            }
        }
        let cursor = terminal.cursor();
        let cursor = if cursor.visible { json!([cursor.col, cursor.row]) } else { Value::Null };
        let mut step = vec![json!(at / 1000), json!(u8::from(is_key)), Value::Object(changes), cursor];
        let size = self.screen.size();
        if is_key || size != self.size {
            step.push(json!([size.cols, size.rows]));
        }
        let step = Value::Array(step);
        self.size = size;
        self.shown = now;
        let bytes = step.to_string().len();
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                self.film.steps.push(step);
            }
            None => self.film.cut = true,
        }
    }
}

/// A row as runs of text in one style each; blanks at its end are left out.
fn row(line: &Line, known: &mut HashMap<String, usize>, styles: &mut Vec<Value>) -> Value {
    let mut runs: Vec<Value> = Vec::new();
    let (mut text, mut style) = (String::new(), None);
    let cells = line.cells();
    let end = cells.iter().rposition(|cell| cell.char() != ' ' || !cell.pen().is_default()).map_or(0, |last| last + 1);
    for cell in cells.iter().take(end).filter(|cell| cell.width() > 0) {
        let here = style_of(cell.pen());
        if style.as_ref() != Some(&here) {
            close_run(&mut runs, &mut text, style.as_ref(), known, styles);
            style = Some(here);
        }
        text.push(cell.char());
    }
    close_run(&mut runs, &mut text, style.as_ref(), known, styles);
    Value::Array(runs)
}

fn close_run(
    runs: &mut Vec<Value>,
    text: &mut String,
    style: Option<&Value>,
    known: &mut HashMap<String, usize>,
    styles: &mut Vec<Value>,
) {
    let Some(style) = style.filter(|_| !text.is_empty()) else {
        return;
    };
    let number = *known.entry(style.to_string()).or_insert_with(|| {
        styles.push(style.clone());
        styles.len() - 1
    });
    runs.push(json!(visible(text)));
    runs.push(json!(number));
    text.clear();
}

fn style_of(pen: &Pen) -> Value {
    let colour = |colour: Option<Color>| match colour {
        None => Value::Null,
        Some(Color::Indexed(number)) => json!(number),
        Some(Color::RGB(rgb)) => json!(format!("#{:02x}{:02x}{:02x}", rgb.r, rgb.g, rgb.b)),
    };
    let (mut front, mut back) = (colour(pen.foreground()), colour(pen.background()));
    if pen.is_inverse() {
        // Without colours the page's own are turned around.
        let usual = |colour: Value, usual: &str| if colour.is_null() { json!(usual) } else { colour };
        (front, back) = (usual(back, "back"), usual(front, "front"));
    }
    let flags = [pen.is_bold(), pen.is_faint(), pen.is_italic(), pen.is_underline(), pen.is_strikethrough()];
    let flags: u32 = flags.into_iter().enumerate().map(|(place, is_on)| u32::from(is_on) << place).sum();
    json!([front, back, flags])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sallyport_domain::recording::frame::Body;

    use super::*;

    fn film(packets: &[(u64, &str)], budget: usize) -> Value {
        let mut camera = Camera::new(TerminalSize { cols: 10, rows: 3 }, budget);
        for (at, text) in packets {
            let body = Body::Output(Bytes::copy_from_slice(text.as_bytes()));
            camera.frame(&Frame { at: *at, body });
        }
        serde_json::to_value(camera.finish()).unwrap()
    }

    #[test]
    fn only_rows_that_changed_are_in_a_step_and_what_is_too_fast_to_see_is_one() {
        let film = film(&[(0, "a\r\n"), (1_000, "\x1b[31mb"), (2_000_000, "\x1b[m!</script>")], 1 << 20);
        assert_eq!(film["styles"], json!([[null, null, 0], [1, null, 0]]));
        assert_eq!(film["steps"][0], json!([0, 1, { "0": ["a", 0] }, [0, 1], [10, 3]]));
        assert_eq!(film["steps"][1][2], json!({ "1": ["b", 1] }));
        assert_eq!(film["steps"][2][2]["1"], json!(["b", 1, "!</script", 0]));
        assert_eq!(film["end"], 2000);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_film_says_so() {
        let film = film(&[(0, "a"), (1_000_000, "b"), (2_000_000, "c")], 60);
        assert_eq!(film["cut"], true);
        assert!(film["steps"].as_array().unwrap().len() < 3);
    }
}
