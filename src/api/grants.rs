//! `/grants`: who may reach which targets, as which logins, to do what, between which instants.

use std::cmp::Reverse;
use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use sallyport_domain::commands::rules::{CommandRules, ExecPattern, FlagPattern};
use sallyport_domain::files::{FileRules, PathGlob, WayRules};
use sallyport_domain::grant::{self, Approval, Capabilities, ForwardFrom, TargetSelector, Terms, Window};
use sallyport_domain::hash::Hash;
use sallyport_domain::id::{GrantId, PrincipalId};
use sallyport_domain::name::{Login, PrincipalName, TargetName, TemplateName};
use sallyport_domain::review::ReviewTerm;
use sallyport_domain::target;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{Administer, Known, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::page::{Page, PageQuery};
use super::people::PersonRef;
use super::terms::GrantTerms;
use super::{ApiState, schemas};
use crate::app::grants::{self, GrantFilter, NewGrant};
use crate::app::templates::{self, FromTemplate};
use crate::app::{people, targets};

/// A time-boxed permission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    #[schema(value_type = String)]
    pub id: GrantId,
    pub state: GrantState,
    pub people: Vec<PersonRef>,
    /// Names, patterns such as `web-*`, and labels such as `env=prod`.
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetSelector>,
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    pub allow: Allow,
    /// Networks from which the person may come; empty means from anywhere.
    #[schema(value_type = Vec<String>)]
    pub source_networks: Vec<IpNet>,
    /// Sessions that may be open at once; absent means any number.
    pub max_sessions: Option<u32>,
    /// Whether the person must have proved a second factor.
    pub second_factor: bool,
    #[schema(schema_with = schemas::approval)]
    pub approval: Approval,
    pub files: Files,
    pub commands: Commands,
    pub forwarding: Forwarding,
    /// By when sessions are to be reviewed: `none`, or working days such as `5d`; absent, as the bastion's settings say.
    #[schema(value_type = Option<String>)]
    pub review: Option<ReviewTerm>,
    pub not_before: DateTime<Utc>,
    /// The first instant at which the grant no longer holds.
    pub not_after: DateTime<Utc>,
    pub reason: String,
    pub ticket: Option<String>,
    /// The template that its terms were taken from. They are the grant's own now.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub template: Option<TemplateName>,
    /// Who gave it; absent for the operator on the bastion's own host.
    pub created_by: Option<PersonRef>,
    pub created_at: DateTime<Utc>,
    pub revoked: Option<Revocation>,
}

/// Where a grant is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrantState {
    Upcoming,
    Active,
    Ended,
    Revoked,
}

impl GrantState {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            GrantState::Upcoming => "upcoming",
            GrantState::Active => "active",
            GrantState::Ended => "ended",
            GrantState::Revoked => "revoked",
        }
    }
}

/// What a grant allows to be done; what is left out is not allowed.
#[expect(clippy::struct_excessive_bools, reason = "each is a capability of its own, named in the API")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Allow {
    /// An interactive shell.
    pub shell: bool,
    /// Single commands.
    pub exec: bool,
    /// Files in.
    pub upload: bool,
    /// Files out.
    pub download: bool,
    /// Where a local forward may go.
    pub forwards: Vec<Destination>,
}

impl Allow {
    /// What a grant allows that says nothing: to work, but to carry no files.
    pub fn usual() -> Self {
        Self { shell: true, exec: true, ..Self::default() }
    }

    /// The same, where patterns may leave no shell.
    pub fn usual_with(commands: &Commands) -> Self {
        Self { shell: commands.exec.is_empty(), ..Self::usual() }
    }
}

impl From<Capabilities> for Allow {
    fn from(capabilities: Capabilities) -> Self {
        let Capabilities { shell, exec, upload, download, forwards } = capabilities;
        let destination = |grant::Destination { host, port }| Destination { host, port };
        Self { shell, exec, upload, download, forwards: forwards.into_iter().map(destination).collect() }
    }
}

impl From<Allow> for Capabilities {
    fn from(allow: Allow) -> Self {
        let Allow { shell, exec, upload, download, forwards } = allow;
        let destination = |Destination { host, port }| grant::Destination { host, port };
        Self { shell, exec, upload, download, forwards: forwards.into_iter().map(destination).collect() }
    }
}

/// Where a forward may go, seen from who dials it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// A host name or an address, exactly as the client will name it; or the path of a Unix socket.
    pub host: String,
    /// The TCP port; 0 for a Unix socket.
    pub port: u16,
}

