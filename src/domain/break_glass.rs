//! Break-glass: a grant in a sealed envelope, for the day on which nobody can be asked. An admin makes it while all is well; the
//! operator of one node's host opens it there, once, with or without the database.
//!
//! ```text
//! file  = signed note (see `ledger::note`) with one signature, by the key for this purpose
//! text  = "sallyport-break-glass-v1" LF JSON LF        canonical (see `ledger::canonical`)
//! ```
//!
//! It holds what the rule and the dial need: the person with their public keys, targets with their pinned host keys, terms, and the
//! targets' credentials, sealed as the database has them. Whoever holds the file alone can read who may go where, and do nothing.
//! Pure: [`Envelope::read`] judges bytes, [`Envelope::may_open`] judges the moment.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::event::Actor;
use crate::grant::{Approval, EmptyWindow, Grant, TargetSelector, Terms, Window};
use crate::hash::Hash;
use crate::id::{EnvelopeId, GrantId, TargetId};
use crate::ledger::canonical::{self, CanonicalError, Kind};
use crate::ledger::note::{Note, NoteError, SignerKey, VerifierKey};
use crate::name::Login;
use crate::principal::Principal;
use crate::review::ReviewTerm;
use crate::target::{CredentialKind, Target};

/// What the signed bytes start with, and how many they are at most; a note holds a third more.
pub const ENVELOPE: Kind = Kind { prefix: "sallyport-break-glass-v1\n", most_bytes: 96 << 10 };

/// What the key that signs envelopes is called in the file.
pub const KEY_NAME: &str = "sallyport/break-glass";

/// The longest that an opened envelope lasts, in seconds.
pub const MOST_LASTING_SECONDS: u32 = 3600;

/// The longest that an envelope can wait to be opened, in days: people, keys and credentials change.
pub const MOST_DAYS: i64 = 366;

/// The most sessions at once under an opened envelope.
pub const MOST_SESSIONS: u32 = 4;

/// The most targets, those on the way too, and the most keys of the person.
pub const MOST: usize = 32;

/// The longest reason and node name, in bytes.
const MOST_TEXT: usize = 1000;

/// What an envelope says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub id: EnvelopeId,
    /// The one node that opens it.
    pub node: String,
    pub person: Principal,
    /// The person's public keys: algorithm and base64. One of them is the only way in.
    pub keys: Vec<String>,
    /// Those that `terms` names, and those on the way to them.
    pub targets: Vec<Target>,
    pub secrets: Vec<SealedSecret>,
    /// Targets by name; nobody's approval and no second factor, for nobody may be there; always with a review.
    pub terms: Terms,
    /// How long the grant lasts once the envelope was opened.
    pub lasting_seconds: u32,
    pub reason: String,
    pub made_by: Actor,
    pub made_at: DateTime<Utc>,
    /// The first instant at which it opens nothing any more.
    pub not_after: DateTime<Utc>,
}

/// The credential of an account, sealed for that account under a master key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    pub target: TargetId,
    pub login: Login,
    /// Base64.
    pub sealed: String,
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSecret({}, {}, …)", self.target, self.login)
    }
}

/// Why something cannot be an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the file is not a signed note, or not signed by the bastion's key for envelopes")]
    Note(#[from] NoteError),
    #[error("an envelope has one signature, this one has {0}")]
    Signatures(usize),
    #[error("what was signed is not an envelope that this version reads")]
    Content(#[from] CanonicalError),
    #[error("what was signed is no envelope: {0}")]
    Fault(&'static str),
}

/// What a node has on its disk about envelopes: without the database nothing else can tell.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    pub node: &'a str,
    /// Revoked, or about somebody who may not come in any more, when the database was last asked.
    pub void: &'a [EnvelopeId],
    /// Opened here.
    pub used: &'a [EnvelopeId],
    /// The latest instant that was ever written down.
    pub latest: DateTime<Utc>,
}

/// Why an envelope opens nothing here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the envelope is for node `{theirs}`, and this is `{ours}`")]
    OtherNode { theirs: String, ours: String },
    #[error("the envelope was opened here before, and opens once")]
    Used,
    #[error("the envelope was revoked, or its person or keys are no longer good")]
    Void,
    #[error("the envelope could be opened until {not_after}")]
    Ended { not_after: DateTime<Utc> },
    #[error("the clock is wrong: it shows {now}, and {seen} has been")]
    Clock { now: DateTime<Utc>, seen: DateTime<Utc> },
}

