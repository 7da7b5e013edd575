//! An event in one short sentence, for people's phones and mailboxes. What somebody wrote is quoted, cut, and stripped of what a
//! mail or chat program would take for more than text: an engineer's reason must not call all hands or lead anybody to a page.

use std::collections::BTreeMap;

use crate::event::{Act, Actor, CutReason, Event};
use crate::id::PrincipalId;
use crate::request::Wish;

/// The most characters of what somebody wrote.
const MOST_QUOTED: usize = 160;

/// Names of people, as far as they are known.
pub type Names = BTreeMap<PrincipalId, String>;

/// The people whose names [`sentence`] asks for.
pub fn people(event: &Event) -> Vec<PrincipalId> {
    match &event.act {
        Act::RequestMade { person, .. }
        | Act::Denied { person, .. }
        | Act::BreakGlassMade { person, .. }
        | Act::BreakGlassOpened { person, .. } => vec![*person],
        Act::GrantMade { people, .. } => people.iter().take(3).copied().collect(),
        _ => Vec::new(),
    }
}

/// What happened.
pub fn sentence(event: &Event, names: &Names) -> String {
    let name = |id: &PrincipalId| names.get(id).map_or_else(|| id.to_string(), |name| plain(name, 64));
    let by = actor(&event.actor);
    match &event.act {
        Act::RequestMade { request, person, wish, reason } => {
            let who = name(person);
            let what = match wish {
                Wish::Access { targets, .. } => {
                    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
                    format!("asks for access to {}", plain(&targets.join(", "), MOST_QUOTED))
                }
                Wish::MoreTime { grant, .. } => format!("asks for more time on grant {grant}"),
                Wish::Session { target, login, .. } => format!("waits for approval to log in to {target} as {login}"),
            };
            format!("{who} {what}: {} ({request})", quoted(reason))
        }
        Act::RequestApproved { request, grant, changed } => {
            let how = if *changed { "approved, changed," } else { "approved" };
            format!("{by} {how} request {request}: grant {grant}")
        }
        Act::RequestDenied { request, reason } => format!("{by} denied request {request}: {}", quoted(reason)),
        Act::RequestWithdrawn { request } => format!("request {request} was withdrawn"),
        Act::RequestExpired { request } => format!("request {request} expired: nobody answered"),
        Act::GrantMade { grant, people, window, reason, .. } => {
            let mut all: Vec<String> = people.iter().take(3).map(name).collect();
            if people.len() > 3 {
                all.push(format!("{} more", people.len() - 3));
            }
            let until = window.not_after().format("%Y-%m-%d %H:%M UTC");
            format!("{by} made grant {grant} for {} until {until}: {}", all.join(", "), quoted(reason))
        }
        Act::GrantExtended { grant, not_after, reason } => {
            let until = not_after.format("%Y-%m-%d %H:%M UTC");
            format!("{by} set the end of grant {grant} to {until}: {}", quoted(reason))
        }
        Act::GrantRevoked { grant, reason } => format!("{by} revoked grant {grant}: {}", quoted(reason)),
        Act::BreakGlassMade { person, node, reason, .. } => {
            let (who, node) = (name(person), plain(node, 64));
            format!("{by} made a break-glass envelope for {who}, which {node} can open: {}", quoted(reason))
        }
        Act::BreakGlassOpened { grant, person, node, reason, .. } => {
            let (who, node) = (name(person), plain(node, 64));
            format!("BREAK-GLASS: {by} opened an envelope on {node}: grant {grant} for {who}: {}", quoted(reason))
        }
        Act::BreakGlassRefused { node, why, .. } => {
            let (node, why) = (plain(node, 64), plain(why, MOST_QUOTED));
            format!("ALARM: {by} wanted to open a break-glass envelope on {node}: {why}")
        }
        Act::Denied { person, address, wanted, denial } => {
            let (who, wanted) = (name(person), quoted(wanted));
            format!("{who} at {} was refused {wanted}: {denial} ({})", address.ip(), event.id)
        }
        Act::RequestRefused { session, request, .. } => {
            format!("in session {session} {} was refused ({})", quoted(request), event.id)
        }
        Act::SessionCut { session, reason } => {
            let why = match reason {
                CutReason::Admin { by, reason } => format!("by {}: {}", plain(by, 64), quoted(reason)),
                other => plain(&other.to_string(), MOST_QUOTED),
            };
            format!("session {session} was cut: {why}")
        }
        Act::LedgerAlarm { place, what } => {
            format!("ALARM: {} is not as it was written: {}", plain(place, MOST_QUOTED), plain(what, MOST_QUOTED))
        }
        Act::RollbackAccepted { found, anchored } => {
            format!("ALARM: a database of {found} events was taken on, though {anchored} were anchored")
        }
        Act::AnchorLate { node, anchor, since, .. } => {
            let since = since.format("%Y-%m-%d %H:%M UTC");
            format!("ALARM: checkpoints do not get to the anchor {anchor} of {} since {since}", plain(node, 64))
        }
        Act::AnchorRecovered { node, anchor } => {
            format!("checkpoints get to the anchor {anchor} of {} again", plain(node, 64))
        }
        Act::ClockStepped { node, before, after } => {
            format!("the clock of {} was set from {before} to {after}", plain(node, 64))
        }
        Act::RecipientsChanged { node, after, .. } => {
            let node = plain(node, 64);
            match after.len() {
                0 => format!("recordings on {node} are not encrypted any more"),
                keys => format!("recordings on {node} are encrypted to other keys from now on, {keys} in all"),
            }
        }
        Act::OutboxLate { destination, since, .. } => {
            let since = since.format("%Y-%m-%d %H:%M UTC");
            format!("ALARM: events do not get to {} since {since}", plain(destination, 64))
        }
        Act::OutboxRecovered { destination } => format!("events get to {} again", plain(destination, 64)),
        Act::OutboxDropped { destination, records, first, last, .. } => {
            let destination = plain(destination, 64);
            format!("ALARM: {destination} refused {records} records, which were given up: events {first} to {last}")
        }
        Act::ReviewOverdue { session, due_at } => {
            format!("nobody has reviewed session {session}; it was due {}", due_at.format("%Y-%m-%d %H:%M UTC"))
        }
        Act::SessionFlagged { session, words, .. } => format!("{by} flagged session {session}: {}", quoted(words)),
        Act::SessionReviewed { session, verdict, note, .. } => {
            let verdict = verdict.as_str().replace('_', " ");
            let note = if note.is_empty() { String::new() } else { format!(": {}", quoted(note)) };
            format!("{by} signed off session {session} as {verdict}{note}")
        }
        // What was chosen by its kind alone: the kind says what it is, the reference where to read more.
        _ => format!("{} by {by} ({})", kind(&event.act), event.id),
    }
}

