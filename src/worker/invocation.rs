//! One invocation on its way: claim, execute, settle, apply. Carries out the stages of [`crate::domain::settle`].

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::ack_latch::AckHold;
use super::admission::Permit;
use super::claimant::{Claimed, Lease, Lost};
use super::context::InvocationContext;
use super::store::Unanswered;
use crate::config::WhenAway;
use crate::dialect;
use crate::domain::claim::{self, Next, Point, Request, Settlement, Token};
use crate::domain::dead_letter::Cause;
use crate::domain::dedup_window::{Taken, Window};
use crate::domain::invocation::Invocation;
use crate::domain::message::{Destination, Lane, Outgoing};
use crate::domain::outcome::Outcome;
use crate::domain::settle::{self, Answer, Follow, Progress, Stage, Tried};
use crate::failpoint;
use crate::telemetry::{Metric, now_ms};

/// Between two tries of bookkeeping that was not answered.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// A run without a claim cannot be guarded, so that its delivery is held until it ends: this leaves room to RabbitMQ's
/// default `consumer_timeout` of 30 minutes.
const PROCEED_TIMEOUT_MAX: Duration = Duration::from_mins(20);

/// One invocation in hand: its context, and how far it is.
pub(super) struct InvocationRun<'w> {
    context: InvocationContext<'w>,
    progress: Progress,
    token: Token,
    /// The claim of the run; `None` before it is won, and where the run goes without one.
    lease: Option<Lease>,
    permit: Option<Permit>,
    /// The delivery, until this invocation needs it no more.
    delivery: AckHold<'w>,
    /// It has taken the window of its hook's `once_per`.
    has_window: AtomicBool,
}

impl<'w> InvocationRun<'w> {
    pub(super) fn new(context: InvocationContext<'w>, delivery: AckHold<'w>) -> Self {
        let invocation = &context.invocation;
        let progress = Progress { at: invocation.at, guarded: false, unprotected: false };
        let token = fresh_token(invocation);
        let has_window = invocation.has_window.into();
        Self { progress, token, lease: None, permit: None, delivery, has_window, context }
    }

    /// Takes the invocation to its end.
    pub(super) async fn drive(&mut self) {
        let Some(permit) = self.context.admit().await else { return self.delivery.release() };
        self.permit = Some(permit);
        let worker = self.context.worker;
        let _entered = worker.in_flight.enter(&self.context.key, self.progress.at);
        let mut stage = Stage::Claiming { repeat: false };
        while stage != Stage::Ended {
            let answer = self.perform(&stage).await;
            self.progress.unprotected |= answer == Answer::Proceed;
            stage = (worker.rules.protocol.next_effect)(&self.progress, self.token, stage, answer);
        }
        self.permit = None; // the event's other hooks may go on for long
    }

    /// Carries out one stage.
    async fn perform(&mut self, stage: &Stage) -> Answer {
        match stage {
            Stage::Claiming { repeat } => self.claim(*repeat).await,
            Stage::Running { deaths } => {
                self.context.reached(failpoint::Point::Claimed);
                let ran = beside_guard(&*self, self.execute(*deaths)).await;
                self.context.reached(failpoint::Point::Ran);
                self.noted(ran)
            }
            Stage::Recording { settlement, deaths } => {
                let wait_ms = if let Settlement::Next(next) = settlement { next.wait_ms() } else { 0 };
                let keep_ms = self.context.floor_ms() + wait_ms;
                let (at, token, deaths) = (self.progress.at, self.token, *deaths);
                let request = Request::Settle { at, token, deaths, settlement: settlement.clone(), keep_ms };
                let recorded = beside_guard(&*self, self.ask(&request)).await;
                self.noted(recorded)
            }
            Stage::Publishing(follow) => {
                self.context.reached(failpoint::Point::Recorded);
                Box::pin(self.publish(follow)).await; // most runs end without: they need not have room for it
                self.context.reached(failpoint::Point::Published);
                Answer::Confirmed
            }
            Stage::Marking { at, token, wait_ms } => {
                let keep_ms = self.context.floor_ms() + wait_ms;
                self.ask(&Request::Advance { at: *at, token: *token, keep_ms }).await
            }
            Stage::Releasing => {
                let request = Request::Release { token: self.token, keep_ms: self.context.floor_ms() };
                let released = beside_guard(&*self, self.ask(&request)).await;
                self.noted(released)
            }
            Stage::Acking => {
                self.context.reached(failpoint::Point::Marked);
                self.delivery.release();
                Answer::Acked
            }
            Stage::Ended => Answer::Acked,
        }
    }

