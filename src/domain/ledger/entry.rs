//! Events as entries of the ledger: the bytes that are hashed into the tree.
//!
//! ```text
//! entry = "sallyport-event-v1\n" {"act":{…},"actor":{…},"at":"2026-03-01T12:00:00.000001Z","id":"e-…"}
//! ```
//!
//! See [`super::canonical`] for the JSON. Instants are RFC 3339 in UTC, with `Z` and with none, three, six or nine digits
//! of a second, the fewest that are exact.
//!
//! **These bytes are for ever.** A new act is a new value of `act.act`; old entries do not change. A new member of an
//! old act must be left out where it has its default (`skip_serializing_if`), or old entries would no longer be what
//! they encode to; `fixtures/events-v1.jsonl` holds us to that. Anything else takes a new prefix.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::canonical::{self, CanonicalError, Kind};
use super::merkle;
use crate::event::Event;
use crate::hash::Hash;
use crate::id::EventId;

/// Entries. An event is some hundred bytes long; a grant for 10,000 people has 300 kB.
pub const ENTRY: Kind = Kind { prefix: "sallyport-event-v1\n", most_bytes: 1 << 20 };

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    #[error("the event has no `{member}` as events have it")]
    Member { member: &'static str },
}

/// What every reader can read of an entry, also one that does not know the act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    pub id: EventId,
    pub at: DateTime<Utc>,
    /// The act's name: `grant_revoked`.
    pub kind: String,
}

/// The entry of `event`.
pub fn encode(event: &Event) -> Result<Vec<u8>, CanonicalError> {
    canonical::encode(ENTRY, event)
}

/// Reads an entry; what is accepted encodes to the very same bytes.
pub fn decode(entry: &[u8]) -> Result<Event, CanonicalError> {
    canonical::decode(ENTRY, entry)
}

/// Reads of an entry what does not depend on its act, so that a verifier older than the bastion finds no fault in an
/// act it does not know. The bytes must be canonical all the same.
pub fn outline(entry: &[u8]) -> Result<Outline, EntryError> {
    let value = canonical::check(ENTRY, entry)?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let missing = |member| EntryError::Member { member };
    let id: Option<EventId> = text(value.get("id")).and_then(|id| id.parse().ok());
    let at: Option<DateTime<Utc>> = text(value.get("at")).and_then(|at| at.parse().ok());
    let kind = text(value.get("act").and_then(|act| act.get("act")));
    value.get("actor").and_then(|actor| actor.get("kind")).ok_or_else(|| missing("actor"))?;
    Ok(Outline {
        id: id.ok_or_else(|| missing("id"))?,
        at: at.ok_or_else(|| missing("at"))?,
        kind: kind.ok_or_else(|| missing("act"))?,
    })
}

