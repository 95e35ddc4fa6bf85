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
//! [`crate::crash`]; all of them and more come together, by dice, in `src/simulation.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Delivery, PublishError};
use crate::config::WhenAway;
use crate::crash;
use crate::dead_letters::DeadLetters;
use crate::domain::dead_letter::{Cause, Letter, Mark, Record, Subject};
use crate::domain::event::{Malformed, Reading};
use crate::domain::failure::Class;
use crate::domain::flaw::Flaw;
use crate::domain::hook::{Hook, HookLane};
use crate::domain::invocation::{self, Client, Envelope, EventMessage, Invocation, ReplayOf};
use crate::domain::matching::HookSet;
use crate::domain::message::{LADDER_UNIT, Lane, Outgoing, Queue, WAIT_AFTER};
use crate::domain::outcome::Outcome;
use crate::domain::replay::undeliverable;
use crate::domain::revision::{Unknown, unknown_hook};
use crate::domain::settle::{STORE_AWAY_WAIT, Settlement};
use crate::executor::Execute;
use crate::telemetry::{Metric, now_ms};
use admission::Admission;
use held::Held;
use job::Job;
use meters::Meters;
pub use running::Running;
use store::Store;

pub mod admission;
mod burial;
pub mod gates;
mod held;
mod job;
mod lease;
pub mod meters;
mod misfit;
mod reading;
mod running;
mod scene;
pub mod store;

/// A delivery that the broker has made this often is run alone, if at all.
const SUSPECT_DELIVERIES: u32 = 3;
/// A delivery from overflow is held longer than others: few are in hand, and to wait is what they are there for.
const OVERFLOW_HOLD: Duration = Duration::from_mins(1);
/// Tries of a publish between two warnings.
const WARN_EVERY: u32 = 40;

/// Limits and times of the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub reading: Reading,
    /// No delivery is held longer than this.
    pub hold: Duration,
    /// The lanes whose hooks run here: by place in [`HookLane::ALL`].
    pub lanes: [bool; HookLane::ALL.len()],
    pub lease: Duration,
    /// How long a finished invocation is remembered.
    pub window: Duration,
    /// How long a finished replay is remembered: as long as letters are kept.
    pub retention: Duration,
    pub when_away: WhenAway,
    /// How long a request may take that does not say so itself.
    pub gate_deadline: Duration,
    /// Show payloads in debug lines.
    pub log_payloads: bool,
    /// What tests make wrong.
    pub flaw: Flaw,
}

impl Rules {
    /// Whether hooks of this lane run here.
    #[must_use]
    pub const fn serves(&self, lane: HookLane) -> bool {
        self.lanes[lane as usize]
    }
}

/// One finished attempt, for whoever listens.
#[derive(Debug)]
pub struct Attempted<'a> {
    pub invocation: &'a Invocation,
    pub outcome: &'a Outcome,
    pub settlement: &'a Settlement,
    pub took: Duration,
}

