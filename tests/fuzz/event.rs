//! Events: structured, binary and plain messages, and requests of publishers, batches among them.

use std::collections::BTreeMap;

use hookfleet::domain::event::{Event, Malformed, Reading, TypeSource, TypeSources};
use hookfleet::domain::failure::Class;
use hookfleet::domain::id::EventDigest;
use hookfleet::domain::invocation::{Envelope, suspect};
use hookfleet::domain::message::{Lane, Message, Queue};
use hookfleet::domain::trace::TraceContext;
use hookfleet::publish::{self, Rejected, Request};
use serde_json::value::RawValue;

use super::input;

/// Longest id, source and type.
const NAME_BYTES_MAX: usize = 1024;
/// Longest sentence about what is no event.
const ERROR_CHARS_MAX: usize = 2000;

/// A message from the events exchange, and the same bytes as a request to the gateway.
pub fn event(data: &[u8]) {
    let message = input::message(data);
    let lenient = Reading {
        digest_missing_id: true,
        missing_type: TypeSources::new(&TypeSource::ALL.map(|(_, source)| source)),
        ..Reading::default()
    };
    for reading in [Reading::default(), lenient] {
        let read = Event::decode(&message, &reading);
        assert_eq!(read, Event::decode(&message, &reading), "the same bytes, read twice");
        match &read {
            Ok(event) => sound(event),
            Err(malformed) => refused(malformed),
        }
        let small = Reading { body_bytes_max: message.body.len().saturating_sub(1), ..reading };
        assert!(message.body.is_empty() || Event::decode(&message, &small).is_err(), "larger than the limit");
        // What goes to lane `suspect` undecoded is the same there.
        let raw = suspect(Queue::Events, &message);
        assert_eq!(
            Envelope::decode(Queue::Lane(Lane::Suspect), &raw, &reading),
            Envelope::decode(Queue::Events, &message, &reading),
        );
    }
    request(&message);
}

/// What holds of every event.
fn sound(event: &Event) {
    let fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(&event.body).expect("the body is a JSON object");
    let text = |name: &str| fields.get(name).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    for (name, value) in [("id", &event.id), ("source", &event.source), ("type", &event.kind)] {
        assert_eq!(text(name).as_ref(), Some(value), "`{name}` stands in the body");
        assert!((1..=NAME_BYTES_MAX).contains(&value.len()), "`{name}` has {} bytes", value.len());
    }
    assert_eq!(text("specversion").as_deref(), Some("1.0"));
    assert_eq!(text("subject"), event.subject);
    assert_eq!(event.digest, EventDigest::of(&event.source, &event.id));
    assert_eq!(event.digest.to_string().len(), 32);
    for (name, value) in event.trace.iter().flat_map(TraceContext::headers) {
        assert!(!value.is_empty() && value.bytes().all(|byte| (b'\t'..=b'~').contains(&byte)), "{name}: {value:?}");
    }
    let alone = Message { body: event.body.clone(), ..Message::default() };
    let again = Event::decode(&alone, &Reading { body_bytes_max: usize::MAX, ..Reading::default() });
    let mut again = again.expect("an event is one in its own form");
    again.trace.clone_from(&event.trace); // it may have come in a header
    assert_eq!(again, *event);
}

fn refused(malformed: &Malformed) {
    assert!(matches!(malformed.class, Class::Invalid | Class::Unreadable | Class::Unidentified), "{malformed:?}");
    sentence(&malformed.error);
}

fn sentence(error: &str) {
    input::assert_one_line(error);
    assert!(error.chars().count() <= ERROR_CHARS_MAX, "a sentence of {} characters", error.chars().count());
}

/// The body with the message's texts as headers of HTTP.
fn request(message: &Message) {
    let names: Vec<String> = message.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
    let values = message.headers.values().map(|value| value.as_text().unwrap_or("7").as_bytes());
    let mut headers: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(values).collect();
    if let Some(content_type) = &message.properties.content_type {
        headers.push(("content-type", content_type.as_bytes()));
    }
    match publish::read(&headers, &message.body, &Reading::default()) {
        Ok(Request::One(event)) => published(&event),
        Ok(Request::Batch(events)) => events.iter().for_each(published),
        // Many mistakes of a batch are told in one sentence.
        Err(
            Rejected::ContentType(error) | Rejected::Coding(error) | Rejected::Event(error) | Rejected::TooLarge(error),
        ) => {
            input::assert_one_line(&error);
        }
    }
}

/// What the gateway takes, the workers take as the same event.
fn published(event: &publish::Event) {
    let read = Event::decode(&event.outgoing().message, &Reading::default()).expect("published, so an event");
    sound(&read);
    let names = (read.id.as_str(), read.source.as_str(), read.kind.as_str(), &*read.body);
    assert_eq!(names, (event.id(), event.source(), event.kind(), event.json()));
}
