//! Who people are at the identity provider. An admin says so, by the provider's own word for a person, its subject: what can be
//! chosen there, such as an e-mail address, binds nobody.

use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::PrincipalId;
use sallyport_domain::name::PrincipalName;

use crate::app::text::{self, TextError};
use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, identities, principals, web_sessions};

pub use crate::store::db::identities::IdentityRecord;

/// OpenID Connect Core 1.0 §2: a subject has 255 ASCII characters at most.
const MOST_SUBJECT: usize = 255;
const MOST_ISSUER: usize = 2000;

/// Why a binding was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("there is no person `{name}`")]
    UnknownPerson { name: PrincipalName },
    #[error("`{name}` is bound to this subject already; a subject stands for one person")]
    Taken { name: PrincipalName },
    #[error("`{name}` is bound to no identity")]
    NotBound { name: PrincipalName },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Who the person is at the provider, if anybody.
pub async fn find(app: &App, name: &PrincipalName) -> Result<Option<IdentityRecord>, IdentityError> {
    let mut tx = app.db.read().await?;
    let person = id_of(&mut tx, name).await?;
    Ok(identities::find(&mut tx, person).await?)
}

/// Binds a person to `subject` at `issuer`, in place of what they were bound to, and signs them out of every browser.
pub async fn bind(
    app: &App,
    by: &Actor,
    name: &PrincipalName,
    issuer: &str,
    subject: &str,
) -> Result<IdentityRecord, IdentityError> {
    let issuer = text::check("issuer", issuer, MOST_ISSUER)?;
    let subject = text::check("subject", subject, MOST_SUBJECT)?;
    let mut tx = app.db.write().await?;
    let person = id_of(&mut tx, name).await?;
    if let Some(other) = identities::find_person(&mut tx, &issuer, &subject).await?
        && other != person
    {
        let other = principals::find_by_id(&mut tx, other).await?;
        let name = other.map_or_else(|| name.clone(), |other| other.principal.name);
        return Err(IdentityError::Taken { name });
    }
    let now = app.clock.now();
    unbind_in(app, &mut tx, by, person).await?;
    let identity = IdentityRecord { issuer: issuer.clone(), subject: subject.clone(), created_at: now };
    identities::bind(&mut tx, person, &identity).await?;
    audit::append(&mut tx, now, by, Act::IdentityBound { person, issuer, subject }).await?;
    tx.commit().await?;
    Ok(identity)
}

/// Takes a person's binding away, and signs them out of every browser.
pub async fn unbind(app: &App, by: &Actor, name: &PrincipalName) -> Result<(), IdentityError> {
    let mut tx = app.db.write().await?;
    let person = id_of(&mut tx, name).await?;
    if !unbind_in(app, &mut tx, by, person).await? {
        return Err(IdentityError::NotBound { name: name.clone() });
    }
    Ok(tx.commit().await?)
}

/// Whoever came in as what the person was bound to is out.
async fn unbind_in(app: &App, tx: &mut Tx, by: &Actor, person: PrincipalId) -> Result<bool, DbError> {
    let Some(IdentityRecord { issuer, subject, .. }) = identities::find(tx, person).await? else { return Ok(false) };
    identities::remove(tx, person).await?;
    let now = app.clock.now();
    audit::append(tx, now, by, Act::IdentityUnbound { person, issuer, subject }).await?;
    let browsers = web_sessions::end_all(tx, person).await?;
    if browsers > 0 {
        audit::append(tx, now, by, Act::SignedOut { person, browsers }).await?;
    }
    Ok(true)
}

async fn id_of(tx: &mut Tx, name: &PrincipalName) -> Result<PrincipalId, IdentityError> {
    let found = principals::find(tx, name).await?;
    Ok(found.ok_or_else(|| IdentityError::UnknownPerson { name: name.clone() })?.principal.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::people;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn a_person_is_bound_to_one_subject_and_a_subject_to_one_person() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal.name;
            let bob = people::add(&app, &OPERATOR, named("bob")).await.unwrap().principal.name;
            let at = "https://id.example";

            bind(&app, &OPERATOR, &alice, at, "one").await.unwrap();
            let taken = bind(&app, &OPERATOR, &bob, at, "one").await;
            assert!(matches!(taken, Err(IdentityError::Taken { name }) if name == alice));
            bind(&app, &OPERATOR, &bob, "https://other.example", "one").await.unwrap();
            bind(&app, &OPERATOR, &alice, at, "two").await.unwrap();
            assert_eq!(find(&app, &alice).await.unwrap().unwrap().subject, "two");
            unbind(&app, &OPERATOR, &alice).await.unwrap();
            assert_eq!(find(&app, &alice).await.unwrap(), None);
            let again = unbind(&app, &OPERATOR, &alice).await;
            assert!(matches!(again, Err(IdentityError::NotBound { .. })));
            bind(&app, &OPERATOR, &alice, at, "one").await.unwrap();
        })
        .await;
    }
}
