//! Changes the key that signs the ledger, in one transaction, while everything goes on: it places the event that tells of the change,
//! signs the checkpoint over it with both keys, retires the old one and puts the new one to use. Every sequencer looks at each turn
//! which key is in use, so the next checkpoint is the new key's, whichever node signs it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sallyport_domain::event::{Act, Actor};
use sallyport_domain::hash::Hash;
use sallyport_domain::ledger::checkpoint::Checkpoint;
use sallyport_domain::ledger::entry;
use sallyport_domain::ledger::key_change::{KeyChain, KeyChange};
use sallyport_domain::ledger::note::NoteError;

use super::sequencer::Sequencer;
use super::{LedgerError, keys};
use crate::app::{App, audit};
use crate::store::db::{DbError, Tx, ledger};

/// How long to wait for the turn; a batch takes some 100 ms.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Fingerprints.
    pub from: Hash,
    pub to: Hash,
    /// The largest tree that the old key signs.
    pub last_size: u64,
}

/// Replaces the key that signs the ledger.
pub async fn rotate(app: &App, actor: &Actor) -> Result<Rotated, LedgerError> {
    if app.ledger_halted.load(Ordering::Acquire) {
        return Err(LedgerError::Broken("an anchor has seen another history".to_owned()));
    }
    let mut tx = tokio::time::timeout(PATIENCE, turn(app)).await.map_err(|_elapsed| LedgerError::Busy)??;
    let mut sequencer = Sequencer::new(app.clone());
    let mut edge = sequencer.last_signed(&mut tx, None).await?;
    let (id, old) = sequencer.into_signer().ok_or(LedgerError::NoKey)?;
    let now = app.clock.now();
    let (mut made, new) = keys::make(app, old.public().name(), now)?;

    let first = edge.size();
    let last_size = first + 1;
    let sign = |source: NoteError| LedgerError::Sign { size: last_size, source };
    let change = KeyChange { from: old.public(), to: new.public(), last_size };
    let rotated = Rotated { from: change.from.fingerprint(), to: change.to.fingerprint(), last_size };
    let change = change.sign(&old).map_err(sign)?.to_string();
    let event = audit::append(&mut tx, now, actor, Act::LedgerKeyRotated { change: change.clone() }).await?;
    // Just this event, whatever else waits: the old key has said how many it signs.
    let pending = ledger::pending_one(&mut tx, event).await?;
    let pending = pending.ok_or_else(|| LedgerError::UnknownEvent(event.to_string()))?;
    let leaf = entry::hash(&pending.entry);
    let grown = edge.append([leaf]);
    let head = edge.head();
    ledger::place(&mut tx, first, &[(pending.seq, leaf)]).await?;
    for (tile, hashes) in &grown {
        ledger::insert_tile(&mut tx, *tile, hashes).await?;
    }
    // By both, so that the new key vouches for everything from its first moment on.
    let note = Checkpoint::new(old.public().name(), head).sign(&[&old, &new]).map_err(sign)?;
    ledger::insert_checkpoint(&mut tx, head.size, &note.to_string(), now).await?;
    made.change = Some(change);
    if !(ledger::retire_key(&mut tx, id, last_size, now).await? && ledger::insert_key(&mut tx, &made).await?) {
        return Err(LedgerError::Busy); // another rotation, which the turn should have kept out
    }
    tx.commit().await?;
    Ok(rotated)
}

