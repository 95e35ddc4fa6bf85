//! Gates: hooks that decide, for somebody who waits.
//!
//! ```text
//! request -> claim -> ask who matches, one after the other -> keep the decision -> reply, publish the event with it -> ack
//! ```
//!
//! A request is claimed as a whole, under a lease so short that nobody waits long for a worker that died. What is kept
//! first is the decision, for whoever asks about the same event again, so that nobody is ever told two. What happens if
//! the process dies, by the point of its death:
//!
//! | killed after | what happens next |
//! |---|---|
//! | receive, before the claim | delivered again, decided once |
//! | the claim, or while hooks are asked | the lease ends, another worker takes over and asks again, under the same Idempotency-Keys |
//! | the decision is kept, before the reply | found: replied and published without asking anybody |
//! | the reply, before the event's confirm or the ack | as above: the same reply once more, which who asked passes over |
//!
//! Replies go by the channel of the requests, before their acks, so that nothing has to confirm them. The claim and what is
//! decided are one value of the store: it is asked twice before a reply, and not after it.
//!
//! A request that came over HTTP is in no queue: who asked sees the connection end, and asks again.
//!
//! While the store is away there is no claim, and nothing can be looked up or kept: what `on_failure` says is answered, and
//! kept once the store is back. Only then, and where two workers answer so about one request, two answers can differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Worker;
use super::set_aside::Aside;
use super::store::Unanswered;
use crate::broker::Delivery;
use crate::domain::asking;
use crate::domain::claim::{Point, Request, Token};
use crate::domain::dead_letter::Letter;
use crate::domain::decision::{Decided, Decision};
use crate::domain::dialect;
use crate::domain::event::{Event, Malformed};
use crate::domain::failure::Class;
use crate::domain::id::InvocationKey;
use crate::domain::invocation::{Envelope, EventMessage};
use crate::domain::message::{CAME_BEFORE, Destination, Lane, Outgoing};
use crate::domain::time::millis;
use crate::failpoint;
use crate::telemetry::{Metric, now_ms};
use claim::{Case, Right};
use turn::Turn;

mod claim;
mod turn;

/// Workers that may die deciding one request: then its gates count as failed.
const DEATHS_MAX: u32 = 3;
/// Between two looks at what another worker is deciding, or tries of something that is in the way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Observers of a request that another worker may still decide are told this much later that nobody has: by then its own
/// decision has reached them, and this comes to nothing.
const TOLD_AFTER: Duration = Duration::from_secs(30);

/// Why there is no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// Time is over. `is_ours`: nobody else is deciding it.
    Late { is_ours: bool },
    /// The process ends.
    Interrupted,
    /// Something else was decided under the same source and id. That stays, and this is refused.
    Conflict,
}

/// A decision, and what is left to do about it.
#[derive(Debug)]
pub struct Ruling {
    /// As JSON: the one that is kept, whoever made it.
    pub decision: String,
    /// What failed on the way.
    letters: Vec<Letter>,
}

impl Worker {
    /// Takes one request to its end: acked once who asked has been told, or cannot be any more, and the event is safe.
    pub(super) async fn request(&self, delivery: &Delivery) {
        let (message, received) = (&delivery.message, Instant::now());
        let event = match self.read(delivery) {
            Ok(Envelope::Event(whole)) => whole.event,
            Ok(Envelope::Invocation(_) | Envelope::Newer(_)) => return self.broker.ack(delivery.receipt), // not from here
            Err(malformed) => return self.refuse(delivery, malformed).await,
        };
        let misfit = self.catalog.borrow().types().misfit(&event);
        if let Some(misfit) = misfit.filter(|misfit| misfit.strict) {
            Metric::EventsMisfit.count(&[("type", misfit.on.clone()), ("action", "buried".to_owned())]);
            return self.refuse(delivery, Malformed::new(Class::Invalid, misfit.sentence())).await;
        }
        let left = asking::time_left(message, self.rules.gate_deadline, now_ms());
        let until = received + left.unwrap_or_default();
        let speaks = dialect::of_message(message).ok().flatten().unwrap_or_default();
        let reply = |kept: &str| asking::reply(message.asking.as_ref(), &crate::dialect::answer(speaks, kept));
        let decided = match left {
            Some(_) => self.decide(&event, until).await,
            None => Err(Undecided::Late { is_ours: false }), // it may have been somebody's before
        };
        match decided {
            Ok(ruling) => {
                let replied = self.reply(delivery, reply(&ruling.decision), until);
                tokio::join!(replied, self.conclude(&event, &ruling));
                failpoint::Point::GatePublished.reached(&event.id);
                self.broker.ack(delivery.receipt);
            }
            Err(Undecided::Late { is_ours }) => {
                self.undecided(&event, is_ours).await;
                self.broker.ack(delivery.receipt);
            }
            Err(Undecided::Interrupted) => {} // it comes again, to somebody else
            Err(Undecided::Conflict) => {
                let refusal = Decision::conflict().to_json();
                self.reply(delivery, reply(&refusal), until).await;
                self.broker.ack(delivery.receipt);
            }
        }
    }

