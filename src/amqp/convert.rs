//! Messages to and from AMQP. Properties are built afresh: nothing of a received message's frame is ever passed on.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldTable, ShortString};

use super::policy::DELIVERIES_MAX;
use super::topology::Names;
use crate::domain::event::binary::{self, Naming};
use crate::domain::message::{
    Asking, Destination, Header, Headers, LADDER_LEVELS, LADDER_UNIT, Message, Outgoing, Properties,
};

/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;
/// Of one that does not.
const TRANSIENT: u8 = 1;

/// Exchange and routing key of a message.
#[must_use]
pub fn route(names: &Names, outgoing: &Outgoing) -> (String, String) {
    match &outgoing.to {
        Destination::Events => (names.events(), kind(&outgoing.message).to_owned()),
        Destination::Dead => (names.letters(), String::new()),
        Destination::Gates => (names.gates(), kind(&outgoing.message).to_owned()),
        Destination::Reply(queue) => (String::new(), cut(queue).to_owned()),
        Destination::Exchange(exchange) => {
            let name = exchange.name.clone().unwrap_or_else(|| names.events());
            (name, cut(&exchange.routing_key).to_owned())
        }
        Destination::Running(lane) => (names.running(), lane.name().to_owned()),
        Destination::Parked(lane, level) => (names.park(*level), lane.name().to_owned()),
        Destination::Lane(lane) => match outgoing.delay.as_millis() / LADDER_UNIT.as_millis() {
            0 => (names.lanes(), lane.name().to_owned()),
            units => (names.ladder(), ladder_key(units, lane.name())),
        },
    }
}

/// The routing key of what waits so many units on the ladder and comes out by this word.
#[must_use]
pub fn ladder_key(units: u128, word: &str) -> String {
    let units = units.min((1 << LADDER_LEVELS) - 1);
    let bits = (0..LADDER_LEVELS).rev().map(|bit| if units >> bit & 1 == 1 { "1." } else { "0." });
    bits.chain([word]).collect()
}

/// The properties to publish a message with to where it goes: what waits behind a run says for how long.
#[must_use]
pub fn properties_of(outgoing: &Outgoing) -> BasicProperties {
    let properties = properties(&outgoing.message);
    match outgoing.to {
        Destination::Running(_) => properties.with_expiration(outgoing.delay.as_millis().to_string().into()),
        _ => properties,
    }
}

/// The type of an event, as it is routed by.
#[must_use]
pub fn kind(message: &Message) -> &str {
    cut(message.properties.kind.as_deref().unwrap_or("event"))
}

/// The properties to publish a message with.
#[must_use]
pub fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        let value = match value {
            Header::Flag(flag) => AMQPValue::Boolean(*flag),
            Header::Number(number) => AMQPValue::LongLongInt(*number),
            Header::Text(text) => AMQPValue::LongString(text.as_str().into()),
        };
        headers.insert(ShortString::from(cut(name)), value);
    }
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    let given = &message.properties;
    let text = |text: &String| ShortString::from(cut(text));
    if let Some(value) = &given.content_type {
        properties = properties.with_content_type(text(value));
    }
    if let Some(value) = &given.content_encoding {
        properties = properties.with_content_encoding(text(value));
    }
    if let Some(value) = &given.message_id {
        properties = properties.with_message_id(text(value));
    }
    if let Some(value) = &given.kind {
        properties = properties.with_type(text(value));
    }
    if let Some(value) = &given.app_id {
        properties = properties.with_app_id(text(value));
    }
    if let Some(value) = given.timestamp {
        properties = properties.with_timestamp(value);
    }
    if let Some(asking) = &message.asking {
        properties = properties.with_delivery_mode(TRANSIENT);
        if let Some(value) = &asking.reply_to {
            properties = properties.with_reply_to(text(value));
        }
        if let Some(value) = &asking.correlation_id {
            properties = properties.with_correlation_id(text(value));
        }
        if let Some(value) = asking.expiration {
            properties = properties.with_expiration(value.as_millis().to_string().into());
        }
    }
    properties // user_id is never sent: the broker closes the channel if it is not the connection's own
}

