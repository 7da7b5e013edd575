//! The picker: a list of the accounts that somebody may reach now, and what the keys do to it. Pure: keys and the time come in,
//! bytes for the terminal go out.
//!
//! Letters filter, so what else there is to do has keys that are no letters. Only cursor addressing, erasing and three
//! attributes are drawn with (ECMA-48), on the alternate screen, and nothing of ours is not ASCII: any terminal will do.

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::channel::TerminalSize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::keys::Key;
use crate::app::access::Choice;
use crate::ssh::notice;

/// The longest filter, in characters.
const MOST_FILTER: usize = 64;

/// The widest that names are shown in columns; the reason has the rest.
const MOST_NAME: usize = 32;

/// To the alternate screen, with lines that are cut at the right edge and not wrapped (DECAWM).
pub const ENTER: &[u8] = b"\x1b[?1049h\x1b[?7l\x1b[2J";

/// Back to the screen as it was; where there is no alternate screen, nothing of ours stays behind.
pub const LEAVE: &[u8] = b"\x1b[0m\x1b[H\x1b[J\x1b[?7h\x1b[?25h\x1b[?1049l";

const FOOTER: &str = "Enter connect   arrows move   letters filter   ? help   Esc leave";

const HELP: [&str; 9] = [
    "Enter             connect to the marked account",
    "Up, Down          move; also Ctrl-P, Ctrl-N, PgUp, PgDn, Home, End",
    "letters           filter: every word must be in a row, in any case",
    "Backspace         take a letter back; Ctrl-U takes all of them",
    "Ctrl-L            draw the screen anew",
    "Esc               leave; also Ctrl-C, Ctrl-D",
    "",
    "For everything else: ssh to the bastion with the command `help`.",
    "Any key closes this.",
];

/// What a key led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Stay,
    Leave,
    Go(Choice),
}

/// The list and where somebody is in it.
#[derive(Debug)]
pub struct Picker {
    rows: Vec<Row>,
    /// Places in `rows` of what the filter lets through.
    shown: Vec<usize>,
    /// The marked row, counted in `shown`.
    marked: usize,
    /// The first row on the screen, counted in `shown`.
    top: usize,
    filter: String,
    size: TerminalSize,
    has_help: bool,
}

#[derive(Debug)]
struct Row {
    choice: Choice,
    /// What the filter looks at, in lower case.
    text: String,
}

impl Row {
    fn new(choice: Choice) -> Self {
        let Choice { login, target, reason, ticket, .. } = &choice;
        let ticket = ticket.as_deref().unwrap_or_default();
        let text = format!("{login}@{target} {reason} {ticket}").to_lowercase();
        Self { choice, text }
    }
}

impl Picker {
    /// A picker of `choices` on a terminal of this size.
    pub fn new(choices: Vec<Choice>, size: TerminalSize) -> Self {
        let (shown, filter, size) = (Vec::new(), String::new(), size.drawable());
        let mut picker = Self { rows: Vec::new(), shown, marked: 0, top: 0, filter, size, has_help: false };
        picker.replace(choices);
        picker
    }

    /// Takes another list; the mark stays on its account, if that is still there.
    pub fn replace(&mut self, choices: Vec<Choice>) {
        let marked = self.marked().map(|choice| (choice.target.clone(), choice.login.clone()));
        self.rows = choices.into_iter().map(Row::new).collect();
        self.refilter();
        if let Some((target, login)) = marked {
            let is_marked = |place: &usize| {
                self.rows.get(*place).is_some_and(|row| row.choice.target == target && row.choice.login == login)
            };
            self.mark(self.shown.iter().position(is_marked).unwrap_or(0));
        }
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: TerminalSize) {
        self.size = size.drawable();
        self.mark(self.marked);
    }

    /// The account that Enter goes to.
    fn marked(&self) -> Option<&Choice> {
        let place = self.shown.get(self.marked)?;
        Some(&self.rows.get(*place)?.choice)
    }

