use std::collections::BTreeMap;

use sallyport_domain::principal::Role;
use sallyport_domain::secret::TargetPassword;
use sallyport_domain::target::{HostKey, HostKeyTrust};

use super::*;
use crate::app::{people, targets};
use crate::store::db::testing::{app_on, on_both};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";
const OPERATOR: Actor = Actor::Operator { uid: 7 };

/// A bastion's use cases with alice, who has a key, `web-1`, and this node.
struct Node {
    app: App,
    break_glass: BreakGlass,
    folder: tempfile::TempDir,
}

impl Node {
    async fn start(db: crate::store::db::Db) -> Self {
        let app = app_on(db);
        let person = people::NewPerson {
            name: "alice".parse().unwrap(),
            organisation: None,
            roles: vec![Role::Engineer],
            keys: vec![KEY.parse().unwrap()],
            password: None,
        };
        people::add(&app, &OPERATOR, person).await.unwrap();
        let target = targets::NewTarget {
            name: "web-1".parse().unwrap(),
            aliases: vec![],
            address: "10.0.0.1:22".parse().unwrap(),
            jump: None,
            logins: vec![("root".parse().unwrap(), targets::Credential::Password(TargetPassword::new("hunter2")))],
            labels: BTreeMap::new(),
            host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: KEY.to_owned() }],
        };
        targets::add(&app, &OPERATOR, target).await.unwrap();
        let mut tx = app.db.write().await.unwrap();
        db::nodes::register(&mut tx, app.run, "node-a", "0", app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (settings, dir) = (RecordingSettings::default(), folder.path().join("break-glass"));
        let break_glass = BreakGlass::start(app.clone(), "node-a".to_owned(), dir, settings, Health::new()).unwrap();
        Self { app, break_glass, folder }
    }

    fn wish(&self) -> NewEnvelope {
        NewEnvelope {
            person: "alice".parse().unwrap(),
            targets: vec!["web-1".parse().unwrap()],
            logins: vec!["root".parse().unwrap()],
            capabilities: Capabilities { shell: true, ..Capabilities::default() },
            max_sessions: 1,
            lasting: Duration::from_mins(30),
            not_after: self.app.clock.now() + Duration::from_hours(24),
            node: "node-a".to_owned(),
            reason: "for the day".to_owned(),
        }
    }

    async fn make(&self) -> MadeEnvelope {
        make(&self.app, &OPERATOR, self.wish()).await.unwrap()
    }

    async fn open(&self, file: &str) -> Result<OpenedEnvelope, BreakGlassError> {
        self.break_glass.open(7, file.as_bytes(), "all is down").await
    }
}

#[tokio::test]
async fn an_opened_envelope_is_a_grant_in_the_database_and_behind_the_door_and_opens_no_second_time() {
    on_both(|db| async {
        let node = Node::start(db).await;
        let made = node.make().await;
        assert!(!made.file.contains("hunter2"));
        assert!(node.break_glass.opened().is_none());

        let opened = node.open(&made.file).await.unwrap();

        assert!(opened.is_in_database);
        assert_eq!(grants::find(&node.app, opened.grant.id).await.unwrap(), opened.grant);
        let behind = node.break_glass.opened().unwrap().app;
        assert_eq!(grants::find(&behind, opened.grant.id).await.unwrap(), opened.grant);
        let secret = targets::secret(&behind, opened.envelope.targets[0].id, &"root".parse().unwrap()).await.unwrap();
        assert!(matches!(secret, Some(targets::Credential::Password(password)) if password.expose() == "hunter2"));
        let again = node.open(&made.file).await.unwrap_err();
        assert!(matches!(again, BreakGlassError::Refused(Refusal::Used)), "{again}");
        let other = node.open(&node.make().await.file).await.unwrap_err();
        assert!(matches!(other, BreakGlassError::AnotherOpen { .. }), "{other}");
        assert!(matches!(list(&node.app).await.unwrap()[..], [_, EnvelopeRecord { opened: Some(_), .. }]));
        drop(node.folder);
    })
    .await;
}

#[tokio::test]
async fn what_the_database_says_of_an_envelope_counts_when_it_is_opened() {
    on_both(|db| async {
        let node = Node::start(db).await;
        let (revoked, ended, other) = (node.make().await, node.make().await, node.make().await);

        revoke(&node.app, &OPERATOR, revoked.id, "lost").await.unwrap();
        let refused = node.open(&revoked.file).await.unwrap_err();
        assert!(matches!(refused, BreakGlassError::Refused(Refusal::Void)), "{refused}");
        assert!(matches!(revoke(&node.app, &OPERATOR, revoked.id, "again").await, Err(BreakGlassError::Over { .. })));

        people::disable(&node.app, &OPERATOR, &"alice".parse().unwrap(), None).await.unwrap();
        let refused = node.open(&other.file).await.unwrap_err();
        assert!(matches!(refused, BreakGlassError::Refused(Refusal::Void)), "{refused}");

        node.app.clock.advance(Duration::from_hours(25));
        let refused = node.open(&ended.file).await.unwrap_err();
        assert!(matches!(refused, BreakGlassError::Refused(Refusal::Void | Refusal::Ended { .. })), "{refused}");
        let told = audit::EventFilter { kind: Some("break_glass_refused".to_owned()), ..Default::default() };
        assert_eq!(audit::list(&node.app, 0, &told, 10).await.unwrap().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_would_be_no_strict_grant_becomes_no_envelope() {
    on_both(|db| async {
        let node = Node::start(db).await;
        let wish = || node.wish();
        let make = async |new| make(&node.app, &OPERATOR, new).await.unwrap_err();

        let long = make(NewEnvelope { lasting: Duration::from_secs(3601), ..wish() }).await;
        let late = make(NewEnvelope { not_after: node.app.clock.now(), ..wish() }).await;
        let nothing = make(NewEnvelope { capabilities: Capabilities::default(), ..wish() }).await;
        let nowhere = make(NewEnvelope { logins: vec!["ops".parse().unwrap()], ..wish() }).await;
        let unknown = make(NewEnvelope { node: "node-b".to_owned(), ..wish() }).await;

        assert!(matches!(long, BreakGlassError::Lasting));
        assert!(matches!(late, BreakGlassError::NoEnvelope(_)));
        assert!(matches!(nothing, BreakGlassError::Terms(_)));
        assert!(matches!(nowhere, BreakGlassError::NoEnvelope(_)));
        assert!(matches!(unknown, BreakGlassError::UnknownNode { known, .. } if known == "node-a"));
        assert!(list(&node.app).await.unwrap().is_empty());
    })
    .await;
}
