//! One invocation on its way: claim, execute, settle, apply. Interprets the stages of [`crate::domain::settle`].

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Worker;
use super::admission::Permit;
use super::held::Held;
use super::lease::{Gone, Lease};
use super::scene::{Message, Scene};
use super::store::Unanswered;
use crate::config::WhenAway;
use crate::crash;
use crate::domain::claim::{ClaimRequest, DeathLimits, Point, Request, Token, Verdict};
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::flaw::Flaw;
use crate::domain::hook::Hook;
use crate::domain::invocation::Invocation;
use crate::domain::message::{Lane, Outgoing, Queue};
use crate::domain::outcome::Outcome;
use crate::domain::settle::{self, Answer, Follow, Settlement, Stage, Tried, next_effect_with};
use crate::domain::time::millis;
use crate::telemetry::{Metric, now_ms};

/// Between two tries of bookkeeping that was not answered.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// A run without a claim cannot be guarded, so that its delivery is held until it ends: this leaves room to RabbitMQ's
/// default `consumer_timeout` of 30 minutes.
const PROCEED_TIMEOUT_MAX: Duration = Duration::from_mins(20);

/// One invocation in hand.
pub(super) struct Job<'w> {
    scene: Scene<'w>,
    state: settle::Job,
    token: Token,
    /// When the claim was asked for.
    claimed_at: Instant,
    permit: Option<Permit>,
    /// The delivery, until this invocation needs it no more.
    held: Option<&'w Held>,
}

impl<'w> Job<'w> {
    pub(super) fn new(
        worker: &'w Worker,
        hook: Arc<Hook>,
        invocation: Invocation,
        queue: Queue,
        hold_until: Instant,
        held: &'w Held,
    ) -> Self {
        let state = settle::Job { at: invocation.at, guarded: false, unprotected: false };
        let key = invocation.key();
        let token = fresh_token(&invocation);
        let gate = worker.admission.gate(&hook);
        let has_window = invocation.has_window.into();
        let scene = Scene { worker, hook, gate, invocation, key, queue, hold_until, has_window };
        Self { scene, state, token, claimed_at: Instant::now(), permit: None, held: Some(held) }
    }

    /// Takes the invocation to its end.
    pub(super) async fn drive(&mut self) {
        let Some(permit) = self.scene.admit().await else {
            release(&mut self.held);
            return;
        };
        self.permit = Some(permit);
        let _entered = self.scene.worker.running.enter(&self.scene.key, self.state.at);
        let mut stage = Stage::Claiming { repeat: false };
        while stage != Stage::Ended {
            let answer = self.perform(&stage).await;
            stage = next_effect_with(self.scene.worker.rules.flaw, &self.state, self.token, stage, answer);
        }
        self.permit = None; // the event's other jobs may go on for long
    }

    /// One effect; a guard is published beside it once the delivery has been held long enough.
    async fn perform(&mut self, stage: &Stage) -> Answer {
        match stage {
            Stage::Claiming { repeat } => {
                if !repeat {
                    self.token = fresh_token(&self.scene.invocation);
                }
                self.claimed_at = Instant::now();
            }
            Stage::Acking => {
                self.scene.crash(crash::Point::Marked);
                release(&mut self.held);
                return Answer::Acked;
            }
            Stage::Publishing(_) if self.scene.worker.rules.flaw == Flaw::AckBeforePublish => release(&mut self.held),
            Stage::Running { .. }
            | Stage::Recording { .. }
            | Stage::Publishing(_)
            | Stage::Marking { .. }
            | Stage::Releasing
            | Stage::Ended => {}
        }
        // A run without a claim has nothing to keep its guard from running it again: it holds its delivery instead.
        let may_be_guarded = !self.state.unprotected
            && matches!(stage, Stage::Running { .. } | Stage::Recording { .. } | Stage::Releasing);
        let (scene, permit) = (&self.scene, self.permit.as_ref());
        let run = Run { scene, permit, state: self.state, token: self.token, claimed_at: self.claimed_at };
        let mut effect = pin!(run.effect(stage));
        let answer = if may_be_guarded && !self.state.guarded {
            tokio::select! {
                biased;
                answer = &mut effect => answer,
                () = run.guard() => {
                    self.scene.crash(crash::Point::Guarded);
                    self.state.guarded = true;
                    if let Some(permit) = &self.permit {
                        permit.is_long();
                    }
                    release(&mut self.held);
                    effect.await
                }
            }
        } else {
            effect.await
        };
        self.state.unprotected |= answer == Answer::Proceed;
        answer
    }
}