    /// What a key does.
    pub fn press(&mut self, key: Key) -> Step {
        if self.has_help && !matches!(key, Key::Control('c' | 'd')) {
            self.has_help = false;
            return Step::Stay;
        }
        match key {
            Key::Escape | Key::Control('c' | 'd') => return Step::Leave,
            Key::Enter => return self.marked().map_or(Step::Stay, |choice| Step::Go(choice.clone())),
            Key::F1 | Key::Character('?') => self.has_help = true,
            Key::Up | Key::Control('p') => self.mark(self.marked.saturating_sub(1)),
            Key::Down | Key::Control('n') => self.mark(self.marked + 1),
            Key::PageUp => self.mark(self.marked.saturating_sub(self.list_height())),
            Key::PageDown => self.mark(self.marked + self.list_height()),
            Key::Home => self.mark(0),
            Key::End => self.mark(usize::MAX),
            Key::Backspace => {
                self.filter.pop();
                self.refilter();
            }
            Key::Control('u') => {
                self.filter.clear();
                self.refilter();
            }
            Key::Character(character) => {
                if self.filter.chars().count() < MOST_FILTER {
                    self.filter.push(character);
                    self.refilter();
                }
            }
            Key::Control(_) | Key::Other => {}
        }
        Step::Stay
    }

    fn refilter(&mut self) {
        let filter = self.filter.to_lowercase();
        let words: Vec<&str> = filter.split_whitespace().collect();
        let passes = |row: &Row| words.iter().all(|word| row.text.contains(word));
        self.shown = self.rows.iter().enumerate().filter(|(_, row)| passes(row)).map(|(place, _)| place).collect();
        self.mark(0);
    }

    /// Moves the mark, at most to the last row, and the screen with it.
    fn mark(&mut self, to: usize) {
        self.marked = to.min(self.shown.len().saturating_sub(1));
        let height = self.list_height();
        let lowest_top = self.shown.len().saturating_sub(height);
        self.top = self.top.min(self.marked).max((self.marked + 1).saturating_sub(height)).min(lowest_top);
    }

    /// Lines of the list: without title, filter, column heads and footer, which small terminals have not.
    fn list_height(&self) -> usize {
        let rows = usize::from(self.size.rows);
        rows.saturating_sub(usize::from(self.has_filter()) + 3 * usize::from(self.is_tall())).max(1)
    }

    fn has_filter(&self) -> bool {
        self.size.rows >= 2
    }

    fn is_tall(&self) -> bool {
        self.size.rows >= 6
    }

    /// The bytes that draw the whole screen, and leave the cursor behind the filter.
    pub fn draw(&self, now: DateTime<Utc>) -> Vec<u8> {
        let cols = usize::from(self.size.cols);
        let mut screen = Screen { bytes: b"\x1b[?25l".to_vec(), cols, line: 0 };
        if self.is_tall() {
            let count = match (self.shown.len(), self.rows.len()) {
                (shown, all) if shown == all => format!("{all} open to you now"),
                (shown, all) => format!("{shown} of {all} open to you now"),
            };
            screen.line(Look::Bold, &format!("sallyport   {count}"));
        }
        let filter_line = screen.line + 1;
        let prompt = format!("> {}", self.filter);
        if self.has_filter() {
            screen.line(Look::Plain, &prompt);
        }
        if self.has_help {
            let room = usize::from(self.size.rows).saturating_sub(screen.line);
            for place in 0..room {
                screen.line(Look::Plain, HELP.get(place).unwrap_or(&""));
            }
        } else {
            self.draw_list(&mut screen, now);
        }
        if self.has_filter() {
            let column = (prompt.width() + 1).min(cols);
            screen.bytes.extend_from_slice(format!("\x1b[{filter_line};{column}H\x1b[?25h").as_bytes());
        }
        screen.bytes
    }

    fn draw_list(&self, screen: &mut Screen, now: DateTime<Utc>) {
        let visible: Vec<&Row> = self
            .shown
            .iter()
            .skip(self.top)
            .take(self.list_height())
            .filter_map(|place| self.rows.get(*place))
            .collect();
        // Over all rows, so that columns stay where they are.
        let widest = |text: fn(&Choice) -> usize| {
            let widest = self.rows.iter().map(|row| text(&row.choice)).max().unwrap_or(0);
            widest.clamp(6, MOST_NAME)
        };
        let (target, login) =
            (widest(|choice| choice.target.as_str().len()), widest(|choice| choice.login.as_str().len()));
        if self.is_tall() {
            screen.line(Look::Dim, &format!("  {:target$}  {:login$}  {:<12}  REASON", "TARGET", "LOGIN", "TIME LEFT"));
        }
        for place in 0..self.list_height() {
            let Some(row) = visible.get(place) else {
                let nothing =
                    if place == 0 && self.shown.is_empty() { "  nothing here; take letters back" } else { "" };
                screen.line(Look::Plain, if self.rows.is_empty() { "  nothing is open to you now" } else { nothing });
                continue;
            };
            let is_marked = self.top + place == self.marked;
            let (mark, look) = if is_marked { (">", Look::Reverse) } else { (" ", Look::Plain) };
            let left = notice::duration(row.choice.not_after - now);
            let (name, account) = (cut(row.choice.target.as_str(), target), cut(row.choice.login.as_str(), login));
            let why = why(&row.choice);
            screen.line(look, &format!("{mark} {name:target$}  {account:login$}  {left:<12}  {why}"));
        }
        if self.is_tall() {
            screen.line(Look::Dim, FOOTER);
        }
    }
}

