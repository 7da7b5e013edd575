//! Second factors: a secret that an authenticator shares with us (RFC 6238), and recovery codes for the day it is lost.
//!
//! ```text
//! none ──begin: the secret is shown, once──► begun ──a first code──► enrolled: recovery codes are shown, once
//!   ◄──────────────────────────────────────reset, by an admin───────────────┘
//! ```
//!
//! The parameters are those that every authenticator knows: SHA-1 (as an HMAC it is sound, RFC 4226 appendix B.2), six
//! digits, steps of 30 s. The secret is stored sealed.

use std::time::Duration;

use aws_lc_rs::rand;
use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::PrincipalId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::policy::SecondFactor;
use sallyport_domain::secret::{RecoveryCode, TotpSecret, VerificationCode};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use totp_rs::{Builder, Secret, Totp};

use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, principals, second_factors};
use crate::store::seal::SealError;

/// So many wrong codes within [`FAILURE_WINDOW`] lock the factor for [`LOCKED_FOR`]. A guess at one of three codes that
/// hold at a time succeeds once in 333,333; by this there are some 1,440 a day at most.
pub const MOST_FAILURES: u32 = 5;
const FAILURE_WINDOW: Duration = Duration::from_mins(5);
const LOCKED_FOR: Duration = Duration::from_mins(5);
/// Recovery codes that are given at once.
pub const RECOVERY_CODES: usize = 10;

/// RFC 4226 §4 R6: a shared secret of 160 bits is recommended.
const SECRET_BYTES: usize = 20;
/// 80 bits, so that a plain hash of it is as good as a slow one.
const RECOVERY_BYTES: usize = 10;
/// Longer than any code with its blanks and dashes.
const MOST_CODE_BYTES: usize = 64;

/// Why a second factor was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum SecondFactorError {
    #[error("there is no person `{name}`")]
    Unknown { name: PrincipalName },
    #[error("`{name}` has a second factor already; an admin must reset it first")]
    EnrolledAlready { name: PrincipalName },
    #[error("`{name}` has not begun to enrol a second factor")]
    NotBegun { name: PrincipalName },
    #[error("`{name}` has no second factor")]
    None { name: PrincipalName },
    #[error("the code is not the one for now: check the authenticator's clock, and take the newest code")]
    WrongCode,
    #[error("the system gave no randomness for a secret")]
    NoRandomness,
    /// The secret does not open: another master key, or the row was changed.
    #[error("the second factor's secret cannot be used")]
    Sealed(#[from] SealError),
    #[error("the second factor's secret is none of RFC 6238")]
    Secret,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What the person's authenticator is to know. Given here and never again.
#[derive(Debug)]
pub struct Enrolment {
    /// In base 32, for typing.
    pub secret: TotpSecret,
    /// The same as an `otpauth://` URI, for a QR code.
    pub uri: TotpSecret,
}

/// Where a person's second factor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    None,
    /// The secret was shown, and no code of it yet.
    Begun {
        at: DateTime<Utc>,
    },
    /// It counts: every login asks for it.
    Enrolled {
        at: DateTime<Utc>,
        recovery_codes_left: u32,
        /// Too many wrong codes; none is taken until then.
        locked_until: Option<DateTime<Utc>>,
    },
}

/// What came of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeAnswer {
    Right(SecondFactor),
    Wrong,
    /// It was right, and somebody has used it before.
    UsedBefore,
    /// No code is looked at until then.
    Locked {
        until: DateTime<Utc>,
    },
}

/// Where the person's second factor stands.
pub async fn status(app: &App, name: &PrincipalName) -> Result<Status, SecondFactorError> {
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    let person = person(&mut tx, name).await?;
    let Some(found) = second_factors::find(&mut tx, person).await? else { return Ok(Status::None) };
    Ok(match found.confirmed_at {
        None => Status::Begun { at: found.created_at },
        Some(at) => Status::Enrolled {
            at,
            recovery_codes_left: second_factors::codes_left(&mut tx, person).await?,
            locked_until: found.locked_until.filter(|until| now < *until),
        },
    })
}