    /// Gives a request back that was not begun, for another worker to take while there is time. What came more than once is
    /// marked: its answer may be what ends connections, and is sent alone.
    pub(super) async fn hand_back_request(&self, delivery: &Delivery) {
        let mut message = delivery.message.clone();
        if delivery.deliveries > 0 {
            message = message.with(CAME_BEFORE, true);
        }
        self.send(Outgoing { to: Destination::Gates, delay: Duration::ZERO, message }).await;
        self.broker.ack(delivery.receipt);
        Metric::HandedBack.count(&[]);
    }

    /// A request that is no event: its body becomes a letter, and who asked is told why.
    pub(super) async fn refuse(&self, delivery: &Delivery, malformed: Malformed) {
        let refusal = asking::refusal(delivery.message.asking.as_ref(), &malformed.error);
        self.reply(delivery, refusal, Instant::now() + self.rules.gate_deadline).await;
        self.set_aside(delivery, Aside::Malformed(malformed)).await;
    }

    /// Asks the gates about an event, or finds what was decided on it before. Not acted upon yet: see
    /// [`Worker::conclude`].
    ///
    /// # Errors
    /// There is no decision by `until`, or by the end of this process.
    pub async fn decide(&self, event: &Arc<Event>, until: Instant) -> Result<Ruling, Undecided> {
        let (token, began) = (Token { run: fastrand::u64(..), body: event.body_digest }, Instant::now());
        let key = InvocationKey::of_request(event.digest);
        let about = event.content_digest();
        let case = Case { event, key, about, token, is_others: AtomicBool::default(), began, until };
        let _entered = self.in_flight.enter(&case.key, Point::first(0));
        let is_ours = || !case.is_others.load(Ordering::Relaxed);
        let decided = tokio::select! {
            biased;
            decided = self.decide_by(&case) => decided,
            () = self.interrupt.cancelled() => Err(Undecided::Interrupted),
            () = sleep_until(until) => Err(Undecided::Late { is_ours: is_ours() }),
        };
        if let Err(Undecided::Conflict) = &decided {
            Metric::EventsConflicting.count(&[]);
            tracing::warn!(
                event = event.id,
                source = event.source,
                "refused: something else was decided under this id"
            );
        } else if let Ok(ruling) = &decided {
            let verdict = serde_json::from_str::<Decision>(&ruling.decision).unwrap_or_default().verdict;
            Metric::GateDecisions.count(&[("verdict", format!("{verdict:?}").to_lowercase())]);
            Metric::GateSeconds.record(began.elapsed().as_secs_f64());
        } else {
            // Whoever claims next must not take its end for a death. If it is decided by now, this comes to nothing.
            let release = Request::Release { token, keep_ms: millis(self.rules.window) };
            if self.store.ask(&case.key, &release).await.is_err() {
                self.store.abandon(&case.key, token, millis(self.rules.window));
            }
        }
        decided
    }

    /// What follows from a decision: its event goes to those who observe it, with the decision, and what failed is put on
    /// record. Returns once all that is safe.
    pub async fn conclude(&self, event: &Arc<Event>, ruling: &Ruling) {
        let recorded = async {
            for letter in &ruling.letters {
                self.dead_letter(letter.clone(), "a gate failed; there is nothing to replay").await;
            }
        };
        let decision = Decided::of_kept(&ruling.decision);
        tokio::join!(recorded, self.publish_decided(event, decision, Duration::ZERO));
    }

    /// Nobody has decided in time, as far as anybody here knows: those who observe the event are told so.
    pub async fn undecided(&self, event: &Arc<Event>, is_ours: bool) {
        let kept = self.store.decided(event.digest).await.ok().flatten();
        let kept = kept.filter(|kept| is_about(kept, event));
        tracing::warn!(event = event.id, decided = kept.is_some(), "a request was not answered in time");
        if let Some(kept) = kept {
            return self.publish_decided(event, Decided::of_kept(&kept), Duration::ZERO).await;
        }
        Metric::GatesUndecided.count(&[("why", "late".to_owned())]);
        let wait = if is_ours { Duration::ZERO } else { TOLD_AFTER };
        self.publish_decided(event, Decided::nobody(), wait).await;
    }

