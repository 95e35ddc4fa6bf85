//! An event: something that happened, as CloudEvents 1.0 says it. (source, id) is its identity.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::dialect::{self, Dialect};
use super::escape::{self, quoted};
use super::failure::{Class, ERROR_CHARS_MAX};
use super::id::EventDigest;
use super::message::Message;
use super::trace::TraceContext;

pub mod binary;
mod content;
mod foreign;
mod opened;
mod plain;
mod section;
mod written;

pub use foreign::{Foreign, ForeignEvent};
pub use plain::{TypeSource, TypeSources};
pub use written::Written;

use opened::{opened, unmarked};
use plain::Plain;

/// Content type of an event in structured mode.
pub const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";
/// What RabbitMQ writes into the property `type` of a message whose body is an encoded section of AMQP 1.0.
pub const AMQP_1_0: &str = "amqp-1.0";
/// Header with the number of publish hooks that a message has come through. Anybody may set it: a larger one only ends a
/// way sooner.
pub const HOPS: &str = "hookfleet-hops";
/// Default limit of a body. Many servers take 1 MiB (nginx, Fastify, koa, aiohttp), and hooks get more than the event:
/// some 48 KB are left for the payload around it, which holds the decision of gates too.
pub const BODY_BYTES_MAX: usize = 1_000_000;
/// Longest id, source or type that is taken.
const NAME_BYTES_MAX: usize = 1024;

/// A decoded event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub source: String,
    /// The CloudEvents attribute `type`.
    pub kind: String,
    pub subject: Option<String>,
    /// The event in CloudEvents' structured JSON; the received bytes themselves if they came so.
    pub body: Bytes,
    pub digest: EventDigest,
    /// CRC-32 of the body; tells a duplicate from a different event that claims the same identity, by mistake and not
    /// by malice.
    pub body_digest: u32,
    pub trace: Option<TraceContext>,
    /// Publish hooks that it has come through, one after the other.
    pub hops: u32,
    /// Whose words its data are in: the extension attribute `hookdialect`.
    pub dialect: Dialect,
}

/// Why a message is no event. Always ends as a letter with the raw body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub class: Class,
    /// What was expected and what was found.
    pub error: String,
}

impl Malformed {
    /// What a publisher wrote is in many a sentence, and becomes a line of a letter.
    #[must_use]
    pub fn new(class: Class, error: impl Into<String>) -> Self {
        Self { class, error: escape::sentence(&error.into(), ERROR_CHARS_MAX) }
    }
}

/// How events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// A larger body is a letter.
    pub body_bytes_max: usize,
    /// What a compressed body may inflate to.
    pub inflated_bytes_max: usize,
    /// Plain JSON without `message_id`: take a digest of (body, timestamp property) as its id instead of refusing it. Where
    /// the property is missing too, equal bodies are one event for as long as events are remembered.
    pub digest_missing_id: bool,
    /// Where the type of plain JSON without the property `type` comes from.
    pub missing_type: TypeSources,
    /// Baggage goes along to hooks.
    pub forward_baggage: bool,
    /// How messages of other dialects are read.
    pub foreign: Foreign,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            inflated_bytes_max: BODY_BYTES_MAX,
            digest_missing_id: false,
            missing_type: TypeSources::default(),
            forward_baggage: false,
            foreign: Foreign::default(),
        }
    }
}

#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    /// CloudEvents' Distributed Tracing extension; the headers of the same names go first.
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
    #[serde(borrow)]
    hookdialect: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Probe {
    specversion: Option<IgnoredAny>,
}

impl Event {
    /// Reads a message as an event.
    ///
    /// The body is laid open first: out of a section of AMQP 1.0, and inflated. Attributes in headers make it CloudEvents in
    /// binary mode, unless its content type says that it is structured. A JSON object with a `specversion` is CloudEvents
    /// in structured mode, whatever JSON content type it came with (CloudEvents 1.0, JSON format 3). Any other JSON is
    /// plain: the properties `type` and `message_id` make it an event, or what `reading` has in their place.
    ///
    /// # Errors
    /// [`Malformed`] says what was expected, with the class of the letter that it becomes.
    pub fn decode(message: &Message, reading: &Reading) -> Result<Self, Malformed> {
        fits(message.body.len(), "the body", reading)?;
        let mut event = Self::read(message, reading)?;
        fits(event.body.len(), "in the form in which hooks get it, the event", reading)?;
        if !reading.forward_baggage {
            event.trace = event.trace.and_then(TraceContext::without_baggage);
        }
        Ok(event)
    }

