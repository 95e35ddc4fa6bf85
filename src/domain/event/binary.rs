//! CloudEvents in binary mode: attributes in headers, data in the body (AMQP protocol binding 1.0.2, 3.1). The gateway
//! brings HTTP's `ce-` headers into the same form first, so that there is one way in.
//!
//! Bindings name the headers in their own ways, and brokers hand messages over from one protocol to another: `cloudEvents:`
//! and `cloudEvents_` are AMQP's, `ce-` is HTTP's and that of Knative's RabbitMQ binding, `ce_` is Kafka's. MQTT 5 has no
//! prefix at all (MQTT protocol binding 1.0.2, 3.1.3).
//!
//! What hooks get is the structured form: attributes keep their names, `data` is JSON where the content type says so,
//! text where it is text in UTF-8, and `data_base64` otherwise.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use super::{Malformed, essence, malformed};
use crate::domain::escape::quoted;
use crate::domain::failure::Class;
use crate::domain::json;
use crate::domain::message::{Header, Message};

/// What the names of headers that are attributes begin with.
const PREFIXES: [&str; 4] = ["cloudEvents:", "cloudEvents_", "ce-", "ce_"];
/// Any of these in a header makes a message binary; all of them are required then.
const MANDATORY: [&str; 4] = ["specversion", "id", "source", "type"];
/// Attributes that are text by the specification: a number of a client that writes its ids as numbers is read as text.
const TEXTS: [&str; 8] = ["specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"];
/// Stands for what is no text: bytes that are no UTF-8, tables, arrays.
const UNREADABLE: char = char::REPLACEMENT_CHARACTER;

/// How the headers of a message name attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By one of the prefixes.
    Prefixed,
    /// As they are called, among other headers.
    Bare,
}

impl Naming {
    /// How the headers of these names name attributes. Bare ones need all that an event must have; one with a prefix is
    /// enough, so that a mistake among them is told.
    #[must_use]
    pub fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut bare = [false; MANDATORY.len()];
        for header in headers {
            if attribute(header).is_some_and(|name| MANDATORY.contains(&name)) {
                return Some(Self::Prefixed);
            }
            if let Some(place) = MANDATORY.iter().position(|name| *name == header) {
                bare[place] = true;
            }
        }
        bare.iter().all(|found| *found).then_some(Self::Bare)
    }

    /// The attribute that a header holds, if it holds one.
    #[must_use]
    pub fn attribute(self, header: &str) -> Option<&str> {
        match self {
            Self::Prefixed => attribute(header),
            Self::Bare => Some(header).filter(|header| is_name(header)),
        }
    }
}

/// The attribute that a header with a prefix holds, if it holds one.
#[must_use]
pub fn attribute(header: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix))
}

/// Stands in place of an attribute's value that has no form as text; `what` is what was found, such as `a table`. Left
/// out, the attribute would make another event.
#[must_use]
pub fn unreadable(what: &str) -> Header {
    Header::Text(format!("{UNREADABLE}{what}"))
}

/// CloudEvents 1.0.2, 3.1: attribute names.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The header that an attribute travels in.
#[must_use]
pub fn header(attribute: &str) -> String {
    format!("{}{attribute}", PREFIXES[0])
}

/// How attributes stand in the headers, if they do.
pub(super) fn naming(message: &Message) -> Option<Naming> {
    Naming::of(message.headers.keys().map(String::as_str))
}

/// The event in structured JSON.
pub(super) fn structured(message: &Message, naming: Naming) -> Result<Bytes, Malformed> {
    let given = message.properties.content_type.as_deref().filter(|given| !given.is_empty());
    let mut attributes = attributes(message, naming)?;
    if let Some(given) = given {
        attributes.insert("datacontenttype", Header::from(given));
    }
    let content_type = attributes.get("datacontenttype").and_then(Header::as_text).map(str::to_owned);
    let whole = Whole { attributes, data: data(content_type.as_deref(), &message.body)? };
    // Strings, numbers and checked JSON always serialize.
    Ok(Bytes::from(serde_json::to_vec(&whole).unwrap_or_default()))
}