/// The ticket and the reason of the grant.
pub fn why(choice: &Choice) -> String {
    match &choice.ticket {
        Some(ticket) => format!("{} {}", notice::printable(ticket), notice::printable(&choice.reason)),
        None => notice::printable(&choice.reason),
    }
}

#[derive(Clone, Copy)]
enum Look {
    Plain,
    Bold,
    Dim,
    Reverse,
}

struct Screen {
    bytes: Vec<u8>,
    cols: usize,
    /// Lines that are drawn.
    line: usize,
}

impl Screen {
    /// The next line, cut at the right edge, and nothing behind it.
    fn line(&mut self, look: Look, text: &str) {
        self.line += 1;
        let on = match look {
            Look::Plain => "",
            Look::Bold => "\x1b[1m",
            Look::Dim => "\x1b[2m",
            Look::Reverse => "\x1b[7m",
        };
        let (line, text) = (self.line, cut(text, self.cols));
        // Erased first: after a full line the cursor is still on its last column, which would be erased with it.
        self.bytes.extend_from_slice(format!("\x1b[{line};1H\x1b[0m\x1b[K{on}{text}\x1b[0m").as_bytes());
    }
}

/// As much of the text as has room in so many columns, without what is no plain text.
fn cut(text: &str, columns: usize) -> String {
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= columns
    };
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take_while(fits).collect()
}

/// How much time is left, for lists without a screen.
pub fn time_left(choice: &Choice, now: DateTime<Utc>) -> String {
    notice::duration((choice.not_after - now).max(TimeDelta::zero()))
}

#[cfg(test)]
mod tests {
    use avt::Terminal;
    use proptest::prelude::*;
    use sallyport_domain::id::GrantId;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn choice(target: &str, login: &str, reason: &str) -> Choice {
        Choice {
            login: login.parse().unwrap(),
            target: target.parse().unwrap(),
            not_after: at(7_200),
            grant: GrantId::from_uuid(Uuid::from_u128(1)),
            reason: reason.to_owned(),
            ticket: None,
        }
    }

    fn many(count: usize) -> Vec<Choice> {
        (0..count).map(|number| choice(&format!("web-{number}"), "root", "INC-7 a reason")).collect()
    }

    const USUAL: TerminalSize = TerminalSize { cols: 80, rows: 24 };

    fn picker(count: usize) -> Picker {
        Picker::new(many(count), USUAL)
    }

    fn type_text(picker: &mut Picker, text: &str) {
        for character in text.chars() {
            assert_eq!(picker.press(Key::Character(character)), Step::Stay);
        }
    }

