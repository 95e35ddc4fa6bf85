//! RabbitMQ's own lifecycle events, as its plugin `rabbitmq_event_exchange` publishes them: without a body, with all that
//! they say in headers. Bind the exchange `amq.rabbitmq.event` to the fleet's exchange for events.
//!
//! Each becomes a CloudEvent in binary mode, so that nothing behind this needs to know of them: the type is the routing
//! key, the source the node or the virtual host, and the data the headers, with their tables and arrays. They have no id:
//! a digest of all that they say takes its place, with the time in milliseconds where there is one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Number, Value};
use sha2::{Digest as _, Sha256};

use super::convert::{COUNTERS, digits, message};
use crate::domain::event::binary;
use crate::domain::message::{Header, Message};

/// The exchange of the plugin.
const EXCHANGE: &str = "amq.rabbitmq.event";
/// Of an event, in milliseconds since 1970.
const TIME: &str = "timestamp_in_ms";
/// Who an event is of, and how it is called where the plugin publishes in AMQP 1.0 (`event_exchange.protocol`).
const NODES: [&str; 2] = ["node", "x-opt-node"];
const VHOSTS: [&str; 2] = ["vhost", "x-opt-vhost"];
/// Tables within tables that are read. RabbitMQ writes two.
const DEPTH_MAX: usize = 16;

/// The event that a delivery is, if it is one of the broker's.
pub(super) fn event(exchange: &str, routing_key: &str, body: &[u8], received: &BasicProperties) -> Option<Message> {
    if exchange != EXCHANGE || !body.is_empty() || routing_key.is_empty() {
        return None;
    }
    let data = object(received.headers().as_ref()?, DEPTH_MAX)?;
    let text =
        |names: [&str; 2]| names.iter().find_map(|name| data.get(*name)?.as_str().filter(|text| !text.is_empty()));
    let of = text(NODES).or_else(|| text(VHOSTS)).unwrap_or("unknown");
    let source = format!("/rabbitmq/{}", encoded(of));
    let time = match data.get(TIME).and_then(Value::as_i64) {
        Some(ms) => Some(ms),
        None => received.timestamp().map(|seconds| seconds.cast_signed().saturating_mul(1000)),
    };
    let body = Value::Object(data).to_string();
    let mut hash = Sha256::new_with_prefix(routing_key);
    hash.update([0]);
    hash.update(time.unwrap_or_default().to_be_bytes());
    hash.update(&body);
    let id = hex::encode(&hash.finalize()[..16]);

    let mut event = message(body.into_bytes(), received);
    event.headers.clear(); // they are the data
    event.properties.kind = None;
    event.properties.content_type = Some("application/json".to_owned());
    for (name, value) in [("specversion", "1.0"), ("id", &id), ("source", &source), ("type", routing_key)] {
        event = event.with(&binary::header(name), value);
    }
    if let Some(ms) = time {
        event = event.with(&binary::header("time"), Header::Number(ms));
    }
    Some(event)
}

/// Without what the broker says of one delivery. `None`: it is nested too deeply.
fn object(table: &FieldTable, depth: usize) -> Option<Map<String, Value>> {
    let depth = depth.checked_sub(1)?;
    let of_event = table.inner().iter().filter(|(name, _)| !COUNTERS.contains(&name.as_str()));
    of_event.map(|(name, value)| Some((name.to_string(), json(value, depth)?))).collect()
}

fn json(value: &AMQPValue, depth: usize) -> Option<Value> {
    Some(match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => seconds.cast_signed().into(),
        AMQPValue::Float(number) => Number::from_f64(f64::from(*number)).map_or(Value::Null, Value::Number),
        AMQPValue::Double(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        AMQPValue::DecimalValue(decimal) => digits(*decimal).into(),
        AMQPValue::ShortString(text) => text.to_string().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned().into(),
        AMQPValue::ByteArray(bytes) => match std::str::from_utf8(bytes.as_slice()) {
            Ok(text) => text.into(),
            Err(_) => STANDARD.encode(bytes.as_slice()).into(),
        },
        AMQPValue::FieldArray(array) => {
            let depth = depth.checked_sub(1)?;
            Value::Array(array.as_slice().iter().map(|value| json(value, depth)).collect::<Option<_>>()?)
        }
        AMQPValue::FieldTable(table) => Value::Object(object(table, depth)?),
    })
}

/// As one segment of a URI (RFC 3986, 3.3); the virtual host `/` is `%2F`, as in URLs of AMQP.
fn encoded(segment: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:!$&'()*+,;=".contains(&byte);
    let encode = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    segment.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;
    use crate::domain::event::{Event, Reading};

    fn table(values: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in values {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn read(routing_key: &str, headers: FieldTable) -> Event {
        let received = BasicProperties::default().with_headers(headers).with_timestamp(1_700_000_000);
        let message = event(EXCHANGE, routing_key, b"", &received).unwrap();
        Event::decode(&message, &Reading::default()).unwrap()
    }

    fn created(ms: i64) -> FieldTable {
        table(&[
            ("timestamp_in_ms", AMQPValue::LongLongInt(ms)),
            ("name", text("orders")),
            ("vhost", text("/")),
            ("durable", AMQPValue::Boolean(true)),
            ("arguments", AMQPValue::FieldTable(table(&[("x-queue-type", text("quorum"))]))),
            ("list", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongInt(1), text("a")]))),
        ])
    }

    #[test]
    fn a_lifecycle_event_is_an_event() {
        let event = read("queue.created", created(1_700_000_000_123));
        assert_eq!((event.source.as_str(), event.kind.as_str()), ("/rabbitmq/%2F", "queue.created"));
        let whole: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(whole["time"], "2023-11-14T22:13:20.123Z");
        let data = serde_json::json!({
            "timestamp_in_ms": 1_700_000_000_123i64, "name": "orders", "vhost": "/", "durable": true,
            "arguments": { "x-queue-type": "quorum" }, "list": [1, "a"],
        });
        assert_eq!(whole["data"], data);
    }

    #[test]
    fn the_same_one_again_is_the_same_and_no_other_is() {
        let first = read("queue.created", created(1_700_000_000_123));
        let mut again = created(1_700_000_000_123);
        again.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        assert_eq!(read("queue.created", again).digest, first.digest);
        assert_ne!(read("queue.created", created(1_700_000_000_124)).digest, first.digest);
        assert_ne!(read("queue.deleted", created(1_700_000_000_123)).digest, first.digest);
    }

    #[test]
    fn in_amqp_1_0_too() {
        let headers =
            table(&[("x-opt-name", text("orders")), ("x-opt-vhost", text("shop")), ("x-opt-node", text("rabbit@a"))]);
        let event = read("queue.created", headers);
        assert_eq!(event.source, "/rabbitmq/rabbit@a");
        let whole: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!((&whole["time"], &whole["data"]["x-opt-name"]), (&"2023-11-14T22:13:20Z".into(), &"orders".into()));
    }

    #[test]
    fn other_messages_are_left_alone() {
        let received = BasicProperties::default().with_headers(created(1));
        assert_eq!(event("hookfleet.events", "queue.created", b"", &received), None);
        assert_eq!(event(EXCHANGE, "queue.created", b"{}", &received), None);
        assert_eq!(event(EXCHANGE, "queue.created", b"", &BasicProperties::default()), None);
    }
}
