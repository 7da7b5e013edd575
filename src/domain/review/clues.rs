//! What a command's text, or a path, has to do with what a reviewer looks for. It reads a shell's language as a person skims it: words,
//! and what parts them, with quotes left out of account. What is written otherwise on purpose passes it; the recording is what counts.

use std::collections::BTreeSet;

use super::risk::Sign;

/// Programs that run the command behind them.
const RUNNERS: [&str; 22] = [
    "sudo", "doas", "pkexec", "runuser", "env", "nohup", "time", "nice", "ionice", "exec", "command", "sh", "bash",
    "dash", "zsh", "ksh", "xargs", "timeout", "watch", "stdbuf", "setsid", "busybox",
];

/// Programs by which somebody becomes somebody else.
const CHANGERS: [&str; 6] = ["sudo", "su", "doas", "pkexec", "runuser", "sg"];

/// Programs that only look at the files they are given.
const READERS: [&str; 24] = [
    "cat",
    "less",
    "more",
    "head",
    "tail",
    "ls",
    "ll",
    "stat",
    "file",
    "wc",
    "grep",
    "egrep",
    "fgrep",
    "zgrep",
    "diff",
    "cmp",
    "md5sum",
    "sha1sum",
    "sha256sum",
    "ssh-keygen",
    "find",
    "which",
    "man",
    "test",
];

/// What a command has to do with.
pub fn of_command(text: &str) -> BTreeSet<Sign> {
    let mut signs = BTreeSet::new();
    // Quotes and backslashes only hide words from a reader.
    let plain: String = text.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
    for part in plain.split(['\n', ';', '|', '&', '(', ')', '`', '{', '}']) {
        let words: Vec<&str> = part.split_whitespace().collect();
        of_words(&words, part.contains('>'), &mut signs);
    }
    signs
}

fn of_words(words: &[&str], redirects: bool, signs: &mut BTreeSet<Sign>) {
    let Some((program, arguments)) = program(words, signs) else { return };
    let has = |wanted: &[&str]| arguments.iter().any(|argument| wanted.contains(argument));
    match program {
        "ssh" | "sftp" | "autossh" | "sshpass" | "mosh" | "telnet" | "rlogin" | "rsh" | "ssh-copy-id" | "nc"
        | "ncat" | "netcat" | "socat" => {
            signs.insert(Sign::NestedSsh);
        }
        // The far end of somebody's copying to and from this very host goes nowhere.
        "scp" if !has(&["-t", "-f"]) && arguments.iter().any(|argument| argument.contains(':')) => {
            signs.insert(Sign::NestedSsh);
        }
        "rsync" if !has(&["--server"]) && arguments.iter().any(|argument| argument.contains(':')) => {
            signs.insert(Sign::NestedSsh);
        }
        "base64" | "base32" | "basenc" | "xxd" | "uuencode" | "gzip64" => {
            signs.insert(Sign::Encoded);
        }
        "openssl" if has(&["base64", "enc", "-base64", "-a"]) => {
            signs.insert(Sign::Encoded);
        }
        "crontab" if !has(&["-l"]) => {
            signs.insert(Sign::Cron);
        }
        "visudo" => {
            signs.insert(Sign::Sudoers);
        }
        "auditctl" if !has(&["-l", "-s", "-v"]) => {
            signs.insert(Sign::AuditConfig);
        }
        "systemctl" | "service" | "rc-service"
            if arguments.iter().any(|argument| argument.starts_with("auditd") || argument.starts_with("rsyslog"))
                && !has(&["status", "is-active", "is-enabled", "show"]) =>
        {
            signs.insert(Sign::AuditConfig);
        }
        "history" if has(&["-c", "-d", "-w"]) => {
            signs.insert(Sign::AuditConfig);
        }
        _ => {}
    }
    if words.iter().any(|word| word.contains("HISTFILE") || word.contains("HISTSIZE=0")) {
        signs.insert(Sign::AuditConfig);
    }
    if redirects || !READERS.contains(&program) {
        // `of=/etc/sudoers`, `>>/etc/sudoers`, `root@host:/etc/sudoers`
        let paths = words.iter().flat_map(|word| word.split(['=', '>', '<', ':', ',']));
        signs.extend(paths.filter_map(of_path));
    }
}

/// The program that a part of a command runs, and its arguments. Those that only run another one are passed by.
fn program<'a>(words: &'a [&'a str], signs: &mut BTreeSet<Sign>) -> Option<(&'a str, &'a [&'a str])> {
    let mut rest = words;
    let mut behind_runner = false;
    loop {
        let (first, after) = rest.split_first()?;
        let name = name_of(first);
        let is_assignment = first
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        let is_option =
            behind_runner && (first.starts_with('-') || first.chars().all(|c| c.is_ascii_digit() || c == '.'));
        let is_word_of_shells =
            matches!(name, "" | "if" | "then" | "else" | "elif" | "do" | "while" | "until" | "for" | "in");
        if is_assignment || is_option || is_word_of_shells {
            rest = after;
            continue;
        }
        if CHANGERS.contains(&name) {
            signs.insert(Sign::Root);
        }
        if RUNNERS.contains(&name) && !after.is_empty() {
            behind_runner = true;
            rest = after;
            // `sudo -u ops ls`: whom it runs as is no program.
            while let Some((option, more)) = rest.split_first().filter(|(option, _)| option.starts_with('-')) {
                let takes = matches!(*option, "-u" | "-g" | "-U" | "-p" | "-C" | "--user" | "--group");
                rest = if takes { more.get(1..).unwrap_or_default() } else { more };
            }
            if rest.is_empty() {
                return Some((name, after));
            }
            continue;
        }
        return Some((name, after));
    }
}

