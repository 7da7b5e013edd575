use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::channel::TerminalSize;
use crate::recording::mask::Masker;

const MS: u64 = 1000;

/// A recording as its sealer sees it: a screen, a masker, a tracker.
struct Play {
    tracker: Tracker,
    screen: Screen,
    masker: Masker,
    at: u64,
    told: Vec<Command>,
}

impl Play {
    fn new(program: &Program) -> Self {
        let screen = Screen::restore(TerminalSize { cols: 40, rows: 6 }, "").unwrap();
        Self { tracker: Tracker::new(program, true), screen, masker: Masker::new(), at: 0, told: Vec::new() }
    }

    fn judge(&mut self, out: &[Frame]) {
        out.iter().for_each(|frame| self.tracker.judge(&frame.body));
        self.tracker.settle(self.at);
        for command in self.tracker.take() {
            self.told.retain(|told| told.number != command.number);
            self.told.push(command);
        }
    }

    fn push(&mut self, body: Body) {
        let frame = Frame { at: self.at, body };
        assert!(self.tracker.see(&frame, Some(&mut self.screen)));
        let mut out = Vec::new();
        self.masker.push(frame, &mut out);
        self.judge(&out);
    }

    fn tick(&mut self, ms: u64) {
        self.at += ms * MS;
        let mut out = Vec::new();
        self.masker.tick(self.at, &mut out);
        self.judge(&out);
    }

    /// `>` typed, `<` shown, `+` a pause of so many milliseconds, `~` the end of a segment; 10 ms before each.
    fn step(&mut self, what: u8, bytes: &[u8]) {
        self.at += 10 * MS;
        match what {
            b'>' => self.push(Body::Input(Bytes::copy_from_slice(bytes))),
            b'<' => self.push(Body::Output(Bytes::copy_from_slice(bytes))),
            b'+' => self.tick(std::str::from_utf8(bytes).unwrap().parse().unwrap()),
            _ => {
                let mut out = Vec::new();
                self.masker.flush(&mut out);
                self.judge(&out);
                self.tracker.prepare_to_rest();
                let state = serde_json::to_string(&self.tracker).unwrap();
                assert!(state.len() < 256 << 10);
                self.tracker = serde_json::from_str(&state).unwrap();
            }
        }
    }

    fn finish(mut self) -> Vec<Command> {
        self.step(b'~', b"");
        self.tick(5000);
        self.told.sort_by_key(|command| command.number);
        self.told
    }
}

fn play(script: &[&str]) -> Vec<Command> {
    let mut play = Play::new(&Program::Shell);
    script.iter().for_each(|step| play.step(step.as_bytes()[0], &step.as_bytes()[1..]));
    play.finish()
}

fn texts(script: &[&str]) -> Vec<String> {
    play(script).into_iter().map(|command| command.text).collect()
}

/// A line typed key by key and echoed.
fn typed(line: &str) -> Vec<String> {
    let mut steps: Vec<String> = line.chars().flat_map(|c| [format!(">{c}"), format!("<{c}")]).collect();
    steps.extend([">\r".to_owned(), "<\r\n".to_owned()]);
    steps
}

fn script(parts: &[&str]) -> Vec<String> {
    let step =
        |part: &&str| if let Some(line) = part.strip_prefix('=') { typed(line) } else { vec![(*part).to_owned()] };
    parts.iter().flat_map(step).collect()
}

