//! The two authorities, and how another one takes their place: the user CA, which targets trust, and the host CA, which engineers' clients
//! trust. Who trusts them is told by people, so a change is in three steps with time between them:
//!
//! ```text
//!            signs   to be trusted
//! stage      old     old, new          the new one is published; let it be trusted everywhere
//! activate   new     old, new          nodes sign with it within a second
//! retire     new     new               the old one is published no more; let it be trusted nowhere
//! ```

use sallyport_domain::event::{Act, Actor};
use uuid::Uuid;

use crate::app::keys::{self, KeyError};
use crate::app::{App, audit};
use crate::store::db::DbError;
use crate::store::db::bastion_keys::{self, Purpose, SealedKey};

/// Which authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    User,
    Host,
}

impl Authority {
    pub const fn purpose(self) -> Purpose {
        match self {
            Authority::User => Purpose::UserCa,
            Authority::Host => Purpose::HostCa,
        }
    }
}

/// Why an authority stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("a new {purpose} is published already; activate it")]
    StagedAlready { purpose: Purpose },
    #[error("the {purpose} before this one is still published; retire it first")]
    StillPublished { purpose: Purpose },
    #[error("there is no new {purpose} that was published before; stage one")]
    NotStaged { purpose: Purpose },
    #[error("no {purpose} is published that does not sign any more")]
    NothingToRetire { purpose: Purpose },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The public keys of an authority that are to be trusted, the one that signs first.
pub async fn trusted(app: &App, authority: Authority) -> Result<Vec<String>, DbError> {
    bastion_keys::trusted(&mut app.db.read().await?, authority.purpose()).await
}

/// Makes the next key of an authority, which signs nothing yet. Gives its public half.
pub async fn stage(app: &App, actor: &Actor, authority: Authority) -> Result<String, AuthorityError> {
    let purpose = authority.purpose();
    let now = app.clock.now();
    let made = keys::make(app, purpose, now)?;
    let public_key = made.public_key.clone();
    let mut tx = app.db.write().await?;
    if bastion_keys::leaving(&mut tx, purpose).await? {
        return Err(AuthorityError::StillPublished { purpose });
    }
    if !bastion_keys::stage(&mut tx, purpose, &made).await? {
        return Err(AuthorityError::StagedAlready { purpose });
    }
    let act = Act::BastionKeyStaged { purpose: purpose.to_string(), public_key: public_key.clone() };
    audit::append(&mut tx, now, actor, act).await?;
    tx.commit().await?;
    Ok(public_key)
}

/// Lets the key that was staged sign from now on. Gives its public half.
pub async fn activate(app: &App, actor: &Actor, authority: Authority) -> Result<String, AuthorityError> {
    let purpose = authority.purpose();
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let staged = bastion_keys::take_staged(&mut tx, purpose).await?.ok_or(AuthorityError::NotStaged { purpose })?;
    bastion_keys::replace(&mut tx, purpose, &staged, now).await?;
    let SealedKey { public_key, .. } = staged;
    let act = Act::BastionKeyActivated { purpose: purpose.to_string(), public_key: public_key.clone() };
    audit::append(&mut tx, now, actor, act).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(public_key)
}

/// Publishes the key before this one no more. Gives its public half.
pub async fn retire(app: &App, actor: &Actor, authority: Authority) -> Result<String, AuthorityError> {
    let purpose = authority.purpose();
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let public_key = bastion_keys::withdraw(&mut tx, purpose, now).await?;
    let public_key = public_key.ok_or(AuthorityError::NothingToRetire { purpose })?;
    let act = Act::BastionKeyRetired { purpose: purpose.to_string(), public_key: public_key.clone() };
    audit::append(&mut tx, now, actor, act).await?;
    tx.commit().await?;
    Ok(public_key)
}

/// The id of the key that signs: what tells whether it was replaced.
pub async fn in_use(app: &App, authority: Authority) -> Result<Option<Uuid>, DbError> {
    let found = bastion_keys::in_use(&mut app.db.read().await?, authority.purpose()).await?;
    Ok(found.map(|key| key.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::testing::{app_on, on_both};

    const OPERATOR: Actor = Actor::Operator { uid: 0 };

    #[tokio::test]
    async fn a_new_authority_is_published_before_it_signs_and_the_old_one_after() {
        on_both(|db| async {
            let app = app_on(db);
            for authority in [Authority::User, Authority::Host] {
                let purpose = authority.purpose();
                let signs = async || keys::bastion_key(&app, purpose).await.unwrap().public_key;
                let trusted = async || trusted(&app, authority).await.unwrap();
                let old = signs().await;
                assert_eq!(trusted().await, [old.as_str()]);
                assert!(matches!(activate(&app, &OPERATOR, authority).await, Err(AuthorityError::NotStaged { .. })));

                let new = stage(&app, &OPERATOR, authority).await.unwrap();
                assert_eq!((signs().await, trusted().await), (old.clone(), vec![old.clone(), new.clone()]));
                let again = stage(&app, &OPERATOR, authority).await;
                assert!(matches!(again, Err(AuthorityError::StagedAlready { .. })));
                let early = retire(&app, &OPERATOR, authority).await;
                assert!(matches!(early, Err(AuthorityError::NothingToRetire { .. })));

                assert_eq!(activate(&app, &OPERATOR, authority).await.unwrap(), new);
                assert_eq!((signs().await, trusted().await), (new.clone(), vec![new.clone(), old.clone()]));
                let next = stage(&app, &OPERATOR, authority).await;
                assert!(matches!(next, Err(AuthorityError::StillPublished { .. })));

                assert_eq!(retire(&app, &OPERATOR, authority).await.unwrap(), old);
                assert_eq!((signs().await, trusted().await), (new.clone(), vec![new]));
            }
            let filter = audit::EventFilter { kind: Some("bastion_key_activated".to_owned()), ..Default::default() };
            assert_eq!(audit::list(&app, 0, &filter, 10).await.unwrap().len(), 2);
        })
        .await;
    }
}
