//! The idempotency protocol: what a store answers to a request about one invocation.
//!
//! [`step`] is total and pure. The Lua of `idempotency/redis` is checked against it with long random sequences,
//! `idempotency/embedded` calls it, and the model in `domain/model.rs` drives it through crashes and lost answers.
//!
//! One key an invocation. Its value is a [`Claim`]; its time to live is `lease + floor` while it is held and `floor`
//! otherwise. The floor in force is stored in the value, so the lease is over exactly when the time to live has fallen
//! to it: neither a worker's clock nor a change of settings can move the end of a lease.
//!
//! ```text
//!            claim              settle(done)
//!   (none) --------> held ------------------------> done
//!      ^              | ^ \  settle(next)
//!      |       release| |  `--------> settled --advance--> out      (a retry is out)
//!      |              v | claim          |  \--advance--> buried   (a letter is out)
//!   forgotten        out <---------------'claim by n+1
//! ```
//!
//! A request to gates is claimed as a whole, under a key of its own, and ends as `decided`: what was decided first is
//! there for whoever claims it again, however many runs were at it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::{AttemptReport, Class};
use super::time::millis;

mod transition;

pub use transition::step;

/// Where an invocation stands: the generation counts replays, the attempt counts tries. The pair only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub generation: u32,
    pub attempt: u32,
}

impl Point {
    /// The first attempt of a generation.
    #[must_use]
    pub const fn first(generation: u32) -> Self {
        Self { generation, attempt: 1 }
    }

    /// The attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { generation: self.generation, attempt: self.attempt.saturating_add(1) }
    }
}

/// Names one run. Used a second time only to repeat a call whose answer was lost.
///
/// The second half is a digest of the event's body: `done` keeps the token, so a duplicate with another body can be
/// told from a plain duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub run: u64,
    pub body: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}", self.run, self.body)
    }
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A run is under way.
    Held { at: Point, token: Token, deaths: u32, floor_ms: u64 },
    /// A run ended; what follows is decided but not yet known to be published.
    Settled { at: Point, token: Token, deaths: u32, next: Next },
    /// A message for attempt `at` is out.
    Out { at: Point, deaths: u32 },
    /// Finished. `token` is the run that did it.
    Done { generation: u32, token: Token },
    /// Given up on, up to and including this generation: with a letter, or cancelled.
    Buried { generation: u32, cancelled: bool },
    /// Of a request to gates: what the run `token` has decided, as JSON. It stays, whatever comes.
    Decided { token: Token, decision: String },
}

/// What the store found under the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub claim: Claim,
    /// Time to live less the stored floor; zero once a lease is over. Ignored for claims that are not held.
    pub lease_left_ms: u64,
}

/// How many workers may die in one generation of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeathLimits {
    /// From here on it runs in lane `suspect` only.
    pub suspect: u32,
    /// Here it is buried as poisoned.
    pub poisoned: u32,
}

impl Default for DeathLimits {
    fn default() -> Self {
        Self { suspect: 2, poisoned: 5 }
    }
}

/// A request for the right to run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimRequest {
    pub at: Point,
    pub token: Token,
    /// Deaths as the message's header counts them.
    pub deaths: u32,
    /// The generation by which an operator had it run although finished; 0: by none. Its replays and retries keep it.
    pub forced: u32,
    /// The message was received on lane `suspect`.
    pub in_suspect: bool,
    pub limits: DeathLimits,
    pub lease_ms: u64,
    pub floor_ms: u64,
}