fn run(parts: &[&str]) -> Vec<Command> {
    play(&script(parts).iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_line_is_what_stands_behind_the_prompt_when_enter_was_pressed() {
    let commands = run(&["<\x1b[1mme@web:~\x1b[m$ ", "=ls -l", "<total 0\r\n$ ", "=echo 界", "<界\r\n$ "]);
    let told: Vec<_> = commands.iter().map(|c| (c.number, c.text.as_str(), c.certainty)).collect();
    assert_eq!(told, [(0, "ls -l", Certainty::Screen), (1, "echo 界", Certainty::Screen)]);
    assert!(commands[0].at < commands[1].at && commands[0].exit_status.is_none());
}

#[test]
fn history_and_completion_are_what_the_screen_made_of_them() {
    let script = [
        "<$ ",
        ">\x1b[A",
        "<rm -rf /tmp/x",
        ">\r",
        "<\r\n$ ",
        ">ca",
        "<ca",
        ">\t",
        "<t /etc/",
        ">h\t",
        "<hostname ",
        ">\r",
        "<\r\n",
    ];
    assert_eq!(texts(&script), ["rm -rf /tmp/x", "cat /etc/hostname"]);
}

#[test]
fn a_line_that_was_edited_is_what_was_handed_over() {
    let script = ["<$ ", ">lsx", "<lsx", ">\x7f", "<\x08\x1b[K", ">\x1b[D", "<\x08", ">\x1b[C", "<s", ">\r", "<\r\n"];
    assert_eq!(texts(&script), ["ls"]);
}

#[test]
fn a_long_line_that_wraps_is_one_command() {
    let line = format!("echo {}", "abcdefghij".repeat(9));
    assert_eq!(texts(&["<$ ", &format!(">{line}"), &format!("<{line}"), ">\r", "<\r\n"]), [line]);
}

#[test]
fn a_line_that_was_dropped_is_none() {
    assert_eq!(
        texts(&["<$ ", ">rm", "<rm", ">\x03", "<^C\r\n$ ", ">\r", "<\r\n$ ", ">ls", "<ls", ">\r", "<\r\n"]),
        ["ls"]
    );
}

#[test]
fn a_password_never_shows_up() {
    let secrets: [&[&str]; 5] = [
        &["<Password: ", ">hunter2\r", "<\r\n"],
        &["<Password: ", ">h", ">u", ">n", ">\x1b[A", ">ter2", ">\r", "<\r\n"],
        &["<Password: ", ">h", "<*", ">u", "<*", ">n", "<*", ">\r", "<\r\n"],
        &[">hunter2", "<Password: ", ">\r", "<\r\n"],
        &["<pw: ", ">hunter2\r"], // `read -s` prints nothing
    ];
    for secret in secrets {
        let before = ["<$ ", ">su", "<su", ">\r", "<\r\n"];
        let after = ["<$ ", ">ls", "<ls", ">\r", "<\r\n", "<a b\r\n$ "];
        assert_eq!(texts(&[&before, secret, &after].concat()), ["su", "ls"], "{secret:?}");
    }
}

#[test]
fn lines_on_the_alternate_screen_are_none() {
    let vim = ["<\x1b[?1049h\x1b[H", ">:wq", "<\x1b[6;1H:wq", ">\r", "<\r\n\x1b[?1049l"];
    let script = [&["<$ ", ">vi", "<vi", ">\r", "<\r\n"][..], &vim, &["<$ ", ">ls", "<ls", ">\r", "<\r\n"]].concat();
    assert_eq!(texts(&script), ["vi", "ls"]);
}

#[test]
fn lines_pasted_at_once_are_one_command_each() {
    assert_eq!(texts(&["<$ ", ">cd /tmp\rls -l\r", "<cd /tmp\r\n$ ls -l\r\n", "<total 0\r\n$ "]), ["cd /tmp", "ls -l"]);
    assert_eq!(texts(&["<$ ", ">cd /tmp\nls -l\n", "<cd /tmp\r\n", "<$ ls -l\r\n$ "]), ["cd /tmp", "ls -l"]);
}

#[test]
fn a_line_typed_ahead_is_found_when_it_is_shown() {
    // The terminal echoes it at once, the shell once more when it reads it.
    let script = ["<$ ", ">make", "<make", ">\r", "<\r\ncc a.c\r\n", ">ls -l\r", "<ls -l\r\ncc b.c\r\n$ ls -l\r\n"];
    assert_eq!(texts(&script), ["make", "ls -l"]);
    // What is recalled while something prints is cut behind the prompt that was there before.
    let script = ["<$ ", ">make", "<make", ">\r", "<\r\ncc a.c\r\n", ">\x1b[A\r", "<cc b.c\r\n$ make\r\n"];
    assert_eq!(texts(&script), ["make", "make"]);
}

#[test]
fn a_screen_that_was_cleared_under_the_line_does_not_matter() {
    assert_eq!(texts(&["<a\r\nb\r\n$ ", ">l", "<l", ">\x0c", "<\x1b[H\x1b[2J$ l", ">s", "<s", ">\r", "<\r\n"]), ["ls"]);
}

#[test]
fn what_stands_on_the_right_of_the_prompts_row_is_not_the_line() {
    assert_eq!(texts(&["<% \x1b[30C12:00\x1b[35D\r\x1b[2C", ">ls", "<ls", ">\r", "<\r\n"]), ["ls"]);
}

#[test]
fn what_the_shell_writes_out_is_what_it_runs() {
    assert_eq!(texts(&["<> ", ">gs", "<gs", ">\r", "<\x08\x08git status\r\n", "+4000"]), ["git status"]);
}

/// bash with marks, as `PS1`, `PS0` and `PROMPT_COMMAND` print them.
const PROMPT: &str = "<\x1b]133;A\x07$ \x1b]133;B\x07";
const RUNS: &str = "<\x1b]133;C\x07";

#[test]
fn a_shell_that_marks_says_what_ran_and_how_it_ended() {
    let commands = run(&[PROMPT, "=false", RUNS, "+500", "<\x1b]133;D;1\x07", PROMPT, "=cat x", RUNS, "<x\r\n"]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.certainty, c.exit_status, c.duration)).collect();
    let second = ("cat x", Certainty::ShellMark, None, None);
    assert_eq!(told, [("false", Certainty::ShellMark, Some(1), Some(520 * MS)), second]);
}

#[test]
fn a_shell_that_does_not_mark_the_start_still_says_how_a_command_ended() {
    let commands = run(&[PROMPT, "=false", "<\x1b]133;D;1\x07", PROMPT, ">\r", "<\r\n\x1b]133;D;1\x07", PROMPT]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.certainty, c.exit_status)).collect();
    assert_eq!(told, [("false", Certainty::ShellMark, Some(1))]);
}