/// How forwards are made, and what is kept of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Forwarding {
    #[schema(schema_with = schemas::forward_from)]
    pub from: ForwardFrom,
    /// When a forward was opened and how many bytes went when is recorded, and not which.
    pub metadata_only: bool,
}

impl From<grant::Forwarding> for Forwarding {
    fn from(grant::Forwarding { from, metadata_only }: grant::Forwarding) -> Self {
        Self { from, metadata_only }
    }
}

impl From<Forwarding> for grant::Forwarding {
    fn from(Forwarding { from, metadata_only }: Forwarding) -> Self {
        Self { from, metadata_only }
    }
}

/// What limits files, beside whether they may go in and out at all; what is left out limits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    pub upload: FilesOneWay,
    pub download: FilesOneWay,
    /// SHA-256 of the contents that may be uploaded, as hexadecimal digits.
    #[schema(value_type = Option<Vec<String>>)]
    pub upload_sha256: Option<Vec<Hash>>,
    /// Bytes that may leave through terminals and the output of commands, over the grant's life.
    pub terminal_bytes: Option<u64>,
}

/// What is said of commands; what is left out says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// Where there are any, only single commands that match one as a whole may run, and no shell: `systemctl restart app-*`.
    #[schema(value_type = Vec<String>)]
    pub exec: Vec<ExecPattern>,
    /// Commands that match one are flagged in the timeline, with an event: `*rm -rf*`.
    #[schema(value_type = Vec<String>)]
    pub flag: Vec<FlagPattern>,
}

impl From<CommandRules> for Commands {
    fn from(rules: CommandRules) -> Self {
        let CommandRules { exec, flag } = rules;
        Self { exec, flag }
    }
}

impl From<Commands> for CommandRules {
    fn from(commands: Commands) -> Self {
        let Commands { exec, flag } = commands;
        Self { exec, flag }
    }
}

/// What limits files in one direction; what is left out limits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilesOneWay {
    /// Patterns of paths on the target such as `/srv/app/**` or `~/logs/*`; an empty list allows none.
    #[schema(value_type = Option<Vec<String>>)]
    pub paths: Option<Vec<PathGlob>>,
    /// The most in one transfer of one file, in bytes.
    pub file_bytes: Option<u64>,
    /// The most over the grant's life, all its sessions together, in bytes.
    pub total_bytes: Option<u64>,
}

impl From<FileRules> for Files {
    fn from(rules: FileRules) -> Self {
        let FileRules { upload, download, upload_sha256, terminal_budget } = rules;
        let way = |WayRules { paths, file_bytes, total_bytes }| FilesOneWay { paths, file_bytes, total_bytes };
        Self {
            upload: way(upload),
            download: way(download),
            upload_sha256: upload_sha256.map(Into::into),
            terminal_bytes: terminal_budget,
        }
    }
}

impl From<Files> for FileRules {
    fn from(files: Files) -> Self {
        let Files { upload, download, upload_sha256, terminal_bytes } = files;
        let way = |FilesOneWay { paths, file_bytes, total_bytes }| WayRules { paths, file_bytes, total_bytes };
        Self {
            upload: way(upload),
            download: way(download),
            upload_sha256: upload_sha256.map(Into::into),
            terminal_budget: terminal_bytes,
        }
    }
}

/// That, when and why a grant was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    pub at: DateTime<Utc>,
    /// Absent for the operator on the bastion's own host.
    pub by: Option<PersonRef>,
    pub reason: String,
}

/// A grant to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeGrant {
    /// At least one.
    #[schema(value_type = Vec<String>)]
    pub people: Vec<PrincipalName>,
    /// The template whose terms it takes. Then `targets` and `logins` may be fewer than the template's, the other terms are left out, and
    /// `not_after` and `reason` may be where the template has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub template: Option<TemplateName>,
    /// Names, patterns such as `web-*`, and labels such as `env=prod`; at least one.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetSelector>,
    /// At least one; a preview may leave them out.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    /// A shell and single commands where it is left out; with patterns of commands no shell.
    #[serde(default)]
    pub allow: Option<Allow>,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub source_networks: Vec<IpNet>,
    #[serde(default)]
    pub max_sessions: Option<u32>,
    /// Whether the person must prove a second factor.
    #[serde(default)]
    pub second_factor: bool,
    #[serde(default)]
    #[schema(schema_with = schemas::approval)]
    pub approval: Approval,
    #[serde(default)]
    pub files: Files,
    #[serde(default)]
    pub commands: Commands,
    #[serde(default)]
    pub forwarding: Forwarding,
    /// By when sessions are to be reviewed: `none`, or working days such as `5d`; left out, as the bastion's settings say.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub review: Option<ReviewTerm>,
    /// Now, where it is left out.
    #[serde(default)]
    pub not_before: Option<DateTime<Utc>>,
    /// The first instant at which the grant no longer holds.
    #[serde(default)]
    pub not_after: Option<DateTime<Utc>>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub ticket: Option<String>,
}

