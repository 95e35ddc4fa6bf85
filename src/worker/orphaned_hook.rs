//! Invocations whose hook is not there to run them: it is disabled, or no longer in the catalog.

use std::time::Duration;

use super::Worker;
use super::claimant::Claimed;
use super::context::dropped_as_cancelled;
use super::set_aside::Aside;
use crate::broker::Delivery;
use crate::config::WhenAway;
use crate::domain::claim::{Answer, ClaimRequest, DeathLimits, Next, Request, Settlement, Token};
use crate::domain::dead_letter::{Cause, Letter};
use crate::domain::failure::Class;
use crate::domain::invocation::Invocation;
use crate::domain::message::LADDER_UNIT;
use crate::domain::settle::STORE_AWAY_WAIT;
use crate::domain::time::millis;
use crate::telemetry::now_ms;

impl Worker {
    /// Gives up an invocation whose hook is not there. It is claimed first, as for a run: what was finished by then is
    /// finished, and what is under way ends by itself. The dead letter goes out before the ack, so that nothing is lost in
    /// between.
    pub(super) async fn give_up_orphan(&self, delivery: &Delivery, invocation: &Invocation, class: Class) {
        let key = invocation.key();
        let at = invocation.at;
        let token = Token { run: fastrand::u64(..), body: invocation.event.body_digest };
        let keep_ms = self.floor_ms(invocation);
        let request = ClaimRequest {
            at,
            token,
            deaths: invocation.deaths,
            forced: invocation.forced,
            in_suspect: true, // nothing is run that could kill a worker
            limits: DeathLimits::default(),
            lease_ms: millis(self.rules.lease),
            floor_ms: keep_ms,
        };
        let cause =
            Cause { class, report: None, unprotected: false, deaths: invocation.deaths, target: None, foreign: None };
        let letter = || Letter::of_invocation(invocation, at, cause, delivery.queue.name(), now_ms());
        match self.claim(&key, &request, None).await {
            Claimed::Known(Answer::Done { .. }) => {
                if at.generation > 0 {
                    self.resolve_letter(invocation).await;
                }
            }
            Claimed::Known(Answer::Superseded) => {}
            Claimed::Known(Answer::Cancelled { .. }) => {
                dropped_as_cancelled(invocation);
                if at.generation > 0 {
                    self.close_letter(invocation).await;
                }
            }
            Claimed::Known(Answer::Busy { lease_left_ms }) => {
                let wait = Duration::from_millis(lease_left_ms).max(LADDER_UNIT);
                return self.set_aside(delivery, Aside::Later(wait)).await;
            }
            Claimed::Won { deaths, .. } => {
                // Without an answer the letter goes out all the same, and the claim ends with its lease.
                let settlement = Settlement::Next(Next::Bury { class, report: None });
                let _ = self.store.ask(&key, &Request::Settle { at, token, deaths, settlement, keep_ms }).await;
                self.dead_letter(letter(), "its hook is not there").await;
                let _ = self.store.ask(&key, &Request::Advance { at, token, keep_ms }).await;
            }
            Claimed::StoreAway if self.rules.when_away == WhenAway::Hold => {
                return self.set_aside(delivery, Aside::Later(STORE_AWAY_WAIT)).await;
            }
            Claimed::Known(_) | Claimed::StoreAway | Claimed::Unreadable => {
                self.dead_letter(letter(), "its hook is not there").await;
            }
        }
        self.broker.ack(delivery.receipt);
    }

    /// How long the end of an invocation is remembered, in milliseconds: of a replay as long as dead letters are kept.
    pub(super) fn floor_ms(&self, invocation: &Invocation) -> u64 {
        let kept = if invocation.at.generation == 0 { self.rules.window } else { self.rules.retention };
        // A guard comes when a lease is over: what is forgotten before that would be run again.
        millis(kept.max(self.rules.lease * 2))
    }
}
