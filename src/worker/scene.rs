//! What does not change while an invocation is on its way: what it is, where it came from, and what the world is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use super::admission::{Elsewhere, Gate, Permit};
use crate::crash;
use crate::domain::claim;
use crate::domain::claim::Next;
use crate::domain::dead_letter::{Cause, Letter, Mark, Record, Subject};
use crate::domain::hook::Hook;
use crate::domain::id::InvocationKey;
use crate::domain::invocation::Invocation;
use crate::domain::message::{Lane, Outgoing, Queue};
use crate::domain::outcome::Outcome;
use crate::domain::settle::{Follow, Settlement};
use crate::domain::time::millis;
use crate::telemetry::{Metric, now_ms};

/// An invocation that has waited in overflow as long as a delivery is held there goes round for this long, and up to a
/// quarter more, back to the same queue.
const OVERFLOW_TRIP: Duration = Duration::from_secs(16);

/// One invocation and its surroundings.
pub(super) struct Scene<'w> {
    pub(super) worker: &'w Worker,
    pub(super) hook: Arc<Hook>,
    pub(super) gate: Arc<Gate>,
    pub(super) invocation: Invocation,
    pub(super) key: InvocationKey,
    pub(super) queue: Queue,
    pub(super) hold_until: Instant,
    /// It has taken the window of its hook's `once_per`.
    pub(super) has_window: AtomicBool,
}

/// What is published for a [`Follow`].
pub(super) enum Message {
    Out(Outgoing),
    Dead(Record),
}

