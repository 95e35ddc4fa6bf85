//! Bytes to events: what the gateway and the command line are given, in each of the ways that CloudEvents has.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};

use super::event::Event;
use crate::domain::coding::{CodingError, codings, inflated};
use crate::domain::dialect::{self, Dialect};
use crate::domain::escape;
use crate::domain::event::{self, CLOUDEVENTS_JSON, Reading, binary};
use crate::domain::failure::Class;
use crate::domain::json;
use crate::domain::message::{Message, Properties};
use crate::domain::trace::{BAGGAGE, TRACEPARENT, TRACESTATE, TraceContext};

/// Content type of many events at once.
const BATCH: &str = "application/cloudevents-batch+json";
/// Who says so, where the publisher does not tell.
const SOURCE: &str = "/hookfleet/publish";
/// What headers of attributes begin with in HTTP.
const PREFIX: &str = "ce-";
/// Most events of a batch.
const BATCH_EVENTS_MAX: usize = 10_000;
/// Mistakes of a batch that are told.
const MISTAKES_MAX: usize = 20;

/// A JSON object whose values stay as they are, to the last digit.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// Why something is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    ContentType(String),
    /// What was expected and what was found.
    Event(String),
    /// Its body has a content coding that is not understood.
    Coding(String),
    /// It has more bytes, or a batch more events, than are taken.
    TooLarge(String),
}

impl Rejected {
    /// Why, for the publisher.
    #[must_use]
    pub fn sentence(&self) -> &str {
        let (Self::ContentType(sentence) | Self::Event(sentence) | Self::Coding(sentence) | Self::TooLarge(sentence)) =
            self;
        sentence
    }
}

impl From<CodingError> for Rejected {
    fn from(error: CodingError) -> Self {
        match error {
            CodingError::Unknown(sentence) => Self::Coding(sentence),
            CodingError::Broken(sentence) => Self::Event(sentence),
            CodingError::TooLarge(_) => Self::TooLarge(error.sentence()),
        }
    }
}

/// What a request to the gateway holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    One(Event),
    /// In the order in which they were sent.
    Batch(Vec<Event>),
}

/// The most bytes that a request of this content type may have.
#[must_use]
pub fn request_bytes_max(content_type: Option<&str>, reading: &Reading) -> usize {
    let events = if essence(content_type) == BATCH { 16 } else { 1 };
    reading.body_bytes_max.saturating_mul(events)
}

/// Reads an HTTP request: one event in structured or binary mode, or a batch (HTTP protocol binding 1.0.2). Missing ids
/// are assigned in each. `headers` are names in lower case with their values.
///
/// # Errors
/// [`Rejected`], with a sentence for the publisher. A batch is refused as a whole if one event of it is none.
pub fn read(headers: &[(&str, &[u8])], body: &Bytes, reading: &Reading) -> Result<Request, Rejected> {
    let text = |name: &str| {
        let found = headers.iter().find(|(header, _)| *header == name);
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    };
    let content_type = text("content-type");
    let trace = trace_of(headers);
    let max = request_bytes_max(content_type, reading);
    if body.len() > max {
        return Err(Rejected::TooLarge(format!("the request has {} bytes, the limit is {max}", body.len())));
    }
    let essence = essence(content_type);
    if let Some(dialect) = dialect::of_media_type(&essence).map_err(Rejected::ContentType)? {
        return foreign(dialect, headers, body, None, reading).map(Request::One);
    }
    let body = &decoded(headers, body, max)?;
    if essence == BATCH {
        return batch(body, trace.as_ref(), reading).map(Request::Batch);
    }
    let is_binary = headers.iter().any(|(name, _)| name.starts_with(PREFIX));
    if is_binary && !essence.starts_with("application/cloudevents") {
        return binary_mode(headers, content_type, trace.as_ref(), body, reading).map(Request::One);
    }
    prepare(body, content_type.or(Some("no content type")), trace.as_ref(), reading).map(Request::One)
}

