//! The keys that sign checkpoints. One is in use, whichever node made it; those before it stay known, each up to the size of
//! the tree at which it was retired.

use chrono::{DateTime, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::ledger::checkpoint::KnownKey;
use sallyport_domain::ledger::note::{KeyName, SignerKey};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use uuid::Uuid;

use super::LedgerError;
use crate::app::{App, audit};
use crate::store::db::ledger::{self, LedgerKey};
use crate::store::db::{DbError, Tx};

/// Makes the ledger's key if there is none. `name` is what a new ledger is called; one that exists keeps its name.
pub async fn ensure(app: &App, name: &KeyName) -> Result<(), LedgerError> {
    let known = ledger::keys(&mut app.db.read().await?).await?;
    if in_use(&known).is_some() {
        return Ok(());
    }
    let now = app.clock.now();
    let (made, _) = make(app, name, now)?;
    let vkey = made.vkey.clone();
    let mut tx = app.db.write().await?;
    // If another node is at it, this waits for its commit, and then the one key in use is that node's.
    if ledger::insert_key(&mut tx, &made).await? {
        let act = Act::BastionKeyMade { purpose: "ledger".to_owned(), public_key: vkey };
        audit::append(&mut tx, now, &Actor::Bastion, act).await?;
    }
    Ok(tx.commit().await?)
}

/// A new key, sealed, and opened.
pub(super) fn make(
    app: &App,
    name: &KeyName,
    created_at: DateTime<Utc>,
) -> Result<(LedgerKey, SignerKey), LedgerError> {
    let id = Uuid::now_v7();
    let mut secret = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| LedgerError::NoRandomness)?;
    let signer = SignerKey::new(name.clone(), &secret);
    let sealed = app.master.seal(&context(id), secret.as_slice())?;
    let (name, vkey) = (name.to_string(), signer.public().to_string());
    Ok((LedgerKey { id, name, vkey, sealed, created_at, retired: None, change: None }, signer))
}

/// Every key that is known, and how far each is to be believed.
pub async fn known(tx: &mut Tx) -> Result<Vec<KnownKey>, LedgerError> {
    Ok(known_of(&ledger::keys(tx).await?)?)
}

/// The same of rows that were read already.
pub(super) fn known_of(keys: &[LedgerKey]) -> Result<Vec<KnownKey>, sallyport_domain::ledger::note::KeyError> {
    let known = |key: &LedgerKey| {
        Ok(KnownKey { key: key.vkey.parse()?, last_size: key.retired.map(|(_, last_size)| last_size) })
    };
    keys.iter().map(known).collect()
}

/// The key that signs now.
pub(super) fn in_use(keys: &[LedgerKey]) -> Option<&LedgerKey> {
    keys.iter().find(|key| key.retired.is_none())
}

/// Opens the private half of a key.
pub(super) fn open(app: &App, key: &LedgerKey) -> Result<SignerKey, LedgerError> {
    let opened = app.master.open(&context(key.id), &key.sealed)?;
    let secret: Option<&[u8; 32]> = opened.expose_secret().try_into().ok();
    let secret = secret.ok_or_else(|| DbError::Corrupt {
        doing: "open the ledger's key".into(),
        message: "it is not 32 bytes long".to_owned(),
    })?;
    let signer = SignerKey::new(key.name.parse()?, secret);
    if signer.public().to_string() != key.vkey {
        return Err(LedgerError::Broken("the public half of its key is not that of the private one".to_owned()));
    }
    Ok(signer)
}

/// What a key is sealed for.
pub(crate) fn context(id: Uuid) -> String {
    format!("ledger/{id}")
}
