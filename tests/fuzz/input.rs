//! How checks make values of a fuzzer's bytes. Text where it can be, so that a corpus can be read and written by hand.

use bytes::Bytes;
use hookfleet::domain::message::{Header, Message, Properties};

/// Longest text that AMQP takes as a property or as the name of a header.
const SHORT_BYTES_MAX: usize = 255;

/// A message: lines `name: value`, an empty line, the body. Names of properties make properties, all others headers;
/// `routing-key` is that, `#7` is a number and `!` a flag. Without an empty line all of it is the body.
pub fn message(data: &[u8]) -> Message {
    let Some(end) = data.windows(2).position(|two| two == b"\n\n") else {
        return Message { body: Bytes::copy_from_slice(data), ..Message::default() };
    };
    let head = String::from_utf8_lossy(&data[..end]).into_owned();
    let mut message = Message { body: Bytes::copy_from_slice(&data[end + 2..]), ..Message::default() };
    for (name, value) in head.split('\n').filter_map(|line| line.split_once(": ")) {
        let name = short(name);
        match property(&mut message.properties, name) {
            Some(property) => *property = Some(short(value).to_owned()),
            None if name == "routing-key" => message.routing_key = Some(short(value).to_owned()),
            None if name == "timestamp" => message.properties.timestamp = value.parse().ok(),
            None => message = message.with(name, header(value)),
        }
    }
    message
}

fn property<'a>(properties: &'a mut Properties, name: &str) -> Option<&'a mut Option<String>> {
    match name {
        "content-type" => Some(&mut properties.content_type),
        "content-encoding" => Some(&mut properties.content_encoding),
        "message-id" => Some(&mut properties.message_id),
        "type" => Some(&mut properties.kind),
        "app-id" => Some(&mut properties.app_id),
        "user-id" => Some(&mut properties.user_id),
        _ => None,
    }
}

fn header(value: &str) -> Header {
    match value.split_at_checked(1) {
        Some(("#", number)) => number.parse().map_or_else(|_| value.into(), Header::Number),
        Some(("!", flag)) => Header::Flag(flag == "true"),
        _ => value.into(),
    }
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHORT_BYTES_MAX)]
}

/// What is shown to people: one line, and nothing that a terminal would obey.
pub fn assert_one_line(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "not one line: {text:?}");
}