/// Reads an HTTP request in the words of another hook system: one event. Its id is this one, else what the payload has of that
/// kind, else a new one.
///
/// # Errors
/// [`Rejected`], with a sentence for the publisher.
pub fn foreign(
    dialect: Dialect,
    headers: &[(&str, &[u8])],
    body: &Bytes,
    id: Option<&str>,
    reading: &Reading,
) -> Result<Event, Rejected> {
    too_large(body.len(), reading)?;
    let body = decoded(headers, body, reading.body_bytes_max)?;
    let named = headers.iter().find(|(name, _)| *name == dialect::EVENT_HEADER);
    let named = named.and_then(|(_, value)| std::str::from_utf8(value).ok());
    let own = || (reading.foreign.0)(dialect, named, &body).ok()?.id;
    let id = id.map(str::to_owned).or_else(own).unwrap_or_else(random_id);
    let message = Message {
        body,
        properties: Properties { message_id: Some(id), ..Properties::default() },
        ..Message::default()
    };
    let message = TraceContext::onto(trace_of(headers).as_ref(), message.with(dialect::HEADER, dialect.name()));
    let message = match named {
        Some(named) => message.with(dialect::EVENT_HEADER, named),
        None => message,
    };
    decode(&message, reading)
}

/// The body without its content codings, of at most `max` bytes.
fn decoded(headers: &[(&str, &[u8])], body: &Bytes, max: usize) -> Result<Bytes, Rejected> {
    let values = headers.iter().filter(|(name, _)| *name == "content-encoding").map(|(_, value)| *value);
    let named = values.map(String::from_utf8_lossy).collect::<Vec<_>>().join(",");
    Ok(inflated(body, &codings(&named)?, max)?)
}

/// Reads one event in structured JSON. A missing id is assigned (random), and a missing `specversion` or `source`
/// filled in, since whoever publishes through us need not know them.
///
/// # Errors
/// [`Rejected`], with a sentence for the publisher.
pub fn prepare(
    body: &Bytes,
    content_type: Option<&str>,
    trace: Option<&TraceContext>,
    reading: &Reading,
) -> Result<Event, Rejected> {
    let essence = essence(content_type.or(Some("application/json")));
    if !matches!(essence.as_str(), CLOUDEVENTS_JSON | "application/json") {
        let error = format!(
            "expected {CLOUDEVENTS_JSON}, {BATCH}, or `ce-` headers with any type; found {}",
            escape::name(&essence)
        );
        return Err(Rejected::ContentType(error));
    }
    let body = &json::bytes_without_mark(body);
    too_large(body.len(), reading)?;
    let event: Fields =
        serde_json::from_slice(body).map_err(|error| Rejected::Event(format!("expected a JSON object: {error}")))?;
    if ["specversion", "id", "source"].iter().all(|name| event.contains_key(*name)) {
        return decode(&structured(body.clone(), trace), reading);
    }
    from_fields(event, trace, reading)
}

/// One event from its members; what a publisher may leave out is filled in.
pub(super) fn from_fields(
    mut event: Fields,
    trace: Option<&TraceContext>,
    reading: &Reading,
) -> Result<Event, Rejected> {
    let mut missing = |name: &str, value: &str| {
        if !event.contains_key(name)
            && let Ok(value) = to_raw_value(value)
        {
            event.insert(name.to_owned(), value);
        }
    };
    missing("specversion", "1.0");
    missing("id", &random_id());
    missing("source", SOURCE);
    let body = Bytes::from(serde_json::to_vec(&event).unwrap_or_default()); // checked JSON always serializes
    decode(&structured(body, trace), reading)
}

fn batch(body: &Bytes, trace: Option<&TraceContext>, reading: &Reading) -> Result<Vec<Event>, Rejected> {
    let body = &json::bytes_without_mark(body);
    let parts: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| Rejected::Event(format!("expected a JSON array of events: {error}")))?;
    if parts.len() > BATCH_EVENTS_MAX {
        let error = format!("the batch has {} events, the limit is {BATCH_EVENTS_MAX}", parts.len());
        return Err(Rejected::TooLarge(error));
    }
    let (mut events, mut mistakes, mut count) = (Vec::with_capacity(parts.len()), Vec::new(), 0);
    for (index, part) in parts.iter().enumerate() {
        match prepare(&body.slice_ref(part.get().as_bytes()), None, trace, reading) {
            Ok(event) => events.push(event),
            Err(Rejected::TooLarge(error)) => return Err(Rejected::TooLarge(format!("event {index}: {error}"))),
            Err(Rejected::Event(error) | Rejected::ContentType(error) | Rejected::Coding(error)) => {
                count += 1;
                if mistakes.len() < MISTAKES_MAX {
                    mistakes.push(format!("event {index}: {error}"));
                }
            }
        }
    }
    if count == 0 {
        return Ok(events);
    }
    let all = parts.len();
    let sentence = format!("nothing was published, since {count} of {all} (counted from 0) are no events: ");
    Err(Rejected::Event(sentence + &mistakes.join("; ")))
}