fn kind(act: &Act) -> String {
    let act = serde_json::to_value(act).unwrap_or_default();
    act.get("act").and_then(serde_json::Value::as_str).unwrap_or("an event").replace('_', " ")
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Bastion => "the bastion".to_owned(),
        Actor::Operator { uid } => format!("the operator (uid {uid})"),
        Actor::Principal { name, .. } => name.to_string(),
        Actor::Stranger { address } => format!("somebody at {}", address.ip()),
    }
}

fn quoted(text: &str) -> String {
    format!("“{}”", plain(text, MOST_QUOTED))
}

/// At most `most` characters of `text`, as text and nothing else: no control or direction characters, no markup (`<` calls
/// people in some chats), no link.
pub fn plain(text: &str, most: usize) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut plain: String = text
        .chars()
        .map(|c| match c {
            '<' => '‹',
            '>' => '›',
            '“' | '”' => '"',
            // What stands before `//` or between the letters of a host makes a link of it.
            '/' => '⁄',
            '@' => '＠',
            hidden if is_hidden(hidden) => ' ',
            other => other,
        })
        .take(most)
        .collect();
    if text.chars().nth(most).is_some() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::id::{EventId, GrantId, RequestId};

    fn event(actor: Actor, act: Act) -> Event {
        let id = EventId::from_uuid(Uuid::from_u128(9));
        Event { id, at: "2026-03-01T12:00:00Z".parse().unwrap(), actor, act }
    }

    #[test]
    fn a_request_says_who_wants_what_and_why() {
        let person = PrincipalId::from_uuid(Uuid::from_u128(1));
        let grant = GrantId::from_uuid(Uuid::from_u128(2));
        let wish = Wish::MoreTime { grant, lasting: std::time::Duration::from_secs(3600) };
        let request = RequestId::from_uuid(Uuid::from_u128(3));
        let made =
            event(Actor::Bastion, Act::RequestMade { request, person, wish, reason: "INC-7\n<!channel>".to_owned() });
        assert_eq!(people(&made), [person]);

        let text = sentence(&made, &[(person, "alice".to_owned())].into());

        assert_eq!(text, format!("alice asks for more time on grant {grant}: “INC-7 ‹!channel›” ({request})"));
    }

    #[test]
    fn an_alarm_says_so_and_an_act_without_a_sentence_its_kind() {
        let alarm = event(Actor::Bastion, Act::LedgerAlarm { place: "event 7".to_owned(), what: "gone".to_owned() });
        assert!(sentence(&alarm, &Names::new()).starts_with("ALARM: event 7"));
        let other = event(
            Actor::Operator { uid: 0 },
            Act::SignedOut { person: PrincipalId::from_uuid(Uuid::nil()), browsers: 1 },
        );
        assert!(sentence(&other, &Names::new()).starts_with("signed out by the operator (uid 0) (e-"));
    }

    proptest! {
        #[test]
        fn what_somebody_wrote_is_short_and_nothing_but_text(text in any::<String>(), evil in "(<!here>|https://evil\\.example/x|\r\n|\u{202e}|@all)") {
            let plain = plain(&format!("{text}{evil}{text}"), 50);
            prop_assert!(plain.chars().count() <= 51);
            let evil = ['<', '>', '\n', '\r', '\u{202e}', '@'];
            prop_assert!(!plain.contains(evil) && !plain.contains("://"), "{}", plain);
            prop_assert!(!plain.chars().any(char::is_control));
        }
    }
}
