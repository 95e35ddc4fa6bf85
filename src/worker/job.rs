//! One invocation on its way: claim, execute, settle, apply. Interprets the stages of [`crate::domain::settle`].

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Worker;
use super::lease::{Gone, Lease};
use crate::config::WhenAway;
use crate::crash;
use crate::domain::claim::{self, ClaimRequest, DeathLimits, Point, Request, Token, Verdict};
use crate::domain::dead_letter::{Cause, Letter, Mark, Record, Subject};
use crate::domain::hook::Hook;
use crate::domain::invocation::{Invocation, InvocationKey};
use crate::domain::message::{Lane, Outgoing, Queue};
use crate::domain::outcome::Outcome;
use crate::domain::settle::{self, Answer, Follow, Next, Settlement, Stage, Tried, millis, next_effect};
use crate::telemetry::Metric;

/// Between two tries of bookkeeping that was not answered.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// An invocation without a permit goes round the ladder for this long, plus up to as much again.
const NO_PERMIT_WAIT: Duration = Duration::from_secs(2);

/// One invocation in hand.
pub(super) struct Job<'w> {
    scene: Scene<'w>,
    state: settle::Job,
    token: Token,
    /// When the claim was asked for.
    claimed_at: Instant,
    /// Says that the delivery no longer needs to be kept for this invocation.
    released: mpsc::Sender<()>,
}

/// What does not change while the job runs.
struct Scene<'w> {
    worker: &'w Worker,
    hook: Arc<Hook>,
    invocation: Invocation,
    key: InvocationKey,
    queue: Queue,
    hold_until: Instant,
}

impl<'w> Job<'w> {
    pub(super) fn new(
        worker: &'w Worker,
        hook: Arc<Hook>,
        invocation: Invocation,
        queue: Queue,
        hold_until: Instant,
        released: mpsc::Sender<()>,
    ) -> Self {
        let state = settle::Job { at: invocation.at, guarded: false, unprotected: false };
        let key = invocation.key();
        let token = fresh_token(&invocation);
        let scene = Scene { worker, hook, invocation, key, queue, hold_until };
        Self { scene, state, token, claimed_at: Instant::now(), released }
    }

    /// Takes the invocation to its end.
    pub(super) async fn drive(mut self) {
        let Some(_permit) = self.scene.admit().await else {
            self.release();
            return;
        };
        let mut stage = Stage::Claiming { repeat: false };
        while stage != Stage::Ended {
            let answer = self.perform(&stage).await;
            stage = next_effect(&self.state, self.token, stage, answer);
        }
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
                self.release();
                return Answer::Acked;
            }
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
        let run = Run { scene: &self.scene, state: self.state, token: self.token, claimed_at: self.claimed_at };
        let effect = run.effect(stage);
        tokio::pin!(effect);
        let answer = if may_be_guarded && !self.state.guarded {
            tokio::select! {
                biased;
                answer = &mut effect => answer,
                () = run.guard() => {
                    self.scene.crash(crash::Point::Guarded);
                    self.state.guarded = true;
                    let _ = self.released.try_send(());
                    effect.await
                }
            }
        } else {
            effect.await
        };
        self.state.unprotected |= answer == Answer::Proceed;
        answer
    }

    fn release(&self) {
        let _ = self.released.try_send(()); // there is room for one message a job
    }
}

fn fresh_token(invocation: &Invocation) -> Token {
    Token { run: fastrand::u64(..), body: invocation.event.body_digest }
}

