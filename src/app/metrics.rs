//! What the bastion counts of itself, in the text form that Prometheus reads (OpenMetrics 1.0). One registry a bastion, not one
//! a process, so that several can live in one test.
//!
//! No label names a person, a target, an address or a session: whoever may scrape learns how much goes on, not who does what.
//! The words in labels are ours, or names of destinations from the configuration.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::app::App;
use crate::app::health::Health;
use crate::app::recordings::Recordings;
use crate::store::db::anchors::{self, AnchorState};
use crate::store::db::outbox::{self, Standing};
use crate::store::db::{DbError, ledger};

/// How often what is in the database and on the disk is measured.
const INTERVAL: Duration = Duration::from_secs(2);

/// The database has this long to answer the measurement.
const DEADLINE: Duration = Duration::from_secs(2);

/// What a scrape is answered with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Seconds = Gauge<f64, AtomicU64>;
type One = [(&'static str, &'static str); 1];
type Named = [(&'static str, String); 1];

/// Counters, gauges and histograms of one bastion. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Series>);

/// Every series. Those in seconds that say how old something is are measured by [`watch`].
pub struct Series {
    registry: Registry,
    pub ssh_connections: Gauge,
    /// By `reason`.
    pub ssh_connections_refused: Family<One, Counter>,
    /// By `outcome` and `method`.
    pub logins: Family<[(&'static str, String); 2], Counter>,
    pub denials: Counter,
    pub sessions_live: Gauge,
    pub sessions_opened: Counter,
    /// By `how`.
    pub sessions_ended: Family<One, Counter>,
    pub reviews_due: Gauge,
    pub reviews_overdue: Gauge,
    pub session_open_seconds: Histogram,
    pub target_connect_seconds: Histogram,
    pub recording_store_seconds: Histogram,
    pub http_request_seconds: Histogram,
    pub database_seconds: Histogram,
    /// By `destination`.
    pub outbox_sent: Family<Named, Counter>,
    pub outbox_dropped: Family<Named, Counter>,
    pub outbox_failures: Family<Named, Counter>,
    pub outbox_delivery_seconds: Histogram,
    outbox_waiting: Family<Named, Gauge>,
    outbox_lag: Family<Named, Seconds>,
    recordings_open: Gauge,
    recording_lag: Seconds,
    journal_bytes: Gauge,
    journal_free_bytes: Gauge,
    journal_writable: Gauge,
    ready: Gauge,
    database_up: Gauge,
    /// By `state`.
    database_connections: Family<One, Gauge>,
    ledger_events: Gauge,
    ledger_waiting: Gauge,
    ledger_lag: Seconds,
    /// By `anchor`.
    anchor_age: Family<Named, Seconds>,
    anchor_late: Family<Named, Gauge>,
}

impl Deref for Metrics {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.0
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts one as long as it lives.
pub struct Counted(Gauge);

impl Counted {
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Runs `work` and notes how long it took.
pub async fn timed<T>(histogram: &Histogram, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    histogram.observe(started.elapsed().as_secs_f64());
    done
}

/// Registers under `sallyport_…`.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    #[expect(clippy::too_many_lines, reason = "one line or two for each series")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sallyport");
        let r = &mut registry;
        // From 1 ms to 33 s; doubling, so that a quantile is right within a factor of two.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let version = Family::<One, Gauge>::default();
        version.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        add(r, "build_info", "The version that runs", version);
        let series = Series {
            ssh_connections: add(
                r,
                "ssh_connections",
                "SSH connections, those that have proved nobody too",
                Gauge::default(),
            ),
            ssh_connections_refused: add(
                r,
                "ssh_connections_refused",
                "SSH connections that were closed at once, by reason",
                Family::default(),
            ),
            logins: add(r, "logins", "Logins, by outcome and method", Family::default()),
            denials: add(r, "denials", "Refusals of people who were proved", Counter::default()),
            sessions_live: add(r, "sessions_live", "Sessions that are going on at this node", Gauge::default()),
            sessions_opened: add(r, "sessions_opened", "Sessions that were opened", Counter::default()),
            sessions_ended: add(r, "sessions_ended", "Sessions that have ended, by how", Family::default()),
            reviews_due: add(r, "reviews_due", "Sessions that wait for a review, late ones too", Gauge::default()),
            reviews_overdue: add(r, "reviews_overdue", "Sessions whose review is late", Gauge::default()),
            session_open_seconds: add(
                r,
                "session_open_seconds",
                "From the wish for a session to the decision, in the books",
                seconds(),
            ),
            target_connect_seconds: add(
                r,
                "target_connect_seconds",
                "From the dial of a target to its acceptance of the login",
                seconds(),
            ),
            recording_store_seconds: add(
                r,
                "recording_store_seconds",
                "To bring what is new in a recording to the object store and the database",
                seconds(),
            ),
            http_request_seconds: add(
                r,
                "http_request_seconds",
                "From a request of the API to the beginning of its answer",
                seconds(),
            ),
            database_seconds: add(
                r,
                "database_seconds",
                "One small question of the database, asked every second",
                seconds(),
            ),
            outbox_sent: add(
                r,
                "outbox_sent",
                "Records that a destination has taken from this node",
                Family::default(),
            ),
            outbox_dropped: add(
                r,
                "outbox_dropped",
                "Records that a destination will not take and that were given up",
                Family::default(),
            ),
            outbox_failures: add(r, "outbox_failures", "Tries to deliver that failed", Family::default()),
            outbox_delivery_seconds: add(
                r,
                "outbox_delivery_seconds",
                "One delivery of a batch to a destination",
                seconds(),
            ),
            outbox_waiting: add(
                r,
                "outbox_waiting",
                "Events that a destination has not been told of yet",
                Family::default(),
            ),
            outbox_lag: add(
                r,
                "outbox_lag_seconds",
                "Age of the oldest event that a destination has not been told of yet",
                Family::default(),
            ),
            recordings_open: add(r, "recordings_open", "Recordings that are not at rest yet", Gauge::default()),
            recording_lag: add(
                r,
                "recording_lag_seconds",
                "How far the slowest recording is behind its journal, outside of the journal",
                Seconds::default(),
            ),
            journal_bytes: add(
                r,
                "journal_bytes",
                "Bytes in journals of live recordings that are not at rest",
                Gauge::default(),
            ),
            journal_free_bytes: add(r, "journal_free_bytes", "Bytes free on the journals' disk", Gauge::default()),
            journal_writable: add(r, "journal_writable", "Whether the journals' disk takes bytes", Gauge::default()),
            ready: add(r, "ready", "Whether the node can take somebody new", Gauge::default()),
            database_up: add(r, "database_up", "Whether the database answers", Gauge::default()),
            database_connections: add(
                r,
                "database_connections",
                "Connections to the database, by state; `most` is the limit",
                Family::default(),
            ),
            ledger_events: add(r, "ledger_events", "Events that have a place in the ledger", Gauge::default()),
            ledger_waiting: add(r, "ledger_waiting", "Events that have no place in the ledger yet", Gauge::default()),
            ledger_lag: add(
                r,
                "ledger_lag_seconds",
                "Age of the oldest event that has no place in the ledger yet",
                Seconds::default(),
            ),
            anchor_age: add(
                r,
                "anchor_age_seconds",
                "Since the last checkpoint got from this node to an anchor, or to it was tried",
                Family::default(),
            ),
            anchor_late: add(
                r,
                "anchor_late",
                "Whether an anchor has failed for longer than is borne",
                Family::default(),
            ),
            registry,
        };
        Self(Arc::new(series))
    }

    /// Everything, for a scrape.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => String::new(), // writing to a string does not fail
        }
    }

    /// A login that ended so: `proved` or `refused`.
    pub fn login(&self, outcome: &str, method: &str) {
        self.logins.get_or_create(&[("outcome", outcome.to_owned()), ("method", method.to_owned())]).inc();
    }
}

/// What was last read from the database; ages grow from it while the database is away.
#[derive(Default)]
struct Known {
    events: u64,
    waiting: u64,
    waiting_since: Option<DateTime<Utc>>,
    anchors: Vec<AnchorState>,
    outbox: Vec<Standing>,
}

/// Measures every two seconds until `stop`.
pub async fn watch(app: App, recordings: Recordings, health: Health, node: String, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match tokio::time::timeout(DEADLINE, read(&app)).await {
            Ok(Ok(read)) => known = read,
            Ok(Err(error)) => debug!(%error, "What the database knows could not be measured."),
            Err(_elapsed) => debug!("What the database knows could not be measured in time."),
        }
        known.show(&app, &node);
        show_parts(&app, &recordings, &health);
    }
}

async fn read(app: &App) -> Result<Known, DbError> {
    let mut tx = app.db.read().await?;
    let (waiting, waiting_since) = ledger::waiting(&mut tx).await?;
    Ok(Known {
        events: ledger::size(&mut tx).await?,
        waiting,
        waiting_since,
        anchors: anchors::list(&mut tx).await?,
        outbox: outbox::standings(&mut tx).await?,
    })
}

impl Known {
    fn show(&self, app: &App, node: &str) {
        let metrics = &app.metrics;
        let now = app.clock.now();
        let age = |since: Option<DateTime<Utc>>| since.map_or(0.0, |since| (now - since).as_seconds_f64().max(0.0));
        metrics.ledger_events.set(count(self.events));
        metrics.ledger_waiting.set(count(self.waiting));
        metrics.ledger_lag.set(age(self.waiting_since));
        for anchor in self.anchors.iter().filter(|anchor| anchor.node == node) {
            let label = [("anchor", anchor.name.clone())];
            metrics.anchor_age.get_or_create(&label).set(age(anchor.at.or(anchor.failing_since)));
            metrics.anchor_late.get_or_create(&label).set(i64::from(anchor.late));
        }
        for Standing { state, waiting, oldest_at } in &self.outbox {
            let label = [("destination", state.name.clone())];
            metrics.outbox_waiting.get_or_create(&label).set(count(*waiting));
            metrics.outbox_lag.get_or_create(&label).set(age(*oldest_at));
        }
    }
}

/// What this process knows without asking anybody.
fn show_parts(app: &App, recordings: &Recordings, health: &Health) {
    let metrics = &app.metrics;
    let measured = recordings.measure();
    metrics.recordings_open.set(count(recordings.open_count() as u64));
    metrics.recording_lag.set(measured.lag.as_secs_f64());
    metrics.journal_bytes.set(count(measured.journal_bytes));
    if let Ok(disk) = nix::sys::statvfs::statvfs(&recordings.settings().journal_dir) {
        metrics.journal_free_bytes.set(count(disk.blocks_available().saturating_mul(disk.fragment_size())));
    }
    metrics.journal_writable.set(i64::from(health.is_journal_writable()));
    metrics.database_up.set(i64::from(health.is_database_up()));
    metrics.ready.set(i64::from(health.is_ready()));
    let pool = app.db.pool();
    for (state, number) in [("idle", pool.idle), ("used", pool.used), ("most", pool.most)] {
        metrics.database_connections.get_or_create(&[("state", state)]).set(i64::from(number));
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.login("proved", "publickey");
        metrics.sessions_opened.inc();
        let counted = Counted::new(&metrics.sessions_live);

        let text = metrics.text();
        assert!(text.contains("sallyport_logins_total{outcome=\"proved\",method=\"publickey\"} 1\n"), "{text}");
        assert!(text.contains("sallyport_sessions_opened_total 1\n"));
        assert!(text.contains("sallyport_sessions_live 1\n"));
        assert!(text.contains("sallyport_session_open_seconds_bucket{le=\"0.001\"} 0\n"));
        assert!(text.ends_with("# EOF\n"));
        drop(counted);
        assert!(metrics.text().contains("sallyport_sessions_live 0\n"));
    }

    /// Every series with every label that is there once something happened, as a scrape shows them.
    fn all_names() -> std::collections::BTreeSet<String> {
        let metrics = Metrics::new();
        metrics.login("proved", "publickey");
        for one in [&metrics.ssh_connections_refused, &metrics.sessions_ended] {
            one.get_or_create(&[("reason", "x")]).inc();
        }
        for one in [&metrics.outbox_sent, &metrics.outbox_dropped, &metrics.outbox_failures] {
            one.get_or_create(&[("destination", "x".to_owned())]).inc();
        }
        for one in [&metrics.outbox_lag, &metrics.anchor_age] {
            one.get_or_create(&[("destination", "x".to_owned())]).set(1.0);
        }
        for one in [&metrics.outbox_waiting, &metrics.anchor_late] {
            one.get_or_create(&[("anchor", "x".to_owned())]).set(1);
        }
        metrics.database_connections.get_or_create(&[("state", "used")]).set(1);
        let text = metrics.text();
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        text.lines().filter(|line| !line.starts_with('#')).map(name).collect()
    }

    /// The series that an expression of Prometheus names.
    fn named(expression: &str) -> Vec<String> {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("sallyport_")).map(str::to_owned).collect()
    }

    #[test]
    fn the_dashboard_and_the_alerts_name_series_that_there_are_and_the_dashboard_all_of_them() {
        let all = all_names();
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../deploy/grafana-dashboard.json")).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        let shown: Vec<String> = targets.flat_map(|target| named(target["expr"].as_str().unwrap())).collect();
        // YAML, as far as these rules go: an expression stands on the line of its key.
        let rules = include_str!("../../deploy/prometheus-rules.yml");
        let lines = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
        let asked: Vec<String> = lines.flat_map(named).collect();
        assert!(asked.len() > 10 && rules.matches("- alert: ").count() == rules.matches("summary: ").count());
        for name in shown.iter().chain(&asked) {
            assert!(all.contains(name), "there is no `{name}`");
        }
        for name in &all {
            let family = ["_sum", "_count"].iter().any(|end| name.ends_with(end));
            assert!(family || shown.contains(name), "the dashboard does not show `{name}`");
        }
    }
}
