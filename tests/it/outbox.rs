//! What is told outside, by a whole bastion: events and commands of real sessions, metrics that grow.

use serde_json::Value;

use crate::bastion::Bastion;
use crate::support::eventually;

async fn records(path: &std::path::Path) -> Vec<Value> {
    let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_follow_the_end_of_their_recording_as_chosen_and_no_transcript_goes_out() {
    let folder = crate::support::temporary_folder();
    let place = |name: &str| folder.path().join(name);
    let lists = format!(
        "[[outbox]]\nname = 'full'\nkind = 'file'\npath = '{}'\ncommands = 'full'\nbatch = 3\n\
         [[outbox]]\nname = 'redacted'\nkind = 'file'\npath = '{}'\ncommands = 'redacted'\n\
         [[outbox]]\nname = 'off'\nkind = 'file'\npath = '{}'\n",
        place("full").display(),
        place("redacted").display(),
        place("off").display()
    );
    let bastion = Bastion::configured(&lists).await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    for number in 0..3 {
        let run = bastion.ssh(&alice, "web-1").arg(format!("echo --token=hidden{number} printed")).run().await;
        assert!(String::from_utf8_lossy(&run.stdout).contains("printed"));
    }

    eventually("all of it is told", async || {
        let all = records(&place("off")).await;
        all.iter().filter(|record| record["kind"] == "session_sealed").count() == 3
            && bastion.standings().await.iter().all(|one| one.waiting == 0)
    })
    .await;

    let (full, redacted, off) =
        (records(&place("full")).await, records(&place("redacted")).await, records(&place("off")).await);
    let commands = |all: &[Value]| -> Vec<String> {
        let commands = all.iter().filter(|record| record["kind"] == "command");
        commands.map(|record| record["command"]["text"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(commands(&full), [0, 1, 2].map(|number| format!("echo --token=hidden{number} printed")));
    assert_eq!(commands(&redacted), vec!["echo --token *"; 3]);
    assert_eq!(commands(&off), Vec::<String>::new());
    assert!(off.iter().chain(&redacted).all(|record| !record.to_string().contains("hidden")));
    let order = |all: &[Value]| -> Vec<(u64, u64)> {
        all.iter().map(|record| (record["seq"].as_u64().unwrap(), record["part"].as_u64().unwrap())).collect()
    };
    assert!(order(&full).is_sorted_by(|a, b| a < b), "{:?}", order(&full));
    let events = |all: &[Value]| order(all).into_iter().filter(|(_, part)| *part == 0).collect::<Vec<_>>();
    assert_eq!(events(&full), (0..off.len() as u64).map(|seq| (seq, 0)).collect::<Vec<_>>());
    let ended = full.iter().position(|record| record["kind"] == "recording_ended").unwrap();
    assert_eq!((&full[ended + 1]["kind"], &full[ended + 1]["seq"]), (&"command".into(), &full[ended]["seq"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_is_in_the_metrics_and_a_sound_node_is_ready() {
    let folder = crate::support::temporary_folder();
    let file = folder.path().join("events");
    let lists = format!(
        "[[outbox]]\nname = 'siem'\nkind = 'file'\npath = '{}'\n[metrics]\nlisten = '127.0.0.1:0'\n",
        file.display()
    );
    let bastion = Bastion::configured(&lists).await;
    let alice = bastion.person("alice").await;
    let _toy = bastion.toy("web-1").await;
    bastion.grant(&alice, "web-1").await;
    let get = async |path: &str| {
        let url = format!("http://{}{path}", bastion.metrics_address().unwrap());
        let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    bastion.ssh(&alice, "web-1").arg("true").run().await;

    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get("/readyz").await, (200, "ready\n".to_owned()));
    let mut text = String::new();
    eventually("it is measured", async || {
        text = get("/metrics").await.1;
        text.contains("sallyport_sessions_ended_total{how=\"client_closed\"} 1")
            && text.contains("sallyport_outbox_waiting{destination=\"siem\"} 0")
    })
    .await;
    for line in [
        "sallyport_logins_total{outcome=\"proved\",method=\"publickey\"} 1",
        "sallyport_sessions_opened_total 1",
        "sallyport_sessions_live 0",
        "sallyport_target_connect_seconds_count 1",
        "sallyport_database_up 1",
        "sallyport_ready 1",
        "sallyport_journal_writable 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
    }
    for name in ["alice", "web-1", "127.0.0.1"] {
        assert!(!text.contains(name), "{name} in {text}");
    }

    let listed = bastion.sallyport(&["outbox", "ls", "--json"]).output().await.unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["node"]),
        (&"siem".into(), &"test".into()),
        "{listed}"
    );
}
