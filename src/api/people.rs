//! `/people`: who may log in, with which keys, and what part they play.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::id::PrincipalId;
use sallyport_domain::name::PrincipalName;
use sallyport_domain::principal::Role;
use sallyport_domain::secret::PrincipalPassword;
use sallyport_domain::ssh_key::{SshPublicKey, SshPublicKeyError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Administer, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::page::{Page, PageQuery};
use super::{ApiState, schemas};
use crate::app::people::{self, NewPerson};

/// A person or a robot that logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Person {
    #[schema(value_type = String)]
    pub id: PrincipalId,
    #[schema(value_type = String)]
    pub name: PrincipalName,
    pub organisation: Option<String>,
    #[schema(schema_with = schemas::roles)]
    pub roles: Vec<Role>,
    pub keys: Vec<PersonKey>,
    pub has_password: bool,
    /// Whether logins ask for a verification code besides.
    pub has_second_factor: bool,
    pub created_at: DateTime<Utc>,
    /// Set when the person was disabled: no login, and live sessions are cut.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// A person, where another thing speaks of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonRef {
    #[schema(value_type = String)]
    pub id: PrincipalId,
    #[schema(value_type = String)]
    pub name: PrincipalName,
}

/// A public key of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonKey {
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Algorithm and base64, as in `authorized_keys`.
    pub public_key: String,
    pub comment: String,
    pub added_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A person to add.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPerson {
    #[schema(value_type = String)]
    pub name: PrincipalName,
    #[serde(default)]
    pub organisation: Option<String>,
    /// `engineer` where it is left out.
    #[serde(default = "engineer")]
    #[schema(schema_with = schemas::roles)]
    pub roles: Vec<Role>,
    /// Public keys, one line each, as in `authorized_keys`.
    #[serde(default)]
    pub keys: Vec<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<SentSecret>,
}

fn engineer() -> Vec<Role> {
    vec![Role::Engineer]
}

/// A public key to add.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddKey {
    /// One line, as in `authorized_keys`.
    pub public_key: String,
}

/// A password to set.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    #[schema(value_type = String, format = Password)]
    pub password: SentSecret,
}

/// Roles to set.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRoles {
    /// All of them: what is not here is taken away. At least one.
    #[schema(schema_with = schemas::roles)]
    pub roles: Vec<Role>,
}

/// Whom a person works for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetOrganisation {
    /// Empty takes it away.
    pub organisation: String,
}

/// A secret on its way in a request's body. It goes one way: no answer of ours holds one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SentSecret(String);

impl SentSecret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret's text, to be put into a type that guards it.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl std::fmt::Debug for SentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SentSecret(…)")
    }
}

fn shape(person: people::Person) -> Person {
    let people::Person { principal, keys, has_password, has_second_factor } = person;
    let key = |key: people::PersonKey| PersonKey {
        fingerprint: key.fingerprint,
        public_key: key.public_key,
        comment: key.comment,
        added_at: key.added_at,
        last_used_at: key.last_used_at,
    };
    Person {
        id: principal.id,
        name: principal.name,
        organisation: principal.organisation,
        roles: principal.roles,
        keys: keys.into_iter().map(key).collect(),
        has_password,
        has_second_factor,
        created_at: principal.created_at,
        disabled_at: principal.disabled_at,
    }
}

pub(super) fn parse_key(line: &str) -> Result<SshPublicKey, ApiError> {
    line.parse().map_err(|error: SshPublicKeyError| ApiError::BadRequest(error.to_string()))
}