fn attributes(message: &Message, naming: Naming) -> Result<BTreeMap<&str, Header>, Malformed> {
    let mut attributes = BTreeMap::new();
    for (header, value) in &message.headers {
        let Some(name) = naming.attribute(header) else { continue };
        if !is_name(name) {
            let error = format!("expected attribute names of a-z and 0-9, found the header {}", quoted(header));
            return Err(malformed(Class::Invalid, error));
        }
        if name == "data" {
            return Err(malformed(Class::Invalid, "expected the data in the body, found it in a header"));
        }
        let class = if matches!(name, "id" | "source") { Class::Unidentified } else { Class::Invalid };
        let value = canonical(name, value).map_err(|error| malformed(class, error))?;
        if attributes.get(name).is_some_and(|other| *other != value) {
            return Err(malformed(class, format!("the attribute `{name}` is given twice, with different values")));
        }
        attributes.insert(name, value);
    }
    Ok(attributes)
}

/// The value of an attribute as the structured form has it.
fn canonical(name: &str, value: &Header) -> Result<Header, String> {
    let found = |what: &str| format!("expected the attribute `{name}` as a text in UTF-8, found {what}");
    match value {
        Header::Text(text) => match text.strip_prefix(UNREADABLE) {
            Some(what @ ("a table" | "an array")) => Err(found(what)),
            Some("a time") => Err(found("a time beyond the years 0 to 9999")),
            _ if text.contains(UNREADABLE) => Err(found("other bytes")),
            _ if name == "time" => match milliseconds(text) {
                Some(ms) => time(ms).map(Header::Text),
                None => Ok(value.clone()),
            },
            _ => Ok(value.clone()),
        },
        Header::Number(ms) if name == "time" => time(*ms).map(Header::Text),
        Header::Number(number) if TEXTS.contains(&name) => Ok(Header::Text(number.to_string())),
        Header::Flag(flag) if TEXTS.contains(&name) => Ok(Header::Text(flag.to_string())),
        Header::Flag(_) | Header::Number(_) => Ok(value.clone()),
    }
}

/// A number that a protocol without numbers in its headers has made a text.
fn milliseconds(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The form of a time in events (RFC 3339). A number is milliseconds since 1970, as timestamps of AMQP 1.0 are (part 1,
/// 1.6.17): SDKs write it so where a client library has no such type.
fn time(ms: i64) -> Result<String, String> {
    let shown = |time: jiff::Timestamp| if ms % 1000 == 0 { time.to_string() } else { format!("{time:.3}") };
    let time = jiff::Timestamp::from_millisecond(ms).ok().map(shown);
    let expected = "expected `time` as RFC 3339, an AMQP timestamp, or milliseconds since 1970";
    time.filter(|text| text.as_bytes().first().is_some_and(u8::is_ascii_digit))
        .ok_or_else(|| format!("{expected}; found {ms}, which is beyond the years 0 to 9999"))
}

enum Data<'a> {
    None,
    Json(&'a RawValue),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// Without a content type, JSON is taken for JSON (JSON event format, 3.1.1) and anything else for bytes.
fn data<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Data<'a>, Malformed> {
    if body.is_empty() {
        return Ok(Data::None);
    }
    let json = serde_json::from_slice::<&RawValue>(json::without_mark(body));
    let essence = content_type.map(essence);
    Ok(match essence.as_deref() {
        Some(essence) if is_json(essence) => match json {
            Ok(json) => Data::Json(json),
            Err(error) => return Err(malformed(Class::Unreadable, format!("expected data in JSON: {error}"))),
        },
        Some(essence) if essence.starts_with("text/") => match std::str::from_utf8(body) {
            Ok(text) if in_utf8(content_type) => Data::Text(text),
            _ => Data::Bytes(body),
        },
        Some(_) => Data::Bytes(body),
        None => json.map_or(Data::Bytes(body), Data::Json),
    })
}

/// By the JSON event format (3.1): the subtype `json`, or one that ends in `+json`.
fn is_json(essence: &str) -> bool {
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// Whether a text is declared as UTF-8, or as nothing.
fn in_utf8(content_type: Option<&str>) -> bool {
    let parameters = content_type.unwrap_or_default().split(';').skip(1);
    let charset = parameters.filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    charset.is_none_or(|charset| matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii"))
}

/// An event as one JSON object.
struct Whole<'a> {
    attributes: BTreeMap<&'a str, Header>,
    data: Data<'a>,
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.attributes {
            map.serialize_entry(name, value)?;
        }
        match self.data {
            Data::None => {}
            Data::Json(json) => map.serialize_entry("data", json)?,
            Data::Text(text) => map.serialize_entry("data", text)?,
            Data::Bytes(bytes) => map.serialize_entry("data_base64", &STANDARD.encode(bytes))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
