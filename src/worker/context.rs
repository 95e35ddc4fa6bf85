//! What does not change while an invocation is on its way: what it is, where it came from, and what is logged of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admission::{Elsewhere, Gate, Permit};
use super::{Attempted, Worker};
use crate::domain::claim::{self, ClaimRequest, DeathLimits, Next, Settlement, Token};
use crate::domain::dead_letter::{Cause, Letter};
use crate::domain::hook::Hook;
use crate::domain::id::InvocationKey;
use crate::domain::invocation::Invocation;
use crate::domain::message::{Lane, Outgoing, Queue};
use crate::domain::outcome::Outcome;
use crate::domain::time::millis;
use crate::failpoint;
use crate::telemetry::{Metric, now_ms};

/// An invocation that has waited in overflow as long as a delivery is held there goes round for this long, and up to a
/// quarter more, back to the same queue.
const OVERFLOW_TRIP: Duration = Duration::from_secs(16);

/// One invocation and what surrounds it. Immutable: what changes stands in [`super::invocation::InvocationRun`].
pub(super) struct InvocationContext<'w> {
    pub(super) worker: &'w Worker,
    pub(super) hook: Arc<Hook>,
    pub(super) gate: Arc<Gate>,
    pub(super) invocation: Invocation,
    pub(super) key: InvocationKey,
    pub(super) queue: Queue,
    pub(super) hold_until: Instant,
}

impl<'w> InvocationContext<'w> {
    pub(super) fn new(
        worker: &'w Worker,
        hook: Arc<Hook>,
        invocation: Invocation,
        queue: Queue,
        hold_until: Instant,
    ) -> Self {
        let key = invocation.key();
        let gate = worker.admission.gate(&hook);
        Self { worker, hook, gate, invocation, key, queue, hold_until }
    }

    /// Kills the process here if a test asks for it.
    pub(super) fn reached(&self, point: failpoint::Point) {
        point.reached(&self.invocation.event.id);
    }

    /// Waits for a permit. Without one the invocation moves to where it can wait, and no attempt is spent.
    pub(super) async fn admit(&self) -> Option<Permit> {
        if !self.belongs_here() {
            let lane = self.hook.lane.lane();
            Metric::HandedOver.count(&[("lane", lane.name().to_owned())]);
            self.move_to(Outgoing::to_lane(lane, Duration::ZERO, self.invocation.message())).await;
            return None;
        }
        let hook = || [("hook", self.hook.id.to_string())];
        let at_leisure = matches!(self.queue.lane(), Lane::Overflow(_));
        match self.worker.admission.admit(&self.gate, at_leisure, self.hold_until).await {
            Ok(permit) => return Some(permit),
            Err(Elsewhere::Overflow) if at_leisure => {
                Metric::OverflowTrips.count(&hook());
                let wait = OVERFLOW_TRIP.mul_f64(1.0 + fastrand::f64() / 4.0);
                self.move_to(Outgoing::to_lane(self.queue.lane(), wait, self.invocation.message())).await;
            }
            Err(Elsewhere::Overflow) => {
                Metric::Overflowed.count(&hook());
                self.move_to(Outgoing::to_lane(self.gate.overflow(), Duration::ZERO, self.invocation.message())).await;
            }
            Err(Elsewhere::Parked(wait)) => {
                Metric::Parked.count(&hook());
                self.move_to(Outgoing::parked(self.home(), wait, self.invocation.message())).await;
            }
        }
        None
    }

    /// Whether this queue is one that the hook's invocations are run from in this process.
    fn belongs_here(&self) -> bool {
        match self.queue.lane() {
            lane @ (Lane::Default | Lane::Slow) => lane == self.hook.lane.lane(),
            Lane::Replay | Lane::Suspect => self.worker.rules.serves(self.hook.lane),
            Lane::Overflow(number) => self.hook.lane.overflows().contains(&number),
        }
    }

    async fn move_to(&self, outgoing: Outgoing) {
        self.worker.send(outgoing).await;
    }

    /// The lane that what follows goes to: waiting and suspicion are over then.
    pub(super) fn home(&self) -> Lane {
        match self.queue.lane() {
            Lane::Suspect | Lane::Overflow(_) => self.hook.lane.lane(),
            lane @ (Lane::Default | Lane::Slow | Lane::Replay) => lane,
        }
    }

