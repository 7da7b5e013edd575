//! Invites: links by which people give the bastion their first key, or make a passkey, once. A link's token is `spi_` and 32 random
//! bytes, stored as a hash. An invite ends by its use, its time or its revocation, and with its person. Each step is an event.
//!
//! Here is what an admin does, and what an invite is; what the invited person does with it is in `sign_in::invited`. Whoever has
//! the link acts for the person until then, so it does not last, and an unknown, used, revoked or ended one is answered alike.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::id::{InviteId, PrincipalId};
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Principal;
use sallyport_domain::secret::InviteToken;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::app::clock::whole_microseconds;
use crate::app::people::PeopleError;
use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, invites, principals};

pub use crate::store::db::invites::InviteRecord;

/// What every invite's token starts with, so that scanners for leaked secrets know one when they see it.
const PREFIX: &str = "spi_";
const RANDOM_BYTES: usize = 32;
/// How long an invite is open if nothing else is said.
const USUAL: Duration = Duration::from_hours(24);
/// The longest that one may be open.
const LONGEST: Duration = Duration::from_hours(14 * 24);
/// As many of a person's are listed.
const MOST_LISTED: u32 = 100;

/// Why there was no invite, or it opened nothing.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error("there is no person `{name}`")]
    UnknownPerson { name: PrincipalName },
    #[error("`{name}` is disabled; enable them first")]
    Disabled { name: PrincipalName },
    #[error("`{name}` has no invite {id} that is open")]
    NotOpen { name: PrincipalName, id: InviteId },
    #[error(
        "this invite opens nothing: it was used, has ended or was taken back, or its link is not complete; ask for another one"
    )]
    Refused {
        /// Whom it invited, if there ever was one; not for the peer.
        whose: Option<PrincipalName>,
    },
    #[error("an invite ends in the future, and {} days from now at the latest", LONGEST.as_secs() / 86_400)]
    Lasting,
    #[error("the system gave no randomness for an invite")]
    NoRandomness,
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes an invite for a person, open until `not_after` or for a day. One that they had is revoked, so that one link is open at
/// most. The token is given here and never again.
pub async fn make(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    not_after: Option<DateTime<Utc>>,
) -> Result<(InviteRecord, InviteToken), InviteError> {
    let now = app.clock.now();
    let not_after = not_after.map_or(now + USUAL, whole_microseconds);
    if not_after <= now || not_after > now + LONGEST {
        return Err(InviteError::Lasting);
    }
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    aws_lc_rs::rand::fill(random.as_mut_slice()).map_err(|_| InviteError::NoRandomness)?;
    let token = InviteToken::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));

    let mut tx = app.db.write().await?;
    let id = find_person(&mut tx, name).await?.id;
    // Of two that invite at once the later one's link stays open, and whoever disables the person meanwhile comes before or after.
    principals::hold(&mut tx, id).await?;
    let person = find_person(&mut tx, name).await?;
    if person.disabled_at.is_some() {
        return Err(InviteError::Disabled { name: person.name });
    }
    revoke_open(&mut tx, actor, id, now).await?;
    let invite = InviteRecord {
        id: InviteId::from_uuid(Uuid::now_v7()),
        principal: id,
        principal_name: person.name,
        created_at: now,
        not_after,
        used: None,
        revoked_at: None,
    };
    invites::insert(&mut tx, &invite, &hash(&token)).await?;
    audit::append(&mut tx, now, actor, Act::InviteMade { invite: invite.id, person: id, not_after }).await?;
    tx.commit().await?;
    Ok((invite, token))
}

/// A person's newest invites, the newest first; not their tokens.
pub async fn list(app: &App, name: &PrincipalName) -> Result<Vec<InviteRecord>, InviteError> {
    let mut tx = app.db.read().await?;
    let person = find_person(&mut tx, name).await?.id;
    Ok(invites::list(&mut tx, person, MOST_LISTED).await?)
}

/// Takes back an invite that is still open. Gives what [`list`] does.
pub async fn revoke(
    app: &App,
    actor: &Actor,
    name: &PrincipalName,
    id: InviteId,
) -> Result<Vec<InviteRecord>, InviteError> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let person = find_person(&mut tx, name).await?.id;
    if !invites::revoke(&mut tx, person, id, now).await? {
        return Err(InviteError::NotOpen { name: name.clone(), id });
    }
    audit::append(&mut tx, now, actor, Act::InviteRevoked { invite: id, person }).await?;
    let left = invites::list(&mut tx, person, MOST_LISTED).await?;
    tx.commit().await?;
    Ok(left)
}

/// Takes back whatever of a person's is open.
pub(super) async fn revoke_open(
    tx: &mut Tx,
    actor: &Actor,
    person: PrincipalId,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    for invite in invites::revoke_all(tx, person, now).await? {
        audit::append(tx, now, actor, Act::InviteRevoked { invite, person }).await?;
    }
    Ok(())
}

