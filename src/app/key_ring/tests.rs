use sallyport_domain::secret::TargetPassword;
use sallyport_domain::target::{HostKey, HostKeyTrust};

use super::*;
use crate::app::ledger::sequencer::Sequencer;
use crate::store::db::Db;
use crate::store::db::testing::{app_on, on_both};

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";
const OPERATOR: Actor = Actor::Operator { uid: 0 };

fn key(byte: u8) -> MasterKey {
    MasterKey::from_bytes(&[byte; 32]).unwrap()
}

/// An application whose database has a sealed value of every kind.
async fn ready(db: Db) -> App {
    let app = app_on(db);
    begin(&app).await.unwrap();
    ledger::keys::ensure(&app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    for purpose in keys::Purpose::ALL {
        keys::bastion_key(&app, purpose).await.unwrap();
    }
    let login = ("root".parse().unwrap(), targets::Credential::Password(TargetPassword::new("hunter2")));
    let new = targets::NewTarget {
        name: "web-1".parse().unwrap(),
        aliases: vec![],
        address: "10.0.0.1".parse().unwrap(),
        jump: None,
        logins: vec![login],
        labels: std::collections::BTreeMap::new(),
        host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: HOST_KEY.to_owned() }],
    };
    targets::add(&app, &OPERATOR, new).await.unwrap();
    app
}

/// Another node on the same database, with these keys.
fn node(app: &App, keys: &[MasterKey]) -> App {
    let mut other = app.clone();
    other.master = keys[0].clone().into();
    for key in keys.iter().skip(1) {
        other.master.add(key.clone());
    }
    other
}

async fn needed(app: &App) -> BTreeSet<String> {
    let mut tx = app.db.read().await.unwrap();
    let mut all = BTreeSet::new();
    for place in Place::ALL {
        let values = master_keys::sealed(&mut tx, place).await.unwrap();
        all.extend(values.iter().filter_map(|value| MasterKey::needed(&value.sealed)));
    }
    all
}

async fn state(app: &App, id: &str) -> KeyState {
    let all = list(app).await.unwrap();
    all.into_iter().find(|key| key.purpose == "master" && key.fingerprint == id).unwrap().state
}

#[tokio::test]
async fn all_is_sealed_anew_on_every_node_and_the_old_key_is_proved_to_open_nothing() {
    on_both(|db| async {
        let here = ready(db).await;
        let (old, new) = (key(7), key(8));
        let there = node(&here, &[old.clone(), new.clone()]);
        look(&here, "here").await.unwrap();
        look(&there, "there").await.unwrap();
        assert!(matches!(rotate(&here, &OPERATOR, None).await, Err(RotateError::NoOther)));
        here.master.add(new.clone());
        let early = rotate(&there, &OPERATOR, None).await;
        assert!(matches!(early, Err(RotateError::NotEverywhere { nodes, .. }) if nodes == ["here"]));
        look(&here, "here").await.unwrap();

        let rotated = rotate(&there, &OPERATOR, None).await.unwrap();
        assert_eq!((&rotated.from, &rotated.to), (&old.id(), &new.id()));
        // This node has not heard of it yet: it seals with the old key, and opens what is sealed with either.
        Sequencer::new(here.clone()).catch_up().await.unwrap();
        look(&there, "there").await.unwrap();
        assert_eq!(needed(&here).await, BTreeSet::from([new.id()]));
        assert_eq!(state(&here, &old.id()).await, KeyState::Leaving);
        let opened = keys::bastion_key(&here, keys::Purpose::UserCa).await;
        assert!(opened.is_ok());

        here.clock.advance(Duration::from_secs(20));
        look(&there, "there").await.unwrap();
        look(&here, "here").await.unwrap();
        look(&here, "here").await.unwrap();
        assert_eq!((state(&here, &old.id()).await, here.master.id()), (KeyState::Retired, new.id()));
        let filter = audit::EventFilter { kind: Some("master_key_retired".to_owned()), ..Default::default() };
        let events = audit::list(&here, 0, &filter, 10).await.unwrap();
        let told: Vec<&Act> = events.iter().map(|(_, event)| &event.act).collect();
        // The keys for five purposes, the ledger's, and a target's credential.
        assert_eq!(told, [&Act::MasterKeyRetired { key: old.id(), secrets: 7 }]);

        // The next start has the new key alone, and everything opens.
        let later = node(&here, &[new]);
        begin(&later).await.unwrap();
        for purpose in keys::Purpose::ALL {
            keys::bastion_key(&later, purpose).await.unwrap();
        }
        assert!(matches!(begin(&node(&here, &[old])).await, Err(BeginError::OtherKey { .. })));
    })
    .await;
}

