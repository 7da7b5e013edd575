//! API tokens: `spt_` and 32 random bytes. Shown once, stored as a hash, looked up by it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::TokenId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::ApiToken;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::app::clock::whole_microseconds;
use crate::app::text::{self, TextError};
use crate::app::{App, audit};
use crate::store::db::{DbError, principals, tokens};

pub use crate::store::db::tokens::TokenRecord;

/// What every token starts with, so that scanners for leaked secrets know one when they see it.
const PREFIX: &str = "spt_";
const RANDOM_BYTES: usize = 32;
/// How exactly it is noted when a token was last used: each note is a write.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// Why tokens were left as they are.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("there is no person `{name}`")]
    UnknownPerson { name: PrincipalName },
    #[error("there is no token {id}, or it was revoked before")]
    Unknown { id: TokenId },
    #[error("the end {not_after} is not in the future")]
    NotInFuture { not_after: DateTime<Utc> },
    #[error("the system gave no randomness for a token")]
    NoRandomness,
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes a token for a person. It is given back here and never again.
pub async fn make(
    app: &App,
    actor: &Actor,
    person: &PrincipalName,
    label: &str,
    not_after: Option<DateTime<Utc>>,
) -> Result<(TokenId, ApiToken), TokenError> {
    let label = text::check("label", label, text::MOST_LABEL)?;
    let now = app.clock.now();
    let not_after = not_after.map(whole_microseconds);
    if let Some(not_after) = not_after.filter(|at| *at <= now) {
        return Err(TokenError::NotInFuture { not_after });
    }
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    aws_lc_rs::rand::fill(random.as_mut_slice()).map_err(|_| TokenError::NoRandomness)?;
    let token = ApiToken::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));

    let mut tx = app.db.write().await?;
    let owner = principals::find(&mut tx, person).await?;
    let owner = owner.ok_or_else(|| TokenError::UnknownPerson { name: person.clone() })?.principal;
    let record = TokenRecord {
        id: TokenId::from_uuid(Uuid::now_v7()),
        principal: owner.id,
        principal_name: owner.name,
        label,
        created_at: now,
        not_after,
        last_used_at: None,
        revoked_at: None,
    };
    tokens::insert(&mut tx, &record, &hash(&token)).await?;
    audit::append(&mut tx, now, actor, Act::TokenMade { token: record.id, person: owner.id }).await?;
    tx.commit().await?;
    Ok((record.id, token))
}

/// The person for whom the token speaks now; `None` if it is unknown, ended or revoked, or the person is disabled.
pub async fn verify(app: &App, token: &ApiToken) -> Result<Option<Principal>, TokenError> {
    // What does not look like a token costs no query.
    let random = token.expose().strip_prefix(PREFIX).map(str::len);
    if random != Some(RANDOM_BYTES.div_ceil(3) * 4 - 1) {
        return Ok(None);
    }
    let now = app.clock.now();
    let mut tx = app.db.read().await?;
    // By its hash: how long the look-up takes says nothing about the token.
    let Some(record) = tokens::find_by_hash(&mut tx, &hash(token)).await? else { return Ok(None) };
    if record.revoked_at.is_some() || record.not_after.is_some_and(|at| at <= now) {
        return Ok(None);
    }
    let owner = principals::find_by_id(&mut tx, record.principal).await?;
    drop(tx);
    let Some(owner) = owner.map(|owner| owner.principal).filter(|owner| owner.disabled_at.is_none()) else {
        return Ok(None);
    };
    if record.last_used_at.is_none_or(|at| at + NOTE_EVERY <= now) {
        let mut tx = app.db.write().await?;
        tokens::used(&mut tx, record.id, now).await?;
        tx.commit().await?;
    }
    Ok(Some(owner))
}

/// Every token, the oldest first; not the tokens themselves, which nobody has but their owners.
pub async fn list(app: &App) -> Result<Vec<TokenRecord>, TokenError> {
    Ok(tokens::list(&mut app.db.read().await?).await?)
}

/// Revokes a token.
pub async fn revoke(app: &App, actor: &Actor, id: TokenId) -> Result<(), TokenError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let person = tokens::revoke(&mut tx, id, now).await?.ok_or(TokenError::Unknown { id })?;
    audit::append(&mut tx, now, actor, Act::TokenRevoked { token: id, person }).await?;
    tx.commit().await?;
    Ok(())
}

fn hash(token: &ApiToken) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::people;
    use crate::app::people::tests::OPERATOR;
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn a_token_speaks_for_its_person_until_it_ends_or_is_revoked_or_they_are_disabled() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, people::tests::named("alice")).await.unwrap().principal;
            let end = app.clock.now() + Duration::from_hours(1);
            let (_, ending) = make(&app, &OPERATOR, &alice.name, "ci", Some(end)).await.unwrap();
            let (id, endless) = make(&app, &OPERATOR, &alice.name, "desk", None).await.unwrap();
            assert!(ending.expose().starts_with("spt_"));
            assert_eq!(verify(&app, &ending).await.unwrap().as_ref(), Some(&alice));
            assert_eq!(list(&app).await.unwrap()[0].last_used_at, Some(app.clock.now()));

            app.clock.advance(Duration::from_hours(1));

            assert_eq!(verify(&app, &ending).await.unwrap(), None);
            assert_eq!(verify(&app, &endless).await.unwrap().as_ref(), Some(&alice));
            people::disable(&app, &OPERATOR, &alice.name, None).await.unwrap();
            assert_eq!(verify(&app, &endless).await.unwrap(), None);
            people::enable(&app, &OPERATOR, &alice.name, None).await.unwrap();
            revoke(&app, &OPERATOR, id).await.unwrap();
            assert_eq!(verify(&app, &endless).await.unwrap(), None);
            assert!(matches!(revoke(&app, &OPERATOR, id).await, Err(TokenError::Unknown { .. })));
        })
        .await;
    }

    #[tokio::test]
    async fn a_token_that_nobody_made_speaks_for_nobody() {
        on_both(|db| async {
            let app = app_on(db);
            for text in ["", "spt_", "spt_x", &format!("spt_{}", "A".repeat(43)), &"A".repeat(47)] {
                assert_eq!(verify(&app, &ApiToken::new(text)).await.unwrap(), None, "{text}");
            }
        })
        .await;
    }
}
