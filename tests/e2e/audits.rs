//! What an outside judge of SSH servers says.

use serde_json::Value;

use crate::bastion::{Bastion, Settings, Stores};
use crate::clients::venv;
use crate::support::clients::Workstation;

#[tokio::test(flavor = "multi_thread")]
async fn ssh_audit_finds_only_that_older_clients_have_no_post_quantum_exchange() {
    let bastion = Bastion::start(Stores::Small, Settings::default()).await;
    let desk = Workstation::without_key();

    let port = bastion.address().port().to_string();
    // Its rate test wants fewer than 20 connections a second from one address, whatever a connection costs; ours cost a
    // millisecond each and are bounded by address (see `limits`), and twenty engineers may well share an address.
    let audit = desk.program(venv("ssh-audit")).args(["--json", "--skip-rate-test", "--port", &port, "127.0.0.1"]);
    let audit = audit.run().await;
    let report: Value = serde_json::from_str(&audit.text()).unwrap_or_else(|_| panic!("{}", audit.text()));

    let mut found = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        for entry in report[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {report:#}")) {
            for level in ["fail", "warn"] {
                for note in entry["notes"][level].as_array().into_iter().flatten() {
                    found.push(format!(
                        "{level}: {}: {}",
                        entry["algorithm"].as_str().unwrap(),
                        note.as_str().unwrap()
                    ));
                }
            }
        }
    }
    let excused = |line: &String| line.starts_with("warn: curve25519-sha256") && line.contains("post-quantum");
    assert!(found.iter().all(excused), "{found:#?}");
    assert_eq!(report["cves"].as_array().map_or(0, Vec::len), 0, "{report:#}");
}
