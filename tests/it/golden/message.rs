//! Messages on RabbitMQ as the record shows them, and queues that get a copy of what is published.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::time::timeout;

use super::masked;
use crate::servers::{Rabbit, namespace};

const LIMIT: Duration = Duration::from_secs(60);
/// Numbers in headers that differ between runs.
const VARYING_HEADERS: [&str; 1] = ["hookfleet-spent-ms"];

/// A queue of the test's own, which is gone with its connection.
pub(super) struct Tap {
    pub(super) queue: String,
    channel: Channel,
    messages: Consumer,
    _connection: Connection,
}

impl Tap {
    pub(super) async fn new(rabbit: &Rabbit) -> Self {
        let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let queue = format!("golden-{}", namespace());
        let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), own, FieldTable::default()).await.unwrap();
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let messages = consumer.await.unwrap();
        Self { queue, channel, messages, _connection: connection }
    }

    /// From now on it gets what is published to this exchange with this key.
    pub(super) async fn bound(self, exchange: &str, key: &str) -> Self {
        let (queue, options) = (self.queue.as_str().into(), QueueBindOptions::default());
        self.channel.queue_bind(queue, exchange.into(), key.into(), options, FieldTable::default()).await.unwrap();
        self
    }

    /// Gets everything that is published to an exchange of the test's own, which is gone with this queue.
    pub(super) async fn with_exchange(self, exchange: &str) -> Self {
        let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        let declared =
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default());
        declared.await.unwrap();
        self.bound(exchange, "#").await
    }

    pub(super) async fn publish(&self, exchange: &str, key: &str, properties: BasicProperties, body: &str) {
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await;
        sent.unwrap().await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Delivery {
        let delivery = timeout(LIMIT, self.messages.next()).await.expect("a message").unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        delivery
    }
}

/// Properties of a message with this content type and these headers.
pub(super) fn properties(content_type: &str, headers: &[(&str, &str)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(ShortString::from(*name), AMQPValue::LongString((*value).into()));
    }
    BasicProperties::default().with_content_type(content_type.into()).with_headers(table)
}

/// A message: where it was published to, every property, every header with its type, the body.
pub(super) fn shown(delivery: &Delivery) -> String {
    let mut record = format!("exchange: {}\nrouting key: {}\n", delivery.exchange, delivery.routing_key);
    let properties = &delivery.properties;
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    for (name, value) in [
        ("content_type", text(properties.content_type())),
        ("content_encoding", text(properties.content_encoding())),
        ("delivery_mode", number(properties.delivery_mode().map(u64::from))),
        ("priority", number(properties.priority().map(u64::from))),
        ("correlation_id", text(properties.correlation_id())),
        ("reply_to", text(properties.reply_to())),
        ("expiration", text(properties.expiration())),
        ("message_id", text(properties.message_id())),
        ("timestamp", properties.timestamp().map(|_| "{seconds}".to_owned())),
        ("type", text(properties.kind())),
        ("user_id", text(properties.user_id())),
        ("app_id", text(properties.app_id())),
        ("cluster_id", text(properties.cluster_id())),
    ] {
        if let Some(value) = value {
            writeln!(record, "{name}: {value}").unwrap();
        }
    }
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        writeln!(record, "header {name}: {}", header(name.as_str(), value)).unwrap();
    }
    let body = String::from_utf8(delivery.data.clone()).unwrap();
    writeln!(record, "body: {}", masked(&body)).unwrap();
    record
}

fn header(name: &str, value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongLongInt(_) if VARYING_HEADERS.contains(&name) => "(number) {milliseconds}".to_owned(),
        AMQPValue::LongLongInt(number) => format!("(number) {number}"),
        AMQPValue::LongString(text) => format!("(text) {}", masked(&text.to_string())),
        AMQPValue::Boolean(flag) => format!("(flag) {flag}"),
        other => format!("{other:?}"),
    }
}
