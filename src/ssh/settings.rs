//! How the SSH door is kept: `[ssh]` in `sallyport.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::Deserialize;

/// How the SSH door listens and what it puts up with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SshSettings {
    pub listen: SocketAddr,
    /// Load balancers, which say by a PROXY header whom a connection is from. From them it must come, from others it is refused.
    pub proxy_protocol_from: Vec<IpNet>,
    /// The host name that engineers connect to; the node's name if it is not set.
    pub public_host: Option<String>,
    /// The port that engineers connect to, where a load balancer or a redirect has another than `listen`.
    pub public_port: Option<u16>,
    /// Public keys of authorities whose user certificates are accepted from engineers.
    pub user_ca_files: Vec<PathBuf>,
    /// A connection that has proved nobody by then is dropped.
    #[serde(with = "crate::store::duration")]
    pub login_grace: Duration,
    /// Connections that have proved nobody yet, at most.
    pub max_unauthenticated: u32,
    /// The same, from one address (IPv6: from one /64).
    pub max_unauthenticated_per_address: u32,
    /// All connections, at most.
    pub max_connections: u32,
    /// Channels that one connection may have open.
    pub max_channels: u32,
    /// Tries to prove oneself on one connection.
    pub max_auth_tries: u32,
    /// An address that fails more often than this has to wait.
    pub failures_per_address: Failures,
    /// How often a silent peer is asked whether it is there.
    #[serde(with = "crate::store::duration")]
    pub keepalive: Duration,
    /// A peer that leaves this many questions unanswered is gone.
    pub keepalive_max: u32,
    /// A session in which nothing moves for so long is cut; none means never.
    #[serde(with = "crate::store::duration::optional")]
    pub idle_timeout: Option<Duration>,
    /// Variables that a client may set on the target; `*` at the end stands for any ending.
    pub accept_env: Vec<String>,
    /// Networks that a forward from the bastion may reach although they are the bastion's own, loopback or link-local.
    pub forward_networks: Vec<IpNet>,
    /// New keys after this many bytes.
    pub rekey_bytes: ByteSize,
    /// How long live sessions go on while the database does not answer.
    #[serde(with = "crate::store::duration")]
    pub database_grace: Duration,
}

/// So many within so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    pub limit: u32,
    #[serde(with = "crate::store::duration")]
    pub window: Duration,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 2222)),
            proxy_protocol_from: Vec::new(),
            public_host: None,
            public_port: None,
            user_ca_files: Vec::new(),
            login_grace: Duration::from_secs(60), // a code has to be read off a telephone
            max_unauthenticated: 100,
            max_unauthenticated_per_address: 30,
            max_connections: 4096,
            max_channels: 64,
            max_auth_tries: 6,
            failures_per_address: Failures { limit: 20, window: Duration::from_mins(10) },
            keepalive: Duration::from_secs(30),
            keepalive_max: 3,
            idle_timeout: None,
            accept_env: ["LANG", "LC_*", "TERM", "COLORTERM"].map(str::to_owned).to_vec(),
            forward_networks: Vec::new(),
            rekey_bytes: ByteSize::gib(1),
            database_grace: Duration::from_mins(5),
        }
    }
}
