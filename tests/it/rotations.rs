//! Keys of targets that are replaced by schedule; a real OpenSSH server says which of them open.

use std::time::Duration;

use sallyport::app::clock::Clock;
use sallyport::app::{credential_rotation, targets};
use sallyport_domain::event::Act;
use sallyport_domain::secret::PrivateKeyText;
use sallyport_domain::target::{HostKey, HostKeyTrust};

use crate::bastion::{Bastion, OPERATOR};
use crate::support::eventually;
use crate::support::keys::KeyPair;
use crate::support::sshd::{Settings, Sshd};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_due_is_replaced_by_itself_again_and_again() {
    let clock = Clock::manual("2026-03-02T12:00:00Z".parse().unwrap());
    let bastion = Bastion::at(clock.clone(), &[]).await;
    let stored = KeyPair::ed25519();
    let file = bastion.folder().join("keys");
    std::fs::write(&file, stored.public().to_openssh().unwrap() + "\n").unwrap();
    let lines = vec![format!("AuthorizedKeysFile {}", file.display())];
    let sshd = Sshd::start(&Settings { lines, ..Settings::default() });
    let (name, login) = ("web-1".parse().unwrap(), Sshd::login().parse().unwrap());
    let private_key = std::fs::read_to_string(stored.path()).unwrap();
    let public_key = sshd.host_key().to_openssh().unwrap();
    let new = targets::NewTarget {
        name: "web-1".parse().unwrap(),
        aliases: vec![],
        address: sshd.address().to_string().parse().unwrap(),
        jump: None,
        logins: vec![(Sshd::login().parse().unwrap(), targets::Credential::Key(PrivateKeyText::new(&private_key)))],
        labels: std::collections::BTreeMap::new(),
        host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key }],
    };
    targets::add(bastion.app(), &OPERATOR, new).await.unwrap();
    let path = file.to_str().unwrap();
    let day = 24 * 60 * 60;
    credential_rotation::schedule(bastion.app(), &OPERATOR, &name, &login, day, path).await.unwrap();
    let done = async || {
        let acts = bastion.acts().await;
        let is_dead = |act: &&Act| matches!(act, Act::CredentialRotation { step, error: None, .. } if step == "dead");
        acts.iter().filter(is_dead).count()
    };

    for times in 1..=2 {
        clock.advance(Duration::from_secs(day));
        eventually("the key is replaced", async || done().await == times).await;
    }

    let keys = std::fs::read_to_string(&file).unwrap();
    assert_eq!(keys.lines().count(), 1);
    assert!(!keys.contains(&stored.public().to_openssh().unwrap()), "{keys}");
    assert!(matches!(
        credential_rotation::schedule(bastion.app(), &OPERATOR, &name, &login, 1, path).await,
        Err(credential_rotation::RotationError::Interval)
    ));
}