/// One effect of one run.
#[derive(Clone, Copy)]
struct Run<'a, 'w> {
    scene: &'a Scene<'w>,
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
                let keep_ms = self.scene.floor_ms() + follow_ms(verdict);
                let (token, deaths, verdict) = (self.token, *deaths, verdict.clone());
                self.store(&Request::Settle { at, token, deaths, verdict, keep_ms }).await
            }
            Stage::Publishing(follow) => {
                self.scene.crash(crash::Point::Recorded);
                let answer = self.publish(follow).await;
                self.scene.crash(crash::Point::Published);
                answer
            }
            Stage::Marking { at, token } => {
                let keep_ms = self.scene.floor_ms();
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
        let may_proceed = worker.rules.when_away == WhenAway::Proceed && invocation.at.generation == 0;
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
            if let Some(answer) = worker.store.ask(&self.scene.key, &request).await {
                self.scene.count_claim(&answer);
                return Answer::Store(answer);
            }
        }
        if may_proceed {
            return Answer::Proceed;
        }
        let back = async {
            sleep(REPEAT_AFTER).await;
            worker.store.back().await;
        };
        match timeout_at(self.scene.hold_until, back).await {
            Ok(()) => Answer::Unanswered,
            Err(_) => Answer::HeldTooLong,
        }
    }

    async fn execute(self, deaths: u32) -> Answer {
        let Scene { worker, hook, invocation, key, .. } = self.scene;
        let (at_ms, began) = (now_ms(), Instant::now());
        let since = self.claimed_at;
        let lease = Lease { store: &worker.store, key, token: self.token, length: worker.rules.lease, since };
        let kept = async { if self.state.unprotected { std::future::pending().await } else { lease.keep().await } };
        let running = worker.running.enter(key, self.state.at);
        let outcome = tokio::select! {
            outcome = worker.executors.run(hook, invocation) => outcome,
            gone = kept => match gone {
                Gone::Taken => {
                    tracing::warn!("another worker has taken this run over: cancelled");
                    return Answer::LeaseLost;
                }
                Gone::Ending => Outcome::Interrupted,
            },
            () = worker.interrupt.cancelled() => Outcome::Interrupted,
        };
        drop(running);
        let took = began.elapsed();
        let tried = Tried { attempt: self.state.at.attempt, spent: invocation.spent, at_ms, took };
        let settlement = settle::settle(&tried, outcome.clone(), &hook.retry, fastrand::f64());
        self.scene.report(&outcome, &settlement, took, deaths);
        Answer::Ran(settlement)
    }

    async fn store(self, request: &Request) -> Answer {
        let away = self.scene.worker.store.away().borrow().is_some();
        if !away && let Some(answer) = self.scene.worker.store.ask(&self.scene.key, request).await {
            return Answer::Store(answer);
        }
        if !matches!(request, Request::Advance { .. }) {
            sleep(REPEAT_AFTER).await; // what cannot be repeated for ever need not wait either
        }
        Answer::Unanswered
    }

    async fn publish(self, follow: &Follow) -> Answer {
        let sent = match self.scene.follow(follow, self.state.unprotected) {
            Message::Out(outgoing) => {
                self.scene.worker.broker.publish(outgoing).await.map_err(|error| error.to_string())
            }
            Message::Dead(record) => self.scene.worker.letters.append(&record).await.map_err(|error| error.to_string()),
        };
        match sent {
            Ok(()) => {
                self.scene.count_published(follow);
                Answer::Confirmed
            }
            Err(reason) => {
                Metric::PublishRepeated.count(&[]);
                tracing::debug!(reason, "not published, trying again");
                sleep(REPEAT_AFTER).await;
                Answer::Unconfirmed
            }
        }
    }

    /// Publishes the same invocation once more, due when the lease ends, once the delivery has been held long enough.
    async fn guard(self) {
        sleep_until(self.scene.hold_until).await;
        let worker = self.scene.worker;
        let lease_ends = self.claimed_at + worker.rules.lease;
        let wait = lease_ends.saturating_duration_since(Instant::now());
        let message = self.scene.invocation.message();
        worker.send(Outgoing::to_lane(self.scene.queue.lane(), wait, message)).await;
        Metric::Guards.count(&[]);
    }
}

/// What is published for a [`Follow`].
enum Message {
    Out(Outgoing),
    Dead(Record),
}

