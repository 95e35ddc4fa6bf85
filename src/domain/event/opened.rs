//! What stands between a message's body and the event in it: sections of AMQP 1.0, compression, a byte order mark.

use std::borrow::Cow;

use super::{AMQP_1_0, Malformed, Reading, malformed, section};
use crate::domain::coding::{CodingError, codings, inflated};
use crate::domain::failure::Class;
use crate::domain::json;
use crate::domain::message::Message;

/// Header in which kombu, and with it Celery, names the compression of a body as a media type. Its content encoding is
/// that of the text.
const COMPRESSION: &str = "compression";

/// The message with its body laid open: the same one, as a rule.
pub(super) fn opened<'a>(message: &'a Message, reading: &Reading) -> Result<Cow<'a, Message>, Malformed> {
    let mut opened = Cow::Borrowed(message);
    if message.properties.kind.as_deref() == Some(AMQP_1_0) && section::is_section(&message.body) {
        let message = opened.to_mut();
        message.body = section::content(&message.body)?;
        message.properties.kind = None; // the broker's word for the form of the body, and no type of an event
    }
    let encoding = message.properties.content_encoding.as_deref().unwrap_or_default();
    let header = message.text(COMPRESSION).filter(|named| named.starts_with("application/")).unwrap_or_default();
    let named =
        [codings(encoding).map_err(|error| refused(&error))?, codings(header).map_err(|error| refused(&error))?]
            .concat();
    if !named.is_empty() {
        let body = inflated(&opened.body, &named, reading.inflated_bytes_max).map_err(|error| refused(&error))?;
        opened.to_mut().body = body;
    }
    Ok(opened)
}

fn refused(error: &CodingError) -> Malformed {
    let class = if matches!(error, CodingError::TooLarge(_)) { Class::Invalid } else { Class::Unreadable };
    malformed(class, error.sentence())
}

/// The same message without a byte order mark: for bodies that are JSON as a whole.
pub(super) fn unmarked(message: &Message) -> Cow<'_, Message> {
    let body = json::bytes_without_mark(&message.body);
    if body.len() == message.body.len() {
        return Cow::Borrowed(message);
    }
    Cow::Owned(Message { body, ..message.clone() })
}
