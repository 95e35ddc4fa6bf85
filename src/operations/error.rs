//! Why an operation on dead letters was not done.

use crate::dead_letters::DeadLetterError;
use crate::domain::id::LetterId;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error("no letter has the id {0}: see `hookfleet dead-letters list`")]
    Unknown(LetterId),
    /// The request cannot be understood.
    #[error("{0}")]
    Invalid(String),
    /// The state of the letter does not allow it.
    #[error("{0}")]
    Refused(String),
    /// The log or the broker cannot be reached now.
    #[error("{0}")]
    Away(String),
}

impl From<DeadLetterError> for OperationError {
    fn from(error: DeadLetterError) -> Self {
        Self::Away(error.to_string())
    }
}
