//! Replaces the key that the bastion logs in to a target with, by the books of [`crate::app::credential_rotation`]: new one in, proved by
//! a login, stored; old one out, proved dead. What runs at the target is a script that a plain `sh` reads from its input; nothing of it is
//! in an argument, and nothing of it is secret: both halves that go there are public.
//!
//! The account's file of keys is written beside and renamed, so it is whole at every moment. The new line has the options of the old one
//! (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").

use std::sync::Arc;
use std::time::Duration;

use russh::ChannelMsg;
use russh::keys::PrivateKey;
use sallyport_domain::channel::Program;
use sallyport_domain::event::Actor;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::secret::PrivateKeyText;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::dial::{self, Credential, DialError, Hop, TargetConnection};
use super::sever::Blade;
use super::targets::hop;
use crate::app::credential_rotation::{self, RotationError, Step, Turn};
use crate::app::{App, keys};

/// The longest that a script may take at the target.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(15);
/// The most that is read of what it says.
const MOST_SAID: usize = 4096;
/// How often schedules are looked at.
const SWEEP: Duration = Duration::from_secs(2);

/// What a script says last, if it did everything.
const DONE: &str = "sallyport-done";

/// Why a key was not replaced, or not wholly. What is stored works.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error(transparent)]
    Books(#[from] RotationError),
    #[error("{}: {source}", step_text(*step))]
    Step { step: Step, source: StepError },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("{}{}", .0, cause(.0))]
    Dial(#[source] Box<DialError>),
    /// The target was reached, proved itself, and takes no login with this key.
    #[error("{}{}", .0, cause(.0))]
    Refused(#[source] Box<DialError>),
    #[error("the target said: {0}")]
    Script(String),
    #[error("the target did not do it within {} s", SCRIPT_DEADLINE.as_secs())]
    TimedOut,
    #[error("the connection broke")]
    Broken(#[from] russh::Error),
    #[error("the old key still opens the account: is it in another file too?")]
    StillOpens,
    #[error("a stored key cannot be read")]
    Key,
    #[error(transparent)]
    Books(#[from] RotationError),
}

impl From<DialError> for StepError {
    fn from(error: DialError) -> Self {
        if matches!(error, DialError::CredentialRefused { .. }) {
            return StepError::Refused(Box::new(error));
        }
        StepError::Dial(Box::new(error))
    }
}

fn cause(error: &DialError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

fn step_text(step: Step) -> &'static str {
    match step {
        Step::Begun => "no new key was made",
        Step::Installed => "the new key was not installed; the old one is in use",
        Step::Proved => "a login with the new key did not succeed; the old one is in use",
        Step::Switched => "the new key was not stored; the old one is in use",
        Step::Removed => "the new key is in use; the old one was not removed",
        Step::Dead => "the new key is in use; that the old one opens nothing could not be proved",
    }
}

/// Replaces the key of `login` on `name`; goes on with what an earlier run has left. Gives the new key's fingerprint.
pub async fn rotate(
    app: &App,
    user_ca: &Arc<PrivateKey>,
    actor: &Actor,
    name: &TargetName,
    login: &Login,
    file: &str,
) -> Result<String, RotateError> {
    let turn = credential_rotation::take_turn(app, actor, name, login, file).await?;
    let fingerprint = turn.fingerprint().to_owned();
    let mut run = Run { app, user_ca, turn, step: Step::Installed };
    match run.go().await {
        Ok(()) => {
            run.turn.end(app).await?;
            info!(target = %name, %login, key = %fingerprint, "A target's key was replaced.");
            Ok(fingerprint)
        }
        Err(source) => {
            let Run { turn, step, .. } = run;
            warn!(target = %name, %login, error = %source, "A target's key was not replaced wholly.");
            turn.fail(app, step, &source.to_string()).await?;
            Err(RotateError::Step { step, source })
        }
    }
}

/// Replaces what is due, one after the other, until `stop`.
pub async fn sweep(app: App, user_ca: impl Fn() -> Arc<PrivateKey>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        while let Ok(Some((due, name))) = credential_rotation::take_due(&app, app.clock.now()).await {
            let user_ca = user_ca();
            let rotated = rotate(&app, &user_ca, &Actor::Bastion, &name, &due.login, &due.file);
            let rotated = tokio::select! {
                rotated = rotated => rotated,
                () = stop.cancelled() => return, // a crash is no more than that
            };
            let noted = match rotated {
                Ok(_) => credential_rotation::was_done(&app, &due).await,
                Err(_) => Ok(()), // an event says so
            };
            if let Err(error) = noted {
                warn!(target = %name, %error, "When a target's key is due next could not be noted; it is replaced again soon.");
            }
        }
    }
}

/// One turn's way through the steps.
struct Run<'a> {
    app: &'a App,
    user_ca: &'a Arc<PrivateKey>,
    turn: Turn,
    /// What is being done.
    step: Step,
}

/// Which of the two keys.
#[derive(Clone, Copy)]
enum Which {
    Old,
    New,
}

impl Run<'_> {
    async fn go(&mut self) -> Result<(), StepError> {
        if !self.turn.has_switched() {
            self.bring_in().await?;
        }
        self.take_out().await
    }

    /// From `begun` to `switched`.
    async fn bring_in(&mut self) -> Result<(), StepError> {
        self.begin(Step::Installed).await?;
        let connection = self.connect(Which::Old).await?;
        execute(&connection, &add_script(self.turn.file(), self.turn.old_key(), self.turn.new_key())?).await?;
        self.turn.note(self.app, Step::Installed).await?;
        drop(connection);

        self.begin(Step::Proved).await?;
        drop(self.connect(Which::New).await?);
        self.turn.note(self.app, Step::Proved).await?;

        self.begin(Step::Switched).await?;
        Ok(self.turn.switch(self.app).await?)
    }

    /// From `switched` to the proof that the old key is dead.
    async fn take_out(&mut self) -> Result<(), StepError> {
        self.begin(Step::Removed).await?;
        // Kept open, so that there is a way back in whatever becomes of the file.
        let inside = self.connect(Which::New).await?;
        execute(&inside, &remove_script(self.turn.file(), self.turn.old_key(), self.turn.new_key())?).await?;
        if let Err(error) = self.connect(Which::New).await {
            if matches!(error, StepError::Refused(_)) {
                // The old line is the one that is known to work: put back what was there, with both keys.
                let back = add_script(self.turn.file(), self.turn.new_key(), self.turn.old_key())?;
                execute(&inside, &back).await?;
            }
            return Err(error);
        }
        self.turn.note(self.app, Step::Removed).await?;
        drop(inside);

        self.begin(Step::Dead).await?;
        match self.connect(Which::Old).await {
            Err(StepError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(_connection) => Err(StepError::StillOpens),
        }
    }

    async fn begin(&mut self, step: Step) -> Result<(), StepError> {
        self.step = step;
        Ok(self.turn.hold(self.app).await?)
    }

    async fn connect(&self, which: Which) -> Result<TargetConnection, StepError> {
        let (turn, blade) = (&self.turn, Blade::default());
        let id = format!("rotation-{}", Uuid::now_v7());
        let mut jumps = Vec::new();
        for jump in turn.jumps() {
            let login = jump.logins.first().map(|account| account.login.clone());
            let none = DialError::NoCredential { target: jump.name.clone(), login: turn.login().clone() };
            jumps.push(hop(self.app, jump, &login.ok_or(none)?, self.user_ca, &id).await?);
        }
        let key = match which {
            Which::Old => turn.old_key(),
            Which::New => turn.new_key(),
        };
        let key = PrivateKey::from_openssh(key.expose()).map_err(|_| StepError::Key)?;
        let credential = Credential::Key(Arc::new(key));
        let hop = Hop { target: turn.target().clone(), login: turn.login().clone(), credential };
        Ok(dial::dial_for_rotation(turn, jumps, hop, &blade, &self.app.clock).await?)
    }
}

/// Runs a script at the target, which must say at its end that it is done.
async fn execute(connection: &TargetConnection, script: &str) -> Result<(), StepError> {
    tokio::time::timeout(SCRIPT_DEADLINE, run_script(connection, script))
        .await
        .map_err(|_elapsed| StepError::TimedOut)?
}

async fn run_script(connection: &TargetConnection, script: &str) -> Result<(), StepError> {
    let mut channel = connection.open(&Program::Exec { command: b"sh -s".to_vec() }).await?;
    channel.exec(true, "sh -s").await?;
    channel.data(script.as_bytes()).await?;
    channel.eof().await?;
    let (mut said, mut status) = (Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                let room = MOST_SAID - said.len().min(MOST_SAID);
                said.extend_from_slice(data.get(..data.len().min(room)).unwrap_or_default());
            }
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Failure => return Err(StepError::Script("it runs no commands".to_owned())),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    let said = String::from_utf8_lossy(&said);
    if status == Some(0) && said.lines().next_back() == Some(DONE) {
        return Ok(());
    }
    let said: String = said.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).take(300).collect();
    let said = said.trim();
    Err(StepError::Script(if said.is_empty() { "nothing, and failed".to_owned() } else { said.to_owned() }))
}

