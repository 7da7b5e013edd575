//! No secret where it does not belong: planted ones are looked for in everything that the bastion writes, in every spelling that
//! it could have there. What must be found is looked for too, so that a search that finds nothing means something.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sallyport::toy_target::{self, ToyTarget};

use crate::bastion::{SALLYPORT, Scene, Settings, Stores};
use crate::clients::python_login;
use crate::support::keys::KeyPair;
use crate::support::postgres::Postgres;
use crate::support::sshd::{Settings as SshdSettings, Sshd};
use crate::support::{eventually, free_port};

const PERSONS: &str = "planted-person-9f31c7";
const TARGETS: &str = "planted-target-44b0e2";
const TYPED: &str = "planted-typed-7d25a9";
const VISIBLE: &str = "visible-marker-c0ffee";

/// A secret in the spellings that a dump, a log or an encoding could give it.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut hex = String::new();
    for byte in secret {
        write!(hex, "{byte:02x}").unwrap();
    }
    let decimal = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut all = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), decimal.into_bytes()];
    // In the midst of something else in base64: the characters that depend on the secret alone.
    for before in 0..3 {
        let padded = [&vec![0; before], secret].concat();
        let text = STANDARD_NO_PAD.encode(&padded);
        let first = [0, 2, 3][before];
        let last = padded.len() * 8 / 6;
        all.push(text.as_bytes()[first..last].to_vec());
    }
    all
}

/// What a reader could see in these bytes: they themselves, what is compressed in them, what is spelled in hex as PostgreSQL does.
fn unfold(bytes: &[u8], seen: &mut Vec<Vec<u8>>) {
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    for at in positions(bytes, ZSTD) {
        let mut inside = Vec::new();
        // What follows a frame is none of its; it is read as far as it goes.
        let decoder = zstd::stream::read::Decoder::with_buffer(&bytes[at..]).unwrap();
        let read = std::io::copy(&mut decoder.single_frame(), &mut inside);
        if read.is_ok() || !inside.is_empty() {
            seen.push(inside);
        }
    }
    for at in positions(bytes, b"\\x") {
        let digits: Vec<u8> = bytes[at + 2..].iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap();
        let inside: Vec<u8> =
            digits.chunks_exact(2).map(|pair| u8::try_from(nibble(pair[0]) * 16 + nibble(pair[1])).unwrap()).collect();
        if inside.len() > 8 {
            unfold(&inside, seen);
        }
    }
    seen.push(bytes.to_vec());
}

fn positions(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    let starts = haystack.windows(needle.len()).enumerate();
    starts.filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Every file below a folder, by its path.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    found
}

/// Collects the arguments of all of the program's processes, until told to stop.
fn watch_arguments(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<BTreeSet<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            for process in std::fs::read_dir("/proc").unwrap().flatten() {
                let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                if contains(&line, SALLYPORT.as_bytes()) {
                    seen.insert(line);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        seen
    })
}

