//! People, targets and templates as a file: `sallyport export` and `sallyport apply`.

use serde_json::Value;

use crate::cli::{KEY, Sallyport};

const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAvqEs1cVbfBqAS8k3NXKQnwiKq5gnQ3J3iq1vcdb3TD";

impl Sallyport {
    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("access.yaml"), text).unwrap();
    }

    /// Every act so far, by name.
    async fn kinds(&self) -> Vec<String> {
        let events: Value = serde_json::from_str(&self.ok("audit ls --json").await).unwrap();
        let kind = |event: &Value| event["act"]["act"].as_str().unwrap().to_owned();
        events["items"].as_array().unwrap().iter().map(kind).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_is_applied_without_a_change_and_holds_no_secret() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    std::fs::write(sallyport.folder.path().join("password"), "planted-secret\n").unwrap();
    sallyport.ok("person password alice --password-file password").await;
    sallyport.ok("person add bob --organisation 'No: \"quotes\" #1' --role admin,reviewer").await;
    sallyport.ok("person disable bob").await;
    sallyport.ok("target add db-1 '[2001:db8::1]:2222' --login root,app --credential password --password-file password --alias db --jump web-1 --label k=yes --yes").await;
    let before = sallyport.kinds().await;

    let exported = sallyport.ok("export").await;
    sallyport.write(&exported);
    let shown = sallyport.ok("apply -f access.yaml --prune").await;

    assert!(!exported.contains("planted") && !exported.contains("argon2"), "{exported}");
    assert!(exported.contains("alice@desk") && exported.contains("credential: password"), "{exported}");
    assert_eq!((shown.as_str(), sallyport.kinds().await), ("", before));
    assert_eq!(sallyport.ok("export").await, exported);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_difference_is_shown_first_and_each_change_is_an_event() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    let before = sallyport.kinds().await;
    sallyport.write(&format!(
        "version: 1\npeople:\n  alice:\n    organisation: Vendor AG\n    roles: [engineer, reviewer]\n    keys: [{OTHER_KEY} alice@new]\n  \
         carol:\n    keys: [{KEY} was alice's]\ntargets:\n  web-1:\n    address: 10.0.0.9\n    labels: {{env: test}}\n  web-2:\n    \
         address: 10.0.0.2\n    jump: web-1\n    logins: {{root: {{credential: certificate}}}}\n    host_keys: [{KEY}]\n    disabled: true\n"
    ));

    let dry = sallyport.ok("apply -f access.yaml --dry-run").await;
    let unchanged = sallyport.kinds().await;
    let unasked = sallyport.run("apply -f access.yaml").await.status.code().unwrap();
    let applied = sallyport.ok("apply -f access.yaml --yes").await;
    let after = sallyport.kinds().await;
    let again = sallyport.ok("apply -f access.yaml --yes").await;

    for part in [
        "~ person alice",
        "- key SHA256:",
        "organisation: none → Vendor AG",
        "roles: engineer → engineer, reviewer",
        "+ person carol",
        "~ target web-1",
        "address: 10.0.0.1:22 → 10.0.0.9:22",
        "labels: env=prod → env=test",
        "+ target web-2",
        "jump: web-1",
    ] {
        assert!(dry.contains(part), "{part} in {dry}");
    }
    assert_eq!((&unchanged, unasked, &applied, again.as_str()), (&before, 2, &dry, ""));
    let mut made = after[before.len()..].to_vec();
    made.sort();
    assert_eq!(
        made,
        [
            "key_added",
            "key_added",
            "key_removed",
            "person_added",
            "person_changed",
            "person_changed",
            "target_added",
            "target_changed",
            "target_disabled"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_the_file_is_named_with_its_line_and_nothing_is_changed() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    let before = sallyport.kinds().await;

    sallyport.write("version: 1\npeople:\n  bob: {}\n  alice:\n    rolls: [admin]\n");
    let (code, error) = sallyport.fails("apply -f access.yaml --yes").await;
    sallyport.write("version: 1\npeople:\n  bob: {}\ntargets:\n  new-1: {}\n");
    let (incomplete, why) = sallyport.fails("apply -f access.yaml --yes").await;
    sallyport.write("version: 1\ntargets:\n  web-1:\n    logins: {root: {credential: password}}\n");
    let (no_secret, hint) = sallyport.fails("apply -f access.yaml --yes").await;

    assert_eq!((code, incomplete, no_secret), (2, 2, 2));
    assert!(error.contains("line 5: ") && error.contains("rolls"), "{error}");
    assert!(why.contains("needs `address`"), "{why}");
    assert!(hint.contains("name its file with `file`"), "{hint}");
    assert_eq!(sallyport.kinds().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_says_what_was_done_and_the_next_one_does_the_rest() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    // A key of alice's, who is not in this file: the bastion refuses it.
    sallyport.write(&format!("version: 1\npeople:\n  bob: {{}}\n  carol:\n    keys: [{KEY}]\n  dave: {{}}\n"));

    let output = sallyport.run("apply -f access.yaml --yes").await;
    let error = String::from_utf8(output.stderr).unwrap();
    let alice: Value = serde_json::from_str(&sallyport.ok("person show alice --json").await).unwrap();
    sallyport.ok(&format!("person key rm alice {}", alice["keys"][0]["fingerprint"].as_str().unwrap())).await;
    sallyport.ok("apply -f access.yaml --yes").await;
    let people = sallyport.ok("person ls --output csv").await;

    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(error.contains("1 of 3 changes were made; then this one failed: + person carol"), "{error}");
    assert!(people.contains("\nbob,") && people.contains("\ncarol,") && people.contains("\ndave,"), "{people}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_secret_stays_and_a_named_file_is_stored() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    std::fs::create_dir(sallyport.folder.path().join("secrets")).unwrap();
    std::fs::write(sallyport.folder.path().join("secrets/app"), "planted-secret\n").unwrap();
    let file = |app: &str| {
        format!(
            "version: 1\ntargets:\n  web-1:\n    logins:\n      root: {{credential: certificate}}\n      app: {{credential: password{app}}}\n"
        )
    };

    sallyport.write(&file(", file: secrets/app"));
    let stored = sallyport.ok("apply -f access.yaml --yes").await;
    sallyport.write(&file(""));
    let kept = sallyport.ok("apply -f access.yaml --yes").await;
    let pruned = sallyport.ok("apply -f access.yaml --yes --prune").await;
    let target: Value = serde_json::from_str(&sallyport.ok("target show web-1 --json").await).unwrap();

    assert!(stored.contains("login app: password from its file") && !stored.contains("planted"), "{stored}");
    assert_eq!((kept.as_str(), pruned.as_str()), ("", "- person alice\n    disabled: live sessions are cut\n"));
    assert_eq!(target["logins"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_in_the_file_the_whole_of_each() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    sallyport.ok("template new firmware 'web-*' --login root --for 4h --allow exec,upload --two-factor --upload-path '/srv/**' --upload-bytes 1GB --reason 'firmware: #1'").await;
    sallyport.ok("template new other --login root").await;
    let exported = sallyport.ok("export").await;
    let before = sallyport.kinds().await;
    sallyport.write(&exported);

    let same = sallyport.ok("apply -f access.yaml --prune").await;
    sallyport.write("version: 1\ntemplates:\n  firmware:\n    terms: {targets: ['web-*'], logins: [root], second_factor: true}\n    for: 2h\n  new: {terms: {max_sessions: 1}}\n");
    let applied = sallyport.ok("apply -f access.yaml --yes").await;
    let template: Value = serde_json::from_str(&sallyport.ok("template show firmware --json").await).unwrap();
    sallyport.write("version: 1\n");
    let silent = sallyport.ok("apply -f access.yaml --yes").await;
    sallyport.write("version: 1\ntemplates: {}\n");
    let pruned = sallyport.ok("apply -f access.yaml --prune --yes").await;
    sallyport.write("version: 1\ntemplates:\n  bad:\n    for: soon\n");
    let (code, error) = sallyport.fails("apply -f access.yaml --yes").await;

    assert_eq!(same, "");
    assert!(exported.contains("for: 4h"), "{exported}");
    for part in [
        "~ template firmware",
        "for: 4h → 2h",
        "reason: firmware: #1 → none",
        "Allow: exec,upload → shell,exec",
        "+ template new",
        "Sessions: at most 1 at once",
    ] {
        assert!(applied.contains(part), "{part} in {applied}");
    }
    let (changes, _) = applied.split_once("+ template new").unwrap();
    assert!(!changes.contains("Takes"), "what stays is not listed: {changes}");
    assert_eq!(
        (&template["terms"]["second_factor"], &template["lasting_seconds"]),
        (&Value::from(true), &Value::from(7200))
    );
    assert_eq!((silent.as_str(), code), ("", 2));
    assert!(pruned.contains("- template firmware") && error.contains("line 4: "), "{pruned} {error}");
    let kinds = sallyport.kinds().await;
    let count = |kind: &str| kinds[before.len()..].iter().filter(|found| *found == kind).count();
    assert_eq!((count("template_made"), count("template_changed"), count("template_removed")), (1, 1, 3));
}
