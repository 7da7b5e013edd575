//! Answers in fewer bytes, for those who take them (RFC 9110 §12.5.3): zstd (RFC 8878) before gzip.

use std::io::{self, Write as _};

use axum::http::header::{self, HeaderMap};
use flate2::Compression;
use flate2::write::GzEncoder;

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Zstd,
    Gzip,
    Identity,
}

impl Encoding {
    /// `Content-Encoding`
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Encoding::Zstd => Some("zstd"),
            Encoding::Gzip => Some("gzip"),
            Encoding::Identity => None,
        }
    }

    /// A body in this form. Meant for text that is sent once: fast before small.
    pub(super) fn encode(self, body: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Encoding::Zstd => zstd::encode_all(body.as_slice(), 1),
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
                encoder.write_all(&body)?;
                encoder.finish()
            }
            Encoding::Identity => Ok(body),
        }
    }
}

/// The best of these that the client takes.
pub(super) fn accepted(headers: &HeaderMap) -> Encoding {
    if accepts(headers, "zstd") {
        Encoding::Zstd
    } else if accepts(headers, "gzip") {
        Encoding::Gzip
    } else {
        Encoding::Identity
    }
}

/// Whether the client names this coding, and not to say that it does not want it.
pub(super) fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|choice| {
        let (name, weight) = choice.split_once(';').unwrap_or((choice, ""));
        let is_refused = weight.trim().strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case(coding) && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_best_encoding_that_a_client_takes_is_chosen() {
        for (asked, expected) in [
            ("", Encoding::Identity),
            ("identity, br", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("zstd;q=0, gzip;q=0.5", Encoding::Gzip),
            ("zstd;q=0.000", Encoding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("accept-encoding", HeaderValue::from_static(asked));
            assert_eq!(accepted(&headers), expected, "{asked}");
        }
    }
}
