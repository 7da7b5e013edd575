//! `[api]`: the door for commands and scripts.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Where the API listens and who is an operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// The Unix socket; `sallyport.sock` in the data folder where it is left out.
    pub socket: Option<PathBuf>,
    /// A TCP address, loopback only: in front of it stands a proxy that speaks TLS.
    pub listen: Option<SocketAddr>,
    /// Users, by uid, who are operators besides root and the bastion's own.
    pub operators: Vec<u32>,
}