    fn goes_to(picker: &mut Picker) -> String {
        match picker.press(Key::Enter) {
            Step::Go(choice) => choice.target.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// What a terminal of this size shows.
    fn screen(picker: &Picker, size: TerminalSize) -> Vec<String> {
        let mut terminal = Terminal::new(size.cols.into(), size.rows.into()).unwrap();
        terminal.feed("before\r\n$ ");
        terminal.feed(std::str::from_utf8(ENTER).unwrap());
        terminal.feed(std::str::from_utf8(&picker.draw(at(0))).unwrap());
        let text = terminal.screen().text();
        terminal.feed(std::str::from_utf8(LEAVE).unwrap());
        if size == USUAL {
            assert_eq!(terminal.screen().text()[0].trim_end(), "before");
        }
        text.iter().map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn the_list_is_drawn_with_the_time_left_and_the_reason() {
        let shown = screen(&picker(3), USUAL);

        assert_eq!(shown[0], "sallyport   3 open to you now");
        assert_eq!(shown[1], ">");
        assert_eq!(shown[2], "  TARGET  LOGIN   TIME LEFT     REASON");
        assert_eq!(shown[3], "> web-0   root    2 h 0 min     INC-7 a reason");
        assert_eq!(shown[5], "  web-2   root    2 h 0 min     INC-7 a reason");
        assert_eq!(shown[23], FOOTER);
    }

    #[test]
    fn letters_filter_and_enter_goes_to_what_is_marked() {
        let mut picker = picker(30);
        type_text(&mut picker, "WEB-2 inc");
        picker.press(Key::Down);
        picker.press(Key::Down);

        let shown = screen(&picker, USUAL);
        assert_eq!(shown[0], "sallyport   11 of 30 open to you now");
        assert_eq!(shown[5], "> web-21  root    2 h 0 min     INC-7 a reason");
        assert_eq!(goes_to(&mut picker), "web-21");
        picker.press(Key::Control('u'));
        assert_eq!(goes_to(&mut picker), "web-0");
        type_text(&mut picker, "nowhere");
        assert_eq!(picker.press(Key::Enter), Step::Stay);
    }

    #[test]
    fn the_mark_moves_by_lines_and_pages_and_stops_at_the_ends() {
        let mut picker = picker(50);
        for (key, expected) in [
            (Key::Up, "web-0"),
            (Key::Down, "web-1"),
            (Key::PageDown, "web-21"),
            (Key::End, "web-49"),
            (Key::Down, "web-49"),
            (Key::PageUp, "web-29"),
            (Key::Home, "web-0"),
        ] {
            picker.press(key);
            assert_eq!(goes_to(&mut picker), expected, "{key:?}");
            let drawn = screen(&picker, USUAL);
            assert!(drawn.iter().any(|line| line.starts_with(&format!("> {expected}"))), "{drawn:#?}");
        }
    }

    #[test]
    fn escape_and_the_usual_controls_leave_and_help_is_closed_by_any_key() {
        for key in [Key::Escape, Key::Control('c'), Key::Control('d')] {
            assert_eq!(picker(2).press(key), Step::Leave);
        }
        let mut picker = picker(2);
        picker.press(Key::Character('?'));
        assert_eq!(screen(&picker, USUAL)[2], HELP[0]);
        assert_eq!(picker.press(Key::Escape), Step::Stay);
        assert_eq!(screen(&picker, USUAL)[3], "> web-0   root    2 h 0 min     INC-7 a reason");
    }

    #[test]
    fn a_new_list_keeps_the_mark_on_its_account() {
        let mut picker = picker(10);
        picker.press(Key::End);
        picker.replace(many(30));
        assert_eq!(goes_to(&mut picker), "web-9");
        picker.replace(many(3));
        assert_eq!(goes_to(&mut picker), "web-0");
    }

    #[test]
    fn a_hostile_reason_draws_nothing_of_its_own() {
        let picker = Picker::new(vec![choice("web-1", "root", "\x1b[2Jx\r\n\u{9b}5my 上上")], USUAL);
        assert!(screen(&picker, USUAL)[3].ends_with("[2Jx   5my 上上"), "{:?}", screen(&picker, USUAL)[3]);
    }

    proptest! {
        #[test]
        fn any_size_shows_the_marked_row_and_nothing_beyond_the_edges(
            cols in 0_u16..130, rows in 0_u16..40, count in 0_usize..60, downs in 0_usize..70, cjk in any::<bool>(),
        ) {
            let size = TerminalSize { cols, rows };
            let mut choices = many(count);
            for choice in choices.iter_mut().filter(|_| cjk) {
                choice.reason = "上海的变更".repeat(30);
            }
            let mut picker = Picker::new(choices, USUAL);
            for _ in 0..downs {
                picker.press(Key::Down);
            }
            picker.resize(size);

            let drawn = screen(&picker, size.drawable());

            prop_assert_eq!(drawn.len(), usize::from(size.drawable().rows));
            let marked = drawn.iter().skip(usize::from(size.drawable().rows >= 2 && size.drawable().rows < 6)).any(|line| {
                line.starts_with('>') && (cols > 0 && cols < 8 || line.contains("web-"))
            });
            prop_assert!(marked || count == 0, "{:#?}", drawn);
        }
    }
}
