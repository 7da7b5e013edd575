//! Logs, to stderr: lines for people or JSON for a collector. And traces, where they are wanted. Events are neither; see `app::audit`.

pub(crate) mod traces;

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use self::traces::Traces;
pub use self::traces::{TraceError, TraceSettings};
use crate::spans;

/// `[log]` in `sallyport.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug` or `trace`; or one per part, as in `info,sallyport::ssh=debug`.
    pub level: String,
    pub format: LogFormat,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("`log.level` is not usable: {message}")]
    Level { message: String },
    #[error("the log was started before")]
    StartedAlready,
    #[error("there can be no traces")]
    Traces(#[from] TraceError),
}

impl LogSettings {
    fn filter(&self) -> Result<EnvFilter, String> {
        // The library takes a level that it does not know for the name of a part, and then logs nothing else.
        let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let level_of = |part: &str| part.rsplit_once('=').map_or(part, |(_, level)| level).trim().to_ascii_lowercase();
        if let Some(part) = self.level.split(',').find(|part| !is_level(&level_of(part))) {
            return Err(format!("`{part}` is not a level (write `info`, or `info,sallyport::ssh=debug`)"));
        }
        // These two would print SQL and bytes of the wire, secrets among them, at their lower levels.
        // And spans of traces are nothing for the log.
        let capped = format!("{},sqlx=warn,russh=warn,{}=off", self.level, spans::TARGET);
        EnvFilter::try_new(capped).map_err(|error| format!("{error} (write `info`, or `info,sallyport::ssh=debug`)"))
    }

    /// Whether the level can be read.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.filter().map(drop)
    }
}

/// The log and the traces of this process.
#[must_use]
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<Traces>,
}

impl Telemetry {
    /// Sends what is left of traces, for a few seconds at most.
    pub async fn finish(self) {
        if let Some(traces) = self.traces {
            traces.finish().await;
        }
    }
}

/// Starts the log of this process, and its traces if they are wanted; once, inside the runtime. `node` is what they say they come from.
pub fn start(log: &LogSettings, traces: &TraceSettings, node: &str) -> Result<Telemetry, TelemetryError> {
    let filter = log.filter().map_err(|message| TelemetryError::Level { message })?;
    let traces = Traces::open(traces, node)?;
    let registry = tracing_subscriber::registry();
    let started = match &traces {
        // Without traces the one filter is everybody's, which costs less than one for each.
        None => registry.with(filter).with(lines(log.format)).try_init(),
        Some(traces) => registry.with(traces.layer()).with(lines(log.format).with_filter(filter)).try_init(),
    };
    started.map_err(|_| TelemetryError::StartedAlready)?;
    Ok(Telemetry { traces })
}

/// What writes the lines.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_cannot_be_read_is_refused_with_what_to_write() {
        let level = |text: &str| LogSettings { level: text.to_owned(), format: LogFormat::Text }.check();
        assert_eq!(level("info"), Ok(()));
        assert_eq!(level("info,sallyport::ssh=debug"), Ok(()));
        for text in ["", "loud", "loud=", "info,,debug", "info,sallyport=noisy"] {
            assert!(level(text).is_err_and(|message| message.contains("write `info`")), "{text:?}");
        }
    }
}
