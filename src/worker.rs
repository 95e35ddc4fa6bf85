//! The pipeline: decode, match, then for every invocation claim, execute, settle, apply.
//!
//! Delivery is at least once; the claim makes an action happen once per key, as far as anyone can who is not the
//! receiver. What happens if the process dies, by the point of its death:
//!
//! | killed after | what happens next |
//! |---|---|
//! | receive, before the claim | redelivered, run once |
//! | the claim, or in the middle of the run | the lease ends, another worker takes over (deaths + 1) and runs it again under the same Idempotency-Key: at least once at the receiver, who can tell by the key |
//! | the run, before its settlement is recorded | as above: the one gap in which an action can be seen twice |
//! | the settlement is recorded, before the confirm | found `settled`: published again, not run again |
//! | the confirm, before the mark or the ack | the second copy is superseded or done: dropped |
//! | the claim, before the window of a `once_per` is taken | the lease ends, and it runs: an event of a storm too many, never too few |
//! | a window is taken, before the run ends | it is run as any other: who took the window goes on, whoever has it by then |
//! | a guard is published, before the ack | two messages of one attempt: one wins, the other is busy, done or superseded |
//!
//! No row says "lost". Every row has a test of its own, which kills the process at the point of that name in
//! [`crate::failpoint`]; all of them and more come together, by dice, in `src/simulation.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::metrics::WorkerMetrics;
use crate::broker::{Broker, Delivery};
use crate::dead_letters::DeadLetters;
use crate::domain::dead_letter::Subject;
use crate::domain::failure::Class;
use crate::domain::hook::Hook;
use crate::domain::invocation::{Envelope, EventMessage, Invocation, ReplayOf};
use crate::domain::matching::HookSet;
use crate::domain::message::{Lane, Outgoing, Queue};
use crate::domain::revision::Unknown;
use crate::domain::settle::STORE_AWAY_WAIT;
use crate::executor::Execute;
use crate::telemetry::Metric;
use ack_latch::AckLatch;
use admission::Admission;
use context::InvocationContext;
pub use in_flight::InFlight;
use invocation::InvocationRun;
pub use listener::{Attempted, Listener, no_listener};
use poison_check::SUSPECT_DELIVERIES;
pub use rules::{Protocol, Rules};
use set_aside::Aside;
use store::Store;

mod ack_latch;
pub mod admission;
mod claimant;
mod context;
pub mod gates;
mod in_flight;
mod invocation;
mod listener;
pub mod metrics;
mod orphaned_hook;
mod outbox;
mod poison_check;
mod rules;
mod schema_violation;
mod set_aside;
pub mod store;

/// A delivery from overflow is held longer than others: few are in hand, and waiting is what they are there for.
const OVERFLOW_HOLD: Duration = Duration::from_mins(1);

/// What the pipeline works with.
pub struct Worker {
    pub broker: Arc<dyn Broker>,
    pub store: Store,
    pub letters: Arc<dyn DeadLetters>,
    pub executors: Arc<dyn Execute>,
    pub catalog: watch::Receiver<Arc<HookSet>>,
    /// Shared by the cells of a process.
    pub admission: Arc<Admission>,
    /// Shared by the cells of a process.
    pub metrics: Arc<WorkerMetrics>,
    pub rules: Rules,
    /// Stops every run at once: the grace period is over.
    pub interrupt: CancellationToken,
    /// The tasks that end before the process does.
    pub tasks: TaskTracker,
    pub in_flight: InFlight,
    pub listener: Arc<Listener>,
}

