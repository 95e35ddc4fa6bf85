//! Preparing events for the broker: what the gateway, the command line and the library have in common.

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::event::{CLOUDEVENTS_JSON, Event, Reading, TRACEPARENT};
use crate::domain::message::{Message, Outgoing, Properties, To};
use crate::domain::settle::Class;

/// A JSON object whose values stay as they are, to the last digit.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// An event that is ready to go out.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub event: Event,
}

/// Why it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    ContentType(String),
    /// What was expected and what was found.
    Event(String),
}

/// Reads one event in structured JSON. A missing id is assigned (random), and a missing `specversion` or `source`
/// filled in, since whoever publishes through us need not know them.
///
/// # Errors
/// [`Rejected`], with a sentence for the publisher.
pub fn prepare(
    body: &Bytes,
    content_type: Option<&str>,
    traceparent: Option<&str>,
    reading: &Reading,
) -> Result<Prepared, Rejected> {
    let essence = content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    if !matches!(essence, CLOUDEVENTS_JSON | "application/json") {
        return Err(Rejected::ContentType(format!("expected {CLOUDEVENTS_JSON}, found {essence}")));
    }
    if body.len() > reading.body_bytes_max {
        let max = reading.body_bytes_max;
        return Err(Rejected::Event(format!("the event has {} bytes, the limit is {max}", body.len())));
    }
    let mut event: Fields =
        serde_json::from_slice(body).map_err(|error| Rejected::Event(format!("expected a JSON object: {error}")))?;
    let filled = fill(&mut event);
    let body = if filled { Bytes::from(serde_json::to_vec(&event).unwrap_or_default()) } else { body.clone() };
    let properties = Properties { content_type: Some(CLOUDEVENTS_JSON.to_owned()), ..Properties::default() };
    let mut message = Message { body, properties, ..Message::default() };
    if let Some(trace) = traceparent {
        message = message.with(TRACEPARENT, trace);
    }
    match Event::decode(&message, reading) {
        Ok(event) => Ok(Prepared { event }),
        Err(malformed) if malformed.class == Class::Invalid && malformed.error.contains("`type`") => {
            Err(Rejected::Event(format!("{}: say what happened, such as \"type\": \"task.failed\"", malformed.error)))
        }
        Err(malformed) => Err(Rejected::Event(malformed.error)),
    }
}

/// Fills in what a publisher may leave out; true if anything was missing.
fn fill(event: &mut Fields) -> bool {
    let mut filled = false;
    let mut missing = |name: &str, value: String| {
        if !event.contains_key(name)
            && let Ok(value) = to_raw_value(&value)
        {
            event.insert(name.to_owned(), value);
            filled = true;
        }
    };
    missing("specversion", "1.0".to_owned());
    missing("id", format!("{:032x}", fastrand::u128(..)));
    missing("source", "/hookfleet/publish".to_owned());
    filled
}

impl Prepared {
    /// As a message for the events exchange.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        let event = &self.event;
        let properties = Properties {
            content_type: Some(CLOUDEVENTS_JSON.to_owned()),
            message_id: Some(event.id.clone()).filter(|id| id.len() <= 255),
            kind: Some(event.kind.clone()),
            ..Properties::default()
        };
        let message = Message { body: event.body.clone(), properties, ..Message::default() };
        let message = match &event.traceparent {
            Some(trace) => message.with(TRACEPARENT, trace.as_str()),
            None => message,
        };
        Outgoing { to: To::Events, delay: Duration::ZERO, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        let prepared = prepare(&Bytes::copy_from_slice(body.as_bytes()), None, None, &Reading::default());
        let found = match prepared {
            Ok(Prepared { event }) => format!("{} {} {}", event.source, event.id.len(), event.kind),
            Err(Rejected::ContentType(error) | Rejected::Event(error)) => error,
        };
        assert!(found.starts_with(expected), "{body}: {found}");
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        check(r#"{"type":"a"}"#, "/hookfleet/publish 32 a");
        check(r#"{"specversion":"1.0","type":"a","id":"7","source":"/s"}"#, "/s 1 a");
        check(r#"{"data":1}"#, "expected the attribute `type`, found none: say what happened");
        check("[]", "expected a JSON object");
    }

    #[test]
    fn data_stays_as_it_is() {
        let body = Bytes::from_static(br#"{"type":"a","data":[18446744073709551617,0.10000000000000000001,1e400]}"#);
        let event = prepare(&body, None, None, &Reading::default()).unwrap().event;
        let data = "[18446744073709551617,0.10000000000000000001,1e400]";
        assert!(String::from_utf8_lossy(&event.body).contains(data), "{:?}", event.body);
    }
}
