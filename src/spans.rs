//! The spans that traces are made of: all that there are, with every attribute that they can have. Nothing else makes one.
//!
//! What an attribute can hold is a matter of types: words of ours, numbers, ids of sessions, grants and recordings, routes as they stand
//! in the API's document, and names of destinations from the configuration. No person, target, account, address, path, command,
//! reason or secret has a way in.
//!
//! A span is held and never entered: between its beginning and its end it costs nothing, and the log does not see it. Where no
//! traces are wanted it is nothing at all. See `telemetry::traces` for where they go.

use sallyport_domain::id::{GrantId, RecordingId, SessionId};
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

/// The mark of these spans among all others; the log leaves them out by it.
pub(crate) const TARGET: &str = "sallyport::spans";

/// A span: it begins where it is made, and ends with the last clone of it and of what is within it.
#[derive(Debug, Clone)]
pub struct Spanned(Span);

impl Spanned {
    /// No span; what is within it begins a trace of its own.
    pub(crate) fn none() -> Self {
        Self(Span::none())
    }

    /// What came of it.
    pub(crate) fn outcome(&self, word: &'static str) {
        self.0.record("outcome", word);
    }

    /// The same, where it is an error.
    pub(crate) fn failure(&self, word: &'static str) {
        self.0.record("outcome", word);
        self.0.record("otel.status_code", "ERROR");
    }

    /// How somebody proved who they are.
    pub(crate) fn method(&self, method: &'static str) {
        self.0.record("method", method);
    }

    /// The session that is meant.
    pub(crate) fn is_of(&self, session: SessionId) {
        self.0.record("session.id", display(session));
    }

    /// What a request was answered with.
    pub(crate) fn status(&self, status: u16) {
        self.0.record("http.response.status_code", status);
        if status >= 500 {
            self.0.record("otel.status_code", "ERROR");
        }
    }
}

/// A span of a trace that begins with it, or within another.
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        Spanned(info_span!(target: TARGET, parent: None, $name, outcome = Empty, otel.status_code = Empty $(, $($fields)*)?))
    };
    (in $outer:expr, $name:literal $(, $($fields:tt)*)?) => {
        Spanned(info_span!(target: TARGET, parent: $outer.0.id(), $name, outcome = Empty, otel.status_code = Empty $(, $($fields)*)?))
    };
}

/// A client's connection, from its first byte to its last.
pub(crate) fn connection() -> Spanned {
    span!("ssh.connection", otel.kind = "server")
}

/// A connection inside of another (`ssh -J`).
pub(crate) fn jump(outer: &Spanned) -> Spanned {
    span!(in outer, "ssh.jump", otel.kind = "server")
}

/// A login, until somebody is proved or the connection is over.
pub(crate) fn login(connection: &Spanned) -> Spanned {
    span!(in connection, "ssh.login", method = Empty)
}

/// A decision whether there is to be a session.
pub(crate) fn decision(connection: &Spanned) -> Spanned {
    span!(in connection, "session.decide", session.id = Empty)
}

/// A session, from the yes to its end in the books.
pub(crate) fn session(connection: &Spanned, session: SessionId, grant: GrantId) -> Spanned {
    span!(in connection, "session", session.id = %session, grant.id = %grant)
}

/// A channel's program, with what is recorded of it.
pub(crate) fn channel(session: &Spanned, recording: RecordingId, program: &'static str) -> Spanned {
    span!(in session, "channel", recording.id = %recording, program = program)
}

/// A connection to a session's target, until it can be used.
pub(crate) fn dial(session: &Spanned, hops: usize) -> Spanned {
    span!(in session, "target.dial", otel.kind = "client", hops = hops)
}

/// The way to one hop, and its proof of who it is.
pub(crate) fn connect(dial: &Spanned) -> Spanned {
    span!(in dial, "target.connect", otel.kind = "client")
}

/// The bastion's own proof there.
pub(crate) fn authenticate(dial: &Spanned, method: &'static str) -> Spanned {
    span!(in dial, "target.authenticate", otel.kind = "client", method = method)
}

/// A request to the API, until its answer begins. `route` is the template, never the path that was asked for.
pub(crate) fn request(method: &'static str, route: &str) -> Spanned {
    span!(
        "http.request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty
    )
}

/// A batch of events on their way to their places in the ledger.
pub(crate) fn ledger_batch(events: usize) -> Spanned {
    span!("ledger.batch", events = events)
}

/// A segment on its way to the object store.
pub(crate) fn ship(recording: RecordingId, bytes: usize) -> Spanned {
    span!("recording.ship", otel.kind = "client", recording.id = %recording, bytes = bytes)
}

/// A batch of records on its way to a destination.
pub(crate) fn outbox_batch(destination: &str, records: usize) -> Spanned {
    span!("outbox.batch", otel.kind = "producer", destination = destination, records = records)
}
