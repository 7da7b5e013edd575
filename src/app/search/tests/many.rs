//! How long a search takes over very many lines: `make bench-search LINES=10000000`.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::*;
use crate::store::db::DatabaseSettings;
use crate::support::postgres::Postgres;

const A_SESSION: usize = 1000;
const A_BLOCK: usize = 16;

/// The longest that one search in twenty may take, in milliseconds, with the program as it is released.
const P95_MS: f64 = 150.0;

/// Numbers in no order, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// Line `number`, as it comes out of logs, listings and programs.
fn line(number: usize) -> String {
    let dice = &mut Dice(number as u64 ^ 0x5eed);
    let (a, b, c) = (dice.below(256), dice.below(256), dice.below(256));
    let hash = format!("{:08x}{:08x}", dice.below(1 << 31), dice.below(1 << 31));
    let unit = dice.of(&["nginx", "sshd", "kernel", "systemd", "cron", "postgres", "slurmd", "dockerd"]);
    let word = dice.of(&["error", "started", "denied", "timeout", "failed", "ok", "warning", "reloaded"]);
    match dice.below(8) {
        0 => format!(
            "Nov 22 10:{:02}:{:02} gpu-a-{a:03} {unit}[{}]: {word}: connection from 10.{a}.{b}.{c} port {}",
            a % 60,
            b % 60,
            number % 30000,
            1024 + number % 60000
        ),
        1 => {
            format!("-rw-r--r-- 1 root root {} Nov 22 10:12 /var/lib/app-{}/data/{hash}.db", number * 7, number % 5000)
        }
        2 => format!(
            "磁盘空间{}：/data{} 使用率 {}%，{}",
            dice.of(&["不足", "正常", "告警"]),
            a,
            b % 100,
            dice.of(&["请检查", "已恢复", "等待处理"])
        ),
        3 => format!("| {a:>4}  Tesla H100  {b}W / 700W | {c}MiB / 81920MiB | {hash} |"),
        4 => format!(
            "  {number} ?        Ss     0:{:02} /usr/sbin/{unit} --config /etc/{unit}/{word}-{}.conf",
            a % 60,
            number % 900
        ),
        5 => format!("{{\"level\":\"{word}\",\"id\":\"{hash}\",\"addr\":\"10.{a}.{b}.{c}:443\",\"n\":{number}}}"),
        6 => {
            format!("root@gpu-a-{a:03}:/srv/{unit}# systemctl restart {unit} && tail -n {b} /var/log/{unit}/{word}.log")
        }
        _ => format!("marker-{number:09} {word} after {c} ms"),
    }
}

/// The microsecond of line `number` in its recording: seven to a second.
fn at(number: usize) -> u64 {
    (number % A_SESSION) as u64 * 142_857 + 1
}