/// Begins to enrol: makes a secret. It counts once [`confirm`] has seen a code of it; until then it may be made anew.
pub async fn begin(app: &App, name: &PrincipalName) -> Result<Enrolment, SecondFactorError> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| SecondFactorError::NoRandomness)?;
    let mut tx = app.db.write().await?;
    let person = person(&mut tx, name).await?;
    let sealed = app.master.seal(&context(person), bytes.as_slice())?;
    if !second_factors::begin(&mut tx, person, &sealed, app.clock.now()).await? {
        return Err(SecondFactorError::EnrolledAlready { name: name.clone() });
    }
    // Nothing that counts has changed, so there is no event yet.
    tx.commit().await?;
    let secret = Zeroizing::new(Secret::from(bytes.as_slice()).to_base32());
    // Key URI format, as authenticators read it. A name needs no escaping: its alphabet is that of unreserved characters.
    let uri = format!(
        "otpauth://totp/Sallyport:{name}?secret={}&issuer=Sallyport&algorithm=SHA1&digits=6&period=30",
        secret.as_str()
    );
    Ok(Enrolment { secret: TotpSecret::new(secret.as_str()), uri: TotpSecret::new(uri) })
}

/// Makes the factor count, if `code` shows that the authenticator has the secret; gives the recovery codes.
pub async fn confirm(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    code: &VerificationCode,
) -> Result<Vec<RecoveryCode>, SecondFactorError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let person = person(&mut tx, name).await?;
    let begun = second_factors::find(&mut tx, person).await?;
    let begun = begun.ok_or_else(|| SecondFactorError::NotBegun { name: name.clone() })?;
    if begun.confirmed_at.is_some() {
        return Err(SecondFactorError::EnrolledAlready { name: name.clone() });
    }
    let typed = typed(code);
    let step = matching_step(app, person, &begun.sealed, &typed, now)?.ok_or(SecondFactorError::WrongCode)?;
    if !second_factors::confirm(&mut tx, person, step, now).await? {
        return Err(SecondFactorError::EnrolledAlready { name: name.clone() });
    }
    let mut codes = Vec::with_capacity(RECOVERY_CODES);
    for _ in 0..RECOVERY_CODES {
        let code = make_recovery_code()?;
        second_factors::insert_code(&mut tx, person, &hash(code.expose())).await?;
        codes.push(code);
    }
    audit::append(&mut tx, now, actor, Act::SecondFactorEnrolled { person }).await?;
    tx.commit().await?;
    Ok(codes)
}

