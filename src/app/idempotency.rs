//! Requests that are done once, however often they are sent: the caller names them, and the first answer is given again for a day.
//!
//! ```text
//! claimed ──change and its event──► changed ──► finished, with its answer
//!    │ └─nothing was changed──► forgotten
//!    └─its process died──► claimed, by another attempt
//! ```
//!
//! A claim is a row of its own, written before the change; that something was changed is noted in it by [`audit::append`], in the
//! transaction of the change, under the attempt's own number. So the row and the change agree whatever dies: a claim without an event changed
//! nothing, and may be taken over; from then on the attempt before cannot commit a change any more. A claim with an event and without an
//! answer was done, and is never done again: whoever asks is told the event. An act that writes no event is not known to the row.
//!
//! The source is draft-ietf-httpapi-idempotency-key-header-07.
//!
//! [`audit::append`]: crate::app::audit::append

use std::time::Duration;

use chrono::TimeDelta;
use sallyport_domain::event::Actor;
use sallyport_domain::id::EventId;
use sallyport_domain::idempotency::IdempotencyKey;
use sallyport_domain::principal::Role;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::app::App;
use crate::store::db::idempotency::{self, NewClaim};
use crate::store::db::{DbError, Tx};

pub use crate::store::db::idempotency::{Answer, Claim};

/// How long an answer is given again.
pub const KEPT: TimeDelta = TimeDelta::hours(24);
/// The most bytes of an answer that is kept; of a longer one it is known that it was given.
pub const MOST_ANSWER_BYTES: usize = 256 * 1024;
/// The most requests that are kept of one caller; then the oldest answers go.
const MOST_OF_CALLER: u32 = 10_000;
/// After so long an attempt may be taken over. A handler has 30 s, so this one's process has died. Were it only slow, nothing would happen
/// twice: its change could not be committed any more.
const ABANDONED: TimeDelta = TimeDelta::seconds(35);
/// How often what is older than [`KEPT`] is removed.
const SWEEP: Duration = Duration::from_mins(10);

tokio::task_local! {
    /// In whose name this task changes something. A use case need not know that it is asked to be done once.
    static CLAIM: Claim;
}

/// A request, as the door knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub key: IdempotencyKey,
    /// What tells the whole request, body and all, from any other. Keyed, for the body may hold a password.
    pub fingerprint: [u8; 32],
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is new: do it, within [`doing`], and end the claim with [`finish`] or [`release`].
    Ours(Claim),
    /// It was done: this was the answer.
    Answered(Answer),
    /// It was done, as this event tells if it changed anything, and the answer is not there: it held a secret, was too long, or got lost.
    Done(Option<EventId>),
    /// Somebody works on it.
    InWork,
    /// The caller named another request so.
    OtherRequest,
    /// It was done when the caller had roles that they do not have any more.
    OtherRoles,
}

/// Claims a request of `actor`, or tells what has become of it.
pub async fn claim(app: &App, actor: &Actor, roles: &[Role], asked: &Asked) -> Result<Standing, DbError> {
    let now = app.clock.now();
    let caller = match actor {
        Actor::Principal { id, .. } => id.to_string(),
        Actor::Operator { uid } => format!("operator-{uid}"),
        // Neither asks anything of the API; were they let in, they would share a name with nobody.
        Actor::Bastion => "bastion".to_owned(),
        Actor::Stranger { address } => format!("stranger-{address}"),
    };
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let claim = Claim { caller, key: asked.key.clone(), attempt: Uuid::now_v7() };
    let new = NewClaim { claim: claim.clone(), at: now, fingerprint: asked.fingerprint, roles: roles.join(" ") };

    let mut tx = app.db.write().await?;
    idempotency::forget(&mut tx, &claim.caller, &claim.key, now - KEPT).await?;
    if idempotency::insert(&mut tx, &new).await? {
        idempotency::forget_oldest(&mut tx, &claim.caller, MOST_OF_CALLER).await?;
        tx.commit().await?;
        return Ok(Standing::Ours(claim));
    }
    // Released or swept in between: whoever asks again finds it free.
    let Some(found) = idempotency::find(&mut tx, &claim.caller, &claim.key).await? else { return Ok(Standing::InWork) };
    if found.fingerprint != asked.fingerprint {
        return Ok(Standing::OtherRequest);
    }
    if found.is_finished {
        let has_lost_roles = found.roles.split(' ').any(|role| !roles.contains(&role));
        return Ok(match found.answer {
            _ if !found.roles.is_empty() && has_lost_roles => Standing::OtherRoles,
            Some(answer) => Standing::Answered(answer),
            None => Standing::Done(found.event),
        });
    }
    if now < found.at + ABANDONED {
        return Ok(Standing::InWork);
    }
    if let Some(event) = found.event {
        return Ok(Standing::Done(Some(event)));
    }
    let is_ours = idempotency::take_over(&mut tx, found.attempt, &new).await?;
    tx.commit().await?;
    Ok(if is_ours { Standing::Ours(claim) } else { Standing::InWork })
}

