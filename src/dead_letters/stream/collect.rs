//! Letters of what the broker dead-letters by itself.
//!
//! It comes to a quorum queue. The keeper reads that one message at a time, on a connection of its own: a message that the
//! broker cannot convert ends the connection which it is handed to, and must take nothing along. Such a message is
//! delivered a few times, and then the broker itself moves it to the queue of what is unreadable.
//!
//! Records of older versions come the same way, and are passed on to the log as they are.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{BODY, BODY_IN, StreamLetters};
use crate::amqp::connection::{backoff, call, close, connect, is_internal_error};
use crate::amqp::convert;
use crate::amqp::declare::waiting;
use crate::dead_letters::{DeadLetterError, DeadLetters as _};
use crate::domain::dead_letter::{RECORD, Record};
use crate::domain::message::{Message, Properties};
use crate::telemetry::{Metric, now_ms};

/// What its connections are called that operators see in the broker.
const PURPOSE: &str = "hookfleet dead-lettered";
/// Marks a record that is not meant for the log: see `upkeep`.
pub(super) const PROBE: &str = "hookfleet-probe";
/// Before a queue is read again whose connection the broker has ended at a delivery.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Between two tries to append a letter.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// Between two looks whether something that was unreadable can be read after all.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// A queue that hands out nothing for so long is empty.
const EMPTY_AFTER: Duration = Duration::from_secs(1);
/// Messages that are looked at in one go, and connections that this may cost.
const LOOK_MAX: u16 = 100;

/// What a message is that came this way.
enum Found {
    /// It became this record.
    Made(Record),
    /// A record of an older version.
    Record(Message),
    /// It has done its work by coming.
    Probe,
}

impl StreamLetters {
    /// Reads what the broker dead-letters, for ever.
    pub(super) async fn collect_dead_lettered(&self) {
        let (mut tries, mut look_at) = (0, Instant::now());
        loop {
            let began = Instant::now();
            if began >= look_at {
                look_at = began + LOOK_EVERY;
                match self.take_back().await {
                    Ok(0) => {}
                    Ok(taken) => tracing::info!(taken, "messages that could not be read before are letters now"),
                    Err(reason) => {
                        tracing::warn!(reason, "it is not known whether unreadable messages can be read now");
                    }
                }
            }
            let Err(reason) = self.collect_until(look_at).await else { continue };
            if is_internal_error(&reason) {
                tracing::warn!(reason, "the broker cannot hand out a dead-lettered message; it will set it apart");
                self.stirred.notify_one();
                sleep(AGAIN_AFTER).await;
                continue;
            }
            tries = if began.elapsed() > Duration::from_secs(10) { 0 } else { tries + 1 };
            tracing::warn!(reason, "what the broker dead-letters cannot be read, trying again");
            sleep(backoff(tries, fastrand::f64())).await;
        }
    }

    /// Reads until then, or until the connection is lost.
    async fn collect_until(&self, until: Instant) -> Result<(), String> {
        let connection = connect(&self.server, PURPOSE).await.map_err(|error| error.to_string())?;
        let ended = match timeout_at(until, self.collect_on(&connection)).await {
            Ok(Err(reason)) => Err(reason),
            Err(_) => Ok(()),
        };
        close(&connection).await;
        ended
    }

