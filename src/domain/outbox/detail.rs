//! How much of a command or a path is told outside. Commands carry secrets as arguments, paths name clients and their data.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Nothing: it is left out.
    #[default]
    Off,
    /// Its SHA-256, as `sha256:…`: what is known elsewhere can be found again. What is short can be guessed.
    Hash,
    /// Programs and names of options of a command; the first part and the depth of a path.
    Redacted,
    Full,
}

/// What stands for what is not told.
const HIDDEN: &str = "*";

/// The longest word that is taken for a program's name, in bytes.
const MOST_PROGRAM: usize = 64;

impl Detail {
    /// As much of a command's text as is told.
    pub fn command(self, text: &str) -> Option<String> {
        match self {
            Detail::Off => None,
            Detail::Hash => Some(hash(text)),
            Detail::Redacted => Some(redacted_command(text)),
            Detail::Full => Some(text.to_owned()),
        }
    }

    /// As much of a path as is told.
    pub fn path(self, path: &str) -> Option<String> {
        match self {
            Detail::Off => None,
            Detail::Hash => Some(hash(path)),
            Detail::Redacted => Some(redacted_path(path)),
            Detail::Full => Some(path.to_owned()),
        }
    }
}

fn hash(text: &str) -> String {
    format!("sha256:{}", Hash::of(text.as_bytes()))
}

/// Keeps the program of each part of a command line, and the names of options: of long ones up to `=`, of short ones the first
/// letter, for `-psecret` is a password. All else is hidden. Words are cut at blanks, whatever a shell would make of quotes: a
/// quoted value has its words hidden one by one.
fn redacted_command(text: &str) -> String {
    let mut told = Vec::new();
    let mut expects_program = true;
    for word in text.split_whitespace() {
        let kept = if matches!(word, "|" | "||" | "&&" | "&" | ";") {
            expects_program = true;
            word
        } else if expects_program && let Some((variable, _value)) = word.split_once('=') {
            // `PGPASSWORD=x psql`: what follows may still be the program.
            told.push(if is_name(variable) { format!("{variable}={HIDDEN}") } else { HIDDEN.to_owned() });
            continue;
        } else if expects_program {
            expects_program = false;
            if is_program(word) { word } else { HIDDEN }
        } else {
            option(word).unwrap_or(HIDDEN)
        };
        // One after another stands for all of them: how many words a value has is nobody's business.
        if kept != HIDDEN || told.last().is_none_or(|last| last != HIDDEN) {
            told.push(kept.to_owned());
        }
    }
    told.join(" ")
}

/// The name of an option, without what is attached to it.
fn option(word: &str) -> Option<&str> {
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or(long);
        return is_name(name).then(|| word.get(..name.len() + 2)).flatten();
    }
    let letter = word.strip_prefix('-')?.chars().next().filter(char::is_ascii_alphabetic)?;
    word.get(..=letter.len_utf8())
}

fn is_name(name: &str) -> bool {
    (1..=MOST_PROGRAM).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_program(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/+-".contains(&byte);
    word.len() <= MOST_PROGRAM && word.bytes().all(is_plain)
}

/// Keeps the first part of a path: `/srv/*/*`.
fn redacted_path(path: &str) -> String {
    let (root, rest) = match path.strip_prefix('/') {
        Some(rest) => ("/", rest),
        None => ("", path),
    };
    let mut parts = rest.split('/').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    let hidden: String = parts.map(|_| "/*").collect();
    format!("{root}{first}{hidden}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(text: &str) -> String {
        Detail::Redacted.command(text).unwrap()
    }

    #[test]
    fn of_a_redacted_command_programs_and_names_of_options_are_left() {
        for (command, told) in [
            ("systemctl restart app-1", "systemctl *"),
            ("mysql -uroot -psecret --host=db-1 -D prod", "mysql -u -p --host -D *"),
            ("PGPASSWORD=x psql -h db", "PGPASSWORD=* psql -h *"),
            ("cat /etc/shadow | grep -v root && reboot", "cat * | grep -v * && reboot"),
            ("curl -H 'Authorization: Bearer abc def'", "curl -H *"),
            ("hunter2!", "*"),
            ("", ""),
        ] {
            assert_eq!(redacted(command), told, "{command}");
        }
    }

    #[test]
    fn of_a_redacted_path_its_first_part_and_its_depth_are_left() {
        for (path, told) in [("/srv/app/secret.tar", "/srv/*/*"), ("~/x", "~/*"), ("/", "/"), ("a", "a")] {
            assert_eq!(Detail::Redacted.path(path).unwrap(), told);
        }
    }

    #[test]
    fn what_is_off_is_not_told_and_a_hash_is_sha_256() {
        assert_eq!((Detail::Off.command("ls"), Detail::Off.path("/srv")), (None, None));
        let of_abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        assert_eq!(Detail::Hash.command("abc").unwrap(), of_abc);
        assert_eq!(Detail::Full.command("ls -l"), Some("ls -l".to_owned()));
    }

    proptest! {
        #[test]
        fn no_argument_gets_through(
            program in "[a-z]{1,8}",
            options in prop::collection::vec("-[a-z]{1,3}|--[a-z]{1,8}", 0..3),
            secret in "[QXZ#%!0-9]{3,20}[#%!]",
            glue in prop::sample::select(vec![" ", "=", "'", " '", "x", ":"]),
        ) {
            let told = redacted(&format!("{program} {}{glue}{secret}", options.join(" ")));
            prop_assert!(!told.contains(&secret), "{}", told);
        }
    }
}
