//! Templates for grants: made, changed, removed, and grants made from them. A grant keeps a copy of what its template said, so what
//! becomes of the template later touches nobody's access.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sallyport_domain::event::{Act, Actor};
use sallyport_domain::grant::{Grant, TargetSelector, Window};
use sallyport_domain::name::{Login, PrincipalName, TemplateName};
use sallyport_domain::template::{Outside, Template};

use crate::app::grants::{self, GrantError, NewGrant};
use crate::app::text::{self, TextError};
use crate::app::{App, Still, audit, is_changed};
use crate::store::db::templates::TemplateRecord;
use crate::store::db::{DbError, Tx, targets, templates};

/// The longest that a template may say a grant lasts.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A grant to make from a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromTemplate {
    pub template: TemplateName,
    /// At least one.
    pub people: Vec<PrincipalName>,
    /// Those that the template leaves open, or fewer than it has; its own where there are none.
    pub targets: Vec<TargetSelector>,
    /// Likewise.
    pub logins: Vec<Login>,
    /// Now, where it is left out.
    pub not_before: Option<DateTime<Utc>>,
    /// As long as the template says, where it is left out.
    pub not_after: Option<DateTime<Utc>>,
    /// The template's, where it is left out.
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

/// Why templates were left as they are, or none was used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("there is no template `{name}`")]
    Unknown { name: TemplateName },
    #[error("there is a template `{name}` already")]
    NameTaken { name: TemplateName },
    #[error("somebody changed the template `{name}` meanwhile: look at it again")]
    Changed { name: TemplateName },
    #[error("a grant lasts a second at least, and {} days at most", LONGEST.as_secs() / 86_400)]
    Lasting,
    #[error("the template `{name}` does not say how long a grant lasts: say until when")]
    NoEnd { name: TemplateName },
    #[error("the template `{name}` has no reason: say why")]
    NoReason { name: TemplateName },
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes a template.
pub async fn make(app: &App, actor: &Actor, new: Template) -> Result<TemplateRecord, TemplateError> {
    let template = checked(new)?;
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    if !templates::insert(&mut tx, &template, now).await? {
        return Err(TemplateError::NameTaken { name: template.name });
    }
    audit::append(&mut tx, now, actor, Act::TemplateMade { template: template.clone() }).await?;
    tx.commit().await?;
    Ok(TemplateRecord { template, created_at: now, changed_at: now })
}

/// Puts `new` in the place of the template of its name, if that is `still` what the caller knows.
pub async fn change(
    app: &App,
    actor: &Actor,
    new: Template,
    still: Still<'_, TemplateRecord>,
) -> Result<TemplateRecord, TemplateError> {
    let template = checked(new)?;
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let before = held(&mut tx, &template.name, still).await?;
    if template == before.template {
        return Ok(before);
    }
    templates::replace(&mut tx, &template, now).await?;
    audit::append(&mut tx, now, actor, Act::TemplateChanged { template: template.clone() }).await?;
    tx.commit().await?;
    Ok(TemplateRecord { template, created_at: before.created_at, changed_at: now })
}

/// Removes a template, if it is `still` what the caller knows. Gives it as it was.
pub async fn remove(
    app: &App,
    actor: &Actor,
    name: &TemplateName,
    still: Still<'_, TemplateRecord>,
) -> Result<TemplateRecord, TemplateError> {
    let mut tx = app.db.write().await?;
    let before = held(&mut tx, name, still).await?;
    templates::remove(&mut tx, name).await?;
    audit::append(&mut tx, app.clock.now(), actor, Act::TemplateRemoved { template: name.clone() }).await?;
    tx.commit().await?;
    Ok(before)
}

/// Every template, by name.
pub async fn list(app: &App) -> Result<Vec<TemplateRecord>, TemplateError> {
    Ok(templates::list(&mut app.db.read().await?).await?)
}

/// The template of this name.
pub async fn find(app: &App, name: &TemplateName) -> Result<TemplateRecord, TemplateError> {
    load(&mut app.db.read().await?, name).await
}

/// Makes a grant from a template.
pub async fn grant(app: &App, actor: &Actor, from: FromTemplate) -> Result<Grant, TemplateError> {
    let name = from.template.clone();
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let new = fill(&mut tx, now, from).await?;
    let grant = grants::make_in(&mut tx, now, actor, new, Some(name)).await?;
    tx.commit().await?;
    app.changes.notify();
    Ok(grant)
}

/// The grant that would be made from a template. Nothing is stored, and nothing is said of whether it may be.
pub async fn preview(app: &App, from: FromTemplate) -> Result<NewGrant, TemplateError> {
    fill(&mut app.db.read().await?, app.clock.now(), from).await
}