/// Takes the second factor and its recovery codes away: logins no longer ask for it. Sessions go on.
pub async fn reset(app: &App, actor: &Actor, name: &PrincipalName) -> Result<(), SecondFactorError> {
    let mut tx = app.db.write().await?;
    let person = person(&mut tx, name).await?;
    if !second_factors::remove(&mut tx, person).await? {
        return Err(SecondFactorError::None { name: name.clone() });
    }
    audit::append(&mut tx, app.clock.now(), actor, Act::SecondFactorReset { person }).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether logins of this person ask for a second factor.
pub(super) async fn is_enrolled(app: &App, person: PrincipalId) -> Result<bool, DbError> {
    let found = second_factors::find(&mut app.db.read().await?, person).await?;
    Ok(found.is_some_and(|found| found.confirmed_at.is_some()))
}

/// Judges a code of six digits, or a recovery code, that was typed at `now`. Each is taken once, on whichever node; the try is
/// counted before the code is looked at, so that many at once are not more guesses than one after the other.
pub(super) async fn judge(
    app: &App,
    person: PrincipalId,
    code: &VerificationCode,
    now: DateTime<Utc>,
) -> Result<CodeAnswer, SecondFactorError> {
    let typed = typed(code);
    let mut tx = app.db.write().await?;
    let Some(tried) = second_factors::count_try(&mut tx, person, now, now - FAILURE_WINDOW).await? else {
        let locked = second_factors::find(&mut tx, person).await?.and_then(|found| found.locked_until);
        return Ok(locked.filter(|until| now < *until).map_or(CodeAnswer::Wrong, |until| CodeAnswer::Locked { until }));
    };
    let actor = Actor::Principal { id: person, name: name_of(&mut tx, person).await? };
    let answer = if let Some(step) = matching_step(app, person, &tried.sealed, &typed, now)? {
        if second_factors::use_step(&mut tx, person, step).await? {
            CodeAnswer::Right(SecondFactor::Totp)
        } else {
            second_factors::forgive(&mut tx, person).await?; // whoever has it again had it before: no guess
            CodeAnswer::UsedBefore
        }
    } else if second_factors::use_code(&mut tx, person, &hash(&typed), now).await? {
        second_factors::clear(&mut tx, person).await?;
        let left = second_factors::codes_left(&mut tx, person).await?;
        audit::append(&mut tx, now, &actor, Act::RecoveryCodeUsed { person, left }).await?;
        CodeAnswer::Right(SecondFactor::RecoveryCode)
    } else if u32::try_from(tried.failures).is_ok_and(|failures| failures < MOST_FAILURES) {
        CodeAnswer::Wrong
    } else {
        let until = now + LOCKED_FOR;
        second_factors::lock(&mut tx, person, until).await?;
        audit::append(&mut tx, now, &actor, Act::SecondFactorLocked { person, until }).await?;
        CodeAnswer::Locked { until }
    };
    tx.commit().await?;
    Ok(answer)
}

async fn person(tx: &mut Tx, name: &PrincipalName) -> Result<PrincipalId, SecondFactorError> {
    let found = principals::find(tx, name).await?;
    Ok(found.ok_or_else(|| SecondFactorError::Unknown { name: name.clone() })?.principal.id)
}

async fn name_of(tx: &mut Tx, person: PrincipalId) -> Result<PrincipalName, DbError> {
    let found = principals::find_by_id(tx, person).await?;
    Ok(found.ok_or_else(|| DbError::corrupt("look at a verification code", "it is nobody's"))?.principal.name)
}

pub(crate) fn context(person: PrincipalId) -> String {
    format!("person/{person}/totp")
}

/// The code without what people put between its parts, in lower case. What is too long for a code is none.
fn typed(code: &VerificationCode) -> Zeroizing<String> {
    let text = code.expose();
    let text = if text.len() > MOST_CODE_BYTES { "" } else { text };
    let kept = text.chars().filter(|character| !character.is_whitespace() && *character != '-');
    Zeroizing::new(kept.map(|character| character.to_ascii_lowercase()).collect())
}

/// The time step that `code` is for: the present one, the one before or the one after (RFC 6238 §5.2), for clocks that differ.
fn matching_step(
    app: &App,
    person: PrincipalId,
    sealed: &[u8],
    code: &str,
    now: DateTime<Utc>,
) -> Result<Option<i64>, SecondFactorError> {
    let secret = app.master.open(&context(person), sealed)?;
    let totp = totp(secret.expose_secret())?;
    if code.len() != usize::from(totp.digits()) || !code.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(None);
    }
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    Ok(totp.check(code, seconds).and_then(|step| i64::try_from(step).ok()))
}

fn totp(secret: &[u8]) -> Result<Totp, SecondFactorError> {
    // SHA-1, six digits, 30 s, and one step of drift are what it builds unless told otherwise.
    Builder::new().with_secret(secret).build().map_err(|_| SecondFactorError::Secret)
}

/// `abcd-efgh-jkmn-pqrs`, in Crockford's base 32: no letter that looks like a digit.
fn make_recovery_code() -> Result<RecoveryCode, SecondFactorError> {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut bytes = Zeroizing::new([0; RECOVERY_BYTES]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| SecondFactorError::NoRandomness)?;
    let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let digits = (0..16).rev().map(|place| DIGITS[(number >> (place * 5) & 31) as usize]);
    let mut text = Zeroizing::new(String::with_capacity(19));
    for (place, digit) in digits.enumerate() {
        if place > 0 && place % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(digit));
    }
    Ok(RecoveryCode::new(text.as_str()))
}

