//! The dead-letter log as a RabbitMQ stream.
//!
//! Appends go through the broker's confirmed publishing. Reads open a connection of their own, since a wrong verb on a
//! stream closes every channel beside it, and end at a barrier record: a stream has no end-of-stream signal, and its
//! message count is an estimate.
//!
//! Only records get into the stream. What the broker dead-letters by itself goes to a quorum queue, from which the keeper
//! makes letters of it (`collect`).
//!
//! Streams are written, but not synced to disk, when they are confirmed: `recover` appends again what a power cut took,
//! from the copies of the last hour that a quorum queue keeps.
//!
//! A letter that is too large for one message is two: its body as it came, which the broker has taken in that size
//! before, and after its confirm the letter without it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{DeadLetterError, DeadLetters, Keeping, Reading, Recovered, Upkeep};
use crate::amqp::convert;
use crate::amqp::topology::Names;
use crate::broker::{Broker, PublishError};
use crate::config::BrokerServer;
use crate::domain::dead_letter::{Body, Item, Letter, Offset, RECORD, Record};
use crate::domain::message::{Message, Outgoing};
use crate::domain::pulse::Pulse;
use crate::domain::replay::{BrokerMade, broker_made};
use crate::telemetry::now_ms;
use death::{Death, death, has_died};

mod collect;
mod death;
mod gap;
mod ladder;
mod lock;
mod reading;
mod recover;
mod upkeep;

/// A larger record does without its body: in JSON that may be six times what it was.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Marks a message that is the body of a letter, and names it.
const BODY: &str = "hookfleet-letter-body";
/// Names the message with the body of this letter.
const BODY_IN: &str = "hookfleet-letter-body-in";
/// From the first failure to hand out a dead-lettered message to when it is set apart, at most.
const STIRRED_FOR: Duration = Duration::from_secs(2);
/// Longest silence in the middle of a read.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Longest wait of a reader until the broker takes what ends its read: under an alarm it takes nothing.
const BARRIER_MAX: Duration = Duration::from_secs(15);

/// Bodies that came before their letters, and where.
type Bodies = HashMap<String, (Offset, Bytes)>;

/// The log on a broker; clones are the same one.
#[derive(Clone)]
pub struct StreamLetters {
    broker: Arc<dyn Broker>,
    server: BrokerServer,
    names: Names,
    /// Of the delay ladder, while this process is the keeper.
    pulse: Arc<Mutex<Pulse>>,
    /// Told when the broker has not handed out a dead-lettered message.
    stirred: Arc<Notify>,
}

impl StreamLetters {
    /// Appends through `broker`, reads from `server`, where it is.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, server: BrokerServer, namespace: &str) -> Self {
        let (pulse, stirred) = (Arc::default(), Arc::default());
        Self { broker, server, names: Names::new(namespace), pulse, stirred }
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a delivery is: a record of ours, a message that the broker dead-lettered by itself, or somebody else's.
    /// `found_ms`: when a message without a time of its own was found; 0 where that is not known.
    fn item(&self, delivery: Delivery, bodies: &mut Bodies, found_ms: u64) -> Option<Item> {
        let at = offset(&delivery);
        if !self.is_ours(&delivery) {
            return Some(Item::new(at, self.foreign(delivery, found_ms)));
        }
        let message = convert::message(delivery.data, &delivery.properties);
        if let Some(name) = message.text(BODY) {
            bodies.insert(name.to_owned(), (at, message.body.clone()));
            return None;
        }
        let written_ms = message.properties.timestamp.unwrap_or_default().saturating_mul(1000);
        Some(with_body(Item::new(at, Record::read(&message.body, written_ms)), &message, bodies))
    }

    /// The letter that a message amounts to which is no record.
    fn foreign(&self, delivery: Delivery, found_ms: u64) -> Record {
        let (exchange, headers) = (delivery.exchange.to_string(), delivery.properties.headers().as_ref());
        // Elsewhere the message had no route, and nobody but its client can have written of deaths.
        let was_dead_lettered = exchange == self.names.dead() || exchange == self.names.unreadable();
        let is_on_the_way = |queue: &str| queue == self.names.buried();
        let death = headers.filter(|_| was_dead_lettered).and_then(|headers| death(headers, is_on_the_way));
        let key = delivery.routing_key.to_string();
        let mut message = convert::message(delivery.data, &delivery.properties);
        if death.is_none() && (exchange == self.names.dead() || exchange == self.names.letters()) {
            return Record::foreign(&message.body, found_ms);
        }
        let died_ms = death.as_ref().and_then(|death| death.at_ms);
        let (queue, reason) = death.map_or((exchange, None), |Death { queue, reason, .. }| (queue, Some(reason)));
        let place = self.names.short(&queue);
        let ours =
            reason.is_some() && (["lane.", "delay.", "park.", "running"].iter().any(|ours| place.starts_with(ours)));
        message.routing_key = Some(key).filter(|_| !ours && message.properties.kind.is_none());
        let made = BrokerMade { place, reason: reason.as_deref(), ours };
        Record::Letter(Box::new(broker_made(&message, &made, found_ms).since(died_ms)))
    }