/// A received message.
#[must_use]
pub fn message(body: Vec<u8>, received: &BasicProperties) -> Message {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Message {
        body: Bytes::from(body),
        properties: Properties {
            content_type: text(received.content_type()),
            content_encoding: text(received.content_encoding()),
            message_id: text(received.message_id()),
            kind: text(received.kind()),
            app_id: text(received.app_id()),
            user_id: text(received.user_id()),
            timestamp: *received.timestamp(),
        },
        headers: received.headers().as_ref().map(headers).unwrap_or_default(),
        routing_key: None,
        asking: asking(received),
    }
}

/// What a request says of its answer, and an answer of its request.
fn asking(received: &BasicProperties) -> Option<Asking> {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let (reply_to, correlation_id) = (text(received.reply_to()), text(received.correlation_id()));
    let expiration = text(received.expiration()).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let says_nothing = reply_to.is_none() && correlation_id.is_none() && expiration.is_none();
    (!says_nothing).then_some(Asking { reply_to, correlation_id, expiration })
}

/// Header that counts redeliveries of a quorum queue.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Header that counts how often a quorum queue has handed a message out, since RabbitMQ 4.0.
const ACQUIRED_COUNT: &str = "x-acquired-count";
/// The broker's counters in a message's headers: of a delivery, not of the message, which has to be the same every time it
/// comes.
pub(super) const COUNTERS: [&str; 2] = [DELIVERY_COUNT, ACQUIRED_COUNT];

/// How often the broker has delivered it before, as far as this fleet can have caused it.
///
/// RabbitMQ writes its count over a client's header only where it has one (seen with 3.10.8 and 4.3.6): at the first delivery
/// of a quorum queue the header is what the client has put there, in 4.x also after a `nack` or the cancel of a consumer, and
/// in a classic queue always. So it is believed of what comes again only, and up to `DELIVERIES_MAX`, beyond which the
/// broker hands nothing out. 4.x counts what it hands out too, at every delivery that is not the first, and never less: the
/// smaller of both is right there. A client of 3.x can make its message count for less by that, until the broker buries it.
/// `is_counted`: the queue is one that counts.
#[must_use]
pub fn deliveries(received: &BasicProperties, redelivered: bool, is_counted: bool) -> u32 {
    if !redelivered || !is_counted {
        return u32::from(redelivered);
    }
    let table = received.headers().as_ref().map(FieldTable::inner);
    let number = |name: &str| match table.and_then(|table| table.get(name)).and_then(plain) {
        Some(Header::Number(count)) => u32::try_from(count).ok(),
        Some(Header::Text(_) | Header::Flag(_)) | None => None,
    };
    let most = number(ACQUIRED_COUNT).unwrap_or(DELIVERIES_MAX).clamp(1, DELIVERIES_MAX);
    number(DELIVERY_COUNT).map_or(1, |count| count.clamp(1, most))
}

/// Headers that are plain values; tables and arrays (`x-death`) are dropped, unless one is to be an event's attribute.
fn headers(table: &FieldTable) -> Headers {
    let names = || table.inner().keys().map(ShortString::as_str);
    let naming = Naming::of(names());
    let read = |name: &str, value: &AMQPValue| match naming.filter(|naming| naming.attribute(name).is_some()) {
        Some(naming) => attribute(naming, value),
        None if binary::attribute(name).is_some() => attribute(Naming::Prefixed, value),
        None => plain(value),
    };
    let of_message = table.inner().iter().filter(|(name, _)| !COUNTERS.contains(&name.as_str()));
    of_message.filter_map(|(name, value)| Some((name.to_string(), read(name.as_str(), value)?))).collect()
}

/// An attribute of an event in binary mode, in the canonical form of its type (CloudEvents 1.0.2, 2.4). What has none is
/// marked, and readers refuse it: left out, it would make another event. Among headers without a prefix, it is another
/// header.
fn attribute(naming: Naming, value: &AMQPValue) -> Option<Header> {
    let marked = |what| (naming == Naming::Prefixed).then(|| binary::unreadable(what));
    match value {
        AMQPValue::Timestamp(seconds) => {
            let time = jiff::Timestamp::from_second(seconds.cast_signed()).ok().map(|time| time.to_string());
            let time = time.filter(|time| !time.starts_with('-')); // RFC 3339 ends at the year 0
            Some(time.map_or_else(|| binary::unreadable("a time"), Header::Text))
        }
        AMQPValue::ByteArray(bytes) => Some(Header::Text(of_bytes(bytes.as_slice()))),
        AMQPValue::DecimalValue(decimal) => Some(Header::Text(digits(*decimal))),
        AMQPValue::FieldArray(_) => marked("an array"),
        AMQPValue::FieldTable(_) => marked("a table"),
        _ => plain(value),
    }
}

