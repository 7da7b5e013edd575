//! The object store: one object for each checkpoint, under a key that sorts the largest first and names the root. An object is
//! never written twice; where the bucket has object lock, its default retention keeps it.

use bytes::Bytes;
use sallyport_domain::ledger::merkle::Head;

use super::{AnchorError, Outgoing, Seen};
use crate::store::blob::{Blobs, Created};

const PREFIX: &str = "anchors/";

/// Where a checkpoint goes. Stores list by key, so what is newest must come first.
fn key(head: Head) -> String {
    let root = head.root.to_string();
    format!("{}{}-{}.note", prefix(head.size), head.size, root.get(..16).unwrap_or(&root))
}

fn prefix(size: u64) -> String {
    format!("{PREFIX}{:020}-", u64::MAX - size)
}

/// Puts a checkpoint there. Another one of the same size means that two histories were signed.
pub(super) async fn put(blobs: &Blobs, outgoing: &Outgoing) -> Result<(), AnchorError> {
    let key = key(outgoing.head);
    let others = blobs.first_keys(PREFIX, &prefix(outgoing.head.size), 2).await?;
    if let Some(other) = others.into_iter().find(|other| *other != key) {
        return Err(AnchorError::Other { place: other });
    }
    match blobs.create(&key, Bytes::from(outgoing.note.clone())).await? {
        Created::Fresh => Ok(()),
        Created::Existed if blobs.get(&key).await? == outgoing.note.as_bytes() => Ok(()),
        Created::Existed => Err(AnchorError::Other { place: key }),
    }
}

/// The newest ones.
pub(super) async fn seen(blobs: &Blobs, most: usize) -> Result<Vec<Seen>, AnchorError> {
    let mut seen = Vec::new();
    for key in blobs.first_keys(PREFIX, PREFIX, most).await? {
        let note = blobs.get(&key).await?;
        let note = String::from_utf8_lossy(&note).into_owned();
        seen.push(Seen { place: format!("anchor `{key}`"), note, beside: None });
    }
    Ok(seen)
}
