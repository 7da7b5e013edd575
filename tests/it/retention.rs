//! What two people delete is gone, and everything else is proved as before; the command line and the API as people use them.

use sallyport::app::{people, tokens};
use sallyport_domain::principal::Role;
use serde_json::Value;

use crate::bastion::{Bastion, OPERATOR};
use crate::support;

/// Somebody with a token, at a computer of their own.
async fn token(bastion: &Bastion, name: &str, role: Role) -> String {
    if people::find(bastion.app(), &name.parse().unwrap()).await.is_err() {
        let new = people::NewPerson {
            name: name.parse().unwrap(),
            organisation: None,
            roles: vec![role],
            keys: vec![],
            password: None,
        };
        people::add(bastion.app(), &OPERATOR, new).await.unwrap();
    }
    let (_, token) = tokens::make(bastion.app(), &OPERATOR, &name.parse().unwrap(), "test", None).await.unwrap();
    token.expose().to_owned()
}

/// The exit code, the answer as JSON, and what was said beside.
async fn run(bastion: &Bastion, token: Option<&str>, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut program = bastion.sallyport(arguments);
    program.arg("--json").arg("--yes");
    if let Some(token) = token {
        let url = format!("http://{}", bastion.api_address().unwrap());
        program.env("SALLYPORT_URL", url).env("SALLYPORT_TOKEN", token);
    }
    let ran = program.output().await.unwrap();
    let answer = serde_json::from_slice(&ran.stdout).unwrap_or(Value::Null);
    (ran.status.code(), answer, String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_delete_a_recording_and_the_rest_is_proved_as_before() {
    let bastion = Bastion::with(&[("api.listen", "127.0.0.1:0")]).await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    let grant = bastion.grant(&alice, "web-1").await.id.to_string();
    for words in ["echo one", "echo two"] {
        bastion.ssh(&alice, "web-1").arg(words).run().await;
    }
    support::eventually("both sessions are sealed", async || {
        let acts = bastion.acts().await;
        acts.iter().filter(|act| format!("{act:?}").starts_with("SessionSealed")).count() == 2
    })
    .await;
    let sessions: Vec<String> = bastion.sessions().await.iter().map(|found| found.session.id.to_string()).collect();
    let (late, early) = (sessions[0].as_str(), sessions[1].as_str());
    let adam = token(&bastion, "adam", Role::Admin).await;
    let adam_again = token(&bastion, "adam", Role::Admin).await;
    let rita = token(&bastion, "rita", Role::Reviewer).await;
    let anna = token(&bastion, "anna", Role::Auditor).await;
    let delete = ["recording", "delete", early, "--reason", "a password on the screen"];

    let (code, _, said) = run(&bastion, None, &delete).await;
    assert!(code != Some(0) && said.contains("operator of the host is nobody here"), "{said}");
    let (code, hold, said) = run(&bastion, Some(&rita), &["recording", "hold", "web-1", "--reason", "a lawsuit"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&bastion, Some(&adam), &delete).await.0, Some(5), "held");
    let hold = hold["id"].as_str().unwrap();
    assert_eq!(run(&bastion, Some(&rita), &["recording", "release", hold, "--reason", "settled"]).await.0, Some(0));
    assert_eq!(run(&bastion, Some(&anna), &delete).await.0, Some(4), "an auditor changes nothing");
    let (code, asked, said) = run(&bastion, Some(&adam), &delete).await;
    assert_eq!(code, Some(0), "{said}");
    let id = asked["id"].as_str().unwrap();
    let approve = ["recording", "approve", id];
    for token in [&adam, &adam_again] {
        let (code, _, said) = run(&bastion, Some(token), &approve).await;
        assert!(code == Some(4) && said.contains("two people"), "{said}");
    }
    let (code, waiting, _) = run(&bastion, Some(&anna), &["recording", "deletions"]).await;
    assert_eq!((code, &waiting["items"][0]["asked_by"]), (Some(0), &Value::from("adam")));
    let (code, _, said) = run(&bastion, Some(&rita), &approve).await;
    assert_eq!(code, Some(0), "{said}");
    support::eventually("it is gone", async || {
        run(&bastion, Some(&anna), &["recording", "deletion", id]).await.1["deleted"] == 1
    })
    .await;

    let (code, _, said) = run(&bastion, None, &["session", "export", early, "--format", "txt"]).await;
    assert!(code != Some(0) && said.contains("was deleted"), "{said}");
    let signed = async || sallyport::app::ledger::proofs::standing(bastion.app()).await.unwrap().waiting == 0;
    support::eventually("everything is signed", signed).await;
    let config = bastion.folder().join("sallyport.toml");
    std::fs::write(&config, format!("[server]\ndata_dir = \"{}\"\n", bastion.folder().join("data").display())).unwrap();
    let verify = ["verify", "--from-start", "--config", config.to_str().unwrap()];
    let (code, report, said) = run(&bastion, None, &verify).await;
    assert_eq!((code, &report["deleted"], &report["sessions"]), (Some(0), &1.into(), &2.into()), "{report} {said}");
    let bundle = bastion.folder().join("bundle.zip");
    let bundle = bundle.to_str().unwrap();
    let (code, _, said) = run(&bastion, None, &["evidence", "make", &grant, "-o", bundle]).await;
    assert_eq!(code, Some(0), "{said}");
    let (_, keys, _) = run(&bastion, None, &["evidence", "key"]).await;
    let key = keys[0]["fingerprint"].as_str().unwrap();
    let (code, verdict, _) = run(&bastion, None, &["evidence", "verify", bundle, "--key", key]).await;
    assert_eq!(code, Some(0), "{verdict:#}");
    assert_eq!(verdict["proven"]["deleted"][0]["approved_by"], "rita", "{verdict:#}");
    assert_eq!(verdict["proven"]["recordings"].as_array().unwrap().len(), 1, "{verdict:#}");

    // What nobody has deleted, and is not there, is a fault as ever.
    let recording = bastion
        .recordings()
        .await
        .iter()
        .find(|found| found.recording.session.to_string() == late)
        .unwrap()
        .recording
        .id;
    std::fs::remove_dir_all(bastion.folder().join(format!("data/blobs/recordings/{recording}"))).unwrap();
    let (code, report, _) = run(&bastion, None, &verify).await;
    assert_eq!(code, Some(6), "{report}");
    assert!(report["faults"][0]["what"].as_str().unwrap().contains("is missing"), "{report}");
}
