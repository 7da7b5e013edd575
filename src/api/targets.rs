//! `/targets`: the hosts that are reached, their accounts, and how their identity is known.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use sallyport_domain::id::TargetId;
use sallyport_domain::name::{Login, TargetName};
use sallyport_domain::secret::{PrivateKeyText, TargetPassword};
use sallyport_domain::ssh_key::{SshPublicKey, SshPublicKeyError};
use sallyport_domain::target::{self, Address, CredentialKind, HostKeyTrust};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Administer, Look, May};
use super::error::{ApiError, Problem};
use super::etags::IfMatch;
use super::extract::{Body, Path, Query};
use super::page::{Page, PageQuery};
use super::people::SentSecret;
use super::{ApiState, ScanError, schemas};
use crate::app::credential_rotation::{self, Schedule};
use crate::app::targets::{self, Credential, NewTarget, TargetChange, Way};

/// A host has this long to show its keys.
const SCAN_DEADLINE: Duration = Duration::from_secs(15);

/// A host and port with its accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    #[schema(value_type = String)]
    pub id: TargetId,
    #[schema(value_type = String)]
    pub name: TargetName,
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<TargetName>,
    /// `host:port`
    #[schema(value_type = String)]
    pub address: Address,
    /// The target through which this one is reached.
    #[schema(value_type = Option<String>)]
    pub jump: Option<TargetName>,
    pub logins: Vec<TargetLogin>,
    pub labels: BTreeMap<String, String>,
    pub host_keys: Vec<HostKey>,
    pub created_at: DateTime<Utc>,
    pub disabled_at: Option<DateTime<Utc>>,
}

/// An account on a target. Its secret is never told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetLogin {
    #[schema(value_type = String)]
    pub login: Login,
    #[schema(schema_with = schemas::credential)]
    pub credential: CredentialKind,
    /// When its stored key is replaced by another, if that is on a schedule.
    #[serde(default)]
    pub rotation: Option<LoginRotation>,
}

/// A schedule by which a stored key is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginRotation {
    /// Seconds from one time to the next.
    pub every_s: u64,
    pub next_at: DateTime<Utc>,
}

/// How a target proves that it is itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostKey {
    #[schema(schema_with = schemas::host_key_trust)]
    pub trust: HostKeyTrust,
    /// Algorithm and base64, as in `known_hosts`.
    pub public_key: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// A host key to pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinHostKey {
    #[serde(default = "host")]
    #[schema(schema_with = schemas::host_key_trust)]
    pub trust: HostKeyTrust,
    /// Algorithm and base64, as in `known_hosts`.
    pub public_key: String,
}

fn host() -> HostKeyTrust {
    HostKeyTrust::Host
}

/// An account with what the bastion proves itself with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLogin {
    #[schema(value_type = String)]
    pub login: Login,
    pub credential: SetCredential,
}

/// What the bastion proves itself with at the target.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SetCredential {
    /// A certificate for each session alone, signed by the bastion's user CA, which the target must trust.
    Certificate,
    /// A private key in OpenSSH's text form, without a passphrase. It is stored sealed.
    Key {
        #[schema(value_type = String, format = Password)]
        private_key: SentSecret,
    },
    /// A password. It is stored sealed.
    Password {
        #[schema(value_type = String, format = Password)]
        password: SentSecret,
    },
    /// What is stored for the account stays. Only where the account is there already.
    Keep,
}

/// A target to add.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddTarget {
    #[schema(value_type = String)]
    pub name: TargetName,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<TargetName>,
    /// `host` or `host:port`
    #[schema(value_type = String)]
    pub address: Address,
    /// The target through which this one is reached.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub jump: Option<TargetName>,
    /// At least one.
    pub logins: Vec<SetLogin>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// At least one.
    pub host_keys: Vec<PinHostKey>,
}

/// What to change of a target; what is left out stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeTarget {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<Address>,
    /// All other names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub aliases: Option<Vec<TargetName>>,
    /// The target through which this one is reached from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub jump: Option<TargetName>,
    /// It is reached directly from now on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
    /// All labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// All accounts, each with its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logins: Option<Vec<SetLogin>>,
    /// All pinned keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_keys: Option<Vec<PinHostKey>>,
}

/// A host to ask for its keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScanTarget {
    /// `host` or `host:port`
    #[schema(value_type = String)]
    pub address: Address,
}

/// The keys that a host offers to anybody who asks: not proved, to be compared by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScannedKeys {
    #[schema(value_type = String)]
    pub address: Address,
    pub host_keys: Vec<HostKey>,
}