    fn read(message: &Message, reading: &Reading) -> Result<Self, Malformed> {
        let message = &*opened(message, reading)?;
        let dialect = dialect::of_message(message).map_err(|error| malformed(Class::Invalid, error))?;
        if let Some(dialect) = dialect.filter(|dialect| *dialect != Dialect::Native) {
            let body = foreign::structured(dialect, &unmarked(message), reading)?;
            return Self::structured(&body, message);
        }
        let media = media_type(message)?;
        if let Media::Binary(naming) = media {
            return Self::structured(&binary::structured(message, naming)?, message);
        }
        let message = &*unmarked(message);
        let has_version = |body| serde_json::from_slice::<Probe>(body).is_ok_and(|probe| probe.specversion.is_some());
        match media {
            Media::Json if !(is_object(&message.body) && has_version(&message.body)) => Self::plain(message, reading),
            Media::Binary(_) | Media::CloudEvents | Media::Json => Self::structured(&message.body, message),
        }
    }

    fn structured(body: &Bytes, message: &Message) -> Result<Self, Malformed> {
        // Serde skips values that nobody asked for, without a look at their encoding; hooks get all of them.
        let text = std::str::from_utf8(body)
            .map_err(|error| malformed(Class::Unreadable, format!("expected an event in UTF-8: {error}")))?;
        let event: Structured<'_> = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        if !is_object(body) {
            return Err(malformed(Class::Invalid, "expected a JSON object, found an array"));
        }
        if event.specversion != "1.0" {
            let found = quoted(&event.specversion);
            return Err(malformed(Class::Invalid, format!("expected specversion \"1.0\", found {found}")));
        }
        let id = required("id", event.id, Class::Unidentified)?;
        let source = required("source", event.source, Class::Unidentified)?;
        let kind = required("type", event.kind, Class::Invalid)?;
        let subject = event.subject.map(Cow::into_owned);
        let trace = TraceContext::new(event.traceparent.as_deref(), event.tracestate.as_deref(), None);
        let named = event.hookdialect.as_deref().map(Dialect::named).transpose();
        let dialect = named.map_err(|error| malformed(Class::Invalid, format!("hookdialect: {error}")))?;
        let mut event = Self::assemble(id, source, kind, subject, body.clone(), message);
        event.trace = TraceContext::or(event.trace, trace);
        event.dialect = dialect.unwrap_or_default();
        Ok(event)
    }

    fn plain(message: &Message, reading: &Reading) -> Result<Self, Malformed> {
        let Plain { id, source, kind, data } = Plain::read(message, reading)?;
        for (name, value) in [("id", &id), ("source", &source), ("type", &kind)] {
            short(name, value)?; // or it would not be read in its own form
        }
        let body = Written::new(&id, &source, &kind, data).json();
        Ok(Self::assemble(id, source, kind, None, body, message))
    }

    fn assemble(
        id: String,
        source: String,
        kind: String,
        subject: Option<String>,
        body: Bytes,
        message: &Message,
    ) -> Self {
        let digest = EventDigest::of(&source, &id);
        let body_digest = crc32fast::hash(&body);
        let trace = TraceContext::of(message);
        let hops = message.number(HOPS).map_or(0, |hops| u32::try_from(hops.max(0)).unwrap_or(u32::MAX));
        Self { id, source, kind, subject, body, digest, body_digest, trace, hops, dialect: Dialect::Native }
    }
}

fn fits(size: usize, what: &str, reading: &Reading) -> Result<(), Malformed> {
    let max = reading.body_bytes_max;
    if size <= max {
        return Ok(());
    }
    Err(malformed(Class::Invalid, format!("{what} has {size} bytes, the limit is {max} (events.body_bytes_max)")))
}

/// Serde reads an array as a struct too; an event is an object.
fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

#[derive(Clone, Copy)]
enum Media {
    Binary(binary::Naming),
    CloudEvents,
    Json,
}

fn media_type(message: &Message) -> Result<Media, Malformed> {
    let essence = essence(message.properties.content_type.as_deref().unwrap_or("application/json"));
    if !essence.starts_with("application/cloudevents")
        && let Some(naming) = binary::naming(message)
    {
        return Ok(Media::Binary(naming));
    }
    match &*essence {
        CLOUDEVENTS_JSON => Ok(Media::CloudEvents),
        "" | "application/json" | "text/json" => Ok(Media::Json),
        other
            if other.ends_with("+json")
                && other.starts_with("application/")
                && !other.contains("cloudevents-batch") =>
        {
            Ok(Media::Json)
        }
        other => Err(malformed(
            Class::Unreadable,
            format!("expected content type {CLOUDEVENTS_JSON} or application/json, found {}", quoted(other)),
        )),
    }
}

