//! Data at rest: rows in a database, recordings in an object store, and the seal on stored secrets.
//! Knows no use case: what belongs into one transaction is for `app` to say.

pub mod blob;
pub mod db;
pub mod seal;

/// Durations in settings, with units: `10s`, `5m`, `100ms`.
pub mod duration {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer};

    /// Reads a duration with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("`{text}` is not a duration such as `10s` or `5m`: {error}")))
    }

    /// Durations that may be left out.
    pub mod optional {
        use super::{Deserializer, Duration};

        /// Reads a duration with its unit.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}
