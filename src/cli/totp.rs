//! `sallyport person totp`: verification codes (RFC 6238) that logins ask for besides the first factor. Without a name it is
//! about the owner of the token.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::Subcommand;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use sallyport_domain::name::PrincipalName;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Format};
use super::{Global, when};
use crate::api::people::SentSecret;
use crate::api::second_factors::{BegunTotp, ConfirmTotp, RecoveryCodes, Totp, TotpState};

#[derive(Debug, Subcommand)]
pub(crate) enum TotpCommand {
    /// Make a secret and show it, once, to be read by an authenticator; a first code makes it count
    Enrol {
        /// Whom; left out, the owner of the token
        name: Option<PrincipalName>,
    },
    /// Make the secret count by a first code, and show the recovery codes, once
    Confirm {
        /// What the authenticator shows
        code: String,
        /// Whom; left out, the owner of the token
        name: Option<PrincipalName>,
    },
    /// Take secret and recovery codes away: logins no longer ask for a code
    Reset { name: PrincipalName },
    /// Show where it stands
    Show {
        /// Whom; left out, the owner of the token
        name: Option<PrincipalName>,
    },
}

/// The path of somebody's codes, and `more`.
fn path<'a>(name: Option<&'a PrincipalName>, more: &[&'a str]) -> Vec<&'a str> {
    let start = name.map_or(vec!["me", "totp"], |name| vec!["people", name.as_str(), "totp"]);
    [start.as_slice(), more].concat()
}

pub(super) async fn run(client: &Client, command: TotpCommand, global: &Global) -> Result<(), Failure> {
    match command {
        TotpCommand::Enrol { name } => enrol(client, name.as_ref(), global).await,
        TotpCommand::Confirm { code, name } => confirm(client, name.as_ref(), code, global).await,
        TotpCommand::Reset { name } => {
            let totp: Totp = client.delete(&path(Some(&name), &[])).await?;
            output::note(format!("logins of {name} no longer ask for a code; to begin anew: {}", enrol_line(&name)));
            if global.format() == Format::Table { Ok(()) } else { show(global, &totp) }
        }
        TotpCommand::Show { name } => show(global, &client.get(&path(name.as_ref(), &[]), &()).await?),
    }
}

fn enrol_line(name: &PrincipalName) -> String {
    format!("sallyport person totp enrol {name}")
}

fn show(global: &Global, totp: &Totp) -> Result<(), Failure> {
    let since = totp.since.map(when::local).unwrap_or_default();
    let state = match totp.state {
        TotpState::None => "none".to_owned(),
        TotpState::Begun => format!("begun {since}, not confirmed: logins do not ask for it"),
        TotpState::Enrolled => format!("enrolled since {since}"),
    };
    let rows = [
        ("State", state),
        ("Recovery codes", format!("{} left", totp.recovery_codes_left)),
        ("Locked", totp.locked_until.map_or("no".to_owned(), |until| format!("until {}", when::local(until)))),
    ];
    output::one(global.format(), totp, &rows)
}

async fn enrol(client: &Client, name: Option<&PrincipalName>, global: &Global) -> Result<(), Failure> {
    let begun: BegunTotp = client.ask(&path(name, &[]), &()).await?;
    output::note("this is the only time that the secret is shown");
    if global.format() == Format::Table && std::io::stdout().is_terminal() {
        output::text(&qr(&begun.uri)?)?;
    }
    output::one(global.format(), &begun, &[("Secret", begun.secret.clone()), ("URI", begun.uri.clone())])?;
    if global.format() != Format::Table || !global.prompt().can_ask() {
        let name = name.map(|name| format!(" {name}")).unwrap_or_default();
        output::note(format!("it counts once a code of it is confirmed: sallyport person totp confirm CODE{name}"));
        return Ok(());
    }
    for _ in 0..3 {
        let code = global.prompt().line("Code from the authenticator", "`sallyport person totp confirm`")?;
        match confirm(client, name, code, global).await {
            Err(failure) if failure.kind == super::failure::FailureKind::Failed => {
                output::note(format!("{:#}", failure.error));
            }
            ended => return ended,
        }
    }
    Err(Failure::usage("no code was right, so nothing counts yet")
        .hint("begin again with `sallyport person totp enrol`"))
}

async fn confirm(client: &Client, name: Option<&PrincipalName>, code: String, global: &Global) -> Result<(), Failure> {
    let body = ConfirmTotp { code: SentSecret::new(code) };
    let codes: RecoveryCodes = client.ask(&path(name, &["confirm"]), &body).await?;
    output::note(
        "from now on every login asks for a code; these are for the day the authenticator is lost, each for one",
    );
    output::note("login, and this is the only time that they are shown");
    if global.format() == Format::Table {
        return output::text(&codes.recovery_codes.join("\n"));
    }
    output::one(global.format(), &codes, &[("recovery codes", codes.recovery_codes.join(" "))])
}

/// The QR code of a text for a terminal, black on white whatever its colours are.
fn qr(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).context("the URI is too long for a QR code")?;
    let drawn = code.render::<Dense1x2>().quiet_zone(true).build();
    let lines = drawn.lines().map(|line| format!("\x1b[38;5;16;48;5;231m{line}\x1b[0m"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_fits_a_terminal_of_80_by_24_at_half_a_line_a_row_or_little_more() {
        let uri = "otpauth://totp/Sallyport:a.person.with.a.long.name?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP\
                   &issuer=Sallyport&algorithm=SHA1&digits=6&period=30";
        let drawn = qr(uri).unwrap();
        assert!(drawn.lines().count() <= 28, "{} lines", drawn.lines().count());
        assert!(drawn.lines().all(|line| line.chars().count() < 80 + 30));
    }

    #[test]
    fn without_a_name_it_is_about_oneself() {
        let alice: PrincipalName = "alice".parse().unwrap();
        assert_eq!(path(Some(&alice), &["confirm"]), ["people", "alice", "totp", "confirm"]);
        assert_eq!(path(None, &[]), ["me", "totp"]);
    }
}