impl Grant {
    /// Its terms as one.
    pub fn terms(&self) -> GrantTerms {
        GrantTerms {
            targets: self.targets.clone(),
            logins: self.logins.clone(),
            allow: Some(self.allow.clone()),
            source_networks: self.source_networks.clone(),
            max_sessions: self.max_sessions,
            second_factor: self.second_factor,
            approval: self.approval,
            files: self.files.clone(),
            commands: self.commands.clone(),
            forwarding: self.forwarding,
            review: self.review,
        }
    }
}

impl MakeGrant {
    /// Says all of the terms but targets and logins.
    pub fn set(&mut self, terms: GrantTerms) {
        let GrantTerms {
            targets: _,
            logins: _,
            allow,
            source_networks,
            max_sessions,
            second_factor,
            approval,
            files,
            commands,
            forwarding,
            review,
        } = terms;
        (self.allow, self.source_networks, self.max_sessions) = (allow, source_networks, max_sessions);
        (self.second_factor, self.approval, self.files) = (second_factor, approval, files);
        (self.commands, self.forwarding, self.review) = (commands, forwarding, review);
    }

    /// A grant to these people that says nothing yet.
    pub fn to(people: Vec<PrincipalName>) -> Self {
        Self {
            people,
            template: None,
            targets: Vec::new(),
            logins: Vec::new(),
            allow: None,
            source_networks: Vec::new(),
            max_sessions: None,
            second_factor: false,
            approval: Approval::None,
            files: Files::default(),
            commands: Commands::default(),
            forwarding: Forwarding::default(),
            review: None,
            not_before: None,
            not_after: None,
            reason: None,
            ticket: None,
        }
    }
}

/// What a grant would mean, without making it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantPreview {
    #[schema(value_type = Vec<String>)]
    pub people: Vec<PrincipalName>,
    /// What would be the grant's own terms.
    pub terms: GrantTerms,
    pub reason: String,
    /// The targets that the selectors mean today; one that is added later may be meant too.
    pub matching_targets: Vec<PreviewTarget>,
    pub not_before: DateTime<Utc>,
    pub not_after: DateTime<Utc>,
}

/// A target that a grant would mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewTarget {
    #[schema(value_type = String)]
    pub name: TargetName,
    /// Its accounts, those that the grant does not name too.
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
}

/// A new end for a grant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendGrant {
    /// Later or earlier than now set, but not in the past.
    pub not_after: DateTime<Utc>,
    pub reason: String,
}

/// Why something is ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    pub reason: String,
}

/// Which grants.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct GrantQuery {
    /// `active`, `upcoming`, `ended` (revoked ones too) or `all`; `all` where it is left out.
    #[param(inline)]
    pub state: Option<GrantStateFilter>,
    /// The person's name.
    #[param(value_type = Option<String>)]
    pub person: Option<PrincipalName>,
    /// The name of a target that the grant means.
    #[param(value_type = Option<String>)]
    pub target: Option<TargetName>,
}

/// Grants by where they are in their life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum GrantStateFilter {
    Active,
    Upcoming,
    /// Ended or revoked.
    Ended,
    #[default]
    All,
}

impl GrantStateFilter {
    /// The word used in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            GrantStateFilter::Active => "active",
            GrantStateFilter::Upcoming => "upcoming",
            GrantStateFilter::Ended => "ended",
            GrantStateFilter::All => "all",
        }
    }
}

/// The names of people, for the answers that speak of them by id.
pub(super) async fn names(state: &ApiState) -> Result<HashMap<PrincipalId, PrincipalName>, ApiError> {
    let people = people::list(&state.app).await?;
    Ok(people.into_iter().map(|person| (person.principal.id, person.principal.name)).collect())
}

fn state_of(grant: &grant::Grant, now: DateTime<Utc>) -> GrantState {
    if grant.revoked.is_some() {
        GrantState::Revoked
    } else if now < grant.window.not_before() {
        GrantState::Upcoming
    } else if grant.window.contains(now) {
        GrantState::Active
    } else {
        GrantState::Ended
    }
}