    /// A wait for a lease to end, up to a quarter of a lease longer. Takeovers that keep step with what kills the workers (a
    /// supervisor, a restart every minute) would bury the innocent as poison.
    pub(super) fn spread(&self, wait: Duration) -> Duration {
        if wait.is_zero() { wait } else { wait + self.worker.rules.lease.mul_f64(fastrand::f64() / 4.0) }
    }

    /// The claim that a run of it needs.
    pub(super) fn claim_request(&self, token: Token) -> ClaimRequest {
        ClaimRequest {
            at: self.invocation.at,
            token,
            deaths: self.invocation.deaths,
            forced: self.invocation.forced,
            in_suspect: self.queue == Queue::Lane(Lane::Suspect),
            limits: DeathLimits::default(),
            lease_ms: millis(self.worker.rules.lease),
            floor_ms: self.floor_ms(),
        }
    }

    /// How long a claim is remembered, in milliseconds.
    pub(super) fn floor_ms(&self) -> u64 {
        self.worker.floor_ms(&self.invocation)
    }

    /// The dead letter of this invocation, given up for this cause.
    pub(super) fn letter(&self, at: claim::Point, cause: Cause) -> Letter {
        Letter::of_invocation(&self.invocation, at, cause, self.queue.name(), now_ms())
    }

    pub(super) fn log_claim(&self, answer: &claim::Answer) {
        if let claim::Answer::Done { token } = answer
            && token.body != self.invocation.event.body_digest
        {
            Metric::EventsConflicting.count(&[]);
            self.within(|| {
                tracing::warn!("an event with this source and id but another body was handled before: dropped");
            });
        }
        if matches!(answer, claim::Answer::Cancelled { .. }) {
            dropped_as_cancelled(&self.invocation);
        }
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.within(|| tracing::debug!(answer = super::metrics::claim_name(answer), "claim"));
        }
    }

    /// Counts and logs an attempt, and tells the listener.
    pub(super) fn report(&self, outcome: &Outcome, settlement: Option<&Settlement>, took: Duration, deaths: u32) {
        self.gate.metrics.attempted(outcome, took.as_secs_f64());
        (self.worker.listener)(&Attempted { invocation: &self.invocation, outcome, settlement, took });
        let took_ms = millis(took);
        let error = if let Outcome::Failed(failure) = outcome { failure.error.as_str() } else { "" };
        match settlement {
            Some(Settlement::Done) if !tracing::enabled!(tracing::Level::DEBUG) => {}
            Some(Settlement::Done) => self.within(|| tracing::debug!(took_ms, deaths, "done")),
            None => self.within(|| tracing::info!(took_ms, "interrupted")),
            Some(Settlement::Next(Next::Retry { delay_ms, .. })) => {
                self.within(|| tracing::info!(took_ms, error, retry_in_ms = delay_ms, "failed, will be retried"));
            }
            Some(Settlement::Next(Next::Bury { .. })) => {
                self.within(|| tracing::info!(took_ms, error, "failed for good"));
            }
        }
    }

    /// Writes a line that says which invocation it is about.
    pub(super) fn within(&self, line: impl FnOnce()) {
        within(&self.invocation, line);
    }
}

/// Counts and logs an invocation that is dropped since an operator has cancelled it.
pub(super) fn dropped_as_cancelled(invocation: &Invocation) {
    Metric::Cancelled.count(&[("hook", invocation.hook.to_string())]);
    within(invocation, || tracing::info!("dropped: an operator has cancelled it"));
}

/// Writes a line within a span that says which invocation it is about. The span is made for the line and not for the whole
/// way, which most invocations go without a line.
fn within(invocation: &Invocation, line: impl FnOnce()) {
    let Invocation { event, hook, at, .. } = invocation;
    // Of the highest level, so that no filter takes it off a line.
    let span = tracing::error_span!(
        "invocation",
        event = event.id,
        %hook,
        invocation = %invocation.key(),
        generation = at.generation,
        attempt = at.attempt,
    );
    span.in_scope(line);
}
