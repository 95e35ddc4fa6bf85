//! The dead-letter log as a RabbitMQ stream.
//!
//! Appends go through the broker's confirmed publishing. Reads open a connection of their own, since a wrong verb on a
//! stream closes every channel beside it, and end at a barrier record: a stream has no end-of-stream signal, and its
//! message count is an estimate.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::timeout;
use url::Url;

use super::{DeadLetterError, DeadLetters};
use crate::amqp::connection::{call, connect};
use crate::amqp::convert;
use crate::amqp::topology::Names;
use crate::broker::Broker;
use crate::domain::dead_letter::Record;
use crate::domain::hook::Secret;
use crate::domain::message::{Message, Outgoing, Properties};
use crate::domain::replay::{BrokerMade, broker_made};

/// Unacked records while reading; acks are written every half of it.
const PREFETCH: u16 = 500;
/// Longest silence in the middle of a read.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Marks a message as a record of ours.
const RECORD: &str = "hookfleet-record";

/// The log on a broker.
pub struct StreamLetters {
    broker: Arc<dyn Broker>,
    url: Secret<Url>,
    names: Names,
}

impl StreamLetters {
    /// Appends through `broker`, reads from the broker at `url`.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, url: Secret<Url>, namespace: &str) -> Self {
        Self { broker, url, names: Names::new(namespace) }
    }

    /// Whether a delivery is a record of ours, or a message that the broker put here by itself.
    fn record(&self, delivery: Delivery) -> Option<Record> {
        let (exchange, death) = (delivery.exchange.to_string(), death(&delivery));
        let message = convert::message(delivery.data, &delivery.properties);
        if exchange == self.names.dead() && death.is_none() && message.headers.contains_key(RECORD) {
            return match Record::decode(&message.body) {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::warn!(error, "a record of the dead-letter log was left out");
                    None
                }
            };
        }
        let (queue, reason) = death.map_or((exchange, None), |(queue, reason)| (queue, Some(reason)));
        let place = self.names.short(&queue);
        let ours = reason.is_some() && (place.starts_with("lane.") || place.starts_with("delay."));
        let made = BrokerMade { place, reason: reason.as_deref(), ours };
        Some(Record::Letter(Box::new(broker_made(&message, &made))))
    }

    async fn open(&self) -> Result<(lapin::Connection, Channel, Consumer), String> {
        let connection = connect(&self.url, "hookfleet dead letters").await.map_err(|error| error.to_string())?;
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
        let mut unacked = 0;
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
            match self.record(delivery) {
                Some(Record::Barrier { nonce: found }) if found == nonce => break,
                Some(Record::Barrier { .. }) | None => {}
                Some(record) => visit(record),
            }
        }
        let _ = connection.close(200, "bye".into()).await;
        Ok(())
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
        let properties = Properties { content_type: Some("application/json".to_owned()), ..Properties::default() };
        let message = Message { body: record.encode(), properties, ..Message::default() }.with(RECORD, true);
        let published = self.broker.publish(Outgoing::to_dead(message)).await;
        published.map_err(|error| DeadLetterError::Append(error.to_string()))
    }

    async fn read(&self, visit: &mut (dyn FnMut(Record) + Send)) -> Result<(), DeadLetterError> {
        let nonce = format!("{:032x}", fastrand::u128(..));
        self.append(&Record::Barrier { nonce: nonce.clone() }).await?;
        self.read_to(&nonce, visit).await.map_err(DeadLetterError::Read)
    }
}
