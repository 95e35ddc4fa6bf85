//! A builder of events that cannot make an invalid one.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::event::{Event, InvalidEvent};
use super::reading::{Fields, Rejected, from_fields};
use crate::domain::escape::quoted;
use crate::domain::event::Reading;
use crate::domain::message::Header;

/// Names that are no extension's.
const RESERVED: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// An event in the making; see [`Event::builder`]. Mistakes are told by [`EventBuilder::build`].
///
/// ```
/// let error = hookfleet::Event::builder("order.paid").source("not a URI").build().unwrap_err();
/// assert_eq!(error.to_string(), "expected `source` to be a URI reference, found \"not a URI\"");
/// ```
#[derive(Debug, Clone)]
#[must_use = "an event is made by `build`"]
pub struct EventBuilder {
    fields: Fields,
    /// The first mistake.
    wrong: Option<InvalidEvent>,
}

impl Event {
    /// Begins an event of a type, such as `order.paid`. What is left out is filled in: a random id, the source
    /// `/hookfleet/publish`.
    pub fn builder(kind: &str) -> EventBuilder {
        EventBuilder { fields: Fields::new(), wrong: None }.text("type", kind)
    }
}

impl EventBuilder {
    /// Who says so, a URI reference such as `/shop/checkout`.
    pub fn source(self, source: &str) -> Self {
        if source.contains(char::is_whitespace) {
            return self.mistake(format!("expected `source` to be a URI reference, found {}", quoted(source)));
        }
        self.text("source", source)
    }

    /// What it happened to, such as `order-17`.
    pub fn subject(self, subject: &str) -> Self {
        self.text("subject", subject)
    }

    /// The event's id, unique within its source: choose it from what happened (`order-17-paid`), and an event that is
    /// published twice, by a crash or by chance, is handled once.
    pub fn id(self, id: &str) -> Self {
        self.text("id", id)
    }

    /// When it happened.
    pub fn time(self, time: SystemTime) -> Self {
        match jiff::Timestamp::try_from(time) {
            Ok(time) => self.text("time", &time.to_string()),
            Err(error) => self.mistake(format!("expected `time` to be between the years -9999 and 9999: {error}")),
        }
    }

    /// The data, as JSON.
    pub fn data<T: Serialize + ?Sized>(self, data: &T) -> Self {
        match to_raw_value(data) {
            Ok(data) => self.text("datacontenttype", "application/json").insert("data", data),
            Err(error) => self.mistake(format!("expected data that can be written as JSON: {error}")),
        }
    }

    /// An extension attribute; its name is of a-z and 0-9, its value a text, a flag or a number of 32 bits.
    ///
    /// ```
    /// let event = hookfleet::Event::builder("task.done").extension("tenant", "acme").extension("retries", 3);
    /// assert!(event.build().is_ok());
    /// ```
    pub fn extension(self, name: &str, value: impl Into<Header>) -> Self {
        let legal = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !legal || RESERVED.contains(&name) {
            return self
                .mistake(format!("expected an extension's name of a-z and 0-9 of its own, found {}", quoted(name)));
        }
        match value.into() {
            Header::Text(text) => self.text(name, &text),
            Header::Number(number) if i32::try_from(number).is_err() => {
                self.mistake(format!("expected `{name}` to be a number of 32 bits, found {number}"))
            }
            value @ (Header::Number(_) | Header::Flag(_)) => self.value(name, &value),
        }
    }

    /// The event.
    ///
    /// # Errors
    /// The first mistake, in a sentence. The limit on an event's size is the publisher's matter.
    pub fn build(self) -> Result<Event, InvalidEvent> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let reading = Reading { body_bytes_max: usize::MAX, ..Reading::default() };
        from_fields(self.fields, None, &reading).map_err(|rejected| match rejected {
            Rejected::ContentType(error)
            | Rejected::Coding(error)
            | Rejected::Event(error)
            | Rejected::TooLarge(error) => InvalidEvent(error),
        })
    }

    /// Control characters are in no attribute (CloudEvents 1.0.2, 2.4).
    fn text(self, name: &str, text: &str) -> Self {
        if text.is_empty() || text.contains(char::is_control) {
            return self.mistake(format!("expected `{name}` to be text without control characters, found {text:?}"));
        }
        self.value(name, text)
    }

    fn value<T: Serialize + ?Sized>(self, name: &str, value: &T) -> Self {
        match to_raw_value(value) {
            Ok(value) => self.insert(name, value),
            Err(error) => self.mistake(format!("`{name}`: {error}")),
        }
    }

    fn insert(mut self, name: &str, value: Box<RawValue>) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    fn mistake(mut self, error: String) -> Self {
        self.wrong.get_or_insert(InvalidEvent(error));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(builder: EventBuilder, expected: &str) {
        let found = match builder.build() {
            Ok(event) => String::from_utf8(event.json().to_vec()).unwrap(),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "found: {found}\n expected: {expected}");
    }

    fn event() -> EventBuilder {
        Event::builder("a.b").source("/s").id("7")
    }

    #[test]
    fn builds() {
        check(event(), r#"{"id":"7","source":"/s","specversion":"1.0","type":"a.b"}"#);
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_522_900_584_250);
        check(event().time(time), r#"{"id":"7","source":"/s","specversion":"1.0","time":"2018-04-05T03:56:24.25Z","#);
        let data = event().data(&[1, 2]).subject("x").extension("retry", 3).extension("ok", true).extension("a1", "z");
        let rest = r#""id":"7","ok":true,"retry":3,"source":"/s","specversion":"1.0","subject":"x","type":"a.b"}"#;
        check(data, &format!(r#"{{"a1":"z","data":[1,2],"datacontenttype":"application/json",{rest}"#));
        let raw = RawValue::from_string("18446744073709551617".to_owned()).unwrap();
        check(event().data(&raw), r#"{"data":18446744073709551617,"#);
        let assigned = Event::builder("a").build().unwrap();
        assert_eq!((assigned.id().len(), assigned.source(), assigned.kind()), (32, "/hookfleet/publish", "a"));
    }

    #[test]
    fn builds_nothing_invalid() {
        check(Event::builder(""), "expected `type` to be text");
        check(event().id(""), "expected `id` to be text");
        check(event().id("a\nb"), "expected `id` to be text without control characters, found \"a\\nb\"");
        check(event().id(&"x".repeat(1025)), "the attribute `id` has 1025 bytes, the limit is 1024");
        check(event().source("a b"), "expected `source` to be a URI reference, found \"a b\"");
        check(event().extension("Retry", 1), "expected an extension's name");
        check(event().extension("data", 1), "expected an extension's name");
        check(event().extension("id", "x"), "expected an extension's name");
        check(event().extension("", 1), "expected an extension's name");
        check(event().extension("n", i64::MAX), "expected `n` to be a number of 32 bits");
        check(event().data(&std::collections::HashMap::from([((1, 2), 3)])), "expected data that can be written");
        check(event().id("").subject(""), "expected `id`");
    }
}