fn release(held: &mut Option<&Held>) {
    if let Some(held) = held.take() {
        held.release();
    }
}

fn fresh_token(invocation: &Invocation) -> Token {
    Token { run: fastrand::u64(..), body: invocation.event.body_digest }
}

/// One effect of one run.
#[derive(Clone, Copy)]
struct Run<'a, 'w> {
    scene: &'a Scene<'w>,
    permit: Option<&'a Permit>,
    state: settle::Job,
    token: Token,
    claimed_at: Instant,
}

impl Run<'_, '_> {
    async fn effect(self, stage: &Stage) -> Answer {
        let at = self.state.at;
        match stage {
            Stage::Claiming { .. } => self.claim().await,
            Stage::Running { deaths } => {
                self.scene.crash(crash::Point::Claimed);
                let answer = self.execute(*deaths).await;
                self.scene.crash(crash::Point::Ran);
                answer
            }
            Stage::Recording { verdict, deaths } => {
                let wait_ms = if let Verdict::Next(next) = verdict { next.wait_ms() } else { 0 };
                let keep_ms = self.scene.floor_ms() + wait_ms;
                let (token, deaths, verdict) = (self.token, *deaths, verdict.clone());
                self.store(&Request::Settle { at, token, deaths, verdict, keep_ms }).await
            }
            Stage::Publishing(follow) => {
                self.scene.crash(crash::Point::Recorded);
                let answer = Box::pin(self.publish(follow)).await; // most runs end without: they need not have room for it
                self.scene.crash(crash::Point::Published);
                answer
            }
            Stage::Marking { at, token, wait_ms } => {
                let keep_ms = self.scene.floor_ms() + wait_ms;
                self.store(&Request::Advance { at: *at, token: *token, keep_ms }).await
            }
            Stage::Releasing => {
                self.store(&Request::Release { token: self.token, keep_ms: self.scene.floor_ms() }).await
            }
            Stage::Acking | Stage::Ended => Answer::Acked,
        }
    }

    async fn claim(self) -> Answer {
        let (worker, invocation) = (self.scene.worker, &self.scene.invocation);
        let may_proceed = worker.rules.when_away == WhenAway::Proceed
            && invocation.at.generation == 0
            && self.scene.hook.timeout <= PROCEED_TIMEOUT_MAX;
        if worker.store.away().borrow().is_none() {
            let request = Request::Claim(ClaimRequest {
                at: invocation.at,
                token: self.token,
                deaths: invocation.deaths,
                forced: invocation.forced,
                in_suspect: self.scene.queue == Queue::Lane(Lane::Suspect),
                limits: DeathLimits::default(),
                lease_ms: millis(worker.rules.lease),
                floor_ms: self.scene.floor_ms(),
            });
            match worker.store.ask(&self.scene.key, &request).await {
                Ok(answer) => {
                    self.scene.count_claim(&answer);
                    return Answer::Store(answer);
                }
                Err(Unanswered::Unreadable) => return Answer::HeldTooLong, // waiting here would not mend it
                Err(Unanswered::Away) => {}
            }
        }
        if may_proceed {
            return Answer::Proceed;
        }
        let back = async {
            sleep(REPEAT_AFTER).await;
            worker.store.back().await;
        };
        if timeout_at(self.scene.hold_until, back).await.is_ok() {
            return Answer::Unanswered;
        }
        // The claim may have been made: whoever claims next must not take its end for a death.
        worker.store.abandon(&self.scene.key, self.token, self.scene.floor_ms());
        Answer::HeldTooLong
    }