async fn fill(tx: &mut Tx, now: DateTime<Utc>, from: FromTemplate) -> Result<NewGrant, TemplateError> {
    let template = load(tx, &from.template).await?.template;
    let known = targets::list(tx).await?;
    let terms = template.terms_for(from.targets, from.logins, &known)?;
    let not_before = from.not_before.unwrap_or(now);
    let not_after = match (from.not_after, template.lasting_seconds) {
        (Some(end), _) => end,
        (None, Some(seconds)) => {
            let end = not_before.checked_add_signed(TimeDelta::seconds(seconds.into()));
            end.ok_or(TemplateError::Lasting)?
        }
        (None, None) => return Err(TemplateError::NoEnd { name: template.name }),
    };
    let window = Window::new(not_before, not_after).map_err(GrantError::from)?;
    let given = from.reason.filter(|reason| !reason.trim().is_empty());
    let reason = given.or(template.reason).ok_or(TemplateError::NoReason { name: template.name })?;
    Ok(NewGrant { people: from.people, terms, window, reason, ticket: from.ticket })
}

/// The template, which nobody else changes until the end of the transaction.
async fn held(
    tx: &mut Tx,
    name: &TemplateName,
    still: Still<'_, TemplateRecord>,
) -> Result<TemplateRecord, TemplateError> {
    templates::hold(tx, name).await?;
    let record = load(tx, name).await?;
    if is_changed(still, &record) {
        return Err(TemplateError::Changed { name: name.clone() });
    }
    Ok(record)
}

async fn load(tx: &mut Tx, name: &TemplateName) -> Result<TemplateRecord, TemplateError> {
    templates::find(tx, name).await?.ok_or_else(|| TemplateError::Unknown { name: name.clone() })
}

