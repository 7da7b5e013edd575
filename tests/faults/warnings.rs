//! Warnings before the end of the window: seen by whoever looks at a terminal, harmful to nothing.

use std::time::Duration;

use avt::Terminal as Screen;
use sallyport_domain::grant::Window;

use crate::harness::{Collected, Inside, Stores, give, turn};
use crate::support::clients::Terminal;
use crate::support::{eventually, temporary_folder};

const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// A client's terminal and what it shows.
struct Seat {
    terminal: Terminal,
    screen: Screen,
}

impl Seat {
    async fn wait_for(&mut self, text: &str) {
        let came = self.terminal.wait_for(text).await;
        self.screen.feed(came.as_str());
    }

    fn text(&self) -> Vec<String> {
        self.screen.screen().text()
    }

    fn cursor(&self) -> Option<(usize, usize)> {
        self.screen.cursor().position()
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_mins(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_leave_vim_a_prompt_and_streams_as_they_were() {
    let _turn = turn().await;
    let inside = Inside::start(&Stores::default()).await;
    let (workstation, _key) = inside.person("alice").await;
    let now = inside.clock.now();
    give(inside.app(), "alice", "node-1", "ops", Window::new(now, now + minutes(20)).unwrap()).await;
    let ssh = || workstation.ssh("alice+ops@node-1", inside.bastion.ssh_address());
    let sit = || Seat {
        terminal: ssh().arg("-tt").in_terminal(COLUMNS, ROWS),
        screen: Screen::new(COLUMNS.into(), ROWS.into()).unwrap(),
    };
    let (mut vim, mut prompt) = (sit(), sit());
    for seat in [&mut vim, &mut prompt] {
        seat.terminal.type_keys("PS1='ready''> '; bind 'set enable-bracketed-paste off'\n").await;
        seat.wait_for("ready> ").await;
    }
    let file = temporary_folder();
    std::fs::write(file.path().join("poem"), "a line\nanother line\n").unwrap();
    vim.terminal.type_keys(&format!("vim -u NONE -N {}/poem\n", file.path().display())).await;
    vim.wait_for("another line").await;
    vim.terminal.type_keys("jA and more").await;
    vim.wait_for("and more").await;
    prompt.terminal.type_keys("echo half-$((1+1))").await;
    prompt.wait_for("echo half-$((1+1))").await;
    let mut exec = Collected::start(ssh().arg("cat"));
    let sftp = Collected::start(ssh().args(["-s", "sftp"]));
    eventually("four sessions live", async || inside.app().db.read().await.is_ok() && inside.toy.tasks() >= 9).await;

    let mut left = 20;
    for (warned, words) in [(15, "15 minutes"), (5, "5 minutes"), (1, "1 minute")] {
        let (text, cursor) = (vim.text(), vim.cursor());
        let typed = prompt.cursor();
        inside.clock.advance(minutes(left - warned));
        left = warned;

        let title = format!("\x1b]2;sallyport: access ends in {words}");
        vim.wait_for(&title).await;
        vim.wait_for("\x07\x07").await;
        assert_eq!((vim.text(), vim.cursor()), (text, cursor), "{words}");
        prompt.wait_for(&format!("\x1b[7m sallyport: access ends in {words}")).await;
        prompt.wait_for("\x1b8\x1b[B").await;
        let at = prompt.text().iter().position(|line| line.starts_with("ready> echo half-")).unwrap();
        assert_eq!(prompt.text()[at].trim_end(), "ready> echo half-$((1+1))");
        assert!(prompt.text()[at - 1].contains(&format!("access ends in {words}")), "{:?}", prompt.text());
        assert_eq!(prompt.cursor().map(|(column, _)| column), typed.map(|(column, _)| column));
        assert_eq!(prompt.cursor().map(|(_, row)| row), Some(at));
    }

    // What was typed is still there to be run, and vim still has its file.
    prompt.terminal.type_keys("\n").await;
    prompt.wait_for("half-2").await;
    vim.terminal.type_keys("\x1b:wq\r").await;
    vim.wait_for("ready> ").await;
    assert_eq!(std::fs::read_to_string(file.path().join("poem")).unwrap(), "a line\nanother line and more\n");
    // The warning that vim's screen had no line for.
    vim.wait_for("access ends in 1 minute").await;
    let input = exec.child.stdin.as_mut().unwrap();
    tokio::io::AsyncWriteExt::write_all(input, b"as it was").await.unwrap();
    let (seen, said) = exec.finish().await;
    assert_eq!((seen.as_slice(), said.as_str()), (b"as it was".as_slice(), ""));
    let (seen, said) = sftp.finish().await;
    assert_eq!((seen.as_slice(), said.as_str()), (b"".as_slice(), ""));
    inside.bastion.stop().await;
}