impl Envelope {
    /// Signs the envelope; gives back the file.
    pub fn sign(&self, key: &SignerKey) -> Result<String, EnvelopeError> {
        self.check()?;
        let text = canonical::encode(ENVELOPE, self)?;
        let text = String::from_utf8(text).map_err(|_| EnvelopeError::Fault("it is not UTF-8"))?;
        Ok(Note::sign(&(text + "\n"), &[key])?.to_string())
    }

    /// Reads a file that one of the `known` keys has signed, and nobody else.
    pub fn read(file: &[u8], known: &[VerifierKey]) -> Result<Self, EnvelopeError> {
        let note = Note::parse(file)?;
        match note.signatures().len() {
            1 => {}
            more => return Err(EnvelopeError::Signatures(more)),
        }
        note.verify(known)?;
        let text = note.text().strip_suffix('\n').unwrap_or_default();
        let envelope: Self = canonical::decode(ENVELOPE, text.as_bytes())?;
        envelope.check()?;
        Ok(envelope)
    }

    /// What the file is known by.
    pub fn document(file: &[u8]) -> Hash {
        Hash::of(file)
    }

    /// Whether it can be opened at `now` by the node that has this kept.
    pub fn may_open(&self, kept: Kept<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.node != kept.node {
            return Err(Refusal::OtherNode { theirs: self.node.clone(), ours: kept.node.to_owned() });
        }
        if kept.used.contains(&self.id) {
            return Err(Refusal::Used);
        }
        if kept.void.contains(&self.id) {
            return Err(Refusal::Void);
        }
        // Whoever sets the clock back must not bring an envelope back to life.
        let seen = self.made_at.max(kept.latest);
        if now < seen {
            return Err(Refusal::Clock { now, seen });
        }
        if self.not_after <= now {
            return Err(Refusal::Ended { not_after: self.not_after });
        }
        Ok(())
    }

    /// The grant that it becomes when it is opened at `now`, for `reason`.
    pub fn grant(&self, id: GrantId, reason: &str, now: DateTime<Utc>) -> Result<Grant, EmptyWindow> {
        let not_after = now + TimeDelta::seconds(i64::from(self.lasting_seconds));
        Ok(Grant {
            id,
            people: vec![self.person.id],
            terms: self.terms.clone(),
            window: Window::new(now, not_after)?,
            reason: format!("break-glass: {reason}"),
            ticket: None,
            template: None,
            created_by: match &self.made_by {
                Actor::Principal { id, .. } => Some(*id),
                Actor::Bastion | Actor::Operator { .. } | Actor::Stranger { .. } => None,
            },
            created_at: now,
            revoked: None,
        })
    }

    /// The accounts that the terms lead to.
    pub fn accounts(&self) -> impl Iterator<Item = (&Target, &Login)> {
        let meant = self.targets.iter().filter(|target| self.terms.covers(target));
        meant.flat_map(|target| {
            let granted = self.terms.logins.iter().filter(move |login| target.login(login).is_some());
            granted.map(move |login| (target, login))
        })
    }

    /// The accounts that the bastion logs in to: those, and the first ones of targets on the way.
    pub fn credentials(&self) -> impl Iterator<Item = (&Target, &Login)> {
        let way = self.accounts().flat_map(move |(target, _)| self.way_to(target).unwrap_or_default());
        let way = way.filter_map(|jump| jump.logins.first().map(|account| (jump, &account.login)));
        self.accounts().chain(way)
    }

    /// The targets on the way to `target`, the nearest to it first; `None` if one is missing or they lead in a circle.
    fn way_to(&self, target: &Target) -> Option<Vec<&Target>> {
        let mut way: Vec<&Target> = Vec::new();
        let mut next = target.jump;
        while let Some(id) = next {
            let jump = self.targets.iter().find(|jump| jump.id == id)?;
            if way.len() == self.targets.len() {
                return None;
            }
            way.push(jump);
            next = jump.jump;
        }
        Some(way)
    }

    fn has_credential(&self, target: &Target, login: &Login) -> bool {
        let sealed = || self.secrets.iter().any(|secret| secret.target == target.id && secret.login == *login);
        target.login(login).is_some_and(|account| account.credential == CredentialKind::Certificate || sealed())
    }

