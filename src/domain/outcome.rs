//! What one attempt came to. A target's failure, a panic and a timeout are values here, never errors.

use std::time::Duration;

use super::failure::Class;
use super::redaction::{Secrets, redact};

/// The end of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The action took place.
    Done,
    /// It did not, or nobody can tell.
    Failed(Failure),
    /// The worker stopped it. Not a failure: no attempt is spent.
    Interrupted,
}

impl Outcome {
    /// A failure that may pass by itself.
    pub fn later(error: impl Into<String>) -> Self {
        Self::Failed(Failure::new(Again::Later(None), None, error))
    }

    /// A failure that will be the same however often it is tried.
    pub fn never(class: Class, error: impl Into<String>) -> Self {
        Self::Failed(Failure::new(Again::Never(class), None, error))
    }
}

impl Outcome {
    /// The same, with an error text that shows none of these, nor what looks like a secret.
    #[must_use]
    pub fn redacted(mut self, secrets: &Secrets) -> Self {
        if let Self::Failed(failure) = &mut self {
            failure.error = redact(&failure.error, secrets);
        }
        self
    }
}

/// Why an attempt failed. Whether to try again is decided where the failure is born.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub again: Again,
    /// HTTP status, exit code, or [`NO_ROUTE`], where there was one.
    pub status: Option<i32>,
    /// One line, without secrets, at most [`super::failure::ERROR_CHARS_MAX`] characters once settled.
    pub error: String,
    /// How often the target was tried within the run: once, unless the hook's dialect has its retries there.
    pub tries: u32,
    /// It is the target's. If not, something else was missing, such as a token, and its breaker does not hear of it.
    pub of_target: bool,
}

impl Failure {
    /// Of the target itself, which was tried once.
    #[must_use]
    pub fn new(again: Again, status: Option<i32>, error: impl Into<String>) -> Self {
        Self { again, status, error: error.into(), tries: 1, of_target: true }
    }
}

/// Reply code of AMQP 0-9-1: a message came back that no queue is bound for.
pub const NO_ROUTE: i32 = 312;

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No; the letter's class says why.
    Never(Class),
    /// Yes, and perhaps the target said when (`Retry-After`).
    Later(Option<Duration>),
}