/// Called after every attempt.
pub type Listener = Box<dyn Fn(&Attempted<'_>) + Send + Sync>;

/// A listener for when nobody listens.
#[must_use]
pub fn nobody() -> Listener {
    Box::new(|_: &Attempted<'_>| {})
}

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
    pub meters: Arc<Meters>,
    pub rules: Rules,
    /// Stops every run at once: the grace period is over.
    pub interrupt: CancellationToken,
    /// What is under way here: it ends before the process does.
    pub tasks: TaskTracker,
    pub running: Running,
    pub listener: Arc<Listener>,
}

/// Why a message does not go on.
enum Aside {
    /// To be run alone: it may be what killed its earlier workers.
    Suspect,
    /// A letter.
    Malformed(Malformed),
    /// Later, byte for byte, on the same lane.
    Later(Duration),
}

impl Worker {
    /// Takes one delivery to its end: acked once everything that follows from it is safe.
    pub async fn handle(&self, delivery: &Delivery) {
        let hold = if matches!(delivery.queue.lane(), Lane::Overflow(_)) { OVERFLOW_HOLD } else { self.rules.hold };
        let hold_until = Instant::now() + hold;
        self.meters.delivered(delivery.queue);
        if delivery.deliveries > 0 {
            let times = if delivery.deliveries < SUSPECT_DELIVERIES { "few" } else { "many" };
            Metric::Redelivered.count(&[("queue", delivery.queue.name().to_owned()), ("times", times.to_owned())]);
        }
        if delivery.queue == Queue::Gates {
            return Box::pin(self.request(delivery)).await; // events need not have room for it
        }
        match self.decode(delivery).await {
            Ok(Envelope::Event(whole)) if delivery.queue == Queue::Undecided => {
                let whole = Box::pin(self.with_decision(whole, hold_until)).await;
                self.event(delivery, whole, hold_until).await;
            }
            Ok(Envelope::Event(whole)) => self.event(delivery, whole, hold_until).await,
            Ok(Envelope::Invocation(invocation)) => self.invocation(delivery, invocation, hold_until).await,
            Ok(Envelope::Newer(version)) => {
                tracing::warn!(version, "a message of a newer version is left to newer workers");
                self.put_aside(delivery, Aside::Later(STORE_AWAY_WAIT)).await;
            }
            Err(aside) => self.put_aside(delivery, aside).await,
        }
    }

    /// Gives a delivery back without having begun it: published again and acked, since a nack would count as a death.
    pub async fn hand_back(&self, delivery: &Delivery) {
        let message = match delivery.queue {
            Queue::Lane(_) => invocation::again(&delivery.message),
            Queue::Gates => return self.hand_back_request(delivery).await,
            Queue::Events | Queue::Undecided => {
                match Envelope::decode(delivery.queue, &delivery.message, &self.rules.reading) {
                    Ok(Envelope::Event(whole)) if delivery.queue == Queue::Undecided => {
                        self.with_decision(whole, Instant::now()).await.message()
                    }
                    Ok(Envelope::Event(whole)) => whole.message(),
                    Ok(Envelope::Invocation(_) | Envelope::Newer(_)) | Err(_) => return self.handle(delivery).await,
                }
            }
        };
        self.send(Outgoing::to_lane(delivery.queue.lane(), Duration::ZERO, message)).await;
        self.broker.ack(delivery.receipt);
        Metric::HandedBack.count(&[]);
    }

    /// This delivery made the pipeline panic: it is run alone once more, and buried if it does so there too.
    pub async fn panicked(&self, delivery: &Delivery) {
        let aside = match delivery.queue {
            Queue::Lane(Lane::Suspect) => Aside::Malformed(Malformed::new(Class::Poisoned, "the pipeline panicked")),
            Queue::Gates => {
                return self.refuse(delivery, Malformed::new(Class::Poisoned, "deciding it panicked")).await;
            }
            Queue::Events | Queue::Undecided | Queue::Lane(_) => Aside::Suspect,
        };
        self.put_aside(delivery, aside).await;
    }

    async fn decode(&self, delivery: &Delivery) -> Result<Envelope, Aside> {
        let Delivery { queue, message, deliveries, .. } = delivery;
        let alone = *queue == Queue::Lane(Lane::Suspect);
        // Who waits in overflow is held for long, so that its count says less.
        let waited = matches!(queue, Queue::Lane(Lane::Overflow(_)));
        if !alone && !waited && *deliveries >= SUSPECT_DELIVERIES {
            return Err(Aside::Suspect);
        }
        if matches!(queue, Queue::Lane(_)) {
            let wait = message.number(WAIT_AFTER).and_then(|wait| u64::try_from(wait).ok()).unwrap_or_default();
            match Duration::from_millis(wait) {
                wait if wait >= LADDER_UNIT => return Err(Aside::Later(wait)), // longer than the ladder is high
                wait if wait.is_zero() => {}
                wait => sleep(wait).await,
            }
        }
        if alone { self.read_alone(delivery).await } else { self.read(delivery).map_err(Aside::Malformed) }
    }

    fn read(&self, Delivery { queue, message, .. }: &Delivery) -> Result<Envelope, Malformed> {
        crash::Point::Received.reached(message.properties.message_id.as_deref().unwrap_or_default());
        Envelope::decode(*queue, message, &self.rules.reading)
    }

    /// Runs every hook that wants the event; acks once each has a claim that is settled, a guard, or a message.
    async fn event(&self, delivery: &Delivery, whole: EventMessage, hold_until: Instant) {
        let hooks = self.catalog.borrow().clone();
        if self.is_misfit(delivery, &whole, hooks.types()).await {
            return;
        }
        let matches = hooks.matching(&whole.event);
        if matches.hooks.is_empty() {
            Metric::EventsUnmatched.count(&[]);
        }
        if matches.unreadable {
            self.tell_unreadable(delivery, &whole).await;
        }
        for (hook, error) in &matches.failed {
            self.meters.condition_failed(&self.admission.gate(hook).meters, "when", error);
        }
        let jobs = matches.hooks.into_iter().map(|hook| {
            let revision = hooks.revision().clone();
            (Arc::clone(hook), whole.invocation(hook.id.clone(), revision))
        });
        let jobs: Vec<_> = jobs.collect();
        let finished = async {
            if let Some(ReplayOf { letter, generation }) = &whole.replay_of {
                let subject = Subject::Message(letter.clone());
                self.append(&resolved(subject, *generation)).await;
            }
        };
        self.drive(delivery, jobs, hold_until, finished).await;
    }

    async fn invocation(&self, delivery: &Delivery, invocation: Invocation, hold_until: Instant) {
        let hooks = self.catalog.borrow().clone();
        let (own, made) = (hooks.revision(), &invocation.revision);
        match hooks.get(invocation.hook.as_str()).map(Arc::clone) {
            Some(hook) if hook.is_run_by_events() => {
                return self.drive(delivery, vec![(hook, invocation)], hold_until, async {}).await;
            }
            Some(_) if !own.is_older_than(made) => return self.bury(delivery, &invocation, Class::HookDisabled).await,
            Some(_) | None => {}
        }
        match unknown_hook(own, made, invocation.unknown) {
            Unknown::Removed if self.rules.flaw == Flaw::RemovedIsDropped => self.broker.ack(delivery.receipt),
            Unknown::Again(_) if self.rules.flaw == Flaw::RevisionNotCompared => {
                self.bury(delivery, &invocation, Class::HookRemoved).await;
            }
            Unknown::Removed => self.bury(delivery, &invocation, Class::HookRemoved).await,
            Unknown::Again(round) => {
                let unknown = invocation.unknown + round;
                let message = Invocation { unknown, ..invocation }.message();
                self.send(Outgoing::to_lane(delivery.queue.lane(), round, message)).await;
                self.broker.ack(delivery.receipt);
            }
        }
    }

    /// Drives jobs side by side. `finished` runs before the ack, once no job needs the delivery any more.
    async fn drive(
        &self,
        delivery: &Delivery,
        jobs: Vec<(Arc<Hook>, Invocation)>,
        hold_until: Instant,
        finished: impl Future<Output = ()>,
    ) {
        let held = Held::new(jobs.len());
        let begin = |(hook, invocation)| Job::new(self, hook, invocation, delivery.queue, hold_until, &held);
        let mut jobs: Vec<Job<'_>> = jobs.into_iter().map(begin).collect();
        let driven = async {
            join_all(jobs.iter_mut().map(Job::drive)).await;
            held.end();
        };
        let acked = async {
            if held.released().await {
                finished.await;
                self.broker.ack(delivery.receipt);
            }
        };
        tokio::join!(driven, acked);
    }

    async fn put_aside(&self, delivery: &Delivery, aside: Aside) {
        let Delivery { queue, message, receipt, .. } = delivery;
        match aside {
            Aside::Suspect => {
                let message = invocation::suspect(*queue, message);
                self.send(Outgoing::to_lane(Lane::Suspect, Duration::ZERO, message)).await;
            }
            Aside::Later(wait) => {
                self.send(Outgoing::to_lane(queue.lane(), wait, invocation::again(message))).await;
            }
            Aside::Malformed(malformed) => {
                let client = match queue {
                    Queue::Events | Queue::Gates | Queue::Undecided => {
                        Client { properties: message.properties.clone(), headers: message.headers.clone() }
                    }
                    Queue::Lane(_) => invocation::client(message).unwrap_or_default(),
                };
                let letter = self
                    .poisoned_invocation(delivery, &malformed)
                    .unwrap_or_else(|| Letter::of_message(&malformed, client, &message.body, queue.name(), now_ms()));
                tracing::warn!(letter = %letter.id, class = ?malformed.class, error = malformed.error, "no event");
                self.meters.buried(malformed.class, letter.hook.as_deref());
                self.append(&Record::Letter(Box::new(letter))).await;
            }
        }
        self.broker.ack(*receipt);
    }

    /// The letter of an invocation that is buried unread: about its hook, so that a replay runs that and no other.
    fn poisoned_invocation(&self, delivery: &Delivery, malformed: &Malformed) -> Option<Letter> {
        if malformed.class != Class::Poisoned {
            return None;
        }
        match Envelope::decode(delivery.queue, &delivery.message, &self.rules.reading) {
            Ok(Envelope::Invocation(invocation)) => {
                let deaths = invocation.deaths.max(delivery.deliveries);
                let cause = Cause { class: malformed.class, report: None, unprotected: false, deaths, target: None };
                Some(Letter::of_invocation(&invocation, invocation.at, cause, delivery.queue.name(), now_ms()))
            }
            Ok(Envelope::Event(_) | Envelope::Newer(_)) | Err(_) => None,
        }
    }

    /// Publishes until the broker has it; what it will never take becomes a letter. While publishing is blocked this
    /// waits: nothing else would be safe.
    pub async fn send(&self, outgoing: Outgoing) {
        let mut tries = 0;
        loop {
            match self.broker.publish(outgoing.clone()).await {
                Ok(()) => return,
                Err(PublishError::TooLarge(error) | PublishError::Invalid(error)) => {
                    let letter = undeliverable(&outgoing.message, error, now_ms());
                    self.meters.buried(Class::Invalid, letter.hook.as_deref());
                    return self.append(&Record::Letter(Box::new(letter))).await;
                }
                Err(error) => repeat(&mut tries, &error).await,
            }
        }
    }

    async fn append(&self, record: &Record) {
        let mut tries = 0;
        while let Err(error) = self.letters.append(record).await {
            if matches!(record, Record::Letter(_)) {
                Metric::LettersUnconfirmed.count(&[]);
            }
            repeat(&mut tries, &error).await;
        }
    }
}

/// Waits before a publish is repeated; tells of it where that goes on for long.
async fn repeat(tries: &mut u32, error: &(dyn std::error::Error + Sync)) {
    Metric::PublishRepeated.count(&[]);
    *tries += 1;
    if tries.is_multiple_of(WARN_EVERY) {
        tracing::warn!(%error, tries, "still not published, trying again");
    } else {
        tracing::debug!(%error, "not published, trying again");
    }
    sleep(LADDER_UNIT).await;
}

fn resolved(subject: Subject, generation: u32) -> Record {
    Record::Resolved(Mark { subject, generation, at_ms: now_ms(), by: "worker".to_owned(), reason: None, until_ms: 0 })
}
