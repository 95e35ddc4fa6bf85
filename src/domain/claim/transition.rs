//! What becomes of a claim that is asked for something.

use super::{Answer, Before, Claim, ClaimRequest, Found, Next, Point, Request, Settlement, Step, Token};

/// The whole protocol: one transition of one key.
#[must_use]
pub fn step(found: Option<&Found>, request: &Request) -> Step {
    match request {
        Request::Claim(claim) => claim_step(found, claim),
        Request::Renew { token, lease_ms } => renew(found, *token, *lease_ms),
        Request::Settle { at, token, deaths, settlement, keep_ms } => {
            settle(found, *at, *token, *deaths, settlement, *keep_ms)
        }
        Request::Advance { at, token, keep_ms } => advance(found, *at, *token, *keep_ms),
        Request::Release { token, keep_ms } => release(found, *token, *keep_ms),
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

fn claim_step(found: Option<&Found>, request: &ClaimRequest) -> Step {
    let asked = request.at;
    let lower = |at: Point| asked < at;
    let Some(found) = found else { return win(request, None, false) };
    match &found.claim {
        Claim::Done { generation, token } => {
            if request.forced > *generation {
                win(request, None, false)
            } else {
                Step::keep(Answer::Done { token: *token })
            }
        }
        Claim::Buried { generation, cancelled } => {
            if asked.generation > *generation {
                win(request, None, false)
            } else if *cancelled {
                Step::keep(Answer::Cancelled { before: Before::Cancelled })
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
fn settle(found: Option<&Found>, at: Point, own: Token, deaths: u32, settlement: &Settlement, keep_ms: u64) -> Step {
    let written = match settlement {
        Settlement::Done => Claim::Done { generation: at.generation, token: own },
        Settlement::Next(next) => Claim::Settled { at, token: own, deaths, next: next.clone() },
    };
    match found.map(|found| &found.claim) {
        None => Step::write(written, keep_ms, Answer::Ok),
        Some(Claim::Held { token, .. }) if *token == own => Step::write(written, keep_ms, Answer::Ok),
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

fn release(found: Option<&Found>, own: Token, keep_ms: u64) -> Step {
    match found.map(|found| &found.claim) {
        Some(Claim::Held { at, token, deaths, .. }) if *token == own => {
            Step::write(Claim::Out { at: *at, deaths: *deaths }, keep_ms, Answer::Ok)
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
        // It is over, and its letter stays: what is sent of that runs.
        Some(Claim::Buried { cancelled: false, .. }) => {
            return Step::keep(Answer::Cancelled { before: Before::Buried });
        }
        Some(Claim::Buried { generation, cancelled: true }) => (*generation, Before::Cancelled),
        None => (generation, Before::Nothing),
    };
    let claim = Claim::Buried { generation: generation.max(stored), cancelled: true };
    Step::write(claim, keep_ms, Answer::Cancelled { before })
}
