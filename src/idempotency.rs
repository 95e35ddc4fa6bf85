//! The seam to the store of claims. The protocol itself is [`crate::domain::claim::step`]; a store keeps one value a
//! key and applies it atomically. One suite checks every implementation against `step` with long random sequences.

use async_trait::async_trait;

use crate::domain::claim::{Answer, Found, Request};
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::id::{EventDigest, InvocationKey};

pub mod embedded;
pub mod redis;
pub mod value;

/// Why the store gave no answer. The call may have run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It will not answer until somebody mends the settings, here or there. One sentence says which.
    #[error("the store of claims cannot be used: {0}")]
    Settings(String),
    /// It may answer later, by itself or when somebody has seen to it.
    #[error("the store of claims is away: {0}")]
    Away(String),
    #[error("the store of claims did not answer in time")]
    Timeout,
    /// Readable by nobody: written by something else, or by a newer version.
    #[error("the store of claims holds a value that cannot be read: {0}")]
    Unreadable(String),
}

/// A store of claims.
#[async_trait]
pub trait Idempotency: Send + Sync {
    /// One step of the protocol on one key, atomically.
    async fn ask(&self, key: &InvocationKey, request: &Request) -> Result<Answer, StoreError>;

    /// What stands under a key, with what is left of its lease. Changes nothing.
    async fn look(&self, key: &InvocationKey) -> Result<Option<Found>, StoreError>;

    /// Takes a window for an event, unless it is another's, atomically. Its event keeps it until it is over; taking it
    /// again makes it no longer. That the event has taken it is remembered for `keep_ms` besides: a run that was interrupted
    /// begins again, whose window it may be by then.
    async fn take(&self, window: &Window, owner: EventDigest, keep_ms: u64) -> Result<Taken, StoreError>;

    /// Whether the store answers and can be written to.
    async fn ping(&self) -> Result<(), StoreError>;
}