    async fn collect_on(&self, connection: &Connection) -> Result<Infallible, String> {
        let channel = call("open a channel", connection.create_channel()).await?;
        call("set the prefetch", channel.basic_qos(1, BasicQosOptions::default())).await?;
        let name = self.names.buried();
        let options = BasicConsumeOptions::default();
        let opened = channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default());
        let mut consumer = call(&format!("consume from {name}"), opened).await?;
        while let Some(received) = consumer.next().await {
            let delivery = received.map_err(|error| error.to_string())?;
            self.take(&channel, delivery).await?;
        }
        Err(format!("the consumer of {name} ended: was the queue deleted?"))
    }

    /// Writes what a message amounts to into the log, and acks it after the confirm.
    async fn take(&self, channel: &Channel, delivery: Delivery) -> Result<(), String> {
        let tag = delivery.delivery_tag;
        let found = self.found(delivery);
        // The message behind it waits in its queue meanwhile.
        while let Err(error) = self.write(&found).await {
            tracing::debug!(%error, "a dead-lettered message is not in the log yet, trying again");
            sleep(REPEAT_AFTER).await;
        }
        if let Found::Made(Record::Letter(letter)) = &found {
            let hook = letter.hook.clone().unwrap_or_default();
            let (id, class, error) = (&letter.id, letter.class, letter.error.as_str());
            tracing::warn!(letter = %id, ?class, hook, error, "dead-lettered: by the broker");
            Metric::Letters.count(&[("class", class.name()), ("hook", hook)]);
        }
        call("ack", channel.basic_ack(tag, BasicAckOptions::default())).await
    }

    fn found(&self, delivery: Delivery) -> Found {
        if !self.is_ours(&delivery) {
            return Found::Made(self.foreign(delivery, now_ms()));
        }
        let message = convert::message(delivery.data, &delivery.properties);
        if message.flag(PROBE) { Found::Probe } else { Found::Record(passed_on(message)) }
    }

    async fn write(&self, found: &Found) -> Result<(), DeadLetterError> {
        match found {
            Found::Made(record) => self.append(record).await,
            Found::Record(message) => self.publish(message.clone()).await,
            Found::Probe => Ok(()),
        }
    }

    /// Looks through what counts as unreadable for what can be read after all: a keeper may have died beside it, or the
    /// broker may be a newer one. Answers how many messages it made letters of.
    ///
    /// What was handed out before comes first, in the order in which it came back. So at first everything is asked for at
    /// once, which ends at the first message that is unreadable. From then on each is asked for alone, and what ends its
    /// connection goes behind the others.
    async fn take_back(&self) -> Result<u64, String> {
        let name = self.names.unreadable();
        let connection = connect(&self.server, PURPOSE).await.map_err(|error| error.to_string())?;
        let found = waiting(&connection, &name).await;
        close(&connection).await;
        let mut left = found?.min(u64::from(LOOK_MAX));
        let (mut taken, mut at_once) = (0, LOOK_MAX);
        while left > 0 {
            let connection = connect(&self.server, PURPOSE).await.map_err(|error| error.to_string())?;
            let before = left;
            let ended = self.take_back_on(&connection, &name, at_once, &mut left).await;
            close(&connection).await;
            taken += before - left;
            match ended {
                Ok(()) => break,
                Err(reason) if is_internal_error(&reason) => left -= u64::from(at_once == 1),
                Err(reason) => return Err(reason),
            }
            at_once = 1;
        }
        Ok(taken)
    }

    /// Takes up to so many messages as are `left` on one connection, or as come.
    async fn take_back_on(
        &self,
        connection: &Connection,
        name: &str,
        at_once: u16,
        left: &mut u64,
    ) -> Result<(), String> {
        let channel = call("open a channel", connection.create_channel()).await?;
        call("set the prefetch", channel.basic_qos(at_once, BasicQosOptions::default())).await?;
        let opened =
            channel.basic_consume(name.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = call(&format!("consume from {name}"), opened).await?;
        while *left > 0 {
            let Ok(Some(received)) = timeout(EMPTY_AFTER, consumer.next()).await else { break };
            self.take(&channel, received.map_err(|error| error.to_string())?).await?;
            *left -= 1;
        }
        Ok(())
    }
}

/// A record as it came: of a newer version it may say more than this one can read.
fn passed_on(message: Message) -> Message {
    let Message { body, properties: Properties { content_type, timestamp, .. }, headers, .. } = message;
    let properties = Properties { content_type, timestamp, ..Properties::default() };
    let is_kept = |name: &str| [RECORD, BODY, BODY_IN].contains(&name);
    let headers = headers.into_iter().filter(|(name, _)| is_kept(name)).collect();
    Message { body, properties, headers, ..Message::default() }
}