/// Runs what a claim is for: each change that it commits is noted there.
pub async fn doing<T>(claim: &Claim, work: impl Future<Output = T>) -> T {
    CLAIM.scope(claim.clone(), work).await
}

/// Notes in the claim of this task, if it has one, that its change is told of by `event`, in the transaction of both.
pub(crate) async fn note(tx: &mut Tx, event: EventId) -> Result<(), DbError> {
    match CLAIM.try_with(Clone::clone) {
        Ok(claim) => idempotency::note(tx, &claim, event).await,
        Err(_nobody_claimed) => Ok(()),
    }
}

/// Ends a claim whose request was done. Its answer is given again; without one it is only told that there was one.
pub async fn finish(app: &App, claim: &Claim, answer: Option<&Answer>) -> Result<(), DbError> {
    let mut tx = app.db.write().await?;
    let answer = answer.filter(|answer| answer.body.len() <= MOST_ANSWER_BYTES);
    idempotency::finish(&mut tx, claim, app.clock.now(), answer).await?;
    tx.commit().await
}

/// Ends a claim whose request was refused or failed: it may be asked again, as it was or mended. Did it change something all the same,
/// because it failed later or because nobody heard of the commit, then it stays done.
pub async fn release(app: &App, claim: &Claim) -> Result<(), DbError> {
    let mut tx = app.db.write().await?;
    if !idempotency::release(&mut tx, claim).await? {
        idempotency::finish(&mut tx, claim, app.clock.now(), None).await?;
    }
    tx.commit().await
}

/// Removes what is older than [`KEPT`], every few minutes until `stop`.
pub async fn sweep(app: App, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = forget_past(&app).await
            && !error.is_unreachable()
        {
            warn!(%error, "Old idempotency keys could not be removed.");
        }
    }
}