    /// Whether it was published as a record, to the log or back to the copies: our headers are believed only there. What
    /// has died anywhere is none, whatever it says of itself.
    fn is_ours(&self, delivery: &Delivery) -> bool {
        let exchange = delivery.exchange.as_str();
        let to_the_log = exchange == self.names.letters() || exchange == self.names.dead(); // older versions' way
        let to_the_copies = exchange.is_empty() && delivery.routing_key.as_str() == self.names.recent();
        let headers = delivery.properties.headers().as_ref();
        (to_the_log || to_the_copies) && headers.is_some_and(|it| it.contains_key(RECORD) && !has_died(it))
    }

    async fn publish(&self, message: Message) -> Result<(), DeadLetterError> {
        self.broker.publish(Outgoing::to_dead(message)).await.map_err(DeadLetterError::Append)
    }
}

/// Gives a letter back the body that came by itself, from where on the letter is whole.
fn with_body(item: Item, message: &Message, bodies: &mut Bodies) -> Item {
    let at = item.at;
    match (item.record, message.text(BODY_IN)) {
        (Record::Letter(letter), Some(name)) => {
            let body = bodies.remove(name);
            let whole = body.is_some();
            let (from, body) = body.unwrap_or((at, Bytes::new()));
            Item { at, from, whole, record: Record::Letter(Box::new(Letter { body: Body::new(&body), ..*letter })) }
        }
        (record, _) => Item { record, ..item },
    }
}

/// Where the stream has it; the queue of copies has no offsets.
fn offset(delivery: &Delivery) -> Offset {
    let headers = delivery.properties.headers().as_ref();
    match headers.and_then(|headers| headers.inner().get("x-stream-offset")) {
        Some(AMQPValue::LongLongInt(at)) => Offset(u64::try_from(*at).unwrap_or_default()),
        _ => Offset::default(),
    }
}

#[async_trait]
impl DeadLetters for StreamLetters {
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        let mut message = record.message();
        message.properties.timestamp = Some(now_ms() / 1000);
        match record {
            Record::Letter(letter) if message.body.len() > RECORD_BYTES_MAX => {
                let name = format!("{:032x}", fastrand::u128(..));
                let body = letter.body.bytes().map_err(PublishError::Invalid).map_err(DeadLetterError::Append)?;
                let body = Message { body, ..Message::default() };
                self.publish(body.with(RECORD, true).with(BODY, name.as_str())).await?;
                let rest = Letter { body: Body::Text(String::new()), ..(**letter).clone() };
                self.publish(Record::Letter(Box::new(rest)).message().with(BODY_IN, name)).await
            }
            _ => self.publish(message).await,
        }
    }

    async fn open(&self, from: Offset) -> Result<Box<dyn Reading>, DeadLetterError> {
        let nonce = format!("{:032x}", fastrand::u128(..));
        let barrier = Record::Barrier { nonce: nonce.clone() };
        let appended = timeout(BARRIER_MAX, self.append(&barrier)).await;
        appended.map_err(|_| DeadLetterError::Read(format!("the broker took nothing for {BARRIER_MAX:?}")))??;
        let reading = self.begin(from, nonce).await.map_err(DeadLetterError::Read)?;
        Ok(Box::new(reading))
    }

    /// The stream drops its oldest segments by itself.
    async fn trim(&self, _before_ms: u64) -> Result<Offset, DeadLetterError> {
        let mut reading = self.begin(Offset::default(), String::new()).await.map_err(DeadLetterError::Read)?;
        reading.first().await.map_err(DeadLetterError::Read)
    }

    async fn keep(&self) -> Result<Option<Box<dyn Keeping>>, DeadLetterError> {
        let held = lock::take(&self.server, "hookfleet keeper", &format!("{}.keeper", self.names.dead())).await;
        let held = held.map_err(DeadLetterError::Read)?;
        *self.pulse() = Pulse::default(); // what was sent before this place was ours may have come back to another one
        Ok(held.map(|held| Box::new(held) as Box<dyn Keeping>))
    }

    async fn collect(&self) {
        self.collect_dead_lettered().await;
    }

    /// A message that is unreadable is set apart within moments.
    async fn stirred(&self) {
        self.stirred.notified().await;
        sleep(STIRRED_FOR).await;
    }

    async fn upkeep(&self) -> Result<Upkeep, DeadLetterError> {
        self.mend().await.map_err(DeadLetterError::Read)
    }

    async fn recover(&self) -> Result<Recovered, DeadLetterError> {
        self.recover_from_copies().await.map_err(DeadLetterError::Recover)
    }
}
