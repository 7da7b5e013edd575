//! What the command line does when an answer gets lost on its way: it asks again, by the same name, and the bastion does it once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::cli::Sallyport;

/// Stands in the bastion's place and loses the first `lost` answers to whoever asks for a grant. Gives how many are left to lose.
fn lose_answers(folder: &Path, lost: usize) -> Arc<AtomicUsize> {
    let (shown, real) = (folder.join("socket"), folder.join("real"));
    std::fs::rename(&shown, &real).unwrap();
    let listener = UnixListener::bind(&shown).unwrap();
    let left = Arc::new(AtomicUsize::new(lost));
    let loses = left.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let bastion = UnixStream::connect(&real).await.unwrap();
            tokio::spawn(carry(client, bastion, loses.clone()));
        }
    });
    left
}

async fn carry(mut client: UnixStream, mut bastion: UnixStream, left: Arc<AtomicUsize>) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut is_grant = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(count) if count > 0 => {
                    is_grant |= asked[..count].starts_with(b"POST /api/v1/grants HTTP/1.1");
                    bastion.write_all(&asked[..count]).await.unwrap();
                }
                _ => return,
            },
            read = bastion.read(&mut answered) => match read {
                Ok(count) if count > 0 => {
                    let lose = || left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
                    if is_grant && lose().is_ok() {
                        return; // it is done, and nobody hears of it
                    }
                    client.write_all(&answered[..count]).await.unwrap();
                }
                _ => return,
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_answer_gets_lost_is_made_once() {
    let sallyport = Sallyport::start().await.with_alice_and_web_1().await;
    let left = lose_answers(sallyport.folder.path(), 2);

    let given = sallyport.ok("grant new alice web-1 --for 2h --reason INC-7").await;

    let listed: Value = serde_json::from_str(&sallyport.ok("grant ls --json").await).unwrap();
    assert!(given.contains("alice+root@web-1"), "{given}");
    assert_eq!((listed["items"].as_array().unwrap().len(), left.load(Ordering::Acquire)), (1, 0));
}