    /// The event of a request that nobody took in time, with what was decided all the same. Waits for the store as long as
    /// the delivery may be held.
    pub(super) async fn with_decision(&self, whole: EventMessage, until: Instant) -> EventMessage {
        let kept = loop {
            match self.store.decided(whole.event.digest).await {
                Ok(kept) => break kept.filter(|kept| is_about(kept, &whole.event)),
                Err(Unanswered::Unreadable) => break None,
                Err(_) if timeout_at(until, self.store.back()).await.is_err() => break None,
                Err(_) => sleep(LOOK_EVERY).await,
            }
        };
        if kept.is_none() {
            Metric::GatesUndecided.count(&[("why", "expired".to_owned())]);
        }
        let decision = Some(kept.map_or_else(Decided::nobody, |kept| Decided::of_kept(&kept)));
        EventMessage { decision, ..whole }
    }

    /// To those who observe the event, if there are any: as for every event, the catalog of whoever takes it says so.
    async fn publish_decided(&self, event: &Arc<Event>, decision: Decided, wait: Duration) {
        let hooks = self.catalog.borrow().clone();
        let matches = hooks.matching(event);
        if matches.hooks.is_empty() && matches.failed.is_empty() && hooks.types().misfit(event).is_none() {
            return Metric::EventsUnmatched.count(&[]);
        }
        let event = Arc::clone(event);
        let message = EventMessage { event, decision: Some(decision), replay_of: None }.message();
        self.send(Outgoing::to_lane(Lane::Default, wait, message)).await;
    }

    /// Tells who asked, if anybody waits.
    async fn reply(&self, delivery: &Delivery, reply: Option<Outgoing>, until: Instant) {
        if let Some(reply) = reply
            && let Err(error) = self.broker.reply(delivery, reply, until).await
        {
            tracing::warn!(%error, "an answer cannot be sent");
        }
    }

    async fn decide_by(&self, case: &Case<'_>) -> Result<Ruling, Undecided> {
        let until = case.began + asking::time_of_hooks(case.left());
        let turn = |deaths| Turn { worker: self, event: case.event, until, deaths };
        loop {
            let claimed = self.claim_request(case).await;
            case.is_others.store(matches!(claimed, Right::Busy(_)), Ordering::Relaxed);
            let (deaths, lease) = match claimed {
                Right::Ours { deaths, lease } => (deaths, lease),
                Right::Kept(decision) => return Ok(Ruling { decision, letters: Vec::new() }),
                Right::Conflict => return Err(Undecided::Conflict),
                Right::Busy(wait) => {
                    sleep(wait.min(LOOK_EVERY)).await;
                    continue;
                }
                Right::Away => {
                    let (decision, letters) = turn(0).fail_all(Class::Exhausted, "the store of claims is away");
                    let decision = case.made(decision);
                    self.store.ask_later(&case.key, case.decides(&decision, self.rules.window));
                    return Ok(Ruling { decision, letters });
                }
            };
            failpoint::Point::GateClaimed.reached(&case.event.id);
            let asked = async {
                let turn = turn(deaths);
                if deaths >= DEATHS_MAX {
                    return Ok(turn.fail_all(Class::Poisoned, &format!("{deaths} workers died while they asked")));
                }
                turn.ask_all().await
            };
            let (decision, letters) = tokio::select! {
                biased;
                asked = asked => asked?,
                () = self.taken_over(case, lease) => continue,
            };
            failpoint::Point::GateAsked.reached(&case.event.id);
            let made = case.made(decision);
            let decision = self.keep(case, made.clone()).await;
            if Decision::is_about_else(&decision, &case.about) == Some(true) {
                return Err(Undecided::Conflict); // another worker was first, with something else
            }
            failpoint::Point::GateDecided.reached(&case.event.id);
            // Where another worker was first, what failed here did not count.
            let letters = if decision == made { letters } else { Vec::new() };
            return Ok(Ruling { decision, letters });
        }
    }
}

/// Whether a decision that is kept is about this event, and not about something else under its identity.
fn is_about(kept: &str, event: &Event) -> bool {
    Decision::is_about_else(kept, &event.content_digest()) != Some(true)
}
