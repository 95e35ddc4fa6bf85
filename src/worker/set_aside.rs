//! Messages that do not go on from here: to lane `suspect`, back to their lane, or to the dead letters.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use crate::broker::Delivery;
use crate::dialect;
use crate::domain::dead_letter::{Cause, Letter};
use crate::domain::event::Malformed;
use crate::domain::failure::Class;
use crate::domain::invocation::{self, Client, Envelope};
use crate::domain::message::{Lane, Outgoing, Queue};
use crate::telemetry::{Metric, now_ms};

/// Why a message does not go on.
pub(super) enum Aside {
    /// It may be what killed its earlier workers: it is run alone, on lane `suspect`.
    Suspect,
    /// It is no event, or cannot be run: a dead letter.
    Malformed(Malformed),
    /// It comes again after this wait, byte for byte, on the same lane.
    Later(Duration),
}

impl Worker {
    pub(super) async fn set_aside(&self, delivery: &Delivery, aside: Aside) {
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
                let letter = self.poisoned_invocation(delivery, &malformed);
                let letter = letter.unwrap_or_else(|| letter_of(delivery, &malformed));
                self.dead_letter(letter, "not a valid event").await;
            }
        }
        self.broker.ack(*receipt);
    }

    /// The dead letter of an invocation that is given up unread. It names the hook, so that a replay runs that and no other.
    fn poisoned_invocation(&self, delivery: &Delivery, malformed: &Malformed) -> Option<Letter> {
        if malformed.class != Class::Poisoned {
            return None;
        }
        match Envelope::decode(delivery.queue, &delivery.message, &self.rules.reading) {
            Ok(Envelope::Invocation(invocation)) => {
                let deaths = invocation.deaths.max(delivery.deliveries);
                let hook = self.catalog.borrow().get(invocation.hook.as_str()).map(Arc::clone);
                let target = hook.as_ref().map(|hook| hook.action.target());
                let foreign = hook.as_ref().and_then(|hook| dialect::foreign_hook(hook));
                let cause = Cause { class: malformed.class, report: None, unprotected: false, deaths, target, foreign };
                Some(Letter::of_invocation(&invocation, invocation.at, cause, delivery.queue.name(), now_ms()))
            }
            Ok(Envelope::Event(_) | Envelope::Newer(_)) | Err(_) => None,
        }
    }

    /// Gives a delivery back that was not begun. It is published again and acked, since a nack would count as a death.
    pub async fn hand_back(&self, delivery: &Delivery) {
        let message = match delivery.queue {
            Queue::Lane(_) => invocation::again(&delivery.message),
            Queue::Gates => return self.hand_back_request(delivery).await,
            Queue::Events | Queue::Undecided => {
                match Envelope::decode(delivery.queue, &delivery.message, &self.rules.reading) {
                    Ok(Envelope::Event(event)) if delivery.queue == Queue::Undecided => {
                        self.with_decision(event, Instant::now()).await.message()
                    }
                    Ok(Envelope::Event(event)) => event.message(),
                    Ok(Envelope::Invocation(_) | Envelope::Newer(_)) | Err(_) => return self.handle(delivery).await,
                }
            }
        };
        self.send(Outgoing::to_lane(delivery.queue.lane(), Duration::ZERO, message)).await;
        self.broker.ack(delivery.receipt);
        Metric::HandedBack.count(&[]);
    }

    /// Sets a delivery aside on which the pipeline panicked: it is run alone once more, and dead-lettered if that panics too.
    pub async fn panicked(&self, delivery: &Delivery) {
        let aside = match delivery.queue {
            Queue::Lane(Lane::Suspect) => Aside::Malformed(Malformed::new(Class::Poisoned, "the pipeline panicked")),
            Queue::Gates => {
                return self.refuse(delivery, Malformed::new(Class::Poisoned, "deciding it panicked")).await;
            }
            Queue::Events | Queue::Undecided | Queue::Lane(_) => Aside::Suspect,
        };
        self.set_aside(delivery, aside).await;
    }
}

/// The dead letter of a message that is no event, with what its client said of it.
fn letter_of(Delivery { queue, message, .. }: &Delivery, malformed: &Malformed) -> Letter {
    let client = match queue {
        Queue::Events | Queue::Gates | Queue::Undecided => Client::of(message),
        Queue::Lane(_) => invocation::client(message).unwrap_or_default(),
    };
    Letter::of_message(malformed, client, &message.body, queue.name(), now_ms())
}
