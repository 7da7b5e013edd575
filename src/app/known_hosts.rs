//! Lines for engineers' `known_hosts` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): the bastion's own key, the authority that signs
//! what targets show through it, and, for clients that know no authorities, each target's own key.

use sallyport_domain::target::Target;

use crate::app::keys::TargetKeys;
use crate::app::{App, DbError};
use crate::store::db;

/// The bastion's own line.
pub fn bastion(host: &str, port: u16, host_key: &str) -> String {
    format!("{} {host_key}", pattern(host, port))
}

/// The line by which every target is known whose name is one of `hosts`, a pattern; `*` is all of them.
pub fn authority(hosts: &str, host_ca: &str) -> String {
    format!("@cert-authority {hosts} {host_ca}")
}

/// The line of one target, by every name by which a client may ask for it through the bastion. `None` if the system gives
/// no randomness.
pub fn target(target: &Target, keys: &TargetKeys) -> Option<String> {
    let port = target.address.port();
    let mut patterns = Vec::new();
    for name in target.names() {
        patterns.push(pattern(name.as_str(), 22));
        if port != 22 {
            patterns.push(pattern(name.as_str(), port));
        }
    }
    patterns.push(pattern(target.address.host(), port));
    patterns.dedup();
    Some(format!("{} {}", patterns.join(","), keys.public_of(target.id)?))
}

/// The lines of all targets, by name.
pub async fn of_all_targets(app: &App, keys: &TargetKeys) -> Result<Vec<(Target, String)>, DbError> {
    let mut targets = db::targets::list(&mut app.db.read().await?).await?;
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets.into_iter().filter_map(|one| target(&one, keys).map(|line| (one, line))).collect())
}

/// How a client writes a host and a port; the usual port is left out.
fn pattern(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_left_out() {
        assert_eq!(bastion("bastion.example", 22, "ssh-ed25519 AAAA"), "bastion.example ssh-ed25519 AAAA");
        assert_eq!(bastion("::1", 2222, "ssh-ed25519 AAAA"), "[::1]:2222 ssh-ed25519 AAAA");
        assert_eq!(authority("*", "ssh-ed25519 AAAA"), "@cert-authority * ssh-ed25519 AAAA");
    }
}