fn shape(grant: grant::Grant, names: &HashMap<PrincipalId, PrincipalName>, now: DateTime<Utc>) -> Grant {
    // People are never removed, so every id has its name.
    let person = |id: PrincipalId| names.get(&id).map(|name| PersonRef { id, name: name.clone() });
    let state = state_of(&grant, now);
    let Terms {
        targets,
        logins,
        capabilities,
        source_networks,
        max_sessions,
        second_factor,
        approval,
        files,
        commands,
        forwarding,
        review,
    } = grant.terms;
    Grant {
        id: grant.id,
        state,
        people: grant.people.into_iter().filter_map(person).collect(),
        targets,
        logins,
        allow: capabilities.into(),
        source_networks,
        max_sessions,
        second_factor,
        approval,
        files: files.into(),
        commands: commands.into(),
        forwarding: forwarding.into(),
        review,
        not_before: grant.window.not_before(),
        not_after: grant.window.not_after(),
        reason: grant.reason,
        ticket: grant.ticket,
        template: grant.template,
        created_by: grant.created_by.and_then(person),
        created_at: grant.created_at,
        revoked: grant.revoked.map(|grant::Revocation { at, by, reason }| Revocation {
            at,
            by: by.and_then(person),
            reason,
        }),
    }
}

async fn shape_one(state: &ApiState, grant: grant::Grant) -> Result<Json<Grant>, ApiError> {
    Ok(Json(shape(grant, &names(state).await?, state.app.clock.now())))
}

/// A grant that is asked for: with terms of its own, or with those of a template.
enum Asked {
    Own(Box<NewGrant>),
    From(FromTemplate),
}

impl MakeGrant {
    fn read(self, now: DateTime<Utc>) -> Result<Asked, ApiError> {
        let bad = |message: &str| ApiError::BadRequest(message.to_owned());
        let Self { people, not_before, not_after, reason, ticket, template, .. } = self;
        let terms = GrantTerms {
            targets: self.targets,
            logins: self.logins,
            allow: self.allow,
            source_networks: self.source_networks,
            max_sessions: self.max_sessions,
            second_factor: self.second_factor,
            approval: self.approval,
            files: self.files,
            commands: self.commands,
            forwarding: self.forwarding,
            review: self.review,
        };
        if let Some(template) = template {
            let (targets, logins) = (terms.targets.clone(), terms.logins.clone());
            if terms != (GrantTerms { targets: targets.clone(), logins: logins.clone(), ..GrantTerms::default() }) {
                return Err(bad(
                    "with `template`, all terms but `targets` and `logins` are the template's: leave them out",
                ));
            }
            return Ok(Asked::From(FromTemplate {
                template,
                people,
                targets,
                logins,
                not_before,
                not_after,
                reason,
                ticket,
            }));
        }
        let not_after = not_after.ok_or_else(|| bad("`not_after` is missing: say until when, or which `template`"))?;
        let reason = reason.ok_or_else(|| bad("`reason` is missing: say why, or which `template`"))?;
        let window = Window::new(not_before.unwrap_or(now), not_after)
            .map_err(|error| ApiError::BadRequest(error.to_string()))?;
        Ok(Asked::Own(Box::new(NewGrant { people, terms: terms.into(), window, reason, ticket })))
    }
}

/// Grants, the latest first.
#[utoipa::path(get, path = "/grants", operation_id = "grants_list", tag = "grants", params(GrantQuery, PageQuery), responses(
    (status = OK, body = Page<Grant>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<GrantQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Grant>>, ApiError> {
    let filter = GrantFilter {
        state: match query.state.unwrap_or_default() {
            GrantStateFilter::Active => grants::GrantState::Active,
            GrantStateFilter::Upcoming => grants::GrantState::Upcoming,
            GrantStateFilter::Ended => grants::GrantState::Ended,
            GrantStateFilter::All => grants::GrantState::All,
        },
        person: query.person,
        target: query.target,
    };
    let mut grants = grants::list(&state.app, &filter).await?;
    grants.sort_by_key(|grant| Reverse(grant.id)); // ids sort by time of creation
    let page = Page::of_sorted(grants, &page, |grant| Reverse(grant.id))?;
    let (names, now) = (names(&state).await?, state.app.clock.now());
    Ok(Json(page.map(|grant| shape(grant, &names, now))))
}

/// The caller's own grants that hold or will, the next to end first.
#[utoipa::path(get, path = "/me/grants", operation_id = "own_grants", tag = "grants", responses(
    (status = OK, body = [Grant]),
    (status = "default", body = Problem),
))]
pub(super) async fn list_own(may: May<Known>, State(state): State<ApiState>) -> Result<Json<Vec<Grant>>, ApiError> {
    let filter = GrantFilter { person: Some(may.person()?.name.clone()), ..GrantFilter::default() };
    let (names, now) = (names(&state).await?, state.app.clock.now());
    let mut grants = grants::list(&state.app, &filter).await?;
    grants.retain(|grant| grant.revoked.is_none() && now < grant.window.not_after());
    grants.sort_by_key(|grant| grant.window.not_after());
    // With whom a grant is shared is not theirs to know.
    let person = may.person()?.id;
    let own = |mut grant: Grant| {
        grant.people.retain(|of| of.id == person);
        grant
    };
    Ok(Json(grants.into_iter().map(|grant| own(shape(grant, &names, now))).collect()))
}