impl Scene<'_> {
    fn crash(&self, point: crash::Point) {
        point.reached(&self.invocation.event.id);
    }

    /// Waits for a permit; without one the invocation goes round the ladder, and no attempt is spent.
    async fn admit(&self) -> Option<super::permits::Permit> {
        let permit = self.worker.permits.admit(&self.hook, self.hold_until).await;
        if permit.is_none() {
            Metric::Waited.count(&[("hook", self.hook.id.to_string())]);
            let wait = NO_PERMIT_WAIT.mul_f64(1.0 + fastrand::f64());
            let message = self.invocation.message();
            self.worker.send(Outgoing::to_lane(self.queue.lane(), wait, message)).await;
        }
        permit
    }

    /// How long a claim is remembered: replays as long as the letters that they come from.
    fn floor_ms(&self) -> u64 {
        let rules = &self.worker.rules;
        millis(if self.invocation.at.generation == 0 { rules.window } else { rules.retention })
    }

    fn follow(&self, follow: &Follow, unprotected: bool) -> Message {
        let lane = self.queue.lane();
        match follow {
            Follow::Again { wait_ms } => {
                let wait = Duration::from_millis(*wait_ms);
                Message::Out(Outgoing::to_lane(lane, wait, self.invocation.message()))
            }
            Follow::Suspect { deaths } => {
                let invocation = Invocation { deaths: *deaths, ..self.invocation.clone() };
                Message::Out(Outgoing::to_lane(Lane::Suspect, Duration::ZERO, invocation.message()))
            }
            Follow::Resolved => Message::Dead(Record::Resolved(Mark {
                subject: Subject::of(&self.key),
                generation: self.invocation.at.generation,
                at_ms: now_ms(),
                by: "worker".to_owned(),
                reason: None,
            })),
            Follow::Next { at, deaths, next: Next::Retry { delay_ms, spent_ms, report }, .. } => {
                let spent = Duration::from_millis(*spent_ms);
                let next = self.invocation.next(*at, *deaths, spent, report.as_ref());
                let lane = if lane == Lane::Suspect { Lane::Default } else { lane };
                Message::Out(Outgoing::to_lane(lane, Duration::from_millis(*delay_ms), next.message()))
            }
            Follow::Next { at, deaths, next: Next::Bury { class, report }, .. } => {
                let target = Some(self.hook.action.target());
                let cause = Cause { class: *class, report: report.clone(), unprotected, deaths: *deaths, target };
                let letter = Letter::of_invocation(&self.invocation, *at, cause, self.queue.name(), now_ms());
                tracing::warn!(letter = %letter.id, class = ?class, error = letter.error, "given up");
                Message::Dead(Record::Letter(Box::new(letter)))
            }
        }
    }

    fn count_published(&self, follow: &Follow) {
        match follow {
            Follow::Next { next: Next::Retry { .. }, .. } => {
                Metric::Retries.count(&[("hook", self.hook.id.to_string())]);
            }
            Follow::Next { next: Next::Bury { class, .. }, .. } => super::count_letter(*class),
            Follow::Resolved | Follow::Again { .. } | Follow::Suspect { .. } => {}
        }
    }

    fn count_claim(&self, answer: &claim::Answer) {
        let name = match answer {
            claim::Answer::Won { taken_over: true, .. } => "takeover",
            claim::Answer::Won { .. } => "won",
            claim::Answer::Done { token } => {
                if token.body != self.invocation.event.body_digest {
                    Metric::EventsConflicting.count(&[]);
                    tracing::warn!("an event with this source and id but another body was handled before: dropped");
                }
                "done"
            }
            claim::Answer::Superseded => "superseded",
            claim::Answer::Busy { .. } => "busy",
            claim::Answer::Resume { .. } => "resume",
            claim::Answer::Suspect { .. } => "suspect",
            claim::Answer::Ok | claim::Answer::NotYours => "other",
        };
        Metric::Claims.count(&[("answer", name.to_owned())]);
        if name != "won" {
            tracing::debug!(answer = name, "claim");
        }
    }

    /// Tells of an attempt: metrics, a log line, and whoever listens.
    fn report(&self, outcome: &Outcome, settlement: &Settlement, took: Duration, deaths: u32) {
        let (name, error) = match outcome {
            Outcome::Done => ("done", ""),
            Outcome::Failed(failure) => ("failed", failure.error.as_str()),
            Outcome::Interrupted => ("interrupted", ""),
        };
        let hook = self.hook.id.to_string();
        Metric::AttemptSeconds.observe(took.as_secs_f64(), &[("hook", hook.clone())]);
        Metric::Attempts.count(&[("hook", hook), ("outcome", name.to_owned())]);
        let took_ms = millis(took);
        match settlement {
            Settlement::Finish => tracing::debug!(took_ms, deaths, "done"),
            Settlement::Release => tracing::info!(took_ms, "interrupted"),
            Settlement::Next(Next::Retry { delay_ms, .. }) => {
                tracing::info!(took_ms, error, retry_in_ms = delay_ms, "failed, will be retried");
            }
            Settlement::Next(Next::Bury { .. }) => tracing::info!(took_ms, error, "failed for good"),
        }
        (self.worker.listener)(&super::Attempted { invocation: &self.invocation, outcome, settlement, took });
    }
}

/// The wait that a verdict plans, for which the claim must be remembered longer.
fn follow_ms(verdict: &Verdict) -> u64 {
    match verdict {
        Verdict::Next(Next::Retry { delay_ms, .. }) => *delay_ms,
        Verdict::Next(Next::Bury { .. }) | Verdict::Done => 0,
    }
}

/// Milliseconds since 1970, for people to read; nothing is decided by it.
pub(super) fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A run's name in lists.
pub(super) fn run_name(key: &InvocationKey, at: Point) -> String {
    format!("{key} generation {} attempt {}", at.generation, at.attempt)
}
