//! How long recordings are kept, what is held back from deletion, and whose hands a deletion takes. All of it decides and does nothing.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::event::Actor;
use crate::grant::TargetSelector;
use crate::id::{GrantId, SessionId, TargetId};
use crate::target::Target;

/// What a legal hold keeps: everything that was recorded in this session, under this grant, on this target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldSubject {
    Session(SessionId),
    Grant(GrantId),
    Target(TargetId),
}

/// How long the recordings of some targets are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub targets: TargetSelector,
    pub keep: Duration,
}

/// Everything that says how long recordings are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// For targets that no rule means; `None` is for ever.
    pub keep: Option<Duration>,
    pub rules: Vec<Rule>,
}

/// Since when something may go, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The first instant at which it need not be kept any more.
    pub at: DateTime<Utc>,
    /// The rule in words, for the books: `tier=core: 2557 days`.
    pub rule: String,
}

impl Rules {
    /// When what was recorded on `target` in a session that ended at `ended_at` is due. Of the rules that mean the target the
    /// longest counts. `None` is never.
    pub fn due(&self, target: &Target, ended_at: DateTime<Utc>) -> Option<Due> {
        let meant = self.rules.iter().filter(|rule| rule.targets.matches(target));
        let (keep, name) = match meant.max_by_key(|rule| rule.keep) {
            Some(rule) => (rule.keep, rule.targets.to_string()),
            None => (self.keep?, "default".to_owned()),
        };
        let at = ended_at.checked_add_signed(TimeDelta::from_std(keep).ok()?)?;
        Some(Due { at, rule: format!("{name}: {}", in_words(keep)) })
    }

    /// The shortest time that anything is kept; `None` if nothing ever goes.
    pub fn shortest(&self) -> Option<Duration> {
        self.rules.iter().map(|rule| rule.keep).chain(self.keep).min()
    }
}

fn in_words(keep: Duration) -> String {
    match keep.as_secs() {
        seconds if seconds >= 86_400 => format!("{} days", seconds / 86_400),
        seconds => format!("{seconds} s"),
    }
}

/// Whether a deletion had the hands that it takes: one person asks, another one says yes; or a rule of the operator's made it due, and a
/// person says yes, or the operator has decided that nobody needs to.
pub fn had_its_hands(asked_by: &Actor, approved_by: &Actor, is_by_rule: bool) -> bool {
    match (asked_by, approved_by) {
        (Actor::Principal { id: one, .. }, Actor::Principal { id: other, .. }) => !is_by_rule && one != other,
        (Actor::Bastion, Actor::Principal { .. } | Actor::Bastion) => is_by_rule,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::id::PrincipalId;

    fn target(labels: &[(&str, &str)]) -> Target {
        Target {
            id: TargetId::from_uuid(Uuid::from_u128(1)),
            name: "web-1".parse().unwrap(),
            aliases: vec![],
            address: "10.0.0.1:22".parse().unwrap(),
            jump: None,
            logins: vec![],
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            host_keys: vec![],
            created_at: DateTime::UNIX_EPOCH,
            disabled_at: None,
        }
    }

    fn days(days: u64) -> Duration {
        Duration::from_hours(24 * days)
    }

    fn rule(targets: &str, keep: u64) -> Rule {
        Rule { targets: targets.parse().unwrap(), keep: days(keep) }
    }

    #[test]
    fn of_the_rules_that_mean_a_target_the_longest_counts_and_the_default_where_none_does() {
        let rules = Rules { keep: Some(days(365)), rules: vec![rule("tier=core", 2557), rule("web-*", 30)] };
        let due = |labels: &[(&str, &str)]| rules.due(&target(labels), DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(due(&[("tier", "core")]).at, DateTime::UNIX_EPOCH + days(2557));
        assert_eq!(due(&[("tier", "core")]).rule, "tier=core: 2557 days");
        assert_eq!(due(&[]).rule, "web-*: 30 days");
        let others = Rules { rules: vec![rule("db-*", 9)], ..rules };
        assert_eq!(others.due(&target(&[]), DateTime::UNIX_EPOCH).unwrap().rule, "default: 365 days");
        assert_eq!(others.shortest(), Some(days(9)));
    }

    #[test]
    fn without_a_rule_everything_is_kept() {
        assert_eq!(Rules::default().due(&target(&[]), DateTime::UNIX_EPOCH), None);
        let other = Rules { keep: None, rules: vec![rule("db-*", 1)] };
        assert_eq!(other.due(&target(&[]), DateTime::UNIX_EPOCH), None);
        assert_eq!(Rules::default().shortest(), None);
    }

    proptest! {
        #[test]
        fn nothing_is_due_before_the_time_of_every_rule_that_means_it(keeps in prop::collection::vec(0..9000_u64, 1..6)) {
            let rules = Rules { keep: Some(days(1)), rules: keeps.iter().map(|&keep| rule("web-1", keep)).collect() };
            let due = rules.due(&target(&[]), DateTime::UNIX_EPOCH).unwrap();
            prop_assert!(keeps.iter().all(|&keep| due.at >= DateTime::UNIX_EPOCH + days(keep)));
        }
    }

    #[test]
    fn a_deletion_takes_two_people_or_a_rule() {
        let person = |number| Actor::Principal {
            id: PrincipalId::from_uuid(Uuid::from_u128(number)),
            name: "alice".parse().unwrap(),
        };
        let operator = Actor::Operator { uid: 0 };
        assert!(had_its_hands(&person(1), &person(2), false));
        assert!(!had_its_hands(&person(1), &person(1), false));
        assert!(!had_its_hands(&person(1), &operator, false) && !had_its_hands(&operator, &person(1), false));
        assert!(
            had_its_hands(&Actor::Bastion, &person(1), true) && had_its_hands(&Actor::Bastion, &Actor::Bastion, true)
        );
        assert!(!had_its_hands(&Actor::Bastion, &person(1), false) && !had_its_hands(&person(1), &person(2), true));
    }
}
