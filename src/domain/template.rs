//! Templates for grants: terms that are agreed once, so that a grant is who, which template, and until when. Pure.

use serde::{Deserialize, Serialize};

use crate::grant::{TargetSelector, Terms};
use crate::name::{Login, TemplateName};
use crate::target::Target;

/// Terms for grants, under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pub name: TemplateName,
    /// What it is for, in words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// `targets` and `logins` may be empty: then they are said with each grant.
    pub terms: Terms,
    /// How long a grant lasts that says nothing else; a second at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasting_seconds: Option<u32>,
    /// The reason of a grant that gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a grant may not have from a template, because the template does not say it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outside {
    #[error(
        "the template `{template}` does not lead to `{selector}`: name targets that it means, or make the grant without it"
    )]
    Target { template: TemplateName, selector: String },
    #[error("the template `{template}` has no login `{login}`: choose of its own, or make the grant without it")]
    Login { template: TemplateName, login: Login },
}

impl Template {
    /// The terms of a grant made from this template, for `targets` and `logins` where some are given: those that the template
    /// leaves open, or fewer than it has, never more. `known` are the targets that there are.
    ///
    /// A target is named by a selector of the template's own, or by the name of one that the template means today.
    pub fn terms_for(
        &self,
        targets: Vec<TargetSelector>,
        logins: Vec<Login>,
        known: &[Target],
    ) -> Result<Terms, Outside> {
        let mut terms = self.terms.clone();
        if !targets.is_empty() {
            let is_within = |selector: &TargetSelector| {
                self.terms.targets.is_empty()
                    || self.terms.targets.contains(selector)
                    || matches!(selector, TargetSelector::Name(_))
                        && known.iter().any(|target| selector.matches(target) && self.terms.covers(target))
            };
            if let Some(selector) = targets.iter().find(|selector| !is_within(selector)) {
                return Err(Outside::Target { template: self.name.clone(), selector: selector.to_string() });
            }
            terms.targets = targets;
        }
        if !logins.is_empty() {
            let is_within = |login: &&Login| self.terms.logins.is_empty() || self.terms.logins.contains(login);
            if let Some(login) = logins.iter().find(|login| !is_within(login)) {
                return Err(Outside::Login { template: self.name.clone(), login: login.clone() });
            }
            terms.logins = logins;
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::id::TargetId;

    fn template(targets: &[&str], logins: &[&str]) -> Template {
        let terms = serde_json::json!({"targets": targets, "logins": logins, "capabilities": {"exec": true}});
        Template {
            name: "firmware".parse().unwrap(),
            note: String::new(),
            terms: serde_json::from_value(terms).unwrap(),
            lasting_seconds: None,
            reason: None,
        }
    }

    fn target(name: &str, label: &str) -> Target {
        Target {
            id: TargetId::from_uuid(Uuid::from_u128(1)),
            name: name.parse().unwrap(),
            aliases: vec![format!("{name}.alias").parse().unwrap()],
            address: "10.0.0.1:22".parse().unwrap(),
            jump: None,
            logins: vec![],
            labels: [("env".to_owned(), label.to_owned())].into(),
            host_keys: vec![],
            created_at: DateTime::UNIX_EPOCH,
            disabled_at: None,
        }
    }

    fn chosen(template: &Template, targets: &[&str], logins: &[&str]) -> Result<Terms, Outside> {
        let known = [target("gpu-1", "prod"), target("db-1", "test")];
        let targets = targets.iter().map(|text| text.parse().unwrap()).collect();
        template.terms_for(targets, logins.iter().map(|text| text.parse().unwrap()).collect(), &known)
    }

    #[test]
    fn a_grant_has_the_templates_terms_or_fewer_targets_and_logins() {
        let template = template(&["gpu-*", "env=prod"], &["root", "ops"]);

        assert_eq!(chosen(&template, &[], &[]), Ok(template.terms.clone()));
        for selector in ["gpu-*", "env=prod", "gpu-1", "gpu-1.alias"] {
            let terms = chosen(&template, &[selector], &["ops"]).unwrap();
            assert_eq!((terms.targets[0].to_string().as_str(), terms.logins.len()), (selector, 1));
            assert_eq!(terms.capabilities, template.terms.capabilities);
        }
    }

    #[test]
    fn a_grant_has_nothing_that_its_template_does_not_say() {
        let template = template(&["gpu-*"], &["root"]);

        // `gpu-9` may be meant one day; nobody knows what it will be then. A pattern is not compared with a pattern.
        for selector in ["db-1", "gpu-9", "gpu-1*", "*", "env=prod"] {
            assert!(matches!(chosen(&template, &[selector], &[]), Err(Outside::Target { .. })), "{selector}");
            assert!(chosen(&template, &["gpu-1", selector], &[]).is_err());
        }
        assert!(matches!(chosen(&template, &[], &["root", "ops"]), Err(Outside::Login { .. })));
    }

    #[test]
    fn what_a_template_leaves_open_is_said_with_the_grant() {
        let terms = chosen(&template(&[], &[]), &["db-*"], &["ops"]).unwrap();
        assert_eq!((terms.targets[0].to_string().as_str(), terms.logins[0].as_str()), ("db-*", "ops"));
        assert!(chosen(&template(&[], &[]), &[], &[]).unwrap().targets.is_empty());
    }
}