fn shape_host_key(key: target::HostKey) -> HostKey {
    let fingerprint = key.public_key.parse::<SshPublicKey>().map(|key| key.fingerprint().to_string());
    HostKey { trust: key.trust, fingerprint: fingerprint.unwrap_or_default(), public_key: key.public_key }
}

impl TryFrom<PinHostKey> for target::HostKey {
    type Error = ApiError;

    fn try_from(key: PinHostKey) -> Result<Self, ApiError> {
        let parsed: SshPublicKey = key
            .public_key
            .parse()
            .map_err(|error: SshPublicKeyError| ApiError::BadRequest(format!("host key: {error}")))?;
        Ok(Self { trust: key.trust, public_key: parsed.to_line() })
    }
}

/// The credential, for the floor that seals it; `None` is the one that is stored.
fn credential(credential: SetCredential) -> Option<Credential> {
    match credential {
        SetCredential::Certificate => Some(Credential::Certificate),
        SetCredential::Key { private_key } => Some(Credential::Key(PrivateKeyText::new(private_key.into_text()))),
        SetCredential::Password { password } => Some(Credential::Password(TargetPassword::new(password.into_text()))),
        SetCredential::Keep => None,
    }
}

/// What is shown of a target and kept elsewhere.
#[derive(Default)]
struct Beside {
    /// A name never changes.
    names: HashMap<TargetId, TargetName>,
    schedules: Vec<Schedule>,
}

impl Beside {
    async fn read(state: &ApiState) -> Result<Self, ApiError> {
        let names = targets::list(&state.app).await?.into_iter().map(|target| (target.id, target.name)).collect();
        Ok(Self { names, schedules: credential_rotation::schedules(&state.app).await? })
    }

    /// The same, if what the caller knows of a target is to be compared.
    async fn read_for(state: &ApiState, known: &IfMatch) -> Result<Self, ApiError> {
        if known.is_there() { Self::read(state).await } else { Ok(Self::default()) }
    }
}

fn shape(target: target::Target, beside: &Beside) -> Target {
    let login = |account: target::TargetLogin| {
        let set = beside.schedules.iter().find(|set| set.target == target.id && set.login == account.login);
        let rotation = set.map(|set| LoginRotation { every_s: set.every_s, next_at: set.next_at });
        TargetLogin { login: account.login, credential: account.credential, rotation }
    };
    Target {
        id: target.id,
        name: target.name,
        aliases: target.aliases,
        address: target.address,
        jump: target.jump.and_then(|id| beside.names.get(&id).cloned()),
        logins: target.logins.into_iter().map(login).collect(),
        labels: target.labels,
        host_keys: target.host_keys.into_iter().map(shape_host_key).collect(),
        created_at: target.created_at,
        disabled_at: target.disabled_at,
    }
}

async fn shape_one(state: &ApiState, target: target::Target) -> Result<Json<Target>, ApiError> {
    Ok(Json(shape(target, &Beside::read(state).await?)))
}

fn new_logins(logins: Vec<SetLogin>) -> Result<Vec<(Login, Credential)>, ApiError> {
    let new = |SetLogin { login, credential: set }| match credential(set) {
        Some(credential) => Ok((login, credential)),
        None => Err(ApiError::BadRequest(format!("`{login}` has no credential to keep; give it one"))),
    };
    logins.into_iter().map(new).collect()
}

fn set_logins(logins: Vec<SetLogin>) -> Vec<(Login, Option<Credential>)> {
    logins.into_iter().map(|set| (set.login, credential(set.credential))).collect()
}

fn pinned(keys: Vec<PinHostKey>) -> Result<Vec<target::HostKey>, ApiError> {
    keys.into_iter().map(target::HostKey::try_from).collect()
}

/// Every target, by name.
#[utoipa::path(get, path = "/targets", operation_id = "targets_list", tag = "targets", params(PageQuery), responses(
    (status = OK, body = Page<Target>),
    (status = "default", body = Problem),
))]
pub(super) async fn list(
    _may: May<Look>,
    State(state): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Target>>, ApiError> {
    let mut targets = targets::list(&state.app).await?;
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    let page = Page::of_sorted(targets, &query, |target| target.name.clone())?;
    let beside = Beside::read(&state).await?;
    Ok(Json(page.map(|target| shape(target, &beside))))
}

/// Adds a target. Its host keys are pinned from now on; `/targets/scan` shows what it offers.
#[utoipa::path(post, path = "/targets", operation_id = "targets_add", tag = "targets", request_body = AddTarget, responses(
    (status = CREATED, body = Target),
    (status = "default", body = Problem),
))]
pub(super) async fn add(
    may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<AddTarget>,
) -> Result<(StatusCode, Json<Target>), ApiError> {
    let new = NewTarget {
        name: body.name,
        aliases: body.aliases,
        address: body.address,
        jump: body.jump,
        logins: new_logins(body.logins)?,
        labels: body.labels,
        host_keys: pinned(body.host_keys)?,
    };
    let target = targets::add(&state.app, &may.actor(), new).await?;
    Ok((StatusCode::CREATED, shape_one(&state, target).await?))
}

