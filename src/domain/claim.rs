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

use std::fmt;

use super::flaw::Flaw;
use super::settle::Next;

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
    }
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
            Claim::Held { .. } | Claim::Settled { .. } | Claim::Out { .. } | Claim::Done { .. } | Claim::Buried { .. },
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
            Claim::Held { .. } | Claim::Settled { .. } | Claim::Done { .. } | Claim::Out { .. } | Claim::Buried { .. },
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
            Claim::Held { .. } | Claim::Settled { .. } | Claim::Out { .. } | Claim::Done { .. } | Claim::Buried { .. },
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
            Claim::Held { .. } | Claim::Settled { .. } | Claim::Out { .. } | Claim::Done { .. } | Claim::Buried { .. },
        )
        | None => Step::keep(Answer::NotYours),
    }
}

fn cancel(found: Option<&Found>, generation: u32, keep_ms: u64) -> Step {
    let (stored, before) = match found.map(|found| &found.claim) {
        Some(Claim::Done { token, .. }) => return Step::keep(Answer::Done { token: *token }),
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
mod tests {
    use super::*;
    use crate::domain::settle::Class;

    const T1: Token = Token { run: 1, body: 0 };
    const T2: Token = Token { run: 2, body: 0 };

    fn at(generation: u32, attempt: u32) -> Point {
        Point { generation, attempt }
    }

    fn retry() -> Next {
        Next::Retry { delay_ms: 1000, spent_ms: 5, report: None }
    }

    fn bury() -> Next {
        Next::Bury { class: Class::Exhausted, report: None }
    }

    fn held_by(token: Token, at: Point, deaths: u32) -> Claim {
        Claim::Held { at, token, deaths, floor_ms: 100 }
    }

    fn ask(at: Point) -> ClaimRequest {
        ClaimRequest {
            at,
            token: T2,
            deaths: 0,
            forced: 0,
            in_suspect: false,
            limits: DeathLimits::default(),
            lease_ms: 30,
            floor_ms: 100,
        }
    }

    fn check(found: Option<Claim>, lease_left_ms: u64, request: &ClaimRequest, expected: &str) {
        let found = found.map(|claim| Found { claim, lease_left_ms });
        let step = step(found.as_ref(), &Request::Claim(request.clone()));
        let answer = match step.answer {
            Answer::Won { deaths, taken_over } => format!("won {deaths}{}", if taken_over { " takeover" } else { "" }),
            Answer::Done { .. } => "done".into(),
            Answer::Superseded => "superseded".into(),
            Answer::Busy { lease_left_ms } => format!("busy {lease_left_ms}"),
            Answer::Resume { next, .. } => format!("resume {}", if next.is_bury() { "bury" } else { "retry" }),
            Answer::Suspect { deaths } => format!("suspect {deaths}"),
            Answer::Ok | Answer::NotYours | Answer::Cancelled { .. } => "illegal".into(),
        };
        assert_eq!(answer, expected, "{found:?} asked {:?}", request.at);
    }

    #[test]
    fn the_table_of_claims() {
        check(None, 0, &ask(at(0, 1)), "won 0");
        let done = || Some(Claim::Done { generation: 0, token: T1 });
        check(done(), 0, &ask(at(1, 1)), "done");
        check(done(), 0, &ClaimRequest { forced: 1, ..ask(at(1, 1)) }, "won 0");
        let finished = || Some(Claim::Done { generation: 1, token: T1 });
        check(finished(), 0, &ClaimRequest { forced: 1, ..ask(at(2, 1)) }, "done"); // what was forced is done
        let buried = || Some(Claim::Buried { generation: 0, cancelled: false });
        check(buried(), 0, &ask(at(0, 9)), "superseded");
        check(buried(), 0, &ask(at(1, 1)), "won 0");
        check(Some(held_by(T2, at(0, 1), 1)), 5, &ask(at(0, 1)), "won 1");
        check(Some(held_by(T1, at(0, 2), 0)), 0, &ask(at(0, 1)), "superseded");
        check(Some(held_by(T1, at(0, 1), 0)), 5, &ask(at(0, 1)), "busy 5");
        check(Some(held_by(T1, at(0, 1), 0)), 0, &ask(at(0, 1)), "won 1 takeover");
        let settled = |next| Some(Claim::Settled { at: at(1, 2), token: T1, deaths: 0, next });
        check(settled(retry()), 0, &ask(at(0, 5)), "superseded");
        check(settled(retry()), 0, &ask(at(1, 2)), "resume retry");
        check(settled(retry()), 0, &ask(at(1, 1)), "resume retry");
        check(settled(retry()), 0, &ask(at(1, 3)), "won 0");
        check(settled(bury()), 0, &ask(at(1, 3)), "resume bury");
        check(settled(bury()), 0, &ask(at(2, 1)), "won 0");
        let out = || Some(Claim::Out { at: at(0, 2), deaths: 0 });
        check(out(), 0, &ask(at(0, 1)), "superseded");
        check(out(), 0, &ask(at(0, 2)), "won 0");
    }

    #[test]
    fn deaths_lead_to_suspect_and_then_to_the_letters() {
        check(Some(held_by(T1, at(0, 1), 1)), 0, &ask(at(0, 1)), "suspect 2");
        let in_suspect = |deaths| ClaimRequest { in_suspect: true, deaths, ..ask(at(0, 1)) };
        check(Some(held_by(T1, at(0, 1), 1)), 0, &in_suspect(0), "won 2 takeover");
        check(Some(held_by(T1, at(0, 1), 4)), 0, &in_suspect(0), "resume bury");
        check(None, 0, &ClaimRequest { deaths: 2, ..ask(at(0, 1)) }, "suspect 2");
        check(None, 0, &in_suspect(5), "resume bury");
        check(Some(held_by(T1, at(0, 1), 4)), 0, &ask(at(1, 1)), "won 0 takeover"); // a new generation starts at 0
    }

    fn check_request(found: Option<Claim>, request: &Request, expected: Option<Claim>, answer: Answer) {
        let found = found.map(|claim| Found { claim, lease_left_ms: 1 });
        let step = step(found.as_ref(), request);
        assert_eq!((step.write.map(|write| write.claim), step.answer), (expected, answer), "{found:?} {request:?}");
    }

    #[test]
    fn only_the_own_token_writes() {
        let done = Claim::Done { generation: 0, token: T2 };
        let settle = |token| Request::Settle { at: at(0, 1), token, deaths: 0, verdict: Verdict::Done, keep_ms: 9 };
        check_request(Some(held_by(T2, at(0, 1), 0)), &settle(T2), Some(done.clone()), Answer::Ok);
        check_request(None, &settle(T2), Some(done.clone()), Answer::Ok);
        check_request(Some(done.clone()), &settle(T2), None, Answer::Ok);
        check_request(Some(held_by(T1, at(0, 1), 0)), &settle(T2), None, Answer::NotYours);
        check_request(Some(done), &settle(T1), None, Answer::NotYours);

        let settled = Claim::Settled { at: at(0, 1), token: T1, deaths: 1, next: retry() };
        let advance = |token, at| Request::Advance { at, token, keep_ms: 9 };
        let out = Claim::Out { at: at(0, 2), deaths: 1 };
        check_request(Some(settled.clone()), &advance(T1, at(0, 1)), Some(out.clone()), Answer::Ok);
        check_request(Some(settled.clone()), &advance(T2, at(0, 1)), None, Answer::NotYours);
        check_request(Some(out), &advance(T1, at(0, 1)), None, Answer::NotYours);

        let release = Request::Release { token: T1, keep_ms: 9 };
        check_request(
            Some(held_by(T1, at(1, 3), 2)),
            &release,
            Some(Claim::Out { at: at(1, 3), deaths: 2 }),
            Answer::Ok,
        );
        check_request(Some(held_by(T2, at(1, 3), 2)), &release, None, Answer::NotYours);

        let cancel = Request::Cancel { generation: 0, keep_ms: 9 };
        let buried = |generation, cancelled| Claim::Buried { generation, cancelled };
        let answer = |before| Answer::Cancelled { before };
        check_request(None, &cancel, Some(buried(0, true)), answer(Before::Nothing));
        check_request(Some(settled), &cancel, Some(buried(0, true)), answer(Before::Pending));
        check_request(
            Some(Claim::Out { at: at(0, 2), deaths: 0 }),
            &cancel,
            Some(buried(0, true)),
            answer(Before::Pending),
        );
        check_request(Some(held_by(T1, at(1, 1), 0)), &cancel, Some(buried(1, true)), answer(Before::Held));
        check_request(Some(buried(2, false)), &cancel, Some(buried(2, true)), answer(Before::Buried));
        check_request(Some(buried(0, true)), &cancel, Some(buried(0, true)), answer(Before::Cancelled));
        check_request(Some(Claim::Done { generation: 0, token: T1 }), &cancel, None, Answer::Done { token: T1 });
    }

    #[test]
    fn a_renewal_keeps_the_stored_floor() {
        let found = Found { claim: held_by(T1, at(0, 1), 0), lease_left_ms: 1 };
        let step = step(Some(&found), &Request::Renew { token: T1, lease_ms: 30 });
        assert_eq!(step.write.map(|write| write.ttl_ms), Some(130));
    }
}
