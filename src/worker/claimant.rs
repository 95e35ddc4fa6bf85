//! Claims a key of the store, and keeps the claim while its run goes on.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Worker;
use super::store::{Store, Unanswered};
use crate::domain::claim::{Answer, ClaimRequest, Request, Token};
use crate::domain::id::InvocationKey;
use crate::domain::time::millis;

/// Between two tries of a claim that was not answered.
const CLAIM_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Between two tries of a renewal that was not answered.
const RENEW_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A run stops this long before the end of a lease that could not be renewed.
const MARGIN: Duration = Duration::from_secs(2);

/// What became of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It is ours: what it is for may run under this lease.
    Won { lease: Lease, deaths: u32, taken_over: bool },
    /// It is not: the store's answer says why.
    Known(Answer),
    /// The store did not answer in time. A claim that it may have made all the same is given back.
    StoreAway,
    /// The store has a value under the key that cannot be read, which waiting does not mend.
    Unreadable,
}

impl Worker {
    /// Claims a key and counts the answer. Waits until `patience` for a store that is away; `None`: not at all.
    pub(super) async fn claim(
        &self,
        key: &InvocationKey,
        request: &ClaimRequest,
        patience: Option<Instant>,
    ) -> Claimed {
        let claimed = self.store.claim(key, request, patience).await;
        match &claimed {
            Claimed::Won { deaths, taken_over, .. } => {
                self.metrics.claim_answered(&Answer::Won { deaths: *deaths, taken_over: *taken_over });
            }
            Claimed::Known(answer) => self.metrics.claim_answered(answer),
            Claimed::StoreAway | Claimed::Unreadable => {}
        }
        claimed
    }
}

impl Store {
    /// Claims a key. Waits until `patience` for a store that is away; `None`: not at all.
    pub(super) async fn claim(
        &self,
        key: &InvocationKey,
        request: &ClaimRequest,
        patience: Option<Instant>,
    ) -> Claimed {
        let call = Request::Claim(request.clone());
        let mut was_asked = false;
        loop {
            let is_away = self.away().borrow().is_some();
            if is_away && !self.is_back_by(patience).await {
                break;
            }
            let asked_at = Instant::now();
            was_asked = true;
            match self.ask(key, &call).await {
                Ok(Answer::Won { deaths, taken_over }) => {
                    let lease = Lease::new(request, asked_at);
                    return Claimed::Won { lease, deaths, taken_over };
                }
                Ok(answer) => return Claimed::Known(answer),
                Err(Unanswered::Unreadable) => return Claimed::Unreadable,
                Err(Unanswered::Away) => match patience {
                    Some(until) if asked_at < until => sleep(CLAIM_AGAIN_AFTER).await,
                    Some(_) | None => break,
                },
            }
        }
        if was_asked {
            // The call may have run: the claim's end must not be taken for a death.
            self.abandon(key, request.token, request.floor_ms);
        }
        Claimed::StoreAway
    }

    async fn is_back_by(&self, patience: Option<Instant>) -> bool {
        match patience {
            Some(until) => timeout_at(until, self.back()).await.is_ok(),
            None => false,
        }
    }
}

/// Why a claim is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Another run has it.
    TakenOver,
    /// The store did not answer, and the lease is about to end.
    Ending,
}

/// The claim of one run. It ends by itself, and that counts as a death: a run that goes away without a verdict, by a panic
/// or with its process, is meant to be counted so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    token: Token,
    /// How long the claim lives without a renewal.
    length: Duration,
    /// How long it is remembered afterwards, in milliseconds.
    floor_ms: u64,
    /// When the claim was asked for, by this process's own clock.
    since: Instant,
}

impl Lease {
    /// The lease of a claim that was asked for then.
    pub(super) const fn new(request: &ClaimRequest, since: Instant) -> Self {
        let length = Duration::from_millis(request.lease_ms);
        Self { token: request.token, length, floor_ms: request.floor_ms, since }
    }

    /// When it ends if it is not renewed.
    pub(super) fn ends_at(&self) -> Instant {
        self.since + self.length
    }

    /// Renews the claim every third of its length. Returns only when it is lost.
    pub(super) async fn keep(&self, store: &Store, key: &InvocationKey) -> Lost {
        let margin = MARGIN.min(self.length / 3);
        let request = Request::Renew { token: self.token, lease_ms: millis(self.length) };
        let mut since = self.since;
        loop {
            sleep_until(since + self.length / 3).await;
            let stop_at = since + self.length - margin;
            since = loop {
                let asked_at = Instant::now();
                let answer = tokio::select! {
                    biased;
                    answer = store.ask(key, &request) => answer,
                    () = sleep_until(stop_at) => return Lost::Ending,
                };
                match answer {
                    Ok(Answer::Ok) => break asked_at,
                    Ok(_) => return Lost::TakenOver,
                    Err(_) if Instant::now() >= stop_at => return Lost::Ending,
                    Err(_) => sleep(RENEW_AGAIN_AFTER).await,
                }
            };
        }
    }

    /// Gives the claim back, so that its end is not taken for a death.
    pub(super) async fn release(self, store: &Store, key: &InvocationKey) {
        let release = Request::Release { token: self.token, keep_ms: self.floor_ms };
        if store.ask(key, &release).await.is_err() {
            store.abandon(key, self.token, self.floor_ms);
        }
    }
}

#[cfg(test)]
mod tests;
