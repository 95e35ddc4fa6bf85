//! A function that is called after every attempt, such as the sample's printer.

use std::time::Duration;

use crate::domain::claim::Settlement;
use crate::domain::invocation::Invocation;
use crate::domain::outcome::Outcome;

/// One finished attempt.
#[derive(Debug)]
pub struct Attempted<'a> {
    pub invocation: &'a Invocation,
    pub outcome: &'a Outcome,
    /// What follows; `None`: the attempt was interrupted.
    pub settlement: Option<&'a Settlement>,
    pub took: Duration,
}

/// Called after every attempt.
pub type Listener = Box<dyn Fn(&Attempted<'_>) + Send + Sync>;

/// A listener that does nothing.
#[must_use]
pub fn no_listener() -> Listener {
    Box::new(|_: &Attempted<'_>| {})
}
