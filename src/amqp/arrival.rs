//! Messages of clients, as they arrive: of whatever protocol and library.

use lapin::BasicProperties;

use super::{convert, lifecycle};
use crate::domain::event::AMQP_1_0;
use crate::domain::message::Message;

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