/// The invite that this token opens at `now`, and whom it invites. Uses nothing up.
pub(super) async fn open(
    tx: &mut Tx,
    token: &InviteToken,
    now: DateTime<Utc>,
) -> Result<(InviteRecord, Principal), InviteError> {
    // What does not look like a token costs no query.
    let random = token.expose().strip_prefix(PREFIX).map(str::len);
    if random != Some(RANDOM_BYTES.div_ceil(3) * 4 - 1) {
        return Err(InviteError::Refused { whose: None });
    }
    // By its hash: how long the look-up takes says nothing about the token.
    let found = invites::find_by_hash(tx, &hash(token)).await?;
    let invite = found.ok_or(InviteError::Refused { whose: None })?;
    let refused = || InviteError::Refused { whose: Some(invite.principal_name.clone()) };
    if invite.used.is_some() || invite.revoked_at.is_some() || invite.not_after <= now {
        return Err(refused());
    }
    let person = principals::find_by_id(tx, invite.principal).await?.map(|record| record.principal);
    let person = person.filter(|person| person.disabled_at.is_none()).ok_or_else(refused)?;
    Ok((invite, person))
}

/// Uses up what was [`open`] for `added`, a key's fingerprint or a passkey's id: of several that try at once, one does. By the
/// person's own hand, whom nothing else proves.
pub(super) async fn use_up(
    tx: &mut Tx,
    invite: &InviteRecord,
    actor: &Actor,
    address: SocketAddr,
    added: String,
    now: DateTime<Utc>,
) -> Result<(), InviteError> {
    if !invites::use_up(tx, invite.id, now, &added).await? {
        return Err(InviteError::Refused { whose: Some(invite.principal_name.clone()) });
    }
    let used = Act::InviteUsed { invite: invite.id, person: invite.principal, address, added };
    audit::append(tx, now, actor, used).await?;
    Ok(())
}

async fn find_person(tx: &mut Tx, name: &PrincipalName) -> Result<Principal, InviteError> {
    let found = principals::find(tx, name).await?;
    Ok(found.ok_or_else(|| InviteError::UnknownPerson { name: name.clone() })?.principal)
}

fn hash(token: &InviteToken) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::people;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    async fn opens(app: &App, token: &InviteToken) -> bool {
        match open(&mut app.db.read().await.unwrap(), token, app.clock.now()).await {
            Ok(_) => true,
            Err(InviteError::Refused { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn an_invite_opens_until_its_time_is_over_and_only_by_its_own_token() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal;
            let (made, token) = make(&app, &OPERATOR, &alice.name, None).await.unwrap();

            let found = open(&mut app.db.read().await.unwrap(), &token, app.clock.now()).await.unwrap();
            assert_eq!(found, (made.clone(), alice.clone()));
            assert_eq!(list(&app, &alice.name).await.unwrap(), std::slice::from_ref(&made));
            let other = format!("{}A", &token.expose()[..token.expose().len() - 1]);
            for text in [other.as_str(), &token.expose()[1..], &token.expose()[..20], "spi_", ""] {
                assert!(text == token.expose() || !opens(&app, &InviteToken::new(text)).await, "{text}");
            }
            app.clock.advance(USUAL);
            assert!(!opens(&app, &token).await, "it is a day old");
            let ended = revoke(&app, &OPERATOR, &alice.name, made.id).await;
            assert!(matches!(ended, Err(InviteError::NotOpen { .. })), "{ended:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn an_invite_is_taken_back_by_hand_by_another_one_and_for_good_when_its_person_is_disabled() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal.name;
            let bob = people::add(&app, &OPERATOR, named("bob")).await.unwrap().principal.name;
            let invite = async |name: &PrincipalName| make(&app, &OPERATOR, name, None).await.unwrap();
            let (_, bobs) = invite(&bob).await;

            let ((first, one), (second, two)) = (invite(&alice).await, invite(&alice).await);
            assert!(!opens(&app, &one).await && opens(&app, &two).await, "the later one takes the place of the first");
            let not_his = revoke(&app, &OPERATOR, &bob, second.id).await;
            assert!(matches!(not_his, Err(InviteError::NotOpen { .. })) && opens(&app, &two).await);
            let left = revoke(&app, &OPERATOR, &alice, second.id).await.unwrap();
            assert!(!opens(&app, &two).await);
            assert_eq!(left.iter().map(|invite| invite.id).collect::<Vec<_>>(), [second.id, first.id]);

            let (_, three) = invite(&alice).await;
            people::disable(&app, &OPERATOR, &alice, None).await.unwrap();
            let disabled = make(&app, &OPERATOR, &alice, None).await;
            assert!(matches!(disabled, Err(InviteError::Disabled { .. })), "{disabled:?}");
            people::enable(&app, &OPERATOR, &alice, None).await.unwrap();
            assert!(!opens(&app, &three).await, "it does not come back with its person");
            assert!(opens(&app, &bobs).await);

            let filter = audit::EventFilter { kind: Some("invite_revoked".to_owned()), ..Default::default() };
            assert_eq!(audit::list(&app, 0, &filter, 100).await.unwrap().len(), 3);
        })
        .await;
    }

    #[tokio::test]
    async fn an_invite_ends_in_the_future_but_not_far_in_it_and_is_for_somebody() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal.name;
            let now = app.clock.now();

            for not_after in [now - Duration::from_secs(1), now, now + LONGEST + Duration::from_secs(1)] {
                let refused = make(&app, &OPERATOR, &alice, Some(not_after)).await;
                assert!(matches!(refused, Err(InviteError::Lasting)), "{refused:?}");
            }
            assert!(make(&app, &OPERATOR, &alice, Some(now + LONGEST)).await.is_ok());
            let nobody = make(&app, &OPERATOR, &"nobody".parse().unwrap(), None).await;
            assert!(matches!(nobody, Err(InviteError::UnknownPerson { .. })), "{nobody:?}");
        })
        .await;
    }
}
