//! What is in a recording is what happened: byte for byte, in every form in which it can be read, and nothing of a secret.

use crate::bastion::{Bastion, error_output, input, output};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_reads_and_prints_is_recorded_byte_for_byte() {
    let bastion = Bastion::start().await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;

    let run = bastion.ssh(&alice, "web-1").arg("cat; echo two >&2").input("one\n").run().await.expect_success();

    let frames = bastion.frames(bastion.only_recording().await).await;
    assert_eq!((run.stdout.as_slice(), run.stderr.as_slice()), (&b"one\n"[..], &b"two\n"[..]));
    assert_eq!(output(&frames), run.stdout);
    assert_eq!(error_output(&frames), run.stderr);
    assert_eq!(input(&frames), b"one\n");
}
