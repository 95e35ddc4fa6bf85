//! The dead-letter log as a RabbitMQ stream.
//!
//! Appends go through the broker's confirmed publishing. Reads open a connection of their own, since a wrong verb on a
//! stream closes every channel beside it, and end at a barrier record: a stream has no end-of-stream signal, and its
//! message count is an estimate.
//!
//! Streams are written, but not synced to disk, when they are confirmed: `recover` appends again what a power cut took,
//! from the copies of the last hour that a quorum queue keeps.
//!
//! A letter that is too large for one message is two: its body as it came, which the broker has taken in that size
//! before, and after its confirm the letter without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use super::{DeadLetterError, DeadLetters, Recovered};
use crate::amqp::connection::{call, connect};
use crate::amqp::convert;
use crate::amqp::topology::Names;
use crate::broker::Broker;
use crate::config::BrokerServer;
use crate::domain::dead_letter::{Body, Letter, RECORD, Record};
use crate::domain::message::{Message, Outgoing};
use crate::domain::replay::{BrokerMade, broker_made};

mod recover;

/// Unacked records while reading; acks are written every half of it.
const PREFETCH: u16 = 500;
/// A larger record does without its body: in JSON that may be six times what it was.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Marks a message that is the body of a letter, and names it.
const BODY: &str = "hookfleet-letter-body";
/// Names the message with the body of this letter.
const BODY_IN: &str = "hookfleet-letter-body-in";
/// Longest silence in the middle of a read.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bodies that came before their letters.
type Bodies = HashMap<String, Bytes>;

/// The log on a broker.
pub struct StreamLetters {
    broker: Arc<dyn Broker>,
    server: BrokerServer,
    names: Names,
}

impl StreamLetters {
    /// Appends through `broker`, reads from `server`, where it is.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, server: BrokerServer, namespace: &str) -> Self {
        Self { broker, server, names: Names::new(namespace) }
    }

    /// Whether a delivery is a record of ours, or a message that the broker put here by itself.
    fn record(&self, delivery: Delivery, bodies: &mut Bodies) -> Option<Record> {
        let (exchange, death) = (delivery.exchange.to_string(), death(&delivery));
        let is_ours = self.is_ours(&delivery);
        let message = convert::message(delivery.data, &delivery.properties);
        if is_ours {
            if let Some(name) = message.text(BODY) {
                bodies.insert(name.to_owned(), message.body.clone());
                return None;
            }
            return match Record::decode(&message.body) {
                Ok(record) => Some(with_body(record, &message, bodies)),
                Err(error) => {
                    tracing::warn!(error, "a record of the dead-letter log was left out");
                    None
                }
            };
        }
        let (queue, reason) = death.map_or((exchange, None), |(queue, reason)| (queue, Some(reason)));
        let place = self.names.short(&queue);
        let ours = reason.is_some() && (["lane.", "delay.", "park."].iter().any(|ours| place.starts_with(ours)));
        let made = BrokerMade { place, reason: reason.as_deref(), ours };
        Some(Record::Letter(Box::new(broker_made(&message, &made))))
    }

    /// Whether it was published as a record, to the log or back to the copies: our headers are believed only there.
    fn is_ours(&self, delivery: &Delivery) -> bool {
        let to_the_log = delivery.exchange.as_str() == self.names.dead();
        let to_the_copies =
            delivery.exchange.as_str().is_empty() && delivery.routing_key.as_str() == self.names.recent();
        let marked = || delivery.properties.headers().as_ref().is_some_and(|headers| headers.contains_key(RECORD));
        (to_the_log || to_the_copies) && death(delivery).is_none() && marked()
    }

    async fn open(&self) -> Result<(lapin::Connection, Channel, Consumer), String> {
        let connection = connect(&self.server, "hookfleet dead letters").await.map_err(|error| error.to_string())?;
        let channel = call("open a channel", connection.create_channel()).await?;
        call("set the prefetch", channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let mut arguments = FieldTable::default();
        arguments.insert(ShortString::from("x-stream-offset"), AMQPValue::LongString("first".into()));
        let name = self.names.dead();
        let consumer =
            channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = call(&format!("read the stream {name}"), consumer).await?;
        Ok((connection, channel, consumer))
    }

    async fn read_to(&self, nonce: &str, visit: &mut (dyn FnMut(Record) + Send)) -> Result<(), String> {
        let (connection, channel, mut consumer) = self.open().await?;
        let (mut unacked, mut bodies) = (0, Bodies::new());
        loop {
            let delivery = match timeout(SILENCE_MAX, consumer.next()).await {
                Ok(Some(Ok(delivery))) => delivery,
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) => return Err("the stream ended in the middle of the read".to_owned()),
                Err(_) => return Err(format!("nothing came for {SILENCE_MAX:?}")),
            };
            unacked += 1;
            if unacked >= PREFETCH / 2 {
                unacked = 0;
                call("ack", channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true })).await?;
            }
            match self.record(delivery, &mut bodies) {
                Some(Record::Barrier { nonce: found }) if found == nonce => break,
                Some(Record::Barrier { .. }) | None => {}
                Some(record) => visit(record),
            }
        }
        let _ = connection.close(200, "bye".into()).await;
        Ok(())
    }
}

/// Gives a letter back the body that came by itself.
fn with_body(record: Record, message: &Message, bodies: &mut Bodies) -> Record {
    match (record, message.text(BODY_IN)) {
        (Record::Letter(letter), Some(name)) => {
            let body = bodies.remove(name);
            if body.is_none() {
                tracing::warn!(letter = %letter.id, "the body of a letter is gone: it was kept for its time");
            }
            Record::Letter(Box::new(Letter { body: Body::new(&body.unwrap_or_default()), ..*letter }))
        }
        (record, _) => record,
    }
}

/// Queue and reason of a broker-made dead-lettering.
fn death(delivery: &Delivery) -> Option<(String, String)> {
    let headers = delivery.properties.headers().as_ref()?;
    let text = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        Some(AMQPValue::ShortString(text)) => Some(text.to_string()),
        _ => None,
    };
    Some((text("x-first-death-queue")?, text("x-first-death-reason")?))
}

#[async_trait]
impl DeadLetters for StreamLetters {
    async fn append(&self, record: &Record) -> Result<(), DeadLetterError> {
        let publish = async |message: Message| {
            let published = self.broker.publish(Outgoing::to_dead(message)).await;
            published.map_err(|error| DeadLetterError::Append(error.to_string()))
        };
        let message = record.message();
        match record {
            Record::Letter(letter) if message.body.len() > RECORD_BYTES_MAX => {
                let name = format!("{:032x}", fastrand::u128(..));
                let body = letter.body.bytes().map_err(DeadLetterError::Append)?;
                let body = Message { body, ..Message::default() };
                publish(body.with(RECORD, true).with(BODY, name.as_str())).await?;
                let rest = Letter { body: Body::Text(String::new()), ..(**letter).clone() };
                publish(Record::Letter(Box::new(rest)).message().with(BODY_IN, name)).await
            }
            _ => publish(message).await,
        }
    }

    async fn read(&self, visit: &mut (dyn FnMut(Record) + Send)) -> Result<(), DeadLetterError> {
        let nonce = format!("{:032x}", fastrand::u128(..));
        self.append(&Record::Barrier { nonce: nonce.clone() }).await?;
        self.read_to(&nonce, visit).await.map_err(DeadLetterError::Read)
    }

    async fn recover(&self) -> Result<Recovered, DeadLetterError> {
        self.recover_from_copies().await.map_err(DeadLetterError::Recover)
    }
}