impl Scene<'_> {
    pub(super) fn crash(&self, point: crash::Point) {
        point.reached(&self.invocation.event.id);
    }

    /// Waits for a permit. Without one the invocation moves to where it can wait, and no attempt is spent.
    pub(super) async fn admit(&self) -> Option<Permit> {
        let (worker, hook) = (self.worker, || [("hook", self.hook.id.to_string())]);
        let own = self.hook.lane.lane();
        let here = match self.queue.lane() {
            lane @ (Lane::Default | Lane::Slow) => lane == own,
            Lane::Replay | Lane::Suspect => worker.rules.serves(self.hook.lane),
            Lane::Overflow(number) => self.hook.lane.overflows().contains(&number),
        };
        if !here {
            Metric::HandedOver.count(&[("lane", own.name().to_owned())]);
            worker.send(Outgoing::to_lane(own, Duration::ZERO, self.invocation.message())).await;
            return None;
        }
        let at_leisure = matches!(self.queue.lane(), Lane::Overflow(_));
        match worker.admission.admit(&self.gate, at_leisure, self.hold_until).await {
            Ok(permit) => return Some(permit),
            Err(Elsewhere::Overflow) if at_leisure => {
                Metric::OverflowTrips.count(&hook());
                let wait = OVERFLOW_TRIP.mul_f64(1.0 + fastrand::f64() / 4.0);
                worker.send(Outgoing::to_lane(self.queue.lane(), wait, self.invocation.message())).await;
            }
            Err(Elsewhere::Overflow) => {
                Metric::Overflowed.count(&hook());
                worker.send(Outgoing::to_lane(self.gate.overflow(), Duration::ZERO, self.invocation.message())).await;
            }
            Err(Elsewhere::Parked(wait)) => {
                Metric::Parked.count(&hook());
                worker.send(Outgoing::parked(self.home(), wait, self.invocation.message())).await;
            }
        }
        None
    }

    /// The same once more, with what it has by now.
    pub(super) fn again(&self) -> Invocation {
        Invocation { has_window: self.has_window.load(Ordering::Relaxed), ..self.invocation.clone() }
    }

    /// The lane that what follows goes to: waiting and suspicion are over then.
    fn home(&self) -> Lane {
        match self.queue.lane() {
            Lane::Suspect | Lane::Overflow(_) => self.hook.lane.lane(),
            lane @ (Lane::Default | Lane::Slow | Lane::Replay) => lane,
        }
    }

    /// A wait for a lease to end, up to a quarter of a lease longer: takeovers that keep step with whatever kills the
    /// workers (a supervisor, a restart every minute) would bury the innocent as poison.
    pub(super) fn spread(&self, wait: Duration) -> Duration {
        if wait.is_zero() { wait } else { wait + self.worker.rules.lease.mul_f64(fastrand::f64() / 4.0) }
    }

    /// How long a claim is remembered: replays as long as the letters that they come from.
    pub(super) fn floor_ms(&self) -> u64 {
        self.worker.floor_ms(&self.invocation)
    }

    pub(super) fn follow(&self, follow: &Follow, unprotected: bool) -> Message {
        let lane = self.queue.lane();
        match follow {
            Follow::Again { wait_ms } => {
                let wait = self.spread(Duration::from_millis(*wait_ms));
                Message::Out(Outgoing::to_lane(lane, wait, self.again().message()))
            }
            Follow::Suspect { deaths } => {
                let invocation = Invocation { deaths: *deaths, ..self.again() };
                Message::Out(Outgoing::to_lane(Lane::Suspect, Duration::ZERO, invocation.message()))
            }
            Follow::Resolved => Message::Dead(Record::Resolved(Mark {
                subject: Subject::of(&self.key),
                generation: self.invocation.at.generation,
                at_ms: now_ms(),
                by: "worker".to_owned(),
                reason: None,
                until_ms: 0,
            })),
            Follow::Next { at, deaths, next: Next::Retry { delay_ms, spent_ms, report }, .. } => {
                let spent = Duration::from_millis(*spent_ms);
                let next = self.invocation.next(*at, *deaths, spent, report.as_ref());
                Message::Out(Outgoing::to_lane(self.home(), Duration::from_millis(*delay_ms), next.message()))
            }
            Follow::Next { at, deaths, next: Next::Bury { class, report }, .. } => {
                let target = Some(self.hook.action.target());
                let cause = Cause { class: *class, report: report.clone(), unprotected, deaths: *deaths, target };
                let letter = Letter::of_invocation(&self.invocation, *at, cause, self.queue.name(), now_ms());
                self.within(|| tracing::warn!(letter = %letter.id, class = ?class, error = letter.error, "given up"));
                Message::Dead(Record::Letter(Box::new(letter)))
            }
        }
    }

    pub(super) fn count_published(&self, follow: &Follow) {
        match follow {
            Follow::Next { next: Next::Retry { .. }, .. } => {
                Metric::Retries.count(&[("hook", self.hook.id.to_string())]);
            }
            Follow::Next { next: Next::Bury { class, .. }, .. } => {
                self.worker.meters.buried(*class, Some(self.hook.id.as_str()));
            }
            Follow::Resolved | Follow::Again { .. } | Follow::Suspect { .. } => {}
        }
    }

    pub(super) fn count_claim(&self, answer: &claim::Answer) {
        let name = self.worker.meters.claimed(answer);
        if let claim::Answer::Done { token } = answer
            && token.body != self.invocation.event.body_digest
        {
            Metric::EventsConflicting.count(&[]);
            self.within(|| {
                tracing::warn!("an event with this source and id but another body was handled before: dropped");
            });
        }
        if name != "won" && tracing::enabled!(tracing::Level::DEBUG) {
            self.within(|| tracing::debug!(answer = name, "claim"));
        }
    }

    /// Tells of an attempt: metrics, a log line, and whoever listens.
    pub(super) fn report(&self, outcome: &Outcome, settlement: &Settlement, took: Duration, deaths: u32) {
        self.gate.meters.attempted(outcome, took.as_secs_f64());
        (self.worker.listener)(&super::Attempted { invocation: &self.invocation, outcome, settlement, took });
        let took_ms = millis(took);
        let error = if let Outcome::Failed(failure) = outcome { failure.error.as_str() } else { "" };
        match settlement {
            Settlement::Finish if !tracing::enabled!(tracing::Level::DEBUG) => {}
            Settlement::Finish => self.within(|| tracing::debug!(took_ms, deaths, "done")),
            Settlement::Release => self.within(|| tracing::info!(took_ms, "interrupted")),
            Settlement::Next(Next::Retry { delay_ms, .. }) => {
                self.within(|| tracing::info!(took_ms, error, retry_in_ms = delay_ms, "failed, will be retried"));
            }
            Settlement::Next(Next::Bury { .. }) => {
                self.within(|| tracing::info!(took_ms, error, "failed for good"));
            }
        }
    }

    /// Writes a line that says which invocation it is about. Made for the line and not for the whole way, which most
    /// invocations go without one.
    pub(super) fn within(&self, line: impl FnOnce()) {
        let Invocation { event, hook, at, .. } = &self.invocation;
        // Of the highest level, so that no filter takes it off a line.
        let span = tracing::error_span!(
            "invocation",
            event = event.id,
            %hook,
            invocation = %self.key,
            generation = at.generation,
            attempt = at.attempt,
        );
        span.in_scope(line);
    }
}
