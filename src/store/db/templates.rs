//! Templates for grants.

use chrono::{DateTime, Utc};
use sallyport_domain::name::TemplateName;
use sallyport_domain::template::Template;

use super::{DbError, Tx, change_either, doing, from_json, from_text, on_either, to_count, to_json};

const INSERT: &str = "INSERT INTO grant_templates (name, note, terms, lasting_seconds, reason, created_at, changed_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING";
const REPLACE: &str =
    "UPDATE grant_templates SET note = $2, terms = $3, lasting_seconds = $4, reason = $5, changed_at = $6
                       WHERE name = $1";
const REMOVE: &str = "DELETE FROM grant_templates WHERE name = $1";
const FIND: &str = "SELECT name, note, terms, lasting_seconds, reason, created_at, changed_at
                    FROM grant_templates WHERE name = $1";
const LIST: &str = "SELECT name, note, terms, lasting_seconds, reason, created_at, changed_at
                    FROM grant_templates ORDER BY name";
const HOLD: &str = "UPDATE grant_templates SET name = name WHERE name = $1";

/// A template as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRecord {
    pub template: Template,
    pub created_at: DateTime<Utc>,
    pub changed_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct TemplateRow {
    name: String,
    note: String,
    terms: String,
    lasting_seconds: Option<i64>,
    reason: Option<String>,
    created_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
}

const READ: &str = "read a template";

impl TryFrom<TemplateRow> for TemplateRecord {
    type Error = DbError;

    fn try_from(row: TemplateRow) -> Result<Self, DbError> {
        let template = Template {
            name: from_text(READ, &row.name)?,
            note: row.note,
            terms: from_json(READ, &row.terms)?,
            lasting_seconds: row.lasting_seconds.map(|seconds| to_count(READ, seconds)).transpose()?,
            reason: row.reason,
        };
        Ok(Self { template, created_at: row.created_at, changed_at: row.changed_at })
    }
}

/// Adds a template; `false` if the name is taken.
pub async fn insert(tx: &mut Tx, template: &Template, at: DateTime<Utc>) -> Result<bool, DbError> {
    const MAKE: &str = "make a template";
    let terms = to_json(MAKE, &template.terms)?;
    let inserted = change_either!(tx, |c| sqlx::query(INSERT)
        .bind(template.name.as_str())
        .bind(&template.note)
        .bind(&terms)
        .bind(template.lasting_seconds.map(i64::from))
        .bind(template.reason.as_deref())
        .bind(at)
        .bind(at));
    Ok(inserted.map_err(doing(MAKE))? == 1)
}

/// Puts this in the place of the template of the same name; `false` if there is none.
pub async fn replace(tx: &mut Tx, template: &Template, at: DateTime<Utc>) -> Result<bool, DbError> {
    const CHANGE: &str = "change a template";
    let terms = to_json(CHANGE, &template.terms)?;
    let replaced = change_either!(tx, |c| sqlx::query(REPLACE)
        .bind(template.name.as_str())
        .bind(&template.note)
        .bind(&terms)
        .bind(template.lasting_seconds.map(i64::from))
        .bind(template.reason.as_deref())
        .bind(at));
    Ok(replaced.map_err(doing(CHANGE))? == 1)
}

/// Removes a template; `false` if there is none.
pub async fn remove(tx: &mut Tx, name: &TemplateName) -> Result<bool, DbError> {
    let removed = change_either!(tx, |c| sqlx::query(REMOVE).bind(name.as_str()));
    Ok(removed.map_err(doing("remove a template"))? == 1)
}

/// The template of this name.
pub async fn find(tx: &mut Tx, name: &TemplateName) -> Result<Option<TemplateRecord>, DbError> {
    let row = on_either!(tx, |c| sqlx::query_as(FIND).bind(name.as_str()).fetch_optional(c));
    let row: Option<TemplateRow> = row.map_err(doing("find a template"))?;
    row.map(TemplateRecord::try_from).transpose()
}

/// Every template, by name.
pub async fn list(tx: &mut Tx) -> Result<Vec<TemplateRecord>, DbError> {
    let rows = on_either!(tx, |c| sqlx::query_as(LIST).fetch_all(c));
    let rows: Vec<TemplateRow> = rows.map_err(doing("list templates"))?;
    rows.into_iter().map(TemplateRecord::try_from).collect()
}

/// Keeps the template as it is for others until the end of the transaction.
pub async fn hold(tx: &mut Tx, name: &TemplateName) -> Result<(), DbError> {
    let held = change_either!(tx, |c| sqlx::query(HOLD).bind(name.as_str()));
    held.map(drop).map_err(doing("hold a template"))
}
