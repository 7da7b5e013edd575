//! What was begun at signing in and waits for the browser: in the database, so that any node takes the answer. Whatever is
//! answered, a challenge is answered once.

use std::time::Duration;

use sallyport_domain::id::PrincipalId;
use sallyport_domain::secret::WebToken;

use super::{SignInError, fresh_token, hash, is_like_ours};
use crate::app::App;
use crate::store::db::DbError;
use crate::store::db::sign_in_challenges::{self, Challenge, Taken};

/// So many may wait for their answers at once; beyond that the oldest go.
const MOST_PENDING: i64 = 10_000;

/// What a challenge is for. An answer to one of another purpose finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    AddPasskey,
    /// By an invite.
    InvitedPasskey,
    Passkey,
    Oidc,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Purpose::AddPasskey => "add_passkey",
            Purpose::InvitedPasskey => "invited_passkey",
            Purpose::Passkey => "passkey",
            Purpose::Oidc => "oidc",
        }
    }
}

/// Keeps `state` until the browser comes back with the token that is given here.
pub(super) async fn begin(
    app: &App,
    purpose: Purpose,
    principal: Option<PrincipalId>,
    state: String,
    lasting: Duration,
) -> Result<WebToken, SignInError> {
    let token = fresh_token()?;
    let now = app.clock.now();
    let challenge =
        Challenge { purpose: purpose.as_str(), principal, state, created_at: now, not_after: now + lasting };
    let mut tx = app.db.write().await?;
    sign_in_challenges::forget(&mut tx, now, MOST_PENDING - 1).await?;
    sign_in_challenges::insert(&mut tx, &hash(&token), &challenge).await?;
    tx.commit().await?;
    Ok(token)
}

/// Takes what was kept for the token; `None` if nothing was, or its time is over, or it was taken before.
pub(super) async fn take(app: &App, purpose: Purpose, token: &WebToken) -> Result<Option<Taken>, DbError> {
    if !is_like_ours(token) {
        return Ok(None);
    }
    let mut tx = app.db.write().await?;
    let taken = sign_in_challenges::take(&mut tx, &hash(token), purpose.as_str()).await?;
    // Before anything is looked at: a second answer, on whichever node, finds nothing.
    tx.commit().await?;
    let now = app.clock.now();
    Ok(taken.filter(|taken| now < taken.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::people;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::store::db::testing::{app_on, on_both};

    const WHILE: Duration = Duration::from_mins(5);

    #[tokio::test]
    async fn a_challenge_is_answered_once_in_time_and_for_its_purpose() {
        on_both(|db| async {
            let app = app_on(db);
            let begin = async || begin(&app, Purpose::Passkey, None, "state".to_owned(), WHILE).await.unwrap();
            let (one, late, other) = (begin().await, begin().await, begin().await);

            assert_eq!(take(&app, Purpose::AddPasskey, &other).await.unwrap(), None, "another purpose");
            assert_eq!(take(&app, Purpose::Passkey, &one).await.unwrap().unwrap().state, "state");
            assert_eq!(take(&app, Purpose::Passkey, &one).await.unwrap(), None, "taken before");
            assert_eq!(take(&app, Purpose::Passkey, &WebToken::new("x")).await.unwrap(), None);
            app.clock.advance(WHILE);
            assert_eq!(take(&app, Purpose::Passkey, &late).await.unwrap(), None, "its time is over");
        })
        .await;
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_go_and_of_one_person_only_the_last_stays() {
        on_both(|db| async {
            let app = app_on(db);
            let alice = people::add(&app, &OPERATOR, named("alice")).await.unwrap().principal.id;
            let adds = async || begin(&app, Purpose::AddPasskey, Some(alice), String::new(), WHILE).await.unwrap();
            let (before, last) = (adds().await, adds().await);
            assert_eq!(take(&app, Purpose::AddPasskey, &before).await.unwrap(), None);
            assert_eq!(take(&app, Purpose::AddPasskey, &last).await.unwrap().unwrap().principal, Some(alice));

            let first = begin(&app, Purpose::Passkey, None, String::new(), WHILE).await.unwrap();
            for _ in 0..3 {
                app.clock.advance(Duration::from_secs(1));
                begin(&app, Purpose::Passkey, None, String::new(), WHILE).await.unwrap();
            }
            let mut tx = app.db.write().await.unwrap();
            sign_in_challenges::forget(&mut tx, app.clock.now(), 3).await.unwrap();
            tx.commit().await.unwrap();

            assert_eq!(take(&app, Purpose::Passkey, &first).await.unwrap(), None);
        })
        .await;
    }
}
