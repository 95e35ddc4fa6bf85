//! Work whose hook is not there to do it: it is disabled, or no longer in the catalog.

use std::time::Duration;

use super::store::Unanswered;
use super::{Aside, Worker, resolved};
use crate::broker::Delivery;
use crate::config::WhenAway;
use crate::domain::claim::{Answer, ClaimRequest, DeathLimits, Next, Request, Token, Verdict};
use crate::domain::dead_letter::{Cause, Letter, Record, Subject};
use crate::domain::failure::Class;
use crate::domain::invocation::Invocation;
use crate::domain::message::LADDER_UNIT;
use crate::domain::settle::STORE_AWAY_WAIT;
use crate::domain::time::millis;
use crate::telemetry::now_ms;

impl Worker {
    /// Gives up an invocation that its hook is not there for. It is claimed first, as for a run: what was finished by
    /// then is finished, and what is under way ends by itself. The letter goes out before the ack, so that nothing is lost
    /// in between.
    pub(super) async fn bury(&self, delivery: &Delivery, invocation: &Invocation, class: Class) {
        let (key, at) = (invocation.key(), invocation.at);
        let token = Token { run: fastrand::u64(..), body: invocation.event.body_digest };
        let keep_ms = self.floor_ms(invocation);
        let claim = Request::Claim(ClaimRequest {
            at,
            token,
            deaths: invocation.deaths,
            forced: invocation.forced,
            in_suspect: true, // nothing is run that could kill anybody
            limits: DeathLimits::default(),
            lease_ms: millis(self.rules.lease),
            floor_ms: keep_ms,
        });
        let letter = || {
            let cause = Cause { class, report: None, unprotected: false, deaths: invocation.deaths, target: None };
            let letter = Letter::of_invocation(invocation, at, cause, delivery.queue.name(), now_ms());
            Record::Letter(Box::new(letter))
        };
        let answer = self.store.ask(&key, &claim).await;
        if let Ok(answer) = &answer {
            self.meters.claimed(answer);
        }
        match answer {
            Ok(Answer::Done { .. }) => {
                if at.generation > 0 {
                    self.append(&resolved(Subject::of(&key), at.generation)).await;
                }
            }
            Ok(Answer::Superseded) => {}
            Ok(Answer::Busy { lease_left_ms }) => {
                let wait = Duration::from_millis(lease_left_ms).max(LADDER_UNIT);
                return self.put_aside(delivery, Aside::Later(wait)).await;
            }
            Ok(Answer::Won { deaths, .. }) => {
                // If this is not answered the letter is out all the same, and the claim ends with its lease.
                let verdict = Verdict::Next(Next::Bury { class, report: None });
                let _ = self.store.ask(&key, &Request::Settle { at, token, deaths, verdict, keep_ms }).await;
                self.meters.buried(class, Some(key.hook.as_str()));
                self.append(&letter()).await;
                let _ = self.store.ask(&key, &Request::Advance { at, token, keep_ms }).await;
            }
            Err(Unanswered::Away) if self.rules.when_away == WhenAway::Hold => {
                self.store.abandon(&key, token, keep_ms); // it may have been made
                return self.put_aside(delivery, Aside::Later(STORE_AWAY_WAIT)).await;
            }
            Ok(_) | Err(_) => {
                self.meters.buried(class, Some(key.hook.as_str()));
                self.append(&letter()).await;
            }
        }
        self.broker.ack(delivery.receipt);
    }

    /// How long it is kept in mind what became of an invocation.
    pub(super) fn floor_ms(&self, invocation: &Invocation) -> u64 {
        let kept = if invocation.at.generation == 0 { self.rules.window } else { self.rules.retention };
        // A guard comes when a lease is over: what is forgotten before that would be run again.
        millis(kept.max(self.rules.lease * 2))
    }
}
