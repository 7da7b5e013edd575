//! `sallyport-verify`: verifies an evidence bundle on a machine that knows nothing of Sallyport, has no network and no account.
//! All it does is read the file and print what [`sallyport_domain::ledger::bundle::verify`] finds, so that there is little to read
//! for who builds it himself.
//!
//! Exit status: 0 all is proved, 6 something is wrong with the bundle, 2 the arguments or the file cannot be read.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::bundle::{self, Verdict};

const USAGE: &str = "\
usage: sallyport-verify FILE --key FINGERPRINT [--json]

Verifies an evidence bundle. FINGERPRINT is that of the ledger's public key, 64 hexadecimal digits; get it from
somebody you trust, not from where the file came from. `sallyport evidence key` prints it.

Exit status: 0 all is proved, 6 something is wrong with the bundle, 2 it cannot be read.
";

/// What was asked for.
struct Arguments {
    file: OsString,
    key: Hash,
    json: bool,
}

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    if given.iter().any(|word| word == "--help" || word == "-h") {
        return tell(USAGE, ExitCode::SUCCESS);
    }
    if given.iter().any(|word| word == "--version" || word == "-V") {
        return tell(concat!("sallyport-verify ", env!("CARGO_PKG_VERSION"), "\n"), ExitCode::SUCCESS);
    }
    let Arguments { file, key, json } = match read_arguments(given) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&format!("{error}\n\n{USAGE}")),
    };
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) => return fail(&format!("cannot read `{}`: {error}\n", file.to_string_lossy())),
    };
    let verdict = bundle::verify(&bytes, key);
    let text = if json { in_json(&verdict) } else { verdict.to_string() };
    tell(&text, if verdict.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(6) })
}

fn read_arguments(given: Vec<OsString>) -> Result<Arguments, String> {
    let (mut file, mut key, mut json) = (None, None, false);
    let mut given = given.into_iter();
    while let Some(word) = given.next() {
        match word.to_str() {
            Some("--json") => json = true,
            Some("--key") => {
                let text = given.next().unwrap_or_default();
                let text = text.to_string_lossy().to_ascii_lowercase();
                key = Some(text.parse().map_err(|error| format!("`{text}` is not a fingerprint: {error}"))?);
            }
            Some(option) if option.starts_with('-') => return Err(format!("`{option}` is not an option")),
            _ if file.is_none() => file = Some(word),
            _ => return Err("one file at a time".to_owned()),
        }
    }
    let file = file.ok_or("which file?")?;
    let key = key.ok_or("a fingerprint is needed: what the file says of itself proves nothing")?;
    Ok(Arguments { file, key, json })
}

fn in_json(verdict: &Verdict) -> String {
    let mut told = serde_json::to_value(verdict).unwrap_or_default();
    if let Some(members) = told.as_object_mut() {
        members.insert("sound".to_owned(), verdict.is_sound().into());
    }
    format!("{told:#}\n")
}

/// Prints the answer. A reader that went away has got what it wanted; the status says the rest.
fn tell(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => code,
    }
}

fn fail(text: &str) -> ExitCode {
    match io::stderr().write_all(format!("error: {text}").as_bytes()) {
        Ok(()) | Err(_) => ExitCode::from(2),
    }
}