/// What both scripts begin with: `$file` as it was named, `$real` behind links, `$tmp` beside it.
fn head(file: &str, old: &PrivateKeyText, new: &PrivateKeyText) -> Result<String, StepError> {
    let public = |key: &PrivateKeyText| keys::public_half(key).ok_or(StepError::Key);
    let (old, new) = (public(old)?, public(new)?);
    Ok(format!(
        r#"set -u
fail() {{ echo "$1"; exit 1; }}
file={file}
old={old}
new={new}
[ -f "$file" ] || fail "there is no $file"
real=$(readlink -f -- "$file" 2>/dev/null) || real=$file
tmp=$real.sallyport-$$
trap 'rm -f -- "$tmp"' EXIT
"#,
        file = quoted(file),
        old = quoted(&old),
        new = quoted(&new),
    ))
}

/// Puts the line of the new key behind that of the old one, with its options. Done twice it is done once.
fn add_script(file: &str, old: &PrivateKeyText, new: &PrivateKeyText) -> Result<String, StepError> {
    const BODY: &str = r#"if ! grep -qF -- "$new" "$real"; then
  cp -p -- "$real" "$tmp" || fail "cannot write beside $file"
  found=
  while IFS= read -r line || [ -n "$line" ]; do
    printf '%s\n' "$line" || fail "cannot write $file"
    case $line in
      \#*) ;;
      *"$old"*) printf '%s%s sallyport\n' "${line%%"$old"*}" "$new" || fail "cannot write $file"; found=1 ;;
    esac
  done < "$real" > "$tmp" || fail "cannot write beside $file"
  [ -n "$found" ] || fail "the key that the bastion logs in with is not in $file"
  grep -qF -- "$new" "$tmp" || fail "cannot write beside $file"
  mv -f -- "$tmp" "$real" || fail "cannot replace $file"
