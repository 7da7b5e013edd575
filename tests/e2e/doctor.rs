//! What the doctor says of a bastion that is well, with everything real around it.

use crate::bastion::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_stores_clock_ports_and_targets_well() {
    let scene = Scene::open().await;
    scene.ssh().arg("true").run().await.expect_success();
    let config = scene.bastion.path("sallyport.toml");

    // Until the first checkpoint has come out, that is a warning.
    crate::support::eventually("no check fails, and the anchors are well", async || {
        let output = scene.bastion.try_admin(&["doctor", "--json", "--config", config.to_str().unwrap()]).await;
        let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let state = |what: &str| {
            let checks = page["items"].as_array().unwrap();
            checks.iter().find(|check| check["what"] == what).map(|check| check["state"].clone()).unwrap_or_default()
        };
        for what in ["configuration", "master key", "database", "object store", "clock", "ssh port", "targets"] {
            assert_eq!(state(what), "ok", "{what}: {page:#}");
        }
        // This S3 server knows no lock.
        assert_eq!(state("object lock"), "warning", "{page:#}");
        assert!(page.to_string().contains("1 of 1 answer"), "{page:#}");
        state("anchors") == "ok"
    })
    .await;
}
