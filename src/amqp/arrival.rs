//! Messages of clients, as they arrive: of whatever protocol and library.

use lapin::BasicProperties;

use super::{convert, lifecycle};
use crate::domain::event::AMQP_1_0;
use crate::domain::message::{CAME_BEFORE, Message, Queue};

/// What a delivery of this queue carries, and whether it came before: by the broker's flag, or by the mark of a worker that
/// has handed it back.
#[must_use]
pub fn delivered(queue: Queue, received: lapin::message::Delivery) -> (Message, bool) {
    let (exchange, key) = (received.exchange.as_str(), received.routing_key.as_str());
    let mut message = match queue {
        Queue::Lane(_) => convert::message(received.data, &received.properties),
        Queue::Events | Queue::Gates | Queue::Undecided => message(exchange, key, received.data, &received.properties),
    };
    let is_marked = queue == Queue::Gates && message.headers.remove(CAME_BEFORE).is_some();
    (message, received.redelivered || is_marked)
}

/// A message that a client has published to this exchange by this key. The key is kept where the property `type` is
/// missing, since it may stand in for it.
#[must_use]
pub fn message(exchange: &str, routing_key: &str, body: Vec<u8>, received: &BasicProperties) -> Message {
    if let Some(event) = lifecycle::event(exchange, routing_key, &body, received) {
        return event;
    }
    let mut message = convert::message(body, received);
    if message.properties.kind.as_deref().is_none_or(|kind| kind == AMQP_1_0) {
        message.routing_key = Some(routing_key.to_owned());
    }
    message
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable};

    use super::*;

    #[test]
    fn what_was_handed_back_came_before() {
        let check = |queue, redelivered, is_marked, expected: (bool, bool)| {
            let mut table = FieldTable::default();
            if is_marked {
                table.insert(CAME_BEFORE.into(), AMQPValue::Boolean(true));
            }
            let properties = BasicProperties::default().with_type("ask".into()).with_headers(table);
            let mut received =
                lapin::message::Delivery::mock(1, "t.gates".into(), "ask".into(), redelivered, b"{}".to_vec());
            received.properties = properties;
            let (message, came_before) = delivered(queue, received);
            assert_eq!((came_before, message.headers.contains_key(CAME_BEFORE)), expected, "{queue:?}");
            assert_eq!(message.body, "{}");
        };
        check(Queue::Gates, false, false, (false, false));
        check(Queue::Gates, true, false, (true, false));
        check(Queue::Gates, false, true, (true, false));
        check(Queue::Events, false, true, (false, true)); // a client's own
        check(Queue::Events, true, false, (true, false));
    }
}