#[tokio::test]
async fn what_a_node_sealed_with_the_old_key_in_the_last_moment_is_found_before_that_is_retired() {
    on_both(|db| async {
        let app = ready(db).await;
        app.master.add(key(8));
        look(&app, "here").await.unwrap();
        rotate(&app, &OPERATOR, None).await.unwrap();
        look(&app, "here").await.unwrap();
        let late = key(7);
        let mut tx = app.db.write().await.unwrap();
        let value = master_keys::sealed(&mut tx, Place::TargetSecret).await.unwrap().remove(0);
        let sealed = late.seal(&context(Place::TargetSecret, &value), b"hunter3").unwrap();
        assert!(master_keys::put(&mut tx, Place::TargetSecret, &value, &sealed).await.unwrap());
        tx.commit().await.unwrap();
        app.clock.advance(Duration::from_secs(20));

        assert!(app.master.put_to_use(&key(8).id()));
        retire(&app, &key(8).id(), &late.id(), app.clock.now()).await.unwrap();
        assert_eq!(state(&app, &late.id()).await, KeyState::Leaving);
        look(&app, "here").await.unwrap();

        assert_eq!(state(&app, &late.id()).await, KeyState::Retired);
        assert_eq!(needed(&app).await, BTreeSet::from([key(8).id()]));
    })
    .await;
}

#[tokio::test]
async fn a_rotation_waits_for_the_one_before_and_no_key_comes_back() {
    on_both(|db| async {
        let app = ready(db).await;
        app.master.add(key(8));
        app.master.add(key(9));
        let both = rotate(&app, &OPERATOR, None).await;
        assert!(matches!(both, Err(RotateError::WhichOne { ids }) if ids.len() == 2));
        assert!(matches!(rotate(&app, &OPERATOR, Some("00")).await, Err(RotateError::Unknown { .. })));
        rotate(&app, &OPERATOR, Some(&key(8).id())).await.unwrap();
        assert!(matches!(rotate(&app, &OPERATOR, None).await, Err(RotateError::UnderWay { .. })));

        app.clock.advance(Duration::from_secs(20));
        look(&app, "here").await.unwrap();

        assert!(matches!(rotate(&app, &OPERATOR, Some(&key(7).id())).await, Err(RotateError::Unknown { .. })));
        rotate(&app, &OPERATOR, None).await.unwrap();
        assert_eq!(app.master.id(), key(9).id());
    })
    .await;
}

#[tokio::test]
async fn a_node_without_the_key_in_use_says_so_and_one_with_the_wrong_key_does_not_begin() {
    on_both(|db| async {
        let app = ready(db).await;
        app.master.add(key(8));
        rotate(&app, &OPERATOR, None).await.unwrap();
        let without = node(&app, &[key(7)]);
        assert!(matches!(look(&without, "without").await, Err(SweepError::NotLoaded(id)) if id == key(8).id()));

        // As before this version, when the database did not say which key it needs.
        let mut tx = app.db.write().await.unwrap();
        crate::store::db::change_either!(&mut tx, |c| sqlx::query("DELETE FROM master_keys")).unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(begin(&node(&app, &[key(9)])).await, Err(BeginError::OtherKey { .. })));
        assert_eq!(list(&app).await.unwrap().iter().filter(|key| key.state == KeyState::Leaving).count(), 0);
    })
    .await;
}