impl ClaimRequest {
    /// For what is done once and has neither attempts nor a lane of its own: as many workers as `deaths_max` may die of it.
    #[must_use]
    pub fn alone(token: Token, deaths_max: u32, lease: Duration, floor: Duration) -> Self {
        Self {
            at: Point::first(0),
            token,
            deaths: 0,
            forced: 0,
            in_suspect: true,
            limits: DeathLimits { suspect: deaths_max, poisoned: deaths_max },
            lease_ms: millis(lease),
            floor_ms: millis(floor),
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// The next attempt, this long after its message is published. `spent_ms` counts runs and planned waits so far,
    /// this one included.
    Retry { delay_ms: u64, spent_ms: u64, report: Option<AttemptReport> },
    /// A letter.
    Bury { class: Class, report: Option<AttemptReport> },
}

impl Next {
    /// What becomes of an invocation that killed too many workers.
    #[must_use]
    pub const fn poisoned() -> Self {
        Self::Bury { class: Class::Poisoned, report: None }
    }

    /// The wait that it plans, for which its claim must be remembered longer.
    #[must_use]
    pub const fn wait_ms(&self) -> u64 {
        match self {
            Self::Retry { delay_ms, .. } => *delay_ms,
            Self::Bury { .. } => 0,
        }
    }

    /// Whether no attempt of this generation follows.
    #[must_use]
    pub const fn is_bury(&self) -> bool {
        matches!(self, Self::Bury { .. })
    }
}

/// What a finished run comes to, as it is written into the claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// The action took place: nothing follows.
    Done,
    /// It failed, and this follows.
    Next(Next),
}

/// A request about one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    Claim(ClaimRequest),
    /// Lengthens the lease of the run `token`.
    Renew {
        token: Token,
        lease_ms: u64,
    },
    /// Step 1 of apply: records the settlement of the run `token`.
    Settle {
        at: Point,
        token: Token,
        deaths: u32,
        settlement: Settlement,
        keep_ms: u64,
    },
    /// Step 3 of apply: what follows from exactly this settlement is published.
    Advance {
        at: Point,
        token: Token,
        keep_ms: u64,
    },
    /// The run `token` stopped without an outcome.
    Release {
        token: Token,
        keep_ms: u64,
    },
    /// An operator gives the invocation up, up to this generation.
    Cancel {
        generation: u32,
        keep_ms: u64,
    },
    /// Keeps what the run `token` has decided, unless a decision is kept.
    Decide {
        token: Token,
        decision: String,
        keep_ms: u64,
    },
    /// What is decided?
    Recall,
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Run it. `deaths` is to be carried on; `taken_over` says that an owner was found dead.
    Won { deaths: u32, taken_over: bool },
    /// Finished before, by the run `token`.
    Done { token: Token },
    /// A later attempt or generation is under way, or it was given up with a letter: drop the message.
    Superseded,
    /// Another run holds it for this long yet.
    Busy { lease_left_ms: u64 },
    /// Publish what was settled at `at` by `token` again, without a run.
    Resume { at: Point, token: Token, deaths: u32, next: Next },
    /// Publish it to lane `suspect` with these deaths.
    Suspect { deaths: u32 },
    /// Written (or repeated by the same run).
    Ok,
    /// The key says otherwise: publish nothing.
    NotYours,
    /// It will not run any more: the answer to an operator who cancels it, and to a claim of what was cancelled.
    Cancelled { before: Before },
    /// The decision that is kept, which the run `token` has made.
    Decided { token: Token, decision: String },
}

/// What stood under a key before it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Before {
    /// Nothing: no worker has begun with it, or it was forgotten.
    Nothing,
    /// A run, or what a dead worker left of one.
    Held,
    /// Another attempt was to come, or a letter.
    Pending,
    /// It was given up, with a letter.
    Buried,
    Cancelled,
}

/// A new value and its time to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub claim: Claim,
    pub ttl_ms: u64,
}

/// One transition: what to write, if anything, and what to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub write: Option<Write>,
    pub answer: Answer,
}

impl Step {
    fn keep(answer: Answer) -> Self {
        Self { write: None, answer }
    }

    fn write(claim: Claim, ttl_ms: u64, answer: Answer) -> Self {
        Self { write: Some(Write { claim, ttl_ms }), answer }
    }
}

#[cfg(test)]
mod tests;