fn name_of(word: &str) -> &str {
    word.trim_start_matches(['$', '!', '#', '<', '>']).rsplit('/').next().unwrap_or_default()
}

/// What a path, however it was changed, has to do with.
pub fn of_path(path: &str) -> Option<Sign> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let within = |folders: &[&str]| folders.iter().any(|folder| path.contains(folder));
    if name.starts_with("authorized_keys") || within(&["/authorized_keys/"]) {
        Some(Sign::AuthorizedKeys)
    } else if name == "sudoers" || within(&["/etc/sudoers", "sudoers.d/"]) {
        Some(Sign::Sudoers)
    } else if matches!(name, "auditd.conf" | "audit.rules" | ".bash_history" | ".zsh_history")
        || within(&["/etc/audit", "/etc/audisp", "/var/log/audit", "/etc/rsyslog"])
    {
        Some(Sign::AuditConfig)
    } else if matches!(name, "crontab" | "anacrontab") && path.contains('/')
        || within(&["/etc/cron", "/var/spool/cron", "/etc/anacrontab", "cron.d/", "cron.daily/", "cron.hourly/"])
    {
        Some(Sign::Cron)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signs(text: &str) -> Vec<Sign> {
        of_command(text).into_iter().collect()
    }

    #[test]
    fn commands_that_a_reviewer_looks_for_are_found_wherever_they_stand() {
        for (text, expected) in [
            ("sudo systemctl restart app", vec![Sign::Root]),
            ("/usr/bin/sudo -u ops -n ls", vec![Sign::Root]),
            ("su -", vec![Sign::Root]),
            ("cd /tmp && sudo -i", vec![Sign::Root]),
            ("ssh db-7", vec![Sign::NestedSsh]),
            ("DISPLAY= nohup ssh -N -L 1:db:2 jump &", vec![Sign::NestedSsh]),
            ("timeout 5 bash -c 'ssh db-7 uptime'", vec![Sign::NestedSsh]),
            ("sudo -u ops ssh db-7", vec![Sign::NestedSsh, Sign::Root]),
            ("rsync -a /srv backup:/srv", vec![Sign::NestedSsh]),
            ("scp /srv/dump me@host:", vec![Sign::NestedSsh]),
            ("tar c /srv | base64", vec![Sign::Encoded]),
            ("openssl enc -base64 -in x", vec![Sign::Encoded]),
            ("echo ssh-ed25519 AAAA >> ~/.ssh/authorized_keys", vec![Sign::AuthorizedKeys]),
            ("vi .ssh/authorized_keys", vec![Sign::AuthorizedKeys]),
            ("cat key >>'/root/.ssh/authorized_keys'", vec![Sign::AuthorizedKeys]),
            ("(crontab -l; echo '* * * * * x') | crontab -", vec![Sign::Cron]),
            ("sudo tee /etc/cron.d/x", vec![Sign::Cron, Sign::Root]),
            ("dd of=/etc/sudoers", vec![Sign::Sudoers]),
            ("cd /etc; sed -i s/a/b/ sudoers", vec![Sign::Sudoers]),
            ("visudo", vec![Sign::Sudoers]),
            ("auditctl -D", vec![Sign::AuditConfig]),
            ("systemctl stop auditd", vec![Sign::AuditConfig]),
            ("history -c", vec![Sign::AuditConfig]),
            ("unset HISTFILE", vec![Sign::AuditConfig]),
            ("rm /var/log/audit/audit.log", vec![Sign::AuditConfig]),
        ] {
            assert_eq!(signs(text), expected, "{text}");
        }
    }

    #[test]
    fn looking_is_not_changing_and_the_far_end_of_a_copy_goes_nowhere() {
        for text in [
            "",
            "ls -l",
            "cat /etc/sudoers",
            "grep root /etc/cron.d/x",
            "crontab -l",
            "auditctl -l",
            "systemctl status auditd",
            "history",
            "scp -t /srv",
            "rsync --server --sender -e.LsfxCIvu . /srv:a",
            "echo done",
            "vim crontab.md",
            "systemctl restart app-ssh",
        ] {
            assert_eq!(signs(text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_more_of_it_hides_nothing(text in any::<String>(), found in "(sudo ls|ssh a|crontab -|visudo)") {
            let alone = of_command(&found);
            prop_assert!(!alone.is_empty());
            let all = of_command(&format!("{text}\n{found}\n{text}"));
            prop_assert!(alone.is_subset(&all), "{:?}", all);
        }

        #[test]
        fn any_path_is_read(path in any::<String>()) {
            let _ = of_path(&path);
        }
    }
}
