//! Bytes and files through the bastion, by stock clients, compared by SHA-256 of what arrived.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::bastion::{Scene, Settings, Stores};

const MIB: usize = 1 << 20;

/// How long the largest transfer may take on a slow machine.
const DEADLINE: Duration = Duration::from_mins(8);

/// How much is much.
fn large() -> usize {
    if std::env::var_os("SALLYPORT_TEST_LARGE").is_some() { 1024 * MIB } else { 256 * MIB }
}

/// Makes a file of random bytes; its hash.
fn random_file(path: &Path, length: usize) -> Vec<u8> {
    let mut random = File::open("/dev/urandom").unwrap().take(u64::try_from(length).unwrap());
    std::io::copy(&mut random, &mut File::create(path).unwrap()).unwrap();
    hash_of(path)
}

fn hash_of(path: &Path) -> Vec<u8> {
    let (mut file, mut hash, mut block) = (File::open(path).unwrap(), Sha256::new(), vec![0; MIB]);
    loop {
        let count = file.read(&mut block).unwrap();
        if count == 0 {
            return hash.finalize().to_vec();
        }
        hash.update(&block[..count]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_come_and_go_through_exec_unchanged() {
    let scene = Scene::open().await;
    let (here, there, back) = (scene.bastion.path("here"), scene.bastion.path("there"), scene.bastion.path("back"));
    let hash = random_file(&here, large());

    let up = scene.ssh().arg(format!("cat > {}", there.display())).files(&here, Path::new("/dev/null"));
    up.deadline(DEADLINE).run().await.expect_success();
    let down = scene.ssh().arg(format!("cat {}", here.display())).files(Path::new("/dev/null"), &back);
    down.deadline(DEADLINE).run().await.expect_success();

    assert!(hash_of(&there) == hash, "what went up has changed");
    assert!(hash_of(&back) == hash, "what came down has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_come_and_go_through_sftp_unchanged() {
    let scene = Scene::on(Stores::Small, Settings::default(), &[]).await;
    let (here, there, back) = (scene.bastion.path("here"), scene.bastion.path("there"), scene.bastion.path("back"));
    let hash = random_file(&here, large());

    let batch = format!(
        "put {} {there}\nget {there} {}\nrm {there}\n",
        here.display(),
        back.display(),
        there = there.display()
    );
    let sftp = scene.desk.sftp(&Scene::user(), scene.bastion.address(), &batch).deadline(DEADLINE);
    sftp.run().await.expect_success();

    assert!(hash_of(&back) == hash, "what came back has changed");
    assert!(!there.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_and_rsync_take_the_user_name_as_it_is() {
    let scene = Scene::open().await;
    let here = scene.bastion.path("here");
    let hash = random_file(&here, 3 * MIB);
    let there = |name: &str| scene.bastion.path(name);
    let address = scene.bastion.address();

    for (name, options) in [("scp", vec![]), ("scp-O", vec!["-O"])] {
        let up = scene.desk.scp(address).args(&options).arg(&here).arg(scene.remote(&there(name)));
        up.run().await.expect_success();
        let back = there(&format!("{name}-back"));
        let down = scene.desk.scp(address).args(&options).arg(scene.remote(&there(name))).arg(&back);
        down.run().await.expect_success();
        assert!(hash_of(&there(name)) == hash && hash_of(&back) == hash, "{name}");
    }
    let (synced, back) = (there("rsync"), there("rsync-back"));
    scene.desk.rsync(address).arg(&here).arg(scene.remote(&synced)).run().await.expect_success();
    scene.desk.rsync(address).arg(scene.remote(&synced)).arg(&back).run().await.expect_success();
    assert!(hash_of(&synced) == hash && hash_of(&back) == hash, "rsync");
}
