//! Who can read what.

use super::*;

fn client() -> (Identities, String) {
    let identity = x25519::Identity::generate();
    let public = identity.to_public().to_string();
    (Identities::parse(identity.to_string().expose_secret()).unwrap(), public)
}

#[test]
fn what_is_at_rest_opens_with_the_clients_key_and_with_the_recordings_own_and_with_no_other() {
    let ((identities, public), live) = (client(), LiveKey::generate());
    let encryption = Encryption::new(&[public], Some(live.clone())).unwrap().unwrap();

    let stored = encryption.for_rest(b"a segment");

    assert!(is_encrypted(&stored) && !stored.windows(9).any(|part| part == b"a segment"));
    assert_eq!(identities.decrypt(&stored, 9).unwrap(), b"a segment");
    assert_eq!(live.decrypt(&stored, 9).unwrap(), b"a segment");
    assert!(matches!(client().0.decrypt(&stored, 9), Err(DecryptError::OtherKeys)));
    assert!(matches!(LiveKey::generate().decrypt(&stored, 9), Err(DecryptError::OtherKeys)));
    assert!(matches!(identities.decrypt(&stored, 8), Err(DecryptError::TooLong { most: 8 })));
}

#[test]
fn what_goes_with_the_end_opens_with_the_recordings_own_key_alone() {
    let ((identities, public), live) = (client(), LiveKey::generate());
    let encryption = Encryption::new(&[public], Some(live.clone())).unwrap().unwrap();

    let tail = encryption.while_it_lives(b"a tail");

    assert_eq!(live.decrypt(&tail, 6).unwrap(), b"a tail");
    assert!(matches!(identities.decrypt(&tail, 6), Err(DecryptError::OtherKeys)));
}

#[test]
fn an_encrypted_segment_with_a_byte_changed_or_cut_off_does_not_open() {
    let (identities, public) = client();
    let stored = Encryption::new(&[public], None).unwrap().unwrap().for_rest(&[7; 300]);
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        assert!(identities.decrypt(&changed, 1000).is_err(), "byte {at}");
        assert!(identities.decrypt(&stored[..at], 1000).is_err(), "cut at byte {at}");
    }
}

#[test]
fn two_segments_of_the_same_content_have_different_hashes() {
    let encryption = Encryption::new(&[client().1], None).unwrap().unwrap();
    assert_ne!(encryption.for_rest(b"y\n"), encryption.for_rest(b"y\n"));
}

#[test]
fn a_key_that_cannot_be_read_is_no_reason_to_go_without() {
    assert!(Encryption::new(&["age1nonsense".to_owned()], None).is_err());
    assert!(Encryption::new(&[], None).unwrap().is_none());
    let parse = |text: &str| serde_json::from_str::<Recipients>(text);
    let (one, other) = (client().1, client().1);
    assert!(parse(&format!("[\"{one}\", \"age1nonsense\"]")).is_err());
    assert_eq!(parse(&format!("[\"{one}\", \"{other}\", \"{one}\"]")).unwrap().as_slice().len(), 2);
}