/// The hash under which a recovery code is stored; dashes do not count.
fn hash(code: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"sallyport recovery code 1");
    code.bytes().filter(|byte| *byte != b'-').for_each(|byte| hasher.update([byte]));
    hasher.finalize().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::app::logins::{self, has_second_factor};
    use crate::app::people;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    /// An authenticator, as a person has it.
    struct Authenticator(Secret);

    impl Authenticator {
        fn code(&self, at: DateTime<Utc>) -> VerificationCode {
            let seconds = u64::try_from(at.timestamp()).unwrap();
            let token = Builder::new().with_secret(self.0.as_bytes()).build().unwrap().generate(seconds);
            VerificationCode::new(token.to_string())
        }
    }

    async fn begin_for(app: &App, name: &PrincipalName) -> Authenticator {
        let begun = begin(app, name).await.unwrap();
        Authenticator(Secret::try_from_base32(begun.secret.expose()).unwrap())
    }

    /// Alice with a second factor, a step after she confirmed it.
    async fn enrolled(app: &App) -> (PrincipalId, Authenticator, Vec<RecoveryCode>) {
        let alice = people::add(app, &OPERATOR, named("alice")).await.unwrap().principal;
        let authenticator = begin_for(app, &alice.name).await;
        let code = authenticator.code(app.clock.now());
        let codes = confirm(app, &OPERATOR, &alice.name, &code).await.unwrap();
        app.clock.advance(Duration::from_secs(30));
        (alice.id, authenticator, codes)
    }

    async fn try_code(app: &App, person: PrincipalId, code: &VerificationCode) -> CodeAnswer {
        logins::by_totp(app, person, code, app.clock.now()).await.unwrap()
    }

    const RIGHT: CodeAnswer = CodeAnswer::Right(SecondFactor::Totp);

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238 appendix B, SHA-1, the last six of eight digits.
        let totp = totp(b"12345678901234567890").unwrap();
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(totp.generate(seconds).to_string(), code);
            assert_eq!(totp.check(code, seconds), Some(seconds / 30));
        }
    }

    #[tokio::test]
    async fn a_factor_counts_once_a_code_has_confirmed_it_and_its_secret_is_stored_sealed() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
            let begun = begin(&app, &alice.name).await.unwrap();
            let secret = Secret::try_from_base32(begun.secret.expose()).unwrap();
            assert!(begun.uri.expose().starts_with("otpauth://totp/Sallyport:alice?secret="));
            let authenticator = Authenticator(secret.clone());

            let wrong = confirm(&app, &OPERATOR, &alice.name, &VerificationCode::new("000000x")).await;
            assert!(matches!(wrong, Err(SecondFactorError::WrongCode)));
            assert!(!has_second_factor(&app, alice.id).await.unwrap());
            let code = authenticator.code(app.clock.now());
            let codes = confirm(&app, &OPERATOR, &alice.name, &code).await.unwrap();

            assert!(has_second_factor(&app, alice.id).await.unwrap());
            assert_eq!(codes.len(), RECOVERY_CODES);
            assert_eq!(try_code(&app, alice.id, &code).await, CodeAnswer::UsedBefore);
            let again = begin(&app, &alice.name).await;
            assert!(matches!(again, Err(SecondFactorError::EnrolledAlready { .. })));
            let stored = second_factors::find(&mut app.db.read().await.unwrap(), alice.id).await.unwrap().unwrap();
            assert!(!stored.sealed.windows(SECRET_BYTES).any(|bytes| bytes == secret.as_bytes()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_code_is_taken_once_even_by_many_at_once_and_no_older_one_after_it() {
        on_both(|db| async {
            let app = app_on(db);
            let (alice, authenticator, _) = enrolled(&app).await;
            let now = app.clock.now();
            let (code, older) = (authenticator.code(now), authenticator.code(now - Duration::from_secs(30)));

            let answers = futures::future::join_all((0..8).map(|_| try_code(&app, alice, &code))).await;

            assert_eq!(answers.iter().filter(|answer| **answer == RIGHT).count(), 1);
            assert_eq!(answers.iter().filter(|answer| **answer == CodeAnswer::UsedBefore).count(), 7);
            assert_eq!(try_code(&app, alice, &older).await, CodeAnswer::UsedBefore);
        })
        .await;
    }

    #[tokio::test]
    async fn a_clock_may_be_one_step_off_either_way_and_no_more() {
        on_both(|db| async {
            let app = app_on(db);
            let (alice, authenticator, _) = enrolled(&app).await;
            app.clock.advance(Duration::from_mins(10));
            for (steps, taken) in [(-2, false), (2, false), (-1, true), (0, true), (1, true)] {
                let code = authenticator.code(app.clock.now() + chrono::TimeDelta::seconds(30 * steps));
                let wanted = if taken { RIGHT } else { CodeAnswer::Wrong };
                assert_eq!(try_code(&app, alice, &code).await, wanted, "{steps} steps");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn blanks_and_dashes_in_a_code_do_not_matter_and_what_is_no_code_is_wrong() {
        on_both(|db| async {
            let app = app_on(db);
            let (alice, authenticator, _) = enrolled(&app).await;
            let code = authenticator.code(app.clock.now());
            for text in ["", " ", "12345", "1234567", "१२३४५६", &"7".repeat(100_000)] {
                let answer = try_code(&app, alice, &VerificationCode::new(text)).await;
                assert!(matches!(answer, CodeAnswer::Wrong | CodeAnswer::Locked { .. }));
            }
            app.clock.advance(Duration::from_mins(6));
            let code_now = authenticator.code(app.clock.now());
            let spaced = format!(" {} {} ", &code_now.expose()[..3], &code_now.expose()[3..]);

            assert_eq!(try_code(&app, alice, &VerificationCode::new(spaced)).await, RIGHT);
            assert!(matches!(try_code(&app, alice, &code).await, CodeAnswer::Wrong));
        })
        .await;
    }

    #[tokio::test]
    async fn five_wrong_codes_lock_the_factor_even_for_the_right_one_for_five_minutes() {
        on_both(|db| async {
            let app = app_on(db);
            let (alice, authenticator, codes) = enrolled(&app).await;
            let wrong = VerificationCode::new("abcdef");
            let answers = futures::future::join_all((0..7).map(|_| try_code(&app, alice, &wrong))).await;
            let locked = |answer: &CodeAnswer| matches!(answer, CodeAnswer::Locked { .. });
            assert_eq!(answers.iter().filter(|answer| locked(answer)).count(), 3, "{answers:?}");

            let right = authenticator.code(app.clock.now());
            assert!(locked(&try_code(&app, alice, &right).await));
            assert!(locked(&try_code(&app, alice, &VerificationCode::new(codes[0].expose())).await));
            app.clock.advance(Duration::from_mins(5));
            let right = authenticator.code(app.clock.now());
            assert_eq!(try_code(&app, alice, &right).await, RIGHT);

            let filter = audit::EventFilter { kind: Some("second_factor_locked".to_owned()), ..Default::default() };
            assert_eq!(audit::list(&app, 0, &filter, 10).await.unwrap().len(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn wrong_codes_are_forgotten_after_a_right_one_and_after_their_window() {
        on_both(|db| async {
            let app = app_on(db);
            let (alice, authenticator, _) = enrolled(&app).await;
            let wrong = async |times: usize| {
                for _ in 0..times {
                    assert_eq!(try_code(&app, alice, &VerificationCode::new("no")).await, CodeAnswer::Wrong);
                }
            };

            wrong(4).await;
            assert_eq!(try_code(&app, alice, &authenticator.code(app.clock.now())).await, RIGHT);
            wrong(4).await;
            app.clock.advance(Duration::from_mins(5));
            wrong(4).await;
        })
        .await;
    }

    #[tokio::test]
    async fn each_recovery_code_opens_once_and_none_after_a_reset() {
        on_both(|db| async {
            let app = app_on(db);
            let (alice, _, codes) = enrolled(&app).await;
            let name = "alice".parse().unwrap();
            let typed = VerificationCode::new(codes[0].expose().to_uppercase());

            let first = try_code(&app, alice, &typed).await;
            let second = try_code(&app, alice, &typed).await;
            let left = status(&app, &name).await.unwrap();
            reset(&app, &OPERATOR, &name).await.unwrap();

            assert_eq!(first, CodeAnswer::Right(SecondFactor::RecoveryCode));
            assert_eq!(second, CodeAnswer::Wrong);
            assert!(matches!(left, Status::Enrolled { recovery_codes_left: 9, .. }), "{left:?}");
            assert!(!has_second_factor(&app, alice).await.unwrap());
            let after = try_code(&app, alice, &VerificationCode::new(codes[1].expose())).await;
            assert_eq!(after, CodeAnswer::Wrong);
            assert!(matches!(reset(&app, &OPERATOR, &name).await, Err(SecondFactorError::None { .. })));
            begin_for(&app, &name).await;
        })
        .await;
    }

    #[tokio::test]
    async fn who_has_only_begun_or_has_nothing_is_not_asked_and_no_code_is_right_for_them() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
            let authenticator = begin_for(&app, &alice.name).await;
            let code = authenticator.code(app.clock.now());

            assert!(!has_second_factor(&app, alice.id).await.unwrap());
            assert_eq!(try_code(&app, alice.id, &code).await, CodeAnswer::Wrong);
            let bob = people::add(&app, &OPERATOR, named("bob")).await.unwrap().principal;
            let unbegun = confirm(&app, &OPERATOR, &bob.name, &code).await;
            assert!(matches!(unbegun, Err(SecondFactorError::NotBegun { .. })));
        })
        .await;
    }
}