async fn no_planted_secret_is_found(stores: Stores) {
    let stop = Arc::new(AtomicBool::new(false));
    let watch = watch_arguments(stop.clone());
    let port = free_port();
    let api = vec![format!("listen = \"127.0.0.1:{port}\"")];
    let scene = Scene::on(stores, Settings { api, log_level: Some("trace"), ..Settings::default() }, &[]).await;
    let bastion = &scene.bastion;

    // A person's password, which logs in, right and wrong.
    std::fs::write(bastion.path("persons"), PERSONS).unwrap();
    bastion.admin(&["person", "password", "alice", "--password-file", "persons"]).await;
    for password in [PERSONS, "planted-person-9f31c7-mistyped"] {
        let proof = ["password", password];
        python_login(&scene.desk, "paramiko_login.py", bastion, &Scene::user(), proof, "true").run().await;
    }
    // A target's password.
    let settings = toy_target::Settings { password: Some(TARGETS.to_owned()), ..toy_target::Settings::default() };
    let toy = ToyTarget::start(settings).await.unwrap();
    std::fs::write(bastion.path("targets"), TARGETS).unwrap();
    let (toy_address, toy_key) = (toy.address().to_string(), toy.host_key().to_openssh().unwrap());
    let login = Sshd::login();
    let by_password = ["--login", &login, "--credential", "password", "--password-file", "targets"];
    let toy_target = ["target", "add", "toy", &toy_address, "--host-key", &toy_key];
    bastion.admin(&[toy_target.as_slice(), &by_password].concat()).await;
    // A target's private key.
    let stored = KeyPair::ed25519();
    let keyed = Sshd::start(&SshdSettings { authorized_keys: vec![stored.public()], ..SshdSettings::default() });
    let credential = format!("key:{}", stored.path().display());
    bastion.add_target_with("keyed", &keyed, &["--credential", &credential]).await;
    for target in ["toy", "keyed"] {
        bastion.grant("alice", target).await;
        let ssh = scene.desk.ssh(&format!("alice+{login}@{target}"), bastion.address()).arg("true");
        ssh.run().await.expect_success();
    }
    // A token, which is used, right and wrong.
    bastion.admin(&["person", "role", "alice", "admin"]).await;
    let token = bastion.admin(&["token", "new", "alice", "--label", "e2e"]).await.trim().to_owned();
    let url = format!("http://127.0.0.1:{port}");
    for sent in [token.clone(), format!("{token}x")] {
        let remote = scene.desk.program(SALLYPORT).args(["person", "ls", "--url", &url]).env("SALLYPORT_TOKEN", &sent);
        assert_eq!(remote.run().await.code() == Some(0), sent == token);
    }
    // A password typed at a prompt that does not echo.
    let mut terminal = scene.ssh().in_terminal(80, 24);
    terminal.wait_for("Recorded.").await;
    terminal.type_keys("read -rs -p 'Pass''word: ' word; echo; echo \"$(echo \"$word\" | wc -c) typed\"\n").await;
    terminal.wait_for("Password: ").await;
    terminal.type_keys(&format!("{TYPED}\n")).await;
    terminal.wait_for(&format!("{} typed", TYPED.len() + 1)).await;
    terminal.type_keys(&format!("echo {VISIBLE}; exit\n")).await;
    terminal.finish().await;
    eventually("all recordings are at rest", async || {
        let all_ended = bastion.sessions().await.iter().all(|session| session["state"] == "ended");
        all_ended && files(&bastion.data().join("journal")).is_empty()
    })
    .await;
    toy.stop().await;
    stop.store(true, Ordering::Relaxed);

    let mut places = vec![("the log".to_owned(), bastion.log().into_bytes())];
    places.extend(watch.join().unwrap().into_iter().map(|line| ("arguments".to_owned(), line)));
    places.extend(files(&bastion.data()));
    if let Stores::Large { database, s3 } = bastion.stores() {
        places.push(("the database".to_owned(), Postgres::dump(database)));
        places.extend(files(&s3.objects()));
    }
    let private = std::fs::read_to_string(stored.path()).unwrap();
    let body: String = private.lines().filter(|line| !line.starts_with('-')).collect();
    let seed = stored.private().key_data().ed25519().unwrap().private.to_bytes();
    let secrets: Vec<(&str, Vec<u8>)> = vec![
        ("the person's password", PERSONS.into()),
        ("the target's password", TARGETS.into()),
        ("the typed password", TYPED.into()),
        ("the token", token.into_bytes()),
        ("the private key's text", body[body.len() - 60..].into()),
        ("the private key", seed.to_vec()),
    ];
    let (mut leaks, mut visible, mut started) = (BTreeSet::new(), false, false);
    for (place, bytes) in &places {
        let mut readable = Vec::new();
        unfold(bytes, &mut readable);
        for text in &readable {
            visible |= contains(text, VISIBLE.as_bytes());
            started |= contains(text, b"The bastion is open.");
            for (what, secret) in &secrets {
                if spellings(secret).iter().any(|spelling| contains(text, spelling)) {
                    leaks.insert(format!("{what} is in {place}"));
                }
            }
        }
    }
    assert_eq!(leaks, BTreeSet::new());
    let arguments = places.iter().filter(|(place, _)| place == "arguments").count();
    assert!(visible && started && arguments > 5, "the search itself is blind: {visible} {started} {arguments}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_found_in_logs_arguments_postgresql_or_s3() {
    no_planted_secret_is_found(Stores::large().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_found_in_logs_arguments_sqlite_or_a_folder() {
    no_planted_secret_is_found(Stores::Small).await;
}
