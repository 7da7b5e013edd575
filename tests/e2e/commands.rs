//! What was run, as the timeline tells it: with real shells on a real target, by a stock client with a terminal. And what a grant's
//! patterns let run, by two ways in.

use std::time::Duration;

use serde_json::Value;

use crate::bastion::Scene;
use crate::files::{self, WAYS, scene};
use crate::support::clients::{Run, Terminal};
use crate::support::eventually;

fn ssh(scene: &Scene, way: &str) -> Run {
    files::client(scene, "ssh").arg(way)
}

/// The latest session's timeline.
async fn timeline(scene: &Scene) -> Vec<Value> {
    let id = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let commands = scene.bastion.ask(&["session", "commands", &id]).await;
    commands["items"].as_array().unwrap().clone()
}

async fn ended(scene: &Scene) -> Vec<Value> {
    eventually("the session has ended", async || scene.bastion.sessions().await[0]["ended_at"].is_string()).await;
    timeline(scene).await
}

/// What of each command is told: who says so, what it is, how it ended.
fn told(commands: &[Value]) -> Vec<(&str, &str, Option<u64>)> {
    commands
        .iter()
        .map(|c| (c["certainty"].as_str().unwrap(), c["text"].as_str().unwrap(), c["exit_status"].as_u64()))
        .collect()
}

/// A shell in a terminal, with its prompt there.
async fn shell(scene: &Scene, command: &str) -> Terminal {
    let ssh = scene.ssh().env("TERM", "xterm").arg("-tt").arg(command);
    let mut terminal = ssh.in_terminal(80, 24);
    terminal.wait_for("ready> ").await;
    terminal
}

/// Types a line, and waits for what comes of it.
async fn enter(terminal: &mut Terminal, line: &str, then: &str) {
    terminal.type_keys(&format!("{line}\r")).await;
    terminal.wait_for(then).await;
}