/// Asks a host for its keys. Nothing is stored: a person compares them with what they know from elsewhere.
#[utoipa::path(post, path = "/targets/scan", operation_id = "targets_scan", tag = "targets", request_body = ScanTarget, responses(
    (status = OK, body = ScannedKeys),
    (status = "default", body = Problem),
))]
pub(super) async fn scan(
    _may: May<Administer>,
    State(state): State<ApiState>,
    Body(body): Body<ScanTarget>,
) -> Result<Json<ScannedKeys>, ApiError> {
    let keys = match tokio::time::timeout(SCAN_DEADLINE, (state.scan)(body.address.clone())).await {
        Ok(scanned) => scanned.map_err(|error: ScanError| ApiError::BadGateway(error.to_string()))?,
        Err(_elapsed) => {
            return Err(ApiError::BadGateway(format!("{} did not answer in time", body.address)));
        }
    };
    Ok(Json(ScannedKeys { address: body.address, host_keys: keys.into_iter().map(shape_host_key).collect() }))
}

/// One target, by its name or an alias.
#[utoipa::path(get, path = "/targets/{name}", operation_id = "targets_show", tag = "targets",
    params(("name" = String, Path)), responses(
    (status = OK, body = Target),
    (status = "default", body = Problem),
))]
pub(super) async fn show(
    _may: May<Look>,
    State(state): State<ApiState>,
    Path(name): Path<TargetName>,
) -> Result<Json<Target>, ApiError> {
    shape_one(&state, targets::find(&state.app, &name).await?).await
}

/// Changes a target: its address, other names, way, labels, accounts, or the host keys that are pinned.
#[utoipa::path(patch, path = "/targets/{name}", operation_id = "targets_change", tag = "targets",
    params(("name" = String, Path), IfMatch), request_body = ChangeTarget, responses(
    (status = OK, body = Target),
    (status = "default", body = Problem),
))]
pub(super) async fn change(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TargetName>,
    known: IfMatch,
    Body(body): Body<ChangeTarget>,
) -> Result<Json<Target>, ApiError> {
    let beside = Beside::read_for(&state, &known).await?;
    let still = |target: &target::Target| known.is(|| shape(target.clone(), &beside));
    let way = match (body.jump, body.direct) {
        (None, false) => None,
        (None, true) => Some(Way::Direct),
        (Some(jump), false) => Some(Way::Through(jump)),
        (Some(_), true) => return Err(ApiError::BadRequest("`jump` and `direct` exclude each other".to_owned())),
    };
    let change = TargetChange {
        address: body.address,
        aliases: body.aliases,
        way,
        labels: body.labels,
        logins: body.logins.map(set_logins),
        host_keys: body.host_keys.map(pinned).transpose()?,
    };
    shape_one(&state, targets::update(&state.app, &may.actor(), &name, change, Some(&still)).await?).await
}

/// Disables a target: nobody reaches it from now on, and live sessions to it are cut.
#[utoipa::path(post, path = "/targets/{name}/disable", operation_id = "targets_disable", tag = "targets",
    params(("name" = String, Path), IfMatch), responses(
    (status = OK, body = Target),
    (status = "default", body = Problem),
))]
pub(super) async fn disable(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TargetName>,
    known: IfMatch,
) -> Result<Json<Target>, ApiError> {
    let beside = Beside::read_for(&state, &known).await?;
    let still = |target: &target::Target| known.is(|| shape(target.clone(), &beside));
    shape_one(&state, targets::disable(&state.app, &may.actor(), &name, Some(&still)).await?).await
}

/// Enables a target again.
#[utoipa::path(post, path = "/targets/{name}/enable", operation_id = "targets_enable", tag = "targets",
    params(("name" = String, Path), IfMatch), responses(
    (status = OK, body = Target),
    (status = "default", body = Problem),
))]
pub(super) async fn enable(
    may: May<Administer>,
    State(state): State<ApiState>,
    Path(name): Path<TargetName>,
    known: IfMatch,
) -> Result<Json<Target>, ApiError> {
    let beside = Beside::read_for(&state, &known).await?;
    let still = |target: &target::Target| known.is(|| shape(target.clone(), &beside));
    shape_one(&state, targets::enable(&state.app, &may.actor(), &name, Some(&still)).await?).await
}