    async fn claim(&mut self, repeat: bool) -> Answer {
        let InvocationContext { worker, hook, invocation, key, hold_until, .. } = &self.context;
        if !repeat {
            self.token = fresh_token(invocation);
        }
        let may_proceed = worker.rules.when_away == WhenAway::Proceed
            && invocation.at.generation == 0
            && hook.timeout <= PROCEED_TIMEOUT_MAX;
        let patience = if may_proceed { None } else { Some(*hold_until) };
        match worker.claim(key, &self.context.claim_request(self.token), patience).await {
            Claimed::Won { lease, deaths, taken_over } => {
                self.lease = Some(lease);
                let won = claim::Answer::Won { deaths, taken_over };
                if taken_over {
                    self.context.log_claim(&won);
                }
                Answer::Store(won)
            }
            Claimed::Known(answer) => {
                self.context.log_claim(&answer);
                Answer::Store(answer)
            }
            Claimed::StoreAway if may_proceed => Answer::Proceed,
            Claimed::StoreAway | Claimed::Unreadable => Answer::HeldTooLong, // waiting here would not mend it
        }
    }

    /// Whether a guard may be published beside a stage. A run without a claim has nothing that keeps its guard from running
    /// it again: it holds its delivery instead.
    const fn may_be_guarded(&self) -> bool {
        !self.progress.unprotected && !self.progress.guarded
    }

    fn noted(&mut self, (answer, guarded): (Answer, bool)) -> Answer {
        self.progress.guarded |= guarded;
        answer
    }