/// A media type without its parameters, in lower case.
fn essence(content_type: &str) -> Cow<'_, str> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(essence.to_ascii_lowercase())
    } else {
        Cow::Borrowed(essence)
    }
}

fn required(name: &str, value: Option<Cow<'_, str>>, class: Class) -> Result<String, Malformed> {
    match value {
        None => Err(malformed(class, format!("expected the attribute `{name}`, found none"))),
        Some(value) if value.is_empty() => Err(malformed(class, format!("the attribute `{name}` is empty"))),
        Some(value) => short(name, &value).map(|()| value.into_owned()),
    }
}

fn short(name: &str, value: &str) -> Result<(), Malformed> {
    if value.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let error = format!("the attribute `{name}` has {} bytes, the limit is {NAME_BYTES_MAX}", value.len());
    Err(malformed(Class::Invalid, error))
}

fn unreadable(error: &serde_json::Error) -> Malformed {
    let class = if error.is_data() { Class::Invalid } else { Class::Unreadable };
    malformed(class, format!("expected an event in JSON: {error}"))
}

fn malformed(class: Class, error: impl Into<String>) -> Malformed {
    Malformed::new(class, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Properties;
    use crate::domain::trace::{TRACEPARENT, TRACESTATE};

    fn check(body: &str, properties: Properties, expected: &str) {
        let message = Message { body: Bytes::copy_from_slice(body.as_bytes()), properties, ..Message::default() };
        let found = match Event::decode(&message, &Reading { body_bytes_max: 200, ..Reading::default() }) {
            Ok(event) => format!("{} {} {}", event.source, event.id, event.kind),
            Err(Malformed { class, error }) => format!("{class:?}: {error}"),
        };
        assert!(found.starts_with(expected), "{body}\n found: {found}\n expected: {expected}");
    }

    fn json(kind: Option<&str>, id: Option<&str>) -> Properties {
        Properties { kind: kind.map(str::to_owned), message_id: id.map(str::to_owned), ..Properties::default() }
    }

    fn typed(content_type: &str) -> Properties {
        Properties { content_type: Some(content_type.into()), ..Properties::default() }
    }

    #[test]
    fn decodes() {
        let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":{}}"#;
        check(good, typed(CLOUDEVENTS_JSON), "/s 1 a.b");
        check(good, typed("application/cloudevents+json; charset=utf-8"), "/s 1 a.b");
        check(good, Properties::default(), "/s 1 a.b");
        check(r#"{"x":1}"#, json(Some("a.b"), Some("7")), "/amqp/anonymous/a.b 7 a.b");
        check(r"[1]", Properties { app_id: Some("shop".into()), ..json(Some("a"), Some("7")) }, "/amqp/shop/a 7 a");
    }

    #[test]
    fn refuses() {
        let ce = || typed(CLOUDEVENTS_JSON);
        check("{", ce(), "Unreadable: expected an event in JSON");
        check("[]", ce(), "Invalid: expected an event in JSON");
        check(r#"["1.0","1","/s","a",null,null,null,null]"#, ce(), "Invalid: expected a JSON object, found an array");
        check(r#"{"specversion":"0.3","id":"1"}"#, ce(), "Invalid: expected specversion \"1.0\", found \"0.3\"");
        check(r#"{"specversion":"1.0","source":"/s","type":"a"}"#, ce(), "Unidentified: expected the attribute `id`");
        check(r#"{"specversion":"1.0","id":"","source":"/s","type":"a"}"#, ce(), "Unidentified: the attribute `id` is");
        check(r#"{"specversion":"1.0","id":"1","type":"a"}"#, ce(), "Unidentified: expected the attribute `source`");
        check(r#"{"specversion":"1.0","id":"1","source":"/s"}"#, ce(), "Invalid: expected the attribute `type`");
        check("{}", json(Some("a"), None), "Unidentified: expected the message property `message_id`");
        check("{}", json(None, Some("1")), "Invalid: expected CloudEvents JSON, or plain JSON");
        check("hello", json(Some("a"), Some("1")), "Unreadable");
        check("hello", typed("text/plain"), "Unreadable: expected content type");
        check(
            "hello",
            typed("text/\u{1b}[31m\n"),
            "Unreadable: expected content type application/cloudevents+json or application/json, found \"text/\\u{1b}[31m\"",
        );
        let version = |version: &str| format!(r#"{{"specversion":"{version}"}}"#);
        check(&version("\\u001b"), ce(), "Invalid: expected specversion \"1.0\", found \"\\u{1b}\"");
        check(
            &version(&"9".repeat(99)),
            ce(),
            &format!("Invalid: expected specversion \"1.0\", found \"{}\"...", "9".repeat(80)),
        );
        check(&"x".repeat(201), ce(), "Invalid: the body has 201 bytes, the limit is 200");
    }

    #[test]
    fn a_plain_event_becomes_structured_and_stays_the_same() {
        let message =
            Message { body: "{\"x\":1}".into(), properties: json(Some("a"), Some("7")), ..Message::default() };
        let event = Event::decode(&message, &Reading::default()).unwrap();
        let again = Event::decode(&Message { body: event.body.clone(), ..Message::default() }, &Reading::default());
        assert_eq!(again.unwrap().digest, event.digest);
    }

    /// Also where serde does not look: in data and in extensions.
    #[test]
    fn an_event_is_utf_8() {
        for body in
            [&b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"a\",\"data\":\"\xff\"}"[..], b"\xff"]
        {
            let message = Message { body: Bytes::from_static(body), ..Message::default() };
            let message = Message { properties: typed(CLOUDEVENTS_JSON), ..message };
            let malformed = Event::decode(&message, &Reading::default()).unwrap_err();
            assert_eq!(malformed.class, Class::Unreadable);
            assert!(malformed.error.starts_with("expected an event in UTF-8"), "{malformed:?}");
        }
    }

    /// Clients write charsets and words for nothing there, or compress.
    #[test]
    fn content_encodings() {
        let encoded = |encoding: &str, body: &[u8]| {
            let properties = Properties { content_encoding: Some(encoding.into()), ..json(Some("a"), Some("7")) };
            let message = Message { body: Bytes::copy_from_slice(body), properties, ..Message::default() };
            let reading = Reading { inflated_bytes_max: 20, ..Reading::default() };
            match Event::decode(&message, &reading) {
                Ok(event) => String::from_utf8(event.body.to_vec()).unwrap(),
                Err(Malformed { class, error }) => format!("{class:?}: {error}"),
            }
        };
        let gzip = |body: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, body).unwrap();
            gzip.finish().unwrap()
        };
        for name in ["UTF-8", "utf8", "US-ASCII", "identity", "", "binary"] {
            assert!(encoded(name, b"[17]").ends_with(r#""data":[17]}"#), "{name}");
        }
        for name in ["gzip", "x-gzip", "gzip:UTF-8"] {
            assert!(encoded(name, &gzip(b"[17]")).ends_with(r#""data":[17]}"#), "{name}");
        }
        let large = encoded("gzip", &gzip(&[b' '; 21]));
        assert_eq!(large, "Invalid: the compressed body inflates to more than 20 bytes, the limit");
        let other = encoded("br", b"[17]");
        assert!(other.starts_with("Unreadable: expected a body in UTF-8, as it is or compressed with gzip"), "{other}");
        let kombu =
            Message { body: gzip(b"[17]").into(), properties: json(Some("a"), Some("7")), ..Message::default() };
        let event = Event::decode(&kombu.with("compression", "application/x-gzip"), &Reading::default()).unwrap();
        assert!(event.body.ends_with(br#""data":[17]}"#));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let structured = "\u{feff}{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"a.b\"}";
        check(structured, typed(CLOUDEVENTS_JSON), "/s 1 a.b");
        check(structured, Properties::default(), "/s 1 a.b");
        check("\u{feff}{\"n\": 1}", json(Some("a"), Some("7")), "/amqp/anonymous/a 7 a");
        let message = Message { body: structured.into(), ..Message::default() };
        assert!(Event::decode(&message, &Reading::default()).unwrap().body.starts_with(b"{"), "it goes into a payload");
    }

    /// As RabbitMQ hands over what AMQP 1.0 clients send by default.
    #[test]
    fn sections_of_amqp_1_0_are_opened() {
        let section = |body: &str| {
            let length = u8::try_from(body.len()).unwrap();
            [&[0, 0x53, 0x77, 0xa1, length][..], body.as_bytes()].concat()
        };
        let decode = |body: &[u8], properties: Properties| {
            let message = Message { body: Bytes::copy_from_slice(body), properties, ..Message::default() };
            let reading = Reading { missing_type: TypeSources::new(&[TypeSource::RoutingKey]), ..Reading::default() };
            let message = Message { routing_key: Some("order.paid".into()), ..message };
            match Event::decode(&message, &reading) {
                Ok(event) => format!("{} {} {}", event.source, event.id, event.kind),
                Err(Malformed { class, error }) => format!("{class:?}: {error}"),
            }
        };
        let event = section(r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b"}"#);
        assert_eq!(decode(&event, json(Some(AMQP_1_0), None)), "/s 1 a.b");
        // The property is the broker's word: no type.
        assert_eq!(decode(&section("[1]"), json(Some(AMQP_1_0), Some("7"))), "/amqp/anonymous/order.paid 7 order.paid");
        assert_eq!(decode(b"[1]", json(Some(AMQP_1_0), Some("7"))), "/amqp/anonymous/amqp-1.0 7 amqp-1.0");
        let map = decode(&[0, 0x53, 0x77, 0xc1, 1, 0], json(Some(AMQP_1_0), Some("7")));
        assert!(map.starts_with("Unreadable: expected the event in a data section of AMQP 1.0"), "{map}");
        assert!(map.ends_with("found an amqp-value section with a map: send a data section"), "{map}");
    }

    /// Its own form has limits, and it is read in that form later on.
    #[test]
    fn a_plain_event_has_the_limits_of_a_structured_one() {
        let long = "x".repeat(1025);
        for properties in [json(Some("a"), Some(&long)), json(Some(&long), Some("1"))] {
            let message = Message { body: "{}".into(), properties, ..Message::default() };
            let malformed = Event::decode(&message, &Reading::default()).unwrap_err();
            assert!(malformed.error.contains("bytes, the limit is 1024"), "{malformed:?}");
        }
    }

    /// What is measured is what hooks get, and some is left of 1 MiB for what they get beside it.
    #[test]
    fn an_event_is_measured_as_hooks_get_it() {
        let decode = |bytes: usize, content_type: &str| {
            let properties = Properties { content_type: Some(content_type.to_owned()), ..Properties::default() };
            let message = Message { body: vec![b'1'; bytes].into(), properties, ..Message::default() };
            let message = message.with("cloudEvents:specversion", "1.0").with("cloudEvents:id", "1");
            let message = message.with("cloudEvents:source", "/s").with("cloudEvents:type", "a");
            Event::decode(&message, &Reading::default()).map(|event| event.body.len()).map_err(|error| error.error)
        };
        assert!(decode(999_800, "text/plain").unwrap() <= BODY_BYTES_MAX);
        assert!(decode(1_000_001, "text/plain").unwrap_err().starts_with("the body has 1000001 bytes, the limit is"));
        for (bytes, content_type) in [(1_000_000, "text/plain"), (800_000, "image/png")] {
            let error = decode(bytes, content_type).unwrap_err();
            assert!(error.starts_with("in the form in which hooks get it, the event has "), "{error}");
        }
    }

    /// Headers go first, and parent and state are of one place.
    #[test]
    fn a_trace_context_is_taken_from_headers_or_attributes() {
        let check = |headers: &[(&str, &str)], attributes: &str, expected: Option<(&str, Option<&str>)>| {
            let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a"{attributes}}}"#);
            let message = Message { body: body.into(), ..Message::default() };
            let message = headers.iter().fold(message, |message, (name, value)| message.with(name, *value));
            let trace = Event::decode(&message, &Reading::default()).unwrap().trace;
            let found = trace.as_ref().map(|trace| (trace.parent().unwrap(), trace.state()));
            assert_eq!(found, expected, "{headers:?} {attributes}");
        };
        let [of_header, of_attribute] = [1, 2].map(|trace| format!("00-{trace:032x}-00f067aa0ba902b7-01"));
        let own = format!(r#","traceparent":"{of_attribute}","tracestate":"own=1""#);
        let own = own.as_str();
        check(&[], "", None);
        check(&[(TRACEPARENT, &of_header)], "", Some((&of_header, None)));
        check(&[(TRACEPARENT, &of_header), (TRACESTATE, "a=1")], "", Some((&of_header, Some("a=1"))));
        check(&[], own, Some((&of_attribute, Some("own=1"))));
        check(&[(TRACEPARENT, &of_header)], own, Some((&of_header, None)));
        check(&[(TRACESTATE, "a=1")], own, Some((&of_attribute, Some("own=1"))));
        check(&[(TRACEPARENT, "00-1-2-01")], own, Some((&of_attribute, Some("own=1"))));
    }
}