/// The entry's hash in the tree.
pub fn hash(entry: &[u8]) -> Hash {
    merkle::leaf_hash(entry)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use chrono::TimeDelta;
    use proptest::prelude::*;
    use proptest::sample::select;
    use uuid::Uuid;

    use super::super::tile::Edge;
    use super::*;
    use crate::commands::rules::CommandRules;
    use crate::event::{Act, Actor, CutReason, SessionEnd};
    use crate::files::{
        Digest, Direction, FileAct, FileDenial, FileOperation, FilePath, FileResult, FileRules, Moved, WayRules,
    };
    use crate::grant::{Approval, Capabilities, Destination, ForwardFrom, Forwarding, Terms, Window};
    use crate::id::{DeletionId, GrantId, HoldId, PrincipalId, RecordingId, SessionId, TargetId};
    use crate::policy::{Capability, Denial};
    use crate::principal::Role;
    use crate::retention::HoldSubject;
    use crate::review::risk::tests::any_reason;
    use crate::review::seen::Coverage;
    use crate::review::{Choice, MOST_DAYS, ReviewTerm, Verdict};
    use crate::template::Template;

    /// One entry of each act, without the prefix. They were written once; they must be readable for ever.
    const FIXTURE: &str = include_str!("fixtures/events-v1.jsonl");

    fn any_instant() -> impl Strategy<Value = DateTime<Utc>> {
        let micros = prop_oneof![0..4_000_000_000_i64, 0..4_000_000_000_000_000_i64];
        micros.prop_map(|micros| DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros))
    }

    fn any_uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    /// Any address without a flow label, which an address as text does not have.
    fn any_address() -> impl Strategy<Value = SocketAddr> {
        any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip(), address.port()))
    }

    fn any_window() -> impl Strategy<Value = Window> {
        (any_instant(), 1..1_000_000_i64)
            .prop_map(|(from, micros)| Window::new(from, from + TimeDelta::microseconds(micros)).unwrap())
    }

    fn any_file_rules() -> impl Strategy<Value = FileRules> {
        let way = || {
            let globs = prop::collection::vec(select(&["/srv/**", "~/in/*", "/a/[bc]?"]), 0..3);
            (prop::option::of(globs), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(
                |(paths, file_bytes, total_bytes)| WayRules {
                    paths: paths.map(|globs| globs.into_iter().map(|glob| glob.parse().unwrap()).collect()),
                    file_bytes,
                    total_bytes,
                },
            )
        };
        let hashes = prop::collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..3);
        let limited = (way(), way(), prop::option::of(hashes), any::<Option<u64>>()).prop_map(
            |(upload, download, hashes, terminal_budget)| FileRules {
                upload,
                download,
                upload_sha256: hashes.map(Into::into),
                terminal_budget,
            },
        );
        prop_oneof![Just(FileRules::default()), limited]
    }

    fn any_command_rules() -> impl Strategy<Value = CommandRules> {
        let exec = prop::collection::vec(select(&["uptime", "systemctl restart app-*", "cat /srv/**"]), 0..3);
        let flag = prop::collection::vec(select(&["*rm -rf*", "curl ?"]), 0..3);
        (exec, flag).prop_map(|(exec, flag)| CommandRules {
            exec: exec.into_iter().map(|pattern| pattern.parse().unwrap()).collect(),
            flag: flag.into_iter().map(|pattern| pattern.parse().unwrap()).collect(),
        })
    }

    fn any_path() -> impl Strategy<Value = FilePath> {
        prop::collection::vec(any::<u8>(), 0..20).prop_map(FilePath)
    }

    fn any_operation() -> impl Strategy<Value = FileOperation> {
        let digest = prop_oneof![
            any::<[u8; 32]>().prop_map(|hash| Digest::Sha256(Hash(hash))),
            Just(Digest::NotSequential),
            Just(Digest::NotWanted)
        ];
        let moved = (any::<u64>(), digest, any::<bool>());
        let moved = moved.prop_map(|(bytes, digest, partial)| Moved { bytes, digest, partial });
        let paths = prop::collection::vec(any_path(), 0..3);
        let act = prop_oneof![
            (any_path(), moved.clone(), prop::option::of(moved))
                .prop_map(|(path, upload, download)| FileAct::Transfer { path, upload: Some(upload), download })
                .boxed(),
            any_path().prop_map(|path| FileAct::Open { path, direction: Direction::Upload }).boxed(),
            (any_path(), any_path()).prop_map(|(from, to)| FileAct::Rename { from, to }).boxed(),
            any_path().prop_map(|path| FileAct::SetAttributes { path }).boxed(),
            (any_path(), any_path(), any::<Option<u64>>())
                .prop_map(|(from, to, bytes)| FileAct::Copy { from, to, bytes })
                .boxed(),
            (paths, any::<u64>(), any::<u64>())
                .prop_map(|(paths, sent, received)| FileAct::Sync {
                    direction: Direction::Download,
                    paths,
                    sent,
                    received,
                    unfollowed: None,
                })
                .boxed(),
        ];
        let denial = prop_oneof![
            Just(FileDenial::Direction { direction: Direction::Download }).boxed(),
            any_path().prop_map(|path| FileDenial::Path { direction: Direction::Upload, path }).boxed(),
            (any_path(), any::<[u8; 32]>())
                .prop_map(|(path, hash)| FileDenial::NotListed { path, sha256: Hash(hash) })
                .boxed(),
            any::<u64>().prop_map(|most| FileDenial::TerminalBytes { most }).boxed(),
        ];
        let result = prop_oneof![
            Just(FileResult::Done).boxed(),
            any::<u32>().prop_map(|code| FileResult::Failed { code }).boxed(),
            denial.prop_map(|denial| FileResult::Denied { denial }).boxed(),
            Just(FileResult::Interrupted).boxed(),
        ];
        (act, result).prop_map(|(act, result)| FileOperation { act, result })
    }

    pub(crate) fn any_terms() -> BoxedStrategy<Terms> {
        let texts = |texts: &'static [&'static str]| prop::collection::vec(select(texts), 1..4);
        let forwards = prop::collection::vec((".{0,9}", any::<u16>()), 0..3);
        (
            texts(&["web-1", "gpu-[ab]-0?", "env=prod"]),
            texts(&["root", "svc$"]),
            any::<[bool; 4]>(),
            forwards,
            texts(&["10.0.0.0/8", "2001:db8::/32"]),
            any::<Option<u32>>(),
            any::<bool>(),
            select(&Approval::ALL),
            any_file_rules(),
            any_command_rules(),
            (select(&ForwardFrom::ALL), any::<bool>(), prop::option::of(0..=MOST_DAYS)),
        )
            .prop_map(
                |(
                    targets,
                    logins,
                    [shell, exec, upload, download],
                    forwards,
                    networks,
                    max_sessions,
                    second_factor,
                    approval,
                    files,
                    commands,
                    (from, metadata_only, review),
                )| Terms {
                    targets: targets.into_iter().map(|text| text.parse().unwrap()).collect(),
                    logins: logins.into_iter().map(|text| text.parse().unwrap()).collect(),
                    capabilities: Capabilities {
                        shell,
                        exec,
                        upload,
                        download,
                        forwards: forwards.into_iter().map(|(host, port)| Destination { host, port }).collect(),
                    },
                    source_networks: networks.into_iter().map(|text| text.parse().unwrap()).collect(),
                    max_sessions,
                    second_factor,
                    approval,
                    files,
                    commands,
                    forwarding: Forwarding { from, metadata_only },
                    review: review.map(|days| if days == 0 { ReviewTerm::None } else { ReviewTerm::Within(days) }),
                },
            )
            .boxed()
    }

    fn any_denial() -> BoxedStrategy<Denial> {
        let grant = || any_uuid().prop_map(GrantId::from_uuid);
        let capability = select(&[Capability::Shell, Capability::Exec, Capability::Files, Capability::Forward]);
        prop_oneof![
            (grant(), capability).prop_map(|(grant, capability)| Denial::NotInGrant { grant, capability }),
            (grant(), any::<u32>()).prop_map(|(grant, most)| Denial::TooManySessions { grant, most }),
            (grant(), any::<std::net::IpAddr>())
                .prop_map(|(grant, source_address)| Denial::SourceNotAllowed { grant, source_address }),
            (grant(), any_instant()).prop_map(|(grant, opens_at)| Denial::NotYet { grant, opens_at }),
            (grant(), any_instant()).prop_map(|(grant, at)| Denial::Expired { grant, at }),
            Just(Denial::NoGrant),
        ]
        .boxed()
    }

    fn any_cut() -> BoxedStrategy<CutReason> {
        prop_oneof![
            any_denial().prop_map(|denial| CutReason::Denied { denial }),
            (any::<String>(), any::<String>()).prop_map(|(by, reason)| CutReason::Admin { by, reason }),
            any::<u64>().prop_map(|bytes| CutReason::TargetStalled { bytes }),
            Just(CutReason::ShuttingDown),
        ]
        .boxed()
    }

    pub(crate) fn any_end() -> BoxedStrategy<SessionEnd> {
        prop_oneof![
            Just(SessionEnd::ClientClosed),
            any::<String>().prop_map(|message| SessionEnd::TargetUnreachable { message }),
            any_cut().prop_map(|reason| SessionEnd::Cut { reason }),
            Just(SessionEnd::Crashed),
        ]
        .boxed()
    }

    fn any_act() -> BoxedStrategy<Act> {
        let name = || "[a-z0-9][a-z0-9._-]{0,12}";
        let people = prop::collection::vec(any_uuid().prop_map(PrincipalId::from_uuid), 0..4);
        let roles = prop::collection::vec(select(&Role::ALL), 0..4);
        let made = (any_uuid(), people, any_terms(), any_window(), any::<String>(), prop::option::of(name()));
        let added = (any_uuid(), name(), any::<String>(), prop::collection::vec(any::<String>(), 0..3));
        let ended = (any_uuid(), any_uuid(), any::<u32>(), any::<[u8; 32]>(), any::<u32>());
        prop_oneof![
            (any_uuid(), name(), roles)
                .prop_map(|(id, name, roles)| Act::PersonAdded {
                    person: PrincipalId::from_uuid(id),
                    name: name.parse().unwrap(),
                    roles,
                })
                .boxed(),
            added.prop_map(|(id, name, address, host_keys)| Act::TargetAdded {
                target: TargetId::from_uuid(id),
                name: name.parse().unwrap(),
                address,
                host_keys,
            }),
            made.prop_map(|(id, people, terms, window, reason, template)| Act::GrantMade {
                grant: GrantId::from_uuid(id),
                people,
                terms,
                window,
                reason,
                template: template.map(|name| name.parse().unwrap()),
            }),
            (name(), any::<String>(), any_terms(), any::<Option<u32>>(), any::<Option<String>>())
                .prop_map(|(name, note, terms, lasting_seconds, reason)| Act::TemplateChanged {
                    template: Template { name: name.parse().unwrap(), note, terms, lasting_seconds, reason },
                })
                .boxed(),
            (any_address(), any::<String>(), any::<String>())
                .prop_map(|(address, claimed, method)| Act::LoginRefused { address, claimed, method }),
            (any_uuid(), any_address(), any::<String>(), any_denial()).prop_map(|(id, address, wanted, denial)| {
                Act::Denied { person: PrincipalId::from_uuid(id), address, wanted, denial }
            }),
            (any_uuid(), any_end()).prop_map(|(id, end)| Act::SessionEnded { session: SessionId::from_uuid(id), end }),
            (any_uuid(), any_cut())
                .prop_map(|(id, reason)| Act::SessionCut { session: SessionId::from_uuid(id), reason }),
            (any_uuid(), any_uuid(), any_operation()).prop_map(|(session, recording, operation)| Act::FileOperation {
                session: SessionId::from_uuid(session),
                recording: RecordingId::from_uuid(recording),
                operation,
            }),
            (any_uuid(), any_uuid(), any::<String>()).prop_map(|(session, recording, reason)| Act::FilesUnreadable {
                session: SessionId::from_uuid(session),
                recording: RecordingId::from_uuid(recording),
                reason,
            }),
            (any_uuid(), any_uuid(), any::<u32>(), any::<String>()).prop_map(
                |(session, recording, number, pattern)| {
                    Act::CommandFlagged {
                        session: SessionId::from_uuid(session),
                        recording: RecordingId::from_uuid(recording),
                        number,
                        pattern,
                    }
                }
            ),
            (any_uuid(), 0..3_u8, any_uuid(), any::<String>())
                .prop_map(|(hold, kind, subject, reason)| {
                    let subject = match kind {
                        0 => HoldSubject::Session(SessionId::from_uuid(subject)),
                        1 => HoldSubject::Grant(GrantId::from_uuid(subject)),
                        _ => HoldSubject::Target(TargetId::from_uuid(subject)),
                    };
                    Act::HoldSet { hold: HoldId::from_uuid(hold), subject, reason }
                })
                .boxed(),
            (any_uuid(), any_uuid(), any::<[u8; 32]>(), any_actor(), any::<Option<String>>(), any::<String>())
                .prop_map(|(deletion, session, manifest, asked_by, rule, reason)| Act::RecordingsDeleted {
                    deletion: DeletionId::from_uuid(deletion),
                    session: SessionId::from_uuid(session),
                    manifest: Hash(manifest),
                    asked_by,
                    rule,
                    reason,
                })
                .boxed(),
            (
                any_uuid(),
                prop::option::of(any_instant()),
                any::<u32>(),
                prop::collection::vec(any_reason(), 0..3),
                any::<u8>()
            )
                .prop_map(|(session, due_at, risk, reasons, share)| Act::ReviewDecided {
                    session: SessionId::from_uuid(session),
                    due_at,
                    sign_offs: 1,
                    risk,
                    reasons,
                    choice: Choice::NotDrawn { draw: risk, share },
                })
                .boxed(),
            (any_uuid(), select(&Verdict::ALL), any::<String>(), any::<[u32; 2]>(), any::<bool>())
                .prop_map(|(session, verdict, note, [active_us, seen_us], was_deleted)| Act::SessionReviewed {
                    session: SessionId::from_uuid(session),
                    verdict,
                    note,
                    coverage: Coverage {
                        active_us: active_us.into(),
                        seen_us: seen_us.into(),
                        shown_us: 0,
                        read_us: seen_us.into(),
                    },
                    was_deleted,
                })
                .boxed(),
            ended.prop_map(|(session, recording, segments, chain, gaps)| Act::RecordingEnded {
                session: SessionId::from_uuid(session),
                recording: RecordingId::from_uuid(recording),
                segments,
                chain: Hash(chain).to_string(),
                gaps,
            }),
        ]
        .boxed()
    }

    fn any_actor() -> impl Strategy<Value = Actor> {
        prop_oneof![
            Just(Actor::Bastion),
            any::<u32>().prop_map(|uid| Actor::Operator { uid }),
            any_address().prop_map(|address| Actor::Stranger { address }),
            (any_uuid(), "[a-z0-9]{1,9}").prop_map(|(id, name)| Actor::Principal {
                id: PrincipalId::from_uuid(id),
                name: name.parse().unwrap(),
            }),
        ]
    }

    pub(crate) fn any_event() -> BoxedStrategy<Event> {
        (any_uuid(), any_instant(), any_actor(), any_act())
            .prop_map(|(id, at, actor, act)| Event { id: EventId::from_uuid(id), at, actor, act })
            .boxed()
    }

    proptest! {
        #[test]
        fn every_event_reads_back_from_its_entry(event in any_event()) {
            let entry = encode(&event).unwrap();
            let outline = outline(&entry).unwrap();
            prop_assert_eq!((outline.id, outline.at), (event.id, event.at));
            prop_assert_eq!(decode(&entry).unwrap(), event);
        }

        #[test]
        fn two_events_never_share_an_entry(a in any_event(), b in any_event()) {
            prop_assert_eq!(encode(&a).unwrap() == encode(&b).unwrap(), a == b);
        }

        #[test]
        fn whatever_is_accepted_encodes_to_itself(event in any_event(), place: prop::sample::Index, byte: u8) {
            let mut entry = encode(&event).unwrap();
            let place = place.index(entry.len());
            entry[place] = byte;
            if let Ok(read) = decode(&entry) {
                prop_assert_eq!(encode(&read).unwrap(), entry);
            }
        }
    }

    #[test]
    fn entries_of_the_first_version_are_what_they_were() {
        let (mut kinds, mut edge) = (Vec::new(), Edge::new());
        for line in FIXTURE.lines() {
            let entry = [ENTRY.prefix, line].concat();
            decode(entry.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
            kinds.push(outline(entry.as_bytes()).unwrap().kind);
            edge.append([hash(entry.as_bytes())]);
        }
        kinds.dedup();
        assert_eq!(kinds.len(), 92, "one line or more for each act");
        // As written and hashed by a program in another language.
        let root = "6632f21e2bb8539784f5d43dec1769a51e17aeeba50d2b734a25d5d3fcc192e5";
        assert_eq!(edge.head().root.to_string(), root);
    }

    #[test]
    fn an_act_that_is_not_known_yet_can_be_checked_but_not_read() {
        let line = FIXTURE.lines().next().unwrap().replace("person_added", "person_flown_to_the_moon");
        let entry = [ENTRY.prefix, &line].concat();
        assert!(matches!(decode(entry.as_bytes()), Err(CanonicalError::Json(_))));
        assert_eq!(outline(entry.as_bytes()).unwrap().kind, "person_flown_to_the_moon");
    }

    #[test]
    fn a_member_that_was_added_is_refused() {
        let line = FIXTURE.lines().next().unwrap().replace(r#""id":"e-"#, r#""hidden":1,"id":"e-"#);
        let entry = [ENTRY.prefix, &line].concat();
        assert!(matches!(decode(entry.as_bytes()), Err(CanonicalError::Spelling { .. })));
    }

    #[test]
    fn what_is_no_event_has_no_outline() {
        for (line, member) in [
            ("{}", "actor"),
            ("null", "actor"),
            (r#"{"actor":{"kind":"bastion"}}"#, "id"),
            (r#"{"act":{},"actor":{"kind":"bastion"},"at":"2026-03-01T12:00:00Z","id":"x"}"#, "id"),
        ] {
            let entry = [ENTRY.prefix, line].concat();
            let error = outline(entry.as_bytes()).unwrap_err();
            assert!(matches!(error, EntryError::Member { member: found } if found == member), "{line}: {error}");
        }
    }
}
