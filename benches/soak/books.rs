//! What the database says: how far it is behind while sessions go on, and whether it holds everything once they are over.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sallyport_domain::recording::frame::Frame;
use sqlx::PgPool;

use crate::client::Office;

const LEDGER_LAG: &str = "SELECT count(*), min(e.at) FROM ledger_pending p JOIN events e ON e.seq = p.seq";
/// Live recordings of floods (a command is stored as its bytes), which always have something new, with the newest frames of each that the database has.
const NEWEST: &str = "SELECT r.started_at,
        (SELECT t.frames FROM live_tail t WHERE t.recording_id = r.id ORDER BY t.number DESC LIMIT 1),
        (SELECT max(s.end_us) FROM segments s WHERE s.recording_id = r.id)
     FROM recordings r WHERE r.ended_at IS NULL AND r.program LIKE '%[102,108,111,111,100,%'";
const SEALED: &str = "SELECT count(*) FROM events WHERE kind = 'session_sealed'";
const PENDING: &str = "SELECT count(*) FROM ledger_pending";
/// How often each kind of event is there.
const KINDS: &str = "SELECT kind, count(*) FROM events GROUP BY kind";
const WRONG_ENDS: &str = "SELECT count(*) FROM sessions WHERE ending IS NULL OR ending NOT LIKE '%client_closed%'";
const WRONG_RECORDINGS: &str = "SELECT count(*) FROM recordings WHERE ended_at IS NULL OR gaps > 0";
const BYTES: &str = "SELECT coalesce(sum(bytes_out), 0)::bigint FROM recordings";
const PLACES: &str = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM ledger_order)";

type Newest = (DateTime<Utc>, Option<Vec<u8>>, Option<i64>);

/// The bastion's database, seen from beside it.
pub(crate) struct Books(PgPool);

impl Books {
    pub(crate) async fn open(url: &str) -> Self {
        Self(PgPool::connect(url).await.expect("a connection to PostgreSQL"))
    }

    /// How many events have no place in the ledger yet, and how long the oldest has been waiting, in seconds.
    pub(crate) async fn ledger_lag(&self, now: DateTime<Utc>) -> (i64, f64) {
        let found: (i64, Option<DateTime<Utc>>) =
            sqlx::query_as(LEDGER_LAG).fetch_one(&self.0).await.expect("an answer");
        (found.0, found.1.map_or(0.0, |oldest| seconds(now - oldest)))
    }

    /// How old the newest frame is that the database has, of the live recording that is furthest behind, in seconds.
    pub(crate) async fn recording_lag(&self, now: DateTime<Utc>) -> f64 {
        let found: Vec<Newest> = sqlx::query_as(NEWEST).fetch_all(&self.0).await.expect("an answer");
        let lag = |(started, tail, sealed): Newest| {
            let tail = tail.and_then(|frames| last_instant(frames.into())).unwrap_or(0);
            let known = tail.max(sealed.map_or(0, i64::cast_unsigned));
            seconds(now - started) - known as f64 / 1e6
        };
        found.into_iter().map(lag).fold(0.0, f64::max)
    }

    /// Whether every session is sealed and every event has its place.
    pub(crate) async fn at_rest(&self, sessions: usize) -> bool {
        self.count(SEALED).await >= sessions as i64 && self.count(PENDING).await == 0
    }

    /// What is not as it was done.
    pub(crate) async fn faults(&self, sessions: usize, office: &Office) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |what: &str, expected: i64, found: i64| {
            println!("{what}: {found}");
            if found != expected {
                faults.push(format!("{what}: {found}, and not {expected}"));
            }
        };
        let sessions = sessions as i64;
        let kinds: Vec<(String, i64)> = sqlx::query_as(KINDS).fetch_all(&self.0).await.expect("an answer");
        let kind = |name: &str| kinds.iter().find(|(kind, _)| kind == name).map_or(0, |(_, count)| *count);
        for name in
            ["logged_in", "session_opened", "recording_started", "recording_ended", "session_ended", "session_sealed"]
        {
            expect(&format!("events `{name}`"), sessions, kind(name));
        }
        expect("events `session_cut`", 0, kind("session_cut"));
        expect("events `denied`", 0, kind("denied"));
        expect("events `file_operation`", office.files.load(Ordering::Relaxed) as i64, kind("file_operation"));
        expect("sessions that did not end as they should", 0, self.count(WRONG_ENDS).await);
        expect("recordings with a gap or without an end", 0, self.count(WRONG_RECORDINGS).await);
        // What every client has received and compared is what was recorded, to the byte.
        expect("bytes of recorded output", office.received.load(Ordering::Relaxed) as i64, self.count(BYTES).await);
        let (events, places): (i64, i64) = sqlx::query_as(PLACES).fetch_one(&self.0).await.expect("an answer");
        expect("events in the ledger", events, places);
        faults
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.0).await.expect("an answer")
    }
}

fn seconds(time: chrono::TimeDelta) -> f64 {
    time.num_milliseconds() as f64 / 1e3
}

/// When the last frame of a run happened, in microseconds of its recording.
fn last_instant(mut frames: Bytes) -> Option<u64> {
    let mut last = None;
    while let Ok(Some(frame)) = Frame::take(&mut frames) {
        last = Some(frame.at);
    }
    last
}