/// bash without anybody's files.
fn bash(settings: &str) -> String {
    format!("env PS1='ready> ' {settings} bash --norc --noprofile -i")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_run_in_a_shell_is_told_while_the_session_goes_on_and_a_password_is_not() {
    let scene = Scene::open().await;
    let command = bash("LC_ALL=C.UTF-8");
    let mut terminal = shell(&scene, &command).await;

    enter(&mut terminal, "echo one-$((1+1))", "one-2\r\n").await;
    terminal.wait_for("ready> ").await;
    eventually("the command is told", async || timeline(&scene).await.len() == 2).await;
    terminal.type_keys("read -s -p 'Password: ' x\r").await;
    terminal.wait_for("x\r\n").await;
    terminal.wait_for("Password: ").await;
    terminal.type_keys("hunter2").await;
    terminal.settle(Duration::from_millis(100)).await;
    terminal.type_keys("\r").await;
    terminal.wait_for("ready> ").await;
    enter(&mut terminal, "", "ready> ").await; // a row of its own: `read -s` has printed none
    terminal.type_keys("\x1b[A\x1b[A").await; // the first one once more
    terminal.wait_for("echo one-$((1+1))").await;
    enter(&mut terminal, "", "one-2\r\n").await;
    terminal.wait_for("ready> ").await;
    terminal.type_keys("rm -rf /nowhere").await;
    terminal.wait_for("/nowhere").await;
    terminal.type_keys("\x03").await;
    terminal.wait_for("ready> ").await;
    terminal.type_keys("vi -u NONE -n\r").await;
    terminal.wait_for("~").await;
    terminal.settle(Duration::from_millis(300)).await;
    terminal.type_keys("ihello\x1b:q!\r").await;
    terminal.wait_for("ready> ").await;
    enter(&mut terminal, "echo 界面 | wc -m", "3\r\n").await;
    terminal.wait_for("ready> ").await;
    terminal.type_keys("exit 3\r").await;
    let (_, status) = terminal.finish().await;

    assert_eq!(status.code(), Some(3));
    let commands = ended(&scene).await;
    assert_eq!(
        told(&commands),
        [
            ("exec", command.as_str(), Some(3)),
            ("screen", "echo one-$((1+1))", None),
            ("screen", "read -s -p 'Password: ' x", None),
            ("screen", "echo one-$((1+1))", None),
            ("screen", "vi -u NONE -n", None),
            ("screen", "echo 界面 | wc -m", None),
            ("screen", "exit 3", None),
        ]
    );
    let instants: Vec<&str> = commands.iter().map(|command| command["at"].as_str().unwrap()).collect();
    assert!(instants.is_sorted());
    let id = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let detail = scene.bastion.ask(&["session", "show", &id]).await;
    assert_eq!(detail["commands"], serde_json::json!({ "seen": 7, "kept": 7, "flagged": 0 }));
    let shown = scene.bastion.admin(&["session", "commands", &id]).await;
    assert!(shown.contains("echo 界面 | wc -m") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_marks_its_prompts_says_how_commands_ended() {
    let scene = Scene::open().await;
    let marks = r#"PS1='\[\e]133;A\a\]ready> \[\e]133;B\a\]' PS0='\[\e]133;C\a\]' PROMPT_COMMAND='printf "\e]133;D;%s\a" "$?"'"#;
    let rc = scene.bastion.path("rc");
    std::fs::write(&rc, marks.replace("' P", "'\nP")).unwrap();
    let command = format!("bash --noprofile --rcfile {} -i", rc.display());
    let mut terminal = shell(&scene, &command).await;

    for (line, then) in [("(exit 7)", "ready> "), ("", "ready> "), ("sleep 0.2", "ready> "), ("for i in 1 2; do", "> ")]
    {
        enter(&mut terminal, line, then).await;
    }
    enter(&mut terminal, "echo $i", "> ").await;
    enter(&mut terminal, "done", "ready> ").await;
    terminal.type_keys("exit\r").await;
    terminal.finish().await;

    let commands = ended(&scene).await;
    let told = told(&commands);
    assert_eq!(
        told[..3],
        [
            ("exec", command.as_str(), Some(0)),
            ("shell_mark", "(exit 7)", Some(7)),
            ("shell_mark", "sleep 0.2", Some(0))
        ]
    );
    assert_eq!(told[3], ("shell_mark", "for i in 1 2; do\n> echo $i\n> done", Some(0)));
    assert_eq!((told[4].0, told[4].1, told.len()), ("shell_mark", "exit", 5));
    assert!((200_000..5_000_000).contains(&commands[2]["duration_us"].as_u64().unwrap()), "{}", commands[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_shell_with_the_terminals_own_echo_is_followed_too() {
    let scene = Scene::open().await;
    let mut terminal = shell(&scene, "env PS1='ready> ' dash -i").await;

    enter(&mut terminal, "echo a-$((2+2))", "a-4\r\n").await;
    terminal.wait_for("ready> ").await;
    terminal.type_keys("stty -echo; printf 'sudo password: '; read x; stty echo\r").await;
    terminal.wait_for("echo\r\n").await;
    terminal.wait_for("sudo password: ").await;
    enter(&mut terminal, "hunter2", "ready> ").await;
    // Pasted at once, without brackets.
    terminal.type_keys("echo b-$((3+3))\recho c-$((4+4))\r").await;
    terminal.wait_for("b-6\r\n").await;
    terminal.wait_for("c-8\r\n").await;
    terminal.type_keys(&format!("echo {}\r", "long-".repeat(40))).await;
    terminal.wait_for("long-\r\n").await;
    terminal.type_keys("exit\r").await;
    terminal.finish().await;

    let commands = ended(&scene).await;
    let long = format!("echo {}", "long-".repeat(40));
    let texts: Vec<&str> = told(&commands).into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(
        texts[1..],
        [
            "echo a-$((2+2))",
            "stty -echo; printf 'sudo password: '; read x; stty echo",
            "echo b-$((3+3))",
            "echo c-$((4+4))",
            &long,
            "exit",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn single_commands_and_shells_without_a_terminal_are_told_with_what_is_known_of_them() {
    let scene = Scene::open().await;

    scene.ssh().arg("sleep 0.1; exit 5").run().await;
    let commands = ended(&scene).await;
    assert_eq!(told(&commands), [("exec", "sleep 0.1; exit 5", Some(5))]);
    assert!(commands[0]["duration_us"].as_u64().unwrap() >= 100_000);

    scene.ssh().arg("-T").input("echo a\nexit 4\n").run().await;
    assert_eq!(told(&ended(&scene).await), [("input", "echo a", None), ("input", "exit 4", None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_told_once_though_the_bastion_dies_under_way() {
    let mut scene = Scene::open().await;
    let command = bash("");
    let mut terminal = shell(&scene, &command).await;
    enter(&mut terminal, "echo one-$((1+1))", "one-2\r\n").await;
    eventually("the command is told", async || timeline(&scene).await.len() == 2).await;
    enter(&mut terminal, "echo two-$((1+1))", "two-2\r\n").await;

    scene.bastion.kill();
    scene.bastion.open().await;

    let texts = ["echo one-$((1+1))", "echo two-$((1+1))"];
    eventually("the rest is recovered", async || timeline(&scene).await.len() == 3).await;
    let commands = ended(&scene).await;
    assert_eq!(told(&commands)[1..].iter().map(|told| told.1).collect::<Vec<_>>(), texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_grant_flags_is_an_event_and_a_mark_in_the_timeline() {
    let scene = scene(&["--flag-pattern", "*rm -rf*", "--flag-pattern", "*/etc/shadow*"]).await;

    ssh(&scene, "direct").arg("rm  -rf /nowhere/at/all").run().await.expect_success();
    let commands = ended(&scene).await;
    let id = scene.bastion.sessions().await[0]["id"].clone();
    let mut terminal = shell(&scene, &bash("")).await;
    enter(&mut terminal, "cat /etc/shadow | wc -c", "ready> ").await;
    eventually("the command is told", async || timeline(&scene).await.len() == 2).await;

    assert_eq!(commands[0]["flag"], "*rm -rf*");
    assert_eq!(timeline(&scene).await[1]["flag"], "*/etc/shadow*");
    let events = scene.bastion.ask(&["audit", "ls", "--act", "command_flagged"]).await;
    let acts: Vec<&Value> = events["items"].as_array().unwrap().iter().map(|event| &event["act"]).collect();
    assert_eq!(acts.len(), 2, "{acts:?}");
    assert!(acts.iter().any(|act| act["session"] == id && act["pattern"] == "*rm -rf*" && act["number"] == 0));
    assert!(!events.to_string().contains("nowhere"), "an event tells nothing that was typed");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_patterns_nothing_else_runs_and_no_shell_by_either_way() {
    let scene =
        scene(&["--exec-pattern", "echo ok-*", "--exec-pattern", "cat /etc/host*", "--exec-pattern", "id | wc -l"])
            .await;
    let hostile = [
        "",
        "id",
        "echo",
        "echo ok-",
        "echo ok-1;id",
        "echo ok-1\nid",
        "echo ok-$(id)",
        "echo ok-`id`",
        "echo ok-1 && id",
        "echo ok-1|id",
        "echo ok-1 >/tmp/x",
        "echo ok-*",
        "echo ok-'1'",
        "echo  ok-1",
        " echo ok-1",
        "echo ok-1 ",
        "echo ok-1 2",
        "cat /etc/host/../shadow",
        "cat /etc/hosts /etc/shadow",
        "cat /etc/host..",
        "sh -c 'echo ok-1'",
        "scp -t /tmp",
        "/usr/lib/openssh/sftp-server",
        "rsync --server . /tmp",
        "echo ok-{1,2}",
        "echo ok-~",
        "echo ok-1#",
        "echo ok-1\\\nid",
    ];
    for way in WAYS {
        let allowed = ssh(&scene, way).arg("echo ok-1.2").run().await.expect_success();
        assert_eq!(allowed.text(), "ok-1.2\n");
        assert_eq!(ssh(&scene, way).arg("id | wc -l").run().await.expect_success().text().trim(), "1");
        assert!(ssh(&scene, way).arg("cat /etc/hostname").run().await.code() == Some(0));
        for command in hostile.into_iter().filter(|command| !command.is_empty()) {
            let refused = ssh(&scene, way).arg(command).run().await;
            assert_eq!((refused.code(), refused.text().as_str()), (Some(254), ""), "{way}: {command:?}");
            assert!(refused.errors().contains("the grant does not allow"), "{way}: {command:?}: {}", refused.errors());
        }
        for shell in [ssh(&scene, way).arg("-T"), ssh(&scene, way).arg("-tt")] {
            let refused = shell.input("echo ok-1\n").run().await;
            assert_ne!(refused.code(), Some(0), "{way}");
            assert!(!refused.text().contains("ok-1\n"), "{way}: {}", refused.text());
        }
        let subsystem = ssh(&scene, way).args(["-s", "netconf"]).run().await;
        assert_ne!(subsystem.code(), Some(0), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_and_a_shell_do_not_go_together_and_files_keep_their_own_rules() {
    let scene = scene(&["--allow", "exec,upload", "--exec-pattern", "uptime"]).await;
    let both = [
        "grant",
        "new",
        "alice",
        "web-1",
        "--for",
        "1h",
        "--reason",
        "e2e",
        "--allow",
        "shell,exec",
        "--exec-pattern",
        "id",
    ];
    let refused = scene.bastion.try_admin(&both).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("patterns of commands leave no shell"), "{said}");

    let (from, to) = (scene.bastion.path("from"), scene.bastion.path("to"));
    std::fs::write(&from, "content").unwrap();
    for (way, options) in WAYS.into_iter().zip([&[][..], &["-O"]]) {
        let copy = scene.desk.program("scp").arg("-F").arg(scene.desk.config()).args(options);
        copy.arg(&from).arg(format!("{way}:{}", to.display())).run().await.expect_success();
        assert_eq!(std::fs::read(&to).unwrap(), b"content");
        std::fs::remove_file(&to).unwrap();
        assert_eq!(ssh(&scene, way).arg("id").run().await.code(), Some(254));
    }
}