    /// What must hold of every envelope, whoever signed it.
    fn check(&self) -> Result<(), EnvelopeError> {
        let Self { id: _, node, person, keys, targets, secrets, terms, lasting_seconds, reason, .. } = self;
        let hold = |claim: bool, fault| if claim { Ok(()) } else { Err(EnvelopeError::Fault(fault)) };
        hold(!node.is_empty() && node.len() <= MOST_TEXT, "it names no node")?;
        hold(!reason.is_empty() && reason.len() <= MOST_TEXT, "it has no reason")?;
        hold(person.disabled_at.is_none(), "its person is disabled")?;
        hold((1..=MOST).contains(&keys.len()), "it has no keys of its person, or too many")?;
        hold((1..=MOST).contains(&targets.len()), "it has no targets, or too many")?;
        hold(secrets.len() <= MOST * MOST, "it has too many credentials")?;
        hold((1..=MOST_LASTING_SECONDS).contains(lasting_seconds), "it lasts longer than an hour, or not at all")?;
        let waits = self.not_after - self.made_at;
        hold(TimeDelta::zero() < waits && waits <= TimeDelta::days(MOST_DAYS), "it waits longer than a year")?;
        let is_named = |selector: &TargetSelector| {
            matches!(selector, TargetSelector::Name(_)) && targets.iter().any(|target| selector.matches(target))
        };
        hold(
            !terms.targets.is_empty() && terms.targets.iter().all(is_named),
            "its terms mean targets that it has not",
        )?;
        hold(terms.approval == Approval::None && !terms.second_factor, "its terms take others' approval")?;
        hold(
            terms.max_sessions.is_some_and(|most| (1..=MOST_SESSIONS).contains(&most)),
            "it allows too many sessions",
        )?;
        hold(matches!(terms.review, Some(ReviewTerm::Within(_))), "it owes no review")?;
        let mut accounts = 0;
        for (target, login) in self.accounts() {
            accounts += 1;
            hold(
                target.disabled_at.is_none() && !target.host_keys.is_empty(),
                "a target is disabled or has no host key",
            )?;
            hold(self.has_credential(target, login), "the credential of an account is missing")?;
            let Some(way) = self.way_to(target) else {
                return Err(EnvelopeError::Fault("a target on the way is missing"));
            };
            for jump in way {
                let login = jump.logins.first().map(|account| &account.login);
                let known = login.is_some_and(|login| self.has_credential(jump, login));
                hold(known && !jump.host_keys.is_empty(), "the credential of a target on the way is missing")?;
            }
        }
        hold(accounts > 0, "it leads to no account")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::grant::Capabilities;
    use crate::id::PrincipalId;
    use crate::principal::Role;
    use crate::target::{HostKey, HostKeyTrust, TargetLogin};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn key(secret: u8) -> SignerKey {
        SignerKey::new(KEY_NAME.parse().unwrap(), &[secret; 32])
    }

    fn target(number: u128, name: &str, credential: CredentialKind) -> Target {
        Target {
            id: TargetId::from_uuid(Uuid::from_u128(number)),
            name: name.parse().unwrap(),
            aliases: vec![],
            address: format!("{name}:22").parse().unwrap(),
            jump: None,
            logins: vec![TargetLogin { login: "root".parse().unwrap(), credential }],
            labels: BTreeMap::new(),
            host_keys: vec![HostKey { trust: HostKeyTrust::Host, public_key: "ssh-ed25519 AAAA".to_owned() }],
            created_at: at(-100),
            disabled_at: None,
        }
    }

    fn envelope() -> Envelope {
        let mut web = target(1, "web-1", CredentialKind::Key);
        let gate = target(2, "gate-1", CredentialKind::Certificate);
        web.jump = Some(gate.id);
        Envelope {
            id: EnvelopeId::from_uuid(Uuid::from_u128(7)),
            node: "node-a".to_owned(),
            person: Principal {
                id: PrincipalId::from_uuid(Uuid::from_u128(3)),
                name: "alice".parse().unwrap(),
                organisation: Some("Acme".to_owned()),
                roles: vec![Role::Engineer],
                created_at: at(-100),
                disabled_at: None,
            },
            keys: vec!["ssh-ed25519 AAAA".to_owned()],
            secrets: vec![SealedSecret { target: web.id, login: "root".parse().unwrap(), sealed: "AAAA".to_owned() }],
            targets: vec![web, gate],
            terms: Terms {
                targets: vec!["web-1".parse().unwrap()],
                logins: vec!["root".parse().unwrap()],
                capabilities: Capabilities { shell: true, exec: true, ..Capabilities::default() },
                source_networks: vec![],
                max_sessions: Some(1),
                second_factor: false,
                approval: Approval::None,
                files: crate::files::FileRules::default(),
                commands: crate::commands::rules::CommandRules::default(),
                forwarding: crate::grant::Forwarding::default(),
                review: Some(ReviewTerm::Within(1)),
            },
            lasting_seconds: 1800,
            reason: "the rack is on fire".to_owned(),
            made_by: Actor::Operator { uid: 0 },
            made_at: at(0),
            not_after: at(86_400),
        }
    }

    type Change = fn(&mut Envelope);

    const KEPT: Kept<'_> = Kept { node: "node-a", void: &[], used: &[], latest: DateTime::UNIX_EPOCH };

    proptest! {
        #[test]
        fn a_file_with_any_byte_changed_is_no_envelope(place: prop::sample::Index, to: u8) {
            let mut file = envelope().sign(&key(1)).unwrap().into_bytes();
            let place = place.index(file.len());
            prop_assume!(file[place] != to);
            file[place] = to;

            prop_assert!(Envelope::read(&file, &[key(1).public()]).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            prop_assert!(Envelope::read(&bytes, &[key(1).public()]).is_err());
        }

        #[test]
        fn it_opens_between_its_making_and_its_end_and_at_no_other_instant(seconds in -200_000_i64..200_000) {
            let open = envelope().may_open(KEPT, at(seconds)).is_ok();
            prop_assert_eq!(open, (0..86_400).contains(&seconds));
        }

        #[test]
        fn the_grant_is_the_persons_for_as_long_as_the_envelope_says(seconds in 1..=MOST_LASTING_SECONDS) {
            let envelope = Envelope { lasting_seconds: seconds, ..envelope() };
            let grant = envelope.grant(GrantId::from_uuid(Uuid::nil()), "fire", at(5)).unwrap();
            prop_assert_eq!(&grant.people, &vec![envelope.person.id]);
            prop_assert_eq!(grant.window, Window::new(at(5), at(5 + i64::from(seconds))).unwrap());
        }
    }

    #[test]
    fn what_was_signed_reads_back_and_another_key_signs_nothing() {
        let file = envelope().sign(&key(1)).unwrap();

        assert_eq!(Envelope::read(file.as_bytes(), &[key(2).public(), key(1).public()]).unwrap(), envelope());
        assert!(matches!(
            Envelope::read(file.as_bytes(), &[key(2).public()]),
            Err(EnvelopeError::Note(NoteError::NoKnownKey))
        ));
        let both = Note::sign(Note::parse(file.as_bytes()).unwrap().text(), &[&key(1), &key(2)]).unwrap().to_string();
        assert!(matches!(Envelope::read(both.as_bytes(), &[key(1).public()]), Err(EnvelopeError::Signatures(2))));
    }

    #[test]
    fn it_opens_once_on_its_own_node_and_not_once_it_is_void_or_the_clock_went_back() {
        let (ours, envelope) = ([envelope().id], envelope());
        let refusal = |kept| envelope.may_open(kept, at(50)).unwrap_err();

        assert_eq!(envelope.may_open(KEPT, at(50)), Ok(()));
        assert!(matches!(refusal(Kept { node: "node-b", ..KEPT }), Refusal::OtherNode { .. }));
        assert_eq!(refusal(Kept { used: &ours, ..KEPT }), Refusal::Used);
        assert_eq!(refusal(Kept { void: &ours, ..KEPT }), Refusal::Void);
        assert_eq!(refusal(Kept { latest: at(60), ..KEPT }), Refusal::Clock { now: at(50), seen: at(60) });
    }

    #[test]
    fn what_would_not_be_strict_is_not_signed() {
        let changes: [(&str, Change); 13] = [
            ("too long", |envelope| envelope.lasting_seconds = MOST_LASTING_SECONDS + 1),
            ("no time", |envelope| envelope.lasting_seconds = 0),
            ("waits for ever", |envelope| envelope.not_after = envelope.made_at + TimeDelta::days(MOST_DAYS + 1)),
            ("ended at once", |envelope| envelope.not_after = envelope.made_at),
            ("no review", |envelope| envelope.terms.review = None),
            ("no review", |envelope| envelope.terms.review = Some(ReviewTerm::None)),
            ("any number", |envelope| envelope.terms.max_sessions = None),
            ("asks others", |envelope| envelope.terms.approval = Approval::Watcher),
            ("a pattern", |envelope| envelope.terms.targets = vec!["web-*".parse().unwrap()]),
            ("an unknown target", |envelope| envelope.terms.targets.push("db-1".parse().unwrap())),
            ("no way", |envelope| envelope.targets.truncate(1)),
            ("no credential", |envelope| envelope.secrets.clear()),
            ("no keys", |envelope| envelope.keys.clear()),
        ];
        for (what, change) in changes {
            let mut envelope = envelope();
            change(&mut envelope);
            assert!(matches!(envelope.sign(&key(1)), Err(EnvelopeError::Fault(_))), "{what}");
        }
    }

    #[test]
    fn a_circle_of_targets_on_the_way_is_found() {
        let mut envelope = envelope();
        envelope.targets[1].jump = Some(envelope.targets[0].id);
        assert!(matches!(envelope.sign(&key(1)), Err(EnvelopeError::Fault("a target on the way is missing"))));
    }
}