impl Worker {
    /// Takes one delivery to its end: acked once everything that follows from it is safe.
    pub async fn handle(&self, delivery: &Delivery) {
        let hold = if matches!(delivery.queue.lane(), Lane::Overflow(_)) { OVERFLOW_HOLD } else { self.rules.hold };
        let hold_until = Instant::now() + hold;
        self.metrics.delivered(delivery.queue);
        if delivery.deliveries > 0 {
            let times = if delivery.deliveries < SUSPECT_DELIVERIES { "few" } else { "many" };
            Metric::Redelivered.count(&[("queue", delivery.queue.name().to_owned()), ("times", times.to_owned())]);
        }
        if delivery.queue == Queue::Gates {
            return Box::pin(self.request(delivery)).await; // events need not have room for it
        }
        match self.decode(delivery).await {
            Ok(Envelope::Event(event)) if delivery.queue == Queue::Undecided => {
                let event = Box::pin(self.with_decision(event, hold_until)).await;
                self.event(delivery, event, hold_until).await;
            }
            Ok(Envelope::Event(event)) => self.event(delivery, event, hold_until).await,
            Ok(Envelope::Invocation(invocation)) => self.invocation(delivery, invocation, hold_until).await,
            Ok(Envelope::Newer(version)) => {
                tracing::warn!(version, "a message of a newer version is left to newer workers");
                self.set_aside(delivery, Aside::Later(STORE_AWAY_WAIT)).await;
            }
            Err(aside) => self.set_aside(delivery, aside).await,
        }
    }

    /// Runs every hook that wants the event; acks once each has a claim that is settled, a guard, or a message.
    async fn event(&self, delivery: &Delivery, message: EventMessage, hold_until: Instant) {
        let hooks = self.catalog.borrow().clone();
        if self.violates_schema(delivery, &message, hooks.types()).await {
            return;
        }
        let matches = hooks.matching(&message.event);
        if matches.hooks.is_empty() {
            Metric::EventsUnmatched.count(&[]);
        }
        if matches.unreadable {
            self.report_unreadable(delivery, &message).await;
        }
        for (hook, error) in &matches.failed {
            self.metrics.condition_failed(&self.admission.gate(hook).metrics, "when", error);
        }
        let invocation = |hook: &Arc<Hook>| message.invocation(hook.id.clone(), hooks.revision().clone());
        let invocations = matches.hooks.into_iter().map(|hook| (Arc::clone(hook), invocation(hook))).collect();
        let finished = async {
            if let Some(ReplayOf { letter, generation }) = &message.replay_of {
                self.resolve(Subject::Message(letter.clone()), *generation, None).await;
            }
        };
        self.drive(delivery, invocations, hold_until, finished).await;
    }

    /// Runs one invocation. While its hook is not known here it waits, and then it is dead-lettered.
    async fn invocation(&self, delivery: &Delivery, invocation: Invocation, hold_until: Instant) {
        let hooks = self.catalog.borrow().clone();
        let own = hooks.revision();
        let made = &invocation.revision;
        match hooks.get(invocation.hook.as_str()).map(Arc::clone) {
            Some(hook) if hook.is_run_by_events() || invocation.at.generation > 0 && hook.is_run_by_replays() => {
                return self.drive(delivery, vec![(hook, invocation)], hold_until, async {}).await;
            }
            Some(_) if !own.is_older_than(made) => {
                return self.give_up_orphan(delivery, &invocation, Class::HookDisabled).await;
            }
            Some(_) | None => {}
        }
        match (self.rules.protocol.unknown_hook)(own, made, invocation.unknown) {
            Unknown::Removed => self.give_up_orphan(delivery, &invocation, Class::HookRemoved).await,
            Unknown::Again(round) => {
                let unknown = invocation.unknown + round;
                let message = Invocation { unknown, ..invocation }.message();
                self.send(Outgoing::to_lane(delivery.queue.lane(), round, message)).await;
                self.broker.ack(delivery.receipt);
            }
        }
    }

    /// Drives invocations side by side. `finished` runs before the ack, once none of them needs the delivery any more.
    async fn drive(
        &self,
        delivery: &Delivery,
        invocations: Vec<(Arc<Hook>, Invocation)>,
        hold_until: Instant,
        finished: impl Future<Output = ()>,
    ) {
        let latch = AckLatch::new(invocations.len());
        let begin = |(hook, invocation)| {
            let context = InvocationContext::new(self, hook, invocation, delivery.queue, hold_until);
            InvocationRun::new(context, latch.hold())
        };
        let mut runs: Vec<InvocationRun<'_>> = invocations.into_iter().map(begin).collect();
        let driven = async {
            join_all(runs.iter_mut().map(InvocationRun::drive)).await;
            latch.end();
        };
        let acked = async {
            if latch.released().await {
                finished.await;
                self.broker.ack(delivery.receipt);
            }
        };
        tokio::join!(driven, acked);
    }
}
