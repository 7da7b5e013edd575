//! What a grant or a template allows, apart from people and time, as one object.

use ipnet::IpNet;
use sallyport_domain::grant::{Approval, TargetSelector, Terms};
use sallyport_domain::name::Login;
use sallyport_domain::review::ReviewTerm;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::grants::{Allow, Commands, Files, Forwarding};
use super::schemas;

/// What a grant allows, apart from people and time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantTerms {
    /// Names, patterns such as `web-*`, and labels such as `env=prod`. A template may leave them out: then each grant says them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<TargetSelector>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub logins: Vec<Login>,
    /// A shell and single commands where it is left out; with patterns of commands no shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// Networks from which the person may come; empty means from anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub source_networks: Vec<IpNet>,
    /// Sessions that may be open at once; absent means any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// Whether the person must have proved a second factor.
    #[serde(default, skip_serializing_if = "is_default")]
    pub second_factor: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    #[schema(schema_with = schemas::approval)]
    pub approval: Approval,
    #[serde(default, skip_serializing_if = "is_default")]
    pub files: Files,
    #[serde(default, skip_serializing_if = "is_default")]
    pub commands: Commands,
    #[serde(default, skip_serializing_if = "is_default")]
    pub forwarding: Forwarding,
    /// By when sessions are to be reviewed: `none`, or working days such as `5d`; absent, as the bastion's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub review: Option<ReviewTerm>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<Terms> for GrantTerms {
    fn from(terms: Terms) -> Self {
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
        } = terms;
        Self {
            targets,
            logins,
            allow: Some(capabilities.into()),
            source_networks,
            max_sessions,
            second_factor,
            approval,
            files: files.into(),
            commands: commands.into(),
            forwarding: forwarding.into(),
            review,
        }
    }
}

impl From<GrantTerms> for Terms {
    fn from(terms: GrantTerms) -> Self {
        let GrantTerms {
            targets,
            logins,
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
        Self {
            targets,
            logins,
            capabilities: allow.unwrap_or_else(|| Allow::usual_with(&commands)).into(),
            source_networks,
            max_sessions,
            second_factor,
            approval,
            files: files.into(),
            commands: commands.into(),
            forwarding: forwarding.into(),
            review,
        }
    }
}
