//! Evidence for outsiders: made by a bastion after stock clients were at work, verified without it, by two programs.

use std::path::Path;

use serde_json::Value;

use crate::bastion::{Scene, Settings, Stores};
use crate::clients::venv;
use crate::support::eventually;

/// What a target may print to whoever opens the page of a bundle.
const HOSTILE: &str = "printf '</script><script>document.title=1</script>\\033[31m\\377'; exit 3";

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_under_a_grant_is_proved_to_somebody_who_has_only_the_file_and_a_fingerprint() {
    let scene = Scene::on(Stores::Small, Settings::default(), &[]).await;
    let bastion = &scene.bastion;
    let command = scene.ssh().arg(HOSTILE).run().await;
    assert_eq!(command.code(), Some(3), "{}", command.errors());
    let mut terminal = scene.ssh().arg("-t").in_terminal(80, 24);
    terminal.type_keys("echo in a ter''minal; exit\r").await;
    terminal.wait_for("in a terminal").await;
    terminal.finish().await;
    let sent = bastion.path("sent");
    std::fs::write(&sent, b"content").unwrap();
    let scp = scene.desk.scp(bastion.address()).arg(&sent).arg(scene.remote(&bastion.path("received"))).run().await;
    scp.expect_success();
    eventually("all sessions are sealed", async || {
        let sealed = bastion.ask(&["audit", "ls", "--act", "session_sealed"]).await;
        sealed["items"].as_array().is_some_and(|events| events.len() == 3)
    })
    .await;

    let grants = bastion.ask(&["grant", "ls"]).await;
    let grant = grants["items"][0]["id"].as_str().unwrap();
    let (of_grant, of_session) = (bastion.path("grant.zip"), bastion.path("session.zip"));
    let session = bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    bastion.admin(&["evidence", "make", grant, "-o", of_grant.to_str().unwrap()]).await;
    bastion.admin(&["evidence", "make", &session, "-o", of_session.to_str().unwrap()]).await;
    let keys = bastion.ask(&["evidence", "key"]).await;
    let key = keys[0]["fingerprint"].as_str().unwrap();

    let verdict = bastion.try_admin(&["evidence", "verify", of_grant.to_str().unwrap(), "--key", key, "--json"]).await;
    let verdict: Value = serde_json::from_slice(&verdict.stdout).unwrap();
    assert_eq!(verdict["faults"], Value::Array(vec![]), "{verdict:#}");
    assert_eq!(verdict["proven"]["sessions"].as_array().unwrap().len(), 3, "{verdict:#}");
    let verdict = bastion.ask(&["evidence", "verify", of_session.to_str().unwrap(), "--key", key]).await;
    assert_eq!(verdict["about"]["session"], session.as_str(), "{verdict:#}");
    assert_eq!(verdict["proven"]["sessions"].as_array().unwrap().len(), 1, "{verdict:#}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify_bundle.py");
    let other = scene.desk.program(venv("python")).arg(script).arg(key).arg(&of_grant).arg(&of_session).run().await;
    assert_eq!(other.text(), "sound\nsound\n", "{}", other.errors());

    let bytes = std::fs::read(&of_grant).unwrap();
    let page = String::from_utf8_lossy(&bytes);
    assert!(page.contains("\\u003c/script>\\u003cscript>document.title=1"), "it is in the page, and cannot run");
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&of_grant, changed).unwrap();
    let refused = bastion.try_admin(&["evidence", "verify", of_grant.to_str().unwrap(), "--key", key]).await;
    assert_eq!(refused.status.code(), Some(6));
    let made = bastion.ask(&["audit", "ls", "--act", "evidence_made"]).await;
    assert_eq!(made["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_evidence_of_what_is_not_there_or_not_over() {
    let scene = Scene::on(Stores::Small, Settings::default(), &[]).await;
    let bastion = &scene.bastion;
    let live = scene.ssh().arg("sleep 600").spawn();
    eventually("a session lives", async || !bastion.sessions().await.is_empty()).await;
    let session = bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();

    let refused = bastion.try_admin(&["evidence", "make", &session]).await;
    assert_eq!(refused.status.code(), Some(5), "{}", String::from_utf8_lossy(&refused.stderr));
    let unknown = bastion.try_admin(&["evidence", "make", "g-00000000000000000000000000"]).await;
    assert_eq!(unknown.status.code(), Some(3), "{}", String::from_utf8_lossy(&unknown.stderr));
    let made = bastion.ask(&["audit", "ls", "--act", "evidence_made"]).await;
    assert_eq!(made["items"].as_array().unwrap().len(), 0);
    drop(live);
}
