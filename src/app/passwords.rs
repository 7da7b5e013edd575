//! Password hashing: argon2id with 19 MiB, two passes, one lane (OWASP's first choice), away from the async threads and in
//! bounded numbers, since strangers can ask for it.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use sallyport_domain::secret::PrincipalPassword;

use crate::app::App;

/// Why a password was neither hashed nor checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("a password needs at least {LEAST_CHARACTERS} characters")]
    TooShort,
    #[error("a password may have at most {MOST_BYTES} bytes")]
    TooLong,
    #[error("too many passwords are being checked at present; try again in a moment")]
    Busy,
    #[error("the password could not be hashed")]
    Hashing,
}

/// The shortest password that is taken, in characters.
pub const LEAST_CHARACTERS: usize = 12;
/// The longest password that is looked at, in bytes.
pub const MOST_BYTES: usize = 1024;
/// How long a caller waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a password is checked against when nobody of that name has one: the same work, and never a match.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsbHlwb3J0LW5vYm9keQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|_| PasswordError::Hashing)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a new password, as a PHC string.
pub(crate) async fn hash(app: &App, password: PrincipalPassword) -> Result<String, PasswordError> {
    if password.expose().chars().count() < LEAST_CHARACTERS {
        return Err(PasswordError::TooShort);
    }
    if password.expose().len() > MOST_BYTES {
        return Err(PasswordError::TooLong);
    }
    in_turn(app, move || {
        let hash = hasher()?.hash_password(password.expose().as_bytes()).map_err(|_| PasswordError::Hashing)?;
        Ok(hash.to_string())
    })
    .await
}

/// Whether `password` has the hash `stored`. Without one the answer is no, after the same work.
pub async fn matches(app: &App, password: PrincipalPassword, stored: Option<&str>) -> Result<bool, PasswordError> {
    let known = stored.is_some() && password.expose().len() <= MOST_BYTES;
    let stored = stored.filter(|_| known).unwrap_or(NOBODY).to_owned();
    in_turn(app, move || {
        let typed = password.expose().as_bytes();
        let typed = typed.get(..MOST_BYTES).unwrap_or(typed);
        // `known` last: both cases do the work first.
        Ok(hasher()?.verify_password(typed, stored.as_str()).is_ok() && known)
    })
    .await
}

async fn in_turn<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    let turn = tokio::time::timeout(PATIENCE, app.password_turns.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(PasswordError::Busy) };
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn; // given back when the work is done, also if nobody waits for it any more
        work()
    });
    done.await.map_err(|_| PasswordError::Hashing)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only_and_nobody_has_none() {
        on_both(|db| async {
            let app = app_on(db);
            let of = |text: &str| PrincipalPassword::new(text);
            let stored = hash(&app, of("correct horse battery")).await.unwrap();

            assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
            assert!(matches(&app, of("correct horse battery"), Some(&stored)).await.unwrap());
            assert!(!matches(&app, of("correct horse"), Some(&stored)).await.unwrap());
            assert!(!matches(&app, of(&"x".repeat(5000)), Some(&stored)).await.unwrap());
            assert!(!matches(&app, of(""), None).await.unwrap());
            assert!(matches!(hash(&app, of("short")).await, Err(PasswordError::TooShort)));
            assert!(matches!(hash(&app, of(&"x".repeat(1025))).await, Err(PasswordError::TooLong)));
        })
        .await;
    }

    #[test]
    fn the_hash_for_nobody_takes_the_same_work() {
        let stored = argon2::PasswordHash::new(NOBODY).unwrap();
        let wanted = hasher().unwrap().hash_password(b"x").unwrap();
        assert_eq!(stored.params, wanted.params);
        assert_eq!((stored.algorithm, stored.version), (wanted.algorithm, wanted.version));
    }
}
