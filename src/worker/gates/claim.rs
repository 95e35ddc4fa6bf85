//! Who decides a request, and which decision is everybody's.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::super::Worker;
use super::super::claimant::{Claimed, Lease, Lost};
use super::super::store::Unanswered;
use super::{DEATHS_MAX, LOOK_EVERY};
use crate::config::WhenAway;
use crate::domain::claim::{Answer, ClaimRequest, Request, Token};
use crate::domain::decision::Decision;
use crate::domain::event::Event;
use crate::domain::id::InvocationKey;
use crate::domain::time::millis;

/// A worker that decides renews its claim every third of this.
const LEASE: Duration = Duration::from_secs(1);
/// A store that does not answer is given this long beyond the time that there is for it.
const PATIENCE_MIN: Duration = Duration::from_millis(250);

/// Who may decide a request.
pub(super) enum Right {
    /// This worker: under a lease, or without one where the store does not say otherwise.
    Ours { deaths: u32, lease: Option<Lease> },
    /// None any more: this decision is kept.
    Kept(String),
    /// None: something else was decided under the same identity.
    Conflict,
    /// Another worker, which decides it now.
    Busy(Duration),
    /// Unknown: the store does not come back in time.
    Away,
}

/// A request on its way to a decision.
pub(super) struct Case<'a> {
    pub(super) event: &'a Arc<Event>,
    pub(super) key: InvocationKey,
    /// Digest of what is asked about.
    pub(super) about: String,
    pub(super) token: Token,
    /// Another worker was at it when this one looked last.
    pub(super) is_others: AtomicBool,
    pub(super) began: Instant,
    pub(super) until: Instant,
}

impl Right {
    const fn ours_without_lease(deaths: u32) -> Self {
        Self::Ours { deaths, lease: None }
    }
}

impl Case<'_> {
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(self.began)
    }

    /// A decision on what is asked about, as it is kept and answered.
    pub(super) fn made(&self, decision: Decision) -> String {
        Decision { about: Some(self.about.clone()), ..decision }.to_json()
    }

    /// What is said to the store of a decision.
    pub(super) fn decides(&self, decision: &str, window: Duration) -> Request {
        Request::Decide { token: self.token, decision: decision.to_owned(), keep_ms: millis(window) }
    }

    /// The claim of the whole request.
    fn claim(&self, window: Duration) -> ClaimRequest {
        ClaimRequest::alone(self.token, DEATHS_MAX, LEASE, window)
    }

    /// How long a store that is away is waited for.
    fn patience(&self) -> Instant {
        (self.began + self.left() / 2).max(Instant::now() + PATIENCE_MIN)
    }
}

impl Worker {
    /// Claims a request; waits for a store that is away for as long as there is patience.
    pub(super) async fn claim_request(&self, case: &Case<'_>) -> Right {
        let request = case.claim(self.rules.window);
        let patience = case.patience();
        let holds = self.rules.when_away == WhenAway::Hold;
        // Before the store is taken to be back, what was decided without it is kept.
        let claim = self.claim(&case.key, &request, holds.then_some(patience));
        let answer = match timeout_at(patience, claim).await {
            Ok(Claimed::Won { deaths, lease, .. }) => return Right::Ours { deaths, lease: Some(lease) },
            Ok(Claimed::Known(answer)) => answer,
            Ok(Claimed::Unreadable) => return Right::ours_without_lease(0),
            Ok(Claimed::StoreAway) | Err(_) if !holds => return Right::ours_without_lease(0),
            Ok(Claimed::StoreAway) => return Right::Away,
            Err(_) => {
                // The call may have run: the claim's end must not be taken for a death.
                self.store.abandon(&case.key, case.token, request.floor_ms);
                return Right::Away;
            }
        };
        match answer {
            Answer::Decided { token, decision } => {
                // Earlier versions say it by the token only.
                let is_else = Decision::is_about_else(&decision, &case.about);
                let is_else = is_else.unwrap_or_else(|| token.body != case.event.body_digest);
                if is_else { Right::Conflict } else { Right::Kept(decision) }
            }
            Answer::Busy { lease_left_ms } => Right::Busy(Duration::from_millis(lease_left_ms.max(1))),
            Answer::Resume { deaths, .. } => Right::ours_without_lease(deaths),
            Answer::Won { .. }
            | Answer::Done { .. }
            | Answer::Superseded
            | Answer::Suspect { .. }
            | Answer::Ok
            | Answer::NotYours
            | Answer::Cancelled { .. } => Right::ours_without_lease(0),
        }
    }

    /// Keeps a decision; answers the one that is kept. Without an answer of the store there is none, unless this fleet goes
    /// on without its store.
    pub(super) async fn keep(&self, case: &Case<'_>, decision: String) -> String {
        let request = case.decides(&decision, self.rules.window);
        loop {
            match self.store.ask(&case.key, &request).await {
                Ok(Answer::Decided { decision, .. }) => return decision,
                Err(Unanswered::Away) if self.rules.when_away == WhenAway::Hold => {
                    sleep(LOOK_EVERY).await;
                    self.store.back().await;
                }
                Err(Unanswered::Away) => {
                    self.store.ask_later(&case.key, request);
                    return decision;
                }
                Ok(_) | Err(Unanswered::Unreadable) => return decision, // what is there cannot be told
            }
        }
    }

    /// Renews the claim until another worker has it. While the store does not answer it may end: a worker that takes over then
    /// asks again, and one decision is kept.
    pub(super) async fn taken_over(&self, case: &Case<'_>, lease: Option<Lease>) {
        let Some(mut lease) = lease else { return std::future::pending().await };
        while lease.keep(&self.store, &case.key).await != Lost::TakenOver {
            lease = Lease::new(&case.claim(self.rules.window), Instant::now());
        }
    }
}