/// A decimal as it is written: its digits, of which the scale says how many stand behind the point (AMQP 0-9-1, 4.2.5.3).
pub(super) fn digits(decimal: DecimalValue) -> String {
    let scale = usize::from(decimal.scale);
    let digits = format!("{:0>width$}", decimal.value, width = scale + 1);
    let (whole, behind) = digits.split_at(digits.len() - scale);
    if behind.is_empty() { whole.to_owned() } else { format!("{whole}.{behind}") }
}

/// The text that bytes are, as clients of some languages write their texts; else the canonical form of bytes.
fn of_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => STANDARD.encode(bytes),
    }
}

fn plain(value: &AMQPValue) -> Option<Header> {
    match value {
        AMQPValue::Boolean(flag) => Some(Header::Flag(*flag)),
        AMQPValue::ShortShortInt(number) => Some(Header::Number(i64::from(*number))),
        AMQPValue::ShortShortUInt(number) => Some(Header::Number(i64::from(*number))),
        AMQPValue::ShortInt(number) => Some(Header::Number(i64::from(*number))),
        AMQPValue::ShortUInt(number) => Some(Header::Number(i64::from(*number))),
        AMQPValue::LongInt(number) => Some(Header::Number(i64::from(*number))),
        AMQPValue::LongUInt(number) => Some(Header::Number(i64::from(*number))),
        AMQPValue::LongLongInt(number) => Some(Header::Number(*number)),
        AMQPValue::Timestamp(seconds) => Some(Header::Number(seconds.cast_signed())),
        AMQPValue::ShortString(text) => Some(Header::Text(text.to_string())),
        AMQPValue::LongString(text) => Some(Header::Text(text.to_string())),
        AMQPValue::Float(number) => Some(Header::Text(number.to_string())),
        AMQPValue::Double(number) => Some(Header::Text(number.to_string())),
        AMQPValue::ByteArray(bytes) => Some(Header::Text(String::from_utf8_lossy(bytes.as_slice()).into_owned())),
        AMQPValue::DecimalValue(_) | AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::Void => None,
    }
}