fi
echo sallyport-done
"#;
    Ok(head(file, old, new)? + BODY)
}

/// Takes the lines of the old key away, if that of the new one is there.
fn remove_script(file: &str, old: &PrivateKeyText, new: &PrivateKeyText) -> Result<String, StepError> {
    const BODY: &str = r#"grep -qF -- "$new" "$real" || fail "the new key is not in $file"
if grep -qF -- "$old" "$real"; then
  cp -p -- "$real" "$tmp" || fail "cannot write beside $file"
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      \#*) printf '%s\n' "$line" || fail "cannot write $file" ;;
      *"$old"*) ;;
      *) printf '%s\n' "$line" || fail "cannot write $file" ;;
    esac
  done < "$real" > "$tmp" || fail "cannot write beside $file"
  grep -qF -- "$new" "$tmp" || fail "cannot write beside $file"
  mv -f -- "$tmp" "$real" || fail "cannot replace $file"
fi
echo sallyport-done
"#;
    Ok(head(file, old, new)? + BODY)
}

/// A word of `sh` that is just this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs a script as a target's `sh` does.
    fn run(script: &str) -> (bool, String) {
        let mut sh = Command::new("sh").arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = sh.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    struct Account {
        folder: tempfile::TempDir,
        old: (String, PrivateKeyText),
        new: (String, PrivateKeyText),
    }

    impl Account {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder, old: keys::generate("old").unwrap(), new: keys::generate("new").unwrap() }
        }

        fn file(&self) -> String {
            self.folder.path().join("it's keys").to_str().unwrap().to_owned()
        }

        fn write(&self, text: &str) {
            std::fs::write(self.file(), text).unwrap();
        }

        fn read(&self) -> String {
            std::fs::read_to_string(self.file()).unwrap()
        }

        fn add(&self) -> (bool, String) {
            run(&add_script(&self.file(), &self.old.1, &self.new.1).unwrap())
        }

        fn remove(&self) -> (bool, String) {
            run(&remove_script(&self.file(), &self.old.1, &self.new.1).unwrap())
        }
    }

    #[test]
    fn the_new_key_takes_the_old_ones_place_and_options_and_others_stay() {
        let account = Account::new();
        let (old, new) = (&account.old.0, &account.new.0);
        let stays = "# ssh-ed25519 of $HOME `x` \\n\nssh-rsa AAAA somebody else\n";
        // The last line has no end.
        account.write(&format!("{stays}from=\"10.0.0.0/8\",no-pty {old} it's ours"));

        for _ in 0..2 {
            assert_eq!(account.add(), (true, "sallyport-done\n".to_owned()));
            let options = "from=\"10.0.0.0/8\",no-pty";
            assert_eq!(account.read(), format!("{stays}{options} {old} it's ours\n{options} {new} sallyport\n"));
        }
        for _ in 0..2 {
            assert_eq!(account.remove(), (true, "sallyport-done\n".to_owned()));
            assert_eq!(account.read(), format!("{stays}from=\"10.0.0.0/8\",no-pty {new} sallyport\n"));
        }
        assert_eq!(std::fs::read_dir(account.folder.path()).unwrap().count(), 1, "nothing is left beside");
    }

    #[test]
    fn a_file_without_the_old_key_is_left_as_it_is() {
        let account = Account::new();
        account.write(&format!("#{}\nssh-rsa AAAA somebody else\n", account.old.0));
        let before = account.read();
        let (done, said) = account.add();
        assert!(!done && said.contains("is not in"), "{said}");
        assert_eq!(account.read(), before);
        let (done, said) = account.remove();
        assert!(!done && said.contains("the new key is not in"), "{said}");
    }

    #[test]
    fn a_file_that_is_a_link_stays_one_and_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let account = Account::new();
        let real = account.folder.path().join("real");
        std::fs::write(&real, format!("{}\n", account.old.0)).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, account.file()).unwrap();

        assert!(account.add().0 && account.remove().0);

        assert!(std::fs::symlink_metadata(account.file()).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(account.read(), format!("{} sallyport\n", account.new.0));
    }

    #[test]
    fn a_file_that_is_not_there_is_said_to_be_missing() {
        let account = Account::new();
        let (done, said) = account.add();
        assert!(!done && said.starts_with("there is no "), "{said}");
    }
}