    async fn execute(&self, deaths: u32) -> Answer {
        let InvocationContext { worker, hook, invocation, key, .. } = &self.context;
        let at_ms = now_ms();
        let began = Instant::now();
        if let Some(payload) = worker.rules.shown(&invocation.event.body, worker.catalog.borrow().secrets()) {
            self.context.within(|| tracing::debug!(payload, "running"));
        }
        let run = async {
            // Most hooks take all events: their runs need not have room for it.
            let is_its_turn = hook.once_per.is_none() || Box::pin(self.is_its_turn(deaths)).await;
            if is_its_turn { Some(worker.executors.run(hook, invocation).await) } else { None }
        };
        let lost = async {
            match self.lease.filter(|_| !self.progress.unprotected) {
                Some(lease) => lease.keep(&worker.store, key).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = run => outcome,
            lost = lost => match lost {
                Lost::TakenOver => {
                    self.context.within(|| tracing::warn!("another worker has taken this run over: cancelled"));
                    return Answer::LeaseLost;
                }
                Lost::Ending => Some(Outcome::Interrupted),
            },
            () = worker.interrupt.cancelled() => Some(Outcome::Interrupted),
        };
        let Some(outcome) = outcome else {
            Metric::OncePerSkipped.count(&[("hook", hook.id.to_string())]);
            self.context.within(|| tracing::debug!("another event like it has run this hook: done without a run"));
            return Answer::Ran(Settlement::Done);
        };
        // Before anything is logged or kept of it: a hook may show the secret of another one.
        let outcome = outcome.redacted(worker.catalog.borrow().secrets());
        let took = began.elapsed();
        if let Some(permit) = &self.permit {
            worker.admission.ended(permit, &outcome);
        }
        let tried = Tried { attempt: self.progress.at.attempt, spent: invocation.spent, at_ms, took };
        let settlement = settle::settle(&tried, outcome.clone(), &hook.retry, fastrand::f64());
        self.context.report(&outcome, settlement.as_ref(), took, deaths);
        settlement.map_or(Answer::Interrupted, Answer::Ran)
    }

    /// Whether no other event like this one has taken the window that they share. A run that may have begun before does not
    /// ask: its window may be over by now, and another event's. One that was interrupted, and whose delivery knows nothing of
    /// that, is remembered by the store.
    async fn is_its_turn(&self, deaths: u32) -> bool {
        let InvocationContext { worker, hook, gate, invocation, .. } = &self.context;
        let at_first = invocation.at == Point::first(0) && invocation.forced == 0 && deaths == 0;
        if !at_first || self.progress.unprotected || self.has_window.load(Ordering::Relaxed) {
            return true;
        }
        let window = match Window::of(hook, &invocation.event) {
            Ok(Some(window)) => window,
            Ok(None) => return true,
            Err(error) => {
                worker.metrics.condition_failed(&gate.metrics, "once_per.key", &error);
                return true; // to run too often is better than not at all
            }
        };
        loop {
            match worker.store.take(&window, invocation.event.digest, self.context.floor_ms()).await {
                Ok(Taken::Ours) => {
                    self.has_window.store(true, Ordering::Relaxed);
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

    async fn ask(&self, request: &Request) -> Answer {
        let InvocationContext { worker, key, .. } = &self.context;
        let is_away = worker.store.away().borrow().is_some();
        if !is_away && let Ok(answer) = worker.store.ask(key, request).await {
            return Answer::Store(answer);
        }
        if !matches!(request, Request::Advance { .. }) {
            sleep(REPEAT_AFTER).await; // a mark is not repeated, so that it need not wait either
        }
        Answer::Unanswered
    }

    /// Publishes what follows, and returns once the broker has it.
    async fn publish(&self, follow: &Follow) {
        let InvocationContext { worker, hook, invocation, queue, .. } = &self.context;
        match follow {
            Follow::Again { wait_ms } => {
                let wait = self.context.spread(Duration::from_millis(*wait_ms));
                worker.send(Outgoing::to_lane(queue.lane(), wait, self.again().message())).await;
            }
            Follow::Behind { wait_ms } => {
                let wait = self.context.spread(Duration::from_millis(*wait_ms));
                worker.send(Outgoing::behind(queue.lane(), wait, self.again().message())).await;
            }
            Follow::Suspect { deaths } => {
                let invocation = Invocation { deaths: *deaths, ..self.again() };
                worker.send(Outgoing::to_lane(Lane::Suspect, Duration::ZERO, invocation.message())).await;
            }
            Follow::Resolved => worker.resolve_letter(invocation).await,
            Follow::Cancelled => worker.close_letter(invocation).await,
            Follow::Next { at, deaths, next: Next::Retry { delay_ms, spent_ms, report }, .. } => {
                let spent = Duration::from_millis(*spent_ms);
                let next = invocation.next(*at, *deaths, spent, report.as_ref());
                let delay = Duration::from_millis(*delay_ms);
                worker.send(Outgoing::to_lane(self.context.home(), delay, next.message())).await;
                Metric::Retries.count(&[("hook", hook.id.to_string())]);
            }
            Follow::Next { at, deaths, next: Next::Bury { class, report }, .. } => {
                let (target, foreign) = (Some(hook.action.target()), dialect::foreign_hook(hook));
                let (report, unprotected) = (report.clone(), self.progress.unprotected);
                let error = report.as_ref().map_or_else(|| class.name(), |report| report.error.clone());
                if let Some(message) = dialect::warning(hook, invocation, &error) {
                    worker.send(Outgoing { to: Destination::Events, delay: Duration::ZERO, message }).await;
                }
                let cause = Cause { class: *class, report, unprotected, deaths: *deaths, target, foreign };
                worker.dead_letter(self.context.letter(*at, cause), "its attempts are over").await;
            }
        }
    }

    /// The same invocation once more, with what it has by now.
    fn again(&self) -> Invocation {
        let has_window = self.has_window.load(Ordering::Relaxed);
        Invocation { has_window, ..self.context.invocation.clone() }
    }

    /// Publishes the same invocation once more, due when the lease ends.
    async fn publish_guard(&self) {
        let worker = self.context.worker;
        let lease_ends = self.lease.map_or_else(Instant::now, |lease| lease.ends_at());
        let wait = self.context.spread(lease_ends.saturating_duration_since(Instant::now()));
        let message = self.again().message();
        worker.send(Outgoing::behind(self.context.queue.lane(), wait, message)).await;
        Metric::Guards.count(&[]);
    }
}

/// A stage, and beside it, once the delivery has been held long enough, a guard that stands in for the delivery. Answers
/// what the stage came to, and whether there is a guard now.
async fn beside_guard(run: &InvocationRun<'_>, stage: impl Future<Output = Answer>) -> (Answer, bool) {
    if !run.may_be_guarded() {
        return (stage.await, false);
    }
    let mut stage = pin!(stage);
    let guard = async {
        sleep_until(run.context.hold_until).await;
        Box::pin(run.publish_guard()).await;
    };
    tokio::select! {
        biased;
        answer = &mut stage => return (answer, false),
        () = guard => {}
    }
    run.context.reached(failpoint::Point::Guarded);
    if let Some(permit) = &run.permit {
        permit.is_long();
    }
    run.delivery.release();
    (stage.await, true)
}

fn fresh_token(invocation: &Invocation) -> Token {
    Token { run: fastrand::u64(..), body: invocation.event.body_digest }
}
