//! Probes of the delay ladder, which the keeper sends and takes in.

use lapin::Connection;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};

use super::StreamLetters;
use crate::amqp::connection::call;
use crate::amqp::convert::{ladder_key, properties};
use crate::amqp::topology::PROBES;
use crate::domain::message::Message;
use crate::telemetry::now_ms;

/// Units that a probe waits: it passes the three lowest levels, in less than two seconds.
const UNITS: u128 = 0b111;

impl StreamLetters {
    /// Takes in the probes that have come back, and sends another one. Answers for how long none has come back that should
    /// have, in milliseconds.
    pub(super) async fn probe_ladder(&self, connection: &Connection) -> Result<u64, String> {
        let channel = call("open a channel", connection.create_channel()).await?;
        call("confirm mode", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let queue = self.names.ladder_probes();
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = call("get a probe", channel.basic_get(queue.as_str().into(), options)).await? {
            self.pulse().came_back(&String::from_utf8_lossy(&got.delivery.data));
        }
        let overdue_ms = self.pulse().round(now_ms());
        let name = format!("{:032x}", fastrand::u128(..));
        let message = Message { body: name.clone().into(), ..Message::default() };
        let (exchange, key) = (self.names.ladder(), ladder_key(UNITS, PROBES));
        let (options, properties) = (BasicPublishOptions::default(), properties(&message));
        let sent = channel.basic_publish(exchange.into(), key.into(), options, &message.body, properties);
        call("send a probe", async { sent.await?.await }).await?;
        self.pulse().sent(name, now_ms());
        Ok(overdue_ms)
    }
}