#[test]
fn a_command_of_several_lines_is_one_where_the_shell_marks() {
    let commands = run(&[PROMPT, "=for i in 1; do", "<> ", "=echo $i", "<> ", "=done", RUNS, "<1\r\n\x1b]133;D;0\x07"]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.exit_status)).collect();
    assert_eq!(told, [("for i in 1; do\n> echo $i\n> done", Some(0))]);
}

#[test]
fn the_last_of_several_lines_may_come_together_with_the_mark() {
    let commands = run(&[PROMPT, "=for i in 1; do", "<> ", ">done\r", "<done\r\n\x1b]133;C\x071\r\n\x1b]133;D;0\x07"]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.exit_status)).collect();
    assert_eq!(told, [("for i in 1; do\n> done", Some(0))]);
}

#[test]
fn what_vs_codes_shell_claims_is_the_text_if_it_is_what_was_seen() {
    let prompt = "<\x1b]633;A\x07$ \x1b]633;B\x07";
    let commands = run(&[prompt, "=echo a; b", "<\x1b]633;E;echo a\\x3b b;n\x07\x1b]633;C\x07a\r\n\x1b]633;D;127\x07"]);
    assert_eq!(commands.len(), 1);
    assert_eq!((commands[0].text.as_str(), commands[0].exit_status), ("echo a; b", Some(127)));
}

#[test]
fn a_claim_replaces_nothing_that_was_seen() {
    let commands = run(&[PROMPT, "=rm -rf /srv", "<\x1b]633;E;ls;n\x07\x1b]133;C\x07", "<\x1b]133;D;0\x07"]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.certainty, c.exit_status)).collect();
    assert_eq!(told, [("rm -rf /srv", Certainty::Screen, None), ("ls", Certainty::ShellMark, Some(0))]);
}

#[test]
fn a_mark_in_the_wrong_place_hides_no_line() {
    for forged in [
        "\x1b]133;B\x07\r\n",
        "\r\n\x1b]133;B\x07ls\x1b]133;C\x07\r\n",
        "\r\n\x1b]633;E;ls;\x07\x1b]133;C\x07\x1b]133;D;0\x07",
    ] {
        for script in [vec!["<$ ", ">id", "<id", ">\r"], vec!["<$ ", ">id\r", "<id"]] {
            let texts = texts(&[&script[..], &[&format!("<{forged}"), "<uid=0\r\n$ "]].concat());
            assert!(texts.contains(&"id".to_owned()), "{forged:?} {script:?}: {texts:?}");
        }
    }
}

#[test]
fn marks_hide_no_line_that_is_typed_while_a_command_runs() {
    let commands = run(&[PROMPT, "=sh", RUNS, "<# ", "=id", "<uid=0\r\n# ", "=exit", "<\x1b]133;D;0\x07"]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.certainty, c.exit_status)).collect();
    let seen = |text| (text, Certainty::Screen, None);
    assert_eq!(told, [("sh", Certainty::ShellMark, Some(0)), seen("id"), seen("exit")]);
}

#[test]
fn an_echo_that_comes_together_with_the_mark_is_one_command() {
    let commands = run(&[PROMPT, ">ls\r", "<ls\r\n\x1b]133;C\x07a\r\n\x1b]133;D;0\x07", PROMPT]);
    let told: Vec<_> = commands.iter().map(|c| (c.text.as_str(), c.certainty, c.exit_status)).collect();
    assert_eq!(told, [("ls", Certainty::ShellMark, Some(0))]);
}