/// Gives people access to targets for a time.
#[utoipa::path(post, path = "/grants", operation_id = "grants_make", tag = "grants", request_body = MakeGrant, responses(
    (status = CREATED, body = Grant),
    (status = "default", body = Problem),
))]
pub(super) async fn make(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<MakeGrant>,
) -> Result<(StatusCode, Json<Grant>), ApiError> {
    let grant = match body.read(state.app.clock.now())? {
        Asked::Own(new) => grants::make(&state.app, &may.actor(), *new).await?,
        Asked::From(from) => templates::grant(&state.app, &may.actor(), from).await?,
    };
    Ok((StatusCode::CREATED, shape_one(&state, grant).await?))
}

/// What a grant would mean. Nothing is stored.
#[utoipa::path(post, path = "/grants/preview", operation_id = "grants_preview", tag = "grants", request_body = MakeGrant, responses(
    (status = OK, body = GrantPreview),
    (status = "default", body = Problem),
))]
pub(super) async fn preview(
    _may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<MakeGrant>,
) -> Result<Json<GrantPreview>, ApiError> {
    let new = match body.read(state.app.clock.now())? {
        Asked::Own(new) => *new,
        Asked::From(from) => templates::preview(&state.app, from).await?,
    };
    for person in &new.people {
        people::find(&state.app, person).await?;
    }
    let targets = targets::list(&state.app).await?;
    let meant = targets.into_iter().filter(|target| new.terms.covers(target));
    let account = |target: target::Target| PreviewTarget {
        name: target.name,
        logins: target.logins.into_iter().map(|account| account.login).collect(),
    };
    Ok(Json(GrantPreview {
        people: new.people,
        matching_targets: meant.map(account).collect(),
        terms: new.terms.into(),
        reason: new.reason,
        not_before: new.window.not_before(),
        not_after: new.window.not_after(),
    }))
}

/// One grant.
#[utoipa::path(get, path = "/grants/{id}", operation_id = "grants_show", tag = "grants",
    params(("id" = String, Path)), responses(
    (status = OK, body = Grant),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(id): Path<GrantId>,
) -> Result<Json<Grant>, ApiError> {
    shape_one(&state, grants::find(&state.app, id).await?).await
}

/// Moves a grant's end, later or earlier.
#[utoipa::path(post, path = "/grants/{id}/extend", operation_id = "grants_extend", tag = "grants",
    params(("id" = String, Path), IfMatch), request_body = ExtendGrant, responses(
    (status = OK, body = Grant),
    (status = "default", body = Problem),
))]
pub(super) async fn extend(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<GrantId>,
    known: IfMatch,
    Body(body): Body<ExtendGrant>,
) -> Result<Json<Grant>, ApiError> {
    let (names, now) = (names(&state).await?, state.app.clock.now());
    let still = |grant: &grant::Grant| known.is(|| shape(grant.clone(), &names, now));
    let changed = grants::extend(&state.app, &may.actor(), id, body.not_after, &body.reason, Some(&still)).await?;
    Ok(Json(shape(changed, &names, state.app.clock.now())))
}

/// Takes a grant back; its live sessions are cut.
#[utoipa::path(post, path = "/grants/{id}/revoke", operation_id = "grants_revoke", tag = "grants",
    params(("id" = String, Path), IfMatch), request_body = Reason, responses(
    (status = OK, body = Grant),
    (status = "default", body = Problem),
))]
pub(super) async fn revoke(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(id): Path<GrantId>,
    known: IfMatch,
    Body(body): Body<Reason>,
) -> Result<Json<Grant>, ApiError> {
    let (names, now) = (names(&state).await?, state.app.clock.now());
    let still = |grant: &grant::Grant| known.is(|| shape(grant.clone(), &names, now));
    let changed = grants::revoke(&state.app, &may.actor(), id, &body.reason, Some(&still)).await?;
    Ok(Json(shape(changed, &names, state.app.clock.now())))
}
