//! Logs, to stderr: lines for people or JSON for a collector. Events are not logs; see `app::audit`.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

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
        let capped = format!("{},sqlx=warn,russh=warn", self.level);
        EnvFilter::try_new(capped).map_err(|error| format!("{error} (write `info`, or `info,sallyport::ssh=debug`)"))
    }

    /// Whether the level can be read.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.filter().map(drop)
    }
}

/// Starts the log of this process; once.
pub fn start(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter = settings.filter().map_err(|message| TelemetryError::Level { message })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| TelemetryError::StartedAlready)
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