/// At most 255 bytes, the longest short string of AMQP 0-9-1 (4.2.5.3).
fn cut(text: &str) -> &str {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Lane;

    fn check(to: Destination, delay_ms: u64, exchange: &str, key: &str) {
        let outgoing = Outgoing { to, delay: Duration::from_millis(delay_ms), message: Message::default() };
        assert_eq!(route(&Names::new("t"), &outgoing), (exchange.to_owned(), key.to_owned()));
    }

    #[test]
    fn routes() {
        check(Destination::Dead, 0, "t.letters", "");
        check(Destination::Reply("amq.gen-1".into()), 0, "", "amq.gen-1");
        check(Destination::Parked(Lane::Slow, 3), 0, "t.park.3", "slow");
        check(Destination::Running(Lane::Slow), 30_000, "t.running", "slow");
        check(Destination::Lane(Lane::Slow), 0, "t.lane", "slow");
        check(Destination::Lane(Lane::Slow), 250, "t.delay", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.slow");
        check(Destination::Lane(Lane::Slow), 1250, "t.delay", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.slow");
        let longest = 250 * ((1 << 19) - 1);
        for delay_ms in [longest, longest + 250, 4 * longest] {
            check(Destination::Lane(Lane::Slow), delay_ms, "t.delay", "1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.slow");
        }
    }

    #[test]
    fn what_waits_behind_a_run_says_for_how_long() {
        let check = |outgoing: &Outgoing, expected: Option<&str>| {
            let properties = properties_of(outgoing);
            assert_eq!(properties.expiration().as_ref().map(ShortString::as_str), expected, "{outgoing:?}");
            assert_eq!(properties.delivery_mode(), &Some(PERSISTENT));
        };
        let wait = Duration::from_millis(1_234);
        check(&Outgoing::behind(Lane::Slow, wait, Message::default()), Some("1234"));
        check(&Outgoing::to_lane(Lane::Slow, wait, Message::default()), None);
    }

    #[test]
    fn messages_keep_what_is_plain() {
        let sent = Message {
            body: Bytes::from_static(b"{}"),
            properties: Properties { message_id: Some("1".into()), kind: Some("a.b".into()), ..Properties::default() },
            ..Message::default()
        }
        .with("n", 5)
        .with("t", "x")
        .with("f", true);
        assert_eq!(message(sent.body.to_vec(), &properties(&sent)), sent);
        assert_eq!(properties(&sent).delivery_mode(), &Some(PERSISTENT));
        let asking = Asking {
            reply_to: Some("q".into()),
            correlation_id: Some("7".into()),
            expiration: Some(Duration::from_secs(5)),
        };
        let asked = Message { asking: Some(asking), ..sent };
        assert_eq!(message(asked.body.to_vec(), &properties(&asked)), asked);
        assert_eq!(properties(&asked).delivery_mode(), &Some(TRANSIENT));
    }

    #[test]
    fn a_delivery_is_counted_and_its_message_is_the_same() {
        let check_acquired = |acquired: Option<i64>, value: Option<AMQPValue>, redelivered, expected| {
            let mut table = FieldTable::default();
            if let Some(value) = value {
                table.insert(DELIVERY_COUNT.into(), value);
            }
            if let Some(acquired) = acquired {
                table.insert(ACQUIRED_COUNT.into(), AMQPValue::LongLongInt(acquired));
            }
            let received = BasicProperties::default().with_headers(table);
            assert_eq!(deliveries(&received, redelivered, true), expected);
            assert_eq!(deliveries(&received, redelivered, false), u32::from(redelivered));
            assert_eq!(message(Vec::new(), &received), Message::default());
        };
        let check = |value, redelivered, expected| check_acquired(None, value, redelivered, expected);
        check(Some(AMQPValue::LongLongInt(3)), true, 3);
        for (acquired, expected) in [(9, 3), (3, 3), (1, 1), (0, 1), (-1, 3)] {
            check_acquired(Some(acquired), Some(AMQPValue::LongLongInt(3)), true, expected);
        }
        check(Some(AMQPValue::LongString("many".into())), true, 1);
        check(None, true, 1);
        check(None, false, 0);
        // Case D8: what a client has put there.
        check(Some(AMQPValue::LongLongInt(150)), false, 0);
        check(Some(AMQPValue::LongLongInt(1_000_000)), true, DELIVERIES_MAX);
        check(Some(AMQPValue::LongLongInt(0)), true, 1);
        check(Some(AMQPValue::LongLongInt(-7)), true, 1);
    }

    #[test]
    fn attributes_of_events_keep_their_meaning() {
        let check = |value: AMQPValue, expected: &str| {
            let mut table = FieldTable::default();
            table.insert("cloudEvents:x".into(), value);
            let found = headers(&table).into_values().map(|header| serde_json::to_string(&header).unwrap());
            assert_eq!(found.collect::<Vec<_>>().concat(), expected);
        };
        check(AMQPValue::Timestamp(1_522_900_584), "\"2018-04-05T03:56:24Z\"");
        check(AMQPValue::ByteArray(vec![0xff, 0].into()), "\"/wA=\"");
        check(AMQPValue::ByteArray(vec![7, 0].into()), "\"BwA=\"");
        check(AMQPValue::ByteArray("00-ä".as_bytes().to_vec().into()), "\"00-ä\"");
        check(AMQPValue::LongInt(-7), "-7");
        check(AMQPValue::Boolean(true), "true");
        check(AMQPValue::LongString("ä".into()), "\"ä\"");
        check(AMQPValue::LongString(vec![0xff].into()), "\"\u{fffd}\"");
        check(AMQPValue::ByteArray(b"00-1-2-01".to_vec().into()), "\"00-1-2-01\"");
        check(AMQPValue::FieldTable(FieldTable::default()), "\"\u{fffd}a table\"");
        check(AMQPValue::Timestamp(u64::MAX), "\"1969-12-31T23:59:59Z\"");
        check(AMQPValue::Timestamp((-62_135_596_800i64).cast_unsigned()), "\"0001-01-01T00:00:00Z\"");
        check(AMQPValue::Timestamp(u64::MAX >> 1), "\"\u{fffd}a time\"");
        for (scale, value, expected) in [(2, 1250, "12.50"), (0, 7, "7"), (3, 5, "0.005"), (1, 0, "0.0")] {
            check(AMQPValue::DecimalValue(DecimalValue { scale, value }), &format!("\"{expected}\""));
        }
        check(AMQPValue::Void, "");
    }

    #[test]
    fn short_strings_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(200)).len(), 254);
    }
}