async fn fill(app: &App, sessions: &[SessionId], lines: usize) {
    let started_at: DateTime<Utc> = app.clock.now();
    let begun = Instant::now();
    for (place, &session) in sessions.iter().enumerate() {
        let id = RecordingId::from_uuid(Uuid::now_v7());
        let mut tx = app.db.write().await.unwrap();
        let new = recordings::NewRecording {
            id,
            session,
            channel: 1,
            program: Program::Shell,
            term: None,
            cols: None,
            rows: None,
            started_at,
            recipients: Vec::new(),
        };
        recordings::insert(&mut tx, &new).await.unwrap();
        let numbers: Vec<usize> = (place * A_SESSION..lines.min((place + 1) * A_SESSION)).collect();
        for (number, chunk) in numbers.chunks(A_BLOCK).enumerate() {
            let lines = chunk.iter().map(|&number| Line { at: at(number), text: line(number) }).collect();
            search::put(&mut tx, id, &Block { kind: Kind::Screen, number: number as u64, lines }).await.unwrap();
        }
        let state = search::Indexed { lines: numbers.len() as u64, ..search::Indexed::default() };
        search::set_state(&mut tx, id, session, &state).await.unwrap();
        tx.commit().await.unwrap();
        if place % 500 == 499 {
            println!("{} lines in {:?}", (place + 1) * A_SESSION, begun.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, and takes its time"]
async fn a_search_over_many_lines_takes_no_time_and_leads_to_the_right_second() {
    let lines: usize =
        std::env::vars().find(|(name, _)| name == "LINES").map_or(1_000_000, |(_, value)| value.parse().unwrap());
    let cluster = Postgres::new();
    let url = cluster.database().await;
    let db = Db::connect(&DatabaseSettings { url, ..DatabaseSettings::default() }).await.unwrap();
    db.migrate().await.unwrap();
    let (_, sessions) = furnish_sessions(&db, (lines as u128).div_ceil(A_SESSION as u128)).await;
    let app = app_on(db);
    fill(&app, &sessions, lines).await;
    let Db::Postgres(pool) = &app.db else { unreachable!("it is PostgreSQL") };
    let size = "SELECT pg_size_pretty(pg_total_relation_size('search_blocks')) || ', of it keys ' || pg_size_pretty(pg_relation_size('search_blocks_by_key'))";
    let size: String = sqlx::query_scalar(size).fetch_one(pool).await.unwrap();
    println!("{lines} lines: {size}");

    let dice = &mut Dice(7);
    let mut pick = |wanted: &str| loop {
        let number = usize::try_from(dice.below(lines as u64)).unwrap();
        let text = line(number);
        if text.contains(wanted) {
            return (number, text);
        }
    };
    let mut searches: Vec<(&str, String, Option<usize>)> = Vec::new();
    for turn in 0..30 {
        let (number, marker) = pick("marker-");
        searches.push(("rare word", marker.split(' ').next().unwrap().to_owned(), Some(number)));
        searches.push(("substring", marker[4..14].to_owned(), None));
        let word = ["systemd", "error", "root", "nginx denied", "Tesla", "\"systemctl restart\""][turn % 6];
        searches.push(("common word", word.to_owned(), None));
        let (_, path) = pick("/var/lib/app-");
        searches.push(("path", path[path.find("/var/lib").unwrap()..].to_owned(), None));
        searches.push(("folder", format!("/var/lib/app-{}/", turn * 17), None));
        let (_, ip) = pick("connection from");
        searches.push((
            "IP address",
            ip[ip.find("10.").unwrap()..].split(' ').next().unwrap_or_default().to_owned(),
            None,
        ));
        searches.push((
            "Chinese",
            ["磁盘空间不足", "空间", "告警", "请检查", "已恢复", "使用率 99%"][turn % 6].to_owned(),
            None,
        ));
        searches.push(("short", ["ok", "ms", "0", "7 Ss", "请", "rw"][turn % 6].to_owned(), None));
        searches.push(("none", format!("zebra{turn}qx"), None));
        searches.push((
            "none, of common parts",
            ["rootnginx", "errorsystemd", "deniedtimeout"][turn % 3].to_owned(),
            None,
        ));
    }
    let mut all: Vec<f64> = Vec::new();
    let mut kinds: std::collections::BTreeMap<&str, Vec<f64>> = std::collections::BTreeMap::new();
    for (kind, words, expected) in searches {
        let begun = Instant::now();
        let page = look(&app, &words, None, 50).await;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        all.push(took);
        kinds.entry(kind).or_default().push(took);
        let hits: Vec<&Hit> = page.sessions.iter().flat_map(|found| &found.hits).collect();
        if let Some(number) = expected {
            assert_eq!((hits.len(), hits[0].at, &hits[0].line), (1, at(number), &line(number)), "{words}");
        }
        assert_eq!(hits.is_empty(), kind.starts_with("none"), "{kind}: {words}");
        assert!(!page.is_partial, "{kind}: {words}");
    }
    let share = |times: &mut Vec<f64>, share: usize| {
        times.sort_by(f64::total_cmp);
        times[(times.len() - 1) * share / 100]
    };
    for (kind, mut times) in kinds {
        println!(
            "{kind:>22}: p50 {:7.1} ms  p95 {:7.1} ms  longest {:7.1} ms",
            share(&mut times, 50),
            share(&mut times, 95),
            share(&mut times, 100)
        );
    }
    let (p50, p95) = (share(&mut all, 50), share(&mut all, 95));
    println!("{lines} lines, {} searches: p50 {p50:.1} ms, p95 {p95:.1} ms", all.len());
    app.db.close().await;
    if cfg!(not(debug_assertions)) {
        assert!(p95 < P95_MS, "p95 {p95:.1} ms");
    }
}
