//! One read of the stream.
//!
//! On a connection of its own, since a wrong verb on a stream closes every channel beside it. It ends at a barrier record:
//! a stream has no end-of-stream signal, and its message count is an estimate.

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use super::super::{DeadLetterError, Reading};
use super::{Bodies, SILENCE_MAX, StreamLetters, offset};
use crate::amqp::connection::{call, close, connect};
use crate::domain::dead_letter::{Item, Offset, Record};

/// Unacked records; acks are written every half of it. Few, so that a long read does not hold up what else the broker does.
const PREFETCH: u16 = 100;
/// Records handed out at a time, as far as they are there.
const BATCH: usize = 50;

/// Records between a body that came by itself and its letter.
const PENDING_MAX: u64 = 10_000;

/// A read from an offset to a barrier.
pub(super) struct Stream {
    letters: StreamLetters,
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// Of the barrier that ends it.
    nonce: String,
    unacked: u16,
    bodies: Bodies,
    position: Offset,
    ended: bool,
}

impl StreamLetters {
    pub(super) async fn begin(&self, from: Offset, nonce: String) -> Result<Stream, String> {
        let connection = connect(&self.server, "hookfleet dead letters").await.map_err(|error| error.to_string())?;
        let channel = call("open a channel", connection.create_channel()).await?;
        call("set the prefetch", channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let mut arguments = FieldTable::default();
        let place = match i64::try_from(from.0) {
            Ok(at) if at > 0 => AMQPValue::LongLongInt(at),
            _ => AMQPValue::LongString("first".into()),
        };
        arguments.insert(ShortString::from("x-stream-offset"), place);
        let name = self.names.dead();
        let opened = channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = call(&format!("read the stream {name}"), opened).await?;
        let (letters, bodies) = (self.clone(), Bodies::new());
        Ok(Stream { letters, connection, channel, consumer, nonce, unacked: 0, bodies, position: from, ended: false })
    }
}

impl Stream {
    /// Where the first record stands.
    pub(super) async fn first(&mut self) -> Result<Offset, String> {
        let first = self.deliveries().await?;
        Ok(first.first().map(offset).unwrap_or_default())
    }

    async fn deliveries(&mut self) -> Result<Vec<lapin::message::Delivery>, String> {
        let mut chunks = (&mut self.consumer).ready_chunks(BATCH);
        match timeout(SILENCE_MAX, chunks.next()).await {
            Ok(Some(chunk)) => chunk.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string()),
            Ok(None) => Err("the stream ended in the middle of the read".to_owned()),
            Err(_) => Err(format!("nothing came for {SILENCE_MAX:?}")),
        }
    }

    async fn batch(&mut self) -> Result<Vec<Item>, String> {
        let deliveries = self.deliveries().await?;
        let last = deliveries.last().map(|delivery| delivery.delivery_tag);
        self.unacked += u16::try_from(deliveries.len()).unwrap_or(PREFETCH);
        let mut items = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            self.position = offset(&delivery).next();
            match self.letters.item(delivery, &mut self.bodies) {
                Some(Item { record: Record::Barrier { nonce }, .. }) if nonce == self.nonce => {
                    self.ended = true;
                    return Ok(items);
                }
                Some(Item { record: Record::Barrier { .. }, .. }) | None => {}
                Some(item) => items.push(item),
            }
        }
        if let Some(tag) = last.filter(|_| self.unacked >= PREFETCH / 2) {
            self.unacked = 0;
            call("ack", self.channel.basic_ack(tag, BasicAckOptions { multiple: true })).await?;
        }
        Ok(items)
    }
}

#[async_trait]
impl Reading for Stream {
    async fn next(&mut self) -> Result<Option<Vec<Item>>, DeadLetterError> {
        if self.ended {
            close(&self.connection).await;
            return Ok(None);
        }
        self.batch().await.map(Some).map_err(DeadLetterError::Read)
    }

    /// Where a body stands whose letter is still to come, unless that is long ago: its writer died then.
    fn position(&self) -> Offset {
        let recent = self.position.0.saturating_sub(PENDING_MAX);
        let pending = self.bodies.values().map(|(at, _)| *at).filter(|at| at.0 >= recent);
        pending.min().unwrap_or(self.position)
    }
}
