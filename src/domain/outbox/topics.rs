//! Which events a destination is told of: `*`, topics, kinds of acts, kinds with `*` at their end, and each of these with `!`
//! before it to leave out what else would be chosen.

use crate::event::Act;

/// Kinds of acts that go together, for people who choose.
const TOPICS: [(&str, &[&str]); 7] = [
    ("requests", &["request_made", "request_withdrawn", "request_expired"]),
    ("approvals", &["request_approved", "grant_made", "grant_extended"]),
    ("denials", &["request_denied", "denied", "request_refused", "grant_revoked", "session_cut"]),
    ("break_glass", &["break_glass*"]),
    (
        "integrity",
        &[
            "ledger_alarm",
            "rollback_accepted",
            "clock_stepped",
            "anchor_late",
            "anchor_recovered",
            "outbox_*",
            "recipients_changed",
        ],
    ),
    ("sessions", &["session_opened", "session_ended"]),
    ("reviews", &["review_overdue", "session_flagged", "session_reviewed"]),
];

/// A choice of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    takes: bool,
    /// A kind, or the beginning of kinds.
    kind: String,
    is_prefix: bool,
}

/// A word that chooses nothing there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no kind of event, and no topic (one of {topics}); `*` is everything, `session_*` all that begin so, `!` before a word leaves out", topics = topics())]
pub struct UnknownWord {
    pub word: String,
}

fn topics() -> String {
    TOPICS.map(|(name, _)| name).join(", ")
}

impl Selection {
    /// Reads the words of a setting. The last word that means a kind counts.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, UnknownWord> {
        let mut rules = Vec::new();
        for word in words {
            let word = word.as_ref();
            let (takes, name) = word.strip_prefix('!').map_or((true, word), |name| (false, name));
            let kinds = TOPICS.iter().find(|(topic, _)| *topic == name).map(|(_, kinds)| *kinds);
            for kind in kinds.unwrap_or(&[name]) {
                let (kind, is_prefix) = kind.strip_suffix('*').map_or((*kind, false), |prefix| (prefix, true));
                if kinds.is_none() && !is_prefix && !is_kind(kind) {
                    return Err(UnknownWord { word: word.to_owned() });
                }
                rules.push(Rule { takes, kind: kind.to_owned(), is_prefix });
            }
        }
        Ok(Self(rules))
    }

    /// Whether events of this kind are chosen.
    pub fn takes(&self, kind: &str) -> bool {
        let means = |rule: &&Rule| if rule.is_prefix { kind.starts_with(&rule.kind) } else { kind == rule.kind };
        self.0.iter().rev().find(means).is_some_and(|rule| rule.takes)
    }
}

/// Whether there are acts of this kind. Asked of the reader of acts itself, so that there is no list beside it.
fn is_kind(kind: &str) -> bool {
    let alone = serde_json::json!({ "act": kind });
    match serde_json::from_value::<Act>(alone) {
        Ok(_) => true,
        Err(error) => !error.to_string().starts_with("unknown variant"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_that_means_a_kind_counts() {
        let all_but = Selection::parse(&["*", "!file_operation", "!session_*", "session_cut"]).unwrap();
        for (kind, taken) in [
            ("grant_made", true),
            ("file_operation", false),
            ("session_opened", false),
            ("session_cut", true),
            ("of_a_newer_version", true),
        ] {
            assert_eq!(all_but.takes(kind), taken, "{kind}");
        }
        assert!(!Selection::parse::<&str>(&[]).unwrap().takes("grant_made"));
    }

    #[test]
    fn a_topic_means_kinds_that_there_are() {
        for (topic, kinds) in TOPICS {
            let selection = Selection::parse(&[topic]).unwrap();
            for kind in kinds.iter().filter(|kind| !kind.ends_with('*')) {
                assert!(is_kind(kind), "{kind} of {topic}");
                assert!(selection.takes(kind));
            }
            assert!(!selection.takes("recording_started"));
        }
        assert!(Selection::parse(&["integrity"]).unwrap().takes("outbox_dropped"));
        assert!(Selection::parse(&["break_glass"]).unwrap().takes("break_glass_used"));
    }

    #[test]
    fn a_word_that_means_nothing_is_refused_by_name() {
        for word in ["grants_made", "!nothing", "", "Requests"] {
            assert_eq!(Selection::parse(&["*", word]), Err(UnknownWord { word: word.to_owned() }));
        }
    }
}