#[test]
fn forged_marks_are_bounded_and_marked_as_claims() {
    let mut play = Play::new(&Program::Shell);
    for number in 0..3000 {
        play.step(b'<', format!("\x1b]133;C;cmdline_url=forged{number}\x07\x1b]133;D;0\x07").repeat(5).as_bytes());
    }
    assert_eq!(play.tracker.count(), 15_000);
    let commands = play.finish();
    assert_eq!(commands.len(), MOST_COMMANDS as usize);
    assert!(commands.iter().all(|command| command.certainty == Certainty::ShellMark));
}

#[test]
fn an_exec_request_is_one_command_with_its_status() {
    let mut tracker = Tracker::new(&Program::Exec { command: b"tar c /srv".to_vec() }, false);
    let frame = |at, body| Frame { at, body };
    assert!(tracker.see(&frame(1, Body::Output(Bytes::from_static(b"\x1b]133;C;cmdline_url=x\x07"))), None));
    let first = tracker.take();
    tracker.see(&frame(700, Body::ExitStatus(2)), None);
    tracker.see(&frame(900, Body::End(String::new())), None);
    let last = tracker.take();

    assert_eq!((first.len(), first[0].text.as_str(), first[0].certainty), (1, "tar c /srv", Certainty::Exec));
    assert_eq!((last.len(), last[0].number, last[0].exit_status, last[0].duration), (1, 0, Some(2), Some(700)));
    assert_eq!(tracker.count(), 1);
}

#[test]
fn an_exec_request_with_a_terminal_shows_what_is_typed_too() {
    let mut play = Play::new(&Program::Exec { command: b"sudo -i".to_vec() });
    ["<[sudo] password for me: ", ">hunter2", ">\r", "<\r\n# ", ">id", "<id", ">\r", "<\r\n"]
        .iter()
        .for_each(|step| play.step(step.as_bytes()[0], &step.as_bytes()[1..]));
    let told: Vec<_> = play.finish().into_iter().map(|command| (command.text, command.certainty)).collect();
    assert_eq!(told, [("sudo -i".to_owned(), Certainty::Exec), ("id".to_owned(), Certainty::Screen)]);
}

#[test]
fn a_shell_without_a_terminal_runs_the_lines_that_it_is_sent() {
    let mut tracker = Tracker::new(&Program::Shell, false);
    for part in ["ls -l\r\n\ncd", " /tmp\n", &"x".repeat(10_000)] {
        tracker.see(&Frame { at: 7, body: Body::Input(Bytes::copy_from_slice(part.as_bytes())) }, None);
    }
    tracker.see(&Frame { at: 9, body: Body::InputEnd }, None);
    let told: Vec<_> = tracker.take().into_iter().map(|c| (c.text, c.is_cut, c.certainty)).collect();
    assert_eq!(
        told[..2],
        [("ls -l".to_owned(), false, Certainty::Input), ("cd /tmp".to_owned(), false, Certainty::Input)]
    );
    assert!(told.len() == 3 && told[2].0.len() == MOST_TEXT && told[2].1);
}

#[test]
fn what_was_masked_before_it_was_shipped_comes_to_the_same() {
    let mut tracker = Tracker::new(&Program::Shell, true);
    let mut screen = Screen::restore(TerminalSize { cols: 40, rows: 6 }, "").unwrap();
    let input = |text: &'static str| Body::Input(Bytes::from_static(text.as_bytes()));
    let output = |text: &'static str| Body::Output(Bytes::from_static(text.as_bytes()));
    let bodies = [
        output("Password: "),
        Body::MaskedInput { bytes: 7 },
        input("\r"),
        output("\r\n$ "),
        input("ls"),
        output("ls"),
        input("\r"),
        output("\r\n"),
    ];
    for (at, body) in bodies.into_iter().enumerate() {
        tracker.see(&Frame { at: at as u64, body: body.clone() }, Some(&mut screen));
        tracker.judge(&body);
        tracker.settle(at as u64);
    }
    assert_eq!(tracker.take().into_iter().map(|command| command.text).collect::<Vec<_>>(), ["ls"]);
}

#[test]
fn a_state_that_is_stored_holds_nothing_that_was_typed_without_an_echo() {
    let mut play = Play::new(&Program::Shell);
    for step in ["<$ ", ">sleep 9", "<sleep 9", ">\r", "<\r\n", ">ls -l\r", ">hunter2\r", ">hunter2"] {
        play.step(step.as_bytes()[0], &step.as_bytes()[1..]);
    }
    play.step(b'~', b"");

    let state = serde_json::to_value(&play.tracker).unwrap().to_string();

    let decimal = "hunter2".bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",");
    assert!(!state.contains("hunter2") && !state.contains(&decimal), "{state}");
}