/// A transaction that has the turn at giving places.
async fn turn(app: &App) -> Result<Tx, DbError> {
    loop {
        let mut tx = app.db.write().await?;
        if ledger::try_turn(&mut tx).await? {
            return Ok(tx);
        }
        drop(tx);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How the ledger came to its key, as a [`KeyChain`] reads it; empty while it has its first one.
pub async fn changes(tx: &mut Tx) -> Result<String, DbError> {
    Ok(ledger::keys(tx).await?.into_iter().filter_map(|key| key.change).collect())
}

/// The same, verified. What cannot be read is no chain: its keys vouch for nobody.
pub(super) fn chain_of(stored: &[ledger::LedgerKey]) -> KeyChain {
    let changes: String = stored.iter().filter_map(|key| key.change.as_deref()).collect();
    KeyChain::parse(changes.as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use sallyport_domain::ledger::checkpoint::KnownKey;

    use super::*;
    use crate::app::ledger::proofs;
    use crate::app::ledger::verify::{Wish, verify};
    use crate::store::db::testing::{app_on, on_both};

    async fn say(app: &App, count: usize) {
        for _ in 0..count {
            let act = Act::LedgerAlarm { place: "a test".to_owned(), what: "nothing".to_owned() };
            audit::record(app, &Actor::Bastion, act).await.unwrap();
        }
    }

    async fn fingerprints(app: &App) -> Vec<Hash> {
        let known = keys::known(&mut app.db.read().await.unwrap()).await.unwrap();
        known.iter().map(|known| known.key.fingerprint()).collect()
    }

    #[tokio::test]
    async fn a_running_sequencer_signs_with_the_new_key_and_every_checkpoint_stays_valid() {
        on_both(|db| async {
            let app = app_on(db);
            keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
            let (mut here, mut there) = (Sequencer::new(app.clone()), Sequencer::new(app.clone()));
            say(&app, 300).await;
            here.catch_up().await.unwrap();
            say(&app, 2).await; // these wait

            let first = rotate(&app, &Actor::Bastion).await.unwrap();
            say(&app, 5).await;
            there.catch_up().await.unwrap();
            let second = rotate(&app, &Actor::Bastion).await.unwrap();
            say(&app, 1).await;
            here.catch_up().await.unwrap();

            assert_eq!((first.last_size, second.from), (302, first.to));
            let all = fingerprints(&app).await;
            assert_eq!(all, [first.from, first.to, second.to]);
            let latest = proofs::checkpoint(&app, None).await.unwrap();
            assert_eq!(latest.size, 311, "the key, what was said, and two changes");
            let known = chain_of(&proofs::keys(&app).await.unwrap()).from_key(second.to);
            let known: &[KnownKey] = &known;
            assert!(Checkpoint::open(latest.note.as_bytes(), "bastion.example/ledger", known).is_ok());
            // An auditor who was given any one of the three.
            for fingerprint in all {
                let wish = Wish { fingerprints: vec![fingerprint], ..Wish::default() };
                let report = verify(&app, wish, |_| {}).await.unwrap();
                assert_eq!((report.faults.as_slice(), report.events), (&[] as &[_], 311));
            }
            let stranger = Wish { fingerprints: vec![Hash::ZERO], ..Wish::default() };
            assert!(!verify(&app, stranger, |_| {}).await.unwrap().is_sound());
        })
        .await;
    }

    #[tokio::test]
    async fn a_key_that_was_asked_for_does_not_vouch_for_what_others_signed_after_it() {
        on_both(|db| async {
            let app = app_on(db);
            keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
            let old = fingerprints(&app).await.remove(0);
            rotate(&app, &Actor::Bastion).await.unwrap();
            say(&app, 1).await;
            Sequencer::new(app.clone()).catch_up().await.unwrap();
            // Somebody takes away the old key's word for the new one, and with it the reason to believe it.
            let mut tx = app.db.write().await.unwrap();
            let forget = "UPDATE ledger_keys SET change = NULL";
            crate::store::db::change_either!(&mut tx, |c| sqlx::query(forget)).unwrap();
            tx.commit().await.unwrap();

            let wish = Wish { fingerprints: vec![old], ..Wish::default() };
            let report = verify(&app, wish, |_| {}).await.unwrap();

            assert!(!report.is_sound());
        })
        .await;
    }

    #[tokio::test]
    async fn a_database_that_an_anchor_does_not_fit_gets_no_new_key() {
        on_both(|db| async {
            let app = app_on(db);
            keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
            app.ledger_halted.store(true, Ordering::Release);
            assert!(matches!(rotate(&app, &Actor::Bastion).await, Err(LedgerError::Broken(_))));
        })
        .await;
    }
}