    async fn execute(self, deaths: u32) -> Answer {
        let Scene { worker, hook, invocation, key, .. } = self.scene;
        let (at_ms, began) = (now_ms(), Instant::now());
        let since = self.claimed_at;
        let lease = Lease { store: &worker.store, key, token: self.token, length: worker.rules.lease, since };
        let kept = async { if self.state.unprotected { std::future::pending().await } else { lease.keep().await } };
        if worker.rules.log_payloads {
            let payload = String::from_utf8_lossy(&invocation.event.body);
            self.scene.within(|| tracing::debug!(%payload, "running"));
        }
        let run = async {
            // Most hooks take all events: their runs need not have room for it.
            let is_its_turn = hook.once_per.is_none() || Box::pin(self.is_its_turn(deaths)).await;
            if is_its_turn { Some(worker.executors.run(hook, invocation).await) } else { None }
        };
        let outcome = tokio::select! {
            biased;
            outcome = run => outcome,
            gone = kept => match gone {
                Gone::Taken => {
                    self.scene.within(|| tracing::warn!("another worker has taken this run over: cancelled"));
                    return Answer::LeaseLost;
                }
                Gone::Ending => Some(Outcome::Interrupted),
            },
            () = worker.interrupt.cancelled() => Some(Outcome::Interrupted),
        };
        let Some(outcome) = outcome else {
            Metric::OncePerSkipped.count(&[("hook", hook.id.to_string())]);
            self.scene.within(|| tracing::debug!("another event like it has run this hook: done without a run"));
            return Answer::Ran(Settlement::Finish);
        };
        // Before anything is told or kept of it. A hook may show what is another's.
        let outcome = outcome.redacted(worker.catalog.borrow().secrets());
        let took = began.elapsed();
        if let Some(permit) = self.permit {
            worker.admission.ended(permit, &outcome);
        }
        let tried = Tried { attempt: self.state.at.attempt, spent: invocation.spent, at_ms, took };
        let settlement = settle::settle(&tried, outcome.clone(), &hook.retry, fastrand::f64());
        self.scene.report(&outcome, &settlement, took, deaths);
        Answer::Ran(settlement)
    }

    /// Whether no other event like this one has taken the window that they share. Whoever may have begun to run is not
    /// asked: its window may be over by now, and another's.
    async fn is_its_turn(self, deaths: u32) -> bool {
        let Scene { worker, hook, invocation, has_window, .. } = self.scene;
        let at_first = invocation.at == Point::first(0) && invocation.forced == 0 && deaths == 0;
        if !at_first || self.state.unprotected || has_window.load(Ordering::Relaxed) {
            return true;
        }
        let window = match Window::of(hook, &invocation.event) {
            Ok(Some(window)) => window,
            Ok(None) => return true,
            Err(error) => {
                worker.meters.condition_failed(&self.scene.gate.meters, "once_per.key", &error);
                return true; // that it runs too often is better than not at all
            }
        };
        loop {
            match worker.store.take(&window, invocation.event.digest).await {
                Ok(Taken::Ours) => {
                    has_window.store(true, Ordering::Relaxed);
                    return true;
                }
                Ok(Taken::Anothers) => return false,
                Err(Unanswered::Unreadable) => return true,
                Err(Unanswered::Away) if worker.rules.when_away == WhenAway::Proceed => return true,
                // The lease ends some time, and with it this.
                Err(Unanswered::Away) => {
                    sleep(REPEAT_AFTER).await;
                    worker.store.back().await;
                }
            }
        }
    }

    async fn store(self, request: &Request) -> Answer {
        let away = self.scene.worker.store.away().borrow().is_some();
        if !away && let Ok(answer) = self.scene.worker.store.ask(&self.scene.key, request).await {
            return Answer::Store(answer);
        }
        if !matches!(request, Request::Advance { .. }) {
            sleep(REPEAT_AFTER).await; // what cannot be repeated for ever need not wait either
        }
        Answer::Unanswered
    }

    async fn publish(self, follow: &Follow) -> Answer {
        let worker = self.scene.worker;
        match self.scene.follow(follow, self.state.unprotected) {
            Message::Out(outgoing) => worker.send(outgoing).await,
            Message::Dead(record) => worker.append(&record).await,
        }
        self.scene.count_published(follow);
        Answer::Confirmed
    }

    /// Publishes the same invocation once more, due when the lease ends, once the delivery has been held long enough.
    async fn guard(self) {
        sleep_until(self.scene.hold_until).await;
        Box::pin(self.publish_guard()).await;
    }

    async fn publish_guard(self) {
        let worker = self.scene.worker;
        let lease_ends = self.claimed_at + worker.rules.lease;
        let wait = self.scene.spread(lease_ends.saturating_duration_since(Instant::now()));
        let message = self.scene.again().message();
        worker.send(Outgoing::to_lane(self.scene.queue.lane(), wait, message)).await;
        Metric::Guards.count(&[]);
    }
}
