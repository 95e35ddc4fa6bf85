//! One read of the stream.
//!
//! On a connection of its own, since a wrong verb on a stream closes every channel beside it. It ends at a barrier record:
//! a stream has no end-of-stream signal, and its message count is an estimate.
//!
//! Older versions let the broker itself write into the stream. A record that it cannot convert ends the connection which
//! it would be handed to. Then the read goes on behind that record, and visits a letter in its place.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use super::super::{DeadLetterError, Reading};
use super::gap::{Ahead, Gap, Looked};
use super::{Bodies, SILENCE_MAX, StreamLetters, offset};
use crate::amqp::connection::{call, close, connect, is_internal_error};
use crate::domain::dead_letter::{Item, Offset, Record};

/// Unacked records; acks are written every half of it. Few, so that a long read does not hold up what else the broker does.
const PREFETCH: u16 = 100;
/// Records handed out at a time, as far as they are there.
const BATCH: usize = 50;

/// Longest wait for a record where it is looked whether there is one.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Records between a body that came by itself and its letter.
const PENDING_MAX: u64 = 10_000;

/// A read from an offset to a barrier.
pub(super) struct Stream {
    letters: StreamLetters,
    link: Link,
    /// Of the barrier that ends it.
    nonce: String,
    bodies: Bodies,
    position: Offset,
    ended: bool,
}

/// A consumer of the stream, on a connection of its own.
pub(super) struct Link {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    prefetch: u16,
    unacked: u16,
    /// Whether anything has come.
    progress: bool,
    /// Why no more comes, found behind what came.
    lost: Option<String>,
}

/// What comes next.
enum Next {
    Deliveries(Vec<Delivery>),
    /// The records before this place are handed out to nobody.
    Gap(Offset),
}

impl StreamLetters {
    pub(super) async fn begin(&self, from: Offset, nonce: String) -> Result<Stream, String> {
        let link = self.link(from, PREFETCH).await?;
        let (letters, bodies) = (self.clone(), Bodies::new());
        Ok(Stream { letters, link, nonce, bodies, position: from, ended: false })
    }

    /// Begins to consume.
    pub(super) async fn link(&self, from: Offset, prefetch: u16) -> Result<Link, String> {
        let connection = connect(&self.server, "hookfleet dead letters").await.map_err(|error| error.to_string())?;
        let channel = call("open a channel", connection.create_channel()).await?;
        call("set the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let mut arguments = FieldTable::default();
        let place = match i64::try_from(from.0) {
            Ok(at) if at > 0 => AMQPValue::LongLongInt(at),
            _ => AMQPValue::LongString("first".into()),
        };
        arguments.insert(ShortString::from("x-stream-offset"), place);
        let name = self.names.dead();
        let opened = channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = call(&format!("read the stream {name}"), opened).await?;
        Ok(Link { connection, channel, consumer, prefetch, unacked: 0, progress: false, lost: None })
    }

    /// Whether a record at this place or behind it is handed out. Nothing comes from behind the log's end, which is no
    /// record that is withheld.
    async fn look(&self, from: Offset) -> Result<Looked, String> {
        let mut link = self.link(from, 1).await?;
        let came = timeout(LOOK_MAX, link.deliveries()).await;
        close(&link.connection).await;
        match came {
            Ok(Ok(_)) | Err(_) => Ok(Looked::Readable),
            Ok(Err(reason)) if is_internal_error(&reason) => Ok(Looked::Withheld),
            Ok(Err(reason)) => Err(reason),
        }
    }
}

impl Link {
    async fn deliveries(&mut self) -> Result<Vec<Delivery>, String> {
        if let Some(reason) = self.lost.take() {
            return Err(reason);
        }
        let mut chunks = (&mut self.consumer).ready_chunks(BATCH);
        let chunk = match timeout(SILENCE_MAX, chunks.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Err("the stream ended in the middle of the read".to_owned()),
            Err(_) => return Err(format!("nothing came for {SILENCE_MAX:?}")),
        };
        let mut deliveries = Vec::with_capacity(chunk.len());
        for received in chunk {
            match received {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) if deliveries.is_empty() => return Err(error.to_string()),
                Err(error) => self.lost = Some(error.to_string()),
            }
        }
        self.progress = true;
        Ok(deliveries)
    }

    /// Acks up to there, once it is worth it.
    async fn ack(&mut self, tag: u64, count: usize) -> Result<(), String> {
        self.unacked = self.unacked.saturating_add(u16::try_from(count).unwrap_or(PREFETCH));
        if self.unacked < self.prefetch.div_ceil(2) || self.lost.is_some() {
            return Ok(());
        }
        self.unacked = 0;
        let acked = call("ack", self.channel.basic_ack(tag, BasicAckOptions { multiple: true })).await;
        match acked {
            Err(reason) if is_internal_error(&reason) => Ok(()), // the consumer says it as well
            acked => acked,
        }
    }
}

impl Stream {
    /// Where the first record stands.
    pub(super) async fn first(&mut self) -> Result<Offset, String> {
        Ok(match self.next().await? {
            Next::Deliveries(deliveries) => deliveries.first().map(offset).unwrap_or_default(),
            Next::Gap(end) => end,
        })
    }

    /// What comes next. A connection that the broker has ended is replaced by one that asks for one record at a time, since
    /// records that came before the end may have been lost with it; where that too ends before anything came, the record at
    /// this place is withheld.
    async fn next(&mut self) -> Result<Next, String> {
        loop {
            let reason = match self.link.deliveries().await {
                Ok(deliveries) => return Ok(Next::Deliveries(deliveries)),
                Err(reason) if is_internal_error(&reason) => reason,
                Err(reason) => return Err(reason),
            };
            tracing::debug!(reason, at = self.position.0, "the broker has ended a read of the dead-letter stream");
            close(&self.link.connection).await;
            if self.link.progress || self.link.prefetch > 1 {
                self.link = self.letters.link(self.position, 1).await?;
                continue;
            }
            let mut gap = Gap::at(self.position);
            let end = loop {
                match gap.ahead()? {
                    Ahead::Look(at) => gap.looked(at, self.letters.look(at).await?),
                    Ahead::Readable(end) => break end,
                }
            };
            self.link = self.letters.link(end, PREFETCH).await?;
            return Ok(Next::Gap(end));
        }
    }

    async fn batch(&mut self) -> Result<Vec<Item>, String> {
        let deliveries = match self.next().await? {
            Next::Deliveries(deliveries) => deliveries,
            Next::Gap(end) => {
                let last = Offset(end.0.saturating_sub(1));
                self.position = end;
                return Ok(vec![Item::new(last, Record::withheld(last))]);
            }
        };
        let last = deliveries.last().map(|delivery| (delivery.delivery_tag, deliveries.len()));
        let mut items = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            self.position = offset(&delivery).next();
            match self.letters.item(delivery, &mut self.bodies, 0) {
                Some(Item { record: Record::Barrier { nonce }, .. }) if nonce == self.nonce => {
                    self.ended = true;
                    return Ok(items);
                }
                Some(Item { record: Record::Barrier { .. }, .. }) | None => {}
                Some(item) => items.push(item),
            }
        }
        if let Some((tag, count)) = last {
            self.link.ack(tag, count).await?;
        }
        Ok(items)
    }
}

#[async_trait]
impl Reading for Stream {
    async fn next(&mut self) -> Result<Option<Vec<Item>>, DeadLetterError> {
        if self.ended {
            close(&self.link.connection).await;
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
