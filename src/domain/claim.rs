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

use super::flaw::Flaw;
use super::settle::{Next, millis};

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

/// What a finished run writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    Done,
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
    /// Step 1 of apply: records the verdict of the run `token`.
    Settle {
        at: Point,
        token: Token,
        deaths: u32,
        verdict: Verdict,
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
    /// A later attempt or generation is under way, or it was buried: drop the message.
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
    /// It will not run any more.
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

/// The whole protocol: one transition of one key.
#[must_use]
pub fn step(found: Option<&Found>, request: &Request) -> Step {
    step_with(Flaw::None, found, request)
}

/// [`step`] with a flaw for tests to catch.
#[must_use]
pub fn step_with(flaw: Flaw, found: Option<&Found>, request: &Request) -> Step {
    match request {
        Request::Claim(claim) => claim_step(flaw, found, claim),
        Request::Renew { token, lease_ms } => renew(found, *token, *lease_ms),
        Request::Settle { at, token, deaths, verdict, keep_ms } => {
            settle(flaw, found, *at, *token, *deaths, verdict, *keep_ms)
        }
        Request::Advance { at, token, keep_ms } => advance(found, *at, *token, *keep_ms),
        Request::Release { token, keep_ms } => release(flaw, found, *token, *keep_ms),
        Request::Cancel { generation, keep_ms } => cancel(found, *generation, *keep_ms),
        Request::Decide { token, decision, keep_ms } => decide(found, *token, decision, *keep_ms),
        Request::Recall => recall(found).unwrap_or_else(|| Step::keep(Answer::NotYours)),
    }
}

/// The decision that is kept.
fn recall(found: Option<&Found>) -> Option<Step> {
    match found.map(|found| &found.claim) {
        Some(Claim::Decided { token, decision }) => {
            Some(Step::keep(Answer::Decided { token: *token, decision: decision.clone() }))
        }
        Some(
            Claim::Held { .. } | Claim::Settled { .. } | Claim::Out { .. } | Claim::Done { .. } | Claim::Buried { .. },
        )
        | None => None,
    }
}

/// The first decision stays, whoever holds the claim: two runs that decide at a time are told one.
fn decide(found: Option<&Found>, token: Token, decision: &str, keep_ms: u64) -> Step {
    recall(found).unwrap_or_else(|| {
        let decision = decision.to_owned();
        let claim = Claim::Decided { token, decision: decision.clone() };
        Step::write(claim, keep_ms, Answer::Decided { token, decision })
    })
}

fn claim_step(flaw: Flaw, found: Option<&Found>, request: &ClaimRequest) -> Step {
    let asked = request.at;
    let lower = |at: Point| asked < at && flaw != Flaw::LowerAttemptRuns;
    let Some(found) = found else { return win(request, None, false) };
    match &found.claim {
        Claim::Done { generation, token } => {
            if request.forced > *generation {
                win(request, None, false)
            } else {
                Step::keep(Answer::Done { token: *token })
            }
        }
        Claim::Buried { generation, .. } => {
            if asked.generation > *generation {
                win(request, None, false)
            } else {
                Step::keep(Answer::Superseded)
            }
        }
        Claim::Held { at, token, deaths, .. } => {
            if *token == request.token {
                // The call ran and its answer was lost: the lease starts again, nobody died.
                let claim = held(request, *deaths);
                let answer = Answer::Won { deaths: *deaths, taken_over: false };
                Step::write(claim, request.lease_ms + request.floor_ms, answer)
            } else if lower(*at) {
                Step::keep(Answer::Superseded)
            } else if found.lease_left_ms > 0 {
                Step::keep(Answer::Busy { lease_left_ms: found.lease_left_ms })
            } else {
                win(request, Some((*at, *deaths)), true)
            }
        }
        Claim::Settled { at, token, deaths, next } => {
            if asked.generation < at.generation {
                Step::keep(Answer::Superseded)
            } else if asked.generation == at.generation && (asked.attempt <= at.attempt || next.is_bury()) {
                Step::keep(Answer::Resume { at: *at, token: *token, deaths: *deaths, next: next.clone() })
            } else {
                win(request, Some((*at, *deaths)), false)
            }
        }
        Claim::Out { at, deaths } => {
            if lower(*at) {
                Step::keep(Answer::Superseded)
            } else {
                win(request, Some((*at, *deaths)), false)
            }
        }
        Claim::Decided { token, decision } => Step::keep(Answer::Decided { token: *token, decision: decision.clone() }),
    }
}

/// The answer would be won: unless too many workers have died of it.
///
/// Deaths are counted within a generation, as the higher of value and message; a takeover adds one.
fn win(request: &ClaimRequest, before: Option<(Point, u32)>, takeover: bool) -> Step {
    let deaths = match before {
        Some((at, stored)) if at.generation == request.at.generation => {
            stored.max(request.deaths).saturating_add(u32::from(takeover))
        }
        Some(_) | None => request.deaths,
    };
    let ClaimRequest { at, token, limits, floor_ms, .. } = *request;
    if deaths >= limits.poisoned {
        let next = Next::poisoned();
        let claim = Claim::Settled { at, token, deaths, next: next.clone() };
        return Step::write(claim, floor_ms, Answer::Resume { at, token, deaths, next });
    }
    if deaths >= limits.suspect && !request.in_suspect {
        return Step::write(Claim::Out { at, deaths }, floor_ms, Answer::Suspect { deaths });
    }
    Step::write(held(request, deaths), request.lease_ms + floor_ms, Answer::Won { deaths, taken_over: takeover })
}

fn held(request: &ClaimRequest, deaths: u32) -> Claim {
    Claim::Held { at: request.at, token: request.token, deaths, floor_ms: request.floor_ms }
}

fn renew(found: Option<&Found>, own: Token, lease_ms: u64) -> Step {
    match found.map(|found| &found.claim) {
        Some(claim @ Claim::Held { token, floor_ms, .. }) if *token == own => {
            Step::write(claim.clone(), lease_ms + floor_ms, Answer::Ok)
        }
        Some(
            Claim::Held { .. }
            | Claim::Settled { .. }
            | Claim::Out { .. }
            | Claim::Done { .. }
            | Claim::Buried { .. }
            | Claim::Decided { .. },
        )
        | None => Step::keep(Answer::NotYours),
    }
}

/// On an absent key the settlement is written as if owned: a store that forgot must not make a finished run unknown.
fn settle(
    flaw: Flaw,
    found: Option<&Found>,
    at: Point,
    own: Token,
    deaths: u32,
    verdict: &Verdict,
    keep_ms: u64,
) -> Step {
    let written = match verdict {
        Verdict::Done => Claim::Done { generation: at.generation, token: own },
        Verdict::Next(next) => Claim::Settled { at, token: own, deaths, next: next.clone() },
    };
    match found.map(|found| &found.claim) {
        None => Step::write(written, keep_ms, Answer::Ok),
        Some(Claim::Held { token, .. }) if *token == own || flaw == Flaw::TokenNotCompared => {
            Step::write(written, keep_ms, Answer::Ok)
        }
        Some(Claim::Settled { token, .. } | Claim::Done { token, .. }) if *token == own => Step::keep(Answer::Ok),
        Some(
            Claim::Held { .. }
            | Claim::Settled { .. }
            | Claim::Done { .. }
            | Claim::Out { .. }
            | Claim::Buried { .. }
            | Claim::Decided { .. },
        ) => Step::keep(Answer::NotYours),
    }
}

fn advance(found: Option<&Found>, from: Point, own: Token, keep_ms: u64) -> Step {
    match found.map(|found| &found.claim) {
        Some(Claim::Settled { at, token, deaths, next }) if *at == from && *token == own => {
            let claim = match next {
                Next::Retry { .. } => Claim::Out { at: from.next(), deaths: *deaths },
                Next::Bury { .. } => Claim::Buried { generation: from.generation, cancelled: false },
            };
            Step::write(claim, keep_ms, Answer::Ok)
        }
        Some(
            Claim::Held { .. }
            | Claim::Settled { .. }
            | Claim::Out { .. }
            | Claim::Done { .. }
            | Claim::Buried { .. }
            | Claim::Decided { .. },
        )
        | None => Step::keep(Answer::NotYours),
    }
}

fn release(flaw: Flaw, found: Option<&Found>, own: Token, keep_ms: u64) -> Step {
    match found.map(|found| &found.claim) {
        Some(Claim::Held { at, token, deaths, .. }) if *token == own => {
            let at = if flaw == Flaw::ReleaseForgets { Point::first(at.generation) } else { *at };
            Step::write(Claim::Out { at, deaths: *deaths }, keep_ms, Answer::Ok)
        }
        Some(
            Claim::Held { .. }
            | Claim::Settled { .. }
            | Claim::Out { .. }
            | Claim::Done { .. }
            | Claim::Buried { .. }
            | Claim::Decided { .. },
        )
        | None => Step::keep(Answer::NotYours),
    }
}

fn cancel(found: Option<&Found>, generation: u32, keep_ms: u64) -> Step {
    let (stored, before) = match found.map(|found| &found.claim) {
        Some(Claim::Done { token, .. }) => return Step::keep(Answer::Done { token: *token }),
        Some(Claim::Decided { .. }) => return Step::keep(Answer::NotYours), // no invocation
        Some(Claim::Held { at, .. }) => (at.generation, Before::Held),
        Some(Claim::Settled { at, .. } | Claim::Out { at, .. }) => (at.generation, Before::Pending),
        Some(Claim::Buried { generation, cancelled: false }) => (*generation, Before::Buried),
        Some(Claim::Buried { generation, cancelled: true }) => (*generation, Before::Cancelled),
        None => (generation, Before::Nothing),
    };
    let claim = Claim::Buried { generation: generation.max(stored), cancelled: true };
    Step::write(claim, keep_ms, Answer::Cancelled { before })
}

#[cfg(test)]
mod tests;
