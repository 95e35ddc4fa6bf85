//! The seam to the message broker.
//!
//! Contract, checked by one suite on every implementation:
//! - what [`Broker::publish`] answered `Ok` for survives a kill -9 of the broker and of the caller;
//! - a delivery that was not acked is delivered again, also after a kill -9;
//! - an ack never overtakes: it is written after it was asked for, perhaps never (then the message comes again);
//! - a delayed message arrives no earlier than its delay; no order is promised.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::message::{Message, Outgoing, Queue};

pub mod amqp;
pub mod embedded;
#[cfg(debug_assertions)]
pub mod hasty;
pub mod patience;

/// A message in hand, to be acked once what follows from it is safe.
#[derive(Debug)]
pub struct Delivery {
    pub queue: Queue,
    pub message: Message,
    /// How often the broker has delivered it before, as far as the broker counts.
    pub deliveries: u32,
    /// Its queue is taken message by message, and what comes next waits for this ack: it is to be handed back at once, to
    /// run from a lane.
    pub hand_back: bool,
    pub receipt: Receipt,
}

/// Names a delivery to the broker that made it. Worth nothing after the connection it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Counts connections, so that a receipt of an earlier one is known as void.
    pub epoch: u64,
    pub queue: Queue,
    pub tag: u64,
}

/// A queue to consume from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub queue: Queue,
    /// How many deliveries may be unacked at a time, at least 1.
    pub prefetch: u16,
    /// Where so many do not fit into so many bytes of bodies, it is fewer, but never none. A broker that can only count
    /// goes by what bodies were like of late.
    pub bytes: usize,
}

/// Why a message is not known to be safe. Publishing it again is always allowed, and doubles are dropped downstream.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    #[error("the broker is away: {0}")]
    Away(String),
    #[error("the broker did not confirm in time")]
    Unconfirmed,
    #[error("the broker refused the message: {0}")]
    Refused(String),
    /// It was mandatory, and no queue is bound for its routing key.
    #[error("no queue got the message: none is bound for its routing key (with `mandatory: false` that is no failure)")]
    Unroutable,
    /// It is larger than this broker takes.
    #[error("the broker will never take the message: {0}")]
    TooLarge(String),
    /// The message, or where it is to go, is not valid for this broker, or for a gateway in between.
    #[error("{0}")]
    Invalid(String),
    /// The fleet, or its rules for targets, allow no publishing there.
    #[error("{0}")]
    Forbidden(String),
}

impl PublishError {
    /// Whether publishing the same message again is of no use.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::TooLarge(_) | Self::Invalid(_) | Self::Forbidden(_) => true,
            Self::Away(_) | Self::Unconfirmed | Self::Refused(_) | Self::Unroutable => false,
        }
    }
}

/// How the connection is doing, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Up,
    /// It works, but for this: a queue is taken message by message, since the broker cannot hand out one of them.
    Limping(String),
    /// What is wrong, in one sentence.
    Down(String),
}

/// A broker: where deliveries come from and messages go to. Reconnects by itself, for ever.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Consumes from exactly these queues from now on. An empty list stops consuming: deliveries in hand stay valid.
    fn want(&self, queues: Vec<Wanted>);

    /// The next delivery; `None` once the broker is closed. Cancel-safe.
    async fn receive(&self) -> Option<Delivery>;

    /// Consumes no more, and answers what had arrived and was not received. RabbitMQ may send a few more all the same (what
    /// a quorum queue had handed out when the consumer ended), which come again to others. For the end: nothing is wanted
    /// or received after it.
    async fn drain(&self) -> Vec<Delivery>;

    /// Publishes and waits until the broker has it for good.
    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError>;

    /// Asks the gates: sends an event as a request and waits for the answer, for so long. `None`: nobody has answered. A
    /// request may be sent twice; both are decided alike.
    async fn ask(&self, request: &Message, within: Duration) -> Result<Option<Message>, PublishError>;

    /// Sends the answer to the request that this delivery is, before its ack: an answer that is lost on the way comes again
    /// with its request. One that the broker does not take then, or not `until` then, is given up.
    ///
    /// # Errors
    /// It is given up: ack the request all the same.
    async fn reply(&self, delivery: &Delivery, reply: Outgoing, until: Instant) -> Result<(), PublishError>;

    /// Acks a delivery, some time soon. A void receipt is ignored.
    fn ack(&self, receipt: Receipt);

    /// Whether a delivery of this queue may have come again because of another message: one that the broker cannot hand out,
    /// for which it ends the connection of each consumer with all that this had in hand. Waits for the news up to two
    /// seconds, since a delivery comes again before its last worker has noticed the end.
    async fn refuses_another(&self, _queue: Queue) -> bool {
        false
    }

    /// The current state and its changes.
    fn health(&self) -> watch::Receiver<Health>;

    /// Stops consuming, writes the acks asked for so far, closes. Deliveries that were not acked will come again.
    async fn close(&self);
}
