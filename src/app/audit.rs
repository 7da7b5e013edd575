//! The audit log: every act is an event, in the transaction of the change that it tells of.

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor, Event};
use sallyport_domain::id::{EventId, PrincipalId};
use uuid::Uuid;

use crate::app::{App, idempotency};
use crate::store::db::{DbError, Tx, events};

pub use crate::store::db::events::EventFilter;

/// The most events that one call lists.
pub const MOST_EVENTS: u32 = 1000;

/// An id for an event that is written later.
pub fn new_id() -> EventId {
    EventId::from_uuid(Uuid::now_v7())
}

/// Writes down that `actor` did `act` at `now`. The id is the reference that a denied peer is shown. Is it done for a request that is to be
/// done once, then its claim knows of it by the same transaction.
pub async fn append(tx: &mut Tx, now: DateTime<Utc>, actor: &Actor, act: Act) -> Result<EventId, DbError> {
    let id = new_id();
    events::append(tx, &Event { id, at: now, actor: actor.clone(), act }).await?;
    idempotency::note(tx, id).await?;
    Ok(id)
}

/// Writes down an act that changes nothing else, in a transaction of its own.
pub async fn record(app: &App, actor: &Actor, act: Act) -> Result<EventId, DbError> {
    let mut tx = app.db.write().await?;
    let id = append(&mut tx, app.clock.now(), actor, act).await?;
    tx.commit().await?;
    Ok(id)
}

/// At most `limit` events after number `after`, each with its number, the oldest first.
pub async fn list(app: &App, after: i64, filter: &EventFilter, limit: u32) -> Result<Vec<(i64, Event)>, DbError> {
    let mut tx = app.db.read().await?;
    events::list(&mut tx, after, filter, limit.min(MOST_EVENTS)).await
}

/// At most `limit` events before number `before`, each with its number, the newest first.
pub async fn list_newest(
    app: &App,
    before: i64,
    filter: &EventFilter,
    limit: u32,
) -> Result<Vec<(i64, Event)>, DbError> {
    let mut tx = app.db.read().await?;
    events::list_newest(&mut tx, before, filter, limit.min(MOST_EVENTS)).await
}

/// The person behind an actor, if it is one.
pub(crate) fn person(actor: &Actor) -> Option<PrincipalId> {
    match actor {
        Actor::Principal { id, .. } => Some(*id),
        Actor::Bastion | Actor::Operator { .. } | Actor::Stranger { .. } => None,
    }
}

/// What an actor is called in a sentence.
pub(crate) fn name_of(actor: &Actor) -> String {
    match actor {
        Actor::Principal { name, .. } => name.to_string(),
        Actor::Bastion => "the bastion".to_owned(),
        Actor::Operator { uid } => format!("the operator (uid {uid})"),
        Actor::Stranger { address } => format!("somebody at {address}"),
    }
}

#[cfg(test)]
mod tests {
    use sallyport_domain::event::SessionEnd;
    use sallyport_domain::id::{GrantId, SessionId};

    use super::*;
    use crate::store::db::testing::{app_on, on_both};

    #[tokio::test]
    async fn events_read_back_as_they_were_written_and_in_their_order() {
        on_both(|db| async {
            let app = app_on(db);
            let session = SessionId::from_uuid(Uuid::from_u128(5));
            let operator = Actor::Operator { uid: 0 };
            let revoked =
                Act::GrantRevoked { grant: GrantId::from_uuid(Uuid::from_u128(1)), reason: "done".to_owned() };
            let ended = Act::SessionEnded { session, end: SessionEnd::ClientClosed };

            record(&app, &operator, revoked.clone()).await.unwrap();
            record(&app, &Actor::Bastion, ended.clone()).await.unwrap();

            let all = list(&app, 0, &EventFilter::default(), 10).await.unwrap();
            let acts: Vec<&Act> = all.iter().map(|(_, event)| &event.act).collect();
            assert_eq!(acts, [&revoked, &ended]);
            assert_eq!(all[0].1.actor, operator);
            assert_eq!(all[0].1.at, app.clock.now());
            let later = list(&app, all[0].0, &EventFilter::default(), 10).await.unwrap();
            assert_eq!(later, all[1..]);
            let of_session = EventFilter { session: Some(session), ..EventFilter::default() };
            assert_eq!(list(&app, 0, &of_session, 10).await.unwrap(), all[1..]);
            let of_kind = EventFilter { kind: Some("grant_revoked".to_owned()), ..EventFilter::default() };
            assert_eq!(list(&app, 0, &of_kind, 10).await.unwrap(), all[..1]);
        })
        .await;
    }

    #[tokio::test]
    async fn an_event_of_a_transaction_that_was_given_up_was_never_there() {
        on_both(|db| async {
            let app = app_on(db);
            let mut tx = app.db.write().await.unwrap();
            let act = Act::GrantRevoked { grant: GrantId::from_uuid(Uuid::nil()), reason: "no".to_owned() };
            append(&mut tx, app.clock.now(), &Actor::Bastion, act).await.unwrap();
            drop(tx);

            assert_eq!(list(&app, 0, &EventFilter::default(), 10).await.unwrap(), []);
        })
        .await;
    }
}