async fn forget_past(app: &App) -> Result<u64, DbError> {
    let mut tx = app.db.write().await?;
    let forgotten = idempotency::forget_past(&mut tx, app.clock.now() - KEPT).await?;
    tx.commit().await?;
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use sallyport_domain::event::Act;
    use sallyport_domain::id::GrantId;

    use super::*;
    use crate::app::audit::{self, EventFilter};
    use crate::app::people::tests::OPERATOR;
    use crate::store::db::testing::{app_on, on_both};

    fn asked(key: &str) -> Asked {
        Asked { key: IdempotencyKey::parse(key.as_bytes()).unwrap(), fingerprint: [1; 32] }
    }

    async fn standing(app: &App, asked: &Asked) -> Standing {
        claim(app, &OPERATOR, &[], asked).await.unwrap()
    }

    async fn ours(app: &App, asked: &Asked) -> Claim {
        match standing(app, asked).await {
            Standing::Ours(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    /// A change with its event, as every use case makes one.
    async fn change(app: &App) -> Result<EventId, DbError> {
        let act = Act::GrantRevoked { grant: GrantId::from_uuid(Uuid::from_u128(1)), reason: "done".to_owned() };
        audit::record(app, &OPERATOR, act).await
    }

    async fn changes(app: &App) -> usize {
        audit::list(app, 0, &EventFilter::default(), 1000).await.unwrap().len()
    }

    fn answer() -> Answer {
        Answer { status: 201, body: b"{}".to_vec() }
    }

    #[tokio::test]
    async fn the_first_answer_is_given_again_for_a_day() {
        on_both(|db| async {
            let app = app_on(db);
            let asked = asked("a");
            let first = ours(&app, &asked).await;
            assert_eq!(standing(&app, &asked).await, Standing::InWork);
            doing(&first, change(&app)).await.unwrap();
            finish(&app, &first, Some(&answer())).await.unwrap();

            app.clock.advance((KEPT - TimeDelta::seconds(1)).to_std().unwrap());
            let again = standing(&app, &asked).await;
            let other = standing(&app, &Asked { fingerprint: [2; 32], ..asked.clone() }).await;
            let anothers = claim(&app, &Actor::Operator { uid: 7 }, &[], &asked).await.unwrap();
            app.clock.advance(Duration::from_secs(1));
            let later = standing(&app, &asked).await;

            assert_eq!((again, other), (Standing::Answered(answer()), Standing::OtherRequest));
            assert!(matches!(anothers, Standing::Ours(_)), "{anothers:?}");
            assert!(matches!(later, Standing::Ours(_)), "{later:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn of_many_at_once_one_has_the_claim() {
        on_both(|db| async {
            let app = app_on(db);
            let asked = asked("a");

            let all = futures::future::join_all((0..8).map(|_| standing(&app, &asked))).await;

            assert_eq!(all.iter().filter(|standing| matches!(standing, Standing::Ours(_))).count(), 1, "{all:?}");
            assert_eq!(all.iter().filter(|standing| **standing == Standing::InWork).count(), 7, "{all:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_claim_of_the_dead_is_taken_over_and_what_they_still_do_is_refused() {
        on_both(|db| async {
            let app = app_on(db);
            let asked = asked("a");
            let dead = ours(&app, &asked).await;
            app.clock.advance(ABANDONED.to_std().unwrap());

            let heir = ours(&app, &asked).await;
            let late = doing(&dead, change(&app)).await;
            release(&app, &dead).await.unwrap();
            let meanwhile = standing(&app, &asked).await;
            doing(&heir, change(&app)).await.unwrap();
            finish(&app, &heir, Some(&answer())).await.unwrap();

            assert!(matches!(late, Err(DbError::Conflict { .. })), "{late:?}");
            assert_eq!(meanwhile, Standing::InWork);
            assert_eq!(standing(&app, &asked).await, Standing::Answered(answer()));
            assert_eq!(changes(&app).await, 1);
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_changed_by_somebody_who_died_is_not_changed_again() {
        on_both(|db| async {
            let app = app_on(db);
            let asked = asked("a");
            let dead = ours(&app, &asked).await;
            let event = doing(&dead, change(&app)).await.unwrap();
            assert_eq!(standing(&app, &asked).await, Standing::InWork);

            app.clock.advance(ABANDONED.to_std().unwrap());

            assert_eq!(standing(&app, &asked).await, Standing::Done(Some(event)));
        })
        .await;
    }

    #[tokio::test]
    async fn a_change_that_is_just_being_committed_is_not_made_again() {
        on_both(|db| async {
            let app = app_on(db);
            let asked = asked("a");
            let slow = ours(&app, &asked).await;
            let act = Act::GrantRevoked { grant: GrantId::from_uuid(Uuid::from_u128(1)), reason: "done".to_owned() };
            let mut tx = app.db.write().await.unwrap();
            let event = doing(&slow, audit::append(&mut tx, app.clock.now(), &OPERATOR, act)).await.unwrap();
            app.clock.advance(ABANDONED.to_std().unwrap());

            let (meanwhile, committed) = tokio::join!(standing(&app, &asked), tx.commit());

            committed.unwrap();
            // It saw the event, or waited for the row and lost it.
            assert!([Standing::Done(Some(event)), Standing::InWork].contains(&meanwhile), "{meanwhile:?}");
            assert_eq!(standing(&app, &asked).await, Standing::Done(Some(event)));
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_refused_may_be_asked_again_and_what_was_changed_may_not() {
        on_both(|db| async {
            let app = app_on(db);
            let (refused, failed) = (asked("refused"), asked("failed"));
            let claim = ours(&app, &refused).await;
            release(&app, &claim).await.unwrap();
            let claim = ours(&app, &failed).await;
            let event = doing(&claim, change(&app)).await.unwrap();
            release(&app, &claim).await.unwrap();

            let mended = standing(&app, &Asked { fingerprint: [2; 32], ..refused }).await;

            assert!(matches!(mended, Standing::Ours(_)), "{mended:?}");
            assert_eq!(standing(&app, &failed).await, Standing::Done(Some(event)));
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_or_secret_is_not_kept() {
        on_both(|db| async {
            let app = app_on(db);
            let (long, secret) = (asked("long"), asked("secret"));
            let claim = ours(&app, &long).await;
            finish(&app, &claim, Some(&Answer { status: 201, body: vec![0; MOST_ANSWER_BYTES + 1] })).await.unwrap();
            let claim = ours(&app, &secret).await;
            let event = doing(&claim, change(&app)).await.unwrap();
            finish(&app, &claim, None).await.unwrap();

            assert_eq!(standing(&app, &long).await, Standing::Done(None));
            assert_eq!(standing(&app, &secret).await, Standing::Done(Some(event)));
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_is_not_given_to_who_has_lost_the_roles_for_it() {
        on_both(|db| async {
            let app = app_on(db);
            let asked = asked("a");
            let (both, less) = ([Role::Admin, Role::Reviewer], [Role::Reviewer]);
            let as_role = async |roles: &[Role]| claim(&app, &OPERATOR, roles, &asked).await.unwrap();
            let Standing::Ours(first) = as_role(&both).await else { panic!("somebody has it") };
            finish(&app, &first, Some(&answer())).await.unwrap();

            assert_eq!(as_role(&less).await, Standing::OtherRoles);
            assert_eq!(as_role(&[Role::Reviewer, Role::Auditor, Role::Admin]).await, Standing::Answered(answer()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_caller_has_so_many_and_nobody_any_that_are_old() {
        on_both(|db| async {
            let app = app_on(db);
            let claims = async |names: std::ops::Range<u32>| {
                for name in names {
                    let claim = ours(&app, &asked(&format!("k{name}"))).await;
                    finish(&app, &claim, Some(&answer())).await.unwrap();
                    app.clock.advance(Duration::from_millis(1));
                }
            };
            claims(0..6).await;
            let mut tx = app.db.write().await.unwrap();
            idempotency::forget_oldest(&mut tx, "operator-0", 4).await.unwrap();
            idempotency::forget_oldest(&mut tx, "operator-7", 0).await.unwrap();
            tx.commit().await.unwrap();

            assert!(matches!(standing(&app, &asked("k0")).await, Standing::Ours(_)));
            assert_eq!(standing(&app, &asked("k5")).await, Standing::Answered(answer()));
            app.clock.advance(KEPT.to_std().unwrap());
            assert_eq!(forget_past(&app).await.unwrap(), 5);
        })
        .await;
    }
}
