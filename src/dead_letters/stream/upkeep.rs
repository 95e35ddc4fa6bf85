//! What the keeper mends around the log: bindings that a worker of an older version makes whenever it connects.
//!
//! Such a worker binds the stream and the copies to what the broker dead-letters, from where everything would get into them
//! as its client wrote it. Bindings cannot be read over AMQP. So a probe is published there, and the stream is watched for
//! it. Then the bindings are removed, whether the probe came or not: removing what is not there is no error.

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use super::collect::PROBE;
use super::{SILENCE_MAX, StreamLetters};
use crate::amqp::connection::{call, close, connect};
use crate::amqp::convert;
use crate::amqp::declare::{unbind, waiting};
use crate::amqp::topology::Topology;
use crate::dead_letters::Upkeep;
use crate::domain::dead_letter::Record;

impl StreamLetters {
    pub(super) async fn mend(&self) -> Result<Upkeep, String> {
        let connection = connect(&self.server, "hookfleet keeper upkeep").await.map_err(|error| error.to_string())?;
        let mended = self.mend_on(&connection).await;
        close(&connection).await;
        mended
    }

    async fn mend_on(&self, connection: &Connection) -> Result<Upkeep, String> {
        let watched = self.is_bound(connection).await;
        unbind(connection, &Topology::new(self.names.namespace()).former).await?;
        let unreadable = waiting(connection, &self.names.unreadable()).await?;
        let unbound = watched.unwrap_or_else(|reason| {
            tracing::debug!(reason, "it is not known whether the log was bound to what the broker dead-letters");
            false
        });
        let retries_still_ms = self.probe_ladder(connection).await?;
        Ok(Upkeep { unreadable, unbound, retries_still_ms })
    }

    /// Whether what the broker dead-letters gets into the stream.
    async fn is_bound(&self, connection: &Connection) -> Result<bool, String> {
        let channel = call("open a channel", connection.create_channel()).await?;
        call("set the prefetch", channel.basic_qos(100, BasicQosOptions::default())).await?;
        let mut consumer = self.consume_from_now(&channel).await?;
        let sending = call("open a channel", connection.create_channel()).await?;
        call("confirm mode", sending.confirm_select(ConfirmSelectOptions::default())).await?;
        let nonce = || format!("{:032x}", fastrand::u128(..));
        let (probe, barrier) = (nonce(), nonce());
        for (exchange, nonce) in [(self.names.dead(), &probe), (self.names.letters(), &barrier)] {
            let message = Record::Barrier { nonce: nonce.clone() }.message();
            let message = if *nonce == probe { message.with(PROBE, true) } else { message };
            let (options, properties) = (BasicPublishOptions::default(), convert::properties(&message));
            let sent = sending.basic_publish(exchange.as_str().into(), "".into(), options, &message.body, properties);
            call("publish a probe", async { sent.await?.await }).await?;
        }
        let is = |body: &[u8], wanted: &str| matches!(Record::decode(body), Ok(Record::Barrier { nonce }) if nonce == *wanted);
        let mut found = false;
        loop {
            let next = timeout(SILENCE_MAX, consumer.next()).await;
            let delivery = match next.map_err(|_| format!("nothing came for {SILENCE_MAX:?}"))? {
                Some(received) => received.map_err(|error| error.to_string())?,
                None => return Err("the stream ended in the middle of the read".to_owned()),
            };
            found |= is(&delivery.data, &probe);
            if is(&delivery.data, &barrier) {
                return Ok(found);
            }
            call("ack", channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default())).await?;
        }
    }

    async fn consume_from_now(&self, channel: &Channel) -> Result<Consumer, String> {
        let mut arguments = FieldTable::default();
        arguments.insert(ShortString::from("x-stream-offset"), AMQPValue::LongString("next".into()));
        let name = self.names.dead();
        let opened = channel.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments);
        call(&format!("read the stream {name}"), opened).await
    }
}
