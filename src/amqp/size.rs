//! What the broker will never take, told before it is sent: a message over its limits costs the channel or the connection
//! and all that is under way on it, each time.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::message::{Header, Message};

/// As RabbitMQ bounds a frame (`frame_max`).
const FRAME_BYTES: u32 = 128 * 1024;
/// What of it is for the properties that we add.
const FRAME_MARGIN: usize = 1024;
/// How RabbitMQ says that a body is over its `max_message_size`.
const REFUSAL: &str = "larger than configured max size ";

/// The limits of a broker, as far as they are known.
#[derive(Debug)]
pub struct Limit {
    body_bytes_max: AtomicUsize,
}

impl Default for Limit {
    fn default() -> Self {
        Self { body_bytes_max: AtomicUsize::new(usize::MAX) } // learned from the first refusal
    }
}

impl Limit {
    /// # Errors
    /// What is too large, and the limit.
    pub fn check(&self, message: &Message) -> Result<(), String> {
        let (body, max) = (message.body.len(), self.body_bytes_max.load(Ordering::Relaxed));
        if body > max {
            return Err(format!("the body has {body} bytes, the limit is {max} (max_message_size in rabbitmq.conf)"));
        }
        check_headers(message, FRAME_BYTES)
    }

    /// Takes a limit from the broker's words about a message that it refused.
    pub fn learn(&self, error: &str) {
        let stated = error.split(REFUSAL).nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit));
        if let Some(max) = stated.and_then(|digits| digits.collect::<String>().parse().ok()) {
            self.body_bytes_max.fetch_min(max, Ordering::Relaxed);
        }
    }
}

/// Properties and headers travel in one frame, of which a connection has the limit; 0: none but the usual.
///
/// # Errors
/// How large they are, and the limit.
pub fn check_headers(message: &Message, frame_bytes: u32) -> Result<(), String> {
    let frame = if frame_bytes == 0 { FRAME_BYTES } else { frame_bytes.min(FRAME_BYTES) };
    let (headers, max) =
        (header_bytes(message), usize::try_from(frame).unwrap_or(usize::MAX).saturating_sub(FRAME_MARGIN));
    if headers > max {
        return Err(format!("the headers have {headers} bytes, the limit is {max}"));
    }
    Ok(())
}

/// Names and values with their lengths, as AMQP 0-9-1 writes a table (4.2.5.5), and the short strings beside it.
fn header_bytes(message: &Message) -> usize {
    let value = |header: &Header| match header {
        Header::Flag(_) => 2,
        Header::Number(_) => 9,
        Header::Text(text) => 5 + text.len(),
    };
    let table: usize = message.headers.iter().map(|(name, header)| 1 + name.len() + value(header)).sum();
    let properties = &message.properties;
    let short = [
        &properties.content_type,
        &properties.content_encoding,
        &properties.message_id,
        &properties.kind,
        &properties.app_id,
    ];
    table + short.into_iter().flatten().map(|text| 1 + text.len()).sum::<usize>() + 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_learned_from_refusals() {
        let limit = Limit::default();
        let message = |bytes| Message { body: vec![0; bytes].into(), ..Message::default() };
        assert_eq!(limit.check(&message(20)), Ok(()));
        limit.learn("connection reset");
        limit.learn("PRECONDITION_FAILED - message size 20 is larger than configured max size 16");
        assert_eq!(limit.check(&message(16)), Ok(()));
        assert!(limit.check(&message(17)).unwrap_err().contains("17 bytes, the limit is 16"));
        limit.learn("message size 20 is larger than configured max size 18");
        assert!(limit.check(&message(17)).is_err(), "the lowest holds");
    }

    #[test]
    fn headers_fit_a_frame() {
        let with = |bytes: usize| Message::default().with("a", "x".repeat(bytes));
        assert_eq!(Limit::default().check(&with(120 * 1024)), Ok(()));
        assert!(Limit::default().check(&with(128 * 1024)).unwrap_err().contains("the headers have"));
    }
}
