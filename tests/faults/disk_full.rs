//! A full disk stops sessions; it never stops recording.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Collected, Stores, World, turn};
use crate::support::{self, eventually};

/// A small disk of one's own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where one may not mount.
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = support::temporary_folder();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the small disk is still mounted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_the_reason_when_the_journals_disk_is_full_and_new_ones_work_when_it_is_not() {
    let _turn = turn().await;
    let Some(disk) = SmallDisk::mount(16) else {
        assert!(std::env::var_os("CI").is_none(), "CI must run as somebody who may mount");
        eprintln!("SKIPPED: only root may mount the small disk that this test fills");
        return;
    };
    let world = World::start(&Stores { journal: Some(disk.path().join("journal")), ..Stores::default() }).await;
    world.grant(Duration::from_hours(2)).await;
    const FLOOD: &str = "seq 1 100000000";
    const TERMINAL: &str = "while seq 1 1000; do :; done";

    let flood = Collected::start(world.ssh().arg(FLOOD));
    let terminal = Collected::start(world.ssh().arg("-tt").arg(TERMINAL));
    let (seen, said) = flood.finish().await;
    let (seen_terminal, said_terminal) = terminal.finish().await;

    for said in [format!("{}{said_terminal}", String::from_utf8_lossy(&seen_terminal)), said] {
        let tail = &said[said.len().saturating_sub(300)..];
        assert!(said.contains("No space left on device"), "the client was told {tail:?}");
    }
    world.recorded(FLOOD).await.covers(&seen, FLOOD);
    let recorded = world.recorded(TERMINAL).await;
    // The last words could not be recorded; they are said all the same.
    let words = b"\x18\x1b[0m";
    let end = seen_terminal.windows(words.len()).position(|window| window == words).unwrap_or(seen_terminal.len());
    recorded.covers(&seen_terminal[..end], TERMINAL);
    world.all_ended().await;

    // No room at all: nothing runs without a record.
    let filler = disk.path().join("filler");
    let full = std::fs::write(&filler, vec![0; 32 << 20]);
    assert!(full.is_err());
    let refused = world.ssh().arg("echo unrecorded").run().await;
    assert_eq!((refused.code(), refused.text().as_str()), (Some(254), ""), "{}", refused.errors());
    assert!(refused.errors().contains("nothing runs without a record"), "{}", refused.errors());

    std::fs::remove_file(filler).unwrap();
    eventually("sessions work again", async || world.ssh().arg("echo room").run().await.text() == "room\n").await;
    world.recorded("echo room").await.covers(b"room\n", "echo room");
}
