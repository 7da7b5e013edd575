//! Files under a grant, by stock clients and two ways in: with the target in the user name, and through a jump. What the
//! grant does not allow is stopped and says why; what it allows is told, with the SHA-256 of what is on the target.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::keys::PublicKey;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::bastion::{Scene, Settings, Stores};
use crate::support::clients::{Output, Run};
use crate::support::eventually;
use crate::support::sshd::Sshd;

/// The two ways to the target: hosts of the desk's configuration.
pub const WAYS: [&str; 2] = ["direct", "web-1"];

/// The usual scene under a grant with these options alone.
pub async fn scene(options: &[&str]) -> Scene {
    let scene = Scene::on(Stores::Small, Settings::default(), &[]).await;
    let grants = scene.bastion.ask(&["grant", "ls"]).await;
    let usual = grants["items"][0]["id"].as_str().unwrap();
    scene.bastion.admin(&["grant", "revoke", usual, "--reason", "another one"]).await;
    let new = ["grant", "new", "alice", "web-1", "--for", "1h", "--reason", "e2e"];
    scene.bastion.admin(&[&new, options].concat()).await;
    let ca = scene.bastion.admin(&["ca", "host"]).await;
    let key = ca.trim().strip_prefix("@cert-authority * ").expect("a line for known_hosts");
    scene.desk.trust_ca(&PublicKey::from_openssh(key).unwrap());
    let address = scene.bastion.address();
    scene.desk.configure(&format!(
        "Host direct\nHostName {ip}\nPort {port}\nUser {}\nHost sallyport\nHostName {ip}\nPort {port}\nUser alice\n\
         Host web-1\nProxyJump sallyport\nUser {}",
        Scene::user(),
        Sshd::login(),
        ip = address.ip(),
        port = address.port(),
    ));
    scene
}

pub fn client(scene: &Scene, program: &str) -> Run {
    scene.desk.program(program).arg("-F").arg(scene.desk.config())
}

async fn sftp(scene: &Scene, way: &str, batch: &str) -> Output {
    client(scene, "sftp").args(["-b", "-", way]).input(batch).run().await
}

fn rsync(scene: &Scene) -> Run {
    scene.desk.program("rsync").arg("-e").arg(format!("ssh -F {}", scene.desk.config().display()))
}

/// Every stock client that copies one file, `from` to `to`.
fn copiers(scene: &Scene, from: &str, to: &str) -> Vec<(&'static str, Run)> {
    let pair = |run: Run| run.arg(from).arg(to);
    vec![
        ("scp", pair(client(scene, "scp"))),
        ("scp -O", pair(client(scene, "scp").arg("-O"))),
        ("rsync", pair(rsync(scene))),
    ]
}

fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}