/// Everybody, by name.
#[utoipa::path(get, path = "/people", operation_id = "people_list", tag = "people", params(PageQuery), responses(
    (status = OK, body = Page<Person>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Person>>, ApiError> {
    let mut people = people::list(&state.app).await?;
    people.sort_by(|a, b| a.principal.name.cmp(&b.principal.name));
    let page = Page::of_sorted(people, &query, |person| person.principal.name.clone())?;
    Ok(Json(page.map(shape)))
}

/// Adds a person.
#[utoipa::path(post, path = "/people", operation_id = "people_add", tag = "people", request_body = AddPerson, responses(
    (status = CREATED, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn add(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<AddPerson>,
) -> Result<(StatusCode, Json<Person>), ApiError> {
    let new = NewPerson {
        name: body.name,
        organisation: body.organisation,
        roles: body.roles,
        keys: body.keys.iter().map(|line| parse_key(line)).collect::<Result<_, _>>()?,
        password: body.password.map(|password| PrincipalPassword::new(password.into_text())),
    };
    let person = people::add(&state.app, &may.actor(), new).await?;
    Ok((StatusCode::CREATED, Json(shape(person))))
}

/// One person.
#[utoipa::path(get, path = "/people/{name}", operation_id = "people_show", tag = "people",
    params(("name" = String, Path)), responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
) -> Result<Json<Person>, ApiError> {
    Ok(Json(shape(people::find(&state.app, &name).await?)))
}

/// Adds a public key.
#[utoipa::path(post, path = "/people/{name}/keys", operation_id = "people_add_key", tag = "people",
    params(("name" = String, Path), IfMatch), request_body = AddKey, responses(
    (status = CREATED, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn add_key(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
    Body(body): Body<AddKey>,
) -> Result<(StatusCode, Json<Person>), ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    let person = people::add_key(&state.app, &may.actor(), &name, parse_key(&body.public_key)?, Some(&still)).await?;
    Ok((StatusCode::CREATED, Json(shape(person))))
}

/// Removes a public key, by its fingerprint (`/` in it is written `%2F`).
#[utoipa::path(delete, path = "/people/{name}/keys/{fingerprint}", operation_id = "people_remove_key", tag = "people",
    params(("name" = String, Path), ("fingerprint" = String, Path), IfMatch), responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn remove_key(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path((name, fingerprint)): Path<(PrincipalName, String)>,
    known: IfMatch,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    Ok(Json(shape(people::remove_key(&state.app, &may.actor(), &name, &fingerprint, Some(&still)).await?)))
}

/// Sets a password.
#[utoipa::path(put, path = "/people/{name}/password", operation_id = "people_set_password", tag = "people",
    params(("name" = String, Path), IfMatch), request_body = SetPassword, responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn set_password(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
    Body(body): Body<SetPassword>,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    let password = PrincipalPassword::new(body.password.into_text());
    Ok(Json(shape(people::set_password(&state.app, &may.actor(), &name, Some(password), Some(&still)).await?)))
}

/// Takes the password away: the person logs in with keys only.
#[utoipa::path(delete, path = "/people/{name}/password", operation_id = "people_remove_password", tag = "people",
    params(("name" = String, Path), IfMatch), responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn remove_password(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    Ok(Json(shape(people::set_password(&state.app, &may.actor(), &name, None, Some(&still)).await?)))
}

/// Sets the roles.
#[utoipa::path(put, path = "/people/{name}/roles", operation_id = "people_set_roles", tag = "people",
    params(("name" = String, Path), IfMatch), request_body = SetRoles, responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn set_roles(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
    Body(body): Body<SetRoles>,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    Ok(Json(shape(people::set_roles(&state.app, &may.actor(), &name, body.roles, Some(&still)).await?)))
}

/// Sets whom a person works for.
#[utoipa::path(put, path = "/people/{name}/organisation", operation_id = "people_set_organisation", tag = "people",
    params(("name" = String, Path), IfMatch), request_body = SetOrganisation, responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn set_organisation(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
    Body(body): Body<SetOrganisation>,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    let organisation = Some(body.organisation).filter(|organisation| !organisation.is_empty());
    Ok(Json(shape(people::set_organisation(&state.app, &may.actor(), &name, organisation, Some(&still)).await?)))
}

/// Disables a person: no login from now on, and live sessions are cut.
#[utoipa::path(post, path = "/people/{name}/disable", operation_id = "people_disable", tag = "people",
    params(("name" = String, Path), IfMatch), responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn disable(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    Ok(Json(shape(people::disable(&state.app, &may.actor(), &name, Some(&still)).await?)))
}

/// Enables a person again.
#[utoipa::path(post, path = "/people/{name}/enable", operation_id = "people_enable", tag = "people",
    params(("name" = String, Path), IfMatch), responses(
    (status = OK, body = Person),
    (status = "default", body = Problem),
))]
pub(super) async fn enable(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<PrincipalName>,
    known: IfMatch,
) -> Result<Json<Person>, ApiError> {
    let still = |person: &people::Person| known.is(|| shape(person.clone()));
    Ok(Json(shape(people::enable(&state.app, &may.actor(), &name, Some(&still)).await?)))
}
