//! Who decides a request, and which decision is everybody's.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::super::Worker;
use super::super::lease::{Gone, Lease};
use super::super::store::Unanswered;
use super::{DEATHS_MAX, LOOK_EVERY};
use crate::config::WhenAway;
use crate::domain::claim::{Answer, ClaimRequest, Request, Token};
use crate::domain::event::Event;
use crate::domain::id::InvocationKey;
use crate::domain::time::millis;
use crate::telemetry::Metric;

/// A worker that decides renews its claim every third of this.
const LEASE: Duration = Duration::from_secs(1);
/// A store that does not answer is given this long beyond the time that there is for it.
const PATIENCE_MIN: Duration = Duration::from_millis(250);

/// What was found on the way to a claim.
pub(super) enum Claimed {
    /// Decide it; `is_held` under the claim.
    Ours {
        deaths: u32,
        is_held: bool,
    },
    Kept(String),
    /// Another worker decides it.
    Busy(Duration),
    /// The store does not come back in time.
    Away,
}

/// A request on its way to a decision.
pub(super) struct Case<'a> {
    pub(super) event: &'a Arc<Event>,
    pub(super) key: InvocationKey,
    pub(super) token: Token,
    /// Another worker was at it when this one looked last.
    pub(super) is_others: AtomicBool,
    pub(super) began: Instant,
    pub(super) until: Instant,
}

impl Case<'_> {
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(self.began)
    }

    /// What is said to the store of a decision.
    pub(super) fn decides(&self, decision: &str, window: Duration) -> Request {
        Request::Decide { token: self.token, decision: decision.to_owned(), keep_ms: millis(window) }
    }

    /// How long a store that is away is waited for.
    fn patience(&self) -> Instant {
        (self.began + self.left() / 2).max(Instant::now() + PATIENCE_MIN)
    }
}

impl Worker {
    /// One try for the claim of a request; waits for a store that is away for as long as there is patience.
    pub(super) async fn claim_request(&self, case: &Case<'_>) -> Claimed {
        let unheld = |deaths| Claimed::Ours { deaths, is_held: false };
        let request = Request::Claim(ClaimRequest::alone(case.token, DEATHS_MAX, LEASE, self.rules.window));
        let patience = case.patience();
        let holds = self.rules.when_away == WhenAway::Hold;
        let answer = loop {
            // Before it is taken to be back, what was decided without it is kept.
            if holds && timeout_at(patience, self.store.back()).await.is_err() {
                return Claimed::Away;
            }
            match timeout_at(patience, self.store.ask(&case.key, &request)).await {
                Ok(Ok(answer)) => break answer,
                Ok(Err(Unanswered::Unreadable)) => return unheld(0),
                Ok(Err(Unanswered::Away)) | Err(_) if !holds => return unheld(0),
                Ok(Err(Unanswered::Away)) => {}
                Err(_) => {
                    // It may have been made: its end is not to be taken for a death.
                    self.store.abandon(&case.key, case.token, millis(self.rules.window));
                    return Claimed::Away;
                }
            }
        };
        self.meters.claimed(&answer);
        match answer {
            Answer::Won { deaths, .. } => Claimed::Ours { deaths, is_held: true },
            Answer::Decided { token, decision } => {
                if token.body != case.event.body_digest {
                    Metric::EventsConflicting.count(&[]);
                    tracing::warn!(
                        event = case.event.id,
                        "a request with this source and id but another body was decided before"
                    );
                }
                Claimed::Kept(decision)
            }
            Answer::Busy { lease_left_ms } => Claimed::Busy(Duration::from_millis(lease_left_ms.max(1))),
            Answer::Resume { deaths, .. } => unheld(deaths),
            Answer::Done { .. }
            | Answer::Superseded
            | Answer::Suspect { .. }
            | Answer::Ok
            | Answer::NotYours
            | Answer::Cancelled { .. } => unheld(0),
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

    /// Renews the claim until another worker has it. While the store does not answer it may end: whoever takes over then asks
    /// again, and one decision is kept.
    pub(super) async fn taken_over(&self, case: &Case<'_>, is_held: bool) {
        if !is_held {
            return std::future::pending().await;
        }
        loop {
            let Case { key, token, .. } = case;
            let lease = Lease { store: &self.store, key, token: *token, length: LEASE, since: Instant::now() };
            if lease.keep().await == Gone::Taken {
                return;
            }
        }
    }
}