fn checked(new: Template) -> Result<Template, TemplateError> {
    let Template { name, note, terms, lasting_seconds, reason } = new;
    let note = if note.trim().is_empty() { String::new() } else { text::check("note", &note, text::MOST_REASON)? };
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    let reason = reason.map(|reason| text::check("reason", &reason, text::MOST_REASON)).transpose()?;
    if lasting_seconds.is_some_and(|seconds| seconds == 0 || u64::from(seconds) > LONGEST.as_secs()) {
        return Err(TemplateError::Lasting);
    }
    // What a grant may not say, a template may not either; and each grant is looked at again when it is made.
    grants::check_open_terms(&terms)?;
    Ok(Template { name, note, terms, lasting_seconds, reason })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sallyport_domain::grant::Terms;

    use super::*;
    use crate::app::people::tests::{OPERATOR, named};
    use crate::app::{people, targets as app_targets};
    use crate::store::db::Db;
    use crate::store::db::testing::{app_on, on_both};

    fn terms(targets: &[&str], logins: &[&str]) -> Terms {
        let terms = serde_json::json!({
            "targets": targets, "logins": logins, "capabilities": {"shell": true, "upload": true},
            "second_factor": true, "max_sessions": 1,
        });
        serde_json::from_value(terms).unwrap()
    }

    fn firmware() -> Template {
        Template {
            name: "firmware".parse().unwrap(),
            note: " switches ".to_owned(),
            terms: terms(&["web-*"], &["root"]),
            lasting_seconds: Some(14_400),
            reason: Some("firmware".to_owned()),
        }
    }

    fn for_alice() -> FromTemplate {
        FromTemplate {
            template: "firmware".parse().unwrap(),
            people: vec!["alice".parse().unwrap()],
            targets: vec![],
            logins: vec![],
            not_before: None,
            not_after: None,
            reason: None,
            ticket: None,
        }
    }

    async fn app_with_firmware(db: Db) -> App {
        let app = app_on(db);
        people::add(&app, &OPERATOR, named("alice")).await.unwrap();
        app_targets::add(&app, &OPERATOR, app_targets::tests::named("web-1")).await.unwrap();
        make(&app, &OPERATOR, firmware()).await.unwrap();
        app
    }

    async fn acts(app: &App, kind: &str) -> usize {
        let filter = audit::EventFilter { kind: Some(kind.to_owned()), ..Default::default() };
        audit::list(app, 0, &filter, 100).await.unwrap().len()
    }

    #[tokio::test]
    async fn a_grant_is_who_which_template_and_until_when_and_keeps_its_own_copy() {
        on_both(|db| async {
            let app = app_with_firmware(db).await;
            let now = app.clock.now();

            let grant = super::grant(&app, &OPERATOR, for_alice()).await.unwrap();
            let looser = Template { terms: terms(&["*"], &["root", "ops"]), ..firmware() };
            change(&app, &OPERATOR, looser, None).await.unwrap();
            remove(&app, &OPERATOR, &firmware().name, None).await.unwrap();

            assert_eq!(grant.terms, firmware().terms);
            assert_eq!(grant.window.not_after(), now + Duration::from_hours(4));
            assert_eq!((grant.reason.as_str(), grant.template.as_ref().unwrap().as_str()), ("firmware", "firmware"));
            assert_eq!(
                grants::find(&app, grant.id).await.unwrap(),
                grant,
                "the template's changes are none of the grant's"
            );
            assert!(matches!(super::grant(&app, &OPERATOR, for_alice()).await, Err(TemplateError::Unknown { .. })));
            for kind in ["template_made", "template_changed", "template_removed", "grant_made"] {
                assert_eq!(acts(&app, kind).await, 1, "{kind}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_grant_says_its_own_end_and_reason_but_no_more_than_its_template() {
        on_both(|db| async {
            let app = app_with_firmware(db).await;
            let end = app.clock.now() + Duration::from_hours(1);
            let own = FromTemplate {
                targets: vec!["web-1".parse().unwrap()],
                not_after: Some(end),
                reason: Some("INC-7".to_owned()),
                ..for_alice()
            };

            let grant = super::grant(&app, &OPERATOR, own).await.unwrap();
            let wider = FromTemplate { targets: vec!["db-1".parse().unwrap()], ..for_alice() };
            let other = FromTemplate { logins: vec!["ops".parse().unwrap()], ..for_alice() };

            assert_eq!((grant.window.not_after(), grant.reason.as_str()), (end, "INC-7"));
            assert_eq!(grant.terms.targets[0].to_string(), "web-1");
            assert!(grant.terms.second_factor && grant.terms.max_sessions == Some(1));
            for outside in [wider, other] {
                let refused = super::grant(&app, &OPERATOR, outside).await;
                assert!(matches!(refused, Err(TemplateError::Outside(_))), "{refused:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_template_leaves_open_a_grant_must_say() {
        on_both(|db| async {
            let app = app_with_firmware(db).await;
            let open = Template { terms: terms(&[], &[]), lasting_seconds: None, reason: None, ..firmware() };
            change(&app, &OPERATOR, open, None).await.unwrap();
            let grant = async |from: FromTemplate| super::grant(&app, &OPERATOR, from).await;
            let end = Some(app.clock.now() + Duration::from_hours(1));
            let why = Some("INC-7".to_owned());

            let without_end = grant(FromTemplate { reason: why.clone(), ..for_alice() }).await;
            let without_reason =
                grant(FromTemplate { not_after: end, reason: Some(" ".to_owned()), ..for_alice() }).await;
            let told = FromTemplate { not_after: end, reason: why, ..for_alice() };
            let without_targets = grant(told.clone()).await;
            let whole =
                FromTemplate { targets: vec!["web-*".parse().unwrap()], logins: vec!["root".parse().unwrap()], ..told };

            assert!(matches!(without_end, Err(TemplateError::NoEnd { .. })), "{without_end:?}");
            assert!(matches!(without_reason, Err(TemplateError::NoReason { .. })), "{without_reason:?}");
            let missing = matches!(without_targets, Err(TemplateError::Grant(GrantError::Missing { .. })));
            assert!(missing, "{without_targets:?}");
            assert!(grant(whole).await.is_ok());
        })
        .await;
    }

    #[tokio::test]
    async fn a_template_may_say_nothing_that_a_grant_may_not() {
        on_both(|db| async {
            use TemplateError as E;
            let app = app_with_firmware(db).await;
            let with = |change: fn(&mut Template)| {
                let mut template = Template { name: "other".parse().unwrap(), ..firmware() };
                change(&mut template);
                template
            };
            let refuse = async |template: Template| make(&app, &OPERATOR, template).await.unwrap_err();

            assert!(matches!(refuse(firmware()).await, E::NameTaken { .. }));
            let nothing = with(|template| template.terms.capabilities = Default::default());
            assert!(matches!(refuse(nothing).await, E::Grant(GrantError::NothingAllowed)));
            let none = with(|template| template.terms.max_sessions = Some(0));
            assert!(matches!(refuse(none).await, E::Grant(GrantError::NoSessions)));
            for seconds in [0, u32::MAX] {
                let mut template = with(|_| {});
                template.lasting_seconds = Some(seconds);
                assert!(matches!(refuse(template).await, E::Lasting));
            }
            assert!(matches!(refuse(with(|template| template.note = "a\u{1b}b".to_owned())).await, E::Text(_)));
            assert_eq!(list(&app).await.unwrap().len(), 1);
            assert_eq!(list(&app).await.unwrap()[0].template.note, "switches");
        })
        .await;
    }

    #[tokio::test]
    async fn a_change_to_what_somebody_else_changed_meanwhile_is_not_made() {
        on_both(|db| async {
            let app = app_with_firmware(db).await;
            let known = find(&app, &firmware().name).await.unwrap();
            let shorter = Template { lasting_seconds: Some(60), ..firmware() };
            change(&app, &OPERATOR, shorter.clone(), Some(&|now| *now == known)).await.unwrap();

            let late = change(&app, &OPERATOR, firmware(), Some(&|now| *now == known)).await;
            let removed = remove(&app, &OPERATOR, &firmware().name, Some(&|now| *now == known)).await;

            assert!(matches!(late, Err(TemplateError::Changed { .. })), "{late:?}");
            assert!(matches!(removed, Err(TemplateError::Changed { .. })), "{removed:?}");
            assert_eq!(find(&app, &firmware().name).await.unwrap().template.lasting_seconds, Some(60));
        })
        .await;
    }
}