/// Attributes from `ce-` headers, the data from the body; on its way to the one reader of binary mode.
fn binary_mode(
    headers: &[(&str, &[u8])],
    content_type: Option<&str>,
    trace: Option<&TraceContext>,
    body: &Bytes,
    reading: &Reading,
) -> Result<Event, Rejected> {
    let properties = Properties { content_type: content_type.map(str::to_owned), ..Properties::default() };
    let message = Message { body: body.clone(), properties, ..Message::default() };
    let mut message = TraceContext::onto(trace, message);
    for (name, value) in headers {
        let Some(attribute) = name.strip_prefix(PREFIX) else { continue };
        let text = unescape(value)
            .map_err(|error| Rejected::Event(format!("the header `{}`: {error}", escape::name(name))))?;
        let header = binary::header(attribute);
        if message.headers.contains_key(&header) {
            return Err(Rejected::Event(format!("the header `{}` is given twice", escape::name(name))));
        }
        message = message.with(&header, text);
    }
    for (attribute, value) in [("specversion", "1.0"), ("id", &random_id()), ("source", SOURCE)] {
        let header = binary::header(attribute);
        if !message.headers.contains_key(&header) {
            message = message.with(&header, value);
        }
    }
    decode(&message, reading)
}

/// The value of an attribute from its header (HTTP protocol binding 1.0.2, 3.1.3.2): quotes off, then one round of
/// percent-decoding, then UTF-8.
fn unescape(value: &[u8]) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let value = value.trim_ascii();
    match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        Some(quoted) => {
            let mut quoted = quoted.iter();
            while let Some(&byte) = quoted.next() {
                let escaped = if byte == b'\\' { quoted.next() } else { None };
                bytes.push(escaped.copied().unwrap_or(byte));
            }
        }
        None => bytes.extend_from_slice(value),
    }
    String::from_utf8(percent_decode(&bytes)?).map_err(|_| "expected UTF-8, percent-encoded".to_owned())
}

fn percent_decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let Some((digits, after)) = after.split_first_chunk::<2>() else { return Err(lone_percent()) };
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).map_err(|_| lone_percent())?;
        decoded.push(byte[0]);
        rest = after;
    }
    Ok(decoded)
}

fn lone_percent() -> String {
    "expected two hexadecimal digits behind every `%`; a percent sign itself is written `%25`".to_owned()
}

/// The trace in the headers of a request. Several states are one list (W3C Trace Context, 3.3.1), and so is baggage.
fn trace_of(headers: &[(&str, &[u8])]) -> Option<TraceContext> {
    let of = |wanted: &'static str| {
        let values = headers.iter().filter(move |(name, _)| *name == wanted);
        values.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    };
    let [state, baggage] = [TRACESTATE, BAGGAGE].map(|name| of(name).collect::<Vec<_>>().join(","));
    TraceContext::new(of(TRACEPARENT).next(), Some(&state), Some(&baggage))
}

fn structured(body: Bytes, trace: Option<&TraceContext>) -> Message {
    let properties = Properties { content_type: Some(CLOUDEVENTS_JSON.to_owned()), ..Properties::default() };
    TraceContext::onto(trace, Message { body, properties, ..Message::default() })
}

fn decode(message: &Message, reading: &Reading) -> Result<Event, Rejected> {
    too_large(message.body.len(), reading)?;
    let of_any_size = Reading { body_bytes_max: usize::MAX, ..*reading };
    match event::Event::decode(message, &of_any_size) {
        Ok(event) => {
            too_large(event.body.len(), reading)?; // in the form in which workers will read it
            Ok(Event(event))
        }
        Err(malformed) if malformed.class == Class::Invalid && malformed.error.contains("`type`") => {
            let help = "say what happened, such as \"type\": \"task.failed\"";
            Err(Rejected::Event(format!("{}: {help}", malformed.error)))
        }
        Err(malformed) => Err(Rejected::Event(malformed.error)),
    }
}

fn too_large(bytes: usize, reading: &Reading) -> Result<(), Rejected> {
    let max = reading.body_bytes_max;
    if bytes > max {
        return Err(Rejected::TooLarge(format!("the event has {bytes} bytes, the limit is {max}")));
    }
    Ok(())
}

/// An id that no other event has.
#[must_use]
pub fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// A media type without its parameters.
fn essence(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
