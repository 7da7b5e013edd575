//! `sallyport init`, on a folder of its own: what it makes, what it leaves, and that a bastion serves from it. And `man`, `doctor`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use sallyport::app::clock::Clock;
use sallyport::config::Config;
use serde_json::Value;
use tokio::process::Command;

async fn sallyport(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    program.args(arguments).arg("--no-input").current_dir(folder).env("TZ", "UTC").env_remove("SALLYPORT_CONFIG");
    program.output().await.unwrap()
}

async fn init(folder: &Path, more: &[&str]) -> Output {
    let (config, data) = (folder.join("etc/sallyport.toml"), folder.join("data"));
    let usual = [
        "init",
        "--config",
        config.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
        "--ssh-listen",
        "127.0.0.1:0",
        "--web-listen",
        "none",
        "--public-host",
        "bastion.example.com",
    ];
    sallyport(folder, &[&usual, more].concat()).await
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_is_served_from_and_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "correct horse battery\n").unwrap();

    let made = init(folder.path(), &["--admin", "adam", "--admin-password-file", "password"]).await;
    let told = String::from_utf8(made.stderr).unwrap();
    let text = std::fs::read_to_string(folder.path().join("etc/sallyport.toml")).unwrap();
    let bastion = sallyport::Bastion::start(Config::parse(&text, []).unwrap(), Clock::system()).await.unwrap();
    let people = sallyport::app::people::list(bastion.app()).await.unwrap();
    let shown = bastion.host_key().to_openssh().unwrap();
    let shown = shown.split(' ').take(2).collect::<Vec<_>>().join(" ");
    bastion.stop().await;
    let again = init(folder.path(), &["--admin-password-file", "password"]).await;

    assert!(made.status.success(), "{told}");
    assert!(told.contains("keep a copy") && told.contains(&shown) && !told.contains("correct horse"), "{told}");
    assert!(text.contains("# Where engineers connect.") && text.contains("public_host = \"bastion.example.com\""));
    assert_eq!((people.len(), people[0].principal.name.as_str(), people[0].has_password), (1, "adam", true));
    assert_eq!(again.status.code(), Some(5), "{again:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("etc/sallyport.toml")).unwrap(), text);
    let data = folder.path().join("data");
    assert_eq!((mode(&data), mode(&data.join("master.key")), mode(&data.join("sallyport.db"))), (0o700, 0o600, 0o600));
    assert_eq!(mode(&folder.path().join("etc/sallyport.toml")), 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();

    let nobody = init(folder.path(), &[]).await;
    let unknown = init(folder.path(), &["--admin-key", "ssh-ed25519 AAAA", "--set", "ssh.speed=9"]).await;
    let unsound = init(folder.path(), &["--admin-key", "ssh-ed25519 AAAA", "--set", "ssh.max_channels=0"]).await;

    for output in [&nobody, &unknown, &unsound] {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("--admin-key"), "{nobody:?}");
    assert!(!folder.path().join("data").exists() && !folder.path().join("etc").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_failed_half_way_is_run_again_and_a_password_stands_beside() {
    let folder = tempfile::tempdir().unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";
    let url = crate::support::postgres::Postgres::shared().database().await;
    let url = url.replace("postgres:///", "postgres://postgres:planted@localhost/").replace("&user=postgres", "");

    let nowhere = ["--admin-key", key, "--database", "postgres://nobody:planted@127.0.0.1:1/nothing"];
    let failed = init(folder.path(), &nowhere).await;
    let made = init(folder.path(), &["--admin-key", key, "--database", &url]).await;

    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(!String::from_utf8_lossy(&failed.stderr).contains("planted"), "{failed:?}");
    assert!(made.status.success(), "{made:?}");
    let (config, beside) = (folder.path().join("etc/sallyport.toml"), folder.path().join("etc/sallyport.env"));
    assert!(!std::fs::read_to_string(config).unwrap().contains("planted"));
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), format!("SALLYPORT__DATABASE__URL={url}\n"));
    assert_eq!(mode(&beside), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_has_a_page_of_the_manual() {
    let folder = tempfile::tempdir().unwrap();

    let output = sallyport(folder.path(), &["man", "pages"]).await;

    assert!(output.status.success(), "{output:?}");
    for page in ["sallyport.1", "sallyport-serve.1", "sallyport-grant-new.1", "sallyport-apply.1"] {
        let text = std::fs::read_to_string(folder.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains("SYNOPSIS"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "correct horse battery\n").unwrap();
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    std::fs::set_permissions(folder.path().join("token"), PermissionsExt::from_mode(0o644)).unwrap();
    let token = format!("ledger.anchor_webhook_token_file={}", folder.path().join("token").display());
    let made = init(folder.path(), &["--admin-password-file", "password", "--set", &token]).await;
    assert!(made.status.success(), "{made:?}");
    std::fs::set_permissions(folder.path().join("data"), PermissionsExt::from_mode(0o755)).unwrap();
    let text = std::fs::read_to_string(folder.path().join("etc/sallyport.toml")).unwrap();
    let bastion = sallyport::Bastion::start(Config::parse(&text, []).unwrap(), Clock::system()).await.unwrap();
    let closed = crate::support::free_port();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8";
    let toy = sallyport::toy_target::ToyTarget::start(sallyport::toy_target::Settings::default()).await.unwrap();
    let good = toy.host_key().to_openssh().unwrap();
    for (name, address, key) in [
        ("away-1", format!("127.0.0.1:{closed}"), key),
        ("other-1", toy.address().to_string(), key),
        ("good-1", toy.address().to_string(), &good),
    ] {
        let new = sallyport::app::targets::NewTarget {
            name: name.parse().unwrap(),
            aliases: Vec::new(),
            address: address.parse().unwrap(),
            jump: None,
            logins: vec![("root".parse().unwrap(), sallyport::app::targets::Credential::Certificate)],
            labels: std::collections::BTreeMap::new(),
            host_keys: vec![sallyport_domain::target::HostKey {
                trust: sallyport_domain::target::HostKeyTrust::Host,
                public_key: key.to_owned(),
            }],
        };
        sallyport::app::targets::add(bastion.app(), &crate::bastion::OPERATOR, new).await.unwrap();
    }

    let config = folder.path().join("etc/sallyport.toml");
    let output = sallyport(folder.path(), &["doctor", "--json", "--config", config.to_str().unwrap()]).await;
    bastion.stop().await;
    toy.stop().await;

    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = page["items"].as_array().unwrap();
    let found = |what: &str, state: &str, words: &str| {
        checks.iter().any(|check| {
            check["what"] == what && check["state"] == state && check["found"].as_str().unwrap().contains(words)
        })
    };
    assert!(found("data folder", "warning", "mode 755"), "{page:#}");
    assert!(found("secret files", "failed", "mode 644"), "{page:#}");
    assert!(found("object store", "ok", "written, read and deleted"), "{page:#}");
    assert!(found("object lock", "warning", "files have none"), "{page:#}");
    assert!(found("clock", "ok", ""), "{page:#}");
    assert!(found("targets", "failed", "`away-1`"), "{page:#}");
    assert!(found("targets", "failed", "`other-1`"), "{page:#}");
    assert!(!page.to_string().contains("`good-1`"), "{page:#}");
    assert!(checks.iter().all(|check| check["state"] == "ok" || check["advice"].is_string()), "{page:#}");
    assert_eq!(output.status.code(), Some(1));
}
