//! Syslog: one message for each checkpoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{AnchorError, Outgoing};
use crate::app::syslog::{Header, Syslog, head};

/// Notice (RFC 5424 §6.2.1).
const SEVERITY: u8 = 5;

/// Sends one message on a connection of its own: checkpoints are few.
pub(super) async fn put(syslog: &Syslog, outgoing: &Outgoing) -> Result<(), AnchorError> {
    Ok(syslog.deliver(&[message(outgoing)]).await?)
}

/// The note is in base64: its lines would be several messages to many a collector.
fn message(outgoing: &Outgoing) -> String {
    head(&Header {
        severity: SEVERITY,
        at: outgoing.at,
        node: &outgoing.node,
        message_id: "checkpoint",
        element: "checkpoint",
        parameters: &[
            ("origin", outgoing.origin.clone()),
            ("size", outgoing.head.size.to_string()),
            ("root", outgoing.head.root.to_string()),
            ("note", STANDARD.encode(&outgoing.note)),
        ],
    })
}
