//! The seam to what the workers of a fleet share about capacity: rates, shares, breakers, and who is there.
//!
//! Contract, checked by one suite on every implementation:
//! - slots of a rate are given out once each, evenly spread, whoever asks;
//! - the shares of a limit never add up to more than it, and those of a worker that is gone are free soon;
//! - a breaker that one worker opened is seen by all until it is closed; of those who want to probe, one may.
//!
//! Nothing here decides whether work is lost or done twice: a worker that gets no answer keeps its part of every limit.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::flow::{Opened, Rate, Slots};
use crate::domain::hook::HookId;

pub mod local;
pub mod redis;

/// How often a worker says that it is there and renews its shares.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A worker that has not been heard of for this long is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(5);

/// No answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct FlowError(pub String);

/// The workers that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crew {
    pub workers: u32,
    /// This one's place among them, from 0.
    pub rank: u32,
}

impl Default for Crew {
    /// Alone.
    fn default() -> Self {
        Self { workers: 1, rank: 0 }
    }
}

/// What a fleet shares.
#[async_trait]
pub trait Flow: Send + Sync {
    /// Reserves up to `want` slots of a hook's rate.
    async fn slots(&self, hook: &HookId, rate: Rate, want: u32) -> Result<Slots, FlowError>;

    /// Asks for `want` runs at a time of a hook, of `limit` in the whole fleet of so many workers; answers how many are
    /// granted, until asked again or [`GONE_AFTER`].
    async fn share(&self, hook: &HookId, limit: u32, want: u32, workers: u32) -> Result<u32, FlowError>;

    /// The targets whose breakers are open, by name.
    async fn opened(&self) -> Result<BTreeMap<String, Opened>, FlowError>;

    /// Tells the fleet that a target is broken.
    async fn open(&self, target: &str, level: u8) -> Result<(), FlowError>;

    /// Tells the fleet that a target is well again.
    async fn close(&self, target: &str) -> Result<(), FlowError>;

    /// Whether this worker may be the one that probes a target.
    async fn probe(&self, target: &str) -> Result<bool, FlowError>;

    /// Says that this worker is there; answers who else is.
    async fn beat(&self) -> Result<Crew, FlowError>;
}