fn any_step() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let keys =
        prop_oneof![Just(b"\r".to_vec()), "[a-c]{1,3}\r?".prop_map(String::into_bytes), Just(b"\x1b[A".to_vec())];
    let marks =
        "(\x1b\\]133;([ABC]|D;[0-9])\x07|\x1b\\]633;E;[a-c]{1,3}\x07|[a-c]{1,3}|\r\n|\x1b\\[2J|\x1b\\[H|\\$ ){0,5}";
    prop_oneof![
        keys.prop_map(|keys| (b'>', keys)),
        marks.prop_map(|output| (b'<', output.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| (b'<', bytes)),
        (0_u64..4000).prop_map(|ms| (b'+', ms.to_string().into_bytes())),
        Just((b'~', Vec::new())),
    ]
}

proptest! {
    #[test]
    fn output_may_be_cut_anywhere(steps in prop::collection::vec(any_step(), 0..25), cut: prop::sample::Index) {
        let (mut whole, mut parts) = (Play::new(&Program::Shell), Play::new(&Program::Shell));
        for (what, bytes) in &steps {
            whole.step(*what, bytes);
            if *what == b'<' && !bytes.is_empty() {
                // What is not judged yet may be judged in between; that is the masker's matter, so all is known.
                let mut out = Vec::new();
                parts.masker.flush(&mut out);
                let cut = cut.index(bytes.len());
                parts.at += 10 * MS;
                parts.judge(&out);
                parts.tracker.see(&Frame { at: parts.at, body: Body::Output(Bytes::copy_from_slice(&bytes[..cut])) }, Some(&mut parts.screen));
                parts.tracker.see(&Frame { at: parts.at, body: Body::Output(Bytes::copy_from_slice(&bytes[cut..])) }, Some(&mut parts.screen));
                parts.judge(&[]);
            } else {
                parts.step(*what, bytes);
            }
        }
        // Marks do not depend on what was typed.
        let claims = |commands: Vec<Command>| commands.into_iter().filter(|c| c.exit_status.is_some()).count();
        prop_assert_eq!(whole.screen.line(), parts.screen.line());
        prop_assert!(claims(whole.finish()) <= steps.len() * 5 && claims(parts.finish()) <= steps.len() * 5);
    }

    #[test]
    fn whatever_comes_commands_are_numbered_bounded_and_hold_nothing_that_a_terminal_obeys(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let mut play = Play::new(&Program::Shell);
        for (what, bytes) in &steps {
            play.step(*what, bytes);
        }
        for (number, command) in play.finish().into_iter().enumerate() {
            prop_assert_eq!(command.number as usize, number);
            prop_assert!(!command.text.is_empty() && command.text.len() <= MOST_TEXT);
            prop_assert!(command.text.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }

    #[test]
    fn a_state_that_was_stored_goes_on_as_if_it_had_not_been(steps in prop::collection::vec(any_step(), 0..30)) {
        let (mut straight, mut stored) = (Play::new(&Program::Shell), Play::new(&Program::Shell));
        for (what, bytes) in &steps {
            // Both let the masker decide everything; only one is stored.
            let mut out = Vec::new();
            straight.masker.flush(&mut out);
            straight.judge(&out);
            straight.tracker.prepare_to_rest();
            stored.step(b'~', b"");
            stored.at = straight.at;
            straight.step(*what, bytes);
            stored.step(*what, bytes);
        }
        prop_assert_eq!(straight.finish(), stored.finish());
    }

    #[test]
    fn a_password_without_echo_is_in_no_command(
        password in "[a-e]{4,12}", before in "[ -~]{0,20}", after in prop::collection::vec(any_step(), 0..10),
    ) {
        let mut play = Play::new(&Program::Shell);
        play.step(b'<', format!("{before}\r\nPassword: ").as_bytes());
        play.step(b'>', password.as_bytes());
        play.step(b'>', b"\r");
        play.step(b'<', b"\r\n");
        let shown: Vec<u8> = after.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        prop_assume!(!String::from_utf8_lossy(&shown).contains(&password));
        for (what, bytes) in &after {
            play.step(*what, bytes);
        }
        prop_assert!(play.finish().iter().all(|command| !command.text.contains(&password)));
    }
}