fn hash_of(path: &Path) -> String {
    hash(&std::fs::read(path).unwrap())
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Content that no two calls share and that does not compress.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What the latest session did to files, once it has ended.
async fn told(scene: &Scene) -> Vec<Value> {
    eventually("the session has ended", async || scene.bastion.sessions().await[0]["ended_at"].is_string()).await;
    let id = scene.bastion.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let files = scene.bastion.ask(&["session", "files", &id, "--limit", "5000"]).await;
    files["items"].as_array().unwrap().clone()
}

fn expect_refused(what: &str, output: &Output, why: &str) {
    assert_ne!(output.code(), Some(0), "{what}");
    assert!(output.errors().contains(why), "{what}: {}", output.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_grant_for_uploads_nothing_comes_out_and_everything_goes_in() {
    let why = "the grant does not allow downloads";
    for way in WAYS {
        let scene = scene(&["--allow", "exec,upload", "--terminal-bytes", "64KiB"]).await;
        let (secret, back) = (scene.bastion.path("secret"), scene.bastion.path("back"));
        write(&secret, &content(1, 1 << 20));
        let got = sftp(&scene, way, &format!("get {} {}\n", secret.display(), back.display())).await;
        expect_refused("sftp", &got, why);
        assert_eq!(told(&scene).await[0]["result"], "denied");
        for (name, copy) in copiers(&scene, &format!("{way}:{}", secret.display()), &back.display().to_string()) {
            expect_refused(&format!("{name} by {way}"), &copy.run().await, why);
        }
        assert!(!back.exists() || std::fs::read(&back).unwrap().is_empty());

        let little = client(&scene, "ssh").arg(way).arg(format!("head -c 30000 {}", secret.display())).run().await;
        assert_eq!(little.expect_success().stdout.len(), 30000);
        let shown = client(&scene, "ssh").arg(way).arg(format!("cat {}", secret.display())).run().await;
        expect_refused("cat", &shown, "the grant lets 65536 bytes out through terminals and commands");
        assert_eq!(shown.code(), Some(1));
        assert!(shown.stdout.len() <= 65536 - 30000, "{} bytes came out", shown.stdout.len());

        let (here, there) = (scene.bastion.path("here"), scene.bastion.path("there"));
        write(&here, &content(2, 300_000));
        let arrived = |name: &str| {
            assert_eq!(hash_of(&there), hash_of(&here), "{name} by {way}");
            std::fs::remove_file(&there).unwrap();
        };
        sftp(&scene, way, &format!("put {} {}\n", here.display(), there.display())).await.expect_success();
        arrived("sftp");
        for (name, copy) in copiers(&scene, &here.display().to_string(), &format!("{way}:{}", there.display())) {
            copy.run().await.expect_success();
            arrived(name);
        }
        let synced = told(&scene).await;
        let last = synced.last().unwrap();
        assert_eq!((last["what"].as_str(), last["direction"].as_str()), (Some("sync"), Some("upload")));
        let path = there.display().to_string();
        assert_eq!((synced[0]["path"].as_str(), synced[0]["sha256"].as_str()), (Some(&*path), Some(&*hash_of(&here))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_needs_no_leave_to_run_commands_and_gives_none() {
    let scene = scene(&["--allow", "upload"]).await;
    let (here, there) = (scene.bastion.path("here"), scene.bastion.path("there"));
    write(&here, b"content");
    for way in WAYS {
        for (name, copy) in copiers(&scene, &here.display().to_string(), &format!("{way}:{}", there.display())) {
            copy.run().await.expect_success();
            assert!(there.exists(), "{name} by {way}");
            std::fs::remove_file(&there).unwrap();
        }
        let command = client(&scene, "ssh").arg(way).arg("id").run().await;
        expect_refused("id", &command, "the grant does not allow running commands");
        let hidden = client(&scene, "ssh").arg(way).arg(format!("scp -t {}; id", there.display())).run().await;
        expect_refused("a command behind scp", &hidden, "the grant does not allow running commands");
    }
    // Whoever may run commands but move no files does not move them by scp's own protocol either.
    let shown = scene.bastion.ask(&["grant", "ls"]).await;
    scene.bastion.admin(&["grant", "revoke", shown["items"][0]["id"].as_str().unwrap(), "--reason", "other"]).await;
    scene.bastion.admin(&["grant", "new", "alice", "web-1", "--for", "1h", "--reason", "e2e", "--allow", "exec"]).await;
    let copied = client(&scene, "scp").arg("-O").arg(&here).arg(format!("direct:{}", there.display())).run().await;
    expect_refused("scp -O", &copied, "the grant does not allow uploads");
    assert!(!there.exists());
}

/// A name that shells, terminals or parsers may stumble over.
fn odd_name(number: usize, with_line_feeds: bool) -> OsString {
    let odd: &[u8] = match number % 10 {
        1 => b"with space ",
        2 => "größe-漢字-".as_bytes(),
        3 => b"-rf",
        4 => b"*?[a] ",
        5 => b"$(touch x);'\"`",
        6 => b"back\\slash",
        7 => b"not \xff utf-8 \xc3",
        8 if with_line_feeds => b"two\nlines\r",
        _ => b"file",
    };
    OsString::from_vec([odd, number.to_string().as_bytes()].concat())
}

/// A path as it is told: what is not plainly readable is escaped.
fn as_told(path: &Path) -> String {
    let mut told = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => told.push_str("\\\\"),
                '\n' => told.push_str("\\x0a"),
                '\r' => told.push_str("\\x0d"),
                plain => told.push(plain),
            }
        }
        chunk.invalid().iter().for_each(|byte| write!(told, "\\x{byte:02x}").unwrap());
    }
    told
}

/// Each file of a folder, as it is told: its path, SHA-256 and bytes.
fn in_folder(folder: &Path) -> BTreeMap<String, (String, u64)> {
    let told = |path: PathBuf| (as_told(&path), (hash_of(&path), path.metadata().unwrap().len()));
    std::fs::read_dir(folder).unwrap().map(|entry| told(entry.unwrap().path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sha_256_that_is_told_is_that_of_the_file_on_the_target() {
    let count = if std::env::var_os("SALLYPORT_TEST_LARGE").is_some() { 1000 } else { 100 };
    let scene = scene(&["--allow", "upload"]).await;
    let here = |with_line_feeds: bool| {
        let here = scene.bastion.path(if with_line_feeds { "any" } else { "lines" });
        std::fs::create_dir(&here).unwrap();
        for number in 0..count {
            let length = match number % 10 {
                0 => 0,
                9 => 2_000_000 + number * 1_003,
                digit => 7_usize.pow(u32::try_from(digit).unwrap()) % 300_007 + number,
            };
            write(&here.join(odd_name(number, with_line_feeds)), &content(number as u64, length));
        }
        here
    };
    // scp's old protocol has no way to say a name with a line feed: OpenSSH's client sends another name.
    let (any, lines) = (here(true), here(false));
    let there = scene.bastion.path("there");
    let patient = |run: Run| run.deadline(Duration::from_mins(5));
    for (way, name) in [("direct", "scp"), ("web-1", "scp -O"), ("web-1", "sftp"), ("direct", "rsync")] {
        let here = if name == "scp -O" { &lines } else { &any };
        let remote = format!("{way}:{}", there.display());
        let run = match name {
            "sftp" => {
                std::fs::create_dir(&there).unwrap();
                let batch = format!("put -r {} {}\n", here.display(), there.display());
                client(&scene, "sftp").args(["-b", "-", way]).input(batch)
            }
            "rsync" => rsync(&scene).arg("-r").arg(format!("{}/", here.display())).arg(remote),
            "scp -O" => client(&scene, "scp").args(["-O", "-r"]).arg(here).arg(remote),
            _ => client(&scene, "scp").arg("-r").arg(here).arg(remote),
        };
        patient(run).run().await.expect_success();

        let found = in_folder(&if name == "sftp" { there.join("any") } else { there.clone() });
        assert_eq!(found.len(), count, "{name}");
        let told = told(&scene).await;
        let transfers = told.iter().filter(|file| file["what"] == "transfer").map(|file| {
            assert_eq!((&file["result"], &file["partial"]), (&"done".into(), &false.into()), "{file}");
            let text = |member: &str| file[member].as_str().unwrap().to_owned();
            (text("path"), (text("sha256"), file["bytes"].as_u64().unwrap()))
        });
        assert_eq!(transfers.collect::<BTreeMap<_, _>>(), found, "{name} by {way}");
        std::fs::remove_dir_all(&there).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_grant_for_downloads_nothing_is_written_renamed_removed_or_changed() {
    let scene = scene(&["--allow", "download"]).await;
    let (file, other) = (scene.bastion.path("file"), scene.bastion.path("other"));
    write(&file, b"as it was");
    let (file, other) = (file.display(), other.display());
    let sneaky = [
        format!("put {file} {other}"),
        format!("rename {file} {other}"),
        format!("rm {file}"),
        format!("chmod 777 {file}"),
        format!("mkdir {other}"),
        format!("symlink {file} {other}"),
        format!("ln {file} {other}"),
        format!("copy {file} {other}"),
    ];
    for way in WAYS {
        for command in &sneaky {
            expect_refused(
                command,
                &sftp(&scene, way, &format!("{command}\n")).await,
                "the grant does not allow uploads",
            );
        }
        for (name, copy) in copiers(&scene, &file.to_string(), &format!("{way}:{other}")) {
            expect_refused(name, &copy.run().await, "the grant does not allow uploads");
        }
        let back = scene.bastion.path("back");
        sftp(&scene, way, &format!("get {file} {}\n", back.display())).await.expect_success();
        assert_eq!(std::fs::read(&back).unwrap(), b"as it was");
        let got = told(&scene).await;
        assert_eq!((got[0]["direction"].as_str(), got[0]["bytes"].as_u64()), (Some("download"), Some(9)));
        assert_eq!(got[0]["sha256"].as_str(), Some(hash_of(&back).as_str()));
    }
    let file = scene.bastion.path("file");
    assert_eq!(std::fs::read(&file).unwrap(), b"as it was");
    assert!(!scene.bastion.path("other").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_held_against_where_a_path_leads() {
    let usual = scene(&["--allow", "shell"]).await;
    let inside = usual.bastion.path("in");
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(inside.join("sub")).unwrap();
    let glob = format!("{}/**", inside.display());
    let new = ["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "e2e", "--allow", "upload"];
    usual.bastion.admin(&[&new[..], &["--upload-path", &glob]].concat()).await;
    let shown = usual.bastion.admin(&["grant", "ls", "--json"]).await;
    assert!(shown.contains(&glob), "{shown}");
    let here = usual.bastion.path("here");
    write(&here, b"content");
    let put = |to: &str| format!("put {} {to}\n", here.display());
    for way in WAYS {
        for to in [format!("{}/x", inside.display()), format!("{}/sub/../y", inside.display())] {
            sftp(&usual, way, &put(&to)).await.expect_success();
        }
        for to in [
            usual.bastion.path("out").display().to_string(),
            format!("{}/../out", inside.display()),
            format!("{}/sub/../../out", inside.display()),
            format!("{}//./../out", inside.display()),
            "out-at-home".to_owned(),
        ] {
            expect_refused(&to, &sftp(&usual, way, &put(&to)).await, "the grant does not allow uploads here");
        }
        let uncheckable = rsync(&usual).arg(&here).arg(format!("{way}:{}/z", inside.display())).run().await;
        expect_refused("rsync", &uncheckable, "the grant has rules for each file");
    }
    assert!(inside.join("x").exists() && inside.join("y").exists() && !usual.bastion.path("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_uploads_only_listed_contents_stay() {
    let folder = crate::support::temporary_folder();
    let (good, evil, list) = (folder.path().join("good"), folder.path().join("evil"), folder.path().join("SHA256SUMS"));
    write(&good, &content(1, 500_000));
    write(&evil, &content(2, 500_000));
    write(&list, format!("{}  good\n", hash_of(&good)).as_bytes());
    let scene = scene(&["--allow", "upload", "--upload-sha256", &list.display().to_string()]).await;
    for way in WAYS {
        let (kept, gone) = (scene.bastion.path("kept"), scene.bastion.path("gone"));
        sftp(&scene, way, &format!("put {} {}\n", good.display(), kept.display())).await.expect_success();
        assert_eq!(hash_of(&kept), hash_of(&good));
        let refused = sftp(&scene, way, &format!("put {} {}\n", evil.display(), gone.display())).await;
        expect_refused("what is not listed", &refused, "is not on the grant's list");
        assert!(!gone.exists());
        let told = told(&scene).await;
        assert_eq!((&told[0]["result"], told[0]["sha256"].as_str()), (&"denied".into(), Some(hash_of(&evil).as_str())));

        // A client that goes in the middle leaves nothing behind.
        let upload = client(&scene, "sftp").args(["-l", "800", "-b", "-", way]);
        let half = scene.bastion.path("half");
        let upload = tokio::spawn(upload.input(format!("put {} {}\n", evil.display(), half.display())).run());
        eventually("a part has arrived", async || half.metadata().is_ok_and(|file| file.len() > 0)).await;
        upload.abort();
        let _ = upload.await;
        eventually("what was left is gone", async || !half.exists()).await;
        std::fs::remove_file(&kept).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_for_a_file_and_for_the_life_of_the_grant() {
    let options = ["--allow", "upload,download", "--upload-bytes", "2750000", "--file-bytes", "700KiB"];
    let mut scene = scene(&options).await;
    let (small, large, tiny) = (scene.bastion.path("small"), scene.bastion.path("large"), scene.bastion.path("tiny"));
    write(&small, &content(1, 500_000));
    write(&large, &content(2, 800_000));
    write(&tiny, &content(3, 60_000));
    let (there, back) = (scene.bastion.path("there"), scene.bastion.path("back"));
    let put = |from: &Path| format!("put {} {}\n", from.display(), there.display());
    let spent = "uploads of 2750000 bytes in all, and they are spent";
    for way in WAYS {
        let refused = sftp(&scene, way, &put(&large)).await;
        expect_refused("a large file", &refused, "uploads of at most 716800 bytes a file");
        assert!(refused.errors().contains("(reference "), "{}", refused.errors());
        let refused = sftp(&scene, way, &format!("get {} {}\n", large.display(), back.display())).await;
        expect_refused("a large file out", &refused, "downloads of at most 716800 bytes a file");
        // One session after the other, of one grant.
        sftp(&scene, way, &put(&small)).await.expect_success();
    }
    let mut more = sftp(&scene, "direct", &put(&small)).await;
    for _ in 0..5 {
        if more.code() == Some(0) {
            more = sftp(&scene, "direct", &put(&small)).await;
        }
    }
    expect_refused("one too many", &more, spent);
    for (name, copy) in copiers(&scene, &small.display().to_string(), &format!("direct:{}", there.display())) {
        // rsync's stream is never judged file by file.
        let why = if name == "rsync" { "the grant has rules for each file" } else { spent };
        expect_refused(name, &copy.run().await, why);
    }
    expect_refused("sftp", &sftp(&scene, "web-1", &put(&small)).await, spent);

    scene.bastion.kill();
    scene.bastion.open().await;

    expect_refused("sftp, after a crash", &sftp(&scene, "direct", &put(&tiny)).await, spent);
    sftp(&scene, "direct", &format!("get {} {}\n", small.display(), back.display())).await.expect_success();
    let shown = scene.bastion.admin(&["grant", "ls", "--json"]).await;
    assert!(shown.contains("716800"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_grants_the_one_counts_that_allows_what_is_asked() {
    let scene = scene(&["--allow", "download"]).await;
    // The other way, for longer.
    let new = ["grant", "new", "alice", "web-1", "--for", "2h", "--reason", "e2e", "--allow", "upload"];
    scene.bastion.admin(&new).await;
    let (here, there, back) = (scene.bastion.path("here"), scene.bastion.path("there"), scene.bastion.path("back"));
    write(&here, &content(1, 100_000));
    for way in WAYS {
        let remote = format!("{way}:{}", there.display());
        for old in [true, false] {
            let copy = |from: &str, to: &str| {
                let run = if old { client(&scene, "scp").arg("-O") } else { rsync(&scene) };
                run.arg(from).arg(to).run()
            };
            copy(&here.display().to_string(), &remote).await.expect_success();
            copy(&remote, &back.display().to_string()).await.expect_success();
            assert_eq!((hash_of(&there), hash_of(&back)), (hash_of(&here), hash_of(&here)));
            for file in [&there, &back] {
                std::fs::remove_file(file).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_list_of_contents_each_client_is_told_which_one_will_do() {
    let listed = hash(b"listed");
    let scene = scene(&["--allow", "upload", "--upload-sha256", &listed]).await;
    let (here, there) = (scene.bastion.path("here"), scene.bastion.path("there"));
    write(&here, b"listed");
    for way in WAYS {
        let remote = format!("{way}:{}", there.display());
        let old = client(&scene, "scp").arg("-O").arg(&here).arg(&remote).run().await;
        expect_refused("scp -O", &old, "cannot take back one that is not: use sftp");
        let synced = rsync(&scene).arg(&here).arg(&remote).run().await;
        expect_refused("rsync", &synced, "is not safe to judge by: use sftp");
        let new = client(&scene, "scp").arg(&here).arg(&remote).run().await;
        expect_refused("scp", &new, "use `put` of sftp");
        for refused in [&old, &synced, &new] {
            assert!(refused.errors().contains("reference "), "{}", refused.errors());
        }
        assert!(!there.exists());
        sftp(&scene, way, &format!("put {} {}\n", here.display(), there.display())).await.expect_success();
        std::fs::remove_file(&there).unwrap();
    }
}

/// Every file below `folder`, by its path from there: its SHA-256 and its length.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (String, u64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let told = (hash_of(&path), path.metadata().unwrap().len());
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), told);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_run_of_rsync_each_file_is_told_of_with_its_sha_256() {
    let scene = scene(&["--allow", "upload,download"]).await;
    let (here, there, back) = (scene.bastion.path("here"), scene.bastion.path("there"), scene.bastion.path("back"));
    for (number, folder) in ["", "a", "a/b c", "a.d", "é", "a/b c/deep"].into_iter().enumerate() {
        std::fs::create_dir_all(here.join(folder)).unwrap();
        for file in 0..12 {
            let length = [0, 1, 700, 40_000, 300_000][(number + file) % 5];
            write(&here.join(folder).join(format!("f-{file}")), &content((number * 100 + file) as u64, length));
        }
    }
    let expected = tree(&here);
    let all = ["-a", "-rlt", "-ac", "-a --no-inc-recursive", "-rt --delete --numeric-ids", "-aU", "-aW"];
    for (number, options) in all.into_iter().enumerate() {
        let way = WAYS[number % 2];
        for folder in [&there, &back] {
            let _new: std::io::Result<()> = std::fs::remove_dir_all(folder);
        }
        let remote = format!("{way}:{}/", there.display());
        for (from, to, place) in
            [(format!("{}/", here.display()), remote.clone(), &there), (remote, back.display().to_string(), &there)]
        {
            rsync(&scene).args(options.split(' ')).arg(from).arg(to).run().await.expect_success();
            let told = told(&scene).await;
            let sync = told.last().unwrap();
            assert_eq!((&sync["what"], &sync["reason"]), (&"sync".into(), &Value::Null), "{options}");
            let told: BTreeMap<PathBuf, (String, u64)> = told
                .iter()
                .filter(|file| file["what"] == "transfer")
                .map(|file| {
                    assert_eq!((&file["result"], &file["partial"]), (&"done".into(), &false.into()), "{file}");
                    let path = Path::new(file["path"].as_str().unwrap()).strip_prefix(place).unwrap().to_owned();
                    (path, (file["sha256"].as_str().unwrap().to_owned(), file["bytes"].as_u64().unwrap()))
                })
                .collect();
            assert_eq!(told, expected, "{options}");
        }
        assert_eq!(tree(&back), expected, "{options}");
    }

    rsync(&scene)
        .args(["-az", "--ignore-times"])
        .arg(&here)
        .arg(format!("direct:{}", there.display()))
        .run()
        .await
        .expect_success();
    let compressed = told(&scene).await;
    assert_eq!(compressed.len(), 1);
    assert!(compressed[0]["reason"].as_str().unwrap().contains("compressed"), "{}", compressed[0]);
}
