//! How a command fails: an exit code that a script can tell apart, a sentence, and what to try.

use std::fmt;

/// Why a command ended without doing what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// What failed, on what; its chain is printed. Lower case, no full stop, values in backticks.
    pub(crate) error: anyhow::Error,
    /// What to try.
    pub(crate) hint: Option<String>,
}

/// The exit codes. They are part of the interface: scripts compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Failed,
    Usage,
    NotFound,
    NotAllowed,
    Conflict,
    /// A proof does not hold: a host key, a hash chain.
    Proof,
    Unreachable,
    Interrupted,
}

impl FailureKind {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            FailureKind::Failed => 1,
            FailureKind::Usage => 2,
            FailureKind::NotFound => 3,
            FailureKind::NotAllowed => 4,
            FailureKind::Conflict => 5,
            FailureKind::Proof => 6,
            FailureKind::Unreachable => 7,
            FailureKind::Interrupted => 130,
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into(), hint: None }
    }

    /// A failure that is told by one sentence.
    pub(crate) fn text(kind: FailureKind, text: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { kind, error: anyhow::Error::msg(text), hint: None }
    }

    /// The arguments contradict each other or lack something.
    pub(crate) fn usage(text: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::text(FailureKind::Usage, text)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the reader of our standard output went away, as `head` does: nothing to complain about.
    pub(crate) fn is_closed_output(&self) -> bool {
        let io = self.error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        io.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(FailureKind::Failed, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(FailureKind::Failed, error)
    }
}
