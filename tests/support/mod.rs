//! What the tests need around the bastion, all of it real: a PostgreSQL cluster, an OpenSSH server, an S3 server, stock SSH
//! clients and keys. Each fixture starts what it needs on a free port or a socket in a temporary folder, waits for a
//! condition with a deadline and never for a time, and takes everything down again, also when a test panics or the
//! test process is killed (see `process`).

#![allow(dead_code, reason = "each test binary takes what it needs from this shared module")]

pub mod clients;
pub mod keys;
pub mod locked_s3;
pub mod oidc;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod rsyslog;
pub mod s3;
pub mod sshd;

use std::time::{Duration, Instant};

/// How long a condition may take before a test fails: generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; fails with `what` after [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// [`until`], for conditions that are asked asynchronously.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port of the loopback address that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A temporary folder whose path is short enough for Unix sockets, and that other users may enter.
pub fn temporary_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("sallyport-").tempdir_in("/tmp").expect("a temporary folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("permissions of a temporary folder");
    folder
}
