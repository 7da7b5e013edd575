//! `/templates`: terms for grants that are agreed once.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::name::TemplateName;
use sallyport_domain::template;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::access::{Administer, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::page::{Page, PageQuery};
use super::terms::GrantTerms;
use crate::app::templates;
use crate::store::db::templates::TemplateRecord;

/// Terms for grants, under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Template {
    #[schema(value_type = String)]
    pub name: TemplateName,
    /// What it is for, in words.
    pub note: String,
    pub terms: GrantTerms,
    /// How long a grant lasts that says nothing else.
    pub lasting_seconds: Option<u32>,
    /// The reason of a grant that gives none.
    pub reason: Option<String>,
    pub created_at: DateTime<Utc>,
    pub changed_at: DateTime<Utc>,
}

/// A template to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeTemplate {
    #[schema(value_type = String)]
    pub name: TemplateName,
    #[serde(default)]
    pub note: String,
    pub terms: GrantTerms,
    /// How long a grant lasts that says nothing else; absent where each grant is to say it.
    #[serde(default)]
    pub lasting_seconds: Option<u32>,
    /// The reason of a grant that gives none; absent where each grant is to say it.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The whole of a template, but for its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTemplate {
    #[serde(default)]
    pub note: String,
    pub terms: GrantTerms,
    #[serde(default)]
    pub lasting_seconds: Option<u32>,
    #[serde(default)]
    pub reason: Option<String>,
}

impl MakeTemplate {
    pub fn new(name: TemplateName, set: SetTemplate) -> Self {
        let SetTemplate { note, terms, lasting_seconds, reason } = set;
        Self { name, note, terms, lasting_seconds, reason }
    }
}

impl From<Template> for SetTemplate {
    fn from(template: Template) -> Self {
        let Template { note, terms, lasting_seconds, reason, .. } = template;
        Self { note, terms, lasting_seconds, reason }
    }
}

fn shape(record: TemplateRecord) -> Template {
    let template::Template { name, note, terms, lasting_seconds, reason } = record.template;
    let (created_at, changed_at) = (record.created_at, record.changed_at);
    Template { name, note, terms: terms.into(), lasting_seconds, reason, created_at, changed_at }
}

/// Every template, by name.
#[utoipa::path(get, path = "/templates", operation_id = "templates_list", tag = "templates", params(PageQuery), responses(
    (status = OK, body = Page<Template>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Template>>, ApiError> {
    let mut found = templates::list(&state.app).await?;
    found.sort_by(|a, b| a.template.name.cmp(&b.template.name)); // databases sort by their own alphabets
    let page = Page::of_sorted(found, &query, |record| record.template.name.clone())?;
    Ok(Json(page.map(shape)))
}

/// Makes a template.
#[utoipa::path(post, path = "/templates", operation_id = "templates_make", tag = "templates", request_body = MakeTemplate, responses(
    (status = CREATED, body = Template),
    (status = "default", body = Problem),
))]
pub(super) async fn make(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<MakeTemplate>,
) -> Result<(StatusCode, Json<Template>), ApiError> {
    let MakeTemplate { name, note, terms, lasting_seconds, reason } = body;
    let new = template::Template { name, note, terms: terms.into(), lasting_seconds, reason };
    Ok((StatusCode::CREATED, Json(shape(templates::make(&state.app, &may.actor(), new).await?))))
}

/// One template.
#[utoipa::path(get, path = "/templates/{name}", operation_id = "templates_show", tag = "templates",
    params(("name" = String, Path)), responses(
    (status = OK, body = Template),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<TemplateName>,
) -> Result<Json<Template>, ApiError> {
    Ok(Json(shape(templates::find(&state.app, &name).await?)))
}

/// Says a template anew, the whole of it. Grants that were made from it stay what they are.
#[utoipa::path(put, path = "/templates/{name}", operation_id = "templates_change", tag = "templates",
    params(("name" = String, Path), IfMatch), request_body = SetTemplate, responses(
    (status = OK, body = Template),
    (status = "default", body = Problem),
))]
pub(super) async fn change(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TemplateName>,
    known: IfMatch,
    Body(body): Body<SetTemplate>,
) -> Result<Json<Template>, ApiError> {
    let still = |record: &TemplateRecord| known.is(|| shape(record.clone()));
    let SetTemplate { note, terms, lasting_seconds, reason } = body;
    let new = template::Template { name, note, terms: terms.into(), lasting_seconds, reason };
    Ok(Json(shape(templates::change(&state.app, &may.actor(), new, Some(&still)).await?)))
}

/// Removes a template; the answer is what it was. Grants that were made from it stay what they are.
#[utoipa::path(delete, path = "/templates/{name}", operation_id = "templates_remove", tag = "templates",
    params(("name" = String, Path), IfMatch), responses(
    (status = OK, body = Template),
    (status = "default", body = Problem),
))]
pub(super) async fn remove(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TemplateName>,
    known: IfMatch,
) -> Result<Json<Template>, ApiError> {
    let still = |record: &TemplateRecord| known.is(|| shape(record.clone()));
    Ok(Json(shape(templates::remove(&state.app, &may.actor(), &name, Some(&still)).await?)))
}
