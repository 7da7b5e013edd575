//! What has to be done so that the templates are what is wanted. Pure.

use std::time::Duration;

use sallyport_domain::grant::Terms;

use super::file::{Access, WantedTemplate};
use super::plan::{Plan, Planned, Step, from_to};
use crate::api::templates::{MakeTemplate, SetTemplate, Template};
use crate::cli::terms::{self, joined};

impl WantedTemplate {
    fn set(&self) -> SetTemplate {
        SetTemplate {
            note: self.note.trim().to_owned(),
            terms: Terms::from(self.terms.clone()).into(), // what is usual is said
            lasting_seconds: self.lasting.map(|lasting| lasting.0),
            reason: self.reason.as_ref().map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
        }
    }
}

impl Plan {
    /// Compares templates. With `prune`, those that the file does not name are removed, if it names templates at all: what they said stays
    /// in the audit log, and grants that were made from them stay what they are.
    pub(super) fn templates(&mut self, wanted: &Access, there: &[Template], prune: bool) {
        let Some(wanted) = &wanted.templates else { return };
        for template in there.iter().filter(|template| !wanted.contains_key(&template.name)) {
            let what = format!("- template {}", template.name);
            if prune {
                let step = Step::RemoveTemplate(template.name.clone());
                self.steps.push(Planned { step, what, changes: vec!["removed".to_owned()] });
            } else {
                self.unnamed.push(format!("template {}", template.name));
            }
        }
        for (name, wanted) in wanted {
            let after = wanted.set();
            let Some(there) = there.iter().find(|there| there.name == *name) else {
                let said = rows(&after).into_iter().filter(|(_, text)| !text.is_empty());
                let changes = said.map(|(title, text)| format!("{title}: {}", in_line(&text))).collect();
                let step = Step::MakeTemplate(MakeTemplate::new(name.clone(), after));
                self.steps.push(Planned { step, what: format!("+ template {name}"), changes });
                continue;
            };
            let before = SetTemplate::from(there.clone());
            if before != after {
                let both = rows(&before).into_iter().zip(rows(&after));
                let differs = both.filter(|((_, before), (_, after))| before != after);
                let changes = differs
                    .map(|((title, before), (_, after))| from_to(title, &in_line(&before), &in_line(&after)))
                    .collect();
                let step = Step::SetTemplate(name.clone(), after);
                self.steps.push(Planned { step, what: format!("~ template {name}"), changes });
            }
        }
    }
}

fn rows(set: &SetTemplate) -> Vec<(&'static str, String)> {
    let lasting = set.lasting_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let mut rows = vec![
        ("note", set.note.clone()),
        ("targets", joined(&set.terms.targets)),
        ("logins", joined(&set.terms.logins)),
        ("for", lasting.map(|lasting| humantime::format_duration(lasting).to_string()).unwrap_or_default()),
        ("reason", set.reason.clone().unwrap_or_default()),
    ];
    rows.extend(terms::rows(&set.terms));
    rows
}

fn in_line(text: &str) -> String {
    text.replace('\n', "; ")
}
