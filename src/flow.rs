//! The seam to what the workers of a fleet share about capacity: rates, shares, breakers, and who is there.
//!
//! Contract, checked by one suite on every implementation:
//! - slots of a rate are given out once each, evenly spread, whoever asks;
//! - the shares of a limit never add up to more than it, and those of a worker that is gone are free soon;
//! - a breaker that one worker opened is seen by all until it is closed; of those who want to probe, one may;
//! - whoever beats is listed with what it said last, until it has not been heard of for a while; a pause lasts until it
//!   is ended, whoever comes and goes.
//!
//! Nothing here decides whether work is lost or done twice: a worker that gets no answer keeps its part of every limit.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::flow::{Opened, Rate, Slots};
use crate::domain::id::HookId;

pub mod local;
pub mod redis;

/// How often a worker says that it is there and renews its shares.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A worker that has not been heard of for this long is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(5);
/// A breaker that nobody has probed for this long is forgotten: its hooks are gone, or have nothing to do.
const FORGET_AFTER: Duration = Duration::from_hours(1);

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

/// What a worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// Its name in the fleet; [`Flow::beat`] knows it.
    pub worker: String,
    pub host: String,
    pub pid: u32,
    /// Of its program; empty for one that says nothing of itself.
    pub version: String,
    /// The newest format of catalogs that it reads.
    pub format: u32,
    pub lanes: Vec<String>,
    /// Runs under way.
    pub in_flight: usize,
    /// Of its catalog; empty without one.
    pub revision: String,
    /// When it started, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why it takes no new work, if it does not.
    pub idle: Vec<String>,
    /// How it stands with the letters, if it is the keeper of their log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Kept>,
    /// Attempts that ended there a second, of late.
    pub attempts_per_second: f64,
    /// Hooks whose last attempts there have all failed, those that have failed most often first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<Failing>,
    /// The newer catalog that it cannot use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// What has happened there since it started; a version that does not count says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<WorkCounts>,
}

/// A hook that only fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failing {
    pub hook: String,
    /// Attempts that have failed one after the other.
    pub attempts: u64,
    /// An open breaker holds it back, so that attempts are few.
    pub parked: bool,
}

/// What has happened in a worker since it started: sums over all hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkCounts {
    /// Hooks of its catalog.
    pub hooks: usize,
    /// Attempts that ended, however.
    pub attempts: u64,
    /// Attempts that failed.
    pub failed: u64,
    pub retries: u64,
    pub letters: u64,
    /// Appends of letters that were not confirmed. They are repeated until they are.
    pub letters_unconfirmed: u64,
    /// When the newest letter was written, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_letter_at_ms: Option<u64>,
    /// Its hook; none if it was about a whole event or message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_letter_hook: Option<String>,
}

impl WorkCounts {
    /// Adds those of another worker. Of two catalogs the larger one counts: they are the same as a rule.
    pub fn add(&mut self, other: &Self) {
        self.hooks = self.hooks.max(other.hooks);
        self.attempts += other.attempts;
        self.failed += other.failed;
        self.retries += other.retries;
        self.letters += other.letters;
        self.letters_unconfirmed += other.letters_unconfirmed;
        if other.last_letter_at_ms > self.last_letter_at_ms {
            self.last_letter_at_ms = other.last_letter_at_ms;
            self.last_letter_hook.clone_from(&other.last_letter_hook);
        }
    }
}

/// What the keeper of the dead letters knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Letters that are open or being replayed.
    pub unresolved: u64,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_ms: u64,
    /// How much of the time that records are kept has passed for the oldest one that is needed.
    pub retention_used: f64,
    /// Messages that the broker could hand to nobody, and keeps in a queue of their own.
    pub unreadable: u64,
    /// For how long nothing has come back from the delay ladder that should have, in milliseconds; 0: it carries.
    pub retries_still_ms: u64,
    /// Why the log could not be looked after just now; the rest is what was known before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Kept {
    /// Whether retries stand still, as a sentence.
    #[must_use]
    pub fn retries_still(&self) -> Option<String> {
        let seconds = self.retries_still_ms.div_ceil(1000);
        (seconds > 0)
            .then(|| format!("retries have not come back for {seconds} s: the broker's dead-lettering stands still"))
    }
}

/// A catalog that a worker does not take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    pub revision: String,
    /// The first problem.
    pub reason: String,
}

/// A fleet that takes no new work, by somebody's wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub by: String,
    /// In milliseconds since 1970.
    pub at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paused by {}", self.by)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
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

    /// Says that this worker is there, and what is to be known of it; answers how many there are.
    async fn beat(&self, card: &Card) -> Result<Crew, FlowError>;

    /// The workers that are there. One that says nothing of itself has but a name.
    async fn crew(&self) -> Result<Vec<Card>, FlowError>;

    /// Whether the fleet is paused.
    async fn paused(&self) -> Result<Option<Pause>, FlowError>;

    /// Pauses the fleet, or ends that.
    async fn pause(&self, pause: Option<&Pause>) -> Result<(), FlowError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_have_done_adds_up() {
        let one = WorkCounts {
            hooks: 3,
            attempts: 10,
            failed: 4,
            retries: 3,
            letters: 1,
            letters_unconfirmed: 0,
            last_letter_at_ms: Some(7),
            last_letter_hook: Some("a".to_owned()),
        };
        let other = WorkCounts { last_letter_at_ms: Some(9), last_letter_hook: None, ..one.clone() };
        let mut sum = WorkCounts::default();
        for counts in [&other, &one] {
            sum.add(counts);
        }
        let newest = WorkCounts { attempts: 20, failed: 8, retries: 6, letters: 2, ..other };
        assert_eq!(sum, newest);
    }

    #[test]
    fn workers_of_a_version_that_does_not_count_are_read() {
        let before = r#"{"worker":"w","version":"0.1.0","in_flight":2}"#;
        let card: Card = serde_json::from_str(before).unwrap();
        assert_eq!((card.in_flight, card.counts), (2, None));
        assert!(!serde_json::to_string(&Card::default()).unwrap().contains("counts"));
    }
}
